"""Bodies of integers, as `headrace.codecs.integers` defines them: every coder but pco, tried and compared in one kernel.

A chunk has a thousand numbers: so many calls from Python as there are coders to try took longer than coding.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import numpy.typing as npt

from headrace.codecs import adaptive, model
from headrace.codecs.adaptive import PLAIN, SLACK_WORDS
from headrace.codecs.bits import I64, U8, U64, ZERO, put_varint, zigzag
from headrace.codecs.compiled import Int, entry, glue, step, wrapping
from headrace.codecs.integer_kernels import (
    BITS,
    BITS_LEFT,
    CENTRE,
    FOUND,
    GREATEST,
    LEAST,
    NEW,
    ORDER,
    SHIFT,
    STEADY,
    STEP,
    WILD,
    examine,
    few_levels,
    sparse,
)
from headrace.codecs.lpc import ORDER_MAX, ROOM, fill_window

F64 = npt.NDArray[np.float64]
Outcome = tuple[Int, Int, bool]
"""Bytes of a body, -1 for none; where in it what follows a step begins; whether pco might make that shorter."""

INTEGERS, DIRECT, SPARSE = range(3)
"""What is asked for: the shortest body, one of a coder that needs no other, or one of few other differences."""
PALETTE, PCO, ADAPTIVE, CENTRED, STEPS, SPARSE_BODY, AROUND, SAME = range(8)
"""First bytes of bodies; a model's are 8 and more."""

_PCO_FROM, _STEPS_FROM = 64, 16  # their heads are larger than what they save on fewer numbers
_MODEL_FROM = 64
_FAR_FROM = 32  # a centre costs up to two bytes more than it saves on fewer numbers
_SPARSE_EACH, _STEADY_SHARE = 4, 0.6
# Of numbers of so few bits the prices are rough: all orders within the band are tried.
_SMALL, _SMALL_BAND = 5.0, 1.4
_FEW_SHARE = 0.25  # of numbers that are new: pco may win where few come again and again
# Bits a number and share of wild differences from which it may win too.
_WILD_FROM, _WILD_SHARE = 10.0, 0.0015
# Of so many numbers and bits each their differences are counted; how many may differ, and the bits that each of those costs.
_STEPPED_FROM, _STEPPED_BITS, _STEPPED_SHARE = 512, 1.5, 0.9
DIFFERENT_MAX = 256
"""Different numbers, or differences, that have a code each."""
_DIFFERENT_BITS = 12.0
_SLOT_BITS = 9
PALETTE_MAX = 32
"""Different numbers of a palette: more are not coded better than by how large they are."""

_U = np.uint64
_0, _8 = _U(0), _U(8)
_MIX = _U(0x9E3779B97F4A7C15)

# Where in the room: coefficients, levels and their counts, what is found, the usual difference, how many numbers the window is
# for, what was seen, floats; behind them, each as long as the numbers, what is left of a prediction, windowed numbers, numbers
# less rest and step, less a centre, which level each is, and, in quarters, what is sparse; and at the end the window, which stays for numbers as many.
_LEVELS = ORDER_MAX
_COUNTS = _LEVELS + PALETTE_MAX
_FOUND = _COUNTS + PALETTE_MAX
_USUAL = _FOUND + FOUND
_WINDOWED = _USUAL + 1
_SEEN, _N_SEEN = _WINDOWED + 1, 1024
_FLOATS = _SEEN + _N_SEEN
_LONG = _FLOATS + ROOM
_LEFT, _SIGNAL, _SCALED, _SHIFTED, _WHICH, _OTHERS, _N_LONG = range(7)
_EACH_MAX, _HEADS_MAX = 12, 256  # bytes of a number at worst, and of all heads


@step
def _copy(out: U8, at: Int, source: U8, start: Int, size: Int) -> None:
    for i in range(size):  # to the front: they may overlap
        out[at + i] = source[start + i]


@step
def _shorter(best: U8, size: Int, trial: U8, other: Int) -> Int:
    """The trial becomes the best where it is shorter, or the first."""
    if other < 0 or 0 <= size <= other:
        return size
    _copy(best, ZERO, trial, ZERO, other)
    return other


@step
def _put_adaptive(x: U64, order: Int, work: U64, out: U8) -> Int:
    words = work[model.WORDS_AT : model.WORDS_AT + 2 * x.size + SLACK_WORDS]
    for i in range(words.size):
        words[i] = _0
    first, bits = adaptive.encode(x, order, words)
    out[0], out[1] = np.uint8(ADAPTIVE), np.uint8(_U(order) | (first << _U(2)))
    n = np.int64((bits + _U(7)) >> _U(3))
    for i in range(n):
        out[2 + i] = np.uint8((words[i >> 3] >> np.uint64(8 * (i & 7))) & _U(255))
    return 2 + n


