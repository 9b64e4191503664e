"""A program that writes line protocol; beside it a reader of its pipe, and Polars with the expression that http has."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from headrace.adapters.base import Adapter
from headrace.adapters.exec.adapter import ExecAdapter
from headrace.adapters.payloads.chunks import LineChunk, LineFormats
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_rules import LineRule, compile_paths
from headrace.bench.traffic.base import FACTS, Count
from headrace.bench.traffic.http import body, line_parser
from headrace.core.clock import NS, SystemClock
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory

_FIELDS, _LINES, _BLOCKS, _READ_BYTES = 5, 1_000, 200, 256 << 10
_PATH = "bench/{line}/{host}/{measurement}/{field}"
_RULE = {"path": _PATH, "other_tags": "keep"}
_PROGRAM = """import shutil, sys
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)
sys.stdout.buffer.flush()
sys.stdin.read()
"""


class ExecTraffic:
    """See `headrace.bench.traffic.base.Traffic`."""

    name = "exec"
    n_samples = _FIELDS * _LINES * _BLOCKS
    n_feeds = 3
    reference = "asyncio's reader of the same pipe; Polars, an expression of the lines' shape"

    libraries: ClassVar[Mapping[str, str]] = {"polars": "polars"}

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._spools: list[Path] = []
        self._start_ns = SystemClock().now_ns() // NS * NS

    async def up(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-bench-")
        self._spools = [Path(self._folder.name) / f"spool{i}" for i in range(self.n_feeds)]
        for number, spool in enumerate(self._spools):
            blocks = range(number * _BLOCKS, (number + 1) * _BLOCKS)
            spool.write_bytes(b"".join(body(self._start_ns, i) + b"\n" for i in blocks))

    async def down(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def _command(self, n_feeds: int) -> list[str]:
        return [sys.executable, "-S", "-c", _PROGRAM, *map(str, self._spools[:n_feeds])]

    def adapter(self, n_feeds: int = 1) -> Adapter:
        config = {"protocol": "exec", "command": self._command(n_feeds), **_RULE}
        settings = validate_section(ExecAdapter.Config, config, "adapters.exec")
        facts = replace(FACTS, levels=(), folder=self._spools[0].parent)
        return ExecAdapter.from_config("exec", settings, {}, facts)

    async def send(self, adapter: Adapter | None, n_feeds: int = 1) -> None:
        """The program writes once it is started."""

    async def bare(self, count: Count) -> None:
        pipe, parse, rest = asyncio.subprocess.PIPE, line_parser(_FIELDS), b""
        process = await asyncio.create_subprocess_exec(
            *self._command(1), stdin=pipe, stdout=pipe, limit=_READ_BYTES
        )
        assert process.stdout is not None
        while not count.complete.is_set():
            data = rest + await process.stdout.read(_READ_BYTES)
            end = data.rfind(b"\n") + 1
            rest = data[end:]
            if end:
                count.add(len(parse(data[: end - 1])) * _FIELDS)
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        n_fields = _FIELDS if is_batched else 1
        return [body(self._start_ns, 0, _LINES, n_fields) + b"\n"], _LINES * n_fields

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        rule = validate_section(LineRule, _RULE, "rule")
        formats = LineFormats("exec", directory, DeviceGroups(directory), (), FACTS.timezone)
        decoder = formats.lines(rule, compile_paths(rule, (), (), True))
        return lambda: [decoder.decode(LineChunk("stdout", data, 1, 0)) for data in payloads]

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        parse = line_parser(payloads[0].split(b"\n", 1)[0].count(b"=") - 2)
        return lambda: [parse(data[:-1]) for data in payloads]
