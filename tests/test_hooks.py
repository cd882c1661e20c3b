"""The picture that ends a run."""
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import texts

from cac_mmseg.hooks.pictures import TITLES, PredictionPictureHook
from cac_mmseg.visualization.draw import draw_rows

META = dict(
    classes=('sky', 'road', 'car'),
    palette=[[10, 20, 200], [130, 60, 130], [250, 0, 0]])


def row(height, width, label, prediction):
    size = height, width
    return (np.full((*size, 3), 77,
                    np.uint8), np.full(size, label), np.full(size, prediction))


@pytest.mark.parametrize('size', [(40, 60), (60, 40), (33, 100)])
def test_shows_image_truth_and_prediction_in_this_order(size):
    picture = draw_rows([row(*size, 1, 2), row(*size, 255, 0)], TITLES, META)
    assert picture.dtype == np.uint8
    height, width = picture.shape[:2]
    columns = np.linspace(width / 6, width * 5 / 6, 3).astype(int)
    # titles above, legend below: a quarter and half way down are rows 1 and 2
    first, second = height // 4, int(height * 0.6)
    assert [picture[first, x].tolist()
            for x in columns] == [[77, 77, 77], META['palette'][1],
                                  META['palette'][2]]
    assert [picture[second, x].tolist()
            for x in columns] == [[77, 77, 77], [255, 255, 255],
                                  META['palette'][0]]


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
