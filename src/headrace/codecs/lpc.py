"""Linear prediction of integers, in integer arithmetic: resonances and mains hum, vibration above all.

As FLAC does it (flac.sourceforge.net, format): coefficients are rounded to a few bits and the prediction is a sum of
integer products, shifted, so that every machine predicts the same. Coefficients come from the autocorrelation of the
windowed numbers by Levinson and Durbin's recursion. What is predicted is the distance from a centre, which is stored.

From residuals r: ``y[0] = r[0]``; ``y[i] = y[i-1] + r[i]`` for i below the order; then ``y[i] = r[i] + (sum of c[k] *
y[i-1-k] >> shift)``, an arithmetic shift of 64 bits; the numbers are ``y + centre``.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from headrace.codecs.compiled import Int
from headrace.core.kernels import lean_kernel, lean_leaf

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

ORDER_MAX, _FIRST_MAX = 32, 8
ROOM = 4 * ORDER_MAX + 4
"""Floats that `predictor` needs."""
SHIFT_MAX = 15
_BITS = 14  # of a coefficient; the sum of 32 products with 44-bit numbers stays below 2**63
NUMBER_MAX = 2**44
_SAVED_MIN = 0.02  # bits a number, below which the trial costs more than it saves


@lean_kernel
def residuals(numbers: I64, centre: Int, coefficients: I64, shift: int, out: I64) -> None:
    """What the prediction leaves; the first ones, with too few before them, as differences."""
    order = len(coefficients)
    out[0] = numbers[0] - centre
    for i in range(1, min(order, len(numbers))):
        out[i] = numbers[i] - numbers[i - 1]
    for i in range(order, len(numbers)):
        predicted = np.int64(0)
        for k in range(order - 1, -1, -1):
            predicted += coefficients[k] * (numbers[i - 1 - k] - centre)
        out[i] = numbers[i] - ((predicted >> shift) + centre)


@lean_kernel
def restore(numbers: I64, centre: Int, coefficients: I64, shift: Int) -> None:
    """Inverse of `residuals`, in place. The oldest number comes first in the sum, so that only the newest is waited for."""
    order = len(coefficients)
    for i in range(1, min(order, len(numbers))):
        numbers[i] += numbers[i - 1]
    for i in range(order, len(numbers)):
        predicted = np.int64(0)
        for k in range(order - 1, -1, -1):
            predicted += coefficients[k] * numbers[i - 1 - k]
        numbers[i] += predicted >> shift
    for i in range(len(numbers)):
        numbers[i] += centre


@lean_leaf
def _product(signal: F64, lag: int) -> float:
    """Sum of products at a lag, in eight sums side by side."""
    n = len(signal) - lag
    a = b = c = d = e = f = g = h = 0.0
    for i in range(0, n - 7, 8):
        a += signal[i] * signal[i + lag]
        b += signal[i + 1] * signal[i + 1 + lag]
        c += signal[i + 2] * signal[i + 2 + lag]
        d += signal[i + 3] * signal[i + 3 + lag]
        e += signal[i + 4] * signal[i + 4 + lag]
        f += signal[i + 5] * signal[i + 5 + lag]
        g += signal[i + 6] * signal[i + 6 + lag]
        h += signal[i + 7] * signal[i + 7 + lag]
    for i in range(n & ~7, n):
        a += signal[i] * signal[i + lag]
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


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
    numbers: I64, centre: Int, window: F64, signal: F64, room: F64, coefficients: I64
) -> tuple[int, int]:
    """Order and shift of the integer predictor that promises most; order 0 where plain differences are about as good.

    `centre` is about their mean; no number is further from 0 than `NUMBER_MAX`. Room: ``signal: float64[n]``, ``room:
    float64[ROOM]``. Orders are 1, 2, 4, 8, and, where 8 is the best of them, 16 and 32.
    """
    n = len(numbers)
    for i in range(n):
        signal[i] = np.float64(numbers[i] - centre) * window[i]
    correlation, rest = room[: ORDER_MAX + 1], room[ORDER_MAX + 1 :]
    order, known, plain = 0, 0, 0.0
    for most in (_FIRST_MAX, ORDER_MAX):
        last = most
        while 16 * last > n:
            last //= 2
        if last == 0 or (most == ORDER_MAX and (order < _FIRST_MAX or last == _FIRST_MAX)):
            break
        for lag in range(known, last + 1):
            correlation[lag] = _product(signal, lag)
        if known == 0:
            if last < 2:
                correlation[2] = _product(signal, 2)
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


@lru_cache(maxsize=16)
def window(n: int) -> F64:
    """Tukey's, half of it flat."""
    out = np.ones(n)
    edge = n // 4
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / max(1, edge))
    out[:edge], out[n - edge :] = ramp, ramp[::-1]
    return out
