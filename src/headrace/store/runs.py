"""Runs: decoded samples on their way through a query, and how versions of a sample are merged.

A *run* is what one row (or one tail batch) has of one sensor: times that usually rise, values, quality. Runs
of many sensors lie one behind the other in columns, one set of columns for each `Lane`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.quality import Quality
from headrace.store.wanted import LANE_DTYPES, Lane

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class SensorSamples:
    """Samples of several sensors, each in strictly rising time: ``sensor: int64[s]``, ``start: int64[s + 1]``."""

    sensor: I64
    start: I64
    ts_ns: I64
    values: Array
    quality: U8

    def __len__(self) -> int:
        return len(self.ts_ns)

    def of_each(self) -> I64:
        """The sensor of each sample."""
        return np.repeat(self.sensor, np.diff(self.start))


class Runs:
    """Collects runs of one lane."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._ts_ns: list[I64] = []
        self._values: list[Array] = []
        self._quality: list[U8 | None] = []
        self._length: list[I64] = []
        self._sensor: list[I64] = []
        self._rank: list[I64] = []

    def add(self, ts_ns: I64, values: Array, quality: U8 | None, of: tuple[I64, I64, I64]) -> None:
        """Add runs; ``of`` are the length, sensor and rank of each. Of two versions the higher rank wins."""
        self._ts_ns.append(ts_ns)
        self._values.append(values)
        self._quality.append(quality)
        for columns, one in zip((self._length, self._sensor, self._rank), of, strict=True):
            columns.append(one)

    def merge(self, start_ns: int, end_ns: int, same: I64 | None = None) -> SensorSamples:
        """The newest version of every sample in [start_ns, end_ns), absent ones left out.

        Parameters
        ----------
        same : int64[n_sensors], equal for what is one sensor under several layouts: versions count across them.
        """
        dtype = LANE_DTYPES[self.lane]
        ts_ns = _joined(self._ts_ns, np.dtype(np.int64))
        values = _joined([v.astype(dtype, copy=False) for v in self._values], dtype)
        quality = _joined(
            [
                np.zeros(len(t), np.uint8) if q is None else q
                for t, q in zip(self._ts_ns, self._quality, strict=True)
            ],
            np.dtype(np.uint8),
        )
        length, sensor, rank = (
            _joined(c, np.dtype(np.int64)) for c in (self._length, self._sensor, self._rank)
        )
        filled = length > 0
        start = np.cumsum(length) - length
        order = _run_order(ts_ns, start[filled], sensor[filled], rank[filled])
        runs = np.flatnonzero(filled)[order]
        # Where nothing has to be moved, nothing is copied.
        if not np.array_equal(runs, np.arange(len(length))):
            at = _gather(start[runs], length[runs])
            ts_ns, values, quality = ts_ns[at], values[at], quality[at]
            length, sensor, rank = length[runs], sensor[runs], rank[runs]
        each = np.repeat(sensor, length)
        keep = (ts_ns >= start_ns) & (ts_ns < end_ns) & (quality < Quality.ABSENT)
        chosen: Array | None = None if keep.all() else np.flatnonzero(keep)
        if chosen is not None:
            each, ts_ns, values, quality = each[chosen], ts_ns[chosen], values[chosen], quality[chosen]
        if same is not None or _has_conflicts(each, ts_ns):
            ranks = np.repeat(rank, length)
            newest = _newest(
                each if same is None else same[each], ts_ns, ranks if chosen is None else ranks[chosen]
            )
            if same is not None:
                newest = newest[np.lexsort((ts_ns[newest], each[newest]))]
            each, ts_ns, values, quality = each[newest], ts_ns[newest], values[newest], quality[newest]
        first = np.flatnonzero(np.append(True, each[1:] != each[:-1])) if len(each) else np.empty(0, np.int64)
        return SensorSamples(each[first], np.append(first, len(each)), ts_ns, values, quality)


def _joined(parts: list[Array], dtype: np.dtype[Any]) -> Array:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _run_order(ts_ns: I64, start: I64, sensor: I64, rank: I64) -> I64:
    """Runs by sensor and time."""
    return np.lexsort((rank, ts_ns[start], sensor)) if len(start) else np.empty(0, np.int64)


def _gather(start: I64, length: I64) -> I64:
    """Indices of the runs' samples, run after run."""
    at: I64 = np.repeat(start - (np.cumsum(length) - length), length) + np.arange(int(length.sum()))
    return at


def _has_conflicts(each: I64, ts_ns: I64) -> bool:
    """Whether samples of a sensor are not in strictly rising time."""
    return bool(((each[1:] == each[:-1]) & (ts_ns[1:] <= ts_ns[:-1])).any())


def _newest(each: I64, ts_ns: I64, rank: I64) -> I64:
    """Indices by (sensor, time), of equal ones the one with the highest rank, the last of those."""
    order = np.lexsort((rank, ts_ns, each))
    if not len(order):
        return order
    e, t = each[order], ts_ns[order]
    last = np.append((e[1:] != e[:-1]) | (t[1:] != t[:-1]), True)
    newest: I64 = order[last]
    return newest
