"""Blocks of many sensors' windows at once: what is read is what was written, in no more bytes than trials of each column take."""

import numpy as np
import pytest

from headrace.codecs.const import ConstCodec
from headrace.codecs.origin import OriginCodec, explains
from headrace.codecs.pco import PcoCodec
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.codecs.select import smallest
from headrace.store.aggregates import Partials, partials_of, rounded
from headrace.store.runs import SensorSamples
from headrace.store.wanted import to_bits
from headrace.store.window_blocks import M2_BITS, Table, decode_windows, encode_blocks, is_raw

NS = 1_000_000_000
MINUTE, HOUR, DAY = 60 * NS, 3_600 * NS, 86_400 * NS
DAY_0 = 20_000
MIDNIGHT = DAY_0 * DAY
RANDOM = np.random.default_rng(5)
WALK = np.cumsum(RANDOM.integers(-3, 4, 86_400))
SIGNALS = {
    "steps": (1_000 + WALK - WALK.min()).astype(np.uint16),
    "noise": RANDOM.integers(0, 60_000, 86_400).astype(np.uint16),
    "small noise": RANDOM.integers(-20, 20, 86_400).astype(np.int16),
    "counter": np.cumsum(RANDOM.integers(0, 9, 86_400)).astype(np.uint32),
    "wide counter": np.cumsum(RANDOM.integers(0, 9, 86_400)),
    "counter above 2**63": np.uint64(2**63) + np.cumsum(RANDOM.integers(0, 9, 86_400)).astype(np.uint64),
    "tenths": WALK / 10.0,
    "hundredths": np.round(20 + np.sin(np.arange(86_400) / 5_000) + RANDOM.normal(0, 0.05, 86_400), 2),
    "tenths as float32": (WALK / 10.0).astype(np.float32),
    "a converter's steps": (np.floor(WALK * 24.41 + 0.5) / 100).astype(np.float32),
    "by product": WALK * 0.01,
    "spikes": np.where(RANDOM.random(86_400) < 0.0005, np.pi * 1e5, WALK / 10.0),
    "float noise": RANDOM.normal(size=86_400),
    "float32 noise": RANDOM.normal(size=86_400).astype(np.float32),
    "equal": np.full(86_400, 21.5),
}


def windows_of(values, every_ns, step_ns=NS):
    n = len(values)
    kind = values.dtype.kind
    lane = values.astype(
        np.float64 if kind == "f" else (np.uint64 if values.dtype == np.uint64 else np.int64)
    )
    start = np.array([0, n])
    ts_ns = MIDNIGHT + np.arange(n) * step_ns
    one = SensorSamples(np.zeros(1, np.int64), start, ts_ns, lane, np.zeros(n, np.uint8))
    return partials_of(one, every_ns)


def blocks_of(parts, every_ns, dtype):
    """Of several sensors at once, each of which has some windows."""
    last = np.cumsum([len(one) for one in parts])
    spans = np.concatenate([[0], last[:-1]]), last
    return encode_blocks(Table(Partials.concat(parts), spans, every_ns, DAY_0, dtype))


def check(windows, found, dtype):
    names = ["window_ns", "count", "low", "high", "first", "last", "raw_sum" if is_raw(dtype) else "sum"]
    names += [] if is_raw(dtype) else ["sum_low"]
    for name in names:
        assert getattr(found, name).tobytes() == getattr(windows, name).tobytes(), name
    assert found.squares.tobytes() == rounded(windows.squares, M2_BITS).tobytes()


def tried(values):
    """Bytes of a column by the codecs that may be short, each tried."""
    chosen = smallest(values, [ConstCodec()])
    if isinstance(chosen.codec, ConstCodec):
        return len(chosen.body)
    chosen = smallest(values, [OriginCodec() if values.dtype.kind == "f" else RiceDeltaCodec()], chosen)
    if len(values) < 256 or (isinstance(chosen.codec, OriginCodec) and explains(chosen.body)):
        return len(chosen.body)
    return len(smallest(values, [PcoCodec()], chosen).body)


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("every_ns", [MINUTE, HOUR, DAY])
def test_a_block_is_read_as_it_was_written_and_takes_no_more_than_trials_would(name, every_ns):
    values = SIGNALS[name]
    dtype, windows = values.dtype, windows_of(values, every_ns)
    (block,) = blocks_of([windows], every_ns, dtype)
    check(windows, decode_windows(block, DAY_0, every_ns, dtype), dtype)
    ends = np.concatenate([windows.low, windows.high, windows.first, windows.last]).astype(dtype)
    sums = [windows.raw_sum] if is_raw(dtype) else [windows.sum, windows.sum_low]
    columns = [windows.count, ends, *sums, rounded(windows.squares, M2_BITS)]
    assert len(block) < 1.1 * sum(map(tried, columns)) + 30  # heads, and times


