"""Tables as people have them: CSV of any dialect, and spreadsheets, as a head line and lines of texts.

A byte-order mark, UTF-16 and Windows' code pages, semicolons and tabs, lines above the head line: whatever a program
or an office writes is read. What the columns mean is for whoever takes them.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any

from headrace.core.errors import ConfigError, PluginError
from headrace.core.profile_tables import number_text
from headrace.ingest.tag_words import column_of

SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")
HEAD_LINES = 20
"""The head line is looked for among so many."""
_DELIMITERS = ";\t,|"


@dataclass(frozen=True, slots=True)
class ForeignTable:
    """A table as it was found: `numbers` are the numbers of its lines in the file, from 1."""

    name: str
    head: list[str]
    lines: list[list[str]]
    numbers: list[int]


def read_foreign(path: Path, sheet: str = "") -> ForeignTable:
    """Read a table, whatever kind of file it is in.

    Parameters
    ----------
    sheet : of a spreadsheet; the first one where it is empty.

    Raises
    ------
    ConfigError : it can't be read, is empty, or has no such sheet. PluginError : the library for spreadsheets is missing.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"can't be read: {e.strerror}", str(path)) from e
    if path.suffix.lower() in SPREADSHEETS:
        lines = _spreadsheet(path, data, sheet)
    else:
        lines = _text_lines(text_of(data), str(path))
    numbered = [(number, line) for number, line in enumerate(lines, 1) if any(cell.strip() for cell in line)]
    if not numbered:
        raise ConfigError("is empty", str(path))
    at = _head_line([line for _, line in numbered[:HEAD_LINES]])
    head = [" ".join(cell.split()) for cell in numbered[at][1]]
    rest = numbered[at + 1 :]
    return ForeignTable(path.name, head, [line for _, line in rest], [number for number, _ in rest])


def text_of(data: bytes) -> str:
    """Text in whatever encoding: by its byte-order mark, else UTF-8, else that of Western Windows."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _text_lines(text: str, where: str) -> list[list[str]]:
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:  # Excel's own way to say it
        delimiter, text = first.strip()[4], rest
    else:
        delimiter = _delimiter(text)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as e:
        raise ConfigError(f"is not a CSV table: {e}", where) from e


def _delimiter(text: str) -> str:
    """The mark that parts most lines into the same number of cells; a semicolon before a comma, which is in numbers."""
    lines = [line for line in text.splitlines()[:HEAD_LINES] if line.strip()]
    best, best_score = ",", 0
    for mark in _DELIMITERS:
        counts = [_count(line, mark) for line in lines]
        common = max(set(counts), key=lambda n: (counts.count(n) if n else 0, n), default=0)
        score = counts.count(common) if common else 0
        if score > best_score:
            best, best_score = mark, score
    return best


def _count(line: str, mark: str) -> int:
    """How often a mark stands in a line, outside quotes."""
    return sum(part.count(mark) for part in line.split('"')[::2])


def _spreadsheet(path: Path, data: bytes, sheet: str) -> list[list[str]]:
    try:
        import python_calamine
    except ImportError as e:
        raise PluginError(
            f"{path.name} is a spreadsheet; install what reads it with: pip install 'headrace[excel]', or save it as CSV"
        ) from e
    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        names = list(book.sheet_names)
        if sheet and sheet not in names:
            raise ConfigError(f"has no sheet {sheet!r}; it has {', '.join(names)}", str(path))
        rows = book.get_sheet_by_name(sheet or names[0]).to_python(skip_empty_area=False)
    except (python_calamine.CalamineError, IndexError) as e:
        raise ConfigError(f"is no spreadsheet that can be read: {e}", str(path)) from e
    return [[_cell(value) for value in row] for row in rows]


def _cell(value: Any) -> str:
    """A cell as a person sees it: whole numbers without a point."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return number_text(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value)


def _head_line(lines: list[list[str]]) -> int:
    """Which line is the head: the one with most headings that are understood; the first where none is."""
    known = [len({column_of(cell) for cell in line if cell.strip()} - {None}) for line in lines]
    return known.index(max(known))
