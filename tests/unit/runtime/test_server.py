"""The HTTP port over a plant that is made by hand."""

import asyncio
import json
import os
import socket
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest

from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics, Receipt
from headrace.core.clock import NS, VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, HeadraceError, NotAllowed, NotFound, Overloaded, Unreachable
from headrace.core.events import Event
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
from headrace.runtime.event_log import EventLog
from headrace.runtime.server import Access, ControlServer, announced, is_loopback
from headrace.runtime.tail_format import read_tail

KEY = "k" * 48
WITH_KEY = {"Authorization": f"Bearer {KEY}"}
LAYOUT = Layout("u16", (Column("temperature"), Column("running")))


class _Journal:
    refusal = ""


class HandMadePlant:
    """As much of a plant as the port looks at."""

    def __init__(self):
        self.state, self.failure = "running", ""
        self.taken_seq = self.done_seq = -1
        self.n_looks = 0
        self.journal, self.metrics, self.events = _Journal(), Metrics(), EventLog(3)
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

    config = SimpleNamespace(runtime=SimpleNamespace(stale_after=300 * NS))

    def tags(self, name, wish):
        return {"name": name, "wish": [wish.stale_after_ns, wish.only_stale, wish.limit]}

    def status(self):
        return {"state": self.state}

    def progress(self):
        self.n_looks += 1
        return self.taken_seq, self.done_seq

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
    server = ControlServer(plant, VirtualClock(42), KEY)
    server.bind()
    await server.start()
    engine = EngineClient(server.address, os.getpid(), key=KEY)

    async def ask(path, body=None, content_type="application/json"):
        return await asyncio.to_thread(engine.ask, path, body, content_type)

    ask.address, ask.engine = server.address, engine
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


async def test_tags_of_an_adapter(client):
    for query, wish in (
        ("", [300 * NS, False, 1_000]),
        ("?stale=true&stale_after_ns=7&limit=3", [7, True, 3]),
        ("?limit=999999999", [300 * NS, False, 100_000]),
    ):
        found = json.loads((await client(f"/api/v1/adapters/ovens/tags{query}")).body)
        assert found == {"name": "ovens", "wish": wish}
    with pytest.raises(NotFound, match="did you mean 'ovens'"):
        await client("/api/v1/adapters/oven/tags")


async def test_tail_by_slots_and_by_pattern(client, plant):
    by_slot = read_tail(
        (await client("/api/v1/tail", plant.slots[:1].tobytes(), "application/octet-stream")).body
    )
    assert [b.values.tolist() for b in by_slot] == [[[0, 1]]]
    body = json.dumps({"pattern": "**/o2/temperature"}).encode()
    (by_pattern,) = read_tail((await client("/api/v1/tail", body)).body)
    assert by_pattern.values.tolist() == [[2, 3]]
    assert read_tail((await client("/api/v1/tail", b"", "application/octet-stream")).body) == []


async def test_a_tail_waits_for_what_was_taken_before(client, plant):
    plant.taken_seq, plant.done_seq = 7, 5
    asked = asyncio.create_task(client("/api/v1/tail", plant.slots.tobytes(), "application/octet-stream"))
    while plant.n_looks < 5:
        await asyncio.sleep(0.001)
    assert not asked.done()
    # What comes after the question is not waited for.
    plant.taken_seq, plant.done_seq = 9, 7
    answer = await asked
    assert len(read_tail(answer.body)) == 1
    assert answer.n_behind == 0


async def test_a_tail_that_is_behind_says_so(client, plant, monkeypatch):
    monkeypatch.setattr("headrace.runtime.control_routes._BEHIND_S", 0.01)
    plant.taken_seq, plant.done_seq = 7, 5
    answer = await client("/api/v1/tail", plant.slots.tobytes(), "application/octet-stream")
    assert answer.n_behind == 2
    assert len(read_tail(answer.body)) == 1


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
            request = urllib.request.Request(client.address + "/nothing", headers=WITH_KEY)
            urllib.request.urlopen(request)
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
        request = urllib.request.Request(
            client.address + "/api/v1/status", headers={**WITH_KEY, "Host": "evil.example"}
        )
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
            ControlServer(plant, VirtualClock(), KEY).bind(port=port)


