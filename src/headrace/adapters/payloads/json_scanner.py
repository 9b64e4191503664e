"""JSON of known shape in kernels: bytes → columns of rows and values, without a Python object for any of them.

What a device sends again and again has the same keys in the same order. Such a *shape* is a way through a tree: each node
is a member (its key as it stands between quotes, what kind of value it has), an object that opens, or one that closes. At
each step the keys that may follow are compared with the bytes, so that nothing is hashed and no key is taken out. A list
of such objects is as many rows; an object whose members are lists of one length is a table, of which each place is a row.

Where anything else comes (a new shape, an escape, a character beyond ASCII in a text, an integer beyond 2^53, a number
that takes ``float`` to round, a mistake) the whole message is left to `headrace.adapters.payloads.json`; what is read here
is read as that would.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.decimals import UNDECIDED, exact_float, float_bits, is_exact
from headrace.adapters.payloads.time_scanner import time_of_text
from headrace.adapters.payloads.words import LENGTH_BITS
from headrace.core.kernels import lean_kernel, lean_leaf

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Place = tuple[int, int]

# Columns of nodes: where the key lies in the arena, kind, first that may follow, next of the same place, shape that ends here.
KEY, KEY_END, KIND, CHILD, SIBLING, SHAPE = 0, 1, 2, 3, 4, 5
N_COLUMNS = 6
NUMBER, TRUTH, TEXT, NOTHING, OPEN, CLOSE, NUMBERS, TIME = 0, 1, 2, 3, 4, 5, 6, 8
"""Kinds of members; `TIME` is added to that of a time: a number, a text, or a list of numbers."""
DEPTH_MAX = 16
TEXT_BYTES_MAX = 1_024
ROWS, VALUES, LEFT, OTHERS, UNTIMED = 0, 1, 2, 3, 4
"""Counts: rows, values, messages not read, rows of another shape than the first, rows without a time."""
N_COUNTS = 5
FACTOR, HAS_TIME, N_ROOT = 0, 1, 2
N_FACTS = 3

_NONE = -1
_NO_TIME = -(2**63)
_TAB, _LF, _CR, _BLANK, _QUOTE, _COMMA, _MINUS, _DOT = 9, 10, 13, 32, 34, 44, 45, 46
_PLUS, _ZERO, _COLON, _LIST, _LIST_END, _BACKSLASH, _OBJECT, _OBJECT_END = 43, 48, 58, 91, 93, 92, 123, 125
_E, _E_SMALL, _F_SMALL, _N_SMALL, _T_SMALL = 69, 101, 102, 110, 116
_FULL = (2**63 - 1) // 10 - 1
_EXACT = 2**53
_EXPONENT_MAX = 9_999
_NS = 1_000_000_000
_TIME_MAX = 9.2e18
_WORDS = np.frombuffer(b"truefalsenull", np.uint8)


class JsonTables(NamedTuple):
    """What the scanner knows: keys, nodes (rows as the columns above say), keys to the root and of the time in front.

    ``facts`` are nanoseconds of a unit of time (0: by its size), whether rows have a time, how many keys lead to the
    root; ``front`` where these keys lie in the arena, and behind them that of the time.
    """

    arena: U8
    nodes: I64
    facts: I64
    front: I64


class JsonColumns(NamedTuple):
    """What the scanner has read: rows (message, shape, time, first value, step from value to value), values, counts.

    ``rows`` has the five columns that follow it, in one array; ``ints`` and ``floats`` are the same memory. The bits of a
    text are where it lies, ``start << 16 | length``.
    """

    rows: I64
    message: I64
    shape: I64
    ts_ns: I64
    first: I64
    step: I64
    ints: I64
    floats: npt.NDArray[np.float64]
    counts: I64


@lean_leaf
def _blank(data: U8, at: int, end: int) -> int:
    """Where something begins that is no white space."""
    while at < end and (data[at] == _BLANK or data[at] == _LF or data[at] == _CR or data[at] == _TAB):
        at += 1
    return at


@lean_leaf
def _is(data: U8, at: int, end: int, byte: int) -> bool:
    return at < end and data[at] == byte


# --- values ------------------------------------------------------------------------------------------


@lean_leaf
def _digits(data: U8, at: int, end: int, number: int) -> Place:
    """More digits of a number, and where they end; none where it has too many."""
    while at < end:
        digit = int(np.int64(data[at])) - _ZERO
        if digit < 0 or digit > 9:
            break
        if number > _FULL:
            return number, _NONE
        number = number * 10 + digit
        at += 1
    return number, at


@lean_leaf
def _number(data: U8, at: int, end: int, n: int, columns: JsonColumns) -> tuple[int, bool]:
    """Read a number into place n; where it ends, and whether it is whole. None: left aside."""
    start = at
    is_negative = _is(data, at, end, _MINUS)
    if is_negative:
        at += 1
    number, after = _digits(data, at, end, 0)
    if after <= at or (data[at] == _ZERO and after > at + 1):
        return _NONE, False
    exponent, is_whole = 0, True
    if _is(data, after, end, _DOT):
        at = after + 1
        number, after = _digits(data, at, end, number)
        if after <= at:
            return _NONE, False
        exponent, is_whole = at - after, False
    if _is(data, after, end, _E) or _is(data, after, end, _E_SMALL):
        at = after + 1
        sign = 1
        if _is(data, at, end, _MINUS) or _is(data, at, end, _PLUS):
            sign = -1 if data[at] == _MINUS else 1
            at += 1
        power, after = _digits(data, at, end, 0)
        if after <= at or power > _EXPONENT_MAX:
            return _NONE, False
        exponent, is_whole = exponent + sign * power, False
    if n >= len(columns.floats) or (is_whole and number > _EXACT) or start > end:
        return _NONE, False
    if is_exact(number, exponent):
        columns.floats[n] = exact_float(number, exponent)
    else:
        columns.ints[n] = float_bits(number, exponent)
        if columns.ints[n] == UNDECIDED:
            return _NONE, False
    if is_negative and not (is_whole and number == 0):
        columns.floats[n] = -columns.floats[n]
    return after, is_whole


@lean_leaf
def _word(data: U8, at: int, end: int, word: int, length: int) -> int:
    """Where true, false or null ends; none where it is another word."""
    if at + length > end:
        return _NONE
    for i in range(length):
        if data[at + i] != _WORDS[word + i]:
            return _NONE
    return at + length


@lean_leaf
def _text(data: U8, at: int, end: int) -> int:
    """Where a text of printable ASCII without an escape ends, behind its quote; none where it is left aside."""
    start = at + 1
    at = start
    while at < end and at - start <= TEXT_BYTES_MAX:
        byte = data[at]
        if byte == _QUOTE:
            return at + 1
        if byte == _BACKSLASH or byte < _BLANK or byte > 126:
            return _NONE
        at += 1
    return _NONE


# --- times -------------------------------------------------------------------------------------------


@lean_leaf
def _time_of_number(value: float, is_whole: bool, factor: int) -> int:
    """Nanoseconds of a time given as a number; none there is where it is out of bounds."""
    if factor == 0:
        size = abs(value)
        factor = _NS if size < 1e11 else 1_000_000 if size < 1e14 else 1_000 if size < 1e17 else 1
    if not abs(value) * factor < _TIME_MAX:
        return _NO_TIME
    whole = np.int64(value)
    if is_whole:
        return int(whole * factor)
    return int(whole * factor + np.int64(np.rint((value - whole) * factor)))


# --- rows --------------------------------------------------------------------------------------------


@lean_leaf
def _is_key(data: U8, at: int, end: int, tables: JsonTables, start: int, after: int) -> bool:
    """Whether the key at start:after of the arena stands between quotes at `at`."""
    n = after - start
    if at + n + 2 > end or data[at] != _QUOTE or data[at + n + 1] != _QUOTE:
        return False
    i = 0
    while i < n and data[at + 1 + i] == tables.arena[start + i]:
        i += 1
    return i == n


@lean_leaf
def _kind_at(data: U8, at: int, end: int) -> int:
    """What kind of value begins at `at`; none for what no row has."""
    if at >= end:
        return _NONE
    byte = data[at]
    if byte == _QUOTE:
        return TEXT
    if byte == _MINUS or (byte >= _ZERO and byte <= _ZERO + 9):
        return NUMBER
    if byte in (_T_SMALL, _F_SMALL):
        return TRUTH
    if byte == _N_SMALL:
        return NOTHING
    if byte == _OBJECT:
        return OPEN
    return NUMBERS if byte == _LIST else _NONE


@lean_leaf
def _member(data: U8, at: int, end: int, node: int, tables: JsonTables) -> Place:
    """The node of the member that begins at `at` and may follow `node`, and where its value begins; or none."""
    nodes = tables.nodes
    child = int(nodes[node, CHILD])
    while child != _NONE:
        if nodes[child, KIND] != CLOSE and _is_key(
            data, at, end, tables, int(nodes[child, KEY]), int(nodes[child, KEY_END])
        ):
            break
        child = int(nodes[child, SIBLING])
    if child == _NONE:
        return _NONE, at
    key = int(nodes[child, KEY])
    at = _blank(data, at + 2 + int(nodes[child, KEY_END]) - key, end)
    if not _is(data, at, end, _COLON):
        return _NONE, at
    at = _blank(data, at + 1, end)
    kind = _kind_at(data, at, end)
    while child != _NONE:
        if nodes[child, KEY] == key and nodes[child, KIND] & 7 == kind:
            return child, at
        child = int(nodes[child, SIBLING])
    return _NONE, at


@lean_leaf
def _list(
    data: U8, at: int, end: int, is_time: bool, row: int, tables: JsonTables, columns: JsonColumns
) -> Place:
    """Read a list of numbers, or of times into rows from `row` on: how many, and where it ends; none: left aside."""
    n, count = int(columns.counts[VALUES]), 0
    at = _blank(data, at + 1, end)
    while True:
        if is_time and row + count >= len(columns.ts_ns):
            return 0, _NONE
        after, is_whole = _number(data, at, end, n, columns)
        if after == _NONE:
            return 0, _NONE
        if is_time:
            columns.ts_ns[row + count] = _time_of_number(
                columns.floats[n], is_whole, int(tables.facts[FACTOR])
            )
            if columns.ts_ns[row + count] == _NO_TIME:
                return 0, _NONE
        else:
            n += 1
        count += 1
        at = _blank(data, after, end)
        if _is(data, at, end, _LIST_END):
            break
        if not _is(data, at, end, _COMMA):
            return 0, _NONE
        at = _blank(data, at + 1, end)
    columns.counts[VALUES] = n
    return count, at + 1


@lean_leaf
def _value(data: U8, at: int, end: int, kind: int, row: int, tables: JsonTables, columns: JsonColumns) -> int:
    """Read the value of a member: where it ends, or none where it is left aside."""
    n = int(columns.counts[VALUES])
    if n >= len(columns.ints):
        return _NONE
    plain = kind & 7
    if plain == NUMBER:
        after, is_whole = _number(data, at, end, n, columns)
        if kind == NUMBER:
            columns.counts[VALUES] = n + 1
        elif after != _NONE:
            columns.ts_ns[row] = _time_of_number(columns.floats[n], is_whole, int(tables.facts[FACTOR]))
            after = _NONE if columns.ts_ns[row] == _NO_TIME else after
        return after
    if plain == TEXT:
        after = _text(data, at, end)
        if after == _NONE:
            return _NONE
        if kind == TEXT:
            columns.ints[n] = (np.int64(at + 1) << LENGTH_BITS) | (after - at - 2)
            columns.counts[VALUES] = n + 1
            return after
        columns.ts_ns[row] = time_of_text(data, at + 1, after - 1, True)
        return _NONE if columns.ts_ns[row] == _NO_TIME else after
    if plain == TRUTH:
        is_true = data[at] == _T_SMALL
        columns.ints[n] = 1 if is_true else 0
        columns.counts[VALUES] = n + 1
        return _word(data, at, end, 0, 4) if is_true else _word(data, at, end, 4, 5)
    return _word(data, at, end, 9, 4)


@lean_leaf
def _row(data: U8, at: int, end: int, tables: JsonTables, columns: JsonColumns) -> int:
    """Read an object as a row, or as many where it is a table: where it ends, or none where it is left aside."""
    row = int(columns.counts[ROWS])
    if row >= len(columns.ts_ns):
        return _NONE
    first = int(columns.counts[VALUES])
    columns.ts_ns[row] = _NO_TIME
    node, depth, length, is_first = 0, 0, _NONE, True
    at = _blank(data, at + 1, end)
    while True:
        if _is(data, at, end, _OBJECT_END):
            if depth == 0:
                break
            child = int(tables.nodes[node, CHILD])
            while child != _NONE and tables.nodes[child, KIND] != CLOSE:
                child = int(tables.nodes[child, SIBLING])
            if child == _NONE:
                return _NONE
            node, depth, is_first = child, depth - 1, False
            at = _blank(data, at + 1, end)
            continue
        if not is_first:
            if not _is(data, at, end, _COMMA):
                return _NONE
            at = _blank(data, at + 1, end)
        child, at = _member(data, at, end, node, tables)
        if child == _NONE:
            return _NONE
        node, kind = child, int(tables.nodes[child, KIND])
        is_first = kind == OPEN
        if kind == OPEN:
            depth += 1
            at = _blank(data, at + 1, end)
            continue
        if kind & 7 == NUMBERS:
            count, at = _list(data, at, end, kind >= TIME, row, tables, columns)
            if at == _NONE or (length != _NONE and count != length):
                return _NONE
            length = count
        else:
            at = _value(data, at, end, kind, row, tables, columns)
        if at == _NONE:
            return _NONE
        at = _blank(data, at, end)
    shape = tables.nodes[node, SHAPE]
    if shape == _NONE:
        return _NONE
    n_rows = 1 if length == _NONE else length
    for i in range(n_rows):
        columns.shape[row + i] = shape
        columns.first[row + i] = first + i
        columns.step[row + i] = n_rows
    columns.counts[ROWS] = row + n_rows
    return at + 1


@lean_leaf
def _rows(data: U8, at: int, end: int, tables: JsonTables, columns: JsonColumns) -> int:
    """Read an object, or a list of them."""
    if _is(data, at, end, _OBJECT):
        return _row(data, at, end, tables, columns)
    if not _is(data, at, end, _LIST):
        return _NONE
    while True:
        at = _blank(data, at + 1, end)
        if not _is(data, at, end, _OBJECT):
            return _NONE
        at = _row(data, at, end, tables, columns)
        if at == _NONE:
            return _NONE
        at = _blank(data, at, end)
        if _is(data, at, end, _LIST_END):
            return at + 1
        if not _is(data, at, end, _COMMA):
            return _NONE


@lean_leaf
def _other(data: U8, at: int, end: int, columns: JsonColumns) -> int:
    """Pass over a plain value; none where it is left aside."""
    kind = _kind_at(data, at, end)
    if kind == NUMBER:
        after, _ = _number(data, at, end, int(columns.counts[VALUES]), columns)
        return after
    if kind == TEXT:
        return _text(data, at, end)
    if kind == TRUTH:
        return _word(data, at, end, 0, 4) if data[at] == _T_SMALL else _word(data, at, end, 4, 5)
    return _word(data, at, end, 9, 4) if kind == NOTHING else _NONE


@lean_leaf
def _front(data: U8, at: int, end: int, tables: JsonTables, columns: JsonColumns) -> int:
    """Read what lies at the root, in an object with other plain members, and the time that stands beside it."""
    n_root = int(tables.facts[N_ROOT])
    has_rows = has_time = False
    before, level, is_first = int(columns.counts[ROWS]), 0, True
    ts_ns = _NO_TIME
    if not _is(data, at, end, _OBJECT):
        return _NONE
    at = _blank(data, at + 1, end)
    while True:
        if _is(data, at, end, _OBJECT_END):
            at += 1
            if level == 0:
                break
            level -= 1
            is_first = False
            at = _blank(data, at, end)
            continue
        if not is_first:
            if not _is(data, at, end, _COMMA):
                return _NONE
            at = _blank(data, at + 1, end)
        is_first = False
        start = at
        at = _text(data, at, end) if _is(data, at, end, _QUOTE) else _NONE
        if at == _NONE:
            return _NONE
        is_time = (
            level == 0 and tables.facts[HAS_TIME] == 1
            and _is_key(data, start, end, tables, int(tables.front[n_root, 0]), int(tables.front[n_root, 1]))
        )  # fmt: skip
        is_root = level < n_root and _is_key(
            data, start, end, tables, int(tables.front[level, 0]), int(tables.front[level, 1])
        )
        at = _blank(data, at, end)
        if not _is(data, at, end, _COLON):
            return _NONE
        at = _blank(data, at + 1, end)
        if is_root:
            if has_rows:
                return _NONE
            if level < n_root - 1:
                if not _is(data, at, end, _OBJECT):
                    return _NONE
                level += 1
                is_first = True
                at = _blank(data, at + 1, end)
                continue
            has_rows = True
            at = _rows(data, at, end, tables, columns)
        elif is_time:
            kind, row = _kind_at(data, at, end), int(columns.counts[ROWS])
            if has_time or row >= len(columns.ts_ns) or (kind != NUMBER and kind != TEXT):
                return _NONE
            has_time = True
            at = _value(data, at, end, kind | TIME, row, tables, columns)
            ts_ns = columns.ts_ns[row]
        else:
            at = _other(data, at, end, columns)
        if at == _NONE:
            return _NONE
        at = _blank(data, at, end)
    if not has_rows:
        return _NONE
    if has_time:
        for row in range(before, columns.counts[ROWS]):
            if columns.ts_ns[row] == _NO_TIME:
                columns.ts_ns[row] = ts_ns
    return at


@lean_kernel
def scan(data: U8, lengths: I64, tables: JsonTables, columns: JsonColumns, is_read: U8) -> None:
    """Read messages, which lie one behind the other; ``is_read[i]`` says whether message i was read.

    Cost: 30 to 60 ns of CPU a value.
    """
    columns.counts[:] = 0
    end = 0
    for i in range(len(lengths)):
        n_rows, n_values = columns.counts[ROWS], columns.counts[VALUES]
        begin = end
        end = begin + int(lengths[i])
        at = _blank(data, begin, end)
        if tables.facts[N_ROOT]:
            at = _front(data, at, end, tables, columns)
        else:
            at = _rows(data, at, end, tables, columns)
        if at == _NONE or _blank(data, at, end) != end:
            columns.counts[ROWS] = n_rows
            columns.counts[VALUES] = n_values
            columns.counts[LEFT] += 1
            is_read[i] = 0
            continue
        is_read[i] = 1
        for row in range(n_rows, columns.counts[ROWS]):
            columns.message[row] = i
            columns.counts[OTHERS] += columns.shape[row] != columns.shape[0]
            columns.counts[UNTIMED] += columns.ts_ns[row] == _NO_TIME
