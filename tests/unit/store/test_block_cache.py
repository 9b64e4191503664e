"""Blocks of far files: fetched in runs, kept within a bound, let go of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.store import block_cache
from headrace.store.block_cache import BlockCache


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(block_cache, "BLOCK_BYTES", 10)
    monkeypatch.setattr(block_cache, "WHOLE_BYTES", 30)


class File:
    def __init__(self, size):
        self.data = memoryview(np.arange(size).astype(np.uint8).tobytes())
        self.ranges = []

    def fetch(self, starts, ends):
        found = list(zip(starts, ends, strict=True))
        self.ranges.append(found)
        return [self.data[a:b] for a, b in found]

    def read(self, cache, *parts):
        starts, ends = [a for a, _ in parts], [b for _, b in parts]
        part = cache.reader("f", len(self.data), (starts, ends), self.fetch)
        return [bytes(part(a, b)) for a, b in parts]


@given(
    st.lists(st.tuples(st.integers(0, 95), st.integers(0, 30)), min_size=1, max_size=8), st.integers(0, 60)
)
def test_parts_are_those_of_the_file_however_little_is_kept(parts, limit):
    file, cache = File(95), BlockCache(limit)
    wanted = [(a, min(a + n, 95)) for a, n in parts]
    for _ in range(2):
        assert file.read(cache, *wanted) == [bytes(file.data[a:b]) for a, b in wanted]
        assert cache.used_bytes <= limit
    assert len(file.ranges) <= 2


def test_neighbours_are_one_range_and_what_is_kept_is_not_fetched():
    file, cache = File(100), BlockCache(1_000)
    file.read(cache, (12, 33), (71, 72))
    assert file.ranges == [[(10, 40), (70, 80)]]
    file.read(cache, (5, 45))
    assert file.ranges[1:] == [[(0, 10), (40, 50)]]
    file.read(cache, (0, 50), (75, 80))
    assert len(file.ranges) == 2


def test_a_small_file_is_fetched_whole():
    file, cache = File(25), BlockCache(1_000)
    assert file.read(cache, (24, 25)) == [bytes([24])]
    assert file.ranges == [[(0, 25)]]
    file.read(cache, (0, 25))
    assert len(file.ranges) == 1


def test_what_was_used_last_is_kept():
    file, cache = File(100), BlockCache(30)
    file.read(cache, (0, 30))
    file.read(cache, (0, 1))
    file.read(cache, (50, 60))
    file.ranges.clear()
    file.read(cache, (0, 1), (50, 51))
    assert file.ranges == []
    cache.forget("f")
    cache.forget("f")
    assert cache.used_bytes == 0
    file.read(cache, (0, 1))
    assert file.ranges == [[(0, 10)]]
