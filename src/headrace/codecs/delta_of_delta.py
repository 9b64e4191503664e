"""Times whose interval jitters: the change of the interval, in ticks, with Rice codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from headrace.codecs.base import I64, SeriesCodec
from headrace.codecs.rice_delta import RiceDeltaCodec


@dataclass(frozen=True, slots=True)
class DeltaOfDeltaTime(SeriesCodec):
    """A series of integer columns (`headrace.codecs.series_kernels`); each finds its tick and its order.

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

    def pack(self, ts_ns: I64) -> bytes:
        """Encode ``ts_ns: int64[n]``."""
        from headrace.codecs.series_kernels import series_body

        return series_body(ts_ns, self.piece)

    def unpack(self, body: bytes, n: int) -> I64:
        """Decode n times."""
        from headrace.codecs.series_kernels import series_values

        times = series_values(body, n, np.dtype(np.int64), self.piece)
        if times is None:
            raise self.damaged(f"it does not hold {n} times")
        return times
