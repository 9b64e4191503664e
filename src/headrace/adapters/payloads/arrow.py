"""Arrow inside of messages: a record batch stream or file (IPC); a row is an instant, or a sample.

A *wide* table has a column for each key of the topic's device. A *long* one has columns ``path`` (or ``sensor``), the
whole path of a sensor, and ``value``. The rule's `time` names the column of the times; without it a row has the message's
time, each a nanosecond later than the one before. `columns` says which columns to take, without it all.

Values keep the type of their column (``f32`` stays ``f32``), columns stay columns: there is no Python object for a value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from headrace.adapters.payloads.base import Decoded, PayloadError, RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroup, DeviceGroups
from headrace.adapters.payloads.rows import make_reject
from headrace.adapters.payloads.tables import TableColumns, TableReader
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NO_TIME
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.frames import FrameBatch

VALUE = "value"
TABLE_BYTES_MAX = 64 << 20
"""What the columns of one message may take in memory; compressed ones are small in the message."""
N_CELLS_MAX = 16_000_000
"""Rows times columns of one message: columns of nothing take no bytes, and still become rows."""
_FILE, _DICTIONARY = b"ARROW1", 2
_U16, _U32, _I32, _I64, _PAIR = map(struct.Struct, ("<H", "<I", "<i", "<q", "<qq"))


class ArrowPayload:
    """The decoder of Arrow messages. Cost: some 50 us a message of few columns, and some ns a value."""

    has_keys: ClassVar[bool] = True
    has_places: ClassVar[bool] = False

    def __init__(self, settings: RuleSettings, times: TimeReader) -> None:
        self._settings = settings
        self._times = times

    def reader(self, origin: str, groups: DeviceGroups, path: str) -> ArrowReader:
        """What reads the messages of the device at `path`. Raises PayloadError."""
        group = groups.group(path, self._settings)
        columns = TableColumns(self._settings.time or "", VALUE, path, self._settings.columns)
        tables = _LevelledReader(origin, groups, self._times, columns, self._settings, are_texts_bounded=True)
        return ArrowReader(origin, group, tables)


class ArrowReader:
    """Reads the messages of one device; see `headrace.adapters.payloads.base.SliceReader`."""

    def __init__(self, origin: str, group: DeviceGroup, tables: _LevelledReader) -> None:
        self._origin = origin
        self._group = group
        self._tables = tables
        self._newest_ns = 0

    def read(self, messages: Sequence[TopicMessage]) -> Decoded:
        """Columns of all messages, and rejects."""
        found: list[FrameBatch] = []
        rejects: list[Reject] = []
        for message in messages:
            try:
                for batches, refused in self._read(message):
                    found += batches
                    rejects += [_with_message(reject, message) for reject in refused]
            except PayloadError as e:
                rejects.append(make_reject(self._origin, message, e.code, e.detail, e.n_samples))
        return Decoded(_joined(found), rejects)

    def _read(self, message: TopicMessage) -> Iterator[tuple[list[FrameBatch], list[Reject]]]:
        """Frames and rejects of each record batch. Raises PayloadError."""
        first_ns = message.time_ns
        if first_ns == NO_TIME:
            first_ns = max(message.arrival_ns, self._newest_ns + 1)
        for table in record_batches(message.payload):
            width = max(table.num_columns, len(self._group.table.index))
            if table.num_rows * width > N_CELLS_MAX:
                detail = (
                    f"{table.num_rows:,} rows of {width:,} columns, expected at most {N_CELLS_MAX:,} cells"
                )
                raise PayloadError(RejectCode.TOO_LARGE, detail, table.num_rows)
            if self._tables.has_times:
                yield self._tables.read(table, message.source)
                continue
            ts_ns = first_ns + np.arange(table.num_rows, dtype=np.int64)
            first_ns += table.num_rows
            yield self._tables.read(table, message.source, ts_ns)
        if message.time_ns == NO_TIME and not self._tables.has_times:
            self._newest_ns = first_ns - 1


class _LevelledReader(TableReader):
    """Takes no path that has other levels than the rule's."""

    @property
    def has_times(self) -> bool:
        """Whether a column has the times."""
        return bool(self._columns.time)

    def _group(self, path: str) -> DeviceGroup | None:
        wanted = self._settings.path.count("/")
        if path.count("/") != wanted - 1:
            self._problem = f"it has other levels than {self._settings.path!r}"
            return None
        return super()._group(path)


