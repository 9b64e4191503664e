"""Late frames: told apart by what the unflushed tail already has.

A late sample is compared with the newest version of its (sensor, time) that is not flushed yet. The same bits
and quality: a duplicate, dropped. Other bits: a revision. Nothing there: it may be new, or a version of
something committed long ago; the flush finds out (`headrace.store.overlays`). What is kept is kept as single
samples, newest last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from headrace.core.frames import FrameBatch, Shape
from headrace.core.growing import Growing
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.store.frame_log import FrameLog
from headrace.store.series import SeriesMap
from headrace.store.time_index import TimeIndex

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

Known = tuple[FrameLog, I64, I64]
UNKNOWN, SAME, OTHER = 0, 1, 2
"""What is there at a sample's (sensor, time): nothing, the same bits, other bits."""


@dataclass(frozen=True, slots=True)
class FlatSamples:
    """Single samples, absent ones left out: parallel columns, and where each stood in its batch.

    ``slot: uint32[n]``, ``column: uint16[n]``, ``group: uint64[n]``, ``number: int64[n]`` (see `SeriesMap`),
    ``ts_ns: int64[n]``, ``values: T[n]``, ``quality: uint8[n]``, ``at: int64[n]``.
    """

    slot: npt.NDArray[np.uint32]
    column: npt.NDArray[np.uint16]
    group: U64
    number: I64
    ts_ns: I64
    values: Array
    quality: npt.NDArray[np.uint8]
    at: I64
    dictionary: tuple[str, ...] | None

    def take(self, index: Array) -> FlatSamples:
        """The samples at `index`, or where a mask is true."""
        return FlatSamples(
            self.slot[index], self.column[index], self.group[index], self.number[index], self.ts_ns[index],
            self.values[index], self.quality[index], self.at[index], self.dictionary,
        )  # fmt: skip

    def to_batch(self) -> FrameBatch:
        """One sparse frame for each sample."""
        start = np.arange(len(self.slot) + 1)
        return FrameBatch.sparse(
            self.slot, self.ts_ns, self.values, start, self.column,
            quality=self.quality if self.quality.any() else None, dictionary=self.dictionary,
        )  # fmt: skip


def flatten(batch: FrameBatch, directory: SensorDirectory, series: SeriesMap) -> FlatSamples:
    """The samples of a batch of any shape, one by one."""
    if batch.shape is Shape.DENSE:
        slot = np.repeat(batch.slot, batch.width)
        column = np.tile(np.arange(batch.width, dtype=np.uint16), batch.n_frames)
    else:
        assert batch.start is not None
        slot = np.repeat(batch.slot, np.diff(batch.start))
        column = np.zeros(len(slot), np.uint16) if batch.column is None else batch.column
    at = np.arange(len(slot))
    quality = np.zeros(len(slot), np.uint8) if batch.quality is None else batch.quality.reshape(-1)
    number = series.of(slot, column)
    samples = FlatSamples(
        slot, column, directory.group_id[slot], number, batch.value_times(), batch.values.reshape(-1), quality,
        at, batch.dictionary,
    )  # fmt: skip
    there = quality < Quality.ABSENT
    return samples if there.all() else samples.take(there)


def value_bits(values: Array, dictionary: tuple[str, ...] | None) -> U64:
    """What two values must share to be the same: their bits, or the words they are codes of."""
    if dictionary is not None:
        words = np.array([xxhash.xxh3_64_intdigest(w.encode()) for w in dictionary], np.uint64)
        known = values < len(words)
        return np.where(known, words[np.where(known, values, 0)], values.astype(np.uint64))
    plain = np.ascontiguousarray(values)
    return plain.view(f"u{plain.itemsize}").astype(np.uint64)


class LateLog:
    """Late samples that were kept, of one value type.

    ``settled`` says of each whether the flush can store it without asking what is committed.
    """

    def __init__(self, key: Any) -> None:
        self.log = FrameLog(key)
        self._settled = Growing(np.bool_)

    @property
    def settled(self) -> npt.NDArray[np.bool_]:
        """One flag a row."""
        return self._settled.view[: self.log.n_rows]

    def append(self, seq: int, samples: FlatSamples, settled: Array, arrival_ns: int) -> None:
        """Keep samples."""
        self.log.append(seq, samples.to_batch().with_(arrival_ns=arrival_ns))
        self._settled.extend(settled, len(settled))

    def split(self, seq: int) -> tuple[LateLog | None, LateLog | None]:
        """What came up to `seq` and what later."""
        settled = self._settled.view
        parts: list[LateLog | None] = []
        first = 0
        for log in self.log.split(seq):
            part = None
            if log is not None:
                part = LateLog.__new__(LateLog)
                part.log, part._settled = log, Growing(np.bool_)
                part._settled.extend(settled[first : first + log.n_rows], log.n_rows)
                first += log.n_rows
            parts.append(part)
        return parts[0], parts[1]


