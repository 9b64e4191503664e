"""What processes of our own that are children of the engine have in common: last words, and an end with the engine."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

_LINES, _CHARACTERS = 5, 500


class LastWords:
    """The last lines that a process writes: plug-ins print, and an interpreter that fails says why."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)

    @property
    def text(self) -> str:
        """The last of them, behind a colon; empty where there is none."""
        return f": {self._lines[-1]}" if self._lines else ""

    async def hear(self, stream: asyncio.StreamReader) -> None:
        """Read all there is to its end, so that nobody waits for a full pipe."""
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                continue  # longer than a line may be
            if not line:
                return
            if text := line.decode(errors="replace").strip():
                self._lines.append(text[:_CHARACTERS])


def end_with_parent(grace_s: float, end: Callable[[], Any] = lambda: None) -> None:
    """In the child: call `end`, in another thread, when stdin ends, as it does with the engine; soon after be gone."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4_096):
            pass
        end()
        timer = threading.Timer(grace_s, os._exit, (1,))
        timer.daemon = True
        timer.start()

    threading.Thread(target=watch, name="headrace-parent", daemon=True).start()
