"""What is worth knowing of integers before they are coded: one pass each over numbers as 64-bit words."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.codecs.adaptive import decode_body
from headrace.codecs.bits import I64, NO_POSITION, U8, U64, ZERO, bit_length, get_varint, unzigzag, zigzag
from headrace.codecs.compiled import Int, entry, leaf, step
from headrace.codecs.lpc import NUMBER_MAX, ORDER_MAX, PAD, SHIFT_MAX, predictor, residuals, restore
from headrace.codecs.model import FIRST_BYTE, MODEL_WORDS, WORDS_AT
from headrace.codecs.model import decode as decode_model
from headrace.core.kernels import lean_kernel

F64 = npt.NDArray[np.float64]
_U = np.uint64
_0, _1 = _U(0), _U(1)
_MEAN_MAX = _U(1) << _U(56)
_BITS_MAX = _U(70)
_64, _MIX = _U(64), _U(0x9E3779B185EBCA87)
_SOME_FROM, _STRIDE, _STRETCH = 4_096, 1_024, 256
"""Of so many numbers a stretch of each stride is priced."""


@lean_kernel
def survey(numbers: I64, found: I64) -> float:
    """Least, greatest, and the greatest common divisor of the distances from the first, 0 for none or where 63 bits don't hold them.

    Returns about their mean.
    """
    low = high = numbers[0]
    total = 0.0
    for i in range(len(numbers)):
        low, high = min(low, numbers[i]), max(high, numbers[i])
        total += np.float64(numbers[i])
    mean = total / len(numbers)
    found[0], found[1], found[2] = low, high, 0
    if high // 4 - low // 4 >= 1 << 59:
        return mean
    divisor = np.int64(0)
    for i in range(1, len(numbers)):
        a = abs(numbers[i] - numbers[0])
        if divisor == 1:
            break
        if divisor == 0 or a % divisor != 0:
            while a != 0:
                divisor, a = a, divisor % a
    found[2] = divisor
    return mean


@leaf
def _cost(z: np.uint64, mean: np.uint64) -> np.uint64:
    """Bits of an adaptive Rice code; `mean` is the 16-fold."""
    scaled = (mean * _U(11)) >> _U(8)
    k = _U(bit_length(scaled) - 1) if scaled > _0 else _0
    return k + _1 + min(z >> k, _BITS_MAX)


@leaf
def _after(mean: np.uint64, z: np.uint64) -> np.uint64:
    return _U(mean - (mean >> _U(4)) + min(z, _MEAN_MAX))


@entry
def price(x: U64, centre: np.uint64, seen: U64, found: U64) -> None:
    """About the bits of numbers less a centre, of their differences, and of the changes of those.

    ``found: uint64[6]`` gets these three; how many numbers are new among what was ``seen: uint64[1024]``, zeros at
    first; how many differences are larger than 16 times what is usual there; and how many are the one before again.
    Of many numbers some stretches are looked at.
    """
    n = np.int64(x.size)
    m0 = m1 = m2 = _0
    b0 = b1 = b2 = new = large = again = _0
    for first in range(0, n, _STRIDE):
        for i in range(first, _stretch_end(np.int64(first), n)):
            d = x[i] - x[i - 1] if i > 0 else x[i]
            change = x[i - 1] - x[i - 2] if i > 1 else (x[0] if i == 1 else _0)
            z0, z1, z2 = zigzag(x[i] - centre), zigzag(d), zigzag(d - change)
            slot = (z0 * _MIX) >> _U(54)
            new += _0 if seen[slot] == z0 else _1
            seen[slot] = z0
            if i > 1:
                large += _1 if z1 > m1 + _64 else _0
                again += _1 if z2 == _0 else _0
                b0 += _cost(z0, m0)
                b1 += _cost(z1, m1)
                b2 += _cost(z2, m2)
                m0, m1, m2 = _after(m0, z0), _after(m1, z1), _after(m2, z2)
            else:
                m0 = z0 << _U(4)
                m1 = m2 = z1 << _U(4) if i == 1 else _0
    found[0], found[1], found[2], found[3], found[4], found[5] = b0, b1, b2, new, large, again
    for i in range(found.size):
        found[i] = _of_all(found[i], n)


@leaf
def _stretch_end(first: Int, n: Int) -> Int:
    """Where the stretch ends that begins there."""
    return min(first + np.int64(_STRIDE if n < _SOME_FROM else _STRETCH), n)


@leaf
def _of_all(count: np.uint64, n: Int) -> np.uint64:
    """What was counted in stretches of n numbers, for all of them."""
    if n < _SOME_FROM:
        return count
    whole = n // _STRIDE
    seen = whole * _STRETCH + min(n - whole * _STRIDE, np.int64(_STRETCH))
    return count * np.uint64(n) // np.uint64(seen)


@entry
def sparse(x: U64, gaps: I64, others: U64, usual: U64) -> Int:
    """What most differences are; of the others how many lie before each, and how much they are off; -1 for too many."""
    votes = 0
    usual[0] = _0
    for i in range(1, x.size):  # Boyer and Moore: who has the majority is left over
        d = x[i] - x[i - 1]
        if votes == 0:
            usual[0] = d
        votes += 1 if d == usual[0] else -1
    n, last = 0, 0
    for i in range(1, x.size):
        d = x[i] - x[i - 1]
        if d != usual[0]:
            if n == gaps.size:
                return -1
            gaps[n], others[n] = i - last - 1, d - usual[0]
            n, last = n + 1, i
    return n


@entry
def few_levels(x: I64, levels: I64, counts: I64, which: I64) -> Int:
    """The different numbers among x in the order in which they come, at most ``levels.size``; -1 where they are more.

    ``counts`` of each is filled, and ``which: int64[n]`` of them each is: found among the few from the last one on.
    """
    n: Int = ZERO
    last: Int = ZERO
    for i in range(x.size):
        if n == 0 or levels[last] != x[i]:
            last = ZERO
            while last < n and levels[last] != x[i]:
                last += 1
            if last == n:
                if n == levels.size:
                    return np.int64(-1)
                levels[n], counts[n] = x[i], 0
                n += 1
        counts[last] += 1
        which[i] = last
    return n


@entry
def price_plain(x: U64, skip: Int) -> np.uint64:
    """About the bits of residuals, but for the first ones; of the same stretches as in `price`."""
    n = np.int64(x.size)
    mean = bits = _0
    for first in range(0, n, _STRIDE):
        for i in range(max(skip, np.int64(first)), _stretch_end(np.int64(first), n)):
            z = zigzag(x[i])
            bits += _cost(z, mean)
            mean = _after(mean, z)
    return _of_all(bits, n)


@entry
def predict(
    numbers: I64, centre: Int, reach: float, window: F64, rooms: tuple[F64, F64], coefficients: I64, left: I64
) -> tuple[Int, Int, np.uint64]:
    """Order and shift of a predictor, what it leaves, and about the bits of that; order 0 where none promises enough.

    No number is further than `reach` from the centre.
    """
    order, shift = predictor(numbers, centre, window, reach, rooms, coefficients)
    if order == 0:
        return order, shift, _0
    residuals(numbers, centre, coefficients[:order], shift, reach, rooms[0], left)
    return order, shift, price_plain(left.view(np.uint64), order)


LEAST, GREATEST, STEP, CENTRE, BITS, NEW, WILD, STEADY, ORDER, SHIFT, BITS_LEFT = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    10,
    11,
    12,
)
"""Places of what `examine` finds; three of `BITS`."""
FOUND = 13


@entry
def examine(
    numbers: I64, window: F64, rooms: tuple[F64, F64, U64], coefficients: I64, left: I64, found: I64
) -> None:
    """`survey`; then `price` and `predict`, where the numbers differ by no more than a multiple of 1.

    ``rooms``: float64[n], float64[ROOM], uint64[1024]. ``coefficients: int64[ORDER_MAX]`` and ``left: int64[n]`` are filled where
    ``found[ORDER]`` is above 0.
    """
    mean = survey(numbers, found)
    low, high = found[LEAST], found[GREATEST]
    if found[STEP] > 1 or low == high:
        return
    near = low > -NUMBER_MAX and high < NUMBER_MAX
    centre = np.int64(np.rint(mean)) if near else low
    found[CENTRE] = centre
    seen = rooms[2]
    for i in range(seen.size):
        seen[i] = _0
    price(numbers.view(np.uint64), np.uint64(centre), seen, found[BITS : STEADY + 1].view(np.uint64))
    found[ORDER] = 0
    if near:
        reach = np.float64(max(high - centre, centre - low))
        order, shift, bits = predict(numbers, centre, reach, window, (rooms[0], rooms[1]), coefficients, left)
        found[ORDER], found[SHIFT], found[BITS_LEFT] = order, shift, np.int64(bits)


SOUND, DAMAGED, ELSEWHERE = range(3)
"""What a body is: read, no such body, or one that has a part which is no kernel's."""

