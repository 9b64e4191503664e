"""Hot rows: what shards' buffers hold, encoded.

A dense group becomes one row for its block of frames, all columns together on one time axis; sparse and wave
frames, and what came late, become one row for each series. Nothing here works row by row in Python where
rows are many: a million lone sensors are a million rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.codecs.block import EncodedBlocks, encode_blocks
from headrace.codecs.wave import WaveRuns, encode_waves
from headrace.core.frames import FrameBatch, Shape, wave_offsets_ns
from headrace.core.sensors import SensorDirectory
from headrace.store.frame_log import FrameLog, joined
from headrace.store.grouping import DAY_NS, number_series, plan_blocks
from headrace.store.late import flatten
from headrace.store.schema import (
    BLOCK,
    COLUMNS,
    FRAMES,
    HAS_ABSENT,
    HAS_BAD,
    HAS_GOOD,
    HAS_UNCERTAIN,
    OVERLAY,
    WAVE,
    coded,
    schema_of,
)
from headrace.store.series import SeriesMap

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

ALL_COLUMNS = -1
_SPREAD = 8  # slots a frame, above which the few that have any are numbered anew
_FLAG_OF_CLASS = np.array([HAS_GOOD, HAS_UNCERTAIN, HAS_BAD, HAS_ABSENT], np.uint8)
HOT = (
    "shard", "kind", "path", "group", "column", "layout", "layout_json", "dtype", "t_min", "t_max", "n_frames",
    "n_samples", "count", "quality", "time_codec", "value_codec", "bound", "seq", "arrival", "dictionary",
    "n_bytes", "payload",
)  # fmt: skip
HOT_SCHEMA = schema_of(HOT)


def group_keys(directory: SensorDirectory, slots: U32) -> pa.Array:
    """`headrace.core.sensors.group_key` of each slot, made for these slots only: a directory has millions."""
    n = int(slots.max()) + 1 if len(slots) else 0
    starts, data = directory.paths.buffers(n)
    every = pa.LargeStringArray.from_buffers(n, pa.py_buffer(starts), pa.py_buffer(data))
    path = every.take(pa.array(slots)).cast(pa.string())
    number, names = directory.parts.number[slots], directory.parts.names
    if not number.any() and names[:1] == [""]:
        return path
    ends = pa.array([f"#{name}" if name else "" for name in names], pa.string())
    return pc.binary_join_element_wise(path, ends.take(pa.array(number)), "")


@dataclass(frozen=True, slots=True)
class ShardFrames:
    """What a flush writes of one shard.

    Parameters
    ----------
    frames : accepted and derived frames, as batches or logs, each group in time order. late : late samples that are to be
        stored. seq : journal position of the flush. arrival_ns : arrival of the newest batch.
    """

    shard: int
    frames: Sequence[FrameBatch | FrameLog]
    late: Sequence[FrameBatch]
    seq: int
    arrival_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows whose frames have all in common but sensors and times.

    Parameters
    ----------
    slots : of each row. column : int32[G], the one that each row holds; None: all of them. codec : how blocks are encoded.
    n_of_class : int64[G, 4], values of each quality class; None: all good. words : of each row of texts.
    """

    kind: str
    dtype: str
    codec: str
    slots: U32
    column: npt.NDArray[np.int32] | None
    blocks: EncodedBlocks
    n_of_class: I64 | None
    words: list[list[str]] | None = None

    def __len__(self) -> int:
        return len(self.slots)


