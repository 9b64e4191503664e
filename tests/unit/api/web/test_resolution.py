"""How much a chart shows, and in how many steps."""

import pytest

from headrace.api.web.resolution import MS, POINTS_MAX, VisibleSpan
from headrace.core.clock import NS

MINUTE, HOUR, DAY = 60 * NS, 3_600 * NS, 86_400 * NS


@pytest.mark.parametrize(
    ("length_ns", "width", "every_ns"),
    [
        (5 * MINUTE, 700, 500 * MS),
        (15 * MINUTE, 900, 1 * NS),
        (HOUR, 900, 5 * NS),
        (DAY, 900, 2 * MINUTE),
        (30 * DAY, 900, HOUR),
        (365 * DAY, 300, 2 * DAY),
        (NS, 900, 2 * MS),
    ],
)
def test_windows_follow_the_visible_span_and_the_width(length_ns, width, every_ns):
    assert VisibleSpan(length_ns, width_px=width).every_ns == every_ns


@pytest.mark.parametrize("length_ns", [10 * MS, 7 * NS, MINUTE, 3 * HOUR, 41 * DAY, 20 * 365 * DAY])
@pytest.mark.parametrize("width", [100, 390, 900, 4_000, 8_000])
def test_no_chart_has_more_windows_than_may_be_sent(length_ns, width):
    look = VisibleSpan(length_ns, width_px=width)
    assert length_ns / look.every_ns <= POINTS_MAX / 2


def test_a_live_span_ends_with_the_present_and_a_fixed_one_does_not():
    assert VisibleSpan(MINUTE).at(HOUR).end_ns == HOUR + 1
    fixed = VisibleSpan(MINUTE, 2 * HOUR)
    assert (fixed.is_live, fixed.at(9 * HOUR).end_ns, fixed.at(0).start_ns) == (
        False,
        2 * HOUR,
        2 * HOUR - MINUTE,
    )


def test_only_the_newest_part_is_read_again_in_whole_windows():
    look = VisibleSpan(DAY)
    part = look.newest_part(DAY * 10, look.every_ns, DAY * 10 - MINUTE)
    assert part.start_ns % look.every_ns == 0
    assert look.every_ns < part.end_ns - part.start_ns < 4 * look.every_ns
    assert VisibleSpan(NS).newest_part(DAY, None, DAY).start_ns == DAY + 1 - NS
    # After a slow reading everything since then is read again.
    assert VisibleSpan(HOUR).newest_part(DAY, None, DAY - 20 * MINUTE).start_ns == DAY - 20 * MINUTE - 10 * NS


def test_it_looks_again_as_often_as_something_can_be_seen():
    assert VisibleSpan(5 * MINUTE).renew_s == 1.0
    assert VisibleSpan(DAY).renew_s == 30.0
    assert VisibleSpan(2 * HOUR).renew_s == 5.0
    assert VisibleSpan(2 * HOUR, speed=10.0).renew_s == 1.0


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"length_ms": None, "end_ms": "x", "width": []},
        {"length_ms": -5, "end_ms": 1e300, "width": float("nan")},
        {"length_ms": 1e308, "end_ms": -1e308, "width": -1},
        {"length_ms": True, "end_ms": True, "width": True},
    ],
)
def test_a_browsers_nonsense_becomes_a_span(said):
    look = VisibleSpan.from_event(said)
    span = look.at(HOUR)
    assert -(2**63) < span.start_ns < span.end_ns < 2**63
    assert look.every_ns > 0
    assert 100 <= look.width_px <= 8_000


def test_a_browsers_span_is_taken():
    look = VisibleSpan.from_event({"length_ms": 60_000, "end_ms": 120_000, "width": 640.4})
    assert look == VisibleSpan(MINUTE, 2 * MINUTE, 640)
