"""Idempotency keys: what became of requests that may come again.

A client that got no answer sends its request once more with the same key. If the first one is still under way the
second waits for it; if it has ended its answer is given again. Keys are remembered in memory, the newest ones.
"""

from __future__ import annotations

import asyncio

import xxhash

from headrace.adapters.base import Pushed, Receipt
from headrace.core.errors import HeadraceError, Rejected

Outcome = asyncio.Future[HeadraceError | Receipt]
"""What a request is answered, in time: a receipt where all of it is durable."""


class RecentKeys:
    """The last `n_max` keys and what became of their requests. One event loop."""

    def __init__(self, n_max: int) -> None:
        self._n_max = n_max
        self._known: dict[str, tuple[int, Outcome]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, pushed: Pushed) -> Outcome | None:
        """The outcome, there or to come, of the request that had this key; None where it is new.

        Raises
        ------
        Rejected : the key was used for another body.
        """
        known = self._known.get(pushed.key) if pushed.key else None
        if known is None:
            return None
        digest, outcome = known
        if digest != _digest(pushed):
            raise Rejected(
                f"idempotency key {pushed.key[:60]!r} came with another body before; use a new key for new data"
            )
        return outcome

    def begin(self, pushed: Pushed) -> Outcome:
        """Remember that a request is under way; the oldest key is forgotten for it."""
        outcome: Outcome = asyncio.get_running_loop().create_future()
        if pushed.key and self._n_max:
            if len(self._known) >= self._n_max:
                del self._known[next(iter(self._known))]
            self._known[pushed.key] = _digest(pushed), outcome
        return outcome

    def forget(self, pushed: Pushed) -> None:
        """The request was not taken; it may come again as a new one."""
        self._known.pop(pushed.key, None)


def _digest(pushed: Pushed) -> int:
    return xxhash.xxh3_64_intdigest(pushed.body)
