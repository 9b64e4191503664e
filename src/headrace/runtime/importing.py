"""History from files, through the same door as live data.

An import is an adapter that reads tables once: its frames go through intake, journal, shards and flush like those of
a device, so what was imported is durable, windowed and compressed as everything else, and a second import of the same
file stores nothing: each sample is recognised.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from headrace.adapters.abilities import Declares
from headrace.adapters.base import Adapter, AdapterDiagnostics, AdapterState, PlantFacts, Sink
from headrace.adapters.payloads.base import PayloadError, RuleSettings, TimeUnit
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.tables import PATH_COLUMNS, TableColumns, TableReader
from headrace.adapters.payloads.times import TimeReader
from headrace.adapters.replay.adapter import read_file
from headrace.core.clock import Clock, SystemClock
from headrace.core.config import PlantConfig
from headrace.core.errors import ConfigError, StorageError
from headrace.core.events import Reject, RejectCode
from headrace.core.faults import FaultPoints
from headrace.core.frames import FrameBatch
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.runtime.assemble import Blueprint, Plant, check_plant, host_settings
from headrace.store.directories import load_directory
from headrace.store.disks import plant_disk

NAME = "import"
_TOLD_MAX = 20
Progress = Callable[[str, int], None]
"""Told of the file at hand and of the samples read so far."""


@dataclass(frozen=True, slots=True)
class ImportMapping:
    """What the columns of files mean.

    Parameters
    ----------
    path : of the sensors of wide files (a column each), ending in ``{key}``; "" for long files, which have a column
        ``path`` or ``sensor``. time, value : columns; time_unit : of times given as numbers.
    only : columns of wide files to take; all where empty. renames : column → name of the signal (wide), or → one of
        ``path``, the time and the value column. units : signal → unit.
    """

    path: str = ""
    time: str = "ts"
    value: str = "value"
    time_unit: TimeUnit = "auto"
    only: tuple[str, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        group, _, last = self.path.rpartition("/")
        if self.path and (last != "{key}" or not group or "{" in group):
            raise ConfigError(f"{self.path!r} must end in a level {{key}}, the name of each column", "path")


@dataclass(slots=True)
class ImportCounts:
    """What files held: rows, samples, and samples that were refused, by code; some refusals in words."""

    files: int = 0
    rows: int = 0
    samples: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    sentences: list[str] = field(default_factory=list)

    def refuse(self, reject: Reject) -> None:
        """Count a reject."""
        self.rejected[str(reject.code)] += reject.n_samples
        if len(self.sentences) < _TOLD_MAX:
            self.sentences.append(f"{reject.source}: {reject.n_samples:,} samples: {reject.detail}")


class TableFiles:
    """Files as frames, in bounded pieces.

    Raises
    ------
    ConfigError : from `pieces`, a file that is neither long nor wide as the mapping says, before any of it is taken.
    """

    def __init__(
        self, files: Sequence[Path], mapping: ImportMapping, directory: SensorDirectory, timezone: str = "UTC"
    ) -> None:
        self._files, self._mapping = files, mapping
        self.counts = ImportCounts()
        columns = TableColumns(mapping.time, mapping.value, mapping.path.rpartition("/")[0], mapping.only)
        settings = RuleSettings(path="", max_keys=65_535, units=dict(mapping.units))
        groups = DeviceGroups(directory, 10_000_000, owns_units=False)
        times = TimeReader(mapping.time_unit, timezone)
        self._reader = TableReader(NAME, groups, times, columns, settings)

    def pieces(self) -> Iterator[tuple[str, list[FrameBatch], list[Reject]]]:
        """File name, frames and refusals, one part of a file after the other."""
        for file in self._files:
            self.counts.files += 1
            for table in self._tables(file):
                try:
                    batches, rejects = self._reader.read(self._renamed(table), file.name)
                except PayloadError as e:
                    batches, rejects = [], [Reject(e.code, NAME, file.name, e.detail, n_samples=e.n_samples)]
                self.counts.rows += table.num_rows
                self.counts.samples += sum(batch.n_samples for batch in batches)
                for reject in rejects:
                    self.counts.refuse(reject)
                yield file.name, batches, rejects

    def _tables(self, file: Path) -> Iterator[pa.RecordBatch]:
        try:
            is_first = True
            for table in read_file(file):
                if is_first:
                    self._check(file, self._renamed(table).schema.names)
                is_first = False
                yield table
        except OSError as e:
            raise ConfigError(f"can't be read: {e.strerror or e}", str(file)) from e
        except pa.ArrowException as e:
            self.counts.refuse(Reject(RejectCode.MALFORMED, NAME, file.name, str(e), n_samples=1))

    def _check(self, file: Path, names: list[str]) -> None:
        mapping = self._mapping
        if mapping.time not in names:
            raise ConfigError(
                f"no column {mapping.time!r}; --time names one of {', '.join(names)}", str(file)
            )
        is_long = any(name in names for name in PATH_COLUMNS)
        if is_long and mapping.value not in names:
            raise ConfigError(
                f"no column {mapping.value!r}; --value names one of {', '.join(names)}", str(file)
            )
        if not is_long and not mapping.path:
            raise ConfigError(
                "no column 'path', so a column is a sensor; say of which device with --path site/line/device/{key}, "
                "or name the column of the paths with --rename COLUMN=path",
                str(file),
            )

    def _renamed(self, table: pa.RecordBatch) -> pa.RecordBatch:
        names = [self._mapping.renames.get(name, name) for name in table.schema.names]
        return pa.RecordBatch.from_arrays(table.columns, names=names)


def declare_sensors(adapters: Iterable[Adapter], directory: SensorDirectory) -> None:
    """Make known what the plant's own adapters will report, so that history is stored as they will go on storing it.

    Groups that contradict what the store has are left to the adapter, which says so when it starts.
    """
    for adapter in adapters:
        if isinstance(adapter, Declares):
            with contextlib.suppress(ConfigError):
                adapter.declare(directory)


class ImportAdapter:
    """`TableFiles` as an adapter; `finished` returns when all was handed on. `others` are those of the plant."""

    Config: ClassVar[type[Any]] = dict

    def __init__(
        self,
        files: Sequence[Path],
        mapping: ImportMapping,
        timezone: str,
        tell: Progress,
        others: Sequence[Adapter] = (),
    ) -> None:
        self.name = NAME
        self.counts = ImportCounts()
        self._files, self._mapping, self._timezone, self._tell = files, mapping, timezone, tell
        self._others = others
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def from_config(cls, name: str, config: Any, profiles: Any, plant: PlantFacts) -> Self:
        """An import is no part of a plant file."""
        raise ConfigError("files are imported with: headrace import", f"adapters.{name}")

    async def start(self, sink: Sink) -> None:
        """Begin to read."""
        declare_sensors(self._others, sink.directory)
        tables = TableFiles(self._files, self._mapping, sink.directory, self._timezone)
        self.counts = tables.counts
        self._task = asyncio.create_task(self._run(tables, sink), name=NAME)

    async def _run(self, tables: TableFiles, sink: Sink) -> None:
        n = 0
        for file, batches, rejects in tables.pieces():
            now_ns = sink.clock.now_ns()
            for reject in rejects:
                await sink.reject(replace(reject, arrival_ns=now_ns))
            for batch in batches:
                await sink.emit(batch.with_(arrival_ns=now_ns, sequence=n))
                n += batch.n_frames
            self._tell(file, tables.counts.samples)
            await sink.clock.sleep(0)

    async def finished(self) -> None:
        """Wait until everything was handed on. Raises what ended the reading."""
        if self._task is not None:
            await self._task

    async def stop(self) -> None:
        """End the reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts."""
        done = self._task is not None and self._task.done()
        state = AdapterState.STOPPED if done else AdapterState.CONNECTED
        return AdapterDiagnostics(self.name, NAME, state, n_samples=self.counts.samples)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, in samples. `duplicates` were in the store already, bit for bit; `derived` are new of pipelines."""

    counts: ImportCounts
    stored: int
    duplicates: int
    derived: int


