"""The engine's control port: on loopback, behind a key, for the programs of this machine that belong to it.

The api process, the command line and queries ask here: status, adapters, the unflushed tail; and what changes
something comes here at the end, whoever asked for it. The key and the address are in the store's ``running.json``,
which only the engine's user can read. `headrace.runtime.control_routes` has what is answered.

Without an api process (``--no-web``) this port stands in for the public one: it listens there, and lets everybody
read who can reach it, which is this machine only.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.core.clock import Clock
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, HeadraceError
from headrace.runtime.announcement import NOW_HEADER, PID_HEADER, Announcement, announce, withdraw
from headrace.runtime.audit import ACTOR_HEADER, AuditLog
from headrace.runtime.control_routes import ControlRoutes, problem, problem_of
from headrace.runtime.times import rfc3339

if TYPE_CHECKING:
    from headrace.runtime.assemble import Plant

_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_OPEN = ("/livez", "/readyz", "/metrics")
_NO_CHANGE = ("/api/v1/tail", "/api/v1/receive/")
_BACKLOG = 4_096
_KEY_BYTES = 24


class Access(Enum):
    """Who may ask without the key."""

    KEYED = auto()
    """Nobody, but for health and metrics."""
    OPEN_READS = auto()
    """Everybody who only reads (GET)."""


def new_key() -> str:
    """A key that nobody can guess."""
    return os.urandom(_KEY_BYTES).hex()


def is_loopback(host: str) -> bool:
    """Whether a host name, with a port or without, is this machine itself."""
    return _LOOPBACK.fullmatch(f"[{host}]" if host.count(":") > 1 and "[" not in host else host) is not None


class _Envelope:
    """Says in every answer which process answers and what time it is there; asks for the key.

    Foreign host names are refused: a web page may make its own name point to loopback to read what only this
    machine should see; such a request carries the page's name.
    """

    def __init__(
        self, app: ASGIApp, clock: Clock, key: str, access: Access, audit: AuditLog | None = None
    ) -> None:
        self._app, self._clock, self._access, self._audit = app, clock, access, audit
        self._bearer = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        writes_down = self._audit if refusal is None and _changes(scope) else None

        async def send_signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                if writes_down is not None:
                    actor = dict(scope["headers"]).get(ACTOR_HEADER.lower().encode(), b"").decode("latin-1")
                    writes_down.write(actor, scope["method"], _target(scope), message["status"])
                signed = [
                    (PID_HEADER.lower().encode(), str(os.getpid()).encode()),
                    (NOW_HEADER.lower().encode(), str(self._clock.now_ns()).encode()),
                ]
                message = {**message, "headers": [*message.get("headers", []), *signed]}
            await send(message)

        await (refusal or self._app)(scope, receive, send_signed)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"localhost").decode("latin-1")
        if not is_loopback(host):
            return problem(403, f"{host!r} is not this machine; ask 127.0.0.1 or localhost")
        is_read = scope["method"] in ("GET", "HEAD")
        if is_read and (scope["path"] in _OPEN or self._access is Access.OPEN_READS):
            return None
        if hmac.compare_digest(headers.get(b"authorization", b""), self._bearer):
            return None
        return problem(
            401, "this port asks for the key in the store's running.json: Authorization: Bearer <key>"
        )


def _changes(scope: Scope) -> bool:
    """Whether a request is to change something; a tail is asked for by POST, and samples are data."""
    return scope["method"] not in ("GET", "HEAD") and not scope["path"].startswith(_NO_CHANGE)


def _target(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    return f"{scope['path']}?{query}" if query else str(scope["path"])


async def _refused(_: Request, error: Exception) -> Response:
    return problem_of(error)


def build_control_app(
    plant: Plant, clock: Clock, key: str, access: Access = Access.KEYED, audit: AuditLog | None = None
) -> ASGIApp:
    """The application over a plant, which may not have started yet."""
    handlers: dict[Any, Any] = {HTTPException: _refused, HeadraceError: _refused, Exception: _refused}
    app = Starlette(routes=ControlRoutes(plant, clock).all(), exception_handlers=handlers)
    return _Envelope(app, clock, key, access, audit)


def bind_port(host: str, port: int) -> socket.socket:
    """Take a port; connections wait in it until somebody answers. Port 0 takes any that is free.

    Raises
    ------
    ConfigError : it is in use, or not ours to take.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as e:
        sock.close()
        if e.errno == errno.EADDRINUSE:
            why = f"port {port} of {host} is in use by another program: stop it, or write"
        else:
            why = f"can't listen on {host}:{port} ({e.strerror}): write"
        raise ConfigError(f'{why} listen = "127.0.0.1:0" for any free port', "api.listen") from e
    return sock


def address_of(sock: socket.socket, scheme: str = "http") -> str:
    """``http://127.0.0.1:8844`` of a socket that is bound."""
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class QuietServer(uvicorn.Server):
    """uvicorn without its own signal handlers: whoever runs it has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class ControlServer:
    """The control port of a plant.

    Order of calls: `bind` (takes the port; nothing is answered yet), `start` (answers, also while the plant
    recovers), `stop`.

    Parameters
    ----------
    key : what a caller must show. access : what it may do without. audit : where changes are written down.
    """

    def __init__(
        self,
        plant: Plant,
        clock: Clock,
        key: str,
        access: Access = Access.KEYED,
        audit: AuditLog | None = None,
    ) -> None:
        self._plant, self._clock, self.key, self._access, self._audit = plant, clock, key, access, audit
        self._socket: socket.socket | None = None
        self._server: QuietServer | None = None
        self._task: asyncio.Task[None] | None = None

    def bind(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Take the port. Raises `ConfigError`: it is in use, or not on loopback."""
        if not is_loopback(host):
            raise ConfigError(
                f"{host} is not this machine: the engine itself answers on loopback only, its api process everywhere",
                "api.listen",
            )
        self._socket = bind_port(host, port)

    @property
    def address(self) -> str:
        """``http://127.0.0.1:40123``, once bound."""
        assert self._socket is not None
        return address_of(self._socket)

    async def start(self) -> None:
        """Answer on the port."""
        assert self._socket is not None
        app = build_control_app(self._plant, self._clock, self.key, self._access, self._audit)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1,
            server_header=False,
        )  # fmt: skip
        self._server = QuietServer(config)
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="headrace-control")

    async def stop(self) -> None:
        """Answer what is under way, then close the port. May be called twice, and before `start`."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
            self._task = None
        if self._socket is not None:
            self._socket.close()


@contextlib.asynccontextmanager
async def announced(
    disk: LocalDisk, address: str, server: ControlServer, clock: Clock
) -> AsyncIterator[None]:
    """Say in the store where this process answers; take it back at the end.

    Parameters
    ----------
    address : the public one.
    """
    started = str(rfc3339(clock.now_ns()))
    announce(disk, Announcement(os.getpid(), address, server.address, server.key, started))
    try:
        yield
    finally:
        withdraw(disk)
