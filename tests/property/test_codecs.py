"""Codecs: what goes in comes out bit for bit, and bytes that are none of ours are refused."""

from __future__ import annotations

import itertools
import struct

import numba
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.codecs.base import same_bits
from headrace.codecs.block import decode_block, decode_blocks, decode_columns, encode_blocks
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.codecs.series_kernels import series_body
from headrace.codecs.wave import WaveRuns, decode_wave, decode_waves, encode_wave, encode_waves
from headrace.core.errors import CorruptionError
from headrace.core.layouts import DTYPES, dtype_name, numpy_dtype
from headrace.testing.codecs import extreme_values, value_samples

PLAIN = bool(numba.config.DISABLE_JIT)
"""Plain Python checks every index, at a hundredth of the speed."""

int64s = st.integers(-(2**63), 2**63 - 1)


@st.composite
def columns(draw: st.DrawFn, dtype: np.dtype, n: int) -> np.ndarray:
    """One sensor's values: constant, drifting, stepping, on a grid, or any bits at all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from(["bits", "few", "walk", "ramp", "grid", "outliers"]))
    if shape == "bits":
        return np.frombuffer(rng.bytes(n * dtype.itemsize), dtype)
    if shape == "few":
        few = draw(hnp.arrays(dtype, draw(st.integers(1, 4)), elements=hnp.from_dtype(dtype)))
        return few[rng.integers(0, few.size, n)]
    scale = draw(st.sampled_from([1, 2, 5, 1000, 10**6, 10**12]))
    numbers = np.cumsum(rng.integers(-3, 4, n)) * scale
    if shape == "ramp":
        numbers = np.arange(n) * draw(int64s)
    if shape == "outliers":
        numbers[rng.random(n) < 0.1] = draw(int64s)
    if dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            floats = numbers.astype(dtype) / dtype.type(10 ** draw(st.integers(0, 10)))
            floats[rng.random(n) < draw(st.sampled_from([0.0, 0.05, 0.9]))] = np.nan
        return floats
    return numbers.astype(np.int64).astype(dtype)


@st.composite
def frames(draw: st.DrawFn) -> tuple:
    """Arguments of `encode_blocks`: several blocks, in any order, with any times and qualities."""
    dtype = numpy_dtype(draw(st.sampled_from(DTYPES)))
    sizes = draw(st.lists(st.integers(0, 70), min_size=1, max_size=4))
    n, d = sum(sizes), draw(st.integers(1, 4))
    values = np.empty((n, d), dtype)
    for c in range(d):
        values[:, c] = draw(columns(dtype, n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    start, step, jitter = draw(int64s), draw(st.integers(0, 2**62)), draw(st.sampled_from([1, 10**6, 10**9]))
    with np.errstate(over="ignore"):
        ts_ns = np.int64(start) + np.arange(n) * np.int64(step) + rng.integers(0, jitter, n)
    kinds = draw(st.sampled_from(["none", "good", "some", "any"]))
    quality = None if kinds == "none" else np.zeros((n, d), np.uint8)
    if kinds == "some":
        quality[rng.random(n) < 0.2, draw(st.integers(0, d - 1)) :] = 0x83
    if kinds == "any":
        quality = rng.integers(0, 256, (n, d)).astype(np.uint8)
    order = rng.permutation(n).astype(draw(st.sampled_from([np.int32, np.int64])))
    return values, ts_ns, quality, order, np.concatenate(([0], np.cumsum(sizes)))


@given(frames())
@settings(max_examples=100 if PLAIN else 300, deadline=None)
def test_blocks_come_back_bit_for_bit(given_frames):
    values, ts_ns, quality, order, starts = given_frames
    done = encode_blocks(*given_frames)
    assert done.n_fallbacks == 0
    assert done.offsets[-1] == done.payload.size
    for g in range(starts.size - 1):
        rows = order[starts[g] : starts[g + 1]]
        payload = done.payload[done.offsets[g] : done.offsets[g + 1]]
        got_ts, got_values, got_quality = decode_block(payload, values.dtype)
        assert same_bits(got_ts, ts_ns[rows])
        assert same_bits(got_values, values[rows])
        expected = np.zeros(values[rows].shape, np.uint8) if quality is None else quality[rows]
        assert (got_quality is None) == (not expected.any())
        assert got_quality is None or same_bits(got_quality, expected)
        assert done.n_frames[g] == rows.size
        assert done.n_good[g] == (expected < 0x40).sum()
        if rows.size:
            assert (done.t_min[g], done.t_max[g]) == (ts_ns[rows].min(), ts_ns[rows].max())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1, 3, 2**40 + 1, 2**62])
def test_all_short_columns_come_back(dtype, scale):
    """Every column of up to 6 numbers out of three, as values and as times."""
    for n in range(1, 5 if PLAIN else 7):
        numbers = np.array(list(itertools.product([0, 1, -2], repeat=n)))
        starts = np.arange(0, numbers.size + 1, n)
        ts_ns = numbers.reshape(-1) * np.int64(scale)
        values = np.ascontiguousarray(ts_ns.astype(dtype)[:, np.newaxis])
        done = encode_blocks(values, ts_ns, None, np.arange(ts_ns.size), starts)
        assert done.n_fallbacks == 0
        read = decode_blocks(done.payload, done.offsets, values.dtype, 0)
        assert same_bits(read.values, values)
        assert same_bits(read.ts_ns, ts_ns)


@given(frames(), st.data())
@settings(max_examples=100, deadline=None)
def test_a_column_alone_is_the_column(given_frames, data):
    values, ts_ns, quality, order, starts = given_frames
    done = encode_blocks(*given_frames)
    wanted = data.draw(st.lists(st.integers(0, values.shape[1] - 1), min_size=1, max_size=4))
    read = decode_blocks(done.payload.tobytes(), done.offsets, values.dtype, np.array(wanted))
    assert same_bits(read.values, values[order][:, wanted])
    assert same_bits(read.ts_ns, ts_ns[order])
    assert np.array_equal(read.starts, starts)
    expected = np.zeros_like(read.values, np.uint8) if quality is None else quality[order][:, wanted]
    assert same_bits(np.zeros_like(expected) if read.quality is None else read.quality, expected)
    first = done.payload[: done.offsets[1]]
    assert same_bits(decode_columns(first, values.dtype, wanted)[1], values[order[: starts[1]]][:, wanted])


@given(st.sampled_from(DTYPES).map(numpy_dtype), st.data())
@settings(max_examples=150, deadline=None)
def test_series_come_back_bit_for_bit(dtype, data):
    values = data.draw(columns(dtype, data.draw(st.integers(0, 300))))
    codec = RiceDeltaCodec(piece=data.draw(st.sampled_from([16, 64, 1024])))
    assert same_bits(codec.decode(codec.encode(values), values.size, dtype), values)


@given(st.sampled_from(DTYPES).map(numpy_dtype), st.lists(st.integers(0, 100), max_size=5), st.data())
@settings(max_examples=100, deadline=None)
def test_waves_come_back_bit_for_bit(dtype, counts, data):
    n = np.array(counts, np.int64)
    positive = st.integers(1, 2**40)
    runs = WaveRuns(
        *(data.draw(hnp.arrays(np.int64, n.size, elements=e)) for e in (int64s, positive, positive)), n
    )
    values = data.draw(columns(dtype, int(n.sum())))
    quality = data.draw(st.none() | hnp.arrays(np.uint8, values.shape, elements=st.sampled_from([0, 0x83])))
    got, got_values, got_quality = decode_wave(encode_wave(runs, values, quality), dtype)
    for name in ("t0_ns", "rate_num", "rate_den", "n"):
        assert same_bits(getattr(got, name), getattr(runs, name))
    assert same_bits(got_values, values)
    assert (got_quality is None) == (quality is None or not quality.any())
    assert got_quality is None or same_bits(got_quality, quality)


def wave_by_the_format(runs: WaveRuns, values: np.ndarray, quality: np.ndarray | None) -> bytes:
    """What the page of the format says, a section at a time."""
    columns = [series_body(column, 1024) for column in (runs.t0_ns, runs.rate_num, runs.rate_den, runs.n)]
    has_quality = quality is not None and quality.any()
    columns.append(series_body(quality, 1024) if has_quality else b"")
    flags = DTYPES.index(dtype_name(values.dtype)) | (0x10 if has_quality else 0)
    sizes = struct.pack("<6I", runs.n.size, *map(len, columns))
    body = sizes + b"".join(columns) + series_body(values, 1024)
    digest = xxhash.xxh64_intdigest(body, 1 | flags << 8) & 0xFFFFFFFF
    return struct.pack("<BBI", 1, flags, digest) + body


@given(st.sampled_from(DTYPES).map(numpy_dtype), st.data())
@settings(max_examples=150, deadline=None)
def test_many_waves_have_the_bytes_and_times_of_each(dtype, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scale = data.draw(st.sampled_from([4, 40] if PLAIN else [4, 40, 900]))
    n = rng.integers(0, scale, data.draw(st.integers(0, 9)))
    rates = data.draw(
        st.sampled_from([2, 10**3, 10**5, 2**63 - 1])
    )  # those of no device too, whose times wrap
    runs = WaveRuns(
        rng.integers(-(2**63), 2**63 - 1, n.size), *(rng.integers(1, rates, n.size) for _ in range(2)), n
    )
    values = data.draw(columns(dtype, int(n.sum())))
    quality = data.draw(st.sampled_from([None, 0, 0.01, 0.5]))
    marks = None if quality is None else np.where(rng.random(values.size) < quality, 0x83, 0).astype(np.uint8)
    order = rng.permutation(n.size)
    starts = np.sort(rng.integers(0, n.size + 1, data.draw(st.integers(1, 5))))
    done = encode_waves(runs, values, marks, order, starts)
    assert (done.offsets[0], done.offsets[-1], done.n_fallbacks) == (0, done.payload.size, 0)
    first = np.cumsum(n) - n
    for g, (a, b) in enumerate(itertools.pairwise(starts.tolist())):
        mine = order[a:b]
        one = WaveRuns(*(column[mine] for column in (runs.t0_ns, runs.rate_num, runs.rate_den, n)))
        at = np.concatenate([np.arange(0), *(first[r] + np.arange(n[r]) for r in mine)])
        expected = wave_by_the_format(one, values[at], None if marks is None else marks[at])
        assert done.payload[done.offsets[g] : done.offsets[g + 1]].tobytes() == expected
    read = decode_waves(done.payload, done.offsets, dtype)
    assert same_bits(read.ts_ns, read.runs.ts_ns())
    assert np.array_equal(np.diff(read.run_starts), np.diff(starts))


def reseal(payload: bytes) -> bytes:
    """The block with a checksum that holds, so that what lies behind it is reached."""
    digest = xxhash.xxh64_intdigest(payload[6:], payload[0] | payload[1] << 8) & 0xFFFFFFFF
    return payload[:2] + struct.pack("<I", digest) + payload[6:]


def mutate(payload: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, cut out or doubled."""
    data = bytearray(payload)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(0, len(data)))
        match int(rng.integers(0, 5)):
            case 0:
                data[place] ^= 1 << int(rng.integers(0, 8))
            case 1:
                data[place] = int(rng.integers(0, 256))
            case 2:
                data[place] = int(rng.choice([0, 0x7F, 0x80, 0xFF]))
            case 3 if len(data) > 20:
                del data[place : place + int(rng.integers(1, 10))]
            case _:
                data[place:place] = data[place : place + int(rng.integers(1, 10))]
    return bytes(data)


