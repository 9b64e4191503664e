"""Device profiles: ovens, presses, pumps, dryers, conveyors, meters, tanks, climate stations, robots, panels, probes.

Data only. A profile says what a device measures, how often and in what way it reports. Levels, grids and cycle
times follow what such devices print on their data sheets; nothing depends on the exact figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise

from headrace.core.clock import NS
from headrace.core.layouts import Column, Kind, Layout
from headrace.sim.signals import Gate, Role, SignalForm, SignalTable

MS = 1_000_000


class Behaviour(IntEnum):
    """When a device reports."""

    PERIODIC = 0
    """Every period, all columns."""
    EXCEPTION = 1
    """Scanned every period; a column is reported when it left its dead band, all at a heartbeat."""
    EVENT = 2
    """At random instants while the line runs."""
    BURST = 3
    """Every period a waveform of many values."""


class Rest(IntEnum):
    """What a device does while its line stands."""

    REPORTS = 0
    SLEEPS = 1


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """One type of device.

    Parameters
    ----------
    forms : (form, number of copies) in a device of natural size.
    period_ns : reporting, scanning or burst period; jitter_ns : half-width of its jitter; loss : share of
        reports lost on the way.
    cycle_s, beat_s, tau_s, ramp_s : machine cycle, heating cycle, time constant of warming, and how long the
        line takes to start; each device has its own cycle within 20 %.
    dead_band : in grid steps. heartbeat : scans between full reports.
    events_per_h : of each event column while the line runs.
    n_values, rate_hz : of a waveform.
    """

    name: str
    forms: tuple[tuple[SignalForm, int], ...]
    behaviour: Behaviour = Behaviour.PERIODIC
    rest: Rest = Rest.REPORTS
    period_ns: int = NS
    jitter_ns: int = 2 * MS
    loss: float = 0.0
    cycle_s: float = 30.0
    beat_s: float = 60.0
    tau_s: float = 1_800.0
    ramp_s: float = 120.0
    dead_band: int = 3
    heartbeat: int = 64
    events_per_h: float = 20.0
    n_values: int = 1_024
    rate_hz: int = 6_400

    @property
    def size(self) -> int:
        """Sensors of a device of natural size."""
        return sum(n for _, n in self.forms)

    def of_size(self, size: int) -> DeviceProfile:
        """A device of the same kind with `size` sensors, its signals in about the same proportions."""
        ends = [
            round(size * sum(n for _, n in self.forms[: i + 1]) / self.size) for i in range(len(self.forms))
        ]
        counts = [b - a for a, b in pairwise([0, *ends])]
        forms = tuple((form, n) for (form, _), n in zip(self.forms, counts, strict=True) if n)
        return replace(self, forms=forms)

    def in_units(self) -> DeviceProfile:
        """A device of the same kind that sends engineering units: decimals for what others send as steps of a grid."""
        forms = tuple(
            (form if (form.scale, form.offset) == (1.0, 0.0) else replace(form, dtype="f64"), n)
            for form, n in self.forms
        )
        return replace(self, forms=forms)

    def columns(self, size: int | None = None) -> tuple[tuple[str, SignalForm], ...]:
        """Names and forms of a device's signals; with `size`, the forms in turn until there are so many."""
        wanted = [f for f, n in self.forms for _ in range(n)] if size is None else []
        cycle = [f for f, _ in self.forms]
        while size is not None and len(wanted) < size:
            wanted += cycle[: size - len(wanted)]
        seen: dict[str, int] = {}
        named = []
        for form in wanted:
            seen[form.name] = seen.get(form.name, 0) + 1
            number = seen[form.name]
            named.append((form.name if number == 1 else f"{form.name}_{number}", form))
        return tuple(named)


def tables(
    columns: tuple[tuple[str, SignalForm], ...], dtype: str | None, seed: int
) -> tuple[SignalTable, ...]:
    """Compile a device's signals: one table for each value type, or one of `dtype` for all."""
    if dtype is not None:
        columns = tuple((n, replace(f, dtype=dtype)) for n, f in columns)
    out: list[SignalTable] = []
    for name in dict.fromkeys(f.dtype for _, f in columns):
        chosen = [(n, f) for n, f in columns if f.dtype == name]
        names, forms = tuple(n for n, _ in chosen), tuple(f for _, f in chosen)
        out.append(SignalTable.compile(forms, names, name, seed + len(out)))
    return tuple(out)


