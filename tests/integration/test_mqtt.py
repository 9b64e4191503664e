"""The MQTT adapter against real brokers over loopback: mosquitto and amqtt; paho as a foreign publisher."""

import asyncio
import contextlib
import gc
import logging
import shutil
import subprocess

import paho.mqtt.client as paho
import pytest
from tests.certificates import make_certificate

from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.broker import client as client_module
from headrace.adapters.broker import simulator
from headrace.adapters.broker.simulator import BrokerKind, SimulatedBroker, find_mosquitto, free_port
from headrace.adapters.mqtt.adapter import MqttAdapter
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.core.errors import NotConnected
from headrace.core.problems import validate_section
from headrace.testing.adapters import RecordingSink, until

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


def adapter_of(broker, folder=None, name="b", **config):
    config = {
        "url": broker.url, "version": "5", "reconnect_first": "20ms", "reconnect_most": "100ms",
        "topics": {"plant/{device}": {"path": "leon/{device}/{key}", "time": "ts", "time_unit": "ns"}}, **config,
    }  # fmt: skip
    facts = PlantFacts() if folder is None else PlantFacts(folder=folder)
    return MqttAdapter.from_config(
        name, validate_section(MqttAdapter.Config, config, "adapters.b"), {}, facts
    )


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


@contextlib.asynccontextmanager
async def device(broker, name="device"):
    one = PublishingDevice(name, broker.host, broker.port)
    await one.start()
    yield one
    await one.delivered()
    await one.stop()


async def publish(broker, first, last, **rest):
    async with device(broker) as one:
        for i in range(first, last):
            await one.publish("plant/d", f'{{"ts": {10**18 + i}, "a": {i}}}', **rest)


def values(sink):
    return [v for b in sink.batches for v in b.values.reshape(-1).tolist()]


@needs_mosquitto
@VERSIONS
async def test_messages_arrive_in_order_at_both_qualities(broker, version):
    sink = RecordingSink()
    async with running(adapter_of(broker, version=version), sink) as adapter:
        await publish(broker, 0, 200)
        await until(lambda: len(values(sink)) == 200, "all arrive")
        await publish(broker, 200, 400, qos=0)
        await until(lambda: len(values(sink)) == 400, "all arrive")
        assert values(sink) == list(range(400))
        found = adapter.diagnostics()
        assert (found.n_samples, found.n_frames, found.n_duplicates, found.n_sensors) == (400, 400, 0, 1)
        assert found.devices[0].path == f"127.0.0.1:{broker.port}"
        assert found.latency_s_p99 > 0
        assert (found.n_bytes > 400, found.transport_ns > 0) == (True, True)
    assert adapter.diagnostics().state is AdapterState.STOPPED


@needs_mosquitto
@VERSIONS
async def test_who_asks_for_a_group_gets_what_the_others_of_it_do_not(broker, version):
    topics = {"$share/crew/plant/{device}": {"path": "leon/{device}/{key}", "time": "ts", "time_unit": "ns"}}
    sinks = RecordingSink(), RecordingSink()
    one, two = (adapter_of(broker, name=name, version=version, topics=topics) for name in ("one", "two"))
    async with running(one, sinks[0]), running(two, sinks[1]):
        await publish(broker, 0, 40)
        await until(lambda: sum(len(values(sink)) for sink in sinks) == 40, "all arrive")
    assert sorted(values(sinks[0]) + values(sinks[1])) == list(range(40))
    assert all(values(sink) for sink in sinks)
    assert one.diagnostics().n_rejects == two.diagnostics().n_rejects == 0


@needs_mosquitto
@VERSIONS
async def test_what_was_not_durable_comes_again_to_the_next_process(broker, version):
    """Nothing that was lost with the first process was acknowledged by it."""
    first = RecordingSink(is_durable=False)
    async with running(adapter_of(broker, version=version), first):
        await publish(broker, 0, 10)
        await until(lambda: len(values(first)) == 10, "all arrive")
    second = RecordingSink()
    async with running(adapter_of(broker, version=version), second):
        await until(lambda: len(values(second)) == 10, "all come again")
    third = RecordingSink()
    async with running(adapter_of(broker, version=version), third):
        await publish(broker, 10, 11)
        await until(lambda: len(values(third)) == 1, "what is new arrives")
    assert values(third) == [10], "what was durable does not come again"


@needs_mosquitto
@VERSIONS
async def test_what_comes_again_to_the_same_process_is_taken_once(broker, version):
    sink = RecordingSink(is_durable=False)
    async with running(adapter_of(broker, version=version), sink) as adapter:
        await publish(broker, 0, 10)
        await until(lambda: len(values(sink)) == 10, "all arrive")
        adapter._running.session.drop("cut by the test")
        await until(lambda: adapter.diagnostics().n_duplicates == 10, "all come again")
        sink.land()
        adapter._running.session.drop("cut by the test")
        await asyncio.sleep(0.1)
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is back")
        await publish(broker, 10, 11)
        await until(lambda: len(values(sink)) == 11, "what is new arrives")
        assert adapter.diagnostics().n_duplicates == 10
    assert values(sink) == list(range(11))


