"""Messages of a hundred metrics of edge nodes' devices, by alias, through mosquitto; beside it gmqtt and protobuf."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, ClassVar

from headrace.adapters.base import Adapter
from headrace.adapters.broker.inbox import Inbox
from headrace.adapters.meters import seconds
from headrace.adapters.payloads.sparkplug import BDSEQ, DataType
from headrace.adapters.payloads.sparkplug_writer import SparkplugValue, write_payload
from headrace.adapters.sparkplug.adapter import SparkplugAdapter
from headrace.adapters.sparkplug.config import NAMESPACE, SparkplugConfig
from headrace.adapters.sparkplug.naming import compile_naming
from headrace.adapters.sparkplug.nodes import NodeSessions
from headrace.adapters.sparkplug.order import SequenceGate
from headrace.bench.traffic.base import FACTS, Count
from headrace.bench.traffic.broker import (
    BrokerTraffic,
    DeskSession,
    KeepingSink,
    bare_way,
    decoding,
    packets,
    publish_feeds,
)
from headrace.core.clock import NS, SystemClock
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory

_METRICS, _MESSAGES, _SLICE = 100, 3_000, 50
_NODES, _DEVICES = 2, 4
_STEP_MS = 1_000


def messages(n: int, n_metrics: int = _METRICS) -> list[tuple[str, bytes]]:
    """Births of nodes, then messages of devices by turns: of each the first is its birth.

    A value is a double with an alias and a time, as nodes send them.
    """
    start_ms = SystemClock().now_ns() // NS * 1_000
    born = SparkplugValue(0, DataType.INT64, BDSEQ, time_ms=start_ms)
    out = [(_topic("NBIRTH", node), write_payload(start_ms, 0, [born])) for node in range(_NODES)]
    seq = [0] * _NODES
    for number in range(n):
        device, at = number % _DEVICES, number // _DEVICES
        node, time_ms = device % _NODES, start_ms + at * _STEP_MS
        values = [_value(device * n_metrics + k, k, at, time_ms) for k in range(n_metrics)]
        seq[node] = (seq[node] + 1) % 256
        topic = _topic("DDATA" if at else "DBIRTH", node, f"/d{device}")
        out.append((topic, write_payload(time_ms, seq[node], values)))
    return out


def _topic(kind: str, node: int, device: str = "") -> str:
    return f"{NAMESPACE}/bench/{kind}/n{node}{device}"


def _value(alias: int, k: int, at: int, time_ms: int) -> SparkplugValue:
    value = 20.0 + k + at % 97 * 0.25
    return SparkplugValue(value, DataType.DOUBLE, None if at else f"t{k}", alias, time_ms, names_type=not at)


class SparkplugTraffic(BrokerTraffic):
    """See `headrace.bench.traffic.base.Traffic`."""

    name = "sparkplug"
    n_samples = _METRICS * _MESSAGES
    n_feeds = 3
    reference = "gmqtt, protobuf (upb) with the value of each metric read"
    libraries: ClassVar[Mapping[str, str]] = {"gmqtt": "gmqtt", "google.protobuf": "protobuf"}

    def __init__(self) -> None:
        super().__init__(_publisher)

    def adapter(self, n_feeds: int = 1) -> Adapter:
        config = {"protocol": "sparkplug"} | self.connection()
        settings = validate_section(SparkplugAdapter.Config, config, "adapters.sparkplug")
        return SparkplugAdapter.from_config("sparkplug", settings, {}, FACTS)

    async def bare(self, count: Count) -> None:
        parse = _parser()

        def samples(topic: str, payload: bytes) -> int:
            return 0 if "/NBIRTH/" in topic else len(parse(payload))

        await self.take(f"{NAMESPACE}/#", count, samples)

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        n_metrics = _METRICS if is_batched else 1
        return messages(_DEVICES + _SLICE, n_metrics), n_metrics * _SLICE

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        nodes = _sessions(_config(), directory)
        decoding(nodes, payloads[: _NODES + _DEVICES])()
        return decoding(nodes, payloads[_NODES + _DEVICES :])

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        parse, data = _parser(), [payload for _, payload in payloads[_NODES + _DEVICES :]]
        return lambda: [parse(one) for one in data]

    def way(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        config = _config()
        nodes = _sessions(config, directory)
        sink, session = KeepingSink(directory), DeskSession(config)
        inbox = Inbox(sink, nodes, session, on_refused=nodes.undo)
        gate = SequenceGate(inbox, session, seconds(config.reorder), nodes.missed)
        take = session.way(sink, inbox, gate)
        take(packets(payloads[: _NODES + _DEVICES]))
        # From the second time on their sequence numbers are old ones: that is looked at, and they are handed on.
        return partial(take, packets(payloads[_NODES + _DEVICES :]))

    def bare_way(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        return partial(bare_way(_parser()), packets(payloads[_NODES + _DEVICES :]))


def _config() -> SparkplugConfig:
    return SparkplugConfig(protocol="sparkplug", url="mqtt://127.0.0.1")


def _sessions(config: SparkplugConfig, directory: SensorDirectory) -> NodeSessions:
    naming = compile_naming(None, {}, None, FACTS.levels, "adapters.sparkplug")
    return NodeSessions("sparkplug", config, naming, directory, _nobody, _nobody)


def _nobody(node_id: tuple[str, str]) -> None:
    """Asks no node for its birth."""


def _parser() -> Callable[[bytes], list[float]]:
    from headrace.bench.traffic.sparkplug_schema import Payload

    read = Payload.FromString
    return lambda data: [metric.double_value for metric in read(data).metrics]


def _publisher(pipe: Connection, port: int, n_feeds: int) -> None:
    """The edge nodes' process."""
    ready = messages(n_feeds * _MESSAGES)
    asyncio.run(publish_feeds(pipe, port, ready, [_NODES + i * _MESSAGES for i in range(n_feeds + 1)]))
