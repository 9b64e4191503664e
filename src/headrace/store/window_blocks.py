"""Blocks of windows, the bytes that `headrace.store.resolutions` describes: those of one sensor are read, of many written at once.

A block is short: calls of a codec for each of its columns took 0.7 ms, whatever there was to code. So one call of a kernel
codes the columns of many blocks, and a second one the bits of floats that are no decimals. A column gets the shortest of what
these find, one value, and raw values. Codecs that search are tried on long columns of floats without an origin only: for
others they find 1 % more or less, pco 10 % of some, and take twenty times as long.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import same_bits
from headrace.codecs.origin import OriginCodec, explains, type_mark
from headrace.codecs.origin_coding import NO_KIND, packed
from headrace.codecs.origin_kernels import SCALED, SINGLE, lie_close
from headrace.codecs.origins import Origin
from headrace.codecs.packing import get_sized, get_varint, put_sized, put_varint
from headrace.codecs.pco import PcoCodec
from headrace.codecs.registry import time_codec, value_codec
from headrace.codecs.regular import RegularTime
from headrace.codecs.select import smallest, smallest_times
from headrace.core.errors import ConfigError, CorruptionError
from headrace.store.aggregates import Partials, rounded
from headrace.store.grouping import DAY_NS
from headrace.store.wanted import from_bits, to_bits
from headrace.store.warm import codec_spec, codec_text

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Spans = tuple[I64, I64]
"""From which row on, and before which, each sensor's lie."""

M2_BITS = 12
CODECS = (
    "const", "origin", "raw", "rle", 'rice_delta {"piece": 1024}', 'pco {"level": 6}', 'pco {"level": 8}', "regular",
    'delta_of_delta {"piece": 1024}',
)  # fmt: skip
"""Codecs as the columns of warm rows name them, by their place: what is here stays where it is."""
_CONST, _ORIGIN, _RAW = (CODECS.index(name) for name in ("const", "origin", "raw"))
_OTHER = 255
_HEADS = [[bytes((code, n)) for n in range(128)] for code in range(len(CODECS))]
"""A part's code and length, by both."""
_SEARCHED_FROM = 64
"""On fewer values patches, and steps, gain less than the search for them takes."""
_UNITS_MAX, _FAR = 2.0**52, 4_096
_PCO_FROM = 256
_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)
_INTEGERS, _SHORT_MARK, _FLOAT = type_mark(np.dtype(np.int64)), type_mark(_F32), 0x80
_BITS, _SINGLE = Origin(), Origin(SINGLE)
_BITS_HEAD, _SINGLE_HEAD = _BITS.to_bytes(), _SINGLE.to_bytes()


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Windows of one length and UTC day, by sensor and time; of each of the `spans` a block is wanted.

    Parameters
    ----------
    windows : in the units of their lane. dtype : of the sensors' rows.
    """

    windows: Partials
    spans: Spans
    every_ns: int
    day: int
    dtype: np.dtype[Any]


class _Role(IntEnum):
    """What a column is."""

    COUNTS = 0
    ENDS = 1
    SUMS = 2
    LOW = 3
    """What rounding left out of sums: noise above 0, of a last bit that is theirs."""
    M2 = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One column of a table's blocks: their values one behind the other, and how many each has."""

    role: _Role
    values: Array
    length: I64


