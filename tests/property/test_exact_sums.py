"""Sums of windows: the float64 nearest to the exact sum, however the samples are cut and joined."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.store.aggregate_kernels import finest_windows
from headrace.store.aggregates import Partials, coarser, join, means_of, partials_of
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


def windows_by_hand(ts_ns, values, usable, every_ns):
    """Of one sensor: (window, first and last time, count, low, high, first, last, exact sum) of each."""
    found = {}
    for ts, value, is_usable in zip(ts_ns, values, usable, strict=True):
        if is_usable:
            found.setdefault(ts // every_ns * every_ns, []).append((ts, value))
    for start, rows in found.items():
        v = [value for _, value in rows]
        yield start, rows[0][0], rows[-1][0], len(v), min(v), max(v), v[0], v[-1], sum(v)


WHOLE = st.one_of(
    st.integers(-9, 9), st.integers(-(2**32), 2**32), st.sampled_from([2**32 + 1, 2**52, -(2**53)])
)


@given(
    st.lists(st.lists(st.tuples(st.integers(1, 40), WHOLE, st.booleans()), max_size=30), max_size=3),
    st.sampled_from([1, 7, 60, 1_000]),
    st.integers(-100, 100),
)
def test_windows_of_integers_are_those_of_their_usable_samples(sensors, every_ns, start_ns):
    times = [start_ns + np.cumsum([gap for gap, _, _ in rows], dtype=np.int64) for rows in sensors]
    start = np.concatenate([[0], np.cumsum([len(rows) for rows in sensors])]).astype(np.int64)
    flat = [row for rows in sensors for row in rows]
    quality = np.array([0 if usable else 255 for _, _, usable in flat], np.uint8)
    values = np.array([value for _, value, _ in flat], np.int64)
    ts_ns = np.concatenate([np.empty(0, np.int64), *times])
    samples = SensorSamples(np.arange(len(sensors)), start, ts_ns, values, quality)
    found = partials_of(samples, every_ns)
    expected = [
        (k, *row)
        for k, rows in enumerate(sensors)
        for row in windows_by_hand(
            times[k].tolist(), [v for _, v, _ in rows], [u for _, _, u in rows], every_ns
        )
    ]
    columns = (
        found.sensor,
        found.window_ns,
        found.first_ns,
        found.last_ns,
        found.count,
        found.low,
        found.high,
    )
    columns = (*columns, found.first, found.last, found.raw_sum)
    assert list(zip(*(one.tolist() for one in columns), strict=True)) == expected
    assert found.sum.tolist() == [float(row[-1]) for row in expected]
    exact = [Fraction(total) + Fraction(low) for total, low in zip(found.sum, found.sum_low, strict=True)]
    assert exact == [row[-1] for row in expected]
    wide = replace(samples, values=values.astype(np.float64))
    if np.array_equal(wide.values.astype(np.int64), values):
        for name in ("mean", "squares"):
            assert np.allclose(getattr(partials_of(wide, every_ns), name), getattr(found, name), rtol=1e-15)


@given(
    st.lists(st.lists(st.tuples(st.integers(1, 40), NUMBERS, st.booleans()), max_size=30), max_size=3),
    st.integers(2, 99),
)
def test_longer_windows_are_what_shorter_ones_are_joined_to(sensors, factor):
    start = np.concatenate([[0], np.cumsum([len(rows) for rows in sensors])]).astype(np.int64)
    flat = [row for rows in sensors for row in rows]
    times = [np.cumsum([gap for gap, _, _ in rows], dtype=np.int64) - 300 for rows in sensors]
    samples = SensorSamples(
        np.arange(len(sensors)), start, np.concatenate([np.empty(0, np.int64), *times]),
        np.array([value for _, value, _ in flat], np.float64), np.array([0 if usable else 255 for _, _, usable in flat], np.uint8),
    )  # fmt: skip
    short = partials_of(samples, 7)
    found = coarser(short, 7 * factor)
    expected = join(replace(short, window_ns=short.window_ns // (7 * factor) * (7 * factor)))
    for name in Partials.__slots__:
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=200), st.sampled_from([1, 20, 300]), st.integers(1, 9)
)
def test_windows_are_full_enough_where_their_average_is(gaps, every_ns, samples_min):
    ts_ns = np.cumsum(gaps)
    spans = np.array([0, 3, 5]), np.array([len(ts_ns), 3, len(ts_ns)])
    out = np.zeros(3, np.int64)
    finest_windows(ts_ns, spans, np.array([True, True, len(ts_ns) > 5]), every_ns, samples_min, out)
    n = [len(np.unique(ts_ns[a:b] // every_ns)) for a, b in zip(*spans, strict=True)]
    enough = [every_ns * (b - a >= samples_min * k) for a, b, k in zip(*spans, n, strict=True)]
    assert out.tolist() == [enough[0], every_ns, enough[2] if len(ts_ns) > 5 else 0]


def two_sum(a, b):
    total = a + b
    apart = total - a
    return total, (a - (total - apart)) + (b - apart)


def moments_by_hand(values):
    """Mean and sum of squares of one window as they are defined: distances from the first, one by one, what rounding took carried."""
    shifted = carried = squares = 0.0
    for value in values[1:]:
        apart = float(value) - float(values[0])
        shifted, left = two_sum(shifted, apart)
        carried += left
        squares += apart * apart
    total, n = shifted + carried, len(values)
    return float(values[0]) + total / n, max(squares - total * total / n, 0.0)


SIZES = st.sampled_from([0.0, -0.0, 1e-300, 1e-9, 1e-3, 1.0, 1e3, 1e9, 1e18, 1e300])
LIKE_SENSORS = st.one_of(
    NUMBERS,
    st.tuples(st.floats(-1, 1), SIZES).map(lambda one: one[0] * one[1]),
    st.sampled_from([0.0, -0.0, math.nan]),
    st.integers(-(10**6), 10**6).map(lambda k: k / 100),
)


@given(st.data(), st.integers(1, 300), st.booleans())
def test_what_is_summed_side_by_side_is_what_is_summed_one_by_one(data, n, whole):
    kinds = data.draw(st.lists(WHOLE if whole else LIKE_SENSORS, min_size=1, max_size=12))
    values = np.array(kinds, np.int64 if whole else np.float64)
    values = values[np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, len(values), n)]
    quality = np.where(np.arange(n) % data.draw(st.integers(2, 99)) == 1, 255, 0).astype(np.uint8)
    samples = SensorSamples(np.zeros(1, np.int64), np.array([0, n]), np.arange(n), values, quality)
    found = partials_of(samples, 0)
    usable = values[(quality == 0) & (values == values)]
    assert len(found) == (1 if len(usable) else 0)
    if not len(usable):
        return
    ends = [min(usable.tolist()), max(usable.tolist()), usable[0], usable[-1]]
    columns = found.low, found.high, found.first, found.last
    expected = np.array(ends, values.dtype)
    assert np.concatenate(columns).tobytes() == expected.tobytes()
    with np.errstate(over="ignore", invalid="ignore"):
        moments = moments_by_hand([float(one) for one in usable])
    assert np.array([found.mean[0], found.squares[0]]).tobytes() == np.array(moments).tobytes()
    if not math.isnan(found.sum_low[0]):
        exact = sum(map(Fraction, usable.tolist()))
        assert Fraction(found.sum[0]) + Fraction(found.sum_low[0]) == exact
        assert found.sum[0] == float(exact)
    is_near = np.abs(usable).max() < 2**33 * np.abs(usable[usable != 0]).min(initial=1)
    assert not (math.isnan(found.sum_low[0]) and is_near)
