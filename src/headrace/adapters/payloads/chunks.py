"""Whole lines of a source that goes on and on, chunk by chunk → frame batches and rejects.

A *chunk* is some whole lines of one source, the number of the first of them, and the time at which they were read. The
same lines give the same samples wherever they are cut into chunks, so that a source can be read on from any line. A
line without a time gets that of its chunk, each line a nanosecond later, so that the same chunk gives the same frames.

A reject's source is ``source:line``, and its bytes are what it takes to decode the line again (of CSV with the line
that names the columns above it).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.adapters.payloads.base import Decoded, PayloadError, TopicMessage
from headrace.adapters.payloads.csv_cells import CsvCells, CsvText
from headrace.adapters.payloads.csv_plain import PlainColumns, PlainCsv
from headrace.adapters.payloads.csv_values import CellColumn, WantedCells, read_times
from headrace.adapters.payloads.keys import DTYPE_OF, DeviceGroups
from headrace.adapters.payloads.line_decoder import LineDecoder, LineNumbers
from headrace.adapters.payloads.line_protocol import FACTORS
from headrace.adapters.payloads.line_rules import LinePaths, LineRule, compile_paths
from headrace.adapters.payloads.number import number as number_of
from headrace.adapters.payloads.rows import N_REJECTS_MAX
from headrace.adapters.payloads.tables import PATH_COLUMNS, TableColumns, TableReader
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NO_TIME
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

TEXT_BYTES_MAX = 8_192
"""A text in line protocol has at most 1,024 characters: what is open for longer than this is none."""
_CUTS_MAX = 64
_OTHERS_FIRST, _OTHERS_GROW = 8, 8
_LINE = re.compile(r"line (\d+): ")
_OPENS = re.compile(rb'="')
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_TIME_COLUMN = "\x00time"


@dataclass(frozen=True, slots=True)
class LineChunk:
    """Whole lines of one source.

    Parameters
    ----------
    source : what rejects call it. data : the lines. number : of the first one, from 1. arrival_ns : when they were read.
    """

    source: str
    data: bytes
    number: int
    arrival_ns: int


class ChunkDecoder(Protocol):
    """Decodes the chunks of one source, in order."""

    @property
    def head(self) -> bytes:
        """What another one has to `learn` to go on here; empty where it needs nothing."""
        ...

    def learn(self, head: bytes) -> None:
        """See the first lines of a source that is read on from somewhere in the middle.

        Raises
        ------
        PayloadError : they are not what they should be, so nothing of this source can be read.
        """
        ...

    def decode(self, chunk: LineChunk) -> Decoded:
        """Columns of a chunk, and rejects; every value is in one or the other.

        Raises
        ------
        PayloadError : as `learn`; nothing was taken.
        """
        ...

    def again(self, raw: bytes, source: str, arrival_ns: int) -> Decoded:
        """Decode what a reject has kept. Raises PayloadError."""
        ...


class LineFormats:
    """Makes chunk decoders for one adapter instance.

    Parameters
    ----------
    origin : the adapter's name. levels, timezone : of the plant. groups : the adapter's devices.
    """

    def __init__(
        self,
        origin: str,
        directory: SensorDirectory,
        groups: DeviceGroups,
        levels: tuple[str, ...],
        timezone: str,
    ) -> None:
        self.origin, self.directory, self.groups = origin, directory, groups
        self.levels, self.timezone = levels, timezone

    def csv(self, rule: LineRule, paths: LinePaths, names: dict[str, str]) -> ChunkDecoder:
        """Of CSV; `names` are those of a file's name. Raises PayloadError: the path can't name a device."""
        return CsvChunks(self, rule, device_path(paths, names))

    def json(self, rule: LineRule, paths: LinePaths, names: dict[str, str]) -> ChunkDecoder:
        """Of JSON, an object a line. Raises as `csv`."""
        try:
            from headrace.adapters.payloads.json_chunks import FieldChunks, SampleChunks
        except ModuleNotFoundError as e:
            detail = f"JSON needs a library that is not installed ({e.name}): pip install 'headrace[files]'"
            raise PayloadError(RejectCode.INTERNAL, detail) from e

        device = device_path(paths, names)
        return FieldChunks(self, rule, device) if device else SampleChunks(self, rule)

    def lines(self, rule: LineRule, paths: LinePaths) -> ChunkDecoder:
        """Of line protocol."""
        assert paths.naming is not None
        settings = rule.settings
        decoder = LineDecoder(self.origin, self.directory, self.groups, paths.naming, settings)
        return LineProtocolChunks(decoder, FACTORS["ns" if rule.time_unit == "auto" else rule.time_unit])

    def times(self, rule: LineRule) -> TimeReader:
        """Reads the times of a rule."""
        return TimeReader(rule.time_unit, self.timezone)


def device_path(paths: LinePaths, names: dict[str, str]) -> str:
    """The path of a source's device; empty where lines name their sensors. Raises PayloadError."""
    if paths.template is None:
        return ""
    path = paths.template.fill(names)
    if path.count("/") != paths.template.group.count("/"):
        detail = f"path {path!r} has other levels than {paths.template.group!r}"
        raise PayloadError(RejectCode.BAD_PATH, detail)
    return path


