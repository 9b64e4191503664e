"""Columns that grow at the end: numbers, and texts as one run of UTF-8 bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt


class Growing:
    """An array that grows at the end in amortised constant time; `view` is what is filled."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._data = np.zeros(64, dtype)
        self.n = 0

    @property
    def view(self) -> npt.NDArray[Any]:
        """The filled part."""
        return self._data[: self.n]

    def extend(self, values: npt.ArrayLike, count: int) -> None:
        """Append `count` values (or one value `count` times)."""
        if self.n + count > len(self._data):
            grown = np.zeros(max(3 * len(self._data) // 2, self.n + count), self._data.dtype)
            grown[: self.n] = self.view
            self._data = grown
        self._data[self.n : self.n + count] = values
        self.n += count


class PackedTexts(Sequence[str]):
    """Many texts in half the memory of a list of `str`: their UTF-8 bytes one behind the other.

    One thread extends it; others may read what they know to be there. An item is made when it is asked for.
    """

    def __init__(self) -> None:
        self._bytes = Growing(np.uint8)
        self._ends = Growing(np.int64)
        self._ends.extend(0, 1)

    def __len__(self) -> int:
        return self._ends.n - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.bytes_of(i).decode() for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        return self.bytes_of(place).decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def bytes_of(self, index: int) -> bytes:
        """One text as UTF-8."""
        first, last = self._ends.view[index], self._ends.view[index + 1]
        return self._bytes.view[first:last].tobytes()

    def extend(self, texts: list[bytes]) -> None:
        """Append texts, given as UTF-8."""
        data = b"".join(texts)
        sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        before = self._bytes.n
        self._bytes.extend(np.frombuffer(data, np.uint8), len(data))
        self._ends.extend(before + np.cumsum(sizes), len(texts))

    def has_at(self, first: int, texts: list[bytes]) -> bool:
        """Whether `texts` are the ones from `first` on."""
        ends = self._ends.view[first : first + len(texts) + 1]
        sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        if len(ends) <= len(texts) or not np.array_equal(np.diff(ends), sizes):
            return False
        return self._bytes.view[ends[0] : ends[-1]].tobytes() == b"".join(texts)

    def buffers(self, n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Of the first `n` texts: where each starts (one more at the end), and the bytes; Arrow's large strings."""
        starts = self._ends.view[: n + 1]
        return starts, self._bytes.view[: int(starts[-1])]


class PartNames(Sequence[str]):
    """The part of each slot: few different names, so a small number each."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._number = Growing(np.int32)

    def __len__(self) -> int:
        return self._number.n

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.names[n] for n in self._number.view[index].tolist()]
        return self.names[int(self._number.view[index])]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def number(self) -> npt.NDArray[np.int32]:
        """Index in `names` of each slot."""
        return self._number.view

    def number_of(self, name: str) -> int:
        """The number of a name; -1 where there is none."""
        return self._numbers.get(name, -1)

    def extend(self, names: list[str]) -> None:
        """Append the parts of new slots."""
        for name in dict.fromkeys(names):
            if name not in self._numbers:
                self.names.append(name)
                self._numbers[name] = len(self.names) - 1
        numbers = np.fromiter(map(self._numbers.__getitem__, names), np.int32, len(names))
        self._number.extend(numbers, len(numbers))
