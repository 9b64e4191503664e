"""What a tag table changes in a plant: from rows to the tables beside the plant file, and to files on disk.

The plant file itself is never rewritten. Its adapters name their tables (``devices = "ovens.csv"``, ``tags =
"ovens-tags.csv"``); those are what a tag table becomes. Nothing here talks to a device or touches what runs: that is
for `headrace.runtime.reconfigure`, or, without an engine, for `headrace.runtime.offline_tags`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from headrace.adapters.abilities import Addresses, TagAddress
from headrace.adapters.registry import ADAPTERS
from headrace.core.config import PlantConfig
from headrace.core.errors import ConfigError, HeadraceError
from headrace.core.problems import InvalidConfig, Problem
from headrace.core.profile_tables import table_text
from headrace.core.profiles import bound_address
from headrace.core.registry import nearest
from headrace.ingest.tag_changes import TagDifference
from headrace.ingest.tag_checks import FIRST_LINE, ReadAddress, TagChecks
from headrace.ingest.tag_rows import TagRow
from headrace.ingest.tag_sets import (
    Devices,
    devices_of,
    devices_of_rows,
    joined,
    rows_of_devices,
    tables_of,
)
from headrace.runtime.catalogue import schemes
from headrace.runtime.changes import Fingerprints

PROBLEMS_SHOWN = 20
Merge = Callable[[Sequence[str]], PlantConfig]


@dataclass(frozen=True)
class TagWish:
    """What somebody wants of a plant's tags.

    Parameters
    ----------
    rows : the table. adapter : of rows that name none. is_whole : devices that the table does not name go.
    """

    rows: Sequence[TagRow]
    adapter: str = ""
    is_whole: bool = False


@dataclass(frozen=True)
class TagPlan:
    """What is to be done for it.

    Parameters
    ----------
    config : with the new tables. tables : texts to write, by the names that the plant file gives them.
    present : what they say now. differences : by adapter.
    """

    config: PlantConfig
    tables: Mapping[str, str]
    present: Mapping[str, str]
    differences: Mapping[str, TagDifference]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "tables": list(self.tables),
            "tags": {adapter: found.to_dict() for adapter, found in self.differences.items()},
        }


# --- addresses ---------------------------------------------------------------------------------------


def address_reader(config: PlantConfig | None, default: str = "") -> ReadAddress:
    """What understands the addresses of rows: by the protocol of their adapter, else by that of their url.

    Parameters
    ----------
    default : adapter of rows that name none.
    """
    sections = {} if config is None else config.adapters
    protocols = {scheme: one.protocol for scheme, one in schemes().items()}
    known: dict[tuple[Any, ...], TagAddress | ConfigError | None] = {}

    def read(row: TagRow) -> TagAddress | None:
        name = row.adapter or default
        section = sections.get(name)
        protocol = protocols.get(_scheme(row.url), "") if section is None else section.protocol
        more = tuple(sorted(row.more.items())) if "{" in row.address else ()
        key = (name if section is not None else protocol, row.address, row.dtype, more)
        if key not in known:
            options = {} if section is None else section.options
            try:
                known[key] = _understood(protocol, row, options)
            except ConfigError as e:
                known[key] = e
        found = known[key]
        if isinstance(found, ConfigError):
            raise found
        return found

    return read


def _typed_alike(template: str, bound: str, text: str) -> str:
    """A template with the type that was written into it once it was bound."""
    head, mark, rest = template.partition(";")
    n_head, n_rest = len(bound.partition(";")[0]), len(bound.partition(";")[2]) + len(mark)
    return head + text[n_head : len(text) - n_rest] + mark + rest


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""


def _understood(protocol: str, row: TagRow, options: Mapping[str, Any]) -> TagAddress | None:
    if protocol not in ADAPTERS:
        return None
    try:
        kind: Any = ADAPTERS.load(protocol)
    except ConfigError:
        raise
    except HeadraceError:  # its library is not installed: then nobody knows here
        return None
    if not issubclass(kind, Addresses):
        return None
    try:
        read: TagAddress = kind.tag_address(row.address, row.dtype, options)
        return read
    except ConfigError:
        if "{" not in row.address:
            raise
    try:
        bound = bound_address(row.address, row.more)
    except ConfigError:
        return None  # the profile may give what the device does not: told when the plant is made
    found: TagAddress = kind.tag_address(bound, row.dtype, options)
    return replace(found, text=_typed_alike(row.address, bound, found.text))


# --- planning ----------------------------------------------------------------------------------------


def plan_tags(file: PlantConfig, wish: TagWish, running: Fingerprints | None, merge: Merge) -> TagPlan:
    """What `wish` makes of a plant.

    Parameters
    ----------
    file : the plant file as it is now: it says where the tables are. running : what runs; None where nothing does.
    merge : the configuration that is to run, with these adapters as the file has them.

    Raises
    ------
    InvalidConfig : rows that can't be taken. ConfigError : an adapter that is not there, or takes no table.
    """
    by_adapter = _by_adapter(file, wish)
    base = merge(list(by_adapter))
    reader = address_reader(base)
    present: dict[str, str] = {}
    tables: dict[str, str] = {}
    differences = {}
    for name, rows in by_adapter.items():
        present |= _present(base, name, running)
        base = base.with_tables(present)
        before = _before(base, name, running)
        has_urls = not base.adapters[name].has_signal_table
        after = joined(before, devices_of_rows(rows, base.plant.levels, before, has_urls), wish.is_whole)
        found = differences[name] = TagDifference.between(before, after)
        _check_types(name, found, reader)
        if found:
            tables |= tables_of(base, name, after)
            base = base.with_tables(tables)
    changed = {name: text for name, text in tables.items() if text != present.get(name)}
    return TagPlan(base, changed, present, differences)


def _by_adapter(file: PlantConfig, wish: TagWish) -> dict[str, list[TagRow]]:
    """Checked rows by adapter."""
    default = wish.adapter or _only_adapter(file)
    rows = [
        row if row.adapter and not row.problem else replace(row, problem="", adapter=row.adapter or default)
        for row in wish.rows
    ]
    if not rows:
        raise ConfigError("the table has no rows")
    for name in dict.fromkeys(row.adapter for row in rows):
        _check_takes_tables(file, name)
    rows = TagChecks(file.plant.levels, address_reader(file)).check(rows)
    bad = [Problem(f"line {n}", row.problem) for n, row in enumerate(rows, FIRST_LINE) if row.problem]
    bad += [
        Problem(f"line {n}", "has no address") for n, row in enumerate(rows, FIRST_LINE) if not row.address
    ]
    if bad:
        more = [Problem("", f"and {len(bad) - PROBLEMS_SHOWN:,} more")] if len(bad) > PROBLEMS_SHOWN else []
        raise InvalidConfig([*bad[:PROBLEMS_SHOWN], *more])
    found: dict[str, list[TagRow]] = {}
    for row in rows:
        found.setdefault(row.adapter, []).append(row)
    return found


def _only_adapter(file: PlantConfig) -> str:
    """The adapter that is meant where none is named: the only one that has a table of devices."""
    some = [name for name, section in file.adapters.items() if section.table_names]
    return some[0] if len(some) == 1 else ""


def _check_takes_tables(file: PlantConfig, name: str) -> None:
    known = list(file.adapters)
    if not name:
        raise ConfigError(f"say which adapter the rows are for, with --adapter{nearest('', known)}")
    if name not in file.adapters:
        raise ConfigError(
            f"the plant file has no adapter {name!r}{nearest(name, known)}. For a new one write there: [adapters.{name}] "
            f'with its protocol, devices = "{name}.csv" and tags = "{name}-tags.csv"; the tables are made by this command'
        )
    section = file.adapters[name]
    kind: Any = ADAPTERS.load(section.protocol)
    if "devices" not in kind.Config.model_fields and not section.has_signal_table:
        raise ConfigError(
            f"{section.protocol} knows its signals by rules: for a table of those that it takes write "
            f'tags = "{name}-tags.csv" in the plant file; the table is made by this command',
            f"adapters.{name}",
        )


def _present(config: PlantConfig, name: str, running: Fingerprints | None) -> dict[str, str]:
    """Texts of an adapter's tables as they are: those that run, else those beside the plant file, else empty ones."""
    found = {}
    for table in config.adapters[name].table_names:
        if running is not None and table in running.tables:
            found[table] = running.tables[table]
        else:
            found[table] = table_text(config, table) if (config.folder / table).exists() else ""
    return found


