"""Sparkplug payloads: our reader against protobuf's, the scanner against the reader, every value counted."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.adapters.payloads import sparkplug_scanner as scanner
from headrace.adapters.payloads.base import PayloadError, RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.sparkplug import RANGES, TEXTS, DataType, quality_of, read_payload
from headrace.adapters.payloads.sparkplug_decoder import NodeMetricDecoder
from headrace.adapters.payloads.sparkplug_metrics import SparkplugMetrics
from headrace.adapters.payloads.sparkplug_writer import SparkplugValue, write_payload
from headrace.bench.traffic.sparkplug_schema import Payload
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.testing.engines import flat

MS = 1_000_000
BORN_MS = 9_000
ARRIVAL_NS = 1_795_446_000_123_456_789
TIMES = st.one_of(st.integers(0, 2**42), st.integers(0, 2**64 - 1))
NAMES = st.sampled_from(
    ["a", "b", "Temp", "Motor/Speed", "Motor", "größe", "bdSeq", "Node Control/Rebirth", ""]
)
FIELD_OF = {
    10: "int_value", 11: "long_value", 12: "float_value", 13: "double_value", 14: "boolean_value",
    15: "string_value", 16: "bytes_value", 17: "dataset_value", 18: "template_value",
}  # fmt: skip

# --- messages as protobuf builds them ----------------------------------------------------------------

WORDS = st.text(max_size=8).filter(lambda text: text.isprintable())
VALUES = st.one_of(
    st.tuples(st.just("int_value"), st.integers(0, 2**32 - 1) | st.integers(0, 300)),
    st.tuples(st.just("long_value"), st.integers(0, 2**64 - 1) | st.integers(0, 300)),
    st.tuples(st.just("float_value"), st.floats(width=32)),
    st.tuples(st.just("double_value"), st.floats()),
    st.tuples(st.just("boolean_value"), st.booleans()),
    st.tuples(st.just("string_value"), WORDS | st.just("\x00") | st.just("x" * 1_025)),
    st.tuples(st.just("bytes_value"), st.binary(max_size=4)),
)


def maybe(draw, strategy, chance=2):
    return draw(strategy) if draw(st.integers(0, chance)) else None


@st.composite
def fill_metric(draw, metric, depth=0):
    for name, strategy in (
        ("name", NAMES), ("alias", st.integers(0, 4) | st.integers(0, 2**64 - 1)), ("timestamp", TIMES),
        ("datatype", st.integers(0, 40)),
    ):  # fmt: skip
        value = maybe(draw, strategy)
        if value is not None:
            setattr(metric, name, value)
    for name in ("is_historical", "is_transient", "is_null"):
        if draw(st.integers(0, 5)) == 0:
            setattr(metric, name, draw(st.booleans()))
    if draw(st.integers(0, 3)) == 0:
        for key in draw(
            st.lists(st.sampled_from(["Quality", "engUnit", "Engineering Units", "x"]), max_size=3)
        ):
            metric.properties.keys.append(key)
            value = metric.properties.values.add(type=3)
            value.int_value = draw(st.sampled_from([0, 64, 192, 500, 7_000, 2**32 - 1]))
            if draw(st.booleans()):
                value.string_value = draw(WORDS)
    kind = draw(st.integers(0, 9))
    if kind == 0 and depth < 2:
        metric.template_value.is_definition = draw(st.booleans())
        metric.template_value.parameters.add(name="p", type=3, int_value=1)
        for _ in range(draw(st.integers(0, 3))):
            draw(fill_metric(metric.template_value.metrics.add(), depth + 1))
    elif kind == 1:
        metric.dataset_value.columns.append("c")
        metric.metadata.description = "d"
    else:
        value = maybe(draw, VALUES, 8)
        if value is not None:
            setattr(metric, *value)


@st.composite
def payloads(draw):
    payload = Payload()
    for name, strategy in (("timestamp", TIMES), ("seq", st.integers(0, 255)), ("uuid", WORDS)):
        value = maybe(draw, strategy, 4)
        if value is not None:
            setattr(payload, name, value)
    for _ in range(draw(st.integers(0, 5))):
        draw(fill_metric(payload.metrics.add()))
    return payload


def given_or_none(message, name):
    return getattr(message, name) if message.HasField(name) else None


def as_expected(metric):
    """What we should read of protobuf's metric."""
    field = metric.WhichOneof("value")
    value = None if field is None else getattr(metric, field)
    number = next((n for n, name in FIELD_OF.items() if name == field), 0)
    if field == "string_value":
        value = value.encode()
    elif field == "dataset_value":
        value = None
    elif field == "template_value":
        value = [as_expected(one) for one in value.metrics], value.is_definition
    elif field in ("float_value", "double_value"):
        value = struct.pack("<d", value)
    quality, unit = 192, None
    for key, one in zip(metric.properties.keys, metric.properties.values, strict=False):
        which = one.WhichOneof("value")
        if key == "Quality" and which in ("int_value", "long_value"):
            quality = getattr(one, which)
        elif key in ("engUnit", "Engineering Units") and which == "string_value":
            unit = one.string_value
    return (
        given_or_none(metric, "name"), given_or_none(metric, "alias"), given_or_none(metric, "timestamp"),
        given_or_none(metric, "datatype"), metric.is_historical, metric.is_transient, metric.is_null, number, value,
        quality, unit,
    )  # fmt: skip


