"""Sparkplug messages as frames: what the scanner takes, what it leaves aside, where values go."""

import numpy as np
import pytest

from headrace.adapters.payloads import sparkplug_metrics
from headrace.adapters.payloads import sparkplug_scanner as scanner
from headrace.adapters.payloads.base import PayloadError, RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.sparkplug import DataType, read_payload
from headrace.adapters.payloads.sparkplug_decoder import NodeMetricDecoder, warm_sparkplug
from headrace.adapters.payloads.sparkplug_metrics import SparkplugMetrics
from headrace.adapters.payloads.sparkplug_writer import (
    SparkplugValue,
    write_payload,
)
from headrace.adapters.payloads.wire import whole, wrap
from headrace.core.events import MAX_RAW_BYTES, RejectCode
from headrace.core.frames import Shape
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.quality import Quality
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory

MS = 1_000_000
ARRIVAL_NS = 1_795_446_000_123_456_789
D = DataType


def place(names, metric):
    if metric.startswith("/"):
        raise PayloadError(RejectCode.BAD_PATH, "it begins with a slash")
    folder, _, last = metric.rpartition("|")
    return "/".join(filter(None, (names["device"], folder))), last.replace("/", ".")


class Desk:
    """A decoder with some devices; notes which messages the scanner left aside."""

    def __init__(self, directory=None, max_keys=1_000, **more):
        self.directory = directory or SensorDirectory()
        self.groups = DeviceGroups(self.directory, owns_units=False)
        self.metrics = SparkplugMetrics(self.groups, place, RuleSettings(path="{metric}", max_keys=max_keys))
        self.left = []
        self.decoder = NodeMetricDecoder("d", self.directory, self.metrics, scan=self.scan, **more)
        self.space = self.metrics.space({"device": "leon/tank"})
        self.arrival_ns = ARRIVAL_NS

    def scan(self, *rest):
        found = scanner.scan(*rest)
        if found[1]:
            self.left.append(found[0])
        return found

    def take(self, *messages):
        """Messages as (kind, payload or values); samples as {path: [(ms, value, quality)]}, rejects."""
        payloads = [p if isinstance(p, bytes) else write_payload(2_000, 1, p) for _, p in messages]
        self.decoder.begin([TopicMessage("t", p, self.arrival_ns + i) for i, p in enumerate(payloads)])
        self.left.clear()
        for number, (kind, _) in enumerate(messages):
            if kind == "birth":
                self.decoder.birth(number, self.space, read_payload(payloads[number]))
            elif kind == "death":
                self.decoder.death(number, self.space, 3_000 * MS)
            else:
                self.decoder.data(number, [kind if kind != "data" else self.space])
        self.batches, rejects = self.decoder.end(self.arrival_ns)
        samples = {}
        for batch in self.batches:
            batch.check_columns()
            for one in readings(batch, self.directory, 100_000):
                samples.setdefault(one.path, []).append((one.ts_ns / MS, one.value, one.quality))
        return samples, rejects

    def birth(self, **kinds):
        """A birth of metrics by name: alias in order, value by type."""
        values = [value(name, kind, i) for i, (name, kind) in enumerate(kinds.items())]
        return self.take(("birth", write_payload(1_000, 0, values)))


VALUES = {D.BOOLEAN: True, D.STRING: "on", D.TEXT: "off", D.FLOAT: 0.5, D.DOUBLE: 1.5}


def value(name, kind, alias=None, **rest):
    return SparkplugValue(VALUES.get(kind, 7), kind, name, alias, **rest)


def report(alias, kind, what, **rest):
    return SparkplugValue(what, kind, None, alias, names_type=False, **rest)


ALL = {
    "i8": D.INT8, "i16": D.INT16, "i32": D.INT32, "i64": D.INT64, "u8": D.UINT8, "u16": D.UINT16, "u32": D.UINT32,
    "u64": D.UINT64, "f32": D.FLOAT, "f64": D.DOUBLE, "on": D.BOOLEAN, "state": D.STRING, "when": D.DATETIME,
}  # fmt: skip


