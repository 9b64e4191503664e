"""From a body to times in one kernel (`headrace.codecs.ticks`)."""

from __future__ import annotations

import math

import numpy as np

from headrace.codecs.bits import I64, NO_POSITION, U8, U64, get_fixed, get_varint, unzigzag
from headrace.codecs.compiled import Int, entry
from headrace.codecs.integer_kernels import DAMAGED, SOUND
from headrace.codecs.integer_kernels import decode as decode_integers
from headrace.codecs.model import WORDS_AT
from headrace.codecs.value_kernels import widened
from headrace.core.kernels import lean_kernel

_SPREAD_MAX = 1 << 61
_STEP_AT = WORDS_AT - 2
_FURTHEST = 2.0**62


@entry
def decode_ticks(data: U8, work: U64, places: I64, out: I64) -> tuple[Int, np.uint64, np.uint64, Int]:
    """The times ``out: int64[n]`` of a body; ``places: int64[n]`` is room.

    Returns what `headrace.codecs.integer_kernels.decode` does, and start, tick and where the integers are.
    """
    end = data.size
    start, pos = get_varint(data, np.int64(1), end)
    tick, pos = get_varint(data, pos, end)
    on_line = end > 0 and data[0] == 1
    start, tick = unzigzag(start), unzigzag(tick)
    if pos == NO_POSITION or data[0] > 1 or (on_line and pos + 12 > end):
        return DAMAGED, start, tick, pos
    if on_line:
        work[_STEP_AT] = get_fixed(data, pos, np.int64(8))
        work[_STEP_AT + 1] = widened(get_fixed(data, pos + 8, np.int64(4)))
        pos += 12
    found = decode_integers(data, pos, work, places, out)
    if found != SOUND:
        return found, start, tick, pos
    x = out.view(np.uint64)
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
