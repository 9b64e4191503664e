"""Answers of a server, from their bytes: values as columns, and what stands around them.

The kernel of `headrace.adapters.opcua.scanner` reads the values, 20 to 30 ns each; asyncua's decoder, 14 us each, reads
whatever message the kernel gives up on. Both give the same columns.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from asyncua import ua
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary

from headrace.adapters.opcua.client import ServiceFailed
from headrace.adapters.opcua.scanner import GAVE_UP, TICKS_1970, TICKS_SPAN, ValueColumns, scan_values
from headrace.core.clock import NO_TIME
from headrace.core.errors import Rejected

# Type, time, handle, result, no diagnostics, no texts, no more header.
_HEAD = struct.Struct("<2sHqII b i 3s".replace(" ", ""))
_PLAIN = (b"\x01\x00", 0, b"\x00\x00\x00")
_READ, _PUBLISH, _CHANGES, _STATUS_CHANGE = 634, 829, 811, 820
_COUNT = struct.Struct("<i")
_SENT = struct.Struct("<2sHq")
_PUBLISHED = struct.Struct("<Iqi")
_NOTIFICATION = struct.Struct("<2sHBi")
_BAD = 0x8000_0000
_HANDLE_BYTES = 4
_LEAST_BYTES = 1
_1970 = datetime(1970, 1, 1, tzinfo=UTC)


class _Unusual(Exception):
    """Not what the scanner knows."""


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Values of one answer and the bytes they lie in."""

    columns: ValueColumns
    data: bytes

    def __len__(self) -> int:
        return len(self.columns.tag)

    def raw(self, row: int) -> bytes:
        """The bytes of a row's variant."""
        first = int(self.columns.first[row])
        return self.data[first : first + int(self.columns.size[row])]

    def data_value(self, row: int) -> bytes:
        """A row as OPC UA writes it: variant, status, times; what `scan_values` reads."""
        columns, raw = self.columns, self.raw(row)
        parts = [raw, struct.pack("<I", int(columns.status[row]))]
        mask = (1 if raw else 0) | 2
        for bit, time_ns in ((4, int(columns.source_ns[row])), (8, int(columns.server_ns[row]))):
            if time_ns != NO_TIME:
                mask |= bit | bit << 2  # with its picoseconds: ticks are 100 ns
                ticks, rest_ns = divmod(time_ns, 100)
                parts.append(struct.pack("<qH", ticks + TICKS_1970, rest_ns * 100))
        return bytes([mask]) + b"".join(parts)

    def rows(self, chosen: npt.NDArray[np.bool_]) -> Values:
        """Some of them."""
        some: list[Any] = [column[chosen] for column in self.columns]
        return Values(ValueColumns(*some), self.data)


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """What a server published: some values, or a word on the subscription; a keep-alive has neither.

    Parameters
    ----------
    status : of the subscription, where the server says that it has changed; else 0.
    n_other : notifications of kinds that we have not asked for.
    """

    subscription: int
    sequence: int
    values: tuple[Values, ...] = ()
    status: int = 0
    n_other: int = field(default=0)

    @property
    def surplus(self) -> str:
        """What came that we have not asked for, as a reason to refuse it; empty for nothing. What else came is good."""
        return (
            f"{self.n_other} notifications are neither values nor a word on the subscription"
            if self.n_other
            else ""
        )


def sent_ns(body: bytes) -> int:
    """When the server sent an answer, by its own clock; `NO_TIME` where it does not say."""
    if len(body) < _SENT.size:
        return NO_TIME
    four, _, ticks = _SENT.unpack_from(body)
    since = ticks - TICKS_1970
    return since * 100 if four == _PLAIN[0] and ticks > 0 and abs(since) <= TICKS_SPAN else NO_TIME


def read_answer(body: bytes) -> Values:
    """The values of a read response; `tag` is the place in the request.

    Raises
    ------
    Rejected : the bytes are no such answer. ServiceFailed : it is an error of the server's own.
    """
    try:
        return _scan_read(body)
    except (_Unusual, struct.error):
        response = _decoded(ua.ReadResponse, body, "a read")
        return from_data_values(response.Results)


def publish_answer(body: bytes) -> Published:
    """What a publish response says.

    Raises
    ------
    Rejected : the bytes are no such answer. ServiceFailed : it is an error of the server's own.
    """
    try:
        return _scan_publish(body)
    except (_Unusual, struct.error):
        return _published(_decoded(ua.PublishResponse, body, "a publish request").Parameters)


def numbered(values: Values, numbers: Sequence[int] | npt.NDArray[np.uint32]) -> Values:
    """An answer whose places in the request become the handles, or the tags, that stood there."""
    return Values(values.columns._replace(tag=np.array(numbers, np.uint32)), values.data)


# --- by the scanner ----------------------------------------------------------------------------------


def _after_head(body: bytes, kind: int) -> int:
    """Where the answer proper begins."""
    four, number, _, _, result, diagnostics, n_texts, more = _HEAD.unpack_from(body)
    if (four, diagnostics, more) != _PLAIN or number != kind or n_texts > 0 or result:
        raise _Unusual
    return _HEAD.size


