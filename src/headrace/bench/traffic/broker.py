"""What traffic through a broker has in common: the broker, devices that publish, the bare client."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from headrace.adapters.base import Adapter, AdapterState
from headrace.adapters.broker.simulator import SimulatedBroker
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.bench.traffic.base import Count, Peer
from headrace.core.clock import SystemClock

_WAIT_S = 20.0


class BrokerTraffic:
    """Traffic through mosquitto: what publishes, and clients that have not been there before.

    Parameters
    ----------
    publisher : the peer, ``publisher(pipe, port, n_feeds)``; see `publish_feeds`.
    """

    n_feeds: int

    def __init__(self, publisher: Callable[[Connection, int, int], None]) -> None:
        self._publisher = publisher
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._broker: SimulatedBroker | None = None
        self._peer: Peer | None = None
        self._n_clients = 0
        self._is_listening = asyncio.Event()

    async def up(self) -> None:
        """Start broker and peer, and wait until what it sends is ready."""
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-bench-")
        self._broker = SimulatedBroker(Path(self._folder.name))
        await self._broker.start()
        self._peer = Peer(self._publisher, self._broker.port, self.n_feeds)
        await self._peer.ask(0)

    async def down(self) -> None:
        """End them."""
        if self._peer is not None:
            await self._peer.end()
        if self._broker is not None:
            await self._broker.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def connection(self) -> dict[str, Any]:
        """Where an adapter connects to, and by what name: another one each time."""
        assert self._broker is not None
        self._n_clients += 1
        return {"url": self._broker.url, "client_id": f"bench-{self._n_clients}"}

    async def send(self, adapter: Adapter | None, n_feeds: int = 1) -> None:
        """Have the peer publish, once the adapter has subscribed; the bare client where there is none."""
        assert self._peer is not None
        if adapter is None:
            await asyncio.wait_for(self._is_listening.wait(), _WAIT_S)
        else:
            clock = SystemClock()
            async with asyncio.timeout(_WAIT_S):
                while adapter.diagnostics().state is not AdapterState.CONNECTED:
                    await clock.sleep(0.01)
        await self._peer.ask(n_feeds)

    async def take(self, topics: str, count: Count, parse: Callable[[str, bytes], int]) -> None:
        """The bare client: gmqtt, QoS 1, until `count` is complete.

        Parameters
        ----------
        parse : parses a message and says how many samples that were.
        """
        import gmqtt

        async def on_message(client: Any, topic: str, payload: bytes, qos: int, properties: Any) -> int:
            count.add(parse(topic, payload))
            return 0

        assert self._broker is not None
        client = gmqtt.Client(self.connection()["client_id"])
        client.on_message = on_message
        client.on_connect = lambda client, flags, code, properties: client.subscribe(topics, qos=1)
        client.on_subscribe = lambda client, mid, qos, properties: self._is_listening.set()
        await client.connect("127.0.0.1", self._broker.port)
        await count.complete.wait()
        self._is_listening.clear()
        await client.disconnect()


async def publish_feeds(
    pipe: Connection, port: int, ready: Sequence[tuple[str, bytes]], ends: Sequence[int]
) -> None:
    """The peer: asked for n feeds it publishes what is ready up to ``ends[n]``; for none, nothing."""
    device = PublishingDevice("bench-devices", "127.0.0.1", port)
    await device.start()
    while True:
        try:
            (n_feeds,) = await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        pipe.send("begun")
        for topic, payload in ready[: ends[n_feeds] if n_feeds else 0]:
            await device.publish(topic, payload)
        await device.delivered()
