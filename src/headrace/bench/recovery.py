"""``headrace bench recovery``: kill the pipeline under load, again and again, and count.

A broker and a publisher in this process send MQTT QoS 1 messages; ``headrace run`` is a process of its own. It is
killed with SIGKILL, half of the times at a named fault point (writing the journal, a segment, a commit, a
snapshot), else at a random moment, and started again. At the end everything that the broker had taken must be in
the store, bit for bit, and nothing may be there twice: not in an answer, and not in the files.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.bench.stored import count_stored
from headrace.core.clock import NS, monotonic_ns
from headrace.core.disk import LocalDisk
from headrace.core.errors import HeadraceError
from headrace.runtime.announcement import EngineClient, read_announcement
from headrace.runtime.reader import open_store
from headrace.sim.devices.broker import Broker
from headrace.sim.devices.mqtt import QosOneClient

POINTS = ("journal.write", "journal.sync", "segment.write", "commit.publish", "snapshot.write")
N_DEVICES = 40
SIGNALS = ("temperature", "pressure", "speed", "count")
START_MS = 1_767_225_600_000
_PLANT = """version = 1
[plant]
levels = ["site", "area", "device", "signal"]
[store]
url = "./store"
flush_interval = "2s"
[api]
listen = "127.0.0.1:0"
[adapters.load]
protocol = "mqtt"
url = "{url}"
user = "plant"
[adapters.load.topics]
"load/{{device}}" = {{ path = "bench/hall/{{device}}/{{key}}", values = "fields", time = "ts" }}
[pipelines.seconds]
read = "**"
steps = [{{ op = "window", every = "1s", agg = ["mean", "max"] }}]
write = "{{parent}}/{{signal}}_{{agg}}_1s"
"""
_START_TIMEOUT_S = 60.0
_SETTLE_TIMEOUT_S = 60.0
_POLL_S = 0.02
Progress = Callable[[str], None]


@dataclass
class _Load:
    """What is sent: message i of a device has time ``START_MS + i`` and values that follow from both numbers."""

    client: QosOneClient
    n_sent: list[int] = field(default_factory=lambda: [0] * N_DEVICES)

    async def publish(self, per_s: float) -> None:
        """Send round after round, `per_s` messages a second, until cancelled."""
        while True:
            for device in range(N_DEVICES):
                i = self.n_sent[device]
                await self.client.publish(f"load/device{device}", message(device, i))
                self.n_sent[device] = i + 1
            await asyncio.sleep(N_DEVICES / per_s)  # noqa: TID251 - real load on a real broker


def values(device: int, i: int) -> tuple[float, ...]:
    """Values of a device's i-th message, in the order of `SIGNALS`."""
    return (20 + device + i % 97 / 10, 1000 + i * 0.25, float((i * 37 + device) % 1500), float(i))


def message(device: int, i: int) -> bytes:
    """The i-th message of a device."""
    fields = ", ".join(f'"{n}": {v!r}' for n, v in zip(SIGNALS, values(device, i), strict=True))
    return f'{{"ts": {START_MS + i}, {fields}}}'.encode()


def run(
    kills: int = 20,
    seed: int = 1,
    per_s: float = 1_500.0,
    progress: Progress = lambda text: None,
    with_web: bool = True,
) -> dict[str, Any]:
    """Run it; a JSON-ready object. Raises `HeadraceError` where the pipeline does not come up again.

    Parameters
    ----------
    with_web : with the api process, as a plant runs; it only takes its time to start.
    """
    folder = Path(tempfile.mkdtemp(prefix="headrace-recovery-"))
    try:
        return asyncio.run(_run(_Target(folder, with_web), kills, seed, per_s, progress))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _run(target: _Target, kills: int, seed: int, per_s: float, progress: Progress) -> dict[str, Any]:
    folder = target.folder
    random = np.random.Generator(np.random.PCG64(seed))
    broker = Broker(folder / "broker")
    (folder / "broker").mkdir()
    await broker.start()
    (folder / "plant.toml").write_text(_PLANT.format(url=broker.url))
    load = _Load(QosOneClient("bench-load", window=500))
    await load.client.connect(broker.host, broker.port)
    try:
        await target.start("")
        # The session must exist before the first message, or the broker would have nobody to keep it for.
        await target.subscribed()
        publishing = asyncio.create_task(load.publish(per_s))
        killed: dict[str, int] = {}
        recover_s: list[float] = []
        while sum(killed.values()) < kills:
            where = await target.die(random)
            killed[where] = killed.get(where, 0) + 1
            fault = _fault(sum(killed.values()), random) if sum(killed.values()) < kills else ""
            recover_s.append(await target.start(fault))
            progress(f"kill {sum(killed.values())} of {kills} at {where}, back after {recover_s[-1]:.2f} s")
        publishing.cancel()
        await load.client.drained()
        await _settled(folder, load)
        await target.stop()
    finally:
        target.kill()
        await load.client.close()
        await broker.stop()
    found = _count(folder, load)
    return {
        **found,
        "kills": sum(killed.values()),
        "killed_at": killed,
        "recover_s_p50": round(statistics.median(recover_s), 3),
    }