def cut_lines(data: bytes) -> int:
    """How many bytes of `data` are whole lines."""
    return data.rfind(b"\n") + 1


def cut_line_protocol(data: bytes) -> int:
    """The same for line protocol, where a text may hold line breaks: none is open there."""
    end = cut_lines(data)
    for _ in range(_CUTS_MAX):
        opener = _first_open(data, end)
        if opener < 0:
            return end
        end = data.rfind(b"\n", 0, opener) + 1
    return cut_lines(data)


def _first_open(data: bytes, end: int) -> int:
    """Where a text begins that is not closed before `end`; -1 where there is none."""
    for match in _OPENS.finditer(data, max(0, end - TEXT_BYTES_MAX), end):
        if _TEXT.match(data, match.start() + 1, end) is None:
            return match.start()
    return -1


class _Refusals:
    """Rejects of one chunk, one for each line and code, and one for all of a code that are too many.

    Parameters
    ----------
    raw_of : the bytes of a line by its number.
    """

    def __init__(self, origin: str, chunk: LineChunk, raw_of: Callable[[int], bytes]) -> None:
        self._origin, self._chunk, self._raw_of = origin, chunk, raw_of
        self._by_line: dict[tuple[RejectCode, int], tuple[str, int]] = {}

    def add(self, line: int, code: RejectCode, detail: str, n_samples: int) -> None:
        """Take note of values of a line that can't be taken."""
        known = self._by_line.get((code, line))
        self._by_line[code, line] = (detail, n_samples) if known is None else (known[0], known[1] + n_samples)

    def rejects(self) -> list[Reject]:
        """All of them."""
        out: list[Reject] = []
        last: dict[RejectCode, int] = {}
        counts: dict[RejectCode, int] = {}
        for (code, line), (detail, n_samples) in sorted(self._by_line.items(), key=lambda item: item[0][1]):
            counts[code] = counts.get(code, 0) + 1
            if counts[code] > N_REJECTS_MAX:
                same = out[last[code]]
                out[last[code]] = replace(same, n_samples=same.n_samples + n_samples)
                continue
            last[code] = len(out)
            chunk = self._chunk
            raw = self._raw_of(line)[:MAX_RAW_BYTES]
            arrival_ns = chunk.arrival_ns + line - chunk.number
            out.append(
                Reject(code, self._origin, f"{chunk.source}:{line}", detail, raw, arrival_ns, n_samples)
            )
        return out


