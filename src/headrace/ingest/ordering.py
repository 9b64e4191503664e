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
_WORD, _ONE = 64, np.uint64(1)


@kernel
def _is_in_order(slot: Array, place: Array) -> bool:
    f, before = 0, -1
    while f < len(slot) and place[slot[f]] >= before:
        before = place[slot[f]]
        f += 1
    return f == len(slot)


@kernel
def _rank(slot: Array, place: Array, frame: Array) -> bool:
    """Put each frame's number at its group's place, ``frame: int32[n_slots]``; False where a group has two."""
    for f in range(len(slot)):
        p = place[slot[f]]
        if frame[p] != _ABSENT:
            return False
        frame[p] = f
    return True


@kernel
def _compact(frame: Array, order: Array) -> None:
    """The numbers that are there, one behind the other."""
    n = 0
    for p in range(len(frame)):
        if frame[p] != _ABSENT:
            order[n] = frame[p]
            n += 1


@kernel
def _scatter(slot: Array, place: Array, ts_ns: Array, values: Array, to: tuple[Array, Array]) -> bool:
    """Put each frame's time and value at its group's place; False where a group has two.

    ``to = there: uint64[n_slots / 64], pairs: int64[n_slots, 2]``: the bits say which pairs are there.
    """
    there, pairs = to
    for f in range(len(slot)):
        p = place[slot[f]]
        bit = _ONE << np.uint64(p % _WORD)
        if there[p // _WORD] & bit:
            return False
        there[p // _WORD] |= bit
        pairs[p, 0] = ts_ns[f]
        pairs[p, 1] = values[f]
    return True


@kernel
def _gather(there: Array, pairs: Array, at_place: Array, out: tuple[Array, Array, Array]) -> None:
    """The pairs that are there, one behind the other, with their slots."""
    slot, ts_ns, values = out
    n = 0
    for word in range(len(there)):
        bits, p = there[word], word * _WORD
        while bits:
            if bits & _ONE:
                slot[n], ts_ns[n], values[n] = at_place[p], pairs[p, 0], pairs[p, 1]
                n += 1
            bits >>= _ONE
            p += 1


def in_place_order(batch: FrameBatch, directory: SensorDirectory) -> FrameBatch:
    """Frames in the order of the shards' state, where each group has one frame and many groups have one.

    A round of polls in random order is put in order with one scatter, cheaper than a sort; what follows then
    walks through memory instead of jumping: stepping a lone sensor costs half. Other batches stay as they are.

    Cost: 6 ns of CPU a frame of a lone sensor; 1 ns where the frames are in order.
    """
    place = directory.place
    if batch.n_frames * _SLOTS_A_FRAME < len(place) or _is_in_order(batch.slot, place):
        return batch
    if batch.width == 1 and batch.quality is None:
        return _lone(batch, directory)
    frame = np.full(len(place), _ABSENT, np.int32)
    if not _rank(batch.slot, place, frame):
        return batch
    order = np.empty(batch.n_frames, np.int64)
    _compact(frame, order)
    return batch.take(order)


def _lone(batch: FrameBatch, directory: SensorDirectory) -> FrameBatch:
    """One value a frame: times and values travel in pairs, so that a frame is one place in memory.

    Values move as the bits they are, whatever their type.
    """
    assert batch.shape is Shape.DENSE
    place, n = directory.place, batch.n_frames
    there = np.zeros(-(-len(place) // _WORD), np.uint64)
    pairs = np.empty((len(place), 2), np.int64)
    bits = np.ascontiguousarray(batch.values).reshape(-1).view(f"i{batch.values.itemsize}")
    if not _scatter(batch.slot, place, batch.ts_ns, bits, (there, pairs)):
        return batch
    slot, ts_ns, values = np.empty(n, np.uint32), np.empty(n, np.int64), np.empty_like(bits)
    _gather(there, pairs, directory.at_place, (slot, ts_ns, values))
    return batch.with_(slot=slot, ts_ns=ts_ns, values=values.view(batch.values.dtype).reshape(-1, 1))
