"""What the queries see, on a GPU: a Triton kernel forward, one backward.

Queries Q = W X + b are needed for their products with X, and so for each
position once. A program takes a block of positions with all channels: X comes
from memory for Q, and from the cache for Q X^T, where two matrix products on
the full map read it twice. With S the
bytes of X, forward moves 1 S and backward 2 S: X, and dX. The sums of a
program, 4 R C bytes, stay in the cache; those of all are added in a fixed
order: the same input gives the same bits.

Rows of W, the queries, are taken 32 at a time: 27 are those of one head with
s = 3 and three kernel sets. More of them read X again, from the cache if it
fits. Products are of 3 x TF32, which is float32 but for its last bits.
"""
from typing import Callable, Iterable, List, Optional, Sequence, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import cdiv, launch, processors, shared_memory
from .eager import laid_out_as

ROWS = 32  # queries at a time
CHANNELS = 64  # of a part of a block
SHARED_MEMORY = 2**17  # bytes that backward needs for them, in float32
FEW_CHANNELS = 32  # of a part, on a GPU with less
POSITIONS = 64  # of a block
WARPS = 8


@triton.jit
def _load_part(x, position, positions, channels, x_c, x_n, k,
               CHANNELS_: tl.constexpr):
    """Part k of the channels of a block of positions, as it is stored."""
    channel = k * CHANNELS_ + tl.arange(0, CHANNELS_)[:, None]
    place = channel.to(tl.int64) * x_c + position[None, :] * x_n
    inside = (channel < channels) & (position < positions)[None, :]
    return tl.load(x + place, mask=inside, other=0.)


@triton.jit
def _load_matrix(matrix, row, rows, channels, k, CHANNELS_: tl.constexpr):
    """Part k of the columns of a matrix (R, C)."""
    channel = k * CHANNELS_ + tl.arange(0, CHANNELS_)
    return tl.load(
        matrix + row[:, None] * channels + channel[None, :],
        mask=(row < rows)[:, None] & (channel < channels)[None, :],
        other=0.).to(tl.float32)


@triton.jit
def _add_product(sums, place, queries, part, row, rows, channels, k,
                 CHANNELS_: tl.constexpr):
    """Add Q X^T of part k to what is kept for each row."""
    channel = k * CHANNELS_ + tl.arange(0, CHANNELS_)
    target = sums + place[:, None] * channels + channel[None, :]
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
    product = tl.load(target, mask=inside, other=0.)
    product = tl.dot(
        queries, tl.trans(part), product, input_precision='tf32x3')
    tl.store(target, product, mask=inside)


@triton.jit
def _pool(x, weight, bias, sums, means, rows, channels, positions, blocks_each,
          x_b, x_c, x_n, PARTS: tl.constexpr, ROWS_: tl.constexpr,
          CHANNELS_: tl.constexpr, POSITIONS_: tl.constexpr):
    """Sums over the blocks of a program: of Q X^T, and of Q."""
    image = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, ROWS_)
    lane = tl.arange(0, POSITIONS_)
    offset = tl.load(bias + row, mask=row < rows, other=0.).to(tl.float32)
    mean = tl.zeros((ROWS_, ), tl.float32)
    place = (tl.program_id(0) * tl.num_programs(1) + image) * rows + row
    first = tl.program_id(0) * blocks_each * POSITIONS_
    last = min(first + blocks_each * POSITIONS_, positions)
    for start in range(first, last, POSITIONS_):
        tl.debug_barrier()  # the sums may be read by other threads
        position = start + lane
        queries = tl.zeros((ROWS_, POSITIONS_), tl.float32)
        for k in range(PARTS):
            part = _load_part(x + image * x_b, position, positions, channels,
                              x_c, x_n, k, CHANNELS_).to(tl.float32)
            w = _load_matrix(weight, row, rows, channels, k, CHANNELS_)
            queries = tl.dot(w, part, queries, input_precision='tf32x3')
        queries = tl.where((position < positions)[None, :],
                           queries + offset[:, None], 0.)
        mean += tl.sum(queries, 1)
        for k in range(PARTS):  # of the cache now
            part = _load_part(x + image * x_b, position, positions, channels,
                              x_c, x_n, k, CHANNELS_).to(tl.float32)
            _add_product(sums, place, queries, part, row, rows, channels, k,
                         CHANNELS_)
    tl.store(means + place, mean, mask=row < rows)


