"""The configs of real data sets on their genuine layouts, through mim."""
import cv2
import fake_data
import pytest
from conftest import tool
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import DATASETS
from test_mim import miou
from test_preflight import head, model

from cac_mmseg.hooks.label_check import LabelCheck

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
    assert (tmp_path / 'work/test_prediction.png').is_file()
    if name in ('cityscapes', 'pcontext60'):  # whole, and in windows
        assert miou(tool(*arguments, '--tta')) > 0


def test_a_label_out_of_range_names_its_file(tmp_path, configs, monkeypatch):
    fake_data.make(tmp_path, 'voc12')
    for path in tmp_path.rglob('SegmentationClass/2007_00000[012].png'):
        label = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        label[::2] = 77  # in each crop
        cv2.imwrite(str(path), label)
    monkeypatch.chdir(tmp_path)
    init_default_scope('mmseg')
    dataset = DATASETS.build(
        small_config(configs, 'voc12').train_dataloader.dataset)
    check = LabelCheck(model(decode_head=head(classes=21)), dataset)
    for i in range(3):
        batch = pseudo_collate([dataset[i]])
        words = rf'{i}.png has the values 77, but labels are 0 to 20'
        with pytest.raises(ValueError, match=words):
            check.check_batch(batch)
    with pytest.raises(ValueError, match='has the values 77'):
        check.check_dataset()


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
