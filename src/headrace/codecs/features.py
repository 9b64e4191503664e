"""What a series is like, as far as it decides which codec wins: runs, digits, noise, regular times."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.codecs.base import I64, Array

DIGITS_MAX = 9
GAP = 1.5
"""Intervals longer than that many usual ones are gaps."""


@dataclass(frozen=True, slots=True)
class Features:
    """Of ``ts_ns: int64[n]`` and ``values: T[n]``; None where it is not defined.

    Attributes
    ----------
    n : samples. dtype : of the values. low, high : of the finite values. n_distinct : different values. mean_run : samples
        of a run of one value. not_finite : NaN and infinities. digits : decimals that all values have; None for more than 9.
    change : median size of the difference to the value before, as a share of the range. smoothness : correlation with the
        value before. interval_ns : median distance of times. regular : share of distances that are exactly that. jitter_ns
        : largest distance of others from it, gaps aside. n_gaps : distances of more than 1.5 intervals.
    """

    n: int
    dtype: str
    low: float | None
    high: float | None
    n_distinct: int
    mean_run: float | None
    not_finite: int
    digits: int | None
    change: float | None
    smoothness: float | None
    interval_ns: int | None
    regular: float | None
    jitter_ns: int | None
    n_gaps: int

    def to_dict(self) -> dict[str, Any]:
        """All by name."""
        return dataclasses.asdict(self)


def features_of(ts_ns: I64, values: Array) -> Features:
    """Look at a series. Cost: about 0.2 us a sample, most of it for sorting."""
    words = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
    finite = values[np.isfinite(values)].astype(np.float64)
    change, smoothness = _shape(finite)
    interval_ns, regular, jitter_ns, n_gaps = _times(ts_ns)
    runs = 1 + int((words[1:] != words[:-1]).sum()) if values.size else 0
    return Features(
        values.size,
        values.dtype.name,
        float(finite.min()) if finite.size else None,
        float(finite.max()) if finite.size else None,
        int(np.unique(words).size),
        values.size / runs if runs else None,
        int(values.size - finite.size),
        _digits(finite) if values.dtype.kind == "f" else 0,
        change,
        smoothness,
        interval_ns,
        regular,
        jitter_ns,
        n_gaps,
    )


def _digits(finite: Array) -> int | None:
    for digits in range(DIGITS_MAX + 1):
        if np.array_equal(np.round(finite, digits), finite):
            return digits
    return None


def _shape(finite: Array) -> tuple[float | None, float | None]:
    if finite.size < 3:
        return None, None
    with np.errstate(over="ignore", invalid="ignore"):
        span = float(finite.max() - finite.min())
        if not 0.0 < span < np.inf:
            return None, None
        x = (finite - finite.min()) / span
        change = float(np.median(np.abs(np.diff(x))))
        before, after = x[:-1] - x[:-1].mean(), x[1:] - x[1:].mean()
        size = float(np.sqrt((before @ before) * (after @ after)))
    return change, float(before @ after) / size if size > 0.0 else None


def _times(ts_ns: I64) -> tuple[int | None, float | None, int | None, int]:
    if ts_ns.size < 2:
        return None, None, None, 0
    steps = np.diff(ts_ns)
    usual = int(np.median(steps))
    off = np.abs(steps - usual)
    gaps = steps > GAP * usual if usual > 0 else np.zeros(steps.size, np.bool_)
    return usual, float((off == 0).mean()), int(off[~gaps].max(initial=0)), int(gaps.sum())
