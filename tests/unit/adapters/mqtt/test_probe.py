"""Listening to a broker: what was heard, what the rules make of it, how it ends."""

import asyncio
import os
import socket

import pytest

from headrace.adapters.base import PlantFacts
from headrace.adapters.broker import client as client_module
from headrace.adapters.broker import listening
from headrace.adapters.broker.client import BrokerClient, OldBroker, Silent
from headrace.adapters.broker.listening import Ear
from headrace.adapters.broker.packets import one_arrival
from headrace.adapters.mqtt.adapter import MqttAdapter
from headrace.adapters.mqtt.probe import heard
from headrace.core.clock import SystemClock, VirtualClock
from headrace.core.errors import ConfigError, NotConnected
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory
from headrace.testing.adapters import RecordingSink

RULES = {
    "plant/{device}": {"path": "leon/{device}/{key}", "time": "ts", "time_unit": "ns"},
    "plant/{device}/raw": {"path": "leon/{device}/raw/{key}", "max_payload": "10B"},
}


def adapter_of(url="mqtt://127.0.0.1:1", folder=None, **config):
    config = {"url": url, "version": "5", "topics": RULES, **config}
    facts = PlantFacts() if folder is None else PlantFacts(folder=folder)
    return MqttAdapter.from_config("b", validate_section(MqttAdapter.Config, config, "adapters.b"), {}, facts)


def test_what_was_heard_is_told_with_what_the_rules_make_of_it():
    ear = Ear(VirtualClock(7))
    for topic, payload in (
        ("plant/o1", b'{"ts": 3, "t": 20.5, "on": true}'),
        ("plant/o1", b'{"ts": 4, "t": 21.5, "bad": [1]}'),
        ("plant/o2", b"\xff not json"),
        ("plant/o2/raw", b'{"temperature": 1}'),
        ("else/where", b"1"),
        ("plant/big", b"x" * 300_000),
    ):
        ear.take(one_arrival(topic, payload))
    found = heard(ear, "b", adapter_of()._rules)
    by_topic = {t["topic"]: t for t in found["topics"]}
    assert (found["messages"], list(by_topic)) == (6, sorted(by_topic))
    one = by_topic["plant/o1"]
    assert (one["messages"], one["rule"]) == (2, "plant/{device}")
    assert one["values"] == [{"path": "leon/o1/t", "ts_ns": 4, "value": 21.5, "quality": "good"}]
    assert one["problems"] == ["wrong-type: key 'bad' has a list, expected a number, text, true or false"]
    assert by_topic["plant/o2"]["payload"] == "\\xff not json"
    assert by_topic["plant/o2"]["problems"][0].startswith("malformed: ")
    assert by_topic["plant/o2/raw"]["problems"] == ["too-large: 18 bytes, expected at most 10"]
    assert by_topic["else/where"] | {"payload": ""} == {
        "topic": "else/where", "messages": 1, "payload": "", "payload_bytes": 1, "rule": None, "values": [],
        "problems": ["unknown-topic: no topic rule matches"],
    }  # fmt: skip
    assert by_topic["plant/big"]["problems"] == ["too large to look into here: 300,000 bytes"]
    assert len(by_topic["plant/big"]["payload"]) == 400


def test_topics_are_bounded():
    ear = Ear(VirtualClock(), topics_max=2)
    for topic in ("a", "b", "c", "a", "c"):
        ear.take(one_arrival(topic, b"1"))
    found = heard(ear, "b", [])
    assert ([t["topic"] for t in found["topics"]], found["messages_of_other_topics"]) == (["a", "b"], 2)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"topics": "#"}, "knows no 'topics'; did you mean 'topic'"),
        ({"topic": "a/#/b"}, "is no filter"),
        ({"topic": "a/b+"}, "is no filter"),
        ({"for": "61s"}, "at most 60s"),
        ({"for": "5"}, "unit"),
    ],
)
async def test_what_is_asked_for_must_make_sense(wanted, said):
    with pytest.raises(ConfigError, match=said):
        await adapter_of().probe(wanted, SystemClock())


async def test_a_broker_that_is_away_is_told(unused_port):
    with pytest.raises(NotConnected, match="refused"):
        await adapter_of(f"mqtt://127.0.0.1:{unused_port}").probe({}, SystemClock())


@pytest.fixture
def unused_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Scripted:
    """Stands in for the client: what opening raises by version, what the subscription is refused."""

    def __init__(self, errors=None, refused=(), ends=False):
        self.errors, self.refused, self.ends = errors or {}, list(refused), ends
        self.log = []
        self.send = self.log.append

    def __call__(self, client_id, on_session, on_messages, on_lost, stay, will, topics, **properties):
        self.log.append((client_id, stay.value, properties))
        self.on_session, self.on_messages, self.on_lost = on_session, on_messages, on_lost
        return self

    def set_auth_credentials(self, user, password):
        self.log.append((user, password))

    log_in_as = BrokerClient.log_in_as

    async def open(self, address, tls, keepalive_ns, version):
        self.log.append(f"open {version} {'tls' if tls else 'plain'}")
        if version in self.errors:
            raise self.errors[version]

    async def subscribe_all(self, filters, qos, take_retained):
        self.log.append((filters, qos, take_retained))
        self.on_session(False)
        self.on_messages(one_arrival("plant/o1", b'{"t": 1}'))
        if self.ends:
            self.on_lost("gone")
        return self.refused

    async def close(self):
        self.log.append("close")


