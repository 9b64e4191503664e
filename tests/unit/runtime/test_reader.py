"""Reading a store from outside: committed, journalled, and from a running engine."""

import asyncio
import os
from datetime import UTC
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from headrace.core.clock import NS, VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, NotFound, Unreachable
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.metrics.exposition import Metrics
from headrace.pipeline.flows import FlowSpec
from headrace.runtime.announcement import Announcement, announce
from headrace.runtime.engine_core import EngineSettings
from headrace.runtime.host import HostSettings
from headrace.runtime.pipe import Pipe
from headrace.runtime.reader import StoreReader, open_store
from headrace.runtime.server import ControlServer, announced

T0 = 1_767_225_600 * NS
LAYOUT = Layout("u16", (Column("temperature", unit="degC", scale=0.5), Column("speed")))
MINUTES = FlowSpec(
    "minutes",
    "**/temperature",
    ({"op": "window", "every": "1m", "agg": ["mean"]},),
    "{parent}/{signal}_{agg}_1m",
)


class Fed:
    """A pipe with two ovens; every second each gives a frame."""

    def __init__(self, folder, specs=(), engine=None):
        self.clock = VirtualClock(T0)
        settings = HostSettings(nonce=1, engine=engine or EngineSettings())
        self.pipe = Pipe(folder, list(specs), self.clock, settings)
        self.paths = ["p/l1/o1", "p/l1/o2"]
        self.slots = self.pipe.directory.define_many(self.paths, LAYOUT)
        self.n = 0

    def feed(self, seconds):
        for _ in range(seconds):
            ts = np.full(len(self.slots), self.clock.now_ns())
            values = np.array([[self.n, 7], [100 + self.n, 8]], np.uint16)[: len(self.slots)]
            self.pipe.offer(
                FrameBatch.dense(self.slots, ts, values, arrival_ns=self.clock.now_ns(), origin="t")
            )
            self.n += 1
            self.clock.advance(1.0)
            self.pipe.tick()
        self.pipe._flush()
        self.pipe._writer.wait(self.pipe.host.journal.last_seq, 10.0)


@pytest.fixture
def fed(tmp_path):
    made = Fed(tmp_path / "store")
    yield made
    made.pipe.close()


def values(result, path):
    return [row["value"] for row in result.to_rows() if row["path"] == path]


def test_committed_and_journalled_samples_come_together(fed, tmp_path):
    fed.feed(3)
    fed.pipe.drain()
    fed.feed(2)
    reader = open_store(tmp_path / "store")
    result = reader.query("**/o1/*", last="1h")
    assert values(result, "p/l1/o1/temperature") == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert values(result, "p/l1/o1/speed") == [7] * 5
    assert result.sources["journal_frames"] >= 2
    assert result.missing == ()


def test_nothing_is_committed_yet(fed, tmp_path):
    fed.feed(2)
    reader = open_store(tmp_path / "store")
    assert values(reader.query("**/temperature", last="1m"), "p/l1/o2/temperature") == [50.0, 50.5]


def test_last_counts_from_where_the_store_ends(fed, tmp_path):
    fed.feed(100)
    reader = open_store(tmp_path / "store")
    result = reader.query("p/l1/o1/temperature", last="10s")
    assert len(values(result, "p/l1/o1/temperature")) == pytest.approx(10, abs=1)
    assert result.fresh_to_ns >= fed.clock.now_ns() - 2 * NS


def test_a_reader_sees_what_comes_later(fed, tmp_path):
    fed.feed(2)
    reader = open_store(tmp_path / "store")
    assert len(values(reader.query("**/o1/temperature", last="1h"), "p/l1/o1/temperature")) == 2
    fed.slots = np.append(fed.slots, fed.pipe.directory.define_many(["p/l1/o3"], LAYOUT))[-1:]
    fed.feed(1)
    assert len(values(reader.query("**/o3/temperature", last="1h"), "p/l1/o3/temperature")) == 1
    fed.pipe.drain()
    assert len(values(reader.query("**/o3/temperature", last="1h"), "p/l1/o3/temperature")) == 1


def test_aggregates_over_both(fed, tmp_path):
    fed.feed(90)
    fed.pipe.drain()
    fed.feed(30)
    reader = open_store(tmp_path / "store")
    result = reader.query(
        "p/l1/o1/temperature", from_="2026-01-01", to="2026-01-01 00:02", every="1m", agg=["count", "max"]
    )
    assert [(r["count"], r["max"]) for r in result.to_rows()] == [(60, 29.5), (60, 59.5)]
    one = reader.query("p/l1/o1/temperature", from_="2026-01-01", to="2026-01-01 00:02", agg="count")
    assert [r["count"] for r in one.to_rows()] == [120]


def test_times_without_offset_are_plant_time(fed, tmp_path):
    fed.feed(1)
    reader = open_store(tmp_path / "store", ZoneInfo("Europe/Madrid"))
    result = reader.query("**/o1/temperature", from_="2026-01-01 01:00", to="2026-01-01 01:00:01")
    assert result.n_rows == 1


def test_derived_series_end_with_the_last_flush_and_that_is_told(tmp_path):
    fed = Fed(tmp_path / "store", [MINUTES])
    fed.feed(130)
    fed.pipe.drain()
    fed.feed(130)
    reader = open_store(tmp_path / "store")
    result = reader.query("**/o1/temperature_mean_1m", last="1h")
    assert result.n_rows >= 1
    assert any("derived series end with the last flush" in sentence for sentence in result.missing)
    assert reader.query("**/o1/temperature", last="1h").missing == ()
    fed.pipe.close()


