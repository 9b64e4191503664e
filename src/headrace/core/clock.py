"""Time is handed in: every part that needs it takes a `Clock`.

`SystemClock` is the wall; `ScaledClock` runs K times faster (a factory week in an hour); `VirtualClock`
stands still until a test moves it. This is the only module that may read the computer's clocks or sleep.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Protocol

NS = 1_000_000_000
NO_TIME = -(2**63)
"""Marks a time that the source did not give (int64 minimum)."""


class Clock(Protocol):
    """Where a part takes its time from."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970 UTC, as this clock tells them."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of this clock's time."""
        ...


class SystemClock:
    """The computer's own clock."""

    def now_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ScaledClock:
    """A clock that starts at `start_ns` and runs `speed` times as fast as the computer's.

    Parameters
    ----------
    speed : plant seconds a real second, > 0.
    start_ns : plant time at the start; default: the present.
    """

    def __init__(self, speed: float, start_ns: int | None = None) -> None:
        if speed <= 0:
            raise ValueError(f"speed must be above 0, got {speed}")
        self.speed = speed
        self._real_ns = time.monotonic_ns()
        self._start_ns = time.time_ns() if start_ns is None else start_ns

    def now_ns(self) -> int:
        return self._start_ns + int((time.monotonic_ns() - self._real_ns) * self.speed)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)


class VirtualClock:
    """A clock that moves only when told; sleepers wake in the order of their due times."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._n_sleepers = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ns(self) -> int:
        return self._now_ns

    def advance(self, seconds: float) -> None:
        """Move on by `seconds` and wake whoever is due."""
        self.set_ns(self._now_ns + round(seconds * NS))

    def set_ns(self, now_ns: int) -> None:
        """Move to `now_ns` (backwards too: device clocks do) and wake whoever is due."""
        self._now_ns = now_ns
        while self._sleepers and self._sleepers[0][0] <= now_ns:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due_ns = self._now_ns + round(seconds * NS)
        self._n_sleepers += 1
        heapq.heappush(self._sleepers, (due_ns, self._n_sleepers, future))
        await future


def cpu_ns() -> int:
    """CPU time of this process (all threads, kernel included), for measurements only."""
    return time.process_time_ns()


def thread_cpu_ns() -> int:
    """CPU time of the calling thread, for measurements only."""
    return time.thread_time_ns()


def monotonic_ns() -> int:
    """Elapsed real time, for measurements and deadlines of real I/O only."""
    return time.monotonic_ns()
