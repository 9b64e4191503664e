"""A host fed directly, in one thread, without adapters and event loop: for benchmarks and scripts.

Everything behind the feeding is what a plant runs: normalising, the journal and its writer's thread, the
runners and the committer (`headrace.runtime.host`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headrace.adapters.base import Ack
from headrace.core.clock import Clock
from headrace.core.disk import LocalDisk
from headrace.core.errors import StorageError
from headrace.core.frames import FrameBatch
from headrace.ingest.writer import JournalWriter
from headrace.pipeline.flows import FlowSpec
from headrace.runtime.host import Host, HostSettings

_WAIT_S = 600.0


class Pipe:
    """Feed frames in, find them in the store.

    Parameters
    ----------
    folder : the store; locked while the pipe is open. specs : the pipelines.

    Raises
    ------
    StorageError : the folder can't be used.
    """

    def __init__(
        self,
        folder: str | Path,
        specs: Sequence[FlowSpec],
        clock: Clock,
        settings: HostSettings | None = None,
    ) -> None:
        self.clock = clock
        self._disk = LocalDisk(folder)
        self._disk.lock()
        self._failure: Exception | None = None
        self.host = Host(
            self._disk,
            clock,
            specs,
            settings=settings or HostSettings(nonce=1),
            on_failed=self._failed,
        )
        self.directory, self.store, self._core = self.host.directory, self.host.store, self.host.core
        self._writer = JournalWriter(self.host.journal, lambda seq: None, lambda text: None, self._failed)
        self.host.wait_durable = self._writer.wait
        self.host.on_processed = self._core.processed
        self._writer.start()
        self.host.engine.start()

    def _failed(self, error: Exception) -> None:
        self._failure = self._failure or error

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def offer(self, batch: FrameBatch, ack: Ack | None = None) -> None:
        """Hand a batch in; waits while too much is in flight, so that memory stays bounded."""
        self._check()
        while not self._core.credits.has(batch.n_values):
            self._flush()
            self._writer.wait(self.host.journal.last_seq, _WAIT_S)
            self.host.engine.wait_processed(self.host.delivered_seq, _WAIT_S)
            self._settle()
            self._check()
        self._core.offer(batch, ack)
        self._flush()
        self._settle()

    def define(self) -> None:
        """Return when all groups defined so far are in the journal and in the store's directory."""
        self._core.define()
        self.drain()

    def tick(self) -> None:
        """Let the plant's time reach the shards: a tick record, if a second has passed."""
        self._core.tick()
        self._writer.wake()

    def _flush(self) -> None:
        if not self._core.flush():
            raise StorageError(self._core.refusal)
        self._writer.wake()

    def _settle(self) -> None:
        for ack in self._core.settle():
            ack()

    def wait_acknowledged(self) -> None:
        """Return when all that was offered is durable and acknowledged; the engine may be behind."""
        self._flush()
        self._writer.wait(self.host.journal.last_seq, _WAIT_S)
        self._settle()
        self._check()

    def drain(self) -> None:
        """Return when all that was offered is durable, stepped, committed and acknowledged."""
        self._flush()
        self._writer.wait(self.host.journal.last_seq, _WAIT_S)
        self.host.engine.wait_processed(self.host.delivered_seq, _WAIT_S)
        if not self.host.engine.flush(_WAIT_S):
            self._check()
            raise StorageError(
                self.host.engine.committer.counters.refusal or "the store was not written in time"
            )
        self._settle()
        self._check()

    def stages_ns(self) -> dict[str, int]:
        """CPU time of each stage so far, ns."""
        counters, flushed = self._core.counters, self.host.engine.committer.counters
        return {
            "normalise": counters.normalise_ns.total(),
            "journal": counters.record_ns + self._writer.cpu_ns,
            "pipeline": sum(core.counters.cpu_ns for core in self.host.engine.cores),
            "encode": flushed.encode_ns,
            "write": flushed.write_ns,
        }

    def close(self) -> None:
        """End the threads and unlock the folder."""
        self.host.engine.stop()
        self._writer.stop()
        self.host.journal.close()
        self._disk.unlock()
