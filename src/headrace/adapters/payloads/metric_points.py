"""Points of metrics as Prometheus and OpenTelemetry send them: the messages, in plain Python.

A *point* is one value of one series at one time. A series has a name (the measurement, as line protocol calls it), tags
(labels, or the attributes of resource and point) and a field: ``value``, or a part of a histogram or summary (``sum``,
``count``, ``min``, ``max``, ``bucket_0.5`` counted up to that bound, ``quantile_0.99``).

This is the reference: what `headrace.adapters.payloads.metric_scanner` reads, it reads alike, and what that leaves aside
is read here. Field numbers are those of the specifications: prometheus.WriteRequest (remote write 1.0),
io.prometheus.write.v2.Request (2.0), opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest (1.x).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from headrace.adapters.payloads import wire
from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.line_protocol import FLOAT, INTEGER
from headrace.adapters.payloads.wire import WireError, WireField, wrap
from headrace.core.clock import NO_TIME
from headrace.core.events import RejectCode

VALUE = "value"
NAME = b"__name__"
STALE_BITS = 0x7FF0000000000002
"""The float by which Prometheus says that a series is there no more."""
MS = 1_000_000
_NO_VALUE_FLAG = 1
_DEPTH_MAX = 8
_OTHER_KINDS = {10: "an exponential histogram"}
_NUMBERS, _HISTOGRAM, _SUMMARY = (5, 7), 9, 11
_I64_MAX = 2**63 - 1


class MetricName(NamedTuple):
    """What tells a series from others; `tags` are in order."""

    measurement: str
    tags: tuple[tuple[str, str], ...]
    field: str = VALUE


class Symbols(Protocol):
    """The texts of a request of remote write 2 by their numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes: ...


class Point(NamedTuple):
    """One value: FLOAT or INTEGER; `is_stale` where the source says that there is none; `raw` keeps it for a reject."""

    name: MetricName
    unit: str
    kind: int
    value: float
    ts_ns: int
    is_stale: bool
    raw: bytes


class PointRefusal(NamedTuple):
    """`n_points` points that can't be taken."""

    code: RejectCode
    detail: str
    raw: bytes
    n_points: int


def millis(ts_ms: int) -> int:
    """Nanoseconds of milliseconds. Raises PayloadError."""
    ts_ns = ts_ms * MS
    if not NO_TIME < ts_ns < -NO_TIME:
        raise PayloadError(RejectCode.BAD_TIME, f"time {ts_ms} ms is outside the years 1678 to 2262")
    return ts_ns


def unix_nanos(ts_ns: int) -> int:
    """Nanoseconds as OTLP has them, unsigned; 0 is no time. Raises PayloadError."""
    if ts_ns > _I64_MAX:
        raise PayloadError(RejectCode.BAD_TIME, f"time {ts_ns} ns is after the year 2262")
    return ts_ns or NO_TIME


# --- remote write ------------------------------------------------------------------------------------


def name_of_labels(labels: Sequence[tuple[bytes, bytes]]) -> MetricName:
    """The series of labels.

    Raises
    ------
    PayloadError : no ``__name__``, a label twice, or not UTF-8.
    """
    try:
        tags = {name.decode(): value.decode() for name, value in labels}
    except UnicodeDecodeError as e:
        raise PayloadError(RejectCode.MALFORMED, f"labels are not UTF-8: {e}") from None
    if len(tags) != len(labels):
        raise PayloadError(RejectCode.MALFORMED, f"a label is there twice: {', '.join(tags)!s:.120}")
    measurement = tags.pop(NAME.decode(), "")
    if not measurement:
        raise PayloadError(RejectCode.BAD_PATH, f"no label __name__ in {', '.join(tags)!s:.120}")
    return MetricName(measurement, tuple(sorted(tags.items())))


