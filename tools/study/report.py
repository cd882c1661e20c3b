"""The results of a study: a table, a csv, and plots."""
import csv
import io
from pathlib import Path
from typing import Iterator, List, Optional, Sequence

import numpy as np

from cac_mmseg.stack.env import command
from cac_mmseg.stack.files import new_file
from cac_mmseg.stack.tables import markdown_table
from . import plots
from .plan import Run
from .results import DRAWS, Gap, HeadResults, gaps, read, seed_variance
from .times import ROUNDS, measure

# figures of a run that results.csv repeats
FIGURES = ('iterations', 'seconds_per_iteration', 'peak_mib', 'saved_mib',
           'parameters', 'multiply_adds', 'device', 'versions')
# other columns of the table: key of a run, title, factor, digits
COSTS = (('multiply_adds', 'multiply-adds, G', 1e-9, 2),
         ('step_ms', 'step, ms', 1, 0), ('predict_ms', 'predict, ms', 1, 0),
         ('saved_mib', 'saved, MiB', 1, 1), ('parameters', 'parameters, M',
                                             1e-6, 2))
REFERENCES = ('fcn', 'cac')  # the price of no context, and ours


def publish(runs: Sequence[Run], out: Path, times: bool = False) -> None:
    """Print the table, and write everything to the folder of the study.

    Args:
        runs: Finished ones.
        out: Gets ``results.csv``, ``summary.md``, ``accuracy_cost.png``,
            ``learning_curves.png``, ``classes.png`` and ``predictions.png``.
        times: Whether to time the heads, for the table and the first plot.
    """
    heads = read(runs, measure(runs) if times else None)
    summary = '\n'.join([table(heads), '', *_notes(heads)]) + '\n'
    print(summary)
    with new_file(out / 'results.csv') as file:
        file.write_text(as_csv(heads), encoding='utf-8')
    with new_file(out / 'summary.md') as file:
        file.write_text(summary, encoding='utf-8')
    plots.draw_all(heads, runs, out)
    print(f'results: {out}')


def table(heads: Sequence[HeadResults]) -> str:
    """Return a row per head in Markdown, the best first.

    The differences that an interval tells from none are bold.
    """
    names = [head.name for head in heads]
    references = {
        name: gaps(heads, name)
        for name in [n for n in REFERENCES if n in names] or names[:1]
    }
    costs = [cost for cost in COSTS if cost[0] in heads[0].runs[0]]
    rows = []
    for head in heads:
        rows.append([
            f'`{head.name}`', f'{head.scores.mean():.1f}',
            ', '.join(f'{score:.1f}' for score in head.scores),
            *(_difference(gap.get(head.name)) for gap in references.values()),
            *(f'{head.median(key) * factor:.{digits}f}'
              for key, _, factor, digits in costs)
        ])
    return markdown_table(
        ('head', 'mIoU', 'of seeds 0, 1, ...', *(f'over `{name}` [95 %]'
                                                 for name in references),
         *(title for _, title, _, _ in costs)), rows)


def _difference(gap: Optional[Gap]) -> str:
    if gap is None:
        return ''
    text = f'{gap.mean:.1f} [{gap.low:.1f}, {gap.high:.1f}]'
    return text if gap.low <= 0 <= gap.high else f'**{text}**'


def _notes(heads: Sequence[HeadResults]) -> Iterator[str]:
    """Say what the table was measured on."""
    runs = [run for head in heads for run in head.runs]
    variance, dof = seed_variance(heads)
    rest = ('what head and seed leave of the scores: a standard deviation of '
            f'{variance**0.5:.2f}, {dof} degrees of freedom'
            if dof else 'no seeds: too few are shared')
    yield (f'{runs[0]["iterations"]} iterations; {len(runs[0]["images"])} '
           'images. Heads are compared on the seeds that they share. The '
           f'interval covers {DRAWS} draws of the images, and {rest}.')
    if 'timed_on' in runs[0]:
        yield ('step is of a batch, predict of a crop: medians of '
               f'{ROUNDS} rounds of all heads, {runs[0]["timed_on"]}.')
    yield ''
    yield f'command: {command("tools")}'
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
