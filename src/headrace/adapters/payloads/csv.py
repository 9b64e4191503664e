"""Lines of cells: ``2026-11-23T15:06:00Z,181.2,true``; a line is one instant of the device.

The rule's `columns` name the cells, else the message's first line does. An empty cell is nothing there. Cells are
numbers, ``true`` and ``false``, or texts; cells in double quotes may hold delimiters and line breaks.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import ClassVar

from headrace.adapters.payloads.base import PayloadError, RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import EXACT_MAX, DeviceGroup
from headrace.adapters.payloads.number import number
from headrace.adapters.payloads.rows import Rows
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.events import RejectCode

_FEW_LINES = 8
_WORDS = {"true": True, "false": False}
Cell = float | str | None


class CsvDecoder:
    """The decoder of lines. Cost: 0.4 to 0.6 us a cell of messages of 100 lines, 1.6 us of one line."""

    has_keys: ClassVar[bool] = True

    def __init__(self, settings: RuleSettings, times: TimeReader) -> None:
        self._settings = settings
        self._times = times
        if settings.columns:
            problem = _problem(settings.columns, settings.time)
            if problem:
                raise ConfigError(f"columns: {problem}")

    def read(self, message: TopicMessage, group: DeviceGroup, rows: Rows) -> None:
        """Add a row for each line."""
        settings = self._settings
        try:
            text = message.payload.decode("utf-8-sig")
            lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=settings.delimiter, strict=True))
        except (UnicodeDecodeError, csv.Error) as e:
            raise PayloadError(RejectCode.MALFORMED, f"not CSV: {e}") from None
        columns = settings.columns
        if not columns:
            columns = tuple(cell.strip() for cell in lines[0]) if lines else ()
            problem = _problem(columns, settings.time)
            if problem:
                raise PayloadError(RejectCode.MALFORMED, f"first line: {problem}", max(1, len(lines) - 1))
            del lines[0]
        time_at = columns.index(settings.time) if settings.time else -1
        keys = tuple(key for key in columns if key != settings.time)
        full = [line for line in lines if line]
        if not full:
            raise PayloadError(RejectCode.MALFORMED, "no line of values")
        times: list[int] = []
        taken: list[list[str]] = []
        for line in full:
            if len(line) != len(columns):
                detail = f"{len(line)} cells in a line, expected {len(columns)}: {','.join(columns)!s:.120}"
                rows.refuse(message, RejectCode.MALFORMED, detail, len(keys))
                continue
            try:
                ts_ns = self._time(line.pop(time_at)) if time_at >= 0 else NO_TIME
            except PayloadError as e:
                rows.refuse(message, e.code, e.detail, len(keys))
                continue
            times.append(ts_ns)
            taken.append(line)
        if taken:
            values = _values(taken, text)
            rows.add_many(message, group, times, (keys, values), settings)

    def _time(self, cell: str) -> int:
        cell = cell.strip()
        return self._times.read(cell) if cell else NO_TIME


def _problem(columns: tuple[str, ...], time: str | None) -> str:
    """What is wrong with names of columns; empty where nothing is."""
    if len(set(columns)) != len(columns) or "" in columns:
        return f"{','.join(columns)!s:.120} has a name twice or one that is empty"
    if time is not None and time not in columns:
        return f"no column {time!r} for the time in {','.join(columns)!s:.120}"
    if len(columns) == (time is not None):
        return "no column of values"
    return ""


def _values(lines: list[list[str]], text: str) -> list[tuple[Cell, ...]]:
    """The cells of lines; `text` is all of them. Of a few lines each for itself: columns take longer to make."""
    if len(lines) < _FEW_LINES:
        return [tuple(map(_cell, line)) for line in lines]
    read = _cells if "_" in text else _column  # Python's own way to part digits is no number here
    return list(zip(*map(read, zip(*lines, strict=True)), strict=True))


def _column(texts: tuple[str, ...]) -> Sequence[Cell]:
    """The cells of a column, none of which has a _; of numbers that a float holds without a step of Python for each."""
    try:
        numbers = list(map(float, texts))
    except ValueError:
        return _cells(texts)
    return numbers if max(map(abs, numbers)) < EXACT_MAX else _cells(texts)


def _cells(texts: tuple[str, ...]) -> Sequence[Cell]:
    """The cells of a column; each different text is looked at once."""
    known = {text: _cell(text) for text in set(texts)}
    return [known[text] for text in texts]


def _cell(text: str) -> Cell:
    text = text.strip()
    if not text:
        return None
    value = number(text)
    return _WORDS.get(text.lower(), text) if value is None else value
