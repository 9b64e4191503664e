"""Messages of known shape → frame batches: what the scanner has read, by device and shape, a few NumPy calls for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads import json_scanner as scanner
from headrace.adapters.payloads.base import (
    MessagePile,
    RuleSettings,
    TopicMessage,
    arrivals_of,
    given_times_of,
)
from headrace.adapters.payloads.columns import joined
from headrace.adapters.payloads.json_frames import are_current, give_arrivals, scan, take_floats
from headrace.adapters.payloads.json_scanner import JsonColumns
from headrace.adapters.payloads.json_shapes import N_SHAPES_MAX, JsonShape, JsonShapes
from headrace.adapters.payloads.keys import DeviceGroup, KeyTable, PartPlan
from headrace.adapters.payloads.rows import Rows
from headrace.core.clock import NO_TIME
from headrace.core.frames import FrameBatch
from headrace.core.layouts import numpy_dtype
from headrace.core.quality import Quality

I64 = npt.NDArray[np.int64]
N_DEAD_MAX = 1_024
"""Tables that are remembered though no device has them any more; all are looked up anew when there are more."""
_PARTS = ("f64", "i64", "u8", "u32")
_N_OF_ROWS = 5
_ROW_BYTES_MIN, _VALUE_BYTES_MIN = 4, 2
"""A row has a key, or lies in a table beside a time; a value lies in a list."""


class _Lane(NamedTuple):
    """How one part of a plan is filled: its number among `_PARTS`, and the places of its values in their shape."""

    part: PartPlan
    number: int
    places: I64


Lanes = tuple[_Lane, ...]


class ShapedRows:
    """What one router knows of the devices whose messages one rule scans."""

    def __init__(self, rows: Rows, settings: RuleSettings) -> None:
        self._rows = rows
        self._settings = settings
        self._tables: dict[KeyTable, int] = {}
        self._lanes: dict[tuple[int, int], Lanes | None] = {}
        self._table_of = np.full(64, -1, np.int64)
        self._slots = np.zeros((len(_PARTS), 64), np.int64)
        self._version = np.full(64, -1, np.int64)
        self._current = -1, 0
        self._columns, self._each = _columns(1 << 12), np.arange(64)

    def read(self, pile: MessagePile, shapes: JsonShapes) -> list[int]:
        """Add the rows of messages of known shape; the numbers of the others.

        A device of which one message is left has all of its messages left, so that its rows stay in order.
        """
        payloads, device = joined(pile.payloads), pile.numbers
        data, lengths = np.frombuffer(pile.data, np.uint8), payloads.lengths
        if len(data) // _VALUE_BYTES_MIN >= len(self._columns.ints):
            self._columns = _columns(len(data) * 5 // 4)
        columns = self._columns
        is_read = np.empty(len(payloads), np.uint8)
        scan(data, lengths, shapes.tables, columns, is_read)
        n, _, n_left, n_others, n_untimed = columns.counts.tolist()
        self._look_up(pile, is_read, shapes)
        if n and not n_left and not n_others and not n_untimed and len(self._tables) == 1:
            key = 0, int(columns.shape[0])
            lanes = self._lanes_of(key, pile.devices[int(device[0])], shapes)
            if lanes is not None:
                self._rows.add_batches(self._batches(lanes, self._numbers(n), pile, data))
                return []
        return self._read_mixed(n, is_read, pile, shapes, data)

    def _read_mixed(
        self, n: int, is_read: npt.NDArray[np.uint8], pile: MessagePile, shapes: JsonShapes,
        data: npt.NDArray[np.uint8],
    ) -> list[int]:  # fmt: skip
        """Add the rows of devices all of whose messages were read; the numbers of the other messages."""
        device, message, shape = pile.numbers, self._columns.message[:n], self._columns.shape[:n]
        kinds = self._kinds(shape, message, pile, shapes)
        for key, at in kinds:
            if self._lanes[key] is None:
                is_read[message[at]] = 0
        left: list[int] = []
        kept = None
        if not is_read.all():
            is_slow = np.isin(device, device[is_read == 0])
            kept = ~is_slow[message]
            left = np.flatnonzero(is_slow).tolist()
        self._give_times(np.arange(n) if kept is None else np.flatnonzero(kept), pile)
        batches: list[FrameBatch] = []
        for key, at in kinds:
            lanes = self._lanes[key]
            at = at if kept is None else at[kept[at]]
            if lanes is not None and len(at):
                batches += self._batches(lanes, at, pile, data)
        self._rows.add_batches(batches)
        return left

    def _numbers(self, n: int) -> npt.NDArray[np.intp]:
        """The first so many, which are at hand as a rule."""
        if n > len(self._each):
            self._each = np.arange(2 * n)
        return self._each[:n]

    # --- devices -------------------------------------------------------------------------------------

    def _look_up(self, pile: MessagePile, is_read: npt.NDArray[np.uint8], shapes: JsonShapes) -> None:
        """Make sure that tables and slots of the devices are the newest, and that new ones have keys where they can."""
        version, device = self._rows.version, pile.numbers
        while len(pile.devices) > len(self._version):
            self._table_of = np.concatenate([self._table_of, np.full_like(self._table_of, -1)])
            self._slots = np.concatenate([self._slots, np.zeros_like(self._slots)], axis=1)
            self._version = np.concatenate([self._version, np.full_like(self._version, -1)])
        if self._current == (version, len(pile.devices)) or are_current(device, self._version, version):
            return
        if len(self._tables) > N_DEAD_MAX + 2 * len(pile.devices):
            self._forget()
        stale = np.unique(device[self._version[device] != version]).tolist()
        new = [number for number in stale if not pile.devices[number].table.index]
        if new:
            self._introduce(np.setdiff1d(new, device[is_read == 0]), pile, shapes)
            version = self._rows.version
            stale = np.unique(device[self._version[device] != version]).tolist()
        for number in stale:
            group = pile.devices[number]
            self._table_of[number] = self._tables.setdefault(group.table, len(self._tables))
            self._slots[:, number] = [group.slots.get(dtype, 0) for dtype in _PARTS]
            self._version[number] = version
        n = len(pile.devices)
        self._current = (version, n) if (self._version[:n] == version).all() else (-1, 0)

    def _forget(self) -> None:
        """Most of these tables are of no device any more."""
        self._tables.clear()
        self._lanes.clear()
        self._version.fill(-1)
        self._current = -1, 0

    def _introduce(self, new: I64, pile: MessagePile, shapes: JsonShapes) -> None:
        """Make the keys of devices' first rows known, of all whose messages were read: those left may hold the first."""
        c = self._columns
        n = int(c.counts[scanner.ROWS])
        numbers, first = np.unique(pile.numbers[c.message[:n]], return_index=True)
        is_new, shape = np.isin(numbers, new), c.shape[first]
        for one in np.unique(shape[is_new]).tolist():
            some = [pile.devices[number] for number in numbers[is_new & (shape == one)].tolist()]
            like = shapes.shapes[one]
            self._rows.introduce(some, like.keys, like.values, self._settings)

    def _kinds(
        self, shape: I64, message: I64, pile: MessagePile, shapes: JsonShapes
    ) -> list[tuple[tuple[int, int], npt.NDArray[np.intp]]]:
        """Rows by table and shape; the lanes of each pair are known then."""
        code = self._table_of[pile.numbers[message]] * N_SHAPES_MAX + shape
        if not len(code):
            return []
        if (code == code[0]).all():
            found = [(int(code[0]), np.arange(len(code)))]
        else:
            numbers, place = np.unique(code, return_inverse=True)
            order = np.argsort(place, kind="stable")
            ends = np.cumsum(np.bincount(place))
            found = list(zip(numbers.tolist(), np.split(order, ends[:-1]), strict=True))
        out = []
        for one, at in found:
            key = divmod(one, N_SHAPES_MAX)
            self._lanes_of(key, pile.devices[int(pile.numbers[message[at[0]]])], shapes)
            out.append((key, at))
        return out

    def _lanes_of(self, key: tuple[int, int], group: DeviceGroup, shapes: JsonShapes) -> Lanes | None:
        """The lanes of a table and a shape, `group` being a device of that table; None where the reference has to say."""
        if key not in self._lanes:
            self._lanes[key] = self._new_lanes(group, shapes.shapes[key[1]])
        return self._lanes[key]

    def _new_lanes(self, group: DeviceGroup, shape: JsonShape) -> Lanes | None:
        index = group.table.index
        if any(
            key not in index for key, value in zip(shape.keys, shape.values, strict=True) if value is not None
        ):
            return None
        plan = self._rows.plan(group, shape.keys, shape.values, self._settings)
        if plan.refusals or not plan.is_lasting:
            return None
        everything = tuple(range(len(shape.keys)))
        lanes = []
        for part in plan.parts:
            position = np.array(everything if part.pick is None else part.pick(everything), np.int64)
            lanes.append(_Lane(part, _PARTS.index(part.dtype), shape.places[position]))
        return tuple(lanes)

    def _give_times(self, at: npt.NDArray[np.intp], pile: MessagePile) -> None:
        """Times of their messages, else arrivals, for rows that have no time."""
        c, device, messages = self._columns, pile.numbers, pile.messages
        at = at[c.ts_ns[at] == NO_TIME]
        given_ns = given_times_of(messages, c.message[at])
        if (given_ns != NO_TIME).any():
            whose = c.message[at]
            nth = np.arange(len(at)) - np.searchsorted(whose, whose)
            c.ts_ns[at] = np.where(given_ns == NO_TIME, NO_TIME, given_ns + nth)
            at = at[given_ns == NO_TIME]
        if not len(at):
            return
        arrival_ns = arrivals_of(messages)
        numbers, place = np.unique(device, return_inverse=True)
        some = [pile.devices[number] for number in numbers.tolist()]
        newest_ns = np.fromiter((group.last_arrival_ns for group in some), np.int64, len(some))
        give_arrivals(at, c.message, arrival_ns, place, newest_ns, c.ts_ns)
        for group, last_ns in zip(some, newest_ns.tolist(), strict=True):
            group.last_arrival_ns = last_ns

    # --- columns -------------------------------------------------------------------------------------

    def _batches(
        self, lanes: Lanes, at: npt.NDArray[np.intp], pile: MessagePile, data: npt.NDArray[np.uint8]
    ) -> list[FrameBatch]:
        """Frames of rows of one shape, of devices that share their columns."""
        c, rows, out = self._columns, self._rows, []
        for part, number, places in lanes:
            slot, ts_ns = np.empty(len(at), np.uint32), np.empty(len(at), np.int64)
            cells: npt.NDArray[Any] = np.empty((len(at), len(places)))
            marks = None
            frames = slot, ts_ns, cells
            take_floats(at, c, places, pile.numbers, self._slots[number], frames)
            if part.dtype != "f64":
                where = c.first[at, None] + c.step[at, None] * places
                cells, marks = self._cells(part, where, c.message[at], pile.messages, data)
            words = rows.words.dictionary if part.dtype == "u32" else None
            facts = {"dictionary": words, "origin": rows.origin, "arrival_ns": rows.arrival_ns}
            out.append(_frames(part, slot, ts_ns, cells, marks, facts))
        return out

    def _cells(
        self,
        part: PartPlan,
        where: I64,
        message: I64,
        messages: Sequence[TopicMessage],
        data: npt.NDArray[np.uint8],
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
        """Values of one part that are no floats, and their quality where not all are good."""
        if part.dtype == "u32":
            return self._rows.words.coded(self._columns.ints[where], data.tobytes()).astype(np.uint32), None
        if part.dtype == "u8":
            return self._columns.ints[where].astype(np.uint8), None
        cells: npt.NDArray[Any] = self._columns.floats[where]
        bad = cells != np.floor(cells)
        cells = np.where(bad, 0, cells).astype(np.int64)
        if not bad.any():
            return cells, None
        for row in np.flatnonzero(bad.any(axis=1)).tolist():
            self._rows.refuse_values(messages[int(message[row])], part.dtype, int(bad[row].sum()))
        return cells, bad * np.uint8(Quality.ABSENT)


def _frames(
    part: PartPlan, slot: npt.NDArray[np.uint32], ts_ns: I64, cells: npt.NDArray[Any],
    marks: npt.NDArray[np.uint8] | None, facts: dict[str, Any],
) -> FrameBatch:  # fmt: skip
    """Rows with the same columns as frames: dense where at least half of the part's columns are there."""
    if part.is_whole:
        return FrameBatch.dense(slot, ts_ns, cells, marks, **facts)
    n, width = len(slot), part.part.layout.width
    if 2 * part.n < width:
        start = np.arange(n + 1) * part.n
        flat = None if marks is None else marks.reshape(-1)
        return FrameBatch.sparse(
            slot, ts_ns, cells.reshape(-1), start, np.tile(part.columns, n), quality=flat, **facts
        )
    values = np.zeros((n, width), numpy_dtype(part.dtype))
    quality = np.full((n, width), Quality.ABSENT, np.uint8)
    values[:, part.columns] = cells
    quality[:, part.columns] = 0 if marks is None else marks
    return FrameBatch.dense(slot, ts_ns, values, quality, **facts)


def _columns(n_bytes: int) -> JsonColumns:
    """Room for what so many bytes can hold, most of which is never touched: the scanner writes before anybody reads."""
    n_rows, n_values = n_bytes // _ROW_BYTES_MIN + 1, n_bytes // _VALUE_BYTES_MIN + 2
    rows, ints = np.empty((_N_OF_ROWS, n_rows), np.int64), np.empty(n_values, np.int64)
    return JsonColumns(
        rows, rows[0], rows[1], rows[2], rows[3], rows[4], ints, ints.view(np.float64), np.zeros(scanner.N_COUNTS, np.int64)
    )  # fmt: skip
