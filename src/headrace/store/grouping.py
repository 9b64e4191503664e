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
    from headrace.codecs.values import readonly
    from headrace.store.grouping_kernels import plan

    if slots is not None:
        entry = entry[slots]
    ts_ns = readonly(ts_ns, np.int64)
    frames_max = max(1, min(FRAMES_MAX, VALUES_MAX // width))
    order, starts = np.empty(len(entry), np.int64), np.empty(len(entry) + 1, np.int64)
    entries = np.zeros(n_entries + 1, np.int64), np.empty(n_entries, np.int64)
    n, in_order = plan(entry, ts_ns, frames_max, entries, order, starts)
    if in_order:
        return order, starts[: n + 1]
    chosen = _by_time(entry, ts_ns)
    order, starts = plan_blocks(entry[chosen], None, n_entries, ts_ns[chosen], width)
    return chosen[order], starts


def _by_time(entry: Array, ts_ns: I64) -> I64:
    """Frames by (entry, time), the last of equal ones."""
    order = np.lexsort((ts_ns, entry))
    e, ts = entry[order], ts_ns[order]
    last: I64 = order[np.append((e[1:] != e[:-1]) | (ts[1:] != ts[:-1]), True)]
    return last


def number_series(group: Array, column: npt.NDArray[np.uint16]) -> tuple[npt.NDArray[np.uint32], int]:
    """A running number for each distinct (group, column): uint32[N], and how many there are."""
    order = np.argsort(column, kind="stable")
    order = order[np.argsort(group[order], kind="stable")]
    g, c = group[order], column[order]
    new = np.append(False, (g[1:] != g[:-1]) | (c[1:] != c[:-1])) if len(order) else np.empty(0, np.bool_)
    out = np.empty(len(order), np.uint32)
    out[order] = np.cumsum(new)
    return out, int(new.sum()) + 1 if len(order) else 0
