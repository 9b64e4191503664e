"""Topic rules: which messages are whose, from ``plant/{area}/{line}/{device}`` to the path of a device.

A topic rule has literal levels, ``{name}`` (one level, by name), ``+`` (one level) and at the end ``#`` (any
number of levels, by the name ``{rest}``). Where several rules match a topic the more specific wins, level by
level from the left: literal before one level before ``#``. Two rules that can't be told apart are an error.

Levels are parted by ``/``, or by what the protocol has instead (`TopicDialect`).

``$share/group/...`` subscribes as one of a group, of which each gets some of the messages; what comes has the topic behind it.
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
MESSAGE_KEY = "message_key"
_SHARE = "$share"


@dataclass(frozen=True, slots=True)
class TopicDialect:
    """What a protocol's topics look like.

    Parameters
    ----------
    separator : between levels. has_keys : whether messages have a key beside the topic, ``{message_key}`` in a path.
    """

    separator: str = "/"
    has_keys: bool = False


MQTT_TOPICS = TopicDialect()


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


def parse_topic(text: str, separator: str = "/") -> TopicPattern:
    """Read a topic rule's topic.

    Raises
    ------
    ConfigError : empty, a wildcard inside a level, a name twice, ``#`` before the end, or a group without a name or a topic.
    """
    group, levels = _group_of(text.split(separator), separator)
    one = f"[^{re.escape(separator)}]+"
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
            regexes.append(f"({one})" if named else one)
            names += [named[1]] if named else []
            rank.append(1)
        elif not text or re.search(r"[+#{}\x00]", level):
            raise ConfigError(f"topic {text!r}: {level!r} is not a literal level, {{name}}, + or a last #")
        else:
            filters.append(level)
            regexes.append(re.escape(level))
            rank.append(0)
    if len(set(names)) != len(names) or KEY in names or MESSAGE_KEY in names:
        raise ConfigError(
            f"topic {text!r}: a name is there twice, or it is {{{KEY}}}, which names values, or {{{MESSAGE_KEY}}}"
        )
    between = re.escape(separator)
    regex = between.join(regexes)
    if filters[-1] == "#":
        regex = f"{regex}(?:{between}(.*))?" if regexes else "(.*)"
    return TopicPattern(
        text, separator.join([*group, *filters]), re.compile(regex, re.DOTALL), tuple(names), tuple(rank)
    )


def _group_of(levels: list[str], separator: str) -> tuple[list[str], list[str]]:
    """The levels that name a group of subscribers, and those of topics."""
    if levels[0] != _SHARE or separator != MQTT_TOPICS.separator:
        return [], levels
    if len(levels) < 3 or not re.fullmatch(r"[^+#{}\x00]+", levels[1]):
        text = separator.join(levels)
        raise ConfigError(f"topic {text!r}: {_SHARE} is followed by the name of a group, and then by a topic")
    return levels[:2], levels[2:]


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
        """The group's path for a topic's names; places of other names stay."""
        return _PLACE.sub(lambda m: names.get(m[1], m[0]), self.group)

    def names(self, name: str) -> bool:
        """Whether the path has a place for `name`."""
        return name in _PLACE.findall(self.group)


def parse_template(text: str, names: tuple[str, ...], has_key: bool, is_open: bool = False) -> PathTemplate:
    """Read a rule's path.

    Parameters
    ----------
    is_open : whether the payload fills places of its own, so that any name may stand in the path.

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
    unknown = [name for name in _PLACE.findall(group) if name not in names and not is_open]
    if unknown or not group:
        known = ", ".join(f"{{{name}}}" for name in names) or "none"
        raise ConfigError(f"path {text!r} names {{{''.join(unknown[:1])}}}; the topic has {known}")
    return PathTemplate(group, ends)
