"""Messages of ten instants of ten values as JSON, through mosquitto; beside it gmqtt and msgspec."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from headrace.adapters.base import Adapter, AdapterState
from headrace.adapters.broker.simulator import SimulatedBroker
from headrace.adapters.mqtt.adapter import MqttAdapter
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.bench.traffic.base import FACTS, Count, Peer
from headrace.core.clock import NS, SystemClock
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory

_KEYS, _ROWS, _MESSAGES, _SLICE, _DEVICES = 10, 10, 2_000, 50, 20
_RULE = {"path": "bench/line/{device}/{key}", "time": "ts", "time_unit": "ms"}
_WAIT_S = 20.0


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


class MqttTraffic:
    """See `headrace.bench.traffic.base.Traffic`."""

    name = "mqtt"
    n_samples = _KEYS * _ROWS * _MESSAGES
    reference = "gmqtt, msgspec with a type"

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-bench-")
        self._broker = SimulatedBroker(Path(self._folder.name))
        self._peer: Peer | None = None
        self._n_lives = 0
        self._is_listening = asyncio.Event()

    async def up(self) -> None:
        await self._broker.start()
        self._peer = Peer(_publisher, self._broker.port)

    async def down(self) -> None:
        if self._peer is not None:
            await self._peer.end()
        await self._broker.stop()
        self._folder.cleanup()

    def adapter(self) -> Adapter:
        self._n_lives += 1
        config = {
            "protocol": "mqtt", "url": self._broker.url, "client_id": f"bench-{self._n_lives}",
            "topics": {"plant/{device}": _RULE},
        }  # fmt: skip
        settings = validate_section(MqttAdapter.Config, config, "adapters.mqtt")
        return MqttAdapter.from_config("mqtt", settings, {}, FACTS)

    async def send(self, adapter: Adapter | None) -> None:
        clock = SystemClock()
        if adapter is None:
            await asyncio.wait_for(self._is_listening.wait(), _WAIT_S)
        else:
            async with asyncio.timeout(_WAIT_S):
                while adapter.diagnostics().state is not AdapterState.CONNECTED:
                    await clock.sleep(0.01)
        assert self._peer is not None
        await self._peer.ask("send")

    async def bare(self, count: Count) -> None:
        import gmqtt

        parse = _parser()
        self._n_lives += 1
        client = gmqtt.Client(f"bench-{self._n_lives}")

        async def on_message(client: Any, topic: str, payload: bytes, qos: int, properties: Any) -> int:
            count.add(len(parse(payload)) * _KEYS)
            return 0

        client.on_message = on_message
        client.on_connect = lambda client, flags, code, properties: client.subscribe("plant/+", qos=1)
        client.on_subscribe = lambda client, mid, qos, properties: self._is_listening.set()
        await client.connect("127.0.0.1", self._broker.port)
        await count.complete.wait()
        self._is_listening.clear()
        await client.disconnect()

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        if is_batched:
            return messages(_SLICE), _SLICE * _ROWS * _KEYS
        return messages(_SLICE, 1, 1), _SLICE

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        settings = {"plant/{device}": validate_section(RuleSettings, _RULE, "topics")}
        rules = compile_rules(settings, FACTS.levels, "UTC", "topics")
        router = MessageRouter("mqtt", rules, DeviceGroups(directory))
        arrival_ns = 1_800_000_000 * NS
        return lambda: router.decode(
            [TopicMessage(topic, data, arrival_ns) for topic, data in payloads], arrival_ns
        )

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        one = payloads[0][1]
        parse = _parser() if one.startswith(b"[") else _parser_of_one()
        return lambda: [parse(data) for _, data in payloads]


def _parser() -> Callable[[bytes], Any]:
    import msgspec

    row = msgspec.defstruct("Row", [("ts", int), *((f"t{k}", float) for k in range(_KEYS))])
    return msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]


def _parser_of_one() -> Callable[[bytes], Any]:
    import msgspec

    row = msgspec.defstruct("Row", [("ts", int), ("t0", float)])
    return msgspec.json.Decoder(row).decode


def _publisher(pipe: Connection, port: int) -> None:
    """The devices' process."""
    asyncio.run(_publish(pipe, port))


async def _publish(pipe: Connection, port: int) -> None:
    device = PublishingDevice("bench-devices", "127.0.0.1", port)
    await device.start()
    ready = messages(_MESSAGES)
    while True:
        try:
            await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        pipe.send("begun")
        for topic, payload in ready:
            await device.publish(topic, payload)
        await device.delivered()