@triton.jit
def _pool_backward(x, weight, bias, grad_pooled, grad_mean, grad_x, sums,
                   bias_sums, rows, channels, positions, blocks_each, x_b, x_c,
                   x_n, ADD: tl.constexpr, PARTS: tl.constexpr,
                   ROWS_: tl.constexpr, CHANNELS_: tl.constexpr,
                   POSITIONS_: tl.constexpr):
    """dX of the blocks of a program, and their sums of dQ X^T and of dQ.

    grad_pooled and grad_mean are divided by the number of positions.
    """
    image = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, ROWS_)
    lane = tl.arange(0, POSITIONS_)
    offset = tl.load(bias + row, mask=row < rows, other=0.).to(tl.float32)
    of_mean = tl.load(
        grad_mean + image * rows + row, mask=row < rows, other=0.)
    grad_pooled += image * rows * channels
    bias_sum = tl.zeros((ROWS_, ), tl.float32)
    place = (tl.program_id(0) * tl.num_programs(1) + image) * rows + row
    first = tl.program_id(0) * blocks_each * POSITIONS_
    last = min(first + blocks_each * POSITIONS_, positions)
    for start in range(first, last, POSITIONS_):
        tl.debug_barrier()  # the sums may be read by other threads
        position = start + lane
        there = (position < positions)[None, :]
        queries = tl.zeros((ROWS_, POSITIONS_), tl.float32)
        grad_queries = tl.zeros((ROWS_, POSITIONS_), tl.float32)
        for k in range(PARTS):
            part = _load_part(x + image * x_b, position, positions, channels,
                              x_c, x_n, k, CHANNELS_).to(tl.float32)
            w = _load_matrix(weight, row, rows, channels, k, CHANNELS_)
            queries = tl.dot(w, part, queries, input_precision='tf32x3')
            g = _load_matrix(grad_pooled, row, rows, channels, k, CHANNELS_)
            grad_queries = tl.dot(
                g, part, grad_queries, input_precision='tf32x3')
        queries += offset[:, None]
        grad_queries = tl.where(there, grad_queries + of_mean[:, None], 0.)
        bias_sum += tl.sum(grad_queries, 1)
        for k in range(PARTS):
            part = _load_part(x + image * x_b, position, positions, channels,
                              x_c, x_n, k, CHANNELS_).to(tl.float32)
            _add_product(sums, place, grad_queries, part, row, rows, channels,
                         k, CHANNELS_)
            w = _load_matrix(weight, row, rows, channels, k, CHANNELS_)
            g = _load_matrix(grad_pooled, row, rows, channels, k, CHANNELS_)
            result = tl.dot(tl.trans(g), queries, input_precision='tf32x3')
            result = tl.dot(
                tl.trans(w), grad_queries, result, input_precision='tf32x3')
            channel = k * CHANNELS_ + tl.arange(0, CHANNELS_)[:, None]
            target = (
                grad_x + image * x_b + channel.to(tl.int64) * x_c +
                position[None, :] * x_n)
            inside = (channel < channels) & there
            if ADD:
                result += tl.load(target, mask=inside, other=0.)
            tl.store(target, result.to(grad_x.dtype.element_ty), mask=inside)
    tl.store(bias_sums + place, bias_sum, mask=row < rows)


def pool_queries(x: Tensor, query_weight: Tensor,
                 query_bias: Tensor) -> Tuple[Tensor, Tensor]:
    """See :func:`cac_mmseg.ops.pool_queries`."""
    return run(_pool, _tiles(x), x, query_weight, query_bias)


def run(kernel: Callable, tiles: dict, x: Tensor, query_weight: Tensor,
        query_bias: Tensor) -> Tuple[Tensor, Tensor]:
    """Pool queries by a kernel with the arguments of :func:`_pool`."""
    x = _dense(x)
    b, c, h, w = x.shape
    pooled, means = [], []
    programs, blocks_each = _division(x, tiles['POSITIONS_'])
    for weight, bias in _by_rows(0, query_weight, query_bias):
        r = weight.shape[0]
        sums = x.new_zeros((programs, b, r, c), dtype=torch.float32)
        mean = x.new_empty((programs, b, r), dtype=torch.float32)
        launch(kernel, (programs, b), x, weight, bias, sums, mean, r, c, h * w,
               blocks_each, *_strides(x), **tiles)
        pooled.append(sums.sum(0))
        means.append(mean.sum(0))
    return _join(pooled, 1).div_(h * w), _join(means, 1).div_(h * w)


