"""From times to a body, and back, in one kernel each (`headrace.codecs.ticks`)."""

from __future__ import annotations

import math

import numpy as np

from headrace.codecs.bits import (
    I64,
    NO_POSITION,
    U8,
    U64,
    get_fixed,
    get_varint,
    put_fixed,
    put_varint,
    unzigzag,
    zigzag,
)
from headrace.codecs.compiled import Int, entry, glue
from headrace.codecs.integer_coding import F64, INTEGERS, SPARSE, encode, is_stepped
from headrace.codecs.integer_kernels import DAMAGED, SOUND
from headrace.codecs.integer_kernels import decode as decode_integers
from headrace.codecs.model import WORDS_AT
from headrace.codecs.value_kernels import widened
from headrace.core.kernels import lean_kernel

_SPREAD_MAX = 1 << 61
_STEP_AT = WORDS_AT - 2
_FURTHEST = 2.0**62
PLAIN, ON_LINE, BY_GAPS = 0, 1, 2
"""First bytes of bodies."""
HEAD_MAX = 1 + 10 + 10 + 12
"""Bytes before the integers, at most."""
GAPS = 64
"""Of numbers whose gaps differ by more there is no line."""
_LINE_FROM, _LINE_TO = 16, 1 << 50
_GAPS_BITS = 0.5  # a time, from which on a table of gaps may be shorter
_MOSTLY = 0.75  # so many equal gaps are coded by where the others lie


@lean_kernel
def count_ticks(ts_ns: I64, number: I64) -> np.int64:
    """The largest tick, at least 1, that all distances from the first are multiples of; ``number: int64[n]`` gets these.

    0, and nothing in `number`, where times lie so far apart that a distance may not fit. Most gaps are as the one before,
    and need no division.
    """
    low = high = ts_ns[0]
    for i in range(len(ts_ns)):
        low, high = min(low, ts_ns[i]), max(high, ts_ns[i])
        number[i] = ts_ns[i] - ts_ns[0]
    if high // 4 - low // 4 >= _SPREAD_MAX // 4:
        return np.int64(0)
    tick, last = np.int64(0), np.int64(0)
    for i in range(1, len(number)):
        gap = abs(number[i] - number[i - 1])
        if gap == last:
            continue
        last = a = gap
        while a != 0:
            tick, a = a, tick % a
        if tick == 1:
            break
    return max(tick, np.int64(1))


@glue
def _decoded(data: U8, work: U64, places: I64, out: I64) -> tuple[Int, np.uint64, np.uint64, Int]:
    end = data.size
    start, pos = get_varint(data, np.int64(1), end)
    tick, pos = get_varint(data, pos, end)
    on_line = end > 0 and data[0] == ON_LINE
    start, tick = unzigzag(start), unzigzag(tick)
    by_gaps = np.int64(end > 0 and data[0] == BY_GAPS)
    if pos == NO_POSITION or data[0] > 2 or (on_line and pos + 12 > end) or by_gaps > out.size:
        return DAMAGED, start, tick, pos
    if on_line:
        work[_STEP_AT] = get_fixed(data, pos, np.int64(8))
        work[_STEP_AT + 1] = widened(get_fixed(data, pos + 8, np.int64(4)))
        pos += 12
    found = decode_integers(data, pos, work, places, out[by_gaps:])
    if found != SOUND:
        return found, start, tick, pos
    x = out.view(np.uint64)
    if by_gaps:
        x[0] = np.uint64(0)
        for i in range(1, x.size):
            x[i] += x[i - 1]
    if on_line:
        line = work[_STEP_AT : _STEP_AT + 2].view(np.float64)
        step, offset = line[0], line[1] + 0.5
        if not abs(step) * x.size + abs(offset) < _FURTHEST:
            return DAMAGED, start, tick, pos
        for i in range(x.size):
            x[i] += np.uint64(np.int64(math.floor(np.float64(i) * step + offset)))
    for i in range(x.size):
        x[i] = start + tick * x[i]
    return SOUND, start, tick, pos


@entry
def decode_ticks(data: U8, work: U64, places: I64, out: I64) -> tuple[Int, np.uint64, np.uint64, Int]:
    """The times ``out: int64[n]`` of a body; ``places: int64[n]`` is room.

    Returns what `headrace.codecs.integer_kernels.decode` does, and start, tick and where the integers are.
    """
    return _decoded(data, work, places, out)