@dataclass(frozen=True, slots=True, eq=False)
class _Chunks:
    """Columns of all blocks one behind the other, each a chunk of values' bits: ``start: int64[chunks + 1]``."""

    bits: I64
    start: I64
    marks: npt.NDArray[np.uint8]
    role: I64

    @classmethod
    def of(cls, columns: list[_Column]) -> _Chunks:
        """Of each column those of its blocks."""
        length = np.concatenate([one.length for one in columns])
        n = [len(one.length) for one in columns]
        return cls(
            np.concatenate([to_bits(one.values) for one in columns]), np.append(0, np.cumsum(length)),
            np.repeat([type_mark(one.values.dtype) for one in columns], n).astype(np.uint8),
            np.repeat([int(one.role) for one in columns], n),
        )  # fmt: skip

    def take(self, which: I64) -> _Chunks:
        """Some of them."""
        length = np.diff(self.start)[which]
        bits = self.bits[_ranges(self.start[which], length)]
        return _Chunks(bits, np.append(0, np.cumsum(length)), self.marks[which], self.role[which])

    def values(self, i: int) -> Array:
        """Those of one, a float."""
        dtype = _F32 if self.marks[i] == _SHORT_MARK else _F64
        return from_bits(self.bits[self.start[i] : self.start[i + 1]], dtype)

    def doubles(self) -> F64:
        """Of all, which are floats."""
        is_short = np.repeat(self.marks == _SHORT_MARK, np.diff(self.start))
        with np.errstate(invalid="ignore"):
            return np.where(
                is_short, from_bits(self.bits, _F32).astype(np.float64), self.bits.view(np.float64)
            )


def encode_blocks(*tables: Table) -> list[bytes]:
    """The block of each of their spans, of which none is empty, table by table.

    Cost: 10 us a block and 1 us a window, where there are hundreds of blocks.
    """
    columns = [_columns(one) for one in tables]
    parts, at, out = _parts([one for of_table in columns for one in of_table]), 0, []
    for table, of_table in zip(tables, columns, strict=True):
        first, last = table.spans
        n, end = len(first), at + len(first) * len(of_table)
        number = (table.windows.window_ns - table.day * DAY_NS) // table.every_ns
        spans = zip(first.tolist(), last.tolist(), strict=True)
        times = [_times_part(number[a:b].tobytes()) for a, b in spans]
        heads = [put_varint(size) for size in (last - first).tolist()]
        of_columns = [parts[i : i + n] for i in range(at, end, n)]
        out += [b"".join(one) for one in zip(heads, times, *of_columns, strict=True)]
        at = end
    return out


def _columns(table: Table) -> list[_Column]:
    windows, (first, last) = table.windows, table.spans
    length = last - first
    rows = _ranges(first, length)
    ends = np.empty(4 * len(rows), table.dtype)
    place = np.arange(len(rows)) + 3 * np.repeat(np.cumsum(length) - length, length)
    apart = np.repeat(length, length)
    for j, values in enumerate((windows.low, windows.high, windows.first, windows.last)):
        ends[place + j * apart] = values[rows].astype(table.dtype, copy=False)
    out = [_Column(_Role.COUNTS, windows.count[rows], length), _Column(_Role.ENDS, ends, 4 * length)]
    if is_raw(table.dtype):
        out.append(_Column(_Role.SUMS, windows.raw_sum[rows], length))
    else:
        out.append(_Column(_Role.SUMS, windows.sum[rows], length))
        out.append(_Column(_Role.LOW, windows.sum_low[rows], length))
    return [*out, _Column(_Role.M2, rounded(windows.squares[rows], M2_BITS), length)]


def _ranges(first: I64, length: I64) -> I64:
    """The numbers from each first on, so many."""
    start = np.cumsum(length) - length
    return np.repeat(first - start, length) + np.arange(int(length.sum()))


@lru_cache(maxsize=16)
def _times_part(number: bytes) -> bytes:
    """Of one sensor's windows; those of its neighbours are mostly the same."""
    found = smallest_times(np.frombuffer(number, np.int64), [RegularTime()])
    return _named(codec_text(found.codec), found.body)


