"""Stored and unflushed frames of one group: what a revision of a window is computed from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch
from headrace.store.buffer import HotBuffer
from headrace.store.query import Store
from headrace.store.regroup import read_frames


class GroupFrames:
    """``frames(slot, start_ns, end_ns)``: all frames of a group, in time order, newest versions.

    Parameters
    ----------
    buffers : hot buffer of each shard; handed in once they exist.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.buffers: Mapping[int, HotBuffer] = {}

    def __call__(self, slot: int, start_ns: int, end_ns: int) -> FrameBatch | None:
        """The frames; None where there are none, or where a damaged segment hides some of them."""
        shard = int(self._store.directory.shard[slot])

        def tail(slots: npt.NDArray[np.uint32]) -> list[FrameBatch]:
            return self.buffers[shard].frames(slots)

        batch, missing = read_frames(self._store, slot, start_ns, end_ns, tail)
        return None if missing else batch
