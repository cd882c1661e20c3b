"""The page of an image: pictures, weighting maps and kernels."""
from typing import List, Optional, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample

from ..attribution.context import Context, capture_context, choose_channels
from .canvas import (DPI, NAMED, POINTS, SIDE, Legend, classes_of, rendered,
                     show)
from .draw import displayable, paint
from .reader import label_map


def page(model: BaseSegmentor,
         data: dict,
         image: np.ndarray,
         output: SegDataSample,
         meta: dict,
         count: int = 4,
         channels: Optional[Sequence[int]] = None) -> np.ndarray:
    """Draw the page of an image.

    Args:
        model: In evaluation mode.
        data: A batch of one image as a data loader gives it.
        image: Of the sample, see
            :func:`cac_mmseg.drawing.draw.displayable`.
        output: What the model predicts for it; its ground truth is drawn too
            if it has one.
        meta: ``classes`` and ``palette``.
        count, channels: See
            :func:`cac_mmseg.attribution.context.choose_channels`.

    Returns:
        The picture, (H, W, 3), uint8, RGB.

    Raises:
        ValueError: If a channel is out of range.
    """
    tiles, titles, labels = [displayable(image)], ['image'], []
    fields = dict(pred_sem_seg='prediction', gt_sem_seg='ground truth')
    for field, title in fields.items():
        if field in output:
            label = label_map(output.get(field))
            tiles.append(paint(image, label, meta))
            titles.append(title)
            labels.append(label)
    contexts = capture_context(model, data)
    return draw_context(tiles, titles, classes_of(labels, meta), meta,
                        choose_channels(contexts, count, channels))


def draw_context(tiles: Sequence[np.ndarray], titles: Sequence[str],
                 labels: Sequence[int], meta: dict,
                 blocks: Sequence[Tuple[Context, List[int]]]) -> np.ndarray:
    """Draw a page: pictures, legend, and for each module rows of maps.

    Args:
        tiles: Pictures of one size: image, prediction, ...
        titles: Of the tiles.
        labels: The classes of the legend; see
            :func:`cac_mmseg.drawing.canvas.classes_of`.
        meta: ``classes`` and ``palette``.
        blocks: What modules made of the image, and the channels to draw of it;
            see :func:`cac_mmseg.attribution.context.choose_channels`.
    """
    ratio = tiles[0].shape[0] / tiles[0].shape[1]
    wide = 3 * SIDE
    legend = Legend(labels, meta, wide)
    # inches
    heights = [min(wide / len(tiles), 1.5 * SIDE) * ratio + 0.3, legend.height]
    for context, channels in blocks:
        row = wide / sum(_widths(context, ratio)) * ratio + 0.1
        heights.append(row * len(channels) + 0.7)
    with matplotlib.rc_context(NAMED):
        figure = Figure(
            figsize=(wide, sum(heights)), dpi=DPI, layout='constrained')
        parts = figure.subfigures(len(heights), 1, height_ratios=heights)
        axes = parts[0].subplots(1, len(tiles), squeeze=False)[0]
        for ax, tile, title in zip(axes, tiles, titles):
            show(ax, tile)
            ax.set_title(title, pad=4)
        legend.draw(parts[1])
        for part, (context, channels) in zip(parts[2:], blocks):
            _draw_maps(part, context, channels, _widths(context, ratio))
        return rendered(figure)


def _widths(context: Context, ratio: float) -> List[float]:
    """Return column widths: a map per dilation, their sum, the kernels."""
    return [1.] * (len(context.dilations) + 1) + [ratio] * len(context.kernels)


def _draw_maps(figure: Figure, context: Context, channels: Sequence[int],
               widths: Sequence[float]) -> None:
    """A row for each channel of a module."""
    figure.suptitle(
        f'{context.name}: weights W (dark is low) and kernels D (red is '
        'positive), each row on its own scale',
        fontsize=POINTS)
    axes = figure.subplots(
        len(channels), len(widths), squeeze=False, width_ratios=widths)
    for row, channel in zip(axes, channels):
        maps = context.maps[:, channel].numpy()
        kernels = context.kernels[:, channel].numpy()
        limits = dict(vmin=maps.min(), vmax=maps.max())
        largest = abs(kernels).max()
        scale = dict(vmin=-largest, vmax=largest, cmap='RdBu_r')
        tiles = [(map_, limits) for map_ in maps] + [(maps.sum(0), {})]
        tiles += [(kernel, scale) for kernel in kernels]
        for ax, (tile, style) in zip(row, tiles):
            show(ax, tile, **style)
        row[0].text(
            0,
            1,
            f'channel {channel}, {maps.min():.2f} to {maps.max():.2f}',
            va='top',
            fontsize=9,
            transform=row[0].transAxes,
            bbox=dict(facecolor='white', edgecolor='none', pad=1.5))
    names = [f'W, dilation {d}' for d in context.dilations] + ['sum of W']
    if len(context.kernels) > 1:
        names += [f'D, {d}' for d in context.dilations]
    else:
        names.append('D')
    for ax, name in zip(axes[0], names):
        ax.set_title(name, pad=3, fontsize=10)
