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


@pytest.fixture
def draw(figures):
    """Draw pages; the picture, the figure and what is written on it."""

    def draw(*found):
        rows = [(LABELS == 2, shares) for shares in found]
        picture = draw_shares(IMAGE, LABELS, rows, META)
        return picture, figures[-1], texts(figures[-1])

    return draw


@pytest.mark.parametrize('rows', [1, 3])
def test_everything_on_the_page_is_named_and_readable(draw, rows):
    page, figure, said = draw(*[shares(5, 2, -0.5)] * rows)
    assert {
        'sky', 'car', 'for', 'against', 'logits a position', 'region',
        'prediction', 'kernels', 'pooled branch', 'kernels and pooled branch'
    } <= {*said}
    assert 'road' not in said
    words = ('car over road: margin 5.00, context changed it by +1.50 (sum of '
             'the map +1.50)')
    assert sum(text.startswith(words) for text in said) == rows
    written = {text.get_text(): text for text in figure.findobj(Text)}
    upper, lower = (
        written[name].get_window_extent() for name in ('for', 'against'))
    assert upper.y0 > lower.y1  # the red end is above
    assert page.shape[1] == 1600
    sizes = [written[text].get_fontsize() for text in said]
    assert min(sizes) * figure.dpi / 96 >= 11  # a point of 96 a CSS inch


def test_maps_and_outline(draw):
    _, figure, _ = draw(shares(5, 2, -0.5))
    axes = {ax.get_title(): ax for ax in figure.axes}
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


def test_without_a_pooled_branch_there_is_one_map(draw):
    page, _, said = draw(shares(5, 2, -0.5, pooled=False))
    assert 'pooled branch' not in said and page.shape[1] == 1000


def test_without_a_region_it_says_so(draw):
    page, _, said = draw()
    words = {'no region to explain', 'image', 'prediction', 'sky', 'car'}
    assert words <= {*said} and page.shape[2] == 3


CHANGED = 'context changed this margin by '


@pytest.mark.parametrize('margin, gain, loss, words', [
    (0.9, 0.012, -0.002, f'{CHANGED}+0.01 of 0.90: nothing to read here'),
    (-0.9, 0.002, -0.012, f'{CHANGED}-0.01 of 0.90: nothing to read here'),
    (0.9, 0.51, -0.5,
     f'{CHANGED}+0.01 of 0.90: shares for (+0.51) and against (-0.50) cancel'),
    (0.9, 0.03, 0., ''),
    (5., 3., -1., ''),
])
def test_a_hint_where_context_changed_nothing(draw, margin, gain, loss, words):
    found = shares(margin, gain, loss)
    assert hint(found) == words
    lines = '\n'.join(draw(found)[2]).split('\n')
    assert (words in lines) == bool(words)
    words = f'car over road: margin {margin:.2f}'
    assert any(line.startswith(words) for line in lines)
