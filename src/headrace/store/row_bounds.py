"""The bound of each row in its sensor's unit: absolute, a share of the sensor's range, or a share of its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.layouts import Column
from headrace.core.tier_settings import TierBound
from headrace.store.partition_rows import PartitionRows

I64 = npt.NDArray[np.int64]


class RowBounds:
    """Bounds of a partition's rows.

    Parameters
    ----------
    columns : of each row. bounds : of each path; None is lossless. ranges : (range, when it was fixed) by sensor id;
        ranges of sensors that have none yet are added.
    """

    def __init__(
        self,
        rows: PartitionRows,
        columns: Sequence[Column],
        bounds: Sequence[TierBound | None],
        ranges: dict[int, tuple[float, int]],
    ) -> None:
        self._rows, self._columns, self._bounds, self._ranges = rows, columns, bounds, ranges

    def of(self, chosen: I64, now_ns: int) -> npt.NDArray[np.float64]:
        """Bounds in engineering units of all rows; 0, lossless, for all but the chosen ones."""
        rows = self._rows
        eps = np.zeros(len(rows))
        bounded = np.array([one is not None for one in self._bounds], np.bool_)
        chosen = chosen[bounded[rows.path[chosen]]]
        shared = np.array([one is not None and one.range is not None for one in self._bounds], np.bool_)
        self._fix(chosen[shared[rows.path[chosen]]], now_ns)
        for row in chosen.tolist():
            eps[row] = self._eps(row)
        # Chunks that are made of several rows keep the smallest of their bounds.
        least = np.full(len(rows.paths), np.inf)
        np.minimum.at(least, rows.path[chosen], eps[chosen])
        eps[chosen] = least[rows.path[chosen]]
        return eps

    def shares(self, chosen: I64) -> npt.NDArray[np.float64]:
        """How far each value of the chosen rows may be off, as a share of it: instead of a bound by the smallest one, 0 where there is a zero.

        0 where another bound counts, and of values that are no floats, or have an offset: a share of those is none of what is stored.
        """
        share = np.zeros(len(self._rows))
        for row in chosen.tolist():
            bound = self._bounds[int(self._rows.path[row])]
            if (
                bound is not None
                and bound.value
                and self._rows.is_float[row]
                and not self._columns[row].offset
            ):
                share[row] = bound.value
        return share

    def _eps(self, row: int) -> float:
        rows = self._rows
        bound: Any = self._bounds[int(rows.path[row])]
        if bound.absolute is not None:
            return float(bound.absolute)
        if bound.value is not None:
            return float(bound.value) * _smallest(float(rows.low[row]), float(rows.high[row]))
        return float(bound.range) * self._ranges.get(int(rows.sensor[row]), (0.0, 0))[0]

    def _fix(self, chosen: I64, now_ns: int) -> None:
        """Fix the ranges that are not known yet."""
        spans = self._rows.spans(chosen, self._columns)
        for row in chosen.tolist():
            sensor, path = int(self._rows.sensor[row]), int(self._rows.path[row])
            if sensor not in self._ranges and path in spans:
                self._ranges[sensor] = (spans[path], now_ns)


def _smallest(low: float, high: float) -> float:
    """The smallest magnitude that can be between two numbers."""
    return min(abs(low), abs(high)) if low * high > 0 else 0.0
