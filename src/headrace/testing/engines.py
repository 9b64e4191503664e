"""An engine of plain dictionaries, to test pipelines and engines against.

`PlainEngine` runs the real shards and pipelines, but keeps what they give in dictionaries: one entry for every
sample, newest version last. It is slow and obvious. A fast engine, or the same engine over another split of
the same data, must end with the same dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch, Shape
from headrace.core.layouts import numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import Revise, StepResult, Tick
from headrace.pipeline.flows import Flow, FlowShard, FlowSpec
from headrace.pipeline.operators.deduplicate import Deduplicate
from headrace.pipeline.shard import Shard


class Kept(NamedTuple):
    """A sample as it is kept: the bytes of its raw value, its type, its quality."""

    raw: bytes
    dtype: str
    quality: int

    @property
    def value(self) -> Any:
        """The raw value as a Python number."""
        return np.frombuffer(self.raw, numpy_dtype(self.dtype))[0].item()

    @property
    def is_usable(self) -> bool:
        """Whether it enters aggregates."""
        return self.quality < Quality.BAD


Series = dict[int, Kept]
"""Samples of one sensor by time."""


def flat(batch: FrameBatch) -> Iterator[tuple[int, int, int, Kept]]:
    """(slot, column, ts_ns, sample) of every sample that is not absent."""
    count = np.full(batch.n_frames, batch.width) if batch.start is None else np.diff(batch.start)
    slot = np.repeat(batch.slot, count).tolist()
    if batch.shape is Shape.DENSE:
        column = np.tile(np.arange(batch.width), batch.n_frames).tolist()
    else:
        column = [0] * batch.n_values if batch.column is None else batch.column.tolist()
    ts_ns = batch.value_times().tolist()
    values = batch.values.reshape(-1)
    quality = [0] * batch.n_values if batch.quality is None else batch.quality.reshape(-1).tolist()
    for i in range(batch.n_values):
        if quality[i] < Quality.ABSENT:
            yield slot[i], column[i], ts_ns[i], Kept(values[i].tobytes(), batch.dtype, quality[i])


class PlainEngine:
    """All shards of a host over plain dictionaries.

    Parameters
    ----------
    directory : the sensors; groups may be defined while the engine runs. specs : the pipelines.

    ``samples`` and ``derived`` hold, by path of the sensor, what a query would give. ``disorder`` lists frames
    that broke the order which `StepResult` promises; it must stay empty.
    """

    def __init__(self, directory: SensorDirectory, specs: Sequence[FlowSpec] = ()) -> None:
        self.directory = directory
        self.flows = [Flow(spec, directory) for spec in specs]
        for flow in self.flows:
            flow.extend()
            directory.watchers.append(flow.extend)
        self.shards = [self._shard(number) for number in range(directory.n_shards)]
        self.samples: dict[str, Series] = {}
        self.derived: dict[str, Series] = {}
        self.disorder: list[str] = []
        self.n_revisions = self.n_duplicates = self.n_thinned = 0
        self._high: dict[int, int] = {}

    def _shard(self, number: int) -> Shard:
        branches = {flow.spec.name: FlowShard(flow, number) for flow in self.flows}
        return Shard(number, Deduplicate(self.directory, number), dict(branches))

    def feed(self, batch: FrameBatch) -> None:
        """Take a batch in, as a journal record would bring it."""
        ordered, start = batch.split(self.directory.shard[batch.slot], self.directory.n_shards)
        for shard in self.shards:
            first, last = int(start[shard.number]), int(start[shard.number + 1])
            if first < last:
                for part in shard.turns(ordered.slice(first, last)):
                    self._keep(shard, shard.step((part,)))

    def tick(self, now_ns: int) -> None:
        """Let time go on."""
        for shard in self.shards:
            self._keep(shard, shard.step((Tick(now_ns),)))

    def restart(self) -> None:
        """Go on with new shards that were given the snapshots of the old ones."""
        states = [shard.snapshot() for shard in self.shards]
        self.shards = [self._shard(number) for number in range(self.directory.n_shards)]
        for shard, state in zip(self.shards, states, strict=True):
            shard.restore(state)

    def _keep(self, shard: Shard, result: StepResult) -> None:
        for batch in (*result.accepted, *result.derived):
            self._check_order(batch)
            self._put(batch)
        fresh = sum(self._put(batch) for batch in result.late)
        self.n_duplicates += sum(batch.n_samples for batch in result.late) - fresh
        for batch in result.revised:
            self._put(batch)
        self.n_thinned += result.n_thinned
        for effect in (*result.effects, *(result.late_effects if fresh else ())):
            self.n_revisions += 1
            stored = self.frames(effect)
            if stored is not None:
                for batch in shard.recompute([effect], {effect.slot: stored}):
                    self._put(batch)

    def _put(self, batch: FrameBatch) -> int:
        """Keep samples; how many were new or different."""
        n = 0
        for slot, column, ts_ns, kept in flat(batch):
            where = self.derived if self.directory.is_derived(slot) else self.samples
            series = where.setdefault(self.directory.sensor_path(slot, column), {})
            n += series.get(ts_ns) != kept
            series[ts_ns] = kept
        return n

    def _check_order(self, batch: FrameBatch) -> None:
        for slot, ts_ns in zip(batch.slot.tolist(), batch.ts_ns.tolist(), strict=True):
            if ts_ns <= self._high.get(slot, ts_ns - 1):
                self.disorder.append(f"{self.directory.paths[slot]}#{self.directory.parts[slot]} at {ts_ns}")
            self._high[slot] = ts_ns

    def frames(self, effect: Revise) -> FrameBatch | None:
        """All kept samples of the effect's group in its span, as frames of its layout in time order."""
        slot, layout = effect.slot, self.directory.layout(effect.slot)
        found: dict[int, list[tuple[int, Kept]]] = {}
        for column in range(layout.width):
            series = self.samples.get(self.directory.sensor_path(slot, column), {})
            for ts_ns, kept in series.items():
                if effect.start_ns <= ts_ns < effect.end_ns:
                    found.setdefault(ts_ns, []).append((column, kept))
        if not found:
            return None
        times = np.array(sorted(found), np.int64)
        rows = [found[t] for t in times.tolist()]
        every = [one for row in rows for _, one in row]
        values = np.frombuffer(b"".join(one.raw for one in every), numpy_dtype(layout.dtype))
        quality = np.array([one.quality for one in every], np.uint8)
        slots = np.full(len(times), slot, np.uint32)
        if all(len(row) == layout.width for row in rows):
            wide = (len(rows), layout.width)
            return FrameBatch.dense(slots, times, values.reshape(wide), quality.reshape(wide))
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(row) for row in rows])])
        columns = np.array([c for row in rows for c, _ in row], np.uint16)
        return FrameBatch.sparse(slots, times, values, start, columns, quality=quality)


def cut(batches: Sequence[FrameBatch], places: npt.ArrayLike, directory: SensorDirectory) -> list[FrameBatch]:
    """The same frames in the same order, batched anew: a batch ends at each of `places` (counted in frames).

    Between two places, frames are put together by kind as intake does: each group's frames stay in order.
    """
    ends = {int(p) for p in np.asarray(places).reshape(-1)}
    out: list[FrameBatch] = []
    waiting: dict[Any, list[FrameBatch]] = {}
    kind_of_group: dict[int, Any] = {}
    at = 0
    for batch in batches:
        for f in range(batch.n_frames):
            group = int(directory.group_id[batch.slot[f]])
            if kind_of_group.get(group, batch.kind_key) != batch.kind_key or at in ends:
                out += [FrameBatch.concat(some) for some in waiting.values()]
                waiting, kind_of_group = {}, {}
            kind_of_group[group] = batch.kind_key
            waiting.setdefault(batch.kind_key, []).append(batch.slice(f, f + 1))
            at += 1
    return out + [FrameBatch.concat(some) for some in waiting.values()]
