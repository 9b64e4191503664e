"""Floats and the integers behind them."""

from __future__ import annotations

import json

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.codecs.base import Unfit, same_bits
from headrace.codecs.origin import OriginCodec, explains
from headrace.codecs.origin_kernels import AS_READ, DECIMAL
from headrace.codecs.origins import Origin, find_origins
from headrace.core.errors import CorruptionError

RANDOM = np.random.default_rng(3)
N = 1_000
WALK = np.cumsum(RANDOM.integers(-9, 10, N)) + 4_000
SINGLES = RANDOM.normal(50, 9, N).astype(np.float32)


def texts_of(values):
    """The origins that are tried, in words."""
    return [one.text() for one in find_origins(np.asarray(values, np.float64))]


def printed(values):
    """As programs write a float32: 10 digits, 9 decimals at most."""
    return np.array([float(f"{v:.9f}") if abs(v) < 10 else float(f"{v:.10g}") for v in values.astype(float)])


def fast_parsed(text):
    """What a parser makes of a text that does not look ahead: that of pandas before 3.1."""
    whole, _, part = text.partition(".")
    number = 0.0
    for digit in whole + part:
        number = number * 10.0 + int(digit)
    power, n = 10.0, len(part)
    while n:
        if n & 1:
            number /= power
        n >>= 1
        power *= power
    return number


