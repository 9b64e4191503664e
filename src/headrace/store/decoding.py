"""From rows and tail batches to runs: decode only the columns that are wanted, many rows at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.codecs.block import decode_blocks
from headrace.codecs.wave import decode_waves
from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch, Shape
from headrace.core.layouts import DTYPES, numpy_dtype
from headrace.store.reader import FoundRows
from headrace.store.runs import Runs, SensorSamples
from headrace.store.schema import BLOCK, WAVE
from headrace.store.segment import RowHeaders, SegmentFile
from headrace.store.wanted import NOWHERE, Lane, Wanted, distinct, to_bits
from headrace.store.warm import decode_chunk, decode_times, decode_values, unknown_codec
from headrace.store.warm_reads import Chunks, decode_chunks
from headrace.store.words import Words

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

TAIL_RANK = 1 << 62
"""Rank of the first tail batch; the next ones have more. Committed rows have twice their seq, and one more where
they came late."""

_AXES_KEPT, _SIBLING_BYTES = 64, 32 << 20
_VALUES_MAX = 1 << 24
"""Of rows that are decoded together, about: the codecs refuse to read 16 times as many at once."""
_FIRST = np.zeros(1, np.int64)

Decoded = tuple[I64, Array, U8 | None, I64]
"""Of rows that are decoded together: times, ``values[n, k]`` of k columns, quality like those or None, and the length of each row."""


@dataclass(frozen=True, slots=True, eq=False)
class _Class:
    """Rows that are decoded together."""

    index: I64
    dtype: np.dtype[Any]
    codecs: tuple[str, str]
    is_text: bool
    column_set: int  # or NOWHERE for rows of one series


class Decoding:
    """One query's way from bytes to samples.

    ``damaged`` gathers a sentence for each row that could not be decoded; its segment is in `bad_segments`.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.words = Words()
        self.damaged: list[str] = []
        self.bad_segments: set[str] = set()
        self.n_rows_decoded = 0
        self._runs: dict[Lane, Runs] = {}
        self._times, self._siblings = SharedTimes(), SiblingValues()

    def samples(self, start_ns: int, end_ns: int, same: I64 | None = None) -> dict[Lane, SensorSamples]:
        """Everything added since the last call, merged; `same` as in `Runs.merge`."""
        runs, self._runs = self._runs, {}
        return {lane: one.merge(start_ns, end_ns, same) for lane, one in sorted(runs.items())}

    # --- rows ----------------------------------------------------------------------------------------

    def add_rows(self, found: FoundRows, place: I64) -> None:
        """Decode rows; `place` says where each stands in the selection."""
        sensor = self.wanted.elements(found.rows.column, place)
        rank = found.rows.seq * 2 + found.rows.kind
        for one in self._classes(found, place, sensor):
            part = one.index
            columns = _FIRST if one.column_set == NOWHERE else self.wanted.column_sets[one.column_set]
            decoded = self._decode(found, one, part, columns)
            if decoded is None:  # a row is damaged: find out which
                part, decoded = self._decode_sound(found, one, columns)
                if not len(part):
                    continue
            ts_ns, values, quality, length = decoded
            for j in range(len(columns)):
                element = sensor[part] if one.column_set == NOWHERE else self.wanted.start[place[part]] + j
                mine, marks = values[:, j], None if quality is None else quality[:, j]
                if one.is_text:
                    mine = self._texts(mine, length, found, part)
                self._add(ts_ns, mine, marks, (length, element, rank[part]), is_text=one.is_text)
            self.n_rows_decoded += len(one.index)

    def _classes(self, found: FoundRows, place: I64, element: I64) -> list[_Class]:
        rows = found.rows
        if len(place) == 1 and rows.dictionary is None and rows.column[0] >= 0:
            if element[0] < 0:
                return []
            of = numpy_dtype(DTYPES[rows.dtype[0]]), rows.codecs[rows.codec[0]], False, NOWHERE
            return [_Class(_FIRST, *of)]
        sets = np.where(rows.column >= 0, NOWHERE, self.wanted.column_set[np.maximum(place, 0)])
        useful = np.flatnonzero((place >= 0) & ((rows.column < 0) | (element >= 0)))
        is_text = np.zeros(len(useful), np.bool_)
        if rows.dictionary is not None:
            is_text = np.array([words is not None for words in rows.dictionary[useful]], np.bool_)
        kinds = rows.dtype[useful], rows.codec[useful], sets[useful], is_text
        out = []
        for mine in _alike(kinds) if len(useful) else ():
            dtype, codec, column_set, text = (one[mine[0]] for one in kinds)
            index = useful[mine]
            width = 1 if column_set == NOWHERE else len(self.wanted.column_sets[column_set])
            kind = numpy_dtype(DTYPES[dtype]), rows.codecs[codec], bool(text), int(column_set)
            out += [_Class(part, *kind) for part in _bounded(index, rows.n_frames[index], width)]
        return out

    def _texts(self, values: Array, length: I64, found: FoundRows, rows: I64) -> I64:
        """Codes of each row's own words as codes of all."""
        assert found.rows.dictionary is not None
        parts = np.split(values, np.cumsum(length)[:-1])
        each = zip(parts, found.rows.dictionary[rows], strict=True)
        return np.concatenate([self.words.translate(part, words) for part, words in each])

    def _decode(self, found: FoundRows, one: _Class, index: I64, columns: I64) -> Decoded | None:
        """None where one of the rows is damaged."""
        payload, starts = found.payloads(index)
        try:
            if one.codecs[1] == BLOCK:
                done = decode_blocks(payload, starts, one.dtype, columns)
                return done.ts_ns, done.values, done.quality, np.diff(done.starts)
            if one.codecs[1] == WAVE:
                read = decode_waves(payload, starts, one.dtype)
                marks = None if read.quality is None else read.quality[:, None]
                return read.ts_ns, read.values[:, None], marks, np.diff(read.starts)
            rows = found.rows
            spans = rows.t_min[index], rows.t_max[index]
            chunks = Chunks(
                payload, starts, one.codecs, one.dtype, rows.n_frames[index].astype(np.int64), *spans,
                SharedTimes.sharing(rows, index),
            )  # fmt: skip
            parts = decode_chunks(
                chunks,
                lambda g: self._times.of(found, int(index[g])),
                lambda g: self._siblings.of(found, int(index[g])),
            )
        except CorruptionError:
            return None
        ts_ns, values, quality = parts
        return ts_ns, values[:, None], None if quality is None else quality[:, None], chunks.n_frames

    def _decode_sound(self, found: FoundRows, one: _Class, columns: I64) -> tuple[I64, Decoded]:
        """The rows that can be decoded, one by one; the others are told of."""
        sound, parts = [], []
        for row in one.index.tolist():
            part = self._decode(found, one, np.array([row]), columns)
            if part is not None:
                sound.append(row)
                parts.append(part)
                continue
            path, name = self._path_of(int(found.group_index[row])), found.file_of(row).info.name
            what = "is damaged; restore the segment from a backup"
            unknown = unknown_codec(one.codecs)
            if unknown:
                what = f"was written by the codec {unknown!r}; install the package that adds it"
            elif self._siblings.problem(found, row):
                what = f"can't be read: {self._siblings.problem(found, row)}"
            sentence = f"segment {name}: a row of {int(found.rows.n_samples[row]):,} samples of {path} {what}"
            if sentence not in self.damaged:
                self.damaged.append(sentence)
            self.bad_segments.add(name)
        if not parts:
            none = np.empty(0, np.int64)
            return none, (none, np.empty((0, len(columns)), one.dtype), None, none)
        quality = np.concatenate([np.zeros(p[1].shape, np.uint8) if p[2] is None else p[2] for p in parts])
        joined = tuple(np.concatenate([p[i] for p in parts]) for i in (0, 1, 3))
        return np.array(sound, np.int64), (joined[0], joined[1], quality, joined[2])

    def _path_of(self, group: int) -> str:
        """The path of a group, by its index in the selection: of a device, or of a lone sensor."""
        wanted = self.wanted
        return str(wanted.directory.paths[int(wanted.slot[wanted.first_sensor_of_group[group]])])

    # --- the tail ------------------------------------------------------------------------------------

    def add_tail(self, batches: Sequence[FrameBatch], places: Array | None = None) -> None:
        """Add unflushed frames, later batches win; of the wanted places only those where `places` is true."""
        for number, batch in enumerate(batches):
            place = self.wanted.places_of_slots(batch.slot)
            if places is not None:
                place = np.where((place >= 0) & places[np.maximum(place, 0)], place, NOWHERE)
            if batch.shape is Shape.DENSE:
                self._add_dense(batch, place, TAIL_RANK + (number << 32))
            else:
                self._add_ragged(batch, place, TAIL_RANK + (number << 32))

    def _add_dense(self, batch: FrameBatch, place: I64, rank: int) -> None:
        frames = np.flatnonzero(place >= 0)
        sets = self.wanted.column_set[place[frames]]
        for number in np.unique(sets).tolist():
            mine = frames[sets == number]
            mine = mine[np.argsort(place[mine], kind="stable")]
            first, length = _runs_of(place[mine])
            for j, column in enumerate(self.wanted.column_sets[number].tolist()):
                element = self.wanted.start[place[mine][first]] + j
                quality = None if batch.quality is None else batch.quality[mine, column]
                of = (length, element, rank + mine[first])
                self._add_of(batch, (batch.ts_ns[mine], batch.values[mine, column], quality), of)

    def _add_ragged(self, batch: FrameBatch, place: I64, rank: int) -> None:
        assert batch.start is not None
        each = np.repeat(place, np.diff(batch.start))
        column = np.zeros(len(each), np.int32) if batch.column is None else batch.column.astype(np.int32)
        element = self.wanted.elements(column, each)
        mine = np.flatnonzero(element >= 0)
        mine = mine[np.argsort(self.wanted.sensor[element[mine]], kind="stable")]
        first, length = _runs_of(element[mine])
        quality = None if batch.quality is None else batch.quality[mine]
        # In order of arrival inside a sensor: of runs under two layouts the later one wins.
        of = (length, element[mine][first], rank + np.arange(len(length)))
        self._add_of(batch, (batch.value_times()[mine], batch.values[mine], quality), of)

    def _add_of(
        self, batch: FrameBatch, data: tuple[I64, Array, U8 | None], of: tuple[I64, I64, I64]
    ) -> None:
        ts_ns, values, quality = data
        if batch.dictionary is not None:
            values = self.words.translate(values, batch.dictionary)
        self._add(ts_ns, values, quality, of, is_text=batch.dictionary is not None)

    # --- both ----------------------------------------------------------------------------------------

    def _add(
        self, ts_ns: I64, values: Array, quality: U8 | None, of: tuple[I64, I64, I64], *, is_text: bool
    ) -> None:
        """Put runs in their lanes; ``of`` are the length, element and rank of each."""
        if not len(of[0]):
            return
        length, element, rank = of
        wanted = self.wanted
        sensor = wanted.sensor[element]
        if is_text:
            self.words.sensors.update(np.unique(sensor).tolist())
        if wanted.is_raw:
            values = to_bits(values)
        lanes = wanted.lane[sensor]
        different = distinct(lanes)
        for lane in different:
            part, runs = (ts_ns, values, quality), (length, element, sensor, rank)
            if len(different) > 1:
                chosen = np.flatnonzero(lanes == lane)
                start = np.cumsum(length) - length
                at = np.repeat(start[chosen] - (np.cumsum(length[chosen]) - length[chosen]), length[chosen])
                at += np.arange(len(at))
                part = ts_ns[at], values[at], None if quality is None else quality[at]
                runs = length[chosen], element[chosen], sensor[chosen], rank[chosen]
            numbers = part[1]
            if lane == Lane.FLOAT and not is_text:
                numbers = self._converted(numbers, *runs[:2])
            known = self._runs.setdefault(Lane(lane), Runs(Lane(lane)))
            known.add(part[0], numbers, part[2], (runs[0], *runs[2:]))

    def _converted(self, values: Array, length: I64, element: I64) -> Array:
        if values.dtype == np.float64 and self.wanted.is_plain:
            return values
        grid = self.wanted.grid.take(element)
        with np.errstate(invalid="ignore"):  # what a register held may be a signalling NaN
            if grid.is_plain:
                return values.astype(np.float64)
            return grid.values_at(values, np.repeat(np.arange(len(length)), length))


