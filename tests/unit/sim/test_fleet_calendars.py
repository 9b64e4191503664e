"""Shift calendars: weekends, breaks, holidays, the nights when the clock changes, and time zones."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.clock import NS
from headrace.core.errors import ConfigError
from headrace.sim.calendars import (
    CONTINUOUS,
    DAY_SHIFT,
    NEVER_NS,
    STANDARD_PLANS,
    THREE_SHIFTS,
    TWO_SHIFTS,
    Calendar,
    Shift,
    ShiftPlan,
    shift_into_work,
)

MADRID = "Europe/Madrid"
HOUR_NS = 3_600 * NS


def at(text: str, zone: str = MADRID) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * NS


def times(*texts: str, zone: str = MADRID) -> np.ndarray:
    return np.array([at(t, zone) for t in texts])


def test_a_day_shift_runs_on_workdays_without_its_breaks() -> None:
    day = Calendar(DAY_SHIFT, MADRID)
    friday = times("2026-11-20T06:59", "2026-11-20T07:00", "2026-11-20T09:05", "2026-11-20T09:15")
    assert day.running(friday).tolist() == [False, True, False, True]
    evening_and_weekend = times(
        "2026-11-20T15:59", "2026-11-20T16:00", "2026-11-21T10:00", "2026-11-22T10:00"
    )
    assert day.running(evening_and_weekend).tolist() == [True, False, False, False]


def test_the_next_change_after_friday_evening_is_monday_morning() -> None:
    day = Calendar(DAY_SHIFT, MADRID)
    asked = times("2026-11-20T16:00", "2026-11-23T07:00", "2026-11-23T06:59:59")
    assert (
        day.next_change(asked).tolist()
        == times("2026-11-23T07:00", "2026-11-23T09:00", "2026-11-23T07:00").tolist()
    )


def test_a_night_shift_belongs_to_the_day_it_starts_on() -> None:
    three = Calendar(THREE_SHIFTS, MADRID)
    # Friday's night shift ends on Saturday at six; Sunday night does not work.
    asked = times(
        "2026-11-21T05:59", "2026-11-21T06:00", "2026-11-22T23:00", "2026-11-23T01:00", "2026-11-23T06:00"
    )
    assert three.running(asked).tolist() == [True, False, False, False, True]


def test_a_holiday_starts_no_shift_but_ends_the_one_before() -> None:
    plan = ShiftPlan("nights", (Shift("22:00", "06:00"),), holidays=("2026-12-08",))
    calendar = Calendar(plan, MADRID)
    asked = times("2026-12-08T05:00", "2026-12-08T23:00", "2026-12-09T05:00", "2026-12-09T23:00")
    assert calendar.running(asked).tolist() == [True, False, False, True]


@pytest.mark.parametrize(("start", "end", "hours"), [("2026-03-28T22:00", "2026-03-29T06:00", 7), ("2026-10-24T22:00", "2026-10-25T06:00", 9), ("2026-11-21T22:00", "2026-11-22T06:00", 8)])  # fmt: skip
def test_the_night_of_the_clock_change_has_seven_or_nine_hours(start: str, end: str, hours: int) -> None:
    nights = Calendar(ShiftPlan("nights", (Shift("22:00", "06:00", (5,)),)), MADRID)
    begin = times(start)
    assert nights.running(begin).all()
    assert not nights.running(begin - 1).any()
    assert (nights.next_change(begin) - begin).tolist() == [hours * HOUR_NS]
    assert nights.next_change(begin).tolist() == times(end).tolist()
    worked = nights.state(times(end)).operating_ns - nights.state(begin).operating_ns
    assert worked.tolist() == [hours * HOUR_NS]


def test_wall_times_that_are_skipped_or_come_twice() -> None:
    # 02:30 does not exist on 29 March and comes twice on 25 October 2026.
    plan = ShiftPlan("odd", (Shift("02:30", "05:00", (6,)),))
    calendar = Calendar(plan, MADRID)
    spring, autumn = at("2026-03-29T00:00"), at("2026-10-25T00:00")
    assert (calendar.next_change(np.array([spring])) - spring).tolist() == [2.5 * HOUR_NS]
    assert (calendar.next_change(np.array([autumn])) - autumn).tolist() == [2.5 * HOUR_NS]


def test_the_time_zone_moves_the_shift() -> None:
    for zone in ("UTC", "Asia/Tokyo", "America/Sao_Paulo", "Australia/Lord_Howe"):
        day = Calendar(DAY_SHIFT, zone)
        assert day.running(times("2026-11-20T08:00", "2026-11-20T18:30", zone=zone)).tolist() == [True, False]


def test_a_plan_that_never_stops_runs_on_every_instant() -> None:
    calendar = Calendar(CONTINUOUS, MADRID)
    ts = at("2020-06-01T00:00") + np.arange(2_000) * 37 * HOUR_NS
    assert calendar.running(ts).all()
    assert (np.diff(calendar.state(ts).operating_ns) == 37 * HOUR_NS).all()


def test_a_plan_without_shifts_never_runs() -> None:
    calendar = Calendar(ShiftPlan("closed", ()), MADRID)
    ts = times("2026-11-20T08:00")
    assert not calendar.running(ts).any()
    assert calendar.next_change(ts).tolist() == [NEVER_NS]
    assert calendar.state(ts).operating_ns.tolist() == [0]


def test_operating_time_grows_exactly_while_running() -> None:
    two = Calendar(TWO_SHIFTS, MADRID)
    ts = at("2026-11-16T00:00") + np.arange(7 * 24 * 60 + 1) * 60 * NS
    state = two.state(ts)
    grown = np.diff(state.operating_ns)
    assert (grown == np.where(two.running(ts[:-1]), 60 * NS, 0)).all()
    # Five days of sixteen hours without 9:00-9:15, 12:00-12:30 and 18:00-18:30.
    assert int(state.operating_ns[-1] - state.operating_ns[0]) == 5 * (16 * 60 - 75) * 60 * NS


def test_warmth_follows_running_and_is_steady_at_every_change() -> None:
    day = Calendar(DAY_SHIFT, MADRID)
    ts = at("2026-11-20T00:00") + np.arange(24 * 60 * 6) * 10 * NS
    state = day.state(ts, tau_s=1_200.0)
    assert np.abs(np.diff(state.warmth)).max() < 0.01
    before = np.flatnonzero(ts == at("2026-11-20T06:50"))[0]
    assert state.warmth[before] < 1e-6
    assert state.warmth[np.flatnonzero(ts == at("2026-11-20T08:59"))[0]] > 0.99


def test_since_counts_from_the_last_change() -> None:
    day = Calendar(DAY_SHIFT, MADRID)
    state = day.state(times("2026-11-20T09:16", "2026-11-23T06:00"))
    assert state.since_ns.tolist() == [60 * NS, (14 + 48) * HOUR_NS]


@settings(max_examples=30, deadline=None)
@given(
    plan=st.sampled_from(STANDARD_PLANS),
    zone=st.sampled_from(["Europe/Madrid", "America/New_York", "Asia/Kolkata", "UTC"]),
    years=st.lists(st.integers(1971, 2035), min_size=1, max_size=4),
    seed=st.integers(0, 1_000),
)
def test_answers_do_not_depend_on_what_was_asked_before(
    plan: ShiftPlan, zone: str, years: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ts = np.concatenate([at(f"{y}-01-01T00:00") + rng.integers(0, 365 * 24, 50) * HOUR_NS for y in years])
    whole = Calendar(plan, zone).state(ts)
    piecewise = Calendar(plan, zone)
    for i in rng.permutation(len(ts)):
        one = piecewise.state(ts[i : i + 1])
        for name in ("running", "since_ns", "operating_ns", "warmth"):
            assert getattr(one, name)[0] == getattr(whole, name)[i], name


def test_nothing_asked_nothing_answered() -> None:
    assert len(Calendar(DAY_SHIFT, MADRID).running(np.empty(0, np.int64))) == 0


@pytest.mark.parametrize("now", ["2026-11-22T03:00", "2026-12-24T23:59", "2026-11-23T09:05"])
def test_a_demo_started_at_any_time_finds_all_lines_at_work_and_a_break_ahead(now: str) -> None:
    calendars = [Calendar(p, MADRID) for p in STANDARD_PLANS]
    now_ns = at(now) + 123_456_789
    shift = shift_into_work(calendars, now_ns, before_break_s=600.0)
    moved = np.array([now_ns + shift])
    assert all(c.running(moved).all() for c in calendars)
    stop = min(int(c.next_change(moved)[0]) for c in calendars)
    assert abs((stop - moved[0]) / NS - 600.0) <= 60.0


@pytest.mark.parametrize(
    ("plan", "zone"),
    [
        (ShiftPlan("x", (Shift("25:00", "06:00"),)), MADRID),
        (ShiftPlan("x", (Shift("06.00", "14:00"),)), MADRID),
        (ShiftPlan("x", (), breaks=(("09:00", "9:70"),)), MADRID),
        (ShiftPlan("x", (), holidays=("24.12.2026",)), MADRID),
        (DAY_SHIFT, "Europe/Leon"),
        (DAY_SHIFT, "../etc"),
    ],
)
def test_what_can_not_be_read_is_refused_at_once(plan: ShiftPlan, zone: str) -> None:
    with pytest.raises(ConfigError):
        Calendar(plan, zone)
