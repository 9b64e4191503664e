"""The application of the public port: routes, problems, and the page where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from headrace.api.access import Tokens
from headrace.api.backend import Backend
from headrace.api.control import EngineRefused
from headrace.api.envelope import PublicEnvelope
from headrace.api.routes import (
    adapters,
    documentation,
    health,
    influx,
    metrics_in,
    prometheus,
    queries,
    sensors,
    status,
)
from headrace.core.errors import HeadraceError
from headrace.runtime.control_routes import problem, problem_of
from headrace.runtime.version import version

WEB_MODULE = "headrace.api.web.page"
"""Where the page is: its ``mount(app: FastAPI, backend: Backend) -> None`` adds it to the application at ``/``."""
_ROUTERS = (
    health.router,
    status.router,
    adapters.router,
    sensors.router,
    queries.router,
    influx.router,
    metrics_in.router,
    prometheus.router,
    documentation.router,
)
_DESCRIPTION = """\
A plant's sensors, their samples and how its adapters are.

Times are RFC 3339 with nanoseconds, ids 16 hexadecimal digits. An error is a problem document (RFC 9457) with a
`code` of a closed set.
"""


def create_app(backend: Backend) -> FastAPI:
    """The application over one plant, with its page."""
    app = create_interface(backend)
    _mount_page(app, backend)
    return app


def create_interface(backend: Backend) -> FastAPI:
    """The application without its page: what programs ask, and what the reference is made from."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    app = FastAPI(
        title="Headrace", version=version(), description=_DESCRIPTION, docs_url=None, redoc_url=None,
        openapi_url="/openapi.json", lifespan=lifespan,
    )  # fmt: skip
    app.state.backend = backend
    for router in _ROUTERS:
        app.include_router(router)
    app.add_exception_handler(RequestValidationError, _bad_request)
    for kind in (HTTPException, HeadraceError, Exception):
        app.add_exception_handler(kind, _refused)
    app.add_exception_handler(EngineRefused, _handed_on)
    tokens = Tokens(backend.settings.tokens)
    app.add_middleware(PublicEnvelope, pid=backend.settings.pid, clock=backend.clock, tokens=tokens)
    return app


def _mount_page(app: FastAPI, backend: Backend) -> None:
    """Put the page at ``/``, where it and its library are installed; else a few lines of text."""
    package = WEB_MODULE.rpartition(".")[0]
    if importlib.util.find_spec("nicegui") and importlib.util.find_spec(package):
        importlib.import_module(WEB_MODULE).mount(app, backend)
        return

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return PlainTextResponse(
            f"Headrace {version()}\n\n/docs says what can be asked, /api/v1/status how the plant is.\n"
            "The page needs: pip install 'headrace[web]'\n"
        )


async def _refused(_: Request, error: Exception) -> JSONResponse:
    return problem_of(error)


async def _bad_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = [f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()]
    return problem(400, "; ".join(found))


async def _handed_on(_: Request, error: Exception) -> JSONResponse:
    """A refusal of the engine, in its own words."""
    assert isinstance(error, EngineRefused)
    headers = {"Retry-After": error.retry_after} if error.retry_after else {}
    # The key between us and the engine is our affair: the caller did nothing wrong.
    status = 503 if error.status == 401 else error.status
    return problem(status, str(error), str(error.document.get("code", "")), headers)
