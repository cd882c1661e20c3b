"""``python -m cac_mmseg study``: compare decode heads on real images.

Trains every head of ``configs/study`` (or those asked for) with several seeds
under one protocol, through mmengine's Runner, each run in a process of its
own. Runs that the folder holds already are not repeated. Ends with a table, a
csv and plots.
"""
import argparse
import sys

import torch
from mmengine.config import DictAction

from ...utils.checks import check_int
from ...utils.config import build_datasets
from ...utils.files import make_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from .plan import HEADS
    add = parser.add_argument
    add('--heads',
        nargs='+',
        metavar='HEAD',
        default=HEADS,
        help='which ones, or paths of configs that inherit from one '
        f'(default: {" ".join(HEADS)})')
    add('--seeds', type=int, default=3, help='how many (default: 3)')
    add('--out',
        required=True,
        metavar='DIR',
        help='gets a folder per run, and the results')
    add('--frozen',
        action='store_true',
        help='train the heads alone, on features of the backbone that are '
        'computed once: for a CPU')
    add('--amp', action='store_true', help='train in bfloat16, on a GPU')
    add('--jobs',
        type=int,
        default=1,
        help='runs at a time, which share the cores or the GPUs (default: 1)')
    add('--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='changes to every config, such as model.pretrained=FILE')


def run(arguments: argparse.Namespace) -> None:
    """Carry out what is missing, and report; exit with 1 if a run failed.

    Raises:
        FileNotFoundError, ValueError: naming the argument that does not fit.
    """
    from . import features, report
    from .plan import plan
    from .processes import execute
    for name in ('seeds', 'jobs'):
        check_int(f'--{name}', getattr(arguments, name))
    if arguments.amp and not torch.cuda.is_available():
        raise ValueError('--amp needs a GPU, and PyTorch finds none')
    out = make_folder(arguments.out).resolve()
    runs = plan(arguments.heads, arguments.seeds, out, arguments.frozen,
                arguments.amp, arguments.cfg_options)
    missing = [run for run in runs if not run.result_file.is_file()]
    print(f'{len(runs)} runs, {len(runs) - len(missing)} are there')
    # what would fail in every run fails here, before the first
    for run in {run.head: run for run in missing}.values():
        if run.full_config:
            features.store_features(run.full_config, run.config, out)
        else:
            for split in ('train', 'val'):
                build_datasets(run.config, split)
            features.build_model(run.config)
    failed = execute(missing, arguments.jobs) if missing else []
    finished = [run for run in runs if run not in failed]
    if finished:
        report.publish(finished, out)
    for run in failed:
        print(f'{run}: failed, see {run.folder / "log.txt"}')
    sys.exit(bool(failed))
