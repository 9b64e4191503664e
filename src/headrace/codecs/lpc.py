"""Linear prediction of integers, in integer arithmetic: resonances and mains hum, vibration above all.

As FLAC does it (flac.sourceforge.net, format): coefficients are rounded to a few bits and the prediction is a sum of
integer products, shifted, so that every machine predicts the same. Coefficients come from the autocorrelation of the
windowed numbers by Levinson and Durbin's recursion.

From residuals r: ``x[0] = r[0]``; ``x[i] = x[i-1] + r[i]`` for i below the order; then ``x[i] = r[i] + x[0] + (sum of c[k]
* (x[i-1-k] - x[0]) >> shift)``, an arithmetic shift of 64 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

ORDERS = (4, 8, 16, 32)
ORDER_MAX = 32
SHIFT_MAX = 15
_BITS = 14  # of a coefficient; the sum of 32 products with 44-bit numbers stays below 2**63
_NUMBER_MAX = 2.0**44
_SAVED_MIN = 0.02  # bits a number, below which the trial costs more than it saves


@lean_kernel
def residuals(numbers: I64, coefficients: I64, shift: int, out: I64) -> None:
    """What the prediction leaves; the first ones, with too few before them, as differences."""
    order = len(coefficients)
    base = numbers[0]
    for i in range(len(numbers)):
        predicted = np.int64(0)
        if i >= order:
            for k in range(order):
                predicted += coefficients[k] * (numbers[i - 1 - k] - base)
            predicted = (predicted >> shift) + base
        elif i > 0:
            predicted = numbers[i - 1]
        out[i] = numbers[i] - predicted


@lean_kernel
def restore(numbers: I64, coefficients: I64, shift: int) -> None:
    """Inverse of `residuals`, in place."""
    order = len(coefficients)
    base = numbers[0]
    for i in range(1, len(numbers)):
        predicted = np.int64(0)
        if i >= order:
            for k in range(order):
                predicted += coefficients[k] * (numbers[i - 1 - k] - base)
            predicted = (predicted >> shift) + base
        else:
            predicted = numbers[i - 1]
        numbers[i] += predicted


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


def predictors(numbers: I64) -> list[tuple[I64, int]]:
    """The integer predictor that promises most, with its shift; none where plain differences are about as good."""
    n = len(numbers)
    orders = np.array([o for o in ORDERS if 16 * o <= n])
    if not len(orders) or max(abs(int(numbers.min())), abs(int(numbers.max()))) > _NUMBER_MAX:
        return []
    signal = numbers.astype(np.float64) - numbers[0]
    signal = (signal - signal.mean()) * _window(n)
    correlation = _autocorrelation(signal, int(orders[-1]))
    plain = _least_energy(correlation)
    if plain <= 0.0:
        return []
    correlation[0] *= 1.0 + 1e-9
    found, error = np.zeros((len(orders), ORDER_MAX)), np.zeros(len(orders))
    _levinson(correlation, orders, found, error, np.zeros(ORDER_MAX + 1), np.zeros(ORDER_MAX + 1))
    saved = 0.5 * n * np.log2(plain / np.maximum(error, 1e-3)) - 16.0 * orders
    best = int(np.argmax(saved))
    if saved[best] < _SAVED_MIN * n:
        return []
    rounded = _rounded(found[best, : orders[best]])
    return [] if rounded is None else [rounded]


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


def _autocorrelation(signal: F64, lags: int) -> F64:
    n = len(signal)
    return np.array([float(signal[: n - k] @ signal[k:]) for k in range(lags + 1)])


def _window(n: int) -> F64:
    """Tukey's, half of it flat."""
    out = np.ones(n)
    edge = n // 4
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / max(1, edge))
    out[:edge], out[n - edge :] = ramp, ramp[::-1]
    return out
