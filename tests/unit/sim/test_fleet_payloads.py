"""What a fleet's devices put on the wire: registers against an independent oracle, and MQTT payloads."""

import json
import struct
import tomllib
from pathlib import Path

import numpy as np
import pytest

from headrace.adapters.payloads.register_addresses import parse_address
from headrace.adapters.payloads.registers import RegisterTag, compile_read_map
from headrace.core.clock import NS, VirtualClock
from headrace.sim.calendars import CONTINUOUS, DAY_SHIFT
from headrace.sim.devices.modbus import FleetTables, RegisterPlan
from headrace.sim.devices.mqtt import PayloadStyle, messages
from headrace.sim.devices.opcua import variables
from headrace.sim.devices.sparkplug import metrics, reports
from headrace.sim.fleet import Fleet
from headrace.sim.plant import MODBUS_PROFILES, MQTT_PROFILES, OPCUA_PROFILES, DemoPlant, PlantFleets
from headrace.sim.plant_file import PlantAddresses, plant_toml
from headrace.sim.profiles import CLIMATE, CONVEYOR, METER, PANEL, PRESS, PROBE, ROBOT
from headrace.sim.reports import DenseFrames, SparseFrames

MONDAY_NS = 1_795_424_400 * NS


@pytest.mark.parametrize("dtype", [None, "u16", "i32", "u32", "f32", "f64"])
def test_registers_hold_what_the_devices_measure(dtype: str | None) -> None:
    fleet = Fleet(560, seed=1, dtype=dtype, profiles=MODBUS_PROFILES)
    tables = FleetTables(fleet, 0.5)
    for kind, plan in zip(fleet.types, tables.plans, strict=True):
        device = int(kind.devices()[-1])
        registers, words = tables.read(device, MONDAY_NS + 400_000_000)
        values = [v[0] for v in fleet.all_values(np.array([device]), np.array([MONDAY_NS]))]
        raw = struct.pack(f">{len(registers)}H", *registers)
        for part, first, row in zip(kind.parts, plan.first, values, strict=True):
            for i, value in enumerate(row.tolist()):
                if part.layout.dtype == "u8":
                    found = words[(first + i) // 16] >> ((first + i) % 16) & 1
                else:
                    code = {"u16": "H", "i32": "i", "u32": "I", "f32": "f", "f64": "d"}[part.layout.dtype]
                    size = struct.calcsize(code)
                    chunk = raw[2 * first + i * size : 2 * first + (i + 1) * size]
                    if part.layout.dtype == "f32":
                        chunk = chunk[2:] + chunk[:2]
                    (found,) = struct.unpack(f">{code}", chunk)
                assert found == value


def test_the_addresses_read_back_what_was_written() -> None:
    fleet = Fleet(224, seed=3, profiles=MODBUS_PROFILES)
    tables = FleetTables(fleet, 0.5)
    for kind, plan in zip(fleet.types, tables.plans, strict=True):
        tags = [RegisterTag(column, parse_address(address)) for address, column in plan.addresses()]
        read_map = compile_read_map(tags)
        registers, words = tables.read(int(kind.devices()[0]), MONDAY_NS)
        image = b""
        for block in read_map.blocks:
            if block.area.has_bits:
                bits = b"".join(struct.pack("<H", word) for word in words)
                image += bits[: block.size_bytes]
            else:
                image += struct.pack(f">{block.count}H", *registers[block.start : block.start + block.count])
        decoded = read_map.decode(image)
        truth = fleet.all_values(kind.devices()[:1], np.array([MONDAY_NS]))
        for one, expected in zip(decoded, truth, strict=True):
            assert one.quality is None
            assert (one.values == expected).all()
        for part, own in zip(read_map.parts, kind.parts, strict=True):
            assert part.layout == own.layout


def test_registers_change_at_the_refresh_and_not_between() -> None:
    fleet = Fleet(56, seed=1, profiles=MODBUS_PROFILES[:1], plans=(CONTINUOUS,))
    tables = FleetTables(fleet, 0.5)
    seen = [tables.read(0, MONDAY_NS + ms * 1_000_000) for ms in (0, 1, 499, 500, 999, 1_000)]
    assert seen[0] == seen[1] == seen[2]
    assert seen[3] == seen[4]
    assert seen[2] != seen[3] != seen[5]


@pytest.mark.parametrize(("fleet", "text"), [(Fleet(4, profiles=(PANEL,)), "no registers"), (Fleet(10, dtype="u8", profiles=(CONVEYOR,)), "two states")])  # fmt: skip
def test_what_registers_can_not_hold_is_refused(fleet: Fleet, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RegisterPlan.of(fleet.types[0])


def test_dense_reports_as_json_csv_and_numbers() -> None:
    fleet = Fleet(30, seed=1, profiles=(METER,), plans=(CONTINUOUS,))
    (frames,) = [f for f in fleet.frames(MONDAY_NS, MONDAY_NS + 10 * NS, 10 * NS) if len(f.device) == 3]
    assert isinstance(frames, DenseFrames)
    names = [c.name for c in frames.part.layout.columns]
    as_json, as_csv, as_numbers = (messages(fleet, frames, style) for style in PayloadStyle)
    for i, (one, row) in enumerate(zip(as_json, as_csv, strict=True)):
        assert one.topic == f"plant/paint/line1/meter{frames.device[i] + 1}"
        assert json.loads(one.payload) == {
            "ts": int(frames.ts_ns[i]) // 10**6,
            **dict(zip(names, frames.values[i], strict=True)),
        }
        assert row.topic == one.topic.replace("plant/", "rows/")
        assert [float(cell) for cell in row.payload.split(b",")] == [
            frames.ts_ns[i] // 10**6,
            *frames.values[i],
        ]
        assert one.n_samples == row.n_samples == 10
        for k, name in enumerate(names):
            number = as_numbers[10 * i + k]
            assert number.topic == f"values/paint/line1/meter{frames.device[i] + 1}/{name}"
            assert float(number.payload) == frames.values[i, k]
    assert len(as_numbers) == 30
    assert b"." in as_csv[0].payload
    assert b"00000000" not in as_csv[0].payload


def test_reports_by_exception_hold_what_changed() -> None:
    fleet = Fleet(60, seed=1, profiles=(CLIMATE,), plans=(CONTINUOUS,))
    (frames,) = fleet.frames(MONDAY_NS, MONDAY_NS + 60 * NS, 60 * NS)
    assert isinstance(frames, SparseFrames)
    names = [c.name for c in frames.part.layout.columns]
    numbers = messages(fleet, frames, PayloadStyle.NUMBER)
    assert [float(m.payload) for m in numbers] == frames.values.tolist()
    assert [m.topic.rpartition("/")[2] for m in numbers] == [names[c] for c in frames.column]
    fields = messages(fleet, frames, PayloadStyle.JSON)
    assert sum(m.n_samples for m in fields) == len(frames.values)
    assert len(fields) < len(numbers)
    rebuilt = [
        (m.topic, decoded["ts"], name, value)
        for m in fields
        for decoded in [json.loads(m.payload)]
        for name, value in decoded.items()
        if name != "ts"
    ]
    paths = fleet.paths(frames.device)
    assert rebuilt == [
        ("plant/" + path.partition("/")[2], ts // 10**6, names[c], v)
        for path, ts, c, v in zip(
            paths, frames.ts_ns.tolist(), frames.column.tolist(), frames.values.tolist(), strict=True
        )
    ]
    with pytest.raises(ValueError, match="all signals"):
        messages(fleet, frames, PayloadStyle.CSV)


def test_waveforms_have_no_payload() -> None:
    fleet = Fleet(30, seed=1, profiles=(PROBE,), plans=(CONTINUOUS,))
    frames = next(iter(fleet.frames(MONDAY_NS, MONDAY_NS + 60 * NS)))
    with pytest.raises(ValueError, match="waveforms"):
        messages(fleet, frames, PayloadStyle.JSON)


@pytest.mark.parametrize("speed", [1.0, 60.0])
@pytest.mark.parametrize("when_s", [1_795_424_400, 1_795_300_000, 1_798_200_000])
def test_the_plant_is_at_work_whenever_it_is_started(speed: float, when_s: int) -> None:
    fleets = PlantFleets.of(1, when_s * NS, speed)
    assert fleets.n_sensors == 2_568 >= 2_000
    paths = [path for fleet in fleets.all for path in fleet.paths(np.arange(fleet.n_devices))]
    assert len(set(paths)) == len(paths) == 104
    assert {p.rpartition("/")[0] for p in paths} == {f"leon/paint/line{n}" for n in range(1, 5)}
    lines = np.arange(4)
    for fleet in fleets.all:
        assert fleet.n_lines == 4
        assert fleet.active(lines, np.full(4, when_s * NS)).all()
        # A break comes: within twenty real seconds at high speed, within two hours otherwise.
        ahead_s = 20 * speed if speed > 1 else 7_200
        ts = when_s * NS + np.arange(0, int(ahead_s), 60) * NS
        assert not all(fleet.active(np.full(len(ts), n), ts).all() for n in range(4))


def test_the_plant_has_all_the_profiles_it_says() -> None:
    fleets = PlantFleets.of(1, MONDAY_NS, 1.0)
    assert [t.profile.name for t in fleets.modbus.types] == [p.name for p in MODBUS_PROFILES]
    assert [t.profile.name for t in fleets.mqtt.types] == [p.name for p in MQTT_PROFILES]
    assert fleets.opcua is not None
    assert [t.profile.name for t in fleets.opcua.types] == ["press"]
    assert [t.profile.name for t in fleets.sparkplug.types] == ["robot"]
    assert sorted(d for devices in fleets.gateways() for d in devices) == list(range(24))


def test_without_its_library_the_plant_has_no_opc_ua(tmp_path: Path) -> None:
    plant = DemoPlant(1, VirtualClock(MONDAY_NS), tmp_path, has_opcua=False)
    assert (plant.cell, plant.fleets.opcua) == (None, None)
    assert plant.fleets.n_sensors == 2_568 - 8 * 48
    urls = dict.fromkeys(plant.fleets.modbus.paths(np.arange(24)), "modbus+tcp://127.0.0.1:5020?unit=1")
    addresses = PlantAddresses(urls, {}, "mqtt://127.0.0.1:1883", "3.1.1")
    text = plant_toml(plant.fleets.modbus, plant.fleets.mqtt, None, addresses, "./store")
    adapters = tomllib.loads(text)["adapters"]
    assert {one["protocol"] for one in adapters.values()} == {"modbus", "mqtt", "sparkplug"}
    assert adapters["broker"]["version"] == adapters["edge"]["version"] == "3.1.1"


# --- OPC UA and Sparkplug ----------------------------------------------------------------------------


def test_variables_and_metrics_are_engineering_units() -> None:
    """What has a grid can't be said on the wire; decimals say the same."""
    raw = Fleet(48, seed=1, profiles=(PRESS.of_size(48),))
    units = Fleet(48, seed=1, profiles=OPCUA_PROFILES)
    names = [column.name for part in units.types[0].parts for column in part.layout.columns]
    assert [address.rpartition("{node}.")[2] for address, _ in variables(units.types[0])] == names
    assert [metric.name for metric in metrics(units.types[0])] == names
    for shown in (variables, metrics):
        with pytest.raises(ValueError, match="in_units"):
            shown(raw.types[0])
        with pytest.raises(ValueError, match="events"):
            shown(Fleet(4, profiles=(PANEL,)).types[0])
    kept = [
        column for part in units.types[0].parts for column in part.layout.columns if column.name == "mode"
    ]
    assert len(kept[0].labels) == 4


def test_states_are_reported_when_they_change() -> None:
    """A dead band of three steps would never let a robot say that it stands."""
    fleet = Fleet(60, seed=1, profiles=(ROBOT,), plans=(DAY_SHIFT,), line_offset_s=0)
    kind = fleet.types[0]
    at = {m.name: number for number, m in enumerate(metrics(kind))}
    found = reports(fleet, MONDAY_NS, MONDAY_NS + 120 * NS)
    assert [one.ts_ns for one in found] == sorted(one.ts_ns for one in found)
    told: dict[int, list[float]] = {device: [] for device in range(3)}
    for one in found:
        door = dict(one.values).get(at["door"])
        if door is not None:
            told[one.device].append(door)
        if told[one.device]:
            now = fleet.all_values(np.array([one.device]), np.array([one.ts_ns]))[-1]
            assert told[one.device][-1] == now[0, at["door"] - at["running"]]
    assert all(len(some) > 6 and set(some) == {0, 1} for some in told.values())


def test_only_reports_by_exception_have_an_edge_node() -> None:
    fleet = Fleet(56, seed=1, profiles=MODBUS_PROFILES[:1], plans=(CONTINUOUS,))
    with pytest.raises(ValueError, match="by exception"):
        reports(fleet, MONDAY_NS, MONDAY_NS + 2 * NS)
