"""The Sparkplug adapter passes the public kit, with nodes behind a real broker."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from tests.contract.broker_proxy import CountingProxy

from headrace.adapters.base import PlantFacts
from headrace.adapters.broker import client as mqtt_client
from headrace.adapters.broker.simulator import SimulatedBroker, find_mosquitto, free_port
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.sparkplug.adapter import SparkplugAdapter
from headrace.adapters.sparkplug.simulator import TANK, SimulatedMetric, SimulatedNode
from headrace.adapters.sparkplug.topics import filters
from headrace.core.clock import SystemClock
from headrace.core.problems import validate_section
from headrace.testing import adapter_process
from headrace.testing.adapter_contract import RIG_CHECKS, contract

PLANT = """
[adapters.plant]
protocol = "sparkplug"
url = "{url}"
version = "3.1.1"
reconnect_most = "1s"
"""


class SparkplugRig:
    """A node with a device that speaks at QoS 1, so that the broker keeps what we have not acknowledged."""

    acknowledges = True
    can_lose = True
    is_pushed_to = False
    deadline_s = 3.0  # twice the shortest keep-alive, and half of one until it is looked at
    acknowledges_by = "to_peer"
    cannot = MappingProxyType(
        {"fleet": "it talks to one broker", "registers": "metrics have types of their own"}
    )

    def __init__(self, folder):
        self.folder = folder
        self.broker = SimulatedBroker(folder)
        self.proxy = CountingProxy(free_port(), self.broker.port)
        self.node, self.n_lives, self.latest = None, 0, []
        self.address = self.peer()

    def peer(self):
        return "127.0.0.1", self.proxy.port

    def talk_to(self, host, port):
        self.address = host, port

    @property
    def url(self):
        return f"mqtt://{self.address[0]}:{self.address[1]}"

    def plant_section(self):
        return PLANT.format(url=self.url)

    def absurd(self, data):
        return data[:1] + b"\xff\xff\xff\x7f" + data[2:]

    def offered(self):
        return {(self.path(one), one.value) for one in self.latest}

    def path(self, one):
        return f"leon/line1/{one.device or 'node'}/{one.metric.replace('/', '.')}"

    def make(self):
        config = {
            "protocol": "sparkplug", "url": self.url, "version": "3.1.1", "keepalive": "1s",
            "rebirth_first": "100ms", "reconnect_first": "50ms", "reconnect_most": "200ms",
        }  # fmt: skip
        settings = validate_section(SparkplugAdapter.Config, config, "adapters.plant")
        facts = PlantFacts(("site", "area", "device", "signal"))
        return SparkplugAdapter.from_config("plant", settings, {}, facts)

    async def up(self):
        await self.broker.start()
        await self.proxy.start()
        await self.subscribe()

    async def subscribe(self):
        """Messages that come before the first subscription of all are nobody's."""
        device = PublishingDevice("headrace-plant", "127.0.0.1", self.broker.port)
        device._client._clean_session = False
        await device.start()
        for one in filters(["+"]):
            device._client.subscribe(one, qos=1)
        await SystemClock().sleep(0.05)
        await device.stop()

    async def down(self):
        if self.node is not None:
            await self.node.stop()
            self.node = None
        await self.proxy.stop()
        await self.broker.stop()

    async def live(self, tank=TANK):
        """A new life of the node; a birth without values is acknowledged whatever the sink says, so it has one of its own."""
        self.n_lives += 1
        address = "127.0.0.1", self.broker.port
        signals = {"": TANK[:1], "tank": tank}
        self.node = SimulatedNode(address, ("leon", "line1"), signals, seed=self.n_lives, qos=1)
        await self.node.start()

    async def told(self, tell):
        """How many values were sent meanwhile."""
        n = 0
        if self.node is None:
            await self.live()
        else:
            n = len(self.node.sent)
        await tell()
        await self.node.delivered()
        self.latest = self.node.sent[n:]
        return len(self.latest)

    async def send(self):
        async def report():
            self.node.time_ms += 1_000
            self.node.tell_births()  # so that what is heard from here on can be read by itself
            for _ in range(3):
                await self.node.report("tank")

        return await self.told(report)

    async def send_at(self, ts_ns):
        if self.node is None:
            await self.live()
        n = len(self.node.sent)
        self.node.time_ms = ts_ns // 1_000_000 - 1_000  # it is a second later with each report
        await self.node.report("tank", ["Level"])
        await self.node.delivered()
        return len(self.node.sent) - n

    async def send_swapped(self):
        return await self.told(lambda: self.node.report_swapped("tank"))

    async def send_other_type(self):
        await self.node.stop()
        level = SimulatedMetric("Level", DataType.STRING)
        await self.live([level if one.name == "Level" else one for one in TANK])
        await self.node.delivered()
        return len(self.node.sent)

    async def send_garbage(self):
        device = PublishingDevice("garbage", "127.0.0.1", self.broker.port)
        await device.start()
        await device.publish("spBv1.0/leon/DDATA/line1/tank", b"\xff\x00")
        await device.publish("spBv1.0/leon/NBIRTH/line1", b"what is this?")
        await device.delivered()
        await device.stop()

    def n_acknowledged(self):
        return self.proxy.n_pubacks


CHECKS = [one for one in RIG_CHECKS if one not in adapter_process.CHECKS]


@pytest.mark.parametrize("check", contract(SparkplugRig, "sparkplug", CHECKS))
async def test_adapter(check, tmp_path, monkeypatch):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed; amqtt keeps nothing for a client that is away")
    monkeypatch.setattr(mqtt_client, "CONNECT_S", 0.5)
    await check(tmp_path)
