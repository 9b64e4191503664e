"""Piecewise constant: the longest runs whose values span no more than twice the bound, at their mid-range.

Levels lie a quarter of the bound apart, so a run reaches nearly as far as with a free level: plateaus with noise of
about the bound take fewer runs than `hold` needs, at two more bits a run.

Source: PMC-MR in I. Lazaridis, S. Mehrotra, "Capturing sensor-generated time series with quality guarantees",
ICDE 2003; here with the mid-range on a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headrace.codecs.levels import F64, BoundedCodec, Room, usable
from headrace.codecs.runs import runs_body, runs_values

_LEVELS_A_BOUND = 4


@dataclass(frozen=True, slots=True)
class PiecewiseConstantCodec(BoundedCodec):
    """Runs of one level (`headrace.codecs.runs`), levels a quarter of `eps` apart.

    Parameters
    ----------
    eps : the bound, in the values' unit, above 0.

    Examples
    --------
    >>> import numpy as np
    >>> codec = PiecewiseConstantCodec(eps=0.5)
    >>> payload = codec.encode(np.array([20.0, 20.4, 20.9, 20.1, 23.0, 23.2]))
    >>> codec.decode(payload, 6, np.dtype(np.float64)).round(3).tolist()
    [20.5, 20.5, 20.5, 20.5, 23.125, 23.125]
    """

    name: ClassVar[str] = "piecewise_constant"

    def _pack(self, x: F64, room: Room) -> bytes:
        reach = usable(self.eps, room.spare)
        return room.head + runs_body(x, reach, reach / _LEVELS_A_BOUND, central=True)

    def _unpack(self, body: bytes, n: int, room: Room) -> F64:
        values = runs_values(body, n, usable(self.eps, room.spare) / _LEVELS_A_BOUND)
        if values is None:
            raise self.damaged(f"its runs are not of {n} values")
        return values
