"""What a query wants: the sensors that matched, and where each stands in every layout of its group."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.grids import Grid
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.sensors import Selection, SensorDirectory
from headrace.store.series import SeriesMap

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
NOWHERE = -1
_PLAIN = Grid.plain(1)
_PLAIN.terms.flags.writeable = False
_SORTED_BY_NUMPY_MAX = 1_000


class Lane(IntEnum):
    """In which type a sensor's samples travel through a query."""

    FLOAT = 0
    """float64, engineering units: floats, grids on 64-bit integers, sensors whose layouts differ."""
    RAW = 1
    """int64, raw integers of up to 32 bits, whose sums are exact; the grid is applied at the end."""
    SIGNED = 2
    """int64 without a grid."""
    UNSIGNED = 3
    """uint64 without a grid."""


LANE_DTYPES = (np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.int64), np.dtype(np.uint64))


def _lane(dtype: str, scale: float, offset: float) -> Lane:
    if dtype[0] == "f":
        return Lane.FLOAT
    if dtype[1:] != "64":
        return Lane.RAW
    if (scale, offset) != (1.0, 0.0):
        return Lane.FLOAT
    return Lane.SIGNED if dtype == "i64" else Lane.UNSIGNED


def lane_of(layout: Layout, column: int) -> Lane:
    """The lane of a column's samples, where no other layout of the sensor differs."""
    known = layout.columns[column]
    return _lane(layout.dtype, known.scale, known.offset)


def to_bits(values: Array) -> I64:
    """Values of any type as int64 that `from_bits` turns back, NaNs and all."""
    if values.dtype.kind == "f":
        values = np.ascontiguousarray(values).view(f"i{values.dtype.itemsize}")
    return values.view(np.int64) if values.dtype == np.uint64 else values.astype(np.int64)


def from_bits(bits: I64, dtype: np.dtype[Any]) -> Array:
    """The inverse of `to_bits`; of types of 64 bits a view."""
    return bits.astype(f"i{dtype.itemsize}", copy=False).view(dtype)


def distinct(numbers: Array) -> list[int]:
    """The different numbers, rising; mostly there is one."""
    if numbers.size == 1:
        return [int(numbers[0])]
    is_one = not len(numbers) or bool((numbers == numbers[0]).all())
    found: list[int] = (numbers[:1] if is_one else np.unique(numbers)).tolist()
    return found


def _path_order(paths: npt.NDArray[np.object_]) -> I64:
    """Indices that sort paths; by Arrow where there are many, which is ten times as fast."""
    if len(paths) < 2:
        return np.zeros(len(paths), np.int64)
    if len(paths) < _SORTED_BY_NUMPY_MAX:
        return np.argsort(paths, kind="stable")
    import pyarrow as pa
    import pyarrow.compute as pc

    return np.asarray(pc.sort_indices(pa.array(paths, pa.large_string()))).astype(np.int64)


