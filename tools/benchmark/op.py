"""The re-weighting alone, beside the floor of its memory traffic.

Forward reads X and writes Y; backward reads X and dY and writes dX. Kernels
are small beside them. So with S the bytes of X the floor is 2 S forward and
3 S backward over the bandwidth that a large copy reaches on the same device.
"""
from functools import partial
from statistics import median
from types import ModuleType
from typing import Callable, Dict

import torch
from torch import Tensor

from cac_mmseg.cac_module import CaCModule
from cac_mmseg.ops import decomposed, eager
from cac_mmseg.stack.analysis import interleave
from .report import Report
from .timing import Setting

CHANNELS = 512
DILATIONS = [1, 3, 5]
COPY_BYTES = 2**28  # larger than any cache
GROWTH = 4  # more positions, to see that time grows with them


def measure(setting: Setting, report: Report) -> None:
    """Each implementation that runs here, and how a module's time grows."""
    h, w = setting.size
    x, grad = (setting.random(CHANNELS, h, w) for _ in range(2))
    kernels = torch.randn(
        setting.batch, len(DILATIONS), CHANNELS, 3, 3, device=setting.device)
    functions: Dict[str, Callable[[], object]] = {}
    source = torch.empty(
        COPY_BYTES, dtype=torch.uint8, device=setting.device).fill_(1)
    functions['copy'] = partial(torch.empty_like(source).copy_, source)
    for name, module in _implementations(setting, report).items():
        functions[f'{name} forward'] = partial(module.reweight, x, kernels,
                                               DILATIONS)
        functions[f'{name} backward'] = partial(module.reweight_backward, grad,
                                                x, kernels, DILATIONS)
    if setting.compile:
        compiled = torch.compile(decomposed.reweight)
        functions['compiled forward'] = partial(compiled, x, kernels,
                                                DILATIONS)
        functions['compiled both'] = partial(_both, compiled, grad, x, kernels)
    small, large = 'CaCModule step', f'CaCModule step, {GROWTH} N'
    functions[small] = _step(setting, h, w)
    functions[large] = _step(setting, h * 2, w * 2)

    rounds = interleave(functions, setting.rounds, setting.device)
    times = {name: median(seconds) for name, seconds in rounds.items()}
    bandwidth = 2 * COPY_BYTES / times.pop('copy')
    report.facts['copy bandwidth'] = f'{bandwidth / 1e9:.1f} GB/s'
    growth = times[large] / times[small]
    report.facts[f'CaCModule step, {GROWTH} N over N'] = f'{growth:.2f}'
    size = x.numel() * x.element_size()
    for name, elapsed in times.items():
        row = dict(name=name, ms=elapsed * 1e3)
        # Y and the gradients for what does both: 2 S and 3 S
        passes = dict(forward=2, backward=3, both=5).get(name.split()[-1])
        if passes:
            floor = passes * size / bandwidth
            row.update(
                gigabytes_per_second=passes * size / elapsed / 1e9,
                floor_ms=floor * 1e3,
                over_floor=elapsed / floor)
        report.add(row)


def _implementations(setting: Setting,
                     report: Report) -> Dict[str, ModuleType]:
    found: Dict[str, ModuleType] = {'eager': eager}
    if setting.device.type == 'cuda':
        try:
            from cac_mmseg.ops import triton_reweighting
            found['triton'] = triton_reweighting
        except ImportError as error:
            report.skip('triton', error)
    return found


def _both(function: Callable, grad: Tensor, x: Tensor,
          kernels: Tensor) -> None:
    x, kernels = (t.detach().requires_grad_() for t in (x, kernels))
    torch.autograd.grad(function(x, kernels, DILATIONS), (x, kernels), grad)


def _step(setting: Setting, height: int, width: int) -> Callable[[], object]:
    module = CaCModule(CHANNELS).to(setting.device)
    x = setting.random(CHANNELS, height, width).requires_grad_()
    grad = torch.ones_like(x)

    def step() -> None:
        module.zero_grad()
        x.grad = None
        with setting.autocast():
            module(x).backward(grad)

    return step
