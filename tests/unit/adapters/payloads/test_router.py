"""Messages of many devices: groups, bounds, restarts, rules."""

import logging

import numpy as np
import pytest

from headrace.adapters.payloads import keys, router, words
from headrace.adapters.payloads.base import MessageColumns, RuleSettings, TopicMessage
from headrace.adapters.payloads.columns import CodedTopics, joined
from headrace.adapters.payloads.json import FieldsDecoder
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules, own_path, written_address
from headrace.adapters.payloads.topics import TopicDialect
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.frames import Shape
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory

LEVELS = ("site", "device", "signal")


class Bench:
    """A router with its directory, and a short way to feed it."""

    def __init__(self, topics=None, directory=None, n_devices_max=1_000, **rule):
        self.directory = SensorDirectory() if directory is None else directory
        topics = topics or {
            "plant/{device}": {"path": "leon/{device}/{key}", "time": "ts", "time_unit": "ns", **rule}
        }
        rules = compile_rules(
            {t: RuleSettings(**r) for t, r in topics.items()}, (), "UTC", "adapters.x.topics"
        )
        self.groups = DeviceGroups(self.directory, n_devices_max)
        self.router = MessageRouter("x", rules, self.groups)

    def feed(self, *messages):
        out = self.router.decode(
            [TopicMessage(t, p.encode(), i + 1) for i, (t, p) in enumerate(messages)], 99
        )
        for batch in out.batches:
            batch.check_columns()
            for slot in batch.slot.tolist():
                assert self.directory.layout(slot).dtype == batch.dtype
        return out

    def sensors(self):
        found = self.directory.find("**")
        return sorted(
            self.directory.sensor_path(s, c)
            for s, c in zip(found.slot.tolist(), found.column.tolist(), strict=True)
        )


def test_devices_of_one_kind_share_layouts_and_one_batch():
    bench = Bench()
    out = bench.feed(*[(f"plant/d{i % 3}", f'{{"ts": {i}, "a": {i}, "b": 0.5}}') for i in range(1, 31)])
    (batch,) = out.batches
    assert batch.shape is Shape.DENSE
    assert batch.values.tolist() == [[i, 0.5] for i in range(1, 31)]
    assert batch.ts_ns.tolist() == list(range(1, 31))
    assert batch.quality is None
    assert len(bench.directory.layouts) == 1
    assert bench.sensors() == sorted(f"leon/d{i}/{k}" for i in range(3) for k in "ab")
    assert bench.groups.n_sensors == 6


def test_value_types_are_parts():
    bench = Bench(units={"t": "degC"})
    out = bench.feed(("plant/d", '{"ts": 1, "t": 1.5, "on": true, "s": "up", "n": 9007199254740993}'))
    assert {b.dtype: b.values.tolist() for b in out.batches} == {
        "f64": [[1.5]], "u8": [[1]], "u32": [[0]], "i64": [[9007199254740993]],
    }  # fmt: skip
    columns = {
        part: bench.directory.layout(bench.directory.slot("leon/d", part)).columns[0]
        for part in ("f64", "u8", "u32")
    }
    assert columns["f64"] == Column("t", unit="degC")
    assert columns["u8"] == Column("on", Kind.DISCRETE, labels=("false", "true"))
    assert columns["u32"] == Column("s", Kind.DISCRETE)
    assert next(b for b in out.batches if b.dtype == "u32").dictionary == ("up",)


def test_of_known_columns_only_units_are_the_settings_to_change():
    bench = Bench(units={"t": "degC", "p": "bar"})
    bench.feed(("plant/d", '{"ts": 1, "t": 1.5, "p": 2.5}'))
    scaled = Column("r", unit="V", scale=0.1, high=5.0)
    bench.directory.define("leon/d", Layout("u16", (scaled,)), "u16")
    again = Bench(directory=bench.directory, units={"t": "K"})
    again.feed(("plant/d", '{"ts": 2, "t": 1.5, "p": 2.5}'))
    parts = {part: bench.directory.layout(bench.directory.slot("leon/d", part)) for part in ("f64", "u16")}
    assert parts["f64"].columns == (Column("t", unit="K"), Column("p")), "it is said in the plant file alone"
    assert parts["u16"].columns == (scaled,), "another source says it"


def test_what_is_stored_as_it_comes_has_no_grid_of_an_earlier_configuration():
    directory = SensorDirectory()
    scaled = Column("t", unit="K", scale=0.1, low=0.0)
    for part in ("f64", "u16"):
        directory.define(f"leon/{part}", Layout(part, (scaled,)), part)
    for keeps, column in ((True, scaled), (False, Column("t", unit="K"))):
        groups = DeviceGroups(directory, owns_units=False, keeps_grids=keeps)
        for part in ("f64", "u16"):
            groups.group(f"leon/{part}", RuleSettings(path=""))
        assert directory.layout(directory.slot("leon/f64", "f64")).columns == (column,)
    assert directory.layout(directory.slot("leon/u16", "u16")).columns == (scaled,), (
        "it is none that messages fill"
    )


def test_tables_keep_units_that_they_do_not_give():
    directory = SensorDirectory()
    directory.define("leon/d", Layout("f64", (Column("t", unit="degC"), Column("p", unit="bar"))), "f64")
    groups = DeviceGroups(directory, owns_units=False)
    groups.group("leon/d", RuleSettings(path="", units={"t": "K"}))
    columns = directory.layout(directory.slot("leon/d", "f64")).columns
    assert [c.unit for c in columns] == ["K", "bar"]


def test_missing_keys_are_absent_and_few_of_many_are_sparse():
    bench = Bench()
    everything = ", ".join(f'"k{i}": {i}' for i in range(10))
    bench.feed(("plant/d", f'{{"ts": 1, {everything}}}'))
    (dense,) = bench.feed(
        ("plant/d", f'{{"ts": 2, {everything}}}'), ("plant/d", '{"ts": 3, "k7": 70, "k2": 20}')
    ).batches
    assert dense.shape is Shape.DENSE
    assert dense.n_samples == 12
    assert dense.quality[1].tolist() == [
        Quality.ABSENT,
        Quality.ABSENT,
        0,
        *[Quality.ABSENT] * 4,
        0,
        *[Quality.ABSENT] * 2,
    ]
    assert dense.values[1].tolist() == [0, 0, 20, 0, 0, 0, 0, 70, 0, 0]
    (sparse,) = bench.feed(
        ("plant/d", '{"ts": 4, "k7": 71, "k2": 21}'), ("plant/d", '{"ts": 5, "k9": 90}')
    ).batches
    assert sparse.shape is Shape.SPARSE
    assert sparse.start.tolist() == [0, 2, 3]
    assert sparse.column.tolist() == [2, 7, 9]
    assert sparse.values.tolist() == [21, 71, 90]
    assert sparse.quality is None


