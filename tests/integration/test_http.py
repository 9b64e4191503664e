"""Line protocol and JSON pushed to a whole plant over its control port, and queried back."""

import asyncio
import json
import shutil
import time
import tomllib

import httpx
import pytest
from influxdb_client import Point, WritePrecision

from headrace.adapters.http.simulator import LineMachines, PushingClient, http_post
from headrace.core.clock import NS, SystemClock
from headrace.core.config import parse_plant
from headrace.core.errors import NotConnected
from headrace.runtime.assemble import build_plant
from headrace.runtime.reader import open_store
from headrace.runtime.server import ControlServer

pytestmark = pytest.mark.timeout(240)
KEY = "k" * 48
PLANT = """
[adapters.telegraf]
protocol = "http"
path = "{site}/{area}/{host}/{measurement}/{field}"
[adapters.log]
protocol = "replay"
files = "none.csv"
"""


class Pushed:
    """A plant and its control port, for the time of a test."""

    def __init__(self, folder):
        self.folder = folder
        config = parse_plant({"version": 1, **tomllib.loads(PLANT)}, folder)
        self.plant = build_plant(config)
        self.server = ControlServer(self.plant, SystemClock(), KEY)

    async def __aenter__(self):
        self.server.bind()
        await self.plant.start()
        await self.server.start()
        self.address = self.server.address + "/api/v1/receive"
        self.client = httpx.AsyncClient(
            trust_env=False, headers={"Authorization": f"Bearer {KEY}"}, timeout=60
        )
        return self

    async def __aexit__(self, *_):
        await self.client.aclose()
        await self.server.stop()
        await self.plant.stop()

    async def post(self, body, adapter="telegraf", kind="text/plain", **parameters):
        headers = {"Content-Type": kind}
        if "key" in parameters:
            headers["Idempotency-Key"] = parameters.pop("key")
        return await self.client.post(
            f"{self.address}/{adapter}", content=body, headers=headers, params=parameters
        )

    async def counts(self):
        await self.plant.intake.drain()
        while self.plant.summary()["in_flight"]:
            await asyncio.sleep(0.01)
        return self.plant.summary()


def stored(folder, pattern="**"):
    """path → values in order of time."""
    found = open_store(folder / "store").query(pattern, from_="2020-01-01", to="2100-01-01")
    return sorted(
        ((row["path"], row.get("text") or row["value"]) for row in found.to_rows(labels=True)), key=str
    )


async def test_what_is_pushed_is_stored_and_answered(tmp_path):
    now = time.time_ns()
    async with Pushed(tmp_path) as run:
        point = (
            Point("cpu").tag("host", "p 1").tag("site", "leon").tag("area", "a,b").field("usage", 0.1 + 0.2)
            .field("n", 7).field("on", True).field("mode", 'say "hi"').time(now, WritePrecision.NS)
        )  # fmt: skip
        assert (await run.post(point.to_line_protocol())).status_code == 204
        body = json.dumps({"device": "leon/x/d1/m", "ts": now / 1e9, "t": 1.5, "state": "run"}) + "\n"
        body += json.dumps({"path": "leon/x/d1/m/rpm", "ts": now // 10**6, "value": 1480}) + "\n"
        assert (await run.post(body, kind="application/x-ndjson")).status_code == 204
        held = await asyncio.to_thread(stored, tmp_path)
        assert (await run.counts())["stored"] == 7
    assert held == stored(tmp_path) == [
        ("leon/a%2Cb/p 1/cpu/mode", 'say "hi"'), ("leon/a%2Cb/p 1/cpu/n", 7),
        ("leon/a%2Cb/p 1/cpu/on", "true"), ("leon/a%2Cb/p 1/cpu/usage", 0.1 + 0.2),
        ("leon/x/d1/m/rpm", 1480.0), ("leon/x/d1/m/state", "run"), ("leon/x/d1/m/t", 1.5),
    ]  # fmt: skip


async def test_bad_lines_are_told_and_the_good_ones_stored(tmp_path):
    async with Pushed(tmp_path) as run:
        answer = await run.post(f"m a=1i {time.time_ns()}\nm a=x\n\nm a=2.5\nnothing\n")
        assert answer.status_code == 400
        assert answer.json()["detail"] == (
            "3 refused, the rest is stored; the first: line 2: expected a value: 1.5, 4i, 4u, true or \"text\", got 'x'"
        )
        assert (await run.post(b"m a=1", kind="image/png")).status_code == 400
        assert (await run.post(b"m a=1", precision="fortnight")).status_code == 400
        assert (await run.post(b"m a=1", adapter="telegram")).json()["detail"] == (
            "no adapter 'telegram'; did you mean 'telegraf'?"
        )
        refused = await run.post(b"m a=1", adapter="log")
        assert (refused.status_code, "not pushed to" in refused.json()["detail"]) == (400, True)
        counts = await run.counts()
    assert (counts["stored"], counts["rejected"], counts["received"]) == (1, 5, 6)
    assert stored(tmp_path) == [("unknown/unknown/unknown/m/a", 1)]


async def test_what_is_sent_twice_is_stored_once(tmp_path):
    lines = f"m,host=a v=1.5 {time.time_ns()}\n"
    async with Pushed(tmp_path) as run:
        for _ in range(3):
            assert (await run.post("m,host=a v=2.5", key="a")).status_code == 204  # no time of its own
        other = await run.post("m,host=a v=3.5", key="a")
        assert (other.status_code, "another body" in other.json()["detail"]) == (400, True)
        for _ in range(3):
            assert (await run.post(lines)).status_code == 204  # no key
        counts = await run.counts()
    assert (counts["stored"], counts["duplicates"]) == (2, 2)
    assert [value for _, value in stored(tmp_path)] == [1.5, 2.5]


async def test_what_was_acknowledged_is_there_after_a_crash(tmp_path):
    """The store as it is at the moment of the answer, as `kill -9` would leave it, has what was answered."""
    machines = LineMachines(20, seed=3)
    async with Pushed(tmp_path / "one") as run:
        client = PushingClient(http_post(f"{run.address}/telegraf", KEY))
        base_ns = time.time_ns()
        for i in range(5):
            answer = await client.push(machines.lines(base_ns + i * NS))
            assert answer.status == 204
        shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert client.n_acknowledged == 5
    (tmp_path / "two" / "store" / "running.json").unlink(missing_ok=True)
    rows = stored(tmp_path / "two")
    assert len(rows) == 20 * 4 * 5
    assert rows == stored(tmp_path / "one")


async def test_a_client_waits_for_a_server_that_is_away():
    post = http_post("http://127.0.0.1:9/api/v2/write?bucket=telegraf")
    with pytest.raises(NotConnected, match="no answer from http://127.0.0.1:9/"):
        await post(b"m v=1", "key")


async def test_a_restart_knows_series_and_samples_again(tmp_path):
    lines = f"m,host=a v=1,n=3i {time.time_ns()}\n"
    for _ in range(2):
        async with Pushed(tmp_path) as run:
            assert (await run.post(lines)).status_code == 204
            assert run.plant.directory.n_sensors == 2
        counts = run.plant.summary()
    assert (counts["stored"], counts["duplicates"]) == (0, 2)
    assert [value for _, value in stored(tmp_path)] == [3, 1.0]
