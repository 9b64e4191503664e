"""Linear prediction of integers, in integer arithmetic: resonances and mains hum, vibration above all.

As FLAC does it (flac.sourceforge.net, format): coefficients are rounded to a few bits and the prediction is a sum of
integer products, shifted, so that every machine predicts the same. Coefficients come from the autocorrelation of the
windowed numbers by Levinson and Durbin's recursion. What is predicted is the distance from a centre, which is stored.

From residuals r: ``y[0] = r[0]``; ``y[i] = y[i-1] + r[i]`` for i below the order; then ``y[i] = r[i] + (sum of c[k] *
y[i-1-k] >> shift)``, an arithmetic shift of 64 bits; the numbers are ``y + centre``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.codecs.compiled import Int
from headrace.core.kernels import lean_kernel

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

ORDERS = (1, 2, 4, 8, 16, 32)
_FIRST_ORDERS = 4  # tried before the long ones
ORDER_MAX = 32
SHIFT_MAX = 15
_BITS = 14  # of a coefficient; the sum of 32 products with 44-bit numbers stays below 2**63
NUMBER_MAX = 2**44
_SAVED_MIN = 0.02  # bits a number, below which the trial costs more than it saves


@lean_kernel
def residuals(numbers: I64, centre: int, coefficients: I64, shift: int, out: I64) -> None:
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


@lean_kernel
def _levinson(correlation: F64, wanted: Array, out: F64, error: F64, a: F64, before: F64) -> None:
    """Predictors of each wanted order, ``out: float64[len(wanted), ORDER_MAX]``, and what variance they leave."""
    left = correlation[0]
    row = 0
    for m in range(1, wanted[len(wanted) - 1] + 1):
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
        if m == wanted[row]:
            for j in range(m):
                out[row, j] = a[j + 1]
            error[row] = left
            row += 1


def predictor(numbers: I64, centre: int) -> tuple[I64, int] | None:
    """The integer predictor that promises most, with its shift; None where plain differences are about as good.

    `centre` is about their mean; no number is further from 0 than `NUMBER_MAX`.
    """
    n = len(numbers)
    orders = np.array([o for o in ORDERS if 16 * o <= n])
    if not len(orders):
        return None
    signal = (numbers - centre) * _window(n)
    found = None
    for last in (_FIRST_ORDERS, len(orders)):
        if found is None or (last > _FIRST_ORDERS and found[1] == _FIRST_ORDERS - 1):
            found = _best_of(signal, orders[:last])
            if found is None:
                return None
    return _rounded(found[0]) if found is not None else None


def _best_of(signal: F64, orders: Array) -> tuple[F64, int] | None:
    n = len(signal)
    lags = int(orders[-1])
    correlation = np.correlate(np.concatenate([signal, np.zeros(max(2, lags))]), signal)
    plain = _least_energy(correlation)
    if plain <= 0.0:
        return None
    correlation[0] *= 1.0 + 1e-9
    found, error = np.zeros((len(orders), ORDER_MAX)), np.zeros(len(orders))
    _levinson(correlation, orders, found, error, np.zeros(ORDER_MAX + 1), np.zeros(ORDER_MAX + 1))
    saved = 0.5 * n * np.log2(plain / np.maximum(error, 1e-3)) - 16.0 * orders
    best = int(np.argmax(saved))
    return (found[best, : orders[best]], best) if saved[best] >= _SAVED_MIN * n else None


def _least_energy(correlation: F64) -> float:
    """Energy of the numbers less their mean, of their differences, or of the changes of those: the least."""
    r0, r1, r2 = correlation[:3].tolist()
    return float(min(r0, 2.0 * (r0 - r1), 6.0 * r0 - 8.0 * r1 + 2.0 * r2))


def _rounded(coefficients: F64) -> tuple[I64, int] | None:
    largest = float(np.abs(coefficients).max())
    if not 0.0 < largest < 2.0**_BITS:
        return None
    shift = min(SHIFT_MAX, _BITS - 1 - int(np.floor(np.log2(largest))))
    if shift < 0:
        return None
    return np.round(coefficients * 2.0**shift).astype(np.int64), shift


@lru_cache(maxsize=16)
def _window(n: int) -> F64:
    """Tukey's, half of it flat."""
    out = np.ones(n)
    edge = n // 4
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / max(1, edge))
    out[:edge], out[n - edge :] = ramp, ramp[::-1]
    return out
