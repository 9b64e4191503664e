"""From payloads to samples in one call: checksum, times and values of many chunks of one kind of codec.

These are the chunks of `headrace.store.warm` whose values are of `headrace.codecs.origin` and whose times are at one
interval, ticks, or another chunk's: nearly all. Whatever else a chunk may hold is left to the caller, one chunk at a time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.codecs.bits import I64, NO_POSITION, U8, U64, ZERO, checksum, get_fixed, get_varint
from headrace.codecs.compiled import Int, entry, step
from headrace.codecs.integer_kernels import DAMAGED, ELSEWHERE, SOUND
from headrace.codecs.integer_kernels import decode as decode_integers
from headrace.codecs.tick_kernels import decode_ticks
from headrace.codecs.value_kernels import FLAGS, decode_floats, patch_room

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

EVEN, TICKS, GIVEN = 0, 1, 2
"""How the times of a chunk are known: by first and last, by what it holds, or by the caller."""

_FLOAT = 0x80
_KIND = 0xFF ^ FLAGS
_SUM, _PCO = 4, 1
_FAR = np.int64(1) << 62


@step
def _even(first: Int, last: Int, ts_ns: I64) -> Int:
    n = ts_ns.size
    if last < first or last // 2 - first // 2 >= _FAR // 2:
        return ELSEWHERE
    gaps = np.int64(max(1, n - 1))
    gap = (last - first) // gaps
    if gap * gaps != last - first or (n == 1 and gap != 0):
        return ELSEWHERE
    for i in range(n):
        ts_ns[i] = first + i * gap
    return SOUND


@step
def _ticks(data: U8, first: Int, last: Int, work: U64, room: I64, ts_ns: I64) -> Int:
    if data.size == 0:
        return ELSEWHERE
    found, _, _, _ = decode_ticks(data, work, room, ts_ns)
    if found != SOUND:
        return ELSEWHERE
    for i in range(ts_ns.size):
        ts_ns[i] += first
    return SOUND if ts_ns[ts_ns.size - 1] == last else ELSEWHERE


@step
def _values(
    data: U8, kind: Int, work: U64, rooms: tuple[I64, I64, I32], out: F64, given: bool
) -> tuple[Int, Int]:
    """What `headrace.codecs.integer_kernels.decode` returns, and where the integers start."""
    if data.size == 0 or (data[0] & _KIND if data[0] & _FLOAT else data[0]) != kind:
        return DAMAGED, ZERO
    numbers, patches, known = rooms
    n = out.size
    if kind & _FLOAT:
        return decode_floats(data, work, numbers[:n], patches[: 3 * n], known, out, given)
    x = out.view(np.int64)
    if not given:
        return decode_integers(data, np.int64(1), work, patches[:n], x), np.int64(1)
    for i in range(n):
        x[i] = numbers[i]
    return np.int64(SOUND), np.int64(1)


def rooms_for(n: int) -> tuple[I64, I64, I32]:
    """Room to decode chunks of up to n samples: numbers, and what patches need."""
    return np.empty(n, np.int64), *patch_room(n)


@entry
def decode_chunks(
    data: U8,
    headers: tuple[I64, I64, I64, I64, U8],
    kind: Int,
    scratch: tuple[U64, tuple[I64, I64, I32]],
    out: tuple[I64, F64],
    row: Int,
    given: bool,
) -> tuple[Int, Int]:
    """Decode chunks from number `row` on; returns the number of the first that it can't, or how many there are.

    ``headers``: where in the data each chunk starts, int64[G + 1]; its first and last time, ns; where in `out` it starts,
    int64[G + 1]; whether its times are `EVEN`, `TICKS` or `GIVEN`. ``kind`` is the first byte of values. ``scratch`` is of
    `headrace.codecs.model.scratch_for`, and of `rooms_for` for the longest chunk. Times go to ``out[0]``; values to
    ``out[1]``, as float64 or, of integers, as int64.

    The second number is where in the data the integers of pcodec start that it stopped at; the caller decodes them into
    the first of the rooms and goes on from there with those `given`. `NO_POSITION` for a chunk that is damaged, or has other parts.
    """
    starts, first, last, at, how = headers
    work, rooms = scratch
    ts_ns, values = out
    for r in range(row, how.size):
        pos: Int = starts[r]
        end = starts[r + 1]
        a, b = at[r], at[r + 1]
        if end - pos < _SUM + 2 or a == b:
            return r, NO_POSITION
        if checksum(data, pos + _SUM, end, np.int64(0)) != get_fixed(data, pos, np.int64(_SUM)):
            return r, NO_POSITION
        n_times, pos = get_varint(data, pos + _SUM, end)
        n_values, pos = get_varint(data, pos, end)
        if pos == NO_POSITION or n_values != np.uint64(0) or n_times > np.uint64(end - pos):
            return r, NO_POSITION
        middle = pos + np.int64(n_times)
        found: Int = np.int64(SOUND)
        if how[r] == TICKS:
            found = _ticks(data[pos:middle], first[r], last[r], work, rooms[1][: b - a], ts_ns[a:b])
        elif n_times != np.uint64(0):
            return r, NO_POSITION
        elif how[r] == EVEN:
            found = _even(first[r], last[r], ts_ns[a:b])
        if found != SOUND:
            return r, NO_POSITION
        found, where = _values(data[middle:end], kind, work, rooms, values[a:b], given and r == row)
        if found != SOUND:
            is_pco = found == ELSEWHERE and middle + where < end and data[middle + where] == _PCO
            return r, middle + where if is_pco else NO_POSITION
    return np.int64(how.size), NO_POSITION
