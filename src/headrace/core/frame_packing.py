"""Times and slots of many frames in a few bytes each, for the journal and for links.

A round of polls has a frame from each of many groups: their slots rise by small steps, because the frames are in
the order of the shards' state, and their times lie within a second, on whole milliseconds. As plain columns they
take 12 bytes a frame, more than the value of a lone sensor; packed they take about 3.

* times: ``base, unit: int64``, bytes of a step (int64), then ``(ts - base) / unit`` as u16 or u32;
* slots: number of restarts (int64), then where each is and its slot (u32 each), then a byte a frame: how much
  more the slot is than that of the frame before.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import kernel

Array = npt.NDArray[Any]
_TIMES = struct.Struct("<qqq")
_RESTARTS = struct.Struct("<q")
_UNITS_NS = (1_000_000, 1_000, 1)
_STEP_MAX = 255
_FRAMES_A_RESTART = 8


@kernel
def _are_multiples(ts_ns: Array, base_ns: int, unit_ns: int) -> bool:
    n_between = 0
    for f in range(len(ts_ns)):
        n_between += (ts_ns[f] - base_ns) % unit_ns != 0
        if n_between:
            break
    return n_between == 0


@kernel
def _steps(slot: Array, restarts: Array, step: Array) -> int:
    """Fill ``step: u8[F]`` and ``restarts: u32[n, 2]``; how many there are, or -1 where `restarts` is too short."""
    n = 0
    before = np.int64(-_STEP_MAX - 1)
    for f in range(len(slot)):
        more = np.int64(slot[f]) - before
        if 0 <= more <= _STEP_MAX:
            step[f] = more
        else:
            if n == len(restarts):
                return -1
            restarts[n, 0] = f
            restarts[n, 1] = slot[f]
            step[f] = 0
            n += 1
        before = np.int64(slot[f])
    return n


def pack_times(ts_ns: Array) -> bytes | None:
    """The times packed, int64[F]; None where they span too much."""
    base = int(ts_ns.min())
    unit_ns = next(unit_ns for unit_ns in _UNITS_NS if _are_multiples(ts_ns, base, unit_ns))
    n_steps = (int(ts_ns.max()) - base) // unit_ns
    if n_steps >= 1 << 32:
        return None
    kind = np.dtype(np.uint16 if n_steps < 1 << 16 else np.uint32)
    steps = ((ts_ns - base) // unit_ns).astype(kind)
    return _TIMES.pack(base, unit_ns, kind.itemsize) + steps.tobytes()


def pack_slots(slot: Array) -> bytes | None:
    """The slots packed, uint32[F]; None where they do not rise by small steps."""
    restarts = np.empty((len(slot) // _FRAMES_A_RESTART + 1, 2), np.uint32)
    step = np.empty(len(slot), np.uint8)
    n = _steps(slot, restarts, step)
    return None if n < 0 else _RESTARTS.pack(n) + restarts[:n].tobytes() + step.tobytes()


def unpack_times(data: memoryview, n_frames: int) -> tuple[Array, int]:
    """The inverse of `pack_times`: times and how many bytes they took.

    Raises
    ------
    ValueError, struct.error : the bytes are no packed times.
    """
    base, unit_ns, size = _TIMES.unpack_from(data)
    if size not in (2, 4) or unit_ns not in _UNITS_NS:
        raise ValueError(f"times in steps of {unit_ns} ns and {size} bytes")
    steps = np.frombuffer(data, f"<u{size}", n_frames, _TIMES.size)
    if n_frames and base > np.iinfo(np.int64).max - unit_ns * int(steps.max()):
        raise ValueError(f"times behind the end of time, from {base} ns on")
    return base + steps.astype(np.int64) * unit_ns, _TIMES.size + steps.nbytes


def unpack_slots(data: memoryview, n_frames: int) -> tuple[Array, int]:
    """The inverse of `pack_slots`: slots and how many bytes they took.

    Raises
    ------
    ValueError, struct.error : the bytes are no packed slots.
    """
    (n,) = _RESTARTS.unpack_from(data)
    if not 0 <= n <= n_frames:
        raise ValueError(f"{n} restarts in {n_frames} frames")
    restarts = np.frombuffer(data, np.uint32, 2 * n, _RESTARTS.size).reshape(n, 2).astype(np.int64)
    at, first = restarts[:, 0], restarts[:, 1]
    step = np.frombuffer(data, np.uint8, n_frames, _RESTARTS.size + 8 * n)
    if n_frames and (not n or at[0] or at[-1] >= n_frames or (at[1:] <= at[:-1]).any()):
        raise ValueError("the restarts of slots are not in order")
    risen = np.cumsum(step, dtype=np.int64)
    slot = risen + np.repeat(first - risen[at], np.diff(np.append(at, n_frames)))
    if n_frames and int(slot.max()) >= 1 << 32:
        raise ValueError("slots behind the last that can be")
    return slot.astype(np.uint32), _RESTARTS.size + 8 * n + n_frames
