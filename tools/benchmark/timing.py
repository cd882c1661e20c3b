"""The conditions of a measurement, and what is made of its times."""
from dataclasses import dataclass
from statistics import median
from typing import Any, Callable, ContextManager, List, Tuple

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

BLOCKS = 5  # of calls, between which a GPU is waited for


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


def ratio(times: List[float], reference: List[float]) -> float:
    """Median of the ratios within a round: a drifting clock cancels out."""
    return median(a / b for a, b in zip(times, reference))


def seconds_of(function: Callable[[], Any], least: float) -> float:
    """Return the median time of a call, repeated for ``least`` seconds."""
    function()  # compiles
    timer = Timer('function()', globals=dict(function=function))
    number = max(int(least / BLOCKS / timer.timeit(1).median), 1)
    return median(timer.timeit(number).median for _ in range(BLOCKS))
