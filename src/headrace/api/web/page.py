"""The page, put into the application of the public port."""

from __future__ import annotations

import logging
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse

from headrace.api.backend import Backend
from headrace.api.web.choice import Choice
from headrace.api.web.desk import Desk
from headrace.api.web.finding import first_look
from headrace.api.web.pulse import Pulse
from headrace.api.web.resolution import VisibleSpan
from headrace.api.web.trends import ChartedSensors, read_trend
from headrace.core.clock import NS, SystemClock
from headrace.core.errors import HeadraceError
from headrace.runtime.control_routes import problem

_HERE = Path(__file__).parent
_STYLE = (_HERE / "page.css").read_text(encoding="utf-8")
_ICON = (_HERE / "icon.svg").read_text(encoding="utf-8")
_RECONNECT_S = 10.0
_AHEAD_S, _AHEAD_TRIES = 1.5, 40
# Before anything is painted, so that a dark page never flashes white.
_THEME = """\
<script>
  try { document.documentElement.dataset.theme = localStorage.getItem("headrace-theme") ?? "auto"; }
  catch { document.documentElement.dataset.theme = "auto"; }
</script>
"""


def mount(app: FastAPI, backend: Backend) -> None:
    """Serve the page at ``/`` of `app`."""
    from nicegui import core, ui

    pulse = Pulse(backend)

    @ui.page(
        "/", title="Headrace", favicon=_ICON, dark=None, language="en-US", reconnect_timeout=_RECONNECT_S
    )
    async def index(request: Request) -> None:
        ui.add_head_html(f'{_THEME}<meta name="description" content="A plant, as Headrace sees it.">')
        ui.add_head_html(f"<style>{_STYLE}</style>")
        desk = Desk(backend, pulse, Choice.from_address(request.query_params.multi_items()))
        desk.build()
        client = ui.context.client
        client.on_delete(desk.end)
        client.on_connect(desk.start)

    ui.run_with(
        app,
        title="Headrace",
        dark=None,
        tailwind=False,
        # Nothing is bound: the loop that looks for changes would only cost.
        binding_refresh_interval=None,
        reconnect_timeout=_RECONNECT_S,
        message_history_length=200,
        show_welcome_message=False,
    )
    core.app.on_startup(lambda: _read_ahead(backend))
    core.app.add_exception_handler(404, _not_found)
    logging.getLogger("nicegui").setLevel(logging.WARNING)


async def _read_ahead(backend: Backend) -> None:
    """Read what a first look shows, for nobody: libraries and kernels take seconds to load, which no person waits for."""
    clock = SystemClock()
    for _ in range(_AHEAD_TRIES):
        await clock.sleep(_AHEAD_S)
        try:
            reader = await backend.reader()
            await backend.tree()
            paths = await backend.blocking(first_look, reader.directory)
            if paths:
                await backend.blocking(read_trend, reader, ChartedSensors(tuple(paths)), VisibleSpan(60 * NS))
                return
        except HeadraceError:
            continue  # the engine is starting


async def _not_found(request: Request, _: Exception) -> JSONResponse:
    """What is neither the page nor a route: the problem that the rest of the port answers, not a page."""
    return problem(404, f"nothing is at {request.url.path}; /docs says what can be asked")
