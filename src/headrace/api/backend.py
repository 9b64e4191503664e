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
from zoneinfo import ZoneInfo

from headrace.api.control import ControlClient
from headrace.api.settings import ApiSettings
from headrace.core.clock import Clock
from headrace.core.disk import LocalDisk
from headrace.core.errors import Overloaded, Unreachable
from headrace.runtime.announcement import is_store
from headrace.runtime.reader import StoreReader
from headrace.store.result import QueryResult

P = ParamSpec("P")
T = TypeVar("T")
N_THREADS = 4
N_WAITING_MAX = 64


class Backend:
    """One plant, asked from the api process.

    Parameters
    ----------
    settings : of the engine that started us. clock : the plant's.

    Attributes
    ----------
    control : the engine's control port.
    """

    def __init__(self, settings: ApiSettings, clock: Clock) -> None:
        self.settings, self.clock = settings, clock
        self.zone = ZoneInfo(settings.timezone)
        self.control = ControlClient(settings.control, settings.key)
        self._threads = ThreadPoolExecutor(N_THREADS, "headrace-query")
        self._n_waiting = 0
        self._reader: StoreReader | None = None
        self._opening = asyncio.Lock()

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
                self._reader = await self.blocking(StoreReader, LocalDisk(folder), self.zone)
            return self._reader

    # --- the engine ----------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """One screen of facts, as `headrace.runtime.assemble.Plant.status` gives them."""
        found: dict[str, Any] = await self.control.json("/api/v1/status")
        return found

    async def adapters(self) -> list[dict[str, Any]]:
        """All adapters, without their devices."""
        found: list[dict[str, Any]] = await self.control.json("/api/v1/adapters")
        return found

    async def adapter(self, name: str) -> dict[str, Any]:
        """One adapter with its devices."""
        from urllib.parse import quote

        found: dict[str, Any] = await self.control.json(f"/api/v1/adapters/{quote(name, safe='')}")
        return found

    # --- the store -----------------------------------------------------------------------------------

    async def query(self, pattern: str, **arguments: Any) -> QueryResult:
        """Samples or aggregates, as `StoreReader.query` answers them; of a size that fits into memory."""
        reader = await self.reader()
        return await self.blocking(reader.query, pattern, **arguments)

    async def sensors(self, pattern: str, limit: int = 1_000) -> list[str]:
        """Paths of sensors that match, in order of definition, at most `limit`."""
        reader = await self.reader()

        def find() -> list[str]:
            reader.store.refresh()
            found = reader.directory.find(pattern)
            pairs = zip(found.slot[:limit].tolist(), found.column[:limit].tolist(), strict=True)
            return [reader.directory.sensor_path(slot, column) for slot, column in pairs]

        return await self.blocking(find)
