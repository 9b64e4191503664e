"""Floats by the integers behind them: origin, patches, integers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from headrace.codecs.base import I64, Array, SeriesCodec, Unfit, same_bits
from headrace.codecs.packing import get_sized, get_varint, put_sized, put_varint
from headrace.core.errors import CorruptionError

if TYPE_CHECKING:
    from headrace.codecs.origins import Origin

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_NEAR, _FAR, _NEAR_BY_NUMBER = 1, 2, 4
_SPAN_MAX = 1 << 16
_SIGNED, _UNSIGNED = 0x10, 0x20


@dataclass(frozen=True, slots=True)
class OriginCodec(SeriesCodec):
    """The body is the bytes of a value, a byte of flags, the origin, patches where there are any, and the integers.

    Integers are their own origin: their bytes with 0x10 for signed, 0x20 for unsigned ones, and the integers.

    Patches come in two kinds. *Near*: for every value, how many floats further it is than its integer says, as
    integers with their length before them; *near by number*, where it is the same whenever a number comes again: for
    each number when it first comes. *Far*: a count, their distances as integers with their length, their bytes.

    Examples
    --------
    >>> import numpy as np
    >>> codec = OriginCodec()
    >>> payload = codec.encode(np.tile([20.1, 20.2, 20.1, 20.3], 100))
    >>> codec.decode(payload, 400, np.dtype(np.float64))[:4].tolist()
    [20.1, 20.2, 20.1, 20.3]
    """

    name: ClassVar[str] = "origin"

    def pack(self, values: Array) -> bytes:
        """Encode ``values: T[n]``; `Unfit` for a float32 that float64 does not keep."""
        from headrace.codecs.integers import encode_integers
        from headrace.codecs.origins import find_origins

        if values.dtype.kind in "iu":
            return bytes([_type_byte(values.dtype)]) + encode_integers(values.astype(np.int64))
        if values.dtype not in _FLOATS:
            raise Unfit(f"values of {values.dtype}, numbers expected")
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            doubles = np.ascontiguousarray(values, np.float64)
            if values.dtype != np.float64 and not same_bits(doubles.astype(values.dtype), values):
                raise Unfit("some are not numbers, and of a kind that only a float32 has")
            origins = find_origins(doubles)
            best = min(origins, key=lambda one: _rough_bits(doubles, one)) if len(origins) > 1 else origins[0]
            return bytes([values.dtype.itemsize]) + _body(doubles, best)

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values; CorruptionError where the payload holds others."""
        from headrace.codecs.integers import decode_integers

        if body[:1] != bytes([_type_byte(dtype)]):
            raise self.damaged(f"it does not hold {dtype}")
        try:
            if dtype.kind in "iu":
                return decode_integers(body[1:], n).astype(dtype)
            values = _values(body[1:], n)
            if dtype == np.float64:
                return values
            with np.errstate(invalid="ignore", over="ignore"):
                return values.astype(dtype)
        except (ValueError, IndexError, struct.error, CorruptionError) as e:
            raise self.damaged(str(e)) from e


def _type_byte(dtype: np.dtype[Any]) -> int:
    return dtype.itemsize | {"i": _SIGNED, "u": _UNSIGNED}.get(dtype.kind, 0)


def explains(body: bytes) -> bool:
    """Whether a body of `OriginCodec` has integers behind its values; a few may be patched."""
    if body[0] & (_SIGNED | _UNSIGNED):
        return True
    from headrace.codecs.origin_kernels import BITS
    from headrace.codecs.origins import Origin

    return Origin.from_bytes(body[2:])[0].kind != BITS


def _rough_bits(values: Array, origin: Origin) -> float:
    """About the bits that values take by an origin: of the differences, and of what is no integer of it."""
    numbers = origin.numbers(values)
    beside = int((origin.values(numbers) != values).sum())
    change = np.abs(np.diff(numbers.astype(np.float64)))
    return float(np.log2(1.0 + change).sum()) + 64.0 * beside


def _body(values: Array, origin: Origin) -> bytes:
    from headrace.codecs.integers import encode_direct, encode_integers
    from headrace.codecs.origins import NEAR_MAX

    numbers = origin.numbers(values)
    error = values.view(np.int64) - origin.values(numbers).view(np.int64)
    if not error.any():
        return b"\x00" + origin.to_bytes() + encode_integers(numbers)
    far = (error > NEAR_MAX) | (error < -NEAR_MAX)
    at = np.flatnonzero(far)
    flags, parts = 0, []
    near = np.where(far, 0, error)
    if len(at):
        flags |= _FAR
        parts = [put_varint(len(at)), put_sized(encode_direct(np.diff(at, prepend=0))), values[at].tobytes()]
        first = int(np.argmin(far))
        numbers = numbers[np.maximum.accumulate(np.where(far, first, np.arange(len(far))))]
    if near.any():
        by_number = _first_near(numbers, near)
        flags |= _NEAR if by_number is None else _NEAR_BY_NUMBER
        parts.insert(0, put_sized(encode_direct(near if by_number is None else by_number)))
    return b"".join([bytes([flags]), origin.to_bytes(), *parts, encode_integers(numbers)])


def _first_near(numbers: I64, near: I64) -> I64 | None:
    """How far each number's value is from it when it first comes; None where it is not the same each time."""
    from headrace.codecs.origin_kernels import NOT_YET, first_near

    low = int(numbers.min())
    span = int(numbers.max()) - low + 1
    if span > _SPAN_MAX:
        return None
    out = np.empty(len(numbers), np.int64)
    count = first_near(numbers, low, near, np.full(span, NOT_YET), out)
    return out[:count] if count >= 0 else None


def _near_of(numbers: I64, part: bytes) -> I64:
    """For each number what `_first_near` was of it."""
    from headrace.codecs.integers import decode_integers
    from headrace.codecs.origin_kernels import NOT_YET, count_first, spread_near

    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    span = high - low + 1
    if span > _SPAN_MAX:
        raise ValueError("its numbers are too far from each other to be patched by number")
    known = np.full(span, NOT_YET)
    first = decode_integers(part, count_first(numbers, low, known))
    out = np.empty(len(numbers), np.int64)
    spread_near(numbers, low, first, known, out)
    return out


def _values(body: bytes, n: int) -> Array:
    from headrace.codecs.integers import decode_integers
    from headrace.codecs.origins import Origin

    flags = body[0]
    origin, size = Origin.from_bytes(body[1:])
    at = 1 + size
    part = b""
    if flags & (_NEAR | _NEAR_BY_NUMBER):
        part, at = get_sized(body, at)
    where, far = np.empty(0, np.int64), np.empty(0)
    if flags & _FAR:
        where, far, at = _far(body, at, n)
    numbers = decode_integers(body[at:], n)
    values = origin.values(numbers)
    if part:
        near = _near_of(numbers, part) if flags & _NEAR_BY_NUMBER else decode_integers(part, n)
        values = (values.view(np.int64) + near).view(np.float64)
    values[where] = far
    return values


def _far(body: bytes, at: int, n: int) -> tuple[I64, Array, int]:
    """Where far patches go, what they are, and where they end."""
    from headrace.codecs.integers import decode_integers

    count, at = get_varint(body, at)
    if count > n:
        raise ValueError(f"{count} patches of {n} values")
    part, at = get_sized(body, at)
    where = np.cumsum(decode_integers(part, count))
    far = np.frombuffer(body[at : at + 8 * count], np.float64)
    if len(far) != count or (count and not 0 <= where.min() <= where.max() < n):
        raise ValueError("its patches lie outside")
    return where, far, at + 8 * count
