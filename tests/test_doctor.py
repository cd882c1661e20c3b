"""doctor: what it finds, here and where the installation is not sound."""
import os
import threading
from collections import ChainMap
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from conftest import ROOT, build, start
from mmengine.runner import checkpoint
from test_import import fake

from cac_mmseg.commands import doctor


def test_this_environment_is_sound(cli):
    code, out = cli('doctor')
    assert code == 0 and 'FAIL' not in out
    for words in (f'torch: {torch.__version__}', 'ok    mmseg stack: O',
                  'ok    CaCHead: is in the registry', 'weights: '):
        assert words in out


def test_what_is_newer_than_tested_is_a_note(monkeypatch, cli):
    for name, older in dict(PYTHON='3.9', TORCH='2.5').items():
        monkeypatch.setattr(doctor, name, older)
    code, out = cli('doctor')
    assert code == 0
    for words in ('note  Python: 3', '-> if something fails, use Python 3.9',
                  'note  torch: 2', '-> if something fails, use torch 2.5'):
        assert words in out


def broken(python, *folders, command='doctor', status=1):
    path = os.pathsep.join(map(str, (*folders, ROOT)))
    environment = dict(os.environ, PYTHONPATH=path)
    done = start(python, '-m', 'cac_mmseg', command, env=environment)
    assert done.returncode == status and 'Traceback' not in done.stderr
    return done.stdout + done.stderr


def test_runs_where_the_package_cannot_be_imported(bare_python, tmp_path):
    out = broken(bare_python)
    for words in ('FAIL  torch: cannot be imported', '-> pip install torch',
                  'mmengine and mmcv and mmseg cannot be found',
                  'FAIL  mim: is not installed'):
        assert words in out
    # other commands end there with the reason
    out = broken(bare_python, command='cost', status=2)
    assert 'mmengine and mmcv and mmseg cannot be found' in out

    fake(tmp_path, mmengine='', mmcv='', mmseg='import ftfy')
    assert 'pip install ftfy' in broken(bare_python, tmp_path)


def test_half_of_each_stack_is_named(monkeypatch, cli):
    found = dict(
        mmengine={'onedl-mmengine': '0.10.12'},
        mmcv={'mmcv': '2.1.0'},
        mmseg={'mmsegmentation': '1.2.2'})
    versions = ChainMap(*found.values())
    monkeypatch.setattr(doctor, 'installed', found.get)
    monkeypatch.setattr(doctor, 'version', versions.get)
    monkeypatch.setattr(doctor, 'require_stack', lambda: None)
    code, out = cli('doctor')
    assert code == 1
    assert 'half of one and half of the other: onedl-mmengine 0.10.12, ' \
        'mmcv 2.1.0, mmsegmentation 1.2.2' in out
    found['mmengine'] = {'mmengine': '0.10.7'}
    versions.maps[:] = found.values()
    monkeypatch.setattr(doctor, 'MIM', ('openmim', ))
    code, out = cli('doctor')
    assert code == 0 and 'ok    mmseg stack: OpenMMLab: mmengine 0.10.7' in out
    assert 'load no training checkpoint' in out


def test_two_mims_are_named(monkeypatch, cli):
    monkeypatch.setattr(doctor, 'MIM', ('torch', 'numpy'))
    code, out = cli('doctor')
    assert code == 1 and 'FAIL  mim: installed twice' in out


@pytest.mark.parametrize('names, words', [
    (['stem.0.weight'], ['ok    weights']),
    (['backbone.stem.0.weight'], ['is of a ResNetV1c with', 'prefix=backb']),
    (['backbone.conv1.weight'], ['is of a model with its decode head']),
    (['conv1.weight', 'layer1.0.conv1.weight'], ['model.backbone.type=Res']),
    (['fc.weight'], ['note  weights', '-> add --config CONFIG']),
])
def test_a_file_of_weights_is_recognised(tmp_path, cli, names, words):
    torch.save({name: torch.ones(1) for name in names}, tmp_path / 'w.pth')
    code, out = cli('doctor --weights', tmp_path / 'w.pth')
    assert code == 0 and all(word in out for word in words), out


SMALL = dict(
    type='ResNet', depth=18, base_channels=8, norm_cfg=dict(type='BN'))
SMALL_SWIN = dict(
    type='SwinTransformer',
    embed_dims=8,
    depths=(1, 1, 1, 1),
    num_heads=(1, 1, 1, 1))


