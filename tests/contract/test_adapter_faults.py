"""Built-in adapters stand what networks, tired devices and wrong clocks do, against real peers."""

from __future__ import annotations

import json
import re
import struct
import time
from types import MappingProxyType
from unittest import SkipTest

import numpy as np
import pytest
from tests.contract import test_adapters as plain

from headrace.adapters.base import PlantFacts
from headrace.adapters.broker import client as mqtt_client
from headrace.adapters.broker.simulator import find_mosquitto, free_port
from headrace.adapters.http.simulator import http_post
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.framing import TcpFraming
from headrace.adapters.mqtt.adapter import MqttAdapter
from headrace.adapters.pacing import ConnectPacer
from headrace.core.clock import NO_TIME, SystemClock
from headrace.core.problems import validate_section
from headrace.core.settings import SignalSettings
from headrace.runtime.server import ControlServer
from headrace.testing import adapter_faults as faults
from headrace.testing import adapter_fleets, adapter_inputs
from headrace.testing.adapter_contract import contract
from headrace.testing.adapters import RecordingSink
from headrace.testing.fault_rigs import ABILITIES

PROFILE = {
    "temperature": SignalSettings(address="holding:0:F32"),
    "level": SignalSettings(address="holding:2"),
    "running": SignalSettings(address="coil:0"),
}