def pool_queries_backward(
        grad_pooled: Tensor,
        grad_mean: Tensor,
        x: Tensor,
        query_weight: Tensor,
        query_bias: Tensor,
        grad_x: Optional[Tensor] = None) -> Tuple[Tensor, Tensor, Tensor]:
    """See :func:`cac_mmseg.ops.eager.pool_queries_backward`."""
    return run_backward(_pool_backward, _tiles(x), grad_pooled, grad_mean, x,
                        query_weight, query_bias, grad_x)


def run_backward(
    kernel: Callable,
    tiles: dict,
    grad_pooled: Tensor,
    grad_mean: Tensor,
    x: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    grad_x: Optional[Tensor] = None,
    prepare: Callable[[Tensor], Tensor] = lambda matrix: matrix
) -> Tuple[Tensor, Tensor, Tensor]:
    """Differentiate by a kernel with the arguments of :func:`_pool_backward`.

    It gets W and dP / N as ``prepare`` returns them.
    """
    given, x = x, _dense(x)
    b, c, h, w = x.shape
    several = query_weight.shape[0] > ROWS
    adds = (
        grad_x is not None and not several and grad_x.dtype == x.dtype
        and grad_x.stride() == x.stride())
    result = grad_x if adds else torch.empty_like(
        x, dtype=torch.float32 if several else x.dtype)
    of_weight, of_bias = [], []
    programs, blocks_each = _division(x, tiles['POSITIONS_'])
    start = 0
    of_queries = _by_rows(0, query_weight, query_bias)
    of_sums = _by_rows(1, grad_pooled.float(), grad_mean.float())
    for (weight, bias), grads in zip(of_queries, of_sums):
        r = weight.shape[0]
        of_pooled, of_mean = (grad / (h * w) for grad in grads)
        sums = x.new_zeros((programs, b, r, c), dtype=torch.float32)
        bias_sums = x.new_empty((programs, b, r), dtype=torch.float32)
        launch(
            kernel, (programs, b),
            x,
            prepare(weight),
            bias,
            prepare(of_pooled),
            of_mean,
            result,
            sums,
            bias_sums,
            r,
            c,
            h * w,
            blocks_each,
            *_strides(x),
            ADD=start > 0 or adds,
            **tiles)
        of_weight.append(sums.sum((0, 1)))
        of_bias.append(bias_sums.sum((0, 1)))
        start += r
    if not adds:
        result = laid_out_as(given, result)
        if grad_x is not None:
            result = grad_x.add_(result)
    return (result, laid_out_as(query_weight, _join(of_weight)),
            laid_out_as(query_bias, _join(of_bias)))


def _join(parts: List[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _dense(x: Tensor) -> Tensor:
    """Return x with its positions evenly spaced."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()


def _strides(x: Tensor) -> Tuple[int, int, int]:
    """Return those of images, channels and positions."""
    # not x.stride(3): a dimension of size 1 can have any
    return x.stride(0), x.stride(1), 1 if x.is_contiguous() else x.shape[1]


def _by_rows(dim: int, *tensors: Tensor) -> Iterable[Sequence[Tensor]]:
    """Return parts of at most ROWS queries, which most modules have."""
    tensors = tuple(t.contiguous() for t in tensors)
    if tensors[0].shape[dim] <= ROWS:
        return [tensors]
    return zip(*(t.split(ROWS, dim) for t in tensors))


def _division(x: Tensor, positions: int) -> Tuple[int, int]:
    """Return programs for each image, and blocks of positions for each."""
    blocks = cdiv(x.shape[2] * x.shape[3], positions)
    each = cdiv(blocks, max(processors(x.device) // x.shape[0], 1))
    return cdiv(blocks, each), each


def _tiles(x: Tensor) -> dict:
    channels = CHANNELS
    if shared_memory(x.device) < SHARED_MEMORY:
        channels = FEW_CHANNELS
    return dict(
        PARTS=cdiv(x.shape[1], channels),
        ROWS_=ROWS,
        CHANNELS_=channels,
        POSITIONS_=POSITIONS,
        num_warps=WARPS)
