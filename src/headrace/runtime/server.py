"""The engine's HTTP port: metrics, health of the process, status, adapters, and the unflushed tail.

It runs in the engine's event loop and only reads, so it has nothing to lock. What takes longer than a moment
(the tail of many sensors) runs in a thread. Errors are RFC 9457 problems with a closed ``code``. It listens on
loopback only: whoever can reach it may read the plant.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.core.clock import Clock
from headrace.core.disk import Disk
from headrace.core.errors import ConfigError, HeadraceError, NotFound
from headrace.core.registry import nearest
from headrace.metrics.exposition import CONTENT_TYPE
from headrace.runtime.announcement import NOW_HEADER, PID_HEADER, Announcement, announce, withdraw
from headrace.runtime.diagnostics import adapter_report, adapter_summary
from headrace.runtime.tail_format import tail_parts
from headrace.runtime.times import rfc3339

if TYPE_CHECKING:
    from headrace.runtime.assemble import Plant

_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_MAX_BODY_BYTES = 64 << 20
_CODES = {400: "bad-request", 403: "forbidden", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}


def problem(status: int, detail: str, code: str = "") -> JSONResponse:
    """An error as RFC 9457 says: `detail` is a plain sentence, `code` from a closed set."""
    code = code or _CODES.get(status, "internal")
    body = {
        "type": "about:blank",
        "title": code.replace("-", " "),
        "status": status,
        "detail": detail,
        "code": code,
    }
    return JSONResponse(body, status, media_type="application/problem+json")


class _Routes:
    """What each address answers."""

    def __init__(self, plant: Plant, clock: Clock) -> None:
        self.plant, self.clock = plant, clock

    def all(self) -> list[Route]:
        return [
            Route("/livez", self.live),
            Route("/readyz", self.ready),
            Route("/metrics", self.metrics),
            Route("/api/v1/status", self.status),
            Route("/api/v1/adapters", self.adapters),
            Route("/api/v1/adapters/{name}", self.adapter),
            Route("/api/v1/directory", self.directory),
            Route("/api/v1/tail", self.tail, methods=["POST"]),
        ]

    async def live(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        if self.plant.state != "running":
            return problem(503, self.plant.failure or f"the plant is {self.plant.state}", "not-ready")
        refusal = self.plant.journal.refusal
        return problem(503, refusal, "not-ready") if refusal else PlainTextResponse("ready\n")

    async def metrics(self, _: Request) -> Response:
        self._started()
        return Response(self.plant.metrics.expose(), media_type=CONTENT_TYPE)

    async def status(self, _: Request) -> Response:
        self._started()
        return JSONResponse(self.plant.status())

    async def adapters(self, _: Request) -> Response:
        return JSONResponse([adapter_summary(a) for a in self.plant.adapters()])

    async def adapter(self, request: Request) -> Response:
        name = request.path_params["name"]
        known = {a.name: a for a in self.plant.adapters()}
        if name not in known:
            raise HTTPException(404, f"no adapter {name!r}{nearest(name, list(known))}")
        return JSONResponse(adapter_report(known[name]))

    async def directory(self, request: Request) -> Response:
        """Definitions of the slots from ``after`` on, as `SensorDirectory.to_bytes` writes them."""
        self._started()
        text = request.query_params.get("after", "0")
        if not text.isdecimal():
            raise HTTPException(400, f"after={text!r} is not a number of slots")
        after = min(int(text), self.plant.directory.n_slots)
        data = self.plant.directory.to_bytes(after) if after < self.plant.directory.n_slots else b""
        return Response(data, media_type="application/vnd.apache.parquet")

    async def tail(self, request: Request) -> Response:
        """Unflushed frames of slots (u32, little-endian), or of the sensors of ``{"pattern": ...}``."""
        self._started()
        body = await _body(request)
        slots = await asyncio.to_thread(self._slots, request.headers.get("content-type", ""), body)
        batches = await asyncio.to_thread(self.plant.tail, slots)
        return StreamingResponse(tail_parts(batches), media_type="application/vnd.headrace.frames")

    def _slots(self, content_type: str, body: bytes) -> npt.NDArray[np.uint32]:
        directory = self.plant.directory
        if content_type.startswith("application/json"):
            try:
                pattern = json.loads(body)["pattern"]
                found = directory.find(str(pattern))
            except (ValueError, KeyError, TypeError, HeadraceError) as e:
                raise HTTPException(400, f'the body is not {{"pattern": "..."}}: {e}') from e
            groups = directory.group_id[np.unique(found.slot)]
            # Frames of a group's earlier layouts may wait as well.
            return np.flatnonzero(np.isin(directory.group_id, groups)).astype(np.uint32)
        if len(body) % 4:
            raise HTTPException(400, f"{len(body)} bytes are no list of slots: 4 bytes each")
        slots = np.frombuffer(body, np.uint32)
        if len(slots) and int(slots.max()) >= directory.n_slots:
            raise HTTPException(404, f"slot {int(slots.max())} is not known; there are {directory.n_slots}")
        return slots

    def _started(self) -> None:
        if self.plant.state not in ("running", "stopping"):
            raise HTTPException(503, f"the plant is {self.plant.state}; ask again in a moment")


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > _MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {_MAX_BODY_BYTES:,} bytes")
    return bytes(data)


class _Envelope:
    """Says in every answer which process answers and what time it is there; refuses foreign host names.

    A web page may make its own name point to loopback to read what only this machine should see; such a
    request carries the page's name.
    """

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app, self._clock = app, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = dict(scope["headers"]).get(b"host", b"localhost").decode("latin-1")

        async def send_signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                signed = [
                    (PID_HEADER.lower().encode(), str(os.getpid()).encode()),
                    (NOW_HEADER.lower().encode(), str(self._clock.now_ns()).encode()),
                ]
                message = {**message, "headers": [*message.get("headers", []), *signed]}
            await send(message)

        answer = self._app
        if not _LOOPBACK.fullmatch(host):
            answer = problem(403, f"{host!r} is not this machine; ask 127.0.0.1 or localhost")
        await answer(scope, receive, send_signed)


async def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        code = "not-ready" if error.status_code == 503 else ""
        return problem(error.status_code, error.detail, code)
    if isinstance(error, NotFound):
        return problem(404, str(error))
    return problem(500, f"unexpected {type(error).__name__}: {error}")


def build_app(plant: Plant, clock: Clock) -> ASGIApp:
    """The application over a plant, which may not have started yet."""
    handlers: dict[Any, Any] = {HTTPException: _refused, HeadraceError: _refused, Exception: _refused}
    return _Envelope(Starlette(routes=_Routes(plant, clock).all(), exception_handlers=handlers), clock)


class _QuietServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the command that started us has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ApiServer:
    """The HTTP port of a plant.

    Order of calls: `bind` (takes the port; nothing is answered yet), `start` (answers, also while the plant
    recovers), `stop`.

    Parameters
    ----------
    host, port : where to listen, loopback only; port 0 takes any that is free.
    """

    def __init__(self, plant: Plant, host: str, port: int, clock: Clock) -> None:
        if not _LOOPBACK.fullmatch(f"[{host}]" if ":" in host else host):
            raise ConfigError(
                f"listening on {host} needs a token, which a later version brings; use 127.0.0.1",
                "api.listen",
            )
        self._plant, self._host, self._port, self._clock = plant, host, port, clock
        self._socket: socket.socket | None = None
        self._server: _QuietServer | None = None
        self._task: asyncio.Task[None] | None = None

    def bind(self) -> None:
        """Take the port.

        Raises
        ------
        ConfigError : it is in use, or not ours to take.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self._host, self._port))
            sock.listen(128)
        except OSError as e:
            sock.close()
            if e.errno == errno.EADDRINUSE:
                why = f"port {self._port} of {self._host} is in use by another program: stop it, or write"
            else:
                why = f"can't listen on {self._host}:{self._port} ({e.strerror}): write"
            raise ConfigError(f'{why} listen = "127.0.0.1:0" for any free port', "api.listen") from e
        self._socket = sock

    @property
    def address(self) -> str:
        """``http://127.0.0.1:8844``, once bound."""
        assert self._socket is not None
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Answer on the port."""
        assert self._socket is not None
        config = uvicorn.Config(
            build_app(self._plant, self._clock), log_config=None, access_log=False, lifespan="off", ws="none",
            timeout_graceful_shutdown=1, server_header=False,
        )  # fmt: skip
        self._server = _QuietServer(config)
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="headrace-api")

    async def stop(self) -> None:
        """Answer what is under way, then close the port. May be called twice, and before `start`."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
            self._task = None
        if self._socket is not None:
            self._socket.close()


@contextlib.asynccontextmanager
async def announced(disk: Disk, address: str, clock: Clock) -> AsyncIterator[None]:
    """Say in the store where this process answers; take it back at the end."""
    announce(disk, Announcement(os.getpid(), address, str(rfc3339(clock.now_ns()))))
    try:
        yield
    finally:
        withdraw(disk)
