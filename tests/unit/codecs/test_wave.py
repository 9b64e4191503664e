"""Waves: runs at a rate, and one column of values."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import xxhash
from tests.memory import peak_bytes

from headrace.codecs import wave
from headrace.codecs.base import same_bits
from headrace.codecs.rate import RateTime
from headrace.codecs.wave import WaveRuns, decode_wave, decode_waves, encode_wave, encode_waves
from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch, Shape

F32 = np.dtype(np.float32)


def runs_of(*runs):
    return WaveRuns(*(np.array(column) for column in zip(*runs, strict=True)))


def test_times_of_runs_are_those_of_the_frames():
    start = np.array([0, 5, 12])
    batch = FrameBatch(
        Shape.WAVE,
        slot=np.zeros(2, np.uint32),
        ts_ns=np.array([10**18, 2 * 10**18]),
        values=np.zeros(12),
        start=start,
        rate_num=np.array([12_000, 25_600]),
        rate_den=np.array([1, 3]),
    )
    runs = WaveRuns(batch.ts_ns, batch.rate_num, batch.rate_den, np.diff(start))
    assert same_bits(runs.ts_ns(), batch.value_times())


def test_a_vibration_signal_costs_its_values_and_next_to_nothing_for_times():
    runs = runs_of((10**18, 12_000, 1, 4096), (10**18 + 10**9, 12_000, 1, 4096))
    values = np.rint(np.sin(np.arange(8192) / 9) * 200).astype(np.int16)
    assert len(encode_wave(runs, values, None)) < 8192 * 1.1


def test_no_runs_are_an_entry_too():
    empty = np.empty(0, np.int64)
    runs, values, quality = decode_wave(encode_wave(WaveRuns(*[empty] * 4), np.empty(0, F32), None), F32)
    assert (runs.n.size, values.size, quality) == (0, 0, None)


@pytest.mark.parametrize(
    ("runs", "values", "quality", "text"),
    [
        (runs_of((0, 1, 1, 3)), np.zeros(2, F32), None, "2 values, but runs of 3"),
        (runs_of((0, 1, 1, 3), (0, 1, 1, -1)), np.zeros(2, F32), None, "2 values"),
        (runs_of((0, 1, 1, 2)), np.zeros((1, 2), F32), None, "2 values"),
        (runs_of((0, 0, 1, 2)), np.zeros(2, F32), None, "positive"),
        (runs_of((0, 1, -1, 2)), np.zeros(2, F32), None, "positive"),
        (runs_of((0, 1, 1, 2)), np.zeros(2, F32), np.zeros(3, np.uint8), "quality"),
        (runs_of((0, 1, 1, 2)), np.zeros(2, F32), np.zeros(2, np.int16), "quality"),
        (runs_of((0, 1, 1, 2)), np.zeros(2, np.complex64), None, "complex64 can't be encoded"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(runs, values, quality, text):
    with pytest.raises(ValueError, match=text):
        encode_wave(runs, values, quality)


def test_too_many_values_are_refused(monkeypatch):
    monkeypatch.setattr(wave, "N_VALUES_MAX", 10)
    with pytest.raises(ValueError, match="split it"):
        encode_wave(runs_of((0, 1, 1, 11)), np.zeros(11, F32), None)


def test_waves_are_taken_in_the_order_asked_for_and_their_qualities_counted():
    runs = runs_of((5, 2, 1, 2), (9, 4, 1, 3), (7, 2, 1, 0), (8, 1, 1, 1))
    values = np.array([10, 11, 20, 21, 22, 30], np.int16)
    quality = np.array([0, 0x41, 0, 0xC0, 0x83, 0], np.uint8)
    done = encode_waves(runs, values, quality, np.array([3, 1, 0, 2]), np.array([0, 1, 1, 4]))
    assert done.n_of_class.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [2, 1, 1, 1]]
    assert done.n_fallbacks == 0
    read = decode_waves(done.payload, done.offsets, values.dtype)
    assert read.values.tolist() == [30, 20, 21, 22, 10, 11]
    assert read.quality.tolist() == [0, 0, 0xC0, 0x83, 0, 0x41]
    assert (read.starts.tolist(), read.run_starts.tolist()) == ([0, 1, 1, 6], [0, 1, 1, 4])
    assert read.runs.t0_ns.tolist() == [8, 9, 5, 7]
    assert same_bits(read.ts_ns, read.runs.ts_ns())
    last = done.payload[done.offsets[2] :].tobytes()
    assert decode_wave(last, values.dtype)[1].tolist() == [20, 21, 22, 10, 11]
    all_good = encode_waves(runs, values, None, np.array([3, 1]), np.array([0, 2]))
    assert all_good.n_of_class.tolist() == [[4, 0, 0, 0]]
    assert decode_waves(all_good.payload, all_good.offsets, values.dtype).quality is None


@pytest.mark.parametrize(
    ("order", "starts", "text"),
    [
        ([0, 2], [0, 2], "not among the 2"),
        ([-1], [0, 1], "not among the 2"),
        ([0, 1], [0, 3], "rise from 0 to 2"),
        ([0, 1], [1, 0], "rise from 0 to 2"),
        ([0, 1], [-1, 1], "rise from 0 to 2"),
        ([0, 1], [], "rise from 0 to 2"),
    ],
)
def test_an_order_that_leaves_the_runs_is_refused(order, starts, text):
    with pytest.raises(ValueError, match=text):
        encode_waves(runs_of((0, 1, 1, 1), (0, 1, 1, 1)), np.zeros(2, F32), None, order, starts)


def test_what_is_wrong_with_which_of_many_is_said():
    one = encode_wave(runs_of((0, 1, 1, 3)), np.zeros(3, F32), None)
    ends = np.array([0, len(one), 2 * len(one)])
    for second, text in (
        (b"\2" + one[1:], "wave 1 of 2 .* newer release"),
        (one[:-1] + b"?", "wave 1 of 2 .* checksum"),
        (changed(one, 10, 0), "wave 1 of 2 .* its runs can't be decoded"),
    ):
        with pytest.raises(CorruptionError, match=text):
            decode_waves(one + second, ends, F32)
    for offsets in ([0, 29], [-40, len(one)], [0, len(one) + 1], [20, 10]):
        with pytest.raises(CorruptionError, match="wave 0 of 1 .* shorter than a header"):
            decode_waves(one, np.array(offsets), F32)


def test_a_read_that_is_too_large_is_refused_before_memory_is_taken(monkeypatch):
    monkeypatch.setattr(wave, "N_READ_MAX", 10_000)
    still = encode_wave(runs_of((0, 1, 1, 12_000)), np.zeros(12_000, F32), None)
    empty = encode_wave(
        WaveRuns(*np.ones((3, 3_000), np.int64), np.zeros(3_000, np.int64)), np.empty(0, F32), None
    )

    def read():
        for payload in (still, empty):
            assert len(payload) < 300
            with pytest.raises(ValueError, match="read fewer"):
                decode_wave(payload, F32)

    assert peak_bytes(read) < 40_000


FAILING = """
    import numpy as np
    from headrace.codecs import values
    from headrace.codecs.wave import WaveRuns, decode_waves, encode_waves
    from headrace.core.errors import CorruptionError

    numbers = np.arange(70, dtype=np.int32) ** 2
    runs = WaveRuns(*np.array([[5, 6, 7], [1, 1, 1], [1, 1, 1], [30, 30, 10]]))
    arguments = runs, numbers, None, np.arange(3), np.array([0, 1, 2, 3])
    sound, broken = values.put_column, 30

    def careless(x, n, *rest):
        x[n - 1] += n == broken
        return sound(x, n, *rest)

    values.put_column = careless
    done = encode_waves(*arguments)
    assert done.n_fallbacks == 2, done
    assert [done.payload[at + 1] & 0x20 for at in done.offsets[:-1]] == [0x20, 0x20, 0]
    assert (decode_waves(done.payload, done.offsets, numbers.dtype).values == numbers).all()
    broken = 1
    try:
        encode_waves(*arguments)
    except CorruptionError as e:
        assert "wave 0 of 3 (30 values in 1 runs, int32)" in str(e) and "not even plain" in str(e), e
    else:
        raise AssertionError("a wave that can't be read was written")
    print("held")
