"""Gorilla as published: the paper's own example, a reader that follows its text bit by bit, and bytes that are none."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.codecs.base import Unfit, same_bits
from headrace.codecs.gorilla import BLOCK_S, GorillaCodec, gorilla_block, gorilla_samples
from headrace.core.errors import CorruptionError

MARCH_24_2015_2AM = 1_427_162_400


class Reader:
    """Section 4.1 of the paper, over a text of zeros and ones."""

    def __init__(self, block: bytes) -> None:
        self.bits = "".join(f"{byte:08b}" for byte in block)
        self.at = 0

    def take(self, n: int) -> int:
        self.at += n
        return int(self.bits[self.at - n : self.at], 2)

    def change(self) -> int:
        """The prefix is one of 0, 10, 110, 1110, 1111."""
        ones = 0
        while ones < 4 and self.take(1):
            ones += 1
        if ones == 0:
            return 0
        n, most = {1: (7, 64), 2: (9, 256), 3: (12, 2048), 4: (32, 2**31 - 1)}[ones]
        number = self.take(n)
        return number if number <= most else number - 2**n

    def samples(self, n: int) -> list[tuple[int, int]]:
        time = self.take(64)
        interval = self.take(14)
        time += interval
        value = self.take(64)
        found = [(time, value)]
        leading = length = 0
        for _ in range(n - 1):
            interval += self.change()
            time += interval
            if self.take(1):
                if self.take(1):
                    leading, length = self.take(5), self.take(6) or 64
                value ^= self.take(length) << (64 - leading - length)
            found.append((time, value))
        return found


def test_the_example_of_the_paper():
    """Figure 2: 02:01:02 12, 02:02:02 12, 02:03:02 24, in a block that starts at 02:00:00."""
    ts_s = MARCH_24_2015_2AM + np.array([62, 122, 182])
    assert MARCH_24_2015_2AM % BLOCK_S == 0
    bits = "".join(f"{byte:08b}" for byte in gorilla_block(ts_s, np.array([12.0, 12.0, 24.0])))
    twelve = f"{struct.unpack('>Q', struct.pack('>d', 12.0))[0]:064b}"
    expected = [
        f"{MARCH_24_2015_2AM:064b}",  # the block's start
        f"{62:014b}",
        twelve,
        "10" + f"{128 - 2:07b}",  # -2
        "0",
        "0",
        "11" + f"{11:05b}" + f"{1:06b}" + "1",
    ]
    assert [len(part) for part in expected] == [64, 14, 64, 9, 1, 1, 14]
    assert bits == "".join(expected).ljust(len(bits), "0")
    assert len(bits) == 168


any_floats = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(allow_nan=True, width=64))
few_floats = st.lists(st.sampled_from([0.0, -0.0, 12.0, 24.0, 15.5, np.inf, np.nan, 5e-324]), min_size=1).map(
    np.array
)
intervals = st.lists(
    st.sampled_from([60, 60, 60, 61, 59, 124, 125, 317, 2109, 70_000, 0, -60, 10**9]) | st.integers(-5_000, 5_000),
    min_size=60, max_size=60,
)  # fmt: skip


@given(any_floats | few_floats, intervals, st.integers(0, 2**40))
@settings(max_examples=150, deadline=None)
def test_a_block_is_what_the_paper_says_and_comes_back(values, steps, start):
    ts_s = start + np.cumsum(np.append(0, steps).astype(np.int64))[: values.size]
    values = np.asarray(values, np.float64)
    block = gorilla_block(ts_s, values)
    reader = Reader(block)
    assert reader.samples(values.size) == list(
        zip(ts_s.tolist(), values.view(np.uint64).tolist(), strict=True)
    )
    assert 0 <= len(reader.bits) - reader.at < 8
    got_s, got = gorilla_samples(block, values.size)
    assert same_bits(got_s, ts_s)
    assert same_bits(got, values)
    assert same_bits(GorillaCodec().unpack(GorillaCodec().pack(values), values.size, values.dtype), values)


def test_changes_at_the_ends_of_their_ranges():
    changes = [-63, 64, -64, 65, -255, 256, -256, 257, -2047, 2048, -2048, 2049, 2**31 - 1, -(2**31), 0]
    ts_s = np.cumsum(np.cumsum([0, 0, *changes])) + 7_200_000
    values = np.zeros(ts_s.size)
    block = gorilla_block(ts_s, values)
    assert [time for time, _ in Reader(block).samples(ts_s.size)] == ts_s.tolist()
    assert same_bits(gorilla_samples(block, ts_s.size)[0], ts_s)


def test_what_no_block_can_hold_is_refused():
    ones = np.ones(2)
    with pytest.raises(Unfit, match="32 bits"):
        gorilla_block(np.array([0, 2**33]), ones)
    with pytest.raises(Unfit, match="expected"):
        gorilla_block(np.array([0]), ones)
    with pytest.raises(Unfit, match="expected"):
        gorilla_block(np.empty(0, np.int64), np.empty(0))
    with pytest.raises(Unfit, match="float64"):
        GorillaCodec().pack(np.ones(3, np.float32))


@given(st.binary(max_size=200), st.integers(0, 500))
@settings(max_examples=300, deadline=None)
def test_nonsense_is_damage(block, n):
    try:
        ts_s, values = gorilla_samples(block, n)
    except CorruptionError:
        pass
    else:
        assert ts_s.size == values.size == n
    try:
        assert GorillaCodec().unpack(block, n, np.dtype(np.float64)).size == n
    except CorruptionError:
        pass


def test_a_cut_block_is_damage():
    ts_s = MARCH_24_2015_2AM + 60 * np.arange(200)
    block = gorilla_block(ts_s, np.sin(np.arange(200)))
    for size in range(0, len(block), 7):
        with pytest.raises(CorruptionError):
            gorilla_samples(block[:size], 200)
    with pytest.raises(CorruptionError):
        gorilla_samples(block + b"\0", 200)
