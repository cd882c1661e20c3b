"""Charts of classes: their IoU as bars, and how they are confused."""
from typing import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import SubFigure

from ..stack.confusion import Confusion
from ..stack.words import counted
from .canvas import POINTS, colours, shorten, text_width

MOST = 30  # classes that are drawn as bars, and in the matrix
CONFUSED = 20  # classes in the matrix where there are more
NUMBERED = 12  # classes in a matrix with numbers
SMALL = 9  # points
NAME = 2.0  # inches, of a class
TURNED = 1.3  # inches, of a name that is read from below
BAR = 0.24  # inches
RED, GREY, BLUE = '#c00020', '0.45', '#1f5fa8'


def classes_height(confusion: Confusion, classes: Sequence[str]) -> float:
    """Return the height of :func:`draw_classes`, in inches."""
    names = [classes[i] for i in _confused(confusion)]
    widest = max((text_width(name, SMALL) for name in names), default=0)
    return 1 + min(widest, TURNED) + max(
        2, BAR * min(len(_shown(confusion)), MOST + 1))


def draw_classes(part: SubFigure, confusion: Confusion, meta: dict) -> None:
    """Draw IoU and share of pixels of each class, and the confusion matrix.

    Args:
        part: To draw on.
        confusion: Over all images. Classes without a pixel are left out.
        meta: ``classes`` and ``palette``.
    """
    left, right = part.subplots(1, 2)
    _draw_bars(left, confusion, meta)
    _draw_matrix(right, confusion, meta['classes'])


def _shown(confusion: Confusion) -> np.ndarray:
    """Return the classes that occur, or are predicted."""
    return np.flatnonzero(~np.isnan(confusion.iou))


def _confused(confusion: Confusion) -> np.ndarray:
    """Return the classes of the matrix, in the order of the data set."""
    shown = _shown(confusion)
    if len(shown) <= MOST:
        return shown
    return np.sort(np.argsort(-confusion.wrong, kind='stable')[:CONFUSED])


def _draw_bars(ax: Axes, confusion: Confusion, meta: dict) -> None:
    """Draw the IoU of classes, the worst on top."""
    shown = _shown(confusion)
    iou, shares = 100 * confusion.iou, 100 * confusion.shares
    order = shown[np.argsort(iou[shown], kind='stable')].tolist()
    title, left_out = 'IoU of each class', len(order) - MOST
    if left_out > 0:
        half = MOST // 2
        title += f', the {half} worst and the {half} best'
        order[half:-half] = [None]
    ax.set_title(title, fontsize=POINTS)
    ticks = [''] * len(order)
    for y, i in enumerate(order):
        if i is None:
            words = f'… {counted(left_out, "class", "classes")} between'
            ax.text(1, y, words, va='center', color=GREY, fontsize=SMALL)
            continue
        missed, absent = confusion.missed[i], confusion.absent[i]
        ticks[y] = shorten(meta['classes'][i], NAME, SMALL)
        ax.barh(
            y, iou[i], 0.75, color=colours(meta)[i] / 255, edgecolor='0.5',
            linewidth=0.8)  # yapf: disable
        words = 'never predicted' if missed else (
            'not in the ground truth' if absent else '')
        ax.text(
            1, y, words, va='center', color=RED if missed else GREY,
            fontsize=SMALL)  # yapf: disable
        for x, text in ((1.08, f'{iou[i]:.1f}'), (1.2, _percent(shares[i]))):
            ax.text(
                x, y, text, ha='right', va='center', fontsize=SMALL,
                transform=ax.get_yaxis_transform())  # yapf: disable
    for x, text in ((1.08, 'IoU'), (1.2, 'pixels')):
        ax.text(
            x, 1.005, text, ha='right', va='bottom', color=GREY,
            fontsize=SMALL, transform=ax.transAxes)  # yapf: disable
    ax.set_yticks(range(len(order)), ticks, fontsize=SMALL)
    for label, i in zip(ax.get_yticklabels(), order):
        if i is not None and confusion.missed[i]:
            label.set_color(RED)
    ax.set(xlim=(0, 100), ylim=(max(len(order), 1) - 0.5, -0.5))
    ax.grid(axis='x', alpha=0.3)
    ax.set_axisbelow(True)


def _percent(share: float) -> str:
    return '< 0.1 %' if 0 < share < 0.1 else f'{share:.1f} %'


def _draw_matrix(ax: Axes, confusion: Confusion,
                 classes: Sequence[str]) -> None:
    """Draw where the pixels of a class went, in percent of its row."""
    shown = _confused(confusion)
    rates = 100 * confusion.rates[np.ix_(shown, shown)]
    title = 'confusion, % of each row'
    if len(shown) < len(_shown(confusion)):
        title += f': the {CONFUSED} classes with most wrong pixels'
    ax.set_title(title, fontsize=POINTS)
    ax.set_facecolor('0.92')  # of rows without pixels
    # small ones are seen too
    ax.imshow(rates, cmap='Blues', norm=PowerNorm(0.5, 0, 100), aspect='auto')
    for axis, room in ((ax.xaxis, TURNED), (ax.yaxis, NAME)):
        names = [shorten(classes[i], room, SMALL) for i in shown]
        axis.set_ticks(range(len(shown)), names, fontsize=SMALL)
    ax.tick_params('x', rotation=90)
    ax.set(xlabel='prediction', ylabel='ground truth')
    few = len(shown) <= NUMBERED
    for (y, x), rate in np.ndenumerate(rates if few else rates[:0]):
        if np.isfinite(rate):
            ax.text(
                x, y, f'{rate:.1f}', ha='center', va='center', fontsize=SMALL,
                color='white' if rate > 40 else 'black')  # yapf: disable
