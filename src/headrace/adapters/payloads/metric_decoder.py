"""Remote write and OTLP → frame batches and rejects, some ten thousand points at a time.

The scanner reads the points; names that it does not know are looked up here, once for each series, and it knows them
from the next request on. Points of one device and time become one frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads import metric_scanner as scanner
from headrace.adapters.payloads import wire
from headrace.adapters.payloads.base import PayloadError, RuleSettings
from headrace.adapters.payloads.density import by_width
from headrace.adapters.payloads.keys import EXACT_MAX, DeviceGroups
from headrace.adapters.payloads.metric_points import (
    MetricName,
    MetricReader,
    Point,
    PointRefusal,
    SeriesReader,
    attributes_of,
    name_of_labels,
    unit_of_metadata,
    write_labels,
)
from headrace.adapters.payloads.metric_scanner import FLOAT, INTEGER, ODD, MetricTables, PointColumns
from headrace.adapters.payloads.metric_series import KEY_BYTES_MAX, N_SYMBOLS_MAX, PARTS, MetricSeries
from headrace.adapters.payloads.tag_paths import TagPath
from headrace.adapters.payloads.wire import WireError, wrap
from headrace.core.clock import NO_TIME
from headrace.core.events import MAX_RAW_BYTES, PACKED_RAW_BYTES, Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory

I64 = npt.NDArray[np.int64]
N_POINTS = 16_384
"""Points of a slice."""
N_FRAMES = 8_192
"""Series or metrics of a slice."""
N_NEW_MAX = 256
"""New names of a slice: each takes some 100 us of CPU, most of it to make its sensor known."""
N_FRAMES_MAX = 1_000_000
FRAME_BYTES_MAX = 1_000_000
_N_UNITS_MAX = 100_000


class MetricForm(StrEnum):
    """How metrics are written."""

    WRITE_1 = "remote write 1"
    WRITE_2 = "remote write 2"
    OTLP = "OTLP"


@dataclass(frozen=True, slots=True)
class DecodedPoints:
    """What became of a slice of points; `n_refused` series or metrics are not whole, `first` says why."""

    batches: list[FrameBatch]
    rejects: list[Reject]
    n_refused: int
    first: str


class _Texts:
    """Texts of a body by their places; one is made when it is asked for."""

    def __init__(self, data: bytes, places: I64) -> None:
        self._data, self._places = data, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int, /) -> bytes:
        start, end = self._places[index].tolist()
        return self._data[start:end]


@dataclass(frozen=True, eq=False)
class _Body:
    """A body and where its series or metrics lie; `symbols` of remote write 2."""

    data: bytes
    form: MetricForm
    frames: I64
    symbols: _Texts | None
    places: I64


Scan = Callable[[npt.NDArray[np.uint8], _Body, int, int, MetricTables, PointColumns], tuple[int, int]]


def scan(
    data: npt.NDArray[np.uint8],
    body: _Body,
    first: int,
    last: int,
    tables: MetricTables,
    columns: PointColumns,
) -> tuple[int, int]:
    """Read the frames first:last: rows, and the first frame that found no room any more."""
    if body.form is MetricForm.OTLP:
        return scanner.scan_metrics(data, body.frames, first, last, tables, columns)
    has_symbols = body.symbols is not None
    return scanner.scan_series(data, body.frames, first, last, has_symbols, tables, columns)


class MetricDecoder:
    """Decodes metrics for one adapter instance.

    Parameters
    ----------
    origin : the adapter's name. naming : paths of devices. settings : types, units, bounds of devices.
    scan : the scanner; tests put another in its place.
    """

    def __init__(
        self,
        origin: str,
        directory: SensorDirectory,
        groups: DeviceGroups,
        naming: TagPath,
        settings: RuleSettings,
        scan: Scan = scan,
    ) -> None:
        self._origin = origin
        self._directory = directory
        self._series = MetricSeries(groups, naming, settings)
        self._scan = scan
        self._columns = _columns(N_POINTS)
        self._units: dict[str, str] = {}

    def slices(self, data: bytes, form: MetricForm, arrival_ns: int) -> Iterator[DecodedPoints]:
        """Decode a body, a slice at a time.

        Raises
        ------
        PayloadError : before the first slice; it is no such message, or has too many series.
        """
        self._series.make_room()
        body = self._body(data, form)
        return self._slices(body, arrival_ns)

    def again(self, data: bytes, form: MetricForm, arrival_ns: int) -> DecodedPoints:
        """Decode what a reject has kept; points without a time get that of their arrival then."""
        try:
            parts = list(self.slices(data, form, arrival_ns))
        except PayloadError as e:
            reject = Reject(e.code, self._origin, _SAID[form][0], e.detail, data, arrival_ns)
            return DecodedPoints([], [reject], 1, e.detail)
        batches = [_timed(batch, arrival_ns) for part in parts for batch in part.batches]
        return DecodedPoints(batches, [one for part in parts for one in part.rejects], 0, "")

    # --- frames --------------------------------------------------------------------------------------

    def _body(self, data: bytes, form: MetricForm) -> _Body:
        bits = np.frombuffer(data, np.uint8)
        none = np.empty((0, 2), np.int64)
        if form is MetricForm.WRITE_1:
            self._learn_units(data, _listed(bits, 3, N_FRAMES_MAX, "metadata"))
            return _Body(data, form, _listed(bits, 1, N_FRAMES_MAX, "series"), None, none)
        if form is MetricForm.WRITE_2:
            places = _listed(bits, 4, N_SYMBOLS_MAX, "symbols")
            frames = _listed(bits, 5, N_FRAMES_MAX, "series")
            return _Body(data, form, frames, _Texts(data, places), places)
        lists = _listed(bits, 1, N_FRAMES_MAX, "resources")
        frames = _grown(
            lambda out: scanner.list_metrics(bits, lists, len(lists), out), 4, N_FRAMES_MAX, "metrics"
        )
        return _Body(data, form, frames, None, none)

    def _learn_units(self, data: bytes, places: I64) -> None:
        for start, end in places.tolist():
            name, unit = unit_of_metadata(data, start, end)
            if unit and len(self._units) < _N_UNITS_MAX:
                self._units[name] = unit

    def _slices(self, body: _Body, arrival_ns: int) -> Iterator[DecodedPoints]:
        bits = np.frombuffer(body.data, np.uint8)
        symbols = np.full(len(body.places), -1, np.int64)
        at = 0
        while at < len(body.frames):
            tables = self._series.tables(symbols)
            if at == 0:
                scanner.number_symbols(bits, body.places, len(symbols), tables)
            n, at = self._scan(bits, body, at, min(at + N_FRAMES, len(body.frames)), tables, self._columns)
            n, at = self._cut(n, at)
            yield _Slice(self, body, symbols, arrival_ns).decoded(n)

    def _cut(self, n: int, at: int) -> tuple[int, int]:
        """Fewer rows, and where the next slice begins, where many of them are new or unusual."""
        new = np.flatnonzero(self._columns.series[:n] < 0)
        frame = self._columns.frame
        if len(new) > N_NEW_MAX and frame[new[N_NEW_MAX]] > frame[0]:
            at = int(frame[new[N_NEW_MAX]])
            n = int(np.searchsorted(frame[:n], at))
        return n, at


class _Rows(NamedTuple):
    """Points on their way to batches; `row` is their row of the scanner's columns, below 0 the reference's."""

    series: I64
    kind: I64
    ts_ns: I64
    bits: I64
    mark: npt.NDArray[np.uint8]
    row: npt.NDArray[np.intp]

    @classmethod
    def of(cls, columns: PointColumns, n: int) -> _Rows:
        """The first `n` rows of the scanner."""
        c = columns
        return cls(
            c.series[:n].copy(), c.kind[:n].copy(), c.ts_ns[:n].copy(), c.bits[:n].copy(), c.mark[:n].copy(),
            np.arange(n),
        )  # fmt: skip

    def take(self, at: npt.NDArray[np.intp]) -> _Rows:
        """The rows at `at`."""
        if len(at) == len(self.series):
            return self
        return _Rows(
            self.series[at], self.kind[at], self.ts_ns[at], self.bits[at], self.mark[at], self.row[at]
        )

    def and_more(self, more: _Rows) -> _Rows:
        """These rows, and more behind them."""
        return _Rows(
            np.concatenate([self.series, more.series]), np.concatenate([self.kind, more.kind]),
            np.concatenate([self.ts_ns, more.ts_ns]), np.concatenate([self.bits, more.bits]),
            np.concatenate([self.mark, more.mark]), np.concatenate([self.row, more.row]),
        )  # fmt: skip


class _Slice:
    """The points of one slice: names that are new, what is refused, and the batches."""

    def __init__(self, decoder: MetricDecoder, body: _Body, symbols: I64, arrival_ns: int) -> None:
        self._series, self._directory = decoder._series, decoder._directory
        self._origin, self._columns = decoder._origin, decoder._columns
        self._body, self._symbols = body, symbols
        self._packer = _Packer(decoder._origin, body.form, arrival_ns)
        self._arrival_ns = arrival_ns
        self._series_reader = SeriesReader(body.data, body.symbols, decoder._units)
        self._metric_reader = MetricReader(body.data)
        self._more: list[tuple[int, int, Point]] = []

    def decoded(self, n: int) -> DecodedPoints:
        """What becomes of the first `n` rows."""
        rows = _Rows.of(self._columns, n)
        for number in np.flatnonzero(rows.kind == ODD).tolist():
            self._read(int(self._columns.frame[number]))
        self._name(rows)
        rows = rows.take(np.flatnonzero(rows.series >= 0))
        if self._more:
            rows = rows.and_more(self._more_rows())
        batches: list[FrameBatch] = []
        target = self._series.targets(rows.series)
        for part in range(len(PARTS)):
            values, mine = self._values(part, rows.take(np.flatnonzero((target & 0xFF) == part)))
            if len(values):
                batches += self._batches(part, values, mine)
        self._packer.close()
        batches = [batch.with_(arrival_ns=self._arrival_ns) for batch in batches]
        return DecodedPoints(batches, self._packer.rejects, len(self._packer.frames), self._packer.first)

    # --- names ---------------------------------------------------------------------------------------

    def _name(self, rows: _Rows) -> None:
        """Look up the series of rows that the scanner does not know."""
        c = self._columns
        before: tuple[int, int, int] | None = None
        found = -1
        for row in np.flatnonzero((rows.series < 0) & (rows.kind != ODD)).tolist():
            key = int(c.frame[row]), int(c.key_at[row]), int(rows.kind[row])
            if key != before:
                before, found = key, -1
                try:
                    found = self._resolve(*key, int(c.key_end[row]))
                except PayloadError as e:
                    refusal = e
            rows.series[row] = found
            if found < 0:
                self._packer.refuse(key[0], PointRefusal(refusal.code, refusal.detail, self._kept(row), 1))

    def _resolve(self, frame: int, key_at: int, kind: int, key_end: int) -> int:
        """The series of a row; the scanner knows it from now on. Raises PayloadError."""
        try:
            if self._body.form is MetricForm.OTLP:
                return self._resolve_point(frame, key_at, key_end, kind)
            return self._resolve_labels(frame, key_at, key_end)
        except (WireError, UnicodeDecodeError) as e:
            raise PayloadError(RejectCode.MALFORMED, str(e)) from None

    def _resolve_labels(self, frame: int, key_at: int, key_end: int) -> int:
        start, end = self._body.frames[frame, :2].tolist()
        reader = self._series_reader
        name = name_of_labels(reader.labels(start, end))
        number = self._series.series(name, FLOAT, reader.unit(name, start, end))
        data, symbols = self._body.data, self._body.symbols
        if symbols is None:
            if key_end - key_at <= KEY_BYTES_MAX:
                self._series.learn(scanner.LABELS, data[key_at:key_end], number)
            return number
        refs = list(_packed(data, key_at, key_end))
        if 4 * len(refs) <= KEY_BYTES_MAX:
            ours = [self._series.symbol(symbols[ref]) for ref in refs]
            self._symbols[refs] = ours
            self._series.learn(scanner.REFS, np.array(ours, "<u4").tobytes(), number)
        return number

    def _resolve_point(self, frame: int, key_at: int, key_end: int, kind: int) -> int:
        data, reader = self._body.data, self._metric_reader
        start, end, resource, resource_end = self._body.frames[frame].tolist()
        tags = reader.tags((resource, resource_end))
        measurement, unit = reader.head(start, end)
        own = attributes_of(data, key_at, key_end, 7)
        name = MetricName(measurement, tuple(sorted({**tags, **own}.items())))
        number = self._series.series(name, kind, unit)
        head = data[start : _head_end(data, start, end)]
        if max(resource_end - resource, len(head), key_end - key_at) <= KEY_BYTES_MAX:
            owner = self._series.learn(scanner.RESOURCE, data[resource:resource_end])
            metric = self._series.learn(owner, head)
            self._series.learn(metric * 2 + kind, data[key_at:key_end], number)
        return number

    # --- what is read by the reference ---------------------------------------------------------------

    def _read(self, frame: int) -> None:
        """Read a series or metric in which something is unusual."""
        start, end, *resource = self._body.frames[frame].tolist()
        if end - start > FRAME_BYTES_MAX:
            detail = f"{end - start:,} bytes, expected at most {FRAME_BYTES_MAX:,}; send it in parts"
            raw = wrap(1, self._body.data[start:end])[:MAX_RAW_BYTES]
            self._packer.refuse(frame, PointRefusal(RejectCode.TOO_LARGE, detail, raw, 1))
            return
        found: Iterator[Point | PointRefusal]
        if self._body.form is MetricForm.OTLP:
            found = self._metric_reader.read((resource[0], resource[1]), (start, end))
        else:
            found = self._series_reader.read(start, end)
        for one in found:
            if isinstance(one, PointRefusal):
                self._packer.refuse(frame, one)
                continue
            try:
                self._more.append((frame, self._series.series(one.name, one.kind, one.unit), one))
            except PayloadError as e:
                self._packer.refuse(frame, PointRefusal(e.code, e.detail, one.raw, 1))

    def _more_rows(self) -> _Rows:
        points = [point for _, _, point in self._more]
        bits = np.zeros(len(points), np.int64)
        for number, point in enumerate(points):
            bits[number] = np.float64(point.value).view(np.int64) if point.kind == FLOAT else point.value
        return _Rows(
            np.array([series for _, series, _ in self._more], np.int64),
            np.array([point.kind for point in points], np.int64),
            np.array([point.ts_ns for point in points], np.int64),
            bits,
            np.array([point.is_stale for point in points], np.uint8),
            -1 - np.arange(len(points)),
        )

    # --- values and frames ---------------------------------------------------------------------------

    def _values(self, part: int, rows: _Rows) -> tuple[npt.NDArray[Any], _Rows]:
        """Values of the rows of one part, those that it can hold."""
        if part == INTEGER:
            return rows.bits, rows
        values = rows.bits.view(np.float64)
        whole = rows.kind == INTEGER
        if not whole.any():
            return values, rows
        values = np.where(whole, rows.bits.astype(np.float64), values)
        bad = whole & ((rows.bits > EXACT_MAX) | (rows.bits < -EXACT_MAX))
        for number in np.flatnonzero(bad).tolist():
            value = int(rows.bits[number])
            detail = f"{value} can't be held exactly by a 64-bit float; declare it as i64 under types"
            self._refuse_value(int(rows.row[number]), detail)
        return values[~bad], rows.take(np.flatnonzero(~bad))

    def _refuse_value(self, row: int, detail: str) -> None:
        if row >= 0:
            frame, raw = int(self._columns.frame[row]), self._kept(row)
        else:
            frame, _, point = self._more[-1 - row]
            raw = point.raw
        self._packer.refuse(frame, PointRefusal(RejectCode.WRONG_TYPE, detail, raw, 1))

    def _kept(self, row: int) -> bytes:
        """A request with nothing but one row."""
        c, data = self._columns, self._body.data
        start, end, *resource = self._body.frames[int(c.frame[row])].tolist()
        at, after = int(c.at[row]), int(c.end[row])
        if self._body.form is MetricForm.OTLP:
            number = next(f.number for f in wire.fields(data, start, end) if f.start <= at and after <= f.end)
            return self._metric_reader.kept((resource[0], resource[1]), (start, end), (at, after), number)
        try:
            head = write_labels(self._series_reader.labels(start, end))
        except WireError:
            head = b""
        return wrap(1, head + wrap(2, data[at:after]))

    def _batches(self, part: int, values: npt.NDArray[Any], rows: _Rows) -> list[FrameBatch]:
        """Frames of points: one for each device and time."""
        slot, ts_ns = self._series.slots(rows.series, part), rows.ts_ns
        quality = _quality(values, rows.mark)
        width = self._directory.width[slot]
        if (width == 1).all():
            marks = None if quality is None else quality.reshape(-1, 1)
            return [FrameBatch.dense(slot, ts_ns, values.reshape(-1, 1), marks, origin=self._origin)]
        column = (self._series.targets(rows.series) >> scanner.PART_BITS).astype(np.uint16)
        order = np.lexsort((column, ts_ns, slot))
        slot, ts_ns, column, values = slot[order], ts_ns[order], column[order], values[order]
        begins = np.ones(len(slot), np.bool_)
        begins[1:] = (slot[1:] != slot[:-1]) | (ts_ns[1:] != ts_ns[:-1]) | (column[1:] == column[:-1])
        first = np.flatnonzero(begins)
        start = np.append(first, len(slot))
        marks = None if quality is None else quality[order]
        frames = FrameBatch.sparse(
            slot[first], ts_ns[first], values, start, column, quality=marks, origin=self._origin
        )
        return by_width(frames, self._directory)


def _quality(values: npt.NDArray[Any], mark: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """Quality of values; None where all are good. A stale one says that its source could not be asked any more."""
    stale = mark.astype(np.bool_)
    bad = stale if values.dtype.kind == "i" else stale | ~np.isfinite(values)
    if not bad.any():
        return None
    quality = bad * np.uint8(Quality.BAD_NOT_FINITE)
    quality[stale] = Quality.BAD_COMMUNICATION
    return quality


def _timed(batch: FrameBatch, arrival_ns: int) -> FrameBatch:
    return batch.with_(ts_ns=np.where(batch.ts_ns == NO_TIME, arrival_ns, batch.ts_ns))


def _packed(data: bytes, at: int, end: int) -> Iterator[int]:
    """Variable numbers one behind the other. Raises WireError."""
    return wire.numbers(data, wire.WireField(1, wire.LENGTH, 0, at, end))


def _head_end(data: bytes, start: int, end: int) -> int:
    """Where what a Metric says of itself ends and its data begin."""
    return max(
        (f.end for f in takewhile(lambda f: f.number <= 3, wire.fields(data, start, end))), default=start
    )


def _listed(data: npt.NDArray[np.uint8], wanted: int, n_max: int, what: str) -> I64:
    return _grown(lambda out: scanner.list_fields(data, wanted, out), 2, n_max, what)


def _grown(fill: Callable[[I64], int], n_columns: int, n_max: int, what: str) -> I64:
    """Rows that a kernel lists, with room for as many as there are.

    Raises
    ------
    PayloadError : malformed, or too-large where there are more than `n_max`.
    """
    room = 1_024
    while True:
        out = np.zeros((room, n_columns), np.int64)
        n = fill(out)
        if n >= 0:
            return out[:n]
        if n == scanner.MALFORMED:
            raise PayloadError(
                RejectCode.MALFORMED, f"not a message of this form: its {what} can't be told apart"
            )
        if room >= n_max:
            raise PayloadError(RejectCode.TOO_LARGE, f"more than {n_max:,} {what}; send it in parts")
        room = min(8 * room, n_max)


def _columns(n: int) -> PointColumns:
    def ints() -> I64:
        return np.zeros(n, np.int64)

    return PointColumns(
        ints(), ints(), ints(), ints(), ints(), np.zeros(n, np.uint8), ints(), ints(), ints(), ints()
    )


_SAID = {
    MetricForm.WRITE_1: ("series of remote write", "series"),
    MetricForm.WRITE_2: ("series of remote write", "series"),
    MetricForm.OTLP: ("points of OTLP", "metric"),
}


class _Packer:
    """Makes rejects of refused points: those that follow each other with the same code share one, below 4 KiB if they can."""

    def __init__(self, origin: str, form: MetricForm, arrival_ns: int) -> None:
        self.rejects: list[Reject] = []
        self.frames: set[int] = set()
        self.first = ""
        self._origin, self._arrival_ns = origin, arrival_ns
        self._source, self._what = _SAID[form]
        self._code: RejectCode | None = None
        self._detail, self._raw, self._n_points = "", b"", 0

    def refuse(self, frame: int, one: PointRefusal) -> None:
        """Take points of a frame that can't be taken."""
        raw = one.raw[:MAX_RAW_BYTES]
        if one.code is not self._code or len(self._raw) + len(raw) >= PACKED_RAW_BYTES:
            self.close()
            self._code, self._detail = one.code, f"{self._what} {frame + 1}: {one.detail}"
        self._raw += raw
        self._n_points += one.n_points
        self.frames.add(frame)
        self.first = self.first or self._detail

    def close(self) -> None:
        """Make the reject of what has none yet."""
        if self._code is not None:
            self.rejects.append(
                Reject(
                    self._code,
                    self._origin,
                    self._source,
                    self._detail,
                    self._raw,
                    self._arrival_ns,
                    self._n_points,
                )
            )
        self._code, self._raw, self._n_points = None, b"", 0


def warm_metrics() -> None:
    """Compile the scanner, or load it from the cache: two requests of each form are decoded in memory."""
    directory, rule = SensorDirectory(), RuleSettings(path="{device}/{key}")
    decoder = MetricDecoder("warm", directory, DeviceGroups(directory), TagPath("{host}/{measurement}"), rule)
    sample = wrap(2, b"\x09" + bytes(8) + b"\x10\x01")
    one = wrap(1, write_labels([(b"__name__", b"m"), (b"host", b"h")]) + sample)
    two = b"".join(wrap(4, text) for text in (b"", b"__name__", b"m")) + wrap(
        5, wrap(1, b"\x01\x02") + sample
    )
    point = wrap(1, b"\x19" + bytes(8) + b"\x21" + bytes(8))
    three = wrap(1, wrap(1, b"") + wrap(2, wrap(2, wrap(1, b"m") + wrap(5, point))))
    for form, body in zip(MetricForm, (one, two, three), strict=True):
        for _ in range(2):
            for _ in decoder.slices(body, form, 1):
                pass
