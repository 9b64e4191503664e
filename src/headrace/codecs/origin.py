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
_NEAR, _FAR = 1, 2


@dataclass(frozen=True, slots=True)
class OriginCodec(SeriesCodec):
    """The body is the bytes of a value, a byte of flags, the origin, patches where there are any, and the integers.

    Patches come in two kinds. *Near*: for every value, how many floats further it is than its integer says, as
    integers with their length before them. *Far*: a count, their distances as integers with their length, their bytes.

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
        """Encode ``values: T[n]``, floats; `Unfit` for integers, and for a float32 that float64 does not keep."""
        from headrace.codecs.origins import find_origins

        if values.dtype not in _FLOATS:
            raise Unfit(f"values of {values.dtype}, floats expected")
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            doubles = np.ascontiguousarray(values, np.float64)
            if values.dtype != np.float64 and not same_bits(doubles.astype(values.dtype), values):
                raise Unfit("some are not numbers, and of a kind that only a float32 has")
            origins = find_origins(doubles)
            best = min(origins, key=lambda one: _rough_bits(doubles, one)) if len(origins) > 1 else origins[0]
            return bytes([values.dtype.itemsize]) + _body(doubles, best)

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values; CorruptionError where the payload holds others."""
        if body[:1] != bytes([dtype.itemsize]) or dtype not in _FLOATS:
            raise self.damaged(f"it does not hold {dtype}")
        try:
            with np.errstate(invalid="ignore", over="ignore"):
                return _values(body[1:], n).astype(dtype, copy=False)
        except (ValueError, IndexError, struct.error, CorruptionError) as e:
            raise self.damaged(str(e)) from e


def explains(body: bytes) -> bool:
    """Whether a body of `OriginCodec` has integers behind all of its values, with no patches."""
    from headrace.codecs.origin_kernels import BITS
    from headrace.codecs.origins import Origin

    return body[1] == 0 and Origin.from_bytes(body[2:])[0].kind != BITS


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
    flags, parts = 0, []
    near = np.where(far, 0, error)
    if near.any():
        flags |= _NEAR
        parts.append(put_sized(encode_direct(near)))
    at = np.flatnonzero(far)
    if len(at):
        flags |= _FAR
        parts += [put_varint(len(at)), put_sized(encode_direct(np.diff(at, prepend=0))), values[at].tobytes()]
        first = int(np.argmin(far))
        numbers = numbers[np.maximum.accumulate(np.where(far, first, np.arange(len(far))))]
    return b"".join([bytes([flags]), origin.to_bytes(), *parts, encode_integers(numbers)])


def _values(body: bytes, n: int) -> Array:
    from headrace.codecs.integers import decode_integers
    from headrace.codecs.origins import Origin

    flags = body[0]
    origin, size = Origin.from_bytes(body[1:])
    at = 1 + size
    near: I64 | None = None
    if flags & _NEAR:
        part, at = get_sized(body, at)
        near = decode_integers(part, n)
    where, far = np.empty(0, np.int64), np.empty(0)
    if flags & _FAR:
        where, far, at = _far(body, at, n)
    values = origin.values(decode_integers(body[at:], n))
    if near is not None:
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
