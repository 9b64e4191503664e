"""``headrace tiers`` over a real store: what is due, what it would save, who governs whom; and a process that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from headrace import open_store
from headrace.cli import tiers
from headrace.cli.exits import Exit
from headrace.cli.main import run_command
from headrace.core.clock import NS
from headrace.core.disk import LocalDisk
from headrace.sim.faults import VARIABLE
from headrace.store.query import Store
from headrace.store.verify import verify_store
from headrace.testing.tables import T0, import_table

N, STEP_S = 6_000, 600
SENSOR = "leon/paint/line1/oven1/temperature"
NO_TIERS = """version = 1
[store]
rollups = "off"
"""
PLANT = (
    NO_TIERS
    + """
[tiers.default]
match = "**"
after = { cold = "30d" }
bound = { range = 0.01 }
[tiers.power]
match = "leon/**/power"
after = { cold = "30d", delete = "20y" }
"""
)


def values():
    seconds = np.arange(N) * STEP_S
    rng = np.random.default_rng(0)
    return seconds, 180 + 5 * np.sin(seconds / 40_000) + rng.normal(0, 0.05, N)


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    seconds, value = values()
    ts = pa.array(T0 + seconds * NS, pa.timestamp("ns", "UTC"))
    power = SENSOR.replace("temperature", "power")
    table = pa.concat_tables([
        pa.table({"path": [path] * N, "ts": ts, "value": value}) for path in (SENSOR, power)
    ]).sort_by("ts")  # fmt: skip
    import_table(tmp_path, table)
    (tmp_path / "plant.toml").write_text(PLANT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    code = run_command(list(arguments))
    out = capsys.readouterr()
    return code, out.out, out.err


def test_tiers_from_what_is_due_to_done(cwd, capsys):
    assert run(capsys, "tiers", "run")[0] == Exit.DONE  # hot → warm, and what of that is old gets cold
    code, out, _ = run(capsys, "tiers", "status", "--json")
    facts = json.loads(out)
    rules = {rule["name"]: rule for rule in facts["rules"]}
    cold, power = rules["default"]["tiers"]["cold"], rules["power"]["tiers"]["cold"]
    assert (code, cold["samples"] > 4_000, facts["damaged"]) == (Exit.DONE, True, [])
    assert 0 < rules["default"]["max_error"] <= 0.11
    assert power["samples"] == cold["samples"]
    assert cold["ratio"] > 1.5 * power["ratio"]
    assert rules["power"]["max_error"] == 0.0
    assert verify_store(LocalDisk("store"), Store.open("store")).is_sound
    rows = open_store("store").query(SENSOR, from_="2026-03-02 08:00", to="2026-06-01")
    assert np.abs(rows.columns["value"] - values()[1]).max() <= 0.11
    assert "cold" in run(capsys, "tiers", "status")[1]


def test_a_dry_run_says_what_would_be_saved_and_does_nothing(cwd, capsys):
    (cwd / "plant.toml").write_text(NO_TIERS, encoding="utf-8")
    assert run(capsys, "tiers", "run")[0] == Exit.DONE
    (cwd / "plant.toml").write_text(PLANT, encoding="utf-8")
    before = sorted(p.name for p in cwd.glob("store/segments/**/*.parquet"))
    code, out, _ = run(capsys, "tiers", "run", "--dry-run", "--json")
    due = json.loads(out)["due"]
    assert code == Exit.DONE
    assert all(one["reason"].startswith("power: cold") for one in due)
    assert sorted(p.name for p in cwd.glob("store/segments/**/*.parquet")) == before
    assert not (cwd / "store/tiers").exists()
    foretold = sum(one["bytes_after"] for one in due)
    code, out, _ = run(capsys, "tiers", "run", "--json")
    done = json.loads(out)
    assert (code, done["aged"], done["problems"]) == (Exit.DONE, len(due), [])
    assert done["bytes_before"] == sum(one["bytes"] for one in due)
    assert done["bytes_after"] < done["bytes_before"]
    assert foretold < done["bytes_before"]
    assert "Nothing is due." in run(capsys, "tiers", "run", "--dry-run")[1]


def test_a_dry_run_says_what_becomes_of_days_that_are_hot(cwd, capsys):
    rule = '[tiers.default]\nmatch = "**"\nafter = { cold = "10d", rollups = "20d", delete = "30d" }\n'
    (cwd / "plant.toml").write_text(NO_TIERS + rule, encoding="utf-8")
    facts = json.loads(run(capsys, "tiers", "run", "--dry-run", "--json")[1])
    assert facts.keys() == {"compaction", "due"}
    found, (lost,) = facts["compaction"], facts["compaction"]["then"]
    assert (found["samples"], lost["stage"], lost["days"]) == (2 * N, "deleted", found["days"])
    for command in (("status",), ("run", "--dry-run")):
        out = run(capsys, "tiers", *command)[1]
        assert f"To compact: {found['days']} days from 2026-03-02 on, 12,000 samples, " in out
        assert f"{found['days']} lose their 12,000 samples then: older than 30d" in out
        assert "Nothing is due." not in out
    done = json.loads(run(capsys, "tiers", "run", "--json")[1])
    assert (done["compacted"], done["aged"], done["dropped"]) == (found["days"], len(facts["due"]), 2 * N)
    assert "Nothing is due." in run(capsys, "tiers", "status")[1]


def test_status_says_which_rule_is_above_its_size_and_why_it_stays_so(cwd, capsys):
    (cwd / "plant.toml").write_text(PLANT.replace("bound =", 'size = "1kB"\nbound ='), encoding="utf-8")
    assert run(capsys, "tiers", "run")[0] == Exit.DONE
    rules = {rule["name"]: rule for rule in json.loads(run(capsys, "tiers", "status", "--json")[1])["rules"]}
    assert rules["default"]["over_bytes"] == rules["default"]["bytes"] - 1_000
    assert rules["power"]["over_bytes"] == 0
    out = run(capsys, "tiers", "status")[1]
    assert "  what is cold stays for any size: after has neither rollups nor delete\n  now " in out
    assert out.count("above its size") == 1


def test_explain_says_who_governs_and_why(cwd, capsys):
    _, out, _ = run(capsys, "tiers", "explain", SENSOR.replace("temperature", "power"), "--json")
    (one,) = json.loads(out)
    assert (one["rule"], one["outranked"], one["lossless_because"]) == (
        "power",
        [{"name": "default", "match": "**"}],
        "",
    )
    assert [n["stage"] for n in one["next"]] == ["cold", "deleted"]
    _, out, _ = run(capsys, "tiers", "explain", "**")
    assert "power: leon/**/power, the most specific that matches" in out
    assert "less specific" in out
    code, _, err = run(capsys, "tiers", "explain", "leon/nothing")
    assert (code, "no sensor matches" in err) == (Exit.FAILED, True)
    code, _, err = run(capsys, "tiers", "status", "-t", "store")
    assert (code, "name it with -t plant.toml" in err) == (Exit.CONFIG, True)


def test_explain_says_how_a_sensor_is_kept(cwd, capsys):
    assert run(capsys, "tiers", "run")[0] == Exit.DONE
    (one,) = json.loads(run(capsys, "tiers", "explain", SENSOR, "--json")[1])
    cold = one["kept"]["cold"]
    assert (cold["samples"], sum(cold["codecs"].values())) == (N, N)
    assert 0 < cold["rmse"] <= cold["max_error"] <= 0.11
    assert cold["ratio"] > 10
    assert f"{N:,} samples, {cold['ratio']:g}:1, by " in run(capsys, "tiers", "explain", SENSOR)[1]


def test_a_sentence_says_from_whom_a_sensor_is_predicted():
    found = {
        "samples": 10,
        "ratio": 20.5,
        "codecs": {"origin": 10},
        "max_error": 0.0,
        "predicted_from": {"a/b": 5},
    }
    assert tiers._kept(found) == "10 samples, 20.5:1, by origin; 50% predicted from a/b"


def test_a_process_that_is_killed_goes_on_where_it_was(cwd, capsys):
    (cwd / "plant.toml").write_text(NO_TIERS, encoding="utf-8")
    assert run(capsys, "tiers", "run")[0] == Exit.DONE
    (cwd / "plant.toml").write_text(PLANT, encoding="utf-8")
    command = [sys.executable, "-m", "headrace.cli.main", "tiers", "run"]
    ended = subprocess.run(
        command,
        env=os.environ | {VARIABLE: "commit.publish:1"},
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    rows = open_store("store").query(SENSOR, from_="2026-03-02 08:00", to="2026-06-01")
    assert rows.n_rows == N
    assert run(capsys, "tiers", "run")[0] == Exit.DONE
    assert verify_store(LocalDisk("store"), Store.open("store")).is_sound
    rows = open_store("store").query(SENSOR, from_="2026-03-02 08:00", to="2026-06-01")
    assert np.abs(rows.columns["value"] - values()[1]).max() <= 0.11
