"""The Sparkplug adapter passes the public kit, with nodes behind a real broker."""

from __future__ import annotations

import pytest
from tests.contract.broker_proxy import CountingProxy

from headrace.adapters.base import PlantFacts
from headrace.adapters.broker.simulator import SimulatedBroker, find_mosquitto, free_port
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.adapters.sparkplug.adapter import SparkplugAdapter
from headrace.adapters.sparkplug.simulator import TANK, SimulatedNode
from headrace.adapters.sparkplug.topics import filters
from headrace.core.clock import SystemClock
from headrace.core.problems import validate_section
from headrace.testing import adapter_faults as faults
from headrace.testing import adapters as kit


class SparkplugRig:
    """A node with a device that speaks at QoS 1, so that the broker keeps what we have not acknowledged."""

    acknowledges = True
    can_lose = True
    is_pushed_to = False

    def __init__(self, folder):
        self.broker = SimulatedBroker(folder)
        self.proxy = CountingProxy(free_port(), self.broker.port)
        self.n_nodes = 0

    def make(self):
        config = {
            "protocol": "sparkplug", "url": f"mqtt://127.0.0.1:{self.proxy.port}", "version": "3.1.1",
            "reconnect_first": "50ms", "reconnect_most": "200ms",
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
        await self.proxy.stop()
        await self.broker.stop()

    async def send(self):
        address = "127.0.0.1", self.broker.port
        # A birth without values is acknowledged whatever the sink says: the node has one of its own.
        signals = {"": TANK[:1], "tank": TANK}
        node = SimulatedNode(address, ("leon", "line1"), signals, seed=self.n_nodes, qos=1)
        self.n_nodes += 1
        await node.start()
        for _ in range(3):
            await node.report("tank")
        await node.stop()
        return len(node.sent)

    async def send_garbage(self):
        device = PublishingDevice("garbage", "127.0.0.1", self.broker.port)
        await device.start()
        await device.publish("spBv1.0/leon/DDATA/line1/tank", b"\xff\x00")
        await device.publish("spBv1.0/leon/NBIRTH/line1", b"what is this?")
        await device.delivered()
        await device.stop()

    def n_acknowledged(self):
        return self.proxy.n_pubacks


@pytest.mark.parametrize(
    "check", [*kit.CHECKS, *faults.checks_for(SparkplugRig)], ids=lambda check: check.__name__
)
async def test_adapter(check, tmp_path):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed; amqtt keeps nothing for a client that is away")
    await check(SparkplugRig(tmp_path))
