"""Error bounds as users declare them, and the absolute bound that a chunk's codec gets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headrace.codecs.base import Array


@dataclass(frozen=True, slots=True)
class Bound:
    """At most one of three; all None is lossless.

    Parameters
    ----------
    absolute : largest error, in the sensor's unit. range : largest error as a share of the sensor's range, which
        is what has been seen of it so far. value : largest error as a share of each value.
    """

    absolute: float | None = None
    range: float | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        given = [b for b in (self.absolute, self.range, self.value) if b is not None]
        if len(given) > 1:
            raise ValueError("a bound is absolute, or a share of the range, or of the value: give one")
        if any(not (math.isfinite(b) and b > 0) for b in given):
            raise ValueError(f"a bound is a number above 0, got {given[0]}; leave it out for lossless")

    @property
    def is_lossless(self) -> bool:
        """Whether nothing may be lost."""
        return self == Bound()

    def eps(self, values: Array, low: float, high: float) -> float:
        """The absolute bound for ``values: T[n]`` of a sensor whose range is ``low`` to ``high``; 0 for lossless.

        A share of the value is taken of the smallest one, so a value of 0 makes the chunk lossless.
        """
        if self.absolute is not None:
            return self.absolute
        if self.range is not None:
            return max(0.0, self.range * (high - low))
        if self.value is not None and values.size:
            return float(self.value * np.abs(values.astype(np.float64)).min())
        return 0.0
