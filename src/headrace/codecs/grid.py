"""Float columns: the integers behind them.

Most sensor floats were decimals or ADC counts once. A float column starts with one form byte::

    bits 0-3  digits    0: ordered bits; 1 + k: decimals of k digits (0 to 9)
    bit  4    single    the decimal was rounded to float32
    bit  5    patches   follow: numbers that are not the decimal
    bit  6    product   y * 10**-k instead of y / 10**k

* *decimal*: value = y / 10**k, a correctly rounded float64 division, or where *product* y times the float64
  next to 10**-k, as a device that scales registers computes it; then rounded to float32 where *single* (always
  so for float32 columns). y is an integer column (`headrace.codecs.columns`), 8 bytes wide. The patch list
  before it is a varint with the number of patches, then for each the varint ``distance << 2 | kind`` from the
  last patch (the first from -1) and: *near* (kind 0) a signed varint, how many floats further the number is;
  *new* (1) the float's own bytes; *again* (2) nothing, the bits of the last new one.
* *ordered bits*: the IEEE bits as a signed integer, with all but the sign flipped for negatives, so that
  neighbouring floats are neighbouring integers; an integer column of the float's width.

NaN with any payload, infinities, -0.0 and subnormals are patches or bits, and come back bit for bit.
Throughout, a float32 travels as its 32 bits, sign-extended to 64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.codecs.bits import (
    NO_POSITION,
    U8,
    U64,
    ZERO,
    extend_sign,
    get_fixed,
    get_varint,
    put_fixed,
    put_varint,
    unzigzag,
    zigzag,
)
from headrace.codecs.columns import (
    LANES,
    Scratch,
    get_column,
    get_constant,
    is_constant,
    new_scratch,
    put_column,
    put_constant,
    put_plain,
    room_for,
)
from headrace.codecs.compiled import Int, glue, leaf, step

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

DIGITS_MAX = 9
SINGLE, PATCHES, PRODUCT = 0x10, 0x20, 0x40

_ORDERED, _DIGITS = 0, 0x0F
_NONE = -1
_NEAR, _NEW, _AGAIN = np.uint64(0), np.uint64(1), np.uint64(2)
_POWERS = np.array([10.0**k for k in range(DIGITS_MAX + 1)])
_TENTHS = np.array([float(f"1e-{k}") for k in range(DIGITS_MAX + 1)])
_TO_INTEGER = 6755399441055744.0  # 1.5 * 2**52: adding and taking it away rounds to an integer
_LIMIT, _LIMIT_SINGLE = 2.0**44, 2.0**20  # far above, any float is near some decimal
_NEARNESS, _NEARNESS_SINGLE = 2.0**-51, 2.0**-22  # a few floats beside
_LARGEST = float(np.finfo(np.float64).max)
_MAGNITUDE_64, _MAGNITUDE_32 = np.uint64(0x7FFFFFFFFFFFFFFF), np.uint64(0x7FFFFFFF)
_0, _1, _2, _3, _63 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(63)


class FloatScratch(NamedTuple):
    """Room for float columns: integers `x`, the numbers, one number, and what integer columns need.

    `x` and `one` are each seen as uint64, as float64, and as float32 (of which the even ones count); `halves`
    are those of `x` as int32.
    """

    x: U64
    doubles: F64
    singles: F32
    halves: I32
    values: F64
    one: U64
    one_double: F64
    one_single: F32
    integers: Scratch


def new_float_scratch(n: int) -> FloatScratch:
    """Room for columns of up to n floats, or integers."""
    size = room_for(n) + 2 * LANES
    x, one = np.zeros(size, np.uint64), np.zeros(1, np.uint64)
    return FloatScratch(
        x=x,
        doubles=x.view(np.float64),
        singles=x.view(np.float32),
        halves=x.view(np.int32),
        values=np.zeros(size),
        one=one,
        one_double=one.view(np.float64),
        one_single=one.view(np.float32),
        integers=new_scratch(n),
    )


@leaf
def _is_near(value: float, digits: Int, single: bool) -> bool:
    """Whether `value` is, but for a few floats, an integer / 10**digits."""
    scaled = value * _POWERS[digits]
    back = ((scaled + _TO_INTEGER) - _TO_INTEGER) / _POWERS[digits]
    if single:
        return bool(abs(scaled) < _LIMIT_SINGLE and abs(back - value) <= abs(value) * _NEARNESS_SINGLE)
    return bool(abs(scaled) < _LIMIT and abs(back - value) <= abs(value) * _NEARNESS)


@leaf
def _is_off_grid(value: float, single: bool) -> bool:
    """Whether `value` is near no decimal: whatever is near one is near those of more digits, up to the limit."""
    limit = _LIMIT_SINGLE if single else _LIMIT
    digits: Int = DIGITS_MAX
    while digits > 0 and abs(value) * _POWERS[digits] >= limit:
        digits -= 1
    return not _is_near(value, digits, single)


@step
def _fit(values: F64, n: Int, single: bool, tally: U64) -> Int:
    """Digits of the grid of most of values[:n], or `_NONE`.

    A number costs a try at the digits that were seen twice; one with more digits than the rest is left to
    the patches. Gives up after a few numbers that have no grid.
    """
    for k in range(DIGITS_MAX + 1):
        tally[k] = _0
    usual: Int = ZERO
    misses = 0
    for i in range(n):
        value = values[i]
        if not abs(value) <= _LARGEST:
            continue
        digits: Int = usual
        if not _is_near(value, usual, single):
            digits = DIGITS_MAX + 1 if _is_off_grid(value, single) else ZERO
            while digits <= DIGITS_MAX and not _is_near(value, digits, single):
                digits += 1
        if digits > DIGITS_MAX:
            misses += 1
            if misses * 4 > i + 8:
                return _NONE
        else:
            tally[digits] += _1
            if tally[digits] == _2:
                usual = max(usual, digits)
    return _cheapest(tally, n)


@leaf
def _cheapest(tally: U64, n: Int) -> Int:
    """Digits that cost least: 10/3 bits a digit and number, 72 bits a patch."""
    best = _NONE
    best_cost: Int = 0
    patched: Int = 0
    for digits in range(DIGITS_MAX, -1, -1):
        cost = patched * 72 + n * digits * 10 // 3
        count = np.int64(tally[digits])
        if count > 0 and (best == _NONE or cost < best_cost):
            best, best_cost = digits, cost
        patched += count
    return best


@leaf
def _load_values(bits: U64, n: Int, width: Int, room: FloatScratch) -> None:
    """room.values[:n]: the floats of the bits, as float64."""
    for i in range(n):
        room.x[i] = bits[i]
    for i in range(n):
        room.values[i] = room.doubles[i] if width == 8 else np.float64(room.singles[2 * i])


@leaf
def _decimal(whole: float, digits: Int, single: bool, product: bool) -> float:
    """The number that an integer stands for."""
    value = whole * _TENTHS[digits] if product else whole / _POWERS[digits]
    return np.float64(np.float32(value)) if single else value


@step
def _to_integers(bits: U64, n: Int, form: Int, room: FloatScratch) -> Int:
    """room.x[:n]: the integers; z[:n]: 1 where the number is not exactly its decimal; returns how many are not."""
    values, x, z = room.values, room.x, room.integers.z
    digits, single, product = (form & _DIGITS) - 1, form & SINGLE != 0, form & PRODUCT != 0
    power = _POWERS[digits]
    limit = _LIMIT_SINGLE if single else _LIMIT
    beside = _0
    for i in range(n):
        scaled = values[i] * power
        whole = ((scaled if abs(scaled) < limit else 0.0) + _TO_INTEGER) - _TO_INTEGER
        x[i] = np.uint64(np.int64(whole))
        exact = _decimal(whole, digits, single, product) == values[i] and (x[i] != _0 or bits[i] == _0)
        z[i] = _0 if exact else _1
        beside += z[i]
    return np.int64(beside)


@step
def _sort_out(bits: U64, n: Int, width: Int, form: Int, room: FloatScratch) -> Int:
    """z[:n] of what is no decimal: 1 near it, 2 far from it (x then repeats the integer before).

    Returns how many far ones have other bits than the far one before.
    """
    values, x, z = room.values, room.x, room.integers.z
    digits, single, product = (form & _DIGITS) - 1, form & SINGLE != 0, form & PRODUCT != 0
    nearness = _NEARNESS_SINGLE if single else _NEARNESS
    new = 0
    last_far = ~bits[0]
    last = _0
    for i in range(n):
        if z[i] != _0:
            off = abs(_decimal(np.float64(np.int64(x[i])), digits, single, product) - values[i])
            if not off <= abs(values[i]) * nearness:
                z[i] = _2
                x[i] = last
                new += 1 if new == 0 or bits[i] != last_far else 0
                last_far = bits[i]
        last = x[i]
    return new


@step
def _put_patches(
    bits: U64, n: Int, form: Int, width_count: tuple[Int, Int], room: FloatScratch, out: U8, pos: Int
) -> Int:
    x, z = room.x, room.integers.z
    digits, single, product = (form & _DIGITS) - 1, form & SINGLE != 0, form & PRODUCT != 0
    width, count = width_count
    pos = put_varint(out, pos, np.uint64(count))
    at: Int = -1
    far = False
    last = _0
    for i in range(n):
        if z[i] == _0:
            continue
        distance = np.uint64(i - at) << _2
        at = i
        if z[i] == _1:
            decimal = _bits_of(_decimal(np.float64(np.int64(x[i])), digits, single, product), width, room)
            pos = put_varint(out, pos, distance | _NEAR)
            pos = put_varint(out, pos, zigzag(_order(bits[i], width) - _order(decimal, width)))
        elif far and bits[i] == last:
            pos = put_varint(out, pos, distance | _AGAIN)
        else:
            pos = put_varint(out, pos, distance | _NEW)
            pos = put_fixed(out, pos, bits[i], width)
            far, last = True, bits[i]
    return pos


@leaf
def _bits_of(value: float, width: Int, room: FloatScratch) -> np.uint64:
    if width == 8:
        room.one_double[0] = value
    else:
        room.one_single[0] = np.float32(value)
    return extend_sign(room.one[0], width)


@leaf
def _order(bits: np.uint64, width: Int) -> np.uint64:
    """Bits whose order is that of the floats; its own inverse."""
    sign = ~(bits >> _63) + _1
    return bits ^ (sign & (_MAGNITUDE_64 if width == 8 else _MAGNITUDE_32))


@leaf
def _choose_form(bits: U64, n: Int, width: Int, room: FloatScratch) -> tuple[Int, Int]:
    """The form byte but for patches, with room.x and z to it, and how many numbers need a patch."""
    form: Int = _ORDERED
    for attempt in range(2):
        single = width == 4 or attempt == 1
        digits = _fit(room.values, n, single, room.integers.z)
        if digits != _NONE:
            form = digits + 1 | (SINGLE if single else 0)
        if single or digits != _NONE:
            break
    if form == _ORDERED:
        return form, 0
    beside = _to_integers(bits, n, form, room)
    if beside * 8 > n:
        others = _to_integers(bits, n, form | PRODUCT, room)
        if others < beside:
            return form | PRODUCT, others
        _to_integers(bits, n, form, room)
    return form, beside


@step
def _put_single(bits: np.uint64, value: float, out: U8, pos: Int) -> Int:
    """Encode one float64, as a window's aggregate is; `NO_POSITION` for a float32, which may have a grid of its own.

    What a survey of many numbers finds costs more than it saves here: the digits are tried one after the other.
    """
    form: Int = _ORDERED
    base = _order(bits, np.int64(8))
    if abs(value) < _LIMIT and not _is_off_grid(value, False):
        digits: Int = ZERO
        while digits <= DIGITS_MAX and abs(value) * _POWERS[digits] < _LIMIT:
            whole = (value * _POWERS[digits] + _TO_INTEGER) - _TO_INTEGER
            if whole / _POWERS[digits] == value and (whole != 0.0 or bits == _0):
                form, base = digits + 1, np.uint64(np.int64(whole))
                break
            digits += 1
    elif np.float64(np.float32(value)) == value:
        return NO_POSITION
    out[pos] = np.uint8(form)
    return put_constant(out, pos + 1, base)


@glue
def put_float_column(bits: U64, n: Int, width: Int, out: U8, pos: Int, room: FloatScratch) -> Int:
    """Encode the floats whose bits are bits[:n] at `pos`; returns the end.

    Needs one byte beside what `put_column` needs, and for a while 16 a number.
    """
    if n == 0:
        return pos
    x = room.x
    _load_values(bits, n, width, room)
    if n == 1 and width == 8:
        end = _put_single(bits[0], room.values[0], out, pos)
        if end != NO_POSITION:
            return end
    form, beside = _choose_form(bits, n, width, room)
    new = _sort_out(bits, n, width, form, room) if beside > 0 else 0
    if form != _ORDERED and new * 4 <= n:
        end = pos + 1
        if beside > 0:
            form |= PATCHES
            end = _put_patches(bits, n, form, (width, beside), room, out, end)
        out[pos] = np.uint8(form)
        end = put_column(x, n, np.int64(8), out, end, room.integers)
        if end - pos <= n * width:
            return end
    out[pos] = np.uint8(_ORDERED)
    for i in range(n):
        x[i] = _order(bits[i], width)
    return put_column(x, n, width, out, pos + 1, room.integers)


@step
def put_plain_floats(bits: U64, n: Int, width: Int, out: U8, pos: Int) -> Int:
    """Write bits[:n] as a raw column of ordered bits; the bits are used up."""
    if n == 0:
        return pos
    out[pos] = np.uint8(_ORDERED)
    for i in range(n):
        bits[i] = _order(bits[i], width)
    return put_plain(bits, n, width, out, pos + 1)


@step
def _skip_patches(data: U8, pos: Int, end: Int, n: Int, width: Int) -> Int:
    """Check a patch list; returns the position after it, or `NO_POSITION`."""
    count, pos = get_varint(data, pos, end)
    at: Int = -1
    far = False
    while pos != NO_POSITION and count != _0:
        number, pos = get_varint(data, pos, end)
        distance, kind = number >> _2, number & _3
        if kind == _NEAR:
            _, pos = get_varint(data, pos, end)
        elif kind == _NEW:
            pos = pos + width if pos != NO_POSITION and pos + width <= end else NO_POSITION
            far = True
        if pos == NO_POSITION or distance == _0 or distance > np.uint64(n - 1 - at):
            return NO_POSITION
        if kind == _3 or (kind == _AGAIN and not far):
            return NO_POSITION
        at += np.int64(distance)
        count -= _1
    return pos


@step
def _patch(data: U8, pos: Int, end: Int, width: Int, bits: U64) -> None:
    """Apply a patch list that was checked."""
    count, pos = get_varint(data, pos, end)
    at: Int = -1
    last = _0
    for _ in range(np.int64(count)):
        number, pos = get_varint(data, pos, end)
        at += np.int64(number >> _2)
        if number & _3 == _NEAR:
            further, pos = get_varint(data, pos, end)
            bits[at] = _order(_order(bits[at], width) + unzigzag(further), width)
            continue
        if number & _3 == _NEW:
            last = extend_sign(get_fixed(data, pos, width), width)
            pos += width
        bits[at] = last


@step
def _from_integers(n: Int, form: Int, width: Int, room: FloatScratch) -> None:
    """room.x[:n] become the bits of the numbers that they stand for."""
    x, halves = room.x, room.halves
    digits, single, product = (form & _DIGITS) - 1, form & SINGLE != 0, form & PRODUCT != 0
    if width == 8:
        for i in range(n):
            room.doubles[i] = _decimal(np.float64(np.int64(x[i])), digits, single, product)
    else:
        for i in range(n):
            room.singles[2 * i] = np.float32(_decimal(np.float64(np.int64(x[i])), digits, False, product))
            halves[2 * i + 1] = halves[2 * i] >> 31


@glue
def get_float_column(data: U8, pos: Int, end: Int, n: Int, width: Int, room: FloatScratch) -> bool:
    """Decode data[pos:end] into the bits room.x[:n]; False where it is not exactly a column of n floats."""
    x, scratch = room.x, room.integers
    if n == 0 or pos >= end:
        return n == 0 and pos == end
    form = np.int64(data[pos])
    pos += 1
    if n == 1 and width == 8 and form <= DIGITS_MAX + 1 and is_constant(data, pos, end):
        base = get_constant(data, pos, end)
        if form == _ORDERED:
            x[0] = _order(base, width)
        else:
            room.doubles[0] = np.float64(np.int64(base)) / _POWERS[form - 1]
        return True
    if form == _ORDERED:
        if not get_column(data, pos, end, n, width, x, scratch):
            return False
        for i in range(n):
            x[i] = _order(extend_sign(x[i], width), width)
        return True
    digits = (form & _DIGITS) - 1
    if digits < 0 or digits > DIGITS_MAX or form > 0x7F or (width == 4 and not form & SINGLE):
        return False
    patches = pos
    if form & PATCHES:
        pos = _skip_patches(data, pos, end, n, width)
    if pos == NO_POSITION or not get_column(data, pos, end, n, np.int64(8), x, scratch):
        return False
    _from_integers(n, form, width, room)
    if form & PATCHES:
        _patch(data, patches, end, width, x)
    return True
