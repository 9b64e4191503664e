"""Blocks of files that are far away: fetched many at a time, the ones used last kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from headrace.core.disk import Buffer

BLOCK_BYTES = 256 << 10
"""A range of this size takes hardly longer than one of a few bytes."""
WHOLE_BYTES = 1 << 20
"""Files up to this size are fetched whole when they are first read."""

Fetch = Callable[[Sequence[int], Sequence[int]], list[memoryview]]
_Key = tuple[str, int]


class BlockCache:
    """Keeps blocks of files that never change; for any thread.

    Parameters
    ----------
    limit_bytes : memory that the blocks may take.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._lock = threading.Lock()
        self._blocks: OrderedDict[_Key, memoryview] = OrderedDict()
        self._of_path: dict[str, set[int]] = {}

    @property
    def used_bytes(self) -> int:
        """Memory that the blocks take."""
        return self._used_bytes

    def reader(
        self, path: str, size_bytes: int, parts: tuple[Sequence[int], Sequence[int]], fetch: Fetch
    ) -> Callable[[int, int], Buffer]:
        """Have all blocks of some parts (starts, ends) in memory, and read from them.

        Parameters
        ----------
        fetch : gets ranges, given where they start and end; called once, or not at all.
        """
        wanted = _numbers(size_bytes, *parts)
        blocks = self._kept(path, wanted)
        missing = [n for n in wanted if n not in blocks]
        if missing:
            new = _fetched(size_bytes, missing, fetch)
            self._keep(path, new)
            blocks |= new
        return lambda start, end: _part(blocks, start, min(end, size_bytes))

    def forget(self, path: str) -> None:
        """Let go of a file that was replaced or removed."""
        with self._lock:
            for n in self._of_path.pop(path, ()):
                self._used_bytes -= len(self._blocks.pop((path, n)))

    def _kept(self, path: str, wanted: Iterable[int]) -> dict[int, memoryview]:
        found = {}
        with self._lock:
            for n in wanted:
                block = self._blocks.get((path, n))
                if block is not None:
                    self._blocks.move_to_end((path, n))
                    found[n] = block
        return found

    def _keep(self, path: str, new: dict[int, memoryview]) -> None:
        with self._lock:
            for n, block in new.items():
                if (path, n) not in self._blocks:
                    self._blocks[path, n] = block
                    self._of_path.setdefault(path, set()).add(n)
                    self._used_bytes += len(block)
            while self._used_bytes > self._limit_bytes:
                (old, n), block = self._blocks.popitem(last=False)
                self._used_bytes -= len(block)
                self._of_path[old].discard(n)
                if not self._of_path[old]:
                    del self._of_path[old]


def _numbers(size_bytes: int, starts: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Blocks that some parts lie in, in order; those of a small file all at once."""
    if size_bytes <= WHOLE_BYTES:
        return list(range(-(-size_bytes // BLOCK_BYTES)))
    found: set[int] = set()
    for start, end in zip(starts, ends, strict=True):
        found.update(range(start // BLOCK_BYTES, -(-min(end, size_bytes) // BLOCK_BYTES)))
    return sorted(found)


def _fetched(size_bytes: int, numbers: list[int], fetch: Fetch) -> dict[int, memoryview]:
    """Get blocks, each run of neighbours as one range; copied, so that one that is kept keeps no others."""
    firsts = [n for i, n in enumerate(numbers) if not i or numbers[i - 1] != n - 1]
    lasts = [n for i, n in enumerate(numbers) if i == len(numbers) - 1 or numbers[i + 1] != n + 1]
    ends = [min((n + 1) * BLOCK_BYTES, size_bytes) for n in lasts]
    found = fetch([n * BLOCK_BYTES for n in firsts], ends)
    out = {}
    for first, last, data in zip(firsts, lasts, found, strict=True):
        for n in range(first, last + 1):
            at = (n - first) * BLOCK_BYTES
            out[n] = memoryview(bytes(data[at : at + BLOCK_BYTES]))
    return out


def _part(blocks: dict[int, memoryview], start: int, end: int) -> Buffer:
    first, at = divmod(start, BLOCK_BYTES)
    if end <= start:
        return b""
    last = (end - 1) // BLOCK_BYTES
    if first == last:
        return blocks[first][at : at + end - start]
    middle = [blocks[n] for n in range(first + 1, last)]
    return b"".join([blocks[first][at:], *middle, blocks[last][: end - last * BLOCK_BYTES]])
