"""Range and clamp: limits in engineering units, compared in the source's own type.

``{ op = "range", min = 0, max = 400 }`` gives values outside the quality ``bad-range``; they stay as they are
and enter no aggregate. ``{ op = "clamp", ... }`` moves them to the nearest representable value inside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch, Shape
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality
from headrace.pipeline.base import Stateless, StepResult
from headrace.pipeline.operators.base import Context, FromStep


@dataclass(frozen=True, slots=True)
class RangeOperator(FromStep):
    """``{ op = "range", min = 0, max = 400 }``; one of both may be left out."""

    min: float | None = None
    max: float | None = None
    ends_flow: ClassVar[bool] = False
    remembers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise ConfigError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ConfigError(f"min {self.min:g} is above max {self.max:g}")

    def layout(self, layout: Layout) -> Layout:
        """Unchanged."""
        return layout

    def stage(self, context: Context) -> Range:
        """The check."""
        return Range(context.layout, self.min, self.max)


@dataclass(frozen=True, slots=True)
class ClampOperator(RangeOperator):
    """``{ op = "clamp", min = 0, max = 400 }``; one of both may be left out."""

    def stage(self, context: Context) -> Range:
        """The same limits, moving values."""
        return Range(context.layout, self.min, self.max, clamp=True)


class Range(Stateless):
    """Mark (or, with `clamp`, move) values outside ``low`` … ``high``. No state.

    Parameters
    ----------
    layout : of the frames; `low`, `high` : engineering units, None for open.
    """

    def __init__(self, layout: Layout, low: float | None, high: float | None, clamp: bool = False) -> None:
        columns = tuple(replace(c, low=low, high=high) for c in layout.columns)
        self._limits = Layout(layout.dtype, columns).raw_limits
        self._clamp = clamp
        if clamp and self._limits is not None:
            _nearest(self._limits, columns)

    def process(self, batch: FrameBatch, result: StepResult) -> FrameBatch:
        """The batch with quality set or values moved; the same batch where all is inside."""
        if self._limits is None:
            return batch
        low, high = self._limits
        if batch.shape is Shape.SPARSE:
            assert batch.column is not None
            low, high = low[batch.column], high[batch.column]
        elif batch.shape is Shape.WAVE:
            low, high = low[:1], high[:1]
        outside = _outside(batch.values, low, high)
        if outside is None:
            return batch
        if self._clamp:
            return batch.with_(values=np.clip(batch.values, low, high))
        quality = np.zeros(batch.values.shape, np.uint8) if batch.quality is None else batch.quality.copy()
        quality[outside & (quality < Quality.BAD)] = Quality.BAD_RANGE
        return batch.with_(quality=quality)


def _nearest(limits: tuple[Any, Any], columns: tuple[Column, ...]) -> None:
    """Where the type can't reach the limits, move everything to the end that is nearest to them."""
    low, high = limits
    for i in np.flatnonzero(low > high):
        c = columns[i]
        ends = [(v - c.offset) / c.scale for v in (c.low, c.high) if v is not None]
        low[i] = high[i] = low[i] if min(ends) > high[i] else high[i]


def _outside(values: Any, low: Any, high: Any) -> npt.NDArray[np.bool_] | None:
    """Which values are outside, or None where none is; the usual case costs two passes of compares."""
    below = values < low
    below |= values > high
    return below if below.any() else None
