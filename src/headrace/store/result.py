"""What a query answers: columns, in whatever form the asker works with."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow as pa

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class QueryResult:
    """Rows of ``path``, ``ts``, and either ``value`` and ``quality`` or one column for each aggregate.

    Parameters
    ----------
    paths : paths of the sensors that matched, sorted; units : their units.
    sensor : int64[n], index in `paths` of each row. ts_ns : int64[n], sample time or start of the window.
    columns : the other columns; NaN where an aggregate has no value.
    text : for raw rows the word of each value: labels of discrete signals, strings; None where there is none.
    truncated : whether `limit` cut rows off.
    fresh_to_ns : everything that had arrived by then is in the answer.
    sources : how many of what was read: ``warm_rows``, ``warm_headers`` (answered without decoding),
        ``hot_rows``, ``tail_frames``, ``segments``.
    missing : one sentence for everything that could not be read; empty where the answer is whole.
    notes : what to know about the columns.
    resolution_ns : 0 where the answer is exactly what was asked; else, in a part of the span only rollups are left, and
        rows there stand for windows of up to that length. A note says of what.
    """

    paths: npt.NDArray[np.object_]
    units: npt.NDArray[np.object_]
    sensor: I64
    ts_ns: I64
    columns: dict[str, Array]
    text: npt.NDArray[np.object_] | None = None
    truncated: bool = False
    fresh_to_ns: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    resolution_ns: int = 0

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.sensor)

    def __len__(self) -> int:
        return self.n_rows

    def to_arrow(self, labels: bool = False) -> pa.Table:
        """An Arrow table; times are ``timestamp[ns, UTC]``, paths a dictionary.

        Parameters
        ----------
        labels : add the column ``text``: names of discrete states and strings (always there for strings).
        """
        import pyarrow as pa

        index = pa.array(self.sensor.astype(np.int32))
        columns: dict[str, Any] = {
            "path": pa.DictionaryArray.from_arrays(index, pa.array(self.paths.tolist(), pa.string())),
            "ts": pa.array(self.ts_ns).cast(pa.timestamp("ns", "UTC")),
        }
        for name, values in self.columns.items():
            columns[name] = pa.array(values, from_pandas=name not in ("value", "quality"))
        if self.text is not None and (labels or self._has_strings):
            columns["text"] = pa.array(self.text.tolist(), pa.string())
        return pa.table(columns)

    @property
    def _has_strings(self) -> bool:
        return any(note.startswith("text") for note in self.notes)

    def to_pandas(self, labels: bool = False) -> pd.DataFrame:
        """A pandas frame; ``path`` is categorical."""
        frame: pd.DataFrame = self.to_arrow(labels).to_pandas()
        return frame

    def to_polars(self, labels: bool = False) -> pl.DataFrame:
        """A Polars frame; ``path`` is categorical."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow(labels))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_duckdb(
        self, connection: duckdb.DuckDBPyConnection | None = None, labels: bool = False
    ) -> duckdb.DuckDBPyRelation:
        """A DuckDB relation, of `connection` or a new one in memory.

        ``ts`` is a TIMESTAMP_NS in UTC: DuckDB's times with a zone end at microseconds.
        """
        import duckdb
        import pyarrow as pa

        owner = duckdb.connect() if connection is None else connection
        table = self.to_arrow(labels)
        return owner.from_arrow(table.set_column(1, "ts", table["ts"].cast(pa.timestamp("ns"))))

    def to_rows(self, labels: bool = False) -> list[dict[str, Any]]:
        """A list of dictionaries; ``ts`` in nanoseconds since 1970 UTC. For small answers."""
        names = list(self.columns)
        columns: list[Sequence[Any]] = [self.paths[self.sensor].tolist(), self.ts_ns.tolist()]
        columns += [_plain(self.columns[name]) for name in names]
        names = ["path", "ts", *names]
        if self.text is not None and (labels or self._has_strings):
            names.append("text")
            columns.append(self.text.tolist())
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def to_csv(self, labels: bool = False) -> bytes:
        """CSV with a header line; times as RFC 3339 with nanoseconds, UTC."""
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow import csv

        table = self.to_arrow(labels)
        text = pc.strftime(table["ts"], format="%Y-%m-%dT%H:%M:%SZ")
        table = table.set_column(0, "path", table["path"].cast(pa.string())).set_column(1, "ts", text)
        sink = io.BytesIO()
        csv.write_csv(table, sink, csv.WriteOptions(quoting_style="needed"))
        return sink.getvalue()

    def to_ipc(self, labels: bool = False) -> bytes:
        """An Arrow IPC stream."""
        import pyarrow as pa

        table = self.to_arrow(labels)
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()

    def to_parquet(self, labels: bool = False) -> bytes:
        """A Parquet file."""
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(self.to_arrow(labels), sink, compression="zstd")
        return sink.getvalue()


def _plain(values: Array) -> list[Any]:
    if values.dtype.kind != "f":
        found: list[Any] = values.tolist()
        return found
    return [None if v != v else v for v in values.tolist()]
