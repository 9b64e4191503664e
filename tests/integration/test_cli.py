"""The command line over a real plant: a CSV file replayed into a store, then every reading command."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.cli.exits import Exit
from headrace.cli.main import run_command

# Where kernels are not cached yet, several processes compile them at once.
PLANT = """
version = 1
[plant]
timezone = "Europe/Madrid"
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
[adapters.log]
protocol = "replay"
files = "oven1.csv"
path = "leon/paint/line1/oven1/{key}"
time = "timestamp"
"""
SPAN = ["--from", "2026-03-02T06:00:00Z", "--to", "2026-03-02T06:02:00Z"]
PLANT_TIME = ["--from", "2026-03-02 07:00", "--to", "2026-03-02 07:02"]  # the same in Madrid
N_SECONDS = 120


class RunningPlant:
    """``headrace run`` as a process."""

    def __init__(self, folder, *arguments):
        command = [sys.executable, "-m", "headrace.cli.main", "run", "plant.toml", *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Leave nothing behind where a test failed."""
        self.process.kill()
        self.process.communicate()

    def wait_for(self, folder, what, timeout_s=120.0):
        """Poll ``what()`` until it gives something."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"ended: {self.process.stderr.read()}")
            found = what()
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError("it did not come")

    def address(self, folder):
        def announced():
            file = folder / "store" / "running.json"
            return json.loads(file.read_text())["address"] if file.exists() else None

        return self.wait_for(folder, announced)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


def write_plant(folder: Path, text: str = PLANT) -> Path:
    rows = ["timestamp,inlet,outlet"]
    rows += [
        f"2026-03-02T06:{s // 60:02d}:{s % 60:02d}Z,{180 + s / 10:.1f},{100 + s / 10:.1f}"
        for s in range(N_SECONDS)
    ]
    (folder / "oven1.csv").write_text("\n".join(rows) + "\n")
    (folder / "plant.toml").write_text(text)
    return folder / "plant.toml"


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    """A plant that has run: its folder, what its commands said while it ran, and how it ended."""
    folder = tmp_path_factory.mktemp("plant")
    write_plant(folder)
    with RunningPlant(folder) as running:
        seen = watch(running, folder)
    return folder, seen


def watch(running, folder):
    """What the commands say while the plant runs, and how it ends."""
    seen = {"address": running.address(folder)}

    def played():
        done = command("status", "-t", seen["address"], "--json")
        status = json.loads(done[1])
        return status if status["samples"]["stored"] == 2 * N_SECONDS else None

    seen["status"] = running.wait_for(folder, played)
    seen["live_query"] = command("query", "**/inlet", "-t", folder / "store", *SPAN, "--json")
    seen["by_address"] = command("query", "**/inlet", "-t", seen["address"], *SPAN, "--format", "csv")
    seen["adapters"] = command("adapters", "list", "-t", folder / "plant.toml", "--json")
    seen["show"] = command("adapters", "show", "log", "-t", folder / "store")
    seen["second"] = command("run", folder / "plant.toml")
    seen["screen"] = command("status", "-t", folder / "plant.toml")
    begun = time.monotonic()
    seen["end"] = running.stop()
    seen["stop_s"] = time.monotonic() - begun
    return seen


def command(*arguments, stdin=None):
    """(exit code, stdout, stderr) of one command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    return done.returncode, done.stdout, done.stderr


# --- while it runs -------------------------------------------------------------------------------------


def test_a_running_plant_says_how_it_is(plant):
    _, seen = plant
    status = seen["status"]
    assert status["state"] == "running"
    assert status["samples"]["received"] == 2 * N_SECONDS
    assert status["sensors"] == 2
    code, out, _ = seen["screen"]
    assert code == Exit.DONE
    assert "running since" in out
    assert "restart it" not in out


def test_what_is_not_flushed_is_answered(plant):
    _, seen = plant
    code, out, _ = seen["live_query"]
    assert code == Exit.DONE
    answer = json.loads(out)
    assert len(answer["rows"]) == N_SECONDS
    assert answer["sources"]["engine_frames"] >= 1
    assert answer["missing"] == []


def test_a_query_by_the_engines_address(plant):
    _, seen = plant
    code, out, err = seen["by_address"]
    assert (code, err) == (Exit.DONE, "")
    assert len(out.splitlines()) == N_SECONDS + 1


