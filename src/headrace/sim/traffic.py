"""What the devices of a simulated plant send: seeded messages with late data, repeats, bursts and new layouts.

A `TrafficSource` is a gateway in front of some groups of one kind. Its mode says when they report: steadily, in shifts,
in bursts after having buffered, hardly at all, or with devices and tags that come and go. Any of them now and
then sends data late, sends the same again, or corrects what it has sent.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NS
from headrace.core.frames import FrameBatch, Shape
from headrace.core.layouts import Column, Layout, numpy_dtype
from headrace.core.quality import Quality

_GRIDS = ((1.0, 0.0), (0.1, -40.0), (0.5, 3.0))
_MARKS = np.array([0, 0, 0, 0, Quality.UNCERTAIN, Quality.BAD_DEVICE], np.uint8)
_BUFFER_S = 25
_SHIFT_S = 20
_SPARE_COLUMNS = 2


class Mode(StrEnum):
    """When the groups of a source report."""

    STEADY = "steady"
    SHIFT = "shift"
    BURST = "burst"
    IDLE = "idle"
    CHURN = "churn"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a source: frames whose slots number the source's groups, all of one layout."""

    source: str
    number: int
    layout: Layout
    batch: FrameBatch


@dataclass(frozen=True, slots=True)
class SourceKind:
    """What the groups of a source are."""

    shape: Shape
    dtype: str
    width: int


KINDS = (
    SourceKind(Shape.DENSE, "u16", 5),
    SourceKind(Shape.DENSE, "f64", 1),
    SourceKind(Shape.SPARSE, "i32", 4),
    SourceKind(Shape.DENSE, "f32", 2),
    SourceKind(Shape.SPARSE, "f64", 3),
    SourceKind(Shape.WAVE, "i16", 1),
)


