"""The OPC UA adapter against asyncua's server over loopback."""

import asyncio
import time

import numpy as np
import pytest
import pytest_asyncio
from tests.integration.opcua_life import Life, adapter_of, latest, samples

from headrace.adapters.base import AdapterState
from headrace.adapters.broker.simulator import free_port
from headrace.adapters.opcua import polling, subscribing
from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.opcua.scanner import warm_scanner
from headrace.adapters.opcua.simulator import NAMESPACE, SERVER_URI, CertificatePair, OpcuaSimulator
from headrace.adapters.pacing import ConnectPacer
from headrace.core.clock import NO_TIME, SystemClock
from headrace.core.errors import ConfigError, NotConnected, Rejected
from headrace.core.events import RejectCode
from headrace.core.frames import Shape
from headrace.core.quality import Quality
from headrace.testing.adapter_fleets import Doorkeeper
from headrace.testing.adapters import RecordingSink, until

# One server for all: to make one takes 2 s.
pytestmark = pytest.mark.asyncio(loop_scope="module")
MS = 1_000_000
T0 = 1_795_446_000 * 10**9


@pytest.fixture(scope="module")
def made():
    warm_scanner()
    return OpcuaSimulator(free_port())


@pytest_asyncio.fixture(loop_scope="module")
async def plant(made, monkeypatch):
    monkeypatch.setattr(subscribing, "KEEP_ALIVE_NS", 100 * MS)
    made.policies, made.max_per_call = ("None",), 0
    await made.start()
    yield made
    await made.stop()


TYPES = {
    "truth": (True, "Boolean", 1), "i8": (-3, "SByte", -3), "u8": (200, "Byte", 200), "i16": (-30_000, "Int16", -30_000),
    "u16": (65_000, "UInt16", 65_000), "i32": (-(2**31), "Int32", -(2**31)), "u32": (2**32 - 1, "UInt32", 2**32 - 1),
    "i64": (-(2**63), "Int64", -(2**63)), "u64": (2**64 - 1, "UInt64", 2**64 - 1), "f32": (0.1, "Float", np.float32(0.1)),
    "f64": (1 / 3, "Double", 1 / 3), "word": ("läuft", "String", "läuft"),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["subscribe", "read"])
async def test_every_type_with_the_time_of_its_source(plant, mode):
    for name, (value, kind, _) in TYPES.items():
        await plant.set(name, value, kind)
        await plant.write(name, value, kind, source_ns=T0 + 1_000)
    async with Life(adapter_of(plant, dict.fromkeys(TYPES), mode=mode)) as life:
        await until(lambda: len(latest(life.sink)) == len(TYPES), "all have come")
        assert life.state is AdapterState.CONNECTED
        await until(lambda: mode == "subscribe" or life.adapter.diagnostics().n_duplicates > 20, "read again")
    found = samples(life.sink)
    assert {(path, value) for path, _, value, _ in found} == {
        (f"l/d/{n}", v) for n, (_, _, v) in TYPES.items()
    }
    assert {ts for _, ts, _, _ in found} == {T0 + 1_000}, "nothing gets a fresh time"
    assert len(found) == len(TYPES), "repeats are not stored"
    assert all(batch.shape is Shape.DENSE for batch in life.sink.batches)
    kinds = {
        c.name: (c.kind.name, c.labels)
        for s in range(life.sink.directory.n_slots)
        for c in life.sink.directory.layout(s).columns
    }
    assert kinds["truth"] == ("DISCRETE", ("false", "true"))
    assert kinds["word"][0] == "DISCRETE"
    assert kinds["f64"] == ("ANALOG", ())


