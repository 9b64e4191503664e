"""The Sparkplug adapter and simulated nodes behind real brokers; paho as a foreign client."""

import asyncio
import contextlib
import gc
import json

import paho.mqtt.client as paho
import pytest

from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.broker.simulator import BrokerKind, SimulatedBroker, find_mosquitto
from headrace.adapters.payloads.sparkplug import DataType, read_payload
from headrace.adapters.payloads.sparkplug_writer import SparkplugValue, write_payload
from headrace.adapters.sparkplug.adapter import SparkplugAdapter
from headrace.adapters.sparkplug.simulator import TANK, SimulatedMetric, SimulatedNode
from headrace.core.clock import SystemClock
from headrace.core.problems import validate_section
from headrace.core.quality import Quality
from headrace.core.readings import readings
from headrace.testing.adapters import RecordingSink, until

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
DEVICES = {"": [SimulatedMetric("Load", DataType.UINT16, "%")], "tank": TANK, "pump": TANK[:2]}
MS = 1_000_000


def adapter_of(broker, name="p", **config):
    config = {
        "url": broker.url, "version": "5", "reconnect_first": "20ms", "reconnect_most": "100ms", "reorder": "200ms",
        "rebirth_first": "100ms", **config,
    }  # fmt: skip
    settings = validate_section(SparkplugAdapter.Config, config, "adapters.p")
    return SparkplugAdapter.from_config(name, settings, {}, PlantFacts())


@contextlib.asynccontextmanager
async def running(adapter, sink, state=AdapterState.CONNECTED):
    await adapter.start(sink)
    try:
        await until(lambda: adapter.diagnostics().state is state, f"it is {state}")
        yield adapter
    finally:
        await adapter.stop()


@pytest.fixture
async def broker(tmp_path):
    one = SimulatedBroker(tmp_path, BrokerKind.MOSQUITTO)
    await one.start()
    yield one
    await one.stop()


def node_of(broker, name="line1", **more):
    return SimulatedNode((broker.host, broker.port), ("leon", name), DEVICES, **more)


