"""Messages of ten instants of ten values as JSON, from librdkafka's test cluster; beside it its consumer and orjson.

The cluster lies in the devices' process, and each life begins at the end of what is there. A partition of it holds 5 MiB,
so there are as many as a long run needs. It answers half a second late who was waiting, so that what comes comes at once;
a feed is large because of that, and because joining a group costs milliseconds of CPU.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, ClassVar

from headrace.adapters.base import Adapter
from headrace.adapters.kafka.adapter import KafkaAdapter
from headrace.adapters.payloads.base import MessageColumns, RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.adapters.payloads.topics import TopicDialect
from headrace.bench.traffic.base import FACTS, Count, Peer
from headrace.core.clock import NS, SystemClock
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory

_KEYS, _ROWS, _MESSAGES, _SLICE, _DEVICES, _PARTITIONS = 10, 10, 20_000, 50, 200, 48
_RULE = {"path": "bench/line/{message_key}/{key}", "time": "ts", "time_unit": "ms"}
_TOPIC = "plant.bench"
_WAIT_S, _PULL_S = 20.0, 0.05


def messages(n: int, n_rows: int = _ROWS, n_keys: int = _KEYS) -> list[tuple[bytes, bytes]]:
    """Keys and payloads of devices by turns: rows of values that change, 100 ms apart."""
    start_ms = SystemClock().now_ns() // NS * 1_000
    out = []
    for number in range(n):
        rows = []
        for row in range(n_rows):
            at = number // _DEVICES * n_rows + row
            values = {f"t{k}": round(20.0 + k + at % 97 * 0.25, 2) for k in range(n_keys)}
            rows.append({"ts": start_ms + 100 * at, **values})
        text = json.dumps(rows if n_rows > 1 else rows[0], separators=(",", ":"))
        out.append((f"d{number % _DEVICES}".encode(), text.encode()))
    return out


class KafkaTraffic:
    """See `headrace.bench.traffic.base.Traffic`."""

    name = "kafka"
    n_samples = _KEYS * _ROWS * _MESSAGES
    n_feeds = 3
    reference = "confluent-kafka, orjson"
    libraries: ClassVar[Mapping[str, str]] = {"confluent_kafka": "confluent-kafka", "orjson": "orjson"}

    def __init__(self) -> None:
        self._peer: Peer | None = None
        self._brokers: list[str] = []
        self._n_lives = 0
        self._is_assigned = asyncio.Event()

    async def up(self) -> None:
        self._peer = Peer(_devices, self.n_feeds)
        self._brokers = await self._peer.ask(0)

    async def down(self) -> None:
        if self._peer is not None:
            await self._peer.end()

    def _group(self) -> str:
        self._n_lives += 1
        return f"bench-{self._n_lives}"

    def adapter(self, n_feeds: int = 1) -> Adapter:
        config = {
            "protocol": "kafka", "brokers": self._brokers, "group": self._group(), "start": "latest",
            "topics": {_TOPIC: _RULE},
        }  # fmt: skip
        settings = validate_section(KafkaAdapter.Config, config, "adapters.kafka")
        return KafkaAdapter.from_config("kafka", settings, {}, FACTS)

    async def send(self, adapter: Adapter | None, n_feeds: int = 1) -> None:
        clock = SystemClock()
        if adapter is None:
            async with asyncio.timeout(_WAIT_S):
                await self._is_assigned.wait()
        else:
            async with asyncio.timeout(_WAIT_S):
                while len(adapter.diagnostics().devices) < 1 + _PARTITIONS:
                    await clock.sleep(0.01)
        assert self._peer is not None
        await self._peer.ask(n_feeds)

    async def bare(self, count: Count) -> None:
        import orjson
        from confluent_kafka import Consumer

        settings = {
            "bootstrap.servers": ",".join(self._brokers), "group.id": self._group(), "auto.offset.reset": "latest",
            "enable.auto.commit": False, "log_level": 0,
        }  # fmt: skip
        loop = asyncio.get_running_loop()

        def begin(consumer: Consumer, partitions: Any) -> None:
            for one in partitions:
                _, one.offset = consumer.get_watermark_offsets(one, timeout=_WAIT_S)
            consumer.assign(partitions)
            loop.call_soon_threadsafe(self._is_assigned.set)

        consumer = Consumer(settings)
        consumer.subscribe([_TOPIC], on_assign=begin)
        while not count.complete.is_set():
            for message in await asyncio.to_thread(consumer.consume, 1_000, _PULL_S):
                count.add(len(orjson.loads(message.value() or b"[]")) * _KEYS)
        self._is_assigned.clear()
        await asyncio.to_thread(consumer.close)

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        if is_batched:
            return messages(_SLICE), _SLICE * _ROWS * _KEYS
        return messages(_SLICE, 1, 1), _SLICE

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        settings = {_TOPIC: validate_section(RuleSettings, _RULE, "topics")}
        dialect = TopicDialect(".", has_keys=True)
        rules = compile_rules(settings, FACTS.levels, "UTC", "topics", dialect)
        router = MessageRouter("kafka", rules, DeviceGroups(directory))
        arrival_ns = 1_800_000_000 * NS
        keys, data = zip(*payloads, strict=True)

        def make(number: int) -> TopicMessage:
            return TopicMessage(_TOPIC, data[number], arrival_ns, arrival_ns, keys[number], (0, number))

        # As the inbox hands them over: taking them out of what the library gives is a part of transport.
        slice_of = MessageColumns([_TOPIC] * len(data), data, keys, make)
        return lambda: router.decode(slice_of, arrival_ns)

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        import orjson

        return lambda: [orjson.loads(data) for _, data in payloads]


def _devices(pipe: Connection, n_feeds: int) -> None:
    """The devices' process, and the cluster's."""
    from headrace.adapters.kafka.simulator import ProducingDevice, SimulatedCluster

    cluster = SimulatedCluster()
    cluster.create(_TOPIC, _PARTITIONS)
    device = ProducingDevice(cluster.brokers)
    ready = messages(n_feeds * _MESSAGES)
    while True:
        try:
            (wanted,) = pipe.recv()
        except EOFError:
            return
        for key, payload in ready[: wanted * _MESSAGES]:
            device.send(_TOPIC, payload, key)
        device.delivered()
        pipe.send(cluster.brokers)
