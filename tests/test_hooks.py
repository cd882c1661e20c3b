"""The picture that ends a run."""
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import texts
from mmengine.dataset import RepeatDataset
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from test_draw import META, row
from torch.utils.data import DataLoader

from cac_mmseg.drawing.draw import draw_rows
from cac_mmseg.hooks.pictures import (TITLES, PredictionPictureHook,
                                      WeightingMapsHook)


@pytest.mark.parametrize('size', [(40, 60), (60, 40), (33, 100)])
def test_shows_image_truth_and_prediction_in_this_order(size):
    picture = draw_rows([row(*size, 1, 2), row(*size, 255, 0)], TITLES, META)
    assert picture.dtype == np.uint8
    height, width = picture.shape[:2]
    columns = np.linspace(width / 6, width * 5 / 6, 3).astype(int)
    # titles above, legend below: a quarter and half way down are rows 1 and 2
    sky, road, car = META['palette'][:3]
    for y, colours in ((height // 4, ([77] * 3, road, car)),
                       (int(height * 0.6), ([77] * 3, [255] * 3, sky))):
        assert picture[y, columns].tolist() == [*colours]


@pytest.mark.parametrize('mode, iteration, metrics, caption', [
    ('val', 400, dict(mIoU=91.789), 'val after 400 iterations: mIoU 91.79'),
    ('val', 1, dict(mIoU=5.), 'val after 1 iteration: mIoU 5.00'),
    ('test', 0, dict(mIoU=91.789), 'test: mIoU 91.79'),
    ('test', 0, None, 'test'),
])
def test_the_picture_says_when_and_how_well(tmp_path, figures, mode, iteration,
                                            metrics, caption):
    shown, said = [], []
    runner = SimpleNamespace(
        iter=iteration,
        work_dir=str(tmp_path),
        visualizer=SimpleNamespace(
            dataset_meta=META, add_image=lambda *args: shown.append(args)),
        logger=SimpleNamespace(info=said.append))
    hook = PredictionPictureHook()
    hook.rows = [row(40, 60, 1, 2)]
    getattr(hook, f'after_{mode}_epoch')(runner, metrics)
    assert caption in texts(figures[-1])
    (name, picture, step), = shown
    assert (name, step) == (f'{mode}_prediction', iteration)
    written = cv2.imread(str(tmp_path / f'{name}.png'))
    assert (written[..., ::-1] == picture).all()
    assert ('mIoU' in said[0]) == bool(metrics) and not hook.rows


def sample(path, classes=3):
    return SegDataSample(
        metainfo=dict(img_path=path),
        gt_sem_seg=PixelData(data=torch.zeros(1, 8, 9).long()),
        pred_sem_seg=PixelData(data=torch.full((1, 8, 9), classes - 1)))


@pytest.fixture
def runner(tmp_path):
    """A validation on six-channel arrays, with 300 classes."""
    init_default_scope('mmseg')
    for name in 'abc':
        np.save(tmp_path / f'{name}.npy', np.random.rand(8, 9, 6))
    data = DATASETS.build(
        dict(
            type='BaseSegDataset',
            data_root=str(tmp_path),
            img_suffix='.npy',
            metainfo=dict(classes=[f'c{i}' for i in range(300)]),
            pipeline=[dict(type='LoadImageFromNpyFile')]))
    loader, said = DataLoader(RepeatDataset(data, 2), 2), []
    return SimpleNamespace(
        iter=2,
        work_dir=str(tmp_path),
        logger=SimpleNamespace(warning=said.append, info=str),
        warnings=said,
        val_dataloader=loader,
        visualizer=SimpleNamespace(
            dataset_meta=data.metainfo, add_image=lambda *_: None))


def validate(hook, runner, names='abc'):
    for i, name in enumerate(names):
        hook.after_val_iter(runner, i, None,
                            [sample(f'{runner.work_dir}/{name}.npy', 300)])
    hook.after_val_epoch(runner, dict(mIoU=1.))


def test_images_of_any_bands_and_classes_of_any_number_are_drawn(runner):
    validate(PredictionPictureHook(), runner)
    assert not runner.warnings
    assert cv2.imread(f'{runner.work_dir}/val_prediction.png') is not None


@pytest.mark.parametrize('breaks', ['image', 'path', 'backend'])
def test_a_picture_never_ends_a_training(runner, breaks):
    """One warning, and on: whatever fails, and however often."""
    hook, names = PredictionPictureHook(), 'abc'
    if breaks == 'image':
        for name in 'abc':
            with open(f'{runner.work_dir}/{name}.npy', 'w') as file:
                file.write('no array')
    elif breaks == 'path':
        names = 'xyz'
    else:
        runner.visualizer.add_image = None
    for _ in range(3):
        validate(hook, runner, names)
    warning, = runner.warnings
    assert 'PredictionPictureHook draws no more pictures: ' in warning


def test_a_page_never_ends_a_training(runner):
    hook = WeightingMapsHook()
    for _ in range(3):
        hook.after_val_iter(runner, 0, None, [sample('gone.png')])
    assert 'WeightingMapsHook draws no more' in runner.warnings[0]
    assert len(runner.warnings) == 1
