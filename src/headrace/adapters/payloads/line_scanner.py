"""Line protocol in kernels: bytes → columns of lines and values, without a Python object for any of them.

The scanner reads what devices send every second: lines of a series it has seen, with fields it has seen. It knows them
by their bytes, so it compares instead of parsing: after a series' line the one that followed it last time is tried
first, and so for fields. Where it meets anything else (a new series or field, a value of another type, a text with an
escape in it, a mistake) it stops before that line and leaves it to `headrace.adapters.payloads.line_protocol`; what it
does read it reads as that would.

Tables are rows of integers, one row a series and one a (series, field, kind of value), found by hash where the guess
was wrong. Names lie in one arena of bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.decimals import UNDECIDED, exact_float, float_bits, is_exact
from headrace.adapters.payloads.hashed_rows import HASH, N_PROBES_MAX
from headrace.adapters.payloads.line_protocol import FLOAT, INTEGER, TEXT, TRUTH, UNSIGNED
from headrace.adapters.payloads.words import LENGTH_BITS
from headrace.core.kernels import lean_kernel, lean_leaf

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Place = tuple[int, int]

# Columns of the tables: where the name lies in the arena, what followed last time, ...
START, END, NEXT = 0, 1, 2  # and HASH
FIRST, GROUP = 4, 5  # of a series: its first field, its row of slots
OWNER, KIND, TARGET, FIELD = 4, 5, 6, 7  # of a field: its series, kind of value, part and column, number
N_COLUMNS = 8
SERIAL, LAST = 0, 1  # of the state: running number of lines, series of the last one
LINES, ENTRIES, PARTS = 0, 1, 2  # of the counts: lines, values, then values of each part
REFUSED = -1
"""`TARGET` of a field whose kind of value its sensor can't take."""
TEXT_BYTES_MAX = 1_024
PART_BITS = 8

_NONE = -1
_TAB, _LF, _CR, _BLANK, _QUOTE, _HASH, _PLUS, _COMMA, _MINUS, _DOT = 9, 10, 13, 32, 34, 35, 43, 44, 45, 46
_ZERO, _EQUALS, _BACKSLASH = 48, 61, 92
_E, _E_SMALL, _F, _F_SMALL, _T, _T_SMALL, _I, _U = 69, 101, 70, 102, 84, 116, 105, 117
_FULL = (2**63 - 1) // 10 - 1
_I64_MAX = 2**63 - 1
_EXACT = 2**53
_EXPONENT_MAX = 9_999
_WORDS = np.frombuffer(b"rueRUEalseALSE", np.uint8)


class LineTables(NamedTuple):
    """What the scanner knows; rows as the columns above say. ``seen`` is the serial of each field's last line."""

    arena: U8
    series: I64
    fields: I64
    series_buckets: I64
    field_buckets: I64
    seen: I64
    state: I64


class LineColumns(NamedTuple):
    """What the scanner has read: lines (series, time, first value), values (part and column, bits), counts.

    ``ints`` and ``floats`` are the same memory. The bits of a text are where it lies, ``start << 16 | length``.
    """

    series: I64
    ts_ns: I64
    first: I64
    target: I64
    ints: I64
    floats: npt.NDArray[np.float64]
    counts: I64


class PartColumns(NamedTuple):
    """Values of one part: lines that have any, where each line's begin, columns and bits of values."""

    line: I64
    start: I64
    column: npt.NDArray[np.uint16]
    bits: I64


# --- names -------------------------------------------------------------------------------------------


@lean_leaf
def _matches(data: U8, at: int, tables: LineTables, start: int, end: int) -> bool:
    """Whether the name at start:end of the arena stands at `at`, where there are as many bytes at least."""
    n = end - start
    i = 0
    while i < n and data[at + i] == tables.arena[start + i]:
        i += 1
    return i == n


@lean_leaf
def _is_named(data: U8, at: int, end: int, tables: LineTables, rows: I64, row: int) -> bool:
    """Whether the name at at:end is the row's."""
    start, after = int(rows[row, START]), int(rows[row, END])
    return after - start == end - at and _matches(data, at, tables, start, after)


@lean_leaf
def name_hash(data: U8, at: int, end: int, seed: int) -> int:
    """32 bits that depend on every byte of a name (FNV-1a)."""
    value = (2_166_136_261 ^ (seed * 16_777_619)) & 0xFFFFFFFF
    for i in range(at, end):
        value = ((value ^ int(data[i])) * 16_777_619) & 0xFFFFFFFF
    return value ^ (value >> 15)


def field_seed(series: int, kind: int) -> int:
    """What tells the fields of a series, and their kinds, from others of the same name."""
    return (series * 8 + kind) & 0x7FFFFFFF


