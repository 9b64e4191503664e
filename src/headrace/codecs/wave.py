"""Waves: runs of values at a rate, of one sensor. What hot segments hold of wave frames.

An entry is R runs, each ``(t0_ns, rate_num / rate_den, n)``, and one column of all their values. Entries are coded
many at a time, without the GIL, and each is decoded and compared bit for bit before the call returns; where one
differs, its values are stored as they are.

Format, version 1
-----------------
Numbers are little endian; *series* is a body of `headrace.codecs.series_kernels` in pieces of 1024::

    byte 0      version = 1
    byte 1      bits 0-3: type of the values, an index into u8 i8 u16 i16 u32 i32 u64 i64 f32 f64;
                bit 4: has quality; bit 5: the values are their plain bytes, not a series
    bytes 2-5   the low 32 bits of XXH64 of bytes 6 to the end, seed = bytes 0-1 as a number
    6 * uint32  R, bytes of the four run columns (t0_ns, rate_num, rate_den, n), bytes of the quality
    4 series    the run columns, int64
    series      the quality, uint8[N], where byte 1 says that there is one
    series      the values, T[N] with N the sum of n, up to the end
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import CorruptionError
from headrace.core.frames import wave_offsets_ns

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Payload = bytes | bytearray | memoryview | U8

VERSION = 1
N_VALUES_MAX = 1 << 24
N_RUNS_MAX = 1 << 20
HAS_QUALITY, PLAIN = 0x10, 0x20
PIECE = 1024

N_READ_MAX = 1 << 28
"""Values, and numbers of runs, that one call decodes at most; a larger read is split by the caller."""

_REASONS = (
    "sound",
    "it is shorter than a header",
    "its version is not 1; a newer release wrote it",
    "its checksum is wrong",
    "its values have another type than expected",
    "its sections do not fit its length",
    "its runs can't be decoded",
    "it claims more values than an entry may have",
    "a rate is not positive",
    "its values can't be decoded",
)


@dataclass(frozen=True, slots=True, eq=False)
class WaveRuns:
    """R runs of values: ``t0_ns``, ``rate_num``, ``rate_den`` (values a second as a fraction), ``n``: int64[R]."""

    t0_ns: I64
    rate_num: I64
    rate_den: I64
    n: I64

    def ts_ns(self) -> I64:
        """Time of each value, int64[N]."""
        ends = np.cumsum(self.n)
        step = np.arange(int(self.n.sum())) - np.repeat(ends - self.n, self.n)
        offsets = wave_offsets_ns(step, np.repeat(self.rate_num, self.n), np.repeat(self.rate_den, self.n))
        return np.repeat(self.t0_ns, self.n) + offsets


@dataclass(frozen=True, slots=True, eq=False)
class EncodedWaves:
    """G entries one behind the other.

    Parameters
    ----------
    payload : uint8[n], entry g is ``payload[offsets[g]:offsets[g + 1]]``.
    offsets : int64[G + 1].
    n_of_class : int64[G, 4], values whose quality is good, uncertain, bad, absent.
    n_fallbacks : entries whose verification failed and whose values are stored plain; more than 0 is a fault
        of ours and worth a report, but nothing is lost.
    """

    payload: U8
    offsets: I64
    n_of_class: I64
    n_fallbacks: int


@dataclass(frozen=True, slots=True, eq=False)
class DecodedWaves:
    """G entries one behind the other.

    Parameters
    ----------
    runs : the runs of all.
    run_starts : int64[G + 1], entry g is runs ``run_starts[g]:run_starts[g + 1]``.
    ts_ns : int64[N].
    values : T[N].
    quality : uint8[N], or None where all are 0 (good).
    starts : int64[G + 1], entry g is values ``starts[g]:starts[g + 1]``.
    """

    runs: WaveRuns
    run_starts: I64
    ts_ns: I64
    values: Array
    quality: U8 | None
    starts: I64


def encode_waves(
    runs: WaveRuns, values: Array, quality: U8 | None, order: Array, starts: Array
) -> EncodedWaves:
    """Encode runs as entries, and verify each.

    Parameters
    ----------
    values : T[N], those of each run behind those of the run before; one of the ten value types.
    quality : uint8[N]; None means all good.
    order : int64[M], runs sorted by entry, in the order in which they are to be stored.
    starts : int64[G + 1], entry g is runs ``order[starts[g]:starts[g + 1]]``.

    Raises
    ------
    ValueError : arrays that do not fit together, indices out of range, a rate that is not positive, or an
        entry larger than the format allows; the caller has a bug.
    CorruptionError : an entry does not decode to its values even when stored plain; nothing may be acknowledged.

    Notes
    -----
    Cost: 3,000 16-bit values in 12 runs take about 15 ns of CPU a value, floats 25 to 35; `decode_waves` 7 to 10.

    Examples
    --------
    >>> import numpy as np
    >>> runs = WaveRuns(*(np.array(c) for c in ([0, 10**9], [4, 4], [1, 1], [2, 1])))
    >>> done = encode_waves(runs, np.array([7, 8, 9], np.int16), None, np.arange(2), np.array([0, 1, 2]))
    >>> read = decode_waves(done.payload, done.offsets, np.dtype(np.int16))
    >>> read.ts_ns.tolist(), read.values.tolist(), read.starts.tolist()
    ([0, 250000000, 1000000000], [7, 8, 9], [0, 2, 3])
    """
    from headrace.codecs import wave_kernels as kernels
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.values import form_of, readonly

    form = form_of(values.dtype)
    order, starts = readonly(order, np.int64), readonly(starts, np.int64)
    columns = [readonly(c, np.int64) for c in (runs.t0_ns, runs.rate_num, runs.rate_den, runs.n)]
    _check_runs(columns, values, quality)
    n_runs, n = _check_sizes(columns[3], order, starts)
    marks = np.empty(0, np.uint8) if quality is None else quality
    parts = np.concatenate(columns).view(np.uint8), marks, np.ascontiguousarray(values).view(np.uint8)
    source = kernels.WaveSource(
        sections=kernels.Sections(*(readonly(part, np.uint8) for part in parts)),
        first=readonly(np.cumsum(columns[3]) - columns[3], np.int64),
        n=columns[3],
    )
    payload = np.empty(kernels.waves_size_max(n.size, order.size, int(n.sum()), form.width), np.uint8)
    written = kernels.WavesWritten(
        payload=payload,
        check=readonly(payload, np.uint8),
        offsets=np.zeros(n.size + 1, np.int64),
        n_of_class=np.zeros((n.size, 4), np.int64),
    )
    bench = kernels.new_wave_bench(int(n_runs.max(initial=0)), int(n.max(initial=0)), form.width)
    with wrapping():  # arithmetic modulo 2**64 is meant
        size, fallbacks, failed = kernels.encode_waves(source, order, starts, form, written, bench)
    if failed >= 0:
        raise CorruptionError(
            f"wave {failed} of {n.size} ({n[failed]} values in {n_runs[failed]} runs, {values.dtype}) does not decode to "
            f"what was encoded, not even plain: memory is failing or this release is broken; acknowledge nothing of it"
        )
    return EncodedWaves(payload[:size].copy(), written.offsets, written.n_of_class, int(fallbacks))


def decode_waves(payload: Payload, offsets: Array, dtype: np.dtype[Any]) -> DecodedWaves:
    """Decode many entries in one pass.

    Parameters
    ----------
    payload, offsets : entry g is ``payload[offsets[g]:offsets[g + 1]]``; as an Arrow column of binaries has it.

    Raises
    ------
    CorruptionError : these bytes are not such entries, or are damaged, and the text says which; quarantine them.
    ValueError : the entries hold more than `N_READ_MAX` values.
    """
    from headrace.codecs import wave_kernels as kernels
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.values import form_of, readonly

    data = readonly(np.frombuffer(payload, np.uint8), np.uint8)
    offsets = readonly(offsets, np.int64)
    form = form_of(dtype)
    table = np.zeros((offsets.size - 1, kernels.TABLE_SIZE), np.int64)
    of, ts_ns = (offsets, dtype), np.empty(0, np.int64)
    with wrapping():
        _check_read(kernels.open_waves(data, offsets, form.code, table), of)
        run_starts = _starts(table[:, kernels.N_RUNS], 4)
        into = kernels.new_sections(int(run_starts[-1]), 0, form.width)
        room = kernels.new_wave_room(int(table[:, kernels.N_RUNS].max(initial=0)), 0)
        _check_read(kernels.decode_waves(data, table, kernels.RUNS_ONLY, form, into, ts_ns, room), of)
        starts = _starts(table[:, kernels.N_VALUES], 1)
        n = int(starts[-1])
        has_quality = bool((table[:, kernels.FLAGS] & HAS_QUALITY).any())
        quality = np.zeros(n if has_quality else 0, np.uint8)
        into = into._replace(quality=quality, rows=np.empty(n * form.width, np.uint8))
        ts_ns = np.empty(n, np.int64)
        room = kernels.new_wave_room(int(table[:, kernels.N_VALUES].max(initial=0)), 0)
        _check_read(kernels.decode_waves(data, table, kernels.VALUES_ONLY, form, into, ts_ns, room), of)
    runs = WaveRuns(*into.runs.view(np.int64).reshape(4, -1))
    return DecodedWaves(
        runs, run_starts, ts_ns, into.rows.view(dtype), quality if has_quality else None, starts
    )


def encode_wave(runs: WaveRuns, values: Array, quality: U8 | None) -> bytes:
    """Encode runs and their ``values: T[N]``, ``quality: uint8[N]`` or None (all good), as one entry.

    Raises
    ------
    ValueError, CorruptionError : as `encode_waves`.
    """
    n = runs.n.size
    return encode_waves(runs, values, quality, np.arange(n), np.array([0, n])).payload.tobytes()


def decode_wave(payload: Payload, dtype: np.dtype[Any]) -> tuple[WaveRuns, Array, U8 | None]:
    """Decode the runs, ``values: T[N]`` and ``quality: uint8[N]`` or None (all good) of one entry.

    Raises
    ------
    CorruptionError : these bytes are not such an entry, or are damaged; quarantine them.
    """
    read = decode_waves(payload, np.array([0, len(payload)]), dtype)
    return read.runs, read.values, read.quality


def _check_runs(columns: list[I64], values: Array, quality: U8 | None) -> None:
    """The kernels do not check again."""
    n, counts = values.size, columns[3]
    if (
        len({c.shape for c in columns}) != 1
        or values.ndim != 1
        or int(counts.sum()) != n
        or (counts < 0).any()
    ):
        raise ValueError(
            f"{n} values, but runs of {int(counts.sum())} in columns {[c.shape for c in columns]}"
        )
    if (columns[1] < 1).any() or (columns[2] < 1).any():
        raise ValueError("a rate is a fraction of two positive numbers")
    if quality is not None and (quality.shape != values.shape or quality.dtype != np.uint8):
        raise ValueError(f"quality: uint8{values.shape} expected, got {quality.dtype}{quality.shape}")


def _check_sizes(counts: I64, order: I64, starts: I64) -> tuple[I64, I64]:
    """Runs and values of each entry."""
    if order.ndim != 1 or (order.size and not 0 <= int(order.min()) <= int(order.max()) < counts.size):
        raise ValueError(f"order names runs that are not among the {counts.size}")
    n_runs = np.diff(starts)
    if not starts.size or starts[0] < 0 or starts[-1] > order.size or n_runs.min(initial=0) < 0:
        raise ValueError(f"starts: expected to rise from 0 to {order.size}")
    ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts[order])))
    n = np.diff(ends[starts])
    if n.max(initial=0) > N_VALUES_MAX or n_runs.max(initial=0) > N_RUNS_MAX:
        raise ValueError(
            f"an entry of up to {n.max()} values in {n_runs.max()} runs, at most {N_VALUES_MAX} in {N_RUNS_MAX}; split it"
        )
    return n_runs, n


def _starts(sizes: I64, numbers: int) -> I64:
    """Where each entry starts, once the numbers of all are within bounds."""
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    n = int(starts[-1]) * numbers
    if n > N_READ_MAX:
        raise ValueError(f"{n} numbers in one read, at most {N_READ_MAX}; read fewer waves at a time")
    return starts


def _check_read(found: tuple[Any, Any], of: tuple[I64, np.dtype[Any]]) -> None:
    reason, wave = found
    offsets, dtype = of
    if reason:
        where = f"wave {wave} of {offsets.size - 1} (bytes {offsets[wave]} to {offsets[wave + 1]}, {dtype})"
        raise CorruptionError(
            f"{where} can't be read: {_REASONS[reason]}; quarantine the segment and restore it"
        )