def test_what_is_refused_in_a_sparse_frame_is_absent():
    bench = Bench()
    bench.feed(("plant/d", "{" + ", ".join(f'"k{i}": {i}' for i in range(9)) + "}"))
    out = bench.feed(("plant/d", '{"k1": 9007199254740993, "k2": 1}'))
    assert out.batches[0].quality.tolist() == [Quality.ABSENT, 0]
    assert [r.code for r in out.rejects] == ["wrong-type"]
    assert "declare the key as i64" in out.rejects[0].detail


def test_frames_of_a_device_keep_their_order_when_its_keys_change():
    bench = Bench()
    out = bench.feed(
        ("plant/a", '{"ts": 1, "x": 1, "y": 1}'),
        ("plant/b", '{"ts": 2, "x": 2}'),
        ("plant/b", '{"ts": 3, "x": 3, "y": 3}'),
        ("plant/b", '{"ts": 4, "x": 4}'),
    )
    slots = {int(s): bench.directory.paths[int(s)] for b in out.batches for s in b.slot}
    of_b = [
        t
        for b in out.batches
        for s, t in zip(b.slot.tolist(), b.ts_ns.tolist(), strict=True)
        if slots[s] == "leon/b"
    ]
    assert of_b == [2, 3, 4]


def test_a_message_without_time_has_that_of_its_arrival():
    bench = Bench()
    (batch,) = bench.feed(
        ("plant/d", '{"a": 1}'), ("plant/d", '{"a": 2}'), ("plant/d", '{"ts": null, "a": 3}')
    ).batches
    assert batch.ts_ns.tolist() == [1, 2, 3]
    bench.router.decode([TopicMessage("plant/d", b'{"a": 4}', 2)] * 2, 99)
    out = bench.router.decode([TopicMessage("plant/d", b'[{"a": 5}, {"a": 6}]', 2)], 99)
    assert out.batches[0].ts_ns.tolist() == [6, 7], "never the same time twice for one device"


def test_what_a_device_sent_is_known_after_a_restart():
    first = Bench()
    first.feed(("plant/d", '{"ts": 1, "a": 1, "s": "x"}'), ("plant/d", '{"ts": 1, "b": 1}'))
    again = Bench(directory=first.directory)
    slots = first.directory.n_slots
    out = again.feed(("plant/d", '{"ts": 2, "b": 2, "a": true, "s": 5}'))
    assert [r.code for r in out.rejects] == ["wrong-type", "wrong-type"]
    assert out.batches[0].quality.tolist() == [[Quality.ABSENT, 0]]
    assert first.directory.n_slots == slots


def test_types_can_be_given():
    bench = Bench(types={"n": "i64", "f": "f64", "b": "bool", "s": "string"})
    out = bench.feed(("plant/d", '{"ts": 1, "n": 5, "f": 9007199254740993, "b": false, "s": "x"}'))
    assert sorted(b.dtype for b in out.batches) == ["f64", "i64", "u32", "u8"]
    assert [r.code for r in out.rejects] == ["wrong-type"]


def test_a_sensor_of_another_group_is_refused_every_time():
    directory = SensorDirectory()
    directory.define("leon/d", Layout("f32", (Column("a"),)), "own")
    bench = Bench(directory=directory)
    for _ in range(2):
        out = bench.feed(("plant/d", '{"ts": 1, "a": 1, "b": 2}'))
        assert [(r.code, r.n_samples) for r in out.rejects] == [("bad-path", 2)]
        assert not out.batches


def test_a_sensor_that_another_source_fills_is_refused():
    """History imported as f32, say: casting would round, so it is told."""
    directory = SensorDirectory()
    directory.define("leon/d", Layout("f32", (Column("a"),)), "f32")
    out = Bench(directory=directory).feed(
        ("plant/d", '{"ts": 1, "a": 1.1, "b": 2}'), ("plant/d", '{"ts": 1, "a": null}')
    )
    assert [r.detail for r in out.rejects] == [
        "key 'a' has a number, expected nothing from here: another source fills it with f32"
    ]
    assert out.batches[0].values.tolist() == [[2.0]]


def test_devices_are_bounded():
    bench = Bench(n_devices_max=2)
    out = bench.feed(*[(f"plant/d{i}", '{"ts": 1, "a": 1}') for i in range(4)])
    assert [r.detail for r in out.rejects] == ["more than 2 devices"] * 2
    assert {r.code for r in out.rejects} == {"unknown-topic"}
    assert out.batches[0].n_frames == 2


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(keys, "N_PLANS_MAX", 2)
    monkeypatch.setattr(router, "N_ROUTES_MAX", 2)
    bench = Bench()
    bench.feed(("plant/d", '{"ts": 1, "a": 1, "b": 1, "c": 1, "d": 1}'))
    for i in range(8):
        body = ", ".join(f'"{k}": {i}' for j, k in enumerate("abcd") if (i + 1) >> j & 1)
        out = bench.feed(
            (f"plant/d{i % 4}", f'{{"ts": {i + 2}, {body}}}'), ("plant/d", f'{{"ts": {i + 2}, {body}}}')
        )
        assert not out.rejects
        assert sum(b.n_samples for b in out.batches) == 2 * (i + 1).bit_count()
    assert len(bench.router._routes) <= 2


