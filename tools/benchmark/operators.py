"""The two operations alone: are they right, and how fast beside a copy.

The re-weighting reads X and writes Y; its backward reads X and dY and writes
dX. Pooling reads X; its backward reads X and writes dX. All else is small.
"""
import math
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import chain
from statistics import median
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch
from torch import Tensor

from cac_mmseg.cac_module import CaCModule
from cac_mmseg.ops import decomposed, eager
from cac_mmseg.stack.timing import compare, seconds
from .plan import FULL, Plan
from .report import Report
from .setting import Setting, changed

DILATIONS = (1, 3, 5)
# of the largest value, what is summed in float32 and stored in the dtype
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-9}
# what is timed, and whether in channels_last: each takes the compiler seconds
TIMED = ((torch.float32, False), (torch.bfloat16, False), (torch.bfloat16,
                                                           True))
# modules of Triton kernels, as choice.KERNELS names them
TRITON = dict(
    triton=dict(reweight='triton_reweighting', pool_queries='triton_pooling'),
    rolling=dict(
        reweight='triton_rolling', pool_queries='triton_split_pooling'))
# settings of the first of them, changed one by one
SETTINGS: Dict[str, tuple] = dict(
    FORWARD_ROWS=(4, 8, 16),
    BACKWARD_ROWS=(2, 4),
    LANES=(32, 64, 128),
    BOX=((16, None), (32, None), (64, None)),
    BOX_CHANNELS_LAST=((8, 4), (8, 8), (8, 16)),
    PROGRAMS_PER_PROCESSOR=(2, 4, 6, 8),
    POSITIONS=(32, 64, 128),
    CHANNELS=(16, 32, 64),
    WARPS=(4, 8))
PASSES = {  # over X that each needs, where a copy of X has 2
    'forward': 2,
    'backward': 3,
    'pooling forward': 1,
    'pooling backward': 2
}
# of their calls
RESULTS = ('Y', 'dX', 'dD', 'pooled', 'mean', 'pooling dX', 'dW', 'db')

Row = Dict[str, Any]
Calls = Dict[str, Callable[[], Any]]


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
        for name, modules in TRITON.items():
            if device.type != 'cuda':
                break
            try:
                reweighting, pooling = (
                    import_module(f'cac_mmseg.ops.{modules[operation]}')
                    for operation in ('reweight', 'pool_queries'))
            except ImportError as error:
                failures[name] = str(error)
            else:
                self.implementations[name] = SimpleNamespace(
                    **{
                        **vars(pooling),
                        **vars(reweighting)
                    },
                    # by the start of their calls
                    modules={
                        '': reweighting,
                        'pooling ': pooling
                    })

    def correctness(self) -> Iterator[Row]:
        """Each implementation against float64; what is wrong is not timed."""
        b, c, h, w = self.plan.checked
        for name, module in list(self.implementations.items()):
            for dtype in TOLERANCE:
                for channels_last in (False, True):
                    setting = self._setting((b, h, w), dtype, channels_last)
                    try:
                        errors = _errors(module, _inputs(setting, c))
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
                        layout=setting.layout,
                        **errors,
                        right=right)

    def times(self) -> Iterator[Row]:
        """Time and bandwidth of both operations, beside a copy."""
        for size in self.plan.maps:
            for dtype, channels_last in TIMED:
                yield from self.of_map(
                    self._setting(size, dtype, channels_last))

    def of_map(self, setting: Setting) -> Iterator[Row]:
        """Time both operations on a feature map, in turns with a copy."""
        inputs = _inputs(setting, self.plan.channels)
        _, x, kernels, *_ = inputs
        functions = {
            f'{name} {call}': function
            for name, module in self.implementations.items()
            for call, function in _calls(module, inputs).items()
        }
        if setting.compile:
            functions['compiled forward'] = partial(
                torch.compile(decomposed.reweight), x, kernels, DILATIONS)
        functions['copy'] = partial(torch.empty_like(x).copy_, x)
        times = self.seconds(functions)
        copy = times.pop('copy')
        for name, elapsed in times.items():
            passes = PASSES[name.split(maxsplit=1)[1]]
            moved = x.numel() * x.element_size() * passes
            yield dict(
                map=' x '.join(map(str, (setting.batch, *setting.size))),
                dtype=str(setting.dtype)[6:],
                layout=setting.layout,
                what=name,
                microseconds=elapsed * 1e6,
                gigabytes_per_second=moved / elapsed / 1e9,
                over_copy=elapsed / (copy * passes / 2))

    def settings(self) -> Iterator[Row]:
        """Each setting of the older Triton kernels on its own."""
        triton = self.implementations.get('triton')
        if triton is None:
            return
        for name, values in SETTINGS.items():
            start, module = next((start, module)
                                 for start, module in triton.modules.items()
                                 if name in vars(module))
            setting = self._setting(self.plan.maps[0], torch.bfloat16,
                                    'CHANNELS_LAST' in name)
            calls = _calls(triton, _inputs(setting, self.plan.channels))
            default = getattr(module, name)
            for value in values:
                with changed(vars(module), name, value):
                    times = self.seconds({
                        call: calls[start + call]
                        for call in ('forward', 'backward')
                    })
                yield dict(
                    setting=name,
                    value=str(value),
                    default=value == default,
                    forward_us=times['forward'] * 1e6,
                    backward_us=times['backward'] * 1e6)

    def compiled(self) -> Iterator[Row]:
        """As torch.compile makes the re-weighting, beside the others."""
        if self.device.type == 'cuda':
            setting = self._setting(self.plan.maps[0], torch.bfloat16)
            yield from self.of_map(replace(setting, compile=True))

    def _setting(self,
                 size: Tuple[int, int, int],
                 dtype: torch.dtype,
                 channels_last: bool = False) -> Setting:
        return Setting(self.device, dtype, size[0], size[1:], self.plan.rounds,
                       channels_last)

    def seconds(self, functions: Calls) -> Dict[str, float]:
        """Return the median time of a call of each function."""
        times = seconds(functions, self.plan.rounds, self.plan.seconds)
        return {name: median(rounds) for name, rounds in times.items()}


