"""The configs of real data sets on their genuine layouts, through mim."""
import fake_data
import pytest
from conftest import tool
from mmengine.config import Config
from mmengine.runner import Runner
from test_mim import miou

SMALL = dict(
    model=dict(
        pretrained=None,
        backbone=dict(depth=18, base_channels=8, stem_channels=8),
        decode_head=dict(in_channels=64, channels=16),
        auxiliary_head=dict(in_channels=32, channels=8)),
    train_cfg=dict(max_iters=2, val_interval=2),
    default_hooks=dict(logger=dict(interval=1), checkpoint=dict(interval=2)))


def shrink(value, key=''):
    """Images, crops and windows of an eighth of their sides."""
    if isinstance(value, dict):
        for name in value:
            value[name] = shrink(value[name], name)
    elif key in ('scale', 'crop_size', 'size', 'stride') and isinstance(
            value, (list, tuple)):
        return tuple(-(-side // 8) for side in value)
    elif isinstance(value, (list, tuple)):
        return [shrink(part) for part in value]
    return value


def small_config(configs, name):
    """Ours with a thin backbone, small images and two iterations."""
    cfg = shrink(Config.fromfile(configs / f'cac_r50_{name}.py').to_dict())
    loader = dict(num_workers=0, persistent_workers=False)
    cfg = Config(cfg)
    cfg.merge_from_dict(SMALL)
    cfg.train_dataloader.update(loader, batch_size=2)
    cfg.val_dataloader.update(loader)
    cfg.test_dataloader.update(loader)
    cfg.work_dir = 'work'
    return cfg


# voc12 is the first half of voc12aug
@pytest.mark.parametrize('name', sorted({*fake_data.LAYOUTS} - {'voc12'}))
def test_trains_and_tests_on_the_genuine_layout(tmp_path, configs, name,
                                                monkeypatch):
    """By mmseg's own tools, and with augmentations."""
    fake_data.make(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    small_config(configs, name).dump('small.py')
    output = tool('train', 'small.py')
    arguments = 'test', 'small.py', 'work/iter_2.pth'
    assert miou(tool(*arguments)) == miou(output)
    assert (tmp_path / 'work/test_report.png').is_file()
    if name in ('cityscapes', 'pcontext60'):  # whole, and in windows
        assert miou(tool(*arguments, '--tta')) >= 0  # no NaN


@pytest.mark.parametrize('name, missing', [
    ('cityscapes', 'data/cityscapes/leftImg8bit/train'),
    ('ade20k', 'data/ade/ADEChallengeData2016/images/training'),
    ('voc12', 'data/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt'),
    ('pcontext59',
     'data/VOCdevkit/VOC2010/ImageSets/SegmentationContext/train.txt'),
    ('camvid', 'data/camvid/train'),
])
def test_missing_data_are_named(tmp_path, configs, name, missing, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((FileNotFoundError, AssertionError), match=missing):
        Runner.from_cfg(small_config(configs, name)).train()
