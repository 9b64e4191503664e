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

    def __init__(self, folder, text=PLANT):
        self.folder = folder
        config = parse_plant({"version": 1, **tomllib.loads(text)}, folder)
        self.plant = build_plant(config)
        self.server = ControlServer(self.plant, SystemClock(), KEY)

    async def __aenter__(self):
        self.server.bind()
        await self.plant.start()
        await self.server.start()
        self.api = self.server.address + "/api/v1"
        self.address = self.api + "/receive"
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

    async def apply(self, text):
        """Make another plant file the running one."""
        document = {"toml": f"version = 1\n{text}", "file": str(self.folder / "plant.toml")}
        answer = await self.client.put(f"{self.api}/config", json=document)
        assert answer.json().get("applied"), answer.text

    async def replay(self, **wanted):
        """What becomes of rejects that are taken in again."""
        answer = await self.client.post(f"{self.api}/rejects/replay", json=wanted)
        assert answer.status_code == 200, answer.text
        return answer.json()

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


# --- refused input -----------------------------------------------------------------------------------

STRICT = """
[adapters.push]
protocol = "http"
path = "plant/x/{host}/{measurement}/{field}"
max_fields = 2
[adapters.push.types]
mode = "f64"
"""
MENDED = (
    STRICT.replace("plant/", "site/").replace("max_fields = 2", "max_fields = 9").replace("f64", "string")
)


N_LINES = 200


def samples(folder, path):
    """(time in ns, value) of one sensor, in order of time."""
    found = open_store(folder / "store").query(path, from_="2000-01-01", to="2100-01-01")
    return [(row["ts"], row["value"]) for row in found.to_rows()]


async def push_what_is_refused(run, now_ms):
    """Lines with their times in milliseconds, lines without, documents, and what is no format at all."""
    assert (await run.post("m,host=h z=1i\n", "push")).status_code == 204  # there is room for one more
    lines = "".join(
        f'm,host=h a={i},mode="run {i % 7}",b={i},c={i}i {now_ms - 1_000 + i}\n' for i in range(N_LINES)
    )
    answer = await run.post(lines, "push", precision="ms")
    assert (answer.status_code, answer.json()["detail"][:33]) == (400, "200 refused, the rest is stored; ")
    assert (await run.post("m,host=h c=-1i\nm,host=h c=-2i\n", "push")).status_code == 400
    document = {"device": "plant/x/d/m", "ts": now_ms / 1e3, "a": 1, "b": 2, "c": 3}
    body = json.dumps(document) + "\n" + json.dumps({"path": "plant/x/d/m/d", "value": 4})
    assert (await run.post(body, "push", "application/x-ndjson")).status_code == 400
    assert (await run.post(b"m a=1", "push", "image/png")).status_code == 400


async def test_what_was_refused_is_taken_in_once_after_the_plant_was_mended(tmp_path):
    now_ms = time.time_ns() // 10**6
    async with Pushed(tmp_path, STRICT) as run:
        await push_what_is_refused(run, now_ms)
        before = await run.counts()
        assert (before["stored"], before["rejected"]) == (N_LINES + 3, 3 * N_LINES + 5)
        failing = await run.replay(adapter="push")
        assert (failing["replayed"], failing["failing"]) == (0, 7)
        assert [one["why"] for one in failing["reasons"] if one["code"] == "malformed"] == [
            "malformed: its request was refused as a whole, and no line or document of it was kept; mend what was "
            "wrong with it and let its client send it again"
        ]
        same = await run.counts()
        assert (same["stored"], same["rejected"]) == (before["stored"], before["rejected"])

        await run.apply(MENDED)
        n_mended = 3 * N_LINES + 4
        trial = await run.replay(adapter="push", dry_run=True)
        assert (trial["replayed"], trial["failing"]) == (6, 1)
        assert (await run.counts())["stored"] == before["stored"]
        done = await run.replay(adapter="push")
        assert (done["replayed"], done["samples"]) == (6, n_mended + 2), (
            "the document was good but for one value"
        )
        after = await run.counts()
        assert (after["stored"], after["rejected"]) == (before["stored"] + n_mended, before["rejected"])
        assert (await run.replay(adapter="push"))["replayed"] == 0
    times_ns = [(now_ms - 1_000 + i) * 10**6 for i in range(N_LINES)]
    assert samples(tmp_path, "site/x/h/m/b") == list(zip(times_ns, map(float, range(N_LINES)), strict=True))
    *timed, (first_ns, first), (second_ns, second) = samples(tmp_path, "site/x/h/m/c")
    assert timed == list(zip(times_ns, range(N_LINES), strict=True))
    assert (first, second, second_ns - first_ns) == (-1, -2, 1), "by arrival, in the order of the lines"
    rows = dict(stored(tmp_path))
    assert rows["site/x/h/m/mode"].startswith("run ")
    assert {path: value for path, value in rows.items() if "/d/m/" in path} == {
        "plant/x/d/m/a": 1.0, "plant/x/d/m/b": 2.0, "plant/x/d/m/c": 3.0, "plant/x/d/m/d": 4.0,
    }  # fmt: skip
    assert "site/x/h/m/a" not in rows, "it was stored by its old name"
    assert len(stored(tmp_path)) == before["stored"] + n_mended
