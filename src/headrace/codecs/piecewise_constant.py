"""Piecewise constant: the longest runs whose values span no more than twice the bound, at their mid-range.

Levels lie a quarter of the bound apart, so a run reaches nearly as far as with a free level: plateaus with noise of
about the bound take fewer runs than `hold` needs, at two more bits a run.

Source: PMC-MR in I. Lazaridis, S. Mehrotra, "Capturing sensor-generated time series with quality guarantees",
ICDE 2003; here with the mid-range on a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headrace.codecs.runs import RunsCodec


@dataclass(frozen=True, slots=True)
class PiecewiseConstantCodec(RunsCodec):
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
    levels_a_bound: ClassVar[int] = 4
    central: ClassVar[bool] = True
