"""Kernels of `headrace.codecs.origins`: from floats to the integers behind them, and back.

Both directions use the same arithmetic, correctly rounded float64 operations in a fixed order, so that what the
encoder finds exact is exact for every reader.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.codecs.compiled import Int
from headrace.core.kernels import lean_kernel, lean_leaf

Array = npt.NDArray[Any]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Form = tuple[Int, Int, bool]
"""Kind, cast, and whether a decimal has levels."""

Memo = tuple[I64, F64, I64]
"""What has been parsed: decimals as whole numbers and their values, a power of two of each, and in a word which kind and
digits these are of, 0 while they are of none."""

BITS, DECIMAL, PRODUCT, SINGLE, SCALED = range(5)
"""Kinds: ordered bits; i / 10**k; i * 10**-k; ordered bits of a float32; i * step + offset."""
AS_IS, AS_SINGLE, AS_TEXT, AS_READ = range(4)
"""What was done to the number then: nothing; rounded to float32; and printed, and parsed from the text; only parsed."""

POWERS = np.array([10.0**k for k in range(23)])
TENTHS = np.array([float(f"1e-{k}") for k in range(23)])
BY_PLACES = np.array([[10.0**bit if k & bit else 1.0 for bit in (1, 2, 4, 8)] for k in range(16)])
POWERS_39 = np.array([10.0**k for k in range(40)])
FIVES = np.array([5**k for k in range(28)], np.uint64)
TENS = np.array([10**k for k in range(20)], np.uint64)
_0, _10 = np.uint64(0), np.uint64(10)
_29, _32, _52, _LOW32 = np.uint64(29), np.uint64(32), np.uint64(52), np.uint64(0xFFFFFFFF)
_M23, _1_23 = np.uint64((1 << 23) - 1), np.uint64(1 << 23)
DIGITS_MAX = 15
_SINGLE_DIGITS = 7
NOT_YET = np.int32(-(2**31))
_LIMIT = 2.0**52
_NOT_KNOWN = np.int64(1) << 62
_MIX = np.uint64(0x9E3779B185EBCA87)
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
def _times(one: np.uint64, other: np.uint64) -> tuple[np.uint64, np.uint64]:
    """A product in two words, the upper one first."""
    a, b = one >> _32, one & _LOW32
    c, d = other >> _32, other & _LOW32
    low = b * d
    middle = a * d + (low >> _32)
    other_middle = b * c + (middle & _LOW32)
    return a * c + (middle >> _32) + (other_middle >> _32), (other_middle << _32) | (low & _LOW32)


@lean_leaf
def _two_of(bits: np.uint64) -> int:
    """The exponent that makes a normal float64 above 0 a part from a half to 1 times a power of two."""
    return int(np.int64(bits >> _52) - 1022)


@lean_leaf
def _first_digits(number: float) -> tuple[np.uint64, np.int64, int, int, int]:
    """Up to 17 first digits of a float64 that was a float32, what is left, and how many digits and decimals it has.

    ``number = M * 2**-e`` with 24 bits of M has ``M * 5**e`` as its digits, all of them behind e places: two words. The
    quotient by way of floats is nearly right; the remainder, known modulo 2**64, sets it right.
    """
    bits = np.float64(number).view(np.uint64)
    two = _two_of(bits)
    exponent = max(0, 24 - two)
    high = np.uint64(0)
    low = np.uint64(number) if two > 24 else (bits >> _29) & _M23 | _1_23
    if exponent > 27:
        high, low = _times(low * FIVES[exponent - 27], FIVES[27])
    else:
        high, low = _times(low, FIVES[exponent])
    exact = np.float64(high) * 18446744073709551616.0 + np.float64(low)
    size = max(1, int(np.floor((two - 1) * 0.30103 + exponent)))
    while size < 39 and exact >= POWERS_39[size]:
        size += 1
    drop = size - 17
    if drop <= 0:
        return low, np.int64(0), size, exponent, 0
    unit = TENS[drop]
    whole = np.uint64(exact / POWERS_39[drop])
    rest = np.int64(low - whole * unit)
    if rest < 0 or rest >= np.int64(unit):
        more = rest // np.int64(unit)
        whole += np.uint64(more)
        rest -= more * np.int64(unit)
    return whole, rest, size, exponent, drop


@lean_leaf
def _shortest(number: float) -> tuple[np.uint64, int]:
    """15, 16 or 17 digits, as few as are nearest to the number again, and how many of them are decimals."""
    digits, rest, size, places, drop = _first_digits(number)
    two = _two_of(np.float64(number).view(np.uint64))
    limit = np.uint64((two + 969) << 52).view(np.float64) * POWERS_39[places]  # 2**(two - 54)
    if size <= 15:
        return digits, places
    unit = np.int64(TENS[drop])
    if size > 16:
        tenth = digits // np.uint64(10)
        rest_16 = np.int64(digits - tenth * np.uint64(10)) * unit + rest
        unit_16 = unit * 10
    else:
        tenth, rest_16, unit_16 = digits, rest, unit
    hundredth = tenth // np.uint64(10)
    rest_15, unit_15 = np.int64(tenth - hundredth * np.uint64(10)) * unit_16 + rest_16, unit_16 * 10
    places -= size
    if min(rest_15, unit_15 - rest_15) < limit:
        return hundredth + np.uint64(rest_15 >= unit_15 - rest_15), places + 15
    if size == 16 or min(rest_16, unit_16 - rest_16) < limit:
        return tenth + np.uint64(size > 16 and rest_16 >= unit_16 - rest_16), places + 16
    return digits + np.uint64(drop > 0 and rest >= unit - rest), places + 17


@lean_leaf
def parsed(number: float) -> float:
    """A float32 that was printed as a float64 and read by a fast parser, as pandas' is, which rounds at each step."""
    a = abs(number)
    if not 1e-2 < a < 1e9:
        return number
    digits, places = _shortest(a)
    while places > 0 and digits % np.uint64(10) == np.uint64(0):
        digits //= np.uint64(10)
        places -= 1
    first = digits // np.uint64(100)
    rest = digits - first * np.uint64(100)
    second = rest // np.uint64(10)
    value = (np.float64(first) * 10.0 + np.float64(second)) * 10.0 + np.float64(rest - second * np.uint64(10))
    power = 10.0
    while places > 0:
        if places & 1:
            value /= power
        places >>= 1
        power *= power
    return float(value if number > 0.0 else -value)


