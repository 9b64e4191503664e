"""Connected lines on a grid of levels: knots found, and lines written out again. Time is the index."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_PATIENCE = 64
"""Values that a line is followed beyond its last knot, at least; what bounds the cost per value."""


@lean_kernel
def find_knots(x: F64, reach: float, step: float, swing: bool, ends: I64, levels: I64) -> int:
    """Knots whose connecting lines pass within `reach` of all values of ``x: float64[n]``.

    From a knot, each value narrows the cone of slopes that pass all so far. Where the cone has a level at a value,
    that can be the next knot; the furthest such one is taken. So knots lie on the grid and their lines keep the
    bound without a share of it being set aside for the grid.

    Parameters
    ----------
    reach : distance of a line from a value at most. step : distance of levels, at most `reach`. swing : whether any
        level in the cone may be a knot (the nearest to the value is taken), or only the one nearest to the value.
    ends, levels : int64[n], filled: index of each knot and number of its level.

    Returns
    -------
    int : knots, at most n; the first is at 0, the last at n - 1.
    """
    n = len(x)
    ends[0], levels[0] = 0, np.int64(np.rint(x[0] / step))
    knots, start = 1, 0
    while start < n - 1:
        from_value = levels[knots - 1] * step
        low, high = -np.inf, np.inf
        end, end_level = start, np.float64(0.0)
        i = start + 1
        while i < n and i - end <= max(_PATIENCE, end - start):
            distance = np.float64(i - start)
            low = max(low, (x[i] - reach - from_value) / distance)
            high = min(high, (x[i] + reach - from_value) / distance)
            if low > high:
                break
            level = np.rint(x[i] / step)
            if swing:
                lowest = np.ceil((from_value + low * distance) / step)
                highest = np.floor((from_value + high * distance) / step)
                if lowest <= highest:
                    level = min(max(level, lowest), highest)
            slope = (level * step - from_value) / distance
            if (low <= slope <= high) or i == start + 1:
                end, end_level = i, level
            i += 1
        ends[knots], levels[knots] = end, np.int64(end_level)
        knots += 1
        start = end
    return knots


@lean_kernel
def write_lines(ends: I64, levels: I64, step: float, out: F64) -> None:
    """Values of ``out: float64[n]`` on the lines between knots; `ends` rise from 0 to n - 1."""
    out[0] = levels[0] * step
    for k in range(1, len(ends)):
        start, end = ends[k - 1], ends[k]
        value = levels[k - 1] * step
        slope = (levels[k] - levels[k - 1]) * step / np.float64(end - start)
        for i in range(start + 1, end + 1):
            out[i] = value + np.float64(i - start) * slope