class RowEncoder:
    """Makes hot rows. One for each directory; used by one thread at a time."""

    def __init__(self, directory: SensorDirectory) -> None:
        self._directory = directory
        self._series = SeriesMap(directory)

    def encode(self, parts: Sequence[ShardFrames]) -> pa.Table:
        """Rows of some shards, by what their frames have in common, then by shard: a flush has few frames of many shards."""
        seq, arrival_ns = (np.zeros(self._directory.n_shards, np.int64) for _ in range(2))
        for part in parts:
            seq[part.shard], arrival_ns[part.shard] = part.seq, part.arrival_ns
        found: list[_Rows] = []
        for kind in (FRAMES, OVERLAY):
            by_key: dict[Any, list[FrameBatch | FrameLog]] = {}
            for part in parts:
                for one in part.frames if kind == FRAMES else part.late:
                    by_key.setdefault(one.kind_key, []).append(one)
            for same in by_key.values():
                found += self._rows_of(kind, _joined(same))
        return self._table(found, seq, arrival_ns) if found else HOT_SCHEMA.empty_table()

    def _rows_of(self, kind: str, batch: FrameBatch) -> list[_Rows]:
        if not batch.n_values:
            return []
        if batch.shape is Shape.SPARSE or batch.dictionary is not None:
            return self._singles(kind, batch)
        if batch.shape is Shape.DENSE:
            return self._dense(kind, batch)
        whole, cut = split_waves(batch)
        waves = [] if whole is None else [self._waves(kind, whole)]
        return waves if cut is None else [*waves, *self._singles(kind, cut)]

    def _dense(self, kind: str, batch: FrameBatch) -> list[_Rows]:
        order, starts = self._plan(batch, batch.width)
        if len(order) < batch.n_frames:  # two frames of a group at one time: each column on its own
            return self._singles(kind, batch)
        values = np.ascontiguousarray(batch.values)
        quality = None if batch.quality is None else np.ascontiguousarray(batch.quality)
        blocks = encode_blocks(values, batch.ts_ns, quality, order, starts)
        slots = batch.slot[order[starts[:-1]]]
        return [_Rows(kind, batch.dtype, BLOCK, slots, None, blocks, _classes(quality, order, starts))]

    def _plan(self, batch: FrameBatch, width: int) -> tuple[I64, I64]:
        """`plan_blocks` by shard and group."""
        place = self._directory.place
        n = len(place)
        if n <= _SPREAD * batch.n_frames:
            return plan_blocks(place, batch.slot, n, batch.ts_ns, width)
        used, entry = np.unique(place[batch.slot], return_inverse=True)
        return plan_blocks(entry, None, len(used), batch.ts_ns, width)

    def _singles(self, kind: str, batch: FrameBatch) -> list[_Rows]:
        """One row for each series and day, absent values left out; of two at one time the later counts."""
        samples = flatten(batch, self._directory, self._series)
        if not len(samples.at):
            return []
        entry, n_entries = number_series(_small(self._directory.place[samples.slot]), samples.column)
        order, starts = plan_blocks(entry, None, n_entries, samples.ts_ns, 1)
        values = np.ascontiguousarray(samples.values).reshape(-1, 1)
        quality = samples.quality.reshape(-1, 1) if samples.quality.any() else None
        words: list[list[str]] | None = None
        if batch.dictionary is not None:
            values, words = _own_words(values, batch.dictionary, order, starts)
        blocks = encode_blocks(values, samples.ts_ns, quality, order, starts)
        first = order[starts[:-1]]
        slots, column = samples.slot[first], samples.column[first].astype(np.int32)
        n_of_class = _classes(quality, order, starts)
        return [_Rows(kind, batch.dtype, BLOCK, slots, column, blocks, n_of_class, words)]

    def _waves(self, kind: str, batch: FrameBatch) -> _Rows:
        """One row for each group and day; every wave has values (`split_waves`)."""
        assert batch.start is not None
        assert batch.rate_num is not None
        assert batch.rate_den is not None
        order, starts = self._plan(batch, 1)
        runs = WaveRuns(batch.ts_ns, batch.rate_num, batch.rate_den, np.diff(batch.start))
        done = encode_waves(runs, batch.values, batch.quality, order, starts)
        first = starts[:-1]
        t_min = np.minimum.reduceat(batch.ts_ns[order], first)
        t_max = np.maximum.reduceat(_last_times(batch)[order], first)
        n_of_class = done.n_of_class
        n = n_of_class.sum(axis=1).astype(np.int32)
        blocks = EncodedBlocks(
            done.payload, done.offsets, t_min, t_max, n, n_of_class[:, 0], done.n_fallbacks
        )
        slots = batch.slot[order[first]]
        return _Rows(kind, batch.dtype, WAVE, slots, np.zeros(len(first), np.int32), blocks, n_of_class)

    def _table(self, parts: list[_Rows], seq: I64, arrival_ns: I64) -> pa.Table:
        """Columns of all parts at once: a part has few rows, and a call of Arrow costs more than these."""
        directory, slots = self._directory, np.concatenate([one.slots for one in parts])
        n, shard = len(slots), directory.shard[slots]
        used, place = np.unique(directory.layout_index[slots], return_inverse=True)
        layouts = [directory.layouts[i] for i in used.tolist()]
        blocks = [one.blocks for one in parts]
        codec = _each([one.codec for one in parts], parts)
        rows: dict[str, Any] = {
            "shard": shard, "kind": _each([one.kind for one in parts], parts), "path": group_keys(directory, slots),
            "group": directory.group_id[slots], "column": _columns(parts),
            "layout": np.array([one.id for one in layouts], np.uint64)[place],
            "layout_json": coded(place.astype(np.int32), [one.to_json() for one in layouts]),
            "dtype": _each([one.dtype for one in parts], parts),
            "t_min": _times(np.concatenate([one.t_min for one in blocks])),
            "t_max": _times(np.concatenate([one.t_max for one in blocks])),
            "n_frames": np.concatenate([one.n_frames for one in blocks]).astype(np.uint32),
            "time_codec": codec, "value_codec": codec, "bound": np.zeros(n), "dictionary": _dictionaries(parts),
            "seq": seq[shard], "arrival": _times(arrival_ns[shard]),
            "n_bytes": np.concatenate([one.offsets[1:] - one.offsets[:-1] for one in blocks]).astype(np.uint32),
            "payload": pa.chunked_array([binary(one.payload, one.offsets) for one in blocks]),
            **_counts(parts),
        }  # fmt: skip
        return pa.Table.from_pydict({name: rows[name] for name in HOT}, schema=HOT_SCHEMA)


