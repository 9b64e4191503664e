"""Connections of the public port: many may be open, none for ever without asking anything."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

LOOK_S = 10.0
"""A connection that finishes no request between two looks so far apart is closed, unless one is being answered."""
_OPEN_FILES_MAX = 65_536
_OTHER_FILES = 256


class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """HTTP/1.1 that closes connections whose client sends no whole request head in time.

    uvicorn itself bounds the pause between two requests only, not the time before the first, nor within a head.
    """

    _look: asyncio.TimerHandle | None = None
    _seen: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to look."""
        super().connection_made(transport)
        self._look = self.loop.call_later(LOOK_S, self._look_again)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _look_again(self) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return  # gone, or a web socket by now
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self._seen is self.cycle:
            self.transport.close()
            return
        self._seen = self.cycle
        self._look = self.loop.call_later(LOOK_S, self._look_again)


def allow_many() -> int:
    """Raise this process's bound of open files as far as it may; how many connections that leaves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, _OPEN_FILES_MAX) if hard != resource.RLIM_INFINITY else _OPEN_FILES_MAX
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(wanted - _OTHER_FILES, 64)