class ModbusRig(plain.ModbusRig):
    """A device of three sensors, or a fleet of them."""

    deadline_s = 0.06
    connects_per_s = 1_000.0
    has_texts = True
    cannot = MappingProxyType({
        "times": "a register has no time of its own", "types": "what a register holds is what the profile says",
        "order": "an answer is asked for", "process": "a polled device is told nothing",
    })  # fmt: skip

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

    def adapter(self, devices, interval, pacer=None, profile=PROFILE, timeout_s=None):
        config = {
            "profile": "tank", "interval": interval, "reconnect_first": "50ms", "reconnect_most": "200ms",
            "devices": {
                path: f"modbus+tcp://{host}:{port}?timeout={timeout_s or self.deadline_s}s"
                for path, (host, port) in devices.items()
            },
        }  # fmt: skip
        settings = validate_section(ModbusAdapter.Config, config, "adapters.tanks")
        facts = PlantFacts(plain.FACTS.levels, pacer=pacer or ConnectPacer())
        return ModbusAdapter.from_config("tanks", settings, {"tank": profile}, facts)

    async def send(self):
        self.simulator.units[1].coil[0] ^= True
        return await super().send()

    def make_registers(self, addresses):
        profile = {f"r{number}": SignalSettings(address=one) for number, one in enumerate(addresses)}
        return self.adapter({"leon/a/tank": self.address}, "20ms", profile=profile, timeout_s=1.0)

    async def send_registers(self, data):
        self.simulator.units[1].holding[: len(data) // 2] = np.frombuffer(data, ">u2")

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


TOPIC = "plant/{area}/{device}"
BROKER = """
[adapters.broker]
protocol = "mqtt"
url = "{url}"
version = "3.1.1"
reconnect_most = "1s"
[adapters.broker.topics]
"plant/{{area}}/{{device}}" = {{ path = "leon/{{area}}/{{device}}/{{key}}", time = "ts" }}
"""


class MqttRig(plain.MqttRig):
    """Devices that publish; the broker forgets nobody."""

    deadline_s = 3.0  # twice the shortest keep-alive, and half of one until it is looked at
    acknowledges_by = "to_peer"
    has_texts = False
    cannot = MappingProxyType({"fleet": "it talks to one broker"})

    def __init__(self, folder):
        super().__init__(folder)
        self.folder = folder
        self.address = self.peer()

    def peer(self):
        return "127.0.0.1", self.proxy.port

    def talk_to(self, host, port):
        self.address = host, port

    def make(self):
        return self.adapter({"time": "ts"})

    def make_registers(self, addresses):
        names = {f"r{number}": one for number, one in enumerate(addresses)}
        return self.adapter({"values": "registers", "registers": names})

    async def send_registers(self, data):
        await self.publish([data])

    def plant_section(self):
        return BROKER.format(url=self.url)

    @property
    def url(self):
        return f"mqtt://{self.address[0]}:{self.address[1]}"

    def adapter(self, rule):
        config = {
            "url": self.url, "version": "3.1.1", "keepalive": "1s",
            "reconnect_first": "50ms", "reconnect_most": "200ms",
            "topics": {TOPIC: {"path": "leon/{area}/{device}/{key}", **rule}},
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

    async def send_swapped(self):
        first = 1_700_000_000_000 + self.n_sent
        self.n_sent += 3
        await self.publish([f'{{"ts": {first + i}, "t": {i}.5, "on": true}}' for i in (2, 0, 1)])
        return 6

    async def send_other_type(self):
        self.n_sent += 1
        await self.publish([f'{{"ts": {1_700_000_000_000 + self.n_sent}, "t": "warm", "on": 7.5}}'])
        return 2


class DoorOnly:
    """A plant as its control port sees it that has nothing but an adapter to be pushed to."""

    state = "running"

    def __init__(self, rig):
        self.rig = rig

    def adapters(self):
        return [] if self.rig.adapter is None else [self.rig.adapter.diagnostics()]

    async def receive(self, name, pushed):
        return await self.rig.adapter.receive(pushed)


HTTP = """
[adapters.push]
protocol = "http"
path = "{site}/{host}/{measurement}/{field}"
other_tags = "drop"
"""


class HttpRig(plain.HttpRig):
    """A client that pushes lines over a socket, to the server that plants have."""

    deadline_s = 0.5
    acknowledges_by = "to_client"
    cannot = MappingProxyType(
        {"fleet": "devices come to it", "registers": "a line says itself what it holds"}
    )

    def __init__(self, folder):
        super().__init__(folder)
        self.folder = folder
        self.port = free_port()
        self.server = None
        self.address = self.peer()
        self.key, self.is_plant = "k" * 48, False
        self.latest = b""

    async def up(self):
        self.server = ControlServer(DoorOnly(self), SystemClock(), self.key)
        self.server.bind(port=self.port)
        await self.server.start()

    async def down(self):
        await super().down()
        if self.server is not None:
            await self.server.stop()

    def peer(self):
        return "127.0.0.1", self.port

    def talk_to(self, host, port):
        self.address = host, port

    def plant_section(self):
        self.is_plant = True
        return HTTP

    async def post(self, body, key):
        host, port = self.address
        secret = self.key
        if self.is_plant:
            secret = json.loads((self.folder / "store" / "running.json").read_bytes())["key"]
        return await http_post(f"http://{host}:{port}/api/v1/receive/push", secret, self.deadline_s)(
            body, key
        )

    def push(self, body):
        self.latest = body
        super().push(body)

    def absurd(self, data):
        return re.sub(rb"content-length: \d+", b"Content-Length: 99999999999999", data, flags=re.IGNORECASE)

    def offered(self):
        found = set()
        for line in self.latest.decode().splitlines():
            tags, fields, _ = line.split(" ")
            _, site, host = tags.split(",")
            for name, value in (one.split("=") for one in fields.split(",")):
                path = f"{site[5:]}/{host[5:]}/machine/{name}"
                found.add((path, value.strip('"') if '"' in value else number(value)))
        return found

    async def send_at(self, ts_ns):
        self.push(f"machine,site=a,host=m0 temperature=1.5,pieces=2i {ts_ns}\n".encode())
        return 2

    async def send_swapped(self):
        self.n_sent += 3
        first = 1_700_000_000 * 10**9 + self.n_sent
        lines = [f"machine,site=a,host=m0 temperature={i}.5,pieces={i}i {first + i}\n" for i in (2, 0, 1)]
        self.push("".join(lines[:2]).encode())
        self.push(lines[2].encode())
        return 6

    async def send_other_type(self):
        self.push(f'machine,site=a,host=m0 temperature="warm",pieces=2.5 {time.time_ns()}\n'.encode())
        return 2


def number(text):
    """A value of line protocol that is no text."""
    return float(text == "true") if text in ("true", "false") else float(text.rstrip("i"))


NO_FILES = MappingProxyType({
    "wire": "it reads files", "fleet": "it has one folder", "registers": "a table says itself what it holds",
    "process": "a file is told nothing: what is played is played again",
})  # fmt: skip


class ReplayRig(plain.ReplayRig):
    """Files of a few rows besides the others."""

    cannot = MappingProxyType({
        "wire": "it reads files", "fleet": "it has one folder", "registers": "a table says itself what it holds",
        "process": "a file is told nothing: it is played again",
    })  # fmt: skip

    def play(self, *rows):
        lines = [f"leon/a/d9/v,{ts_ns},{value}\n" for ts_ns, value in rows]
        self.next_file(".csv").write_text("path,ts,value\n" + "".join(lines))
        return len(rows)

    async def send_at(self, ts_ns):
        return self.play((ts_ns, 1.5))

    async def send_swapped(self):
        first = 1_800_000_000 * 10**9 + self.n_files
        return self.play((first + 2, 2.5), (first, 0.5)) + self.play((first + 1, 1.5))

    async def send_other_type(self):
        self.n_files += 1
        return self.play((1_800_000_000 * 10**9, 0.5)) + self.play((1_800_000_001 * 10**9, "warm"))


RIGS = {"http": HttpRig, "modbus": ModbusRig, "mqtt": MqttRig, "replay": ReplayRig}
CHECKS = (*adapter_inputs.CHECKS, *faults.CHECKS)


@pytest.mark.parametrize(
    ("protocol", "check"),
    [
        pytest.param(protocol, *one.values, id=f"{protocol}-{one.id}")
        for protocol, rig in RIGS.items()
        for one in contract(rig, checks=CHECKS)
    ],
)
async def test_adapter(protocol, check, tmp_path, monkeypatch):
    if protocol == "mqtt" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed; amqtt keeps nothing for a client that is away")
    monkeypatch.setattr(mqtt_client, "CONNECT_S", 0.5)
    monkeypatch.setattr(plain.replay, "LOOK_FIRST_NS", 20_000_000)
    monkeypatch.setattr(plain.replay, "LOOK_MOST_NS", 60_000_000)
    await check(tmp_path)


def test_rigs_are_what_the_checks_look_for(tmp_path):
    """What a rig can do and what it says that it can't is all there is."""
    for make in RIGS.values():
        able = [
            name for name, parts in ABILITIES.items() if all(hasattr(make(tmp_path), part) for part in parts)
        ]
        assert sorted([*able, *make.cannot]) == sorted(ABILITIES)


async def test_a_check_says_what_a_rig_has_not(tmp_path):
    """Called without `contract`, it is skipped all the same: it must not look as if it had passed."""
    rig = plain.ReplayRig(tmp_path)
    for check in (one for one, needs in {**faults.NEEDS, **adapter_inputs.NEEDS}.items() if needs):
        with pytest.raises(SkipTest, match="the rig has no "):
            await check(rig)
    with pytest.raises(SkipTest, match="it sends by itself"):
        await faults.check_late_reply(MqttRig(tmp_path))
    with pytest.raises(SkipTest, match="not told"):
        await faults.check_poison_is_taken_once(ModbusRig(tmp_path))
    for check in (faults.check_capture_decodes_to_the_same, adapter_inputs.check_fuzzed_input_is_accounted):
        with pytest.raises(SkipTest, match="captures nothing"):
            await check(rig)
    for check in (plain.kit.check_acknowledged_means_durable, plain.kit.check_lost_peer_comes_back):
        with pytest.raises(SkipTest):
            await check(rig)
    for check in (
        plain.kit.check_logs_once, faults.check_half_open_is_noticed, faults.check_half_open_from_the_beginning,
    ):  # fmt: skip
        with pytest.raises(SkipTest, match="looks for nobody"):
            await check(HttpRig(tmp_path))


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
