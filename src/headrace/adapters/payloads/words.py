"""Texts as codes: states and other words that come again and again, with the dictionary beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

TEXT_MAX = 1_024
N_WORDS_MAX = 256
LENGTH_BITS = 16
"""Of a text that a scanner has found: where it lies in its message is ``start << LENGTH_BITS | length``."""


def is_word(text: str) -> bool:
    """Whether a text may be a value: of bounded length and without a NUL."""
    return len(text) <= TEXT_MAX and "\x00" not in text


class WordTable:
    """Codes of texts; they stay the same until more than 256 texts are known."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def learn(self, texts: Iterable[str]) -> None:
        """Give every text a code."""
        words = dict.fromkeys(text for text in texts if is_word(text))
        new = [text for text in words if text not in self._codes]
        if len(self._codes) + len(new) > N_WORDS_MAX:
            self._codes, new = {}, list(words)
        for text in new:
            self._codes[text] = len(self._codes)

    def codes(self, texts: Iterable[str]) -> list[int]:
        """The code of each text; 0 for what is no word."""
        return [self._codes.get(text, 0) for text in texts]

    def coded(
        self, found: npt.NDArray[np.int64], body: bytes, others: Sequence[str] = ()
    ) -> npt.NDArray[np.int64]:
        """Codes of texts that a scanner has found in a body; negative ones are those of `others`, the first is -1."""
        texts = []
        for place in found.ravel().tolist():
            start, length = place >> LENGTH_BITS, place & ((1 << LENGTH_BITS) - 1)
            texts.append(others[-place - 1] if place < 0 else body[start : start + length].decode())
        self.learn(texts)
        return np.array(self.codes(texts), np.int64).reshape(found.shape)

    @property
    def dictionary(self) -> tuple[str, ...]:
        """The texts by code."""
        return tuple(self._codes) or ("",)
