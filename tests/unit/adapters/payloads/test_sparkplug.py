"""Sparkplug payloads in plain Python: the wire, values by type, qualities, what we write."""

import pytest

from headrace.adapters.payloads import sparkplug
from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.sparkplug import DataType, SparkplugMetric, quality_of, read_payload, value_of
from headrace.adapters.payloads.sparkplug_writer import (
    SparkplugValue,
    write_payload,
)
from headrace.adapters.payloads.wire import whole, wrap
from headrace.core.quality import Quality


def metric(field=0, value=None, **rest):
    known = {"name": "a", "alias": None, "time_ms": None, "datatype": None, "is_historical": False,
             "is_transient": False, "is_null": False, "quality": 192, "unit": None, "start": 0, "end": 0}  # fmt: skip
    return SparkplugMetric(**{**known, "field": field, "value": value, **rest})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x08", "it ends inside an integer at byte 1"),
        (b"\x08" + b"\x80" * 10, "more than 10 bytes"),
        (b"\x12\x05\x0a", "it ends inside a field at byte 2"),
        (b"\x01", "no field has such a number"),
        (b"\x80\x80\x80\x80\x80\x01\x00", "no field has such a number"),
        (b"\x31\x00", "it ends inside a field"),
        (b"\x35\x00", "it ends inside a field"),
        (b"\x36", "a field of wire type 6"),
        (b"\x34", "a field of wire type 4"),
        (b"\x33\x3c", "a group ends that has not begun"),
        (b"\x33" * 40, "a field of wire type 3"),
        (b"\x22\x01\xff", "its UUID is no UTF-8"),
        (b"\x12\x03\x0a\x01\xff", "a metric's name is no UTF-8"),
        (b"\x12\x05\x4a\x03\x0a\x01\xff", "a property's name is no UTF-8"),
        (b"\x12\x07\x4a\x05\x12\x03\x42\x01\xff", "a property is no UTF-8"),
    ],
)
def test_what_is_no_payload(data, why):
    with pytest.raises(PayloadError) as e:
        read_payload(data)
    assert (str(e.value.code), why in e.value.detail) == ("malformed", True), e.value.detail


def test_fields_that_nobody_knows_are_passed_over():
    noise = b"\x30\x01" + b"\x31" + bytes(8) + b"\x35" + bytes(4) + b"\x32\x01x" + b"\x33\x40\x01\x34"
    data = noise + b"\x08\x05" + noise + wrap(2, noise + whole(2, 7) + noise) + noise
    found = read_payload(data)
    assert (found.time_ms, found.seq, found.metrics[0].alias) == (5, None, 7)
    properties = wrap(2, noise) + wrap(1, b"Quality") + noise
    (one,) = read_payload(wrap(2, wrap(9, properties))).metrics
    assert (one.quality, one.unit) == (192, None)
    (one,) = read_payload(wrap(2, wrap(18, noise + whole(5, 1)))).metrics
    assert one.value.is_definition


def test_parts_of_a_template_are_put_together_unless_another_value_came_between():
    def member(name):
        return wrap(18, wrap(2, wrap(1, name)))

    (one,) = read_payload(wrap(2, member(b"x") + member(b"y"))).metrics
    assert [m.name for m in one.value.metrics] == ["x", "y"]
    (one,) = read_payload(wrap(2, member(b"x") + whole(10, 1) + member(b"y"))).metrics
    assert [m.name for m in one.value.metrics] == ["y"]


def test_templates_have_a_depth():
    data = b""
    for _ in range(40):
        data = wrap(18, wrap(2, data))
    with pytest.raises(PayloadError, match="templates lie deeper than 32"):
        read_payload(wrap(2, data))


