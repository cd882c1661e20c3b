"""The configs of real data sets on their genuine layouts, through mim."""
import copy
import re

import cv2
import fake_data
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import DATASETS
from test_mim import mim, miou

from cac_mmseg.hooks.label_check import LabelCheck

SMALL = '''
_base_ = '{base}'
model = dict(
    pretrained=None,
    backbone=dict(depth=18, base_channels=8, stem_channels=8),
    decode_head=dict(in_channels=64, channels=16),
    auxiliary_head=dict(in_channels=32, channels=8))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
'''


def write_config(folder, configs, name):
    """A user's config: ours with a thin backbone and two iterations."""
    path = folder / 'small.py'
    path.write_text(SMALL.format(base=configs / f'cac_r50_{name}.py'))
    return path


# voc12 is the first half of voc12aug
@pytest.mark.parametrize('name', sorted({*fake_data.LAYOUTS} - {'voc12'}))
def test_trains_and_tests_on_the_genuine_layout(tmp_path, configs, name,
                                                monkeypatch):
    fake_data.make(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(write_config(tmp_path, configs, name))
    cfg.work_dir = 'work'
    runner = Runner.from_cfg(copy.deepcopy(cfg))
    runner.train()
    trained = runner.message_hub.get_scalar('val/mIoU').current()
    cfg.load_from = 'work/iter_2.pth'
    assert Runner.from_cfg(cfg).test()['mIoU'] == trained
    assert (tmp_path / 'work/test_prediction.png').is_file()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['cityscapes', 'pcontext60'])
def test_mim_trains_and_tests_whole_and_slide(tmp_path, configs, name):
    fake_data.make(tmp_path, name)
    config = write_config(tmp_path, configs, name)
    output = mim('train', config, cwd=tmp_path)
    assert len(re.findall(r'Iter\(train\) +\[[12]/2\]', output)) == 2
    checkpoint = ('--checkpoint', 'work_dirs/small/iter_2.pth')
    assert miou(mim('test', config, *checkpoint, cwd=tmp_path)) == miou(output)
    assert miou(mim('test', config, *checkpoint, '--tta', cwd=tmp_path)) > 0


def test_a_label_out_of_range_names_its_file(tmp_path, configs, monkeypatch):
    fake_data.make(tmp_path, 'voc12')
    for path in tmp_path.rglob('SegmentationClass/2007_00000[012].png'):
        label = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        label[::2] = 77  # in each crop
        cv2.imwrite(str(path), label)
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(write_config(tmp_path, configs, 'voc12'))
    init_default_scope('mmseg')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    model = torch.nn.Module()
    model.decode_head = torch.nn.Module()
    model.decode_head.num_classes = cfg.model.decode_head.num_classes
    model.decode_head.ignore_index = 255
    check = LabelCheck(model, dataset)
    for i in range(3):
        batch = pseudo_collate([dataset[i]])
        with pytest.raises(
                ValueError,
                match=rf'SegmentationClass/2007_00000{i}.png has the values '
                r'77, but labels are 0 to 20'):
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
    cfg = Config.fromfile(write_config(tmp_path, configs, name))
    cfg.work_dir = 'work'
    with pytest.raises((FileNotFoundError, AssertionError), match=missing):
        Runner.from_cfg(cfg).train()
