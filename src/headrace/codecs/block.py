"""Blocks: the frames of one entry, encoded together. The hot path, and what hot segments hold.

A block is F frames of one group: ``values[F, D]`` of one type that share one time axis ``ts_ns[F]``, with a
quality byte for each value unless all are good. Blocks are coded many at a time, without the GIL, and each
is decoded and compared bit for bit before the call returns; one that differs is written again with plain
columns. The cost is about 7 ns a 16-bit value for both together.

Format, version 1
-----------------
Numbers are little endian; *varint* is LEB128 (see `headrace.codecs.bits`)::

    byte 0      version = 1
    byte 1      bits 0-3: type of the values, an index into
                u8 i8 u16 i16 u32 i32 u64 i64 f32 f64; bit 4: has quality; others 0
    bytes 2-5   the low 32 bits of XXH64 of bytes 6 to the end, seed = bytes 0-1 as a number
    varint      F, frames (at most 2**20)
    varint      D, columns (at most 65,535; F * D at most 2**24)
    varint      bytes of the times
    varint      bytes of the quality, where byte 1 says that there is one
    D varints   bytes of each column, so that one can be decoded alone
    times       an integer column (`headrace.codecs.columns`) of F 64-bit numbers; regular times are *linear*
    quality     groups until D columns are named: a varint with the number of neighbouring columns whose
                quality is the same, a varint with the number of runs, for each the quality byte and a varint
                with its length; the lengths sum to F
    columns     D integer columns, or float columns (`headrace.codecs.grid`)

Empty blocks (F = 0) have empty times and columns. Nothing follows the last column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import CorruptionError

Array = npt.NDArray[Any]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Payload = bytes | bytearray | memoryview | U8

N_READ_MAX = 1 << 28
"""Values that one call decodes at most; a larger read is split by the caller."""

_REASONS = (
    "sound",
    "it is shorter than a header",
    "its version is not 1; a newer release wrote it",
    "its values have another type than expected",
    "its checksum is wrong",
    "it claims more frames or columns than a block may have",
    "its table of sections does not fit its length",
    "its times can't be decoded",
    "its quality can't be decoded",
    "it has fewer columns than asked for",
    "a column can't be decoded",
)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedBlocks:
    """G blocks one behind the other.

    Parameters
    ----------
    payload : uint8[n], block g is ``payload[offsets[g]:offsets[g + 1]]``.
    offsets : int64[G + 1].
    t_min, t_max : int64[G], earliest and latest time of each block; 0 where it is empty.
    n_frames : int32[G].
    n_good : int64[G], values whose quality class is good.
    n_fallbacks : blocks whose verification failed and which are stored plain; more than 0 is a fault of
        ours and worth a report, but nothing is lost.
    """

    payload: U8
    offsets: I64
    t_min: I64
    t_max: I64
    n_frames: I32
    n_good: I64
    n_fallbacks: int


@dataclass(frozen=True, slots=True, eq=False)
class DecodedBlocks:
    """Some columns of G blocks, one block behind the other.

    Parameters
    ----------
    ts_ns : int64[F].
    values : T[F, k].
    quality : uint8[F, k], or None where all are 0 (good).
    starts : int64[G + 1], block g is rows ``starts[g]:starts[g + 1]``.
    """

    ts_ns: I64
    values: Array
    quality: U8 | None
    starts: I64


def encode_blocks(values: Array, ts_ns: I64, quality: U8 | None, order: Array, starts: I64) -> EncodedBlocks:
    """Encode frames as blocks, and verify each.

    Parameters
    ----------
    values : T[N, D], C-contiguous; one of the ten value types.
    ts_ns : int64[N].
    quality : uint8[N, D]; None means all good.
    order : int64[M] or int32[M], frames sorted by block, in the order in which they are to be stored.
    starts : int64[G + 1], block g is frames ``order[starts[g]:starts[g + 1]]``.

    Raises
    ------
    ValueError : shapes that do not fit together, indices out of range, or a block larger than the format
        allows; the caller has a bug.
    CorruptionError : a block does not decode to its values even when stored plain; nothing may be acknowledged.

    Notes
    -----
    Cost: 64 frames of 50 16-bit registers take about 7 ns of CPU a value, 64 of a lone float64 about 20 ns.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.arange(12, dtype=np.uint16).reshape(6, 2)
    >>> done = encode_blocks(values, np.arange(6), None, np.arange(6), np.array([0, 3, 6]))
    >>> decode_block(done.payload[done.offsets[1]:], np.dtype(np.uint16))[1].tolist()
    [[6, 7], [8, 9], [10, 11]]
    """
    from headrace.codecs import block_kernels as kernels
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.values import form_of, readonly

    ts_ns, order, starts = (readonly(a, np.int64) for a in (ts_ns, order, starts))
    sizes, largest = _check_frames(values, ts_ns, quality, order, starts)
    n, columns = values.shape
    form = form_of(values.dtype)
    bench = kernels.new_workbench(largest, columns, form.width)
    n_blocks = sizes.size
    # What blocks without quality never pass, however long each is; then what the frames have.
    room = n_blocks * kernels.block_size_max(0, columns, form.width, False)
    room += int(starts[-1] - starts[0]) * (8 + columns * (form.width + (2 if quality is not None else 0)))
    room += columns * 8 * n_blocks if quality is not None else 0
    payload = np.empty(room, np.uint8)
    written = kernels.Written(
        payload=payload,
        check=_sealed(payload),
        offsets=np.zeros(n_blocks + 1, np.int64),
        t_min=np.empty(n_blocks, np.int64),
        t_max=np.empty(n_blocks, np.int64),
        n_frames=np.empty(n_blocks, np.int32),
        n_good=np.empty(n_blocks, np.int64),
    )
    frames = kernels.Frames(
        rows=_sealed(values.view(np.uint8).reshape(n, columns * form.width)),
        ts_ns=ts_ns,
        quality=_sealed(np.empty((0, 0), np.uint8) if quality is None else quality),
    )
    with wrapping():  # arithmetic modulo 2**64 is meant
        size, fallbacks, failed = kernels.encode_blocks(frames, order, starts, form, written, bench)
    if failed >= 0:
        raise CorruptionError(
            f"block {failed} of {sizes.size} ({sizes[failed]} frames, {values.dtype}) does not decode to what was "
            f"encoded, not even plain: memory is failing or this release is broken; acknowledge nothing of it"
        )
    return EncodedBlocks(payload[:size].copy(), *written[2:], n_fallbacks=int(fallbacks))


def decode_block(payload: Payload, dtype: np.dtype[Any]) -> tuple[I64, Array, U8 | None]:
    """Decode one block: ``ts_ns: int64[F]``, ``values: T[F, D]``, ``quality: uint8[F, D]`` or None (all good).

    Raises
    ------
    CorruptionError : these bytes are not such a block, or are damaged; quarantine them.
    """
    return _decode_one(payload, dtype, None)


def decode_columns(payload: Payload, dtype: np.dtype[Any], columns: Array) -> tuple[I64, Array, U8 | None]:
    """Decode some columns of one block, in the order asked for; as `decode_block`, with k columns."""
    return _decode_one(payload, dtype, np.array(columns, np.int64))


def decode_blocks(
    payload: Payload, offsets: Array, dtype: np.dtype[Any], columns: int | Array
) -> DecodedBlocks:
    """Decode one column, or some, of many blocks in one pass.

    Parameters
    ----------
    payload, offsets : block g is ``payload[offsets[g]:offsets[g + 1]]``; as an Arrow column of binaries has it.
    columns : their places in the blocks, in the order wanted.

    Raises
    ------
    CorruptionError : a block is damaged or has no such column; the text says which.
    ValueError : the blocks hold more than `N_READ_MAX` values.
    """
    return _decode(payload, offsets, dtype, np.atleast_1d(np.asarray(columns, np.int64)))


def _sealed(array: U8) -> U8:
    """A view that nobody writes to, of bytes that are contiguous: a quarter of the cost of `readonly`."""
    view: Any = array.view()
    view.setflags(False)  # by its place: NumPy takes as long to look at a name as for the rest
    return view  # type: ignore[no-any-return]


def _check_frames(values: Array, ts_ns: I64, quality: U8 | None, order: I64, starts: I64) -> tuple[I64, int]:
    """Sizes of the blocks and the largest, once all arrays are known to fit together: the kernels do not check again."""
    from headrace.codecs.block_kernels import N_COLUMNS_MAX, N_FRAMES_MAX, N_VALUES_MAX

    if values.ndim != 2 or not values.flags.c_contiguous or not 0 < values.shape[1] <= N_COLUMNS_MAX:
        raise ValueError(
            f"values[N, D] expected, C-contiguous, D from 1 to {N_COLUMNS_MAX}; got {values.shape}"
        )
    if ts_ns.shape != values.shape[:1]:
        raise ValueError(f"{values.shape[0]} frames, but times of shape {ts_ns.shape}")
    if quality is not None and (
        quality.shape != values.shape or quality.dtype != np.uint8 or not quality.flags.c_contiguous
    ):
        raise ValueError(f"quality: uint8{values.shape} expected, got {quality.dtype}{quality.shape}")
    if order.ndim != 1 or (order.size and not 0 <= int(order.min()) <= int(order.max()) < values.shape[0]):
        raise ValueError(f"order names frames that are not among the {values.shape[0]}")
    if (
        starts.ndim != 1
        or starts.size == 0
        or starts[0] < 0
        or starts[-1] > order.size
        or (starts[1:] < starts[:-1]).any()
    ):
        raise ValueError(f"starts: expected to rise from 0 to {order.size}")
    sizes = starts[1:] - starts[:-1]
    largest = int(sizes.max(initial=0))
    if largest > N_FRAMES_MAX or largest * values.shape[1] > N_VALUES_MAX:
        raise ValueError(f"a block of {largest} frames of {values.shape[1]} columns is too large; split it")
    return sizes, largest


def _decode_one(payload: Payload, dtype: np.dtype[Any], wanted: I64 | None) -> tuple[I64, Array, U8 | None]:
    read = _decode(payload, np.array([0, len(payload)]), dtype, wanted)
    return read.ts_ns, read.values, read.quality


def _decode(payload: Payload, offsets: Array, dtype: np.dtype[Any], wanted: I64 | None) -> DecodedBlocks:
    """Measure first, so that memory is taken for what the blocks say only once that is within bounds."""
    from headrace.codecs import block_kernels as kernels
    from headrace.codecs.values import form_of, readonly

    data = readonly(np.frombuffer(payload, np.uint8), np.uint8)
    offsets = readonly(offsets, np.int64)
    form = form_of(dtype)
    shapes = np.zeros((offsets.size - 1, 3), np.int64)
    with np.errstate(over="ignore"):
        reason, block = kernels.measure_blocks(data, offsets, form.code, shapes)
        _check(reason, block, offsets, dtype)
        if wanted is None:
            wanted = np.arange(shapes[0, 1])
        starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(shapes[:, 0])))
        n, k = int(starts[-1]), wanted.size
        if n * k > N_READ_MAX:
            raise ValueError(f"{n * k} values in one read, at most {N_READ_MAX}; read fewer blocks at a time")
        read = kernels.Read(
            ts_ns=np.empty(n, np.int64),
            rows=np.empty(n * k * form.width, np.uint8),
            quality=np.zeros((n, k), np.uint8),
        )
        bench = kernels.new_reading_bench(*(int(m) for m in shapes[:, :2].max(axis=0, initial=0)))
        reason, block, any_quality = kernels.decode_blocks(data, offsets, shapes, wanted, form, read, bench)
        _check(reason, block, offsets, dtype)
    values = read.rows.view(dtype).reshape(n, k)
    return DecodedBlocks(read.ts_ns, values, read.quality if any_quality else None, starts)


def _check(reason: int | np.int64, block: int | np.int64, offsets: I64, dtype: np.dtype[Any]) -> None:
    if reason:
        where = (
            f"block {block} of {offsets.size - 1} (bytes {offsets[block]} to {offsets[block + 1]}, {dtype})"
        )
        raise CorruptionError(
            f"{where} can't be read: {_REASONS[reason]}; quarantine the segment and restore it"
        )
