"""Tables of samples → frame batches, by columns.

A *wide* table has a column for each sensor of one group; a row is a frame, a null is absent. A *long* table has
columns of paths, times and values; rows of one group (the path without its last level) and one time are a frame. Values
keep the file's own type; texts become codes with a dictionary. A sensor keeps the type it first had: other types are
cast where that is exact, else refused. What a sensor with a scale stores are raw values, so for it values are looked up on
its grid; those that lie between two steps are refused one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.adapters.payloads.base import PayloadError, RuleSettings
from headrace.adapters.payloads.keys import DTYPE_OF, DeviceGroup, DeviceGroups
from headrace.adapters.payloads.times import TimeReader
from headrace.adapters.payloads.words import TEXT_MAX, is_word
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.grids import Grid, value_of
from headrace.core.layouts import Column, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import join_path

PATH_COLUMNS = ("path", "sensor")
ANY_TABLE = RuleSettings(path="", max_keys=65_535)
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Which columns of a table are what.

    Parameters
    ----------
    time : empty where whoever reads gives the times. group : path of a wide table's group; only : its columns to
        take, empty for all.
    """

    time: str
    value: str
    group: str
    only: tuple[str, ...]


class _Words:
    """The texts of one batch and their codes."""

    def __init__(self, are_bounded: bool) -> None:
        self._are_bounded = are_bounded
        self._codes: dict[str, int] = {}
        self._has_any = False

    def encode(self, column: pa.Array) -> tuple[npt.NDArray[np.uint32], Bool]:
        """Codes of texts, and which of them may be values."""
        self._has_any = True
        encoded = column.dictionary_encode()
        words = encoded.dictionary.to_pylist()
        good = np.array([not self._are_bounded or is_word(str(word)) for word in words] + [True])
        codes = [
            self._codes.setdefault(str(word), len(self._codes)) if ok else 0
            for word, ok in zip(words, good.tolist(), strict=False)
        ]
        index = np.asarray(encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False), np.int64)
        known: npt.NDArray[np.uint32] = np.array([*codes, 0], np.uint32)
        return known[index], good[index]

    @property
    def dictionary(self) -> tuple[str, ...] | None:
        """The texts by their codes; None where no column holds texts: its numbers are numbers."""
        return (tuple(self._codes) or ("",)) if self._has_any else None


@dataclass(frozen=True, slots=True, eq=False)
class _Sensors:
    """Whose the values of a column are: some sensors, and which of them each value is of."""

    paths: list[str]
    columns: Sequence[Column | None]
    of_each: I64

    @property
    def grid(self) -> Grid:
        """The grids of the sensors."""
        return Grid.of((1.0, 0.0) if c is None else (c.scale, c.offset) for c in self.columns)

    @property
    def on_grid(self) -> Bool:
        """Which values are of sensors with a grid."""
        return self.grid.has_steps[self.of_each]

    def take(self, rows: I64) -> _Sensors:
        """The same for some of the values."""
        return replace(self, of_each=self.of_each[rows])

    def off_grid(self, sensor: int, value: float, dtype: str) -> str:
        """Why a value of a sensor is refused."""
        column = self.columns[sensor]
        assert column is not None
        ends = np.iinfo(numpy_dtype(dtype))
        low, high = sorted(value_of(raw, column.scale, column.offset) for raw in (ends.min, ends.max))
        return (
            f"sensor {self.paths[sensor]!r:.80} stores {dtype} * {column.scale:.12g} {column.offset:+.12g}, so {low:.12g} to "
            f"{high:.12g} in steps of {abs(column.scale):.12g}; {value!r} is none of them; round it, or import it under another path"
        )


