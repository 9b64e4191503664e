"""Bytes of an Arrow IPC stream as they come → record batches.

A stream is messages one after the other: a mark, the length of the metadata, the metadata (a flatbuffer that says what
follows and how long it is), the body. Of the metadata four fields are read here; the rest is Arrow's. See "Encapsulated
message format" in the Arrow columnar format.

A dictionary comes before the batches that need it. It takes the place of the one before, unless it is a delta.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

MESSAGE_BYTES_MAX = 64 << 20
_MARK = b"\xff\xff\xff\xff"
_HEAD = struct.Struct("<4sI")
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3
_ID, _IS_DELTA = 0, 2
_METADATA_BYTES_MIN = 16


class BrokenStream(Exception):
    """The bytes are no such stream; where the next message begins can't be known."""


class ArrowMessages:
    """Cuts a stream into messages. One stream may follow the other."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._schema = b""
        self._dictionaries: dict[int, bytes] = {}

    @property
    def rest_bytes(self) -> int:
        """Bytes of a message that is not whole."""
        return len(self._buffer)

    @property
    def context(self) -> bytes:
        """What another one must be fed to go on here: schema, dictionaries, and what is not whole yet."""
        return self._prefix + bytes(self._buffer)

    @property
    def _prefix(self) -> bytes:
        return self._schema + b"".join(self._dictionaries.values())

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take bytes; the record batches that are whole now.

        Raises
        ------
        BrokenStream : it is not what it should be, or a message is too large.
        """
        self._buffer += data
        while (message := self._message()) is not None:
            kind, size = message
            part = bytes(self._buffer[:size])
            del self._buffer[:size]
            if kind == _BATCH:
                yield self._batch(part)
            elif kind == _SCHEMA:
                self._schema, self._dictionaries = part, {}
            elif kind == _DICTIONARY:
                self._keep(part)

    def _keep(self, part: bytes) -> None:
        """Take note of a dictionary."""
        table = part[_HEAD.size :]
        try:
            header = _header(table)
            number, is_delta = _field(table, header, _ID, "<q"), _field(table, header, _IS_DELTA, "<B")
        except struct.error as e:
            raise BrokenStream(f"a dictionary that can't be read: {e}") from e
        self._dictionaries[number] = (self._dictionaries.get(number, b"") if is_delta else b"") + part
        if len(self._prefix) > MESSAGE_BYTES_MAX:
            raise BrokenStream(f"dictionaries of more than {MESSAGE_BYTES_MAX:,} bytes")

    def _message(self) -> tuple[int, int] | None:
        """Kind and size of the message that the buffer begins with; None where it is not whole."""
        if len(self._buffer) < _HEAD.size:
            return None
        mark, length = _HEAD.unpack_from(self._buffer)
        if mark != _MARK:
            raise BrokenStream(f"expected an Arrow IPC stream, got {bytes(self._buffer[:16])!r}")
        if not length:
            return 0, _HEAD.size  # the end of a stream
        if not _METADATA_BYTES_MIN <= length <= MESSAGE_BYTES_MAX:
            raise BrokenStream(f"metadata of {length:,} bytes")
        if len(self._buffer) < _HEAD.size + length:
            return None
        metadata = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
        try:
            root = _root(metadata)
            kind, body = (
                _field(metadata, root, _HEADER_TYPE, "<B"),
                _field(metadata, root, _BODY_LENGTH, "<q"),
            )
        except struct.error as e:
            raise BrokenStream(f"metadata that can't be read: {e}") from e
        size = _HEAD.size + length + body
        if not 0 <= body <= MESSAGE_BYTES_MAX:
            raise BrokenStream(f"a message of {body:,} bytes, expected at most {MESSAGE_BYTES_MAX:,}")
        return None if len(self._buffer) < size else (kind, size)

    def _batch(self, part: bytes) -> Any:
        if not self._schema:
            raise BrokenStream("a record batch before any schema")
        try:
            with pa.ipc.open_stream(io.BytesIO(self._prefix + part)) as stream:
                batch = stream.read_next_batch()
            batch.validate(full=True)  # it comes from outside
        except (pa.ArrowException, OSError, StopIteration) as e:
            raise BrokenStream(f"a record batch that can't be read: {e}") from e
        return batch


def _root(data: bytes) -> int:
    """Where the root table of a flatbuffer lies. Raises struct.error."""
    return int(struct.unpack_from("<I", data)[0])


def _header(data: bytes) -> int:
    """Where the table lies that a message is about. Raises struct.error."""
    place = _place(data, _root(data), _HEADER)
    return place + int(struct.unpack_from("<I", data, place)[0])


def _place(data: bytes, table: int, number: int) -> int:
    """Where a field of a table lies; 0 where it is left out. Raises struct.error."""
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    if vtable < 0:
        raise struct.error("a table without fields")
    (size,) = struct.unpack_from("<H", data, vtable)
    at = 4 + 2 * number
    if at + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + at)
    return int(table + offset) if offset else 0


def _field(data: bytes, table: int, number: int, kind: str) -> int:
    """A scalar of a table of a flatbuffer; 0 where it is left out. Raises struct.error."""
    place = _place(data, table, number)
    return int(struct.unpack_from(kind, data, place)[0]) if place else 0
