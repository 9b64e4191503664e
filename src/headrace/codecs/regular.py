"""Times at one interval: a start and a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from headrace.codecs.base import I64, SeriesCodec, Unfit

_START_SIZE = 8


@dataclass(frozen=True, slots=True)
class RegularTime(SeriesCodec):
    """``t0 + i * step``, modulo 2**64.

    The body is t0 in 8 bytes and the step in as few as hold it, both signed nanoseconds, little endian.
    """

    name: ClassVar[str] = "regular"

    def pack(self, ts_ns: I64) -> bytes:
        """Encode ``ts_ns: int64[n]``; `Unfit` where the interval changes."""
        start = int(ts_ns[0]) if ts_ns.size else 0
        step = _wrapped(int(ts_ns[1]) - start) if ts_ns.size > 1 else 0
        if (ts_ns.size > 2 and _wrapped(int(ts_ns[2]) - int(ts_ns[1])) != step) or not np.array_equal(
            ts_ns, _times(start, step, ts_ns.size)
        ):
            raise Unfit("the interval changes")
        size = (step + (step < 0)).bit_length() // 8 + 1
        return start.to_bytes(8, "little", signed=True) + step.to_bytes(size, "little", signed=True)

    def unpack(self, body: bytes, n: int) -> I64:
        """Decode n times."""
        if not _START_SIZE < len(body) <= 2 * _START_SIZE:
            raise self.damaged(f"{len(body)} bytes, 9 to 16 expected")
        start, step = (
            int.from_bytes(part, "little", signed=True) for part in (body[:_START_SIZE], body[_START_SIZE:])
        )
        return _times(start, step, n)


def _wrapped(distance: int) -> int:
    """Modulo 2**64, as int64."""
    return (distance + 2**63) % 2**64 - 2**63


def _times(start: int, step: int, n: int) -> I64:
    return np.int64(start) + np.arange(n, dtype=np.int64) * np.int64(step)
