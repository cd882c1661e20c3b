"""What the queries see, of a feature map in bfloat16: it is not converted.

Tensor cores multiply bfloat16 in full and add in float32. X enters them as it
is; W, Q and their gradients, in float32, as sums of three parts in bfloat16,
which are 24 bits together. A product with X is then three of bfloat16, where
:mod:`.triton_pooling` has three of TF32, at half the rate, and converts all
operands before.

Forward takes a block of positions with all channels, so that X is read once,
and keeps its sums in registers. Backward, with two products more, takes them
part by part as :mod:`.triton_pooling` does. dX is rounded to bfloat16: the two
larger parts are enough for it.

Other feature maps are left to :mod:`.triton_pooling`: float16 has too few
exponents for parts of Q, and float32 would be three parts, too.
"""
from typing import Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import triton_pooling
from .device import cdiv, launch, next_power_of_2, shared_memory
from .triton_pooling import ROWS, _load_matrix, _load_part

POSITIONS = 64  # of a block, with all channels
FEW_POSITIONS = 32  # on a GPU with less shared memory
BACKWARD_POSITIONS = 128  # of a block,
CHANNELS = 64  # in parts of as many channels
MOST_CHANNELS = 512  # of a feature map
WARPS = 8
STAGES = 2
# bytes that forward needs for MOST_CHANNELS of POSITIONS, of FEW_POSITIONS
SHARED_MEMORY = 180 * 2**10, 140 * 2**10


@triton.jit
def _split(values):
    """Three parts in bfloat16, the largest first."""
    first = values.to(tl.bfloat16)
    rest = values - first.to(tl.float32)
    second = rest.to(tl.bfloat16)
    third = (rest - second.to(tl.float32)).to(tl.bfloat16)
    return first, second, third


@triton.jit
def _product(left, right, sums):
    """Of matrices in bfloat16, added to sums in float32."""
    return tl.dot(left, right, sums)


@triton.jit
def _products(parts, right, sums):
    """Of three parts, the smallest first."""
    sums = _product(parts[2], right, sums)
    sums = _product(parts[1], right, sums)
    return _product(parts[0], right, sums)


@triton.jit
def _pool(x, weight, bias, sums, means, rows, channels, positions, blocks_each,
          x_b, x_c, x_n, ROWS_: tl.constexpr, CHANNELS_: tl.constexpr,
          POSITIONS_: tl.constexpr):
    """Sums over the blocks of a program: of Q X^T, and of Q."""
    image = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, ROWS_)
    lane = tl.arange(0, POSITIONS_)
    channel = tl.arange(0, CHANNELS_)
    w = _split(_load_matrix(weight, row, rows, channels, 0, CHANNELS_))
    offset = tl.load(bias + row, mask=row < rows, other=0.).to(tl.float32)
    total = tl.zeros((ROWS_, CHANNELS_), tl.float32)
    mean = tl.zeros((ROWS_, ), tl.float32)
    first = tl.program_id(0) * blocks_each * POSITIONS_
    last = min(first + blocks_each * POSITIONS_, positions)
    for start in range(first, last, POSITIONS_):
        position = start + lane
        block = _load_part(x + image * x_b, position, positions, channels, x_c,
                           x_n, 0, CHANNELS_)
        queries = _products(w, block, tl.zeros((ROWS_, POSITIONS_),
                                               tl.float32))
        queries = tl.where((position < positions)[None, :],
                           queries + offset[:, None], 0.)
        mean += tl.sum(queries, 1)
        total = _products(_split(queries), tl.trans(block), total)
    place = (tl.program_id(0) * tl.num_programs(1) + image) * rows + row
    tl.store(
        sums + place[:, None] * channels + channel[None, :],
        total,
        mask=(row < rows)[:, None] & (channel < channels)[None, :])
    tl.store(means + place, mean, mask=row < rows)


@triton.jit
def _split_matrix(matrix, parts, rows, channels, ROWS_: tl.constexpr,
                  CHANNELS_: tl.constexpr):
    """The parts of columns of a matrix (R, C), zero beyond."""
    row = tl.arange(0, ROWS_)
    channel = tl.program_id(0) * CHANNELS_ + tl.arange(0, CHANNELS_)
    index = tl.program_id(1)
    width = tl.num_programs(0) * CHANNELS_
    values = _split(
        _load_matrix(matrix + index * rows * channels, row, rows, channels,
                     tl.program_id(0), CHANNELS_))
    for i in tl.static_range(3):
        place = ((index * 3 + i) * ROWS_ + row[:, None]) * width
        tl.store(parts + place + channel[None, :], values[i])


@triton.jit
def _load_parts(parts, k, width, COUNT: tl.constexpr, ROWS_: tl.constexpr,
                CHANNELS_: tl.constexpr):
    """The first parts of part k of the columns of a matrix (R, C)."""
    row = tl.arange(0, ROWS_)[:, None]
    channel = k * CHANNELS_ + tl.arange(0, CHANNELS_)[None, :]
    values = ()
    for i in tl.static_range(COUNT):
        values = values + (tl.load(parts +
                                   (i * ROWS_ + row) * width + channel), )
    return values


