"""Re-weighting by a window of X that rolls down a plane in registers.

A thread owns a column of a plane (one channel of one image) and keeps the rows
of X that taps still read, each shift of the columns for itself: of X it loads
each shift of an element once, where :mod:`.triton_reweighting` loads most
neighbours again for every few rows. Per element, for s = 3 and dilations
(1, 3, 5):

========  =============  =====  ======  ========
kernel    multiply-adds  loads  stores  sigmoids
========  =============  =====  ======  ========
forward              27      7       1         3
backward             81     14       4         3
========  =============  =====  ======  ========

Backward adds each row of dS, the gradients of the responses, to all rows of dX
that it reaches, which wait in registers until the last has come. It has dS of
the neighbouring columns from the other threads, by a buffer of a few rows
between zeros: no load of it needs a mask.

Maps in channels_last, wider than :data:`LANES` or with a window that does not
fit the registers are left to :mod:`.triton_reweighting`.
"""
from typing import Sequence, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import triton_reweighting
from .device import launch, next_power_of_2, processors
from .eager import laid_out_as
from .triton_reweighting import LOG2E, SIZES, _load_taps, _sigmoid, _within
from .triton_window import (first_rows, last_rows, load_row, next_rows, places,
                            window_shape)

LANES = 256  # at most; a thread each
FORWARD_ROWS = 8  # that a thread computes at once
BACKWARD_ROWS = 4  # more would not fit the registers
PROGRAMS_PER_PROCESSOR = 4  # of the backward kernel
# That a thread of the backward kernel keeps: up to ten registers are spilled.
MOST_VALUES = 190


