"""Sparkplug as a payload of topic rules."""

import pytest

from headrace.adapters.payloads import sparkplug_messages
from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.payloads.sparkplug_writer import (
    SparkplugValue,
    write_payload,
)
from headrace.adapters.payloads.wire import whole, wrap
from headrace.core.errors import ConfigError
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory

MS = 1_000_000


class Desk:
    def __init__(self):
        self.directory = SensorDirectory()
        rule = RuleSettings(path="{group}/{node}/{device}/{key}", values="sparkplug")
        rules = compile_rules({"spBv1.0/{group}/{kind}/{node}/{device}": rule}, (), "UTC", "t")
        self.router = MessageRouter("k", rules, DeviceGroups(self.directory))

    def take(self, kind, *values, device="d", time_ms=1_000):
        payload = values[0] if isinstance(values[0], bytes) else write_payload(time_ms, 0, values)
        message = TopicMessage(f"spBv1.0/g/{kind}/n/{device}", payload, 5)
        batches, rejects = self.router.decode([message], 5)
        found = {r.path: (r.ts_ns, r.value) for b in batches for r in readings(b, self.directory)}
        return found, [(str(r.code), r.detail) for r in rejects]


def report(alias, value, kind=DataType.DOUBLE, **rest):
    return SparkplugValue(value, kind, None, alias, names_type=False, **rest)


def test_births_give_aliases_and_types_their_meaning_device_by_device():
    desk = Desk()
    born = [SparkplugValue(1.5, DataType.DOUBLE, "Zone/T", 0), SparkplugValue("on", DataType.STRING, "s", 1),
            SparkplugValue(-5, DataType.INT32, "n", 2), SparkplugValue(True, DataType.BOOLEAN, "b", 3),
            SparkplugValue(1, DataType.INT64, "bdSeq"), SparkplugValue(None, DataType.DOUBLE, "null", 4)]  # fmt: skip
    found, rejects = desk.take("DBIRTH", *born)
    assert not rejects
    assert {path: value for path, (_, value) in found.items()} == {
        "g/n/d/Zone.T": 1.5, "g/n/d/s": "on", "g/n/d/n": -5, "g/n/d/b": 1,
    }  # fmt: skip
    found, rejects = desk.take("DDATA", report(0, 2.5, time_ms=2_000), report(2, -6, DataType.INT32))
    assert (found, rejects) == ({"g/n/d/Zone.T": (2_000 * MS, 2.5), "g/n/d/n": (1_000 * MS, -6)}, [])
    _, rejects = desk.take("DDATA", report(0, 2.5), device="other")
    assert rejects == [("unknown-tag", "metric '': alias 0 is not known: no birth has named it yet")]
    found, _ = desk.take("DDATA", report(0, 2.5), time_ms=None)
    assert found == {"g/n/d/Zone.T": (5, 2.5)}


def test_refusals():
    desk = Desk()
    desk.take("DBIRTH", SparkplugValue(1.5, DataType.DOUBLE, "a", 0))
    _, rejects = desk.take(
        "DDATA", report(0, 1.0), report(0, 2.0), report(0, 1.0, quality=0, time_ms=2), report(0, 1.0, time_ms=2**63),
        SparkplugValue(None, DataType.INT8_ARRAY, "list"), SparkplugValue(1.0, DataType.DOUBLE, "new", names_type=False),
    )  # fmt: skip
    assert [code for code, _ in rejects] == [
        "malformed",
        "device-error",
        "bad-time",
        "wrong-type",
        "unknown-tag",
    ]
    assert rejects[0][1] == "metric 'a': it is there twice with one time"
    _, rejects = desk.take("DDATA", b"\xff")
    assert [code for code, _ in rejects] == ["malformed"]
    rule = RuleSettings(path="{d}/{key}", values="sparkplug", time="ts")
    with pytest.raises(ConfigError, match='remove "time"'):
        compile_rules({"{d}": rule}, (), "UTC", "t")


def test_templates():
    member = wrap(1, b"RPM") + whole(4, 3) + whole(10, 1_480)
    nameless = whole(4, 3) + whole(10, 1)
    template = wrap(1, b"M") + wrap(18, wrap(2, member) + wrap(2, nameless))
    definition = wrap(1, b"type") + wrap(18, whole(5, 1) + wrap(2, member))
    desk = Desk()
    found, rejects = desk.take("DDATA", whole(1, 7) + wrap(2, template) + wrap(2, definition))
    assert found == {"g/n/d/M.RPM": (7 * MS, 1_480), "g/n/d/M.": (7 * MS, 1)}
    assert not rejects


def test_names_are_bounded(monkeypatch):
    monkeypatch.setattr(sparkplug_messages, "N_NAMES_MAX", 1)
    desk = Desk()
    desk.take("DBIRTH", *(SparkplugValue(1.5, DataType.DOUBLE, name, i) for i, name in enumerate("ab")))
    found, rejects = desk.take("DDATA", report(0, 1.0), report(1, 1.0))
    assert (list(found), [code for code, _ in rejects]) == (["g/n/d/a"], ["unknown-tag"])
