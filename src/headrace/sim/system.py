"""The whole pipeline in one thread, by a seed: virtual time, links in memory, a disk that forgets.

A `World` has devices, links and a disk; a `Life` is one process on that disk, from recovery to its end, made of
the same parts as the real one: intake, journal, shards, flusher, compactor. Crashes come at any operation of
the disk and at any fault point. Auditors hold what the store answers against the journal records that
survived: nothing acknowledged is lost, nothing is there twice, windows are right. One seed replays it all::

    uv run headrace sim spine --seed 17
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NS, VirtualClock
from headrace.core.errors import Fenced, StorageError
from headrace.core.events import Reject, RejectCode
from headrace.core.faults import FaultPoints
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory, sensor_id
from headrace.ingest.intake_core import IntakeCore, IntakeSettings, credit_of
from headrace.ingest.journal import JournalSettings
from headrace.ingest.journal_format import RecordKind
from headrace.pipeline.base import Tick
from headrace.pipeline.flows import Flow
from headrace.pipeline.windowing import AGGREGATES
from headrace.runtime.engine_core import EngineCore, EngineSettings
from headrace.runtime.recovery import RecoverySettings, recover
from headrace.sim.auditors import Account, audit_acked, audit_samples, audit_windows
from headrace.sim.disk import SimulatedDisk
from headrace.sim.faults import Crashed, SeededFaults
from headrace.sim.links import Link
from headrace.sim.scenarios import Scenario, SimReport, SimSettings, flows, settings_of
from headrace.sim.traffic import Message, sources
from headrace.store.compactor import CompactionPolicy, Compactor
from headrace.store.flush import FlushPart
from headrace.store.result import QueryResult

DAY_NS = 86_400 * NS
MIDNIGHT_NS = 19_676 * DAY_NS
WINDOW_NS = 10 * NS
_TURNS_MAX = 2_000


class Life:
    """One process: from recovery to its end."""

    def __init__(self, world: World, faults: FaultPoints) -> None:
        self._world, self._rng = world, np.random.default_rng([world.seed, 14, world.n_lives])
        compiled: list[Flow] = []

        def flows_of(directory: SensorDirectory) -> list[Flow]:
            compiled[:] = [Flow(spec, directory) for spec in world.flows]
            return compiled

        n_cores = int(self._rng.integers(1, 3))
        per_core = [list(range(i, SensorDirectory().n_shards, n_cores)) for i in range(n_cores)]
        chosen = RecoverySettings(int(self._rng.integers(2**63)), per_core, world.engine, world.journal)
        self.recovered = recover(world.disk, world.clock, flows_of, chosen, faults)
        self.directory, self.store = self.recovered.directory, self.recovered.store
        self.journal, self.cores = self.recovered.journal, self.recovered.cores
        world.survived(self.journal.recovery.last_seq)
        self.directory.watchers += [flow.extend for flow in compiled]
        self.intake = IntakeCore(
            self.directory, world.clock, self.journal, self._deliver,
            settings=IntakeSettings(limit_samples=world.limit_samples, record_values_max=2_000),
            n_saved_slots=self.recovered.n_saved_slots, last_tick_ns=self.recovered.last_tick_ns,
        )  # fmt: skip
        policy = CompactionPolicy(min_age_s=5, late_every_s=10, n_hot_max=6, grace_s=5, slice_samples=3_000)
        self._compactor = Compactor(self.store, world.clock, faults=faults, policy=policy)
        self._backlog = self.recovered.replay.steps()
        self._queues: list[deque[tuple[int, FrameBatch | Tick]]] = [deque() for _ in self.cores]
        self._flushes: deque[tuple[EngineCore, list[FlushPart]]] = deque()
        self._first_seq = self.journal.last_seq + 1
        self._n_flush_duplicates = self.n_compactions = 0

    # --- in ------------------------------------------------------------------------------------------

    def receive(self, link: Link, message: Message) -> None:
        """Take a message in; it is acknowledged when it is durable."""
        batch = message.batch.with_(
            slot=self._slots_of(message)[message.batch.slot], arrival_ns=self._world.clock.now_ns()
        )
        connection = link.connection

        def ack() -> None:
            self._world.acked.append(batch)
            link.acknowledge(connection, message.number)

        self.intake.offer(batch, ack)

    def _slots_of(self, message: Message) -> npt.NDArray[np.uint32]:
        """Slot of each group of a source under the message's layout; groups are defined when they first send."""
        groups = np.unique(message.batch.slot)
        table = np.zeros(int(groups[-1]) + 1, np.uint32)
        paths = [f"plant/{message.source}/d{g}" for g in groups.tolist()]
        table[groups] = self.directory.define_many(paths, message.layout)
        return table

    def reject(self) -> None:
        """Something that no decoder could read."""
        raw = self._rng.bytes(int(self._rng.integers(1, 60)))
        self._world.n_rejects += 1
        self.intake.offer_reject(Reject(RejectCode.MALFORMED, "g0", "plant/g0", "no number", raw))

    def _deliver(self, seq: int, kind: RecordKind, record: FrameBatch | int) -> None:
        if isinstance(record, FrameBatch):
            self._world.log.append((seq, record))
        for queue in self._queues:
            queue.append((seq, Tick(record) if isinstance(record, int) else record))

    # --- through -------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make durable what waits, and acknowledge it, one by one."""
        self.intake.flush()
        try:
            self._world.durable_seq = max(self._world.durable_seq, self.journal.sync())
        except StorageError:
            return
        for ack in self.intake.settle():
            self._world.maybe_crash(0.002)
            ack()

    def work(self, n_records_max: int) -> None:
        """Let every core process so many records; shards that are due are handed to the committer.

        Records of the replay come first; what was taken in meanwhile waits behind them.
        """
        if not self._catch_up(n_records_max):
            return
        for core, queue in zip(self.cores, self._queues, strict=True):
            for _ in range(min(n_records_max, len(queue))):
                seq, record = queue.popleft()
                core.process(seq, record)
                if isinstance(record, Tick):
                    self._relieve_journal(core)
                    self._flush_due(core)
            self._flush_due(core)
        done = [queue[0][0] - 1 if queue else self.journal.last_seq for queue in self._queues]
        self.intake.processed(min(done))

    def _catch_up(self, n_records_max: int) -> bool:
        """Replay so many records, all where that is the most at once; whether there are no more."""
        replay, n = self.recovered.replay, 0
        while not replay.is_done:
            if n == n_records_max < _TURNS_MAX:
                return False
            step = next(self._backlog, None)
            for core in self.cores:
                if step is None:
                    core.begin(replay.last_seq)
                else:
                    core.process(*step)
                    self._flush_due(core)
            if step is None:
                replay.end()
            n += 1
        return True

    def _flush_due(self, core: EngineCore) -> None:
        due = core.due()
        if due:
            self._flushes.append((core, [core.part(n) for n in due]))

    def _relieve_journal(self, core: EngineCore) -> None:
        """Save the shards that keep a journal that is short of room from being trimmed."""
        journal = self.journal
        if journal.is_short or journal.size_bytes > journal.limit_bytes // 2:
            behind = core.behind(journal.first_needed_seq)
            if behind:
                self._flushes.append((core, [core.part(n, snapshot=True) for n in behind]))

    def flush(self) -> None:
        """What the committer does: write the parts that wait in one segment and commit."""
        if not self._flushes:
            return
        jobs = list(self._flushes)
        self._flushes.clear()
        parts = [part for _, some in jobs for part in some]
        self.sync()
        try:
            if self.journal.durable_seq < max(part.seq for part in parts):
                raise StorageError(self.journal.refusal)
            flushed = self.recovered.flusher.flush(parts)
        except StorageError:
            for core, some in jobs:
                for part in some:
                    core.failed(part)
            return
        for core, some in jobs:
            for part in some:
                core.committed(part)
        self._n_flush_duplicates += flushed.n_duplicates
        view = self.store.refresh()
        self.journal.directory_saved(self.recovered.flusher.n_saved_slots)
        seq = view.commits.trim_seq(range(self.directory.n_shards))
        if seq >= 0:
            self.journal.trim(seq)

    def flush_all(self) -> None:
        """Process, flush and snapshot everything, as a clean stop does."""
        self.work(_TURNS_MAX)
        self.flush()
        for core in self.cores:
            self._flushes.append((core, [core.part(n, snapshot=True) for n in core.due(everything=True)]))
        self.flush()

    def compact(self, force: bool = False) -> None:
        """Compact what is due."""
        try:
            report = self._compactor.run_once(force)
        except StorageError:
            return
        self.n_compactions += report.n_partitions
        self._world.problems += [f"compaction: {p}" for p in report.problems]

    def turn(self) -> None:
        """One step of everything, in an order and as much of it as the seed says."""
        rng, world = self._rng, self._world
        for link in world.links.values():
            while (message := link.peek()) and self.intake.credits.has(credit_of(message.batch)):
                self.receive(link, link.take())
        if rng.random() < world.settings.unrest / 4:
            self.reject()
        self.intake.tick()
        if rng.random() < 0.7:
            self.sync()
        self.work(int(rng.integers(0, 30)))
        if rng.random() < 0.6:
            self.flush()
        if rng.random() < 0.04:
            self.compact()
        self._check_bounds()
        if rng.random() < 0.02:
            self.work(_TURNS_MAX)
            world.audit(self, "while it runs", with_windows=False)

    def _check_bounds(self) -> None:
        world = self._world
        if self.intake.credits.n_used > world.limit_samples:
            world.problems.append(f"bound: {self.intake.credits.n_used:,} samples in flight")
        most = 2 * world.engine.buffer_bytes_max + 64 * world.limit_samples
        held = sum(core.size_bytes for core in self.cores)
        if held > most and not world.disk.is_read_only:
            world.problems.append(f"bound: {held:,} bytes in the hot buffers")
        if self.journal.size_bytes > 3 * world.journal.limit_bytes:
            world.problems.append(f"bound: the journal has {self.journal.size_bytes:,} bytes")

    # --- looking -------------------------------------------------------------------------------------

    def audit_counters(self) -> list[str]:
        """Once all is flushed: received = stored + duplicates + rejected, and stored is what is new."""
        mine = [core.counters for core in self.cores]
        received = sum(self.intake.counters.received.values())
        rejected = sum(self.intake.counters.rejected.values())
        stored = sum(c.accepted + c.late for c in mine) - self._n_flush_duplicates
        duplicates = sum(c.duplicates for c in mine) + self._n_flush_duplicates
        problems = []
        if received != stored + duplicates + rejected:
            problems.append(
                f"counters: {received} received, {stored} stored, {duplicates} duplicates, {rejected} rejected"
            )
        log = self._world.log
        every = Account.of(self.directory, [batch for _, batch in log])
        before = Account.of(self.directory, [batch for seq, batch in log if seq < self._first_seq])
        new = every.n_versions() - before.n_versions()
        # A duplicate of something committed that is corrected before the next flush counts as stored.
        if not new <= stored <= new + duplicates + len(every) - every.n_versions():
            problems.append(f"counters: {stored} stored, {new} came that were new")
        return problems

    def tail(self, slots: npt.NDArray[np.uint32]) -> list[FrameBatch]:
        """Unflushed frames, as a running engine gives them."""
        found: list[FrameBatch] = []
        shards = self.directory.shard[slots]
        for core in self.cores:
            for number, buffer in core.buffers().items():
                mine = slots[shards == number]
                if len(mine):
                    found += buffer.frames(mine)
        return found

    def everything(self) -> QueryResult | None:
        """All samples of all sensors, derived ones too."""
        if not self.directory.n_slots:
            return None
        return self.store.query("**", MIDNIGHT_NS - DAY_NS, MIDNIGHT_NS + DAY_NS, tail=self.tail)