def samples(sink):
    return [
        (r.path, r.ts_ns // MS, r.value, r.quality)
        for batch in sink.batches
        for r in readings(batch, sink.directory, 100_000)
    ]


def sent(node, name="line1"):
    """What a node sent, as it should be stored; truth values as numbers."""
    out = []
    for one in node.sent:
        path = f"leon/{name}/{one.device or 'node'}/{one.metric}"
        out.append((path, one.time_ms, one.value * 1 if isinstance(one.value, bool) else one.value, 0))
    return out


def good(sink):
    return [one for one in samples(sink) if one[3] == 0]


def states(adapter):
    return {d.path: d.state.value for d in adapter.diagnostics().devices[1:]}


@needs_mosquitto
@pytest.mark.parametrize(("has_aliases", "qos"), [(True, 0), (False, 0), (True, 1)])
async def test_what_is_sent_is_received(broker, has_aliases, qos):
    sink = RecordingSink()
    async with running(adapter_of(broker), sink) as adapter:
        node = node_of(broker, has_aliases=has_aliases, qos=qos, seed=qos)
        await node.start()
        for i in range(60):
            await node.report("tank" if i % 3 else "pump")
            await node.report("tank", ["Temperature", "State"])
        await node.report()
        await until(lambda: len(samples(sink)) == len(node.sent), "all arrive")
        assert sorted(good(sink), key=repr) == sorted(sent(node), key=repr)
        assert not sink.rejects
        found = adapter.diagnostics()
        assert (found.n_samples, found.n_rejects, found.n_sensors) == (len(node.sent), 0, 8)
        assert states(adapter) == dict.fromkeys(
            ("leon/line1", "leon/line1/tank", "leon/line1/pump"), "connected"
        )
        layout = sink.directory.layout(sink.directory.slot("leon/line1/tank", "f32"))
        assert [(c.name, c.unit) for c in layout.columns] == [("Inlet/Flow", "m3/h")]
        await node.stop()
    assert adapter.diagnostics().state is AdapterState.STOPPED


@needs_mosquitto
async def test_deaths_of_devices_and_nodes(broker):
    sink = RecordingSink()
    async with running(adapter_of(broker), sink) as adapter:
        node = node_of(broker)
        await node.start()
        await node.report("tank")
        node.tell_death("pump")
        await until(lambda: states(adapter).get("leon/line1/pump") == "backoff", "the pump has died")
        bad = [one for one in samples(sink) if one[3] == Quality.BAD_COMMUNICATION]
        assert {one[0] for one in bad} == {"leon/line1/pump/Temperature", "leon/line1/pump/Inlet/Flow"}
        assert bad[0][1:3] == (node.time_ms, None), "at the time of the certificate"
        await node.kill()
        await until(lambda: set(states(adapter).values()) == {"backoff"}, "the broker tells its death")
        bad = [one for one in samples(sink) if one[3] == Quality.BAD_COMMUNICATION]
        assert len(bad) == 2 + 1 + 5
        assert bad[-1][1] > node.time_ms, "at the time of its arrival"
        await node.start()
        await until(lambda: set(states(adapter).values()) == {"connected"}, "all are back")
        await node.report("pump")
        await until(lambda: len(good(sink)) == len(node.sent), "all arrive")
        await node.stop()
        await until(lambda: set(states(adapter).values()) == {"backoff"}, "it has gone in order")


@needs_mosquitto
async def test_the_death_of_an_older_life_is_passed_over(broker):
    sink = RecordingSink()
    async with running(adapter_of(broker), sink) as adapter:
        node = node_of(broker)
        await node.start()
        await node.stop()
        await node.start()
        await node.say("NDEATH", "", write_payload(1, None, [SparkplugValue(0, DataType.INT64, "bdSeq")]))
        await node.report("tank")
        await until(lambda: len(good(sink)) == len(node.sent), "all arrive")
        assert states(adapter)["leon/line1"] == "connected"
        assert adapter._running.nodes.n_old_deaths == 1
        await node.stop()


@needs_mosquitto
async def test_messages_in_the_wrong_order_are_put_right(broker):
    sink = RecordingSink()
    async with running(adapter_of(broker, reorder="5s"), sink) as adapter:
        node = node_of(broker)
        await node.start()
        for _ in range(300):
            await node.report_swapped("pump")
        await until(lambda: len(samples(sink)) == len(node.sent), "all arrive")
        one = [ts for path, ts, _, _ in samples(sink) if path == "leon/line1/pump/Temperature"]
        assert one == sorted(one)
        assert (adapter._running.gate.n_reordered, adapter._running.gate.n_gaps) == (300, 0)
        assert node.n_commands == 0
        await node.stop()


@needs_mosquitto
async def test_a_gap_ends_in_a_new_birth(broker):
    sink = RecordingSink()
    async with running(adapter_of(broker), sink) as adapter:
        node = node_of(broker)
        await node.start()
        await node.report("tank")
        node.lose("tank")
        await node.report("tank")
        await until(lambda: node.n_commands == 1, "its birth is asked for")
        await until(lambda: len(samples(sink)) == len(node.sent), "what came behind the gap is taken too")
        assert adapter.diagnostics().devices[0].n_timeouts == 1
        assert not sink.rejects
        await node.stop()


@needs_mosquitto
async def test_a_node_that_was_born_before_us_is_asked(broker):
    node = node_of(broker)
    await node.start()
    sink = RecordingSink()
    async with running(adapter_of(broker), sink) as adapter:
        born = len(node.sent)
        n = await node.report("tank")
        await until(lambda: len(sink.rejects) == 1, "data without a birth are refused")
        reject = sink.rejects[0]
        assert (str(reject.code), reject.n_samples, reject.source) == (
            "unknown-tag",
            n,
            "spBv1.0/leon/DDATA/line1/tank",
        )
        await until(lambda: set(states(adapter).values()) == {"connected"}, "its births are there")
        assert node.n_commands == 1
        batches, rejects = adapter.redecode(reject, sink.directory)
        assert not rejects
        again = [
            (r.path, r.ts_ns // MS, r.value, r.quality) for b in batches for r in readings(b, sink.directory)
        ]
        assert sorted(again, key=repr) == sorted(sent(node)[born : born + n], key=repr)
        assert adapter._running.desk.n_asked == 1
        await node.stop()


@needs_mosquitto
async def test_nobody_is_asked_where_we_may_not(broker):
    node = node_of(broker)
    await node.start()
    sink = RecordingSink()
    async with running(adapter_of(broker, ask_rebirth=False), sink) as adapter:
        await node.report("tank")
        await until(lambda: len(sink.rejects) == 1, "data without a birth are refused")
        assert (node.n_commands, adapter._running.desk.n_asked) == (0, 0)
        node.tell_births()
        await until(lambda: states(adapter)["leon/line1"] == "connected", "it tells its birth by itself")
    await node.stop()


class Watcher:
    """A foreign client that hears what hosts say of themselves."""

    def __init__(self, broker, topic):
        self.heard = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda client, data, message: self.heard.append(
            (json.loads(message.payload), message.retain, message.qos)
        )
        self.client.connect("127.0.0.1", broker.port)
        self.client.subscribe(topic, qos=1)
        self.client.loop_start()

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


@needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_our_state_as_a_host(broker, version):
    watcher = Watcher(broker, "spBv1.0/STATE/headrace")
    try:
        async with running(
            adapter_of(broker, host_id="headrace", version=version), RecordingSink()
        ) as adapter:
            await until(lambda: len(watcher.heard) == 1, "we are online")
            online, _, qos = watcher.heard[0]
            assert (online["online"], qos) == (True, 1)
            watcher.client.publish("spBv1.0/STATE/headrace", json.dumps({**online, "online": False}), 1, True)
            await until(lambda: len(watcher.heard) == 3, "a wrong word is put right")
            assert watcher.heard[2][0] == online
            adapter._running.session._client._connection._transport.abort()
            await until(lambda: len(watcher.heard) >= 5, "the will is told, and we are back")
            assert sorted(one["online"] for one, _, _ in watcher.heard[3:5]) == [False, True]
            assert watcher.heard[3][0]["timestamp"] == online["timestamp"]
            await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is connected")
        await until(lambda: watcher.heard[-1][0]["online"] is False, "we have gone")
        assert watcher.heard[-1][0]["timestamp"] >= online["timestamp"]
        late = Watcher(broker, "spBv1.0/STATE/headrace")
        await until(lambda: bool(late.heard), "the broker keeps our last word")
        assert late.heard == [(watcher.heard[-1][0], True, 1)]
        late.stop()
    finally:
        watcher.stop()


@needs_mosquitto
async def test_what_was_not_durable_comes_again_once(broker):
    """QoS 1: to the same process, where it is recognised, and to the next one."""
    first = RecordingSink(is_durable=False)
    node = node_of(broker, qos=1)
    async with running(adapter_of(broker), first) as adapter:
        await node.start()
        await node.report("tank")
        await until(lambda: len(samples(first)) == len(node.sent), "all arrive")
        adapter._running.session.drop("cut by the test")
        await until(lambda: adapter.diagnostics().n_duplicates == 4, "all come again")
    second = RecordingSink()
    async with running(adapter_of(broker), second):
        await until(lambda: len(samples(second)) == len(node.sent), "all come again")
        assert sorted(good(second), key=repr) == sorted(sent(node), key=repr)
    third = RecordingSink()
    async with running(adapter_of(broker), third) as adapter:
        node.tell_births()
        await until(lambda: len(samples(third)) == 8, "what is new arrives")
        assert adapter.diagnostics().n_duplicates == 0
    await node.stop()


@needs_mosquitto
async def test_probe_and_scan(broker):
    node, silent = node_of(broker), node_of(broker, "line2")
    await node.start()
    await silent.start()
    adapter = adapter_of(broker)

    async def speak():
        while True:
            await node.report("tank")
            await asyncio.sleep(0.02)

    speaking = asyncio.ensure_future(speak())
    try:
        found = await adapter.probe({"for": "400ms"}, SystemClock())
        assert (found["protocol"], found["broker"]) == ("sparkplug", f"127.0.0.1:{broker.port}")
        assert [(n["node"], n["state"], n["metrics"]) for n in found["nodes"]] == [
            ("leon/line1", "online", 1), ("leon/line1/pump", "online", 2), ("leon/line1/tank", "online", 5),
        ]  # fmt: skip
        assert node.n_commands == 1
        tags = await adapter.scan({"node": "leon/line2", "for": "400ms"}, SystemClock())
        assert silent.n_commands == 1
        assert [(t.device, t.name, t.path, t.dtype, t.unit, t.kind, t.problem) for t in tags[:3]] == [
            ("leon/line2", "Load", "leon/line2/node/Load", "u16", "%", "analog", ""),
            ("leon/line2/pump", "Temperature", "leon/line2/pump/Temperature", "f64", "degC", "analog", ""),
            ("leon/line2/pump", "Inlet/Flow", "leon/line2/pump/Inlet/Flow", "f32", "m3/h", "analog", ""),
        ]  # fmt: skip
        assert [t.address for t in tags[:2]] == ["leon/line2#Load", "leon/line2/pump#Temperature"]
        assert adapter.own_path(tags[0].address) == tags[0].path
        wanted = {"url": broker.url, "node": "leon/line2", "for": "400ms"}
        assert [t.path for t in await SparkplugAdapter.scan_url(wanted, SystemClock())] == [
            t.path for t in tags
        ]
        assert tags[0].value == silent.sent[8].value
        assert tags[0].ts_ns == silent.time_ms * MS
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        await node.stop()
        await silent.stop()


@needs_mosquitto
async def test_a_simulated_node_heeds_nothing_but_its_command(broker):
    node = node_of(broker)
    await node.start()
    other = node_of(broker, "line2")
    await other.start()
    for payload in (
        b"\xff",
        write_payload(1, None, [SparkplugValue(False, DataType.BOOLEAN, "Node Control/Rebirth")]),
    ):
        other._client.publish("spBv1.0/leon/NCMD/line1", payload, qos=1)
    other._client.publish(
        "spBv1.0/leon/NCMD/line1",
        write_payload(1, None, [SparkplugValue(True, DataType.BOOLEAN, "Node Control/Rebirth")]), qos=1,
    )  # fmt: skip
    await until(lambda: node.n_commands == 1, "it tells its birth again")
    assert node.n_births == 2
    assert read_payload(node._message("tank", [])[1]).seq == 3
    for one in (node, other):
        await one.stop()


# amqtt leaves the socket open that only looked whether it listens.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_amqtt_serves_too(tmp_path):
    """Where mosquitto is not installed."""
    asyncio.run(_exchange_with_amqtt(tmp_path))
    gc.collect()  # so that the socket is found here, and not in whichever test comes later


async def _exchange_with_amqtt(tmp_path):
    broker = SimulatedBroker(tmp_path, BrokerKind.AMQTT)
    await broker.start()
    try:
        sink = RecordingSink()
        async with running(adapter_of(broker, version="3.1.1"), sink):
            node = node_of(broker)
            await node.start()
            for _ in range(10):
                await node.report("tank")
            await until(lambda: len(good(sink)) == len(node.sent), "all arrive")
            await node.stop()
    finally:
        await broker.stop()