def labels_of(data: bytes, at: int, end: int) -> list[tuple[bytes, bytes]]:
    """Names and values of the label fields at at:end, as a TimeSeries has them. Raises WireError."""
    out = []
    for field in wire.fields(data, at, end):
        if field.number == 1:
            wire.check(field, wire.LENGTH)
            out.append(_label(data, field))
    return out


def _label(data: bytes, field: WireField) -> tuple[bytes, bytes]:
    parts = [b"", b"", b""]
    for part in wire.fields(data, field.start, field.end):
        if part.number in (1, 2):
            wire.check(part, wire.LENGTH)
            parts[part.number] = data[part.start : part.end]
    return parts[1], parts[2]


def write_labels(labels: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Label fields of a TimeSeries."""
    return b"".join(wrap(1, wrap(1, name) + wrap(2, value)) for name, value in labels)


def refs_of(data: bytes, at: int, end: int) -> list[int]:
    """Numbers of the symbols of a TimeSeries of remote write 2. Raises WireError."""
    return [
        ref for field in wire.fields(data, at, end) if field.number == 1 for ref in wire.numbers(data, field)
    ]


def labels_of_refs(refs: Sequence[int], symbols: Symbols) -> list[tuple[bytes, bytes]]:
    """Names and values by numbers of symbols. Raises WireError."""
    if len(refs) % 2 or any(ref >= len(symbols) for ref in refs):
        raise WireError("label references that are no pairs, or beyond the symbols")
    some = [symbols[ref] for ref in refs]
    return list(zip(some[::2], some[1::2], strict=True))


class SeriesReader:
    """Reads the TimeSeries of a body of remote write, of either version.

    Parameters
    ----------
    symbols : of version 2; None for version 1. units : by name of a metric, of version 1.
    """

    def __init__(self, data: bytes, symbols: Symbols | None, units: Mapping[str, str]) -> None:
        self._data = data
        self._symbols = symbols
        self._units = units
        self._histogram, self._exemplar = (4, 3) if symbols is None else (3, 4)

    def read(self, at: int, end: int) -> Iterator[Point | PointRefusal]:
        """The points of the TimeSeries at at:end."""
        data = self._data
        samples: list[WireField] = []
        histograms: list[WireField] = []
        try:
            for field in wire.fields(data, at, end):
                if field.number == 2:
                    wire.check(field, wire.LENGTH)
                    samples.append(field)
                elif field.number == self._histogram:
                    histograms.append(field)
                elif field.number == 1 and self._symbols is None:
                    wire.check(field, wire.LENGTH)
        except WireError as e:
            n = max(1, len(samples) + len(histograms))
            yield PointRefusal(RejectCode.MALFORMED, str(e), wrap(1, data[at:end]), n)
            return
        n = len(samples) + len(histograms)
        if not n:
            return
        labels: list[tuple[bytes, bytes]] = []
        try:
            labels = self.labels(at, end)
            name = name_of_labels(labels)
            unit = self.unit(name, at, end)
        except WireError as e:
            yield PointRefusal(RejectCode.MALFORMED, str(e), self._kept(labels, samples), n)
            return
        except PayloadError as e:
            yield PointRefusal(e.code, e.detail, self._kept(labels, samples), n)
            return
        head = write_labels(labels)
        for sample in samples:
            yield self._point(name, unit, head, sample)
        for field in histograms:
            raw = wrap(1, head + wrap(4, data[field.start : field.end]))
            yield PointRefusal(
                RejectCode.WRONG_TYPE, "a native histogram; only its classic form can be taken", raw, 1
            )

    def _kept(self, labels: Sequence[tuple[bytes, bytes]], samples: Sequence[WireField]) -> bytes:
        rest = b"".join(wrap(2, self._data[one.start : one.end]) for one in samples)
        return wrap(1, write_labels(labels) + rest)

    def labels(self, at: int, end: int) -> list[tuple[bytes, bytes]]:
        """Names and values of the labels of the TimeSeries at at:end. Raises WireError."""
        if self._symbols is None:
            return labels_of(self._data, at, end)
        return labels_of_refs(refs_of(self._data, at, end), self._symbols)

    def unit(self, name: MetricName, at: int, end: int) -> str:
        """The unit of the series at at:end, where it is told. Raises WireError."""
        if self._symbols is None:
            return self._units.get(name.measurement, "")
        for field in wire.fields(self._data, at, end):
            if field.number == 5 and field.kind == wire.LENGTH:
                for part in wire.fields(self._data, field.start, field.end):
                    if part.number == 4 and 0 < part.bits < len(self._symbols):
                        return self._symbols[part.bits].decode("utf-8", "replace")
        return ""

    def _point(self, name: MetricName, unit: str, head: bytes, field: WireField) -> Point | PointRefusal:
        raw = wrap(1, head + wrap(2, self._data[field.start : field.end]))
        bits = ts_ms = 0
        try:
            for part in wire.fields(self._data, field.start, field.end):
                if part.number == 1:
                    wire.check(part, wire.FIXED64)
                    bits = part.bits
                elif part.number == 2:
                    wire.check(part, wire.VARINT)
                    ts_ms = part.signed
            ts_ns = millis(ts_ms)
        except WireError as e:
            return PointRefusal(RejectCode.MALFORMED, str(e), raw, 1)
        except PayloadError as e:
            return PointRefusal(e.code, e.detail, raw, 1)
        return Point(name, unit, FLOAT, wire.as_double(bits), ts_ns, bits == STALE_BITS, raw)


def unit_of_metadata(data: bytes, at: int, end: int) -> tuple[str, str]:
    """Name and unit of a MetricMetadata; both empty where they can't be read."""
    found = {2: "", 5: ""}
    try:
        for field in wire.fields(data, at, end):
            if field.number in found:
                found[field.number] = wire.text(data, field)
    except (WireError, UnicodeDecodeError):
        return "", ""
    return found[2], found[5]


# --- OTLP --------------------------------------------------------------------------------------------


def _any_value(data: bytes, at: int, end: int, depth: int = 0) -> Any:
    """An AnyValue as JSON has it. Raises WireError, UnicodeDecodeError."""
    value: Any = None
    for field in wire.fields(data, at, end):
        if field.number == 1:
            value = wire.text(data, field)
        elif field.number in (2, 3):
            wire.check(field, wire.VARINT)
            value = bool(field.bits) if field.number == 2 else field.signed
        elif field.number == 4:
            wire.check(field, wire.FIXED64)
            value = field.double
        elif field.number == 7:
            value = data[field.start : field.end].hex()
        elif field.number in (5, 6) and depth < _DEPTH_MAX:
            items = [f for f in wire.fields(data, field.start, field.end) if f.number == 1]
            if field.number == 5:
                value = [_any_value(data, f.start, f.end, depth + 1) for f in items]
            else:
                value = dict(_key_value(data, f, depth + 1) for f in items)
    return value


def _key_value(data: bytes, field: WireField, depth: int = 0) -> tuple[str, Any]:
    wire.check(field, wire.LENGTH)
    key, value = "", None
    for part in wire.fields(data, field.start, field.end):
        if part.number == 1:
            key = wire.text(data, part)
        elif part.number == 2:
            wire.check(part, wire.LENGTH)
            value = _any_value(data, part.start, part.end, depth)
    return key, value


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    return "" if value is None else json.dumps(value)


def attributes_of(data: bytes, at: int, end: int, number: int) -> dict[str, str]:
    """Attributes that the message at at:end has in its field `number`. Raises WireError, UnicodeDecodeError."""
    found = (_key_value(data, field) for field in wire.fields(data, at, end) if field.number == number)
    return {key: _said(value) for key, value in found}


class MetricReader:
    """Reads the Metric messages of a body of OTLP."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._resource: tuple[int, int] = (-1, -1)
        self._tags: dict[str, str] = {}

    def tags(self, resource: tuple[int, int]) -> dict[str, str]:
        """Attributes of the resource that lies there. Raises WireError, UnicodeDecodeError."""
        if resource != self._resource:
            self._tags = attributes_of(self._data, *resource, 1)
            self._resource = resource
        return self._tags

    def head(self, at: int, end: int) -> tuple[str, str]:
        """Name and unit of the Metric at at:end. Raises WireError, UnicodeDecodeError, PayloadError."""
        found = {1: "", 3: ""}
        for field in wire.fields(self._data, at, end):
            if field.number in found:
                found[field.number] = wire.text(self._data, field)
        if not found[1]:
            raise PayloadError(RejectCode.BAD_PATH, "a metric without a name")
        return found[1], found[3]

    def kept(
        self, resource: tuple[int, int], metric: tuple[int, int], point: tuple[int, int], number: int
    ) -> bytes:
        """A request with one data point and what it belongs to."""
        data = self._data
        head = b"".join(
            wrap(field.number, data[field.start : field.end])
            for field in wire.fields(data, *metric)
            if field.number in (1, 3) and field.kind == wire.LENGTH
        )
        one = wrap(number, wrap(1, data[slice(*point)]))
        return self._request(resource, head + one)

    def _request(self, resource: tuple[int, int], metric: bytes) -> bytes:
        return wrap(1, wrap(1, self._data[slice(*resource)]) + wrap(2, wrap(2, metric)))

    def read(self, resource: tuple[int, int], metric: tuple[int, int]) -> Iterator[Point | PointRefusal]:
        """The points of a Metric."""
        data, n_points = self._data, 0
        try:
            tags = self.tags(resource)
            name, unit = self.head(*metric)
            lists = [f for f in wire.fields(data, *metric) if f.number in (*_NUMBERS, 9, 10, 11)]
            points = []
            for field in lists:
                wire.check(field, wire.LENGTH)
                found = [f for f in wire.fields(data, field.start, field.end) if f.number == 1]
                points += [(field.number, one) for one in found]
            n_points = len(points)
            for _, one in points:
                wire.check(one, wire.LENGTH)
        except (WireError, UnicodeDecodeError) as e:
            raw = self._request(resource, data[slice(*metric)])
            yield PointRefusal(RejectCode.MALFORMED, str(e), raw, max(1, n_points))
            return
        except PayloadError as e:
            n_points = _count(data, metric)
            yield PointRefusal(
                e.code, e.detail, self._request(resource, data[slice(*metric)]), max(1, n_points)
            )
            return
        for number, one in points:
            raw = self.kept(resource, metric, (one.start, one.end), number)
            try:
                yield from self._points(name, unit, tags, number, one, raw)
            except (WireError, UnicodeDecodeError) as e:
                yield PointRefusal(RejectCode.MALFORMED, str(e), raw, 1)
            except PayloadError as e:
                yield PointRefusal(e.code, e.detail, raw, 1)

    def _points(
        self, name: str, unit: str, tags: Mapping[str, str], number: int, one: WireField, raw: bytes
    ) -> list[Point]:
        if number in _OTHER_KINDS:
            raise PayloadError(
                RejectCode.WRONG_TYPE, f"{_OTHER_KINDS[number]}; send explicit buckets instead"
            )
        found = list(wire.fields(self._data, one.start, one.end))
        attributes = 9 if number == _HISTOGRAM else 7
        own = {
            key: _said(value)
            for key, value in (_key_value(self._data, f) for f in found if f.number == attributes)
        }
        all_tags = tuple(sorted({**tags, **own}.items()))
        by_number = {f.number: f for f in found}
        ts_ns = unix_nanos(by_number[3].bits) if 3 in by_number else NO_TIME
        flag = by_number.get(10 if number == _HISTOGRAM else 8)
        is_stale = flag is not None and bool(flag.bits & _NO_VALUE_FLAG)
        if number in _NUMBERS:
            values = [_number(found, is_stale)]
        elif number == _HISTOGRAM:
            values = _histogram(self._data, found, is_stale)
        else:
            values = _summary(self._data, found, is_stale)
        return [
            Point(
                MetricName(name, all_tags, field),
                unit if field != "count" else "",
                kind,
                value,
                ts_ns,
                is_stale,
                raw,
            )
            for field, kind, value in values
        ]


def _count(data: bytes, metric: tuple[int, int]) -> int:
    """Data points of a Metric that is well-formed so far."""
    lists = [
        f for f in wire.fields(data, *metric) if f.number in (*_NUMBERS, 9, 10, 11) and f.kind == wire.LENGTH
    ]
    try:
        return sum(f.number == 1 for one in lists for f in wire.fields(data, one.start, one.end))
    except WireError:
        return 1


_Part = tuple[str, int, float]


def _number(found: Sequence[WireField], is_stale: bool) -> _Part:
    for field in reversed(found):  # of a choice the last counts
        if field.number in (4, 6):
            wire.check(field, wire.FIXED64)
            return (VALUE, FLOAT, field.double) if field.number == 4 else (VALUE, INTEGER, field.signed)
    if is_stale:
        return VALUE, FLOAT, wire.as_double(STALE_BITS)
    raise PayloadError(RejectCode.MALFORMED, "a data point without a value")


def _counted(bits: int) -> int:
    if bits > _I64_MAX:
        raise PayloadError(RejectCode.WRONG_TYPE, f"a count of {bits:,}, expected less than 2^63")
    return bits


def _histogram(data: bytes, found: Sequence[WireField], is_stale: bool) -> list[_Part]:
    """Count, sum, extremes, and how many were at most each bound."""
    counts: list[int] = []
    bounds: list[float] = []
    out: list[_Part] = [("count", INTEGER, 0)]
    for field in found:
        if field.number == 4:
            wire.check(field, wire.FIXED64)
            out[0] = "count", INTEGER, _counted(field.bits)
        elif field.number in (5, 11, 12):
            wire.check(field, wire.FIXED64)
            out.append(({5: "sum", 11: "min", 12: "max"}[field.number], FLOAT, field.double))
        elif field.number == 6:
            counts += [_counted(bits) for bits in wire.fixed(data, field)]
        elif field.number == 7:
            bounds += [wire.as_double(bits) for bits in wire.fixed(data, field)]
    if is_stale:
        return [("count", INTEGER, 0)]
    if counts and len(counts) != len(bounds) + 1:
        detail = f"{len(counts)} buckets for {len(bounds)} bounds, expected one more than bounds"
        raise PayloadError(RejectCode.MALFORMED, detail)
    total = 0
    for bound, n in zip([*bounds, float("inf")], counts, strict=False):
        total += n
        out.append((f"bucket_{bound:.12g}", INTEGER, _counted(total)))
    return out


def _summary(data: bytes, found: Sequence[WireField], is_stale: bool) -> list[_Part]:
    """Count, sum and quantiles."""
    count: _Part = "count", INTEGER, 0
    total: _Part = "sum", FLOAT, 0.0
    out: list[_Part] = []
    for field in found:
        if field.number in (4, 5):
            wire.check(field, wire.FIXED64)
            if field.number == 4:
                count = "count", INTEGER, _counted(field.bits)
            else:
                total = "sum", FLOAT, field.double
        elif field.number == 6:
            wire.check(field, wire.LENGTH)
            pair = {1: 0, 2: 0}
            for part in wire.fields(data, field.start, field.end):
                if part.number in pair:
                    wire.check(part, wire.FIXED64)
                    pair[part.number] = part.bits
            out.append((f"quantile_{wire.as_double(pair[1]):.12g}", FLOAT, wire.as_double(pair[2])))
    return [("count", INTEGER, 0)] if is_stale else [count, total, *out]
