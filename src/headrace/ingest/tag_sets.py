"""The devices of an adapter with their signals: read from a plant file and its tables, compared, written back.

In a plant file a device names a profile, and many devices share one. Here each device has its own signals, as in a
tag table; writing them back finds the profiles again. What does not change keeps its name and its order, so that the
tables' difference is what was changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.core.config import AdapterSection, PlantConfig
from headrace.core.errors import ConfigError
from headrace.core.paths import check_path
from headrace.core.problems import InvalidConfig, Problem
from headrace.core.profile_tables import (
    MORE_COLUMNS,
    SIGNAL_COLUMNS,
    cells_of,
    profiles_of,
    read_lines,
    signal_of,
    table_text,
    write_lines,
)
from headrace.core.profiles import resolve_profiles
from headrace.core.registry import nearest
from headrace.core.settings import SignalSettings
from headrace.ingest.tag_checks import device_of, signal_cells, signal_of_row
from headrace.ingest.tag_rows import TagRow

Signals = Mapping[str, SignalSettings]
_NUMBER_AT_END = re.compile(r"[\W_]*\d+\Z")
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class TaggedDevice:
    """One device.

    Parameters
    ----------
    fields : its columns in a table of devices (url, interval), without path and profile. signals : by name.
    profile : name of the profile that it reads by; empty where it is new.
    """

    path: str
    fields: Mapping[str, str]
    signals: Signals
    profile: str = field(default="", compare=False)


Devices = Mapping[str, TaggedDevice]


def devices_of(config: PlantConfig, adapter: str) -> dict[str, TaggedDevice]:
    """Devices of an adapter, as the plant file and its tables have them; none where it has no devices.

    Raises
    ------
    ConfigError, InvalidConfig : a table can't be read, or has problems.
    """
    section = config.adapters[adapter]
    if section.has_signal_table:
        return _devices_of_table(config, str(section.tags))
    profiles = profiles_of(config, adapter)
    found: dict[str, TaggedDevice] = {}
    for path, cells in _device_cells(config, section):
        profile = cells.pop("profile", "") or section.profile or ""
        found[path] = TaggedDevice(path, cells, profiles.get(profile, {}), profile)
    return found


def _devices_of_table(config: PlantConfig, name: str) -> dict[str, TaggedDevice]:
    """Devices of a table of single signals, which an adapter without a table of devices has."""
    known = ["path", *SIGNAL_COLUMNS, *MORE_COLUMNS]
    signals: dict[str, dict[str, SignalSettings]] = {}
    problems: list[Problem] = []
    for number, cells in read_lines(table_text(config, name), name):
        where, path = f"{name}:{number}", cells.pop("path", "")
        device, _, signal = path.rpartition("/")
        unknown = [column for column in cells if column not in known]
        try:
            if unknown:
                raise ConfigError(f"unknown column {unknown[0]!r}{nearest(unknown[0], known)}", where)
            if not device or "address" not in cells:
                raise ConfigError("a line needs the path of a sensor and an address", where)
            if signal in signals.setdefault(device, {}):
                raise ConfigError(f"path {path!r} is there twice", where)
            check_path(path)
            signals[device][signal] = signal_of(cells, where)
        except InvalidConfig as e:
            problems += e.problems
        except ConfigError as e:
            problems.append(Problem(e.where or where, e.message))
    if problems:
        raise InvalidConfig(problems)
    return {device: TaggedDevice(device, {}, some) for device, some in signals.items()}


def _table_of_signals(devices: Devices) -> str:
    """The inverse of `_devices_of_table`."""
    rows = [
        {"path": f"{path}/{name}", **cells_of(signal)}
        for path, device in devices.items()
        for name, signal in device.signals.items()
    ]
    more = [name for name in MORE_COLUMNS if any(name in row for row in rows)]
    return write_lines(["path", *SIGNAL_COLUMNS, *more], rows)


def _device_cells(config: PlantConfig, section: AdapterSection) -> Iterable[tuple[str, dict[str, str]]]:
    if isinstance(section.devices, str):
        for number, cells in read_lines(table_text(config, section.devices), section.devices):
            path = cells.pop("path", "")
            if not path:
                raise ConfigError("a device needs a path", f"{section.devices}:{number}")
            yield path, cells
    for path, device in (section.devices if isinstance(section.devices, Mapping) else {}).items():
        given: Mapping[str, Any] = device if isinstance(device, Mapping) else {"url": device}
        own = given.get("parameters")  # columns of their own in a table
        cells = {key: value for key, value in given.items() if key != "parameters"}
        cells |= own if isinstance(own, Mapping) else {}
        yield path, {key: str(value) for key, value in cells.items()}


def devices_of_rows(
    rows: Sequence[TagRow], levels: Sequence[str], before: Devices, has_urls: bool = True
) -> dict[str, TaggedDevice]:
    """Devices that a table names, each with all signals that the table gives it.

    Parameters
    ----------
    before : devices that are there already: one of them keeps its url where the table has none.
    has_urls : whether each device has a url, and whatever else a table of devices says.

    Raises
    ------
    ConfigError : a device has no url.
    """
    known: dict[tuple[tuple[str, str], ...], SignalSettings] = {}
    fields: dict[str, dict[str, str]] = {}
    signals: dict[str, dict[str, SignalSettings]] = {}
    for row in rows:
        device, cells = device_of(row, levels), signal_cells(row)
        key = tuple(cells.items())
        if key not in known:
            known[key] = signal_of(cells, row.path)
        signals.setdefault(device, {})[signal_of_row(row, levels)] = known[key]
        mine = fields.setdefault(device, {})
        for name, text in (
            (("url", row.url), ("interval", row.interval), *row.more.items()) if has_urls else ()
        ):
            if text and name not in SignalSettings.model_fields:
                mine.setdefault(name, text)
    found = {}
    for device, mine in fields.items():
        old = before.get(device)
        if has_urls and "url" not in mine and (old is None or "url" not in old.fields):
            raise ConfigError(f"device {device!r} has no url: say where it is in the column url")
        if old is not None and "url" in old.fields:
            mine = {"url": old.fields["url"], **mine}
        found[device] = TaggedDevice(device, mine, signals[device], "" if old is None else old.profile)
    return found


def joined(before: Devices, named: Devices, is_whole: bool) -> dict[str, TaggedDevice]:
    """All devices once those that a table names are as it says. `is_whole`: others go; else they stay as they are."""
    kept = {path: named.get(path, device) for path, device in before.items() if not is_whole or path in named}
    return {**kept, **{path: device for path, device in named.items() if path not in kept}}


def rows_of_devices(adapter: str, devices: Devices) -> list[TagRow]:
    """The normalised table of an adapter's devices."""
    known: dict[int, dict[str, str]] = {}
    rows = []
    for device in devices.values():
        own = {name: text for name, text in device.fields.items() if name not in ("url", "interval")}
        for name, signal in device.signals.items():
            cells = known.setdefault(id(signal), cells_of(signal))
            more = {**{key: text for key, text in cells.items() if key in MORE_COLUMNS}, **own}
            rows.append(
                TagRow(
                    adapter, f"{device.path}/{name}", device.fields.get("url", ""),
                    interval=device.fields.get("interval", ""),
                    **{key: text for key, text in cells.items() if key in SIGNAL_COLUMNS}, more=more,
                )
            )  # fmt: skip
    return rows


