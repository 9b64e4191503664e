"""Runners and the committer: what is written when, what happens while the disk refuses, how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headrace.core.clock import NS, VirtualClock
from headrace.core.errors import Fenced, NotFound, StorageError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.ingest.journal import JournalSettings
from headrace.runtime import engine
from headrace.runtime.engine import is_fatal
from headrace.runtime.engine_core import EngineSettings
from headrace.runtime.host import Host, HostSettings
from headrace.sim.disk import SimulatedDisk

T0 = 1_767_225_600 * NS
N = 40
PAIR = Layout("f64", (Column("a"), Column("b")))


class Rig:
    """A host on a simulated disk, fed and synced by hand."""

    def __init__(self, disk: SimulatedDisk | None = None, **settings: Any) -> None:
        self.disk = disk or SimulatedDisk()
        self.clock = VirtualClock(T0)
        self.processed: list[int] = []
        self.refusals: list[str] = []
        self.failures: list[Exception] = []
        chosen = replace(HostSettings(nonce=1, engine=EngineSettings(4 * NS), threads=2), **settings)
        self.host = Host(
            self.disk, self.clock, [], settings=chosen, on_refusal=self.refusals.append,
            on_failed=self.failures.append,
        )  # fmt: skip
        self.engine, self.journal = self.host.engine, self.host.journal
        self.host.on_processed = self.processed.append
        self.slots = self.host.directory.define_many([f"plant/d{i}" for i in range(N)], PAIR)
        self.n_fed = 0

    def feed(self, n: int = 1, *, sync: bool = True) -> None:
        """A frame of every group, `n` times."""
        for _ in range(n):
            ts_ns = np.full(N, T0 + self.n_fed * 1_000)
            values = np.random.default_rng(self.n_fed).normal(size=(N, 2))
            self.host.core.offer(FrameBatch.dense(self.slots, ts_ns, values, arrival_ns=T0))
            self.host.core.flush()
            self.n_fed += 1
            if sync:
                self.journal.sync()

    def tick(self, n: int = 1, *, sync: bool = True) -> None:
        """A second goes by, `n` times."""
        for _ in range(n):
            self.clock.advance(1.0)
            assert self.host.core.tick()
            if sync:
                self.journal.sync()

    def stepped(self) -> None:
        """Wait until all that was fed is worked off."""
        assert self.engine.wait_processed(self.host.delivered_seq, 20)

    def until(self, what: Callable[[], Any], timeout_s: float = 20.0) -> None:
        end = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < end, "it did not come"
            time.sleep(0.002)

    @property
    def n_committed(self) -> int:
        return self.host.store.status().n_samples

    @property
    def n_buffered(self) -> int:
        return sum(core.n_buffered for core in self.engine.cores)


@contextmanager
def running(rig: Rig) -> Iterator[Rig]:
    rig.engine.start()
    try:
        yield rig
    finally:
        rig.engine.stop()


def refuse(rig: Rig, text: str = "the disk is full") -> Callable[[], None]:
    """Let the store's disk refuse, until the returned function is called."""
    flusher = rig.host.flusher
    flush = flusher.flush

    def refused(*_: Any) -> None:
        raise StorageError(text)

    flusher.flush = refused  # type: ignore[method-assign]
    return lambda: setattr(flusher, "flush", flush)


# --- in good days ----------------------------------------------------------------------------------------


def test_shards_are_flushed_in_turns_as_time_goes_on() -> None:
    with running(Rig()) as rig:
        rig.feed(3)
        for _ in range(10):
            rig.tick()
            rig.stepped()
            rig.engine.committer.wait_idle(10)
        assert rig.n_committed == 3 * N * 2
        assert rig.n_buffered == 0
        assert rig.processed == sorted(rig.processed)
        assert rig.processed[-1] == rig.host.delivered_seq
        assert rig.engine.committer.counters.n_stored == rig.n_committed
        assert rig.failures == []


def test_a_flush_has_everything_delivered_before_it_and_snapshots() -> None:
    with running(Rig()) as rig:
        rig.feed(5)
        assert rig.engine.flush(20)
        assert rig.n_committed == 5 * N * 2
        view = rig.host.store.refresh().commits
        assert min(view.shards[s].state_seq for s in range(64)) == rig.host.delivered_seq
        assert rig.engine.flush(20)


def test_much_at_once_is_written_in_several_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_COMMIT_BYTES_MAX", 4 * 16)
    with running(Rig()) as rig:
        rig.feed(5)
        assert rig.engine.flush(20)
        assert rig.n_committed == 5 * N * 2
        assert rig.engine.committer.counters.n_commits > 5
        assert rig.failures == []


def test_full_buffers_are_flushed_without_waiting_for_a_tick() -> None:
    with running(Rig(engine=EngineSettings(buffer_bytes_max=4 * N * 16))) as rig:
        rig.feed(40)
        rig.until(lambda: rig.n_committed > 0)
        assert rig.failures == []


