"""What a program says on its standard error: into the log, but not more than it can bear, and without secrets."""

from __future__ import annotations

import asyncio
import logging

from headrace.core.clock import NS, monotonic_ns

LINES_MAX, WINDOW_NS = 10, 10 * NS
CHARACTERS_MAX = 400
_READ_BYTES = 4_096
_HIDDEN = "***"
_log = logging.getLogger("headrace.adapters.exec")


class StderrLog:
    """Logs ten lines in ten seconds, and how many were left out; remembers the last one.

    Parameters
    ----------
    name : the adapter's.

    Attributes
    ----------
    last : the last line of the program that ran last.
    """

    def __init__(self, name: str) -> None:
        self.last = ""
        self.n_left_out = 0
        self._name = name
        self._since_ns = monotonic_ns()
        self._n = 0

    async def listen(self, reader: asyncio.StreamReader, secrets: tuple[str, ...]) -> None:
        """Take all that comes, until it ends."""
        self.last, rest = "", b""
        while data := await reader.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(line, secrets)
            if len(rest) > 4 * CHARACTERS_MAX:
                rest = rest[: 4 * CHARACTERS_MAX]  # one endless line is told by its beginning
        self._take(rest, secrets)

    def _take(self, line: bytes, secrets: tuple[str, ...]) -> None:
        text = line.decode("utf-8", "replace")
        for secret in secrets:
            text = text.replace(secret, _HIDDEN)
        text = "".join(c if c.isprintable() else " " for c in text).strip()[:CHARACTERS_MAX]
        if not text:
            return
        self.last = text
        now_ns = monotonic_ns()
        if now_ns - self._since_ns > WINDOW_NS:
            if self.n_left_out:
                _log.info("adapter=%s: its program said %d lines more", self._name, self.n_left_out)
            self._since_ns, self._n, self.n_left_out = now_ns, 0, 0
        self._n += 1
        if self._n <= LINES_MAX:
            _log.info("adapter=%s: its program says: %s", self._name, text)
        else:
            self.n_left_out += 1
