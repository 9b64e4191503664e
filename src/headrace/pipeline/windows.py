"""Kernels of tumbling windows: a row of accumulators for each group, updated frame by frame.

Accumulators of one row (D columns): ``first, last, low, high: T[D]`` in the source's own type, and
``shifted, squares: float64[D]``, the sums of ``x - first`` and ``(x - first)**2``. Shifting by the first value
keeps both exact for integers up to 32 bits (up to 2**20 samples a window) and well conditioned for floats
(Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance"). Frames of a group are
added in time order, so that any split of the data into batches gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import kernel

Array = npt.NDArray[Any]
EMPTY = -(2**63)
"""Start of a row that has no window."""
MIXED = -2
UNKNOWN = -1


@kernel
def only_class(slot: Array, class_of_slot: Array) -> int:
    """The class that all frames share, or `MIXED`."""
    one = class_of_slot[slot[0]]
    for f in range(1, len(slot)):
        if class_of_slot[slot[f]] != one:
            return MIXED
    return int(one)


@kernel
def find_rows(slot: Array, local: Array, row_of_group: Array, row: Array) -> int:
    """Write the row of each frame's group to `row`; how many groups have none (`UNKNOWN`)."""
    n = 0
    for f in range(len(slot)):
        at = local[slot[f]]
        row[f] = row_of_group[at] if at < len(row_of_group) else UNKNOWN
        n += row[f] < 0
    return n


@kernel
def count_rolls(ts_ns: Array, row: Array, window: Array, every_ns: int) -> int:
    """At most how many windows these frames close: frames that lie past their row's window."""
    n = 0
    for f in range(len(ts_ns)):
        start = window[row[f]]
        n += start != EMPTY and ts_ns[f] - start >= every_ns
    return n


@kernel
def _close(r: int, n: int, out: tuple[Array, ...], state: tuple[Array, ...]) -> int:
    """Copy row `r` to output place `n` and empty it; the next free place."""
    window, count, _, emitted, first, last, low, high, shifted, squares, skipped = state
    o_row, o_window, o_count, o_emitted, o_first, o_last, o_low, o_high, o_shifted, o_squares, o_skipped = out
    width = first.shape[1]
    o_row[n] = r
    o_window[n] = window[r]
    o_count[n] = count[r]
    o_emitted[n] = emitted[r]
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
        o_skipped[n, j] = skipped[r, j]
    return n + 1


@kernel
def _open(r: int, start_ns: int, state: tuple[Array, ...]) -> None:
    window, count, skipped_any, emitted = state[0], state[1], state[2], state[3]
    skipped = state[10]
    window[r] = start_ns
    count[r] = 0
    emitted[r] = 0
    if skipped_any[r]:
        skipped_any[r] = 0
        for j in range(skipped.shape[1]):
            skipped[r, j] = 0


@kernel
def accumulate(
    ts_ns: Array, row: Array, values: Array, every_ns: int, out: tuple[Array, ...], state: tuple[Array, ...]
) -> int:
    """Add frames whose values are all usable; what closes goes to `out`; how many closed.

    Inner loops run over the D values of a frame and touch few arrays each, so that they vectorise.
    """
    window, count, skipped_any = state[0], state[1], state[2]
    first, last, low, high, shifted, squares, skipped = state[4:]
    width = values.shape[1]
    n_out = 0
    for f in range(len(ts_ns)):
        r = row[f]
        start = window[r]
        # A division costs more than all the rest for a lone sensor: only where the window may change.
        if start == EMPTY or ts_ns[f] - start >= every_ns:
            if start != EMPTY:
                n_out = _close(r, n_out, out, state)
            _open(r, ts_ns[f] // every_ns * every_ns, state)
        n = count[r]
        count[r] = n + 1
        if n == 0:
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
        if skipped_any[r]:
            for j in range(width):
                if skipped[r, j] == n:
                    first[r, j] = values[f, j]
                    low[r, j] = values[f, j]
                    high[r, j] = values[f, j]
                    shifted[r, j] = 0.0
                    squares[r, j] = 0.0
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
    ts_ns: Array,
    row: Array,
    values: Array,
    usable: Array,
    every_ns: int,
    out: tuple[Array, ...],
    state: tuple[Array, ...],
) -> int:
    """As `accumulate`, passing over values that are not usable (``usable: bool[F, D]``)."""
    window, count, skipped_any = state[0], state[1], state[2]
    first, last, low, high, shifted, squares, skipped = state[4:]
    n_out = 0
    for f in range(len(ts_ns)):
        r = row[f]
        start = window[r]
        # A division costs more than all the rest for a lone sensor: only where the window may change.
        if start == EMPTY or ts_ns[f] - start >= every_ns:
            if start != EMPTY:
                n_out = _close(r, n_out, out, state)
            _open(r, ts_ns[f] // every_ns * every_ns, state)
        n = count[r]
        count[r] = n + 1
        for j in range(values.shape[1]):
            v = values[f, j]
            if not usable[f, j]:
                skipped[r, j] += 1
                skipped_any[r] = 1
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
def close_rows(rows: Array, out: tuple[Array, ...], state: tuple[Array, ...]) -> None:
    """Copy `rows` to `out` and remember in each how many frames were told of; rows stay open."""
    for i in range(len(rows)):
        _close(rows[i], i, out, state)
        state[3][rows[i]] = state[1][rows[i]]
