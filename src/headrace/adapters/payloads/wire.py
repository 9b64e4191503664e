"""The wire format of protocol buffers, in plain Python: fields of a message, and messages written again.

Only what remote write and OTLP need: variable and fixed numbers, and what has a length. Groups are refused.

Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_U64 = 2**64 - 1
_NUMBER_MAX = 2**29 - 1
_DOUBLE = struct.Struct("<d")


class WireError(ValueError):
    """Bytes that are no message."""


class WireField(NamedTuple):
    """One field: its number, its wire type, its bits where it is a number, and where its content lies."""

    number: int
    kind: int
    bits: int
    start: int
    end: int

    @property
    def signed(self) -> int:
        """The bits as a signed number of 64 bits."""
        return self.bits - 2**64 if self.bits >> 63 else self.bits

    @property
    def double(self) -> float:
        """The 64 bits as a float."""
        value: float = _DOUBLE.unpack(self.bits.to_bytes(8, "little"))[0]
        return value


def fields(data: bytes, at: int = 0, end: int | None = None) -> Iterator[WireField]:
    """The fields of the message at at:end, in order.

    Raises
    ------
    WireError : it is cut short, or malformed.
    """
    end = len(data) if end is None else end
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if not 1 <= number <= _NUMBER_MAX:
            raise WireError(f"field number {number} at byte {at}")
        start, bits = at, 0
        if kind == VARINT:
            bits, at = _varint(data, at, end)
        elif kind == LENGTH:
            length, start = _varint(data, at, end)
            at = start + length
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
            bits = int.from_bytes(data[start:at], "little")
        else:
            raise WireError(f"wire type {kind} at byte {at}")
        if at > end:
            raise WireError(f"field {number} is cut short at byte {end}")
        yield WireField(number, kind, bits, start, at)


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _U64, at
    raise WireError(f"a number is cut short or too long at byte {at}")


def numbers(data: bytes, field: WireField) -> Iterator[int]:
    """Variable numbers of a repeated field, packed or alone. Raises WireError."""
    if field.kind == VARINT:
        yield field.bits
        return
    check(field, LENGTH)
    at = field.start
    while at < field.end:
        value, at = _varint(data, at, field.end)
        yield value


def fixed(data: bytes, field: WireField) -> Iterator[int]:
    """Bits of 64-bit numbers of a repeated field, packed or alone. Raises WireError."""
    if field.kind == FIXED64:
        yield field.bits
        return
    check(field, LENGTH)
    if (field.end - field.start) % 8:
        raise WireError(f"field {field.number} is cut short")
    for at in range(field.start, field.end, 8):
        yield int.from_bytes(data[at : at + 8], "little")


def text(data: bytes, field: WireField) -> str:
    """The text of a field. Raises WireError, or UnicodeDecodeError."""
    check(field, LENGTH)
    return data[field.start : field.end].decode()


def check(field: WireField, kind: int) -> None:
    """Make sure of a field's wire type. Raises WireError."""
    if field.kind != kind:
        raise WireError(f"field {field.number} has wire type {field.kind}, expected {kind}")


def as_double(bits: int) -> float:
    """A float by its 64 bits."""
    value: float = _DOUBLE.unpack(bits.to_bytes(8, "little"))[0]
    return value


def varint(value: int) -> bytes:
    """A variable number, of a negative one its 64 bits."""
    value &= _U64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def wrap(number: int, content: bytes) -> bytes:
    """A field that has a length."""
    return varint(number << 3 | LENGTH) + varint(len(content)) + content
