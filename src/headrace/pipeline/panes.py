"""Kernels of sliding windows: a window is put together from panes.

A *pane* is a tumbling window as long as the step between two sliding windows (Li et al. 2005, "No pane, no
gain: efficient evaluation of sliding-window aggregates over data streams"). Each sample is added to one pane only;
a ring of the last K closed panes of each row is merged when a window is over. So the cost of a sample does not grow
with the overlap, and a window costs K merges of a row.

``ring`` = (pane[R, K] start ns, heard[R, K], loose[R, K], flags[R, K], first, last, low, high: T[R, K, D],
shifted, squares: float64[R, K, D], n: int32[R, K, D]), with panes at place ``start // every % K``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import kernel
from headrace.pipeline.windows import DIRTY

Array = npt.NDArray[Any]


@kernel
def put_panes(out: tuple[Array, ...], every_ns: int, ring: tuple[Array, ...]) -> None:
    """Put closed panes, as `headrace.pipeline.windows.close_rows` writes them, into the rings of their rows."""
    for i in range(len(out[0])):
        _put(i, out, every_ns, ring)


@kernel
def _put(i: int, out: tuple[Array, ...], every_ns: int, ring: tuple[Array, ...]) -> None:
    r, start_ns = out[0][i], out[1][i]
    k = start_ns // every_ns % ring[0].shape[1]
    ring[0][r, k] = start_ns
    ring[1][r, k] = out[2][i]
    ring[2][r, k] = out[4][i]
    ring[3][r, k] = out[5][i]
    for j in range(ring[4].shape[2]):
        ring[4][r, k, j] = out[6][i, j]
        ring[5][r, k, j] = out[7][i, j]
        ring[6][r, k, j] = out[8][i, j]
        ring[7][r, k, j] = out[9][i, j]
        ring[8][r, k, j] = out[10][i, j]
        ring[9][r, k, j] = out[11][i, j]
        ring[10][r, k, j] = out[12][i, j]


@kernel
def merge_panes(
    rows: Array, end_ns: Array, every_ns: int, out: tuple[Array, ...], ring: tuple[Array, ...]
) -> int:
    """Put together the windows of `rows` that end at `end_ns` from their panes; how many hold anything or are dirty.

    `out` gets rows as closed windows have them: row, start, heard, told (0), loose, flags, then by column.
    """
    pane, heard, loose, flags = ring[0], ring[1], ring[2], ring[3]
    n_panes = pane.shape[1]
    width = ring[4].shape[2]
    n_out = 0
    for i in range(len(rows)):
        r = rows[i]
        start_ns = end_ns[i] - n_panes * every_ns
        out[0][n_out] = r
        out[1][n_out] = start_ns
        out[2][n_out] = 0
        out[3][n_out] = 0
        out[4][n_out] = 0
        out[5][n_out] = 0
        for j in range(width):
            out[6][n_out, j] = 0
            out[7][n_out, j] = 0
            out[8][n_out, j] = 0
            out[9][n_out, j] = 0
            out[10][n_out, j] = 0.0
            out[11][n_out, j] = 0.0
            out[12][n_out, j] = 0
        for p in range(n_panes):
            at_ns = start_ns + p * every_ns
            k = at_ns // every_ns % n_panes
            if pane[r, k] != at_ns:
                continue
            out[2][n_out] += heard[r, k]
            out[4][n_out] += loose[r, k]
            out[5][n_out] |= flags[r, k]
            _merge(r, k, n_out, out, ring)
        n_out += out[2][n_out] > 0 or out[5][n_out] & DIRTY != 0
    return n_out


@kernel
def fold_panes(panes: tuple[Array, ...], rows: Array, out: tuple[Array, ...]) -> None:
    """Add panes to the windows at the output places ``rows: int64[K]``; of each place in the order of time.

    ``panes`` are closed windows as a ring of one row has them: heard, loose, flags[1, K], then by column.
    """
    for k in range(len(rows)):
        out[2][rows[k]] += panes[1][0, k]
        out[4][rows[k]] += panes[2][0, k]
        out[5][rows[k]] |= panes[3][0, k]
        _merge(0, k, rows[k], out, panes)


@kernel
def _merge(r: int, k: int, i: int, out: tuple[Array, ...], ring: tuple[Array, ...]) -> None:
    """Add one pane to the window at output place `i`; panes come in the order of time."""
    for j in range(ring[4].shape[2]):
        n = ring[10][r, k, j]
        if n == 0:
            continue
        if out[12][i, j] == 0:
            out[6][i, j] = ring[4][r, k, j]
            out[8][i, j] = ring[6][r, k, j]
            out[9][i, j] = ring[7][r, k, j]
        out[7][i, j] = ring[5][r, k, j]
        out[8][i, j] = min(out[8][i, j], ring[6][r, k, j])
        out[9][i, j] = max(out[9][i, j], ring[7][r, k, j])
        # The sums are of differences from each pane's own first value.
        apart = np.float64(ring[4][r, k, j]) - np.float64(out[6][i, j])
        out[10][i, j] += ring[8][r, k, j] + n * apart
        out[11][i, j] += ring[9][r, k, j] + 2.0 * apart * ring[8][r, k, j] + n * apart * apart
        out[12][i, j] += n
