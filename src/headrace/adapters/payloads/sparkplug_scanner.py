"""Data of Sparkplug B in kernels: bytes of many messages → columns of values, without a Python object for any of them.

The scanner reads what nodes send every second: values of metrics that a birth has named, by alias or by name. After a
metric the one that followed it last time is tried first. Where it meets anything else (an unknown metric, a value of
another type, a template, a text that is not plain ASCII, a mistake) it stops before that message and leaves it to
`headrace.adapters.payloads.sparkplug`; what it does read it reads as that would.

A *space* is what gives aliases their meaning: a node, or a device of one. Metrics are rows of integers, found by hash
where the guess was wrong. Names lie in one arena of bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.hashed_rows import N_PROBES_MAX
from headrace.adapters.payloads.words import LENGTH_BITS, TEXT_MAX
from headrace.core.kernels import lean_kernel, lean_leaf

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Place = tuple[int, int]
Read = tuple[int, int, int, int, int, int, int]
"""Of a metric: its time, type, whether it is transient, whether null, its quality, field of its value, bits."""

# Columns of the table of metrics.
SPACE, ALIAS, START, END, HASH, NEXT, KIND, TARGET, GROUP = range(9)
N_COLUMNS = 9
FIRST_BYTE, END_BYTE, OWNER = range(3)  # of a message: where it lies, its space
ENTRIES, TRANSIENT = range(2)  # of the counts
REFUSED, SKIPPED = -1, -2
"""`TARGET` of a metric that is left to the reference, and of one that is passed over."""
NO_ALIAS = -(2**63)
NO_TIME_MS = -(2**63)
PART_BITS = 8
TIME_MS_MAX = (2**63 - 1) // 1_000_000
BAD, UNCERTAIN, STALE = 0x80, 0x40, 0x42

_NONE = -1
_SIGN = -(2**63)
_2_32, _2_31 = 2**32, 2**31
# First bytes of fields: number and wire type.
_TIME, _METRIC, _SEQ = 0x08, 0x12, 0x18
_NAME, _ALIAS, _METRIC_TIME, _DATATYPE = 0x0A, 0x10, 0x18, 0x20
_HISTORICAL, _TRANSIENT, _NULL, _PROPERTIES = 0x28, 0x30, 0x38, 0x4A
_INT, _LONG, _FLOAT, _DOUBLE, _TRUTH, _TEXT = 0x50, 0x58, 0x65, 0x69, 0x70, 0x7A
_QUALITY = np.frombuffer(b"\x0a\x07Quality\x12", np.uint8)
_KIND_TYPE, _KIND_INT, _KIND_LONG = 0x08, 0x18, 0x20
_NAN_32, _NAN_64 = 0x7FC00000, 0x7FF8000000000000
_PART_F32, _PART_F64 = 8, 9


class NodeMetricTables(NamedTuple):
    """What the scanner knows; ``first`` is the first metric of each space's last message."""

    arena: U8
    rows: I64
    alias_buckets: I64
    name_buckets: I64
    first: I64


class MetricColumns(NamedTuple):
    """What was read: of each value its message, metric, part and column, time, bits and quality; counts.

    The bits of a text are where it lies, ``start << 16 | length``; those of a float of 32 bits are the low half.
    """

    message: I64
    metric: I64
    target: I64
    ts_ms: I64
    bits: I64
    quality: U8
    counts: I64


class MetricParts(NamedTuple):
    """Values of one part: message, group and first value of each frame; column, place of each value."""

    message: I64
    group: I64
    start: I64
    column: npt.NDArray[np.uint16]
    at: I64


# --- the wire ----------------------------------------------------------------------------------------


@lean_leaf
def _varint(data: U8, at: int, end: int) -> Place:
    """The bits of an integer, and where it ends; none where it is malformed."""
    value, shift = 0, 0
    while at < end and shift < 63:
        byte = int(data[at])
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    if at < end and int(data[at]) < 0x80:
        return (value + _SIGN if int(data[at]) & 1 else value), at + 1
    return 0, _NONE


@lean_leaf
def _fixed(data: U8, at: int, n: int) -> int:
    """The bits of a number of 4 or 8 bytes."""
    value = 0
    for i in range(n - 1):
        value |= int(data[at + i]) << (8 * i)
    top = int(data[at + n - 1])
    if n == 8:
        value |= (top & 0x7F) << 56
        return value + _SIGN if top & 0x80 else value
    return value | top << 24


