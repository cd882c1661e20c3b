"""export: files that compute what the model computes, and say what it is."""
import json
import re
import subprocess
import venv
from zipfile import ZipFile

import cv2
import pytest
import torch
from conftest import ROOT
from mmseg.evaluation import IoUMetric
from mmseg.registry import MODELS

from cac_mmseg import CaCHead
from cac_mmseg.deploy import runtime, write
from cac_mmseg.deploy.network import Network
from cac_mmseg.deploy.score import scores
from cac_mmseg.drawing.reader import Reader
from cac_mmseg.stack.checkpoint import load_model
from cac_mmseg.stack.config import build_datasets

SIZE = '--size', '64', '96'
# of this machine, and of whoever built its wheels
PATH = re.compile(rb'(?:/(?:home|usr|tmp|opt|work|root)|site-packages)/')


@pytest.fixture(scope='module')
def small(tmp_path_factory, configs):
    """A config of few layers and images, and weights."""
    folder = tmp_path_factory.mktemp('small')
    config, weights = folder / 'config.py', folder / 'weights.pth'
    config.write_text(f"""
_base_ = '{configs}/cac_r18_contextshapes.py'
model = dict(
    backbone=dict(num_stages=1, out_indices=[0], strides=[2], dilations=[1]),
    decode_head=dict(in_channels=64, channels=16, dilations=(1, 3)))
train_dataloader = dict(dataset=dict(num_images=6))
test_dataloader = dict(dataset=dict(num_images=6))
""")
    model = load_model(config).train()
    head = model.decode_head
    torch.nn.init.normal_(head.conv_seg.weight)
    data, = build_datasets(model.cfg, 'test')
    images = torch.stack([data[i]['inputs'] for i in range(4)]).float()
    with torch.no_grad():
        for _ in range(20):  # statistics of the norms
            logits = model((images - 120) / 60)
        head.conv_seg.bias -= logits.mean((0, 2, 3))
    torch.save(model.state_dict(), weights)
    return config, weights


def content(file):
    """The bytes of a file, or of all that an archive holds."""
    if file.suffix == '.onnx':
        return file.read_bytes()
    with ZipFile(file) as archive:
        return b''.join(map(archive.read, archive.namelist()))


def test_a_program_computes_the_logits_at_any_size(small, tmp_path, cli):
    out = tmp_path / 'model.pt2'
    code, output = cli('export', *small, '--out', out, *SIZE)
    assert code == 0 and 'of the largest, at other sizes too' in output
    program = torch.export.load(out)
    assert 'cac_mmseg' not in program.graph_module.code
    network = Network(load_model(*small))
    image = torch.randn(3, 3, 90, 71)
    with torch.no_grad():
        logits = network(image)
        assert logits.shape == (3, 4, 90, 71)
        torch.testing.assert_close(
            program.module()(image), logits, rtol=1e-4, atol=1e-4)
    assert not PATH.search(content(out))
    facts = runtime.load(out).facts
    assert facts['classes'] == [
        'background', 'tree', 'waiting car', 'driving car'
    ]
    assert facts['channel_order'] == 'RGB' and facts['mean'][0] == 123.675
    assert [*tmp_path.iterdir()] == [out]


def test_a_program_of_classes_scores_as_the_model(small, tmp_path, cli):
    """For one size and one batch, from raw images, on the test data."""
    out = tmp_path / 'model.pt2'
    options = '--size 128 192 --static --raw --output classes --batch 2'
    cli('export', *small, '--out', out, *options.split())
    network = torch.export.load(out).module()
    classes = network(torch.zeros(2, 3, 128, 192, dtype=torch.uint8))
    assert classes.shape == (2, 128, 192)
    code, output = cli('predict', out, '--against', *small)
    lines = [[*map(str.strip, line.split('|'))]
             for line in output.splitlines() if line.startswith('| ')]
    assert code == 0 and lines[0][3] == 'mIoU'
    model, file = (float(line[3]) for line in lines[-2:])
    assert model > 0.5 and file == pytest.approx(model, abs=0.02)


