"""Signal shapes: what the columns of a device measure, computed for many instants at once.

A `SignalForm` describes one signal in engineering terms: a base level, how much of it comes from warmth, load,
weather and recipe, the swing of the machine cycle, noise, and the grid on which the device reports it. A
`SignalTable` is the forms of a device compiled into one vector per coefficient, so that all signals of all
frames come from the same two dozen array operations:

    raw = level + spread · own + warm · warmth + load · load + weather · weather + recipe · recipe
          + swing · gate · clip(edge · triangle(phase), -1, 1) + noise · triangular noise,   rounded to the grid

Every instant is computed by itself (no state is carried along), with operations that give the same bits for
one value or a million. What is the same for all signals of a frame is in `Drivers`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.sim.noise import NOISE_ONE, U32, mix_int, odd_multipliers, triangular

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

_BLOCK_VALUES = 32_768
_HALF_TURN = float(1 << 30)
_COUNTER_SPAN = 1 << 32
_SPIKE_MASK = 0x7FFF
_QUARTER = np.uint32(1 << 30)
MODE_LABELS = ("stopped", "starting", "running", "waiting")


class Role(IntEnum):
    """How a signal's value comes about."""

    LEVEL = 0
    """An analog level, by the formula above."""
    COUNTER = 1
    """Counts while the machine works."""
    MODE = 2
    """The machine's mode: stopped, starting, running, waiting."""
    WORKING = 3
    """Whether the machine works (running and not waiting)."""
    PULSE = 4
    """On for a part of every machine cycle: a door, a clamp, a light barrier."""
    ALARM = 5
    """Now and then on for ten minutes of work."""


class Gate(IntEnum):
    """When a level's swing is there."""

    ALWAYS = 0
    RUNNING = 1
    WORKING = 2


@dataclass(frozen=True, slots=True)
class SignalForm:
    """One signal of a device, in engineering units.

    Parameters
    ----------
    name : the path's last level; further copies get ``_2``, ``_3``, ...
    dtype : the type that the device reports it in; scale, offset : its grid (scale 1, 0.1, 0.01, ...; offset a
        multiple of it).
    low, high : limits declared to the reader.
    level : the value of a cold, standing machine; spread : half-width of each device's own deviation.
    warm, load, weather, recipe : how much warmth (0 … 1), load (0 … 1), weather (-1 … 1) and recipe (-1 … 1) add.
    swing, gate, edge : half-height of the periodic part, when it is there, 1 triangle … 10 nearly square.
    turns, beats : periods in a machine cycle and in the device's own beat (heating cycle); whole numbers.
    noise : half-width of the noise. rate, idle_rate : a counter's steps a second of work, and of any time.
    """

    name: str
    unit: str = ""
    dtype: str = "u16"
    role: Role = Role.LEVEL
    scale: float = 1.0
    offset: float = 0.0
    low: float | None = None
    high: float | None = None
    level: float = 0.0
    spread: float = 0.0
    warm: float = 0.0
    load: float = 0.0
    weather: float = 0.0
    recipe: float = 0.0
    swing: float = 0.0
    gate: Gate = Gate.WORKING
    edge: float = 1.0
    turns: int = 1
    beats: int = 0
    noise: float = 0.0
    rate: float = 0.0
    idle_rate: float = 0.0

    @property
    def kind(self) -> Kind:
        """The signal kind that readers are told."""
        if self.role is Role.LEVEL:
            return Kind.ANALOG
        return Kind.COUNTER if self.role is Role.COUNTER else Kind.DISCRETE

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a discrete signal's codes."""
        if self.role is Role.MODE:
            return MODE_LABELS
        return ("off", "on") if self.kind is Kind.DISCRETE else ()


@dataclass(frozen=True, slots=True)
class Drivers:
    """What all signals of a frame share; arrays of one row a frame.

    ``key, noise, cycle, beat: uint32[F]`` (device, instant, phase in the machine cycle, phase in the beat);
    ``warmth, load, weather, recipe: float32[F]``; ``gate: float32[3, F]``; ``work_s, elapsed_s: float64[F]``;
    ``mode: uint8[F]``; ``alarm: uint32[F]`` a number that changes every ten minutes of work.
    """

    key: U32
    noise: U32
    cycle: U32
    beat: U32
    warmth: F32
    load: F32
    weather: F32
    recipe: F32
    gate: F32
    work_s: F64
    elapsed_s: F64
    mode: npt.NDArray[np.uint8]
    alarm: U32

    def part(self, first: int, last: int) -> Drivers:
        """Frames ``first:last``, without copies."""
        names = self.__slots__
        return Drivers(**{name: getattr(self, name)[..., first:last] for name in names})