class SharedTimes:
    """Times that rows have in another row's payload; the last ones are kept, since the rows of a device follow."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], I64] = OrderedDict()

    @staticmethod
    def sharing(rows: RowHeaders, index: I64) -> I64:
        """Which of these rows have their times in another's payload."""
        if rows.times_offset is None:
            return np.empty(0, np.int64)
        return np.flatnonzero(rows.times_offset[index] != rows.offset[index])

    def of(self, found: FoundRows, row: int) -> I64 | None:
        """int64[n]; None where the row has its own. Raises `CorruptionError`."""
        return None if found.rows.times_offset is None else self.read(found.file_of(row), found.rows, row)

    def read(self, file: SegmentFile, rows: RowHeaders, row: int) -> I64 | None:
        """The same of a row of one file."""
        if (
            rows.times_offset is None
            or rows.times_bytes is None
            or rows.times_offset[row] == rows.offset[row]
        ):
            return None
        key = file.info.name, int(rows.times_offset[row])
        times = self._known.get(key)
        if times is None:
            payload, _ = file.payloads(rows.times_offset[row : row + 1], rows.times_bytes[row : row + 1])
            name = rows.codecs[int(rows.codec[row])][0]
            span = int(rows.t_min[row]), int(rows.t_max[row])
            times = decode_times(payload.tobytes(), name, int(rows.n_frames[row]), span)
            self._known[key] = times
            if len(self._known) > _AXES_KEPT:
                self._known.popitem(last=False)
        return times


