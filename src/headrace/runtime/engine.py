"""The embedded engine's threads: runners that step shards, and a committer that writes them.

One runner a core owns some of the shards, so all work in a shard is in order and without locks; kernels release
the GIL. The committer writes a segment and its commit once the journal is durable that far. A disk that refuses
stops nothing: the buffers keep what they have, the journal keeps what was acknowledged, and sources slow down
when credits run out.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from headrace.core.errors import Fenced, HeadraceError, StorageError
from headrace.core.frames import FrameBatch
from headrace.pipeline.base import Tick
from headrace.runtime.engine_core import EngineCore
from headrace.store.flush import Flusher, FlushPart


class _Order(Enum):
    """What a thread can be told besides work."""

    STOP = auto()
    FLUSH_ALL = auto()


_Job = tuple[EngineCore, list[FlushPart]]


@dataclass(slots=True)
class FlushCounters:
    """What the committer wrote, and what that cost."""

    n_stored: int = 0
    n_duplicates: int = 0
    n_bytes: int = 0
    n_commits: int = 0
    encode_ns: int = 0
    write_ns: int = 0
    refusal: str = ""


class Committer:
    """The thread that turns flushed parts into segments and commits.

    Parameters
    ----------
    flusher : writes parts. wait_durable : returns when the journal holds a record. trim : lets the journal go up
    to a record. on_failed : told of an error after which the host must stop (fenced, or a defect).
    """

    def __init__(
        self,
        flusher: Flusher,
        wait_durable: Callable[[int], object],
        after_commit: Callable[[], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self._flusher, self._wait_durable = flusher, wait_durable
        self._after_commit, self._on_failed = after_commit, on_failed
        self._queue: queue.SimpleQueue[_Job | _Order] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="headrace-committer", daemon=True)
        self._written = threading.Condition()
        self._n_open = 0
        self.counters = FlushCounters()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, core: EngineCore, parts: list[FlushPart]) -> None:
        """Queue parts of one core; they are bounded by the number of shards, each is in flight once."""
        with self._written:
            self._n_open += 1
        self._queue.put((core, parts))

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until everything submitted was written or refused; False after `timeout_s`."""
        with self._written:
            return self._written.wait_for(lambda: self._n_open == 0, timeout_s)

    def stop(self) -> None:
        """Write what is queued, then end the thread."""
        if self._thread.is_alive():
            self._queue.put(_Order.STOP)
            self._thread.join()

    def _run(self) -> None:
        while True:
            jobs, stopping = self._next_jobs()
            if jobs:
                self._write(jobs)
            with self._written:
                self._n_open -= len(jobs)
                self._written.notify_all()
            if stopping:
                return

    def _next_jobs(self) -> tuple[list[_Job], bool]:
        """Everything that is queued, at least one thing; and whether to end after it."""
        jobs: list[_Job] = []
        while True:
            item = self._queue.get()
            if isinstance(item, _Order):
                return jobs, True
            jobs.append(item)
            if self._queue.empty():
                return jobs, False

    def _write(self, jobs: list[_Job]) -> None:
        parts = [(core, part) for core, some in jobs for part in some]
        counters = self.counters
        try:
            self._wait_durable(max(part.seq for _, part in parts))
            flushed = self._flusher.flush([part for _, part in parts])
        except StorageError as e:
            counters.refusal = str(e)
            for core, part in parts:
                core.failed(part)
            return
        except Exception as e:  # a defect or a fence: the host must stop, and say why
            for core, part in parts:
                core.failed(part)
            self._on_failed(e)
            return
        for core, part in parts:
            core.committed(part)
        counters.refusal = ""
        counters.n_commits += 1
        counters.n_stored += flushed.n_stored
        counters.n_duplicates += flushed.n_duplicates
        counters.n_bytes += flushed.size_bytes
        counters.encode_ns += flushed.encode_ns
        counters.write_ns += flushed.write_ns
        self._after_commit()