async def import_files(
    config: PlantConfig,
    files: Sequence[Path],
    mapping: ImportMapping,
    *,
    tell: Progress = lambda file, n: None,
    clock: Clock | None = None,
) -> Imported:
    """Read files into the store of a plant; its pipelines run over what is new.

    Raises
    ------
    StorageError : an engine uses the store, or the disk refuses. ConfigError : the files are not as the mapping says.
    """
    checked = check_plant(config)
    adapter = ImportAdapter(files, mapping, config.plant.timezone, tell, tuple(checked.adapters.values()))
    plant = Plant(
        Blueprint(config, {NAME: adapter}, checked.flows),
        clock=clock or SystemClock(), faults=FaultPoints(), settings=host_settings(config),
    )  # fmt: skip
    failed = asyncio.Event()
    plant.on_failure(failed.set)
    await plant.start()
    try:
        reading, broken = asyncio.ensure_future(adapter.finished()), asyncio.ensure_future(failed.wait())
        await asyncio.wait([reading, broken], return_when=asyncio.FIRST_COMPLETED)
        broken.cancel()
        if plant.failure:
            reading.cancel()
            raise StorageError(plant.failure)
        reading.result()
    finally:
        await plant.stop(timeout_s=600.0)
    if plant.failure:
        raise StorageError(plant.failure)
    found = plant.summary()
    return Imported(adapter.counts, found["stored"], found["duplicates"], found["derived"])


def preview_files(
    config: PlantConfig, files: Sequence[Path], mapping: ImportMapping
) -> tuple[ImportCounts, list[str]]:
    """What an import would take, and paths of the sensors; nothing is written.

    Raises
    ------
    ConfigError : as `import_files`.
    """
    directory = load_directory(plant_disk(config))
    declare_sensors(check_plant(config).adapters.values(), directory)
    tables = TableFiles(files, mapping, directory, config.plant.timezone)
    paths: set[str] = set()
    for _, batches, _ in tables.pieces():
        for batch in batches:
            paths |= _sensors_of(batch, directory)
    return tables.counts, sorted(paths)


def _sensors_of(batch: FrameBatch, directory: SensorDirectory) -> set[str]:
    """Paths of the sensors that a batch has samples of."""
    if batch.start is None:
        quality = np.zeros(batch.values.shape, np.uint8) if batch.quality is None else batch.quality
        frame, column = np.nonzero(quality < Quality.ABSENT)
    else:
        assert batch.column is not None
        frame = np.repeat(np.arange(batch.n_frames), np.diff(batch.start))
        column = batch.column.astype(np.int64)
    places = np.unique(np.stack([batch.slot[frame].astype(np.int64), column]), axis=1)
    return {directory.sensor_path(slot, at) for slot, at in places.T.tolist()}