@triton.jit
def _pool_backward(x, weight, bias, grad_pooled, grad_mean, grad_x, sums,
                   bias_sums, rows, channels, positions, blocks_each, x_b, x_c,
                   x_n, parts, ADD: tl.constexpr, ROWS_: tl.constexpr,
                   CHANNELS_: tl.constexpr, POSITIONS_: tl.constexpr):
    """dX of the blocks of a program, and their sums of dQ X^T and of dQ.

    weight and grad_pooled are parts; grad_mean is divided by the number of
    positions, as they are.
    """
    width = parts * CHANNELS_
    image = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, ROWS_)
    lane = tl.arange(0, POSITIONS_)
    offset = tl.load(bias + row, mask=row < rows, other=0.).to(tl.float32)
    of_mean = tl.load(
        grad_mean + image * rows + row, mask=row < rows, other=0.)
    grad_pooled += image * 3 * ROWS_ * width
    bias_sum = tl.zeros((ROWS_, ), tl.float32)
    first = tl.program_id(0) * blocks_each * POSITIONS_
    last = min(first + blocks_each * POSITIONS_, positions)
    place = (tl.program_id(0) * tl.num_programs(1) + image) * rows + row
    for start in range(first, last, POSITIONS_):
        tl.debug_barrier()  # the sums may be read by other threads
        position = start + lane
        there = (position < positions)[None, :]
        queries = tl.zeros((ROWS_, POSITIONS_), tl.float32)
        grad_queries = tl.zeros((ROWS_, POSITIONS_), tl.float32)
        for k in range(parts):
            part = _load_part(x + image * x_b, position, positions, channels,
                              x_c, x_n, k, CHANNELS_)
            w = _load_parts(weight, k, width, 3, ROWS_, CHANNELS_)
            g = _load_parts(grad_pooled, k, width, 3, ROWS_, CHANNELS_)
            queries = _products(w, part, queries)
            grad_queries = _products(g, part, grad_queries)
        queries += offset[:, None]
        grad_queries = tl.where(there, grad_queries + of_mean[:, None], 0.)
        bias_sum += tl.sum(grad_queries, 1)
        q = _split(queries)
        dq = _split(grad_queries)
        for k in range(parts):
            part = _load_part(x + image * x_b, position, positions, channels,
                              x_c, x_n, k, CHANNELS_)
            channel = k * CHANNELS_ + tl.arange(0, CHANNELS_)
            target = sums + place[:, None] * channels + channel[None, :]
            inside = (row < rows)[:, None] & (channel < channels)[None, :]
            total = tl.load(target, mask=inside, other=0.)
            total = _products(dq, tl.trans(part), total)
            tl.store(target, total, mask=inside)
            w = _load_parts(weight, k, width, 2, ROWS_, CHANNELS_)
            g = _load_parts(grad_pooled, k, width, 2, ROWS_, CHANNELS_)
            result = tl.zeros((CHANNELS_, POSITIONS_), tl.float32)
            result = _product(tl.trans(g[1]), q[0], result)
            result = _product(tl.trans(g[0]), q[1], result)
            result = _product(tl.trans(w[1]), dq[0], result)
            result = _product(tl.trans(w[0]), dq[1], result)
            result = _product(tl.trans(g[0]), q[0], result)
            result = _product(tl.trans(w[0]), dq[0], result)
            target = (
                grad_x + image * x_b + channel[:, None].to(tl.int64) * x_c +
                position[None, :] * x_n)
            inside = (channel < channels)[:, None] & there
            if ADD:
                result += tl.load(target, mask=inside, other=0.)
            tl.store(target, result.to(grad_x.dtype.element_ty), mask=inside)
    tl.store(bias_sums + place, bias_sum, mask=row < rows)


def pool_queries(x: Tensor, query_weight: Tensor,
                 query_bias: Tensor) -> Tuple[Tensor, Tensor]:
    """See :func:`cac_mmseg.ops.pool_queries`."""
    if not _fits(x):
        return triton_pooling.pool_queries(x, query_weight, query_bias)
    return triton_pooling.run(_pool, _tiles(x), x, query_weight, query_bias)


def pool_queries_backward(
        grad_pooled: Tensor,
        grad_mean: Tensor,
        x: Tensor,
        query_weight: Tensor,
        query_bias: Tensor,
        grad_x: Optional[Tensor] = None) -> Tuple[Tensor, Tensor, Tensor]:
    """See :func:`cac_mmseg.ops.eager.pool_queries_backward`."""
    arguments = grad_pooled, grad_mean, x, query_weight, query_bias, grad_x
    if not _fits(x):
        return triton_pooling.pool_queries_backward(*arguments)
    return triton_pooling.run_backward(_pool_backward, _backward_tiles(x),
                                       *arguments, _parts)


def _fits(x: Tensor) -> bool:
    return (x.dtype == torch.bfloat16 and x.shape[1] <= MOST_CHANNELS
            and shared_memory(x.device) >= SHARED_MEMORY[1])


def _tiles(x: Tensor) -> dict:
    enough = shared_memory(x.device) >= SHARED_MEMORY[0]
    return dict(
        ROWS_=ROWS,
        CHANNELS_=max(next_power_of_2(x.shape[1]), 16),
        POSITIONS_=POSITIONS if enough else FEW_POSITIONS,
        num_warps=WARPS,
        num_stages=STAGES)


def _backward_tiles(x: Tensor) -> dict:
    return dict(
        parts=cdiv(x.shape[1], CHANNELS),
        ROWS_=ROWS,
        CHANNELS_=CHANNELS,
        POSITIONS_=BACKWARD_POSITIONS,
        num_warps=WARPS,
        num_stages=STAGES)


def _parts(matrix: Tensor) -> Tensor:
    """Return the parts of matrices (..., R, C): (..., 3, ROWS, C or more)."""
    rows, channels = matrix.shape[-2:]
    columns = cdiv(channels, CHANNELS)
    count = matrix[..., 0, 0].numel()
    parts = matrix.new_empty((count, 3, ROWS, columns * CHANNELS),
                             dtype=torch.bfloat16)
    launch(
        _split_matrix, (columns, count),
        matrix,
        parts,
        rows,
        channels,
        ROWS_=ROWS,
        CHANNELS_=CHANNELS)
    return parts
