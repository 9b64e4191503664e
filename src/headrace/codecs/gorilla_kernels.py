"""Gorilla's bits: highest bit first, in words whose first bit is the highest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel, lean_leaf

Int = int | np.int64
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

BROKEN = -1
"""Position where a stream ends early, or says what no encoder writes."""

TIME_BITS_MAX, VALUE_BITS_MAX = 4 + 32, 2 + 5 + 6 + 64
FIRST_BITS = 14
CHANGE_MIN, CHANGE_MAX = -(2**31), 2**31 - 1

_U = np.uint64
_0, _1, _63, _64 = _U(0), _U(1), _U(63), _U(64)
_LEADING_MAX = 31


@lean_leaf
def put_bits(words: U64, at: Int, value: np.uint64, n: Int) -> Int:
    """Write the n low bits of `value`, 1 to 64, at a bit of cleared words; returns the bit after them."""
    w, room = at >> 6, 64 - (at & 63)
    value &= ~_0 >> _U(64 - n)
    if n <= room:
        words[w] |= value << _U(room - n)
    else:
        words[w] |= value >> _U(n - room)
        words[w + 1] |= value << _U(64 - (n - room))
    return at + n


@lean_leaf
def get_bits(words: U64, at: Int, n: Int) -> np.uint64:
    """The n bits, 1 to 64, at a bit; behind the stream lie two cleared words."""
    w, room = at >> 6, 64 - (at & 63)
    if n <= room:
        return _U((words[w] >> _U(room - n)) & (~_0 >> _U(64 - n)))
    value = (words[w] << _U(n - room)) | (words[w + 1] >> _U(64 - (n - room)))
    return _U(value & (~_0 >> _U(64 - n)))


@lean_leaf
def _put_change(words: U64, at: Int, change: Int) -> Int:
    """The change of an interval: 0, or 10, 110, 1110, 1111 and its lowest 7, 9, 12, 32 bits."""
    if change == 0:
        return put_bits(words, at, _0, 1)
    if -63 <= change <= 64:
        return put_bits(words, put_bits(words, at, _U(2), 2), _U(change), 7)
    if -255 <= change <= 256:
        return put_bits(words, put_bits(words, at, _U(6), 3), _U(change), 9)
    if -2047 <= change <= 2048:
        return put_bits(words, put_bits(words, at, _U(14), 4), _U(change), 12)
    return put_bits(words, put_bits(words, at, _U(15), 4), _U(change), 32)


@lean_leaf
def _get_change(words: U64, at: Int) -> tuple[Int, Int]:
    """A change, and the bit after it."""
    if get_bits(words, at, 1) == _0:
        return np.int64(0), at + 1
    if get_bits(words, at + 1, 1) == _0:
        change = np.int64(get_bits(words, at + 2, 7))
        return change if change <= 64 else change - 128, at + 9
    if get_bits(words, at + 2, 1) == _0:
        change = np.int64(get_bits(words, at + 3, 9))
        return change if change <= 256 else change - 512, at + 12
    if get_bits(words, at + 3, 1) == _0:
        change = np.int64(get_bits(words, at + 4, 12))
        return change if change <= 2048 else change - 4096, at + 16
    change = np.int64(get_bits(words, at + 4, 32))
    return change if change <= CHANGE_MAX else change - 2**32, at + 36


@lean_leaf
def _put_value(words: U64, at: Int, x: np.uint64, window: I64) -> Int:
    """The XOR of a value with the one before; `window` is zeros before and behind the last one's bits."""
    if x == _0:
        return put_bits(words, at, _0, 1)
    lead = trail = 0
    while lead < _LEADING_MAX and x >> (_63 - _U(lead)) == _0:
        lead += 1
    while (x >> _U(trail)) & _1 == _0:
        trail += 1
    if window[0] >= 0 and lead >= window[0] and trail >= window[1]:
        at = put_bits(words, at, _U(2), 2)
    else:
        window[0], window[1] = lead, trail
        at = put_bits(words, at, _U(3), 2)
        at = put_bits(words, at, _U(lead), 5)
        at = put_bits(words, at, _U((64 - lead - trail) & 63), 6)
    return put_bits(words, at, x >> _U(window[1]), 64 - window[0] - window[1])


