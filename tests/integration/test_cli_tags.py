"""``headrace tags``, from somebody's list to sensors that are read, with an engine in a process of its own and without."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
from pathlib import Path

import pytest

from headrace.adapters.broker.simulator import SimulatedBroker, find_mosquitto
from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedUnit
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.cli.doors import Doors, Web
from headrace.cli.main import run_command
from headrace.cli.session import Session
from headrace.core.clock import SystemClock
from headrace.core.config import load_plant
from headrace.runtime.assemble import build_plant

PLANT = """version = 1
[plant]
levels = ["site", "line", "device", "signal"]
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
[adapters.ovens]
protocol = "modbus"
devices = "ovens.csv"
tags = "ovens-tags.csv"
interval = "100ms"
"""
BROKER = """[adapters.broker]
protocol = "mqtt"
url = "{url}"
[adapters.broker.topics]
"load/{{device}}" = {{ path = "leon/load/{{device}}/{{key}}" }}
"""
LIST = """Anlage Leon;;;;;;
Gerät;Messstelle;Register;Typ;Einheit;Min;Max;Nr
Ofen #1;Temperatur;10;REAL;°C;0;400,5;1
Ofen #1;Füllstand;12;WORD;%;;;1
Ofen #2;Temperatur;10;REAL;°C;0;400,5;2
"""


@pytest.fixture
async def plant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ovens = ModbusSimulator({1: SimulatedUnit(), 2: SimulatedUnit()})
    await ovens.start()
    (tmp_path / "plant.toml").write_text(PLANT)
    (tmp_path / "list.csv").write_text(LIST, "cp1252")
    yield ovens
    await ovens.stop()


class NoScreen:
    """Looks at a plant and shows nothing; knows when it runs."""

    def __init__(self):
        self.up = asyncio.Event()

    def started(self, address, has_page=False):
        self.up.set()

    def beat(self):
        pass

    def stopping(self):
        pass


@contextlib.asynccontextmanager
async def engine():
    """What ``headrace run --no-web`` does, in this process: kernels are compiled already."""
    plant, ended, screen = build_plant(load_plant(Path("plant.toml").absolute())), asyncio.Event(), NoScreen()
    doors = Doors(plant, SystemClock(), Web.ENGINE)
    doors.bind()
    running = asyncio.create_task(Session(plant, doors, screen, until=ended).run())
    try:
        await asyncio.wait_for(screen.up.wait(), 30)
        yield plant
    finally:
        ended.set()
        await running


async def until(what):
    for _ in range(1_000):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


async def ask(*arguments):
    """A command: exit code, stdout, stderr."""
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = await asyncio.to_thread(run_command, ["tags", *map(str, arguments)])
    return code, out.buffer.getvalue().decode(), err.getvalue()


def rules(ovens):
    url = ovens.url().replace("unit=1", "unit={Nr}")
    return (
        "--path", "leon/line1/{gerät}/{signal}", "--address", "holding:{register}", "--device-url", url,
        "--adapter", "ovens",
    )  # fmt: skip


async def test_a_list_becomes_sensors_that_are_read_and_goes_again(plant, tmp_path):
    code, out, err = await ask("import", "list.csv", *rules(plant), "--fail-on", "problem")
    assert (code, "3 tags of 2 devices; 3 problems" in err) == (1, True)
    assert (
        "line 2: 'leon/line1/Ofen #1/Temperatur' can't be a path; 'leon/line1/Ofen_1/Temperatur' can" in err
    )
    assert len(list(csv.DictReader(io.StringIO(out)))) == 3
    code, out, err = await ask("import", "list.csv", *rules(plant), "--tidy", "-o", "tags.csv")
    assert (code, out, err) == (0, "", "3 tags of 2 devices in tags.csv; no problems\n")
    code, out, _ = await ask("import", "list.csv", *rules(plant), "--tidy", "--json")
    assert json.loads(out)["tags"][0] == {
        "adapter": "ovens", "path": "leon/line1/Ofen_1/Temperatur", "url": plant.url(), "address": "holding:10:F32",
        "dtype": "f32", "unit": "degC", "low": "0", "high": "400.5", "device": "Ofen #1", "signal": "Temperatur",
    }  # fmt: skip

    # Before the plant has ever run: the tables are made from nothing, and can go again.
    code, out, _ = await ask("diff", "tags.csv", "--fail-on", "difference")
    assert code == 1
    assert out.splitlines()[:2] == [
        "adapters.ovens: devices 2 added; signals 3 added",
        f"  + leon/line1/Ofen_1  2 signals, url: {plant.url()}",
    ]
    assert "files: ovens.csv, ovens-tags.csv" in out
    code, _, err = await ask("apply", "tags.csv")
    assert (code, "add --yes" in err) == (2, True)
    assert not (tmp_path / "ovens.csv").exists()
    code, out, _ = await ask("apply", "tags.csv", "--yes")
    assert (code, out.splitlines()[-1]) == (0, "applied: version 2; back with: headrace tags undo")
    code, out, _ = await ask("list")
    assert [row["path"] for row in csv.DictReader(io.StringIO(out))] == [
        "leon/line1/Ofen_1/Temperatur", "leon/line1/Ofen_1/Füllstand", "leon/line1/Ofen_2/Temperatur",
    ]  # fmt: skip

    async with engine() as running:
        await until(lambda: all(a.state == "connected" for a in running.adapters()))
        await tags_of_a_running_plant(tmp_path)


async def tags_of_a_running_plant(tmp_path):
    code, out, _ = await ask("diff", "tags.csv")
    assert (code, out) == (0, "nothing differs from what runs\n")
    text = (tmp_path / "tags.csv").read_text().replace("holding:12", "holding:13").replace(",%,", ",bar,")
    (tmp_path / "changed.csv").write_text(text.replace(",", ";"))
    code, out, _ = await ask("apply", "changed.csv", "--dry-run")
    assert "      ~ Füllstand  address: holding:12 → holding:13, unit: % → bar" in out.splitlines()
    code, out, _ = await ask("apply", "changed.csv", "--yes", "--json", "--whole")
    assert (code, json.loads(out)["version"]) == (0, 3)
    assert "holding:13" in (tmp_path / "ovens-tags.csv").read_text()
    code, out, _ = await ask("undo", "--yes")
    assert out.splitlines()[0].startswith("back to version 2 of ")
    assert "applied: version 4" in out
    assert "holding:12" in (tmp_path / "ovens-tags.csv").read_text()
    code, out, _ = await ask("list", "ovens", "--json")
    assert json.loads(out)["rows"] == 3
    bad = text.replace("leon/line1/Ofen_2", "leon").replace("holding:13", "register:13")
    (tmp_path / "bad.csv").write_text(bad)
    code, _, err = await ask("apply", "bad.csv", "--yes")
    assert code == 2
    assert [line[:10] for line in err.splitlines()] == ["  line 3: ", "  line 4: ", "headrace: "]
    assert err.splitlines()[-1] == "headrace: bad.csv: 2 problems; nothing was changed"
    code, _, err = await ask("scan", "ovens")
    assert (code, "name one of the 2 devices of 'ovens'" in err) == (2, True)
    code, out, err = await ask("scan", "ovens", "device=leon/line1/Ofen_1", "areas=holding", "count=8")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert "leon/line1/Ofen_1/holding_7" in {
        row["path"] for row in rows if row["url"].startswith("modbus+tcp://")
    }


async def test_the_units_behind_a_url_are_found_and_what_they_have(plant):
    plant.units[2].holding[3] = 77
    code, out, err = await ask(
        "scan", "--url", plant.url(), "units=1-2", "--path", "leon/l/{unit}/x", "--capture", r"device=unit=(?P<unit>\d+)"
    )  # fmt: skip
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    url = plant.url().partition("?")[0]
    assert [(r["path"], r["url"]) for r in rows] == [
        (f"leon/l/{unit}/x", f"{url}?unit={unit}") for unit in (1, 2)
    ]
    path = ("--path", "leon/l/o/{signal}", "areas=holding", "count=5")
    code, out, err = await ask("scan", "--url", plant.url(2), *path)
    assert code == 0, err
    (found,) = [r for r in csv.DictReader(io.StringIO(out)) if r["value"] == "77"]
    assert (found["path"], found["address"], found["url"]) == (
        "leon/l/o/holding_3",
        "holding:3:U16",
        plant.url(2),
    )


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
async def test_a_broker_is_scanned_with_an_engine_and_without(plant, tmp_path):
    (tmp_path / "broker").mkdir()
    broker = SimulatedBroker(tmp_path / "broker")
    await broker.start()
    device = PublishingDevice("device", broker.host, broker.port)
    await device.start()
    try:
        (tmp_path / "plant.toml").write_text(
            PLANT[: PLANT.index("[adapters")] + BROKER.format(url=broker.url)
        )
        device._client.publish("load/d1", '{"t": 21.5, "on": true}', qos=1, retain=True)
        device._client.publish("other/line7/press", '{"force": 3}', qos=1, retain=True)
        await asyncio.sleep(0.2)
        await scanned("scan", "broker", "for=300ms")
        async with engine():
            await scanned("scan", "broker", "for=300ms")
        code, out, _ = await ask(
            "scan", "--url", broker.url, "for=300ms", "topic=other/#", "--json", "--capture",
            r"device=other/(?P<line>\w+)/(?P<machine>\w+)", "--path", "leon/{line}/{machine}/{signal}",
        )  # fmt: skip
        assert code == 0
        assert [row["path"] for row in json.loads(out)["tags"]] == ["leon/line7/press/force"]
    finally:
        await device.stop()
        await broker.stop()


async def scanned(*arguments):
    code, out, err = await ask(*arguments)
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(r["path"], r["dtype"], r["kind"], r["value"]) for r in rows] == [
        ("leon/load/d1/t", "f64", "", "21.5"), ("leon/load/d1/on", "u8", "discrete", "1"),
        ("other/line7/press/force", "i64", "", "3"),
    ]  # fmt: skip
    assert "no rule of the adapter takes this topic" in rows[2]["problem"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("import", "gone.csv"), 2, "gone.csv: can't be read"),
        (("import", "list.csv", "--map", "x"), 2, "is not written HEADING=COLUMN"),
        (("import", "list.csv", "-o", "no/where.csv"), 2, "can't be written"),
        (("scan",), 2, "name an adapter, or a source with --url"),
        (("scan", "ovens", "what"), 2, "is not written KEY=VALUE"),
        (("scan", "oven", "-t", "plant.toml"), 1, "no adapter 'oven'; did you mean 'ovens'"),
        (("scan", "--url", "ftp://h"), 2, "can't be scanned; write one of"),
        (("diff", "list.csv"), 2, "is no normalised table: it has no column 'path'"),
        (("list", "x"), 2, "there is no adapter 'x'"),
        (("undo",), 1, "there is nothing to undo"),
        (("apply", "list.csv", "-t", "elsewhere.toml"), 3, "does not exist"),
    ],
)
async def test_what_can_not_be_is_told_in_a_sentence(plant, arguments, code, said):
    found, _, err = await ask(*arguments)
    assert (found, said in err) == (code, True), err
