"""Which files are whose: ``{line}/{device}_*.csv``, and what their names say of the path.

``*`` is any part of a name, ``**`` as a level of its own any number of folders, ``{name}`` one or more characters of
a name but ``/``, the fewest that will do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace.adapters.files.config import FileFormat, FileRule
from headrace.adapters.payloads.line_rules import LinePaths, compile_paths
from headrace.adapters.payloads.topics import KEY
from headrace.core.errors import ConfigError

DEPTH_MAX = 32
COMPRESSED = ".gz"
_PART = re.compile(r"\{([^{}]*)\}|(\*+)|([^{}*]+)|(.)", re.DOTALL)
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_ENDINGS: dict[str, FileFormat] = {
    "csv": "csv", "tsv": "csv", "txt": "csv", "json": "json", "jsonl": "json", "ndjson": "json",
    "lp": "lines", "line": "lines", "influx": "lines", "parquet": "parquet",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FilePattern:
    """One rule's files.

    Parameters
    ----------
    text : as written; names : of its parts; depth : how many folders deep it reaches.
    """

    text: str
    regex: re.Pattern[str]
    names: tuple[str, ...]
    depth: int

    def match(self, file: str) -> dict[str, str] | None:
        """What the named parts are; None where `file`, a path in the folder, is none of it."""
        found = self.regex.fullmatch(file)
        return None if found is None else found.groupdict()


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule and its pattern; `paths` of each format it may be read in."""

    pattern: FilePattern
    rule: FileRule
    paths: LinePaths
    series: LinePaths


def parse_file_pattern(text: str) -> FilePattern:
    """Read a pattern.

    Raises
    ------
    ConfigError : empty, not below the folder, a name twice, or braces that are none of a name.
    """
    levels = text.split("/")
    if "" in levels or ".." in levels or "." in levels:
        raise ConfigError(
            f"{text!r} is no pattern of files in the folder; write one as in '{{device}}/*.csv'"
        )
    names: list[str] = []
    regex = ""
    for number, level in enumerate(levels):
        is_last = number == len(levels) - 1
        if level == "**" and not is_last:
            regex += "(?:[^/]+/)*"
            continue
        regex += _level_regex(level, text, names) + ("" if is_last else "/")
    if len(set(names)) != len(names):
        raise ConfigError(f"{text!r} has a name twice; name each once")
    depth = DEPTH_MAX if "**" in levels else len(levels)
    return FilePattern(text, re.compile(regex, re.DOTALL), tuple(names), depth)


def _level_regex(level: str, text: str, names: list[str]) -> str:
    out = ""
    for name, stars, literal, odd in _PART.findall(level):
        if (
            odd
            or (not name and not stars and not literal)
            or (name and not _NAME.fullmatch(name))
            or name == KEY
        ):
            raise ConfigError(
                f"{text!r}: {level!r} has braces that are none of a name (small letters, digits and '_', not {{{KEY}}})"
            )
        if name:
            names.append(name)
            out += f"(?P<{name}>[^/]+?)"
        else:
            out += "[^/]*" if stars else re.escape(literal)
    return out


def compile_file_rule(text: str, rule: FileRule, levels: tuple[str, ...]) -> CompiledRule:
    """A rule with its pattern and path.

    Raises
    ------
    ConfigError : one of both can't be.
    """
    pattern = parse_file_pattern(text)
    none = LinePaths(None, None)
    likely = rule.format if rule.format != "auto" else format_of(text, rule)
    is_series = likely == "lines"
    paths = none if is_series else compile_paths(rule, pattern.names, levels, False)
    series = compile_paths(rule, (), levels, True) if is_series else none
    return CompiledRule(pattern, rule, paths, series)


def format_of(file: str, rule: FileRule) -> FileFormat | None:
    """How a file is written; None where neither rule nor name says it: ``a.csv``, ``a.csv.1``, ``a.csv-20261123.gz``."""
    if rule.format != "auto":
        return rule.format
    endings = (part.partition("-")[0].lower() for part in reversed(file.rpartition("/")[2].split(".")[1:]))
    return next((_ENDINGS[ending] for ending in endings if ending in _ENDINGS), None)
