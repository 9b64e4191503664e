"""Messages of remote write and OTLP in kernels: bytes → columns of points, without a Python object for any of them.

First the *frames* of a body are listed: its TimeSeries, or its Metric messages with their resources. Then their points
are read. A series is known by the bytes of its labels, compared with those that stood in the same place last time, else
found by their hash; of one that is not known the row says where its labels stand. A frame in which anything is unusual
gives one row that says so, and is read by `headrace.adapters.payloads.metric_points`; what is read here is read alike.

Version 2 of remote write has its texts once in a table of symbols. They are given numbers of our own, so that the labels
of a series are the same bytes in every request.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.hashed_rows import HASH, N_PROBES_MAX
from headrace.core.kernels import lean_kernel, lean_leaf

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Place = tuple[int, int]

# Columns of the table of names: where the bytes lie in the arena, what followed last time, hash, owner, series.
START, END, NEXT, OWNER, SERIES = 0, 1, 2, 4, 5  # and HASH
N_COLUMNS = 6
LAST = 0
FLOAT, INTEGER, ODD = 0, 1, 2
LABELS, SYMBOL, REFS, RESOURCE = -2, -3, -4, -5
"""Owners of names that belong to no other; a metric belongs to its resource, a point to its metric and kind."""
FRAME_COLUMNS = 4
PART_BITS = 8
MALFORMED, FULL = -1, -2

_NONE = -1
_MS = 1_000_000
_MS_MAX = (2**63 - 1) // _MS - 1
_STALE_HIGH, _STALE_LOW = 0x7FF00000, 2
_SIGN = _NO_TIME = -(2**63)


class MetricTables(NamedTuple):
    """What the scanner knows; rows as the columns above say. ``symbols`` are our numbers of a request's symbols."""

    arena: U8
    rows: I64
    buckets: I64
    state: I64
    symbols: I64
    scratch: U8


class PointColumns(NamedTuple):
    """What the scanner has read, a row a point.

    ``frame`` its frame, ``series`` or none, ``kind``, ``ts_ns``, ``bits``, ``mark`` 1 where it is stale, ``key_at`` and
    ``key_end`` where its labels stand, ``at`` and ``end`` where it stands itself.
    """

    frame: I64
    series: I64
    kind: I64
    ts_ns: I64
    bits: I64
    mark: U8
    key_at: I64
    key_end: I64
    at: I64
    end: I64


# --- the wire ----------------------------------------------------------------------------------------


@lean_leaf
def _varint(data: U8, at: int, end: int) -> Place:
    """A number and where it ends; none where it is malformed."""
    value, shift = np.int64(0), 0
    while at < end:
        byte = np.int64(data[at])
        at += 1
        if shift == 63:
            if byte > 1:
                return 0, _NONE
            return int(value + _SIGN if byte == 1 else value), at
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return int(value), at
        shift += 7
    return 0, _NONE


@lean_leaf
def _skip(data: U8, at: int, end: int, kind: int) -> int:
    """Where a field's content ends; none where it is malformed."""
    if kind == 0:
        _, at = _varint(data, at, end)
        return at
    if kind == 1:
        at += 8
    elif kind == 5:
        at += 4
    elif kind == 2:
        length, start = _varint(data, at, end)
        if start == _NONE or length < 0 or length > end - start:
            return _NONE
        at = start + length
    else:
        return _NONE
    return at if at <= end else _NONE


@lean_leaf
def _content(data: U8, at: int, end: int) -> Place:
    """Where the content of a field with a length lies; none where it is malformed."""
    if at < end and data[at] < 128 and data[at] < end - at:  # most are short
        return at + 1, at + 1 + int(data[at])
    length, start = _varint(data, at, end)
    if start == _NONE or length < 0 or length > end - start:
        return _NONE, _NONE
    return start, start + length


@lean_leaf
def _half(data: U8, at: int) -> int:
    low = np.int64(data[at]) | np.int64(data[at + 1]) << 8
    return int(low | np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24)


@lean_leaf
def _bits(data: U8, at: int) -> int:
    """64 bits as a signed number."""
    high = np.int64(_half(data, at + 4))
    if high >= 0x80000000:
        high -= np.int64(0x100000000)
    return int(high * np.int64(0x100000000) + np.int64(_half(data, at)))


# --- names -------------------------------------------------------------------------------------------


