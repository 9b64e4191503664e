"""Grids: raw values as the decimals that people write, and back."""

import math

import numpy as np
import pytest

from headrace.core.grids import Grid, decimal_sum, value_of
from headrace.core.layouts import numpy_dtype

U16, F32 = numpy_dtype("u16"), numpy_dtype("f32")


@pytest.mark.parametrize(
    ("raw", "scale", "offset", "text"),
    [
        (1986, 0.1, 0.0, "198.6"),
        (2_486, 0.1, -50.0, "198.6"),
        (3, 0.1, 0.0, "0.3"),
        (7, 0.01, 273.15, "273.22"),
        (-7, -0.001, 0.0, "0.007"),
        (2**32 - 1, 0.00001, 0.5, "42950.17295"),
        (3, 2, -5, "1.0"),
        (5, 0.5, 0.25, "2.75"),
        (5, 1.0, 0.1, "5.1"),
        (3, 1e-22, 0.0, "3e-22"),
    ],
)
def test_values_are_the_decimals_that_people_write(raw, scale, offset, text):
    assert repr(value_of(raw, scale, offset)) == text
    assert repr(Grid.of([(scale, offset)]).values(np.array([raw]))[0].item()) == text


@pytest.mark.parametrize(
    ("scale", "offset"),
    [(1 / 3, 0.0), (0.1, 1 / 3), (0.123456789, 0.0), (1e-30, 0.0), (1e300, 1e300), (0.1, 1e300)],
)
def test_where_there_are_no_such_decimals_it_is_the_plain_sum(scale, offset):
    assert value_of(7, scale, offset) == 7 * scale + offset


def test_terms_that_a_damaged_file_may_have_are_no_error():
    assert math.isnan(value_of(1, math.nan, 0.0))
    assert value_of(1, 1.0, math.inf) == math.inf
    assert value_of(1, 0.0, 2.5) == 2.5


def test_plain_values_keep_their_bits():
    raw = np.array([-0.0, 0.0, 1.5, -np.inf])
    grid = Grid.of([(1.0, 0.0), (0.1, 0.0)])
    assert np.signbit(grid.values_at(raw, np.zeros(4, np.int64))).tolist() == [True, False, False, True]
    assert Grid.plain(2).is_plain
    assert not grid.is_plain
    assert grid.has_steps.tolist() == [False, True]
    assert grid.step.tolist() == [1.0, 0.1]


def test_each_value_has_the_grid_at_its_index(monkeypatch):
    monkeypatch.setattr("headrace.core.grids._BLOCK", 3)
    grid = Grid.of([(0.1, -50.0), (0.5, 0.0), (1 / 3, 1.0)])
    raw, index = np.arange(100, 110), np.array([0, 0, 1, 1, 1, 2, 2, 0, 1, 2])
    expected = [
        value_of(r, *[(0.1, -50.0), (0.5, 0.0), (1 / 3, 1.0)][i]) for r, i in zip(raw, index, strict=True)
    ]
    assert grid.values_at(raw, index).tolist() == expected
    assert grid.take(index).values(raw).tolist() == expected
    alike = Grid.of([(0.1, -50.0)] * 3)
    assert alike.values_at(raw, index).tolist() == [value_of(r, 0.1, -50.0) for r in raw]
    assert grid.totals(np.array([30, 30, 30]), np.array([2, 2, 2])).tolist() == [-97.0, 15.0, 12.0]


@pytest.mark.parametrize(
    ("values", "raw", "fits"),
    [
        ([0.0, 198.6, 198.60000000000002], [0, 1986, 1986], [True, True, True]),
        ([198.65, -0.1, 6553.6, np.nan, np.inf], [0, 0, 0, 0, 0], [False] * 5),
        ([6553.5, 6553.5000000001], [65_535, 0], [True, False]),
    ],
)
def test_values_on_the_grid_have_a_raw_value(values, raw, fits):
    found, there = Grid.of([(0.1, 0.0)]).nearest(np.array(values), U16)
    assert (found.tolist(), there.tolist(), found.dtype) == (raw, fits, U16)


def test_float32_files_fit_as_well_as_they_can():
    grid = Grid.of([(0.1, 0.0)])
    found, there = grid.nearest(np.array([198.6, 198.7, 198.65], F32), U16)
    assert (found[:2].tolist(), there.tolist()) == ([1986, 1987], [True, True, False])
    # Of a counter past 2**24 steps float32 does not say which step it is: this is 3000000.25.
    _, there = grid.nearest(np.array([3_000_000.2], F32), numpy_dtype("u32"))
    assert not there.any()


def test_a_sum_in_another_order_fits_too():
    values = np.arange(0, 1_000) * 0.1 - 50.0  # 501 * 0.1 - 50 is 0.10000000000000142
    found, there = Grid.of([(0.1, -50.0)]).nearest(values, U16)
    assert there.all()
    assert found.tolist() == list(range(1_000))


@pytest.mark.parametrize(
    ("dtype", "values", "fits"),
    [
        ("u64", [2.0**64, -1.0], [False, False]),
        ("i64", [2.0**63, -(2.0**63)], [False, True]),
        ("u64", [2.0**63], [True]),
    ],
)
def test_ends_of_64_bits(dtype, values, fits):
    _, there = Grid.of([(1.0, 0.0)]).nearest(np.array(values), numpy_dtype(dtype))
    assert there.tolist() == fits


def test_floats_take_any_value():
    found, there = Grid.of([(0.1, 0.0)]).nearest(np.array([1.234567, np.nan, -np.inf]), F32)
    assert there.all()
    assert found.dtype == F32
    assert found[0] == np.float32(12.34567)
    assert np.isnan(found[1])


def test_decimals_are_multiplied_as_they_are_written():
    assert decimal_sum(0.1, 3, 0.0) == 0.3
    assert decimal_sum(-50.0, 0.001, 0.2) == 0.15
    assert decimal_sum(1e300, 1e300, 0.0) == math.inf
