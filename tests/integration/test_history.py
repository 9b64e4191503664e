"""Pipelines in Python over what a store holds."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from headrace import Pipeline, open_store
from headrace.core.clock import NS
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, NotFound, PluginError, StorageError
from headrace.runtime.announcement import Announcement, announce
from headrace.runtime.history import RunCounts
from headrace.testing.plants import hand_fed_plant
from headrace.testing.tables import T0, import_table, long_table

ROOT = Path(__file__).parents[2]
HOUR = 3_600
SPAN = {"from_": "2026-03-02 08:00", "to": "2026-03-02 10:00"}
WINDOWS = {
    "pipelines": {
        "five": {
            "read": "**/temperature",
            "steps": [{"op": "window", "every": "5m", "agg": ["count", "sum"]}],
            "write": "{parent}/{signal}_{agg}_5m",
        }
    }
}


def excess(batch):
    """Columns, never one sample."""
    return batch.with_values(batch.values - 180.0)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with two hours of two ovens in its store."""
    folder = tmp_path_factory.mktemp("filled")
    import_table(folder, long_table(0, 2 * HOUR))
    return folder


@pytest.fixture
def store(filled, tmp_path):
    """A copy of it, opened."""
    shutil.copytree(filled / "store", tmp_path / "demo-store")
    return open_store(tmp_path / "demo-store")


def flow(call=excess):
    return Pipeline("excess").read("**/temperature").map(call)


