"""The page of explain: legend, scale, hints, and no region at all."""
import numpy as np
import pytest
import torch
from conftest import texts
from matplotlib.text import Text

from cac_mmseg.attribution.shares import ContextShares
from cac_mmseg.drawing.draw_shares import draw_shares, hint

META = dict(
    classes=['sky', 'road', 'car'],
    palette=[[10, 20, 200], [130, 60, 130], [250, 0, 0]])
IMAGE = np.full((32, 48, 3), 99, np.uint8)
LABELS = np.zeros((32, 48), int)
LABELS[20:28, 10:30] = 2


def shares(margin, gain, loss, pooled=True):
    """Shares with these sums."""
    total = torch.zeros(4, 6, dtype=torch.float64)
    total[1, 2], total[3, 5] = gain, loss
    kernels = total * 0.75 if pooled else total
    return ContextShares(kernels, total - kernels if pooled else None, (2, 1),
                         margin, margin - (gain + loss))


def test_everything_on_the_page_is_named(figures):
    draw_shares(IMAGE, LABELS, [(LABELS == 2, shares(5, 2, -0.5))], META)
    figure = figures[-1]
    said = texts(figure)
    for words in ('sky', 'car', 'for', 'against', 'logits a position',
                  'region', 'prediction', 'kernels', 'pooled branch',
                  'kernels and pooled branch'):
        assert words in said
    assert 'road' not in said
    assert any(
        text.startswith('car over road: margin 5.00, context changed it by '
                        '+1.50 (sum of the map +1.50)') for text in said)
    places = {
        text.get_text(): text.get_window_extent()
        for text in figure.findobj(Text)
    }
    # the red end is above
    assert places['for'].y0 > places['against'].y1


@pytest.mark.parametrize('rows', [1, 3])
def test_type_is_readable_at_1600_pixels(figures, rows):
    page = draw_shares(IMAGE, LABELS,
                       [(LABELS == 2, shares(5, 2, -0.5))] * rows, META)
    assert page.shape[1] == 1600
    sizes = [
        text.get_fontsize() for text in figures[-1].findobj(Text)
        if text.get_text().strip()
    ]
    # a point of 96 a CSS inch
    assert min(sizes) * figures[-1].dpi / 96 >= 11


def test_maps_and_outline(figures):
    draw_shares(IMAGE, LABELS, [(LABELS == 2, shares(5, 2, -0.5))], META)
    axes = {ax.get_title(): ax for ax in figures[-1].axes}
    for name, part in (('kernels', 0.75), ('pooled branch', 0.25),
                       ('kernels and pooled branch', 1.)):
        picture = axes[name].images[0]
        assert picture.get_array().sum() == pytest.approx(1.5 * part)
        assert picture.get_clim() == (-2., 2.)
        assert picture.get_cmap().name == 'RdBu_r'
    for name in ('region', 'prediction'):
        outline, = axes[name].collections
        x, y = outline.get_paths()[0].vertices.T
        assert x.min() == pytest.approx(9.5) and y.max() == pytest.approx(27.5)


def test_without_a_pooled_branch_there_is_one_map(figures):
    page = draw_shares(IMAGE, LABELS,
                       [(LABELS == 2, shares(5, 2, -0.5, pooled=False))], META)
    assert 'pooled branch' not in texts(figures[-1])
    assert page.shape[1] == 1000


def test_without_a_region_it_says_so(figures):
    page = draw_shares(IMAGE, LABELS, [], META)
    said = texts(figures[-1])
    for words in ('no region to explain', 'image', 'prediction', 'sky', 'car'):
        assert words in said
    assert page.shape[2] == 3


@pytest.mark.parametrize('margin, gain, loss, words', [
    (0.9, 0.012, -0.002, 'context changed this margin by +0.01 of 0.90: '
     'nothing to read here'),
    (-0.9, 0.002, -0.012, 'context changed this margin by -0.01 of 0.90: '
     'nothing to read here'),
    (0.9, 0.51, -0.5, 'context changed this margin by +0.01 of 0.90: shares '
     'for (+0.51) and against (-0.50) cancel'),
    (0.9, 0.03, 0., ''),
    (5., 3., -1., ''),
])
def test_a_hint_where_context_changed_nothing(figures, margin, gain, loss,
                                              words):
    found = shares(margin, gain, loss)
    assert hint(found) == words
    draw_shares(IMAGE, LABELS, [(LABELS == 2, found)], META)
    lines = [line for text in texts(figures[-1]) for line in text.split('\n')]
    assert (words in lines) == bool(words)
    assert any(
        line.startswith(f'car over road: margin {margin:.2f}')
        for line in lines)
