"""Plots of a study."""
from pathlib import Path
from typing import List, Optional, Sequence

import matplotlib
import mmcv
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cac_mmseg.drawing.canvas import STYLE
from cac_mmseg.drawing.draw import draw_rows, save_picture
from cac_mmseg.drawing.reader import Reader
from cac_mmseg.stack.config import build_datasets
from cac_mmseg.stack.files import new_file
from .plan import Run
from .results import HeadResults

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
    """Write the plots to a folder; the best head comes first."""
    with matplotlib.rc_context(STYLE):
        accuracy_over_cost(heads, out / 'accuracy_cost.png')
        learning_curves(heads, out / 'learning_curves.png')
        class_bars(heads, out / 'classes.png')
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
    """Mean IoU over each of :data:`COSTS` that was measured."""
    costs = {key: COSTS[key] for key in COSTS if key in heads[0].runs[0]}
    rows = len(costs) // 2  # with times two
    figure = Figure(figsize=(11, 4 * rows), layout='constrained')
    axes = figure.subplots(rows, 2, sharey=True, squeeze=False)
    for ax, (key, (label, scale)) in zip(axes.flat, costs.items()):
        for i, head in enumerate(heads):
            mean = head.scores.mean()
            ax.errorbar(
                head.median(key) * scale,
                mean, [[mean - head.scores.min()], [head.scores.max() - mean]],
                fmt=marker(i),
                capsize=3,
                label=head.name if ax is axes[0, 0] else None,
                color=colour(i, heads))
        ax.set_xlabel(label)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.margins(x=0.15)
        _style(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel(SPREAD)
    figure.legend(loc='outside right center', frameon=False)
    _save(figure, path)


def learning_curves(heads: Sequence[HeadResults], path: Path) -> None:
    """Training loss, and mean IoU after each validation."""
    figure = Figure(figsize=(12, 4.5), layout='constrained')
    left, right = figure.subplots(1, 2)
    for i, head in enumerate(heads):
        losses = np.array([run['loss'] for run in head.runs]).mean(0)
        window = max(1, len(losses) // 20)
        smooth = np.convolve(losses, np.full(window, 1 / window), 'valid')
        left.plot(
            np.arange(len(smooth)) + window, smooth, color=colour(i, heads))
        curves = np.array([run['curve'] for run in head.runs])
        steps, scores = curves[0, :, 0], curves[..., 1]
        right.plot(
            steps,
            scores.mean(0),
            marker=marker(i),
            markersize=4,
            label=head.name,
            color=colour(i, heads))
        right.fill_between(
            steps,
            scores.min(0),
            scores.max(0),
            alpha=0.15,
            linewidth=0,
            color=colour(i, heads))
    left.set_ylabel('training loss, mean of the seeds')
    left.set_yscale('log')
    right.set_ylabel(SPREAD)
    for ax in (left, right):
        ax.set_xlabel('iterations')
        _style(ax)
    figure.legend(loc='outside right center', frameon=False)
    _save(figure, path)


def class_bars(heads: Sequence[HeadResults], path: Path) -> None:
    """IoU of each class, a bar per head: mean and range of the seeds."""
    classes = heads[0].runs[0]['classes']
    figure = Figure(
        figsize=(2 + len(classes) * max(0.6, 0.14 * len(heads)), 4.5),
        layout='constrained')
    ax = figure.subplots()
    width = 0.85 / len(heads)
    for i, head in enumerate(heads):
        scores = head.class_scores
        mean = scores.mean(0)
        ax.bar(
            np.arange(len(classes)) + (i - (len(heads) - 1) / 2) * width,
            mean,
            width,
            yerr=[mean - scores.min(0),
                  scores.max(0) - mean],
            error_kw=dict(elinewidth=0.7),
            label=head.name,
            color=colour(i, heads))
    ax.set_xticks(range(len(classes)), classes, rotation=30, ha='right')
    ax.set_ylabel('IoU, mean and range of the seeds')
    figure.legend(loc='outside right center', frameon=False)
    _style(ax)
    _save(figure, path)


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


def _style(ax: Axes) -> None:
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    ax.spines[['top', 'right']].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with new_file(path) as file:
        figure.savefig(file, dpi=120)
