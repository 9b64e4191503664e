"""Ids of a group, node and device and the name of a metric → the path of a sensor.

``{group}/{node}/{device}/{metric}``; parts of ids can be named by patterns, as ``{site}:{area}`` of a group
``leon:paint``, and the parts of a metric's name before its last ``/`` are ``{folder1}``, ``{folder2}``, ... Parts that
the path does not name are joined. What a path can't hold is written as in URLs: ``#`` is ``%23``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.adapters.payloads.base import PayloadError
from headrace.core.errors import ConfigError
from headrace.core.events import RejectCode
from headrace.core.paths import check_path
from headrace.core.registry import nearest

METRIC = "metric"
DEFAULT = "{group}/{node}/{device}/{metric}"
DEFAULT_LEVELS = 4
IDS = ("group", "node", "device")
_PLACE = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_FOLDER = re.compile(r"folder([1-9])")
_UNFIT = re.compile(r"%(?=[0-9A-Fa-f]{2})|[/*{},#+\x00-\x1f]")


def level(text: str) -> str:
    """A text as a level of a path, or as a part of one; different texts stay different."""
    return _UNFIT.sub(lambda match: f"%{ord(match[0]):02X}", text)


@dataclass(frozen=True)
class MetricNaming:
    """Where metrics go.

    Parameters
    ----------
    group : the template without its last level. patterns : of ids, by their names.
    n_folders : parts of a metric's name that the template names. joiner : between the others.
    """

    group: str
    patterns: Mapping[str, re.Pattern[str]]
    n_folders: int
    joiner: str

    def names(self, ids: Mapping[str, str]) -> dict[str, str]:
        """What the template can name of a device.

        Raises
        ------
        PayloadError : bad-path; an id is not as its pattern says.
        """
        names = {name: level(text) for name, text in ids.items()}
        for name, pattern in self.patterns.items():
            match = pattern.fullmatch(ids[name])
            if match is None:
                detail = f"{name} {ids[name]!r:.60} is not as ids.{name} says"
                raise PayloadError(RejectCode.BAD_PATH, detail)
            names |= {key: level(text) for key, text in match.groupdict().items()}
        return names

    def place(self, names: Mapping[str, str], metric: str) -> tuple[str, str]:
        """Path of the group and name of the column of a metric, for what `names` gave.

        Raises
        ------
        PayloadError : bad-path; the name has too few parts, or an empty one.
        """
        parts = [level(part) for part in metric.split("/")]
        if "" in parts or len(parts) <= self.n_folders:
            at_least = (
                "" if len(parts) > self.n_folders else f", expected {self.n_folders + 1} parts at least"
            )
            detail = f"metric {metric!r:.60} can't name a sensor: a part between its '/' is empty or missing{at_least}"
            raise PayloadError(RejectCode.BAD_PATH, detail)
        folders = {f"folder{i + 1}": parts[i] for i in range(self.n_folders)}
        path = _PLACE.sub(lambda match: folders.get(match[1]) or names[match[1]], self.group)
        return path, self.joiner.join(parts[self.n_folders :])


def own_path(naming: MetricNaming, node_device: str, address: str) -> str:
    """The path that is given to a metric at ``group/node[/device]#metric``.

    Parameters
    ----------
    node_device : stands for the device of a node's own metrics.

    Raises
    ------
    ConfigError : it is no such address, or its metric can't be named.
    """
    names, mark, metric = address.partition("#")
    ids = names.split("/")
    if not mark or not metric or len(ids) not in (2, 3) or not all(ids):
        raise ConfigError(f"{address!r} is no metric; write group/node/device#metric, or group/node#metric")
    by_name = {"group": ids[0], "node": ids[1], "device": ids[2] if len(ids) == 3 else node_device}
    try:
        return "/".join(naming.place(naming.names(by_name), metric))
    except PayloadError as e:
        raise ConfigError(e.detail) from e


def compile_naming(
    path: str | None, ids: Mapping[str, str], joiner: str | None, levels: tuple[str, ...], where: str
) -> MetricNaming:
    """Read the template and the patterns of ids; `levels` are the names of a path's levels (empty: any number).

    Raises
    ------
    ConfigError : the template has other levels than the plant, names what is not there, or can't be a path.
    """
    try:
        patterns = {name: _pattern(name, text) for name, text in ids.items()}
    except ConfigError as e:
        raise ConfigError(e.message, f"{where}.ids") from e
    if path is None and levels and len(levels) != DEFAULT_LEVELS:
        raise ConfigError(
            f"the plant's paths have {len(levels)} levels, {'/'.join(levels)}; say where they come from, for example "
            f'path = "{_example(levels)}"',
            f"{where}.path",
        )
    try:
        return _compile(path or DEFAULT, patterns, joiner, levels)
    except ConfigError as e:
        raise ConfigError(e.message, f"{where}.path") from e


def _compile(
    path: str, patterns: Mapping[str, re.Pattern[str]], joiner: str | None, levels: tuple[str, ...]
) -> MetricNaming:
    group, _, last = path.rpartition("/")
    if last != f"{{{METRIC}}}" or not group or last in group:
        raise ConfigError(f"path {path!r} must end in a level {{{METRIC}}}, the name of each value")
    n_levels = path.count("/") + 1
    if levels and n_levels != len(levels):
        raise ConfigError(f"path {path!r} has {n_levels} levels, expected {len(levels)}: {'/'.join(levels)}")
    if levels and joiner == "/":
        raise ConfigError(
            "joiner = '/' gives metrics more levels than the plant has; choose another, or none"
        )
    known = [*IDS, *(name for pattern in patterns.values() for name in pattern.groupindex)]
    n_folders = 0
    for name in _PLACE.findall(group):
        folder = _FOLDER.fullmatch(name)
        if folder is not None:
            n_folders = max(n_folders, int(folder[1]))
        elif name not in known:
            said = ", ".join(f"{{{one}}}" for one in (*known, "folder1", METRIC))
            raise ConfigError(f"path {path!r} names {{{name}}}; there are {said}")
    check_path(_PLACE.sub("x", group))
    return MetricNaming(group, patterns, n_folders, joiner or ("." if levels else "/"))


def _pattern(name: str, text: str) -> re.Pattern[str]:
    """``{site}:{area}`` as a regular expression; each part is as short as it can be."""
    if name not in IDS:
        raise ConfigError(f"there is no id {name!r}{nearest(name, list(IDS))}; ids are {', '.join(IDS)}")
    names = _PLACE.findall(text)
    are_good = all(_NAME.fullmatch(one) and one not in (*IDS, METRIC) for one in names)
    if not names or not are_good or len(set(names)) != len(names) or "}{" in text:
        raise ConfigError(f'{name} = "{text}" names no parts of an id; write them as {{site}}:{{area}}')
    out, at = "", 0
    for match in _PLACE.finditer(text):
        out += re.escape(text[at : match.start()]) + f"(?P<{match[1]}>.+?)"
        at = match.end()
    return re.compile(out + re.escape(text[at:]), re.DOTALL)


def _example(levels: tuple[str, ...]) -> str:
    names = ["{group}", "{node}", "{device}", "{metric}"]
    if len(levels) < len(names):
        return "/".join(names[len(names) - len(levels) :])
    return "/".join([*levels[: len(levels) - len(names)], *names])
