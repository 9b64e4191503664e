"""What is worth knowing of integers before they are coded: one pass each over numbers as 64-bit words."""

from __future__ import annotations

import numpy as np

from headrace.codecs.bits import I64, U64, bit_length, zigzag
from headrace.codecs.compiled import Int, entry, leaf
from headrace.core.kernels import lean_kernel

_U = np.uint64
_0, _1 = _U(0), _U(1)
_MEAN_MAX = _U(1) << _U(56)
_BITS_MAX = _U(70)
_64, _MIX = _U(64), _U(0x9E3779B185EBCA87)


@lean_kernel
def survey(numbers: I64, found: I64) -> None:
    """Least, greatest, and the greatest common divisor of the distances from the first, 0 for none or where 63 bits don't hold them."""
    low = high = numbers[0]
    for i in range(len(numbers)):
        low, high = min(low, numbers[i]), max(high, numbers[i])
    found[0], found[1], found[2] = low, high, 0
    if high // 4 - low // 4 >= 1 << 59:
        return
    divisor = np.int64(0)
    for i in range(1, len(numbers)):
        a = abs(numbers[i] - numbers[0])
        if divisor == 1:
            break
        if divisor == 0 or a % divisor != 0:
            while a != 0:
                divisor, a = a, divisor % a
    found[2] = divisor


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
    """
    m0 = m1 = m2 = _0
    b0 = b1 = b2 = new = large = again = _0
    before = change = _0
    for i in range(x.size):
        z0 = zigzag(x[i] - centre)
        d = x[i] - before
        z1 = zigzag(d)
        z2 = zigzag(d - change)
        before, change = x[i], d
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


@entry
def price_plain(x: U64, skip: Int) -> np.uint64:
    """About the bits of residuals, but for the first ones."""
    mean = bits = _0
    for i in range(skip, x.size):
        z = zigzag(x[i])
        bits += _cost(z, mean)
        mean = _after(mean, z)
    return bits
