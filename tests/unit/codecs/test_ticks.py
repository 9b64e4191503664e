"""Times as ticks beside a line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.codecs.ticks import TicksTime
from headrace.core.errors import CorruptionError

START, NS = 1_767_225_600_000_000_000, 1_000_000_000
RANDOM = np.random.default_rng(5)
AT = np.arange(1_024)
TIMES = {
    "regular": (START + AT * NS, 26),
    "12 kHz": (START + AT * NS // 12_000, 40),
    "12 kHz, cut out": (START + (AT + 777) * NS // 12_000, 40),
    "ms jitter": (START + AT * NS + RANDOM.integers(0, 4, AT.size) * 1_000_000, 400),
    "now and then late": (START + (AT + np.cumsum(RANDOM.random(AT.size) < 0.06)) * NS, 100),
    "two intervals": (
        START + np.cumsum(RANDOM.choice([999, 1_000, 1_001, 60_000], AT.size)) * 1_000_000,
        350,
    ),
    "few gaps": (START + np.cumsum(RANDOM.choice([1, 2, 5, 10, 30], AT.size)) * NS, 420),
    "few gaps, a short run": (START + np.cumsum(RANDOM.choice([1, 2, 5, 10, 30], 600)) * NS, 300),
    "two gaps, a line between": (START + np.cumsum(RANDOM.choice([3, 3, 3, 4], 1_400)) * NS, 200),
    "forty gaps, far apart": (
        START + np.cumsum(RANDOM.choice(RANDOM.integers(2**40, size=40), AT.size)),
        1_000,
    ),
    "from end to end": (np.cumsum(RANDOM.choice([2**60, 2**62, -(2**63)], AT.size)), 260),
    "back and forth, further than fits": (AT[:1_023] % 2 * (2**62 + 1) + AT[:1_023] // 2, 220),
}


@pytest.mark.parametrize("name", TIMES)
def test_a_clock_costs_next_to_nothing(name):
    ts_ns, most = TIMES[name]
    payload = TicksTime().encode(ts_ns)
    assert np.array_equal(TicksTime().decode(payload, ts_ns.size), ts_ns)
    assert len(payload) <= most


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 2**40), min_size=1, max_size=300),
    st.integers(500, 1_500),
    st.integers(1, 10**9),
    st.integers(0, 2**32),
)
def test_few_gaps_come_back_and_take_what_their_shares_say(gaps, n, tick, seed):
    """However many there are and far apart they lie: about what a code of whole gaps takes, where it has to be told of few."""
    random = np.random.default_rng(seed)
    chosen = random.choice(np.array(gaps, np.int64), n)
    ts_ns = START + np.cumsum(chosen) * tick
    payload = TicksTime().encode(ts_ns)
    assert np.array_equal(TicksTime().decode(payload, n), ts_ns)
    counts = np.unique(chosen, return_counts=True)[1]
    bits = float((counts * np.log2(n / counts)).sum())
    if len(counts) <= 256 and n > 512:
        assert len(payload) <= 1.15 * bits / 8 + 9 * len(counts) + 80


def test_times_that_go_round_the_clock_of_64_bits_have_no_line():
    gaps = np.full(64, 2**58) + np.random.default_rng(0).integers(0, 64, 64)
    ts_ns = np.append(0, np.cumsum(gaps))
    assert np.array_equal(TicksTime().decode(TicksTime().encode(ts_ns), ts_ns.size), ts_ns)


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.int64, st.integers(0, 100), elements=st.integers(-(2**63), 2**63 - 1)))
def test_any_times_come_back(ts_ns):
    assert np.array_equal(TicksTime().decode(TicksTime().encode(ts_ns), ts_ns.size), ts_ns)


@pytest.mark.parametrize("name", TIMES)
def test_damaged_bodies_are_told_or_give_other_times(name):
    ts_ns, codec = TIMES[name][0], TicksTime()
    body = codec.unseal(codec.encode(ts_ns))
    for _ in range(300):
        damaged = bytearray(body)
        damaged[int(RANDOM.integers(len(body)))] = int(RANDOM.integers(256))
        try:
            assert codec.decode(codec.seal(bytes(damaged)), ts_ns.size).size == ts_ns.size
        except CorruptionError:
            continue
