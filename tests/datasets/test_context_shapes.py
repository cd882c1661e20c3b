"""ContextShapes: reproducible, and out of reach without global context."""
import mmcv
import mmengine.fileio as fileio
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from cac_mmseg import ContextShapesDataset
from cac_mmseg.datasets.scene import (BACKGROUND, DRIVING, GAP, HEIGHT, SIGNAL,
                                      TREE, WAITING, WIDTH, draw_scene)


def scenes(count=60, split='train', seed=0):
    return [draw_scene(split, seed, index) for index in range(count)]


def test_every_class_occurs_and_nothing_else():
    counts = np.bincount(
        np.concatenate([label.ravel() for _, label in scenes()]), minlength=4)
    assert len(counts) == 4 and (counts > 0.02 * counts.sum()).all(), counts


def test_a_scene_is_a_function_of_its_arguments():
    for a, b in zip(draw_scene('val', 3, 5), draw_scene('val', 3, 5)):
        np.testing.assert_array_equal(a, b)
    for other in [('train', 3, 5), ('val', 4, 5), ('val', 3, 6)]:
        assert (draw_scene('val', 3, 5)[0] != draw_scene(*other)[0]).any()


def test_all_cars_of_a_scene_obey_its_signal():
    for image, label in scenes():
        cars = {WAITING, DRIVING} & set(np.unique(label))
        assert len(cars) == 1
        blue, green, red = np.moveaxis(image.astype(int), 2, 0)
        border = np.r_[0:SIGNAL, WIDTH - SIGNAL:WIDTH]
        away = label[:, border] == BACKGROUND  # not a car at the other border
        reds = ((red - green > 100) & (red - blue > 100))[:, border] & away
        greens = ((green - red > 100) & (green - blue > 100))[:, border] & away
        assert reds.sum() + greens.sum() > 100
        assert (greens.sum() > reds.sum()) == (cars == {DRIVING})


def test_cars_keep_their_distance_from_the_signal():
    for image, label in scenes():
        columns = np.flatnonzero((label >= WAITING).any(0))
        # the signal's box is the only black thing at a border
        dark = (image < 60).all(2).sum(0)
        left = dark[:SIGNAL].sum() > dark[-SIGNAL:].sum()
        distance = columns.min() - SIGNAL + 1 if left else (WIDTH - SIGNAL -
                                                            columns.max())
        assert distance > GAP
        border = label[:, :SIGNAL] if left else label[:, -SIGNAL:]
        assert (border == BACKGROUND).all()


@pytest.mark.parametrize('name', ['fcn', 'cac'])
def test_only_a_context_head_can_see_the_signal_from_a_car(configs, name):
    """d logits / d image: exactly zero between any car and the signal."""
    cfg = Config.fromfile(configs / f'{name}_r18_contextshapes.py')
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model).double().eval()
    image = torch.randn(
        1, 3, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    logits = model.decode_head.predict(
        model.extract_feat(image), [dict(img_shape=(HEIGHT, WIDTH))], None)
    logits[..., SIGNAL + GAP:].pow(2).sum().backward()  # where cars stand
    seen = image.grad[..., :SIGNAL].abs().max()  # where the signal stands
    nearby = image.grad[..., SIGNAL + GAP:].abs().max()
    assert nearby > 0
    if name == 'fcn':
        assert seen == 0
    else:
        assert seen > 1e-9 * nearby


def test_loads_through_the_pipeline_of_mmseg(configs):
    cfg = Config.fromfile(configs / 'cac_r18_contextshapes.py')
    init_default_scope('mmseg')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == 4000
    sample = dataset[7]
    image, label = draw_scene('train', 0, 7)
    np.testing.assert_array_equal(sample['inputs'].permute(1, 2, 0), image)
    np.testing.assert_array_equal(sample['data_samples'].gt_sem_seg.data[0],
                                  label)
    assert sample['data_samples'].img_path == (
        'contextshapes://image/train/0/000007.png')


def test_train_and_val_are_disjoint():
    assert not {i.tobytes()
                for i, _ in scenes(20)
                } & {i.tobytes()
                     for i, _ in scenes(20, 'val')}


def test_classes_can_be_selected():
    dataset = ContextShapesDataset(
        num_images=3,
        metainfo=dict(classes=('background', 'tree')),
        pipeline=[dict(type='mmseg.LoadAnnotations')])
    assert set(np.unique(dataset[0]['gt_seg_map'])) <= {BACKGROUND, TREE, 255}
    assert len(dataset.metainfo['palette']) == 2


def test_paths_are_read_by_mmengine_alone():
    content = fileio.get('contextshapes://image/val/2/000011.png')
    np.testing.assert_array_equal(
        mmcv.imfrombytes(content),
        draw_scene('val', 2, 11)[0])


@pytest.mark.parametrize('path', [
    'contextshapes://image/val/2', 'contextshapes://image/valid/2/1.png',
    'contextshapes://depth/val/2/1.png', 'contextshapes://image/val/x/1.png',
    'contextshapes://image/val/-1/1.png'
])
def test_a_path_that_is_not_one_says_what_is(path):
    with pytest.raises(FileNotFoundError, match='index') as info:
        fileio.get(path)
    assert path in str(info.value)
