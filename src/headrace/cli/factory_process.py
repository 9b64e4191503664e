"""The simulated factory as a process of its own, beside the plant that collects from it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from headrace.core.clock import monotonic_ns
from headrace.core.errors import HeadraceError

_START_TIMEOUT_S = 45.0
_STOP_TIMEOUT_S = 5.0
_SHOWN_BYTES = 2_000


class FactoryProcess:
    """``python -m headrace.sim.plant``: device servers, a broker, and who publishes to it.

    It runs in a session of its own, so that Ctrl-C in the terminal ends first the plant that collects, which
    drains, and then the factory.

    Parameters
    ----------
    seed : everything random in it follows from it. speed : plant seconds a second.
    anchor_ns : when the plant's time and the computer's were the same.
    folder : where it writes its plant file and the broker its messages.
    """

    def __init__(self, seed: int, speed: float, anchor_ns: int, folder: Path) -> None:
        self._arguments = {"seed": seed, "speed": speed, "anchor-ns": anchor_ns, "folder": folder}
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None

    def start(self) -> None:
        """Begin; `wait_ready` says when it is up. Returns at once."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        options = [word for name, value in self._arguments.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen(
            # It ends with its stdin, so also when this process is killed.
            [sys.executable, "-m", "headrace.sim.plant", "--until-eof", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )

    def wait_ready(self) -> dict[str, Any]:
        """What the factory says when all its servers are up: its plant file among other things.

        Raises
        ------
        HeadraceError : it ended, or takes too long; the text has its last words.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        fd, line = self._process.stdout.fileno(), b""
        deadline_ns = monotonic_ns() + int(_START_TIMEOUT_S * 1e9)
        while not line.endswith(b"\n"):
            left_s = (deadline_ns - monotonic_ns()) / 1e9
            if left_s <= 0 or not select.select([fd], [], [], left_s)[0]:
                raise HeadraceError(
                    f"the simulated factory is not up after {_START_TIMEOUT_S:.0f} s{self._last_words()}"
                )
            part = os.read(fd, 65_536)
            if not part:
                raise HeadraceError(f"the simulated factory could not start{self._last_words()}")
            line += part
        facts: dict[str, Any] = json.loads(line)
        return facts

    def _last_words(self) -> str:
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        last = text.splitlines()[-1] if text else ""
        return f": {last[:_SHOWN_BYTES]}" if last else ""

    def stop(self) -> None:
        """End it and all that it started. May be called twice, and before `start`."""
        process = self._process
        if process is None:
            return
        self._process = None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdin, process.stdout, self._errors):
            if stream is not None:
                stream.close()
