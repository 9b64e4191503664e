"""Bodies of many chunks in one kernel: the same as one by one, and none where a reader would not get the values back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.codecs.origin import OriginCodec, type_mark
from headrace.codecs.origin_coding import NO_KIND, packed
from headrace.store.wanted import to_bits
from headrace.store.warm import Packed, encode_chunk

RANDOM = np.random.default_rng(3)
WALK = np.cumsum(RANDOM.integers(-50, 50, 1_500))
SIGNALS = {
    "counts": WALK.astype(np.int32),
    "unsigned": (WALK - WALK.min()).astype(np.uint16),
    "wide": WALK.astype(np.int64) << 40,
    "steps": (40 * WALK[:700] + 17).astype(np.int64),
    "tenths": WALK / 10.0,
    "tenths as float32": (WALK / 10.0).astype(np.float32),
    "by product": WALK * 0.01,
    "whole floats": WALK.astype(np.float64),
    "few": np.arange(9) / 10.0,
}
LEFT = {
    "equal": np.full(900, 7, np.uint8),
    "one": WALK[:1],
    "noise": RANDOM.normal(size=900),
    "single noise": RANDOM.normal(size=900).astype(np.float32),
    "patched": np.where(np.arange(900) == 77, np.pi, WALK[:900] / 10.0),
    "steps of a converter": np.floor(WALK[:900] * 24.41 + 0.5) / 100.0,
    "quiet and loud numbers": np.array([0x7FA00000, 0x41200000] * 200, np.uint32).view(np.float32),
    "for pco": RANDOM.choice(RANDOM.integers(-9_999, 9_999, 60), 900),
    "nothing to gain": RANDOM.integers(0, 256, 900).astype(np.uint8),
}


def bodies_of(chunks, marks=None, *, final=False):
    bits = np.concatenate([to_bits(one) for one in chunks]).view(np.uint64)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(one) for one in chunks])])
    kinds = [type_mark(one.dtype) for one in chunks] if marks is None else marks
    return packed(bits, start, np.array(kinds, np.uint8), final)


def test_bodies_are_those_that_the_codec_makes_of_each_chunk():
    bodies, *_ = bodies_of(list(SIGNALS.values()))
    for name, body, values in zip(SIGNALS, bodies, SIGNALS.values(), strict=True):
        assert body == OriginCodec().pack(values), name
        assert OriginCodec().unpack(body, len(values), values.dtype).tobytes() == values.tobytes(), name


def test_what_needs_more_than_integers_is_left():
    bodies, *_ = bodies_of([*LEFT.values(), SIGNALS["tenths"]])
    left = dict(zip(LEFT, bodies, strict=False))
    assert {name for name, body in left.items() if body} == set()
    assert bodies[-1] == OriginCodec().pack(SIGNALS["tenths"])


def test_what_is_final_is_coded_where_others_may_be_shorter():
    left = {name: LEFT[name] for name in ("for pco", "steps of a converter", "noise", "nothing to gain")}
    bodies = dict(zip(left, bodies_of(list(left.values()), final=True)[0], strict=True))
    assert {name for name, body in bodies.items() if body} == {"for pco", "steps of a converter"}
    for name in ("for pco", "steps of a converter"):
        back = OriginCodec().unpack(bodies[name], len(left[name]), left[name].dtype)
        assert back.tobytes() == left[name].tobytes(), name


def test_chunks_without_a_kind_are_left():
    bodies, *_ = bodies_of([SIGNALS["counts"], SIGNALS["counts"]], [NO_KIND, type_mark(np.dtype(np.int32))])
    assert bodies == [b"", OriginCodec().pack(SIGNALS["counts"])]


def test_of_runs_it_says_how_many_values_they_have_at_least():
    rising, states = np.repeat(np.arange(3_000), 2), np.repeat(RANDOM.integers(0, 5, 400), 3)
    known = bodies_of([rising, states, np.arange(9)])[2]
    assert 900 < known[0] <= 1_024  # as many as it can tell
    assert known[1:] == [5, 0]


def test_runs_are_counted_and_no_chunks_are_none():
    assert bodies_of([np.array([3, 3, 4, 3, 3]), np.array([1.5, 1.5])])[1] == [3, 1]
    assert packed(np.empty(0, np.uint64), np.zeros(1, np.int64), np.empty(0, np.uint8)) == ([], [], [])


@pytest.mark.parametrize("name", [*SIGNALS, "states"])
def test_a_chunk_is_the_same_whichever_way_it_is_coded(name):
    values = SIGNALS.get(name, np.repeat(RANDOM.integers(0, 4, 90), 11).astype(np.uint8))
    ts_ns = np.arange(len(values)) * 1_000_000_000
    coded = [part[0] for part in bodies_of([values])]
    assert coded[0]
    one = encode_chunk(ts_ns, values, None, packed=Packed(*coded))
    assert one == encode_chunk(ts_ns, values, None)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["u1", "i2", "u4", "i8", "u8", "f4", "f8"]),
            st.integers(0, 3),
            st.binary(max_size=200),
        ),
        max_size=4,
    )
)
def test_any_bits_come_back_or_are_left(chunks):
    values = []
    for kind, digits, data in chunks:
        whole = np.frombuffer(data, "i1").astype(np.int64)
        near = whole / 10.0**digits if kind[0] == "f" and digits else whole
        raw = np.frombuffer(data[: len(data) // 8 * 8], kind)
        values.append(raw if digits == 3 else near.astype(kind))
    for body, one in zip(bodies_of([np.empty(0), *values])[0][1:], values, strict=True):
        if body:
            assert OriginCodec().unpack(body, len(one), one.dtype).tobytes() == one.tobytes()
