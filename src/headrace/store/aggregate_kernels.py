"""The kernels of `headrace.store.aggregates`, apart so that numba is loaded when the first window is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel, lean_leaf
from headrace.core.quality import USABLE_BELOW

Array = npt.NDArray[Any]

Spans = tuple[Array, Array]
"""Where each sensor's samples begin and end."""

Int = int | np.int64
"""An integer in a kernel: int64 once compiled, either of the two in plain Python."""

_WHOLE_MAX, _COUNT_MAX = 1 << 32, 1 << 20
"""So many integers of this size have a sum that float64 holds, as it holds that of their distances from one of them."""
_EXACT_MAX = 2.0**53
"""Up to it float64 holds all whole numbers."""
_PIECE = 256
"""So many samples are looked at at a time for some that are not usable, without which the rest takes half as long."""
_TINY, _HUGE = 1e-280, 1e280
"""Between these nothing that is computed of a number over- or underflows."""
_NO_WINDOW = np.int64(-(2**63))


@lean_leaf
def _two_sum(a: float, b: float) -> tuple[float, float]:
    """``a + b`` rounded, and exactly what the rounding left out (Knuth, TAOCP 4.2.2)."""
    total = a + b
    apart = total - a
    return total, (a - (total - apart)) + (b - apart)


@lean_leaf
def _add(state: tuple[float, float, float, bool], x: float) -> tuple[float, float, float, bool]:
    """An exact sum and one more: three floats whose sum it is, and whether they hold it no longer."""
    total, low, lowest, lost = state
    total, left = _two_sum(total, x)
    low, left = _two_sum(low, left)
    lowest, left = _two_sum(lowest, left)
    return total, low, lowest, lost or left != 0.0


@lean_leaf
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


@lean_kernel
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


@lean_leaf
def _window_end(ts_ns: Array, first: Int, last: Int, end_ns: Int, step: Int) -> Int:
    """Where samples of `end_ns` and later begin, of those from `first` to `last`, in rising time; guess: `step` further on."""
    guess = min(first + max(step, 1), last)
    low, high = first, guess
    stride = np.int64(1)
    if ts_ns[guess - 1] < end_ns:  # so it is where windows hold the same number of samples
        low = high = guess
        while high < last and ts_ns[high] < end_ns:
            low = high + 1
            high = min(high + stride, last)
            stride *= 2
    else:
        high = low = guess - 1
        while low > first and ts_ns[low - 1] >= end_ns:
            high = low - 1
            low = max(low - stride, first)
            stride *= 2
    while low < high:
        middle = (low + high) >> 1
        if ts_ns[middle] < end_ns:
            low = middle + 1
        else:
            high = middle
    return low


@lean_leaf
def _window_of(ts_ns: Int, every_ns: Int, next_ns: Int) -> Int:
    """Start of the window of a time; `next_ns`: of the window after the one before, which mostly saves a division."""
    return next_ns if next_ns <= ts_ns < next_ns + every_ns else ts_ns - ts_ns % every_ns


@lean_kernel
def finest_windows(
    ts_ns: Array, spans: Spans, may: Array, every_ns: int, samples_min: int, out: Array
) -> None:
    """Set `out` of sensors that may have them to `every_ns` where windows of that length hold enough samples on average."""
    begins, ends = spans
    for s in range(len(begins)):
        at, last = begins[s], ends[s]
        if not may[s]:
            continue
        n_most = (last - at) // samples_min
        n = np.int64(0)
        if at < last and ts_ns[last - 1] // every_ns - ts_ns[at] // every_ns < n_most:
            at = last  # there are no more than these, whichever of them are empty
        step: Int = np.int64(1)
        next_ns: Int = _NO_WINDOW
        while at < last and n <= n_most:
            next_ns = _window_of(ts_ns[at], every_ns, next_ns) + every_ns
            after = _window_end(ts_ns, at, last, next_ns, step)
            step = after - at
            at = after
            n += 1
        if n <= n_most:
            out[s] = every_ns


@lean_kernel
def reduce_windows(
    spans: Spans,
    ts_ns: Array,
    values: Array,
    quality: Array,
    every_ns: int,
    is_whole: bool,
    out: tuple[Array, Array, Array],
) -> Int:
    """Fill one column for each window that has a usable sample, and return how many have; `is_whole`: values are int64. Times rise.

    ``times[6, n]``: place of the sensor, window, first time, last time, count, raw sum (0 unless `is_whole`); ``kept[4, n]``:
    low, high, first, last; ``sums[4, n]``: sum, mean, squares, what rounding the sum left out (see `_settle`).
    """
    times = out[0]
    begins, ends = spans
    n = np.int64(0)
    for s in range(len(begins)):
        at, last = begins[s], ends[s]
        step: Int = np.int64(1)
        begin: Int = _NO_WINDOW
        while at < last:
            after = last
            if every_ns > 0:
                begin = _window_of(ts_ns[at], every_ns, begin + every_ns)
                after = _window_end(ts_ns, at, last, begin + every_ns, step)
            step = after - at
            first, end = _usable_span(values[at:after], quality[at:after])
            if first < end:
                times[0, n], times[1, n] = s, begin if every_ns > 0 else np.int64(0)
                times[2, n], times[3, n] = ts_ns[at + first], ts_ns[at + end - 1]
                part = values[at + first : at + end], quality[at + first : at + end]
                if not (_reduce_whole(part, n, out) if is_whole else _reduce_even(part, n, out)):
                    _reduce(part, is_whole, n, out)
                n += np.int64(1)
            at = after
    return n


