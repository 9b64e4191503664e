"""Levels of whole numbers that stay as long as they can within a tolerance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel

I64 = npt.NDArray[np.int64]


@lean_kernel
def steady_levels(r: I64, reach: int, step: int, levels: I64) -> None:
    """For each of ``r: int64[n]`` a level, a multiple of `step` within `reach` of it, that changes as seldom as it can.

    Parameters
    ----------
    reach : at least 0. step : 1 to ``2 * reach + 1``, so that each number has a level. levels : int64[n], filled with
        ``level / step``.
    """
    first = 0
    before = np.int64(0)
    low, high = np.int64(-(2**62)), np.int64(2**62)
    for i in range(r.size):
        lowest, highest = -((reach - r[i]) // step), (r[i] + reach) // step
        if lowest > high or highest < low:
            before = min(max(before, low), high)
            for j in range(first, i):
                levels[j] = before
            first, low, high = i, lowest, highest
        else:
            low, high = max(low, lowest), min(high, highest)
    before = min(max(before, low), high)
    for j in range(first, r.size):
        levels[j] = before
