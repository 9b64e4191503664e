"""Kernels of `headrace.codecs.origins`: from floats to the integers behind them, and back.

Both directions use the same arithmetic, correctly rounded float64 operations in a fixed order, so that what the
encoder finds exact is exact for every reader.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel, lean_leaf

Array = npt.NDArray[Any]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Form = tuple[int, int, bool]
"""Kind, cast, and whether a decimal has levels."""

BITS, DECIMAL, PRODUCT, SINGLE, SCALED = range(5)
"""Kinds: ordered bits; i / 10**k; i * 10**-k; ordered bits of a float32; i * step + offset."""
AS_IS, AS_SINGLE, AS_TEXT = range(3)
"""What was done to the number then: nothing; rounded to float32; and printed, and parsed from the text."""

POWERS = np.array([10.0**k for k in range(23)])
TENTHS = np.array([float(f"1e-{k}") for k in range(23)])
DIGITS_MAX = 15
_LIMIT = 2.0**52
_TEXT_DIGITS, _TEXT_DECIMALS = 10, 9


@lean_leaf
def _digits_of(number: float) -> int:
    """Decimal digits before the point of a number from 1 to 10**10."""
    n = 1
    while n < _TEXT_DIGITS and number >= POWERS[n]:
        n += 1
    return n


@lean_leaf
def printed(number: float) -> float:
    """A float32 as programs print it that show 10 digits, 9 of them behind the point at most, halves away from 0."""
    a = abs(number)
    if not 1e-9 < a < 1e10:
        return number
    decimals = min(_TEXT_DECIMALS, _TEXT_DIGITS - _digits_of(a))
    whole = np.floor(a * POWERS[decimals] + 0.5) / POWERS[decimals]
    return float(whole if number > 0.0 else -whole)


@lean_leaf
def _shortest(number: float) -> tuple[np.uint64, int]:
    """Digits of the shortest text of a float64 that was a float32 of usual size, and how many stand behind the point.

    ``number = M * 2**-e`` with 24 bits of M has ``M * 5**e`` as its digits, all of them behind e places: up to 128
    bits, in two words. Rounded to 15, 16 and 17 digits, the first that is nearest to the number again is the text.
    """
    mantissa, exponent = number, 0
    while mantissa != np.floor(mantissa):
        mantissa *= 2.0
        exponent += 1
    high, low = np.uint64(0), np.uint64(mantissa)
    for _ in range(exponent):
        part = (low & np.uint64(0xFFFFFFFF)) * np.uint64(5)
        rest = (low >> np.uint64(32)) * np.uint64(5) + (part >> np.uint64(32))
        low = (rest << np.uint64(32)) | (part & np.uint64(0xFFFFFFFF))
        high = high * np.uint64(5) + (rest >> np.uint64(32))
    return _rounded(number, high, low, exponent)


@lean_leaf
def _rounded(number: float, high: np.uint64, low: np.uint64, places: int) -> tuple[np.uint64, int]:
    exact = np.float64(high) * 18446744073709551616.0 + np.float64(low)
    size = 1
    bound = 10.0
    while exact >= bound and size < 40:
        size += 1
        bound *= 10.0
    half = _half_ulp(number)
    digits, left = low, places
    for wanted in (15, 16, 17):
        drop = size - wanted
        if drop <= 0:
            return low, places
        digits, rest = _divided(high, low, drop)
        unit = 10.0**drop
        up = rest * 2.0 >= unit
        off = (unit - rest if up else rest) / 10.0**places
        digits = digits + np.uint64(1) if up else digits
        left = places - drop
        if off < half:
            break
    return digits, left


@lean_leaf
def _half_ulp(number: float) -> float:
    unit = 2.0**-53
    while unit * 9007199254740992.0 <= number:
        unit *= 2.0
    while unit * 4503599627370496.0 > number:
        unit *= 0.5
    return unit * 0.5


@lean_leaf
def _divided(high: np.uint64, low: np.uint64, drop: int) -> tuple[np.uint64, float]:
    """Two words // 10**drop, and the remainder, digit by digit."""
    rest = 0.0
    unit = 1.0
    for _ in range(drop):
        h = high // np.uint64(10)
        carry = high - h * np.uint64(10)
        upper = (carry << np.uint64(32)) | (low >> np.uint64(32))
        q_upper = upper // np.uint64(10)
        lower = ((upper - q_upper * np.uint64(10)) << np.uint64(32)) | (low & np.uint64(0xFFFFFFFF))
        q_lower = lower // np.uint64(10)
        digit = lower - q_lower * np.uint64(10)
        high, low = h, (q_upper << np.uint64(32)) | q_lower
        rest += np.float64(digit) * unit
        unit *= 10.0
    return low, rest


