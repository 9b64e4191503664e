"""Samples or aggregates as plain files: a folder for each day, parts of bounded size.

``<folder>/day=2026-03-02/part-0000.parquet``: DuckDB, Polars, pandas and Spark read such a folder as one table with a
column ``day``. All parts have the same columns and types. Each part is written under another name and renamed when it is
whole, so a reader sees none that is half there; ``export.json`` comes last and says what was asked and written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from headrace.core.errors import ConfigError, StorageError
from headrace.core.frames import FrameBatch
from headrace.core.sensors import Selection
from headrace.runtime.reader import StoreReader, UnflushedTail
from headrace.runtime.times import rfc3339
from headrace.store.grouping import DAY_NS
from headrace.store.query import Store, slices_of
from headrace.store.result import QueryResult
from headrace.store.wanted import Wanted

FORMATS = ("parquet", "csv", "arrow")
REPORT_FILE = "export.json"
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to write.

    Parameters
    ----------
    pattern : of the sensors. last, from_, to : the span. every, agg : windows and their aggregates; raw samples
        without. form : parquet, csv or arrow (an IPC stream).
    """

    pattern: str
    last: str | None = None
    from_: str | None = None
    to: str | None = None
    every: str | None = None
    agg: tuple[str, ...] = ()
    form: str = "parquet"

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise ConfigError(f"format {self.form!r} is not one of {', '.join(FORMATS)}")
        if self.every is not None and not self.agg:
            raise ConfigError("windows need aggregates; add --agg mean, or several", "every")


