"""What users say about codecs, and what is chosen then."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.codecs.bounds import Reach
from headrace.codecs.choice import (
    ANY,
    DECODE_NS,
    CodecChoice,
    bound_of,
    lossless_candidates,
    lossy_candidates,
    steered,
)
from headrace.codecs.raw import RawCodec
from headrace.codecs.registry import VALUE_CODECS
from headrace.core.errors import ConfigError

LOSSLESS = Reach()
WALK = np.round(20 + np.cumsum(np.random.default_rng(0).normal(0, 0.1, 1_000)), 1)


def back(chosen, values):
    return chosen.codec.unpack(chosen.body, values.size, values.dtype)


@pytest.mark.parametrize(
    ("settings", "text", "where"),
    [
        ({"use": "pko"}, "did you mean 'pco'", "use"),
        ({"forbid": frozenset({"originn"})}, "did you mean 'origin'", "forbid"),
        ({"forbid": frozenset({"raw"})}, "can't be forbidden", "forbid"),
        ({"use": "pco", "forbid": frozenset({"pco"})}, "used and forbidden", "forbid"),
        ({"weight": 1.5}, "from 0", "weight"),
        ({"weight": float("nan")}, "from 0", "weight"),
    ],
)
def test_what_is_no_choice(settings, text, where):
    with pytest.raises(ConfigError, match=text) as e:
        CodecChoice(**settings)
    assert e.value.where == where


@pytest.mark.parametrize("name", [n for n in VALUE_CODECS.built_in if n in DECODE_NS])
def test_a_codec_that_is_named_is_taken_where_it_can(name):
    chosen = steered(WALK, CodecChoice(use=name), LOSSLESS)
    if (
        name in ("const", "rle")
        or "eps" in VALUE_CODECS.load(name).__dataclass_fields__
        or name == "relative"
    ):
        assert chosen.codec.name not in (name, "raw")  # the rest of the choice counts
    else:
        assert chosen.codec.name == name
    assert back(chosen, WALK).tobytes() == WALK.tobytes()


@pytest.mark.parametrize("name", ["hold", "swing", "quantise"])
def test_a_codec_with_a_bound_is_taken_where_there_is_one(name):
    chosen = steered(WALK, CodecChoice(use=name), Reach(eps=0.25))
    assert (chosen.codec.name, bound_of(chosen.codec, WALK)) == (name, 0.25)
    assert np.abs(back(chosen, WALK) - WALK).max() <= 0.25
    chosen = steered(WALK, CodecChoice(use=name, share=0.01), Reach(share=0.01))
    assert chosen.codec.name == name
    assert (np.abs(back(chosen, WALK) - WALK) <= 0.01 * np.abs(WALK)).all()


def test_a_share_of_each_value():
    values = WALK.copy()
    values[::7] = 0.0
    chosen = steered(values, CodecChoice(use="relative"), Reach(share=0.01))
    assert chosen.codec.name == "relative"
    assert (back(chosen, values)[::7] == 0).all()
    assert bound_of(chosen.codec, values) == pytest.approx(0.01 * values.max())
    names = [codec.name for codec in lossy_candidates(values, Reach(share=0.01))]
    assert names == ["relative"]  # no absolute bound keeps a share of zero
    assert steered(values, CodecChoice(use="quantise"), Reach(share=0.01)).codec.name != "quantise"


def test_a_share_of_nothing_keeps_the_signs_of_zeros():
    values = np.array([0.0, -0.0] * 10)
    chosen = steered(values, CodecChoice(use="relative"), Reach(share=0.5))
    assert back(chosen, values).tobytes() == values.tobytes()
    assert bound_of(chosen.codec, values) == 0.0


def test_what_is_forbidden_is_not_taken():
    free = steered(WALK, CodecChoice(weight=0.0, forbid=frozenset({"seasonal"})), LOSSLESS)
    without = steered(WALK, CodecChoice(forbid=frozenset({free.codec.name})), LOSSLESS)
    assert without.codec.name not in (free.codec.name, "raw")
    assert len(without.body) >= len(free.body)
    every = frozenset(n for n in VALUE_CODECS.built_in if n != "raw")
    assert steered(WALK, CodecChoice(forbid=every), LOSSLESS).codec == RawCodec()


def test_weights_lead_from_small_to_fast():
    chosen = [
        steered(WALK, CodecChoice(weight=w, forbid=frozenset({"swing"})), LOSSLESS) for w in (0, 0.5, 0.8, 1)
    ]
    sizes = [len(one.body) for one in chosen]
    costs = [DECODE_NS[one.codec.name] for one in chosen]
    assert sizes == sorted(sizes)
    assert costs == sorted(costs, reverse=True)
    assert sizes[0] < sizes[-1] == WALK.nbytes
    assert chosen[-1].codec == RawCodec()


def test_states_are_never_lossy():
    states = np.repeat(np.arange(5, dtype=np.uint8), 100)
    assert lossy_candidates(states, Reach(eps=3.0)) == []
    chosen = steered(states, CodecChoice(use="quantise"), Reach(eps=3.0))
    assert back(chosen, states).tobytes() == states.tobytes()


def test_values_that_are_not_finite_stay_as_they_are():
    values = WALK.copy()
    values[5] = np.nan
    for reach in (Reach(eps=0.5), Reach(share=0.5)):
        chosen = steered(values, CodecChoice(forbid=frozenset({"pco"})), reach)
        assert back(chosen, values).tobytes() == values.tobytes()


def test_nothing_said_is_free():
    assert ANY.is_free
    assert CodecChoice(share=0.1).is_free
    assert not CodecChoice(use="pco").is_free
    assert not CodecChoice(weight=0.1).is_free
    known = {codec.name for codec in lossless_candidates(WALK)} | {
        codec.name for codec in lossy_candidates(WALK, Reach(share=0.1))
    }
    assert known <= DECODE_NS.keys()


names = st.sampled_from([n for n in VALUE_CODECS.built_in if n != "raw"])
choices = st.one_of(
    st.builds(CodecChoice, use=names),
    st.builds(CodecChoice, forbid=st.frozensets(names, min_size=1)),
    st.builds(CodecChoice, weight=st.floats(0, 1)),
)
reaches = st.one_of(
    st.just(LOSSLESS),
    st.builds(lambda eps: Reach(eps=eps), st.floats(5e-324, 1e300)),
    st.builds(lambda share: Reach(share=share), st.floats(1e-9, 0.99)),
)
arrays = st.one_of(
    hnp.arrays(np.float64, st.integers(0, 60)),
    hnp.arrays(np.float32, st.integers(0, 60), elements={"allow_nan": False, "allow_infinity": False}),
    hnp.arrays(np.float64, st.integers(20, 60), elements=st.sampled_from([20.1, 20.2, 0.0, -0.0, 1e-300])),
    hnp.arrays(np.int16, st.integers(0, 60)),
)


@given(arrays, choices, reaches)
@settings(max_examples=150, deadline=None)
def test_whatever_is_said_no_value_is_further_off_than_it_may_be(values, choice, reach):
    with np.errstate(over="ignore"):
        chosen = steered(values, choice, reach)
        decoded = back(chosen, values)
    assert decoded.dtype == values.dtype
    assert chosen.codec.name not in choice.forbid
    if decoded.tobytes() != values.tobytes():
        assert values.dtype.kind == "f"
        assert reach.kept(decoded, values)
        assert bound_of(chosen.codec, values) > 0
