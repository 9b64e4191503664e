"""The last level held until a value leaves its dead band: slow signals with plateaus, and what jitters around them.

Levels lie half a dead band apart, so that a value always has two or three near it and noise up to half the bound
never makes a signal jump to and fro, as plain rounding does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headrace.codecs.levels import F64, BoundedCodec, Room, usable
from headrace.codecs.runs import runs_body, runs_values


@dataclass(frozen=True, slots=True)
class HoldCodec(BoundedCodec):
    """Runs of one level (`headrace.codecs.runs`), levels `eps` apart.

    Parameters
    ----------
    eps : half the dead band and the bound, in the values' unit, above 0.

    Examples
    --------
    >>> import numpy as np
    >>> codec = HoldCodec(eps=0.5)
    >>> payload = codec.encode(np.array([20.0, 20.4, 20.9, 20.1, 23.0, 23.2]))
    >>> codec.decode(payload, 6, np.dtype(np.float64)).round(6).tolist()
    [20.5, 20.5, 20.5, 20.5, 23.0, 23.0]
    """

    name: ClassVar[str] = "hold"

    def _pack(self, x: F64, room: Room) -> bytes:
        reach = usable(self.eps, room.spare)
        return room.head + runs_body(x, reach, reach, central=False)

    def _unpack(self, body: bytes, n: int, room: Room) -> F64:
        values = runs_values(body, n, usable(self.eps, room.spare))
        if values is None:
            raise self.damaged(f"its runs are not of {n} values")
        return values
