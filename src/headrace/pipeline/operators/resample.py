"""Resample: ``{ op = "resample", every = "1s" }``, samples at even times from samples that came when they came.

Models, spectra and joins want all sensors at the same times. The grid has a time at every multiple of `every`
since 1970 UTC. Between two samples the value is on a straight line for analog signals that are polled (rounded to
the sensor's own resolution, so that integers stay integers) and stays as it was for all others, and for groups that
report by exception. Over a gap longer than `max_gap` nothing is made up.

A grid time is told of when the group's next frame has come, since only then the line is known. Late frames change
nothing any more; windows behind this step are not revised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch, Shape
from headrace.core.kernels import inlined, kernel
from headrace.core.layouts import Layout, numpy_dtype
from headrace.core.paths import parse_duration_ns
from headrace.core.quality import CLASS_MASK, USABLE_BELOW, Quality
from headrace.pipeline.base import StepResult
from headrace.pipeline.interpolation import check_method, is_step
from headrace.pipeline.operators.base import Context, FromStep
from headrace.pipeline.packing import pack, unpack
from headrace.pipeline.rows import UNKNOWN, RowMap
from headrace.pipeline.windowing import read_only, same_grid

Array = npt.NDArray[Any]
GAP_STEPS = 10
"""Default of `max_gap` in grid steps."""
GAP_STEPS_MAX = 3_600
_ABSENT = int(Quality.ABSENT)
_CLASS = int(CLASS_MASK)
_CELLS = 1 << 20


@dataclass(frozen=True, slots=True)
class ResampleOperator(FromStep):
    """``{ op = "resample", every = "1s", method = "auto", max_gap = "10s" }``; max_gap is 10 times `every` by default."""

    every: str
    method: str = "auto"
    max_gap: str | None = None
    ends_flow: ClassVar[bool] = False
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_method(self.method)
        if self.every_ns < 1_000_000:
            raise ConfigError(f"a grid of {self.every} is too fine; 1ms at least")
        if self.max_gap_ns > GAP_STEPS_MAX * self.every_ns:
            raise ConfigError(
                f"a gap of {self.max_gap} has more than {GAP_STEPS_MAX:,} times {self.every}; shorten max_gap"
            )

    @property
    def every_ns(self) -> int:
        """Distance of the grid's times."""
        return parse_duration_ns(self.every)

    @property
    def max_gap_ns(self) -> int:
        """Longest time between two samples that is filled."""
        return GAP_STEPS * self.every_ns if self.max_gap is None else parse_duration_ns(self.max_gap)

    def layout(self, layout: Layout) -> Layout:
        """Unchanged."""
        return layout

    def stage(self, context: Context) -> Resampling:
        """The grid of one shard."""
        return Resampling(self, context)


@inlined
def _between(before: Any, after: Any, share: float, rounds: bool) -> Any:
    if before == after:
        return np.float64(after)
    v = np.float64(before) + (np.float64(after) - np.float64(before)) * share
    return np.rint(v) if rounds else v


@inlined
def _fill(
    f: int, r: int, g: int, n: int, source: tuple[Any, ...], out: tuple[Any, ...], state: tuple[Any, ...]
) -> bool:
    """One frame at grid time `g`; whether it has any value."""
    ts_ns, _, values, quality, stays, gap_ns, rounds = source
    _, _, o_values, o_quality = out
    _, _, kept, kept_ts, kept_quality = state
    t = ts_ns[f]
    found = False
    for j in range(values.shape[1]):
        q, v = quality[f, j], values[f, j]
        lapse = t - kept_ts[r, j]
        o_values[n, j] = 0
        o_quality[n, j] = _ABSENT
        if g == t and q & _CLASS != _ABSENT:
            o_values[n, j] = v
            o_quality[n, j] = q
        elif kept_ts[r, j] == NO_TIME:
            continue
        elif stays[j]:
            if g - kept_ts[r, j] <= gap_ns:
                o_values[n, j] = kept[r, j]
                o_quality[n, j] = kept_quality[r, j]
        elif q < USABLE_BELOW and kept_quality[r, j] < USABLE_BELOW and lapse <= gap_ns:
            share = np.float64(g - kept_ts[r, j]) / np.float64(lapse)
            o_values[n, j] = _between(kept[r, j], v, share, rounds)
            o_quality[n, j] = max(q, kept_quality[r, j])
        found |= o_quality[n, j] & _CLASS != _ABSENT
    return found


@kernel
def _resample(
    f: int, n_max: int, every_ns: int, source: tuple[Any, ...], out: tuple[Any, ...], state: tuple[Any, ...]
) -> tuple[int, int]:
    """Take frames from number `f` on until `out` may not hold the next one's; (next frame, rows written).

    ``source`` = (ts_ns, row, values[F, D], quality[F, D], stays[D], gap_ns, rounds); ``out`` = (frame, ts_ns, values,
    quality); ``state`` = (grid, newest, kept[R, D], kept_ts[R, D], kept_quality[R, D]).
    """
    ts_ns, row, values, quality, _, gap_ns, _ = source
    o_frame, o_ts = out[0], out[1]
    grid, newest, kept, kept_ts, kept_quality = state
    n, most = 0, gap_ns // every_ns + 2
    while f < len(ts_ns) and n + most <= n_max:
        r, t = row[f], ts_ns[f]
        last = t // every_ns * every_ns
        g = last if grid[r] == NO_TIME else grid[r] + every_ns
        # Values hold for `gap_ns` at most; behind that only a sample at the very time of the grid counts.
        end = g if newest[r] == NO_TIME else newest[r] + gap_ns
        while g <= last:
            if _fill(f, r, g, n, source, out, state):
                o_frame[n], o_ts[n] = f, g
                n += 1
            g += every_ns
            if g > end:
                g = max(g, last)
        grid[r] = last
        newest[r] = t
        for j in range(values.shape[1]):
            if quality[f, j] & _CLASS != _ABSENT:
                kept[r, j] = values[f, j]
                kept_ts[r, j] = t
                kept_quality[r, j] = quality[f, j]
        f += 1
    return f, n


