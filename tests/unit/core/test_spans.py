from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from headrace.core.errors import ConfigError
from headrace.core.spans import TimeRange, parse_range, parse_time_ns

S = 1_000_000_000
MADRID = ZoneInfo("Europe/Madrid")
MARCH = 1_772_323_200 * S  # 2026-03-01T00:00:00Z


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("2026-03-01", MARCH - 3_600 * S),
        ("2026-03-01T06:00", MARCH + 5 * 3_600 * S),
        ("2026-03-01 06:00:30", MARCH + (5 * 3_600 + 30) * S),
        (" 2026-03-01T00:00:00Z ", MARCH),
        ("2026-03-01t00:00z", MARCH),
        ("2026-03-01T00:00:00.123456789Z", MARCH + 123_456_789),
        ("2026-03-01T00:00:00.5+02:00", MARCH - 7_200 * S + S // 2),
        ("1969-12-31T23:59:59.25Z", -S + S // 4),
        ("2026-10-25T02:30", 1_761_350_400 * S + 31_536_000 * S + 1_800 * S),
    ],
)
def test_times(text, time_ns):
    assert parse_time_ns(text, MADRID) == time_ns


def test_a_time_without_offset_is_plant_time():
    assert parse_time_ns("2026-03-01", UTC) - parse_time_ns("2026-03-01", MADRID) == 3_600 * S


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-3-1",
        "2026-03-01T25:00",
        "2026-02-30",
        "12:00",
        "2026-03-01T00:00:00.1234567891Z",
    ],
)
def test_times_that_are_none(text):
    with pytest.raises(ConfigError, match="is not a time"):
        parse_time_ns(text, UTC)


@pytest.mark.parametrize("text", ["2300-01-01", "1600-01-01", "2262-04-12", "1677-09-21"])
def test_times_that_no_sample_can_have(text):
    with pytest.raises(ConfigError, match="from 1677-09-22 to 2262-04-11"):
        parse_time_ns(text, UTC)


def test_spans():
    now = MARCH + 86_400 * S
    assert parse_range(now, UTC, last="1h") == TimeRange(now - 3_600 * S, now)
    assert parse_range(now, UTC, last="1h", end="2026-03-01T12:00") == TimeRange(
        MARCH + 11 * 3_600 * S, MARCH + 12 * 3_600 * S
    )
    assert parse_range(now, UTC, start="2026-03-01") == TimeRange(MARCH, now)
    assert parse_range(now, UTC, start="2026-03-01", end="2026-03-01T01:00Z") == TimeRange(
        MARCH, MARCH + 3_600 * S
    )


@pytest.mark.parametrize("arguments", [{}, {"last": "1h", "start": "2026-03-01"}, {"end": "2026-03-01"}])
def test_one_way_to_say_where_a_span_starts(arguments):
    with pytest.raises(ConfigError, match="say which span: --last 1h"):
        parse_range(MARCH, UTC, **arguments)


@pytest.mark.parametrize(
    "arguments", [{"last": "0s"}, {"start": "2026-03-02", "end": "2026-03-01"}, {"start": "2027-01-01"}]
)
def test_empty_spans(arguments):
    with pytest.raises(ConfigError, match="the span is empty"):
        parse_range(MARCH, UTC, **arguments)
