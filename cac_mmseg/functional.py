"""The maths of context-adaptive convolution, in pure PyTorch.

Source: J. Liu et al., "Learning to Predict Context-adaptive Convolution for
Semantic Segmentation", ECCV 2020 (arXiv 2004.08222). No code was consulted.

Notation, as in the paper: ``B`` images, ``C`` channels, ``N = H * W``
positions, ``G`` kernel sets, ``s`` the kernel size. A feature map X is
(B, C, H, W); X' is the same with the positions flattened. Arguments that do
not fit raise a ``TypeError`` or ``ValueError`` that names them.
"""
from typing import Sequence

import torch
from torch import Tensor

from . import ops
from .checks import (check_branches, check_feature_map, check_kernel_size,
                     check_operand)
from .ops import decomposed
from .ops.choice import no_autocast


def predict_kernels(x: Tensor, query_weight: Tensor, query_bias: Tensor,
                    key_weight: Tensor, key_bias: Tensor,
                    kernel_size: int) -> Tensor:
    r"""Predict depth-wise kernels from the global context of each image.

    With the queries :math:`Q = W_q X' + b_q` and, for set g, the keys
    :math:`K_g = W_{k,g} X' + b_{k,g}`, tap t of set g in channel c is

    .. math:: D_{g,c,t} = \frac{1}{N} \sum_{n=1}^{N} Q_{g,t,n} K_{g,c,n}

    The mean in place of the paper's sum is our choice: batch normalisation,
    which follows, removes the factor in training, and in evaluation it makes
    the kernels independent of the image's size.

    The keys are linear in X, so :math:`D_g = (Q_g X'^T / N) W_{k,g}^T +
    \bar Q_g b_{k,g}^T`: the key map is never made, and C * C is multiplied
    with s * s rows instead of N.

    Args:
        x: Feature map X, (B, C, H, W).
        query_weight: (G * s * s, C), set-major: all taps of set 0 first.
        query_bias: (G * s * s,).
        key_weight: (G, C, C) as (set, out, in).
        key_bias: (G, C).
        kernel_size: s, odd.

    Returns:
        Kernels before normalisation, (B, G, C, s, s), in the dtype of
        ``key_weight``. Sums run in float32 at least, also under autocast.

    Example:
        >>> kernels = predict_kernels(
        ...     torch.rand(2, 8, 16, 32), torch.rand(27, 8), torch.rand(27),
        ...     torch.rand(3, 8, 8), torch.rand(3, 8), kernel_size=3)
        >>> tuple(kernels.shape)
        (2, 3, 8, 3, 3)
    """
    taps = check_kernel_size(kernel_size)**2
    check_feature_map(x)
    b, c, h, w = x.shape
    check_operand('key_weight', key_weight, '(G, C, C)', (None, c, c), x)
    sets = key_weight.shape[0]
    check_operand('key_bias', key_bias, '(G, C)', (sets, c), x)
    check_operand('query_weight', query_weight, '(G * s * s, C)',
                  (sets * taps, c), x)
    check_operand('query_bias', query_bias, '(G * s * s,)', (sets * taps, ), x)

    pooled, mean = ops.pool_queries(x, query_weight, query_bias)
    with no_autocast(x):
        # images beside their taps, so that key_weight is not repeated
        rows = pooled.view(b, sets, taps, c).transpose(0, 1).flatten(1, 2)
        means = mean.view(b, sets, taps).transpose(0, 1).flatten(1)
        bias = means.unsqueeze(2) * key_bias.to(means.dtype).unsqueeze(1)
        # not baddbmm, of which mmengine's analysis counts twice as much
        kernels = torch.bmm(rows, key_weight.to(rows.dtype).transpose(1, 2))
        kernels = kernels + bias  # [g, b * taps, c]
    kernels = kernels.to(key_weight.dtype).view(sets, b, taps, c)
    # compiled batch normalisation expects the usual strides
    kernels = kernels.permute(1, 0, 3, 2).contiguous()
    return kernels.view(b, sets, c, kernel_size, kernel_size)


def reweight(x: Tensor, kernels: Tensor, dilations: Sequence[int]) -> Tensor:
    r"""Scale a feature map by the spatially varying weights of its kernels.

    .. math:: Y = X \odot \sum_i \sigma(X *_{r_i} D_i)

    where :math:`*_{r}` is the depth-wise convolution of each image with its
    own kernels at dilation r, zero padded to the same size: a sigmoid on each
    branch, then the sum, as in the paper's framework figure.

    Args:
        x: Feature map X, (B, C, H, W).
        kernels: (B, G, C, s, s), s odd, G either ``len(dilations)`` or 1: one
            set shared by all dilations.
        dilations: The dilation r_i of each branch.

    Returns:
        Y, (B, C, H, W), in the dtype of ``x``. Products and sums run in
        float32 at least, also under autocast.

    Example:
        >>> x, kernels = torch.rand(2, 8, 16, 32), torch.zeros(2, 3, 8, 3, 3)
        >>> bool((reweight(x, kernels, (1, 3, 5)) == 1.5 * x).all())
        True
    """
    return ops.reweight(x, kernels, check_branches(x, kernels, dilations))


def weighting_maps(x: Tensor, kernels: Tensor,
                   dilations: Sequence[int]) -> Tensor:
    r"""Return the weights :math:`W_i = \sigma(X *_{r_i} D_i)` of each branch.

    For visualisation: :func:`reweight` of the same arguments is X times their
    sum over branches.

    Returns:
        (B, ``len(dilations)``, C, H, W), between 0 and 1, in float32 at least.
    """
    dilations = check_branches(x, kernels, dilations)
    return torch.stack(decomposed.weighting_maps(x, kernels, dilations), 1)
