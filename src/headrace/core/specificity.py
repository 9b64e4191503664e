"""Which of several patterns counts for a path: the more specific one.

Level by level a pattern says a name, a part of one (``oven*``, ``{a,b}``), any (``*``), or nothing (``**``). The one with
more names is more specific; of equal ones that with more parts of names; then that with more levels; then that
without ``**``. Two patterns that are equal in all of this and match one path are a tie, which is an error: nobody
could say which one was meant.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache

ANY_LEVELS, ANY_LEVEL = "**", "*"
Rank = tuple[int, int, int, bool]


def specificity(pattern: str) -> Rank:
    """How specific a pattern is: the larger the more.

    Examples
    --------
    >>> specificity("leon/**/temperature") > specificity("**/temperature") > specificity("**/temp*")
    True
    """
    levels = pattern.strip("/").split("/")
    n_wild = sum(level in (ANY_LEVELS, ANY_LEVEL) for level in levels)
    n_names = sum("*" not in level and "{" not in level for level in levels)
    n_levels = sum(level != ANY_LEVELS for level in levels)
    return n_names, len(levels) - n_wild - n_names, n_levels, ANY_LEVELS not in levels


def can_both_match(one: str, other: str) -> bool:
    """Whether there is a path that both patterns match.

    Examples
    --------
    >>> can_both_match("*/line1/**", "leon/**/temperature"), can_both_match("a/*", "b/*")
    (True, False)
    """
    return any(
        _levels_meet(tuple(a.split("/")), tuple(b.split("/")))
        for a, b in itertools.product(_alternatives(one.strip("/")), _alternatives(other.strip("/")))
    )


def ties(patterns: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of patterns (places in the sequence) of which none counts more where both match."""
    for i, j in itertools.combinations(range(len(patterns)), 2):
        if specificity(patterns[i]) == specificity(patterns[j]) and can_both_match(patterns[i], patterns[j]):
            yield i, j


def _alternatives(pattern: str) -> list[str]:
    """The patterns without braces that a pattern stands for."""
    opened = pattern.rfind("{")
    if opened < 0:
        return [pattern]
    closed = pattern.index("}", opened)
    words = pattern[opened + 1 : closed].split(",")
    return [one for word in words for one in _alternatives(pattern[:opened] + word + pattern[closed + 1 :])]


def _levels_meet(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    @cache
    def meet(i: int, j: int) -> bool:
        if i < len(a) and a[i] == ANY_LEVELS:
            return meet(i + 1, j) or (j < len(b) and meet(i, j + 1))
        if j < len(b) and b[j] == ANY_LEVELS:
            return meet(i, j + 1) or (i < len(a) and meet(i + 1, j))
        if i == len(a) or j == len(b):
            return i == len(a) and j == len(b)
        return _names_meet(a[i], b[j]) and meet(i + 1, j + 1)

    return meet(0, 0)


def _names_meet(a: str, b: str) -> bool:
    """Whether a name fits both of two levels with ``*`` in them."""

    @cache
    def meet(i: int, j: int) -> bool:
        if i < len(a) and a[i] == ANY_LEVEL:
            return meet(i + 1, j) or (j < len(b) and meet(i, j + 1))
        if j < len(b) and b[j] == ANY_LEVEL:
            return meet(i, j + 1) or (i < len(a) and meet(i + 1, j))
        if i == len(a) or j == len(b):
            return i == len(a) and j == len(b)
        return a[i] == b[j] and meet(i + 1, j + 1)

    return meet(0, 0)
