"""Swing filter: connected lines, each as far as any line from the last knot passes all values within the bound.

Of the levels that a line may end at, the one nearest to the value is taken, so that the next line starts well. For
ramps: counters, tanks, machine cycles.

Source: H. Elmeleegy et al., "Online piece-wise linear approximation of numerical streams with precision guarantees",
VLDB 2009; ModelarDB's linear model is this filter. Here knots lie on a grid, and time is the index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headrace.codecs.levels import F64, BoundedCodec, Room, usable
from headrace.codecs.lines import lines_body, lines_values


@dataclass(frozen=True, slots=True)
class SwingCodec(BoundedCodec):
    """Lines between levels `eps` apart (`headrace.codecs.lines`), each as long as can be.

    Parameters
    ----------
    eps : the bound, in the values' unit, above 0.

    Examples
    --------
    >>> import numpy as np
    >>> codec = SwingCodec(eps=0.5)
    >>> values = np.arange(10_000) * 0.25
    >>> payload = codec.encode(values)
    >>> decoded = codec.decode(payload, 10_000, values.dtype)
    >>> len(payload) < 30, bool(np.abs(decoded - values).max() <= 0.5)
    (True, True)
    """

    name: ClassVar[str] = "swing"

    def _pack(self, x: F64, room: Room) -> bytes:
        reach = usable(self.eps, room.spare)
        return room.head + lines_body(x, reach, reach, swing=True)

    def _unpack(self, body: bytes, n: int, room: Room) -> F64:
        values = lines_values(body, n, usable(self.eps, room.spare))
        if values is None:
            raise self.damaged(f"its knots are not of {n} values")
        return values