def _each(words: Sequence[str], parts: Sequence[_Rows]) -> pa.DictionaryArray:
    """The word of each part's rows."""
    known = list(dict.fromkeys(words))
    number = np.array([known.index(word) for word in words], np.int32)
    return coded(np.repeat(number, [len(one) for one in parts]), known)


def _dictionaries(parts: Sequence[_Rows]) -> Any:
    kind = COLUMNS["dictionary"]
    if all(one.words is None for one in parts):
        return pa.nulls(sum(map(len, parts)), kind)
    arrays = [pa.nulls(len(one), kind) if one.words is None else pa.array(one.words, kind) for one in parts]
    return pa.chunked_array(arrays)


def _joined(same: Sequence[FrameBatch | FrameLog]) -> FrameBatch:
    logs = [one for one in same if isinstance(one, FrameLog)]
    if len(logs) == len(same):
        return joined(logs)
    return FrameBatch.concat([one.batch() if isinstance(one, FrameLog) else one for one in same])


def _own_words(
    values: Array, dictionary: tuple[str, ...], order: I64, starts: I64
) -> tuple[Array, list[list[str]]]:
    """Values coded anew, and for each block the words that it has: few, where the dictionary may have many."""
    out, words = np.empty_like(values), []
    for a, b in itertools.pairwise(starts.tolist()):
        used, code = np.unique(values[order[a:b], 0], return_inverse=True)
        out[order[a:b], 0] = code
        words.append([dictionary[u] if u < len(dictionary) else f"#{u}" for u in used.tolist()])
    return out, words


def split_waves(batch: FrameBatch) -> tuple[FrameBatch | None, FrameBatch | None]:
    """Waves that lie in one UTC day, and those that do not; None for none."""
    assert batch.start is not None
    inside = (batch.ts_ns // DAY_NS == _last_times(batch) // DAY_NS) & (np.diff(batch.start) > 0)
    if inside.all():
        return batch, None
    cut = batch.take(np.flatnonzero(~inside))
    whole = batch.take(np.flatnonzero(inside))
    if not cut.n_values:
        return whole, None
    return (whole if whole.n_frames else None), cut


def _last_times(waves: FrameBatch) -> I64:
    """The time of each wave's last value; of one without values its own."""
    assert waves.start is not None
    assert waves.rate_num is not None
    assert waves.rate_den is not None
    last = np.maximum(np.diff(waves.start) - 1, 0)
    return waves.ts_ns + wave_offsets_ns(last, waves.rate_num, waves.rate_den)


def binary(payload: npt.NDArray[np.uint8], offsets: I64) -> pa.Array:
    """An Arrow binary column of ``payload[offsets[i]:offsets[i + 1]]`` without a copy."""
    if offsets[-1] >= 2**31:
        raise ValueError(f"{int(offsets[-1]):,} bytes of payload in one flush; flush earlier")
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(payload)]
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def _times(ts_ns: I64) -> pa.Array:
    """A column of times, without Arrow's cast, which takes longer than a small column is worth."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(ts_ns, np.int64))]
    return pa.Array.from_buffers(COLUMNS["t_min"], len(ts_ns), buffers)


def _small(local: Array) -> Array:
    """16-bit numbers where they suffice: NumPy sorts them several times faster."""
    return local.astype(np.uint16) if len(local) and int(local.max()) < 65_536 else local


def _classes(quality: npt.NDArray[np.uint8] | None, order: I64, starts: I64) -> I64 | None:
    """How many values of each block are of each quality class, int64[G, 4]; None where all are good."""
    if quality is None:
        return None
    from headrace.codecs.values import readonly
    from headrace.store.class_kernels import count_classes

    n_of_class = np.empty((len(starts) - 1, 4), np.int64)
    count_classes(readonly(quality, np.uint8), order, starts, n_of_class)
    return n_of_class


def _columns(parts: Sequence[_Rows]) -> npt.NDArray[np.int32]:
    """The column of each row, or `ALL_COLUMNS`."""
    out = np.full(sum(map(len, parts)), ALL_COLUMNS, np.int32)
    for one, rows in _rows_of_each(parts):
        if one.column is not None:
            out[rows] = one.column
    return out


def _counts(parts: Sequence[_Rows]) -> dict[str, Any]:
    """``n_samples``, ``count`` and ``quality`` of each row."""
    n_of_class = np.zeros((sum(map(len, parts)), 4), np.int64)
    np.concatenate([one.blocks.n_good for one in parts], out=n_of_class[:, 0])
    for one, rows in _rows_of_each(parts):
        if one.n_of_class is not None:
            n_of_class[rows] = one.n_of_class
    usable = n_of_class[:, 0] + n_of_class[:, 1]
    return {
        "n_samples": (usable + n_of_class[:, 2]).astype(np.uint32),
        "count": usable.astype(np.uint32),
        "quality": np.bitwise_or.reduce((n_of_class > 0) * _FLAG_OF_CLASS, axis=1),
    }


def _rows_of_each(parts: Sequence[_Rows]) -> Iterator[tuple[_Rows, slice]]:
    """Each part, and where its rows are among those of all."""
    end = 0
    for one in parts:
        yield one, slice(end, end + len(one))
        end += len(one)
