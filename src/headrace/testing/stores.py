"""A kit for stores: a plain model of what a store must answer, and a rig that drives ours through its life.

`StoreModel` keeps the newest version of every sample in a dictionary. `StoreRig` owns a disk, shards' hot
buffers, a flusher and a compactor, and a journal in memory that survives crashes, as the real one does. The
`check_*` functions compare a store's answers with the model; they serve any `SeriesStore`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.core.clock import NS, VirtualClock
from headrace.core.disk import Disk
from headrace.core.faults import FaultPoints
from headrace.core.frames import FrameBatch, Shape
from headrace.core.grids import value_of
from headrace.core.layouts import Column
from headrace.core.quality import USABLE_BELOW, Quality
from headrace.core.sensors import SensorDirectory
from headrace.store.aggregates import AGGREGATES
from headrace.store.base import SeriesStore, Tail
from headrace.store.buffer import HotBuffer
from headrace.store.commits import CommitLog
from headrace.store.compactor import CompactionPolicy, CompactionReport, Compactor
from headrace.store.flush import Flusher, FlushPart
from headrace.store.query import Store
from headrace.store.tiers import TierRules
from headrace.store.view import recover_commit

RELATIVE = 1e-12
"""How far float sums may differ by the order of summing."""
_M2_RELATIVE = 2.0**-23
"""How far the m2 of a warm row is rounded, and some more."""


@dataclass(frozen=True, slots=True)
class Version:
    """One sample: engineering value (a word for strings), quality."""

    value: Any
    quality: int

    @property
    def is_usable(self) -> bool:
        """Whether it enters aggregates."""
        return self.quality < USABLE_BELOW and self.value == self.value


class StoreModel:
    """The newest version of every sample, by path and time."""

    def __init__(self, directory: SensorDirectory) -> None:
        self._directory = directory
        self.samples: dict[str, dict[int, Version]] = {}
        self.n_put = 0

    def put(self, batch: FrameBatch) -> None:
        """Take in a batch; its samples supersede earlier ones of the same sensor and time."""
        for path, ts_ns, version in self._versions(batch):
            self.samples.setdefault(path, {})[ts_ns] = version
            self.n_put += 1

    def _versions(self, batch: FrameBatch) -> Iterable[tuple[str, int, Version]]:
        slots, columns = _places(batch)
        times = batch.value_times().tolist()
        values = batch.values.reshape(-1)
        quality = [0] * len(times) if batch.quality is None else batch.quality.reshape(-1).tolist()
        for i, ts_ns in enumerate(times):
            if quality[i] >= Quality.ABSENT:
                continue
            layout = self._directory.layout(slots[i])
            known = layout.columns[columns[i]]
            path = self._directory.sensor_path(slots[i], columns[i])
            yield path, ts_ns, Version(_value(batch, values[i], known), quality[i])

    def rows(self, start_ns: int, end_ns: int) -> list[tuple[str, int, Any, int]]:
        """(path, time, value, quality) in [start_ns, end_ns), by path and time."""
        return [
            (path, ts_ns, version.value, version.quality)
            for path in sorted(self.samples)
            for ts_ns, version in sorted(self.samples[path].items())
            if start_ns <= ts_ns < end_ns
        ]

    def windows(self, start_ns: int, end_ns: int, every_ns: int) -> dict[tuple[str, int], list[Any]]:
        """Usable values of each (path, start of the window), in time order."""
        out: dict[tuple[str, int], list[Any]] = {}
        for path, ts_ns, value, quality in self.rows(start_ns, end_ns):
            if Version(value, quality).is_usable:
                out.setdefault((path, ts_ns // every_ns * every_ns), []).append(value)
        return out


def _places(batch: FrameBatch) -> tuple[list[int], list[int]]:
    if batch.shape is Shape.DENSE:
        slots = np.repeat(batch.slot, batch.width)
        return slots.tolist(), np.tile(np.arange(batch.width), batch.n_frames).tolist()
    assert batch.start is not None
    slots = np.repeat(batch.slot, np.diff(batch.start))
    columns = np.zeros(len(slots), np.int64) if batch.column is None else batch.column
    return slots.tolist(), columns.tolist()


def _value(batch: FrameBatch, value: Any, known: Column) -> Any:
    if batch.dictionary is not None:
        return batch.dictionary[int(value)] if int(value) < len(batch.dictionary) else f"#{int(value)}"
    if (known.scale, known.offset) == (1.0, 0.0):
        return value.item()
    return value_of(value, known.scale, known.offset)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    return bool(one == other or (one != one and other != other))


def check_rows(
    store: SeriesStore, model: StoreModel, start_ns: int, end_ns: int, tail: Tail | None = None
) -> None:
    """Raw samples of every sensor are what the model has: none lost, none twice, the newest version of each."""
    answer = store.query("**", start_ns, end_ns, tail=tail)
    assert answer.missing == (), answer.missing
    got = []
    for row in answer.to_rows(labels=True):
        text = row.get("text")
        is_word = text is not None and row["path"].endswith("word")
        value = math.nan if row["value"] is None else row["value"]
        got.append((row["path"], row["ts"], text if is_word else value, row["quality"]))
    expected = model.rows(start_ns, end_ns)
    assert [r[:2] for r in got] == [r[:2] for r in expected]
    for one, other in zip(got, expected, strict=True):
        assert _same(one[2], other[2]), (one, other)
        assert one[3] == other[3], (one, other)


def check_windows(
    store: SeriesStore,
    model: StoreModel,
    span: tuple[int, int],
    every_ns: int,
    tail: Tail | None = None,
) -> None:
    """Aggregates, from headers or from samples, are those of the model's samples."""
    answer = store.query("**", *span, every_ns, AGGREGATES, tail=tail)
    expected = model.windows(*span, every_ns)
    rows = answer.to_rows()
    assert [(r["path"], r["ts"]) for r in rows] == sorted(expected), "windows"
    for row in rows:
        values = expected[row["path"], row["ts"]]
        assert row["count"] == len(values)
        if isinstance(values[0], str):
            continue
        for name in ("min", "max", "first", "last"):
            assert row[name] == _PLAIN[name](values), (name, row, values)
        numbers = [float(v) for v in values]
        size = max(math.fsum(abs(v) for v in numbers), 1e-300)
        mean = math.fsum(numbers) / len(numbers)
        assert abs(row["sum"] - math.fsum(numbers)) <= RELATIVE * size, (row, values)
        assert abs(row["mean"] - mean) <= RELATIVE * size / len(numbers), (row, values)
        spread = math.fsum((v - mean) ** 2 for v in numbers) / len(numbers)
        largest = max(abs(v) for v in numbers)
        error = 1e-9 * max(largest * largest, 1e-300) + _M2_RELATIVE * spread
        assert abs(row["var"] - spread) <= error, (row, values)


