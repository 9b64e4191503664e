"""``python -m headrace.api``: the api process of an engine, started by it and ended with it.

The first line of stdin says how to answer (`ApiSettings`); its end, which the kernel brings about also when the
engine is killed, ends this process. It says ``ready`` on stdout when it answers.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading

import uvicorn

from headrace.api.app import create_app
from headrace.api.backend import Backend
from headrace.api.certificates import RenewedContext
from headrace.api.connections import PatientProtocol, allow_many
from headrace.api.settings import ApiSettings
from headrace.runtime.child_life import end_with_parent
from headrace.runtime.server import QuietServer
from headrace.runtime.warm import warm_queries

READY = b"ready\n"
_GRACE_S = 2
_KEEP_ALIVE_S = 15
_RENEW_S = 1.0
_CYCLES = (10_000, 10, 10)  # new objects before a look at them, and such looks before one at older ones
_log = logging.getLogger("headrace.api")


class _ApiServer(QuietServer):
    """Says on stdout when it answers, and only then loads what no first caller should wait for."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _look_for_cycles_seldom()
        os.write(sys.stdout.fileno(), READY)
        threading.Thread(target=warm_queries, name="headrace-warm", daemon=True).start()


def _look_for_cycles_seldom() -> None:
    """Half of what it costs to accept thousands of connections at once went into looking for cycles among them."""
    gc.freeze()
    gc.set_threshold(*_CYCLES)


def _renew(context: RenewedContext) -> None:
    """Read certificate, key and authorities anew for connections that come."""
    try:
        context.renew()
    except (OSError, ssl.SSLError) as e:  # the engine has looked at them: somebody writes them just now
        _log.warning("the certificate can't be read anew: %s; trying again", e)
        asyncio.get_running_loop().call_later(_RENEW_S, _renew, context)


async def serve(settings: ApiSettings, sock: socket.socket) -> None:
    """Answer on `sock` until stdin ends or SIGTERM comes."""
    backend = Backend(settings, settings.clock())
    config = uvicorn.Config(
        create_app(backend), http=PatientProtocol, log_config=None, access_log=False, lifespan="on",
        server_header=False, timeout_graceful_shutdown=_GRACE_S, timeout_keep_alive=_KEEP_ALIVE_S,
        limit_concurrency=allow_many(),
    )  # fmt: skip
    config.load()
    server = _ApiServer(config)
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = True

    loop.add_signal_handler(signal.SIGTERM, end)
    if settings.tls is not None:
        config.ssl = context = RenewedContext(settings.tls)
        loop.add_signal_handler(signal.SIGHUP, _renew, context)
    end_with_parent(_GRACE_S + 1.0, lambda: loop.call_soon_threadsafe(end))
    try:
        await server.serve([sock])
    finally:
        await backend.close()


def main() -> None:
    """Read the settings, answer, end with the engine."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the engine
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(sys.stdin.fileno(), 1)
        if not part:
            return
        line += part
    settings = ApiSettings.from_json(line)
    asyncio.run(serve(settings, socket.socket(fileno=settings.fd)))


if __name__ == "__main__":
    main()
