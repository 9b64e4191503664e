"""The Kafka adapter against librdkafka's test cluster: real sockets, groups and commits."""

import asyncio
import contextlib
import logging
import shutil
import signal
import ssl
import subprocess
import sys

import pytest
from tests.integration.kafka_door import Door

from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.kafka import client as client_module
from headrace.adapters.kafka import simulator
from headrace.adapters.kafka.adapter import KafkaAdapter
from headrace.adapters.kafka.simulator import OFFSET_COMMIT, ProducingDevice, SimulatedCluster
from headrace.core.clock import NS, SystemClock, monotonic_ns
from headrace.core.errors import Closed, ConfigError, NotConnected
from headrace.core.problems import validate_section
from headrace.testing.adapters import RecordingSink, identities, until

# In this cluster members have a session less a second to join again, and a group that was left waits as long.
QUICK = {"session.timeout.ms": 1_200, "heartbeat.interval.ms": 30}
JOIN_GROUP, METADATA, GROUP_REFUSED, TOPIC_REFUSED = 11, 3, 30, 29


def adapter_of(brokers, folder=None, name="k", **config):
    config = {
        "brokers": brokers, "reconnect_first": "20ms", "reconnect_most": "100ms",
        "topics": {"plant.{line}": {"path": "leon/{line}/{message_key}/{key}"}}, **config,
        "options": {**QUICK, **config.get("options", {})},
    }  # fmt: skip
    facts = PlantFacts() if folder is None else PlantFacts(folder=folder)
    settings = validate_section(KafkaAdapter.Config, config, "adapters.k")
    return KafkaAdapter.from_config(name, settings, {}, facts)


@contextlib.asynccontextmanager
async def running(adapter, sink, state=AdapterState.CONNECTED):
    await adapter.start(sink)
    try:
        await until(lambda: adapter.diagnostics().state is state, f"it is {state}")
        yield adapter
    finally:
        await adapter.stop()


@pytest.fixture(autouse=True)
def quick_commits(monkeypatch):
    monkeypatch.setattr(client_module, "COMMIT_NS", 30_000_000)


@pytest.fixture
def cluster():
    one = SimulatedCluster()
    one.create("plant.a", 2)
    yield one
    one.close()


def produce(cluster, first, last, topic="plant.a", n_keys=2):
    device = ProducingDevice(cluster.brokers)
    for i in range(first, last):
        device.send(
            topic, f'{{"v": {i}}}', f"d{i % n_keys}", partition=i % 2, timestamp=1_700_000_000_000 + i
        )
    device.delivered()


def rows(sink):
    """Every sample of one value: (path, time, value)."""
    return [
        (sink.directory.sensor_path(slot, 0), ts_ns, value)
        for batch in sink.batches
        for slot, ts_ns, value in zip(
            batch.slot.tolist(), batch.ts_ns.tolist(), batch.values.reshape(-1).tolist(), strict=True
        )
    ]


def values(sink):
    return [value for _, _, value in rows(sink)]


def committed(adapter):
    """Where the group is in each partition that the adapter has."""
    return [one.committed for one in adapter._running.session.ledger.progress().values()]


