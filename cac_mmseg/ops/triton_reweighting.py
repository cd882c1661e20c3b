"""Re-weighting on a GPU: one Triton kernel forward, one backward.

With S the bytes of the feature map, forward has to move 2 S and backward 3 S,
and that is what the two kernels move: each element of X and of dY comes from
memory once. What counts then is the number of instructions. Most of them load
neighbours, s * s for each of M branches, so a thread computes several rows of
a column at a time and loads each neighbour once for all of them. An element
takes, for s = 3 and dilations (1, 3, 5):

========  =============  =====  ========  ============
kernel    multiply-adds  loads  sigmoids  rows at once
========  =============  =====  ========  ============
forward              27   12.8         3             8
backward             81     43         3             4
========  =============  =====  ========  ============

dX needs the gradients of the responses, dS, on all sides of a position. A
program of the backward kernel goes down a plane (one channel of one image)
and keeps the last rows of dS in a ring of its own. There are as many rings as
programs in flight, not as planes, so they stay in the cache. The sums over
positions, dD, stay in registers until the plane ends. No two programs add to
the same number: the same input gives the same bits.

Products and sums run in float32. Forward takes NCHW and channels_last as they
are; its lanes are columns of one channel, or channels of one column. Backward
takes NCHW, and X and dY are transposed if they are in channels_last, where a
ring would hold all channels of its lanes.
"""
from functools import lru_cache
from typing import Sequence, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import cdiv, launch, next_power_of_2, processors
from .eager import laid_out_as

LANES = 128  # at most; a thread each
FORWARD_ROWS = 8  # that a thread computes at once
BACKWARD_ROWS = 4  # more would not fit the registers
MOST_NEIGHBOURS = 200  # that are loaded at once, so that the code stays small
# Positions of a program of the forward kernel, (rows, columns), None for all.
# It loads its taps once for them.
BOX = (32, None)
BOX_CHANNELS_LAST = (8, 8)
PROGRAMS_PER_PROCESSOR = 4  # of the backward kernel
LOG2E = tl.constexpr(1.4426950408889634)
# A lane is one element, so the code is the same for each value of these: it
# need not be compiled again for images of another size.
SIZES = ('planes', 'channels', 'height', 'width', 'x_b', 'x_c', 'x_h',
         'boxes_across', 'box_rows', 'box_columns')