class Runner:
    """A thread that feeds one core."""

    def __init__(
        self,
        core: EngineCore,
        committer: Committer,
        on_processed: Callable[[Runner, int], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self.core = core
        self.done_seq = -1
        self._committer, self._on_processed, self._on_failed = committer, on_processed, on_failed
        self._queue: queue.SimpleQueue[tuple[int, FrameBatch | Tick] | _Order] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-runner", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, seq: int, record: FrameBatch | Tick) -> None:
        """Queue the next record; credits bound the queue."""
        self._queue.put((seq, record))

    def flush_all(self) -> None:
        """Queue a flush and snapshot of every shard behind all records queued so far."""
        self._idle.clear()
        self._queue.put(_Order.FLUSH_ALL)

    def wait_flushed(self, timeout_s: float) -> bool:
        """Wait until `flush_all` has handed its parts to the committer."""
        return self._idle.wait(timeout_s)

    def stop(self) -> None:
        """Work off the queue, then end the thread."""
        if self._thread.is_alive():
            self._queue.put(_Order.STOP)
            self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                item = self._queue.get()
                if item is _Order.STOP:
                    return
                if item is _Order.FLUSH_ALL:
                    self._committer.wait_idle(60.0)
                    self._submit(self.core.due(everything=True), snapshot=True)
                    self._idle.set()
                    continue
                assert isinstance(item, tuple)
                seq, record = item
                self.core.process(seq, record)
                self.done_seq = seq
                self._on_processed(self, seq)
                if isinstance(record, Tick) or self.core.size_bytes > self.core.settings.buffer_bytes_max:
                    self._submit(self.core.due())
                    self._hold_back()
        except Exception as e:  # a defect: stop acknowledging, tell, keep what is journalled
            self._on_failed(e)

    def _submit(self, shards: Sequence[int], snapshot: bool = False) -> None:
        if shards:
            self._committer.submit(self.core, [self.core.part(n, snapshot) for n in shards])

    def _hold_back(self) -> None:
        """Let the committer catch up when the buffers have outgrown their bound by half."""
        if self.core.size_bytes > 1.5 * self.core.settings.buffer_bytes_max:
            self._committer.wait_idle(1.0)


class Engine:
    """Runners and committer together.

    Parameters
    ----------
    cores : one a runner thread; their shards are disjoint and all. on_processed : told of the newest record that
    all runners have worked off. on_failed : told once of what ended the engine.
    """

    def __init__(
        self,
        cores: Sequence[EngineCore],
        committer: Committer,
        on_processed: Callable[[int], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self.cores = tuple(cores)
        self.committer = committer
        self._on_processed = on_processed
        self._lock = threading.Condition()
        self._told_seq = -1
        self._runners = [Runner(core, committer, self._processed, on_failed) for core in cores]

    def start(self) -> None:
        """Start all threads."""
        self.committer.start()
        for runner in self._runners:
            runner.start()

    def deliver(self, seq: int, record: FrameBatch | Tick) -> None:
        """The next record of the journal; returns at once."""
        for runner in self._runners:
            runner.put(seq, record)

    def _processed(self, runner: Runner, seq: int) -> None:
        with self._lock:
            done = min(r.done_seq for r in self._runners)
            tell = done > self._told_seq
            self._told_seq = max(done, self._told_seq)
            self._lock.notify_all()
        if tell:
            self._on_processed(done)

    def wait_processed(self, seq: int, timeout_s: float) -> bool:
        """Wait until all runners have worked off record `seq`; False after `timeout_s`."""
        with self._lock:
            return self._lock.wait_for(lambda: self._told_seq >= seq, timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Flush and snapshot everything delivered so far; True when it is committed."""
        for runner in self._runners:
            runner.flush_all()
        handed = all(runner.wait_flushed(timeout_s) for runner in self._runners)
        return handed and self.committer.wait_idle(timeout_s) and not self.committer.counters.refusal

    def stop(self) -> None:
        """End all threads; what is queued is worked off."""
        for runner in self._runners:
            runner.stop()
        self.committer.stop()


def is_fatal(error: Exception) -> str:
    """One sentence for an error that ended the engine."""
    if isinstance(error, Fenced):
        return f"another process took over this store; this one stops: {error}"
    if isinstance(error, HeadraceError):
        return str(error)
    return f"the engine stopped by a defect ({type(error).__name__}: {error}); what was acknowledged is in the journal"