def test_values_of_all_types_by_alias_in_frames_of_their_own_types():
    desk = Desk()
    born, rejects = desk.birth(**ALL)
    assert not rejects
    assert born["leon/tank/u64"] == [(1_000, 7, 0)]
    some = [-3, -300, -70_000, -5, 200, 60_000, 2**32 - 1, 2**64 - 1, 0.25, 0.1, False, "idle", 5]
    values = [report(i, kind, v) for i, (kind, v) in enumerate(zip(ALL.values(), some, strict=True))]
    samples, rejects = desk.take(("data", values), ("data", values[:2]))
    assert (rejects, desk.left) == ([], []), "the scanner took them all"
    assert [samples[f"leon/tank/{name}"][0][1] for name in ALL] == some
    assert samples["leon/tank/i8"] == [(2_000, -3, 0)] * 2
    assert {b.dtype for b in desk.batches} == {
        "i8",
        "i16",
        "i32",
        "i64",
        "u8",
        "u16",
        "u64",
        "f32",
        "f64",
        "u32",
    }
    layouts = {b.dtype: desk.directory.layout(b.slot[0]) for b in desk.batches}
    assert [c.name for c in layouts["i64"].columns] == ["i64", "u32", "when"]
    assert layouts["i64"].columns[2].unit == "ms"
    assert [(c.name, c.kind, c.labels) for c in layouts["u8"].columns] == [
        ("u8", Kind.ANALOG, ()), ("on", Kind.DISCRETE, ("false", "true")),
    ]  # fmt: skip


@pytest.mark.parametrize("names_it", [False, True])
def test_metrics_by_name_and_in_any_order(names_it):
    desk = Desk()
    desk.birth(a=D.DOUBLE, b=D.DOUBLE, c=D.INT32)
    one = [SparkplugValue(i + 0.5, D.DOUBLE, n, names_type=names_it) for i, n in enumerate("ab")]
    samples, rejects = desk.take(("data", one[::-1]), ("data", one), ("data", one[:1]), ("data", one[1:]))
    assert (rejects, desk.left) == ([], [])
    assert [v for _, v, _ in samples["leon/tank/a"]] == [0.5] * 3
    assert [v for _, v, _ in samples["leon/tank/b"]] == [1.5] * 3


def test_each_device_has_aliases_of_its_own():
    desk = Desk()
    desk.birth(a=D.DOUBLE)
    other = desk.metrics.space({"device": "leon/pump"})
    desk.space, first = other, desk.space
    desk.birth(b=D.INT32)
    samples, rejects = desk.take(
        (first, [report(0, D.DOUBLE, 2.5)]),
        (other, [report(0, D.INT32, 3)]),
        (first, [report(0, D.DOUBLE, 3.5)]),
    )
    assert (rejects, desk.left) == ([], [])
    assert {path: [v for _, v, _ in some] for path, some in samples.items()} == {
        "leon/tank/a": [2.5, 3.5], "leon/pump/b": [3],
    }  # fmt: skip


def test_times_of_metrics_payloads_and_arrivals():
    desk = Desk()
    desk.birth(a=D.DOUBLE, b=D.DOUBLE)
    own = [
        report(0, D.DOUBLE, 1.0, time_ms=1_990),
        report(1, D.DOUBLE, 2.0),
        report(0, D.DOUBLE, 3.0, time_ms=1_995),
    ]
    samples, _ = desk.take(("data", own), ("data", write_payload(None, None, own)))
    arrival_ms = (ARRIVAL_NS + 1) / MS
    assert samples["leon/tank/a"] == [(1_990, 1.0, 0), (1_995, 3.0, 0)] * 2
    assert samples["leon/tank/b"] == [(2_000, 2.0, 0), (arrival_ms, 2.0, 0)]
    (batch,) = desk.batches
    assert (batch.shape, batch.n_frames) == (Shape.SPARSE, 2)
    assert batch.value_ts_ns is not None
    samples, _ = desk.take(("data", write_payload(None, None, own[1:2])))
    assert samples["leon/tank/b"] == [(ARRIVAL_NS / MS, 2.0, 0)]
    assert desk.batches[0].value_ts_ns is None
    late = [report(0, D.DOUBLE, 1.0, time_ms=2**63), report(1, D.DOUBLE, 2.0)]
    samples, rejects = desk.take(("data", late), ("data", write_payload(2**63, 0, late[1:])))
    assert [str(r.code) for r in rejects] == ["bad-time"] * 2
    assert "is after the year 2262" in rejects[0].detail
    assert desk.left == [0, 1]


