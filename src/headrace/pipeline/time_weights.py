"""Kernels of time-weighted means: each value counts for the time until the next one.

They use the accumulators of `headrace.pipeline.windows` with other meanings: ``shifted: float64[D]`` is the
area under ``x - first`` in value times ns, from the window's start to the newest sample, and ``squares`` the time
of the newest sample in ns after the window's start (exact up to 104 days). The stretch before the first sample adds
nothing to an area above the first value, so it needs no place of its own. Areas of integers are exact while they
stay below 2**53 (a minute of 16-bit values does).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import inlined, kernel
from headrace.pipeline.windows import DIRTY, EMPTY, SKIPPED, close_row, open_row

Array = npt.NDArray[Any]


@inlined
def _weigh(r: int, j: int, v: Any, at_ns: float, is_step: bool, state: tuple[Array, ...]) -> None:
    """Add the stretch from the newest sample of a sensor to this one."""
    first, last, shifted, squares = state[6], state[7], state[10], state[11]
    lapse_ns = at_ns - squares[r, j]
    if lapse_ns < 0.0:
        return  # it is not in order, so the window is dirty
    base = np.float64(first[r, j])
    level = np.float64(last[r, j]) - base
    if not is_step:
        level = 0.5 * (level + (np.float64(v) - base))
    shifted[r, j] += level * lapse_ns
    squares[r, j] = at_ns
    last[r, j] = v


@kernel
def weigh_dense(
    frames: tuple[Array, Array],
    samples: tuple[Array, Array],
    is_step: Array,
    every_ns: int,
    out: tuple[Array, ...],
    state: tuple[Array, ...],
) -> int:
    """Add dense frames; what closes goes to `out`; how many closed.

    ``frames`` = (ts_ns[F], row[F]); ``samples`` = (values[F, D], usable[F, D]); ``is_step: bool[D]``.
    """
    ts_ns, row = frames
    values, usable = samples
    window, count, newest, flags = state[0], state[1], state[4], state[5]
    first, last, shifted, squares, skipped = state[6], state[7], state[10], state[11], state[12]
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
        at_ns = np.float64(ts_ns[f] - window[r])
        for j in range(values.shape[1]):
            if not usable[f, j]:
                skipped[r, j] += 1
                flags[r] = flags[r] | SKIPPED
            elif skipped[r, j] == n:
                first[r, j] = values[f, j]
                last[r, j] = values[f, j]
                shifted[r, j] = 0.0
                squares[r, j] = at_ns
            else:
                _weigh(r, j, values[f, j], at_ns, is_step[j], state)
    return n_out


@kernel
def weigh_loose(
    frames: tuple[Array, Array, Array],
    samples: tuple[Array, Array, Array, Array, Array],
    is_step: Array,
    every_ns: int,
    out: tuple[Array, ...],
    state: tuple[Array, ...],
) -> int:
    """Add the values of sparse frames or waves; see `headrace.pipeline.windows.accumulate_loose`."""
    frame_ts, row, start = frames
    ts_ns, column, values, usable, early = samples
    window, count, loose, newest, flags = state[0], state[1], state[2], state[4], state[5]
    first, last, shifted, squares, skipped = state[6], state[7], state[10], state[11], state[12]
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
            flags[r] = flags[r] | SKIPPED
            if not usable[i]:
                continue
            j, v = column[i], values[i]
            at_ns = np.float64(t - window[r])
            if skipped[r, j] == count[r]:
                first[r, j] = v
                last[r, j] = v
                shifted[r, j] = 0.0
                squares[r, j] = at_ns
            else:
                _weigh(r, j, v, at_ns, is_step[j], state)
            skipped[r, j] -= 1
            loose[r] += 1
    return n_out
