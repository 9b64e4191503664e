"""A factory taken into service beside one that runs: what runs notices nothing, and everything can be taken back."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import time

import pytest

from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedUnit
from headrace.core.config import load_plant
from headrace.ingest.tag_rows import TagRow, rows_to_csv
from headrace.runtime.assemble import build_plant
from headrace.runtime.reader import open_store

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


@pytest.fixture
async def gateways():
    """The running device's gateway, and four of a factory that is new."""
    some = [ModbusSimulator({1: CountingUnit()})]
    units = {n: SimulatedUnit() for n in range(1, N_DEVICES // 4 + 1)}
    some += [ModbusSimulator(dict(units)) for _ in range(4)]
    for simulator in some:
        await simulator.start()
    yield some
    for simulator in some:
        await simulator.stop()


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
            unit="bar", interval="5s",
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


async def test_ten_thousand_tags_beside_a_running_device_leave_no_gap_in_it(folder, gateways):
    rows, before = new_factory(gateways), files(folder)
    async with running(folder) as plant:
        ops = plant.operations
        await until(lambda: plant.summary()["stored"] > 5)
        connections = list(gateways[0]._server.active_connections)
        began = time.monotonic()
        trial = await ops.change_config(document(rows), "", True)
        preview_s = time.monotonic() - began
        assert (trial["applied"], files(folder)) == (False, before)
        assert {k: trial["tags"]["ovens"][k] for k in ("devices_added", "signals_added", "devices_changed")} == {
            "devices_added": N_DEVICES, "signals_added": N_DEVICES * N_SIGNALS, "devices_changed": 0,
        }  # fmt: skip
        began = time.monotonic()
        done = await ops.change_config(document(rows), trial["from"], False)
        apply_s = time.monotonic() - began
        assert done["applied"]
        print(f"preview {preview_s:.2f} s, apply {apply_s:.2f} s")
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
