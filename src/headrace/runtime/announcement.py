"""How a running engine is found: ``running.json`` in its store, and questions over HTTP.

The engine writes the file when it answers and removes it when it stops. An engine that was killed leaves it
behind: a file whose process is gone, or whose address does not answer for it, is stale and counts as none.

Only the engine's own user may read the file, because it holds the key of the control port.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from headrace.core.disk import Disk, LocalDisk, storage_error
from headrace.core.errors import (
    ConfigError,
    HeadraceError,
    NotAllowed,
    NotFound,
    Overloaded,
    StorageError,
    Unreachable,
)

RUNNING_FILE = "running.json"
PID_HEADER, NOW_HEADER = "Headrace-Pid", "Headrace-Now-Ns"
BEHIND_HEADER = "Headrace-Behind"
"""How many journal records were taken before the question and are not in the answer; left out where all are."""
TOKEN_VARIABLE = "HEADRACE_TOKEN"
"""Environment variable with the token for an engine that is named by its public address."""
CA_VARIABLE, CERT_VARIABLE = "HEADRACE_CA_FILE", "HEADRACE_CERT_FILE"
"""Environment variables with the authorities that vouch for such an engine, default the system's, and with our own
certificate and its key in one file, where the engine asks for one."""
TIMEOUT_S = 5.0
PUBLIC_TIMEOUT_S = 20.0
"""For the public address: its process may be starting anew, and the question waits until it answers."""
MAX_ANSWER_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Announcement:
    """An engine's own word.

    Parameters
    ----------
    pid : which process it is. address : where everybody asks it, ``http://127.0.0.1:8844``.
    control : where programs of this machine that have the `key` steer it. started : since when (RFC 3339).
    """

    pid: int
    address: str
    control: str
    key: str
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


def announce(disk: LocalDisk, announcement: Announcement) -> None:
    """Write ``running.json``, atomically, for our own user only. Raises `StorageError`."""
    path = disk.root / RUNNING_FILE
    temporary = path.with_name(f".{RUNNING_FILE}.{os.getpid()}.tmp")
    try:
        disk.root.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        # The mode is there from the first moment: another user must not catch the key in between.
        fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(announcement)) + "\n")
        temporary.replace(path)
    except OSError as e:
        raise storage_error("write", path, e) from e


def withdraw(disk: Disk) -> None:
    """Remove ``running.json``; a disk that refuses leaves a stale file, which readers recognise."""
    with contextlib.suppress(StorageError):
        disk.delete(RUNNING_FILE)


def read_announcement(disk: Disk) -> Announcement | None:
    """The engine that runs on a store; None where none does (no file, unreadable, or its process is gone)."""
    try:
        data = json.loads(bytes(disk.read(RUNNING_FILE)))
        texts = (str(data[name]) for name in ("address", "control", "key", "started"))
        found = Announcement(int(data["pid"]), *texts)
    except (NotFound, StorageError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if found.is_alive() else None


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What an engine said, what time it was in the plant, and how many records its answer is behind."""

    body: bytes
    now_ns: int
    n_behind: int = 0

    def json(self) -> Any:
        """The body, which is JSON. Raises `Unreachable`: it is not."""
        try:
            return json.loads(self.body)
        except ValueError as e:
            raise Unreachable("the answer is not a Headrace engine's: no JSON") from e


