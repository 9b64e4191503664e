"""A mixed set of sensors: windows of recorded or made signals, each sensor's from a place of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.bench.codecs import Series, load
from headrace.core.clock import NS
from headrace.core.errors import ConfigError

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
_SPAN_MAX_NS = 20 * 3_600 * NS
"""A window of times that lasts longer is told at 1 Hz, so that all sensors are within one day."""


@dataclass(frozen=True, eq=False)
class MixedSet:
    """Sensors as columns: ``ts_ns: int64[sensors, samples]`` from 0 on, ``values: float64[sensors, samples]``.

    Sensor i is of series ``names[i % len(names)]``.
    """

    names: tuple[str, ...]
    ts_ns: I64
    values: F64

    @property
    def shape(self) -> tuple[int, int]:
        """(sensors, samples)."""
        n, m = self.values.shape
        return n, m

    def path(self, sensor: int) -> str:
        """``bench/mixed/<series>/<number>``."""
        return f"bench/mixed/{self.names[sensor % len(self.names)]}/s{sensor // len(self.names):05d}"


def mixed_set(folder: Path | None, sensors: int, samples: int, seed: int = 1) -> MixedSet:
    """Windows of the series of a folder, or made signals.

    Parameters
    ----------
    folder : of series files (see ``headrace bench codecs``); None: `made` ones. samples : each sensor's; series with
    fewer are left out. Where sensors need more than a series has, their windows overlap.

    Raises
    ------
    ConfigError : no series is long enough.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    if folder is None:
        return made(sensors, samples, random)
    series = [one for one in map(_rising, load(folder)) if len(one.values) >= samples]
    if not series:
        raise ConfigError(f"{folder} has no series of {samples:,} samples or more")
    ts_ns, values = np.empty((sensors, samples), np.int64), np.empty((sensors, samples))
    for sensor in range(sensors):
        one = series[sensor % len(series)]
        ts_ns[sensor], values[sensor] = _window(one, samples, random)
    return MixedSet(tuple(one.name for one in series), ts_ns, values)


def _rising(one: Series) -> Series:
    """Without samples whose time is not above all before it: a sensor has one value at a time."""
    highest = np.maximum.accumulate(one.ts_ns)
    keep = np.append(True, one.ts_ns[1:] > highest[:-1])
    return Series(one.name, one.ts_ns[keep], one.values[keep])


def _window(one: Series, samples: int, random: np.random.Generator) -> tuple[I64, F64]:
    """Times from 0 on, and values."""
    first = int(random.integers(0, len(one.values) - samples + 1))
    return _told(one.ts_ns[first : first + samples] - one.ts_ns[first]), one.values[first : first + samples]


def _told(ts_ns: I64) -> I64:
    if len(ts_ns) < 2 or ts_ns[-1] <= _SPAN_MAX_NS:
        return ts_ns
    usual = int(np.median(np.diff(ts_ns)))
    return ts_ns // usual * NS + ts_ns % usual


def made(sensors: int, samples: int, random: np.random.Generator) -> MixedSet:
    """Six kinds of signals as plants have them, at 1 Hz; no two sensors have the same values.

    A display's and a converter's temperature, a state, a counter, a machine's cycle, a value of full precision.
    """
    second = np.arange(samples)
    ts_ns = np.tile(second * NS, (sensors, 1))
    values = np.empty((sensors, samples))
    for number, make in enumerate(_MADE.values()):
        mine = np.arange(number, sensors, len(_MADE))
        values[mine] = make(len(mine), second + random.integers(0, 100_000, (len(mine), 1)), random)
    return MixedSet(tuple(_MADE), ts_ns, values)


def _slow(n: int, second: I64, random: np.random.Generator) -> F64:
    walk: F64 = np.cumsum(random.normal(0.0, 0.02, second.shape), axis=1)
    return 180.0 + random.normal(0.0, 30.0, (n, 1)) + 25.0 * np.sin(second / 4_000.0) + walk


def _display(n: int, second: I64, random: np.random.Generator) -> F64:
    return np.round(_slow(n, second, random) + random.normal(0.0, 0.05, second.shape), 1)


def _converter(n: int, second: I64, random: np.random.Generator) -> F64:
    step = 300.0 / 16_383.0
    return np.round((_slow(n, second, random) + random.normal(0.0, 0.03, second.shape)) / step) * step


def _state(n: int, second: I64, random: np.random.Generator) -> F64:
    changes = random.random(second.shape) < 1.0 / 120.0
    state: I64 = np.cumsum(changes * random.integers(1, 5, second.shape), axis=1) % 5
    return state.astype(np.float64)


def _counter(n: int, second: I64, random: np.random.Generator) -> F64:
    start = random.integers(0, 1_000_000, (n, 1))
    count: F64 = (start + np.cumsum(random.poisson(3.0, second.shape), axis=1)) / 1_000.0
    return count


def _cycle(n: int, second: I64, random: np.random.Generator) -> F64:
    pressed = 12.0 * np.maximum(0.0, np.sin(second * (2 * np.pi / 417.0))) ** 3
    read: F64 = np.rint((pressed + random.normal(0.0, 0.02, second.shape)) / 20.0 * 4_095.0) * (
        20.0 / 4_095.0
    )
    return read


def _computed(n: int, second: I64, random: np.random.Generator) -> F64:
    return _slow(n, second, random) * 1.8 + random.normal(0.0, 0.4, second.shape)


_MADE: dict[str, Callable[[int, I64, np.random.Generator], F64]] = {
    "display": _display, "converter": _converter, "state": _state, "counter": _counter, "cycle": _cycle,
    "computed": _computed,
}  # fmt: skip