async def test_a_thousand_items_in_batches_and_bad_nodes_among_them(plant):
    plant.max_per_call = 300
    names = [f"many.v{i}" for i in range(1_000)]
    for i, name in enumerate(names):
        await plant.set(name, float(i))
    signals = {f"v{i}": plant.address(f"{{node}}.v{i}") for i in range(1_000)}
    signals |= {"gone": plant.address("{node}.gone"), "lost": "nsu=http://nobody.example/;i=7"}
    devices = {"l/d": plant.url("many", "4s")}
    async with Life(adapter_of(plant, signals, devices)) as life:
        await until(lambda: life.sink.n_samples >= 1_000, "all have come")
        assert plant.n_items == 1_000
        assert latest(life.sink)["l/d/v999"] == (999.0, Quality.GOOD)
        assert life.state is AdapterState.DEGRADED
        assert life.reason == "l/d: gone: BadNodeIdUnknown (and 1 more of 1002 variables)"
        await until(lambda: len(life.sink.rejects) == 2, "both are told")
        for i in range(0, 1_000, 10):
            await plant.write(names[i], -1.0)
        await until(lambda: sum(v == -1.0 for v, _ in latest(life.sink).values()) == 100, "changes come")
        assert {r.code for r in life.sink.rejects} == {RejectCode.DEVICE_ERROR}
        assert "has no namespace 'http://nobody.example/'" in "".join(r.detail for r in life.sink.rejects)
        assert life.sink.batches[0].shape is Shape.DENSE or life.sink.batches[0].n_frames == 1
        assert any(b.shape is Shape.SPARSE for b in life.sink.batches)


@pytest.mark.parametrize("mode", ["subscribe", "read"])
async def test_a_type_that_changes_is_refused_and_the_others_go_on(plant, mode):
    await plant.set("a", 1.0)
    await plant.set("b", 3, "Int32")
    async with Life(adapter_of(plant, {"a": None, "b": None}, mode=mode)) as life:
        await until(lambda: len(latest(life.sink)) == 2, "both have come")
        await plant.write("a", "text", "String")
        await plant.write("b", 7, "Int16")
        await life.value("l/d/b", 7)
        await until(lambda: bool(life.sink.rejects), "the text is refused")
        reject = life.sink.rejects[0]
        assert (reject.code, reject.adapter) == (RejectCode.WRONG_TYPE, "x")
        assert reject.detail.startswith("l/d/a is String, expected f64 as it was at first")
        assert b"text" in reject.raw, "with its status and times, so that it can be decoded again"
        assert life.state is AdapterState.DEGRADED
        await plant.write("a", 2.0)
        await life.value("l/d/a", 2.0)
        assert life.state is AdapterState.CONNECTED


@pytest.mark.parametrize("mode", ["subscribe", "read"])
async def test_a_server_that_was_off_and_one_that_hangs(plant, mode, monkeypatch):
    await plant.set("a", 1.0)
    async with Life(adapter_of(plant, {"a": None}, mode=mode, verify="10s")) as life:
        await life.value("l/d/a", 1.0)
        for value in (2.0, 3.0):
            await plant.stop()
            await until(lambda: life.state is AdapterState.BACKOFF, "the loss is noticed")
            await plant.start()
            await plant.write("a", value)
            await life.value("l/d/a", value)
            await until(lambda: life.state is AdapterState.CONNECTED, "it is back")
        n = life.adapter.diagnostics().n_samples
        plant.drop()
        await until(lambda: life.state is not AdapterState.CONNECTED, "the loss is noticed")
        await until(lambda: life.state is AdapterState.CONNECTED, "it is back")
        assert life.adapter.diagnostics().n_samples == n, "what had come does not come anew"
        plant.hang()
        await until(lambda: life.state is AdapterState.BACKOFF, "the silence is noticed")
        assert "connected, but" in life.reason
        await plant.write("a", 5.0)
        await life.value("l/d/a", 5.0)


async def test_servers_that_are_silent_keep_no_other_from_connecting(plant):
    await plant.set("a", 1.0)
    door = Doorkeeper()
    await door.start()
    silent = [f"opc.tcp://{host}:{port}?timeout=20s" for host, port in door.addresses(48)]
    devices = {f"l/s{i}": url for i, url in enumerate(silent)} | {"l/z": plant.url()}
    try:
        async with Life(adapter_of(plant, {"a": None}, devices)) as life:
            await life.value("l/z/a", 1.0)
            assert door.n_peers == len(silent)
            assert {d.state for d in life.adapter.diagnostics().devices[:-1]} == {AdapterState.STARTING}
    finally:
        await door.stop()


class CountedTurns(ConnectPacer):
    """Counts who asks for a turn."""

    def __init__(self):
        super().__init__()
        self.n = 0

    async def turn(self):
        self.n += 1
        await super().turn()