@lean_leaf
def _hash(data: U8, at: int, end: int, owner: int) -> int:
    """32 bits that depend on every byte of a name, and on its owner; four bytes at a time."""
    value = (2_166_136_261 ^ (owner & 0x7FFFFFFF) * 16_777_619) & 0xFFFFFFFF
    while at + 4 <= end:
        value = ((value ^ _half(data, at)) * 16_777_619) & 0xFFFFFFFF
        value ^= value >> 15
        at += 4
    while at < end:
        value = ((value ^ int(data[at])) * 16_777_619) & 0xFFFFFFFF
        value ^= value >> 15
        at += 1
    return value ^ (value >> 13)


@lean_leaf
def _is_named(data: U8, at: int, end: int, tables: MetricTables, row: int) -> bool:
    """Whether the name at at:end is the row's."""
    start = int(tables.rows[row, START])
    n = end - at
    if int(tables.rows[row, END]) - start != n:
        return False
    i = 0
    differ = 0
    while i + 16 <= n:
        for j in range(16):
            differ |= data[at + i + j] ^ tables.arena[start + i + j]
        i += 16
        if differ:
            return False
    while i < n and data[at + i] == tables.arena[start + i]:
        i += 1
    return i == n


@lean_leaf
def _find(data: U8, at: int, end: int, owner: int, tables: MetricTables) -> int:
    """The row of a name; none where it is not known. The one that followed the last is tried first."""
    rows = tables.rows
    last = int(tables.state[LAST])
    guess = int(rows[last, NEXT])
    if guess != _NONE and rows[guess, OWNER] == owner and _is_named(data, at, end, tables, guess):
        tables.state[LAST] = guess
        return guess
    hashed = _hash(data, at, end, owner)
    mask = len(tables.buckets) - 1
    for probe in range(N_PROBES_MAX):
        row = int(tables.buckets[(hashed + probe) & mask])
        if row == _NONE:
            break
        if rows[row, HASH] == hashed and rows[row, OWNER] == owner and _is_named(data, at, end, tables, row):
            rows[last, NEXT] = row
            tables.state[LAST] = row
            return row
    return _NONE


@lean_kernel
def hash_name(data: U8, owner: int) -> int:
    """The hash of a whole name."""
    return _hash(data, 0, len(data), owner)


# --- frames ------------------------------------------------------------------------------------------


@lean_kernel
def list_fields(data: U8, wanted: int, out: I64) -> int:
    """Where the contents of the body's fields `wanted` lie: their number; `MALFORMED`, or `FULL` where `out` is."""
    at = n = 0
    while at < len(data):
        tag, at = _varint(data, at, len(data))
        if at == _NONE or tag < 8:
            return MALFORMED
        if tag == (wanted << 3 | 2):
            start, end = _content(data, at, len(data))
            if start == _NONE:
                return MALFORMED
            if n >= len(out):
                return FULL
            out[n, 0] = start
            out[n, 1] = end
            n += 1
            at = end
        else:
            at = _skip(data, at, len(data), tag & 7)
            if at == _NONE:
                return MALFORMED
    return n


@lean_leaf
def _resource(data: U8, at: int, end: int) -> Place:
    """Where the last resource of a ResourceMetrics lies; an empty one where it has none; none where malformed."""
    found, found_end = at, at
    while at < end:
        tag, at = _varint(data, at, end)
        if at == _NONE or tag < 8:
            return _NONE, _NONE
        if tag == 10:
            found, found_end = _content(data, at, end)
            if found == _NONE:
                return _NONE, _NONE
        at = _skip(data, at, end, tag & 7)
        if at == _NONE:
            return _NONE, _NONE
    return found, found_end


@lean_kernel
def list_metrics(data: U8, lists: I64, n_lists: int, out: I64) -> int:
    """Where the Metric messages of each ResourceMetrics lie, and their resources; as `list_fields`."""
    n = 0
    for i in range(n_lists):
        at, end = int(lists[i, 0]), int(lists[i, 1])
        resource, resource_end = _resource(data, at, end)
        if resource == _NONE:
            return MALFORMED
        while at < end:
            tag, at = _varint(data, at, end)
            if tag == 18:
                scope, scope_end = _content(data, at, end)
                while scope < scope_end:
                    inner, scope = _varint(data, scope, scope_end)
                    if scope == _NONE or inner < 8:
                        return MALFORMED
                    if inner == 18:
                        start, after = _content(data, scope, scope_end)
                        if start == _NONE:
                            return MALFORMED
                        if n >= len(out):
                            return FULL
                        out[n, 0] = start
                        out[n, 1] = after
                        out[n, 2] = resource
                        out[n, 3] = resource_end
                        n += 1
                    scope = _skip(data, scope, scope_end, inner & 7)
                    if scope == _NONE:
                        return MALFORMED
            at = _skip(data, at, end, tag & 7)
    return n