@triton.jit
def _forward_rows(window, x, y, taps, y0, column, height, width, inside,
                  SHIFTS: tl.constexpr, REACHES: tl.constexpr,
                  PLACES: tl.constexpr, CENTRE: tl.constexpr,
                  TAPS: tl.constexpr, ROWS: tl.constexpr, CHECK: tl.constexpr):
    """Y of the next ROWS rows; returns the next window."""
    values = next_rows(window, x, y0, column, height, width, SHIFTS, REACHES,
                       ROWS, CHECK)
    for j in tl.static_range(ROWS):
        weights = tl.zeros(column.shape, tl.float32)
        for i in tl.static_range(len(PLACES) // TAPS):
            weights += _sigmoid(values, taps, i, places(i, j, PLACES, TAPS))
        there = inside
        if CHECK:
            there &= _within(y0 + j + column * 0, height)
        tl.store(
            y + (y0 + j) * width + column,
            (values[CENTRE + j] * weights).to(y.dtype.element_ty),
            mask=there)
    return last_rows(values, REACHES, ROWS)


@triton.jit(do_not_specialize=SIZES)
def _forward(x, kernels, y, channels, height, width, SETS: tl.constexpr,
             BRANCHES: tl.constexpr, SHIFTS: tl.constexpr,
             REACHES: tl.constexpr, PLACES: tl.constexpr, CENTRE: tl.constexpr,
             TAPS: tl.constexpr, ROWS: tl.constexpr, REACH: tl.constexpr,
             LANES_: tl.constexpr):
    """Y of a plane (H, W)."""
    column = tl.arange(0, LANES_)
    inside = column < width
    channel, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    taps = _load_taps(kernels, image, channel + column * 0, channels, column
                      >= 0, SETS, BRANCHES, TAPS)
    x += (image * channels + channel) * height * width
    y += (image * channels + channel) * height * width
    window = first_rows(x, column, height, width, SHIFTS, REACHES)
    # rows all of whose neighbours are there need no check
    checked = max(height - REACH, 0) // ROWS * ROWS
    for y0 in range(0, checked, ROWS):
        window = _forward_rows(window, x, y, taps, y0, column, height, width,
                               inside, SHIFTS, REACHES, PLACES, CENTRE, TAPS,
                               ROWS, False)
    for y0 in range(checked, height, ROWS):
        window = _forward_rows(window, x, y, taps, y0, column, height, width,
                               inside, SHIFTS, REACHES, PLACES, CENTRE, TAPS,
                               ROWS, True)


@triton.constexpr_function
def _tap(i, distance, DILATIONS, KERNEL):
    """The row of the taps of branch i that reads so far up, or none."""
    row = distance // DILATIONS[i] + KERNEL // 2
    return row if distance % DILATIONS[i] == 0 and 0 <= row < KERNEL else -1


@triton.jit
def _add_slopes(rows, direct, slopes, taps, j: tl.constexpr,
                DILATIONS: tl.constexpr, KERNEL: tl.constexpr,
                REACH: tl.constexpr):
    """Add what row j gives to the rows of dX: dY sum_i W_i, dS by the taps."""
    sums = ()
    for r in tl.static_range(len(rows)):
        total = rows[r]
        if r == REACH + j:
            total += direct
        for i in tl.static_range(len(DILATIONS)):
            if _tap(i, r - REACH - j, DILATIONS, KERNEL) >= 0:
                for k in tl.static_range(KERNEL):
                    tap = taps[_tap(i, r - REACH - j, DILATIONS, KERNEL) *
                               KERNEL + i * KERNEL * KERNEL + k]
                    total += slopes[i * KERNEL + k] * tap
        sums = sums + (total, )
    return sums


@triton.jit
def _store_sums(sums, parts, grad_kernels, image, channel, channels,
                BRANCHES: tl.constexpr, TAPS: tl.constexpr,
                LANES_: tl.constexpr, ALL: tl.constexpr):
    """dD of a plane. All sums over lanes at once: each has two barriers."""
    lane = tl.arange(0, LANES_)
    for t in tl.static_range(BRANCHES * TAPS):
        tl.store(parts + t * LANES_ + lane, sums[t])
    tl.debug_barrier()
    tap = tl.arange(0, ALL)
    inside = tap < BRANCHES * TAPS
    values = tl.load(
        parts + tap[:, None] * LANES_ + lane[None, :],
        mask=inside[:, None],
        other=0.)
    place = (image.to(tl.int64) * BRANCHES + tap // TAPS) * channels + channel
    tl.store(
        grad_kernels + place * TAPS + tap % TAPS,
        tl.sum(values, 1) * -LOG2E,
        mask=inside)


@triton.jit
def _store_rows(grad_x, rows, first, column, height, width, inside,
                COUNT: tl.constexpr):
    """Store the first COUNT rows of dX."""
    for r in tl.static_range(COUNT):
        tl.store(
            grad_x + (first + r) * width + column,
            rows[r].to(grad_x.dtype.element_ty),
            mask=inside & _within(first + r + column * 0, height))


@triton.jit(do_not_specialize=SIZES)
def _backward(grad, x, kernels, buffers, grad_x, grad_kernels, planes,
              channels, height, width, SETS: tl.constexpr,
              DILATIONS: tl.constexpr, SHIFTS: tl.constexpr,
              REACHES: tl.constexpr, PLACES: tl.constexpr,
              CENTRE: tl.constexpr, KERNEL: tl.constexpr, REACH: tl.constexpr,
              ROWS: tl.constexpr, LANES_: tl.constexpr, WIDE: tl.constexpr,
              SPACE: tl.constexpr, ALL: tl.constexpr):
    """dX and dD of planes (H, W), as many apart as there are programs."""
    BRANCHES: tl.constexpr = len(DILATIONS)
    TAPS: tl.constexpr = KERNEL * KERNEL
    HALF: tl.constexpr = KERNEL // 2
    BUFFER: tl.constexpr = ROWS * BRANCHES * WIDE
    column = tl.arange(0, LANES_)
    inside = column < width
    buffers += tl.program_id(0).to(tl.int64) * SPACE
    for start in range(0, 2 * BUFFER, LANES_):
        tl.store(
            buffers + start + column, 0., mask=start + column < 2 * BUFFER)
    tl.debug_barrier()
    turn = 0
    for plane in range(tl.program_id(0), planes, tl.num_programs(0)):
        image, channel = plane // channels, plane % channels
        taps = _load_taps(kernels, image.to(tl.int64), channel + column * 0,
                          channels, column >= 0, SETS, BRANCHES, TAPS)
        offset = tl.full([], plane, tl.int64) * height * width
        sums = ()
        for t in tl.static_range(BRANCHES * TAPS):
            sums = sums + (tl.zeros((LANES_, ), tl.float32), )
        waiting = ()  # rows of dX that more rows of dS reach
        for r in tl.static_range(2 * REACH):
            waiting = waiting + (tl.zeros((LANES_, ), tl.float32), )
        window = first_rows(x + offset, column, height, width, SHIFTS, REACHES)
        for y0 in range(0, height, ROWS):
            values = next_rows(window, x + offset, y0, column, height, width,
                               SHIFTS, REACHES, ROWS)
            buffer = buffers + turn * BUFFER + REACH + column
            slopes = ()
            direct = ()
            for j in tl.static_range(ROWS):
                outer = load_row(grad + offset, y0 + j, column, height, width,
                                 inside)
                # with the taps scaled, dS is scaled the other way
                product = outer * values[CENTRE + j] * (-1 / LOG2E)
                weights = tl.zeros((LANES_, ), tl.float32)
                updated = ()
                for i in tl.static_range(BRANCHES):
                    weight = _sigmoid(values, taps, i,
                                      places(i, j, PLACES, TAPS))
                    weights += weight
                    slope = product * weight * (1 - weight)
                    tl.store(buffer + (j * BRANCHES + i) * WIDE, slope)
                    slopes = slopes + (slope, )
                    for t in tl.static_range(TAPS):
                        value = values[PLACES[i * TAPS + t] + j]
                        updated = updated + (sums[i * TAPS + t] +
                                             slope * value, )
                sums = updated
                direct = direct + (outer * weights, )
            rows = waiting
            for j in tl.static_range(ROWS):
                rows = rows + (tl.zeros((LANES_, ), tl.float32), )
            tl.debug_barrier()  # these rows of dS are in the buffer
            for j in tl.static_range(ROWS):
                across = ()
                for i in tl.static_range(BRANCHES):
                    for k in tl.static_range(KERNEL):
                        if k == HALF:
                            across = across + (slopes[j * BRANCHES + i], )
                        else:  # from the right for a tap on the left
                            across = across + (
                                tl.load(buffer + (j * BRANCHES + i) * WIDE -
                                        (k - HALF) * DILATIONS[i]), )
                rows = _add_slopes(rows, direct[j], across, taps, j, DILATIONS,
                                   KERNEL, REACH)
            _store_rows(grad_x + offset, rows, y0 - REACH, column, height,
                        width, inside, ROWS)
            waiting = rows[ROWS:]
            window = last_rows(values, REACHES, ROWS)
            turn = 1 - turn  # the other is still read
        _store_rows(grad_x + offset, waiting,
                    (height + ROWS - 1) // ROWS * ROWS - REACH, column, height,
                    width, inside, REACH)
        _store_sums(sums, buffers + 2 * BUFFER, grad_kernels, image, channel,
                    channels, BRANCHES, TAPS, LANES_, ALL)


def reweight(x: Tensor, kernels: Tensor, dilations: Sequence[int]) -> Tensor:
    """See :func:`cac_mmseg.functional.reweight`."""
    if not _rolls(x, kernels, dilations):
        return triton_reweighting.reweight(x, kernels, dilations)
    given, x = x, x.contiguous()
    y = torch.empty_like(x)
    b, c, h, w = x.shape
    lanes = next_power_of_2(w)
    window = window_shape(tuple(dilations), kernels.shape[4], FORWARD_ROWS)
    launch(
        _forward, (c, b),
        x,
        kernels.contiguous(),
        y,
        c,
        h,
        w,
        SETS=kernels.shape[1],
        BRANCHES=len(dilations),
        TAPS=kernels.shape[4]**2,
        LANES_=lanes,
        num_warps=max(lanes // 32, 1),
        **window)
    return laid_out_as(given, y)


def reweight_backward(grad: Tensor, x: Tensor, kernels: Tensor,
                      dilations: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """See :func:`cac_mmseg.ops.eager.reweight_backward`."""
    if not _rolls(x, kernels, dilations):
        return triton_reweighting.reweight_backward(grad, x, kernels,
                                                    dilations)
    given, x, grad = x, x.contiguous(), grad.contiguous()
    b, c, h, w = x.shape
    branches, s = len(dilations), kernels.shape[4]
    lanes = next_power_of_2(w)
    shape = _backward_shape(tuple(dilations), s, lanes)
    programs = min(b * c, processors(x.device) * PROGRAMS_PER_PROCESSOR)
    buffers = x.new_empty((programs, shape['SPACE']), dtype=torch.float32)
    grad_x = torch.empty_like(x)
    grad_kernels = x.new_empty((b, branches, c, s, s), dtype=torch.float32)
    launch(
        _backward, (programs, ),
        grad,
        x,
        kernels.contiguous(),
        buffers,
        grad_x,
        grad_kernels,
        b * c,
        c,
        h,
        w,
        SETS=kernels.shape[1],
        num_warps=max(lanes // 32, 1),
        **shape)
    if kernels.shape[1] == 1:
        grad_kernels = grad_kernels.sum(1, keepdim=True)
    return laid_out_as(given, grad_x), laid_out_as(kernels, grad_kernels)


def _rolls(x: Tensor, kernels: Tensor, dilations: Sequence[int]) -> bool:
    """Whether the window of a map fits: its columns, and its rows."""
    window = window_shape(tuple(dilations), kernels.shape[4], BACKWARD_ROWS)
    values = sum(2 * reach + BACKWARD_ROWS for reach in window['REACHES'])
    taps = 2 * len(window['PLACES'])  # and their gradients
    waiting = 2 * window['REACH']
    return (x.shape[3] <= LANES and values + taps + waiting <= MOST_VALUES
            and (x.is_contiguous()
                 or not x.is_contiguous(memory_format=torch.channels_last)))


def _backward_shape(dilations: Tuple[int, ...], kernel: int,
                    lanes: int) -> dict:
    """Return all constants of the backward kernel."""
    window = window_shape(dilations, kernel, BACKWARD_ROWS)
    wide = lanes + 2 * window['REACH']
    taps = len(window['PLACES'])
    return dict(
        window,
        DILATIONS=dilations,
        KERNEL=kernel,
        LANES_=lanes,
        WIDE=wide,
        SPACE=2 * BACKWARD_ROWS * len(dilations) * wide + taps * lanes,
        ALL=next_power_of_2(taps))