class EngineClient:
    """Questions to a running engine.

    Parameters
    ----------
    address : ``http://127.0.0.1:8844``. key : its control key, or a token of its public address.
    pid : the process that must answer; None for whoever does. A port may have gone to another program.
    public : the address to tell people, where `address` is that of the control port.
    """

    def __init__(
        self,
        address: str,
        pid: int | None = None,
        timeout_s: float = TIMEOUT_S,
        *,
        key: str = "",
        public: str = "",
    ) -> None:
        self.address = address.rstrip("/")
        self.pid = pid
        self.timeout_s = timeout_s
        self.key = key
        self.public = public or self.address
        self._opener = _OPENER

    @classmethod
    def announced(cls, by: Announcement) -> EngineClient:
        """To the control port of the engine that announced itself."""
        return cls(by.control, by.pid, key=by.key, public=by.address)

    @classmethod
    def at(cls, address: str) -> EngineClient:
        """To an engine's public address, with the token and the certificates of the environment.

        Raises
        ------
        ConfigError : a file of certificates can't be used.
        """
        client = cls(address, timeout_s=PUBLIC_TIMEOUT_S, key=os.environ.get(TOKEN_VARIABLE, ""))
        if urlsplit(address).scheme == "https":
            client._opener = _https_opener()
        return client

    def json(self, path: str) -> Any:
        """The answer, which is JSON. Raises as `ask`."""
        return self._parsed(path, self.ask(path))

    def send(self, method: str, path: str, document: Any = None) -> Any:
        """Ask for a change, or say one, with a JSON document; the answer, None where it is empty. Raises as `ask`."""
        body = b"" if document is None else json.dumps(document).encode()
        answer = self.ask(path, body, method=method)
        return self._parsed(path, answer) if answer.body else None

    def follow(self, path: str) -> Iterator[Any]:
        """JSON documents line by line as they come, for ever; None for a line that only says that it lives.

        Raises as `ask`, also when it ends in the middle.
        """
        try:
            with self._opener.open(self._request(path, None), timeout=self.timeout_s) as answer:
                self._check_engine(answer.headers)
                for line in answer:
                    yield json.loads(line) if line.strip() else None
        except urllib.error.HTTPError as e:
            with e:
                self._check_engine(e.headers)
                raise _problem(e) from e
        except ValueError as e:
            raise Unreachable(f"{self.address}{path} does not answer as a Headrace engine: no JSON") from e
        except (OSError, http.client.HTTPException) as e:
            raise Unreachable(f"the engine at {self.address} has ended: {_why(e)}") from e

    def _request(self, path: str, body: bytes | None, method: str | None = None) -> urllib.request.Request:
        if urlsplit(self.address).scheme not in ("http", "https"):
            raise Unreachable(f"{self.address!r} is no http address")
        request = urllib.request.Request(self.address + path, data=body, method=method)
        if self.key:
            request.add_header("Authorization", f"Bearer {self.key}")
        return request

    def _parsed(self, path: str, answer: EngineAnswer) -> Any:
        try:
            return json.loads(answer.body)
        except ValueError as e:
            raise Unreachable(f"{self.address}{path} does not answer as a Headrace engine: no JSON") from e

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> EngineAnswer:
        """Ask (GET, or POST where there is a body, unless `method` says otherwise).

        Raises
        ------
        Unreachable : nobody answers there, or no engine, or another one.
        NotFound : the engine has no such thing; Overloaded : it takes nothing now; NotAllowed : not with
        this key; ConfigError : what was asked makes no sense; HeadraceError : it refuses, in its words.
        """
        request = self._request(path, body, method)
        if body is not None:
            request.add_header("Content-Type", content_type)
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with self._opener.open(request, timeout=self.timeout_s) as answer:
                now_ns = self._check_engine(answer.headers)
                n_behind = int(answer.headers.get(BEHIND_HEADER, "0"))
                return EngineAnswer(answer.read(MAX_ANSWER_BYTES), now_ns, n_behind)
        except urllib.error.HTTPError as e:
            with e:
                self._check_engine(e.headers)
                raise _problem(e) from e
        except (OSError, http.client.HTTPException) as e:
            raise Unreachable(f"no engine answers at {self.address}: {_why(e)}") from e

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


def _https_opener() -> urllib.request.OpenerDirector:
    """As `_OPENER`, with the certificates of the environment. Raises ConfigError."""
    import ssl

    authorities, own = os.environ.get(CA_VARIABLE), os.environ.get(CERT_VARIABLE)
    variable, path = CA_VARIABLE, authorities
    try:
        context = ssl.create_default_context(cafile=authorities)
        if own:
            variable, path = CERT_VARIABLE, own
            context.load_cert_chain(own)
    except OSError as e:  # also what OpenSSL says of a file
        raise ConfigError(f"{variable} is {path}, which can't be used: {e.strerror or e}") from e
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )


def _why(error: Exception) -> str:
    """Why a connection failed, and what to do where a certificate is not trusted."""
    reason = getattr(error, "reason", None) or error
    text = getattr(reason, "verify_message", "")
    if not text:
        return str(reason)
    return f"its certificate is not trusted ({text}); set {CA_VARIABLE} to the file of who vouches for it"


def _problem(error: urllib.error.HTTPError) -> HeadraceError:
    """What a refusal (RFC 9457) says."""
    try:
        detail = str(json.loads(error.read(1 << 20))["detail"])
    except (ValueError, KeyError, TypeError, OSError):
        detail = f"{error.code} {error.reason}"
    kinds: dict[int, type[HeadraceError]] = {
        400: ConfigError,
        401: NotAllowed,
        403: NotAllowed,
        404: NotFound,
        429: Overloaded,
    }
    return kinds.get(error.code, HeadraceError)(detail)
