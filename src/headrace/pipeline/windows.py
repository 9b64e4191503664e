"""Kernels of tumbling windows: a row of accumulators for each group, updated frame by frame.

Accumulators of one row (D columns): ``first, last, low, high: T[D]`` in the source's own type, and
``shifted, squares: float64[D]``, the sums of ``x - first`` and ``(x - first)**2``. Shifting by the first value
keeps sums exact for integers up to 32 bits, squares up to 16 (2**20 samples a window), and both well conditioned
for floats (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance"). Frames of a group
are added in time order, so that any split of the data into batches gives the same bits.

How many values column j has is ``count - skipped[j]``: a dense frame raises `count` for all columns at once,
an absent value raises its `skipped`, and a value that came alone (sparse, wave) lowers it. So dense frames
touch nothing by column that they need not, and single values cost the same in a group of any width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import kernel

Array = npt.NDArray[Any]
EMPTY = -(2**63)
"""Start of a row that has no window."""
ELSEWHERE = -1
"""`told` of a row some of whose sensors were told of with an earlier layout."""
SKIPPED, DIRTY = 1, 2
"""Flags of a row: `skipped` is not all zero; the window needs a revision when it was told of."""
MIXED = -2
STATE_FIELDS = (
    "window",  # int64: where the open window starts
    "count",  # int64: dense frames
    "loose",  # int64: usable values that came in sparse frames or waves
    "told",  # int64: count + loose when the window was last told of; 0 for never
    "newest",  # int64: latest time of a loose value
    "flags",  # uint8
    "first", "last", "low", "high",  # T[D]
    "shifted", "squares",  # float64[D]
    "skipped",  # int32[D]
)  # fmt: skip


@kernel
def only_class(slot: Array, class_of_slot: Array) -> int:
    """The class that all frames share, or `MIXED`."""
    one = class_of_slot[slot[0]]
    for f in range(1, len(slot)):
        if class_of_slot[slot[f]] != one:
            return MIXED
    return int(one)


@kernel
def look_ahead(ts_ns: Array, row: Array, window: Array, every_ns: int) -> tuple[int, int]:
    """At most how many windows dense frames close, and how many of the frames lie before their row's window."""
    n_rolls = n_early = 0
    for f in range(len(ts_ns)):
        start = window[row[f]]
        if start == EMPTY or ts_ns[f] - start >= every_ns:
            n_rolls += 1
        elif ts_ns[f] < start:
            n_early += 1
    return n_rolls, n_early


@kernel
def close_row(r: int, n: int, out: tuple[Array, ...], state: tuple[Array, ...]) -> int:
    """Copy row `r` to output place `n`; the next free place."""
    window, count, loose, told, _, flags, first, last, low, high, shifted, squares, skipped = state
    o_row, o_window, o_heard, o_told, o_loose, o_flags = out[:6]
    o_first, o_last, o_low, o_high, o_shifted, o_squares, o_n = out[6:]
    width = first.shape[1]
    o_row[n] = r
    o_window[n] = window[r]
    o_heard[n] = count[r] + loose[r]
    o_told[n] = told[r]
    o_loose[n] = loose[r]
    o_flags[n] = flags[r]
    for j in range(width):
        o_first[n, j] = first[r, j]
        o_last[n, j] = last[r, j]
    for j in range(width):
        o_low[n, j] = low[r, j]
        o_high[n, j] = high[r, j]
    for j in range(width):
        o_shifted[n, j] = shifted[r, j]
        o_squares[n, j] = squares[r, j]
    for j in range(width):
        o_n[n, j] = count[r] - skipped[r, j]
    return n + 1


@kernel
def open_row(r: int, start_ns: int, state: tuple[Array, ...]) -> None:
    """Begin the window at `start_ns` in row `r`."""
    window, count, loose, told, newest, flags = state[:6]
    skipped = state[12]
    window[r] = start_ns
    count[r] = 0
    told[r] = 0
    if flags[r]:
        loose[r] = 0
        newest[r] = EMPTY
        flags[r] = 0
        for j in range(skipped.shape[1]):
            skipped[r, j] = 0