@step
def _put_direct(x: U64, work: U64, out: U8) -> Int:
    """By a coder that needs no other; ``out`` has room for twice so many."""
    n = x.size
    same: Int = ZERO
    while same < n and x[same] == x[0]:
        same += 1
    if n > 0 and same == n:
        out[0] = np.uint8(SAME)
        return put_varint(out, np.int64(1), zigzag(x[0]))
    if n >= _MODEL_FROM:
        return model.encode(x, np.int64(PLAIN), work, out)
    return _put_adaptive(x, np.int64(PLAIN), work, out)


@step
def _put_around(numbers: I64, centre: Int, work: U64, room: I64, out: U8) -> Int:
    """How far they are from a centre; of a room as long as they are."""
    for i in range(numbers.size):
        room[i] = numbers[i] - centre
    out[0] = np.uint8(AROUND)
    at = put_varint(out, np.int64(1), zigzag(np.uint64(centre)))
    return at + _put_direct(room[: numbers.size].view(np.uint64), work, out[at:])


@step
def _best_order(x: I64) -> Int:
    """The order whose residuals are smallest."""
    a = b = c = 0.0
    for i in range(x.size):
        a += abs(np.float64(x[i] - x[0]))
        b += abs(np.float64(x[i] - x[i - 1])) if i > 0 else 0.0
        c += abs(np.float64(x[i] - x[i - 1] - x[i - 1] + x[i - 2])) if i > 1 else 0.0
    return np.int64((2 if c < b else 1) if min(b, c) < a else 0)


@glue
def _put_few(numbers: I64, work: U64, best: U8, trial: U8) -> Int:
    """Too few for a model."""
    x = numbers.view(np.uint64)
    size = _put_direct(x, work, best)
    if numbers.size <= 2:
        return size
    return _shorter(best, size, trial, _put_adaptive(x, _best_order(numbers), work, trial))


@step
def _sort(x: I64) -> None:
    """Shell's, with Ciura's gaps: in place, and never slow."""
    for gap in (1750, 701, 301, 132, 57, 23, 10, 4, 1):
        for i in range(gap, x.size):
            one, j = x[i], i
            while j >= gap and x[j - gap] > one:
                x[j] = x[j - gap]
                j -= gap
            x[j] = one


