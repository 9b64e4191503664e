"""One host: what it trims, when its journal is short of room, what it starts with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.core.clock import NS, VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.errors import RetryLater
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.ingest.journal import JournalSettings
from headrace.pipeline.flows import FlowSpec
from headrace.runtime.engine_core import EngineSettings
from headrace.runtime.host import Host, HostSettings
from headrace.runtime.pipe import Pipe
from headrace.sim.disk import SimulatedDisk

T0 = 1_767_225_600 * NS
PAIR = Layout("f64", (Column("a"), Column("b")))
MINUTES = FlowSpec(
    "minutes", "**", ({"op": "window", "every": "1m", "agg": ["mean"]},), "{parent}/{signal}_1m"
)


def make(disk: Any, clock: VirtualClock, specs: Any = (), **settings: Any) -> Host:
    host = Host(
        disk, clock, specs, settings=HostSettings(**{"nonce": 1, "threads": 2} | settings),
        on_failed=lambda error: pytest.fail(repr(error)),
    )  # fmt: skip
    if not host.recovered.replay.is_done:
        host.catch_up()
    return host


def feed(host: Host, slots: Any, ts_ns: int) -> None:
    values = np.random.default_rng(ts_ns % 997).normal(size=(len(slots), 2))
    host.core.offer(FrameBatch.dense(slots, np.full(len(slots), ts_ns), values, arrival_ns=ts_ns))
    host.core.commit()


def flush(host: Host) -> None:
    """What runners and committer do, in this thread."""
    for core in host.engine.cores:
        parts = [core.part(n, snapshot=True) for n in core.due(everything=True)]
        host.flusher.flush(parts)
        for part in parts:
            core.committed(part)


def step(host: Host) -> None:
    """Let the engine's queues be worked off, without its threads."""
    for runner in host.engine._runners:
        while not runner._queue.empty():
            runner.core.process(*runner._queue.get())


def test_shards_are_dealt_to_as_many_threads_as_were_asked_for() -> None:
    host = make(SimulatedDisk(), VirtualClock(T0), threads=3)
    shards = [sorted(core.shards) for core in host.engine.cores]
    assert len(shards) == 3
    assert sorted(n for some in shards for n in some) == list(range(SensorDirectory().n_shards))


def test_the_journal_is_trimmed_after_a_commit_also_when_there_are_no_new_sensors() -> None:
    host = make(SimulatedDisk(), VirtualClock(T0), journal=JournalSettings(object_bytes=2_000))
    slots = host.directory.define_many([f"plant/d{i}" for i in range(30)], PAIR)
    sizes = []
    for i in range(4):
        for k in range(6):
            feed(host, slots, T0 + (10 * i + k) * NS)
        step(host)
        flush(host)
        host._trim()
        sizes.append(host.journal.size_bytes)
        assert host.flusher.n_saved_slots == 30
    assert max(sizes) < 3_000
    # Definitions are in the directory's file now: no object repeats them.
    assert host.journal._definitions == []


def test_nothing_is_trimmed_before_every_shard_has_a_state() -> None:
    host = make(SimulatedDisk(), VirtualClock(T0), journal=JournalSettings(object_bytes=2_000))
    slots = host.directory.define_many([f"plant/d{i}" for i in range(30)], PAIR)
    for k in range(6):
        feed(host, slots, T0 + k * NS)
    step(host)
    core = host.engine.cores[0]
    host.flusher.flush([core.part(n, snapshot=True) for n in core.due(everything=True)])
    before = host.journal.size_bytes
    host._trim()
    assert host.journal.size_bytes == before


