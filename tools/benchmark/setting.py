"""The conditions of a measurement."""
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ContextManager, Iterator, List, MutableMapping, Tuple

import torch
import torch.nn as nn
from torch import Tensor

from cac_mmseg.stack.timing import Case


@dataclass(frozen=True)
class Setting:
    """The conditions of a measurement."""
    device: torch.device
    dtype: torch.dtype
    batch: int
    size: Tuple[int, int]
    rounds: int
    channels_last: bool = False
    compile: bool = False
    channels: int = 512  # of heads; a quarter of those of their feature map

    @property
    def layout(self) -> str:
        """Layout of feature maps and weights, in a word."""
        return 'channels_last' if self.channels_last else 'NCHW'

    @property
    def memory_format(self) -> torch.memory_format:
        """The same, for PyTorch."""
        return (torch.channels_last
                if self.channels_last else torch.contiguous_format)

    def random(self, channels: int, height: int, width: int) -> Tensor:
        """A random feature map, (batch, channels, height, width)."""
        shape = (self.batch, channels, height, width)
        return torch.randn(
            shape, device=self.device).to(
                self.dtype, memory_format=self.memory_format)

    def autocast(self) -> ContextManager:
        """Autocast where the dtype is not float32."""
        return torch.autocast(self.device.type, self.dtype, self.dtype
                              != torch.float32)

    def case(self, module: nn.Module, inputs: List[Tensor]) -> Case:
        """Return a module on inputs, with autocast, for a measurement."""

        def forward() -> Any:
            with self.autocast():
                return module(*inputs)

        return Case(module, forward, forward, inputs)


@contextmanager
def changed(values: MutableMapping[str, Any], key: str,
            value: Any) -> Iterator[None]:
    """Context in which one of the values is another, or there at all.

    Args:
        values: Such as ``os.environ``, or the variables of a module.
        key: Its name.
        value: What it is in the context.
    """
    before = {key: values[key]} if key in values else {}
    values[key] = value
    try:
        yield
    finally:
        del values[key]
        values.update(before)
