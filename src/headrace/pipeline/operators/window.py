"""Tumbling windows: ``{ op = "window", every = "1m", agg = ["mean", "max"] }``; see `headrace.pipeline.windowing`."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.pipeline.operators.base import Context
from headrace.pipeline.windowing import Window, Windowed


@dataclass(frozen=True, slots=True)
class WindowOperator(Windowed):
    """``{ op = "window", every = "1m", agg = ["mean", "max"], idle = "5s" }``.

    Windows start at multiples of `every` since 1970 UTC; a silent group's window is told of `idle` after its end.
    """

    every: str
    agg: tuple[str, ...]
    idle: str = "5s"

    def __post_init__(self) -> None:
        self.check_agg()
        self.check_times()

    def stage(self, context: Context) -> Window:
        """The windows of one shard."""
        return Window(self, context)
