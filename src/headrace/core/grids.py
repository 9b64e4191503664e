"""Grids: raw values → engineering values, and back. The one definition, ``value = raw * scale + offset``.

Scales are decimals (0.1, 0.01), which floats are not: 1986 * 0.1 is 198.60000000000002. So where scale and offset are
decimals of few digits, k / 10**d and m / 10**d, the value is ``(raw * k + m) / 10**d``. For integers of up to 32 bits
the numerator is exact and so is 10**d, hence the division gives the float64 nearest to the decimal: 198.6, as people
write it. Where the plain sum is exact (scales 0.5, 2), or no such decimals exist (scale 1/3), it is that sum.

Everything that shows, compares or aggregates values comes here, so a sample has the same bits whichever way it is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]

# |raw| <= 2**32, so |raw * k| + |m| <= 2**53, up to which all integers are floats; and so are powers of ten up to 22.
_K_MAX, _M_MAX, _DIGITS_MAX = 1 << 20, 1 << 52, 22
# Values that are computed at a time, so that what is needed beside them stays in the cache.
_BLOCK = 1 << 15
# How far, in its own roundings, a number may be from the grid's value that it was written for.
_ROUNDINGS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The grids of some columns or rows.

    Parameters
    ----------
    terms : float64[3, n], factor, shift and divisor of each: ``value = (raw * factor + shift) / divisor``.
    """

    terms: F64

    @classmethod
    def of(cls, grids: Iterable[tuple[float, float]]) -> Grid:
        """The grids of (scale, offset) pairs."""
        terms = np.array([_terms(float(scale), float(offset)) for scale, offset in grids])
        return cls(np.ascontiguousarray(terms.reshape(-1, 3).T))

    @classmethod
    def plain(cls, n: int) -> Grid:
        """N columns whose raw values are their values."""
        return cls(np.repeat(np.array([_terms(1.0, 0.0)]).T, n, axis=1))

    @property
    def has_steps(self) -> Bool:
        """Which columns' raw values differ from values: bool[n]."""
        has: Bool = (self.terms != np.array([[1.0], [0.0], [1.0]])).any(axis=0)
        return has

    @property
    def is_plain(self) -> bool:
        """Whether all raw values are values."""
        if self.terms.shape[1] == 1:
            return self.terms.ravel().tolist() == [1.0, 0.0, 1.0]
        return not self.has_steps.any()

    @property
    def step(self) -> F64:
        """Size of a raw step, the scale: float64[n]."""
        step: F64 = self.terms[0] / self.terms[2]
        return step

    def take(self, index: Array | list[int]) -> Grid:
        """The grids at `index`."""
        return Grid(self.terms.take(index, axis=1))

    def values(self, raw: npt.ArrayLike) -> F64:
        """Raw values, [..., n] or of one grid any shape, as engineering values.

        Cost: 1 to 2 ns a value.
        """
        factor, shift, divisor = self.terms
        out: F64 = np.multiply(raw, factor, dtype=np.float64)
        out += shift
        if (divisor != 1.0).any():
            out /= divisor
        return out

    def values_at(self, raw: Array, index: Array) -> F64:
        """The same for raw values [N] of which each has the grid at its `index`.

        Cost: 3 ns a value, 1 where all grids are alike.
        """
        if (self.terms == self.terms[:, :1]).all():
            return Grid(self.terms[:, :1]).values(raw)
        out = np.empty(len(raw))
        for at in range(0, len(raw), _BLOCK):
            block = slice(at, at + _BLOCK)
            out[block] = self.take(index[block]).values(raw[block])
        return out

    def totals(self, raw_sum: Array, n: Array) -> F64:
        """Sums of `n` raw values as sums of engineering values."""
        factor, shift, divisor = self.terms
        total: F64 = (raw_sum * factor + n * shift) / divisor
        return total

    def positions(self, values: npt.ArrayLike) -> F64:
        """Where values lie on the grid, in raw steps: the inverse of `values` but for rounding."""
        factor, shift, divisor = self.terms
        found: F64 = (np.asarray(values, np.float64) * divisor - shift) / factor
        return found

    def nearest(self, values: Array, dtype: np.dtype[Any]) -> tuple[Array, Bool]:
        """Raw values of type `dtype` whose values are `values`, and which there are.

        Floats have one for any value. An integer has to give the value bit for bit, or differ by no more than the
        roundings of a sum of that size in the values' own type, so that both float32 files and values that were computed
        in another order are read; never by a good part of a step.
        """
        given = values.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            raw = self._reproducing(given, dtype)
            if dtype.kind == "f":
                return raw.astype(dtype), np.ones(raw.shape, np.bool_)
            off = np.abs(self.values(raw) - given)
            rounding = float(np.finfo(values.dtype if values.dtype.kind == "f" else np.float64).eps)
            slack = _ROUNDINGS * rounding * (np.abs(given) + np.abs(self.terms[1] / self.terms[2]))
            fits = (off == 0.0) | ((off <= slack) & (slack <= np.abs(self.step) / 4))
            ends = np.iinfo(dtype)
            fits &= (raw >= float(ends.min)) & (raw < float(ends.max) + 1.0)
            return np.where(fits, raw, 0.0).astype(dtype), fits

    def _reproducing(self, values: F64, dtype: np.dtype[Any]) -> F64:
        """The raw value next to each position, or where only its neighbour gives the value, that one."""
        raw = _rounded(self.positions(values), dtype)
        for end in (-np.inf, np.inf):  # of numbers past 2**53 the position itself is rounded
            beside = _rounded(np.nextafter(raw, end), dtype)
            better = (self.values(beside) == values) & (self.values(raw) != values)
            raw = np.where(better, beside, raw)
        return raw


