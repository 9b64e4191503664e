"""Other devices and tags for a modbus adapter that runs: what stays the same notices nothing."""

import asyncio

import pytest

from headrace.adapters.abilities import Retags
from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.config import NEVER_NS
from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedUnit
from headrace.core.errors import ConfigError
from headrace.core.layouts import Column, Layout
from headrace.core.problems import validate_section
from headrace.core.settings import SignalSettings
from headrace.testing.adapters import RecordingSink, until

COUNTER = {"n": SignalSettings(address="holding:0"), "level": SignalSettings(address="holding:5")}
WIDER = {**COUNTER, "more": SignalSettings(address="holding:6"), "on": SignalSettings(address="coil:3")}


class CountingUnit(SimulatedUnit):
    """Its register 0 counts the requests, so that a poll that was lost shows."""

    async def answer(self, function, first, address, count, current, values):
        if function == 3 and address == 0:
            self.holding[0] += 1
        return await super().answer(function, first, address, count, current, values)


@pytest.fixture
async def ports():
    """Two gateways of three units each."""
    some = [ModbusSimulator({unit: CountingUnit() for unit in (1, 2, 3)}) for _ in range(2)]
    for simulator in some:
        await simulator.start()
    yield some
    for simulator in some:
        await simulator.stop()


def make(devices, profiles=None, **config):
    config = {
        "profile": "p", "devices": devices, "interval": "30ms", "reconnect_first": "20ms",
        "max_requests_per_s": 5_000.0, **config,
    }  # fmt: skip
    settings = validate_section(ModbusAdapter.Config, config, "adapters.x")
    return ModbusAdapter.from_config("x", settings, profiles or {"p": COUNTER, "w": WIDER}, PlantFacts())


def series(sink, path, name):
    """All values of a sensor, in the order in which they came."""
    found = []
    for batch in sink.batches:
        for frame, slot in enumerate(batch.slot.tolist()):
            names = [c.name for c in sink.directory.layout(slot).columns]
            if sink.directory.paths[slot] == path and name in names:
                found.append(int(batch.values[frame][names.index(name)]))
    return found


def is_whole(values):
    return values == list(range(values[0], values[0] + len(values)))


@pytest.fixture
async def polled(ports):
    """An adapter that polls one device on each gateway."""
    sink, adapter = RecordingSink(), make({"l/a": ports[0].url(1), "l/b": ports[1].url(1)})
    await adapter.start(sink)
    await until(lambda: len(series(sink, "l/a", "n")) > 3 and series(sink, "l/b", "n"), "they are polled")
    yield sink, adapter
    await adapter.stop()


async def test_devices_come_change_and_go_and_the_others_notice_nothing(ports, polled):
    sink, adapter = polled
    assert isinstance(adapter, Retags)
    connections = set(ports[0]._server.active_connections), set(ports[1]._server.active_connections)
    for devices in (
        {"l/a": ports[0].url(1), "l/b": ports[1].url(1), "l/c": ports[0].url(2)},  # one comes, at each place
        {"l/c": {"url": ports[0].url(2), "profile": "w"}, "l/a": ports[0].url(1), "l/b": ports[1].url(1)},
        {"l/a": ports[0].url(1), "l/b": {"url": ports[1].url(1), "profile": "w"}, "l/d": ports[1].url(3)},
        {"l/a": ports[0].url(1), "l/b": ports[1].url(1)},
    ):
        assert await adapter.retag(make(devices))
        paths = {d.path for d in adapter.diagnostics().devices}
        assert paths == set(devices)
        n = {path: len(series(sink, path, "n")) for path in devices}
        await until(
            lambda n=n: all(len(series(sink, p, "n")) > n[p] + 3 for p in n), "all of them are polled"
        )
    assert is_whole(series(sink, "l/a", "n")), "no poll of it was lost or made twice"
    assert is_whole(series(sink, "l/b", "n")), "its own tags were changed between two polls"
    assert series(sink, "l/b", "on")
    assert series(sink, "l/c", "more")
    assert connections == (
        set(ports[0]._server.active_connections), set(ports[1]._server.active_connections),
    )  # fmt: skip
    assert adapter.diagnostics().n_sensors == 4


async def test_a_connection_that_nobody_is_left_on_is_closed_and_its_counts_stay(ports, polled):
    sink, adapter = polled
    before = adapter.diagnostics()
    assert await adapter.retag(make({"l/a": ports[0].url(1)}))
    await until(lambda: not ports[1]._server.active_connections, "it is closed")
    after = adapter.diagnostics()
    assert after.transport_ns >= before.transport_ns
    assert sum(after.latency_counts) >= sum(before.latency_counts)
    assert after.latency_total_s >= before.latency_total_s
    assert (before.n_connects, after.n_connects) == (2, 2)
    assert await adapter.retag(make({"l/b": ports[1].url(2)}))
    await until(lambda: not ports[0]._server.active_connections, "it is closed")
    assert sum(adapter.diagnostics().latency_counts) >= sum(after.latency_counts)
    n = len(series(sink, "l/b", "n"))
    await until(lambda: len(series(sink, "l/b", "n")) > n, "it is polled at its new place")
    assert adapter.diagnostics().n_connects == 3