def test_adapters_of_a_running_plant(plant):
    _, seen = plant
    (one,) = json.loads(seen["adapters"][1])
    assert (one["name"], one["protocol"], one["samples"]) == ("log", "replay", 2 * N_SECONDS)
    code, out, err = seen["show"]
    assert (code, err) == (Exit.DONE, "")
    assert "log (replay)" in out


def test_a_second_engine_on_the_store_is_refused(plant):
    _, seen = plant
    code, out, err = seen["second"]
    assert (code, out) == (Exit.FAILED, "")
    assert "is in use by process" in err
    assert err.count("\n") == 1


def test_sigterm_drains_and_is_no_failure(plant):
    folder, seen = plant
    code, out, err = seen["end"]
    assert (code, out) == (Exit.DONE, "")
    assert "stopping" in err
    assert seen["stop_s"] < 10.0
    assert not (folder / "store" / "running.json").exists()


# --- the store afterwards ------------------------------------------------------------------------------


def test_rows_as_a_table(plant, capsys):
    folder, _ = plant
    assert (
        run_command(["query", "**/inlet", "-t", str(folder / "plant.toml"), *PLANT_TIME, "--limit", "2"])
        == Exit.DONE
    )
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "path                          ts (Europe/Madrid)       value  quality",
        "leon/paint/line1/oven1/inlet  2026-03-02 07:00:00.000    180  good",
        "leon/paint/line1/oven1/inlet  2026-03-02 07:00:01.000  180.1  good",
    ]
    assert "the first 2 rows; --limit gives more" in err


def test_the_target_may_come_from_the_environment(plant, capsys, monkeypatch):
    folder, _ = plant
    monkeypatch.setenv("HEADRACE_TARGET", str(folder / "plant.toml"))
    assert run_command(["query", "**", "--last", "100y", "--agg", "count", "--json"]) == Exit.DONE
    assert [row["path"] for row in json.loads(capsys.readouterr().out)["rows"]]
    monkeypatch.delenv("HEADRACE_TARGET")
    monkeypatch.chdir(folder)
    assert run_command(["status", "--json"]) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["state"] == "stopped"


