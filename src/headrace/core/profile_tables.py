"""Profiles as a CSV table: a line a signal, with the name of the profile it belongs to.

A plant file names such a table for an adapter (``tags = "ovens-tags.csv"``), where thousands of signals would make the
file itself unreadable::

    profile,signal,address,unit,kind,low,high,labels
    oven,temperature,holding:100:F32;order=CDAB,degC,,0,400,
    oven,running,coil:0,,discrete,,,stopped|running

An empty cell is the default. Other columns are other keys of a signal, as a plant file has them: text as it is,
all else as JSON.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from headrace.core.config import PlantConfig
from headrace.core.errors import ConfigError
from headrace.core.problems import InvalidConfig, Problem, find_problems
from headrace.core.profiles import Profile, resolve_profiles
from headrace.core.registry import nearest
from headrace.core.settings import SignalSettings

Cells = Mapping[str, str]
"""Texts by column; no entry where a cell is empty."""
SIGNAL_COLUMNS = ("address", "unit", "kind", "low", "high", "labels")
"""Columns of a signal that most tables have, in this order."""
MORE_COLUMNS = tuple(name for name in SignalSettings.model_fields if name not in (*SIGNAL_COLUMNS, "limits"))
"""Columns of the other keys of a signal."""
_PARTED = "|"


def table_text(config: PlantConfig, name: str) -> str:
    """The text of a table beside the plant file: what the configuration holds of it, else what the file says now.

    Raises
    ------
    ConfigError : the file can't be read.
    """
    return config.tables[name] if name in config.tables else read_table(config.folder / name)


def read_table(file: Path) -> str:
    """The text of a table. Raises `ConfigError`: the file can't be read."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"table {file} can't be read: {getattr(e, 'strerror', None) or e}") from e


def profiles_of(config: PlantConfig, adapter: str) -> dict[str, Profile]:
    """Profiles that an adapter may use: the plant file's, with what they include, and those of its own table.

    Raises
    ------
    ConfigError, InvalidConfig : the table can't be read, or has problems; or both have a profile of one name.
    """
    section = config.adapters[adapter]
    name = section.tags
    if name is None or section.has_signal_table:
        return resolve_profiles(config.profiles)
    where = f"adapters.{adapter}.tags"
    try:
        own = read_profiles(table_text(config, name), name)
    except InvalidConfig:
        raise
    except ConfigError as e:
        raise ConfigError(e.message, e.where or where) from e
    twice = next((profile for profile in own if profile in config.profiles), None)
    if twice is not None:
        raise ConfigError(f"profile {twice!r} of {name} is in the plant file too; rename one of them", where)
    return {
        **resolve_profiles(config.profiles),
        **{name: Profile(signals, {}) for name, signals in own.items()},
    }


def read_lines(text: str, where: str) -> list[tuple[int, dict[str, str]]]:
    """Lines of a CSV table with a head line: number of the line, and its cells that are not empty.

    Raises
    ------
    ConfigError : it is no CSV, or a line has more cells than the head.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    found: list[tuple[int, dict[str, str]]] = []
    try:
        for row in reader:
            if None in row:
                raise ConfigError("has more cells than the head line", f"{where}:{reader.line_num}")
            cells = {key.strip(): value.strip() for key, value in row.items() if value and value.strip()}
            if cells:
                found.append((reader.line_num, cells))
    except csv.Error as e:
        raise ConfigError(f"is not a CSV table: {e}", f"{where}:{reader.line_num}") from e
    return found


def write_lines(head: Sequence[str], rows: Iterable[Cells]) -> str:
    """A CSV table; the inverse of `read_lines` where no cell begins or ends with spaces or has carriage returns.

    Those become line breaks, as in any file that is read as text.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([row.get(name, "") for name in head] for row in rows)
    return out.getvalue().replace("\r\n", "\n").replace("\r", "\n")


