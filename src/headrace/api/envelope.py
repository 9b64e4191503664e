"""What every request of the public port passes: who asks, and which engine answers at what time.

Without tokens only this machine may ask, and only by this machine's names: a web page may make its own name point to
loopback to read what it should not see; such a request carries the page's name.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.core.clock import Clock
from headrace.runtime.announcement import NOW_HEADER, PID_HEADER
from headrace.runtime.control_routes import problem
from headrace.runtime.server import is_loopback


class PublicEnvelope:
    """The outermost layer of the public port.

    Parameters
    ----------
    pid : the engine's process. clock : the plant's.
    """

    def __init__(self, app: ASGIApp, *, pid: int, clock: Clock) -> None:
        self._app, self._clock = app, clock
        self._pid = str(pid).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                signed = [
                    (PID_HEADER.lower().encode(), self._pid),
                    (NOW_HEADER.lower().encode(), str(self._clock.now_ns()).encode()),
                ]
                message = {**message, "headers": [*message.get("headers", []), *signed]}
            await send(message)

        host = dict(scope["headers"]).get(b"host", b"localhost").decode("latin-1")
        answer = self._app
        if not is_loopback(host):
            answer = problem(403, f"{host!r} is not this machine; ask 127.0.0.1 or localhost")
        await answer(scope, receive, send_signed)
