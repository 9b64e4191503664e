"""The contract of traffic: a peer that sends to an adapter, a bare client of its protocol, and payloads to decode.

The bare client is what one would write without Headrace: the protocol's usual library and a good parser, which takes
what comes and throws it away. The peer runs in a process of its own, so that its CPU is not counted.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

from headrace.adapters.base import Ack, Adapter, PlantFacts
from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import HeadraceError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

FACTS = PlantFacts(("site", "line", "device", "signal"))
_CALL_S = 60.0
T = TypeVar("T")


class Traffic(Protocol):
    """One adapter's traffic.

    Attributes
    ----------
    name : the adapter's protocol. n_samples : of one run. reference : the bare client and parser, in words.
    """

    name: str
    n_samples: int
    reference: str

    async def up(self) -> None:
        """Start what sends."""
        ...

    async def down(self) -> None:
        """End it."""
        ...

    def adapter(self) -> Adapter:
        """A new adapter for it, not started."""
        ...

    async def send(self, adapter: Adapter | None) -> None:
        """Have the peer send `n_samples`, once the adapter, or the bare client where there is none, is there."""
        ...

    async def bare(self, count: Count) -> None:
        """Take what comes with the bare client, until `count` is complete."""
        ...

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        """What there is to decode, and how many samples that is: 100 or more of each payload, or one."""
        ...

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        """Decodes them to frames, as the adapter does."""
        ...

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        """Parses them to values, as the bare client does."""
        ...


class Count:
    """Counts samples up to a number."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.n = wanted, 0
        self.complete = asyncio.Event()

    def add(self, n: int) -> None:
        """So many more."""
        self.n += n
        if self.n >= self.wanted:
            self.complete.set()


class NullSink:
    """Takes everything and keeps nothing; what is rejected is a fault of the benchmark."""

    def __init__(self, count: Count) -> None:
        self.directory = SensorDirectory()
        self.clock: Clock = SystemClock()
        self._count = count

    async def emit(self, batch: FrameBatch, ack: Ack | None = None) -> None:
        """Count a batch; it counts as durable at once."""
        self._count.add(batch.n_samples)
        if ack is not None:
            asyncio.get_running_loop().call_soon(ack)

    async def reject(self, reject: Reject, ack: Ack | None = None) -> None:
        """Never. Raises HeadraceError."""
        raise HeadraceError(f"the benchmark's own traffic is refused: {reject.detail}")

    def has_credit(self, n_samples: int) -> bool:
        """Always."""
        return True


class Peer:
    """A process that does what it is asked to: ``work(pipe)`` receives words and answers each when it is done."""

    def __init__(self, work: Callable[..., None], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, *args), daemon=True)
        self._process.start()
        theirs.close()

    async def ask(self, *words: Any) -> Any:
        """Say something, wait for the answer.

        Raises
        ------
        HeadraceError : no answer within a minute, or the process has ended.
        """
        return await asyncio.to_thread(self._ask, words)

    def _ask(self, words: tuple[Any, ...]) -> Any:
        try:
            self._pipe.send(words)
            if self._pipe.poll(_CALL_S):
                return self._pipe.recv()
        except (EOFError, OSError) as e:
            raise HeadraceError(f"the benchmark's peer has ended: {e!r}") from e
        raise HeadraceError("the benchmark's peer does not answer")

    async def end(self) -> None:
        """End it."""
        self._process.terminate()
        await asyncio.to_thread(self._process.join, 5.0)
        self._pipe.close()


def serve(pipe: Connection, do: Callable[..., Any]) -> None:
    """The loop of a peer's process: each message is the arguments of `do`, whose result is the answer."""
    while True:
        try:
            words = pipe.recv()
        except EOFError:
            return
        pipe.send(do(*words))
