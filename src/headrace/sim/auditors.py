"""Auditors: slow and obvious accounts of what must be true, to hold the fast path against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Aggregates:
    """One window of one sensor, computed from scratch; raw values, exact where numbers are."""

    count: int
    sum: float
    min: float
    max: float
    first: float
    last: float
    mean: float
    var: float
    scale: float

    @staticmethod
    def of(samples: Iterable[tuple[int, float]], scale: float = 1.0, offset: float = 0.0) -> Aggregates:
        """Aggregates of (time, raw value) pairs; sums, means and variances in engineering units.

        Rational arithmetic: the only rounding is that of the result.
        """
        ordered = sorted(samples)
        raw = [value for _, value in ordered]
        exact = [Fraction(v) * Fraction(scale) + Fraction(offset) for v in raw]
        n = len(exact)
        total = sum(exact, Fraction(0))
        mean = total / n
        var = sum(((x - mean) ** 2 for x in exact), Fraction(0)) / n
        return Aggregates(
            n, float(total), min(raw), max(raw), raw[0], raw[-1], float(mean), float(var),
            max(abs(float(x)) for x in exact),
        )  # fmt: skip

    def differences(self, found: Mapping[str, float]) -> list[str]:
        """Names of the aggregates in `found` that are not these.

        Counts and values of the source's type must be equal; sums and means within 1e-12 of the sum of
        magnitudes, variances within 1e-9 of the square of the largest.
        """
        wrong = []
        slack = {
            "sum": 1e-12 * self.scale * self.count,
            "mean": 1e-12 * self.scale,
            "var": 1e-9 * self.scale**2,
        }
        for name, value in found.items():
            mine = float(getattr(self, name))
            if name in slack:
                same = abs(value - mine) <= slack[name] + 1e-300 or (math.isinf(mine) and value == mine)
            else:
                same = value == mine
            if not same:
                wrong.append(f"{name} is {value!r}, expected {mine!r}")
        return wrong


def by_window(samples: Mapping[int, float], every_ns: int) -> dict[int, list[tuple[int, float]]]:
    """Samples (time → value) by the start of their window."""
    windows: dict[int, list[tuple[int, float]]] = {}
    for ts_ns, value in samples.items():
        windows.setdefault(ts_ns // every_ns * every_ns, []).append((ts_ns, value))
    return windows
