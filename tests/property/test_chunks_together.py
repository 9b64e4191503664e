"""Chunks decoded together are what each is alone; damage among them is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headrace.codecs.base import same_bits
from headrace.core.errors import CorruptionError
from headrace.store.warm import Chunk, decode_chunk, encode_chunk, sealed
from headrace.store.warm_reads import Chunks, decode_chunks

KINDS = ("even", "clock", "gaps")
SIGNALS = ("walk", "text", "noise", "hum", "few", "steps", "patched")
DTYPES = ("f8", "f4", "i8", "u8", "i4", "u2")


def times_of(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(-(2**40), 2**60))
    gaps = np.full(n, 10**9)
    if kind == "clock":
        gaps += rng.integers(-3, 4, n) * 10**6
    elif kind == "gaps":
        gaps[rng.random(n) < 0.05] *= 7
    return start + np.cumsum(gaps)


def values_of(signal: str, n: int, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    x = np.cumsum(rng.integers(-9, 10, n)).astype(np.float64)
    match signal:
        case "noise":
            x = rng.normal(0.0, 1e6, n)
        case "hum":
            x = np.round(1000.0 * np.sin(np.arange(n) / 3.3) + rng.normal(0, 3, n))
        case "few":
            x = rng.choice([-5.0, 7.0, 1000.0], n)
        case "steps":
            x = np.round(x) * 1250.0
    if dtype.kind != "f":
        with np.errstate(invalid="ignore"):
            return np.abs(x).astype(np.int64).astype(dtype)
    x = x / 1000.0
    if signal == "text":
        x = x.astype(np.float32).astype(np.float64)
    if signal == "patched":
        x[rng.random(n) < 0.02] = np.nan
        x[rng.random(n) < 0.2] *= 1.0 + 2.0**-52
    return x.astype(dtype)


def one(n: int, kind: str, signal: str, dtype: np.dtype, marked: bool, seed: int) -> tuple[Chunk, tuple]:
    rng = np.random.default_rng(seed)
    ts_ns, values = times_of(kind, n, rng), values_of(signal, n, dtype, rng)
    quality = rng.choice([0, 0, 0x40], n).astype(np.uint8) if marked else None
    return encode_chunk(ts_ns, values, quality), (ts_ns, values, quality)


def joined(parts: list[Chunk], dtype: np.dtype, raw: list[tuple], shared: list[int]) -> Chunks:
    starts = np.cumsum([0, *(len(part.payload) for part in parts)])
    first, last = (np.array([ts_ns[i] for ts_ns, *_ in raw]) for i in (0, -1))
    n = np.array([len(ts_ns) for ts_ns, *_ in raw])
    payload = np.frombuffer(b"".join(part.payload for part in parts), np.uint8)
    return Chunks(payload, starts, parts[0][1:3], dtype, n, first, last, np.array(shared, np.int64))


chunks = st.tuples(
    st.integers(1, 900),
    st.sampled_from(KINDS),
    st.sampled_from(SIGNALS),
    st.booleans(),
    st.integers(0, 2**32),
)


@given(st.sampled_from(DTYPES).map(np.dtype), st.lists(chunks, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_chunks_come_back_as_they_went(dtype, wanted):
    made = [one(n, kind, signal, dtype, marked, seed) for n, kind, signal, marked, seed in wanted]
    for codecs in {part[1:3] for part, _ in made}:
        mine = [(part, raw) for part, raw in made if part[1:3] == codecs]
        found = decode_chunks(joined([p for p, _ in mine], dtype, [r for _, r in mine], []), lambda g: None)
        assert same_bits(found[0], np.concatenate([raw[0] for _, raw in mine]))
        assert same_bits(found[1], np.concatenate([raw[1] for _, raw in mine]))
        marks = [np.zeros(len(raw[0]), np.uint8) if raw[2] is None else raw[2] for _, raw in mine]
        assert same_bits(
            np.zeros(len(found[0]), np.uint8) if found[2] is None else found[2], np.concatenate(marks)
        )


@given(st.integers(2, 500), st.sampled_from(SIGNALS), st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_times_of_another_chunk(n, signal, seed):
    rng = np.random.default_rng(seed)
    ts_ns = times_of("clock", n, rng)
    values = [values_of(signal, n, np.dtype("f8"), np.random.default_rng(seed + i)) for i in range(3)]
    leader = encode_chunk(ts_ns, values[0], None)
    parts = [leader, *(encode_chunk(ts_ns, v, None, times_of=leader.time_codec) for v in values[1:])]
    assume(len({part[1:3] for part in parts}) == 1)
    together = joined(parts, np.dtype("f8"), [(ts_ns,)] * 3, [1, 2])
    found = decode_chunks(together, lambda g: ts_ns)
    assert same_bits(found[0], np.tile(ts_ns, 3))
    assert same_bits(found[1], np.concatenate(values))
    with pytest.raises(CorruptionError, match="not its own"):
        decode_chunks(together, lambda g: ts_ns[1:])


@given(chunks, st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_damaged_bytes_are_what_one_chunk_says_or_corrupt(wanted, seed):
    """Sealed again after the damage, so that what lies behind the checksum is reached."""
    n, kind, signal, marked, of = wanted
    rng = np.random.default_rng(seed)
    part, raw = one(n, kind, signal, np.dtype("f8"), marked, of)
    body = bytearray(part.payload[4:])
    for _ in range(int(rng.integers(1, 4))):
        body[int(rng.integers(0, len(body)))] = int(rng.integers(0, 256))
    if rng.random() < 0.3:
        del body[int(rng.integers(0, len(body))) :]
    damaged = part._replace(payload=sealed(bytes(body)))
    span = int(raw[0][0]), int(raw[0][-1])
    try:
        alone = decode_chunk(damaged.payload, part[1:3], n, np.dtype("f8"), span)
    except CorruptionError:
        with pytest.raises(CorruptionError):
            decode_chunks(joined([part, damaged], np.dtype("f8"), [raw, raw], []), lambda g: None)
        return
    together = decode_chunks(joined([part, damaged], np.dtype("f8"), [raw, raw], []), lambda g: None)
    assert same_bits(together[0][n:], alone[0])
    assert same_bits(together[1][n:], alone[1])
