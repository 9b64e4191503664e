"""Stored and unflushed frames of one group: what a revision of a window is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch
from headrace.core.layouts import Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.store.query import Store
from headrace.store.regroup import read_layouts

Array = npt.NDArray[Any]


class Unflushed(Protocol):
    """Where frames that are not committed are found: a hot buffer, or a journal."""

    def frames(self, slots: npt.NDArray[np.uint32]) -> list[FrameBatch]:
        """Frames of `slots`; later batches win."""
        ...


class GroupFrames:
    """``frames(slot, start_ns, end_ns)``: all frames of a group, in time order, newest versions.

    What the group sent under other layouts is in them too, sensor by sensor; values of another grid are moved to
    the nearest step of this one.

    Parameters
    ----------
    buffers : hot buffer of each shard; handed in once they exist.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.buffers: Mapping[int, Unflushed] = {}

    def __call__(self, slot: int, start_ns: int, end_ns: int) -> FrameBatch | None:
        """The frames; None where there are none, or where a damaged segment hides some of them."""
        return self.many([slot], start_ns, end_ns).get(slot)

    def many(self, slots: Sequence[int], start_ns: int, end_ns: int) -> dict[int, FrameBatch]:
        """The frames of several groups of one shard, by slot; one read of the store."""
        directory = self._store.directory
        shard = int(directory.shard[slots[0]])

        def tail(wanted: npt.NDArray[np.uint32]) -> list[FrameBatch]:
            return self.buffers[shard].frames(wanted)

        layouts = {slot: _layouts_of(directory, slot) for slot in slots}
        every = sorted({one for some in layouts.values() for one in some})
        batches, missing = read_layouts(self._store, every, start_ns, end_ns, tail)
        found: dict[int, FrameBatch] = {} if missing else {int(b.slot[0]): b for b in batches}
        out = {}
        for slot, some in layouts.items():
            parts = [_under(directory, found[one], one, slot) for one in some if one in found]
            if parts:
                out[slot] = _merged(parts)
        return out


def _layouts_of(directory: SensorDirectory, slot: int) -> list[int]:
    """All slots of the group of `slot`, newest first."""
    out = [directory.slot(directory.paths[slot], directory.parts[slot])]
    while directory.previous[out[-1]] >= 0:
        out.append(int(directory.previous[out[-1]]))
    return out


def _under(directory: SensorDirectory, batch: FrameBatch, old: int, slot: int) -> FrameBatch:
    """Dense frames of the layout of `old` as frames of that of `slot`; sensors it had not are absent."""
    if old == slot:
        return batch
    new_layout, old_layout = directory.layout(slot), directory.layout(old)
    place = {sensor: i for i, sensor in enumerate(directory.sensors(old).tolist())}
    wide = (batch.n_frames, new_layout.width)
    values = np.zeros(wide, numpy_dtype(new_layout.dtype))
    quality = np.full(wide, Quality.ABSENT, np.uint8)
    for i, sensor in enumerate(directory.sensors(slot).tolist()):
        j = place.get(sensor)
        if j is not None:
            values[:, i] = _moved(batch.values[:, j], (old_layout, j), (new_layout, i))
            quality[:, i] = 0 if batch.quality is None else batch.quality[:, j]
    return FrameBatch.dense(np.full(batch.n_frames, slot, np.uint32), batch.ts_ns, values, quality)


def _moved(values: Array, old: tuple[Layout, int], new: tuple[Layout, int]) -> Array:
    """Raw values of one column's grid and type as the nearest ones of another's."""
    (was, j), (now, i) = old, new
    kind = numpy_dtype(now.dtype)
    if (was.scale[j], was.offset[j], was.dtype) == (now.scale[i], now.offset[i], now.dtype):
        return values
    raw: Array = now.grid.take([i]).positions(was.grid.take([j]).values(values))
    if kind.kind == "f":
        floats: Array = raw.astype(kind)
        return floats
    ends = np.iinfo(kind)
    inside = np.clip(np.rint(np.nan_to_num(raw)), float(ends.min), float(ends.max))
    # The largest 64-bit integers have no float64 of their own.
    moved: Array = np.where(inside >= float(ends.max), ends.max, inside.astype(kind)).astype(kind)
    return moved


def _merged(batches: list[FrameBatch]) -> FrameBatch:
    """Dense frames of one slot as one batch in time order; each sample is in one of them only."""
    if len(batches) == 1:
        return batches[0]
    times = np.unique(np.concatenate([b.ts_ns for b in batches]))
    values = np.zeros((len(times), batches[0].width), batches[0].values.dtype)
    quality = np.full(values.shape, Quality.ABSENT, np.uint8)
    for batch in batches:
        row = np.searchsorted(times, batch.ts_ns)
        marks = np.zeros(batch.values.shape, np.uint8) if batch.quality is None else batch.quality
        there = marks < Quality.ABSENT
        values[row] = np.where(there, batch.values, values[row])
        quality[row] = np.where(there, marks, quality[row])
    return FrameBatch.dense(np.full(len(times), batches[0].slot[0], np.uint32), times, values, quality)
