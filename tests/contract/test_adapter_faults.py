"""Built-in adapters stand what networks, tired devices and wrong clocks do, against real peers."""

from __future__ import annotations

import struct
import time
from unittest import SkipTest

import pytest
from tests.contract import test_adapters as plain

from headrace.adapters.base import PlantFacts
from headrace.adapters.broker import client as mqtt_client
from headrace.adapters.broker.simulator import find_mosquitto
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.framing import TcpFraming
from headrace.adapters.mqtt.adapter import MqttAdapter
from headrace.adapters.pacing import ConnectPacer
from headrace.core.clock import NO_TIME
from headrace.core.problems import validate_section
from headrace.core.settings import SignalSettings
from headrace.testing import adapter_faults as faults
from headrace.testing import adapter_fleets
from headrace.testing.adapters import RecordingSink
from headrace.testing.fault_rigs import FleetRig, ProxiedRig, RetypingRig, TimedRig

PROFILE = {
    "temperature": SignalSettings(address="holding:0:F32"),
    "level": SignalSettings(address="holding:2"),
    "running": SignalSettings(address="coil:0"),
}


class ModbusRig(plain.ModbusRig):
    """A device of three sensors, or a fleet of them."""

    deadline_s = 0.06
    connects_per_s = 1_000.0

    def __init__(self, folder):
        super().__init__(folder)
        self.address = self.peer()

    def peer(self):
        return self.simulator.host, self.simulator.port

    def talk_to(self, host, port):
        self.address = host, port

    def make(self):
        return self.adapter({"leon/a/tank": self.address}, "20ms")

    def make_fleet(self, addresses):
        devices = {f"leon/a/tank{number}": address for number, address in enumerate(addresses)}
        return self.adapter(devices, "100ms", ConnectPacer(self.connects_per_s, burst=50))

    def adapter(self, devices, interval, pacer=None):
        config = {
            "profile": "tank", "interval": interval, "reconnect_first": "50ms", "reconnect_most": "200ms",
            "devices": {
                path: f"modbus+tcp://{host}:{port}?timeout={self.deadline_s}s"
                for path, (host, port) in devices.items()
            },
        }  # fmt: skip
        settings = validate_section(ModbusAdapter.Config, config, "adapters.tanks")
        facts = PlantFacts(plain.FACTS.levels, pacer=pacer or ConnectPacer())
        return ModbusAdapter.from_config("tanks", settings, {"tank": PROFILE}, facts)

    async def send(self):
        self.simulator.units[1].coil[0] ^= True
        return await super().send()

    def absurd(self, data):
        return data[:4] + b"\xff\xff" + data[6:]

    def offered(self):
        unit = self.simulator.units[1]
        (temperature,) = struct.unpack(">f", unit.holding[:2].astype(">u2").tobytes())
        return {
            ("leon/a/tank/temperature", temperature),
            ("leon/a/tank/level", float(unit.holding[2])),
            ("leon/a/tank/running", float(unit.coil[0])),
        }


class MqttRig(plain.MqttRig):
    """Devices that publish; the broker forgets nobody."""

    deadline_s = 3.0  # twice the shortest keep-alive, and half of one until it is looked at

    def __init__(self, folder):
        super().__init__(folder)
        self.address = self.peer()

    def peer(self):
        return "127.0.0.1", self.proxy.port

    def talk_to(self, host, port):
        self.address = host, port

    def make(self):
        config = {
            "url": f"mqtt://{self.address[0]}:{self.address[1]}", "version": "3.1.1", "keepalive": "1s",
            "reconnect_first": "50ms", "reconnect_most": "200ms",
            "topics": {"plant/{area}/{device}": {"path": "leon/{area}/{device}/{key}", "time": "ts"}},
        }  # fmt: skip
        settings = validate_section(MqttAdapter.Config, config, "adapters.broker")
        return MqttAdapter.from_config("broker", settings, {}, plain.FACTS)

    def absurd(self, data):
        return data[:1] + b"\xff\xff\xff\x7f" + data[2:]

    def offered(self):
        return {("leon/a/d1/t", i + 0.5) for i in range(5)} | {("leon/a/d1/on", 1.0)}

    async def send_at(self, ts_ns):
        await self.publish([f'{{"ts": {ts_ns // 1_000_000}, "t": 1.5, "on": true}}'])
        return 2

    async def send_other_type(self):
        self.n_sent += 1
        await self.publish([f'{{"ts": {1_700_000_000_000 + self.n_sent}, "t": "warm", "on": 7.5}}'])
        return 2


class HttpRig(plain.HttpRig):
    """A client that pushes lines."""

    async def send_at(self, ts_ns):
        self.push(f"machine,site=a,host=m0 temperature=1.5,pieces=2i {ts_ns}\n".encode())
        return 2

    async def send_other_type(self):
        self.push(f'machine,site=a,host=m0 temperature="warm",pieces=2.5 {time.time_ns()}\n'.encode())
        return 2


KINDS = (ProxiedRig, FleetRig, TimedRig, RetypingRig)
RIGS = {"http": HttpRig, "modbus": ModbusRig, "mqtt": MqttRig, "replay": plain.ReplayRig}


