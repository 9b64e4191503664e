"""What every request of the public port passes: who asks, from where, how much; and who answers at what time.

Without tokens only this machine may ask, and only by this machine's names: a web page may make its own name point to
loopback to read what it should not see; such a request carries the page's name. What another page's script sends to
this address carries that page's origin, and changes nothing.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.api.access import CallerRole, Tokens, needed_role
from headrace.core.clock import Clock
from headrace.runtime.announcement import NOW_HEADER, PID_HEADER
from headrace.runtime.control_routes import MAX_BODY_BYTES, problem
from headrace.runtime.server import is_loopback

BODY_PATIENCE_S = 30.0
"""How long a client may take for the next part of its body."""
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="headrace", Basic realm="headrace", charset="UTF-8"'}


class PublicEnvelope:
    """The outermost layer of the public port.

    Parameters
    ----------
    pid : the engine's process. clock : the plant's. tokens : who may do what.
    """

    def __init__(self, app: ASGIApp, *, pid: int, clock: Clock, tokens: Tokens) -> None:
        self._app, self._clock, self._tokens = app, clock, tokens
        self._pid = str(pid).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        answer = refusal or self._app
        await answer(scope, _bounded(scope, receive), self._signed(send))

    def _signed(self, send: Send) -> Send:
        async def send_signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                signed = [
                    (PID_HEADER.lower().encode(), self._pid),
                    (NOW_HEADER.lower().encode(), str(self._clock.now_ns()).encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
                message = {**message, "headers": [*message.get("headers", []), *signed]}
            await send(message)

        return send_signed

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        method, path = str(scope.get("method", "GET")), str(scope["path"])
        host = headers.get(b"host", b"localhost").decode("latin-1")
        if not self._tokens and not is_loopback(host):
            return problem(403, f"{host[:200]!r} is not this machine; ask 127.0.0.1 or localhost")
        origin = headers.get(b"origin", b"").decode("latin-1")
        changes = method not in ("GET", "HEAD", "OPTIONS") or scope["type"] == "websocket"
        if origin and changes and urlsplit(origin).netloc.lower() != host.lower():
            return problem(403, f"a page of {origin[:200]} can't change anything here")
        needed = needed_role(method, path)
        if needed is not None:
            role = self._tokens.role(headers.get(b"authorization", b""))
            if role is None:
                return problem(401, "show a token: Authorization: Bearer <token>", headers=_CHALLENGE)
            if role < needed:
                shown = "an operator" if role is CallerRole.OPERATOR else "a viewer"
                return problem(403, f"this needs the token of an {needed.name.lower()}, not of {shown}")
            scope.setdefault("state", {})["role"] = role.name.lower()
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:19]) > MAX_BODY_BYTES:
            return problem(413, f"the body is larger than {MAX_BODY_BYTES:,} bytes")
        return None


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """A body of a bounded size, whose sender keeps on sending."""
    n_bytes, is_whole = 0, False

    async def bounded() -> Message:
        nonlocal n_bytes, is_whole
        if is_whole:  # the next message is the client's leaving, which may take as long as it likes
            return await receive()
        try:
            async with asyncio.timeout(BODY_PATIENCE_S):
                message = await receive()
        except TimeoutError as e:
            raise HTTPException(408, f"no more of the body came for {BODY_PATIENCE_S:.0f} s") from e
        n_bytes += len(message.get("body", b""))
        if n_bytes > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES:,} bytes")
        is_whole = not message.get("more_body", False)
        return message

    return bounded
