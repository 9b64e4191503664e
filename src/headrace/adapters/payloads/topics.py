"""Topic rules: which messages are whose, from ``plant/{area}/{line}/{device}`` to the path of a device.

A topic rule has literal levels, ``{name}`` (one level, by name), ``+`` (one level) and at the end ``#`` (any
number of levels, by the name ``{rest}``). Where several rules match a topic the more specific wins, level by
level from the left: literal before one level before ``#``. Two rules that can't be told apart are an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from headrace.core.errors import ConfigError

_NAME = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_PLACE = re.compile(r"\{([^{}]*)\}")
KEY = "key"
REST = "rest"


@dataclass(frozen=True, slots=True)
class TopicPattern:
    """One rule's topic.

    Parameters
    ----------
    text : as written; filter : what to subscribe to; names : of its levels.
    rank : order of specificity, less is more specific.
    """

    text: str
    filter: str
    regex: re.Pattern[str]
    names: tuple[str, ...]
    rank: tuple[int, ...]


def parse_topic(text: str) -> TopicPattern:
    """Read a topic rule's topic.

    Raises
    ------
    ConfigError : empty, a wildcard inside a level, a name twice, or ``#`` before the end.
    """
    levels = text.split("/")
    filters, regexes, names, rank = [], [], [], []
    for number, level in enumerate(levels):
        named = _NAME.fullmatch(level)
        if level == "#" and number == len(levels) - 1:
            filters.append("#")
            names.append(REST)
            rank.append(2)
            continue
        if named or level == "+":
            filters.append("+")
            regexes.append("([^/]+)" if named else "[^/]+")
            names += [named[1]] if named else []
            rank.append(1)
        elif not text or re.search(r"[+#{}\x00]", level):
            raise ConfigError(f"topic {text!r}: {level!r} is not a literal level, {{name}}, + or a last #")
        else:
            filters.append(level)
            regexes.append(re.escape(level))
            rank.append(0)
    if len(set(names)) != len(names) or KEY in names:
        raise ConfigError(f"topic {text!r}: a name is there twice, or it is {{{KEY}}}, which names values")
    regex = "/".join(regexes)
    if filters[-1] == "#":
        regex = f"{regex}(?:/(.*))?" if regexes else "(.*)"
    return TopicPattern(text, "/".join(filters), re.compile(regex, re.DOTALL), tuple(names), tuple(rank))


def in_order(patterns: Iterable[TopicPattern]) -> list[TopicPattern]:
    """The patterns, more specific ones first.

    Raises
    ------
    ConfigError : two are the same but for names.
    """
    by_filter: dict[str, TopicPattern] = {}
    for pattern in patterns:
        other = by_filter.setdefault(pattern.filter, pattern)
        if other is not pattern:
            raise ConfigError(f"topics {other.text!r} and {pattern.text!r} match the same; keep one")
    return sorted(by_filter.values(), key=lambda p: (p.rank, p.text))


def match_topic(pattern: TopicPattern, topic: str) -> dict[str, str] | None:
    """The named levels of `topic`; None where the pattern does not match."""
    match = pattern.regex.fullmatch(topic)
    return None if match is None else dict(zip(pattern.names, (g or "" for g in match.groups()), strict=True))


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A path with ``{name}`` in place of levels or parts of them.

    Parameters
    ----------
    group : the template of the group's path; has_key : whether a last level ``{key}`` was cut off.
    """

    group: str
    has_key: bool

    def fill(self, names: dict[str, str]) -> str:
        """The group's path for a topic's names."""
        return _PLACE.sub(lambda m: names[m[1]], self.group)


def parse_template(text: str, names: tuple[str, ...], has_key: bool) -> PathTemplate:
    """Read a rule's path.

    Raises
    ------
    ConfigError : a name that the topic doesn't have, or ``{key}`` missing, not alone in the last level, or there
        though the payload has no keys.
    """
    head, _, last = text.rpartition("/")
    ends = last == f"{{{KEY}}}" and bool(head)
    if ends != has_key:
        need = (
            f"must end in a level {{{KEY}}}, the name of each value"
            if has_key
            else f"has no {{{KEY}}}: one value"
        )
        raise ConfigError(f"path {text!r} {need}")
    group = head if ends else text
    unknown = [name for name in _PLACE.findall(group) if name not in names]
    if unknown or not group:
        known = ", ".join(f"{{{name}}}" for name in names) or "none"
        raise ConfigError(f"path {text!r} names {{{''.join(unknown[:1])}}}; the topic has {known}")
    return PathTemplate(group, ends)