@lean_leaf
def _quality(data: U8, at: int, end: int) -> int:
    """The quality that properties give where they are nothing else; none where they are left aside."""
    if end - at < len(_QUALITY) + 1:
        return _NONE
    for i in range(len(_QUALITY)):
        if data[at + i] != _QUALITY[i]:
            return _NONE
    at += len(_QUALITY)
    if int(data[at]) != end - at - 1 or end - at > 0x80:
        return _NONE
    at += 1
    code = _NONE
    while at < end:
        field = int(data[at])
        value, at = _varint(data, at + 1, end)
        if at == _NONE or field not in (_KIND_TYPE, _KIND_INT, _KIND_LONG) or value < 0:
            return _NONE
        if field != _KIND_TYPE:
            code = value & 0xFFFFFFFF if field == _KIND_INT else value
    if code == 500:
        return STALE
    if code < 0:
        return _NONE
    kind = code & 0xC0 if code < 256 else 0
    return 0 if kind == 0xC0 else UNCERTAIN if kind == 0x40 else BAD


# --- metrics -----------------------------------------------------------------------------------------


@lean_leaf
def name_hash(data: U8, at: int, end: int, space: int) -> int:
    """32 bits that depend on the space and every byte of a name (FNV-1a)."""
    value = (2_166_136_261 ^ (space * 16_777_619)) & 0xFFFFFFFF
    for i in range(at, end):
        value = ((value ^ int(data[i])) * 16_777_619) & 0xFFFFFFFF
    return value ^ (value >> 15)


