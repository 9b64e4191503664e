"""The directory as a Parquet file: one row a slot, the layouts as JSON in the file's metadata.

Columns: ``slot uint32, path string, part string, layout uint64, sensors list<uint64>`` (null where the ids
are the hashes of the sensors' paths). The same bytes travel in the journal's definition records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.core.errors import ConfigError, CorruptionError
from headrace.core.layouts import Layout

if TYPE_CHECKING:
    from headrace.core.sensors import SensorDirectory

_SCHEMA = pa.schema(
    [
        ("slot", pa.uint32()),
        ("path", pa.string()),
        ("part", pa.string()),
        ("layout", pa.uint64()),
        ("sensors", pa.list_(pa.uint64())),
    ]
)
_AT_ONCE = 1 << 16
_UNREADABLE = (
    pa.ArrowException, OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError, ConfigError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DefinedRows:
    """Some slots of a directory, one behind the other.

    Parameters
    ----------
    first : slot of the first row. texts : paths in UTF-8. layout : index in `layouts` of each row.
    sensors : ids of the columns, by row, where they are not the hashes of the paths.
    """

    first: int
    texts: list[bytes]
    parts: list[str]
    layouts: list[Layout]
    layout: npt.NDArray[np.int64]
    sensors: dict[int, list[int]]


def write_directory(directory: SensorDirectory, first_slot: int) -> bytes:
    """Slots from `first_slot` on as Parquet bytes; another thread may be defining more meanwhile."""
    end = directory.n_slots
    slots = range(first_slot, end)
    numbers = directory.layout_index[first_slot:end]
    used = np.unique(numbers)
    ids = np.array([directory.layouts[i].id for i in used.tolist()], np.uint64)
    layouts = {str(directory.layouts[i].id): directory.layouts[i].to_json() for i in used.tolist()}
    table = pa.table(
        [
            pa.array(slots, pa.uint32()),
            _paths(directory, first_slot, end),
            pa.DictionaryArray.from_arrays(
                pa.array(directory.parts.number[first_slot:end]), pa.array(directory.parts.names, pa.string())
            ).cast(pa.string()),
            pa.array(ids[np.searchsorted(used, numbers)], pa.uint64()),
            _overridden(directory, slots),
        ],
        schema=_SCHEMA.with_metadata({"headrace.layouts": json.dumps(layouts), "headrace.version": "1"}),
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def _paths(directory: SensorDirectory, first: int, end: int) -> pa.Array:
    """Paths of some slots, straight from the bytes that the directory holds."""
    starts, data = directory.paths.buffers(end)
    starts = starts[first:]
    offsets = (starts - starts[0]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[int(starts[0]) :])]
    return pa.Array.from_buffers(pa.string(), end - first, buffers)


def _overridden(directory: SensorDirectory, slots: range) -> pa.Array:
    """Ids of the columns of slots that were given theirs; few were, so most of the column is null."""
    given = directory.overridden(slots)
    if not given:
        return pa.nulls(len(slots), pa.list_(pa.uint64()))
    return pa.array([given.get(slot) for slot in slots], pa.list_(pa.uint64()))


def read_directory(data: bytes | memoryview) -> Iterator[DefinedRows]:
    """The slots of a file, a bounded number at a time.

    Raises
    ------
    CorruptionError : the bytes are not such a file, or its slots are not in order.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        layouts = {
            int(k): Layout.from_json(v)
            for k, v in json.loads(file.schema_arrow.metadata[b"headrace.layouts"]).items()
        }
        if any(number != layout.id for number, layout in layouts.items()):
            raise ValueError("a layout is not what its name says")
        # Without threads: where one of Arrow's meets damage, others go on reading memory that is gone by then, and
        # the process dies (seen with pyarrow 26 once in some ten thousand damaged files).
        table = file.read(columns=_SCHEMA.names, use_threads=False)
        expected = None
        for batch in table.to_batches(max_chunksize=_AT_ONCE):
            rows = _rows(batch, layouts)
            if expected not in (None, rows.first):
                raise ValueError("slots are not in order")
            expected = rows.first + len(rows.texts)
            yield rows
    except _UNREADABLE as e:
        raise CorruptionError(f"{len(data):,} bytes are not a sensor directory: {e}") from e


def _rows(batch: pa.RecordBatch, layouts: dict[int, Layout]) -> DefinedRows:
    """Rows of a file, checked for themselves."""
    columns = {name: batch.column(name) for name in _SCHEMA.names}
    if any(columns[name].null_count for name in _SCHEMA.names[:-1]):
        raise ValueError("a slot has no path, part or layout")
    slots = columns["slot"].to_numpy()
    if (np.diff(slots.astype(np.int64)) != 1).any():
        raise ValueError("slots are not in order")
    ids, first, index = np.unique(columns["layout"].to_numpy(), return_index=True, return_inverse=True)
    by_first = np.argsort(first)  # layouts are numbered in the order in which they came
    given = columns["sensors"]
    own = np.flatnonzero(given.is_valid().to_numpy(zero_copy_only=False)).tolist()
    return DefinedRows(
        int(slots[0]),
        columns["path"].cast(pa.binary()).to_pylist(),
        columns["part"].to_pylist(),
        [layouts[i] for i in ids[by_first].tolist()],
        np.argsort(by_first)[index],
        {row: given[row].as_py() for row in own},
    )
