"""Flushing: from hot buffers to a segment and a commit, in one step that is done or not done.

The order is what makes it safe: the segment is durable before the commit that names it, state objects too,
and the buffers are released only once the commit is durable. Whatever fails before, the buffers take their
content back and the next flush tries again; an object that no commit names is invisible. Where the answer to a
commit is lost, its content stays taken until the next flush has found out what became of it: it is in the store
once, or goes into the next commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.clock import Clock, thread_cpu_ns
from headrace.core.disk import Buffer, Disk
from headrace.core.errors import Undecided
from headrace.core.faults import FaultPoints
from headrace.core.sensors import SensorDirectory
from headrace.store.buffer import HotBuffer, Taken
from headrace.store.chunks import RowEncoder, ShardFrames
from headrace.store.commits import STATE_FOLDER, Commit, CommitLog, SegmentInfo, ShardPosition
from headrace.store.directories import directory_path, save_directory, saved_slots
from headrace.store.frame_log import FrameLog
from headrace.store.manifests import hot_path
from headrace.store.overlays import settle
from headrace.store.query import Store
from headrace.store.segment import write_segment

_PIECE_BYTES = 1 << 28
"""Columns that are encoded at once: all shards' of most flushes, and never more than memory and one Arrow column hold."""

_HEADER_LEVEL = 1
"""Of zstd: hot rows are written again within a day."""


@dataclass(frozen=True, slots=True)
class FlushPart:
    """What to flush of one shard.

    Parameters
    ----------
    buffer : of the shard. seq : everything up to this journal record was stepped and is durable.
    state : a snapshot of the shard, taken after record `state_seq`, which must not be above `seq`.
    counted_from : records before it were taken in, and counted, by an earlier process.
    """

    buffer: HotBuffer
    seq: int
    state: bytes | None = None
    state_seq: int = -1
    counted_from: int = 0


@dataclass(frozen=True, slots=True)
class Flushed:
    """What a flush did.

    `n_duplicates` were found among the devices' late samples, against committed ones: only those that this
    process took in. `n_stored` are all samples written, those of pipelines and of a replay too. Both have also what
    an earlier flush turned out to have stored after all.
    """

    commit: Commit
    n_stored: int
    n_duplicates: int
    size_bytes: int
    encode_ns: int
    write_ns: int


@dataclass(frozen=True, slots=True)
class _Unsure:
    """A flush whose commit may be there: what it took, and how many samples it would have stored and left out."""

    taken: tuple[tuple[HotBuffer, Taken], ...]
    n_stored: int
    n_duplicates: int


