"""What the routes and the page ask: the store, read in this process, and the engine behind its control port.

One object for both, without HTTP in it. Everything here is a coroutine: what blocks (decoding, finding sensors)
runs in a few threads of our own, and where they are all taken and enough wait for them, the next is refused
rather than queued without bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote
from zoneinfo import ZoneInfo

from headrace.api.answers import OpenAnswer
from headrace.api.control import ControlClient
from headrace.api.forms import RowForm
from headrace.api.listing import SensorFacts, facts_of_id, list_sensors
from headrace.api.promql.answers import PromStore
from headrace.api.settings import ApiSettings
from headrace.core.clock import NS, Clock, monotonic_ns
from headrace.core.errors import Overloaded, Unreachable
from headrace.runtime.announcement import is_store
from headrace.runtime.reader import StoreReader
from headrace.runtime.slices import SLICE_ROWS, AnswerPlace, Question, SlicedAnswer
from headrace.runtime.tree import SensorTree, TreeNode
from headrace.store.disks import open_disk
from headrace.store.result import QueryResult

P = ParamSpec("P")
T = TypeVar("T")
N_THREADS = 4
N_WAITING_MAX = 64
N_LARGE_MAX, N_FOLLOWERS_MAX = 6, 200
_SLICE_ROWS_MIN = 20_000
_LEARN_EVERY_NS = NS


class Places:
    """A bounded number of answers of one kind that may be under way; each holds memory or a connection.

    Parameters
    ----------
    what : what there are enough of, for the sentence of the refusal.
    """

    def __init__(self, n: int, what: str) -> None:
        self._n, self._n_taken, self._what = n, 0, what

    def take(self) -> None:
        """Take a place. Raises `Overloaded` where there is none."""
        if self._n_taken >= self._n:
            raise Overloaded(f"{self._n} {self._what} already; ask again in a moment", 5.0)
        self._n_taken += 1

    def give_back(self) -> None:
        """Leave it to the next."""
        self._n_taken -= 1


class Backend:
    """One plant, asked from the api process.

    Parameters
    ----------
    settings : of the engine that started us. clock : the plant's.

    Attributes
    ----------
    control : the engine's control port. large_answers, followers : how many of them there may be at once.
    """

    def __init__(self, settings: ApiSettings, clock: Clock) -> None:
        self.settings, self.clock = settings, clock
        self.zone = ZoneInfo(settings.timezone)
        self.control = ControlClient(settings.control, settings.key)
        self._threads = ThreadPoolExecutor(N_THREADS, "headrace-query")
        self._n_waiting = 0
        self._reader: StoreReader | None = None
        self._tree: SensorTree | None = None
        self._opening, self._learning = asyncio.Lock(), asyncio.Lock()
        self._learned_ns = -_LEARN_EVERY_NS
        self.large_answers = Places(N_LARGE_MAX, "large answers are on their way")
        self.followers = Places(N_FOLLOWERS_MAX, "clients follow what happens")

    async def close(self) -> None:
        """Let go of connections; threads end with what they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self.control.close()

    async def blocking(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks in one of our threads.

        Raises
        ------
        Overloaded : all are taken and enough wait for them already.
        """
        if self._n_waiting >= N_THREADS + N_WAITING_MAX:
            raise Overloaded("too many queries wait already; ask again in a moment")
        self._n_waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, lambda: call(*args, **kwargs))
        finally:
            self._n_waiting -= 1

    async def reader(self) -> StoreReader:
        """The store; opened when it is first asked for, for at the engine's first start there is none yet.

        Raises
        ------
        Unreachable : there is no store yet.
        """
        async with self._opening:
            if self._reader is None:
                folder = Path(self.settings.store)
                if not is_store(folder):
                    raise Unreachable(f"the store {folder} is not there yet; ask again in a moment")
                self._reader = await self.blocking(lambda: StoreReader(open_disk(folder), self.zone))
            return self._reader

    # --- the engine ----------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """One screen of facts, as `headrace.runtime.assemble.Plant.status` gives them."""
        found: dict[str, Any] = await self.control.json("/api/v1/status")
        return found

    async def tiers(self) -> dict[str, Any]:
        """What the rules of the tiers hold, as `headrace.runtime.assemble.Plant.tiers` gives it."""
        found: dict[str, Any] = await self.control.json("/api/v1/tiers")
        return found

    async def adapters(self) -> list[dict[str, Any]]:
        """All adapters, without their devices."""
        found: list[dict[str, Any]] = await self.control.json("/api/v1/adapters")
        return found

    async def adapter(self, name: str) -> dict[str, Any]:
        """One adapter with its devices."""
        found: dict[str, Any] = await self.control.json(f"/api/v1/adapters/{quote(name, safe='')}")
        return found

    # --- the store -----------------------------------------------------------------------------------

    async def tree(self) -> SensorTree:
        """All sensors by path. Raises as `reader`."""
        reader = await self.reader()
        async with self._opening:
            if self._tree is None:
                self._tree = await self.blocking(SensorTree, reader.directory)
        await self._learn(reader)
        return self._tree

    async def _learn(self, reader: StoreReader) -> None:
        """Make known which sensors came since; asked for anew after a while only."""
        async with self._learning:
            now_ns = monotonic_ns()
            if now_ns - self._learned_ns > _LEARN_EVERY_NS:
                await self.blocking(reader.tail)
                self._learned_ns = now_ns

    async def prometheus(self) -> PromStore:
        """What PromQL queries are answered from. Raises as `reader`."""
        return PromStore(await self.reader(), await self.tree(), self.settings.levels)

    async def children(self, path: str = "", after: str = "", limit: int = 1_000) -> list[TreeNode]:
        """What is one level below a path, see `SensorTree.children`."""
        tree = await self.tree()
        return await self.blocking(tree.children, path, after, limit)

    async def sensors(self, pattern: str, after: str = "", limit: int = 1_000) -> list[SensorFacts]:
        """Sensors that match, in the order of `SensorTree`; behind the path `after`, at most `limit`."""
        reader, tree = await self.reader(), await self.tree()
        return await self.blocking(list_sensors, reader.directory, tree, pattern, after, limit)

    async def sensor(self, sensor: int) -> SensorFacts:
        """One sensor by its id. Raises `NotFound`."""
        reader, _ = await self.reader(), await self.tree()
        return await self.blocking(facts_of_id, reader.directory, sensor)

    async def query(self, pattern: str, **arguments: Any) -> QueryResult:
        """Samples or aggregates, as `StoreReader.query` answers them; of a size that fits into memory."""
        reader = await self.reader()
        return await self.blocking(reader.query, pattern, **arguments)

    async def now_ns(self) -> int:
        """The plant's present; where no engine runs, when the store was last written to."""
        reader = await self.reader()
        tail = await self.blocking(reader.tail)
        return tail.now_ns

    async def answer(
        self, question: Question, form: RowForm, limit: int | None = None, after: AnswerPlace | None = None
    ) -> OpenAnswer:
        """Begin to answer a question, slice by slice. Raises as `SlicedAnswer`, and `Overloaded`."""
        reader, tree = await self.reader(), await self.tree()
        rows = SLICE_ROWS if limit is None else max(_SLICE_ROWS_MIN, min(2 * limit, SLICE_ROWS))

        def begin() -> OpenAnswer:
            return OpenAnswer(SlicedAnswer(reader, tree, question, after, rows), form, limit)

        return await self.blocking(begin)
