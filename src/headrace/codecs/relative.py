"""Levels of the logarithm: a bound that is a share of each value. For powers, flows and counts over many decades.

A value is its sign and ``log2(|x|)`` in steps; zeros stay zeros. With a share r the step is ``2 log2(1 + r)``, so that a
value is off by a factor of at most ``1 + r`` upwards and less than that downwards.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from headrace.codecs.base import I64, Array, SeriesCodec, Unfit
from headrace.codecs.integers import decode_integers, encode_integers
from headrace.codecs.packing import get_signed, put_signed
from headrace.core.errors import CorruptionError

_SHARE_MIN = 1e-6
_SPARE = 1.0 - 1e-5
"""Part of the step that is used; the rest is for the roundings of logarithm and power, on whatever machine."""

_CAST = {4: 2.0**-24, 8: 2.0**-53}


@dataclass(frozen=True, slots=True)
class RelativeCodec(SeriesCodec):
    """The body is the bytes of a value, the lowest level as a signed varint, and integers (`headrace.codecs.integers`).

    An integer is 0 for a zero, else ``1 + level - lowest`` with the value's sign.

    Parameters
    ----------
    share : ``|decoded - value| <= share * |value|``; 1e-6 to below 1.

    Examples
    --------
    >>> import numpy as np
    >>> codec = RelativeCodec(share=0.01)
    >>> values = np.array([0.0, 1e-9, -3.0, 7e12])
    >>> decoded = codec.decode(codec.encode(values), 4, values.dtype)
    >>> bool((np.abs(decoded - values) <= 0.01 * np.abs(values)).all())
    True
    """

    share: float
    name: ClassVar[str] = "relative"

    def __post_init__(self) -> None:
        if not _SHARE_MIN <= self.share < 1.0:
            raise ValueError(f"a share of {self.share}, {_SHARE_MIN} to below 1 allowed")

    def pack(self, values: Array) -> bytes:
        """Encode ``values: T[n]``; `Unfit` for integers, what is not finite, and numbers below the type's normal ones."""
        if values.dtype.kind != "f" or values.dtype.itemsize not in _CAST:
            raise Unfit(f"values of {values.dtype} are never lossy")
        with np.errstate(invalid="ignore"):  # signalling NaNs; refused in a moment
            size = np.abs(values.astype(np.float64))
        there = size > 0.0
        info = np.finfo(values.dtype)
        # Twice and half: a decoded value must not leave the type's normal numbers either.
        if (
            not np.isfinite(size).all()
            or (size > float(info.max) / 2).any()
            or (size[there] < 2 * float(info.tiny)).any()
        ):
            raise Unfit("a value is not finite, or too large or small for a share of it to be kept")
        level = np.zeros(values.size, np.int64)
        level[there] = np.rint(np.log2(size[there]) / self._step(values.dtype)).astype(np.int64)
        lowest = int(level[there].min()) if there.any() else 0
        number = np.where(there, 1 + level - lowest, 0)
        signed = np.where(np.signbit(values), -number, number)
        return bytes([values.dtype.itemsize]) + put_signed(lowest) + encode_integers(signed)

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values, each within `share` of what was encoded; CorruptionError where the payload has others."""
        if body[:1] != bytes([dtype.itemsize]) or dtype.kind != "f" or dtype.itemsize not in _CAST:
            raise self.damaged(f"it does not hold values of {dtype}")
        lowest, at = get_signed(body, 1)
        try:
            number: I64 = decode_integers(body[at:], n)
        except (ValueError, IndexError, struct.error, CorruptionError) as e:
            raise self.damaged(str(e)) from e
        with np.errstate(all="ignore"):  # levels that no encoder writes may overflow
            level = (np.abs(number).astype(np.float64) + (lowest - 1)) * self._step(dtype)
            size = np.where(number == 0, 0.0, np.exp2(level))
            out: Array = np.copysign(size, number).astype(dtype)
        return out

    def _step(self, dtype: np.dtype[Any]) -> float:
        return 2.0 * math.log2(1.0 + self.share - 2.0 * _CAST[dtype.itemsize]) * _SPARE
