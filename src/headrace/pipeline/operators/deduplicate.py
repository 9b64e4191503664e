"""Put the frames of each group in order: what is new goes on, what is not is told apart.

A frame above its group's *high mark* (the newest time seen) is new. Any other is late data, a revision or a
duplicate: the store, which has the earlier values, decides. The mark is a group's own watermark, so a device
that uploads its buffer is late for no one else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NO_TIME
from headrace.core.frames import FrameBatch, Shape
from headrace.core.kernels import kernel
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import StepResult
from headrace.pipeline.packing import pack, unpack

Array = npt.NDArray[Any]


@kernel
def _mark(slot: Array, local: Array, first: Array, ts_ns: Array, high: Array, is_new: Array) -> int:
    """Raise the high marks; ``is_new: bool[F]`` says which frames were above them; how many were not."""
    n_late = 0
    for f in range(len(slot)):
        at = local[slot[f]]
        if len(first):
            at = first[at]
        if ts_ns[f] > high[at]:
            high[at] = ts_ns[f]
            is_new[f] = True
        else:
            is_new[f] = False
            n_late += 1
    return n_late


@kernel
def _has_late(group: Array, ts_ns: Array, high: Array, before: Array) -> bool:
    """Whether any frame is not above its group's mark; marks are as they were afterwards. ``before: int64[F]`` is room."""
    n = 0
    while n < len(group) and ts_ns[n] > high[group[n]]:
        before[n] = high[group[n]]
        high[group[n]] = ts_ns[n]
        n += 1
    for f in range(n - 1, -1, -1):
        high[group[f]] = before[f]
    return n < len(group)


@kernel
def _find_new(order: Array, group: Array, ts_ns: Array, high: Array, is_new: Array) -> None:
    """``is_new: bool[F]`` as `_mark` will say it; ``order: int64[F]`` are the frames by group."""
    mark = np.int64(0)
    for k in range(len(order)):
        f = order[k]
        if k == 0 or group[f] != group[order[k - 1]]:
            mark = high[group[f]]
        is_new[f] = ts_ns[f] > mark
        mark = max(mark, ts_ns[f])


@kernel
def _find_turns(
    by_key: Array, again: Array, same: Array, place: Array, is_new: Array, waits: Array, turn: Array
) -> int:
    """``turn: int64[F]`` says in which turn of its group a frame is taken; the last one. See `Deduplicate.turns`.

    Parameters
    ----------
    by_key : int64[V], values by sensor and time, each one's in the order they came. again, same : bool[V], whether the one
    before is of the same sensor and time, and whether it is the same value, too. place, is_new : of each value's frame, among
    the frames by group. waits : int64[F], room. turn : by place; begins with whether a group does there.
    """
    late_at = np.int64(-1)
    is_same = True
    waits[:] = -1
    for i in range(len(by_key)):
        v = by_key[i]
        if not again[i]:
            late_at = np.int64(-1)
        is_same = is_same and same[i]
        if not is_new[v]:
            late_at, is_same = place[v], True
        elif late_at >= 0 and not is_same:
            waits[place[v]] = max(waits[place[v]], late_at)
    last_turn = 0
    begin, now = np.int64(0), 0
    for k in range(len(turn)):
        if turn[k]:
            begin, now = np.int64(k), 0
        elif waits[k] >= begin:
            begin, now = np.int64(k), now + 1
        turn[k] = now
        last_turn = max(last_turn, now)
    return last_turn


def _as_before(keys: list[Array], by_key: Array) -> Array:
    """Whether each value of an order has the keys of the one before it."""
    found: Array = np.ones(len(by_key), np.bool_)
    found[:1] = False
    for key in keys:
        found[1:] &= key[by_key[1:]] == key[by_key[:-1]]
    return found


