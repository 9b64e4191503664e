"""The Kafka adapter passes the public kit, against librdkafka's own test cluster."""

from __future__ import annotations

import asyncio

import pytest

from headrace.adapters.base import PlantFacts
from headrace.adapters.kafka.adapter import KafkaAdapter
from headrace.adapters.kafka.simulator import OFFSET_COMMIT, ProducingDevice, SimulatedCluster
from headrace.core.problems import validate_section
from headrace.testing import adapter_faults as faults
from headrace.testing import adapters as kit

FAULTS = (
    faults.check_source_times_are_kept, faults.check_type_change, faults.check_a_minute_without_credit,
    faults.check_clock_jumps, faults.check_capture_decodes_to_the_same,
)  # fmt: skip
FACTS = PlantFacts(("site", "area", "device", "signal"))


class KafkaRig:
    """Devices that produce JSON into a topic of two partitions."""

    acknowledges = True
    can_lose = True
    is_pushed_to = False

    def __init__(self, folder):
        self.cluster = SimulatedCluster()
        self.cluster.create("plant.a", 2)
        self.cluster.down()
        self.n_sent = 0

    def make(self):
        config = {
            "protocol": "kafka", "brokers": self.cluster.brokers, "reconnect_first": "20ms", "reconnect_most": "60ms",
            "options": {"session.timeout.ms": 1_200, "heartbeat.interval.ms": 30},  # rejoining takes it one session less a second
            "topics": {"plant.{area}": {"path": "leon/{area}/{message_key}/{key}", "time": "ts"}},
        }  # fmt: skip
        settings = validate_section(KafkaAdapter.Config, config, "adapters.cluster")
        return KafkaAdapter.from_config("cluster", settings, {}, FACTS)

    async def up(self):
        self.cluster.up()

    async def down(self):
        self.cluster.down()

    async def send(self):
        await self.produce(
            [f'{{"ts": {1_700_000_000_000 + self.n_sent + i}, "t": {i}.5, "on": true}}' for i in range(5)]
        )
        self.n_sent += 5
        return 10

    async def send_garbage(self):
        await self.produce(["what is this?", b"\xff\x00"])

    async def send_at(self, ts_ns):
        await self.produce([f'{{"ts": {ts_ns // 1_000_000}, "t": 1.5, "on": true}}'])
        return 2

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
def rig(tmp_path):
    one = KafkaRig(tmp_path)
    yield one
    one.cluster.close()


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
async def test_adapter(check, rig):
    await check(rig)


@pytest.mark.parametrize("check", FAULTS, ids=lambda check: check.__name__)
async def test_adapter_with_faults(check, rig):
    await check(rig)
