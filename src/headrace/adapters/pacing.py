"""How fast connections are made: after a power cut a thousand devices come back together.

Back-off with jitter spreads the attempts of one device; it does not bound what all of them do at once. A gateway, a
radio link or a firewall that meets a thousand connections in a second drops most of them, and then the next second's.
So whoever makes connections asks for its turn first. The rate is one for the plant: its adapters are given one
`ConnectPacer` in `headrace.adapters.base.PlantFacts`.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from headrace.adapters.meters import fraction, seconds
from headrace.core.clock import NS, SystemClock, monotonic_ns

CONNECTS_PER_S = 200.0
BURST = 64


class ConnectPacer:
    """Gives turns at a bounded rate, in the order in which they are asked for.

    Its time is the computer's, whatever the plant's clock does: it is a wire that is spared.

    Parameters
    ----------
    per_s : turns a second in the long run. burst : turns that are given at once after a quiet time.
    """

    def __init__(self, per_s: float = CONNECTS_PER_S, burst: int = BURST) -> None:
        self.per_s, self.burst = per_s, burst
        self._gap_ns = round(NS / per_s)
        self._taken_to_ns = 0
        self._n_waited = 0
        self._queue = asyncio.Lock()

    def reserve_ns(self, now_ns: int) -> int:
        """Take the next turn: for how long to wait for it, with jitter of one gap."""
        earliest_ns = now_ns - self.burst * self._gap_ns
        self._taken_to_ns = max(self._taken_to_ns, earliest_ns) + self._gap_ns
        if self._taken_to_ns <= now_ns:
            return 0
        self._n_waited += 1
        jitter_ns = int(self._gap_ns * fraction(f"turn {self._n_waited}"))
        return max(0, self._taken_to_ns - now_ns - jitter_ns)

    async def turn(self) -> None:
        """Wait for the next turn."""
        # One waits for the time and the others for the one, so that a process that stood still has no debts to pay.
        async with self._queue:
            wait_ns = self.reserve_ns(monotonic_ns())
            if wait_ns:
                await SystemClock().sleep(seconds(wait_ns))


class ConnectGate:
    """Lets in whoever has its turn, and no more than `n_max` at a time: ``async with gate: connect``."""

    def __init__(self, pacer: ConnectPacer, n_max: int) -> None:
        self._pacer = pacer
        self._free = asyncio.Semaphore(n_max)

    async def __aenter__(self) -> None:
        await self._pacer.turn()
        await self._free.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free.release()