@pytest.mark.slow
def test_onnx_runs_where_there_is_no_torch(small, tmp_path, cli):
    out = tmp_path / 'model.onnx'
    assert cli('export', *small, '--out', out, *SIZE)[0] == 0
    assert not PATH.search(content(out))
    other = tmp_path / 'other.onnx'
    code, output = cli('export', *small, '--out', other, *SIZE, '--opset',
                       '99')
    assert code == 2 and 'cannot convert it to 99' in output
    assert not other.exists()
    import onnx
    image, = onnx.load(out).graph.input
    assert [
        axis.dim_param or axis.dim_value
        for axis in image.type.tensor_type.shape.dim
    ] == ['batch', 3, 'height', 'width']
    model = load_model(*small)
    data, = build_datasets(model.cfg, 'test')
    reader, metric = Reader(data), IoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = data.metainfo
    samples = [reader.load(data.get_data_info(i)) for i in range(len(data))]
    (tmp_path / 'images').mkdir()
    for i, sample in enumerate(samples):
        cv2.imwrite(str(tmp_path / f'images/{i}.png'), sample.image)
    venv.create(tmp_path / 'venv', with_pip=True)
    python = tmp_path / 'venv/bin/python'
    for arguments in (
            'pip install -q numpy opencv-python-headless onnxruntime',
            f'pip install -q --no-deps {ROOT}',
            'cac_mmseg predict model.onnx images --out out'):
        subprocess.run([python, '-m', *arguments.split()],
                       cwd=tmp_path,
                       check=True)
    for i, sample in enumerate(samples):
        labels = cv2.imread(
            str(tmp_path / f'out/{i}.png'), cv2.IMREAD_UNCHANGED)
        metric.process({}, [
            dict(
                pred_sem_seg=dict(data=torch.from_numpy(labels)),
                gt_sem_seg=dict(data=torch.from_numpy(sample.labels)))
        ])
    expected, = scores(model, [])
    assert metric.evaluate(len(data))['mIoU'] == pytest.approx(
        expected['mIoU'], abs=0.0101)
    overlay = cv2.imread(str(tmp_path / 'out/overlays/0.png'))
    assert overlay.shape == samples[0].image.shape


@pytest.mark.slow
@pytest.mark.parametrize('option', ['--int8 4', '--fp16'])
def test_smaller_files_predict_nearly_the_same(small, tmp_path, cli, option):
    """On any processor: int8 does not saturate where VNNI is missing."""
    files = tmp_path / 'float.onnx', tmp_path / 'small.onnx'
    assert cli('export', *small, '--out', files[0], *SIZE)[0] == 0
    code, output = cli('export', *small, '--out', files[1], *SIZE,
                       *option.split())
    assert code == 0 and '| before' in output and '| after' in output
    assert files[1].stat().st_size < 0.8 * files[0].stat().st_size
    assert not PATH.search(content(files[1]))
    before, after = map(runtime.load, files)
    assert after.facts['precision'] == option[2:6].replace('fp16', 'float16')
    assert {**after.facts, 'precision': 'float32'} == before.facts
    data, = build_datasets(load_model(small[0]).cfg, 'test')
    image = Reader(data).load(data.get_data_info(0)).image
    scores, found = (f.network(f.prepare(image)) for f in (before, after))
    assert rms(found -
               scores) < (0.4 if 'int8' in option else 0.01) * rms(scores)
    if 'int8' in option:  # 64 times 2 times 255 fits 16 bits
        import onnx
        weights = [
            onnx.numpy_helper.to_array(t)
            for t in onnx.load(files[1]).graph.initializer
            if t.data_type == onnx.TensorProto.INT8
        ]
        assert max(abs(w.astype(int)).max() for w in weights) == 64


def rms(values):
    return float((values**2).mean()**0.5)


class Scaled(torch.nn.Module):
    """A network whose logits are of any size, and what is added to them."""

    output = 'logits'

    def __init__(self, scale, offset=0.):
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, image):
        return image * self.scale + self.offset

    def example(self, shape):
        return torch.randn(tuple(shape))


@pytest.mark.parametrize('scale, offset, words', [
    (1., 0.01, 'not written.*: its scores would differ'),
    (1e-5, 1e-7, 'not written.*: its scores would differ'),
    (1., float('nan'), 'not written.*: .* scores of the file are NaN'),
    (1., float('inf'), 'not written.*: .* scores of the file are NaN or inf'),
    (1e4, 0.01, None),
])
def test_a_file_that_computes_something_else_is_not_written(
        tmp_path, monkeypatch, scale, offset, words):
    """Relative to the largest logit, whatever that is."""

    def written(network, file, *rest):
        file.touch()
        return Scaled(scale, offset)

    monkeypatch.setattr(write, '_write_program', written)
    arguments = Scaled(scale), Scaled(scale), tmp_path / 'model.pt2', (2, 3,
                                                                       64,
                                                                       96), {}
    if words is None:
        write.export(*arguments)
        return
    with pytest.raises(ValueError, match=words) as error:
        write.export(*arguments)
    assert '--static' not in str(error.value)  # it would not help
    assert not [*tmp_path.glob('model*')]


def test_a_file_that_is_right_at_one_size_only_may_be_static(
        tmp_path, monkeypatch):

    def written(network, file, *rest):
        file.touch()
        return lambda x: x if x.shape[2] == 64 else x + 1

    monkeypatch.setattr(write, '_write_program', written)
    with pytest.raises(ValueError, match='try --batch 1 or --static'):
        write.export(
            Scaled(1.), Scaled(1.), tmp_path / 'model.pt2', (2, 3, 64, 96), {})


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_model_without_finite_logits_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match='scores of the model are NaN'):
        write.export(
            Scaled(1., value), Scaled(1., value), tmp_path / 'model.pt2',
            (2, 3, 64, 96), {})
    assert not [*tmp_path.glob('model*')]