def as_read(metric):
    value = metric.value
    if metric.field == 18:
        value = [as_read(one) for one in value.metrics], value.is_definition
    elif metric.field == 17:
        value = None
    elif isinstance(value, float):
        value = struct.pack("<d", value)
    return (*metric[:8], value, metric.quality, metric.unit)


def check_same(data, expected):
    found = read_payload(data)
    assert found.time_ms == given_or_none(expected, "timestamp")
    assert found.seq == given_or_none(expected, "seq")
    assert [as_read(one) for one in found.metrics] == [as_expected(one) for one in expected.metrics]
    assert sum(metric.end - metric.start for metric in found.metrics) <= len(data)


@settings(max_examples=40)
@given(payloads())
def test_what_protobuf_writes_is_read_as_protobuf_reads_it(payload):
    check_same(payload.SerializeToString(), payload)


def parsed(data):
    try:
        return Payload.FromString(data)
    except Exception:
        return None


@st.composite
def mutated(draw, strategy):
    data = bytearray(draw(strategy))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data.insert(at, draw(st.integers(0, 255)))
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 4))]
        elif kind == 2 and at < len(data):
            data[at] = draw(st.integers(0, 255))
        else:
            del data[at:]
    return bytes(data)


def looks_into(data):
    """Whether protobuf's reading hangs on what we pass over: texts that are no UTF-8 in fields that nobody uses."""
    try:
        data.decode("ascii")
    except UnicodeDecodeError:
        return True
    return False


def refusal(data):
    try:
        read_payload(data)
    except PayloadError as e:
        return str(e.code) if e.detail else "untold"
    return ""


@settings(max_examples=80)
@given(mutated(payloads().map(lambda payload: payload.SerializeToString())))
@example(b"\x13\x0b\x0c\x14")  # a group, which protobuf passes over
@example(b"\x0f")
@example(b"\x12\x80")
@example(b"\x80\x80\x80\x80\x10\x01")
@example(b"\x08" + b"\xff" * 9 + b"\x7f")
@example(b"\x08" + b"\xff" * 10 + b"\x01")
def test_changed_bytes_are_refused_or_read_as_protobuf_reads_them(data):
    expected = parsed(data)
    if refusal(data):
        assert expected is None or looks_into(data)
    elif expected is not None and not looks_into(data):
        check_same(data, expected)


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_noise_raises_nothing_else(data):
    assert refusal(data) in ("", "malformed")


# --- values ------------------------------------------------------------------------------------------


def place(names, metric):
    return names["device"], metric.replace("/", ".")


class Desk:
    """A decoder with one device; `is_slow` leaves all to the reference."""

    def __init__(self, is_slow=False, takes_transient=False):
        self.directory = SensorDirectory()
        groups = DeviceGroups(self.directory, owns_units=False)
        self.metrics = SparkplugMetrics(groups, place, RuleSettings(path="{metric}", max_keys=1_000))
        more = {"scan": lambda data, first, last, *rest: (first, 1)} if is_slow else {}
        self.decoder = NodeMetricDecoder("d", self.directory, self.metrics, takes_transient, **more)
        self.space = self.metrics.space({"device": "leon/tank"})
        self.messages = []

    def decode(self, births, datas):
        """Births first, then data; (samples, rejects)."""
        messages = [TopicMessage("t", data, ARRIVAL_NS + i) for i, data in enumerate([*births, *datas])]
        self.decoder.begin(messages)
        for i in range(len(messages)):
            if i < len(births):
                self.decoder.birth(i, self.space, read_payload(births[i]))
            else:
                self.decoder.data(i, [self.space])
        return self.found(self.decoder.end(ARRIVAL_NS))

    def found(self, decoded):
        samples = []
        for batch in decoded.batches:
            batch.check_columns()
            assert (self.directory.layout_index[batch.slot] >= 0).all()
            for slot, column, ts_ns, kept in flat(batch):
                assert self.directory.layout(slot).dtype == batch.dtype
                value = kept.value if batch.dictionary is None else batch.dictionary[kept.value]
                samples.append((self.directory.sensor_path(slot, column), ts_ns, value, kept.quality))
        return samples, decoded.rejects


