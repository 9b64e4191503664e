"""The kernel of `headrace.store.chunks`, apart so that Numba is loaded when the first flush comes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel
from headrace.core.quality import Quality

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

_UNCERTAIN, _BAD, _ABSENT = (np.uint8(one) for one in (Quality.UNCERTAIN, Quality.BAD, Quality.ABSENT))


@lean_kernel
def count_classes(quality: U8, order: I64, starts: I64, n_of_class: I64) -> None:
    """Count the values of each quality class in each block.

    Parameters
    ----------
    quality : uint8[N, D]. order, starts : block g is frames ``order[starts[g]:starts[g + 1]]``.
    n_of_class : int64[G, 4], filled: good, uncertain, bad, absent.
    """
    n_columns = quality.shape[1]
    for g in range(len(starts) - 1):
        good = usable = there = 0
        for i in range(starts[g], starts[g + 1]):
            for j in range(n_columns):
                q = quality[order[i], j]
                good += 1 if q < _UNCERTAIN else 0
                usable += 1 if q < _BAD else 0
                there += 1 if q < _ABSENT else 0
        n = (starts[g + 1] - starts[g]) * n_columns
        n_of_class[g, 0], n_of_class[g, 1] = good, usable - good
        n_of_class[g, 2], n_of_class[g, 3] = there - usable, n - there