def test_classes_may_differ_where_logits_are_equal_but_for_rounding():

    class Margins(Scaled):
        output = 'classes'

        def margins(self, image):
            return image * torch.tensor([1, 1 + self.offset])[:, None, None]

        def forward(self, image):
            return self.margins(image).argmax(1)

    image = torch.ones(1, 2, 4, 4)
    assert write.compare(lambda x: torch.zeros(1, 4, 4), Margins(1, 1e-6),
                         image) < 1e-5
    with pytest.raises(AssertionError, match='would differ'):
        write.compare(lambda x: torch.zeros(1, 4, 4), Margins(1, 0.1), image)


@pytest.mark.parametrize('options, words', [
    ('--out a.txt', 'must end on'),
    ('--out no/a.pt2', 'not a folder'),
    ('--out .', 'must end on'),
    ('--out a.onnx', 'pip install onnx onnxscript onnxruntime'),
    ('--out a.pt2 --static', 'give it by --size H W'),
    ('--out a.pt2 --size 8 64', 'must be >= 64'),
    ('--out a.pt2 --int8 4', 'need --out FILE.onnx'),
    ('--out a.pt2 --opset 18', 'need --out FILE.onnx'),
    ('--out a.pt2 --int8 0', 'must be >= 1'),
    ('--out a.pt2 --int8 4 --fp16', 'not allowed with'),
    ('--out a.onnx --opset 11', 'must be >= 18'),
    ('--out a.pt2 --output masks', 'invalid choice'),
])
def test_what_needs_no_model_is_checked_before_one_is_built(
        tmp_path, monkeypatch, cli, options, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(write, 'find_spec', lambda name: None)
    code, output = cli('export no.py no.pth', *options.split())
    assert code == 2 and words in ' '.join(output.split())
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize('changes, options, words', [
    ("test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(32, 32))",
     '--output classes', 'tests images in windows'),
    ('data_preprocessor=dict(test_cfg=dict(size_divisor=32))', '--raw',
     'pads images after they are normalised'),
])
def test_options_that_do_not_fit_the_config(small, tmp_path, cli, changes,
                                            options, words):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{small[0]}'\nmodel = dict({changes})\n")
    code, output = cli('export', config, small[1], '--out', tmp_path / 'a.pt2',
                       *options.split())
    assert code == 2 and words in ' '.join(output.split())
    assert [*tmp_path.iterdir()] == [config]


@pytest.mark.parametrize('change', [
    'test_evaluator = None\nval_evaluator = None',
    'test_dataloader = None\ntest_cfg = None\ntest_evaluator = None\n'
    'val_evaluator = None\n'
])
def test_scores_need_an_evaluator(small, tmp_path, change):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{small[0]}'\n{change}\n")
    with pytest.raises(ValueError, match='has no test_evaluator with'):
        scores(load_model(config), [])


def test_scores_of_a_config_without_a_test_are_those_of_val(small, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{small[0]}'\ntest_dataloader = None\n"
                      'test_cfg = None\ntest_evaluator = None\n'
                      'val_dataloader = dict(dataset=dict(num_images=2))\n')
    found, = scores(load_model(config, small[1]), [])
    assert 0 <= found['mIoU'] <= 100


def test_facts_are_json(small):
    """No tuple or array that would come back as something else."""
    from cac_mmseg.deploy.facts import facts_of
    facts = facts_of(load_model(*small), size=(64, 96))
    assert json.loads(json.dumps(facts)) == facts


@MODELS.register_module()
class InvertedHead(CaCHead):
    """Changes a part that the export of a CaCHead replaces."""

    def _transform_inputs(self, inputs):
        return -super()._transform_inputs(inputs)


@MODELS.register_module()
class CentredHead(CaCHead):
    """Changes logits after forward, where no file looks."""

    def predict_by_feat(self, logits, metas):
        logits = super().predict_by_feat(logits, metas)
        return logits - logits.mean((2, 3), keepdim=True)


@MODELS.register_module()
class BranchingHead(CaCHead):
    """Cannot be traced."""

    def _transform_inputs(self, inputs):
        inputs = super()._transform_inputs(inputs)
        return inputs if inputs.mean() > 0 else -inputs


@pytest.mark.parametrize('head, words', [
    ('BranchingHead', 'cannot be exported: '),
    ('InvertedHead', 'decode_head is exported as it is'),
    ('CentredHead', 'not written'),
])
def test_a_head_of_a_user_is_exported_as_it_is_or_not_at_all(
        small, tmp_path, cli, head, words):
    """The file is compared with the model as mmseg's test runs it."""
    config, out = tmp_path / 'config.py', tmp_path / 'a.pt2'
    config.write_text(f"_base_ = '{small[0]}'\n"
                      f"model = dict(decode_head=dict(type='{head}'))\n")
    code, output = cli('export', config, small[1], '--out', out, *SIZE)
    assert words in ' '.join(output.split()) and len(output) < 1500
    assert out.exists() == (code == 0) == (head == 'InvertedHead')
