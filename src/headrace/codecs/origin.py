"""Floats by the integers behind them: origin, patches, integers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from headrace.codecs.base import I64, Array, SeriesCodec, Unfit, same_bits
from headrace.codecs.packing import get_varint, put_sized, put_varint
from headrace.core.errors import CorruptionError

if TYPE_CHECKING:
    from headrace.codecs.origins import Origin

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_NEAR, _FAR, _NEAR_BY_NUMBER, _FLOAT = 0x10, 0x20, 0x40, 0x80
_SOUND, _ELSEWHERE = 0, 2  # of `headrace.codecs.integer_kernels`, which is loaded late
_SPAN_MAX = 1 << 16
_SIGNED, _UNSIGNED = 0x10, 0x20


@dataclass(frozen=True, slots=True)
class OriginCodec(SeriesCodec):
    """The body is a byte, the origin, patches where there are any, and the integers.

    The byte is 0x80, the bytes of a value, and 0x10, 0x20 and 0x40 for patches that are near, far, near by number.

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
            return bytes([type_mark(values.dtype)]) + encode_integers(values.astype(np.int64))
        if values.dtype not in _FLOATS:
            raise Unfit(f"values of {values.dtype}, numbers expected")
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            doubles = np.ascontiguousarray(values, np.float64)
            if values.dtype != np.float64 and not same_bits(doubles.astype(values.dtype), values):
                raise Unfit("some are not numbers, and of a kind that only a float32 has")
            origins = find_origins(doubles)
            best = min(origins, key=lambda one: _rough_bits(doubles, one)) if len(origins) > 1 else origins[0]
            head, rest = _body(doubles, best)
            return bytes([_FLOAT | values.dtype.itemsize | head]) + rest

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values; CorruptionError where the payload holds others."""
        if not body or body[0] & ~_flags(body) != type_mark(dtype):
            raise self.damaged(f"it does not hold {dtype}")
        try:
            if dtype.kind in "iu":
                from headrace.codecs.integers import decode_integers

                return decode_integers(body[1:], n).astype(dtype)
            values = _values(body, n)
            if dtype == np.float64:
                return values
            with np.errstate(invalid="ignore", over="ignore"):
                return values.astype(dtype)
        except (ValueError, IndexError, struct.error, CorruptionError) as e:
            raise self.damaged(str(e)) from e

    def integers_at(self, body: bytes) -> int:
        """Where the integers of a body begin. Raises ValueError, IndexError or struct.error where it is no such body."""
        from headrace.codecs.origins import Origin

        if not body[0] & _FLOAT:
            return 1
        at = 1 + Origin.from_bytes(body[1:])[1]
        if body[0] & (_NEAR | _NEAR_BY_NUMBER):
            at = _behind(body, at)
        if body[0] & _FAR:
            n_far, at = get_varint(body, at)
            at = _behind(body, at) + 8 * n_far
        if at > len(body):
            raise ValueError("it ends before its integers")
        return at

    def of_integers(self, head: bytes, numbers: I64, dtype: np.dtype[Any]) -> Array:
        """What a body without its integers, and these, are decoded to. Raises as `unpack`."""
        if not head or head[0] & ~_flags(head) != type_mark(dtype):
            raise self.damaged(f"it does not hold {dtype}")
        try:
            if dtype.kind in "iu":
                return numbers.astype(dtype)
            with np.errstate(invalid="ignore", over="ignore"):
                return _values(head, len(numbers), numbers).astype(dtype, copy=False)
        except (ValueError, IndexError, struct.error, CorruptionError) as e:
            raise self.damaged(str(e)) from e


def _flags(body: bytes) -> int:
    """The bits of patches in the first byte of a body."""
    return _NEAR | _FAR | _NEAR_BY_NUMBER if body[0] & _FLOAT else 0


def _behind(body: bytes, at: int) -> int:
    """Where a part of a body that has its length before it ends."""
    size, start = get_varint(body, at)
    return start + size


def type_mark(dtype: np.dtype[Any]) -> int:
    """The first byte of a body of values of a type, without the bits of patches."""
    return dtype.itemsize | {"i": _SIGNED, "u": _UNSIGNED}.get(dtype.kind, _FLOAT)


def explains(body: bytes) -> bool:
    """Whether a body of `OriginCodec` has integers behind its values; a few may be patched."""
    if not body[0] & _FLOAT:
        return True
    from headrace.codecs.origins import is_bits

    return not is_bits(body[1])


def _rough_bits(values: Array, origin: Origin) -> float:
    """About the bits that values take by an origin: of the differences, and of what is no integer of it."""
    from headrace.codecs.origin_kernels import rough_bits

    numbers = origin.numbers(values)
    return rough_bits(numbers, values, origin.values(numbers))


def _body(values: Array, origin: Origin) -> tuple[int, bytes]:
    """Flags of patches, and what follows them."""
    from headrace.codecs.integers import encode_direct, encode_integers
    from headrace.codecs.origin_kernels import set_far_apart
    from headrace.codecs.origins import NEAR_MAX

    numbers, error = origin.numbers_beside(values)
    if error is None:
        return 0, origin.to_bytes() + encode_integers(numbers)
    places = np.empty(len(error), np.int64)
    n_far, is_near = set_far_apart(numbers, error, NEAR_MAX, places)
    flags, parts, at = 0, [], places[:n_far]
    if n_far:
        flags |= _FAR
        parts = [put_varint(n_far), put_sized(encode_direct(np.diff(at, prepend=0))), values[at].tobytes()]
    if is_near:
        by_number = _first_near(numbers, error)
        flags |= _NEAR if by_number is None else _NEAR_BY_NUMBER
        parts.insert(0, put_sized(encode_direct(error if by_number is None else by_number)))
    return flags, b"".join([origin.to_bytes(), *parts, encode_integers(numbers)])


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


_NO_PATCHES = np.empty(0, np.int64), np.empty(0, np.int32)


@lru_cache(maxsize=1)
def _kernels() -> tuple[Any, Any, Any, Any]:
    """Numba is loaded when they are needed first."""
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.model import scratch_for
    from headrace.codecs.value_kernels import decode_floats, patch_room

    return decode_floats, patch_room, scratch_for, wrapping


def _values(body: bytes, n: int, given: I64 | None = None) -> Array:
    """In one kernel, unless pco wrote the integers, or they are given: then it takes them as they are."""
    decode_floats, patch_room, scratch_for, wrapping = _kernels()
    has_patches = body[0] & (_NEAR | _FAR | _NEAR_BY_NUMBER)
    numbers, out = np.empty(n, np.int64) if given is None else given, np.empty(n)
    patches, known = patch_room(n) if has_patches else _NO_PATCHES
    data = np.frombuffer(body, np.uint8)
    with wrapping():
        found, at = decode_floats(
            data, scratch_for(len(body)), numbers, patches, known, out, given is not None
        )
        if found == _ELSEWHERE:
            from headrace.codecs.integers import decode_integers

            numbers[:] = decode_integers(body[at:], n)
            found, _ = decode_floats(data, scratch_for(len(body)), numbers, patches, known, out, True)
    if found != _SOUND:
        raise ValueError("it does not hold such values")
    return out
