"""The kernels of `headrace.codecs.block`: many blocks in one call, each verified by the decoder that readers use.

A block goes through a scratch copy of its rows, so that the source is read a row at a time and the columns
out of the cache. Values travel as *bits* (`headrace.codecs.values`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.codecs.bits import (
    I64,
    NO_POSITION,
    U8,
    U64,
    ZERO,
    checksum,
    get_fixed,
    get_varint,
    put_fixed,
    put_varint,
)
from headrace.codecs.columns import (
    HEAD_SIZE_MAX,
    LANES,
    get_column,
    put_column,
    put_plain,
    room_for,
)
from headrace.codecs.compiled import Int, entry, glue, leaf, step
from headrace.codecs.grid import FloatScratch, new_float_scratch
from headrace.codecs.values import Form, get_values, load_column, put_values, store_column

VERSION = 1
N_FRAMES_MAX = 1 << 20
N_COLUMNS_MAX = 65_535
N_VALUES_MAX = 1 << 24
HAS_QUALITY = 0x10
HEADER_SIZE = 6

I32 = npt.NDArray[np.int32]

(
    SOUND,
    SHORT,
    FOREIGN,
    OTHER_TYPE,
    DAMAGED,
    TOO_LARGE,
    BAD_TABLE,
    BAD_TIMES,
    BAD_QUALITY,
    NO_COLUMN,
    BAD_COLUMN,
) = range(11)

_U = np.uint64
_0 = _U(0)


class Frames(NamedTuple):
    """Where values come from: ``rows: uint8[N, D * width]``, ``ts_ns: int64[N]``, ``quality: uint8[N, D]`` or [0, 0]."""

    rows: U8
    ts_ns: I64
    quality: U8


class Written(NamedTuple):
    """Where encoded blocks go (`headrace.codecs.block.EncodedBlocks`); `check` is the payload, not writable.

    So the decoder is compiled for one kind of array only.
    """

    payload: U8
    check: U8
    offsets: I64
    t_min: I64
    t_max: I64
    n_frames: I32
    n_good: I64


class Read(NamedTuple):
    """Where decoded columns go: ``ts_ns: int64[F]``, ``rows: uint8[F * k * width]``, ``quality: uint8[F, k]``."""

    ts_ns: I64
    rows: U8
    quality: U8


class Workbench(NamedTuple):
    """Scratch of one call, sized for its largest block."""

    rows: U8
    quality: U8
    times: I64
    bits: U64
    floats: FloatScratch
    body: U8
    lengths: I64
    column_at: I64
    quality_at: I64


def new_workbench(n: int, columns: int, width: int) -> Workbench:
    """Scratch to encode blocks of up to n frames of so many columns."""
    room = n * columns
    bench = new_reading_bench(n, columns)
    size = bench.bits.size
    return bench._replace(
        rows=np.empty(room * width, np.uint8),
        quality=np.empty(room, np.uint8),
        times=np.empty(size, np.int64),
        body=np.empty(body_size_max(n, columns, width), np.uint8),
        lengths=np.empty(columns + 2, np.int64),
    )


def new_reading_bench(n: int, columns: int) -> Workbench:
    """Scratch to decode blocks of up to n frames of so many columns."""
    size = room_for(n) + 2 * LANES
    nothing, none = np.empty(0, np.uint8), np.empty(0, np.int64)
    return Workbench(
        rows=nothing,
        quality=nothing,
        times=none,
        bits=np.empty(size, np.uint64),
        floats=new_float_scratch(n),
        body=nothing,
        lengths=none,
        column_at=np.empty(columns + 1, np.int64),
        quality_at=np.empty(columns, np.int64),
    )


def body_size_max(n: int, columns: int, width: int) -> int:
    """Bytes that a block's sections never pass, also while a float column tries its grid."""
    return sections_size_max(n, columns, width, True) + 16 * n + HEAD_SIZE_MAX


def sections_size_max(n: int, columns: int, width: int, has_quality: bool) -> int:
    """Bytes of the times, quality and columns of n frames at most."""
    quality = columns * (2 * n + 8) if has_quality else 0
    return HEAD_SIZE_MAX + 8 * n + quality + columns * (HEAD_SIZE_MAX + 1 + n * width)


