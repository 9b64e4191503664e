"""Machines: what the devices of a fleet are doing at any instant, and what their sensors read then.

A device follows its line's calendar: it warms up, works cycle after cycle, waits now and then for parts, changes
recipe. All of it is a function of the device's key and the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NS
from headrace.sim.calendars import Calendar, LineState
from headrace.sim.device_types import DeviceType, FleetPart
from headrace.sim.noise import U64, below, keys, mix_int, salted, uniform
from headrace.sim.signals import Drivers
from headrace.sim.truth import Fault, FaultTable

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

_BLOCK_NS = 600 * NS
_BLOCKS_PER_RECIPE = 18
_DAY_NS = 86_400 * NS
_COUNTED_FROM_NS = 1_577_836_800 * NS
# Numbers of a device's independent random streams.
_SETTINGS, _INSTANT, _WAIT, _RECIPE, _ALARM, _DELAY = range(1, 7)


@dataclass(frozen=True, slots=True, eq=False)
class Machines:
    """The working side of a fleet.

    Parameters
    ----------
    calendars : in turn over the lines; a line works up to `line_offset_s` early or late by it.
    calendar_shift_ns : added to the time before a calendar is asked.
    """

    seed: int
    devices_per_line: int
    calendars: tuple[Calendar, ...]
    line_offset_s: int
    calendar_shift_ns: int
    faults: FaultTable

    def line_offset_ns(self, line: I64) -> I64:
        """How early each line works: int64[n], within `line_offset_s` of its calendar."""
        hashed = keys(mix_int(self.seed, 11), line)
        return (below(hashed, 2 * self.line_offset_s + 1) - self.line_offset_s) * NS

    def line_state(self, line: I64, ts_ns: I64, tau_s: float) -> LineState:
        """What each line does at each instant; `tau_s` is the time constant of the warmth."""
        at_ns = ts_ns + (self.line_offset_ns(line) + self.calendar_shift_ns)
        if len(self.calendars) == 1:
            return self.calendars[0].state(at_ns, tau_s)
        n = len(line)
        whole = LineState(np.empty(n, np.bool_), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n))
        which = line % len(self.calendars)
        for number, calendar in enumerate(self.calendars):
            rows = np.flatnonzero(which == number)
            state = calendar.state(at_ns[rows], tau_s)
            whole.running[rows], whole.since_ns[rows] = state.running, state.since_ns
            whole.operating_ns[rows], whole.warmth[rows] = state.operating_ns, state.warmth
        return whole

    def keys(self, device: I64) -> U64:
        """The random key of each device: uint64[n]."""
        return keys(mix_int(self.seed, 1), device)

    def awake(self, kind: DeviceType, device: I64, key: U64, ts_ns: I64) -> Bools:
        """A sleeping device wakes some time after its line starts, one after the other, and stops with it."""
        state = self.line_state(device // self.devices_per_line, ts_ns, kind.profile.tau_s)
        delay = uniform(salted(key, _DELAY)) * (kind.profile.ramp_s * NS)
        return state.running & (state.since_ns >= delay)

    def evaluate(self, kind: DeviceType, part: FleetPart, device: I64, ts_ns: I64, drivers: Drivers) -> Array:
        """Values of one part from the drivers, then what is stuck or drifts: T[F, D]."""
        assert part.table is not None
        values = part.table.evaluate(drivers)
        frame, fault, column = self._sick(Fault.STUCK, part, device, ts_ns)
        if len(frame):
            sick = device[frame]
            then = self.drivers(kind, sick, self.keys(sick), self.faults.start_ns[fault])
            values[frame, column] = part.table.evaluate(then)[np.arange(len(frame)), column]
        frame, fault, column = self._sick(Fault.DRIFT, part, device, ts_ns)
        if len(frame):
            hours = (ts_ns[frame] - self.faults.start_ns[fault]) / (3_600 * NS)
            steps = np.rint(hours * self.faults.size[fault])
            values[frame, column] = part.table.moved(values[frame, column], column, steps)
        return values

    def _sick(self, kind: Fault, part: FleetPart, device: I64, ts_ns: I64) -> tuple[I64, I64, I64]:
        """Which values of a part a fault touches: frame, fault, column."""
        frame, fault = self.faults.rows(kind, device, ts_ns)
        column = self.faults.column[fault] - part.first_column
        mine = (column >= 0) & (column < part.layout.width)
        return frame[mine], fault[mine], column[mine]

    def drivers(self, kind: DeviceType, device: I64, key: U64, ts_ns: I64) -> Drivers:
        """What all signals of each frame share: the line's state and the machine's place in its work."""
        profile = kind.profile
        state = self.line_state(device // self.devices_per_line, ts_ns, profile.tau_s)
        setting = salted(key, _SETTINGS)
        own = 0.8 + 0.4 * ((setting >> np.uint64(8)) & np.uint64(0xFF)).astype(np.float64) / 255.0
        # The machine makes the same work in every block of ten minutes of operation, but in one block of four
        # it waits for some of the last two minutes and works the faster before: so what it has done in all
        # is known without counting.
        operating = state.operating_ns + below(setting, 86_400) * NS
        block = operating // _BLOCK_NS
        inside = operating - block * _BLOCK_NS
        hashed = salted(key, _WAIT, block)
        pause = ((hashed >> np.uint64(8)) & np.uint64(0xFF)).astype(np.int64) * (_BLOCK_NS // 5 // 256)
        span = _BLOCK_NS - np.where(hashed & np.uint64(3), 0, pause)
        work_s = (block + np.minimum(inside / span, 1.0)) * (_BLOCK_NS / NS)
        waiting = state.running & (inside >= span)
        ramp = np.where(state.running, np.minimum(state.since_ns / (profile.ramp_s * NS), 1.0), 0.0)
        load = np.where(waiting, 0.0, ramp).astype(np.float32)
        n = len(ts_ns)
        gate = np.ones((3, n), np.float32)
        gate[1], gate[2] = ramp, load
        mode = np.select([~state.running, waiting, ramp < 1.0], [0, 3, 1], 2)
        zero, one32 = np.zeros(n, np.float32), np.zeros(n, np.uint32)
        return Drivers(
            key=_upper(key), noise=_upper(salted(key, _INSTANT, ts_ns)),
            cycle=_turns(work_s / (profile.cycle_s * own)),
            beat=_turns(ts_ns / (profile.beat_s * own * NS)) if kind.uses("beats") else one32,
            warmth=state.warmth.astype(np.float32), load=load,
            weather=_weather(ts_ns) if kind.uses("weather") else zero,
            recipe=_signed(salted(key, _RECIPE, block // _BLOCKS_PER_RECIPE)) if kind.uses("recipe") else zero,
            gate=gate, work_s=work_s, elapsed_s=(ts_ns - _COUNTED_FROM_NS) / NS,
            mode=mode.astype(np.uint8),
            alarm=_upper(salted(key, _ALARM, block)) if kind.uses("alarm") else one32,
        )  # fmt: skip


def _upper(hashed: U64) -> npt.NDArray[np.uint32]:
    return (hashed >> np.uint64(32)).astype(np.uint32)


def _turns(phase: npt.NDArray[np.float64]) -> npt.NDArray[np.uint32]:
    """The fraction of a phase as a 32-bit angle."""
    return ((phase - np.floor(phase)) * 2.0**32).astype(np.uint32)


def _signed(hashed: U64) -> npt.NDArray[np.float32]:
    return (uniform(hashed) * 2.0 - 1.0).astype(np.float32)


def _weather(ts_ns: I64) -> npt.NDArray[np.float32]:
    """A smooth daily wave from -1 (about three in the morning) to 1, and slower ones of some days."""
    out = np.zeros(len(ts_ns))
    for period_ns, height in ((_DAY_NS, 0.7), (_DAY_NS * 5 + _DAY_NS // 3, 0.3)):
        turn = ts_ns / period_ns - 0.125
        x = 1.0 - np.abs((turn - np.floor(turn)) * 4.0 - 2.0)
        out += height * (x * (1.5 - 0.5 * x * x))
    return out.astype(np.float32)
