"""Files for tests and trials of the replay adapter: seeded random walks, long or wide, Parquet or CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq


def walks(n_rows: int, n_columns: int, start_ns: int, step_ns: int, seed: int) -> pa.Table:
    """A wide table: ``ts`` and columns ``s0`` ... of float64 random walks in steps of 0.1."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-5, 6, (n_rows, n_columns)).cumsum(axis=0) / 10.0
    ts = pa.array(start_ns + np.arange(n_rows) * step_ns, pa.timestamp("ns", "UTC"))
    return pa.table({"ts": ts, **{f"s{i}": steps[:, i] for i in range(n_columns)}})


def as_long(wide: pa.Table, group: str) -> pa.Table:
    """The same samples as rows of path, ts and value, in the order of time."""
    names = [name for name in wide.column_names if name != "ts"]
    values = np.column_stack([wide.column(name).to_numpy() for name in names])
    return pa.table(
        {
            "path": [f"{group}/{name}" for _ in range(wide.num_rows) for name in names],
            "ts": wide.column("ts").take(pa.array(np.repeat(np.arange(wide.num_rows), len(names)))),
            "value": values.reshape(-1),
        }
    )


def write_table(table: pa.Table, file: Path) -> None:
    """Write a table as its file's name says."""
    if file.suffix == ".parquet":
        pq.write_table(table, file)
    else:
        pa.csv.write_csv(table, file)
