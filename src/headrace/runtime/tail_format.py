"""The unflushed tail on the wire: each batch as its length (u64, little-endian) and its bytes, then a zero."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch

_LENGTH = struct.Struct("<Q")


def tail_parts(batches: Sequence[FrameBatch]) -> Iterator[bytes]:
    """The parts of a tail's body, to be sent one after the other."""
    for batch in batches:
        data = batch.to_bytes()
        yield _LENGTH.pack(len(data))
        yield data
    yield _LENGTH.pack(0)


def read_tail(body: bytes) -> list[FrameBatch]:
    """The batches of a tail's body; the inverse of `tail_parts`.

    Raises
    ------
    CorruptionError : it was cut short, or is no such body.
    """
    view, at, found = memoryview(body), 0, list[FrameBatch]()
    while at + _LENGTH.size <= len(view):
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if not length:
            return found
        found.append(FrameBatch.from_bytes(view[at : at + length]))
        at += length
    raise CorruptionError(f"the tail was cut short after {len(found)} batches")
