"""``headrace run`` as a process of its own, for tests of what happens when it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.core.clock import NS, monotonic_ns


class PlantProcess:
    """``headrace run plant.toml`` in a folder, as often as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder / "run.log"
        self._log_from = 0

    def start(
        self, *arguments: str, web: bool = False, before: Callable[[], None] | None = None, **environment: str
    ) -> None:
        """Start it; `before` runs in the new process. Without `web` the engine answers for itself.

        The api process takes as long to start as the engine, and few tests ask it anything.
        """
        self._log_from = self._log.stat().st_size if self._log.exists() else 0
        no_web = () if web else ("--no-web",)
        command = [sys.executable, "-m", "headrace", "run", "plant.toml", *no_web, *arguments]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **environment}, preexec_fn=before,
            )  # fmt: skip

    def run(self, *arguments: str, web: bool = False, timeout_s: float = 60.0) -> tuple[int, str]:
        """Run it to its end, which comes by itself: exit code and what it said."""
        self.start(*arguments, web=web)
        return self.wait(timeout_s), self.said

    @property
    def said(self) -> str:
        """What the present process has said."""
        return self._log.read_bytes()[self._log_from :].decode()

    @property
    def pid(self) -> int:
        """Of the present process."""
        assert self.process is not None
        return self.process.pid

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for its end; the exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def until(self, what: Callable[[], Any], timeout_s: float = 60.0) -> Any:
        """Poll ``what()`` until it gives something; the process must live meanwhile."""
        assert self.process is not None
        end_ns = monotonic_ns() + int(timeout_s * NS)
        while monotonic_ns() < end_ns:
            found = what()
            if found:
                return found
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.said}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        raise AssertionError(f"it did not come within {timeout_s} s; it said: {self.said}; {self.status()}")

    def up(self) -> None:
        """Wait until it answers."""
        self.until(lambda: self.address() and self._get("/readyz") is not None)

    def address(self) -> str:
        """Where it answers, ``http://host:port``; empty as long as it does not."""
        try:
            found = json.loads((self.store / "running.json").read_bytes())
        except (OSError, ValueError):
            return ""
        return str(found["address"]) if found["pid"] == self.pid else ""

    def _get(self, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(self.address() + path, timeout=5) as answer:
                return bytes(answer.read())
        except (OSError, ValueError):
            return None

    def status(self) -> dict[str, Any]:
        """What ``/api/v1/status`` says; empty where nobody answers."""
        found: dict[str, Any] = json.loads(self._get("/api/v1/status") or b"{}")
        return found

    def adapter(self) -> dict[str, Any]:
        """The plant's only adapter, as the status says."""
        return dict((self.status().get("adapters") or [{}])[0])

    def kill(self) -> None:
        """End it as a power cut does; nothing happens where it does not run."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM, and no longer than it may take; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)
