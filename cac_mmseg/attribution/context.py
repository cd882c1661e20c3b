"""Kernels and weighting maps of a model's modules, for visualisation."""
from contextlib import contextmanager
from typing import (Any, Callable, Dict, Iterator, List, NamedTuple, Optional,
                    Sequence, Tuple)

import torch
import torch.nn as nn
from mmseg.models import BaseSegmentor
from torch import Tensor

from ..baselines import FCKernelModule
from ..cac_module import CaCModule
from ..errors import UserError
from ..functional import weighting_maps

# what to compute of a module and its inputs
Watched = Dict[nn.Module, Callable[[nn.Module, Tuple[Tensor, ...]], Any]]


class Context(NamedTuple):
    """Kernels of a module for an image, and the weights that they give.

    ``kernels`` are (G, C, s, s), ``maps`` (I, C, H, W), one per dilation.
    """
    name: str
    dilations: Tuple[int, ...]
    kernels: Tensor
    maps: Tensor


def context_modules(model: nn.Module) -> List[Tuple[str, nn.Module]]:
    """Return the modules that re-weight by depth-wise kernels, with names."""
    return [(name, module) for name, module in model.named_modules()
            if isinstance(module, CaCModule)
            and not isinstance(module, FCKernelModule)]


def kernels_of(module: CaCModule,
               inputs: Sequence[Tensor]) -> Tuple[Tensor, Tensor]:
    """Return X and the kernels that a module is called with, or predicts.

    A head passes kernels that it predicted for several modules at once.
    """
    x, kernels = (*inputs, None)[:2]
    return x, module.predict_kernels(x) if kernels is None else kernels


@contextmanager
def observed(watched: Watched) -> Iterator[List[Tuple[nn.Module, Any]]]:
    """Compute values of what modules are called with, while a model runs.

    At each call, as what follows may change a feature map in place.

    Yields:
        The modules and their values, call by call.
    """
    calls: List[Tuple[nn.Module, Any]] = []

    def observe(module: nn.Module, inputs: Tuple[Tensor, ...]) -> None:
        calls.append((module, watched[module](module, inputs)))

    handles = [m.register_forward_pre_hook(observe) for m in watched]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def capture_context(model: BaseSegmentor, data: dict) -> List[Context]:
    """Run a model on a full image, and return its modules' kernels and maps.

    Args:
        model: In evaluation mode.
        data: A batch of one image as a data loader gives it.

    Returns:
        One per call of a module that predicts depth-wise kernels, on the CPU.
    """
    names = {module: name for name, module in context_modules(model)}

    def context(module: CaCModule, inputs: Tuple[Tensor, ...]) -> Context:
        x, kernels = kernels_of(module, inputs)
        maps = weighting_maps(x[:1], kernels[:1], module.dilations)
        return Context(names[module], module.dilations,
                       kernels[0].float().cpu(), maps[0].cpu())

    with observed(dict.fromkeys(names, context)) as calls:
        model(model.data_preprocessor(data, False)['inputs'], mode='tensor')
    return [found for _, found in calls]


def choose_channels(
    contexts: Sequence[Context],
    count: int,
    channels: Optional[Sequence[int]] = None
) -> List[Tuple[Context, List[int]]]:
    """Choose what to draw.

    Args:
        contexts: Of an image.
        count: How many of those whose weights, summed over dilations, vary
            most over the image (standard deviation), over all modules.
        channels: These of every module instead.

    Returns:
        Those of the contexts that have any, with their channels.

    Raises:
        ValueError: If a module has no such channel.
    """
    if channels:
        for context in contexts:
            size = context.maps.shape[1]
            wrong = [c for c in channels if not 0 <= c < size]
            if wrong:
                raise UserError(f'channels must be 0 to {size - 1} for '
                                f'{context.name}, got {wrong}')
        return [(context, [*channels]) for context in contexts]
    spread = [(value, i, channel) for i, context in enumerate(contexts)
              for channel, value in enumerate(
                  context.maps.sum(0).flatten(1).std(1, correction=0).tolist())
              ]
    chosen = sorted(spread, reverse=True)[:count]
    blocks = [(context, [c for _, j, c in chosen if j == i])
              for i, context in enumerate(contexts)]
    return [(context, found) for context, found in blocks if found]
