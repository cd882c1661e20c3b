"""Both operations in plain PyTorch calls, forward and backward, any device.

On a CPU the feature map is worked on block by block, so that temporaries stay
in the cache, and in channels_last, PyTorch's fast case of a depth-wise
convolution.
"""
from typing import Iterator, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .decomposed import pool_queries  # noqa: F401 nothing of it is saved here

# Per thread and temporary. Of 1/2 to 4 MiB, 1 MiB was fastest or near it in a
# training step (32 x 64 positions, 2 threads, 1 MiB of L2 cache each).
BLOCK_BYTES = 2**20

Index = Tuple[slice, slice]


def laid_out_as(x: Tensor, result: Tensor) -> Tensor:
    """Return result in the dtype and the strides of x."""
    if result.dtype == x.dtype and result.stride() == x.stride():
        return result
    return torch.empty_like(x).copy_(result)


def pool_queries_backward(
        grad_pooled: Tensor,
        grad_mean: Tensor,
        x: Tensor,
        query_weight: Tensor,
        query_bias: Tensor,
        grad_x: Optional[Tensor] = None) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, query_weight and query_bias.

    With P = Q X'^T / N and m = mean(Q):
    dQ = (dP X' + dm 1^T) / N and dX' = dP^T Q / N + W_q^T dQ, which is added
    to grad_x in place, if that is given.
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
    result = (right.transpose(1, 2) @ both).view(x.shape)
    result = laid_out_as(x, result) if grad_x is None else grad_x.add_(result)
    grad_weight = (grad_queries @ flat.transpose(1, 2)).sum(0)
    return (result, laid_out_as(query_weight, grad_weight),
            laid_out_as(query_bias, grad_queries.sum((0, 2))))


def reweight(x: Tensor, kernels: Tensor, dilations: Sequence[int]) -> Tensor:
    """See :func:`cac_mmseg.functional.reweight`."""
    y = torch.empty_like(x)
    for block in _blocks(x):
        features = _groups(x, block)  # [1, n, h, w]
        weights = torch.zeros_like(features)
        for dilation, kernel in _branches(kernels, dilations, features, block):
            weights += _convolve(features, kernel, dilation).sigmoid_()
        _put(y[block], weights.mul_(features))
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
            taps = _tap_sums(grad_response, features, dilation, s)
            branch = grad_kernels[:, i % sets][block]
            branch += taps.view_as(branch)  # a shared set has several
        _put(grad_x[block], grad_features.addcmul_(grad_y, total))
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
    """Fold the images of a block into channels: [1, n, h, w].

    A convolution in n groups then uses one kernel per image and channel.
    """
    part = x[block].to(torch.promote_types(x.dtype, torch.float32))
    h, w = x.shape[2:]
    if x.device.type != 'cpu':
        return part.reshape(1, -1, h, w)
    # in channels_last, a depth-wise convolution takes half the time, and no
    # memory but for its result
    matrix = part.reshape(-1, h * w).t().contiguous()
    return matrix.view(1, h, w, -1).permute(0, 3, 1, 2)


def _put(part: Tensor, groups: Tensor) -> None:
    """Write a block's result, [1, n, h, w], to its place in a feature map."""
    matrix = groups[0].flatten(1)
    if part.is_contiguous():
        part = part.view(matrix.shape)  # transposing a matrix is fastest
    part.copy_(matrix.view(part.shape))


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


def _tap_sums(grad: Tensor, features: Tensor, dilation: int, s: int) -> Tensor:
    """For each tap, the sum over positions of grad times what it reads.

    The gradient of a depth-wise convolution's kernels, [n, 1, s, s].
    """
    if grad.device.type == 'cpu' and dilation > 1:
        # only without dilation is PyTorch's own fast on a CPU
        grad, features = (
            _phases(maps, min(dilation, max(grad.shape[2:])))
            for maps in (grad, features))
        dilation = 1
    n = features.shape[1]
    return torch.ops.aten.convolution_backward(grad, features,
                                               features.new_empty(n, 1, s, s),
                                               None, [1, 1],
                                               [dilation * (s // 2)] * 2,
                                               [dilation] * 2, False, [0, 0],
                                               n, [False, True, False])[1]


def _phases(maps: Tensor, dilation: int) -> Tensor:
    """Split maps, [1, n, h, w], into images that a dilation never mixes.

    Positions of equal remainder by the dilation r make one image each:
    [r * r, n, ceil(h / r), ceil(w / r)], channels_last.
    """
    n, h, w = maps.shape[1:]
    maps = F.pad(maps, (0, -w % dilation, 0, -h % dilation))
    maps = maps.permute(0, 2, 3, 1)  # [1, h, w, n]
    maps = maps.unflatten(2, (-1, dilation)).unflatten(1, (-1, dilation))
    maps = maps[0].permute(1, 3, 0, 2, 4).flatten(0, 1)
    return maps.contiguous().permute(0, 3, 1, 2)