CHECKS = [
    pytest.param(protocol, check, id=f"{protocol}-{check.__name__}")
    for protocol, rig in RIGS.items()
    for check in faults.checks_for(rig)
]


@pytest.mark.parametrize(("protocol", "check"), CHECKS)
async def test_adapter(protocol, check, tmp_path, monkeypatch):
    if protocol == "mqtt" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed; amqtt keeps nothing for a client that is away")
    monkeypatch.setattr(mqtt_client, "CONNECT_S", 0.5)
    monkeypatch.setattr(plain.replay, "LOOK_FIRST_NS", 20_000_000)
    monkeypatch.setattr(plain.replay, "LOOK_MOST_NS", 60_000_000)
    await check(RIGS[protocol](tmp_path))


def test_rigs_are_what_the_checks_look_for(tmp_path):
    """A check is skipped for a rig that has not what it needs: each rig has what is said here."""
    found = {
        name: [kind for kind in KINDS if isinstance(make(tmp_path), kind)] for name, make in RIGS.items()
    }
    assert found == {
        "http": [TimedRig, RetypingRig], "modbus": [ProxiedRig, FleetRig],
        "mqtt": [ProxiedRig, TimedRig, RetypingRig], "replay": [],
    }  # fmt: skip


async def test_a_check_says_what_a_rig_has_not(tmp_path):
    """Called all the same, it is skipped: it must not look as if it had passed."""
    rig = plain.ReplayRig(tmp_path)
    has = faults.checks_for(plain.ReplayRig)
    for check in [check for check in faults.CHECKS if check not in has]:
        with pytest.raises(SkipTest, match="the rig has no "):
            await check(rig)
    with pytest.raises(SkipTest, match="it sends by itself"):
        await faults.check_late_reply(MqttRig(tmp_path))
    with pytest.raises(SkipTest, match="not told"):
        await faults.check_poison_is_taken_once(ModbusRig(tmp_path))
    with pytest.raises(SkipTest, match="captures nothing"):
        await faults.check_capture_decodes_to_the_same(rig)
    for check in (plain.kit.check_acknowledged_means_durable, plain.kit.check_lost_peer_comes_back):
        with pytest.raises(SkipTest):
            await check(rig)
    with pytest.raises(SkipTest, match="looks for nobody"):
        await plain.kit.check_logs_once(HttpRig(tmp_path))


async def test_a_time_that_comes_as_another_is_noticed(tmp_path):
    """Also behind one that was refused."""

    class Wrong(HttpRig):
        n_times = 0

        async def send_at(self, ts_ns):
            self.n_times += 1
            if self.n_times == 1:
                await self.send_garbage()
                self.push(b"machine,host=m0 temperature=\n")
            return await super().send_at(ts_ns + (self.n_times == 2))

    with pytest.raises(AssertionError, match="came as another"):
        await faults.check_source_times_are_kept(Wrong(tmp_path))


async def test_a_broker_tells_how_it_is_doing(tmp_path):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    rig, sink = MqttRig(tmp_path), RecordingSink(is_durable=False)
    async with faults.proxied(rig, sink) as (adapter, proxy):
        ahead_ns = time.time_ns() + 3_600 * 10**9
        await rig.send_at(ahead_ns)
        await plain.kit.until(lambda: sink.n_samples == 2, "both samples came")
        found = adapter.diagnostics()
        assert (found.n_connects, found.n_unacknowledged) == (1, 1)
        assert 0 <= time.time_ns() - found.unacknowledged_ns < 5 * 10**9
        assert abs(found.devices[0].clock_skew_ns / 1e9 - 3_600) < 5
        sink.land()
        found = adapter.diagnostics()
        assert (found.n_unacknowledged, found.unacknowledged_ns) == (0, NO_TIME)
        proxy.cut()
        await plain.kit.until(lambda: adapter.diagnostics().n_connects == 2, "it connects again")


async def test_the_kit_notices_what_it_is_for(tmp_path, monkeypatch):
    """Without what keeps the promise, the check of it fails."""
    with monkeypatch.context() as changed:
        changed.setattr(adapter_fleets, "N_STORM", 400)
        changed.setattr(ModbusRig, "connects_per_s", 200.0)
        changed.setattr(ConnectPacer, "reserve_ns", lambda pacer, now_ns: 0)
        with pytest.raises(AssertionError, match="connections within"):
            await faults.check_reconnect_storm(ModbusRig(tmp_path))
    with monkeypatch.context() as changed:
        begin = TcpFraming.begin

        def all_alike(own, unit, pdu):
            own._transaction = 0
            return begin(own, unit, pdu)

        changed.setattr(TcpFraming, "begin", all_alike)
        with pytest.raises(AssertionError, match="a late answer was taken for"):
            await faults.check_late_reply(ModbusRig(tmp_path))
    with monkeypatch.context() as changed:
        changed.setattr(plain.kit, "WAIT_S", 0.3)
        changed.setattr(ModbusRig, "offered", lambda rig: {("leon/a/tank/level", -1.0)})
        with pytest.raises(AssertionError, match="still not"):
            await faults.check_split_and_joined_frames(ModbusRig(tmp_path))
