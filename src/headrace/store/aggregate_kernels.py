"""The kernels of `headrace.store.aggregates`, apart so that numba is loaded when the first window is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import inlined, kernel
from headrace.core.quality import USABLE_BELOW

Array = npt.NDArray[Any]

Spans = tuple[Array, Array]
"""Where each sensor's samples begin and end."""

_NO_WINDOW = np.int64(-(2**63))


@inlined
def _two_sum(a: float, b: float) -> tuple[float, float]:
    """``a + b`` rounded, and exactly what the rounding left out (Knuth, TAOCP 4.2.2)."""
    total = a + b
    apart = total - a
    return total, (a - (total - apart)) + (b - apart)


@inlined
def _add(state: tuple[float, float, float, bool], x: float) -> tuple[float, float, float, bool]:
    """An exact sum and one more: three floats whose sum it is, and whether they hold it no longer."""
    total, low, lowest, lost = state
    total, left = _two_sum(total, x)
    low, left = _two_sum(low, left)
    lowest, left = _two_sum(lowest, left)
    return total, low, lowest, lost or left != 0.0


@inlined
def _settle(state: tuple[float, float, float, bool]) -> tuple[float, float]:
    """The float64 nearest to an exact sum, and what is left of it; NaN where two floats can't hold it.

    They are the same in whatever order the sum was formed. The rounding of halves is that of Python's ``math.fsum``.
    """
    total, low, lowest, lost = state
    plain = total
    for _ in range(3):
        low, lowest = _two_sum(low, lowest)
        total, low = _two_sum(total, low)
    low, lowest = _two_sum(low, lowest)
    if lost or total - total != 0.0:
        return (total if total - total == 0.0 else plain), np.nan
    if low * lowest > 0.0:
        twice = low + low
        other = total + twice
        if twice == other - total:
            total, low = other, -low
            low, lowest = _two_sum(low, lowest)
    return total, (low if lowest == 0.0 else np.nan)


@kernel
def sum_stretches(at: Array, total: Array, low: Array, out: tuple[Array, Array]) -> None:
    """Sum exact sums: ``at: int64[n]`` says where the rows of each of ``out`` = (total[n], low[n]) start."""
    for i in range(len(at)):
        first = at[i]
        last = at[i + 1] if i + 1 < len(at) else len(total)
        state = (0.0, 0.0, 0.0, False)
        for j in range(first, last):
            state = _add(state, total[j])
            if low[j] == low[j]:
                state = _add(state, low[j])
            else:
                state = (state[0], state[1], state[2], True)
        out[0][i], out[1][i] = _settle(state)


@kernel
def count_windows(spans: Spans, ts_ns: Array, values: Array, quality: Array, every_ns: int) -> int:
    """How many (sensor, window) have a usable sample."""
    first, last = spans
    n = 0
    for s in range(len(first)):
        begin = _NO_WINDOW
        end = _NO_WINDOW
        for i in range(first[s], last[s]):
            if quality[i] >= USABLE_BELOW or values[i] != values[i]:
                continue
            ts = ts_ns[i]
            if end == _NO_WINDOW or (every_ns > 0 and not begin <= ts < end):
                begin = ts - ts % every_ns if every_ns > 0 else np.int64(0)
                end = begin + every_ns if every_ns > 0 else np.int64(0)
                n += 1
    return n


@kernel
def reduce_windows(
    spans: Spans, ts_ns: Array, values: Array, quality: Array, every_ns: int, out: tuple[Array, Array, Array]
) -> None:
    """Fill one row for each window.

    ``times[n, 5]``: place of the sensor, window, first time, count, last time; ``kept[n, 5]``: low, high, first, last, raw
    sum; ``sums[n, 4]``: sum, mean, squares, what rounding the sum left out (see `_settle`).
    """
    times, kept, sums = out
    begins, ends = spans
    n = -1
    for s in range(len(begins)):
        begin = _NO_WINDOW
        end = _NO_WINDOW
        count = 0
        shifted = carried = squares = 0.0
        exact = (0.0, 0.0, 0.0, False)
        for i in range(begins[s], ends[s]):
            v = values[i]
            if quality[i] >= USABLE_BELOW or v != v:
                continue
            ts = ts_ns[i]
            if end == _NO_WINDOW or (every_ns > 0 and not begin <= ts < end):
                if count > 0:
                    _finish(n, count, (shifted, carried, squares), exact, (kept, times, sums))
                n += 1
                begin = ts - ts % every_ns if every_ns > 0 else np.int64(0)
                end = begin + every_ns if every_ns > 0 else np.int64(0)
                times[n, 0] = s
                times[n, 1] = begin
                times[n, 2] = ts
                times[n, 4] = ts
                for j in range(5):
                    kept[n, j] = v
                count = 1
                shifted = carried = squares = 0.0
                exact = (np.float64(v), 0.0, 0.0, False)
                continue
            count += 1
            exact = _add(exact, np.float64(v))
            kept[n, 0] = min(kept[n, 0], v)
            kept[n, 1] = max(kept[n, 1], v)
            kept[n, 3] = v
            kept[n, 4] += v
            times[n, 4] = ts
            d = np.float64(v) - np.float64(kept[n, 2])
            total = shifted + d
            if abs(shifted) >= abs(d):
                carried += (shifted - total) + d
            else:
                carried += (d - total) + shifted
            shifted = total
            squares += d * d
        if count > 0:
            _finish(n, count, (shifted, carried, squares), exact, (kept, times, sums))


@kernel
def _finish(
    n: int,
    count: int,
    state: tuple[float, float, float],
    exact: tuple[float, float, float, bool],
    out: tuple[Array, Array, Array],
) -> None:
    kept, times, sums = out
    shifted, carried, squares = state
    total = shifted + carried
    first = np.float64(kept[n, 2])
    times[n, 3] = count
    sums[n, 0], sums[n, 3] = _settle(exact)
    sums[n, 1] = first + total / count
    sums[n, 2] = max(squares - total * total / count, 0.0)


@kernel
def weigh_windows(
    samples: tuple[Spans, Array, Array, Array],
    is_step: Array,
    every_ns: int,
    span: tuple[int, int],
    twa: Array,
) -> None:
    """Fill ``twa[n]``, the time-weighted mean of each window of `reduce_windows`.

    ``samples`` = (spans, ts_ns, values, quality); ``is_step: bool[s]``; ``span``: the window where `every_ns` is 0.

    Areas are of differences from the window's first value, in value times ns.
    """
    spans, ts_ns, values, quality = samples
    begins, ends = spans
    n = -1
    for s in range(len(begins)):
        begin = _NO_WINDOW
        end = _NO_WINDOW
        first = level = area = 0.0
        newest = np.int64(0)
        for i in range(begins[s], ends[s]):
            v = values[i]
            if quality[i] >= USABLE_BELOW or v != v:
                continue
            ts = ts_ns[i]
            if end == _NO_WINDOW or (every_ns > 0 and not begin <= ts < end):
                if end != _NO_WINDOW:
                    twa[n] = first + (area + level * (end - newest)) / (end - begin)
                n += 1
                begin = ts - ts % every_ns if every_ns > 0 else np.int64(span[0])
                end = begin + every_ns if every_ns > 0 else np.int64(span[1])
                first = np.float64(v)
                area = level = 0.0
                newest = ts
                continue
            now = np.float64(v) - first
            area += (level if is_step[s] else 0.5 * (level + now)) * (ts - newest)
            level = now
            newest = ts
        if end != _NO_WINDOW:
            twa[n] = first + (area + level * (end - newest)) / (end - begin)