@pytest.mark.parametrize("mode", ["subscribe", "read"])
async def test_it_tells_how_it_is_doing(plant, mode):
    await plant.set("a", 1.0)
    nowhere = f"opc.tcp://127.0.0.1:{free_port()}"
    devices = {
        "l/d": plant.url(),
        "l/e": {"url": plant.url(), "interval": "40ms"},
        "l/f": nowhere,
        "l/g": nowhere,
    }
    pacer, sink = CountedTurns(), RecordingSink(is_durable=False)
    adapter, heard = adapter_of(plant, {"a": None}, devices, mode=mode, pacer=pacer), []
    adapter.listen(heard.append)
    async with Life(adapter, sink) as life:
        await life.value("l/d/a", 1.0)
        assert {one.source for one in heard} == {f"127.0.0.1:{plant.port}"}, (
            "the first answers are heard, too"
        )
        await life.value("l/e/a", 1.0)
        found = life.adapter.diagnostics()
        assert (found.n_connects, found.n_gaps) == (1, 0)
        assert found.n_bytes > 100
        assert 0 < found.n_unacknowledged <= 4
        assert 0 <= time.time_ns() - found.unacknowledged_ns < 5 * 10**9
        one, other, away, _ = found.devices
        assert abs(one.clock_skew_ns) < 10**9
        assert away.clock_skew_ns == NO_TIME
        assert (one.n_polls > 0) == (other.n_polls > 0) == (mode == "read")
        await until(lambda: "(and 1 more of 4 devices)" in life.reason, "who is away is told")
        assert life.reason.startswith("l/f: no connection: Connection refused")
        probed = await life.adapter.probe({"device": "l/d"}, SystemClock())
        assert probed["connection"] == "the adapter's"
        with pytest.raises(NotConnected):
            await life.adapter.probe({"device": "l/g"}, SystemClock())
        if mode == "subscribe":
            life.sink.land()
            await until(lambda: life.adapter.diagnostics().n_unacknowledged == 0, "all is durable")
        plant.drop()
        await until(lambda: life.adapter.diagnostics().n_connects == 2, "it connects again")
        assert pacer.n >= 4, "each connection waits for its turn"


async def test_a_subscription_that_dies_silently(plant):
    await plant.set("a", 1.0)
    async with Life(adapter_of(plant, {"a": None})) as life:
        await life.value("l/d/a", 1.0)
        plant.silence()
        await plant.write("a", 2.0)
        await until(lambda: "not even a keep-alive" in life.reason, "the silence is noticed")
        await life.value("l/d/a", 2.0)
        await plant.end_subscriptions()
        await until(lambda: "ended the subscription: BadTimeout" in life.reason, "the end is noticed")
        await plant.write("a", 3.0)
        await life.value("l/d/a", 3.0)


async def test_a_subscription_that_does_not_tell_the_truth(plant):
    await plant.set("a", 1.0)
    await plant.set("later", 1.0)
    await plant.remove("later")
    async with Life(adapter_of(plant, {"a": None, "later": None}, verify="50ms")) as life:
        await life.value("l/d/a", 1.0)
        await plant.set("later", 8.0)
        await life.value("l/d/later", 8.0)
        assert life.state is AdapterState.CONNECTED
        plant.deafen()
        await plant.write("a", 2.0)
        await until(lambda: "the subscription does not tell: l/d/a" in life.reason, "the lie is noticed")
        await life.value("l/d/a", 2.0)


async def test_overflow_and_status_become_quality(plant):
    await plant.set("a", 1.0)
    async with Life(adapter_of(plant, {"a": None})) as life:
        await life.value("l/d/a", 1.0)
        await plant.write("a", 2.0, status=0x480)
        await life.value("l/d/a", 2.0)
        assert latest(life.sink)["l/d/a"][1] == Quality.UNCERTAIN
        assert (life.adapter.diagnostics().n_gaps, life.adapter.diagnostics().devices[0].n_polls_skipped) == (
            1,
            0,
        )
        await plant.write("a", 3.0, status=0x808C0000)
        await life.value("l/d/a", 3.0)
        assert latest(life.sink)["l/d/a"][1] == Quality.BAD_DEVICE
        assert life.reason == "l/d: a: BadSensorFailure"
        await plant.write("a", None, "Null", status=0x80310000)
        await until(lambda: latest(life.sink)["l/d/a"][1] == Quality.BAD_COMMUNICATION, "the status comes")
        assert np.isnan(latest(life.sink)["l/d/a"][0])
        await plant.write("a", 4.0)
        await life.value("l/d/a", 4.0)
        assert life.state is AdapterState.CONNECTED