def same(a, b):
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


NUMBERS = {kind: st.integers(*bounds) for kind, bounds in RANGES.items()}
TYPED = st.one_of(
    *(st.tuples(st.just(kind), some) for kind, some in NUMBERS.items()),
    st.tuples(st.just(DataType.FLOAT), st.floats(width=32)),
    st.tuples(st.just(DataType.DOUBLE), st.floats()),
    st.tuples(st.just(DataType.BOOLEAN), st.booleans()),
    st.tuples(st.sampled_from(sorted(TEXTS)), st.text(max_size=20).filter(lambda text: "\x00" not in text)),
)


@pytest.mark.parametrize("is_slow", [False, True], ids=["scanner", "reference"])
@pytest.mark.parametrize("names", ["alias", "name"])
@settings(max_examples=15)
@given(st.lists(TYPED, min_size=1, max_size=12), st.data())
def test_every_type_arrives_as_it_was_sent(names, is_slow, typed, data):
    """Births and data of all types, written by protobuf; the value, time and quality that come out are those."""
    desk = Desk(is_slow)
    births, reports = Payload(timestamp=BORN_MS), Payload(timestamp=2_000, seq=1)
    expected = []
    for number, (kind, value) in enumerate(typed):
        one, other = births.metrics.add(), reports.metrics.add()
        one.name, one.alias, one.datatype, one.is_null = f"m{number}", 7 * number, kind, True
        if names == "alias":
            other.alias = 7 * number
        else:
            other.name = f"m{number}"
        field = {
            DataType.FLOAT: "float_value",
            DataType.DOUBLE: "double_value",
            DataType.BOOLEAN: "boolean_value",
        }
        is_wide = kind in (DataType.INT64, DataType.UINT64, DataType.DATETIME)
        is_wide |= kind == DataType.UINT32 and data.draw(st.booleans())
        name = field.get(kind, "string_value" if kind in TEXTS else "long_value" if is_wide else "int_value")
        sent = value % 2 ** (64 if is_wide else 32) if kind in RANGES else value
        setattr(other, name, sent)
        ts_ms = 2_000
        if data.draw(st.booleans()):
            other.timestamp = ts_ms = data.draw(st.integers(1, 5_000))
        quality = data.draw(st.sampled_from([None, 192, 0, 500]))
        if quality is not None:
            other.properties.keys.append("Quality")
            other.properties.values.add(type=3, int_value=quality)
        expected.append(
            (f"leon/tank/m{number}", ts_ms * MS, value, int(quality_of(192 if quality is None else quality)))
        )
    samples, rejects = desk.decode([births.SerializeToString()], [reports.SerializeToString()])
    assert not rejects, rejects[0].detail
    born = [one for one in samples if one[1] == BORN_MS * MS]
    assert [one[3] for one in born] == [Quality.BAD] * len(typed), "births say that all are null"
    found = sorted((one for one in samples if one not in born), key=lambda one: one[0])
    for one, other in zip(found, sorted(expected, key=lambda one: one[0]), strict=True):
        assert (one[0], one[1], one[3]) == (other[0], other[1], other[3])
        assert same(one[2], other[2])


# --- scanner and reference ---------------------------------------------------------------------------

BIRTH = write_payload(
    1_000, 0, [
        SparkplugValue(1, DataType.INT64, "bdSeq"),
        SparkplugValue(False, DataType.BOOLEAN, "Node Control/Rebirth", 90),
        SparkplugValue(-5, DataType.INT8, "i8", 1), SparkplugValue(5, DataType.UINT8, "u8", 2),
        SparkplugValue(-5, DataType.INT32, "i32", 3), SparkplugValue(5, DataType.UINT32, "u32", 4),
        SparkplugValue(-5, DataType.INT64, "i64", 5), SparkplugValue(5, DataType.UINT64, "u64", 6),
        SparkplugValue(0.5, DataType.FLOAT, "f32", 7), SparkplugValue(0.5, DataType.DOUBLE, "f64", 8),
        SparkplugValue(True, DataType.BOOLEAN, "on", 9), SparkplugValue("run", DataType.STRING, "state", 10),
        SparkplugValue(None, DataType.INT8_ARRAY, "list", 11), SparkplugValue(7, DataType.DATETIME, "when", 2**63),
    ],
)  # fmt: skip
KNOWN = ["i8", "u8", "i32", "u32", "i64", "u64", "f32", "f64", "on", "state", "list", "when", "new", "bdSeq"]