@lean_kernel
def line_of(number: I64, counts: I64, line: F64) -> bool:
    """Step and offset of rising numbers that lie near a line with a step that is not whole; False where they do not.

    The step is that of least squares, its sums in order, of whole numbers, so that all machines agree.
    """
    n = number.size
    if n < _LINE_FROM or not 0 < number[n - 1] < _LINE_TO:
        return False
    least = most = number[1] - number[0]
    for i in range(2, n):
        gap = number[i] - number[i - 1]
        least, most = min(least, gap), max(most, gap)
    # Unsigned: gaps of times from end to end differ by more than 2**63.
    if np.uint64(most - least) > np.uint64(GAPS):
        return False
    for gap in range(GAPS + 1):
        counts[gap] = 0
    around = total = 0.0
    for i in range(n):
        rest = np.float64(number[i] - i * least)
        around += np.float64(2 * i - (n - 1)) * rest
        total += rest
        if i > 0:
            counts[number[i] - number[i - 1] - least] += 1
    below, middle = counts[0], 0
    while below <= n // 2:
        middle += 1
        below += counts[middle]
    if np.float64(counts[middle]) > _MOSTLY * np.float64(n - 1):
        return False
    slope = around / 2.0 / (np.float64(n) * (np.float64(n) * np.float64(n) - 1.0) / 12.0)
    line[0] = slope + np.float64(least)
    line[1] = total / np.float64(n) - slope * np.float64(n - 1) / 2.0
    # Steeper ones come of times that wrap; no reader takes them.
    return bool(abs(line[0]) * np.float64(n) + abs(line[1]) < _FURTHEST / 2.0)


@glue
def _put_line(number: I64, work: U64, left: I64, out: U8, at: Int) -> Int:
    """Write the line of numbers and leave what lies beside it; returns the position behind it, and `at` where there is none."""
    line, short = work[_STEP_AT : _STEP_AT + 2].view(np.float64), work[_STEP_AT + 1 : _STEP_AT + 2]
    if not line_of(number, left, line):
        return at
    step, offset = line[0], np.float32(line[1])
    short[0] = np.uint64(0)
    short.view(np.float32)[0] = offset
    out[0] = np.uint8(ON_LINE)
    put_fixed(out, at, work[_STEP_AT], np.int64(8))
    put_fixed(out, at + 8, short[0], np.int64(4))
    up = np.float64(offset) + 0.5
    for i in range(number.size):
        left[i] = number[i] - np.int64(math.floor(np.float64(i) * step + up))
    return at + 12


@entry
def pack_ticks(ts_ns: I64, work: U64, rooms: tuple[I64, I64], outs: tuple[U8, U8], out: U8) -> Int:
    """The size of a body of ``ts_ns: int64[n]``, n at least 1, decoded and compared; 0 where it takes other means.

    These are times too far apart, and those whose integers pco may make shorter. ``work`` and ``outs`` are as
    `headrace.codecs.integer_coding.encode` has them, ``rooms`` its room and ``int64[4 n + 65]``, ``out: uint8[HEAD_MAX + 12 n + 256]``.
    """
    room, long = rooms
    n = ts_ns.size
    number, left, places, back = (
        long[:n],
        long[n : 2 * n + GAPS + 1],
        long[2 * n : 3 * n],
        long[3 * n : 4 * n],
    )
    tick = count_ticks(ts_ns, number)
    if tick == 0:
        return np.int64(0)
    if tick > 1:
        for i in range(n):
            number[i] //= tick
    out[0] = np.uint8(PLAIN)
    at = put_varint(out, np.int64(1), zigzag(np.uint64(ts_ns[0])))
    at = put_varint(out, at, zigzag(np.uint64(tick)))
    size, _, pco = encode(number, np.int64(SPARSE), work, room, outs)
    if size < 0:
        after = _put_line(number, work, left, out, at)
        coded = number if after == at else left[:n]
        at = after
        size, _, pco = encode(coded, np.int64(INTEGERS), work, room, outs)
    if pco or is_stepped(number, size, _GAPS_BITS, long[n:]):
        return np.int64(0)
    for i in range(size):
        out[at + i] = outs[0][i]
    found, _, _, _ = _decoded(out[: at + size], work, places, back)
    same = found == SOUND
    for i in range(n):
        same = same and back[i] == ts_ns[i]
    return at + size if same else np.int64(0)
