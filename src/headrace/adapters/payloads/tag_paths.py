"""Measurement and tags → the path of a device: ``{site}/{line}/{host}/{measurement}/{field}``.

Each ``{name}`` is the value of that tag, ``{measurement}`` the line's measurement; the last level is ``{field}``. A tag
that the line does not have has its default, else ``unknown``. Tags that the path does not name are added to the last
level before ``{field}``, as ``cpu;cpu=cpu0``, so that two series never become one sensor. What a path can't hold is
written as in URLs: ``/`` is ``%2F``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.core.errors import ConfigError
from headrace.core.paths import check_path

MEASUREMENT, FIELD, UNKNOWN = "measurement", "field", "unknown"
_PLACE = re.compile(r"\{([^{}]+)\}")
_UNFIT = re.compile(r"[%/*{},#+;=\x00-\x1f\x7f]")


def level(text: str) -> str:
    """A text as a level of a path, or as a part of one; different texts stay different."""
    return _UNFIT.sub(lambda match: f"%{ord(match[0]):02X}", text)


@dataclass(frozen=True)
class TagPath:
    """A compiled template of the paths of devices.

    Parameters
    ----------
    group : the template without its last level; defaults : of tags; keeps_others : whether tags that it does not
        name are added.
    """

    group: str
    defaults: Mapping[str, str] = field(default_factory=dict)
    keeps_others: bool = True

    def path(self, measurement: str, tags: Mapping[str, str]) -> str:
        """The path of the device that sends this measurement with these tags."""
        named = set()

        def fill(match: re.Match[str]) -> str:
            name = match[1]
            named.add(name)
            if name == MEASUREMENT:
                return level(measurement)
            return level(tags.get(name) or self.defaults.get(name, UNKNOWN))

        path = _PLACE.sub(fill, self.group)
        if self.keeps_others:
            path += "".join(
                f";{level(name)}={level(tags[name])}" for name in sorted(tags) if name not in named
            )
        return path


def default_template(levels: tuple[str, ...]) -> str:
    """The path for a plant whose paths have these levels: the first ones as tags, then host, measurement, field."""
    return "/".join(f"{{{name}}}" for name in (*levels[:-3], "host", MEASUREMENT, FIELD))


def compile_tag_path(
    template: str,
    levels: tuple[str, ...],
    defaults: Mapping[str, str],
    keeps_others: bool,
    is_field_enough: bool = False,
) -> TagPath:
    """Read a template.

    Parameters
    ----------
    levels : names of a path's levels (empty: any number). is_field_enough : whether {field} tells measurements apart.

    Raises
    ------
    ConfigError : it does not end in a level {field}, names no measurement though series shall stay apart, has other
        levels than the plant, or can't be a path.
    """
    group, _, last = template.rpartition("/")
    if last != f"{{{FIELD}}}" or not group or f"{{{FIELD}}}" in group:
        raise ConfigError(f"path {template!r} must end in a level {{{FIELD}}}, the name of each value")
    if keeps_others and not is_field_enough and f"{{{MEASUREMENT}}}" not in group:
        raise ConfigError(
            f"path {template!r} does not say where {{{MEASUREMENT}}} goes, so that two measurements of a device could "
            f'be one sensor; name it, or write other_tags = "drop"'
        )
    n_levels = template.count("/") + 1
    if levels and n_levels != len(levels):
        raise ConfigError(
            f"path {template!r} has {n_levels} levels, expected {len(levels)}: {'/'.join(levels)}"
        )
    check_path(_PLACE.sub("x", group))
    return TagPath(group, defaults, keeps_others)