class Comparer:
    """Compares samples with logs; keeps an index for each log it has looked into."""

    def __init__(self, directory: SensorDirectory, series: SeriesMap) -> None:
        self._directory, self._series = directory, series
        self._indexes: dict[int, tuple[FrameLog, TimeIndex]] = {}

    def keep(self, logs: Iterable[FrameLog]) -> None:
        """Forget the indexes of all logs but these."""
        kept = {id(log) for log in logs}
        self._indexes = {k: v for k, v in self._indexes.items() if k in kept}

    def status(
        self, samples: FlatSamples, logs: Iterable[FrameLog]
    ) -> tuple[npt.NDArray[np.uint8], list[Known]]:
        """`UNKNOWN`, `SAME` or `OTHER` of each sample; of several logs the first that has it decides.

        Also, log by log, the rows that have them, and the samples that they are earlier versions of.
        """
        out = np.full(len(samples.slot), UNKNOWN, np.uint8)
        others: list[Known] = []
        left = np.arange(len(out))
        for log in logs:
            if not len(left):
                break
            asked = samples.take(left)
            at, row, column = self._newest(asked, log)
            if len(at):
                found = self._compare(asked.take(at), log, row, column)
                out[left[at]] = found
                others.append((log, row, left[at]))
                left = left[out[left] == UNKNOWN]
        return out, others

    def _newest(self, samples: FlatSamples, log: FrameLog) -> tuple[I64, I64, I64]:
        """(sample, row, column) of the last row of `log` that has each sample's sensor and time."""
        index = self._indexes.get(id(log))
        if index is None:
            index = self._indexes[id(log)] = (log, TimeIndex(log, self._directory, self._series))
        at, row = index[1].find(samples.group, samples.number, samples.ts_ns)
        column = np.zeros(len(at), np.int64)
        if log.shape is Shape.DENSE and len(at):
            column = self._columns_of(samples.take(at), log.places(row)[0])
        known = np.flatnonzero(column >= 0)
        known = known[log.at(row[known], column[known])[1] < Quality.ABSENT]
        at, row, column = at[known], row[known], column[known]
        order = np.lexsort((row, at))
        at, row, column = at[order], row[order], column[order]
        last = np.append(at[1:] != at[:-1], True) if len(at) else np.empty(0, np.bool_)
        return at[last], row[last], column[last]

    def _columns_of(self, samples: FlatSamples, slot: Array) -> I64:
        """Column of each sample's sensor in the layout of `slot`; -1 where it is not in it."""
        column = samples.column.astype(np.int64)
        other = slot != samples.slot
        for one in np.unique(slot[other]).tolist():
            mine = other & (slot == one)
            numbers = self._series.numbers(one)
            order = np.argsort(numbers)
            place = np.searchsorted(numbers[order], samples.number[mine])
            place[place == len(numbers)] = 0
            found = order[place]
            column[mine] = np.where(numbers[found] == samples.number[mine], found, -1)
        return column

    def _compare(self, samples: FlatSamples, log: FrameLog, row: I64, column: I64) -> npt.NDArray[np.uint8]:
        values, quality = log.at(row, column)
        if values.dtype != samples.values.dtype or (log.dictionary is None) != (samples.dictionary is None):
            return np.full(len(row), OTHER, np.uint8)
        mine, theirs = value_bits(samples.values, samples.dictionary), value_bits(values, log.dictionary)
        same = (mine == theirs) & (quality == samples.quality)
        slot, own_column, _ = log.places(row)
        if log.shape is Shape.DENSE:
            own_column = column.astype(np.uint16)
        for i in np.flatnonzero(
            slot != samples.slot
        ).tolist():  # the same bits on another grid are another value
            one = self._directory.layout(int(slot[i])).columns[int(own_column[i])]
            other = self._directory.layout(int(samples.slot[i])).columns[int(samples.column[i])]
            same[i] &= (one.scale, one.offset) == (other.scale, other.offset)
        return np.where(same, SAME, OTHER).astype(np.uint8)


def kept_frames(batch: FrameBatch, samples: FlatSamples, fresh: npt.NDArray[np.bool_]) -> FrameBatch | None:
    """What is left of `batch` when only the `fresh` samples are; None for nothing."""
    if fresh.all() and len(fresh) == batch.n_values:
        return batch
    if not fresh.any():
        return None
    keep: npt.NDArray[np.bool_] = np.zeros(batch.n_values, np.bool_)
    keep[samples.at[fresh]] = True
    if batch.shape is Shape.WAVE:
        return samples.take(fresh).to_batch().with_(arrival_ns=batch.arrival_ns, origin=batch.origin)
    if batch.shape is Shape.DENSE:
        keep = keep.reshape(batch.values.shape)
        quality = np.zeros(batch.values.shape, np.uint8) if batch.quality is None else batch.quality
        left = batch.with_(quality=np.where(keep, quality, np.uint8(Quality.ABSENT)))
        return left.take(np.flatnonzero(keep.any(axis=1)))
    assert batch.start is not None
    frame = np.repeat(np.arange(batch.n_frames), np.diff(batch.start))[keep]
    count = np.bincount(frame, minlength=batch.n_frames)
    some: dict[str, Any] = {"start": np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])}
    for name in ("values", "quality", "column", "value_ts_ns"):
        if getattr(batch, name) is not None:
            some[name] = getattr(batch, name)[keep]
    return batch.with_(**some).take(np.flatnonzero(count))
