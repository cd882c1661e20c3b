"""``python -m tools benchmark``: time and memory of decode heads.

By default mmseg's decode heads and CaCHead, interleaved in one run; with
``--backbone`` behind a ResNetV1c-D8; with ``--op`` the re-weighting alone,
beside a copy; with ``--all`` all GPU measurements, in a few minutes. Heads of
configs: ``python -m cac_mmseg cost --time``.
"""
import argparse
from pathlib import Path

import torch

from cac_mmseg.commands.options import at_least, device
from cac_mmseg.errors import UserError
from cac_mmseg.stack.files import check_writable
from . import heads, operators
from .everything import Everything
from .report import Report
from .setting import Setting


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
        choices=heads.HEADS,
        metavar='HEAD',
        default=list(heads.HEADS),
        help='which ones: ' + ', '.join(heads.HEADS))
    add('--device',
        type=device,
        default='cpu',
        help='such as cpu or cuda (default: cpu)')
    add('--dtype',
        default='float32',
        choices=('float32', 'bfloat16', 'float16'),
        help='of the feature map, with autocast (default: float32)')
    add('--batch', type=at_least(1), default=2, help='images (default: 2)')
    add('--size',
        type=at_least(1),
        nargs=2,
        default=(32, 64),
        metavar=('H', 'W'),
        help='of the feature map: an eighth of the image (default: 32 64)')
    add('--channels',
        type=at_least(1),
        default=512,
        metavar='C',
        help='of the heads; the feature map has 4 C (default: 512). With few, '
        'on few positions, a step is the time of the host')
    add('--rounds',
        type=at_least(1),
        default=10,
        help='each round measures everything once (default: 10)')
    add('--channels-last',
        action='store_true',
        help='feature maps and weights in channels_last')
    add('--compile', action='store_true', help='measure torch.compile too')
    add('--plot', metavar='FILE', help='draw them here, as .png or .svg')


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print a table.

    Raises:
        ValueError: naming the option that does not fit.
    """
    if arguments.plot:  # before measuring, not after
        if not arguments.plot.endswith(('.png', '.svg')):
            raise UserError('--plot must end on .png or .svg, got '
                            f'{arguments.plot}')
        check_writable(arguments.plot)
    setting = Setting(arguments.device, getattr(torch, arguments.dtype),
                      arguments.batch, tuple(arguments.size), arguments.rounds,
                      arguments.channels_last, arguments.compile,
                      arguments.channels)
    if arguments.all:
        if arguments.out is None:
            raise UserError('--all needs --out DIR, where its tables go')
        Everything(setting.device, Path(arguments.out)).run()
        return
    report = Report(setting)
    if arguments.op:
        operators.measure(setting, report)
    else:
        heads.measure(arguments.heads, arguments.backbone, setting, report)
    report.print()
    if arguments.plot:
        report.plot(arguments.plot)
