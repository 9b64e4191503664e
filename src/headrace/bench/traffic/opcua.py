"""Variables of a server that change a hundred times, subscribed to; beside it asyncua's client and a handler.

What the server publishes it has gathered for 50 ms: some hundred values in a message, each with its two times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from typing import Any, ClassVar

from headrace.adapters.base import Adapter, AdapterState
from headrace.adapters.broker.simulator import free_port
from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.opcua.addresses import parse_node
from headrace.adapters.opcua.config import ServerAddress, UaDevicePlan, UaSignal
from headrace.adapters.opcua.filing import Filing, joined
from headrace.adapters.opcua.messages import publish_answer
from headrace.adapters.opcua.simulator import NAMESPACE, OpcuaSimulator
from headrace.adapters.opcua.tags import TagTable
from headrace.bench.traffic.base import FACTS, Count, Peer
from headrace.core.clock import NS, SystemClock
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory
from headrace.core.settings import SignalSettings

_DEVICES, _SIGNALS, _CHANGES, _SLICE = 20, 10, 100, 50
_VARIABLES = _DEVICES * _SIGNALS
_INTERVAL_MS = 50
_WAIT_S = 60.0


class OpcuaTraffic:
    """See `headrace.bench.traffic.base.Traffic`.

    A client gets the present values first: they are the first changes of a feed.
    """

    name = "opcua"
    n_samples = _VARIABLES * _CHANGES
    n_feeds = 3
    reference = "asyncua's client, a subscription with a handler"
    libraries: ClassVar[Mapping[str, str]] = {"asyncua": "asyncua"}

    def __init__(self) -> None:
        self._port = free_port()
        self._peer: Peer | None = None
        self._has_values = asyncio.Event()

    async def up(self) -> None:
        self._peer = Peer(_server, self._port)
        await self._peer.ask("up")

    async def down(self) -> None:
        if self._peer is not None:
            await self._peer.end()

    def adapter(self, n_feeds: int = 1) -> Adapter:
        config = {
            "profile": "oven", "interval": f"{_INTERVAL_MS}ms", "queue_size": 10 * _CHANGES,
            "devices": {
                f"bench/line/d{number}": f"{_url(self._port)}?node=d{number}" for number in range(_DEVICES)
            },
        }  # fmt: skip
        settings = validate_section(OpcuaAdapter.Config, config, "adapters.opcua")
        profile = {
            f"t{k}": SignalSettings(address=OpcuaSimulator.address(f"{{node}}.t{k}")) for k in range(_SIGNALS)
        }
        return OpcuaAdapter.from_config("opcua", settings, {"oven": profile}, FACTS)

    async def send(self, adapter: Adapter | None, n_feeds: int = 1) -> None:
        if adapter is None:
            async with asyncio.timeout(_WAIT_S):
                await self._has_values.wait()
        else:
            async with asyncio.timeout(_WAIT_S):
                while adapter.diagnostics().n_samples < _VARIABLES:
                    await SystemClock().sleep(0.01)
            assert adapter.diagnostics().state is AdapterState.CONNECTED
        assert self._peer is not None
        await self._peer.ask("change", n_feeds * _CHANGES - 1)

    async def bare(self, count: Count) -> None:
        from asyncua import Client

        latest: dict[Any, Any] = {}
        has_values = self._has_values

        class Keeps:
            """What is told of each change."""

            def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
                """Keep a value."""
                latest[node] = value
                count.add(1)
                if count.n == _VARIABLES:
                    has_values.set()

        async with Client(_url(self._port), _WAIT_S, watchdog_intervall=_WAIT_S) as client:
            index = await client.get_namespace_index(NAMESPACE)
            nodes = [client.get_node(f"ns={index};s={name}") for name in _names()]
            # asyncua drops what it has no room for, and what is published before it knows of the items.
            subscription = await client.create_subscription(
                _INTERVAL_MS, Keeps(), publishing=False, queue_maxsize=10 * self.n_samples
            )
            await subscription.subscribe_data_change(nodes, queuesize=10 * _CHANGES)
            await subscription.set_publishing_mode(True)
            await count.complete.wait()
        self._has_values.clear()

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        if is_batched:
            return [_published(range(_VARIABLES))], _VARIABLES
        return [_published(range(number, number + 1)) for number in range(_SLICE)], _SLICE

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        server = ServerAddress("127.0.0.1", self._port)
        signals = tuple(
            UaSignal(f"t{k}", parse_node(f"ns=2;s={{node}}.t{k}"), SignalSettings(address="i=1"))
            for k in range(_SIGNALS)
        )
        plans = [
            UaDevicePlan(f"bench/line/d{number}", server, f"d{number}", 4.0, NS, "oven", signals)
            for number in range(_DEVICES)
        ]
        tags = TagTable(plans, directory)
        tags.begin()
        filing = Filing("opcua", tags, directory, "auto")
        arrival_ns = SystemClock().now_ns()

        def decode() -> Any:
            tags.forget()  # else all would be repeats
            values = [one for body in payloads for one in publish_answer(body).values]
            return filing.file(joined(values), arrival_ns).batches

        return decode

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        from asyncua import ua
        from asyncua.ua.ua_binary import struct_from_binary

        def parse() -> Any:
            return [
                (item.ClientHandle, item.Value.Value.Value, item.Value.SourceTimestamp)
                for body in payloads
                for one in struct_from_binary(
                    ua.PublishResponse, ua.utils.Buffer(body)
                ).Parameters.NotificationMessage.NotificationData
                for item in one.MonitoredItems
            ]

        return parse


def _url(port: int) -> str:
    return f"opc.tcp://127.0.0.1:{port}/plant"


def _names() -> list[str]:
    return [f"d{device}.t{signal}" for device in range(_DEVICES) for signal in range(_SIGNALS)]


def _published(handles: range) -> bytes:
    """A publish response with a value of each of some items."""
    from asyncua import ua
    from asyncua.ua.ua_binary import struct_to_binary

    now = datetime.fromtimestamp(SystemClock().now_ns() // NS, UTC)
    items = [
        ua.MonitoredItemNotification(
            handle, ua.DataValue(ua.Variant(20.0 + handle, ua.VariantType.Double), None, now + i * _US, now)
        )
        for i, handle in enumerate(handles)
    ]
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 1
    message = response.Parameters.NotificationMessage
    message.SequenceNumber = 1
    message.NotificationData = [ua.DataChangeNotification(MonitoredItems=items)]
    return bytes(struct_to_binary(response))


_US = timedelta(microseconds=1)


def _server(pipe: Connection, port: int) -> None:
    """The server's process."""
    asyncio.run(_serve(pipe, port))


async def _serve(pipe: Connection, port: int) -> None:
    simulator = OpcuaSimulator(port)
    await simulator.start()
    for name in _names():
        await simulator.add(name, 20.0)
    n_changes, clock = 0, SystemClock()
    while True:
        try:
            word, *n_wanted = await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        pipe.send("begun")
        for _ in range(n_wanted[0] if word == "change" else 0):
            n_changes += 1
            for number, name in enumerate(_names()):
                await simulator.write(name, 20.0 + number + n_changes % 97 * 0.25)
                if not number % _SIGNALS:
                    await clock.sleep(0)  # it publishes, and answers