class TableReader:
    """Turns record batches of files and messages into frames, for one adapter.

    Parameters
    ----------
    are_texts_bounded : whether texts are refused that are longer than those of messages may be.
    """

    def __init__(
        self,
        name: str,
        groups: DeviceGroups,
        times: TimeReader,
        columns: TableColumns,
        settings: RuleSettings = ANY_TABLE,
        are_texts_bounded: bool = False,
    ) -> None:
        self._name = name
        self._settings = settings
        self._groups = groups
        self._times = times
        self._columns = columns
        self._are_texts_bounded = are_texts_bounded
        self._source = ""
        self._rejects: list[Reject] = []
        self._problem = ""

    def read(
        self, table: pa.RecordBatch, source: str, ts_ns: I64 | None = None
    ) -> tuple[list[FrameBatch], list[Reject]]:
        """Frames of a part of a file, one batch for each value type, and what could not be taken.

        Parameters
        ----------
        ts_ns : times of its rows, where no column has them.

        Raises
        ------
        PayloadError : the table is neither long nor wide as configured, as a whole.
        """
        self._source, self._rejects, self._problem = source, [], ""
        try:
            return self._read(table, ts_ns), self._rejects
        except (UnicodeDecodeError, pa.ArrowException) as e:
            # Arrow hands on texts without a look at them, and can't cast every type to every other.
            raise PayloadError(
                RejectCode.MALFORMED, f"the table can't be read: {e}", max(1, table.num_rows)
            ) from e

    def _read(self, table: pa.RecordBatch, ts_ns: I64 | None) -> list[FrameBatch]:
        names = table.schema.names
        path = next((name for name in PATH_COLUMNS if name in names), None)
        needed = [self._columns.value] if path else list(self._columns.only)
        needed += [self._columns.time] if ts_ns is None else []
        missing = [name for name in needed if name not in names]
        if missing:
            detail = f"no column {', '.join(missing)}; there are {', '.join(names)}"
            raise PayloadError(RejectCode.MALFORMED, detail, max(1, table.num_rows))
        values = [self._columns.value] if path else list(self._columns.only)
        values = values or [name for name in names if name != self._columns.time]
        if ts_ns is None:
            ts_ns = self._read_times(table.column(self._columns.time))
        good = ts_ns != NO_TIME
        if not good.all():
            n_bad = int((~good).sum())
            self._refuse(RejectCode.BAD_TIME, f"{n_bad:,} rows without a time", n_bad * len(values))
            table, ts_ns = table.filter(pa.array(good)), ts_ns[good]
        if path:
            return self._long(table, ts_ns, path)
        return self._wide(table, ts_ns, values)

    def _refuse(self, code: RejectCode, detail: str, n_samples: int) -> None:
        if n_samples:
            self._rejects.append(Reject(code, self._name, self._source, detail, n_samples=n_samples))

    def _read_times(self, column: pa.Array) -> I64:
        """Nanoseconds; `NO_TIME` where there is none that can be read."""
        if pa.types.is_timestamp(column.type):
            exact = column.cast(pa.timestamp("ns"), safe=False).cast(pa.int64()).fill_null(NO_TIME)
            ts_ns = np.asarray(exact.to_numpy(zero_copy_only=False), np.int64)
            return ts_ns if column.type.tz is not None else self._times.of_plant(ts_ns)
        numbers = (
            self._times.of_one_size(column.to_numpy(zero_copy_only=False))
            if _is_plain_number(column)
            else None
        )
        if numbers is not None:
            return numbers
        out = np.full(len(column), NO_TIME, np.int64)
        values = column.to_pylist()
        try:
            out[:] = self._times.read_many(tuple(values))
        except PayloadError:
            for row, value in enumerate(values):
                out[row] = self._time_or_none(value)
        return out

    def _time_or_none(self, value: object) -> int:
        try:
            return self._times.read(value)
        except PayloadError:
            return NO_TIME

    def _taken(
        self, column: pa.Array, dtype: str, sensors: _Sensors, words: _Words
    ) -> tuple[npt.NDArray[Any], Bool]:
        """A column's values as their sensors store them, and which there are; what can't be is refused."""
        on_grid = sensors.on_grid
        if not on_grid.any():
            return self._typed(column, dtype, sensors, words)
        values, there = np.zeros(len(column), numpy_dtype(dtype)), np.zeros(len(column), np.bool_)
        for rows, read in ((np.flatnonzero(on_grid), self._stepped), (np.flatnonzero(~on_grid), self._typed)):
            if len(rows):
                values[rows], there[rows] = read(
                    column.take(pa.array(rows)), dtype, sensors.take(rows), words
                )
        return values, there

    def _typed(
        self, column: pa.Array, dtype: str, sensors: _Sensors, words: _Words
    ) -> tuple[npt.NDArray[Any], Bool]:
        """Values of sensors without a grid: all of them, or none where the type would change any."""
        try:
            if dtype == "u32" and _is_text(column.type):
                codes, good = words.encode(column)
                if not good.all():
                    detail = f"texts longer than {TEXT_MAX:,} characters, or with a NUL in them"
                    self._refuse(RejectCode.WRONG_TYPE, detail, int((~good).sum()))
                return codes, _is_there(column) & good
            cast = column.cast(pa.from_numpy_dtype(numpy_dtype(dtype))).fill_null(0)
        except pa.ArrowException:
            return self._wrong_type(column, dtype, sensors)
        return np.asarray(cast.to_numpy(zero_copy_only=False)), _is_there(column)

    def _stepped(
        self, column: pa.Array, dtype: str, sensors: _Sensors, words: _Words
    ) -> tuple[npt.NDArray[Any], Bool]:
        """Raw values of sensors with a grid; those that lie on no step are refused, with a sentence a sensor."""
        if _is_text(column.type):
            return self._wrong_type(column, dtype, sensors)
        there = _is_there(column)
        kind = pa.float32() if _dtype_of(column.type) == "f32" else pa.float64()
        values = column.cast(kind, safe=False).fill_null(0).to_numpy(zero_copy_only=False)
        raw, fits = sensors.grid.take(sensors.of_each).nearest(values, numpy_dtype(dtype))
        off = np.flatnonzero(there & ~fits)
        which, first, count = np.unique(sensors.of_each[off], return_index=True, return_counts=True)
        for sensor, at, n in zip(which.tolist(), off[first].tolist(), count.tolist(), strict=True):
            self._refuse(RejectCode.WRONG_TYPE, sensors.off_grid(sensor, values[at].item(), dtype), n)
        return raw, there & fits

    def _wrong_type(self, column: pa.Array, dtype: str, sensors: _Sensors) -> tuple[npt.NDArray[Any], Bool]:
        named = np.unique(sensors.of_each)
        others = f" and {len(named) - 1:,} more sensors" if len(named) > 1 else ""
        detail = f"values of type {column.type}, but the type of {sensors.paths[named[0]]!r:.80}{others} is {dtype}"
        self._refuse(RejectCode.WRONG_TYPE, detail, len(column))
        return np.zeros(len(column), numpy_dtype(dtype)), np.zeros(len(column), np.bool_)

    # --- wide ----------------------------------------------------------------------------------------

    def _wide(self, table: pa.RecordBatch, ts_ns: I64, names: Sequence[str]) -> list[FrameBatch]:
        group = self._groups.group(self._columns.group, self._settings)
        dtypes = {name: _dtype_of(table.column(name).type) for name in names}
        self._learn(group, {name: d for name, d in dtypes.items() if d is not None})
        by_part: dict[str, list[str]] = {}
        for name in names:
            if name in group.table.index:
                by_part.setdefault(group.table.index[name][0], []).append(name)
            else:
                detail = f"column {name!r} of type {table.column(name).type} holds no values of a sensor; {self._problem}"
                self._refuse(RejectCode.WRONG_TYPE, detail, table.num_rows)
        return [self._wide_part(table, ts_ns, group, dtype, some) for dtype, some in by_part.items()]

    def _wide_part(
        self, table: pa.RecordBatch, ts_ns: I64, group: DeviceGroup, dtype: str, names: list[str]
    ) -> FrameBatch:
        part = group.table.parts[dtype].layout
        kind, shape = numpy_dtype(dtype), (table.num_rows, part.width)
        values: npt.NDArray[Any] = np.zeros(shape, kind)
        quality = None if len(names) == part.width else np.full(shape, Quality.ABSENT, np.uint8)
        words = _Words(self._are_texts_bounded)
        for name in names:
            column, at = table.column(name), group.table.index[name][1]
            if _is_plain(column, part.columns[at], kind):
                values[:, at], there = column.to_numpy(), None
            else:
                whose = np.zeros(len(column), np.int64)
                sensors = _Sensors([join_path(group.path, name)], [part.columns[at]], whose)
                values[:, at], there = self._taken(column, dtype, sensors, words)
            if there is not None and quality is None and not there.all():
                quality = np.zeros(shape, np.uint8)
            if quality is not None:
                quality[:, at] = (
                    Quality.GOOD if there is None else np.where(there, Quality.GOOD, Quality.ABSENT)
                )
        slot = np.full(table.num_rows, group.slots[dtype], np.uint32)
        return FrameBatch.dense(slot, ts_ns, values, quality, dictionary=words.dictionary, origin=self._name)

    def _learn(self, group: DeviceGroup, dtypes: dict[str, str]) -> None:
        """Make new keys of a group known; those that can't be are refused by who finds them missing."""
        given = self._settings.types
        new = {
            key: DTYPE_OF[given[key]] if key in given else dtype
            for key, dtype in dtypes.items()
            if key not in group.table.index and "/" not in key
        }
        if not new:
            return
        try:
            self._groups.extend(group, new, self._settings)
        except ConfigError:
            for key, dtype in new.items():
                try:
                    self._groups.extend(group, {key: dtype}, self._settings)
                except ConfigError as e:
                    self._problem = e.message

    # --- long ----------------------------------------------------------------------------------------

    def _long(self, table: pa.RecordBatch, ts_ns: I64, path: str) -> list[FrameBatch]:
        column = table.column(self._columns.value)
        there = _is_there(column)
        table, ts_ns, column = table.filter(pa.array(there)), ts_ns[there], column.filter(pa.array(there))
        natural = _dtype_of(column.type)
        if natural is None:
            self._refuse(RejectCode.WRONG_TYPE, f"values of type {column.type}", len(column))
            return []
        paths = table.column(path).cast(pa.string()).fill_null("").dictionary_encode()
        places = self._find_places(paths.dictionary.to_pylist(), natural)
        code = paths.indices.to_numpy(zero_copy_only=False)
        known = np.array([place is not None for place in places], np.bool_)
        if not known.all():
            bad = [p for p, place in zip(paths.dictionary.to_pylist(), places, strict=True) if place is None]
            detail = f"{len(bad):,} paths that can't name a sensor here: {bad[0]!r:.80}; {self._problem}"
            self._refuse(RejectCode.BAD_PATH, detail, int((~known)[code].sum()))
        batches = []
        names = paths.dictionary.to_pylist()
        known_columns = [None if place is None else place.known for place in places]
        for dtype in sorted({place.dtype for place in places if place is not None}):
            mine = np.array([place is not None and place.dtype == dtype for place in places])
            rows = np.flatnonzero(mine[code])
            words = _Words(self._are_texts_bounded)
            sensors = _Sensors(names, known_columns, code[rows])
            values, good = self._taken(column.take(pa.array(rows)), dtype, sensors, words)
            rows, values = rows[good], values[good]
            if len(rows):
                at = np.array([(p.slot, p.column, p.width) if p else (0, 0, 0) for p in places])[code[rows]]
                batches.append(self._frames(at, ts_ns[rows], values, words.dictionary))
        return batches

    def _find_places(self, paths: list[str], natural: str) -> list[_Place | None]:
        """Where the values of each path go; None where it can't name a sensor."""
        keys = [path.rpartition("/")[::2] if "/" in path else (path, "") for path in paths]
        groups = {parent: self._group(parent) for parent, _ in keys}
        new: dict[str, dict[str, str]] = {}
        for parent, key in keys:
            new.setdefault(parent, {})[key] = natural
        for parent, dtypes in new.items():
            group = groups[parent]
            if group is not None:
                self._learn(group, dtypes)
        return [_place(groups[parent], key) for parent, key in keys]

    def _group(self, path: str) -> DeviceGroup | None:
        """The group at `path`; None where it can't be one, and the problem says why."""
        try:
            return self._groups.group(path, self._settings)
        except PayloadError as e:
            self._problem = e.detail
            return None

    def _frames(
        self, at: npt.NDArray[Any], ts_ns: I64, values: npt.NDArray[Any], dictionary: tuple[str, ...] | None
    ) -> FrameBatch:
        """Rows as frames in the order of time: rows of one group and time together, columns ascending.

        `at` is slot, column and width of each row. Complete frames of one width become dense.
        """
        order = np.lexsort((at[:, 1], at[:, 0], ts_ns))
        at, ts_ns, values = at[order], ts_ns[order], values[order]
        slot, column, width = at[:, 0].astype(np.uint32), at[:, 1].astype(np.uint16), at[:, 2]
        is_first = np.ones(len(slot), np.bool_)
        is_first[1:] = (slot[1:] != slot[:-1]) | (ts_ns[1:] != ts_ns[:-1]) | (column[1:] <= column[:-1])
        first = np.flatnonzero(is_first)
        start = np.append(first, len(slot))
        rest: dict[str, Any] = {"dictionary": dictionary, "origin": self._name}
        if (np.diff(start) == width[0]).all() and (width == width[0]).all():
            return FrameBatch.dense(slot[first], ts_ns[first], values.reshape(-1, int(width[0])), **rest)
        return FrameBatch.sparse(slot[first], ts_ns[first], values, start, column, **rest)


