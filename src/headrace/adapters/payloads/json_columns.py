"""Messages of known shape → frame batches: what the scanner has read, by device and shape, a few NumPy calls for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads import json_scanner as scanner
from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.json_scanner import JsonColumns
from headrace.adapters.payloads.json_shapes import N_SHAPES_MAX, JsonShape, JsonShapes
from headrace.adapters.payloads.keys import DeviceGroup, KeyTable, PartPlan, RowPlan
from headrace.adapters.payloads.rows import Rows
from headrace.core.clock import NO_TIME
from headrace.core.frames import FrameBatch
from headrace.core.layouts import numpy_dtype
from headrace.core.quality import Quality

I64 = npt.NDArray[np.int64]
_PARTS = ("f64", "i64", "u8", "u32")
_ROW_BYTES_MIN, _VALUE_BYTES_MIN = 2, 2


class ShapedRows:
    """What one router knows of the devices whose messages one rule scans."""

    def __init__(self, rows: Rows, settings: RuleSettings) -> None:
        self._rows = rows
        self._settings = settings
        self._tables: dict[KeyTable, int] = {}
        self._plans: dict[tuple[int, int], RowPlan | None] = {}
        self._table_of = np.full(64, -1, np.int64)
        self._slots = np.zeros((64, len(_PARTS)), np.uint32)
        self._version = np.full(64, -1, np.int64)
        self._columns = _columns(1 << 12)

    def read(
        self, messages: Sequence[TopicMessage], groups: Sequence[DeviceGroup], shapes: JsonShapes
    ) -> list[int]:
        """Add the rows of messages of known shape; the numbers of the others.

        A device of which one message is left has all of its messages left, so that its rows stay in order.
        """
        payloads = [message.payload for message in messages]
        data = np.frombuffer(b"".join(payloads), np.uint8)
        bounds = np.zeros(len(payloads) + 1, np.int64)
        np.cumsum(list(map(len, payloads)), out=bounds[1:])
        if len(data) // _VALUE_BYTES_MIN >= len(self._columns.ints):
            self._columns = _columns(2 * len(data))
        columns = self._columns
        columns.counts[:] = 0
        is_read = np.zeros(len(messages), np.uint8)
        scanner.scan(data, bounds, shapes.tables, columns, is_read)
        n = int(columns.counts[scanner.ROWS])
        device = np.array([group.number for group in groups], np.int64)
        self._look_up(device, groups)
        message, shape = columns.message[:n], columns.shape[:n]
        kinds = self._kinds(device[message], shape, groups, shapes, message)
        for (table, number), at in kinds:
            if self._plans[table, number] is None:
                is_read[message[at]] = 0
        left: list[int] = []
        kept = None
        if not is_read.all():
            is_slow = np.isin(device, device[is_read == 0])
            kept = ~is_slow[message]
            left = np.flatnonzero(is_slow).tolist()
        self._give_times(np.arange(n) if kept is None else np.flatnonzero(kept), device, messages, groups)
        batches: list[FrameBatch] = []
        for (table, number), at in kinds:
            plan = self._plans[table, number]
            at = at if kept is None else at[kept[at]]
            if plan is not None and len(at):
                batches += self._batches(plan, shapes.shapes[number], at, device, messages, data)
        self._rows.add_batches(batches)
        return left

    # --- devices -------------------------------------------------------------------------------------

    def _look_up(self, device: I64, groups: Sequence[DeviceGroup]) -> None:
        """Make sure that tables and slots of the devices are the newest."""
        version = self._rows.version
        most = int(device.max(initial=0))
        while most >= len(self._version):
            self._table_of = np.concatenate([self._table_of, np.full_like(self._table_of, -1)])
            self._slots = np.concatenate([self._slots, np.zeros_like(self._slots)])
            self._version = np.concatenate([self._version, np.full_like(self._version, -1)])
        stale = np.flatnonzero(self._version[device] != version)
        if not len(stale):
            return
        numbers, first = np.unique(device[stale], return_index=True)
        for number, i in zip(numbers.tolist(), stale[first].tolist(), strict=True):
            group = groups[i]
            self._table_of[number] = self._tables.setdefault(group.table, len(self._tables))
            self._slots[number] = [group.slots.get(dtype, 0) for dtype in _PARTS]
            self._version[number] = version

    def _kinds(
        self, device: I64, shape: I64, groups: Sequence[DeviceGroup], shapes: JsonShapes, message: I64
    ) -> list[tuple[tuple[int, int], npt.NDArray[np.intp]]]:
        """Rows by table and shape; the plan of each pair is known then."""
        code = self._table_of[device] * N_SHAPES_MAX + shape
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
            pair = divmod(one, N_SHAPES_MAX)
            if pair not in self._plans:
                self._plans[pair] = self._plan(groups[int(message[at[0]])], shapes.shapes[pair[1]])
            out.append((pair, at))
        return out

    def _plan(self, group: DeviceGroup, shape: JsonShape) -> RowPlan | None:
        """What becomes of rows of a shape of devices like `group`; None where the reference has to say."""
        index = group.table.index
        if any(
            key not in index for key, value in zip(shape.keys, shape.values, strict=True) if value is not None
        ):
            return None
        plan = self._rows.plan(group, shape.keys, shape.values, self._settings)
        return None if plan.refusals or not plan.is_lasting else plan

    def _give_times(
        self,
        at: npt.NDArray[np.intp],
        device: I64,
        messages: Sequence[TopicMessage],
        groups: Sequence[DeviceGroup],
    ) -> None:
        """Times of their messages, else arrivals, for rows that have no time."""
        c = self._columns
        at = at[c.ts_ns[at] == NO_TIME]
        given_ns = np.fromiter((messages[i].time_ns for i in c.message[at].tolist()), np.int64, len(at))
        if (given_ns != NO_TIME).any():
            whose = c.message[at]
            nth = np.arange(len(at)) - np.searchsorted(whose, whose)
            c.ts_ns[at] = np.where(given_ns == NO_TIME, NO_TIME, given_ns + nth)
            at = at[given_ns == NO_TIME]
        if not len(at):
            return
        arrival_ns = np.fromiter((message.arrival_ns for message in messages), np.int64, len(messages))
        numbers, place = np.unique(device, return_inverse=True)
        by_number = {group.number: group for group in groups}
        some = [by_number[number] for number in numbers.tolist()]
        newest_ns = np.fromiter((group.last_arrival_ns for group in some), np.int64, len(some))
        scanner.give_arrivals(at, c.message, arrival_ns, place, newest_ns, c.ts_ns)
        for group, last_ns in zip(some, newest_ns.tolist(), strict=True):
            group.last_arrival_ns = last_ns

    # --- columns -------------------------------------------------------------------------------------

    def _batches(
        self, plan: RowPlan, shape: JsonShape, at: npt.NDArray[np.intp], device: I64,
        messages: Sequence[TopicMessage], data: npt.NDArray[np.uint8],
    ) -> list[FrameBatch]:  # fmt: skip
        """Frames of rows of one shape, of devices that share their columns."""
        c = self._columns
        ts_ns, message = c.ts_ns[at], c.message[at]
        slots = self._slots[device[message]]
        first, step = c.first[at, None], c.step[at, None]
        everything = tuple(range(len(shape.keys)))
        out = []
        for part in plan.parts:
            position = np.array(everything if part.pick is None else part.pick(everything), np.int64)
            where = first + step * shape.places[position]
            cells, marks = self._cells(part, where, message, messages, data)
            slot = slots[:, _PARTS.index(part.dtype)]
            words = self._rows.words.dictionary if part.dtype == "u32" else None
            out.append(
                _frames(part, slot, ts_ns, cells, marks).with_(dictionary=words, origin=self._rows.origin)
            )
        return out

    def _cells(
        self,
        part: PartPlan,
        where: I64,
        message: I64,
        messages: Sequence[TopicMessage],
        data: npt.NDArray[np.uint8],
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
        """Values of one part, and their quality where not all are good."""
        if part.dtype == "u32":
            return self._rows.words.coded(self._columns.ints[where], data.tobytes()).astype(np.uint32), None
        if part.dtype == "u8":
            return self._columns.ints[where].astype(np.uint8), None
        cells: npt.NDArray[Any] = self._columns.floats[where]
        if part.dtype == "f64":
            return cells, None
        bad = cells != np.floor(cells)
        cells = np.where(bad, 0, cells).astype(np.int64)
        if not bad.any():
            return cells, None
        for row in np.flatnonzero(bad.any(axis=1)).tolist():
            self._rows.refuse_values(messages[int(message[row])], part.dtype, int(bad[row].sum()))
        return cells, bad * np.uint8(Quality.ABSENT)


def _frames(
    part: PartPlan, slot: npt.NDArray[np.uint32], ts_ns: I64, cells: npt.NDArray[Any],
    marks: npt.NDArray[np.uint8] | None,
) -> FrameBatch:  # fmt: skip
    """Rows with the same columns as frames: dense where at least half of the part's columns are there."""
    if part.is_whole:
        return FrameBatch.dense(slot, ts_ns, cells, marks)
    n, width = len(slot), part.part.layout.width
    if 2 * part.n < width:
        start = np.arange(n + 1) * part.n
        flat = None if marks is None else marks.reshape(-1)
        return FrameBatch.sparse(
            slot, ts_ns, cells.reshape(-1), start, np.tile(part.columns, n), quality=flat
        )
    values = np.zeros((n, width), numpy_dtype(part.dtype))
    quality = np.full((n, width), Quality.ABSENT, np.uint8)
    values[:, part.columns] = cells
    quality[:, part.columns] = 0 if marks is None else marks
    return FrameBatch.dense(slot, ts_ns, values, quality)


def _columns(n_bytes: int) -> JsonColumns:
    """Room for what so many bytes can hold."""
    n_rows, n_values = n_bytes // _ROW_BYTES_MIN + 1, n_bytes // _VALUE_BYTES_MIN + 2
    ints = np.zeros(n_values, np.int64)
    return JsonColumns(
        np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64),
        np.zeros(n_rows, np.int64), ints, ints.view(np.float64), np.zeros(2, np.int64),
    )  # fmt: skip