def block_samples() -> list[tuple[np.dtype, bytes]]:
    rng = np.random.default_rng(5)
    found = []
    for samples in (value_samples(n=70), extreme_values()):
        for _, values in samples:
            n = values.size
            table = np.stack([values, values[::-1]], axis=1) if n else values.reshape(0, 2)
            quality = np.where(rng.random((n, 2)) < 0.2, 0x83, 0).astype(np.uint8) if n % 3 else None
            ts_ns = np.arange(n) * 10**9 + rng.integers(0, 2, n) * 10**6
            done = encode_blocks(np.ascontiguousarray(table), ts_ns, quality, np.arange(n), np.array([0, n]))
            found.append((values.dtype, done.payload.tobytes()))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_damage_behind_a_sound_checksum_is_refused_or_harmless(seed):
    rng = np.random.default_rng(seed)
    refused = 0
    samples = block_samples()
    for dtype, payload in samples:
        for _ in range(4 if PLAIN else 40):
            damaged = reseal(mutate(payload, rng))
            try:
                ts_ns, values, quality = decode_block(damaged, dtype)
            except CorruptionError:
                refused += 1
                continue
            assert values.dtype == dtype
            assert values.shape[0] == ts_ns.size
            assert quality is None or quality.shape == values.shape
            read = decode_blocks(damaged, np.array([0, len(damaged)]), dtype, values.shape[1] - 1)
            assert same_bits(read.values[:, 0], values[:, -1])
    assert refused > len(samples)


