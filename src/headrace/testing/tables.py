"""A store with known history: ovens whose values are easy to check, taken in as an import takes them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.core.clock import NS, VirtualClock
from headrace.core.config import parse_plant
from headrace.runtime.importing import Imported, ImportMapping, import_files

T0 = 1_772_438_400 * NS
"""2026-03-02 08:00 UTC."""


def long_table(start_s: int, n_s: int, ovens: int = 2, step_s: int = 1) -> pa.Table:
    """Rows of path, ts, value: ``temperature`` is 180 + the oven's number + a saw of a minute / 100."""
    seconds = np.arange(start_s, start_s + n_s, step_s)
    parts = []
    for oven in range(ovens):
        value = 180.0 + oven + seconds % 60 / 100
        path = f"leon/paint/line1/oven{oven}/temperature"
        ts = pa.array(T0 + seconds * NS, pa.timestamp("ns", "UTC"))
        parts.append(pa.table({"path": [path] * len(seconds), "ts": ts, "value": value}))
    return pa.concat_tables(parts).sort_by("ts")


def import_table(
    folder: Path, table: pa.Table, name: str = "part", text: dict[str, Any] | None = None, **mapping: Any
) -> Imported:
    """Import a table into ``folder/store``, ten minutes after its newest sample."""
    file = folder / f"{name}.parquet"
    pq.write_table(table, file)
    config = parse_plant({"version": 1, "store": {"url": "./store"}, **(text or {})}, folder)
    newest_ns = pc.max(table["ts"]).cast(pa.int64()).as_py()
    clock = VirtualClock(newest_ns + 600 * NS)
    return asyncio.run(import_files(config, [file], ImportMapping(**mapping), clock=clock))
