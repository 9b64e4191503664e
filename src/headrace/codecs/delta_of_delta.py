"""Times whose interval jitters: the change of the interval, in ticks, with Rice codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from headrace.codecs.base import I64, SeriesCodec
from headrace.codecs.rice_delta import RiceDeltaCodec


@dataclass(frozen=True, slots=True)
class DeltaOfDeltaTime(SeriesCodec):
    """Integer columns of the times; each piece finds its tick (the common divisor) and its order.

    Jitter around an interval is cheapest as interval and deviation, drifting clocks as change of the
    interval; the column takes the smaller one.

    Parameters
    ----------
    piece : as of `headrace.codecs.rice_delta.RiceDeltaCodec`.
    """

    piece: int = 1024
    name: ClassVar[str] = "delta_of_delta"

    def __post_init__(self) -> None:
        RiceDeltaCodec(self.piece)

    def encode(self, ts_ns: I64) -> bytes:
        """Encode ``ts_ns: int64[n]``."""
        return self.seal(RiceDeltaCodec(self.piece).encode(ts_ns))

    def decode(self, payload: bytes, n: int) -> I64:
        """Decode n times."""
        return RiceDeltaCodec(self.piece).decode(self.unseal(payload), n, np.dtype(np.int64))