def block_size_max(n: int, columns: int, width: int, has_quality: bool) -> int:
    """Bytes that a finished block never passes."""
    return HEADER_SIZE + 24 + 5 * columns + sections_size_max(n, columns, width, has_quality)


@leaf
def _load_rows(frames: Frames, order: I64, first: Int, n: Int, bench: Workbench) -> tuple[Int, bool]:
    """The rows, times and quality of frames order[first:first+n]; returns the good values and whether not all are."""
    stride = frames.rows.shape[1]
    columns = frames.quality.shape[1]
    good = not_good = 0
    for i in range(n):
        f = order[first + i]
        bench.times[i] = frames.ts_ns[f]
        for j in range(stride):
            bench.rows[i * stride + j] = frames.rows[f, j]
        for j in range(columns):
            q = frames.quality[f, j]
            bench.quality[i * columns + j] = q
            good += 1 if q < 0x40 else 0
            not_good += 1 if q != 0 else 0
    return good, not_good > 0


@leaf
def _same_quality(q: U8, n: Int, columns: Int, one: Int, other: Int) -> bool:
    different = 0
    for i in range(n):
        different |= q[i * columns + one] ^ q[i * columns + other]
    return different == 0


@leaf
def _count_runs(q: U8, n: Int, columns: Int, column: Int) -> Int:
    runs = 1
    for i in range(1, n):
        runs += 1 if q[i * columns + column] != q[(i - 1) * columns + column] else 0
    return runs


@step
def put_quality(q: U8, n: Int, columns: Int, out: U8, pos: Int) -> Int:
    """Run lengths of each column, once for equal neighbours; returns the end."""
    column: Int = ZERO
    while column < columns:
        repeat = 1
        while column + repeat < columns and _same_quality(q, n, columns, column, column + repeat):
            repeat += 1
        pos = put_varint(out, pos, np.uint64(repeat))
        pos = put_varint(out, pos, np.uint64(_count_runs(q, n, columns, column)))
        start = 0
        for i in range(1, n + 1):
            if i == n or q[i * columns + column] != q[start * columns + column]:
                out[pos] = q[start * columns + column]
                pos = put_varint(out, pos + 1, np.uint64(i - start))
                start = i
        column += repeat
    return pos


@step
def _index_quality(data: U8, pos: Int, end: Int, n: Int, quality_at: I64, columns: Int) -> bool:
    """Check the quality section; quality_at[c]: where the runs of column c start."""
    column: Int = ZERO
    while column < columns:
        repeat, pos = get_varint(data, pos, end)
        if repeat == _0 or repeat > np.uint64(columns - column):
            return False
        for _ in range(np.int64(repeat)):
            quality_at[column] = pos
            column += 1
        runs, pos = get_varint(data, pos, end)
        left = np.uint64(n)
        while runs != _0 and pos != NO_POSITION:
            length, pos = get_varint(data, pos + 1, end)
            if length == _0 or length > left:
                return False
            left -= length
            runs -= _U(1)
        if pos == NO_POSITION or left != _0:
            return False
    return pos == end


@step
def _get_quality(data: U8, pos: Int, end: Int, n: Int, out: U8, at: tuple[Int, Int]) -> None:
    """Expand checked runs; the quality of frame i goes to place ``first + i * columns``."""
    place, columns = at
    runs, pos = get_varint(data, pos, end)
    for _ in range(np.int64(runs)):
        q = data[pos]
        length, pos = get_varint(data, pos + 1, end)
        for _i in range(np.int64(length)):
            out[place] = q
            place += columns


@glue
def put_block(
    bench: Workbench, shape: tuple[Int, Int], form: Form, flags: Int, plain: bool, out: U8, pos: Int
) -> Int:
    """Encode the block in the workbench at `pos`; returns the end."""
    n, columns = shape
    x, body, lengths = bench.floats.x, bench.body, bench.lengths
    for i in range(n):
        x[i] = np.uint64(bench.times[i])
    if plain:
        end = put_plain(x, n, np.int64(8), body, ZERO)
    else:
        end = put_column(x, n, np.int64(8), body, ZERO, bench.floats.integers)
    lengths[0] = end
    if flags & HAS_QUALITY:
        end = put_quality(bench.quality, n, columns, body, end)
    lengths[1] = end - lengths[0]
    for c in range(columns):
        start = end
        load_column(bench.rows, (c, columns), n, form, bench.bits)
        end = put_values(bench.bits, n, form, plain, body, start, bench.floats)
        lengths[2 + c] = end - start
    out[pos] = np.uint8(VERSION)
    out[pos + 1] = np.uint8(form.code | flags)
    at = put_varint(out, pos + HEADER_SIZE, np.uint64(n))
    at = put_varint(out, at, np.uint64(columns))
    for s in range(columns + 2):
        if s != 1 or flags & HAS_QUALITY:
            at = put_varint(out, at, np.uint64(lengths[s]))
    for i in range(end):
        out[at + i] = body[i]
    seal(out, pos, at + end)
    return at + end


