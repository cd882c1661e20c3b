"""Pictures, as arrays (H, W, 3), uint8, RGB."""
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

import matplotlib
import mmcv
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from ..utils.files import new_file
from .attribution import ContextShares
from .context import Context

STYLE = {'font.size': 11}
SIDE = 4.0  # inches, of an image in a row
LEGEND = 0.25  # inches, of a line of it

Tile = Optional[np.ndarray]  # a picture, a label map (H, W), or nothing


def save_picture(picture: np.ndarray, path: Union[str, Path]) -> None:
    """Write a picture, completely or not at all."""
    with new_file(path) as file:
        mmcv.imwrite(mmcv.rgb2bgr(picture), str(file))


def paint(image: np.ndarray, labels: np.ndarray, meta: dict) -> np.ndarray:
    """Lay the colours of the classes over an image, by mmseg's visualizer."""
    visualizer = SegLocalVisualizer(alpha=0.6)
    visualizer.dataset_meta = meta
    known = np.where(labels < len(meta['classes']), labels, 255)
    sample = SegDataSample(
        pred_sem_seg=PixelData(data=torch.from_numpy(known)[None]))
    visualizer.add_datasample('', image, sample, with_labels=False)
    return visualizer.get_image()


def draw_rows(rows: Sequence[Sequence[Tile]],
              titles: Sequence[str],
              meta: dict,
              names: Sequence[str] = ()) -> np.ndarray:
    """Draw rows of tiles with a legend.

    Args:
        rows: Label maps are drawn in the colours of the classes, labels
            without a colour and missing tiles are left white.
        titles: Of the columns.
        meta: ``classes`` and ``palette``, one colour per class.
        names: Of the rows.
    """
    classes = meta['classes']
    palette = np.full((256, 3), 255, np.uint8)
    palette[:len(classes)] = meta['palette']
    height, width = rows[0][0].shape[:2]
    # inches: columns of a fixed width, rows as high as the images ask for
    columns = 2 * len(titles)
    top, bottom = 0.3, LEGEND * -(-len(classes) // columns) + 0.15
    tall = SIDE * height / width * len(rows) + top + bottom
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(len(titles) * SIDE, tall), dpi=100)
        axes = figure.subplots(len(rows), len(titles), squeeze=False)
        for row, tiles in zip(axes, rows):
            for ax, tile in zip(row, tiles):
                if tile is not None and tile.ndim == 2:
                    tile = palette[tile.astype(np.uint8)]
                _show(ax, tile, aspect='auto')
        for ax, title in zip(axes[0], titles):
            ax.set_title(title, pad=4)
        for ax, name in zip(axes[:, 0], names):
            ax.text(
                0.01,
                0.98,
                name,
                va='top',
                fontsize=9,
                transform=ax.transAxes,
                bbox=dict(facecolor='white', edgecolor='none', pad=1.5))
        _legend(figure, range(len(classes)), meta, columns)
        figure.subplots_adjust(
            left=0,
            right=1,
            wspace=0.02,
            hspace=0.02,
            top=1 - top / tall,
            bottom=bottom / tall)
        return _rendered(figure)


def draw_context(tiles: Sequence[np.ndarray], titles: Sequence[str],
                 labels: Sequence[int], meta: dict,
                 blocks: Sequence[Tuple[Context, List[int]]]) -> np.ndarray:
    """Draw a page: pictures, legend, and for each module rows of maps.

    Args:
        tiles: Pictures of one size: image, prediction, ...
        titles: Of the tiles.
        labels: The classes of the legend.
        meta: ``classes`` and ``palette``.
        blocks: What modules made of the image, and the channels to draw of it;
            see :func:`cac_mmseg.visualization.context.choose_channels`.
    """
    ratio = tiles[0].shape[0] / tiles[0].shape[1]
    wide = 3 * SIDE
    # inches
    heights = [
        min(wide / len(tiles), 1.5 * SIDE) * ratio + 0.3,
        LEGEND * -(-len(labels) // 6) + 0.15
    ]
    for context, channels in blocks:
        row = wide / sum(_widths(context, ratio)) * ratio + 0.1
        heights.append(row * len(channels) + 0.7)
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(wide, sum(heights)), dpi=100, layout='constrained')
        parts = figure.subfigures(len(heights), 1, height_ratios=heights)
        axes = parts[0].subplots(1, len(tiles), squeeze=False)[0]
        for ax, tile, title in zip(axes, tiles, titles):
            _show(ax, tile)
            ax.set_title(title, pad=4)
        _legend(parts[1], labels, meta, 6)
        for part, (context, channels) in zip(parts[2:], blocks):
            _draw_maps(part, context, channels, _widths(context, ratio))
        return _rendered(figure)


