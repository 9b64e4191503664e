"""Ranges of sensors: what a bound that is a share of the range is a share of. Once fixed, a range never changes.

``tiers/ranges.parquet`` has a row for each sensor that got cold within such a bound: its id, its range in engineering
units, and when it was fixed. It is written before the first chunk that depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, NotFound

RANGES_FILE = "tiers/ranges.parquet"
_TIME = pa.timestamp("ns", "UTC")


def load_ranges(disk: Disk) -> dict[int, tuple[float, int]]:
    """(range, when it was fixed) by sensor id.

    Raises
    ------
    CorruptionError : the file is damaged; nothing may get lossy until it is restored.
    """
    try:
        data = disk.read(RANGES_FILE)
    except NotFound:
        return {}
    try:
        table = pq.read_table(pa.BufferReader(pa.py_buffer(data)), page_checksum_verification=True)
        sensor, span = table["sensor"].to_pylist(), table["range"].to_pylist()
        fixed = table["fixed"].cast(pa.int64()).to_pylist()
        return {s: (float(r), t) for s, r, t in zip(sensor, span, fixed, strict=True)}
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as e:
        raise CorruptionError(f"{RANGES_FILE} is damaged: {e}; restore it from a backup") from e


def save_ranges(disk: Disk, ranges: Mapping[int, tuple[float, int]]) -> None:
    """Write all of them. Raises `StorageError`."""
    order = sorted(ranges)
    table = pa.table(
        {
            "sensor": np.array(order, np.uint64),
            "range": np.array([ranges[s][0] for s in order]),
            "fixed": pa.array(np.array([ranges[s][1] for s in order], np.int64)).cast(_TIME),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    disk.replace(RANGES_FILE, memoryview(sink.getvalue()))