@pytest.mark.parametrize(
    ("datatype", "field", "raw", "value"),
    [
        (DataType.INT8, 10, 0xFF, -1), (DataType.INT8, 10, 2**32 - 1, -1), (DataType.INT8, 11, 2**64 - 1, -1),
        (DataType.INT16, 10, 0x8000, -(2**15)), (DataType.INT32, 10, 2**31, -(2**31)),
        (DataType.INT32, 11, 2**32 - 2, -2), (DataType.INT64, 11, 2**64 - 2, -2), (DataType.INT64, 10, 2**31, 2**31),
        (DataType.DATETIME, 11, 2**64 - 1, -1), (DataType.UINT8, 10, 255, 255), (DataType.UINT32, 11, 2**32 - 1, 2**32 - 1),
        (DataType.UINT64, 11, 2**64 - 1, 2**64 - 1), (DataType.BOOLEAN, 10, 1, True), (DataType.BOOLEAN, 14, False, False),
        (DataType.DOUBLE, 12, 0.5, 0.5), (DataType.FLOAT, 13, 0.5, 0.5), (DataType.UUID, 15, "ö".encode(), "ö"),
    ],
)  # fmt: skip
def test_values(datatype, field, raw, value):
    found = value_of(metric(field, raw), datatype)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("datatype", "field", "raw", "code", "why"),
    [
        (DataType.INT8, 10, 256, "wrong-type", "256 is outside of its type, INT8"),
        (DataType.UINT8, 11, 2**64 - 1, "wrong-type", "is outside of its type, UINT8"),
        (DataType.INT32, 13, 1.0, "wrong-type", "it has a double, its type is INT32"),
        (DataType.FLOAT, 13, 0.1, "wrong-type", "it has a double, its type is FLOAT"),
        (DataType.FLOAT, 13, 1e300, "wrong-type", "it has a double"),
        (DataType.BOOLEAN, 10, 2, "wrong-type", "it has an integer, its type is BOOLEAN"),
        (DataType.STRING, 16, b"x", "wrong-type", "it has bytes"),
        (DataType.STRING, 15, b"\xff", "malformed", "no UTF-8"),
        (DataType.STRING, 15, b"x" * 1_025, "wrong-type", "longer than 1,024"),
        (DataType.INT8, 0, None, "malformed", "no value and is not null"),
        (DataType.DATASET, 17, b"", "wrong-type", "values of type DATASET are not taken"),
        (DataType.FLOAT_ARRAY, 16, b"", "wrong-type", "FLOAT_ARRAY are not taken"),
        (99, 10, 1, "wrong-type", "there is no data type 99"),
    ],
)
def test_values_that_are_not_of_their_type(datatype, field, raw, code, why):
    with pytest.raises(PayloadError) as e:
        value_of(metric(field, raw), datatype)
    assert (str(e.value.code), why in e.value.detail) == (code, True), e.value.detail


def test_qualities():
    codes = {192: Quality.GOOD, 255: Quality.GOOD, 64: Quality.UNCERTAIN, 0: Quality.BAD, 128: Quality.BAD,
             500: Quality.UNCERTAIN_STALE, 448: Quality.BAD, 2**32: Quality.BAD}  # fmt: skip
    assert {code: quality_of(code) for code in codes} == codes


@pytest.mark.parametrize("key", ["engUnit", "Engineering Units", "UNITS", "eng_unit"])
def test_units_by_any_of_their_names(key):
    properties = wrap(1, b"x") + wrap(2, whole(4, 9)) + wrap(1, key.encode())
    properties += wrap(2, whole(1, 12) + wrap(8, b"bar"))
    (one,) = read_payload(wrap(2, wrap(9, properties))).metrics
    assert one.unit == "bar"


def test_what_is_written_is_read():
    values = [
        SparkplugValue(-1, DataType.INT16, "a", 2, 3, quality=500, unit="mm"),
        SparkplugValue(None, DataType.TEXT, None, 3, is_historical=True, is_transient=True, names_type=False),
        SparkplugValue("x", DataType.TEXT), SparkplugValue(2**64 - 1, DataType.UINT64),
        SparkplugValue(0.5, DataType.FLOAT), SparkplugValue(0.1, DataType.DOUBLE), SparkplugValue(True, DataType.BOOLEAN),
    ]  # fmt: skip
    found = read_payload(write_payload(1, 2, values))
    assert (found.time_ms, found.seq) == (1, 2)
    one, null, *rest = found.metrics
    assert (one.name, one.alias, one.time_ms, one.datatype, one.quality, one.unit) == (
        "a",
        2,
        3,
        2,
        500,
        "mm",
    )
    assert (null.datatype, null.is_null, null.is_historical, null.is_transient) == (None, True, True, True)
    assert [value_of(m, m.datatype) for m in (one, *rest)] == [-1, "x", 2**64 - 1, 0.5, 0.1, True]
    assert read_payload(write_payload(None, None, [])) == (None, None, ())
    assert sparkplug.DTYPE_OF[DataType.UINT32] == "i64"