@lean_leaf
def parsed(number: float) -> float:
    """A float32 that was printed as a float64 and read by a fast parser, as pandas' is, which rounds at each step."""
    a = abs(number)
    if not 1e-4 < a < 1e9:
        return number
    digits, places = _shortest(a)
    while places > 0 and digits % np.uint64(10) == np.uint64(0):
        digits //= np.uint64(10)
        places -= 1
    divisor = 10000000000000000
    value = 0.0
    while divisor > 0:
        value = value * 10.0 + np.float64((digits // np.uint64(divisor)) % np.uint64(10))
        divisor //= 10
    power = 10.0
    while places > 0:
        if places & 1:
            value /= power
        places >>= 1
        power *= power
    return float(value if number > 0.0 else -value)


@lean_leaf
def _value(i: np.int64, kind: int, cast: int, digits: int, levels: bool, step: float, offset: float) -> float:
    number = np.float64(i)
    if kind == SCALED:
        return number * step + offset
    if levels:
        number = np.floor(number * step + offset + 0.5)
    value = number * TENTHS[digits] if kind == PRODUCT else number / POWERS[digits]
    if cast != AS_IS:
        value = np.float64(np.float32(value))
        if cast == AS_TEXT:
            value = parsed(value)
    return float(value)


@lean_kernel
def to_values(numbers: I64, form: Form, digits: int, line: tuple[float, float], out: F64) -> None:
    """What the numbers stand for; of BITS and SINGLE the callers do it by views, but for the text."""
    kind, cast, levels = form
    step, offset = line
    if kind == SINGLE:
        for i in range(len(out)):
            out[i] = printed(out[i])
        return
    for i in range(len(numbers)):
        out[i] = _value(numbers[i], kind, cast, digits, levels, step, offset)


@lean_kernel
def to_numbers(values: F64, form: Form, digits: int, line: tuple[float, float], numbers: I64) -> None:
    """The nearest numbers; 0 for what has none, where the number before would be as good."""
    kind, _, levels = form
    step, offset = line
    last = np.int64(0)
    for i in range(len(values)):
        scaled = values[i] if kind == SCALED else values[i] * POWERS[digits]
        if kind == SCALED or levels:
            scaled = (scaled - offset) / step
        numbers[i] = last
        if abs(scaled) < _LIMIT:
            last = np.int64(np.floor(scaled + 0.5))
            numbers[i] = last


@lean_kernel
def count_decimals(values: F64, digits: int, cast: int, near: bool) -> int:
    """How many values are decimals of so many digits: exactly, or but for a few floats beside."""
    found = 0
    for i in range(len(values)):
        scaled = values[i] * POWERS[digits]
        if not abs(scaled) < _LIMIT / 128.0:
            continue
        back = np.floor(scaled + 0.5) / POWERS[digits]
        if near:
            width = 2.0**-22 if cast != AS_IS else 2.0**-50
            found += 1 if abs(back - values[i]) <= abs(values[i]) * width else 0
        else:
            found += 1 if back == values[i] else 0
    return found
