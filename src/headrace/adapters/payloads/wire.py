"""The wire format of protocol buffers, in plain Python: fields of a message, and messages written again.

What reads remote write, OTLP and Sparkplug B where `headrace.adapters.payloads.wire_kernels` do not. Groups, which
nobody writes any more, are passed over as protobuf does: as one field, whose content nobody looks into.

Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)
DEPTH_MAX = 32
"""How deep groups, and messages within messages, may lie."""
_U64, _U32 = 2**64 - 1, 2**32 - 1
_TAG_BYTES_MAX = 5
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
        field = _field(data, at, end, 0)
        yield field
        at = field.end


def _field(data: bytes, at: int, end: int, depth: int) -> WireField:
    tag, start = _varint(data, at, end)
    if tag > _U32 or start - at > _TAG_BYTES_MAX or tag < 8:
        raise WireError(f"no field has such a number at byte {at:,}")
    number, kind, bits = tag >> 3, tag & 7, 0
    if kind == VARINT:
        bits, at = _varint(data, start, end)
    elif kind == LENGTH:
        length, start = _varint(data, start, end)
        at = start + length
    elif kind in (FIXED64, FIXED32):
        at = start + (8 if kind == FIXED64 else 4)
        bits = int.from_bytes(data[start:at], "little")
    elif kind == GROUP and depth < DEPTH_MAX:
        at = _after_group(data, start, end, number, depth + 1)
    elif kind == END_GROUP and depth:
        at = start
    else:
        raise WireError(f"a field of wire type {kind} at byte {start:,}")
    if at > end:
        raise WireError(f"it ends inside a field at byte {start:,}")
    return WireField(number, kind, bits, start, at)


def _after_group(data: bytes, at: int, end: int, number: int, depth: int) -> int:
    while True:
        field = _field(data, at, end, depth)
        at = field.end
        if field.kind == END_GROUP:
            if field.number != number:
                raise WireError(f"a group ends that has not begun at byte {at:,}")
            return at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """An integer of 64 bits, and where it ends."""
    if at < end and data[at] < 0x80:  # most are short
        return data[at], at + 1
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _U64, at
        shift += 7
        if shift == 70:
            raise WireError(f"an integer of more than 10 bytes at byte {at:,}")
    raise WireError(f"it ends inside an integer at byte {at:,}")


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


def whole(number: int, value: int) -> bytes:
    """A field that holds an integer."""
    return varint(number << 3) + varint(value)


def wrap(number: int, content: bytes) -> bytes:
    """A field that has a length: bytes, a text or a message."""
    return varint(number << 3 | LENGTH) + varint(len(content)) + content
