"""A child process with all that it starts: a process group of its own, three pipes, and an end that leaves nothing.

The group is killed while the child is a zombie: until it is reaped no other process can get its number.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

PIPE_BYTES = 256 << 10
KILLED_S = 0.3


class ChildProcess:
    """A running child.

    Attributes
    ----------
    stdout, stderr : what it writes; not read, they fill, and it waits. ended : set once it has ended by whatever way.
    """

    def __init__(self, process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self.stdout = asyncio.StreamReader(PIPE_BYTES, loop)
        self.stderr = asyncio.StreamReader(PIPE_BYTES, loop)
        self.ended = asyncio.Event()
        self._process, self._loop = process, loop
        self._transports: list[asyncio.ReadTransport] = []
        self._pidfd = os.pidfd_open(process.pid)
        loop.add_reader(self._pidfd, self._has_ended)

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
    ) -> ChildProcess:
        """Start it; its standard input stays open and silent for as long as we live. It inherits `pass_fds`.

        Raises
        ------
        OSError : there is no such program or folder, or it can't be run.
        """
        pipe = subprocess.PIPE
        process = subprocess.Popen(  # noqa: ASYNC220 - a fork, which takes a millisecond
            list(command), stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder, env=dict(environment),
            start_new_session=True, bufsize=0, pass_fds=pass_fds,
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        child = cls(process, loop)
        try:
            await child._connect(child.stdout, process.stdout)
            await child._connect(child.stderr, process.stderr)
        except BaseException:
            child.close()
            raise
        return child

    async def _connect(self, reader: asyncio.StreamReader, pipe: IO[bytes] | None) -> None:
        transport, _ = await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        self._transports.append(transport)

    @property
    def pid(self) -> int:
        """Its process and group."""
        return self._process.pid

    def _has_ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self.ended.set()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def terminate(self) -> None:
        """Ask it, and all it has started, to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, and all it has started."""
        self._signal(signal.SIGKILL)

    async def end(self, patience_s: float, grace_s: float) -> None:
        """See to it that it ends: it has `patience_s` to do so by itself, then it is asked, after `grace_s` killed."""
        for ask, wait_s in ((None, patience_s), (self.terminate, grace_s), (self.kill, KILLED_S)):
            if ask is not None and not self.ended.is_set():
                ask()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.ended.wait()

    def close(self) -> int:
        """Reap it and let go of its pipes; its exit code, or the number of the signal below 0. May be called twice."""
        self.kill()
        if self._process.returncode is None:
            # Only a process that hangs in the kernel is still there; it is reaped when it has ended.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(KILLED_S)
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        for transport in self._transports:
            transport.close()
        for pipe in filter(None, (self._process.stdin, self._process.stdout, self._process.stderr)):
            pipe.close()
        return int(self._process.returncode or 0)


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
