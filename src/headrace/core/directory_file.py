"""The directory as a Parquet file: one row a slot, the layouts as JSON in the file's metadata.

Columns: ``slot uint32, path string, part string, layout uint64, sensors list<uint64>`` (null where the ids
are the hashes of the sensors' paths). The same bytes travel in the journal's definition records.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
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
Rows = list[tuple[int, list[str], Layout, str, Sequence[Sequence[int]] | None]]


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
            pa.array(directory.paths[first_slot:end], pa.string()),
            pa.array(directory.parts[first_slot:end], pa.string()),
            pa.array(ids[np.searchsorted(used, numbers)], pa.uint64()),
            _overridden(directory, slots),
        ],
        schema=_SCHEMA.with_metadata({"headrace.layouts": json.dumps(layouts), "headrace.version": "1"}),
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def _overridden(directory: SensorDirectory, slots: range) -> pa.Array:
    """Ids of the columns of slots that were given theirs; few were, so most of the column is null."""
    given = directory.overridden(slots)
    if not given:
        return pa.nulls(len(slots), pa.list_(pa.uint64()))
    return pa.array([given.get(slot) for slot in slots], pa.list_(pa.uint64()))


def read_directory(data: bytes | memoryview) -> Rows:
    """Runs of slots with one layout and part: (first slot, paths, layout, part, ids or None).

    Raises
    ------
    CorruptionError : the bytes are not such a file, or its slots are not in order.
    """
    try:
        # Without threads: where one of Arrow's meets damage, others go on reading memory that is gone by then, and
        # the process dies (seen with pyarrow 26 once in some ten thousand damaged files).
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False)
        layouts = {
            int(k): Layout.from_json(v)
            for k, v in json.loads(table.schema.metadata[b"headrace.layouts"]).items()
        }
        if any(number != layout.id for number, layout in layouts.items()):
            raise ValueError("a layout is not what its name says")
        columns = [table.column(name).to_pylist() for name in _SCHEMA.names]
        return _runs(columns, layouts)
    except (
        pa.ArrowException,
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        ConfigError,
    ) as e:
        raise CorruptionError(f"{len(data):,} bytes are not a sensor directory: {e}") from e


def _runs(columns: list[list[Any]], layouts: dict[int, Layout]) -> Rows:
    rows: Rows = []
    keyed = zip(*columns, strict=True)
    for (part, layout, own), group in itertools.groupby(keyed, key=lambda r: (r[2], r[3], r[4] is None)):
        members = list(group)
        slots = [m[0] for m in members]
        if slots != list(range(slots[0], slots[0] + len(slots))):
            raise ValueError("slots are not in order")
        paths, ids = [m[1] for m in members], None if own else [m[4] for m in members]
        if not all(isinstance(text, str) for text in (part, *paths)):
            raise ValueError("a path or part is missing")
        if ids is not None and {len(one) for one in ids} != {layouts[layout].width}:
            raise ValueError("there are not as many ids as columns")
        rows.append((slots[0], paths, layouts[layout], part, ids))
    return rows