@glue
def _put_part(numbers: I64, work: U64, room: I64, out: U8) -> Int:
    """Direct, or what is left of a centre; nothing of nothing."""
    n = numbers.size
    if n == 0:
        return ZERO
    ordered = room[:n]
    for i in range(n):
        ordered[i] = numbers[i]
    _sort(ordered)
    centre, least, most = ordered[n // 2], ordered[0], ordered[n - 1]
    low, high = ordered[n // 8], ordered[n - 1 - n // 8]
    # Whether they lie so close to the centre that what is left of it takes a bit less each: most within a quarter of it.
    is_far = least > 0 and n >= _FAR_FROM and max(centre - low, high - centre) * 4 < centre
    if centre == 0 or least == most:
        return _put_direct(numbers.view(np.uint64), work, out)
    size = _put_around(numbers, centre, work, room, out)
    if is_far:
        return size
    other = _put_direct(numbers.view(np.uint64), work, out[size:])
    if other > size:
        return size
    _copy(out, ZERO, out, size, other)
    return other


@glue
def _put_sparse(numbers: I64, work: U64, room: I64, out: U8) -> Int:
    """Numbers that nearly always rise by the same; -1 where they do not."""
    n = numbers.size
    most = (n - 1) // _SPARSE_EACH
    spare, usual = room[_long(n, _OTHERS) :], room[_USUAL : _USUAL + 1].view(np.uint64)
    gaps, others = spare[:most], spare[most : 2 * most]
    count = sparse(numbers.view(np.uint64), gaps, others.view(np.uint64), usual)
    if count < 0:
        return np.int64(-1)
    out[0] = np.uint8(SPARSE_BODY)
    at = put_varint(out, np.int64(1), zigzag(np.uint64(numbers[0])))
    at = put_varint(out, at, zigzag(usual[0]))
    at = put_varint(out, at, np.uint64(count))
    shifted = room[_long(n, _SHIFTED) :]
    at = _sized(out, at, _put_part(gaps[:count], work, shifted, out[at + _HEAD :]))
    return at + _put_part(others[:count], work, shifted, out[at:])


_HEAD = 10  # bytes of a varint at most


@step
def _sized(out: U8, at: Int, size: Int) -> Int:
    """A part that was written `_HEAD` bytes behind `at`, with its length before it; returns where it ends."""
    start = put_varint(out, at, np.uint64(size))
    _copy(out, start, out, at + _HEAD, size)
    return start + size


@glue
def _put_palette(numbers: I64, work: U64, room: I64, wanted: Int, out: U8) -> Int:
    """A few different numbers, the most frequent first, and which of them each is.

    -1 where they are too many, or by their entropy it would take more than the `wanted` bytes.
    """
    n = numbers.size
    levels, counts = room[_LEVELS : _LEVELS + PALETTE_MAX], room[_COUNTS : _COUNTS + PALETTE_MAX]
    which = room[_long(n, _WHICH) : _long(n, _WHICH) + n]
    count = few_levels(numbers, levels, counts, which)
    bits = 0.0
    for i in range(count):
        bits += np.float64(counts[i]) * math.log2(np.float64(n) / np.float64(counts[i]))
    if count < 0 or bits > 8.0 * np.float64(wanted):
        return np.int64(-1)
    order, rank = room[:count], room[_SEEN : _SEEN + count]
    for i in range(count):
        j: Int = np.int64(i)
        while j > 0 and counts[order[j - 1]] < counts[i]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = i
    for j in range(count):
        rank[order[j]] = (j >> 1) ^ -(j & 1)
    for i in range(n):
        which[i] = rank[which[i]]
    for j in range(count):
        rank[j] = levels[order[j]]
    out[0] = np.uint8(PALETTE)
    at = put_varint(out, np.int64(1), np.uint64(count))
    at = _sized(out, at, _put_direct(rank.view(np.uint64), work, out[at + _HEAD :]))
    return at + model.encode(which.view(np.uint64), np.int64(PLAIN), work, out[at:])


@glue
def _put_predicted(room: I64, n: Int, work: U64, out: U8) -> Int:
    """What linear prediction leaves."""
    found = room[_FOUND : _FOUND + FOUND]
    order = found[ORDER]
    out[0], out[1], out[2] = np.uint8(CENTRED), np.uint8(order), np.uint8(found[SHIFT])
    for k in range(order):
        out[3 + 2 * k] = np.uint8(room[k] & 255)
        out[4 + 2 * k] = np.uint8((room[k] >> 8) & 255)
    at = put_varint(out, 3 + 2 * order, zigzag(np.uint64(found[CENTRE])))
    left = room[_long(n, _LEFT) : _long(n, _LEFT) + n]
    return at + _put_direct(left.view(np.uint64), work, out[at:])


@step
def is_stepped(numbers: I64, size: Int, from_bits: float, table: I64) -> bool:
    """Whether a code for each difference makes a body of `size` bytes a good deal shorter, as few come again and again.

    A counter that grows by what was packed, times of what is polled at two intervals: few steps, far apart. What goes by
    their size alone spells out the lower digits of the large ones; pco has a code for each. Bodies of fewer than `from_bits`
    a number are not looked at. ``table: int64[1024]``, or more, is room.
    """
    n = numbers.size
    if n < _STEPPED_FROM or size * 8 < n * from_bits:
        return False
    return bool(_stepped_bits(numbers, table) < size * 8 * _STEPPED_SHARE)


@step
def _stepped_bits(numbers: I64, table: I64) -> float:
    """Bits of differences that are coded by how often each comes; infinite where more than 256 differ."""
    n, n_slots, n_different = numbers.size, 1 << _SLOT_BITS, 0
    steps, counts = table[:n_slots], table[n_slots:]
    for slot in range(n_slots):
        counts[slot] = 0
    for i in range(1, n):
        by = numbers[i] - numbers[i - 1]
        at: Int = np.int64(_U(by) * _MIX >> _U(64 - _SLOT_BITS))
        while counts[at] > 0 and steps[at] != by:
            at = (at + 1) % n_slots
        if counts[at] == 0:
            n_different += 1
            if n_different > DIFFERENT_MAX:
                return math.inf
            steps[at] = by
        counts[at] += 1
    bits = _DIFFERENT_BITS * n_different
    for slot in range(n_slots):
        if counts[slot] > 0:
            bits += np.float64(counts[slot]) * math.log2(np.float64(n - 1) / np.float64(counts[slot]))
    return bits


@glue
def _put_best(numbers: I64, what: Int, work: U64, room: I64, best: U8, trial: U8) -> tuple[Int, bool]:
    """By the order, or the predictor, that is estimated to be the shortest; and whether pco might be shorter."""
    n, found, x = numbers.size, room[_FOUND : _FOUND + FOUND], numbers.view(np.uint64)
    is_examined = what == INTEGERS and n >= _STEPS_FROM
    is_same = is_examined and found[LEAST] == found[GREATEST]
    size: Int = np.int64(-1)
    most, each, new = -np.inf, 0.0, np.int64(n)
    if is_examined and not is_same:
        least = min(found[BITS], min(found[BITS + 1], found[BITS + 2]))
        each, new = np.float64(least) / np.float64(n), found[NEW]
        if found[ORDER] > 0 and found[BITS_LEFT] + 16 * found[ORDER] < least:
            size = _put_predicted(room, n, work, best)
        elif n >= _MODEL_FROM:
            most = np.float64(least) * (_SMALL_BAND if each < _SMALL else 1.0)
    if is_same:
        size = _put_direct(x, work, best)
    elif what == INTEGERS and n < _MODEL_FROM and size < 0:
        size = _put_few(numbers, work, best, trial)
    for order in range(3):
        if found[BITS + order] <= most:
            if order == 0:
                shifted = room[_long(n, _SHIFTED) : _long(n, _SHIFTED) + n]
                other = _put_around(numbers, found[CENTRE], work, shifted, trial)
            else:
                other = model.encode(x, np.int64(order), work, trial)
            size = _shorter(best, size, trial, other)
    steady = is_examined and not is_same and found[STEADY] > _STEADY_SHARE * n
    if steady or (what == SPARSE and n >= _STEPS_FROM):
        size = _shorter(best, size, trial, _put_sparse(numbers, work, room, trial))
    if new <= PALETTE_MAX and n >= _MODEL_FROM and not is_same:
        size = _shorter(best, size, trial, _put_palette(numbers, work, room, size, trial))
    wild = each > _WILD_FROM and found[WILD] > n * _WILD_SHARE
    few = new < n * _FEW_SHARE and each > math.log2(np.float64(new + 1)) + 1.0
    if n < _PCO_FROM or not is_examined or is_same:
        return size, False
    return size, bool(wild or few or is_stepped(numbers, size, _STEPPED_BITS, room[_SEEN:_FLOATS]))


@step
def _long(n: Int, which: int) -> Int:
    """Where in the room something as long as the numbers begins."""
    return np.int64(_LONG + which * n)


@step
def _examine(numbers: I64, room: I64) -> None:
    n = numbers.size
    window = room[room.size - n :].view(np.float64)
    if room[_WINDOWED] != n:
        room[_WINDOWED] = n
        fill_window(window)
    signal = room[_long(n, _SIGNAL) : _long(n, _SIGNAL) + n].view(np.float64)
    rooms = signal, room[_FLOATS:_LONG].view(np.float64), room[_SEEN:_FLOATS].view(np.uint64)
    left = room[_long(n, _LEFT) : _long(n, _LEFT) + n]
    examine(numbers, window, rooms, room[:ORDER_MAX], left, room[_FOUND : _FOUND + FOUND])


@entry
def encode(numbers: I64, what: Int, work: U64, room: I64, outs: tuple[U8, U8]) -> Outcome:
    """Write a body into ``outs[0]``; for `work`, `room` and `outs` see `written`."""
    best, trial = outs
    n = numbers.size
    if what == DIRECT or (what == INTEGERS and n == 0):
        return _put_direct(numbers.view(np.uint64), work, best), ZERO, False
    at: Int = ZERO
    found = room[_FOUND : _FOUND + FOUND]
    if what == INTEGERS and n >= _STEPS_FROM:
        _examine(numbers, room)
        if found[STEP] > 1 and found[LEAST] < found[GREATEST]:
            of, rest = found[STEP], found[LEAST] % found[STEP]
            best[0] = np.uint8(STEPS)
            at = put_varint(best, put_varint(best, np.int64(1), np.uint64(of)), np.uint64(rest))
            scaled = room[_long(n, _SCALED) : _long(n, _SCALED) + n]
            for i in range(n):
                scaled[i] = (numbers[i] - rest) // of
            numbers = scaled
            _examine(numbers, room)
    size, pco = _put_best(numbers, what, work, room, best[at:], trial)
    return (at + size if size >= 0 else size), at, pco


_own = threading.local()


def rooms(n: int) -> tuple[I64, tuple[U8, U8]]:
    """Of the thread that asks, for n numbers at least."""
    found: tuple[I64, tuple[U8, U8]] | None = getattr(_own, "rooms", None)
    if found is None or found[0].size < _LONG + (_N_LONG + 1) * n:
        size = _HEADS_MAX + 2 * _EACH_MAX * n
        outs = np.empty(size, np.uint8), np.empty(size, np.uint8)
        found = _own.rooms = np.empty(_LONG + (_N_LONG + 1) * n, np.int64), outs
        found[0][_WINDOWED] = -1
    return found


def written(numbers: I64, what: int) -> tuple[bytes | None, int, I64 | None]:
    """A body of ``numbers: int64[n]``, None for none; where what follows a step begins; which numbers pco may make shorter there."""
    n = numbers.size
    room, outs = rooms(n)
    with wrapping():
        size, at, pco = encode(numbers, what, model.scratch_for(24 * n), room, outs)
    if size < 0:
        return None, 0, None
    left: I64 | None = None
    if pco:
        left = room[_LONG + _SCALED * n :][:n] if at else numbers
    return outs[0][:size].tobytes(), int(at), left
