"""Traps that collectors needed years to get out of, each by the words in which their users told of it.

The list is that of adapters which have been in use for long; each case is run against our adapter of that protocol, with
a server or broker that is real.
"""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest
import pytest_asyncio
from tests.contract.test_adapter_faults import ModbusRig, MqttRig
from tests.contract.test_sparkplug_adapter import SparkplugRig
from tests.integration.opcua_life import Life, adapter_of, latest, samples

from headrace.adapters.base import AdapterState
from headrace.adapters.broker.simulator import find_mosquitto, free_port
from headrace.adapters.opcua import subscribing
from headrace.adapters.opcua.simulator import SERVER_URI, CertificatePair, OpcuaSimulator
from headrace.adapters.sparkplug.simulator import TANK, SimulatedNode
from headrace.core.clock import SystemClock
from headrace.core.readings import readings
from headrace.store.query import Store
from headrace.testing import adapter_faults as faults
from headrace.testing.adapters import RecordingSink, running, taken, until
from headrace.testing.plant_process import PlantProcess

# One OPC UA server for all: to make one takes 2 s.
pytestmark = pytest.mark.asyncio(loop_scope="module")
N_ENCRYPTED = 1_100
TRAPS = {}


def trap(words):
    """Register a case by its words."""

    def add(case):
        TRAPS[words] = case
        return case

    return add


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The server, with certificates that it may be made to show."""
    folder = tmp_path_factory.mktemp("certificates")
    pairs = {
        "server": CertificatePair.make(folder, "server", SERVER_URI),
        "ours": CertificatePair.make(folder, "ours", "urn:headrace.example:ours"),
    }
    return OpcuaSimulator(free_port()), pairs, folder


@pytest_asyncio.fixture(loop_scope="module")
async def bench(made, tmp_path, monkeypatch):
    """What a case needs: a folder, an OPC UA server that runs, and how to change something for its time."""
    plant, pairs, certificates = made
    monkeypatch.setattr(subscribing, "KEEP_ALIVE_NS", 100_000_000)
    plant.policies = ("None",)
    await plant.start()
    yield SimpleNamespace(
        plant=plant, pairs=pairs, certificates=certificates, folder=tmp_path, monkeypatch=monkeypatch
    )
    await plant.stop()


# --- OPC UA --------------------------------------------------------------------------------------------


@trap("subscriptions survive reconnect")
async def subscriptions_survive(bench):
    plant = bench.plant
    await plant.set("a", 1.0)
    async with Life(adapter_of(plant, {"a": None})) as life:
        await life.value("l/d/a", 1.0)
        for value in (2.0, 3.0):
            plant.drop()
            await until(lambda: life.state is not AdapterState.CONNECTED, "the loss is noticed")
            await plant.write("a", value)
            await life.value("l/d/a", value)
        await plant.stop()  # and where the server has forgotten them
        await plant.start()
        await plant.write("a", 4.0)
        await life.value("l/d/a", 4.0)
        await plant.write("a", 5.0)
        await life.value("l/d/a", 5.0)


@trap("one bad node id must not block a batch")
async def one_bad_node(bench):
    plant = bench.plant
    for name in ("a", "b"):
        await plant.set(name, 1.0)
    signals = {
        "a": None,
        "gone": plant.address("no.such"),
        "lost": "nsu=http://nobody.example/;i=7",
        "b": None,
    }
    for mode in ("subscribe", "read"):
        async with Life(adapter_of(plant, signals, mode=mode)) as life:
            await until(lambda: {"l/d/a", "l/d/b"} <= set(latest(life.sink)), "the others come")
            assert life.state is AdapterState.DEGRADED
            assert "gone: BadNodeIdUnknown" in life.reason


async def encrypted(bench, **more):
    """The server with certificates, a user and a password; what to write for it in the plant file."""
    plant = bench.plant
    await plant.stop()
    plant.policies = ("Basic256Sha256/SignAndEncrypt",)
    await plant.use_certificate(bench.pairs["server"])
    await plant.start()
    bench.monkeypatch.setenv("OPCUA_PASSWORD", "right")
    bench.monkeypatch.setitem(plant.users.passwords, "headrace", "right")
    return {
        "security": "Basic256Sha256", "security_mode": "SignAndEncrypt", "cert_file": "ours.der", "key_file": "ours.key.pem",
        "server_cert_file": "server.der", "user": "headrace", "password": {"env": "OPCUA_PASSWORD"},
        "folder": bench.certificates, **more,
    }  # fmt: skip


@trap(">1,000 tags over encrypted OPC UA")
async def many_encrypted(bench):
    plant, security = bench.plant, await encrypted(bench)
    names = [f"many.v{i}" for i in range(N_ENCRYPTED)]
    for i, name in enumerate(names):
        await plant.set(name, float(i))
    signals = {f"v{i}": plant.address(f"{{node}}.v{i}") for i in range(N_ENCRYPTED)}
    devices = {"l/d": plant.url("many", "20s")}
    async with Life(adapter_of(plant, signals, devices, **security)) as life:
        await until(lambda: life.sink.n_samples >= N_ENCRYPTED, "all have come")
        assert plant.n_items == N_ENCRYPTED
        assert {value for value, _ in latest(life.sink).values()} == set(map(float, range(N_ENCRYPTED)))
        plant.drop()
        for i in range(0, N_ENCRYPTED, 10):
            await plant.write(names[i], -1.0)
        n_changed = len(range(0, N_ENCRYPTED, 10))
        await until(
            lambda: sum(value == -1.0 for value, _ in latest(life.sink).values()) == n_changed,
            "changes come over the next connection",
        )
        await until(lambda: life.state is AdapterState.CONNECTED, f"it is connected, not {life.reason}")
    assert not life.sink.rejects


@trap("certificate chains")
async def chains(bench):
    """A server that shows the certificates of its issuers behind its own is known by its own."""
    plant, security = bench.plant, await encrypted(bench)
    issuer = CertificatePair.make(bench.folder, "issuer")
    for endpoint in plant._server.iserver.endpoints:
        endpoint.ServerCertificate += issuer.der
    await plant.set("a", 1.0)
    async with Life(adapter_of(plant, {"a": None}, **security)) as life:
        await life.value("l/d/a", 1.0)
    other = await encrypted(bench, server_cert_file="ours.der")
    async with Life(adapter_of(plant, {"a": None}, **other)) as life:
        await until(lambda: life.state is AdapterState.FAILED, "another one is not")
        assert life.sink.n_samples == 0


@trap("missing node id while browsing")
async def missing_while_browsing(bench):
    """What a folder names and the server has not, is told, and what stands behind it is found."""
    plant = bench.plant
    folder = await plant.add_folder("Oven9")
    for name in ("oven9.a", "oven9.gone", "oven9.b"):
        await plant.add(name, 1.0, folder=folder)
    space = plant._server.iserver.aspace
    del space._nodes[plant.node("oven9.gone")]
    found = await adapter_of(plant, {"a": None}).scan({}, SystemClock())
    mine = {tag.address.rpartition("s=oven9.")[2]: tag.problem for tag in found if "s=oven9." in tag.address}
    assert (mine["a"], mine["b"]) == ("", "")
    assert mine.get("gone", "left out"), "it looks as if it could be a sensor"


@trap("nodes re-found after reconnect")
async def found_again(bench):
    """A server that comes back without a node, which it has again later."""
    plant = bench.plant
    for name in ("a", "b"):
        await plant.set(name, 1.0)
    async with Life(adapter_of(plant, {"a": None, "b": None}, verify="50ms")) as life:
        await until(lambda: len(latest(life.sink)) == 2, "both come")
        await plant.stop()
        await plant.remove("b")
        await plant.start()
        await plant.write("a", 2.0)
        await life.value("l/d/a", 2.0)
        await until(lambda: "b: BadNodeIdUnknown" in life.reason, "one is missing, the other is not")
        await plant.set("b", 3.0)
        await life.value("l/d/b", 3.0)
        await until(lambda: life.state is AdapterState.CONNECTED, "all is well again")


@trap("null Variants")
async def null_variants(bench):
    plant = bench.plant
    await plant.set("a", 1.0)
    await plant.set("b", None, "Null")
    for mode in ("subscribe", "read"):
        await plant.write("a", 1.0)
        await plant.write("b", None, "Null")
        async with Life(adapter_of(plant, {"a": None, "b": None}, mode=mode)) as life:
            await life.value("l/d/a", 1.0)
            await plant.write("a", None, "Null")
            await plant.write("b", 7.0)
            await life.value("l/d/b", 7.0)
            await plant.write("a", 2.0)
            await life.value("l/d/a", 2.0)
            assert life.state is AdapterState.CONNECTED
        good = {(path, value) for path, _, value, quality in samples(life.sink) if quality == 0}
        assert good == {("l/d/a", 1.0), ("l/d/a", 2.0), ("l/d/b", 7.0)}, "null is no value"


@trap("numeric-looking strings stay strings")
async def strings_stay(bench):
    plant = bench.plant
    await plant.set("serial", "00731", "String")
    async with Life(adapter_of(plant, {"serial": None})) as life:
        await life.value("l/d/serial", "00731")
        await plant.write("serial", "1e3", "String")
        await life.value("l/d/serial", "1e3")
    if find_mosquitto() is None:
        return
    rig, sink = MqttRig(bench.folder), RecordingSink()
    async with running(rig, sink):
        await rig.publish(['{"ts": 1700000000000, "serial": "00731", "t": 1.5}'])
        await until(lambda: sink.n_samples >= 2, "both come")
    assert taken(sink) == {("leon/a/d1/serial", "00731"), ("leon/a/d1/t", 1.5)}


# --- Modbus --------------------------------------------------------------------------------------------


@trap("Modbus late reply after time-out (transaction id)")
async def late_reply(bench):
    await faults.check_late_reply(ModbusRig(bench.folder))


@trap("NUL-padded S7 strings")
async def padded_strings(bench):
    """Texts in registers: S7's are told to other adapters as these are."""
    rig, sink = ModbusRig(bench.folder), RecordingSink()
    adapter = rig.make_registers(["holding:0:STR[8]", "holding:4:STR[8]", "holding:8:U16"])
    data = b"OVEN 1\0\0" + bytes(8) + b"\0\7"
    await rig.up()
    try:
        await adapter.start(sink)
        await rig.send_registers(data)
        await until(lambda: ("leon/a/tank/r0", "OVEN 1") in taken(sink), "the text comes without its padding")
        assert {("leon/a/tank/r1", ""), ("leon/a/tank/r2", 7)} <= taken(sink)
        assert not [value for _, value in taken(sink) if isinstance(value, str) and "\0" in value]
    finally:
        await adapter.stop()
        await rig.down()
    assert not sink.rejects


