"""Times at one interval: a start and a step."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from headrace.codecs.base import I64, SeriesCodec, Unfit

_BODY = struct.Struct("<qq")


@dataclass(frozen=True, slots=True)
class RegularTime(SeriesCodec):
    """``t0 + i * step``: the body is both as int64 nanoseconds, little endian; modulo 2**64."""

    name: ClassVar[str] = "regular"

    def encode(self, ts_ns: I64) -> bytes:
        """Encode ``ts_ns: int64[n]``; `Unfit` where the interval changes."""
        start = int(ts_ns[:1].sum())
        step = int((ts_ns[1:2] - ts_ns[:1][: ts_ns.size - 1]).sum())
        if not np.array_equal(ts_ns, _times(start, step, ts_ns.size)):
            raise Unfit("the interval changes")
        return self.seal(_BODY.pack(start, step))

    def decode(self, payload: bytes, n: int) -> I64:
        """Decode n times."""
        body = self.unseal(payload)
        if len(body) != _BODY.size:
            raise self.damaged(f"{len(body)} bytes, {_BODY.size} expected")
        start, step = _BODY.unpack(body)
        return _times(start, step, n)


def _times(start: int, step: int, n: int) -> I64:
    return np.int64(start) + np.arange(n, dtype=np.int64) * np.int64(step)
