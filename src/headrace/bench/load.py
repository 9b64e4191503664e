"""Load for benchmarks: payload bytes as devices would send them, made from real series where there are any.

Every sensor follows one series from a place of its own, so that neighbours differ. Registers are what a PLC
would send: u16 in ten thousandths of the series' range, or F64 as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.registers import ReadMap, RegisterTag, compile_read_map, parse_address
from headrace.core.clock import NS
from headrace.core.errors import ConfigError
from headrace.core.layouts import Column, numpy_dtype
from headrace.core.sensors import SensorDirectory

Array = npt.NDArray[Any]
HEADER_BYTES = 9
"""MBAP header, function code and byte count of a Modbus TCP response."""
SERIES_FOLDER = Path("../shared/data/series")
FULL_SCALE = 10_000
ORDERS = ("poll", "shuffled", "random")


@dataclass(frozen=True)
class LoadSpec:
    """What load to make. `group` is D; `order` is how groups follow each other in a round."""

    sensors: int
    group: int
    dtype: str
    order: str
    seed: int = 1

    def __post_init__(self) -> None:
        if self.dtype not in ("u16", "f64"):
            raise ConfigError(f"--dtype is u16 or f64, got {self.dtype!r}")
        if self.order not in ORDERS:
            raise ConfigError(f"--order is one of {', '.join(ORDERS)}, got {self.order!r}")
        most = 125 if self.dtype == "u16" else 31
        if not 1 <= self.group <= most:
            raise ConfigError(
                f"--group is 1 to {most} for {self.dtype} (one Modbus response), got {self.group}"
            )
        if self.sensors < self.group or self.sensors % self.group:
            raise ConfigError(f"--sensors must be a multiple of --group {self.group}, got {self.sensors:,}")


@dataclass(frozen=True)
class Round:
    """One second of the plant: every group's response, joined, in the order they came."""

    payload: bytes
    order: npt.NDArray[np.intp]
    ts_ns: npt.NDArray[np.int64]


class Load:
    """Rounds of responses of all groups of a plant.

    Attributes
    ----------
    read_map : the compiled tags of the one device type. layout : its columns. source : where values are from.
    """

    def __init__(self, spec: LoadSpec, folder: Path = SERIES_FOLDER) -> None:
        self.spec = spec
        self.n_groups = spec.sensors // spec.group
        self._random = np.random.Generator(np.random.PCG64(spec.seed))
        series, self.source = real_series(folder), str(folder.name)
        if not series:
            series, self.source = fleet_series(spec.seed), "simulated fleet"
        self._table = np.concatenate([_in_registers(s, spec.dtype) for s in series])
        self._base = self._places([len(s) for s in series])
        self._lag_ns = self._random.integers(0, 500, self.n_groups) * 1_000_000
        self.read_map = self._read_map()
        self.layout = self.read_map.parts[0].layout

    def _places(self, lengths: Sequence[int]) -> Array:
        """Where in the table each sensor starts: a series by turns, a random place in its first half."""
        first = np.cumsum([0, *lengths[:-1]])
        which = np.arange(self.spec.sensors) % len(lengths)
        room = np.array(lengths) // 2
        place: Array = first[which] + (self._random.random(self.spec.sensors) * room[which]).astype(np.int64)
        return place

    def _read_map(self) -> ReadMap:
        size, kind = (1, "U16") if self.spec.dtype == "u16" else (4, "F64")
        tags = []
        for i in range(self.spec.group):
            name = f"signal{i}" if self.spec.group > 1 else ""
            grid = ";scale=0.1;add=-50" if self.spec.dtype == "u16" else ""
            limits = (-50.0, 990.0) if self.spec.dtype == "u16" else (-1e9, 1e9)
            column = Column(name, unit="degC", low=limits[0], high=limits[1])
            tags.append(RegisterTag(column, parse_address(f"holding:{i * size}:{kind}{grid}")))
        return compile_read_map(tags)

    def define(self, directory: SensorDirectory) -> npt.NDArray[np.uint32]:
        """Define all groups: their slots in the order of devices."""
        paths = [f"bench/hall{i // 10_000}/line{i // 500 % 20}/device{i}" for i in range(self.n_groups)]
        return directory.define_many(paths, self.layout)

    def round(self, number: int, start_ns: int) -> Round:
        """All responses of second `number`; times carry a lag of each device and some ms of jitter."""
        n, spec = self.n_groups, self.spec
        order = np.arange(n) if spec.order == "poll" else self._random.permutation(n)
        values = self._table[self._base + number].reshape(n, spec.group)[order]
        words = values.astype(values.dtype.newbyteorder(">"), copy=False).view(np.uint8).reshape(n, -1)
        responses = np.zeros((n, HEADER_BYTES + words.shape[1]), np.uint8)
        responses[:, 5], responses[:, 7], responses[:, 8] = words.shape[1] + 3, 3, words.shape[1] & 0xFF
        responses[:, HEADER_BYTES:] = words
        jitter_ns = self._random.integers(0, 4, n) * 1_000_000
        ts_ns = start_ns + number * NS + self._lag_ns[order] + jitter_ns
        return Round(responses.tobytes(), order, ts_ns)

    def values(self, number: int) -> Array:
        """Raw values of second `number`, one a sensor: what must be found in the store."""
        out: Array = self._table[self._base + number]
        return out


def _in_registers(series: Array, dtype: str) -> Array:
    if dtype == "f64":
        return series
    low, high = float(series.min()), float(series.max())
    scaled = (series - low) / ((high - low) or 1.0) * FULL_SCALE
    return np.round(scaled).astype(numpy_dtype(dtype))


def real_series(folder: Path) -> list[Array]:
    """Values of every Parquet series in `folder`; none where it does not exist."""
    import pyarrow.parquet as pq

    found = []
    for file in sorted(folder.glob("*.parquet")):
        values = pq.read_table(file, columns=["value"]).column("value").to_numpy()
        found.append(np.ascontiguousarray(values, np.float64))
    return found


def fleet_series(seed: int, n: int = 24, length: int = 8_192) -> list[Array]:
    """Stand-ins where there are no real series: slow temperatures, cycles, states, counters, noise."""
    random = np.random.Generator(np.random.PCG64(seed))
    t = np.arange(length)
    out = []
    for i in range(n):
        walk = np.cumsum(random.normal(0, 0.05, length))
        shapes = (
            20 + walk,
            50 + 30 * np.sin(t / (20 + i)) + random.normal(0, 0.2, length),
            np.repeat(random.integers(0, 5, length // 64), 64).astype(float),
            np.cumsum(random.integers(0, 3, length)).astype(float),
            np.where(t % (40 + i) < 25, 80.0, 5.0) + random.normal(0, 0.5, length),
        )
        out.append(np.round(shapes[i % len(shapes)], 2))
    return out
