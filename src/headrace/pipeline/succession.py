"""Which slot holds the state of a group that has had several layouts.

A new layout may be defined long before, or never, it sends a frame. So a slot takes over from its predecessor
with its first frame, not when it is defined: a replay of the journal, which knows all definitions from the
start, does the same at the same record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.sensors import SensorDirectory
from headrace.pipeline.rows import resized

Array = npt.NDArray[Any]
_HOLDS, _WAITS, _SUCCEEDED = 0, 1, 2


class Succession:
    """The layouts of one shard's groups: which have begun, and who succeeded whom.

    Parameters
    ----------
    class_of_slot : classes of the slots that the flow has taken in; -1 for what it does not read.

    Cost: a byte a group and 1 to 2 ns a frame in shards where a group got a new layout; else nothing.
    """

    def __init__(self, directory: SensorDirectory, shard: int, class_of_slot: Callable[[], Array]) -> None:
        self._directory, self._shard, self._class_of_slot = directory, shard, class_of_slot
        self._n_slots = 0
        self._mark = np.empty(0, np.uint8)
        self._holder: dict[int, int] = {}
        self._n_heirs = 0
        self.begun: list[int] = []

    def begin(self, slot: npt.NDArray[np.uint32]) -> list[tuple[int, int]]:
        """Take note of frames: pairs (new, old) of slots that take over with them."""
        self._look_at_new()
        if not self._n_heirs:
            return []
        mark = self._mark[self._directory.local[slot]]
        if not (mark == _WAITS).any():
            return []
        return [pair for one in np.unique(slot[mark == _WAITS]).tolist() for pair in self._start(one)]

    def succeeded(self, slot: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_] | None:
        """Which frames have a layout that was succeeded; None for no frame."""
        if not self._holder:
            return None
        old: npt.NDArray[np.bool_] = self._mark[self._directory.local[slot]] == _SUCCEEDED
        return old if old.any() else None

    def holder(self, slot: int) -> int:
        """The slot that holds the state of a slot's group now."""
        return self._holder.get(slot, slot)

    def restore(self, begun: Sequence[int]) -> None:
        """Take over the successions of a snapshot."""
        self._n_slots, self._n_heirs = 0, 0
        self._mark = np.empty(0, np.uint8)
        self._holder, self.begun = {}, []
        self._look_at_new()
        for slot in begun:
            self._start(slot)

    def _look_at_new(self) -> None:
        class_of_slot = self._class_of_slot()
        first, last = self._n_slots, len(class_of_slot)
        if first == last:
            return
        directory = self._directory
        mine = (directory.shard[first:last] == self._shard) & (directory.previous[first:last] >= 0)
        heirs = first + np.flatnonzero(mine & (class_of_slot[first:last] >= 0))
        self._n_slots = last
        n = directory.n_local(self._shard)
        if n > len(self._mark):
            self._mark = resized(self._mark, n + n // 2)
        self._mark[directory.local[heirs]] = _WAITS
        self._n_heirs += len(heirs)

    def _start(self, slot: int) -> list[tuple[int, int]]:
        """The first frame of `slot`: it succeeds all layouts before it."""
        directory, class_of_slot = self._directory, self._class_of_slot()
        self._mark[directory.local[slot]] = _HOLDS
        self.begun.append(slot)
        pairs: list[tuple[int, int]] = []
        old = int(directory.previous[slot])
        while old >= 0:
            at = directory.local[old]
            if self._mark[at] == _HOLDS and class_of_slot[old] >= 0:
                pairs.append((slot, old))
            self._mark[at] = _SUCCEEDED
            self._holder[old] = slot
            old = int(directory.previous[old])
        return pairs
