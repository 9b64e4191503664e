"""The kernels of `headrace.store.grouping`, apart so that numba is loaded when the first flush comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import kernel
from headrace.store.grouping import DAY_NS

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

IN_ORDER, UNORDERED = 0, 1


@kernel
def sort_by_entry(entry: Array, slots: Array, use_slots: bool, next_place: I64, order: I64) -> None:
    """Stable counting sort of frames by entry; `next_place` holds where each entry starts and is used up."""
    for f in range(len(slots)):
        e = entry[slots[f]] if use_slots else entry[f]
        order[next_place[e]] = f
        next_place[e] += 1


@kernel
def count_entries(entry: Array, slots: Array, use_slots: bool, count: I64) -> None:
    """Count the frames of each entry."""
    for f in range(len(slots)):
        e = entry[slots[f]] if use_slots else entry[f]
        count[e] += 1


@kernel
def cut(order: I64, entry_start: I64, ts_ns: I64, frames_max: int, starts: I64) -> tuple[int, int]:
    """Write where blocks start; how many there are, and whether times strictly rise inside each entry."""
    n = 0
    state = IN_ORDER
    for e in range(len(entry_start) - 1):
        day_end = np.int64(-(2**63))
        day_begin = np.int64(2**63 - 1)
        begin = 0
        last = np.int64(0)
        for i in range(entry_start[e], entry_start[e + 1]):
            ts = ts_ns[order[i]]
            if i > entry_start[e] and ts <= last:
                state = UNORDERED
            last = ts
            if not day_begin <= ts < day_end or i - begin >= frames_max:
                day_begin = ts - ts % DAY_NS
                day_end = day_begin + DAY_NS
                starts[n] = i
                n += 1
                begin = i
    starts[n] = len(order)
    return n, state