def test_qualities_nulls_and_transient_values():
    desk = Desk()
    desk.birth(a=D.DOUBLE, b=D.FLOAT, s=D.STRING, n=D.INT32)
    some = [
        report(0, D.DOUBLE, 1.0, quality=0), report(0, D.DOUBLE, 1.0, quality=500), report(0, D.DOUBLE, 1.0, quality=64),
        report(0, D.DOUBLE, 1.0, quality=192), report(0, D.DOUBLE, 1.0, quality=9_999), report(0, D.DOUBLE, None),
        report(1, D.FLOAT, None), report(2, D.STRING, None), report(3, D.INT32, None, is_historical=True),
        report(0, D.DOUBLE, 5.0, is_transient=True),
    ]  # fmt: skip
    samples, rejects = desk.take(("data", some))
    assert (rejects, desk.left, desk.decoder.n_transient) == ([], [], 1)
    assert [q for _, _, q in samples["leon/tank/a"]] == [
        Quality.BAD, Quality.UNCERTAIN_STALE, Quality.UNCERTAIN, Quality.GOOD, Quality.BAD, Quality.BAD,
    ]  # fmt: skip
    assert samples["leon/tank/a"][-1][1] is None, "not a number"
    assert [samples[f"leon/tank/{n}"] for n in "bsn"] == [[(2_000, v, Quality.BAD)] for v in (None, "", 0)]
    again = Desk(takes_transient=True)
    again.birth(a=D.DOUBLE)
    samples, _ = again.take(("data", some[-1:]))
    assert samples["leon/tank/a"] == [(2_000, 5.0, 0)]
    one = SparkplugValue(1.0, D.DOUBLE, "é", is_transient=True)
    samples, _ = again.take(("data", [one]))
    assert samples["leon/tank/é"] == [(2_000, 1.0, 0)], "by the reference too"
    samples, _ = desk.take(("data", [one, one._replace(name="ö", is_transient=False, value=None)]))
    assert (samples, desk.decoder.n_transient) == ({"leon/tank/ö": [(2_000, None, Quality.BAD)]}, 2)


def test_what_the_scanner_leaves_aside_the_reference_takes():
    desk = Desk()
    desk.birth(a=D.DOUBLE, s=D.STRING, n=D.INT32, on=D.BOOLEAN, f=D.FLOAT, bdSeq=D.INT64)

    def with_properties(data):
        return wrap(2, whole(2, 2) + wrap(9, data) + whole(10, 5))

    quality = wrap(1, b"Quality")
    double = wrap(2, whole(2, 0) + b"\x65" + np.float32(0.5).tobytes())
    properties = wrap(1, b"x") + wrap(2, whole(3, 0))
    odd = [
        [report(1, D.STRING, "größer")], double, wrap(2, whole(2, 2) + whole(11, 5) + b"\x30\x00"),
        [report(3, D.BOOLEAN, True)._replace(datatype=D.INT32)], double.replace(b"\x10\x00", b"\x10\x04") + b"\x2a\x00",
        wrap(2, whole(2, 2) + wrap(9, properties) + whole(10, 5)),
        wrap(2, whole(2, 0) + wrap(8, b"") + b"\x69" + np.float64(2.5).tobytes()),
        with_properties(quality + wrap(2, whole(4, 64))), with_properties(b""),
        with_properties(quality + wrap(2, whole(1, 3))), with_properties(quality + wrap(2, b"") + wrap(1, b"y")),
        [report(5, D.INT64, 3)], with_properties(wrap(1, b"another name") + wrap(2, b"")),
        with_properties(quality + wrap(2, whole(2, 0) + whole(3, 192))),
    ]  # fmt: skip
    samples, rejects = desk.take(*(("data", one) for one in odd))
    assert not rejects
    assert desk.left == [0, 1, 3, 4, 5, 6, 8, 9, 10, 12, 13]
    assert [v for _, v, _ in samples["leon/tank/s"]] == ["größer"]
    assert [v for _, v, _ in samples["leon/tank/a"]] == [0.5, 2.5]
    good, doubtful = (5, 0), (5, Quality.UNCERTAIN)
    assert [(v, q) for _, v, q in samples["leon/tank/n"]] == [good, good, doubtful, *[good] * 5]
    assert [v for _, v, _ in samples["leon/tank/on"]] == [1]
    assert [v for _, v, _ in samples["leon/tank/f"]] == [0.5]


