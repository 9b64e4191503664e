"""Stretches of time of many sensors, and which samples and rows are inside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Intervals:
    """Stretches of time of sensors, [start, end) each, that do not overlap within a sensor.

    Where one ends as the next begins, both are one.
    """

    def __init__(self, sensor: I64, start_ns: I64, end_ns: I64) -> None:
        self._bounds = np.unique(np.concatenate([start_ns, end_ns]))
        self._step = len(self._bounds) + 1
        first = sensor * self._step + np.searchsorted(self._bounds, start_ns)
        order = np.argsort(first, kind="stable")
        first, last = first[order], (sensor * self._step + np.searchsorted(self._bounds, end_ns))[order]
        apart = first[1:] != last[:-1]
        self._first, self._last = (
            first[np.append(True, apart)[: len(first)]],
            last[np.append(apart, True)[: len(last)]],
        )

    def __len__(self) -> int:
        return len(self._first)

    def _keys(self, sensor: I64, ts_ns: I64) -> I64:
        keys: I64 = sensor * self._step + np.searchsorted(self._bounds, ts_ns, "right") - 1
        return keys

    def have(self, sensor: I64, ts_ns: I64) -> Bools:
        """Whether each (sensor, time) is inside one."""
        return self.hold(sensor, ts_ns, ts_ns)

    def hold(self, sensor: I64, t_min: I64, t_max: I64) -> Bools:
        """Whether each span [t_min, t_max] of a sensor is wholly inside one; never of the sensor `NOWHERE`."""
        if not len(self):
            return np.zeros(len(sensor), np.bool_)
        at = np.searchsorted(self._first, self._keys(sensor, t_min), "right") - 1
        inside: Bools = (at >= 0) & (sensor >= 0) & (self._last[at] > self._keys(sensor, t_max))
        return inside

    def touch(self, sensor: I64, t_min: I64, t_max: I64) -> Bools:
        """Whether each span [t_min, t_max] of a sensor shares a moment with one."""
        if not len(self):
            return np.zeros(len(sensor), np.bool_)
        at = np.searchsorted(self._first, self._keys(sensor, t_max), "right") - 1
        key = sensor * self._step + np.searchsorted(self._bounds, t_min, "right") - 1
        hit: Bools = (at >= 0) & (sensor >= 0) & (self._last[at] > key)
        return hit
