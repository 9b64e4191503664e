"""Packet ids between the arrival of their messages and the acknowledgement: who holds each, in arrays.

A message has a number of its own, counted from 1. What becomes durable when its connection has ended can't be
acknowledged: it is late, and is acknowledged when it comes again.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from headrace.adapters.broker.packets import Arrivals
from headrace.core.kernels import lean_kernel

I64 = npt.NDArray[np.int64]
_N_IDS = 1 << 16
_NOBODY = 0


@lean_kernel
def _hold(ids: I64, first: int, generation: int, holder: I64, generations: I64) -> int:
    """Give ids to messages, numbered from `first` on; how many have one."""
    n = 0
    for i in range(len(ids)):
        if ids[i] >= 0:
            holder[ids[i]], generations[ids[i]] = first + i, generation
            n += 1
    return n


@lean_kernel
def _settle(
    ids: I64, first: int, generation: int, holder: I64, generations: I64, found: tuple[I64, I64]
) -> tuple[int, int]:
    """Free ids that messages hold on this connection; the places of those that hold one on another stay held."""
    now, late = found
    n, n_late = 0, 0
    for i in range(len(ids)):
        if ids[i] < 0 or holder[ids[i]] != first + i:
            continue
        if generations[ids[i]] == generation:
            holder[ids[i]] = _NOBODY
            now[n] = ids[i]
            n += 1
        else:
            late[n_late] = i
            n_late += 1
    return n, n_late


def _check(topic: str, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(topic.encode()))


class HeldIds:
    """Who holds which packet id, and on which connection its acknowledgement is waited for."""

    def __init__(self) -> None:
        self._holder = np.zeros(_N_IDS, np.int64)
        self._generations = np.zeros(_N_IDS, np.int64)
        self._late: dict[int, int] = {}

    def hold(self, ids: I64, first: int, generation: int) -> int:
        """Messages have come; how many of them have an id."""
        if self._late:
            for packet_id in ids.tolist():
                self._late.pop(packet_id, None)
        return _hold(ids, first, generation, self._holder, self._generations)

    def holder(self, packet_id: int) -> int:
        """The number of the message that has the id, 0 for none."""
        return int(self._holder[packet_id])

    def move(self, packet_id: int, generation: int) -> None:
        """The broker waits for its acknowledgement on another connection now."""
        self._generations[packet_id] = generation

    def settle(self, came: Arrivals, first: int, generation: int) -> I64:
        """Messages are durable; the ids to acknowledge now. The others are late."""
        ids = came.packet_ids
        now, late = np.empty_like(ids), np.empty_like(ids)
        n, n_late = _settle(ids, first, generation, self._holder, self._generations, (now, late))
        for i in late[:n_late].tolist():
            self._late[int(ids[i])] = _check(came.topics[i], came.payloads[i])
        return now[:n]

    def release(self, ids: I64, first: int) -> None:
        """Messages are not taken: whoever comes with their ids is new."""
        ids = ids[(ids >= 0) & (self._holder[ids] == first + np.arange(len(ids)))]
        self._holder[ids] = _NOBODY

    def is_late(self, packet_id: int) -> bool:
        """Whether the holder is durable, and was not acknowledged."""
        return packet_id in self._late

    def settle_late(self, packet_id: int, topic: str, payload: bytes) -> bool:
        """Free the id of a late message, if it is this one."""
        if self._late[packet_id] != _check(topic, payload):
            return False
        del self._late[packet_id]
        self._holder[packet_id] = _NOBODY
        return True

    def forget(self) -> None:
        """Ids mean something new from now on."""
        self._holder[:] = _NOBODY
        self._late.clear()
