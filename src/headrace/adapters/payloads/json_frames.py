"""What the scanner of JSON has read → columns of frames, in kernels.

Those that are called for every slice take their arrays one by one: Numba looks at a tuple of arrays for 2 to 3 us at each call,
which is as long as it takes to read fifty small messages.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads import json_scanner as scanner
from headrace.adapters.payloads.json_scanner import JsonColumns, JsonTables
from headrace.core.kernels import lean_kernel

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
_NO_TIME = -(2**63)


@lean_kernel
def are_current(device: I64, version_of: I64, version: int) -> bool:
    """Whether all devices are of a version."""
    n_stale = 0
    for i in range(len(device)):
        n_stale += version_of[device[i]] != version
    return n_stale == 0


def scan(data: U8, lengths: I64, tables: JsonTables, columns: JsonColumns, is_read: U8) -> None:
    """See `headrace.adapters.payloads.json_scanner.scan`."""
    _scan(data, lengths, is_read, *tables, columns.rows, columns.ints, columns.counts)


@lean_kernel
def _scan(  # noqa: PLR0913 see the module's text
    data: U8, lengths: I64, is_read: U8, arena: U8, nodes: I64, facts: I64, front: I64, rows: I64, ints: I64, counts: I64,
) -> None:  # fmt: skip
    columns = JsonColumns(
        rows, rows[0], rows[1], rows[2], rows[3], rows[4], ints, ints.view(np.float64), counts
    )
    scanner.scan(data, lengths, JsonTables(arena, nodes, facts, front), columns, is_read)


def take_floats(
    rows: I64, columns: JsonColumns, places: I64, device: I64, slots: I64, frames: tuple[U32, I64, F64]
) -> None:
    """Fill frames of rows: slot (``slots`` has one for each device), time, and the values at places of their shape."""
    _take_floats(rows, columns.rows, columns.floats, places, device, slots, *frames)


@lean_kernel
def _take_floats(  # noqa: PLR0913 see the module's text
    rows: I64, columns: I64, floats: F64, places: I64, device: I64, slots: I64, slot: U32, ts_ns: I64, cells: F64,
) -> None:  # fmt: skip
    message, times_ns, firsts, steps = columns[0], columns[2], columns[3], columns[4]
    for r in range(len(rows)):
        row = rows[r]
        slot[r] = slots[device[message[row]]]
        ts_ns[r] = times_ns[row]
        first, step = firsts[row], steps[row]
        for k in range(len(places)):
            cells[r, k] = floats[first + step * places[k]]


@lean_kernel
def give_arrivals(rows: I64, message: I64, arrival_ns: I64, device: I64, newest_ns: I64, ts_ns: I64) -> None:
    """Give rows, which have no time, that of their message's arrival, each later than the device's one before."""
    for k in range(len(rows)):
        i = message[rows[k]]
        time = max(arrival_ns[i], newest_ns[device[i]] + 1)
        newest_ns[device[i]] = time
        ts_ns[rows[k]] = time
