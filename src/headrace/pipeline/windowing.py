"""Windows: what the operators that end a flow with windows share, and the stage of tumbling ones.

A group's window closes when the group's own watermark passes its end, or when it has been silent until
`idle` after it; what then still comes in time is told as a new version. Late data in a closed window ask for a
revision, which computes the window again from all its stored samples. Closing copies a row (about 10 ns a
sensor); what is dear, encoding and writing, is staggered over shards by the store.

Dense frames give dense results: a sensor without a usable value has the count 0 and no other aggregate. Groups
that report by exception give sparse results: the sensors that had values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch, Shape
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.paths import parse_duration_ns
from headrace.core.quality import Quality, usable
from headrace.core.registry import nearest
from headrace.pipeline.base import BACK, NEW, Revise, StepResult
from headrace.pipeline.operators.base import Context, FromStep
from headrace.pipeline.packing import pack, pack_parts, unpack, unpack_parts
from headrace.pipeline.rows import UNKNOWN, RowMap
from headrace.pipeline.windows import (
    DIRTY,
    ELSEWHERE,
    EMPTY,
    SKIPPED,
    STATE_FIELDS,
    accumulate,
    accumulate_loose,
    accumulate_some,
    close_rows,
    look_ahead,
    look_ahead_loose,
    move_on,
)

Array = npt.NDArray[Any]
LooseFrames = tuple[Array, Array, Array]
"""ts_ns[F], row[F], start[F + 1] of sparse frames or waves."""
LooseSamples = tuple[Array, Array, Array, Array, Array]
"""ts_ns[N], column[N], values[N], usable[N], early[N] of their values."""
SAME_TYPE = ("min", "max", "first", "last")
FLOAT = ("sum", "mean", "var")
AGGREGATES = ("count", *FLOAT, *SAME_TYPE)
_IDLE_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Output:
    """One derived group of a window: the aggregates that share a value type."""

    dtype: str
    aggregates: tuple[str, ...]


def check_aggregates(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return `names` where all are aggregates. Raises `ConfigError`."""
    for name in names:
        if name not in AGGREGATES:
            raise ConfigError(f"unknown aggregate {name!r}{nearest(name, list(AGGREGATES))}")
    return names


def outputs(dtype: str, aggregates: tuple[str, ...]) -> list[Output]:
    """The derived groups of windows over values of `dtype`: values in their own type, and floats.

    A count goes with the floats where there are any: every group is a row of its own in the store, and for a
    lone sensor a row costs more than what is in it.
    """
    has_floats = any(name in FLOAT or (name in SAME_TYPE and dtype == "f64") for name in aggregates)
    kinds: dict[str, list[str]] = {}
    for name in aggregates:
        other = "f64" if name in FLOAT or has_floats else "u32"
        kinds.setdefault(dtype if name in SAME_TYPE else other, []).append(name)
    return [Output(kind, tuple(names)) for kind, names in kinds.items()]


def output_layout(layout: Layout, output: Output, name: Any) -> Layout:
    """Layout of a derived group: all columns of the first aggregate, then of the second, ...

    Parameters
    ----------
    name : ``name(signal, aggregate) -> str`` gives the column's name.
    """
    columns = []
    for aggregate in output.aggregates:
        for c in layout.columns:
            grid = (c.scale, c.offset) if aggregate in SAME_TYPE else (1.0, 0.0)
            unit = {"count": "", "var": f"({c.unit})2" if c.unit else ""}.get(aggregate, c.unit)
            kind = Kind.COUNTER if aggregate == "count" else Kind.ANALOG
            columns.append(Column(name(c.name, aggregate), kind, unit, *grid))
    return Layout(output.dtype, tuple(columns))


