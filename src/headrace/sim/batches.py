"""From a fleet's columns to `FrameBatch`: what an adapter would hand on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory
from headrace.sim.fleet import Fleet
from headrace.sim.reports import DenseFrames, Frames, SparseFrames


class FleetSlots:
    """The slots of a fleet's groups in a directory.

    Defines all groups at once: about 1 us a sensor.
    """

    def __init__(self, fleet: Fleet, directory: SensorDirectory) -> None:
        self._slots: dict[int, npt.NDArray[np.uint32]] = {}
        for kind in fleet.types:
            paths = fleet.paths(kind.devices())
            for part in kind.parts:
                self._slots[id(part)] = directory.define_many(paths, part.layout, part.name)

    def batch(self, frames: Frames, arrival_ns: int = 0, origin: str = "", sequence: int = -1) -> FrameBatch:
        """The same frames as a `FrameBatch`; the values are shared, not copied."""
        rest: dict[str, Any] = {"arrival_ns": arrival_ns, "origin": origin, "sequence": sequence}
        slot = self._slots[id(frames.part)][frames.type.rank(frames.device)]
        if isinstance(frames, DenseFrames):
            return FrameBatch.dense(slot, frames.ts_ns, frames.values, **rest)
        if isinstance(frames, SparseFrames):
            new = np.append(True, (np.diff(frames.device) != 0) | (np.diff(frames.ts_ns) != 0))
            first = np.flatnonzero(new)
            start = np.append(first, len(slot))
            column = frames.column.astype(np.uint16)
            return FrameBatch.sparse(slot[first], frames.ts_ns[first], frames.values, start, column, **rest)
        n_waves, n_values = frames.values.shape
        rate = np.full(n_waves, frames.rate_num), np.full(n_waves, frames.rate_den)
        start = np.arange(n_waves + 1) * n_values
        return FrameBatch.wave(slot, frames.ts_ns, frames.values.reshape(-1), start, rate, **rest)
