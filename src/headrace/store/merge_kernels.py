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
def gather_samples(
    runs: tuple[I64, I64, I64], samples: Columns, span: tuple[Any, Any], out: Columns, kept: I64
) -> bool:
    """Copy runs one behind the other: the samples in the span that are there.

    Parameters
    ----------
    runs : where each starts, its length, its sensor. span : from this time on, and before that one, ns.
    kept : filled: how many of each run's samples these are.

    Returns
    -------
    bool : whether some of a sensor are not in strictly rising time.
    """
    start, length, sensor = runs
    ts_ns, values, quality = samples
    first_ns, end_ns = span
    n, n_falls = np.uint64(0), 0
    last, last_of = np.int64(0), np.int64(-1)
    for r in range(len(start)):
        before = n
        for i in range(np.uint64(start[r]), np.uint64(start[r] + length[r])):
            t = ts_ns[i]
            # Of a sample that is not kept too: the next one comes over it.
            out[0][n], out[1][n], out[2][n] = t, values[i], quality[i]
            if first_ns <= t < end_ns and quality[i] < _ABSENT:
                n_falls += 1 if t <= last and last_of == sensor[r] else 0
                last, last_of = t, sensor[r]
                n += np.uint64(1)
        kept[r] = np.int64(n - before)
    return n_falls > 0
