"""Values that are predicted from those of sensors beside them come back as they would by themselves, whatever they are."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.codecs.base import Unfit
from headrace.codecs.origin import OriginCodec
from headrace.codecs.quantise import QuantiseCodec
from headrace.codecs.sibling import SIBLINGS_MAX, SiblingCodec
from headrace.core.errors import CorruptionError
from headrace.core.layouts import dtype_name, numpy_dtype
from headrace.store.siblings import own_values, share_values
from headrace.store.warm import decode_chunk, decode_values, encode_chunk
from headrace.store.warm_rows import WARM_SCHEMA
from headrace.testing.strategies import values_of

DTYPES = ("u8", "i16", "u32", "i64", "u64", "f32", "f64")
weights = st.floats(width=32) | st.sampled_from([0.0, 1.0, -0.1, 10.0])


@st.composite
def bodies(draw):
    """A codec with siblings, values, and their body by the other codec."""
    n = draw(st.integers(1, 40))
    dtype = draw(st.sampled_from(DTYPES))
    values = draw(values_of(dtype, n))
    inner = OriginCodec()
    if dtype[0] == "f" and draw(st.booleans()):
        values = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=-1.0) % numpy_dtype(dtype).type(1000)
        inner = QuantiseCodec(draw(st.sampled_from([0.01, 0.3, 7.0])))
    k = draw(st.integers(0, SIBLINGS_MAX))
    others = [draw(values_of(draw(st.sampled_from(DTYPES)), n)) for _ in range(k)]
    try:
        body = inner.pack(values)
    except Unfit:
        inner, values = OriginCodec(), np.zeros(n)
        body = inner.pack(values)
    return SiblingCodec(inner, tuple(others), tuple(draw(weights) for _ in range(k))), values, body


def same(one, other):
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


@given(bodies())
def test_it_gives_back_what_the_other_codec_does(of):
    codec, values, plain = of
    inner = codec.inner
    body = codec.predict(plain, values.size)
    reader = SiblingCodec(inner, codec.siblings)  # which knows no weights
    want = inner.unpack(plain, values.size, values.dtype)
    assert same(reader.unpack(body, values.size, values.dtype), want)
    assert same(inner.unpack(reader.plain(body, values.size), values.size, values.dtype), want)


@given(bodies(), st.data())
def test_damage_is_told_or_gives_values(of, data):
    codec, values, plain = of
    body = bytearray(codec.predict(plain, values.size)) if plain else bytearray()
    if data.draw(st.booleans()):
        body = body[: data.draw(st.integers(0, len(body)))]
    else:
        body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = SiblingCodec(codec.inner, codec.siblings).unpack(bytes(body), values.size, values.dtype)
    except CorruptionError:
        return
    assert found.shape == values.shape


def device(seed, n, kinds):
    """Columns of one device, some of which follow from others: with gaps, spikes and infinities."""
    rng = np.random.default_rng(seed)
    base = np.cumsum(rng.normal(size=n))
    out = []
    for number, (kind, noise) in enumerate(kinds):
        one = 100.0 * base * (number + 1) + rng.normal(size=n) * noise
        if kind == "walk":
            one = 100.0 * np.cumsum(rng.normal(size=n))
        if kind in ("u16", "i16"):
            one = np.clip(
                one + 30_000 * (kind == "u16"), *((0, 65_535) if kind == "u16" else (-32_768, 32_767))
            )
            out.append(np.rint(one).astype(numpy_dtype(kind)))
            continue
        one = np.round(one / 100, int(rng.integers(0, 4)))
        if kind == "gaps":
            one[rng.random(n) < 0.05] = rng.choice([np.nan, np.inf, -np.inf, -0.0, 1e300])
        out.append(one.astype(np.float32) if kind == "f32" else one)
    return out


columns = st.tuples(
    st.sampled_from(["f64", "f32", "walk", "gaps", "u16", "i16"]), st.sampled_from([0.0, 1.0, 30.0, 3000.0])
)


@settings(max_examples=25)
@given(
    st.integers(0, 2**32),
    st.integers(500, 1500),
    st.lists(columns, min_size=2, max_size=6),
    st.sampled_from([0.0, 0.05, 2.0]),
)
def test_a_device_is_read_bit_for_bit_with_siblings_and_without(seed, n, kinds, eps):
    ts_ns = np.arange(n) * 1_000_000_000
    values = device(seed, n, kinds)
    chunks = [encode_chunk(ts_ns, one, None, eps) for one in values]
    rows = {name: pa.nulls(len(values), WARM_SCHEMA.field(name).type) for name in WARM_SCHEMA.names} | {
        "path": pa.array([f"leon/drive/s{i}" for i in range(len(values))]),
        "dtype": pa.array([dtype_name(one.dtype) for one in values]).dictionary_encode(),
        "payload": pa.array([one.payload for one in chunks]), "n_frames": pa.array([n] * len(values), pa.uint32()),
        "value_codec": pa.array([one.value_codec for one in chunks]).dictionary_encode(),
        "time_codec": pa.array([one.time_codec for one in chunks]).dictionary_encode(),
        "t_min": pa.array([0] * len(values)).cast(pa.timestamp("ns", "UTC")),
        "t_max": pa.array([int(ts_ns[-1])] * len(values)).cast(pa.timestamp("ns", "UTC")),
    }  # fmt: skip
    plain = pa.Table.from_pydict({name: rows[name] for name in WARM_SCHEMA.names}, schema=WARM_SCHEMA)
    shared = share_values(plain, lambda path: True, lambda: None)
    want = [
        decode_values(one.payload, one.value_codec, n, v.dtype) for one, v in zip(chunks, values, strict=True)
    ]
    for i, row in enumerate(shared.to_pylist()):
        ahead = [row[name] for name in ("sibling", "sibling_2") if row[name]]
        names_of = row["time_codec"], row["value_codec"]
        span = 0, int(ts_ns[-1])
        siblings = [want[i + one] for one in ahead]
        _, got, _ = decode_chunk(row["payload"], names_of, n, values[i].dtype, span, None, siblings)
        assert same(got, want[i])
        if not eps:
            assert same(got, values[i])
        assert len(row["payload"]) <= len(chunks[i].payload)
        assert row["n_bytes"] == len(row["payload"])
    own = own_values(shared, np.arange(len(values)))
    for i, row in enumerate(own.to_pylist()):
        assert (row["sibling"], row["sibling_2"]) == (0, 0)
        assert row["value_codec"] == chunks[i].value_codec
        assert same(decode_values(row["payload"], row["value_codec"], n, values[i].dtype), want[i])
