"""How a running engine is found: ``running.json`` in its store, and questions over HTTP.

The engine writes the file when it answers and removes it when it stops. An engine that was killed leaves it
behind: a file whose process is gone, or whose address does not answer for it, is stale and counts as none.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from headrace.core.disk import Disk
from headrace.core.errors import HeadraceError, NotFound, StorageError, Unreachable

RUNNING_FILE = "running.json"
PID_HEADER, NOW_HEADER = "Headrace-Pid", "Headrace-Now-Ns"
TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Announcement:
    """An engine's own word: which process it is, where it answers, since when (RFC 3339)."""

    pid: int
    address: str
    started: str

    def is_alive(self) -> bool:
        """Whether a process with that number exists on this machine."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # another user's
        return True


def is_store(folder: Path) -> bool:
    """Whether a folder holds a store, or what is left of one."""
    return any((folder / name).exists() for name in ("store.json", "commits", "journal"))


def announce(disk: Disk, announcement: Announcement) -> None:
    """Write ``running.json``, atomically. Raises `StorageError`."""
    text = json.dumps(
        {"pid": announcement.pid, "address": announcement.address, "started": announcement.started}
    )
    disk.replace(RUNNING_FILE, text.encode() + b"\n")


def withdraw(disk: Disk) -> None:
    """Remove ``running.json``; a disk that refuses leaves a stale file, which readers recognise."""
    try:
        disk.delete(RUNNING_FILE)
    except StorageError:
        pass


def read_announcement(disk: Disk) -> Announcement | None:
    """The engine that runs on a store; None where none does (no file, unreadable, or its process is gone)."""
    try:
        data = json.loads(bytes(disk.read(RUNNING_FILE)))
        found = Announcement(int(data["pid"]), str(data["address"]), str(data["started"]))
    except (NotFound, StorageError, ValueError, KeyError, TypeError):
        return None
    return found if found.is_alive() else None


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What an engine said, and what time it was in the plant."""

    body: bytes
    now_ns: int


class EngineClient:
    """Questions to a running engine.

    Parameters
    ----------
    address : ``http://127.0.0.1:8844``.
    pid : the process that must answer; None for whoever does. A port may have gone to another program.
    """

    def __init__(self, address: str, pid: int | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address.rstrip("/")
        self.pid = pid
        self.timeout_s = timeout_s

    def json(self, path: str) -> Any:
        """The answer, which is JSON. Raises as `ask`."""
        try:
            return json.loads(self.ask(path).body)
        except ValueError as e:
            raise Unreachable(f"{self.address}{path} does not answer as a Headrace engine: no JSON") from e

    def ask(
        self, path: str, body: bytes | None = None, content_type: str = "application/json"
    ) -> EngineAnswer:
        """Ask (GET, or POST where there is a body).

        Raises
        ------
        Unreachable : nobody answers there, or no engine, or another one.
        NotFound : the engine has no such thing; HeadraceError : it refuses, in its words.
        """
        if urlsplit(self.address).scheme not in ("http", "https"):
            raise Unreachable(f"{self.address!r} is no http address")
        request = urllib.request.Request(self.address + path, data=body)
        if body is not None:
            request.add_header("Content-Type", content_type)
        try:
            with _OPENER.open(request, timeout=self.timeout_s) as answer:
                now_ns = self._check_engine(answer.headers)
                return EngineAnswer(answer.read(MAX_ANSWER_BYTES), now_ns)
        except urllib.error.HTTPError as e:
            with e:
                self._check_engine(e.headers)
                raise _problem(e) from e
        except (OSError, http.client.HTTPException) as e:
            reason = getattr(e, "reason", None) or e
            raise Unreachable(f"no engine answers at {self.address}: {reason}") from e

    def _check_engine(self, headers: Any) -> int:
        """The time that it is in the plant, where the engine that was asked answers."""
        pid, now_ns = str(headers.get(PID_HEADER, "")), str(headers.get(NOW_HEADER, ""))
        if not pid.isdecimal() or (self.pid is not None and int(pid) != self.pid):
            raise Unreachable(
                f"{self.address} is answered by another program, not by the engine that was asked"
            )
        return int(now_ns)


# A proxy set in the environment must not be asked for what runs on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _problem(error: urllib.error.HTTPError) -> HeadraceError:
    """What a refusal (RFC 9457) says."""
    try:
        detail = str(json.loads(error.read(1 << 20))["detail"])
    except (ValueError, KeyError, TypeError, OSError):
        detail = f"{error.code} {error.reason}"
    return NotFound(detail) if error.code == 404 else HeadraceError(detail)
