"""Opening a store: what was committed, what the journal holds beyond it, and shards that go on from there.

The same code starts an empty store, restarts after a clean stop (nothing to replay), and takes over after a
crash: a shard's state is restored from its snapshot and the journal's records after it are stepped again. Up to
the shard's flushed position only the state is rebuilt; beyond it frames reach the hot buffers again.

Two moments count. The store is *accepting* when `recover` returns: what comes from then on is journalled and
acknowledged. It has *caught up* when the `Replay` that `recover` hands out has been stepped through.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from headrace.core.clock import NO_TIME, NS, Clock, monotonic_ns
from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, HeadraceError, NotFound
from headrace.core.faults import FaultPoints
from headrace.core.sensors import SensorDirectory
from headrace.ingest.journal import DamagePolicy, Journal, JournalSettings
from headrace.ingest.journal_format import Record, RecordKind
from headrace.ingest.journal_reader import FOLDER
from headrace.ingest.rejects import decode_rejects
from headrace.ingest.rejects_log import RejectsLog, rejects_of_journal
from headrace.pipeline.base import Tick
from headrace.pipeline.flows import Flow
from headrace.runtime.backlog import Replay, Step
from headrace.runtime.engine_core import EngineCore, EngineSettings, Reflow
from headrace.runtime.group_frames import GroupFrames
from headrace.runtime.pipelines import PipelineHistory, config_payload
from headrace.store.commits import CommitLog, ShardPosition, load_commits, read_state
from headrace.store.directories import load_directory
from headrace.store.flush import Flusher
from headrace.store.query import Store
from headrace.store.view import recover_commit

FlowsOf = Callable[[SensorDirectory], list[Flow]]
SKIP_OPTION = "start with --skip-damaged to go on without"
_FILLED_MAX = 1_000_000
_STEPPED = (RecordKind.FRAMES, RecordKind.TICK)


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """What a host is opened with.

    Parameters
    ----------
    nonce : tells its journal from any other owner's. damaged : stop at records or state that can't be read, or
    go on without them.
    """

    nonce: int
    shards_per_core: Sequence[Sequence[int]]
    engine: EngineSettings = field(default_factory=EngineSettings)
    journal: JournalSettings = field(default_factory=JournalSettings)
    damaged: DamagePolicy = DamagePolicy.STOP
    rejects_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Recovered:
    """An opened store, ready to be fed.

    Parameters
    ----------
    replay : what the cores have to be stepped through before anything that comes now.
    n_saved_slots : groups that the directory's files hold. last_tick_ns : the newest tick of the journal.
    accepting_s : real time until the journal could take records.
    sentences : what was repaired or is damaged, for people.
    """

    store: Store
    directory: SensorDirectory
    journal: Journal
    flusher: Flusher
    rejects: RejectsLog
    cores: tuple[EngineCore, ...]
    replay: Replay
    n_saved_slots: int
    last_tick_ns: int
    accepting_s: float
    sentences: tuple[str, ...]

    def catch_up(self) -> None:
        """Replay everything in this thread; for a process without runners."""
        self.replay.run(self.cores, self._save)

    def _save(self, core: EngineCore) -> None:
        parts = [core.part(n, snapshot=True) for n in core.due(everything=True)]
        self.flusher.flush(parts)
        for part in parts:
            core.committed(part)


def recover(
    disk: Disk, clock: Clock, flows_of: FlowsOf, settings: RecoverySettings, faults: FaultPoints | None = None
) -> Recovered:
    """Open a store, so that it can take records; its shards are where the last commits left them.

    Parameters
    ----------
    disk : the store, owned by the caller. flows_of : compiles the pipelines for the directory.

    Raises
    ------
    StorageError : the disk refuses. Fenced : another owner is alive. CorruptionError : the journal is damaged
    where valid records follow, or a state object is, and the settings say stop.
    """
    points = faults or FaultPoints()
    begun_ns = monotonic_ns()
    owner = _newest_owner(disk)
    skips = settings.damaged is DamagePolicy.SKIP
    journal = Journal.open(
        disk, clock, nonce=settings.nonce, after_incarnation=owner if skips else 0,
        settings=settings.journal, faults=points,
    )  # fmt: skip
    try:
        if journal.recovery.incarnation <= owner:
            raise CorruptionError(
                f"the store's journal is gone, its commits know of {owner} owners before; restore {FOLDER}/ from a "
                f"backup, or {SKIP_OPTION} what was not flushed yet"
            )
        return _Opening(disk, clock, journal, settings, points).run(flows_of, begun_ns)
    except BaseException:
        with contextlib.suppress(HeadraceError):
            journal.close()
        raise


def _newest_owner(disk: Disk) -> int:
    """The newest incarnation that the commits know of; 0 for none."""
    view = load_commits(disk, recover=recover_commit)
    return max(view.last[0], view.sealed_by)


class _Opening:
    """The steps of `recover`, once the journal is ours."""

    def __init__(
        self, disk: Disk, clock: Clock, journal: Journal, settings: RecoverySettings, faults: FaultPoints
    ) -> None:
        self._disk, self._journal, self._settings = disk, journal, settings
        self._sentences = list(journal.recovery.sentences)
        self._has_skipped = False
        self._commits = CommitLog.open(disk, journal.recovery.incarnation, clock, recover_commit)
        self._directory = load_directory(disk)
        self._n_saved_slots = self._directory.n_slots
        self._store = Store.open(disk, self._directory, clock)
        self._commits.retired = self._store.retired
        self._sentences += self._commits.view.damaged
        self._rejects = RejectsLog(disk, settings.rejects_bytes)
        self._rejects.open()
        self._flusher = Flusher(disk, self._directory, self._commits, self._store, clock=clock, faults=faults)

    def run(self, flows_of: FlowsOf, begun_ns: int) -> Recovered:
        positions = self._positions()
        self._renumber(max(p.flushed_seq for p in positions))
        # Shards without a state need everything there is; nothing was trimmed for them.
        after_seq = max(0, min(p.state_seq for p in positions))
        # All definitions first, so that slots get the numbers they had; pipelines then find theirs defined.
        configs, rejects, n_records, last_tick_ns = [], [], 0, NO_TIME
        for record in self._records(after_seq):
            if record.kind is RecordKind.DEFINE:
                record.define(self._directory)
            elif record.kind is RecordKind.CONFIG:
                configs.append(record)
            elif record.kind is RecordKind.REJECT:
                rejects.append(record)
            elif record.kind is RecordKind.TICK:
                last_tick_ns = max(last_tick_ns, record.tick_ns())
            n_records += record.kind in _STEPPED
        flows = flows_of(self._directory)
        self._history = PipelineHistory(self._directory, flows)
        for record in configs:
            self._history.note(record)
        for flow in flows:
            flow.extend()
        frames = GroupFrames(self._store)
        cores = tuple(
            EngineCore(self._directory, flows, shards, frames.many, self._settings.engine)
            for shards in self._settings.shards_per_core
        )
        frames.buffers = {n: b for core in cores for n, b in core.buffers().items()}
        for core in cores:
            for shard in core.shards:
                self._restore(core, shard, positions[shard])
        self._find_rejects(after_seq)
        for record in rejects:
            self._rejects.note(record.seq, decode_rejects(record.payload))
        last_seq = self._journal.last_seq
        reflow = self._put_in_force(flows)
        n_changes = len(reflow) + sum(self._history.flows_of(record) is not None for record in configs)
        replay = Replay(
            lambda: self._steps(after_seq, last_seq, reflow), n_records + n_changes, self._journal.last_seq,
            begun_ns, saves=self._has_skipped,
        )  # fmt: skip
        if not n_records and not self._has_skipped:
            replay.run(cores, lambda core: None)
        return Recovered(
            self._store, self._directory, self._journal, self._flusher, self._rejects, cores, replay, self._n_saved_slots,
            max(last_tick_ns, *(core.now_ns for core in cores)), (monotonic_ns() - begun_ns) / NS,
            tuple(dict.fromkeys([*self._sentences, *self._history.sentences])),
        )  # fmt: skip

    def _positions(self) -> list[ShardPosition]:
        """Of every shard, in order."""
        known = self._commits.view.shards
        return [known.get(s, ShardPosition()) for s in range(self._directory.n_shards)]

    def _renumber(self, seq: int) -> None:
        """See to it that new records get numbers behind `seq`, up to which shards are flushed.

        Where the end of the journal was cut that is not so, and what comes would pass for what is stored
        already. Empty records fill the gap, so that it does not look like damage ever after.
        """
        n = seq - self._journal.last_seq
        if n <= 0:
            return
        text = f"the journal ends {n:,} records before what the store has"
        if n <= _FILLED_MAX:
            for _ in range(n):
                self._journal.append(RecordKind.CONFIG, [b"{}"])
            self._journal.sync()
        elif self._settings.damaged is DamagePolicy.STOP:
            raise CorruptionError(
                f"{text}; restore {FOLDER}/ from a backup, or {SKIP_OPTION} what was not flushed yet"
            )
        else:
            self._journal.skip_to(seq)
            self._has_skipped = True
        self._sentences.append(f"{text}: they were cut or removed, but the store holds their samples")

    def _records(self, after_seq: int) -> Iterator[Record]:
        """Records behind `after_seq`, as far as the settings allow."""
        damaged, n_known = self._settings.damaged, len(self._journal.damage)
        try:
            yield from self._journal.records(after_seq, damaged)
        except NotFound as e:
            # Commits that said how far the shards are were damaged beyond repair.
            text = f"the journal does not reach back to record {after_seq + 1}, where the last readable commit ends"
            if damaged is DamagePolicy.STOP:
                raise CorruptionError(
                    f"{text}; restore the commits from a backup, or {SKIP_OPTION} what is missing"
                ) from e
            self._has_skipped = True
            self._sentences.append(f"{text}; it is read from its beginning")
            yield from self._journal.records(None, damaged)
        found = self._journal.damage
        self._has_skipped |= any(d.last_seq > after_seq for d in found)
        self._sentences += [f"skipped: {d.text}" for d in found[n_known:]]

    def _restore(self, core: EngineCore, shard: int, position: ShardPosition) -> None:
        try:
            state = read_state(self._disk, position) or b""
            flows = self._history.before(state, position.state_seq)
            core.restore(shard, state, position.flushed_seq, position.state_seq, flows)
        except (CorruptionError, NotFound) as e:
            text = f"the state of shard {shard} can't be read from {position.state} ({e})"
            if self._settings.damaged is DamagePolicy.STOP:
                raise CorruptionError(f"{text}; restore it from a backup, or {SKIP_OPTION} it") from e
            self._has_skipped = True
            self._sentences.append(f"{text}; the windows that were open in it are lost")
            flows = self._history.before(b"", position.state_seq)
            core.restore(shard, b"", position.flushed_seq, position.state_seq, flows)

    def _find_rejects(self, last_seq: int) -> None:
        """Rejects of records that no shard needs any more, which were not kept yet when the process ended."""
        if self._rejects.saved_seq < last_seq:
            for seq, some in groupby(
                rejects_of_journal(self._disk, self._rejects.saved_seq, last_seq), key=lambda one: one.seq
            ):
                self._rejects.note(seq, [one.reject for one in some])

    def _steps(self, after_seq: int, last_seq: int, reflow: Sequence[Step]) -> Iterator[Step]:
        """What shards step behind `after_seq`, up to `last_seq`, and then `reflow`."""
        for record in self._records(after_seq):
            if record.seq > last_seq:
                break
            if record.kind is RecordKind.TICK:
                yield record.seq, Tick(record.tick_ns())
            elif record.kind is RecordKind.FRAMES:
                yield record.seq, record.batch()
            elif record.kind is RecordKind.CONFIG:
                flows = self._history.flows_of(record)
                if flows is not None:
                    yield record.seq, Reflow(flows)
            if record.seq == last_seq:
                break
        yield from reflow

    def _put_in_force(self, flows: Sequence[Flow]) -> list[Step]:
        """Let the pipelines of today follow those that the journal ends with, where they are others."""
        if self._history.is_present:
            return []
        # Made durable with what follows it; no commit comes before.
        seq = self._journal.append(RecordKind.CONFIG, [config_payload([flow.spec for flow in flows])])
        return [(seq, Reflow(tuple(flows)))]