def test_the_engine_itself_listens_on_loopback_only(plant):
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 is not this machine"):
        ControlServer(plant, VirtualClock(), KEY).bind("0.0.0.0")


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1", True), ("127.0.0.1:8844", True), ("LOCALHOST:1", True), ("::1", True), ("[::1]:80", True),
        ("127.0.0.1.evil.example", False), ("10.0.0.1", False), ("", False), ("::2", False),
    ],
)  # fmt: skip
def test_what_is_this_machine(host, is_ours):
    assert is_loopback(host) is is_ours


async def test_stop_before_start(plant):
    server = ControlServer(plant, VirtualClock(), KEY)
    await server.stop()
    server.bind()
    await server.stop()


# --- the key ---------------------------------------------------------------------------------------------


async def test_without_the_key_only_health_and_metrics_answer(client):
    for key in ("", KEY[:-1], KEY.upper()):
        stranger = EngineClient(client.address, key=key)
        for path in ("/livez", "/readyz", "/metrics"):
            await asyncio.to_thread(stranger.ask, path)
        for path in ("/api/v1/status", "/api/v1/directory", "/nothing"):
            with pytest.raises(NotAllowed, match="asks for the key"):
                await asyncio.to_thread(stranger.ask, path)
        with pytest.raises(NotAllowed):
            await asyncio.to_thread(stranger.ask, "/livez", b"")


async def test_a_port_that_stands_in_for_the_public_one_lets_everybody_read(plant):
    server = ControlServer(plant, VirtualClock(42), KEY, Access.OPEN_READS)
    server.bind()
    await server.start()
    try:
        stranger = EngineClient(server.address)
        assert await asyncio.to_thread(stranger.json, "/api/v1/status") == {"state": "running"}
        with pytest.raises(NotAllowed):
            await asyncio.to_thread(stranger.send, "POST", "/api/v1/adapters/ovens/pause")
    finally:
        await server.stop()


# --- changing --------------------------------------------------------------------------------------------


async def test_verbs_reach_the_plant(client, plant):
    seen = []

    async def pause(name, document):
        seen.append(("pause", name))

    async def probe(name, document):
        return {"adapter": name, **document}

    async def replay_rejects(document):
        seen.append(document)
        return {"replayed": 3}

    async def change_config(document, if_match, is_dry):
        raise Overloaded(f"{document} {if_match} {is_dry}")

    plant.pause, plant.probe, plant.replay_rejects = pause, probe, replay_rejects
    plant.change_config = change_config
    send = client.engine.send
    assert await asyncio.to_thread(send, "POST", "/api/v1/adapters/ovens/pause") is None
    found = await asyncio.to_thread(send, "POST", "/api/v1/adapters/ovens/probe", {"address": "holding:1"})
    assert found == {"adapter": "ovens", "address": "holding:1"}
    assert await asyncio.to_thread(send, "POST", "/api/v1/rejects/replay", {"code": "malformed"}) == {
        "replayed": 3
    }
    assert seen == [("pause", "ovens"), {"code": "malformed"}]
    with pytest.raises(Overloaded, match=r"\{'a': 1\}  True"):
        await asyncio.to_thread(send, "PUT", "/api/v1/config?dry_run=true", {"a": 1})


async def test_what_is_pushed_reaches_an_adapter(client, plant):
    seen = []

    async def receive(name, pushed):
        seen.append((name, pushed))
        if pushed.body == b"more":
            raise Overloaded("the journal is full", 7.0)
        return Receipt(1)

    plant.receive = receive
    path = "/api/v1/receive/ovens?bucket=b&precision=ms"
    assert (await client(path, b"t value=1", "text/plain")).body == b""
    ((name, pushed),) = seen
    assert (name, pushed.body, pushed.content_type) == ("ovens", b"t value=1", "text/plain")
    assert (pushed.parameters, pushed.key, pushed.arrival_ns) == ({"bucket": "b", "precision": "ms"}, "", 42)

    def overload():
        request = urllib.request.Request(client.address + path, b"more", WITH_KEY)
        try:
            urllib.request.urlopen(request)
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.headers["Retry-After"], json.loads(e.read())["detail"]

    assert await asyncio.to_thread(overload) == (429, "7", "the journal is full")