# --- Sparkplug -----------------------------------------------------------------------------------------


@trap("Sparkplug type known only from BIRTH")
async def type_of_birth(bench):
    """Data name neither metric nor type: both are what the birth has said."""
    rig, sink = SparkplugRig(bench.folder), RecordingSink()
    async with running(rig, sink):
        await rig.send()
        await until(lambda: rig.offered() <= taken(sink), "all come")
        found = {
            column.name: sink.directory.layout(slot).dtype
            for slot in range(sink.directory.n_slots)
            for column in sink.directory.layout(slot).columns
        }
    assert found == {
        "Temperature": "f64",
        "Inlet.Flow": "f32",
        "Level": "i32",
        "Running": "u8",
        "State": "u32",
    }
    assert not sink.rejects


@trap("alias after restart asks for rebirth")
async def alias_after_restart(bench):
    rig, sink = SparkplugRig(bench.folder), RecordingSink()
    async with running(rig, sink) as old:
        await rig.send()
        await until(lambda: rig.offered() <= taken(sink), "all come")
        await old.stop()
        new, later = rig.make(), RecordingSink()
        await new.start(later)
        try:
            await rig.node.report("tank")
            await until(lambda: rig.node.n_commands > 0, "the node is asked to be born again")
            before = set(rig.node.sent)
            await rig.node.report("tank", ["Level"])
            wanted = {(rig.path(one), one.value) for one in set(rig.node.sent) - before}
            await until(lambda: wanted <= taken(later), "its aliases mean something again")
        finally:
            await new.stop()