def test_texts_keep_their_codes_until_there_are_too_many(monkeypatch):
    monkeypatch.setattr(words, "N_WORDS_MAX", 3)
    bench = Bench()

    def codes(*texts):
        (batch,) = bench.feed(*[("plant/d", f'{{"ts": 1, "s": "{t}"}}') for t in texts]).batches
        assert [batch.dictionary[c] for c in batch.values[:, 0].tolist()] == list(texts)
        return batch.values[:, 0].tolist()

    assert codes("a", "b", "a") == [0, 1, 0]
    assert codes("c", "b") == [2, 1]
    assert codes("d", "c") == [0, 1], "begins anew"
    assert codes("e", "f", "g", "h") == [0, 1, 2, 3], "one batch may have more"


def test_a_text_may_be_empty_and_is_bounded():
    bench = Bench()
    out = bench.feed(("plant/d", f'{{"ts": 1, "s": "{"x" * 2_000}"}}'))
    assert out.batches[0].quality.tolist() == [[Quality.ABSENT]]
    assert out.batches[0].dictionary == ("",)
    assert "longer than 1,024 characters" in out.rejects[0].detail


def test_two_texts_in_an_order_of_their_own():
    bench = Bench()
    bench.feed(("plant/d", '{"ts": 1, "s": "a", "t": "b", "n": 1}'))
    (words, _) = bench.feed(("plant/d", '{"ts": 2, "t": "c", "n": 1, "s": "d"}')).batches
    assert [words.dictionary[c] for c in words.values[0].tolist()] == ["d", "c"]


def test_lists_of_plain_objects_go_by_columns():
    bench = Bench()
    out = bench.feed(
        ("plant/d", '[{"ts": 1, "a": 1, "b": null}, {"ts": 2, "a": 2.5, "b": 7}, {"ts": 3, "a": 3, "b": 8}]')
    )
    assert sum(b.n_samples for b in out.batches) == 5
    out = bench.feed(("plant/d", '[{"a": 1}, {"a": 2}]'))
    assert out.batches[0].values[:, 0].tolist() == [1, 2]
    out = bench.feed(("plant/d", '[{"ts": 1, "a": {"x": 1}}, {"ts": 2, "a": {"x": 2}}]'))
    assert out.batches[0].n_samples == 2
    out = bench.feed(("plant/d", '[{"ts": "x", "a": 1}, {"ts": 2, "a": 2}]'))
    assert [r.code for r in out.rejects] == ["bad-time"]
    assert out.batches[0].values.tolist() == [2]
    out = bench.feed(
        ("plant/d", '[{"ts": 1}, {"ts": 2}]'), ("plant/d", "[{}, {}]"), ("plant/d", '[{"": 1}, {"": 2}]')
    )
    assert [r.code for r in out.rejects] == ["malformed"] * 4 + ["unknown-tag", "malformed"] * 2


def test_what_was_planned_once_serves_the_next_list():
    bench = Bench()
    for _ in range(2):
        (batch,) = bench.feed(("plant/d", '[{"ts": 1, "a": 1}, {"ts": 2, "a": 2}]')).batches
        assert batch.values.tolist() == [[1], [2]]


def test_lines_with_and_without_a_time():
    bench = Bench(values="csv", columns=("ts", "a"))
    (batch,) = bench.feed(("plant/d", "5,1\n,2\n7,3\n")).batches
    assert batch.ts_ns.tolist() == [5, 1, 7]
    out = bench.feed(("plant/d", "x,1\ny,2"))
    assert [r.code for r in out.rejects] == ["bad-time"] * 2
    assert not out.batches


def test_an_integer_beyond_all_floats_is_refused():
    out = Bench().feed(("plant/d", '{"ts": 1, "a": 1}'), ("plant/d", f'{{"ts": 2, "a": 1{"0" * 400}}}'))
    assert [r.code for r in out.rejects] == ["wrong-type"]
    assert out.batches[0].values.tolist() == [[1.0], [0.0]]
    assert out.batches[0].quality.tolist() == [[0], [Quality.ABSENT]]


def test_without_a_time_key_objects_may_be_alike_too():
    bench = Bench(time=None)
    (batch,) = bench.feed(("plant/d", '[{"a": 1}, {"a": 2}]')).batches
    assert batch.ts_ns.tolist() == [1, 2]


def test_refused_keys_of_a_list_count_for_every_row():
    bench = Bench(max_keys=1)
    out = bench.feed(("plant/d", '[{"ts": 1, "a": 1, "b": 1}, {"ts": 2, "a": 2, "b": 2}]'))
    assert [(r.code, r.n_samples) for r in out.rejects] == [("unknown-tag", 2)]
    assert out.batches[0].n_samples == 2


def test_objects_deeper_than_the_bound_are_refused():
    bench = Bench()
    deep = '{"a": ' * 20 + "1" + "}" * 20
    out = bench.feed(("plant/d", deep), ("plant/d", "[" * 5_000))
    assert [r.code for r in out.rejects] == ["unknown-tag", "malformed", "malformed"]


def test_a_key_that_is_there_twice_is_refused():
    out = Bench().feed(("plant/d", '{"ts": 1, "a.b": 1, "a": {"b": 2}}'))
    assert [r.code for r in out.rejects] == ["unknown-tag"]
    assert out.batches[0].values.tolist() == [[1.0]]


def test_too_many_values_in_one_object_are_refused():
    body = ", ".join(f'"k{i}": 1' for i in range(5_000))
    out = Bench(max_keys=65_535).feed(("plant/d", f'{{"ts": 1, {body}}}'), ("plant/d", f"[{{{body}}}]"))
    assert [(r.code, r.n_samples) for r in out.rejects] == [("too-large", 5_000)] * 2


def test_a_time_at_the_top_serves_the_objects_below():
    bench = Bench(root="values")
    out = bench.feed(("plant/d", '{"ts": 7, "values": [{"a": 1}, {"a": 2, "ts": 9}]}'))
    assert out.batches[0].ts_ns.tolist() == [7, 9]
    out = bench.feed(("plant/d", '{"ts": 7, "other": 1}'))
    assert "expected an object at 'values'" in out.rejects[0].detail


def test_rules_of_one_device_share_its_group():
    bench = Bench(
        {
            "data/{device}": {"path": "leon/{device}/{key}"},
            "state/{device}": {"path": "leon/{device}/{key}", "values": "csv", "columns": ("on",)},
        }
    )
    out = bench.feed(("data/d", '{"a": 1}'), ("state/d", "true"), ("data/d", '{"a": 2}'))
    assert [(b.dtype, b.values.tolist()) for b in out.batches] == [("u8", [[1]]), ("f64", [[1], [2]])]
    assert bench.sensors() == ["leon/d/a", "leon/d/on"]


