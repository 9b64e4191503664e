"""Runs: decoded samples on their way through a query, and how versions of a sample are merged.

A *run* is what one row (or one tail batch) has of one sensor: times that usually rise, values, quality. Runs
of many sensors lie one behind the other in columns, one set of columns for each `Lane`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
        each = start[runs], length[runs], sensor[runs]
        ts_ns, values, quality, kept, falls = _gathered(each, (ts_ns, values, quality), (start_ns, end_ns))
        if same is None and not falls:
            return _of_runs(each[2], kept, ts_ns, values, quality)
        of_each, ranks = np.repeat(each[2], kept), np.repeat(rank[runs], kept)
        newest = _newest(of_each if same is None else same[of_each], ts_ns, ranks)
        if same is not None:
            newest = newest[np.lexsort((ts_ns[newest], of_each[newest]))]
        one = np.ones(len(newest), np.int64)
        return _of_runs(of_each[newest], one, ts_ns[newest], values[newest], quality[newest])


def _gathered(
    runs: tuple[I64, I64, I64], samples: tuple[I64, Array, U8], span: tuple[int, int]
) -> tuple[I64, Array, U8, I64, bool]:
    """Samples of runs in a span, one run behind the other; how many of each; whether a sensor's times fall."""
    from headrace.codecs.values import readonly
    from headrace.store.merge_kernels import gather_samples

    ts_ns, values, quality = samples
    bits = np.ascontiguousarray(values).view(np.uint64)
    source = readonly(ts_ns, np.int64), readonly(bits, np.uint64), readonly(quality, np.uint8)
    out = np.empty(len(ts_ns), np.int64), np.empty(len(ts_ns), np.uint64), np.empty(len(ts_ns), np.uint8)
    kept = np.empty(len(runs[0]), np.int64)
    falls = gather_samples(runs, source, (np.int64(span[0]), np.int64(span[1])), out, kept)
    n = int(kept.sum())
    return out[0][:n], out[1][:n].view(values.dtype), out[2][:n], kept, bool(falls)


def _of_runs(sensor: I64, kept: I64, ts_ns: I64, values: Array, quality: U8) -> SensorSamples:
    """Samples of runs, those of a sensor one behind the other."""
    sensor, kept = sensor[kept > 0], kept[kept > 0]
    first = np.flatnonzero(np.append(True, sensor[1:] != sensor[:-1])[: len(sensor)])
    end = np.cumsum(kept)
    start = np.append((end - kept)[first], len(ts_ns))
    return SensorSamples(sensor[first], start, ts_ns, values, quality)


def _joined(parts: list[Array], dtype: np.dtype[Any]) -> Array:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _run_order(ts_ns: I64, start: I64, sensor: I64, rank: I64) -> I64:
    """Runs by sensor and time."""
    return np.lexsort((rank, ts_ns[start], sensor)) if len(start) else np.empty(0, np.int64)


def _newest(each: I64, ts_ns: I64, rank: I64) -> I64:
    """Indices by (sensor, time), of equal ones the one with the highest rank, the last of those."""
    order = np.lexsort((rank, ts_ns, each))
    if not len(order):
        return order
    e, t = each[order], ts_ns[order]
    last = np.append((e[1:] != e[:-1]) | (t[1:] != t[:-1]), True)
    newest: I64 = order[last]
    return newest