async def test_queued_values_come_in_order_each_with_its_time(plant):
    await plant.set("a", 0.0)
    async with Life(adapter_of(plant, {"a": None}, interval="100ms")) as life:
        await life.value("l/d/a", 0.0)
        for i in range(1, 6):
            await plant.write("a", float(i), source_ns=T0 + i * 1_000)
        await life.value("l/d/a", 5.0)
    assert [(ts, v) for _, ts, v, _ in samples(life.sink)][1:] == [
        (T0 + i * 1_000, float(i)) for i in range(1, 6)
    ]


async def test_arrays_are_taken_apart_where_that_is_asked_for(plant):
    for name in ("spectrum", "other"):
        await plant.set(name, [1, 2, 3], "Int16")
    async with Life(adapter_of(plant, {"spectrum": None, "other": None}, arrays={"spectrum": 2})) as life:
        await until(lambda: len(life.sink.rejects) == 2, "told")
        assert latest(life.sink) == {"l/d/spectrum_0": (1, 0), "l/d/spectrum_1": (2, 0)}
        details = sorted(r.detail for r in life.sink.rejects)
        assert "other is Int16[], expected a single value; to take it apart write arrays.other" in details[0]
        assert "spectrum has 3 elements, arrays says 2; the rest is refused" in details[1]
        await plant.write("spectrum", [5], "Int16")
        await life.value("l/d/spectrum_0", 5)


async def test_a_dead_band_is_the_servers(plant):
    await plant.set("a", 0.0)
    async with Life(adapter_of(plant, {"a": None}, dead_band={"a": 1.0})) as life:
        await life.value("l/d/a", 0.0)
        await plant.write("a", 0.5)
        await plant.write("a", 2.0)
        await life.value("l/d/a", 2.0)
    assert [v for _, _, v, _ in samples(life.sink)] == [0.0, 2.0]


async def test_types_that_are_declared_and_types_that_are_known(plant):
    await plant.set("a", 5, "Int16")
    adapter = adapter_of(plant, {"a": None}, types={"a": "f64"})
    sink = RecordingSink()
    adapter.declare(sink.directory)
    assert sink.directory.layout(sink.directory.slot("l/d", "f64")).columns[0].name == "a"
    async with Life(adapter, sink) as life:
        await life.value("l/d/a", 5.0)
    n = sink.directory.n_slots
    async with Life(adapter_of(plant, {"a": None}), sink) as life:
        await plant.write("a", 6, "Int16")
        await life.value("l/d/a", 6.0)
    assert sink.directory.n_slots == n, "the type of the earlier run stays"


async def test_a_slow_reader_is_counted(plant, monkeypatch):
    monkeypatch.setattr(polling, "N_SILENT_MAX", 1)
    await plant.set("a", 1.0)
    async with Life(
        adapter_of(plant, {"a": None}, mode="read", devices={"l/d": plant.url(timeout="300ms")})
    ) as life:
        await life.value("l/d/a", 1.0)
        plant.hang()
        await until(lambda: life.adapter.diagnostics().devices[0].n_timeouts > 0, "it is counted")
        await until(
            lambda: life.adapter.diagnostics().devices[0].next_retry_ns > 0,
            "it is told when it is tried again",
        )


# --- for people ---------------------------------------------------------------------------------------


