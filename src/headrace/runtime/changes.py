"""What differs between the plant that runs and a plant file: part by part, so that only that is touched.

An adapter is *changed* where anything differs that it is made of: its section, the profiles that its devices use,
the table of devices beside the plant file. That is its fingerprint; comments and the order of keys are no part of it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import xxhash

from headrace.core.config import AdapterSection, PlantConfig
from headrace.core.errors import ConfigError
from headrace.core.problems import dotted
from headrace.core.profile_tables import table_text
from headrace.core.profiles import included

LINES_MAX = 20
_LIVE = ("version", "adapters", "pipelines", "profiles")
"""Sections that may change while the plant runs; all others need a restart."""
_CELL = re.compile(r'[,;\t\r\n"]')


class Fate(StrEnum):
    """What happens to a part."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One part that differs: ``adapters.ovens``; `lines` say what, as ``interval: "1s" → "500ms"``."""

    part: str
    fate: Fate
    lines: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The part's own name: ``ovens``."""
        return self.part.partition(".")[2]


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs.

    Parameters
    ----------
    restart : keys that only a restart changes, with both values.
    """

    changes: tuple[Change, ...] = ()
    restart: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes or self.restart)

    def of(self, section: str) -> list[Change]:
        """Changes of one section: ``adapters``."""
        return [c for c in self.changes if c.part.startswith(f"{section}.")]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "changes": [
                {"part": c.part, "change": str(c.fate), "lines": list(c.lines)} for c in self.changes
            ],
            "needs_restart": list(self.restart),
        }


@dataclass(frozen=True)
class Fingerprints:
    """A configuration as it was when it was looked at: the files beside the plant file may change later.

    Parameters
    ----------
    by_adapter : hash of all that an adapter is made of. tables : texts of the tables beside the plant file (of
        devices, of tags), by the name written; without those that can't be read: whoever makes the adapter tells.
    """

    config: PlantConfig
    by_adapter: Mapping[str, str]
    tables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: PlantConfig, reads: bool = True) -> Fingerprints:
        """Look at a configuration; reads the tables that it does not hold itself, unless they are to be as not there."""
        tables: dict[str, str] = {}
        for name in dict.fromkeys(name for one in config.adapters.values() for name in one.table_names):
            if not reads and name not in config.tables:
                continue
            with contextlib.suppress(ConfigError):
                tables[name] = table_text(config, name)
        prints = {
            name: _hash(_ingredients(section, config, tables)) for name, section in config.adapters.items()
        }
        return cls(config, prints, tables)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that change with what a plant file, and the tables beside it, say."""
        dumped = self.config.model_dump(mode="json")
        for name in self.config.adapters:
            for key in ("devices", "tags"):
                table = dumped["adapters"][name][key]
                if isinstance(table, str):
                    dumped["adapters"][name][key] = _hash(self.tables.get(table, ""))
        return _hash(dumped)

    @property
    def frozen(self) -> PlantConfig:
        """The configuration with the texts of its tables: adapters made from it are those that were looked at."""
        return self.config.with_tables(self.tables)


def config_hash(config: PlantConfig) -> str:
    """The hash of a configuration as it is now."""
    return Fingerprints.of(config).hash


def _hash(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, default=str)
    return f"{xxhash.xxh3_64_intdigest(text.encode()):016x}"


def _ingredients(section: AdapterSection, config: PlantConfig, tables: Mapping[str, str]) -> dict[str, Any]:
    options = _options(section)
    table = tables.get(section.devices, "") if isinstance(section.devices, str) else None
    if table is not None:
        options["devices"] = table
    if section.tags is not None:
        options["tags"] = tables.get(section.tags, "")
    used = _profiles_used(section, config, table)
    return {"section": options, "profiles": {n: config.profiles[n].model_dump(mode="json") for n in used}}


def _options(section: AdapterSection) -> dict[str, Any]:
    """What an adapter is made of, what is made of its values, and where it runs where that is not the engine."""
    more: dict[str, Any] = {} if section.process == "engine" else {"process": section.process}
    if section.treatments:
        more["treatments"] = {
            pattern: one.model_dump(mode="json", by_alias=True, exclude_unset=True)
            for pattern, one in section.treatments.items()
        }
    return section.options | more


