"""Bounds as declared, and what codecs get of them."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.codecs.bounds import Bound, Reach
from headrace.core.errors import ConfigError


def test_the_three_kinds():
    assert Bound.parse({"absolute": 0.1}).reach(0.0, 50.0) == Reach(eps=0.1)
    assert Bound.parse({"range": 0.005}).reach(-10.0, 90.0) == Reach(eps=0.5)
    assert Bound.parse({"value": 0.01}).reach(0.0, 50.0) == Reach(share=0.01)
    assert Bound.absolute(0.1) == Bound.parse({"absolute": 0.1})
    assert Bound.range(0.5).to_dict() == {"range": 0.5}
    assert Bound.parse(Bound.value(0.5).to_dict()) == Bound.value(0.5)


@pytest.mark.parametrize(("low", "high"), [(5.0, 5.0), (np.nan, 1.0), (-np.inf, np.inf), (9.0, 1.0)])
def test_a_range_that_is_none_is_lossless(low, high):
    assert Bound.range(0.01).reach(low, high).is_lossless


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ({}, "absolute = 0.1"), ("0.1", "absolute = 0.1"), ({"absolute": 1, "range": 1}, "no bound"),
        ({"relative": 0.1}, "no bound 'relative'"), ({"absolute": 0}, "above 0"), ({"range": -1.0}, "above 0"),
        ({"range": float("nan")}, "above 0"), ({"value": 1.0}, "one percent"), ({"value": True}, "a number"),
        ({"absolute": "0.1"}, "a number"),
    ],
)  # fmt: skip
def test_what_is_no_bound(written, text):
    with pytest.raises(ConfigError, match=text):
        Bound.parse(written)


def test_bounds_of_command_lines():
    assert Bound.from_text("0.1") == Bound.absolute(0.1)
    assert Bound.from_text("0.5%range") == Bound.from_text("0.5%") == Bound.range(0.005)
    assert Bound.from_text("1%value") == Bound.value(0.01)
    for wrong in ("", "x", "1%values", "-1", "150%value"):
        with pytest.raises(ConfigError):
            Bound.from_text(wrong)


def test_a_share_of_each_value_as_an_absolute_bound():
    reach = Reach(share=0.1)
    assert reach.within(np.array([-2.5, 5.0])) == 0.25
    assert reach.within(np.array([0.0, 5.0])) == 0.0
    assert Reach(eps=3.0).within(np.array([0.0, 5.0])) == 3.0
    assert Reach().is_lossless


@pytest.mark.parametrize("bound", [0.1, 0.3, 1e-7, 4e37, 16777217.0])
def test_bounds_that_codecs_get_take_four_bytes_and_are_no_wider(bound):
    within = Reach(eps=bound).within(np.empty(0))
    assert bound * (1.0 - 1e-6) <= within <= bound
    assert within == np.float32(within)


@pytest.mark.parametrize("bound", [1e-300, 1e-44, 1e300])
def test_bounds_that_no_float32_is_near_stay_what_they_are(bound):
    assert Reach(eps=bound).within(np.empty(0)) == bound


def test_what_is_kept():
    x = np.array([0.0, 10.0, -100.0])
    assert Reach(share=0.1).kept(np.array([0.0, 11.0, -90.0]), x)
    assert not Reach(share=0.1).kept(np.array([1e-9, 10.0, -100.0]), x)
    assert not Reach(share=0.1).kept(np.array([0.0, 11.1, -100.0]), x)
    assert Reach(eps=1.0).kept(x + 1.0, x)
    assert not Reach(eps=1.0).kept(x + 1.1, x)
    assert not Reach(eps=1.0).kept(np.array([0.0, np.nan, -100.0]), x)