@leaf
def seal(data: U8, pos: Int, end: Int) -> None:
    """Write the checksum of the block data[pos:end] into it."""
    put_fixed(data, pos + 2, _sum(data, pos, end), np.int64(4))


@leaf
def _sum(data: U8, pos: Int, end: Int) -> np.uint64:
    return checksum(data, pos + HEADER_SIZE, end, np.int64(data[pos]) | np.int64(data[pos + 1]) << 8)


@step
def open_block(data: U8, pos: Int, end: Int, code: Int) -> tuple[Int, Int, Int, Int]:
    """Check the header of the block data[pos:end]: reason or `SOUND`, frames, columns, where its table starts."""
    if pos < 0 or end > data.size or end - pos < HEADER_SIZE + 3:
        return SHORT, 0, 0, 0
    if data[pos] != VERSION:
        return FOREIGN, 0, 0, 0
    if _sum(data, pos, end) != get_fixed(data, pos + 2, np.int64(4)):
        return DAMAGED, 0, 0, 0
    if data[pos + 1] & 0x0F != code or data[pos + 1] > 0x0F | HAS_QUALITY:
        return OTHER_TYPE, 0, 0, 0
    n, at = get_varint(data, pos + HEADER_SIZE, end)
    columns, at = get_varint(data, at, end)
    if at == NO_POSITION:
        return BAD_TABLE, 0, 0, 0
    if n > _U(N_FRAMES_MAX) or columns > _U(N_COLUMNS_MAX) or n * columns > _U(N_VALUES_MAX):
        return TOO_LARGE, 0, 0, 0
    if np.int64(columns) > end - at:
        return BAD_TABLE, 0, 0, 0
    return SOUND, np.int64(n), np.int64(columns), at


@step
def index_block(
    data: U8, at: Int, end: Int, shape: tuple[Int, Int], flags: Int, bench: Workbench
) -> tuple[Int, Int, Int]:
    """Find the sections of an opened block; returns the reason or `SOUND`, and where its times start and end."""
    n, columns = shape
    ends = bench.column_at
    length, at = get_varint(data, at, end)
    times = np.int64(length) if length <= np.uint64(end) else end + 1
    quality: Int = 0
    if flags & HAS_QUALITY:
        length, at = get_varint(data, at, end)
        quality = np.int64(length) if length <= np.uint64(end) else end + 1
    total = times + quality
    for c in range(columns):
        length, at = get_varint(data, at, end)
        if at == NO_POSITION or length > np.uint64(end):
            return BAD_TABLE, 0, 0
        ends[c] = total
        total += np.int64(length)
    ends[columns] = total
    if at == NO_POSITION or total != end - at:
        return BAD_TABLE, 0, 0
    for c in range(columns + 1):
        ends[c] += at
    first = at + times
    if flags & HAS_QUALITY and not _index_quality(data, first, first + quality, n, bench.quality_at, columns):
        return BAD_QUALITY, 0, 0
    return SOUND, at, first


@glue
def same_block(bench: Workbench, shape: tuple[Int, Int], form: Form, data: U8, pos: Int, end: Int) -> bool:
    """Whether the block data[pos:end] decodes to what is in the workbench, bit for bit."""
    n, columns = shape
    reason, got_n, got_columns, at = open_block(data, pos, end, form.code)
    if reason != SOUND or got_n != n or got_columns != columns:
        return False
    flags = np.int64(data[pos + 1]) & HAS_QUALITY
    reason, times, times_end = index_block(data, at, end, shape, flags, bench)
    x, bits = bench.floats.x, bench.bits
    if reason != SOUND or not get_column(data, times, times_end, n, np.int64(8), x, bench.floats.integers):
        return False
    different = _0
    for i in range(n):
        different |= x[i] ^ np.uint64(bench.times[i])
    for c in range(columns):
        if not get_values(data, bench.column_at[c], bench.column_at[c + 1], n, form, bench.floats):
            return False
        load_column(bench.rows, (c, columns), n, form, bits)
        mask = ~_0 >> np.uint64(64 - 8 * form.width)
        for i in range(n):
            different |= (x[i] ^ bits[i]) & mask
    if flags:
        q = bench.body  # free by now
        for c in range(columns):
            _get_quality(data, bench.quality_at[c], end, n, q, (c, columns))
        for i in range(n * columns):
            different |= np.uint64(q[i] ^ bench.quality[i])
    return bool(different == _0)


