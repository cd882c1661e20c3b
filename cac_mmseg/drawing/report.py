"""The page that says what was learned: curves, classes, confusion, images."""
from typing import List, NamedTuple, Optional, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure, SubFigure

from ..stack.confusion import Confusion
from ..stack.words import counted
from .canvas import DPI, NAMED, POINTS, SIDE, rendered, shorten
from .class_charts import BLUE, GREY, NAME, RED, classes_height, draw_classes
from .draw import Tile, displayable, draw_rows

TITLES = ('image', 'ground truth', 'prediction', 'wrong pixels')
WIDTH = len(TITLES) * SIDE  # inches
MARGIN = 0.15  # inches


class Curves(NamedTuple):
    """What a training has recorded.

    ``losses`` is that of each iteration up to the last, ``scores`` iterations
    and their mIoU, in percent, that of the last iteration last.
    """
    losses: np.ndarray
    scores: Sequence[Sequence[float]]


def draw_report(caption: str,
                confusion: Confusion,
                meta: dict,
                rows: Sequence[Sequence[Tile]],
                names: Sequence[str],
                curves: Optional[Curves] = None) -> np.ndarray:
    """Draw the page of a validation.

    Args:
        caption: Its first line.
        confusion: Over all images.
        meta: ``classes`` and ``palette``.
        rows: Image, ground truth and prediction of a few.
        names: Of the rows.
        curves: Of the training, if there was one.

    Returns:
        The picture, (H, W, 3), uint8, RGB.
    """
    classes = meta['classes']
    rows = [(*row, wrong_pixels(*row, len(classes))) for row in rows]
    lines = _facts(confusion, classes)
    heights = [0.5 + 0.25 * len(lines), classes_height(confusion, classes)]
    if curves:
        heights.insert(1, 3.2)
    # chunks, as Agg refuses long paths
    with matplotlib.rc_context({**NAMED, 'agg.path.chunksize': 10000}):
        figure = Figure((WIDTH, sum(heights)), DPI, layout='constrained')
        parts = figure.subfigures(len(heights), 1, height_ratios=heights)
        _write(parts[0], heights[0], caption, lines)
        if curves:
            _draw_curves(parts[1], curves)
        draw_classes(parts[-1], confusion, meta)
        numbers = rendered(figure)
    return np.concatenate([numbers, draw_rows(rows, TITLES, meta, names)])


def wrong_pixels(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray,
                 classes: int) -> np.ndarray:
    """Return an image, pale, with the pixels of another class in red.

    Pixels whose ground truth is no class are not wrong.
    """
    grey = np.full(truth.shape, 255.)
    if image.shape[:2] == truth.shape:
        grey = 160 + displayable(image).mean(2) * 0.35
    marked = grey[..., None].repeat(3, 2).astype(np.uint8)
    marked[(truth != prediction) & (truth < classes)] = 220, 0, 40
    return marked


def _facts(confusion: Confusion, classes: Sequence[str]) -> List[str]:
    """Return the lines below the first, of classes that need attention."""
    facts = {
        'Never predicted': confusion.missed,
        'No pixel in the ground truth': confusion.absent
    }
    return [
        _listed(f'{what}: ', [classes[i] for i in np.flatnonzero(which)])
        for what, which in facts.items() if which.any()
    ]


def _listed(text: str, names: Sequence[str]) -> str:
    """Join names as long as they fit into a line."""
    room = WIDTH - 2 * MARGIN
    for i, name in enumerate(names):
        rest = f' and {len(names) - i} more'
        longer = f'{text}{", " if i else ""}{shorten(name, 2 * NAME)}'
        if shorten(longer + rest, room) != longer + rest:
            return text + rest
        text = longer
    return text


def _write(part: SubFigure, height: float, caption: str,
           lines: Sequence[str]) -> None:
    left = MARGIN / WIDTH
    part.text(
        left, 1 - 0.1 / height, caption, va='top', fontsize=14, weight='bold')
    for i, line in enumerate(lines):
        red = line.startswith('Never')
        part.text(
            left,
            1 - (0.45 + 0.25 * i) / height,
            line,
            va='top',
            color=RED if red else GREY)


def _draw_curves(part: SubFigure, curves: Curves) -> None:
    left, right = part.subplots(1, 2)
    iterations, scores = np.array(curves.scores, float).T
    losses = curves.losses
    steps = int(iterations[-1]) - len(losses) + 1 + np.arange(len(losses))
    left.plot(steps, losses, color=BLUE, linewidth=0.6, alpha=0.4)
    window = max(1, len(losses) // 40)
    left.plot(steps, _smoothed(losses, window), color=BLUE, linewidth=2)
    left.set_title(
        f'training loss, and its mean over {counted(window, "iteration")}',
        fontsize=POINTS)
    right.plot(iterations, scores, 'o-', color=BLUE, markersize=4)
    right.set_title('validation mIoU', fontsize=POINTS)
    if np.isfinite(scores).any():
        best = np.nanargmax(scores)
        right.plot(*curves.scores[best], '*', color=RED, markersize=14)
        right.set_title(
            f'validation mIoU, best {scores[best]:.2f} after '
            f'{counted(int(iterations[best]), "iteration")}',
            fontsize=POINTS)
    for ax in (left, right):
        ax.set_xlim(0, iterations[-1] * 1.02)
        ax.set_xlabel('iteration')
        ax.locator_params('x', integer=True)
        ax.grid(alpha=0.3)


def _smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of the last values, of those that are finite."""
    finite = np.isfinite(values)
    sums, counts = (
        np.cumsum(np.concatenate([np.zeros(window), x]))
        for x in (np.where(finite, values, 0.), finite))
    counts = counts[window:] - counts[:-window]
    sums = sums[window:] - sums[:-window]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
