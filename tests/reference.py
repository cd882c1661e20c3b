"""Context-adaptive convolution as the paper words it: slow, float64, literal.

Loops and scalars only, no reassociation, so that a reader can hold it against
the equations. ``BatchNorm`` included, as :class:`CaCModule` needs it.
"""
import math
from typing import Sequence

import torch
from torch import Tensor


def predict_kernels(x: Tensor, query_weight: Tensor, query_bias: Tensor,
                    key_weight: Tensor, key_bias: Tensor,
                    kernel_size: int) -> Tensor:
    """D[b, g, c, i, j] = mean over positions of query map times key map."""
    x, query_weight, query_bias, key_weight, key_bias = (
        t.double()
        for t in (x, query_weight, query_bias, key_weight, key_bias))
    b, c, h, w = x.shape
    s, sets = kernel_size, key_weight.shape[0]
    out = torch.zeros(b, sets, c, s, s, dtype=torch.float64)
    queries = _conv1x1(x, query_weight, query_bias)
    for g in range(sets):
        keys = _conv1x1(x, key_weight[g], key_bias[g])
        for n in range(b):
            for channel in range(c):
                for i in range(s):
                    for j in range(s):
                        query = queries[n, g * s * s + i * s + j]
                        total = 0.
                        for row in range(h):
                            for col in range(w):
                                total += float(query[row, col] *
                                               keys[n, channel, row, col])
                        out[n, g, channel, i, j] = total / (h * w)
    return out


def _conv1x1(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each output map is a weighted sum of the input maps and its bias."""
    b, c, h, w = x.shape
    out = torch.zeros(b, len(weight), h, w, dtype=torch.float64)
    for n in range(b):
        for o in range(len(weight)):
            out[n, o] += bias[o]
            for k in range(c):
                out[n, o] += weight[o, k] * x[n, k]
    return out


def batch_norm(kernels: Tensor, eps: float) -> Tensor:
    """Training-mode BN of (B, G, C, ...) by set and channel, no affine."""
    kernels = kernels.double()
    out = torch.empty_like(kernels)
    for g in range(kernels.shape[1]):
        for channel in range(kernels.shape[2]):
            values = kernels[:, g, channel]
            variance = ((values - values.mean())**2).mean()
            out[:, g,
                channel] = (values -
                            values.mean()) / math.sqrt(float(variance) + eps)
    return out


def weighting_map(x: Tensor, kernels: Tensor,
                  dilations: Sequence[int]) -> Tensor:
    """W[b, c, y, x] = sum over branches of the sigmoid of the convolution."""
    x, kernels = x.double(), kernels.double()
    b, c, h, w = x.shape
    s, sets = kernels.shape[-1], kernels.shape[1]
    out = torch.zeros(b, c, h, w, dtype=torch.float64)
    for n in range(b):
        for branch, dilation in enumerate(dilations):
            g = branch if sets > 1 else 0
            for channel in range(c):
                for row in range(h):
                    for col in range(w):
                        score = 0.
                        for i in range(s):
                            for j in range(s):
                                y = row + (i - s // 2) * dilation
                                z = col + (j - s // 2) * dilation
                                if 0 <= y < h and 0 <= z < w:
                                    score += float(
                                        kernels[n, g, channel, i, j] *
                                        x[n, channel, y, z])
                        out[n, channel, row, col] += 1 / (1 + math.exp(-score))
    return out


def reweight(x: Tensor, kernels: Tensor, dilations: Sequence[int]) -> Tensor:
    """Y = X * W."""
    return x.double() * weighting_map(x, kernels, dilations)


def cac_module(module, x: Tensor, dilations: Sequence[int],
               eps: float) -> Tensor:
    """A CaCModule in training mode, of its parameters."""
    c, x = module.in_channels, x.detach()
    kernels = predict_kernels(x,
                              module.query.weight.detach().view(-1, c),
                              module.query.bias.detach(),
                              module.key.weight.detach().view(-1, c, c),
                              module.key.bias.detach().view(-1, c),
                              module.kernel_size)
    return reweight(x, batch_norm(kernels, eps), dilations)


def full_weighting_map(x: Tensor, kernels: Tensor,
                       dilations: Sequence[int]) -> Tensor:
    """As ``weighting_map``, with full kernels (B, G, C, C, s, s)."""
    b, c, h, w = x.shape
    x, kernels = x.double(), kernels.double()
    s, sets = kernels.shape[-1], kernels.shape[1]
    out = torch.zeros(b, c, h, w, dtype=torch.float64)
    for branch, dilation in enumerate(dilations):
        g = branch if sets > 1 else 0
        scores = torch.zeros(b, c, h, w, dtype=torch.float64)
        for n in range(b):
            for o in range(c):
                for k in range(c):
                    for i in range(s):
                        for j in range(s):
                            for row in range(h):
                                for col in range(w):
                                    y = row + (i - s // 2) * dilation
                                    z = col + (j - s // 2) * dilation
                                    if 0 <= y < h and 0 <= z < w:
                                        scores[n, o, row, col] += (
                                            kernels[n, g, o, k, i, j] *
                                            x[n, k, y, z])
        out += 1 / (1 + (-scores).exp())
    return out


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare, relative to the largest value, with what was computed exactly.
    """
    assert actual.shape == expected.shape
    error = (actual.double() - expected).abs().max()
    # what is summed is about 1, even where the sum happens to vanish
    scale = expected.abs().max().clamp(min=1)
    assert error <= tolerance * scale, (error / scale).item()
