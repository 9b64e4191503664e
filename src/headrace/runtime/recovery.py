"""Opening a store: what was committed, what the journal holds beyond it, and shards that go on from there.

The same code starts an empty store, restarts after a clean stop (nothing to replay), and takes over after a
crash: a shard's state is restored from its snapshot and the journal's records after it are stepped again. Up to
the shard's flushed position only the state is rebuilt; beyond it frames reach the hot buffers again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headrace.core.clock import NO_TIME, NS, Clock, monotonic_ns
from headrace.core.disk import Disk
from headrace.core.faults import FaultPoints
from headrace.core.sensors import SensorDirectory
from headrace.ingest.journal import Journal, JournalSettings
from headrace.ingest.journal_format import RecordKind
from headrace.pipeline.base import Tick
from headrace.pipeline.flows import Flow
from headrace.runtime.engine_core import EngineCore, EngineSettings
from headrace.runtime.group_frames import GroupFrames
from headrace.store.commits import CommitLog, ShardPosition, read_state
from headrace.store.directories import load_directory
from headrace.store.flush import Flusher
from headrace.store.query import Store

FlowsOf = Callable[[SensorDirectory], list[Flow]]


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """What a host is opened with. `nonce` tells its journal from any other owner's."""

    nonce: int
    shards_per_core: Sequence[Sequence[int]]
    engine: EngineSettings = field(default_factory=EngineSettings)
    journal: JournalSettings = field(default_factory=JournalSettings)


@dataclass(frozen=True, slots=True)
class Recovered:
    """An opened store, ready to be fed.

    Parameters
    ----------
    n_saved_slots : groups that the directory's files hold. last_tick_ns : the newest tick in the journal.
    accepting_s : real time until the journal could take records; caught_up_s : until all were replayed.
    sentences : what was repaired or is damaged, for people.
    """

    store: Store
    directory: SensorDirectory
    journal: Journal
    flusher: Flusher
    cores: tuple[EngineCore, ...]
    n_saved_slots: int
    last_tick_ns: int
    n_replayed: int
    accepting_s: float
    caught_up_s: float
    sentences: tuple[str, ...]


def recover(
    disk: Disk, clock: Clock, flows_of: FlowsOf, settings: RecoverySettings, faults: FaultPoints | None = None
) -> Recovered:
    """Open a store and bring its shards to the end of the journal.

    Parameters
    ----------
    disk : the store, owned by the caller. flows_of : compiles the pipelines for the directory.

    Raises
    ------
    StorageError : the disk refuses. Fenced : another owner is alive. CorruptionError : the journal is damaged
    where valid records follow.
    """
    begun_ns = monotonic_ns()
    points = faults or FaultPoints()
    journal = Journal.open(disk, clock, nonce=settings.nonce, settings=settings.journal, faults=points)
    commits = CommitLog.open(disk, journal.recovery.incarnation, clock)
    directory = load_directory(disk)
    n_saved_slots = directory.n_slots
    store = Store.open(disk, directory, clock)
    positions = commits.view.shards
    oldest = max(0, min(_position(positions, s).state_seq for s in range(directory.n_shards)))
    # All definitions first, so that slots get the numbers they had; pipelines then find theirs defined.
    for record in journal.records(oldest):
        if record.kind is RecordKind.DEFINE:
            record.define(directory)
    flows = flows_of(directory)
    for flow in flows:
        flow.extend()
    frames = GroupFrames(store)
    cores = tuple(
        EngineCore(directory, flows, shards, frames, settings.engine) for shards in settings.shards_per_core
    )
    frames.buffers = {n: b for core in cores for n, b in core.buffers().items()}
    for core in cores:
        for shard in core.shards:
            position = _position(positions, shard)
            state = read_state(disk, position) or b""
            core.restore(shard, state, position.flushed_seq, position.state_seq)
    accepting_ns = monotonic_ns()
    n_replayed, last_tick_ns = _replay(journal, oldest, cores)
    flusher = Flusher(disk, directory, commits, store, clock=clock, faults=points)
    return Recovered(
        store,
        directory,
        journal,
        flusher,
        cores,
        n_saved_slots,
        last_tick_ns,
        n_replayed,
        (accepting_ns - begun_ns) / NS,
        (monotonic_ns() - begun_ns) / NS,
        (*journal.recovery.sentences, *commits.view.damaged),
    )


def _position(positions: dict[int, ShardPosition], shard: int) -> ShardPosition:
    return positions.get(shard, ShardPosition())


def _replay(journal: Journal, after_seq: int, cores: Sequence[EngineCore]) -> tuple[int, int]:
    """Step all records after `after_seq`; how many, and the time of the last tick."""
    n, last_tick_ns = 0, NO_TIME
    for record in journal.records(after_seq):
        if record.kind is RecordKind.FRAMES:
            batch = record.batch()
            for core in cores:
                core.process(record.seq, batch)
        elif record.kind is RecordKind.TICK:
            last_tick_ns = record.tick_ns()
            for core in cores:
                core.process(record.seq, Tick(last_tick_ns))
        n += 1
    for core in cores:
        core.seq = max(core.seq, journal.last_seq)
    return n, last_tick_ns
