"""The demonstration from end to end: Modbus TCP, OPC UA, MQTT and Sparkplug over loopback, a store, and questions to it."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest

from headrace.cli.demo import next_commands
from headrace.core.errors import PluginError

# Where kernels are not cached yet, they are compiled first.
HEADRACE = [sys.executable, "-m", "headrace.cli.main"]
FATES = ("stored", "duplicates", "rejected", "thinned")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One short demo with a store that is kept, while the usual port is in use."""
    store = tmp_path_factory.mktemp("demo") / "store"
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8844))
            taken.listen()
        except OSError:
            pass  # in use by somebody else: as good
        done = subprocess.run(
            [*HEADRACE, "demo", "--for", "8s", "--json", "--no-web", "--store", str(store)],
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return store, done


def test_the_summary_is_the_only_document_on_stdout(demo):
    store, done = demo
    summary = json.loads(done.stdout)
    assert summary["store"]["url"] == str(store)
    assert summary["sensors"] >= 1_500
    assert summary["received"] > 5_000
    assert summary["received"] == sum(summary[fate] for fate in FATES)
    assert summary["rejected"] == 0
    assert list(summary["protocols"]) == ["modbus", "opcua", "mqtt", "sparkplug"]
    assert sum(summary["protocols"].values()) == summary["received"]
    assert all(n > 100 for n in summary["protocols"].values())
    assert 0.5 < summary["bytes_per_sample"] < 16
    assert summary["ratio"] == pytest.approx(16 / summary["bytes_per_sample"], rel=0.01)
    stages = {"decode", "normalise", "journal", "pipeline", "encode", "write"}
    assert stages <= set(summary["cpu_ns_per_sample"])
    assert summary["first_stored_s"] > 0
    assert len(summary["next"]) == 3


def test_the_port_in_use_is_told(demo):
    assert "port 8844 is in use; taking another one" in demo[1].stderr
    assert "Traceback" not in demo[1].stderr


def test_the_next_commands_work_as_they_stand(demo):
    summary = json.loads(demo[1].stdout)
    for line in summary["next"]:
        words = shlex.split(line)
        arguments = words[words.index("headrace") + 1 :]
        done = subprocess.run([*HEADRACE, *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert len(done.stdout.splitlines()) > 2, line


def test_all_protocols_are_in_the_store(demo):
    store, _ = demo
    done = subprocess.run(
        [*HEADRACE, "query", "**", "-t", str(store), "--last", "1h", "--agg", "count", "--json"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = {row["path"].split("/")[3].rstrip("0123456789") for row in json.loads(done.stdout)["rows"]}
    assert {"oven", "pump", "dryer"} <= found  # Modbus
    assert {"press"} <= found  # OPC UA
    assert {"robot"} <= found  # Sparkplug
    assert {"meter", "conveyor", "climate"} <= found  # MQTT


def test_nothing_is_left_running(demo):
    store, _ = demo
    assert not (store / "running.json").exists()


def test_ctrl_c_ends_it_with_a_summary_for_people(tmp_path):
    """SIGINT before the summary; the store is in the cache folder, and the next demo takes its place."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    old = tmp_path / "headrace" / "demo-store" / "commits" / "old.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    store = tmp_path / "headrace" / "demo-store"
    process = subprocess.Popen(
        [*HEADRACE, "demo", "--speed", "20"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    try:
        until = time.monotonic() + 150
        while not (store / "running.json").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        time.sleep(2.0)
        process.send_signal(signal.SIGINT)
    finally:
        if process.poll() is None and not (store / "running.json").exists():
            process.kill()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "received" in out
    assert f"query '**/line1/**/temperature' -t {store}" in out
    assert not old.exists()


def test_commands_are_as_the_demo_was_called(tmp_path, monkeypatch):
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    assert next_commands(tmp_path, None)[2] == f"headrace status -t {tmp_path}"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert next_commands(tmp_path, tmp_path / "a b")[2] == f"uv run headrace status -t '{tmp_path}/a b'"


def test_what_is_not_installed_is_told(capsys, monkeypatch):
    from headrace.cli import demo as module

    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name == "asyncua" else "found"
    )
    module._check_installed()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("OPC UA is left out")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "gmqtt" else "found")
    with pytest.raises(PluginError, match=r"needs gmqtt; .*'headrace\[modbus,opcua,mqtt,sparkplug,broker\]'"):
        module._check_installed()
    assert capsys.readouterr().err == ""


def test_wrong_durations_are_told(capsys):
    from headrace.cli.main import run_command

    assert run_command(["demo", "--for", "30"]) == 2
    assert "is not a duration" in capsys.readouterr().err
