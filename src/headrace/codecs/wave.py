"""Waves: runs of values at a rate, of one sensor. What hot segments hold of wave frames.

An entry is R runs, each ``(t0_ns, rate_num / rate_den, n)``, and one column of all their values. It is decoded
and compared bit for bit when written; if that fails, the values are stored as they are.

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

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from headrace.codecs.base import same_bits
from headrace.core.errors import CorruptionError
from headrace.core.frames import wave_offsets_ns

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

VERSION = 1
N_VALUES_MAX = 1 << 24
N_RUNS_MAX = 1 << 20
_HEAD = struct.Struct("<BBIIIIIII")
_SUMMED = 6
_HAS_QUALITY, _PLAIN = 0x10, 0x20
_PIECE = 1024


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


def encode_wave(runs: WaveRuns, values: Array, quality: U8 | None) -> bytes:
    """Encode runs and their ``values: T[N]``, ``quality: uint8[N]`` or None (all good), and verify them.

    Raises
    ------
    ValueError : the runs' counts do not add up to the values, or there are too many; the caller has a bug.
    """
    columns = [np.ascontiguousarray(c, np.int64) for c in (runs.t0_ns, runs.rate_num, runs.rate_den, runs.n)]
    n = values.size
    if (
        len({c.shape for c in columns}) != 1
        or values.ndim != 1
        or int(runs.n.sum()) != n
        or (runs.n < 0).any()
    ):
        raise ValueError(
            f"{n} values, but runs of {int(runs.n.sum())} in columns {[c.shape for c in columns]}"
        )
    if n > N_VALUES_MAX or runs.n.size > N_RUNS_MAX:
        raise ValueError(
            f"{n} values in {runs.n.size} runs, at most {N_VALUES_MAX} in {N_RUNS_MAX}; split it"
        )
    if (runs.rate_num < 1).any() or (runs.rate_den < 1).any():
        raise ValueError("a rate is a fraction of two positive numbers")
    if quality is not None and (quality.shape != values.shape or quality.dtype != np.uint8):
        raise ValueError(f"quality: uint8{values.shape} expected, got {quality.dtype}{quality.shape}")
    payload = _assemble(columns, values, quality, plain=0)
    if not _holds(payload, columns, values, quality):
        payload = _assemble(columns, values, quality, plain=_PLAIN)
    return payload


def decode_wave(
    payload: bytes | bytearray | memoryview, dtype: np.dtype[Any]
) -> tuple[WaveRuns, Array, U8 | None]:
    """Decode runs, ``values: T[N]`` and ``quality: uint8[N]`` or None (all good).

    Raises
    ------
    CorruptionError : these bytes are not such an entry, or are damaged; quarantine them.
    """
    from headrace.codecs.series_kernels import series_values
    from headrace.codecs.values import form_of

    data = bytes(payload)
    if len(data) < _HEAD.size:
        raise _damaged(f"{len(data)} bytes, at least {_HEAD.size} expected")
    version, flags, checksum, n_runs, *sizes = _HEAD.unpack_from(data)
    if version != VERSION or checksum != _sum(data):
        raise _damaged(f"version {version}, or its checksum is wrong")
    if flags & 0x0F != form_of(dtype).code or flags > 0x0F | _HAS_QUALITY | _PLAIN:
        raise _damaged(f"its values are not {dtype}")
    parts = _split(data, sizes)
    if parts is None or n_runs > N_RUNS_MAX:
        raise _damaged("its sections do not fit its length")
    columns = [series_values(part, n_runs, np.dtype(np.int64), _PIECE) for part in parts[:4]]
    found = [c for c in columns if c is not None]
    if len(found) < 4:
        raise _damaged("its runs can't be decoded")
    runs = WaveRuns(*found)
    if (runs.n < 0).any() or (runs.n > N_VALUES_MAX).any() or int(runs.n.sum()) > N_VALUES_MAX:
        raise _damaged("it claims more values than an entry may have")
    if (runs.rate_num < 1).any() or (runs.rate_den < 1).any():
        raise _damaged("a rate is not positive")
    n = int(runs.n.sum())
    quality = series_values(parts[4], n, np.dtype(np.uint8), _PIECE) if flags & _HAS_QUALITY else None
    values = (
        _plain_values(parts[5], n, dtype) if flags & _PLAIN else series_values(parts[5], n, dtype, _PIECE)
    )
    if values is None or (flags & _HAS_QUALITY and quality is None):
        raise _damaged("its values can't be decoded")
    return runs, values, quality


def _assemble(columns: list[I64], values: Array, quality: U8 | None, plain: int) -> bytes:
    from headrace.codecs.series_kernels import series_body
    from headrace.codecs.values import form_of

    parts = [series_body(column, _PIECE) for column in columns]
    has_quality = quality is not None and bool(quality.any())
    parts.append(series_body(quality, _PIECE) if quality is not None and has_quality else b"")
    flags = form_of(values.dtype).code | (_HAS_QUALITY if has_quality else 0) | plain
    body = b"".join(parts) + (values.tobytes() if plain else series_body(values, _PIECE))
    head = _HEAD.pack(VERSION, flags, 0, columns[0].size, *(len(part) for part in parts))
    data = head + body
    return data[:2] + struct.pack("<I", _sum(data)) + data[_SUMMED:]


def _holds(payload: bytes, columns: list[I64], values: Array, quality: U8 | None) -> bool:
    """Whether the payload decodes to exactly this."""
    try:
        runs, got, got_quality = decode_wave(payload, values.dtype)
    except CorruptionError:
        return False
    pairs = zip((runs.t0_ns, runs.rate_num, runs.rate_den, runs.n), columns, strict=True)
    same = all(same_bits(one, other) for one, other in pairs) and same_bits(got, values)
    if quality is None or not quality.any():
        return same and got_quality is None
    return same and got_quality is not None and same_bits(got_quality, quality)


def _split(data: bytes, sizes: list[int]) -> list[bytes] | None:
    """The sections, the values last; None where they are longer than the data."""
    at = _HEAD.size
    parts = []
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return [*parts, data[at:]] if at <= len(data) else None


def _plain_values(part: bytes, n: int, dtype: np.dtype[Any]) -> Array | None:
    return np.frombuffer(part, dtype) if len(part) == n * dtype.itemsize else None


def _sum(data: bytes) -> int:
    return int(xxhash.xxh64_intdigest(data[_SUMMED:], data[0] | data[1] << 8) & 0xFFFFFFFF)


def _damaged(what: str) -> CorruptionError:
    return CorruptionError(f"wave entry can't be read: {what}; quarantine the segment and restore it")
