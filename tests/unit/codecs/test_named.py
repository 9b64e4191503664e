"""Codecs that one asks for by name: runs, byte planes, shares of values, times that are shared or snap, pages."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.codecs.base import Unfit, same_bits
from headrace.codecs.bounds import Reach
from headrace.codecs.byte_planes import BytePlanesCodec
from headrace.codecs.jitter import JitterTime
from headrace.codecs.registry import time_codec, value_codec
from headrace.codecs.relative import RelativeCodec
from headrace.codecs.rle import RleCodec
from headrace.codecs.shared_pages import PageBundle, encode_pages
from headrace.core.errors import ConfigError, CorruptionError
from headrace.core.layouts import DTYPES, numpy_dtype
from headrace.testing.codecs import MEMORY_MAX, check_tolerance, damages

T0 = 1_750_000_000 * 10**9
_spec = importlib.util.spec_from_file_location("golden_named", Path(__file__).parent / "golden_named.py")
assert _spec is not None
assert _spec.loader is not None
inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inputs)
GOLDEN = json.loads(inputs.FILE.read_text())
dtypes = st.sampled_from([numpy_dtype(name) for name in DTYPES])


# --- golden bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rle", "byte_planes", "gorilla"])
def test_golden_values_are_read(name):
    spec, values = inputs.arguments()[name]
    codec = value_codec({"name": name, **spec})
    assert same_bits(codec.decode(bytes.fromhex(GOLDEN[name]), values.size, values.dtype), values)


def test_golden_shares_are_read():
    spec, values = inputs.arguments()["relative"]
    decoded = RelativeCodec(**spec).decode(bytes.fromhex(GOLDEN["relative"]), values.size, values.dtype)
    assert Reach(share=0.01).kept(decoded, values)
    assert np.signbit(decoded).tolist() == [False, False, False, True, False]


def test_golden_times_are_read():
    spec, ts_ns = inputs.arguments()["jitter"]
    decoded = JitterTime(**spec).decode(bytes.fromhex(GOLDEN["jitter"]), ts_ns.size)
    check_tolerance(ts_ns, decoded, spec["tolerance_ns"], "golden")
    assert not same_bits(decoded, ts_ns)


def test_golden_pages_are_read():
    bundle = PageBundle(bytes.fromhex(GOLDEN["pages"]))
    assert [bundle.run(i).tolist() for i in range(len(bundle))] == [run.tolist() for run in inputs.runs()]


def test_gorilla_writes_its_golden_bytes():
    _, values = inputs.arguments()["gorilla"]
    assert value_codec({"name": "gorilla"}).encode(values).hex() == GOLDEN["gorilla"]


# --- runs --------------------------------------------------------------------------------------------


@given(dtypes, st.data())
@settings(max_examples=150, deadline=None)
def test_runs_of_any_values_come_back(dtype, data):
    few = data.draw(hnp.arrays(dtype, st.integers(1, 9)))
    runs = data.draw(st.lists(st.tuples(st.integers(0, few.size - 1), st.integers(1, 400)), max_size=60))
    values = np.concatenate([np.repeat(few[[i]], n) for i, n in runs]) if runs else np.empty(0, dtype)
    try:
        payload = RleCodec().encode(values)
    except Unfit:
        assert len(runs) > values.size // 2
        return
    assert same_bits(RleCodec().decode(payload, values.size, dtype), values)


def test_two_states_by_turns_cost_their_lengths_only():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, 400)
    on_off = np.repeat(np.arange(400) % 2, lengths).astype(np.uint8)
    assert len(RleCodec().pack(on_off)) < 400 * 9 / 8 + 30


def test_noise_is_no_runs():
    with pytest.raises(Unfit, match="runs"):
        RleCodec().pack(np.arange(100))


@given(st.binary(max_size=60), st.integers(0, 1000), dtypes)
@settings(max_examples=300, deadline=None)
def test_nonsense_bodies_are_damage(body, n, dtype):
    """Without the checksum in front, too: where many bodies share one, a body meets its reader as it is."""
    for codec in (RleCodec(), BytePlanesCodec(), RelativeCodec(0.1)):
        for tail in (body, bytes([DTYPES.index(_name(dtype))]) + body, bytes([dtype.itemsize]) + body):
            try:
                assert codec.unpack(tail, n, dtype).size == n
            except CorruptionError:
                pass
    try:
        assert JitterTime(1000).unpack(body, n).size == n
    except CorruptionError:
        pass


def _name(dtype):
    return next(name for name in DTYPES if numpy_dtype(name) == dtype)


# --- byte planes -------------------------------------------------------------------------------------


@given(dtypes, st.data())
@settings(max_examples=100, deadline=None)
def test_byte_planes_come_back(dtype, data):
    values = data.draw(hnp.arrays(dtype, st.integers(0, 100)))
    codec = BytePlanesCodec(data.draw(st.integers(1, 19)))
    assert same_bits(codec.decode(codec.encode(values), values.size, dtype), values)


def test_levels_of_zstd():
    with pytest.raises(ConfigError, match="1 to 19"):
        value_codec({"name": "byte_planes", "level": 0})


# --- a share of each value ---------------------------------------------------------------------------


@given(st.sampled_from([np.float32, np.float64]), st.floats(1e-6, 0.999), st.data())
@settings(max_examples=300, deadline=None)
def test_a_share_of_each_value_is_kept(dtype, share, data):
    values = data.draw(
        hnp.arrays(dtype, st.integers(0, 50), elements={"allow_nan": False, "allow_infinity": False})
    )
    try:
        payload = RelativeCodec(share).encode(values)
    except Unfit:
        size = np.abs(values[values != 0])
        info = np.finfo(dtype)
        assert (size < 2 * info.tiny).any() or (size > info.max / 2).any()
        return
    decoded = RelativeCodec(share).decode(payload, values.size, values.dtype)
    assert Reach(share=share).kept(decoded, values)
    assert (np.signbit(decoded) == np.signbit(values))[values != 0].all()


def test_many_decades_are_smaller_than_any_absolute_bound_could_make_them():
    rng = np.random.default_rng(0)
    values = 10 ** np.cumsum(rng.normal(0, 0.05, 4_000)) * np.where(rng.random(4_000) < 0.01, 0, 1)
    assert len(RelativeCodec(0.01).pack(values)) < 4_000 * 8 / 8


# --- times -------------------------------------------------------------------------------------------

steps = st.sampled_from([10**9, 10**9, 10**9, 10**9 + 1, 1, 0, 3600 * 10**9, 83_333, -5 * 10**8])


@given(st.lists(steps, min_size=0, max_size=80), st.integers(0, 10**7), st.data())
@settings(max_examples=250, deadline=None)
def test_a_tolerance_is_never_passed(gaps, jitter, data):
    rng = np.random.default_rng(len(gaps))
    ts_ns = (
        T0 + np.cumsum(np.append(0, gaps).astype(np.int64)) + rng.integers(-jitter, jitter + 1, len(gaps) + 1)
    )
    if data.draw(st.booleans()):
        ts_ns = np.sort(ts_ns)
    tolerance_ns = data.draw(st.sampled_from([0, 1, 2, 1000, 10**6, 10**7, 10**9, 10**13]))
    codec = JitterTime(tolerance_ns)
    check_tolerance(ts_ns, codec.decode(codec.encode(ts_ns), ts_ns.size), tolerance_ns, "drawn")


def test_regular_times_that_jitter_cost_a_few_bytes():
    rng = np.random.default_rng(0)
    regular = T0 + np.arange(4_000) * 10**9
    jitter = rng.integers(-2_000_000, 2_000_000, 4_000)
    exact = len(time_codec({"name": "ticks"}).pack(regular + jitter))
    assert len(JitterTime(5_000_000).pack(regular + jitter)) < 40 < exact / 100
    gaps = regular + jitter + np.repeat(np.arange(8), 500) * 3600 * 10**9
    assert len(JitterTime(5_000_000).pack(gaps)) < 150
    drift = regular + jitter + np.cumsum(np.full(4_000, 20_000)) ** 2 // 10**11
    assert len(JitterTime(5_000_000).pack(drift)) < 150


def test_a_tolerance_is_declared():
    for wrong in (-1, 0.5, 2**61):
        with pytest.raises(ConfigError, match="whole number"):
            time_codec({"name": "jitter", "tolerance_ns": wrong})
    with pytest.raises(ConfigError, match="tolerance_ns"):
        time_codec({"name": "jitter"})


# --- pages -------------------------------------------------------------------------------------------


def some_runs(n_runs=40, n=128):
    rng = np.random.default_rng(0)
    return [np.round(20 + i / 7 + np.cumsum(rng.normal(0, 0.1, n)), 2) for i in range(n_runs)]


@given(dtypes, st.data())
@settings(max_examples=60, deadline=None)
def test_pages_of_any_values_come_back(dtype, data):
    runs = data.draw(st.lists(hnp.arrays(dtype, st.integers(1, 40)), min_size=1, max_size=8))
    bundle = PageBundle(encode_pages(runs))
    assert len(bundle) == len(runs)
    assert bundle.dtype == dtype
    assert all(same_bits(bundle.run(i), run) for i, run in enumerate(runs))


def test_a_page_is_read_with_the_head_alone():
    """All other pages may be anything: of a sensor only its own bytes and the head are needed."""
    runs = some_runs()
    data = encode_pages(runs)
    first, end = PageBundle(data).span(7)
    head_end = PageBundle(data).span(0)[0]
    partial = data[:head_end] + bytes(first - head_end) + data[first:end] + bytes(len(data) - end)
    assert same_bits(PageBundle(partial).run(7), runs[7])
    with pytest.raises(CorruptionError, match="page 8"):
        PageBundle(partial).run(8)


def test_short_runs_are_smaller_together():
    runs = some_runs(n=64)
    apart = sum(len(value_codec({"name": "pco", "level": 8}).encode(run)) for run in runs)
    assert len(encode_pages(runs)) < 0.75 * apart


def test_what_makes_no_pages():
    for runs in ([], [np.empty(0)], [np.ones(3), np.ones(3, np.float32)]):
        with pytest.raises(Unfit):
            encode_pages(runs)
    with pytest.raises(IndexError):
        PageBundle(encode_pages([np.ones(3)])).run(1)


def test_damaged_bundles_are_told():
    import tracemalloc

    runs = some_runs(6)
    for name, damaged in damages(encode_pages(runs)):
        tracemalloc.start()
        try:
            bundle = PageBundle(damaged)
            whole = all(same_bits(bundle.run(i), run) for i, run in enumerate(runs)) and len(bundle) == len(
                runs
            )
        except CorruptionError:
            whole = False
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert not whole, f"{name}: read as if nothing had happened"
        assert peak < MEMORY_MAX


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_pages_whose_checksums_are_right_and_whose_content_is_not(seed):
    rng = np.random.default_rng(seed)
    runs = some_runs(3, 70) if seed % 2 else [np.cumsum(run.view(np.int64) % 5) for run in some_runs(3, 70)]
    data = bytearray(encode_pages(runs))
    first, end = PageBundle(bytes(data)).span(1)
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(first + 4, end))] = int(rng.integers(256))
    data[first : first + 4] = (xxhash.xxh64_intdigest(bytes(data[first + 4 : end])) & 0xFFFFFFFF).to_bytes(
        4, "little"
    )
    bundle = PageBundle(bytes(data))
    assert same_bits(bundle.run(0), runs[0])
    try:
        assert bundle.run(1).size == 70
    except CorruptionError:
        pass


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_heads_whose_checksums_are_right_and_whose_content_is_not(seed):
    rng = np.random.default_rng(seed)
    runs = some_runs(3, 70)
    data = bytearray(encode_pages(runs))
    at = 5 if data[4] < 128 else 6
    end = PageBundle(bytes(data)).span(0)[0]
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(at, end))] = int(rng.integers(256))
    data[:4] = (xxhash.xxh64_intdigest(bytes(data[at:end])) & 0xFFFFFFFF).to_bytes(4, "little")
    try:
        bundle = PageBundle(bytes(data))
        assert sum(bundle.run(i).size for i in range(len(bundle))) < 2**24
    except CorruptionError:
        pass


def test_each_kind_of_page_is_written_and_read():
    rng = np.random.default_rng(0)
    calm = [np.full(200, 20.5), np.round(20 + np.arange(200) / 10, 1)]
    lively = [np.round(rng.normal(20, 5, 200), 1) for _ in range(6)]
    full = [rng.normal(size=200) for _ in range(3)]
    for runs in ([*calm, *lively], [*calm, *full], calm, lively, full):
        data = encode_pages(runs)
        bundle = PageBundle(data)
        assert all(same_bits(bundle.run(i), run) for i, run in enumerate(runs))
    modes = [rng.choice([0, 1, 700, 701, 90_000], 200, p=[0.4, 0.1, 0.3, 0.1, 0.1]) for _ in range(20)]
    kinds = set()
    for runs in (calm, [*calm, *full], modes):
        data = encode_pages(runs)
        kinds |= {data[PageBundle(data).span(i)[0] + 4] for i in range(len(runs))}
    assert kinds == {0, 1, 2}
