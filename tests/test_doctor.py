"""doctor: what it finds, here and where the installation is not sound."""
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from conftest import ROOT
from mmengine.registry import init_default_scope
from mmengine.runner import checkpoint
from mmseg.registry import MODELS
from test_import import fake

from cac_mmseg.__main__ import main
from cac_mmseg.commands import doctor


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(['doctor', *arguments])
    return int(end.value.code), capsys.readouterr().out


def test_this_environment_is_sound(capsys):
    code, out = run(capsys)
    assert code == 0 and 'FAIL' not in out
    assert f'torch: {torch.__version__}' in out
    assert 'ok    mmseg stack: O' in out
    assert 'ok    CaCHead: is in the registry' in out
    assert 'weights: ' in out


def broken(python, *folders):
    done = subprocess.run([python, '-m', 'cac_mmseg', 'doctor'],
                          env=dict(
                              os.environ,
                              PYTHONPATH=os.pathsep.join(
                                  map(str, (*folders, ROOT)))),
                          capture_output=True,
                          text=True)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    return done.stdout


def test_runs_where_the_package_cannot_be_imported(bare_python, tmp_path):
    out = broken(bare_python)
    assert 'FAIL  torch: cannot be imported' in out
    assert '-> pip install torch' in out
    assert 'mmengine and mmcv and mmseg cannot be found' in out
    assert 'FAIL  mim: is not installed' in out

    fake(tmp_path, mmengine='', mmcv='', mmseg='import ftfy')
    assert 'pip install ftfy' in broken(bare_python, tmp_path)


def test_other_commands_end_there_with_the_reason(bare_python):
    done = subprocess.run([bare_python, '-m', 'cac_mmseg', 'cost'],
                          env=dict(os.environ, PYTHONPATH=str(ROOT)),
                          capture_output=True,
                          text=True)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert 'mmengine and mmcv and mmseg cannot be found' in done.stderr


def test_half_of_each_stack_is_named(monkeypatch, capsys):
    found = dict(
        mmengine={'onedl-mmengine': '0.10.12'},
        mmcv={'mmcv': '2.1.0'},
        mmseg={'mmsegmentation': '1.2.2'})
    monkeypatch.setattr(doctor, 'installed', found.get)
    monkeypatch.setattr(doctor, 'version', {
        k: v
        for versions in found.values()
        for k, v in versions.items()
    }.get)
    monkeypatch.setattr(doctor, 'require_stack', lambda: None)
    code, out = run(capsys)
    assert code == 1
    assert 'half of one and half of the other: onedl-mmengine 0.10.12, ' \
        'mmcv 2.1.0, mmsegmentation 1.2.2' in out


def test_two_mims_are_named(monkeypatch, capsys):
    monkeypatch.setattr(doctor, 'MIM', ('torch', 'numpy'))
    code, out = run(capsys)
    assert code == 1 and 'FAIL  mim: installed twice' in out


@pytest.mark.parametrize('names, code, words', [
    (['stem.0.weight'], 0, 'ok    weights'),
    (['backbone.stem.0.weight'], 0, 'is of a ResNetV1c'),
    (['conv1.weight', 'layer1.0.conv1.weight'
      ], 0, 'model.backbone.type=ResNet'),
    (['fc.weight'], 0, 'note  weights'),
    (['fc.weight'], 0, '-> add --config CONFIG'),
])
def test_a_file_of_weights_is_recognised(tmp_path, capsys, names, code, words):
    torch.save({name: torch.ones(1) for name in names}, tmp_path / 'w.pth')
    assert run(capsys, '--weights', str(tmp_path / 'w.pth'))[0] == code
    _, out = run(capsys, '--weights', str(tmp_path / 'w.pth'))
    assert words in out


def test_a_file_that_is_not_there_fails(tmp_path, capsys):
    code, out = run(capsys, '--weights', str(tmp_path / 'w.pth'))
    assert code == 1 and 'w.pth is not a file' in out


SMALL = dict(
    type='ResNet', depth=18, base_channels=8, norm_cfg=dict(type='BN'))
SMALL_SWIN = dict(
    type='SwinTransformer',
    embed_dims=8,
    depths=(1, 1, 1, 1),
    num_heads=(1, 1, 1, 1))


def fit(capsys, folder, backbone, change=dict, init_cfg=None):
    """The report on a backbone's own weights, after a change."""
    init_default_scope('mmseg')
    weights = change(MODELS.build(backbone).state_dict())
    torch.save(weights, folder / 'w.pth')
    (folder / 'config.py').write_text(
        f'model = dict(pretrained="open-mmlab://a", '
        f'backbone=dict(init_cfg={init_cfg}, **{backbone}))')
    code, out = run(capsys, '--weights', str(folder / 'w.pth'), '--config',
                    str(folder / 'config.py'))
    return code, out[out.index('weights: '):]