class Flusher:
    """Writes segments and commits; one for each owner of a store, used by one thread at a time.

    Parameters
    ----------
    store : the same store opened for reading: late samples are compared with what it has.
    """

    def __init__(
        self,
        disk: Disk,
        directory: SensorDirectory,
        commits: CommitLog,
        store: Store,
        *,
        clock: Clock,
        faults: FaultPoints | None = None,
    ) -> None:
        self._disk, self._directory, self._commits, self._store = disk, directory, commits, store
        self._clock = clock
        self._faults = faults or FaultPoints()
        self._encoder = RowEncoder(directory)
        self._saved_slots = saved_slots(disk)
        self._unsure: _Unsure | None = None
        self._untold = 0, 0
        """Samples stored and left out by flushes that turned out to be done: told with the next."""

    @property
    def n_saved_slots(self) -> int:
        """Slots that the store's directory files hold."""
        return self._saved_slots

    def flush(self, parts: Sequence[FlushPart], counters: Mapping[str, int] | None = None) -> Flushed:
        """Take the buffers' content, write it, publish it.

        Raises
        ------
        Fenced : another owner has taken over: stop. StorageError : the disk refuses; the buffers have their
            content back, so try again once there is room. Undecided : the content may be committed; it stays
            taken, and the next flush, of whatever parts, begins with finding out.
        """
        for part in parts:
            if part.state_seq > part.seq:
                raise ValueError(f"shard {part.buffer.shard}: state at {part.state_seq}, flush at {part.seq}")
        self._settle()
        taken = [part.buffer.take(part.seq) for part in parts]
        try:
            done = self._write(parts, taken, dict(counters or {}))
        except BaseException:
            if self._unsure is None:
                for part, one in zip(parts, taken, strict=True):
                    part.buffer.put_back(one)
            raise
        for part, one in zip(parts, taken, strict=True):
            part.buffer.release(one)
        (n_stored, n_duplicates), self._untold = self._untold, (0, 0)
        return replace(done, n_stored=done.n_stored + n_stored, n_duplicates=done.n_duplicates + n_duplicates)

    def _settle(self) -> None:
        """Find out what became of a flush whose commit was lost.

        Raises
        ------
        StorageError : it can't be told yet. Fenced : another owner has taken over.
        """
        is_there = self._commits.settle() is not None
        unsure, self._unsure = self._unsure, None
        if unsure is None:
            return
        for buffer, one in unsure.taken:
            if is_there:
                buffer.release(one)
            else:
                buffer.put_back(one)
        if is_there:
            self._untold = self._untold[0] + unsure.n_stored, self._untold[1] + unsure.n_duplicates

    def add(self, buffers: Sequence[HotBuffer], seq: int) -> int:
        """Publish what buffers hold up to `seq` as a segment, and leave the shards' positions as they are.

        For an owner that writes what did not come through the journal: derived series of history. Samples that
        are committed already are left out.

        Returns
        -------
        How many samples were written.
        """
        self._settle()
        taken = [buffer.take(seq) for buffer in buffers]
        parts = [FlushPart(buffer, seq) for buffer in buffers]
        tables, (n_dropped, _) = self._encode(parts, taken)
        directory = self._save_directory()
        if tables:
            counters = dict(self._commits.view.counters)
            segment = self._segment(tables, {}, directory, counters)
            self._commits.publish(segment, {}, directory, counters, self._faults)
        for buffer, one in zip(buffers, taken, strict=True):
            buffer.release(one)
        return sum(one.n_samples for one in taken) - n_dropped

    def _write(self, parts: Sequence[FlushPart], taken: list[Taken], counters: dict[str, int]) -> Flushed:
        start_ns = thread_cpu_ns()
        tables, (n_dropped, n_duplicates) = self._encode(parts, taken)
        encoded_ns = thread_cpu_ns()
        directory = self._save_directory()
        shards = self._positions(parts)
        segment = self._segment(tables, shards, directory, counters) if tables else None
        n_stored = sum(one.n_samples for one in taken) - n_dropped
        try:
            commit = self._commits.publish(segment, shards, directory, counters, self._faults)
        except Undecided:
            pairs = zip((part.buffer for part in parts), taken, strict=True)
            self._unsure = _Unsure(tuple(pairs), n_stored, n_duplicates)
            raise
        size_bytes = 0 if segment is None else segment.size_bytes
        end_ns = thread_cpu_ns()
        return Flushed(
            commit, n_stored, n_duplicates, size_bytes, encoded_ns - start_ns, end_ns - encoded_ns
        )  # fmt: skip

    def _save_directory(self) -> str:
        """Save what the directory grew; the path of its newest file."""
        known = self._saved_slots
        if self._directory.n_slots != known:
            # Its files are not fenced: a number that another owner gave must not be given twice.
            self._commits.check_owned()
            directory = save_directory(self._disk, self._directory, known)
            self._saved_slots = saved_slots(self._disk)
            return directory
        return directory_path(known) if known else ""

    def _encode(
        self, parts: Sequence[FlushPart], taken: list[Taken]
    ) -> tuple[list[pa.Table], tuple[int, int]]:
        """Rows of the shards; how many duplicates were left out, and how many of them are to be counted."""
        tables: list[pa.Table] = []
        piece: list[ShardFrames] = []
        n_bytes = n_dropped = n_duplicates = 0
        counted_from = {part.buffer.shard: part.counted_from for part in parts}
        if any(one.late for one in taken):
            self._store.refresh()
        for one in sorted(taken, key=lambda t: t.shard):
            late, duplicates = settle(self._store, one.late)
            for log, rows in duplicates:
                n_dropped += len(rows)
                n_duplicates += self._n_counted(log, rows, counted_from[one.shard])
            piece.append(ShardFrames(one.shard, one.logs, late, one.seq, one.arrival_ns[1]))
            n_bytes += one.size_bytes
            if n_bytes >= _PIECE_BYTES:
                tables.append(self._encoder.encode(piece))
                n_bytes, piece = 0, []
        tables.append(self._encoder.encode(piece))
        return [table for table in tables if len(table)], (n_dropped, n_duplicates)

    def _n_counted(self, log: FrameLog, rows: npt.NDArray[np.int64], counted_from: int) -> int:
        """How many of `rows` are samples of devices that came with record `counted_from` or later."""
        slot = log.places(rows[rows >= log.n_rows_before(counted_from)])[0]
        slots, count = np.unique(slot, return_counts=True)
        raw = [not self._directory.is_derived(int(one)) for one in slots]
        return int(count[raw].sum())

    def _positions(self, parts: Sequence[FlushPart]) -> dict[int, ShardPosition]:
        """Write the states, all in one object; the shards' new positions."""
        known = self._commits.view.shards
        path = f"{STATE_FOLDER}/{self._commits.incarnation:08d}/{self._commits.next_m:08d}.bin"
        out, states, end = {}, [], 0
        for part in parts:
            shard = part.buffer.shard
            before = known.get(shard, ShardPosition())
            state, state_seq = before.state, before.state_seq
            if part.state is not None:
                states.append(part.state)
                state, end = f"{path}#{end}-{end + len(part.state)}", end + len(part.state)
                state_seq = part.state_seq
            out[shard] = ShardPosition(max(part.seq, before.flushed_seq), state, state_seq)
        if states:
            self._faults.reach("snapshot.write")
            self._put(path, b"".join(states))
        return out

    def _segment(
        self,
        tables: list[pa.Table],
        shards: dict[int, ShardPosition],
        directory: str,
        counters: dict[str, int],
    ) -> SegmentInfo:
        name = hot_path(self._commits.incarnation, self._commits.next_m)
        about: dict[str, Any] = {
            "shards": {str(s): p.to_list() for s, p in shards.items()}, "directory": directory,
            "counters": counters, "published_ns": self._clock.now_ns(),
        }  # fmt: skip
        segment = write_segment(name, tables, about, level=_HEADER_LEVEL)
        self._faults.reach("segment.write")
        self._put(name, segment.data)
        return segment.info

    def _put(self, path: str, data: Buffer) -> None:
        """Write an object of our own; one that a failed flush left behind, and no commit names, is replaced."""
        if not self._disk.put_if_absent(path, data):
            self._disk.replace(path, data)
