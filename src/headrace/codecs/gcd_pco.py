"""Irregular times over long runs: ticks of the common divisor, by pcodec."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from headrace.codecs.base import I64, SeriesCodec
from headrace.codecs.pco import PcoCodec

_HEAD = struct.Struct("<qq")


@dataclass(frozen=True, slots=True)
class GcdPcoTime(SeriesCodec):
    """``t0 + tick * k[i]``: the body is t0 and tick as int64, then pcodec's payload of k (int64).

    Milliseconds in nanoseconds waste 20 bits a time unless divided out first.

    Parameters
    ----------
    level : as of `headrace.codecs.pco.PcoCodec`.
    """

    level: int = 6
    name: ClassVar[str] = "gcd_pco"

    def __post_init__(self) -> None:
        PcoCodec(self.level)

    def pack(self, ts_ns: I64) -> bytes:
        """Encode ``ts_ns: int64[n]``."""
        start = ts_ns[0] if ts_ns.size else np.int64(0)
        distance = ts_ns - start
        tick = max(int(np.gcd.reduce(distance)), 1)
        ticks = PcoCodec(self.level).encode(distance // tick)
        return _HEAD.pack(int(start), tick) + ticks

    def unpack(self, body: bytes, n: int) -> I64:
        """Decode n times."""
        if len(body) < _HEAD.size:
            raise self.damaged(f"{len(body)} bytes, at least {_HEAD.size} expected")
        start, tick = _HEAD.unpack_from(body)
        ticks = PcoCodec(self.level).decode(body[_HEAD.size :], n, np.dtype(np.int64))
        times: I64 = np.int64(start) + np.int64(tick) * ticks
        return times
