"""A factory taken into service beside one that runs: what runs notices nothing, and everything can be taken back."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import time

import numpy as np
import pytest

from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedUnit
from headrace.core.config import load_plant
from headrace.core.errors import ChangedMeanwhile, ConfigError, NotFound, StorageError
from headrace.ingest.tag_rows import TagRow, rows_to_csv
from headrace.runtime.assemble import build_plant
from headrace.runtime.reader import open_store
from headrace.runtime.tagging import present_rows

HEAD = """version = 1
[plant]
levels = ["site", "line", "device", "signal"]
[store]
url = "./store"
[profiles.counter]
n = { address = "holding:0" }
[adapters.ovens]
protocol = "modbus"
profile = "counter"
interval = "50ms"
devices = "ovens.csv"
tags = "ovens-tags.csv"
"""
N_DEVICES, N_SIGNALS = 40, 250


class CountingUnit(SimulatedUnit):
    """Its register 0 counts the requests, so that a poll that was lost shows."""

    async def answer(self, function, first, address, count, current, values):
        if function == 3 and address == 0:
            self.holding[0] += 1
        return await super().answer(function, first, address, count, current, values)


@contextlib.asynccontextmanager
async def serving(n_units, n_gateways):
    """The running device's gateway, and some of a factory that is new."""
    some = [ModbusSimulator({1: CountingUnit()})]
    some += [ModbusSimulator({n: SimulatedUnit() for n in range(1, n_units + 1)}) for _ in range(n_gateways)]
    for simulator in some:
        await simulator.start()
    try:
        yield some
    finally:
        for simulator in some:
            await simulator.stop()


@pytest.fixture
async def gateways(request):
    async with serving(*getattr(request, "param", (2, 1))) as some:
        yield some


@pytest.fixture
def folder(tmp_path, gateways):
    (tmp_path / "plant.toml").write_text(HEAD)
    (tmp_path / "ovens.csv").write_text(f"path,url\nleon/old/oven1,{gateways[0].url()}\n")
    (tmp_path / "ovens-tags.csv").write_text("profile,signal,address\n")
    return tmp_path


@contextlib.asynccontextmanager
async def running(folder):
    plant = build_plant(load_plant(folder / "plant.toml"))
    try:
        await plant.start()
        yield plant
    finally:
        await plant.stop()


async def until(what, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.01)
    return found