_field_seed = lean_leaf(field_seed)


@lean_leaf
def _name_end(data: U8, at: int, ends_at_equals: bool) -> int:
    """Where a name ends: at a comma, blank or equals sign without a backslash before it, or a line break."""
    before = 0
    while at < len(data):
        byte = int(data[at])
        is_special = byte in (_COMMA, _BLANK) or (ends_at_equals and byte == _EQUALS)
        if byte == _LF or (is_special and before != _BACKSLASH):
            break
        before = byte
        at += 1
    return at


@lean_leaf
def _is(data: U8, at: int, byte: int) -> bool:
    return at < len(data) and int(data[at]) == byte


@lean_leaf
def _key_end(data: U8, at: int) -> int:
    """Where measurement and tags end, at a blank; none where they are malformed."""
    start = at
    at = _name_end(data, at, False)
    if at == start:
        return _NONE
    while _is(data, at, _COMMA):
        start = at + 1
        at = _name_end(data, start, True)
        if at == start or not _is(data, at, _EQUALS):
            return _NONE
        start = at + 1
        at = _name_end(data, start, True)
        if at == start:
            return _NONE
    return at if _is(data, at, _BLANK) else _NONE


@lean_leaf
def _find_series(data: U8, at: int, tables: LineTables) -> Place:
    """The series of a line and where its key ends; none where it is not known."""
    rows = tables.series
    guess = int(rows[tables.state[LAST], NEXT])
    if guess != _NONE:
        end = at + int(rows[guess, END] - rows[guess, START])
        if _is(data, end, _BLANK) and _matches(
            data, at, tables, int(rows[guess, START]), int(rows[guess, END])
        ):
            return guess, end
    end = _key_end(data, at)
    if end == _NONE:
        return _NONE, at
    hashed = name_hash(data, at, end, 0)
    mask = len(tables.series_buckets) - 1
    for probe in range(N_PROBES_MAX):
        row = int(tables.series_buckets[(hashed + probe) & mask])
        if row == _NONE:
            break
        if rows[row, HASH] == hashed and _is_named(data, at, end, tables, rows, row):
            rows[tables.state[LAST], NEXT] = row
            return row, end
    return _NONE, at


@lean_leaf
def _find_field(data: U8, at: int, end: int, series: int, kind: int, tables: LineTables) -> int:
    """The row of a field by its name and kind of value; none where it is not known."""
    rows = tables.fields
    hashed = name_hash(data, at, end, _field_seed(series, kind))
    mask = len(tables.field_buckets) - 1
    for probe in range(N_PROBES_MAX):
        row = int(tables.field_buckets[(hashed + probe) & mask])
        if row == _NONE:
            break
        if (
            rows[row, HASH] == hashed
            and rows[row, OWNER] == series
            and rows[row, KIND] == kind
            and _is_named(data, at, end, tables, rows, row)
        ):
            return row
    return _NONE


# --- values ------------------------------------------------------------------------------------------


@lean_leaf
def _digits(data: U8, at: int, number: int) -> Place:
    """More digits of a number, and where they end; none where it has too many."""
    while at < len(data):
        digit = int(data[at]) - _ZERO
        if digit < 0 or digit > 9:
            break
        if number > _FULL:
            return number, _NONE
        number = number * 10 + digit
        at += 1
    return number, at


@lean_leaf
def _exponent(data: U8, at: int) -> Place:
    """A signed exponent after its e, and where it ends; none where it is malformed or huge."""
    is_negative = _is(data, at, _MINUS)
    if is_negative or _is(data, at, _PLUS):
        at += 1
    number, end = _digits(data, at, 0)
    if end <= at or number > _EXPONENT_MAX:
        return 0, _NONE
    return (-number if is_negative else number), end


@lean_leaf
def _number(data: U8, at: int, columns: LineColumns, n: int) -> Place:
    """Kind of a number and where it ends."""
    is_negative = _is(data, at, _MINUS)
    is_signed = is_negative or _is(data, at, _PLUS)
    if is_signed:
        at += 1
    number, end = _digits(data, at, 0)
    n_digits, exponent = end - at, 0
    if end == _NONE:
        return _NONE, at
    if n_digits and _is(data, end, _I):
        columns.ints[n] = -number if is_negative else number
        return INTEGER, end + 1
    if n_digits and not is_signed and _is(data, end, _U):
        columns.ints[n] = number
        return UNSIGNED, end + 1
    if _is(data, end, _DOT):
        at = end + 1
        number, end = _digits(data, at, number)
        exponent = at - end
        n_digits -= exponent
        if end == _NONE:
            return _NONE, at
    if not n_digits:
        return _NONE, at
    if _is(data, end, _E_SMALL) or _is(data, end, _E):
        power, end = _exponent(data, end + 1)
        if end == _NONE:
            return _NONE, at
        exponent += power
    if is_exact(number, exponent):
        columns.floats[n] = exact_float(number, exponent)
    else:
        columns.ints[n] = float_bits(number, exponent)
        if columns.ints[n] == UNDECIDED:
            return _NONE, at
    if is_negative:
        columns.floats[n] = -columns.floats[n]
    return FLOAT, end


