"""A head's training step, replayed from a CUDA graph."""
from typing import Callable, List, Optional, Sequence

import torch
import torch.nn as nn
from mmengine.logging import print_log
from torch import Tensor

from ..cac_head import CaCHead


class GraphedStep:
    """A head's forward in training that replays a graph where that fits.

    Args:
        head: Of a model on a GPU.
    """

    def __init__(self, head: CaCHead) -> None:
        self.head = head
        self.replay: Optional[Callable] = None
        self.waits = False  # a replayed forward for its backward

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """See :meth:`cac_mmseg.cac_head.CaCHead.forward`."""
        head = self.head
        maps = [inputs[i] for i in _indices(head)]
        if self.replay is None and head.training and torch.is_grad_enabled():
            self.capture(maps)
        if (self.replay is None or self.waits
                or self._state(maps) != self.captured):
            return type(head).forward(head, inputs)
        logits = self.replay(*maps)
        # another forward would overwrite what this one's backward reads
        self.waits = True
        logits.register_hook(self._before_backward)
        return logits

    def capture(self, maps: Sequence[Tensor]) -> None:
        """Capture a step; all but the graph is then as it was before.

        Not after a step on the default stream whose autograd graph lives: its
        nodes of the parameters would draw that stream into the capture.
        """
        self.modules = [*self.head.modules()]
        self.parameters = [*self.head.parameters()]
        buffers = [*self.head.buffers()]
        self.tensors = self.parameters + buffers
        saved = [buffer.clone() for buffer in buffers]
        # the graph reads them; with values for the warm-up
        static = tuple(x.detach().clone().requires_grad_(x.requires_grad)
                       for x in maps)
        device = maps[0].device
        autocast = dict(
            device_type=device.type,
            dtype=torch.get_autocast_dtype(device.type),
            enabled=torch.is_autocast_enabled(device.type),
            cache_enabled=False)
        with torch.random.fork_rng([device] if device.type == 'cuda' else []):
            with torch.autocast(**autocast):
                self.captured = self._state(maps)
                # a parameter of a loss has no gradient
                self.replay = torch.cuda.make_graphed_callables(
                    _Maps(self.head), static, allow_unused_input=True)
        with torch.no_grad():  # the warm-up trained the norms
            for buffer, before in zip(buffers, saved):
                buffer.copy_(before)
        print_log(
            'CUDAGraphHook captured decode_head for feature maps of '
            f'{[tuple(x.shape) for x in maps]}',
            logger='current')

    def _state(self, maps: List[Tensor]) -> tuple:
        """Return all that a graph is only right for; reads no data."""
        kind = maps[0].device.type
        enabled = torch.is_autocast_enabled(kind)
        return (torch.is_grad_enabled(), enabled
                and torch.get_autocast_dtype(kind), [
                    (x.shape, x.dtype, x.device, x.requires_grad) for x in maps
                ], [(t.data_ptr(), t.requires_grad) for t in self.tensors],
                [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks),
                  len(m._backward_hooks), len(m._backward_pre_hooks))
                 for m in self.modules])

    def _before_backward(self, grad: Tensor) -> None:
        self.waits = False
        for parameter in self.parameters:
            # autograd took over the graph's own memory, which it will
            # overwrite: without a copy, nothing would accumulate
            if parameter.grad is not None:
                parameter.grad = parameter.grad.clone()


class _Maps(nn.Module):
    """A head as a function of the feature maps that it reads."""

    def __init__(self, head: CaCHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, *maps: Tensor) -> Tensor:
        inputs = dict(zip(_indices(self.head), maps))
        return type(self.head).forward(self.head, inputs)


def _indices(head: CaCHead) -> Sequence[int]:
    index = head.in_index
    return index if isinstance(index, (list, tuple)) else [index]
