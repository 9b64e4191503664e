"""One host: a store folder with its journal, shards and committer, recovered and ready to be fed.

The same object stands behind the running plant (fed by adapters through the asyncio intake) and behind the
benchmarks (fed directly): so a benchmark measures what users run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headrace.core.clock import Clock
from headrace.core.disk import Disk
from headrace.core.errors import RetryLater
from headrace.core.faults import FaultPoints
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory
from headrace.ingest.intake_core import IntakeCore, IntakeSettings
from headrace.ingest.journal import DamagePolicy, JournalSettings
from headrace.ingest.journal_format import RecordKind
from headrace.pipeline.base import Tick
from headrace.pipeline.flows import Flow, FlowSpec
from headrace.runtime.engine import Committer, Engine
from headrace.runtime.engine_core import EngineSettings, Reflow
from headrace.runtime.pipelines import config_payload, key_of
from headrace.runtime.recovery import RecoverySettings, recover

_REJECTS_PENDING_BYTES = 2 << 20
"""Rejects that are written to the store before the next commit would."""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Bounds and spread of a host.

    Parameters
    ----------
    nonce : tells this owner of the journal from any other; the process that composes the host draws it.
    threads : runners; default: one a core. damaged : what to do about records and state that can't be read.
    rejects_bytes : bound of the refused input that is kept for replay.
    """

    nonce: int
    engine: EngineSettings = field(default_factory=EngineSettings)
    journal: JournalSettings = field(default_factory=JournalSettings)
    intake: IntakeSettings = field(default_factory=IntakeSettings)
    threads: int | None = None
    damaged: DamagePolicy = DamagePolicy.STOP
    rejects_bytes: int = 256 << 20


class Host:
    """Journal, shards and store of one process.

    Parameters
    ----------
    disk : the store folder, locked by the caller. specs : the pipelines.
    on_refusal : told, from any thread, why nothing is written to the store any more, and "" when it is again.
    on_failed : told once, from any thread, of what ended the host.

    Raises
    ------
    StorageError, CorruptionError : the folder can't be used, or the journal is damaged.
    """

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        specs: Sequence[FlowSpec],
        *,
        settings: HostSettings,
        faults: FaultPoints | None = None,
        on_refusal: Callable[[str], None] = lambda text: None,
        on_failed: Callable[[Exception], None],
    ) -> None:
        self._flows: list[Flow] = []
        self.delivered_seq = -1
        self.on_processed: Callable[[int], None] = lambda seq: None
        self.wait_durable: Callable[[int, float], bool] = lambda seq, timeout_s: (
            self.journal.durable_seq >= seq
        )
        n_threads = settings.threads or max(1, len(os.sched_getaffinity(0)))
        n_shards = SensorDirectory().n_shards

        def flows_of(directory: SensorDirectory) -> list[Flow]:
            self._flows = [Flow(spec, directory) for spec in specs]
            return self._flows

        per_core = [list(range(i, n_shards, n_threads)) for i in range(n_threads)]
        chosen = RecoverySettings(
            settings.nonce,
            per_core,
            settings.engine,
            settings.journal,
            settings.damaged,
            settings.rejects_bytes,
        )
        self.recovered = recover(disk, clock, flows_of, chosen, faults)
        self.directory, self.store = self.recovered.directory, self.recovered.store
        self.journal, self.flusher = self.recovered.journal, self.recovered.flusher
        self.directory.watchers += [flow.extend for flow in self._flows]
        self.core = IntakeCore(
            self.directory,
            clock,
            self.journal,
            self._deliver,
            settings=settings.intake,
            n_saved_slots=self.recovered.n_saved_slots,
            last_tick_ns=self.recovered.last_tick_ns,
        )
        self.rejects = self.recovered.rejects
        self.core.on_rejects = self.rejects.note
        committer = Committer(
            self.flusher,
            lambda seq, timeout_s: self.wait_durable(seq, timeout_s),
            self._trim,
            on_refusal,
            on_failed,
        )
        self.engine = Engine(
            self.recovered.cores,
            self.recovered.replay,
            committer,
            self._needed_seq,
            lambda seq: self.on_processed(seq),
            on_failed,
        )

    def reflow(self, specs: Sequence[FlowSpec]) -> None:
        """Put other pipelines in force, behind everything taken so far; those that stay the same keep their state.

        On the thread of the event loop. Nothing has changed where it raises.

        Raises
        ------
        ConfigError : a pipeline would give a name that is taken. StorageError : the journal refuses.
        """
        known = {key_of(flow.spec): flow for flow in self._flows}
        flows = [known.get(key_of(spec)) or Flow(spec, self.directory) for spec in specs]
        new = [flow for flow in flows if key_of(flow.spec) not in known]
        for flow in new:
            flow.extend()
        seq = self.core.record(RecordKind.CONFIG, [config_payload(specs)])
        old = [flow.extend for flow in self._flows]
        self.directory.watchers = [w for w in self.directory.watchers if w not in old]
        self.directory.watchers += [flow.extend for flow in flows]
        self._flows = flows
        self.delivered_seq = seq
        self.engine.deliver(seq, Reflow(tuple(flows)))

    def _deliver(self, seq: int, kind: RecordKind, record: FrameBatch | int) -> None:
        self.delivered_seq = seq
        self.engine.deliver(seq, Tick(record) if isinstance(record, int) else record)
        if isinstance(record, int) and self.rejects.pending_bytes > _REJECTS_PENDING_BYTES:
            self.engine.committer.submit(self.engine.cores[0], [])  # which ends in `_trim`

    def _needed_seq(self) -> int:
        """Record that all shards must be saved beyond to free journal that is short of room; -1 if it is not."""
        journal = self.journal
        is_pressed = journal.is_short or journal.size_bytes > journal.limit_bytes // 2
        return journal.first_needed_seq if is_pressed else -1

    def _trim(self) -> None:
        """Let go of the journal that no shard needs any more, once its rejects are kept elsewhere."""
        self.rejects.save(self.journal.durable_seq)
        view = self.store.refresh()
        self.journal.directory_saved(self.flusher.n_saved_slots)
        seq = view.commits.trim_seq(range(self.directory.n_shards))
        if seq >= 0:
            self.journal.trim(seq)

    def catch_up(self) -> None:
        """Replay in this thread, where no threads of the engine do."""
        self.recovered.catch_up()
        self.engine.backlog.release()

    def progress(self) -> tuple[int, int]:
        """The last record that the engine was given, and the last that it has worked off; both -1 while it replays."""
        if not self.recovered.replay.is_done:
            return -1, -1  # who asks is sent to the journal at once
        return self.delivered_seq, self.engine.processed_seq

    def tail(self, slots: npt.NDArray[np.uint32]) -> list[FrameBatch]:
        """Frames of `slots` that are not flushed yet; later ones win.

        Raises
        ------
        RetryLater : the replay is under way, so that not all is here; the journal has it.
        """
        replay = self.recovered.replay
        if not replay.is_done:
            raise RetryLater(
                f"the engine is catching up with its journal, {replay.n_done:,} of {replay.n_records:,} records",
                1.0,
            )
        found: list[FrameBatch] = []
        shards = self.directory.shard[slots]
        buffers = {n: b for core in self.engine.cores for n, b in core.buffers().items()}
        for number in np.unique(shards).tolist():
            found += buffers[number].frames(slots[shards == number])
        return found