@lean_leaf
def read(number: float, digits: Int) -> float:
    """A whole number of tenths to the power of some digits, as a fast parser reads its shortest text.

    It divides by the powers of ten that the number of decimals is made of, one after the other, and rounds each time.
    """
    a = abs(number)
    if not a < _LIMIT:
        return float(number / POWERS[digits])
    whole, places = np.uint64(a), np.int64(digits)
    while places > 0 and whole % _10 == _0:
        whole //= _10
        places -= 1
    value = np.float64(whole) / BY_PLACES[places, 0] / BY_PLACES[places, 1] / BY_PLACES[places, 2]
    if digits > 7:
        value /= BY_PLACES[places, 3]
    return float(value if number >= 0.0 else -value)


@lean_leaf
def _value(i: np.int64, kind: Int, cast: Int, digits: Int, levels: bool, step: float, offset: float) -> float:
    number = np.float64(i)
    if kind == SCALED:
        return number * step + offset
    if levels:
        number = np.floor(number * step + offset + 0.5)
    return _decimal(number, kind, cast, digits)


@lean_leaf
def _decimal(number: float, kind: Int, cast: Int, digits: Int) -> float:
    if cast == AS_READ:
        return read(number, digits)
    value = number * TENTHS[digits] if kind == PRODUCT else number / POWERS[digits]
    if cast != AS_IS:
        value = np.float64(np.float32(value))
        if cast == AS_TEXT:
            value = parsed(value)
    return float(value)