class _Place(NamedTuple):
    """Where the values of a path go."""

    dtype: str
    slot: int
    column: int
    width: int
    known: Column


def _place(group: DeviceGroup | None, key: str) -> _Place | None:
    if group is None or key not in group.table.index:
        return None
    dtype, column = group.table.index[key]
    layout = group.table.parts[dtype].layout
    return _Place(dtype, group.slots[dtype], column, layout.width, layout.columns[column])


def _is_plain(column: pa.Array, of: Column, kind: np.dtype[Any]) -> bool:
    """Whether a column holds what its sensor stores as it is, at every place."""
    is_stepped = of.scale != 1.0 or of.offset != 0.0
    return column.null_count == 0 and not is_stepped and bool(column.type.equals(pa.from_numpy_dtype(kind)))


def _is_there(column: pa.Array) -> Bool:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.bool_)


def _is_plain_number(column: pa.Array) -> bool:
    kind = column.type
    is_number = pa.types.is_signed_integer(kind) or kind == pa.float64()
    return bool(is_number and len(column) and not column.null_count)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _dtype_of(kind: pa.DataType) -> str | None:
    """The value type of a column; None where it can't hold values of a sensor."""
    if pa.types.is_boolean(kind):
        return "u8"
    if pa.types.is_integer(kind):
        return f"{'i' if pa.types.is_signed_integer(kind) else 'u'}{kind.bit_width}"
    if pa.types.is_floating(kind):
        return "f64" if kind.bit_width == 64 else "f32"
    if pa.types.is_decimal(kind):
        return "f64"
    return "u32" if _is_text(kind) else None
