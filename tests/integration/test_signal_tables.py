"""Which topics and metrics of a broker are taken, and as what, by a table beside the plant file: applied, changed, undone."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from headrace.adapters.broker.simulator import SimulatedBroker, find_mosquitto
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.sparkplug.adapter import SparkplugAdapter
from headrace.adapters.sparkplug.simulator import SimulatedMetric, SimulatedNode
from headrace.core.clock import SystemClock
from headrace.core.config import load_plant
from headrace.core.errors import ConfigError, NotFound
from headrace.core.problems import InvalidConfig
from headrace.ingest.tag_rows import rows_to_csv
from headrace.ingest.tag_rules import TagRules
from headrace.runtime.adapter_making import make_adapter
from headrace.runtime.assemble import build_plant
from headrace.runtime.reader import open_store
from headrace.runtime.tagging import present_rows

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")

LEVELS = ("site", "line", "device", "signal")
HEAD = """version = 1
[plant]
levels = ["site", "line", "device", "signal"]
[store]
url = "./store"
[adapters.broker]
url = "{url}"
tags = "broker-tags.csv"
"""
MQTT = """protocol = "mqtt"
[adapters.broker.topics]
"load/{device}" = { path = "leon/load/{device}/{key}" }
"""
SPARKPLUG = """protocol = "sparkplug"
reorder = "100ms"
"""
METRICS = (SimulatedMetric("t", DataType.DOUBLE, "degF"), SimulatedMetric("p"), SimulatedMetric("x"))


class MqttSource:
    """A device that sends t, p and x."""

    address = "load/d1#{}"
    own_path = "leon/load/d1/{}"

    def __init__(self, broker):
        self._device = PublishingDevice("device", broker.host, broker.port)
        self.start, self.stop = self._device.start, self._device.stop

    async def send(self, n=1):
        for _ in range(n):
            await self._device.publish("load/d1", '{"t": 212, "p": 3, "x": 1}', is_retained=True)


class SparkplugSource:
    """The same as a device of a node; its values are its own."""

    address = "leon/line1/d1#{}"
    own_path = "leon/line1/d1/{}"

    def __init__(self, broker):
        self._node = SimulatedNode((broker.host, broker.port), ("leon", "line1"), {"d1": METRICS})
        self.start, self.stop = self._node.start, self._node.stop

    async def send(self, n=1):
        for _ in range(n):
            await self._node.report("d1")


KINDS = {"mqtt": (MQTT, MqttSource), "sparkplug": (SPARKPLUG, SparkplugSource)}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
async def broker(tmp_path):
    (tmp_path / "broker").mkdir()
    one = SimulatedBroker(tmp_path / "broker")
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def source(kind, broker):
    one = KINDS[kind][1](broker)
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
def folder(tmp_path, kind, broker):
    text = HEAD.format(url=broker.url) + KINDS[kind][0]
    (tmp_path / "plant.toml").write_text(text)
    return tmp_path


@contextlib.asynccontextmanager
async def running(folder):
    plant = build_plant(load_plant(folder / "plant.toml"))
    try:
        await plant.start()
        yield plant
    finally:
        await plant.stop()


async def until(what, timeout_s=60.0):
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.02)
    return found


def table(source, **rows):
    """Rows of a table: signal → cells behind the path and the address."""
    head = "path,address,unit,convert_to,dead_band,low,high"
    lines = [f"{path},{source.address.format(name)},{cells}" for name, (path, cells) in rows.items()]
    return {"tags": "\n".join([head, *lines]) + "\n", "adapter": "broker", "by": "ann", "whole": True}


def sensors(plant):
    directory = plant.directory
    found = directory.find("**")
    return sorted(
        directory.sensor_path(s, c) for s, c in zip(found.slot.tolist(), found.column.tolist(), strict=True)
    )


def column(plant, path):
    found = plant.directory.find(path)
    return plant.directory.layout(int(found.slot[0])).columns[int(found.column[0])]


async def stored_more(plant, source):
    n = plant.summary()["stored"]

    async def sent():
        while plant.summary()["stored"] <= n:
            await source.send()
            await asyncio.sleep(0.05)

    await asyncio.wait_for(sent(), 60)


async def test_a_table_is_applied_changed_and_taken_back_while_it_runs(kind, folder, source):
    text = (folder / "plant.toml").read_text()
    (folder / "plant.toml").write_text(text.replace('tags = "broker-tags.csv"\n', ""))
    async with running(folder) as plant:
        await stored_more(plant, source)
        everything = [source.own_path.format(name) for name in "ptx"]
        assert sensors(plant) == everything, "without a table all is taken"
        (folder / "plant.toml").write_text(text)
        ops = plant.operations
        first = table(source, t=("leon/hall/oven/temp", "degF,degC,,-50,500"))
        done = await ops.change_config(first, "", True)
        assert (done["applied"], done["tags"]["broker"]["signals_added"]) == (False, 1)
        assert not (folder / "broker-tags.csv").exists()
        done = await ops.change_config(first, "", False)
        assert (done["applied"], done["tables"]) == (True, ["broker-tags.csv"])
        await until(lambda: plant.adapters()[0].state == "connected")
        await stored_more(plant, source)
        assert sensors(plant) == sorted([*everything, "leon/hall/oven/temp"])
        found = column(plant, "leon/hall/oven/temp")
        assert (found.unit, round(found.scale, 9), found.low, found.high) == (
            "degC",
            0.555555556,
            -50.0,
            500.0,
        )
        # Other rules for what is taken: the same instance goes on with its connection.
        same, n_connects = plant.supervisor.get("broker"), plant.adapters()[0].n_connects
        second = table(
            source, t=("leon/hall/oven/temp", "degF,K,,,"), p=("leon/hall/press/force", "kN,,0.1,,")
        )
        done = await ops.change_config(second, "", False)
        assert done["tags"]["broker"]["signals_changed"] == 1
        await stored_more(plant, source)
        assert column(plant, "leon/hall/oven/temp").unit == "K"
        assert "leon/hall/press/force" in sensors(plant)
        assert plant.supervisor.get("broker") is same
        assert plant.adapters()[0].n_connects == n_connects
        rows = present_rows(plant.reconfiguring.running.frozen)
        assert [(row.path, row.address, row.unit) for row in rows] == [
            ("leon/hall/oven/temp", source.address.format("t"), "degF"),
            ("leon/hall/press/force", source.address.format("p"), "kN"),
        ]
        again = await ops.change_config({"tags": rows_to_csv(rows), "by": "ann"}, "", False)
        assert (again["applied"], again["tables"]) == (False, [])
        back = await ops.change_config({"undo": True, "tags": True}, "", False)
        assert back["tables"] == ["broker-tags.csv"]
        await stored_more(plant, source)
        assert column(plant, "leon/hall/oven/temp").unit == "degC"
        await ops.change_config({"undo": True, "tags": True}, "", False)
        assert not (folder / "broker-tags.csv").exists()
        await until(lambda: plant.adapters()[0].state == "connected")
        with pytest.raises(NotFound, match="nothing to undo"):
            await ops.change_config({"undo": True, "tags": True}, "", False)
        await stored_more(plant, source)
    if kind == "mqtt":
        rows = (
            open_store(folder / "store")
            .query("leon/hall/oven/temp", from_="2000-01-01", to="2100-01-01")
            .to_rows()
        )
        assert {round(row["value"], 6) for row in rows} == {100.0, 373.15}


async def test_a_restart_goes_on_with_the_sensors_that_a_table_has_made(folder, source):
    text = table(source, t=("leon/hall/oven/temp", "degF,degC,,,"))["tags"]
    (folder / "broker-tags.csv").write_text(text)
    for _ in range(2):
        async with running(folder) as plant:
            await stored_more(plant, source)
            assert sensors(plant) == ["leon/hall/oven/temp"]
            assert plant.directory.n_slots == 1, "the second run meets the group of the first"


async def test_what_a_scan_finds_can_be_applied_as_it_is(folder, source, kind):
    (folder / "broker-tags.csv").write_text("path,address\n")
    await source.send()
    config = load_plant(folder / "plant.toml")
    wanted = {"for": "2s"} | ({"node": "leon/line1"} if kind == "sparkplug" else {})
    found = await make_adapter(config, "broker").scan(wanted, SystemClock())
    rows = TagRules.of(LEVELS, adapter="broker").of_scan(found)
    assert [(row.path, row.address, row.problem) for row in rows] == [
        (source.own_path.format(name), source.address.format(name), "") for name in "tpx"
    ]
    async with running(folder) as plant:
        done = await plant.operations.change_config({"tags": rows_to_csv(rows), "by": "ann"}, "", False)
        assert done["tags"]["broker"]["signals_added"] == 3
        await stored_more(plant, source)
        assert sensors(plant) == sorted(source.own_path.format(name) for name in "tpx")
    if kind == "sparkplug":
        tags = await SparkplugAdapter.scan_url(
            {"url": config.adapters["broker"].url, **wanted}, SystemClock()
        )
        assert [(tag.path, tag.address, tag.unit) for tag in tags] == [
            ("leon/line1/d1/t", "leon/line1/d1#t", "degF"), ("leon/line1/d1/p", "leon/line1/d1#p", ""),
            ("leon/line1/d1/x", "leon/line1/d1#x", ""),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("leon/a/b/c,nowhere#t", "nowhere"),
        ("leon/a/b/c,path:leon/load/d1/t\nleon/a/b/d,path:leon/load/d1/t", "goes to leon/a/b/c already"),
        ("leon/a/b/c,", "needs the path of a sensor and an address"),
        ("leon/a/b/c,path:a\nleon/a/b/c,path:b", "is there twice"),
        ("c,path:a", "needs the path of a sensor and an address"),
    ],
)
async def test_a_table_that_means_nothing_is_told_with_its_file(folder, lines, said):
    (folder / "broker-tags.csv").write_text(f"path,address\n{lines}\n")
    with pytest.raises((ConfigError, InvalidConfig), match=said) as e:
        make_adapter(load_plant(folder / "plant.toml"), "broker")
    assert "broker-tags.csv" in str(e.value)
    (folder / "broker-tags.csv").write_text("path,address,colour\nleon/a/b/c,path:a,red\n")
    with pytest.raises(InvalidConfig, match="unknown column 'colour'"):
        make_adapter(load_plant(folder / "plant.toml"), "broker")
    (folder / "broker-tags.csv").write_text("path,address,unit,convert_to\nleon/a/b/c,path:a,bar,degC\n")
    with pytest.raises(ConfigError, match="can't be converted"):
        make_adapter(load_plant(folder / "plant.toml"), "broker")
