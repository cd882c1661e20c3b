"""The two operations that touch a full feature map, with their backward.

Each saves its inputs only and recomputes the rest, so a training step keeps
nothing but the feature map, which it has anyway. They are custom operators, so
``torch.compile``, ``torch.export`` and modes treat them as any other; in plain
eager mode (:mod:`.functions`) they are functions of autograd, which cost less.

Which implementation runs:

- :mod:`.decomposed` while a graph is exported to ONNX, which knows no custom
  operators; within ``torch.func`` transforms and forward-mode differentiation,
  which need derivatives of each call; and for second and higher derivatives,
  of the backward operators;
- :mod:`.triton_reweighting`, :mod:`.triton_pooling` on a GPU, below float64,
  where :mod:`.choice` finds what they need; :mod:`.triton_rolling` and
  :mod:`.triton_split_pooling` in their place where it names them;
- :mod:`.eager` otherwise.
"""
from typing import Any, Callable, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from . import decomposed, flops
from .choice import implementation, no_autocast, reweighting
from .functions import PoolQueries, Reweight, is_plain, is_transformed

__all__ = ['pool_queries', 'reweight']


def pool_queries(x: Tensor, query_weight: Tensor,
                 query_bias: Tensor) -> Tuple[Tensor, Tensor]:
    r"""Gather what each query sees: :math:`Q X'^T / N` and :math:`\bar Q`.

    Args:
        x: Feature map X, (B, C, H, W).
        query_weight: (R, C), one row per query.
        query_bias: (R,).

    Returns:
        (B, R, C) and (B, R), in float32 at least.
    """
    with no_autocast(x):
        if is_plain(x, query_weight, query_bias):
            return PoolQueries.apply(x, query_weight, query_bias)
        if _must_decompose():
            return decomposed.pool_queries(x, query_weight, query_bias)
        return torch.ops.cac_mmseg.pool_queries(x, query_weight, query_bias)


def reweight(x: Tensor, kernels: Tensor, dilations: Sequence[int]) -> Tensor:
    """See :func:`cac_mmseg.functional.reweight`; nothing is checked here."""
    with no_autocast(x):
        if is_plain(x, kernels):
            return Reweight.apply(x, kernels, dilations)
        if _must_decompose():
            return decomposed.reweight(x, kernels, dilations)
        return torch.ops.cac_mmseg.reweight(x, kernels, dilations)


def _must_decompose() -> bool:
    return torch.onnx.is_in_onnx_export() or is_transformed()


def _register() -> None:

    def operator(function: Any) -> Any:
        name = f'cac_mmseg::{function.__name__}'
        return torch.library.custom_op(name, function, mutates_args=())

    def pool_queries(x: Tensor, query_weight: Tensor,
                     query_bias: Tensor) -> Tuple[Tensor, Tensor]:
        return implementation(x, 'pool_queries').pool_queries(
            x, query_weight, query_bias)

    def pool_queries_backward(
            grad_pooled: Tensor, grad_mean: Tensor, x: Tensor,
            query_weight: Tensor,
            query_bias: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        with no_autocast(x):
            return implementation(x, 'pool_queries').pool_queries_backward(
                grad_pooled, grad_mean, x, query_weight, query_bias)

    def reweight(x: Tensor, kernels: Tensor, dilations: List[int]) -> Tensor:
        return reweighting(x, kernels,
                           dilations).reweight(x, kernels, dilations)

    def reweight_backward(grad: Tensor, x: Tensor, kernels: Tensor,
                          dilations: List[int]) -> Tuple[Tensor, Tensor]:
        with no_autocast(x):
            return reweighting(x, kernels, dilations).reweight_backward(
                grad, x, kernels, dilations)

    pool_queries, pool_queries_backward, reweight, reweight_backward = map(
        operator,
        (pool_queries, pool_queries_backward, reweight, reweight_backward))

    @pool_queries.register_fake
    def _(x: Tensor, query_weight: Tensor,
          query_bias: Tensor) -> Tuple[Tensor, Tensor]:
        b, c, r = x.shape[0], x.shape[1], query_weight.shape[0]
        dtype = torch.promote_types(x.dtype, torch.float32)
        return (x.new_empty((b, r, c),
                            dtype=dtype), x.new_empty((b, r), dtype=dtype))

    @pool_queries_backward.register_fake
    def _(grad_pooled: Tensor, grad_mean: Tensor, *inputs: Tensor) -> Any:
        return tuple(map(torch.empty_like, inputs))

    @reweight.register_fake
    def _(x: Tensor, kernels: Tensor, dilations: List[int]) -> Tensor:
        return torch.empty_like(x)

    @reweight_backward.register_fake
    def _(grad: Tensor, x: Tensor, kernels: Tensor,
          dilations: List[int]) -> Tuple[Tensor, Tensor]:
        return torch.empty_like(x), torch.empty_like(kernels)

    def save_tensors(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def save_reweight(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        *tensors, ctx.dilations = inputs
        ctx.save_for_backward(*tensors)

    pool_queries.register_autograd(
        lambda ctx, *grads: pool_queries_backward(*grads, *ctx.saved_tensors),
        setup_context=save_tensors)
    reweight.register_autograd(
        lambda ctx, grad:
        (*reweight_backward(grad, *ctx.saved_tensors, ctx.dilations), None),
        setup_context=save_reweight)

    def pool_queries_twice(ctx: Any, *grads: Tensor) -> Tuple[Tensor, ...]:
        return _differentiate_backward(decomposed.pool_queries, 2,
                                       ctx.saved_tensors, grads)

    def reweight_twice(ctx: Any, *grads: Tensor) -> Tuple[Any, ...]:

        def function(x: Tensor, kernels: Tensor) -> Tensor:
            return decomposed.reweight(x, kernels, ctx.dilations)

        return (*_differentiate_backward(function, 1, ctx.saved_tensors,
                                         grads), None)

    pool_queries_backward.register_autograd(
        pool_queries_twice, setup_context=save_tensors)
    reweight_backward.register_autograd(
        reweight_twice, setup_context=save_reweight)


def _differentiate_backward(
        function: Callable, outputs: int, saved: Sequence[Tensor],
        grads: Sequence[Optional[Tensor]]) -> Tuple[Optional[Tensor], ...]:
    """Differentiate the gradients of ``function``, by its decomposed form.

    Args:
        function: Of the last of the saved tensors.
        outputs: How many it returns. ``saved`` starts with their gradients.
        saved: What the backward operator was called with.
        grads: Of what it returned.

    Returns:
        The gradients of ``saved``, differentiable where autograd asks for it.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad(), no_autocast(saved[0]):
        # aliases: the derivative is the direct one, also where one of these
        # tensors was computed from another
        tensors = [
            t.view_as(t) if create_graph and t.requires_grad else
            t.detach().requires_grad_() for t in saved
        ]
        given, inputs = tensors[:outputs], tensors[outputs:]
        first = torch.autograd.grad(
            function(*inputs), inputs, given, create_graph=True)
        return torch.autograd.grad(
            first,
            tensors, [
                torch.zeros_like(t) if grad is None else grad
                for t, grad in zip(first, grads)
            ],
            create_graph=create_graph,
            materialize_grads=True)


_register()
flops.register()