def test_shards_are_needed_to_be_saved_when_half_of_the_journal_is_used_or_the_disk_is_short() -> None:
    disk = SimulatedDisk()
    settings = JournalSettings(object_bytes=2_000, limit_bytes=10_000, reserve_bytes=1_000_000)
    host = make(disk, VirtualClock(T0), journal=settings)
    slots = host.directory.define_many([f"plant/d{i}" for i in range(30)], PAIR)
    while host.journal.size_bytes < 3_500:
        feed(host, slots, T0 + host.journal.last_seq * NS)
        assert host._needed_seq() == -1
    disk.capacity_bytes = 500_000
    feed(host, slots, T0 + 100 * NS)
    assert host.journal.is_short
    assert host._needed_seq() == host.journal.first_needed_seq > 0
    disk.capacity_bytes = 1 << 30
    host.journal.sync()
    while host.journal.size_bytes < 5_500:
        feed(host, slots, T0 + (200 + host.journal.last_seq) * NS)
    assert not host.journal.is_short
    assert host._needed_seq() == host.journal.first_needed_seq > 0


def test_pipelines_take_in_groups_that_are_defined_later() -> None:
    host = make(SimulatedDisk(), VirtualClock(T0), [MINUTES])
    slots = host.directory.define_many(["plant/d0"], PAIR)
    for second in (0, 30, 70, 140):
        feed(host, slots, T0 + second * NS)
    step(host)
    assert sum(core.counters.derived for core in host.engine.cores) > 0
    assert host.directory.find("plant/d0/a_1m")


def test_until_somebody_waits_for_the_journal_only_what_it_holds_counts_as_durable() -> None:
    host = make(SimulatedDisk(), VirtualClock(T0))
    slots = host.directory.define_many(["plant/d0"], PAIR)
    feed(host, slots, T0)
    assert host.wait_durable(host.journal.durable_seq, 0.0)
    assert not host.wait_durable(host.journal.durable_seq + 1, 0.0)


def test_a_restarted_host_goes_on_where_it_was() -> None:
    disk, clock = SimulatedDisk(), VirtualClock(T0)
    host = make(disk, clock, [MINUTES])
    slots = host.directory.define_many([f"plant/d{i}" for i in range(10)], PAIR)
    feed(host, slots, T0)
    clock.advance(1)
    host.core.tick()
    host.core.commit()
    step(host)
    flush(host)
    feed(host, slots, T0 + NS)
    again = make(disk.crash(), clock, [MINUTES], nonce=2)
    assert again.directory.n_slots == host.directory.n_slots
    assert again.recovered.replay.n_done == 1
    assert again.recovered.last_tick_ns == T0 + NS
    assert len(again.tail(slots)) > 0
    assert sum(batch.n_frames for batch in again.tail(slots)) == 10
    assert again.tail(np.empty(0, np.uint32)) == []


def test_while_it_replays_who_asks_for_its_frames_is_sent_away_at_once() -> None:
    disk, clock = SimulatedDisk(), VirtualClock(T0)
    host = make(disk, clock)
    slots = host.directory.define_many(["plant/d0"], PAIR)
    feed(host, slots, T0)
    settings = HostSettings(nonce=2, threads=2)
    again = Host(disk.crash(), clock, [], settings=settings, on_failed=lambda error: pytest.fail(repr(error)))
    assert again.progress() == (-1, -1)
    with pytest.raises(RetryLater, match=r"catching up with its journal, 0 of 1 records"):
        again.tail(slots)
    again.catch_up()
    feed(again, slots, T0 + NS)
    given, done = again.progress()
    assert given == again.delivered_seq > done
    assert sum(batch.n_frames for batch in again.tail(slots)) == 1


def test_a_pipe_feeds_a_host_and_finds_everything_in_its_store(tmp_path) -> None:
    clock = VirtualClock(T0)
    pipe = Pipe(tmp_path, [MINUTES], clock, HostSettings(nonce=1, engine=EngineSettings(4 * NS)))
    slots = pipe.directory.define_many([f"plant/d{i}" for i in range(20)], PAIR)
    acked = []
    for second in range(30):
        batch = FrameBatch.dense(slots, np.full(20, T0 + second * NS), np.ones((20, 2)), arrival_ns=T0)
        pipe.offer(batch, lambda second=second: acked.append(second))
        clock.advance(1.0)
        pipe.tick()
    pipe.drain()
    assert acked == list(range(30))
    assert set(pipe.stages_ns()) == {"normalise", "journal", "pipeline", "encode", "write"}
    assert pipe.store.status().n_samples >= 30 * 40
    pipe.close()
    LocalDisk(tmp_path).lock()
