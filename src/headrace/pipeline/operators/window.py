"""Tumbling windows: ``{ op = "window", every = "1m", agg = ["mean", "max"] }``.

A group's window closes when the group's own watermark passes its end, or when it has been silent until
`idle_ns` after it. Late data in a closed window ask for a revision, which stands as a new version of the same
derived frame. Closing copies a row (about 10 ns a sensor); what is dear, encoding and writing, is staggered
over shards by the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch, Shape
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.paths import parse_duration_ns
from headrace.core.quality import Quality, usable
from headrace.core.registry import nearest
from headrace.pipeline.base import Revise, StepResult
from headrace.pipeline.operators.base import Context, FromStep
from headrace.pipeline.packing import pack, pack_parts, unpack, unpack_parts
from headrace.pipeline.windows import EMPTY, accumulate, accumulate_some, close_rows, count_rolls, find_rows

Array = npt.NDArray[Any]
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
    """The derived groups of windows over values of `dtype`: values in their own type, counts, floats."""
    kinds: dict[str, list[str]] = {}
    for name in aggregates:
        kind = dtype if name in SAME_TYPE else "u32" if name == "count" else "f64"
        kinds.setdefault(kind, []).append(name)
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


class _Rows:
    """Accumulators of all groups of one width: arrays with one row a group."""

    _FIELDS = (
        "window",
        "count",
        "skipped_any",
        "emitted",
        "first",
        "last",
        "low",
        "high",
        "shifted",
        "squares",
    )

    def __init__(self, dtype: str, width: int) -> None:
        self.dtype, self.width = numpy_dtype(dtype), width
        self.n = 0
        self.slot = np.empty(0, np.uint32)
        self.column = np.empty(0, np.uint16)
        self.state = self.empty(0)

    def empty(self, n: int) -> tuple[Array, ...]:
        """Arrays for `n` rows in the order that the kernels take them."""
        wide = (n, self.width)
        return (
            np.full(n, EMPTY), np.zeros(n, np.int64), np.zeros(n, np.uint8), np.zeros(n, np.int64),
            *(np.empty(wide, self.dtype) for _ in range(4)),
            *(np.empty(wide, np.float64) for _ in range(2)), np.zeros(wide, np.uint32),
        )  # fmt: skip

    def output(self, n: int) -> tuple[Array, ...]:
        """Room for `n` closed rows: row numbers, then the arrays of `empty` without `skipped_any`."""
        wide = (n, self.width)
        return (
            np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64),
            *(np.empty(wide, self.dtype) for _ in range(4)),
            *(np.empty(wide, np.float64) for _ in range(2)), np.empty(wide, np.uint32),
        )  # fmt: skip

    def add(self, slot: Array, column: Array) -> Array:
        """New rows for groups (or, with `column`, for single sensors): their numbers."""
        first, self.n = self.n, self.n + len(slot)
        if self.n > len(self.slot):
            room = max(self.n, 2 * len(self.slot))
            grown = self.empty(room)
            for old, new in zip(self.state, grown, strict=True):
                new[:first] = old[:first]
            self.state = grown
            self.slot, self.column = _resized(self.slot, room), _resized(self.column, room)
        self.slot[first : self.n], self.column[first : self.n] = slot, column
        return np.arange(first, self.n)

    def arrays(self) -> dict[str, Array]:
        """Everything, for a snapshot."""
        out = {f"state{i}": a[: self.n] for i, a in enumerate(self.state)}
        return {**out, "slot": self.slot[: self.n], "column": self.column[: self.n]}

    def restore(self, arrays: dict[str, Array]) -> None:
        """The inverse of `arrays`."""
        self.state = tuple(arrays[f"state{i}"] for i in range(11))
        self.slot, self.column = arrays["slot"], arrays["column"]
        self.n = len(self.slot)


def _resized(array: Array, n: int) -> Array:
    grown = np.zeros(n, array.dtype)
    grown[: len(array)] = array
    return grown


@dataclass(frozen=True, slots=True)
class WindowOperator(FromStep):
    """``{ op = "window", every = "1m", agg = ["mean", "max"], idle = "5s" }``.

    Windows start at multiples of `every` since 1970 UTC; a silent group's window is told of `idle` after its end.
    """

    every: str
    agg: tuple[str, ...]
    idle: str = "5s"
    ends_flow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.agg:
            raise ConfigError(f"agg names no aggregate; known: {', '.join(AGGREGATES)}")
        check_aggregates(self.agg)
        if self.every_ns < 1_000_000:
            raise ConfigError(f"a window of {self.every} is too short; 1ms at least")
        parse_duration_ns(self.idle)

    @property
    def every_ns(self) -> int:
        """Length of a window."""
        return parse_duration_ns(self.every)

    def layout(self, layout: Layout) -> Layout:
        """Of what arrives; what leaves are the derived groups of `outputs`."""
        return layout

    def stage(self, context: Context) -> Window:
        """The windows of one shard."""
        return Window(self, context)


class Window:
    """Tumbling windows over the groups of one shard that have one layout class.

    Cost: 2 to 5 ns a sample of a dense group; state 25 + D x (4 x itemsize + 20) bytes a group.
    """

    def __init__(self, operator: WindowOperator, context: Context) -> None:
        self._operator, self._context = operator, context
        self._every_ns, self._idle_ns = operator.every_ns, parse_duration_ns(operator.idle)
        self._directory, self._shard, self._layout = context.directory, context.shard, context.layout
        self._outputs = outputs(context.layout.dtype, operator.agg)
        # Dense groups have a row each; sparse groups and waves a row for each sensor.
        self._by_group = _Rows(self._layout.dtype, self._layout.width)
        self._by_sensor = _Rows(self._layout.dtype, 1)
        self._row_of_group = np.empty(0, np.int64)
        self._row_of_sensor: dict[int, int] = {}
        self._dirty: set[tuple[int, int]] = set()
        self._ticks = self._shard

    # --- frames --------------------------------------------------------------------------------------

    def process(self, batch: FrameBatch, result: StepResult) -> None:
        """Add frames; closed windows go to ``result.derived``."""
        if batch.shape is Shape.DENSE:
            rows, row = self._by_group, self._group_rows(batch.slot)
            ts_ns, values, quality = batch.ts_ns, batch.values, batch.quality
        else:
            rows, row = self._by_sensor, self._sensor_rows(batch)
            ts_ns, values = batch.value_times(), batch.values.reshape(-1, 1)
            quality = None if batch.quality is None else batch.quality.reshape(-1, 1)
        out = rows.output(count_rolls(ts_ns, row, rows.state[0], self._every_ns))
        if quality is None:
            n = accumulate(ts_ns, row, values, self._every_ns, out, rows.state)
        else:
            n = accumulate_some(ts_ns, row, values, usable(quality), self._every_ns, out, rows.state)
        if n:
            self._emit(rows, tuple(a[:n] for a in out), result)

    def _group_rows(self, slot: Array) -> Array:
        row = np.empty(len(slot), np.int64)
        local = self._directory.local
        if find_rows(slot, local, self._row_of_group, row):
            n = self._directory.n_local(self._shard)
            if n > len(self._row_of_group):
                grown = np.full(n, -1)
                grown[: len(self._row_of_group)] = self._row_of_group
                self._row_of_group = grown
            new = np.unique(slot[row < 0])
            new = new[self._row_of_group[local[new]] < 0]
            added = self._by_group.add(new, np.zeros(len(new), np.uint16))
            self._row_of_group[local[new]] = added
            self._inherit(new, added)
            find_rows(slot, local, self._row_of_group, row)
        return row

    def _inherit(self, slots: Array, rows: Array) -> None:
        """State follows the sensor: a group's new layout takes over the open window of the old one."""
        for slot, row in zip(slots.tolist(), rows.tolist(), strict=True):
            old = int(self._directory.previous[slot])
            if old < 0 or int(self._directory.local[old]) >= len(self._row_of_group):
                continue
            old_row = int(self._row_of_group[self._directory.local[old]])
            if old_row < 0 or self._directory.layout(old).width != self._directory.layout(slot).width:
                continue
            if (self._directory.sensors(old) == self._directory.sensors(slot)).all():
                for array in self._by_group.state:
                    array[row] = array[old_row]
                self._by_group.state[0][old_row] = EMPTY

    def _sensor_rows(self, batch: FrameBatch) -> Array:
        assert batch.start is not None
        slot = np.repeat(batch.slot.astype(np.int64), np.diff(batch.start))
        column = np.zeros(len(slot), np.int64) if batch.column is None else batch.column.astype(np.int64)
        key, inverse = np.unique(slot << 16 | column, return_inverse=True)
        unknown = np.array([k for k in key.tolist() if k not in self._row_of_sensor], np.int64)
        if len(unknown):
            added = self._by_sensor.add(unknown >> 16, unknown & 0xFFFF)
            self._row_of_sensor.update(zip(unknown.tolist(), added.tolist(), strict=True))
        rows = np.array([self._row_of_sensor[k] for k in key.tolist()], np.int64)
        return rows[inverse]

    # --- late data and time ----------------------------------------------------------------------------

    def late(self, batch: FrameBatch, result: StepResult) -> None:
        """Ask for a revision of every closed window that late frames fall into; open ones when they close."""
        count = np.ones(batch.n_frames, np.int64) if batch.start is None else np.diff(batch.start)
        ts_ns = batch.value_times()
        if batch.start is None:
            ts_ns = batch.ts_ns
            slots = batch.slot.astype(np.int64)
        else:
            slots = np.repeat(batch.slot.astype(np.int64), count)
        pairs = np.unique(np.stack([slots, ts_ns // self._every_ns * self._every_ns]), axis=1)
        still_open = self._open_windows()
        for slot, start_ns in pairs.T.tolist():
            if (slot, start_ns) in still_open:
                self._dirty.add((slot, start_ns))
            else:
                result.effects.append(self._revise(slot, start_ns))

    def _open_windows(self) -> set[tuple[int, int]]:
        found: set[tuple[int, int]] = set()
        for rows in (self._by_group, self._by_sensor):
            found.update(zip(rows.slot[: rows.n].tolist(), rows.state[0][: rows.n].tolist(), strict=True))
        return found

    def _revise(self, slot: int, start_ns: int) -> Revise:
        return Revise(self._context.flow, slot, start_ns, start_ns + self._every_ns)

    def tick(self, now_ns: int, result: StepResult) -> None:
        """Tell of windows that ended while their group was silent; each shard looks every few ticks."""
        self._ticks += 1
        if self._ticks % _IDLE_ROUNDS:
            return
        for rows in (self._by_group, self._by_sensor):
            window, count, _, emitted = (a[: rows.n] for a in rows.state[:4])
            ended = (window != EMPTY) & (count > emitted)
            ended &= window + self._every_ns + self._idle_ns <= now_ns
            due = np.flatnonzero(ended)
            if len(due):
                out = rows.output(len(due))
                close_rows(due, out, rows.state)
                self._emit(rows, out, result)

    def recompute(self, batch: FrameBatch, start_ns: int, result: StepResult) -> None:
        """The window that starts at `start_ns` from all its stored frames, as a revision.

        `batch` holds the frames of one group in time order, in the source's own type.
        """
        fresh = Window(self._operator, self._context)
        inner = StepResult()
        fresh.process(batch, inner)
        for rows in (fresh._by_group, fresh._by_sensor):
            if rows.n:
                out = rows.output(rows.n)
                close_rows(np.arange(rows.n), out, rows.state)
                out[3][:] = 1
                fresh._emit(rows, out, inner)
        result.revised += inner.revised

    # --- results -------------------------------------------------------------------------------------

    def _emit(self, rows: _Rows, out: tuple[Array, ...], result: StepResult) -> None:
        row, window, count, emitted = out[:4]
        if self._dirty:
            told_of = set(zip(rows.slot[row].tolist(), window.tolist(), strict=True))
            for slot, start_ns in sorted(self._dirty & told_of):
                result.effects.append(self._revise(slot, start_ns))
            self._dirty -= told_of
        keep = count > emitted
        told = emitted > 0
        if not keep.all():
            out = tuple(a[keep] for a in out)
            row, window, count, told = out[0], out[1], out[2], told[keep]
        for is_revision, target in ((False, result.derived), (True, result.revised)):
            chosen = told == is_revision
            if chosen.all() and len(chosen):
                target += self._frames(rows, out)
            elif chosen.any():
                target += self._frames(rows, tuple(a[chosen] for a in out))

    def _frames(self, rows: _Rows, out: tuple[Array, ...]) -> list[FrameBatch]:
        row, window, count, _, first, last, low, high, shifted, squares, skipped = out
        slot = rows.slot[row]
        n = count[:, None] - skipped
        missing = n == 0
        any_missing = bool(missing.any())
        exact = {"min": low, "max": high, "first": first, "last": last}
        per_sensor = rows is self._by_sensor or rows.width != self._layout.width
        column = rows.column[row] if per_sensor else None
        floats = self._floats(first, shifted, squares, n, column)
        batches = []
        for output, derived in zip(self._outputs, self._context.derived, strict=False):
            if output.dtype == "u32" and output.aggregates[0] == "count":
                parts = [n.astype(np.uint32)]
            else:
                parts = [exact[a] if a in exact else floats(a) for a in output.aggregates]
            gone = [missing & (a != "count") for a in output.aggregates] if any_missing else None
            batches.append(self._batch(derived[slot], window, parts, gone, column))
        return batches

    def _floats(self, first: Array, shifted: Array, squares: Array, n: Array, column: Array | None) -> Any:
        scale, offset = self._layout.scale, self._layout.offset
        if column is not None:
            scale, offset = scale[column][:, None], offset[column][:, None]
        some = np.maximum(n, 1)
        base = first.astype(np.float64)

        def aggregate(name: str) -> Array:
            if name == "sum":
                total: Array = (base * n + shifted) * scale + offset * n
                return total
            if name == "mean":
                mean: Array = (base + shifted / some) * scale + offset
                return mean
            # Population variance; rounding may leave a tiny negative.
            var: Array = np.maximum(squares - shifted * shifted / some, 0.0) / some * (scale * scale)
            return var

        return aggregate

    def _batch(
        self, slot: Array, ts_ns: Array, parts: list[Array], gone: list[Array] | None, column: Array | None
    ) -> FrameBatch:
        quality = (
            None
            if gone is None
            else np.where(np.concatenate(gone, axis=1), Quality.ABSENT, 0).astype(np.uint8)
        )
        values = np.concatenate(parts, axis=1)
        if column is None:
            return FrameBatch.dense(slot, ts_ns, values, quality, origin=self._context.flow)
        n = len(parts)
        start = np.arange(len(slot) + 1) * n
        columns = (column[:, None].astype(np.int64) + np.arange(n) * self._layout.width).reshape(-1)
        flat = None if quality is None else quality.reshape(-1)
        return FrameBatch.sparse(
            slot,
            ts_ns,
            values.reshape(-1),
            start,
            columns.astype(np.uint16),
            quality=flat,
            origin=self._context.flow,
        )

    # --- state ---------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Open windows of all groups."""
        head = pack({"ticks": np.array([self._ticks]), "dirty": np.array(sorted(self._dirty)).reshape(-1, 2)})
        return pack_parts([head, pack(self._by_group.arrays()), pack(self._by_sensor.arrays())])

    def restore(self, data: bytes | memoryview) -> None:
        """Take over the open windows of a snapshot."""
        head, by_group, by_sensor = (unpack(p) for p in unpack_parts(data))
        self._ticks = int(head["ticks"][0])
        self._dirty = {(int(a), int(b)) for a, b in head["dirty"]}
        self._by_group.restore(by_group)
        self._by_sensor.restore(by_sensor)
        slot = self._by_group.slot
        self._row_of_group = np.full(self._directory.n_local(self._shard), -1)
        self._row_of_group[self._directory.local[slot]] = np.arange(len(slot))
        key = self._by_sensor.slot.astype(np.int64) << 16 | self._by_sensor.column
        self._row_of_sensor = dict(zip(key.tolist(), range(len(key)), strict=True))
