"""What people do to a plant while it runs, against real brokers and devices: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from headrace.adapters.base import AdapterState, Pushed
from headrace.adapters.broker.simulator import SimulatedBroker, find_mosquitto
from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedUnit
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.core.config import load_plant
from headrace.core.errors import (
    ChangedMeanwhile,
    ConfigError,
    HeadraceError,
    NotFound,
    Overloaded,
    PluginError,
    Rejected,
)
from headrace.core.problems import InvalidConfig
from headrace.runtime.assemble import build_plant
from headrace.runtime.reader import open_store

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")

HEAD = """version = 1
[plant]
levels = ["site", "device", "signal"]
[store]
url = "./store"
flush_interval = "2s"
"""
BROKER = """
[adapters.broker]
protocol = "mqtt"
url = "{url}"
version = "5"
reconnect_first = "20ms"
reconnect_most = "100ms"
{more}
[adapters.broker.topics]
"load/{{device}}" = {{ path = "plant/{{device}}/{{key}}", time = "ts", time_unit = "ns" }}
"""
OVENS = """
[profiles.oven]
temperature = {{ address = "holding:10:F32;order=CDAB" }}
level = {{ address = "holding:20" }}
[adapters.ovens]
protocol = "modbus"
profile = "oven"
interval = "{interval}"
[adapters.ovens.devices]
"plant/oven1" = "{url}"
"""
WINDOW = """
[pipelines.tens]
read = "plant/*/{signal}"
steps = [{{ op = "window", every = "1s", agg = ["count"] }}]
write = "{{parent}}/{{signal}}_{{agg}}_1s"
"""


async def until(what, timeout_s=30.0):
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.01)
    return found


@contextlib.asynccontextmanager
async def running(folder: Path, text: str, overrides=()):
    (folder / "plant.toml").write_text(text)
    plant = build_plant(load_plant(folder / "plant.toml", overrides))
    try:
        await plant.start()
        yield plant
    finally:
        await plant.stop()


@pytest.fixture
async def broker(tmp_path):
    one = SimulatedBroker(tmp_path / "broker")
    (tmp_path / "broker").mkdir(exist_ok=True)
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def ovens():
    one = ModbusSimulator({1: SimulatedUnit()})
    await one.start()
    yield one
    await one.stop()


@contextlib.asynccontextmanager
async def device(broker, name="device"):
    one = PublishingDevice(name, broker.host, broker.port)
    await one.start()
    yield one
    await one.delivered()
    await one.stop()


def state_of(plant, name):
    return next(a for a in plant.adapters() if a.name == name)


def stored(folder, pattern):
    found = open_store(folder / "store").query(pattern, from_="2000-01-01", to="2100-01-01")
    return found.to_rows()


async def test_pausing_and_replacing_under_load_loses_and_doubles_nothing(tmp_path, broker):
    """QoS 1 messages wait at the broker while the adapter is away."""
    text, n = HEAD + BROKER.format(url=broker.url, more=""), 3_000
    async with running(tmp_path, text) as plant:
        await until(lambda: state_of(plant, "broker").state is AdapterState.CONNECTED)
        ops, sent = plant.operations, 0

        async def publish():
            nonlocal sent
            async with device(broker) as one:
                for i in range(n):
                    await one.publish("load/d1", f'{{"ts": {10**18 + i}, "count": {i}}}')
                    sent += 1

        publishing = asyncio.create_task(publish())
        for step in range(6):
            goal = (step + 1) * n // 7
            await until(lambda goal=goal: sent >= goal)
            if step % 3 == 0:
                await ops.pause("broker", {"by": "ann", "reason": "maintenance"})
                assert state_of(plant, "broker").reason == "paused by ann: maintenance"
                before = plant.summary()["received"]
                await asyncio.sleep(0.2)
                assert plant.summary()["received"] == before
                await ops.resume("broker", {"by": "ann"})
            elif step % 3 == 1:
                assert (await ops.reload("broker", {"by": "ann"}))["adapter"] == "broker"
            else:
                keepalive = f'keepalive = "{40 + step}s"'
                changed = HEAD + BROKER.format(url=broker.url, more=keepalive)
                answer = await ops.change_config({"toml": changed, "by": "ann"}, "", False)
                assert answer["applied"]
        await publishing
        await until(lambda: plant.summary()["stored"] == n, 60)
        found = plant.summary()
        assert found["received"] == found["stored"] + found["duplicates"]
        assert state_of(plant, "broker").n_samples == found["received"]
    rows = stored(tmp_path, "plant/d1/count")
    assert [row["value"] for row in rows] == list(range(n))


async def test_a_paused_device_is_let_alone_also_after_a_restart(tmp_path, ovens):
    text = HEAD + OVENS.format(url=ovens.url(), interval="50ms")
    async with running(tmp_path, text) as plant:
        await until(lambda: state_of(plant, "ovens").n_samples > 4)
        await plant.operations.pause("ovens", {"by": "ann", "reason": "cleaning"})
        await until(lambda: not ovens._server.active_connections)
        n = ovens.units[1].n_requests
        probe = await plant.operations.probe("ovens", {"signal": "level"})
        assert probe["connection"] == "made for this"
        assert ovens.units[1].n_requests == n + 1
    async with running(tmp_path, text) as plant:
        found = state_of(plant, "ovens")
        assert (found.state, found.reason) == (AdapterState.PAUSED, "paused by ann: cleaning")
        assert any("stays paused by ann" in event.text for _, event in plant.events.since(0))
        await plant.operations.resume("ovens", {})
        await until(lambda: state_of(plant, "ovens").n_samples > 4)
        n = state_of(plant, "ovens").n_samples
        await plant.operations.pause("ovens", {})
        await plant.operations.resume("ovens", {})
        await until(lambda: state_of(plant, "ovens").n_samples > n)


async def test_apply_touches_only_what_changed_and_undo_goes_back(tmp_path, broker, ovens):
    one = HEAD + OVENS.format(url=ovens.url(), interval="50ms")
    async with running(tmp_path, one) as plant:
        ops = plant.operations
        await until(lambda: state_of(plant, "ovens").n_samples > 4)
        same = plant.supervisor.get("ovens")
        connection = list(ovens._server.active_connections)
        two = one + BROKER.format(url=broker.url, more="") + WINDOW.format(signal="level")
        trial = await ops.change_config({"toml": two}, "", True)
        assert [(c["part"], c["change"]) for c in trial["changes"]] == [
            ("adapters.broker", "added"), ("pipelines.tens", "added"),
        ]  # fmt: skip
        assert (trial["applied"], plant.supervisor.names) == (False, ["ovens"])
        done = await ops.change_config({"toml": two, "by": "ann"}, trial["from"], False)
        assert (done["applied"], done["version"]) == (True, 2)
        assert plant.supervisor.get("ovens") is same
        assert list(ovens._server.active_connections) == connection
        await until(lambda: state_of(plant, "broker").state is AdapterState.CONNECTED)
        await until(lambda: plant.summary()["derived"] > 0)
        assert plant.status()["config_hash"] == done["to"]
        with pytest.raises(ChangedMeanwhile, match="somebody has changed it meanwhile"):
            await ops.change_config({"toml": one}, trial["from"], False)

        three = two.replace('interval = "50ms"', 'interval = "40ms"')
        done = await ops.change_config({"toml": three}, done["to"], False)
        assert done["changes"] == [
            {"part": "adapters.ovens", "change": "changed", "lines": ['interval: "50ms" → "40ms"']}
        ]
        assert plant.supervisor.get("ovens") is not same
        back = await ops.change_config({"undo": True, "by": "bob"}, "", False)
        assert (back["applied"], back["to"], back["back_to"]["n"]) == (True, done["from"], 2)
        back = await ops.change_config({"undo": True}, "", False)
        assert (back["to"], plant.supervisor.names) == (trial["from"], ["ovens"])
        with pytest.raises(NotFound, match="nothing to undo"):
            await ops.change_config({"undo": True}, "", False)
        assert [v["how"] for v in [plant.reconfiguring.versions.get(n).summary() for n in (1, 2, 3, 4, 5)]] == [
            "start", "apply", "apply", "undo", "undo",
        ]  # fmt: skip
        assert plant.operations.present_config()["version"]["n"] == 5
        n = state_of(plant, "ovens").n_samples
        await until(lambda: state_of(plant, "ovens").n_samples > n)


async def test_what_cannot_be_applied_changes_nothing(tmp_path, ovens):
    one = HEAD + OVENS.format(url=ovens.url(), interval="50ms")
    async with running(tmp_path, one, ["runtime.threads=1"]) as plant:
        ops, before = plant.operations, plant.supervisor.get("ovens")
        for text, said in (
            (one.replace('interval = "50ms"', 'interval = "50"'), "interval"),
            (one.replace('profile = "oven"', 'profile = "kiln"'), "no profile 'kiln'"),
            (one.replace("holding:20", "holding:99999"), "99999"),
            ("version = ", "not valid TOML"),
            (
                one.replace('flush_interval = "2s"', 'flush_interval = "3s"'),
                "only a restart changes store.flush_interval",
            ),
        ):
            with pytest.raises(ConfigError, match=said):
                await ops.change_config({"toml": text}, "", False)
        # Two adapters for one sensor can be told only when the second one starts.
        stolen = one + (
            '[adapters.thief]\nprotocol = "modbus"\nprofile = "other"\ninterval = "1s"\n'
            f'[adapters.thief.devices]\n"plant/oven1" = "{ovens.url()}"\n'
            '[profiles.other]\nlevel = { address = "holding:20:I16" }\n'
        )
        changed = stolen.replace('interval = "50ms"', 'interval = "60ms"')
        with pytest.raises(ConfigError, match="is defined twice"):
            await ops.change_config({"toml": changed}, "", False)
        assert plant.supervisor.names == ["ovens"]
        assert plant.supervisor.get("ovens") is not before
        assert ops.present_config()["config"]["adapters"]["ovens"]["interval"] == "50ms"
        n = state_of(plant, "ovens").n_samples
        await until(lambda: state_of(plant, "ovens").n_samples > n + 4)
        trial = await ops.change_config({"toml": one.replace('url = "./store"', 'url = "./other"')}, "", True)
        assert trial["needs_restart"] == ['store.url: "./store" → "./other"']
        assert not (await ops.change_config({"toml": one}, "", False))["applied"]
        assert ops.present_config()["overrides"] == ["runtime.threads=1"]
        for document, said in (
            ({}, "say what to apply"),
            ({"toml": 3}, "say what to apply"),
            ({"toml": one, "file": "plant.toml"}, "not a whole path"),
            ({"toml": one, "by": 3}, "by is not a text"),
        ):
            with pytest.raises(ConfigError, match=said):
                await ops.change_config(document, "", False)
        assert not (await ops.change_config({"config": ops.present_config()["config"]}, "*", False))[
            "applied"
        ]
        with pytest.raises(InvalidConfig):
            await ops.change_config({"config": {"version": 2}}, "*", False)


async def test_reload_reads_the_file_anew(tmp_path, ovens):
    one = HEAD + OVENS.format(url=ovens.url(), interval="50ms").replace(
        f'[adapters.ovens.devices]\n"plant/oven1" = "{ovens.url()}"\n', 'devices = "ovens.csv"\n'
    )
    (tmp_path / "ovens.csv").write_text(f"path,url\nplant/oven1,{ovens.url()}\n")
    async with running(tmp_path, one) as plant:
        ops, first = plant.operations, plant.status()["config_hash"]
        (tmp_path / "ovens.csv").write_text(
            f"path,url\nplant/oven1,{ovens.url()}\nplant/oven2,{ovens.url()}\n"
        )
        assert plant.status()["config_hash"] == first
        assert (await ops.reload("ovens", {}))["lines"] == [f'devices."plant/oven2,{ovens.url()}": "" added']
        assert len(state_of(plant, "ovens").devices) == 2
        assert plant.status()["config_hash"] != first
        await until(lambda: 'device="plant/oven2"} 1' in plant.metrics.expose())
        back = await ops.change_config({"undo": True}, "", False)
        assert back["to"] == first
        assert len(state_of(plant, "ovens").devices) == 1
        assert 'device="plant/oven2"' not in plant.metrics.expose()
        (tmp_path / "plant.toml").write_text(one.replace("holding:20", "holding:99999"))
        with pytest.raises(ConfigError, match="99999"):
            await ops.reload("ovens", {})
        (tmp_path / "plant.toml").write_text(HEAD)
        with pytest.raises(NotFound, match="has no adapter 'ovens' any more"):
            await ops.reload("ovens", {})
        with pytest.raises(NotFound, match="no adapter 'oven'"):
            await ops.reload("oven", {})
        assert len(state_of(plant, "ovens").devices) == 1


async def test_a_refresh_applies_the_file_and_says_what_it_did(tmp_path, ovens):
    text = HEAD + OVENS.format(url=ovens.url(), interval="50ms")
    async with running(tmp_path, text) as plant:

        async def refreshed():
            before = plant.events.n_ever
            await plant.operations.refresh("SIGHUP")
            return [(event.kind, event.text) for _, event in plant.events.since(before)]

        ((kind, said),) = await refreshed()
        assert (kind, "neither the plant file nor an adapter's code has changed" in said) == (
            "config.same",
            True,
        )
        (tmp_path / "plant.toml").write_text(text.replace('"50ms"', '"70ms"'))
        assert [kind for kind, _ in await refreshed()] == ["adapter.reloaded", "config.applied"]
        assert plant.reconfiguring.version.by == "SIGHUP"
        (tmp_path / "plant.toml").write_text("version = 2")
        ((kind, said),) = await refreshed()
        assert (kind, "the plant file was not applied: version: the file has version 2" in said) == (
            "config.refused",
            True,
        )
        assert state_of(plant, "ovens").pid == 0


async def test_what_still_fails_stays_and_is_not_counted_again(tmp_path, broker):
    async with running(tmp_path, HEAD + BROKER.format(url=broker.url, more="")) as plant:
        ops = plant.operations
        await until(lambda: state_of(plant, "broker").state is AdapterState.CONNECTED)
        async with device(broker) as dev:
            for i in range(20):
                await dev.publish("load/d1", f'{{"ts": {10**18 + i}, "good": {i}, "bad": [1]}}')
                await dev.publish("load/d2", f'{{"t": {i}')
        counted = await until(lambda: plant.summary() if plant.summary()["rejected"] == 40 else None)
        await plant.intake.drain()  # they are counted when they come, kept when the journal has them
        found = await ops.rejects({"limit": 3})
        assert {c["code"]: c["rejects"] for c in found["counts"]} == {"wrong-type": 20, "malformed": 20}
        assert len(found["rejects"]) == 3
        shown = await ops.reject(found["rejects"][0]["id"])
        assert bytes.fromhex(shown["hex"]).decode() == shown["text"]
        failing = await ops.replay_rejects({"code": "malformed"})
        assert (failing["replayed"], failing["failing"], failing["samples"]) == (0, 20, 0)
        assert sum(reason["rejects"] for reason in failing["reasons"]) == 20
        assert (await ops.replay_rejects({"code": "wrong-type"}))["failing"] == 20
        after = await until(lambda: plant.summary() if not plant.summary()["in_flight"] else None)
        assert after["rejected"] == counted["rejected"], "it is not counted as refused again"
        assert (after["stored"], after["duplicates"]) == (20, 20), "the good part was there already"
        assert after["received"] == after["stored"] + after["duplicates"] + after["rejected"]


async def test_rejects_are_taken_in_once_after_the_rule_was_mended(tmp_path, broker):
    one = HEAD + BROKER.format(url=broker.url, more="").replace("plant/{device}/{key}", "plant/rest/{key}")
    strict = one.replace('time = "ts", time_unit = "ns"', 'types = { v = "bool" }')
    async with running(tmp_path, strict) as plant:
        ops = plant.operations
        await until(lambda: state_of(plant, "broker").state is AdapterState.CONNECTED)
        async with device(broker) as dev:
            for i in range(30):
                await dev.publish("load/d", f'{{"v": {i}.5}}' + " " * 20_000 * (i % 3))
        await until(lambda: plant.summary()["rejected"] == 30)
        await plant.intake.drain()
        mended = strict.replace("plant/rest/{key}", "plant/mended/{key}").replace(
            'types = { v = "bool" }', "types = {}"
        )
        assert (await ops.change_config({"toml": mended}, "", False))["applied"]
        trial = await ops.replay_rejects({"dry_run": True, "limit": 7})
        assert (trial["replayed"], trial["next"] is not None, plant.summary()["stored"]) == (7, True, 0)
        first = await ops.replay_rejects({"limit": 10})
        assert (first["replayed"], first["samples"]) == (10, 10)
        rest = await ops.replay_rejects({"after": first["next"]})
        assert (rest["replayed"], rest["next"]) == (20, None)
        assert (await ops.replay_rejects({}))["replayed"] == 0
        assert (await ops.rejects({}))["counts"] == []
        await until(lambda: plant.summary()["stored"] == 30)
        assert "headrace_rejects_replayed_total 30" in plant.metrics.expose()
    rows = stored(tmp_path, "plant/mended/v")
    assert [row["value"] for row in rows] == [i + 0.5 for i in range(30)]
    async with running(tmp_path, mended) as plant:
        assert (await plant.operations.replay_rejects({}))["replayed"] == 0


async def test_rejects_outlive_the_journal_and_the_process(tmp_path, broker):
    text = HEAD + BROKER.format(url=broker.url, more="")
    async with running(tmp_path, text) as plant:
        await until(lambda: state_of(plant, "broker").state is AdapterState.CONNECTED)
        async with device(broker) as dev:
            await dev.publish("load/d1", "no json")
        await until(lambda: plant.summary()["rejected"] == 1)
        await until(lambda: list((tmp_path / "store" / "rejects").glob("*.parquet")))
    for file in (tmp_path / "store" / "journal").rglob("*.hrj"):
        assert file.exists()
    async with running(tmp_path, text) as plant:
        (one,) = (await plant.operations.rejects({}))["rejects"]
        assert (one["source"], one["code"]) == ("load/d1", "malformed")


async def test_following_shows_what_comes_and_slows_nobody(tmp_path, ovens):
    text = HEAD + OVENS.format(url=ovens.url(), interval="50ms")
    async with running(tmp_path, text) as plant:
        seen = []
        async for document in plant.operations.follow("ovens", "**/level"):
            if document:
                seen.append(document)
            if len(seen) == 5:
                break
        await asyncio.sleep(0)
        assert {d["path"] for d in seen} == {"plant/oven1/level"}
        assert set(seen[0]) == {"path", "ts", "value", "quality"}
        with pytest.raises(NotFound):
            plant.operations.follow("oven")
        with pytest.raises(ConfigError):
            plant.operations.follow("ovens", "{")


async def test_what_an_adapter_cannot_do_is_told(tmp_path, ovens):
    (tmp_path / "files").mkdir()
    text = (
        HEAD
        + OVENS.format(url=ovens.url(), interval="50ms")
        + ('[adapters.files]\nprotocol = "replay"\nfiles = "files/*.csv"\npath = "plant/d/{key}"\n')
    )
    async with running(tmp_path, text) as plant:
        with pytest.raises(PluginError, match="files has nothing to probe"):
            await plant.operations.probe("files", {})
        with pytest.raises(Rejected, match="'ovens' is not pushed to"):
            await plant.receive("ovens", Pushed(b"x"))
        await plant.operations.pause("ovens", {"by": "ann"})
        with pytest.raises(Overloaded, match="ovens is paused by ann"):
            await plant.receive("ovens", Pushed(b"x"))
        for limit in (0, 1_001, "3"):
            with pytest.raises(ConfigError, match="limit"):
                await plant.operations.rejects({"limit": limit})
        with pytest.raises(HeadraceError, match="which rejects"):
            await plant.operations.rejects({"from_ns": []})
        with pytest.raises(NotFound, match="no reject '7-0' is kept"):
            await plant.operations.reject("7-0")
