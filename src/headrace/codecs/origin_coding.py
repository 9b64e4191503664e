"""Bodies of `headrace.codecs.origin` for many chunks in one kernel: those whose integers need no search and no patches.

Whole numbers, and decimals of few digits, are nearly all of what sensors tell. A chunk that is neither, or that another
codec may make shorter by much, is left to the caller, one chunk at a time. Bodies are the same either way; each is decoded
by the reader's kernel, and compared, before it counts.
"""

from __future__ import annotations

import itertools

import numpy as np

from headrace.codecs import integer_coding as integers
from headrace.codecs.bits import I64, U8, U64
from headrace.codecs.compiled import Int, entry, glue, step, wrapping
from headrace.codecs.integer_coding import F64
from headrace.codecs.integer_kernels import SOUND
from headrace.codecs.integer_kernels import decode as decode_integers
from headrace.codecs.model import OWNER_AT, scratch_for
from headrace.codecs.origin_kernels import PRODUCT, find_decimal, lie_close, numbers_beside
from headrace.codecs.value_kernels import MEMO, MEMO_AT, SHORT, decode_floats, widened

NO_KIND = 0
"""In the place of a type's mark, for a chunk that is none of this."""

_U = np.uint64
_M32 = _U((1 << 32) - 1)
_SIGNED, _FLOAT, _WIDTH = 0x10, 0x80, 0x0F
_DIGITS_FEW = 5
_LOOK = 256
_SEEN, _MIX = 1_024 // 8, _U(0x9E3779B185EBCA87)


@step
def _whole(bits: U64, mark: Int, numbers: I64) -> None:
    """Integers of the width and the sign that a mark says."""
    cut = np.uint64(64 - 8 * (mark & _WIDTH))
    for i in range(bits.size):
        high = bits[i] << cut
        numbers[i] = np.int64(high) >> np.int64(cut) if mark & _SIGNED else np.int64(high >> cut)


@step
def _floats(bits: U64, mark: Int, out: F64) -> bool:
    """The bits as float64; False for a float32 that none keeps."""
    x = out.view(np.uint64)
    sound = True
    for i in range(bits.size):
        if mark & _WIDTH == 8:
            x[i] = bits[i]
        else:
            x[i] = widened(bits[i] & _M32)
            is_nan = bits[i] & _U(0x7F800000) == _U(0x7F800000) and bits[i] & _U(0x7FFFFF) != _U(0)
            sound = sound and not (is_nan and bits[i] & _U(0x400000) == _U(0))
    return sound


@step
def _decimals(values: F64, work: U64, numbers: I64, beside: I64, some: F64, found: I64, final: bool) -> bool:
    """The whole numbers of which all values are decimals: few digits, and, unless it is final, too close for a converter's steps."""
    if find_decimal(values, some, found) == 0 or found[0] < 0 or found[2] > _DIGITS_FEW:
        return False
    if not final and not lie_close(values, found[2]):
        return False
    known, value = work[MEMO_AT : MEMO_AT + MEMO], work[MEMO_AT + MEMO : MEMO_AT + 2 * MEMO]
    memo = known.view(np.int64), value.view(np.float64), work[OWNER_AT : OWNER_AT + 1].view(np.int64)
    form = found[0], found[1], False
    return bool(numbers_beside(values, form, found[2], (1.0, 0.0), memo, (numbers, beside)) == 0)


@step
def _alike(one: I64, other: I64) -> bool:
    n_others = 0
    for i in range(one.size):
        n_others += 1 if one[i] != other[i] else 0
    return n_others == 0


@glue
def _is_kept(body: U8, mark: Int, numbers: I64, values: F64, work: U64, rooms: tuple[I64, I64]) -> bool:
    """Whether a reader gets back what was there."""
    places, back = rooms
    if not mark & _FLOAT:
        found = decode_integers(body, np.int64(1), work, places, back)
        return found == SOUND and _alike(back, numbers)
    none, no_table, out = places[:0], places[:0].view(np.int32), back.view(np.float64)
    found, _ = decode_floats(body, work, places, none, no_table, out, False)
    return found == SOUND and _alike(back, values.view(np.int64))


