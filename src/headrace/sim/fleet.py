"""A factory's sensors as a function: ten or ten million, without an object for any of them.

`Fleet` is a description and a seed. Which devices there are, what they are called, when they report and what
they measure is computed from the device's number and the time whenever it is asked for, as columns. Nothing is
stored, nothing is carried along: the same question has the same answer, in any order and in any pieces.

Devices stand on lines, lines in areas, areas on sites; a line works by one of the plant's shift calendars, some
minutes early or late. What they do is in `machines`, what they measure in `signals`, when they report in
`reports`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.layouts import Layout
from headrace.sim.calendars import STANDARD_PLANS, Calendar, ShiftPlan
from headrace.sim.device_types import DeviceType, compose
from headrace.sim.machines import Machines
from headrace.sim.profiles import Behaviour, DeviceProfile
from headrace.sim.reports import Frames, Reporter, Surge, pieces
from headrace.sim.truth import NO_FAULTS, FaultTable, Truth

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

LINES_PER_AREA = 4
SITES = ("leon", "porto", "torino", "graz", "lille", "brno", "aarhus", "vigo")
AREAS = ("paint", "press", "assembly", "utilities")


@dataclass(frozen=True, slots=True, eq=False)
class DeviceColumns:
    """Devices as columns, one row each, in order of their number.

    ``device: int64[n]``, ``type: int64[n]`` index in `Fleet.types`, ``line: int64[n]``, ``calendar: int64[n]``
    index in `Fleet.plans`, ``period_ns, phase_ns: int64[n]``, ``behaviour, rest: uint8[n]``,
    ``first_sensor, n_sensors: int64[n]``.
    """

    device: I64
    type: I64
    line: I64
    calendar: I64
    period_ns: I64
    phase_ns: I64
    behaviour: U8
    rest: U8
    first_sensor: I64
    n_sensors: I64


@dataclass(frozen=True, eq=False)
class Fleet:
    """A simulated factory of `n_sensors` sensors.

    Parameters
    ----------
    n_sensors : exactly so many, 1 to 10 million and more.
    seed : everything random follows from it.
    group_size : sensors of each device, all of one value type; None for devices of natural size and types.
        1 makes lone sensors.
    dtype : the value type of all sensors; None: ``u16`` for a fixed group size, else what each signal has.
    profiles : the device types, in turn along each line; None: everything, or what is polled for a fixed size.
    period_ns : reporting period of periodic devices; None: each profile's own.
    devices_per_line : how many devices stand on a line.
    plans : shift calendars, in turn over the lines; timezone : the plant's.
    line_offset_s : each line works up to so many seconds early or late.
    calendar_shift_ns : added to the time before the calendars are asked (`calendars.shift_into_work`).
    faults : what breaks (`truth.plant_faults`); surges : when reports come faster.

    Examples
    --------
    >>> fleet = Fleet(1_000, seed=7, group_size=50)
    >>> fleet.n_devices, fleet.paths(np.array([0, 1]))
    (20, ['leon/paint/line1/oven1', 'leon/paint/line1/press2'])
    >>> fleet.values(np.array([0]), np.array([1_700_000_000_000_000_000])).shape
    (1, 50)
    """

    n_sensors: int
    seed: int = 0
    group_size: int | None = None
    dtype: str | None = None
    profiles: tuple[DeviceProfile, ...] | None = None
    period_ns: int | None = None
    devices_per_line: int = 16
    plans: tuple[ShiftPlan, ...] = STANDARD_PLANS
    timezone: str = "Europe/Madrid"
    line_offset_s: int = 480
    calendar_shift_ns: int = 0
    faults: FaultTable = NO_FAULTS
    surges: tuple[Surge, ...] = ()

    # --- what there is -------------------------------------------------------------------------------

    @cached_property
    def types(self) -> tuple[DeviceType, ...]:
        """The device types; the last may be one smaller device that makes `n_sensors` exact."""
        return compose(self.n_sensors, self.group_size, self.dtype, self.profiles, self.seed)

    @cached_property
    def machines(self) -> Machines:
        """What the devices do."""
        calendars = tuple(Calendar(plan, self.timezone) for plan in self.plans)
        return Machines(
            self.seed,
            self.devices_per_line,
            calendars,
            self.line_offset_s,
            self.calendar_shift_ns,
            self.faults,
        )

    @cached_property
    def reporter(self) -> Reporter:
        """When the devices report."""
        return Reporter(self.machines, self.types, self.period_ns, self.surges)

    @cached_property
    def n_devices(self) -> int:
        """Number of devices; one that has several value types is one group for each."""
        return sum(t.n_devices for t in self.types)

    @property
    def n_lines(self) -> int:
        """Number of lines."""
        return -(-self.n_devices // self.devices_per_line)

    def type_index(self, device: I64) -> I64:
        """Index in `types` of each device: int64[n]."""
        last = self.types[-1]
        index = device % self.types[0].cycle
        return np.where(device == last.first, len(self.types) - 1, index) if last.is_tail else index

    def devices(self, first: int = 0, last: int | None = None) -> DeviceColumns:
        """The devices ``first:last`` as columns."""
        device = np.arange(first, self.n_devices if last is None else min(last, self.n_devices))
        index = self.type_index(device)
        sizes = np.array([t.size for t in self.types])
        period = np.array([self.reporter.period(t) for t in self.types])[index]
        line = device // self.devices_per_line
        before = np.concatenate(([0], np.cumsum([t.size for t in self.types if not t.is_tail])))
        turn, at = np.divmod(device, self.types[0].cycle)
        return DeviceColumns(
            device, index, line, line % len(self.plans), period,
            self.reporter.phase_ns(self.machines.keys(device), period),
            np.array([t.profile.behaviour for t in self.types], np.uint8)[index],
            np.array([t.profile.rest for t in self.types], np.uint8)[index],
            turn * int(before[-1]) + before[at], sizes[index],
        )  # fmt: skip

    def paths(self, device: I64) -> list[str]:
        """Path of each device: ``site/area/lineN/nameN``, with the signal for lone sensors.

        Cost: about 2 us a device.
        """
        line = device // self.devices_per_line
        names = [t.profile.name for t in self.types]
        lone = [f"/{t.lone_signal}" if t.lone_signal else "" for t in self.types]
        heads = {n: line_path(n) for n in np.unique(line).tolist()}
        number = device % self.devices_per_line + 1
        rows = zip(line.tolist(), number.tolist(), self.type_index(device).tolist(), strict=True)
        return [f"{heads[n]}/{names[t]}{i}{lone[t]}" for n, i, t in rows]

    def layout(self, device: int, part: int = 0) -> Layout:
        """The layout of a part of one device."""
        return self.types[int(self.type_index(np.array([device]))[0])].parts[part].layout

    def n_levels(self) -> I64:
        """Analog sensors of each device, which are its first: int64[n_devices]; what `plant_faults` needs."""
        return np.array([t.n_levels for t in self.types])[self.type_index(np.arange(self.n_devices))]

    def truth(self) -> Truth:
        """What every sensor is, in order of (device, column); 44 bytes a sensor."""
        devices = self.devices()
        n = devices.n_sensors
        column = np.arange(self.n_sensors) - np.repeat(devices.first_sensor, n)
        kinds = np.zeros((len(self.types), max(t.size for t in self.types)), np.uint8)
        for i, kind in enumerate(self.types):
            kinds[i, : kind.size] = [c.kind for p in kind.parts for c in p.layout.columns]
        period = np.where(devices.behaviour == Behaviour.EVENT, 0, devices.period_ns)
        return Truth.of(
            (np.repeat(devices.device, n), column, kinds[np.repeat(devices.type, n), column]),
            (np.repeat(devices.behaviour, n), np.repeat(devices.rest, n), np.repeat(period, n)),
            self.faults,
        )

    # --- what happens --------------------------------------------------------------------------------

    def active(self, line: I64, ts_ns: I64) -> npt.NDArray[np.bool_]:
        """Whether each line runs at each instant: bool[n]."""
        return self.machines.line_state(line, ts_ns, 1_800.0).running

    def values(self, device: I64, ts_ns: I64, part: int = 0) -> npt.NDArray[Any]:
        """What devices of one type measure at some instants, planted faults included.

        Parameters
        ----------
        device, ts_ns : int64[F], any order; part : which of the type's value types.

        Returns
        -------
        T[F, D], raw values in the part's type; ``raw * layout.scale + layout.offset`` are engineering units.

        Raises
        ------
        ValueError : no devices, devices of different types, or such as report events or waveforms.
        """
        return self._values(device, ts_ns, slice(part, part + 1))[0]

    def all_values(self, device: I64, ts_ns: I64) -> list[npt.NDArray[Any]]:
        """As `values`, one array for each part of the type: cheaper than part by part."""
        return self._values(device, ts_ns, slice(None))

    def _values(self, device: I64, ts_ns: I64, parts: slice) -> list[npt.NDArray[Any]]:
        index = np.unique(self.type_index(device))
        if len(index) != 1:
            raise ValueError(
                f"values() takes devices of one type, got {len(index)}: group them by type_index()"
            )
        kind = self.types[int(index[0])]
        if kind.parts[0].table is None:
            raise ValueError(
                f"{kind.profile.name} devices have no values between their reports; use frames()"
            )
        chosen = kind.parts[parts]
        key = self.machines.keys(device)
        out: list[list[npt.NDArray[Any]]] = [[] for _ in chosen]
        for a, b in pieces(len(device)):
            drivers = self.machines.drivers(kind, device[a:b], key[a:b], ts_ns[a:b])
            for found, part in zip(out, chosen, strict=True):
                found.append(self.machines.evaluate(kind, part, device[a:b], ts_ns[a:b], drivers))
        return [found[0] if len(found) == 1 else np.concatenate(found) for found in out]

    def frames(self, t0_ns: int, t1_ns: int, slice_ns: int | None = None) -> Iterator[Frames]:
        """Everything that the factory reports in ``t0 <= t < t1``, as batches of columns. See `Reporter.frames`."""
        return self.reporter.frames(t0_ns, t1_ns, slice_ns)


def line_path(line: int) -> str:
    """Path of a line: ``leon/paint/line1`` for line 0."""
    area, number = divmod(line, LINES_PER_AREA)
    site, area = divmod(area, len(AREAS))
    again, site = divmod(site, len(SITES))
    name = SITES[site] + (str(again + 1) if again else "")
    return f"{name}/{AREAS[area]}/line{number + 1}"
