"""A TCP proxy that does to a connection what networks and tired devices do: for tests of adapters.

It stands between an adapter and its peer and forwards bytes. Each way has one *fault*, which can be changed at any
moment, also while connections stand::

    proxy = FaultProxy(("127.0.0.1", 502))
    await proxy.start()
    ...                                  # the adapter is made to talk to proxy.address
    proxy.to_client = Cut(after=5)       # the peer's next answer ends in its middle
    await until(lambda: proxy.n_connections == 2, "a new connection")
    proxy.heal()                         # forward again

A fault sees the bytes in chunks as they were read: usually a frame each, which TCP does not promise. What a fault
does once (`Cut`, `Duplicate`, ...) it does `times` times, on whatever connection comes first, and forwards after that.
Chance has the proxy's seed, so a run can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Protocol

import numpy as np

from headrace.core.clock import Clock, SystemClock, monotonic_ns

CHUNK_BYTES = 64 << 10
_CONNECT_S = 5.0
_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER of a connection that ends with a reset and not in order."""


class Way:
    """One direction of one connection, as a fault sees it."""

    def __init__(self, link: _Link, writer: asyncio.StreamWriter, chance: np.random.Generator) -> None:
        self._link = link
        self._writer = writer
        self.chance = chance
        self.is_dead = False
        """Nothing gets through any more, and nobody is told."""
        self.held: list[bytes] = []
        """What a fault keeps back for now."""

    async def send(self, data: bytes) -> None:
        """Forward bytes; on a dead way they are lost.

        Raises
        ------
        ConnectionResetError : the other side is gone; the rest of what came need not be sent.
        """
        if data and not self.is_dead:
            if self._writer.is_closing():
                raise ConnectionResetError
            self._writer.write(data)
            with contextlib.suppress(OSError):
                await self._writer.drain()

    def cut(self) -> None:
        """End the connection at once, both ways, as a reset: what was not delivered is lost."""
        self._link.cut()

    async def wait(self, duration_s: float) -> None:
        """Let time pass; whatever comes meanwhile waits behind."""
        await self._link.clock.sleep(duration_s)


class WireFault(Protocol):
    """What happens to bytes on their way."""

    async def forward(self, data: bytes, way: Way) -> None:
        """Take the next chunk: send it, or less, or more, or later, or not at all."""
        ...


class Forward:
    """Forwards what comes."""

    async def forward(self, data: bytes, way: Way) -> None:
        await way.send(data)


class Cut:
    """Forwards `after` bytes, then ends the connection; `times` connections, one after the other."""

    def __init__(self, after: int, times: int = 1) -> None:
        self.after, self.times = after, times
        self._left = after

    async def forward(self, data: bytes, way: Way) -> None:
        if not self.times or len(data) <= self._left:
            self._left -= len(data) if self.times else 0
            await way.send(data)
            return
        self.times -= 1
        await way.send(data[: self._left])
        self._left = self.after
        way.cut()


class Silence:
    """Forwards `after` bytes and from then on nothing, while the connection stays open, until it is closed.

    That is what a peer does that has lost its power: it takes nothing, answers nothing and says no good-bye. A way that
    once fell silent stays so after `FaultProxy.heal`: what it has lost can't come again.
    """

    def __init__(self, after: int = 0) -> None:
        self.after = after

    async def forward(self, data: bytes, way: Way) -> None:
        await way.send(data[: self.after])
        self.after = max(0, self.after - len(data))
        way.is_dead = way.is_dead or self.after == 0


class Hold:
    """Keeps everything back until the proxy is healed or another fault is set; then it all comes, in order."""

    async def forward(self, data: bytes, way: Way) -> None:
        way.held.append(data)


class Late:
    """Delivers `times` chunks only after `hold_s`, as the answer that comes after its time-out; the rest waits behind."""

    def __init__(self, hold_s: float, times: int = 1) -> None:
        self.hold_s, self.times = hold_s, times

    async def forward(self, data: bytes, way: Way) -> None:
        if self.times:
            self.times -= 1
            await way.wait(self.hold_s)
        await way.send(data)


