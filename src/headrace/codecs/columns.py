"""Integer columns: n numbers of one sensor, in as few bytes as a cheap survey finds.

A column is one tag byte and what it asks for::

    bits 0-2  mode      0 raw, 1 constant, 2 linear, 3 changes, 4, 5, 6 rice of order 0, 1, 2
    bit  3    step      a varint follows: all differences are multiples of it
    bits 4-6  base      bytes of the first number, less one; sign-extended
    bit  7    bias      a signed varint follows
    base, then step and bias where flagged, then the mode's own bytes

With y = (x - base) / step (so y[0] = 0, everything modulo 2**64) the modes say:

* *raw*: no base; each number in its own width.
* *constant*: y = 0.
* *linear*: y[i] = i * bias.
* *changes*: y stays but at some places: a varint with their number, then for each the varint of the distance
  from the last place and the signed varint of the change.
* *rice*: one byte k, then Rice bits (`headrace.codecs.bits`) of the zigzag residuals r[1:], where y[i] is
  ``r[i] + bias`` (order 0), ``y[i-1] + r[i] + bias`` (order 1), and of order 2 the slope starts as bias:
  ``slope += r[i]; y[i] = y[i-1] + slope``.

Numbers are 64 bits here; narrower ones are sign- or zero-extended on the way in and cut on the way out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.codecs.bits import (
    ESCAPE,
    NO_POSITION,
    U8,
    U64,
    bit_length,
    extend_sign,
    get_fixed,
    get_varint,
    get_word,
    put_fixed,
    put_varint,
    put_word,
    rice_bits,
    rice_pack,
    rice_unpack,
    trailing_zeros,
    unzigzag,
    varint_size,
    zigzag,
)
from headrace.codecs.compiled import Int, leaf, step

_I = np.int64  # constants of this type are no literals, so callees are compiled once
RAW, CONSTANT, LINEAR, CHANGES, RICE = _I(0), _I(1), _I(2), _I(3), _I(4)
STEP, BIAS = 0x08, 0x80
HEAD_SIZE_MAX = 32
"""Tag, base, step, bias and k never need more."""

_U = np.uint64
_0, _1, _2, _3, _63 = _U(0), _U(1), _U(2), _U(3), _U(63)
_ESCAPE, _DEAR = _U(ESCAPE), _U(2 * ESCAPE)
_K_MAX = 56


class Scratch(NamedTuple):
    """Room that one call hands down to every column.

    ``d: uint64`` differences and ``z: uint64`` zigzag residuals, both followed by zeros up to a multiple of
    `LANES`, so that a loop over them has no remainder; ``words: uint64`` of a Rice stream.
    """

    d: U64
    z: U64
    words: U64


LANES = 32
"""Numbers that a compiled loop takes at once; a remainder would cost more than the loop."""


def room_for(n: Int) -> Int:
    """n, up to a multiple of `LANES`. For callers that are not compiled: `padded` would be, for them alone."""
    return (n + LANES - 1) // LANES * LANES


padded = leaf(room_for)
"""The same in kernels."""


def new_scratch(n: int) -> Scratch:
    """Room for columns of up to n numbers: the longest Rice stream, and words to read past it."""
    size = room_for(n) + LANES
    words = (n * (_K_MAX + 1 + ESCAPE)) // 64 + 4
    return Scratch(np.zeros(size, np.uint64), np.zeros(size, np.uint64), np.zeros(words, np.uint64))


@leaf
def _magnitude(value: np.uint64, cap: np.uint64) -> np.uint64:
    """|value| of a signed number, capped so that sums hold."""
    return min(_absolute(value), cap)


@leaf
def _cap(size: Int) -> np.uint64:
    """The largest magnitude of which `size` can be summed."""
    return _1 << np.uint64(62 - bit_length(np.uint64(size)))


@leaf
def _absolute(value: np.uint64) -> np.uint64:
    sign = ~(value >> _63) + _1
    return (value ^ sign) - sign


@leaf
def _differences(x: U64, n: Int, d: U64) -> Int:
    """d[i] = x[i+1] - x[i] for i < n-1, then zeros; x is filled up with its last number. Returns the padded length."""
    size = padded(n)
    last = x[n - 1]
    for i in range(n, size + 1):
        x[i] = last
    for i in range(size):
        d[i] = x[i + 1] - x[i]
    d[size] = _0
    return size


@leaf
def _survey(d: U64, size: Int) -> tuple[np.uint64, np.uint64, Int]:
    """Sum of |d|, the smallest |d| but 0, and how many are not 0."""
    total = changes = _0
    smallest = cap = _cap(size)
    for i in range(size):
        a = _magnitude(d[i], cap)
        total += a
        changes += min(a, _1)
        smallest = min(smallest, a - _1)
    return total, smallest + _1, np.int64(changes)


@leaf
def _bends(d: U64, n: Int, size: Int) -> np.uint64:
    """Sum of |d[i+1] - d[i]|."""
    total = _0
    cap = _cap(size)
    for i in range(size):
        total += _magnitude(d[i + 1] - d[i], cap)
    return total - _magnitude(d[n - 2], cap)


@leaf
def _divisor(number: np.uint64) -> tuple[np.uint64, np.uint64, np.uint64]:
    """What dividing by `number` > 0 takes without a division: shift, inverse of the odd part, largest quotient.

    The inverse is modulo 2**64; only multiples have a quotient up to the largest (Granlund and Montgomery,
    Division by invariant integers using multiplication, 1994, section 9).
    """
    shift = np.uint64(trailing_zeros(number))
    odd = number >> shift
    inverse = (odd * _3) ^ _2
    for _ in range(4):
        inverse *= _2 - odd * inverse
    return shift, inverse, ~_0 // odd


@leaf
def _common_step(d: U64, n: Int) -> np.uint64:
    """The greatest common divisor of all differences, which are not all 0."""
    g = shift = inverse = largest = _0
    for i in range(n - 1):
        a = _absolute(d[i])
        if a == _0 or (g != _0 and (a >> shift) << shift == a and (a >> shift) * inverse <= largest):
            continue
        while a != _0:
            g, a = a, g % a
        if g == _1:
            break
        shift, inverse, largest = _divisor(g)
    return g


@leaf
def _divide(x: U64, d: U64, n: Int, number: np.uint64) -> None:
    """Make d and x those of y."""
    shift, inverse, _ = _divisor(number)
    y = _0
    for i in range(n - 1):
        x[i] = y
        d[i] = np.uint64(np.int64(d[i]) >> np.int64(shift)) * inverse
        y += d[i]
    for i in range(n - 1, padded(n) + 1):
        x[i] = y


@leaf
def _divided(value: np.uint64, n: Int) -> np.uint64:
    """A signed number / n, cut."""
    quotient = _absolute(value) // np.uint64(n)
    return ~quotient + _1 if value >> _63 else quotient


@leaf
def _choose_order(x: U64, d: U64, n: Int, total: np.uint64) -> tuple[Int, np.uint64, np.uint64]:
    """The order with the smallest residuals, its bias, and the sum of their magnitudes.

    A bias costs a byte or two, so it has to win by an eighth.
    """
    size = padded(n)
    base, last = x[0], x[n - 1]
    area = _0
    for i in range(size):
        area += x[i] - base
    centre = _divided(area - np.uint64(size - n) * (last - base), n)
    drift = _divided(last - base, n - 1)
    middle = base + centre
    level = slope = _0
    cap = _cap(size)
    for i in range(size):
        level += _magnitude(x[i + 1] - middle, cap)
        slope += _magnitude(d[i] - drift, cap)
    level -= np.uint64(size - n + 1) * _magnitude(last - middle, cap)
    slope -= np.uint64(size - n + 1) * _magnitude(drift, cap)
    bends = _bends(d, n, size)
    order, bias, best = 1, _0, total
    if slope < best - (best >> _3):
        bias, best = drift, slope
    if level < best - (best >> _3):
        order, bias, best = 0, centre, level
    if bends < best - (best >> _3):
        order, bias, best = 2, d[0], bends
    return order, bias, best


@leaf
def _residuals(x: U64, d: U64, n: Int, order: Int, bias: np.uint64, z: U64) -> None:
    """z[:n-1]: zigzag residuals, then zeros."""
    size = padded(n)
    if order == 0:
        middle = x[0] + bias
        for i in range(size):
            z[i] = zigzag(x[i + 1] - middle)
    elif order == 1:
        for i in range(size):
            z[i] = zigzag(d[i] - bias)
    else:
        for i in range(size):
            z[i + 1] = zigzag(d[i + 1] - d[i])
        z[0] = _0
    for i in range(n - 1, size):
        z[i] = _0


@leaf
def _cost(z: U64, size: Int, m: Int, k: Int) -> np.uint64:
    """About the bits of z with parameter k; an escaped number counts as twice the escape."""
    shift = np.uint64(k)
    high = _0
    for i in range(size):
        high += min(z[i] >> shift, _DEAR)
    return high + np.uint64(m) * (shift + _1)


@leaf
def _choose_k(z: U64, m: Int, total: np.uint64) -> Int:
    """The cheapest Rice parameter up to what the mean asks for.

    A few outliers raise the mean, so smaller ones are tried until they cost a byte a number more.
    """
    size = padded(m)
    top: Int = bit_length(total // np.uint64(m)) + 1
    if top > _K_MAX:
        top = _K_MAX
    k: Int = top
    cost = _cost(z, size, m, top)
    for smaller in range(top - 1, -1, -1):
        next_cost = _cost(z, size, m, smaller)
        if next_cost < cost:
            k, cost = smaller, next_cost
        elif next_cost > cost + np.uint64(8 * m):
            break
    return k


@leaf
def _escaped_size(z: U64, m: Int, k: Int) -> Int:
    """Bytes of the escaped numbers."""
    size: Int = 0
    for i in range(m):
        if z[i] >> np.uint64(k) >= _ESCAPE:
            size += varint_size(z[i])
    return size


@leaf
def _changes_size(d: U64, n: Int, limit: Int) -> Int:
    """Bytes of the list of changes; more than `limit` where it is not worth counting on."""
    size: Int = 2
    last: Int = -1
    for i in range(n - 1):
        if d[i] != _0:
            size += varint_size(np.uint64(i - last)) + varint_size(zigzag(d[i]))
            last = i
            if size > limit:
                break
    return size


@leaf
def _put_changes(d: U64, n: Int, changes: Int, out: U8, pos: Int) -> Int:
    pos = put_varint(out, pos, np.uint64(changes))
    last: Int = -1
    for i in range(n - 1):
        if d[i] != _0:
            pos = put_varint(out, pos, np.uint64(i - last))
            pos = put_varint(out, pos, zigzag(d[i]))
            last = i
    return pos


@leaf
def _put_rice(z: U64, m: Int, cost: tuple[Int, Int, Int], words: U64, out: U8, pos: Int) -> Int:
    k, bits, escapes = cost
    out[pos] = np.uint8(k)
    pos += 1
    rice_pack(z, m, k, words)
    size = (bits + 7) >> 3
    for w in range((size + 7) >> 3):
        put_word(out, pos + 8 * w, words[w])
    pos += size
    for i in range(m if escapes > 0 else 0):
        if z[i] >> np.uint64(k) >= _ESCAPE:
            pos = put_varint(out, pos, z[i])
    return pos


@leaf
def _base_size(base: np.uint64) -> Int:
    """Bytes that hold `base` with its sign."""
    return (bit_length(zigzag(base)) + 7) >> 3 if base != _0 else 1


@leaf
def _put_head(out: U8, pos: Int, mode: np.int64, base: np.uint64, step: np.uint64, bias: np.uint64) -> Int:
    n_bytes = _base_size(base)
    tag = mode | (n_bytes - 1) << 4 | (STEP if step != _1 else 0) | (BIAS if bias != _0 else 0)
    out[pos] = np.uint8(tag)
    pos = put_fixed(out, pos + 1, base, n_bytes)
    if step != _1:
        pos = put_varint(out, pos, step)
    if bias != _0:
        pos = put_varint(out, pos, zigzag(bias))
    return pos


@leaf
def put_constant(out: U8, pos: Int, number: np.uint64) -> Int:
    """Write a column that is `number` throughout; returns the end."""
    return _put_head(out, pos, CONSTANT, number, _1, _0)


@leaf
def is_constant(data: U8, pos: Int, end: Int) -> bool:
    """Whether data[pos:end] is what `put_constant` writes."""
    return bool(pos < end and data[pos] & 0x8F == CONSTANT and end - pos == (data[pos] >> 4) + 2)


@leaf
def get_constant(data: U8, pos: Int, end: Int) -> np.uint64:
    """The number of a column that `is_constant`."""
    return extend_sign(get_fixed(data, pos + 1, end - pos - 1), end - pos - 1)


@step
def put_plain(x: U64, n: Int, width: Int, out: U8, pos: Int) -> Int:
    """Write x[:n] as a raw column at `pos`; returns the end."""
    if n == 0:
        return pos
    out[pos] = np.uint8(RAW)
    pos += 1
    if width == 8:
        for i in range(n):
            put_word(out, pos + 8 * i, x[i])
    else:
        for i in range(n):
            put_fixed(out, pos + width * i, x[i], width)
    return pos + width * n


@step
def put_column(x: U64, n: Int, width: Int, out: U8, pos: Int, scratch: Scratch) -> Int:
    """Encode x[:n] at `pos`; x, which has room for `padded(n) + 1`, is used up.

    Needs `HEAD_SIZE_MAX` + n * width bytes; returns the end.
    """
    if n == 0:
        return pos
    base = x[0]
    if n == 1:
        return put_constant(out, pos, base)
    d, z, words = scratch
    size = _differences(x, n, d)
    total, smallest, changes = _survey(d, size)
    if changes == 0:
        return _put_head(out, pos, CONSTANT, base, _1, _0)
    step = _1
    if smallest > _1:
        if _bends(d, n, size) == _0:
            return _put_head(out, pos, LINEAR, base, step, d[0])
        step = _common_step(d, n)
        if step > _1:
            _divide(x, d, n, step)
            total, smallest, changes = _survey(d, size)
    order, bias, total = _choose_order(x, d, n, total)
    if total == _0 and order == 1:
        return _put_head(out, pos, LINEAR, base, step, bias)
    _residuals(x, d, n, order, bias, z)
    k = _choose_k(z, n - 1, total)
    bits, escapes = rice_bits(z, size, n - 1, k)
    head = 1 + _base_size(base) + (varint_size(step) if step != _1 else 0)
    length = head + varint_size(zigzag(bias)) + 1 + ((bits + 7) >> 3)
    length += _escaped_size(z, n - 1, k) if escapes > 0 else 0
    limit = min(length, n * width)
    if changes * 4 < n and head + _changes_size(d, n, limit) < limit:
        end = _put_head(out, pos, CHANGES, base, step, _0)
        return _put_changes(d, n, changes, out, end)
    if length >= n * width:
        return _put_changed_back(x, n, width, (base, step), out, pos)
    end = _put_head(out, pos, RICE + order, base, step, bias)
    return _put_rice(z, n - 1, (k, bits, escapes), words, out, end)


@leaf
def _put_changed_back(
    x: U64, n: Int, width: Int, base_step: tuple[np.uint64, np.uint64], out: U8, pos: Int
) -> Int:
    """Raw after all, maybe after `_divide`."""
    base, step = base_step
    start = x[0]
    for i in range(n):
        x[i] = base + step * (x[i] - start)
    return put_plain(x, n, width, out, pos)


@leaf
def _get_raw(data: U8, pos: Int, end: Int, n: Int, width: Int, x: U64) -> bool:
    if end - pos != n * width:
        return False
    if width == 8:
        for i in range(n):
            x[i] = get_word(data, pos + 8 * i)
    else:
        for i in range(n):
            x[i] = get_fixed(data, pos + width * i, width)
    return True


@leaf
def _get_changes(
    data: U8, pos: Int, end: Int, n: Int, base_step: tuple[np.uint64, np.uint64], x: U64
) -> bool:
    value, step = base_step
    changes, pos = get_varint(data, pos, end)
    at: Int = 0
    while pos != NO_POSITION and changes != _0:
        distance, pos = get_varint(data, pos, end)
        change, pos = get_varint(data, pos, end)
        if pos == NO_POSITION or distance == _0 or distance >= np.uint64(n - at):
            return False
        until = at + np.int64(distance)
        for i in range(at, until):
            x[i] = value
        at = until
        value += step * unzigzag(change)
        changes -= _1
    for i in range(at, n):
        x[i] = value
    return pos == end


@leaf
def _get_residuals(data: U8, pos: Int, end: Int, m: Int, scratch: Scratch) -> bool:
    """scratch.z[:m]: the zigzag residuals at `pos`, which end with the column."""
    z, words = scratch.z, scratch.words
    if m < 1 or pos >= end or data[pos] > _K_MAX:
        return False
    k = np.int64(data[pos])
    pos += 1
    n_words = min((end - pos + 7) >> 3, words.size - 2)
    whole = min((end - pos) >> 3, n_words)
    for w in range(whole):
        words[w] = get_word(data, pos + 8 * w)
    if whole < n_words:
        words[whole] = get_fixed(data, pos + 8 * whole, (end - pos) & 7)
    words[n_words] = words[n_words + 1] = _0
    bits, escapes = rice_unpack(words, n_words, m, k, z)
    if bits == NO_POSITION:
        return False
    pos += (bits + 7) >> 3
    for i in range(m if escapes > 0 else 0):
        if z[i] >> np.uint64(k) == _ESCAPE:
            z[i], pos = get_varint(data, pos, end)
            if pos == NO_POSITION:
                return False
    return pos == end


@leaf
def _restore(z: U64, n: Int, order: Int, head: tuple[np.uint64, np.uint64, np.uint64], x: U64) -> None:
    """x[:n] from the residuals z[:n-1] and base, step, bias."""
    base, step, bias = head
    value = base
    x[0] = base
    if order == 0:
        for i in range(1, n):
            x[i] = base + step * (unzigzag(z[i - 1]) + bias)
    elif order == 1:
        for i in range(1, n):
            value += step * (unzigzag(z[i - 1]) + bias)
            x[i] = value
    else:
        slope = bias
        for i in range(1, n):
            slope += unzigzag(z[i - 1])
            value += step * slope
            x[i] = value


@leaf
def _get_head(data: U8, pos: Int, end: Int) -> tuple[np.uint64, np.uint64, np.uint64, Int]:
    """Base, step and bias of the column at `pos`, and the position after them or `NO_POSITION`."""
    tag = np.int64(data[pos])
    n_bytes = (tag >> 4 & 7) + 1
    pos += 1 + n_bytes
    if pos > end:
        return _0, _0, _0, NO_POSITION
    base = extend_sign(get_fixed(data, pos - n_bytes, n_bytes), n_bytes)
    step = _1
    bias = _0
    if tag & STEP:
        step, pos = get_varint(data, pos, end)
    if tag & BIAS:
        bias, pos = get_varint(data, pos, end)
    return base, step, unzigzag(bias), pos


@step
def get_column(data: U8, pos: Int, end: Int, n: Int, width: Int, x: U64, scratch: Scratch) -> bool:
    """Decode data[pos:end] into x[:n]; False where it is not exactly a column of n numbers."""
    if n == 0 or pos >= end:
        return n == 0 and pos == end
    mode = data[pos] & 7
    if data[pos] == RAW:
        return _get_raw(data, pos + 1, end, n, width, x)
    base, step, bias, pos = _get_head(data, pos, end)
    if pos == NO_POSITION or mode == RAW or mode > RICE + 2:
        return False
    if mode == CHANGES:
        return _get_changes(data, pos, end, n, (base, step), x)
    if mode >= RICE:
        if not _get_residuals(data, pos, end, n - 1, scratch):
            return False
        _restore(scratch.z, n, mode - RICE, (base, step, bias), x)
        return True
    for i in range(n):
        x[i] = base + np.uint64(i) * (step * bias)
    return pos == end
