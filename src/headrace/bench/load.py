"""Load for benchmarks: what devices would send, made from real series where there are any.

Every sensor follows one series from a place of its own, so that neighbours differ. Registers are what a PLC
would send: u16 in ten thousandths of the series' range, or F64 as it is. The other shapes, which message
protocols bring, are in `headrace.bench.shapes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.register_addresses import parse_address
from headrace.adapters.payloads.registers import ReadMap, RegisterTag, compile_read_map
from headrace.core.clock import NS
from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout, numpy_dtype
from headrace.core.sensors import SensorDirectory

Array = npt.NDArray[Any]
HEADER_BYTES = 9
"""MBAP header, function code and byte count of a Modbus TCP response."""
SERIES_FOLDER = Path("../shared/data/series")
FULL_SCALE = 10_000
ORDERS = ("poll", "shuffled", "random")
SHAPES = ("dense", "mixed", "sparse", "wave")
FlatRows = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], Array]
"""Samples of a round as the reference gets them: (sensor, ts_ns, value)."""


@dataclass(frozen=True)
class LoadSpec:
    """What load to make.

    Parameters
    ----------
    group : sensors of a device, D. order : how groups follow each other in a round. active : share of the groups
    that send anything, of 1. shape : see `SHAPES`.
    """

    sensors: int
    group: int
    dtype: str
    order: str
    active: float = 1.0
    shape: str = "dense"
    seed: int = 1

    def __post_init__(self) -> None:
        for option, value, known in (
            ("--dtype", self.dtype, ("u16", "f64")), ("--order", self.order, ORDERS), ("--shape", self.shape, SHAPES),
        ):  # fmt: skip
            if value not in known:
                raise ConfigError(f"{option} is one of {', '.join(known)}, got {value!r}")
        most = {"dense": 125 if self.dtype == "u16" else 31, "wave": 1}.get(self.shape, 10_000)
        if not 1 <= self.group <= most:
            what = "one Modbus response" if self.shape == "dense" else "one frame"
            raise ConfigError(f"--group is 1 to {most:,} for {self.dtype} ({what}), got {self.group}")
        if self.sensors < self.group or self.sensors % self.group:
            raise ConfigError(f"--sensors must be a multiple of --group {self.group}, got {self.sensors:,}")
        if not 0 < self.active <= 1:
            raise ConfigError(f"--active is a share above 0, at most 1, got {self.active}")

    @property
    def n_groups(self) -> int:
        """Groups that are registered."""
        return self.sensors // self.group

    def active_groups(self) -> npt.NDArray[np.intp]:
        """Which groups send, ascending: evenly spread over all."""
        n = max(1, round(self.n_groups * self.active))
        return (np.arange(n) * self.n_groups // n).astype(np.intp)


class Input(Protocol):
    """What comes in one second, made before the clock starts."""

    def batch(self, slots: npt.NDArray[np.uint32], arrival_ns: int) -> FrameBatch:
        """Decode it, as the adapter does; `slots` of the active groups."""
        ...


class DeviceLoad(Protocol):
    """Seconds of all devices of a plant, and what must be found in the store afterwards."""

    spec: LoadSpec
    source: str
    layout: Layout

    def input(self, number: int, start_ns: int) -> Input:
        """What comes in second `number`."""
        ...

    def flat(self, number: int, start_ns: int) -> FlatRows:
        """The usable samples of second `number`, for the reference."""
        ...

    def n_samples(self, number: int) -> int:
        """Samples of second `number`."""
        ...

    def stored_of(self, place: int, n_rounds: int) -> tuple[Array, Array | None]:
        """What one active group must have in the store: raw values [F, D] and quality, None for all good."""
        ...


def define_groups(load: DeviceLoad, directory: SensorDirectory) -> npt.NDArray[np.uint32]:
    """Define all groups: the slots of those that are active, in the order of devices."""
    paths = [f"bench/hall{i // 10_000}/line{i // 500 % 20}/device{i}" for i in range(load.spec.n_groups)]
    return directory.define_many(paths, load.layout)[load.spec.active_groups()]


class SeriesTable:
    """Values for any number of sensors: each follows a series from a place of its own."""

    def __init__(self, spec: LoadSpec, n_sensors: int, folder: Path) -> None:
        series, self.source = real_series(folder), str(folder.name)
        if not series:
            series, self.source = fleet_series(spec.seed), "simulated fleet"
        self.random = np.random.Generator(np.random.PCG64(spec.seed))
        self.values = np.concatenate([_in_registers(s, spec.dtype) for s in series])
        lengths = [len(s) for s in series]
        first = np.cumsum([0, *lengths[:-1]])
        which = np.arange(n_sensors) % len(lengths)
        room = np.array(lengths) // 2
        self.place: Array = first[which] + (self.random.random(n_sensors) * room[which]).astype(np.int64)
        """Where each sensor starts: a series by turns, a random place in its first half."""

    def at(self, number: int) -> Array:
        """Value of each sensor in second `number`."""
        out: Array = self.values[self.place + number]
        return out


@dataclass(frozen=True)
class Responses:
    """One second of a plant behind Modbus: every group's response, joined, in the order they came."""

    read_map: ReadMap
    payload: bytes
    order: npt.NDArray[np.intp]
    ts_ns: npt.NDArray[np.int64]

    def batch(self, slots: npt.NDArray[np.uint32], arrival_ns: int) -> FrameBatch:
        """Decode all responses at once."""
        part = self.read_map.decode(self.payload, HEADER_BYTES)[0]
        return FrameBatch.dense(
            slots[self.order], self.ts_ns, part.values, part.quality, arrival_ns=arrival_ns, origin="bench"
        )


