"""The kernels of `headrace.store.grouping`, apart so that numba is loaded when the first flush comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel, lean_leaf
from headrace.store.grouping import DAY_NS

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]


@lean_leaf
def _count(entry: Array, ts_ns: I64, n_of: I64, last_ns: I64) -> tuple[bool, bool]:
    """Count the frames of each entry; whether times strictly rise inside each, and whether all are of one day."""
    first, last = np.int64(2**63 - 1), np.int64(-(2**63))
    n_falls = 0
    for f in range(len(ts_ns)):
        e, ts = np.uint64(entry[f]), ts_ns[f]  # unsigned: nobody asks whether it counts from the end
        n_falls += 1 if n_of[e] > 0 and ts <= last_ns[e] else 0
        last_ns[e] = ts
        n_of[e] += 1
        first, last = min(first, ts), max(last, ts)
    return n_falls == 0, first // DAY_NS == last // DAY_NS


@lean_leaf
def _cut_at_sizes(entry_start: I64, frames_max: int, starts: I64) -> int:
    """Write where blocks start, of frames of one day; returns how many there are."""
    n = 0
    for e in range(len(entry_start) - 1):
        for i in range(entry_start[e], entry_start[e + 1], frames_max):
            starts[n] = i
            n += 1
    return n


@lean_leaf
def _cut_at_days(order: I64, entry_start: I64, ts_ns: I64, frames_max: int, starts: I64) -> int:
    """Write where blocks start, at days as well; returns how many there are."""
    n = 0
    for e in range(len(entry_start) - 1):
        day_end = np.int64(-(2**63))
        day_begin = np.int64(2**63 - 1)
        begin = 0
        for i in range(entry_start[e], entry_start[e + 1]):
            ts = ts_ns[order[i]]
            if not day_begin <= ts < day_end or i - begin >= frames_max:
                day_begin = ts - ts % DAY_NS
                day_end = day_begin + DAY_NS
                starts[n] = i
                n += 1
                begin = i
    return n


@lean_kernel
def plan(
    entry: Array, ts_ns: I64, frames_max: int, entries: tuple[I64, I64], order: I64, starts: I64
) -> tuple[int, bool]:
    """Sort frames by entry (stable) and write where blocks start.

    Parameters
    ----------
    entries : ``int64[n + 1]`` of zeros, filled with where each entry starts in `order`; ``int64[n]``, scratch.
    order, starts : ``int64[N]``, ``int64[N + 1]``, filled.

    Returns
    -------
    How many blocks there are, and whether times strictly rise inside each entry: else nothing is in order.
    """
    entry_start, scratch = entries
    in_order, is_one_day = _count(entry, ts_ns, entry_start[1:], scratch)
    if not in_order:
        return 0, False
    for e in range(len(scratch)):
        scratch[e] = entry_start[e]
        entry_start[e + 1] += entry_start[e]
    for f in range(len(order)):
        mine = np.uint64(entry[f])
        order[scratch[mine]] = f
        scratch[mine] += 1
    if is_one_day:
        n = _cut_at_sizes(entry_start, frames_max, starts)
    else:
        n = _cut_at_days(order, entry_start, ts_ns, frames_max, starts)
    starts[n] = len(order)
    return n, True
