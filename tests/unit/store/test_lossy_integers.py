"""Registers within a bound: whole numbers of their own type, none further from the original than the bound's whole part."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.codecs.choice import CodecChoice
from headrace.store.warm import codec_name, decode_chunk, encode_chunk

NS = 1_000_000_000
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")


def through(values, eps):
    ts_ns = np.arange(len(values)) * NS
    chunk = encode_chunk(ts_ns, values, None, eps)
    _, got, _ = decode_chunk(chunk.payload, chunk[1:3], len(values), values.dtype, (0, int(ts_ns[-1])))
    assert got.dtype == values.dtype
    return chunk, got


@given(st.sampled_from(TYPES), st.integers(0, 2**32), st.floats(0.0, 300.0), st.integers(2, 600))
@settings(max_examples=80, deadline=None)
def test_a_bound_is_kept_to_the_ends_of_the_type(dtype, seed, eps, n):
    limits, random = np.iinfo(dtype), np.random.default_rng(seed)
    low, high = max(limits.min, -(2**40)), min(limits.max, 2**40)
    start = random.choice([low, high, (low + high) // 2])
    values = np.clip(start + np.cumsum(random.integers(-9, 10, n)), low, high).astype(dtype)
    chunk, got = through(values, eps)
    error = np.abs(got.astype(np.float64) - values.astype(np.float64))
    assert error.max() <= np.floor(eps)
    assert error.max() <= chunk.max_error <= chunk.bound <= np.floor(eps)


def test_noise_below_the_bound_is_gone():
    values = (5_000 + np.random.default_rng(1).integers(-1, 2, 4_000)).astype(np.uint16)
    exact, within = through(values, 0.0)[0], through(values, 3.0)[0]
    assert exact.bound == 0.0
    assert len(within.payload) < len(exact.payload) / 20
    assert codec_name(within.value_codec) != codec_name(exact.value_codec)


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        (CodecChoice("swing"), "swing"),
        (CodecChoice("rle"), "rle"),
        (CodecChoice("const"), "hold"),  # does not fit: the rest decides
        (CodecChoice(forbid=frozenset({"seasonal"})), "hold"),
        (CodecChoice(forbid=frozenset({"hold", "piecewise_constant"})), "quantise"),
        (CodecChoice(weight=1.0), "raw"),
    ],
)
def test_what_is_said_of_codecs_holds_within_a_bound(choice, name):
    steps = np.random.default_rng(1).integers(-5, 6, 400)
    values = np.repeat(5_000 + np.cumsum(steps), 10).astype(np.uint16)
    ts_ns = np.arange(4_000) * NS
    chunk = encode_chunk(ts_ns, values, None, 3.0, choice)
    _, got, _ = decode_chunk(chunk.payload, chunk[1:3], 4_000, values.dtype, (0, int(ts_ns[-1])))
    assert codec_name(chunk.value_codec) == name
    assert (
        np.abs(got.astype(int) - values.astype(int)).max()
        <= chunk.bound
        == 3.0 * (name not in ("rle", "raw"))
    )


@pytest.mark.parametrize("values", [np.arange(50, dtype=np.uint16), np.full(300, 2**60, np.int64)])
def test_what_gains_nothing_or_is_no_float_stays_as_it_is(values):
    values = values + np.arange(len(values), dtype=values.dtype) % 7
    for eps in (0.99, 0.0):
        chunk, got = through(values, eps)
        assert chunk.bound == 0.0
        assert np.array_equal(got, values)
    assert through(np.append(values.astype(np.int64), 2**60), 5.0)[0].bound == 0.0