async def test_what_can_not_be_done_is_said(client, plant):
    send = client.engine.send
    with pytest.raises(HeadraceError, match="this engine can't reload while it runs"):
        await asyncio.to_thread(send, "POST", "/api/v1/adapters/ovens/reload")
    with pytest.raises(NotFound, match="an adapter can't 'explode'"):
        await asyncio.to_thread(send, "POST", "/api/v1/adapters/ovens/explode")
    with pytest.raises(NotFound, match="no adapter 'x'"):
        await asyncio.to_thread(send, "POST", "/api/v1/adapters/x/pause")
    plant.replay_rejects = lambda document: None
    with pytest.raises(HeadraceError, match="the body is not JSON"):
        await client("/api/v1/rejects/replay", b"{")
    with pytest.raises(HeadraceError, match="the body is not a JSON object"):
        await asyncio.to_thread(send, "POST", "/api/v1/rejects/replay", [])


# --- following -------------------------------------------------------------------------------------------


def read_lines(url, n, key=KEY):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return [json.loads(answer.readline()) for _ in range(n)]


async def test_events_are_followed(client, plant):
    for number in range(5):
        plant.events.append(Event(number, "test.event", f"event {number}", {"n": number}))
    url = client.address + "/api/v1/events"
    first = await asyncio.to_thread(read_lines, url, 3)
    assert [(e["id"], e["text"]) for e in first] == [(3, "event 2"), (4, "event 3"), (5, "event 4")]
    following = asyncio.create_task(asyncio.to_thread(read_lines, url + "?after=5", 1))
    plant.events.append(Event(7 * NS, "test.event", "the next"))
    (one,) = await following
    assert one == {
        "id": 6, "ts": "1970-01-01T00:00:07.000000000Z", "kind": "test.event", "text": "the next", "fields": {},
    }  # fmt: skip
    # A number of another engine's life begins anew.
    assert (await asyncio.to_thread(read_lines, url + "?after=99", 1))[0]["id"] == 4


async def test_an_adapter_is_followed(client, plant):
    async def follow(name, pattern):
        for n in range(2):
            yield {"adapter": name, "n": n, "pattern": pattern}
            yield {}

    plant.follow = follow
    path = "/api/v1/adapters/ovens/tail?pattern=a/*"

    def followed():
        some = client.engine.follow(path)
        return [next(some) for _ in range(4)]

    first = {"adapter": "ovens", "n": 0, "pattern": "a/*"}
    assert await asyncio.to_thread(followed) == [first, None, {**first, "n": 1}, None]
    with pytest.raises(NotFound):
        await asyncio.to_thread(lambda: next(client.engine.follow("/api/v1/adapters/nobody/tail")))


# --- running.json ----------------------------------------------------------------------------------------


async def test_an_engine_announces_itself(tmp_path, plant):
    disk = LocalDisk(tmp_path)
    assert read_announcement(disk) is None
    server = ControlServer(plant, VirtualClock(NS), KEY)
    server.bind()
    async with announced(disk, "http://127.0.0.1:1", server, VirtualClock(NS)):
        found = read_announcement(disk)
        started = "1970-01-01T00:00:01.000000000Z"
        assert found == Announcement(os.getpid(), "http://127.0.0.1:1", server.address, KEY, started)
        assert (tmp_path / RUNNING_FILE).stat().st_mode & 0o777 == 0o600
        assert EngineClient.announced(found).public == "http://127.0.0.1:1"
    assert not (tmp_path / RUNNING_FILE).exists()
    await server.stop()


def test_a_stale_announcement_counts_as_none(tmp_path):
    disk = LocalDisk(tmp_path)
    announce(disk, Announcement(2**22 + 1, "http://127.0.0.1:1", "http://127.0.0.1:2", KEY, ""))
    assert read_announcement(disk) is None
    (tmp_path / RUNNING_FILE).write_text("{")
    assert read_announcement(disk) is None


def test_what_is_a_store(tmp_path):
    assert not is_store(tmp_path)
    (tmp_path / "journal").mkdir()
    assert is_store(tmp_path)
