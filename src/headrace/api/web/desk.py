"""One open page: what its person has chosen, and the tasks that keep it showing that."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any
from urllib.parse import urlencode

from nicegui.events import GenericEventArguments

from headrace.api.backend import Backend
from headrace.api.control import EngineRefused
from headrace.api.web import plant_facts
from headrace.api.web.choice import Choice
from headrace.api.web.drawing import drawn_trend, sign_of
from headrace.api.web.elements import KeyFigures, PlantRail, PlantTree, TopBar, TrendPanel
from headrace.api.web.finding import HITS_MAX, Hits, find_sensors, first_look
from headrace.api.web.plant_facts import PlantSight
from headrace.api.web.pulse import Pulse
from headrace.api.web.resolution import VisibleSpan
from headrace.api.web.trends import ChartedSensors, Trend, read_trend, renew_trend
from headrace.core.clock import NS, monotonic_ns
from headrace.core.errors import HeadraceError
from headrace.runtime.times import local_time
from headrace.runtime.version import version

_CHILDREN_AT_ONCE = 500
_TEXT_MAX, _PATH_MAX = 200, 4_000
_WHOLE_EVERY_NS = 60 * NS
"""A chart that follows the present reads its whole span so often, for what came late."""
_GROWN_EVERY_NS = 4 * NS
_RETRY_S = 2.0
_LOGGER = logging.getLogger(__name__)


class Desk:
    """The parts of one page and what they are told.

    Parameters
    ----------
    pulse : how the plant is, for all pages. choice : the sensors and the span to begin with.

    Order of calls: `build` within a page, `start` once the browser is there, `end`.
    """

    def __init__(self, backend: Backend, pulse: Pulse, choice: Choice) -> None:
        self._backend, self._pulse, self._choice = backend, pulse, choice
        self._charted = ChartedSensors(choice.paths)
        self._look = VisibleSpan(choice.length_ns, choice.end_ns, speed=backend.settings.speed)
        self._look_number = 0
        self._has_chosen = False
        self._is_hidden, self._wanted = False, asyncio.Event()
        self._search_number = 0
        self._devices = ("", "")
        self._n_sensors, self._grown_ns = 0, monotonic_ns()
        self._tasks: list[asyncio.Task[None]] = []

    # --- the page ------------------------------------------------------------------------------------

    def build(self) -> None:
        """Make the parts; within a page."""
        from nicegui import ui

        zone = str(self._backend.zone)
        with ui.element("div").classes("hr-page"):
            self._bar = TopBar()
            with ui.element("nav").classes("hr-side").props('aria-label="Sensors"'):
                self._tree = PlantTree()
            with ui.element("main").classes("hr-main"):
                self._figures = KeyFigures()
                self._trends = TrendPanel()
            self._rail = PlantRail()
        self._bar.show(head=self._head(None), plant=self._backend.settings.store, version=version())
        self._figures.show(figures=plant_facts.figures(PlantSight(0)))
        self._rail.show(
            lights=[], storage={"tiers": [], "stages": []}, refused={"counts": [], "newest": []}, devices=None
        )
        self._tree.show(charted=self._choice.colors, levels=list(self._backend.settings.levels))
        self._trends.show(zone=zone, start=self._choice.span_dict(), colors=self._choice.colors)
        self._tree.on("open", self._open)
        self._tree.on("search", self._search)
        for part in (self._tree, self._trends):
            part.on("pick", self._pick)
        self._trends.on("look", self._seen)
        self._rail.on("devices", self._show_devices)

    def start(self) -> None:
        """Begin to show; once, when the browser is there."""
        if not self._tasks:
            self._tasks.append(asyncio.create_task(self._draw_on(), name="headrace-page"))
            self._pulse.watch(self._beat)

    def end(self) -> None:
        """The page is closed."""
        self._pulse.leave(self._beat)
        for task in self._tasks:
            task.cancel()

    # --- the plant -----------------------------------------------------------------------------------

    def _beat(self, sight: PlantSight) -> None:
        self._bar.show(head=self._head(sight))
        self._figures.show(figures=plant_facts.figures(sight))
        self._rail.show(
            lights=plant_facts.lights(sight),
            storage=plant_facts.storage(sight),
            refused=plant_facts.refused(sight),
        )

        if sight.n_sensors != self._n_sensors and monotonic_ns() - self._grown_ns > _GROWN_EVERY_NS:
            self._n_sensors, self._grown_ns = sight.n_sensors, monotonic_ns()
            self._tree.run_method("grown")

    def _head(self, sight: PlantSight | None) -> dict[str, Any]:
        clock = local_time(self._backend.clock.now_ns(), self._backend.zone)[:16]
        common = {"clock": clock, "zone": str(self._backend.zone)}
        if sight is None:
            return {"state": "connecting", "tone": "wait", "banner": "", "detail": "", **common}
        return {**plant_facts.headline(sight), **common}

    async def _show_devices(self, event: GenericEventArguments) -> None:
        name, text = str(event.args.get("name", "")), str(event.args.get("text", ""))[:_TEXT_MAX]
        if name != self._devices[0]:
            self._rail.show(devices=None)
        self._devices = (name, text)
        if not name:
            return
        try:
            found = await self._backend.adapter(name)
            rows = plant_facts.device_rows(found, text, self._backend.clock.now_ns())
        except (HeadraceError, EngineRefused) as e:
            rows = {"error": str(e), "tone": "off", "protocol": ""}
        if self._devices == (name, text):
            self._rail.show(devices=rows)

    # --- tree and search -----------------------------------------------------------------------------

    async def _open(self, event: GenericEventArguments) -> None:
        path, after = (
            str(event.args.get("path", ""))[:_PATH_MAX],
            str(event.args.get("after", ""))[:_PATH_MAX],
        )
        said: dict[str, Any] = {"path": path, "after": after, "nodes": [], "more": False}
        try:
            found = await self._backend.children(path, after, _CHILDREN_AT_ONCE + 1)
            units = await self._units(path, after) if any(one.is_sensor for one in found) else {}
            said["more"] = len(found) > _CHILDREN_AT_ONCE
            said["nodes"] = [
                {
                    "name": one.name,
                    "path": one.path,
                    "n": one.n_sensors,
                    "sensor": one.is_sensor,
                    "unit": units.get(one.path, ""),
                }
                for one in found[:_CHILDREN_AT_ONCE]
            ]
        except HeadraceError as e:
            said["error"] = str(e)
        self._tree.run_method("fill", said)

    async def _units(self, path: str, after: str) -> dict[str, str]:
        behind = f"{path}/{after}" if after and path else after
        found = await self._backend.sensors(f"{path}/*" if path else "*", behind, _CHILDREN_AT_ONCE)
        return {one.path: sign_of(one.unit) for one in found}

    async def _search(self, event: GenericEventArguments) -> None:
        number, text = event.args.get("number"), str(event.args.get("text", ""))[:_TEXT_MAX]
        self._search_number = number
        said: dict[str, Any] = {"number": number, "hits": [], "cut": False}
        try:
            found = await self._hits(text, number)
            said["hits"] = [{"path": one.path, "unit": sign_of(one.unit)} for one in found.sensors]
            said["cut"] = found.is_cut
        except HeadraceError as e:
            said["error"] = str(e)
        self._tree.run_method("results", said)

    async def _hits(self, text: str, number: Any) -> Hits:
        if any(sign in text for sign in "*{"):
            sensors = await self._backend.sensors(text.strip(), "", HITS_MAX + 1)
            return Hits(tuple(sensors[:HITS_MAX]), len(sensors) > HITS_MAX)
        await self._backend.tree()  # which makes known what came since
        reader = await self._backend.reader()
        return await self._backend.blocking(
            find_sensors, reader.directory, text, HITS_MAX, lambda: self._search_number == number
        )

    # --- charts --------------------------------------------------------------------------------------

    def _pick(self, event: GenericEventArguments) -> None:
        self._has_chosen = True
        self._choose(self._choice.toggled(str(event.args.get("path", ""))[:_PATH_MAX]))
        self._wanted.set()

    def _choose(self, choice: Choice) -> None:
        self._choice = choice
        self._charted = ChartedSensors(choice.paths, self._charted.facts)
        self._tree.show(charted=choice.colors)
        self._trends.show(colors=choice.colors)

    def _seen(self, event: GenericEventArguments) -> None:
        self._look = VisibleSpan.from_event(event.args, self._backend.settings.speed)
        self._has_chosen |= self._look_number > 0
        self._look_number = int(event.args.get("number", 0))
        self._choice = self._choice.looking(self._look.length_ns, self._look.end_ns)
        self._is_hidden = bool(event.args.get("hidden"))
        self._wanted.set()

    async def _draw_on(self) -> None:
        """Draw what is wanted, one reading at a time; follow the present while somebody looks."""
        # The browser says how wide it is before anything is read for it.
        await self._wanted.wait()
        whole_ns, trend = 0, None
        while True:
            is_new = self._wanted.is_set() or self._choice.is_untouched
            self._wanted.clear()
            number, look = self._look_number, self._look
            wait_s = look.renew_s if look.is_live and not self._is_hidden else None
            try:
                if trend is None or is_new or monotonic_ns() - whole_ns > _WHOLE_EVERY_NS:
                    trend = await self._read(look)
                    whole_ns = monotonic_ns()
                    self._send("apply", trend, number)
                elif self._choice.paths:
                    trend = await self._renew(look, trend)
                    self._send("renew", trend, number)
            except Exception as e:
                self._refuse(e, number)
                wait_s, trend = _RETRY_S, None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wanted.wait()

    async def _read(self, look: VisibleSpan) -> Trend:
        reader = await self._backend.reader()
        if self._choice.is_untouched:
            await self._backend.tree()
            self._choose(self._choice.begun(await self._backend.blocking(first_look, reader.directory)))
        return await self._backend.blocking(read_trend, reader, self._charted, look)

    async def _renew(self, look: VisibleSpan, before: Trend) -> Trend:
        reader = await self._backend.reader()
        return await self._backend.blocking(renew_trend, reader, self._charted, look, before)

    def _send(self, method: str, trend: Trend, number: int) -> None:
        drawn = drawn_trend(trend, self._charted.facts, self._backend.clock.now_ns())
        # Until somebody has chosen something the address stays short.
        address = f"?{urlencode(self._choice.to_address())}" if self._has_chosen else ""
        self._trends.run_method(method, {**drawn, "number": number, "address": address})

    def _refuse(self, error: Exception, number: int) -> None:
        """Say why nothing is drawn; it is tried again."""
        if not isinstance(error, HeadraceError):
            _LOGGER.exception("the page's chart failed; it tries again")
        said = (
            str(error) if isinstance(error, HeadraceError) else f"unexpected {type(error).__name__}: {error}"
        )
        self._trends.run_method("apply", {"number": number, "problem": said})