def new_factory(gateways, n_devices=N_DEVICES, n_signals=N_SIGNALS):
    return [
        TagRow(
            "ovens", f"leon/new{d % 4}/press{d}/s{s}", gateways[1 + d % 4].url(1 + d // 4, "5s"), f"holding:{s}",
            unit="bar", interval="2s",
        )
        for d in range(n_devices)
        for s in range(n_signals)
    ]  # fmt: skip


def document(rows, **more):
    return {"tags": rows_to_csv(rows), "by": "ann", **more}


def device(plant, path):
    adapter = next(a for a in plant.adapters() if a.name == "ovens")
    return next((d for d in adapter.devices if d.path == path), None)


def files(folder):
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def values(folder, path):
    rows = open_store(folder / "store").query(path, from_="2000-01-01", to="2100-01-01").to_rows()
    return [int(row["value"]) for row in rows]


@pytest.mark.parametrize("gateways", [(N_DEVICES // 4, 4)], indirect=True)
async def test_ten_thousand_tags_beside_a_running_device_leave_no_gap_in_it(folder, gateways):
    rows, before = new_factory(gateways), files(folder)
    async with running(folder) as plant:
        ops = plant.operations
        await until(lambda: plant.summary()["stored"] > 5)
        connections = list(gateways[0]._server.active_connections)
        # The plant's and the gateways' own CPU is in it; the wall's clock would count what else the machine does.
        began, began_ns = time.process_time(), time.time_ns()
        trial = await ops.change_config(document(rows), "", True)
        preview_s = time.process_time() - began
        assert (trial["applied"], files(folder)) == (False, before)
        assert {k: trial["tags"]["ovens"][k] for k in ("devices_added", "signals_added", "devices_changed")} == {
            "devices_added": N_DEVICES, "signals_added": N_DEVICES * N_SIGNALS, "devices_changed": 0,
        }  # fmt: skip
        began = time.process_time()
        done = await ops.change_config(document(rows), trial["from"], False)
        apply_s = time.process_time() - began
        assert done["applied"]
        assert preview_s < 5
        assert apply_s < 10
        assert files(folder).keys() == before.keys()
        lines = list(csv.DictReader(io.StringIO(files(folder)["ovens-tags.csv"])))
        assert {line["profile"] for line in lines} == {"press"}, (
            "devices that report the same share a profile"
        )
        assert len(lines) == N_SIGNALS
        await until(lambda: device(plant, "leon/new0/press0").last_good_ns > 0)
        await until(lambda: all(d.n_requests for d in plant.adapters()[0].devices))
        back = await ops.change_config({"undo": True, "tags": True, "by": "ann"}, "", False)
        assert (back["applied"], files(folder)) == (True, before)
        assert device(plant, "leon/new0/press0") is None
        n = device(plant, "leon/old/oven1").n_requests
        await until(lambda: device(plant, "leon/old/oven1").n_requests > n + 5)
        assert list(gateways[0]._server.active_connections) == connections
        assert not any(g._server.active_connections for g in gateways[1:])
    found = values(folder, "leon/old/oven1/n")
    assert found == list(range(1, len(found) + 1)), "no poll of it was lost or made twice"
    assert len(values(folder, "leon/new1/press1/s7")) > 0
    times = moments(folder, "leon/old/oven1/n")
    longest_s = np.diff(times[times > began_ns]).max() / 1e9
    print(
        f"10,000 tags: preview {preview_s:.2f} s of CPU, apply {apply_s:.2f} s; polls every 0.05 s, at most {longest_s:.2f} s"
    )
    assert longest_s < 2, "they were made in time, too"


def moments(folder, path):
    rows = open_store(folder / "store").query(path, from_="2000-01-01", to="2100-01-01").to_rows()
    return np.array([row["ts"] for row in rows])


def own(gateways, *signals, **more):
    """Rows of the device that runs, with these signals besides its counter."""
    url = gateways[0].url()
    rows = [TagRow("ovens", "leon/old/oven1/n", url, "holding:0")]
    return rows + [
        TagRow("ovens", f"leon/old/oven1/{name}", url, address, **more) for name, address in signals
    ]


async def test_tags_of_a_device_change_between_two_of_its_polls(folder, gateways):
    before = files(folder)
    async with running(folder) as plant:
        ops = plant.operations
        await until(lambda: plant.summary()["stored"] > 3)
        connections = list(gateways[0]._server.active_connections)
        same = plant.supervisor.get("ovens")
        done = await ops.change_config(
            document(own(gateways, ("level", "holding:1"), ("on", "coil:3"))), "", False
        )
        assert done["changes"][0]["part"] == "adapters.ovens"
        assert done["tags"]["ovens"]["devices"] == [
            {"path": "leon/old/oven1", "change": "changed", "lines": [], "signals_not_shown": 0, "signals": [
                {"name": "level", "change": "added", "lines": ["address: holding:1"]},
                {"name": "on", "change": "added", "lines": ["address: coil:3"]},
            ]},
        ]  # fmt: skip
        await until(lambda: plant.directory.find("leon/old/oven1/*").sensor.size == 3)
        n = plant.summary()["stored"]
        await until(lambda: plant.summary()["stored"] > n + 12)
        # What runs, as a table, changes nothing; a unit of it does.
        rows = present_rows(plant.reconfiguring.running.frozen)
        assert [row.path.rpartition("/")[2] for row in rows] == ["n", "level", "on"]
        same_again = await ops.change_config(document(rows), "", False)
        assert (same_again["applied"], same_again["changes"], same_again["tables"]) == (False, [], [])
        done = await ops.change_config(document(own(gateways, ("level", "holding:1"), unit="m")), "", False)
        assert (done["applied"], done["version"]) == (True, 3)
        n = plant.summary()["stored"]
        await until(lambda: plant.summary()["stored"] > n + 6)
        for version in (4, 5):
            back = await ops.change_config({"undo": True, "tags": True}, "", False)
            assert back["version"] == version
        assert files(folder) == before
        with pytest.raises(NotFound, match="nothing to undo"):
            await ops.change_config({"undo": True, "tags": True}, "", False)
        assert plant.supervisor.get("ovens") is same
        assert list(gateways[0]._server.active_connections) == connections
    found = values(folder, "leon/old/oven1/n")
    assert found == list(range(1, len(found) + 1)), "no poll of it was lost or made twice"
    assert len(values(folder, "leon/old/oven1/on")) >= 3


async def test_only_the_adapters_of_the_table_are_touched_and_a_restart_keeps_it(folder, gateways):
    async with running(folder) as plant:
        await until(lambda: plant.summary()["stored"] > 0)
        text = (folder / "plant.toml").read_text().replace('"50ms"', '"70ms"')
        (folder / "plant.toml").write_text(
            text + '[adapters.new]\nprotocol = "modbus"\ndevices = "new.csv"\ntags = "new-tags.csv"\n'
        )
        rows = [TagRow("", "leon/new/p1/a", gateways[1].url(), "holding:3")]
        done = await plant.operations.change_config(document(rows, adapter="new"), "", False)
        assert [(c["part"], c["change"]) for c in done["changes"]] == [("adapters.new", "added")]
        assert plant.operations.present_config()["config"]["adapters"]["ovens"]["interval"] == "50ms"
        await until(lambda: any(a.name == "new" and a.n_samples for a in plant.adapters()))
        assert "new.csv" in plant.operations.present_config()["tables"]
        found = await plant.operations.scan("new", {"areas": "holding", "count": "8"})
        assert {tag["device"] for tag in found} == {"leon/new/p1"}
    (folder / "plant.toml").write_text((folder / "plant.toml").read_text().replace('"70ms"', '"50ms"'))
    async with running(folder) as plant:
        assert plant.reconfiguring.version.n == 2, "it runs as it was applied"
        back = await plant.operations.change_config({"undo": True, "tags": True}, "", False)
        assert [(c["part"], c["change"]) for c in back["changes"]] == [("adapters.new", "removed")]
        assert not (folder / "new.csv").exists()


async def test_what_cannot_be_done_leaves_everything_as_it_was(folder, gateways, monkeypatch):
    (folder / "plant.toml").write_text(
        HEAD + '[adapters.more]\nprotocol = "modbus"\nprofile = "counter"\ndevices = "more.csv"\n'
    )
    (folder / "more.csv").write_text(f"path,url\nleon/old/oven9,{gateways[1].url()}\n")
    async with running(folder) as plant:
        ops, before = plant.operations, files(folder)
        await until(lambda: plant.summary()["stored"] > 3)
        seen = ops.present_config()["hash"]
        # The second adapter has that sensor: told only when the first one is to begin with it.
        stolen = TagRow("ovens", "leon/old/oven9/n", gateways[1].url(), "coil:0")
        fine = TagRow("more", "leon/old/oven8/n", gateways[1].url(2), "holding:0")
        with pytest.raises(ConfigError, match="is defined twice"):
            await ops.change_config(document([fine, stolen]), "", False)
        assert (files(folder), ops.present_config()["hash"]) == (before, seen)
        assert device(plant, "leon/old/oven9") is None
        assert [d.path for a in plant.adapters() if a.name == "more" for d in a.devices] == ["leon/old/oven9"]
        with pytest.raises(ChangedMeanwhile):
            await ops.change_config(document(own(gateways, ("x", "holding:1"))), "0" * 16, False)
        with pytest.raises(NotFound, match="nothing to undo"):
            await ops.change_config({"undo": True, "tags": True}, "", False)
        for text, said in (
            ("", "it has no column 'path'"),
            ("path\n", "has no rows"),
            (3, "tags is not a text"),
        ):
            with pytest.raises(ConfigError, match=said):
                await ops.change_config({"tags": text}, "", False)
        (folder / "ovens.csv").write_text("path,url\n")
        with pytest.raises(ConfigError, match=r"ovens.csv was changed by somebody else"):
            await ops.change_config(document(own(gateways, ("x", "holding:1"))), "", False)
        (folder / "ovens.csv").write_text(before["ovens.csv"])

        from headrace.runtime import staged_tables

        def refuse(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(staged_tables.os, "fsync", refuse)
            with pytest.raises(StorageError, match="the disk is full"):
                await ops.change_config(document(own(gateways, ("x", "holding:1"))), "", False)
        assert (files(folder), ops.present_config()["hash"]) == (before, seen)
        with monkeypatch.context() as patch:
            patch.setattr(staged_tables.Path, "replace", refuse)
            assert (await ops.change_config(document(own(gateways, ("x", "holding:1"))), "", False))[
                "applied"
            ]
        assert any(e.kind == "config.not-written" for _, e in plant.events.since(0))
        n = device(plant, "leon/old/oven1").n_requests
        await until(lambda: device(plant, "leon/old/oven1").n_requests > n + 5)
