"""Rice codes whose parameter follows the numbers: signals that are calm and lively by turns.

Each number's parameter comes from a running mean of the ones before it, which the decoder knows too, so that nothing
about it is stored (as in JPEG-LS, ITU-T T.87, and lossless audio coders). The numbers are residuals of order 0, 1 or
2: the number less the first, its difference, the change of that, all modulo 2**64; or what they are.

A body is a byte, ``order | first << 2`` (order 3: the numbers are residuals), and a stream of bits, lowest bit of each
byte first. ``mean`` starts as ``(16 << first) >> 1``. For each number: ``k = max(bit_length(mean * 11 >> 8) - 1, 0)``; as
many zeros as ``z >> k`` says and a one, then the k low bits of z; or 24 zeros and a one, then the 64 bits of z. z is the
residual as zigzag, that of the first number is the number. Behind each but the first, ``mean`` becomes ``mean - (mean >>
4) + min(z, 2**56)``. Residuals of order 2 are ``x[i] - 2 x[i-1] + x[i-2]``; that of the second number is of order 1.
"""

from __future__ import annotations

import numpy as np

from headrace.codecs.bits import U8, U64, bit_length, trailing_zeros, unzigzag, zigzag
from headrace.codecs.compiled import Int, entry, leaf, step

PLAIN = 3
"""Order of numbers that are residuals already."""

_ESCAPE = 24
_U = np.uint64
_0, _1, _2, _8, _63, _64 = _U(0), _U(1), _U(2), _U(8), _U(63), _U(64)
_DECAY = _U(4)
FIRST_MAX = 60
_MEAN_MAX = _U(1) << _U(56)
SLACK_WORDS = 4
"""Words of room, or of zeros, beyond the stream's end."""


@leaf
def _parameter(mean: np.uint64) -> np.uint64:
    """About log2 of ln 2 times the mean, of which `mean` is the 16-fold."""
    scaled = (mean * _U(11)) >> _U(8)
    return _U(bit_length(scaled) - 1) if scaled > _0 else _0


@leaf
def next_mean(mean: np.uint64, z: np.uint64) -> np.uint64:
    """The running mean after a number; both means are the 16-fold."""
    return _U(mean - (mean >> _DECAY) + min(z, _MEAN_MAX))


@leaf
def put_bits(words: U64, bit: np.uint64, value: np.uint64, width: np.uint64) -> np.uint64:
    """Write the low `width` (0 to 64) bits at bit position `bit` of cleared words; returns the position after them."""
    if width == _0:
        return bit
    value &= (~_0) >> (_64 - width)
    word, shift = bit >> _U(6), bit & _63
    words[word] |= value << shift
    if shift + width > _64:
        words[word + _1] |= value >> (_64 - shift)
    return bit + width


@leaf
def append_bits(words: U64, bit: np.uint64, value: np.uint64, width: np.uint64) -> np.uint64:
    """As `put_bits`, into words that are cleared only up to the one at `bit`: what is behind is cleared as it is reached."""
    if width == _0:
        return bit
    value &= (~_0) >> (_64 - width)
    word, shift = bit >> _U(6), bit & _63
    words[word] |= value << shift
    if shift + width >= _64:
        words[word + _1] = (value >> _1) >> (_63 - shift)
    return bit + width


@leaf
def get_bits(words: U64, bit: np.uint64, width: np.uint64) -> np.uint64:
    """Read `width` (0 to 64) bits at bit position `bit`; the word behind them is there too."""
    if width == _0:
        return _0
    word, shift = bit >> _U(6), bit & _63
    value = (words[word] >> shift) | ((words[word + _1] << _1) << (_63 - shift))
    return _U(value & ((~_0) >> (_64 - width)))


@leaf
def residual(x: U64, i: Int, order: Int) -> np.uint64:
    """What is coded of number i."""
    if i == 0 or order == PLAIN:
        return _U(x[i])
    if order == 0:
        return _U(x[i] - x[0])
    if order == 1 or i == 1:
        return _U(x[i] - x[i - 1])
    return _U(x[i] - x[i - 1] - x[i - 1] + x[i - 2])


@leaf
def first_mean(x: U64, order: Int) -> np.uint64:
    """Log2 of about twice the mean of the first residuals, which the running mean has yet to learn."""
    total, n = _0, min(np.int64(x.size), np.int64(33))
    for i in range(1, n):
        total += min(zigzag(residual(x, i, order)), _MEAN_MAX >> _2)
    return _U(bit_length(total // np.uint64(n - 1))) if n > 1 else _0


@entry
def encode(x: U64, order: Int, words: U64) -> tuple[np.uint64, np.uint64]:
    """Write the numbers into ``2 * n + SLACK_WORDS`` cleared words; returns log2 of the first mean, and the bits."""
    log_first = first_mean(x, order)
    bit, mean = _0, _8 << log_first
    for i in range(x.size):
        z = zigzag(residual(x, i, order))
        k = _parameter(mean)
        high = z >> k
        if high < _U(_ESCAPE):
            bit += high
            bit = put_bits(words, bit, _1, _1)
            bit = put_bits(words, bit, z, k)
        else:
            bit = put_bits(words, bit + _U(_ESCAPE), _1, _1)
            bit = put_bits(words, bit, z, _64)
        mean = next_mean(mean, z) if i > 0 else mean
    return log_first, bit


@step
def decode(words: U64, n_bits: np.uint64, order: Int, first: np.uint64, x: U64) -> bool:
    """Read x.size numbers; False where the stream ends early or late. Behind it lie `SLACK_WORDS` cleared words."""
    bit, mean = _0, first
    for i in range(x.size):
        if bit >= n_bits:
            return False
        k = _parameter(mean)
        ahead = get_bits(words, bit, _64)
        if ahead == _0:
            return False
        high = _U(trailing_zeros(ahead))
        bit += high + _1
        if high < _U(_ESCAPE):
            z = (high << k) | get_bits(words, bit, k)
            bit += k
        elif high == _U(_ESCAPE):
            z = get_bits(words, bit, _64)
            bit += _64
        else:
            return False
        mean = next_mean(mean, z) if i > 0 else mean
        r = unzigzag(z)
        if i == 0 or order == PLAIN:
            x[i] = r
        elif order == 0:
            x[i] = x[0] + r
        elif order == 1 or i == 1:
            x[i] = x[i - 1] + r
        else:
            x[i] = x[i - 1] + x[i - 1] - x[i - 2] + r
    return bool(bit <= n_bits and n_bits - bit < _U(8))


@step
def decode_body(data: U8, pos: Int, end: Int, words: U64, x: U64) -> bool:
    """Read the numbers of the body data[pos:end]; False where it does not hold them."""
    if pos >= end or data[pos] >> 2 > FIRST_MAX:
        return False
    order, first = np.int64(data[pos] & 3), _8 << np.uint64(data[pos] >> 2)
    n = end - pos - 1
    for i in range((n + 7) // 8 + SLACK_WORDS):
        words[i] = _0
    for i in range(n):
        words[i >> 3] |= np.uint64(data[pos + 1 + i]) << np.uint64(8 * (i & 7))
    return decode(words, np.uint64(8 * n), order, first, x)