@lean_leaf
def alias_hash(alias: int, space: int) -> int:
    """32 bits that depend on the space and an alias, spread: aliases that follow each other would crowd in one place."""
    value = ((alias & 0xFFFFFFFF) * 0x9E3779B1 + space * 0x85EBCA77) & 0xFFFFFFFF
    value = ((value ^ (value >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    return value ^ (value >> 12)


@lean_leaf
def _is_named(data: U8, at: int, end: int, tables: NodeMetricTables, row: int) -> bool:
    start = int(tables.rows[row, START])
    n = end - at
    if int(tables.rows[row, END]) - start != n:
        return False
    i = 0
    while i < n and data[at + i] == tables.arena[start + i]:
        i += 1
    return i == n


@lean_leaf
def _find_alias(alias: int, space: int, guess: int, tables: NodeMetricTables) -> int:
    """The row of a metric by its alias; none where it is not known."""
    rows = tables.rows
    if guess != _NONE and rows[guess, ALIAS] == alias and rows[guess, SPACE] == space:
        return guess
    mask = len(tables.alias_buckets) - 1
    hashed = alias_hash(alias, space)
    for probe in range(N_PROBES_MAX):
        row = int(tables.alias_buckets[(hashed + probe) & mask])
        if row == _NONE:
            break
        if rows[row, ALIAS] == alias and rows[row, SPACE] == space:
            return row
    return _NONE


@lean_leaf
def _find_name(data: U8, at: int, end: int, space: int, guess: int, tables: NodeMetricTables) -> int:
    """The row of a metric by its name; none where it is not known."""
    rows = tables.rows
    if guess != _NONE and rows[guess, SPACE] == space and _is_named(data, at, end, tables, guess):
        return guess
    mask = len(tables.name_buckets) - 1
    hashed = name_hash(data, at, end, space)
    for probe in range(N_PROBES_MAX):
        row = int(tables.name_buckets[(hashed + probe) & mask])
        if row == _NONE:
            break
        if rows[row, HASH] == hashed and rows[row, SPACE] == space and _is_named(data, at, end, tables, row):
            return row
    return _NONE


@lean_leaf
def _is_plain(data: U8, at: int, end: int) -> bool:
    """Whether a text is ASCII without a NUL, and not too long."""
    if end - at > TEXT_MAX:
        return False
    i = at
    while i < end and 0 < int(data[i]) < 0x80:
        i += 1
    return i == end


@lean_leaf
def _integer(bits: int, field: int, kind: int) -> Place:
    """An integer by its type (1 to 8, 13), and whether it is one of that type: 1 or 0."""
    if field not in (_INT, _LONG):
        return 0, 0
    if kind in (4, 8, 13):
        return bits, 1
    if kind > 4:
        return bits, 1 if 0 <= bits < (1 << (8 << (kind - 5))) else 0
    half = 1 << ((8 << (kind - 1)) - 1)
    if half <= bits < 2 * half:
        bits -= 2 * half
    elif field == _INT and bits >= _2_31:
        bits -= _2_32
    return bits, 1 if -half <= bits < half else 0


@lean_leaf
def _value(data: U8, bits: int, field: int, kind: int) -> Place:
    """The bits of a value by its type, and whether it is one of that type: 1 or 0."""
    if kind <= 8 or kind == 13:
        return _integer(bits, field, kind)
    if kind == 9:
        return bits, 1 if field == _FLOAT else 0
    if kind == 10:
        return bits, 1 if field == _DOUBLE else 0
    if kind == 11:
        return (1 if bits != 0 else 0), 1 if field == _TRUTH else 0
    if field != _TEXT:
        return 0, 0
    start = bits >> LENGTH_BITS
    return bits, 1 if _is_plain(data, start, start + (bits & 0xFFFF)) else 0


@lean_leaf
def null_bits(part: int) -> int:
    """The bits of a value that is none: not a number, zero, or an empty text."""
    if part == _PART_F32:
        return _NAN_32
    return _NAN_64 if part == _PART_F64 else 0


@lean_leaf
def _put(origin: Place, target: int, ts_ms: int, bits: int, quality: int, columns: MetricColumns) -> None:
    n = columns.counts[ENTRIES]
    columns.message[n], columns.metric[n] = origin
    columns.target[n] = target
    columns.ts_ms[n] = ts_ms
    columns.bits[n] = bits
    columns.quality[n] = quality
    columns.counts[ENTRIES] = n + 1


@lean_leaf
def _take(
    data: U8, row: int, read: Read, message: int, tables: NodeMetricTables, columns: MetricColumns, takes: int
) -> int:
    """Take a value for a known metric; its row, or none where it is left aside."""
    ts_ms, datatype, is_transient, is_null, quality, field, bits = read
    kind, target = int(tables.rows[row, KIND]), int(tables.rows[row, TARGET])
    if target == SKIPPED:
        return row
    if target == REFUSED or (datatype != _NONE and datatype != kind):
        return _NONE
    if is_transient and not takes:
        columns.counts[TRANSIENT] += 1
        return row
    if is_null:
        bits, quality = null_bits(target & 0xFF), BAD
    else:
        bits, is_good = _value(data, bits, field, kind)
        if not is_good:
            return _NONE
    _put((message, row), target, ts_ms, bits, quality, columns)
    return row


@lean_leaf
def _metric(
    data: U8,
    place: Place,
    owner: Place,
    guess: int,
    tables: NodeMetricTables,
    columns: MetricColumns,
    takes: int,
) -> int:
    """Read a metric; its row, or none where its message is left aside."""
    at, end = place
    message, space = owner
    name, name_end, alias, has_alias, ts_ms, datatype = _NONE, _NONE, 0, False, NO_TIME_MS, _NONE
    is_transient, is_null, quality, field, bits = 0, 0, 0, 0, 0
    while at < end:
        byte = int(data[at])
        at += 1
        if byte in (_FLOAT, _DOUBLE):
            size = 4 if byte == _FLOAT else 8
            if end - at < size:
                return _NONE
            field, bits = byte, _fixed(data, at, size)
            at += size
            continue
        value, at = _varint(data, at, end)
        if at == _NONE:
            return _NONE
        if byte == _ALIAS:
            alias, has_alias = value, True
            if value == NO_ALIAS:
                return _NONE
        elif byte == _METRIC_TIME:
            ts_ms = value
            if value < 0 or value > TIME_MS_MAX:
                return _NONE
        elif byte == _INT:
            field, bits = byte, value & 0xFFFFFFFF
        elif byte in (_LONG, _TRUTH):
            field, bits = byte, value
        elif byte == _DATATYPE:
            datatype = value & 0xFFFFFFFF
        elif byte == _TRANSIENT:
            is_transient = 1 if value != 0 else 0
        elif byte == _NULL:
            is_null = 1 if value != 0 else 0
        elif byte in (_NAME, _TEXT, _PROPERTIES):
            if value < 0 or value > end - at or value > 0xFFFF:
                return _NONE
            if byte == _NAME:
                name, name_end = at, at + value
            elif byte == _TEXT:
                field, bits = byte, at << LENGTH_BITS | value
            else:
                quality = _quality(data, at, at + value)
                if quality == _NONE:
                    return _NONE
            at += value
        elif byte != _HISTORICAL:
            return _NONE
    if name != _NONE:
        row = _find_name(data, name, name_end, space, guess, tables)
    elif has_alias:
        row = _find_alias(alias, space, guess, tables)
    else:
        return _NONE
    if row == _NONE:
        return _NONE
    read = (ts_ms, datatype, is_transient, is_null, quality, field, bits)
    return _take(data, row, read, message, tables, columns, takes)


@lean_leaf
def _message(
    data: U8, number: int, messages: I64, tables: NodeMetricTables, columns: MetricColumns, takes: int
) -> bool:
    """Read a message; False where it is left aside (its values stay behind the counts)."""
    at, end, space = (
        int(messages[number, FIRST_BYTE]),
        int(messages[number, END_BYTE]),
        int(messages[number, OWNER]),
    )
    n_before = int(columns.counts[ENTRIES])
    ts_ms, before, guess = NO_TIME_MS, _NONE, int(tables.first[space])
    while at < end:
        byte = int(data[at])
        value, at = _varint(data, at + 1, end)
        if at == _NONE:
            return False
        if byte == _METRIC:
            if value < 0 or value > end - at:
                return False
            row = _metric(data, (at, at + value), (number, space), guess, tables, columns, takes)
            if row == _NONE:
                return False
            if row != guess:
                if before == _NONE:
                    tables.first[space] = row
                else:
                    tables.rows[before, NEXT] = row
            before, guess = row, int(tables.rows[row, NEXT])
            at += value
        elif byte == _TIME:
            ts_ms = value
            if value < 0 or value > TIME_MS_MAX:
                return False
        elif byte != _SEQ:
            return False
    for i in range(n_before, columns.counts[ENTRIES]):
        if columns.ts_ms[i] == NO_TIME_MS:
            columns.ts_ms[i] = ts_ms
    return True


@lean_kernel
def scan(
    data: U8,
    first: int,
    last: int,
    messages: I64,
    tables: NodeMetricTables,
    columns: MetricColumns,
    takes: int,
) -> Place:
    """Read messages first:last; `columns` grow behind what they hold, and have room for all.

    Parameters
    ----------
    takes : whether transient values are taken: 1 or 0; else they are counted.

    Returns
    -------
    Which message it came to, and whether that is left to the reference (else 0).

    Cost: 25 to 60 ns of CPU a value where metrics come in the order of last time.
    """
    for number in range(first, last):
        n_entries, n_transient = columns.counts[ENTRIES], columns.counts[TRANSIENT]
        if not _message(data, number, messages, tables, columns, takes):
            columns.counts[ENTRIES] = n_entries
            columns.counts[TRANSIENT] = n_transient
            return number, 1
    return last, 0


@lean_kernel
def take_part(
    part: int, rows: I64, columns: MetricColumns, into: MetricParts
) -> tuple[int, int, bool, bool, bool]:
    """Gather the values of one part: numbers of frames and values; whether columns ascend in every frame.

    Also whether any value has another time than its frame's first, and whether any is not good.
    """
    n_frames = n_values = 0
    message, group, before, frame_ms = -1, -1, -1, 0
    is_ordered, has_times, has_quality = True, False, False
    for i in range(columns.counts[ENTRIES]):
        metric = columns.metric[i]
        target = columns.target[i]
        if target & 0xFF != part:
            continue
        if columns.message[i] != message or rows[metric, GROUP] != group:
            message, group, before, frame_ms = columns.message[i], rows[metric, GROUP], -1, columns.ts_ms[i]
            into.message[n_frames], into.group[n_frames], into.start[n_frames] = message, group, n_values
            n_frames += 1
        column = target >> PART_BITS
        into.column[n_values] = column
        into.at[n_values] = i
        is_ordered = is_ordered and column > before
        has_times = has_times or columns.ts_ms[i] != frame_ms
        has_quality = has_quality or columns.quality[i] != 0
        before = column
        n_values += 1
    into.start[n_frames] = n_values
    return n_frames, n_values, is_ordered, has_times, has_quality


@lean_kernel
def insert(tables: NodeMetricTables, first: int, last: int) -> None:
    """Make rows first:last findable; one that finds no place nearby is left to the reference."""
    for row in range(first, last):
        hashed = int(tables.rows[row, HASH])
        mask = len(tables.name_buckets) - 1
        for probe in range(N_PROBES_MAX):
            at = (hashed + probe) & mask
            if tables.name_buckets[at] == _NONE:
                tables.name_buckets[at] = row
                break
        if tables.rows[row, ALIAS] == NO_ALIAS:
            continue
        hashed = alias_hash(tables.rows[row, ALIAS], tables.rows[row, SPACE])
        for probe in range(N_PROBES_MAX):
            at = (hashed + probe) & mask
            if tables.alias_buckets[at] == _NONE:
                tables.alias_buckets[at] = row
                break


@lean_kernel
def hash_names(arena: U8, rows: I64, first: int, last: int) -> None:
    """Fill in the hashes of rows first:last."""
    for row in range(first, last):
        rows[row, HASH] = name_hash(arena, rows[row, START], rows[row, END], rows[row, SPACE])


@lean_leaf
def sequence_at(data: U8, at: int, end: int) -> int:
    """The sequence number of a payload; none (-1) where it has none or is malformed."""
    found = _NONE
    while at < end:
        byte = int(data[at])
        value, at = _varint(data, at + 1, end)
        if at == _NONE:
            return _NONE
        if byte == _METRIC:
            if value < 0 or value > end - at:
                return _NONE
            at += value
        elif byte == _SEQ:
            found = value
        elif byte != _TIME:
            return _NONE
    return found


@lean_kernel
def sequence_of(data: U8) -> int:
    """The sequence number of a whole payload."""
    return sequence_at(data, 0, len(data))
