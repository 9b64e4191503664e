"""Values that need no second look, filed in one pass of a kernel: good ones, single, of their sensor's own type, each once.

Nearly all are. Where one of them is not (a bad status, a text, an array, another type, a doubtful time, two values of a
sensor) the kernel changes nothing and gives up, and `headrace.adapters.opcua.filing` looks at all of them column by column.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.opcua.kinds import (
    AHEAD_NS,
    DATE_TIME,
    N_KINDS,
    NO_PART,
    OLDEST_NS,
    PARTS,
    TEXT,
    part_of,
)
from headrace.adapters.opcua.scanner import GAVE_UP, ValueColumns
from headrace.core.clock import NO_TIME
from headrace.core.kernels import lean_kernel, lean_leaf

UNSORTED = -2
POLICIES = {"auto": 0, "source": 1, "server": 2, "ingest": 3}
I64 = npt.NDArray[np.int64]
_AUTO, _SERVER, _INGEST = POLICIES["auto"], POLICIES["server"], POLICIES["ingest"]
_BOOLEAN = 1
_N_KINDS = 256


def _own_parts() -> npt.NDArray[np.int8]:
    """By kind, the part whose values have the kind's own bytes; `NO_PART` where there is none."""
    out = np.full(_N_KINDS, NO_PART, np.int8)
    for kind in range(N_KINDS):
        part = part_of(kind)
        if part != NO_PART and PARTS[part] != TEXT and kind != DATE_TIME:
            out[kind] = part
    return out


_OWN = _own_parts()


class Sensors(NamedTuple):
    """Columns of a `TagTable`."""

    part: npt.NDArray[np.int8]
    is_array: npt.NDArray[np.bool_]
    cell: I64
    slot: npt.NDArray[np.uint32]
    column: npt.NDArray[np.uint16]
    last_source_ns: I64
    last_bits: npt.NDArray[np.uint64]
    last_kind: npt.NDArray[np.int16]
    last_status: npt.NDArray[np.uint32]


class PlainRows(NamedTuple):
    """What is taken: rows with tag, slot, column, time and value (its bytes); frames with their first row and latest time.

    ``parts``: first frame of each layout. ``counts``: rows, frames, layouts.
    """

    tag: I64
    slot: npt.NDArray[np.uint32]
    column: npt.NDArray[np.uint16]
    ts_ns: I64
    bits: npt.NDArray[np.uint64]
    first: I64
    latest_ns: I64
    has_one_time: npt.NDArray[np.bool_]
    parts: I64
    counts: I64

    @classmethod
    def room(cls, n: int) -> PlainRows:
        """For `n` values."""
        return cls(
            np.empty(n, np.int64), np.empty(n, np.uint32), np.empty(n, np.uint16), np.empty(n, np.int64),
            np.empty(n, np.uint64), np.empty(n + 1, np.int64), np.empty(n, np.int64), np.empty(n, np.bool_),
            np.empty(n + 1, np.int64), np.empty(3, np.int64),
        )  # fmt: skip


@lean_leaf
def _looked_at(
    values: ValueColumns, sensors: Sensors, layout_index: npt.NDArray[np.int32], policy: int
) -> int:
    """0 where values need no second look and have their order; else `UNSORTED` or `GAVE_UP`."""
    before = np.int64(-1)
    is_sorted = True
    for row in range(len(values.tag)):
        tag = np.int64(values.tag[row])
        if tag >= len(sensors.part):
            return GAVE_UP
        part = sensors.part[tag]
        own = _OWN[values.kind[row]]
        if part == NO_PART or own != part or sensors.is_array[tag] or values.status[row] != 0:
            return GAVE_UP
        source_ns, server_ns = values.source_ns[row], values.server_ns[row]
        has_both = policy == _AUTO and source_ns != NO_TIME and server_ns != NO_TIME
        if has_both and (source_ns < OLDEST_NS or source_ns > server_ns + AHEAD_NS):
            return GAVE_UP
        cell = sensors.cell[tag]
        slot = np.int64(sensors.slot[cell])
        place = (np.int64(layout_index[slot]) << 48) | (slot << 16) | np.int64(sensors.column[cell])
        if place == before:
            return GAVE_UP
        is_sorted = is_sorted and bool(place > before)
        before = place
    return 0 if is_sorted else UNSORTED


