import numpy as np
import pytest

from headrace.cli.factory_screen import NewestValues
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.sensors import SensorDirectory

OVEN = Layout(
    "u16",
    (
        Column("temperature", unit="degC", scale=0.1, offset=-50.0),
        Column("running", Kind.DISCRETE, labels=("stopped", "running")),
    ),
)


@pytest.fixture
def directory():
    return SensorDirectory()


def dense(slots, ts_ns, values, **rest):
    return FrameBatch.dense(
        np.array(slots, np.uint32), np.array(ts_ns, np.int64), np.array(values, np.uint16), **rest
    )


def test_shows_sensors_of_different_kinds_in_engineering_units(directory):
    directory.define("s/a/line1/oven1", OVEN)
    directory.define(
        "s/a/line1/pump1", Layout("u16", (Column("flow", unit="m3/h", scale=0.01), Column("speed")))
    )
    newest = NewestValues(directory)
    newest.choose()
    assert list(newest.shown) == ["s/a/line1/oven1/temperature", "s/a/line1/pump1/flow"]
    newest.take([dense([0, 0], [20, 10], [[2_324, 1], [1, 0]])])
    shown = newest.shown["s/a/line1/oven1/temperature"]
    assert newest.value(shown) == "182.4 degC"
    assert shown.ts_ns == 20
    assert newest.value(newest.shown["s/a/line1/pump1/flow"]) == "-"


def test_a_line_runs_while_one_of_its_devices_does(directory):
    slots = directory.define_many([f"s/a/line1/oven{i}" for i in range(5)], OVEN)
    directory.define("s/a/line2/oven9", OVEN)
    newest = NewestValues(directory)
    newest.choose()
    assert newest.line_states() == [("s/a/line1", "waiting"), ("s/a/line2", "waiting")]
    newest.take([dense([0, 1], [1, 1], [[0, 0], [0, 1]])])
    assert newest.line_states() == [("s/a/line1", "running"), ("s/a/line2", "waiting")]
    newest.take([dense([1], [2], [[0, 0]])])
    assert newest.line_states()[0] == ("s/a/line1", "stopped")
    assert set(slots[:3].tolist()) <= set(newest.slots.tolist())


def test_older_values_do_not_replace_newer_ones(directory):
    directory.define("s/a/line1/oven1", OVEN)
    newest = NewestValues(directory)
    newest.choose()
    newest.take([dense([0], [20], [[2_324, 1]])])
    newest.take([dense([0], [10], [[1_000, 0]])])
    assert newest.value(newest.shown["s/a/line1/oven1/temperature"]) == "182.4 degC"


def test_bad_values_are_not_shown(directory):
    directory.define("s/a/line1/oven1", OVEN)
    newest = NewestValues(directory)
    newest.choose()
    newest.take([dense([0], [20], [[2_324, 1]], quality=np.array([[0x80, 0]], np.uint8))])
    assert newest.value(newest.shown["s/a/line1/oven1/temperature"]) == "-"


def test_reports_by_exception_keep_the_last_value_of_each_column(directory):
    directory.define("s/a/line1/oven1", OVEN)
    newest = NewestValues(directory)
    newest.choose()
    sparse = FrameBatch.sparse(
        np.array([0, 0], np.uint32),
        np.array([1, 2], np.int64),
        np.array([2_324, 1], np.uint16),
        np.array([0, 1, 2], np.int64),
        np.array([0, 1], np.uint16),
    )
    newest.take([sparse])
    assert newest.value(newest.shown["s/a/line1/oven1/temperature"]) == "182.4 degC"
    assert newest.line_states() == [("s/a/line1", "running")]


def test_sensors_that_come_later_are_found(directory):
    newest = NewestValues(directory)
    newest.choose()
    assert newest.shown == {}
    directory.define("s/a/line1/oven1", OVEN)
    newest.choose()
    assert len(newest.shown) == 1
    newest.choose()
    assert len(newest.shown) == 1


def test_labels_of_states_and_codes_without_one(directory):
    directory.define("s/a/line1/oven1", Layout("u16", (Column("temperature", labels=("cold", "hot")),)))
    newest = NewestValues(directory)
    newest.choose()
    (shown,) = newest.shown.values()
    newest.take([dense([0], [1], [[1]])])
    assert newest.value(shown) == "hot"
    newest.take([dense([0], [2], [[7]])])
    assert newest.value(shown) == "7"
