"""Rows of tiles: what they show, of which classes, in which shape."""
import numpy as np
import pytest
from conftest import SEED, texts
from matplotlib.text import Text

from cac_mmseg.drawing.draw import displayable, draw_rows

NAMES = ('sky', 'road', '_background_', 'a $x_1$ $ b', 'car')
META = dict(
    classes=NAMES,
    palette=[[10, 20, 200], [130, 60, 130], [9, 90, 9], [250, 200, 0],
             [250, 0, 0]])
TITLES = ('image', 'ground truth', 'prediction')


def picture(height=40, width=60):
    return np.full((height, width, 3), 77, np.uint8)


def row(height, width, truth, prediction):
    size = height, width
    return picture(*size), np.full(size, truth), np.full(size, prediction)


def legend(figure):
    entries = figure.legends[0]
    return [text.get_text() for text in entries.get_texts()]


def tiles(figure):
    """Images of the axes, with their boxes in pixels from the left top."""
    height = figure.bbox.height
    for ax in figure.axes:
        if ax.images:
            x, y, w, h = ax.get_window_extent().bounds
            yield ax.images[0].get_array(), (x, height - y - h, w, h)


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


def test_the_legend_lists_what_is_drawn(figures):
    draw_rows([row(40, 60, 3, 2), row(40, 60, 3, 1)], TITLES, META)
    assert legend(figures[-1]) == ['road', '_background_', 'a $x_1$ $ b']
    draw_rows([row(40, 60, 0, 0)], TITLES, META)
    assert legend(figures[-1]) == ['sky']