_PALETTE, _ADAPTIVE, _CENTRED, _STEPS, _SPARSE, _AROUND, _SAME = 0, 2, 3, 4, 5, 6, 7


COEFFICIENTS_AT = MODEL_WORDS
"""Where in the words of scratch coefficients lie, behind the model; and behind them the same as floats."""


@entry
def decode(data: U8, pos: Int, work: U64, places: I64, out: I64) -> Int:
    """The numbers of a body of steps, sparse, palette, centred or direct, one in the other (`headrace.codecs.integers`).

    From `pos` on; `work` is of `headrace.codecs.model.scratch_for`, ``places: int64[n]`` are needed for the first three.
    """
    end = data.size
    step, rest = _1, _0
    if pos < end and data[pos] == _STEPS:
        step, pos = get_varint(data, pos + 1, end)
        rest, pos = get_varint(data, pos, end)
        if pos == NO_POSITION or max(step, rest) >> _U(62) != _0:
            return DAMAGED
    if pos < end and data[pos] == _SPARSE:
        found = _sparse(data, pos + 1, end, work, places, out)
    elif pos < end and data[pos] == _PALETTE:
        found = _palette(data, pos + 1, end, work, places, out)
    else:
        found = _part(data, pos, end, work, out)
    if found == SOUND and (step != _1 or rest != _0):
        x = out.view(np.uint64)
        for i in range(out.size):
            x[i] = rest + step * x[i]
    return found


