"""Functions of the samples in the window before each step: ``avg_over_time``, ``rate``, and the latest sample.

A window of `range_ns` at step t is (t - range_ns, t], as in Prometheus 3. ``rate``, ``increase`` and ``delta``
extrapolate to the window's ends as Prometheus' ``extrapolatedRate`` (promql/functions.go) does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace.api.promql.vectors import F64, I64, Bools, RawSeries

NS = 1e9
_Bounds = tuple[I64, I64]
Found = tuple[F64, Bools]


def latest(series: RawSeries, steps_ns: I64, lookback_ns: int) -> Found:
    """The last sample of each window."""
    if not len(series.ts_ns):
        return _nothing(steps_ns)
    at = np.searchsorted(series.ts_ns, steps_ns, "right") - 1
    there = (at >= 0) & (series.ts_ns[at] > steps_ns - lookback_ns)
    return np.where(there, series.values[at], np.nan), there


def latest_time(series: RawSeries, steps_ns: I64, lookback_ns: int) -> Found:
    """When the last sample of each window was, in seconds."""
    return latest(RawSeries({}, series.ts_ns, series.ts_ns / NS), steps_ns, lookback_ns)


def over(name: str, series: RawSeries, steps_ns: I64, range_ns: int) -> Found:
    """A function of a range vector, by its name."""
    low = np.searchsorted(series.ts_ns, steps_ns - range_ns, "right")
    high = np.searchsorted(series.ts_ns, steps_ns, "right")
    if name in _OVER_TIME:
        there = high > low
        with np.errstate(all="ignore"):
            values = _OVER_TIME[name](series, (low, high))
        return np.where(there, values, np.nan), there
    if name in ("irate", "idelta"):
        return _last_two(name, series, (low, high))
    return _extrapolated(name, series, (low, high), (steps_ns, range_ns))


def _nothing(steps_ns: I64) -> Found:
    return np.full(len(steps_ns), np.nan), np.zeros(len(steps_ns), np.bool_)


def _reduced(reduce: np.ufunc, values: F64, bounds: _Bounds) -> F64:
    """A ufunc over values[low:high] of each step; anything where that is empty."""
    low, high = bounds
    padded = np.append(values, 0.0)
    pairs = np.stack([low, np.maximum(high, low)], axis=1).reshape(-1)
    found: F64 = reduce.reduceat(padded, np.minimum(pairs, len(padded) - 1))[::2]
    # A window up to the last sample ends where reduceat has no place to name: the padding is not in it.
    return found


def _sum(series: RawSeries, bounds: _Bounds) -> F64:
    weight = series.weight
    return _reduced(np.add, series.values if weight is None else series.values * weight, bounds)


def _count(series: RawSeries, bounds: _Bounds) -> F64:
    if series.weight is not None:
        return _reduced(np.add, series.weight, bounds)
    return (bounds[1] - bounds[0]).astype(np.float64)


def _average(series: RawSeries, bounds: _Bounds) -> F64:
    return _sum(series, bounds) / _count(series, bounds)


def _smallest(series: RawSeries, bounds: _Bounds) -> F64:
    return _reduced(np.fmin, series.values, bounds)


def _largest(series: RawSeries, bounds: _Bounds) -> F64:
    return _reduced(np.fmax, series.values, bounds)


def _last(series: RawSeries, bounds: _Bounds) -> F64:
    return np.append(series.values, np.nan)[np.maximum(bounds[1] - 1, 0)]


_OVER_TIME: dict[str, Callable[[RawSeries, _Bounds], F64]] = {
    "avg_over_time": _average, "sum_over_time": _sum, "min_over_time": _smallest, "max_over_time": _largest,
    "count_over_time": _count, "last_over_time": _last,
}  # fmt: skip


def _last_two(name: str, series: RawSeries, bounds: _Bounds) -> Found:
    low, high = bounds
    there = high - low >= 2
    if not there.any():
        return _nothing(low)
    last = np.maximum(high - 1, 1)
    last = np.minimum(last, len(series.values) - 1)
    before, after = series.values[last - 1], series.values[last]
    change = after - before
    if name == "irate":
        change = np.where(after < before, after, change) * NS / (series.ts_ns[last] - series.ts_ns[last - 1])
    return np.where(there, change, np.nan), there


def _extrapolated(name: str, series: RawSeries, bounds: _Bounds, window: tuple[I64, int]) -> Found:
    (low, high), (steps_ns, range_ns) = bounds, window
    there = high - low >= 2
    if not there.any():
        return _nothing(steps_ns)
    values, ts_ns = series.values, series.ts_ns
    first, last = np.where(there, low, 0), np.where(there, high - 1, 1)
    change = values[last] - values[first]
    is_counter = name != "delta"
    if is_counter:
        falls = np.where(values[1:] < values[:-1], values[:-1], 0.0)
        fallen = np.concatenate([[0.0], np.cumsum(falls)])
        change = change + fallen[last] - fallen[first]
    sampled_s = (ts_ns[last] - ts_ns[first]) / NS
    to_start_s = (ts_ns[first] - (steps_ns - range_ns)) / NS
    to_end_s = (steps_ns - ts_ns[last]) / NS
    with np.errstate(all="ignore"):
        each_s = sampled_s / np.maximum(last - first, 1)
        far_s = each_s * 1.1
        to_start_s = np.where(to_start_s >= far_s, each_s / 2, to_start_s)
        to_end_s = np.where(to_end_s >= far_s, each_s / 2, to_end_s)
        if is_counter:  # a counter is not carried back below zero
            to_zero_s = sampled_s * values[first] / change
            is_near = (change > 0) & (values[first] >= 0) & (to_zero_s < to_start_s)
            to_start_s = np.where(is_near, to_zero_s, to_start_s)
        found = change * (sampled_s + to_start_s + to_end_s) / sampled_s
        if name == "rate":
            found = found / (range_ns / NS)
    return np.where(there, found, np.nan), there