@pytest.mark.parametrize('ignored', [255, -1, 5, 10**6])
def test_ignored_pixels_are_white_and_named(figures, ignored):
    found = draw_rows([row(40, 60, ignored, 4)], TITLES, META)
    assert legend(figures[-1]) == ['car', 'no class']
    patch = figures[-1].legends[0].get_patches()[1]
    assert patch.get_facecolor() == (1, 1, 1, 1)
    assert patch.get_edgecolor() != (1, 1, 1, 1)
    middle = found[found.shape[0] // 2]
    assert middle[found.shape[1] // 2].tolist() == [255] * 3
    assert middle[found.shape[1] * 5 // 6].tolist() == META['palette'][4]


def test_tiles_keep_their_aspect_ratios(figures):
    sizes = [(40, 60), (90, 30), (30, 120), (50, 50)]
    draw_rows([row(*size, 0, 1) for size in sizes], TITLES, META)
    found = [*tiles(figures[-1])]
    assert len(found) == 3 * len(sizes)
    width, height = figures[-1].bbox.size
    last = 0
    for i, (array, (x, y, w, h)) in enumerate(found):
        rows, columns = sizes[i // 3]
        assert array.shape[:2] == (rows, columns)
        assert h / w == pytest.approx(rows / columns, rel=0.01)
        assert 0 <= x and x + w <= width and 0 <= y and y + h <= height
        if i % 3 == 0:  # below the row above
            assert y >= last
            last = y + h


@pytest.mark.parametrize('size', [(40, 60), (200, 50), (20, 400)])
def test_names_stay_within_their_tile(figures, size):
    name = f'val {"x" * 200}_end.png'
    draw_rows([row(*size, 0, 1)] * 2, TITLES, META, ['a $x_1$.png', name])
    figure = figures[-1]
    first, second = (
        text for text in figure.findobj(Text)
        if text.get_text().endswith('.png'))
    assert first.get_text() == 'a $x_1$.png'
    assert second.get_text().startswith('val ')
    for text in (first, second):
        left, right = text.axes.get_window_extent().intervalx
        box = text.get_window_extent()
        assert left <= box.x0 and box.x1 <= right


def test_a_caption(figures):
    words = 'val after 400 iterations: mIoU 91.79'
    draw_rows([row(40, 60, 0, 1)], TITLES, META, caption=words)
    figure = figures[-1]
    caption, = (t for t in figure.findobj(Text) if t.get_text() == words)
    title, = (t for t in figure.findobj(Text) if t.get_text() == 'image')
    box = caption.get_window_extent()
    assert box.y0 > title.get_window_extent().y1
    assert box.y1 <= figure.bbox.height


@pytest.mark.parametrize('count', [30, 150])
def test_many_classes_fit(figures, count):
    meta = dict(
        classes=[f'a class with a long name, {i}' for i in range(count)],
        palette=[[i, 255 - i, 9] for i in range(count)])
    labels = np.arange(count).reshape(5, -1)
    draw_rows([(picture(), labels)], ('image', 'labels'), meta)
    figure = figures[-1]
    assert legend(figure) == meta['classes']
    boxes = [t.get_window_extent() for t in figure.legends[0].get_texts()]
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 and box.x1 <= figure.bbox.width and box.y0 >= 0
        assert not any(box.overlaps(other) for other in boxes[:i])
    lowest = max(y + h for _, (x, y, w, h) in tiles(figure))
    assert max(box.y1 for box in boxes) <= figure.bbox.height - lowest
    size = figure.legends[0].get_texts()[0].get_fontsize()
    assert size >= 11


@pytest.mark.parametrize('dtype', ['uint16', 'int16', 'int64', 'uint64'])
def test_more_than_256_classes(figures, dtype):
    meta = dict(
        classes=[f'c{i}' for i in range(300)],
        palette=[[i % 256, i // 256, 7] for i in range(300)])
    found = draw_rows([(picture(), np.full(
        (40, 60), 280, dtype), np.full((40, 60), 24))], TITLES, meta)
    middle = found[found.shape[0] // 2]
    assert middle[found.shape[1] // 2].tolist() == [24, 1, 7]
    assert middle[found.shape[1] * 5 // 6].tolist() == [24, 0, 7]
    assert legend(figures[-1]) == ['c24', 'c280']


def test_labels_are_laid_over_an_image(figures):
    labels = np.full((40, 60), 4)
    labels[:, 30:] = 255
    draw_rows([(picture(), (picture(), labels))], ('image', 'labels'), META)
    over = [*tiles(figures[-1])][1][0]
    for column, colour in ((0, META['palette'][4]), (59, [255] * 3)):
        mixed = 0.4 * 77 + 0.6 * np.array(colour)
        assert abs(over[0, column] - mixed).max() <= 1
    assert legend(figures[-1]) == ['car', 'no class']


def test_what_is_missing_is_said(figures):
    image, _, prediction = row(40, 60, 0, 2)
    found = draw_rows([(image, None, prediction)], TITLES, META)
    assert 'no ground truth' in texts(figures[-1])
    lower = found[found.shape[0] * 7 // 10]
    assert (lower[found.shape[1] // 2] == 255).all()
    assert lower[found.shape[1] * 5 // 6].tolist() == META['palette'][2]


def test_uint8_is_displayed_as_it_is():
    image = np.random.default_rng(SEED).integers(0, 256, (4, 5, 6), np.uint8)
    for bands in (3, 4, 6):
        assert (displayable(image[..., :bands]) == image[..., :3]).all()
    for grey in (image[..., 0], image[..., :1]):
        assert displayable(grey).shape == (4, 5, 3)
        assert (displayable(grey) == image[..., :1]).all()
    two = displayable(image[..., :2])
    assert (two[..., :2] == image[..., :2]).all() and not two[..., 2].any()


@pytest.mark.parametrize('dtype', ['uint16', 'int32', 'float16', 'float64'])
def test_other_types_are_scaled(dtype):
    image = np.array([[[1000, 1500, 2000, 9999]]], dtype)
    assert displayable(image).tolist() == [[[0, 128, 255]]]
    assert displayable(image).dtype == np.uint8
    assert displayable(image[..., :2]).tolist() == [[[0, 255, 0]]]
    assert not displayable(np.full((2, 2, 3), 7, dtype)).any()


def test_what_is_not_finite_is_left_out():
    image = np.array([[-1., 1., np.nan, np.inf, -np.inf, 0.]], np.float32)
    assert displayable(image)[0, :, 0].tolist() == [0, 255, 0, 255, 0, 128]
    assert not displayable(np.full((2, 2), np.nan)).any()


@pytest.mark.parametrize('bands, dtype', [(1, 'uint16'), (4, 'uint8'),
                                          (6, 'float32')])
def test_rows_of_any_image(bands, dtype):
    image = np.zeros((40, 60, bands), dtype)
    image[:, 30:] = 255
    found = draw_rows([(image, np.zeros((40, 60), int))], ('image', 'labels'),
                      META)
    middle = found[found.shape[0] // 2]
    assert middle[100].tolist() == [0] * 3
    assert middle[300].tolist() == [255] * 3
