"""The api process of an engine: started with it, kept alive, ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable

from headrace.api.settings import ApiSettings
from headrace.core.clock import NS, SystemClock, monotonic_ns
from headrace.runtime.child_life import LastWords

_STOP_S = 4.0
_RETRY_S_MIN, _RETRY_S_MAX = 0.5, 30.0
_STEADY_S = 60.0
"""A process that lived so long was no failure to start: the next one is started soon again."""


class ApiProcess:
    """``python -m headrace.api`` as a child that answers on a socket of ours.

    The socket stays open here, so while the child is away callers wait in it instead of being refused. The child
    ends when its stdin does, so also when this process is killed.

    Parameters
    ----------
    settings : what the child is told. sock : bound and listening.
    on_event : told ``(kind, sentence)`` when a child answers for the first time, and when it died.
    """

    def __init__(
        self, settings: ApiSettings, sock: socket.socket, on_event: Callable[[str, str], None]
    ) -> None:
        self._settings, self._sock, self._on_event = settings, sock, on_event
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False
        self.ready = asyncio.Event()
        """Set while the child answers."""
        self.ready_s: float | None = None
        """How long the last child took from its start to its first answer."""

    @property
    def pid(self) -> int | None:
        """The child, while there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Begin; the child answers a second or two later. Returns at once."""
        self._task = asyncio.create_task(self._keep(), name="headrace-api-process")

    def renew_certificate(self) -> bool:
        """Make the child read its certificate anew; False where none answers now: the next one reads it at its start."""
        if self._process is None or not self.ready.is_set():
            return False
        self._process.send_signal(signal.SIGHUP)
        return True

    async def stop(self) -> None:
        """End the child. May be called twice, and before `start`."""
        self._is_stopping = True
        if self._task is None:
            return
        task, self._task = self._task, None
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait([task], timeout=_STOP_S)
        finally:
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def _keep(self) -> None:
        """Start it, and again whenever it has died, later each time."""
        retry_s = _RETRY_S_MIN
        while not self._is_stopping:
            begun_ns = monotonic_ns()
            why = await self._live()
            if self._is_stopping:
                return
            lived_s = (monotonic_ns() - begun_ns) / NS
            retry_s = _RETRY_S_MIN if lived_s > _STEADY_S else retry_s
            self._on_event(
                "api.died",
                f"the process that answers on the public port died ({why}); collecting goes on, it is started again",
            )
            await SystemClock().sleep(retry_s)
            retry_s = min(2 * retry_s, _RETRY_S_MAX)

    async def _live(self) -> str:
        """Run one child to its end; why it ended."""
        begun_ns = monotonic_ns()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace.api",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            pass_fds=(self._sock.fileno(),), start_new_session=True,
        )  # fmt: skip
        self._process = process
        words = LastWords()
        assert process.stdin is not None
        assert process.stderr is not None
        listening = asyncio.create_task(words.hear(process.stderr))
        try:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(self._settings.to_json().encode() + b"\n")
                await process.stdin.drain()
            await self._wait_ready(process, begun_ns)
            code = await process.wait()
        finally:
            self.ready.clear()
            if process.returncode is None:
                process.kill()
                await process.wait()
            listening.cancel()
            self._process = None
        return f"{f'signal {-code}' if code < 0 else f'exit code {code}'}{words.text}"

    async def _wait_ready(self, process: asyncio.subprocess.Process, begun_ns: int) -> None:
        assert process.stdout is not None
        if await process.stdout.readline():
            kind, again = ("api.started", "") if self.ready_s is None else ("api.back", " again")
            self.ready_s = (monotonic_ns() - begun_ns) / NS
            self.ready.set()
            self._on_event(
                kind, f"the public port answers{again}, {self.ready_s:.1f} s after its process was started"
            )