async def test_probe_looks_at_the_server_and_one_variable(plant):
    if not hasattr(plant, "is_described"):
        await plant.set("oven.t", 181.5)
        await plant.describe("oven.t", "degC", 0.0, 400.0)
        plant.is_described = True
    await plant.write("oven.t", 181.5, source_ns=T0)
    adapter = adapter_of(plant, {"t": plant.address("{node}.t")}, {"l/d": plant.url("oven")})
    found = await adapter.probe({"signal": "t"}, SystemClock())
    assert (found["protocol"], found["state"], found["connection"]) == ("opcua", "Running", "made for this")
    assert NAMESPACE in found["namespaces"]
    variable = found["variable"]
    assert variable.pop("server_ns") > T0
    assert variable == {
        "address": f"nsu={NAMESPACE};s=oven.t", "node": "ns=2;s=oven.t", "name": "t", "type": "Double", "value": 181.5,
        "status": "Good", "has_overflown": False, "quality": "good", "source_ns": T0, "unit": "degC", "range": [0.0, 400.0],
    }  # fmt: skip
    async with Life(adapter) as life:
        await life.value("l/d/t", 181.5)
        found = await adapter.probe({"device": "l/d", "address": "i=2258"}, SystemClock())
        assert found["connection"] == "the adapter's"
        assert (found["variable"]["type"], found["variable"]["unit"], found["variable"]["range"]) == (
            "DateTime",
            "",
            None,
        )
    found = await OpcuaAdapter.probe_url(
        {"url": plant.url(), "address": plant.address("gone")}, SystemClock()
    )
    assert (found["variable"]["status"], found["variable"]["value"]) == ("BadNodeIdUnknown", None)
    assert (found["variable"]["quality"], found["variable"]["name"]) == ("bad-device", "")
    assert "variable" not in await OpcuaAdapter.probe_url({"url": plant.url()}, SystemClock())


async def test_probe_says_what_is_wrong(plant):
    await plant.set("a", 1.0)
    adapter = adapter_of(plant, {"a": None})
    for wanted, error in (
        ({"topic": "x"}, "an opcua probe knows no 'topic'"),
        ({"device": "l/x"}, "has no device 'l/x'; did you mean 'l/d'"),
        ({"signal": "b"}, "no signal 'b'"),
        ({"address": "x"}, "is no node id"),
        ({"address": "nsu=urn:none;s=x"}, "has no namespace 'urn:none'"),
    ):
        with pytest.raises(ConfigError, match=error):
            await adapter.probe(wanted, SystemClock())
    plant.max_per_call = 1
    with pytest.raises(Rejected, match="answers a read with BadTooManyOperations"):
        await adapter.probe({}, SystemClock())
    plant.max_per_call = 0
    async with Life(
        adapter_of(plant, {"a": None}, mode="read", devices={"l/d": plant.url(timeout="300ms")})
    ) as life:
        await life.value("l/d/a", 1.0)
        plant.hang()
        with pytest.raises(NotConnected, match="did not answer within 0.3 s"):
            await life.adapter.probe({}, SystemClock())
    await plant.stop()
    with pytest.raises(NotConnected, match="no connection"):
        await adapter.probe({}, SystemClock())
    devices = {"l/d": plant.url(), "l/e": "opc.tcp://127.0.0.2:4840"}
    with pytest.raises(ConfigError, match="name one of the 2 devices"):
        await adapter_of(plant, {"a": None}, devices).probe({}, SystemClock())


