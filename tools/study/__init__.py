"""``python -m tools study``: compare decode heads on real images.

Trains heads of ``tools/study/heads.py`` with several seeds under one protocol,
through mmengine's Runner, each run in its own process. Runs with a result are
not repeated, so an interrupted study continues. Ends with a table, a csv and
plots; ``python -m tools table`` prints the table again.
"""
import argparse
import sys
from copy import deepcopy

import torch
from mmengine.registry import MODELS

from cac_mmseg.commands.options import CfgOptions, at_least
from cac_mmseg.errors import UserError
from cac_mmseg.hooks.preflight import check_pretrained
from cac_mmseg.stack.config import build_datasets
from cac_mmseg.stack.files import make_folder
from cac_mmseg.stack.words import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from .plan import DEFAULT, HEADS, PROTOCOLS
    add = parser.add_argument
    add('--protocol',
        choices=PROTOCOLS,
        default=DEFAULT,
        help='data, backbone and schedule; crossing takes a minute a run on a '
        'CPU, and no file; voc-animals and camvid are for a CPU, -full for a '
        'GPU, -tune to choose a learning rate '
        '(default: %(default)s)')
    add('--heads',
        nargs='+',
        metavar='HEAD',
        default=HEADS,
        help='which ones, or paths of configs with a model.decode_head '
        f'(default: {" ".join(HEADS)})')
    add('--seeds', type=at_least(1), default=3, help='how many (default: 3)')
    add('--iterations',
        type=at_least(1),
        metavar='N',
        help='length of the schedule in place of that of the protocol')
    add('--out',
        required=True,
        metavar='DIR',
        help='gets a folder per run, the results, the table and the plots')
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
        action=CfgOptions,
        default={},
        metavar='KEY=VALUE',
        help='changes to every config, such as model.pretrained=FILE')


def run(arguments: argparse.Namespace) -> None:
    """Carry out what is missing, and report.

    Exits with 1 if a run failed.

    Raises:
        FileNotFoundError, UserError: naming the argument that does not fit.
    """
    from . import report
    from .plan import plan
    from .processes import execute
    from .results import known_bound, load_run
    from .times import measure
    if arguments.amp and not torch.cuda.is_available():
        raise UserError('--amp needs a GPU, and PyTorch finds none')
    out = make_folder(arguments.out).resolve()
    make_folder(out / 'results')
    runs = plan(arguments.heads, arguments.seeds, out, arguments.protocol,
                arguments.iterations, arguments.amp, arguments.cfg_options)
    missing = [run for run in runs if not run.result_file.is_file()]
    there = len(runs) - len(missing)
    print(f'{counted(len(runs), "run")}, {there} with a result')
    # what would fail in every run fails here, before the first
    for head, config in {run.head: run.config for run in missing}.items():
        build_datasets(config, 'train')
        try:
            known_bound(build_datasets(config, 'val')[0])
        except ValueError as error:
            raise UserError(f'val_dataloader.dataset: {error}') from error
        try:
            # a copy: building a segmentor changes its config
            model = MODELS.build(deepcopy(config.model))
        except Exception as error:  # of any module
            raise UserError(f'the model of {head} cannot be built: '
                            f'{type(error).__name__}: {error}') from error
        try:
            check_pretrained(model)
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
        report.publish(results, finished, out)
    for run in failed:
        print(f'{run}: failed, see {run.folder / "log.txt"}')
    sys.exit(bool(failed))
