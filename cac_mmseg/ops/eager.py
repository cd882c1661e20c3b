"""Both operations in plain PyTorch calls, forward and backward, any device.

On a CPU the feature map is worked on block by block, so that temporaries stay
in the cache and are not paged in anew: each call then costs a fraction of what
it does on a whole map.
"""
from typing import Iterator, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Per thread and temporary. Of 1/8 to 4 MiB, 2 MiB was fastest or near it at
# 32 x 64 and 64 x 128 positions (2 threads, 1 MiB of L2 cache each).
BLOCK_BYTES = 2**21

Index = Tuple[slice, slice]


def laid_out_as(x: Tensor, result: Tensor) -> Tensor:
    """Return result in the dtype and the strides of x."""
    if result.dtype == x.dtype and result.stride() == x.stride():
        return result
    return torch.empty_like(x).copy_(result)


def pool_queries(x: Tensor, query_weight: Tensor,
                 query_bias: Tensor) -> Tuple[Tensor, Tensor]:
    """See :func:`cac_mmseg.ops.pool_queries`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x = x.flatten(2).to(dtype)  # [b, c, n]
    queries = query_weight.to(dtype) @ x  # [b, q, n]
    queries += query_bias.to(dtype)[:, None]
    return queries @ x.transpose(1, 2) / x.shape[2], queries.mean(2)


def pool_queries_backward(grad_pooled: Tensor, grad_mean: Tensor, x: Tensor,
                          query_weight: Tensor,
                          query_bias: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, query_weight and query_bias.

    With P = Q X'^T / N and m = mean(Q):
    dQ = (dP X' + dm 1^T) / N and dX' = dP^T Q / N + W_q^T dQ.
    """
    dtype = grad_pooled.dtype
    positions = x.shape[2] * x.shape[3]
    rows = query_weight.shape[0]
    weight = query_weight.to(dtype)
    flat = x.flatten(2).to(dtype)
    grad_pooled = grad_pooled / positions
    # both products with X' in one, so that it is read once
    left = torch.cat([weight.expand_as(grad_pooled), grad_pooled], 1)
    both = left @ flat  # [b, 2 * q, n]: Q without its bias, and dQ
    both[:, :rows] += query_bias.to(dtype)[:, None]
    grad_queries = both[:, rows:]
    grad_queries += grad_mean[..., None] / positions
    right = torch.cat([grad_pooled, weight.expand_as(grad_pooled)], 1)
    grad_x = (right.transpose(1, 2) @ both).view(x.shape)
    grad_weight = (grad_queries @ flat.transpose(1, 2)).sum(0)
    return (laid_out_as(x, grad_x), grad_weight.to(query_weight.dtype),
            grad_queries.sum((0, 2)).to(query_bias.dtype))


def reweight(x: Tensor, kernels: Tensor, dilations: Sequence[int]) -> Tensor:
    """See :func:`cac_mmseg.functional.reweight`."""
    y = torch.empty_like(x)
    for block in _blocks(x):
        features = _groups(x, block)  # [1, n, h, w]
        weights = torch.zeros_like(features)
        for dilation, kernel in _branches(kernels, dilations, features, block):
            weights += _convolve(features, kernel, dilation).sigmoid_()
        torch.mul(x[block], weights.view_as(x[block]), out=y[block])
    return y


def reweight_backward(grad: Tensor, x: Tensor, kernels: Tensor,
                      dilations: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """Return the gradients of x and kernels.

    With S_i the responses, W_i their sigmoids and dS_i = dY X W_i (1 - W_i):
    dX = dY sum_i W_i + sum_i (dS_i convolved with the flipped D_i), and tap t
    of dD_i is the sum over positions of dS_i times X shifted by t.
    """
    grad_x, grad_kernels = torch.empty_like(x), torch.zeros_like(
        kernels, dtype=torch.promote_types(x.dtype, torch.float32))
    sets, s = kernels.shape[1], kernels.shape[4]
    for block in _blocks(x):
        features, grad_y = _groups(x, block), _groups(grad, block)
        product = features * grad_y
        total = torch.zeros_like(features)  # of the weighting maps
        grad_features = torch.zeros_like(features)
        for i, (dilation, kernel) in enumerate(
                _branches(kernels, dilations, features, block)):
            weights = _convolve(features, kernel, dilation).sigmoid_()
            total += weights
            grad_response = torch.ops.aten.sigmoid_backward(product, weights)
            grad_features += _convolve(grad_response, kernel.flip(2, 3),
                                       dilation)
            taps = torch.stack(
                [(grad_response[0, :, here[0], here[1]] *
                  features[0, :, there[0], there[1]]).sum((1, 2))
                 for here, there in _shifts(s, dilation, *features.shape[2:])],
                1)
            branch = grad_kernels[:, i % sets][block]
            branch += taps.view_as(branch)  # a shared set has several
        torch.addcmul(
            *(part.view_as(x[block])
              for part in (grad_features, grad_y, total)),
            out=grad_x[block])
    return grad_x, grad_kernels.to(kernels.dtype)


def _blocks(x: Tensor) -> Iterator[Index]:
    """Slices of images and channels that fit the cache together."""
    b, c, h, w = x.shape
    if x.device.type != 'cpu':
        yield slice(0, b), slice(0, c)
        return
    maps = max(BLOCK_BYTES * torch.get_num_threads() // (h * w * 4), 1)
    images, channels = max(maps // c, 1), min(maps, c)
    for i in range(0, b, images):
        for j in range(0, c, channels):
            yield slice(i, i + images), slice(j, j + channels)


def _groups(x: Tensor, block: Index) -> Tensor:
    """Move the images of a block beside their channels: [1, n, h, w].

    A convolution in as many groups then uses one kernel per image and channel.
    """
    part = x[block].to(torch.promote_types(x.dtype, torch.float32))
    return part.reshape(1, -1, *x.shape[2:])


def _branches(kernels: Tensor, dilations: Sequence[int], features: Tensor,
              block: Index) -> Iterator[Tuple[int, Tensor]]:
    """Each dilation with its kernels, [n, 1, s, s]."""
    s = kernels.shape[4]
    for i, dilation in enumerate(dilations):
        # a single set serves every dilation
        kernel = kernels[:, i % kernels.shape[1]][block]
        yield dilation, kernel.reshape(-1, 1, s, s).to(features.dtype)


def _convolve(features: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    return F.conv2d(
        features,
        kernel,
        padding=dilation * (kernel.shape[2] // 2),
        dilation=dilation,
        groups=features.shape[1])


def _shifts(s: int, dilation: int, h: int,
            w: int) -> Iterator[Tuple[Index, Index]]:
    """For each tap: where it reads inside the map, and what it reads there."""

    def overlap(offset: int, size: int) -> Tuple[slice, slice]:
        # a shift by more than the map leaves nothing of it
        return (slice(max(-offset, 0), max(size - max(offset, 0), 0)),
                slice(max(offset, 0), max(size + min(offset, 0), 0)))

    offsets = [dilation * (j - s // 2) for j in range(s)]
    for rows in [overlap(offset, h) for offset in offsets]:
        for columns in [overlap(offset, w) for offset in offsets]:
            yield (rows[0], columns[0]), (rows[1], columns[1])