class CsvChunks:
    """CSV, by columns.

    Parameters
    ----------
    device : path of the device; empty where a column ``path`` names the sensors.

    Cost: 10 to 20 ns of CPU a cell of numbers, 60 to 80 ns where a device also has columns of texts or of another type.
    """

    def __init__(self, formats: LineFormats, rule: LineRule, device: str) -> None:
        self._formats, self._rule, self._device = formats, rule, device
        self._settings = rule.settings
        self._dialect = rule.dialect
        self._times = formats.times(rule)
        self._names: tuple[str, ...] = ()
        self._plain: PlainCsv | None = None
        self._head, self._is_plain_head = b"", False
        columns = TableColumns(_TIME_COLUMN, rule.value, device, ())
        self._reader = TableReader(formats.origin, formats.groups, self._times, columns, self._settings)
        if rule.columns:
            self._name(rule.columns)

    @property
    def head(self) -> bytes:
        line = self._head.decode().encode(self._dialect.encoding)
        return b"\n" * self._dialect.skip + line + b"\n" if line else b""

    def learn(self, head: bytes) -> None:
        if not self._names:
            text = CsvText(head, 1, self._dialect, lambda *_: None)
            self._find_names(text, text.holds_values())

    def decode(self, chunk: LineChunk) -> Decoded:
        refused: list[tuple[int, RejectCode, str]] = []
        text = CsvText(chunk.data, chunk.number, self._dialect, lambda *one: refused.append(one))
        wanted = text.holds_values()
        if not self._names:
            self._find_names(text, wanted)
        refusals = _Refusals(self._formats.origin, chunk, lambda n: self._head + b"\n" + text.line(n))
        batches: list[FrameBatch] = []
        rejects: list[Reject] = []
        if self._names:
            self._read(text, wanted, chunk, refusals, (batches, rejects))
        n_values = max(1, len(self._names) - (self._rule.time is not None))
        for line, code, detail in refused:
            refusals.add(line, code, detail, n_values)
        return Decoded([b.with_(arrival_ns=chunk.arrival_ns) for b in batches], refusals.rejects() + rejects)

    def again(self, raw: bytes, source: str, arrival_ns: int) -> Decoded:
        rule = self._rule.model_copy(update={"skip": 0, "encoding": "utf-8"})
        past = CsvChunks(self._formats, rule, self._device)
        if not rule.columns:
            head, _, raw = raw.partition(b"\n")
            past.learn(head)
        source, _, number = source.rpartition(":")
        return past.decode(LineChunk(source, raw.removeprefix(b"\n"), int(number), arrival_ns))

    # --- the line that names the columns -------------------------------------------------------------

    def _find_names(self, text: CsvText, wanted: npt.NDArray[np.bool_]) -> None:
        """Read the first line that holds anything, which names the columns. Raises PayloadError."""
        found = np.flatnonzero(wanted)
        if not len(found):
            return
        number = int(found[0]) + text.first
        wanted[found[0]] = False
        try:
            cells = tuple(cell.strip() for cell in text.cells(number))
        except csv.Error as e:
            raise PayloadError(RejectCode.MALFORMED, f"line {number} names no columns: {e}") from None
        if len(set(cells)) != len(cells) or "" in cells:
            detail = f"line {number} names a column twice or not at all: {','.join(cells)!s:.120}; set columns, or skip"
            raise PayloadError(RejectCode.MALFORMED, detail)
        self._name(cells)
        self._head = text.line(number)
        self._is_plain_head = all(number_of(cell) is not None for cell in cells)

    def _name(self, names: tuple[str, ...]) -> None:
        """Make sure that all needed columns are there. Raises PayloadError."""
        path = next((name for name in PATH_COLUMNS if name in names), None)
        needed = [self._rule.time, *self._rule.only, *([] if self._device else [self._rule.value])]
        missing = [name for name in needed if name is not None and name not in names]
        if missing or (not self._device and path is None):
            what = ", ".join(missing) or "path (the rule has none, so that a column must name the sensors)"
            detail = f"no column {what}; there are {','.join(names)!s:.120}; is the delimiter {self._dialect.delimiter!r} right?"
            raise PayloadError(RejectCode.MALFORMED, detail)
        self._names = names
        if self._device:
            dialect = self._dialect
            plain = PlainColumns(names, self._rule.time, self._keys(), dialect.delimiter, dialect.decimal)
            formats = self._formats
            self._plain = PlainCsv(formats.origin, formats.groups, plain, self._times, self._settings)

    def _drop_heads(self, text: CsvText, wanted: npt.NDArray[np.bool_]) -> bool:
        """Leave out lines that name the columns again, wherever they are; True."""
        _, starts, _ = text.places
        at = text.data.find(self._head) if self._head else -1
        while at >= 0:
            line = int(np.searchsorted(starts, at, "right")) - 1
            wanted[line] &= starts[line] != at or text.line(line + text.first) != self._head
            at = text.data.find(self._head, at + len(self._head))
        return True

    # --- values --------------------------------------------------------------------------------------

    def _read(
        self,
        text: CsvText,
        wanted: npt.NDArray[np.bool_],
        chunk: LineChunk,
        refusals: _Refusals,
        out: tuple[list[FrameBatch], list[Reject]],
    ) -> None:
        """Add what the lines hold to `out`: plain ones by the scanner, a few where it stops, and more each time, as texts."""
        end, n_others = 0, 1
        is_dropped = self._is_plain_head and self._drop_heads(text, wanted)
        while end < text.n_lines and wanted[end:].any():
            at, end = end, text.n_lines
            group = self._formats.groups.group(self._device, self._settings) if self._plain else None
            if self._plain is not None and group is not None and self._plain.suits(group):
                batch, stop = self._plain.read(text, wanted, at, chunk.arrival_ns, group)
                out[0].extend([] if batch is None else [batch])
                if stop == text.n_lines or text.line(stop + text.first) == self._head:
                    end = stop + 1  # loggers name the columns again after each start
                    continue
                n_others = _OTHERS_FIRST if stop - at > n_others else n_others * _OTHERS_GROW
                at, end = stop, stop + n_others
            is_dropped = is_dropped or self._drop_heads(text, wanted)
            some = wanted.copy()
            some[:at] = some[end:] = False
            self._take(text.split(some, len(self._names)), chunk, refusals, out)

    def _take(
        self,
        cells: CsvCells,
        chunk: LineChunk,
        refusals: _Refusals,
        out: tuple[list[FrameBatch], list[Reject]],
    ) -> None:
        """Add what the cells hold to `out`."""
        keys = self._keys()
        ts_ns = self._read_times(cells, chunk)
        good = ts_ns != NO_TIME
        if not good.all():
            texts = cells.columns[self._names.index(self._rule.time or "")]
            for row in np.flatnonzero(~good).tolist():
                detail = (
                    f"{texts[row].as_py()!r:.60} is not a time: expected a number since 1970 or RFC 3339 text"
                )
                refusals.add(int(cells.lines[row]), RejectCode.BAD_TIME, detail, max(1, len(keys)))
            mask = pa.array(good)
            cells = CsvCells([column.filter(mask) for column in cells.columns], cells.lines[good])
            ts_ns = ts_ns[good]
        if not len(ts_ns):
            return
        ts = pa.array(ts_ns, pa.timestamp("ns", "UTC"))
        tables = self._wide(cells, keys, refusals) if self._device else self._long(cells, refusals)
        for columns, rows in tables:
            some = ts if rows is None else ts.take(rows)
            table = pa.RecordBatch.from_pydict({_TIME_COLUMN: some, **columns})
            batches, rejects = self._reader.read(table, f"{chunk.source}:{int(cells.lines[0])}")
            out[0].extend(batches)
            out[1].extend(replace(reject, arrival_ns=chunk.arrival_ns) for reject in rejects)

    def _keys(self) -> list[str]:
        """The columns that hold values."""
        if not self._device:
            return [self._rule.value]
        return [n for n in self._names if n != self._rule.time and n in (self._rule.only or self._names)]

    def _read_times(self, cells: CsvCells, chunk: LineChunk) -> npt.NDArray[np.int64]:
        if self._rule.time is None:
            return chunk.arrival_ns + cells.lines - chunk.number
        return read_times(cells.columns[self._names.index(self._rule.time)], self._times)

    def _wide(
        self, cells: CsvCells, keys: Sequence[str], refusals: _Refusals
    ) -> list[tuple[dict[str, pa.Array], pa.Array | None]]:
        """Columns of values by key."""
        group = self._formats.groups.group(self._device, self._settings)
        columns: dict[str, pa.Array] = {}
        for key in keys:
            wanted = None
            if key in group.table.index:
                dtype, at = group.table.index[key]
                wanted = WantedCells.of(dtype, group.table.parts[dtype].layout.columns[at])
            elif key in self._settings.types:
                wanted = WantedCells.typed(DTYPE_OF[self._settings.types[key]])
            column = CellColumn(cells.columns[self._names.index(key)], self._dialect.decimal)
            found = column.read(wanted)
            if found.wanted is None:
                continue
            for row in found.bad.tolist():
                detail = f"key {key!r:.60} has {column.why(row, found.wanted)}"
                refusals.add(int(cells.lines[row]), RejectCode.WRONG_TYPE, detail, 1)
            columns[key] = found.values
        return [(columns, None)] if columns else []

    def _long(
        self, cells: CsvCells, refusals: _Refusals
    ) -> list[tuple[dict[str, pa.Array], pa.Array | None]]:
        """Paths and values, a table for each kind of value, so that numbers of one sensor stay numbers beside texts of another."""
        path = next(name for name in PATH_COLUMNS if name in self._names)
        paths = cells.columns[self._names.index(path)]
        column = CellColumn(cells.columns[self._names.index(self._rule.value)], self._dialect.decimal)
        out = []
        for kind, dtype in enumerate(("f64", "u8", "u32"), 1):
            wanted, rows = WantedCells.typed(dtype), np.flatnonzero(column.kind == kind)
            if not len(rows):
                continue
            found = column.read(wanted)
            for row in np.intersect1d(found.bad, rows).tolist():
                detail = f"{paths[row].as_py()!r:.80} has {column.why(row, wanted)}"
                refusals.add(int(cells.lines[row]), RejectCode.WRONG_TYPE, detail, 1)
            at = pa.array(np.setdiff1d(rows, found.bad))
            out.append(({path: paths.take(at), self._rule.value: found.values.take(at)}, at))
        return out