def event_layout(columns: tuple[tuple[str, SignalForm], ...]) -> Layout:
    """The layout of an event device: codes, one column a source."""
    return Layout("u16", tuple(Column(n, Kind.EVENT, labels=EVENT_LABELS) for n, _ in columns))


def wave_layout(columns: tuple[tuple[str, SignalForm], ...]) -> tuple[Layout, ...]:
    """The layouts of a waveform device: each axis is a group of its own, as each has its own instants."""
    return tuple(
        Layout("i16", (Column(n, Kind.WAVEFORM, f.unit, f.scale, f.offset, f.low, f.high),))
        for n, f in columns
    )


EVENT_LABELS = (
    "none",
    "jam",
    "door-open",
    "overload",
    "low-oil",
    "quality-reject",
    "operator-call",
    "tool-change",
)

_TEMPERATURE = SignalForm(
    "temperature", "degC", scale=0.1, offset=-50.0, low=0.0, high=400.0, level=24.0, spread=4.0, warm=176.0,
    weather=2.0, recipe=6.0, swing=1.6, gate=Gate.RUNNING, turns=0, beats=1, noise=0.25,
)  # fmt: skip
_SETPOINT = SignalForm(
    "setpoint", "degC", scale=0.1, offset=-50.0, low=0.0, high=400.0, level=200.0, recipe=6.0
)  # fmt: skip
_POWER = SignalForm(
    "power", "kW", scale=0.01, low=0.0, high=120.0, level=0.4, spread=0.2, load=18.0, swing=9.0, edge=6.0,
    turns=0, beats=1, noise=0.12, weather=-0.2,
)  # fmt: skip
_CURRENT = SignalForm(
    "current", "A", scale=0.01, low=0.0, high=200.0, level=0.8, spread=0.3, load=24.0, swing=11.0, edge=3.0, noise=0.2
)  # fmt: skip
_PRESSURE = SignalForm(
    "pressure", "bar", scale=0.01, low=0.0, high=320.0, level=1.0, spread=0.3, load=90.0, swing=70.0, edge=4.0,
    recipe=4.0, noise=0.3,
)  # fmt: skip
_FORCE = SignalForm(
    "force", "kN", scale=0.1, low=0.0, high=2_500.0, level=3.0, spread=2.0, load=500.0, swing=480.0, edge=7.0,
    turns=2, noise=1.2,
)  # fmt: skip
_POSITION = SignalForm(
    "position", "mm", scale=0.01, low=-5.0, high=600.0, level=250.0, spread=1.0, swing=240.0, edge=1.6, noise=0.02
)  # fmt: skip
_OIL = SignalForm(
    "oil_temperature", "degC", scale=0.1, offset=-50.0, low=-20.0, high=110.0, level=22.0, spread=3.0, warm=28.0,
    weather=3.0, noise=0.12,
)  # fmt: skip
_FLOW = SignalForm(
    "flow", "m3/h", scale=0.01, low=-1.0, high=150.0, spread=0.05, level=0.06, load=42.0, recipe=3.0, swing=1.5,
    noise=0.25,
)  # fmt: skip
_INLET = SignalForm(
    "inlet_pressure", "bar", scale=0.001, low=0.0, high=16.0, level=2.1, spread=0.2, load=-0.3, noise=0.01
)
_OUTLET = SignalForm(
    "outlet_pressure",
    "bar",
    scale=0.001,
    low=0.0,
    high=25.0,
    level=2.2,
    spread=0.2,
    load=5.4,
    recipe=0.3,
    noise=0.02,
)
_SPEED = SignalForm(
    "speed", "rpm", scale=0.1, low=0.0, high=3_200.0, load=1_450.0, recipe=20.0, swing=4.0, noise=1.0
)
_BELT = SignalForm("speed", "m/s", scale=0.001, low=0.0, high=4.0, load=1.2, recipe=0.05, noise=0.004)
_BEARING = SignalForm(
    "bearing_temperature", "degC", scale=0.1, offset=-50.0, low=-20.0, high=130.0, level=22.0, spread=2.0, warm=31.0,
    weather=2.0, noise=0.15,
)  # fmt: skip
_RMS = SignalForm(
    "vibration_rms",
    "mm/s",
    scale=0.001,
    low=0.0,
    high=30.0,
    level=0.35,
    spread=0.02,
    load=2.4,
    swing=0.3,
    noise=0.25,
)
_TENSION = SignalForm(
    "tension",
    "N",
    scale=0.1,
    low=0.0,
    high=3_000.0,
    level=120.0,
    spread=20.0,
    load=800.0,
    swing=60.0,
    noise=6.0,
)
_PARTS = SignalForm("parts", "1", "u32", Role.COUNTER, rate=0.25)
_ENERGY = SignalForm("energy", "kWh", "u32", Role.COUNTER, scale=0.01, rate=0.005, idle_rate=0.0002)
_HOURS = SignalForm("hours", "h", "u32", Role.COUNTER, scale=0.1, rate=1 / 3_600)
_MODE = SignalForm("mode", "", "u16", Role.MODE)
_RUNNING = SignalForm("running", "", "u8", Role.WORKING)
_DOOR = SignalForm("door", "", "u8", Role.PULSE)
_ALARM = SignalForm("alarm", "", "u8", Role.ALARM)
_AIR_SPEED = SignalForm(
    "air_speed",
    "m/s",
    scale=0.01,
    low=0.0,
    high=30.0,
    level=0.1,
    spread=0.05,
    load=9.0,
    swing=0.6,
    noise=0.12,
)
_MOISTURE = SignalForm(
    "moisture",
    "%",
    scale=0.01,
    low=0.0,
    high=60.0,
    level=14.0,
    spread=1.0,
    warm=-8.0,
    weather=-0.8,
    swing=0.9,
    noise=0.05,
)
_PRESSURE_LOW = SignalForm(
    "pressure",
    "bar",
    scale=0.001,
    low=0.0,
    high=10.0,
    level=1.02,
    spread=0.05,
    load=1.4,
    weather=0.01,
    noise=0.006,
)
_VOLTAGE = SignalForm(
    "voltage",
    "V",
    "f64",
    scale=0.1,
    low=180.0,
    high=260.0,
    level=231.0,
    spread=1.5,
    load=-2.2,
    weather=1.2,
    noise=0.5,
)
_LINE_CURRENT = SignalForm(
    "current",
    "A",
    "f64",
    scale=0.01,
    low=0.0,
    high=400.0,
    level=6.0,
    spread=1.0,
    load=70.0,
    swing=9.0,
    noise=1.4,
)
_ACTIVE = SignalForm(
    "active_power",
    "kW",
    "f64",
    scale=0.01,
    low=0.0,
    high=300.0,
    level=3.6,
    spread=0.6,
    load=48.0,
    swing=6.0,
    noise=0.9,
)
_FACTOR = SignalForm(
    "power_factor",
    "1",
    "f64",
    scale=0.001,
    low=0.0,
    high=1.0,
    level=0.78,
    spread=0.02,
    load=0.14,
    noise=0.006,
)
_METER_ENERGY = SignalForm("energy", "kWh", "f64", Role.COUNTER, scale=0.1, rate=0.014, idle_rate=0.001)
_AIR = SignalForm(
    "temperature",
    "degC",
    "f64",
    scale=0.1,
    low=-20.0,
    high=60.0,
    level=21.0,
    spread=1.5,
    warm=2.5,
    weather=3.5,
    noise=0.12,
)
_HUMIDITY = SignalForm(
    "humidity", "%", "f64", scale=0.1, low=0.0, high=100.0, level=48.0, spread=5.0, weather=-9.0, noise=0.35
)
_CO2 = SignalForm(
    "co2",
    "ppm",
    "f64",
    scale=1.0,
    low=300.0,
    high=5_000.0,
    level=430.0,
    spread=20.0,
    warm=420.0,
    weather=15.0,
    noise=4.0,
)
_LEVEL = SignalForm(
    "level",
    "%",
    "f64",
    scale=0.1,
    low=0.0,
    high=100.0,
    level=55.0,
    spread=10.0,
    swing=25.0,
    gate=Gate.RUNNING,
    turns=0,
    beats=1,
    noise=0.15,
)
_JOINT = SignalForm(
    "joint", "deg", "f64", scale=0.01, low=-180.0, high=180.0, spread=40.0, swing=75.0, edge=2.5, noise=0.01
)
_TORQUE = SignalForm(
    "torque", "Nm", "f64", scale=0.1, low=-600.0, high=600.0, level=12.0, spread=4.0, load=70.0, swing=60.0, edge=3.0,
    turns=2, noise=1.5,
)  # fmt: skip
_MOTOR = SignalForm(
    "motor_temperature", "degC", "f64", scale=0.1, low=-20.0, high=140.0, level=23.0, spread=2.0, warm=34.0, weather=2.0,
    noise=0.1,
)  # fmt: skip
_ACCELERATION = SignalForm("acceleration", "m/s2", "i16", scale=0.01, low=-320.0, high=320.0)