def _widths(context: Context, ratio: float) -> List[float]:
    """Return column widths: a map per dilation, their sum, the kernels."""
    return [1.] * (len(context.dilations) + 1) + [ratio] * len(context.kernels)


def _draw_maps(figure: Figure, context: Context, channels: Sequence[int],
               widths: Sequence[float]) -> None:
    """A row for each channel of a module."""
    figure.suptitle(
        f'{context.name}: weights W (dark is low) and kernels D (red is '
        'positive), each row on its own scale',
        fontsize=11)
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
            _show(ax, tile, **style)
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


def _show(ax: Axes, tile: Tile, **style: Union[str, float]) -> None:
    ax.set_axis_off()
    if tile is not None:
        ax.imshow(tile, interpolation='nearest', **style)


def _legend(figure: Figure, labels: Sequence[int], meta: dict,
            columns: int) -> None:
    figure.legend(
        handles=[
            Patch(
                facecolor=np.array(meta['palette'][i]) / 255,
                label=meta['classes'][i]) for i in labels
        ],
        loc='lower center',
        ncols=max(1, min(columns, len(labels))),
        frameon=False)


def _rendered(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def classes_of(maps: Sequence[np.ndarray], meta: dict) -> List[int]:
    """Return the classes that occur in label maps."""
    found = {*np.unique(np.concatenate([m.ravel() for m in maps])).tolist()}
    return [i for i in range(len(meta['classes'])) if i in found]


def draw_shares(image: np.ndarray, prediction: np.ndarray,
                rows: Sequence[Tuple[np.ndarray, ContextShares]],
                classes: Sequence[str]) -> np.ndarray:
    """Draw where the context of regions came from, a row for each.

    Args:
        image: (H, W, 3).
        prediction: The image with the predicted classes laid over.
        rows: Regions (H, W), bool, and their shares.
        classes: Names.

    Returns:
        Image with the region outlined, prediction, and the maps of kernels,
        pooled branch and both, on one scale in a row, in logits a position.
    """
    ratio = image.shape[0] / image.shape[1]
    with matplotlib.rc_context(STYLE):
        tall = len(rows) * (SIDE * ratio + 0.75)
        figure = Figure(
            figsize=(5 * SIDE + 0.8, tall), dpi=80, layout='constrained')
        parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
        for part, (region, shares) in zip(parts, rows):
            first, second = (classes[i] for i in shares.classes)
            part.suptitle(
                f'{first} over {second}: margin {shares.margin:.2f}, context '
                f'changed it by {shares.change:+.2f} (sum of the map '
                f'{shares.total.sum():+.2f})',
                fontsize=11)
            axes = part.subplots(1, 5)
            for ax, tile, title in ((axes[0], image, 'region'),
                                    (axes[1], prediction, 'prediction')):
                _show(ax, tile)
                ax.contour(region, [0.5], colors='yellow', linewidths=1.5)
                ax.set_title(title, fontsize=10)
            maps = dict(kernels=shares.kernels, pooled=shares.pooled)
            maps['kernels and pooled branch'] = shares.total
            largest = max(m.abs().max().item() for m in maps.values()
                          if m is not None)
            for ax, (title, shown) in zip(axes[2:], maps.items()):
                ax.set_axis_off()
                ax.set_title(title, fontsize=10)
                if shown is None:
                    continue
                picture = ax.imshow(
                    shown.numpy(), cmap='RdBu_r', vmin=-largest, vmax=largest)
            part.colorbar(picture, ax=axes[2:], shrink=0.8)
        return _rendered(figure)
