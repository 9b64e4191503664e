"""Raw registers in messages, against struct; and what can't be taken."""

import base64
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.test_payloads import oracle, rows_of

from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.register_addresses import parse_address
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.core.errors import ConfigError
from headrace.core.frames import Shape
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory

REGISTERS = {
    "t": "holding:0:F32;order=CDAB", "n": "holding:2:U16", "total": "input:3:U64", "f": "holding:1:F32",
    "run": "holding:2.3", "signed": "holding:7:I16;scale=0.1",
}  # fmt: skip
T0 = 1_767_225_600_000_000_000
WRITERS = {
    "bytes": bytes,
    "hex": lambda data: data.hex().upper().encode() + b"\n",
    "base64": base64.b64encode,
}


class Bench:
    """A router with a rule of registers, beside one of JSON for the same devices."""

    def __init__(self, max_keys=20, n_max=10, **rule):
        self.directory = SensorDirectory()
        rule = {"registers": REGISTERS, "values": "registers", "max_keys": max_keys, **rule}
        self.rules = compile_rules(
            {
                "p/{device}": RuleSettings(path="l/{device}/{key}", **rule),
                "json/{device}": RuleSettings(path="l/{device}/{key}", types={"n": "i64"}),
            },
            (), "UTC", "t",
        )  # fmt: skip
        self.groups = DeviceGroups(self.directory, n_max)
        self.router = MessageRouter("x", self.rules, self.groups)

    def feed(self, *messages, at=T0):
        return self.router.decode([TopicMessage(topic, data, at) for topic, data in messages], at)

    def values(self, out):
        return {(key, ts): value for key, ts, value in rows_of(self.directory, out.batches)}


