"""The kernels of `headrace.codecs.wave`: many waves in one call, each verified by the decoder that readers use.

A wave is six *sections*: four columns of its runs, the quality, the values. They lie as bytes in `Sections`, so
that one place in the code writes them all, and one reads them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.codecs.bits import I64, U8, ZERO, checksum, get_fixed, get_word, put_fixed, put_word
from headrace.codecs.columns import HEAD_SIZE_MAX
from headrace.codecs.compiled import Int, entry, glue, leaf, step
from headrace.codecs.series_kernels import (
    PieceRoom,
    get_series,
    new_piece_room,
    put_series,
    series_size_max,
)
from headrace.codecs.values import SIGNED, UNSIGNED, Form
from headrace.codecs.wave import HAS_QUALITY, N_RUNS_MAX, N_VALUES_MAX, PIECE, PLAIN, VERSION

HEADER_SIZE = 30
_SUMMED, _SIZES = 6, 10

RATE_NUM, RATE_DEN, COUNT, QUALITY, VALUES, N_SECTIONS = 1, 2, 3, 4, 5, 6
ALL, RUNS_ONLY, VALUES_ONLY = (0, N_SECTIONS), (0, QUALITY), (QUALITY, N_SECTIONS)

N_RUNS, FLAGS, SECTION, END, N_VALUES, TABLE_SIZE = 0, 1, 2, 8, 9, 10
"""Of a wave's row of the table: its runs, its byte 1, where the six sections start and the last ends, its values."""

(
    SOUND,
    SHORT,
    FOREIGN,
    DAMAGED,
    OTHER_TYPE,
    BAD_TABLE,
    BAD_RUNS,
    TOO_LARGE,
    BAD_RATE,
    BAD_VALUES,
) = range(10)

_I = np.int64  # constants of this type are no literals, so callees are compiled once
_INT64, _BYTE = Form(7, 8, SIGNED), Form(0, 1, UNSIGNED)
_PIECE, _0 = _I(PIECE), np.uint64(0)
_NS, _EXACT_BELOW = np.uint64(1_000_000_000), np.uint64(9_000_000_000)

Places = tuple[Int, Int, Int]
"""Where a wave is in `Sections`: its first run, the runs of all waves, its first value."""


class Sections(NamedTuple):
    """``runs: uint8[4 * R * 8]``, one column after the other; ``quality: uint8[N]``; ``rows: uint8[N * width]``."""

    runs: U8
    quality: U8
    rows: U8


class WaveSource(NamedTuple):
    """What is encoded: runs and values in any order; ``first, n: int64[R]``: the values of each run."""

    sections: Sections
    first: I64
    n: I64


class WavesWritten(NamedTuple):
    """Where encoded waves go (`headrace.codecs.wave.EncodedWaves`); `check` is the payload, not writable."""

    payload: U8
    check: U8
    offsets: I64
    n_of_class: I64


class WaveBench(NamedTuple):
    """Scratch of one call, sized for its largest wave: what it is, what is read back, its row of the table."""

    source: Sections
    back: Sections
    table: I64
    room: PieceRoom


def new_sections(n_runs: int, n: int, width: int) -> Sections:
    """Room for so many runs and values."""
    return Sections(np.empty(32 * n_runs, np.uint8), np.empty(n, np.uint8), np.empty(n * width, np.uint8))


def new_wave_bench(n_runs: int, n: int, width: int) -> WaveBench:
    """Scratch to encode waves of up to so many runs and values."""
    most = max(series_size_max(n_runs, 8, PIECE), series_size_max(n, width, PIECE))
    source, back = (new_sections(n_runs, n, width) for _ in range(2))
    room = new_wave_room(max(n_runs, n), most)
    return WaveBench(source, back, np.zeros(TABLE_SIZE, np.int64), room)


