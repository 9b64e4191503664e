"""Our session at a server: connect, subscribe or read, lose, come back, for ever.

What goes wrong stays where it is: a node that the server does not know is a problem of its tag and never of the batch
it was asked for in; a server that answers and publishes nothing is as lost as one that is gone. Three things tell:

* the connection is closed, or the server's state can't be read for as long as the url allows;
* no publish response comes, keep-alives among them, for longer than two keep-alive intervals;
* variables that are read now and then have changed, and the subscription does not tell (`verify`).
"""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from headrace.adapters.base import AdapterState
from headrace.adapters.meters import Backoff, seconds
from headrace.adapters.opcua.asking import Feed, SessionMeters
from headrace.adapters.opcua.client import ServiceFailed, UaConnection
from headrace.adapters.opcua.polling import Polling
from headrace.adapters.opcua.reader import Crew, Groups, Reader, SessionLink
from headrace.adapters.opcua.security import ServerAccess, ServerRefuses
from headrace.adapters.opcua.subscribing import Subscribing
from headrace.adapters.opcua.tags import TableChange
from headrace.adapters.pacing import ConnectGate
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError, NotConnected

PATIENCE_S = 0.1
"""How long a server that does not answer may keep others from connecting."""
_log = logging.getLogger("headrace.adapters.opcua")