def record_batches(payload: bytes) -> list[pa.RecordBatch]:
    """The record batches of a message.

    Raises
    ------
    PayloadError : malformed, or too-large once it is not compressed any more.
    """
    # A file is a stream with a magic word before it and a table of contents behind.
    stream = payload[8:] if payload.startswith(_FILE) else payload
    try:
        claimed = _claimed_bytes(stream)
        if claimed > TABLE_BYTES_MAX:
            detail = (
                f"its columns take {claimed:,} bytes, expected at most {TABLE_BYTES_MAX:,}; send it in parts"
            )
            raise PayloadError(RejectCode.TOO_LARGE, detail)
        batches = list(pa.ipc.open_stream(pa.BufferReader(stream)))
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, struct.error) as e:
        raise PayloadError(RejectCode.MALFORMED, f"not an Arrow stream or file: {e}") from None
    return batches


def _claimed_bytes(stream: bytes) -> int:
    """How many bytes the compressed buffers of a stream say they will take: nothing is believed before."""
    total = 0
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(stream))
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return total
        total += _claimed_by(bytes(message.metadata), memoryview(message.body or b""))


def _claimed_by(head: bytes, body: memoryview) -> int:
    """The same of one message: of a record batch, or of a dictionary, which has a record batch inside."""
    message = _Table(head, _U32.unpack_from(head)[0])
    kind = message.at(1)
    batch = message.table(2)
    if kind is not None and head[kind] == _DICTIONARY and batch is not None:
        batch = batch.table(1)
    buffers = None if batch is None or batch.at(3) is None else batch.at(2)
    if buffers is None:
        return 0
    at = buffers + _U32.unpack_from(head, buffers)[0]
    total = 0
    for i in range(_U32.unpack_from(head, at)[0]):
        start, size = _PAIR.unpack_from(head, at + 4 + 16 * i)
        if size >= 8:
            total += max(size, _I64.unpack_from(body, start)[0])
    return total


class _Table(NamedTuple):
    """A table of a flat buffer: where the metadata of Arrow's format lie."""

    data: bytes
    place: int

    def at(self, number: int) -> int | None:
        """Where a field lies; None where it is not there."""
        layout = self.place - _I32.unpack_from(self.data, self.place)[0]
        if 4 + 2 * number >= _U16.unpack_from(self.data, layout)[0]:
            return None
        step = _U16.unpack_from(self.data, layout + 4 + 2 * number)[0]
        return self.place + step if step else None

    def table(self, number: int) -> _Table | None:
        """The table that a field points to."""
        at = self.at(number)
        return None if at is None else _Table(self.data, at + _U32.unpack_from(self.data, at)[0])


def _with_message(reject: Reject, message: TopicMessage) -> Reject:
    """A reject of a table with the message it came in."""
    first_ns = message.arrival_ns if message.time_ns == NO_TIME else message.time_ns
    return replace(reject, raw=message.payload[:MAX_RAW_BYTES], arrival_ns=first_ns)


def _joined(batches: Sequence[FrameBatch]) -> list[FrameBatch]:
    """The same frames in fewer batches; frames of one value type, so of one part, keep their order."""
    runs: list[list[FrameBatch]] = []
    newest: dict[str, list[FrameBatch]] = {}
    for batch in batches:
        if not batch.n_frames:
            continue
        run = newest.get(batch.dtype)
        if run is not None and run[0].kind_key == batch.kind_key:
            run.append(batch)
        else:
            newest[batch.dtype] = run = [batch]
            runs.append(run)
    return [FrameBatch.concat(run) for run in runs]
