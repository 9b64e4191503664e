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

Int = int | np.int64
"""An integer in a kernel: int64 once compiled, either of the two in plain Python."""

_WHOLE_MAX, _COUNT_MAX = 1 << 32, 1 << 20
"""So many integers of this size have a sum that float64 holds, as it holds that of their distances from one of them."""
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


@inlined
def _window_end(ts_ns: Array, first: Int, last: Int, end_ns: Int, step: Int) -> Int:
    """Where samples of `end_ns` and later begin, of those from `first` to `last`, in rising time; guess: `step` further on."""
    low = first
    high = min(first + max(step, 1), last)
    while high < last and ts_ns[high] < end_ns:
        step = 2 * (high - low)
        low = high
        high = min(high + step, last)
    while low < high:
        middle = (low + high) >> 1
        if ts_ns[middle] < end_ns:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def finest_windows(
    ts_ns: Array, spans: Spans, may: Array, every_ns: int, samples_min: int, out: Array
) -> None:
    """Set `out` of sensors that may have them to `every_ns` where windows of that length hold enough samples on average."""
    begins, ends = spans
    for s in range(len(begins)):
        if not may[s]:
            continue
        n_most = (ends[s] - begins[s]) // samples_min
        n = 0
        at = begins[s]
        step = np.int64(1)
        while at < ends[s] and n <= n_most:
            end_ns = ts_ns[at] - ts_ns[at] % every_ns + every_ns
            after = _window_end(ts_ns, at, ends[s], end_ns, step)
            step = after - at
            at = after
            n += 1
        if n <= n_most:
            out[s] = every_ns


@kernel
def reduce_windows(
    spans: Spans,
    ts_ns: Array,
    values: Array,
    quality: Array,
    every_ns: int,
    is_whole: bool,
    out: tuple[Array, Array, Array],
) -> int:
    """Fill one row for each window that has a usable sample, and return how many have; `is_whole`: values are int64. Times rise.

    ``times[n, 5]``: place of the sensor, window, first time, count, last time; ``kept[n, 5]``: low, high, first, last, raw
    sum; ``sums[n, 4]``: sum, mean, squares, what rounding the sum left out (see `_settle`).
    """
    times, kept, sums = out
    begins, ends = spans
    n = 0
    for s in range(len(begins)):
        at = begins[s]
        step = np.int64(1)
        while at < ends[s]:
            begin = ts_ns[at] - ts_ns[at] % every_ns if every_ns > 0 else np.int64(0)
            after = _window_end(ts_ns, at, ends[s], begin + every_ns, step) if every_ns > 0 else ends[s]
            first = at
            while first < after and (quality[first] >= USABLE_BELOW or values[first] != values[first]):
                first += 1
            if first < after:
                times[n, 0] = s
                times[n, 1] = begin
                times[n, 2] = ts_ns[first]
                row = times[n], kept[n], sums[n]
                if not (is_whole and _reduce_whole((first, after), ts_ns, values, quality, row)):
                    _reduce((first, after), ts_ns, values, quality, row)
                n += 1
            step = after - at
            at = after
    return n


@inlined
def _reduce_whole(
    span: tuple[Int, Int], ts_ns: Array, values: Array, quality: Array, out: tuple[Array, Array, Array]
) -> bool:
    """As `_reduce`, of integers whose sums float64 holds; False where it may not. A third of the time."""
    times, kept, sums = out
    begin, end = span
    first = values[begin]
    low = high = last = raw = first
    count = 1
    newest = begin
    squares = 0.0
    for i in range(begin + 1, end):
        if quality[i] >= USABLE_BELOW:
            continue
        v = values[i]
        count += 1
        newest = i
        low = min(low, v)
        high = max(high, v)
        last = v
        raw += v
        d = np.float64(v) - np.float64(first)
        squares += d * d
    if low < -_WHOLE_MAX or high > _WHOLE_MAX or count > _COUNT_MAX:
        return False
    total = np.float64(raw - count * first)
    times[3] = count
    times[4] = ts_ns[newest]
    kept[0], kept[1], kept[2], kept[3], kept[4] = low, high, first, last, raw
    sums[0], sums[3] = raw, 0.0
    sums[1] = np.float64(first) + total / count
    sums[2] = max(squares - total * total / count, 0.0)
    return True


@inlined
def _reduce(
    span: tuple[Int, Int], ts_ns: Array, values: Array, quality: Array, out: tuple[Array, Array, Array]
) -> None:
    """One window, whose first sample is usable."""
    times, kept, sums = out
    begin, end = span
    first = values[begin]
    low = high = last = raw = first
    base = float(first)
    count = 1
    newest = begin
    shifted = carried = squares = 0.0
    exact = (base, 0.0, 0.0, False)
    for i in range(begin + 1, end):
        v = values[i]
        if quality[i] >= USABLE_BELOW or v != v:
            continue
        count += 1
        newest = i
        low = min(low, v)
        high = max(high, v)
        last = v
        raw += v
        x = np.float64(v)
        exact = _add(exact, x)
        d = x - base
        shifted, left = _two_sum(shifted, d)
        carried += left
        squares += d * d
    total = shifted + carried
    times[3] = count
    times[4] = ts_ns[newest]
    kept[0], kept[1], kept[2], kept[3], kept[4] = low, high, first, last, raw
    sums[0], sums[3] = _settle(exact)
    sums[1] = base + total / count
    sums[2] = max(squares - total * total / count, 0.0)


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