async def test_messages_arrive_in_the_order_of_their_partition(cluster):
    sink = RecordingSink()
    async with running(adapter_of(cluster.brokers), sink) as adapter:
        produce(cluster, 0, 1_000)
        await until(lambda: sink.n_samples == 1_000, "all arrive")
        for number in range(2):
            assert [v for v in values(sink) if v % 2 == number] == list(range(number, 1_000, 2))
        assert rows(sink)[0][0] in ("leon/a/d0/v", "leon/a/d1/v")
        # The message's own millisecond, and in it a place by its offset.
        assert all(t // 1_000_000 == 1_700_000_000_000 + v for _, t, v in rows(sink))
        assert {t % 1_000_000 for _, t, _ in rows(sink)} == set(range(0, 50_000, 100))
        await until(lambda: cluster.n_requests(OFFSET_COMMIT) > 0, "it is committed")
        found = adapter.diagnostics()
        assert (found.n_samples, found.n_frames, found.n_sensors, found.n_rejects) == (1_000, 1_000, 2, 0)
        assert [d.path for d in found.devices] == [cluster.brokers[0], "plant.a:0", "plant.a:1"]
        await until(
            lambda: [d.reason for d in adapter.diagnostics().devices[1:]] == ["0 messages behind"] * 2,
            "nothing is behind",
        )
        assert min(found.decode_ns, found.transport_ns, found.latency_s_p99) > 0
    assert adapter.diagnostics().state is AdapterState.STOPPED


async def test_what_was_not_durable_comes_again_and_is_the_same(cluster):
    produce(cluster, 0, 50)
    first = RecordingSink(is_durable=False)
    async with running(adapter_of(cluster.brokers), first):
        await until(lambda: first.n_samples == 50, "all arrive")
        await asyncio.sleep(0.1)
    assert cluster.n_requests(OFFSET_COMMIT) == 0
    second = RecordingSink()
    async with running(adapter_of(cluster.brokers), second):
        await until(lambda: second.n_samples == 50, "all come again")
    assert sorted(rows(second)) == sorted(rows(first)), "the store takes it for what it has"
    third = RecordingSink()
    async with running(adapter_of(cluster.brokers), third):
        produce(cluster, 50, 52)
        await until(lambda: third.n_samples == 2, "what is new arrives")
    assert sorted(values(third)) == [50, 51], "what was durable does not come again"


async def test_of_what_is_durable_only_the_part_without_gaps_is_committed(cluster):
    sink = RecordingSink(is_durable=False)
    async with running(adapter_of(cluster.brokers), sink):
        produce(cluster, 0, 10)
        await until(lambda: sink.n_samples == 10, "all arrive")
        early, sink._acks = sink._acks, []
        produce(cluster, 10, 20)
        await until(lambda: sink.n_samples == 20, "all arrive")
        sink.land()
        await asyncio.sleep(0.1)
        assert cluster.n_requests(OFFSET_COMMIT) == 0, "the first ten are not durable"
        for ack in early:
            ack()
        await until(lambda: cluster.n_requests(OFFSET_COMMIT) > 0, "all of it is committed")


CHILD = """
import asyncio, sys
from headrace.adapters.kafka.adapter import KafkaAdapter
from headrace.adapters.base import PlantFacts
from headrace.core.problems import validate_section
from headrace.testing.adapters import RecordingSink, identities, until
async def main():
    config = {"brokers": [sys.argv[1]], "topics": {"plant.{line}": {"path": "leon/{line}/{message_key}/{key}"}},
              "options": {"session.timeout.ms": 1200, "heartbeat.interval.ms": 30}}
    adapter = KafkaAdapter.from_config("k", validate_section(KafkaAdapter.Config, config, "a"), {}, PlantFacts())
    sink = RecordingSink(is_durable=False)
    await adapter.start(sink)
    await until(lambda: sink.n_samples == 40, "all arrive")
    print("taken", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_process_that_is_killed_loses_nothing(cluster):
    """Between emit and ack: what the dead process had taken comes to the next one."""
    produce(cluster, 0, 40)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, cluster.brokers[0], stdout=subprocess.PIPE
    )
    assert await asyncio.wait_for(child.stdout.readline(), 30) == b"taken\n"
    child.send_signal(signal.SIGKILL)
    await child.wait()
    sink = RecordingSink()
    async with running(adapter_of(cluster.brokers), sink):
        await until(lambda: sink.n_samples == 40, "all come again")
    assert sorted(values(sink)) == list(range(40))


async def test_two_members_share_and_hand_over(cluster):
    one, other = RecordingSink(), RecordingSink()
    async with running(adapter_of(cluster.brokers), one) as first:
        produce(cluster, 0, 20)
        await until(lambda: one.n_samples == 20, "all arrive")
        await until(lambda: committed(first) == [10, 10], "it is committed")
        async with running(adapter_of(cluster.brokers, name="k2", group="headrace-k"), other) as second:
            await until(
                lambda: len(first.diagnostics().devices) == len(second.diagnostics().devices) == 2,
                "each has a partition",
            )
            # The other commits as it leaves, and not before.
            second._running.session._client._commit_ns = 2**62
            produce(cluster, 20, 60)
            await until(lambda: one.n_samples + other.n_samples == 60, "all arrive")
            assert sorted(values(one) + values(other)) == list(range(60)), "what was committed came once"
            assert len({v % 2 for v in values(other)}) == 1
            # In this cluster who stays loses its partitions when another goes: nothing can be committed of them then.
            await until(lambda: committed(first) == [30], "it is committed")
            assert committed(second) == [10]
        await until(
            lambda: committed(first) == [30, 30],
            "one has all again, also what the other committed as it left",
        )
        produce(cluster, 60, 80)
        await until(lambda: one.n_samples + other.n_samples == 80, "all arrive")
        assert sorted(values(one) + values(other)) == list(range(80)), "and what was committed came once"


async def test_what_is_not_durable_at_a_hand_over_comes_to_the_other(cluster, monkeypatch):
    monkeypatch.setattr(client_module, "_SETTLE_S", 0.05)
    one, other = RecordingSink(is_durable=False), RecordingSink()
    async with running(adapter_of(cluster.brokers), one) as first:
        produce(cluster, 0, 20)
        await until(lambda: one.n_samples == 20, "all arrive")
        async with running(adapter_of(cluster.brokers, name="k2", group="headrace-k"), other):
            await until(lambda: other.n_samples == 10, "one partition comes to the other")
            one.is_durable = True  # what may come again from now on, too
            one.land()  # also acks of the partition that was lost: nothing may come of them
            await until(
                lambda: not any(p.pending for p in first._running.session.ledger.progress().values()),
                "landed",
            )
        await until(
            lambda: committed(first) == [10, 10],
            "one has all again, and where the group is",
        )
    third = RecordingSink()
    async with running(adapter_of(cluster.brokers), third):
        produce(cluster, 20, 22)
        await until(lambda: third.n_samples == 2, "what is new arrives")
    assert sorted(values(third)) == [20, 21]


async def test_without_credit_partitions_are_held_and_we_stay_in_the_group(cluster):
    sink = RecordingSink()
    async with running(adapter_of(cluster.brokers), sink) as adapter:
        produce(cluster, 0, 10)
        await until(lambda: sink.n_samples == 10, "all arrive")
        sink.set_credit(False)
        produce(cluster, 10, 20)
        await until(lambda: adapter._running.session.n_holds == 1, "partitions are held")
        produce(cluster, 20, 3_000)
        await asyncio.sleep(0.3)
        joins = cluster.n_requests(JOIN_GROUP)
        sink.set_credit(True)
        await until(lambda: sink.n_samples == 3_000, "all arrive with new credit")
        assert sorted(values(sink)) == list(range(3_000)), "each once"
        assert cluster.n_requests(JOIN_GROUP) == joins


async def test_a_poison_message_is_a_reject_with_its_place(cluster):
    sink = RecordingSink()
    async with running(adapter_of(cluster.brokers), sink) as adapter:
        device = ProducingDevice(cluster.brokers)
        stamp = {"partition": 1, "timestamp": 1_700_000_000_000}
        device.send("plant.a", '{"v": 1}', "d", **stamp)
        device.send("plant.a", b"what is this?", "d", **stamp)
        device.send("plant.a", '{"v": 2}', None, **stamp)
        device.send("plant.a", '{"v": 3}', b"\xff", **stamp)
        device.send("plant.a", None, "d", **stamp)  # a tombstone: nothing is there any more
        device.send("plant.a", '{"v": 4, "x": [1]}', "d", **stamp)
        device.delivered()
        await until(lambda: sink.n_samples == 2, "good ones arrive")
        rejects = sorted(sink.rejects, key=lambda reject: reject.source)
        assert [(str(r.code), r.source) for r in rejects] == [
            ("malformed", "plant.a:1:1:d"), ("bad-path", "plant.a:1:2"), ("bad-path", "plant.a:1:3"),
            ("wrong-type", "plant.a:1:5:d"),
        ]  # fmt: skip
        assert "has no key" in rejects[1].detail
        assert "not UTF-8" in rejects[2].detail
        ledger = adapter._running.session.ledger
        await until(lambda: ledger.progress()["plant.a", 1].committed == 6, "they are acknowledged")
        (again,), (still,) = adapter.redecode(rejects[3], sink.directory)
        assert (again.ts_ns.tolist(), again.values.tolist()) == ([1_700_000_000_000_000_500], [[4.0]])
        assert rows(sink)[-1][1:] == (1_700_000_000_000_000_500, 4.0), "it is the sample that was there"
        assert still.source == "plant.a:1:5:d"
        _, (cut,) = adapter.redecode(
            rejects[0].__class__.from_dict({**rejects[0].to_dict(), "raw": "20" * (1 << 20)}),
            sink.directory,
        )
        assert cut.detail == "only its first 1,048,576 bytes were kept"


async def test_a_sink_that_refuses_gets_it_again(cluster):
    sink = RecordingSink()
    sink.refusal = Closed("the journal is closed")
    produce(cluster, 0, 10)
    async with running(adapter_of(cluster.brokers), sink, AdapterState.BACKOFF) as adapter:
        assert adapter.diagnostics().reason == "messages are not taken: the journal is closed"
        assert adapter.diagnostics().devices[0].next_retry_ns > 0
        sink.refusal = None
        await until(lambda: sink.n_samples == 10, "all come again")
    assert sorted(values(sink)) == list(range(10))


async def test_a_topic_that_comes_later_is_found(cluster, caplog):
    sink = RecordingSink()
    later = {"later.{line}": {"path": "leon/{line}/{message_key}/{key}"}}
    options = {"topic.metadata.refresh.interval.ms": 50}
    async with running(
        adapter_of(cluster.brokers, topics=later, options=options), sink, AdapterState.DEGRADED
    ) as adapter:
        # Either we, who look for it, say so, or the library, which asks for the pattern as if it were a name.
        assert "later" in adapter.diagnostics().reason
        cluster.create("later.x", 2)
        produce(cluster, 0, 4, "later.x")
        await until(lambda: sink.n_samples == 4, "it is found")
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it says so")


async def test_a_group_that_is_new_begins_where_it_is_told_to(cluster, monkeypatch):
    produce(cluster, 0, 10)
    sink = RecordingSink()
    async with running(adapter_of(cluster.brokers, start="latest"), sink) as adapter:
        await until(lambda: len(adapter.diagnostics().devices) == 3, "it has both partitions")
        produce(cluster, 10, 14)
        await until(lambda: sink.n_samples == 4, "what is new arrives")
    assert sorted(values(sink)) == [10, 11, 12, 13]
    produce(cluster, 14, 16)
    sink = RecordingSink()
    async with running(adapter_of(cluster.brokers, start="latest"), sink):
        await until(lambda: sink.n_samples == 2, "a group that has begun goes on where it was")
    assert sorted(values(sink)) == [14, 15]
    sink = RecordingSink()
    # This cluster does not look for times: what it answers is that there is nothing so late.
    async with running(
        adapter_of(cluster.brokers, group="g2", start="2023-11-14T22:13:20Z"), sink
    ) as adapter:
        await until(lambda: len(adapter.diagnostics().devices) == 3, "it has both partitions")
        produce(cluster, 16, 18)
        await until(lambda: sink.n_samples == 2, "what is new arrives")


async def test_refusals_are_told_in_a_sentence(cluster):
    sink = RecordingSink()
    cluster.refuse(JOIN_GROUP, GROUP_REFUSED)
    async with running(adapter_of(cluster.brokers), sink, AdapterState.FAILED) as adapter:
        assert "roup authorization failed" in adapter.diagnostics().reason
        produce(cluster, 0, 2)
        await until(lambda: sink.n_samples == 2, "it is tried again, slowly")


async def test_users_and_passwords(cluster, monkeypatch):
    monkeypatch.setenv("PW", "wrong")
    sink = RecordingSink()
    async with Door(cluster.brokers[0], user=("ann", "right")) as door:
        rest = {"brokers": [f"127.0.0.1:{door.port}"], "user": "ann", "password": {"env": "PW"}}
        async with running(adapter_of(**rest), sink, AdapterState.FAILED) as adapter:
            assert "SASL authentication error: who are you?" in adapter.diagnostics().reason
            assert adapter.diagnostics().devices[0].next_retry_ns > 0
            monkeypatch.setenv("PW", "right")
            produce(cluster, 0, 2)
            await until(lambda: sink.n_samples == 2, "the new password is used")
        monkeypatch.delenv("PW")
        async with running(adapter_of(**rest), sink, AdapterState.FAILED) as adapter:
            assert "environment variable PW is not set" in adapter.diagnostics().reason


def make_certificates(folder):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    out = ("-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=broker", "-addext", names)
    subprocess.run([openssl, "req", "-x509", *key, *out], cwd=folder, check=True, capture_output=True)


async def test_tls(cluster, tmp_path):
    make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "cert.pem")
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    files = {"tls": True, "cert_file": "cert.pem", "key_file": "key.pem"}
    sink = RecordingSink()
    async with Door(cluster.brokers[0], tls=context) as door:
        brokers = [f"127.0.0.1:{door.port}"]
        async with running(adapter_of(brokers, tmp_path, ca_file="cert.pem", **files), sink):
            produce(cluster, 0, 2)
            await until(lambda: sink.n_samples == 2, "all arrive")
        async with running(adapter_of(brokers, tmp_path, **files), sink, AdapterState.FAILED) as adapter:
            assert "certificate verify failed" in adapter.diagnostics().reason
        (tmp_path / "key.pem").write_text("no key")
        async with running(
            adapter_of(brokers, tmp_path, ca_file="cert.pem", **files), sink, AdapterState.FAILED
        ) as adapter:
            assert "the settings can't be used: ssl.key.location failed" in adapter.diagnostics().reason


async def test_a_broker_that_says_nothing(cluster):
    sink = RecordingSink()
    async with Door(cluster.brokers[0]) as door:
        door.is_mute = True
        brokers = [f"127.0.0.1:{door.port}"]
        async with running(adapter_of(brokers, timeout="700ms"), sink, AdapterState.BACKOFF) as adapter:
            assert "answer" in adapter.diagnostics().reason or "timed out" in adapter.diagnostics().reason
            door.is_mute = False
            produce(cluster, 0, 2)
            await until(lambda: sink.n_samples == 2, "it answers")
            door.is_mute = True
            await asyncio.sleep(0.1)
            began_ns = monotonic_ns()
            await adapter.stop()
            assert monotonic_ns() - began_ns < 2 * NS


async def test_all_brokers_are_lost_and_come_back(caplog):
    cluster = SimulatedCluster(n_brokers=3)
    cluster.create("plant.a", 2)
    sink = RecordingSink()
    try:
        with caplog.at_level(logging.INFO, "headrace.adapters.kafka"):
            async with running(adapter_of(cluster.brokers), sink) as adapter:
                produce(cluster, 0, 10)
                await until(lambda: sink.n_samples == 10, "all arrive")
                cluster.down()
                await until(
                    lambda: adapter.diagnostics().state is AdapterState.BACKOFF, "the loss is noticed"
                )
                cluster.up()
                await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is back")
                produce(cluster, 10, 20)
                # What was not committed before the loss comes again.
                await until(lambda: len(set(identities(sink))) == 20, "all arrive")
    finally:
        cluster.close()
    said = [record.getMessage() for record in caplog.records]
    assert [one.rpartition("brokers=")[2].partition(" ")[2][:4] for one in said] == ["lost", "are "], said


async def test_a_look_at_the_newest_messages(cluster):
    produce(cluster, 0, 10)
    device = ProducingDevice(cluster.brokers)
    cluster.create("other", 1)
    cluster.create("plant.empty", 1)
    device.send("other", b"\xff")
    device.send("plant.b", "m,host=h a=1.5,b=2i 5", "k", timestamp=7)
    device.send("plant.b", "nonsense", "k", timestamp=8)
    device.send("plant.b", None, "k", timestamp=9)
    device.delivered()
    topics = {
        "plant.{line}": {"path": "leon/{line}/{message_key}/{key}"},
        "plant.b": {"path": "leon/{host}/{measurement}/{key}", "values": "line"},
    }
    adapter = adapter_of(cluster.brokers, topics=topics)
    adapter.listen(print)  # nobody, as long as it does not run
    found = await adapter.probe({}, SystemClock())
    assert (found["protocol"], found["broker"], found["filters"]) == (
        "kafka",
        cluster.brokers[0],
        ["plant.b", "plant.{line}"],
    )
    a, b, empty = found["topics"]
    assert (a["topic"], a["partitions"], a["messages"], a["rule"]) == ("plant.a", 2, 10, "plant.{line}")
    assert sorted(v["value"] for v in a["values"]) == [4, 5, 6, 7, 8, 9], "three of each partition"
    assert (a["payload"], a["key"]) == ('{"v": 9}', "d1")
    assert {(v["path"], v["ts_ns"], v["value"]) for v in b["values"]} == {
        ("leon/h/m/a", 5, 1.5),
        ("leon/h/m/b", 5, 2),
    }
    assert b["problems"][0].startswith("malformed: line 1: expected a blank and fields")
    assert (empty["payload"], empty["key"], empty["messages"], empty["values"]) == ("", None, 0, [])
    found = await adapter.probe({"topic": "other", "count": "1"}, SystemClock())
    (other,) = found["topics"]
    assert (other["rule"], other["payload"]) == (None, "\\xff")
    assert other["problems"] == ["unknown-topic: no topic rule matches"]
    assert cluster.n_requests(JOIN_GROUP) == cluster.n_requests(OFFSET_COMMIT) == 0
    found = await KafkaAdapter.probe_url({"url": f"kafka://{cluster.brokers[0]}"}, SystemClock())
    assert [t["topic"] for t in found["topics"]] == ["other", "plant.a", "plant.b", "plant.empty"]

    tags = await adapter.scan({"topic": "#"}, SystemClock())
    assert [(t.device, t.name, t.address, t.dtype, t.value) for t in tags if not t.problem] == [
        ("leon/a/d0", "v", "path:leon/a/d0/v", "f64", 8), ("leon/a/d1", "v", "path:leon/a/d1/v", "f64", 9),
        ("leon/h/m", "a", "path:leon/h/m/a", "f64", 1.5), ("leon/h/m", "b", "path:leon/h/m/b", "i64", 2),
    ]  # fmt: skip
    assert [(t.device, t.problem.partition(":")[0]) for t in tags if t.problem] == [
        ("other", "no rule of the adapter takes this topic"), ("plant.b", "malformed"), ("plant.empty", "no messages are there"),
    ]  # fmt: skip
    wanted = {"url": f"kafka://{cluster.brokers[0]}", "topic": "plant.a", "count": "1"}
    tags = await KafkaAdapter.scan_url(wanted, SystemClock())
    assert {(t.device, t.name, t.value) for t in tags} == {("plant.a:d0", "v", 8), ("plant.a:d1", "v", 9)}


async def test_what_the_cluster_deleted_while_we_were_away_is_told(cluster, caplog):
    """Its partitions hold 5 MiB; what comes then makes room for itself."""
    sink = RecordingSink()
    async with running(adapter_of(cluster.brokers), sink):
        produce(cluster, 0, 4)
        await until(lambda: sink.n_samples == 4, "it has begun")
    device = ProducingDevice(cluster.brokers)
    for number in range(8):
        device.send("plant.a", f'{{"v": {number}, "x": "{"x" * 900_000}"}}', "d0", partition=0)
        device.delivered()
    async with running(adapter_of(cluster.brokers), sink) as adapter:
        await until(lambda: adapter.diagnostics().n_gaps == 1, "it is counted")
        await until(lambda: "the cluster deleted messages from offset 2 to" in caplog.text, "it is told")
        assert adapter.diagnostics().n_connects == 1
        await until(lambda: {4, 5, 6, 7} <= set(values(sink)), "what was there came")


async def test_a_look_that_finds_nobody(cluster):
    cluster.down()
    with pytest.raises(NotConnected, match="Connection refused"):
        await adapter_of(cluster.brokers).probe({}, SystemClock())
    async with Door(cluster.brokers[0]) as door:
        with pytest.raises(NotConnected):
            await adapter_of([f"127.0.0.1:{door.port}"]).probe({"for": "200ms"}, SystemClock())
    with pytest.raises(ConfigError, match="knows no 'topics'; did you mean 'topic'"):
        await adapter_of(cluster.brokers).probe({"topics": "#"}, SystemClock())


def test_a_cluster_that_takes_nothing_is_told(cluster, monkeypatch):
    monkeypatch.setattr(simulator, "_FLUSH_S", 0.05)
    cluster.down()
    device = ProducingDevice(cluster.brokers)
    device.send("plant.a", "x")
    with pytest.raises(NotConnected, match="1 messages were not delivered"):
        device.delivered()
