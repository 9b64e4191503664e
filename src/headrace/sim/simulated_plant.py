"""A plant of real adapters in one thread: virtual time, no sockets, a disk that forgets what was not synced.

From the text of a plant file on everything is as it is in a real plant: it is parsed, adapters are made from it,
supervised, changed and replaced, what they emit goes through intake, journal, shards and store. Simulated are the disk,
the clock, the threads (their work is stepped by hand), and what is at the other end of each adapter: see
`headrace.sim.memory_broker` and `headrace.sim.memory_modbus`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from headrace.adapters.base import Sink
from headrace.adapters.broker.inbox import Inbox
from headrace.adapters.mqtt.adapter import MqttAdapter, _Running
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter
from headrace.adapters.registry import ADAPTERS
from headrace.core.clock import NS, VirtualClock
from headrace.core.config import PlantConfig, load_plant
from headrace.core.errors import StorageError
from headrace.core.faults import FaultPoints
from headrace.core.frames import FrameBatch
from headrace.ingest.intake import Intake, IntakeState
from headrace.ingest.intake_core import IntakeSettings
from headrace.ingest.journal import JournalSettings
from headrace.ingest.journal_format import RecordKind
from headrace.pipeline.base import Tick
from headrace.runtime.assemble import Blueprint, check_plant
from headrace.runtime.engine_core import EngineCore, EngineSettings
from headrace.runtime.gateways import Gateways
from headrace.runtime.host import Host, HostSettings
from headrace.runtime.operations import Operations
from headrace.runtime.reconfigure import Reconfiguring
from headrace.runtime.replay import RejectsReplay
from headrace.runtime.supervision import Supervisor
from headrace.sim.disk import SimulatedDisk
from headrace.sim.faults import Crashed, SeededFaults
from headrace.sim.memory_broker import Door, MemoryBroker, MemorySession, PushingClients
from headrace.store.flush import FlushPart
from headrace.store.result import QueryResult

DAY_NS = 86_400 * NS
START_NS = 20_420 * DAY_NS + 8 * 3_600 * NS
STEPS_A_SECOND = 4
_TURNS_OF_THE_LOOP = 10
_LIVES_MAX = 30
_UNSYNCED_MAX = 2
"""Steps in which the disk is too slow for a sync, one after the other."""
T = TypeVar("T")


class Ending(FaultPoints):
    """Ends the process at a pass that is drawn once it is armed; nothing is written or acknowledged afterwards."""

    def __init__(self) -> None:
        self._armed: SeededFaults | None = None
        self.has_come = False

    def arm(self, seed: int, n_passes_max: int) -> None:
        """End at one of the next passes."""
        self._armed = SeededFaults(seed, n_passes_max)

    def disarm(self) -> None:
        """Do not end it after all."""
        self._armed = None

    def reach(self, point: str) -> None:
        if self.has_come:
            raise Crashed(point)
        if self._armed is not None:
            try:
                self._armed.reach(point)
            except Crashed:
                self.has_come = True
                raise

    def watches(self, point: str) -> bool:
        return True


class SteppedIntake(Intake):
    """The intake without its threads and timers: `step` does what they would."""

    def __init__(self, host: Host, ending: Ending) -> None:
        super().__init__(host.core)
        self._ending = ending
        self.emitted: list[FrameBatch] = []
        """What was taken, in order, for whoever empties it."""

    async def start(self) -> None:
        """Begin to take."""
        self._loop = asyncio.get_running_loop()
        self._state = IntakeState.RUNNING

    async def emit(self, batch: FrameBatch, ack: Callable[[], None] | None = None) -> None:
        """Take a batch; see `Intake.emit`."""
        await super().emit(batch, ack)
        self.emitted.append(batch)

    def step(self, syncs: bool = True) -> None:
        """Write down what waits, make it durable, acknowledge it. Raises `Crashed`."""
        self._check_alive()
        self._guarded(self.core.tick)
        self._flush()
        self._check_alive()
        if not syncs:
            return
        try:
            self.core.journal.sync()
        except StorageError:
            return
        self._settle()

    def _check_alive(self) -> None:
        if self._ending.has_come:
            raise Crashed("the process has ended")
        if self._failure is not None:
            raise self._failure

    def _settle(self) -> None:
        if not self._ending.has_come:
            super()._settle()


class SteppedHost(Host):
    """A host whose shards and committer are stepped by hand."""

    def __init__(
        self,
        disk: SimulatedDisk,
        clock: VirtualClock,
        blueprint: Blueprint,
        settings: HostSettings,
        ending: Ending,
    ) -> None:
        super().__init__(
            disk, clock, blueprint.flows, settings=settings, faults=ending, on_failed=lambda error: None
        )  # fmt: skip
        self._queues: list[deque[tuple[int, FrameBatch | Tick]]] = [deque() for _ in self.engine.cores]
        self.n_flush_duplicates = 0
        self.catch_up()

    def _deliver(self, seq: int, kind: RecordKind, record: FrameBatch | int) -> None:
        self.delivered_seq = seq
        for queue in self._queues:
            queue.append((seq, Tick(record) if isinstance(record, int) else record))

    def work(self, n_records_max: int) -> int:
        """Let every core take so many records; up to which one all are done."""
        for core, queue in zip(self.engine.cores, self._queues, strict=True):
            for _ in range(min(n_records_max, len(queue))):
                core.process(*queue.popleft())
        return min(queue[0][0] - 1 if queue else self.delivered_seq for queue in self._queues)

    def flush(self, everything: bool = False) -> None:
        """Write the shards that are due in one segment, commit, and trim the journal."""
        parts: list[tuple[EngineCore, FlushPart]] = [
            (core, core.part(n, snapshot=everything))
            for core in self.engine.cores
            for n in core.due(everything=everything)
        ]
        if not parts:
            return
        try:
            if self.journal.durable_seq < max(part.seq for _, part in parts):
                raise StorageError("the journal is not as far")
            flushed = self.flusher.flush([part for _, part in parts])
        except StorageError:
            for core, part in parts:
                core.failed(part)
            return
        for core, part in parts:
            core.committed(part)
        self.n_flush_duplicates += flushed.n_duplicates
        self._trim()


class MemoryMqtt(MqttAdapter):
    """The MQTT adapter at a `MemoryBroker`: the host of its url is the broker's name."""

    brokers: ClassVar[Mapping[str, MemoryBroker]] = {}

    async def start(self, sink: Sink) -> None:
        """Begin to connect; slices are as short as can be, in real time, of which this plant knows nothing."""
        groups = DeviceGroups(sink.directory, self._config.max_devices)
        broker = self.brokers[self._address.host]
        session = MemorySession(self.name, self._config, self._address, broker, sink.clock)
        inbox = Inbox(sink, MessageRouter(self.name, self._rules, groups), session, slice_s=0.0)
        self._running = _Running.begin(f"mqtt {self.name}", inbox, session, inbox, sink.clock, groups)