def varint(number: int) -> bytes:
    """LEB128, written down once more."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def block_of(code: int, n: int, times: bytes, quality: bytes, columns: list[bytes]) -> bytes:
    """A sealed block with any sections."""
    flags = 0x10 if quality else 0
    sizes = [len(times), *([len(quality)] if quality else []), *(len(c) for c in columns)]
    table = b"".join(varint(k) for k in (n, len(columns), *sizes))
    return reseal(bytes([1, code | flags]) + bytes(4) + table + times + quality + b"".join(columns))


@pytest.mark.parametrize("seed", range(4))
def test_any_section_is_refused_or_harmless(seed):
    """Sections that start like real ones and go on at random, of any length, in a block that is else sound."""
    rng = np.random.default_rng(seed)
    taken = 0
    for _ in range(1000 if PLAIN else 4000):
        code, n = int(rng.integers(0, 10)), int(rng.integers(0, 40))
        sections = []
        for form in (b"", b"", b"\0" if rng.random() < 0.3 else rng.bytes(1)):
            tag = bytes(
                [int(rng.integers(0, 8)) | int(rng.choice([0, 8, 0x80, 0x88])) | int(rng.integers(0, 3)) << 4]
            )
            sections.append(form * (code > 7) + tag + rng.bytes(int(rng.integers(0, 60))))
        if n and rng.random() < 0.9:
            sections[0] = bytes([1 | 7 << 4]) + rng.bytes(8)
        quality = rng.bytes(int(rng.integers(0, 6))) if rng.random() < 0.1 else b""
        payload = block_of(code, n, sections[0], quality, [sections[2]])
        try:
            ts_ns, values, _ = decode_block(payload, numpy_dtype(DTYPES[code]))
        except CorruptionError:
            continue
        assert ts_ns.shape == (n,)
        assert values.shape == (n, 1)
        taken += 1
    assert taken > 2


@given(st.binary(max_size=300), st.sampled_from(DTYPES))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused(data, name):
    dtype = numpy_dtype(name)
    for payload in (data, reseal(bytes([1, DTYPES.index(name)]) + data.rjust(20, b"\0"))):
        try:
            decode_block(payload, dtype)
        except CorruptionError:
            continue
    with pytest.raises(CorruptionError):
        decode_wave(data, dtype)


@pytest.mark.parametrize("name", ["u16", "f64", "f32"])
def test_every_flipped_bit_is_noticed(name):
    dtype = numpy_dtype(name)
    values = (np.arange(40) % 7 * 3).astype(dtype).reshape(20, 2)
    payload = encode_blocks(values, np.arange(20) * 10**9, None, np.arange(20), np.array([0, 20])).payload
    wave = encode_wave(WaveRuns(*(np.array([k]) for k in (5, 12_000, 1, 20))), values[:, 0].copy(), None)
    for data, decode in ((payload.tobytes(), decode_block), (wave, decode_wave)):
        for bit in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CorruptionError):
                decode(bytes(damaged), dtype)
        for size in range(len(data)):
            with pytest.raises(CorruptionError):
                decode(data[:size], dtype)
