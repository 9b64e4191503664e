"""Paths, patterns, durations: the small languages that users write.

A **path** names a sensor by all its levels: ``leon/paint/line1/oven1/temperature``. A **pattern** matches
whole paths: ``*`` one level, ``**`` any number of levels, ``{a,b}`` either. A **duration** carries a unit:
``250ms``, ``1h``, ``7d``.
"""

from __future__ import annotations

import re

from headrace.core.clock import NS
from headrace.core.errors import ConfigError

MAX_PATH_BYTES = 1_024
MAX_WILDCARDS = 24
_BAD = re.compile(r"[\x00-\x1f\ud800-\udfff*{},#+]|^/|/\Z|//")
_STARS = re.compile(r"\*+")
_BAD_BYTES = bytes(b for b in range(32) if b != ord("\n")) + b"*{},#+"
_UNITS_NS = {
    "ns": 1, "us": 1_000, "ms": 1_000_000, "s": NS, "m": 60 * NS, "h": 3_600 * NS,
    "d": 86_400 * NS, "w": 7 * 86_400 * NS, "y": 365 * 86_400 * NS,
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([kMGT])(i?))?B\s*")
MAX_DURATION_NS = 200 * _UNITS_NS["y"]
MAX_SIZE_BYTES = 10**18
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def check_path(path: str) -> str:
    """Return `path` where it may name a group or sensor.

    Raises
    ------
    ConfigError : empty levels, control characters, pattern characters, or too long.
    """
    if not path or _BAD.search(path) or len(path.encode(errors="ignore")) > MAX_PATH_BYTES:
        raise ConfigError(
            f"{path[:80]!r} can't name a sensor: a path has levels parted by single '/', at most "
            f"{MAX_PATH_BYTES:,} bytes, and none of * {{ }} , # +"
        )
    return path


def check_paths(texts: list[bytes]) -> None:
    """The same of many paths in UTF-8, which cost a few ns each.

    Raises
    ------
    ConfigError : as `check_path`, of the first that can't be one.
    """
    joined = b"\n".join(texts)
    is_bad = (
        len(joined.translate(None, _BAD_BYTES)) < len(joined)
        or joined.count(b"\n") != len(texts) - 1
        or any(joined.find(pair) >= 0 for pair in (b"//", b"/\n", b"\n/", b"\n\n"))
        or joined[:1] in (b"/", b"\n", b"")
        or joined[-1:] in (b"/", b"\n")
        or max(map(len, texts)) > MAX_PATH_BYTES
    )
    if is_bad:
        any(not check_path(text.decode()) for text in texts)  # raises, and says which


def parent(path: str) -> str:
    """All levels but the last; empty for a path of one level."""
    return path.rpartition("/")[0]


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """Compile a pattern; use `fullmatch`.

    Raises
    ------
    ConfigError : empty pattern or braces that don't close.
    """
    levels = [_STARS.sub("*", level) if level != "**" else level for level in pattern.strip("/").split("/")]
    if levels == [""]:
        raise ConfigError("an empty pattern matches nothing; '**' matches every path")
    levels = [level for i, level in enumerate(levels) if i == 0 or (level, levels[i - 1]) != ("**", "**")]
    # What a pattern costs grows with the number of ways in which its wildcards can share a path.
    if sum(level.count("*") + level.count("{") for level in levels) > MAX_WILDCARDS:
        raise ConfigError(f"a pattern has at most {MAX_WILDCARDS} wildcards: *, ** and {{a,b}}")
    out = ""
    for i, level in enumerate(levels):
        last = i == len(levels) - 1
        if level == "**":
            out += "(?:[^/]+(?:/[^/]+)*)?" if last else "(?:[^/]+/)*"
        else:
            out += _level_regex(level, pattern) + ("" if last else "/")
    # "a/**" also matches "a" itself, as MQTT's "a/#" does.
    if len(levels) > 1 and levels[-1] == "**" and levels[-2] != "**":
        out = out[: -len("/(?:[^/]+(?:/[^/]+)*)?")] + "(?:/[^/]+)*"
    return re.compile(out)


def _level_regex(level: str, pattern: str) -> str:
    out, depth = "", 0
    for char in level:
        if char == "{":
            out, depth = out + "(?:", depth + 1
        elif char == "}" and depth:
            out, depth = out + ")", depth - 1
        elif char == "," and depth:
            out += "|"
        elif char == "*":
            out += "[^/]*"
        else:
            out += re.escape(char)
    if depth or "}" in level.replace("}", "", level.count("{")):
        raise ConfigError(f"braces do not match in pattern {pattern!r}")
    return out


def parse_duration_ns(text: str) -> int:
    """Nanoseconds of a duration such as ``250ms``, ``1.5h``, ``7d`` or ``1m30s``.

    Raises
    ------
    ConfigError : no unit, an unknown one, or no number.
    """
    total, at = 0.0, 0
    while at < len(text):
        match = _DURATION.match(text, at)
        if match is None or match[2] not in _UNITS_NS:
            break
        total += float(match[1]) * _UNITS_NS[match[2]]
        at = match.end()
    if at < len(text) or not text:
        raise ConfigError(f"{text!r} is not a duration; write a number and a unit: 250ms, 5s, 1m, 2h, 7d, 1y")
    if total > MAX_DURATION_NS:
        raise ConfigError(f"{text!r} is longer than the longest duration, 200y")
    return round(total)


def parse_size_bytes(text: str) -> int:
    """Bytes of a size such as ``64MB`` (decimal) or ``8GiB`` (binary).

    Raises
    ------
    ConfigError : no unit, an unknown one, or no number.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is not a size; write a number and a unit: 512kB, 64MB, 8GB, 8GiB")
    base = 1024 if match[3] else 1000
    factor: int = base ** " kMGT".index(match[2] or " ")
    size_bytes = float(match[1]) * factor
    if size_bytes > MAX_SIZE_BYTES:
        raise ConfigError(f"{text[:40]!r} is more than the largest size, 1000000TB")
    return round(size_bytes)


def format_duration(duration_ns: int) -> str:
    """The shortest text of a duration that `parse_duration_ns` reads back: ``90 s`` → ``90s``, ``60 s`` → ``1m``."""
    for unit in ("y", "w", "d", "h", "m", "s", "ms", "us"):
        if duration_ns % _UNITS_NS[unit] == 0 and duration_ns:
            return f"{duration_ns // _UNITS_NS[unit]}{unit}"
    return f"{duration_ns}ns"
