"""Which columns of a group's layouts are one series.

A group may get a new layout: its sensors stay, their column numbers may change. A *series* is named by the
group and a number that all layouts agree on: the columns of the group's first layout have their own numbers,
sensors that come later are numbered on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.core.sensors import SensorDirectory

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_MIX_A, _MIX_B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_SHIFT = np.uint64(29)


class SeriesMap:
    """Series numbers of columns, by slot; grows with the directory it looks at.

    Cost: nothing for groups that have had one layout only.
    """

    def __init__(self, directory: SensorDirectory) -> None:
        self._directory = directory
        self._numbers: dict[int, I64] = {}

    def numbers(self, slot: int) -> I64:
        """Series number of each column of `slot`: int64[D]."""
        directory = self._directory
        previous = int(directory.previous[slot])
        if previous < 0:
            return np.arange(int(directory.width[slot]))
        known = self._numbers.get(slot)
        if known is None:
            known = self._numbers[slot] = self._continue(previous, slot)
        return known

    def _continue(self, previous: int, slot: int) -> I64:
        """Numbers of a layout that is not the group's first."""
        seen: dict[int, int] = {}
        while previous >= 0:
            numbers = self.numbers(previous).tolist()
            seen.update(zip(self._ids(previous), numbers, strict=True))
            previous = int(self._directory.previous[previous])
        n = max(seen.values()) + 1
        out = []
        for sensor in self._ids(slot):
            if sensor not in seen:
                seen[sensor], n = n, n + 1
            out.append(seen[sensor])
        return np.array(out, np.int64)

    def _ids(self, slot: int) -> list[int]:
        return [int(i) for i in self._directory.sensors(slot)]

    def of(self, slot: npt.NDArray[np.uint32], column: npt.NDArray[np.uint16]) -> I64:
        """Series number of each (slot, column): int64[n]."""
        out = column.astype(np.int64)
        later = self._directory.previous[slot] >= 0
        if later.any():
            for one in np.unique(slot[later]).tolist():
                mine = slot == one
                out[mine] = self.numbers(one)[column[mine]]
        return out

    def shared(self, slot: npt.NDArray[np.uint32], column: npt.NDArray[np.uint16]) -> I64 | None:
        """A number of each (slot, column) that those of one series share; None where no group has two layouts."""
        if not (self._directory.previous[slot] >= 0).any():
            return None
        key = np.stack([self._directory.group_id[slot].view(np.int64), self.of(slot, column)])
        same: I64 = np.unique(key, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
        return same

    def slots(self, slot: int) -> list[int]:
        """`slot` and the slots that it replaced, newest first."""
        out = []
        while slot >= 0:
            out.append(slot)
            slot = int(self._directory.previous[slot])
        return out


def hashed(group: U64, number: I64, ts_ns: I64) -> U64:
    """A 64-bit hash of (group, number, time): equal where all three are, else almost never."""
    h = (group ^ ts_ns.view(np.uint64)) * _MIX_A
    h ^= h >> _SHIFT
    h = (h + (number.view(np.uint64) ^ ts_ns.view(np.uint64))) * _MIX_B
    return h ^ (h >> _SHIFT)
