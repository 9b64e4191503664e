"""Whole lines of CSV → columns of texts, line by line independent of each other.

Arrow splits what is plain; a line with quotes in unusual places, or with a lone carriage return, is read by Python's
own reader. So one bad line costs no other, and the same lines give the same cells wherever they are cut into parts.
A cell can't hold a line break.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from headrace.core.events import RejectCode

I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Refuse = Callable[[int, RejectCode, str], None]
"""Told of a line that can't be split: its number, code and why."""
_QUOTE, _LF, _CR = 34, 10, 13
_FEW_LINES = 64
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How CSV is written.

    Parameters
    ----------
    delimiter : between cells; decimal : before the fraction of a number; comment : first character of lines that
    are none, or empty; skip : lines before the one that names the columns; encoding : of the text.
    """

    delimiter: str = ","
    decimal: str = "."
    comment: str = ""
    skip: int = 0
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True)
class CsvCells:
    """Cells as texts, a column each, null where there is nothing; ``lines: int64[n]``, the number of each row's line."""

    columns: list[Any]
    lines: I64


class CsvText:
    """Whole lines and where each is.

    Parameters
    ----------
    data : the lines, in the dialect's encoding. first : number of the first one. refuse : told of lines that
    are no text of that encoding.
    """

    def __init__(self, data: bytes, first: int, dialect: CsvDialect, refuse: Refuse) -> None:
        self.dialect, self.first, self.refuse = dialect, first, refuse
        self.data = _utf8(data, first, dialect.encoding, refuse)
        self._codes = np.frombuffer(self.data, np.uint8)
        ends = np.flatnonzero(self._codes == _LF)
        if len(self.data) and (not len(ends) or ends[-1] != len(self.data) - 1):
            ends = np.append(ends, len(self.data))
        self._ends: I64 = ends
        self._starts: I64 = np.concatenate([np.zeros(1, np.int64), ends + 1])[: len(ends)]

    @property
    def n_lines(self) -> int:
        """Number of lines."""
        return len(self._ends)

    @property
    def places(self) -> tuple[npt.NDArray[np.uint8], I64, I64]:
        """All bytes, and where each line begins and ends."""
        return self._codes, self._starts, self._ends

    def line(self, number: int) -> bytes:
        """A line by its number, without its line break; empty where it is no text, or behind the end."""
        at = number - self.first
        if at >= len(self._starts):
            return b""
        return self.data[self._starts[at] : self._ends[at]].removesuffix(b"\r")

    def holds_values(self) -> Bool:
        """Which lines are neither blank nor comments nor to be skipped."""
        starts, ends, codes = self._starts, self._ends, self._codes
        has_cr = (ends > starts) & (codes[np.maximum(ends - 1, 0)] == _CR)
        out: Bool = ends - starts > has_cr
        if self.dialect.comment:
            out &= codes[np.minimum(starts, len(codes) - 1)] != ord(self.dialect.comment)
        out[: max(0, self.dialect.skip - self.first + 1)] = False
        return out

    def split(self, wanted: Bool, n_columns: int) -> CsvCells:
        """The cells of the lines that are wanted; those that have another number of cells are refused."""
        is_short = (
            np.count_nonzero(wanted) <= _FEW_LINES
        )  # Arrow's reader takes longer to make than to read these
        unusual = wanted if is_short else wanted & self._unusual()
        cells = self._plain(wanted & ~unusual, n_columns)
        if not unusual.any():
            return cells
        rows = {
            n: r for n in (np.flatnonzero(unusual) + self.first).tolist() if (r := self._read(n, n_columns))
        }
        if not rows:
            return cells
        more = [pa.array([row[i] or None for row in rows.values()], pa.string()) for i in range(n_columns)]
        lines = np.concatenate([cells.lines, np.array(list(rows), np.int64)])
        order = np.argsort(lines)
        columns = [
            pa.concat_arrays(pair).take(pa.array(order)) for pair in zip(cells.columns, more, strict=True)
        ]
        return CsvCells(columns, lines[order])

    def cells(self, number: int) -> list[str]:
        """The cells of one line. Raises csv.Error."""
        text = self.line(number).decode()
        return next(csv.reader([text], delimiter=self.dialect.delimiter, strict=True), [])

    def _unusual(self) -> Bool:
        """Lines with a quote inside a cell, an odd number of quotes, or a carriage return that ends nothing."""
        codes, starts, ends = self._codes, self._starts, self._ends
        out = np.zeros(len(ends), np.bool_)
        quotes = np.flatnonzero(codes == _QUOTE)
        if len(quotes):
            whose = np.searchsorted(ends, quotes)
            delimiter = ord(self.dialect.delimiter)
            padded = np.append(codes, _LF)
            opens = (quotes == starts[whose]) | (codes[quotes - 1] == delimiter)
            closes = (
                (padded[quotes + 1] == delimiter) | (padded[quotes + 1] == _LF) | (padded[quotes + 1] == _CR)
            )
            out |= np.bincount(whose, minlength=len(ends)) % 2 == 1
            out[whose[~(opens | closes)]] = True
        returns = np.flatnonzero(codes == _CR)
        if len(returns):
            whose = np.searchsorted(ends, returns)
            out[whose[returns != ends[whose] - 1]] = True
        return out

    def _plain(self, wanted: Bool, n_columns: int) -> CsvCells:
        lines = np.flatnonzero(wanted) + self.first
        if not len(lines):
            return CsvCells([pa.array([], pa.string())] * n_columns, lines)
        block = self._bytes_of(wanted)
        names = [str(i) for i in range(n_columns)]
        bad: list[int] = []

        def odd(row: Any) -> str:
            bad.append(row.number - 1)
            self._wrong_size(int(lines[row.number - 1]), row.actual_columns, n_columns)
            return "skip"

        table = pa.csv.read_csv(
            io.BytesIO(block),
            pa.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
            pa.csv.ParseOptions(
                delimiter=self.dialect.delimiter, ignore_empty_lines=False, invalid_row_handler=odd
            ),
            pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
        columns = [column.combine_chunks() for column in table.columns]
        return CsvCells(columns, np.delete(lines, bad))

    def _bytes_of(self, wanted: Bool) -> bytes:
        """Some lines as they are, one at least, one behind the other."""
        first, last = np.flatnonzero(wanted)[[0, -1]].tolist()
        edges = np.append(self._starts[first : last + 1], min(self._ends[last] + 1, len(self.data)))
        if last - first + 1 == np.count_nonzero(wanted):
            return self.data[edges[0] : edges[-1]]
        is_in = np.repeat(wanted[first : last + 1], np.diff(edges))
        return self._codes[edges[0] : edges[-1]][is_in].tobytes()

    def _read(self, number: int, n_columns: int) -> list[str] | None:
        try:
            cells = self.cells(number)
        except csv.Error as e:
            self.refuse(number, RejectCode.MALFORMED, f"not CSV: {e}")
            return None
        if len(cells) != n_columns:
            self._wrong_size(number, len(cells), n_columns)
            return None
        return cells

    def _wrong_size(self, number: int, n_found: int, n_columns: int) -> None:
        detail = f"{n_found} cells in a line, expected {n_columns}; is the delimiter {self.dialect.delimiter!r} right?"
        self.refuse(number, RejectCode.MALFORMED, detail)


def _utf8(data: bytes, first: int, encoding: str, refuse: Refuse) -> bytes:
    """The same lines as UTF-8; those that are no such text are refused and left empty."""
    if first == 1:
        data = data.removeprefix(_BOM)
    if data.isascii():
        return data
    try:
        text = data.decode(encoding)
        return data if encoding == "utf-8" else text.encode()
    except UnicodeDecodeError:
        lines = data.split(b"\n")
    for at, line in enumerate(lines):
        try:
            lines[at] = line.decode(encoding).encode()
        except UnicodeDecodeError as e:
            detail = (
                f"not {encoding}: {e.reason} at byte {e.start}; set encoding to what the file is written in"
            )
            refuse(first + at, RejectCode.MALFORMED, detail)
            lines[at] = b""
    return b"\n".join(lines)
