"""The results of a study: a table, a csv, and plots."""
import csv
import io
from pathlib import Path
from typing import Iterator, List, Sequence

import numpy as np

from ...utils.env import command
from ...utils.files import new_file
from ...utils.tables import markdown_table
from . import plots
from .plan import Run
from .results import DRAWS, HeadResults, gaps, read

# figures of a run that results.csv repeats
FIGURES = ('iterations', 'seconds_per_iteration', 'peak_mib', 'parameters',
           'multiply_adds', 'device', 'versions')


def publish(runs: Sequence[Run], out: Path) -> None:
    """Print the table, and write everything to the folder of the study.

    Args:
        runs: Finished ones.
        out: Gets ``results.csv``, ``summary.md``, ``accuracy_cost.png``,
            ``learning_curves.png``, ``classes.png`` and ``predictions.png``.
    """
    heads = read(runs)
    summary = '\n'.join([table(heads), '', *_notes(heads)]) + '\n'
    print(summary)
    with new_file(out / 'results.csv') as file:
        file.write_text(as_csv(heads))
    with new_file(out / 'summary.md') as file:
        file.write_text(summary)
    plots.draw_all(heads, runs, out)
    print(f'results: {out}')


def table(heads: Sequence[HeadResults]) -> str:
    """Return a row per head in Markdown, the best first."""
    headings = ('head', 'mIoU', 'std', 'behind the best [95 %]', 'p',
                's/iteration', 'peak, MiB', 'parameters, M',
                'multiply-adds, G')
    rows = []
    behind = [('', '')] + [
        (f'{gap.mean:.2f} [{gap.low:.2f}, {gap.high:.2f}]', f'{gap.p:.3f}')
        for gap in gaps(heads)
    ]
    for head, gap in zip(heads, behind):
        scores = head.scores
        std = f'{scores.std(ddof=1):.2f}' if len(scores) > 1 else ''
        rows.append([
            head.name, f'{scores.mean():.2f}', std, *gap,
            f'{head.median("seconds_per_iteration"):.3f}',
            f'{head.median("peak_mib"):,.0f}',
            f'{head.median("parameters") / 1e6:.2f}',
            f'{head.median("multiply_adds") / 1e9:.2f}'
        ])
    return markdown_table(headings, rows)


def _notes(heads: Sequence[HeadResults]) -> Iterator[str]:
    """Say what the table was measured on."""
    runs = [run for head in heads for run in head.runs]
    seeds = max(len(head.runs) for head in heads)
    yield (f'Seeds: {seeds}, of {runs[0]["iterations"]} iterations; images: '
           f'{len(runs[0]["images"])}. std is over the seeds; the interval '
           f'(Welch) covers seeds and {DRAWS} draws of the images; p is of no '
           'difference.')
    yield ''
    yield f'command: {command()}'
    for key in ('device', 'versions'):
        yield f'{key}: {"; ".join(sorted({run[key] for run in runs}))}'


def as_csv(heads: Sequence[HeadResults]) -> str:
    """Return a line per run: head, seed, mIoU, IoU per class, figures."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['head', 'seed', 'mIoU', *heads[0].runs[0]['classes']] +
                    [*FIGURES])
    for head in heads:
        for run, score, classes in zip(head.runs, head.scores,
                                       head.class_scores):
            writer.writerow([
                head.name, run['seed'], *_rounded([score]), *_rounded(classes)
            ] + [run[key] for key in FIGURES])
    return text.getvalue()


def _rounded(values: Sequence[float]) -> List[str]:
    return ['' if np.isnan(value) else f'{value:.3f}' for value in values]
