"""Births, data and deaths of nodes, without a broker."""

import numpy as np
import pytest

from headrace.adapters.base import PlantFacts
from headrace.adapters.payloads.base import MessageColumns, TopicMessage
from headrace.adapters.payloads.columns import CodedTopics, joined
from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.payloads.sparkplug_writer import SparkplugValue, write_payload
from headrace.adapters.sparkplug import adapter as adapter_module
from headrace.adapters.sparkplug import nodes as nodes_module
from headrace.adapters.sparkplug.adapter import SparkplugAdapter
from headrace.adapters.sparkplug.config import SparkplugConfig
from headrace.adapters.sparkplug.naming import compile_naming
from headrace.adapters.sparkplug.nodes import NodeSessions
from headrace.core.clock import NO_TIME
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.problems import validate_section
from headrace.core.quality import Quality
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory
from headrace.testing.adapters import RecordingSink, until

ARRIVAL_NS = 1_795_446_000_123_456_789
MS = 1_000_000
NODE = ("g", "n")


class Desk:
    def __init__(self, **config):
        self.directory = SensorDirectory()
        self.asked, self.born = [], []
        settings = validate_section(SparkplugConfig, {"url": "mqtt://h", **config}, "adapters.p")
        naming = compile_naming(settings.path, settings.ids, settings.joiner, (), "adapters.p")
        self.nodes = NodeSessions("p", settings, naming, self.directory, self.asked.append, self.born.append)
        self.arrival_ns = ARRIVAL_NS

    def take(self, *messages):
        messages = [
            TopicMessage(topic if "/" in topic else f"spBv1.0/g/{topic}/n" + ("/d" if topic[0] == "D" else ""), p, self.arrival_ns)
            for topic, p in messages
        ]  # fmt: skip
        batches, rejects = self.nodes.decode(messages, self.arrival_ns)
        found = [(r.path, r.ts_ns, r.value, r.quality) for b in batches for r in readings(b, self.directory)]
        return found, rejects


def bdseq(number):
    return SparkplugValue(number, DataType.INT64, "bdSeq")


def birth(bdseq_=0, *names, time_ms=1_000):
    values = [SparkplugValue(1.5, DataType.DOUBLE, name, i) for i, name in enumerate(names)]
    return write_payload(time_ms, 0, [bdseq(bdseq_), *values] if bdseq_ is not None else values)


def data(*values):
    return write_payload(
        2_000,
        1,
        [SparkplugValue(v, DataType.DOUBLE, None, i, names_type=False) for i, v in enumerate(values)],
    )


def death(number):
    return write_payload(5, None, [] if number is None else [bdseq(number)])


def columns(names, *messages):
    """Messages as the inbox hands them on, each a millisecond after the one before."""
    ids = np.array([names.index(topic) for topic, _ in messages])
    payloads, arrivals_ns = joined([p for _, p in messages]), ARRIVAL_NS + np.arange(len(messages)) * MS

    def make(number):
        topic, payload = messages[number]
        return TopicMessage(topic, payload, int(arrivals_ns[number]))

    return MessageColumns(CodedTopics(names, ids), payloads, [None] * len(ids), make, lambda: arrivals_ns)


def test_messages_by_columns_are_taken_as_one_by_one():
    names = [f"spBv1.0/g/{kind}/{node}" for node in ("n", "m", "x") for kind in ("NBIRTH", "NDATA")] + [
        "else"
    ]
    big = data(*[1.0] * 40)
    slices = [
        [(names[0], birth(1, "a")), (names[2], birth(1, "a")), (names[1], data(2.0))],
        [(names[1], data(n)) for n in range(5)] + [(names[3], data(7.5)), (names[1], data(8.5))],
        [(names[1], data(3.0)), (names[5], data(1.0)), (names[6], b"")],  # new ones among them
        [(names[5], data(1.0)), (names[1], data(4.0))],  # of one we have no birth
        [(names[1], big), (names[3], data(1.0))],  # too large
        [(names[1], b"\xff"), (names[3], data(2.0))],
    ]
    one, other = Desk(max_payload="200B"), Desk(max_payload="200B")
    for number, messages in enumerate(slices):
        by_columns = columns(names, *messages)
        found = [
            desk.nodes.decode(some, ARRIVAL_NS + number) for desk, some in ((one, by_columns), (other, list(by_columns)))
        ]  # fmt: skip
        told = [
            [[(r.path, r.ts_ns, r.value, r.quality) for b in each.batches for r in readings(b, desk.directory)], each.rejects]
            for each, desk in zip(found, (one, other), strict=True)
        ]  # fmt: skip
        assert told[0] == told[1]
        assert one.asked == other.asked
        facts = [
            [(d.name, d.n_messages, d.last_good_ns, d.is_online, node.wants_birth) for node in desk.nodes.nodes.values() for d in node.all()]
            for desk in (one, other)
        ]  # fmt: skip
        assert facts[0] == facts[1]
    assert one.asked


