"""Parquet files of ten columns, played as fast as they are taken; beside it PyArrow and NumPy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.adapters.base import Adapter
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.tables import TableColumns, TableReader
from headrace.adapters.payloads.times import TimeReader
from headrace.adapters.replay.adapter import ReplayAdapter, read_file
from headrace.bench.traffic.base import FACTS, Count
from headrace.core.clock import NS, SystemClock
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory

_KEYS, _ROWS, _FILES = 10, 20_000, 10
_GROUP = "bench/line/oven"


def table(n_keys: int, n_rows: int = _ROWS, first: int = 0) -> pa.Table:
    """Times a second apart, and columns of values."""
    at = np.arange(first, first + n_rows)
    start_s = SystemClock().now_ns() // NS
    columns = {f"t{k}": 20.0 + k + at % 97 * 0.25 for k in range(n_keys)}
    return pa.table({"ts": pa.array((start_s + at) * NS, pa.timestamp("ns")), **columns})


class ReplayTraffic:
    """See `headrace.bench.traffic.base.Traffic`."""

    name = "replay"
    n_samples = _KEYS * _ROWS * _FILES
    n_feeds = 3
    reference = "PyArrow to NumPy columns"
    libraries: ClassVar[Mapping[str, str]] = {"pyarrow": "pyarrow"}

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._feeds: list[Path] = []

    async def up(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-bench-")
        self._feeds = [Path(self._folder.name) / f"feed{i}" for i in range(self.n_feeds)]
        for number, feed in enumerate(self._feeds):
            feed.mkdir()
            for i in range(_FILES):
                first = (number * _FILES + i) * _ROWS
                pq.write_table(table(_KEYS, first=first), feed / f"{i:03d}.parquet")

    async def down(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def adapter(self, n_feeds: int = 1) -> Adapter:
        files = f"feed[0-{n_feeds - 1}]/*.parquet"
        config = {"protocol": "replay", "files": files, "path": f"{_GROUP}/{{key}}"}
        settings = validate_section(ReplayAdapter.Config, config, "adapters.replay")
        facts = replace(FACTS, folder=self._feeds[0].parent)
        return ReplayAdapter.from_config("replay", settings, {}, facts)

    async def send(self, adapter: Adapter | None, n_feeds: int = 1) -> None:
        """Files are read without being asked for."""

    async def bare(self, count: Count) -> None:
        for file in sorted(self._feeds[0].glob("*.parquet")):
            for batch in pq.ParquetFile(file).iter_batches(_ROWS):
                _columns(batch)
                count.add(len(batch) * _KEYS)

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        n_keys = _KEYS if is_batched else 1
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
            file = Path(folder) / "one.parquet"
            pq.write_table(table(n_keys), file)
            return list(read_file(file)), n_keys * _ROWS

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        columns = TableColumns("ts", "value", _GROUP, ())
        reader = TableReader("replay", DeviceGroups(directory), TimeReader("auto", "UTC"), columns)
        return lambda: [reader.read(batch, "one.parquet") for batch in payloads]

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        return lambda: [_columns(batch) for batch in payloads]


def _columns(batch: Any) -> Any:
    return [np.ascontiguousarray(column) for column in batch.columns]