def _parts(columns: list[_Column]) -> list[bytes]:
    """Of each column one a block: the shortest that is found."""
    chunks = _Chunks.of(columns)
    bodies, n_runs, *_ = packed(chunks.bits.view(np.uint64), chunks.start, chunks.marks, final=True)
    out: list[bytes] = []
    each = zip(bodies, n_runs, strict=True)
    for column in columns:
        data, size, a = column.values.tobytes(), column.values.dtype.itemsize, 0
        for n in (size * column.length).tolist():
            body, n_of_one = next(each)
            if n_of_one == 1:
                out.append(_part(_CONST, data[a : a + size]))
            else:
                out.append(_part(_ORIGIN, body) if 0 < len(body) < n else _part(_RAW, data[a : a + n]))
            a += n
    is_float = (chunks.marks & _FLOAT > 0) & (np.array(n_runs) > 1)
    has_body = np.array(list(map(len, bodies))) > 0
    which = np.flatnonzero(is_float & (~has_body | (chunks.role == _Role.M2)))
    found, is_noise = _by_bits(chunks.take(which))
    for i, body in zip(which.tolist(), found, strict=True):
        part = _part(_ORIGIN, body)
        if body and len(part) < len(out[i]) and _is_kept(body, chunks.values(i)):
            out[i] = part
    is_long = is_float & (np.diff(chunks.start) >= _SEARCHED_FROM)
    stepped = np.flatnonzero(is_long & has_body & (chunks.role == _Role.ENDS)).tolist()
    stepped = [i for i in stepped if not lie_close(chunks.values(i).astype(np.float64), bodies[i][1] & 15)]
    for i in which[is_noise & is_long[which]].tolist() + stepped:
        out[i] = min(out[i], _searched(chunks.values(i)), key=len)
    return out


def _by_bits(chunks: _Chunks) -> tuple[list[bytes], npt.NDArray[np.bool_]]:
    """Origin's bodies of floats that are no decimals, empty for none, and which of them are no other whole numbers either.

    The integers are the bits of float32 where all are such, else their own; of what rounding left out they count its last bit.
    """
    if not len(chunks.marks):
        return [], np.empty(0, np.bool_)
    length, first, doubles = np.diff(chunks.start), chunks.start[:-1], chunks.doubles()
    single = _SINGLE.numbers(doubles)
    is_single = np.logical_and.reduceat(to_bits(_SINGLE.values(single)) == to_bits(doubles), first)
    # A float32 of a kind that float64 does not keep stays raw.
    with np.errstate(invalid="ignore", over="ignore"):
        is_same = chunks.bits == to_bits(doubles.astype(np.float32))
    is_lost = (chunks.marks == _SHORT_MARK) & ~np.logical_and.reduceat(is_same, first)
    is_low = (chunks.role == _Role.LOW) & (length >= _SEARCHED_FROM)
    steps, units = _units(doubles, first, length) if is_low.any() else (np.zeros(len(first)), single)
    is_stepped = (steps > 0.0) & is_low
    kind = np.where(is_stepped, 2, np.where(is_single, 1, 0))
    numbers = np.choose(np.repeat(kind, length), [_BITS.numbers(doubles), single, units])
    marks = np.where(is_lost, NO_KIND, _INTEGERS).astype(np.uint8)
    bodies, *_ = packed(numbers.view(np.uint64), chunks.start, marks, final=True)
    found = []
    for body, mark, which, of in zip(
        bodies, chunks.marks.tolist(), kind.tolist(), steps.tolist(), strict=True
    ):
        # An integer's first byte says that they are values themselves; a float's that an origin follows.
        origin = Origin(SCALED, step=of).to_bytes() if which == 2 else (_SINGLE_HEAD if which else _BITS_HEAD)
        found.append(bytes([mark]) + origin + body[1:] if body else b"")
    return found, (kind == 0) & (chunks.role != _Role.M2)


def _is_kept(body: bytes, values: Array) -> bool:
    """Whether a reader gets back what was there: the kernel has compared the integers, not what stands before them."""
    return same_bits(OriginCodec().unpack(body, values.size, values.dtype), values)