@lean_leaf
def _usable_span(values: Array, quality: Array) -> tuple[Int, Int]:
    """From the first usable sample to behind the last; empty where there is none."""
    first, end = np.int64(0), np.int64(len(values))
    while first < end and (quality[first] >= USABLE_BELOW or values[first] != values[first]):
        first += np.int64(1)
    while end > first and (quality[end - 1] >= USABLE_BELOW or values[end - 1] != values[end - 1]):
        end -= np.int64(1)
    return first, end


@lean_leaf
def _keep(
    ends: tuple[Int, Int, Int, Int],
    sums: tuple[float, float, float, float],
    count: Int,
    n: Int,
    out: tuple[Array, Array, Array],
) -> None:
    """Write a window: (low, high, first, last), and (sum, what is left of it, mean, squares)."""
    times, kept, table = out
    times[4, n] = count
    kept[0, n], kept[1, n], kept[2, n], kept[3, n] = ends
    table[0, n], table[3, n], table[1, n] = sums[0], sums[1], sums[2]
    table[2, n] = max(sums[3], 0.0)


@lean_leaf
def _is_good(quality: Array) -> bool:
    """Whether all samples are usable."""
    marks = np.uint8(0)
    for i in range(len(quality)):
        marks |= quality[i]
    return bool(marks < USABLE_BELOW)


@lean_leaf
def _totals_good(values: Array) -> tuple[Int, Int, Int, Int]:
    """Count, low, high and sum of integers."""
    low = high = values[0]
    raw = np.int64(0)
    for i in range(len(values)):
        v = values[i]
        low = min(low, v)
        high = max(high, v)
        raw += v
    return np.int64(len(values)), low, high, raw


@lean_leaf
def _totals_usable(values: Array, quality: Array, first: Int) -> tuple[Int, Int, Int, Int]:
    """Count, low, high and sum of those that are usable, as one of `first` is there too."""
    low = high = first
    count = raw = np.int64(0)
    for i in range(len(values)):
        is_usable = quality[i] < USABLE_BELOW
        v = values[i] if is_usable else first
        low = min(low, v)
        high = max(high, v)
        raw += v if is_usable else np.int64(0)
        count += np.int64(1) if is_usable else np.int64(0)
    return count, low, high, raw


@lean_leaf
def _totals_whole(values: Array, quality: Array) -> tuple[Int, Int, Int, Int]:
    """Count, low, high and sum of usable integers, of which the first is one."""
    low = high = values[0]
    count = raw = np.int64(0)
    for at in range(0, len(values), _PIECE):
        part, marks = values[at : at + _PIECE], quality[at : at + _PIECE]
        found = _totals_good(part) if _is_good(marks) else _totals_usable(part, marks, values[0])
        count, raw = count + found[0], raw + found[3]
        low, high = min(low, found[1]), max(high, found[2])
    return count, low, high, raw


@lean_leaf
def _squares_good(values: Array, first: Int) -> Int:
    """Sum of squares of the distances from the first of integers: less than 2**53."""
    total = np.int64(0)
    for i in range(len(values)):
        d = np.int64(np.int32(values[i] - first))
        total += d * d
    return total


@lean_leaf
def _squares_usable(values: Array, quality: Array, first: Int) -> Int:
    """The same of those that are usable."""
    total = np.int64(0)
    for i in range(len(values)):
        d = np.int64(np.int32((values[i] if quality[i] < USABLE_BELOW else first) - first))
        total += d * d
    return total


@lean_leaf
def _squares_whole(values: Array, quality: Array, is_small: bool) -> float:
    """Sum of squares of the distances from the first of usable integers; `is_small`: 2**53 holds it, so that order is nothing."""
    first = values[0]
    if is_small:
        total = np.int64(0)
        for at in range(0, len(values), _PIECE):
            part, marks = values[at : at + _PIECE], quality[at : at + _PIECE]
            total += _squares_good(part, first) if _is_good(marks) else _squares_usable(part, marks, first)
        return float(total)
    squares = 0.0
    for i in range(len(values)):
        if quality[i] < USABLE_BELOW:
            apart = np.float64(values[i]) - np.float64(first)
            squares += apart * apart
    return squares


