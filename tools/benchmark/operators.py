"""The two operations on a GPU: are they right, and how fast beside a copy."""
import math
from functools import partial
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Tuple
from unittest.mock import patch

import torch
from torch import Tensor

from cac_mmseg.ops import decomposed, eager
from .plan import Plan
from .timing import seconds_of

DILATIONS = (1, 3, 5)
LAYOUTS = {
    'NCHW': torch.contiguous_format,
    'channels_last': torch.channels_last
}
# of the largest value, what is summed in float32 and stored in the dtype
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-9}
# what is timed: each takes the compiler seconds
TIMED = ((torch.float32, 'NCHW'), (torch.bfloat16, 'NCHW'), (torch.bfloat16,
                                                             'channels_last'))
# settings of the Triton kernels of each operation, changed one by one
SETTINGS: Dict[str, Dict[str, tuple]] = dict(
    reweight=dict(
        FORWARD_ROWS=(4, 8, 16),
        BACKWARD_ROWS=(2, 4),
        LANES=(32, 64, 128),
        BOX=((16, None), (32, None), (64, None)),
        BOX_CHANNELS_LAST=((8, 4), (8, 8), (8, 16)),
        PROGRAMS_PER_PROCESSOR=(2, 4, 6, 8)),
    pool_queries=dict(
        POSITIONS=(32, 64, 128), CHANNELS=(16, 32, 64), WARPS=(4, 8)))
# of both operations, forward and backward
RESULTS = ('Y', 'dX', 'dD', 'pooled', 'mean', 'pooling dX', 'dW', 'db')

Row = Dict[str, Any]