class Windowed(FromStep):
    """Base of the operators that end a flow with windows: dataclasses with `every`, `agg` and `idle`."""

    __slots__ = ()
    every: str
    agg: tuple[str, ...]
    idle: str
    ends_flow: ClassVar[bool] = True
    remembers: ClassVar[bool] = True

    @property
    def every_ns(self) -> int:
        """Time between the starts of two windows."""
        return parse_duration_ns(self.every)

    @property
    def size_ns(self) -> int:
        """Length of a window."""
        return self.every_ns

    def check_times(self) -> None:
        """Raise `ConfigError` where windows are too short or a duration is none."""
        if self.every_ns < 1_000_000:
            raise ConfigError(f"a window of {self.every} is too short; 1ms at least")
        parse_duration_ns(self.idle)

    def check_agg(self) -> None:
        """Raise `ConfigError` where `agg` does not name aggregates, each once."""
        if not self.agg:
            raise ConfigError(f"agg names no aggregate; known: {', '.join(AGGREGATES)}")
        check_aggregates(self.agg)
        if len(set(self.agg)) < len(self.agg):
            raise ConfigError(f"agg names an aggregate twice: {', '.join(self.agg)}")

    def starts(self, ts_ns: Array) -> list[int]:
        """Starts of the windows that samples fall into, once each, ascending."""
        panes = np.unique(ts_ns // self.every_ns * self.every_ns)
        before = np.arange(0, self.size_ns, self.every_ns)
        found: list[int] = np.unique(panes[:, None] - before).tolist()
        return found

    def outputs(self, dtype: str) -> list[Output]:
        """The derived groups of windows over values of `dtype`."""
        return outputs(dtype, self.agg)

    def layout(self, layout: Layout) -> Layout:
        """Of what arrives; what leaves are the derived groups of `outputs`."""
        return layout


class _Accumulators:
    """Accumulators of all groups: arrays with one row a group, in the order that the kernels take them."""

    def __init__(self, dtype: str, width: int) -> None:
        self._dtype, self._width = numpy_dtype(dtype), width
        self.state = self._empty(0)

    def _empty(self, n: int) -> tuple[Array, ...]:
        wide = (n, self._width)
        return (
            np.full(n, EMPTY), *(np.zeros(n, np.int64) for _ in range(3)), np.full(n, EMPTY), np.zeros(n, np.uint8),
            *(np.zeros(wide, self._dtype) for _ in range(4)),
            *(np.zeros(wide, np.float64) for _ in range(2)), np.zeros(wide, np.int32),
        )  # fmt: skip

    def output(self, n: int) -> tuple[Array, ...]:
        """Room for `n` closed rows: row, window, heard (count + loose), told, loose, flags, then by column."""
        wide = (n, self._width)
        return (
            *(np.empty(n, np.int64) for _ in range(5)), np.empty(n, np.uint8),
            *(np.empty(wide, self._dtype) for _ in range(4)),
            *(np.empty(wide, np.float64) for _ in range(2)), np.empty(wide, np.int32),
        )  # fmt: skip

    def grow(self, n: int) -> None:
        """Make room for `n` rows."""
        have = len(self.state[0])
        if n > have:
            more = self._empty(max(n, 2 * have) - have)
            self.state = tuple(np.concatenate([a, b]) for a, b in zip(self.state, more, strict=True))

    def arrays(self, n: int) -> dict[str, Array]:
        """The first `n` rows, for a snapshot."""
        return {name: a[:n] for name, a in zip(STATE_FIELDS, self.state, strict=True)}

    def restore(self, arrays: dict[str, Array]) -> None:
        """The inverse of `arrays`."""
        self.state = tuple(arrays[name] for name in STATE_FIELDS)


class Window:
    """Tumbling windows over the groups of one shard that have one layout class.

    Cost: 2 to 5 ns a sample of a dense group, about 10 ns a single value; state 41 + D x (4 x itemsize + 20)
    bytes a group.
    """

    def __init__(self, operator: Windowed, context: Context) -> None:
        self._operator, self._context = operator, context
        self._every_ns, self._idle_ns = operator.every_ns, parse_duration_ns(operator.idle)
        self._size_ns = operator.size_ns
        self._layout = context.layout
        self._outputs = operator.outputs(context.layout.dtype)
        self._map = RowMap(context.directory, context.shard)
        self._rows = _Accumulators(self._layout.dtype, self._layout.width)
        self._nothing = self._rows.output(0)
        self._ticks = context.shard

    # --- frames --------------------------------------------------------------------------------------

    def process(self, batch: FrameBatch, result: StepResult) -> None:
        """Add frames; closed windows go to ``result.derived``."""
        row = self._row(batch.slot)
        if batch.shape is Shape.DENSE:
            self._add_dense(batch, row, result)
        else:
            self._add_loose(batch, row, result)

    def _row(self, slot: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        row = self._map.rows(slot)
        self._rows.grow(self._map.n)
        return row

    def _add_dense(self, batch: FrameBatch, row: Array, result: StepResult) -> None:
        state, every_ns = self._rows.state, self._every_ns
        n_rolls, n_early = look_ahead(batch.ts_ns, row, state[0], every_ns)
        if n_early:
            # Loose values with times of their own have moved the window on.
            early = batch.ts_ns < state[0][row]
            self._revise_early(batch.slot[early], batch.ts_ns[early], result)
            batch, row = batch.take(np.flatnonzero(~early)), row[~early]
        out = self._rows.output(n_rolls) if n_rolls else self._nothing
        n = self._accumulate(batch, row, out)
        if n:
            self._emit(tuple(a[:n] for a in out), result)

    def _accumulate(self, batch: FrameBatch, row: Array, out: tuple[Array, ...]) -> int:
        """Add dense frames; how many windows closed into `out`."""
        state = self._rows.state
        if batch.quality is None:
            return accumulate(batch.ts_ns, row, batch.values, self._every_ns, out, state)
        good = usable(batch.quality)
        return accumulate_some((batch.ts_ns, row), batch.values, good, self._every_ns, out, state)

    def _accumulate_loose(self, frames: LooseFrames, samples: LooseSamples, out: tuple[Array, ...]) -> int:
        """Add the values of sparse frames or waves; how many windows closed into `out`."""
        return accumulate_loose(frames, samples, self._every_ns, out, self._rows.state)

    def _add_loose(self, batch: FrameBatch, row: Array, result: StepResult) -> None:
        assert batch.start is not None
        state, ts_ns, n_values = self._rows.state, read_only(batch.value_times()), batch.n_values
        column = read_only(np.zeros(n_values, np.uint16)) if batch.column is None else batch.column
        good = np.ones(n_values, np.bool_) if batch.quality is None else usable(batch.quality)
        early = np.empty(n_values, np.bool_)
        out = self._rows.output(look_ahead_loose(ts_ns, row, batch.start, state[0], self._every_ns))
        frames, samples = (batch.ts_ns, row, batch.start), (ts_ns, column, batch.values, good, early)
        n = self._accumulate_loose(frames, samples, out)
        if n:
            self._emit(tuple(a[:n] for a in out), result)
        if early.any():
            slot = np.repeat(batch.slot, np.diff(batch.start))
            self._revise_early(slot[early], ts_ns[early], result)

    def _revise_early(self, slot: Array, ts_ns: Array, result: StepResult) -> None:
        for one, start_ns in self._panes_of(slot, ts_ns):
            result.effects.append(self._revise(one, start_ns))

    # --- late data and time ----------------------------------------------------------------------------

    def late(self, batch: FrameBatch, result: StepResult) -> None:
        """Ask for a revision of every window that late frames fall into; of open ones when they are told of.

        A late frame tells that its group's time has gone past it: so the row moves on to its window where it
        has not been there, and no such window is told of for the first time after it was revised.
        """
        pairs = self._panes_of(*self._timed(batch))
        if not pairs:
            return
        row = self._row(np.array([slot for slot, _ in pairs], np.uint32)).tolist()
        window, count, loose, told, _, flags = self._rows.state[:6]
        for r, (one, start_ns) in zip(row, pairs, strict=True):
            if start_ns > window[r]:
                out = self._rows.output(1)
                if move_on(np.array([r]), np.array([start_ns]), out, self._rows.state):
                    self._emit(out, result)
                result.effects.append(self._revise(one, start_ns))
            elif start_ns < window[r]:
                result.effects.append(self._revise(one, start_ns))
            else:
                flags[r] |= DIRTY
                if told[r] == count[r] + loose[r]:
                    result.effects.append(self._revise(one, start_ns))

    def _panes_of(self, slot: Array, ts_ns: Array) -> list[tuple[int, int]]:
        """The stretches of `every` that samples fall into, once each: (slot, start), ascending."""
        starts = ts_ns // self._every_ns * self._every_ns
        pairs = np.unique(np.stack([slot.astype(np.int64), starts]), axis=1)
        return [(slot, start_ns) for slot, start_ns in pairs.T.tolist()]

    @staticmethod
    def _timed(batch: FrameBatch) -> tuple[Array, Array]:
        """Slot and time of the values of frames that have a time."""
        slot, ts_ns = batch.slot, batch.ts_ns
        if batch.start is not None:
            slot, ts_ns = np.repeat(slot, np.diff(batch.start)), batch.value_times()
        timed = ts_ns != NO_TIME
        return slot[timed], ts_ns[timed]

    def _revise(self, slot: int, start_ns: int) -> Revise:
        return Revise(self._context.flow, slot, start_ns, start_ns + self._size_ns)

    def tick(self, now_ns: int, result: StepResult) -> None:
        """Tell of windows that ended while their group was silent; each shard looks every few ticks."""
        if not self._is_round():
            return
        window, count, loose, told = (a[: self._map.n] for a in self._rows.state[:4])
        ended = (window != EMPTY) & (count + loose > told)
        ended &= window <= now_ns - self._every_ns - self._idle_ns
        due = np.flatnonzero(ended)
        if len(due):
            out = self._rows.output(len(due))
            close_rows(due, out, self._rows.state)
            self._emit(out, result)

    def _is_round(self) -> bool:
        """Count a tick; whether it is this shard's turn to look for silent groups."""
        self._ticks += 1
        return self._ticks % _IDLE_ROUNDS == 0

    def recompute(self, batch: FrameBatch, start_ns: int, result: StepResult) -> None:
        """One window of each group from all its stored frames, as revisions.

        `batch` holds the frames of groups in the window from `start_ns`, each in time order, in the source's own
        type.
        """
        fresh = self._anew()
        fresh.process(batch, StepResult())
        out = fresh._close_all(start_ns)
        # Of sensors that have samples, but no usable one any more, earlier results are taken back.
        seen = _columns_seen(batch, fresh._map.rows(batch.slot), out[12].shape)
        make = fresh._dense if seen is None else fresh._sparse
        result.revised += make(out, Quality.BAD, seen)

    def _anew(self) -> Window:
        """One that has seen nothing and will see the frames of one window."""
        return type(self)(self._operator, self._context)

    def _close_all(self, start_ns: int) -> tuple[Array, ...]:
        """The window from `start_ns` of every row."""
        rows = np.arange(self._map.n)
        out = self._rows.output(len(rows))
        close_rows(rows, out, self._rows.state)
        return out

    def has_passed(self, slot: int, start_ns: int) -> bool:
        """Whether the window of a group that starts at `start_ns` is over."""
        row = self._map.find(slot)
        return (
            row == UNKNOWN or self._rows.state[0][row] == EMPTY or bool(self._rows.state[0][row] > start_ns)
        )

    def inherit(self, old: Window, slots: tuple[int, int], columns: Array, result: StepResult) -> None:
        """Go on with the open window of the group's old layout; sensors that it lost are told of."""
        slot, old_slot = slots
        r_old = old._map.find(old_slot)
        if r_old == UNKNOWN or old._rows.state[0][r_old] == EMPTY:
            return
        r = int(self._row(np.array([slot], np.uint32))[0])
        mine, theirs = self._rows.state, old._rows.state
        for a, b in zip(mine[:6], theirs[:6], strict=True):
            a[r] = b[r_old]
        kept = np.flatnonzero(columns >= 0)
        kept = kept[same_grid(self._layout, old._layout, kept, columns[kept])]
        mine[12][r] = mine[1][r]
        for a, b in zip(mine[6:], theirs[6:], strict=True):
            a[r, kept] = b[r_old, columns[kept]]
        # What came under another grid, or before the sensor was gone for a while, is in the store only.
        is_whole = len(kept) == np.count_nonzero(columns != NEW)
        if mine[3][r] == 0 and (columns == BACK).any():
            mine[3][r] = ELSEWHERE
        mine[5][r] |= SKIPPED if is_whole else SKIPPED | DIRTY
        old._leave(r_old, columns[columns >= 0], result)

    def _leave(self, r: int, columns: Array, result: StepResult) -> None:
        """Tell of the open window of row `r` without `columns`, and forget it."""
        state = self._rows.state
        state[12][r, columns] = state[1][r]
        out = self._rows.output(1)
        close_rows(np.array([r]), out, state)
        out[4][:] = 1  # as a sparse frame: only of columns that have values
        self._emit(out, result)
        state[0][r] = EMPTY

    # --- results -------------------------------------------------------------------------------------

    def _emit(self, out: tuple[Array, ...], result: StepResult) -> None:
        """Tell of closed rows that have something new, first versions apart from later ones."""
        heard, told = out[2], out[3]
        for target, chosen in (
            (result.derived, (told == 0) & (heard > 0)),
            (result.revised, (told != 0) & (heard > told)),
        ):
            if not chosen.any():
                continue
            some = out if chosen.all() else tuple(a[chosen] for a in out)
            loose = some[4] > 0
            if not loose.all():
                target += self._dense(tuple(a[~loose] for a in some) if loose.any() else some)
            if loose.any():
                target += self._sparse(tuple(a[loose] for a in some))
            dirty = np.flatnonzero(some[5] & DIRTY)
            for r, start_ns in zip(some[0][dirty].tolist(), some[1][dirty].tolist(), strict=True):
                result.effects.append(self._revise(int(self._map.slot[r]), start_ns))

    def _dense(
        self, out: tuple[Array, ...], gone: Quality = Quality.ABSENT, seen: Array | None = None
    ) -> list[FrameBatch]:
        """Dense derived frames of closed rows; `gone` is the quality of aggregates that have no value."""
        slot, window, missing = self._map.slot[out[0]], out[1], out[12] == 0
        any_missing = bool(missing.any())
        batches = []
        for output, values, derived in self._values(out):
            quality = None
            if any_missing:
                lacks = np.concatenate([missing & (a != "count") for a in output.aggregates], axis=1)
                quality = np.where(lacks, np.uint8(gone), np.uint8(0))
                values[lacks] = 0
            batches.append(
                FrameBatch.dense(derived[slot], window, values, quality, origin=self._context.flow)
            )
        return batches

    def _sparse(
        self, out: tuple[Array, ...], gone: Quality = Quality.ABSENT, seen: Array | None = None
    ) -> list[FrameBatch]:
        """Sparse derived frames of closed rows: of columns with values, or of those that were ``seen: bool[R, D]``."""
        slot, window, missing = self._map.slot[out[0]], out[1], out[12] == 0
        chosen = ~missing if seen is None else seen
        batches = []
        for output, values, derived in self._values(out):
            wide = np.concatenate([chosen] * len(output.aggregates), axis=1)
            lacks = np.concatenate([missing & (a != "count") for a in output.aggregates], axis=1)
            values[lacks] = 0
            quality = np.where(lacks, np.uint8(gone), np.uint8(0))[wide]
            start = np.concatenate([np.zeros(1, np.int64), np.cumsum(wide.sum(axis=1))])
            column = np.nonzero(wide)[1].astype(np.uint16)
            frames = FrameBatch.sparse(
                derived[slot], window, values[wide], start, column, origin=self._context.flow
            )
            if quality.any():
                frames = frames.with_(quality=quality)
            some = np.flatnonzero(np.diff(start))
            if len(some):
                batches.append(frames if len(some) == len(slot) else frames.take(some))
        return batches

    def _values(self, out: tuple[Array, ...]) -> Iterator[tuple[Output, Array, Any]]:
        """Values of each output, T[R, aggregates x D], and where its slots are found."""
        first, last, low, high, shifted, squares, n = out[6:]
        exact = {"min": low, "max": high, "first": first, "last": last, "count": n.astype(np.uint32)}
        floats = self._floats(first, shifted, squares, n)
        for output, derived in zip(self._outputs, self._context.derived, strict=False):
            parts = [exact[a] if a in exact else floats(a) for a in output.aggregates]
            yield output, np.concatenate(parts, axis=1), derived

    def _floats(self, first: Array, shifted: Array, squares: Array, n: Array) -> Callable[[str], Array]:
        grid = self._layout.grid
        some = np.maximum(n, 1)
        base = first.astype(np.float64)

        def aggregate(name: str) -> Array:
            if name == "sum":
                total: Array = grid.totals(base * n + shifted, n)
                return total
            if name == "mean":
                mean: Array = grid.values(base + shifted / some)
                return mean
            # Population variance; rounding may leave a tiny negative.
            var: Array = np.maximum(squares - shifted * shifted / some, 0.0) / some * (grid.step * grid.step)
            return var

        return aggregate

    # --- state ---------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Open windows of all groups."""
        head = pack({"ticks": np.array([self._ticks]), "slot": self._map.slot})
        return pack_parts([head, pack(self._rows.arrays(self._map.n))])

    def restore(self, data: bytes | memoryview) -> None:
        """Take over the open windows of a snapshot."""
        head, rows = (unpack(p) for p in unpack_parts(data))
        self._ticks = int(head["ticks"][0])
        self._map.restore(head["slot"])
        self._rows.restore(rows)


def _columns_seen(batch: FrameBatch, row: Array, shape: tuple[int, ...]) -> Array | None:
    """Which columns of each row have samples, bool[R, D]; None for all columns of dense frames."""
    seen: Array = np.zeros(shape, np.bool_)
    if batch.start is not None:
        seen[np.repeat(row, np.diff(batch.start)), 0 if batch.column is None else batch.column] = True
        return seen
    if batch.quality is None:
        return None
    frame, column = np.nonzero(batch.quality < Quality.ABSENT)
    seen[row[frame], column] = True
    return None if seen.all() else seen


def read_only(array: Array) -> Array:
    """As the columns of batches are: the kernels are compiled for one kind of array only."""
    array.flags.writeable = False
    return array


def same_grid(new: Layout, old: Layout, columns: Array, old_columns: Array) -> Array:
    """Which columns mean the same raw values in both layouts."""
    same = np.full(len(columns), new.dtype == old.dtype)
    same &= new.scale[columns] == old.scale[old_columns]
    same &= new.offset[columns] == old.offset[old_columns]
    return same
