"""The order in which a round of polls is journalled and stepped: that of the shards' state."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch, Shape
from headrace.core.kernels import kernel
from headrace.core.sensors import SensorDirectory

Array = npt.NDArray[Any]
_ABSENT = -1
_SLOTS_A_FRAME = 8
_IN_ORDER, _RANKED, _TWICE = 0, 1, 2


@kernel
def _rank(slot: Array, place: Array, frame: Array) -> int:
    """Put each frame's number at its group's place: ``frame: int32[n_slots]``, `_ABSENT` before."""
    n, f, before = len(slot), 0, -1
    while f < n and place[slot[f]] >= before:
        before = place[slot[f]]
        f += 1
    if f == n:
        return _IN_ORDER
    for f in range(n):
        p = place[slot[f]]
        if frame[p] != _ABSENT:
            return _TWICE
        frame[p] = f
    return _RANKED


@kernel
def _compact(frame: Array, order: Array) -> None:
    """The numbers that are there, one behind the other."""
    n = 0
    for p in range(len(frame)):
        if frame[p] != _ABSENT:
            order[n] = frame[p]
            n += 1


@kernel
def _gather(order: Array, slot: Array, ts_ns: Array, values: Array, out: tuple[Array, Array, Array]) -> None:
    """One walk through the frames of lone sensors, instead of one for each column."""
    o_slot, o_ts_ns, o_values = out
    for i in range(len(order)):
        f = order[i]
        o_slot[i] = slot[f]
        o_ts_ns[i] = ts_ns[f]
        o_values[i] = values[f]


def in_place_order(batch: FrameBatch, directory: SensorDirectory) -> FrameBatch:
    """Frames in the order of the shards' state, where each group has one frame and many groups have one.

    A round of polls in random order is put in order with one scatter, cheaper than a sort; what follows then
    walks through memory instead of jumping: stepping a lone sensor costs half. Other batches stay as they are.

    Cost: 10 ns of CPU a frame; 1 ns where the frames are in order.
    """
    n_slots = directory.n_slots
    if batch.n_frames * _SLOTS_A_FRAME < n_slots:
        return batch
    frame = np.full(n_slots, _ABSENT, np.int32)
    if _rank(batch.slot, directory.place, frame) != _RANKED:
        return batch
    order = np.empty(batch.n_frames, np.int64)
    _compact(frame, order)
    return _lone(batch, order) if batch.width == 1 and batch.quality is None else batch.take(order)


def _lone(batch: FrameBatch, order: npt.NDArray[np.int64]) -> FrameBatch:
    """`FrameBatch.take` of one value a frame; values move as the bits they are, whatever their type."""
    assert batch.shape is Shape.DENSE
    bits = np.dtype(f"u{batch.values.itemsize}")
    values = np.ascontiguousarray(batch.values).reshape(-1).view(bits)
    out = np.empty_like(batch.slot), np.empty_like(batch.ts_ns), np.empty(len(order), bits)
    _gather(order, batch.slot, batch.ts_ns, values, out)
    return batch.with_(slot=out[0], ts_ns=out[1], values=out[2].view(batch.values.dtype).reshape(-1, 1))