@lean_leaf
def _is_new(values: ValueColumns, row: int, sensors: Sensors) -> bool:
    """Whether a value is no repeat of its tag's last one, which it is from now on."""
    tag = np.int64(values.tag[row])
    source_ns, bits, kind = values.source_ns[row], values.bits[row], values.kind[row]
    if (
        sensors.last_source_ns[tag] == source_ns
        and sensors.last_bits[tag] == bits
        and sensors.last_kind[tag] == kind
        and sensors.last_status[tag] == 0
        and source_ns != NO_TIME
    ):
        return False
    sensors.last_source_ns[tag] = source_ns
    sensors.last_bits[tag] = bits
    sensors.last_kind[tag] = kind
    sensors.last_status[tag] = 0
    return True


@lean_kernel
def take_plain(
    values: ValueColumns,
    sensors: Sensors,
    layout_index: npt.NDArray[np.int32],
    policy: int,
    arrival_ns: int,
    out: PlainRows,
) -> int:
    """Take values whose order is that of layout, slot and column; remember them as the last of their tags.

    Returns
    -------
    How many are no repeats; `UNSORTED`, or `GAVE_UP` : nothing was taken.
    """
    looked_at = _looked_at(values, sensors, layout_index, policy)
    if looked_at:
        return looked_at
    n_rows, n_frames, n_parts = 0, 0, 0
    slot_before, layout_before = np.int64(-1), np.int64(-1)
    for row in range(len(values.tag)):
        if not _is_new(values, row, sensors):
            continue
        tag = np.int64(values.tag[row])
        kind, bits = values.kind[row], values.bits[row]
        source_ns, server_ns = values.source_ns[row], values.server_ns[row]
        ts_ns = server_ns if policy == _SERVER or (policy == _AUTO and source_ns == NO_TIME) else source_ns
        if ts_ns == NO_TIME or policy == _INGEST:
            ts_ns = arrival_ns
        cell = sensors.cell[tag]
        slot = np.int64(sensors.slot[cell])
        if slot != slot_before:
            layout = np.int64(layout_index[slot])
            if layout != layout_before:
                out.parts[n_parts] = n_frames
                n_parts += 1
                layout_before = layout
            out.first[n_frames] = n_rows
            out.latest_ns[n_frames] = ts_ns
            out.has_one_time[n_frames] = True
            n_frames += 1
            slot_before = slot
        elif ts_ns != out.latest_ns[n_frames - 1]:
            out.has_one_time[n_frames - 1] = False
            out.latest_ns[n_frames - 1] = max(ts_ns, out.latest_ns[n_frames - 1])
        out.tag[n_rows] = tag
        out.slot[n_rows] = slot
        out.column[n_rows] = sensors.column[cell]
        out.ts_ns[n_rows] = ts_ns
        out.bits[n_rows] = np.uint64(bits != 0) if kind == _BOOLEAN else bits
        n_rows += 1
    out.first[n_frames] = n_rows
    out.parts[n_parts] = n_frames
    out.counts[0], out.counts[1], out.counts[2] = n_rows, n_frames, n_parts
    return n_rows


def places(values: ValueColumns, sensors: Sensors, layout_index: npt.NDArray[Any]) -> I64:
    """What values are to be sorted by; tags that are none are of the first sensor."""
    cell = sensors.cell[np.minimum(values.tag, len(sensors.cell) - 1)]
    slot = sensors.slot[cell].astype(np.int64)
    return (layout_index[slot].astype(np.int64) << 48) | (slot << 16) | sensors.column[cell]


def warm_plain() -> None:
    """Compile the kernel, or load it from the cache."""
    types: tuple[Any, ...] = (
        np.int8,
        np.bool_,
        np.int64,
        np.uint32,
        np.uint16,
        np.int64,
        np.uint64,
        np.int16,
        np.uint32,
    )
    sensors = Sensors(*(np.empty(0, one) for one in types))
    take_plain(ValueColumns.empty(0), sensors, np.empty(0, np.int32), 0, 0, PlainRows.room(0))