@lean_leaf
def _reduce_whole(part: tuple[Array, Array], n: Int, out: tuple[Array, Array, Array]) -> bool:
    """As `_reduce`, of integers whose sums float64 holds; False where it may not. A tenth of the time."""
    values, quality = part
    count, low, high, raw = _totals_whole(values, quality)
    if low < -_WHOLE_MAX or high > _WHOLE_MAX or count > _COUNT_MAX:
        return False
    first = values[0]
    apart = float(high - low)
    squares = _squares_whole(values, quality, apart * apart * count <= _EXACT_MAX)
    total = np.float64(raw - count * first)
    out[0][5, n] = raw
    sums = np.float64(raw), 0.0, np.float64(first) + total / count, squares - total * total / count
    _keep((low, high, first, values[len(values) - 1]), sums, count, n, out)
    return True


@lean_leaf
def _ends_of(values: Array, quality: Array) -> tuple[Int, Any, Any]:
    """Count, low and high of the usable values, of which the first is one."""
    low = high = values[0]
    count = np.int64(0)
    for i in range(len(values)):
        v = values[i]
        if quality[i] < USABLE_BELOW and v == v:
            count += np.int64(1)
            low = min(low, v)
            high = max(high, v)
    return count, low, high


@lean_leaf
def _least(values: Array, quality: Array, low: float, high: float) -> float:
    """The least magnitude of usable values but 0, or a lesser one; infinite where all are 0."""
    if low > 0.0 or high < 0.0:
        return low if low > 0.0 else -high
    least = np.inf
    for i in range(len(values)):
        size = abs(np.float64(values[i]))
        if quality[i] < USABLE_BELOW and 0.0 < size < least:
            least = size
    return least


@lean_leaf
def _power_above(x: float) -> float:
    """The least power of two that is not below a positive number (Rump 2008, algorithm 3.5); 0 for 0."""
    far = x * _EXACT_MAX
    found = (far + x) - far
    return found if found > 0.0 else x


@lean_leaf
def _reduce_even(part: tuple[Array, Array], n: Int, out: tuple[Array, Array, Array]) -> bool:
    """As `_reduce`, of numbers so near in size that halves of them have exact sums; False where they are not. A third of the time.

    Each number is split at one bit for all (Rump, Ogita & Oishi 2008), so that neither the sum of the upper parts nor that
    of the lower ones needs more than 53 bits: nothing is rounded, and both together are rounded once. So are the distances
    from the first one, of which `_reduce` has the same sum: what it carries is exact too.
    """
    values, quality = part
    count, low, high = _ends_of(values, quality)
    top = max(abs(np.float64(low)), abs(np.float64(high)))
    least = _least(values, quality, np.float64(low), np.float64(high))
    power, many = _power_above(top), _power_above(np.float64(max(count, 4)))
    is_even = power * many * many <= _EXACT_MAX / 2 * least and least >= _TINY and top <= _HUGE
    if not is_even:
        return False
    cut, cut_apart = 0.75 * power * many, 1.5 * power * many
    base = np.float64(values[0])
    upper = lower = upper_apart = lower_apart = squares = 0.0
    for i in range(len(values)):
        x = np.float64(values[i])
        if quality[i] >= USABLE_BELOW or x != x:
            continue
        rounded = (x + cut) - cut
        upper += rounded
        lower += x - rounded
        d = x - base
        rounded = (d + cut_apart) - cut_apart
        upper_apart += rounded
        lower_apart += d - rounded
        squares += d * d
    total = upper_apart + lower_apart
    whole, left = _two_sum(upper, lower)
    out[0][5, n] = 0
    sums = whole, left, base + total / count, squares - total * total / count
    _keep((low, high, values[0], values[len(values) - 1]), sums, count, n, out)
    return True


@lean_leaf
def _reduce(part: tuple[Array, Array], is_whole: bool, n: Int, out: tuple[Array, Array, Array]) -> None:
    """One window, whose first and last samples are usable."""
    values, quality = part
    first = values[0]
    low = high = first
    base = float(first)
    raw = np.int64(first) if is_whole else np.int64(0)
    count = np.int64(1)
    shifted = carried = squares = 0.0
    exact = (base, 0.0, 0.0, False)
    for i in range(1, len(values)):
        v = values[i]
        if quality[i] >= USABLE_BELOW or v != v:
            continue
        count += np.int64(1)
        low = min(low, v)
        high = max(high, v)
        raw += np.int64(v) if is_whole else np.int64(0)
        x = np.float64(v)
        exact = _add(exact, x)
        d = x - base
        shifted, left = _two_sum(shifted, d)
        carried += left
        squares += d * d
    total = shifted + carried
    out[0][5, n] = raw
    whole, left = _settle(exact)
    sums = whole, left, base + total / count, squares - total * total / count
    _keep((low, high, first, values[len(values) - 1]), sums, count, n, out)


@lean_kernel
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
