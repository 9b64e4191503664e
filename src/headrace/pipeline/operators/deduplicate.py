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
from headrace.core.frames import FrameBatch
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