class Operators:
    """What is measured of each implementation.

    Args:
        device: Where it runs.
        plan: How large.
        failures: Is told why an implementation is missing or fails.

    Attributes:
        implementations: By name; those that fail or are wrong are removed.
    """

    def __init__(self, device: torch.device, plan: Plan,
                 failures: Dict[str, str]) -> None:
        self.device, self.plan, self.failures = device, plan, failures
        self.implementations: Dict[str, Any] = {'eager': eager}
        if device.type == 'cuda':
            try:
                from cac_mmseg.ops import triton_pooling as pooling
                from cac_mmseg.ops import triton_reweighting as reweighting
            except ImportError as error:
                failures['triton'] = str(error)
            else:
                self.implementations['triton'] = SimpleNamespace(
                    pool_queries=pooling.pool_queries,
                    pool_queries_backward=pooling.pool_queries_backward,
                    reweight=reweighting.reweight,
                    reweight_backward=reweighting.reweight_backward,
                    modules=(reweighting, pooling))

    def correctness(self) -> Iterator[Row]:
        """Each implementation against float64; what is wrong is not timed."""
        b, c, h, w = self.plan.checked
        for name, module in list(self.implementations.items()):
            for dtype in TOLERANCE:
                for layout in LAYOUTS:
                    inputs = self._inputs((b, h, w), dtype, layout, c)
                    try:
                        errors = _errors(module, inputs)
                    except Exception as error:  # of a compiler or a device
                        self.failures[name] = str(error)
                        errors = dict.fromkeys(RESULTS, math.nan)
                    right = all(error <= TOLERANCE[dtype]
                                for error in errors.values())
                    if not right:
                        self.implementations.pop(name, None)
                    yield dict(
                        implementation=name,
                        dtype=str(dtype)[6:],
                        layout=layout,
                        **errors,
                        right=right)

    def times(self) -> Iterator[Row]:
        """Time and bandwidth of both operations, beside a copy."""
        for size in self.plan.maps:
            for dtype, layout in TIMED:
                inputs = self._inputs(size, dtype, layout)
                yield from self._of_map(size, inputs, layout)

    def _of_map(self, size: Tuple[int, int, int], inputs: Tuple[Tensor, ...],
                layout: str) -> Iterator[Row]:
        grad, x, kernels = inputs
        weight, bias, *grads = _pooling_inputs(x)
        functions: Dict[str, Callable[[], Any]] = {}
        for name, module in self.implementations.items():
            functions[f'{name} forward'] = partial(module.reweight, x, kernels,
                                                   DILATIONS)
            functions[f'{name} backward'] = partial(module.reweight_backward,
                                                    grad, x, kernels,
                                                    DILATIONS)
            functions[f'{name} pooling forward'] = partial(
                module.pool_queries, x, weight, bias)
            functions[f'{name} pooling backward'] = partial(
                module.pool_queries_backward, *grads, x, weight, bias)
        copy = self._seconds(partial(torch.empty_like(x).copy_, x))
        for name, function in functions.items():
            elapsed = self._seconds(function)
            # in S: what has to move, where a copy of X moves 2
            passes = (1 if 'pooling' in name else
                      2) + (not name.endswith('forward'))
            moved = x.numel() * x.element_size() * passes
            yield dict(
                map=' x '.join(map(str, size)),
                dtype=str(x.dtype)[6:],
                layout=layout,
                what=name,
                microseconds=elapsed * 1e6,
                gigabytes_per_second=moved / elapsed / 1e9,
                over_copy=elapsed / (copy * passes / 2))

    def settings(self) -> Iterator[Row]:
        """Each setting of the Triton kernels on its own."""
        triton = self.implementations.get('triton')
        if triton is None:
            return
        for operation, module in zip(SETTINGS, triton.modules):
            for name, values in SETTINGS[operation].items():
                default = getattr(module, name)
                forward, backward = self._of_setting(triton, operation, name)
                for value in values:
                    with patch.object(module, name, value):
                        yield dict(
                            setting=name,
                            value=str(value),
                            default=value == default,
                            forward_us=self._seconds(forward) * 1e6,
                            backward_us=self._seconds(backward) * 1e6)

    def _of_setting(self, triton: Any, operation: str,
                    name: str) -> Tuple[Callable[[], Any], Callable[[], Any]]:
        """Return forward and backward of what a setting belongs to."""
        layout = 'channels_last' if 'CHANNELS_LAST' in name else 'NCHW'
        grad, x, kernels = self._inputs(self.plan.maps[0], torch.bfloat16,
                                        layout)
        if operation == 'reweight':
            return (partial(triton.reweight, x, kernels, DILATIONS),
                    partial(triton.reweight_backward, grad, x, kernels,
                            DILATIONS))
        weight, bias, *grads = _pooling_inputs(x)
        return (partial(triton.pool_queries, x, weight, bias),
                partial(triton.pool_queries_backward, *grads, x, weight, bias))

    def compiled(self) -> Iterator[Row]:
        """The re-weighting as torch.compile makes it, beside eager."""
        if self.device.type != 'cuda':
            return
        _, x, kernels = self._inputs(self.plan.maps[0], torch.bfloat16, 'NCHW')
        compiled = torch.compile(decomposed.reweight)
        for name, function in (('eager', eager.reweight), ('compiled',
                                                           compiled)):
            yield dict(
                what=f'{name} forward',
                microseconds=self._seconds(
                    partial(function, x, kernels, DILATIONS)) * 1e6)

    def _inputs(self,
                size: Tuple[int, int, int],
                dtype: torch.dtype,
                layout: str,
                channels: int = 0) -> Tuple[Tensor, Tensor, Tensor]:
        """Return dY, X and kernels."""
        b, h, w = size
        c = channels or self.plan.channels
        grad, x = (
            torch.randn(b, c, h, w, device=self.device).to(
                dtype, memory_format=LAYOUTS[layout]) for _ in range(2))
        kernels = torch.randn(b, len(DILATIONS), c, 3, 3, device=self.device)
        return grad, x, kernels

    def _seconds(self, function: Callable[[], Any]) -> float:
        return seconds_of(function, self.plan.seconds)


def _errors(module: Any, inputs: Tuple[Tensor, ...]) -> Dict[str, float]:
    """Return the errors of all results, relative to their largest value."""
    grad, x, kernels = inputs
    weight, bias, *grads = _pooling_inputs(x)
    actual = (module.reweight(x, kernels, DILATIONS),
              *module.reweight_backward(grad, x, kernels, DILATIONS),
              *module.pool_queries(x, weight, bias),
              *module.pool_queries_backward(*grads, x, weight, bias))
    x, kernels, weight, bias = (
        t.detach().double().requires_grad_()
        for t in (x, kernels, weight, bias))
    y = decomposed.reweight(x, kernels, DILATIONS)
    pooled = decomposed.pool_queries(x, weight, bias)
    expected = (y, *torch.autograd.grad(y, (x, kernels), grad.double()),
                *pooled, *torch.autograd.grad(pooled, (x, weight, bias),
                                              [g.double() for g in grads]))
    return {
        name:
        ((ours.double() - theirs).abs().max() / theirs.abs().max()).item()
        for name, ours, theirs in zip(RESULTS, actual, expected)
    }


def _pooling_inputs(x: Tensor) -> List[Tensor]:
    """Return weight, bias, and the gradients of both results."""
    b, c = x.shape[:2]
    r = len(DILATIONS) * 9
    shapes = ((r, c), (r, ), (b, r, c), (b, r))
    return [torch.randn(shape, device=x.device) for shape in shapes]