def test_wrong_questions(fed, tmp_path):
    fed.feed(1)
    reader = open_store(tmp_path / "store")
    with pytest.raises(NotFound, match="no sensor matches '\\*\\*/temprature'"):
        reader.query("**/temprature", last="1h")
    with pytest.raises(ConfigError, match="say which span"):
        reader.query("**")
    with pytest.raises(ConfigError, match="unknown aggregate 'men'"):
        reader.query("**", last="1h", agg=["men"])
    with pytest.raises(ConfigError, match="is not a duration"):
        reader.query("**", last="1h", every="1 minute", agg=["mean"])


def test_what_is_no_store(tmp_path):
    with pytest.raises(Unreachable, match="is no store"):
        open_store(tmp_path)


def test_a_plant_file_names_its_store_and_zone(fed, tmp_path):
    fed.feed(1)
    (tmp_path / "plant.toml").write_text(
        'version = 1\n[plant]\ntimezone = "Europe/Madrid"\n[store]\nurl = "store"\n'
    )
    reader = open_store(tmp_path / "plant.toml")
    assert str(reader.zone) == "Europe/Madrid"
    assert reader.query("**/o1/temperature", last="1h").n_rows == 1


def test_status_of_a_store(fed, tmp_path):
    fed.feed(3)
    fed.pipe.drain()
    status = open_store(tmp_path / "store").status()
    assert status["samples"] == 12
    assert status["sensors"] == 4
    assert status["size_bytes"] > 0
    assert status["fresh_to"].startswith("2026-01-01T00:00:0")


# --- from a running engine -----------------------------------------------------------------------------


class PipePlant:
    """A pipe as the HTTP port sees a plant."""

    state, failure = "running", ""

    def __init__(self, pipe):
        self.directory, self.journal, self.metrics = pipe.directory, pipe.host.journal, Metrics()
        self.tail, self.progress = pipe.host.tail, lambda: pipe.host.progress()


@pytest.fixture
async def served(tmp_path):
    """A pipe that answers on a port, and flushes when it is drained only."""
    fed = Fed(tmp_path / "store", [MINUTES], EngineSettings(flush_ns=86_400 * NS))
    server = ControlServer(PipePlant(fed.pipe), fed.clock, "key")
    server.bind()
    await server.start()
    yield fed, server
    await server.stop()
    fed.pipe.close()


async def test_the_running_engine_is_asked(served, tmp_path):
    fed, server = served
    disk = LocalDisk(tmp_path / "store")
    reader = await asyncio.to_thread(open_store, tmp_path / "store", UTC)
    async with announced(disk, server.address, server, fed.clock):
        await asyncio.to_thread(fed.feed, 150)
        fed.pipe.host.engine.wait_processed(fed.pipe.host.delivered_seq, 10.0)
        result = await asyncio.to_thread(reader.query, "**/o1/temperature_mean_1m", last="1h")
        # Derived series come from the engine alone: nothing is flushed.
        assert result.n_rows >= 1
        assert result.sources["engine_frames"] >= 1
        assert result.fresh_to_ns == fed.clock.now_ns()
        raw = await asyncio.to_thread(reader.query, "**/o2/speed", last="1h")
        assert raw.n_rows == 150
        await asyncio.to_thread(fed.pipe.drain)
        raw = await asyncio.to_thread(reader.query, "**/o2/speed", last="1h")
        assert raw.n_rows == 150


async def test_an_engine_that_is_behind_its_intake_is_told(served, tmp_path, monkeypatch):
    fed, server = served
    monkeypatch.setattr("headrace.runtime.control_routes._BEHIND_S", 0.01)
    monkeypatch.setattr(fed.pipe.host, "progress", lambda: (1_203, 3))
    reader = await asyncio.to_thread(open_store, tmp_path / "store", UTC)
    async with announced(LocalDisk(tmp_path / "store"), server.address, server, fed.clock):
        await asyncio.to_thread(fed.feed, 5)
        result = await asyncio.to_thread(reader.query, "**/o1/speed", last="1h")
    assert result.missing == (
        "the engine is 1,200 records behind what it took: the newest samples are missing",
    )


def test_an_engine_that_does_not_answer_is_told_and_its_journal_read(fed, tmp_path):
    fed.feed(2)
    disk = LocalDisk(tmp_path / "store")
    announce(disk, Announcement(os.getpid(), "http://127.0.0.1:9", "http://127.0.0.1:9", "key", ""))
    result = open_store(tmp_path / "store").query("**/o1/temperature", last="1h")
    assert result.n_rows == 2
    assert any("was not heard" in s and "its journal was read instead" in s for s in result.missing)


def test_a_journal_that_is_trimmed_meanwhile_is_read_again(fed, tmp_path, monkeypatch):
    fed.feed(3)
    reader = StoreReader(LocalDisk(tmp_path / "store"))
    real, calls = reader.store.refresh, []

    def refresh():
        view = real()
        if not calls:
            calls.append(1)
            fed.pipe.drain()
            fed.feed(200)
            fed.pipe.drain()
        return view

    monkeypatch.setattr(reader.store, "refresh", refresh)
    result = reader.query("**/o1/temperature", last="1h")
    assert result.n_rows == 203
