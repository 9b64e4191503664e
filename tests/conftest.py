"""Settings that all tests share, and an S3 server for those that need one."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Timings belong to benchmarks: the first example of a test may compile a kernel. Examples are the same in every
# run, so that a failure is there for the next person too; HYPOTHESIS_PROFILE=thorough looks for new ones.
_SHARED = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("steady", max_examples=60, derandomize=True, **_SHARED)
settings.register_profile("thorough", max_examples=1_000, **_SHARED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

_LONG = ("tests/unit/store/test_ageing.py",)
"""Files that take a minute: they come first, so that no worker is left with one while the others have nothing to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; all else as it was."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))


@dataclass
class S3Server:
    """moto's server: it keeps buckets in memory and honours If-None-Match and If-Match, as S3 does."""

    endpoint: str
    log: Path
    process: subprocess.Popen[bytes]
    _names: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def new_bucket(self) -> str:
        """An empty bucket; its name."""
        name = f"bucket-{next(self._names)}"
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.endpoint}/{name}", method="PUT"), timeout=5
        ):
            return name

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """While entered, it answers nobody."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def requests(self) -> list[tuple[str, str]]:
        """All requests so far: method, path with query."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(encoding="utf-8"))
        return re.findall(r'"(GET|PUT|HEAD|DELETE|POST) (\S+) HTTP', text)


@dataclass(frozen=True)
class Bucket:
    """A new bucket on a server, and how a store is kept there."""

    server: S3Server
    name: str

    @property
    def url(self) -> str:
        """Where a store would be, below a prefix."""
        return f"s3://{self.name}/plants/leon"

    @property
    def environment(self) -> dict[str, str]:
        """For processes: where the server is, and who we are to it."""
        return {
            "AWS_ENDPOINT_URL": self.server.endpoint, "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        }  # fmt: skip

    def requests(self) -> list[tuple[str, str]]:
        """Requests about it so far."""
        return [(method, path) for method, path in self.server.requests() if path.startswith(f"/{self.name}")]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server on loopback."""
    for module in ("moto", "flask", "flask_cors", "obstore"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"there is no S3 server here: {module} is not installed (uv sync)")
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield S3Server(_address(process, log), log, process)
    finally:
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + 40
    while time.monotonic() < end:
        found = re.search(r"Running on (http://\S+)", log.read_text(encoding="utf-8"))
        if found:
            return found[1]
        assert process.poll() is None, log.read_text(encoding="utf-8")
        time.sleep(0.05)
    raise AssertionError(f"the S3 server did not come up: {log.read_text(encoding='utf-8')}")


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket; the environment says how to reach it."""
    found = Bucket(s3_server, s3_server.new_bucket())
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found
