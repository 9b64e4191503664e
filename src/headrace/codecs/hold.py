"""The last level held until a value leaves its dead band: slow signals with plateaus, and what jitters around them.

Levels lie half a dead band apart, so that a value always has two or three near it and noise up to half the bound
never makes a signal jump to and fro, as plain rounding does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headrace.codecs.runs import RunsCodec


@dataclass(frozen=True, slots=True)
class HoldCodec(RunsCodec):
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
    levels_a_bound: ClassVar[int] = 1
    central: ClassVar[bool] = False
