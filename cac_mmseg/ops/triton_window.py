"""A window of X that rolls down a plane in registers.

For each shift of the columns it has the rows that taps read: from the reach of
the shift above the current row to its reach below the last of ROWS.
"""
from functools import lru_cache
from typing import Tuple

import triton
import triton.language as tl

from .triton_reweighting import _within


@triton.constexpr_function
def _start(shift, REACHES, ROWS):
    """Where the rows of a shift start in a window of ROWS."""
    return sum(2 * reach + ROWS for reach in REACHES[:shift])


@triton.constexpr_function
def places(i, j, PLACES, TAPS):
    """Where the window has what the taps of branch i read in row j."""
    return tuple(place + j for place in PLACES[i * TAPS:(i + 1) * TAPS])


@triton.jit
def load_row(x,
             row,
             column,
             height,
             width,
             inside,
             SHIFT: tl.constexpr = 0,
             CHECK: tl.constexpr = True):
    """A row of a plane, shifted: float32, and zero outside."""
    if CHECK:  # whether there is such a row
        inside &= _within(row + column * 0, height)
    value = tl.load(x + row * width + column + SHIFT, mask=inside, other=0.)
    return value.to(tl.float32)


@triton.jit
def first_rows(x, column, height, width, SHIFTS: tl.constexpr,
               REACHES: tl.constexpr):
    """The window before row 0: of a shift, as many rows below as above."""
    window = ()
    for s in tl.static_range(len(SHIFTS)):
        inside = _within(column + SHIFTS[s], width)
        for r in tl.static_range(REACHES[s]):
            window = window + (tl.zeros(column.shape, tl.float32), )
        for r in tl.static_range(REACHES[s]):
            window = window + (load_row(x, r, column, height, width, inside,
                                        SHIFTS[s]), )
    return window


@triton.jit
def next_rows(window,
              x,
              row,
              column,
              height,
              width,
              SHIFTS: tl.constexpr,
              REACHES: tl.constexpr,
              ROWS: tl.constexpr,
              CHECK: tl.constexpr = True):
    """The window with ROWS rows of each shift more, as from ``row`` read."""
    values = ()
    for s in tl.static_range(len(SHIFTS)):
        inside = _within(column + SHIFTS[s], width)
        for r in tl.static_range(2 * REACHES[s]):
            values = values + (window[_start(s, REACHES, 0) + r], )
        for r in tl.static_range(ROWS):
            values = values + (load_row(x, row + REACHES[s] + r, column,
                                        height, width, inside, SHIFTS[s],
                                        CHECK), )
    return values


@triton.jit
def last_rows(values, REACHES: tl.constexpr, ROWS: tl.constexpr):
    """The window without the first ROWS rows of each shift."""
    window = ()
    for s in tl.static_range(len(REACHES)):
        for r in tl.static_range(2 * REACHES[s]):
            window = window + (values[_start(s, REACHES, ROWS) + ROWS + r], )
    return window


@lru_cache(maxsize=None)
def window_shape(dilations: Tuple[int, ...], kernel: int, rows: int) -> dict:
    """Return what is known of the window when a kernel is compiled.

    SHIFTS are the different columns of all taps, relative to a position,
    REACHES the farthest row that a tap of each reads, REACH that of all,
    CENTRE where the window has the position itself, PLACES what each tap of
    each branch reads, for the first of its ROWS.
    """
    half = range(-(kernel // 2), kernel // 2 + 1)
    shifts = sorted(
        {0, *(k * dilation for dilation in dilations for k in half)})
    reaches = tuple(
        max(dilation * (kernel // 2) for dilation in dilations
            if shift in {k * dilation
                         for k in half}) for shift in shifts)
    centres = {
        shift: sum(2 * reach + rows for reach in reaches[:i]) + reaches[i]
        for i, shift in enumerate(shifts)
    }
    return dict(
        ROWS=rows,
        SHIFTS=tuple(shifts),
        REACHES=reaches,
        REACH=max(reaches),
        CENTRE=centres[0],
        PLACES=tuple(centres[k * dilation] + row * dilation
                     for dilation in dilations for row in half for k in half))