@lean_kernel
def number_symbols(data: U8, places: I64, n: int, tables: MetricTables) -> None:
    """Our numbers of a request's symbols; none of those that are not known."""
    for i in range(n):
        row = _find(data, int(places[i, 0]), int(places[i, 1]), SYMBOL, tables)
        tables.symbols[i] = _NONE if row == _NONE else tables.rows[row, SERIES]


# --- points of remote write --------------------------------------------------------------------------


@lean_leaf
def _sample(data: U8, at: int, end: int, n: int, columns: PointColumns) -> bool:
    """Read a Sample into row n; False where it is left aside."""
    columns.bits[n] = 0
    columns.mark[n] = 0
    ts_ms = 0
    columns.at[n] = at
    columns.end[n] = end
    while at < end:
        tag = int(data[at])
        if tag == 9 and at + 9 <= end:
            columns.bits[n] = _bits(data, at + 1)
            stale = _half(data, at + 5) == _STALE_HIGH and _half(data, at + 1) == _STALE_LOW
            columns.mark[n] = 1 if stale else 0
            at += 9
        elif tag == 16:
            ts_ms, at = _varint(data, at + 1, end)
            if at == _NONE:
                return False
        elif tag == 24:  # when a counter began, of later drafts of version 2
            _, at = _varint(data, at + 1, end)
            if at == _NONE:
                return False
        else:
            return False
    columns.ts_ns[n] = ts_ms * _MS if -_MS_MAX < ts_ms < _MS_MAX else 0
    return -_MS_MAX < ts_ms < _MS_MAX


@lean_leaf
def _refs(data: U8, at: int, end: int, tables: MetricTables) -> int:
    """Our numbers of the symbols that references name, four bytes each into the scratch: how many bytes; or none."""
    n = 0
    while at < end:
        ref, at = _varint(data, at, end)
        if at == _NONE or ref < 0 or ref >= len(tables.symbols) or n + 4 > len(tables.scratch):
            return _NONE
        number = int(tables.symbols[ref])
        if number == _NONE:
            return _NONE
        for shift in range(0, 32, 8):
            tables.scratch[n] = (number >> shift) & 0xFF
            n += 1
    return n


@lean_leaf
def _series(
    data: U8, at: int, end: int, has_symbols: bool, tables: MetricTables, n: int, columns: PointColumns
) -> int:
    """Read a TimeSeries into rows from n on: the number of rows behind them; `MALFORMED` where it is left aside."""
    key, key_end, series = at, at, _NONE
    is_named = False
    histogram = 3 if has_symbols else 4
    while at < end:
        tag = int(data[at])
        if (tag < 24 and tag != 10 and tag != 18) or tag > 127 or tag >> 3 == histogram:
            return MALFORMED
        if tag == 10:
            if is_named:
                return MALFORMED
            start, at = _content(data, at + 1, end)
            if start == _NONE:
                return MALFORMED
            if has_symbols:
                is_named, key, key_end = True, start, at
            else:
                key_end = at
        elif tag == 18:
            if not is_named or series == _NONE:
                is_named = True
                if has_symbols:
                    length = _refs(data, key, key_end, tables)
                    row = _NONE if length == _NONE else _find(tables.scratch, 0, length, REFS, tables)
                else:
                    row = _find(data, key, key_end, LABELS, tables)
                series = _NONE - 1 if row == _NONE else int(tables.rows[row, SERIES])
            start, at = _content(data, at + 1, end)
            if start == _NONE or n >= len(columns.frame) or not _sample(data, start, at, n, columns):
                return MALFORMED
            columns.series[n] = max(series, _NONE)
            columns.kind[n] = FLOAT
            columns.key_at[n] = key
            columns.key_end[n] = key_end
            n += 1
        else:
            at = _skip(data, at + 1, end, tag & 7)
            if at == _NONE:
                return MALFORMED
    return n


@lean_kernel
def scan_series(
    data: U8,
    frames: I64,
    first: int,
    last: int,
    has_symbols: bool,
    tables: MetricTables,
    columns: PointColumns,
) -> Place:
    """Read the TimeSeries first:last: rows, and the first that found no room any more.

    Cost: 40 to 120 ns of CPU a series with one sample, by the length of its labels.
    """
    n = 0
    for frame in range(first, last):
        n_bytes = int(frames[frame, 1] - frames[frame, 0])
        if n >= len(columns.frame) or (n and n_bytes >> 1 > len(columns.frame) - n):
            return n, frame
        after = _series(data, int(frames[frame, 0]), int(frames[frame, 1]), has_symbols, tables, n, columns)
        if after == MALFORMED:
            _odd(frame, n, columns)
            after = n + 1
        for i in range(n, after):
            columns.frame[i] = frame
        n = after
    return n, last


