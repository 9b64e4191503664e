"""A plant that is killed between the durable write and the acknowledgement: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from headrace.adapters.http.simulator import PushingClient, http_post
from headrace.core.clock import NS, SystemClock
from headrace.sim.devices.broker import Broker
from headrace.sim.devices.mqtt import QosOneClient
from headrace.store.query import Store
from headrace.testing.adapter_process import check_killed_before_it_was_acknowledged
from headrace.testing.proxy import FaultProxy

N = 60
START_MS = 1_767_225_600_000
PLANT = """version = 1
[plant]
levels = ["site", "device", "signal"]
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
"""
MQTT = """
[adapters.load]
protocol = "mqtt"
url = "{url}"
user = "plant"
reconnect_most = "1s"
[adapters.load.topics]
"load/{{device}}" = {{ path = "bench/{{device}}/{{key}}", values = "fields", time = "ts" }}
"""
HTTP = """
[adapters.push]
protocol = "http"
path = "{site}/{measurement}/{field}"
other_tags = "drop"
"""


class Rig:
    """What both have in common: the process and its store."""

    def __init__(self, headrace):
        self.headrace = headrace

    async def until(self, what):
        await asyncio.to_thread(self.headrace.until, what)

    def samples(self):
        return self.headrace.status()["samples"]

    def kill(self):
        self.headrace.kill()

    async def stored(self):
        assert await asyncio.to_thread(self.headrace.stop) == 0
        store = Store.open(self.headrace.store, None, SystemClock())
        found = store.query("**", START_MS * 1_000_000, START_MS * 1_000_000 + 3_600 * NS).to_rows()
        return [int(row["value"]) for row in found], list(range(N))


class MqttRig(Rig):
    """Messages of a broker, each acknowledged by itself."""

    acknowledges_by = "to_peer"

    def __init__(self, headrace, broker, proxy):
        super().__init__(headrace)
        self.broker, self.proxy = broker, proxy
        url = f"mqtt://{proxy.host}:{proxy.port}"
        (headrace.folder / "plant.toml").write_text(PLANT + MQTT.format(url=url))
        self.client = QosOneClient("device")

    async def up(self):
        self.headrace.start()
        await asyncio.to_thread(self.headrace.up)
        await self.until(lambda: self.headrace.adapter().get("state") == "connected")

    async def offer(self):
        await self.client.connect(self.broker.host, self.broker.port)
        for i in range(N):
            await self.client.publish("load/d", f'{{"ts": {START_MS + i}, "v": {i}}}'.encode())
        await self.client.drained()

    async def durable(self):
        # Twenty is what mosquitto has on its way at a time: more come only when those are acknowledged.
        await self.until(lambda: self.samples()["received"] >= 20 and not self.samples()["in_flight"])

    async def acknowledged(self):
        await self.until(
            lambda: self.samples()["received"] >= N and not self.headrace.adapter()["unacknowledged"]
        )


class HttpRig(Rig):
    """Bodies of a client that tries until it is told that they are durable."""

    acknowledges_by = "to_client"

    def __init__(self, headrace, proxy):
        super().__init__(headrace)
        self.proxy = proxy
        (headrace.folder / "plant.toml").write_text(PLANT + HTTP)
        post = http_post(f"http://{proxy.host}:{proxy.port}/api/v2/write?bucket=push&precision=ms")
        self.client = PushingClient(post)

    async def up(self):
        self.headrace.start(web=True)
        await asyncio.to_thread(self.headrace.up)
        host, port = self.headrace._address().removeprefix("http://").split(":")
        self.proxy.target = host, int(port)

    async def offer(self):
        lines = "".join(f"m,site=bench,host=d v={i} {START_MS + i}\n" for i in range(N))
        self.pushing = asyncio.create_task(self.client.push(lines.encode()))

    async def durable(self):
        await self.until(lambda: self.samples()["received"] >= N and not self.samples()["in_flight"])

    async def acknowledged(self):
        assert not self.pushing.done(), "it was told before"
        answer = await asyncio.wait_for(self.pushing, 30)
        assert answer.status == 204
        assert self.client.n_tries >= 2


@pytest.fixture
async def proxy():
    one = FaultProxy(("127.0.0.1", 1))
    await one.start()
    yield one
    await one.stop()


async def test_messages_of_a_broker(headrace, proxy, tmp_path):
    broker = Broker(tmp_path / "broker")
    await broker.start()
    proxy.target = broker.host, broker.port
    rig = MqttRig(headrace, broker, proxy)
    try:
        await check_killed_before_it_was_acknowledged(rig)
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(rig.client.close(), 2.0)
        await broker.stop()


async def test_bodies_that_are_pushed(headrace, proxy):
    await check_killed_before_it_was_acknowledged(HttpRig(headrace, proxy))
