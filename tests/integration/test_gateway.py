"""New code of an adapter is loaded while the plant runs, in processes of their own that may die."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration.packages import environment, python

from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, HeadraceError
from headrace.runtime.announcement import EngineClient, read_announcement

CODE = (Path(__file__).parent / "counter_adapter.py.txt").read_text()
PLANT = """version = 1
[plant]
levels = ["site", "area", "device", "signal"]
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
[adapters.numbers]
protocol = "counter"
port = {port}
"""


class Numbers:
    """Sends the next number every few milliseconds to whoever is connected, and again what was not acknowledged."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.1)
        self.port = self._server.getsockname()[1]
        self.n_sent = self.n_kept = 0
        self.is_on = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self.is_on:
            with suppress(OSError):
                self._talk(self._server.accept()[0])

    def _talk(self, client: socket.socket) -> None:
        with client:
            client.settimeout(0.002)
            said, number = b"", self.n_kept
            while self.is_on:
                client.sendall(b"%d\n" % number)
                number += 1
                self.n_sent = max(self.n_sent, number)
                with suppress(TimeoutError):
                    part = client.recv(4_096)
                    if not part:
                        return
                    *lines, said = (said + part).split(b"\n")
                    self.n_kept = max([self.n_kept, *(int(line) + 1 for line in lines)])

    def close(self) -> None:
        self.is_on = False
        self._server.close()
        self._thread.join(5)


class Package:
    """The adapter's package in a folder, as an installer leaves it; its code can be another version."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.n_written = folder, 0
        (folder / "headrace_counter").mkdir(parents=True)
        metadata = folder / "headrace_counter-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: headrace-counter\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(
            "[headrace.adapters]\ncounter = headrace_counter.adapter:CounterAdapter\n"
        )
        (folder / "headrace_counter" / "__init__.py").write_text('"""Numbers."""\n')

    def write(self, version: int | str, more_keys: str = "") -> None:
        code = CODE.replace("VERSION", str(version)).replace("# MORE KEYS", more_keys)
        file = self.folder / "headrace_counter" / "adapter.py"
        file.write_text(code)
        # Python takes a file of the same second and size for the one that it has compiled.
        self.n_written += 1
        os.utime(file, (time.time() + self.n_written, time.time() + self.n_written))


def test_new_code_is_loaded_while_the_plant_runs(headrace, tmp_path) -> None:
    """Through good and bad versions and deaths of processes: every number is there once, in order."""
    numbers, package = Numbers(), Package(tmp_path / "site")
    package.write(1)
    (headrace.folder / "plant.toml").write_text(PLANT.format(port=numbers.port))
    headrace.start(**environment(package.folder))
    headrace.up()
    goes_on(headrace, numbers)
    announced = read_announcement(LocalDisk(headrace.store))
    assert announced is not None
    engine = EngineClient.announced(announced)
    engine.timeout_s = 60
    assert pid_of(engine) is None, "it is in the engine"

    package.write(2)
    found = engine.send("POST", "/api/v1/adapters/numbers/reload", {"by": "ann"})
    assert found == {"adapter": "numbers", "lines": [], "new_code": True}
    second = headrace.until(lambda: pid_of(engine))
    goes_on(headrace, numbers)

    package.write(3, "this is no Python")
    with pytest.raises(HeadraceError, match=r"adapter 'counter' can't be loaded: invalid syntax"):
        engine.send("POST", "/api/v1/adapters/numbers/reload", {"by": "ann"})
    package.write(3, "host: str")
    with pytest.raises(ConfigError, match=r"adapters\.numbers\.host: is missing"):
        engine.send("POST", "/api/v1/adapters/numbers/reload", {"by": "ann"})
    assert pid_of(engine) == second, "the old one runs on"
    goes_on(headrace, numbers)
    os.kill(headrace.pid, signal.SIGHUP)
    headrace.until(
        lambda: "adapter numbers runs on as it is: adapters.numbers.host: is missing" in headrace.said
    )

    package.write(4)
    os.kill(headrace.pid, signal.SIGHUP)
    fourth = headrace.until(lambda: pid_of(engine) not in (None, second) and pid_of(engine))
    goes_on(headrace, numbers)
    assert not is_alive(second)

    os.kill(fourth, signal.SIGKILL)
    headrace.until(lambda: "its gateway process was ended by SIGKILL" in headrace.said)
    again = headrace.until(lambda: pid_of(engine) not in (None, fourth) and pid_of(engine))
    goes_on(headrace, numbers)
    headrace.until(lambda: f"its gateway process is back, pid {again}" in headrace.said)

    os.kill(again, signal.SIGTERM)  # as systemd does to all processes of a service that is to end
    goes_on(headrace, numbers)
    assert pid_of(engine) == again, "it ends with the engine, which lets it hand on what it has"
    assert headrace.said.count("its gateway process") == 2, "a line when it is lost, a line when it is back"

    headrace.kill()
    until(lambda: not is_alive(again), "the gateway ends with the engine")
    numbers.close()
    query = ("-m", "headrace", "query", "s/a/counter/*", "--last=9000d", "--json", "-t", str(headrace.store))
    rows = json.loads(python(package.folder, *query))["rows"]
    by_name = {
        name: [row["value"] for row in rows if row["path"].endswith(name)] for name in ("number", "version")
    }
    counted, versions = by_name["number"], by_name["version"]
    assert counted == list(range(len(counted)))
    assert numbers.n_kept <= len(counted) <= numbers.n_sent
    assert sorted(set(versions)) == [1, 2, 4]
    assert versions == sorted(versions)


def goes_on(headrace, numbers: Numbers) -> None:
    """Numbers come and are acknowledged."""
    before = numbers.n_sent
    headrace.until(lambda: numbers.n_kept > before + 5)


def pid_of(engine: EngineClient) -> int | None:
    found = engine.json("/api/v1/adapters/numbers")
    return found["pid"] if found["state"] == "connected" else None


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, what: str) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)
