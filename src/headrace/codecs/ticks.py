"""Times of any sensor over long runs: whole ticks from the first, beside a line where the clock is no whole tick."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from headrace.codecs.base import I64, SeriesCodec
from headrace.core.errors import CorruptionError

_LINE = struct.Struct("<df")
_SOUND, _ELSEWHERE = 0, 2  # of `headrace.codecs.integer_kernels`, which is loaded late
_PLAIN, _ON_LINE, _BY_GAPS = 0, 1, 2
_GAPS_FROM = 64  # fewer times have no use for a table of gaps


@dataclass(frozen=True, slots=True)
class TicksTime(SeriesCodec):
    """``t0 + tick * k[i]``, where k is coded as integers, or what it is beyond ``floor(i * step + offset + 0.5)``.

    Milliseconds in nanoseconds waste 20 bits a time unless divided out first; a clock of 12 kHz, cut to whole
    nanoseconds, wastes one or two unless its line is known; gaps of which there are few, far apart, are told once. The
    body is a flag, t0 and the tick as signed varints, and as the flag says

    0. k;
    1. step and offset of the line as float64 and float32, k less the line;
    2. by how much k rises, from the second time on,

    as integers (`headrace.codecs.integers`).
    """

    name: ClassVar[str] = "ticks"

    def pack(self, ts_ns: I64) -> bytes:
        """Encode ``ts_ns: int64[n]``."""
        return packed_ticks(ts_ns) or self._packed(ts_ns)

    def _packed(self, ts_ns: I64) -> bytes:
        """Of times too far apart for the kernel, or that pco may make shorter."""
        from headrace.codecs.integers import encode_integers, encode_sparse
        from headrace.codecs.packing import put_signed

        start = ts_ns[0] if ts_ns.size else np.int64(0)
        number, tick = _counted(ts_ns, start)
        head = put_signed(int(start)) + put_signed(tick)
        sparse = encode_sparse(number)
        bodies = [bytes([_PLAIN]) + head + (sparse or encode_integers(number))]
        line = None if sparse else _line_of(number)
        if line is not None:
            left = number - _on_line(number.size, *line)
            bodies.append(bytes([_ON_LINE]) + head + _LINE.pack(*line) + encode_integers(left))
        gaps = _packed_gaps(ts_ns)
        return min([*bodies, gaps] if gaps else bodies, key=len)

    def unpack(self, body: bytes, n: int) -> I64:
        """Decode n times."""
        decode_ticks, scratch_for, wrapping = _kernels()
        out = np.empty(n, np.int64)
        work = scratch_for(len(body))
        with wrapping():
            found, *rest = decode_ticks(np.frombuffer(body, np.uint8), work, np.empty(n, np.int64), out)
        if found == _ELSEWHERE:
            return self._from_pco(body, n, *rest)
        if found != _SOUND:
            raise self.damaged(f"it does not hold {n} times")
        return out

    def _from_pco(self, body: bytes, n: int, start: int, tick: int, at: int) -> I64:
        from headrace.codecs.integers import decode_integers

        are_gaps = body[0] == _BY_GAPS
        try:
            number = decode_integers(body[at:], n - are_gaps)
        except CorruptionError as e:
            raise self.damaged(str(e)) from e
        if are_gaps:
            number = np.cumsum(np.append(0, number))
        elif body[0] == _ON_LINE:
            number = number + _on_line(n, *_LINE.unpack_from(body, at - _LINE.size))
        times: I64 = np.uint64(start).astype(np.int64) + np.uint64(tick).astype(np.int64) * number
        return times


def packed_ticks(ts_ns: I64) -> bytes:
    """A body of ``ts_ns: int64[n]`` that was decoded and compared; nothing where only `TicksTime.pack` has one."""
    if not ts_ns.size:
        return b""
    from headrace.codecs import integer_coding, tick_kernels
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.model import scratch_for

    n = ts_ns.size
    room, outs = integer_coding.rooms(n)
    out = np.empty(tick_kernels.HEAD_MAX + outs[0].size, np.uint8)
    long = np.empty(4 * n + tick_kernels.GAPS + 1, np.int64)
    with wrapping():
        size = tick_kernels.pack_ticks(ts_ns, scratch_for(24 * n), (room, long), outs, out)
    return out[:size].tobytes()


def _packed_gaps(ts_ns: I64) -> bytes | None:
    """A body of the gaps between times; None where too many are different."""
    from headrace.codecs.integers import encode_palette
    from headrace.codecs.packing import put_signed

    if ts_ns.size < _GAPS_FROM:
        return None
    gaps = np.diff(ts_ns)
    tick = max(int(np.gcd.reduce(gaps)), 1)
    palette = encode_palette(gaps // tick)
    return palette and bytes([_BY_GAPS]) + put_signed(int(ts_ns[0])) + put_signed(tick) + palette


def _counted(ts_ns: I64, start: np.int64) -> tuple[I64, int]:
    """Whole ticks from the first, and the tick."""
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.tick_kernels import count_ticks

    distance = np.empty(ts_ns.size, np.int64)
    with wrapping():
        tick = int(count_ticks(ts_ns, distance)) if ts_ns.size else 1
    if not tick:  # distances that wrap: modulo 2**64
        distance = ts_ns - start
        tick = max(int(np.gcd.reduce(distance)), 1)
    return distance if tick == 1 else distance // tick, tick


@lru_cache(maxsize=1)
def _kernels() -> tuple[Any, Any, Any]:
    """Numba is loaded when they are needed first."""
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.model import scratch_for
    from headrace.codecs.tick_kernels import decode_ticks

    return decode_ticks, scratch_for, wrapping


def _line_of(number: I64) -> tuple[float, float] | None:
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.tick_kernels import GAPS, line_of

    line = np.empty(2)
    with wrapping():
        found = line_of(number, np.empty(GAPS + 1, np.int64), line)
    return (float(line[0]), float(np.float32(line[1]))) if found else None


def _on_line(n: int, step: float, offset: float) -> I64:
    with np.errstate(invalid="ignore", over="ignore"):
        out: I64 = np.floor(np.arange(n) * step + (offset + 0.5)).astype(np.int64)
    return out
