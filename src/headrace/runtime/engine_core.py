"""The engine without threads: shards, their hot buffers, and when to flush them.

Records of the journal go in, in order; frames reach the buffers; `due` says which shards want to be flushed.
It does no I/O, starts no thread and reads no clock: its *now* is the newest tick. The embedded engine runs one
core a runner thread, each with its own shards; the simulation runs one core with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.core.clock import NO_TIME, NS, thread_cpu_ns
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import Revise, StepResult, Tick
from headrace.pipeline.flows import Flow, FlowShard
from headrace.pipeline.operators.deduplicate import Deduplicate
from headrace.pipeline.shard import Shard
from headrace.store.buffer import HotBuffer
from headrace.store.flush import FlushPart

_NEVER = 1 << 62
Frames = Callable[[Sequence[int], int, int], Mapping[int, FrameBatch]]
"""``frames(slots, start_ns, end_ns)``: by slot, all frames of its group in a span, in time order, newest versions."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """When shards are flushed and snapshotted.

    Parameters
    ----------
    flush_ns : a shard is flushed this often; shards take turns, but go together while all buffers hold less than
    `together_bytes`. buffer_bytes_max : the fullest are flushed before their turn when all buffers together hold more.
    snapshot_every : state is saved with each n-th flush of a shard.
    """

    flush_ns: int = 128 * NS
    turns: int = 8
    together_bytes: int = 16 << 20
    buffer_bytes_max: int = 512 << 20
    snapshot_every: int = 4


@dataclass(frozen=True, slots=True)
class Reflow:
    """Other pipelines from this place of the journal on.

    A pipeline that is the same `Flow` as before keeps its state; one that reads and computes the same and only
    writes elsewhere takes it over; any other begins anew.
    """

    flows: tuple[Flow, ...]


@dataclass(slots=True)
class EngineCounters:
    """Samples by fate; derived ones are counted apart.

    What dead bands kept out of derived series (`thinned`) is stored all the same.
    """

    accepted: int = 0
    late: int = 0
    duplicates: int = 0
    thinned: int = 0
    derived: int = 0
    revisions: int = 0
    cpu_ns: int = 0


@dataclass(slots=True)
class _Held:
    """A shard and what belongs to it. Positions are running numbers of journal records.

    The runner's thread hands parts out, the committer's says what became of them: it sets `in_flight` last.
    """

    shard: Shard
    buffer: HotBuffer
    flushed_seq: int = -1
    state_seq: int = -1
    next_flush_ns: int = NO_TIME
    retry_ns: int = NO_TIME
    n_flushes: int = 0
    wants_state: bool = True
    in_flight: bool = False

    @property
    def saved_seq(self) -> int:
        return min(self.flushed_seq, self.state_seq)


@dataclass
class EngineCore:
    """Some shards of a host.

    Parameters
    ----------
    directory : the sensors. flows : the compiled pipelines. shards : which shards are mine.
    frames : where a revision finds stored frames.
    """

    directory: SensorDirectory
    flows: Sequence[Flow]
    shards: Sequence[int]
    frames: Frames
    settings: EngineSettings = field(default_factory=EngineSettings)

    def __post_init__(self) -> None:
        self.seq = -1
        self.now_ns = NO_TIME
        self.counters = self._counting = EngineCounters()
        self._counted_from = 0
        self._go_together = False
        self._held: dict[int, _Held] = {}
        for number in self.shards:
            self._held[number] = _Held(self._new_shard(number), HotBuffer(number, self.directory))

    def _new_shard(self, number: int, flows: Sequence[Flow] | None = None) -> Shard:
        branches = {f.spec.name: FlowShard(f, number) for f in (self.flows if flows is None else flows)}
        return Shard(number, Deduplicate(self.directory, number), dict(branches))

    # --- records -------------------------------------------------------------------------------------

    def process(self, seq: int, record: FrameBatch | Tick | Reflow) -> None:
        """Take the next record of the journal (frames in shard order, as the journal has them)."""
        before = thread_cpu_ns()
        if isinstance(record, Reflow):
            for held in self._held.values():
                if seq > held.state_seq:
                    _reflow(held.shard, record.flows)
            self.flows = record.flows
        elif isinstance(record, Tick):
            for held in self._held.values():
                self._step(held, seq, record)
            self.now_ns = record.now_ns
        else:
            start = self.directory.shard_starts(record.slot)
            for number in np.flatnonzero(np.diff(start)).tolist():
                mine = self._held.get(number)
                if mine is not None:
                    self._step(mine, seq, record.slice(int(start[number]), int(start[number + 1])))
        self.seq = seq
        self._counting.cpu_ns += thread_cpu_ns() - before

    def _step(self, held: _Held, seq: int, record: FrameBatch | Tick) -> None:
        if seq <= held.state_seq:
            return
        for part in (record,) if isinstance(record, Tick) else held.shard.turns(record):
            result = held.shard.step((part,))
            # Else a replay: what follows from this record is stored already, only the state is not.
            if seq > held.flushed_seq:
                self._keep(held, seq, result)

    def _keep(self, held: _Held, seq: int, result: StepResult) -> None:
        counters, buffer = self._counting, held.buffer
        for batch in result.accepted:
            counters.accepted += batch.n_samples
            buffer.append(seq, batch)
        fresh = False
        for batch in result.late:
            n_duplicates, new = buffer.add_late(seq, batch)
            counters.duplicates += n_duplicates
            if new is not None:
                fresh = True
                counters.late += new.n_samples
        for batch in result.derived:
            counters.derived += batch.n_samples
            buffer.append(seq, batch)
        for batch in result.revised:
            buffer.add_late(seq, batch)
        counters.thinned += result.n_thinned
        self._revise(held, seq, [*result.effects, *(result.late_effects if fresh else ())])

    def _revise(self, held: _Held, seq: int, effects: list[Revise]) -> None:
        by_span: dict[tuple[int, int], list[Revise]] = {}
        for effect in dict.fromkeys(effects):
            self._counting.revisions += 1
            by_span.setdefault((effect.start_ns, effect.end_ns), []).append(effect)
        for (start_ns, end_ns), some in by_span.items():
            frames = self.frames(sorted({effect.slot for effect in some}), start_ns, end_ns)
            for revised in held.shard.recompute(some, frames):
                held.buffer.add_late(seq, revised)

    # --- flushing ------------------------------------------------------------------------------------

    def due(self, everything: bool = False) -> list[int]:
        """Shards that want to be flushed now: those whose turn it is, and the fullest where memory runs short.

        With `everything` all that no flush is under way for, those that failed a moment ago too.
        """
        if everything:
            return [n for n, h in self._held.items() if not h.in_flight]
        waiting, size_bytes = self._waiting(), self.size_bytes
        found = []
        if size_bytes > self.settings.buffer_bytes_max:
            found = self._fullest(waiting)
            waiting = {n: held for n, held in waiting.items() if n not in found}
        if self.now_ns == NO_TIME:
            return found
        is_small = size_bytes < min(self.settings.together_bytes, self.settings.buffer_bytes_max)
        self._take_turns([held for held in waiting.values() if held.next_flush_ns == NO_TIME])
        if self._go_together and not is_small:
            self._take_turns(waiting.values())
            self._go_together = False
        found += [number for number, held in waiting.items() if self.now_ns >= held.next_flush_ns]
        if not found or not is_small:
            return found
        # A segment of many shards that hold little costs what one of a few does, to write and to read.
        self._go_together = True
        return list(waiting)

    def _take_turns(self, shards: Collection[_Held]) -> None:
        """Spread shards over the time that is left until they are due."""
        turns = self.settings.turns
        for place, held in enumerate(shards):
            due_ns = (
                held.next_flush_ns if held.next_flush_ns != NO_TIME else self.now_ns + self.settings.flush_ns
            )
            left_ns = max(due_ns - self.now_ns, 0)
            held.next_flush_ns = self.now_ns + left_ns * (place % turns + 1) // turns

    def _fullest(self, waiting: Mapping[int, _Held]) -> list[int]:
        """Shards to flush so that the others hold half of what they may: few and long blocks instead of all at once."""
        size = {n: held.buffer.size_bytes for n, held in waiting.items()}
        left, found = sum(size.values()), []
        for number in sorted(size, key=lambda n: (-size[n], n)):
            if left <= self.settings.buffer_bytes_max // 2:
                break
            found.append(number)
            left -= size[number]
        return found

    def behind(self, seq: int) -> list[int]:
        """Shards that are not saved up to `seq`, and would be if they were flushed with a snapshot now."""
        return [n for n, h in self._waiting().items() if h.saved_seq < min(seq, self.seq)]

    def _waiting(self) -> dict[int, _Held]:
        """Shards that no flush is under way for, and none has failed for a moment ago."""
        return {n: h for n, h in self._held.items() if not h.in_flight and self.now_ns >= h.retry_ns}

    @property
    def saved_seq(self) -> int:
        """Record up to which everything, state too, is in the store."""
        return min(h.saved_seq for h in self._held.values())

    def part(self, number: int, snapshot: bool = False) -> FlushPart:
        """What is to be flushed of a shard at this point of the journal.

        The caller writes it and then calls `committed` or `failed`; until then the shard is not due again.
        """
        held = self._held[number]
        held.in_flight = True
        held.next_flush_ns = self.now_ns + self.settings.flush_ns if self.now_ns != NO_TIME else NO_TIME
        held.n_flushes += 1
        if snapshot or (held.n_flushes + number) % self.settings.snapshot_every == 0:
            held.wants_state = True
        state = held.shard.snapshot() if held.wants_state else None
        # While others are replayed a shard may be further than this core's records.
        state_seq = max(self.seq, held.state_seq) if held.wants_state else -1
        seq = max(self.seq, held.flushed_seq)
        return FlushPart(held.buffer, seq, state, state_seq, self._counted_from)

    def committed(self, part: FlushPart) -> None:
        """A part is in the store: remember how far."""
        held = self._held[part.buffer.shard]
        held.flushed_seq = max(held.flushed_seq, part.seq)
        held.state_seq = max(held.state_seq, part.state_seq)
        held.wants_state = held.wants_state and part.state is None
        held.in_flight = False

    def failed(self, part: FlushPart, retry_ns: int = 5 * NS) -> None:
        """A part could not be written; it is in the buffer as before, and due again after `retry_ns`."""
        held = self._held[part.buffer.shard]
        if self.now_ns != NO_TIME:
            held.retry_ns = held.next_flush_ns = self.now_ns + retry_ns
        held.in_flight = False

    @property
    def size_bytes(self) -> int:
        """Bytes in the hot buffers."""
        return sum(h.buffer.size_bytes for h in self._held.values())

    @property
    def n_buffered(self) -> int:
        """Samples in the hot buffers."""
        return sum(h.buffer.n_samples for h in self._held.values())

    def buffers(self) -> Mapping[int, HotBuffer]:
        """Hot buffer of each shard, for reads of what is not yet flushed."""
        return {n: h.buffer for n, h in self._held.items()}

    # --- recovery ------------------------------------------------------------------------------------

    def restore(
        self,
        number: int,
        state: bytes | memoryview,
        flushed_seq: int,
        state_seq: int,
        flows: Sequence[Flow] | None = None,
    ) -> None:
        """Put a shard where a commit left it; then replay the journal after `state_seq`.

        Parameters
        ----------
        state : empty for a shard that begins anew. flows : the pipelines at that place of the journal, where they
        are not those of today.

        Raises
        ------
        CorruptionError : the bytes are no state; the shard begins anew unless it is restored again.
        """
        held = self._held[number]
        # What is replayed was counted by the process that took it in.
        self.counters, self._counted_from = EngineCounters(), _NEVER
        held.shard = self._new_shard(number, flows)
        held.flushed_seq, held.state_seq, held.wants_state = flushed_seq, state_seq, not state
        if state:
            held.shard.restore(state)
            self.now_ns = max(self.now_ns, held.shard.now_ns)

    def begin(self, seq: int) -> None:
        """The replay has ended at record `seq`: what is counted from now on, this process took in."""
        self.seq = max(self.seq, seq)
        self.counters = self._counting = EngineCounters()
        self._counted_from = self.seq + 1

    def positions(self) -> dict[int, tuple[int, int]]:
        """(flushed_seq, state_seq) of each shard."""
        return {n: (h.flushed_seq, h.state_seq) for n, h in self._held.items()}


def _reflow(shard: Shard, flows: Sequence[Flow]) -> None:
    """Let a shard go on with other pipelines; see `Reflow`."""
    before, after = shard.branches, {}
    for flow in flows:
        old = before.get(flow.spec.name)
        if isinstance(old, FlowShard) and old.flow is flow:
            after[flow.spec.name] = old
            continue
        after[flow.spec.name] = new = FlowShard(flow, shard.number)
        if old is not None:
            new.restore(old.snapshot())
    shard.rebranch(dict(after))
