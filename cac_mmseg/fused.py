"""X to Y of a CaCModule in one function of autograd, for plain eager mode.

The operations of :func:`.functional.predict_kernels`, batch normalisation and
:func:`.functional.reweight`, with their backward in one place: the host takes
half as long, and the gradient of X by the queries is added in place to the one
by the re-weighting, so that no second map is written and read.
"""
from typing import Any, Optional, Sequence, Tuple

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from mmengine.utils.dl_utils.parrots_wrapper import SyncBatchNorm
from torch import Tensor
from torch.autograd import Function

from .checks import check_batch_norm, check_feature_map
from .functional import predict_kernels, reweight
from .intact import has_hooks
from .ops.choice import implementation, no_autocast, reweighting
from .ops.functions import differentiate, is_plain
from .projection import Projection


def fits(module: nn.Module, x: Tensor) -> bool:
    """Return whether :func:`context` computes what a CaCModule does for x.

    Not where a mode or a transform watches (:func:`.functions.is_plain`), nor
    with hooks, parametrizations or other norms than BN of the usual dtype.
    """
    parts = query, key, norm = module.query, module.key, module.kernel_norm
    if (type(query) is not Projection or type(key) is not Projection
            or not _is_batch_norm(norm) or any(map(has_hooks, parts))):
        return False
    of_norm = norm.weight, norm.bias, norm.running_mean, norm.running_var
    tensors = (query.weight, query.bias, key.weight, key.bias, *of_norm)
    if not is_plain(x, *tensors) or x.dim() != 4 or not x.numel():
        return False
    # what does not fit together is named by the parts
    c, sets, taps = module.in_channels, module.sets, module.kernel_size**2
    shapes = [(sets * taps, c, 1, 1), (sets * taps, ), (sets * c, c, 1, 1),
              (sets * c, )] + [(sets * c, )] * 4
    dtype = torch.promote_types(x.dtype, torch.float32)
    return (x.shape[1] == c and sets in (1, len(module.dilations)) and all(
        t.shape == shape and t.dtype == dtype and t.device == x.device
        for t, shape in zip(tensors, shapes)))


def _is_batch_norm(norm: nn.Module) -> bool:
    if type(norm) in (nn.SyncBatchNorm, SyncBatchNorm):
        plain = not dist.is_initialized()
    else:
        plain = type(norm) is nn.BatchNorm2d
    return (plain and 'forward' not in norm.__dict__
            and norm.track_running_stats and norm.momentum is not None
            and norm.num_batches_tracked is not None)


def context(module: nn.Module, x: Tensor) -> Tensor:
    """Return Y of a CaCModule that :func:`fits`."""
    check_feature_map(x, module.in_channels)
    norm = module.kernel_norm
    with no_autocast(x):
        return Context.apply(norm, module.dilations, module.kernel_size, x,
                             *module.query(), *module.key(), norm.weight,
                             norm.bias)


class Context(Function):
    """Y of X and the parameters of queries, keys and norm.

    Tensors of a set g are (g, b * taps, c) here: one product with each key
    weight for all images.
    """

    @staticmethod
    def forward(ctx: Any, norm: nn.BatchNorm2d, dilations: Sequence[int],
                size: int, *inputs: Tensor) -> Tensor:
        (x, query_weight, query_bias, key_weight, key_bias, scale,
         shift) = inputs
        b, c = x.shape[:2]
        sets, taps = len(key_bias) // c, size**2
        pooled, mean = implementation(x, 'pool_queries').pool_queries(
            x, query_weight.flatten(1), query_bias)
        rows = pooled.view(b, sets, taps, c).transpose(0, 1)
        rows = rows.reshape(sets, b * taps, c)
        means = mean.view(b, sets, taps).transpose(0, 1)
        means = means.reshape(sets, b * taps, 1)
        products = torch.baddbmm(means * key_bias.view(sets, 1, c), rows,
                                 key_weight.view(sets, c, c).transpose(1, 2))
        products = products.view(sets, b, taps, c).permute(1, 0, 3, 2)
        products = products.reshape(b, sets * c, size, size)
        check_batch_norm(norm, products, 'the predicted kernels',
                         'kernel_size >= 3')
        if norm.training:
            norm.num_batches_tracked.add_(1)
        running = norm.running_mean, norm.running_var
        kernels, *statistics = torch.native_batch_norm(products, scale, shift,
                                                       *running, norm.training,
                                                       norm.momentum, norm.eps)
        kernels = kernels.view(b, sets, c, size, size)
        ctx.save_for_backward(*inputs, rows, means, products, kernels,
                              *(statistics if norm.training else running))
        ctx.training, ctx.eps, ctx.dilations = (norm.training, norm.eps,
                                                dilations)
        return reweighting(x, kernels,
                           dilations).reweight(x, kernels, dilations)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        if torch.is_grad_enabled() or not is_plain(grad):
            return (None, None, None, *_differentiate(ctx, grad))
        (x, query_weight, query_bias, key_weight, key_bias, scale, _, rows,
         means, products, kernels, *statistics) = ctx.saved_tensors
        b, sets, c, size = kernels.shape[:4]
        taps = size**2
        with no_autocast(x):
            grad_x, grad_kernels = reweighting(
                x, kernels,
                ctx.dilations).reweight_backward(grad, x, kernels,
                                                 ctx.dilations)
            running = (None, None) if ctx.training else statistics
            saved = statistics if ctx.training else (None, None)
            grads, grad_scale, grad_shift = \
                torch.ops.aten.native_batch_norm_backward(
                    grad_kernels.view(products.shape), products, scale,
                    *running, *saved, ctx.training, ctx.eps, [True] * 3)
            grads = grads.view(b, sets, c, taps).permute(1, 0, 3, 2)
            grads = grads.reshape(sets, b * taps, c)
            flipped = grads.transpose(1, 2)
            grad_mean = torch.bmm(grads, key_bias.view(sets, c, 1))
            grad_mean = grad_mean.view(sets, b, taps).transpose(0, 1)
            grad_rows = torch.bmm(grads, key_weight.view(sets, c, c))
            grad_rows = grad_rows.view(sets, b, taps, c).transpose(0, 1)
            grad_x, *of_query = implementation(
                x, 'pool_queries').pool_queries_backward(
                    grad_rows.reshape(b, sets * taps, c),
                    grad_mean.reshape(b, sets * taps), x,
                    query_weight.flatten(1), query_bias, grad_x)
            return (None, None, None, grad_x,
                    of_query[0].view(query_weight.shape), of_query[1],
                    torch.bmm(flipped, rows).view(key_weight.shape),
                    torch.bmm(flipped, means).view(-1), grad_scale, grad_shift)


def _differentiate(ctx: Any, grad: Tensor) -> Tuple[Tensor, ...]:
    """Return the gradients of the inputs, differentiable themselves."""
    saved = ctx.saved_tensors  # once: a hook may have to compute them
    running = (None, None) if ctx.training else saved[-2:]
    size = saved[10].shape[4]

    def function(x: Tensor, query_weight: Tensor, query_bias: Tensor,
                 key_weight: Tensor, key_bias: Tensor, scale: Tensor,
                 shift: Tensor) -> Tensor:
        c = x.shape[1]
        kernels = predict_kernels(x, query_weight.flatten(1), query_bias,
                                  key_weight.view(-1, c, c),
                                  key_bias.view(-1, c), size)
        normalised = F.batch_norm(
            kernels.flatten(1, 2), *running, scale, shift, ctx.training, 0.,
            ctx.eps)
        return reweight(x, normalised.view_as(kernels), ctx.dilations)

    return differentiate(function, saved[:7], [grad])