def test_a_decoder_that_fails_is_an_internal_reject_and_told_once(caplog, monkeypatch):
    bench = Bench()

    def fail(*arguments):
        raise RuntimeError("oops")

    monkeypatch.setattr(bench.router._rules[0].decoder, "read", fail, raising=False)
    with caplog.at_level(logging.ERROR):
        out = bench.feed(("plant/d", "{}"), ("plant/d", "{}"))
    assert [(r.code, r.detail) for r in out.rejects] == [
        ("internal", "decoder failed: RuntimeError('oops')")
    ] * 2
    assert len(caplog.records) == 1


def test_levels_of_a_rest_are_counted():
    bench = Bench({"plant/#": {"path": "leon/{rest}/{key}"}})
    out = bench.feed(("plant/d", '{"a": 1}'), ("plant/d/e", '{"a": 1}'))
    assert [r.code for r in out.rejects] == ["bad-path"]
    assert bench.sensors() == ["leon/d/a"]


def test_rejects_keep_the_first_mib():
    out = Bench().feed(("plant/d", "x" * 2_000_000), ("plant/d", "x" * 10_000))
    assert [reject.raw for reject in out.rejects] == [b"x" * (1 << 20), b"x" * 10_000]


@pytest.mark.parametrize(
    ("topics", "where", "why"),
    [
        ({}, "adapters.x.topics", "there is no topic"),
        ({"a/{b": {"path": "l/d/{key}"}}, 'adapters.x.topics."a/{b"', "is not a literal level"),
        ({"a": {"path": "l/{d}/{key}"}}, "adapters.x.topics.a", "names {d}; the topic has none"),
        ({"a": {"path": "l/{key}"}}, "adapters.x.topics.a", "has 2 levels, expected 3: site/device/signal"),
        ({"a": {"path": "l/*/{key}"}}, "adapters.x.topics.a", "can't name a sensor"),
        ({"a": {"path": "l/d/{key}", "values": "xml"}}, "adapters.x.topics.a", "unknown payload 'xml'"),
        ({"a": {"path": "l/d/s", "values": "number", "time": "ts"}}, "adapters.x.topics.a", "has no time"),
        ({"a": {"path": "l/d/{key}", "values": "csv", "columns": ("a", "a")}}, "adapters.x.topics.a", "a name twice"),
        ({"a": {"path": "l/d/{key}", "values": "csv", "columns": ("a",), "time": "t"}}, "adapters.x.topics.a", "no column 't'"),
        ({"a": {"path": "l/d/{key}", "values": "csv", "columns": ("t",), "time": "t"}}, "adapters.x.topics.a", "no column of values"),
        ({"a/+": {"path": "l/d/{key}"}, "a/{x}": {"path": "l/{x}/{key}"}}, "adapters.x.topics", "match the same"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be(topics, where, why):
    with pytest.raises(ConfigError) as e:
        compile_rules({t: RuleSettings(**r) for t, r in topics.items()}, LEVELS, "UTC", "adapters.x.topics")
    assert e.value.where == where
    assert why in e.value.message


def test_a_million_values_need_no_memory_of_their_messages():
    """What a router keeps depends on devices and keys, not on messages."""
    bench = Bench()
    bench.feed(("plant/d", '{"ts": 1, "a": 1}'))
    for i in range(50):
        bench.feed(*[("plant/d", f'{{"ts": {i * 20 + j}, "a": {j}}}') for j in range(20)])
    assert not bench.router._rows._buckets
    assert len(bench.router._groups._by_path["leon/d"].table.by_type) <= 2  # 1 and 0.5
    assert np.isfinite(bench.groups.n_sensors)


def test_a_list_is_not_read_on_behind_a_thousand_mistakes():
    bench = Bench()
    out = bench.feed(("plant/d", "[" + "1," * 1_500 + '{"ts": 1, "a": 2}]'))
    assert not out.batches
    assert sum(r.n_samples for r in out.rejects) == 1_501
    out = bench.feed(("plant/d", "[" + "1," * 1_000 + "1]"))
    assert sum(r.n_samples for r in out.rejects) == 1_001


# --- keys, times and places of messages ----------------------------------------------------------------


def keyed(path="l/{x}/{message_key}/{key}", **rule):
    directory = SensorDirectory()
    dialect = TopicDialect(".", has_keys=True)
    rules = compile_rules({"t.{x}": RuleSettings(path=path, **rule)}, (), "UTC", "t", dialect)
    return directory, MessageRouter("x", rules, DeviceGroups(directory))


def message(payload, key=b"k", time_ns=5, topic="t.a", place=(0, 1)):
    return TopicMessage(topic, payload, 100, time_ns, key, place)


def test_the_key_of_a_message_may_name_its_device(monkeypatch):
    directory, one = keyed()
    out = one.decode([message(b'{"v": 1}', key) for key in (b"k", b"m", b"k")], 7)
    assert {directory.paths[slot] for batch in out.batches for slot in batch.slot.tolist()} == {
        "l/a/k",
        "l/a/m",
    }
    assert sum(batch.n_frames for batch in out.batches) == 3
    rejects = one.decode([message(b'{"v": 1}', key) for key in (None, b"\xff", b"a/b", b"*")], 7).rejects
    assert [(str(r.code), r.source) for r in rejects] == [
        ("bad-path", "t.a:0:1"), ("bad-path", "t.a:0:1"), ("bad-path", "t.a:0:1:a/b"), ("bad-path", "t.a:0:1:*"),
    ]  # fmt: skip
    assert "has no key, which its path names {message_key}" in rejects[0].detail
    monkeypatch.setattr(router, "N_ROUTES_MAX", 2)
    for number in range(5):
        assert not one.decode([message(b'{"v": 1}', b"n%d" % number)], 7).rejects
    assert len(one._routes) <= 1


def test_a_key_too_long_to_be_shown_is_left_out():
    assert message(b"", b"x" * 300).source == "t.a:0:1"
    assert TopicMessage("t", b"", 1).source == "t"


def test_a_message_gives_its_time_to_what_has_none():
    _, one = keyed(path="l/{x}/{key}")
    payloads = [b'{"v": 1}', b'[{"v": 2}, {"v": 3}]', b'[{"v": 4}, {"w": 5}, {"v": 6}]']
    messages = [message(payload, time_ns=1_000 * i) for i, payload in enumerate(payloads, 1)]
    out = one.decode(messages, 7)
    times = sorted({t for batch in out.batches for t in batch.ts_ns.tolist()})
    assert times == [1_000, 2_000, 2_001, 3_000, 3_001, 3_002]
    again = one.decode([messages[1]], 7)
    assert again.batches[0].ts_ns.tolist() == [2_000, 2_001], "whenever it comes"
    (reject,) = one.decode([message(b"junk")], 7).rejects
    assert reject.arrival_ns == 5, "what samples without a time would have"


def test_refused_messages_that_came_at_once_get_times_of_their_own():
    _, one = keyed(path="l/{x}/{key}")
    found = one.decode([message(payload) for payload in (b"junk", b"more", b"junk")], 7).rejects
    assert [(r.raw, r.arrival_ns) for r in found] == [(b"junk", 5), (b"more", 6), (b"junk", 5)]


class Failing:
    has_keys, has_places = True, False

    def __init__(self, settings, times):
        pass

    def reader(self, origin, groups, path):
        return self

    def read(self, messages):
        raise ValueError("a defect")


def test_a_reader_that_fails_costs_its_messages_alone(monkeypatch, caplog):
    monkeypatch.setattr(router.PAYLOADS, "load", lambda name: Failing if name == "failing" else FieldsDecoder)
    rules = compile_rules(
        {"f/{x}": RuleSettings(path="l/{x}/{key}", values="failing"), "g/{x}": RuleSettings(path="l/{x}/{key}")},
        (), "UTC", "t",
    )  # fmt: skip
    one = MessageRouter("x", rules, DeviceGroups(SensorDirectory()))
    messages = [TopicMessage(t, b'{"v": 1}', 1) for t in ("f/a", "g/a", "f/b")]
    out = one.decode(messages, 7)
    assert [batch.n_frames for batch in out.batches] == [1]
    assert [(str(r.code), r.source) for r in out.rejects] == [("internal", "f/a"), ("internal", "f/b")]
    assert caplog.text.count("a decoder failed") == 1
    monkeypatch.setattr(router, "N_READERS_MAX", 1)
    one.decode([TopicMessage("f/c", b"", 1)], 7)
    assert len(one._readers) == 1


def test_messages_of_a_key_are_read_alone_where_their_format_is():
    directory, one = keyed(values="csv", columns=("v",))
    for _ in range(2):
        (batch,) = one.decode([message(b"1"), message(b"2")], 7).batches
        assert batch.values.tolist() == [[1.0], [2.0]]
    assert directory.paths[0] == "l/a/k"


# --- messages that are read together -------------------------------------------------------------------


def test_messages_of_known_shape_get_the_time_that_their_protocol_gives():
    """The same as those that are read one by one."""
    _, one = keyed()
    plain = message(b'[{"v": 1}, {"v": 2}]', time_ns=NO_TIME)
    own = message(b'[{"v": 3}, {"v": 4}, {"v": 5}]', time_ns=1_000)
    for arrival_ns in (100, 200, 300):
        some = [own, plain._replace(arrival_ns=arrival_ns), own._replace(time_ns=2_000)]
        (batch,) = one.decode(some, 7).batches
        assert batch.ts_ns.tolist() == [1_000, 1_001, 1_002, arrival_ns, arrival_ns + 1, 2_000, 2_001, 2_002]


def test_registers_have_the_time_that_their_protocol_gives():
    _, one = keyed(values="registers", registers={"r": "holding:0"})
    (batch,) = one.decode([message(b"\0\7", time_ns=ns) for ns in (8, NO_TIME, 9)], 7).batches
    assert batch.ts_ns.tolist() == [8, 100, 9]
    assert batch.values.tolist() == [[7]] * 3


def test_rows_and_columns_of_a_device_keep_their_order():
    topics = {
        "data/{device}": {"path": "leon/{device}/{key}"},
        "lines/{device}": {"path": "leon/{device}/{key}", "values": "csv", "columns": ("a",)},
    }
    bench = Bench(topics)
    for _ in range(3):
        out = bench.feed(("lines/d", "1"), ("data/d", '{"a": 2}'), ("data/d", '{"a": 3}'))
        assert [value for b in out.batches for value in b.values[:, 0].tolist()] == [1, 2, 3]


def test_a_reader_of_many_that_fails_leaves_them_to_be_read_alone(caplog, monkeypatch):
    bench = Bench()

    def fail(*arguments):
        raise RuntimeError("oops")

    monkeypatch.setattr(FieldsDecoder, "read_many", fail)
    for _ in range(2):
        out = bench.feed(("plant/d", '{"ts": 1, "a": 1}'), ("plant/d", "junk"))
        assert out.batches[0].values.tolist() == [[1.0]]
        assert [r.code for r in out.rejects] == ["malformed"]
    assert caplog.text.count("a decoder of many messages failed") == 1


def test_of_many_messages_of_new_devices_few_are_read_alone(monkeypatch):
    """A backlog begins with a slice of a thousand messages of which nothing is known."""
    alone = []
    read = FieldsDecoder.read
    monkeypatch.setattr(
        FieldsDecoder, "read", lambda self, *rest: (alone.append(rest[1].path), read(self, *rest))
    )
    bench = Bench()
    slice_of = [(f"plant/d{i % 3}", f'{{"ts": {i}, "a": {i}}}') for i in range(1, 100)]
    bench.feed(("plant/d1", "junk"), *slice_of)
    assert alone == ["leon/d1", "leon/d2", "leon/d0"], "the first says nothing: one of each"
    alone.clear()
    out = Bench().feed(*slice_of)
    assert alone == []
    times = {}
    for batch in out.batches:
        for slot, ts_ns in zip(batch.slot.tolist(), batch.ts_ns.tolist(), strict=True):
            times.setdefault(slot, []).append(ts_ns)
    assert sorted(times.values()) == [list(range(i, 100, 3)) for i in (1, 2, 3)]


def same_as_one_by_one(slice_of, **rule):
    """What comes in one slice gives the samples, rejects and sensors that it gives message by message."""
    together, alone = Bench(**rule), Bench(**rule)
    slices = [[together.feed(*slice_of)], [alone.feed(one) for one in slice_of]]
    found = []
    for bench, outs in zip((together, alone), slices, strict=True):
        samples = [
            (bench.directory.sensor_path(int(b.slot[r]), c), int(b.ts_ns[r]), b.values[r, c])
            for out in outs
            for b in out.batches
            for r in range(b.n_frames)
            for c in range(b.values.shape[1])
            if b.quality is None or b.quality[r, c] != Quality.ABSENT
        ]
        found.append(
            (sorted(samples), sorted(r.detail for out in outs for r in out.rejects), bench.sensors())
        )
    assert found[0] == found[1]
    return found[0]


def test_new_devices_of_one_slice_get_their_keys_together(monkeypatch):
    defined = []
    define = SensorDirectory.define_many
    monkeypatch.setattr(
        SensorDirectory, "define_many", lambda self, paths, *rest: (defined.append(len(paths)), define(self, paths, *rest))[1]
    )  # fmt: skip
    Bench().feed(*[(f"plant/d{i}", '{"ts": 1, "a": 1, "b": true, "c": null}') for i in range(20)])
    assert defined == [20, 20], "numbers and truth values"


def test_devices_get_the_keys_that_their_first_messages_have():
    plain = [(f"plant/d{i % 3}", f'{{"ts": {i + 1}, "a": {i}}}') for i in range(12)]
    samples, rejects, _ = same_as_one_by_one(
        [*plain, ("plant/d4", f'{{"ts": 50, "a": {2**60}}}'), ("plant/d4", '{"ts": 51, "a": 5}')]
    )
    assert ("leon/d4/a", 50, 2**60) in samples, (
        "an integer that is too long for the others' type was the first"
    )
    assert len(samples) == 14
    assert not rejects
    of_other_keys = [("plant/d5", '{"ts": 1, "b": 1}'), ("plant/d5", '{"ts": 2, "a": 1}')]
    assert len(same_as_one_by_one([*plain, *of_other_keys])[0]) == 14


@pytest.mark.parametrize(
    ("slice_of", "rule", "n_rejects"),
    [
        ([(f"plant/d{i % 2}", f'{{"ts": {i}, "a": 1, "b": 1}}') for i in range(1, 7)], {"max_keys": 1}, 6),
        ([(f"plant/d{i % 2}", f'{{"ts": {i}, "a+": 1, "b": 1}}') for i in range(1, 7)], {}, 6),
        ([(f"plant/d{i % 2}", f'{{"ts": {i}, "a": null}}') for i in range(1, 7)], {}, 0),
        ([(f"plant/{'x' * (896 + i % 2)}", f'{{"ts": {i}, "{"k" * 122}": 1}}') for i in range(1, 7)], {}, 3),
    ],
)  # fmt: skip
def test_where_not_all_can_have_their_keys_each_is_told_why(slice_of, rule, n_rejects):
    assert len(same_as_one_by_one(slice_of, **rule)[1]) == n_rejects


def test_sensors_are_bounded_where_many_devices_come_together():
    bench = Bench()
    bench.groups._n_sensors_max = 3
    out = bench.feed(*[(f"plant/d{i}", '{"ts": 1, "a": 1, "b": 1}') for i in range(2)])
    assert (len(bench.sensors()), [r.code for r in out.rejects]) == (3, ["unknown-tag"])


def test_messages_by_columns_are_the_same_and_are_made_where_somebody_asks():
    dialect = TopicDialect(".", has_keys=True)
    rules = {
        "p.{d}": RuleSettings(path="l/{d}/{key}", time="ts", time_unit="ns"),
        "q": RuleSettings(path="q/{message_key}/{key}"),
    }
    texts = [
        ("p.a", b'{"ts": 1, "a": 1}'),
        ("q", b'{"a": 2}'),
        ("p.b", b"junk"),
        ("p.a", b'{"ts": 2, "a": 3}'),
    ]
    some = [TopicMessage(topic, text, 5, 7 + i, b"k", (0, i)) for i, (topic, text) in enumerate(texts)]
    made = []

    def make(number):
        made.append(number)
        return some[number]

    def columns(which):
        return MessageColumns(
            *([some[i][at] for i in which] for at in (0, 1, 4)), lambda number: make(which[number])
        )

    found = []
    for slices in ([some[:2], some], [columns([0, 1]), columns([0, 1, 2, 3])]):
        one = MessageRouter(
            "x", compile_rules(rules, (), "UTC", "t", dialect), DeviceGroups(SensorDirectory())
        )
        outs = [one.decode(messages, 9) for messages in slices]
        found.append(
            [
                [(b.ts_ns.tolist(), b.values.tolist()) for b in out.batches]
                + [(r.source, r.detail) for r in out.rejects]
                for out in outs
            ]
        )
    assert found[0] == found[1]
    assert made == [0, 1, 2, 1], "what is read alone, refused, or has the time of its message"
    all_of = columns([0, 1, 2, 3])
    assert (list(all_of), all_of[-1], all_of[1:3], len(all_of)) == (some, some[3], some[1:3], 4)
    assert list(all_of.some([2, 0])) == [some[2], some[0]]
    with pytest.raises(IndexError):
        all_of[4]


def test_messages_of_a_format_that_is_read_alone_or_without_a_rule_are_told_of():
    bench = Bench({"a/{d}": {"path": "leon/{d}/{key}"}, "n/{d}": {"path": "leon/{d}/n", "values": "number"}})
    out = bench.feed(("a/x", '{"v": 1}'), ("n/x", "5"), ("none", "5"), ("a/x", '{"v": 1}'))
    assert sum(b.n_samples for b in out.batches) == 3
    assert [r.detail for r in out.rejects] == ["no topic rule matches"]
    out = bench.feed(("a/x", '{"v": 1}'), ("none", "5"), ("a/y", '{"v": 1}'))
    assert sum(b.n_samples for b in out.batches) == 2
    assert [r.detail for r in out.rejects] == ["no topic rule matches"]


def test_what_a_sensor_cannot_hold_is_refused_whenever_it_comes():
    bench = Bench()
    for number, value in enumerate(("1", '"x"', '"x"', '"x"')):
        out = bench.feed(("plant/d", f'{{"ts": {number}, "a": {value}}}'))
        assert [r.code for r in out.rejects] == ["wrong-type"] * (number > 0)


def test_keys_of_messages_that_name_no_device_are_remembered_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(router, "N_ROUTES_MAX", 3)
    rules = {
        "p": RuleSettings(path="l/p/{key}", time="ts", time_unit="ns"),
        "q": RuleSettings(path="l/{message_key}/{key}"),
    }
    one = MessageRouter(
        "x", compile_rules(rules, (), "UTC", "t", TopicDialect(".", True)), DeviceGroups(SensorDirectory())
    )
    for number in range(1, 9):
        slice_of = [TopicMessage("p", b'{"ts": %d, "a": 1}' % number, 5, key=b"%d" % number)]
        assert one.decode(slice_of, 5).batches[0].n_samples == 1
        assert one._n_codes <= 3
    slice_of = [TopicMessage("p", b'{"ts": %d, "a": 1}' % (i + 9), 5, key=b"%d" % i) for i in range(4)]
    assert sum(b.n_samples for b in one.decode(slice_of, 5).batches) == 4, "more than are remembered"


def test_messages_of_several_topics_with_keys_are_read_together():
    rules = {
        "p": RuleSettings(path="l/p{message_key}/{key}", time="ts", time_unit="ns"),
        "q": RuleSettings(path="l/q{message_key}/{key}", time="ts", time_unit="ns"),
    }
    directory = SensorDirectory()
    one = MessageRouter(
        "x", compile_rules(rules, (), "UTC", "t", TopicDialect(".", True)), DeviceGroups(directory)
    )
    for ts_ns in range(1, 4):
        slice_of = [
            TopicMessage(topic, b'{"ts": %d, "a": %d}' % (ts_ns, value), 5, key=key)
            for value, (topic, key) in enumerate((("p", b"1"), ("q", b"1"), ("p", b"2"), ("q", b"1")))
        ]
        found = {
            directory.paths[slot]: row[0]
            for batch in one.decode(slice_of, 5).batches
            for slot, row in zip(batch.slot.tolist(), batch.values.tolist(), strict=True)
        }
        assert found == {"l/p1": 0, "l/p2": 2, "l/q1": 3}
    assert one._n_codes == 3


def test_topics_with_numbers_are_looked_up_until_all_are_known():
    names, rules = ["a/x"], {"a/{d}": RuleSettings(path="l/{d}/{key}", time="ts", time_unit="ns")}
    one = MessageRouter("x", compile_rules(rules, (), "UTC", "t"), DeviceGroups(SensorDirectory()))

    def decode(*ids):
        texts = [b'{"ts": %d, "a": 1}' % (i + 1) for i in range(len(ids))]
        topics, payloads = CodedTopics(names, np.array(ids, np.int64)), joined(texts)

        def make(number):
            return TopicMessage(topics[number], texts[number], 5)

        times_ns = np.full(len(ids), 5, np.int64)
        found = one.decode(MessageColumns(topics, payloads, [None] * len(ids), make, times_ns), 5)
        return sum(b.n_samples for b in found.batches), len(found.rejects)

    assert [decode(0), decode(0, 0), decode(0)] == [(1, 0), (2, 0), (1, 0)]
    assert one._are_all_coded
    names += ["none", "a/y"]
    assert [decode(0, 1), decode(2, 0), decode(2, 0)] == [(1, 1), (2, 0), (2, 0)]
    assert not one._are_all_coded, "nobody takes one of them"


JSON_RULES = {
    "a/{device}": {"path": "leon/{device}/{key}", "time": "ts", "time_unit": "ns"},
    "b/{device}": {"path": "leon/{device}/x/{key}"},
}


def test_messages_of_two_rules_keep_their_order_where_some_are_read_alone():
    bench = Bench(JSON_RULES)
    for number in range(1, 4):
        out = bench.feed(
            ("a/d", f'{{"ts": {number}, "a": {number}}}'), ("a/e", f'{{"ts": 1, "k{number}": 1}}'), ("b/d", '{"b": 2}'),
        )  # fmt: skip
        assert sum(batch.n_samples for batch in out.batches) == 3
    assert not out.rejects


def test_many_large_messages_are_read_before_the_last_has_come(monkeypatch):
    monkeypatch.setattr(router, "PILE_BYTES", 40)
    monkeypatch.setattr(router, "TOGETHER_BYTES_MAX", 1)
    bench = Bench()
    out = bench.feed(*[("plant/d", f'{{"ts": {i}, "a": {i}}}') for i in range(1, 20)])
    assert sum(batch.n_samples for batch in out.batches) == 19


def test_a_decoder_of_many_that_fails_costs_nothing(monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("of many")

    bench = Bench()
    monkeypatch.setattr(type(bench.router._rules[0].decoder), "read_many", fail)
    for number in range(1, 4):
        out = bench.feed(("plant/d", f'{{"ts": {number}, "a": {number}}}'))
        assert (sum(batch.n_samples for batch in out.batches), out.rejects) == (1, [])
    assert caplog.text.count("a decoder of many messages failed") == 1


def test_the_scanner_of_json_can_be_made_ready_beforehand():
    router.warm_messages()


def two_rules(**rule):
    topics = {
        "a/{device}": {"path": "leon/{device}/{key}", "time": "ts", "time_unit": "ns", **rule},
        "b/{device}": {"path": "lugo/{device}/{key}", "time": "at", "time_unit": "ns"},
    }
    return Bench(topics)


def test_messages_of_two_rules_that_are_known_are_told_apart():
    bench = two_rules()
    assert not bench.feed().batches
    bench.feed(("a/d", '{"ts": 1, "x": 1}'), ("b/d", '{"at": 1, "x": 1}'))
    out = bench.feed(("b/d", '{"at": 2, "x": 5}'), ("a/d", '{"ts": 2, "x": 6}'), ("b/d", '{"at": 3, "x": 7}'))
    slots = {bench.directory.slot(f"{site}/d", "f64"): site for site in ("leon", "lugo")}
    found = [
        (slots[slot], ts_ns, value)
        for batch in out.batches
        for slot, ts_ns, (value,) in zip(
            batch.slot.tolist(), batch.ts_ns.tolist(), batch.values.tolist(), strict=True
        )
    ]
    assert found == [("leon", 2, 6.0), ("lugo", 2, 5.0), ("lugo", 3, 7.0)]
    only = bench.feed(("b/d", '{"at": 4, "x": 5}'))
    assert [batch.ts_ns.tolist() for batch in only.batches] == [[4]]
    mixed = bench.feed(("a/d", '{"ts": 5, "new": true}'), ("b/d", '{"at": 5, "x": 8}'))
    assert [batch.dtype for batch in mixed.batches] == ["u8", "f64"]


@pytest.mark.parametrize(
    ("pile_bytes", "together_bytes", "sizes", "n_refused"),
    [
        (300, 300, (0, 100, 200), 0),  # many, but all small
        (300, 50, (0, 100, 200), 0),  # too many for one pile, and not small
        (1_000, 50, (0, 200, 300), 0),  # neither small nor too many
        (1_000, 50, (0, 0, 600), 1),  # one is too large
    ],
)
def test_known_messages_of_any_size_are_taken_or_refused(
    monkeypatch, pile_bytes, together_bytes, sizes, n_refused
):
    monkeypatch.setattr(router, "PILE_BYTES", pile_bytes)
    monkeypatch.setattr(router, "TOGETHER_BYTES_MAX", together_bytes)
    bench = two_rules(max_payload="500B")
    bench.feed(("a/d", '{"ts": 1, "x": 1}'), ("b/d", '{"at": 1, "x": 1}'))
    out = bench.feed(*[("a/d", f'{{"ts": {i + 2}, "x": {i}}}' + " " * size) for i, size in enumerate(sizes)])
    assert sum(batch.n_samples for batch in out.batches) == len(sizes) - n_refused
    assert [reject.code for reject in out.rejects] == ["too-large"] * n_refused
    taken = [ts_ns for batch in out.batches for ts_ns in batch.ts_ns.tolist()]
    assert taken == sorted(taken)


def test_where_reading_them_together_fails_messages_are_read_one_by_one(monkeypatch, caplog):
    bench = Bench()
    bench.feed(("plant/d", '{"ts": 1, "a": 1}'))

    def fail(*given):
        raise RuntimeError("oops")

    monkeypatch.setattr("headrace.adapters.payloads.json_columns.ShapedRows.read", fail)
    for ts in (2, 4):
        out = bench.feed(("plant/d", f'{{"ts": {ts}, "a": 5}}'), ("plant/d", f'{{"ts": {ts + 1}, "a": 6}}'))
        assert [batch.values.tolist() for batch in out.batches] == [[[5.0], [6.0]]]
    assert caplog.text.count("a decoder of many messages failed") == 1


def test_a_type_that_is_declared_wrong_makes_no_sensor():
    """So that the rule can be put right, and what was refused meanwhile be taken."""
    bench, message = Bench(types={"a": "bool"}), ("plant/d", '{"ts": 5, "a": 1.5, "b": 2}')
    for _ in range(2):
        (reject,) = bench.feed(message).rejects
        assert (reject.code, reject.n_samples) == ("wrong-type", 1)
        assert reject.detail == "key 'a' has a number, expected true or false"
    assert bench.sensors() == ["leon/d/b"]
    right = Bench(directory=bench.directory)
    out = right.feed(message)
    assert not out.rejects
    assert right.sensors() == ["leon/d/a", "leon/d/b"]


def test_what_one_rule_refuses_another_may_take():
    """Devices of both begin with the same keys, none; what is remembered of these is not of one rule."""
    common = {"time": "ts", "time_unit": "ns"}
    bench = Bench(
        {
            "one/{device}": {"path": "leon/{device}/{key}", "max_keys": 1, **common},
            "two/{device}": {"path": "rio/{device}/{key}", **common},
        }
    )
    out = bench.feed(*[(f"{name}/d", '{"ts": 5, "a": 1, "b": 2}') for name in ("one", "two")])
    assert [(r.code, r.source) for r in out.rejects] == [("unknown-tag", "one/d")]
    assert bench.sensors() == ["leon/d/a", "rio/d/a", "rio/d/b"]


def test_addresses_of_a_table_of_tags_are_the_paths_that_rules_give():
    topics = {
        "plant/{device}": RuleSettings(path="leon/{device}/{key}"),
        "plant/{device}/{name}": RuleSettings(path="leon/{device}/{name}", values="number"),
        "lines": RuleSettings(path="leon/{measurement}/{key}", values="line"),
        "open": RuleSettings(path="leon/{host}_{measurement}/{key}", values="line"),
    }
    rules = compile_rules(topics, (), "UTC", "")
    for address, path in (
        ("plant/d#t", "leon/d/t"),
        ("plant/d#a.b", "leon/d/a.b"),
        ("plant/d/t", "leon/d/t"),
    ):
        assert own_path(rules, address) == path
    for address, said in (
        ("plant/d", "have keys: write plant/d#KEY"), ("plant/d/t#x", "have one value: write plant/d/t"),
        ("other#t", "no rule of the adapter takes topic 'other'"), ("lines#t", "write path: and the path that it gives"),
        ("plant/d#", "path"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            own_path(rules, address)
    assert written_address(rules, "plant/d", "leon/d/t") == "plant/d#t"
    assert written_address(rules, "plant/d/t", "leon/d/t") == "plant/d/t"
    assert written_address(rules, "plant/d", "leon/e/t") == "path:leon/e/t"
    assert written_address(rules, "open", "leon/h_m/t") == "path:leon/h_m/t"
    keyed = compile_rules(
        {"q": RuleSettings(path="leon/{message_key}/{key}")}, (), "UTC", "", TopicDialect(".", True)
    )
    assert written_address(keyed, "q", "leon/k/t") == "path:leon/k/t"
