"""Texts as codes: states and other words that come again and again, with the dictionary beside them."""

from __future__ import annotations

from collections.abc import Iterable

TEXT_MAX = 1_024
N_WORDS_MAX = 256


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

    @property
    def dictionary(self) -> tuple[str, ...]:
        """The texts by code."""
        return tuple(self._codes) or ("",)