def _inputs(setting: Setting, channels: int) -> List[Tensor]:
    """Return dY, X, kernels; weight, bias, and gradients of what is pooled."""
    b, c, d = setting.batch, channels, len(DILATIONS)
    shapes = ((b, d, c, 3, 3), (9 * d, c), (9 * d, ), (b, 9 * d, c), (b,
                                                                      9 * d))
    return [
        *(setting.random(c, *setting.size) for _ in range(2)),
        *(torch.randn(shape, device=setting.device) for shape in shapes)
    ]


def _calls(module: Any, inputs: List[Tensor]) -> Calls:
    """Return what is timed of an implementation, by keys of :data:`PASSES`."""
    grad, x, kernels, weight, bias, *grads = inputs
    return {
        'forward':
        partial(module.reweight, x, kernels, DILATIONS),
        'backward':
        partial(module.reweight_backward, grad, x, kernels, DILATIONS),
        'pooling forward':
        partial(module.pool_queries, x, weight, bias),
        'pooling backward':
        partial(module.pool_queries_backward, *grads, x, weight, bias)
    }


def _errors(module: Any, inputs: List[Tensor]) -> Dict[str, float]:
    """Return the errors of all results, relative to their largest value."""
    y, *others = (call() for call in _calls(module, inputs).values())
    actual = [y, *chain(*others)]
    grad, x, kernels, weight, bias, *grads = (
        t.detach().double().requires_grad_() for t in inputs)
    y = decomposed.reweight(x, kernels, DILATIONS)
    pooled = decomposed.pool_queries(x, weight, bias)
    expected = (y, *torch.autograd.grad(y, (x, kernels), grad), *pooled,
                *torch.autograd.grad(pooled, (x, weight, bias), grads))
    return {
        name:
        ((ours.double() - theirs).abs().max() / theirs.abs().max()).item()
        for name, ours, theirs in zip(RESULTS, actual, expected)
    }


def measure(setting: Setting, report: Report) -> None:
    """Time the operations on one map, and how a module's time grows with it.

    Args:
        setting: The conditions.
        report: Gets a row for each.
    """
    h, w = setting.size
    operators = Operators(setting.device, replace(FULL, rounds=setting.rounds),
                          report.skipped)
    report.rows += [
        dict(row, name=row['what']) for row in operators.of_map(setting)
    ]
    cases = {
        f'CaCModule step, {k * k} N':
        setting.case(
            CaCModule(FULL.channels).to(setting.device),
            [setting.random(FULL.channels, k * h, k * w).requires_grad_()])
        for k in (1, 2)
    }
    report.rows += [
        dict(name=name, microseconds=row['train_ms'] * 1e3)
        for name, row in compare(cases, setting.rounds).items()
    ]
