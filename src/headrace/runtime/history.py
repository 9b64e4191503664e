"""Pipelines in Python: built step by step, run over what a store holds.

::

    flow = Pipeline("excess").read("**/temperature").map(excess)
    flow = flow.window("5m", agg=["mean", "max"]).write("{parent}/excess_{agg}_5m")
    print(flow.run(open_store("demo-store"), last="24h"))

What runs is what ``headrace run`` runs: the same shards, operators and derived series, fed with stored samples in the
order of their time. Results are compared with what the store has: a second run writes nothing, and one with other
steps or newer samples writes new versions.

**Who owns the store.** Two writers can't share one store, so an engine must not run on it meanwhile. A run takes the
store over as a starting engine does (lock, journal, commits), but leaves journal records and the state of shards as they
are: the next engine goes on as if nothing had been.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import ConfigError, CorruptionError, StorageError
from headrace.core.frames import FrameBatch
from headrace.core.paths import parse_duration_ns
from headrace.core.quality import Quality, usable
from headrace.core.sensors import SensorDirectory
from headrace.core.spans import parse_range
from headrace.ingest.journal import Journal
from headrace.pipeline.base import StepResult, Tick
from headrace.pipeline.flows import Flow, FlowShard, FlowSpec
from headrace.pipeline.operators.deduplicate import Deduplicate
from headrace.pipeline.operators.map import ColumnBatch, function_name
from headrace.pipeline.shard import Shard
from headrace.runtime.announcement import read_announcement
from headrace.runtime.group_frames import GroupFrames
from headrace.runtime.reader import JournalTail, StoreReader
from headrace.store.buffer import HotBuffer
from headrace.store.commits import CommitLog
from headrace.store.directories import load_directory
from headrace.store.disks import local_of, mark_folder
from headrace.store.flush import Flusher
from headrace.store.grouping import DAY_NS
from headrace.store.query import Store, slices_of
from headrace.store.regroup import read_layouts
from headrace.store.view import recover_commit
from headrace.store.wanted import Wanted

_BUFFER_BYTES = 64 << 20
_IDLE_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class RunCounts:
    """What a run did, in samples.

    Parameters
    ----------
    read : samples that the pipeline read. written : derived samples that are new or changed in the store.
    late : samples that came after what they belong to was over. rejected : samples read whose quality keeps
        them out of results (bad or not a number), and texts.
    """

    read: int
    written: int
    late: int
    rejected: int


@dataclass(frozen=True)
class Pipeline:
    """A pipeline, built step by step; each call gives a new one, so that parts can be shared.

    The steps are those of ``[pipelines.<name>]`` in a plant file; `to_toml` writes them so.

    Examples
    --------
    >>> flow = Pipeline("hourly").read("leon/**/temperature").window("1h", agg=["mean", "max"])
    >>> flow = flow.write("{parent}/{signal}_{agg}_1h")
    >>> print(flow.to_toml())
    [pipelines.hourly]
    read = "leon/**/temperature"
    steps = [
      { op = "window", every = "1h", agg = ["mean", "max"] },
    ]
    write = "{parent}/{signal}_{agg}_1h"
    """

    name: str
    pattern: str = ""
    steps: tuple[dict[str, Any], ...] = ()
    template: str = ""

    def read(self, pattern: str) -> Pipeline:
        """Read the sensors of devices that `pattern` matches; derived series are never read."""
        return replace(self, pattern=pattern)

    def map(self, call: Callable[[ColumnBatch], ColumnBatch] | str) -> Pipeline:
        """Run a function batch → batch over the columns; see `headrace.pipeline.operators.map`."""
        return self.step("map", call=call)

    def window(self, every: str, agg: Sequence[str], **options: Any) -> Pipeline:
        """End with tumbling windows: `agg` of count, sum, mean, var, min, max, first, last."""
        return self.step("window", every=every, agg=tuple(agg), **options)

    def sliding(self, size: str, every: str, agg: Sequence[str], **options: Any) -> Pipeline:
        """End with windows of `size` that begin every `every`."""
        return self.step("sliding", size=size, every=every, agg=tuple(agg), **options)

    def time_weighted_mean(self, every: str, **options: Any) -> Pipeline:
        """End with means in which a value weighs as long as it lasted; ``{agg}`` is ``twa``."""
        return self.step("time_weighted_mean", every=every, **options)

    def resample(self, every: str, **options: Any) -> Pipeline:
        """Go on with samples at even times."""
        return self.step("resample", every=every, **options)

    def step(self, op: str, **keys: Any) -> Pipeline:
        """Add any operator by its name, with its keys as in a plant file."""
        return replace(self, steps=(*self.steps, {"op": op, **keys}))

    def write(self, template: str) -> Pipeline:
        """Write derived series beside their source: ``{parent}/{signal}_{agg}_5m``."""
        return replace(self, template=template)

    def spec(self, on_error: str = "bad") -> FlowSpec:
        """The pipeline as the engine takes it. Raises `ConfigError` for what is wrong in which key.

        Parameters
        ----------
        on_error : what an error in a `map` function does: ``bad`` values, or ``fail``.
        """
        where = f"pipelines.{self.name}"
        if not self.pattern or not self.template:
            verb = "read" if not self.pattern else "write"
            raise ConfigError(
                f"the pipeline does not say what it {verb}s; add .{verb}(...)", f"{where}.{verb}"
            )
        if not self.steps:
            raise ConfigError("the pipeline has no step; add .window(...) or another", f"{where}.steps")
        steps = tuple({**s, "on_error": on_error} if s["op"] == "map" else s for s in self.steps)
        return FlowSpec(self.name, self.pattern, steps, self.template)

    def to_toml(self) -> str:
        """The pipeline as a section of a plant file. Functions are named ``module:function``."""

        def text(value: Any) -> str:
            if isinstance(value, tuple | list):
                return f"[{', '.join(text(v) for v in value)}]"
            return json.dumps(function_name(value) if callable(value) else value, ensure_ascii=False)

        steps = [", ".join(f"{k} = {text(v)}" for k, v in step.items()) for step in self.steps]
        lines = [f"[pipelines.{self.name}]", f"read = {text(self.pattern)}", "steps = ["]
        lines += [f"  {{ {step} }}," for step in steps]
        return "\n".join([*lines, "]", f"write = {text(self.template)}"])

    def run(
        self,
        store: StoreReader,
        *,
        last: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        clock: Clock | None = None,
    ) -> RunCounts:
        """Run over the stored samples of a span; derived series are committed to the store.

        Windows that begin before the span are left out, and those that are not over at its end.

        Parameters
        ----------
        store : from `open_store`. last, from_, to : the span, as in a query.

        Raises
        ------
        StorageError : an engine runs on the store: stop it, or write the pipeline into its plant file.
        ConfigError : the pipeline or the span can't be. CorruptionError : some of the samples can't be read.
        PluginError : a `map` function failed.
        """
        spec = self.spec("fail")
        tail = store.journal_tail()
        span = parse_range(tail.now_ns + 1, store.zone, last=last, start=from_, end=to)
        disk = store.disk
        announced = read_announcement(disk)
        if announced is not None:
            raise StorageError(
                f"an engine (process {announced.pid}) runs on this store; stop it and run again, or write the "
                f"pipeline into its plant file:\n{self.to_toml()}"
            )
        with _Takeover(disk, clock or SystemClock()) as owned:
            return _Run(owned, spec, (span.start_ns, span.end_ns)).run()


class _Takeover:
    """The store as its owner: what a starting engine does, without shards."""

    def __init__(self, disk: Any, clock: Clock) -> None:
        self._disk, self.clock = disk, clock
        self._folder = local_of(disk)

    def __enter__(self) -> Self:
        if self._folder is not None:
            self._folder.lock()
        try:
            mark_folder(self._disk)
            self._open()
        except BaseException:
            self._unlock()
            raise
        return self

    def _open(self) -> None:
        nonce = int.from_bytes(os.urandom(7), "little")
        self.journal = Journal.open(self._disk, self.clock, nonce=nonce)
        incarnation = self.journal.recovery.incarnation
        commits = CommitLog.open(self._disk, incarnation, self.clock, recover_commit)
        self.directory = load_directory(self._disk)
        self.store = Store.open(self._disk, self.directory, self.clock)
        commits.retired = self.store.retired
        # Groups that were defined and not saved yet: new ones must not get their numbers.
        self.tail = JournalTail.load(self._disk, self.store.refresh().commits, self.store)
        self.flusher = Flusher(self._disk, self.directory, commits, self.store, clock=self.clock)
        # As new as anything that is stored, so that what is written wins over what it replaces.
        flushed = (p.flushed_seq for p in commits.view.shards.values())
        self.seq = max([0, self.journal.last_seq, *flushed])

    def __exit__(self, *_: object) -> None:
        try:
            self.journal.close()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._folder is not None:
            self._folder.unlock()


class _Run:
    """One pipeline over a span of an owned store."""

    def __init__(self, owned: _Takeover, spec: FlowSpec, span: tuple[int, int]) -> None:
        self._owned, self._spec = owned, spec
        window = spec.window
        every_ns = 1 if window is None else window.every_ns
        # A window that begins inside the span needs its first samples too.
        self._start_ns = -(-span[0] // every_ns) * every_ns
        self._end_ns = span[1]
        self._idle_ns = 0 if window is None else parse_duration_ns(window.idle)
        self._flow = Flow(spec, owned.directory)
        self._frames = GroupFrames(owned.store)
        self._frames.buffers = dict.fromkeys(range(owned.directory.n_shards), owned.tail)
        self._shards: dict[int, Shard] = {}
        self._buffers: dict[int, HotBuffer] = {}
        self._n_read = self._n_written = self._n_late = self._n_rejected = 0

    def run(self) -> RunCounts:
        self._flow.extend()
        for turn in self._turns():
            self._feed(*turn)
        self._close_windows()
        self._publish()
        return RunCounts(self._n_read, self._n_written, self._n_late, self._n_rejected)

    def _turns(self) -> Iterator[tuple[list[int], int, int]]:
        """Slots and spans of bounded size, each group in the order of time."""
        owned = self._owned
        if self._start_ns >= self._end_ns:
            return
        mine = np.flatnonzero(self._flow.class_of_slot >= 0)
        wanted = Wanted(owned.directory, owned.store.series, owned.store.select(self._spec.read))
        last_day = (self._end_ns - 1) // DAY_NS
        for day in range(self._first_day(), last_day + 1):
            start_ns, end_ns = max(day * DAY_NS, self._start_ns), min((day + 1) * DAY_NS, self._end_ns)
            scan = owned.store.scan(owned.store.refresh(), wanted, start_ns, end_ns)
            number, n = slices_of(wanted, scan)
            for one in range(n):
                groups = np.flatnonzero(number == one)
                places = np.flatnonzero(np.isin(wanted.group_of_place, groups))
                yield np.intersect1d(wanted.slots[places], mine).tolist(), start_ns, end_ns

    def _first_day(self) -> int:
        """The first day of the span that anything is stored of."""
        view = self._owned.store.refresh()
        stored = [s.info.t_min_ns for s in view.sources(self._start_ns, self._end_ns)]
        unflushed = [int(r.batch().ts_ns.min()) for r in self._owned.tail.records]
        return max(self._start_ns, min([self._end_ns - 1, *stored, *unflushed])) // DAY_NS

    def _feed(self, slots: list[int], start_ns: int, end_ns: int) -> None:
        if not slots:
            return
        owned = self._owned
        batches, missing = read_layouts(owned.store, slots, start_ns, end_ns, owned.tail.frames)
        if missing:
            raise CorruptionError(f"{missing[0]}; headrace store verify names all that is damaged")
        for batch in sorted(batches, key=lambda b: int(b.ts_ns[0])):
            self._count(batch)
            self._keep(self._shard(int(batch.slot[0])), (batch,))
        if sum(b.size_bytes for b in self._buffers.values()) > _BUFFER_BYTES:
            self._publish()

    def _count(self, batch: FrameBatch) -> None:
        """Count the samples of the columns that the pipeline reads; a group's others come along."""
        columns = self._flow.classes[int(self._flow.class_of_slot[batch.slot[0]])].columns
        quality = np.zeros(batch.values.shape, np.uint8) if batch.quality is None else batch.quality
        if columns is not None:
            quality = quality[:, columns]
        n_there = int(np.count_nonzero(quality < Quality.ABSENT))
        n_usable = 0 if batch.dictionary is not None else int(np.count_nonzero(usable(quality)))
        self._n_read += n_there
        self._n_rejected += n_there - n_usable

    def _shard(self, slot: int) -> int:
        number = int(self._owned.directory.shard[slot])
        if number not in self._shards:
            directory: SensorDirectory = self._owned.directory
            branch = {self._spec.name: FlowShard(self._flow, number)}
            self._shards[number] = Shard(number, Deduplicate(directory, number), dict(branch))
            self._buffers[number] = HotBuffer(number, directory)
        return number

    def _keep(self, number: int, records: Sequence[FrameBatch | Tick]) -> None:
        """Step a shard; what it derives goes where late data go: it may be stored already."""
        result = self._shards[number].step(records)
        self._n_late += sum(b.n_samples for b in result.late)
        self._take(number, result)
        for effect in result.effects:
            found = self._frames.many([effect.slot], effect.start_ns, effect.end_ns)
            if found:
                self._take(number, StepResult(revised=self._shards[number].recompute([effect], found)))

    def _take(self, number: int, result: StepResult) -> None:
        for batch in (*result.derived, *result.revised):
            keep = np.flatnonzero((batch.ts_ns >= self._start_ns) & (batch.ts_ns < self._end_ns))
            if len(keep):
                some = batch.take(keep).with_(arrival_ns=self._owned.clock.now_ns())
                self._buffers[number].add_late(self._owned.seq, some)

    def _close_windows(self) -> None:
        """Let time go on to the end of the span, so that windows of silent groups that are over are told of."""
        over_ns = self._end_ns + self._idle_ns
        for number in self._shards:
            self._keep(number, [Tick(over_ns)] * _IDLE_ROUNDS)

    def _publish(self) -> None:
        buffers = [b for _, b in sorted(self._buffers.items()) if b.n_samples]
        if buffers:
            self._n_written += self._owned.flusher.add(buffers, self._owned.seq)