@lean_leaf
def _to_texts(numbers: I64, form: Form, digits: Int, line: tuple[float, float], memo: Memo, out: F64) -> None:
    """As `to_values`, of decimals that were printed: parsing takes long, and the same decimals come again and again."""
    kind, cast, levels = form
    step, offset = line
    known, value, owner = memo
    mine = np.int64(32 * kind + digits + 1)
    if owner[0] != mine:
        owner[0] = mine
        for j in range(len(known)):
            known[j] = _NOT_KNOWN
    shift = np.uint64(64)
    size = len(known)
    while size > 1:
        size >>= 1
        shift -= np.uint64(1)
    for i in range(len(numbers)):
        whole = np.float64(numbers[i])
        if levels:
            whole = np.floor(whole * step + offset + 0.5)
        if abs(whole) < _LIMIT:
            number = np.int64(whole)
            mixed = np.uint64(number) * _MIX  # twice: steps of a converter would fall upon each other
            slot = ((mixed ^ (mixed >> _32)) * _MIX) >> shift
            if known[slot] != number:
                known[slot] = number
                value[slot] = _decimal(whole, kind, cast, digits)
            out[i] = value[slot]
        else:
            out[i] = _decimal(whole, kind, cast, digits)


@lean_kernel
def to_values(numbers: I64, form: Form, digits: Int, line: tuple[float, float], memo: Memo, out: F64) -> None:
    """What the numbers stand for; of BITS and SINGLE the callers do it by views, but for the text."""
    kind, cast, levels = form
    step, offset = line
    if kind == SINGLE:
        for i in range(len(out)):
            out[i] = printed(out[i])
    elif kind == DECIMAL and cast == AS_IS and not levels:
        power = POWERS[digits]
        for i in range(len(numbers)):
            out[i] = np.float64(numbers[i]) / power
    elif kind == SCALED:
        for i in range(len(numbers)):
            out[i] = np.float64(numbers[i]) * step + offset
    elif cast == AS_TEXT:
        _to_texts(numbers, form, digits, line, memo, out)
    else:
        for i in range(len(numbers)):
            out[i] = _value(numbers[i], kind, cast, digits, levels, step, offset)


@lean_kernel
def to_numbers(values: F64, form: Form, digits: Int, line: tuple[float, float], numbers: I64) -> None:
    """The nearest numbers; 0 for what has none, where the number before would be as good."""
    kind, _, levels = form
    step, offset = line
    power = 1.0 if kind == SCALED else POWERS[digits]
    far = 0
    if kind == SCALED or levels:
        for i in range(len(values)):
            scaled = np.floor((values[i] * power - offset) / step + 0.5)
            far += 0 if abs(scaled) < _LIMIT else 1
            numbers[i] = np.int64(scaled if abs(scaled) < _LIMIT else _LIMIT)
    else:
        for i in range(len(values)):
            scaled = np.floor(values[i] * power + 0.5)
            far += 0 if abs(scaled) < _LIMIT else 1
            numbers[i] = np.int64(scaled if abs(scaled) < _LIMIT else _LIMIT)
    if far:
        last = np.int64(0)
        for i in range(len(values)):
            numbers[i] = last if numbers[i] == np.int64(_LIMIT) else numbers[i]
            last = numbers[i]


@lean_kernel
def numbers_beside(
    values: F64,
    form: Form,
    digits: Int,
    line: tuple[float, float],
    memo: Memo,
    rooms: tuple[I64, I64],
) -> int:
    """The nearest numbers, and how many floats each value lies beside what they stand for; returns how many do.

    ``rooms``: numbers and distances, both int64[n].
    """
    numbers, beside = rooms
    back = beside.view(np.float64)
    bits = values.view(np.int64)
    to_numbers(values, form, digits, line, numbers)
    to_values(numbers, form, digits, line, memo, back)
    count = 0
    for i in range(len(values)):
        beside[i] = bits[i] - beside[i]
        count += 0 if beside[i] == 0 else 1
    return count


@lean_kernel
def likeness(values: F64, form: Form, digits: Int, line: tuple[float, float]) -> tuple[int, int]:
    """How many values are exactly what the nearest number says, and how many but for about `NEAR_MAX` floats beside."""
    kind, cast, levels = form
    step, offset = line
    exact = near = 0
    for i in range(len(values)):
        if kind == SINGLE:
            back = float(np.float32(values[i]))
            back = back if cast == AS_IS else printed(back)
        else:
            scaled = values[i] if kind == SCALED else values[i] * POWERS[digits]
            if kind == SCALED or levels:
                scaled = (scaled - offset) / step
            if not abs(scaled) < _LIMIT:
                continue
            back = _value(np.int64(np.floor(scaled + 0.5)), kind, cast, digits, levels, step, offset)
        exact += 1 if back == values[i] else 0
        near += 1 if abs(back - values[i]) <= abs(values[i]) * 2.0**-47 else 0
    return exact, near