@entry
def encode_blocks(
    frames: Frames, order: I64, starts: I64, form: Form, written: Written, bench: Workbench
) -> tuple[Int, Int, Int]:
    """Encode and verify all blocks.

    Returns the bytes written, how many blocks fell back to plain columns, and the block that did not decode
    even so, or -1.
    """
    end: Int = ZERO
    fallbacks = 0
    columns = frames.rows.shape[1] // form.width
    has_quality = frames.quality.shape[0] > 0
    written.offsets[0] = 0
    for g in range(starts.size - 1):
        first = starts[g]
        n = starts[g + 1] - first
        good, not_all_good = _load_rows(frames, order, first, n, bench)
        t_min = t_max = bench.times[0] if n > 0 else np.int64(0)
        for i in range(n):
            t_min, t_max = min(t_min, bench.times[i]), max(t_max, bench.times[i])
        written.t_min[g], written.t_max[g] = t_min, t_max
        written.n_frames[g] = n
        written.n_good[g] = good if has_quality else n * columns
        flags = HAS_QUALITY if not_all_good else 0
        pos = end
        failures = 0
        while failures < 2:
            end = put_block(bench, (n, columns), form, flags, failures == 1, written.payload, pos)
            if same_block(bench, (n, columns), form, written.check, pos, end):
                break
            failures += 1
        if failures == 2:
            return end, fallbacks, g
        fallbacks += failures
        written.offsets[g + 1] = end
    return end, fallbacks, -1


@entry
def measure_blocks(data: U8, offsets: I64, code: Int, shapes: I64) -> tuple[Int, Int]:
    """Open all blocks; ``shapes: int64[G, 3]`` gets frames, columns, table. Returns the reason and the block at fault."""
    for g in range(offsets.size - 1):
        reason, n, columns, at = open_block(data, offsets[g], offsets[g + 1], code)
        if reason != SOUND:
            return reason, g
        shapes[g, 0], shapes[g, 1], shapes[g, 2] = n, columns, at
    return SOUND, 0


@entry
def decode_blocks(
    data: U8, offsets: I64, shapes: I64, wanted: I64, form: Form, read: Read, bench: Workbench
) -> tuple[Int, Int, bool]:
    """Decode columns `wanted` of measured blocks; returns the reason, the block at fault, and whether a quality is not 0."""
    first: Int = ZERO
    any_quality = False
    k = wanted.size
    quality = read.quality.reshape(read.quality.size)
    for g in range(offsets.size - 1):
        n, columns, end = shapes[g, 0], shapes[g, 1], offsets[g + 1]
        flags = np.int64(data[offsets[g] + 1]) & HAS_QUALITY
        reason, times, times_end = index_block(data, shapes[g, 2], end, (n, columns), flags, bench)
        if reason != SOUND:
            return reason, g, False
        x = bench.floats.x
        if not get_column(data, times, times_end, n, np.int64(8), x, bench.floats.integers):
            return BAD_TIMES, g, False
        for i in range(n):
            read.ts_ns[first + i] = np.int64(x[i])
        for j in range(k):
            if wanted[j] < 0 or wanted[j] >= columns:
                return NO_COLUMN, g, False
            c = wanted[j]
            if not get_values(data, bench.column_at[c], bench.column_at[c + 1], n, form, bench.floats):
                return BAD_COLUMN, g, False
            store_column(read.rows, (first * k + j, k), n, form.width, x)
            if flags:
                _get_quality(data, bench.quality_at[c], end, n, quality, (first * k + j, k))
        any_quality = any_quality or flags != 0
        first += n
    return SOUND, 0, any_quality
