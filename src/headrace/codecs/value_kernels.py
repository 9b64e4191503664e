"""From a body to floats in one kernel: origin, integers, and what they stand for (`headrace.codecs.origin`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.codecs.bits import I64, NO_POSITION, U8, U64, ZERO, bit_length, get_fixed, get_varint
from headrace.codecs.compiled import Int, entry, leaf, step
from headrace.codecs.integer_kernels import DAMAGED, SOUND, decode_direct
from headrace.codecs.integer_kernels import decode as decode_integers
from headrace.codecs.model import OWNER_AT
from headrace.codecs.origin_kernels import (
    AS_IS,
    AS_READ,
    BITS,
    DECIMAL,
    DIGITS_MAX,
    PRODUCT,
    SCALED,
    SINGLE,
    to_values,
)

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
Found = tuple[Int, tuple[Int, Int, bool], Int]
"""Where an origin ends, its form (`headrace.codecs.origin_kernels`), its digits."""

NEAR, FAR, NEAR_BY_NUMBER = 0x10, 0x20, 0x40
"""In the first byte of a body: which patches there are."""
FLAGS = NEAR | FAR | NEAR_BY_NUMBER

SHORT, LEVELS, WIDE = 0x80, 0x20, 0x40
"""In the first byte of an origin."""

MEMO_AT, MEMO = OWNER_AT + 1, 2048  # in the words of scratch, behind the coefficients
_STEP_AT = MEMO_AT + 2 * MEMO
_U = np.uint64
_MIX = _U(0x9E3779B185EBCA87)
_0, _1, _23, _29, _31, _32, _51, _52, _63 = (_U(i) for i in (0, 1, 23, 29, 31, 32, 51, 52, 63))
_M23, _M31, _M32, _M63 = _U((1 << 23) - 1), _U((1 << 31) - 1), _U((1 << 32) - 1), _U((1 << 63) - 1)


@leaf
def widened(bits: np.uint64) -> np.uint64:
    """The bits of a float64 that equals a float32 of these bits; what is no number is made quiet."""
    sign, exponent, rest = (bits >> _31) & _1, (bits >> _23) & _U(255), bits & _M23
    if exponent == _U(255):
        out = (_U(2047) << _52) | (rest << _29) | ((_1 << _51) if rest != _0 else _0)
    elif exponent != _0:
        out = ((exponent + _U(896)) << _52) | (rest << _29)
    elif rest == _0:
        out = _0
    else:
        top = _0
        while (rest << top) >> _23 == _0:
            top += _1
        out = ((_U(897) - top) << _52) | (((rest << top) & _M23) << _29)
    return (sign << _63) | out


@step
def _ordered_singles(x: U64) -> None:
    """Ordered bits of float32 into the bits of float64."""
    for i in range(x.size):
        bits = x[i] & _M32
        x[i] = widened(bits ^ (_M31 if bits >> _31 != _0 else _0))


@step
def _ordered(x: U64) -> None:
    """Ordered bits of float64 into their bits; its own inverse."""
    for i in range(x.size):
        x[i] ^= _M63 if x[i] >> _63 != _0 else _0


@step
def _origin(data: U8, pos: Int, work: U64) -> Found:
    """Where an origin ends, its form and digits; its step and offset lie in the words of scratch then."""
    end = data.size
    none = (np.int64(BITS), np.int64(AS_IS), False)
    if pos >= end:
        return NO_POSITION, none, ZERO
    head = np.int64(data[pos])
    pos += 1
    if head & SHORT:
        cast = (head >> 4) & 3
        kind = np.int64(PRODUCT if head & 0x40 else DECIMAL)
        return pos if cast < AS_READ or kind == DECIMAL else NO_POSITION, (kind, cast, False), head & 15
    kind, cast, is_levels = head & 7, (head >> 3) & 3, head & LEVELS != 0
    digits: Int = ZERO
    if kind in (DECIMAL, PRODUCT):
        if pos >= end:
            return NO_POSITION, none, ZERO
        digits = np.int64(data[pos])
        pos += 1
    if kind > SCALED or (cast == AS_READ and kind != DECIMAL) or digits > DIGITS_MAX:
        return NO_POSITION, none, ZERO
    if is_levels or kind == SCALED:
        size = np.int64(8 if head & WIDE else 4)
        if pos + 2 * size > end:
            return NO_POSITION, none, ZERO
        for j in range(2):
            bits = get_fixed(data, pos + j * size, size)
            work[_STEP_AT + j] = bits if size == 8 else widened(bits)
        pos += 2 * size
    return pos, (kind, cast, is_levels), digits


@step
def _to_values(numbers: I64, origin: Found, work: U64, out: F64) -> None:
    """What the numbers of an origin stand for; its step and offset lie in the words of scratch."""
    _, form, digits = origin
    kind, cast, _ = form
    x = out.view(np.uint64)
    if kind in (BITS, SINGLE):
        for i in range(x.size):
            x[i] = np.uint64(numbers[i])
    if kind == BITS:
        _ordered(x)
    elif kind == SINGLE:
        _ordered_singles(x)
    if kind != BITS and (kind != SINGLE or cast != AS_IS):
        line = work[_STEP_AT : _STEP_AT + 2].view(np.float64)
        known, value = work[MEMO_AT : MEMO_AT + MEMO], work[MEMO_AT + MEMO : MEMO_AT + 2 * MEMO]
        memo = known.view(np.int64), value.view(np.float64), work[OWNER_AT : OWNER_AT + 1].view(np.int64)
        to_values(numbers, form, digits, (line[0], line[1]), memo, out)


@leaf
def slots_for(n: Int) -> Int:
    """Slots of a table that n numbers fill to a half at most; a power of two, which `patch_room` knows too."""
    return np.int64(1) << bit_length(np.uint64(2 * n))


def patch_room(n: int) -> tuple[I64, I32]:
    """Room for the patches of n values: ``patches`` and ``known`` of `decode_floats`."""
    return np.empty(3 * n, np.int64), np.empty((1 << (2 * n).bit_length()) + n, np.int32)


@step
def _number_dense(numbers: I64, low: Int, span: Int, seen: I64, known: I32) -> Int:
    """As `_number`, of numbers from `low` to ``low + span``: each has a place of its own, so nothing is searched or guessed."""
    n = numbers.size
    table, place = known[: span + 1], known[slots_for(n) :]
    for i in range(span + 1):
        table[i] = 0
    count = _0
    for i in range(n):
        number = numbers[i]
        slot = np.uint64(number) - np.uint64(low)
        seen[count] = number  # stays where the number is new: then there is one more
        which = np.uint64(table[slot])
        which = count + _1 if which == _0 else which
        table[slot] = which
        count = max(count, which)
        place[i] = which - _1
    return np.int64(count)


@step
def _number_sparse(numbers: I64, seen: I64, known: I32) -> Int:
    """As `_number`, by a table with open addresses, since numbers may lie anywhere."""
    n = numbers.size
    slots = slots_for(n)
    mask, shift = np.uint64(slots - 1), np.uint64(65 - bit_length(np.uint64(slots)))
    table, place = known[:slots], known[slots:]
    for i in range(slots):
        table[i] = 0
    count = 0
    for i in range(n):
        number = numbers[i]
        slot = (np.uint64(number) * _MIX) >> shift
        while table[slot] != 0 and seen[table[slot] - 1] != number:
            slot = (slot + _1) & mask
        if table[slot] == 0:
            seen[count] = number
            count += 1
            table[slot] = count
        place[i] = table[slot] - 1
    return count


@step
def _number(numbers: I64, seen: I64, known: I32) -> Int:
    """Which of the numbers in `seen`, each there once, every number is: in ``known[-n:]``. Returns how many those are.

    ``seen: int64[n + 1]``; what is behind those is used up.
    """
    low = high = numbers[0]
    for i in range(numbers.size):
        low, high = min(low, numbers[i]), max(high, numbers[i])
    span = np.uint64(high) - np.uint64(low)
    if span < np.uint64(slots_for(np.int64(numbers.size))):
        return _number_dense(numbers, low, np.int64(span), seen, known)
    return _number_sparse(numbers, seen, known)


@step
def _near_by_number(
    data: U8,
    near_at: tuple[Int, Int],
    origin: Found,
    work: U64,
    numbers: I64,
    rooms: tuple[I64, I32],
    out: F64,
) -> Int:
    """Values whose numbers are known, with what is near each: once for every number that is different."""
    patches, known = rooms
    n = out.size
    seen = patches[: n + 1]  # one more, which is taken up by what comes next
    count = _number(numbers, seen, known)
    near = patches[n : n + count].view(np.uint64)
    found = decode_direct(data, near_at[0], near_at[1], work, near)
    if found != SOUND:
        return found
    values = patches[2 * n : 2 * n + count]
    _to_values(seen[:count], origin, work, values.view(np.float64))
    x, bits = out.view(np.uint64), values.view(np.uint64)
    for j in range(count):
        bits[j] += near[j]
    place = known[slots_for(n) :]
    for i in range(n):
        x[i] = bits[np.uint64(place[i])]
    return found


@step
def _put_far(data: U8, values: Int, where: I64, x: U64) -> Int:
    """Far patches: their distances, and where in the data their values are."""
    at: Int = ZERO
    for j in range(where.size):
        if where[j] < 0 or where[j] >= x.size - at:
            return DAMAGED
        at += where[j]
        x[at] = get_fixed(data, values + 8 * j, np.int64(8))
    return SOUND


@entry
def decode_floats(
    data: U8, work: U64, numbers: I64, patches: I64, known: I32, out: F64, given: bool
) -> tuple[Int, Int]:
    """The floats ``out: float64[n]`` of a body of `headrace.codecs.origin.OriginCodec`; ``numbers: int64[n]`` is room.

    ``patches`` and ``known`` are of `patch_room` where there are patches. Returns what
    `headrace.codecs.integer_kernels.decode` does, and where the integers start; with those `given` it takes them from `numbers`.
    """
    end, flags = data.size, np.int64(data[0])
    pos, form, digits = _origin(data, np.int64(1), work)
    near: Int = ZERO
    far: Int = ZERO
    far_values: Int = ZERO
    n_far: Int = ZERO
    if pos != NO_POSITION and flags & (NEAR | NEAR_BY_NUMBER):
        size, pos = get_varint(data, pos, end)
        near = pos
        pos = pos + np.int64(size) if pos != NO_POSITION and size <= np.uint64(end - pos) else NO_POSITION
    near_end = pos
    if pos != NO_POSITION and flags & FAR:
        count, pos = get_varint(data, pos, end)
        size, pos = get_varint(data, pos, end)
        far = pos
        if pos == NO_POSITION or count > np.uint64(out.size) or size > np.uint64(end - pos):
            return DAMAGED, pos
        n_far, far_values = np.int64(count), pos + np.int64(size)
        pos = far_values + 8 * n_far
    if pos == NO_POSITION or pos > end:
        return DAMAGED, pos
    origin, x = (pos, form, digits), out.view(np.uint64)
    found = SOUND if given else decode_integers(data, pos, work, x.view(np.int64), numbers)
    if found == SOUND and flags & NEAR_BY_NUMBER:
        found = _near_by_number(data, (near, near_end), origin, work, numbers, (patches, known), out)
    elif found == SOUND:
        _to_values(numbers, origin, work, out)
    if found == SOUND and flags & (NEAR | NEAR_BY_NUMBER) == NEAR:
        found = decode_direct(data, near, near_end, work, patches[: x.size].view(np.uint64))
        for i in range(x.size):
            x[i] += np.uint64(patches[i])
    if found == SOUND and flags & FAR:
        found = decode_direct(data, far, far_values, work, patches[:n_far].view(np.uint64))
        if found == SOUND:
            found = _put_far(data, far_values, patches[:n_far], x)
    return found, pos
