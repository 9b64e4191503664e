"""The thread that makes the journal durable, so that nobody else waits for the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable

from headrace.core.clock import monotonic_ns, thread_cpu_ns
from headrace.core.errors import StorageError
from headrace.ingest.journal import Journal


class JournalWriter:
    """Syncs the journal whenever it is woken; what is appended meanwhile goes with the next sync.

    Parameters
    ----------
    on_durable : called in the writer's thread with the durable seq after each sync.
    on_refused : called in the writer's thread with a sentence, each time the disk refuses; it is tried again
        with back-off from `retry_s_min` to `retry_s_max`.
    on_failed : called in the writer's thread before it ends: `Fenced`, or a defect.
    """

    def __init__(
        self,
        journal: Journal,
        on_durable: Callable[[int], None],
        on_refused: Callable[[str], None],
        on_failed: Callable[[Exception], None],
        *,
        retry_s_min: float = 0.25,
        retry_s_max: float = 5.0,
    ) -> None:
        self.cpu_ns = 0
        """CPU time that the thread has used: compressing, checksums, writing."""
        self._journal = journal
        self._on_durable, self._on_refused, self._on_failed = on_durable, on_refused, on_failed
        self._retry_s_min, self._retry_s_max = retry_s_min, retry_s_max
        self._changed = threading.Condition()
        self._is_woken = self._is_stopping = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Something was appended: sync soon. Cheap; any thread."""
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def wait(self, seq: int, timeout_s: float) -> bool:
        """Wait until `seq` is durable; False where that took longer, or the writer has failed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._journal.durable_seq >= seq or self._error is not None, timeout_s
            )
            return self._journal.durable_seq >= seq

    def stop(self) -> None:
        """Sync once more and end; may be called twice, or without `start`."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        retry_s = 0.0
        while True:
            is_last = self._pause(retry_s)
            try:
                durable_seq = self._journal.sync()
            except StorageError as e:
                retry_s = min(max(2 * retry_s, self._retry_s_min), self._retry_s_max)
                self._on_refused(str(e))
            except Exception as e:
                self._note(e)
                self._on_failed(e)
                return
            else:
                retry_s = 0.0
                self._note(None)
                self._on_durable(durable_seq)
            if is_last:
                return

    def _pause(self, retry_s: float) -> bool:
        """Wait for work, or for the next attempt; whether it is the last."""
        until_ns = monotonic_ns() + int(retry_s * 1e9)
        with self._changed:
            if retry_s:
                while not self._is_stopping and (rest_ns := until_ns - monotonic_ns()) > 0:
                    self._changed.wait(rest_ns / 1e9)
            else:
                self._changed.wait_for(lambda: self._is_woken or self._is_stopping)
            self._is_woken = False
            return self._is_stopping

    def _note(self, error: Exception | None) -> None:
        with self._changed:
            self.cpu_ns = thread_cpu_ns()
            self._error = error
            self._changed.notify_all()