class Deduplicate:
    """The first stage of a shard.

    All layouts of a group share one mark, that of its first layout.

    Cost: 8 bytes a group; 2 to 15 ns a frame.
    """

    def __init__(self, directory: SensorDirectory, shard: int) -> None:
        self._directory = directory
        self._shard = shard
        self._high = np.empty(0, np.int64)
        self._first = np.empty(0, np.uint32)
        self._n_slots = 0

    def _grow(self, n_slots: int) -> None:
        """Make room for groups defined since; another thread may be defining more."""
        directory, first = self._directory, self._n_slots
        n = directory.n_local(self._shard)
        if n > len(self._high):
            n += n // 2
            self._high = np.concatenate([self._high, np.full(n - len(self._high), NO_TIME)])
            if len(self._first):
                self._first = np.concatenate([self._first, np.arange(len(self._first), n, dtype=np.uint32)])
        mine = (directory.shard[first:n_slots] == self._shard) & (directory.previous[first:n_slots] >= 0)
        if mine.any() and not len(self._first):
            self._first = np.arange(len(self._high), dtype=np.uint32)
        for slot in (first + np.flatnonzero(mine)).tolist():
            self._first[directory.local[slot]] = self._first[directory.local[directory.previous[slot]]]
        self._n_slots = n_slots

    def turns(self, batch: FrameBatch) -> list[FrameBatch]:
        """Parts of a batch to take one after the other, so that of values at the same time the last one counts.

        Of one part new frames are kept before late ones. Where values have times of their own, a frame may be late and hold
        another value at the time of one that a newer frame after it has: that one is for the next part. Other batches
        are one part.

        Cost: 5 ns a frame that may have such values, and 200 ns a value of batches with a late one.
        """
        if batch.n_frames < 2 or (batch.value_ts_ns is None and batch.shape is not Shape.WAVE):
            return [batch]
        assert batch.start is not None
        if self._n_slots < self._directory.n_slots:
            self._grow(self._directory.n_slots)
        group = self._directory.local[batch.slot]
        if len(self._first):
            group = self._first[group]
        turn = np.empty(batch.n_frames, np.int64)
        if not _has_late(group, batch.ts_ns, self._high, turn):
            return [batch]
        order = np.argsort(group, kind="stable")
        if not self._turns_by_place(batch, group, order, turn):
            return [batch]
        by_turn = order[np.argsort(turn, kind="stable")]
        ends = np.cumsum(np.bincount(turn))
        return [batch.take(np.sort(some)) for some in np.split(by_turn, ends[:-1])]

    def _turns_by_place(self, batch: FrameBatch, group: Array, order: Array, turn: Array) -> int:
        """Fill in ``turn: int64[F]`` of frames by group; the last one."""
        assert batch.start is not None
        n = batch.n_frames
        is_new, place = np.empty(n, np.bool_), np.empty(n, np.int64)
        _find_new(order, group, batch.ts_ns, self._high, is_new)
        place[order] = np.arange(n)
        of = np.repeat(np.arange(n), np.diff(batch.start))
        column = np.zeros(len(of), np.uint16) if batch.column is None else batch.column
        # Columns of two layouts of a group: any may be the same sensor.
        turn[:] = np.append(True, np.diff(group[order]) != 0)
        is_mixed = np.append(False, np.diff(batch.slot[order].astype(np.int64)) != 0) & (turn == 0)
        column = np.where(np.isin(group, group[order[is_mixed]])[of], -1, column.astype(np.int64))
        keys = [group[of], batch.value_times(), column]
        by_key = np.lexsort((place[of], *reversed(keys)))
        again = _as_before(keys, by_key)
        bits = np.ascontiguousarray(batch.values.reshape(-1)).view(f"u{batch.values.itemsize}")
        quality = np.zeros(len(of), np.uint8) if batch.quality is None else batch.quality.reshape(-1)
        same = _as_before([bits, quality, column >= 0], by_key) & (column[by_key] >= 0)
        return int(_find_turns(by_key, again, same, place[of], is_new[of], np.empty(n, np.int64), turn))

    def process(self, batch: FrameBatch, result: StepResult) -> FrameBatch | None:
        """New frames, in the order they came; the others go to ``result.late``."""
        n_slots = self._directory.n_slots
        if self._n_slots < n_slots:
            self._grow(n_slots)
        is_new = np.empty(batch.n_frames, np.bool_)
        n_late = _mark(batch.slot, self._directory.local, self._first, batch.ts_ns, self._high, is_new)
        if n_late == 0:
            return batch
        result.late.append(batch.take(np.flatnonzero(~is_new)))
        return batch.take(np.flatnonzero(is_new)) if n_late < batch.n_frames else None

    def late(self, batch: FrameBatch, result: StepResult) -> None:
        """Nothing to do: late frames leave from here."""

    def inherit(self, old: Any, slots: tuple[int, int], columns: Array, result: StepResult) -> None:
        """Nothing to do: all layouts of a group share its mark."""

    def tick(self, now_ns: int, result: StepResult) -> None:
        """Nothing to do: the marks move with the data."""

    def snapshot(self) -> bytes:
        """The high marks."""
        self._grow(self._directory.n_slots)
        return pack({"high": self._high[: self._directory.n_local(self._shard)]})

    def restore(self, data: bytes | memoryview) -> None:
        """Take over the marks of a snapshot."""
        self._high, self._first, self._n_slots = unpack(data)["high"], np.empty(0, np.uint32), 0
