"""``headrace`` as processes of their own, and what tests of faults need around them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.core.errors import HeadraceError
from headrace.runtime.reader import open_store
from headrace.sim.devices.broker import Broker
from headrace.sim.devices.mqtt import QosOneClient
from headrace.testing.plant_process import PlantProcess

START_MS = 1_767_225_600_000
"""Source time of a device's first message; each following one is a millisecond later."""


@pytest.fixture
def headrace(tmp_path: Path) -> Iterator[PlantProcess]:
    """A folder in which ``headrace run`` runs; nothing is left running."""
    one = PlantProcess(tmp_path)
    yield one
    one.kill()


def ask(*arguments: str | Path, timeout_s: float = 60.0) -> tuple[int, str, str]:
    """Run a command: exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(name="ask")
def _ask() -> Callable[..., tuple[int, str, str]]:
    """Any ``headrace`` command."""
    return ask


MQTT_PLANT = """version = 1
[plant]
levels = ["site", "area", "device", "signal"]
[store]
url = "./store"
flush_interval = "{flush_interval}"
journal_size = "{journal_size}"
flush_size = "{flush_size}"
[api]
listen = "127.0.0.1:0"
[adapters.load]
protocol = "mqtt"
url = "{url}"
user = "plant"
reconnect_most = "1s"
[adapters.load.topics]
"load/{{device}}" = {{ path = "bench/hall/{{device}}/{{key}}", values = "fields", time = "ts" }}
"""


class MqttPlant:
    """A plant that subscribes to a broker, and devices that publish there with QoS 1.

    Message i of a device has time ``START_MS + i`` and the value i in ``count``; ``pad`` more fields of noise.
    """

    def __init__(self, headrace: PlantProcess, broker: Broker) -> None:
        self.headrace, self.broker = headrace, broker
        self.client = QosOneClient("test-load", window=500)
        self.n_sent: dict[str, int] = {}

    def write(self, flush_interval: str = "1m", journal_size: str = "1GB", flush_size: str = "1GB") -> None:
        """Write the plant file."""
        text = MQTT_PLANT.format(
            url=self.broker.url,
            flush_interval=flush_interval,
            journal_size=journal_size,
            flush_size=flush_size,
        )
        (self.headrace.folder / "plant.toml").write_text(text)

    async def up(self, *arguments: str, **options: Any) -> None:
        """Start it and wait until it has subscribed."""
        self.headrace.start(*arguments, **options)
        await asyncio.to_thread(self.headrace.up)
        await self.until(lambda: self.headrace.adapter().get("state") == "connected")

    async def until(self, what: Callable[[], Any], timeout_s: float = 60.0) -> Any:
        """`Headrace.until` without holding up the client."""
        return await asyncio.to_thread(self.headrace.until, what, timeout_s)

    async def publish(self, n: int, device: str = "d0", pad: int = 0) -> None:
        """Send the next `n` messages of a device; waits only for the broker."""
        first = self.n_sent.get(device, 0)
        for i in range(first, first + n):
            noise = "".join(f', "p{k}": {(i * 2654435761 + k * 40503) % 1000003}.5' for k in range(pad))
            await self.client.publish(
                f"load/{device}", f'{{"ts": {START_MS + i}, "count": {i}{noise}}}'.encode()
            )
        self.n_sent[device] = first + n
        await self.client.drained()

    def counts(self, device: str = "d0") -> list[int]:
        """What a query finds of a device's ``count``, in order of time."""
        try:
            store = open_store(self.headrace.store)
            answer = store.query(f"bench/hall/{device}/count", from_="2025-12-31", to="2027-01-01")
        except HeadraceError:
            return []
        assert not answer.missing, answer.missing
        return [int(value) for value in answer.columns["value"]]

    async def all_there(self, device: str = "d0") -> None:
        """Wait until every message is found, each once."""
        want = list(range(self.n_sent[device]))
        await self.until(lambda: self.counts(device) == want)


@pytest.fixture
async def mqtt_plant(headrace: PlantProcess, tmp_path: Path) -> Any:
    """A plant file, a broker that runs, and a publisher."""
    broker = Broker(tmp_path / "broker")
    await broker.start()
    plant = MqttPlant(headrace, broker)
    plant.write()
    await plant.client.connect(broker.host, broker.port)
    try:
        yield plant
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(plant.client.close(), 2.0)
        await broker.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB of its own; skipped where none may be mounted."""
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(where)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)
