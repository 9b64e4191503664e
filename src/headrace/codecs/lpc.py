"""Linear prediction of integers, in integer arithmetic: resonances and mains hum, vibration above all.

As FLAC does it (flac.sourceforge.net, format): coefficients are rounded to a few bits and the prediction is a sum of
integer products, shifted, so that every machine predicts the same. Coefficients come from the autocorrelation of the
windowed numbers by Levinson and Durbin's recursion. What is predicted is the distance from a centre, which is stored.

From residuals r: ``y[0] = r[0]``; ``y[i] = y[i-1] + r[i]`` for i below the order; then ``y[i] = r[i] + (sum of c[k] *
y[i-1-k] >> shift)``, an arithmetic shift of 64 bits; the numbers are ``y + centre``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.codecs.compiled import Int
from headrace.core.kernels import exact_sums, lean_kernel, lean_leaf

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Eight = tuple[Any, Any, Any, Any, Any, Any, Any, Any]
_U = np.uint64

ORDER_MAX, _FIRST_MAX = 32, 8
PAD = 8
"""Zeros behind coefficients, so that eight can be read from each."""
ROOM = 4 * ORDER_MAX + 4
"""Floats that `predictor` needs."""
SHIFT_MAX = 15
_BITS = 14  # of a coefficient; the sum of 32 products with 44-bit numbers stays below 2**63
NUMBER_MAX = 2**44
_0, _1, _2, _3, _4, _5, _6, _7 = (np.uint64(i) for i in range(8))
_EXACT = 2.0**53
_FLOATS_FROM = 16
_SMALL = 2**33
"""Sums of `ORDER_MAX` products of numbers up to this with coefficients of 16 bits are up to 2**53."""
_BLOCK = 1024
_SAVED_MIN = 0.02  # bits a number, below which the trial costs more than it saves


@lean_kernel
def residuals(
    numbers: I64, centre: Int, coefficients: I64, shift: int, reach: float, room: F64, out: I64
) -> None:
    """What the prediction leaves; the first ones, with too few before them, as differences.

    No number is further than `reach` from the centre; ``room: float64[n]``.
    """
    order, n = len(coefficients), len(numbers)
    later = max(n - order, 0)
    if reach < _EXACT / (2.0**_BITS * ORDER_MAX):
        _predict_floats(numbers, centre, coefficients, shift, room, out)
    else:
        _predict(numbers, centre, coefficients, shift, out[order:])
    newer, left = numbers[order:], out[order:]
    for i in range(later):
        left[i] = newer[i] - (left[i] + centre)
    out[0] = numbers[0] - centre
    for i in range(1, min(order, n)):
        out[i] = numbers[i] - numbers[i - 1]


@lean_leaf
def _predict(numbers: I64, centre: Int, coefficients: I64, shift: Int, out: I64) -> None:
    order, later = len(coefficients), max(len(numbers) - len(coefficients), 0)
    for i in range(later):
        out[i] = 0
    for k in range(order):  # coefficient by coefficient, which is done for many numbers side by side
        weight, older = coefficients[k], numbers[order - 1 - k :]
        for i in range(later):
            out[i] += weight * (older[i] - centre)
    for i in range(later):
        out[i] >>= shift


@exact_sums
def _predict_floats(numbers: I64, centre: Int, coefficients: I64, shift: Int, total: F64, out: I64) -> None:
    """The same in whole floats, which a processor multiplies faster: none is beyond 2**53, so all are exact."""
    order, n = len(coefficients), len(numbers)
    later = max(n - order, 0)
    plain, scale = out.view(np.float64), 2.0 ** -np.float64(shift)
    for i in range(n):
        plain[i] = np.float64(numbers[i] - centre)
    for first in range(0, later, _BLOCK):  # so many stay in the nearest cache
        size = min(_BLOCK, later - first)
        part, whole = total[first : first + size], order // 4 * 4
        for i in range(size):
            part[i] = 0.0
        for k in range(0, whole, 4):
            at = first + order - 1 - k
            c0, c1 = np.float64(coefficients[k]), np.float64(coefficients[k + 1])
            c2, c3 = np.float64(coefficients[k + 2]), np.float64(coefficients[k + 3])
            p0, p1, p2, p3 = plain[at:], plain[at - 1 :], plain[at - 2 :], plain[at - 3 :]
            for i in range(size):
                part[i] += (c0 * p0[i] + c1 * p1[i]) + (c2 * p2[i] + c3 * p3[i])
        for k in range(whole, order):
            weight, older = np.float64(coefficients[k]), plain[first + order - 1 - k :]
            for i in range(size):
                part[i] += weight * older[i]
    for i in range(later):
        out[order + i] = np.int64(np.floor(total[i] * scale))


@lean_leaf
def _eight(r: Eight, p: Eight, c: Eight, shift: Int) -> Eight:
    """Eight numbers from what the prediction left of them, and `p`, the part of it that older ones give."""
    r0, r1, r2, r3, r4, r5, r6, r7 = r
    p0, p1, p2, p3, p4, p5, p6, p7 = p
    c0, c1, c2, c3, c4, c5, c6, _ = c
    x0 = r0 + (p0 >> shift)
    x1 = r1 + ((p1 + c0 * x0) >> shift)
    x2 = r2 + ((p2 + c1 * x0 + c0 * x1) >> shift)
    x3 = r3 + ((p3 + c2 * x0 + c1 * x1 + c0 * x2) >> shift)
    x4 = r4 + ((p4 + c3 * x0 + c2 * x1 + c1 * x2 + c0 * x3) >> shift)
    x5 = r5 + ((p5 + c4 * x0 + c3 * x1 + c2 * x2 + c1 * x3 + c0 * x4) >> shift)
    x6 = r6 + ((p6 + c5 * x0 + c4 * x1 + c3 * x2 + c2 * x3 + c1 * x4 + c0 * x5) >> shift)
    x7 = r7 + ((p7 + c6 * x0 + c5 * x1 + c4 * x2 + c3 * x3 + c2 * x4 + c1 * x5 + c0 * x6) >> shift)
    return x0, x1, x2, x3, x4, x5, x6, x7


@lean_leaf
def _load(x: I64, i: np.uint64) -> Eight:
    return (
        x[i], x[i + _U(1)], x[i + _U(2)], x[i + _U(3)], x[i + _U(4)], x[i + _U(5)], x[i + _U(6)], x[i + _U(7)],
    )  # fmt: skip


@lean_leaf
def _store(x: I64, i: np.uint64, eight: Eight) -> None:
    x[i], x[i + _U(1)], x[i + _U(2)], x[i + _U(3)] = eight[0], eight[1], eight[2], eight[3]
    x[i + _U(4)], x[i + _U(5)], x[i + _U(6)], x[i + _U(7)] = eight[4], eight[5], eight[6], eight[7]


@lean_leaf
def _older(x: I64, i: np.uint64, coefficients: I64, order: Int) -> Eight:
    """What the numbers before i add to the predictions of eight from i on, side by side."""
    p0 = p1 = p2 = p3 = p4 = p5 = p6 = p7 = np.int64(0)
    for k in range(order):
        m = _U(k)
        h = x[i - _U(1) - m]
        c = _load(coefficients, m)
        p0, p1, p2, p3 = p0 + c[0] * h, p1 + c[1] * h, p2 + c[2] * h, p3 + c[3] * h
        p4, p5, p6, p7 = p4 + c[4] * h, p5 + c[5] * h, p6 + c[6] * h, p7 + c[7] * h
    return p0, p1, p2, p3, p4, p5, p6, p7


@exact_sums
def _older_floats(x: F64, i: np.uint64, weights: F64, order: np.uint64) -> Eight:
    """As `_older`, of whole floats, which a processor multiplies several at a time; weights: coefficients backwards."""
    p0 = p1 = p2 = p3 = p4 = p5 = p6 = p7 = 0.0
    at = i - order
    for m in range(_0, order):
        h = x[at + m]
        p0, p1 = p0 + weights[m + _U(8)] * h, p1 + weights[m + _7] * h
        p2, p3 = p2 + weights[m + _6] * h, p3 + weights[m + _5] * h
        p4, p5 = p4 + weights[m + _4] * h, p5 + weights[m + _3] * h
        p6, p7 = p6 + weights[m + _2] * h, p7 + weights[m + _1] * h
    return (
        np.int64(p0), np.int64(p1), np.int64(p2), np.int64(p3), np.int64(p4), np.int64(p5), np.int64(p6), np.int64(p7),
    )  # fmt: skip


@lean_leaf
def _are_small(x: Eight) -> bool:
    """Whether sums of `ORDER_MAX` products of such numbers with coefficients of 16 bits are whole as floats."""
    most = np.int64(_SMALL)
    a = _U(x[0] + most) | _U(x[1] + most) | _U(x[2] + most) | _U(x[3] + most)
    a |= _U(x[4] + most) | _U(x[5] + most) | _U(x[6] + most) | _U(x[7] + most)
    return bool(a < _U(2 * _SMALL))


@lean_leaf
def _restore_small(numbers: I64, coefficients: I64, order: Int, shift: Int, floats: F64) -> Int:
    """`restore` from the first predicted number on, as long as all are small: then sums of floats are whole and exact.

    Returns where it ended, so that the rest is done in integers.
    """
    plain = numbers.view(np.float64)
    for k in range(order + PAD):
        floats[k] = np.float64(coefficients[order + PAD - 1 - k])
    end: Int = np.int64(order)
    for i in range(order):
        if not -_SMALL <= numbers[i] < _SMALL:
            return end
    for i in range(order):
        plain[i] = np.float64(numbers[i])
    first = _load(coefficients, _0)
    while end + 8 <= len(numbers):
        at = _U(end)
        x = _eight(_load(numbers, at), _older_floats(plain, at, floats, _U(order)), first, shift)
        if not _are_small(x):
            break
        for j in range(8):
            plain[at + _U(j)] = np.float64(x[j])
        end += 8
    for i in range(end):
        numbers[i] = np.int64(plain[i])
    return end


@lean_kernel
def restore(numbers: I64, centre: Int, coefficients: I64, order: Int, shift: Int, floats: F64) -> None:
    """Inverse of `residuals`, in place; behind the coefficients lie `PAD` zeros, and ``floats`` has room for as many.

    Eight at a time, so that only what these add to each other has to be waited for.
    """
    n = len(numbers)
    for i in range(1, min(order, n)):
        numbers[i] += numbers[i - 1]
    done: Int = np.int64(order)
    if order >= _FLOATS_FROM and n >= order:
        done = _restore_small(numbers, coefficients, order, shift, floats)
    first = _load(coefficients, _0)
    whole = done + max(np.int64(n - done), np.int64(0)) // 8 * 8
    for i in range(done, whole, 8):
        at = _U(i)
        _store(
            numbers, at, _eight(_load(numbers, at), _older(numbers, at, coefficients, order), first, shift)
        )
    for i in range(whole, n):
        predicted = np.int64(0)
        for k in range(order):
            predicted += coefficients[k] * numbers[i - 1 - k]
        numbers[i] += predicted >> shift
    for i in range(n):
        numbers[i] += centre


@exact_sums
def _product(one: F64, other: F64) -> float:
    total = 0.0
    for i in range(len(one)):
        total += one[i] * other[i]
    return total


@lean_kernel
def correlate(signal: F64, lags: tuple[int, int], correlation: F64) -> None:
    """Sums of products at some lags; a block of the signal at a time, which stays in the nearest cache."""
    n = len(signal)
    for lag in range(lags[0], lags[1]):
        correlation[lag] = 0.0
    for first in range(0, n, _BLOCK):
        for lag in range(lags[0], lags[1]):
            last = max(min(first + _BLOCK, n - lag), first)
            correlation[lag] += _product(signal[first:last], signal[first + lag :])


@lean_kernel
def whole_signal(numbers: I64, centre: Int, window: F64, reach: float, signal: F64) -> float:
    """Windowed numbers as whole ones, as large as exact sums of their products allow; returns their factor."""
    scale, most = 1.0, _EXACT / (2.0 * len(numbers))
    while (2.0 * scale * reach) ** 2 < most:
        scale *= 2.0
    while (scale * reach) ** 2 > most:
        scale *= 0.5
    for i in range(len(numbers)):
        signal[i] = np.rint(np.float64(numbers[i] - centre) * window[i] * scale)
    return scale


@lean_kernel
def _levinson(correlation: F64, plain: float, n: int, order_max: int, room: F64) -> int:
    """The order that saves most of n numbers, its predictor in ``room[:order]``; 0 where none saves enough."""
    a, before = room[ORDER_MAX : 2 * ORDER_MAX + 1], room[2 * ORDER_MAX + 1 :]
    left = correlation[0]
    wanted = 1
    best, most = 0, _SAVED_MIN * n
    for m in range(1, order_max + 1):
        total = correlation[m]
        for j in range(1, m):
            total -= a[j] * correlation[m - j]
        reflection = total / left if left > 0.0 else 0.0
        for j in range(m):
            before[j] = a[j]
        a[m] = reflection
        for j in range(1, m):
            a[j] = before[j] - reflection * before[m - j]
        left *= 1.0 - reflection * reflection
        if m == wanted:
            wanted *= 2
            saved = 0.5 * n * math.log2(plain / max(left, 1e-3)) - 16.0 * m
            if saved >= most:
                best, most = m, saved
                for j in range(m):
                    room[j] = a[j + 1]
    return best


@lean_kernel
def predictor(
    numbers: I64, centre: Int, window: F64, reach: float, rooms: tuple[F64, F64], coefficients: I64
) -> tuple[int, int]:
    """Order and shift of the integer predictor that promises most; order 0 where plain differences are about as good.

    `centre` is about their mean; no number is further than `reach` from it, which is above 0 and below ``2 * NUMBER_MAX``.
    Rooms: float64[n], float64[ROOM]. Orders are 1, 2, 4, 8, and, where 8 is the best of them, 16 and 32.
    """
    n, (signal, room) = len(numbers), rooms
    unit = 1.0 / whole_signal(numbers, centre, window, reach, signal) ** 2
    correlation, rest = room[: ORDER_MAX + 1], room[ORDER_MAX + 1 :]
    order, known, plain = 0, 0, 0.0
    for most in (_FIRST_MAX, ORDER_MAX):
        last = most
        while 16 * last > n:
            last //= 2
        if last == 0 or (most == ORDER_MAX and (order < _FIRST_MAX or last == _FIRST_MAX)):
            break
        end = max(last + 1, 3)
        correlate(signal, (known, end), correlation)
        for lag in range(known, end):
            correlation[lag] *= unit
        if known == 0:
            r0, r1, r2 = correlation[0], correlation[1], correlation[2]
            plain = min(r0, 2.0 * (r0 - r1), 6.0 * r0 - 8.0 * r1 + 2.0 * r2)
            if not plain > 0.0:
                return 0, 0
            correlation[0] *= 1.0 + 1e-9
        known = last + 1
        order = _levinson(correlation, plain, n, last, rest)
    return _rounded(rest[:order], coefficients)


@lean_leaf
def _rounded(found: F64, coefficients: I64) -> tuple[int, int]:
    order = len(found)
    largest = 0.0
    for j in range(order):
        largest = max(largest, abs(found[j]))
    if not 0.0 < largest < 2.0**_BITS:
        return 0, 0
    shift = min(SHIFT_MAX, _BITS - 1 - math.floor(math.log2(largest)))
    if shift < 0:
        return 0, 0
    for j in range(order):
        coefficients[j] = np.int64(math.floor(found[j] * 2.0**shift + 0.5))
    return order, shift


@lean_kernel
def fill_window(out: F64) -> None:
    """Tukey's, half of it flat."""
    n = len(out)
    edge = n // 4
    for i in range(n):
        out[i] = 1.0
    for i in range(edge):
        ramp = 0.5 - 0.5 * math.cos(math.pi * (i + 0.5) / edge)
        out[i] = out[n - 1 - i] = ramp
