"""Codecs with a bound: it is never passed, on whatever finite values, by one codec or by tiers of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.codecs.base import Unfit, keeps_bound
from headrace.codecs.quantise import QuantiseCodec
from headrace.codecs.registry import VALUE_CODECS
from headrace.testing.codecs import lossy_codecs

float_types = st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)])


@st.composite
def arrays(draw: st.DrawFn, dtype: np.dtype) -> np.ndarray:
    """Finite values: any at all, or a signal as sensors give it, of any size and distance from zero."""
    n = draw(st.integers(1, 400))
    kind = draw(st.sampled_from(["any", "few", "noise", "walk", "plateaus", "lines", "cycle", "grid"]))
    finite = hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    if kind == "any":
        return draw(hnp.arrays(dtype, min(n, 40), elements=finite))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "few":
        few = draw(hnp.arrays(dtype, draw(st.integers(1, 4)), elements=finite))
        return few[rng.integers(0, few.size, n)]
    noise = rng.normal(size=n)
    signal = {
        "noise": noise,
        "walk": np.cumsum(noise),
        "plateaus": np.repeat(noise, 30)[:n] * 9 + noise * 0.1,
        "lines": np.cumsum(np.repeat(noise, 20)[:n]) + noise * 0.1,
        "cycle": np.tile(noise[:25], 16)[:n] + rng.normal(size=n) * 0.01,
        "grid": rng.integers(-50, 50, n) * 0.1,
    }[kind]
    scale = draw(st.sampled_from([1e-320, 1e-44, 1e-12, 1.0, 230.0, 1e9, 1e30, 1e150]))
    offset = draw(st.sampled_from([0.0, 0.0, 1.0, -1e3, 1e7])) * scale
    with np.errstate(over="ignore", under="ignore"):
        return np.nan_to_num((signal * scale + offset).astype(dtype))


@st.composite
def bounds(draw: st.DrawFn, values: np.ndarray) -> float:
    """From a billionth of the largest value to a thousandfold of it, or any at all."""
    largest = float(np.abs(values.astype(np.float64)).max())
    share = draw(st.floats(1e-9, 1e-3) | st.floats(1e-3, 1e3) | st.sampled_from([0.5, 1.0, 0.25, 1e-3]))
    eps = largest * share
    if draw(st.integers(0, 9)) == 0 or not 0.0 < eps < np.inf:
        eps = draw(st.floats(5e-324, 1e300))
    return eps


@pytest.mark.parametrize("name", lossy_codecs())
@given(float_types, st.data())
@settings(max_examples=250, deadline=None)
def test_the_bound_is_never_passed(name, dtype, data):
    values = data.draw(arrays(dtype))
    codec = VALUE_CODECS.load(name)(data.draw(bounds(values)))
    try:
        payload = codec.encode(values)
    except Unfit:
        return
    decoded = codec.decode(payload, values.size, dtype)
    assert decoded.dtype == dtype
    assert keeps_bound(decoded, values, codec.eps)


@pytest.mark.parametrize("name", lossy_codecs())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_at_the_edge_of_the_bound_keep_it(name, dtype):
    """Two levels of values exactly one or two bounds apart, and their neighbours: where rounding decides."""
    rng = np.random.default_rng(0)
    for eps in (0.1, 0.25, 1 / 3, 1e-3, 7e5):
        steps = np.repeat(rng.integers(-40, 40, 40), 6) * eps + rng.integers(-1, 2, 240) * eps
        values = np.tile(steps, 3).astype(dtype)
        values = np.nextafter(values, rng.choice([-np.inf, np.inf], values.size).astype(dtype))
        codec = VALUE_CODECS.load(name)(eps)
        try:
            payload = codec.encode(values)
        except Unfit:
            continue
        assert keeps_bound(codec.decode(payload, values.size, values.dtype), values, eps)


@given(float_types, st.data())
@settings(max_examples=300, deadline=None)
def test_five_tiers_add_no_error_to_the_last_bound(dtype, data):
    values = data.draw(arrays(dtype))
    eps = data.draw(bounds(values))
    try:
        codec = QuantiseCodec(eps).fitted(values)
    except Unfit:
        return
    decoded = codec.decode(codec.encode(values), values.size, dtype)
    assert keeps_bound(decoded, values, eps)
    for _ in range(5):
        eps *= data.draw(st.sampled_from([1.0, 2.0, 3.0, 5.0, 7.0]) | st.floats(1.0, 30.0))
        try:
            codec = codec.coarser(eps, decoded)
        except Unfit:
            return
        decoded = codec.decode(codec.encode(decoded), values.size, dtype)
        assert keeps_bound(decoded, values, eps)