def test_json_is_one_document_on_stdout(plant, capsys):
    folder, _ = plant
    assert (
        run_command(
            [
                "query",
                "**/inlet",
                "-t",
                str(folder / "plant.toml"),
                *SPAN,
                "--every",
                "1m",
                "--agg",
                "mean,max",
                "--json",
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    rows = json.loads(out)["rows"]
    assert err == ""
    assert [(r["ts"], r["max"]) for r in rows] == [
        ("2026-03-02T06:00:00.000000000Z", 185.9), ("2026-03-02T06:01:00.000000000Z", 191.9),
    ]  # fmt: skip
    assert rows[0]["mean"] == pytest.approx(182.95)


@pytest.mark.parametrize("form", ["csv", "arrow", "parquet"])
def test_formats_for_other_tools(plant, capfdbinary, form):
    import pyarrow as pa
    from pyarrow import csv, parquet

    folder, _ = plant
    assert (
        run_command(["query", "**", "-t", str(folder / "plant.toml"), *SPAN, "--format", form]) == Exit.DONE
    )
    out, err = capfdbinary.readouterr()
    read = {
        "csv": lambda: csv.read_csv(io.BytesIO(out)),
        "arrow": lambda: pa.ipc.open_stream(out).read_all(),
        "parquet": lambda: parquet.ParquetFile(io.BytesIO(out)).read(),
    }[form]
    assert read().num_rows == 2 * N_SECONDS
    assert err == b""


def test_status_of_a_store_that_does_not_run(plant, capsys):
    folder, _ = plant
    assert run_command(["status", "-t", str(folder / "store")]) == Exit.DONE
    out = capsys.readouterr().out
    assert "stopped" in out
    assert str(folder / "store") in out
    assert run_command(["status", "-t", str(folder / "store"), "--json"]) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["store"]["samples"] == 2 * N_SECONDS


def test_adapters_of_a_plant_file_that_does_not_run(plant, capsys):
    folder, _ = plant
    assert run_command(["adapters", "list", "-t", str(folder / "plant.toml")]) == Exit.DONE
    out, err = capsys.readouterr()
    assert "stopped" in out
    assert "no engine runs on" in err
    assert run_command(["adapters", "list", "-t", str(folder / "store")]) == Exit.UNREACHABLE
    assert "name the plant file with -t" in capsys.readouterr().err
    assert run_command(["adapters", "show", "logs", "-t", str(folder / "plant.toml")]) == Exit.FAILED
    assert "did you mean 'log'" in capsys.readouterr().err


def test_wrong_questions_are_one_sentence(plant, capsys):
    folder, _ = plant
    target = ["-t", str(folder / "plant.toml")]
    for arguments, code, says in (
        (
            ["query", "**/inlt", *target, "--last", "1h"],
            Exit.FAILED,
            "no sensor matches '**/inlt'; the nearest path is",
        ),
        (["query", "**", *target], Exit.CONFIG, "say which span"),
        (["query", "**", *target, "--last", "1 hour"], Exit.CONFIG, "is not a duration"),
        (["query", "**", *target, "--last", "1h", "--agg", "men"], Exit.CONFIG, "unknown aggregate 'men'"),
        (["query", "**", *target, "--from", "yesterday"], Exit.CONFIG, "'yesterday' is not a time"),
        (["query", "a{b", *target, "--last", "1h"], Exit.CONFIG, "braces do not match"),
    ):
        assert run_command(arguments) == code, arguments
        out, err = capsys.readouterr()
        assert out == ""
        assert says in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nowhere", "nowhere does not exist; -t takes"),
        ("http://127.0.0.1:9", "no engine answers at http://127.0.0.1:9"),
        (".", ". is a folder, but no store"),
        (None, "there is no plant.toml here"),
    ],
)
def test_targets_that_are_not_there(tmp_path, monkeypatch, capsys, target, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADRACE_TARGET", raising=False)
    named = [] if target is None else ["-t", target]
    assert run_command(["status", *named]) == Exit.UNREACHABLE
    assert says in capsys.readouterr().err
    assert run_command(["query", "**", "--last", "1h", *named]) == Exit.UNREACHABLE


def test_a_plant_without_a_store_yet(tmp_path, capsys):
    write_plant(tmp_path)
    assert (
        run_command(["query", "**", "--last", "1h", "-t", str(tmp_path / "plant.toml")]) == Exit.UNREACHABLE
    )
    assert "holds no store yet; headrace run makes one" in capsys.readouterr().err
    assert run_command(["status", "-t", str(tmp_path / "plant.toml")]) == Exit.UNREACHABLE


# --- check ---------------------------------------------------------------------------------------------


def test_check_tells_all_problems(tmp_path, capsys):
    text = PLANT.replace("files =", "filez =") + '[adapters.x]\nprotocol = "modbuss"\n'
    file = str(write_plant(tmp_path, text))
    assert run_command(["check", file]) == Exit.CONFIG
    out, err = capsys.readouterr()
    assert "adapters.log.filez: unknown key; did you mean 'files'?" in out
    assert "did you mean 'modbus'" in out
    assert "problems:" in err
    assert run_command(["check", file, "--json"]) == Exit.CONFIG
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert "adapters.log.filez" in [p["where"] for p in problems]
    assert run_command(["run", file]) == Exit.CONFIG
    err = capsys.readouterr().err
    assert "headrace check shows all" in err
    assert err.count("\n") == 1


def test_check_of_what_is_no_toml_and_no_file(tmp_path, capsys):
    assert run_command(["check", str(tmp_path / "none.toml")]) == Exit.CONFIG
    (tmp_path / "plant.toml").write_text("version = \n")
    assert run_command(["check", str(tmp_path / "plant.toml")]) == Exit.CONFIG
    assert "plant.toml:1" in capsys.readouterr().out


def test_check_sums_up_a_plant_that_is_fine(tmp_path, capsys):
    devices = "\n".join(f'"leon/paint/line1/oven{i}" = "modbus+tcp://10.0.4.{i}:502"' for i in range(1, 11))
    text = f"""
version = 1
[profiles.oven]
temperature = {{ address = "holding:100:F32", unit = "degC" }}
running = {{ address = "coil:0", kind = "discrete" }}
[adapters.ovens]
protocol = "modbus"
profile = "oven"
interval = "2s"
[adapters.ovens.devices]
{devices}
[adapters.broker]
protocol = "mqtt"
url = "mqtt://127.0.0.1:1883"
user = "headrace"
[adapters.broker.topics]
"a/{{line}}/{{device}}" = {{ path = "leon/a/{{line}}/{{device}}/{{key}}", values = "fields" }}
"""
    (tmp_path / "plant.toml").write_text(text)
    assert run_command(["check", str(tmp_path / "plant.toml")]) == Exit.DONE
    out = capsys.readouterr().out
    assert "is fine" in out
    assert "as they come" in out
    assert run_command(["check", str(tmp_path / "plant.toml"), "--json"]) == Exit.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert (found["sensors"], found["polls_per_s"], found["samples_per_s"]) == (20, 5.0, 10.0)
    assert found["gb_per_month"] == pytest.approx(10 * 2 * 30 * 86_400 / 1e9, rel=0.05)


# --- what goes wrong at start and later ----------------------------------------------------------------


def test_a_port_in_use_names_it_and_touches_no_store(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = write_plant(tmp_path)
        assert run_command(["run", str(file), "--set", f"api.listen=127.0.0.1:{port}"]) == Exit.CONFIG
    err = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 is in use by another program" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_a_store_folder_that_can_not_be_written(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    # Permissions do not stop root; the kernel's own file system does.
    place = "/sys/headrace-store" if os.geteuid() == 0 else str(folder / "store")
    file = write_plant(tmp_path)
    code, out, err = command("run", file, "--set", f"store.url={place}")
    assert (code, out) == (Exit.FAILED, "")
    assert place.rpartition("/")[0] in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_a_broker_that_is_down_at_start_is_a_state(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    broker = f"""
[adapters.broker]
protocol = "mqtt"
url = "mqtt://127.0.0.1:{port}"
user = "headrace"
[adapters.broker.topics]
"a/{{line}}/{{device}}" = {{ path = "leon/a/{{line}}/{{device}}/{{key}}", values = "fields" }}
"""
    write_plant(tmp_path, PLANT + broker)
    with RunningPlant(tmp_path) as running:
        address = running.address(tmp_path)

        def away():
            found = json.loads(command("adapters", "list", "-t", address, "--json")[1])
            return [one for one in found if one["name"] == "broker" and one["reason"]]

        (one,) = running.wait_for(tmp_path, away)
        assert one["state"] == "backoff"
        code, _, err = running.stop(signal.SIGINT)
    assert code == Exit.DONE
    assert "Traceback" not in err


def test_a_corrupt_segment_is_named_and_the_rest_answered(plant, tmp_path, capsys):
    import shutil

    folder, _ = plant
    shutil.copytree(folder / "store", tmp_path / "store")
    segments = sorted((tmp_path / "store" / "segments").rglob("*.parquet"), key=lambda f: f.stat().st_size)
    data = bytearray(segments[-1].read_bytes())
    data[len(data) // 3 : len(data) // 3 + 64] = b"\xff" * 64
    segments[-1].write_bytes(data)
    code = run_command(["query", "**", "-t", str(tmp_path / "store"), *SPAN, "--json"])
    out, err = capsys.readouterr()
    assert code == Exit.DONE, err
    assert segments[-1].name in " ".join(json.loads(out)["missing"])
    code = run_command(["query", "**", "-t", str(tmp_path / "store"), *SPAN])
    assert "missing: " in capsys.readouterr().err


def test_an_engine_that_was_killed_leaves_its_journal_to_read(tmp_path):
    write_plant(tmp_path)
    with RunningPlant(tmp_path, "--set", "store.flush_interval=1h") as running:
        address = running.address(tmp_path)

        def played():
            status = json.loads(command("status", "-t", address, "--json")[1])
            return status["samples"]["stored"] == 2 * N_SECONDS

        running.wait_for(tmp_path, played)
        running.stop(signal.SIGKILL)
    assert (tmp_path / "store" / "running.json").exists()
    code, out, err = command("query", "**/inlet", "-t", tmp_path / "store", *SPAN, "--json")
    assert (code, err) == (Exit.DONE, "")
    answer = json.loads(out)
    assert len(answer["rows"]) == N_SECONDS
    assert answer["sources"]["journal_frames"] >= 1