class TrafficSource:
    """A gateway and its groups.

    Parameters
    ----------
    name : of the adapter; its groups stand below it. n_groups : how many there are at first.
    unrest : how often, of 1, something out of the ordinary happens in a step.
    """

    def __init__(
        self, name: str, kind: SourceKind, n_groups: int, mode: Mode, *, seed: int, unrest: float
    ) -> None:
        self.name, self.kind, self.mode = name, kind, mode
        self._rng = np.random.default_rng([seed, 11])
        self._unrest = unrest
        self._masks = np.full(n_groups, (1 << kind.width) - 1, np.int64)
        self._n_sent = 0
        self._buffered: list[Message] = []
        self._recent: deque[Message] = deque(maxlen=20)

    @property
    def paths(self) -> list[str]:
        """Paths of the groups."""
        return [f"plant/{self.name}/d{i}" for i in range(len(self._masks))]

    def emit(self, now_ns: int, step: int, n_steps: int) -> list[Message]:
        """What the source sends at a step, in order."""
        if self.mode is Mode.CHURN and self._rng.random() < 0.3:
            self._change()
        active = self._active(step, n_steps)
        messages = self._messages(active, now_ns) if active.any() else []
        if self.mode is Mode.BURST:
            self._buffered += messages
            messages = []
            if step % _BUFFER_S == _BUFFER_S - 1 or step == n_steps - 1:
                messages = self._unload()
        if self._rng.random() < self._unrest:
            messages += self._unusual(now_ns)
        self._recent += messages
        return messages

    def _active(self, step: int, n_steps: int) -> npt.NDArray[np.bool_]:
        n = len(self._masks)
        if self.mode is Mode.SHIFT:
            on: npt.NDArray[np.bool_] = (step + np.arange(n) * 7) // _SHIFT_S % 2 == 0
            return on
        if self.mode is Mode.IDLE:
            return np.full(n, step < 6 or step > n_steps - 4) | (self._rng.random(n) < 0.01)
        return self._rng.random(n) < 0.95

    def _change(self) -> None:
        """A device gets or loses tags, or a new one appears."""
        rng, width = self._rng, self.kind.width
        if rng.random() < 0.3:
            self._masks = np.append(self._masks, (1 << width) - 1)
        elif width > 1:
            self._masks[rng.integers(len(self._masks))] = rng.integers(1, 1 << (width + _SPARE_COLUMNS))

    def _layout(self, mask: int) -> Layout:
        kind = self.kind
        if kind.width == 1:
            return Layout(kind.dtype, (Column(""),))
        chosen = [i for i in range(kind.width + _SPARE_COLUMNS) if mask >> i & 1]
        grids = {i: _GRIDS[i % 3] if kind.dtype[0] != "f" else (1.0, 0.0) for i in chosen}
        return Layout(
            kind.dtype, tuple(Column(f"s{i}", scale=grids[i][0], offset=grids[i][1]) for i in chosen)
        )

    def _messages(self, active: npt.NDArray[np.bool_], now_ns: int) -> list[Message]:
        """One frame of each active group, a message for each layout that they have."""
        out = []
        for mask in np.unique(self._masks[active]).tolist():
            groups = np.flatnonzero(active & (self._masks == mask)).astype(np.uint32)
            times = now_ns - self._rng.integers(0, NS // 2, len(groups))
            out.append(self._message(self._layout(mask), groups, times))
        return out

    def _message(
        self, layout: Layout, groups: npt.NDArray[np.uint32], times: npt.NDArray[np.int64]
    ) -> Message:
        return self._next(layout, self._frames(layout, groups, times))

    def _next(self, layout: Layout, batch: FrameBatch) -> Message:
        self._n_sent += 1
        return Message(self.name, self._n_sent, layout, batch.with_(origin=self.name, sequence=self._n_sent))

    def _frames(
        self, layout: Layout, groups: npt.NDArray[np.uint32], times: npt.NDArray[np.int64]
    ) -> FrameBatch:
        rng, n = self._rng, len(groups)
        if self.kind.shape is Shape.DENSE:
            wide = (n, layout.width)
            return FrameBatch.dense(groups, times, self._values(layout.dtype, wide), self._quality(wide))
        count = rng.integers(1, 1 + (layout.width if self.kind.shape is Shape.SPARSE else 8), n)
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
        values = self._values(layout.dtype, (int(start[-1]),))
        more: dict[str, Any] = {"quality": self._quality(values.shape)}
        if self.kind.shape is Shape.WAVE:
            rate = np.full(n, int(rng.integers(5, 50))), np.full(n, 1)
            return FrameBatch.wave(groups, times, values, start, rate, **more)
        column = np.concatenate([np.sort(rng.permutation(layout.width)[:c]) for c in count]).astype(np.uint16)
        if rng.random() < 0.3:
            more["value_ts_ns"] = np.repeat(times, count) - rng.choice([0, NS // 10, 5 * NS], len(column))
        return FrameBatch.sparse(groups, times, values, start, column, **more)

    def _values(self, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        numbers = self._rng.integers(0, 2_000, shape)
        return (numbers / 8 if dtype[0] == "f" else numbers).astype(numpy_dtype(dtype))

    def _quality(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
        if self._rng.random() < 0.6:
            return None
        return self._rng.choice(_MARKS, shape)

    # --- what is out of the ordinary -------------------------------------------------------------------

    def _unload(self) -> list[Message]:
        """Send the buffer: as it was filled, or the newest first and then the rest, in one message or many."""
        messages, self._buffered = self._buffered, []
        if self._rng.random() < 0.3:
            return messages[-1:] + messages[:-1]
        out: list[Message] = []
        for message in messages:
            if out and out[-1].layout == message.layout:
                joined = FrameBatch.concat([out[-1].batch, message.batch])
                out[-1] = Message(self.name, message.number, message.layout, joined)
            else:
                out.append(message)
        return out

    def _unusual(self, now_ns: int) -> list[Message]:
        """Late data, or a message again: the same, or with other values at the same times."""
        rng = self._rng
        if rng.random() < 0.5 or not self._recent:
            groups = np.flatnonzero(rng.random(len(self._masks)) < 0.3).astype(np.uint32)
            mask = int(self._masks[0])
            groups = groups[self._masks[groups] == mask]
            if not len(groups):
                return []
            times = now_ns - int(rng.integers(1, 120)) * NS - rng.integers(0, 3 * NS, len(groups))
            return [self._message(self._layout(mask), groups, times)]
        old = self._recent[int(rng.integers(len(self._recent)))]
        batch = old.batch
        if rng.random() < 0.5:
            batch = batch.with_(values=self._values(old.layout.dtype, batch.values.shape))
        return [self._next(old.layout, batch)]


def sources(seed: int, n_sensors: int, modes: tuple[Mode, ...], unrest: float) -> list[TrafficSource]:
    """Sources with about `n_sensors` sensors in all: of one lone sensor, of three kinds, or of all where many."""
    rng = np.random.default_rng([seed, 12])
    chosen = rng.permutation(len(KINDS))[: 3 if n_sensors < 40 else len(KINDS)]
    kinds = [KINDS[i] for i in sorted(chosen)] if n_sensors > 1 else [KINDS[1]]
    out = []
    for i, kind in enumerate(kinds):
        mode = modes[int(rng.integers(len(modes)))]
        n_groups = max(1, n_sensors // len(kinds) // kind.width)
        number = int(rng.integers(2**31))
        out.append(TrafficSource(f"g{i}", kind, n_groups, mode, seed=number, unrest=unrest))
    return out
