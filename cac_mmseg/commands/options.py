"""Types of command-line options, for ``type`` of argparse."""
import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any, Callable

import torch
from mmengine.config import DictAction


def at_least(minimum: int) -> Callable[[str], int]:
    """Return the type of an integer >= ``minimum``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ArgumentTypeError(
                f'must be an integer, got {text!r}') from None
        if value < minimum:
            raise ArgumentTypeError(f'must be >= {minimum}, got {value}')
        return value

    return parse


def device(name: str) -> torch.device:
    """Return the device of this name, the current one, if it can be used.

    PyTorch's clock, and what names no device, wait for the current one.
    """
    try:
        found = torch.device(name)
        if found.type == 'cuda':
            torch.cuda.set_device(found)
        torch.empty(1, device=found).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ArgumentTypeError(f'{name} cannot be used here: {reason}. Try '
                                '--device cpu') from error
    return found


def add_workers(parser: ArgumentParser) -> None:
    """Declare the number of processes that read files."""
    parser.add_argument(
        '--workers',
        type=at_least(1),
        default=os.cpu_count(),
        metavar='N',
        help='processes that read (default: %(default)s)')


class CfgOptions(DictAction):
    """mmengine's ``KEY=VALUE``, whose errors are those of the parser."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace,
                 values: Any, *more: Any) -> None:
        try:
            super().__call__(parser, namespace, values, *more)
        except ValueError:
            parser.error(f'--cfg-options must be KEY=VALUE ..., got '
                         f'{" ".join(values)}')
