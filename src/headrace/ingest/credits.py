"""Credits: how many samples may be on their way at once.

What is emitted takes credit and gives it back when the engine is done with it and it is durable. A source
that waits for credit is slowed; memory does not grow.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Credits:
    """A bounded number of samples in flight. Not thread-safe: one thread takes and gives.

    Parameters
    ----------
    limit : samples, > 0. A single batch larger than that is let through when nothing else is in flight.
    """

    def __init__(self, limit: int) -> None:
        if limit <= 0:
            raise ValueError(f"the credit limit must be above 0, got {limit}")
        self.limit = limit
        self.n_used = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def utilisation(self) -> float:
        """Used credit as a fraction of the limit; above 1 while an oversized batch passes."""
        return self.n_used / self.limit

    @property
    def n_waiting(self) -> int:
        """Takers that wait."""
        return len(self._waiters)

    def has(self, n: int) -> bool:
        """Whether `n` samples would be taken at once."""
        return not self._waiters and self._fits(n)

    def _fits(self, n: int) -> bool:
        return self.n_used + n <= self.limit or not self.n_used

    def take(self, n: int) -> None:
        """Take credit for `n` samples, whether there is any or not (`has` and `acquire` ask)."""
        self.n_used += n

    def give(self, n: int) -> None:
        """Give credit back; whoever has waited longest goes first."""
        self.n_used -= n
        while self._waiters and (self._waiters[0][1].done() or self._fits(self._waiters[0][0])):
            wanted, future = self._waiters.popleft()
            if not future.done():
                self.take(wanted)
                future.set_result(None)

    async def acquire(self, n: int) -> None:
        """Take credit for `n` samples, waiting in turn. A cancelled wait takes none."""
        if self.has(n):
            self.take(n)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((n, future))
        try:
            await future
        except asyncio.CancelledError:
            was_given = not future.cancelled() and future.exception() is None
            self.give(n if was_given else 0)
            raise

    def fail(self, error: Exception) -> None:
        """Let every waiter fail: nothing will be taken any more."""
        while self._waiters:
            _, future = self._waiters.popleft()
            if not future.done():
                future.set_exception(error)
