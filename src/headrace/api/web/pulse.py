"""How the plant is, looked at once for all open pages, and not at all while none is open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from headrace.api.backend import Backend
from headrace.api.control import EngineRefused
from headrace.api.web.plant_facts import (
    TONES,
    PlantSight,
    rejects_of_metrics,
)
from headrace.core.clock import NS, SystemClock, monotonic_ns
from headrace.core.errors import HeadraceError
from headrace.store.view import TierSize

EVERY_S = 2.0
_PATIENCE_S = 5.0
_RATES_KEPT = 150
_TROUBLES_MAX = 8
_STORE_EVERY, _REJECTS_EVERY = 3, 3
"""In how many looks the store and the rejects are looked at once."""
_LOGGER = logging.getLogger(__name__)
Watcher = Callable[[PlantSight], None]


class Pulse:
    """Looks every two seconds and tells all watchers.

    Parameters
    ----------
    backend : who is asked.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._watchers: list[Watcher] = []
        self._task: asyncio.Task[None] | None = None
        self._rates: deque[float] = deque(maxlen=_RATES_KEPT)
        self._heard_ns = monotonic_ns()
        self._n_looks = 0
        self._tiers: tuple[TierSize, ...] | None = None
        self._n_sensors = 0
        self._rejects: dict[str, Any] = {}
        self._adapters: list[dict[str, Any]] = []
        self.newest: PlantSight | None = None
        """What was seen last; None before the first look."""

    def watch(self, watcher: Watcher) -> None:
        """Begin to tell somebody; at once what is known already."""
        self._watchers.append(watcher)
        if self.newest is not None:
            watcher(self.newest)
        if self._task is None:
            self._n_looks = 0
            self._task = asyncio.create_task(self._look_on(), name="headrace-pulse")

    def leave(self, watcher: Watcher) -> None:
        """Tell somebody no more; after the last one nothing is looked at."""
        with contextlib.suppress(ValueError):
            self._watchers.remove(watcher)
        if not self._watchers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look_on(self) -> None:
        clock = SystemClock()
        while True:
            try:
                self.newest = await self.look()
                for watcher in list(self._watchers):
                    watcher(self.newest)
            except Exception:
                # A page that shows old figures is better than one that shows none.
                _LOGGER.exception("the page's look at the plant failed; it tries again")
            await clock.sleep(EVERY_S)

    async def look(self) -> PlantSight:
        """Look at the plant now; an engine that does not answer is a finding, no error."""
        away, troubles = "", {}
        status: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                status = await self._backend.status()
            self._adapters = status["adapters"]
            async with asyncio.timeout(_PATIENCE_S):
                troubles = await self._troubles()
            self._heard_ns = monotonic_ns()
            self._rates.append(float(status["rate"]["samples_per_s"]))
        except (HeadraceError, EngineRefused) as e:
            away, status = str(e), None
        except TimeoutError:
            away, status = f"it takes longer than {_PATIENCE_S:.0f} s to say how it is", None
        if self._n_looks % _STORE_EVERY == 0:
            await self._look_at_store()
        if status is not None and self._n_looks % _REJECTS_EVERY == 0:
            await self._look_at_rejects()
        self._n_looks += 1
        return PlantSight(
            now_ns=self._backend.clock.now_ns(),
            status=status,
            adapters=self._adapters,
            troubles=troubles,
            tiers=self._tiers,
            n_sensors=status["sensors"] if status else self._n_sensors,
            rejects=self._rejects,
            rates=tuple(self._rates),
            away=away,
            away_s=(monotonic_ns() - self._heard_ns) / NS if status is None else 0.0,
        )

    async def _troubles(self) -> dict[str, dict[str, Any]]:
        """Devices of the adapters that are not well: they say why, and when they are tried again."""
        sick = [one["name"] for one in self._adapters if TONES.get(one["state"]) in ("bad", "warn")]
        return {name: await self._backend.adapter(name) for name in sick[:_TROUBLES_MAX]}

    async def _look_at_store(self) -> None:
        with contextlib.suppress(HeadraceError):
            reader = await self._backend.reader()
            self._tiers = (await self._backend.blocking(reader.store.refresh)).tiers
            self._n_sensors = reader.directory.n_sensors

    async def _look_at_rejects(self) -> None:
        """Kept rejects where the engine lists them, else only their counts."""
        with contextlib.suppress(HeadraceError, EngineRefused):
            try:
                self._rejects = await self._backend.control.json("/api/v1/rejects?limit=20")
            except EngineRefused:
                self._rejects = rejects_of_metrics((await self._backend.control.get("/metrics")).text)