def _profiles_used(section: AdapterSection, config: PlantConfig, table: str | None) -> list[str]:
    """Profiles that an adapter may read by, with what they include.

    They are its own, its devices', and those that a cell of its table names.
    """
    named = {section.profile}
    if isinstance(section.devices, Mapping):
        named |= {d.get("profile") for d in section.devices.values() if isinstance(d, Mapping)}
    if table is not None:
        named |= {cell.strip() for cell in _CELL.split(table)}
    whole = {one for name in config.profiles if name in named for one in included(name, config.profiles)}
    return [name for name in config.profiles if name in whole]


# --- the difference --------------------------------------------------------------------------------


def difference(before: Fingerprints, after: Fingerprints) -> Difference:
    """What must change for `before` to become `after`."""
    old, new = before.config, after.config
    changes = _changes("adapters", _adapters(before), _adapters(after), before.by_adapter, after.by_adapter)
    changes += _changes("pipelines", _pipelines(old), _pipelines(new), _pipelines(old), _pipelines(new))
    changes += _profiles(old, new)
    fields = [name for name in type(new).model_fields if name not in _LIVE]
    restart = [
        line for name in fields for line in _lines(_section(old, name), _section(new, name), f"{name}.")
    ]
    return Difference(tuple(changes), tuple(restart))


def _changes(
    section: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    old_prints: Mapping[str, Any],
    new_prints: Mapping[str, Any],
) -> list[Change]:
    found = [Change(f"{section}.{name}", Fate.REMOVED) for name in old if name not in new]
    for name in new:
        if name not in old:
            found.append(Change(f"{section}.{name}", Fate.ADDED))
        elif old_prints[name] != new_prints[name]:
            lines = _shortened(_lines(old[name], new[name]))
            found.append(Change(f"{section}.{name}", Fate.CHANGED, lines))
    return found


def _adapters(prints: Fingerprints) -> dict[str, Any]:
    """Each adapter as people see it: its section, and the profiles it uses below ``profiles``."""
    config, out = prints.config, {}
    for name, section in config.adapters.items():
        table = prints.tables.get(section.devices, "") if isinstance(section.devices, str) else None
        options = _options(section)
        if table is not None:
            options["devices"] = _rows(table)
        if section.tags is not None:
            options["tags"] = _rows(prints.tables.get(section.tags, ""))
        used = _profiles_used(section, config, table)
        out[name] = {**options, "profiles": {n: config.written["profiles"][n] for n in used}}
    return out


def _rows(table: str) -> dict[str, str]:
    return dict.fromkeys((line for line in table.splitlines() if line.strip()), "")


def _pipelines(config: PlantConfig) -> dict[str, Any]:
    return {name: p.model_dump(mode="json") for name, p in config.pipelines.items()}


def _profiles(old: PlantConfig, new: PlantConfig) -> list[Change]:
    """Profiles that came or went; what changed in one is told with the adapters that use it."""
    gone = [Change(f"profiles.{n}", Fate.REMOVED) for n in old.profiles if n not in new.profiles]
    return gone + [Change(f"profiles.{n}", Fate.ADDED) for n in new.profiles if n not in old.profiles]


def _section(config: PlantConfig, name: str) -> Any:
    return config.model_dump(mode="json", include={name})[name]


def _lines(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Every key that differs, with both values."""
    before, after = _flat(old), _flat(new)
    lines = []
    for key in dict.fromkeys([*before, *after]):
        name = f"{prefix}{dotted(key)}"
        if key not in after:
            lines.append(f"{name}: {_shown(before[key])} removed")
        elif key not in before:
            lines.append(f"{name}: {_shown(after[key])} added")
        elif before[key] != after[key]:
            lines.append(f"{name}: {_shown(before[key])} → {_shown(after[key])}")
    return lines


def _flat(value: Any, at: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, Mapping) or not value:
        return {at: value}
    out: dict[tuple[str, ...], Any] = {}
    for key, one in value.items():
        out.update(_flat(one, (*at, str(key))))
    return out


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _shortened(lines: list[str]) -> tuple[str, ...]:
    more = len(lines) - LINES_MAX
    return tuple(lines if more <= 0 else [*lines[:LINES_MAX], f"and {more:,} more"])