class Wanted:
    """A selection, indexed for reading.

    ``place`` numbers the slots in question; place p reads columns ``columns[start[p]:start[p + 1]]`` of its
    layout, which are the sensors ``sensor[start[p]:start[p + 1]]`` (numbers in the selection, which is sorted
    by path). Slots with the same columns have the same `column_set`.

    Parameters
    ----------
    is_raw : read only the layouts of the selection, and of values their bits (see `to_bits`), all in one lane.
    """

    def __init__(
        self, directory: SensorDirectory, series: SeriesMap, selection: Selection, *, is_raw: bool = False
    ) -> None:
        self.directory = directory
        self.is_raw = is_raw
        self.n = len(selection)
        paths = directory.sensor_paths(selection.slot, selection.column)
        order = _path_order(paths)
        self.paths: npt.NDArray[np.object_] = paths[order]
        self.slot, self.column = selection.slot[order], selection.column[order]
        others = [] if is_raw else self._other_layouts(series)
        if self.n == 1 and not others:  # as most queries: all that follows is known
            self._index_one()
        else:
            self._index(others)
            self._find_lanes()

    def _index_one(self) -> None:
        """What `_index` and `_find_lanes` find of one sensor under one layout."""
        zero = np.zeros(1, np.int64)
        layout = self.directory.layout(int(self.slot[0]))
        self.slots, self.columns, self.sensor = self.slot, self.column.astype(np.int64), zero
        self.start: I64 = np.array([0, 1])
        self.column_sets: list[I64] = [self.columns]
        self.column_set: I64 = zero
        self.layout_id: U64 = np.array([layout.id], np.uint64)
        self.groups: U64 = self.directory.group_id[self.slot]
        self._newest_place: I64 = zero
        self.group_of_place: I64 = zero
        self.first_sensor_of_group: I64 = zero
        self._place_of_layout: dict[tuple[int, int], int] = {}
        lane = Lane.SIGNED if self.is_raw else lane_of(layout, int(self.columns[0]))
        self.lane: npt.NDArray[np.uint8] = np.array([lane], np.uint8)
        self.grid = layout.grid.take(self.columns)
        self.sensor_grid = _PLAIN if lane == Lane.FLOAT else self.grid

    def _index(self, others: list[tuple[int, I64, I64]]) -> None:
        directory = self.directory
        slots, columns, sensors = [self.slot], [self.column.astype(np.int64)], [np.arange(self.n)]
        for other, its_columns, its_sensors in others:
            slots.append(np.full(len(its_columns), other, np.uint32))
            columns.append(its_columns)
            sensors.append(its_sensors)
        slot, column, sensor = np.concatenate(slots), np.concatenate(columns), np.concatenate(sensors)
        order = np.lexsort((column, slot))
        slot, self.columns, self.sensor = slot[order], column[order], sensor[order]
        self.slots, first, count = np.unique(slot, return_index=True, return_counts=True)
        self.start = np.append(first, len(slot)).astype(np.int64)
        self._find_column_sets(count)
        group = directory.group_id[self.slots]
        used, which = np.unique(directory.layout_index[self.slots], return_inverse=True)
        ids = np.array([directory.layouts[i].id for i in used.tolist()], np.uint64)
        self.layout_id = ids[which]
        order = np.lexsort((self.slots, group))
        last = np.append(group[order][1:] != group[order][:-1], True) if len(order) else np.empty(0, np.bool_)
        self.groups = group[order][last]
        self._newest_place = order[last]
        self.group_of_place = np.searchsorted(self.groups, group).astype(np.int64)
        self.first_sensor_of_group = np.full(len(self.groups), self.n, np.int64)
        np.minimum.at(self.first_sensor_of_group, np.repeat(self.group_of_place, count), self.sensor)
        self._place_of_layout = (
            {
                (int(g), int(i)): p
                for p, (g, i) in enumerate(zip(group.tolist(), self.layout_id.tolist(), strict=True))
            }
            if len(self.groups) < len(self.slots)
            else {}
        )

    def _other_layouts(self, series: SeriesMap) -> list[tuple[int, I64, I64]]:
        """(slot, columns, sensors) of the slots that are not those of the selection but of the same groups."""
        directory = self.directory
        later = directory.renewed
        if not len(later):
            return []
        mine = np.unique(directory.group_id[self.slot])
        later = later[np.isin(directory.group_id[later], mine)]
        every = np.unique(np.concatenate([later, directory.previous[later]])).astype(np.int64)
        if not len(every):
            return []
        number = series.of(self.slot, self.column)
        group = directory.group_id[self.slot]
        out = []
        for slot in every.tolist():
            sensors = np.flatnonzero((group == directory.group_id[slot]) & (self.slot != slot))
            here = {int(v): i for i, v in enumerate(series.numbers(slot).tolist())}
            there = [
                (here[n], s)
                for n, s in zip(number[sensors].tolist(), sensors.tolist(), strict=True)
                if n in here
            ]
            if there:
                column, sensor = (np.array(x, np.int64) for x in zip(*there, strict=True))
                out.append((slot, column, sensor))
        return out

    def _find_column_sets(self, count: Array) -> None:
        """Number the different sets of columns."""
        self.column_sets = []
        known: dict[bytes, int] = {}
        self.column_set = np.empty(len(self.slots), np.int64)
        single = count == 1
        only = self.columns[self.start[:-1][single]]
        different, inverse = np.unique(only, return_inverse=True)
        numbers = [self._set_number(known, np.array([column], np.int64)) for column in different.tolist()]
        if len(only):
            self.column_set[single] = np.array(numbers, np.int64)[inverse]
        for place in np.flatnonzero(~single).tolist():
            columns = self.columns[self.start[place] : self.start[place + 1]]
            self.column_set[place] = self._set_number(known, columns)

    def _set_number(self, known: dict[bytes, int], columns: I64) -> int:
        number = known.setdefault(columns.tobytes(), len(self.column_sets))
        if number == len(self.column_sets):
            self.column_sets.append(columns)
        return number

    def _find_lanes(self) -> None:
        """The lane and grid of each sensor, and the grid of each (place, column)."""
        directory = self.directory
        n = len(self.columns)
        place = np.repeat(np.arange(len(self.slots)), np.diff(self.start))
        layout_index = directory.layout_index[self.slots][place]
        lanes = np.empty(n, np.uint8)
        self.grid = Grid.plain(n)
        for index in np.unique(layout_index).tolist():
            layout: Layout = directory.layouts[index]
            mine = layout_index == index
            columns = self.columns[mine]
            self.grid.terms[:, mine] = layout.grid.terms[:, columns]
            by_column = [_lane(layout.dtype, c.scale, c.offset) for c in layout.columns]
            lanes[mine] = Lane.SIGNED if self.is_raw else np.array(by_column, np.uint8)[columns]
        self.lane = np.empty(self.n, np.uint8)
        self.lane[self.sensor] = lanes
        self.sensor_grid = Grid.plain(self.n)
        terms = self.sensor_grid.terms
        terms[:, self.sensor] = self.grid.terms
        mixed = (self.lane[self.sensor] != lanes) | (terms[:, self.sensor] != self.grid.terms).any(axis=0)
        self.lane[self.sensor[mixed]] = Lane.FLOAT
        terms[:, self.lane == Lane.FLOAT] = _PLAIN.terms

    def places_of_slots(self, slot: npt.NDArray[np.uint32]) -> I64:
        """Place of each slot; `NOWHERE` where nothing of it is wanted."""
        at = self.slots.searchsorted(slot)
        at[at == len(self.slots)] = 0
        return np.where(self.slots[at] == slot, at, NOWHERE)

    def sensors_of_places(self, places: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which sensors stand in some of the places: bool[n] by number."""
        out = np.zeros(self.n, np.bool_)
        out[self.sensor[np.repeat(places, np.diff(self.start))]] = True
        return out

    @cached_property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes that there are."""
        return tuple(Lane(one) for one in distinct(self.lane))

    @cached_property
    def is_plain(self) -> bool:
        """Whether all raw values are engineering values."""
        return self.grid.is_plain

    @cached_property
    def has_plain_integers(self) -> bool:
        """Whether raw integers are engineering values, of all sensors in that lane."""
        return Lane.RAW not in self.lanes or not self.sensor_grid.has_steps[self.lane == Lane.RAW].any()

    def places_of_groups(self, group_index: I64, layout_id: U64) -> I64:
        """Place of each (index in `groups`, layout); `NOWHERE` where the layout has nothing wanted."""
        place = self._newest_place[group_index]
        other = np.flatnonzero(self.layout_id[place] != layout_id)
        for i in other.tolist():
            key = (int(self.groups[group_index[i]]), int(layout_id[i]))
            place[i] = self._place_of_layout.get(key, NOWHERE)
        return place

    def elements(self, column: npt.NDArray[np.int32], place: I64) -> I64:
        """Index in `columns` and `sensor` of rows that hold one column; `NOWHERE` where it is not self."""
        if self.columns.size == 1:
            return np.where((column == self.columns) & (place >= 0), 0, NOWHERE)
        out = np.full(len(place), NOWHERE, np.int64)
        single = np.flatnonzero((column >= 0) & (place >= 0))
        sets = self.column_set[place[single]]
        for number in distinct(sets):
            mine = single[sets == number]
            columns = self.column_sets[number]
            at = np.searchsorted(columns, column[mine])
            at[at == len(columns)] = 0
            hit = columns[at] == column[mine]
            out[mine[hit]] = self.start[place[mine[hit]]] + at[hit]
        return out

    def labels(self, sensor: int) -> tuple[str, ...]:
        """Names of a discrete sensor's codes."""
        return self.directory.layout(int(self.slot[sensor])).columns[int(self.column[sensor])].labels

    @cached_property
    def units(self) -> npt.NDArray[np.object_]:
        """Unit of each sensor."""
        return self._of_columns(lambda column: column.unit)

    @cached_property
    def is_step(self) -> npt.NDArray[np.bool_]:
        """Whether each sensor keeps its value until the next one: all but analog signals and waveforms."""
        straight = (Kind.ANALOG, Kind.WAVEFORM)
        return self._of_columns(lambda column: column.kind not in straight).astype(np.bool_)

    @cached_property
    def is_labelled(self) -> npt.NDArray[np.bool_]:
        """Whether each sensor's codes have names."""
        return self._of_columns(lambda column: bool(column.labels)).astype(np.bool_)

    def _of_columns(self, ask: Callable[[Column], Any]) -> npt.NDArray[np.object_]:
        """Something of each sensor's column."""
        out = np.empty(self.n, np.object_)
        if self.n == 1:
            column = self.directory.layout(int(self.slot[0])).columns[int(self.column[0])]
            out[0] = ask(column)
            return out
        layout_index = self.directory.layout_index[self.slot]
        for index in np.unique(layout_index).tolist():
            mine = layout_index == index
            known = np.empty(self.directory.layouts[index].width, np.object_)
            known[:] = [ask(column) for column in self.directory.layouts[index].columns]
            out[mine] = known[self.column[mine]]
        return out
