"""The HTTP port over a plant that is made by hand."""

import asyncio
import json
import os
import socket
import urllib.request

import numpy as np
import pytest

from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics
from headrace.core.clock import NS, VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, HeadraceError, NotFound, Unreachable
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.metrics.catalog import SAMPLES_STORED
from headrace.metrics.exposition import Metrics
from headrace.runtime.announcement import (
    RUNNING_FILE,
    Announcement,
    EngineClient,
    announce,
    is_store,
    read_announcement,
)
from headrace.runtime.server import ApiServer, announced
from headrace.runtime.tail_format import read_tail

LAYOUT = Layout("u16", (Column("temperature"), Column("running")))


class _Journal:
    refusal = ""


class HandMadePlant:
    """As much of a plant as the port looks at."""

    def __init__(self):
        self.state, self.failure = "running", ""
        self.journal, self.metrics = _Journal(), Metrics()
        self.directory = SensorDirectory()
        self.slots = self.directory.define_many(["a/l1/o1", "a/l1/o2"], LAYOUT)
        self.metrics.counter(SAMPLES_STORED).add(7)

    def adapters(self):
        devices = (
            DeviceDiagnostics("a/l1/o1", AdapterState.CONNECTED, last_good_ns=5 * NS),
            DeviceDiagnostics("a/l1/o2", AdapterState.BACKOFF, "refused", next_retry_ns=9 * NS),
        )
        return [
            AdapterDiagnostics(
                "ovens", "modbus", AdapterState.DEGRADED, "one is away", 3 * NS, 4, devices, 100
            )
        ]

    def status(self):
        return {"state": self.state}

    def tail(self, slots):
        keep = np.isin(self.slots, slots)
        batch = FrameBatch.dense(
            self.slots, np.array([1, 2], np.int64), np.arange(4, dtype=np.uint16).reshape(2, 2)
        )
        return [batch.take(np.flatnonzero(keep))] if keep.any() else []


@pytest.fixture
def plant():
    return HandMadePlant()


@pytest.fixture
async def client(plant):
    server = ApiServer(plant, "127.0.0.1", 0, VirtualClock(42))
    server.bind()
    await server.start()
    engine = EngineClient(server.address, os.getpid())

    async def ask(path, body=None, content_type="application/json"):
        return await asyncio.to_thread(engine.ask, path, body, content_type)

    ask.address = server.address
    yield ask
    await server.stop()
    await server.stop()


async def test_health(client, plant):
    assert (await client("/livez")).body == b"ok\n"
    assert (await client("/readyz")).body == b"ready\n"
    plant.journal.refusal = "the disk is full"
    with pytest.raises(HeadraceError, match="the disk is full"):
        await client("/readyz")
    plant.state = "starting"
    with pytest.raises(HeadraceError, match="the plant is starting"):
        await client("/readyz")
    plant.failure = "another engine took over"
    with pytest.raises(HeadraceError, match="another engine took over"):
        await client("/readyz")
    assert (await client("/livez")).body == b"ok\n"


async def test_metrics_are_openmetrics(client):
    text = (await client("/metrics")).body.decode()
    assert "headrace_samples_stored_total 7" in text
    assert text.endswith("# EOF\n")


async def test_every_answer_says_who_and_when(client):
    answer = await client("/api/v1/status")
    assert answer.now_ns == 42
    assert json.loads(answer.body) == {"state": "running"}


async def test_adapters(client):
    (one,) = json.loads((await client("/api/v1/adapters")).body)
    assert (one["name"], one["state"], one["devices"], one["devices_connected"]) == (
        "ovens",
        "degraded",
        2,
        1,
    )
    assert one["last_good"] == "1970-01-01T00:00:05.000000000Z"
    whole = json.loads((await client("/api/v1/adapters/ovens")).body)
    assert [d["state"] for d in whole["devices"]] == ["connected", "backoff"]
    assert whole["devices"][1]["last_good"] is None
    with pytest.raises(NotFound, match="did you mean 'ovens'"):
        await client("/api/v1/adapters/oven")


async def test_tail_by_slots_and_by_pattern(client, plant):
    by_slot = read_tail(
        (await client("/api/v1/tail", plant.slots[:1].tobytes(), "application/octet-stream")).body
    )
    assert [b.values.tolist() for b in by_slot] == [[[0, 1]]]
    body = json.dumps({"pattern": "**/o2/temperature"}).encode()
    (by_pattern,) = read_tail((await client("/api/v1/tail", body)).body)
    assert by_pattern.values.tolist() == [[2, 3]]
    assert read_tail((await client("/api/v1/tail", b"", "application/octet-stream")).body) == []