def test_many_topics_by_columns():
    names = [f"spBv1.0/g/{kind}/{n}" for n in range(200) for kind in ("NBIRTH", "NDATA")]
    desk = Desk()
    desk.nodes.decode(columns(names, *((name, birth(0, "a")) for name in names[::2])), ARRIVAL_NS)
    for _ in range(2):
        (batch,), _ = desk.nodes.decode(
            columns(names, *((name, data(5.0)) for name in names[1::2])), ARRIVAL_NS
        )
        assert batch.n_samples == 200


def test_a_life():
    desk = Desk()
    found, rejects = desk.take(
        ("NBIRTH", birth(3, "load")), ("DBIRTH", birth(None, "t")), ("NDATA", data(2.5)), ("DDATA", data(3.5)),
        ("DDEATH", write_payload(2_500, 3, [])), ("DBIRTH", birth(None, "t", time_ms=2_600)), ("NDEATH", death(3)),
    )  # fmt: skip
    assert not rejects
    bad, dead_ns = Quality.BAD_COMMUNICATION, -(-ARRIVAL_NS // MS) * MS
    assert [one for one in found if one[0] == "g/n/node/load"] == [
        ("g/n/node/load", 1_000 * MS, 1.5, 0), ("g/n/node/load", 2_000 * MS, 2.5, 0), ("g/n/node/load", dead_ns, None, bad),
    ]  # fmt: skip
    assert [one[1:] for one in found if one[0] == "g/n/d/t"] == [
        (1_000 * MS, 1.5, 0), (2_000 * MS, 3.5, 0), (2_500 * MS, None, bad), (2_600 * MS, 1.5, 0), (dead_ns, None, bad),
    ]  # fmt: skip
    assert (desk.asked, desk.born) == ([], [NODE])


@pytest.mark.parametrize(
    ("born", "died", "is_dead"), [(1, 1, True), (2, 1, False), (2, None, True), (None, 1, True)]
)
def test_a_death_ends_the_birth_that_it_names(born, died, is_dead):
    desk = Desk()
    desk.take(("NBIRTH", birth(born, "a")))
    found, _ = desk.take(("NDEATH", death(died)))
    assert bool(found) == is_dead
    assert desk.nodes.nodes[NODE].own.is_online != is_dead
    assert desk.nodes.n_old_deaths == (not is_dead)
    found, _ = desk.take(("NDEATH", death(born)))
    assert bool(found) != is_dead, "nobody dies twice"


@pytest.mark.parametrize("time_ms", [None, 0, 2**62])
def test_a_device_that_has_no_good_time_of_its_death_has_that_of_arrival(time_ms):
    desk = Desk()
    desk.take(("NBIRTH", birth(0)), ("DBIRTH", birth(None, "t")))
    found, _ = desk.take(("DDEATH", write_payload(time_ms, 2, [])))
    assert [one[1] for one in found] == [-(-ARRIVAL_NS // MS) * MS]


def test_whose_birth_is_missing_is_asked_at_each_message_until_it_is_born():
    desk = Desk()
    _, rejects = desk.take(("NDATA", data(1.0)), ("DDATA", data(1.0)))
    assert [str(r.code) for r in rejects] == ["unknown-tag"] * 2
    assert desk.asked == [NODE]
    desk.take(("DBIRTH", birth(None, "t")))
    assert desk.asked == [NODE] * 2, "a device without its node"
    desk.take(("NBIRTH", birth(0, "a")))
    assert (desk.asked, desk.born) == ([NODE] * 2, [NODE])
    desk.take(("NDATA", data(1.0)))
    desk.take(("NDATA", data(1.0, 2.0)))
    assert desk.asked == [NODE] * 3, "a metric that its birth does not know"
    desk.take(("NDATA", data(1.0)))
    assert desk.asked == [NODE] * 4
    desk.take(("NBIRTH", birth(0, "a", "b")), ("NDATA", data(1.0, 2.0)))
    assert desk.asked == [NODE] * 4
    desk.take(("NDEATH", death(0)))
    found, _ = desk.take(("NDATA", data(1.0)))
    assert (len(found), desk.asked) == (1, [NODE] * 5), "data of the dead"


def test_in_one_slice_a_birth_serves_what_comes_after_it_only():
    desk = Desk()
    found, rejects = desk.take(("NDATA", data(1.0)), ("NBIRTH", birth(0, "a")), ("NDATA", data(2.0)))
    assert [one[2] for one in found] == [1.5, 2.0]
    assert len(rejects) == 1
    assert desk.asked == [], "it was born in the meantime"


def test_missing_messages_make_a_node_be_asked():
    desk = Desk()
    desk.nodes.missed(NODE)
    assert desk.asked == []
    desk.take(("NBIRTH", birth(0, "a")))
    desk.nodes.missed(NODE)
    desk.take(("NDATA", data(1.0)))
    assert desk.asked == [NODE] * 2


def test_a_new_life_ends_the_old_one_whose_death_was_not_heard():
    desk = Desk()
    desk.take(("NBIRTH", birth(0, "a")), ("DBIRTH", birth(None, "t")))
    found, _ = desk.take(("NBIRTH", birth(0, "a", time_ms=2_000)))
    assert [one[0] for one in found] == ["g/n/node/a"], "the same life"
    found, _ = desk.take(("NBIRTH", birth(1, "a", time_ms=3_000)), ("DDATA", data(2.0)))
    assert [one[1:] for one in found if one[0] == "g/n/d/t"] == [
        (3_000 * MS, None, Quality.BAD_COMMUNICATION), (2_000 * MS, 2.0, 0),
    ]  # fmt: skip
    assert not desk.nodes.nodes[NODE].devices["d"].is_online


def test_a_death_that_was_not_taken_comes_again():
    desk = Desk()
    desk.take(("NBIRTH", birth(0, "a")), ("DBIRTH", birth(None, "t")))
    first, _ = desk.take(("NDEATH", death(0)))
    desk.nodes.undo()
    again, _ = desk.take(("NDEATH", death(0)))
    assert (first, len(again)) == (again, 2)
    assert desk.take(("NDEATH", death(0)))[0] == []
    desk.nodes.undo()
    assert desk.take(("NDEATH", death(0)))[0] == []


@pytest.mark.parametrize("dead", [[("NDEATH", death(0))], []])
def test_a_new_life_that_was_not_taken_ends_the_old_one_again(dead):
    desk = Desk()
    desk.take(("NBIRTH", birth(0, "a")), ("DBIRTH", birth(None, "t")))
    slice_ = [*dead, ("NBIRTH", birth(1, "a", time_ms=3_000))]
    first, _ = desk.take(*slice_)
    assert any(path == "g/n/d/t" and quality == Quality.BAD_COMMUNICATION for path, _, _, quality in first)
    for _ in range(2):
        desk.nodes.undo()
        assert desk.take(*slice_)[0] == first
    assert not desk.nodes.nodes[NODE].devices["d"].is_online


def test_a_new_life_that_does_not_come_again_can_end():
    desk = Desk()
    desk.take(("NBIRTH", birth(0, "a")))
    desk.take(("NBIRTH", birth(1, "a")))
    desk.nodes.undo()
    assert desk.take(("NDEATH", death(1)))[0]
    assert not desk.nodes.nodes[NODE].own.is_online


def test_what_is_refused_as_a_whole(monkeypatch, caplog):
    desk = Desk(max_payload="100B", max_devices=2, ids={"node": "n{x}"})
    _, rejects = desk.take(
        ("spBv1.0/g/NDATA/n1", b"x" * 101), ("a/b", b""), ("spBv1.0/g/NBIRTH/n1", b"\xff"), ("spBv1.0/g/NDATA/m", b""),
        ("spBv1.0/g/DDATA/n1/a", b""), ("spBv1.0/g/DDATA/n1/b", b""), ("spBv1.0/g/NDATA/n2", b""),
    )  # fmt: skip
    assert [(str(r.code), r.source) for r in rejects] == [
        ("too-large", "spBv1.0/g/NDATA/n1"), ("unknown-topic", "a/b"), ("malformed", "spBv1.0/g/NBIRTH/n1"),
        ("bad-path", "spBv1.0/g/NDATA/m"), ("unknown-topic", "spBv1.0/g/DDATA/n1/b"),
        ("unknown-topic", "spBv1.0/g/NDATA/n2"),
    ]  # fmt: skip
    assert "more than max_devices = 2" in rejects[-1].detail
    monkeypatch.setattr(nodes_module, "read_payload", lambda data: 1 / 0)
    for _ in range(2):
        _, (reject,) = desk.take(("spBv1.0/g/NBIRTH/n1", b""))
        assert (str(reject.code), "ZeroDivisionError" in reject.detail) == ("internal", True)
    assert caplog.text.count("a decoder failed") == 1
    assert (
        desk.nodes.defect(TopicMessage("t", b"x", 1), ValueError("y")).detail == "its frames were refused: y"
    )


def test_routes_are_bounded(monkeypatch):
    monkeypatch.setattr(nodes_module, "N_ROUTES_MAX", 1)
    desk = Desk()
    desk.take(("NBIRTH", birth(0, "a")), ("NDATA", data(1.0)), ("NBIRTH", birth(0, "a")))
    assert len(desk.nodes._routes) == 1


# --- the adapter -------------------------------------------------------------------------------------


def adapter_of(**config):
    settings = validate_section(SparkplugConfig, {"url": "mqtt://127.0.0.1:1", **config}, "adapters.p")
    return SparkplugAdapter.from_config("p", settings, {}, PlantFacts())


def reject_of(raw, topic="spBv1.0/g/NDATA/n"):
    return Reject(RejectCode.UNKNOWN_TAG, "p", topic, "why", raw, ARRIVAL_NS)


def test_refused_input_is_decoded_again_by_what_is_known_by_then():
    adapter, directory = adapter_of(), SensorDirectory()
    named = write_payload(None, None, [SparkplugValue(2.5, DataType.DOUBLE, "a", 7)])
    (batch,), rejects = adapter.redecode(reject_of(named), directory)
    assert not rejects
    assert [(r.path, r.ts_ns, r.value) for r in readings(batch, directory)] == [
        ("g/n/node/a", ARRIVAL_NS, 2.5)
    ]
    batches, (reject,) = adapter.redecode(reject_of(data(1.0)), directory)
    assert (batches, str(reject.code)) == ([], "unknown-tag")
    _, (reject,) = adapter.redecode(reject_of(named, "a/b"), directory)
    assert str(reject.code) == "unknown-topic"
    _, (reject,) = adapter.redecode(reject_of(bytes(MAX_RAW_BYTES)), directory)
    assert reject.detail == "only its first 1,048,576 bytes were kept"


async def test_diagnostics_name_nodes_and_devices_up_to_a_bound(monkeypatch):
    adapter = adapter_of(reconnect_first="50ms")
    await adapter.start(RecordingSink())
    try:
        run = adapter._running
        messages = [
            ("NBIRTH", birth(0, "a")),
            ("NDATA", data(1.0)),
            ("DDATA", data(1.0)),
            ("DBIRTH", birth(None, "b")),
            ("DDEATH", death(None)),
        ]
        topics = {"N": "n", "D": "n/d"}
        run.nodes.decode(
            [TopicMessage(f"spBv1.0/g/{k}/{topics[k[0]]}", p, ARRIVAL_NS) for k, p in messages], ARRIVAL_NS
        )
        run.nodes.decode([TopicMessage("spBv1.0/g/NDATA/other", data(1.0), ARRIVAL_NS)], ARRIVAL_NS)
        await until(lambda: "refused" in adapter.diagnostics().reason, "there is no broker")
        found = {
            d.path: (d.state.value, d.last_good_ns, d.n_requests, d.reason)
            for d in adapter.diagnostics().devices[1:]
        }
        assert found == {
            "g/n": ("connected", ARRIVAL_NS, 2, ""),
            "g/n/d": ("backoff", ARRIVAL_NS, 3, "it has died; its metrics are bad until its next birth"),
            "g/other": ("starting", ARRIVAL_NS, 1, "its birth has not been heard"),
        }  # fmt: skip
        assert run.nodes.nodes["g", "other"].own.since_ns == NO_TIME
        assert run.nodes.n_transient == 0
        monkeypatch.setattr(adapter_module, "_SHOWN_DEVICES_MAX", 2)
        assert len(adapter.diagnostics().devices) == 3
    finally:
        await adapter.stop()
        await adapter.stop()
