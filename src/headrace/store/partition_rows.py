"""The rows of a partition, to be kept, written anew, or dropped: their headers as arrays, and the rows themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.layouts import Column, Kind
from headrace.core.sensors import SensorDirectory
from headrace.store.commits import SegmentInfo
from headrace.store.query import Store
from headrace.store.segment import SegmentFile
from headrace.store.siblings import own_values
from headrace.store.time_axes import own_times
from headrace.store.warm_rows import WARM, WARM_SCHEMA

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
_NAMES = (
    "path",
    "sensor",
    "group",
    "layout",
    "column",
    "n_samples",
    "n_bytes",
    "count",
    "dtype",
    "bound",
    "min",
    "max",
    "dictionary",
    "t_min",
    "t_max",
)
_LOSSY_KINDS = (Kind.ANALOG, Kind.WAVEFORM)
_GLITCH = 10.0


def never_lossy(is_float: bool, column: Column) -> str:
    """Why the values of a sensor are never changed; "" where they may be.

    A register with a scale is a measurement. One without may be anything: a code, a mask, a state that nobody declared.
    """
    if column.kind not in _LOSSY_KINDS:
        return f"its kind is {column.kind.name.lower()}"
    return "" if is_float or column.scale != 1.0 else "its values are integers without a scale"


@dataclass(frozen=True, slots=True, eq=False)
class PartitionRows:
    """Headers of all rows of some files, as parallel arrays.

    ``path`` is an index in `paths`, which are sorted; ``place`` is (file, row group, row) of each: int64[n, 3]. ``low`` and
    ``high`` are NaN where the header has none.
    """

    files: tuple[SegmentFile, ...]
    paths: npt.NDArray[np.object_]
    path: I64
    place: I64
    sensor: npt.NDArray[np.uint64]
    group: npt.NDArray[np.uint64]
    layout: npt.NDArray[np.uint64]
    column: I64
    t_min: I64
    t_max: I64
    n_samples: I64
    n_bytes: I64
    n_usable: I64
    bound: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    is_float: npt.NDArray[np.bool_]
    is_text: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.path)

    @classmethod
    def load(cls, store: Store, infos: Sequence[SegmentInfo]) -> PartitionRows:
        """Read the headers. Raises `CorruptionError`, `NotFound`."""
        files = tuple(store.reader.open(info) for info in infos)
        tables, places = [], []
        for number, file in enumerate(files):
            for group in range(file.n_groups):
                table = file.row_group(group, _NAMES)
                if table is None:
                    raise file.damaged("it has no headers of single sensors")
                tables.append(table)
                n = len(table)
                places.append(np.stack([np.full(n, number), np.full(n, group), np.arange(n)], axis=1))
        whole = pa.concat_tables(tables).combine_chunks()
        coded = whole["path"].combine_chunks().dictionary_encode()
        words = np.array(coded.dictionary.to_pylist(), np.object_)
        order = np.argsort(words, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        dtype = whole["dtype"].combine_chunks()
        floats = np.array([word[0] == "f" for word in dtype.dictionary.to_pylist()], np.bool_)
        number_of = {name: _numbers(whole[name]) for name in _NAMES[1:8]}
        return cls(
            files, words[order], rank[coded.indices.to_numpy()], np.concatenate(places), number_of["sensor"], number_of["group"],
            number_of["layout"], number_of["column"].astype(np.int64), _times(whole["t_min"]), _times(whole["t_max"]),
            number_of["n_samples"].astype(np.int64),
            number_of["n_bytes"].astype(np.int64), number_of["count"].astype(np.int64), _floats(whole["bound"], 0.0), _floats(whole["min"], np.nan),
            _floats(whole["max"], np.nan), floats[dtype.indices.to_numpy()], ~_numbers(whole["dictionary"].is_null()),
        )  # fmt: skip

    def slots(self, directory: SensorDirectory) -> I64:
        """The slot of each row; -1 where the directory has none."""
        keys: dict[tuple[int, int], int] = {}
        wanted = np.flatnonzero(np.isin(directory.group_id, np.unique(self.group)))
        for slot in wanted.tolist():
            keys[int(directory.group_id[slot]), directory.layout(slot).id] = slot
        pairs = zip(self.group.tolist(), self.layout.tolist(), strict=True)
        return np.array([keys.get(pair, -1) for pair in pairs], np.int64)

    def columns_of(self, directory: SensorDirectory, slots: I64) -> list[Column]:
        """The column of the layout that each row holds."""
        known: dict[tuple[int, int], Column] = {}
        out = []
        for slot, column in zip(slots.tolist(), self.column.tolist(), strict=True):
            key = (slot, column)
            if key not in known:
                known[key] = directory.layout(slot).columns[column]
            out.append(known[key])
        return out

    def may_be_lossy(self, columns: Sequence[Column]) -> npt.NDArray[np.bool_]:
        """Rows whose values may be changed; see `never_lossy`."""
        kinds = zip(self.is_float.tolist(), columns, strict=True)
        return ~self.is_text & np.array([not never_lossy(one, column) for one, column in kinds], np.bool_)

    def spans(self, rows: I64, columns: Sequence[Column]) -> dict[int, float]:
        """What is known of the range of each path, in engineering units; of those only whose rows say something.

        It is what was measured, within the sensor's limits where it has some. One mad value must not widen the bound of
        all others, so it is not more than ten times what a usual row spans.
        """
        out: dict[int, float] = {}
        order = rows[np.argsort(self.path[rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(self.path[order]) != 0) + 1
        for mine in np.split(order, cuts) if len(order) else []:
            low, high = self.low[mine], self.high[mine]
            known = np.isfinite(low) & np.isfinite(high)
            column = columns[int(mine[0])]
            if not known.any():
                continue
            span = float(high[known].max() - low[known].min())
            each = (high - low)[known]
            usual = float(np.median(each[each > 0])) if (each > 0).any() else span
            limits = np.inf if column.low is None or column.high is None else column.high - column.low
            span = min(span, limits, _GLITCH * usual)
            if span > 0 and np.isfinite(span):
                out[int(self.path[mine[0]])] = span
        return out

    def tables(self, rows: npt.NDArray[np.bool_]) -> list[pa.Table]:
        """The chosen rows as they are, payloads and all, each with its own times and values, in the columns of today."""
        out = []
        index = np.flatnonzero(rows)
        file_group = self.place[index, 0] << 32 | self.place[index, 1]
        for one in np.unique(file_group).tolist():
            mine = index[file_group == one]
            file = self.files[one >> 32]
            table = file.row_group(one & 0xFFFFFFFF, [n for n in WARM if n in file.names])
            assert table is not None
            place = self.place[mine, 2]
            out.append(as_warm(own_values(own_times(table), place).take(place)))
        return out

    def offsets(self, rows: npt.NDArray[np.bool_]) -> dict[str, I64]:
        """Where the payloads of the chosen rows are, by file: as `headrace.store.segment.RowHeaders` have them."""
        out: dict[str, list[I64]] = {}
        index = np.flatnonzero(rows)
        for file, group in sorted(set(map(tuple, self.place[index, :2].tolist()))):
            mine = index[(self.place[index, 0] == file) & (self.place[index, 1] == group)]
            offset = self.files[file].headers(group).offset[self.place[mine, 2]]
            out.setdefault(self.files[file].info.name, []).append(offset)
        return {name: np.concatenate(parts) for name, parts in out.items()}


def as_warm(table: pa.Table) -> pa.Table:
    """A table with all columns of warm rows; what an earlier release did not write is null."""
    for name in WARM:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), WARM_SCHEMA.field(name).type))
    return table.select(list(WARM)).cast(WARM_SCHEMA)


def _numbers(column: Any) -> Array:
    return np.asarray(column.to_numpy())


def _times(column: Any) -> I64:
    return np.asarray(column.cast(pa.int64()).to_numpy())


def _floats(column: Any, default: float) -> npt.NDArray[np.float64]:
    return np.asarray(column.fill_null(default).to_numpy(), np.float64)
