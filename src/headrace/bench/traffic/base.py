"""The contract of traffic: a peer that sends to an adapter, a bare client of its protocol, and payloads to decode.

The bare client is what one would write without Headrace: the protocol's usual library and a good parser, which takes
what comes and throws it away. The peer runs in a process of its own, so that its CPU is not counted.

To measure another adapter, write one module like `headrace.bench.traffic.mqtt` and name it in
`headrace.bench.adapters.TRAFFIC`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any, Protocol, runtime_checkable

from headrace.adapters.base import Ack, Adapter, PlantFacts
from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import HeadraceError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

FACTS = PlantFacts(("site", "line", "device", "signal"))
_CALL_S, _END_S = 60.0, 5.0


class Traffic(Protocol):
    """One adapter's traffic: feeds of `n_samples` each, whose times go on from feed to feed.

    Attributes
    ----------
    name : the adapter's protocol. n_samples : of one feed. n_feeds : of a long run, which a plant takes to tell
    what a sample costs from what a plant costs.
    reference : the bare client and parser, in words. libraries : what they import → the package to install.
    """

    name: str
    n_samples: int
    n_feeds: int
    reference: str
    libraries: Mapping[str, str]

    async def up(self) -> None:
        """Start what sends."""
        ...

    async def down(self) -> None:
        """End it."""
        ...

    def adapter(self, n_feeds: int = 1) -> Adapter:
        """A new adapter for so many feeds, not started."""
        ...

    async def send(self, adapter: Adapter | None, n_feeds: int = 1) -> None:
        """Have the peer send so many feeds, once the adapter, or the bare client where there is none, is there."""
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


@runtime_checkable
class WholeWay(Traffic, Protocol):
    """Traffic whose messages are also taken their whole way, from the bytes of a connection on.

    For protocols with a message for few values, where most is done for each message, not for its payload.
    """

    def way(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        """Takes bytes to frames that the sink has, and to acknowledgements."""
        ...

    def bare_way(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        """Takes the same bytes to values and acknowledgements, as the bare client does."""
        ...


def missing_packages(libraries: Mapping[str, str]) -> list[str]:
    """The packages of those libraries that are not installed."""

    def is_there(library: str) -> bool:
        try:
            return find_spec(library) is not None
        except ModuleNotFoundError:  # of what it is a part
            return False

    return [package for library, package in libraries.items() if not is_there(library)]


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


class _Trouble:
    """Why a peer has failed; its answer instead of a result."""

    def __init__(self, text: str) -> None:
        self.text = text


class Peer:
    """A process that does what it is asked to: ``work(pipe)`` receives words and answers each when it is done."""

    def __init__(self, work: Callable[..., None], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_working, args=(theirs, work, args), daemon=True)
        self._process.start()
        theirs.close()

    async def ask(self, *words: Any) -> Any:
        """Say something, wait for the answer.

        Raises
        ------
        HeadraceError : the process has failed, or does not answer within a minute; the text says why.
        """
        return await asyncio.to_thread(self._ask, words)

    def _ask(self, words: tuple[Any, ...]) -> Any:
        try:
            self._pipe.send(words)
        except OSError:
            pass  # it has ended; what it said last is there to read
        try:
            if not self._pipe.poll(_CALL_S):
                raise HeadraceError(f"the benchmark's peer does not answer within {_CALL_S:g} s")
            answer = self._pipe.recv()
        except (EOFError, OSError) as e:
            self._process.join(_END_S)
            raise HeadraceError(f"the benchmark's peer has ended, exit {self._process.exitcode}") from e
        if isinstance(answer, _Trouble):
            raise HeadraceError(f"the benchmark's peer failed: {answer.text}")
        return answer

    async def end(self) -> None:
        """End it."""
        self._process.terminate()
        await asyncio.to_thread(self._process.join, _END_S)
        self._pipe.close()


def _working(pipe: Connection, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    """The peer's process: whatever it fails of, it says."""
    try:
        work(pipe, *args)
    except Exception as e:
        pipe.send(_Trouble(f"{type(e).__name__}: {e}"))
