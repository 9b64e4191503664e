"""The sim adapter: sensors that exist nowhere, as if a device sent them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.adapters.abilities import FoundTag
from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics, PlantFacts, Sink
from headrace.adapters.meters import Backoff, seconds
from headrace.adapters.sim.config import SimConfig, SimFault
from headrace.adapters.sim.simulator import F64, SignalModel
from headrace.core.clock import NO_TIME, NS, Clock, thread_cpu_ns
from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Layout, numpy_dtype
from headrace.core.paths import check_path, pattern_regex
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory, join_path

NUMBER = "{n}"
PROBED_MAX = 1_000
RETRY_FIRST_NS, RETRY_MOST_NS = NS // 4, 10 * NS
_log = logging.getLogger("headrace.adapters.sim")
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Part:
    """The signals of one value type: which they are, and their layout."""

    layout: Layout
    columns: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Fault:
    """A fault and the sensors that have it, ``bool[devices, signals]``."""

    settings: SimFault
    has: Bool

    def onset_ns(self, since_ns: int) -> int | None:
        """How long the fault has lasted, `since_ns` after the start; None while it does not."""
        fault = self.settings
        into_ns = since_ns - (fault.after or 0)
        if into_ns < 0:
            return None
        into_ns = into_ns % fault.every if fault.every else into_ns
        return into_ns if fault.lasts is None or into_ns < fault.lasts else None


class SimAdapter:
    """Simulated values as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[SimConfig]] = SimConfig

    def __init__(self, name: str, config: SimConfig, paths: Sequence[str]) -> None:
        self.name = name
        self._config = config
        self._paths = tuple(paths)
        self._names = tuple(config.signals)
        self._model = SignalModel(config.seed, len(paths), tuple(config.signals.values()))
        self._parts = _parts(config)
        self._faults = [_Fault(fault, self._matching(fault.match)) for fault in config.faults]
        self._task: asyncio.Task[None] | None = None
        self._began_ns = 0
        self._state, self._reason = AdapterState.STARTING, ""
        self._since_ns = self._last_good_ns = self._retry_ns = NO_TIME
        self._backoff = Backoff(name, RETRY_FIRST_NS, RETRY_MOST_NS)
        self._n_ticks = self._n_skipped = self._n_frames = self._n_samples = self._cpu_ns = 0

    @classmethod
    def from_config(cls, name: str, config: SimConfig, profiles: Any, plant: PlantFacts) -> SimAdapter:
        """Make the paths.

        Raises
        ------
        ConfigError : the path has no {n} though there are many devices, or other levels than the plant.
        """
        where = f"adapters.{name}.path"
        levels = plant.levels or ("site", "area", "line", "device", "signal")
        path = config.path or "/".join([*(f"{level}1" for level in levels[:-2]), f"{levels[-2]}{NUMBER}"])
        if config.count > 1 and NUMBER not in path:
            raise ConfigError(f"{path!r} must have {NUMBER} in it, the number of each device", where)
        n_levels = path.count("/") + 2
        if plant.levels and n_levels != len(levels):
            raise ConfigError(
                f"{path!r} and a signal are {n_levels} levels, expected {len(levels)}: {'/'.join(levels)}",
                where,
            )
        try:
            check_path(path.replace(NUMBER, str(config.count)))
            for signal in config.signals:
                check_path(signal)
                if "/" in signal:
                    raise ConfigError(f"signal {signal!r} has a '/', which parts levels")
        except ConfigError as e:
            raise ConfigError(e.message, where.removesuffix(".path")) from e
        return cls(name, config, [path.replace(NUMBER, str(i + 1)) for i in range(config.count)])

    def _matching(self, pattern: str) -> Bool:
        matches = pattern_regex(pattern).fullmatch
        return np.array(
            [[bool(matches(join_path(p, n))) for n in self._names] for p in self._paths], np.bool_
        )

    def declare(self, directory: SensorDirectory) -> None:
        """Define the groups of all devices. Raises `ConfigError` where another adapter has one of the sensors."""
        self.define(directory)

    def define(self, directory: SensorDirectory) -> list[npt.NDArray[np.uint32]]:
        """Define the groups of all devices: for each value type their slots, as `batches` takes them. Raises as `declare`."""
        return [directory.define_many(self._paths, part.layout, part.layout.dtype) for part in self._parts]

    async def start(self, sink: Sink) -> None:
        """Define the groups and begin to simulate.

        Raises
        ------
        ConfigError : another adapter has one of the sensors.
        """
        slots = self.define(sink.directory)
        self._began_ns = sink.clock.now_ns()
        self._enter(AdapterState.STARTING, "the first values come with the next interval", sink.clock)
        self._task = asyncio.create_task(self._run(sink, slots), name=f"sim {self.name}")

    async def stop(self) -> None:
        """End simulating."""
        task, self._task = self._task, None
        self._state, self._reason, self._retry_ns = AdapterState.STOPPED, "", NO_TIME
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts; all devices together are the one device."""
        text = self._paths[0] if len(self._paths) == 1 else f"{self._paths[0]} ... {self._paths[-1]}"
        device = DeviceDiagnostics(
            text, self._state, self._reason, self._last_good_ns, self._retry_ns, self._n_ticks,
            n_polls_skipped=self._n_skipped,
        )  # fmt: skip
        return AdapterDiagnostics(
            self.name, "sim", self._state, self._reason, self._since_ns, len(self._paths) * len(self._names), (device,),
            self._n_samples, self._n_frames, decode_ns=self._cpu_ns,
        )  # fmt: skip

    def _enter(self, state: AdapterState, reason: str, clock: Clock) -> None:
        if state is not self._state or self._since_ns == NO_TIME:
            self._since_ns = clock.now_ns()
        self._state, self._reason = state, reason

    # --- ticks ---------------------------------------------------------------------------------------

    async def _run(self, sink: Sink, slots: list[npt.NDArray[np.uint32]]) -> None:
        interval_ns, clock = self._config.interval, sink.clock
        while True:
            await clock.sleep(seconds(interval_ns - clock.now_ns() % interval_ns))
            ts_ns = clock.now_ns() // interval_ns * interval_ns
            if not sink.has_credit(len(self._paths) * len(self._names)):
                self._n_skipped += 1
                continue
            try:
                await self._tick(ts_ns, sink, slots)
            except Exception as e:
                await self._refused(e, clock)

    async def _tick(self, ts_ns: int, sink: Sink, slots: list[npt.NDArray[np.uint32]]) -> None:
        cpu_ns = thread_cpu_ns()
        batches = self.batches(ts_ns, slots)
        self._cpu_ns += thread_cpu_ns() - cpu_ns
        for batch in batches:
            await sink.emit(batch.with_(sequence=self._n_frames, arrival_ns=sink.clock.now_ns()))
            self._n_frames += batch.n_frames
            self._n_samples += batch.n_samples
            self._last_good_ns = ts_ns
        self._n_ticks += 1
        if self._state is AdapterState.BACKOFF:
            _log.info("adapter=%s: its values are taken again", self.name)
        self._backoff.reset()
        self._retry_ns = NO_TIME
        self._enter(AdapterState.CONNECTED, "", sink.clock)

    async def _refused(self, error: Exception, clock: Clock) -> None:
        """Wait for a sink that takes nothing: what comes meanwhile is lost, as it is with a device."""
        reason = f"values are not taken: {str(error) or repr(error)}"
        if self._state is not AdapterState.BACKOFF:
            _log.warning("adapter=%s: %s; trying again", self.name, reason)
        wait_ns = self._backoff.next_ns()
        self._retry_ns = clock.now_ns() + wait_ns
        self._enter(AdapterState.BACKOFF, reason, clock)
        await clock.sleep(seconds(wait_ns))

    def batches(self, ts_ns: int, slots: Sequence[npt.NDArray[np.uint32]]) -> list[FrameBatch]:
        """Frames of all devices at a time, a batch for each value type."""
        values, is_silent = self._values(ts_ns)
        out = []
        for part, slot in zip(self._parts, slots, strict=True):
            some = values if len(self._parts) == 1 else values[:, part.columns]
            some = some.astype(numpy_dtype(part.layout.dtype), copy=False)
            if is_silent is None:
                ts = np.full(len(slot), ts_ns, np.int64)
                out.append(FrameBatch.dense(slot, ts, some, origin=self.name))
                continue
            absent = is_silent[:, part.columns]
            rows = np.flatnonzero(~absent.all(axis=1))
            quality = (
                np.where(absent[rows], np.uint8(Quality.ABSENT), np.uint8(0)) if absent[rows].any() else None
            )
            if len(rows):
                ts = np.full(len(rows), ts_ns, np.int64)
                out.append(FrameBatch.dense(slot[rows], ts, some[rows], quality, origin=self.name))
        return out

    def _values(self, ts_ns: int) -> tuple[F64, Bool | None]:
        """Values at a time with all faults, and which are silent; None where none is."""
        interval_ns = self._config.interval
        values = self._model.values(ts_ns, ts_ns // interval_ns)
        is_silent: Bool | None = None
        for fault in self._faults:
            lasted_ns = fault.onset_ns(ts_ns - self._began_ns)
            if lasted_ns is None:
                continue
            if fault.settings.kind == "silent":
                is_silent = fault.has if is_silent is None else is_silent | fault.has
            elif fault.settings.kind == "drift":
                values[fault.has] += fault.settings.by * lasted_ns / NS
            else:
                onset_ns = ts_ns - lasted_ns
                values[fault.has] = self._model.values(onset_ns, onset_ns // interval_ns)[fault.has]
        return values, is_silent

    # --- looking -------------------------------------------------------------------------------------

    async def probe(self, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """What the first thousand sensors would say now; nothing can be wanted of it. Raises ConfigError."""
        tags = await self.scan(wanted, clock)
        values = [{"path": join_path(t.device, t.name), "value": t.value, "ts_ns": t.ts_ns} for t in tags]
        rows = [[v["path"], v["ts_ns"], v["value"]] for v in values[:PROBED_MAX]]
        table = {"columns": ["path", "ts_ns", "value"], "rows": rows}
        return {
            "protocol": "sim",
            "values": values[:PROBED_MAX],
            "facts": [["sensors", f"{len(tags):,}"]],
            "table": table,
        }

    async def scan(self, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """All sensors and what they would say now. Raises ConfigError: nothing can be wanted."""
        if wanted:
            raise ConfigError(
                "simulated sensors are looked at all together; leave this out", next(iter(wanted))
            )
        now_ns = clock.now_ns()
        self._began_ns = self._began_ns or now_ns
        values, is_silent = self._values(now_ns)
        return [
            FoundTag(
                path, name, name, signal.dtype, signal.unit, signal.column(name).kind.name.lower(),
                None if is_silent is not None and is_silent[row, at] else values[row, at].item(), now_ns,
            )
            for row, path in enumerate(self._paths)
            for at, (name, signal) in enumerate(self._config.signals.items())
        ]  # fmt: skip


def _parts(config: SimConfig) -> list[_Part]:
    by_dtype: dict[str, list[int]] = {}
    for at, signal in enumerate(config.signals.values()):
        by_dtype.setdefault(signal.dtype, []).append(at)
    columns = [signal.column(name) for name, signal in config.signals.items()]
    return [
        _Part(Layout(dtype, tuple(columns[i] for i in some)), np.array(some, np.int64))
        for dtype, some in by_dtype.items()
    ]
