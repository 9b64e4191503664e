"""The replay: records of the journal that shards have not seen, stepped again after a start.

An engine accepts before it has caught up. What it takes in meanwhile is journalled and acknowledged as ever, and
waits here, in order, behind the records that are replayed; credits bound it. Shards see one sequence of records,
as if there had been no restart.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from headrace.core.clock import NS, monotonic_ns
from headrace.core.frames import FrameBatch
from headrace.pipeline.base import Tick
from headrace.runtime.engine_core import EngineCore, Reflow

Step = tuple[int, FrameBatch | Tick | Reflow]
AHEAD_VALUES_MAX = 4_000_000
"""Values that are read ahead of the slowest runner."""
_LOOK_S = 0.25


class Replay:
    """What is to be replayed, and how far it is.

    Parameters
    ----------
    read : frames, ticks and changes of pipelines, in order of their numbers; called once. n_records : how many there are.
    last_seq : the newest record of the journal, of whatever kind.
    begun_ns : monotonic time at which the store was opened.
    saves : whether shards are saved once they have caught up, because something was skipped: so that the next start
        finds nothing missing.
    """

    def __init__(
        self, read: Callable[[], Iterator[Step]], n_records: int, last_seq: int, begun_ns: int, *, saves: bool
    ) -> None:
        self.n_records, self.last_seq, self.saves = n_records, last_seq, saves
        self.n_done = 0
        self.caught_up_s: float | None = None
        self._read, self._begun_ns = read, begun_ns

    @property
    def is_done(self) -> bool:
        """Whether shards are where the journal ended."""
        return self.caught_up_s is not None

    def steps(self) -> Iterator[Step]:
        """The records; `n_done` counts those whose step was taken."""
        for step in self._read():
            yield step
            self.n_done += 1

    def end(self) -> None:
        """All shards have caught up."""
        self.caught_up_s = (monotonic_ns() - self._begun_ns) / NS

    def run(self, cores: Sequence[EngineCore], save: Callable[[EngineCore], None]) -> None:
        """Replay everything in this thread; for a process without runners.

        Parameters
        ----------
        save : flushes a core, whose buffers outgrow memory: what is replayed is durable.
        """
        for step in self.steps():
            for core in cores:
                core.process(*step)
                if core.size_bytes > 2 * core.settings.buffer_bytes_max:
                    save(core)
        for core in cores:
            core.begin(self.last_seq)
            if self.saves:
                save(core)
        self.end()


class Backlog:
    """Stands between intake and runners: the replay goes first, what is delivered meanwhile waits behind it.

    Parameters
    ----------
    put : hands a record to all runners. wait_processed : (seq, timeout_s) waits until all are done with a record.
    begin : tells all runners, behind what they were handed, that the replay has ended.
    on_failed : told of a defect, which ends the engine.
    """

    def __init__(
        self,
        replay: Replay,
        put: Callable[[int, FrameBatch | Tick | Reflow], None],
        wait_processed: Callable[[int, float], bool],
        begin: Callable[[], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self._replay, self._put, self._wait_processed = replay, put, wait_processed
        self._begin, self._on_failed = begin, on_failed
        self._gate = threading.Lock()
        self._waiting: deque[Step] | None = None if replay.is_done else deque()
        self._stopping = threading.Event()
        self._handed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-replay", daemon=True)

    def start(self) -> None:
        """Start the replay, where there is one."""
        if self._waiting is None:
            self._handed.set()
        elif self._replay.is_done:
            self.release()
        else:
            self._thread.start()

    def deliver(self, seq: int, record: FrameBatch | Tick | Reflow) -> None:
        """The next record of the intake, to the runners or behind what is replayed."""
        with self._gate:
            if self._waiting is None:
                self._put(seq, record)
            else:
                self._waiting.append((seq, record))

    def wait_handed(self, timeout_s: float) -> bool:
        """Wait until everything was handed to the runners; False after `timeout_s`."""
        return self._handed.wait(timeout_s)

    def stop(self) -> None:
        """End the replay where it is: what is left is in the journal. May be called twice, and before `start`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            ahead: deque[tuple[int, int]] = deque()
            n_ahead = 0
            for seq, record in self._replay.steps():
                self._put(seq, record)
                n_values = record.n_values if isinstance(record, FrameBatch) else 1
                ahead.append((seq, n_values))
                n_ahead += n_values
                while n_ahead > AHEAD_VALUES_MAX and ahead:
                    if self._stopping.is_set():
                        return
                    if self._wait_processed(ahead[0][0], _LOOK_S):
                        n_ahead -= ahead.popleft()[1]
                if self._stopping.is_set():
                    return
            self._begin()
            self.release()
        except Exception as e:  # a defect, or a journal that can't be read any more
            self._on_failed(e)

    def release(self) -> None:
        """Let through what waits, and from now on everything at once."""
        with self._gate:
            for step in self._waiting or ():
                self._put(*step)
            self._waiting = None
        self._handed.set()
