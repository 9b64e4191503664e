"""Every built-in adapter passes the public kit, against real peers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from tests.contract.broker_proxy import CountingProxy

from headrace.adapters.base import PlantFacts, Pushed
from headrace.adapters.broker.simulator import SimulatedBroker, find_mosquitto, free_port
from headrace.adapters.http.adapter import HttpAdapter
from headrace.adapters.http.simulator import LineMachines, PushAnswer, PushingClient
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedUnit
from headrace.adapters.mqtt.adapter import MqttAdapter
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.adapters.registry import ADAPTERS
from headrace.adapters.replay import adapter as replay
from headrace.adapters.replay.simulator import as_long, walks, write_table
from headrace.core.errors import Closed, Overloaded, Rejected
from headrace.core.problems import validate_section
from headrace.core.settings import SignalSettings
from headrace.testing import adapters as kit
from headrace.testing.adapter_faults import check_capture_decodes_to_the_same

FACTS = PlantFacts(("site", "area", "device", "signal"))


class ModbusRig:
    """A device of 3 sensors behind pymodbus's server, polled every 20 ms."""

    acknowledges = False
    can_lose = True
    is_pushed_to = False

    def __init__(self, folder):
        self.simulator = ModbusSimulator({1: SimulatedUnit()}, port=free_port())
        self.is_up = False

    def make(self):
        profile = {
            "temperature": SignalSettings(address="holding:0:F32"),
            "level": SignalSettings(address="holding:2"),
            "running": SignalSettings(address="coil:0"),
        }
        config = {
            "protocol": "modbus", "profile": "tank", "interval": "20ms", "devices": {"leon/a/tank": self.simulator.url()},
            "reconnect_first": "50ms", "reconnect_most": "200ms",
        }  # fmt: skip
        settings = validate_section(ModbusAdapter.Config, config, "adapters.tanks")
        return ModbusAdapter.from_config("tanks", settings, {"tank": profile}, FACTS)

    async def up(self):
        await self.simulator.start()

    async def down(self):
        self.simulator.corrupt = None
        await self.simulator.stop()

    async def send(self):
        self.simulator.corrupt = None
        self.simulator.units[1].holding[:3] += 1
        return 3

    async def send_garbage(self):
        # A byte less than was asked for, in a frame that is whole.
        self.simulator.corrupt = lambda data: data[:5] + bytes([data[5] - 1]) + data[6:-1]

    def n_acknowledged(self):
        raise AssertionError("a polled device is told nothing")


class MqttRig:
    """Devices that publish JSON to a real broker at QoS 1."""

    acknowledges = True
    can_lose = True
    is_pushed_to = False

    def __init__(self, folder):
        self.broker = SimulatedBroker(folder)
        self.proxy = CountingProxy(free_port(), self.broker.port)
        self.n_sent = 0
        self.is_up = False

    def make(self):
        config = {
            "protocol": "mqtt", "url": f"mqtt://127.0.0.1:{self.proxy.port}", "version": "3.1.1",
            "reconnect_first": "50ms", "reconnect_most": "200ms",
            "topics": {"plant/{area}/{device}": {"path": "leon/{area}/{device}/{key}", "time": "ts"}},
        }  # fmt: skip
        settings = validate_section(MqttAdapter.Config, config, "adapters.broker")
        return MqttAdapter.from_config("broker", settings, {}, FACTS)

    async def up(self):
        await self.broker.start()
        await self.proxy.start()
        await self.subscribe()

    async def subscribe(self):
        """Messages that come before the first subscription of all are nobody's."""
        device = self.device("headrace-broker", clean_session=False)
        await device.start()
        device._client.subscribe("plant/+/+", qos=1)
        await asyncio.sleep(0.05)
        await device.stop()

    async def down(self):
        await self.proxy.stop()
        await self.broker.stop()

    def device(self, name, **more):
        device = PublishingDevice(name, "127.0.0.1", self.broker.port)
        for key, value in more.items():
            setattr(device._client, f"_{key}", value)
        return device

    async def send(self):
        await self.publish(
            [f'{{"ts": {1_700_000_000_000 + self.n_sent + i}, "t": {i}.5, "on": true}}' for i in range(5)]
        )
        self.n_sent += 5
        return 10

    async def send_garbage(self):
        await self.publish(["what is this?", b"\xff\x00"])

    async def publish(self, payloads):
        device = self.device("device")
        await device.start()
        for payload in payloads:
            await device.publish("plant/a/d1", payload)
        await device.delivered()
        await device.stop()

    def n_acknowledged(self):
        return self.proxy.n_pubacks


