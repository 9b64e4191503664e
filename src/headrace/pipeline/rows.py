"""Rows of state: which row of a stage's arrays belongs to a group.

A stage keeps one row for each group that it has heard of, in the order of first frames: what never reports
takes no memory, and groups that report together lie together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import kernel
from headrace.core.sensors import SensorDirectory

Array = npt.NDArray[Any]
UNKNOWN = -1


@kernel
def find_rows(slot: Array, local: Array, row_of_group: Array, row: Array) -> int:
    """Write the row of each frame's group to `row`; how many groups have none (`UNKNOWN`)."""
    n = 0
    for f in range(len(slot)):
        at = local[slot[f]]
        row[f] = row_of_group[at] if at < len(row_of_group) else UNKNOWN
        n += row[f] < 0
    return n


class RowMap:
    """Row of each group of one shard that was heard of.

    Cost: 8 bytes a group of the shard; 1 to 10 ns a frame.
    """

    def __init__(self, directory: SensorDirectory, shard: int) -> None:
        self._directory, self._shard = directory, shard
        self._row_of_group = np.empty(0, np.int64)
        self._slot = np.empty(0, np.uint32)
        self.n = 0

    @property
    def slot(self) -> npt.NDArray[np.uint32]:
        """Slot of each row."""
        return self._slot[: self.n]

    def rows(self, slot: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        """Row of each frame's group: int64[F]; groups that have none get one."""
        row = np.empty(len(slot), np.int64)
        local = self._directory.local
        if find_rows(slot, local, self._row_of_group, row):
            self._add(np.unique(slot[row < 0]))
            find_rows(slot, local, self._row_of_group, row)
        return row

    def find(self, slot: int) -> int:
        """Row of a group; `UNKNOWN` where it has none."""
        at = int(self._directory.local[slot])
        return int(self._row_of_group[at]) if at < len(self._row_of_group) else UNKNOWN

    def _add(self, new: npt.NDArray[np.uint32]) -> None:
        n_local = self._directory.n_local(self._shard)
        if n_local > len(self._row_of_group):
            grown = np.full(n_local + n_local // 2, UNKNOWN)
            grown[: len(self._row_of_group)] = self._row_of_group
            self._row_of_group = grown
        first, self.n = self.n, self.n + len(new)
        if self.n > len(self._slot):
            self._slot = resized(self._slot, max(self.n, 2 * first))
        self._slot[first : self.n] = new
        self._row_of_group[self._directory.local[new]] = np.arange(first, self.n)

    def restore(self, slot: npt.NDArray[np.uint32]) -> None:
        """Take over the rows of a snapshot, which holds `slot`."""
        self._row_of_group, self._slot, self.n = np.empty(0, np.int64), np.empty(0, np.uint32), 0
        self._add(slot)


def resized(array: Array, n: int) -> Array:
    """`array` with room for `n` rows; new ones are zero."""
    grown = np.zeros((n, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