def _decimal(forms: tuple[tuple[SignalForm, int], ...], dtype: str) -> tuple[tuple[SignalForm, int], ...]:
    """The same signals from a device that sends decimals."""
    return tuple((replace(form, dtype=dtype), n) for form, n in forms)


OVEN = DeviceProfile(
    "oven", ((_TEMPERATURE, 6), (_SETPOINT, 2), (_POWER, 3), (_ENERGY, 1), (_HOURS, 1), (_MODE, 1), (_DOOR, 1), (_ALARM, 1)),
    cycle_s=240.0, beat_s=55.0, tau_s=1_800.0, ramp_s=300.0,
)  # fmt: skip
PRESS = DeviceProfile(
    "press", ((_PRESSURE, 3), (_FORCE, 2), (_POSITION, 2), (_OIL, 1), (_CURRENT, 2), (_PARTS, 1), (_ENERGY, 1), (_MODE, 1), (_RUNNING, 1)),
    cycle_s=12.0, tau_s=2_700.0, ramp_s=60.0,
)  # fmt: skip
PUMP = DeviceProfile(
    "pump", (*_decimal(((_FLOW, 1), (_INLET, 1), (_OUTLET, 1), (_SPEED, 1), (_BEARING, 2), (_RMS, 1), (_CURRENT, 1)), "f32"), (_HOURS, 1), (_RUNNING, 1)),
    cycle_s=45.0, tau_s=1_200.0, ramp_s=20.0,
)  # fmt: skip
DRYER = DeviceProfile(
    "dryer", ((_TEMPERATURE, 3), (_AIR_SPEED, 2), (_MOISTURE, 2), (_CURRENT, 2), (_ENERGY, 1), (_MODE, 1), (_RUNNING, 1), (_ALARM, 1)),
    cycle_s=600.0, beat_s=90.0, tau_s=1_200.0, ramp_s=180.0,
)  # fmt: skip
TANK = DeviceProfile(
    "tank", (*_decimal(((_LEVEL, 2), (_OIL, 2), (_PRESSURE_LOW, 2), (_FLOW, 2)), "f64"), (_METER_ENERGY, 1)),
    cycle_s=900.0, beat_s=1_300.0, tau_s=5_400.0,
)  # fmt: skip
CONVEYOR = DeviceProfile(
    "conveyor", ((_BELT, 2), (_TENSION, 1), (_CURRENT, 1), (_PARTS, 1), (_MODE, 1), (_DOOR, 2), (_ALARM, 1)),
    rest=Rest.SLEEPS, cycle_s=6.0, ramp_s=15.0,
)  # fmt: skip
METER = DeviceProfile(
    "meter", ((_VOLTAGE, 3), (_LINE_CURRENT, 3), (_ACTIVE, 1), (_FACTOR, 1), (_METER_ENERGY, 2)),
    period_ns=10 * NS, jitter_ns=150 * MS, loss=0.002, cycle_s=90.0, ramp_s=60.0,
)  # fmt: skip
CLIMATE = DeviceProfile(
    "climate", ((_AIR, 2), (_HUMIDITY, 2), (_CO2, 1), (_LEVEL, 1)), Behaviour.EXCEPTION,
    beat_s=2_400.0, tau_s=7_200.0, jitter_ns=20 * MS,
)  # fmt: skip
ROBOT = DeviceProfile(
    "robot", ((_JOINT, 6), (_TORQUE, 6), (_MOTOR, 3), (replace(_PARTS, dtype="f64"), 1), (_MODE, 1), (_RUNNING, 1), (_DOOR, 1), (_ALARM, 1)),
    Behaviour.EXCEPTION, Rest.SLEEPS, cycle_s=18.0, ramp_s=20.0, heartbeat=60,
)  # fmt: skip
PANEL = DeviceProfile("panel", ((SignalForm("alarm"), 2), (SignalForm("message"), 2)), Behaviour.EVENT)
PROBE = DeviceProfile(
    "probe", ((_ACCELERATION, 3),), Behaviour.BURST, Rest.SLEEPS, period_ns=60 * NS, jitter_ns=50 * MS
)  # fmt: skip

POLLED = (OVEN, PRESS, PUMP, CONVEYOR, METER)
EVERYTHING = (OVEN, PRESS, PUMP, CONVEYOR, METER, CLIMATE, PANEL, PROBE, DRYER, TANK)