def derived(store, pattern):
    result = store.query(pattern, **SPAN)
    rows = {}
    for path, ts_ns, value in zip(result.sensor, result.ts_ns, result.columns["value"], strict=True):
        rows[result.paths[path], (int(ts_ns) - T0) // NS] = float(value)
    return rows


def test_the_lines_of_the_docs_run_as_written(store, tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "how-to" / "python.md").read_text(encoding="utf-8")
    lines = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    assert "from headrace import Pipeline, open_store" in lines
    monkeypatch.chdir(tmp_path)
    exec(compile(lines, "python.md", "exec"), {"__name__": "lines"})
    said = capsys.readouterr().out
    assert "RunCounts(read=14400, written=96, late=0, rejected=0)" in said
    assert "leon/paint/line1/oven" in said


def test_windows_over_history_are_what_they_must_be(store):
    done = flow().window("5m", agg=["mean", "max"]).write("{parent}/excess_{agg}_5m").run(store, **SPAN)
    assert done == RunCounts(read=14_400, written=2 * 24 * 2, late=0, rejected=0)
    means = derived(store, "**/excess_mean_5m")
    assert {at for _, at in means} == set(range(0, 2 * HOUR, 300))
    mean = float(np.mean(np.arange(60) / 100))
    for (path, _), value in means.items():
        assert value == pytest.approx(mean + ("oven1" in path), abs=1e-9)
    assert {round(v, 9) for v in derived(store, "**/oven1/excess_max_5m").values()} == {1.59}


def test_a_second_run_writes_nothing_and_a_changed_one_only_what_changed(store):
    window = flow().window("5m", agg=["max"]).write("{parent}/excess_{agg}_5m")
    assert window.run(store, **SPAN).written == 48
    assert window.run(store, **SPAN).written == 0

    def other(batch):
        return batch.with_values(np.where(batch.values > 181.5, 7.0, batch.values - 180.0))

    changed = flow(other).window("5m", agg=["max"]).write("{parent}/excess_{agg}_5m")
    assert changed.run(store, **SPAN).written == 24  # only oven 1 gets as hot
    assert {round(v, 9) for v in derived(store, "**/oven1/excess_max_5m").values()} == {7.0}


def test_windows_that_the_span_cuts_are_left_out(store):
    window = Pipeline("w").read("**/oven0/temperature").window("5m", agg=["count"])
    done = window.write("{parent}/{signal}_{agg}").run(store, from_="2026-03-02 08:02", to="2026-03-02 08:13")
    assert derived(store, "**/temperature_count") == {
        ("leon/paint/line1/oven0/temperature_count", 300): 300.0
    }
    assert done.written == 1


def test_sliding_weighted_and_resampled_series_of_history(store):
    base = Pipeline("s").read("**/oven0/temperature")
    sliding = base.sliding("10m", "5m", agg=["count"]).write("{parent}/{signal}_{agg}_10m")
    assert sliding.run(store, **SPAN).written == 23
    assert set(derived(store, "**/temperature_count_10m").values()) == {600.0}
    weighted = (
        Pipeline("t").read("**/oven0/temperature").time_weighted_mean("1m").write("{parent}/{signal}_{agg}")
    )
    assert weighted.run(store, **SPAN).written == 120
    # The saw falls back to 0 between the last sample of a minute and the next minute's first: edges are flat.
    assert set(np.round(list(derived(store, "**/temperature_twa").values()), 6)) == {
        round(180 + (np.trapezoid(np.arange(60)) + 59) / 6_000, 6)
    }
    even = Pipeline("r").read("**/oven0/temperature").resample("10s").write("{parent}/{signal}_10s")
    assert even.run(store, **SPAN).written == 720


def test_what_is_not_flushed_yet_is_read_too(tmp_path):
    async def crash():
        plant, hand = hand_fed_plant(tmp_path, '[store]\nrollups = "off"\n')
        await plant.start()
        slots = hand.define(["leon/paint/line1/oven0"], columns=("temperature",))
        for second in range(120):
            await hand.emit(slots, 1_767_225_600 * NS + second * NS, [[1.0 * second]])
        await plant.intake.drain()
        shutil.copytree(tmp_path / "store", tmp_path / "copy")  # as a power cut leaves it
        await plant.stop()

    asyncio.run(crash())
    store = open_store(tmp_path / "copy")
    span = {"from_": "2026-01-01 00:00", "to": "2026-01-01 00:02"}
    done = (
        Pipeline("m").read("**").window("1m", agg=["sum"]).write("{parent}/{signal}_{agg}").run(store, **span)
    )
    assert (done.read, done.written) == (120, 2)
    # The journal still has what was not flushed, and the next engine finds it all.
    assert len(store.query("**/temperature", **span)) == 120


def test_pipelines_of_the_plant_go_on_as_if_no_run_had_been(tmp_path):
    found = {}
    for name, runs in (("with", True), ("without", False)):
        folder = tmp_path / name
        folder.mkdir()
        import_table(folder, long_table(0, 1_000), "first", WINDOWS)
        if runs:
            own = (
                Pipeline("own")
                .read("**/temperature")
                .window("1m", agg=["max"])
                .write("{parent}/{signal}_own")
            )
            assert own.run(open_store(folder / "store"), **SPAN).written > 0
        import_table(folder, long_table(1_000, 1_000), "second", WINDOWS)
        found[name] = derived(open_store(folder / "store"), "**/temperature_*_5m")
    assert found["with"] == found["without"]
    assert found["with"]["leon/paint/line1/oven0/temperature_count_5m", 900] == 300.0  # open when it stopped


def test_a_store_in_use_is_left_alone(store, tmp_path):
    window = flow().window("5m", agg=["max"]).write("{parent}/excess_{agg}_5m")
    disk = LocalDisk(tmp_path / "demo-store")
    disk.lock()
    with pytest.raises(StorageError, match="is in use by process"):
        window.run(store, **SPAN)
    disk.unlock()
    import os

    announce(disk, Announcement(os.getpid(), "http://127.0.0.1:1", "", "", ""))
    with pytest.raises(StorageError, match=r"(?s)stop it and run again, or write.*\[pipelines\.excess\]"):
        window.run(store, **SPAN)


def test_errors_are_sentences(store):
    def fails(batch):
        raise ZeroDivisionError("there is no such oven")

    with pytest.raises(
        PluginError, match=r"test_history:.*fails failed: ZeroDivisionError: there is no such oven"
    ):
        flow(fails).window("5m", agg=["max"]).write("{parent}/x").run(store, **SPAN)
    with pytest.raises(ConfigError, match="does not say what it reads"):
        Pipeline("x").window("5m", agg=["max"]).run(store, **SPAN)
    with pytest.raises(ConfigError, match="does not say what it writes"):
        Pipeline("x").read("**").window("5m", agg=["max"]).run(store, **SPAN)
    with pytest.raises(ConfigError, match="has no step"):
        Pipeline("x").read("**").write("{parent}/x").run(store, **SPAN)
    with pytest.raises(NotFound, match="no sensor matches"):
        Pipeline("x").read("madrid/**").window("5m", agg=["max"]).write("{parent}/x").run(store, **SPAN)
    # Nothing was left behind that keeps others out.
    assert flow().window("5m", agg=["max"]).write("{parent}/x_{agg}").run(store, **SPAN).written == 48


def test_a_pipeline_is_a_section_of_a_plant_file(tmp_path):
    import tomllib

    from headrace.core.config import parse_plant
    from headrace.runtime.assemble import check_plant

    (tmp_path / "ovens.py").write_text(
        "def excess(batch):\n    return batch.with_values(batch.values - 180)\n"
    )
    text = (
        Pipeline("e")
        .read("**/t")
        .map("ovens:excess")
        .window("5m", agg=["mean"])
        .write("{parent}/e")
        .to_toml()
    )
    plant = parse_plant({"version": 1, **tomllib.loads(text)}, tmp_path)
    (found,) = check_plant(plant).flows
    assert found.operators[0].function.__name__ == "excess"
