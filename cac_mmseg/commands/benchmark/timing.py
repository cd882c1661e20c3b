"""Interleaved timing: all functions run under the same conditions."""
import sys
from dataclasses import dataclass
from statistics import median
from typing import Any, Callable, ContextManager, Dict, List, Tuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.benchmark import Timer

from ...utils.analysis import seconds

WARM_UP = 2


@dataclass(frozen=True)
class Setting:
    """The conditions of a measurement."""
    device: torch.device
    dtype: torch.dtype
    batch: int
    size: Tuple[int, int]
    rounds: int
    channels_last: bool
    compile: bool

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout of feature maps and weights."""
        return (torch.channels_last
                if self.channels_last else torch.contiguous_format)

    def random(self, channels: int, height: int, width: int) -> Tensor:
        """A random feature map, (batch, channels, height, width)."""
        x = torch.randn(self.batch, channels, height, width)
        return x.to(self.device, self.dtype, memory_format=self.memory_format)

    def autocast(self) -> ContextManager:
        """Autocast where the dtype is not float32."""
        return torch.autocast(self.device.type, self.dtype, self.dtype
                              != torch.float32)


def interleave(functions: Dict[str, Callable[[], object]],
               setting: Setting) -> Dict[str, List[float]]:
    """Time every function once per round, after two warm-up rounds.

    Args:
        functions: By name.
        setting: Says how many rounds, and on which device.

    Returns:
        The seconds of each round, by name.
    """
    times: Dict[str, List[float]] = {name: [] for name in functions}
    steps = [(i, name) for i in range(-WARM_UP, setting.rounds)
             for name in functions]
    console = Console(file=sys.stderr)
    for i, name in track(steps, 'measuring', console=console):
        elapsed = seconds(functions[name], setting.device)
        if i >= 0:
            times[name].append(elapsed)
    return times


def ratio(times: List[float], reference: List[float]) -> float:
    """Median of the ratios within a round: a drifting clock cancels out."""
    return median(a / b for a, b in zip(times, reference))


def seconds_of(function: Callable[[], Any], least: float) -> float:
    """Return the median time of a call, repeated for ``least`` seconds."""
    function()  # compiles
    timer = Timer('function()', globals=dict(function=function))
    return timer.blocked_autorange(min_run_time=least).median