@dataclass(frozen=True, eq=False)
class SignalTable:
    """The signals of one value type of a device, compiled.

    Columns are sorted: levels, counters, then states, so that each is one slice.

    Parameters
    ----------
    layout : what readers are told about the columns.
    forms : the form of each column; dtype : the one type of all values.
    """

    dtype: str
    forms: tuple[SignalForm, ...]
    layout: Layout
    n_levels: int
    n_counters: int
    scale: F64
    offset: F64
    coefficient: dict[str, F32] = field(repr=False)
    turns: U32 = field(repr=False)
    beats: U32 = field(repr=False)
    gate: npt.NDArray[np.intp] = field(repr=False)
    own: U32 = field(repr=False)
    noise_key: U32 = field(repr=False)
    raw_low: F32 = field(repr=False)
    raw_high: F32 = field(repr=False)

    @classmethod
    def compile(
        cls, forms: tuple[SignalForm, ...], names: tuple[str, ...], dtype: str, seed: int
    ) -> SignalTable:
        """Make the table of some forms, all reported as `dtype`. The seed fixes each column's own constants."""
        order = sorted(range(len(forms)), key=lambda i: min(forms[i].role, Role.MODE))
        forms, names = tuple(forms[i] for i in order), tuple(names[i] for i in order)
        levels = [f for f in forms if f.role is Role.LEVEL]
        scale, offset = np.array([f.scale for f in forms]), np.array([f.offset for f in forms])
        names_of = ("spread", "warm", "load", "weather", "recipe", "swing", "noise")
        step = np.array([f.scale for f in levels])
        raw = {n: (np.array([getattr(f, n) for f in levels]) / step).astype(np.float32) for n in names_of}
        level = np.array([f.level - f.offset for f in levels])
        raw["level"] = (level / step).astype(np.float32)
        raw["edge"] = np.array([f.edge for f in levels], np.float32)
        raw["spread"] *= np.float32(0.5 / _HALF_TURN)
        raw["noise"] *= np.float32(1 / NOISE_ONE)
        low, high = _raw_span(dtype, len(levels))
        return cls(
            dtype=dtype, forms=forms, layout=_layout(forms, names, dtype), n_levels=len(levels),
            n_counters=sum(f.role is Role.COUNTER for f in forms), scale=scale, offset=offset, coefficient=raw,
            turns=np.array([f.turns for f in levels], np.uint32), beats=np.array([f.beats for f in levels], np.uint32),
            gate=np.array([f.gate for f in levels], np.intp), own=odd_multipliers(mix_int(seed, 1), len(forms)),
            noise_key=odd_multipliers(mix_int(seed, 2), len(forms)), raw_low=low, raw_high=high,
        )  # fmt: skip

    @property
    def width(self) -> int:
        """Number of columns, D."""
        return len(self.forms)

    @property
    def is_decimal(self) -> bool:
        """Whether the device sends decimals: its grid is in the values instead of beside them."""
        return self.dtype in ("f32", "f64")

    @cached_property
    def per_unit(self) -> F64:
        """Grid steps in one unit of each column: dividing by them gives the decimal nearest to the grid."""
        return np.where(self.scale < 1.0, np.rint(1.0 / self.scale), 1.0 / self.scale)

    @cached_property
    def shift(self) -> F64:
        """Grid steps from 0 to raw 0."""
        return np.rint(self.offset / self.scale)

    def evaluate(self, drivers: Drivers) -> Array:
        """Values of all columns at all frames: T[F, D] in the table's type.

        Cost: about 10 ns a value for wide tables; works through blocks that fit the cache.
        """
        n_frames = len(drivers.key)
        out = np.empty((n_frames, self.width), numpy_dtype(self.dtype))
        step = max(64, _BLOCK_VALUES // self.width)
        for first in range(0, n_frames, step):
            last = min(first + step, n_frames)
            self._fill(out[first:last], drivers.part(first, last))
        return out

    def moved(self, values: Array, column: I64, steps: F64) -> Array:
        """Values moved by some steps of their columns' grids, kept inside the type's range."""
        if self.is_decimal:
            return np.rint(values * self.per_unit[column] + steps) / self.per_unit[column]
        info = np.iinfo(values.dtype)
        return np.clip(values + steps, info.min, info.max).astype(values.dtype)

    def _fill(self, out: Array, drivers: Drivers) -> None:
        n = self.n_levels
        if n:
            levels = self._levels(drivers)
            if self.is_decimal:
                out[:, :n] = (levels.T + self.shift[:n]) / self.per_unit[:n]
            else:
                out[:, :n] = levels.astype(np.int32).T
        for column in range(n, n + self.n_counters):
            out[:, column] = self._counter(column, drivers)
        for column in range(n + self.n_counters, self.width):
            out[:, column] = self._state(column, drivers)

    def _levels(self, d: Drivers) -> F32:
        """Raw levels, rounded: float32[levels, F] (one row a column, so that rows are long)."""
        c, n = self.coefficient, self.n_levels
        own = d.key[None, :] * self.own[:n, None]
        phase = d.cycle[None, :] * self.turns[:, None]
        phase += own
        if self.beats.any():
            phase += d.beat[None, :] * self.beats[:, None]
        wave = phase.view(np.int32).astype(np.float32)
        np.abs(wave, out=wave)
        wave *= (c["edge"] / np.float32(_HALF_TURN))[:, None]
        wave -= c["edge"][:, None]
        np.clip(wave, -1.0, 1.0, out=wave)
        wave *= c["swing"][:, None]
        wave *= d.gate[self.gate]
        more = own.view(np.int32).astype(np.float32)
        more *= c["spread"][:, None]
        wave += more
        wave += c["level"][:, None]
        for name in ("warmth", "load", "weather", "recipe"):
            share = c["warm" if name == "warmth" else name]
            if share.any():
                np.multiply(getattr(d, name)[None, :], share[:, None], out=more)
                wave += more
        np.multiply(triangular(d.noise, self.noise_key[:n]), c["noise"][:, None], out=more, casting="unsafe")
        wave += more
        self._spike(wave, d.noise)
        np.rint(wave, out=wave)
        np.clip(wave, self.raw_low[:, None], self.raw_high[:, None], out=wave)
        return wave

    def _spike(self, wave: F32, noise: U32) -> None:
        """A wild reading in one of 32,768 frames: electrical noise, not a fault."""
        frame = np.flatnonzero((noise & np.uint32(_SPIKE_MASK)) == 0)
        if len(frame):
            column = (noise[frame] >> np.uint32(15)) % np.uint32(self.n_levels)
            wave[column, frame] += 20 * NOISE_ONE * self.coefficient["noise"][column] + 8

    def _counter(self, column: int, d: Drivers) -> Array:
        form = self.forms[column]
        own = (d.key * self.own[column]).astype(np.int64)
        steps = np.floor(d.work_s * (form.rate / form.scale) + d.elapsed_s * (form.idle_rate / form.scale))
        count: Array = steps.astype(np.int64) + (own >> 12)
        if self.is_decimal:
            decimals: Array = (count % _COUNTER_SPAN) / self.per_unit[column]
            return decimals
        return count.astype(numpy_dtype(self.dtype))

    def _state(self, column: int, d: Drivers) -> Array:
        role = self.forms[column].role
        if role is Role.MODE:
            return d.mode
        working: Array = d.gate[Gate.WORKING] > 0
        if role is Role.PULSE:
            working &= d.cycle * np.uint32(self.forms[column].turns) + d.key * self.own[column] < _QUARTER
        elif role is Role.ALARM:
            working &= (d.alarm * self.own[column]) >> np.uint32(22) < np.uint32(6)
        return working


def _raw_span(dtype: str, n: int) -> tuple[F32, F32]:
    if dtype in ("f32", "f64"):
        return np.full(n, -(2.0**24), np.float32), np.full(n, 2.0**24, np.float32)
    info = np.iinfo(numpy_dtype(dtype))
    # Float32 holds whole numbers up to 2**24; no level comes near it.
    low, high = max(int(info.min), -(1 << 24)), min(int(info.max), 1 << 24)
    return np.full(n, low, np.float32), np.full(n, high, np.float32)


def _layout(forms: tuple[SignalForm, ...], names: tuple[str, ...], dtype: str) -> Layout:
    columns = []
    for form, name in zip(forms, names, strict=True):
        grid = {} if dtype in ("f32", "f64") else {"scale": form.scale, "offset": form.offset}
        columns.append(
            Column(name, form.kind, form.unit, low=form.low, high=form.high, labels=form.labels, **grid)
        )
    return Layout(dtype, tuple(columns))


def waveform(
    key: npt.NDArray[np.uint64], t0_ns: I64, load: F32, n_values: int, rate_hz: int
) -> npt.NDArray[np.int16]:
    """Vibration bursts: int16[W, n], one row a burst.

    Three harmonics of the shaft's turning, each a smoothed triangle, and noise; the amplitude follows the load.

    Parameters
    ----------
    key : uint64[W], the sensor; t0_ns : int64[W], when the burst starts; load : float32[W], 0 … 1.
    """
    low = (key & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    start = (t0_ns.astype(np.uint64) // np.uint64(1_000)).astype(np.uint32)
    turn_hz = 20.0 + 10.0 * (low >> np.uint32(24)).astype(np.float64) / 256.0
    step = (turn_hz / rate_hz * 2.0**32).astype(np.uint32)
    index = np.arange(n_values, dtype=np.uint32)
    phase = index[None, :] * step[:, None] + (start * np.uint32(2_654_435_761))[:, None]
    out = np.zeros(phase.shape, np.float32)
    for turns, height in ((1, 1.0), (2, 0.35), (7, 0.2)):
        x = np.abs((phase * np.uint32(turns)).view(np.int32).astype(np.float32))
        x *= np.float32(1 / _HALF_TURN)
        x -= 1.0
        out += np.float32(height) * (x * (np.float32(1.5) - np.float32(0.5) * x * x))
    out *= (800.0 + 6_000.0 * load)[:, None].astype(np.float32)
    noise = triangular(low ^ start, odd_multipliers(mix_int(n_values), n_values))
    out += noise.T * np.float32(120.0 / NOISE_ONE)
    return np.clip(np.rint(out), -32_768, 32_767).astype(np.int16)