def read_profile_cells(text: str, where: str) -> dict[str, dict[str, dict[str, str]]]:
    """Profile → signal → cells of a table, unchecked but for their names.

    Raises
    ------
    InvalidConfig : a line without profile or signal, a signal twice, or a column that is no key of a signal.
    """
    profiles: dict[str, dict[str, dict[str, str]]] = {}
    problems: list[Problem] = []
    known = ["profile", "signal", *SIGNAL_COLUMNS, *MORE_COLUMNS]
    for number, cells in read_lines(text, where):
        at = f"{where}:{number}"
        profile, signal = cells.pop("profile", ""), cells.pop("signal", "")
        unknown = [name for name in cells if name not in known]
        if unknown:
            problems.append(Problem(at, f"unknown column {unknown[0]!r}{nearest(unknown[0], known)}"))
        elif not profile or not signal:
            problems.append(Problem(at, "a line needs a profile and a signal"))
        elif signal in profiles.setdefault(profile, {}):
            problems.append(Problem(at, f"signal {signal!r} of profile {profile!r} is there twice"))
        else:
            profiles[profile][signal] = cells
    if problems:
        raise InvalidConfig(problems)
    return profiles


def read_profiles(text: str, where: str) -> dict[str, dict[str, SignalSettings]]:
    """Profiles of a table. `where`: what the file is called, for the texts of problems.

    Raises
    ------
    InvalidConfig : every problem in it. ConfigError : it is no table.
    """
    profiles: dict[str, dict[str, SignalSettings]] = {}
    problems: list[Problem] = []
    for profile, signals in read_profile_cells(text, where).items():
        for signal, cells in signals.items():
            try:
                profiles.setdefault(profile, {})[signal] = signal_of(cells, f"{where}: {profile}.{signal}")
            except InvalidConfig as e:
                problems += e.problems
    if problems:
        raise InvalidConfig(problems)
    return profiles


def signal_of(cells: Cells, where: str) -> SignalSettings:
    """A signal from the cells of its line.

    Raises
    ------
    InvalidConfig : every problem in them.
    """
    data: dict[str, Any] = {key: text for key, text in cells.items() if key not in ("low", "high", "labels")}
    problems = []
    ends = []
    for name in ("low", "high"):
        try:
            ends.append(float(cells[name]) if name in cells else None)
        except ValueError:
            problems.append(Problem(f"{where}.{name}", f"{cells[name]!r} is not a number"))
    if problems:
        raise InvalidConfig(problems)
    if ends != [None, None]:
        data["limits"] = ends
    if "labels" in cells:
        data["labels"] = _labels(cells["labels"])
    try:
        return SignalSettings.model_validate(data)
    except ValidationError as e:
        # What is not text stands in the table as JSON.
        again = {str(name) for error in e.errors(include_url=False) for name in error["loc"][:1]} & set(
            MORE_COLUMNS
        )
        data |= {key: _value(data[key]) for key in again & data.keys()}
    try:
        return SignalSettings.model_validate(data)
    except ValidationError as e:
        raise InvalidConfig(find_problems(SignalSettings, data, e, where)) from None


def cells_of(signal: SignalSettings) -> dict[str, str]:
    """The cells of a signal's line; the inverse of `signal_of`."""
    out: dict[str, str] = {}
    plain = _plain(type(signal))
    for key, value in signal.model_dump(mode="json", by_alias=True).items():
        if getattr(signal, key) == getattr(plain, key):
            continue
        if key == "limits":
            ends = zip(("low", "high"), signal.limits, strict=True)
            out |= {name: number_text(end) for name, end in ends if end is not None}
        elif key == "labels":
            out[key] = label_text(signal.labels)
        else:
            out[key] = value if isinstance(value, str) else json.dumps(value)
    return {key: text for key, text in out.items() if text and (key, text) != ("kind", "analog")}


@cache
def _plain(kind: type[SignalSettings]) -> SignalSettings:
    return kind(address="")


def number_text(number: float) -> str:
    """The shortest text of a number that is read back as the same."""
    is_whole = math.isfinite(number) and abs(number) < 1e15 and number == int(number)
    return str(int(number)) if is_whole else repr(float(number))


def label_text(labels: Sequence[str]) -> str:
    """Names of states in one cell: ``stopped|running``; as a JSON list where one of them has a bar."""
    text = _PARTED.join(labels)
    is_plain = (
        text == text.strip() and bool(text) == bool(labels) and (not text or _labels(text) == list(labels))
    )
    return text if is_plain else json.dumps(list(labels), ensure_ascii=False)


def _labels(text: str) -> Any:
    found = _value(text) if text.startswith("[") else None
    return found if isinstance(found, list) else text.split(_PARTED)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
