"""What a program writes, for a person who takes it into service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.adapters.exec.child import ChildProcess, how_it_ended
from headrace.adapters.exec.outlet import BadOutput, Outlet
from headrace.adapters.exec.stderr_log import StderrLog
from headrace.adapters.meters import reason_of
from headrace.adapters.payloads.base import Decoded
from headrace.core.clock import Clock
from headrace.core.errors import ConfigError, NotConnected
from headrace.core.events import Reject
from headrace.core.paths import parse_duration_ns
from headrace.core.quality import word
from headrace.core.readings import Reading, readings
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory

LISTEN, VALUES_MAX = "5s", 200
READ_BYTES = 64 << 10
_LISTEN_NS_MAX = 60_000_000_000
_END_S = 0.4


@dataclass(slots=True)
class Program:
    """How a program is started.

    Parameters
    ----------
    secrets : what is in `environment` and in no report.
    """

    name: str
    argv: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    secrets: tuple[str, ...]


@dataclass(slots=True)
class Heard:
    """What came of a program while somebody listened; no more than a person reads."""

    directory: SensorDirectory
    found: list[Reading] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    is_full: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, decoded: Decoded) -> None:
        """Take note of a part."""
        for batch in decoded.batches:
            self.found += readings(batch, self.directory, VALUES_MAX)
        self.rejects += decoded.rejects
        if len(self.found) + len(self.rejects) >= VALUES_MAX:
            self.is_full.set()

    def report(self, facts: list[list[str]]) -> dict[str, Any]:
        """What was heard, JSON-ready."""
        rows = [[r.path, r.ts_ns, r.value, word(r.quality)] for r in self.found[:VALUES_MAX]]
        rows += [[r.source, r.arrival_ns, None, f"{r.code}: {r.detail}"] for r in self.rejects[:VALUES_MAX]]
        table = {"columns": ["path or line", "ts_ns", "value", "quality"], "rows": rows}
        return {"protocol": "exec", "facts": facts, "table": table}


def listening_s(wanted: Mapping[str, str]) -> float:
    """For how long to listen: ``for``.

    Raises
    ------
    ConfigError : an unknown word, or more than a minute.
    """
    for key in wanted:
        if key != "for":
            raise ConfigError(f"a program is looked at by for{nearest(key, ['for'])}", key)
    listen_ns = parse_duration_ns(wanted.get("for", LISTEN))
    if not 0 < listen_ns <= _LISTEN_NS_MAX:
        raise ConfigError("listen for at most 60s", "for")
    return listen_ns / 1e9


async def run_once(
    program: Program, outlet: Outlet, heard: Heard, listen_s: float, clock: Clock
) -> list[str]:
    """Run a program for a while; how it ended, and the last line of its standard error.

    Raises
    ------
    NotConnected : it can't be started.
    """
    try:
        child = await ChildProcess.start(program.argv, program.folder, program.environment)
    except OSError as e:
        raise NotConnected(f"{program.argv[0]} can't be started: {reason_of(e)}") from e
    log = StderrLog(program.name)
    listening = asyncio.create_task(log.listen(child.stderr, program.secrets))
    has_ended = False
    try:
        has_ended = await _listen(child, outlet, heard, listen_s, clock)
    finally:
        await asyncio.wait([listening], timeout=_END_S if has_ended else 0)
        code = child.close()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    if has_ended:
        _finish(outlet, heard, clock, code)
    return [how_it_ended(code) if has_ended else "still running", log.last]


async def _listen(child: ChildProcess, outlet: Outlet, heard: Heard, listen_s: float, clock: Clock) -> bool:
    """Whether the program has ended by itself in that time."""
    try:
        async with asyncio.timeout(listen_s):
            await _read(child, outlet, heard, clock)
            if not heard.is_full.is_set():
                await child.ended.wait()
    except TimeoutError:
        return False
    return not heard.is_full.is_set()


async def _read(child: ChildProcess, outlet: Outlet, heard: Heard, clock: Clock) -> None:
    while not heard.is_full.is_set() and (data := await child.stdout.read(READ_BYTES)):
        try:
            for decoded in outlet.feed(data, clock.now_ns()):
                heard.take(decoded)
        except BadOutput as e:
            heard.take(Decoded([], [e.reject]))
            heard.is_full.set()


def _finish(outlet: Outlet, heard: Heard, clock: Clock, code: int) -> None:
    try:
        for decoded in outlet.finish(clock.now_ns(), is_clean=code == 0):
            heard.take(decoded)
    except BadOutput as e:
        heard.take(Decoded([], [e.reject]))
