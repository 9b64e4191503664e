"""Decimal numbers → the nearest float64, in kernels: what ``float(text)`` gives, bit for bit.

A number of few digits is exact in a float, and so are powers of ten to 10^22: then one multiplication or division
rounds once and rightly (Clinger). Others go by Eisel and Lemire: digits times a 128-bit power of ten; in the rare
case where 128 bits do not decide the rounding, the caller is told to ask ``float``.

Source: Lemire, "Number parsing at a gigabyte per second" (2021); the form of the tests follows Go's
``strconv.eiselLemire64``.
"""

from __future__ import annotations

import numpy as np

from headrace.core.kernels import lean_leaf

_EXPONENT_MIN, _EXPONENT_MAX = -342, 308
_EXACT = 2**53


def _power(exponent: int) -> int:
    """The highest 128 bits of 10**exponent, rounded down."""
    power: int = 10 ** abs(exponent)
    n_bits = power.bit_length()
    if exponent >= 0:
        return power << 128 - n_bits if n_bits < 128 else power >> n_bits - 128
    return (1 << n_bits + 127) // power


_POWERS = np.array(
    [
        (_power(e) >> 64, _power(e) & 2**64 - 1)
        for e in range(_EXPONENT_MIN, _EXPONENT_MAX + 1)
    ],
    np.uint64,
)  # fmt: skip
_TENS = np.array([10.0**e for e in range(23)])
_U = np.uint64
_0, _1, _3, _9, _32, _52, _56, _63, _64 = (_U(n) for n in (0, 1, 3, 9, 32, 52, 56, 63, 64))
_LOW, _ALL, _NINE_ONES, _MANTISSA = _U(2**32 - 1), _U(2**64 - 1), _U(0x1FF), _U(2**52 - 1)
_EIGHT_ONES = _U(0xFF)

UNDECIDED = np.int64(-1)
"""Bits that no positive float has: ask ``float``."""


@lean_leaf
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The high and the low 64 bits of a product. No step overflows, as plain Python would warn of it."""
    a_high, a_low, b_high, b_low = a >> _32, a & _LOW, b >> _32, b & _LOW
    low = a_low * b_low
    middle = a_high * b_low + (low >> _32)
    other = a_low * b_high + (middle & _LOW)
    return a_high * b_high + (middle >> _32) + (other >> _32), (other << _32) | (low & _LOW)


@lean_leaf
def _leading_zeros(number: np.uint64) -> int:
    n = 0
    for step in (32, 16, 8, 4, 2, 1):
        if number >> (_64 - _U(n + step)) == _0:
            n += step
    return n


@lean_leaf
def _nearest_bits(digits: np.uint64, exponent: int) -> np.int64:
    """Bits of the float nearest to digits * 10**exponent, digits above 0; or `UNDECIDED`."""
    n_zeros = _leading_zeros(digits)
    digits = digits << _U(n_zeros)
    row = exponent - _EXPONENT_MIN
    high, low = _product(digits, _POWERS[row, 0])
    if high & _NINE_ONES == _NINE_ONES and low > _ALL - digits:  # the rest of the power may carry
        more_high, _ = _product(digits, _POWERS[row, 1])
        if low > _ALL - more_high:
            high, low = high + _1, more_high - (_ALL - low) - _1
        else:
            low = low + more_high
        if high & _NINE_ONES == _NINE_ONES and low >> _56 == _EIGHT_ONES:
            return (
                UNDECIDED  # what 128 bits of the power leave out might carry; asked more often than need be
            )
    top = high >> _63
    mantissa = high >> (top + _9)
    power = ((217_706 * exponent) >> 16) + 1_086 - n_zeros + (1 if top == _1 else 0)
    if low == _0 and high & _NINE_ONES == _0 and mantissa & _3 == _1:
        return UNDECIDED  # half-way between two floats
    mantissa = (mantissa + (mantissa & _1)) >> _1
    if mantissa >> _U(53) != _0:
        mantissa, power = mantissa >> _1, power + 1
    if power < 1 or power > 2_046:
        return UNDECIDED
    return np.int64((_U(power) << _52) | (mantissa & _MANTISSA))


@lean_leaf
def float_bits(digits: int, exponent: int) -> np.int64:
    """Bits of digits * 10**exponent, 0 <= digits < 2**63; `UNDECIDED` where it takes ``float`` to tell."""
    if digits == 0:
        return np.int64(0)
    if exponent < _EXPONENT_MIN or exponent > _EXPONENT_MAX:
        return UNDECIDED
    return _nearest_bits(_U(digits), exponent)


@lean_leaf
def exact_float(digits: int, exponent: int) -> float:
    """Digits * 10**exponent where `is_exact` says so."""
    if exponent < 0:
        return float(digits / _TENS[-exponent])
    return float(digits * _TENS[exponent])


@lean_leaf
def is_exact(digits: int, exponent: int) -> bool:
    """Whether one operation on floats gives the nearest float."""
    return digits <= _EXACT and -22 <= exponent <= 22