async def test_scan_finds_variables_piece_by_piece(plant):
    folder = await plant.add_folder("Oven7")
    await plant.add("Oven7.t", 20.5, "Double", folder)
    await plant.describe("Oven7.t", "degC", 0.0, 400.0)
    for name, value, kind in (
        ("on", True, "Boolean"), ("s", "idle", "String"), ("g", b"x", "ByteString"), ("v", [1.5], "Float"), ("n", None, "Null"),
    ):  # fmt: skip
        await plant.add(f"Oven7.{name}", value, kind, folder)
    await plant.write("Oven7.s", "idle", "String", status=0x80310000)
    adapter = adapter_of(plant, {"a": None})
    plant.page = 2
    try:
        found = await adapter.scan({"node": plant.address("Oven7")}, SystemClock())
        every = await OpcuaAdapter.scan_url({"url": plant.url(), "depth": "2"}, SystemClock())
    finally:
        plant.page = 0
    by_name = {tag.name: tag for tag in found}
    assert list(by_name) == ["t", "on", "s", "g", "v", "n"]
    t = by_name["t"]
    assert (t.device, t.address, t.dtype, t.unit, t.kind, t.value, t.quality, t.problem) == (
        "", f"nsu={NAMESPACE};s=Oven7.t", "f64", "degC", "analog", 20.5, "good", ""
    )  # fmt: skip
    assert (by_name["on"].dtype, by_name["on"].kind, by_name["on"].value) == ("u8", "discrete", True)
    assert (by_name["s"].dtype, by_name["s"].problem, by_name["s"].quality) == (
        "string", "BadNoCommunication", "bad-communication"
    )  # fmt: skip
    assert by_name["g"].problem == "a ByteString can't be a sensor"
    assert by_name["v"].problem == "an array: write arrays.v = its number of elements"
    assert by_name["n"].problem == "it has no value"
    assert {"Plant/Oven7", "Plant"} >= {
        tag.device for tag in every if tag.address.startswith("nsu=http://headrace")
    }
    assert "Plant" in {tag.device for tag in every}
    for wanted, error in (
        ({"depht": "2"}, "did you mean 'depth'"), ({"depth": "x"}, "no number above 0"), ({"max": "2"}, "more than 2 variables"),
        ({"node": "ns=2;s=none"}, "BadNodeIdInvalid"), ({"node": "nsu=urn:none;s=x"}, "has no namespace"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=error):
            await adapter.scan(wanted, SystemClock())


# --- security ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    return {
        "server": CertificatePair.make(folder, "server", SERVER_URI),
        "ours": CertificatePair.make(folder, "ours", "urn:headrace.example:ours"),
    }


async def secured(plant, pairs, *policies):
    await plant.stop()
    plant.policies = policies
    await plant.use_certificate(pairs["server"])
    await plant.start()
    await plant.set("a", 1.0)


def secure(plant, pairs, **config):
    config = {
        "security": "Basic256Sha256", "cert_file": "ours.der", "key_file": "ours.key.pem",
        "server_cert_file": "server.der", "folder": pairs["ours"].cert_file.parent, **config,
    }  # fmt: skip
    return adapter_of(plant, {"a": None}, devices={"l/d": plant.url()}, **config)


async def test_a_certificate_and_a_password(plant, pairs, monkeypatch):
    await secured(
        plant,
        pairs,
        "Basic256Sha256/SignAndEncrypt",
        "Basic256Sha256/Sign",
        "Aes128Sha256RsaOaep/SignAndEncrypt",
    )
    monkeypatch.setenv("OPCUA_PASSWORD", "right")
    monkeypatch.setitem(plant.users.passwords, "headrace", "right")
    login = {"user": "headrace", "password": {"env": "OPCUA_PASSWORD"}}
    for policy, mode in (
        ("Basic256Sha256", "SignAndEncrypt"), ("Basic256Sha256", "Sign"), ("Aes128Sha256RsaOaep", "SignAndEncrypt"),
    ):  # fmt: skip
        await plant.write("a", 1.0)
        async with Life(secure(plant, pairs, security=policy, security_mode=mode, **login)) as life:
            await life.value("l/d/a", 1.0)
            subscriptions = set(plant._server.iserver.subscription_service.subscriptions)
            plant.drop()
            await plant.write("a", 2.0)
            await life.value("l/d/a", 2.0)
            assert set(plant._server.iserver.subscription_service.subscriptions) == subscriptions, "resumed"
    await plant.write("a", 1.0)
    monkeypatch.setenv("OPCUA_PASSWORD", "wrong")
    async with Life(secure(plant, pairs, **login)) as life:
        await until(lambda: life.state is AdapterState.FAILED, "it is told that somebody must act")
        assert "the server refuses user 'headrace': BadUserAccessDenied" in life.reason
        monkeypatch.setenv("OPCUA_PASSWORD", "right")
        await life.value("l/d/a", 1.0)


async def test_a_user_certificate(plant, pairs, monkeypatch):
    await secured(plant, pairs, "Basic256Sha256/SignAndEncrypt")
    user = {"user_cert_file": "ours.der", "user_key_file": "ours.key.pem"}
    monkeypatch.setattr(plant.users, "certificates", [b"another"])
    async with Life(secure(plant, pairs, **user)) as life:
        await until(lambda: life.state is AdapterState.FAILED, "refused")
        assert "refuses our user certificate" in life.reason
        plant.users.certificates.append(pairs["ours"].der)
        await life.value("l/d/a", 1.0)


