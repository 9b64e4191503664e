"""Dead band: ``{ op = "dead_band", change = 0.5, heartbeat = "5m" }``, hand on a value only when it moved.

A value goes on when it differs from the last one that went on by more than `change` (engineering units), when
its quality class changed, or when `heartbeat` has passed. Others become absent; a frame with nothing left is
dropped. What is held back counts as thinned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch, Shape
from headrace.core.kernels import kernel
from headrace.core.layouts import Layout
from headrace.core.paths import parse_duration_ns
from headrace.core.quality import CLASS_MASK, Quality
from headrace.pipeline.base import StepResult
from headrace.pipeline.operators.base import Context, FromStep
from headrace.pipeline.packing import pack, unpack
from headrace.pipeline.rows import UNKNOWN, RowMap

Array = npt.NDArray[Any]
_ABSENT = int(Quality.ABSENT)
_CLASS = int(CLASS_MASK)


@dataclass(frozen=True, slots=True)
class DeadBandOperator(FromStep):
    """``{ op = "dead_band", change = 0.5, heartbeat = "5m" }``."""

    change: float
    heartbeat: str | None = None
    ends_flow: ClassVar[bool] = False
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.change < 0:
            raise ConfigError(f"change must be 0 or more, got {self.change:g}")
        self.heartbeat_ns()

    def heartbeat_ns(self) -> int:
        """Longest time without a value; 0 for none."""
        return 0 if self.heartbeat is None else parse_duration_ns(self.heartbeat)

    def layout(self, layout: Layout) -> Layout:
        """Unchanged."""
        return layout

    def stage(self, context: Context) -> DeadBand:
        """The band of one shard."""
        return DeadBand(context, self.change, self.heartbeat_ns())


@kernel
def _hold_back(
    row: Array,
    ts_ns: Array,
    values: Array,
    quality: Array,
    change: Array,
    heartbeat_ns: int,
    state: tuple[Array, ...],
) -> int:
    """Set the quality of held-back values to absent; how many were held back.

    ``state`` = (kept: float64[R, D], kept_ts: int64[R, D], kept_class: uint8[R, D]).
    """
    kept, kept_ts, kept_class = state
    n = 0
    for f in range(len(row)):
        r = row[f]
        for j in range(values.shape[1]):
            grade = quality[f, j] & _CLASS
            if grade == _ABSENT:
                continue
            v = np.float64(values[f, j])
            due = kept_ts[r, j] == NO_TIME or ts_ns[f] - kept_ts[r, j] >= heartbeat_ns
            if due or grade != kept_class[r, j] or abs(v - kept[r, j]) > change[j]:
                kept[r, j] = v
                kept_ts[r, j] = ts_ns[f]
                kept_class[r, j] = grade
            else:
                quality[f, j] = _ABSENT
                n += 1
    return n


class DeadBand:
    """Dead band over the groups of one shard that have one layout class.

    Parameters
    ----------
    change : engineering units, >= 0. heartbeat_ns : longest time without a value; 0 for none.

    State: 17 bytes a sensor.
    """

    def __init__(self, context: Context, change: float, heartbeat_ns: int) -> None:
        self._layout = context.layout
        self._map = RowMap(context.directory, context.shard)
        self._change = change / np.abs(context.layout.scale)
        self._heartbeat_ns = heartbeat_ns or 2**62
        self._state = self._empty(0)

    def _empty(self, n: int) -> tuple[Array, ...]:
        wide = (n, self._layout.width)
        return np.zeros(wide), np.full(wide, NO_TIME), np.zeros(wide, np.uint8)

    def _row(self, slot: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        row = self._map.rows(slot)
        have = len(self._state[0])
        if self._map.n > have:
            more = self._empty(max(self._map.n, 2 * have) - have)
            self._state = tuple(np.concatenate([a, b]) for a, b in zip(self._state, more, strict=True))
        return row

    def process(self, batch: FrameBatch, result: StepResult) -> FrameBatch | None:
        """What moved."""
        if batch.shape is not Shape.DENSE:
            # Sparse frames hold changes already; a waveform with holes would be none.
            return batch
        row = self._row(batch.slot)
        quality = np.zeros(batch.values.shape, np.uint8) if batch.quality is None else batch.quality.copy()
        n_held = _hold_back(
            row, batch.ts_ns, batch.values, quality, self._change, self._heartbeat_ns, self._state
        )
        if n_held == 0:
            return batch
        result.n_thinned += n_held
        left = np.flatnonzero((quality & _CLASS != _ABSENT).any(axis=1))
        return batch.with_(quality=quality).take(left) if len(left) else None

    def late(self, batch: FrameBatch, result: StepResult) -> None:
        """Late frames do not move the band."""

    def inherit(self, old: DeadBand, slots: tuple[int, int], columns: Array, result: StepResult) -> None:
        """What was kept of a sensor stays, in the units of its new grid."""
        r_old = old._map.find(slots[1])
        if r_old == UNKNOWN:
            return
        r = int(self._row(np.array([slots[0]], np.uint32))[0])
        kept = np.flatnonzero(columns >= 0)
        was = columns[kept]
        for a, b in zip(self._state, old._state, strict=True):
            a[r, kept] = b[r_old, was]
        new, before = self._layout, old._layout
        moved = (new.scale[kept] != before.scale[was]) | (new.offset[kept] != before.offset[was])
        value = before.grid.take(was).values(self._state[0][r, kept])
        rescaled = new.grid.take(kept).positions(value)
        self._state[0][r, kept] = np.where(moved, rescaled, self._state[0][r, kept])

    def tick(self, now_ns: int, result: StepResult) -> None:
        """The heartbeat is checked with the data: a silent sensor has nothing to repeat."""

    def snapshot(self) -> bytes:
        """What was kept last of every sensor."""
        arrays = {f"state{i}": a[: self._map.n] for i, a in enumerate(self._state)}
        return pack({"slot": self._map.slot, **arrays})

    def restore(self, data: bytes | memoryview) -> None:
        """Take over a snapshot."""
        arrays = unpack(data)
        self._map.restore(arrays["slot"])
        self._state = tuple(arrays[f"state{i}"] for i in range(3))