@dataclass(slots=True)
class Exported:
    """What was written, and what could not be read."""

    n_sensors: int = 0
    n_rows: int = 0
    n_files: int = 0
    size_bytes: int = 0
    days: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """An export that was looked at: what will be read, piece by piece."""

    request: ExportRequest
    start_ns: int
    end_ns: int
    every_ns: int | None
    wanted: Wanted
    tail: UnflushedTail
    unflushed: list[FrameBatch]
    store: Store
    schema: pa.Schema

    @property
    def days(self) -> list[int]:
        """UTC days since 1970 of which anything is there; at most those of the span."""
        last = (self.end_ns - 1) // DAY_NS
        spans = [
            (s.info.t_min_ns, s.info.t_max_ns) for s in self.store.view.sources(self.start_ns, self.end_ns)
        ]
        spans += [
            (int(b.value_times().min()), int(b.value_times().max())) for b in self.unflushed if b.n_values
        ]
        days = {day for first, end in spans for day in range(first // DAY_NS, end // DAY_NS + 1)}
        return sorted(day for day in days if self.start_ns // DAY_NS <= day <= last)

    def pieces(self) -> Iterator[tuple[int, QueryResult]]:
        """(day, rows), each piece of bounded size, days in order and paths in order inside a day."""
        for day in self.days:
            start_ns, end_ns = max(day * DAY_NS, self.start_ns), min((day + 1) * DAY_NS, self.end_ns)
            for wanted in self._turns(start_ns, end_ns):
                yield (
                    day,
                    self.store.ask(
                        wanted,
                        start_ns,
                        end_ns,
                        self.every_ns,
                        self.request.agg,
                        tail=lambda _: self.unflushed,
                    ),
                )

    def _turns(self, start_ns: int, end_ns: int) -> Iterator[Wanted]:
        """The sensors in turns, so that each has a bounded number of samples in the span."""
        wanted = self.wanted
        number, n = slices_of(wanted, self.store.scan(self.store.refresh(), wanted, start_ns, end_ns))
        if n == 1:
            yield wanted
            return
        turn = np.zeros(wanted.n, np.int64)
        turn[wanted.sensor] = np.repeat(number[wanted.group_of_place], np.diff(wanted.start))
        for one in range(n):
            mine = np.flatnonzero(turn == one)
            chosen = Selection(wanted.slot[mine], wanted.column[mine], np.zeros(len(mine), np.uint64))
            yield Wanted(self.store.directory, self.store.series, chosen)


def plan_export(reader: StoreReader, request: ExportRequest) -> ExportPlan:
    """Look at what is to be exported; nothing is written.

    Raises
    ------
    NotFound : no sensor matches. ConfigError : the span or an aggregate can't be; windows are longer than a day.
    """
    from headrace.core.paths import parse_duration_ns
    from headrace.core.spans import parse_range

    tail = reader.tail()
    span = parse_range(tail.now_ns + 1, reader.zone, last=request.last, start=request.from_, end=request.to)
    every_ns = None if request.every is None else parse_duration_ns(request.every)
    if every_ns is not None and (every_ns <= 0 or DAY_NS % every_ns):
        raise ConfigError(
            f"windows of {request.every} do not fill a day evenly; write 1m, 1h, 1d ...", "every"
        )
    if request.agg and every_ns is None:
        raise ConfigError("aggregates are of windows; add --every 1m", "agg")
    store = reader.store
    wanted = Wanted(store.directory, store.series, store.select(request.pattern))
    store.query(
        request.pattern, span.start_ns, span.start_ns + 1, every_ns, request.agg
    )  # are the words right?
    empty = store.ask(wanted, span.start_ns, span.start_ns + 1, every_ns, request.agg)
    # Once, before anything is read from segments: what is flushed meanwhile is met twice, and merged.
    unflushed = tail.frames(wanted.slots)
    span_ns = span.start_ns, span.end_ns
    return ExportPlan(request, *span_ns, every_ns, wanted, tail, unflushed, store, _schema(empty))


def _schema(empty: QueryResult) -> pa.Schema:
    """One schema for all parts, from an answer about all sensors."""
    table = empty.to_arrow()
    fields = [
        pa.field(f.name, pa.string() if f.name == "path" else f.type)
        for f in table.schema
        if f.name != "text"
    ]
    if "quality" in table.column_names:
        fields.append(pa.field("text", pa.string()))
    return pa.schema(fields)


def run_export(
    plan: ExportPlan, folder: Path, tell: Callable[[str, int], None] = lambda day, n_rows: None
) -> Exported:
    """Write the files.

    Parameters
    ----------
    folder : is made where it is not there; parts of an earlier export in it are replaced.
    tell : told after each part: the day, and rows so far.

    Raises
    ------
    StorageError : the disk refuses.
    """
    done = Exported(n_sensors=plan.wanted.n)
    suffix, number = plan.request.form, 0
    try:
        for old in [*folder.glob("day=*/part-*"), folder / REPORT_FILE]:
            old.unlink(missing_ok=True)
        for day, result in plan.pieces():
            rough = result.notes[-1:] if result.resolution_ns else ()
            done.missing += [s for s in (*result.missing, *rough) if s not in done.missing]
            if not len(result):
                continue
            name = str(np.datetime64(day, "D"))
            if not done.days or done.days[-1] != name:
                done.days.append(name)
                number = 0
            part = folder / f"day={name}" / f"part-{number:04d}.{suffix}"
            part.parent.mkdir(parents=True, exist_ok=True)
            _write(_table(result, plan.schema), part, suffix)
            number += 1
            done.n_rows += len(result)
            done.n_files += 1
            done.size_bytes += part.stat().st_size
            tell(name, done.n_rows)
        done.missing += [s for s in plan.tail.notes(plan.wanted.slots) if s not in done.missing]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_FILE).write_text(json.dumps(_report(plan, done), indent=2) + "\n", encoding="utf-8")
    except OSError as e:
        raise StorageError(f"can't write to {folder}: {e.strerror or e}") from e
    return done


def _table(result: QueryResult, schema: pa.Schema) -> pa.Table:
    table = result.to_arrow(labels=True)
    columns = {name: table[name] for name in table.column_names}
    if "text" in schema.names and "text" not in columns:
        columns["text"] = pa.nulls(len(table), pa.string())
    return pa.table({f.name: columns[f.name].cast(f.type, safe=False) for f in schema}, schema=schema)


def _write(table: pa.Table, part: Path, form: str) -> None:
    temporary = part.with_name(f".{part.name}.tmp")
    if form == "parquet":
        pq.write_table(table, temporary, compression="zstd", use_dictionary=["path"])
    elif form == "arrow":
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        text = pc.strftime(table["ts"], format=_TIME_FORMAT)
        csv.write_csv(table.set_column(1, "ts", text), temporary, csv.WriteOptions(quoting_style="needed"))
    temporary.replace(part)


def _report(plan: ExportPlan, done: Exported) -> dict[str, Any]:
    request = plan.request
    return {
        "pattern": request.pattern, "from": rfc3339(plan.start_ns), "to": rfc3339(plan.end_ns),
        "every": request.every, "agg": list(request.agg), "format": request.form, "sensors": done.n_sensors,
        "rows": done.n_rows, "files": done.n_files, "bytes": done.size_bytes, "days": done.days,
        "missing": done.missing, "fresh_to": rfc3339(plan.tail.now_ns),
    }  # fmt: skip
