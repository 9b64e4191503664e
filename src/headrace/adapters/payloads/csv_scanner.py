"""Plain lines of CSV in a kernel: bytes → times and numbers, without a Python object for any of them.

A line is *plain* where each cell is a number, a time, nothing, or of no interest, and no quote is near. Where a line is
not, the scanner stops in front of it: `headrace.adapters.payloads.csv_cells` reads it. What is read here is read as that
would.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.decimals import UNDECIDED, exact_float, float_bits, is_exact
from headrace.adapters.payloads.time_scanner import time_of_text
from headrace.core.clock import NO_TIME
from headrace.core.kernels import lean_kernel, lean_leaf
from headrace.core.quality import Quality

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Place = tuple[int, int]

SKIPPED, VALUE, EMPTY, TIME_NUMBER, TIME_ZONED, TIME_ZONELESS = range(6)
"""Kinds of columns: of no interest, a number for the place told, nothing so far, a time as it is written."""
DELIMITER, DECIMAL = 0, 1
ROWS, LINE = 0, 1

_NONE = -1
_ABSENT = np.uint8(Quality.ABSENT)
_LF, _CR, _BLANK, _QUOTE, _PLUS, _MINUS, _DOT, _ZERO, _E, _E_SMALL = 10, 13, 32, 34, 43, 45, 46, 48, 69, 101
_DIGITS_MAX, _POWER_DIGITS_MAX = 18, 4
_BITS = 2**60 - 1
_EXACT = 2**53


class CsvShape(NamedTuple):
    """What the scanner knows: kind and place of each column, ``facts`` delimiter and decimal sign."""

    kinds: I64
    places: I64
    facts: I64


class CsvRows(NamedTuple):
    """What the scanner has read: times, lines, values by place, and their quality; ``counts``: rows, line to go on from.

    ``ints`` and ``floats`` are the same memory.
    """

    ts_ns: I64
    line: I64
    ints: I64
    floats: npt.NDArray[np.float64]
    marks: U8
    counts: I64


@lean_leaf
def _blank(data: U8, at: int, end: int, delimiter: int) -> int:
    """Where something begins that is no blank; a blank that parts cells is something."""
    while at < end and data[at] == _BLANK and delimiter != _BLANK:
        at += 1
    return at


@lean_leaf
def _digits(data: U8, at: int, end: int, number: int) -> Place:
    """More digits of a number, and where they end; of too many the number is wrong."""
    while at < end:
        digit = int(np.int64(data[at])) - _ZERO
        if digit < 0 or digit > 9:
            break
        number = (number * 10 + digit) & _BITS
        at += 1
    return number, at


@lean_leaf
def _zeros(data: U8, at: int, end: int) -> int:
    """Where a number begins behind its leading zeros."""
    while at < end and data[at] == _ZERO:
        at += 1
    return at


@lean_leaf
def _sign(data: U8, at: int, end: int) -> Place:
    """The sign of a number, and where the number itself begins."""
    if at < end and (data[at] == _MINUS or data[at] == _PLUS):
        return (-1 if data[at] == _MINUS else 1), at + 1
    return 1, at


@lean_leaf
def _number(data: U8, at: int, end: int, place: Place, shape: CsvShape, rows: CsvRows) -> int:
    """Read a number into its place; where it ends, none where it is left aside."""
    sign, at = _sign(data, at, end)
    first = _zeros(data, at, end)
    number, after = _digits(data, first, end, 0)
    is_any, n_digits, exponent, is_whole = after > at, after - first, 0, True
    if after < end and (data[after] == _DOT or data[after] == shape.facts[DECIMAL]):
        at = after + 1
        first = _zeros(data, at, end) if number == 0 else at
        number, after = _digits(data, first, end, number)
        is_any, n_digits = is_any or after > at, n_digits + after - first
        exponent, is_whole = at - after, False
    if not is_any or n_digits > _DIGITS_MAX:
        return _NONE
    if after < end and (data[after] == _E or data[after] == _E_SMALL):
        way, at = _sign(data, after + 1, end)
        power, after = _digits(data, at, end, 0)
        if after <= at or after > at + _POWER_DIGITS_MAX:
            return _NONE
        exponent, is_whole = exponent + way * power, False
    if is_whole and number > _EXACT:
        return _NONE
    row, column = place
    if is_exact(number, exponent):
        rows.floats[row, column] = exact_float(number, exponent)
    else:
        bits = float_bits(number, exponent)
        if bits == UNDECIDED:
            return _NONE
        rows.ints[row, column] = bits
    rows.floats[row, column] *= sign
    rows.marks[row, column] = 0
    return after


@lean_leaf
def _end_of_cell(data: U8, at: int, end: int, delimiter: int) -> int:
    """Where a cell without quotes ends; none where it has one, or a carriage return."""
    while at < end and data[at] != delimiter:
        if data[at] == _QUOTE or data[at] == _CR:
            return _NONE
        at += 1
    return at


@lean_leaf
def _time(data: U8, at: int, end: int, kind: int, shape: CsvShape, row: int, rows: CsvRows) -> int:
    """Read a time: a number as it is, a text in nanoseconds."""
    if kind == TIME_NUMBER:
        sign, at = _sign(data, at, end)
        number, after = _digits(data, at, end, 0)
        rows.ts_ns[row] = sign * number
        return after if at < after <= at + _DIGITS_MAX else _NONE
    after = _end_of_cell(data, at, end, shape.facts[DELIMITER])
    if after == _NONE:
        return _NONE
    rows.ts_ns[row] = time_of_text(data, at, after, kind == TIME_ZONED)
    return after if rows.ts_ns[row] != NO_TIME else _NONE


@lean_leaf
def _cell(data: U8, at: int, end: int, column: int, shape: CsvShape, row: int, rows: CsvRows) -> int:
    """Read one cell; where it ends, none where the line is left aside."""
    kind, delimiter = shape.kinds[column], shape.facts[DELIMITER]
    if kind == SKIPPED:
        return _end_of_cell(data, at, end, delimiter)
    at = _blank(data, at, end, delimiter)
    is_empty = at == end or data[at] == delimiter
    if kind == EMPTY:
        return at if is_empty else _NONE
    if kind == VALUE:
        place = shape.places[column]
        if is_empty:
            rows.floats[row, place], rows.marks[row, place] = 0.0, _ABSENT
            return at
        at = _number(data, at, end, (row, place), shape, rows)
    else:
        at = _time(data, at, end, kind, shape, row, rows)
    return at if at == _NONE else _blank(data, at, end, delimiter)


@lean_leaf
def _row(data: U8, at: int, end: int, shape: CsvShape, row: int, rows: CsvRows) -> bool:
    """Read a line; whether it is plain."""
    for column in range(len(shape.kinds)):
        if column > 0:
            if at >= end or data[at] != shape.facts[DELIMITER]:
                return False
            at += 1
        at = _cell(data, at, end, column, shape, row, rows)
        if at == _NONE:
            return False
    return at == end


@lean_kernel
def scan_rows(
    data: U8, starts: I64, ends: I64, wanted: npt.NDArray[np.bool_], shape: CsvShape, rows: CsvRows
) -> None:
    """Read the lines that are wanted, from ``counts[LINE]`` on, until one is not plain."""
    row, line = 0, rows.counts[LINE]
    while line < len(starts):
        if wanted[line]:
            end = ends[line]
            if end > starts[line] and data[end - 1] == _CR:
                end -= 1
            if not _row(data, starts[line], end, shape, row, rows):
                break
            rows.line[row] = line
            row += 1
        line += 1
    rows.counts[ROWS], rows.counts[LINE] = row, line