def value_of(raw: float, scale: float, offset: float) -> float:
    """One raw value as `Grid.values` gives it, for those who look at single samples."""
    factor, shift, divisor = _terms(float(scale), float(offset))
    return (float(raw) * factor + shift) / divisor


def composed(inner: tuple[float, float], outer: tuple[float, float]) -> tuple[float, float]:
    """One grid (scale, offset) for two: `outer` takes what `inner` gives."""
    if inner == (1.0, 0.0) or outer == (1.0, 0.0):
        return outer if inner == (1.0, 0.0) else inner
    return decimal_sum(inner[0], outer[0], 0.0), decimal_sum(inner[1], outer[0], outer[1])


def decimal_sum(x: float, factor: float, add: float) -> float:
    """``x * factor + add`` of the decimals as they are written, rounded once: 0.1 * 3 is 0.3."""
    plain = x * factor + add
    if not math.isfinite(plain):
        return plain
    return float(_decimal(x) * _decimal(factor) + _decimal(add))


def decimal_quotient(x: float, divisor: float) -> float:
    """``x / divisor`` of the decimals as they are written, rounded once: 0.3 / 0.1 is 3."""
    return float(_decimal(x) / _decimal(divisor))


@lru_cache(maxsize=65_536)
def _terms(scale: float, offset: float) -> tuple[float, float, float]:
    """Factor, shift and divisor of a grid."""
    if (scale, offset) == (1.0, 0.0):
        return 1.0, -0.0, 1.0  # adding it leaves -0.0 what it is
    if not (math.isfinite(scale) and math.isfinite(offset)) or _is_exact(scale, offset):
        return scale, offset, 1.0
    k, m = _decimal(scale), _decimal(offset)
    for digits in range(_DIGITS_MAX + 1):
        power = 10**digits
        if (k * power).denominator == 1 == (m * power).denominator:
            if abs(k * power) <= _K_MAX and abs(m * power) <= _M_MAX:
                return float(k * power), float(m * power), float(power)
            break
    return scale, offset, 1.0


def _is_exact(scale: float, offset: float) -> bool:
    """Whether the plain sum is exact for integers of up to 32 bits."""
    (k, below), (m, under) = scale.as_integer_ratio(), offset.as_integer_ratio()
    common = max(below, under)  # both are powers of two
    return abs(k) * (common // below) <= _K_MAX and abs(m) * (common // under) <= _M_MAX


def _decimal(x: float) -> Fraction:
    """The shortest decimal that is read as `x`: what was written in the plant file."""
    return Fraction(repr(x))


def _rounded(raw: F64, dtype: np.dtype[Any]) -> F64:
    """The nearest numbers that `dtype` has, as float64."""
    return raw.astype(dtype).astype(np.float64) if dtype.kind == "f" else np.rint(raw)
