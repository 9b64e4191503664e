"""A broker for tests and trials.

The broker is mosquitto where it is installed, else amqtt, which is pure Python and keeps nothing over a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from enum import StrEnum
from pathlib import Path
from typing import Any

from headrace.core.clock import SystemClock
from headrace.core.errors import NotConnected

_START_S = 10.0
_MOSQUITTO_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")


class BrokerKind(StrEnum):
    """Which program the broker is."""

    MOSQUITTO = "mosquitto"
    AMQTT = "amqtt"


def find_mosquitto() -> str | None:
    """Where mosquitto is installed; None where it isn't."""
    return shutil.which("mosquitto") or next(
        (found for folder in _MOSQUITTO_FOLDERS if (found := shutil.which("mosquitto", path=folder))), None
    )


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as one:
        one.bind((host, 0))
        port: int = one.getsockname()[1]
        return port


class SimulatedBroker:
    """A broker of our own on a loopback port.

    Parameters
    ----------
    folder : for its configuration and what it keeps over a restart (mosquitto).
    lines : more lines of mosquitto's configuration (users, TLS).
    port : default: a free one; it stays the same over restarts.
    """

    def __init__(
        self,
        folder: Path,
        kind: BrokerKind | None = None,
        lines: tuple[str, ...] = (),
        port: int | None = None,
    ) -> None:
        self.kind = kind or (BrokerKind.MOSQUITTO if find_mosquitto() else BrokerKind.AMQTT)
        self.host = "127.0.0.1"
        self.port = free_port() if port is None else port
        self._folder = folder
        self._lines = lines
        self._process: asyncio.subprocess.Process | None = None
        self._inside: Any = None

    @property
    def url(self) -> str:
        """What to write in the plant file."""
        return f"mqtt://{self.host}:{self.port}"

    async def start(self) -> None:
        """Start and wait until it listens.

        Raises
        ------
        NotConnected : it does not listen within 10 s.
        """
        if self.kind is BrokerKind.MOSQUITTO:
            await self._start_mosquitto()
        else:
            await self._start_amqtt()
        try:
            async with asyncio.timeout(_START_S):
                await self._listening()
        except TimeoutError as e:
            raise NotConnected(f"the broker does not listen on {self.host}:{self.port}") from e

    async def _listening(self) -> None:
        clock = SystemClock()
        is_up = False
        while not is_up:
            await clock.sleep(0.02)
            is_up = await self._is_listening()

    async def _is_listening(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    async def _start_mosquitto(self) -> None:
        file = self._folder / "mosquitto.conf"
        lines = [f"listener {self.port} {self.host}", "max_queued_messages 0", *self._lines]
        if not any(line.startswith("allow_anonymous") for line in lines):
            lines.append("allow_anonymous true")
        # As root mosquitto would become another user, who can't write here.
        lines += [
            "user root",
            "persistence true",
            f"persistence_location {self._folder}/",
            "autosave_interval 1",
        ]
        file.write_text("\n".join(lines) + "\n")
        self._process = await asyncio.create_subprocess_exec(
            str(find_mosquitto()), "-c", str(file),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

    async def _start_amqtt(self) -> None:
        from amqtt.broker import Broker
        from amqtt.contexts import BrokerConfig, ListenerConfig

        listener = ListenerConfig(bind=f"{self.host}:{self.port}")
        plugins: dict[str, dict[str, Any]] = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {}}
        self._inside = Broker(BrokerConfig(listeners={"default": listener}, plugins=plugins))
        await self._inside.start()

    async def stop(self) -> None:
        """End in order: mosquitto keeps sessions and what waits in them."""
        if self._process is not None:
            self._process.terminate()
            await self._process.wait()
            self._process = None
        if self._inside is not None:
            await self._inside.shutdown()
            self._inside = None

    async def kill(self) -> None:
        """End it the hard way (mosquitto)."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self._process = None
