"""Forms in which rows leave: JSON, CSV, Arrow and Parquet, each written slice by slice.

An encoder is told the slices in order and gives bytes to send on; it keeps nothing of a slice that it was told.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from headrace.core.paths import format_duration
from headrace.core.quality import word
from headrace.runtime.times import rfc3339
from headrace.store.result import QueryResult

_ROWS_AT_ONCE = 2_000


class RowForm(StrEnum):
    """A form and its media type."""

    JSON = "application/json"
    CSV = "text/csv"
    ARROW = "application/vnd.apache.arrow.stream"
    PARQUET = "application/vnd.apache.parquet"


_ALSO = {
    "application/*": RowForm.JSON, "text/*": RowForm.CSV, "*/*": RowForm.JSON, "application/parquet": RowForm.PARQUET,
    "application/x-parquet": RowForm.PARQUET, "application/arrow": RowForm.ARROW,
}  # fmt: skip


def form_of(accept: str) -> RowForm | None:
    """The form that an ``Accept`` header asks for; None where it takes none that we have."""
    best: tuple[float, RowForm] | None = None
    for part in accept.split(",") if accept.strip() else ["*/*"]:
        kind, *parameters = (word.strip() for word in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        kind = kind.lower()
        known = _ALSO.get(kind) or next((form for form in RowForm if form.value == kind), None)
        if known is not None and weight > 0 and (best is None or weight > best[0]):
            best = weight, known
    return None if best is None else best[1]


@dataclass(slots=True)
class AnswerFacts:
    """What is known of an answer besides its rows; whole when its last slice was read."""

    fresh_to_ns: int
    missing: list[str] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)
    cursor: str | None = None
    resolution_ns: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "fresh_to": rfc3339(self.fresh_to_ns),
            "sources": self.sources,
            "missing": self.missing,
            "resolution": format_duration(self.resolution_ns) if self.resolution_ns else None,
            "notes": self.notes,
            "truncated": self.cursor is not None,
            "cursor": self.cursor,
        }


class Encoder(Protocol):
    """Turns slices into bytes."""

    def rows(self, result: QueryResult) -> bytes:
        """The next slice."""
        ...

    def end(self, facts: AnswerFacts) -> bytes:
        """What comes behind the last one."""
        ...


def encoder_of(form: RowForm, is_whole: bool) -> Encoder:
    """An encoder.

    Parameters
    ----------
    is_whole : whether the first slice is all there is. Only then do integers keep their type in Arrow and
        Parquet: the slices of one answer must have one type, which is float64 where there may be others.
    """
    if form is RowForm.JSON:
        return _JsonRows()
    if form is RowForm.CSV:
        return _CsvRows()
    return _ArrowRows(is_whole) if form is RowForm.ARROW else _ParquetRows(is_whole)


def json_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `QueryResult.to_rows` as JSON has it."""
    row["ts"] = rfc3339(row["ts"])
    if "quality" in row:
        row["quality"] = word(row["quality"])
    if row.get("text", "") is None:
        del row["text"]
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            row[name] = None
    return row


class _JsonRows:
    """One document; rows one after the other, so that half of it is never a whole document."""

    def __init__(self) -> None:
        self._separator = '{"rows":['

    def rows(self, result: QueryResult) -> bytes:
        out: list[str] = []
        for first in range(0, result.n_rows, _ROWS_AT_ONCE):
            some = part_of(result, first, first + _ROWS_AT_ONCE).to_rows(labels=True)
            text = json.dumps([json_row(row) for row in some], separators=(",", ":"), ensure_ascii=False)
            out += [self._separator, text[1:-1]]
            self._separator = ","
        return "".join(out).encode()

    def end(self, facts: AnswerFacts) -> bytes:
        head = self._separator if self._separator != "," else ""
        return f"{head}],{json.dumps(facts.to_dict(), ensure_ascii=False)[1:]}".encode()


class _CsvRows:
    """A header line, then a line a row; times RFC 3339, UTC."""

    def __init__(self) -> None:
        self._is_first = True

    def rows(self, result: QueryResult) -> bytes:
        if result.text is None and "value" in result.columns:  # another slice may have words
            result = replace(result, text=np.full(result.n_rows, None, np.object_))
        data = result.to_csv(labels=True)
        if self._is_first:
            self._is_first = False
            return data
        return data[data.index(b"\n") + 1 :]

    def end(self, facts: AnswerFacts) -> bytes:
        return b""


class _Drained:
    """A file that gives back what was written to it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._n_bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._n_bytes += len(part)
        return len(part)

    def tell(self) -> int:
        return self._n_bytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class _Tables:
    """Slices as Arrow tables of one schema."""

    def __init__(self, is_whole: bool) -> None:
        self._is_whole = is_whole
        self.sink = _Drained()

    def table(self, result: QueryResult) -> Any:
        import pyarrow as pa

        table = result.to_arrow(labels=True)
        columns: Mapping[str, Any] = {name: table[name] for name in table.column_names}
        out: dict[str, Any] = {}
        for name, values in columns.items():
            if name == "path":
                values = values.cast(pa.string())
            elif name not in ("ts", "quality", "count", "text") and not self._is_whole:
                values = values.cast(pa.float64(), safe=False)
            out[name] = values
        if "value" in out and "text" not in out:
            out["text"] = pa.nulls(table.num_rows, pa.string())
        return pa.table(out)


class _ArrowRows(_Tables):
    """An Arrow IPC stream."""

    def __init__(self, is_whole: bool) -> None:
        super().__init__(is_whole)
        self._writer: Any = None

    def rows(self, result: QueryResult) -> bytes:
        import pyarrow as pa

        table = self.table(result)
        if self._writer is None:
            self._writer = pa.ipc.new_stream(self.sink, table.schema)
        self._writer.write_table(table)
        return self.sink.take()

    def end(self, facts: AnswerFacts) -> bytes:
        self._writer.close()
        return self.sink.take()


class _ParquetRows(_Tables):
    """A Parquet file; what could not be read is in its metadata, ``headrace.missing``."""

    def __init__(self, is_whole: bool) -> None:
        super().__init__(is_whole)
        self._writer: Any = None

    def rows(self, result: QueryResult) -> bytes:
        import pyarrow.parquet as pq

        table = self.table(result)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.sink, table.schema, compression="zstd")
        self._writer.write_table(table)
        return self.sink.take()

    def end(self, facts: AnswerFacts) -> bytes:
        self._writer.add_key_value_metadata({"headrace.missing": json.dumps(facts.missing)})
        self._writer.close()
        return self.sink.take()


def part_of(result: QueryResult, first: int, end: int) -> QueryResult:
    """Rows [first, end) of a result."""
    cut = slice(first, end)
    return replace(
        result, sensor=result.sensor[cut], ts_ns=result.ts_ns[cut],
        columns={name: values[cut] for name, values in result.columns.items()},
        text=None if result.text is None else result.text[cut],
    )  # fmt: skip