_PLAIN: dict[str, Callable[[Sequence[Any]], Any]] = {
    "min": min, "max": max, "first": lambda v: v[0], "last": lambda v: v[-1],
}  # fmt: skip


@dataclass
class StoreRig:
    """A store with everything around it, in one thread.

    Parameters
    ----------
    make_disk : the disk to start on. directory : the sensors. faults : reached where the store writes. rules : of the tiers.
    """

    disk: Disk
    directory: SensorDirectory
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(2_000_000_000 * NS))
    faults: FaultPoints = field(default_factory=FaultPoints)
    policy: CompactionPolicy = field(default_factory=lambda: CompactionPolicy(grace_s=10.0, slice_samples=50))
    rules: TierRules = field(default_factory=lambda: TierRules({}))

    def __post_init__(self) -> None:
        self.journal: list[FrameBatch] = []
        self.incarnation = 0
        self.n_stored = self.n_duplicates = 0
        self.start()

    def start(self) -> None:
        """Start an engine on what the disk has, and replay the journal."""
        self.incarnation += 1
        log = CommitLog.open(self.disk, self.incarnation, self.clock, recover_commit)
        self.store = Store.open(self.disk, self.directory, self.clock)
        log.retired = self.store.retired
        self.commits = log
        self.flusher = Flusher(
            self.disk, self.directory, log, self.store, clock=self.clock, faults=self.faults
        )
        self.compactor = Compactor(
            self.store, self.clock, faults=self.faults, policy=self.policy, rules=self.rules
        )
        self.buffers = [HotBuffer(s, self.directory) for s in range(self.directory.n_shards)]
        self._high: dict[int, int] = {}
        for seq, batch in enumerate(self.journal):
            self._step(seq, batch, count=False)

    def add(self, batch: FrameBatch) -> None:
        """Journal a batch and hand it to the shards."""
        self.journal.append(batch)
        self._step(len(self.journal) - 1, batch, count=True)

    def _step(self, seq: int, batch: FrameBatch, *, count: bool) -> None:
        for frame in range(batch.n_frames):
            one = batch.take(np.array([frame]))
            slot, ts_ns = int(one.slot[0]), int(one.ts_ns[0])
            group, shard = int(self.directory.group_id[slot]), int(self.directory.shard[slot])
            position = self.commits.view.shards.get(shard)
            is_new = ts_ns > self._high.get(group, -(2**63))
            self._high[group] = max(ts_ns, self._high.get(group, -(2**63)))
            if position is not None and seq <= position.flushed_seq:
                continue
            if is_new:
                self.buffers[shard].append(seq, one)
            else:
                n_duplicates, _ = self.buffers[shard].add_late(seq, one)
                self.n_duplicates += n_duplicates if count else 0

    def flush(self, shards: Sequence[int] | None = None) -> None:
        """Flush some shards, or all."""
        chosen = range(self.directory.n_shards) if shards is None else shards
        seq = len(self.journal) - 1
        done = self.flusher.flush([FlushPart(self.buffers[s], seq) for s in chosen])
        self.n_stored += done.n_stored
        self.n_duplicates += done.n_duplicates

    def compact(self) -> CompactionReport:
        """Compact every day that has hot rows, and tidy up."""
        return self.compactor.run_once(force=True)

    def tail(self, slots: Any) -> list[FrameBatch]:
        """What is not flushed yet."""
        return [batch for buffer in self.buffers for batch in buffer.frames(slots)]

    @property
    def n_unflushed(self) -> int:
        """Samples in the buffers."""
        return sum(buffer.n_samples for buffer in self.buffers)
