"""Swinging door with a bound: connected lines from value to value, rounded, as long as all between are near enough.

The classic door closes when no line passes all values, and then draws one that may miss some by more than the
bound. Here a line ends only at a value whose own line from the last knot keeps the bound. Its knots are nearer to the
signal than those of `headrace.codecs.swing`, which pays where ramps meet plateaus.

Source: E. H. Bristol, "Swinging door trending: adaptive trend recording?", ISA 1990.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headrace.codecs.levels import F64, BoundedCodec, Room, usable
from headrace.codecs.lines import lines_body, lines_values


@dataclass(frozen=True, slots=True)
class SwingingDoorCodec(BoundedCodec):
    """Lines between levels `eps` apart (`headrace.codecs.lines`), those nearest to values.

    Parameters
    ----------
    eps : the bound, in the values' unit, above 0.

    Examples
    --------
    >>> import numpy as np
    >>> codec = SwingingDoorCodec(eps=0.5)
    >>> values = np.arange(10_000) * 0.25
    >>> payload = codec.encode(values)
    >>> decoded = codec.decode(payload, 10_000, values.dtype)
    >>> len(payload) < 30, bool(np.abs(decoded - values).max() <= 0.5)
    (True, True)
    """

    name: ClassVar[str] = "swinging_door"

    def _pack(self, x: F64, room: Room) -> bytes:
        reach = usable(self.eps, room.spare)
        return room.head + lines_body(x, reach, reach, swing=False)

    def _unpack(self, body: bytes, n: int, room: Room) -> F64:
        values = lines_values(body, n, usable(self.eps, room.spare))
        if values is None:
            raise self.damaged(f"its knots are not of {n} values")
        return values
