"""Both operations as functions of autograd, for plain eager mode.

There they cost the host a third of what custom operators do. Nothing but
autograd knows them: :func:`is_plain` says whether anything else watches.
"""
from typing import Any, Callable, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from . import decomposed
from .choice import implementation, no_autocast, reweighting

PLAIN = Tensor, torch.nn.Parameter
DEVICES = ('cpu', )  # and 'cuda', once a GPU has measured what it gives


def is_plain(*tensors: Tensor) -> bool:
    """Return whether nothing but autograd watches what is computed.

    No compilation, export or trace, no mode of dispatch or of functions, no
    transform of ``torch.func``, no forward AD; no tensor that is a subclass,
    elsewhere than on :data:`DEVICES`, lazily negated, or several of
    ``autograd.grad(is_grads_batched=True)``.
    """
    if torch.compiler.is_compiling():
        return False
    return (
        torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._is_torch_function_mode_enabled()
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
        and torch._C._get_tracing_state() is None
        and not torch.onnx.is_in_onnx_export() and all(
            type(t) in PLAIN and t.device.type in DEVICES and not t.is_neg()
            and not torch._C._functorch.is_legacy_batchedtensor(t)
            for t in tensors))


def is_transformed() -> bool:
    """Whether a transform of torch.func or a level of forward AD is active."""
    if torch.compiler.is_compiling():
        return False
    return (forward_ad._current_level >= 0
            or torch._C._functorch.peek_interpreter_stack() is not None)


def differentiate(function: Callable, inputs: Sequence[Tensor],
                  grads: Sequence[Tensor]) -> Tuple[Tensor, ...]:
    """Return the gradients of inputs, by a function of plain PyTorch calls.

    They can be differentiated, where autograd or a transform asks for it.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad(), no_autocast(inputs[0]):
        # aliases, which keep the tangents that detach() drops
        inputs = [t.view_as(t) for t in inputs]
        inputs = [t if t.requires_grad else t.requires_grad_() for t in inputs]
        return torch.autograd.grad(
            function(*inputs), inputs, grads, create_graph=create_graph)


class PoolQueries(Function):
    """See :func:`cac_mmseg.ops.pool_queries`."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tuple[Tensor, Tensor]:
        ctx.save_for_backward(*inputs)
        return implementation(inputs[0], 'pool_queries').pool_queries(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        inputs = ctx.saved_tensors
        if is_transformed():
            return differentiate(decomposed.pool_queries, inputs, grads)
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
        if is_transformed():

            def function(x: Tensor, kernels: Tensor) -> Tensor:
                return decomposed.reweight(x, kernels, ctx.dilations)

            return (*differentiate(function, arguments[1:3], [grad]), None)
        if torch.is_grad_enabled() or not is_plain(*arguments[:3]):
            return (*torch.ops.cac_mmseg.reweight_backward(*arguments), None)
        with no_autocast(grad):
            return (*reweighting(*arguments[1:]).reweight_backward(*arguments),
                    None)
