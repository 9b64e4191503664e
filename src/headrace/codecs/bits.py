"""Bits and bytes: what the codec kernels are built from.

All numbers are little endian. A *varint* is LEB128 (7 bits a byte, the low ones first, at most 10 bytes);
a signed number is made unsigned by *zigzag* (0, -1, 1, -2 … → 0, 1, 2, 3 …). *Rice bits* of m numbers z with
parameter k are one stream, lowest bit of the first byte first: the m low parts of k bits each, then the m
high parts in unary (z >> k zeros, then a one). A high part of `ESCAPE` means that the number follows the
stream as a varint, in order, after padding to a whole byte; its low part is whatever it is. Low and high
parts lie apart so that both can be read a word at a time.

The functions run as plain Python too (``NUMBA_DISABLE_JIT=1``), where NumPy's integers wrap as the
compiled ones do. Two rules of compiled integers: values are uint64 throughout, also signed ones, as their
bits (a signed sum that overflows may do anything), and so are shift counts (a mixed int64 and uint64 would
become a float). Only positions and counts are int64.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

from headrace.codecs.compiled import Int, leaf, step

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint8]

if sys.byteorder != "little":  # words are stored as they lie in memory
    raise ImportError("the codecs need a little-endian machine")

ESCAPE = 20
"""High part that says: the whole number stands after the stream."""

NO_POSITION = -1
"""Position returned by a reader that would have passed the end."""

ZERO = np.int64(0)
"""Starts a counter: a bare 0 is a type of its own, for which callees would be compiled once more."""

_U = np.uint64
_0, _1, _2, _4, _5, _6, _7, _8 = _U(0), _U(1), _U(2), _U(4), _U(5), _U(6), _U(7), _U(8)
_56, _63 = _U(56), _U(63)
_12 = _U(32 - ESCAPE)
_64, _127, _128, _ESCAPE = _U(64), _U(127), _U(128), _U(ESCAPE)
_M1, _M2, _M4 = _U(0x5555555555555555), _U(0x3333333333333333), _U(0x0F0F0F0F0F0F0F0F)
_ONES = _U(0x0101010101010101)
_P1, _P2, _P3 = _U(0x9E3779B185EBCA87), _U(0xC2B2AE3D27D4EB4F), _U(0x165667B19E3779F9)
_P4, _P5 = _U(0x85EBCA77C2B2AE63), _U(0x27D4EB2F165667C5)


@leaf
def trailing_zeros(word: np.uint64) -> np.int64:
    """Number of zero bits below the lowest one of a word that is not 0 (LLVM makes one instruction of it)."""
    x = (word & (~word + _1)) - _1
    x = x - ((x >> _1) & _M1)
    x = (x & _M2) + ((x >> _2) & _M2)
    x = (x + (x >> _4)) & _M4
    return np.int64((x * _ONES) >> _56)


@leaf
def bit_length(value: np.uint64) -> np.int64:
    """Bits needed for `value`; 0 for 0."""
    n = 0
    while value != _0:
        value >>= _1
        n += 1
    return np.int64(n)


@leaf
def zigzag(value: np.uint64) -> np.uint64:
    """Signed (as its bits) to unsigned: small magnitudes become small numbers."""
    return (value << _1) ^ (~(value >> _63) + _1)


@leaf
def unzigzag(value: np.uint64) -> np.uint64:
    """Inverse of `zigzag`; the bits of a signed number."""
    return (value >> _1) ^ (~(value & _1) + _1)


@leaf
def extend_sign(value: np.uint64, n_bytes: Int) -> np.uint64:
    """The low `n_bytes` of `value` (1 to 8) as a signed number, as 64 bits."""
    unused = np.uint64(64) - np.uint64(n_bytes) * _8
    return np.uint64(np.int64(value << unused) >> np.int64(unused))


@leaf
def varint_size(value: np.uint64) -> Int:
    """Bytes of `value` as a varint: 1 to 10."""
    n = 1
    while value >= _128:
        value >>= _7
        n += 1
    return n


@leaf
def put_varint(out: U8, pos: Int, value: np.uint64) -> Int:
    """Write `value` at `pos`; returns the position after it."""
    while value >= _128:
        out[pos] = np.uint8((value & _127) | _128)
        value >>= _7
        pos += 1
    out[pos] = np.uint8(value)
    return pos + 1


@leaf
def get_varint(data: U8, pos: Int, end: Int) -> tuple[np.uint64, Int]:
    """Read a varint of data[pos:end]; returns it and the position after it, `NO_POSITION` if it is broken."""
    value = _0
    shift = _0
    while 0 <= pos < end and shift < _U(70):
        byte = np.uint64(data[pos])
        value |= (byte & _127) << shift if shift < _64 else _0
        pos += 1
        if byte < _128:
            return value, pos
        shift += _7
    return _0, NO_POSITION


@leaf
def put_fixed(out: U8, pos: Int, value: np.uint64, n_bytes: Int) -> Int:
    """Write the `n_bytes` low bytes of `value` at `pos`; returns the position after them."""
    p = np.uint64(pos)
    for i in range(n_bytes):
        out[p + np.uint64(i)] = np.uint8((value >> np.uint64(8 * i)) & _U(255))
    return pos + n_bytes


@leaf
def put_word(out: U8, pos: Int, word: np.uint64) -> None:
    """Write 8 bytes at `pos` (LLVM makes one store of it)."""
    p = np.uint64(pos)
    for i in range(8):
        out[p + np.uint64(i)] = np.uint8((word >> np.uint64(8 * i)) & _U(255))


@leaf
def get_fixed(data: U8, pos: Int, n_bytes: Int) -> np.uint64:
    """Read `n_bytes` (1 to 8) at `pos`; the caller has checked that they are there."""
    p = np.uint64(pos)
    value = _0
    for i in range(n_bytes):
        value |= np.uint64(data[p + np.uint64(i)]) << np.uint64(8 * i)
    return value


@leaf
def rice_bits(z: U64, size: Int, m: Int, k: Int) -> tuple[Int, Int]:
    """Bits of the Rice stream of z[:m], and how many numbers escape; z[m:size] are zeros."""
    shift = np.uint64(k)
    high = escapes = _0
    for i in range(size):
        q = min(z[i] >> shift, _ESCAPE)
        high += q
        escapes += (q + _12) >> _5
    return np.int64(high) + m * (k + 1), np.int64(escapes)


@leaf
def rice_pack(z: U64, m: Int, k: Int, words: U64) -> None:
    """Write the Rice bits of z[:m] into `words`; the last word is filled with zeros.

    Low and high parts in one loop: two short chains of dependent steps run side by side.
    """
    shift = np.uint64(k)
    mask = (_1 << shift) - _1
    w_low = 0
    w = m * k >> 6
    meeting = w
    acc_low = fill_low = acc = _0
    fill = np.uint64(m * k & 63)
    for i in range(m):
        low = z[i] & mask
        acc_low |= low << fill_low
        fill_low += shift
        if fill_low >= _64:
            words[w_low] = acc_low
            w_low += 1
            fill_low -= _64
            acc_low = (low >> _1) >> (shift - fill_low - _1)
        fill += min(z[i] >> shift, _ESCAPE)
        if fill >= _64:
            words[w] = acc
            w += 1
            fill -= _64
            acc = _0
        acc |= _1 << fill
        fill += _1
    words[w] = acc
    words[meeting] |= acc_low


@leaf
def rice_unpack(words: U64, n_words: Int, m: Int, k: Int, z: U64) -> tuple[Int, Int]:
    """Read m numbers into `z`; returns the bits read (`NO_POSITION` if the stream ends early), and the escapes.

    After the stream's `n_words` come two cleared words, so that the low parts can be read in pairs.
    """
    first = m * k
    if first > n_words * 64:
        return NO_POSITION, 0
    bits, escapes = _unpack_high(words, n_words, first, m, z)
    if bits == NO_POSITION or k == 0:
        return bits, escapes
    width = np.uint64(k)
    mask = (_1 << width) - _1
    for i in range(m):
        bit = np.uint64(i) * width
        w = bit >> _6
        shift = bit & _63
        low = (words[w] >> shift) | ((words[w + _1] << _1) << (_63 - shift))
        z[i] = (z[i] << width) | (low & mask)
    return bits, escapes


@leaf
def _unpack_high(words: U64, n_words: Int, first: Int, m: Int, z: U64) -> tuple[Int, Int]:
    """The unary parts: distances between ones, from bit `first` on."""
    last = first - 1
    escapes = 0
    i = 0
    for w in range(first >> 6, n_words):
        word = words[w]
        if w == first >> 6:
            word = (word >> np.uint64(first & 63)) << np.uint64(first & 63)
        while word != _0:
            bit = w * 64 + trailing_zeros(word)
            word &= word - _1
            q = bit - last - 1
            last = bit
            if q > ESCAPE:
                return NO_POSITION, 0
            escapes += 1 if q == ESCAPE else 0
            z[i] = np.uint64(q)
            i += 1
            if i == m:
                return last + 1, escapes
    return NO_POSITION, 0


@leaf
def get_word(data: U8, pos: Int) -> np.uint64:
    """8 bytes at `pos` as a word (LLVM makes one load of it)."""
    p = np.uint64(pos)
    value = np.uint64(data[p])
    for i in range(1, 8):
        value |= np.uint64(data[p + np.uint64(i)]) << np.uint64(8 * i)
    return value


@leaf
def _rotate(value: np.uint64, n: np.uint64) -> np.uint64:
    return (value << n) | (value >> (_64 - n))


@leaf
def _round(acc: np.uint64, word: np.uint64) -> np.uint64:
    return _rotate(acc + word * _P2, _U(31)) * _P1


@step
def checksum(data: U8, pos: Int, end: Int, seed: Int) -> np.uint64:
    """The low 32 bits of XXH64 over data[pos:end]."""
    s = np.uint64(seed)
    n = np.uint64(end - pos)
    h = s + _P5
    if end - pos >= 32:
        a, b, c, d = s + _P1 + _P2, s + _P2, s, s - _P1
        while pos <= end - 32:
            a, b = _round(a, get_word(data, pos)), _round(b, get_word(data, pos + 8))
            c, d = _round(c, get_word(data, pos + 16)), _round(d, get_word(data, pos + 24))
            pos += 32
        h = _rotate(a, _1) + _rotate(b, _7) + _rotate(c, _U(12)) + _rotate(d, _U(18))
        for lane in (a, b, c, d):
            h = (h ^ _round(_0, lane)) * _P1 + _P4
    h += n
    while pos <= end - 8:
        h = _rotate(h ^ _round(_0, get_word(data, pos)), _U(27)) * _P1 + _P4
        pos += 8
    if pos <= end - 4:
        h = _rotate(h ^ (get_fixed(data, pos, np.int64(4)) * _P1), _U(23)) * _P2 + _P3
        pos += 4
    while pos < end:
        h = _rotate(h ^ (np.uint64(data[pos]) * _P5), _U(11)) * _P1
        pos += 1
    h = (h ^ (h >> _U(33))) * _P2
    h = (h ^ (h >> _U(29))) * _P3
    return (h ^ (h >> _U(32))) & _U(0xFFFFFFFF)
