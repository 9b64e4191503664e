"""OPC UA's values, whatever they are: the scanner against asyncua's encoder, and bytes that are anything."""

import struct
from datetime import UTC, datetime, timedelta

import numpy as np
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.adapters.opcua.client import ServiceFailed
from headrace.adapters.opcua.kinds import native, qualities
from headrace.adapters.opcua.messages import publish_answer, read_answer
from headrace.adapters.opcua.scanner import GAVE_UP, ValueColumns, scan_values
from headrace.adapters.opcua.texts import value_at
from headrace.core.clock import NO_TIME
from headrace.core.errors import Rejected
from headrace.core.quality import Quality

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INTEGERS = {"SByte": 8, "Int16": 16, "Int32": 32, "Int64": 64}
UNSIGNED = {"Byte": 8, "UInt16": 16, "UInt32": 32, "UInt64": 64}
times = st.none() | st.integers(-20 * 365 * 86_400, 200 * 365 * 86_400).map(
    lambda s: EPOCH + timedelta(seconds=s, microseconds=s % 999_999)
)
variants = st.one_of(
    *[st.tuples(st.just(k), st.integers(-(2 ** (n - 1)), 2 ** (n - 1) - 1)) for k, n in INTEGERS.items()],
    *[st.tuples(st.just(k), st.integers(0, 2**n - 1)) for k, n in UNSIGNED.items()],
    st.tuples(st.just("Boolean"), st.booleans()),
    st.tuples(st.just("Float"), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("Double"), st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("String"), st.text(st.characters(exclude_categories=["Cs"]))),
)
data_values = st.tuples(variants, st.integers(0, 2**32 - 1), times, times)


def answer(found):
    response = ua.ReadResponse()
    for (kind, value), status, source, server in found:
        variant = ua.Variant(value, ua.VariantType[kind])
        response.Results.append(ua.DataValue(variant, ua.StatusCode(status), source, server))
    return struct_to_binary(response)


def ns(time):
    return NO_TIME if time is None else (time - EPOCH) // timedelta(microseconds=1) * 1_000


@settings(max_examples=60, deadline=None)
@given(st.lists(data_values, max_size=8))
def test_every_value_status_and_time_is_read_as_it_was_written(found):
    values = read_answer(answer(found))
    assert [value_at(values, row) for row in range(len(values))] == [value for (_, value), *_ in found]
    assert values.columns.status.tolist() == [status for _, status, *_ in found]
    assert values.columns.source_ns.tolist() == [ns(time) for *_, time, _ in found]
    assert values.columns.server_ns.tolist() == [ns(time) for *_, time in found]


@settings(max_examples=60, deadline=None)
@given(st.lists(data_values, min_size=1, max_size=3), st.data())
def test_bytes_that_are_changed_or_cut_are_read_or_rejected(found, data):
    body = bytearray(answer(found))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = bytes(body[: data.draw(st.integers(0, len(body)))])
    for read in (read_answer, publish_answer):
        try:
            found = read(body)
        except (Rejected, ServiceFailed):
            continue
        if read is read_answer:
            assert all(len(found.raw(row)) == found.columns.size[row] for row in range(len(found)))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 4), st.booleans())
def test_a_scan_of_anything_stays_inside(data, n, has_handles):
    columns = ValueColumns.empty(n)
    end = scan_values(np.frombuffer(data, np.uint8), 0, len(data), n, has_handles, columns)
    assert end == GAVE_UP or 0 <= end <= len(data)
    if end != GAVE_UP:
        assert (columns.first + columns.size <= len(data)).all()


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_a_status_is_as_good_as_its_severity(codes):
    found = qualities(np.array(codes, np.uint32))
    classes = [0] * len(codes) if found is None else [int(one) & 0xC0 for one in found]
    for code, one in zip(codes, classes, strict=True):
        wanted = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)[code >> 30]
        if wanted is Quality.GOOD and code & 0xC80 == 0x480:
            wanted = Quality.UNCERTAIN
        assert one == wanted


@given(st.integers(-(2**31), 2**31 - 1))
def test_integers_keep_their_sign(value):
    bits = np.array([int.from_bytes(struct.pack("<i", value), "little")], np.uint64)
    assert native(bits, 6).tolist() == [value]