class LineProtocolChunks:
    """Line protocol.

    Parameters
    ----------
    factor : nanoseconds of one unit of the lines' times.
    """

    def __init__(self, decoder: LineDecoder, factor: int) -> None:
        self.head = b""
        self._decoder, self._factor = decoder, factor

    def learn(self, head: bytes) -> None:
        return

    def decode(self, chunk: LineChunk) -> Decoded:
        numbers, at = LineNumbers(chunk.data, chunk.number), 0
        out = Decoded([], [])
        while at < len(chunk.data):
            done = self._decoder.decode(numbers, at, self._factor, chunk.arrival_ns, is_dated=True)
            at = done.end
            out.batches.extend(done.batches)
            out.rejects.extend(_placed(reject, chunk.source) for reject in done.rejects)
        return out

    def again(self, raw: bytes, source: str, arrival_ns: int) -> Decoded:
        done = self._decoder.again(raw, self._factor, arrival_ns)
        return Decoded(done.batches, [replace(reject, source=source) for reject in done.rejects])


def _placed(reject: Reject, source: str) -> Reject:
    """A reject of line protocol, with its line in the source."""
    match = _LINE.match(reject.detail)
    assert match is not None
    return replace(reject, source=f"{source}:{match[1]}", detail=reject.detail[match.end() :])


