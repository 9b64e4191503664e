"""The Modbus adapter against pymodbus's server over loopback."""

import asyncio

import numpy as np
import pytest

from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedUnit
from headrace.adapters.payloads.register_addresses import Area
from headrace.core.errors import ConfigError
from headrace.core.layouts import Column, Layout
from headrace.core.problems import validate_section
from headrace.core.quality import Quality
from headrace.core.settings import SignalSettings
from headrace.testing.adapters import RecordingSink, until

PROFILE = {
    "f32": SignalSettings(address="holding:10:F32;order=CDAB"),
    "f64": SignalSettings(address="holding:20:F64;order=DCBA"),
    "i32": SignalSettings(address="input:4:I32;order=BADC"),
    "u16": SignalSettings(address="input:6"),
    "bit": SignalSettings(address="holding:30.9"),
    "coil": SignalSettings(address="coil:17"),
    "switch": SignalSettings(address="discrete:1999"),
}


@pytest.fixture
async def plant():
    simulator = ModbusSimulator({unit: SimulatedUnit() for unit in (1, 2, 3)})
    await simulator.start()
    yield simulator
    await simulator.stop()


def adapter_of(devices, **config):
    config = {"profile": "p", "devices": devices, "interval": "50ms", "reconnect_first": "20ms", **config}
    settings = validate_section(ModbusAdapter.Config, config, "adapters.x")
    return ModbusAdapter.from_config("x", settings, {"p": PROFILE}, PlantFacts())


def latest(sink, path):
    """The newest value of each sensor of a device."""
    found = {}
    for batch in sink.batches:
        for frame, slot in enumerate(batch.slot.tolist()):
            if sink.directory.paths[slot] == path:
                names = [c.name for c in sink.directory.layout(slot).columns]
                found.update(zip(names, batch.values[frame].tolist(), strict=True))
    return found


async def test_every_area_and_type_as_a_foreign_server_sends_it(plant):
    unit = plant.units[1]
    unit.holding[10:12] = np.array([181.25], ">f4").view(">u2")[::-1]
    unit.holding[20:24] = np.array([-2.5e100], "<f8").view(">u2")
    unit.input[4:6] = np.array([-123_456], ">i4").view("<u2")
    unit.input[6] = 65_535
    unit.holding[30] = 1 << 9
    unit.coil[17] = unit.discrete[1999] = True
    sink, adapter = RecordingSink(), adapter_of({"l/d": plant.url()})
    await adapter.start(sink)
    try:
        await until(lambda: len(latest(sink, "l/d")) == 7, "every sensor has a value")
    finally:
        await adapter.stop()
    assert latest(sink, "l/d") == {
        "f32": 181.25, "f64": -2.5e100, "i32": -123_456, "u16": 65_535, "bit": 1, "coil": 1, "switch": 1,
    }  # fmt: skip
    assert all(b.quality is None for b in sink.batches)


async def test_a_hung_unit_and_a_dead_port_do_not_delay_the_others(plant):
    devices = {f"l/d{unit}": plant.url(unit, "150ms") for unit in (1, 2, 3)}
    dead, apart = (ModbusSimulator({unit: SimulatedUnit() for unit in (1, 3)}) for _ in range(2))
    await dead.start()
    await dead.stop()
    await apart.start()
    devices |= {"l/dead": dead.url(), **{f"l/apart{unit}": apart.url(unit) for unit in (1, 3)}}
    sink, adapter = RecordingSink(), adapter_of(devices, max_requests_per_s=10_000.0)
    await adapter.start(sink)
    try:
        await until(lambda: all(latest(sink, f"l/d{unit}") for unit in (1, 2, 3)), "all answer")
        assert adapter.diagnostics().n_bytes > 100
        plant.units[2].hang()
        await until(
            lambda: adapter.diagnostics().devices[1].state is AdapterState.BACKOFF, "the hung one is noticed"
        )

        def kept(before, after):
            # Six blocks in a poll.
            polls = sum(b.n_requests - a.n_requests for a, b in zip(before, after, strict=True)) / 6
            skipped = sum(b.n_polls_skipped - a.n_polls_skipped for a, b in zip(before, after, strict=True))
            return polls / (polls + skipped)

        shares = []
        # Once in five times a busy machine lets us be.
        while not shares or (shares[-1] <= 0.85 and len(shares) < 5):
            before = adapter.diagnostics().devices
            await asyncio.sleep(2)
            after = adapter.diagnostics().devices
            # Two on another link lose some on a busy machine, too.
            shares.append(kept(before[0:3:2], after[0:3:2]) / kept(before[4:], after[4:]))
        assert shares[-1] > 0.85, f"at most its share of the time is lost: {shares}"
        assert after[3].state is AdapterState.BACKOFF
        assert "Connection refused" in after[3].reason
        plant.units[2].resume()
        await until(lambda: adapter.diagnostics().devices[1].state is AdapterState.CONNECTED, "it is back")
    finally:
        await adapter.stop()
        await apart.stop()


async def test_what_a_device_refuses_is_marked_and_the_rest_stays(plant):
    plant.units[1].refuse[Area.INPUT, None] = 2
    plant.units[1].refuse[Area.COIL, 17] = 6
    sink, adapter = RecordingSink(), adapter_of({"l/d": plant.url()})
    await adapter.start(sink)
    try:
        await until(lambda: len(latest(sink, "l/d")) == 7, "frames arrive")
    finally:
        await adapter.stop()
    bad = set()
    for batch in sink.batches:
        names = [c.name for c in sink.directory.layout(int(batch.slot[0])).columns]
        marks = np.zeros(batch.values.shape, np.uint8) if batch.quality is None else batch.quality
        bad |= {
            name for name, mark in zip(names, marks[0].tolist(), strict=True) if mark == Quality.BAD_DEVICE
        }
    assert bad == {"i32", "u16", "coil"}


async def test_dropped_connections_come_back(plant):
    sink, adapter = RecordingSink(), adapter_of({"l/d": plant.url()})
    await adapter.start(sink)
    try:
        for _ in range(3):
            n = sink.n_samples
            await until(lambda n=n: sink.n_samples > n, "samples arrive")
            plant.drop()
    finally:
        await adapter.stop()


async def test_a_simulator_can_be_stopped_twice_and_with_a_hung_unit():
    simulator = ModbusSimulator({1: SimulatedUnit()})
    await simulator.start()
    simulator.units[1].hang()
    sink, adapter = RecordingSink(), adapter_of({"l/d": simulator.url(timeout="5s")})
    await adapter.start(sink)
    await until(lambda: simulator.units[1].n_requests > 0, "it is asked")
    await adapter.stop()
    await simulator.stop()
    await simulator.stop()


async def test_a_sensor_of_another_adapter_is_refused_at_start(plant):
    sink, adapter = RecordingSink(), adapter_of({"l/d": plant.url()})
    sink.directory.define("l/d", Layout("f32", (Column("f32"),)), "another")
    with pytest.raises(ConfigError, match="sensor 'l/d/f32' is defined twice"):
        await adapter.start(sink)
    await adapter.stop()
    assert adapter.diagnostics().state is AdapterState.STOPPED