@pytest.mark.parametrize(
    ("payload", "code", "detail"),
    [
        (b"\x12\x05\x10", "malformed", "no Sparkplug B payload: it ends inside a field"),
        (b"\x08\xff", "malformed", "it ends inside an integer"),
        (b"\x12\x04\x10\x00\x65\x00", "malformed", "it ends inside a field"),
        (b"\x12\x02\x10\xff", "malformed", "it ends inside an integer"),
        (b"\x12\x04\x10\x00\x7a\x05", "malformed", "it ends inside a field"),
        (
            b"\x12\x02\x50\x01",
            "unknown-tag",
            "a metric without a name is not known: no birth has named it yet",
        ),
        ([report(9, D.DOUBLE, 1.0)], "unknown-tag", "alias 9 is not known: no birth has named it yet"),
        ([report(2**63, D.DOUBLE, 1.0)], "unknown-tag", "alias 9223372036854775808 is not known"),
        ([SparkplugValue(1.0, D.DOUBLE, "zz", names_type=False)], "unknown-tag", "metric 'zz' is not known"),
        ([report(0, D.INT32, 5)], "wrong-type", "'a': it has an integer, its type is DOUBLE"),
        ([report(1, D.STRING, "x")], "wrong-type", "'i8': it has a text, its type is INT8"),
        ([report(0, D.STRING, "x")], "wrong-type", "'a': it has a text, its type is DOUBLE"),
        ([report(1, D.INT32, 300)], "wrong-type", "'i8': 300 is outside of its type, INT8"),
        ([report(2, D.UINT16, 70_000)], "wrong-type", "'u16': 70000 is outside of its type, UINT16"),
        ([report(3, D.DOUBLE, 1.0)], "wrong-type", "'s': it has a double, its type is STRING"),
        ([report(3, D.STRING, "x" * 1_025)], "wrong-type", "'s': a text longer than 1,024 characters"),
        (
            [report(3, D.STRING, "a\x00")],
            "wrong-type",
            "'s': a text longer than 1,024 characters, or with a NUL",
        ),
        ([report(3, D.STRING, "x" * 70_000)], "wrong-type", "'s': a text longer"),
        (
            [SparkplugValue(True, D.BOOLEAN, None, 0)],
            "wrong-type",
            "'a': its type is BOOLEAN, where it was DOUBLE",
        ),
        (
            [SparkplugValue("x", D.STRING, None, 0)],
            "wrong-type",
            "'a': its type is STRING, where it was DOUBLE",
        ),
        (wrap(2, whole(2, 4)), "wrong-type", "values of type FLOAT_ARRAY are not taken"),
        (wrap(2, whole(2, 5)), "malformed", "'on': it has no value and is not null"),
    ],
)
def test_refusals(payload, code, detail):
    desk = Desk()
    desk.birth(a=D.DOUBLE, i8=D.INT8, u16=D.UINT16, s=D.STRING, list=D.FLOAT_ARRAY, on=D.BOOLEAN)
    samples, (reject,) = desk.take(("data", payload))
    assert not samples
    assert (str(reject.code), reject.detail[: len(detail)] if code != "malformed" else detail in reject.detail) == (
        code, detail if code != "malformed" else True,
    ), reject.detail  # fmt: skip
    assert desk.left == [0]
    assert (reject.source, reject.arrival_ns, reject.n_samples) == ("t", ARRIVAL_NS, 1)
    assert (desk.space in desk.decoder.unknown) == (code == "unknown-tag")


def test_of_a_message_that_is_taken_but_for_some_the_reject_has_these():
    desk = Desk(max_keys=2_000)
    desk.birth(a=D.DOUBLE)
    known, unknown = report(0, D.DOUBLE, 2.5), [report(7 + i, D.DOUBLE, float(i)) for i in range(3)]
    samples, (reject,) = desk.take(("data", [unknown[0], known, *unknown[1:]]))
    assert samples == {"leon/tank/a": [(2_000, 2.5, 0)]}
    assert (reject.n_samples, reject.detail.endswith(" (and 2 more)")) == (3, True)
    assert reject.raw == write_payload(2_000, None, unknown)
    many = [report(7 + i, D.DOUBLE, float(i)) for i in range(1_000)]
    _, rejects = desk.take(("data", write_payload(None, None, many)))
    assert len(rejects) > 3
    assert sum(r.n_samples for r in rejects) == 1_000
    assert max(len(r.raw) for r in rejects) < MAX_RAW_BYTES
    desk.take(("birth", [value(f"m{i}", D.DOUBLE, 7 + i) for i in range(1_000)]))
    samples, again = desk.take(*(("data", r.raw) for r in rejects))
    assert not again
    assert sum(len(some) for some in samples.values()) == 1_000