def test_the_journal_goes_when_all_shards_are_saved_also_without_new_sensors() -> None:
    with running(Rig(journal=JournalSettings(object_bytes=4_000))) as rig:
        for _ in range(3):
            rig.feed(10)
            before = rig.journal.size_bytes
            assert rig.engine.flush(20)
            assert rig.journal.size_bytes < before
        assert rig.journal.first_needed_seq == -1


def test_shards_that_hold_a_journal_short_of_room_are_saved_before_their_turn() -> None:
    settings = {
        "engine": EngineSettings(3_600 * NS),
        "journal": JournalSettings(object_bytes=4_000, limit_bytes=40_000),
    }
    with running(Rig(**settings)) as rig:
        largest = 0
        for _ in range(30):
            rig.feed(3)
            rig.tick()
            rig.stepped()
            rig.engine.committer.wait_idle(10)
            largest = max(largest, rig.journal.size_bytes)
        assert largest < 35_000
        assert rig.host.core.refusal == ""
        # Only those that held it: it is not a flush at every tick.
        assert 2 < rig.engine.committer.counters.n_commits < 30


def test_frames_that_are_not_flushed_can_be_read() -> None:
    with running(Rig()) as rig:
        rig.feed(2)
        rig.stepped()
        found = rig.host.tail(rig.slots[:3])
        assert sorted(int(s) for batch in found for s in batch.slot) == [0, 0, 1, 1, 2, 2]
        assert rig.engine.flush(20)
        assert rig.host.tail(rig.slots) == []


# --- a disk that refuses ---------------------------------------------------------------------------------


def test_what_the_journal_does_not_hold_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.runtime.engine._DURABLE_S", 0.2)
    with running(Rig()) as rig:
        rig.feed(1)
        assert rig.engine.flush(20)
        rig.feed(1, sync=False)
        assert not rig.engine.flush(20)
        assert "before the journal, which waits for its disk" in rig.engine.committer.counters.refusal
        assert rig.n_committed == N * 2
        rig.journal.sync()
        assert rig.engine.flush(20)
        assert rig.n_committed == 2 * N * 2
        assert rig.engine.committer.counters.refusal == ""


def test_a_refusing_disk_is_told_once_and_tried_again() -> None:
    with running(Rig()) as rig:
        takes_again = refuse(rig)
        rig.feed(2)
        for _ in range(12):
            rig.tick()
        rig.stepped()
        rig.engine.committer.wait_idle(10)
        assert rig.refusals == ["the disk is full"]
        assert rig.n_buffered == 2 * N * 2
        assert not rig.engine.flush(20)
        takes_again()
        for _ in range(12):
            rig.tick()
        rig.stepped()
        rig.engine.committer.wait_idle(10)
        assert rig.refusals == ["the disk is full", ""]
        assert rig.n_committed == 2 * N * 2
        assert rig.failures == []


def test_a_state_that_could_not_be_written_is_written_with_the_next_flush() -> None:
    with running(Rig()) as rig:
        takes_again = refuse(rig)
        rig.feed(1)
        assert not rig.engine.flush(20)
        takes_again()
        for _ in range(12):
            rig.tick()
        rig.stepped()
        rig.engine.committer.wait_idle(10)
        view = rig.host.store.refresh().commits
        assert all(view.shards[s].state_seq > 0 for s in range(64))


def test_memory_is_bounded_however_long_the_disk_refuses() -> None:
    bound = 10 * N * 16
    with running(Rig(engine=EngineSettings(NS, buffer_bytes_max=bound), threads=1)) as rig:
        takes_again = refuse(rig)
        rig.feed(100)
        rig.tick(3)
        rig.until(lambda: rig.refusals)
        one = N * (16 + 12)
        held_at: list[int] = []
        for _ in range(20):
            time.sleep(0.05)
            held_at.append(rig.engine.cores[0].size_bytes)
        assert max(held_at) <= 2 * bound + one
        # So records are not worked off, their credit is not given back, and the sources wait.
        assert not rig.engine.wait_processed(rig.host.delivered_seq, 0.0)
        takes_again()
        rig.stepped()
        assert rig.engine.flush(20)
        assert rig.n_committed == 100 * N * 2


@pytest.mark.parametrize("what", ["store", "journal"])
def test_it_ends_soon_whatever_the_disk_does(what: str) -> None:
    rig = Rig(engine=EngineSettings(NS, buffer_bytes_max=N * 16), threads=2)
    rig.engine.start()
    if what == "store":
        refuse(rig)
    rig.feed(30, sync=what == "store")
    rig.tick(3, sync=what == "store")
    rig.until(lambda: rig.n_buffered)
    begun = time.monotonic()
    rig.engine.stop()
    rig.engine.stop()
    assert time.monotonic() - begun < 2
    # Whatever became of it, the next one has it.
    if what == "store":
        again = Rig(rig.disk.crash())
        with running(again):
            assert again.engine.flush(20)
        assert again.n_committed == 30 * N * 2


