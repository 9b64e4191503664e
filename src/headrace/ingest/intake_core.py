"""The intake's state machine: batches in, journal records and deliveries out. No thread, no event loop.

`Intake` wraps it for the event loop; benchmarks and the single-threaded simulation drive it directly::

    core.offer(batch, ack)        # normalise, put together with others of its kind
    core.flush()                  # journal records, handed to the engine at once, in order of seq
    core.journal.sync()           # or a `JournalWriter` does
    core.processed(seq)           # the engine is done with everything up to seq
    for ack in core.settle():     # what has become durable may be acknowledged
        ack()

Frames of a group keep their order: a batch that can't be put together with waiting frames of the same group
goes behind them. While the journal refuses (disk full, bound reached), everything waits here; credits bound it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.adapters.base import Ack
from headrace.core.clock import NO_TIME, NS, Clock, thread_cpu_ns
from headrace.core.disk import Buffer
from headrace.core.errors import StorageError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory
from headrace.ingest.credits import Credits
from headrace.ingest.journal import Journal
from headrace.ingest.journal_format import Index, RecordKind, define_payload, shard_index, tick_payload
from headrace.ingest.normalize import Normalised, TimePolicy, normalise
from headrace.ingest.ordering import in_place_order
from headrace.ingest.rejects import encode_rejects
from headrace.ingest.signal_health import SignalHealth
from headrace.ingest.thinning import Thinner

Deliver = Callable[[int, RecordKind, FrameBatch | int], None]
"""Takes (seq, FRAMES, batch in shard order) and (seq, TICK, now_ns), in order of seq, before they are durable."""

_BUCKETS_MAX = 64
_REJECTS_MAX, _REJECTS_BYTES = 256, 1 << 20


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """Bounds of the intake.

    Parameters
    ----------
    limit_samples : samples in flight between a source and (engine done and durable).
    record_values_max : values of one FRAMES record; larger batches are cut, smaller ones wait for each other.
    linger_s : how long small batches wait for each other, real time, at most 0.02.
    tick_ns : plant time between TICK records.
    retry_s_min, retry_s_max : back-off while the disk refuses, real time.
    policies : time policy by adapter (`FrameBatch.origin`); others get the default policy.
    """

    limit_samples: int = 8_000_000
    record_values_max: int = 1 << 20
    linger_s: float = 0.02
    tick_ns: int = NS
    retry_s_min: float = 0.25
    retry_s_max: float = 5.0
    policies: Mapping[str, TimePolicy] = field(default_factory=dict)


@dataclass(slots=True)
class IntakeCounters:
    """Counts since start. ``received`` = samples emitted, and those of rejects, by adapter."""

    received: Counter[str] = field(default_factory=Counter)
    rejected: Counter[tuple[str, RejectCode]] = field(default_factory=Counter)
    thinned: Counter[str] = field(default_factory=Counter)
    """Samples that dead bands left out, by adapter."""
    n_records: int = 0
    n_acked: int = 0
    normalise_ns: Counter[str] = field(default_factory=Counter)
    """CPU time of normalising, by adapter."""
    record_ns: int = 0
    """CPU time of putting records together: concatenation, order by shard, appending."""


@dataclass(slots=True)
class _Bucket:
    """Batches of one kind that become one record. `ready` keeps the work while the journal refuses."""

    batches: list[FrameBatch] = field(default_factory=list)
    n_values: int = 0
    weight: int = 0
    acks: list[Ack] = field(default_factory=list)
    ready: tuple[FrameBatch, Index] | None = None

    def add(self, batch: FrameBatch) -> None:
        self.batches.append(batch)
        self.n_values += max(batch.n_values, batch.n_frames)

    def has_any(self, batch: FrameBatch) -> bool:
        """Whether a group of `batch` has frames here."""
        return any(bool(np.isin(batch.slot, b.slot).any()) for b in self.batches)


def credit_of(item: FrameBatch | Reject) -> int:
    """Credit that a batch or reject takes while it is in flight: about one for 8 bytes."""
    if isinstance(item, FrameBatch):
        return max(item.n_values, item.n_frames, 1)
    return 1 + len(item.raw) // 8


class IntakeCore:
    """See the module's text. One thread; `journal.sync` may run in another.

    Parameters
    ----------
    deliver : the engine's door.
    n_saved_slots : slots that the store's directory file holds; the others are defined in the journal before
        their first use.
    last_tick_ns : the newest tick of the journal, after a restart.
    """

    def __init__(
        self,
        directory: SensorDirectory,
        clock: Clock,
        journal: Journal,
        deliver: Deliver,
        *,
        settings: IntakeSettings | None = None,
        n_saved_slots: int = 0,
        last_tick_ns: int = NO_TIME,
    ) -> None:
        self.directory, self.clock, self.journal = directory, clock, journal
        self.settings = settings or IntakeSettings()
        self.credits = Credits(self.settings.limit_samples)
        self.counters = IntakeCounters()
        self.on_rejects: Callable[[int, Sequence[Reject]], None] = lambda seq, rejects: None
        """Told of each REJECT record, before it is durable: whoever keeps rejects longer than the journal."""
        self.health = SignalHealth(directory, clock.now_ns())
        self._thinner = Thinner(directory)
        self._deliver = deliver
        self._n_defined = n_saved_slots
        self._last_tick_ns = last_tick_ns
        self._open: dict[object, _Bucket] = {}
        self._sealed: deque[_Bucket] = deque()
        self._rejects: list[Reject] = []
        self._rejects_bytes = 0
        self._rejects_bucket = _Bucket()
        self._due: list[Ack] = []
        self._acks: deque[tuple[int, list[Ack]]] = deque()
        # (seq, credit) of records that the engine has to be done with, and of those it never sees.
        self._weights: deque[tuple[int, int]] = deque()
        self._reject_weights: deque[tuple[int, int]] = deque()
        self._processed_seq = journal.last_seq

    # --- figures -------------------------------------------------------------------------------------

    @property
    def n_in_flight(self) -> int:
        """Samples between emit and (engine done and durable)."""
        return self.credits.n_used

    @property
    def has_waiting(self) -> bool:
        """Whether anything waits to be flushed."""
        return bool(self._open or self._sealed or self._rejects)

    @property
    def refusal(self) -> str:
        """Why nothing is taken at present, in a sentence; empty while all is well."""
        if self.journal.refusal:
            return self.journal.refusal
        if self.journal.is_short:
            return (
                f"less than {self.journal.reserve_bytes:,} bytes are free on the disk, which the store needs; "
                f"free some space"
            )
        if self.journal.is_full:
            return (
                f"the journal has reached its bound ({self.journal.size_bytes:,} bytes): the store does not keep "
                f"up or can't write; look at its status"
            )
        return ""

    # --- taking --------------------------------------------------------------------------------------

    def offer(self, batch: FrameBatch, ack: Ack | None = None) -> None:
        """Take credit and a batch; flush where enough is together."""
        self.credits.take(credit_of(batch))
        if self.accept(batch, ack):
            self.flush()

    def offer_reject(self, reject: Reject, ack: Ack | None = None) -> None:
        """Take credit and a reject; flush where enough is together."""
        self.credits.take(credit_of(reject))
        if self.accept_reject(reject, ack):
            self.flush()

    def accept(self, batch: FrameBatch, ack: Ack | None = None) -> bool:
        """Take a batch for which credit was taken; whether a flush is due.

        Raises
        ------
        PluginError : the batch does not fit the directory; nothing was taken, its credit is given back.
        """
        weight, started_ns = credit_of(batch), thread_cpu_ns()
        try:
            normalised = self._normalise(batch)
        except Exception:
            self.credits.give(weight)
            raise
        frames, last = normalised.batch, self._rejects_bucket
        self.counters.received[batch.origin] += frames.n_samples
        self.health.note(frames)
        frames, n_thinned = self._thinner.thin(frames)
        self.counters.thinned[batch.origin] += n_thinned
        self.counters.normalise_ns[batch.origin] += thread_cpu_ns() - started_ns
        for piece in self._pieces(frames):
            bucket = self._bucket_for(piece)
            bucket.add(piece)
            if not normalised.rejects:
                last = bucket
        for reject in normalised.rejects:
            self._keep(reject)
        if not frames.n_frames and not normalised.rejects:
            self.credits.give(weight)
            self._due += [ack] if ack else []
            return False
        last.weight += weight
        last.acks += [ack] if ack else []
        return self._is_due()

    def accept_reject(self, reject: Reject, ack: Ack | None = None) -> bool:
        """Take a reject for which credit was taken; whether a flush is due."""
        self._keep(reject)
        self._rejects_bucket.weight += credit_of(reject)
        self._rejects_bucket.acks += [ack] if ack else []
        return self._is_due()

    def _normalise(self, batch: FrameBatch) -> Normalised:
        arrival_ns = batch.arrival_ns or self.clock.now_ns()
        policy = self.settings.policies.get(batch.origin, TimePolicy())
        return normalise(batch, self.directory, arrival_ns, policy)

    def _keep(self, reject: Reject) -> None:
        self._rejects.append(reject)
        self._rejects_bytes += len(reject.raw)
        self.counters.received[reject.adapter] += reject.n_samples
        self.counters.rejected[reject.adapter, reject.code] += reject.n_samples

    def _pieces(self, batch: FrameBatch) -> Iterator[FrameBatch]:
        """The batch, cut where it is larger than a record may be; nothing for an empty one."""
        most, first = self.settings.record_values_max, 0
        if batch.n_values <= most:
            if batch.n_frames:
                yield batch
            return
        ends = batch.start if batch.start is not None else np.arange(batch.n_frames + 1) * batch.width
        while first < batch.n_frames:
            last = int(np.searchsorted(ends, ends[first] + most, side="right")) - 1
            last = max(last, first + 1)
            yield batch.slice(first, last)
            first = last

    def _bucket_for(self, piece: FrameBatch) -> _Bucket:
        """The open bucket that takes `piece`, behind all waiting frames of its groups."""
        key = piece.kind_key
        clash = any(
            other != key and _may_share_groups(b.batches[0], piece) and b.has_any(piece)
            for other, b in self._open.items()
        )
        bucket = self._open.get(key)
        is_full = bucket is not None and bucket.n_values + piece.n_values > self.settings.record_values_max
        if clash or is_full or (bucket is None and len(self._open) >= _BUCKETS_MAX):
            self._seal()
            bucket = None
        if bucket is None:
            bucket = self._open[key] = _Bucket()
        return bucket

    def _seal(self) -> None:
        self._sealed += self._open.values()
        self._open.clear()

    def _is_due(self) -> bool:
        full = self.settings.record_values_max
        return (
            bool(self._sealed)
            or len(self._rejects) >= _REJECTS_MAX
            or self._rejects_bytes >= _REJECTS_BYTES
            or any(b.n_values >= full for b in self._open.values())
        )

    # --- records -------------------------------------------------------------------------------------

    def flush(self) -> bool:
        """Turn all that waits into journal records, and deliver them; False while the journal refuses.

        Raises
        ------
        Fenced, Closed : the journal has another owner, or was closed.
        """
        started_ns = thread_cpu_ns()
        try:
            self._seal()
            if not self.has_waiting or self.refusal:
                return not self.has_waiting
            while self._sealed:
                self._write_frames(self._sealed[0])
                self._sealed.popleft()
            if self._rejects:
                self._write_rejects()
            return True
        except StorageError:
            return False
        finally:
            self.counters.record_ns += thread_cpu_ns() - started_ns

    def _write_frames(self, bucket: _Bucket) -> None:
        self.define()
        if bucket.ready is None:
            batch = in_place_order(FrameBatch.concat(bucket.batches), self.directory)
            ordered, start = batch.split(self.directory.shard[batch.slot], self.directory.n_shards)
            bucket.ready = ordered, shard_index(start)
        ordered, index = bucket.ready
        seq = self.journal.append(RecordKind.FRAMES, ordered.to_buffers(), index)
        self._weights.append((seq, bucket.weight))
        self._written(seq, bucket.acks)
        self._deliver(seq, RecordKind.FRAMES, ordered)

    def _write_rejects(self) -> None:
        seq = self.journal.append(RecordKind.REJECT, [encode_rejects(self._rejects)])
        self._reject_weights.append((seq, self._rejects_bucket.weight))
        self._written(seq, self._rejects_bucket.acks)
        self.on_rejects(seq, self._rejects)
        self._rejects, self._rejects_bucket, self._rejects_bytes = [], _Bucket(), 0

    def define(self) -> None:
        """Write definitions of slots that the journal does not know yet; a record of frames does it by itself.

        Raises
        ------
        StorageError : the journal refuses.
        """
        n_slots = self.directory.n_slots
        if n_slots > self._n_defined:
            self.journal.append(RecordKind.DEFINE, define_payload(self.directory, self._n_defined))
            self._n_defined = n_slots
            self.counters.n_records += 1

    def _written(self, seq: int, acks: list[Ack]) -> None:
        self.counters.n_records += 1
        if acks:
            self._acks.append((seq, acks))

    def tick(self) -> bool:
        """Write a TICK record where a tick's time has passed since the last; whether one was written.

        Ticks missed while the process or its disk stood still are not made up for: they are our own outage.
        """
        now_ns = self.clock.now_ns()
        now_ns -= now_ns % self.settings.tick_ns
        if now_ns <= self._last_tick_ns:
            return False
        self.flush()
        try:
            seq = self.journal.append(RecordKind.TICK, tick_payload(now_ns))
        except StorageError:
            return False
        self._last_tick_ns = now_ns
        self.counters.n_records += 1
        self._deliver(seq, RecordKind.TICK, now_ns)
        return True

    def record(self, kind: RecordKind, payload: Sequence[Buffer]) -> int:
        """Write a CONFIG or RELEASE record behind all that waits; its seq.

        Raises
        ------
        StorageError : the journal refuses.
        """
        if not self.flush():
            raise StorageError(self.refusal or "the journal refuses")
        self.counters.n_records += 1
        return self.journal.append(kind, payload)

    # --- settling ------------------------------------------------------------------------------------

    def processed(self, seq: int) -> None:
        """Tell that the engine is done with all records up to `seq`."""
        self._processed_seq = max(seq, self._processed_seq)

    def settle(self) -> list[Ack]:
        """Acks that have become due since the last call; credit of what is durable and processed is given back."""
        durable_seq = self.journal.durable_seq
        due, self._due = self._due, []
        while self._acks and self._acks[0][0] <= durable_seq:
            due += self._acks.popleft()[1]
        weight = _pop_weight(self._weights, min(durable_seq, self._processed_seq))
        self.credits.give(weight + _pop_weight(self._reject_weights, durable_seq))
        self.counters.n_acked += len(due)
        return due

    def commit(self) -> list[Ack]:
        """Flush, sync in this thread, settle: the whole way for a process of one thread.

        Raises
        ------
        StorageError : the disk refuses; call again later.
        """
        self.flush()
        self.journal.sync()
        return self.settle()


def _may_share_groups(a: FrameBatch, b: FrameBatch) -> bool:
    """Whether two batches of different kinds can have frames of one group: its layout fixes type and width."""
    return a.dtype == b.dtype and (a.width == b.width or not a.width or not b.width)


def _pop_weight(weights: deque[tuple[int, int]], seq: int) -> int:
    total = 0
    while weights and weights[0][0] <= seq:
        total += weights.popleft()[1]
    return total
