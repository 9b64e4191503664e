"""An MQTT broker of one's own on the loopback interface: mosquitto where it is installed, else amqtt.

Both run as a process of their own, keep messages for clients that are away, and end with the process that
started them, however that ends. Clients give a user name, any one, and no password (amqtt refuses those without).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from enum import StrEnum
from pathlib import Path

from headrace.core.clock import NS, SystemClock, monotonic_ns
from headrace.core.errors import Unreachable

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 1.0
_POLL_S = 0.02
_N_ATTEMPTS = 3
_PATH = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
_SET_PARENT_DEATH_SIGNAL = 1


class BrokerProgram(StrEnum):
    """Which broker runs."""

    MOSQUITTO = "mosquitto"
    AMQTT = "amqtt"


def find_mosquitto() -> str | None:
    """Where mosquitto is installed; None where it is not."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=_PATH)


class Broker:
    """A broker process.

    Parameters
    ----------
    folder : where it keeps its settings, log and messages.
    program : which one; None takes mosquitto where it is installed.
    """

    def __init__(self, folder: Path, program: BrokerProgram | None = None) -> None:
        if program is None:
            program = BrokerProgram.MOSQUITTO if find_mosquitto() else BrokerProgram.AMQTT
        self.program = program
        self.host = "127.0.0.1"
        self.port = 0
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """``mqtt://host:port``, once started."""
        return f"mqtt://{self.host}:{self.port}"

    async def start(self) -> None:
        """Start on a free port (the same one again after a stop) and wait until it takes connections.

        Raises
        ------
        Unreachable : it does not come up; the text has its last words.
        """
        words = ""
        for _ in range(_N_ATTEMPTS):
            port = self.port or free_port(self.host)
            self._process = self._spawn(port)
            if await self._is_up(self._process, port):
                self.port = port
                return
            await self.stop()
            words = self._log.read_text(errors="replace").strip()[-500:]
        raise Unreachable(f"{self.program} does not start on {self.host}: {words or 'it says nothing'}")

    async def stop(self) -> None:
        """End the process, within two seconds. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        deadline = monotonic_ns() + round(STOP_TIMEOUT_S * NS)
        while process.poll() is None and monotonic_ns() < deadline:
            await SystemClock().sleep(_POLL_S)
        if process.poll() is None:
            process.kill()
        process.wait()

    @property
    def _log(self) -> Path:
        return self._folder / "broker.log"

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self.program is BrokerProgram.AMQTT:
            command = [sys.executable, "-m", "headrace.sim.devices.amqtt_server", self.host, str(port)]
        else:
            settings = self._folder / "mosquitto.conf"
            settings.write_text(_settings(self._folder, self.host, port))
            command = [find_mosquitto() or "mosquitto", "-c", str(settings)]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_end_with_parent
            )

    async def _is_up(self, process: subprocess.Popen[bytes], port: int) -> bool:
        deadline = monotonic_ns() + round(START_TIMEOUT_S * NS)
        while process.poll() is None and monotonic_ns() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex((self.host, port)) == 0:
                    return process.poll() is None
            await SystemClock().sleep(_POLL_S)
        return False


def _settings(folder: Path, host: str, port: int) -> str:
    lines = [
        f"listener {port} {host}",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {folder}/",
        # A client that is away or slow loses nothing.
        "max_queued_messages 0",
        "max_inflight_messages 1000",
        "set_tcp_nodelay true",
        "sys_interval 0",
        "log_dest stderr",
        "log_type error",
    ]
    if os.geteuid() == 0:  # else it becomes a user who may not write here
        lines.append("user root")
    return "\n".join(lines) + "\n"


def free_port(host: str) -> int:
    """A port that nobody listens on at the moment. Raises `Unreachable`."""
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise Unreachable(f"can't listen on {host}: {error}") from error
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """Runs in the new process: have the kernel end it when the one that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