@pytest.fixture
def fit(tmp_path, cli):
    """The report on a backbone's own weights, after a change."""

    def fit(backbone, change=dict, init_cfg=None):
        torch.save(change(build(backbone).state_dict()), tmp_path / 'w.pth')
        (tmp_path / 'config.py').write_text(
            f'model = dict(pretrained="open-mmlab://a", '
            f'backbone=dict(init_cfg={init_cfg}, **{backbone}))')
        code, out = cli(f'doctor --weights {tmp_path}/w.pth --config '
                        f'{tmp_path}/config.py')
        return code, out[out.index('weights: '):]

    return fit


def without(*names):
    return lambda weights: {k: weights[k] for k in weights if k not in names}


def named(prefix):
    return lambda weights: {prefix + k: v for k, v in weights.items()}


def put(**more):
    more = {name.replace('_', '.'): value for name, value in more.items()}
    return lambda weights: {**weights, **more}


FITS = dict(
    plain=dict,
    checkpoint=lambda weights: dict(state_dict=weights, meta=dict(epoch=1)),
    module=named('module.'),
    counter=without('bn1.num_batches_tracked'),
    classifier=put(fc_weight=torch.ones(3, 3)),
    half=lambda weights: {k: v.half() for k, v in weights.items()},
)  # yapf: disable


@pytest.mark.parametrize('name', FITS)
def test_a_file_fits_the_backbone_of_a_config(fit, name):
    code, out = fit(SMALL, FITS[name])
    assert code == 0
    assert 'w.pth fits 105 of 105 tensors of ResNet\n' in out


@pytest.mark.parametrize('change, fits, words', [
    (without('conv1.weight'), 104, 'no conv1.weight\n'),
    (put(conv1_weight=torch.ones(8, 3, 3, 3)), 104,
     'conv1.weight is (8, 3, 3, 3), not (64, 3, 7, 7)\n'),
    (named('backbone.'), 0, 'prefix=backbone.\n'),
    (named('encoder.'), 0, 'prefix=encoder.\n'),
    (lambda weights: dict(a=torch.ones(1)), 0, ', ...\n'),
])
def test_what_does_not_fit_is_named(fit, change, fits, words):
    code, out = fit(SMALL, change)
    assert code == 1
    assert f'w.pth fits {fits} of 105 tensors of ResNet: ' in out
    assert words in out


def test_the_prefix_of_a_config_is_taken(fit):
    init_cfg = dict(type='Pretrained', checkpoint='a', prefix='backbone.')
    assert 'fits 105 of 105' in fit(SMALL, named('backbone.'), init_cfg)[1]
    code, out = fit(SMALL, named('other.'), init_cfg)
    assert code == 1 and 'backbone. is not in the pretrained model' in out


def test_classifiers_have_no_norm_of_each_stage(fit):
    code, out = fit(SMALL_SWIN, without('norm0.weight', 'norm0.bias'))
    assert code == 0 and 'as they are: norm0.weight, norm0.bias' in out
    # which mmseg's own loader converts
    code, out = fit(SMALL_SWIN, named('backbone.'))
    assert code == 0 and 'tensors of SwinTransformer\n' in out


@pytest.mark.parametrize('config, words', [
    ('model = dict(type="A")', 'configures no model.backbone'),
    ('model = dict(backbone=dict(depth=18))', 'configures no model.backbone'),
    ('model = dict(backbone=dict(type="NoNet"))', 'cannot be built: KeyError'),
    ('data = 3', 'configures no model'),
])
def test_a_config_without_a_backbone_is_told(tmp_path, cli, config, words):
    (tmp_path / 'config.py').write_text(config)
    torch.save({'a': torch.ones(1)}, tmp_path / 'w.pth')
    code, out = cli(f'doctor --weights {tmp_path}/w.pth --config '
                    f'{tmp_path}/config.py')
    assert code == 2 and words in out


def test_a_config_alone_is_told(cli):
    code, out = cli('doctor --config cac_r50_cityscapes')
    assert code == 2 and '--config needs --weights FILE' in out


class Host(BaseHTTPRequestHandler):

    def do_HEAD(self):
        self.send_response(200 if self.path == '/w.pth' else 404)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.mark.parametrize('name, words', [
    ('w.pth', 'ok    weights: http'),
    ('gone.pth', 'model.pretrained=None'),
])
def test_the_host_of_the_weights_is_asked(monkeypatch, cli, tmp_path, name,
                                          words):
    server = HTTPServer(('127.0.0.1', 0), Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/{name}'
    monkeypatch.setattr(checkpoint, 'get_external_models',
                        lambda: {'resnet50_v1c': url})
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    try:
        assert words in cli('doctor')[1]
        cached = tmp_path / 'checkpoints'
        cached.mkdir()
        (cached / name).touch()
        assert f'{cached / name} is there' in cli('doctor')[1]
    finally:
        server.shutdown()
        server.server_close()
