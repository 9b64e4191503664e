"""The adapter passes Headrace's kit, beside a scale that speaks TCP."""

import asyncio
import socket
from types import MappingProxyType

import numpy as np
import pytest
from headrace_scale.adapter import ScaleAdapter

from headrace.adapters.base import PlantFacts
from headrace.core.problems import validate_section
from headrace.testing.adapter_contract import contract
from headrace.testing.adapters import RecordingSink


class Scale:
    """Answers ``SI`` with its weight, at the same port each time it is started."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as one:
            self.port = one.getsockname()[1]
        self.server, self.writers, self.grams, self.garbage = None, set(), 0, b""

    async def start(self):
        if self.server is None:
            self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader, writer):
        self.writers.add(writer)
        while await reader.readline() == b"SI\r\n":
            writer.write(self.garbage or f"S S {self.grams / 1000:10.3f} kg\r\n".encode())
        self.writers.discard(writer)
        writer.close()

    async def stop(self):
        server, self.server = self.server, None
        if server is not None:
            server.close()
            for writer in self.writers:
                writer.transport.abort()
            await server.wait_closed()


class ScaleRig:
    """What the kit needs to know of a scale."""

    acknowledges, can_lose, is_pushed_to = False, True, False
    deadline_s = 0.4
    cannot = MappingProxyType({
        "fleet": "it is one device", "times": "a scale has no clock", "types": "it sends a weight and nothing else",
        "order": "an answer is asked for", "registers": "it sends text", "process": "it is told nothing",
    })  # fmt: skip

    def __init__(self, folder):
        self.scale = Scale()
        self.address = self.peer()

    def make(self):
        host, port = self.address
        config = {
            "protocol": "scale", "host": host, "port": port, "path": "leon/dispatch/scale1",
            "interval": "20ms", "timeout": "200ms", "reconnect_most": "200ms",
        }  # fmt: skip
        settings = validate_section(ScaleAdapter.Config, config, "adapters.dispatch")
        return ScaleAdapter.from_config("dispatch", settings, {}, PlantFacts())

    async def up(self):
        await self.scale.start()

    async def down(self):
        await self.scale.stop()

    async def send(self):
        self.scale.grams, self.scale.garbage = self.scale.grams + 1, b""
        return 1

    async def send_garbage(self):
        self.scale.garbage = b"\xff\x00 what is this?\r\n"

    def n_acknowledged(self):
        raise AssertionError("a scale is told nothing")

    def peer(self):
        return "127.0.0.1", self.scale.port

    def talk_to(self, host, port):
        self.address = host, port

    def absurd(self, data):
        return b"S S " + b"9" * 200_000 + b" kg\r\n"

    def offered(self):
        return {("leon/dispatch/scale1/weight", self.scale.grams / 1000)}


@pytest.mark.parametrize("check", contract(ScaleRig, "scale"))
async def test_it_keeps_the_contract(check, tmp_path):
    await check(tmp_path)


@pytest.mark.parametrize("n_steps", range(4))
async def test_it_stops_although_an_answer_comes_at_that_moment(tmp_path, n_steps):
    """A poll that took no notice would go on for ever."""
    sink, reader = RecordingSink(), asyncio.StreamReader()
    sent = asyncio.Event()

    class Writer:
        def write(self, data):
            sent.set()

    adapter = ScaleRig(tmp_path).make()
    await adapter.start(sink)
    await adapter.stop()
    poll = asyncio.create_task(adapter._poll(reader, Writer(), sink, np.zeros(1, np.uint32)))
    await sent.wait()
    await asyncio.sleep(0)
    reader.feed_data(b"S S      0.001 kg\r\n")
    for _ in range(n_steps):
        await asyncio.sleep(0)
    if poll.cancel():
        with pytest.raises(asyncio.CancelledError):
            await poll
    else:
        assert sink.n_samples == 1
