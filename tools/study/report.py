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
from .results import FIGURES, save
from .statistics import (DRAWS, Gap, HeadResults, additive_bound, by_head,
                         gaps, measured, passes_for_good, seed_variance)
from .times import ROUNDS

# other columns of the table: key of a run, title, factor, digits
COSTS = (('multiply_adds', 'multiply-adds, G', 1e-9, 2),
         ('step_ms', 'step, ms', 1, 0), ('predict_ms', 'predict, ms', 1, 0),
         ('saved_mib', 'saved, MiB', 1, 1), ('parameters', 'parameters, M',
                                             1e-6, 2))
REFERENCES = ('fcn', 'cac')  # no context, and ours


def publish(results: Sequence[dict],
            runs: Sequence[Run],
            out: Path,
            over: Sequence[str] = ()) -> None:
    """Print the summary, and write everything to the folder of the study.

    Args:
        results: Of finished runs.
        runs: Those of them whose folders are here.
        out: Gets ``results.npz``, ``results.csv``, ``summary.md``,
            ``accuracy_cost.png``, ``learning_curves.png`` and
            ``predictions.png``.
        over: See :func:`summary`.
    """
    heads = by_head(results)
    text = summary(heads, over)
    print(text)
    save(results, out / 'results.npz')
    texts = {'results.csv': as_csv(heads), 'summary.md': text}
    for name, content in texts.items():
        with new_file(out / name) as file:
            file.write_text(content, encoding='utf-8')
    plots.draw_all(heads, runs, out)
    print(f'results: {out}')


def summary(heads: Sequence[HeadResults], over: Sequence[str] = ()) -> str:
    """Return the table, and what it was measured on.

    Args:
        heads: The best one first.
        over: Those that all are compared with, by default
            :data:`REFERENCES`; if none of them is here, the best one is.
    """
    names = [head.name for head in heads]
    over = [name for name in over or REFERENCES if name in names] or names[:1]
    return '\n'.join([table(heads, over), '', *_notes(heads)]) + '\n'


def table(heads: Sequence[HeadResults], over: Sequence[str]) -> str:
    """Return a row per head in Markdown.

    The differences that an interval tells from none are bold.
    """
    references = {name: gaps(heads, name) for name in over}
    seeds = sorted({seed for head in heads for seed in head.seeds})
    costs = [cost for cost in COSTS if measured(heads, cost[0])]
    bound = additive_bound(heads)
    rows = []
    for head in heads:
        scores = dict(zip(head.seeds, head.scores))
        rows.append([
            f'`{head.name}`', f'{head.scores.mean():.1f}',
            ', '.join(f'{scores[s]:.1f}' if s in scores else '-'
                      for s in seeds),
            *([_passed(head, bound)] if bound else []),
            *(_difference(gap.get(head.name)) for gap in references.values()),
            *(f'{head.median(key) * factor:.{digits}f}'
              for key, _, factor, digits in costs)
        ])
    return markdown_table(
        ('head', 'mIoU', f'of seeds {", ".join(map(str, seeds))}',
         *([f'above {bound:.1f} from'] if bound else []),
         *(f'over `{name}` [95 %]'
           for name in references), *(title for _, title, _, _ in costs)),
        rows)


def _passed(head: HeadResults, bound: float) -> str:
    """Return from which iteration on each seed is above the bound."""
    found = (passes_for_good(run['curve'], bound) for run in head.runs)
    return ', '.join('never' if at is None else str(at) for at in found)


def _difference(gap: Optional[Gap]) -> str:
    if gap is None:
        return ''
    mean = f'{gap.mean:.1f}'.replace('-0.0', '0.0')  # a bound keeps its sign
    text = f'{mean} [{gap.low:.1f}, {gap.high:.1f}]'
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
    if additive_bound(heads):
        yield (f'Above {additive_bound(heads):.1f}, the bound of a head that '
               'adds its context: iterations, seed by seed, from which on all '
               'validations were.')
    if measured(heads, 'timed_on'):
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
