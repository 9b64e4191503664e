"""What traffic through a broker has in common: the bare client, waiting for the adapter, devices that publish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from headrace.adapters.base import Adapter, AdapterState
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.bench.traffic.base import Count
from headrace.core.clock import SystemClock

_WAIT_S = 20.0


async def connected(adapter: Adapter | None, is_listening: asyncio.Event) -> None:
    """Wait until the adapter has subscribed; the bare client where there is none."""
    if adapter is None:
        await asyncio.wait_for(is_listening.wait(), _WAIT_S)
        return
    clock = SystemClock()
    async with asyncio.timeout(_WAIT_S):
        while adapter.diagnostics().state is not AdapterState.CONNECTED:
            await clock.sleep(0.01)


async def bare_client(
    client_id: str,
    port: int,
    topics: str,
    take: Callable[[str, bytes], int],
    count: Count,
    is_listening: asyncio.Event,
) -> None:
    """gmqtt, QoS 1, until `count` is complete; `take` parses a message and says how many samples that were."""
    import gmqtt

    async def on_message(client: Any, topic: str, payload: bytes, qos: int, properties: Any) -> int:
        count.add(take(topic, payload))
        return 0

    client = gmqtt.Client(client_id)
    client.on_message = on_message
    client.on_connect = lambda client, flags, code, properties: client.subscribe(topics, qos=1)
    client.on_subscribe = lambda client, mid, qos, properties: is_listening.set()
    await client.connect("127.0.0.1", port)
    await count.complete.wait()
    is_listening.clear()
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