def _fault(n_killed: int, random: np.random.Generator) -> str:
    """Where the next process shall die: a fault point by turns for every other one."""
    if n_killed % 2 == 0:
        return ""
    point = POINTS[n_killed // 2 % len(POINTS)]
    most = {
        "journal.write": 60,
        "journal.sync": 60,
        "segment.write": 6,
        "commit.publish": 6,
        "snapshot.write": 4,
    }
    return f"{point}:{int(random.integers(1, most[point] + 1))}"


class _Target:
    """The pipeline's process."""

    def __init__(self, folder: Path, with_web: bool) -> None:
        self.folder = folder
        self._arguments = () if with_web else ("--no-web",)
        self._process: asyncio.subprocess.Process | None = None
        self._fault = ""

    async def start(self, fault: str) -> float:
        """Start it; seconds until it says that it runs."""
        self._fault = fault
        begun = monotonic_ns()
        while True:
            environment = {**os.environ, "HEADRACE_FAULT": self._fault}
            if not self._fault:
                environment.pop("HEADRACE_FAULT")
            with (self.folder / "run.log").open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "headrace", "run", "plant.toml", *self._arguments,
                    cwd=self.folder, env=environment, stdout=log, stderr=log,
                )  # fmt: skip
            if await self._is_up():
                return (monotonic_ns() - begun) / NS
            # It met its fault while it recovered: that is a kill too, but the next start must not meet it again.
            self._fault = ""

    async def _is_up(self) -> bool:
        assert self._process is not None
        disk, until = LocalDisk(self.folder / "store"), monotonic_ns() + int(_START_TIMEOUT_S * NS)
        while monotonic_ns() < until:
            if self._process.returncode == -signal.SIGKILL:
                return False
            if self._process.returncode is not None:
                break
            running = read_announcement(disk)
            if running is not None and running.pid == self._process.pid:
                return True
            await asyncio.sleep(_POLL_S)  # noqa: TID251 - another process's time
        tail = (self.folder / "run.log").read_text(errors="replace")[-600:]
        raise HeadraceError(f"the pipeline did not come up (exit {self._process.returncode}): {tail}")

    async def subscribed(self) -> None:
        """Wait until the broker knows it."""
        until = monotonic_ns() + int(_START_TIMEOUT_S * NS)
        while monotonic_ns() < until:
            running = read_announcement(LocalDisk(self.folder / "store"))
            if running is not None:
                engine = EngineClient.announced(running)
                adapters = await asyncio.to_thread(engine.json, "/api/v1/adapters")
                if all(adapter["state"] == "connected" for adapter in adapters):
                    return
            await asyncio.sleep(_POLL_S)  # noqa: TID251 - another process's time
        raise HeadraceError(f"the pipeline does not reach the broker: {adapters[0]['reason']}")

    async def die(self, random: np.random.Generator) -> str:
        """Wait for its fault, or kill it at a random moment; where it died."""
        assert self._process is not None
        patience_s = 10.0 if self._fault else float(random.uniform(0.2, 2.5))
        try:
            async with asyncio.timeout(patience_s):
                await self._process.wait()
            return self._fault.partition(":")[0] or "by itself"
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            return "random moment"

    async def stop(self) -> None:
        """End it as a service manager does."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(30.0):
            code = await self._process.wait()
        if code != 0:
            raise HeadraceError(f"the pipeline ended with exit code {code}")

    def kill(self) -> None:
        """End it, whatever happened."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()


def _count_stored(folder: Path) -> int:
    """Messages in the store, those that are not flushed yet among them."""
    answer = open_store(folder / "store").query(
        "bench/hall/*/count", from_="2025-12-31", to="2027-01-01", agg="count"
    )
    return sum(int(row["count"]) for row in answer.to_rows())


async def _settled(folder: Path, load: _Load) -> None:
    """Wait until the broker has nothing left for the pipeline: all messages are there."""
    until = monotonic_ns() + int(_SETTLE_TIMEOUT_S * NS)
    want = sum(load.n_sent)
    found = -1
    while monotonic_ns() < until:
        answer = await asyncio.to_thread(_count_stored, folder)
        found = answer
        if found >= want:
            return
        await asyncio.sleep(0.5)  # noqa: TID251 - another process's time
    raise HeadraceError(f"the pipeline stored {found:,} of {want:,} messages and stands still")


def _count(folder: Path, load: _Load) -> dict[str, Any]:
    """Compare the store with what was sent."""
    lost = duplicated = stored = 0
    reader = open_store(folder / "store")
    for device in range(N_DEVICES):
        want = load.n_sent[device]
        columns = np.array([values(device, i) for i in range(want)]).T
        for name, expected in zip(SIGNALS, columns, strict=True):
            path = f"bench/hall/device{device}/{name}"
            answer = reader.query(path, from_="2025-12-31", to="2027-01-01").to_arrow()
            ts = answer.column("ts").cast("int64").to_numpy()
            got = answer.column("value").to_numpy()
            i = (ts // 1_000_000 - START_MS).astype(np.int64)
            right = np.unique(i[(i >= 0) & (i < want) & (got == expected[np.clip(i, 0, want - 1)])])
            stored += len(got)
            lost += want - len(right)
            duplicated += len(got) - len(np.unique(ts))
    n_raw = count_stored(reader.store).n_raw
    sent = sum(load.n_sent) * len(SIGNALS)
    return {
        "sent": sent,
        "acked": load.client.n_acknowledged * len(SIGNALS),
        "stored": stored,
        "lost": lost,
        "duplicated": duplicated + max(0, n_raw - stored),
    }