def without(*names):
    return lambda weights: {k: weights[k] for k in weights if k not in names}


def named(prefix):
    return lambda weights: {prefix + k: v for k, v in weights.items()}


@pytest.mark.parametrize(
    'change', [
        dict,
        lambda weights: dict(state_dict=weights, meta=dict(epoch=1)),
        named('module.'),
        without('bn1.num_batches_tracked'),
        lambda weights: {
            **weights, 'fc.weight': torch.ones(3, 3)
        },
        lambda weights: {
            k: v.half()
            for k, v in weights.items()
        },
    ],
    ids=['plain', 'checkpoint', 'module', 'counter', 'classifier', 'half'])
def test_a_file_fits_the_backbone_of_a_config(tmp_path, capsys, change):
    code, out = fit(capsys, tmp_path, SMALL, change)
    assert code == 0
    assert 'w.pth fits 105 of 105 tensors of ResNet\n' in out


@pytest.mark.parametrize('change, fits, words', [
    (without('conv1.weight'), 104, 'no conv1.weight\n'),
    (lambda weights: {
        **weights, 'conv1.weight': torch.ones(8, 3, 3, 3)
    }, 104, 'conv1.weight is (8, 3, 3, 3), not (64, 3, 7, 7)\n'),
    (named('backbone.'), 0, 'prefix=backbone.\n'),
    (named('encoder.'), 0, 'prefix=encoder.\n'),
    (lambda weights: {
        'a': torch.ones(1)
    }, 0, ', ...\n'),
])
def test_what_does_not_fit_is_named(tmp_path, capsys, change, fits, words):
    code, out = fit(capsys, tmp_path, SMALL, change)
    assert code == 1
    assert f'w.pth fits {fits} of 105 tensors of ResNet: ' in out
    assert words in out


def test_the_prefix_of_a_config_is_taken(tmp_path, capsys):
    init_cfg = dict(type='Pretrained', checkpoint='a', prefix='backbone.')
    arguments = capsys, tmp_path, SMALL
    assert 'fits 105 of 105' in fit(*arguments, named('backbone.'),
                                    init_cfg)[1]
    code, out = fit(*arguments, named('other.'), init_cfg)
    assert code == 1 and 'backbone. is not in the pretrained model' in out


def test_classifiers_have_no_norm_of_each_stage(tmp_path, capsys):
    code, out = fit(capsys, tmp_path, SMALL_SWIN,
                    without('norm0.weight', 'norm0.bias'))
    assert code == 0 and 'as they are: norm0.weight, norm0.bias' in out
    # which mmseg's own loader converts
    code, out = fit(capsys, tmp_path, SMALL_SWIN, named('backbone.'))
    assert code == 0 and 'tensors of SwinTransformer\n' in out


@pytest.mark.parametrize('config, words', [
    ('model = dict(type="A")', 'configures no model.backbone'),
    ('model = dict(backbone=dict(depth=18))', 'configures no model.backbone'),
    ('model = dict(backbone=dict(type="NoNet"))', 'cannot be built: KeyError'),
    ('data = 3', 'configures no model'),
])
def test_a_config_without_a_backbone_is_told(tmp_path, capsys, config, words):
    (tmp_path / 'config.py').write_text(config)
    torch.save({'a': torch.ones(1)}, tmp_path / 'w.pth')
    with pytest.raises(SystemExit, match='2'):
        main([
            'doctor', '--weights', f'{tmp_path}/w.pth', '--config',
            f'{tmp_path}/config.py'
        ])
    assert words in capsys.readouterr().err


def test_a_config_alone_is_told(capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['doctor', '--config', 'cac_r50_cityscapes'])
    assert '--config needs --weights FILE' in capsys.readouterr().err


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
def test_the_host_of_the_weights_is_asked(monkeypatch, capsys, tmp_path, name,
                                          words):
    server = HTTPServer(('127.0.0.1', 0), Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/{name}'
    monkeypatch.setattr(checkpoint, 'get_external_models',
                        lambda: {doctor.WEIGHTS: url})
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    try:
        assert words in run(capsys)[1]
        cached = tmp_path / 'checkpoints'
        cached.mkdir()
        (cached / name).touch()
        assert f'is in {cached}' in run(capsys)[1]
    finally:
        server.shutdown()
        server.server_close()
