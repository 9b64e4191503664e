"""What a broker offers: sensors that rules make, and what else its messages carry."""

import pytest

from headrace.adapters.abilities import FoundTag, Scans
from headrace.adapters.base import PlantFacts
from headrace.adapters.broker.listening import Ear
from headrace.adapters.broker.packets import one_arrival
from headrace.adapters.mqtt import probe
from headrace.adapters.mqtt.adapter import MqttAdapter
from headrace.adapters.mqtt.scan import offered
from headrace.adapters.payloads.offers import NO_RULE
from headrace.core.clock import SystemClock, VirtualClock
from headrace.core.errors import ConfigError
from headrace.core.problems import validate_section

RULES = {
    "plant/{device}": {
        "path": "leon/{device}/{key}",
        "time": "ts",
        "time_unit": "ns",
        "units": {"t": "degC"},
    },
    "small/{device}": {"path": "leon/small/{device}/{key}", "max_payload": "10B"},
}


def adapter_of(**config):
    settings = validate_section(
        MqttAdapter.Config, {"url": "mqtt://h", "topics": RULES, **config}, "adapters.b"
    )
    return MqttAdapter.from_config("b", settings, {}, PlantFacts())


def scanned(*messages, **bounds):
    ear = Ear(VirtualClock(7), **bounds)
    for topic, payload in messages:
        ear.take(one_arrival(topic, payload))
    return offered(ear, "b", adapter_of()._rules)


def test_a_topic_that_a_rule_takes_offers_its_sensors():
    found = scanned(
        ("plant/o1", b'{"ts": 3, "t": 20.5}'),
        ("plant/o1", b'{"ts": 4, "t": 21.5, "on": true, "s": "up", "bad": [1]}'),
    )
    assert found == [
        FoundTag("leon/o1", "t", "plant/o1#t", "f64", "degC", "analog", 21.5, 4, path="leon/o1/t"),
        FoundTag("leon/o1", "on", "plant/o1#on", "u8", "", "discrete", 1, 4, path="leon/o1/on"),
        FoundTag("leon/o1", "s", "plant/o1#s", "string", "", "discrete", "up", 4, path="leon/o1/s"),
        FoundTag(
            "plant/o1", "", "plant/o1",
            problem="wrong-type: key 'bad' has a list, expected a number, text, true or false",
        ),
    ]  # fmt: skip
    (one,) = scanned(("small/o1", b'{"temperature": 1}'))
    assert one.problem == "too-large: 18 bytes, expected at most 10"


def test_what_is_offered_can_stand_in_a_table_of_tags():
    for tag in scanned(("plant/o1", b'{"ts": 4, "t": 21.5, "on": true}')):
        assert adapter_of().own_path(tag.address) == tag.path


def test_any_other_topic_offers_what_its_message_carries():
    found = scanned(
        ("a/o1", b'{"motor": {"rpm": 7, "on": false}, "name": "x", "none": null, "list": [1]}'),
        ("a/o2/t", b"21.5"),
        ("a/o3", b'[{"x": 1}, {"x": 2}]'),
        ("a/o4", b"\xff no json"),
        ("a/o5", b"[1, 2]"),
        ("lone", b"true"),
    )
    assert [(t.device, t.name, t.address, t.dtype, t.kind, t.value) for t in found] == [
        ("a/o1", "motor.rpm", "a/o1", "i64", "analog", 7), ("a/o1", "motor.on", "a/o1", "u8", "discrete", False),
        ("a/o1", "name", "a/o1", "string", "analog", "x"), ("a/o1", "none", "a/o1", "", "analog", None),
        ("a/o1", "list", "a/o1", "", "analog", None), ("a/o2", "t", "a/o2/t", "f64", "analog", 21.5),
        ("a/o3", "x", "a/o3", "i64", "analog", 2), ("a", "o4", "a/o4", "string", "analog", "\\xff no json"),
        ("a", "o5", "a/o5", "", "analog", None), ("", "lone", "lone", "u8", "discrete", True),
    ]  # fmt: skip
    assert {t.problem for t in found} == {
        NO_RULE,
        f"carries nothing; {NO_RULE}",
        f"carries a list; {NO_RULE}",
    }
    assert {t.ts_ns for t in found} == {7}
    deep = b'{"a":' * 20 + b"1" + b"}" * 20
    (one,) = scanned(("a/deep", deep))
    assert one.problem == f"carries an object that is too deep; {NO_RULE}"
    assert len(scanned(("a/o", b'"' + b"x" * 500 + b'"'))[0].value) == 200


def test_what_is_too_much_is_told():
    found = scanned(("a", b"1"), ("b", b"x" * 30), ("c", b"1"), ("c", b"1"), topics_max=2, kept_bytes=20)
    assert [(t.address, t.problem) for t in found[1:]] == [
        ("b", "30 bytes are too many to look into here"), ("#", "2 messages of more topics came: narrow it with topic="),
    ]  # fmt: skip


@pytest.fixture
def listened(monkeypatch):
    """What was listened to; one message came."""
    found = []

    async def listen(ear, listening, config, address, folder, client_id):
        filters, _ = listening
        found.append((filters, str(address), client_id))
        ear.take(one_arrival("plant/o1", b'{"t": 1}'))

    from headrace.adapters.mqtt import adapter

    monkeypatch.setattr(adapter, "listen", listen)
    return found


async def test_an_adapter_scans_all_that_its_broker_has(listened):
    adapter = adapter_of()
    assert isinstance(adapter, Scans)
    (one,) = await adapter.scan({"for": "1ms"}, SystemClock())
    assert (one.device, one.name, one.value) == ("leon/o1", "t", 1)
    await adapter_of(client_id="me").scan({"topic": "x/#"}, SystemClock())
    assert listened == [(("#",), "h:1883", "headrace-b"), (("x/#",), "h:1883", "me")]
    with pytest.raises(ConfigError, match="knows no 'depth'"):
        await adapter.scan({"depth": "3"}, SystemClock())


async def test_a_broker_that_no_adapter_has_is_scanned_by_its_url(listened):
    (one,) = await MqttAdapter.scan_url({"url": "mqtt://h:7", "topic": "a/#"}, SystemClock())
    assert (one.device, one.name, one.problem) == ("plant/o1", "t", NO_RULE)
    assert listened == [(("a/#",), "h:7", "headrace-scan")]
    assert probe.TOPICS_MAX == 500, "a probe still shows what a person can look at"
