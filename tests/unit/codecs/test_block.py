"""Blocks: what callers are promised beside the round trip (that is a property test)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from tests.memory import peak_bytes

from headrace.codecs import block_kernels as kernels
from headrace.codecs.base import same_bits
from headrace.codecs.block import decode_block, decode_blocks, decode_columns, encode_blocks
from headrace.core.errors import CorruptionError
from headrace.core.layouts import DTYPES, numpy_dtype

U16 = np.dtype(np.uint16)


def encode_one(values, ts_ns=None, quality=None):
    n = len(values)
    ts_ns = np.arange(n) * 10**9 if ts_ns is None else ts_ns
    return encode_blocks(values, ts_ns, quality, np.arange(n), np.array([0, n]))


def random_walk(rng, n, d, step=1.0):
    return (np.cumsum(np.rint(rng.normal(size=(n, d)) * step), axis=0) + 3000).astype(np.uint16)


def test_register_walks_take_less_than_half_a_byte():
    rng = np.random.default_rng(1)
    values = random_walk(rng, 64, 50)
    values[:, :12] = values[0, :12]  # a quarter of the registers stands still
    assert encode_one(values).payload.size / values.size < 0.35
    assert encode_one(random_walk(rng, 64, 50)).payload.size / values.size < 0.45


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_still_columns_and_regular_times_cost_a_few_bytes(dtype):
    values = np.full((1000, 20), 21, dtype)
    assert encode_one(values).payload.size < 130


@pytest.mark.parametrize("digits", [0, 1, 3, 6])
def test_decimals_cost_no_more_than_their_integers(digits):
    walk = np.cumsum(np.random.default_rng(2).integers(-3, 4, (64, 10)), axis=0) + 500
    as_integers = encode_one(walk.astype(np.int32)).payload.size
    assert encode_one(walk / 10**digits).payload.size <= as_integers + 10
    assert encode_one((walk / 10**digits).astype(np.float32)).payload.size <= as_integers + 10


def test_scaled_registers_cost_no_more_than_their_integers():
    """``raw * 0.1`` is not the float next to the decimal, but it is a product."""
    walk = np.cumsum(np.random.default_rng(2).integers(-3, 4, (64, 10)), axis=0) + 500
    assert encode_one(walk * 0.1).payload.size <= encode_one(walk.astype(np.int32)).payload.size + 10


def test_a_few_gaps_do_not_spoil_the_grid():
    walk = (np.cumsum(np.random.default_rng(3).integers(-3, 4, (64, 10)), axis=0) + 500) / 10
    gaps = walk.copy()
    gaps[[5, 6, 40]] = np.nan
    assert encode_one(gaps).payload.size < encode_one(walk).payload.size + 10 * 14


def test_multiples_of_a_step_cost_what_the_steps_cost():
    walk = np.cumsum(np.random.default_rng(4).integers(-3, 4, (64, 10)), axis=0) + 500
    fine, coarse = encode_one(walk.astype(np.int32)), encode_one((walk * 2_500).astype(np.int32))
    assert coarse.payload.size < fine.payload.size + 10 * 4


def test_numbers_of_the_blocks():
    ts_ns = np.array([5, 3, 9, 7, 1])
    quality = np.array([[0, 0], [0x40, 0], [0x80, 0xC0], [0, 0x3F], [0, 0]], np.uint8)
    values = np.arange(10, dtype=np.int32).reshape(5, 2)
    done = encode_blocks(values, ts_ns, quality, np.array([1, 0, 4, 2], np.int32), np.array([0, 2, 2, 4]))
    assert done.t_min.tolist() == [3, 0, 1]
    assert done.t_max.tolist() == [5, 0, 9]
    assert done.n_frames.tolist() == [2, 0, 2]
    assert done.n_frames.dtype == np.int32
    assert done.n_good.tolist() == [3, 0, 2]
    assert done.n_fallbacks == 0
    assert done.offsets[0] == 0
    read = decode_blocks(done.payload, done.offsets, values.dtype, [1, 0])
    assert read.values.tolist() == [[3, 2], [1, 0], [9, 8], [5, 4]]
    assert read.quality is not None
    assert read.quality.tolist() == [[0, 0x40], [0, 0], [0, 0], [0xC0, 0x80]]
    assert read.starts.tolist() == [0, 2, 2, 4]


def test_quality_that_is_all_good_takes_no_room():
    values = random_walk(np.random.default_rng(5), 64, 5)
    good = encode_one(values, quality=np.zeros(values.shape, np.uint8))
    assert same_bits(good.payload, encode_one(values).payload)
    assert decode_block(good.payload, U16)[2] is None


def test_a_dead_device_is_said_once_for_all_its_columns():
    values = random_walk(np.random.default_rng(6), 64, 50)
    quality = np.zeros(values.shape, np.uint8)
    quality[20:30] = 0x83
    assert encode_one(values, quality=quality).payload.size < encode_one(values).payload.size + 12


def test_no_blocks_no_bytes():
    done = encode_blocks(
        np.empty((0, 3), np.uint16), np.empty(0, np.int64), None, np.empty(0, np.int64), np.zeros(1)
    )
    assert done.payload.size == 0
    assert done.offsets.tolist() == [0]
    read = decode_blocks(done.payload, done.offsets, U16, 1)
    assert read.values.shape == (0, 1)


@pytest.mark.parametrize("name", DTYPES)
def test_an_empty_block_is_a_block(name):
    dtype = numpy_dtype(name)
    done = encode_one(np.empty((0, 3), dtype))
    ts_ns, values, quality = decode_block(done.payload, dtype)
    assert (ts_ns.size, values.shape, values.dtype, quality) == (0, (0, 3), dtype, None)


def test_all_kinds_of_arrays_are_one_to_the_kernels():
    """Frozen, unaligned, strided and narrow inputs: one compiled version, or live data would wait for another."""
    values = random_walk(np.random.default_rng(7), 32, 3)
    frozen = values.copy()
    frozen.flags.writeable = False
    raw = np.zeros(8 * 32 + 1, np.uint8)
    raw[1:] = np.arange(32).view(np.uint8)
    unaligned = raw[1:].view(np.int64)
    order, starts = np.arange(32), np.array([0, 32])
    expected = encode_blocks(values, np.arange(32), None, order, starts).payload
    for ts_ns, indices in (
        (unaligned, order.astype(np.int32)),
        (np.arange(64)[::2] // 2, np.arange(0, 64, 2)[::-1][::-1] // 2),
        (np.arange(32), order),
    ):
        assert same_bits(encode_blocks(frozen, ts_ns, None, indices, starts).payload, expected)
    payloads = [expected, expected.tobytes(), bytearray(expected), memoryview(expected.tobytes())]
    for payload in payloads:
        assert same_bits(decode_block(payload, U16)[1], values)
        assert same_bits(
            decode_blocks(payload, np.array([0, expected.size], np.int32), U16, 1).values, values[:, 1:2]
        )
    assert same_bits(decode_columns(expected, U16, np.array([2, 0], np.int16))[1], values[:, [2, 0]])
    for kernel in (kernels.encode_blocks, kernels.measure_blocks, kernels.decode_blocks):
        assert len(getattr(kernel, "signatures", [0])) == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"values": np.zeros((4, 0), np.uint16)}, "C-contiguous, D from 1"),
        ({"values": np.zeros((2, 4), np.uint16).T}, "C-contiguous"),
        ({"values": np.zeros(4, np.uint16)}, "expected"),
        ({"values": np.zeros((4, 2), np.complex128)}, "complex128 can't be encoded"),
        ({"values": np.zeros((4, 2), ">u2")}, "can't be encoded"),
        ({"ts_ns": np.arange(3)}, "4 frames, but times of shape"),
        ({"quality": np.zeros((4, 1), np.uint8)}, "quality"),
        ({"quality": np.zeros((4, 2), np.int64)}, "quality"),
        ({"order": np.array([0, 1, 2, 4])}, "order"),
        ({"order": np.array([0, -1, 2, 3])}, "order"),
        ({"order": np.zeros((2, 2), np.int64)}, "order"),
        ({"starts": np.array([0, 5])}, "starts"),
        ({"starts": np.array([3, 1])}, "starts"),
        ({"starts": np.array([-1, 1])}, "starts"),
        ({"starts": np.array([], np.int64)}, "starts"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(change, text):
    given = {
        "values": np.zeros((4, 2), np.uint16),
        "ts_ns": np.arange(4),
        "quality": None,
        "order": np.arange(4),
        "starts": np.array([0, 4]),
    } | change
    with pytest.raises(ValueError, match=text):
        encode_blocks(**given)


def test_too_large_a_block_is_refused():
    n = (1 << 20) + 1
    with pytest.raises(ValueError, match="split it"):
        encode_blocks(np.zeros((n, 1), np.uint8), np.zeros(n, np.int64), None, np.arange(n), np.array([0, n]))


def test_the_error_says_which_block_and_why():
    values = random_walk(np.random.default_rng(8), 30, 2)
    done = encode_blocks(values, np.arange(30), None, np.arange(30), np.array([0, 10, 20, 30]))
    damaged = done.payload.copy()
    damaged[done.offsets[2] - 1] ^= 1
    with pytest.raises(CorruptionError, match=r"block 1 of 3 .*uint16.*its checksum is wrong; quarantine"):
        decode_blocks(damaged, done.offsets, U16, 0)
    with pytest.raises(CorruptionError, match="another type"):
        decode_blocks(done.payload, done.offsets, np.dtype(np.int16), 0)
    with pytest.raises(CorruptionError, match="fewer columns"):
        decode_blocks(done.payload, done.offsets, U16, 2)
    with pytest.raises(CorruptionError, match="fewer columns"):
        decode_columns(done.payload[: done.offsets[1]], U16, np.array([-1]))
    with pytest.raises(CorruptionError, match="shorter than a header"):
        decode_blocks(done.payload, np.array([0, 5]), U16, 0)
    with pytest.raises(CorruptionError, match="shorter than a header"):
        decode_blocks(done.payload, np.array([0, done.payload.size + 1]), U16, 0)
    with pytest.raises(CorruptionError, match="shorter than a header"):
        decode_blocks(done.payload, np.array([-40, 40]), U16, 0)
    newer = done.payload.copy()
    newer[0] = 2
    with pytest.raises(CorruptionError, match="newer release"):
        decode_blocks(newer, done.offsets, U16, 0)


def test_a_read_that_is_too_large_is_refused_before_memory_is_taken(monkeypatch):
    monkeypatch.setattr("headrace.codecs.block.N_READ_MAX", 10_000)
    n = 1 << 12
    still = encode_one(np.zeros((n, 3), np.uint8))
    assert still.payload.size < 200

    def read():
        with pytest.raises(ValueError, match="read fewer"):
            decode_block(still.payload, np.dtype(np.uint8))

    assert peak_bytes(read) < 10_000


FAILING = """
    import numpy as np
    from headrace.codecs import block_kernels, values
    from headrace.codecs.block import decode_block, encode_blocks
    from headrace.core.errors import CorruptionError

    table = np.arange(60, dtype=np.int32).reshape(20, 3) ** 2
    arguments = table, np.arange(20), None, np.arange(20), np.array([0, 8, 20])
    sound = values.put_column

    def careless(x, *rest):
        x[1] += 1
        return sound(x, *rest)

    values.put_column = careless
    done = encode_blocks(*arguments)
    assert done.n_fallbacks == 2, done
    for g, rows in enumerate((slice(0, 8), slice(8, 20))):
        ts_ns, got, _ = decode_block(done.payload[done.offsets[g]:done.offsets[g + 1]], table.dtype)
        assert (got == table[rows]).all() and (ts_ns == np.arange(20)[rows]).all()

    plain = values.put_plain
    values.put_plain = lambda x, *rest: plain(x + 1, *rest)
    try:
        encode_blocks(*arguments)
    except CorruptionError as e:
        assert "block 0 of 2" in str(e) and "not even plain" in str(e), e
    else:
        raise AssertionError("a block that can't be read was written")
    print("held")