def test_a_journal_that_can_not_be_trimmed_is_told_and_trimmed_later() -> None:
    with running(Rig(journal=JournalSettings(object_bytes=4_000))) as rig:
        rig.feed(10)
        trim = rig.journal.trim

        def stuck(seq: int) -> int:
            raise NotFound("gone")

        rig.journal.trim = stuck  # type: ignore[method-assign]
        assert rig.engine.flush(20)
        rig.until(lambda: rig.refusals)
        assert rig.refusals == ["the journal could not be trimmed: gone"]
        rig.journal.trim = trim  # type: ignore[method-assign]
        before = rig.journal.size_bytes
        assert rig.engine.flush(20)
        rig.until(lambda: rig.journal.size_bytes < before)
        assert rig.refusals[1:] == [""]


# --- the end of all --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError("in the encoder"), Fenced("another engine")])
def test_an_error_of_the_committer_is_told_and_nothing_is_written_after_it(error: Exception) -> None:
    with running(Rig()) as rig:
        rig.feed(1)
        flusher = rig.host.flusher
        flush = flusher.flush

        def broken(*_: Any) -> None:
            raise error

        flusher.flush = broken  # type: ignore[method-assign]
        assert not rig.engine.flush(20)
        assert rig.failures == [error]
        flusher.flush = flush  # type: ignore[method-assign]
        assert not rig.engine.flush(20)
        assert rig.failures == [error]
        assert rig.n_committed == 0
        assert rig.n_buffered == N * 2


@pytest.mark.parametrize("error", [ZeroDivisionError("while trimming"), Fenced("another engine")])
def test_an_error_after_a_commit_is_told(error: Exception) -> None:
    with running(Rig()) as rig:
        rig.feed(1)

        def broken(seq: int) -> int:
            raise error

        rig.journal.trim = broken  # type: ignore[method-assign]
        assert rig.engine.flush(20)
        rig.until(lambda: rig.failures)
        assert rig.failures == [error]


def far(rig: Rig, core: int = 0) -> tuple[Callable[[], Any], threading.Event]:
    """Have a runner read the store, which does not answer until the event is set."""
    answers, reads = threading.Event(), rig.engine.cores[core]

    def frames(*_: Any) -> dict[int, FrameBatch]:
        if not answers.is_set():
            raise StorageError("the service can't be reached")
        return {}

    reads.frames = rig.engine._runners[core]._patiently(frames)
    process = reads.process

    def read_first(*arguments: Any) -> None:
        reads.frames([0], 0, 1)
        process(*arguments)

    reads.process = read_first  # type: ignore[method-assign]
    return lambda: rig.refusals, answers


def test_a_store_that_does_not_answer_a_runner_is_told_and_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "_RETRY_S_MIN", 0.01)
    rig = Rig()
    refusals, answers = far(rig)
    with running(rig):
        rig.feed(1)
        rig.until(refusals)
        assert rig.refusals == ["the service can't be reached"]
        answers.set()
        rig.stepped()
        assert rig.engine.flush(20)
        assert (rig.refusals[-1], rig.failures) == ("", [])


def test_an_engine_ends_while_its_store_does_not_answer() -> None:
    rig = Rig()
    refusals, _ = far(rig)
    with running(rig):
        rig.feed(1)
        rig.until(refusals)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert rig.failures == []


def test_a_defect_of_a_runner_is_told_and_no_flush_passes_for_done() -> None:
    with running(Rig()) as rig:
        rig.feed(1)
        rig.stepped()
        defect = ZeroDivisionError("in a kernel")

        def broken(*_: Any) -> None:
            raise defect

        rig.engine.cores[0].process = broken  # type: ignore[method-assign]
        rig.feed(1)
        rig.until(lambda: rig.failures)
        assert rig.failures == [defect]
        told = list(rig.processed)
        rig.feed(3)
        begun = time.monotonic()
        assert not rig.engine.flush(20)
        assert time.monotonic() - begun < 5
        assert rig.processed == told


def test_memory_stays_bounded_behind_a_committer_that_has_failed() -> None:
    bound = 4 * N * 16
    with running(Rig(engine=EngineSettings(NS, buffer_bytes_max=bound), threads=1)) as rig:

        def broken(*_: Any) -> None:
            raise ZeroDivisionError

        rig.host.flusher.flush = broken  # type: ignore[method-assign]
        rig.feed(60)
        rig.until(lambda: rig.failures)
        time.sleep(0.2)
        assert rig.engine.cores[0].size_bytes <= 2 * bound + N * 28


def test_a_flush_of_an_engine_that_has_ended_is_none() -> None:
    others = set(threading.enumerate())
    rig = Rig()
    assert not rig.engine.flush(1)
    rig.engine.start()
    rig.engine.stop()
    assert not rig.engine.flush(1)
    assert not any(t.name.startswith("headrace-") for t in set(threading.enumerate()) - others)


def test_an_end_is_said_in_a_sentence() -> None:
    assert is_fatal(Fenced("seal 3")) == "another process took over this store; this one stops: seal 3"
    assert is_fatal(StorageError("the disk is gone")) == "the disk is gone"
    assert is_fatal(KeyError("x")) == (
        "the engine stopped by a defect (KeyError: 'x'); what was acknowledged is in the journal"
    )
