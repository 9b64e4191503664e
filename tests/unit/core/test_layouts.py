import json

import numpy as np
import pytest

from headrace.core import layouts
from headrace.core.errors import ConfigError
from headrace.core.layouts import DTYPES, MAX_COLUMNS, Column, Kind, Layout, dtype_name, numpy_dtype

OVEN = Layout(
    "u16",
    (
        Column("temperature", unit="degC", scale=0.1, offset=-40.0, low=0.0, high=400.0),
        Column("running", Kind.DISCRETE, labels=("stopped", "running")),
        Column("parts", Kind.COUNTER),
    ),
)


def one(dtype, **column):
    return Layout(dtype, (Column("t", **column),))


@pytest.mark.parametrize("name", DTYPES)
def test_value_types_have_one_name(name):
    assert dtype_name(numpy_dtype(name)) == name


def test_a_layout_survives_json():
    again = Layout.from_json(OVEN.to_json())
    assert again == OVEN
    assert again.id == OVEN.id


def test_defaults_are_left_out_of_the_json():
    assert json.loads(one("f64").to_json()) == {"dtype": "f64", "columns": [{"name": "t"}]}


def test_the_name_is_the_content():
    others = [
        one("u16"), one("u8"), one("u16", unit="bar"), one("u16", scale=2.0), one("u16", offset=1.0),
        one("u16", low=0.0), one("u16", high=0.0), one("u16", kind=Kind.COUNTER), one("u16", labels=("a",)),
    ]  # fmt: skip
    assert len({layout.id for layout in others}) == len(others)


def test_equal_numbers_are_one_layout():
    assert (
        one("u16", scale=2, offset=1, low=0, high=9).id
        == one("u16", scale=2.0, offset=1.0, low=0.0, high=9.0).id
    )


def test_columns_as_arrays():
    assert OVEN.width == 3
    assert OVEN.scale.tolist() == [0.1, 1.0, 1.0]
    assert OVEN.offset.tolist() == [-40.0, 0.0, 0.0]
    assert OVEN.has_grid
    assert one("u16", offset=1.0).has_grid
    assert not one("u16").has_grid


def test_flat_layouts_put_each_sensor_right_below_the_group():
    assert OVEN.is_flat
    for name in ("", "../b_mean", "Node Control/Rebirth"):
        assert not Layout("f64", (Column("a"), Column(name))).is_flat


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Layout("u24", (Column("a"),)), "'u24' is not one of u8"),
        (lambda: Layout("u8", ()), "1 to 65,535 columns, got 0"),
        (lambda: Layout("u8", (Column("a"), Column("b"), Column("a"))), "'a' is there twice"),
        (lambda: Column("a/"), "can't name a sensor"),
        (lambda: Column("../a*"), "can't name a sensor"),
        (lambda: Column("a", scale=0.0), "scale is not 0"),
        (lambda: Column("a", scale=float("nan")), "finite"),
        (lambda: Column("a", offset=float("inf")), "finite"),
        (lambda: Column("a", low=float("-inf")), "finite"),
        (lambda: Column("a", low=2.0, high=1.0), "swap them"),
    ],
)
def test_layouts_that_make_no_sense(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_a_layout_has_a_bounded_number_of_columns(monkeypatch):
    assert np.iinfo(np.uint16).max == MAX_COLUMNS
    monkeypatch.setattr(layouts, "MAX_COLUMNS", 2)
    with pytest.raises(ConfigError, match="got 3"):
        Layout("u8", tuple(Column(n) for n in "abc"))


def test_derived_columns_stand_beside_a_lone_sensor():
    assert Column("../{self}_mean").name == "../{self}_mean"


def limits(dtype, **column):
    low, high = one(dtype, **column).raw_limits
    assert low.dtype == high.dtype == numpy_dtype(dtype)
    return low[0].item(), high[0].item()


def test_no_limits_cost_nothing():
    assert one("f64").raw_limits is None


@pytest.mark.parametrize(
    ("dtype", "column", "raw"),
    [
        ("u16", {"low": 0.0, "high": 400.0, "scale": 0.1, "offset": -40.0}, (400, 4_400)),
        ("u16", {"low": 0.05, "high": 0.25, "scale": 0.1}, (1, 2)),
        ("u16", {"low": 0.3, "high": 0.7, "scale": 0.1}, (3, 7)),
        ("i16", {"low": 0.0, "high": 10.0, "scale": -0.1}, (-100, 0)),
        ("i16", {"low": 3.0, "scale": -1.0}, (-32_768, -3)),
        ("u8", {"low": -5.0}, (0, 255)),
        ("u8", {"high": 1e30}, (0, 255)),
        ("u8", {"low": 300.0}, (255, 0)),
        ("u8", {"high": -1.0}, (255, 0)),
        ("f64", {"low": 1.5, "high": 2.5}, (1.5, 2.5)),
        ("f64", {"high": 2.5, "scale": 2.0, "offset": 0.5}, (-np.inf, 1.0)),
        ("f32", {"low": -1e300, "high": 1e300}, (-np.inf, np.inf)),
    ],
)
def test_limits_as_raw_values(dtype, column, raw):
    assert limits(dtype, **column) == raw


def test_only_limited_columns_are_limited():
    low, high = OVEN.raw_limits
    assert (low[1:].tolist(), high[1:].tolist()) == ([0, 0], [65_535, 65_535])