def _scanned(body: bytes, at: int, end: int, has_handles: bool) -> Values:
    """The counted values from `at` on."""
    (n,) = _COUNT.unpack_from(body, at)
    least = _HANDLE_BYTES + _LEAST_BYTES if has_handles else _LEAST_BYTES
    if n * least > end - at:
        raise _Unusual
    columns = ValueColumns.room(max(n, 0))
    data = np.frombuffer(body, np.uint8)
    after = scan_values(data, at + _COUNT.size, end, len(columns.tag), has_handles, columns)
    if after == GAVE_UP or (after != end and not has_handles):
        raise _Unusual
    if has_handles:
        _check_nothing_more(body, int(after), end)
    return Values(columns, body)


def _check_nothing_more(body: bytes, at: int, end: int) -> None:
    """Behind the values of a notification stand their diagnostics: none. asyncua passes over what else is there."""
    n_left = end - at
    if n_left < _COUNT.size or _COUNT.unpack_from(body, at)[0] > 0:
        raise _Unusual
    if n_left > _COUNT.size:
        raise Rejected(f"{n_left - _COUNT.size:,} bytes of a notification are no values")


def _scan_read(body: bytes) -> Values:
    # Behind the values stands the number of their diagnostics: none.
    at, end = _after_head(body, _READ), len(body) - _COUNT.size
    (n_more,) = _COUNT.unpack_from(body, max(end, at))
    if n_more > 0:
        raise _Unusual
    return _scanned(body, at, end, has_handles=False)


def _check_end(body: bytes, at: int) -> None:
    """Behind the notifications stand the results of acknowledgements, no diagnostics, and nothing else."""
    (n_results,) = _COUNT.unpack_from(body, at)
    at += _COUNT.size + 4 * max(n_results, 0)
    (n_more,) = _COUNT.unpack_from(body, at)
    if n_more > 0 or at + _COUNT.size != len(body):
        raise _Unusual


def _scan_publish(body: bytes) -> Published:
    at = _after_head(body, _PUBLISH)
    subscription, n_available = struct.unpack_from("<Ii", body, at)
    at += 8 + 4 * max(n_available, 0) + 1
    sequence, _, n_notifications = _PUBLISHED.unpack_from(body, at)
    at += _PUBLISHED.size
    values: list[Values] = []
    status = n_other = 0
    for _ in range(n_notifications):
        four, number, has_body, size = _NOTIFICATION.unpack_from(body, at)
        at += _NOTIFICATION.size
        if four != _PLAIN[0] or has_body != 1 or not 0 <= size <= len(body) - at:
            raise _Unusual
        if number == _CHANGES:
            values.append(_scanned(body, at, at + size, has_handles=True))
        elif number == _STATUS_CHANGE:
            (status,) = struct.unpack_from("<I", body, at)
        else:
            n_other += 1
        at += size
    _check_end(body, at)
    return Published(subscription, sequence, tuple(values), status, n_other)


# --- by asyncua --------------------------------------------------------------------------------------


def _decoded(kind: type[Any], body: bytes, what: str) -> Any:
    try:
        rest = ua.utils.Buffer(body)
        response = struct_from_binary(kind, rest)
        code = int(response.ResponseHeader.ServiceResult.value)
    except Exception as e:
        raise Rejected(f"{len(body):,} bytes are no {kind.__name__}: {e!r}") from e
    if code >= _BAD:
        raise ServiceFailed(what, code)
    if rest:
        raise Rejected(f"{len(body):,} bytes are a {kind.__name__} and {len(rest):,} more")
    return response


def _published(result: Any) -> Published:
    message = result.NotificationMessage
    values: list[Values] = []
    status = n_other = 0
    for one in message.NotificationData or ():
        if isinstance(one, ua.DataChangeNotification):
            items = one.MonitoredItems or ()
            found = from_data_values([item.Value for item in items])
            found.columns.tag[:] = [item.ClientHandle for item in items]
            values.append(found)
        elif isinstance(one, ua.StatusChangeNotification):
            status = one.Status.value
        else:
            n_other += 1
    return Published(result.SubscriptionId, message.SequenceNumber, tuple(values), status, n_other)


def from_data_values(found: Any) -> Values:
    """Columns of asyncua's data values: what the scanner would have made of their bytes.

    What the scanner can't read of a value (values inside values) is one structure to it, of no known kind.
    """
    parts: list[bytes] = []
    columns = ValueColumns.empty(len(found or ()))
    at = 0
    for row, value in enumerate(found or ()):
        part = _plain_bytes(value)
        one = ValueColumns.empty(1)
        data = np.frombuffer(part, np.uint8)
        if scan_values(data, 0, len(part), 1, False, one) == GAVE_UP:
            one.kind[0] = data[1] if len(data) > 1 else 0
            one.first[0], one.size[0] = 1, len(part) - 1
            one.status[0] = value.StatusCode.value if value.StatusCode is not None else 0
            one.source_ns[0], one.server_ns[0] = (
                _time_ns(value.SourceTimestamp),
                _time_ns(value.ServerTimestamp),
            )
        for name in ("kind", "bits", "status", "source_ns", "server_ns", "size"):
            getattr(columns, name)[row] = getattr(one, name)[0]
        columns.first[row] = at + one.first[0]
        parts.append(part)
        at += len(part)
    return Values(columns, b"".join(parts))


def _plain_bytes(value: Any) -> bytes:
    """A data value in bytes again."""
    try:
        return bytes(struct_to_binary(value))
    except Exception:
        # What asyncua reads but can't write is of no use to a sensor: only its status counts.
        return bytes(struct_to_binary(ua.DataValue(StatusCode=value.StatusCode)))


def _time_ns(time: Any) -> int:
    if time is None:
        return NO_TIME
    since: timedelta = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _1970
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000