@needs_mosquitto
async def test_a_broker_that_is_killed_and_comes_back(broker, caplog):
    sink = RecordingSink()
    with caplog.at_level(logging.INFO, "headrace.adapters.broker"):
        async with running(adapter_of(broker), sink) as adapter:
            await publish(broker, 0, 10)
            await until(lambda: len(values(sink)) == 10, "all arrive")
            await broker.kill()
            await until(
                lambda: adapter.diagnostics().reason == "no connection: Connection refused",
                "it is tried again",
            )
            assert adapter.diagnostics().devices[0].next_retry_ns > 0
            await broker.start()
            await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is back")
            await publish(broker, 10, 20)
            await until(lambda: len(values(sink)) == 20, "all arrive")
    assert [r.getMessage().partition(" broker=")[2].partition(" ")[2] for r in caplog.records] == [
        "lost: closed by the broker; retrying until it answers", "is back",
    ]  # fmt: skip


@needs_mosquitto
async def test_messages_wait_at_the_broker_while_we_are_away(broker):
    sink = RecordingSink()
    async with running(adapter_of(broker), sink):
        pass
    await publish(broker, 0, 50)
    await broker.stop()
    await broker.start()
    async with running(adapter_of(broker), sink):
        await until(lambda: len(values(sink)) == 50, "all arrive")


@needs_mosquitto
@VERSIONS
async def test_what_a_topic_retained_is_not_taken_unless_it_is_wanted(broker, version):
    await publish(broker, 0, 1, is_retained=True)
    sink = RecordingSink()
    async with running(adapter_of(broker, version=version), sink):
        await publish(broker, 1, 2, is_retained=True)
        await until(lambda: len(values(sink)) == 1, "what is new arrives")
        assert values(sink) == [1]
    sink = RecordingSink()
    async with running(adapter_of(broker, version=version, client_id="other", take_retained=True), sink):
        await until(lambda: values(sink) == [1], "what was retained arrives")


@needs_mosquitto
async def test_a_retained_message_of_quality_0_needs_no_acknowledgement(broker):
    await publish(broker, 0, 1, is_retained=True, qos=0)
    sink = RecordingSink()
    async with running(adapter_of(broker, version="3.1.1"), sink):
        await publish(broker, 1, 2, qos=0)
        await until(lambda: values(sink) == [1], "what is new arrives")


@needs_mosquitto
async def test_a_foreign_publisher_of_every_kind(broker):
    """paho with MQTT 5: a topic alias-free publisher of JSON, numbers and CSV, at QoS 0, 1 and 2."""
    topics = {
        "json/{device}": {"path": "leon/{device}/{key}"},
        "number/{device}/{signal}": {"path": "leon/{device}/{signal}", "values": "number"},
        "csv/{device}": {"path": "leon/{device}/{key}", "values": "csv", "columns": ["x", "y"]},
    }
    sink = RecordingSink()
    async with running(adapter_of(broker, topics=topics), sink) as adapter:
        foreign = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        foreign.connect("127.0.0.1", broker.port)
        foreign.loop_start()
        for qos in (0, 1, 2):
            foreign.publish("json/d1", '{"a": 1, "b": true}', qos=qos)
            foreign.publish("number/d2/c", "12.5", qos=qos)
            foreign.publish("csv/d3", "1,2\n3,4", qos=qos)
            foreign.publish("xml/d4", "<x/>", qos=qos)
            foreign.publish("json/d5", b"\xff", qos=qos)
        await until(lambda: sink.n_samples == 21 and len(sink.rejects) == 3, "all arrive")
        foreign.disconnect()
        foreign.loop_stop()
        assert {str(r.code) for r in sink.rejects} == {"malformed"}, "nobody subscribed to xml"
        assert adapter.diagnostics().n_sensors == 5


@needs_mosquitto
async def test_users_and_passwords(tmp_path, monkeypatch):
    passwords = tmp_path / "passwords"
    maker = shutil.which("mosquitto_passwd")
    if maker is None:
        pytest.skip("mosquitto_passwd is not installed")
    passwords.touch(mode=0o600)
    subprocess.run([maker, "-b", passwords, "ann", "right"], check=True, capture_output=True)
    lines = ("allow_anonymous false", f"password_file {passwords}")
    broker = SimulatedBroker(tmp_path, BrokerKind.MOSQUITTO, lines)
    await broker.start()
    try:
        monkeypatch.setenv("PW", "wrong")
        sink = RecordingSink()
        rest = {"user": "ann", "password": {"env": "PW"}}
        async with running(adapter_of(broker, **rest), sink, AdapterState.FAILED) as adapter:
            assert adapter.diagnostics().reason.startswith("refused: ")
            assert adapter.diagnostics().devices[0].next_retry_ns > 0
            monkeypatch.setenv("PW", "right")
            await until(
                lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "the new password is used"
            )
        monkeypatch.delenv("PW")
        async with running(adapter_of(broker, **rest), sink, AdapterState.FAILED) as adapter:
            assert "environment variable PW is not set" in adapter.diagnostics().reason
        async with running(
            adapter_of(broker, user="ann", version="3.1.1"), sink, AdapterState.FAILED
        ) as adapter:
            assert (
                "not authori" in adapter.diagnostics().reason.lower()
                or "password" in adapter.diagnostics().reason
            )
    finally:
        await broker.stop()