"""


def test_a_broken_encoder_is_caught_and_the_values_stored_plain():
    """In plain Python, where a kernel can be replaced by a faulty one."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(FAILING)]
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("held\n", "")


def reseal(payload):
    digest = xxhash.xxh64_intdigest(payload[6:], payload[0] | payload[1] << 8) & 0xFFFFFFFF
    return payload[:2] + struct.pack("<I", digest) + payload[6:]


def changed(payload, place, value):
    return reseal(payload[:place] + bytes([value]) + payload[place + 1 :])


def test_damage_behind_a_sound_checksum_is_refused_or_harmless():
    rng = np.random.default_rng(0)
    quality = np.where(np.arange(60) % 7 == 0, 0x83, 0).astype(np.uint8)
    payload = encode_wave(
        runs_of((5, 1000, 1, 20), (7, 1000, 1, 40)), rng.normal(size=60).astype(F32), quality
    )
    refused = 0
    for place in range(6, len(payload)):
        for value in {0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))}:
            try:
                runs, values, _ = decode_wave(changed(payload, place, value), F32)
            except CorruptionError:
                refused += 1
                continue
            assert values.size == runs.n.sum()
    assert refused > 100
    for place, value, text in (
        (0, 9, "version"),
        (1, 0x48, "float32"),
        (1, 0x07, "float32"),
        (9, 1, "sections do not fit|claims more"),
        (13, 1, "sections do not fit"),
    ):
        with pytest.raises(CorruptionError, match=text):
            decode_wave(changed(payload, place, value), F32)


def test_forged_runs_are_refused():
    """Bytes that only a wrong writer makes, not a disk."""

    def forged(n=(2,), num=(1,), flags=8, values=b""):
        from headrace.codecs.series_kernels import series_body

        columns = [np.zeros(len(n), np.int64), np.array(num), np.ones(len(n), np.int64), np.array(n)]
        parts = [*(series_body(c, 1024) for c in columns), b""]
        head = struct.pack("<BBIIIIIII", 1, flags, 0, len(n), *(len(p) for p in parts))
        return reseal(head + b"".join(parts) + values)

    assert decode_wave(forged(flags=8 | 0x20, values=bytes(8)), F32)[1].tolist() == [0, 0]
    for payload, text in (
        (forged(n=(-1,)), "more values"),
        (forged(n=(1 << 25,)), "more values"),
        (forged(n=(1 << 24, 1 << 24), num=(1, 1)), "more values"),
        (forged(num=(0,)), "not positive"),
        (forged(), "values can't be decoded"),
        (forged(flags=8 | 0x10), "values can't be decoded"),
        (forged(flags=8 | 0x20, values=bytes(7)), "values can't be decoded"),
    ):
        with pytest.raises(CorruptionError, match=text):
            decode_wave(payload, F32)


def test_a_rate_keeps_clocks_that_are_no_whole_nanoseconds():
    exact = 10**18 + np.arange(20_000) * 10**9 // 12_000
    payload = RateTime(12_000).encode(exact)
    assert len(payload) < 80
    assert same_bits(RateTime(12_000).decode(payload, exact.size), exact)
