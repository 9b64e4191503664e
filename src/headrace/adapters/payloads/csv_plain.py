"""Plain lines of CSV → frames: what `headrace.adapters.payloads.csv_scanner` reads, for sensors that are known and f64."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.base import RuleSettings
from headrace.adapters.payloads.csv_cells import CsvText
from headrace.adapters.payloads.csv_scanner import (
    EMPTY,
    LINE,
    ROWS,
    SKIPPED,
    TIME_NUMBER,
    TIME_ZONED,
    TIME_ZONELESS,
    VALUE,
    CsvRows,
    CsvShape,
    scan_rows,
)
from headrace.adapters.payloads.keys import DeviceGroup, DeviceGroups
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch
from headrace.core.quality import Quality

_WHOLE, _ZONE = re.compile(r"\s*[+-]?\d+\s*", re.ASCII), re.compile(r"(?:[Zz]|[+-]\d\d:\d\d)\s*$")
_NUMBER = re.compile(r" *[+-]?\d{1,15}(?:\.\d*)? *", re.ASCII)
"""Numbers of which nobody doubts that they make a sensor of type f64."""
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PlainColumns:
    """The columns of some CSV.

    Parameters
    ----------
    names : of all. time : that of the time, None where lines have none. keys : those that hold values.
    delimiter, decimal : as in `CsvDialect`.
    """

    names: tuple[str, ...]
    time: str | None
    keys: Sequence[str]
    delimiter: str
    decimal: str


class PlainCsv:
    """Reads plain lines of one device.

    Parameters
    ----------
    origin : the adapter's name.

    Cost: 15 ns of CPU a cell.
    """

    def __init__(
        self,
        origin: str,
        groups: DeviceGroups,
        columns: PlainColumns,
        times: TimeReader,
        settings: RuleSettings,
    ) -> None:
        self._origin, self._groups, self._settings = origin, groups, settings
        self._columns, self._times = columns, times
        self._wanted = frozenset(columns.keys)
        self._facts = np.array([ord(columns.delimiter), ord(columns.decimal)], np.int64)

    def read(
        self, text: CsvText, wanted: Bool, line: int, arrival_ns: int, group: DeviceGroup
    ) -> tuple[FrameBatch | None, int]:
        """Frames of the lines from `line` on (counted from 0), and the first line that is not plain.

        Parameters
        ----------
        wanted : one at least from there on. group : one that `suits`.
        arrival_ns : time of the first line of `text` where lines have none of their own.
        """
        left = np.flatnonzero(wanted[line:])
        first = line + int(left[0])
        cells = text.line(first + text.first).decode().split(self._columns.delimiter)
        self._learn(cells, group)
        part = group.table.parts.get("f64")
        if part is None:
            return None, first
        codes, starts, ends = text.places
        time = self._time_kind(cells)
        shape = self._shape(group, time)
        n, width = len(left), part.layout.width
        floats = np.zeros((n, width))
        marks = np.full((n, width), Quality.ABSENT, np.uint8)
        counts = np.array([0, first], np.int64)
        rows = CsvRows(
            np.zeros(n, np.int64), np.zeros(n, np.int64), floats.view(np.int64), floats, marks, counts
        )
        scan_rows(codes, starts, ends, wanted, shape, rows)
        n = int(counts[ROWS])
        ts_ns = arrival_ns + rows.line if self._columns.time is None else self._times_of(rows.ts_ns[:n], time)
        late = np.flatnonzero(ts_ns[:n] == NO_TIME)
        if len(late):  # a number that is no time: the slower reader says so
            n, counts[LINE] = int(late[0]), rows.line[late[0]]
        if not n:
            return None, int(counts[LINE])
        slot = np.full(n, group.slots["f64"], np.uint32)
        some = marks[:n] if marks[:n].any() else None
        return FrameBatch.dense(slot, ts_ns[:n], floats[:n], some, origin=self._origin), int(counts[LINE])

    def suits(self, group: DeviceGroup) -> bool:
        """Whether all columns that the device is known to have are plain floats."""
        table = group.table
        known = [table.index[key] for key in self._columns.keys if key in table.index]
        columns = [table.parts[dtype].layout.columns[at] for dtype, at in known]
        is_plain = all((c.scale, c.offset) == (1.0, 0.0) for c in columns)
        return is_plain and all(dtype == "f64" for dtype, _ in known)

    def _shape(self, group: DeviceGroup, time: int) -> CsvShape:
        names, index = self._columns.names, group.table.index
        kinds = np.array(
            [
                time if name == self._columns.time else SKIPPED if name not in self._wanted
                else VALUE if name in index else EMPTY for name in names
            ],
            np.int64,
        )  # fmt: skip
        places = np.array([index[name][1] if name in index else 0 for name in names], np.int64)
        return CsvShape(kinds, places, self._facts)

    def _learn(self, cells: list[str], group: DeviceGroup) -> None:
        """Make sensors known whose first values are numbers; all else is left to the slower reader."""
        index, given = group.table.index, self._settings.types
        if len(cells) != len(self._columns.names) or all(key in index for key in self._columns.keys):
            return
        new = {
            key: "f64" for key, cell in zip(self._columns.names, cells, strict=True)
            if key in self._wanted and key not in index and key not in given and "/" not in key
            and _NUMBER.fullmatch(cell.replace(self._columns.decimal, "."))
        }  # fmt: skip
        if new:
            with suppress(ConfigError):
                self._groups.extend(group, new, self._settings)

    def _time_kind(self, cells: list[str]) -> int:
        """How times are written, by the first of them."""
        if self._columns.time is None:
            return TIME_NUMBER
        number = self._columns.names.index(self._columns.time)
        cell = cells[number] if number < len(cells) else ""
        if _WHOLE.fullmatch(cell):
            return TIME_NUMBER
        return TIME_ZONED if _ZONE.search(cell[-7:]) else TIME_ZONELESS

    def _times_of(self, ts_ns: npt.NDArray[np.int64], kind: int) -> npt.NDArray[np.int64]:
        if kind == TIME_NUMBER:
            return self._times.of_numbers(ts_ns)
        return self._times.of_plant(ts_ns) if kind == TIME_ZONELESS else ts_ns
