"""What a series is like."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.codecs.features import features_of

NS = 10**9
TIMES = np.arange(100) * NS


def test_decimals_runs_and_range():
    found = features_of(TIMES, np.repeat(np.arange(10) / 4, 10))
    assert (found.n, found.dtype, found.digits, found.mean_run, found.n_distinct) == (
        100,
        "float64",
        2,
        10.0,
        10,
    )
    assert (found.low, found.high, found.not_finite) == (0.0, 2.25, 0)
    assert features_of(TIMES, np.random.default_rng(0).random(100)).digits is None
    assert features_of(TIMES, np.arange(100, dtype=np.uint16)).digits == 0


def test_smoothness():
    rng = np.random.default_rng(0)
    assert features_of(TIMES, np.sin(np.arange(100) / 20)).smoothness > 0.98
    assert abs(features_of(TIMES, rng.normal(size=100)).smoothness) < 0.3
    assert features_of(TIMES, np.ones(100)).smoothness is None
    assert features_of(TIMES, np.arange(100.0)).change == pytest.approx(1 / 99)


def test_times():
    found = features_of(TIMES, np.ones(100))
    assert (found.interval_ns, found.regular, found.jitter_ns, found.n_gaps) == (NS, 1.0, 0, 0)
    times = TIMES.copy()
    times[50:] += 3600 * NS
    times[20] += 1000
    found = features_of(times, np.ones(100))
    assert (found.interval_ns, found.jitter_ns, found.n_gaps) == (NS, 1000, 1)
    assert found.regular == pytest.approx(96 / 99)


@pytest.mark.parametrize(
    "values", [np.empty(0), np.ones(1), np.full(3, np.nan), np.array([-1e308, 1e308, 0.0])]
)
def test_little_is_no_error(values):
    found = features_of(TIMES[: values.size], values)
    assert found.n == values.size
    assert found.change is None
