"""Equidistant levels within a bound: what every lossy codec rounds to, and how much of the bound rounding needs.

Decoding computes ``level * step`` (or a line between two of them) in float64 and casts it to the values' type. Both
round, by a share of the largest value. So a codec does not use its whole bound but ``eps * (1 - 2**-spare)``, with
the largest `spare` from 2 to 30 that leaves room for that: a billionth is left for most float64 values.

Grids nest where the coarser step is an odd multiple of the finer one: the borders of coarse cells then are borders
of fine cells, so the nearest coarse level of the nearest fine level is the nearest coarse level of the value itself,
and rounding once more adds no error. With an even multiple, half of the coarse borders are fine levels, and errors
add up.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import Array, SeriesCodec, Unfit

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SPARE_MIN, SPARE_MAX = 2, 30
_EPS_MIN, _EPS_MAX = 1e-290, 1e290  # steps and what is computed with them stay normal numbers
_SPARE_BITS, _SINGLE, _VARIANT_SHIFT = 0x1F, 0x20, 6
_ROUNDED = 2.0**-47
"""What 64 roundings in float64 add up to, as a share of the largest number; the longest chain has 30."""

TOLERANCE = 1.0 + 2.0**-50
"""A step may be wider than the room for it by eight roundings: three times a third."""

_CAST = {4: (2.0**-24, 2.0**-149), 8: (0.0, 2.0**-1070)}
"""Half a unit in the last place by bytes of the type: as a share of a value, and at least."""


@dataclass(frozen=True, slots=True)
class Room:
    """How a body's numbers are to be read: the head byte of every lossy body.

    Bits 0-4 are `spare` (0: the codec's settings say the step), bit 5 says float32, bits 6-7 are the codec's own.
    """

    spare: int
    single: bool
    variant: int = 0

    @property
    def head(self) -> bytes:
        """The byte."""
        return bytes([self.spare | (_SINGLE if self.single else 0) | self.variant << _VARIANT_SHIFT])

    @classmethod
    def of(cls, head: int) -> Room:
        """Inverse of `head`."""
        return cls(head & _SPARE_BITS, bool(head & _SINGLE), head >> _VARIANT_SHIFT)


def usable(eps: float, spare: int) -> float:
    """The part of the bound that a codec may use up."""
    return eps * (1.0 - 2.0**-spare)


def needed(x: F64, eps: float, dtype: np.dtype[Any]) -> float:
    """What rounding may add to the error of ``x: float64[n]``, cast to `dtype`, in their unit.

    Raises
    ------
    Unfit : a value is not finite, or so large that its neighbour within `eps` may not be.
    """
    largest = float(np.abs(x).max()) + eps if x.size else eps
    if not largest < float(np.finfo(dtype).max):
        raise Unfit("a value is not finite, or has no neighbour within the bound")
    share, least = _CAST[dtype.itemsize]
    return largest * (share + _ROUNDED) + least


def spare_bits(x: F64, eps: float, dtype: np.dtype[Any]) -> int:
    """The largest `spare` that leaves room for rounding. Raises `Unfit` where there is none."""
    if not _EPS_MIN <= eps <= _EPS_MAX:
        raise Unfit(f"a bound of {eps}, {_EPS_MIN} to {_EPS_MAX} can be kept")
    spare = min(SPARE_MAX, math.floor(math.log2(eps) - math.log2(needed(x, eps, dtype))))
    if spare < SPARE_MIN:
        raise Unfit(f"values too large for a bound of {eps}")
    return spare


def nearest_levels(x: F64, step: float) -> I64:
    """Numbers of the nearest levels: int64[n]."""
    return np.rint(x / step).astype(np.int64)


def odd_multiple(step: float, eps: float, spare: int = SPARE_MAX) -> float:
    """The largest odd multiple of a step that keeps a coarser bound: what a later tier may round to.

    Bounds that are odd multiples of one another lose nothing; with twice the bound, the step stays what it was.

    Raises
    ------
    Unfit : the step itself is too wide for the bound.

    Examples
    --------
    >>> odd_multiple(0.1, 0.26), odd_multiple(0.1, 0.24), odd_multiple(0.1, 0.1)
    (0.5, 0.30000000000000004, 0.1)
    """
    times = math.floor(2.0 * usable(eps, spare) / step * TOLERANCE)
    if times < 1:
        raise Unfit(f"a step of {step} is too wide for a bound of {eps}")
    return step * (times - 1 + times % 2)


@dataclass(frozen=True, slots=True)
class BoundedCodec(SeriesCodec):
    """What lossy codecs share: checks of values and bound, the head byte, the cast to the values' type.

    A codec of its own defines `_pack` and `_unpack` over float64; its body follows the head byte. No values are an
    empty body.

    Parameters
    ----------
    eps : the bound, in the values' unit, above 0.
    """

    eps: float
    variant_max: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise ValueError(f"a bound is a number above 0, got {self.eps}")

    def encode(self, values: Array) -> bytes:
        """Encode ``values: T[n]``, T a float type; `Unfit` where one is not finite or too large for the bound."""
        return self.seal(self.pack(values))

    def decode(self, payload: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values, each within `eps` of what was encoded; CorruptionError where the payload has others."""
        return self.unpack(self.unseal(payload), n, dtype)

    def pack(self, values: Array) -> bytes:
        """The body of ``values: T[n]``. Raises as `encode`."""
        if values.dtype.kind != "f" or values.dtype.itemsize not in _CAST:
            raise Unfit(f"values of {values.dtype} are never lossy")
        with np.errstate(invalid="ignore"):  # signalling NaNs; refused in a moment
            x = np.array(values, np.float64)
        if not x.size:
            return b""
        return self._pack(x, Room(self._spare(x, values.dtype), values.dtype.itemsize == 4))

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """The n values of a body. Raises as `decode`."""
        if not body or not n:
            if body or n:
                raise self.damaged(f"{len(body)} bytes for {n} values")
            return np.empty(0, dtype)
        room = self._room(body, dtype)
        with np.errstate(all="ignore"):  # levels that no encoder writes may overflow
            return self._unpack(body[1:], n, room).astype(dtype)

    def _room(self, body: bytes, dtype: np.dtype[Any]) -> Room:
        """What the head byte says. Raises `CorruptionError` where it is not of such values."""
        room = Room.of(body[0])
        if dtype.kind != "f" or room.single != (dtype.itemsize == 4) or room.variant > self.variant_max:
            raise self.damaged(f"it does not hold values of {dtype}")
        return room

    def _spare(self, x: F64, dtype: np.dtype[Any]) -> int:
        return spare_bits(x, self.eps, dtype)

    @abstractmethod
    def _pack(self, x: F64, room: Room) -> bytes:
        """Head byte and body of ``x: float64[n]``, n at least 1."""

    @abstractmethod
    def _unpack(self, body: bytes, n: int, room: Room) -> F64:
        """The n numbers of a body without its head byte."""