class SiblingValues:
    """Values that other rows are predicted from; the last ones are kept, since the rows of a device follow."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], Array] = OrderedDict()
        self._n_bytes = 0

    def of(self, found: FoundRows, row: int) -> tuple[Array, ...]:
        """``T[n]`` of each; none where the row is not predicted. Raises `CorruptionError`, which names both sensors."""
        return () if found.rows.references is None else self.read(found.file_of(row), found.rows, row)

    def problem(self, found: FoundRows, row: int) -> str:
        """Why what a row is predicted from can't be read; "" where it can."""
        try:
            self.of(found, row)
        except CorruptionError as e:
            return str(e)
        return ""

    def read(self, file: SegmentFile, rows: RowHeaders, row: int) -> tuple[Array, ...]:
        """The same of a row of one file."""
        if rows.references is None:
            return ()
        n = int(rows.n_frames[row])
        return tuple(
            self._one(file, one, rows.codecs[int(one["codec"])][1], n, int(rows.offset[row]))
            for one in rows.references[row]
            if one["n_bytes"]
        )

    def _one(self, file: SegmentFile, one: Any, text: str, n: int, asked_by: int) -> Array:
        offset = int(one["offset"])
        values = self._known.get((file.info.name, offset))
        if values is None:
            payload, _ = file.payloads(np.array([offset]), np.array([one["n_bytes"]], np.uint32))
            try:
                values = decode_values(payload.tobytes(), text, n, numpy_dtype(DTYPES[int(one["dtype"])]))
            except CorruptionError as e:
                raise CorruptionError(
                    f"the values of {file.path_at(asked_by)} are predicted from those of {file.path_at(offset)}, which are "
                    "damaged; restore the segment from a backup"
                ) from e
            self._known[file.info.name, offset] = values
            self._n_bytes += values.nbytes
            while self._n_bytes > _SIBLING_BYTES and len(self._known) > 1:
                self._n_bytes -= self._known.popitem(last=False)[1].nbytes
        return values


