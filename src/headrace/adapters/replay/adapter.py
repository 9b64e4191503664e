"""The replay adapter: plays files of samples as if a device sent them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics, PlantFacts, Sink
from headrace.adapters.meters import Backoff, reason_of, seconds
from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.tables import TableColumns, TableReader
from headrace.adapters.payloads.times import TimeReader
from headrace.adapters.replay.config import ReplayConfig
from headrace.core.clock import NO_TIME, NS, thread_cpu_ns
from headrace.core.errors import ConfigError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch

BATCH_ROWS = 65_536
SLICE_NS = 20_000_000
LOOK_FIRST_NS, LOOK_MOST_NS = NS // 4, 10 * NS
_SUFFIXES = (".parquet", ".csv")
_log = logging.getLogger("headrace.adapters.replay")


class ReplayAdapter:
    """Files as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[ReplayConfig]] = ReplayConfig

    def __init__(self, name: str, config: ReplayConfig, group: str, plant: PlantFacts) -> None:
        self.name = name
        self._config = config
        self._group = group
        self._plant = plant
        self._task: asyncio.Task[None] | None = None
        self._sink: Sink | None = None
        self._groups: DeviceGroups | None = None
        self._state = AdapterState.STARTING
        self._reason = ""
        self._since_ns = NO_TIME
        self._retry_ns = NO_TIME
        self._last_good_ns = NO_TIME
        self._shift_ns: int | None = None if config.shift else 0
        self._began: tuple[int, int] | None = None
        self._seen: set[Path] = set()
        self._n_samples = self._n_bytes = 0
        self._n_frames = 0
        self._n_rejects = 0
        self._decode_ns = 0
        self._is_stopped = False
        self._may_play = asyncio.Event()
        self._may_play.set()

    @classmethod
    def from_config(cls, name: str, config: ReplayConfig, profiles: Any, plant: PlantFacts) -> ReplayAdapter:
        """Check the path; the files are looked for when it starts.

        Raises
        ------
        ConfigError : the path does not end in {key} or has the wrong number of levels.
        """
        group, _, last = config.path.rpartition("/")
        where = f"adapters.{name}.path"
        if config.path and (last != "{key}" or "{" in group):
            raise ConfigError(f"{config.path!r} must end in a level {{key}}, the name of each column", where)
        n_levels = config.path.count("/") + 1
        if config.path and plant.levels and n_levels != len(plant.levels):
            levels = "/".join(plant.levels)
            raise ConfigError(
                f"{config.path!r} has {n_levels} levels, expected {len(plant.levels)}: {levels}", where
            )
        return cls(name, config, group, plant)

    async def start(self, sink: Sink) -> None:
        """Begin to play."""
        self._sink = sink
        self._groups = DeviceGroups(sink.directory, self._config.max_sensors, owns_units=False)
        self._enter(AdapterState.STARTING, "", sink)
        self._task = asyncio.create_task(self._run(sink, self._groups), name=f"replay {self.name}")

    def suspend(self) -> None:
        """Play no further for now: a new instance would begin with the first file again."""
        self._may_play.clear()

    def proceed(self) -> None:
        """Play on; frames whose time has passed meanwhile come at once."""
        self._may_play.set()

    async def finished(self) -> None:
        """Wait until all files have been played."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Stop playing; what was read and not handed on stays in the file."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts; the files together are the one device."""
        state = AdapterState.STOPPED if self._is_stopped else self._state
        files = self._config.files if isinstance(self._config.files, str) else ", ".join(self._config.files)
        device = DeviceDiagnostics(
            files, state, self._reason, self._last_good_ns, self._retry_ns, len(self._seen), self._n_rejects
        )
        return AdapterDiagnostics(
            self.name, "replay", state, self._reason, self._since_ns,
            self._groups.n_sensors if self._groups else 0, (device,), self._n_samples, self._n_frames,
            self._n_rejects, n_bytes=self._n_bytes, decode_ns=self._decode_ns,
        )  # fmt: skip

    def _enter(self, state: AdapterState, reason: str, sink: Sink) -> None:
        if state is not self._state or self._since_ns == NO_TIME:
            self._since_ns = sink.clock.now_ns()
        self._state, self._reason = state, reason

    # --- playing -------------------------------------------------------------------------------------

    async def _run(self, sink: Sink, groups: DeviceGroups) -> None:
        try:
            await self._play_all(sink, groups)
        except Exception as e:
            _log.error("adapter=%s stopped playing: %s", self.name, str(e) or repr(e))
            self._enter(AdapterState.FAILED, str(e) or repr(e), sink)

    async def _play_all(self, sink: Sink, groups: DeviceGroups) -> None:
        config = self._config
        reader = TableReader(
            self.name, groups, TimeReader(config.time_unit, self._plant.timezone),
            TableColumns(config.time, config.value, self._group, config.columns),
        )  # fmt: skip
        while config.follow or not self._seen:
            files = await self._find(sink)
            self._enter(AdapterState.CONNECTED, "", sink)
            for file in files:
                await self._play_file(file, reader, sink)
                self._seen.add(file)
        _log.info("adapter=%s played %d files, %d samples", self.name, len(self._seen), self._n_samples)
        self._enter(AdapterState.STOPPED, f"all {len(self._seen)} files were played", sink)

    async def _find(self, sink: Sink) -> list[Path]:
        """Files that were not played yet; waits for ever until there is one."""
        patterns = [self._config.files] if isinstance(self._config.files, str) else self._config.files
        backoff = Backoff(self.name, LOOK_FIRST_NS, LOOK_MOST_NS)
        reason = f"no .parquet or .csv file {', '.join(patterns)} in {self._plant.folder.absolute()}"
        while True:
            found = [path for pattern in patterns for path in find_files(self._plant.folder, pattern)]
            new = [path for path in dict.fromkeys(found) if path not in self._seen]
            if new:
                self._retry_ns = NO_TIME
                if self._state is AdapterState.FAILED:
                    _log.info("adapter=%s has found %d files", self.name, len(new))
                return new
            if not self._seen:
                if self._state is not AdapterState.FAILED:
                    _log.warning("adapter=%s %s; looking again", self.name, reason)
                self._enter(AdapterState.FAILED, reason, sink)
            wait_ns = backoff.next_ns()
            self._retry_ns = sink.clock.now_ns() + wait_ns
            await sink.clock.sleep(seconds(wait_ns))

    async def _play_file(self, file: Path, reader: TableReader, sink: Sink) -> None:
        tables = read_file(file)
        while True:
            cpu_ns = thread_cpu_ns()
            try:
                table = next(tables, None)
                if table is None:
                    return
                self._n_bytes += table.nbytes
                batches, rejects = reader.read(table, file.name)
            except PayloadError as e:
                await self._refuse(
                    Reject(e.code, self.name, file.name, e.detail, n_samples=e.n_samples), sink
                )
                return
            except (OSError, pa.ArrowException) as e:
                detail = reason_of(e) if isinstance(e, OSError) else str(e)
                await self._refuse(Reject(RejectCode.MALFORMED, self.name, file.name, detail), sink)
                return
            self._decode_ns += thread_cpu_ns() - cpu_ns
            for reject in rejects:
                await self._refuse(reject, sink)
            await self._play(batches, sink)

    async def _refuse(self, reject: Reject, sink: Sink) -> None:
        await sink.reject(replace(reject, arrival_ns=sink.clock.now_ns()))
        self._n_rejects += 1

    async def _play(self, batches: list[FrameBatch], sink: Sink) -> None:
        """Hand on batches, each frame when its time has come."""
        times = [batch.ts_ns for batch in batches if batch.n_frames]
        if not times:
            return
        first_ns = int(min(ts_ns.min() for ts_ns in times))
        if self._shift_ns is None:
            self._shift_ns = sink.clock.now_ns() - first_ns
        speed = self._config.speed
        if speed == "max":
            for batch in batches:
                await self._emit(batch, sink)
            return
        began_ns, began_plant_ns = self._began = self._began or (sink.clock.now_ns(), first_ns)
        batches = [batch.take(np.argsort(batch.ts_ns, kind="stable")) for batch in batches]
        at = [0] * len(batches)
        for due_ns in np.unique(np.concatenate(times)).tolist():
            wait_ns = (due_ns - began_plant_ns) / float(speed) - (sink.clock.now_ns() - began_ns)
            if wait_ns > 0:
                await self._emit_until(due_ns - 1, batches, at, sink)
                await sink.clock.sleep(max(wait_ns, SLICE_NS) / NS)
        await self._emit_until(-NO_TIME - 1, batches, at, sink)

    async def _emit_until(self, ts_ns: int, batches: list[FrameBatch], at: list[int], sink: Sink) -> None:
        for number, batch in enumerate(batches):
            end = int(np.searchsorted(batch.ts_ns, ts_ns, side="right"))
            if end > at[number]:
                await self._emit(batch.slice(at[number], end), sink)
                at[number] = end

    async def _emit(self, batch: FrameBatch, sink: Sink) -> None:
        await self._may_play.wait()
        batch = batch.with_(
            ts_ns=batch.ts_ns + (self._shift_ns or 0), arrival_ns=sink.clock.now_ns(), sequence=self._n_frames
        )
        await sink.emit(batch)
        self._n_frames += batch.n_frames
        self._n_samples += batch.n_samples
        self._last_good_ns = sink.clock.now_ns()


def find_files(folder: Path, pattern: str) -> list[Path]:
    """Files that `pattern` names or matches, in the order of their names; only those that can be read."""
    path = folder / pattern
    found = (
        [path]
        if path.is_file()
        else sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    )
    return [file for file in found if file.suffix in _SUFFIXES and file.is_file()]


def read_file(file: Path) -> Iterator[Any]:
    """The record batches of a file.

    Raises
    ------
    OSError : it can't be read; pyarrow.ArrowException : it is not what its name says.
    """
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as parquet:
            yield from parquet.iter_batches(BATCH_ROWS, use_threads=False)
    else:
        with pa.csv.open_csv(file) as lines:
            yield from lines
