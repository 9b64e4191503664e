"""Listening to nodes: births, who is asked, what is told of it."""

import pytest

from headrace.adapters.broker.packets import one_arrival
from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.payloads.sparkplug_writer import (
    SparkplugValue,
    write_payload,
)
from headrace.adapters.payloads.wire import whole, wrap
from headrace.adapters.sparkplug import probe
from headrace.adapters.sparkplug.naming import compile_naming
from headrace.adapters.sparkplug.probe import BirthEar, found_tags, heard_nodes, wanted_nodes
from headrace.core.clock import NO_TIME, VirtualClock
from headrace.core.errors import ConfigError

NAMING = compile_naming("{group}/{node}/{device}/{metric}", {}, ".", (), "adapters.p")
T_MS = 1_795_446_000_000


class Ear(BirthEar):
    def __init__(self, node_ids=(), asks=True):
        super().__init__(VirtualClock(T_MS * 1_000_000), node_ids, asks)
        self.asked = []
        self.joined(lambda publication: self.asked.append(publication.topic))

    def hear(self, topic, payload=b""):
        self.take(one_arrival(topic, payload))


def birth(*values):
    return write_payload(T_MS, 0, list(values))


def test_whose_birth_was_not_heard_is_asked_once():
    ear = Ear()
    ear.hear("spBv1.0/g/NDATA/a")
    ear.hear("spBv1.0/g/DDATA/a/d")
    ear.hear("spBv1.0/g/NBIRTH/b", birth())
    ear.hear("spBv1.0/g/NDATA/b")
    ear.hear("spBv1.0/g/DDATA/b/d")
    ear.hear("spBv1.0/g/DBIRTH/c/d", birth())
    ear.hear("spBv1.0/g/NDEATH/d")
    ear.hear("else/where")
    assert ear.asked == [f"spBv1.0/g/NCMD/{node}" for node in "abc"]
    assert (ear.n_messages, ear.n_others) == (8, 1)
    silent = Ear(asks=False)
    silent.hear("spBv1.0/g/NDATA/a")
    assert silent.asked == []
    BirthEar(VirtualClock(0)).take(one_arrival("spBv1.0/g/NDATA/a", b""))
    assert Ear([("g", "x"), ("g", "x")]).asked == ["spBv1.0/g/NCMD/x"]


def test_what_births_name():
    definition = wrap(1, b"type") + whole(4, 19) + wrap(18, whole(5, 1))
    member = wrap(1, b"RPM") + whole(4, 3) + whole(10, 1_480)
    template = wrap(1, b"Motor") + whole(4, 19) + wrap(18, wrap(2, member))
    payload = birth(
        SparkplugValue(1, DataType.INT64, "bdSeq"), SparkplugValue(False, DataType.BOOLEAN, "Node Control/Rebirth"),
        SparkplugValue(1.5, DataType.DOUBLE, "Zone/T", unit="degC", quality=500),
        SparkplugValue(None, DataType.STRING, "s"), SparkplugValue(True, DataType.BOOLEAN, "on", time_ms=5),
        SparkplugValue(None, DataType.INT8_ARRAY, "list"), SparkplugValue(1, DataType.INT32, "/x"),
        SparkplugValue("x", DataType.INT32, "odd"), SparkplugValue(1, DataType.INT32, "late", time_ms=2**63),
    ) + wrap(2, template) + wrap(2, definition)  # fmt: skip
    ear = Ear()
    ear.hear("spBv1.0/g/NBIRTH/n", payload)
    ear.hear("spBv1.0/g/DBIRTH/n/broken", b"\xff")
    ear.hear("spBv1.0/g/DDEATH/n/gone")
    by_name = {t.name: t for t in found_tags(ear, NAMING, "node")}
    assert list(by_name) == ["Zone/T", "s", "on", "list", "/x", "odd", "late", "Motor.RPM"]
    one = by_name["Zone/T"]
    assert (one.device, one.address, one.path) == ("g/n", "g/n#Zone/T", "g/n/node/Zone.T")
    assert (one.dtype, one.unit, one.kind) == ("f64", "degC", "analog")
    assert (one.value, one.ts_ns, one.quality) == (1.5, T_MS * 1_000_000, "uncertain-stale")
    assert (by_name["s"].dtype, by_name["s"].kind, by_name["s"].value, by_name["s"].quality) == (
        "string",
        "discrete",
        None,
        "bad",
    )
    assert (by_name["on"].kind, by_name["on"].value, by_name["on"].ts_ns) == ("discrete", True, 5_000_000)
    assert by_name["late"].ts_ns == NO_TIME
    assert (by_name["Motor.RPM"].value, by_name["Motor.RPM"].path) == (1_480, "g/n/node/Motor.RPM")
    assert {name: t.problem[:12] for name, t in by_name.items() if t.problem} == {
        "list": "values of ty", "/x": "metric '/x' ", "odd": "it has a tex",
    }  # fmt: skip
    found = heard_nodes(ear, NAMING, "node")
    assert [(n["node"], n["state"], n["metrics"], n["messages"]) for n in found["nodes"]] == [
        ("g/n", "online", 8, 1), ("g/n/broken", "no birth heard", 0, 1), ("g/n/gone", "dead", 0, 1),
    ]  # fmt: skip
    assert found["nodes"][0]["values"][0] == {
        "path": "g/n/node/Zone.T", "ts_ns": T_MS * 1_000_000, "value": 1.5, "quality": "uncertain-stale",
    }  # fmt: skip
    assert found["nodes"][1]["problems"][0].startswith("malformed: no Sparkplug B payload")
    assert len(found["nodes"][0]["problems"]) == 3


def test_devices_are_bounded(monkeypatch):
    monkeypatch.setattr(probe, "DEVICES_MAX", 1)
    ear = Ear()
    for node in "aab":
        ear.hear(f"spBv1.0/g/NBIRTH/{node}", birth())
    assert (len(ear.heard), ear.n_others, heard_nodes(ear, NAMING, "node")["messages_of_others"]) == (1, 1, 1)


def test_births_are_bounded_by_their_bytes(monkeypatch):
    some = birth(SparkplugValue(1.5, DataType.DOUBLE, "a"))
    monkeypatch.setattr(probe, "BIRTH_BYTES_MAX", 2 * len(some))
    ear = Ear()
    for node in "abca":
        ear.hear(f"spBv1.0/g/NBIRTH/{node}", some)
    found = heard_nodes(ear, NAMING, "node")["nodes"]
    assert [(n["node"], n["metrics"]) for n in found] == [("g/a", 1), ("g/b", 1), ("g/c", 0)]
    assert found[2]["problems"] == [
        f"its birth of {len(some)} bytes is one too many to keep: listen to one node"
    ]
    assert ear.asked == ["spBv1.0/g/NCMD/c"]


def test_what_is_wanted():
    assert wanted_nodes({"for": "1s"}, ("g",))[0][0] == "spBv1.0/g/NBIRTH/+"
    topics, node_ids = wanted_nodes({"node": "g/n"}, ("x",))
    assert (topics[0], topics[3], node_ids) == ("spBv1.0/g/NBIRTH/n", "spBv1.0/g/DBIRTH/n/+", [("g", "n")])
    for wanted, said in (
        ({"nod": "g/n"}, "knows no 'nod'; did you mean 'node'"), ({"node": "g"}, "is no node; write group/node"),
        ({"node": "g/+"}, "is no node"), ({"node": "a/b/c"}, "is no node"), ({"node": "/b"}, "is no node"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            wanted_nodes(wanted, ("g",))