@lean_leaf
def _has_word(data: U8, at: int, word: int, length: int) -> bool:
    if at + length > len(data):
        return False
    i = 0
    while i < length and data[at + i] == _WORDS[word + i]:
        i += 1
    return i == length


@lean_leaf
def _truth(data: U8, at: int, columns: LineColumns, n: int) -> Place:
    """True or false in one of its spellings: t, T, true, True, TRUE, and f likewise."""
    byte = int(data[at])
    is_true = byte in (_T, _T_SMALL)
    columns.ints[n] = 1 if is_true else 0
    small, large, length = (0, 3, 3) if is_true else (6, 10, 4)
    at += 1
    if _has_word(data, at, small, length) or (byte in (_T, _F) and _has_word(data, at, large, length)):
        at += length
    return TRUTH, at


@lean_leaf
def _text(data: U8, at: int, columns: LineColumns, n: int) -> Place:
    """A text of plain ASCII without an escape; others are left to the reference."""
    start = at + 1
    at = start
    while at < len(data) and at - start <= TEXT_BYTES_MAX:
        byte = int(data[at])
        if byte == _QUOTE:
            columns.ints[n] = (start << LENGTH_BITS) | (at - start)
            return TEXT, at + 1
        if byte == _BACKSLASH or byte == 0 or byte > 127:
            break
        at += 1
    return _NONE, at


@lean_leaf
def _value(data: U8, at: int, columns: LineColumns, n: int) -> Place:
    """Kind of the value at `at` and where it ends; its bits go to row n. No kind: left to the reference."""
    if at >= len(data):
        return _NONE, at
    byte = int(data[at])
    if byte == _QUOTE:
        kind, end = _text(data, at, columns, n)
    elif byte in (_T, _T_SMALL, _F, _F_SMALL):
        kind, end = _truth(data, at, columns, n)
    else:
        kind, end = _number(data, at, columns, n)
    if end < len(data):
        byte = int(data[end])
        if byte != _COMMA and byte != _BLANK and byte != _LF and byte != _CR:
            return _NONE, end
    return kind, end


@lean_leaf
def _fits(kind: int, part: int, columns: LineColumns, n: int) -> bool:
    """Turn a whole number into what its sensor holds; False where that would change it."""
    number = columns.ints[n]
    if part == FLOAT:
        if number > _EXACT or number < -_EXACT:
            return False
        columns.floats[n] = float(number)
        return True
    return part == INTEGER or number >= 0


# --- lines -------------------------------------------------------------------------------------------


@lean_leaf
def _field(data: U8, at: int, series: int, guess: int, tables: LineTables, columns: LineColumns) -> Place:
    """The row of the field at `at`, and where it ends; its value goes behind the others. None: left aside."""
    rows, n = tables.fields, int(columns.counts[ENTRIES])
    if n >= len(columns.ints):
        return _NONE, at
    end = _NONE
    if guess != _NONE:
        end = at + int(rows[guess, END] - rows[guess, START])
        if not (
            _is(data, end, _EQUALS)
            and _matches(data, at, tables, int(rows[guess, START]), int(rows[guess, END]))
        ):
            end = _NONE
    is_guessed = end != _NONE
    if not is_guessed:
        end = _name_end(data, at, True)
        if end == at or not _is(data, end, _EQUALS):
            return _NONE, at
    kind, value_end = _value(data, end + 1, columns, n)
    if kind == _NONE:
        return _NONE, at
    row = guess
    if not is_guessed or rows[guess, KIND] != kind:
        row = _find_field(data, at, end, series, kind, tables)
        if row == _NONE:
            return _NONE, at
    target, number = int(rows[row, TARGET]), int(rows[row, FIELD])
    part = target & 0xFF
    if target == REFUSED or tables.seen[number] == tables.state[SERIAL]:
        return _NONE, at
    if kind != part and not _fits(kind, part, columns, n):
        return _NONE, at
    tables.seen[number] = tables.state[SERIAL]
    columns.target[n] = target
    columns.counts[ENTRIES] = n + 1
    return row, value_end