class RegisterLoad:
    """Rounds of register responses of all active groups of a plant; see `DeviceLoad`."""

    def __init__(self, spec: LoadSpec, folder: Path = SERIES_FOLDER) -> None:
        self.spec = spec
        self.n_groups = len(spec.active_groups())
        self._table = SeriesTable(spec, self.n_groups * spec.group, folder)
        self.source = self._table.source
        self._random = self._table.random
        self._lag_ns = self._random.integers(0, 500, self.n_groups) * 1_000_000
        self._read_map = self._compile()
        self.layout = self._read_map.parts[0].layout

    def _compile(self) -> ReadMap:
        size, kind = (1, "U16") if self.spec.dtype == "u16" else (4, "F64")
        tags = []
        for i in range(self.spec.group):
            name = f"signal{i}" if self.spec.group > 1 else ""
            grid = ";scale=0.1;add=-50" if self.spec.dtype == "u16" else ""
            limits = (-50.0, 990.0) if self.spec.dtype == "u16" else (-1e9, 1e9)
            column = Column(name, unit="degC", low=limits[0], high=limits[1])
            tags.append(RegisterTag(column, parse_address(f"holding:{i * size}:{kind}{grid}")))
        return compile_read_map(tags)

    def input(self, number: int, start_ns: int) -> Responses:
        """All responses of second `number`; times carry a lag of each device and some ms of jitter."""
        n, spec = self.n_groups, self.spec
        order = np.arange(n) if spec.order == "poll" else self._random.permutation(n)
        values = self._table.at(number).reshape(n, spec.group)[order]
        words = values.astype(values.dtype.newbyteorder(">"), copy=False).view(np.uint8).reshape(n, -1)
        responses = np.zeros((n, HEADER_BYTES + words.shape[1]), np.uint8)
        responses[:, 5], responses[:, 7], responses[:, 8] = words.shape[1] + 3, 3, words.shape[1] & 0xFF
        responses[:, HEADER_BYTES:] = words
        jitter_ns = self._random.integers(0, 4, n) * 1_000_000
        ts_ns = start_ns + number * NS + self._lag_ns[order] + jitter_ns
        return Responses(self._read_map, responses.tobytes(), order, ts_ns)

    def flat(self, number: int, start_ns: int) -> FlatRows:
        """One value of every sensor."""
        values = self._table.at(number)
        n = len(values)
        return np.arange(n, dtype=np.uint32), np.full(n, start_ns + number * NS), values

    def n_samples(self, number: int) -> int:
        """One a sensor."""
        return len(self._table.place)

    def stored_of(self, place: int, n_rounds: int) -> tuple[Array, Array | None]:
        """A group's registers, a row a second."""
        mine = self._table.place[place * self.spec.group :][: self.spec.group]
        return np.stack([self._table.values[mine + i] for i in range(n_rounds)]), None


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
