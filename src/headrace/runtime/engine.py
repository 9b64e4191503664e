"""The embedded engine's threads: runners that step shards, and a committer that writes them.

One runner a core owns some of the shards, so all work in a shard is in order and without locks; kernels release
the GIL. The committer writes a segment and its commit once the journal is durable that far.

A disk that refuses stops nothing: the buffers keep what they have, the journal keeps what was acknowledged. A
runner whose buffers hold half more than they may works off nothing more until a flush has succeeded, so credits run
out and the sources slow down. A defect, or another owner, ends the engine: `on_failed` is told once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from headrace.core.clock import NS, monotonic_ns
from headrace.core.errors import Fenced, HeadraceError, StorageError
from headrace.core.frames import FrameBatch
from headrace.pipeline.base import Tick
from headrace.runtime.backlog import Backlog, Replay
from headrace.runtime.engine_core import EngineCore, Frames, Reflow
from headrace.store.flush import Flusher, FlushPart

_DURABLE_S = 5.0
_LOOK_S = 0.25
_RETRY_S_MIN, _RETRY_S_MAX = 0.5, 8.0
_HELD_BACK_AT = 1.5
_COMMIT_BYTES_MAX = 64 << 20
_NEVER = 2**63


class _Stopped(Exception):
    """The engine was stopped while it waited."""


class _Order(Enum):
    """What a thread can be told besides work."""

    STOP = auto()
    FLUSH_ALL = auto()
    BEGIN = auto()


_Job = tuple[EngineCore, list[FlushPart]]
_Part = tuple[EngineCore, FlushPart]


@dataclass(slots=True)
class FlushCounters:
    """What the committer wrote, and what that cost. `refusal`: why the last flush failed; empty if it did not."""

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
    flusher : writes parts. wait_durable : (seq, timeout_s) waits until the journal holds a record, and says
    whether it does. after_commit : lets go of the journal that is not needed any more.
    on_refusal : told why, when the disk begins to refuse, and "" when it takes again.
    on_failed : told once of an error after which the host must stop (fenced, or a defect).
    """

    def __init__(
        self,
        flusher: Flusher,
        wait_durable: Callable[[int, float], bool],
        after_commit: Callable[[], None],
        on_refusal: Callable[[str], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self._flusher, self._wait_durable = flusher, wait_durable
        self._after_commit, self._on_refusal, self._on_failed = after_commit, on_refusal, on_failed
        self._queue: queue.SimpleQueue[_Job | _Order] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="headrace-committer", daemon=True)
        self._written = threading.Condition()
        self._n_open = 0
        self._is_stopping = False
        self._has_failed = False
        self.counters = FlushCounters()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, core: EngineCore, parts: list[FlushPart]) -> None:
        """Queue parts of one core; they are bounded by the number of shards, each is in flight once.

        No parts: only let go of the journal that is not needed any more.
        """
        with self._written:
            self._n_open += 1
        self._queue.put((core, parts))

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until everything submitted was written or refused; False after `timeout_s`."""
        with self._written:
            return self._written.wait_for(lambda: self._n_open == 0, timeout_s)

    def refuse(self, text: str) -> None:
        """Say why the disk refuses something else than a flush; the next flush that succeeds takes it back."""
        self._refused(text)

    def stop(self) -> None:
        """Write what is queued and durable, then end the thread. May be called twice, and before `start`."""
        self._is_stopping = True
        if self._thread.is_alive():
            self._queue.put(_Order.STOP)
            self._thread.join()

    def _run(self) -> None:
        while True:
            jobs, stopping = self._next_jobs()
            if jobs:
                for some in _commits([(core, part) for core, parts in jobs for part in parts]):
                    self._write(some)
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

    def _write(self, parts: list[_Part]) -> None:
        is_committed = not parts and not self._has_failed
        try:
            if parts and not self._has_failed:
                is_committed = self._commit([part for _, part in parts])
        except Exception as e:  # a defect or a fence: the host must stop, and say why
            self._has_failed = True
            self._on_failed(e)
        for core, part in parts:
            if is_committed:
                core.committed(part)
            else:
                core.failed(part)
        if is_committed:
            self._let_go()

    def _commit(self, parts: list[FlushPart]) -> bool:
        """Write the parts in one segment and commit; whether the disk took them."""
        counters = self.counters
        try:
            self._check_durable(max(part.seq for part in parts))
            flushed = self._flusher.flush(parts)
        except StorageError as e:
            self._refused(str(e))
            return False
        self._refused("")
        counters.n_commits += 1
        counters.n_stored += flushed.n_stored
        counters.n_duplicates += flushed.n_duplicates
        counters.n_bytes += flushed.size_bytes
        counters.encode_ns += flushed.encode_ns
        counters.write_ns += flushed.write_ns
        return True

    def _refused(self, text: str) -> None:
        is_news = bool(text) != bool(self.counters.refusal)
        self.counters.refusal = text
        if is_news:
            self._on_refusal(text)

    def _check_durable(self, seq: int) -> None:
        """Wait for the journal: what it does not hold must not be in a commit, its number may be given anew."""
        until_ns = monotonic_ns() + int(_DURABLE_S * NS)
        while not self._wait_durable(seq, _LOOK_S):
            if self._is_stopping or monotonic_ns() > until_ns:
                raise StorageError(
                    "nothing is written to the store before the journal, which waits for its disk"
                )

    def _let_go(self) -> None:
        try:
            self._after_commit()
        except Fenced as e:
            self._has_failed = True
            self._on_failed(e)
        except HeadraceError as e:  # the next commit tries again
            self._refused(f"the journal could not be trimmed: {e}")
        except Exception as e:
            self._has_failed = True
            self._on_failed(e)


def _commits(parts: list[_Part]) -> Iterator[list[_Part]]:
    """The parts of each commit: what is encoded for one is in memory all at once, so it has a bound."""
    some: list[_Part] = []
    size_bytes = 0
    for core, part in parts:
        if some and size_bytes + part.buffer.size_bytes > _COMMIT_BYTES_MAX:
            yield some
            some, size_bytes = [], 0
        some.append((core, part))
        size_bytes += part.buffer.size_bytes
    yield some


class Runner:
    """A thread that feeds one core.

    Parameters
    ----------
    needed_seq : record up to which shards must be saved so that journal can be freed; -1 while it has room.
    """

    def __init__(
        self,
        core: EngineCore,
        committer: Committer,
        needed_seq: Callable[[], int],
        on_processed: Callable[[], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self.core = core
        self.done_seq = -1
        self._asked_seq = -1
        self._last_replayed = -1
        self._on_begun: Callable[[], None] = lambda: None
        self._committer, self._needed_seq = committer, needed_seq
        self._on_processed, self._on_failed = on_processed, on_failed
        self._queue: queue.SimpleQueue[tuple[int, FrameBatch | Tick | Reflow] | _Order] = queue.SimpleQueue()
        self._handed = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-runner", daemon=True)
        core.frames = self._patiently(core.frames)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _patiently(self, frames: Frames) -> Frames:
        """Read again while the store does not answer: a bucket that is away for an hour must not end the engine."""

        def read(slots: Sequence[int], start_ns: int, end_ns: int) -> Mapping[int, FrameBatch]:
            wait_s = _RETRY_S_MIN
            while True:
                try:
                    return frames(slots, start_ns, end_ns)
                except StorageError as e:
                    self._committer.refuse(str(e))
                    if self._stopping.wait(wait_s):
                        raise _Stopped from e
                    wait_s = min(2 * wait_s, _RETRY_S_MAX)

        return read

    def put(self, seq: int, record: FrameBatch | Tick | Reflow) -> None:
        """Queue the next record; credits bound the queue."""
        self._queue.put((seq, record))

    def flush_all(self) -> None:
        """Queue a flush and snapshot of every shard behind all records queued so far."""
        self._handed.clear()
        self._asked_seq = _NEVER
        self._queue.put(_Order.FLUSH_ALL)
        if not self._thread.is_alive():
            self._handed.set()

    def begin(self, seq: int, on_begun: Callable[[], None]) -> None:
        """Queue the end of the replay, at record `seq`; `on_begun` is called when it is reached."""
        self._last_replayed, self._on_begun = seq, on_begun
        self._queue.put(_Order.BEGIN)

    def wait_handed(self, timeout_s: float) -> None:
        """Wait until `flush_all` has handed its parts to the committer."""
        self._handed.wait(timeout_s)

    @property
    def is_saved(self) -> bool:
        """Whether everything that the last `flush_all` was about is in the store."""
        return self.core.saved_seq >= self._asked_seq

    def stop(self) -> None:
        """End the thread after the record at hand; what is queued is in the journal."""
        self._stopping.set()
        if self._thread.is_alive():
            self._queue.put(_Order.STOP)
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                item = self._queue.get()
                if isinstance(item, tuple):
                    self._process(*item)
                elif item is _Order.FLUSH_ALL:
                    self._flush_all()
                elif item is _Order.BEGIN:
                    self.core.begin(self._last_replayed)
                    self._on_begun()
        except _Stopped:
            pass  # the record at hand is in the journal
        except Exception as e:  # a defect: stop acknowledging, tell, keep what is journalled
            self._asked_seq = _NEVER
            self._handed.set()
            self._on_failed(e)

    def _process(self, seq: int, record: FrameBatch | Tick | Reflow) -> None:
        core = self.core
        core.process(seq, record)
        self.done_seq = seq
        self._on_processed()
        if isinstance(record, Tick):
            self._relieve_journal(self._needed_seq())
        if isinstance(record, Tick) or core.size_bytes > core.settings.buffer_bytes_max:
            self._submit(core.due())
            self._hold_back()

    def _relieve_journal(self, needed_seq: int) -> None:
        """Save the shards that keep the journal from being trimmed, or have it trimmed."""
        self._submit(self.core.behind(needed_seq), snapshot=True)
        if 0 <= needed_seq <= self.core.saved_seq:
            self._committer.submit(self.core, [])

    def _flush_all(self) -> None:
        # A shard's parts are written one after the other: wait for those under way.
        while not self._committer.wait_idle(_LOOK_S) and not self._stopping.is_set():
            pass
        self._asked_seq = self.core.seq
        self._submit(self.core.due(everything=True), snapshot=True)
        self._handed.set()

    def _submit(self, shards: Sequence[int], snapshot: bool = False) -> None:
        if shards:
            self._committer.submit(self.core, [self.core.part(n, snapshot) for n in shards])

    def _hold_back(self) -> None:
        """Work off nothing more while the buffers hold half more than they may."""
        retry_s = _RETRY_S_MIN
        while self._is_too_full():
            if self._stopping.is_set():
                return
            if (
                self._committer.wait_idle(_LOOK_S)
                and self._is_too_full()
                and not self._stopping.wait(retry_s)
            ):
                retry_s = min(2 * retry_s, _RETRY_S_MAX)
                self._submit(self.core.due(everything=True))

    def _is_too_full(self) -> bool:
        return self.core.size_bytes > _HELD_BACK_AT * self.core.settings.buffer_bytes_max


class Engine:
    """Runners and committer together.

    Parameters
    ----------
    cores : one a runner thread; their shards are disjoint and all. replay : what they are stepped through first.
    needed_seq : see `Runner`.
    on_processed : told of the newest record that all runners have worked off. on_failed : told of what ended it.
    """

    def __init__(
        self,
        cores: Sequence[EngineCore],
        replay: Replay,
        committer: Committer,
        needed_seq: Callable[[], int],
        on_processed: Callable[[int], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self.cores = tuple(cores)
        self.committer = committer
        self._on_processed = on_processed
        self._changed = threading.Condition()
        self._told_seq = -1
        self._runners = [Runner(core, committer, needed_seq, self._processed, on_failed) for core in cores]
        self._replay = replay
        self._n_begun = 0
        self.backlog = Backlog(replay, self._put, self.wait_processed, self._begin, on_failed)

    def start(self) -> None:
        """Start all threads."""
        self.committer.start()
        for runner in self._runners:
            runner.start()
        self.backlog.start()

    def deliver(self, seq: int, record: FrameBatch | Tick | Reflow) -> None:
        """The next record of the journal; returns at once. What is replayed goes before it."""
        self.backlog.deliver(seq, record)

    def _put(self, seq: int, record: FrameBatch | Tick | Reflow) -> None:
        for runner in self._runners:
            runner.put(seq, record)

    def _begin(self) -> None:
        for runner in self._runners:
            runner.begin(self._replay.last_seq, self._begun)
            if self._replay.saves:
                runner.flush_all()

    def _begun(self) -> None:
        """A runner has caught up; told by each."""
        with self._changed:
            self._n_begun += 1
            if self._n_begun == len(self._runners):
                self._replay.end()

    def _processed(self) -> None:
        with self._changed:
            done = min(r.done_seq for r in self._runners)
            is_news = done > self._told_seq
            self._told_seq = max(done, self._told_seq)
            self._changed.notify_all()
        if is_news:
            self._on_processed(done)

    @property
    def processed_seq(self) -> int:
        """The last record that all runners have worked off; -1 where there is none."""
        return self._told_seq

    def wait_processed(self, seq: int, timeout_s: float) -> bool:
        """Wait until all runners have worked off record `seq`; False after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._told_seq >= seq, timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Flush and snapshot everything delivered so far; True when it is committed, False if not in time.

        Where it is not (the disk refuses, time is up, a runner has failed), the journal has it.
        """
        until_ns = monotonic_ns() + int(timeout_s * NS)

        def left_s() -> float:
            return max(0.0, (until_ns - monotonic_ns()) / NS)

        if not self.backlog.wait_handed(left_s()):
            return False
        for runner in self._runners:
            runner.flush_all()
        for runner in self._runners:
            runner.wait_handed(left_s())
        self.committer.wait_idle(left_s())
        return all(runner.is_saved for runner in self._runners)

    def stop(self) -> None:
        """End all threads, soon: what is not worked off or not written is in the journal."""
        self.backlog.stop()
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
