"""Long series as pieces: columns one behind the other.

A series body is, for each piece of up to `piece` values, a varint with its bytes; then the pieces. Each is an
integer column (`headrace.codecs.columns`) or a float column (`headrace.codecs.grid`), so that the Rice
parameter, the order and the grid follow the signal. The varints come first, for all pieces.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.codecs.bits import I64, NO_POSITION, U8, U64, ZERO, get_varint, put_varint
from headrace.codecs.columns import HEAD_SIZE_MAX, LANES, room_for
from headrace.codecs.compiled import Int, entry, glue, wrapping
from headrace.codecs.grid import FloatScratch, new_float_scratch
from headrace.codecs.values import Form, form_of, get_values, load_column, put_values, readonly, store_column

Array = npt.NDArray[Any]


class PieceRoom(NamedTuple):
    """Scratch for one series: a piece's bits and what columns need, the pieces' lengths, their bytes."""

    bits: U64
    floats: FloatScratch
    lengths: I64
    body: U8


@glue
def put_series(rows: U8, n: Int, form: Form, piece: Int, out: U8, pos: Int, room: PieceRoom) -> Int:
    """Encode at `pos` the n values whose bytes are `rows`; returns the end."""
    end: Int = ZERO
    pieces = (n + piece - 1) // piece
    for p in range(pieces):
        first = p * piece
        size = min(piece, n - first)
        load_column(rows, (first, 1), size, form, room.bits)
        start = end
        end = put_values(room.bits, size, form, False, room.body, start, room.floats)
        room.lengths[p] = end - start
    for p in range(pieces):
        pos = put_varint(out, pos, np.uint64(room.lengths[p]))
    for i in range(end):
        out[pos + i] = room.body[i]
    return pos + end


@glue
def get_series(
    data: U8, span: tuple[Int, Int], n: Int, form: Form, piece: Int, rows: U8, room: PieceRoom
) -> bool:
    """Decode n values into `rows`; False where the bytes of the span (start and end) are not exactly such a series."""
    pos, stop = span
    pieces = (n + piece - 1) // piece
    for p in range(pieces):
        length, pos = get_varint(data, pos, stop)
        if pos == NO_POSITION or length > np.uint64(stop):
            return False
        room.lengths[p] = length
    for p in range(pieces):
        first = p * piece
        size = min(piece, n - first)
        end = pos + room.lengths[p]
        if end > stop or not get_values(data, pos, end, size, form, room.floats):
            return False
        store_column(rows, (first, 1), size, form.width, room.floats.x)
        pos = end
    return bool(pos == stop)


@entry
def encode_series(rows: U8, n: Int, form: Form, piece: Int, out: U8, room: PieceRoom) -> Int:
    """Encode the n values whose bytes are `rows`; returns the bytes written."""
    return put_series(rows, n, form, piece, out, ZERO, room)


@entry
def decode_series(data: U8, n: Int, form: Form, piece: Int, rows: U8, room: PieceRoom) -> bool:
    """Decode n values into `rows`; False where `data` is not exactly such a series."""
    return get_series(data, (ZERO, data.size), n, form, piece, rows, room)


def series_size_max(n: int, width: int, piece: int) -> int:
    """Bytes that the pieces of n values never pass, also while a float column tries its grid."""
    pieces = -(-n // piece)
    return pieces * (HEAD_SIZE_MAX + 1) + n * width + 17 * min(piece, n) + HEAD_SIZE_MAX


def series_body(values: Array, piece: int) -> bytes:
    """The body of ``values: T[n]`` in pieces of up to `piece` values."""
    form, n = form_of(values.dtype), values.size
    rows = readonly(np.ascontiguousarray(values).view(np.uint8), np.uint8)
    pieces = -(-n // piece)
    most = series_size_max(n, form.width, piece)
    out = np.empty(most + 10 * pieces, np.uint8)
    with wrapping():  # arithmetic modulo 2**64 is meant
        size = encode_series(rows, n, form, piece, out, new_piece_room(min(piece, n), pieces, most))
    return out[:size].tobytes()


def series_values(body: bytes, n: int, dtype: np.dtype[Any], piece: int) -> Array | None:
    """The values of a body, or None where it does not hold n values of that type."""
    form = form_of(dtype)
    pieces = -(-n // piece)
    if pieces > len(body):
        return None
    rows = np.empty(n * form.width, np.uint8)
    data = readonly(np.frombuffer(body, np.uint8), np.uint8)
    with wrapping():
        sound = decode_series(data, n, form, piece, rows, new_piece_room(min(piece, n), pieces, 0))
    return rows.view(dtype) if sound else None


_own = threading.local()


def _floats(piece: int) -> FloatScratch:
    """Of the thread that asks; made anew where the one before was for pieces of another size."""
    found: tuple[int, FloatScratch] | None = getattr(_own, "floats", None)
    if found is None or found[0] != piece:
        found = _own.floats = piece, new_float_scratch(piece)
    return found[1]


def new_piece_room(piece: int, pieces: int, body_size: int) -> PieceRoom:
    """Scratch for series of up to so many pieces, whose bytes are `body_size` at most; 0 to decode. Of the calling thread."""
    size = room_for(piece) + 2 * LANES
    floats = _floats(piece)
    return PieceRoom(
        np.empty(size, np.uint64), floats, np.empty(pieces, np.int64), np.empty(body_size, np.uint8)
    )
