"""Sums of windows: the float64 nearest to the exact sum, however the samples are cut and joined."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.store.aggregates import Partials, join, means_of, partials_of
from headrace.store.runs import SensorSamples

NUMBERS = st.one_of(
    st.floats(-1e6, 1e6).map(lambda x: x + 1e-3 if abs(x) < 1e-3 else x),
    st.sampled_from([0.1, 0.2, 0.3, -0.1, 1.0, 2.0**-53, -(2.0**-53), 3 * 2.0**-54, -0.0]),
    st.integers(1, 100).map(lambda k: 2.0**25 + k * 2.0**-28),  # sums of which are often halves
)


def parts_of(values, cuts):
    """One row a stretch between cuts, all of one window."""
    found = []
    for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True):
        if b > a:
            v = np.array(values[a:b])
            one = SensorSamples(
                np.zeros(1, np.int64),
                np.array([0, b - a]),
                np.arange(a, b),
                v,
                np.zeros(b - a, np.uint8),
            )
            found.append(partials_of(one, 0))
    return Partials.concat(found)


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.data())
def test_a_sum_is_that_of_all_samples_whatever_the_pieces(values, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    joined = join(parts_of(values, cuts))
    assert joined.sum.tolist() == [math.fsum(values)]
    exact = sum(map(Fraction, values))
    assert Fraction(joined.sum[0]) + Fraction(joined.sum_low[0]) == exact
    mean = means_of(joined.sum, joined.sum_low, joined.count)[0]
    assert abs(Fraction(mean) - exact / len(values)) <= Fraction(math.ulp(mean))


def test_a_mean_of_equal_values_is_that_value():
    for value in (0.1, 1 / 3, 1e-5, 123.456):
        for n in (3, 7, 60, 86_400):
            whole = parts_of([value] * n, [n // 2])
            joined = join(whole)
            assert means_of(joined.sum, joined.sum_low, joined.count).tolist() == [value]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=10))
def test_a_sum_is_exact_or_says_that_it_is_not(values):
    joined = join(parts_of(values, [len(values) // 2]))
    if not math.isnan(joined.sum_low[0]):
        exact = sum(map(Fraction, values))
        assert Fraction(joined.sum[0]) + Fraction(joined.sum_low[0]) == exact
        assert joined.sum[0] == float(exact)


def test_a_sum_that_two_floats_can_not_hold_says_so():
    joined = join(parts_of([1e300, 1.0, 1e-300], [1]))
    assert joined.sum.tolist() == [1e300]
    assert math.isnan(joined.sum_low[0])
    infinite = join(parts_of([math.inf, 1.0], [1]))
    assert (infinite.sum.tolist(), math.isnan(infinite.sum_low[0])) == ([math.inf], True)
