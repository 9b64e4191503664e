"""Line protocol → frame batches and rejects, a slice of lines at a time.

The scanner reads what it knows; a line that it leaves aside is read by the reference, which makes new series and fields
known, so that the scanner reads them from the next line on. At the end of a slice every series has its newest slot, and
the values of each type become batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads import line_scanner as scanner
from headrace.adapters.payloads.base import PayloadError, RuleSettings
from headrace.adapters.payloads.density import by_width
from headrace.adapters.payloads.keys import EXACT_MAX, I64_MAX, DeviceGroups
from headrace.adapters.payloads.line_protocol import (
    FLOAT,
    INTEGER,
    UNSIGNED,
    Line,
    LineError,
    LineField,
    read_line,
    skip_blank,
    with_fields,
)
from headrace.adapters.payloads.line_scanner import LineColumns, LineTables, PartColumns
from headrace.adapters.payloads.line_series import PARTS, LineSeries, Refusal
from headrace.adapters.payloads.tag_paths import TagPath
from headrace.adapters.payloads.words import TEXT_MAX, WordTable, is_word
from headrace.core.clock import NO_TIME
from headrace.core.events import MAX_RAW_BYTES, PACKED_RAW_BYTES, Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import numpy_dtype
from headrace.core.sensors import SensorDirectory

SLICE_BYTES = 256 << 10
N_LEFT_MAX = 1_000
"""Lines of a slice that the reference may read: some 20 ms of CPU."""
_LINE_BYTES_MIN, _VALUE_BYTES_MIN = 6, 4
TEXT_PART = 4

Scan = Callable[[npt.NDArray[np.uint8], int, int, int, LineTables, LineColumns], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class DecodedLines:
    """What became of a slice of lines; `end` is where the next slice begins."""

    batches: list[FrameBatch]
    rejects: list[Reject]
    n_refused: int
    """Lines of which something was refused."""
    first: str
    """What was wrong with the first of them."""
    end: int


class LineNumbers:
    """A body and the numbers of its lines, counted only as far as somebody asks; `first` is that of the first."""

    def __init__(self, body: bytes, first: int = 1) -> None:
        self.body = body
        self.first = first
        self._at, self._number = 0, first

    def at(self, position: int) -> int:
        """The number of the line at `position`, which never goes back."""
        self._number += self.body.count(b"\n", self._at, position)
        self._at = position
        return self._number


class LineRoom:
    """Where what is read lies until it becomes batches: room for 256 KiB of lines, some megabytes."""

    def __init__(self) -> None:
        self.columns = _columns(SLICE_BYTES)
        self.into = _part_columns(self.columns)

    def grow(self, n_values: int) -> None:
        """Make room for one line more, of so many values."""
        self.columns = _grown(self.columns, n_values)
        self.into = _part_columns(self.columns)


class LineDecoder:
    """Decodes line protocol for one adapter instance.

    Parameters
    ----------
    origin : the adapter's name. naming : paths of devices. settings : types, units, bounds of devices.
    scan : the scanner; tests put another in its place. room : for what is read, to share with other decoders.

    Cost: 35 to 60 ns of CPU a value in lines of 10 known fields; the reference alone takes 20 to 30 times as long.
    """

    def __init__(
        self,
        origin: str,
        directory: SensorDirectory,
        groups: DeviceGroups,
        naming: TagPath,
        settings: RuleSettings,
        scan: Scan = scanner.scan,
        room: LineRoom | None = None,
    ) -> None:
        self._origin = origin
        self._directory = directory
        self._series = LineSeries(groups, naming, settings)
        self._scan = scan
        self._words = WordTable()
        self._texts: list[str] = []
        self._room = LineRoom() if room is None else room

    @property
    def _columns(self) -> LineColumns:
        return self._room.columns

    def decode(
        self, numbers: LineNumbers, at: int, factor: int, arrival_ns: int, is_dated: bool = False
    ) -> DecodedLines:
        """Decode the lines that begin in the next 256 KiB of a body, or fewer where many are new or unusual.

        Parameters
        ----------
        numbers : the body, and the numbers of its lines. at : where the slice begins.
        factor : nanoseconds of one unit of the lines' times.
        is_dated : give lines without a time that of the arrival here, each a nanosecond later than the one before,
        so that the same body with the same arrival gives the same frames; else the intake does it.
        """
        body = numbers.body
        line_ns = arrival_ns + numbers.at(at) - numbers.first if is_dated else 0
        self._begin()
        packer = LinePacker(self._origin, arrival_ns, numbers)
        data = np.frombuffer(body, np.uint8)
        stop = min(at + SLICE_BYTES, len(body))
        n_left = 0
        while n_left < N_LEFT_MAX:
            at, is_left = self._scan(data, at, stop, factor, self._series.tables, self._columns)
            if not is_left:
                at = max(at, stop)
                break
            at = self._read(body, at, factor, packer)
            n_left += 1
        if is_dated:
            self._date(line_ns)
        return self._end(packer, at)

    def _date(self, first_ns: int) -> None:
        """Give lines without a time one."""
        ts_ns = self._columns.ts_ns[: self._columns.counts[scanner.LINES]]
        missing = np.flatnonzero(ts_ns == NO_TIME)
        ts_ns[missing] = first_ns + missing

    def again(self, lines: bytes, factor: int, arrival_ns: int) -> DecodedLines:
        """Decode lines that were refused before, of which a reject has kept all.

        Those without a time get that of their arrival then, each a nanosecond for every line break before it, so
        that decoding them twice gives the same frames whichever of them are taken.

        Parameters
        ----------
        arrival_ns : of the first of them, as its reject has it.
        """
        numbers, at = LineNumbers(lines), skip_blank(lines, 0)
        self._begin()
        packer = LinePacker(self._origin, arrival_ns, numbers)
        while at < len(lines):
            n, line_ns = int(self._columns.counts[scanner.LINES]), arrival_ns + numbers.at(at) - 1
            end = self._read(lines, at, factor, packer)
            if self._columns.counts[scanner.LINES] > n and self._columns.ts_ns[n] == NO_TIME:
                self._columns.ts_ns[n] = line_ns
            at = skip_blank(lines, end)
        return self._end(packer, at)

    def _begin(self) -> None:
        """Make ready for a slice."""
        self._series.make_room()
        self._columns.counts[:] = 0
        self._texts.clear()

    def _end(self, packer: LinePacker, at: int) -> DecodedLines:
        """What has become of a slice, which ends at `at`."""
        packer.close()
        batches = [b.with_(arrival_ns=packer.arrival_ns) for b in self._batches(packer.numbers.body)]
        return DecodedLines(batches, packer.rejects, packer.n_refused, packer.first, at)

    # --- the reference path --------------------------------------------------------------------------

    def _read(self, body: bytes, at: int, factor: int, packer: LinePacker) -> int:
        """Read one line by the reference; where the next begins."""
        at = skip_blank(body, at)
        try:
            line = read_line(body, at, factor)
        except LineError as e:
            packer.refuse(at, body[at : min(e.end, at + MAX_RAW_BYTES)], e.code, e.detail, e.n_samples)
            return e.end
        try:
            series = self._series.series(line.key)
        except PayloadError as e:
            raw = body[at : min(line.end, at + MAX_RAW_BYTES)]
            packer.refuse(at, raw, e.code, e.detail, len(line.fields))
            return line.end
        targets = self._series.targets(series, line.fields)
        refusals = self._take(series, line, targets)
        if refusals:
            # The other fields are taken: kept here they would come twice, and leave no room for what was refused.
            raw = with_fields(body, line, at, refusals)[:MAX_RAW_BYTES]
            first = next(iter(refusals.values()))
            packer.refuse(at, raw, first.code, first.detail, len(refusals))
        return line.end

    def _take(self, series: int, line: Line, targets: list[int | Refusal]) -> dict[bytes, Refusal]:
        """Add a line to the columns; which of its fields were refused."""
        count = self._columns.counts
        n_lines, n = int(count[scanner.LINES]), int(count[scanner.ENTRIES])
        if n_lines + 2 > len(self._columns.first) or n + len(targets) > len(self._columns.target):
            self._room.grow(len(targets))
            count = self._columns.counts
        columns = self._columns
        refusals: dict[bytes, Refusal] = {}
        for item, target in zip(line.fields, targets, strict=True):
            if isinstance(target, Refusal):
                refusals[item.key] = target
                continue
            part = target & 0xFF
            try:
                self._put(item, part, n)
            except PayloadError as e:
                refusals[item.key] = Refusal(e.code, e.detail)
                continue
            columns.target[n] = target
            count[scanner.PARTS + part] += 1
            n += 1
        if n > count[scanner.ENTRIES]:
            columns.series[n_lines], columns.ts_ns[n_lines], columns.first[n_lines + 1] = (
                series,
                line.ts_ns,
                n,
            )
            count[scanner.LINES], count[scanner.ENTRIES] = n_lines + 1, n
        return refusals

    def _put(self, item: LineField, part: int, n: int) -> None:
        """Write a value's bits to row n. Raises PayloadError where its sensor can't hold it."""
        kind, value = item.kind, item.value
        if isinstance(value, bytes):
            self._texts.append(_word(value))
            self._columns.ints[n] = -len(self._texts)
        elif part == FLOAT:
            if kind != FLOAT and abs(value) > EXACT_MAX:
                detail = (
                    f"{value!r} can't be held exactly by a 64-bit float; declare the field as i64 under types"
                )
                raise PayloadError(RejectCode.WRONG_TYPE, detail)
            self._columns.floats[n] = value
        elif (part == INTEGER and value > I64_MAX) or (part == UNSIGNED and value < 0):
            detail = f"{value!r} is outside what its sensor holds, {PARTS[part]}"
            raise PayloadError(RejectCode.WRONG_TYPE, detail)
        else:
            self._columns.ints[n] = np.uint64(value).view(np.int64) if part == UNSIGNED else value

    # --- batches -------------------------------------------------------------------------------------

    def _batches(self, body: bytes) -> list[FrameBatch]:
        out: list[FrameBatch] = []
        for part, dtype in enumerate(PARTS):
            if self._columns.counts[scanner.PARTS + part]:
                out += self._part(part, dtype, body)
        return out

    def _part(self, part: int, dtype: str, body: bytes) -> list[FrameBatch]:
        """The batches of one value type: one for each width of frames, so that frames of a device keep their order."""
        into = self._room.into
        n_lines, n_values, is_ordered = scanner.take_part(part, self._columns, into)
        line = into.line[:n_lines]
        slot = self._series.slots(self._columns.series[line], part)
        ts_ns, start = self._columns.ts_ns[line], into.start[: n_lines + 1].copy()
        column, bits = into.column[:n_values].copy(), into.bits[:n_values].copy()
        if not is_ordered:
            order = np.lexsort((column, np.repeat(np.arange(n_lines), np.diff(start))))
            column, bits = column[order], bits[order]
        words = None
        if part == TEXT_PART:
            bits, words = self._words.coded(bits, body, self._texts), self._words.dictionary
        wide = numpy_dtype(dtype)
        values = bits.view(wide) if wide.itemsize == 8 else bits.astype(wide)
        frames = FrameBatch.sparse(slot, ts_ns, values, start, column, dictionary=words, origin=self._origin)
        return by_width(frames, self._directory)


def warm_lines() -> None:
    """Compile the scanner, or load it from the cache: two lines of a series are decoded in memory."""
    directory, rule = SensorDirectory(), RuleSettings(path="{device}/{key}")
    naming = TagPath("{host}/{measurement}")
    decoder = LineDecoder("warm", directory, DeviceGroups(directory), naming, rule)
    decoder.decode(LineNumbers(b'm,host=h a=1.5,b=1i,c=1u,d=t,e="x" 1\n' * 2), 0, 1, 1)


def _word(value: bytes) -> str:
    """A text value. Raises PayloadError."""
    try:
        text = value.decode()
    except UnicodeDecodeError as e:
        raise PayloadError(RejectCode.MALFORMED, f"a text is not UTF-8: {e}") from None
    if not is_word(text):
        detail = f"a text longer than {TEXT_MAX:,} characters, or with a NUL in it"
        raise PayloadError(RejectCode.WRONG_TYPE, detail)
    return text


def _columns(n_bytes: int) -> LineColumns:
    """Room for what so many bytes can hold."""
    n_lines, n_values = n_bytes // _LINE_BYTES_MIN + 2, n_bytes // _VALUE_BYTES_MIN + 1
    ints = np.zeros(n_values, np.int64)
    return LineColumns(
        np.zeros(n_lines, np.int64), np.zeros(n_lines, np.int64), np.zeros(n_lines + 1, np.int64),
        np.zeros(n_values, np.int64), ints, ints.view(np.float64), np.zeros(scanner.PARTS + len(PARTS), np.int64),
    )  # fmt: skip


def _grown(columns: LineColumns, n_values: int) -> LineColumns:
    """The same with room for one line more, of so many values."""
    n_lines = int(columns.counts[scanner.LINES])
    room = max(2 * len(columns.target), len(columns.target) + n_values) * _VALUE_BYTES_MIN
    grown = _columns(max(room, 2 * n_lines * _LINE_BYTES_MIN))
    for name in ("series", "ts_ns", "first", "target", "ints", "counts"):
        old = getattr(columns, name)
        getattr(grown, name)[: len(old)] = old
    return grown


def _part_columns(columns: LineColumns) -> PartColumns:
    n_lines, n_values = len(columns.series), len(columns.target)
    return PartColumns(
        np.zeros(n_lines, np.int64), np.zeros(n_lines + 1, np.int64), np.zeros(n_values, np.uint16),
        np.zeros(n_values, np.int64),
    )  # fmt: skip


class LinePacker:
    """Makes rejects of refused lines: those that follow each other with the same code share one, below 4 KiB if they can.

    So a reject that has a MiB is of one line, of which the rest is missing. The arrival of a reject is that of its
    first line, each line of a body being a nanosecond later than the one before.
    """

    def __init__(self, origin: str, arrival_ns: int, numbers: LineNumbers) -> None:
        self.numbers, self.arrival_ns = numbers, arrival_ns
        self.rejects: list[Reject] = []
        self.n_refused = 0
        self.first = ""
        self._origin = origin
        self._code: RejectCode | None = None
        self._number = 0
        self._detail = ""
        self._raw = b""
        self._n_samples = 0

    def refuse(self, start: int, raw: bytes, code: RejectCode, detail: str, n_samples: int) -> None:
        """Take the line at `start`, of which `n_samples` values can't be taken; `raw` is what of it is kept."""
        if code is not self._code or len(self._raw) + len(raw) >= PACKED_RAW_BYTES:
            self.close()
            self._code, self._number = code, self.numbers.at(start)
            self._detail = f"line {self._number}: {detail}"
        self._raw += raw
        self._n_samples += n_samples
        self.n_refused += 1
        self.first = self.first or self._detail

    def close(self) -> None:
        """Make the reject of what has none yet."""
        if self._code is not None:
            arrival_ns = self.arrival_ns + self._number - 1
            self.rejects.append(
                Reject(
                    self._code, self._origin, "lines", self._detail, self._raw, arrival_ns, self._n_samples
                )
            )
        self._code, self._raw, self._n_samples = None, b"", 0
