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
def _find_turns(
    order: Array, group: Array, ts_ns: Array, high: Array, start: Array, times: Array, turn: Array
) -> int:
    """``turn: int64[F]`` says in which turn of its group a frame is taken; the last one. See `Deduplicate.turns`.

    ``order: int64[F]`` are the frames by group, ``times`` those of values.
    """
    last_turn = 0
    mark, late_to, now = np.int64(0), np.int64(NO_TIME), 0
    for k in range(len(order)):
        f = order[k]
        if k == 0 or group[f] != group[order[k - 1]]:
            mark, late_to, now = high[group[f]], np.int64(NO_TIME), 0
        is_new = ts_ns[f] > mark
        for v in range(start[f], start[f + 1]):
            if is_new and times[v] <= late_to:
                now += 1
                late_to = np.int64(NO_TIME)
        for v in range(start[f], start[f + 1]):
            if not is_new:
                late_to = max(late_to, times[v])
        mark = max(mark, ts_ns[f])
        turn[f] = now
        last_turn = max(last_turn, now)
    return last_turn


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
        a value at the time of one that a newer frame after it has: that one is for the next part. Other batches are
        one part.
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
        last = _find_turns(order, group, batch.ts_ns, self._high, batch.start, batch.value_times(), turn)
        if last == 0:
            return [batch]
        by_turn = np.argsort(turn, kind="stable")
        ends = np.cumsum(np.bincount(turn))
        return [batch.take(some) for some in np.split(by_turn, ends[:-1])]

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
