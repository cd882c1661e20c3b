"""``python -m tools study``: compare decode heads on real images.

Trains heads of ``tools/study/heads`` with several seeds under one protocol,
through mmengine's Runner, each run in its own process. Runs with a result are
not repeated, so an interrupted study continues. Ends with a table, a csv and
plots.
"""
import argparse
import sys
from copy import deepcopy
from pathlib import Path
from typing import Sequence

import torch
from mmengine.config import DictAction
from mmengine.registry import MODELS

from cac_mmseg.commands.options import at_least
from cac_mmseg.errors import UserError
from cac_mmseg.hooks.preflight import check_pretrained
from cac_mmseg.stack.config import build_datasets
from cac_mmseg.stack.files import make_folder
from cac_mmseg.stack.words import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from .plan import DEFAULT, HEADS, PROTOCOLS
    from .report import REFERENCES
    add = parser.add_argument
    add('--protocol',
        choices=PROTOCOLS,
        default=DEFAULT,
        help='data, backbone and schedule; contextshapes takes minutes on a '
        'CPU, and no file; voc-animals and camvid are for a CPU, -full for a '
        'GPU, -tune to choose a learning rate '
        '(default: %(default)s)')
    add('--heads',
        nargs='+',
        metavar='HEAD',
        default=HEADS,
        help='which ones, or paths of configs that inherit from one '
        f'(default: {" ".join(HEADS)})')
    add('--seeds', type=at_least(1), default=3, help='how many (default: 3)')
    add('--iterations',
        type=at_least(1),
        metavar='N',
        help='length of the schedule in place of that of the protocol')
    add('--out',
        metavar='DIR',
        help='gets a folder per run, the results, the table and the plots')
    add('--table',
        metavar='RESULTS',
        help='print the table of these results, a results.npz or the folder '
        'results of an unfinished study, and train nothing; with --out, '
        'write all else, too, from which a study goes on')
    add('--over',
        nargs='+',
        metavar='HEAD',
        default=(),
        help='heads that the table compares with (default: '
        f'{" ".join(REFERENCES)})')
    add('--amp', action='store_true', help='train in bfloat16, on a GPU')
    add('--jobs',
        type=at_least(1),
        default=1,
        help='runs at a time, which share the cores or the GPUs (default: 1)')
    add('--times',
        action='store_true',
        help='after the runs, time a step and a prediction of each head')
    add('--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='changes to every config, such as model.pretrained=FILE')


def run(arguments: argparse.Namespace) -> None:
    """Report results that are there, or carry out a study.

    Exits with 1 if a run failed.

    Raises:
        FileNotFoundError, UserError: naming the argument that does not fit.
    """
    from . import report
    from .results import load, save_run
    from .statistics import by_head
    if not arguments.table:
        _study(arguments)
        return
    results = load(arguments.table)
    _check_over(arguments.over, [result['head'] for result in results])
    if not arguments.out:
        print(report.summary(by_head(results), arguments.over))
        return
    folder = make_folder(Path(arguments.out, 'results'))
    for result in results:
        file = folder / f'{result["head"]}-seed{result["seed"]}.json'
        if not file.is_file():  # else it may be of a run of the user
            save_run(result, file)
    report.publish(results, [], folder.parent, arguments.over)


def _check_over(over: Sequence[str], heads: Sequence[str]) -> None:
    for name in over:
        if name not in heads:
            raise UserError(
                f'--over must be of {", ".join(dict.fromkeys(heads))}, '
                f'got {name!r}')


def _study(arguments: argparse.Namespace) -> None:
    """Carry out what is missing, and report."""
    from . import report
    from .plan import plan
    from .processes import execute
    from .results import load_run
    from .times import measure
    if arguments.amp and not torch.cuda.is_available():
        raise UserError('--amp needs a GPU, and PyTorch finds none')
    if not arguments.out:
        raise UserError('--out must be given: a folder for the runs')
    out = make_folder(arguments.out).resolve()
    make_folder(out / 'results')
    runs = plan(arguments.heads, arguments.seeds, out, arguments.protocol,
                arguments.iterations, arguments.amp, arguments.cfg_options)
    _check_over(arguments.over, [run.head for run in runs])
    missing = [run for run in runs if not run.result_file.is_file()]
    there = len(runs) - len(missing)
    print(f'{counted(len(runs), "run")}, {there} with a result')
    # what would fail in every run fails here, before the first
    for config in {run.head: run.config for run in missing}.values():
        for split in ('train', 'val'):
            build_datasets(config, split)
        try:
            # a copy: building a segmentor changes its config
            check_pretrained(MODELS.build(deepcopy(config.model)))
        except RuntimeError as error:
            raise UserError(str(error)) from error
    failed = execute(missing, arguments.jobs)
    finished = [run for run in runs if run not in failed]
    if finished:
        times = measure(finished) if arguments.times else {}
        results = [{
            **load_run(run.result_file),
            **times.get(run.head, {})
        } for run in finished]
        report.publish(results, finished, out, arguments.over)
    for run in failed:
        print(f'{run}: failed, see {run.folder / "log.txt"}')
    sys.exit(bool(failed))