@trap("same device name under two edge nodes")
async def same_name(bench):
    rig, sink = SparkplugRig(bench.folder), RecordingSink()
    async with running(rig, sink):
        nodes = [
            SimulatedNode(
                ("127.0.0.1", rig.broker.port), ("leon", line), {"tank": TANK[:1]}, seed=seed, qos=1
            )
            for seed, line in enumerate(("line1", "line2"))
        ]
        for node in nodes:
            await node.start()
        for node in nodes * 3:
            await node.report("tank")
        wanted = {
            (f"leon/{node._node}/tank/Temperature", one.time_ms, one.value)
            for node in nodes
            for one in node.sent
        }

        def found():
            each = (one for batch in sink.batches for one in readings(batch, sink.directory))
            return {(one.path, one.ts_ns // 1_000_000, one.value) for one in each}

        await until(lambda: len(found()) >= len(wanted), "all come")
        assert found() == wanted, "one device's values are taken for the other's"
        for node in nodes:
            await node.stop()


# --- all -----------------------------------------------------------------------------------------------


@trap("SIGTERM drains")
async def sigterm_drains(bench):
    """What the broker was told is durable is stored when the process has ended, and the rest comes to the next one."""
    rig = MqttRig(bench.folder)
    await rig.up()
    plant = PlantProcess(bench.folder)
    text = 'version = 1\n[plant]\nlevels = ["site", "area", "device", "signal"]\n[store]\nurl = "./store"\n'
    (bench.folder / "plant.toml").write_text(text + '[api]\nlisten = "127.0.0.1:0"\n' + rig.plant_section())
    try:
        plant.start()
        await asyncio.to_thread(plant.up)
        await asyncio.to_thread(plant.until, lambda: plant.adapter().get("state") == "connected")
        await rig.send()
        await asyncio.to_thread(plant.until, lambda: plant.status()["samples"]["received"] > 0)
        assert await asyncio.to_thread(plant.stop, 30.0) == 0, plant.said
        found = Store.open(plant.store, None, SystemClock()).query("leon/**", 0, SystemClock().now_ns())
        n_stored = len(found.to_rows())
        assert n_stored >= 2 * rig.n_acknowledged() > 0
        assert "Traceback" not in plant.said
    finally:
        plant.kill()
        await rig.down()


@trap("repeated errors logged once with a count")
async def logged_once(bench):
    """Answers that are garbled time and again; the count is among the diagnostics."""
    rig, sink, lines = ModbusRig(bench.folder), RecordingSink(), []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    log = logging.getLogger("headrace.adapters")
    bench.monkeypatch.setattr(log, "level", logging.INFO)
    log.addHandler(handler)
    try:
        async with running(rig, sink) as adapter:
            await rig.send()
            await until(lambda: sink.n_samples > 0, "samples come")
            await rig.send_garbage()
            await until(lambda: len(sink.rejects) >= 10, "it is garbled time and again")
            assert adapter.diagnostics().devices[0].n_errors >= 10
            assert len(lines) == len(set(lines)), lines
            assert len(lines) <= 2, "one of registers, one of coils"
            assert adapter.diagnostics().n_rejects == len(sink.rejects)
    finally:
        log.removeHandler(handler)


NEEDS_MOSQUITTO = ("Sparkplug", "alias", "same device", "SIGTERM")


@pytest.mark.parametrize("words", TRAPS)
async def test_trap(words, bench):
    if words.startswith(NEEDS_MOSQUITTO) and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed; amqtt keeps nothing for a client that is away")
    await TRAPS[words](bench)
