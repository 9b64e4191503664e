"""CSV files of ten columns in a watched folder; beside it Polars, which reads the same files."""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from headrace.adapters.base import Adapter
from headrace.adapters.files.adapter import FilesAdapter
from headrace.adapters.payloads.chunks import LineChunk, LineFormats
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_rules import LineRule, compile_paths
from headrace.bench.traffic.base import FACTS, Count
from headrace.core.clock import NS, SystemClock
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory

_KEYS, _ROWS, _FILES = 10, 50_000, 4
_CHUNK_ROWS = 2_000
_RULE = {"path": "bench/line/{device}/{key}", "time": "ts"}


def text(n_keys: int, n_rows: int, first: int = 0) -> bytes:
    """Lines a second apart, below the names of their columns."""
    start_s = SystemClock().now_ns() // NS + first
    lines = [",".join(["ts", *(f"t{k}" for k in range(n_keys))])]
    cells = [[f"{20 + k + i * 0.25:.2f}" for k in range(n_keys)] for i in range(97)]
    lines += [",".join([f"{start_s + i}000", *cells[(first + i) % 97]]) for i in range(n_rows)]
    return ("\n".join(lines) + "\n").encode()


class FilesTraffic:
    """See `headrace.bench.traffic.base.Traffic`."""

    name = "files"
    n_samples = _KEYS * _ROWS * _FILES
    n_feeds = 3
    reference = "Polars, read_csv of the same files"
    libraries: ClassVar[Mapping[str, str]] = {"polars": "polars"}

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._feeds: list[Path] = []
        self._number = itertools.count()

    async def up(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-bench-")
        self._feeds = [Path(self._folder.name) / f"feed{i}" for i in range(self.n_feeds)]
        for number, feed in enumerate(self._feeds):
            feed.mkdir()
            for i in range(_FILES):
                (feed / f"oven{i}.csv").write_bytes(text(_KEYS, _ROWS, number * _ROWS))

    async def down(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def adapter(self, n_feeds: int = 1) -> Adapter:
        """One that has read none of them yet; how far it reads is kept, as in a plant."""
        files = {f"feed{i}/{{device}}.csv": _RULE for i in range(n_feeds)}
        config = {"protocol": "files", "folder": ".", "files": files}
        settings = validate_section(FilesAdapter.Config, config, "adapters.files")
        folder = self._feeds[0].parent
        facts = replace(FACTS, folder=folder, state=folder / f"state{next(self._number)}")
        return FilesAdapter.from_config("files", settings, {}, facts)

    async def send(self, adapter: Adapter | None, n_feeds: int = 1) -> None:
        """Files are read without being asked for."""

    async def bare(self, count: Count) -> None:
        import polars as pl

        for file in sorted(self._feeds[0].glob("*.csv")):
            count.add(len(pl.read_csv(file)) * _KEYS)

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        n_keys = _KEYS if is_batched else 1
        return [text(n_keys, _CHUNK_ROWS)], _CHUNK_ROWS * n_keys

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        rule = validate_section(LineRule, {**_RULE, "path": "bench/line/oven/{key}"}, "rule")
        formats = LineFormats("files", directory, DeviceGroups(directory), FACTS.levels, FACTS.timezone)
        decoder = formats.csv(rule, compile_paths(rule, (), FACTS.levels, False), {})
        return lambda: [decoder.decode(LineChunk("oven.csv", data, 1, 0)) for data in payloads]

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        import polars as pl

        return lambda: [pl.read_csv(io.BytesIO(data)) for data in payloads]