@st.composite
def reports(draw):
    payload = Payload()
    if draw(st.integers(0, 3)):
        payload.timestamp = draw(TIMES)
    if draw(st.booleans()):
        payload.seq = draw(st.integers(0, 255))
    for _ in range(draw(st.integers(0, 6))):
        metric = payload.metrics.add()
        draw(fill_metric(metric, 1))
        metric.ClearField("name")
        if draw(st.integers(0, 4)):
            metric.ClearField("datatype")
        if draw(st.booleans()):
            metric.alias = draw(st.integers(1, 12) | st.sampled_from([90, 2**63]))
            if draw(st.integers(0, 3)):
                metric.ClearField("properties")
        else:
            metric.name = draw(st.sampled_from(KNOWN))
    return payload.SerializeToString()


def ordered(samples):
    return sorted((path, ts_ns, repr(value), quality) for path, ts_ns, value, quality in samples)


def told(rejects):
    return sorted((str(r.code), r.detail, r.raw, r.n_samples) for r in rejects)


@settings(max_examples=40)
@given(st.lists(reports() | mutated(reports()), min_size=1, max_size=4), st.booleans())
def test_the_scanner_reads_as_the_reference_reads(datas, takes_transient):
    one, other = Desk(False, takes_transient), Desk(True, takes_transient)
    fast, slow = one.decode([BIRTH], datas), other.decode([BIRTH], datas)
    assert ordered(fast[0]) == ordered(slow[0])
    assert told(fast[1]) == told(slow[1])
    assert one.decoder.n_transient == other.decoder.n_transient
    assert list(one.decoder.unknown) == [one.space] * bool(other.decoder.unknown)


def is_skipped(metric):
    """bdSeq, and the command that has alias 90, with all that would be a part of it."""
    key = metric.alias if metric.name is None else metric.name
    return key == 90 or (key == "bdSeq" and metric.field != 18)


def leaves(metrics):
    for metric in metrics:
        if metric.field == 18:
            if not metric.value.is_definition:
                yield from leaves(metric.value.metrics)
        else:
            yield metric


@settings(max_examples=30)
@given(st.lists(mutated(reports()), min_size=1, max_size=4))
def test_every_value_is_a_sample_or_in_a_reject_or_not_to_be_stored(datas):
    desk = Desk()
    samples, rejects = desk.decode([BIRTH], datas)
    expected = len(read_payload(BIRTH).metrics) - 2  # bdSeq, and a command
    for data in datas:
        try:
            metrics = read_payload(data).metrics
        except PayloadError:
            expected += 1
            continue
        expected += sum(1 for _ in leaves(metric for metric in metrics if not is_skipped(metric)))
    assert len(samples) + sum(r.n_samples for r in rejects) + desk.decoder.n_transient == expected


@settings(max_examples=15)
@given(st.lists(reports(), min_size=1, max_size=4), st.integers(1, 3))
def test_slices_do_not_change_what_is_read(datas, size):
    """All at once, or some at a time."""
    whole, parts = Desk(), Desk()
    expected = whole.decode([BIRTH], datas)
    samples, rejects = parts.decode([BIRTH], [])
    for first in range(0, len(datas), size):
        some = parts.decode([], datas[first : first + size])
        samples, rejects = samples + some[0], rejects + some[1]
    timed = [one for one in ordered(samples) if one[1] < ARRIVAL_NS or one[1] > ARRIVAL_NS + 10]
    assert timed == [one for one in ordered(expected[0]) if one[1] < ARRIVAL_NS or one[1] > ARRIVAL_NS + 10]
    assert told(rejects) == told(expected[1])


@settings(max_examples=40)
@given(payloads().map(lambda payload: payload.SerializeToString()))
def test_sequence_numbers_are_those_that_are_read(data):
    seq = read_payload(data).seq
    found = scanner.sequence_of(np.frombuffer(data, np.uint8))
    assert found == (-1 if seq is None else seq) or b"\x22" in data
    with_noise = data + b"\x12"
    assert scanner.sequence_of(np.frombuffer(with_noise, np.uint8)) == -1


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(TYPED, st.none() | st.integers(0, 2**64 - 1), st.booleans(), st.booleans()), max_size=6
    )
)
def test_what_we_write_protobuf_reads(typed):
    values = [
        SparkplugValue(
            value, kind, "n" if alias is None else None, alias, 5, names_type=flag, is_historical=other,
            quality=192 if flag else None, unit="mm" if other else None,
        )
        for (kind, value), alias, flag, other in typed
    ]  # fmt: skip
    payload = Payload.FromString(write_payload(1, 2, values))
    assert (payload.timestamp, payload.seq, len(payload.metrics)) == (1, 2, len(values))
    check_same(write_payload(1, 2, values), payload)
    for metric, one in zip(payload.metrics, values, strict=True):
        assert metric.HasField("datatype") == one.names_type
        assert metric.is_historical == one.is_historical