def test_a_message_can_be_refused_as_a_whole():
    desk = Desk()
    desk.decoder.begin([TopicMessage("t", b"x" * 2_000_000, 1)])
    desk.decoder.refuse(0, RejectCode.TOO_LARGE, "too large", 3)
    batches, (reject,) = desk.decoder.end(1)
    assert (batches, len(reject.raw), reject.n_samples) == ([], MAX_RAW_BYTES, 3)


def test_templates_are_their_members():
    def template(*members, alias=None, name=None, is_definition=False, **rest):
        inner = b"".join(wrap(2, m) for m in members) + (whole(5, 1) if is_definition else b"")
        head = (b"" if name is None else wrap(1, name)) + (b"" if alias is None else whole(2, alias))
        return head + whole(4, 19) + wrap(18, inner)

    def member(name, kind, field):
        return wrap(1, name) + (b"" if kind is None else whole(4, kind)) + field

    rpm, amps = (
        member(b"RPM", D.INT32, whole(10, 1_480)),
        member(b"Amps", D.INT32, whole(10, 9)),
    )
    inner = template(rpm, name=b"Drive")
    desk = Desk()
    birth = [
        template(rpm, is_definition=True, name=b"_types_"),
        template(rpm, amps, inner, alias=5, name=b"Motor"),
    ]
    samples, rejects = desk.take(("birth", whole(1, 1_000) + b"".join(wrap(2, m) for m in birth)))
    assert not rejects
    assert {path: some[0][1] for path, some in samples.items()} == {
        "leon/tank/Motor.RPM": 1_480, "leon/tank/Motor.Amps": 9, "leon/tank/Motor.Drive.RPM": 1_480,
    }  # fmt: skip
    part = template(member(b"RPM", None, whole(10, 1_500)), alias=5)
    nameless = template(member(b"", None, whole(10, 1)), whole(10, 1), alias=5)
    samples, rejects = desk.take(("data", wrap(2, part)), ("data", wrap(2, nameless)))
    assert samples == {"leon/tank/Motor.RPM": [(ARRIVAL_NS / MS, 1_500, 0)]}
    assert [(str(r.code), r.n_samples) for r in rejects] == [("unknown-tag", 2)]
    assert "metric 'Motor.' is not known" in rejects[0].detail
    _, (reject,) = desk.take(("data", wrap(2, template(rpm, alias=99))))
    assert str(reject.code) == "unknown-tag"
    command = wrap(2, template(member(b"", None, whole(10, 1)), whole(10, 1), name=b"Node Control/Rebirth"))
    assert desk.take(("data", command)) == ({}, [])
    null = wrap(2, whole(2, 5) + b"\x38\x01")
    _, (reject,) = desk.take(("data", null))
    assert "TEMPLATE are not taken" in reject.detail


def test_a_death_marks_all_that_is_stored():
    desk = Desk()
    desk.birth(**ALL, list=D.FLOAT_ARRAY, bdSeq=D.INT64)
    samples, rejects = desk.take(("data", [report(9, D.DOUBLE, 2.5)]), ("death", b""))
    assert not rejects
    assert set(samples) == {f"leon/tank/{name}" for name in ALL}
    assert samples["leon/tank/f64"] == [(2_000, 2.5, 0), (3_000, None, Quality.BAD_COMMUNICATION)]
    assert samples["leon/tank/state"] == [(3_000, "", Quality.BAD_COMMUNICATION)]
    assert samples["leon/tank/i8"] == [(3_000, 0, Quality.BAD_COMMUNICATION)]