class ReplayRig:
    """A folder into which files are put."""

    acknowledges = False
    can_lose = False
    is_pushed_to = False

    def __init__(self, folder):
        self.folder = folder
        self.n_files = 0

    def make(self):
        config = {"protocol": "replay", "files": "*.*", "follow": True}
        settings = validate_section(replay.ReplayAdapter.Config, config, "adapters.history")
        facts = PlantFacts(FACTS.levels, "UTC", self.folder)
        return replay.ReplayAdapter.from_config("history", settings, {}, facts)

    async def up(self):
        pass

    async def down(self):
        for file in self.folder.iterdir():
            file.unlink()

    def next_file(self, suffix):
        self.n_files += 1
        return self.folder / f"{self.n_files:03}{suffix}"

    async def send(self):
        first_ns = (1_700_000_000 + 10 * self.n_files) * 10**9
        table = as_long(walks(10, 4, first_ns, 10**9, self.n_files), "leon/a/d1")
        write_table(table, self.next_file(".csv" if self.n_files % 2 else ".parquet"))
        return 40

    async def send_garbage(self):
        self.next_file(".parquet").write_bytes(b"this is no Parquet")

    def n_acknowledged(self):
        raise AssertionError("a file is told nothing")


class HttpRig:
    """A client whose bodies go to the adapter without a server between them."""

    acknowledges = True
    can_lose = False
    is_pushed_to = True

    def __init__(self, folder):
        self.adapter = None
        self.tasks = set()
        self.n_sent = 0
        self.client = PushingClient(self.post)

    def make(self):
        settings = validate_section(HttpAdapter.Config, {"protocol": "http"}, "adapters.push")
        self.adapter = HttpAdapter.from_config("push", settings, {}, FACTS)
        return self.adapter

    async def post(self, body, key):
        try:
            await self.adapter.receive(Pushed(body, "text/plain", {}, key, time.time_ns()))
        except Rejected as e:
            return PushAnswer(400, str(e))
        except Overloaded as e:
            return PushAnswer(429, str(e), 0.02 * e.wait_s)
        except Closed as e:
            return PushAnswer(503, str(e))
        return PushAnswer(204)

    async def up(self):
        pass

    async def down(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def push(self, body):
        task = asyncio.create_task(self.client.push(body))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def send(self):
        machines = LineMachines(5, seed=self.n_sent, site="a")
        self.n_sent += 1
        self.push(machines.lines(1_700_000_000 * 10**9 + self.n_sent))
        return 20

    async def send_garbage(self):
        self.push(b"what is this?\n\xff\x00=\n")

    def n_acknowledged(self):
        return self.client.n_acknowledged


RIGS = {"http": HttpRig, "modbus": ModbusRig, "mqtt": MqttRig, "replay": ReplayRig}


def test_every_adapter_has_a_rig():
    """Here, or in a file of its own."""
    elsewhere = [
        p.name[len("test_") : -len("_adapter.py")] for p in Path(__file__).parent.glob("test_*_adapter.py")
    ]
    assert sorted([*RIGS, *elsewhere]) == ADAPTERS.names()


@pytest.mark.parametrize(
    "check", [*kit.CHECKS, check_capture_decodes_to_the_same], ids=lambda check: check.__name__
)
@pytest.mark.parametrize("protocol", RIGS)
async def test_adapter(protocol, check, tmp_path, monkeypatch):
    if protocol == "mqtt" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed; amqtt keeps nothing for a client that is away")
    monkeypatch.setattr(replay, "LOOK_FIRST_NS", 20_000_000)
    monkeypatch.setattr(replay, "LOOK_MOST_NS", 60_000_000)
    await check(RIGS[protocol](tmp_path))


async def test_a_peer_that_is_never_there_fails_the_kit(tmp_path, monkeypatch):
    """The kit itself notices: a rig whose peer sends nothing does not pass."""
    monkeypatch.setattr(kit, "WAIT_S", 0.2)

    class Mute(ModbusRig):
        async def send(self):
            return 10**9

    with pytest.raises(AssertionError, match="still not"):
        await kit.check_samples_arrive(Mute(tmp_path))


def test_values_of_the_simulator_are_what_registers_hold():
    unit = SimulatedUnit()
    assert unit.holding.dtype == np.uint16
    assert unit.coil.dtype == np.bool_