class SimulatedPlant:
    """A plant file, a disk, and the process that runs at the moment.

    Parameters
    ----------
    folder : a real folder for the plant file and its tables. text : the plant file.
    kinds : adapter classes by protocol, instead of the usual ones.

    ``doors`` are the ways in, by name: brokers, and clients of the adapters that are pushed to.
    """

    def __init__(self, seed: int, folder: Path, text: str, kinds: Mapping[str, Any] | None = None) -> None:
        self.rng = np.random.default_rng([seed, 16])
        self.clock = VirtualClock(START_NS + int(self.rng.integers(1_000)) * 1_000_000)
        self.disk = SimulatedDisk(int(self.rng.integers(2**63)))
        self.file = folder / "plant.toml"
        self.file.write_text(text, encoding="utf-8")
        self.doors: dict[str, Door] = {}
        self.brokers: dict[str, MemoryBroker] = {}
        mqtt = type("MemoryMqtt", (MemoryMqtt,), {"brokers": self.brokers})
        self._kinds = {"mqtt": mqtt, **(kinds or {})}
        self.limit_samples = int(self.rng.integers(2_000, 20_000))
        self.flush_ns = int(self.rng.integers(3, 12)) * NS
        self.n_lives = self._n_unsynced = 0
        self.problems: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.config: PlantConfig | None = None

    def broker(self, name: str) -> MemoryBroker:
        """A new broker: ``mqtt://<name>``."""
        broker = MemoryBroker(self.clock, int(self.rng.integers(20, 100)))
        self.doors[name] = self.brokers[name] = broker
        return broker

    def clients(self, adapter: str) -> PushingClients:
        """New clients of an adapter that is pushed to."""
        clients = self.doors[adapter] = PushingClients(adapter, self.clock)
        return clients

    # --- life and death ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start a process by the plant file as it is now; one that ends while it starts is followed by another."""
        for _ in range(_LIVES_MAX):
            try:
                await self._start()
                return
            except Crashed:
                await self._end()
        raise AssertionError("it does not start")

    async def _start(self) -> None:
        self.n_lives += 1
        self.ending = self.disk.faults = Ending()
        self.config = load_plant(self.file)
        self.gateways = Gateways(self.clock, self._kind_of)
        blueprint = check_plant(self.config, self.gateways.make)
        settings = HostSettings(
            nonce=int(self.rng.integers(2**55)),
            engine=EngineSettings(self.flush_ns, turns=1, snapshot_every=2),
            journal=JournalSettings(object_bytes=50_000),
            intake=IntakeSettings(limit_samples=self.limit_samples, record_values_max=2_000, linger_s=0.0),
            threads=2,
        )
        self.host = SteppedHost(self.disk, self.clock, blueprint, settings, self.ending)
        self._n_stored_before = self.n_stored()
        self.intake = SteppedIntake(self.host, self.ending)
        await self.intake.start()
        self.supervisor = Supervisor(blueprint.adapters, self.disk, self.clock, self._tell)
        await self.supervisor.start(self.intake)
        check = partial(check_plant, make=self.gateways.make)
        reconfiguring = Reconfiguring(
            self.config, self.disk, self.clock, self.supervisor, check, self.gateways, self._tell
        )
        reconfiguring.begin(self.host.reflow)
        replay = RejectsReplay(self.host.rejects, self.intake, self.supervisor.get)
        self.operations = Operations(self.supervisor, reconfiguring, self.host.rejects, replay, self.clock)
        for door in self.doors.values():
            if isinstance(door, PushingClients):
                door.receive = self.operations.receive

    def _kind_of(self, protocol: str) -> Any:
        return self._kinds.get(protocol) or ADAPTERS.load(protocol)

    def _tell(self, kind: str, text: str, fields: Mapping[str, Any]) -> None:
        self.events.append((kind, text))

    async def crash(self) -> None:
        """The process ends here, and another one starts on what the disk has kept."""
        await self._end()
        await self.start()

    async def _end(self) -> None:
        self.ending.has_come = True
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for door in self.doors.values():
            door.crashed()
        self.disk = self.disk.crash()

    async def close(self) -> None:
        """End for good, cleanly."""
        await self.during(self.supervisor.stop(5.0))
        self.intake.step()
        self.host.work(2**31)
        self.host.flush(everything=True)
        await self._end()

    # --- time ----------------------------------------------------------------------------------------

    async def second(self) -> None:
        """One second of plant time; a process that ends meanwhile is followed by another."""
        for _ in range(STEPS_A_SECOND):
            self.clock.advance(1 / STEPS_A_SECOND)
            try:
                for door in self.doors.values():
                    door.deliver()
                await self._turn()
            except Crashed:
                await self.crash()

    async def _turn(self) -> None:
        """Let everybody do what is due; the store is written now and then."""
        for _ in range(_TURNS_OF_THE_LOOP):
            await self.clock.sleep(0)
        syncs = self._n_unsynced == _UNSYNCED_MAX or bool(self.rng.random() < 0.6)
        self._n_unsynced = 0 if syncs else self._n_unsynced + 1
        self.intake.step(syncs)
        self.intake.processed(self.host.work(int(self.rng.integers(5, 60))))
        if self.rng.random() < 0.2:
            self.host.flush()

    async def during(self, work: Coroutine[Any, Any, T], n_seconds: int = 0) -> T:
        """Let the plant go on while `work` is done. Raises what it raises, and `Crashed`.

        Parameters
        ----------
        n_seconds : how much time passes; after that it stands still.
        """
        task = asyncio.ensure_future(work)
        try:
            for _ in range(n_seconds):
                await self.second()
            while not task.done():
                await self.clock.sleep(0)
                self.intake.step()
                self.intake.processed(self.host.work(100))
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def quiet(self, n_seconds_max: int = 400) -> None:
        """Let everything arrive that is on its way."""
        for _ in range(n_seconds_max):
            await self.second()
            if all(door.is_empty for door in self.doors.values()):
                return
        waiting = [name for name, door in self.doors.items() if not door.is_empty]
        self.problems.append(f"not acknowledged after {n_seconds_max} s: {', '.join(waiting)}")

    async def apply(self, text: str) -> dict[str, Any]:
        """Write another plant file and make it the running one, as ``headrace apply`` does."""
        self.file.write_text(text, encoding="utf-8")
        document = {"toml": text, "file": str(self.file), "by": "sim"}
        return await self.during(self.operations.change_config(document, "", False))

    # --- looking -------------------------------------------------------------------------------------

    def everything(self) -> QueryResult | None:
        """All samples of all sensors, as a reader gets them; None where there is no sensor."""
        if not self.host.directory.n_slots:
            return None
        return self.host.store.query("**", 0, START_NS + 400 * DAY_NS, tail=self.host.tail)

    def n_stored(self) -> int:
        """How many samples a reader finds."""
        found = self.everything()
        return 0 if found is None else found.n_rows

    def audit_counts(self, has_corrections: bool = True) -> None:
        """Received is what was stored, was there already, or was refused; and what was stored is there, once.

        Parameters
        ----------
        has_corrections : whether a sample may have come that says otherwise of a time that was known.
        """
        self.intake.step()
        self.host.work(2**31)
        self.host.flush(everything=True)
        counts, mine = self.intake.core.counters, [core.counters for core in self.host.engine.cores]
        received, rejected = sum(counts.received.values()), sum(counts.rejected.values())
        again = self.host.n_flush_duplicates
        stored = sum(c.accepted + c.late for c in mine) - again
        duplicates = sum(c.duplicates for c in mine) + again
        if received != stored + duplicates + rejected:
            self.problems.append(
                f"{received} received, {stored} stored, {duplicates} duplicates, {rejected} rejected"
            )
        new = self.n_stored() - self._n_stored_before
        if new > stored or (new < stored and not has_corrections):
            self.problems.append(f"{new} samples are there that were not, {stored} were stored")