def new_wave_room(n: int, body_size: int) -> PieceRoom:
    """Scratch for series of up to n numbers, whose bytes are `body_size` at most; 0 to decode."""
    return new_piece_room(PIECE, -(-n // PIECE), body_size)


def waves_size_max(n_waves: int, n_runs: int, n: int, width: int) -> int:
    """Bytes that so many waves of so many runs and values in all never pass."""
    pieces = n_waves * N_SECTIONS + (4 * n_runs + 2 * n) // PIECE
    return n_waves * HEADER_SIZE + pieces * (10 + 1 + HEAD_SIZE_MAX) + 32 * n_runs + n * (1 + width)


@leaf
def _form_of(section: Int, form: Form) -> Form:
    """What the numbers of a section are."""
    if section < QUALITY:
        return _INT64
    if section == QUALITY:
        return _BYTE
    return form


@glue
def _part(sections: Sections, section: Int, places: Places, width: Int) -> U8:
    """The bytes of a section, from the first of a wave on."""
    first_run, n_runs, first_value = places
    part = sections.rows[first_value * width :]
    if section < QUALITY:
        part = sections.runs[(section * n_runs + first_run) * 8 :]
    elif section == QUALITY:
        part = sections.quality[first_value:]
    return part


@leaf
def _sum(data: U8, pos: Int, end: Int) -> np.uint64:
    return checksum(data, pos + _SUMMED, end, np.int64(data[pos]) | np.int64(data[pos + 1]) << 8)


@step
def _load_wave(source: WaveSource, order: I64, width: Int, into: Sections) -> Int:
    """Copy the runs that `order` names, and their values; returns how many values."""
    n_all = source.n.size
    n: Int = ZERO
    for i in range(order.size):
        run = order[i]
        for s in range(QUALITY):
            word = get_word(source.sections.runs, (s * n_all + run) * 8)
            put_word(into.runs, (s * order.size + i) * 8, word)
        a, b = source.first[run], n
        n += source.n[run]
        for j in range(source.n[run] * width):
            into.rows[b * width + j] = source.sections.rows[a * width + j]
        for j in range(source.n[run] if source.sections.quality.size > 0 else 0):
            into.quality[b + j] = source.sections.quality[a + j]
    return n


@step
def _count_classes(quality: U8, n: Int, out: I64) -> bool:
    """How many values are of each class; returns whether a quality is not 0."""
    not_good = 0
    for c in range(4):
        count = 0
        for i in range(n):
            count += 1 if quality[i] >> 6 == c else 0
        out[c] = count
    for i in range(n):
        not_good |= quality[i]
    return not_good != 0


@glue
def _put_wave(bench: WaveBench, shape: tuple[Int, Int], form: Form, flags: Int, out: U8, pos: Int) -> Int:
    """Encode the wave in the workbench at `pos`; returns the end."""
    n_runs, n = shape
    places = (ZERO, n_runs, ZERO)
    end = pos + HEADER_SIZE
    for s in range(N_SECTIONS):
        start = end
        rows = _part(bench.source, s, places, form.width)
        if s == VALUES and flags & PLAIN:
            for i in range(n * form.width):
                out[start + i] = rows[i]
            end = start + n * form.width
        elif s != QUALITY or flags & HAS_QUALITY:
            count = n_runs if s < QUALITY else n
            end = put_series(rows, count, _form_of(s, form), _PIECE, out, start, bench.room)
        if s != VALUES:
            put_fixed(out, pos + _SIZES + 4 * s, np.uint64(end - start), np.int64(4))
    out[pos] = np.uint8(VERSION)
    out[pos + 1] = np.uint8(form.code | flags)
    put_fixed(out, pos + _SUMMED, np.uint64(n_runs), np.int64(4))
    put_fixed(out, pos + 2, _sum(out, pos, end), np.int64(4))
    return end


@step
def _open_wave(data: U8, pos: Int, end: Int, code: Int, table: I64) -> Int:
    """Check the header of the wave data[pos:end] and fill its row of the table, but for `N_VALUES`; the reason or `SOUND`."""
    if pos < 0 or end > data.size or end - pos < HEADER_SIZE:
        return SHORT
    if data[pos] != VERSION:
        return FOREIGN
    if _sum(data, pos, end) != get_fixed(data, pos + 2, np.int64(4)):
        return DAMAGED
    flags = np.int64(data[pos + 1])
    if flags & 0x0F != code or flags > 0x0F | HAS_QUALITY | PLAIN:
        return OTHER_TYPE
    n_runs = np.int64(get_fixed(data, pos + _SUMMED, np.int64(4)))
    table[N_RUNS], table[FLAGS], table[N_VALUES] = n_runs, flags, 0
    at = pos + HEADER_SIZE
    short = 0
    for s in range(VALUES):
        table[SECTION + s] = at
        size = np.int64(get_fixed(data, pos + _SIZES + 4 * s, np.int64(4)))
        short += 1 if s < QUALITY and size * PIECE < n_runs else 0
        at += size
    table[SECTION + VALUES], table[END] = at, end
    if at > end or n_runs > N_RUNS_MAX:
        return BAD_TABLE
    return BAD_RUNS if short > 0 else SOUND  # a piece has a byte at least: no memory for what is only claimed


@glue
def _get_sections(
    data: U8, table: I64, which: tuple[Int, Int], form: Form, into: Sections, places: Places, room: PieceRoom
) -> bool:
    """Decode some sections of an opened wave; False where one is not what its row of the table says."""
    sound = True
    for s in range(which[0], which[1]):
        a, b = table[SECTION + s], table[SECTION + s + 1]
        rows = _part(into, s, places, form.width)
        if s == VALUES and table[FLAGS] & PLAIN:
            sound = bool(sound and b - a == table[N_VALUES] * form.width)
            for i in range(b - a if sound else 0):
                rows[i] = data[a + i]
        elif sound and (s != QUALITY or table[FLAGS] & HAS_QUALITY):
            count = table[N_RUNS] if s < QUALITY else table[N_VALUES]
            sound = get_series(data, (a, b), count, _form_of(s, form), _PIECE, rows, room)
    return sound


@step
def _count_values(columns: I64, places: Places, width: Int, table: I64) -> Int:
    """Check the decoded runs of a wave, and put its number of values in the table; the reason or `SOUND`."""
    first, n_all, _ = places
    total: Int = ZERO
    slowest = np.int64(1)
    for r in range(first, first + table[N_RUNS]):
        n = columns[COUNT * n_all + r]
        if n < 0 or n > N_VALUES_MAX:
            return TOO_LARGE
        total += n
        slowest = min(slowest, columns[RATE_NUM * n_all + r], columns[RATE_DEN * n_all + r])
    if total > N_VALUES_MAX:
        return TOO_LARGE
    if slowest < 1:
        return BAD_RATE
    table[N_VALUES] = total
    size = table[END] - table[SECTION + VALUES]
    fits = size == total * width if table[FLAGS] & PLAIN else size * PIECE >= total
    if table[FLAGS] & HAS_QUALITY:
        fits = fits and (table[SECTION + VALUES] - table[SECTION + QUALITY]) * PIECE >= total
    return SOUND if fits else BAD_VALUES


@leaf
def _put_times(t0: np.uint64, num: Int, den: Int, n: Int, out: I64, at: Int) -> None:
    """Times of a run's values: `headrace.core.frames.wave_offsets_ns` behind its first, to the bit."""
    a, b = np.uint64(num), np.uint64(den)
    if a < _EXACT_BELOW // b:
        step, rest = b * _NS // a, b * _NS % a
        if rest == _0:
            for i in range(n):
                out[at + i] = np.int64(t0 + np.uint64(i) * step)
            return
        left = _0
        for i in range(n):
            out[at + i] = np.int64(t0)
            left += rest
            carry = left >= a
            left -= a if carry else _0
            t0 += step + (np.uint64(1) if carry else _0)
        return
    for i in range(n):
        whole = np.int64(i) // num
        beyond = np.uint64(np.int64(i) - whole * num) * b * _NS
        out[at + i] = np.int64(t0 + np.uint64(whole) * b * _NS + np.uint64(np.int64(beyond) // num))


@step
def _put_wave_times(columns: I64, places: Places, n_runs: Int, out: I64) -> None:
    """Times of all values of a wave whose runs are decoded and checked."""
    first, n_all, at = places
    for r in range(first, first + n_runs):
        num, den = columns[RATE_NUM * n_all + r], columns[RATE_DEN * n_all + r]
        n = columns[COUNT * n_all + r]
        _put_times(np.uint64(columns[r]), num, den, n, out, at)
        at += n


@glue
def _same_wave(
    bench: WaveBench, shape: tuple[Int, Int], form: Form, flags: Int, data: U8, at: tuple[Int, Int]
) -> bool:
    """Whether the wave at (start, end) decodes to what is in the workbench, bit for bit."""
    n_runs, n = shape
    table, source, back = bench.table, bench.source, bench.back
    reason = _open_wave(data, at[0], at[1], form.code, table)
    if reason != SOUND or table[N_RUNS] != n_runs or table[FLAGS] != form.code | flags:
        return False
    table[N_VALUES] = n
    if not _get_sections(data, table, ALL, form, back, (ZERO, n_runs, ZERO), bench.room):
        return False
    different = 0
    for i in range(32 * n_runs):
        different |= source.runs[i] ^ back.runs[i]
    for i in range(n * form.width):
        different |= source.rows[i] ^ back.rows[i]
    for i in range(n if flags & HAS_QUALITY else 0):
        different |= source.quality[i] ^ back.quality[i]
    return different == 0


@entry
def encode_waves(
    source: WaveSource, order: I64, starts: I64, form: Form, written: WavesWritten, bench: WaveBench
) -> tuple[Int, Int, Int]:
    """Encode and verify all waves.

    Returns the bytes written, how many waves fell back to plain values, and the wave that did not decode even
    so, or -1.
    """
    end: Int = ZERO
    fallbacks = 0
    written.offsets[0] = 0
    for g in range(starts.size - 1):
        runs = order[starts[g] : starts[g + 1]]
        n = _load_wave(source, runs, form.width, bench.source)
        shape = (runs.size, n)
        flags = 0
        if source.sections.quality.size == 0:
            written.n_of_class[g, 0] = n
        elif _count_classes(bench.source.quality, n, written.n_of_class[g]):
            flags = HAS_QUALITY
        pos = end
        failures = 0
        while failures < 2:
            kind = flags | (PLAIN if failures == 1 else 0)
            end = _put_wave(bench, shape, form, kind, written.payload, pos)
            if _same_wave(bench, shape, form, kind, written.check, (pos, end)):
                break
            failures += 1
        if failures == 2:
            return end, fallbacks, g
        fallbacks += failures
        written.offsets[g + 1] = end
    return end, fallbacks, -1


@entry
def open_waves(data: U8, offsets: I64, code: Int, table: I64) -> tuple[Int, Int]:
    """Open all waves; fills ``table: int64[G, TABLE_SIZE]``. Returns the reason or `SOUND`, and the wave at fault."""
    for g in range(offsets.size - 1):
        reason = _open_wave(data, offsets[g], offsets[g + 1], code, table[g])
        if reason != SOUND:
            return reason, g
    return SOUND, 0


@entry
def decode_waves(
    data: U8, table: I64, which: tuple[Int, Int], form: Form, into: Sections, ts_ns: I64, room: PieceRoom
) -> tuple[Int, Int]:
    """Decode sections of opened waves: `RUNS_ONLY`, which says how many values there are, then `VALUES_ONLY` and times.

    Two calls of one kernel, since memory is taken in between. Returns the reason or `SOUND`, and the wave at fault.
    """
    first_run: Int = ZERO
    first_value: Int = ZERO
    columns = into.runs.view(np.int64)
    for g in range(table.shape[0]):
        places = (first_run, columns.size // QUALITY, first_value)
        found = _get_sections(data, table[g], which, form, into, places, room)
        if which[0] == QUALITY:
            if not found:
                return BAD_VALUES, g
            _put_wave_times(columns, places, table[g, N_RUNS], ts_ns)
            first_value += table[g, N_VALUES]
        else:
            reason = _count_values(columns, places, form.width, table[g]) if found else BAD_RUNS
            if reason != SOUND:
                return reason, g
        first_run += table[g, N_RUNS]
    return SOUND, 0