@lean_leaf
def _line_end(data: U8, at: int) -> int:
    """Where the next line begins, if there is nothing but blanks before it; else none."""
    while _is(data, at, _BLANK):
        at += 1
    if _is(data, at, _CR):
        at += 1
    if at >= len(data):
        return len(data)
    return at + 1 if int(data[at]) == _LF else _NONE


@lean_leaf
def _time(data: U8, at: int, factor: int, columns: LineColumns) -> int:
    """Read the line's time, if it has one; where the next line begins, or none."""
    n = int(columns.counts[LINES])
    end = _line_end(data, at)
    if end != _NONE:
        columns.ts_ns[n] = -_I64_MAX - 1
        return end
    if not _is(data, at, _BLANK):
        return _NONE
    while _is(data, at, _BLANK):
        at += 1
    is_negative = _is(data, at, _MINUS)
    if is_negative or _is(data, at, _PLUS):
        at += 1
    number, end = _digits(data, at, 0)
    if end <= at or number > _I64_MAX // factor:
        return _NONE
    columns.ts_ns[n] = -number * factor if is_negative else number * factor
    return _line_end(data, end)


@lean_leaf
def _line(data: U8, at: int, factor: int, tables: LineTables, columns: LineColumns) -> int:
    """Read a line; where the next begins, or none where it is left aside (its values stay behind the count)."""
    n = int(columns.counts[LINES])
    if n + 1 >= len(columns.first):
        return _NONE
    tables.state[SERIAL] += 1
    series, at = _find_series(data, at, tables)
    if series == _NONE:
        return _NONE
    while _is(data, at, _BLANK):
        at += 1
    before, guess = _NONE, int(tables.series[series, FIRST])
    more = True
    while more:
        row, at = _field(data, at, series, guess, tables, columns)
        if row == _NONE:
            return _NONE
        if row != guess:
            if before == _NONE:
                tables.series[series, FIRST] = row
            else:
                tables.fields[before, NEXT] = row
        before, guess = row, int(tables.fields[row, NEXT])
        more = _is(data, at, _COMMA)
        at += 1 if more else 0
    at = _time(data, at, factor, columns)
    if at != _NONE:
        columns.series[n] = series
        columns.counts[LINES] = n + 1
        columns.first[n + 1] = columns.counts[ENTRIES]
        tables.state[LAST] = series
    return at


@lean_leaf
def _skip_blank(data: U8, at: int) -> int:
    """Where the next line begins that is neither empty nor a comment."""
    is_comment = False
    while at < len(data):
        byte = int(data[at])
        if byte == _LF:
            is_comment = False
        elif byte == _HASH:
            is_comment = True
        elif not is_comment and byte != _BLANK and byte != _TAB and byte != _CR:
            break
        at += 1
    return at


@lean_kernel
def scan(data: U8, at: int, stop: int, factor: int, tables: LineTables, columns: LineColumns) -> Place:
    """Read lines from `at` on, those that begin before `stop`; `columns` grow behind what they hold.

    Returns
    -------
    Where it came to, and whether a line begins there that is left to the reference (else 0).

    Cost: 20 to 50 ns of CPU a value where series and fields come in the order of last time.
    """
    while True:
        at = _skip_blank(data, at)
        if at >= stop:
            return at, 0
        n_entries = columns.counts[ENTRIES]
        end = _line(data, at, factor, tables, columns)
        if end == _NONE:
            columns.counts[ENTRIES] = n_entries
            return at, 1
        for i in range(n_entries, columns.counts[ENTRIES]):
            columns.counts[PARTS + (columns.target[i] & 0xFF)] += 1
        at = end


@lean_kernel
def take_part(part: int, columns: LineColumns, into: PartColumns) -> tuple[int, int, bool]:
    """Gather the values of one part: numbers of lines and values, and whether columns ascend in every line."""
    n_lines = n_values = 0
    is_ordered = True
    for line in range(columns.counts[LINES]):
        begin, before = n_values, -1
        for i in range(columns.first[line], columns.first[line + 1]):
            if columns.target[i] & 0xFF == part:
                column = columns.target[i] >> PART_BITS
                into.column[n_values] = column
                into.bits[n_values] = columns.ints[i]
                is_ordered = is_ordered and column > before
                before = column
                n_values += 1
        if n_values > begin:
            into.line[n_lines] = line
            n_lines += 1
            into.start[n_lines] = n_values
    return n_lines, n_values, is_ordered


@lean_kernel
def hash_name(data: U8, seed: int) -> int:
    """`name_hash` of a whole name."""
    return name_hash(data, 0, len(data), seed)
