"""Device types: how a fleet of a given size is made of profiles.

A line is set with devices in turn (oven, press, pump, oven, ...), so which type a device has, and which are all
devices of a type, is arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from headrace.core.layouts import Layout
from headrace.sim.noise import mix_int
from headrace.sim.profiles import (
    EVERYTHING,
    POLLED,
    Behaviour,
    DeviceProfile,
    event_layout,
    tables,
    wave_layout,
)
from headrace.sim.signals import Role, SignalForm, SignalTable

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FleetPart:
    """The sensors of one value type of a device: one group.

    Parameters
    ----------
    name : the group's part in a `SensorDirectory`: the value type, the axis, or empty where there is one part.
    first_column : number within the device of its first sensor.
    table : how the values come about; None for events and waveforms.
    """

    name: str
    layout: Layout
    first_column: int
    table: SignalTable | None


@dataclass(frozen=True, eq=False)
class DeviceType:
    """Devices that are alike.

    Parameters
    ----------
    cycle, position : device ``k * cycle + position`` is one of them, for k from 0 to `n_devices` - 1.
    is_tail : the one smaller device at the end that makes the number of sensors exact; `first` is its number.
    lone_signal : the signal's name where a device is a lone sensor.
    """

    profile: DeviceProfile
    parts: tuple[FleetPart, ...]
    cycle: int = 1
    position: int = 0
    n_devices: int = 1
    is_tail: bool = False
    first: int = 0
    lone_signal: str = ""

    @cached_property
    def size(self) -> int:
        """Sensors of a device."""
        return sum(p.layout.width for p in self.parts)

    @cached_property
    def n_levels(self) -> int:
        """Analog sensors of a device; they are its first."""
        table = self.parts[0].table
        return 0 if table is None else table.n_levels

    @property
    def sends_units(self) -> bool:
        """Whether its values are engineering units: no grid stands beside them (`DeviceProfile.in_units`)."""
        return all((c.scale, c.offset) == (1.0, 0.0) for part in self.parts for c in part.layout.columns)

    def devices(self, first: int = 0, last: int | None = None) -> I64:
        """Numbers of this type's devices ``first:last``, ascending."""
        if self.is_tail:
            return np.array([self.first])
        return np.arange(first, self.n_devices if last is None else last) * self.cycle + self.position

    def rank(self, device: I64) -> I64:
        """The inverse of `devices`: which of this type's devices each one is."""
        return np.zeros(len(device), np.int64) if self.is_tail else device // self.cycle

    def band(self, part: FleetPart) -> npt.NDArray[np.float64]:
        """Dead band of each column of a part, in its raw values: float64[D]; 0 for states, which count when they change."""
        assert part.table is not None
        step = part.table.scale if part.table.is_decimal else np.ones(part.table.width)
        is_state = np.array([form.role >= Role.MODE for form in part.table.forms])
        return np.where(is_state, 0.0, step * float(self.profile.dead_band))

    def uses(self, name: str) -> bool:
        """Whether any signal of the type needs ``weather``, ``recipe``, ``beats`` or ``alarm``."""
        return name in self._used

    @cached_property
    def _used(self) -> frozenset[str]:
        forms = [f for p in self.parts if p.table is not None for f in p.table.forms]
        used = {n for n in ("weather", "recipe", "beats") if any(getattr(f, n) for f in forms)}
        return frozenset(used | ({"alarm"} if any(f.role is Role.ALARM for f in forms) else set()))


def compose(
    n_sensors: int,
    group_size: int | None,
    dtype: str | None,
    profiles: tuple[DeviceProfile, ...] | None,
    seed: int,
) -> tuple[DeviceType, ...]:
    """The device types of a fleet of exactly `n_sensors` sensors.

    Raises
    ------
    ValueError : no sensors, or an empty group.
    """
    if n_sensors < 1 or (group_size is not None and group_size < 1):
        raise ValueError(
            f"a fleet has sensors and its groups too, got {n_sensors} sensors in groups of {group_size}"
        )
    chosen = profiles or (EVERYTHING if group_size is None else POLLED)
    if group_size is not None:
        dtype = dtype or "u16"
    if group_size == 1:
        chosen = tuple(replace(p, forms=((f, 1),)) for p in chosen for f, _ in p.forms)
    columns = [p.columns(group_size) for p in chosen]
    sizes = np.array([len(c) for c in columns])
    turns, rest = divmod(n_sensors, int(sizes.sum()))
    whole = int(np.searchsorted(np.cumsum(sizes), rest, side="right"))
    left = rest - int(sizes[:whole].sum())
    types = []
    for i, (profile, named) in enumerate(zip(chosen, columns, strict=True)):
        n = turns + (i < whole)
        if n:
            one = _make(profile, named, dtype, mix_int(seed, i))
            types.append(replace(one, cycle=len(chosen), position=i, n_devices=n))
    if left:
        one = _make(chosen[whole], columns[whole][:left], dtype, mix_int(seed, whole))
        types.append(replace(one, is_tail=True, first=turns * len(chosen) + whole))
    if group_size == 1:
        return tuple(_lone(t) for t in types)
    return tuple(types)


def _make(
    profile: DeviceProfile, named: tuple[tuple[str, SignalForm], ...], dtype: str | None, seed: int
) -> DeviceType:
    """A type with its groups: one for each value type, or for each axis of a waveform."""
    if profile.behaviour is Behaviour.EVENT:
        return DeviceType(profile, (FleetPart("", event_layout(named), 0, None),))
    if profile.behaviour is Behaviour.BURST:
        layouts = wave_layout(named)
        return DeviceType(
            profile, tuple(FleetPart(x.columns[0].name, x, i, None) for i, x in enumerate(layouts))
        )
    parts: list[FleetPart] = []
    first = 0
    compiled = tables(named, dtype, seed)
    for table in compiled:
        parts.append(FleetPart(table.dtype if len(compiled) > 1 else "", table.layout, first, table))
        first += table.width
    return DeviceType(profile, tuple(parts))


def _lone(kind: DeviceType) -> DeviceType:
    """A group of one: the signal is the last level of the group's path, its column has no name."""
    part = kind.parts[0]
    column = part.layout.columns[0]
    layout = Layout(part.layout.dtype, (replace(column, name=""),))
    return replace(kind, parts=(replace(part, layout=layout),), lone_signal=column.name)
