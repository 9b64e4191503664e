"""Error measures: what must hold between them, whatever the values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.codecs.base import keeps_bound
from headrace.codecs.loss import SPECTRUM_MIN, band_losses, measure

DTYPES = st.sampled_from([np.float64, np.float32, np.int16, np.uint8])


@st.composite
def pairs(draw, elements=None, min_size=0):
    """Two arrays of one type and length."""
    dtype = np.dtype(draw(DTYPES)) if elements is None else np.dtype(np.float64)
    shape = draw(st.integers(min_size, 40))
    return tuple(draw(hnp.arrays(dtype, shape, elements=elements)) for _ in range(2))


moderate = st.floats(-1e6, 1e6)


@given(pairs())
def test_every_position_is_counted_once_and_no_measure_is_nan(pair):
    loss = measure(*pair, np.arange(pair[0].size) * 1_000_000_000)
    assert loss.n + loss.n_left_out + loss.n_differing == pair[0].size
    assert not any(isinstance(v, float) and math.isnan(v) for v in loss.to_dict().values())


@given(pairs(), st.floats(0, 1e30))
def test_the_largest_error_is_what_a_bound_promises(pair, eps):
    """`keeps_bound` is what codecs are checked with."""
    original, decoded = pair
    if np.isfinite(original).all():
        with np.errstate(over="ignore"):
            kept = keeps_bound(decoded, original, eps)
        assert kept == (measure(original, decoded).max_abs <= eps)


@given(pairs(moderate, min_size=1))
def test_measures_are_in_order(pair):
    loss = measure(*pair)
    slack = 1 + 1e-12
    assert abs(loss.mean_error) <= loss.rmse * slack
    assert loss.rmse <= loss.max_abs * slack
    assert max(abs(loss.min_error), abs(loss.max_error)) <= loss.max_abs * slack
    assert loss.pearson is None or -1.0 <= loss.pearson <= 1.0
    assert loss.acf_error is None or 0.0 <= loss.acf_error <= 2.0 * slack
    if loss.psnr_db is not None and 1e-300 < loss.nrmse < math.inf:
        assert loss.psnr_db == pytest.approx(-20 * math.log10(loss.nrmse), abs=1e-6)


@given(pairs(moderate, min_size=1))
def test_against_plain_formulas(pair):
    x, y = pair
    loss = measure(x, y)
    assert loss.max_abs == np.abs(y - x).max()
    assert loss.rmse == pytest.approx(np.linalg.norm(y - x) / math.sqrt(x.size), rel=1e-9, abs=1e-150)
    assert loss.mean_error == pytest.approx((y - x).mean(), rel=1e-9, abs=1e-9)


@given(pairs(st.integers(-1_000, 1_000).map(float)), st.integers(0, 2**32 - 1))
def test_the_order_of_samples_matters_only_to_the_autocorrelation(pair, seed):
    x, y = pair
    ts_ns = np.arange(x.size) * 1_000_000_000
    order = np.random.default_rng(seed).permutation(x.size)
    one, other = measure(x, y, ts_ns).to_dict(), measure(x[order], y[order], ts_ns[order]).to_dict()
    for name in one.keys() - {"acf_error"}:
        assert other[name] == (None if one[name] is None else pytest.approx(one[name], rel=1e-6, abs=1e-9))


@given(hnp.arrays(np.float64, st.integers(0, 40)))
def test_what_is_the_same_has_lost_nothing(values):
    loss = measure(values, values.copy(), np.arange(values.size))
    assert (loss.max_abs, loss.n_differing) == (0.0, 0)
    assert loss.psnr_db in (None, math.inf)


@given(hnp.arrays(np.float64, st.integers(SPECTRUM_MIN, 300), elements=moderate), st.floats(1e-3, 1e6))
def test_bands_part_the_whole_spectrum(values, rate_hz):
    bands = band_losses(values, 2 * values, rate_hz)
    assert bands[0].high_hz == pytest.approx(rate_hz / 2)
    assert all(upper.low_hz == lower.high_hz for upper, lower in itertools.pairwise(bands))
    assert bands[-1].low_hz == 0.0
    for band in bands:
        assert band.decoded == pytest.approx(4 * band.original)
