"""What a body holds, by its content type and parameters, and its decoding slice by slice.

A reject's source says how its lines or its document are written, as in ``lines of line protocol, precision=ms`` and
``line 7 of JSON, precision=auto``: with its bytes that is all it takes to decode it again. Refused points of metrics are
kept as a request of their own with nothing else in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import cast

from headrace.adapters.base import Pushed
from headrace.adapters.payloads.base import PayloadError, TimeUnit
from headrace.adapters.payloads.json_lines import DOCUMENT_BYTES_MAX, JsonLinesDecoder
from headrace.adapters.payloads.line_decoder import SLICE_BYTES, LineDecoder, LineNumbers
from headrace.adapters.payloads.line_protocol import FACTORS
from headrace.adapters.payloads.metric_decoder import MetricDecoder, MetricForm
from headrace.adapters.payloads.otlp_json import wire_of_json
from headrace.adapters.payloads.times import TimeReader
from headrace.core.errors import Rejected
from headrace.core.events import MAX_RAW_BYTES, Reject
from headrace.core.frames import FrameBatch


class PushFormat(StrEnum):
    """How a body is written."""

    LINES = "line protocol"
    JSON = "one JSON document"
    JSON_LINES = "JSON documents, one a line"
    WRITE_1 = "remote write 1"
    WRITE_2 = "remote write 2"
    OTLP = "OTLP"
    OTLP_JSON = "OTLP as JSON"


_JSON_LINES = {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/json-lines"}
_LINES = {
    "",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "application/vnd.influx.line-protocol",
}
_PROTOBUF = "application/x-protobuf"
_WRITE_2 = "io.prometheus.write.v2.request"
_METRICS = {
    PushFormat.WRITE_1: MetricForm.WRITE_1,
    PushFormat.WRITE_2: MetricForm.WRITE_2,
    PushFormat.OTLP: MetricForm.OTLP,
    PushFormat.OTLP_JSON: MetricForm.OTLP,
}
_KEPT_METRICS = {"series of remote write": MetricForm.WRITE_1, "points of OTLP": MetricForm.OTLP}
OTLP = "otlp"
"""Parameter ``form`` of a body of OTLP, whose content types say nothing of it."""
_LINES_MAX = 1_000
_UNITS = {"n": "ns", "u": "us", "": "auto"}
WHOLE = "request"
"""The source of a reject of a whole request."""
_KEPT_LINES = re.compile(r"lines of line protocol, precision=(ns?|us?|ms|s|m|h)")
_KEPT_JSON = re.compile(r"line \d+ of JSON, precision=(auto|ns|us|ms|s)")


@dataclass(slots=True)
class Slice:
    """Batches and rejects of one part of a body; `n_refused` lines or documents are not whole, `first` says why."""

    batches: list[FrameBatch]
    rejects: list[Reject]
    n_refused: int
    first: str


def format_of(pushed: Pushed) -> PushFormat:
    """How the body is written.

    Raises
    ------
    Rejected : in no way that is known here.
    """
    kind, *rest = (part.strip().lower() for part in pushed.content_type.split(";"))
    if pushed.parameters.get("form") == OTLP:
        if kind not in (_PROTOBUF, "application/json"):
            raise Rejected(f"content type {kind[:80]!r} is not OTLP: {_PROTOBUF} or application/json")
        return PushFormat.OTLP if kind == _PROTOBUF else PushFormat.OTLP_JSON
    if kind == _PROTOBUF:
        return PushFormat.WRITE_2 if f"proto={_WRITE_2}" in rest else PushFormat.WRITE_1
    if kind in _JSON_LINES:
        return PushFormat.JSON_LINES
    if kind == "application/json":
        return PushFormat.JSON
    if kind in _LINES or kind.startswith("text/"):
        return PushFormat.LINES
    raise Rejected(
        f"content type {kind[:80]!r} is not known; send text/plain (line protocol), application/x-ndjson, "
        f"application/json or {_PROTOBUF}"
    )


def precision_of(pushed: Pushed) -> str:
    """The unit of times given as numbers: ns, us, ms, s, m, h; empty where the request does not say.

    Raises
    ------
    Rejected : none of them.
    """
    text = pushed.parameters.get("precision", "")
    if text not in FACTORS:
        raise Rejected(f"precision {text[:20]!r} is not known; it is one of ns, us, ms, s, m, h")
    return text


class BodyDecoder:
    """Decodes bodies of one adapter instance.

    Parameters
    ----------
    timezone : of JSON times without offset.
    """

    def __init__(
        self, lines: LineDecoder, json: JsonLinesDecoder, metrics: MetricDecoder, timezone: str
    ) -> None:
        self._lines = lines
        self._json = json
        self._metrics = metrics
        self._timezone = timezone

    def slices(self, pushed: Pushed) -> Iterator[Slice]:
        """Decode a body, a few hundred kilobytes at a time, so that the event loop can do other things between.

        Raises
        ------
        Rejected : before the first slice; format or precision are not known, a JSON document is too large.
        """
        kind, precision = format_of(pushed), precision_of(pushed)
        if kind in _METRICS:
            return self._metric_slices(pushed, kind)
        if kind is PushFormat.LINES:
            return self._line_slices(pushed, precision or "ns")
        unit = _UNITS.get(precision, precision)
        if unit in ("m", "h"):
            raise Rejected(
                f"precision {precision!r} is for line protocol; write JSON times in s, ms, us or ns"
            )
        times = TimeReader(cast(TimeUnit, unit), self._timezone)
        if kind is PushFormat.JSON and len(pushed.body) > DOCUMENT_BYTES_MAX:
            raise Rejected(
                f"a JSON document of {len(pushed.body):,} bytes, expected at most {DOCUMENT_BYTES_MAX:,}; send an "
                f"object a line as application/x-ndjson"
            )
        parts = iter([(1, [pushed.body])]) if kind is PushFormat.JSON else _documents(pushed.body)
        return self._json_slices(pushed, parts, times, unit)

    def again(self, reject: Reject) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode what a reject has kept of a body; see `Redecodes`."""
        lines, json = _KEPT_LINES.fullmatch(reject.source), _KEPT_JSON.fullmatch(reject.source)
        metrics = _KEPT_METRICS.get(reject.source)
        is_cut = len(reject.raw) >= MAX_RAW_BYTES
        if metrics is not None and not is_cut:
            some = self._metrics.again(reject.raw, metrics, reject.arrival_ns)
            return some.batches, some.rejects
        if lines is not None and not is_cut:
            done = self._lines.again(reject.raw, FACTORS[lines[1]], reject.arrival_ns)
            return done.batches, done.rejects
        if json is not None and not is_cut:
            times = TimeReader(cast(TimeUnit, json[1]), self._timezone)
            return self._json.again(reject.raw, times, reject.arrival_ns)
        return [], [replace(reject, detail=_why_not(reject, is_kept=bool(lines or json or metrics)))]

    def _metric_slices(self, pushed: Pushed, kind: PushFormat) -> Iterator[Slice]:
        try:
            body = wire_of_json(pushed.body) if kind is PushFormat.OTLP_JSON else pushed.body
            parts = self._metrics.slices(body, _METRICS[kind], pushed.arrival_ns)
        except PayloadError as e:
            raise Rejected(e.detail) from e
        return (Slice(one.batches, one.rejects, one.n_refused, one.first) for one in parts)

    def _line_slices(self, pushed: Pushed, precision: str) -> Iterator[Slice]:
        numbers, at, factor = LineNumbers(pushed.body), 0, FACTORS[precision]
        while at < len(pushed.body):
            done = self._lines.decode(numbers, at, factor, pushed.arrival_ns)
            at = done.end
            rejects = _written(done.rejects, f"line protocol, precision={precision}")
            yield Slice(done.batches, rejects, done.n_refused, done.first)

    def _json_slices(
        self, pushed: Pushed, parts: Iterator[tuple[int, list[bytes]]], times: TimeReader, unit: str
    ) -> Iterator[Slice]:
        for number, documents in parts:
            batches, rejects = self._json.decode(documents, times, pushed.arrival_ns, number)
            first = f"{rejects[0].source}: {rejects[0].detail}" if rejects else ""
            n_refused = len({reject.source for reject in rejects})
            yield Slice(batches, _written(rejects, f"JSON, precision={unit}"), n_refused, first)


def _written(rejects: Sequence[Reject], how: str) -> list[Reject]:
    """Rejects whose sources say how they are written."""
    return [replace(reject, source=f"{reject.source} of {how}") for reject in rejects]


def _why_not(reject: Reject, is_kept: bool) -> str:
    """Why a reject can't be decoded again, and what to do."""
    if is_kept:
        why = f"only the first {MAX_RAW_BYTES:,} bytes of it were kept"
    elif reject.source == WHOLE:
        why = "its request was refused as a whole, and no line or document of it was kept"
    else:
        why = f"its source, {reject.source!r:.80}, does not say how it is written"
    return f"{why}; mend what was wrong with it and let its client send it again"


def _documents(body: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Lines of a body, some hundred kilobytes or a thousand at a time, with the number of the first."""
    at, number = 0, 1
    while at < len(body):
        end = body.find(b"\n", min(at + SLICE_BYTES, len(body)))
        end = len(body) if end < 0 else end + 1
        lines = body[at:end].split(b"\n")
        for first in range(0, len(lines), _LINES_MAX):
            yield number + first, lines[first : first + _LINES_MAX]
        number, at = number + len(lines) - 1, end
