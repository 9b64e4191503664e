"""The bound as a budget: however often a chunk is made smaller, its error against the original keeps it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.codecs.choice import CodecChoice
from headrace.codecs.quantise import QuantiseCodec
from headrace.codecs.select import ChosenValues
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.store.ageing import recoded, tried_row
from headrace.store.recode import Spent, recode_chunk
from headrace.store.runs import SensorSamples
from headrace.store.series import SeriesMap
from headrace.store.wanted import Wanted, to_bits
from headrace.store.warm import EVEN, codec_name, decode_chunk, encode_chunk, pack_chunk
from headrace.store.warm_rows import ChunkRules, encode_warm
from headrace.store.words import Words

NS = 1_000_000_000
HEADER = (
    "t_min",
    "t_max",
    "n_samples",
    "count",
    "min",
    "max",
    "sum",
    "first",
    "last",
    "m2",
    "raw_sum",
    "quality",
    "seq",
)


@st.composite
def series(draw):
    """Values as machines make them: walks, noise, steps, cycles, on a scale and grid of their own."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(70, 400))
    shape = draw(st.sampled_from(["walk", "noise", "steps", "cycle"]))
    values = {
        "walk": lambda: np.cumsum(rng.normal(size=n)),
        "noise": lambda: rng.normal(size=n),
        "steps": lambda: np.repeat(rng.normal(size=n // 10 + 1), 10)[:n],
        "cycle": lambda: np.sin(np.arange(n) / 7) + 0.01 * rng.normal(size=n),
    }[shape]()
    values = values * 10.0 ** draw(st.integers(-3, 4)) + draw(st.sampled_from([0.0, 1.0, -1e4]))
    digits = draw(st.sampled_from([None, 1, 3]))
    values = values if digits is None else np.round(values, digits)
    return values.astype(draw(st.sampled_from([np.float32, np.float64])))


BOUNDS = st.lists(st.floats(0.0005, 0.2), min_size=5, max_size=5, unique=True).map(sorted)


@given(series(), BOUNDS)
@settings(max_examples=60, deadline=None)
def test_five_steps_never_pass_the_bound(values, bounds):
    ts_ns = np.arange(len(values)) * NS
    original = values.astype(np.float64)
    span = float(original.max() - original.min()) or 1.0
    chunk = encode_chunk(ts_ns, values, None, bounds[0] * span)
    for share in bounds[1:]:
        of = len(values), values.dtype, (0, (len(values) - 1) * NS)
        decoded = decode_chunk(chunk.payload, chunk[1:3], *of)[1].astype(np.float64)
        error = np.abs(decoded - original)
        assert error.max() <= chunk.max_error * (1 + 1e-12) <= chunk.bound * (1 + 1e-12)
        assert np.sqrt(np.mean(error**2)) <= chunk.rmse * (1 + 1e-12)
        if not chunk.bound:
            chunk = encode_chunk(ts_ns, values, None, share * span)
            continue
        again = recode_chunk(chunk.payload, chunk[1:3], of, Spent(*chunk[3:]), share * span)
        if again is not None:
            assert len(again.payload) < len(chunk.payload)
            assert again.bound == share * span
            chunk = again
    decoded = decode_chunk(chunk.payload, chunk[1:3], len(values), values.dtype, (0, (len(values) - 1) * NS))[
        1
    ].astype(np.float64)
    assert np.abs(decoded - original).max() <= bounds[-1] * span


CHOICES = st.sampled_from(
    [
        CodecChoice("quantise"),
        CodecChoice(forbid=frozenset({"quantise", "seasonal"})),
        CodecChoice(weight=0.7, share=0.5),
    ]
)


@given(series(), BOUNDS, CHOICES)
@settings(max_examples=40, deadline=None)
def test_what_is_said_of_codecs_holds_at_every_step(values, bounds, choice):
    ts_ns, original = np.arange(len(values)) * NS, values.astype(np.float64)
    span = float(original.max() - original.min()) or 1.0
    of = len(values), values.dtype, (0, (len(values) - 1) * NS)
    # The first step took what was allowed then.
    chunk = encode_chunk(ts_ns, values, None, bounds[0] * span)
    for share in bounds[1:]:
        again = None
        if chunk.bound:
            again = recode_chunk(chunk.payload, chunk[1:3], of, Spent(*chunk[3:]), share * span, choice)
        if again is None:
            continue
        assert choice.allows(codec_name(again.value_codec))
        assert again.bound == share * span
        decoded = decode_chunk(again.payload, again[1:3], *of)[1].astype(np.float64)
        assert np.abs(decoded - original).max() <= again.max_error * (1 + 1e-12) <= share * span * (1 + 1e-12)
        chunk = again


def cycle():
    return 5.0 * np.sin(np.arange(600) / 30) + np.random.default_rng(3).normal(0.0, 0.1, 600)


def test_a_choice_that_came_later_takes_the_place_of_what_is_there():
    """Though it is larger; and what is to be written by a lossless codec from now on loses nothing more."""
    values = cycle()
    of = 600, values.dtype, (0, 599 * NS)
    chunk = encode_chunk(np.arange(600) * NS, values, None, 0.5)
    assert codec_name(chunk.value_codec) == "swing"

    def again(choice):
        return recode_chunk(chunk.payload, chunk[1:3], of, Spent(*chunk[3:]), 1.0, choice)

    hold = again(CodecChoice("hold"))
    assert codec_name(hold.value_codec) == "hold"
    assert len(hold.payload) > len(chunk.payload)
    assert codec_name(again(CodecChoice(forbid=frozenset({"swing"}))).value_codec) != "swing"
    assert again(CodecChoice("pco")) is None


@pytest.mark.parametrize("eps", [0.0, 0.25])
def test_a_trial_of_a_row_keeps_to_what_is_said(eps):
    table = rows_of(cycle(), eps, 1.0)
    before, spent = table["n_bytes"][0].as_py(), table["max_error"][0].as_py()
    assert bool(spent) is bool(eps)
    free, other = tried_row(table, 0.5, 1.0), tried_row(table, 0.5, 1.0, CodecChoice("hold"))
    assert free[0] < before
    assert spent < other[1] <= 0.5
    assert other != free
    assert tried_row(table, 0.5, 1.0, CodecChoice("pco")) == (before, spent)


@given(series(), st.lists(st.sampled_from([1.5, 2.0, 3.0, 5.0]), min_size=4, max_size=4))
@settings(max_examples=60, deadline=None)
def test_levels_nest_so_that_nothing_adds_up(values, factors):
    """Levels on levels: the whole of a wider bound can be used, though the one before was."""
    values = original = values.astype(np.float64)
    eps = (float(original.max() - original.min()) or 1.0) * 1e-3
    codec = QuantiseCodec(eps).fitted(values)
    chunk = pack_chunk((b"", EVEN), (ChosenValues(codec, codec.pack(values)), values), None)
    total = eps
    for factor in factors:
        total *= factor
        again = recode_chunk(
            chunk.payload,
            chunk[1:3],
            (len(values), values.dtype, (0, (len(values) - 1) * NS)),
            Spent(*chunk[3:]),
            total,
        )
        if again is not None:
            chunk = again
        decoded = decode_chunk(
            chunk.payload, chunk[1:3], len(values), values.dtype, (0, (len(values) - 1) * NS)
        )[1].astype(np.float64)
        assert np.abs(decoded - original).max() <= chunk.max_error * (1 + 1e-12) <= total * (1 + 1e-12)


def rows_of(values, eps, scale):
    """A warm row of one sensor, as the compactor makes them."""
    directory = SensorDirectory(shard_bits=1)
    dtype = "f32" if values.dtype == np.float32 else "f64"
    directory.define("leon/line1/oven", Layout(dtype, (Column("temp", scale=scale, offset=3.0),)))
    wanted = Wanted(directory, SeriesMap(directory), directory.find("**"), is_raw=True)
    n = len(values)
    samples = SensorSamples(
        np.zeros(1, np.int64), np.array([0, n]), np.arange(n) * NS, to_bits(values), np.zeros(n, np.uint8)
    )
    return encode_warm(
        wanted, samples, Words(), np.zeros(1, np.int64), ChunkRules(eps=np.array([eps / scale]))
    )


@given(series(), BOUNDS, st.sampled_from([1.0, 0.1, 25.0]))
@settings(max_examples=40, deadline=None)
def test_headers_stay_what_they_were_to_the_bit(values, bounds, scale):
    span = (float(values.max()) - float(values.min()) or 1.0) * scale
    table = first = rows_of(values, bounds[0] * span, scale)
    for share in bounds[1:]:
        table = recoded(table, np.array([share * span]), [scale])
        for name in HEADER:
            one, other = (t[name].cast(pa.int64()) if name[:2] == "t_" else t[name] for t in (table, first))
            assert one.to_numpy().tobytes() == other.to_numpy().tobytes(), name
    row = table.to_pylist()[0]
    codecs, span_ns = (
        (row["time_codec"], row["value_codec"]),
        (int(row["t_min"].value), int(row["t_max"].value)),
    )
    decoded = decode_chunk(row["payload"], codecs, len(values), values.dtype, span_ns)[1].astype(np.float64)
    error = np.abs(decoded - values.astype(np.float64)) * scale
    assert error.max() <= row["max_error"] * (1 + 1e-9) <= bounds[-1] * span * (1 + 1e-9)
    assert len(row["payload"]) == row["n_bytes"]