@kernel
def accumulate(
    ts_ns: Array, row: Array, values: Array, every_ns: int, out: tuple[Array, ...], state: tuple[Array, ...]
) -> int:
    """Add dense frames whose values are all usable; what closes goes to `out`; how many closed.

    Inner loops run over the D values of a frame and touch few arrays each, so that they vectorise.
    """
    window, count, newest, flags = state[0], state[1], state[4], state[5]
    first, last, low, high, shifted, squares, skipped = state[6:]
    width = values.shape[1]
    n_out = 0
    for f in range(len(ts_ns)):
        r = row[f]
        start = window[r]
        # A division costs more than all the rest for a lone sensor: only where the window may change.
        if start == EMPTY or ts_ns[f] - start >= every_ns:
            if start != EMPTY:
                n_out = close_row(r, n_out, out, state)
            open_row(r, ts_ns[f] // every_ns * every_ns, state)
        n = count[r]
        count[r] = n + 1
        if flags[r]:
            if ts_ns[f] <= newest[r]:
                flags[r] = flags[r] | DIRTY
            for j in range(width):
                if skipped[r, j] == n:
                    first[r, j] = values[f, j]
                    low[r, j] = values[f, j]
                    high[r, j] = values[f, j]
                    shifted[r, j] = 0.0
                    squares[r, j] = 0.0
        elif n == 0:
            for j in range(width):
                v = values[f, j]
                first[r, j] = v
                last[r, j] = v
                low[r, j] = v
                high[r, j] = v
            for j in range(width):
                shifted[r, j] = 0.0
                squares[r, j] = 0.0
            continue
        if width == 1:
            # A lone sensor: the preambles of vector loops would cost more than the work.
            v = values[f, 0]
            last[r, 0] = v
            low[r, 0] = min(low[r, 0], v)
            high[r, 0] = max(high[r, 0], v)
            d = np.float64(v) - np.float64(first[r, 0])
            shifted[r, 0] += d
            squares[r, 0] += d * d
            continue
        for j in range(width):
            v = values[f, j]
            last[r, j] = v
            if v < low[r, j]:
                low[r, j] = v
            if v > high[r, j]:
                high[r, j] = v
        for j in range(width):
            d = np.float64(values[f, j]) - np.float64(first[r, j])
            shifted[r, j] += d
            squares[r, j] += d * d
    return n_out


@kernel
def accumulate_some(
    frames: tuple[Array, Array],
    values: Array,
    usable: Array,
    every_ns: int,
    out: tuple[Array, ...],
    state: tuple[Array, ...],
) -> int:
    """As `accumulate`, passing over values that are not usable (``usable: bool[F, D]``)."""
    ts_ns, row = frames
    window, count, newest, flags = state[0], state[1], state[4], state[5]
    first, last, low, high, shifted, squares, skipped = state[6:]
    n_out = 0
    for f in range(len(ts_ns)):
        r = row[f]
        start = window[r]
        if start == EMPTY or ts_ns[f] - start >= every_ns:
            if start != EMPTY:
                n_out = close_row(r, n_out, out, state)
            open_row(r, ts_ns[f] // every_ns * every_ns, state)
        if flags[r] and ts_ns[f] <= newest[r]:
            flags[r] = flags[r] | DIRTY
        n = count[r]
        count[r] = n + 1
        for j in range(values.shape[1]):
            v = values[f, j]
            if not usable[f, j]:
                skipped[r, j] += 1
                flags[r] = flags[r] | SKIPPED
            elif skipped[r, j] == n:
                first[r, j] = v
                last[r, j] = v
                low[r, j] = v
                high[r, j] = v
                shifted[r, j] = 0.0
                squares[r, j] = 0.0
            else:
                last[r, j] = v
                if v < low[r, j]:
                    low[r, j] = v
                if v > high[r, j]:
                    high[r, j] = v
                d = np.float64(v) - np.float64(first[r, j])
                shifted[r, j] += d
                squares[r, j] += d * d
    return n_out


@kernel
def look_ahead_loose(ts_ns: Array, row: Array, start: Array, window: Array, every_ns: int) -> int:
    """At most how many windows the values of sparse frames or waves close."""
    n_rolls = 0
    for f in range(len(row)):
        opened = window[row[f]]
        for i in range(start[f], start[f + 1]):
            n_rolls += opened == EMPTY or ts_ns[i] - opened >= every_ns
    return n_rolls


@kernel
def accumulate_loose(
    frames: tuple[Array, Array, Array],
    samples: tuple[Array, Array, Array, Array, Array],
    every_ns: int,
    out: tuple[Array, ...],
    state: tuple[Array, ...],
) -> int:
    """Add the values of sparse frames or waves.

    ``frames`` = (ts_ns[F], row[F], start[F + 1]); ``samples`` = (ts_ns[N], column[N], values[N], usable[N],
    early[N]), where `early` is written: values before their row's window. A value that may not be the latest
    of its sensor makes the window dirty: the sums stand, but first, last and the order of additions need not.
    """
    frame_ts, row, start = frames
    ts_ns, column, values, usable, early = samples
    window, count, loose, _, newest, flags = state[:6]
    first, last, low, high, shifted, squares, skipped = state[6:]
    n_out = 0
    for f in range(len(row)):
        r = row[f]
        before = newest[r]
        for i in range(start[f], start[f + 1]):
            t, opened = ts_ns[i], window[r]
            early[i] = opened != EMPTY and t < opened
            if early[i]:
                continue
            if opened == EMPTY or t - opened >= every_ns:
                if opened != EMPTY:
                    n_out = close_row(r, n_out, out, state)
                open_row(r, t // every_ns * every_ns, state)
                before = EMPTY
                newest[r] = EMPTY
            if t <= before or (count[r] > 0 and t != frame_ts[f]):
                flags[r] = flags[r] | DIRTY
            newest[r] = max(newest[r], t)
            # Also without a usable value: `newest` must be forgotten when the next window opens.
            flags[r] = flags[r] | SKIPPED
            if not usable[i]:
                continue
            j, v = column[i], values[i]
            if skipped[r, j] == count[r]:
                first[r, j] = v
                low[r, j] = v
                high[r, j] = v
                shifted[r, j] = 0.0
                squares[r, j] = 0.0
            last[r, j] = v
            low[r, j] = min(low[r, j], v)
            high[r, j] = max(high[r, j], v)
            d = np.float64(v) - np.float64(first[r, j])
            shifted[r, j] += d
            squares[r, j] += d * d
            skipped[r, j] -= 1
            loose[r] += 1
    return n_out


@kernel
def close_rows(rows: Array, out: tuple[Array, ...], state: tuple[Array, ...]) -> None:
    """Copy `rows` to `out` and remember in each how much was told of; rows stay open."""
    for i in range(len(rows)):
        close_row(rows[i], i, out, state)
        state[3][rows[i]] = state[1][rows[i]] + state[2][rows[i]]


@kernel
def move_on(rows: Array, start_ns: Array, out: tuple[Array, ...], state: tuple[Array, ...]) -> int:
    """Close the windows of `rows` and open those at `start_ns` as told of and dirty; how many closed.

    So a window that only late data have reached is there, with nothing in it, and what still comes in time
    for it leads to a revision.
    """
    n_out = 0
    for i in range(len(rows)):
        r = rows[i]
        if state[0][r] != EMPTY:
            n_out = close_row(r, n_out, out, state)
        open_row(r, start_ns[i], state)
        state[1][r] = 1
        state[3][r] = 1
        state[5][r] = SKIPPED | DIRTY
        for j in range(state[12].shape[1]):
            state[12][r, j] = 1
    return n_out