SOURCES = {
    "decimals": (WALK / 100, "2 decimals"),
    "whole": (WALK.astype(float), "0 decimals"),
    "product": (WALK * 0.001, "3 decimals by product"),
    "float32": (SINGLES.astype(float), "float32"),
    "float32 text": (printed(SINGLES), "float32 text"),
    "float32 decimals": ((WALK / 10).astype(np.float32).astype(float), "1 decimals as float32"),
    "converter": (WALK * 0.000162435, "step 0.000162435, offset 0"),
    "converter, decimals": (np.floor(WALK * 66.98 + 0.7) / 1000, "3 decimals, step 66.98"),
    "as read": (np.array([fast_parsed(repr(v / 1000)) for v in WALK.tolist()]), "3 decimals as read"),
    "noise": (RANDOM.normal(0, 1, N), "float64"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_source_is_found_and_the_values_come_back(name):
    values, text = SOURCES[name]
    assert any(one.startswith(text) for one in texts_of(values))
    codec = OriginCodec()
    payload = codec.encode(values)
    assert same_bits(codec.decode(payload, N, values.dtype), values)
    if name != "noise":
        assert len(payload) < 0.55 * 8 * N, "what the source has, not what a float64 may"


def test_a_text_that_a_fast_parser_read():
    singles = (WALK / 1000).astype(np.float32).astype(float)
    values = np.array([fast_parsed(repr(v)) for v in singles.tolist()])
    assert (values != singles).mean() > 0.1, "it rounds at each step"
    assert texts_of(values) == ["3 decimals as float32 text"]
    origin = find_origins(values)[-1]
    assert (origin.values(origin.numbers(values)) == values).mean() > 0.97


@pytest.mark.parametrize("digits", range(16))
def test_decimals_as_a_fast_parser_reads_them(digits):
    whole = np.concatenate([WALK, -WALK, [10, 1_000, -500]])
    texts = [f"{abs(number) / 10**digits:.{digits}f}" for number in whole.tolist()]
    texts = [text.rstrip("0").rstrip(".") if digits else text for text in texts]
    wanted = np.array([fast_parsed(text) for text in texts]) * np.sign(whole)
    assert np.array_equal(Origin(DECIMAL, AS_READ, digits).values(whole), wanted)
    assert Origin(DECIMAL, AS_READ, digits).values(np.array([0]))[0].tobytes() == bytes(8)


def test_texts_are_remembered_apart_from_those_of_other_digits():
    """The same whole number is another value with other digits: what was parsed before is never taken for it."""
    whole = 7_903 + 67 * np.arange(600)
    sources = [
        np.array([fast_parsed(repr(float(np.float32(number / 10**digits)))) for number in whole.tolist()])
        for digits in (2, 3, 2)
    ]
    codec = OriginCodec()
    bodies = [codec.encode(values) for values in sources]
    for _ in range(2):
        for values, body in zip(sources, bodies, strict=True):
            assert same_bits(codec.decode(body, len(values), values.dtype), values)


@pytest.mark.parametrize(
    "stranger", [np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e300, 12.345678901234567], ids=str
)
def test_strangers_are_patched(stranger):
    values = WALK / 10
    values[[0, 5, 6, 500, N - 1]] = stranger
    payload = OriginCodec().encode(values)
    assert same_bits(OriginCodec().decode(payload, N, values.dtype), values)
    assert len(payload) < len(OriginCodec().encode(WALK / 10)) + 120


@settings(deadline=None, max_examples=80)
@given(
    hnp.arrays(np.float64, st.integers(0, 200), elements=st.floats(width=64))
    | hnp.arrays(np.int64, st.integers(0, 200), elements=st.integers(-(10**6), 10**6)).map(lambda i: i / 1000)
    | hnp.arrays(np.float32, st.integers(0, 200), elements=st.floats(width=32)).map(
        lambda v: v.astype(np.float64)
    )
)
def test_any_floats_come_back(values):
    assert same_bits(OriginCodec().decode(OriginCodec().encode(values), values.size, values.dtype), values)


@pytest.mark.parametrize("step", [1e-300, 3e-39, 1.1e39, 1.1e200])
def test_steps_beyond_float32_are_kept_whole(step):
    values = (np.arange(-200, 200) % 37) * step
    payload = OriginCodec().encode(values)
    assert same_bits(OriginCodec().decode(payload, values.size, values.dtype), values)


def test_what_has_no_source_is_not_explained():
    assert explains(OriginCodec().pack(WALK / 10))
    assert not explains(OriginCodec().pack(RANDOM.normal(0, 1, N)))
    assert explains(OriginCodec().pack(np.append(WALK / 10, np.nan)))


def test_float32_comes_back_as_float32():
    values = (WALK / 10).astype(np.float32)
    payload = OriginCodec().encode(values)
    assert same_bits(OriginCodec().decode(payload, N, values.dtype), values)
    with pytest.raises(CorruptionError, match="float64"):
        OriginCodec().decode(payload, N, np.dtype(np.float64))


@pytest.mark.parametrize("first", [0, 1_000_000, -1_300_000])
def test_a_number_is_as_far_off_each_time(first):
    values = (first + RANDOM.integers(0, 40, N)) * 1.0000000015432027e-06
    values[values == values[0]] = np.nextafter(values[0], 1.0)
    payload = OriginCodec().encode(values)
    assert same_bits(OriginCodec().decode(payload, N, values.dtype), values)
    assert len(payload) < N


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_integers_are_their_own_origin(dtype):
    limits = np.iinfo(dtype)
    for values in (WALK.astype(dtype), np.array([limits.min, limits.max, 0] * 30, dtype)):
        body = OriginCodec().pack(values)
        assert explains(body)
        assert same_bits(OriginCodec().unpack(body, values.size, values.dtype), values)
        other = np.dtype("u2" if dtype == "i2" else "i2")
        with pytest.raises(CorruptionError, match=str(other)):
            OriginCodec().unpack(body, values.size, other)


def test_what_no_float64_holds_is_unfit():
    with pytest.raises(Unfit, match="bool"):
        OriginCodec().encode(np.ones(3, bool))
    signalling = np.array([0x7F800001], np.uint32).view(np.float32)
    with pytest.raises(Unfit, match="float32"):
        OriginCodec().encode(signalling)


@pytest.mark.parametrize("name", SOURCES)
def test_damaged_bodies_are_told_or_give_other_values(name):
    """Behind a checksum that fits them: no crash, no hang."""
    values, codec = SOURCES[name][0].copy(), OriginCodec()
    values[10:20] = np.nan
    body = codec.unseal(codec.encode(values))
    for _ in range(10 if numba.config.DISABLE_JIT else 300):
        damaged = bytearray(body)
        for place in RANDOM.integers(0, min(60, len(body)), RANDOM.integers(1, 4)).tolist():
            damaged[place] = int(RANDOM.integers(256))
        try:
            assert codec.decode(codec.seal(bytes(damaged)), N, values.dtype).size == N
        except CorruptionError:
            continue


def test_an_origin_is_its_bytes():
    for origin in (Origin(), Origin(1, 2, 3, True, 66.98, -0.25), Origin(4, 0, 0, False, 0.1, 0.0)):
        assert Origin.from_bytes(origin.to_bytes() + b"more") == (origin, len(origin.to_bytes()))
    assert json.dumps(OriginCodec().to_dict()) == '{"name": "origin"}'
