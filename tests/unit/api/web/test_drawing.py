"""Curves as a browser draws them."""

import json

import numpy as np
import pytest

from headrace.api.listing import SensorFacts
from headrace.api.web.drawing import drawn_trend, gaps, is_stepped, plain, points_of, rows_of, sign_of
from headrace.api.web.trends import Curve, Trend
from headrace.core.clock import NS
from headrace.core.quality import Quality
from headrace.core.spans import TimeRange


def facts(path, unit="", kind="analog", labels=()):
    return SensorFacts(path, 0, unit, kind, "f64", tuple(labels), None, None, False)


def curve(path, seconds, values, **more):
    return Curve(path, np.array(seconds, np.int64) * NS, np.array(values, np.float64), **more)


MODE = facts("d/mode", kind="discrete", labels=("off", "on"))


def test_sensors_of_a_unit_share_a_row_and_states_come_last():
    found = rows_of(
        [
            MODE,
            facts("a/t", "degC"),
            facts("b/p", "kW"),
            facts("b/t", "degC"),
            facts("x/n"),
            facts("y/m_rate"),
        ]
    )
    assert [(row["title"], row["sensors"]) for row in found] == [
        ("°C", [1, 3]),
        ("kW", [2]),
        ("n", [4]),
        ("m rate", [5]),
        ("mode", [0]),
    ]
    assert found[-1]["step"]
    assert found[-1]["labels"] == ["off", "on"]


def test_units_are_printed_as_people_write_them():
    assert [sign_of(unit) for unit in ("degC", "m3/h", "mm2", "kW", "", "ohm", "m33")] == [
        "°C", "m³/h", "mm²", "kW", "", "Ω", "m33",
    ]  # fmt: skip


def test_a_line_is_parted_where_nothing_came_for_long():
    shown = points_of(curve("a", [0, 1, 2, 20, 21, 22], [1, 2, 3, 4, 5, 6]), facts("a"), None, 0)
    assert shown["v"] == [1, 2, 3, None, 4, 5, 6]
    assert shown["t"][:3] == [0, 1000, 2000]
    assert 2000 < shown["t"][3] < 2001


def test_a_slow_sensor_in_short_windows_is_no_row_of_gaps():
    ts_ns = np.arange(10) * 10 * NS
    assert not len(gaps(ts_ns, NS))
    assert gaps(np.delete(ts_ns, [4, 5, 6, 7]), NS).tolist() == [3]
    assert not len(gaps(ts_ns[:2], NS))


def test_states_keep_their_value_until_the_next_one():
    assert is_stepped(MODE)
    windows = curve(
        "d/mode",
        [0, 60],
        [0.4, 1],
        low=np.zeros(2),
        high=np.ones(2),
        last=np.array([1.0, 1.0]),
        count=np.full(2, 5.0),
    )
    shown = points_of(windows, MODE, NS, 0)
    assert (shown["v"], shown["t"], shown["n"]) == ([1, 1], [0, 60_000], [5, 5])


def test_a_mean_stands_in_the_middle_of_its_window_with_its_band():
    one = curve(
        "a",
        [0, 10],
        [5, 6],
        low=np.array([4.0, 5]),
        high=np.array([6.0, 9]),
        last=np.zeros(2),
        count=np.ones(2),
    )
    shown = points_of(one, facts("a"), 10 * NS, 0)
    assert (shown["t"], shown["lo"], shown["hi"]) == ([5_000, 15_000], [4, 5], [6, 9])


def test_samples_that_are_not_good_are_marked_where_they_stand():
    quality = np.array([0, Quality.UNCERTAIN_RANGE, 0, 0, Quality.BAD_DEVICE, Quality.ABSENT], np.uint8)
    shown = points_of(curve("a", [0, 1, 2, 50, 51, 52], range(6), quality=quality), facts("a"), None, 0)
    assert shown["q"] == [
        [1, "uncertain", "uncertain-range"],
        [5, "bad", "bad-device"],
        [6, "absent", "absent"],
    ]
    assert shown["v"][5] == 4


def test_numbers_are_short_and_none_is_lost():
    assert plain(np.array([199.98999999, np.nan, np.inf, 0.1 + 0.2])) == [199.99, None, None, 0.3]
    assert plain(np.array([123_456_789.0, 1.0])) == [123_456_789, 1]
    assert plain(np.array([1.23456789e-9])) == [1.234568e-9]
    assert plain(np.array([1e300, -1e300])) == [1e300, -1e300]
    assert plain(np.array([])) == []
    assert plain(np.zeros(2)) == [0, 0]


def test_a_trend_is_json():
    trend = Trend(
        TimeRange(1_000 * NS, 1_060 * NS), None, 1_000 * NS,
        (curve("a/t", [1_001, 1_002], [1.5, np.nan], quality=np.zeros(2, np.uint8), text="word"),), ("one is damaged",), ("b",),
    )  # fmt: skip
    shown = json.loads(json.dumps(drawn_trend(trend, {"a/t": facts("a/t", "degC")}, 1_060 * NS)))
    (series,) = shown["series"]
    assert (series["path"], series["unit"], series["t"], series["v"]) == (
        "a/t",
        "°C",
        [1_000, 2_000],
        [1.5, None],
    )
    assert (shown["base"], shown["every"], shown["points"], series["text"]) == (1_000_000, None, 2, "word")
    assert (shown["missing"], shown["gone"], shown["now"]) == (["one is damaged"], ["b"], 1_060_000)
    windows = Trend(trend.span, 60 * NS, trend.since_ns, ())
    assert drawn_trend(windows, {}, 0)["every"] == "1m"


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_points_are_drawn_too(n):
    assert len(points_of(curve("a", range(n), range(n)), facts("a"), None, 0)["t"]) == n