def test_after_a_death_a_birth_says_what_is_now():
    """A metric that has not changed since long would stay marked as bad."""
    inner = wrap(2, wrap(1, b"x") + whole(3, 2_000) + whole(4, 3) + whole(10, 1))
    template = wrap(2, wrap(1, b"M") + wrap(18, inner))
    desk = Desk()
    births = [
        value("a", D.DOUBLE, 0, time_ms=2_500),
        value("b", D.DOUBLE, 1, time_ms=4_000),
        value("c", D.DOUBLE),
    ]

    def times(birth_ms, *before):
        samples, rejects = desk.take(*before, ("birth", write_payload(birth_ms, 0, births) + template))
        assert not rejects
        return [samples[f"leon/tank/{name}"][-1][0] for name in ("a", "b", "c", "M.x")]

    arrival_ms = ARRIVAL_NS // MS
    assert times(3_500) == [2_500, 4_000, 3_500, 2_000], "nobody has died"
    assert times(3_500, ("death", b"")) == [3_500, 4_000, 3_500, 3_500]
    assert times(3_500) == [2_500, 4_000, 3_500, 2_000], "nobody has died since"
    assert times(2_900, ("death", b"")) == [arrival_ms, 4_000, arrival_ms, arrival_ms], "its clock is behind"
    assert times(None, ("death", b"")) == [arrival_ms, 4_000, arrival_ms, arrival_ms]


# --- births ------------------------------------------------------------------------------------------


def test_the_same_birth_again_changes_nothing():
    desk = Desk()
    desk.birth(**ALL)
    number, slots = desk.space.number, desk.directory.n_slots
    desk.birth(**ALL)
    assert (desk.space.number, desk.directory.n_slots) == (number, slots)


def test_a_new_birth_gives_aliases_a_new_meaning():
    desk = Desk()
    desk.birth(a=D.DOUBLE, b=D.DOUBLE)
    samples, _ = desk.take(
        ("data", [report(0, D.DOUBLE, 1.0)]),
        ("birth", write_payload(1_000, 0, [value("b", D.DOUBLE, 0), value("c", D.INT32, 1)])),
        ("data", [report(0, D.DOUBLE, 2.0), report(1, D.INT32, 3)]),
    )
    assert samples["leon/tank/a"] == [(2_000, 1.0, 0)]
    assert samples["leon/tank/b"] == [(1_000, 1.5, 0), (2_000, 2.0, 0)]
    assert samples["leon/tank/c"] == [(1_000, 7, 0), (2_000, 3, 0)]
    assert not desk.left
    _, (reject,) = desk.take(("data", [SparkplugValue(1.0, D.DOUBLE, "a", names_type=False)]))
    assert str(reject.code) == "unknown-tag"


def test_units_come_from_births_and_change_with_them():
    desk = Desk()
    birth = [value("a", D.DOUBLE, 0, unit="bar"), value("b", D.DOUBLE, 1), value("bdSeq", D.INT64, unit="x")]
    desk.take(("birth", birth))

    def units():
        return [c.unit for c in desk.directory.layout(desk.directory.slot("leon/tank", "f64")).columns]

    assert units() == ["bar", ""]
    n_sensors = desk.groups.n_sensors
    samples, _ = desk.take(
        ("data", [report(1, D.DOUBLE, 3.0)]), ("birth", [birth[0]._replace(unit="kPa"), *birth[1:]]),
        ("data", [report(0, D.DOUBLE, 2.0)]),
    )  # fmt: skip
    assert units() == ["kPa", ""]
    assert samples["leon/tank/a"] == [(2_000, 1.5, 0), (2_000, 2.0, 0)]
    assert samples["leon/tank/b"] == [(2_000, 3.0, 0), (2_000, 1.5, 0)]
    desk.take(("birth", [value("a", D.DOUBLE, 0), *birth[1:]]))
    assert (units(), desk.groups.n_sensors) == (["kPa", ""], n_sensors), "a birth that says none changes none"


def test_sensors_are_known_from_earlier_runs_and_keep_their_type():
    directory = SensorDirectory()
    Desk(directory).take(
        ("birth", [value("n", D.INT32, 0, unit="bar"), value("on", D.BOOLEAN, 1), value("u", D.UINT8)])
    )
    n_slots = directory.n_slots
    desk = Desk(directory)
    births = [
        value("n", D.DOUBLE, 0), value("on", D.UINT8, 1), value("u", D.BOOLEAN, 2), value("s", D.STRING, 3),
    ]  # fmt: skip
    _, rejects = desk.take(("birth", births))
    assert [r.detail for r in rejects] == ["'n': 1.5 can't be held exactly by its sensor, i32 (and 2 more)"]
    _, rejects = desk.take(("data", [report(1, D.UINT8, 1), report(2, D.BOOLEAN, True)]))
    assert rejects[0].detail == "metric 'on' is UINT8, its sensor holds u8 (and 1 more)"
    samples, rejects = desk.take(
        ("data", [report(0, D.DOUBLE, 4.0), report(0, D.DOUBLE, float("nan"))]),
        ("data", [report(0, D.DOUBLE, 2.0**31)]),
    )
    assert samples["leon/tank/n"] == [(2_000, 4, 0)]
    assert sum(r.n_samples for r in rejects) == 2
    assert directory.n_slots == n_slots + 1
    assert directory.layout(directory.slot("leon/tank", "i32")).columns[0].unit == "bar"


