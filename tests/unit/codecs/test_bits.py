"""Bits and bytes, against other people's implementations."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash

from headrace.codecs import bits

WORDS = [0, 1, 2, 127, 128, 300, 2**14 - 1, 2**14, 2**32, 2**63, 2**64 - 1]


@pytest.mark.parametrize("value", WORDS)
def test_varints_are_leb128(value):
    out = np.zeros(12, np.uint8)
    end = bits.put_varint(out, 1, np.uint64(value))
    assert end - 1 == bits.varint_size(np.uint64(value)) == max(1, -(-value.bit_length() // 7))
    assert sum((int(b) & 0x7F) << 7 * i for i, b in enumerate(out[1:end])) == value
    assert bits.get_varint(out, 1, end) == (value, end)
    assert bits.get_varint(out, 1, end - 1)[1] == bits.NO_POSITION


def test_a_varint_that_never_ends_is_refused():
    assert bits.get_varint(np.full(20, 0xFF, np.uint8), 0, 20)[1] == bits.NO_POSITION
    assert bits.get_varint(np.zeros(3, np.uint8), bits.NO_POSITION, 3)[1] == bits.NO_POSITION


@pytest.mark.parametrize("value", [0, 1, -1, 2, -2, 2**62, -(2**63), 2**63 - 1])
def test_zigzag_is_undone(value):
    with np.errstate(over="ignore"):
        small = bits.zigzag(np.int64(value).view(np.uint64))
        assert bits.unzigzag(np.uint64(small)) == value % 2**64
    assert int(small) == (2 * value if value >= 0 else -2 * value - 1)


@pytest.mark.parametrize("n_bytes", range(1, 9))
def test_signs_are_extended(n_bytes):
    half = 1 << 8 * n_bytes - 1
    for value in (-half, -1, 0, 1, half - 1):
        low = np.uint64(value % (2 * half))
        assert bits.extend_sign(low, n_bytes) == value % 2**64


@pytest.mark.parametrize("value", WORDS[1:])
def test_bit_counts(value):
    assert bits.bit_length(np.uint64(value)) == value.bit_length()
    with np.errstate(over="ignore"):
        assert bits.trailing_zeros(np.uint64(value)) == (value & -value).bit_length() - 1


def test_the_checksum_is_xxh64():
    data = np.random.default_rng(0).integers(0, 256, 210).astype(np.uint8)
    with np.errstate(over="ignore"):
        for size in (0, 1, 3, 4, 7, 8, 9, 31, 32, 33, 63, 64, 100, 200):
            expected = xxhash.xxh64_intdigest(data[5 : 5 + size].tobytes(), seed=size) & 0xFFFFFFFF
            assert bits.checksum(data, 5, 5 + size, size) == expected


@pytest.mark.parametrize("k", [0, 1, 7, 31, 56])
def test_rice_bits_are_the_bits_of_the_docstring(k):
    with np.errstate(over="ignore"):
        z = np.array([0, 1, 2, 3, 5, 8, 13, 2**k, 3 * 2**k + 1, 19 * 2**k, 0, 0, 0, 0], np.uint64)
        m = 10
        words = np.zeros(40, np.uint64)
        bits.rice_pack(z, m, k, words)
        n_bits, escapes = bits.rice_bits(z, m, m, k)
        stream = "".join(f"{int(w):064b}"[::-1] for w in words)[:n_bits]
        low = "".join(f"{int(v) % 2**k:0{k}b}"[::-1] if k else "" for v in z[:m])
        high = "".join("0" * min(int(v) >> k, bits.ESCAPE) + "1" for v in z[:m])
        assert stream == low + high
        got = np.zeros(m, np.uint64)
        read, got_escapes = bits.rice_unpack(words, -(-n_bits // 64), m, k, got)
        assert (read, got_escapes) == (n_bits, escapes)
        keep = z[:m] >> np.uint64(k) < bits.ESCAPE
        assert (got[keep] == z[:m][keep]).all()
