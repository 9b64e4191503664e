"""Times in payloads."""

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.adapters.payloads import times
from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.times import TimeReader

S = 1_795_446_000
NS = S * 10**9


@pytest.mark.parametrize("value", [S, S * 10**3, S * 10**6, NS, float(S), f"{S}", f"{S}.0"])
def test_the_size_of_a_number_tells_its_unit(value):
    assert TimeReader().read(value) == NS


@pytest.mark.parametrize(("unit", "factor"), [("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)])
def test_the_unit_can_be_given(unit, factor):
    assert TimeReader(unit).read(12) == 12 * factor
    assert TimeReader(unit).read(-2.5) == int(-2.5 * factor)


def test_fractions_of_a_second_survive():
    assert TimeReader().read(1795446000.5) == NS + 500_000_000
    assert TimeReader("s").read("1795446000.25") == NS + 250_000_000


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("2026-11-23T15:00:00Z", NS),
        ("2026-11-23t15:00:00z", NS),
        ("2026-11-23 15:00", NS),
        ("2026-11-23T16:00:00+01:00", NS),
        ("2026-11-23T16:00:00+0100", NS),
        ("2026-11-23 05:30:00 -09:30", NS),
        ("2026-11-23T15:00:00.123456789Z", NS + 123_456_789),
        ("2026-11-23T15:00:00,5Z", NS + 500_000_000),
        ("2026-11-23T15:00:00.1234567891234Z", NS + 123_456_789),
        ("2026-11-23T15:00:60Z", NS + 60 * 10**9),
        ("1969-12-31T23:59:59.5Z", -500_000_000),
    ],
)
def test_texts(text, expected_ns):
    reader = TimeReader()
    assert reader.read(text) == expected_ns
    assert reader.read(text) == expected_ns, "from what was remembered"


def test_a_time_without_offset_is_plant_time():
    reader = TimeReader(timezone="Europe/Madrid")
    assert reader.read("2026-11-23T16:00:00") == NS
    assert reader.read("2026-07-01T02:00:00") == TimeReader().read("2026-07-01T00:00:00Z")


@pytest.mark.parametrize(
    "value",
    [
        None, True, [1], "", "soon", "2026-13-01T00:00:00Z", "2026-11-23T25:00:00Z", "2026-11-23T15:00:61Z",
        "2026-11-23T15:00:00+99:00", "0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z", math.inf, math.nan, 10**30, "1" * 50,
        -(2**63), 2**63,
    ],
)  # fmt: skip
def test_what_is_no_time(value):
    with pytest.raises(PayloadError, match="is not a time") as e:
        TimeReader().read(value)
    assert e.value.code == "bad-time"


def test_many_at_once():
    reader = TimeReader()
    assert reader.read_many((S * 1_000, S * 1_000 + 7)) == [NS, NS + 7_000_000]
    assert reader.read_many((S, S * 1_000)) == [NS, NS], "numbers of two sizes"
    assert reader.read_many((S, float(S), "2026-11-23T15:00:00Z")) == [NS, NS, NS]
    assert TimeReader("ns").read_many((5, 3)) == [5, 3]
    with pytest.raises(PayloadError):
        TimeReader("s").read_many((1, 10**12))


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(times, "_CACHE_MAX", 2)
    reader = TimeReader()
    for minute in range(5):
        assert reader.read(f"2026-11-23T15:{minute:02}:00Z") == NS + minute * 60 * 10**9
    assert len(reader._minutes) <= 2


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(-8_000_000_000_000_000, 7_000_000_000_000_000), st.integers(-23 * 60, 23 * 60))
def test_texts_against_the_standard_library(microseconds, minutes):
    moment = EPOCH + timedelta(microseconds=microseconds)
    text = moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()
    assert TimeReader().read(text) == microseconds * 1_000


@pytest.mark.parametrize("unit", ["auto", "s", "ms", "ns"])
@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=5)
    | st.lists(st.floats() | st.floats(1e8, 1e11), min_size=1, max_size=5)
)
def test_columns_of_one_size_are_read_as_each_of_them(unit, values):
    reader = TimeReader(unit)
    found = reader.of_one_size(np.array(values))
    if found is not None:
        assert found.tolist() == [reader.read(value) for value in values]


def test_columns_of_one_size_of_two_sizes_are_left_to_others():
    reader = TimeReader()
    assert reader.of_one_size(np.array([1, 1_700_000_000_000])) is None
    assert reader.of_one_size(np.array([1.0, np.inf])) is None
    assert reader.of_one_size(np.array([2**62])).tolist() == [2**62]
    assert TimeReader("s").of_one_size(np.array([2**62])) is None
    assert reader.of_one_size(np.array([1.5, 2.25])).tolist() == [1_500_000_000, 2_250_000_000]