@pytest.mark.parametrize(
    ("dtype", "kind", "sent", "value"),
    [
        ("f64", D.INT32, 5, 5.0), ("f64", D.INT64, 2**53, 2.0**53), ("f64", D.INT64, 2**53 + 1, None),
        ("f32", D.INT32, 2**24, 2.0**24), ("f32", D.INT32, 2**24 + 1, None), ("f32", D.DOUBLE, 0.5, 0.5),
        ("f32", D.DOUBLE, 0.1, None), ("f64", D.FLOAT, 0.5, 0.5), ("u64", D.INT32, 5, 5), ("u64", D.INT32, -5, None),
        ("i64", D.UINT64, 2**63 - 1, 2**63 - 1), ("i64", D.UINT64, 2**63, None), ("u64", D.DOUBLE, 2.0**63, 2**63),
        ("u16", D.INT32, 65_536, None), ("i8", D.INT32, -128, -128),
    ],
)  # fmt: skip
def test_sensors_of_another_source_hold_what_they_can_exactly(dtype, kind, sent, value):
    directory = SensorDirectory()
    directory.define("leon/tank", Layout(dtype, (Column("n"),)), dtype)
    desk = Desk(directory)
    samples, rejects = desk.take(("birth", [SparkplugValue(sent, kind, "n")]))
    if value is None:
        assert [str(r.code) for r in rejects] == ["wrong-type"]
    else:
        assert samples == {"leon/tank/n": [(2_000, value, 0)]}


def test_metrics_that_cannot_be_sensors_take_no_others_with_them():
    directory = SensorDirectory()
    directory.define("leon", Layout("f64", (Column("tank/m3"), Column("tank/m7"))), "f64")
    desk = Desk(directory, max_keys=10)
    births = [value(f"m{i}", D.DOUBLE, i) for i in range(8)]
    births += [value("/x", D.DOUBLE, 20), value("a/b", D.DOUBLE, 21), value("a.b", D.DOUBLE, 22)]
    births += [
        value("last", D.DOUBLE, 23),
        value("over", D.DOUBLE, 26),
        value(None, D.DOUBLE, 24),
        value("#", D.DOUBLE, 25),
    ]
    samples, rejects = desk.take(("birth", births))
    assert set(samples) == {
        f"leon/tank/{name}" for name in ("m0", "m1", "m2", "m4", "m5", "m6", "a.b", "last")
    }
    assert sum(r.n_samples for r in rejects) == 7
    details = " ".join(r.detail for r in rejects)
    assert {str(r.code) for r in rejects} == {"bad-path", "unknown-tag"}
    assert "max_keys = 10" in details
    _, rejects = desk.take(("data", [report(22, D.DOUBLE, 1.0)]))
    assert "would be one sensor; rename one" in rejects[0].detail
    desk.take(("birth", births[:3]))
    _, (reject,) = desk.take(
        ("data", [value("x|m0", D.DOUBLE), value("m0", D.DOUBLE), value("m1|", D.DOUBLE)])
    )
    assert str(reject.code) == "bad-path"


def test_two_names_of_one_sensor_also_where_the_second_comes_later():
    desk = Desk()
    desk.birth(**{"a/b": D.DOUBLE})
    _, (reject,) = desk.take(("data", [value("a.b", D.DOUBLE)]))
    assert "'a/b' and 'a.b' would be one sensor" in reject.detail


def test_data_that_name_metric_and_type_need_no_birth_but_it_is_missed():
    desk = Desk()
    samples, rejects = desk.take(("data", [value("a", D.DOUBLE, 3)]), ("data", [report(3, D.DOUBLE, 2.5)]))
    assert not rejects
    assert samples["leon/tank/a"] == [(2_000, 1.5, 0), (2_000, 2.5, 0)]
    assert list(desk.decoder.unknown) == [desk.space]
    desk.take(("data", [value("b", D.DOUBLE, 3)]))
    samples, _ = desk.take(("data", [report(3, D.DOUBLE, 3.5)]))
    assert list(samples) == ["leon/tank/a"], "an alias keeps its meaning until a birth says otherwise"