@step
def decode_direct(data: U8, pos: Int, end: Int, work: U64, x: U64) -> Int:
    """By a coder that needs no other."""
    if pos >= end:
        return DAMAGED
    if data[pos] >= FIRST_BYTE:
        return SOUND if decode_model(data, pos, end, work, x) else DAMAGED
    if data[pos] == _ADAPTIVE:
        return SOUND if decode_body(data, pos + 1, end, work[WORDS_AT:], x) else DAMAGED
    if data[pos] == _SAME:
        number, at = get_varint(data, pos + 1, end)
        for i in range(x.size):
            x[i] = unzigzag(number)
        return SOUND if at == end else DAMAGED
    return ELSEWHERE


@step
def _centred(data: U8, pos: Int, end: Int, work: U64, out: I64) -> Int:
    """Around a centre, what a linear prediction leaves."""
    if pos + 3 > end:
        return DAMAGED
    is_around = data[pos] == _AROUND
    order = ZERO if is_around else np.int64(data[pos + 1])
    shift = ZERO if is_around else np.int64(data[pos + 2])
    pos += 1 if is_around else 3
    if order > ORDER_MAX or shift > SHIFT_MAX or pos + 2 * order > end:
        return DAMAGED
    coefficients = work[COEFFICIENTS_AT : COEFFICIENTS_AT + order + PAD].view(np.int64)
    for k in range(PAD):
        coefficients[order + k] = 0
    for k in range(order):
        low = np.int64(data[pos + 2 * k]) | (np.int64(data[pos + 2 * k + 1]) << 8)
        coefficients[k] = low - ((low & 0x8000) << 1)
    centre, pos = get_varint(data, pos + 2 * order, end)
    if pos == NO_POSITION:
        return DAMAGED
    found = decode_direct(data, pos, end, work, out.view(np.uint64))
    if found == SOUND:
        floats = work[COEFFICIENTS_AT + ORDER_MAX + PAD : COEFFICIENTS_AT + 2 * (ORDER_MAX + PAD)].view(
            np.float64
        )
        restore(out, np.int64(unzigzag(centre)), coefficients, order, shift, floats)
    return found


@step
def _part(data: U8, pos: Int, end: Int, work: U64, out: I64) -> Int:
    if pos < end and (data[pos] == _CENTRED or data[pos] == _AROUND):
        return _centred(data, pos, end, work, out)
    return decode_direct(data, pos, end, work, out.view(np.uint64))


@step
def _palette(data: U8, pos: Int, end: Int, work: U64, room: I64, out: I64) -> Int:
    """Numbers of which few are different."""
    x = out.view(np.uint64)
    count, pos = get_varint(data, pos, end)
    size, pos = get_varint(data, pos, end)
    if pos == NO_POSITION or count > np.uint64(room.size) or size > np.uint64(end - pos):
        return DAMAGED
    middle = pos + np.int64(size)
    levels = room[: np.int64(count)].view(np.uint64)
    found = decode_direct(data, pos, middle, work, levels)
    if found == SOUND:
        found = decode_direct(data, middle, end, work, x)
    if found != SOUND:
        return found
    for i in range(x.size):
        which = zigzag(x[i])
        if which >= count:
            return DAMAGED
        x[i] = levels[which]
    return SOUND


@step
def _sparse(data: U8, pos: Int, end: Int, work: U64, room: I64, out: I64) -> Int:
    """Numbers that rise by the same but at some places."""
    x = out.view(np.uint64)
    first, pos = get_varint(data, pos, end)
    usual, pos = get_varint(data, pos, end)
    count, pos = get_varint(data, pos, end)
    size, pos = get_varint(data, pos, end)
    if pos == NO_POSITION or count >= np.uint64(x.size) or size > np.uint64(end - pos):
        return DAMAGED
    n, middle = np.int64(count), pos + np.int64(size)
    places = room[:n]
    if n > 0 or pos < end:
        found = _part(data, pos, middle, work, places)
        if found == SOUND:
            found = _part(data, middle, end, work, out[:n])
        if found != SOUND:
            return found
    at: Int = ZERO
    for j in range(n):  # from 0 on: the place of difference i is i + 1
        if places[j] < 0 or places[j] >= out.size - at:
            return DAMAGED
        at += places[j] + 1
        places[j] = at
    if at >= out.size:
        return DAMAGED
    for i in range(out.size - 1, 0, -1):
        more = _0
        if n > 0 and places[n - 1] == i:
            n -= 1
            more = x[n]
        x[i] = unzigzag(usual) + more
    x[0] = unzigzag(first)
    for i in range(1, out.size):
        x[i] += x[i - 1]
    return SOUND
