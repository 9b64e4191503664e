"""What the scanner of JSON has read → columns of frames, in kernels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.json_scanner import JsonColumns
from headrace.core.kernels import lean_kernel

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
F64 = npt.NDArray[np.float64]
_NO_TIME = -(2**63)


@lean_kernel
def are_current(device: I64, version_of: I64, version: int) -> bool:
    """Whether all devices are of a version."""
    n_stale = 0
    for i in range(len(device)):
        n_stale += version_of[device[i]] != version
    return n_stale == 0


@lean_kernel
def take_floats(
    rows: I64, columns: JsonColumns, places: I64, device: I64, slots: I64, frames: tuple[U32, I64, F64]
) -> None:
    """Fill frames of rows: slot (``slots`` has one for each device), time, and the values at places of their shape."""
    slot, ts_ns, cells = frames
    for r in range(len(rows)):
        row = rows[r]
        slot[r] = slots[device[columns.message[row]]]
        ts_ns[r] = columns.ts_ns[row]
        first, step = columns.first[row], columns.step[row]
        for k in range(len(places)):
            cells[r, k] = columns.floats[first + step * places[k]]


@lean_kernel
def give_arrivals(rows: I64, message: I64, arrival_ns: I64, device: I64, newest_ns: I64, ts_ns: I64) -> None:
    """Give rows, which have no time, that of their message's arrival, each later than the device's one before."""
    for k in range(len(rows)):
        i = message[rows[k]]
        time = max(arrival_ns[i], newest_ns[device[i]] + 1)
        newest_ns[device[i]] = time
        ts_ns[rows[k]] = time