def test_blocks_of_many_sensors_are_those_of_each():
    parts = [
        windows_of(v[k * 3_600 :], HOUR) for k, v in enumerate([SIGNALS["tenths"], SIGNALS["spikes"]] * 3)
    ]
    parts += [windows_of(SIGNALS["equal"][:9], HOUR), windows_of(WALK[:40] * 1.5, HOUR, 1_800 * NS)]
    dtype = np.dtype(np.float64)
    together = blocks_of(parts, HOUR, dtype)
    assert together == [blocks_of([one], HOUR, dtype)[0] for one in parts]
    for one, block in zip(parts, together, strict=True):
        check(one, decode_windows(block, DAY_0, HOUR, dtype), dtype)


def test_blocks_of_many_tables_are_those_of_each():
    """Types, resolutions and numbers of windows differ."""
    kinds = [("noise", HOUR), ("tenths", MINUTE), ("counter above 2**63", HOUR), ("float32 noise", HOUR)]
    tables = []
    for name, every_ns in [*kinds, ("noise", MINUTE), ("equal", DAY)]:
        windows = windows_of(SIGNALS[name], every_ns)
        cut = np.array([0, len(windows) // 3]), np.array([len(windows) // 2, len(windows)])
        tables.append(
            Table(
                windows,
                cut if len(windows) > 6 else (cut[0][:1], cut[1][1:]),
                every_ns,
                DAY_0,
                SIGNALS[name].dtype,
            )
        )
    assert encode_blocks(*tables) == [block for one in tables for block in encode_blocks(one)]


def test_windows_may_be_some_of_a_table():
    windows, dtype = windows_of(SIGNALS["noise"], HOUR), np.dtype(np.uint16)
    spans = np.array([3, 20]), np.array([9, 24])
    for a, b, block in zip(*spans, encode_blocks(Table(windows, spans, HOUR, DAY_0, dtype)), strict=True):
        check(windows.take(slice(a, b)), decode_windows(block, DAY_0, HOUR, dtype), dtype)


def test_windows_with_gaps_between_them_are_read():
    values, dtype = SIGNALS["tenths"], np.dtype(np.float64)
    windows = windows_of(values, MINUTE).take(np.sort(RANDOM.choice(1_440, 700, replace=False)))
    (block,) = blocks_of([windows], MINUTE, dtype)
    check(windows, decode_windows(block, DAY_0, MINUTE, dtype), dtype)


ODD = {
    "float64": np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 5e-324, 1e308, -1e-300, 0.1, 2.0**53 + 2, 1 / 3]),
    "float32": np.array([0x7FA00001, 0x7FC00000, 0xFF800000, 1, 0x80000000, 0x3DCCCCCD, 0x7F7FFFFF], np.uint32).view(
        np.float32
    ),
    "int64": np.array([2**63 - 1, -(2**63), 0, 1, -1, 2**62]),
    "uint64": np.array([2**64 - 1, 2**63, 0, 1], np.uint64),
    "uint8": np.array([0, 255, 7], np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("n", [1, 2, 5, 63, 64, 300])
def test_any_bits_are_kept(kind, n):
    """Whatever a window may hold, and what it may not."""
    dtype = np.dtype(kind)
    rng = np.random.default_rng(n)
    for _ in range(8):
        pool = rng.choice(ODD[kind], rng.integers(1, 4))
        low, high, first, last = rng.choice(pool, (4, n))
        floats = rng.choice(rng.choice(ODD["float64"], rng.integers(1, 5)), (3, n))
        lane = np.float64 if dtype.kind == "f" else (np.uint64 if kind == "uint64" else np.int64)
        number, zero = np.sort(rng.choice(1_440, n, replace=False)), np.zeros(n, np.int64)
        start = MIDNIGHT + number * MINUTE
        ends = (
            [low, high, first, last]
            if dtype == np.float32
            else [one.astype(lane) for one in (low, high, first, last)]
        )
        whole = rng.choice(ODD["int64"], n)
        with np.errstate(invalid="ignore"):
            m2 = rounded(floats[1], M2_BITS)
        windows = Partials(
            zero, start, start, start, whole, *ends, floats[0], whole, floats[0], m2, floats[0], floats[2]
        )
        (block,) = blocks_of([windows], MINUTE, dtype)
        with np.errstate(
            invalid="ignore"
        ):  # a float32 that is no number, of a kind that float64 makes another of
            found = decode_windows(block, DAY_0, MINUTE, dtype)
            kept = [to_bits(getattr(found, name).astype(dtype)) for name in ("low", "high", "first", "last")]
            given = [
                to_bits(one.astype(np.float64).astype(dtype) if dtype == np.float32 else one.astype(dtype))
                for one in ends
            ]
        assert [one.tobytes() for one in kept] == [one.tobytes() for one in given]
        sums = (found.raw_sum, whole) if is_raw(dtype) else (found.sum_low, floats[2])
        for one, other in ((found.count, whole), sums, (found.squares, m2)):
            assert one.tobytes() == other.tobytes()
