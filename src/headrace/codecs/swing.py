"""Swing filter: connected lines, each as far as any line from the last knot passes all values within the bound.

Of the levels that a line may end at, the one nearest to the value is taken, so that the next line starts well. For
ramps: counters, tanks, machine cycles.

Source: H. Elmeleegy et al., "Online piece-wise linear approximation of numerical streams with precision guarantees",
VLDB 2009; ModelarDB's linear model is this filter. Here knots lie on a grid, and time is the index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headrace.codecs.lines import LinesCodec


@dataclass(frozen=True, slots=True)
class SwingCodec(LinesCodec):
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
    swing: ClassVar[bool] = True