@needs_mosquitto
async def test_tls(tmp_path):
    make_certificate(tmp_path)
    lines = (f"cafile {tmp_path}/cert.pem", f"certfile {tmp_path}/cert.pem", f"keyfile {tmp_path}/key.pem")
    broker = SimulatedBroker(tmp_path, BrokerKind.MOSQUITTO, (*lines, "require_certificate true"))
    await broker.start()
    files = {"cert_file": "cert.pem", "key_file": "key.pem"}
    url = broker.url.replace("mqtt://", "mqtts://")
    sink = RecordingSink()
    try:
        trusting = adapter_of(broker, tmp_path, url=url, ca_file="cert.pem", **files)
        async with running(trusting, sink) as adapter:
            adapter._running.session.pause()
            adapter._running.session.resume()
            assert adapter.diagnostics().state is AdapterState.CONNECTED
        wary = adapter_of(broker, tmp_path, url=url, **files)
        async with running(wary, sink, AdapterState.FAILED) as adapter:
            assert "its certificate is not trusted: self-signed certificate" in adapter.diagnostics().reason
        (tmp_path / "key.pem").write_text("no key")
        broken = adapter_of(broker, tmp_path, url=url, ca_file="cert.pem", **files)
        async with running(broken, sink, AdapterState.FAILED) as adapter:
            assert "TLS files can't be used" in adapter.diagnostics().reason
        plain = adapter_of(broker)
        async with running(plain, sink, AdapterState.BACKOFF) as adapter:
            assert "closed by the broker" in adapter.diagnostics().reason
    finally:
        await broker.stop()


@needs_mosquitto
async def test_a_broker_that_refuses_some_topics(tmp_path):
    rights = tmp_path / "rights"
    rights.write_text("topic read plant/#\n")
    broker = SimulatedBroker(tmp_path, BrokerKind.MOSQUITTO, (f"acl_file {rights}",))
    await broker.start()
    topics = {
        "plant/{device}": {"path": "leon/{device}/{key}"}, "office/{device}": {"path": "leon/{device}/{key}"},
    }  # fmt: skip
    try:
        sink = RecordingSink()
        async with running(adapter_of(broker, topics=topics), sink, AdapterState.CONNECTED):
            pass  # mosquitto 2.0 grants what it will not send
    finally:
        await broker.stop()


# amqtt leaves sockets open where it stumbles over the CONNECT of version 5.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_amqtt_speaks_3_1_1(tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "CONNECT_S", 0.5)
    asyncio.run(_exchange_with_amqtt(tmp_path))
    gc.collect()  # so that the sockets are found here, and not in whichever test comes later


async def _exchange_with_amqtt(tmp_path):
    broker = SimulatedBroker(tmp_path, BrokerKind.AMQTT)
    await broker.start()
    try:
        sink = RecordingSink()
        async with running(adapter_of(broker, version="auto"), sink):
            await publish(broker, 0, 30)
            await until(lambda: values(sink) == list(range(30)), "all arrive")
    finally:
        await broker.stop()
        await broker.stop()


async def test_a_broker_that_does_not_come_up(tmp_path, monkeypatch):
    monkeypatch.setattr(simulator, "_START_S", 0.1)
    broker = SimulatedBroker(tmp_path, BrokerKind.MOSQUITTO)

    async def nothing():
        pass

    monkeypatch.setattr(broker, "_start_mosquitto", nothing)
    with pytest.raises(NotConnected, match=f"does not listen on 127.0.0.1:{broker.port}"):
        await broker.start()


def test_mosquitto_is_looked_for_where_systems_put_it(monkeypatch):
    monkeypatch.setattr(
        simulator.shutil, "which", lambda name, path=None: f"{path}/mosquitto" if path else None
    )
    assert find_mosquitto() == "/usr/sbin/mosquitto"
    monkeypatch.setattr(simulator.shutil, "which", lambda name, path=None: None)
    assert find_mosquitto() is None
    assert SimulatedBroker("x").kind is BrokerKind.AMQTT


def test_a_free_port_is_free():
    assert 1_024 < free_port() < 65_536
