"""The hot buffer: what a shard has taken in and not yet flushed.

One thread, the shard's runner, appends; any thread may read `frames`. A flush takes the content up to a
journal position, writes it, and then releases it; until then it stays visible, so that a reader who looks
first at the buffer and then at the commits misses nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NO_TIME
from headrace.core.frames import FrameBatch, Shape
from headrace.core.sensors import SensorDirectory
from headrace.store.frame_log import FrameLog, KindKey
from headrace.store.late import (
    SAME,
    UNKNOWN,
    Comparer,
    FlatSamples,
    Known,
    LateLog,
    flatten,
    kept_frames,
)
from headrace.store.series import SeriesMap

U32 = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Taken:
    """What one flush writes: everything of a shard up to the journal position `seq`.

    ``logs`` hold accepted and derived frames, ``late`` what came late and is not a duplicate.
    """

    shard: int
    seq: int
    logs: tuple[FrameLog, ...]
    late: tuple[LateLog, ...]

    @property
    def n_samples(self) -> int:
        """Samples in it."""
        return sum(log.n_samples for log in self.logs) + sum(one.log.n_samples for one in self.late)

    @property
    def size_bytes(self) -> int:
        """Bytes of its columns."""
        return sum(log.size_bytes for log in self.logs) + sum(one.log.size_bytes for one in self.late)

    @property
    def arrival_ns(self) -> tuple[int, int]:
        """First and last arrival of its batches."""
        logs = [*self.logs, *(one.log for one in self.late)]
        return min((g.first_arrival_ns for g in logs), default=NO_TIME), max(
            (g.last_arrival_ns for g in logs), default=NO_TIME
        )


class HotBuffer:
    """The unflushed tail of one shard.

    Parameters
    ----------
    shard : which one. directory : of the sensors whose frames will come.

    Cost: a copy of each batch (1 to 2 us and its bytes); a late sample is looked up for about 1 us.
    """

    def __init__(self, shard: int, directory: SensorDirectory) -> None:
        self.shard = shard
        self._directory = directory
        self._series = SeriesMap(directory)
        self._comparer = Comparer(directory, self._series)
        self._lock = threading.Lock()
        self._logs: dict[KindKey, list[FrameLog]] = {}
        """Oldest first; the last one takes what comes."""
        self._late: dict[KindKey, LateLog] = {}
        self._returned: list[Taken] = []
        self._taken: list[Taken] = []
        self._last_sizes: dict[KindKey, tuple[int, int]] = {}
        self._has_value_times = False

    # --- the runner's side ---------------------------------------------------------------------------

    def append(self, seq: int, batch: FrameBatch) -> None:
        """Take in accepted or derived frames of journal record `seq`."""
        if not batch.n_frames:
            return
        if (self._late or self._returned) and (self._has_value_times or batch.value_ts_ns is not None):
            # Values may have other times than their frames: a late one may be older than what comes now.
            self._replace(batch, self._late_logs())
        with self._lock:
            for key in _keys_of(batch):
                logs = self._logs.setdefault(key, [])
                if not logs or logs[-1].is_full_for(batch):
                    logs.append(FrameLog(key, *self._size_of_next(key, logs)))
                log = logs[-1]
                if log.n_frames == 0 or log.has_room_for(batch.dictionary):
                    log.append(seq, batch)
                    return

    def _size_of_next(self, key: KindKey, logs: list[FrameLog]) -> tuple[int, ...]:
        """Frames and rows to make room for: as many as the log before it took."""
        return (logs[-1].n_frames, logs[-1].n_rows) if logs else self._last_sizes.get(key, ())

    def add_late(self, seq: int, batch: FrameBatch) -> tuple[int, FrameBatch | None]:
        """Take in frames at or below their group's high mark.

        Returns
        -------
        How many samples were duplicates of unflushed ones, and the frames with those left out (None where
        nothing is left). Duplicates of committed samples are found by the flush.
        """
        self._has_value_times |= batch.shape is Shape.WAVE or batch.value_ts_ns is not None
        samples = flatten(batch, self._directory, self._series)
        fresh = np.zeros(len(samples.slot), np.bool_)
        for turn in _turns(samples):
            part = samples.take(turn)
            status, others = self._comparer.status(part, self._newest_first())
            kept = status != SAME
            self._supersede(others, kept)
            fresh[turn[kept]] = True
            if kept.any():
                self._keep(seq, part.take(kept), status[kept] != UNKNOWN, batch.arrival_ns)
        return int(len(fresh) - fresh.sum()), kept_frames(batch, samples, fresh)

    def _keep(self, seq: int, samples: FlatSamples, settled: npt.NDArray[np.bool_], arrival_ns: int) -> None:
        with self._lock:
            for key in _keys_of(samples.to_batch()):
                late = self._late.get(key)
                if late is None:
                    late = self._late[key] = LateLog(key)
                if late.log.n_frames == 0 or late.log.has_room_for(samples.dictionary):
                    late.append(seq, samples, settled, arrival_ns)
                    return

    def _replace(self, batch: FrameBatch, late: list[FrameLog]) -> None:
        """Drop late samples that accepted ones, which came after them, replace."""
        samples = flatten(batch, self._directory, self._series)
        self._supersede(self._comparer.status(samples, late)[1])

    def _supersede(self, others: list[Known], kept: npt.NDArray[np.bool_] | None = None) -> None:
        """Drop late versions that a newer one replaces, so that a flush holds one version of each.

        What a running flush has taken stays as it is: what comes now is of a later flush, and wins by that.
        """
        with self._lock:
            mine = {id(log) for log in self._late_logs()}
            for log, rows, sample in others:
                if id(log) in mine:
                    log.erase(rows if kept is None else rows[kept[sample]])

    def _late_logs(self) -> list[FrameLog]:
        """Late samples that no flush is writing."""
        late = [*self._late.values(), *(one for taken in self._returned for one in taken.late)]
        return [one.log for one in late]

    def _newest_first(self) -> list[FrameLog]:
        """All unflushed logs, those that decide first."""
        with self._lock:
            past = [*self._taken, *self._returned]
            past.sort(key=lambda taken: -taken.seq)
            logs = [one.log for one in self._late.values()]
            logs += [log for some in self._logs.values() for log in reversed(some)]
            for taken in past:
                logs += [*(one.log for one in taken.late), *reversed(taken.logs)]
            self._comparer.keep(logs)
        return logs

    # --- flushing ------------------------------------------------------------------------------------

    def take(self, seq: int) -> Taken:
        """Everything up to journal position `seq`, and what an earlier flush gave back.

        It stays visible to `frames` until `release`. All records up to `seq` must have been stepped through
        the shard.
        """
        late_again = [one.log for taken in self._returned for one in taken.late]
        if late_again and self._has_value_times:
            # What came while the flush that failed was under way has not been compared with them.
            for log in self._current():
                self._replace(log.batch(), late_again)
        with self._lock:
            logs: list[FrameLog] = [log for taken in self._returned for log in taken.logs]
            late: list[LateLog] = [one for taken in self._returned for one in taken.late]
            self._returned = []
            for key, some in list(self._logs.items()):
                split = [log.split(seq) for log in some]
                done = [now for now, _ in split if now is not None]
                if done:
                    logs += done
                    self._last_sizes[key] = done[0].n_frames, done[0].n_rows
                _keep_or_drop(self._logs, key, [later for _, later in split if later is not None])
            for key, one in list(self._late.items()):
                now_late, later_late = one.split(seq)
                if now_late is not None:
                    late.append(now_late)
                _keep_or_drop(self._late, key, later_late)
            taken = Taken(self.shard, seq, tuple(logs), tuple(late))
            self._taken.append(taken)
            return taken

    def release(self, taken: Taken) -> None:
        """Forget what is committed now."""
        with self._lock:
            self._taken = [t for t in self._taken if t is not taken]

    def put_back(self, taken: Taken) -> None:
        """The flush failed: the next one takes it again."""
        with self._lock:
            self._taken = [t for t in self._taken if t is not taken]
            self._returned.append(taken)

    # --- what others see -----------------------------------------------------------------------------

    def frames(self, slots: U32 | None = None) -> list[FrameBatch]:
        """All frames that are not committed, of some slots or all: later batches win over earlier ones."""
        with self._lock:
            past = sorted([*self._taken, *self._returned], key=lambda taken: taken.seq)
            logs = [log for taken in past for log in (*taken.logs, *(one.log for one in taken.late))]
            logs += [*self._current(), *(one.log for one in self._late.values())]
            batches = [log.batch() for log in logs if log.n_frames]
        if slots is None:
            return batches
        ordered = np.sort(slots)
        return [b for b in (_only(batch, ordered) for batch in batches) if b.n_frames]

    def _current(self) -> list[FrameLog]:
        return [log for logs in self._logs.values() for log in logs]

    def _waiting(self) -> list[FrameLog]:
        logs = [*self._current(), *(log for taken in self._returned for log in taken.logs)]
        return [*logs, *self._late_logs()]

    @property
    def n_samples(self) -> int:
        """Samples that no flush has taken."""
        with self._lock:
            return sum(log.n_samples for log in self._waiting())

    @property
    def oldest_ns(self) -> int:
        """Arrival of the oldest batch that no flush has taken; `NO_TIME` where there is none."""
        with self._lock:
            return min((log.first_arrival_ns for log in self._waiting()), default=NO_TIME)

    @property
    def size_bytes(self) -> int:
        """Bytes held, those of a running flush among them."""
        with self._lock:
            return sum(log.size_bytes for log in self._waiting()) + sum(t.size_bytes for t in self._taken)


def _keys_of(batch: FrameBatch) -> Iterator[KindKey]:
    """Keys of the logs that may take a batch: one; of texts more, as the value type's codes run out."""
    shape, dtype, width, dictionary = batch.kind_key
    if dictionary is None:
        yield batch.kind_key
        return
    for number in itertools.count():
        yield shape, dtype, width, (str(number),)


def _keep_or_drop(logs: dict[KindKey, Any], key: KindKey, later: Any) -> None:
    if not later:
        del logs[key]
    else:
        logs[key] = later


def _only(batch: FrameBatch, wanted: U32) -> FrameBatch:
    """Frames of slots that are among `wanted`, which is sorted."""
    if len(wanted) == 1:
        keep = batch.slot == wanted[0]
    else:
        keep = np.isin(batch.slot, wanted)
    return batch if keep.all() else batch.take(np.flatnonzero(keep))


def _turns(samples: FlatSamples) -> list[npt.NDArray[np.int64]]:
    """Indices so that no (sensor, time) is twice in one turn: first all first versions, then the second ..."""
    order = np.lexsort((samples.ts_ns, samples.number, samples.group))
    if not len(order):
        return []
    new = np.ones(len(order), np.bool_)
    new[1:] = False
    for column in (samples.group, samples.number, samples.ts_ns):
        new[1:] |= column[order][1:] != column[order][:-1]
    if new.all():
        return [np.arange(len(order))]
    first = np.flatnonzero(new)
    turn = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
    return [np.sort(order[turn == t]) for t in range(int(turn.max()) + 1)]
