"""What subscribing and reading have in common: the variables of one connection, and how they are changed as it lives.

A change has three steps. `stage` asks the server for what is new, and may fail: `take_back` then leaves all as it was.
`commit` waits for nothing: from there on values are those of the new tags. `finish` lets go of what is not read any more.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua

from headrace.adapters.base import Ack
from headrace.adapters.opcua.asking import Feed, ServerLimits, SessionMeters
from headrace.adapters.opcua.client import UaConnection
from headrace.adapters.opcua.handles import Handles
from headrace.adapters.opcua.messages import Values
from headrace.adapters.opcua.security import ServerAccess
from headrace.adapters.opcua.tags import TableChange, TagTable
from headrace.core.errors import Rejected
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode

Groups = Mapping[int, Sequence[int]]
"""Tags by interval in ns."""


class Crew:
    """Tasks of one connection's life, which is over when one of them fails or `over` is set."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    def add(self, work: Coroutine[Any, Any, None]) -> None:
        """One more task; it may end before the others do."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._errors.append(error)
            self.over.set()

    async def run(self) -> None:
        """Wait for the end, and end all of them. Raises what the first one raised that failed."""
        try:
            await self.over.wait()
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._errors:
            raise self._errors[0]


@dataclass(frozen=True, slots=True)
class SessionLink:
    """One connection and what belongs to it.

    Parameters
    ----------
    drop : ends the connection, with a reason. changing : held by whoever makes or changes what it reads.
    """

    name: str
    access: ServerAccess
    connection: UaConnection
    feed: Feed
    meters: SessionMeters
    drop: Callable[[str], None]
    crew: Crew
    changing: asyncio.Lock


@dataclass(slots=True)
class Item:
    """A variable that is read. `number`: of its monitored item, 0 where there is none (yet)."""

    node: ua.NodeId
    interval_ns: int
    dead_band: float
    number: int = 0


@dataclass(slots=True)
class Staged:
    """What is new, until it counts: tags-to-be and their troubles by handle, and values that came meanwhile."""

    tags: dict[int, int] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    held: list[tuple[Values, Ack]] = field(default_factory=list)


class Reader(ABC):
    """Reads the variables of one connection.

    Variables are told apart by their handles, so that tags may get other numbers at any time.

    Attributes
    ----------
    can_resume : whether the server keeps anything that another connection could go on with.
    """

    can_resume = False

    def __init__(self, link: SessionLink, groups: Groups) -> None:
        self._config, self._feed, self._meters = link.access.config, link.feed, link.meters
        self._go_over(link)
        self._clock = link.feed.sink.clock
        self._handles = Handles(tag for tags in groups.values() for tag in tags)
        self._items: dict[int, Item] = {}
        self._intervals = list(groups)
        self._staged: Staged | None = None
        self._limits = ServerLimits(1, 1)

    def _go_over(self, link: SessionLink) -> None:
        self._link, self._connection = link, link.connection

    async def resume(self, link: SessionLink) -> None:
        """Go on over another connection with the same session. Raises as `prepare`."""
        self._go_over(link)

    @property
    def is_staged(self) -> bool:
        """Whether the server was asked for what does not count yet."""
        return self._staged is not None

    @property
    def revised(self) -> str:
        """What the server does otherwise than asked, in words; empty where nothing."""
        return ""

    async def prepare(self, groups: Groups) -> None:
        """Find the nodes, and ask for them. Raises as `UaConnection.request`."""
        self._limits = await ServerLimits.ask(self._connection, self._config.max_nodes)
        for interval_ns, handles in groups.items():
            # They were the tags; meanwhile those may have other numbers.
            tags = self._handles.tags(handles).tolist()
            self._find(dict(zip(handles, tags, strict=True)), interval_ns, self._feed.tags)
        await self._begin()

    def _find(self, tags: Mapping[int, int], interval_ns: int, table: TagTable) -> None:
        """Nodes of some (handle → tag of `table`), as the server numbers them now."""
        for handle, tag in tags.items():
            try:
                node = self._connection.node_id(table.address(tag))
            except LookupError as e:
                # A problem of its tag: the server has no such namespace.
                self._tell(handle, str(e.args[0]))
                continue
            self._items[handle] = Item(node, interval_ns, table.signal_of(tag).dead_band)

    def _tell(self, handle: int, reason: str) -> None:
        """A variable can't be read."""
        if self._staged is not None and handle in self._staged.tags:
            self._staged.problems[handle] = reason
        else:
            self._feed.problem(self._handles.tag_of(handle), reason)

    @abstractmethod
    async def _begin(self) -> None:
        """Ask for the variables, the first time. Raises as `UaConnection.request`."""

    @abstractmethod
    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What is to be done at the same time, until the connection is lost; raises `NotConnected`."""

    # --- other tags ----------------------------------------------------------------------------------

    async def stage(self, change: TableChange, groups: Groups) -> None:
        """Ask for what `groups` has and the present tags have not.

        Raises
        ------
        NotConnected, TimeoutError, ServiceFailed : it can't be had; `take_back` is to be called.
        """
        self._staged = Staged()
        for interval_ns, tags in groups.items():
            new = [tag for tag in tags if not change.is_kept[tag]]
            given = dict(zip(self._handles.give(len(new)), new, strict=True))
            self._staged.tags |= given
            self._find(given, interval_ns, change.after)
        await self._ask_for(self._staged, change, groups)

    @abstractmethod
    async def _ask_for(self, staged: Staged, change: TableChange, groups: Groups) -> None:
        """Ask the server for what is staged. Raises as `stage`."""

    async def take_back(self) -> None:
        """What was staged shall not be."""
        if self._staged is not None:
            staged, self._staged = self._staged, None
            self._handles.settle(dict.fromkeys(staged.tags, -1))
            for _, ack in staged.held:
                ack()
            await self._undo(staged, {h: self._items.pop(h) for h in staged.tags if h in self._items})

    @abstractmethod
    async def _undo(self, staged: Staged, items: Mapping[int, Item]) -> None:
        """Let go of what was asked for; of what can't be undone the connection is dropped."""

    def commit(self, change: TableChange, groups: Groups) -> None:
        """The tags have become those of `change`; the feed knows them already."""
        gone = self._handles.renumber(change.new_of)
        staged, self._staged = self._staged or Staged(), None
        self._handles.settle(staged.tags)
        self._intervals = list(groups)
        self._let_go({handle: self._items.pop(handle) for handle in gone if handle in self._items})
        for handle, reason in staged.problems.items():
            self._tell(handle, reason)
        self._renew(staged)

    @abstractmethod
    def _renew(self, staged: Staged) -> None:
        """What was staged counts from now on: take what came of it meanwhile."""

    @abstractmethod
    def _let_go(self, items: Mapping[int, Item]) -> None:
        """These are not read any more; `finish` may tell the server."""

    @abstractmethod
    async def finish(self) -> None:
        """After `commit`: the server need not keep what is not read any more."""

    # --- answers -------------------------------------------------------------------------------------

    def _refuse(self, what: str, expected: str, error: Rejected, body: bytes, n_samples: int = 1) -> None:
        """An answer that is none."""
        self._meters.n_errors += 1
        self._feed.inbox.reject(
            Reject(
                RejectCode.MALFORMED, self._link.name, what, f"expected {expected}: {error}", body[:MAX_RAW_BYTES],
                self._clock.now_ns(), n_samples,
            )
        )  # fmt: skip