class Slow:
    """Takes `delay_s` for each chunk, and no more than `bytes_per_s` (0: as fast as it goes)."""

    def __init__(self, delay_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        self.delay_s, self.bytes_per_s = delay_s, bytes_per_s

    async def forward(self, data: bytes, way: Way) -> None:
        await way.wait(self.delay_s)
        if not self.bytes_per_s:
            await way.send(data)
            return
        step = max(1, int(self.bytes_per_s / 50))
        for at in range(0, len(data), step):
            await way.send(data[at : at + step])
            await way.wait(step / self.bytes_per_s)


class Split:
    """Sends pieces of `size` bytes, each by itself."""

    def __init__(self, size: int = 1) -> None:
        self.size = size

    async def forward(self, data: bytes, way: Way) -> None:
        for at in range(0, len(data), self.size):
            await way.send(data[at : at + self.size])
            for _ in range(3):  # a reader in the same event loop gets its turn
                await way.wait(0)


class Coalesce:
    """Gathers what comes in `hold_s` and sends it in one piece."""

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s

    async def forward(self, data: bytes, way: Way) -> None:
        # What arrives meanwhile waits in the socket and is read as one chunk.
        await way.wait(self.hold_s)
        await way.send(data)


class Duplicate:
    """Sends `times` chunks twice."""

    def __init__(self, times: int = 1) -> None:
        self.times = times

    async def forward(self, data: bytes, way: Way) -> None:
        await way.send(data)
        if self.times:
            self.times -= 1
            await way.send(data)


class Reorder:
    """Exchanges a chunk with the one that follows it, `times` times."""

    def __init__(self, times: int = 1) -> None:
        self.times = times

    async def forward(self, data: bytes, way: Way) -> None:
        if self.times and not way.held:
            self.times -= 1
            way.held.append(data)
            return
        await way.send(data)
        first, way.held = b"".join(way.held), []
        await way.send(first)


class Garbage:
    """Puts bytes before `times` chunks: those given, or so many that chance chooses."""

    def __init__(self, what: bytes | int = 64, times: int = 1) -> None:
        self.what, self.times = what, times

    async def forward(self, data: bytes, way: Way) -> None:
        if self.times:
            self.times -= 1
            await way.send(self.what if isinstance(self.what, bytes) else way.chance.bytes(self.what))
        await way.send(data)


class Rewrite:
    """Sends what `change` makes of `times` chunks: a length that is absurd, bytes that are left out."""

    def __init__(self, change: Callable[[bytes], bytes], times: int = 1) -> None:
        self.change, self.times = change, times

    async def forward(self, data: bytes, way: Way) -> None:
        if self.times:
            self.times -= 1
            data = self.change(data)
        await way.send(data)


def truncate(n_bytes: int, times: int = 1) -> Rewrite:
    """The fault that leaves out the last `n_bytes` of `times` chunks, and keeps the connection."""
    return Rewrite(lambda data: data[:-n_bytes], times)


class _Link:
    """One connection of a client and its way on to the peer."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._writers = [writer]
        self.clock = proxy.clock
        self.ways: list[tuple[Way, str]] = []

    def cut(self) -> None:
        for writer in self._writers:
            own = writer.transport.get_extra_info("socket")
            if own.fileno() >= 0:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            writer.transport.abort()

    async def run(self) -> None:
        reader, writer = self._client
        try:
            async with asyncio.timeout(_CONNECT_S):
                peer = await asyncio.open_connection(*self._proxy.target)
        except (OSError, TimeoutError):
            self.cut()  # nobody is there: the client is told as it would be by a gateway
            return
        self._writers.append(peer[1])
        chance = np.random.default_rng((self._proxy.seed, self._proxy.n_connections))
        there, back = Way(self, peer[1], chance), Way(self, writer, chance)
        self.ways = [(there, "to_peer"), (back, "to_client")]
        pumps = [
            asyncio.ensure_future(self._pump(reader, there, "to_peer")),
            asyncio.ensure_future(self._pump(peer[0], back, "to_client")),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.cut()
            for one in self._writers:
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, way: Way, name: str) -> None:
        """Forward one way until its end; a silent way keeps the other side in the belief that all is well."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                self._proxy.n_bytes[name] += len(data)
                await self.fault(name).forward(data, way)
        await self.release(way)
        if not way.is_dead or way is not self.ways[1][0]:
            for writer in self._writers:
                writer.close()

    def fault(self, name: str) -> WireFault:
        """What is set for that way at the moment."""
        found: WireFault = getattr(self._proxy, name)
        return found

    async def release(self, way: Way) -> None:
        """Send what was kept back."""
        held, way.held = way.held, []
        with contextlib.suppress(OSError):
            await way.send(b"".join(held))


class FaultProxy:
    """Forwards TCP connections to a peer, with faults on the way.

    Parameters
    ----------
    target : host and port of the peer. port : to listen on; 0 takes a free one, which stays the same over restarts.
    seed : of chance.

    Attributes
    ----------
    to_peer, to_client : the fault of either way.
    n_connections : accepted so far; accepted_ns : when each of them was, by the monotonic clock.
    n_bytes : read so far, by the name of the way.
    """

    def __init__(
        self,
        target: tuple[str, int],
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.target = target
        self.host, self.port = host, port
        self.seed = seed
        self.clock: Clock = clock or SystemClock()
        self._faults: dict[str, WireFault] = {"to_peer": Forward(), "to_client": Forward()}
        self.n_connections = 0
        self.accepted_ns: list[int] = []
        self.n_bytes = {"to_peer": 0, "to_client": 0}
        self._server: asyncio.Server | None = None
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._releasing: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to which the adapter has to talk."""
        return self.host, self.port

    @property
    def n_open(self) -> int:
        """Connections that stand."""
        return len(self._links)

    @property
    def to_peer(self) -> WireFault:
        """What happens to what the adapter sends."""
        return self._faults["to_peer"]

    @to_peer.setter
    def to_peer(self, fault: WireFault) -> None:
        self._set("to_peer", fault)

    @property
    def to_client(self) -> WireFault:
        """What happens to what the peer sends."""
        return self._faults["to_client"]

    @to_client.setter
    def to_client(self, fault: WireFault) -> None:
        self._set("to_client", fault)

    def _set(self, name: str, fault: WireFault) -> None:
        self._faults[name] = fault
        for link in self._links:
            for way, its_name in link.ways:
                if its_name == name and way.held:
                    task = asyncio.ensure_future(link.release(way))
                    self._releasing.add(task)
                    task.add_done_callback(self._releasing.discard)

    def heal(self) -> None:
        """Forward again, both ways; what was held comes now. Connections that fell silent stay so."""
        self.to_peer = self.to_client = Forward()

    def cut(self) -> None:
        """End every connection that stands, as a reset."""
        for link in self._links:
            link.cut()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more and end every connection. May be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        tasks = list(self._links.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        self.accepted_ns.append(monotonic_ns())
        link, task = _Link(self, reader, writer), asyncio.current_task()
        assert task is not None
        self._links[link] = task
        try:
            await link.run()
        except asyncio.CancelledError:
            link.cut()  # `stop` waits for it; the server must not report it
        finally:
            del self._links[link]
