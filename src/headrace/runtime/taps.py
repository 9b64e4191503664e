"""Looking at what an adapter hands on, without slowing it.

`TappedSink` stands between an adapter and the intake. While nobody looks it costs one test a batch; a `Tap` keeps
references to the newest batches, drops the oldest where its reader is too slow, and says how many samples that
were. Turning frames into readings is the reader's work and not the adapter's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from headrace.adapters.base import Ack, Sink
from headrace.core.clock import Clock
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.paths import pattern_regex
from headrace.core.readings import Reading, readings
from headrace.core.sensors import SensorDirectory

TAPS_MAX = 16
_BATCHES_MAX = 64
_VALUES_MAX = 100_000


class Tap:
    """One reader's view of an adapter. All on the event loop.

    Parameters
    ----------
    pattern : of the paths that are wanted; ``**`` for all.

    Raises
    ------
    ConfigError : `pattern` is none.
    """

    def __init__(self, directory: SensorDirectory, pattern: str = "**") -> None:
        self._directory = directory
        self._regex = pattern_regex(pattern)
        self._all = pattern == "**"
        self._batches: deque[FrameBatch] = deque()
        self._n_values = 0
        self._come = asyncio.Event()
        self._is_closed = False
        self.n_skipped = 0
        """Samples that were not looked at since the last `read`."""

    def offer(self, batch: FrameBatch) -> None:
        """Take note of a batch; never waits."""
        self._batches.append(batch)
        self._n_values += batch.n_values
        while len(self._batches) > _BATCHES_MAX or (self._n_values > _VALUES_MAX and len(self._batches) > 1):
            dropped = self._batches.popleft()
            self._n_values -= dropped.n_values
            self.n_skipped += dropped.n_samples
        self._come.set()

    def close(self) -> None:
        """Let the reader end: the adapter is gone."""
        self._is_closed = True
        self._come.set()

    async def read(self, limit: int, wait_s: float) -> tuple[list[Reading], int] | None:
        """What came since the last call: at most `limit` readings, and how many samples were passed over.

        Nothing after `wait_s` without a batch; None once the adapter is gone.
        """
        try:
            async with asyncio.timeout(wait_s):
                await self._come.wait()
        except TimeoutError:
            return [], 0
        if self._is_closed and not self._batches:
            return None
        batches, self._batches = list(self._batches), deque()
        self._n_values = 0
        skipped, self.n_skipped = self.n_skipped, 0
        if not self._is_closed:
            self._come.clear()
        # In a thread: the event loop belongs to the adapters.
        found, passed = await asyncio.to_thread(self._look, batches, limit)
        return found, skipped + passed

    def _look(self, batches: list[FrameBatch], limit: int) -> tuple[list[Reading], int]:
        found: list[Reading] = []
        passed = 0
        for batch in batches:
            room = limit - len(found)
            some = readings(batch, self._directory, room) if room else []
            passed += batch.n_samples - len(some)
            found += some if self._all else [r for r in some if self._regex.fullmatch(r.path)]
        return found, passed


class TappedSink:
    """The sink of one adapter: the intake's, with taps. It stays when the adapter's instance is replaced."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.taps: list[Tap] = []

    @property
    def directory(self) -> SensorDirectory:
        """Where groups are defined."""
        return self._sink.directory

    @property
    def clock(self) -> Clock:
        """The plant's time."""
        return self._sink.clock

    def emit(self, batch: FrameBatch, ack: Ack | None = None) -> Coroutine[Any, Any, None]:
        """Take a batch; waits for credit."""
        for tap in self.taps:
            tap.offer(batch)
        return self._sink.emit(batch, ack)

    def reject(self, reject: Reject, ack: Ack | None = None) -> Coroutine[Any, Any, None]:
        """Take refused input."""
        return self._sink.reject(reject, ack)

    def has_credit(self, n_samples: int) -> bool:
        """Whether `n_samples` more would be taken without waiting."""
        return self._sink.has_credit(n_samples)
