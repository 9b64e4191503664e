"""Numbers in the heads of bodies: varints, as `headrace.codecs.bits` defines them, in plain Python."""

from __future__ import annotations


def put_varint(number: int) -> bytes:
    """A number from 0 to 2**64 - 1."""
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def get_varint(body: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and where it ends; 0 and the end of the body where there is none."""
    number = 0
    for i, byte in enumerate(body[at : at + 10]):
        number |= (byte & 127) << 7 * i
        if byte < 128:
            return number & 0xFFFFFFFFFFFFFFFF, at + i + 1
    return 0, len(body)


def put_signed(number: int) -> bytes:
    """A signed 64-bit number, zigzag."""
    return put_varint(number << 1 if number >= 0 else ~(number << 1))


def get_signed(body: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and where it ends; as `get_varint`."""
    number, at = get_varint(body, at)
    return (number >> 1) ^ -(number & 1), at


def put_sized(part: bytes) -> bytes:
    """A part of a body with its length before it."""
    return put_varint(len(part)) + part


def get_sized(body: bytes, at: int) -> tuple[bytes, int]:
    """The part at a place, and where it ends."""
    size, at = get_varint(body, at)
    return body[at : at + size], at + size