# --- back to tables ----------------------------------------------------------------------------------


class ProfileNames:
    """Finds a profile for each device: the one that it has, one with the same signals, or a new one.

    Parameters
    ----------
    shared : profiles of the plant file, which stay as they are. own : of the adapter's table.
    """

    def __init__(self, shared: Mapping[str, Signals], own: Mapping[str, Signals]) -> None:
        self._shared = shared
        self._own = dict(own)
        self._by_content: dict[int, str] = {}
        self._content_number: dict[frozenset[tuple[str, int]], int] = {}
        self._settings_number: dict[SignalSettings, int] = {}
        self._number_of_id: dict[int, tuple[SignalSettings, int]] = {}
        for name, signals in {**shared, **own}.items():
            self._by_content.setdefault(self._content(signals), name)

    def _content(self, signals: Signals) -> int:
        """A number that is the same for the same signals, in whatever order."""
        key = frozenset((name, self._number(one)) for name, one in signals.items())
        return self._content_number.setdefault(key, len(self._content_number))

    def _number(self, settings: SignalSettings) -> int:
        known = self._number_of_id.get(id(settings))
        if known is None:
            number = self._settings_number.setdefault(settings, len(self._settings_number))
            # The object is kept, so that its id stays its own.
            known = self._number_of_id[id(settings)] = (settings, number)
        return known[1]

    def assign(self, devices: Devices) -> dict[str, str]:
        """Profile of each device, by path."""
        by_content: dict[int, list[TaggedDevice]] = {}
        for device in devices.values():
            by_content.setdefault(self._content(device.signals), []).append(device)
        found: dict[str, str] = {}
        every = {**self._shared, **self._own}
        same = {name: self._content(signals) for name, signals in every.items()}
        fresh = []
        for content, some in by_content.items():
            if content in self._by_content:
                for device in some:
                    is_same = same.get(device.profile) == content
                    found[device.path] = device.profile if is_same else self._by_content[content]
            else:
                fresh.append((content, some))
        for content, some in fresh:
            name = self._name(some, set(found.values()))
            self._by_content[content] = name
            before = next((every[d.profile] for d in some if d.profile in every), {})
            self._own[name] = _in_order(some[0].signals, before)
            found |= {device.path: name for device in some}
        return found

    def _name(self, devices: Sequence[TaggedDevice], taken: set[str]) -> str:
        """The name that most of them have now, where no other device needs it as it is; else one after the first of them."""
        had = Counter(device.profile for device in devices).most_common(1)[0][0]
        if had in self._own and had not in taken:
            return had
        last = devices[0].path.rpartition("/")[2]
        base = _NO_NAME.sub("-", _NUMBER_AT_END.sub("", last) or last).strip("-") or "device"
        names = (base if n == 1 else f"{base}-{n}" for n in range(1, 1_000_000))
        return next(
            name for name in names if name not in self._own and name not in self._shared and name not in taken
        )

    def table(self, used: Iterable[str]) -> str:
        """The adapter's own profiles that are used, as a CSV table."""
        names = set(used)
        return profiles_text({name: signals for name, signals in self._own.items() if name in names})

    def is_own(self, name: str) -> bool:
        """Whether a profile stands in the adapter's table."""
        return name in self._own


