"""Which frames make one block: sorted by entry (a group, or one series of it), cut at days and at sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

DAY_NS = 86_400 * 1_000_000_000
FRAMES_MAX = 8_192
VALUES_MAX = 1 << 20


def plan_blocks(entry: Array, slots: Array | None, n_entries: int, ts_ns: I64, width: int) -> tuple[I64, I64]:
    """Sort frames into blocks.

    Parameters
    ----------
    entry : the entry of each frame; or of each slot, where ``slots: uint32[N]`` says the frames' slots.
    n_entries : entries are below it. width : values of a frame.

    Returns
    -------
    ``order: int64[M]`` and ``starts: int64[G + 1]`` as `encode_blocks` takes them. Times strictly rise inside
    each entry: where two frames have the same, the later one stays.
    """
    from headrace.store.grouping_kernels import UNORDERED, count_entries, cut, sort_by_entry

    use_slots = slots is not None
    frames = entry if slots is None else slots
    frames_max = max(1, min(FRAMES_MAX, VALUES_MAX // width))
    entry_start = np.zeros(n_entries + 1, np.int64)
    count_entries(entry, frames, use_slots, entry_start[1:])
    np.cumsum(entry_start, out=entry_start)
    order = np.empty(len(frames), np.int64)
    sort_by_entry(entry, frames, use_slots, entry_start[:-1].copy(), order)
    starts = np.empty(len(frames) + 1, np.int64)
    n, state = cut(order, entry_start, ts_ns, frames_max, starts)
    if state == UNORDERED:
        order, entry_start = _by_time(entry[slots] if slots is not None else entry, n_entries, ts_ns)
        n, _ = cut(order, entry_start, ts_ns, frames_max, starts)
    return order, starts[: n + 1]


def _by_time(entry: Array, n_entries: int, ts_ns: I64) -> tuple[I64, I64]:
    """Frames by (entry, time), the last of equal ones; where each entry starts."""
    order = np.lexsort((ts_ns, entry))
    e, ts = entry[order], ts_ns[order]
    last = np.append((e[1:] != e[:-1]) | (ts[1:] != ts[:-1]), True)
    order = order[last]
    entry_start = np.zeros(n_entries + 1, np.int64)
    np.cumsum(np.bincount(e[last], minlength=n_entries), out=entry_start[1:])
    return order, entry_start


def number_series(group: Array, column: npt.NDArray[np.uint16]) -> tuple[npt.NDArray[np.uint32], int]:
    """A running number for each distinct (group, column): uint32[N], and how many there are."""
    order = np.argsort(column, kind="stable")
    order = order[np.argsort(group[order], kind="stable")]
    g, c = group[order], column[order]
    new = np.append(False, (g[1:] != g[:-1]) | (c[1:] != c[:-1])) if len(order) else np.empty(0, np.bool_)
    out = np.empty(len(order), np.uint32)
    out[order] = np.cumsum(new)
    return out, int(new.sum()) + 1 if len(order) else 0
