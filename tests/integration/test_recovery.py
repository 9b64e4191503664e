"""Starting again: after kills under load, with a small memory, behind numbers that the journal has lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.bench import recovery as bench
from headrace.bench.stored import count_stored
from headrace.core.clock import NS, VirtualClock
from headrace.core.errors import CorruptionError, StorageError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.ingest.journal import DamagePolicy, Journal, JournalSettings
from headrace.pipeline.flows import FlowSpec
from headrace.runtime import recovery
from headrace.runtime.engine_core import EngineSettings
from headrace.runtime.host import Host, HostSettings
from headrace.sim.disk import SimulatedDisk
from headrace.testing.hosts import flush_all, work_off

T0 = 1_767_225_600 * NS
PAIR = Layout("f64", (Column("a"), Column("b")))
SECONDS = FlowSpec(
    "seconds", "**", ({"op": "window", "every": "1s", "agg": ["count"]},), "{parent}/{signal}_{agg}_1s"
)
N = 20


def test_kills_under_load_lose_nothing_acknowledged_and_store_nothing_twice():
    found = bench.run(kills=4, seed=7, per_s=800.0, with_web=False)
    assert (found["lost"], found["duplicated"], found["kills"]) == (0, 0, 4)
    assert found["sent"] == found["acked"] == found["stored"] > 0
    assert found["recover_s_p50"] > 0


# --- in this process -------------------------------------------------------------------------------------


class Life:
    """A host on a simulated disk, stepped by hand."""

    def __init__(self, disk: SimulatedDisk, nonce: int, **settings: Any) -> None:
        self.disk = disk
        self.clock = VirtualClock(T0)
        chosen = HostSettings(**{"nonce": nonce, "threads": 2} | settings)
        self.host = Host(
            disk, self.clock, [SECONDS], settings=chosen, on_failed=lambda e: pytest.fail(repr(e))
        )
        if not self.host.recovered.replay.is_done:
            self.host.catch_up()
        self.slots = self.host.directory.define_many([f"plant/hall/d{i}" for i in range(N)], PAIR)

    def feed(self, first: int, n: int) -> None:
        for i in range(first, first + n):
            values = np.full((N, 2), float(i))
            batch = FrameBatch.dense(self.slots, np.full(N, T0 + i * NS // 4), values, arrival_ns=T0)
            self.host.core.offer(batch)
            self.host.core.commit()
            self.clock.set_ns(T0 + i * NS // 4)
            self.host.core.tick()
        self.host.core.commit()
        work_off(self.host)

    def flush(self) -> None:
        flush_all(self.host)

    def counts(self, path: str = "plant/hall/d3/a") -> list[float]:
        answer = self.host.store.query(path, T0 - NS, T0 + 10**6 * NS, tail=self.host.tail)
        assert answer.missing == ()
        return [row["value"] for row in answer.to_rows()]

    @property
    def sentences(self) -> tuple[str, ...]:
        return self.host.recovered.sentences


def test_what_a_crash_leaves_is_all_there_and_windows_go_on():
    life = Life(SimulatedDisk(), 1)
    life.feed(0, 10)
    life.flush()
    life.feed(10, 7)
    again = Life(life.disk.crash(), 2)
    assert again.counts() == [float(i) for i in range(17)]
    again.feed(17, 8)
    assert again.counts() == [float(i) for i in range(25)]
    assert again.counts("plant/hall/d3/a_count_1s") == [4.0] * 6


def test_a_replay_larger_than_memory_is_flushed_on_the_way():
    life = Life(SimulatedDisk(), 1)
    life.feed(0, 60)
    small = EngineSettings(buffer_bytes_max=2_000)
    again = Life(life.disk.crash(), 2, engine=small)
    assert max(core.size_bytes for core in again.host.engine.cores) <= 2 * 2_000
    assert again.host.store.status().n_samples > 0
    assert again.counts() == [float(i) for i in range(60)]
    # What was flushed on the way is not stepped into the buffers again.
    once_more = Life(again.disk.crash(), 3)
    assert once_more.counts() == [float(i) for i in range(60)]


def test_numbers_go_on_behind_what_is_stored_however_much_of_the_journal_is_gone(monkeypatch):
    life = Life(SimulatedDisk(), 1)
    life.feed(0, 12)
    life.flush()
    disk = life.disk.crash()
    for path in disk.list("journal"):
        disk.delete(path)
    with pytest.raises(CorruptionError, match="the store's journal is gone"):
        Life(disk, 2)
    monkeypatch.setattr(recovery, "_FILLED_MAX", 3)
    with pytest.raises(CorruptionError, match="records before what the store has; restore journal/"):
        Life(disk, 3)
    again = Life(disk, 4, damaged=DamagePolicy.SKIP)
    assert any("they were cut or removed" in s for s in again.sentences)
    before = life.host.journal.last_seq
    again.feed(12, 4)
    assert again.host.journal.last_seq > before
    last = Life(again.disk.crash(), 5)
    assert last.sentences == ()
    assert last.counts() == [float(i) for i in range(16)]


def test_what_was_skipped_once_is_missed_by_no_later_start():
    life = Life(SimulatedDisk(), 1, journal=JournalSettings(object_bytes=600))
    life.feed(0, 4)
    life.flush()
    life.feed(4, 12)
    disk = life.disk.crash()
    objects = [p for p in disk.list("journal") if disk.size(p) > 300]
    disk.flip_bit(objects[1], 200)
    with pytest.raises(CorruptionError, match="start with --skip-damaged"):
        Life(disk, 2)
    again = Life(disk, 3, damaged=DamagePolicy.SKIP)
    assert any(s.startswith("skipped: ") or "is damaged" in s for s in again.sentences)
    found = again.counts()
    assert 10 < len(found) < 16
    last = Life(again.disk.crash(), 4)
    assert last.counts() == found


def test_a_start_that_fails_lets_go_of_the_journal():
    life = Life(SimulatedDisk(), 1)
    life.feed(0, 4)
    life.flush()
    disk = life.disk.crash()
    state = disk.list("state")[0]
    data = bytes(disk.read(state))
    disk.replace(state, data[:-2])
    with pytest.raises(CorruptionError, match="can't be read from state/"):
        Life(disk, 2)
    disk.replace(state, data)
    assert Life(disk, 3).counts() == [0.0, 1.0, 2.0, 3.0]


def test_a_disk_that_refuses_at_the_start_is_told(monkeypatch):
    life = Life(SimulatedDisk(), 1)
    life.feed(0, 4)
    disk = life.disk.crash()
    disk.is_read_only = True
    with pytest.raises(StorageError, match="read-only"):
        Life(disk, 2)
    disk.is_read_only = False
    assert Life(disk, 3).counts() == [0.0, 1.0, 2.0, 3.0]


def test_late_data_that_are_replayed_stay_what_they_are():
    life = Life(SimulatedDisk(), 1)
    life.feed(0, 8)
    life.flush()
    life.feed(4, 2)  # again: duplicates of what is committed
    batch = FrameBatch.dense(life.slots, np.full(N, T0 + 1), np.full((N, 2), 99.0), arrival_ns=T0)
    life.host.core.offer(batch)
    life.host.core.commit()
    n_raw = count_stored(life.host.store).n_raw
    again = Life(life.disk.crash(), 2)
    again.flush()
    assert again.counts() == [0.0, 99.0, *(float(i) for i in range(1, 8))]
    assert count_stored(again.host.store).n_raw == n_raw + N * 2


def test_the_journal_is_the_owners_own():
    """Two hosts on one disk: the newer one wins, the older one is told at its next sync."""
    first = Life(SimulatedDisk(), 1)
    first.feed(0, 2)
    second = Life(first.disk, 2)
    second.feed(2, 2)
    assert isinstance(first.host.journal, Journal)
    with pytest.raises(Exception, match="another owner"):
        first.feed(2, 1)
    assert second.counts() == [0.0, 1.0, 2.0, 3.0]