class _UntilQuiet(SeededFaults):
    """Faults that end when the world becomes quiet."""

    def __init__(self, world: World, seed: int, n_passes_max: int) -> None:
        super().__init__(seed, n_passes_max)
        self._world = world

    def reach(self, point: str) -> None:
        if not self._world.is_quiet:
            super().reach(point)


class World:
    """Devices, links, time and a disk; and the process that runs at the moment."""

    def __init__(self, seed: int, scenario: Scenario, settings: SimSettings) -> None:
        self.seed, self.scenario, self.settings = seed, scenario, settings
        self._rng = rng = np.random.default_rng([seed, 15])
        self.clock = VirtualClock(MIDNIGHT_NS - int(rng.integers(20, 60)) * NS)
        self.disk = SimulatedDisk(int(rng.integers(2**63)))
        self.limit_samples = 100_000
        self.engine = EngineSettings(
            flush_ns=int(rng.integers(5, 30)) * NS, turns=int(rng.integers(1, 5)),
            buffer_bytes_max=int(rng.choice([100_000, 1 << 30])), snapshot_every=int(rng.integers(1, 4)),
        )  # fmt: skip
        limit_bytes = int(rng.choice([60_000, 64 << 20])) if settings.n_sensors < 40 else 64 << 20
        self.journal = JournalSettings(int(rng.integers(5_000, 50_000)), limit_bytes)
        chosen = rng.permutation(len(AGGREGATES))[: int(rng.integers(1, 4))]
        self.flows = flows([AGGREGATES[i] for i in sorted(chosen)])
        self.sources = sources(seed, settings.n_sensors, settings.modes, settings.unrest)
        window, loss = int(rng.integers(1, 20)), 0.02 if settings.faults else 0.0
        self.links = {s.name: Link(int(rng.integers(2**31)), window, loss) for s in self.sources}
        self.log: list[tuple[int, FrameBatch]] = []
        self.acked: list[FrameBatch] = []
        self.problems: list[str] = []
        self.durable_seq = -1
        self.life: Life | None = None
        self.n_lives = self.n_sent = self.n_rejects = self.n_revisions = self.n_compactions = 0
        self.is_quiet = False
        self._refuses_until = -1

    # --- life and death --------------------------------------------------------------------------------

    def maybe_crash(self, chance: float) -> None:
        """Between two acknowledgements, say."""
        if not self.is_quiet and self._rng.random() < chance * self.settings.faults:
            raise Crashed("by chance")

    def _faults(self) -> FaultPoints:
        if self.is_quiet or self._rng.random() >= self.settings.faults:
            return FaultPoints()
        return _UntilQuiet(self, int(self._rng.integers(2**63)), int(self._rng.choice([60, 300, 1_000])))

    def start(self) -> None:
        """Start a process, which may end while it recovers."""
        self.n_lives += 1
        faults = self._faults()
        self.disk.faults = faults
        try:
            self.life = Life(self, faults)
        except Crashed:
            self.crash()
        except StorageError:
            self.life = None

    def crash(self) -> None:
        """The process is gone, and what the disk had not synced with it."""
        self._forget_life()
        self.disk = self.disk.crash()

    def _forget_life(self) -> None:
        if self.life is not None:
            self.n_revisions += sum(core.counters.revisions for core in self.life.cores)
            self.n_compactions += self.life.n_compactions
        self.life = None
        for link in self.links.values():
            link.reconnect()

    def survived(self, last_seq: int) -> None:
        """A new owner found the journal to end at `last_seq`: what was acknowledged must be before it."""
        if last_seq < self.durable_seq:
            self.problems.append(f"the journal ends at {last_seq}, {self.durable_seq} was durable")
        self.log = [(seq, batch) for seq, batch in self.log if seq <= last_seq]

    # --- time ----------------------------------------------------------------------------------------

    def run(self) -> SimReport:
        """Everything, then the audits."""
        for step in range(self.settings.n_steps):
            self.clock.advance(1.0)
            for source in self.sources:
                for message in source.emit(self.clock.now_ns(), step, self.settings.n_steps):
                    self.links[source.name].put(message)
                    self.n_sent += 1
            self._disturb(step)
            self._turn()
        self._finish()
        return self._report()

    def _turn(self) -> None:
        if self.life is None:
            self.start()
        if self.life is not None:
            try:
                self.life.turn()
            except Crashed:
                self.crash()
            except Fenced as e:
                self.problems.append(f"fenced without another owner: {e}")
                self._forget_life()

    def _disturb(self, step: int) -> None:
        rng, chance = self._rng, self.settings.faults
        if rng.random() < 0.02 * chance:
            self._refuses_until = step + int(rng.integers(1, 8))
        refuses = step < self._refuses_until
        self.disk.is_read_only = refuses and self._refuses_until % 2 == 0
        self.disk.capacity_bytes = 1 << 40
        if refuses and not self.disk.is_read_only:
            self.disk.capacity_bytes -= self.disk.free_bytes() - 2_000
        for link in self.links.values():
            if link.waits_for_nothing or rng.random() < 0.01 * chance:
                link.reconnect()
        if self.life is not None and not refuses and rng.random() < 0.02 * chance:
            self._replace()

    def _replace(self) -> None:
        """Another process takes over while the old one lives on for a moment, and must do no harm."""
        old = self.life
        assert old is not None
        self._forget_life()
        self.start()
        if self.life is None:
            return
        n_acked, kept = len(self.acked), list(self.log)
        for act in (old.turn, old.sync, old.flush_all):
            try:
                act()
            except (Fenced, Crashed):
                continue
        if len(self.acked) > n_acked:
            self.problems.append("an owner that was replaced acknowledged messages")
        self.log = kept

    # --- the end -------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """No more faults: everything is delivered, all windows end, and the auditors look at it."""
        self.is_quiet = True
        self.disk.is_read_only, self.disk.capacity_bytes = False, 1 << 40
        for link in self.links.values():
            link.reconnect(lossless=True)
        self._refuses_until = -1
        for _ in range(_TURNS_MAX):
            self.clock.advance(1.0)
            self._turn()
            if self.life is not None and all(link.is_empty for link in self.links.values()):
                break
        else:
            self.problems.append("messages were not acknowledged in time")
        self.clock.advance(120.0)
        for _ in range(10):  # each shard looks for silent groups every few ticks
            self.clock.advance(1.0)
            self._turn()
        life = self.life
        assert life is not None
        life.sync()
        life.work(_TURNS_MAX)
        self.audit(life, "at the end")
        life.flush_all()
        self.problems += life.audit_counters()
        if self._rng.random() < 0.7:
            life.compact(force=True)
            self.audit(life, "after compaction")
        self._forget_life()
        self.start()
        assert self.life is not None
        self.life.work(_TURNS_MAX)
        self.audit(self.life, "after a restart")

    def audit(self, life: Life, when: str, with_windows: bool = True) -> None:
        """Hold what the store answers against the journal's records."""
        result = life.everything()
        directory = life.directory
        truth = Account.of(directory, [batch for _, batch in self.log])
        found: list[str] = []
        if result is None:
            if len(truth):
                found.append("the store has no sensors")
        else:
            names, derived = self._names(directory)
            keep = [p for p in result.paths.tolist() if p not in derived]
            found += audit_samples(truth, Account.of_result(result, keep), names)
            found += [f"could not be read: {s}" for s in result.missing]
            found += audit_acked(Account.of(directory, self.acked), truth, names)
            if with_windows:
                found += audit_windows(truth, result, WINDOW_NS, "_10s", names)
        self.problems += [f"{when}, in life {self.n_lives}: {p}" for p in found]

    def _names(self, directory: SensorDirectory) -> tuple[dict[int, str], set[str]]:
        names: dict[int, str] = {}
        derived: set[str] = set()
        for slot in range(directory.n_slots):
            paths = [directory.sensor_path(slot, i) for i in range(int(directory.width[slot]))]
            if directory.is_derived(slot):
                derived.update(paths)
            else:
                names.update((sensor_id(p), p) for p in paths)
        return names, derived

    def _report(self) -> SimReport:
        life = self.life
        assert life is not None
        truth = Account.of(life.directory, [batch for _, batch in self.log])
        return SimReport(
            self.seed, self.scenario.value, self.settings.n_sensors, self.settings.n_steps, self.n_lives,
            self.n_sent, sum(link.n_redelivered for link in self.links.values()), len(truth),
            truth.n_versions(), self.n_rejects, self.n_revisions, self.n_compactions, tuple(self.problems),
        )  # fmt: skip


def run_seed(seed: int, scenario: str = "spine", n_sensors: int | None = None) -> SimReport:
    """Run one simulation.

    Parameters
    ----------
    seed : everything follows from it. scenario : one of `Scenario`. n_sensors : the scenario's own by default.
    """
    kind = Scenario(scenario)
    return World(seed, kind, settings_of(kind, n_sensors)).run()


def run_seeds(
    seeds: Sequence[int], scenario: str = "spine", on_report: Callable[[SimReport], None] | None = None
) -> list[SimReport]:
    """Run several; the reports of those that went wrong."""
    wrong = []
    for seed in seeds:
        report = run_seed(seed, scenario)
        if on_report is not None:
            on_report(report)
        if not report.is_ok:
            wrong.append(report)
    return wrong
