"""Bodies of integers: what comes back, which coder wins, and what damaged ones are answered with."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.codecs import adaptive, model
from headrace.codecs.adaptive import PLAIN, SLACK_WORDS
from headrace.codecs.compiled import wrapping
from headrace.codecs.integers import decode_integers, encode_integers
from headrace.codecs.lpc import (
    ORDER_MAX,
    PAD,
    ROOM,
    correlate,
    fill_window,
    predictor,
    residuals,
    restore,
    whole_signal,
)
from headrace.codecs.origin import OriginCodec
from headrace.codecs.packing import get_signed, get_sized, get_varint, put_signed, put_sized, put_varint
from headrace.core.errors import CorruptionError

PALETTE, PCO, ADAPTIVE, CENTRED, STEPS, SPARSE, AROUND, SAME, MODEL = range(9)
RANDOM = np.random.default_rng(7)
WALK = np.cumsum(RANDOM.integers(-50, 50, 2_000))
CALM_THEN_LIVELY = np.concatenate([RANDOM.integers(-2, 3, 400), RANDOM.integers(-900, 900, 400)] * 2)
HUM = np.round(2_000 * np.sin(np.arange(2_000) / 3.3) + RANDOM.normal(0, 3, 2_000)).astype(np.int64)
GAPS = np.arange(1_000) + np.cumsum(RANDOM.random(1_000) < 0.06)
NUMBERS = {
    "walk": WALK,
    "constant": np.full(500, -3),
    "calm, then lively": CALM_THEN_LIVELY,
    "hum": HUM,
    "gaps": GAPS,
    "steps": 40 * WALK[:700] + 17,
    "palette": RANDOM.choice([-7_001, 0, 3_333, 9_999], 900),
    "levels": RANDOM.choice(RANDOM.integers(-9_999, 9_999, 60), 900),
    "wild": np.where(np.arange(900) % 50 == 0, 10**9, WALK[:900]),
    "packs": np.cumsum(RANDOM.choice([0, 6, 12, 25, 144], 2_000)),
    "few": np.array([3, 1, 2]),
    "limits": np.array([-(2**63), 2**63 - 1, 0, -1, 1] * 20),
}


def adaptive_body(numbers, order):
    words = np.zeros(2 * numbers.size + SLACK_WORDS, np.uint64)
    with wrapping():
        first, bits = adaptive.encode(numbers.view(np.uint64), order, words)
    return bytes([order | int(first) << 2]) + words.tobytes()[: (int(bits) + 7) // 8]


def model_body(numbers, order):
    out = np.empty(11 * numbers.size + 64, np.uint8)
    with wrapping():
        size = model.encode(numbers.view(np.uint64), order, model.scratch_for(24 * numbers.size), out)
    return out[:size].tobytes()


def same(numbers):
    numbers = np.asarray(numbers, np.int64)
    return np.array_equal(decode_integers(encode_integers(numbers), numbers.size), numbers)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_come_back(name):
    assert same(NUMBERS[name])


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.int64, st.integers(0, 300), elements=st.integers(-(2**63), 2**63 - 1))
    | hnp.arrays(np.int64, st.integers(0, 300), elements=st.integers(-9, 9)).map(np.cumsum)
)
def test_any_numbers_come_back(numbers):
    assert same(numbers)


@pytest.mark.parametrize(
    ("name", "coder"),
    [
        ("walk", MODEL),
        ("hum", CENTRED),
        ("palette", PALETTE),
        ("levels", PCO),
        ("packs", PCO),
        ("gaps", SPARSE),
        ("steps", STEPS),
        ("constant", SAME),
    ],
)
def test_each_kind_of_signal_has_its_coder(name, coder):
    assert min(encode_integers(NUMBERS[name])[0], MODEL) == coder


def test_the_parameter_follows_the_numbers():
    fixed = 800 * (11 + 1.5) / 8  # bits of a Rice code for the lively half, for all of them
    assert len(adaptive_body(CALM_THEN_LIVELY, PLAIN)) < 0.75 * 2 * fixed


@pytest.mark.parametrize("order", range(4))
def test_every_order_of_the_adaptive_coder(order):
    for numbers in NUMBERS.values():
        body = bytes([ADAPTIVE]) + adaptive_body(numbers, order)
        assert np.array_equal(decode_integers(body, numbers.size), numbers)


@pytest.mark.parametrize("order", range(4))
def test_every_order_of_the_model(order):
    for numbers in NUMBERS.values():
        body = model_body(numbers, order)
        assert np.array_equal(decode_integers(body, numbers.size), numbers)


@pytest.mark.parametrize("name", NUMBERS)
def test_damaged_bodies_are_told_or_give_other_numbers(name):
    """Without the checksum of the codec around them: no crash, no hang, no memory but for n numbers."""
    numbers = NUMBERS[name]
    body = encode_integers(numbers)
    for _ in range(10 if numba.config.DISABLE_JIT else 300):
        damaged = bytearray(body)
        for place in RANDOM.integers(0, len(body), RANDOM.integers(1, 4)).tolist():
            damaged[place] = int(RANDOM.integers(256))
        cut = bytes(damaged[: int(RANDOM.integers(len(body) + 1))] if RANDOM.random() < 0.3 else damaged)
        try:
            assert decode_integers(cut, numbers.size).size == numbers.size
        except CorruptionError:
            continue


@pytest.mark.parametrize("coder", range(9))
def test_nonsense_is_told(coder):
    for n in (0, 1, 100):
        for size in (0, 1, 5, 40):
            body = bytes([coder]) + RANDOM.bytes(size)
            try:
                assert decode_integers(body, n).size == n
            except CorruptionError:
                continue
    with pytest.raises(CorruptionError):
        decode_integers(bytes([coder]), 100)


def test_wide_numbers_have_no_step():
    numbers = np.array([-(2**63), 2**63 - 2, 0, 2**62] * 20)  # their differences wrap around
    assert encode_integers(numbers)[0] != STEPS
    assert same(numbers)


@pytest.mark.parametrize("n", [*range(64, 68), *range(510, 516)])
def test_one_state_or_two_by_turns(n):
    numbers = np.cumsum(np.random.default_rng(n).integers(-400, 400, n))
    body = model_body(numbers, 1)
    assert np.array_equal(decode_integers(body, n), numbers)
    for cut in range(0, len(body), 7):
        try:  # a body has no checksum of its own: other low bits of the same length are numbers too
            assert not np.array_equal(decode_integers(body[:cut], n), numbers)
        except CorruptionError:
            continue


def test_patched_values_whose_integers_pco_wrote():
    values = NUMBERS["levels"] / 100.0
    assert encode_integers(NUMBERS["levels"])[0] == PCO
    values[[3, 500]] = np.pi, -np.inf
    body = OriginCodec().pack(values)
    assert OriginCodec().unpack(body, values.size, values.dtype).tobytes() == values.tobytes()


def predictor_order(numbers):
    n = numbers.size
    window = np.empty(n)
    fill_window(window)
    rooms, coefficients = (np.empty(n), np.zeros(ROOM)), np.zeros(ORDER_MAX, np.int64)
    return predictor(numbers, 0, window, float(np.abs(numbers).max()), rooms, coefficients)[0]


def test_noise_is_not_predicted():
    assert predictor_order(RANDOM.integers(-500, 500, 4_000)) == 0
    assert predictor_order(np.cumsum(RANDOM.integers(-500, 500, 4_000))) == 0, "differences are as good"
    assert 4 <= predictor_order(HUM) <= 32


@given(
    st.integers(1, 44),
    st.integers(0, 2_500),
    st.integers(1, ORDER_MAX),
    st.integers(0, 15),
    st.integers(0, 99),
)
def test_predictions_are_the_same_in_floats_as_in_integers(bits, n, order, shift, seed):
    random = np.random.default_rng(seed)
    numbers, centre = random.integers(-(2**bits), 2**bits, n + 1), int(random.integers(-9, 9))
    weights = random.integers(-(2**14), 2**14, order)
    reach, left = float(np.abs(numbers - centre).max()), np.empty(n + 1, np.int64)
    residuals(numbers, centre, weights, shift, reach, np.empty(n + 1), left)
    around = (numbers - centre).astype(object)
    later = np.zeros(0, object)
    if n + 1 > order:
        later = sum(w * around[order - 1 - k : n - k] for k, w in enumerate(weights.tolist()))
        later = around[order:] - np.array([one >> shift for one in later.tolist()], object)
    first = [around[0], *np.diff(numbers[:order]).tolist()]
    assert left.tolist() == [*first, *later.tolist()][: n + 1]


@given(
    st.integers(1, 40),
    st.integers(34, 44),
    st.integers(1, 900),
    st.integers(1, ORDER_MAX),
    st.integers(0, 15),
    st.integers(0, 99),
)
def test_what_was_predicted_comes_back_whether_numbers_stay_small_or_not(bits, more, n, order, shift, seed):
    """Sums of small numbers are made in floats: where they get larger, the rest is done in integers."""
    random = np.random.default_rng(seed)
    numbers, centre = random.integers(-(2**bits), 2**bits, n), np.int64(random.integers(-9, 9))
    large = int(random.integers(0, 2 * n))
    numbers[large : large + 9] = random.integers(-(2**more), 2**more, numbers[large : large + 9].size)
    weights = np.zeros(order + PAD, np.int64)
    weights[:order] = random.integers(-(2**15), 2**15, order)
    reach, left = float(np.abs(numbers - centre).max()), np.empty(n, np.int64)
    residuals(numbers, centre, weights[:order], shift, 2.0 * reach, np.empty(n), left)
    restore(left, centre, weights, order, shift, np.empty(order + PAD))
    assert left.tolist() == numbers.tolist()


@pytest.mark.parametrize("top", [3, 2**15, 2**43])
def test_correlations_are_exact_or_nearly_so_whatever_the_range(top):
    """A hum is predicted as well whether it is a few steps high or many."""
    wave = np.rint(top * np.sin(np.arange(6_000) / 3.0)).astype(np.int64)
    if top > 3:
        assert predictor_order(wave) >= 2
    window = np.ones(6_000)
    signal, correlation = np.empty(6_000), np.zeros(ORDER_MAX + 1)
    unit = whole_signal(wave, 0, window, float(top), signal)
    correlate(signal, (0, 5), correlation)
    assert np.array_equal(signal, np.rint(wave * unit))
    whole = [int(one) for one in signal]
    for lag in range(5):
        assert correlation[lag] == sum(a * b for a, b in zip(whole, whole[lag:], strict=False)) < 2**53


def test_a_body_cannot_be_inside_itself():
    with pytest.raises(CorruptionError):
        decode_integers(bytes([STEPS, 2, 0]) * 5_000, 10)
    with pytest.raises(CorruptionError):
        decode_integers(bytes([CENTRED, 4, 0, 1, 0, 1, 0, 1, 0, 1, 0]) * 5_000, 10)


@given(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=300))
def test_heads_come_back(number, part):
    assert get_signed(put_signed(number), 0)[0] == number
    body = b"x" + put_varint(abs(number)) + put_sized(part) + b"y"
    found, at = get_varint(body, 1)
    assert found == abs(number)
    assert get_sized(body, at) == (part, len(body) - 1)
    assert get_varint(b"\xff\xff", 0) == (0, 2)
