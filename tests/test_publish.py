"""publish: small files, safe to load, from files that may not be."""
import hashlib
import os

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.runner.checkpoint import CheckpointLoader
from mmseg.apis import init_model

from cac_mmseg import ContextShapesDataset
from cac_mmseg.commands.publish import publish
from cac_mmseg.stack.checkpoint import load_weights, safe_loading


@pytest.fixture
def checkpoint(tmp_path, configs):
    """As mmengine's Runner writes it: weights, log, optimizer."""
    config = Config.fromfile(configs / 'cac_r18_contextshapes.py')
    model = init_model(config, device='cpu')
    hub = MessageHub(str(tmp_path))
    hub.update_scalar('train/loss', 1.5)
    hub.update_scalar('train/lr', np.float64(0.1))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    path = tmp_path / 'iter_1.pth'
    torch.save(
        dict(
            meta=dict(
                iter=1,
                cfg=config.pretty_text,
                dataset_meta=dict(ContextShapesDataset.METAINFO),
                odd=np.ones(3)),
            state_dict=model.state_dict(),
            message_hub=hub.state_dict(),
            optimizer=optimizer.state_dict()), path)
    return path


def test_published_weights_are_small_safe_and_the_same(checkpoint, tmp_path,
                                                       configs, cli):
    out = cli('publish', checkpoint, tmp_path / 'cac.pth')[1]
    target, = tmp_path.glob('cac-*.pth')
    assert str(target) in out
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    assert target.name == f'cac-{digest[:8]}.pth'
    assert target.stat().st_size < 0.5 * checkpoint.stat().st_size
    assert sorted(os.listdir(tmp_path)) == [target.name, 'iter_1.pth']

    content = torch.load(target, weights_only=True)
    before = torch.load(checkpoint, weights_only=False)
    kept = {
        key: before['meta'][key]
        for key in ('iter', 'cfg', 'dataset_meta')
    }
    assert content['meta'] == kept
    torch.testing.assert_close(
        dict(content['state_dict']), dict(before['state_dict']))
    model = init_model(
        str(configs / 'cac_r18_contextshapes.py'), str(target), device='cpu')
    assert model.dataset_meta['classes'][2] == 'waiting car'


def test_half_the_size(checkpoint, tmp_path, cli):
    code, out = cli('publish', checkpoint, tmp_path / 'cac.pth', '--half')
    assert code == 0, out
    half = torch.load(next(tmp_path.glob('cac-*.pth')), weights_only=True)
    whole = torch.load(checkpoint, weights_only=False)['state_dict']
    for name, value in half['state_dict'].items():
        kept = 'running' in name or name.endswith('num_batches_tracked')
        assert (value.dtype == whole[name].dtype) == kept, name
        torch.testing.assert_close(
            value.to(whole[name].dtype), whole[name], rtol=1e-3, atol=1e-7)
    torch.save(dict(state_dict=dict(w=torch.tensor([1e5]))), checkpoint)
    code, out = cli('publish', checkpoint, tmp_path / 'large.pth', '--half')
    assert code == 2 and '--half: w has values beyond' in out
    assert not [*tmp_path.glob('large*')]


def test_a_state_dict_by_itself_is_a_checkpoint_too(tmp_path):
    weights = dict(a=torch.arange(3.))
    torch.save(weights, tmp_path / 'weights.pth')
    target = publish(tmp_path / 'weights.pth', tmp_path / 'out')
    assert load_weights(target)['state_dict']['a'].tolist() == [0, 1, 2]


class Payload:

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path), )


def write(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize('make, words', [
    (lambda path: path, ['is not a file', 'iter_400.pth']),
    (lambda path: path.write_bytes(b'PK' * 50), ['cannot be read']),
    (lambda path: path.write_text(''), ['cannot be read']),
    (lambda path: write(path, [1]), ['holds a list']),
    (lambda path: write(path, dict(state_dict={})), ['holds no weights']),
    (lambda path: write(path, dict(optimizer={})), ['optimizer']),
])
def test_what_is_no_checkpoint_is_named(tmp_path, make, words, cli):
    path = tmp_path / 'in.pth'
    make(path)
    code, out = cli(f'publish {path} {tmp_path}/out.pth')
    assert code == 2 and all(word in out for word in ['in.pth', *words])
    assert not [*tmp_path.glob('out*')]


def test_mmengine_loads_its_own_checkpoints_safely(checkpoint, monkeypatch):
    """Of both stacks, and nothing of that remains."""
    loaders = {**CheckpointLoader._schemes}
    listed = {*torch.serialization.get_safe_globals()}
    load = torch.load

    def only_safe(*args, weights_only=None, **kwargs):
        assert weights_only is not False, 'an unsafe load'
        return load(*args, weights_only=True, **kwargs)

    monkeypatch.setattr(torch, 'load', only_safe)
    for _ in range(2):  # the first leaves nothing changed
        with safe_loading():
            content = CheckpointLoader.load_checkpoint(
                str(checkpoint), map_location='cpu')
        assert {*torch.serialization.get_safe_globals()} == listed
        assert CheckpointLoader._schemes == loaders
        assert 'train/lr' in content['message_hub']['log_scalars']
