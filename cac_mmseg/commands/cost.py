"""``python -m cac_mmseg cost``: what decode heads cost, or each re-weighting.

With CONFIGs their decode heads are beside each other, on the feature maps of
their backbones for one training crop; without, the re-weightings, on one map.
Parameters, multiply-adds (mmengine's analysis), and the activations in float32
that are saved for backward, beyond the input. ``--time`` adds milliseconds of
a forward and backward pass in training, and of a forward in evaluation.
"""
import argparse
import math
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import torch
import torch.nn as nn

from ..baselines import (ChannelAttentionModule, FCKernelModule,
                         FixedKernelModule, GAPKernelModule, IdentityModule)
from ..cac_module import CaCModule
from ..errors import UserError
from ..stack.analysis import multiply_adds, saved_bytes
from ..stack.config import (find_config, has_class_types, load_config,
                            with_type_names)
from ..stack.decode_heads import (Heads, crop_size, decode_heads, head_cost,
                                  map_shapes)
from ..stack.env import conditions
from ..stack.feature_maps import Maps, feature_maps
from ..stack.tables import figures_table
from ..stack.timing import Case, build, compare
from .options import at_least, device

Size = Tuple[int, int]

ROWS = {
    'CaCModule': (CaCModule, {}),
    'CaCModule, share_kernels': (CaCModule, dict(share_kernels=True)),
    'FCKernelModule': (FCKernelModule, {}),
    'GAPKernelModule': (GAPKernelModule, {}),
    'FixedKernelModule': (FixedKernelModule, {}),
    'ChannelAttentionModule': (ChannelAttentionModule, {}),
    'IdentityModule (FCN)': (IdentityModule, {}),
}
CHANNELS, POSITIONS = 512, (64, 128)  # of the feature map
TIMING = dict(device=torch.device('cpu'), batch=2, rounds=10)
# heading, format and factor of each figure
COLUMNS = {
    'parameters': ('parameters', '{:,}', 1),
    'multiply_adds': ('multiply-adds', '{:.2f} G', 1e-9),
    'saved_bytes': ('saved for backward, MiB', '{:.1f}', 2**-20),
    'train_ms': ('step, ms', '{:.1f}', 1),
    'train_ratio': ('step over the first', '{:.2f}', 1),
    'predict_ms': ('forward, ms', '{:.1f}', 1),
    'predict_ratio': ('forward over the first', '{:.2f}', 1),
    'error': ('does not run here', '{}', 1),
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


def head_table(rows: Sequence[Dict[str, Any]], size: Size) -> str:
    """Return a Markdown table of what decode heads cost for one crop.

    Args:
        rows: name, and what :func:`head_cost` and :func:`compare` return.
        size: Of the crop.
    """
    name = 'decode head, {} x {}'.format(*size)
    return figures_table({'name': (name, '{}', 1), **COLUMNS}, rows)


def head_case(heads: Sequence[dict], maps: Maps, size: Size, batch: int,
              place: torch.device) -> Case:
    """Return decode heads on random feature maps of a batch of crops."""
    module = Heads(heads).to(place)
    inputs = [
        torch.randn(batch, *shape, device=place, requires_grad=True)
        for shape in map_shapes(maps, size)
    ]
    forward = partial(module, *inputs)
    return Case(module, forward, forward, inputs)


def _of_configs(arguments: argparse.Namespace) -> None:
    """Print what the decode heads of configs cost."""
    # of batches as small as these
    warnings.filterwarnings('ignore', '(Sync)?BN normalises')
    paths = dict.fromkeys(find_config(name)[0] for name in arguments.configs)
    configs = {path: load_config(path) for path in paths}
    size = tuple(arguments.size or crop_size(next(iter(configs.values()))))
    rows: Dict[str, Dict[str, Any]] = {}
    builders = {}
    for path, config in configs.items():
        rows[path] = dict(name=Path(path).stem)
        model = with_type_names(
            config.model) if has_class_types(config) else config.model
        try:
            heads, maps = decode_heads(model), feature_maps(model)
        except UserError as error:  # the others may run
            rows[path]['error'] = str(error)
            continue
        types = '+'.join(head['type'] for head in heads)
        rows[path] = dict(
            name=f'{types}, {Path(path).stem}', **head_cost(heads, maps, size))
        if 'error' not in rows[path]:
            builders[path] = partial(head_case, heads, maps, size,
                                     arguments.batch, arguments.device)
    if arguments.time:
        cases, errors = build(builders)
        for path, times in compare(cases, arguments.rounds).items():
            rows[path].update(times)
        for path, error in errors.items():
            rows[path]['error'] = error
    print(head_table([*rows.values()], size))
    if arguments.time:
        print(f'\n{conditions("cac_mmseg", arguments.device)}\n'
              f'batch: {arguments.batch}, float32; median of '
              f'{arguments.rounds} rounds; the first that runs: '
              f'{next((rows[path]["name"] for path in cases), "none")}')
    if all('error' in row for row in rows.values()):
        sys.exit(1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add('configs',
        nargs='*',
        metavar='CONFIG',
        help="files, or names of mmseg's or this package's configs")
    add('--channels',
        type=at_least(1),
        metavar='C',
        help='of the re-weightings, without CONFIG (default: 512)')
    add('--size',
        type=at_least(1),
        nargs=2,
        metavar=('H', 'W'),
        help='pixels of the crop (default: that of the first CONFIG); without '
        'CONFIG, positions of the feature map (default: 64 128)')
    add('--time', action='store_true', help='time the heads too, in turns')
    add = parser.add_argument_group('with --time').add_argument
    add('--device', type=device, help='such as cpu or cuda (default: cpu)')
    add('--batch', type=at_least(1), help='crops (default: 2)')
    add('--rounds',
        type=at_least(1),
        help='each round measures everything once (default: 10)')


def run(arguments: argparse.Namespace) -> None:
    """Print the table; exit with 1 if no head runs.

    Raises:
        FileNotFoundError, ValueError: naming the option that does not fit, or
            the config that cannot be found or read.
    """
    for name, default in TIMING.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
        elif not arguments.time:
            raise UserError(f'--{name} needs --time')
    if arguments.configs:
        if arguments.channels:
            raise UserError('--channels is of the table without CONFIG: the '
                            'heads of configs have channels of their own')
        _of_configs(arguments)
        return
    if arguments.time:
        raise UserError('--time needs a CONFIG, whose decode head it times')
    rows = measure(arguments.channels or CHANNELS,
                   *(arguments.size or POSITIONS))
    print(figures_table({'name': ('re-weighting', '{}', 1), **COLUMNS}, rows))
