"""The Kafka adapter passes the public kit, against librdkafka's own test cluster."""

from __future__ import annotations

import asyncio
from types import MappingProxyType

import pytest
from tests.integration.kafka_door import Door

from headrace.adapters.base import PlantFacts
from headrace.adapters.kafka.adapter import KafkaAdapter
from headrace.adapters.kafka.simulator import OFFSET_COMMIT, ProducingDevice, SimulatedCluster
from headrace.core.problems import validate_section
from headrace.testing import adapter_process
from headrace.testing.adapter_contract import RIG_CHECKS, contract

PLANT = """
[adapters.cluster]
protocol = "kafka"
brokers = ["{broker}"]
options = {{ "session.timeout.ms" = 1200, "heartbeat.interval.ms" = 30 }}
[adapters.cluster.topics]
"plant.{{area}}" = {{ path = "leon/{{area}}/{{message_key}}/{{key}}", time = "ts" }}
"""
FACTS = PlantFacts(("site", "area", "device", "signal"))


OPTIONS = {"session.timeout.ms": 1_200, "heartbeat.interval.ms": 30}
"""Rejoining takes it one session less a second."""


class NoCommits:
    """Lets everything through but commits, by which progress is told; what else is asked goes the same way."""

    def __init__(self):
        self.rests = {}

    async def forward(self, data, way):
        data = self.rests.pop(way, b"") + data
        while len(data) >= 8 and len(data) >= (size := 4 + int.from_bytes(data[:4])):
            if int.from_bytes(data[4:6]) != OFFSET_COMMIT:
                await way.send(data[:size])
            data = data[size:]
        self.rests[way] = data


class KafkaRig:
    """Devices that produce JSON into a topic of two partitions."""

    acknowledges = True
    can_lose = True
    is_pushed_to = False
    deadline_s = 3.0
    acknowledges_by = "to_peer"
    has_texts = False
    cannot = MappingProxyType({"fleet": "a cluster is one peer, and librdkafka makes its connections"})

    def __init__(self, folder):
        self.folder = folder
        self.cluster = SimulatedCluster()
        self.cluster.create("plant.a", 2)
        self.cluster.down()
        self.n_sent = 0
        self.door = None
        self.brokers = self.cluster.brokers
        self.offers = set()

    def peer(self):
        return "127.0.0.1", self.door.port

    def talk_to(self, host, port):
        self.door.told_port = port
        self.brokers = [f"{host}:{port}"]

    def absurd(self, data):
        return b"\x7f\xff\xff\xff" + data[4:]

    def offered(self):
        return self.offers

    def withhold(self):
        return NoCommits()

    def plant_section(self):
        return PLANT.format(broker=self.brokers[0])

    def make(self):
        return self.adapter({"time": "ts"})

    def make_registers(self, addresses):
        names = {f"r{number}": one for number, one in enumerate(addresses)}
        return self.adapter({"values": "registers", "registers": names})

    async def send_registers(self, data):
        await self.produce([data])

    def adapter(self, rule):
        config = {
            "protocol": "kafka", "brokers": self.brokers, "reconnect_first": "20ms", "reconnect_most": "60ms",
            "timeout": "1s", "options": OPTIONS, "topics": {"plant.{area}": {"path": "leon/{area}/{message_key}/{key}", **rule}},
        }  # fmt: skip
        settings = validate_section(KafkaAdapter.Config, config, "adapters.cluster")
        return KafkaAdapter.from_config("cluster", settings, {}, FACTS)

    async def up(self):
        self.cluster.up()
        if self.door is None:
            self.door = Door(self.cluster.brokers[0])
            await self.door.__aenter__()

    async def down(self):
        self.cluster.down()

    async def close(self):
        if self.door is not None:
            await self.door.__aexit__()
        self.cluster.close()

    async def send(self):
        await self.produce(
            [f'{{"ts": {1_700_000_000_000 + self.n_sent + i}, "t": {i}.5, "on": true}}' for i in range(5)]
        )
        self.n_sent += 5
        self.offers = {("leon/a/d1/t", i + 0.5) for i in range(5)} | {("leon/a/d1/on", 1.0)}
        return 10

    async def send_garbage(self):
        await self.produce(["what is this?", b"\xff\x00"])

    async def send_at(self, ts_ns):
        await self.produce([f'{{"ts": {ts_ns // 1_000_000}, "t": 1.5, "on": true}}'])
        return 2

    async def send_swapped(self):
        first = 1_700_000_000_000 + self.n_sent
        self.n_sent += 3
        await self.produce([f'{{"ts": {first + i}, "t": {i}.5, "on": true}}' for i in (2, 0, 1)])
        return 6

    async def send_other_type(self):
        self.n_sent += 1
        await self.produce([f'{{"ts": {1_700_000_000_000 + self.n_sent}, "t": "warm", "on": 7.5}}'])
        return 2

    async def produce(self, payloads):
        device = ProducingDevice(self.cluster.brokers)
        for payload in payloads:
            device.send("plant.a", payload, "d1")
        await asyncio.to_thread(device.delivered)

    def n_acknowledged(self):
        return self.cluster.n_requests(OFFSET_COMMIT)


@pytest.fixture
async def rig(tmp_path):
    one = KafkaRig(tmp_path)
    yield one
    await one.close()


CHECKS = [one for one in RIG_CHECKS if one not in adapter_process.CHECKS]


@pytest.mark.parametrize("check", contract(lambda rig: rig, "kafka", CHECKS))
async def test_adapter(check, rig):
    await check(rig)
