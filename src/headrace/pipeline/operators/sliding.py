"""Sliding windows: ``{ op = "sliding", size = "15m", every = "1m", agg = ["mean"] }``, the last 15 minutes each minute.

A window starts at every multiple of `every` since 1970 UTC and is `size` long; its time is its start, as that of
all windows, so the newest result lies `size` behind the present. Windows close, wait for silent groups, and are revised
after late data as tumbling ones are (`headrace.pipeline.windowing`); late data touch every window that they
fall into.

Samples are gathered in panes as long as `every`, and windows put together from panes
(`headrace.pipeline.panes`), so overlap costs nothing by sample. Sums of integers are as exact as those of tumbling
windows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Layout, numpy_dtype
from headrace.core.paths import parse_duration_ns
from headrace.pipeline.base import BACK, NEW, StepResult
from headrace.pipeline.operators.base import Context
from headrace.pipeline.packing import pack, pack_parts, unpack, unpack_parts
from headrace.pipeline.panes import fold_panes, merge_panes, put_panes
from headrace.pipeline.rows import UNKNOWN
from headrace.pipeline.windowing import Window, Windowed, same_grid
from headrace.pipeline.windows import DIRTY, ELSEWHERE, EMPTY, close_rows, move_on

Array = npt.NDArray[Any]
PANES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class SlidingOperator(Windowed):
    """``{ op = "sliding", size = "15m", every = "1m", agg = ["mean"], idle = "5s" }``; size is a multiple of every."""

    every: str
    agg: tuple[str, ...]
    size: str = field(kw_only=True)
    idle: str = "5s"

    def __post_init__(self) -> None:
        self.check_agg()
        self.check_times()
        n = self.size_ns / self.every_ns
        if n != int(n) or not 1 <= n <= PANES_MAX:
            raise ConfigError(
                f"a size of {self.size} is not 1 to {PANES_MAX:,} times {self.every}; write a multiple of every"
            )

    @property
    def size_ns(self) -> int:
        """Length of a window."""
        return parse_duration_ns(self.size)

    def stage(self, context: Context) -> Sliding:
        """The windows of one shard."""
        return Sliding(self, context)


class _Ring:
    """The last closed panes of each row; see `headrace.pipeline.panes`."""

    def __init__(self, layout: Layout, n_panes: int) -> None:
        self._dtype, self._width, self._n_panes = numpy_dtype(layout.dtype), layout.width, n_panes
        self.panes = self._empty(0)
        # The end of the newest window that was told of, and the newest pane.
        self.told_end, self.newest = np.empty(0, np.int64), np.empty(0, np.int64)

    def _empty(self, n: int) -> tuple[Array, ...]:
        some, wide = (n, self._n_panes), (n, self._n_panes, self._width)
        return (
            np.full(some, EMPTY), np.zeros(some, np.int64), np.zeros(some, np.int64), np.zeros(some, np.uint8),
            *(np.zeros(wide, self._dtype) for _ in range(4)),
            *(np.zeros(wide, np.float64) for _ in range(2)), np.zeros(wide, np.int32),
        )  # fmt: skip

    def grow(self, n: int) -> None:
        """Make room for `n` rows."""
        have = len(self.newest)
        if n > have:
            n = max(n, 2 * have)
            more = self._empty(n - have)
            self.panes = tuple(np.concatenate([a, b]) for a, b in zip(self.panes, more, strict=True))
            nothing = np.full(n - have, EMPTY)
            self.told_end = np.concatenate([self.told_end, nothing])
            self.newest = np.concatenate([self.newest, nothing])

    def snapshot(self, n: int) -> bytes:
        """The first `n` rows."""
        arrays = {f"ring{i}": a[:n] for i, a in enumerate(self.panes)}
        return pack({"told_end": self.told_end[:n], "newest": self.newest[:n], **arrays})

    def restore(self, data: memoryview) -> None:
        """The inverse of `snapshot`."""
        arrays = unpack(data)
        self.told_end, self.newest = arrays["told_end"], arrays["newest"]
        self.panes = tuple(arrays[f"ring{i}"] for i in range(len(self.panes)))


class Sliding(Window):
    """Sliding windows over the groups of one shard that have one layout class.

    Cost: as tumbling windows of `every`, and size / every merges of a row each `every`. State: (1 + size / every) times that
    of tumbling windows.
    """

    def __init__(self, operator: SlidingOperator, context: Context) -> None:
        super().__init__(operator, context)
        self._sliding = operator
        self._ring = _Ring(context.layout, self._size_ns // self._every_ns)

    def _row(self, slot: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        row = super()._row(slot)
        self._ring.grow(self._map.n)
        return row

    # --- telling -------------------------------------------------------------------------------------

    def _emit(self, out: tuple[Array, ...], result: StepResult) -> None:
        """Take closed panes in, and tell of the windows that are over with them; a row's panes are in order."""
        left = np.arange(len(out[0]))
        while len(left):
            # One pane of each row at a time: it may push out one that the windows before it need.
            _, first = np.unique(out[0][left], return_index=True)
            some = tuple(a[left[np.sort(first)]] for a in out)
            self._tell_until(some[0], some[1], result)
            self._take_in(some, result)
            left = np.delete(left, first)
        rows = np.unique(out[0])
        opened = self._rows.state[0][rows]
        self._tell_until(rows[opened != EMPTY], opened[opened != EMPTY], result)

    def _take_in(self, panes: tuple[Array, ...], result: StepResult) -> None:
        """Put panes of different rows into their rings; windows that were told of without all of it are revised."""
        rows, start_ns, heard, told = panes[:4]
        put_panes(panes, self._every_ns, self._ring.panes)
        self._ring.newest[rows] = start_ns
        again = (heard > told) & (self._ring.told_end[rows] > start_ns)
        if again.any():
            n = (self._ring.told_end[rows[again]] - start_ns[again]) // self._every_ns
            self._merge(rows[again], start_ns[again], n, result, ELSEWHERE)

    def _tell_until(self, rows: Array, until_ns: Array, result: StepResult) -> None:
        """Tell of the windows of different rows that end by `until_ns`; later ones are still open."""
        ring = self._ring
        told_end, newest = ring.told_end[rows], ring.newest[rows]
        # Behind `size` after the newest pane no window holds anything.
        ends = np.where(newest == EMPTY, told_end, np.minimum(until_ns, newest + self._size_ns))
        n = np.where(told_end == EMPTY, 0, np.maximum(ends - told_end, 0) // self._every_ns)
        self._merge(rows, told_end, n, result)
        ring.told_end[rows] = np.maximum(told_end, until_ns)

    def _merge(self, rows: Array, after_ns: Array, n: Array, result: StepResult, told: int = 0) -> None:
        """Tell of the `n` windows of each row whose ends follow `after_ns`."""
        # Window by window, so that dense and sparse results of a group keep their order.
        for k in range(int(n.max(initial=0))):
            some = np.flatnonzero(n > k)
            self._tell(rows[some], after_ns[some] + (k + 1) * self._every_ns, result, told)

    def _tell(self, rows: Array, end_ns: Array, result: StepResult, told: int) -> None:
        """Tell of one window of each row."""
        out = self._rows.output(len(rows))
        n_out = merge_panes(rows, end_ns, self._every_ns, out, self._ring.panes)
        out[3][:] = told
        heard = out[2][:n_out] > 0
        # Where there is nothing but late data, only the store can tell.
        for r, start_ns in zip(out[0][:n_out][~heard].tolist(), out[1][:n_out][~heard].tolist(), strict=True):
            result.effects.append(self._revise(int(self._map.slot[r]), start_ns))
        super()._emit(tuple(a[:n_out][heard] for a in out), result)

    def tick(self, now_ns: int, result: StepResult) -> None:
        """Tell of windows that ended while their group was silent; each shard looks every few ticks."""
        if not self._is_round():
            return
        n, every_ns, ring = self._map.n, self._every_ns, self._ring
        window, count, loose, told = (a[:n] for a in self._rows.state[:4])
        told_end = ring.told_end[:n]
        over_ns = (now_ns - self._idle_ns) // every_ns * every_ns
        until_ns = np.minimum(over_ns, np.where(window == EMPTY, EMPTY, window + self._size_ns))
        is_due = until_ns > np.maximum(told_end, window)
        is_due |= (count + loose > told) & (
            told_end > window
        )  # something came after its windows were told of
        due = np.flatnonzero((window != EMPTY) & is_due)
        if not len(due):
            return
        ring.told_end[due] = np.maximum(told_end[due], window[due])
        out = self._rows.output(len(due))
        close_rows(due, out, self._rows.state)
        self._take_in(out, result)
        self._tell_until(due, until_ns[due], result)

    # --- late data -----------------------------------------------------------------------------------

    def _revise_early(self, slot: Array, ts_ns: Array, result: StepResult) -> None:
        for one, start_ns in self._panes_of(slot, ts_ns):
            self._mark(int(self._row(np.array([one], np.uint32))[0]), one, start_ns, result)

    def late(self, batch: FrameBatch, result: StepResult) -> None:
        """Ask for a revision of every window that late frames fall into; of open ones when they are told of."""
        for one, start_ns in self._panes_of(*self._timed(batch)):
            r = int(self._row(np.array([one], np.uint32))[0])
            if start_ns > self._rows.state[0][r]:
                out = self._rows.output(1)
                n = move_on(np.array([r]), np.array([start_ns]), out, self._rows.state)
                if n:
                    self._emit(out, result)
            self._mark(r, one, start_ns, result)

    def _mark(self, r: int, slot: int, pane_ns: int, result: StepResult) -> None:
        """The pane lacks something: windows with it that were told of are revised, others when they are told of."""
        ring, every_ns = self._ring, self._every_ns
        # Windows that were over before the row's first pane are told of by a revision only.
        if ring.told_end[r] == EMPTY:
            ring.told_end[r] = self._rows.state[0][r]
        told_end = int(ring.told_end[r])
        for end_ns in range(pane_ns + every_ns, min(told_end, pane_ns + self._size_ns) + 1, every_ns):
            result.effects.append(self._revise(slot, end_ns - self._size_ns))
        if pane_ns == self._rows.state[0][r]:
            self._rows.state[5][r] |= DIRTY
        elif pane_ns + self._size_ns > self._rows.state[0][r]:
            k = pane_ns // every_ns % ring.panes[0].shape[1]
            if ring.panes[0][r, k] != pane_ns:
                for a in ring.panes:
                    a[r, k] = 0
                ring.panes[0][r, k] = pane_ns
            ring.panes[3][r, k] |= DIRTY

    def _anew(self) -> Window:
        return _Panes(self._sliding, self._context)

    def has_passed(self, slot: int, start_ns: int) -> bool:
        """Whether the window of a group that starts at `start_ns` is over."""
        row = self._map.find(slot)
        return (
            row == UNKNOWN
            or bool(self._rows.state[0][row] == EMPTY)
            or bool(self._ring.told_end[row] >= start_ns + self._size_ns)
        )

    # --- layouts and state ---------------------------------------------------------------------------

    def inherit(self, old: Window, slots: tuple[int, int], columns: Array, result: StepResult) -> None:
        """Go on with the panes of the group's old layout; sensors that it lost are told of."""
        assert isinstance(old, Sliding)
        r_old = old._map.find(slots[1])
        if r_old != UNKNOWN and old._rows.state[0][r_old] != EMPTY:
            r = int(self._row(np.array([slots[0]], np.uint32))[0])
            mine, theirs = self._ring, old._ring
            mine.told_end[r], mine.newest[r] = theirs.told_end[r_old], theirs.newest[r_old]
            kept = np.flatnonzero(columns >= 0)
            kept = kept[same_grid(self._layout, old._layout, kept, columns[kept])]
            for a, b in zip(mine.panes[:4], theirs.panes[:4], strict=True):
                a[r] = b[r_old]
            mine.panes[10][r] = 0
            for a, b in zip(mine.panes[4:], theirs.panes[4:], strict=True):
                a[r][:, kept] = b[r_old][:, columns[kept]]
            if len(kept) < np.count_nonzero(columns != NEW) or (columns == BACK).any():
                mine.panes[3][r] |= DIRTY
        super().inherit(old, slots, columns, result)

    def _leave(self, r: int, columns: Array, result: StepResult) -> None:
        """Tell of all windows of row `r` that are not over, without `columns`, and forget it."""
        state, ring = self._rows.state, self._ring
        start_ns = state[0][r : r + 1].copy()
        if len(np.unique(columns)) < self._layout.width:
            state[12][r, columns] = state[1][r]
            ring.panes[10][r][:, columns] = 0
            row, out = np.array([r]), self._rows.output(1)
            close_rows(row, out, state)
            out[3][:] = 0
            out[4][:] = 1  # as a sparse frame: only of columns that have values
            self._take_in(out, result)
            ring.told_end[row] = np.maximum(ring.told_end[row], start_ns)
            self._tell_until(row, start_ns + self._size_ns, result)
        state[0][r] = ring.told_end[r] = ring.newest[r] = EMPTY
        ring.panes[0][r] = EMPTY

    def snapshot(self) -> bytes:
        """Open panes and rings of all groups."""
        return pack_parts([super().snapshot(), self._ring.snapshot(self._map.n)])

    def restore(self, data: bytes | memoryview) -> None:
        """Take over a snapshot."""
        windows, ring = unpack_parts(data)
        super().restore(windows)
        self._ring.restore(ring)


class _Panes(Sliding):
    """Panes of one window, told of as a whole: sums are put together as those of the first version were, bit for bit."""

    def __init__(self, operator: SlidingOperator, context: Context) -> None:
        super().__init__(operator, context)
        self._window = self._rows.output(0)

    def _row(self, slot: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        row = Window._row(self, slot)  # which needs no ring
        n = self._map.n
        if len(self._window[0]) < n:
            self._window = self._rows.output(n)
            for a in self._window:
                a[:] = 0
        return row

    def _emit(self, out: tuple[Array, ...], result: StepResult) -> None:
        rows, start_ns, heard, _, *rest = out
        fold_panes(tuple(a[None] for a in (start_ns, heard, *rest)), rows, self._window)

    def _close_all(self, start_ns: int) -> tuple[Array, ...]:
        self._emit(super()._close_all(start_ns), StepResult())
        self._window[0][:], self._window[1][:] = np.arange(self._map.n), start_ns
        return self._window
