"""Scale: ``{ op = "scale", factor = 0.001, add = 0 }``, engineering value x becomes x * factor + add.

Only the grid in the layout changes; the values stay in the source's own type, so it costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from headrace.core.errors import ConfigError
from headrace.core.grids import decimal_sum
from headrace.core.layouts import Layout
from headrace.pipeline.operators.base import Context, FromStep


@dataclass(frozen=True, slots=True)
class ScaleOperator(FromStep):
    """``{ op = "scale", factor = 1.0, add = 0.0, unit = "kPa" }``."""

    factor: float = 1.0
    add: float = 0.0
    unit: str | None = None
    ends_flow: ClassVar[bool] = False
    remembers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.factor == 0:
            raise ConfigError("factor 0 would make every value the same")

    def layout(self, layout: Layout) -> Layout:
        """The layout with its grid changed."""
        return scaled(layout, self.factor, self.add, self.unit)

    def stage(self, context: Context) -> None:
        """Nothing to do to values."""


def scaled(layout: Layout, factor: float = 1.0, add: float = 0.0, unit: str | None = None) -> Layout:
    """`layout` with every grid followed by ``x * factor + add``; limits go along."""

    def move(limit: float | None) -> float | None:
        return None if limit is None else decimal_sum(limit, factor, add)

    columns = []
    for c in layout.columns:
        low, high = (c.low, c.high) if factor >= 0 else (c.high, c.low)
        columns.append(
            replace(
                c,
                scale=decimal_sum(c.scale, factor, 0.0),
                offset=decimal_sum(c.offset, factor, add),
                low=move(low),
                high=move(high),
                unit=c.unit if unit is None else unit,
            )
        )
    return Layout(layout.dtype, tuple(columns))