@pytest.fixture
def script(monkeypatch):
    def use(**rest):
        one = Scripted(**rest)
        monkeypatch.setattr(listening, "BrokerClient", one)
        return one

    return use


async def test_a_session_of_its_own_that_leaves_nothing_behind(script, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "s")
    one = script()
    adapter = adapter_of(user="u", password={"env": "SECRET"})
    found = await adapter.probe({"topic": "#", "for": "20ms"}, SystemClock())
    assert one.log == [
        (f"headrace-b-probe-{os.getpid()}", "brief", {"session_expiry_interval": 0}),
        ("u", "s"), "open 5 plain", (("#",), 0, True), "close",
    ]  # fmt: skip
    assert (found["messages"], found["filters"], found["seconds"]) == (1, ["#"], 0.02)
    await adapter_of("mqtts://h", user="u", client_id="me").probe({"for": "1ms"}, SystemClock())
    assert one.log[5:8] == [
        (f"me-probe-{os.getpid()}", "brief", {"session_expiry_interval": 0}), ("u", None), "open 5 tls",
    ]  # fmt: skip
    assert one.log[8] == (("plant/+", "plant/+/raw"), 0, True)


async def test_the_older_version_is_tried_where_the_newer_is_not_spoken(script):
    one = script(errors={"5": OldBroker("no 5")})
    await adapter_of(version="auto").probe({"for": "1ms"}, SystemClock())
    assert [line for line in one.log if isinstance(line, str)] == [
        "open 5 plain", "close", "open 3.1.1 plain", "close",
    ]  # fmt: skip
    script(errors={"5": OldBroker("no 5"), "3.1.1": Silent("says nothing")})
    with pytest.raises(Silent):
        await adapter_of(version="auto").probe({"for": "1ms"}, SystemClock())


async def test_refusals_and_losses_are_told(script):
    one = script(refused=["plant/+", "plant/+/raw"])
    with pytest.raises(NotConnected, match=r"refuses our subscriptions: plant/\+, plant/\+/raw"):
        await adapter_of().probe({"for": "1s"}, SystemClock())
    assert one.log[-1] == "close"
    script(ends=True)
    with pytest.raises(NotConnected, match="closed the connection while we listened"):
        await adapter_of().probe({"for": "1s"}, SystemClock())
    one = script(errors={"5": client_module.Refused("bad password")})
    with pytest.raises(client_module.Refused):
        await adapter_of().probe({"for": "1s"}, SystemClock())
    assert one.log[-1] == "close"


def reject_of(payload, topic="plant/o1", arrival_ns=50):
    return Reject(RejectCode.MALFORMED, "b", topic, "as it was", payload, arrival_ns)


async def test_refused_input_is_decoded_again_by_the_present_rules():
    directory = SensorDirectory()
    adapter = adapter_of()
    batches, rejects = adapter.redecode(reject_of(b'{"t": 4.5}'), directory)
    assert ([b.ts_ns.tolist() for b in batches], list(rejects)) == ([[50]], [])
    assert directory.n_slots == 1
    _, (still,) = adapter.redecode(reject_of(b"nonsense"), directory)
    assert still.code is RejectCode.MALFORMED
    _, (still,) = adapter.redecode(reject_of(b"1", "else"), directory)
    assert still.code is RejectCode.UNKNOWN_TOPIC
    _, (still,) = adapter.redecode(reject_of(b" " * MAX_RAW_BYTES), directory)
    assert still.detail == "only its first 1,048,576 bytes were kept"


async def test_a_message_of_the_past_keeps_its_time_in_a_running_adapter(unused_port):
    sink = RecordingSink()
    adapter = adapter_of(f"mqtt://127.0.0.1:{unused_port}")
    await adapter.start(sink)
    try:
        inbox = adapter._running.inbox
        inbox.take(one_arrival("plant/o1", b'{"t": 1}'))
        await asyncio.sleep(0.05)
        newest_ns = int(sink.batches[0].ts_ns[0])
        (again,), _ = adapter.redecode(reject_of(b'{"t": 4.5}', arrival_ns=50), sink.directory)
        assert again.ts_ns.tolist() == [50]
        inbox.take(one_arrival("plant/o1", b'{"t": 2}'))
        await asyncio.sleep(0.05)
        assert int(sink.batches[1].ts_ns[0]) > newest_ns
        assert sink.batches[1].slot == sink.batches[0].slot == again.slot
    finally:
        await adapter.stop()


async def test_a_broker_that_no_adapter_has_is_listened_to_by_its_url(script):
    one = script()
    found = await MqttAdapter.probe_url({"url": "mqtt://h:7", "for": "1ms"}, SystemClock())
    assert (found["broker"], found["filters"]) == ("h:7", ["#"])
    assert found["topics"][0]["problems"] == ["unknown-topic: no topic rule matches"]
    assert one.log[0][0].startswith("headrace-probe-probe-")
    with pytest.raises(ConfigError, match="is not mqtt"):
        await MqttAdapter.probe_url({"url": "mqtt://"}, SystemClock())