def decode_row(
    payload: bytes,
    codecs: tuple[str, str],
    dtype: np.dtype[Any],
    n: int,
    span: tuple[int, int],
    times: I64 | None = None,
    siblings: tuple[Array, ...] = (),
) -> tuple[I64, Array, U8 | None]:
    """Times, values and quality of a row that is no block.

    Parameters
    ----------
    span : first and last time, by its header. times : of the row, where another has them (`SharedTimes`). siblings : values
        that its own are predicted from (`SiblingValues`).

    Raises
    ------
    CorruptionError : the payload is damaged.
    """
    if codecs[1] == WAVE:
        read = decode_waves(payload, np.array([0, len(payload)]), dtype)
        return read.ts_ns, read.values, read.quality
    return decode_chunk(payload, codecs, n, dtype, span, times, siblings)


def _alike(columns: Sequence[Array]) -> list[I64]:
    """Places at which all columns say the same: by one number each, as sorting rows of several takes ten times as long."""
    if len(columns[0]) == 1 or all((one == one[0]).all() for one in columns):
        return [np.arange(len(columns[0]))]
    key = np.zeros(len(columns[0]), np.int64)
    for one in columns:
        least = int(one.min())
        key = key * (int(one.max()) - least + 1) + (one.astype(np.int64) - least)
    different, inverse = np.unique(key, return_inverse=True)
    return [np.flatnonzero(inverse == number) for number in range(len(different))]


def _bounded(index: I64, n_frames: Array, width: int) -> list[I64]:
    """Rows in parts that hold no more than `_VALUES_MAX` values, but for a row that does alone."""
    if int(n_frames.sum(dtype=np.int64)) * width < _VALUES_MAX:
        return [index]
    number = np.cumsum(n_frames.astype(np.int64) * width) // _VALUES_MAX
    return np.split(index, np.flatnonzero(np.diff(number)) + 1)


def _runs_of(key: Array) -> tuple[I64, I64]:
    """Where runs of equal keys start, and their lengths."""
    if not len(key):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    return first, np.diff(np.append(first, len(key)))
