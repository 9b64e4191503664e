"""Thinning: values that moved less than their sensor's dead band are left out before anything is stored.

A value is kept when it differs from the last one kept by more than the band, when its quality class changed, when
`heartbeat` has passed since, or when it is older than that one; so a sensor that stands still is told from one that is
dead, whatever a clock does. Integers of more than 53 bits are all kept: steps between them can't be told. What is left
out becomes absent; frames with nothing left are dropped. Bands are those of `SensorDirectory.dead_bands`; waveforms have
none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NO_TIME
from headrace.core.dead_bands import DeadBands
from headrace.core.frames import FrameBatch, Shape
from headrace.core.growing import Growing
from headrace.core.kernels import kernel
from headrace.core.quality import CLASS_MASK, Quality
from headrace.core.sensors import SensorDirectory

Array = npt.NDArray[Any]
EXACT_MAX = 2**53
_ABSENT = int(Quality.ABSENT)
_CLASS = int(CLASS_MASK)


@kernel
def hold_back(
    at: Array, ts_ns: Array, values: Array, quality: Array, bands: tuple[Array, ...], kept: tuple[Array, ...]
) -> Array:
    """Which values are left out: bool[N].

    Parameters
    ----------
    at : int64[N], the row of each value's sensor; -1 where it has no band.
    bands : (change: float64[R], negative for none; heartbeat_ns: int64[R]).
    kept : (value: float64[R], ts_ns: int64[R], class: uint8[R]) of the last value kept.
    """
    change, heartbeat_ns = bands
    kept_value, kept_ns, kept_class = kept
    held = np.zeros(len(at), np.bool_)
    for i in range(len(at)):
        r, grade = at[i], quality[i] & _CLASS
        if r < 0 or grade == _ABSENT or change[r] < 0:
            continue
        due = ts_ns[i] < kept_ns[r] or kept_ns[r] == NO_TIME or ts_ns[i] - kept_ns[r] >= heartbeat_ns[r]
        due = due or grade != kept_class[r] or abs(values[i]) >= EXACT_MAX
        if due or abs(values[i] - kept_value[r]) > change[r]:
            kept_value[r], kept_ns[r], kept_class[r] = values[i], ts_ns[i], grade
        else:
            held[i] = True
    return held


class Thinner:
    """Leaves out what moved less than its band. State: 33 bytes a column of a group with bands."""

    def __init__(self, directory: SensorDirectory) -> None:
        self._directory = directory
        self._first: dict[int, tuple[DeadBands, int]] = {}
        self._bands = Growing(np.float64), Growing(np.int64)
        self._kept = Growing(np.float64), Growing(np.int64), Growing(np.uint8)

    def thin(self, batch: FrameBatch) -> tuple[FrameBatch, int]:
        """The batch without what is left out, and how many samples that is.

        Parameters
        ----------
        batch : normalised, for values that are bad are told from good ones.

        Cost: 20 ns a value of groups with bands, nothing where no group has any.
        """
        bands = self._directory.dead_bands
        if not bands or batch.shape is Shape.WAVE or not batch.n_values:
            return batch, 0
        slots, inverse = np.unique(batch.slot, return_inverse=True)
        first = np.array(
            [self._row(slot, bands.get(slot), batch.origin) for slot in slots.tolist()], np.int64
        )
        if (first < 0).all():
            return batch, 0
        at = self._rows(batch, first[inverse])
        quality = np.zeros(batch.values.shape, np.uint8) if batch.quality is None else batch.quality
        # Copies, for a kernel is compiled once more for arrays that are read-only.
        held = hold_back(
            at, np.array(batch.value_times()), batch.values.astype(np.float64).reshape(-1), quality.flatten(),
            tuple(a.view for a in self._bands), tuple(a.view for a in self._kept),
        )  # fmt: skip
        n = int(np.count_nonzero(held))
        return (_without(batch, held, quality), n) if n else (batch, 0)

    def _row(self, slot: int, bands: DeadBands | None, origin: str) -> int:
        """The first row of a slot's columns; -1 where it has no bands. Rows of bands that changed begin anew."""
        if bands is None or bands.origin not in ("", origin):
            return -1
        known = self._first.get(slot)
        if known is not None and known[0] is bands:
            return known[1]
        width, row = len(bands.change), self._bands[0].n if known is None else known[1]
        values: tuple[Any, ...] = (bands.change, bands.heartbeat_ns, 0.0, NO_TIME, 0)
        for column, value in zip((*self._bands, *self._kept), values, strict=True):
            if known is None:
                column.extend(value, width)
            else:
                column.view[row : row + width] = value
        self._first[slot] = bands, row
        return row

    @staticmethod
    def _rows(batch: FrameBatch, first: Array) -> Array:
        if batch.shape is Shape.DENSE:
            return np.where(first[:, None] < 0, -1, first[:, None] + np.arange(batch.width)).reshape(-1)
        assert batch.start is not None
        assert batch.column is not None
        of_value = np.repeat(first, np.diff(batch.start))
        return np.where(of_value < 0, -1, of_value + batch.column)


def _without(batch: FrameBatch, held: Array, quality: Array) -> FrameBatch:
    """The batch without some of its values, and without frames that have none then."""
    if batch.shape is Shape.DENSE:
        held = held.reshape(batch.values.shape)
        marked = np.where(held, np.uint8(_ABSENT), quality)
        left = ~held.any(axis=1) | (marked & _CLASS != _ABSENT).any(axis=1)
        batch = batch.with_(quality=marked)
    else:
        assert batch.start is not None
        assert batch.column is not None
        n_left = np.diff(np.concatenate([np.zeros(1, np.int64), np.cumsum(~held)])[batch.start])
        left = (n_left > 0) | (np.diff(batch.start) == 0)
        changes: dict[str, Array] = {"start": np.concatenate([np.zeros(1, np.int64), np.cumsum(n_left)])}
        for name in ("values", "column", "quality", "value_ts_ns"):
            if getattr(batch, name) is not None:
                changes[name] = getattr(batch, name)[~held]
        batch = batch.with_(**changes)
    return batch if left.all() else batch.take(np.flatnonzero(left))