@glue
def _packed(
    bits: U64, mark: Int, work: U64, rooms: tuple[I64, I64], outs: tuple[U8, U8], out: U8, final: bool
) -> Int:
    """A body; 0 for one that is left to the caller."""
    room, long = rooms
    n = bits.size
    numbers, spare, values = long[:n], long[n : 2 * n], long[2 * n : 3 * n].view(np.float64)
    if mark & _FLOAT:
        some, found = long[3 * n : 3 * n + _LOOK].view(np.float64), long[3 * n + _LOOK : 3 * n + _LOOK + 3]
        if not _floats(bits, mark, values) or not _decimals(values, work, numbers, spare, some, found, final):
            return np.int64(0)
        kind, cast, digits = found[0], found[1], found[2]
        out[1] = np.uint8(SHORT | (0x40 if kind == PRODUCT else 0) | cast << 4 | digits)
    else:
        _whole(bits, mark, numbers)
    out[0] = np.uint8(mark)
    at = np.int64(2 if mark & _FLOAT else 1)
    size, _, pco = integers.encode(numbers, np.int64(integers.INTEGERS), work, room, outs)
    if (pco and not final) or at + size > out.size:
        return np.int64(0)
    for i in range(size):
        out[at + i] = outs[0][i]
    body = out[: at + size]
    return (
        at + size
        if _is_kept(body, mark, numbers, values, work, (spare, long[3 * n : 4 * n]))
        else np.int64(0)
    )


@step
def _known(bits: U64, room: I64) -> Int:
    """How many different words these are at least: of as many slots of a table as they fall into."""
    seen = room.view(np.uint8)
    for i in range(seen.size):
        seen[i] = np.uint8(0)
    n: Int = np.int64(0)
    for i in range(bits.size):
        if i == 0 or bits[i] != bits[i - 1]:
            slot = (bits[i] * _MIX) >> _U(54)
            n += 1 if seen[slot] == np.uint8(0) else 0
            seen[slot] = np.uint8(1)
    return n


@entry
def pack_chunks(
    bits: U64,
    start: I64,
    marks: U8,
    rooms: tuple[U64, I64, I64, U8, U8],
    out: U8,
    found: tuple[I64, I64, I64],
    final: bool,
) -> None:
    """Fill ``out: uint8[8 * n]`` with bodies, one behind the other; for the rest see `packed`."""
    ends, runs, known = found
    work, room, long, best, trial = rooms
    at = np.int64(0)
    for c in range(marks.size):
        part = bits[start[c] : start[c + 1]]
        changes = 0
        for i in range(1, part.size):
            changes += 1 if part[i] != part[i - 1] else 0
        runs[c], known[c] = changes + 1, 0
        if 2 * runs[c] <= part.size:
            known[c] = _known(part, long[long.size - _SEEN :])
        if marks[c] != NO_KIND and changes > 0:
            mark = np.int64(marks[c])
            room_for = out[at : at + mark % 16 * part.size]
            at += _packed(part, mark, work, (room, long), (best, trial), room_for, final)
        ends[c] = at


def packed(bits: U64, start: I64, marks: U8, final: bool = False) -> tuple[list[bytes], list[int], list[int]]:
    """Bodies of chunks, empty for those that are left to the caller.

    Beside them how many runs of one value each chunk has; and, where runs are two values and more long, how many different
    values they are of at least.

    Parameters
    ----------
    bits : of values, as `headrace.store.wanted.to_bits` gives them. start : int64[chunks + 1], where each begins. marks : the
        `headrace.codecs.origin.type_mark` of each, or `NO_KIND`. final : nobody looks for a shorter one: those that pco or a
        converter's steps might shorten are coded too.

    Cost: 60 ns a value and 0.5 us a chunk.
    """
    n_chunks, longest = len(marks), int(np.diff(start).max(initial=0))
    room, outs = integers.rooms(longest)
    out = np.empty(int(start[-1] - start[0]) * 8, np.uint8)
    ends, runs, known = (np.empty(n_chunks, np.int64) for _ in range(3))
    long = np.empty(4 * longest + _LOOK + 3 + _SEEN, np.int64)
    with wrapping():
        work = scratch_for(24 * longest)
        pack_chunks(bits, start, marks, (work, room, long, *outs), out, (ends, runs, known), final)
    data, bounds = out[: int(ends[-1]) if n_chunks else 0].tobytes(), [0, *ends.tolist()]
    return [data[a:b] for a, b in itertools.pairwise(bounds)], runs.tolist(), known.tolist()
