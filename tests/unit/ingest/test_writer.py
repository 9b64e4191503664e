"""The thread that syncs: group commit, retries with back-off, a last sync when stopping."""

from __future__ import annotations

import threading
from typing import Any

from headrace.core.clock import VirtualClock
from headrace.core.errors import Fenced
from headrace.ingest.journal import Journal
from headrace.ingest.journal_format import RecordKind
from headrace.ingest.writer import JournalWriter
from headrace.sim.disk import SimulatedDisk


class Watched:
    """A writer whose calls are noted; `happened` wakes whoever waits for them."""

    def __init__(self) -> None:
        self.disk = SimulatedDisk()
        self.journal = Journal.open(self.disk, VirtualClock(), nonce=1)
        self.calls: list[tuple[str, Any]] = []
        self.changed = threading.Condition()
        self.writer = JournalWriter(
            self.journal,
            lambda seq: self.note("durable", seq),
            lambda text: self.note("refused", text),
            lambda error: self.note("failed", error),
            retry_s_min=0.001,
            retry_s_max=0.004,
        )

    def note(self, what: str, detail: Any) -> None:
        with self.changed:
            self.calls.append((what, detail))
            self.changed.notify_all()

    def wait_for(self, what: str, n: int = 1) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: sum(c[0] == what for c in self.calls) >= n, 10)

    def append(self) -> int:
        return self.journal.append(RecordKind.CONFIG, [b"x"])


def test_what_is_appended_is_durable_soon_after_a_wake() -> None:
    w = Watched()
    w.writer.start()
    for _ in range(100):
        seq = w.append()
        w.writer.wake()
    assert w.writer.wait(seq, 10)
    assert w.journal.durable_seq == 100
    w.writer.stop()
    w.writer.stop()
    assert w.calls[-1] == ("durable", 100)
    assert w.writer.cpu_ns > 0


def test_waiting_has_an_end() -> None:
    w = Watched()
    seq = w.append()
    assert not w.writer.wait(seq, 0.001)
    w.writer.stop()


def test_stopping_syncs_once_more() -> None:
    w = Watched()
    w.writer.start()
    seq = w.append()
    w.writer.stop()
    assert w.journal.durable_seq == seq


def test_a_refusing_disk_is_tried_again_until_it_takes() -> None:
    w = Watched()
    w.disk.is_read_only = True
    w.writer.start()
    seq = w.append()
    w.writer.wake()
    w.wait_for("refused", 4)
    assert "read-only" in w.calls[0][1]
    w.disk.is_read_only = False
    assert w.writer.wait(seq, 10)
    w.writer.stop()


def test_stopping_does_not_wait_for_a_disk_that_refuses() -> None:
    w = Watched()
    w.disk.is_read_only = True
    w.writer.start()
    w.append()
    w.writer.wake()
    w.wait_for("refused")
    w.writer.stop()
    assert w.calls[-1][0] == "refused"


def test_a_new_owner_ends_the_thread_and_whoever_waits() -> None:
    w = Watched()
    w.writer.start()
    Journal.open(w.disk, VirtualClock(), nonce=2)
    seq = w.append()
    w.writer.wake()
    assert not w.writer.wait(seq, 10)
    w.wait_for("failed")
    assert isinstance(w.calls[-1][1], Fenced)
    w.writer.stop()
