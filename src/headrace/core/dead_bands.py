"""Dead bands of sensors: how far a value must move to be worth storing.

An adapter tells the directory the bands of its groups; whoever takes its batches leaves out what moved less, and counts
it as thinned. The band is no part of a layout: it changes nothing in what stored values mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.core.grids import decimal_quotient
from headrace.core.layouts import Layout


class SignalBand(NamedTuple):
    """Of one signal: engineering units by which it must move, and the longest time without a value."""

    change: float
    heartbeat_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class DeadBands:
    """Of a group's columns.

    Parameters
    ----------
    change : float64[D], raw steps; negative where the column has no band.
    heartbeat_ns : int64[D].
    origin : the adapter whose values they hold for, empty for all: history that is imported is stored as it is.
    """

    change: npt.NDArray[np.float64]
    heartbeat_ns: npt.NDArray[np.int64]
    origin: str = ""

    @classmethod
    def of(cls, bands: Sequence[SignalBand | None], layout: Layout, origin: str = "") -> DeadBands | None:
        """The bands of a layout's columns; None where no column has one."""
        if all(band is None for band in bands):
            return None
        pairs = zip(bands, layout.columns, strict=True)
        change = [
            -1.0 if band is None else decimal_quotient(band.change, abs(one.scale)) for band, one in pairs
        ]
        heartbeat_ns = np.array([0 if band is None else band.heartbeat_ns for band in bands], np.int64)
        return cls(np.array(change), heartbeat_ns, origin)