class Resampling:
    """The grid of the groups of one shard that have one layout class.

    Cost: 10 to 20 ns a sample that is made. State: 16 bytes a group, 9 bytes and the value's own a sensor.
    """

    def __init__(self, operator: ResampleOperator, context: Context) -> None:
        self._layout = layout = context.layout
        self._every_ns, self._gap_ns = operator.every_ns, operator.max_gap_ns
        # A float has no room for what lies between two 64-bit integers.
        self._is_step = is_step(layout, operator.method) | (layout.dtype in ("u64", "i64"))
        self._by_exception = self._is_step | (operator.method == "auto")
        self._rounds = layout.dtype[0] != "f"
        self._map = RowMap(context.directory, context.shard)
        self._state = self._empty(0)

    def _empty(self, n: int) -> tuple[Array, ...]:
        wide = (n, self._layout.width)
        kind = numpy_dtype(self._layout.dtype)
        return (
            np.full(n, NO_TIME), np.full(n, NO_TIME),
            np.zeros(wide, kind), np.full(wide, NO_TIME), np.zeros(wide, np.uint8),
        )  # fmt: skip

    def _row(self, slot: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        row = self._map.rows(slot)
        have = len(self._state[0])
        if self._map.n > have:
            more = self._empty(max(self._map.n, 2 * have) - have)
            self._state = tuple(np.concatenate([a, b]) for a, b in zip(self._state, more, strict=True))
        return row

    def process(self, batch: FrameBatch, result: StepResult) -> FrameBatch | None:
        """The grid's frames up to the newest; waves have their own grid and pass."""
        if batch.shape is Shape.WAVE:
            return batch
        n_each = max(1, _CELLS // self._layout.width)
        parts = []
        for first in range(0, batch.n_frames, n_each):
            parts += self._resampled(batch.slice(first, min(first + n_each, batch.n_frames)), first)
        if not parts:
            return None
        index, ts_ns, values, quality = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return FrameBatch.dense(
            batch.slot[index], ts_ns, values, quality if quality.any() else None,
            arrival_ns=batch.arrival_ns, origin=batch.origin, sequence=batch.sequence,
        )  # fmt: skip

    def _resampled(self, batch: FrameBatch, first: int) -> list[tuple[Array, ...]]:
        """Pieces of (number of the frame + `first`, ts_ns, values, quality)."""
        is_sparse = batch.shape is Shape.SPARSE
        values, quality = self._widened(batch) if is_sparse else (batch.values, batch.quality)
        quality = np.zeros(values.shape, np.uint8) if quality is None else quality
        stays = self._by_exception if is_sparse else self._is_step
        source = batch.ts_ns, self._row(batch.slot), read_only(values), read_only(quality), stays
        n_max = max(2 * batch.n_frames, self._gap_ns // self._every_ns + 2)
        parts, f = [], 0
        while f < batch.n_frames:
            wide = (n_max, self._layout.width)
            out = (np.empty(n_max, np.int64), np.empty(n_max, np.int64),
                   np.empty(wide, values.dtype), np.empty(wide, np.uint8))  # fmt: skip
            every = (*source, self._gap_ns, self._rounds)
            f, n = _resample(f, n_max, self._every_ns, every, out, self._state)
            if n:
                out[0][:n] += first
                parts.append(tuple(a[:n] for a in out))
        return parts

    def _widened(self, batch: FrameBatch) -> tuple[Array, Array]:
        """Values and quality of sparse frames with a place for every column."""
        assert batch.start is not None
        assert batch.column is not None
        wide = (batch.n_frames, self._layout.width)
        values, quality = np.zeros(wide, batch.values.dtype), np.full(wide, Quality.ABSENT, np.uint8)
        frame = np.repeat(np.arange(batch.n_frames), np.diff(batch.start))
        values[frame, batch.column] = batch.values
        quality[frame, batch.column] = 0 if batch.quality is None else batch.quality
        return values, quality

    def late(self, batch: FrameBatch, result: StepResult) -> None:
        """Late frames do not change the grid's values any more."""

    def inherit(self, old: Resampling, slots: tuple[int, int], columns: Array, result: StepResult) -> None:
        """The grid goes on; what was kept of a sensor stays where it means the same."""
        r_old = old._map.find(slots[1])
        if r_old == UNKNOWN:
            return
        r = int(self._row(np.array([slots[0]], np.uint32))[0])
        for mine, theirs in zip(self._state[:2], old._state[:2], strict=True):
            mine[r] = theirs[r_old]
        kept = np.flatnonzero(columns >= 0)
        kept = kept[same_grid(self._layout, old._layout, kept, columns[kept])]
        for mine, theirs in zip(self._state[2:], old._state[2:], strict=True):
            mine[r, kept] = theirs[r_old, columns[kept]]

    def tick(self, now_ns: int, result: StepResult) -> None:
        """Nothing follows from time alone: the grid goes on with the next frame."""

    def snapshot(self) -> bytes:
        """The newest sample of every sensor, and how far the grid is."""
        arrays = {f"state{i}": a[: self._map.n] for i, a in enumerate(self._state)}
        return pack({"slot": self._map.slot, **arrays})

    def restore(self, data: bytes | memoryview) -> None:
        """Take over a snapshot."""
        arrays = unpack(data)
        self._map.restore(arrays["slot"])
        self._state = tuple(arrays[f"state{i}"] for i in range(len(self._state)))
