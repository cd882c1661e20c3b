"""Both operations as functions of autograd, for plain eager mode.

There they cost the host a third of what custom operators do. Nothing but
autograd knows them: :func:`is_plain` says whether anything else watches.
"""
from typing import Any, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from .choice import implementation, no_autocast, reweighting

PLAIN = Tensor, torch.nn.Parameter


def is_plain(*tensors: Tensor) -> bool:
    """Return whether nothing but autograd watches what is computed.

    No compilation, export or trace, no mode of dispatch or of functions, no
    transform of ``torch.func``, no forward AD; no tensor that is a subclass,
    on meta, lazily negated, or several of
    ``autograd.grad(is_grads_batched=True)``.
    """
    if torch.compiler.is_compiling():
        return False
    return (torch._C._len_torch_dispatch_stack() == 0
            and not torch._C._is_torch_function_mode_enabled()
            and torch._C._functorch.peek_interpreter_stack() is None
            and forward_ad._current_level < 0
            and torch._C._get_tracing_state() is None
            and not torch.onnx.is_in_onnx_export() and all(
                type(t) in PLAIN and not t.is_meta and not t.is_neg()
                and not torch._C._functorch.is_legacy_batchedtensor(t)
                for t in tensors))


class PoolQueries(Function):
    """See :func:`cac_mmseg.ops.pool_queries`."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tuple[Tensor, Tensor]:
        ctx.save_for_backward(*inputs)
        return implementation(inputs[0], 'pool_queries').pool_queries(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled() or not is_plain(*grads, *inputs):
            return torch.ops.cac_mmseg.pool_queries_backward(*grads, *inputs)
        with no_autocast(inputs[0]):
            return implementation(inputs[0],
                                  'pool_queries').pool_queries_backward(
                                      *grads, *inputs)


class Reweight(Function):
    """See :func:`cac_mmseg.functional.reweight`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor,
                dilations: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, kernels)
        ctx.dilations = dilations
        return reweighting(x, kernels,
                           dilations).reweight(x, kernels, dilations)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        arguments = (grad, *ctx.saved_tensors, ctx.dilations)
        if torch.is_grad_enabled() or not is_plain(*arguments[:3]):
            return (*torch.ops.cac_mmseg.reweight_backward(*arguments), None)
        with no_autocast(grad):
            return (*reweighting(*arguments[1:]).reweight_backward(*arguments),
                    None)
