"""What all pictures share: type, colours and legend of classes."""
import warnings
from typing import List, Optional, Sequence, Union

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch

DPI = 100
POINTS = 11  # the size of type
# of class names in other scripts, where one is installed
FONTS = {
    'Noto Sans CJK SC', 'WenQuanYi Zen Hei', 'Microsoft YaHei', 'PingFang SC'
} & {*font_manager.get_font_names()}
STYLE = {'font.size': POINTS, 'font.family': ['DejaVu Sans', *sorted(FONTS)]}
# names of files and classes may hold a $, which starts no formula
NAMED = {**STYLE, 'text.parse_math': False}
MISSING = 'Glyph .* missing from font'  # the picture shows which
SIDE = 4.0  # inches, of an image in a row
LINE = 1.5 * POINTS / 72  # inches, of the legend
NO_CLASS = 'no class'  # pixels that are ignored, and values that are no class


def colours(meta: dict) -> np.ndarray:
    """Return the colours of the classes, and white for what is none.

    Args:
        meta: ``classes``, K of them, and ``palette``.

    Returns:
        (K + 1, 3), uint8.
    """
    palette = np.array(meta['palette'], np.uint8)
    palette = np.resize(palette, (len(meta['classes']), 3))
    return np.concatenate([palette, np.full((1, 3), 255, np.uint8)])


def indices(labels: np.ndarray, meta: dict) -> np.ndarray:
    """Return labels of any integer type as indices of :func:`colours`."""
    count = len(meta['classes'])
    known = (labels >= 0) & (labels < count)
    return np.where(known, labels, count).astype(np.intp)


def classes_of(maps: Sequence[np.ndarray], meta: dict) -> List[int]:
    """Return what occurs in label maps, as indices of :func:`colours`."""
    found = [np.unique(indices(labels, meta)) for labels in maps]
    return np.unique(np.concatenate(found)).tolist() if found else []


class Legend:
    """Colours and names of classes.

    Args:
        classes: Indices of :func:`colours`.
        meta: ``classes`` and ``palette``.
        width: Inches.
    """

    def __init__(self, classes: Sequence[int], meta: dict,
                 width: float) -> None:
        names = [*meta['classes'], NO_CLASS]
        # inches, beside a name: patch and spaces
        patch = 5 * POINTS / 72
        self.names = [shorten(names[i], width - patch) for i in classes]
        self.colours = colours(meta)[[*classes]] / 255
        widest = max(map(text_width, self.names), default=0)
        self.columns = max(1,
                           min(len(self.names), int(width / (widest + patch))))

    @property
    def height(self) -> float:
        """Inches."""
        return LINE * -(-len(self.names) // self.columns) + 0.15

    def draw(self, figure: Figure) -> None:
        """Draw it at the lower edge of a figure."""
        if not self.names:
            return
        legend = figure.legend(
            # what starts with an underscore would be left out
            [
                Patch(facecolor=colour, edgecolor='0.5', linewidth=0.8)
                for colour in self.colours
            ],
            [' '] * len(self.names),
            loc='lower center',
            ncols=self.columns,
            frameon=False)
        for text, name in zip(legend.get_texts(), self.names):
            text.set_text(name)


def text_width(text: str, points: float = POINTS) -> float:
    """Return the width of a text, in inches."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', MISSING)
        width, _, _ = RendererAgg(1, 1, DPI).get_text_width_height_descent(
            text, FontProperties(size=points), False)
    return width / DPI


def shorten(text: str, width: float, points: float = POINTS) -> str:
    """Leave out the middle of a text that is wider than some inches."""
    shown, kept = text, len(text)
    while kept > 2 and text_width(shown, points) > width:
        kept -= 1
        shown = f'{text[:-(-kept // 2)]}…{text[-(kept // 2):]}'
    return shown


def show(ax: Axes, tile: Optional[np.ndarray], **style: Union[str, float,
                                                              tuple]) -> None:
    """Draw a picture or a map, without axes."""
    ax.set_axis_off()
    if tile is not None:
        ax.imshow(tile, interpolation='nearest', **style)


def rendered(figure: Figure) -> np.ndarray:
    """Return a figure as a picture, (H, W, 3), uint8."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', MISSING)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
