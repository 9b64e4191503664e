"""Line protocol inside of messages: ``cpu,host=pi usage=97.9,n=4i 1700000000000000000``; one line or many.

The rule's path names ``{measurement}``, and tags by their names, besides what the topic gives; its last level is
``{key}``, the name of each field. Tags that it does not name are added to the level before, as in
``cpu;cpu=cpu0``, so that two series never become one sensor. A line without a time gets the message's, each a
nanosecond later for every line before it.

All messages of a path are scanned in one go where no line can reach over the end of its message.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads import line_scanner as scanner
from headrace.adapters.payloads.base import Decoded, RuleSettings, TimeUnit, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_decoder import (
    SLICE_BYTES,
    TEXT_PART,
    LineDecoder,
    LineNumbers,
    LinePacker,
    LineRoom,
)
from headrace.adapters.payloads.line_protocol import skip_blank
from headrace.adapters.payloads.rows import N_REFUSED_MAX, make_reject
from headrace.adapters.payloads.tag_paths import MEASUREMENT, TagPath
from headrace.adapters.payloads.times import TimeReader
from headrace.adapters.payloads.words import LENGTH_BITS
from headrace.core.clock import NO_TIME, NS
from headrace.core.errors import ConfigError
from headrace.core.events import Reject, RejectCode

_FACTORS: dict[TimeUnit, int] = {"auto": 1, "ns": 1, "us": 1_000, "ms": 1_000_000, "s": NS}


class LinePayload:
    """The decoder of messages of lines. Cost: 35 to 60 ns of CPU a value in lines of 10 known fields."""

    has_keys: ClassVar[bool] = True
    has_places: ClassVar[bool] = True

    def __init__(self, settings: RuleSettings, times: TimeReader) -> None:
        if settings.time is not None:
            raise ConfigError("a line has its time at its end; remove time")
        if f"{{{MEASUREMENT}}}" not in settings.path:
            raise ConfigError(
                f"path {settings.path!r} does not say where {{{MEASUREMENT}}} goes, so that two measurements of a device "
                f"could be one sensor"
            )
        self._settings = settings
        self._room: LineRoom | None = None

    def reader(self, origin: str, groups: DeviceGroups, path: str) -> LineReader:
        """What reads messages whose topic gives `path`, which has still places for tags."""
        if self._room is None:
            self._room = LineRoom()
        return LineReader(origin, groups, TagPath(path), self._settings, self._room)


class LineReader(LineDecoder):
    """Reads the messages of one path; see `headrace.adapters.payloads.base.SliceReader`."""

    def __init__(
        self, origin: str, groups: DeviceGroups, naming: TagPath, settings: RuleSettings, room: LineRoom
    ) -> None:
        super().__init__(origin, groups.directory, groups, naming, settings, room=room)
        self._factor = _FACTORS[settings.time_unit]
        self._newest_ns = 0

    def read(self, messages: Sequence[TopicMessage]) -> Decoded:
        """Columns of all lines, and rejects."""
        out = Decoded([], [])
        for some in _slices(messages):
            body = b"\n".join([message.payload for message in some])
            if not self._read_together(some, body, out):
                self._read_each(some, body, out)
        return out

    def _read_together(self, messages: Sequence[TopicMessage], body: bytes, out: Decoded) -> bool:
        """Read messages as one body; False, and nothing is kept, where that is not the same as one by one."""
        self._begin()
        data, starts, packers = np.frombuffer(body, np.uint8), _starts(messages), _Packers(self._origin)
        firsts = self._firsts(messages)
        at, is_left = 0, 1
        while is_left:
            at, is_left = self._scan(data, at, len(body), self._factor, self._series.tables, self._columns)
            if is_left:
                number = bisect_right(starts, at) - 1
                start, message = starts[number], messages[number]
                packer = packers.of(message, firsts[number])
                at = start + self._read(message.payload, at - start, self._factor, packer)
                if packer.n_refused > N_REFUSED_MAX:
                    return False
        if b'"' in body and self._reaches_over(starts):
            return False
        times = self._times_from(0)
        if (times == NO_TIME).any() and not self._fill_times(times, messages, firsts):
            return False
        self._finish(packers, body, out)
        return True

    def _firsts(self, messages: Sequence[TopicMessage]) -> list[int]:
        """The time of a first line without one, for each message."""
        newest_ns, out = self._newest_ns, []
        for message in messages:
            first_ns = message.time_ns
            if first_ns == NO_TIME:
                first_ns = max(message.arrival_ns, newest_ns + 1)
                newest_ns = first_ns + _n_lines(message) - 1
            out.append(first_ns)
        return out

    def _fill_times(
        self, times: npt.NDArray[np.int64], messages: Sequence[TopicMessage], firsts: list[int]
    ) -> bool:
        """Give lines without a time theirs; False where it is not clear which line is whose."""
        n_lines = np.array([_n_lines(message) for message in messages])
        if n_lines.sum() != len(times):
            return False  # no message has more lines than line breaks, so here each has as many
        step = np.arange(len(times)) - np.repeat(np.cumsum(n_lines) - n_lines, n_lines)
        own = np.repeat(np.array(firsts, np.int64), n_lines) + step
        np.copyto(times, own, where=times == NO_TIME)
        if messages[-1].time_ns == NO_TIME:
            self._newest_ns = int(own[-1])
        return True

    def _reaches_over(self, starts: list[int]) -> bool:
        """Whether a text that was scanned begins in one message and ends in another."""
        n = int(self._columns.counts[scanner.ENTRIES])
        bits = self._columns.ints[:n][(self._columns.target[:n] & 0xFF) == TEXT_PART]
        begin = bits[bits >= 0] >> LENGTH_BITS
        end = begin + (bits[bits >= 0] & ((1 << LENGTH_BITS) - 1))
        return bool((np.searchsorted(starts, begin, "right") != np.searchsorted(starts, end, "right")).any())

    def _read_each(self, messages: Sequence[TopicMessage], body: bytes, out: Decoded) -> None:
        """Read messages one after the other."""
        self._begin()
        data, packers = np.frombuffer(body, np.uint8), _Packers(self._origin)
        for start, message, first_ns in zip(_starts(messages), messages, self._firsts(messages), strict=True):
            before = self._columns.counts.copy()
            packer = packers.of(message, first_ns)
            self._read_one(data[: start + len(message.payload)], start, message, packer)
            times = self._times_from(int(before[scanner.LINES]))
            if (times == NO_TIME).any() and not self._fill_times(times, [message], [first_ns]):
                self._columns.counts[:] = before
                packers.drop()
                self._read_by_line(message, first_ns, packers.of(message, first_ns))
        self._finish(packers, body, out)

    def _read_one(
        self, data: npt.NDArray[np.uint8], start: int, message: TopicMessage, packer: LinePacker
    ) -> None:
        """Read one message, which lies in `data` from `start` to the end."""
        at, is_left = start, 1
        while is_left:
            at, is_left = self._scan(data, at, len(data), self._factor, self._series.tables, self._columns)
            if is_left:
                at = start + self._read(message.payload, at - start, self._factor, packer)
            if packer.n_refused > N_REFUSED_MAX and at < len(data):
                self._refuse_rest(message, at - start, packer)
                return

    def _read_by_line(self, message: TopicMessage, first_ns: int, packer: LinePacker) -> None:
        """Read one message by the reference: each line knows how many stand before it."""
        payload, numbers = message.payload, LineNumbers(message.payload)
        at = skip_blank(payload, 0)
        while at < len(payload):
            n, line_ns = int(self._columns.counts[scanner.LINES]), first_ns + numbers.at(at) - 1
            at = self._read(payload, at, self._factor, packer)
            times = self._times_from(n)
            times[times == NO_TIME] = line_ns
            if message.time_ns == NO_TIME:
                self._newest_ns = max(self._newest_ns, line_ns)
            if packer.n_refused > N_REFUSED_MAX and at < len(payload):
                self._refuse_rest(message, at, packer)
                return
            at = skip_blank(payload, at)

    def _refuse_rest(self, message: TopicMessage, at: int, packer: LinePacker) -> None:
        packer.close()
        detail = f"more than {N_REFUSED_MAX:,} lines with mistakes; what follows was not read"
        n_lines = message.payload.count(b"\n", at) + 1
        packer.rejects.append(make_reject(self._origin, message, RejectCode.MALFORMED, detail, n_lines))

    def _times_from(self, line: int) -> npt.NDArray[np.int64]:
        """Times of the lines that were read, from one on; a view."""
        return self._columns.ts_ns[line : int(self._columns.counts[scanner.LINES])]

    def _finish(self, packers: _Packers, body: bytes, out: Decoded) -> None:
        out.batches.extend(self._batches(body))
        out.rejects.extend(packers.rejects())


class _Packers:
    """The rejects of messages, each message's for itself."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._each: list[tuple[TopicMessage, LinePacker]] = []

    def of(self, message: TopicMessage, first_ns: int) -> LinePacker:
        """What packs the refused lines of a message; messages come in order."""
        if not self._each or self._each[-1][0] is not message:
            packer = LinePacker(self._origin, first_ns, LineNumbers(message.payload))
            self._each.append((message, packer))
        return self._each[-1][1]

    def drop(self) -> None:
        """Forget what was refused of the newest message."""
        self._each.pop()

    def rejects(self) -> list[Reject]:
        """All of them, with the messages they are of as their source."""
        out = []
        for message, packer in self._each:
            packer.close()
            out += [replace(reject, source=message.source) for reject in packer.rejects]
        return out


def _n_lines(message: TopicMessage) -> int:
    """How many lines a message has, as far as its line breaks tell."""
    return message.payload.rstrip(b"\n").count(b"\n") + 1


def _starts(messages: Sequence[TopicMessage]) -> list[int]:
    """Where each message begins in the body of all, with a line break between them."""
    sizes = (len(message.payload) + 1 for message in messages[:-1])
    return list(accumulate(sizes, initial=0))


def _slices(messages: Sequence[TopicMessage]) -> Iterator[Sequence[TopicMessage]]:
    """Messages of 256 KiB together at most, where each alone is no larger."""
    first, size = 0, 0
    for number, message in enumerate(messages):
        if number > first and size + len(message.payload) > SLICE_BYTES:
            yield messages[first:number]
            first, size = number, 0
        size += len(message.payload) + 1
    yield messages[first:]