@lean_kernel
def few_digits(values: F64, cast: int, digits_max: int) -> int:
    """The fewest digits of which 9 in 10 values are decimals, but for a few floats beside; -1 if there are none."""
    width = 2.0**-22 if cast != AS_IS else 2.0**-50
    misses_max = len(values) - int(np.ceil(0.9 * len(values)))
    for digits in range(digits_max + 1):
        power = POWERS[digits]
        misses = 0
        for i in range(len(values)):
            scaled = values[i] * power
            near = abs(scaled) < _LIMIT / 128.0
            near = near and abs(np.floor(scaled + 0.5) / power - values[i]) <= abs(values[i]) * width
            misses += 0 if near else 1
            if misses > misses_max:
                break
        if misses <= misses_max:
            return digits
    return -1


@lean_kernel
def find_decimal(values: F64, some: F64, found: I64) -> int:
    """The decimals that nearly all of some values are, as they are or through a float32: kind, cast and digits.

    ``some`` is room for those that are looked at, finite ones from the start and from the middle of `values`. Returns how many
    these are; ``found: int64[3]`` starts with -1 where they are no decimals.
    """
    half, n = len(some) // 2, 0
    middle = max(half, len(values) // 2)
    for start in (0, middle):
        for i in range(start, min(start + half, len(values))):
            if np.isfinite(values[i]):
                some[n] = values[i]
                n += 1
    part, line = some[:n], (1.0, 0.0)
    found[0] = -1
    for through in (AS_IS, AS_SINGLE):
        digits = few_digits(part, through, DIGITS_MAX if through == AS_IS else _SINGLE_DIGITS)
        if digits < 0:
            continue
        kind, cast = DECIMAL, AS_IS if through == AS_IS else AS_TEXT
        exact, near = likeness(part, (kind, cast, False), digits, line)
        if exact < n:
            other_kind, other = PRODUCT if through == AS_IS else DECIMAL, through
            other_exact, other_near = likeness(part, (other_kind, other, False), digits, line)
            if other_exact > exact:
                kind, cast, exact, near = other_kind, other, other_exact, other_near
            if through == AS_IS and exact < n:
                other_exact, other_near = likeness(part, (DECIMAL, AS_READ, False), digits, line)
                if other_exact > exact:
                    kind, cast, exact, near = DECIMAL, AS_READ, other_exact, other_near
        if exact == n or near > 0.9 * n:
            found[0], found[1], found[2] = kind, cast, digits
        break
    return n


@lean_kernel
def lie_close(values: F64, digits: Int) -> bool:
    """Whether the decimals of two values, one after the other, are one or two apart: then they are no steps of more."""
    power, last = POWERS[digits], np.nan
    for i in range(len(values)):
        number = np.floor(values[i] * power + 0.5)
        if abs(number) < _LIMIT:
            if 0.5 < abs(number - last) < 2.5:
                return True
            last = number
    return False


@lean_kernel
def are_finer(values: F64, share: float) -> bool:
    """Whether two values, one after the other, differ by less than a share of the largest."""
    largest, least, last = 0.0, np.inf, np.nan
    for i in range(len(values)):
        if np.isfinite(values[i]):
            largest = max(largest, abs(values[i]))
            gap = abs(values[i] - last)
            least = gap if 0.0 < gap < least else least
            last = values[i]
    return bool(least < share * largest)


@lean_kernel
def rough_bits(numbers: I64, values: F64, back: F64) -> float:
    """About the bits of the differences of numbers, and of the values that are not what they stand for.

    Logarithms take long: one of the product of eight.
    """
    beside, bits, product = 0, 0.0, 1.0
    for i in range(len(numbers)):
        beside += 0 if back[i] == values[i] else 1
        if i > 0:
            product *= 1.0 + abs(np.float64(numbers[i]) - np.float64(numbers[i - 1]))
        if i & 7 == 7:
            bits += math.log2(product)
            product = 1.0
    return bits + math.log2(product) + 64.0 * beside


@lean_kernel
def set_far_apart(numbers: I64, error: I64, most: Int, at: I64) -> tuple[int, bool]:
    """Where values lie further than `most` beside their integers: there the number before stands again, and no error.

    Fills ``at: int64[n]``; returns how many they are, and whether others lie beside their integers too.
    """
    first = 0
    while first < len(error) and not -most <= error[first] <= most:
        first += 1
    last = numbers[first if first < len(error) else 0]
    n_far, is_near = 0, False
    for i in range(len(error)):
        if -most <= error[i] <= most:
            last = numbers[i]
            is_near = is_near or error[i] != 0
        else:
            at[n_far] = i
            n_far += 1
            numbers[i], error[i] = last, 0
    return n_far, is_near


@lean_kernel
def fit_line(level: F64, number: F64, first: int, out: F64) -> bool:
    """Step and offset of which rising levels are whole multiples, rounded, into `out`; False where they are not.

    Starts at ``out[0], out[1]`` with the eight from `first`, where levels lie closest, and takes in twice as many at a
    time: what is known of the step by then says which multiples the next ones are.
    """
    a, b = first, first + 8
    step, offset = out[0], out[1]
    while True:
        for _ in range(3):
            n = np.float64(b - a)
            x = y = xx = xy = 0.0
            for i in range(a, b):
                k = np.floor((level[i] - offset) / step + 0.5)
                d = level[i] - level[a]
                x, y, xx, xy = x + k, y + d, xx + k * k, xy + k * d
                number[i] = k
            spread = xx - x * x / n
            if not spread > 0.0:
                return False
            step = (xy - x * y / n) / spread
            offset = level[a] + (y - step * x) / n
            if not step >= 2.0:
                return False
        for i in range(a, b):
            if not abs(level[i] - (number[i] * step + offset)) <= 0.75:
                return False
        if b - a == len(level):
            out[0], out[1] = step, offset
            return True
        size = b - a
        a, b = max(0, a - size // 2), min(len(level), b + size // 2)


@lean_kernel
def fit_steps(level: F64, step: float) -> float:
    """The step of which levels, the least first, are whole multiples, by least squares; 0 where they are not.

    Starts with eight and takes in four times as many at a time, as `fit_line` does.
    """
    n = 8
    while True:
        size = min(n, len(level))
        squares = products = 0.0
        for i in range(size):
            number = np.rint(level[i] / step)
            squares += number * number
            products += number * (
                level[i] - number * step
            )  # of what is left: sums of the whole round too much
        if squares == 0.0:
            return 0.0
        step += products / squares
        for i in range(size):
            multiple = level[i] / step
            if not abs(multiple - np.rint(multiple)) <= 0.02:
                return 0.0
        if size == len(level):
            return float(step)
        n *= 4


@lean_leaf
def _span(level: F64, number: F64, step: float) -> tuple[float, float]:
    low = high = level[0] - number[0] * step
    for i in range(1, len(level)):
        off = level[i] - number[i] * step
        low, high = min(low, off), max(high, off)
    return low, high


@lean_kernel
def nearest_line(level: F64, number: F64, out: F64) -> None:
    """The line that no level is furthest from, near the step ``out[0]``: the distance is convex, golden-section search."""
    ratio = (np.sqrt(5.0) - 1.0) / 2.0
    reach = 1.0 / max(1.0, number[len(level) - 1] - number[0])
    low, high = out[0] - reach, out[0] + reach
    one, other = high - ratio * (high - low), low + ratio * (high - low)
    a, b = _span(level, number, one)
    c, d = _span(level, number, other)
    for _ in range(30):
        if b - a < d - c:
            high, other = other, one
            c, d = a, b
            one = high - ratio * (high - low)
            a, b = _span(level, number, one)
        else:
            low, one = one, other
            a, b = c, d
            other = low + ratio * (high - low)
            c, d = _span(level, number, other)
    out[0] = (low + high) / 2.0
    a, b = _span(level, number, out[0])
    out[1] = (a + b) / 2.0


@lean_kernel
def first_near(numbers: I64, low: Int, near: I64, known: Array, out: I64) -> int:
    """What is near each number when it first comes, and how many these are; -1 where it is not the same each time."""
    count = 0
    for i in range(len(numbers)):
        slot = numbers[i] - low
        if known[slot] == NOT_YET:
            known[slot] = near[i]
            out[count] = near[i]
            count += 1
        elif known[slot] != near[i]:
            return -1
    return count