@lean_leaf
def _get_value(words: U64, at: Int, window: I64) -> tuple[np.uint64, Int]:
    """The XOR of a value, and the bit after it; `BROKEN` where a window does not fit."""
    if get_bits(words, at, 1) == _0:
        return _0, at + 1
    is_new = get_bits(words, at + 1, 1) == _1
    at += 2
    if is_new:
        window[0] = np.int64(get_bits(words, at, 5))
        size = np.int64(get_bits(words, at + 5, 6))
        at += 11
        window[1] = 64 - window[0] - (64 if size == 0 else size)
    if window[0] < 0 or window[1] < 0:
        return _0, np.int64(BROKEN)
    size = 64 - window[0] - window[1]
    return get_bits(words, at, size) << _U(window[1]), at + size


@lean_kernel
def write_values(bits: U64, words: U64, window: I64) -> Int:
    """Write ``bits: uint64[n]``, n at least 1, into cleared words; returns the bits written."""
    at = put_bits(words, 0, bits[0], 64)
    window[0] = -1
    for i in range(1, bits.size):
        at = _put_value(words, at, bits[i] ^ bits[i - 1], window)
    return at


@lean_kernel
def read_values(words: U64, n_bits: Int, bits: U64, window: I64) -> Int:
    """Inverse of `write_values`; returns the bits read, or `BROKEN`. Behind n_bits lie two cleared words."""
    if n_bits < 64:
        return BROKEN
    bits[0] = get_bits(words, 0, 64)
    at: Int = np.int64(64)
    window[0] = -1
    for i in range(1, bits.size):
        if at >= n_bits:
            return BROKEN
        x, at = _get_value(words, at, window)
        if at == BROKEN or at > n_bits:
            return BROKEN
        bits[i] = bits[i - 1] ^ x
    return at


@lean_kernel
def write_samples(ts: I64, bits: U64, start: Int, words: U64, window: I64) -> Int:
    """Write a block of samples, n at least 1; returns its bits, or `BROKEN` where times do not fit."""
    at = put_bits(words, 0, _U(start), 64)
    interval = ts[0] - start
    if not 0 <= interval < 1 << FIRST_BITS:
        return BROKEN
    at = put_bits(words, at, _U(interval), FIRST_BITS)
    at = put_bits(words, at, bits[0], 64)
    window[0] = -1
    for i in range(1, ts.size):
        change = ts[i] - ts[i - 1] - interval
        if not CHANGE_MIN <= change <= CHANGE_MAX:
            return BROKEN
        interval = ts[i] - ts[i - 1]
        at = _put_change(words, at, change)
        at = _put_value(words, at, bits[i] ^ bits[i - 1], window)
    return at


@lean_kernel
def read_samples(words: U64, n_bits: Int, ts: I64, bits: U64, window: I64) -> Int:
    """Inverse of `write_samples`; returns the bits read, or `BROKEN`. Behind n_bits lie two cleared words."""
    at: Int = np.int64(64 + FIRST_BITS + 64)
    if n_bits < at:
        return BROKEN
    interval = np.int64(get_bits(words, 64, FIRST_BITS))
    ts[0] = np.int64(get_bits(words, 0, 64)) + interval
    bits[0] = get_bits(words, 64 + FIRST_BITS, 64)
    window[0] = -1
    for i in range(1, ts.size):
        if at >= n_bits:
            return BROKEN
        change, at = _get_change(words, at)
        if at >= n_bits:
            return BROKEN
        interval += change
        ts[i] = ts[i - 1] + interval
        x, at = _get_value(words, at, window)
        if at == BROKEN or at > n_bits:
            return BROKEN
        bits[i] = bits[i - 1] ^ x
    return at