def _in_order(signals: Signals, before: Signals) -> dict[str, SignalSettings]:
    """Signals that were there in their old order, then the new ones."""
    return {name: signals[name] for name in dict.fromkeys([*before, *signals]) if name in signals}


def profiles_text(profiles: Mapping[str, Signals]) -> str:
    """Profiles as a CSV table."""
    rows = [
        {"profile": profile, "signal": name, **cells_of(one)}
        for profile, signals in profiles.items()
        for name, one in signals.items()
    ]
    more = [name for name in MORE_COLUMNS if any(name in row for row in rows)]
    return write_lines(["profile", "signal", *SIGNAL_COLUMNS, *more], rows)


def tables_of(config: PlantConfig, adapter: str, devices: Devices) -> dict[str, str]:
    """Texts of an adapter's tables that say what `devices` says, by the names that its section gives them.

    Raises
    ------
    ConfigError : its section names no table where one is needed.
    """
    section = config.adapters[adapter]
    where = f"adapters.{adapter}"
    if section.has_signal_table:
        return {str(section.tags): _table_of_signals(devices)}
    if not isinstance(section.devices, str):
        raise ConfigError(
            f'its devices stand in the plant file, which is never rewritten: write devices = "{adapter}.csv" there, '
            f"and move them into that file",
            f"{where}.devices",
        )
    own = {}
    if section.tags is not None:
        own = {name: one for name, one in profiles_of(config, adapter).items() if name not in config.profiles}
    names = ProfileNames(resolve_profiles(config.profiles), own)
    by_path = names.assign(devices)
    columns = dict.fromkeys(name for device in devices.values() for name in device.fields)
    rows = [
        {**device.fields, "path": path, "profile": "" if by_path[path] == section.profile else by_path[path]}
        for path, device in devices.items()
    ]
    head = ["path", "url", "profile", *(name for name in columns if name != "url")]
    tables = {section.devices: write_lines(head, rows)}
    used = [*by_path.values(), section.profile or ""]
    if section.tags is not None:
        tables[section.tags] = names.table(used)
    elif any(map(names.is_own, used)):
        new = next(name for name in used if names.is_own(name))
        raise ConfigError(
            f'its devices report what no profile of the plant file says ({new}): write tags = "{adapter}-tags.csv" '
            f"there, and the profiles go into that file",
            f"{where}.tags",
        )
    return tables
