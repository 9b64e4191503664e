"""What a program says on its standard error: into the log, but not more than it can bear, and without secrets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from headrace.core.clock import NS, monotonic_ns

LINES_MAX, WINDOW_NS = 10, 10 * NS
CHARACTERS_MAX = 400
_LINE_BYTES_MAX = 4 * CHARACTERS_MAX
"""One endless line is told by its beginning."""
_READ_BYTES = 4_096
_HIDDEN = "***"
_PART_MIN = 4
"""Characters of a secret that are hidden where a line break parts it; fewer give little away, and are in any text."""
_log = logging.getLogger("headrace.adapters.exec")


class HiddenSecrets:
    """Takes secrets out of lines, also where they go over several lines: each is looked at alone, and told at once.

    Hidden is a secret, or a line of one that has several, wherever it is; and of a secret that was broken what ends a
    line, begins one, or is a whole line, from four characters on.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        parts = {part for secret in secrets for part in secret.splitlines() if len(part) >= _PART_MIN}
        self._secrets = sorted({*secrets, *parts}, key=lambda one: (-len(one), one))

    def taken_out(self, text: str) -> str:
        """The line without them."""
        text = text.strip()
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
            if len(text) >= _PART_MIN and text in secret:
                return _HIDDEN
            if secret[:_PART_MIN] in text:
                text = _without_end(text, secret)
            if secret[-_PART_MIN:] in text:
                text = _without_end(text[::-1], secret[::-1])[::-1]
        return text


def _without_end(text: str, secret: str) -> str:
    """A text whose end begins a secret, without that."""
    for n in range(min(len(secret) - 1, len(text)), _PART_MIN - 1, -1):
        if text.endswith(secret[:n]):
            return text[:-n] + _HIDDEN
    return text


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
        self.last, rest, hidden = "", b"", HiddenSecrets(secrets)
        while data := await reader.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(line, hidden)
            rest = rest[:_LINE_BYTES_MAX]
        self._take(rest, hidden)

    def _take(self, line: bytes, hidden: HiddenSecrets) -> None:
        # The last character may be cut, too.
        text = line[:_LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\ufffd")
        text = hidden.taken_out(text)
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
