"""The page of explain: regions, and maps of where their context came from."""
from typing import List, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ..attribution.shares import ContextShares
from .canvas import (DPI, NAMED, POINTS, Legend, classes_of, rendered, shorten,
                     show)
from .draw import displayable, paint

WIDTH = 3.0  # inches, of a tile: five make a page of 1,600 pixels
BAR = 1.0  # inches, of the colour bar
# Our choice: the part of a margin below which shares are not worth reading,
# as they seldom turn a pixel.
NEGLIGIBLE = 0.02


def draw_shares(image: np.ndarray, prediction: np.ndarray,
                rows: Sequence[Tuple[np.ndarray, ContextShares]],
                meta: dict) -> np.ndarray:
    """Draw where the context of regions came from, a row for each.

    Args:
        image: See :func:`cac_mmseg.drawing.draw.displayable`.
        prediction: The predicted classes, (H, W).
        rows: Regions (H, W), bool, and their shares. Without any, image and
            prediction are drawn.
        meta: ``classes`` and ``palette``.

    Returns:
        The classes, and for each region: image and prediction with its
        outline, and the maps of kernels, pooled branch and both, on one scale
        in a row, in logits a position.
    """
    tiles = (displayable(image), paint(image, prediction, meta))
    pooled = any(shares.pooled is not None for _, shares in rows)
    columns = (5 if pooled else 3) if rows else 2
    wide = columns * WIDTH + BAR
    tall = WIDTH * image.shape[0] / image.shape[1]
    legend = Legend(classes_of([prediction], meta), meta, wide)
    lines = [words(shares, meta['classes'])
             for _, shares in rows] or [['no region to explain']]
    # inches; above the tiles are lines and titles
    heights = [legend.height
               ] + [tall + 0.5 + 0.2 * len(said) for said in lines]
    with matplotlib.rc_context(NAMED):
        figure = Figure(
            figsize=(wide, sum(heights)), dpi=DPI, layout='constrained')
        parts = figure.subfigures(
            len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        legend.draw(parts[0])
        for part, said in zip(parts[1:], lines):
            part.suptitle(
                '\n'.join(shorten(line, wide) for line in said),
                fontsize=POINTS)
            axes = part.subplots(1, columns)
            for ax, tile, title in zip(axes, tiles, ('image', 'prediction')):
                show(ax, tile)
                ax.set_title(title, fontsize=POINTS)
        for part, (region, shares) in zip(parts[1:], rows):
            axes = part.axes
            axes[0].set_title('region', fontsize=POINTS)
            for ax in axes[:2]:
                _outline(ax, region)
            _draw_maps(part, axes[2:], shares, region.shape)
        return rendered(figure)


def words(shares: ContextShares, classes: Sequence[str]) -> List[str]:
    """Return the lines above a row: the numbers and, if there is one, a hint.
    """
    first, second = (classes[i] for i in shares.classes)
    lines = (f'{first} over {second}: margin {shares.margin:.2f}, context '
             f'changed it by {shares.change:+.2f} (sum of the map '
             f'{shares.total.sum():+.2f})', hint(shares))
    return [line for line in lines if line]


def hint(shares: ContextShares) -> str:
    """Say whether the map is worth reading, if context changed nothing."""
    limit = NEGLIGIBLE * abs(shares.margin)
    if abs(shares.change) >= limit:
        return ''
    gain = shares.total.clamp_min(0).sum().item()
    loss = shares.total.clamp_max(0).sum().item()
    of = (f'context changed this margin by {shares.change:+.2f} of '
          f'{abs(shares.margin):.2f}')
    if max(gain, -loss) < limit:
        return f'{of}: nothing to read here'
    return f'{of}: shares for ({gain:+.2f}) and against ({loss:+.2f}) cancel'


def _outline(ax: Axes, region: np.ndarray) -> None:
    """Outline a region, also where it ends with the image."""
    height, width = region.shape
    ax.contour(
        np.arange(-1, width + 1),
        np.arange(-1, height + 1),
        np.pad(region, 1), [0.5],
        colors='yellow',
        linewidths=1.5)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _draw_maps(part: SubFigure, axes: Sequence[Axes], shares: ContextShares,
               size: Tuple[int, int]) -> None:
    """Draw the maps of a region over the extent of the image."""
    maps = {'kernels': shares.kernels}
    if shares.pooled is not None:
        maps['pooled branch'] = shares.pooled
        maps['kernels and pooled branch'] = shares.total
    largest = max(m.abs().max().item() for m in maps.values()) or 1.
    for ax, (title, map_) in zip(axes, maps.items()):
        show(
            ax,
            map_.numpy(),
            cmap='RdBu_r',
            vmin=-largest,
            vmax=largest,
            extent=(-0.5, size[1] - 0.5, size[0] - 0.5, -0.5))
        ax.set_title(title, fontsize=POINTS)
    bar = part.colorbar(ax.images[0], ax=axes, shrink=0.8)
    bar.set_label('logits a position')
    bar.ax.set_title('for', fontsize=POINTS)
    bar.ax.set_xlabel('against')
