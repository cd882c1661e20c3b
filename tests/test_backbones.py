"""Backbones that are not mmseg's: timm's, and a user's own."""
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.nn as nn
from conftest import start, tool
from mmengine.config import ConfigDict
from mmseg.models.backbones import timm_backbone
from test_docs import FEW, TINY, blocks

from cac_mmseg.stack.checkpoint import load_model
from cac_mmseg.stack.config import load_config
from cac_mmseg.stack.feature_maps import feature_maps

REAL = [
    ('resnet18', dict(output_stride=8), [2, 4, 8, 8, 8]),
    ('convnext_atto', dict(output_stride=8, in_channels=4), [4, 8, 8, 8]),
    ('mobilenetv3_small_050', dict(out_indices=(2, 4)), [8, 32]),
    ('vit_tiny_patch16_224', dict(img_size=(512, 1024)), [16] * 3),
    ('deit_tiny_patch16_224', dict(dynamic_img_size=True), [16] * 3),
    ('swin_tiny_patch4_window7_224', dict(img_size=224, feature_cls='getter'),
     [4, 8, 16, 32]),
]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The files of docs/configs.md, where they are run."""
    for page, block in blocks('python'):
        name = re.match(r'# ((?:timm|my_backbone)\w*\.py)\n', block)
        if page == 'configs.md' and name:
            (tmp_path / name[1]).write_text(block)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TwoMaps(nn.Module):
    """As timm's models do, it may want one size, and return (B, H, W, C)."""

    def __init__(self, size=None, channels_last=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, 4)
        self.stage = nn.Conv2d(4, 6, 2, 2)
        self.size, self.channels_last = size, channels_last

    def forward(self, x):
        if self.size and x.shape[2] != self.size[0]:
            raise AssertionError(f"Input height ({x.shape[2]}) doesn't match "
                                 f'model ({self.size[0]}).')
        maps = [self.stem(x), self.stage(self.stem(x))]
        return [x.permute(0, 2, 3, 1)
                for x in maps] if self.channels_last else maps


@pytest.fixture
def timm(monkeypatch):
    """What stands in for timm, and is asked for weights by nobody."""

    def create_model(model_name,
                     features_only,
                     pretrained,
                     in_chans,
                     checkpoint_path,
                     img_size=None,
                     output_stride=None):
        assert features_only and not pretrained and not checkpoint_path
        size = img_size or ((224, 224) if model_name == 'vit' else None)
        return TwoMaps(size, channels_last=model_name == 'swin')

    monkeypatch.setattr(timm_backbone, 'timm',
                        SimpleNamespace(create_model=create_model))


def maps_of(name, **options):
    backbone = dict(type='TIMMBackbone', model_name=name, **options)
    return feature_maps(ConfigDict(backbone=backbone))


def test_feature_maps_without_weights(timm):
    assert maps_of('cnn', checkpoint_path='none.pth') == [(4, 4), (6, 8)]
    assert maps_of('vit', img_size=(224, 224)) == [(4, 4), (6, 8)]
    with pytest.raises(ValueError, match=r'doesn.t match .*give .*img_size='):
        maps_of('vit')
    with pytest.raises(ValueError, match=r'32, 4\).*are not \(B, C, H, W\)'):
        maps_of('swin')


def test_an_adopted_config_keeps_its_weights_for_training(timm, recipe, cli):
    (recipe / 'base.py').write_text(
        "_base_ = 'timm_config.py'\nmodel = dict(\n    backbone=dict("
        'pretrained=True), decode_head=dict(in_index=1))\n')
    code, out = cli('adopt base.py')
    assert code == 0, out
    assert load_config('cac_base.py').model.backbone.pretrained
    model = load_model('cac_base.py')  # as export, explain and others do
    assert model.decode_head.in_channels == 6


@pytest.mark.parametrize('name, options, strides', REAL)
def test_models_of_timm(name, options, strides):
    pytest.importorskip('timm', reason='its torchvision has to fit torch')
    assert [stride for _, stride in maps_of(name, **options)] == strides


@pytest.mark.parametrize('name', ['timm', 'my_backbone'])
def test_recipe(name, recipe, cli, monkeypatch):
    """The commands of the page, with options that make them short."""
    if name == 'timm':
        pytest.importorskip('timm', reason='its torchvision has to fit torch')
    monkeypatch.syspath_prepend(recipe)
    assert f'adopt {name}_config.py' in ''.join(
        block for _, block in blocks('shell'))
    code, out = cli(f'adopt {name}_config.py')
    assert code == 0, out
    printed = tool('train', f'cac_{name}_config.py', '--cfg-options', *TINY,
                   *FEW)
    assert 'mIoU' in printed
    assert load_model(f'cac_{name}_config.py',
                      *recipe.rglob('iter_2.pth')).decode_head


def test_a_file_that_is_not_found_asks_for_pythonpath(recipe, cli):
    path = recipe / 'my_backbone_config.py'
    path.write_text(path.read_text().replace('my_backbone', 'not_there'))
    code, out = cli('adopt my_backbone_config.py')
    assert code == 2 and 'not_there' in out
    assert 'PYTHONPATH' in out.splitlines()[-1]


@pytest.mark.slow
def test_mim_finds_a_backbone_by_pythonpath(recipe):
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(
        ['.', os.environ.get('PYTHONPATH', '')]))  # yapf: disable
    options = dict(cwd=recipe, env=environment)
    run = start(sys.executable, '-m', 'cac_mmseg', 'adopt',
                'my_backbone_config.py', **options)
    assert run.returncode == 0, run.stderr
    run = start(
        Path(sys.executable).with_name('mim'), 'train', 'mmsegmentation',
        'cac_my_backbone_config.py', '--cfg-options', *TINY, *FEW, **options)
    assert 'mIoU' in run.stdout, run.stderr