async def test_certificates_are_read_anew_for_each_connection(plant, pairs, tmp_path, monkeypatch):
    """Ours and the user's by a new pair in the files, and the server's where another one is trusted by then."""
    uri = "urn:headrace.example:ours"
    first = CertificatePair.make(tmp_path, "ours", uri)
    (tmp_path / "server.der").write_bytes(pairs["server"].der)
    await secured(plant, pairs, "Basic256Sha256/SignAndEncrypt")
    monkeypatch.setattr(plant.users, "certificates", [first.der])
    files = {"user_cert_file": "ours.der", "user_key_file": "ours.key.pem", "folder": tmp_path}
    async with Life(secure(plant, pairs, **files)) as life:
        await life.value("l/d/a", 1.0)
        monkeypatch.setattr(plant.users, "certificates", [CertificatePair.make(tmp_path, "ours", uri).der])
        plant.drop()
        await plant.write("a", 2.0)
        await life.value("l/d/a", 2.0)
        another = CertificatePair.make(tmp_path, "server", SERVER_URI)
        await secured(plant, {"server": another}, "Basic256Sha256/SignAndEncrypt")
        await plant.write("a", 3.0)
        await life.value("l/d/a", 3.0)


async def test_a_server_that_is_not_the_right_one_or_offers_less(plant, pairs):
    await secured(plant, pairs, "Basic256Sha256/Sign")
    async with Life(secure(plant, pairs, security_mode="Sign", server_cert_file="ours.der")) as life:
        await until(lambda: life.state is AdapterState.FAILED, "refused")
        assert "the server's certificate (sha256 " in life.reason
        assert life.sink.n_samples == 0
    async with Life(secure(plant, pairs)) as life:
        await until(lambda: life.state is AdapterState.FAILED, "refused")
        assert "the server offers Basic256Sha256/Sign; set security" in life.reason
    async with Life(adapter_of(plant, {"a": None})) as life:
        await until(lambda: life.state is AdapterState.FAILED, "refused")
        assert "the server offers Basic256Sha256/Sign; set security" in life.reason
    async with Life(
        secure(plant, pairs, security_mode="Sign", server_cert_file=None, server_trust="any")
    ) as life:
        await life.value("l/d/a", 1.0)
    folder = pairs["ours"].cert_file.parent / "trusted"
    folder.mkdir(exist_ok=True)
    (folder / "server.der").write_bytes(pairs["server"].der)
    async with Life(secure(plant, pairs, security_mode="Sign", server_cert_file="trusted")) as life:
        await life.value("l/d/a", 1.0)


async def test_without_credit_the_server_keeps_and_nothing_is_lost(plant):
    await plant.set("a", 0.0)
    async with Life(adapter_of(plant, {"a": None}, queue_size=100)) as life:
        await life.value("l/d/a", 0.0)
        life.sink.set_credit(False)
        await until(lambda: life.adapter.diagnostics().devices[0].n_polls_skipped > 2, "nothing is asked for")
        for i in range(1, 51):
            await plant.write("a", float(i))
        await asyncio.sleep(0.5)  # longer than a server may be silent
        assert life.state is AdapterState.CONNECTED
        life.sink.set_credit(True)
        await life.value("l/d/a", 50.0)
    assert [v for _, _, v, _ in samples(life.sink)] == [float(i) for i in range(51)]


async def test_what_is_queued_while_the_wire_is_cut_is_not_lost(plant):
    await plant.set("a", 0.0)
    async with Life(adapter_of(plant, {"a": None}, queue_size=100, reconnect_first="200ms")) as life:
        await life.value("l/d/a", 0.0)
        subscriptions = set(plant._server.iserver.subscription_service.subscriptions)
        for n in range(2):
            plant.drop()
            await until(lambda: life.state is AdapterState.BACKOFF, "the cut is noticed")
            for i in range(1, 21):
                await plant.write("a", float(20 * n + i))
            await life.value("l/d/a", float(20 * n + 20))
        assert [v for _, _, v, _ in samples(life.sink)] == [float(i) for i in range(41)]
        assert set(plant._server.iserver.subscription_service.subscriptions) == subscriptions
        assert life.adapter.diagnostics().n_gaps == 0
