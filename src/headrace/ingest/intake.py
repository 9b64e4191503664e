"""The intake on the event loop: the sink that adapters emit to.

Emit waits for credit, hands the batch to the `IntakeCore`, and returns. Small batches linger up to 20 ms for
each other; the writer's thread makes them durable; acks then run on the event loop. While the disk refuses,
sources are taken until the credit is used up, then they wait; the process keeps running and goes on by itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from headrace.adapters.base import Ack
from headrace.core.clock import NS, Clock
from headrace.core.errors import Closed
from headrace.core.events import Event, Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory
from headrace.ingest.intake_core import IntakeCore, credit_of
from headrace.ingest.writer import JournalWriter


class IntakeState(StrEnum):
    """How the intake is."""

    STOPPED = "stopped"
    RUNNING = "running"
    REFUSED = "refused"  # the disk refuses, or the journal has reached its bound; tried again
    FAILED = "failed"  # another owner, or a defect: this process must end


@dataclass(frozen=True, slots=True)
class IntakeStatus:
    """The intake at a glance; `reason` is a sentence where the state is not running."""

    state: IntakeState
    reason: str
    n_in_flight: int
    utilisation: float
    n_waiting: int
    durable_seq: int
    journal_bytes: int


class Intake:
    """A `Sink` over an `IntakeCore`. All methods but `processed` belong to the thread of the event loop.

    Parameters
    ----------
    on_event : told once when the disk begins to refuse, and once when it takes again.
    on_failed : told once, with `Fenced` or a defect, when nothing can be taken any more.
    """

    def __init__(
        self,
        core: IntakeCore,
        *,
        on_event: Callable[[Event], None] | None = None,
        on_failed: Callable[[Exception], None] | None = None,
    ) -> None:
        self.core = core
        self._on_event, self._on_failed = on_event, on_failed
        self._state = IntakeState.STOPPED
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._lock = threading.Lock()
        self._processed_seq = 0
        self._is_settling = False
        self._writer = JournalWriter(
            core.journal,
            lambda _: self._from_thread(self._durable),
            lambda _: self._from_thread(self._watch),
            lambda error: self._from_thread(self._fail, error),
            retry_s_min=core.settings.retry_s_min,
            retry_s_max=core.settings.retry_s_max,
        )

    # --- the sink ------------------------------------------------------------------------------------

    @property
    def directory(self) -> SensorDirectory:
        """Where groups are defined."""
        return self.core.directory

    @property
    def clock(self) -> Clock:
        """The plant's time."""
        return self.core.clock

    async def emit(self, batch: FrameBatch, ack: Ack | None = None) -> None:
        """Take a batch; waits for credit.

        Raises
        ------
        Closed, Fenced : the intake has ended; nothing was taken.
        PluginError : the batch does not fit the directory; nothing was taken.
        """
        await self._credit(credit_of(batch))
        self._taken(self.core.accept(batch, ack))

    async def reject(self, reject: Reject, ack: Ack | None = None) -> None:
        """Take refused input; waits for credit.

        Raises
        ------
        Closed, Fenced : the intake has ended; nothing was taken.
        """
        await self._credit(credit_of(reject))
        self._taken(self.core.accept_reject(reject, ack))

    def has_credit(self, n_samples: int) -> bool:
        """Whether `n_samples` would be taken without waiting."""
        return self._is_taking and self.core.credits.has(n_samples)

    @property
    def _is_taking(self) -> bool:
        return self._state in (IntakeState.RUNNING, IntakeState.REFUSED)

    async def _credit(self, n: int) -> None:
        self._check()
        await self.core.credits.acquire(n)
        try:
            self._check()
        except Exception:
            self.core.credits.give(n)
            raise

    def _check(self) -> None:
        if not self._is_taking:
            raise self._failure or Closed("the intake is stopped")

    def _taken(self, is_due: bool) -> None:
        """Flush at once, or when what waits has lingered long enough."""
        if is_due:
            self._flush()
        if self._timer is None:
            assert self._loop is not None
            self._timer = self._loop.call_later(self.core.settings.linger_s, self._lingered)

    def _lingered(self) -> None:
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        self._guarded(self.core.flush)
        self._writer.wake()

    def _guarded(self, call: Callable[[], object]) -> None:
        """Run a step of the core; an error of it (`Fenced`, a defect of the engine) ends the intake."""
        try:
            call()
        except Exception as e:
            self._fail(e)

    # --- life ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to take; once."""
        self._loop = asyncio.get_running_loop()
        self._state = IntakeState.RUNNING
        self._writer.start()
        self._ticker = self._loop.create_task(self._tick(), name="ticks")

    async def drain(self) -> None:
        """Wait until all that was taken is durable and its acks have been called.

        Raises
        ------
        Fenced : it never will be.
        """
        while True:
            self._flush()
            if self._failure is not None:
                raise self._failure
            journal = self.core.journal
            if not self.core.has_waiting and journal.durable_seq >= journal.last_seq:
                self._settle()
                return
            self._changed.clear()
            await self._changed.wait()

    async def stop(self) -> None:
        """Take no more, write once more what was taken, end the thread. May be called twice, or before `start`."""
        if self._loop is None:
            return
        if self._is_taking:
            self._flush()
        if self._is_taking:
            self._state = IntakeState.STOPPED
            self.core.credits.fail(Closed("the intake is stopped"))
        for pending in (self._ticker, self._timer):
            if pending is not None:
                pending.cancel()
        self._ticker = self._timer = None
        await asyncio.to_thread(self._writer.stop)
        self._settle()

    async def _tick(self) -> None:
        tick_ns = self.core.settings.tick_ns
        while True:
            await self.clock.sleep((tick_ns - self.clock.now_ns() % tick_ns) / NS)
            self._guarded(self.core.tick)
            self._writer.wake()

    def fail(self, error: Exception) -> None:
        """End it from outside: nothing more is taken, nothing more acknowledged. Any thread, once started."""
        self._from_thread(self._fail, error)

    def wait_durable(self, seq: int, timeout_s: float = 60.0) -> bool:
        """Wait until the journal holds record `seq`; False after `timeout_s`. Any thread but the event loop's."""
        return self._writer.wait(seq, timeout_s)

    @property
    def writer_cpu_ns(self) -> int:
        """CPU time that the journal's writer has used."""
        return self._writer.cpu_ns

    # --- what comes back -----------------------------------------------------------------------------

    def processed(self, seq: int) -> None:
        """Tell that the engine is done with all records up to `seq`. Any thread; cheap."""
        with self._lock:
            self._processed_seq = max(seq, self._processed_seq)
            if self._is_settling or self._loop is None:
                return
            self._is_settling = True
        self._from_thread(self._settle)

    def _from_thread(self, call: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            pass  # the event loop has ended, and with it everybody who could be told

    def _settle(self) -> None:
        with self._lock:
            self._is_settling = False
            seq = self._processed_seq
        self.core.processed(seq)
        if self._failure is None:
            assert self._loop is not None
            for ack in self.core.settle():
                try:
                    ack()
                except Exception as e:  # one source's defect must not keep the others waiting
                    self._loop.call_exception_handler(
                        {"message": "an acknowledgement failed", "exception": e}
                    )
        self._changed.set()

    def _durable(self) -> None:
        self._settle()
        if self.core.has_waiting and self._timer is None and self._is_taking:
            self._flush()
        self._watch()

    def _watch(self) -> None:
        """Tell, once, that the disk refuses or takes again."""
        text = self.core.refusal
        if text and self._state is IntakeState.RUNNING:
            self._state = IntakeState.REFUSED
            self._tell("journal.refused", text)
        elif not text and self._state is IntakeState.REFUSED:
            self._state = IntakeState.RUNNING
            self._tell("journal.recovered", "the journal takes data again; nothing that was taken is lost")

    def _tell(self, kind: str, text: str) -> None:
        if self._on_event is not None:
            self._on_event(Event(self.clock.now_ns(), kind, text))

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._state = IntakeState.FAILED
            self.core.credits.fail(error)
            self._changed.set()
            if self._on_failed is not None:
                self._on_failed(error)

    def status(self) -> IntakeStatus:
        """The present state."""
        core = self.core
        reason = str(self._failure) if self._failure is not None else core.refusal
        return IntakeStatus(
            self._state,
            reason,
            core.n_in_flight,
            core.credits.utilisation,
            core.credits.n_waiting,
            core.journal.durable_seq,
            core.journal.size_bytes,
        )