"""


def test_a_broken_encoder_is_caught_and_the_block_stored_plain():
    """In plain Python, where a kernel can be replaced by a faulty one."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(FAILING)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("held\n", "")


def test_plain_python_and_compiled_code_write_the_same_bytes(tmp_path):
    """The interpreter checks every index and every overflow, so this also shows that there is none."""
    script = """
        import sys
        import numpy as np
        from headrace.codecs.block import decode_block, encode_blocks
        from headrace.testing.codecs import extreme_values, value_samples
        payloads = []
        for samples in (value_samples(n=50), extreme_values()):
            for _, values in samples:
                n = values.size
                quality = (np.arange(n) % 9 == 4).astype(np.uint8)[:, np.newaxis]
                ts_ns = np.arange(n) * 10**9 + np.arange(n) % 3 * 10**6
                starts = np.array([0, n // 3, n])
                done = encode_blocks(values[:, np.newaxis].copy(), ts_ns, quality, np.arange(n), starts)
                decode_block(done.payload[: done.offsets[1]], values.dtype)
                payloads.append(done.payload)
        np.concatenate(payloads).tofile(sys.argv[1])
    """
    for name, environment in (
        ("plain", {"NUMBA_DISABLE_JIT": "1"}),
        ("compiled", {"NUMBA_DISABLE_JIT": "0"}),
    ):
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), str(tmp_path / name)]
        subprocess.run(command, env=os.environ | environment, check=True)
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "compiled").read_bytes()