async def test_what_is_on_its_way_ends_as_it_began(ports, polled):
    """A device that does not answer holds its connection; the new plan comes when the deadline has passed."""
    sink, adapter = polled
    unit = ports[0].units[1]
    unit.hang()
    n = unit.n_requests
    await until(lambda: unit.n_requests > n, "a request waits")
    wider = make({"l/a": {"url": ports[0].url(1), "profile": "w"}, "l/b": ports[1].url(1)})
    assert await adapter.retag(wider)
    # Another change before the first one could come: the last one counts.
    assert await adapter.retag(make({"l/a": ports[0].url(1), "l/b": ports[1].url(1)}))
    assert await adapter.retag(
        make({"l/a": {"url": ports[0].url(1), "profile": "w", "interval": "20ms"}, "l/b": ports[1].url(1)})
    )
    assert not series(sink, "l/a", "more")
    unit.resume()
    await until(lambda: series(sink, "l/a", "more"), "it is read by its new tags")
    assert is_whole(series(sink, "l/a", "n"))


async def test_a_poller_that_waits_for_its_peer_is_changed_too(ports):
    dead = ModbusSimulator({1: SimulatedUnit()})
    await dead.start()
    await dead.stop()
    sink, adapter = RecordingSink(), make({"l/a": dead.url()}, reconnect_first="20s", reconnect_most="20s")
    await adapter.start(sink)
    try:
        await until(lambda: adapter.diagnostics().state is AdapterState.BACKOFF, "it is away")
        new = make({"l/a": dead.url(), "l/b": dead.url(2)}, reconnect_first="20s", reconnect_most="20s")
        assert await adapter.retag(new)
        (poller,) = adapter._running.pollers
        await until(lambda: len(poller.devices) == 2, "it knows both")
    finally:
        await adapter.stop()


async def test_what_a_signal_says_of_itself_is_taken_too(ports, polled):
    """A dead band changes no layout, and a calibration to come none of today."""
    sink, adapter = polled
    devices = {"l/a": ports[0].url(1), "l/b": ports[1].url(1)}

    async def takes(**said):
        level = SignalSettings(address="holding:5", **said)
        assert await adapter.retag(make(devices, {"p": {**COUNTER, "level": level}}))
        n = len(series(sink, "l/a", "n"))
        await until(lambda: len(series(sink, "l/a", "n")) > n, "polls go on")
        return [device.plan for device in adapter._running.devices]

    (slot,) = adapter._running.devices[0].slots
    same = await takes()
    for said in ({"dead_band": 2}, {"dead_band": 2, "calibration": [{"from": "2261-01-01", "scale": 2}]}):
        changed = await takes(**said)
        assert changed[0] is not same[0]
        assert sink.directory.dead_bands[slot].change.tolist() == [-1.0, 2.0]
        same = await takes(**said)
        assert same[0] is changed[0], "nothing differs"
    (plan,) = {plan.changes_after(0) for plan in same}
    assert plan < NEVER_NS
    later = await takes(dead_band=2, calibration=[{"from": "2260-01-01", "scale": 2}])
    assert later[0] is not same[0]
    await takes()
    assert not sink.directory.dead_bands
    assert is_whole(series(sink, "l/a", "n"))


async def test_what_is_not_only_tags_is_left_to_a_new_instance(ports, polled):
    sink, adapter = polled
    devices = {"l/a": ports[0].url(1)}
    assert not await adapter.retag(make(devices, reconnect_first="30ms"))
    assert len(adapter.diagnostics().devices) == 2
    assert not await make(devices).retag(make(devices))
    sink.directory.define("l/z", Layout("u16", (Column("n"),)), "another")
    with pytest.raises(ConfigError, match="sensor 'l/z/n' is defined twice"):
        await adapter.retag(make({"l/z": ports[0].url(1)}))
    n = len(series(sink, "l/b", "n"))
    await until(lambda: len(series(sink, "l/b", "n")) > n, "all goes on")
    await adapter.stop()
    assert not await adapter.retag(make(devices))


async def test_a_plant_that_stops_meanwhile_has_the_last_word(ports, polled):
    _, adapter = polled
    # Those that rest are woken, which takes a moment: the one in which it is stopped.
    await until(lambda: all(poller.is_resting for poller in adapter._running.pollers), "all rest")
    retagging = asyncio.ensure_future(adapter.retag(make({"l/c": ports[0].url(2), "l/d": ports[1].url(2)})))
    await asyncio.sleep(0)
    await adapter.stop()
    assert await retagging
    assert adapter.diagnostics().state is AdapterState.STOPPED
    await until(lambda: not ports[0]._server.active_connections, "all connections are closed")
