"""The commands that steer a plant, against one that runs in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import struct
from pathlib import Path

import pytest

from headrace.adapters.broker.simulator import SimulatedBroker, find_mosquitto
from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedUnit
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.adapters.sparkplug.simulator import TANK, SimulatedNode
from headrace.cli.main import run_command

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
PLANT = """version = 1
[plant]
levels = ["site", "device", "signal"]
[store]
url = "./store"
flush_interval = "2s"
[api]
listen = "127.0.0.1:0"
[profiles.oven]
temperature = {{ address = "holding:10:F32;order=CDAB" }}
[adapters.ovens]
protocol = "modbus"
profile = "oven"
interval = "100ms"
[adapters.ovens.devices]
"plant/oven1" = "{modbus}"
[adapters.broker]
protocol = "mqtt"
url = "{mqtt}"
[adapters.broker.topics]
"load/{{device}}" = {{ path = "plant/{{device}}/{{key}}", types = {{ v = "bool" }} }}
"""
LINES = """[adapters.lines]
protocol = "sparkplug"
url = "{mqtt}"
path = "{{group}}/{{device}}/{{metric}}"
"""


class World:
    """A plant in a process, its device and its broker, and commands about it."""

    def __init__(self, headrace, ovens, broker):
        self.headrace, self.ovens, self.broker = headrace, ovens, broker
        self.file = headrace.folder / "plant.toml"
        self.file.write_text(PLANT.format(modbus=ovens.url(), mqtt=broker.url))

    async def ask(self, *arguments):
        """A command: exit code, stdout, stderr. Not as a process: there are many."""
        out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = await asyncio.to_thread(run_command, [str(one) for one in arguments])
        return code, out.buffer.getvalue().decode(), err.getvalue()

    async def run(self, *arguments):
        """A command about the plant file: exit code, stdout, stderr."""
        return await self.ask(*arguments, "-t", self.file)

    async def json(self, *arguments):
        code, out, err = await self.run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    async def up(self):
        self.headrace.start()
        await asyncio.to_thread(self.headrace.up)
        await asyncio.to_thread(
            self.headrace.until,
            lambda: all(a["state"] == "connected" for a in self.headrace.status()["adapters"]),
        )

    def edit(self, old, new):
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    async def publish(self, topic, *payloads):
        one = PublishingDevice("device", self.broker.host, self.broker.port)
        await one.start()
        for payload in payloads:
            await one.publish(topic, payload)
        await one.delivered()
        await one.stop()


@pytest.fixture
async def world(tmp_path: Path, headrace):
    ovens = ModbusSimulator({1: SimulatedUnit()})
    await ovens.start()
    ovens.units[1].holding[10:12] = struct.unpack(">HH", struct.pack(">f", 181.25))[::-1]
    (tmp_path / "broker").mkdir()
    broker = SimulatedBroker(tmp_path / "broker")
    await broker.start()
    yield World(headrace, ovens, broker)
    await broker.stop()
    await ovens.stop()


async def test_adapters_are_probed_followed_paused_and_reloaded(world):
    await world.up()
    found = await world.json("adapters", "probe", "ovens", "--signal", "temperature")
    assert (found["readings"]["F32"]["CDAB"], found["connection"]) == (181.25, "the adapter's")
    code, out, _ = await world.run("adapters", "probe", "--url", world.ovens.url(), "--address", "holding:10")
    assert code == 0
    assert "the adapter's" in out
    for title in (
        "ABCD big-endian",
        "CDAB word-swapped",
        "BADC byte-swapped",
        "DCBA little-endian",
        "181.25",
    ):
        assert title in out
    code, out, _ = await world.run("adapters", "tail", "ovens", "--limit", "2", "--json")
    assert [json.loads(line)["value"] for line in out.splitlines()] == [181.25, 181.25]
    code, out, _ = await world.run("adapters", "tail", "ovens", "--limit", "1", "--match", "**/temperature")
    assert out.rstrip().endswith("plant/oven1/temperature  181.25")

    code, _, err = await world.run("adapters", "pause", "ovens")
    assert (code, "add --yes" in err) == (2, True)
    code, out, _ = await world.run("adapters", "pause", "ovens", "--yes", "--reason", "valve")
    assert (code, "adapters resume ovens" in out) == (0, True)
    code, out, _ = await world.run("adapters", "list")
    assert "paused" in out
    assert ": valve" in out
    assert (await world.run("adapters", "resume", "ovens"))[0] == 0
    world.edit('interval = "100ms"', 'interval = "200ms"')
    found = await world.json("adapters", "reload", "ovens", "--yes")
    assert found == {"adapter": "ovens", "lines": ['interval: "100ms" → "200ms"'], "new_code": False}
    code, out, _ = await world.run("adapters", "reload", "ovens", "--yes")
    assert "nothing in its section has changed" in out
    code, out, _ = await world.run("adapters", "reload", "ovens", "--code", "--yes")
    assert (code, "with its code imported anew, in a process of its own" in out) == (0, True)
    code, out, _ = await world.run("adapters", "show", "ovens")
    assert "process      its own, " in out
    code, out, _ = await world.run("adapters", "tail", "ovens", "--limit", "1", "--json")
    assert json.loads(out)["value"] == 181.25
    found = await world.json("adapters", "probe", "ovens", "--signal", "temperature")
    assert (found["readings"]["F32"]["CDAB"], found["connection"]) == (181.25, "the adapter's")
    for arguments, expected, said in (
        (("adapters", "pause", "oven", "--yes"), 1, "did you mean 'ovens'"),
        (("adapters", "probe", "ovens", "--address", "register:1"), 2, "tag address"),
        (("adapters", "probe"), 2, "name an adapter"),
        (("adapters", "tail", "ovens", "--match", "{"), 2, "{"),
        (("adapters", "tail", "nobody"), 1, "no adapter 'nobody'"),
    ):
        code, out, err = await world.run(*arguments)
        assert (code, out) == (expected, "")
        assert said in err
    world.ovens.units[1].refuse = {("holding", None): 4}
    code, _, err = await world.run("adapters", "probe", "ovens", "--address", "holding:1")
    assert (code, "exception 4" in err) == (1, True)


async def test_what_adapters_receive_is_captured_and_decoded_again(world):
    await world.up()
    assert (await world.run("adapters", "capture", "nobody", "--to", world.headrace.folder / "x"))[0] == 1
    assert not (world.headrace.folder / "x").exists()
    file = world.headrace.folder / "ovens.jsonl"
    code, out, err = await world.run("adapters", "capture", "ovens", "--to", file, "--for", "600ms")
    assert code == 0, err
    assert "pieces in" in out
    code, _, err = await world.run("adapters", "capture", "ovens", "--to", file)
    assert (code, "is there already" in err) == (2, True)
    found = await world.json("adapters", "probe", "--capture", file)
    assert found["samples"] >= 2
    assert {tuple(row[::2]) for row in found["table"]["rows"]} == {("plant/oven1/temperature", 181.25)}
    code, out, _ = await world.run("adapters", "probe", "ovens", "--capture", file)
    assert "plant/oven1/temperature" in out
    file = world.headrace.folder / "broker.jsonl"
    listening = asyncio.create_task(
        world.run("adapters", "capture", "broker", "--to", file, "--for", "30s", "--size", "300B")
    )
    while not listening.done():
        await world.publish("load/d1", '{"t": 1.5}', '{"v": 7}')
    assert listening.result()[0] == 0, listening.result()
    found = await world.json("adapters", "probe", "--capture", file)
    assert found["samples"] >= 1
    code, out, _ = await world.run("adapters", "show", "broker")
    assert "not yet acknowledged" in out
    assert "gmqtt 0.8" in out
    code, out, _ = await world.run("adapters", "show", "ovens")
    assert " ago" in out
    assert "closed" in out, "its circuit"
    assert "normalise" in out
    code, out, _ = await world.run("adapters", "show", "ovens", "--tags")
    assert (code, "plant/oven1/temperature" in out, "0 of 1 without a usable value" in out) == (0, True, True)
    found = await world.json("adapters", "show", "ovens", "--tags", "--stale", "--stale-after", "1ms")
    assert (found["tags"], found["stale_after_s"]) == (1, 0.001)
    for name, said in (("plant.toml", "no JSON object"), ("ovens.jsonl", "no adapter 'nobody'")):
        one = world.headrace.folder / name
        code, _, err = await world.run("adapters", "probe", "nobody", "--capture", one)
        assert (code in (1, 2), said in err) == (True, True), err


async def test_a_broker_is_probed_with_and_without_an_engine(world):
    publishing = asyncio.create_task(_keep_publishing(world))
    try:
        code, out, err = await world.run("adapters", "probe", "broker", "--for", "1s", "--topic", "#")
        assert code == 0, err
        assert "rule load/{device}" in out
        assert "plant/d1/t = " in out
        assert "refused: unknown-topic" in out
        found = json.loads(
            (await world.ask("adapters", "probe", "--url", world.broker.url, "--for", "1s", "--json"))[1]
        )
        assert {t["topic"] for t in found["topics"]} == {"load/d1", "else/where"}
        await world.up()
        before = world.headrace.status()["sensors"]
        assert (await world.json("adapters", "probe", "broker", "--for", "1s"))["messages"] > 0
        assert world.headrace.status()["sensors"] == before
    finally:
        publishing.cancel()
    for arguments, expected in (
        (("--url", "modbus+tcp://127.0.0.1:1", "--address", "holding:0"), 1),
        (("--url", "ftp://x"), 2),
        (("nobody",), 1),
    ):
        code, _, err = await world.run("adapters", "probe", *arguments)
        assert code == expected, err


async def test_sparkplug_nodes_are_probed(world):
    world.edit("[adapters.broker]", LINES.format(mqtt=world.broker.url) + "[adapters.broker]")
    node = SimulatedNode(
        (world.broker.host, world.broker.port), ("plant", "line1"), {"": TANK[:2], "pump": TANK[:1]}
    )
    await node.start()
    try:
        arguments = ("adapters", "probe", "lines", "--for", "1s", "--node", "plant/line1")
        code, out, err = await world.run(*arguments)
        assert code == 0, err
        assert "plant/line1  (1)  online, 2 metrics" in out
        assert "  plant/pump/Temperature = " in out
        found = await world.json(*arguments)
        assert [one["node"] for one in found["nodes"]] == ["plant/line1", "plant/line1/pump"]
        assert found["nodes"][0]["values"][1]["path"] == "plant/node/Inlet.Flow"
        assert node.n_commands == 2
    finally:
        await node.stop()


async def _keep_publishing(world):
    one = PublishingDevice("busy", world.broker.host, world.broker.port)
    await one.start()
    try:
        while True:
            await one.publish("load/d1", '{"t": 1}')
            await one.publish("else/where", '{"t": 1}')
            await asyncio.sleep(0.05)
    finally:
        await one.stop()


async def test_a_plant_file_is_applied_and_undone(world):
    await world.up()
    code, out, _ = await world.ask("apply", world.file, "--dry-run")
    assert (code, out) == (0, "nothing differs from what runs\n")
    world.edit('interval = "100ms"', 'interval = "200ms"')
    assert "headrace apply" in (await world.run("status"))[1]
    code, out, err = await world.ask("apply", world.file)
    assert (code, "nobody to ask" in err) == (2, True)
    assert '~ adapters.ovens changed\n    interval: "100ms" → "200ms"' in out
    found = json.loads((await world.ask("apply", world.file, "--yes", "--json"))[1])
    assert (found["applied"], found["version"]) == (True, 2)
    assert not (await world.json("status"))["config_differs"]
    found = await world.json("undo", "--dry-run")
    assert (found["applied"], found["back_to"]["n"]) == (False, 1)
    code, out, _ = await world.run("undo", "--yes")
    assert code == 0
    assert "back to version 1" in out
    assert "applied: version 3" in out
    assert (await world.json("status"))["config_differs"]
    code, _, err = await world.run("undo", "--yes")
    assert (code, "nothing to undo" in err) == (1, True)
    world.edit('flush_interval = "2s"', 'flush_interval = "3s"')
    code, out, err = await world.ask("apply", world.file, "--yes")
    assert (code, "only a restart changes" in err) == (2, True)
    world.edit('profile = "oven"', 'profile = "kiln"')
    code, _, err = await world.ask("apply", world.file, "--yes")
    assert (code, "no profile 'kiln'" in err) == (2, True)


async def test_rejects_are_listed_shown_and_replayed(world):
    await world.up()
    await world.publish("load/d1", *(f'{{"v": {i}}}' for i in range(12)))
    await asyncio.to_thread(
        world.headrace.until, lambda: world.headrace.status()["samples"]["rejected"] == 12
    )
    code, out, _ = await world.run("rejects", "list", "--last", "1h", "--limit", "5")
    assert code == 0
    assert "wrong-type" in out
    found = await world.json("rejects", "list", "--code", "wrong-type")
    assert (found["counts"][0]["rejects"], len(found["rejects"])) == (12, 12)
    one = found["rejects"][-1]["id"]
    code, out, _ = await world.run("rejects", "show", one)
    assert "7b 22 76 22 3a 20 30 7d" in out
    assert '{"v": 0}' in out
    assert (await world.run("rejects", "show", one, "--raw"))[1] == '{"v": 0}'
    assert (await world.json("rejects", "show", one))["source"] == "load/d1"
    assert (await world.json("rejects", "list", "--to", "2020-01-01"))["counts"] == []
    code, out, err = await world.run("rejects", "replay", "--yes")
    assert (code, out) == (1, "0 replayed (0 samples), 12 still failing\n")
    assert "12 of broker: wrong-type" in err
    world.edit("plant/{device}/{key}", "plant/mended-{device}/{key}")
    world.edit('types = { v = "bool" }', "types = {}")
    assert (await world.ask("apply", world.file, "--yes"))[0] == 0
    assert (await world.run("rejects", "replay", "--dry-run"))[1].startswith("12 would be replayed")
    assert (await world.run("rejects", "replay", one, "--yes"))[1].startswith("1 replayed (1 samples)")
    found = await world.json("rejects", "replay", "--adapter", "broker", "--yes")
    assert (found["replayed"], found["failing"]) == (11, 0)
    await world.publish("load/d1", "no json")
    await asyncio.to_thread(
        world.headrace.until, lambda: world.headrace.status()["samples"]["rejected"] == 13
    )
    for _ in range(60):  # it is counted before it is written: what is not yet may go with the process
        if (await world.json("rejects", "list", "--code", "malformed"))["rejects"]:
            break
    world.headrace.kill()
    found = await world.json("rejects", "list")
    assert [c["code"] for c in found["counts"]] == ["malformed"]
    assert (await world.json("rejects", "show", found["rejects"][0]["id"]))["text"] == "no json"
    for arguments in (("rejects", "replay", "--yes"), ("undo", "--yes"), ("adapters", "resume", "ovens")):
        code, _, err = await world.run(*arguments)
        assert (code, "no engine runs" in err) == (3, True)
    code, _, err = await world.ask("apply", world.file, "--yes")
    assert (code, "no engine runs" in err) == (3, True)
    code, _, err = await world.run("rejects", "show", "1-2-3")
    assert (code, "not the id of a reject" in err) == (2, True)
    code, _, err = await world.run("rejects", "list", "--code", "odd")
    assert (code, "not one of" in err) == (2, True)
