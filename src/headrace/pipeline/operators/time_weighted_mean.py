"""Time-weighted mean: ``{ op = "time_weighted_mean", every = "5m" }``, a mean that does not ask how often one measured.

A device that reports by exception, or polls faster while something happens, pulls a plain mean towards the busy
times. Here each value weighs as long as it lasted:

    mean = 1 / length * (integral of x over the window)

Between two samples x is a straight line for analog signals (the trapezoid rule) and stays as it was for all others;
before the first sample of a window it has that sample's value, after the last one the last's. So a window's result
follows from its own samples alone, can be revised when late data come, and is what a query's ``twa`` gives.

Windows close, wait and are revised as those of `headrace.pipeline.windowing`; the derived series' ``{agg}``
is ``twa``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch
from headrace.core.quality import usable
from headrace.pipeline.interpolation import check_method, is_step
from headrace.pipeline.operators.base import Context
from headrace.pipeline.time_weights import weigh_dense, weigh_loose
from headrace.pipeline.windowing import LooseFrames, LooseSamples, Output, Window, Windowed

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class TimeWeightedMeanOperator(Windowed):
    """``{ op = "time_weighted_mean", every = "5m", method = "auto", idle = "5s" }``."""

    every: str
    method: str = "auto"
    idle: str = "5s"
    agg: ClassVar[tuple[str, ...]] = ("twa",)  # type: ignore[misc]  # it is no key of the step

    def __post_init__(self) -> None:
        check_method(self.method)
        self.check_times()

    def outputs(self, dtype: str) -> list[Output]:
        """One group of floats."""
        return [Output("f64", self.agg)]

    def stage(self, context: Context) -> TimeWeights:
        """The windows of one shard."""
        return TimeWeights(self, context)


class TimeWeights(Window):
    """Time-weighted means of the groups of one shard that have one layout class. Cost: 3 to 8 ns a sample."""

    def __init__(self, operator: TimeWeightedMeanOperator, context: Context) -> None:
        super().__init__(operator, context)
        self._is_step = is_step(context.layout, operator.method)

    def _accumulate(self, batch: FrameBatch, row: Array, out: tuple[Array, ...]) -> int:
        good = np.ones(batch.values.shape, np.bool_) if batch.quality is None else usable(batch.quality)
        frames, samples = (batch.ts_ns, row), (batch.values, good)
        return weigh_dense(frames, samples, self._is_step, self._every_ns, out, self._rows.state)

    def _accumulate_loose(self, frames: LooseFrames, samples: LooseSamples, out: tuple[Array, ...]) -> int:
        return weigh_loose(frames, samples, self._is_step, self._every_ns, out, self._rows.state)

    def _values(self, out: tuple[Array, ...]) -> Iterator[tuple[Output, Array, Any]]:
        first, last, area, newest_ns = out[6], out[7], out[10], out[11]
        base = first.astype(np.float64)
        whole = area + (last.astype(np.float64) - base) * (self._every_ns - newest_ns)
        mean = self._layout.grid.values(base + whole / self._every_ns)
        yield self._outputs[0], mean, self._context.derived[0]
