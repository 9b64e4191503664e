"""Signals that are functions of seed, sensor and time alone: a restart goes on where it would have been.

All sensors of a tick are computed together, a few NumPy calls for each shape. What looks random is a hash of seed,
sensor and tick, so that any tick can be asked for by itself.

A *walk* is the sum of eight lines through random points, each with half the period of the one before and
``1/sqrt(2)`` of its height: the spectrum of a random walk, but it stays within its amplitude.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.adapters.sim.config import SimSignal
from headrace.core.clock import NS

F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]

_N_OCTAVES = 8
_WEIGHTS = np.sqrt(0.5) ** np.arange(_N_OCTAVES)
_N_UNIFORM = 4
_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_PERIOD_NS, _DAY_NS = 600 * NS, 86_400 * NS
_NOISE, _PHASE, _POINTS = 1, 2, 16


def mix(keys: U64) -> U64:
    """splitmix64: well-spread bits of each key."""
    keys = keys + _GOLDEN
    keys = (keys ^ (keys >> np.uint64(30))) * _MIX_1
    keys = (keys ^ (keys >> np.uint64(27))) * _MIX_2
    return keys ^ (keys >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class SensorKeys:
    """Hash keys of sensors, ``uint64[devices, signals]``."""

    keys: U64

    @classmethod
    def of(cls, seed: int, n_devices: int, n_signals: int) -> SensorKeys:
        """Keys of all sensors of an adapter."""
        numbers = np.arange(n_devices * n_signals, dtype=np.uint64).reshape(n_devices, n_signals)
        return cls(mix(mix(np.full(1, seed, np.uint64)) + numbers))

    def uniform(self, tick: int, purpose: int) -> F64:
        """A number in [0, 1) for each sensor, tick and purpose."""
        word = np.array([(tick * 64 + purpose) & (2**64 - 1)], np.uint64)
        return (mix(self.keys ^ mix(word)) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def columns(self, which: npt.NDArray[np.int64]) -> SensorKeys:
        """The keys of some signals."""
        return SensorKeys(self.keys[:, which])


class SignalModel:
    """The signals of all devices of an adapter.

    Parameters
    ----------
    seed : other seeds give other values. signals : the same for each device.
    """

    def __init__(self, seed: int, n_devices: int, signals: Sequence[SimSignal]) -> None:
        self._signals = tuple(signals)
        self._keys = SensorKeys.of(seed, n_devices, len(self._signals))
        self._phase = self._keys.uniform(0, _PHASE)
        self._noise = np.array([signal.noise for signal in self._signals])

    def values(self, ts_ns: int, tick: int) -> F64:
        """Values of all sensors at a time, ``float64[devices, signals]``; `tick` is the number of its noise."""
        out = np.empty(self._phase.shape)
        for at, signal in enumerate(self._signals):
            out[:, at] = self._column(at, signal, ts_ns)
        noisy = np.flatnonzero(self._noise)
        if len(noisy):
            keys = self._keys.columns(noisy)
            # Four even numbers together: nearly a bell, and never further out than 3.5 deviations.
            spread = sum(keys.uniform(tick, _NOISE + 2 + i) for i in range(_N_UNIFORM)) - _N_UNIFORM / 2
            out[:, noisy] += self._noise[noisy] * spread / np.sqrt(_N_UNIFORM / 12)
        return out

    def _column(self, at: int, signal: SimSignal, ts_ns: int) -> F64:
        phase = self._phase[:, at]
        if signal.shape == "counter":
            since_s = (ts_ns % (signal.period or _DAY_NS)) / NS
            return np.floor(signal.rate * since_s + phase)
        period_ns = signal.period or _PERIOD_NS
        if signal.shape == "walk":
            unit = self._walk(at, period_ns, ts_ns)
        else:
            place = (ts_ns % period_ns / period_ns + phase) % 1.0
            if signal.shape == "square":
                unit = np.where(place < 0.5, 1.0, -1.0)
                if signal.labels:
                    return np.maximum(unit, 0.0)
            else:
                unit = np.sin(2 * np.pi * place) if signal.shape == "sine" else 2 * place - 1.0
        return np.asarray(signal.mean + signal.amplitude * unit, np.float64)

    def _walk(self, at: int, period_ns: int, ts_ns: int) -> F64:
        keys = self._keys.columns(np.array([at]))
        total = np.zeros(len(self._phase))
        for octave, weight in enumerate(_WEIGHTS.tolist()):
            step_ns = max(1, period_ns >> octave)
            point, rest_ns = divmod(ts_ns, step_ns)
            left, right = (keys.uniform(point + i, _POINTS + octave)[:, 0] for i in (0, 1))
            total += weight * (2 * (left + (right - left) * (rest_ns / step_ns)) - 1)
        return np.asarray(total / _WEIGHTS.sum(), np.float64)
