"""Messages of ten instants of ten values as JSON, through mosquitto; beside it gmqtt and msgspec."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, ClassVar

from headrace.adapters.base import Adapter
from headrace.adapters.broker.inbox import Inbox
from headrace.adapters.mqtt.adapter import MqttAdapter
from headrace.adapters.mqtt.config import MqttConfig
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules
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

_KEYS, _ROWS, _MESSAGES, _SLICE, _DEVICES = 10, 10, 2_000, 50, 20
_RULE = {"path": "bench/line/{device}/{key}", "time": "ts", "time_unit": "ms"}


def messages(n: int, n_rows: int = _ROWS, n_keys: int = _KEYS) -> list[tuple[str, bytes]]:
    """Topics and payloads of devices by turns: rows of values that change, 100 ms apart."""
    start_ms = SystemClock().now_ns() // NS * 1_000
    out = []
    for number in range(n):
        rows = []
        for row in range(n_rows):
            at = number // _DEVICES * n_rows + row
            values = {f"t{k}": round(20.0 + k + at % 97 * 0.25, 2) for k in range(n_keys)}
            rows.append({"ts": start_ms + 100 * at, **values})
        text = json.dumps(rows if n_rows > 1 else rows[0], separators=(",", ":"))
        out.append((f"plant/d{number % _DEVICES}", text.encode()))
    return out


class MqttTraffic(BrokerTraffic):
    """See `headrace.bench.traffic.base.Traffic`."""

    name = "mqtt"
    n_samples = _KEYS * _ROWS * _MESSAGES
    n_feeds = 5
    reference = "gmqtt, msgspec with a type"
    libraries: ClassVar[Mapping[str, str]] = {"gmqtt": "gmqtt", "msgspec": "msgspec"}

    def __init__(self) -> None:
        super().__init__(_publisher)

    def adapter(self, n_feeds: int = 1) -> Adapter:
        config = {"protocol": "mqtt", "topics": {"plant/{device}": _RULE}} | self.connection()
        settings = validate_section(MqttAdapter.Config, config, "adapters.mqtt")
        return MqttAdapter.from_config("mqtt", settings, {}, FACTS)

    async def bare(self, count: Count) -> None:
        parse = _parser()
        await self.take("plant/+", count, lambda topic, payload: len(parse(payload)) * _KEYS)

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        if is_batched:
            return messages(_SLICE), _SLICE * _ROWS * _KEYS
        return messages(_SLICE, 1, 1), _SLICE

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        rules = compile_rules(_settings().topics, FACTS.levels, "UTC", "topics")
        router = MessageRouter("mqtt", rules, DeviceGroups(directory))
        return decoding(router, payloads)

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        parse = _parser_for(payloads)
        return lambda: [parse(data) for _, data in payloads]

    def way(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        settings = _settings()
        rules = compile_rules(settings.topics, FACTS.levels, "UTC", "topics")
        sink, session = KeepingSink(directory), DeskSession(settings)
        inbox = Inbox(sink, MessageRouter("mqtt", rules, DeviceGroups(directory)), session)
        return partial(session.way(sink, inbox, inbox), packets(payloads))

    def bare_way(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        return partial(bare_way(_parser_for(payloads)), packets(payloads))


def _settings() -> MqttConfig:
    config = {"protocol": "mqtt", "url": "mqtt://127.0.0.1", "topics": {"plant/{device}": _RULE}}
    return validate_section(MqttConfig, config, "adapters.mqtt")


def _parser_for(payloads: Sequence[Any]) -> Callable[[bytes], Any]:
    return _parser() if payloads[0][1].startswith(b"[") else _parser_of_one()


def _parser() -> Callable[[bytes], Any]:
    import msgspec

    row = msgspec.defstruct("Row", [("ts", int), *((f"t{k}", float) for k in range(_KEYS))])
    return msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]


def _parser_of_one() -> Callable[[bytes], Any]:
    import msgspec

    row = msgspec.defstruct("Row", [("ts", int), ("t0", float)])
    return msgspec.json.Decoder(row).decode


def _publisher(pipe: Connection, port: int, n_feeds: int) -> None:
    """The devices' process."""
    ends = [i * _MESSAGES for i in range(n_feeds + 1)]
    asyncio.run(publish_feeds(pipe, port, messages(n_feeds * _MESSAGES), ends))
