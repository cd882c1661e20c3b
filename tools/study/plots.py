"""Plots of a study."""
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, Optional, Sequence

import matplotlib
import mmcv
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cac_mmseg.drawing.canvas import STYLE
from cac_mmseg.drawing.draw import draw_rows, save_picture
from cac_mmseg.drawing.reader import Reader
from cac_mmseg.stack.config import build_datasets
from cac_mmseg.stack.files import new_file
from .plan import Run
from .statistics import HeadResults, additive_bound, measured

ROWS = 4  # images of predictions.png
SHOWN = ('fcn', 'pspnet', 'cac')  # columns of it, where they were run
SPREAD = 'mIoU, mean and range of the seeds'
# colours of tab20, but for red, and what follows when they are used up
OTHERS = (*range(0, 6, 2), *range(8, 20, 2), *range(1, 20, 2))
MARKERS = 'osD^'
# figures of a run, with label and factor
COSTS = dict(
    multiply_adds=('multiply-adds of an image, G', 1e-9),
    step_ms=('step of training, a batch, ms', 1),
    predict_ms=('prediction of a crop, ms', 1),
    saved_mib=('activations that the head saves, two images, MiB', 1))


def draw_all(heads: Sequence[HeadResults], runs: Sequence[Run],
             out: Path) -> None:
    """Write the plots to a folder.

    Args:
        heads: The best one first.
        runs: Whose predictions are shown, if they are here.
        out: The folder.
    """
    with matplotlib.rc_context(STYLE):
        accuracy_over_cost(heads, out / 'accuracy_cost.png')
        learning_curves(heads, out / 'learning_curves.png')
    picture = predictions(runs)
    if picture is not None:
        save_picture(picture, out / 'predictions.png')


def colour(index: int, heads: Sequence[HeadResults]) -> tuple:
    """CaC in red; other heads in one of :data:`OTHERS`."""
    if heads[index].name == 'cac':
        return matplotlib.colormaps['tab20'](6)
    others = [i for i, head in enumerate(heads) if head.name != 'cac']
    at = OTHERS[others.index(index) % len(OTHERS)]
    return matplotlib.colormaps['tab20'](at)


def marker(index: int) -> str:
    """Tell apart heads that have the same colour."""
    return MARKERS[index // len(OTHERS) % len(MARKERS)]


def accuracy_over_cost(heads: Sequence[HeadResults], path: Path) -> None:
    """Draw the mean IoU over each of :data:`COSTS` that was measured."""
    costs = {key: COSTS[key] for key in COSTS if measured(heads, key)}
    rows = len(costs) // 2  # with times two
    bound = additive_bound(heads)
    with _figure(path, 11, 4 * rows) as figure:
        axes = figure.subplots(rows, 2, sharey=True, squeeze=False)
        for ax, (key, (label, scale)) in zip(axes.flat, costs.items()):
            if bound:
                ax.axhline(
                    bound,
                    color='black',
                    linestyle='--',
                    label='additive bound' if ax is axes[0, 0] else None)
            for i, head in enumerate(heads):
                scores, mean = head.scores, head.scores.mean()
                ax.errorbar(
                    head.median(key) * scale,
                    mean, [[mean - scores.min()], [scores.max() - mean]],
                    fmt=marker(i),
                    capsize=3,
                    label=head.name if ax is axes[0, 0] else None,
                    color=colour(i, heads))
            ax.set_xlabel(label)
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.margins(x=0.15)
        for ax in axes[:, 0]:
            ax.set_ylabel(SPREAD)


def learning_curves(heads: Sequence[HeadResults], path: Path) -> None:
    """Draw the training loss, and the mean IoU of each validation."""
    with _figure(path, 12, 4.5) as figure:
        left, right = figure.subplots(1, 2)
        for i, head in enumerate(heads):
            style = dict(color=colour(i, heads))
            losses = np.array([run['loss'] for run in head.runs]).mean(0)
            window = max(1, len(losses) // 20)
            smooth = np.convolve(losses, np.full(window, 1 / window), 'valid')
            left.plot(np.arange(len(smooth)) + window, smooth, **style)
            curves = np.array([run['curve'] for run in head.runs])
            steps, scores = curves[0, :, 0], curves[..., 1]
            right.plot(
                steps,
                scores.mean(0),
                marker=marker(i),
                markersize=4,
                label=head.name,
                **style)
            right.fill_between(
                steps,
                scores.min(0),
                scores.max(0),
                alpha=0.15,
                linewidth=0,
                **style)
        left.set(
            xlabel='iterations',
            ylabel='training loss, mean of the seeds',
            yscale='log')
        bound = additive_bound(heads)
        if bound:
            right.axhline(
                bound, color='black', linestyle='--', label='additive bound')
        right.set(xlabel='iterations', ylabel=SPREAD)


def predictions(runs: Sequence[Run]) -> Optional[np.ndarray]:
    """Image, ground truth, and what heads predict, of the first seed.

    The images are spread evenly over the data set, not chosen. None where the
    predictions of no head are here: a result alone has none.
    """
    first = {
        run.head: run
        for run in reversed(runs) if (run.folder / 'masks').is_dir()
    }
    if not first:
        return None
    shown = [name for name in SHOWN if name in first] or [*first][:3]
    dataset, = build_datasets(first[shown[0]].config, 'val')
    reader = Reader(dataset)
    indices = np.linspace(0, len(dataset) - 1, min(ROWS, len(dataset)) + 1)
    rows: List[tuple] = []
    for i in indices[:-1].astype(int):
        sample = reader.load(dataset.get_data_info(i))
        stem = Path(sample.path).stem
        masks = [
            mmcv.imread(
                str(first[name].folder / 'masks' / f'{stem}.png'),
                flag='unchanged') for name in shown
        ]
        rows.append((sample.rgb, sample.labels, *masks))
    return draw_rows(rows, ('image', 'ground truth', *shown), dataset.metainfo)


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of this size in inches, then add a legend and save it."""
    figure = Figure(figsize=(width, height), layout='constrained')
    yield figure
    for ax in figure.axes:
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
        ax.spines[['top', 'right']].set_visible(False)
    figure.legend(loc='outside right center', frameon=False)
    FigureCanvasAgg(figure)
    with new_file(path) as file:
        figure.savefig(file, dpi=120)
