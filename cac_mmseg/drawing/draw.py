"""Pictures, as arrays (H, W, 3), uint8, RGB."""
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

import matplotlib
import mmcv
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..stack.files import new_file
from .canvas import (DPI, NAMED, SIDE, Legend, classes_of, colours, indices,
                     rendered, shorten, show)

TALLEST = 1.5  # of a row, in widths of a column
GAP = 0.08  # inches, between tiles
EDGE = 0.02  # inches, for the frames of the outer ones
TITLE = 0.3  # inches
NAME = 9  # points, of the name of a row
OPACITY = 0.6  # of the classes over an image

# a picture, a label map (H, W), the latter over the former, or nothing
Tile = Union[np.ndarray, Tuple[np.ndarray, np.ndarray], None]


def save_picture(picture: np.ndarray, path: Union[str, Path]) -> None:
    """Write a picture, completely or not at all."""
    with new_file(path) as file:
        mmcv.imwrite(mmcv.rgb2bgr(picture), str(file))


def displayable(image: np.ndarray) -> np.ndarray:
    """Return an image of any number of bands and any type as RGB.

    Args:
        image: (H, W) or (H, W, bands). The first three bands are red, green
            and blue; one is grey, of two the third is left empty. Of other
            types than uint8, the finite values from the smallest to the
            largest are scaled to 0 to 255.

    Returns:
        (H, W, 3), uint8.
    """
    bands = image.reshape(*image.shape[:2], -1)[..., :3]
    if bands.dtype != np.uint8:
        values = bands.astype(np.float64)
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0., 0.)
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        # constant images are black
        scaled = (values - low) / ((high - low) or 1.)
        bands = np.rint(255 * scaled).astype(np.uint8)
    if bands.shape[2] == 1:
        return bands.repeat(3, 2)
    return np.pad(bands, ((0, 0), (0, 0), (0, 3 - bands.shape[2])))


def paint(image: np.ndarray, labels: np.ndarray, meta: dict) -> np.ndarray:
    """Lay the colours of the classes over an image; no class is white.

    Args:
        image: See :func:`displayable`.
        labels: (H, W), of any integer type.
        meta: ``classes`` and ``palette``.
    """
    over = colours(meta)[indices(labels, meta)]
    return ((1 - OPACITY) * displayable(image) + OPACITY * over).astype(
        np.uint8)


def draw_rows(rows: Sequence[Sequence[Tile]],
              titles: Sequence[str],
              meta: dict,
              names: Sequence[str] = (),
              caption: str = '') -> np.ndarray:
    """Draw rows of tiles with a legend of the classes that occur.

    Args:
        rows: Pictures (see :func:`displayable`), label maps of two dimensions,
            pairs of both, or None. They keep their aspect ratios.
        titles: Of the columns.
        meta: ``classes`` and ``palette``.
        names: Of the rows; the middle of long ones is left out.
        caption: A line above.
    """
    width = len(titles) * SIDE  # all in inches
    column = (width - 2 * EDGE + GAP) / len(titles) - GAP
    legend = Legend(classes_of(_label_maps(rows), meta), meta, width)
    heights = [_row_height(tiles, column) for tiles in rows]
    top = TITLE * (2 if caption else 1)
    tall = top + sum(heights) + GAP * len(rows) + legend.height
    with matplotlib.rc_context(NAMED):
        figure = Figure(figsize=(width, tall), dpi=DPI)
        for i, title in enumerate(titles):
            figure.text(
                (EDGE + i * (column + GAP) + column / 2) / width,
                1 - (top - 0.06) / tall,
                shorten(title, column),
                ha='center',
                fontsize=12)
        figure.text(
            0.5,
            1 - (TITLE - 0.06) / tall,
            shorten(caption, width),
            ha='center')
        for row, (tiles, height) in enumerate(zip(rows, heights)):
            for i, (tile, title) in enumerate(zip(tiles, titles)):
                picture = _picture(tile, meta)
                shape = _fitted(picture, column, height)
                left = EDGE + i * (column + GAP) + (column - shape[0]) / 2
                below = tall - top - (height + shape[1]) / 2
                ax = figure.add_axes((left / width, below / tall,
                                      shape[0] / width, shape[1] / tall))
                show(ax, picture, aspect='auto')
                _frame(ax, f'no {title}' if tile is None else '')
                if i == 0 and row < len(names):
                    _name(ax, names[row], shape[0])
            top += height + GAP
        legend.draw(figure)
        return rendered(figure)


def _label_maps(rows: Sequence[Sequence[Tile]]) -> List[np.ndarray]:
    tiles = [tile for row in rows for tile in row if tile is not None]
    maps = [tile[1] if isinstance(tile, tuple) else tile for tile in tiles]
    return [m for m in maps if m.ndim == 2]


def _picture(tile: Tile, meta: dict) -> Optional[np.ndarray]:
    if tile is None:
        return None
    if isinstance(tile, tuple):
        return paint(*tile, meta)
    if tile.ndim == 2:
        return colours(meta)[indices(tile, meta)]
    return displayable(tile)


def _row_height(tiles: Sequence[Tile], column: float) -> float:
    """Return the height at which the tallest tile fills its column."""
    shapes = [(tile[0] if isinstance(tile, tuple) else tile).shape
              for tile in tiles if tile is not None]
    ratio = max(height / width for height, width, *_ in shapes)
    # not below the name of the row
    return max(column * min(ratio, TALLEST), TITLE)


def _fitted(picture: Optional[np.ndarray], width: float,
            height: float) -> Tuple[float, float]:
    """Return width and height of a picture that fills a box of this size."""
    if picture is None:
        return width, height
    ratio = picture.shape[0] / picture.shape[1]
    return min(width, height / ratio), min(height, width * ratio)


def _frame(ax: Axes, words: str) -> None:
    """Outline a tile, which may be white, and say what is missing."""
    ax.add_patch(
        Rectangle((0, 0),
                  1,
                  1,
                  transform=ax.transAxes,
                  fill=False,
                  edgecolor='0.5',
                  linewidth=0.8))
    ax.text(
        0.5,
        0.5,
        words,
        ha='center',
        va='center',
        color='0.4',
        transform=ax.transAxes)


def _name(ax: Axes, name: str, width: float) -> None:
    """Write the name of a row into its first tile."""
    ax.annotate(
        shorten(name, width - 0.15, NAME), (0, 1), (3, -3),
        xycoords='axes fraction',
        textcoords='offset points',
        va='top',
        fontsize=NAME,
        bbox=dict(facecolor='white', edgecolor='none', pad=1.5))
