"""Data values in a kernel: the bytes of OPC UA's binary encoding → columns, without a Python object for any of them.

The scanner knows how every variant but a few is encoded, takes single values of up to 8 bytes, and notes of the
others (texts, arrays, structures) only where they lie. Where it meets what it does not know (values inside values,
identifiers of other servers) or bytes that end too early it gives up, and asyncua's decoder has the word.

Source: OPC 10000-6, section 5.2.2 (built-in types).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NO_TIME
from headrace.core.kernels import lean_kernel, lean_leaf

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Int = int | np.signedinteger[Any]

ARRAY = 0x80
"""Flag of `ValueColumns.kind`: an array."""
GAVE_UP = -1
_DIMENSIONS = 0x40
_KIND_MASK = 0x3F
# Bytes of a built-in type by its number: -1 a text or bytes with their length, -2 others that are read piece by piece,
# -3 what is not read here.
_SIZES = np.array(
    [0, 1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, -1, 8, 16, -1, -1, -2, -3, 4, -2, -2, -2, -3, -3, -3], np.int64
)
_N_KINDS = 26
_STRING, _NODE_ID, _STATUS, _QUALIFIED, _LOCALIZED, _STRUCTURE = 12, 17, 19, 20, 21, 22
TICKS_1970 = 116_444_736_000_000_000
TICKS_SPAN = 92_233_720_368_547_757
_NONE = NO_TIME


class ValueColumns(NamedTuple):
    """Data values as columns, one row each.

    ``tag``: client handle, or place in the request. ``kind``: number of the built-in type, 0 for no value, with
    `ARRAY`. ``bits``: the value's bytes, little-endian, where it is a single one of at most 8. ``status``: OPC UA's
    code. ``source_ns``, ``server_ns``: ns since 1970 or `NO_TIME`. ``first``, ``size``: where the variant lies.
    """

    tag: npt.NDArray[np.uint32]
    kind: U8
    bits: npt.NDArray[np.uint64]
    status: npt.NDArray[np.uint32]
    source_ns: I64
    server_ns: I64
    first: I64
    size: I64

    @classmethod
    def empty(cls, n: int) -> ValueColumns:
        """Room for `n` values."""
        return cls(
            np.arange(n, dtype=np.uint32), np.zeros(n, np.uint8), np.zeros(n, np.uint64), np.zeros(n, np.uint32),
            np.full(n, NO_TIME), np.full(n, NO_TIME), np.zeros(n, np.int64), np.zeros(n, np.int64),
        )  # fmt: skip

    @classmethod
    def room(cls, n: int) -> ValueColumns:
        """Room for `n` values that `scan_values` reads; nothing is in it."""
        return cls(
            np.empty(n, np.uint32), np.empty(n, np.uint8), np.empty(n, np.uint64), np.empty(n, np.uint32),
            np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64),
        )  # fmt: skip


@lean_leaf
def _number(data: U8, at: Int, n: Int) -> np.uint64:
    """`n` bytes as a little-endian number."""
    out = np.uint64(0)
    for i in range(n):
        out |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return out


@lean_leaf
def _length(data: U8, at: Int) -> Int:
    """A length or count: 32 bits with a sign; less than nothing means nothing."""
    raw = np.int64(_number(data, at, 4))
    return raw if raw < 0x8000_0000 else 0


@lean_leaf
def _after_text(data: U8, at: Int, end: int) -> Int:
    """Where a text (or bytes) with its length ends; -1 where that is behind `end`."""
    if at < 0 or at + 4 > end:
        return -1
    at += 4 + _length(data, at)
    return at if at <= end else -1


@lean_leaf
def _after_node_id(data: U8, at: Int, end: int) -> Int:
    """Where a node id ends; -1 where it is none that is known."""
    if at < 0 or at >= end:
        return -1
    form = data[at]
    if form == 0:
        at += 2
    elif form == 1:
        at += 4
    elif form == 2:
        at += 7
    elif form == 4:
        at += 19
    elif form == 3 or form == 5:
        at = _after_text(data, at + 3, end)
    else:
        return -1
    return at if at <= end else -1


@lean_leaf
def _after_odd(data: U8, at: Int, end: int, kind: Int) -> Int:
    """Where a value that is read piece by piece ends; -1 where that is not known."""
    if kind == _NODE_ID:
        return _after_node_id(data, at, end)
    if kind == _QUALIFIED:
        return _after_text(data, at + 2, end)
    if kind == _LOCALIZED:
        if at >= end:
            return -1
        mask = data[at]
        at += 1
        if mask & 1:
            at = _after_text(data, at, end)
        if mask & 2:
            at = _after_text(data, at, end)
        return at
    at = _after_node_id(data, at, end)
    if at < 0 or at >= end:
        return -1
    if data[at] == 0:
        return at + 1
    return _after_text(data, at + 1, end)


@lean_leaf
def _after_one(data: U8, at: Int, end: int, kind: Int) -> Int:
    """Where one value of a kind ends; -1 where it is not known or behind `end`."""
    size = _SIZES[kind]
    if size >= 0:
        at += size
    elif size == -1:
        at = _after_text(data, at, end)
    elif size == -2:
        at = _after_odd(data, at, end, kind)
    else:
        return -1
    return at if at <= end else -1


@lean_leaf
def _after_variant(data: U8, at: Int, end: int) -> Int:
    """Where a variant ends; -1 where it is not one that is known."""
    if at >= end:
        return -1
    head = data[at]
    kind = np.int64(head & np.uint8(_KIND_MASK))
    at += 1
    if kind >= _N_KINDS:
        return -1
    if not head & ARRAY:
        return -1 if head & _DIMENSIONS else _after_one(data, at, end, kind)
    if at + 4 > end:
        return -1
    n = _length(data, at)
    at += 4
    if n > end - at:
        return -1
    if _SIZES[kind] >= 0:
        at += n * _SIZES[kind]
    else:
        for _ in range(n):
            at = _after_one(data, at, end, kind)
            if at < 0:
                return -1
    if head & _DIMENSIONS and at >= 0:
        if at + 4 > end:
            return -1
        at += 4 + 4 * _length(data, at)
    return at if at <= end else -1


@lean_leaf
def _ns(ticks: np.uint64, picos: np.uint64) -> Int:
    """A time in ns since 1970, from 100 ns since 1601 and tens of picoseconds; NO_TIME where it is none."""
    since = (
        np.int64(ticks) - np.int64(TICKS_1970) if ticks < np.uint64(1) << np.uint64(62) else np.int64(2**62)
    )
    if ticks == np.uint64(0) or since > TICKS_SPAN or since < -TICKS_SPAN:
        return _NONE
    return since * 100 + np.int64(picos) // 100


@lean_kernel
def scan_values(data: U8, at: Int, end: int, n: int, has_handles: bool, out: ValueColumns) -> Int:
    """Read `n` data values.

    Parameters
    ----------
    data : the message; the values begin at `at` and are over before `end`.
    has_handles : whether each has its client handle before it (a notification).
    out : n rows, as `ValueColumns.room` makes them; whatever is in it is written over.

    Returns
    -------
    Where the values end, or `GAVE_UP`.
    """
    for row in range(n):
        out.tag[row] = row
        if has_handles:
            if at + 4 > end:
                return GAVE_UP
            out.tag[row] = np.uint32(_number(data, at, 4))
            at += 4
        if at >= end:
            return GAVE_UP
        mask = data[at]
        at += 1
        out.first[row] = at
        out.size[row], out.kind[row], out.bits[row], out.status[row] = 0, 0, 0, 0
        if mask & 1:
            after = _after_variant(data, at, end)
            if after < 0:
                return GAVE_UP
            head = data[at]
            kind = np.int64(head & np.uint8(_KIND_MASK))
            out.kind[row] = head & np.uint8(_KIND_MASK | ARRAY)
            size = _SIZES[kind]
            if not head & ARRAY and 0 < size <= 8:
                out.bits[row] = _number(data, at + 1, size)
            out.size[row] = after - at
            at = after
        if mask & 2:
            if at + 4 > end:
                return GAVE_UP
            out.status[row] = np.uint32(_number(data, at, 4))
            at += 4
        n_times = (
            8 * int(mask & 4 != 0)
            + 2 * int(mask & 16 != 0)
            + 8 * int(mask & 8 != 0)
            + 2 * int(mask & 32 != 0)
        )
        if at + n_times > end:
            return GAVE_UP
        for k in range(2):
            ticks, picos = np.uint64(0), np.uint64(0)
            if mask & (4 << k):
                ticks = _number(data, at, 8)
                at += 8
            if mask & (16 << k):
                picos = _number(data, at, 2)
                at += 2
            if k == 0:
                out.source_ns[row] = _ns(ticks, picos)
            else:
                out.server_ns[row] = _ns(ticks, picos)
    return at


def warm_scanner() -> None:
    """Compile the kernel, or load it from the cache."""
    data = np.zeros(1, np.uint8)
    data.flags.writeable = False  # as the bytes of a message are
    scan_values(data, 0, 1, 1, False, ValueColumns.empty(1))