def test_many_metrics_and_what_older_births_have_left(monkeypatch):
    monkeypatch.setattr(sparkplug_metrics, "N_SPARE_ROWS", 100)
    desk = Desk()
    for life in range(4):
        births = [value(f"metric {i}", D.DOUBLE, 1_000 * life + i) for i in range(300)]
        desk.take(("birth", births))
        samples, rejects = desk.take(
            ("data", [report(1_000 * life + i, D.DOUBLE, float(i)) for i in range(300)])
        )
        assert (rejects, desk.left) == ([], [])
        assert [some[0][1] for some in samples.values()] == [float(i) for i in range(300)]
    assert desk.metrics._n <= 3 * 300 + 100
    for i in range(70):
        space = desk.metrics.space({"device": f"leon/d{i}"})
    desk.space = space
    desk.birth(a=D.DOUBLE)
    samples, rejects = desk.take(("data", [report(0, D.DOUBLE, 1.0)]))
    assert (list(samples), desk.left) == (["leon/d69/a"], [])


def test_groups_that_others_change_have_their_newest_slot():
    desk = Desk()
    desk.birth(a=D.DOUBLE)
    desk.groups.extend(
        desk.groups.group("leon/tank", RuleSettings(path="x")), {"z": "f64"}, RuleSettings(path="x")
    )
    samples, rejects = desk.take(("data", [report(0, D.DOUBLE, 1.0)]))
    assert (samples, rejects) == ({"leon/tank/a": [(2_000, 1.0, 0)]}, [])
    desk.groups.extend(
        desk.groups.group("leon/tank", RuleSettings(path="x")), {"y": "f64"}, RuleSettings(path="x")
    )
    desk.birth(a=D.DOUBLE, b=D.DOUBLE)
    samples, rejects = desk.take(("data", [report(1, D.DOUBLE, 1.0)]))
    assert list(samples) == ["leon/tank/b"]


def test_groups_of_many_devices():
    desk = Desk()
    desk.take(("birth", [value(f"f{i}|a", D.DOUBLE, i) for i in range(70)]))
    samples, rejects = desk.take(("data", [report(i, D.DOUBLE, float(i)) for i in range(70)]))
    assert (len(samples), rejects, desk.left) == (70, [], [])


def test_crowded_hash_tables_leave_metrics_to_the_reference(monkeypatch):
    """As far as kernels see it: compiled ones keep the bound they were compiled with."""
    monkeypatch.setattr(scanner, "N_PROBES_MAX", 1)
    desk = Desk()
    desk.take(("birth", [value(f"m{i}", D.DOUBLE, i) for i in range(300)]))
    ways = [[report(i, D.DOUBLE, 1.0)] for i in range(0, 300, 7)]
    ways += [[SparkplugValue(1.0, D.DOUBLE, f"m{i}", names_type=False)] for i in range(0, 300, 7)]
    samples, rejects = desk.take(*(("data", one) for one in ways))
    assert (sum(map(len, samples.values())), rejects) == (len(ways), [])


def test_many_devices_with_the_same_aliases_are_all_found_by_the_scanner():
    desk = Desk(max_keys=2_000)
    spaces = [desk.metrics.space({"device": f"leon/d{i}"}) for i in range(8)]
    for desk.space in spaces:
        desk.birth(**{f"m{i}": D.DOUBLE for i in range(400)})
    order = np.random.default_rng(0).permutation(400).tolist()
    samples, rejects = desk.take(*((one, [report(i, D.DOUBLE, 1.0) for i in order]) for one in spaces))
    assert (len(samples), rejects, desk.left) == (8 * 400, [], [])


@pytest.mark.parametrize(
    ("payload", "seq"),
    [
        (b"", -1), (b"\x18\x07", 7), (b"\x08\x01\x12\x02ab\x18\xff\x01", 255), (b"\x18", -1), (b"\x12\x05", -1),
        (b"\x22\x00\x18\x01", -1), (b"\x12" + b"\xff" * 9 + b"\x01", -1),
    ],
)  # fmt: skip
def test_sequence_numbers(payload, seq):
    assert scanner.sequence_of(np.frombuffer(payload, np.uint8)) == seq


def test_warming_works():
    warm_sparkplug()
