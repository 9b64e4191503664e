"""Kernels of `headrace.store.runs`, apart so that Numba is loaded when samples are merged first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel
from headrace.core.quality import Quality

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
Columns = tuple[I64, U64, U8]
"""Times, bits of the values, quality."""

_ABSENT = np.uint8(Quality.ABSENT)


@lean_kernel
def scatter_samples(
    runs: tuple[I64, I64, I64], samples: Columns, span: tuple[Any, Any], out: Columns, kept: I64
) -> bool:
    """Copy each run to its place: the samples in the span that are there, one behind the other from there on.

    Parameters
    ----------
    runs : where each starts, its length, and its place in `out`, which has room for all of it. samples : quality is empty where
    all are good. span : from this time on, and before that one, ns. kept : filled: how many of each run's samples these are.

    Returns
    -------
    bool : whether some of a run are not in strictly rising time.
    """
    start, length, place = runs
    ts_ns, values, quality = samples
    first_ns, end_ns = span
    is_good, n_falls = len(quality) == 0, 0
    for r in range(len(start)):
        n, last = np.uint64(place[r]), np.int64(0)
        for i in range(np.uint64(start[r]), np.uint64(start[r] + length[r])):
            t, mark = ts_ns[i], np.uint8(0) if is_good else quality[i]
            # Of a sample that is not kept too: the next one comes over it.
            out[0][n], out[1][n], out[2][n] = t, values[i], mark
            if first_ns <= t < end_ns and mark < _ABSENT:
                n_falls += 1 if t <= last and n > np.uint64(place[r]) else 0
                last = t
                n += np.uint64(1)
        kept[r] = np.int64(n - np.uint64(place[r]))
    return n_falls > 0


@lean_kernel
def close_gaps(place: I64, kept: I64, columns: Columns) -> None:
    """Move the samples that each run has at its place to the front, one run behind the other; places rise."""
    n = np.uint64(0)
    for r in range(len(place)):
        for i in range(np.uint64(place[r]), np.uint64(place[r] + kept[r])):
            columns[0][n], columns[1][n], columns[2][n] = columns[0][i], columns[1][i], columns[2][i]
            n += np.uint64(1)
