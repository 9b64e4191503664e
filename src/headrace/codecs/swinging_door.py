"""Swinging door with a bound: connected lines from value to value, rounded, as long as all between are near enough.

The classic door closes when no line passes all values, and then draws one that may miss some by more than the
bound. Here a line ends only at a value whose own line from the last knot keeps the bound. Its knots are nearer to the
signal than those of `headrace.codecs.swing`, which pays where ramps meet plateaus.

Source: E. H. Bristol, "Swinging door trending: adaptive trend recording?", ISA 1990.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headrace.codecs.lines import LinesCodec


@dataclass(frozen=True, slots=True)
class SwingingDoorCodec(LinesCodec):
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
    swing: ClassVar[bool] = False
