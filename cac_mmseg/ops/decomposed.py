"""Both operations as standard, differentiable PyTorch calls.

They replace the custom operators where those cannot go: in an exported ONNX
graph and in transforms of ``torch.func``. No call fixes batch, height or
width, so an exported graph keeps them dynamic; a grouped convolution would fix
the batch in its number of groups.
"""
from typing import Iterator, List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def pool_queries(x: Tensor, query_weight: Tensor,
                 query_bias: Tensor) -> Tuple[Tensor, Tensor]:
    """See :func:`cac_mmseg.ops.pool_queries`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x = x.to(dtype).flatten(2)  # [b, c, n]
    queries = query_weight.to(dtype) @ x + query_bias.to(dtype)[:, None]
    return queries @ x.transpose(1, 2) / x.shape[2], queries.mean(2)


def shifted(x: Tensor, kernel_size: int, dilation: int) -> Iterator[Tensor]:
    """Yield what each tap of a kernel reads of X (..., H, W), zero padded."""
    h, w = x.shape[-2:]
    padded = F.pad(x, (dilation * (kernel_size // 2), ) * 4)
    for i in range(kernel_size):
        for j in range(kernel_size):
            top, left = i * dilation, j * dilation
            yield padded[..., top:top + h, left:left + w]


def weighting_maps(x: Tensor, kernels: Tensor,
                   dilations: Sequence[int]) -> List[Tensor]:
    """See :func:`cac_mmseg.functional.weighting_maps`: (B, C, H, W) each."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x = x.to(dtype)
    sets, s = kernels.shape[1], kernels.shape[4]
    taps = kernels.to(dtype).flatten(3)[..., None, None]  # [b, g, c, t, 1, 1]
    maps = []
    for i, dilation in enumerate(dilations):
        response = 0
        for t, part in enumerate(shifted(x, s, dilation)):
            response = response + part * taps[:, i % sets, :, t]
        maps.append(response.sigmoid())
    return maps


def reweight(x: Tensor, kernels: Tensor, dilations: Sequence[int]) -> Tensor:
    """See :func:`cac_mmseg.functional.reweight`."""
    maps = weighting_maps(x, kernels, dilations)
    return (x.to(maps[0].dtype) * sum(maps)).to(x.dtype)
