"""What is wrong with a tag table, and what somebody should look at, row by row, in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from headrace.adapters.abilities import TagAddress
from headrace.core.errors import ConfigError
from headrace.core.layouts import DTYPES
from headrace.core.paths import check_path
from headrace.core.problems import InvalidConfig
from headrace.core.profile_tables import SIGNAL_COLUMNS, signal_of
from headrace.core.registry import nearest
from headrace.core.settings import SignalSettings, check_url
from headrace.ingest.tag_rows import TagRow
from headrace.ingest.tag_rules import tidy_name
from headrace.ingest.tag_words import STRING, UNIT_CHARACTERS_MAX, UNITS, number_of

ReadAddress = Callable[[TagRow], TagAddress | None]
"""Understands the address of a row; None where nobody knows its protocol. Raises `ConfigError`."""
_CONTROL = re.compile(r"[\x00-\x1f]")
FIRST_LINE = 2
"""Number of the first row in its file: the head line comes before it."""


@dataclass
class _Seen:
    """What the rows before one have said: line by path, by place in a device, and each device's url."""

    paths: dict[str, int] = field(default_factory=dict)
    places: dict[tuple[str, str], int] = field(default_factory=dict)
    urls: dict[str, tuple[str, int]] = field(default_factory=dict)


class TagChecks:
    """Checks of a table against the plant that it is for.

    Parameters
    ----------
    levels : names of a path's levels. read_address : of the row's protocol.
    """

    def __init__(self, levels: Sequence[str], read_address: ReadAddress = lambda row: None) -> None:
        self._levels, self._read_address = tuple(levels), read_address
        self._known: dict[tuple[tuple[str, str], ...], tuple[str, ...]] = {}

    def check(self, rows: Sequence[TagRow]) -> list[TagRow]:
        """The rows with every problem and remark; what was understood of an address is filled in.

        Problems that the rows have already stay (whoever read them knows more than the table says). A row with a
        problem can't be applied.
        """
        seen = _Seen()
        return [self._checked(row, line, seen) for line, row in enumerate(rows, FIRST_LINE)]

    def _checked(self, row: TagRow, line: int, seen: _Seen) -> TagRow:
        row = replace(row, remark="") if row.remark else row
        row = self._path(row, line, seen)
        row = self._address(row, line, seen)
        for problem in self._cells(row):
            row = row.with_problem(problem)
        if row.unit and row.unit not in UNITS and not row.problem:
            row = row.with_remark(f"unit {row.unit!r} is kept as it stands{_near_unit(row.unit)}")
        return row

    def _path(self, row: TagRow, line: int, seen: _Seen) -> TagRow:
        if not row.path:
            return row if row.problem else row.with_problem("has no path")
        first = seen.paths.setdefault(row.path, line)
        if first != line:
            row = row.with_problem(f"the path is in line {first} already")
        try:
            check_path(row.path)
        except ConfigError:
            better = tidy_name(row.path)
            hint = f"; {better!r} can (--tidy makes it so)" if better else ""
            return row.with_problem(f"{row.path[:80]!r} can't be a path{hint}")
        n_levels = row.path.count("/") + 1
        if n_levels != len(self._levels):
            levels = "/".join(self._levels)
            row = row.with_problem(f"the path has {n_levels} levels, expected {len(self._levels)}: {levels}")
        return row

    def _address(self, row: TagRow, line: int, seen: _Seen) -> TagRow:
        device = device_of(row, self._levels)
        url = row.url
        if url:
            known, first = seen.urls.setdefault(device, (url, line))
            if known != url:
                row = row.with_problem(f"its device is at {known} in line {first}")
            problem = _url_problem(url)
            row = row.with_problem(problem) if problem else row
        if not row.address:
            return row
        is_typed = row.dtype in (*DTYPES, STRING)
        try:
            found = self._read_address(row if is_typed or not row.dtype else replace(row, dtype=""))
        except ConfigError as e:
            return row.with_problem(e.message)
        place = row.address if found is None else found.place
        if found is not None:
            if is_typed and row.dtype != found.dtype:
                row = row.with_remark(f"the list says {row.dtype}, the address {found.dtype}: that counts")
            dtype = found.dtype if is_typed or not row.dtype else row.dtype
            if (row.address, row.dtype) != (found.text, dtype):
                row = replace(row, address=found.text, dtype=dtype)
        # What nobody can read may be an address of many things: a topic carries all of a device's signals.
        if found is not None or row.signal == "":
            first = seen.places.setdefault((url or device, place), line)
            if first != line:
                row = row.with_remark(f"line {first} has the same address")
        return row

    def _cells(self, row: TagRow) -> tuple[str, ...]:
        """Problems of what a signal is; many rows are alike."""
        cells = signal_cells(row)
        key = (*sorted(cells.items()), ("dtype", row.dtype))
        if key not in self._known:
            self._known[key] = tuple(_cell_problems(row, cells))
        return self._known[key]


def device_of(row: TagRow, levels: Sequence[str]) -> str:
    """Path of a row's device: all levels but those of the signal."""
    return "/".join(row.path.split("/")[: len(levels) - 1])


def signal_of_row(row: TagRow, levels: Sequence[str]) -> str:
    """Name of a row's signal below its device."""
    return "/".join(row.path.split("/")[len(levels) - 1 :])


def signal_cells(row: TagRow) -> dict[str, str]:
    """The cells of a row that belong to its signal in a table of profiles."""
    cells = {name: getattr(row, name) for name in SIGNAL_COLUMNS}
    cells |= {name: text for name, text in row.more.items() if name in SignalSettings.model_fields}
    return {name: text for name, text in cells.items() if text}


def _cell_problems(row: TagRow, cells: Mapping[str, str]) -> list[str]:
    problems = []
    if row.dtype and row.dtype not in (*DTYPES, STRING):
        problems.append(f"type {row.dtype!r} is not known; write one of {', '.join((*DTYPES, STRING))}")
    if row.unit and (
        _CONTROL.search(row.unit) or len(row.unit) > UNIT_CHARACTERS_MAX or number_of(row.unit) is not None
    ):
        problems.append(f"{row.unit[:40]!r} can't be a unit")
    try:
        signal_of({"address": "-", **cells}, "").column("x")
    except InvalidConfig as e:
        problems += [f"{p.where.strip('.')} {p.message}" for p in e.problems]
    except ConfigError as e:
        problems.append(e.message)
    return problems


def _url_problem(url: str) -> str:
    try:
        check_url(url)
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as e:
        return f"url: {e}"
    return "" if parts.scheme else f"{url!r} is not a url"


def _near_unit(unit: str) -> str:
    near = nearest(unit, list(UNITS))
    return near if near.startswith("; did") else ""
