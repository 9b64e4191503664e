"""Times of waveforms: a start and a rate that is a fraction, never one time a value."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from headrace.codecs.base import I64, SeriesCodec, Unfit
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.core.frames import wave_offsets_ns

_HEAD = struct.Struct("<III")
_WINDOW = 4096
_RUN_MEAN_MIN = 16


@dataclass(frozen=True, slots=True)
class RateTime(SeriesCodec):
    """Runs of ``t0 + i * den / num`` seconds, each time cut to whole nanoseconds.

    12 kHz is no whole number of nanoseconds, and stored as times costs a bit or two a value. The body is the
    number of runs and the lengths of two rice_delta payloads as uint32, then these: the runs' starts and
    counts, int64. Offsets are those of `headrace.core.frames.wave_offsets_ns`.

    Parameters
    ----------
    rate_num, rate_den : values a second, as a fraction; both at least 1.
    """

    rate_num: int = 1
    rate_den: int = 1
    name: ClassVar[str] = "rate"

    def __post_init__(self) -> None:
        if self.rate_num < 1 or self.rate_den < 1:
            raise ValueError(f"rate {self.rate_num}/{self.rate_den}, two positive numbers expected")

    def pack(self, ts_ns: I64) -> bytes:
        """Encode ``ts_ns: int64[n]``; `Unfit` where runs would be shorter than 16 times on average."""
        starts = [0]
        while starts[-1] < ts_ns.size:
            starts.append(starts[-1] + self._run_length(ts_ns[starts[-1] :]))
            if len(starts) > 2 + ts_ns.size // _RUN_MEAN_MIN:
                raise Unfit(f"the times do not follow {self.rate_num}/{self.rate_den} Hz")
        edges = np.array(starts)
        firsts, counts = (RiceDeltaCodec().encode(a) for a in (ts_ns[edges[:-1]], np.diff(edges)))
        return _HEAD.pack(len(starts) - 1, len(firsts), len(counts)) + firsts + counts

    def unpack(self, body: bytes, n: int) -> I64:
        """Decode n times."""
        if len(body) < _HEAD.size:
            raise self.damaged(f"{len(body)} bytes, at least {_HEAD.size} expected")
        runs, size, more = _HEAD.unpack_from(body)
        if runs > n or _HEAD.size + size + more != len(body):
            raise self.damaged(f"{runs} runs in {len(body)} bytes for {n} times")
        parts = body[_HEAD.size : _HEAD.size + size], body[_HEAD.size + size :]
        firsts, counts = (RiceDeltaCodec().decode(part, runs, np.dtype(np.int64)) for part in parts)
        if (counts < 1).any() or (counts > n).any() or int(counts.sum()) != n:
            raise self.damaged(f"its runs do not add up to {n} times")
        return np.repeat(firsts, counts) + self._offsets(_steps(counts))

    def _offsets(self, step: I64) -> I64:
        return wave_offsets_ns(step, np.full(1, self.rate_num), np.full(1, self.rate_den))

    def _run_length(self, ts_ns: I64) -> int:
        """How many times from the first on follow the rate; at least 1."""
        length = 0
        while length < ts_ns.size:
            window = ts_ns[length : length + _WINDOW]
            expected = ts_ns[:1] + self._offsets(np.arange(length, length + window.size))
            wrong = np.flatnonzero(window != expected)
            if wrong.size:
                return length + int(wrong[0])
            length += window.size
        return length


def _steps(counts: I64) -> I64:
    """0, 1, 2 ... within each run."""
    ends = np.cumsum(counts)
    return np.arange(int(counts.sum())) - np.repeat(ends - counts, counts)
