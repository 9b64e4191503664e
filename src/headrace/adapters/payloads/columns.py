"""Topics and payloads of many messages without an object for each of them.

Both are sequences that make one where somebody asks for it; who reads many at once takes the numbers and the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel

I64 = npt.NDArray[np.int64]


class CodedTopics(Sequence[str]):
    """Topics as numbers: that of message i is ``names[ids[i]]``; `names` is shared, and only grows."""

    __slots__ = ("ids", "names")

    def __init__(self, names: list[str], ids: I64) -> None:
        self.names, self.ids = names, ids

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> CodedTopics: ...

    def __getitem__(self, at: int | slice) -> str | CodedTopics:
        return CodedTopics(self.names, self.ids[at]) if isinstance(at, slice) else self.names[self.ids[at]]

    def where(self, kept: npt.NDArray[np.bool_]) -> CodedTopics:
        """Those that are to be kept."""
        return CodedTopics(self.names, self.ids[kept])

    def __iter__(self) -> Iterator[str]:
        return map(self.names.__getitem__, self.ids.tolist())


class JoinedPayloads(Sequence[bytes]):
    """Payloads one behind the other, and how long each is."""

    __slots__ = ("_ends", "data", "lengths")

    def __init__(self, data: bytes, lengths: I64) -> None:
        self.data, self.lengths = data, lengths
        self._ends: I64 | None = None

    @property
    def ends(self) -> I64:
        """Where each ends."""
        if self._ends is None:
            self._ends = np.cumsum(self.lengths)
        return self._ends

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> JoinedPayloads: ...

    def __getitem__(self, at: int | slice) -> bytes | JoinedPayloads:
        number = range(len(self.lengths))[at]
        ends = self.ends
        if isinstance(number, int):
            end = int(ends[number])
            return self.data[end - int(self.lengths[number]) : end]
        if number.step != 1:
            return joined([self[i] for i in number])
        if not number:
            return joined([])
        start = int(ends[number[0]]) - int(self.lengths[number[0]])
        return JoinedPayloads(self.data[start : int(ends[number[-1]])], self.lengths[at])

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for end in self.ends.tolist():
            yield self.data[start:end]
            start = end


def joined(payloads: Sequence[bytes]) -> JoinedPayloads:
    """Payloads as one piece."""
    if isinstance(payloads, JoinedPayloads):
        return payloads
    return JoinedPayloads(b"".join(payloads), np.fromiter(map(len, payloads), np.int64, len(payloads)))


@lean_kernel
def _tally(ids: I64, counts: I64, last: I64, distinct: I64) -> int:
    """Count messages by topic, note the last of each; the topics in order of their first, and how many these are."""
    n = 0
    for i in range(len(ids)):
        if not counts[ids[i]]:
            distinct[n] = ids[i]
            n += 1
        counts[ids[i]] += 1
        last[ids[i]] = i
    return n


class TopicTally:
    """How many messages of a slice are of each topic.

    Attributes
    ----------
    owners : a number for each topic, for who counts to keep.
    """

    def __init__(self) -> None:
        self.owners = np.zeros(64, np.int64)
        self._counts = np.zeros(64, np.int64)
        self._last = np.zeros(64, np.int64)

    def count(self, topics: CodedTopics) -> list[tuple[int, int, int]]:
        """For each topic, in the order of their first messages: its number, how many there are, the place of the last."""
        if len(topics.names) > len(self._counts):
            n = 2 * len(topics.names)
            self.owners, self._counts, self._last = (np.zeros(n, np.int64) for _ in range(3))
        distinct = np.empty(len(topics), np.int64)
        distinct = distinct[: _tally(topics.ids, self._counts, self._last, distinct)]
        found = zip(
            distinct.tolist(), self._counts[distinct].tolist(), self._last[distinct].tolist(), strict=True
        )
        self._counts[distinct] = 0
        return list(found)
