"""The picture that ends a run."""
import numpy as np
import pytest

from cac_mmseg.hooks.pictures import TITLES
from cac_mmseg.visualization.draw import draw_rows

META = dict(
    classes=('sky', 'road', 'car'),
    palette=[[10, 20, 200], [130, 60, 130], [250, 0, 0]])


def row(height, width, label, prediction):
    image = np.full((height, width, 3), 77, np.uint8)
    return (image, label if label is None else np.full(
        (height, width), label), np.full((height, width), prediction))


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


def test_ground_truth_may_be_missing():
    picture = draw_rows([row(40, 60, None, 2)], TITLES, META)
    middle = picture[picture.shape[0] // 2]
    assert (middle[picture.shape[1] // 2] == 255).all()
    assert middle[picture.shape[1] * 5 // 6].tolist() == META['palette'][2]
