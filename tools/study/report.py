"""The results of a study: a table, a csv, and plots."""
import csv
import io
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Sequence

import numpy as np

from cac_mmseg.stack.env import command
from cac_mmseg.stack.files import new_file
from cac_mmseg.stack.tables import markdown_table
from . import plots
from .plan import Run
from .results import FIGURES, save
from .statistics import (DRAWS, ENOUGH, Gap, HeadResults, additive_bound,
                         by_head, gaps, measured, passes_for_good,
                         seed_variance)
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
    seeds = sorted({seed for head in heads for seed in head.seeds})
    columns: Dict[str, Callable[[HeadResults], str]] = {
        'head': lambda head: f'`{head.name}`',
        'mIoU': lambda head: f'{head.scores.mean():.1f}',
        f'of seeds {", ".join(map(str, seeds))}': partial(_scores, seeds)
    }
    bound = additive_bound(heads)
    if bound:
        columns[f'above {bound:.1f} from'] = partial(_passes, seeds, bound)
    for name in over:
        columns[f'over `{name}` [95 %]'] = partial(_difference,
                                                   gaps(heads, name))
    for key, title, factor, digits in COSTS:
        if measured(heads, key):
            columns[title] = partial(_cost, key, factor, digits)
    return markdown_table([*columns],
                          [[cell(head) for cell in columns.values()]
                           for head in heads])


def _scores(seeds: Sequence[int], head: HeadResults) -> str:
    scores = dict(zip(head.seeds, head.scores))
    return ', '.join(f'{scores[s]:.1f}' if s in scores else '-' for s in seeds)


def _passes(seeds: Sequence[int], bound: float, head: HeadResults) -> str:
    """Return from which iteration on each seed is above the bound."""
    passes = {
        run['seed']: passes_for_good(run['curve'], bound) or 'never'
        for run in head.runs
    }
    return ', '.join(f'{passes.get(seed, "-")}' for seed in seeds)


def _difference(differences: Dict[str, Gap], head: HeadResults) -> str:
    if head.name not in differences:
        return ''
    mean, low, high = differences[head.name]
    text = f'{mean:.1f}'.replace('-0.0', '0.0')  # a bound keeps its sign
    text = f'{text} [{low:.1f}, {high:.1f}]'
    return text if low <= 0 <= high else f'**{text}**'


def _cost(key: str, factor: float, digits: int, head: HeadResults) -> str:
    return f'{head.median(key) * factor:.{digits}f}'


def _notes(heads: Sequence[HeadResults]) -> Iterator[str]:
    """Say what the table was measured on."""
    runs = [run for head in heads for run in head.runs]
    yield (f'{runs[0]["iterations"]} iterations; {len(runs[0]["images"])} '
           'images. Heads are compared on the seeds that they share. The '
           f'interval covers {DRAWS} draws of the images, and {_rest(heads)}.')
    bound = additive_bound(heads)
    if bound:
        yield (f'Above {bound:.1f}, the bound of a head that '
               'adds its context: iterations, seed by seed, from which on all '
               'validations were.')
    if measured(heads, 'timed_on'):
        yield ('step is of a batch, predict of a crop: medians of '
               f'{ROUNDS} rounds of all heads, {runs[0]["timed_on"]}.')
    yield ''
    yield f'command: {command("tools")}'
    for key in ('device', 'versions'):
        yield f'{key}: {"; ".join(sorted({run[key] for run in runs}))}'


def _rest(heads: Sequence[HeadResults]) -> str:
    """Say what of the seeds an interval covers."""
    variance, dof = seed_variance(heads)
    every = ('what head and seed leave of the scores: a standard deviation of '
             f'{variance**0.5:.2f}, {dof} degrees of freedom'
             if dof else 'no seeds: too few are shared')
    shared = [len({*a.seeds} & {*b.seeds})
              for a, b in combinations(heads, 2)] or [0]
    if min(shared) >= ENOUGH:
        return 'how much the difference varies over the seeds'
    if max(shared) < ENOUGH:
        return every
    return (f'how much the difference varies over {ENOUGH} seeds or more, '
            f'where heads share fewer {every}')


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