@lean_leaf
def _odd(frame: int, n: int, columns: PointColumns) -> None:
    columns.frame[n] = frame
    columns.series[n] = _NONE
    columns.kind[n] = ODD


# --- points of OTLP ----------------------------------------------------------------------------------


@lean_leaf
def _point(
    data: U8, at: int, end: int, metric: int, tables: MetricTables, n: int, columns: PointColumns
) -> bool:
    """Read a NumberDataPoint into row n; False where it is left aside."""
    kind, flags, ts_ns = _NONE, 0, 0
    key, key_end = at, at
    has_key = False
    columns.at[n] = at
    columns.end[n] = end
    columns.bits[n] = 0
    while at < end:
        tag = int(data[at])
        at += 1
        if tag == 25 and at + 8 <= end:
            ts_ns = _bits(data, at)
            at += 8
        elif (tag == 33 or tag == 49) and at + 8 <= end:
            kind = FLOAT if tag == 33 else INTEGER
            columns.bits[n] = _bits(data, at)
            at += 8
        elif tag == 58:
            if has_key and key_end != at - 1:
                return False
            key = key if has_key else at - 1
            has_key = True
            _, key_end = _content(data, at, end)
            if key_end == _NONE:
                return False
            at = key_end
        elif tag == 64:
            flags, at = _varint(data, at, end)
            if at == _NONE:
                return False
        elif tag == 17 or tag == 42:
            at = _skip(data, at, end, tag & 7)
            if at == _NONE:
                return False
        else:
            return False
    if kind == _NONE or flags & 1 or ts_ns < 0:
        return False
    columns.kind[n] = kind
    columns.mark[n] = 0
    columns.ts_ns[n] = ts_ns if ts_ns else _NO_TIME
    key = key if has_key else end
    key_end = key_end if has_key else end
    columns.key_at[n] = key
    columns.key_end[n] = key_end
    row = _NONE if metric == _NONE else _find(data, key, key_end, metric * 2 + kind, tables)
    columns.series[n] = _NONE if row == _NONE else tables.rows[row, SERIES]
    return True


@lean_leaf
def _metric(
    data: U8, at: int, end: int, resource: int, tables: MetricTables, n: int, columns: PointColumns
) -> int:
    """Read a Metric into rows from n on, as `_series`; `resource` is the row of its resource."""
    head, metric, has_head = at, _NONE, False
    while at < end:
        tag = int(data[at])
        start = at
        if (tag in (10, 18, 26) and not has_head) or (tag == 98 and has_head):
            _, at = _content(data, at + 1, end)
        elif (tag == 42 or tag == 58) and not has_head:
            has_head = True
            metric = _NONE if resource == _NONE else _find(data, head, start, resource, tables)
            inner, at = _content(data, at + 1, end)
            while inner < at:
                tag = int(data[inner])
                if tag == 10:
                    point, inner = _content(data, inner + 1, at)
                    if point == _NONE or n >= len(columns.frame):
                        return MALFORMED
                    if not _point(data, point, inner, metric, tables, n, columns):
                        return MALFORMED
                    n += 1
                elif tag == 16 or tag == 24:
                    _, inner = _varint(data, inner + 1, at)
                    if inner == _NONE:
                        return MALFORMED
                else:
                    return MALFORMED
        else:
            return MALFORMED
        if at == _NONE:
            return MALFORMED
    return n


@lean_kernel
def scan_metrics(
    data: U8, frames: I64, first: int, last: int, tables: MetricTables, columns: PointColumns
) -> Place:
    """Read the Metric messages first:last; as `scan_series`."""
    n, before, resource = 0, _NONE, _NONE
    for frame in range(first, last):
        n_bytes = int(frames[frame, 1] - frames[frame, 0])
        if n >= len(columns.frame) or (n and n_bytes >> 1 > len(columns.frame) - n):
            return n, frame
        if int(frames[frame, 2]) != before:
            before = int(frames[frame, 2])
            resource = _find(data, before, int(frames[frame, 3]), RESOURCE, tables)
        after = _metric(data, int(frames[frame, 0]), int(frames[frame, 1]), resource, tables, n, columns)
        if after == MALFORMED:
            _odd(frame, n, columns)
            after = n + 1
        for i in range(n, after):
            columns.frame[i] = frame
        n = after
    return n, last
