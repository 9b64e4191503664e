"""Programs that write files, for tests and trials: loggers that append, and log rotation as logrotate does it."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.core.clock import NS


class CsvLogger:
    """Appends lines of CSV to a file: a time in ms, and random walks in steps of 0.01 from a seed.

    Parameters
    ----------
    signals : names of the columns. start_ns : time of the first line; each following one is `step_ns` later.
    """

    def __init__(
        self,
        file: Path,
        signals: Sequence[str],
        seed: int,
        start_ns: int = 1_700_000_000 * NS,
        step_ns: int = NS,
    ) -> None:
        self.file = file
        self.n_lines = 0
        self._signals = tuple(signals)
        self._random = np.random.default_rng(seed)
        self._hundredths = self._random.integers(0, 10_000, len(self._signals))
        self._start_ns, self._step_ns = start_ns, step_ns

    def lines(self, n: int) -> str:
        """The next `n` lines."""
        out = []
        for _ in range(n):
            self._hundredths += self._random.integers(-5, 6, len(self._signals))
            ts_ms = (self._start_ns + self.n_lines * self._step_ns) // 1_000_000
            cells = [f"{value / 100:.2f}" for value in self._hundredths.tolist()]
            out.append(",".join([str(ts_ms), *cells]) + "\n")
            self.n_lines += 1
        return "".join(out)

    def write(self, n: int) -> int:
        """Append the next `n` lines, below the names of the columns where the file is new; how many values they have."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="ascii") as out:
            if not out.tell():
                out.write(",".join(("ts", *self._signals)) + "\n")
            out.write(self.lines(n))
        return n * len(self._signals)


def rotate_by_name(file: Path) -> Path:
    """Give a file the name with ``.1`` behind it; its writer makes a new one. What it is called now."""
    return file.rename(file.with_name(f"{file.name}.1"))


def rotate_by_copy(file: Path) -> Path:
    """Copy a file to the name with ``.1`` behind it and cut it (logrotate's copytruncate); the copy."""
    copy = file.with_name(f"{file.name}.1")
    shutil.copyfile(file, copy)
    os.truncate(file, 0)
    return copy


def compress(file: Path) -> Path:
    """Compress a file as gzip does, and remove it; what it is called now."""
    packed = file.with_name(f"{file.name}.gz")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    return packed


def write_parquet(
    file: Path, n_rows: int, signals: Sequence[str], seed: int, rows_a_group: int = 1_000
) -> int:
    """A whole Parquet file: ``ts`` each second, and a column for each signal; how many values it has."""
    random = np.random.default_rng(seed)
    ts = pa.array(1_700_000_000 * NS + np.arange(n_rows) * NS, pa.timestamp("ns", "UTC"))
    columns = {name: random.integers(0, 10_000, n_rows) / 100 for name in signals}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    pq.write_table(pa.table({"ts": ts, **columns}), temporary, row_group_size=rows_a_group)
    temporary.rename(file)
    return n_rows * len(signals)