@pytest.mark.parametrize("encoding", WRITERS)
@settings(max_examples=25)
@given(images=st.lists(st.binary(min_size=16, max_size=20), min_size=1, max_size=5))
def test_values_are_what_struct_reads(encoding, images):
    bench = Bench(encoding=encoding)
    messages = [(f"p/d{i % 2}", WRITERS[encoding](image)) for i, image in enumerate(images)]
    out = bench.feed(*messages)
    assert not out.rejects
    found = {}
    for batch in out.batches:
        batch.check_columns()
        for frame in range(batch.n_frames):
            slot = int(batch.slot[frame])
            for column, value in enumerate(batch.values[frame].tolist()):
                found[bench.directory.sensor_path(slot, column), int(batch.ts_ns[frame])] = value
    for i, image in enumerate(images):
        registers = struct.unpack(">8H", image[:16])
        for name, text in REGISTERS.items():
            expected, value = oracle(registers, parse_address(text)), found[f"l/d{i % 2}/{name}", T0 + i // 2]
            assert value == expected or (value != value and expected != expected)
    layouts = [bench.directory.layout(int(batch.slot[0])) for batch in out.batches]
    scales = {c.name: c.scale for layout in layouts for c in layout.columns}
    assert scales["signed"] == 0.1


def test_numbers_that_are_none_and_coils():
    bench = Bench(registers={"t": "holding:0:F32", "c": "coil:3"})
    out = bench.feed(("p/a", b"\x7f\xc0\x00\x08"))
    quality = {b.dtype: b.quality for b in out.batches}
    assert quality["f32"].tolist() == [[Quality.BAD_NOT_FINITE]]
    assert quality["u8"] is None
    assert bench.values(bench.feed(("p/a", b"\x08\x00\x00\x00"), at=T0 + 9))["c", T0 + 9] == 1


@pytest.mark.parametrize(
    ("encoding", "payload", "detail"),
    [
        ("bytes", b"\x00" * 15, "15 bytes, expected at least the 16"), ("bytes", b"", "0 bytes"),
        ("hex", b"zz", "not hex"), ("hex", b"\xff\xfe", "not hex"), ("base64", b"***=", "not base64"),
    ],
)  # fmt: skip
def test_a_message_that_is_none_costs_no_other(encoding, payload, detail):
    bench = Bench(encoding=encoding)
    good = WRITERS[encoding](bytes(16))
    out = bench.feed(("p/a", good), ("p/b", payload), ("p/b", good))
    (reject,) = out.rejects
    assert (reject.code, reject.n_samples, reject.source) == ("malformed", 6, "p/b")
    assert detail in reject.detail
    assert {ts for _, ts in bench.values(out)} == {T0, T0 + 1} or len(bench.values(out)) == 6
    assert sum(b.n_samples for b in out.batches) == 12
    alone = bench.feed(("p/b", payload))
    assert [reject.detail for reject in alone.rejects] == [reject.detail]
    assert not alone.batches


def test_a_message_that_is_none_may_be_alone():
    bench = Bench()
    out = bench.feed(("p/a", b""), ("p/b", b"\x00"))
    assert ([one.source for one in out.rejects], out.batches) == (["p/a", "p/b"], [])


def test_a_device_may_have_other_sensors_too():
    bench = Bench(registers={"b": "holding:0:F64", "a": "holding:4:F64"})
    bench.feed(("json/d", b'{"x": 1}'))
    out = bench.feed(("p/d", struct.pack(">dd", 2.0, 3.0)), ("p/e", struct.pack(">dd", 4.0, 5.0)), at=T0 + 1)
    assert sorted(b.shape for b in out.batches) == [Shape.DENSE, Shape.SPARSE]
    assert sorted(bench.values(out).items()) == [(("a", T0 + 1), 5.0), (("b", T0 + 1), 4.0)] or bench.values(
        out
    )
    assert sum(b.n_samples for b in out.batches) == 4


def test_a_sensor_of_another_type_is_refused():
    bench = Bench(registers={"n": "holding:0:U16", "m": "holding:0:U16"})
    bench.feed(("json/d", b'{"n": 1}'))
    out = bench.feed(("p/d", bytes(2)))
    assert [(r.code, r.n_samples) for r in out.rejects] == [("wrong-type", 2)]
    assert "has u16, its sensor holds i64" in out.rejects[0].detail


def test_too_many_keys_and_names_that_are_taken_are_refused():
    bench = Bench(max_keys=1)
    out = bench.feed(("p/d", bytes(16)))
    assert sum(r.n_samples for r in out.rejects) + sum(b.n_samples for b in out.batches) == 6
    assert {r.code for r in out.rejects} == {"unknown-tag"}
    bench = Bench(registers={"a": "holding:0:U16"})
    bench.feed(("json/d/..", b"1"))
    other = MessageRouter(
        "y", compile_rules({"l": RuleSettings(path="l/d/a", values="number")}, (), "UTC", "t"), bench.groups
    )
    other.decode([TopicMessage("l", b"5", T0)], T0)
    assert [r.code for r in bench.feed(("p/d", bytes(2))).rejects] == ["bad-path"]


def test_a_restart_knows_the_columns_and_a_new_scale_makes_new_ones():
    bench = Bench(registers={"a": "holding:0:U16", "b": "holding:1:U16"})
    bench.feed(("p/d", bytes(4)))
    rules = {
        "p/{device}": RuleSettings(
            path="l/{device}/{key}",
            values="registers",
            registers={"a": "holding:0:U16;scale=2", "b": "holding:1:U16"},
        )
    }
    groups = DeviceGroups(bench.directory)
    again = MessageRouter("x", compile_rules(rules, (), "UTC", "t"), groups)
    out = again.decode([TopicMessage("p/d", b"\x00\x01\x00\x02", T0)], T0)
    (batch,) = out.batches
    columns = bench.directory.layout(int(batch.slot[0])).columns
    assert [(c.name, c.scale) for c in columns] == [("a", 2.0), ("b", 1.0)]
    assert (batch.values.tolist(), groups.n_sensors) == ([[1, 2]], 2)


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"registers": {}}, "need registers"), ({"registers": {"a": "db1:0"}}, "tag address"), ({"time": "ts"}, "remove time"),
        ({"registers": {"a": "holding:0:STR[4]"}}, "single numbers"), ({"registers": {"a": "holding:0[2]"}}, "tag address"),
        ({"registers": {"a": "holding:0:U16[2]"}}, "single numbers"),
    ],
)  # fmt: skip
def test_rules_that_can_not_be(rule, problem):
    with pytest.raises(ConfigError, match=problem):
        Bench(**rule)
