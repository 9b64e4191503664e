"""Reading everything each interval: in bulk, on a grid of times, without overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from asyncua import ua

from headrace.adapters.meters import fraction, seconds
from headrace.adapters.opcua.asking import in_batches
from headrace.adapters.opcua.client import PackedParameters, PackedRead, packed_nodes
from headrace.adapters.opcua.messages import numbered, read_answer
from headrace.adapters.opcua.reader import Groups, Item, Reader, SessionLink, Staged
from headrace.adapters.opcua.tags import TableChange
from headrace.core.clock import NS, monotonic_ns, thread_cpu_ns
from headrace.core.errors import NotConnected, Rejected

N_SILENT_MAX = 3
"""Reads in a row without an answer after which the connection is made anew."""


@dataclass(slots=True, eq=False)
class ReadList:
    """Handles that are read together, and their nodes; ``packed``: those in bytes, by place and number."""

    handles: list[int] = field(default_factory=list)
    nodes: list[ua.NodeId] = field(default_factory=list)
    packed: dict[tuple[int, int], PackedParameters] = field(default_factory=dict)


class Polling(Reader):
    """Reads the variables of one connection, again and again."""

    def __init__(self, link: SessionLink, groups: Groups) -> None:
        super().__init__(link, groups)
        self._lists: dict[int, ReadList] = {}
        self._polled: set[int] = set()
        self._n_silent = 0
        self._asking = asyncio.Lock()

    async def _begin(self) -> None:
        self._list()

    def _list(self) -> list[int]:
        """What is read at each interval; lists that stay the same are kept. Intervals that are not polled yet."""
        lists: dict[int, ReadList] = {}
        for handle, item in self._items.items():
            some = lists.setdefault(item.interval_ns, ReadList())
            some.handles.append(handle)
            some.nodes.append(item.node)
        for interval_ns, new in lists.items():
            old = self._lists.get(interval_ns)
            if old is not None and old.handles == new.handles:
                lists[interval_ns] = old
        self._lists = lists
        new_intervals = [ns for ns in lists if ns not in self._polled]
        self._polled |= set(new_intervals)
        return new_intervals

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What is to be done at the same time, until the connection is lost; raises `NotConnected`."""
        return [self._poll(interval_ns) for interval_ns in self._lists]

    async def _ask_for(self, staged: Staged, change: TableChange, groups: Groups) -> None:
        """Nothing: a server is not told before of what will be read."""

    async def _undo(self, staged: Staged, items: Mapping[int, Item]) -> None:
        """Nothing, then."""

    def _renew(self, staged: Staged) -> None:
        """Nothing: what is read once more is known by its time."""

    def _let_go(self, items: Mapping[int, Item]) -> None:
        """They are in no list any more."""

    async def finish(self) -> None:
        """Nothing: the server has kept nothing."""

    def commit(self, change: TableChange, groups: Groups) -> None:
        """Swap the lists; a read that is on its way ends as it began."""
        super().commit(change, groups)
        for interval_ns in self._list():
            self._link.crew.add(self._poll(interval_ns))

    async def _poll(self, interval_ns: int) -> None:
        """Read some variables on their grid of times; what can't be read in time is skipped and counted."""
        polls = self._meters.polls[interval_ns]
        key = f"{self._link.name} {self._lists[interval_ns].handles[0]}"
        due_ns = self._clock.now_ns() + int(fraction(key) * min(interval_ns, NS) / 10)
        while True:
            now_ns = self._clock.now_ns()
            if due_ns - now_ns > interval_ns:
                due_ns = now_ns  # the clock was set back
            if now_ns < due_ns:
                await self._clock.sleep(seconds(due_ns - now_ns))
                continue
            some = self._lists.get(interval_ns)
            if some is None:
                break
            if self._feed.has_credit(len(some.handles)):
                polls.n += 1
                polls.n_late += now_ns - due_ns > interval_ns // 10
                await self._read(some)
            else:
                polls.n_skipped += 1
            n_steps = max(1, -(-(self._clock.now_ns() + 1 - due_ns) // interval_ns))
            polls.n_skipped += n_steps - 1
            due_ns += n_steps * interval_ns
        self._polled.discard(interval_ns)

    async def _read(self, some: ReadList) -> None:
        places = range(len(some.handles))
        try:
            async with self._asking:
                read = partial(self._read_some, some)
                self._limits.n_reads = await in_batches(places, self._limits.n_reads, read)
            self._n_silent = 0
        except TimeoutError:
            self._meters.n_timeouts += 1
            self._n_silent += 1
            if self._n_silent >= N_SILENT_MAX:
                raise NotConnected(f"connected, but {self._n_silent} reads were not answered") from None

    async def _read_some(self, some: ReadList, places: Sequence[int]) -> None:
        self._meters.n_requests += 1
        n, first = len(places), places[0]
        handles = some.handles[first : first + n]
        if (first, n) not in some.packed:
            some.packed[first, n] = packed_nodes(some.nodes[first : first + n])
        sent_ns = monotonic_ns()
        body = await self._connection.request(PackedRead.of(some.packed[first, n]), "a read")
        self._meters.latency.add(seconds(monotonic_ns() - sent_ns))
        now_ns = self._clock.now_ns()
        self._feed.ear.hear(now_ns, str(self._connection.server), body, self._handles, handles)
        cpu_ns = thread_cpu_ns()
        try:
            self._meters.note_sent(body, now_ns)
            values = read_answer(body)
            if len(values) != n:
                raise Rejected(f"{len(values)} values for {n} nodes")
        except Rejected as e:
            self._refuse("answer to a read", f"values of {n} nodes", e, body, n)
            return
        self._meters.decode_ns += thread_cpu_ns() - cpu_ns
        taken, _ = self._handles.take(numbered(values, handles))
        self._feed.inbox.add(taken, nothing, self._link.drop)


def nothing() -> None:
    """A read needs no acknowledgement."""
