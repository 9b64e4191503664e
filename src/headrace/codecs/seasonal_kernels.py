"""Levels that repeat what they were a period ago, wherever the bound allows it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@lean_kernel
def repeat_levels(x: F64, reach: float, step: float, period: int, levels: I64) -> None:
    """For each value of ``x: float64[n]`` the level within `reach` that is nearest to the level a period ago.

    Before there is one, nearest to the level before. What noise there is below the bound then is not repeated, nor
    passed on: levels are compared with levels, never with values.

    Parameters
    ----------
    step : distance of levels, at most twice `reach`. levels : int64[n], filled.
    """
    for i in range(len(x)):
        nearest = np.rint(x[i] / step)
        lowest, highest = np.ceil((x[i] - reach) / step), np.floor((x[i] + reach) / step)
        if lowest > highest or i == 0:  # only where levels are twice `reach` apart, and rounding has the say
            levels[i] = np.int64(nearest)
        else:
            before = np.float64(levels[i - period] if i >= period else levels[i - 1])
            levels[i] = np.int64(min(max(before, lowest), highest))


@lean_kernel
def add_periods(levels: I64, period: int) -> None:
    """Levels from their differences over a period, in place; the first period is levels already."""
    for i in range(period, len(levels)):
        levels[i] += levels[i - period]
