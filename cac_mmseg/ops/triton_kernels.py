"""Re-weighting on a GPU: one Triton kernel forward, three backward.

A program handles a tile of positions by channels. Taps overlap, so each
element of X comes from memory once and from the cache for the other taps;
responses, weighting maps and their sum stay in registers. All strides are
arguments, so that NCHW and channels_last are read and written as they are.
Products and sums run in float32, and no sum depends on the order in which
programs run: the same input gives the same bits.

With M branches of s * s taps, an element costs M * s * s multiply-adds and M
sigmoids forward, and three times that backward.
"""
from typing import Sequence, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .eager import laid_out_as

# Elements of a tile. NCHW has the positions of one channel side by side in
# memory, channels_last the channels of one position.
TILE = 512
CHANNELS_LAST_TILE = (8, 64)


@triton.jit
def _load_tap(ptr, row, column, channel_offset, inside, height, width,
              stride_h, stride_w, t, KERNEL: tl.constexpr, dilation):
    """Values that tap t reads, float32, and zero outside the map."""
    y = row + (t // KERNEL - KERNEL // 2) * dilation
    x = column + (t % KERNEL - KERNEL // 2) * dilation
    there = inside & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return tl.load(
        ptr + channel_offset + y * stride_h + x * stride_w,
        mask=there,
        other=0.).to(tl.float32)


@triton.jit
def _weighting_map(x, kernels, row, column, channel_offset, tap_offset, inside,
                   here, height, width, stride_h, stride_w,
                   KERNEL: tl.constexpr, dilation):
    """The sigmoid of one branch's response; kernels of one set, tap first."""
    response = tl.zeros(inside.shape, tl.float32)
    for t in tl.static_range(KERNEL * KERNEL):
        value = _load_tap(x, row, column, channel_offset, inside, height,
                          width, stride_h, stride_w, t, KERNEL, dilation)
        tap = tl.load(kernels + tap_offset + t, mask=here, other=0.)
        response += value * tap.to(tl.float32)
    return tl.sigmoid(response)


@triton.jit
def _tile(start, channels, height, width, stride_c, POSITIONS: tl.constexpr,
          CHANNELS: tl.constexpr):
    """Rows, columns, channels and mask of a tile: [positions, channels]."""
    position = start + tl.arange(0, POSITIONS)[:, None]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    here = channel < channels
    inside = (position < height * width) & here
    return (position // width, position % width, channel, here, inside,
            channel.to(tl.int64) * stride_c)


@triton.jit
def _forward(x, kernels, y, channels, height, width, x_b, x_c, x_h, x_w,
             SETS: tl.constexpr, DILATIONS: tl.constexpr, KERNEL: tl.constexpr,
             POSITIONS: tl.constexpr, CHANNELS: tl.constexpr):
    image = tl.program_id(2).to(tl.int64)
    row, column, channel, here, inside, offset = _tile(
        tl.program_id(0) * POSITIONS, channels, height, width, x_c, POSITIONS,
        CHANNELS)
    x += image * x_b
    weights = tl.zeros(inside.shape, tl.float32)
    for i in tl.static_range(len(DILATIONS)):
        taps = (
            (image * SETS + i % SETS) * channels + channel) * KERNEL * KERNEL
        weights += _weighting_map(x, kernels, row, column, offset, taps,
                                  inside, here, height, width, x_h, x_w,
                                  KERNEL, DILATIONS[i])
    place = offset + row * x_h + column * x_w
    value = tl.load(x + place, mask=inside, other=0.).to(tl.float32)
    tl.store(
        y + image * x_b + place, (value * weights).to(y.dtype.element_ty),
        mask=inside)


@triton.jit
def _backward_responses(grad, x, kernels, grad_responses, total, channels,
                        height, width, x_b, x_c, x_h, x_w, SETS: tl.constexpr,
                        DILATIONS: tl.constexpr, KERNEL: tl.constexpr,
                        POSITIONS: tl.constexpr, CHANNELS: tl.constexpr):
    """dS_i = dY X W_i (1 - W_i) of each branch, and dY sum_i W_i."""
    image = tl.program_id(2).to(tl.int64)
    row, column, channel, here, inside, offset = _tile(
        tl.program_id(0) * POSITIONS, channels, height, width, x_c, POSITIONS,
        CHANNELS)
    place = image * x_b + offset + row * x_h + column * x_w
    outer = tl.load(grad + place, mask=inside, other=0.).to(tl.float32)
    product = outer * tl.load(x + place, mask=inside, other=0.).to(tl.float32)
    weights = tl.zeros(inside.shape, tl.float32)
    for i in tl.static_range(len(DILATIONS)):
        taps = (
            (image * SETS + i % SETS) * channels + channel) * KERNEL * KERNEL
        weight = _weighting_map(x + image * x_b, kernels, row, column, offset,
                                taps, inside, here, height, width, x_h, x_w,
                                KERNEL, DILATIONS[i])
        weights += weight
        # branch by branch, each laid out as x
        tl.store(
            grad_responses + tl.num_programs(2).to(tl.int64) * i * x_b + place,
            product * weight * (1 - weight),
            mask=inside)
    tl.store(total + place, outer * weights, mask=inside)


@triton.jit
def _backward_input(grad_responses, total, kernels, grad_x, channels, height,
                    width, x_b, x_c, x_h, x_w, SETS: tl.constexpr,
                    DILATIONS: tl.constexpr, KERNEL: tl.constexpr,
                    POSITIONS: tl.constexpr, CHANNELS: tl.constexpr):
    """dX: each dS_i convolved with its flipped kernels, and dY sum_i W_i."""
    image = tl.program_id(2).to(tl.int64)
    row, column, channel, here, inside, offset = _tile(
        tl.program_id(0) * POSITIONS, channels, height, width, x_c, POSITIONS,
        CHANNELS)
    place = image * x_b + offset + row * x_h + column * x_w
    result = tl.load(total + place, mask=inside, other=0.)
    for i in tl.static_range(len(DILATIONS)):
        branch = grad_responses + (tl.num_programs(2) * i + image) * x_b
        taps = (
            (image * SETS + i % SETS) * channels + channel) * KERNEL * KERNEL
        for t in tl.static_range(KERNEL * KERNEL):
            value = _load_tap(branch, row, column, offset, inside, height,
                              width, x_h, x_w, KERNEL * KERNEL - 1 - t, KERNEL,
                              DILATIONS[i])
            tap = tl.load(kernels + taps + t, mask=here, other=0.)
            result += value * tap.to(tl.float32)
    tl.store(grad_x + place, result.to(grad_x.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernels(grad_responses, x, grad_kernels, channels, height, width,
                      x_b, x_c, x_h, x_w, DILATIONS: tl.constexpr,
                      KERNEL: tl.constexpr, TAPS: tl.constexpr,
                      POSITIONS: tl.constexpr, CHANNELS: tl.constexpr):
    """Each tap's sum over all positions of dS_i times X at the tap.

    One program has all positions of its channels: nothing is left to add.
    """
    i = tl.program_id(0)
    image = tl.program_id(2).to(tl.int64)
    dilation = 0
    for j in tl.static_range(len(DILATIONS)):
        dilation = tl.where(i == j, DILATIONS[j], dilation)
    branch = grad_responses + (tl.num_programs(2) * i + image) * x_b
    tap = tl.arange(0, TAPS)[:, None]  # a power of two >= s * s
    sums = tl.zeros((TAPS, CHANNELS), tl.float32)
    for start in range(0, height * width, POSITIONS):
        row, column, channel, here, inside, offset = _tile(
            start, channels, height, width, x_c, POSITIONS, CHANNELS)
        outer = tl.load(
            branch + offset + row * x_h + column * x_w, mask=inside, other=0.)
        for t in tl.static_range(KERNEL * KERNEL):
            value = _load_tap(x + image * x_b, row, column, offset, inside,
                              height, width, x_h, x_w, t, KERNEL, dilation)
            total = tl.sum(outer * value, axis=0)[None, :]
            sums += tl.where(tap == t, total, 0.)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    place = (
        (image * len(DILATIONS) + i) * channels + channel) * KERNEL * KERNEL
    tl.store(
        grad_kernels + place + tap,
        sums,
        mask=(channel < channels) & (tap < KERNEL * KERNEL))


def reweight(x: Tensor, kernels: Tensor, dilations: Sequence[int]) -> Tensor:
    """See :func:`cac_mmseg.functional.reweight`."""
    given = x
    x, tile, grid = _prepare(x)
    y = torch.empty_like(x)
    with torch.cuda.device_of(x):
        _forward[grid](x, kernels.contiguous(), y,
                       *x.shape[1:], *x.stride(), kernels.shape[1],
                       tuple(dilations), kernels.shape[4], *tile)
    return laid_out_as(given, y)


def reweight_backward(grad: Tensor, x: Tensor, kernels: Tensor,
                      dilations: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """See :func:`cac_mmseg.ops.eager.reweight_backward`."""
    given = x
    x, tile, grid = _prepare(x)
    b, c = x.shape[:2]
    sets, s = kernels.shape[1], kernels.shape[4]
    branches = len(dilations)
    if grad.stride() != x.stride():
        grad = torch.empty_like(x).copy_(grad)
    kernels = kernels.contiguous()
    grad_responses = x.new_empty_strided((branches * b, *x.shape[1:]),
                                         x.stride(),
                                         dtype=torch.float32)
    total = torch.empty_like(x, dtype=torch.float32)
    grad_x = torch.empty_like(x)
    grad_kernels = x.new_empty((b, branches, c, s, s), dtype=torch.float32)
    sizes = (*x.shape[1:], *x.stride())
    settings = (sets, tuple(dilations), s, *tile)
    with torch.cuda.device_of(x):
        _backward_responses[grid](grad, x, kernels, grad_responses, total,
                                  *sizes, *settings)
        _backward_input[grid](grad_responses, total, kernels, grad_x, *sizes,
                              *settings)
        _backward_kernels[(branches, *grid[1:])](grad_responses, x,
                                                 grad_kernels, *sizes,
                                                 tuple(dilations), s,
                                                 triton.next_power_of_2(s * s),
                                                 *tile)
    if sets == 1:
        grad_kernels = grad_kernels.sum(1, keepdim=True)
    return laid_out_as(given, grad_x), grad_kernels.to(kernels.dtype)


def _prepare(x: Tensor) -> Tuple[Tensor, Tuple[int, int], Tuple[int, ...]]:
    """Make x dense, and choose the tile and the grid for its layout."""
    b, c, h, w = x.shape
    if x.is_contiguous():
        tile = (TILE, 1)
    elif x.is_contiguous(memory_format=torch.channels_last):
        tile = CHANNELS_LAST_TILE
    else:
        x, tile = x.contiguous(), (TILE, 1)
    return x, tile, (triton.cdiv(h * w, tile[0]), triton.cdiv(c, tile[1]), b)
