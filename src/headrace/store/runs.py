"""Runs: decoded samples on their way through a query, and how versions of a sample are merged.

A *run* is what one row (or one tail batch) has of one sensor: times that usually rise, values, quality. Runs
of many sensors lie one behind the other in columns, one set of columns for each `Lane`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
        self._parts: list[_Part] = []

    def add(self, ts_ns: I64, values: Array, quality: U8 | None, of: tuple[I64, I64, I64]) -> None:
        """Add runs, one behind the other; ``of`` are the length, sensor and rank of each. Of two versions the higher rank wins."""
        length, sensor, rank = [np.ascontiguousarray(one, np.int64) for one in of]
        start = np.zeros(1, np.int64) if length.size == 1 else np.cumsum(length) - length
        if not length.all():
            filled = length > 0
            start, length, sensor, rank = start[filled], length[filled], sensor[filled], rank[filled]
        self._parts.append(_Part(ts_ns, values, quality, start, length, sensor, rank))

    def merge(self, start_ns: int, end_ns: int, same: I64 | None = None) -> SensorSamples:
        """The newest version of every sample in [start_ns, end_ns), absent ones left out.

        Parameters
        ----------
        same : int64[n_sensors], equal for what is one sensor under several layouts: versions count across them.
        """
        dtype, parts = LANE_DTYPES[self.lane], self._parts
        if len(parts) == 1 and parts[0].length.size == 1:  # as for most queries
            alone = _of_one(parts[0], dtype, (start_ns, end_ns))
            if alone is not None:
                return alone
        length, sensor, rank, first = (
            _joined(c)
            for c in zip(*((p.length, p.sensor, p.rank, p.ts_ns[p.start]) for p in parts), strict=True)
        )
        order = np.lexsort((rank, first, sensor))
        length, sensor, rank = length[order], sensor[order], rank[order]
        ts_ns, values, quality, kept, falls = _scattered(parts, (order, length), dtype, (start_ns, end_ns))
        begin = np.cumsum(kept) - kept
        if same is None and not falls and not _fall_between(sensor, begin, kept, ts_ns):
            return _of_runs(sensor, kept, ts_ns, values, quality)
        of_each, ranks = np.repeat(sensor, kept), np.repeat(rank, kept)
        newest = _newest(of_each if same is None else same[of_each], ts_ns, ranks)
        if same is not None:
            newest = newest[np.lexsort((ts_ns[newest], of_each[newest]))]
        one = np.ones(len(newest), np.int64)
        return _of_runs(of_each[newest], one, ts_ns[newest], values[newest], quality[newest])


class _Part(NamedTuple):
    """Runs that were added together: their samples, and where each starts, its length, sensor and rank."""

    ts_ns: I64
    values: Array
    quality: U8 | None
    start: I64
    length: I64
    sensor: I64
    rank: I64


def _of_one(part: _Part, dtype: np.dtype[Any], span: tuple[int, int]) -> SensorSamples | None:
    """What a single run has in a span; None where its times do not rise, or some of its samples are absent."""
    ts_ns, quality = part.ts_ns, part.quality
    if not (ts_ns[1:] > ts_ns[:-1]).all() or (quality is not None and (quality >= Quality.ABSENT).any()):
        return None
    first, last = ts_ns.searchsorted(np.array(span, np.int64)).tolist()
    marks = np.zeros(last - first, np.uint8) if quality is None else np.ascontiguousarray(quality[first:last])
    values = np.ascontiguousarray(part.values[first:last].astype(dtype, copy=False))
    start: I64 = np.array([0, last - first] if last > first else [0])
    return SensorSamples(part.sensor[: start.size - 1], start, ts_ns[first:last], values, marks)


def _scattered(
    parts: list[_Part], runs: tuple[I64, I64], dtype: np.dtype[Any], span: tuple[int, int]
) -> tuple[I64, Array, U8, I64, bool]:
    """Samples of runs in a span, one run behind the other; how many of each; whether times of one fall.

    Parameters
    ----------
    runs : in which order those of all parts are to lie, and the length of each, in that order.
    """
    from headrace.codecs.values import readonly
    from headrace.store.merge_kernels import close_gaps, scatter_samples

    order, length = runs
    places = np.cumsum(length) - length
    n, place, kept = int(length.sum()), np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    place[order] = places
    out = np.empty(n, np.int64), np.empty(n, np.uint64), np.empty(n, np.uint8)
    within = np.int64(span[0]), np.int64(span[1])
    falls, done = False, 0
    for part in parts:
        bits = np.ascontiguousarray(part.values.astype(dtype, copy=False)).view(np.uint64)
        marks = _NO_MARKS if part.quality is None else readonly(part.quality, np.uint8)
        source = readonly(part.ts_ns, np.int64), readonly(bits, np.uint64), marks
        mine = slice(done, done + len(part.length))
        done = mine.stop
        falls |= bool(
            scatter_samples((part.start, part.length, place[mine]), source, within, out, kept[mine])
        )
    kept = kept[order]
    n_kept = int(kept.sum())
    if n_kept < n:
        close_gaps(places, kept, out)
    return out[0][:n_kept], out[1][:n_kept].view(dtype), out[2][:n_kept], kept, falls


_NO_MARKS: U8 = np.empty(0, np.uint8)
_NO_MARKS.flags.writeable = False


def _fall_between(sensor: I64, begin: I64, kept: I64, ts_ns: I64) -> bool:
    """Whether a run begins no later than the one before it ends, which is of the same sensor."""
    if len(sensor) == 1:
        return False
    filled = kept > 0
    if not filled.all():
        sensor, begin, kept = sensor[filled], begin[filled], kept[filled]
    first, last = ts_ns[begin], ts_ns[begin + kept - 1]
    return bool(((sensor[1:] == sensor[:-1]) & (first[1:] <= last[:-1])).any())


def _of_runs(sensor: I64, kept: I64, ts_ns: I64, values: Array, quality: U8) -> SensorSamples:
    """Samples of runs, those of a sensor one behind the other."""
    sensor, kept = sensor[kept > 0], kept[kept > 0]
    first = np.flatnonzero(np.append(True, sensor[1:] != sensor[:-1])[: len(sensor)])
    end = np.cumsum(kept)
    start = np.append((end - kept)[first], len(ts_ns))
    return SensorSamples(sensor[first], start, ts_ns, values, quality)


def _joined(parts: Sequence[I64]) -> I64:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _newest(each: I64, ts_ns: I64, rank: I64) -> I64:
    """Indices by (sensor, time), of equal ones the one with the highest rank, the last of those."""
    order = np.lexsort((rank, ts_ns, each))
    if not len(order):
        return order
    e, t = each[order], ts_ns[order]
    last = np.append((e[1:] != e[:-1]) | (t[1:] != t[:-1]), True)
    newest: I64 = order[last]
    return newest
