"""The worked example of an adapter in a package of its own: installed, it passes the kit and runs in a plant."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest
from tests.integration.packages import EXAMPLES, environment, install, python

PACKAGE = EXAMPLES / "headrace-scale"
ENTRY_POINTS = "[headrace.adapters]\nscale = headrace_scale.adapter:ScaleAdapter\n"
LINES_MAX = 120
PLANT = """version = 1
[plant]
levels = ["site", "area", "device", "signal"]
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
[adapters.dispatch]
protocol = "scale"
host = "127.0.0.1"
port = {port}
path = "leon/dispatch/scale1"
interval = "20ms"
timeout = "60s"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package."""
    return install(PACKAGE, tmp_path_factory.mktemp("site"), ENTRY_POINTS)


def test_it_is_small_enough_to_be_copied() -> None:
    written = [line for file in (PACKAGE / "src").rglob("*.py") for line in file.read_text().splitlines()]
    assert len(written) < LINES_MAX


def test_its_own_tests_pass(installed: Path) -> None:
    tests = str(PACKAGE / "tests")
    out = python(
        installed,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--asyncio-mode=auto",
        tests,
    )
    assert "passed" in out
    skipped = {line.rpartition(": ")[2] for line in out.splitlines() if line.startswith("SKIPPED")}
    assert skipped == {
        "the peer is not told what is durable", "the adapter captures nothing", "it is one device", "a scale has no clock",
        "it sends a weight and nothing else", "an answer is asked for", "it sends text", "it is told nothing",
    }  # fmt: skip


def test_it_is_listed_with_its_package(installed: Path) -> None:
    listed = json.loads(python(installed, "-m", "headrace", "plugins", "list", "adapters", "--json"))
    (one,) = [p for p in listed if p["name"] == "scale"]
    assert one["package"] == "headrace-scale 1.0.0"
    assert not one["problem"]


def test_a_plant_runs_it(installed: Path, headrace) -> None:
    """What a scale says is in the store, and what it should not have said is a reject."""
    with socket.create_server(("127.0.0.1", 0)) as scale:
        said = threading.Thread(target=_weigh, args=(scale,), daemon=True)
        said.start()
        (headrace.folder / "plant.toml").write_text(PLANT.format(port=scale.getsockname()[1]))
        headrace.start(**environment(installed))
        headrace.up()
        headrace.until(
            lambda: headrace.status()["samples"]["received"] >= 2 and headrace.adapter()["rejects"] >= 1
        )
        assert headrace.stop() == 0
    query = ("-m", "headrace", "query", "leon/dispatch/**", "--last=1h", "--json", "-t", str(headrace.store))
    rows = json.loads(python(installed, *query))["rows"]
    assert [(row["value"], row["quality"]) for row in rows] == [(12.345, "good"), (12.5, "uncertain")]


def _weigh(scale: socket.socket) -> None:
    connection, _ = scale.accept()
    for answer in (b"S S     12.345 kg", b"S D     12.500 kg", b"S +"):
        assert connection.recv(64) == b"SI\r\n"
        connection.sendall(answer + b"\r\n")
    connection.recv(64)  # the next question
    connection.recv(64)  # it waits for an answer until it ends
    connection.close()
