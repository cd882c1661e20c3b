"""export: files that compute what the model computes, at any size."""
import re
import subprocess
import venv

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict

from cac_mmseg.commands import export
from cac_mmseg.stack.checkpoint import load_model

SIZE = '--size', '64', '96'


def test_a_program_computes_the_logits_at_any_size(configs, tmp_path, cli):
    """Of a model of fewer layers than that of the slow test."""
    config, weights = tmp_path / 'config.py', tmp_path / 'weights.pth'
    out = tmp_path / 'model.pt2'
    config.write_text(f"""
_base_ = '{configs}/cac_r18_contextshapes.py'
model = dict(
    backbone=dict(num_stages=1, out_indices=[0], strides=[2], dilations=[1]),
    decode_head=dict(in_channels=64, dilations=(1, 3)))
""")
    model = load_model(config).train()
    model(torch.randn(2, 3, 64, 96))  # statistics of the norms
    torch.save(model.state_dict(), weights)
    output = cli(f'export {config} {weights} --out {out}', *SIZE)[1]
    assert 'of the model at other sizes' in output
    program = torch.export.load(out)
    assert 'cac_mmseg' not in program.graph_module.code
    network = export.build(config, weights)
    image = torch.randn(3, 3, 90, 71)
    with torch.no_grad():
        logits = network(image)
        assert logits.shape == (3, 4, 90, 71)
        torch.testing.assert_close(
            program.module()(image), logits, rtol=1e-4, atol=1e-4)
    assert {*tmp_path.iterdir()} == {config, weights, out}


READER = '''
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession('model.onnx')
for i in range(2):
    logits, = session.run(None, dict(image=np.load(f'image{i}.npy')))
    np.save(f'classes{i}.npy', logits.argmax(1))
'''


@pytest.mark.slow
def test_onnx_runs_where_there_is_nothing_but_onnxruntime(
        shapes, tmp_path, cli):
    out = tmp_path / 'model.onnx'
    cli(f'export {shapes.config} {shapes.weights} --out {out}', *SIZE)
    network = export.build(shapes.config, shapes.weights)
    images = [torch.randn(1, 3, 80, 112), torch.randn(3, 3, 65, 131)]
    for i, image in enumerate(images):
        np.save(tmp_path / f'image{i}.npy', image.numpy())
    venv.create(tmp_path / 'venv', with_pip=True)
    python = tmp_path / 'venv/bin/python'
    for command in ('-m pip install -q onnxruntime'.split(), ['-c', READER]):
        subprocess.run([python, *command], cwd=tmp_path, check=True)
    for i, image in enumerate(images):
        with torch.no_grad():
            expected = network(image).argmax(1).numpy()
        # two logits that are equal but for rounding may change places
        same = np.load(tmp_path / f'classes{i}.npy') == expected
        assert same.mean() > 0.999


class Scaled(torch.nn.Module):
    """A network whose logits are of any size, and what is added to them."""

    def __init__(self, scale, offset=0.):
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, image):
        return image * self.scale + self.offset


@pytest.mark.parametrize('scale, offset, words', [
    (1., 0.01, 'not written: its logits would differ'),
    (1e-5, 1e-7, 'not written: its logits would differ'),
    (1., float('nan'), 'not written: .* logits of the file are NaN'),
    (1., float('inf'), 'not written: .* logits of the file are NaN or inf'),
    (1e4, 0.01, None),
])
def test_a_file_that_computes_something_else_is_not_written(
        tmp_path, monkeypatch, scale, offset, words):
    """Relative to the largest logit, whatever that is."""

    def write(network, file, image):
        file.touch()
        return Scaled(scale, offset)

    monkeypatch.setattr(export, '_write_program', write)
    arguments = Scaled(scale), tmp_path / 'model.pt2', (64, 96)
    if words is None:
        export.export(*arguments)
        return
    with pytest.raises(ValueError, match=words):
        export.export(*arguments)
    assert not [*tmp_path.glob('model*')]


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_model_without_finite_logits_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match='logits of the model are NaN'):
        export.export(Scaled(1., value), tmp_path / 'model.pt2', (64, 96))
    assert not [*tmp_path.glob('model*')]


def test_it_says_how_logits_become_classes(shapes):
    model = export.build(shapes.config, shapes.weights).model
    assert [*export.how_to_use(model)] == ['classes: logits.argmax(1)']
    model.decode_head.out_channels, model.decode_head.threshold = 1, 0.3
    line, = export.how_to_use(model)
    bound = float(re.search('> (.*),', line)[1])
    assert torch.tensor(bound).sigmoid() == pytest.approx(0.3, abs=1e-4)
    model.test_cfg = ConfigDict(
        mode='slide', crop_size=(64, 64), stride=(32, 32))
    _, line = export.how_to_use(model)
    assert "mode='slide'" in line and 'in one piece' in line


def test_what_needs_no_model_is_checked_before_one_is_built(
        tmp_path, monkeypatch, cli):
    monkeypatch.setattr(export, 'build', None)
    monkeypatch.setattr(export, 'find_spec', lambda name: None)
    for out, words in (('a.txt', 'must end on'), ('no/a.pt2', 'not a folder'),
                       ('a.onnx', 'pip install onnx onnxscript')):
        code, output = cli('export a.py a.pth --out', tmp_path / out)
        assert code == 2 and words in output
