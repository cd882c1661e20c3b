"""``python -m tools benchmark``: time and memory of decode heads.

By default mmseg's decode heads and CaCHead, interleaved in one run; with
``--backbone`` behind a ResNetV1c-D8; with ``--configs`` those of configs; with
``--op`` the re-weighting alone, beside the floor that the memory bandwidth
sets; with ``--all`` whatever there is to know of a GPU, in a few minutes.
"""
import argparse
from pathlib import Path

import torch

from cac_mmseg.commands.options import at_least, device
from cac_mmseg.errors import UserError
from cac_mmseg.stack.files import check_writable
from . import heads, op
from .everything import Everything
from .report import Report
from .timing import Setting

DTYPES = ('float32', 'bfloat16', 'float16')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add('--all',
        action='store_true',
        help='everything below for a GPU, part by part, into --out; a CPU '
        'gets tiny sizes')
    add('--out', metavar='DIR', help='folder for the tables of --all')
    add('--op', action='store_true', help='the re-weighting alone')
    add('--backbone',
        type=int,
        choices=(50, 101),
        help='put a ResNetV1c-D8 of this depth before each head')
    add('--heads',
        nargs='+',
        metavar='HEAD',
        default=list(heads.HEADS),
        help='which ones: ' + ', '.join(heads.HEADS))
    add('--configs',
        nargs='+',
        metavar='CONFIG',
        help='in place of --heads: the heads of configs, files or names, on '
        'the feature maps of their backbones; ratios are over the first')
    add('--device',
        type=device,
        default='cpu',
        help='such as cpu or cuda (default: cpu)')
    add('--dtype',
        default='float32',
        choices=DTYPES,
        help='of the feature map, with autocast (default: float32)')
    add('--batch', type=at_least(1), default=2, help='images (default: 2)')
    add('--size',
        type=at_least(1),
        nargs=2,
        default=(32, 64),
        metavar=('H', 'W'),
        help='of the feature map: an eighth of the image (default: 32 64)')
    add('--rounds',
        type=at_least(1),
        default=10,
        help='each round measures everything once (default: 10)')
    add('--channels-last',
        action='store_true',
        help='feature maps and weights in channels_last')
    add('--compile', action='store_true', help='measure torch.compile too')
    add('--json', metavar='FILE', help='write the figures here')
    add('--plot', metavar='FILE', help='draw them here, as .png or .svg')


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print a table.

    Raises:
        ValueError: naming the option that does not fit.
    """
    for path in filter(None, (arguments.json, arguments.plot)):
        check_writable(path)  # before measuring, not after
    unknown = [name for name in arguments.heads if name not in heads.HEADS]
    if unknown:
        raise UserError(f'--heads must be of {", ".join(heads.HEADS)}, got '
                        f'{", ".join(unknown)}')
    setting = Setting(
        device=arguments.device,
        dtype=getattr(torch, arguments.dtype),
        batch=arguments.batch,
        size=tuple(arguments.size),
        rounds=arguments.rounds,
        channels_last=arguments.channels_last,
        compile=arguments.compile)
    if arguments.all:
        if arguments.out is None:
            raise UserError('--all needs --out DIR, where its tables go')
        Everything(setting.device, Path(arguments.out)).run()
        return
    report = Report(setting, 'the first' if arguments.configs else 'bare')
    if arguments.op:
        op.measure(setting, report)
    else:
        builders = heads.of_configs(
            arguments.configs, setting) if arguments.configs else \
            heads.of_names(arguments.heads, arguments.backbone, setting)
        heads.measure(builders, setting, report)
    report.publish(arguments.json, arguments.plot)