def is_dated_by_us(decoded: Decoded, chunk: LineChunk, n_lines: int) -> bool:
    """Whether a sample has the time of its chunk: then the chunk must come again as it was, or be another one."""
    first, last = chunk.arrival_ns, chunk.arrival_ns + chunk.number + n_lines
    return any(bool(((b.ts_ns >= first) & (b.ts_ns <= last)).any()) for b in decoded.batches)


def message_of(chunk: LineChunk, at: int, line: bytes) -> TopicMessage:
    """A line as a message; `at` is its place in the chunk."""
    return TopicMessage(f"{chunk.source}:{chunk.number + at}", line, chunk.arrival_ns + at)


def warm_csv() -> None:
    """Compile the kernels of plain CSV, or load them from the cache: some lines are decoded in memory."""
    directory = SensorDirectory()
    formats = LineFormats("warm", directory, DeviceGroups(directory), (), "UTC")
    rule = LineRule(path="warm/{key}", time="ts")
    for times in ("1700000000,1.5\n1700000001,2", "2026-01-01T00:00:00Z,1.5\n2026-01-01T00:00:01Z,2"):
        reader = formats.csv(rule, compile_paths(rule, (), (), False), {})
        reader.decode(LineChunk("warm.csv", f"ts,a\n{times}\n".encode(), 1, 1))
