"""What `demo` shows below the adapters: which lines run, and the newest values of a few sensors."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from headrace.cli import output
from headrace.cli.live import Screen
from headrace.core.clock import NO_TIME, Clock
from headrace.core.errors import RetryLater
from headrace.core.frames import FrameBatch, Shape
from headrace.core.grids import value_of
from headrace.core.sensors import SensorDirectory

if TYPE_CHECKING:
    from headrace.runtime.assemble import Plant

_N_SHOWN = 6
_SIGNALS = ("temperature", "power", "pressure", "flow", "speed", "vibration_rms", "co2")
_PER_LINE = 3
"""Devices of each line that are asked whether it runs: enough to tell, few enough to look at twice a second."""


@dataclass(slots=True)
class _Watched:
    """A sensor and its newest value, in the source's own numbers."""

    slot: int
    column: int
    ts_ns: int = NO_TIME
    raw: Any = None


class NewestValues:
    """The newest values of a few sensors, as they pass through the unflushed tail."""

    def __init__(self, directory: SensorDirectory) -> None:
        self._directory = directory
        self._n_slots = 0
        self.shown: dict[str, _Watched] = {}
        self.running: dict[str, list[_Watched]] = {}

    def choose(self) -> None:
        """Look for sensors worth showing whenever new ones were defined: some of different kinds, line by line."""
        directory = self._directory
        if directory.n_slots == self._n_slots:
            return
        first, self._n_slots = self._n_slots, directory.n_slots
        for slot in range(first, self._n_slots):
            if directory.is_derived(slot):
                continue
            path, names = directory.paths[slot], [c.name for c in directory.layout(slot).columns]
            line = path.rpartition("/")[0]
            states = self.running.setdefault(line, [])
            if "running" in names and len(states) < _PER_LINE:
                states.append(_Watched(slot, names.index("running")))
            wanted = _SIGNALS[len(self.shown) % len(_SIGNALS)]
            taken = {p.rpartition("/")[2] for p in self.shown}
            for name in (wanted, *_SIGNALS):
                if name in names and name not in taken and len(self.shown) < _N_SHOWN:
                    self.shown[f"{path}/{name}"] = _Watched(slot, names.index(name))
                    break

    @property
    def slots(self) -> npt.NDArray[np.uint32]:
        """Slots to look at: uint32[n]."""
        watched = [*self.shown.values(), *(w for some in self.running.values() for w in some)]
        return np.unique(np.array([w.slot for w in watched], np.uint32))

    def take(self, batches: list[FrameBatch]) -> None:
        """Remember what is newer."""
        watched = [*self.shown.values(), *(w for some in self.running.values() for w in some)]
        for batch in batches:
            for one in watched:
                if batch.shape is not Shape.WAVE:
                    _newest(batch, one)

    def value(self, watched: _Watched) -> str:
        """The value for people: engineering units, or the label of a state."""
        column = self._directory.layout(watched.slot).columns[watched.column]
        if watched.raw is None:
            return "-"
        if column.labels:
            code = int(watched.raw)
            return column.labels[code] if code < len(column.labels) else str(code)
        value = value_of(float(watched.raw), column.scale, column.offset)
        return f"{output.number(value)} {column.unit}".rstrip()

    def line_states(self) -> list[tuple[str, str]]:
        """(line, running | stopped | waiting) in order of their paths."""
        found = []
        for line, states in sorted(self.running.items()):
            raws = [w.raw for w in states if w.raw is not None]
            if states:
                found.append((line, "waiting" if not raws else "running" if any(raws) else "stopped"))
        return found


def _newest(batch: FrameBatch, watched: _Watched) -> None:
    frames = np.flatnonzero(batch.slot == watched.slot)
    if not len(frames):
        return
    frame = int(frames[np.argmax(batch.ts_ns[frames])])
    ts_ns = int(batch.ts_ns[frame])
    if ts_ns < watched.ts_ns:
        return
    if batch.shape is Shape.DENSE:
        at = (frame, watched.column)
        if batch.quality is None or batch.quality[at] < 0x80:
            watched.ts_ns, watched.raw = ts_ns, batch.values[at]
        return
    assert batch.start is not None
    assert batch.column is not None
    # The newest frame of a report by exception may lack the column: the last one that has it counts.
    for one in frames[np.argsort(batch.ts_ns[frames])][::-1]:
        first, last = int(batch.start[one]), int(batch.start[one + 1])
        hits = np.flatnonzero(batch.column[first:last] == watched.column)
        if len(hits):
            if int(batch.ts_ns[one]) >= watched.ts_ns:
                watched.ts_ns, watched.raw = int(batch.ts_ns[one]), batch.values[first + int(hits[-1])]
            return


class FactoryScreen(Screen):
    """The screen of `demo`."""

    def __init__(self, plant: Plant, clock: Clock, title: str, console: Console | None = None) -> None:
        super().__init__(plant, clock, title, console)
        self._newest: NewestValues | None = None

    def more(self) -> list[RenderableType]:
        """Lines and newest values."""
        if self._newest is None:
            self._newest = NewestValues(self._plant.directory)
        newest = self._newest
        newest.choose()
        if not newest.shown:
            return []
        with contextlib.suppress(RetryLater):  # just started, and still catching up
            newest.take(self._plant.tail(newest.slots))
        head = _common_head([line for line, _ in newest.line_states()])
        lines = Text("lines    ", style="dim").append(f"{head}  " if head else "")
        for line, state in newest.line_states():
            color = {"running": "green", "stopped": "red"}.get(state, "dim")
            name = line.removeprefix(head).lstrip("/")
            lines.append(f"{name} ", style="default not dim").append(f"{state}   ", style=f"{color} not dim")
        grid = Table.grid(padding=(0, 2))
        for i, (path, watched) in enumerate(newest.shown.items()):
            age = output.age(watched.ts_ns, self._clock.now_ns())
            label = Text("newest " if i == 0 else "", style="dim")
            grid.add_row(label, path, Text(newest.value(watched), "bold"), Text(age, "dim"))
        return [lines, Text(), grid]


def _common_head(paths: list[str]) -> str:
    """The levels that all paths begin with, but for their last."""
    if not paths:
        return ""
    return os.path.commonpath([path.rpartition("/")[0] or "." for path in paths]).removeprefix(".")
