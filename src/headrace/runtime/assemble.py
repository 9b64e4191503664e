"""The only composition root: a plant file becomes a running plant.

``build_plant`` checks everything that can be checked without I/O and makes the parts; `Plant.start` opens the
store, recovers, and starts what moves, from the store outwards: journal and shards, then intake, then adapters.
`Plant.stop` goes the other way, so that nothing accepted is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.adapters.base import Adapter, AdapterDiagnostics, Pushed, Receipt
from headrace.adapters.pacing import ConnectPacer
from headrace.core.clock import NS, Clock, SystemClock, monotonic_ns
from headrace.core.config import PlantConfig
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, HeadraceError, StorageError
from headrace.core.events import Event
from headrace.core.faults import FaultPoints
from headrace.core.frames import FrameBatch
from headrace.core.problems import InvalidConfig, Problem
from headrace.core.tls import tls_files
from headrace.ingest.intake import Intake
from headrace.ingest.intake_core import IntakeCounters, IntakeSettings
from headrace.ingest.journal import DamagePolicy, JournalSettings
from headrace.metrics.exposition import Metrics
from headrace.pipeline.flows import FlowSpec
from headrace.runtime.adapter_making import make_adapter
from headrace.runtime.codec_choice import CodecChoices
from headrace.runtime.compaction import BackgroundCompaction, share_of
from headrace.runtime.diagnostics import TagsWish, tags_report
from headrace.runtime.engine import is_fatal
from headrace.runtime.engine_core import EngineSettings
from headrace.runtime.event_log import EventLog
from headrace.runtime.gateways import Gateways
from headrace.runtime.host import Host, HostSettings
from headrace.runtime.operations import Operations
from headrace.runtime.reconfigure import Reconfiguring
from headrace.runtime.replay import RejectsReplay
from headrace.runtime.report import Report
from headrace.runtime.staged_tables import finish_tables
from headrace.runtime.supervision import Supervisor
from headrace.runtime.tiers_report import TiersView
from headrace.store.compactor import CompactionPolicy, Compactor
from headrace.store.disks import mark_folder, plant_disk
from headrace.store.query import Store
from headrace.store.rollups import Rollups
from headrace.store.tiers import TierRules

_EVENTS_MAX = 200
_RESERVE_BYTES, _RESERVE_SHARE = 64 << 20, 32
_OBJECT_BYTES, _OBJECT_BYTES_MIN = 64 << 20, 64 << 10
_IN_FLIGHT_MIN = 10_000


MakeAdapter = Callable[[PlantConfig, str, ConnectPacer], Adapter]


@dataclass(frozen=True)
class Blueprint:
    """A checked plant file: configured adapters and pipelines, nothing started."""

    config: PlantConfig
    adapters: dict[str, Adapter]
    flows: tuple[FlowSpec, ...]


def check_plant(config: PlantConfig, make: MakeAdapter = make_adapter) -> Blueprint:
    """Check what only the owners of protocols and operators can check; no I/O but files beside the plant file.

    Parameters
    ----------
    make : makes an adapter, given the pacer that all share; default: one for this process.

    Raises
    ------
    InvalidConfig : every problem found.
    """
    problems: list[Problem] = []
    adapters: dict[str, Adapter] = {}
    pacer = ConnectPacer()
    for name in config.adapters:
        try:
            adapters[name] = make(config, name, pacer)
        except InvalidConfig as e:
            problems += e.problems
        except ConfigError as e:
            problems.append(Problem(e.where or f"adapters.{name}", e.message))
    flows = []
    for name, pipeline in config.pipelines.items():
        try:
            folder = str(config.folder)
            flows.append(FlowSpec(name, pipeline.read, pipeline.steps, pipeline.write, folder))
        except ConfigError as e:
            problems.append(Problem(e.where or f"pipelines.{name}", e.message))
    try:
        tls_files(config.api, config.folder, "api")
    except ConfigError as e:
        problems.append(Problem(e.where, e.message))
    try:
        CodecChoices(config.codecs)
    except InvalidConfig as e:
        problems += e.problems
    if problems:
        raise InvalidConfig(problems)
    return Blueprint(config, adapters, tuple(flows))


class Plant:
    """A plant that runs, or is about to.

    Attributes
    ----------
    directory, store, journal : there once started. metrics : always. events : the last 200.
    state : stopped, starting, running, stopping or failed; failure : why, in a sentence.

    Parameters
    ----------
    gateways : what has made the adapters of `blueprint`; default: they were made to run in this process.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        clock: Clock,
        faults: FaultPoints,
        settings: HostSettings,
        gateways: Gateways | None = None,
    ) -> None:
        self.config = blueprint.config
        self.events = EventLog(_EVENTS_MAX)
        self.metrics = Metrics()
        self.state = "stopped"
        self.failure = ""
        self._blueprint, self._clock, self._faults, self._settings = blueprint, clock, faults, settings
        self._disk = LocalDisk(self.config.store_folder)
        self._store_disk = plant_disk(self.config, self._disk)
        self._host: Host | None = None
        self._compaction: BackgroundCompaction | None = None
        self._tiers: TiersView | None = None
        self._is_stopped = False
        self._failing = threading.Lock()
        self._on_failure: Callable[[], None] | None = None
        self._report = Report(self.metrics, clock, self._disk, self._store_disk)
        self.supervisor = Supervisor(blueprint.adapters, self._disk, clock, self._event)
        makers = gateways or Gateways(clock)
        check = partial(check_plant, make=makers.make)
        self.reconfiguring = Reconfiguring(
            self.config, self._disk, clock, self.supervisor, check, makers, self._event
        )

    @property
    def flows(self) -> tuple[FlowSpec, ...]:
        """Its pipelines."""
        return self._blueprint.flows

    # --- start ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open, recover, run.

        Raises
        ------
        StorageError : the store folder can't be used, or another process uses it.
        CorruptionError : the journal is damaged where records after the damage exist.
        """
        self.state = "starting"
        self._loop = asyncio.get_running_loop()
        try:
            self._disk.lock()
            mark_folder(self._store_disk)
            self._host = host = await asyncio.to_thread(self._open)
        except BaseException:
            self._disk.unlock()
            self.state = "failed"
            raise
        for sentence in host.recovered.sentences:
            self._event("store.repaired", sentence, {})
        self.directory, self.store, self.journal = host.directory, host.store, host.journal
        self.intake = Intake(host.core, on_event=self.events.append, on_failed=self._failed)
        host.wait_durable = self.intake.wait_durable
        host.on_processed = self.intake.processed
        self._report.watch(host, self.intake, self.adapters, self.config.runtime.stale_after)
        await self.intake.start()
        host.engine.start()
        self._compaction = self._background(host)
        self._compaction.start()
        await self.supervisor.start(self.intake)
        self._begin_operations(host)
        self.state = "running"

    def _background(self, host: Host) -> BackgroundCompaction:
        stopping, store = threading.Event(), host.store
        pace, rules = share_of(self.config.store, stopping), TierRules(self.config.tiers)
        policy = CompactionPolicy(pace=pace, resolutions_ns=self.config.store.resolutions_ns)
        compactor = Compactor(
            store, self._clock, faults=self._faults, incarnation=host.journal.recovery.incarnation,
            choice_of=CodecChoices(self.config.codecs).of, rules=rules, policy=policy,
        )  # fmt: skip
        self._tiers = TiersView(store, rules, self._clock, compactor.holdings, policy)
        return BackgroundCompaction(
            compactor,
            lambda text: self._event("store.compaction", text, {}),
            rollups=self._rollups(store),
            stopping=stopping,
        )

    def tiers(self) -> dict[str, Any]:
        """What the tiers' rules hold, and what is due, JSON-ready; reads headers, so ask it from a thread."""
        return (
            {"rules": [], "compaction": None, "due": [], "damaged": []}
            if self._tiers is None
            else self._tiers.status(tries=False)
        )

    def _rollups(self, store: Store) -> Rollups | None:
        if self.config.store.rollups == "off":
            return None
        return Rollups(store, self._clock, self.config.plant.levels)

    def _begin_operations(self, host: Host) -> None:
        try:
            self.reconfiguring.begin(host.reflow)
        except StorageError as e:
            self._event("config.not-kept", f"this configuration is not kept for undo: {e}", {})
        replay = RejectsReplay(host.rejects, self.intake, self.supervisor.get)
        self.operations = Operations(self.supervisor, self.reconfiguring, host.rejects, replay, self._clock)

    def _open(self) -> Host:
        return Host(
            self._store_disk,
            self._clock,
            self._blueprint.flows,
            settings=self._with_reserve(self._settings),
            faults=self._faults,
            on_refusal=self._refused,
            on_failed=self._failed,
        )

    def _with_reserve(self, settings: HostSettings) -> HostSettings:
        """Leave some space to the store, which frees the journal; little of a small disk."""
        reserve_bytes = min(_RESERVE_BYTES, self._disk.free_bytes() // _RESERVE_SHARE)
        return replace(settings, journal=replace(settings.journal, reserve_bytes=reserve_bytes))

    def _failed(self, error: Exception) -> None:
        """A thread says that the host must stop; the first reason counts. Nothing is acknowledged any more."""
        with self._failing:
            if self.failure:
                return
            self.failure = is_fatal(error)
        self.state = "failed"
        self._event("plant.failed", self.failure, {})
        self.intake.fail(error)
        if self._on_failure is not None:
            self._loop.call_soon_threadsafe(self._on_failure)

    def _refused(self, text: str) -> None:
        """The store's disk begins to refuse, or takes again; said from the committer's thread."""
        if text:
            self._event("store.refused", f"{text}; it is tried again, what was received is kept", {})
        else:
            self._event("store.recovered", "the store is written again; nothing that was taken is lost", {})

    def on_failure(self, call: Callable[[], None]) -> None:
        """Call `call` on the event loop once, if the engine ends by itself."""
        self._on_failure = call

    def _event(self, kind: str, text: str, fields: Mapping[str, Any]) -> None:
        self.events.append(Event(self._clock.now_ns(), kind, text, dict(fields)))

    # --- stop ----------------------------------------------------------------------------------------

    async def stop(self, timeout_s: float = 10.0) -> None:
        """Drain: adapters, intake, shards, a last flush with snapshots; then let go of the store. Idempotent.

        What can't be flushed in time, or because the disk refuses, is in the journal: the next start has it. What
        the journal has not taken either was never acknowledged.
        """
        host = self._host
        if host is None or self._is_stopped:
            return
        self._is_stopped = True
        until_ns = monotonic_ns() + int(timeout_s * NS)
        if not self.failure:
            self.state = "stopping"
        await self.supervisor.stop(timeout_s / 2)
        try:
            if not self.failure:
                await self._drain(host, until_ns)
        finally:
            if self._compaction is not None:
                self._compaction.stop()
            await asyncio.to_thread(host.engine.stop)
            await self.intake.stop()
            with contextlib.suppress(HeadraceError):  # it has said so, and nobody was told otherwise
                await asyncio.to_thread(host.journal.close)
            self._disk.unlock()
            self.state = "failed" if self.failure else "stopped"

    async def _drain(self, host: Host, until_ns: int) -> None:
        """Make durable and flush what was taken, as far as time and disk allow."""

        def left_s() -> float:
            return max(0.0, (until_ns - monotonic_ns()) / NS)

        why = ""
        try:
            async with asyncio.timeout(left_s() / 2):
                await self.intake.drain()
        except TimeoutError:
            why = self.intake.status().reason or "the disk is too slow"
        except HeadraceError as e:
            why = str(e)
        if why:
            self._event("plant.stopped", f"not all that came was taken, it was not acknowledged: {why}", {})
        if host.journal.durable_seq < host.delivered_seq:
            return  # what the journal does not hold can't be committed, nor the state that it is part of
        if not await asyncio.to_thread(host.engine.flush, left_s()):
            why = host.engine.committer.counters.refusal or "there was not enough time"
            self._event("plant.stopped", f"not all was flushed, the journal has it: {why}", {})

    # --- looking -------------------------------------------------------------------------------------

    def adapters(self) -> list[AdapterDiagnostics]:
        """Diagnostics of every adapter, with what the plant counts and configures for it."""
        counters = IntakeCounters() if self._host is None else self._host.core.counters
        hashes = self.reconfiguring.running.by_adapter
        return [
            replace(
                found,
                rejects_by_code=tuple(
                    (str(code), n) for (name, code), n in counters.rejected.items() if name == found.name
                ),
                normalise_ns=counters.normalise_ns[found.name],
                config_hash=hashes.get(found.name, ""),
            )
            for found in self.supervisor.diagnostics()
        ]

    def tags(self, name: str, wish: TagsWish) -> dict[str, Any]:
        """When each signal of an adapter was last good, see `tags_report`; while it runs. Raises `NotFound`."""
        adapter = self.supervisor.get(name)
        devices = adapter.diagnostics().devices
        assert self._host is not None
        ages = self._host.core.health.of_adapter(name, [device.path for device in devices])
        return tags_report(self.directory, ages, devices, self._clock.now_ns(), wish)

    def progress(self) -> tuple[int, int]:
        """The last record that the engine was given, and the last that it has worked off; both -1 until it has begun."""
        return (-1, -1) if self._host is None else self._host.progress()

    def tail(self, slots: npt.NDArray[np.uint32]) -> list[FrameBatch]:
        """Frames of `slots` that are not flushed yet; later ones win."""
        return [] if self._host is None else self._host.tail(slots)

    async def receive(self, name: str, pushed: Pushed) -> Receipt:
        """Hand a body to an adapter that is pushed to; see `Operations.receive`."""
        return await self.operations.receive(name, pushed)

    def status(self) -> dict[str, Any]:
        """One screen of facts, JSON-ready."""
        running = self.reconfiguring
        return {
            "state": self.state,
            "failure": self.failure,
            **self._report.status(running.running.hash),
            "config": {
                "version": running.version.n if running.version else None,
                "overrides": list(running.overrides),
            },
        }

    def summary(self) -> dict[str, Any]:
        """What happened since the start, JSON-ready; whole once stopped."""
        return self._report.summary()


def host_settings(config: PlantConfig, damaged: DamagePolicy = DamagePolicy.STOP) -> HostSettings:
    """Bounds of the host as the plant file says; `damaged`: whether to go on without what can't be read."""
    n_threads = config.runtime.threads or len(os.sched_getaffinity(0))
    journal_bytes = config.store.journal_size
    return HostSettings(
        nonce=int.from_bytes(os.urandom(7), "little"),
        engine=EngineSettings(
            config.store.flush_interval,
            together_bytes=EngineSettings().together_bytes // n_threads,
            buffer_bytes_max=config.store.flush_size // n_threads,
        ),
        # Only whole objects can be given back, and what is in flight comes on top of the bound.
        journal=JournalSettings(
            object_bytes=max(_OBJECT_BYTES_MIN, min(_OBJECT_BYTES, journal_bytes // 16)),
            limit_bytes=journal_bytes,
        ),
        intake=IntakeSettings(
            limit_samples=max(_IN_FLIGHT_MIN, min(IntakeSettings().limit_samples, journal_bytes // 32))
        ),
        threads=n_threads,
        damaged=damaged,
        rejects_bytes=config.store.rejects_size,
    )


def build_plant(
    config: PlantConfig,
    *,
    clock: Clock | None = None,
    faults: FaultPoints | None = None,
    settings: HostSettings | None = None,
) -> Plant:
    """A plant from its file, checked, not started. `settings`: `host_settings` of the file, or others.

    Raises
    ------
    InvalidConfig : every problem in the file. ConfigError, StorageError : of `finish_tables`.
    """
    finished = finish_tables(config)
    time = clock or SystemClock()
    gateways = Gateways(time)
    blueprint = check_plant(config, gateways.make)
    chosen = settings or host_settings(config)
    plant = Plant(blueprint, clock=time, faults=faults or FaultPoints(), settings=chosen, gateways=gateways)
    for sentence in finished:
        plant._event("config.finished", sentence, {})
    return plant
