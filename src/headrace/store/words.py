"""Texts and their codes: one table for what came with many dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Words:
    """A dictionary that grows: codes of other dictionaries become codes of this one.

    `sensors` is for who uses it in a query: the sensors whose values are such codes.

    Cost: a look-up for each word of a dictionary, and a gather for its codes.
    """

    def __init__(self) -> None:
        self.list: list[str] = []
        self.sensors: set[int] = set()
        self._code: dict[str, int] = {}
        self._all: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every word, by code."""
        if len(self._all) < len(self.list):
            self._all = tuple(self.list)
        return self._all

    def n_with(self, dictionary: Sequence[str]) -> int:
        """How many words there would be with those of `dictionary`."""
        return len(self.list) + len({w for w in dictionary if w not in self._code})

    def code(self, word: str) -> int:
        """The code of a word."""
        code = self._code.setdefault(word, len(self.list))
        if code == len(self.list):
            self.list.append(word)
        return code

    def translate(self, codes: Array, dictionary: Sequence[str]) -> npt.NDArray[np.int64]:
        """Codes of `dictionary`, any shape, as codes of this one; one that it does not have becomes ``#<code>``."""
        table = np.array([self.code(w) for w in dictionary], np.int64)
        flat = codes.reshape(-1)
        out = np.empty(len(flat), np.int64)
        known = flat < len(table)
        out[known] = table[flat[known].astype(np.int64)]
        for i in np.flatnonzero(~known).tolist():
            out[i] = self.code(f"#{int(flat[i])}")
        return out.reshape(codes.shape)