class ServerSession:
    """Keeps one session up, and feeds the inbox.

    Parameters
    ----------
    groups : tags of the server by their interval in ns.
    gate : gives the turn to connect.
    """

    def __init__(
        self,
        name: str,
        access: ServerAccess,
        groups: Groups,
        feed: Feed,
        gate: ConnectGate,
        backoff: Backoff,
    ) -> None:
        self._name = name
        self.access = access
        self._groups = groups
        self._feed = feed
        self._clock = feed.sink.clock
        self._gate = gate
        self._backoff = backoff
        self._ended = asyncio.Event()
        self._end_reason = ""
        self._is_told = False
        self._closed_cpu_ns = self._closed_bytes = 0
        self._reader: Reader | None = None
        self._up_reader: Reader | None = None
        self._left: tuple[UaConnection, Reader] | None = None
        self._is_cut = False
        self._changing = asyncio.Lock()
        self._is_changing = False
        self.connection: UaConnection | None = None
        self.meters = SessionMeters()
        self.state = AdapterState.STARTING
        self.reason = ""
        self.since_ns = self._clock.now_ns()
        self.retry_ns = NO_TIME

    @property
    def transport_ns(self) -> int:
        """CPU of reading the socket, framing and decryption so far."""
        return self._closed_cpu_ns + (self.connection.cpu_ns if self.connection else 0)

    @property
    def n_bytes(self) -> int:
        """Bytes received so far."""
        return self._closed_bytes + (self.connection.n_bytes if self.connection else 0)

    @property
    def is_connected(self) -> bool:
        """Whether requests can be sent."""
        return self.state is AdapterState.CONNECTED

    async def run(self) -> None:
        """Stay connected until cancelled."""
        while True:
            self._ended.clear()
            self._is_cut = False
            before = None if self._left is None else self._left[0]
            connection = self.connection = UaConnection(self.access, self._cut, before)
            state = AdapterState.BACKOFF
            try:
                await self._live(connection)
                reason = self._end_reason
            except (ServerRefuses, ConfigError) as e:
                reason, state = str(e), AdapterState.FAILED
            except TimeoutError:
                reason = f"connected, but no answer within {self.access.timeout_s:g} s"
            except NotConnected as e:
                reason = self._end_reason if self._ended.is_set() else str(e)
            except ServiceFailed as e:
                reason = str(e)
            except Exception as e:
                _log.exception("adapter=%s server=%s: session failed", self._name, self.access.server)
                reason = f"internal error: {e!r}"
            reader, self._up_reader = self._up_reader, None
            is_cut = self._is_cut or connection.is_cut
            if reader is not None:
                self._left = (connection, reader) if is_cut and reader.can_resume else None
            elif self._left is not None and connection.is_resumed:
                # It got no further, but the server has it: what is to be signed next is told on the newest connection.
                self._left = (connection, self._left[1])
            await self.close(says_goodbye=self._left is None)
            _check_cancelled()
            self._lost(reason, state)
            await self._clock.sleep(seconds(max(0, self.retry_ns - self._clock.now_ns())))

    async def close(self, says_goodbye: bool = True) -> None:
        """Close the connection; see `UaConnection.close`."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self._closed_cpu_ns += connection.cpu_ns
            self._closed_bytes += connection.n_bytes
            await connection.close(says_goodbye)

    def drop(self, reason: str) -> None:
        """The connection is lost, or to be given up."""
        if not self._ended.is_set():
            self._end_reason = reason
            self._ended.set()

    def _cut(self, reason: str) -> None:
        """The wire is lost: the server may still have the session."""
        self._is_cut = True
        self.drop(reason)

    async def _live(self, connection: UaConnection) -> None:
        """One connection's life."""
        await self._open(connection)
        self.meters.n_connects += 1
        crew = Crew()
        link = SessionLink(
            self._name, self.access, connection, self._feed, self.meters, self.drop, crew, self._changing
        )
        try:
            async with self._changing:
                left, self._left = self._left, None
                if connection.is_resumed:
                    if left is None or not left[1].can_resume:
                        # Its subscriptions tell, by handles of old, of what are other variables by now.
                        raise NotConnected(
                            "the tags were changed while it was away; the session is made anew"
                        )
                    reader = self._reader = self._up_reader = left[1]
                    await reader.resume(link)
                else:
                    groups = self._groups
                    make = Polling if self.access.config.mode == "read" else Subscribing
                    reader = self._reader = make(link, groups)
                    await reader.prepare(groups)
            self._up_reader = reader
            self._up(reader.revised)
            for one in (*reader.work(), self._until_ended(crew)):
                crew.add(one)
            await crew.run()
        finally:
            self._reader = None

    async def _open(self, connection: UaConnection) -> None:
        """Connect in turn; a server that is slow to answer gives its place to the next one meanwhile."""
        async with self._gate:
            opening = asyncio.ensure_future(connection.open())
            await _await(opening, PATIENCE_S)
        await _await(opening)
        opening.result()

    async def _until_ended(self, crew: Crew) -> None:
        await self._ended.wait()
        crew.over.set()

    # --- other tags ----------------------------------------------------------------------------------

    def differs(self, change: TableChange, groups: Groups) -> bool:
        """Whether the server is to be asked for anything else than now; not only other numbers of the same."""
        wanted = np.array([tag for tags in groups.values() for tag in tags], np.int64)
        n_now = sum(len(tags) for tags in self._groups.values())
        banded = change.banded and not set(wanted.tolist()).isdisjoint(change.banded)
        return n_now != len(wanted) or not change.is_kept[wanted].all() or bool(banded)

    async def stage(self, change: TableChange, groups: Groups) -> None:
        """Ask the server for what it is not asked for yet; without a connection the next one does.

        Raises
        ------
        TimeoutError, ServiceFailed : it does not take it; `take_back` is to be called.
        """
        await self._changing.acquire()
        self._is_changing = True
        reader = self._reader
        if reader is not None:
            try:
                await reader.stage(change, groups)
            except NotConnected as e:
                reader.can_resume = False
                self.drop(str(e))

    async def take_back(self) -> None:
        """All is to be as it was before `stage`."""
        try:
            if self._reader is not None:
                await self._reader.take_back()
            elif self._left is not None and self._left[1].is_staged:
                self._left = None
        finally:
            self._release()

    def commit(self, access: ServerAccess, change: TableChange, groups: Groups) -> None:
        """The tags have become those of `change`: read them from now on."""
        self.access, self._groups, self._left = access, groups, None
        if self._reader is not None:
            self._reader.commit(change, groups)

    async def finish(self) -> None:
        """Let the server forget what is not read any more."""
        try:
            if self._reader is not None:
                await self._reader.finish()
        finally:
            self._release()

    def _release(self) -> None:
        if self._is_changing:
            self._is_changing = False
            self._changing.release()

    def _up(self, note: str) -> None:
        self._backoff.reset()
        self._enter(AdapterState.CONNECTED, "")
        if note:
            _log.info("adapter=%s server=%s %s", self._name, self.access.server, note)
        if self._is_told:
            self._is_told = False
            _log.info("adapter=%s server=%s is back", self._name, self.access.server)

    def _enter(self, state: AdapterState, reason: str) -> None:
        if state is not self.state:
            self.since_ns = self._clock.now_ns()
        self.state, self.reason = state, reason

    def _lost(self, reason: str, state: AdapterState) -> None:
        self._enter(state, reason)
        self.retry_ns = self._clock.now_ns() + self._backoff.next_ns()
        if not self._is_told:
            self._is_told = True
            _log.warning(
                "adapter=%s server=%s lost: %s; retrying until it answers",
                self._name,
                self.access.server,
                reason,
            )


async def _await(opening: asyncio.Future[None], timeout_s: float | None = None) -> None:
    """Wait for it; who is cancelled meanwhile ends at once, whatever the library makes of that."""
    try:
        await asyncio.wait([opening], timeout=timeout_s)
    except asyncio.CancelledError:
        opening.cancel()
        opening.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody asks any more
        raise


def _check_cancelled() -> None:
    """End a task that was cancelled and goes on: asyncio.wait_for of Python 3.11 forgets it at times, asyncua's among them."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