@triton.jit
def _load_neighbours(ptr, row, column, height, width, stride_h, stride_w,
                     inside, SHIFTS: tl.constexpr, NEEDED: tl.constexpr):
    """Row by row, each shift of a column: float32, and zero outside."""
    values = ()
    for j in tl.static_range(len(NEEDED) // len(SHIFTS)):
        there = inside & _within(row + j, height)
        place = ptr + (row + j) * stride_h + column * stride_w
        for i in tl.static_range(len(SHIFTS)):
            if NEEDED[j * len(SHIFTS) + i]:
                value = tl.load(
                    place + SHIFTS[i] * stride_w,
                    mask=there & _within(column + SHIFTS[i], width),
                    other=0.)
                values = values + (value.to(tl.float32), )
            else:
                values = values + (0., )
    return values


@triton.jit
def _within(index, size):
    """0 <= index < size, in one comparison."""
    return index.to(tl.uint32, bitcast=True) < size


@triton.jit
def _load_taps(kernels, image, channel, channels, here, SETS: tl.constexpr,
               BRANCHES: tl.constexpr, TAPS: tl.constexpr):
    """-log2(e) times the kernels of each branch, tap by tap."""
    taps = ()
    for i in tl.static_range(BRANCHES):
        place = ((image * SETS + i % SETS) * channels + channel) * TAPS
        for t in tl.static_range(TAPS):
            tap = tl.load(kernels + place + t, mask=here, other=0.)
            taps = taps + (tap.to(tl.float32) * -LOG2E, )
    return taps


@triton.constexpr_function
def _places(i, j, DILATIONS, SHIFT_OF, SHIFTS, KERNEL, REACH):
    """Which of the neighbours the taps of branch i read in row j."""
    rows = [
        j + REACH + (k - KERNEL // 2) * DILATIONS[i] for k in range(KERNEL)
    ]
    shifts = SHIFT_OF[i * KERNEL:(i + 1) * KERNEL]
    return tuple(row * len(SHIFTS) + shift for row in rows for shift in shifts)


@triton.jit
def _sigmoid(values, taps, i: tl.constexpr, PLACES: tl.constexpr):
    """That of branch i's response to the values at these places.

    The taps are scaled by -log2(e): the base is 2.
    """
    response = tl.zeros_like(values[PLACES[0]])
    for t in tl.static_range(len(PLACES)):
        response += values[PLACES[t]] * taps[i * len(PLACES) + t]
    return 1 / (1 + tl.exp2(response))


@triton.jit(do_not_specialize=SIZES)
def _forward(x, kernels, y, channels, height, width, x_b, x_c, x_h, x_w,
             boxes_across, box_rows, box_columns, SETS: tl.constexpr,
             DILATIONS: tl.constexpr, SHIFTS: tl.constexpr,
             NEEDED: tl.constexpr, SHIFT_OF: tl.constexpr,
             KERNEL: tl.constexpr, REACH: tl.constexpr, CENTRE: tl.constexpr,
             ROWS: tl.constexpr, LANES_: tl.constexpr,
             CHANNELS_LAST: tl.constexpr):
    """Y of a box of positions, ROWS rows at a time."""
    BRANCHES: tl.constexpr = len(DILATIONS)
    image = tl.program_id(2).to(tl.int64)
    lane = tl.arange(0, LANES_)
    if CHANNELS_LAST:
        channel = tl.program_id(1) * LANES_ + lane
        step = 1
        across = lane * 0
    else:
        channel = tl.program_id(1) + lane * 0
        step = LANES_
        across = lane
    here = channel < channels
    top = tl.program_id(0) // boxes_across * box_rows
    left = tl.program_id(0) % boxes_across * box_columns
    offset = image * x_b + channel.to(tl.int64) * x_c
    taps = _load_taps(kernels, image, channel, channels, here, SETS, BRANCHES,
                      KERNEL * KERNEL)
    for x0 in range(left, min(left + box_columns, width), step):
        column = x0 + across
        inside = here & (column < width)
        for y0 in range(top, min(top + box_rows, height), ROWS):
            row = y0 + lane * 0
            values = _load_neighbours(x + offset, row - REACH, column, height,
                                      width, x_h, x_w, inside, SHIFTS, NEEDED)
            for j in tl.static_range(ROWS):
                weights = tl.zeros_like(values[REACH * len(SHIFTS) + CENTRE])
                for i in tl.static_range(BRANCHES):
                    weights += _sigmoid(
                        values, taps, i,
                        _places(i, j, DILATIONS, SHIFT_OF, SHIFTS, KERNEL,
                                REACH))
                result = values[(REACH + j) * len(SHIFTS) + CENTRE] * weights
                tl.store(
                    y + offset + (row + j) * x_h + column * x_w,
                    result.to(y.dtype.element_ty),
                    mask=inside & (row + j < height))


@triton.jit
def _gradient_of_rows(ring, taps, row, column, height, width, inside, grad_x,
                      DILATIONS: tl.constexpr, KERNEL: tl.constexpr,
                      ROWS: tl.constexpr, RING: tl.constexpr):
    """dX of ROWS rows: dY sum_i W_i, and each dS_i with flipped kernels."""
    BRANCHES: tl.constexpr = len(DILATIONS)
    plane = RING * width
    results = ()
    for j in tl.static_range(ROWS):
        results = results + (tl.load(
            ring + BRANCHES * plane + ((row + j) &
                                       (RING - 1)) * width + column,
            mask=inside & _within(row + j, height),
            other=0.), )
    for i in tl.static_range(BRANCHES):
        values = ()
        for j in tl.static_range(ROWS + DILATIONS[i] * (KERNEL - 1)):
            y = row + j - DILATIONS[i] * (KERNEL // 2)
            there = inside & _within(y, height)
            place = ring + i * plane + (y & (RING - 1)) * width + column
            for k in tl.static_range(KERNEL):
                value = tl.load(
                    place + (k - KERNEL // 2) * DILATIONS[i],
                    mask=there
                    & _within(column +
                              (k - KERNEL // 2) * DILATIONS[i], width),
                    other=0.)
                values = values + (value, )
        sums = ()
        for j in tl.static_range(ROWS):
            total = results[j]
            for t in tl.static_range(KERNEL * KERNEL):
                # the neighbour below and to the right for the tap above left
                value = values[(j +
                                (KERNEL - 1 - t // KERNEL) * DILATIONS[i]) *
                               KERNEL + KERNEL - 1 - t % KERNEL]
                total += value * taps[i * KERNEL * KERNEL + t]
            sums = sums + (total, )
        results = sums
    for j in tl.static_range(ROWS):
        tl.store(
            grad_x + (row + j) * width + column,
            results[j].to(grad_x.dtype.element_ty),
            mask=inside & _within(row + j, height))


@triton.jit(do_not_specialize=SIZES)
def _backward(grad, x, kernels, rings, grad_x, grad_kernels, planes, channels,
              height, width, SETS: tl.constexpr, DILATIONS: tl.constexpr,
              SHIFTS: tl.constexpr, NEEDED: tl.constexpr,
              SHIFT_OF: tl.constexpr, KERNEL: tl.constexpr,
              REACH: tl.constexpr, CENTRE: tl.constexpr, ROWS: tl.constexpr,
              LANES_: tl.constexpr, RING: tl.constexpr):
    """dX and dD of planes (H, W), as many apart as there are programs."""
    BRANCHES: tl.constexpr = len(DILATIONS)
    TAPS: tl.constexpr = KERNEL * KERNEL
    lane = tl.arange(0, LANES_)
    ring = rings + tl.program_id(0).to(
        tl.int64) * (BRANCHES + 1) * RING * width
    for plane in range(tl.program_id(0), planes, tl.num_programs(0)):
        index = tl.full([], plane, tl.int64)
        image, channel = index // channels, index % channels
        here = lane >= 0  # all
        taps = _load_taps(kernels, image, channel + lane * 0, channels, here,
                          SETS, BRANCHES, TAPS)
        offset = index * height * width
        sums = ()
        for t in tl.static_range(BRANCHES * TAPS):
            sums = sums + (tl.zeros((LANES_, ), tl.float32), )
        # a row of dX waits for the rows of dS below it
        for y0 in range(0, height + REACH, ROWS):
            if y0 < height:
                for x0 in range(0, width, LANES_):
                    column = x0 + lane
                    row = y0 + lane * 0
                    inside = column < width
                    values = _load_neighbours(x + offset, row - REACH, column,
                                              height, width, width, 1, inside,
                                              SHIFTS, NEEDED)
                    for j in tl.static_range(ROWS):
                        there = inside & (row + j < height)
                        outer = tl.load(
                            grad + offset + (row + j) * width + column,
                            mask=there,
                            other=0.).to(tl.float32)
                        # with the taps scaled, dS is scaled the other way
                        product = outer * values[(REACH + j) * len(SHIFTS) +
                                                 CENTRE] * (-1 / LOG2E)
                        weights = tl.zeros_like(product)
                        place = ring + ((row + j) &
                                        (RING - 1)) * width + column
                        updated = ()
                        for i in tl.static_range(BRANCHES):
                            weight = _sigmoid(
                                values, taps, i,
                                _places(i, j, DILATIONS, SHIFT_OF, SHIFTS,
                                        KERNEL, REACH))
                            weights += weight
                            response = product * weight * (1 - weight)
                            tl.store(
                                place + i * RING * width, response, mask=there)
                            for t in tl.static_range(TAPS):
                                value = values[_places(i, j, DILATIONS,
                                                       SHIFT_OF, SHIFTS,
                                                       KERNEL, REACH)[t]]
                                updated = updated + (sums[i * TAPS + t] +
                                                     response * value, )
                        sums = updated
                        tl.store(
                            place + BRANCHES * RING * width,
                            outer * weights,
                            mask=there)
            tl.debug_barrier()  # all columns of these rows are in the ring
            for x0 in range(0, width, LANES_):
                _gradient_of_rows(ring, taps, y0 - REACH + lane * 0, x0 + lane,
                                  height, width, x0 + lane < width,
                                  grad_x + offset, DILATIONS, KERNEL, ROWS,
                                  RING)
        for i in tl.static_range(BRANCHES):
            for t in tl.static_range(TAPS):
                tl.store(
                    grad_kernels +
                    ((image * BRANCHES + i) * channels + channel) * TAPS + t,
                    tl.sum(sums[i * TAPS + t]) * -LOG2E)
        tl.debug_barrier()  # before the next plane fills the ring


def reweight(x: Tensor, kernels: Tensor, dilations: Sequence[int]) -> Tensor:
    """See :func:`cac_mmseg.functional.reweight`."""
    given = x
    channels_last = not x.is_contiguous() and x.is_contiguous(
        memory_format=torch.channels_last)
    if not channels_last:
        x = x.contiguous()
    y = torch.empty_like(x)
    b, c, h, w = x.shape
    lanes = _lanes(c if channels_last else w)
    rows, columns = BOX_CHANNELS_LAST if channels_last else BOX
    columns = columns or w
    across = cdiv(w, columns)
    grid = (cdiv(h, rows) * across, cdiv(c, lanes) if channels_last else c, b)
    launch(
        _forward,
        grid,
        x,
        kernels.contiguous(),
        y,
        c,
        h,
        w,
        *x.stride(),
        across,
        rows,
        columns,
        SETS=kernels.shape[1],
        LANES_=lanes,
        CHANNELS_LAST=channels_last,
        num_warps=max(lanes // 32, 1),
        **_neighbourhood(tuple(dilations), kernels.shape[4], FORWARD_ROWS))
    return laid_out_as(given, y)


def reweight_backward(grad: Tensor, x: Tensor, kernels: Tensor,
                      dilations: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """See :func:`cac_mmseg.ops.eager.reweight_backward`."""
    given, x, grad = x, x.contiguous(), grad.contiguous()
    b, c, h, w = x.shape
    branches, s = len(dilations), kernels.shape[4]
    shape = _neighbourhood(tuple(dilations), s, BACKWARD_ROWS)
    lanes = _lanes(w)
    # one block of rows is written while another is read
    ring = next_power_of_2(2 * (shape['ROWS'] + shape['REACH']))
    programs = min(b * c, processors(x.device) * PROGRAMS_PER_PROCESSOR)
    rings = x.new_empty((programs, branches + 1, ring, w), dtype=torch.float32)
    grad_x = torch.empty_like(x)
    grad_kernels = x.new_empty((b, branches, c, s, s), dtype=torch.float32)
    launch(
        _backward, (programs, ),
        grad,
        x,
        kernels.contiguous(),
        rings,
        grad_x,
        grad_kernels,
        b * c,
        c,
        h,
        w,
        SETS=kernels.shape[1],
        LANES_=lanes,
        RING=ring,
        num_warps=max(lanes // 32, 1),
        **shape)
    if kernels.shape[1] == 1:
        grad_kernels = grad_kernels.sum(1, keepdim=True)
    return laid_out_as(given, grad_x), laid_out_as(kernels, grad_kernels)


def _lanes(size: int) -> int:
    return min(next_power_of_2(size), LANES)


@lru_cache(maxsize=None)
def _neighbourhood(dilations: Tuple[int, ...], kernel: int, rows: int) -> dict:
    """Return what is known of the taps when a kernel is compiled.

    SHIFTS are the different columns of all taps, relative to a position,
    SHIFT_OF which of them each column of each branch is, CENTRE that of the
    position, REACH the farthest row, ROWS how many to compute at once, and
    NEEDED which shifts of which rows, from -REACH, those need.
    """
    half = kernel // 2
    reach = max(dilations) * half
    columns = [(k - half) * dilation for dilation in dilations
               for k in range(kernel)]
    shifts = sorted({0, *columns})

    while True:
        needed = {(row, 0) for row in range(rows)}
        for dilation in dilations:
            needed.update((row + y * dilation, x * dilation)
                          for row in range(rows)
                          for y in range(-half, half + 1)
                          for x in range(-half, half + 1))
        if rows == 1 or len(needed) <= MOST_NEIGHBOURS:
            break
        rows //= 2
    return dict(
        DILATIONS=dilations,
        SHIFTS=tuple(shifts),
        NEEDED=tuple((row, shift) in needed
                     for row in range(-reach, rows + reach)
                     for shift in shifts),
        SHIFT_OF=tuple(map(shifts.index, columns)),
        CENTRE=shifts.index(0),
        KERNEL=kernel,
        REACH=reach,
        ROWS=rows)