def _units(doubles: F64, first: I64, length: I64) -> tuple[F64, I64]:
    """Of chunks the power of two that all are multiples of, 0 where there is none; and of each float how many."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        fraction, exponent = np.frexp(doubles)
        whole = (fraction * 2.0**53).astype(np.int64)
        last_bit = np.frexp((whole & -whole).astype(np.float64))[1] - 1
        lowest = np.where(doubles == 0.0, _FAR, exponent - 53 + last_bit)
        step = np.ldexp(1.0, np.minimum.reduceat(lowest, first))
        each = np.repeat(step, length)
        units = doubles / each
        is_few = (np.abs(units) < _UNITS_MAX) & (to_bits(units * each + 0.0) == to_bits(doubles))
        is_sound = np.logical_and.reduceat(is_few, first) & (step > 0.0) & np.isfinite(step)
        return np.where(is_sound, step, 0.0), np.where(is_few, units, 0.0).astype(np.int64)


def _searched(values: Array) -> bytes:
    """Of floats that may be decimals but for a few, or noise."""
    chosen = smallest(values, [OriginCodec()])
    is_explained = isinstance(chosen.codec, OriginCodec) and explains(chosen.body)
    if len(values) >= _PCO_FROM and not is_explained:
        chosen = smallest(values, [PcoCodec()], chosen)
    return _named(codec_text(chosen.codec), chosen.body)


def _named(name: str, body: bytes) -> bytes:
    """A part by its codec's name."""
    if name in CODECS:
        return _part(CODECS.index(name), body)
    return bytes([_OTHER]) + put_sized(name.encode()) + put_sized(body)


def _part(code: int, body: bytes) -> bytes:
    n = len(body)
    return _HEADS[code][n] + body if n < 128 else _HEADS[code][0][:1] + put_sized(body)


# --- reading ---------------------------------------------------------------------------------------------


def decode_windows(block: bytes, day: int, every_ns: int, dtype: np.dtype[Any]) -> Partials:
    """The inverse: sensor 0, times of first and last sample as wide as the window.

    Raises
    ------
    CorruptionError : it is no such block.
    """
    try:
        n, at = get_varint(block, 0)
        if not 0 < n <= DAY_NS // every_ns:
            raise ValueError(f"a day has no {n:,} windows")
        name, body, at = _next(block, at)
        number = time_codec(codec_spec(name)).unpack(body, n)
        raw = is_raw(dtype)
        types = [np.dtype(np.int64), dtype, np.dtype(np.int64 if raw else np.float64)]
        types += [np.dtype(np.float64)] * (1 if raw else 2)
        columns = []
        for i, one in enumerate(types):
            name, body, at = _next(block, at)
            columns.append(value_codec(codec_spec(name)).unpack(body, 4 * n if i == 1 else n, one))
        if (
            at != len(block)
            or (np.diff(number) <= 0).any()
            or number[0] < 0
            or number[-1] >= DAY_NS // every_ns
        ):
            raise ValueError("its windows are not those of a day")
    except (struct.error, ValueError, ConfigError) as e:
        raise CorruptionError(f"a rollup of {len(block):,} bytes can't be read: {e}") from e
    count, ends, total, *rest = columns
    lane = np.float64 if dtype.kind == "f" else (np.uint64 if dtype == np.uint64 else np.int64)
    low, high, first, last = ends.astype(lane).reshape(4, n)
    start = day * DAY_NS + number * every_ns
    zero = np.zeros(n, np.int64)
    return Partials(
        zero, start, start, start + every_ns - 1, count, low, high, first, last, total.astype(np.float64),
        total if raw else zero, total / np.maximum(count, 1), rest[-1], np.full(n, np.nan),
        np.zeros(n) if raw else rest[0],
    )  # fmt: skip


def is_raw(dtype: np.dtype[Any]) -> bool:
    """Whether values are integers whose sums are exact integers."""
    return dtype.kind != "f" and dtype.itemsize < 8


def _next(block: bytes, at: int) -> tuple[str, bytes, int]:
    """A codec's name, a body, and where it ends. Raises ValueError."""
    if at >= len(block):
        raise ValueError("it ends early")
    code = block[at]
    if code == _OTHER:
        text, at = get_sized(block, at + 1)
        name = text.decode()
    elif code < len(CODECS):
        name, at = CODECS[code], at + 1
    else:
        raise ValueError(f"there is no codec {code}")
    body, at = get_sized(block, at)
    return name, body, at
