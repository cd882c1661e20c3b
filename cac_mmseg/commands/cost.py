"""``python -m cac_mmseg cost``: the cost of each re-weighting for one image.

Parameters, multiply-adds (mmengine's analysis), and the activations in float32
that are saved for backward, beyond the input.
"""
import argparse
import math
from typing import List, Tuple

import torch
import torch.nn as nn

from ..baselines import (ChannelAttentionModule, FCKernelModule,
                         FixedKernelModule, GAPKernelModule, IdentityModule)
from ..cac_module import CaCModule
from ..stack.analysis import multiply_adds, saved_bytes
from ..stack.tables import markdown_table
from .options import at_least

ROWS = {
    'CaCModule': (CaCModule, {}),
    'CaCModule, share_kernels': (CaCModule, dict(share_kernels=True)),
    'FCKernelModule': (FCKernelModule, {}),
    'GAPKernelModule': (GAPKernelModule, {}),
    'FixedKernelModule': (FixedKernelModule, {}),
    'ChannelAttentionModule': (ChannelAttentionModule, {}),
    'IdentityModule (FCN)': (IdentityModule, {}),
}


def measure(channels: int, height: int, width: int) -> List[dict]:
    """Measure every re-weighting on one image.

    Args:
        channels: C of the feature map.
        height, width: Its size in positions.

    Returns:
        A dict per re-weighting: name, parameters, multiply_adds (mmengine's
        analysis), saved_bytes (float32). A module too large to be allocated
        is counted all the same.
    """
    shape = (1, channels, height, width)
    rows = []
    for name, (module_class, arguments) in ROWS.items():
        with torch.device('meta'):
            module = module_class(channels, **arguments)
            saved = saved_bytes(module, torch.empty(shape, requires_grad=True))
        rows.append(
            dict(
                name=name,
                parameters=sum(p.numel() for p in module.parameters()),
                multiply_adds=_multiply_adds(module, shape),
                saved_bytes=saved))
    return rows


def _multiply_adds(module: nn.Module, shape: Tuple[int, ...]) -> int:
    if isinstance(module, FCKernelModule):
        # one to predict each weight from each channel, one to use it at each
        # position: mmengine's analysis would have to allocate the weights
        positions = shape[2] * shape[3]
        uses = positions * len(module.dilations) // module.sets
        return math.prod(module.shape) * (shape[1] + uses)
    return multiply_adds(module.to_empty(device='cpu'), torch.empty(shape))


def table(channels: int, height: int, width: int) -> str:
    """Return the measurements as a Markdown table."""
    headings = ('re-weighting', 'parameters', 'multiply-adds',
                'saved for backward, MiB')
    return markdown_table(headings,
                          [(row['name'], f'{row["parameters"]:,}',
                            f'{row["multiply_adds"] / 1e9:.2f} G',
                            f'{row["saved_bytes"] / 2**20:.1f}')
                           for row in measure(channels, height, width)])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        '--channels', type=at_least(1), default=512, help='C (default: 512)')
    parser.add_argument(
        '--size',
        type=at_least(1),
        nargs=2,
        default=(64, 128),
        metavar=('H', 'W'),
        help='positions of the feature map (default: 64 128)')


def run(arguments: argparse.Namespace) -> None:
    """Print the table.

    Raises:
        ValueError: naming the option that does not fit.
    """
    print(table(arguments.channels, *arguments.size))