def _before(config: PlantConfig, name: str, running: Fingerprints | None) -> Devices:
    if running is not None and name in running.config.adapters:
        return devices_of(running.frozen, name)
    return devices_of(config, name)


def _check_types(adapter: str, found: TagDifference, reader: ReadAddress) -> None:
    """A sensor keeps its value type for ever: say so here, where it can be said well."""
    problems = []
    for change in found.devices:
        for signal in change.signals:
            if signal.before is None or signal.after is None:
                continue
            rows = (TagRow(adapter, address=one.address) for one in (signal.before, signal.after))
            old, new = (None if at is None else at.dtype for at in map(reader, rows))
            if old != new:
                text = f"its values would change from {old} to {new}; a sensor keeps its type: give the signal another name"
                problems.append(Problem(f"{change.path}/{signal.name}", text))
    if problems:
        raise InvalidConfig(problems[:PROBLEMS_SHOWN])


def present_rows(config: PlantConfig, names: Sequence[str] = ()) -> list[TagRow]:
    """The normalised table of what a configuration has, of the adapters that have devices.

    Raises
    ------
    ConfigError : there is no such adapter, or a table can't be read.
    """
    missing = next((name for name in names if name not in config.adapters), None)
    if missing is not None:
        raise ConfigError(f"there is no adapter {missing!r}{nearest(missing, list(config.adapters))}")
    rows = []
    for name in names or config.adapters:
        rows += rows_of_devices(name, devices_of(config, name))
    return TagChecks(config.plant.levels, address_reader(config)).check(rows)


def tags_told(before: PlantConfig, after: PlantConfig) -> dict[str, Any]:
    """What differs in the devices and signals of two configurations that hold their tables, by adapter, JSON-ready."""
    found = {}
    for name in dict.fromkeys([*before.adapters, *after.adapters]):
        old, new = (_devices_held(config, name) for config in (before, after))
        differs = TagDifference.between(old, new)
        if differs:
            found[name] = differs.to_dict()
    return found


def _devices_held(config: PlantConfig, name: str) -> Devices:
    """Devices of an adapter; none where it or a table of it is not there."""
    if name not in config.adapters or any(t not in config.tables for t in config.adapters[name].table_names):
        return {}
    return devices_of(config, name)


def tables_back(running: Fingerprints, before: Mapping[str, str]) -> dict[str, str | None]:
    """Texts that the files must have for the tables of `before` to be what they say; None for one that must go."""
    names = [n for one in running.config.adapters.values() for n in one.table_names]
    gone = {name: None for name in names if name not in before}
    changed = {name: text for name, text in before.items() if running.tables.get(name) != text}
    return {**gone, **changed}