async def test_a_pattern_takes_earlier_layouts_along(client, plant):
    plant.directory.define("a/l1/o2", Layout("u16", (*LAYOUT.columns, Column("power"))))
    body = json.dumps({"pattern": "**/o2/power"}).encode()
    (found,) = read_tail((await client("/api/v1/tail", body)).body)
    assert found.slot.tolist() == [plant.slots[1]]


@pytest.mark.parametrize(
    ("body", "content_type", "error", "says"),
    [
        (b"123", "application/octet-stream", HeadraceError, "no list of slots"),
        (np.array([99], np.uint32).tobytes(), "application/octet-stream", NotFound, "slot 99 is not known"),
        (b"[]", "application/json", HeadraceError, "the body is not"),
        (b'{"pattern": ""}', "application/json", HeadraceError, "empty pattern"),
    ],
)
async def test_bad_questions_are_told_what_is_wrong(client, body, content_type, error, says):
    with pytest.raises(error, match=says):
        await client("/api/v1/tail", body, content_type)


async def test_definitions_since(client, plant):
    known = SensorDirectory()
    known.apply_bytes((await client("/api/v1/directory?after=0")).body)
    assert known.paths == plant.directory.paths
    assert (await client("/api/v1/directory?after=2")).body == b""
    with pytest.raises(HeadraceError, match="not a number"):
        await client("/api/v1/directory?after=x")


async def test_errors_are_problems(client):
    def fetch():
        try:
            urllib.request.urlopen(client.address + "/nothing")
        except urllib.error.HTTPError as e:
            with e:
                return e.headers["Content-Type"], json.loads(e.read())

    kind, body = await asyncio.to_thread(fetch)
    assert kind == "application/problem+json"
    assert body["code"] == "not-found"
    assert body["status"] == 404
    with pytest.raises(HeadraceError, match="Method Not Allowed"):
        await client("/api/v1/status", b"{}")


async def test_a_defect_answers_500_and_the_port_lives_on(client, plant):
    plant.status = lambda: 1 / 0
    with pytest.raises(HeadraceError, match="ZeroDivisionError"):
        await client("/api/v1/status")
    assert (await client("/livez")).body == b"ok\n"


async def test_foreign_host_names_are_refused(client):
    def fetch():
        request = urllib.request.Request(client.address + "/api/v1/status", headers={"Host": "evil.example"})
        try:
            urllib.request.urlopen(request)
        except urllib.error.HTTPError as e:
            with e:
                return e.code, json.loads(e.read())["code"]

    assert await asyncio.to_thread(fetch) == (403, "forbidden")


async def test_a_plant_that_starts_says_so(client, plant):
    plant.state = "starting"
    with pytest.raises(HeadraceError, match="the plant is starting"):
        await client("/api/v1/status")


async def test_another_process_on_the_port_is_recognised(client):
    with pytest.raises(Unreachable, match="another program"):
        await asyncio.to_thread(EngineClient(client.address, os.getpid() + 1).ask, "/livez")


async def test_nobody_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match=f"no engine answers at http://127.0.0.1:{port}"):
        await asyncio.to_thread(EngineClient(f"http://127.0.0.1:{port}").ask, "/livez")


def test_a_port_in_use_is_a_plain_sentence(plant):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"api.listen: port {port} of 127.0.0.1 is in use .* listen = "):
            ApiServer(plant, "127.0.0.1", port, VirtualClock()).bind()


def test_loopback_only(plant):
    with pytest.raises(ConfigError, match="needs a token"):
        ApiServer(plant, "0.0.0.0", 0, VirtualClock())


async def test_stop_before_start(plant):
    server = ApiServer(plant, "127.0.0.1", 0, VirtualClock())
    await server.stop()
    server.bind()
    await server.stop()


async def test_an_engine_announces_itself(tmp_path):
    disk = LocalDisk(tmp_path)
    assert read_announcement(disk) is None
    async with announced(disk, "http://127.0.0.1:1", VirtualClock(NS)):
        found = read_announcement(disk)
        assert found == Announcement(os.getpid(), "http://127.0.0.1:1", "1970-01-01T00:00:01.000000000Z")
    assert not (tmp_path / RUNNING_FILE).exists()


def test_a_stale_announcement_counts_as_none(tmp_path):
    disk = LocalDisk(tmp_path)
    announce(disk, Announcement(2**22 + 1, "http://127.0.0.1:1", ""))
    assert read_announcement(disk) is None
    (tmp_path / RUNNING_FILE).write_text("{")
    assert read_announcement(disk) is None


def test_what_is_a_store(tmp_path):
    assert not is_store(tmp_path)
    (tmp_path / "journal").mkdir()
    assert is_store(tmp_path)
