"""Answering from rollups: of each sensor and day the coarsest windows that give exactly what was asked.

A rollup window stands for its samples where it lies wholly inside one window of the query and inside its span, and where
nothing that the rollup does not know (a hot row, the tail, what was added to the day later) is at its times. The rest, the
edges, is answered from samples; samples inside windows that rollups answered are left out. So an answer is the same, bit
for bit, with rollups and without, but that a sum of floats is rounded once for each chunk whose header gives it; `var` and
`twa`, which rollups do not give to the last bit, come from samples.

Where a day's samples are gone, the rest is answered with the finest windows there are, and the answer says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import DTYPES, numpy_dtype
from headrace.core.paths import format_duration
from headrace.store.aggregates import TIME_WEIGHTED, Partials, in_units
from headrace.store.grouping import DAY_NS
from headrace.store.headers import EXACT_DTYPES, header_partials, overlapping, sensors_of, tail_spans, touched
from headrace.store.intervals import Intervals
from headrace.store.reader import FoundRows
from headrace.store.resolutions import (
    BLOCK_SAMPLES_MIN,
    RESOLUTIONS_NS,
    resolutions_of,
    unpack_blocks,
)
from headrace.store.runs import SensorSamples
from headrace.store.segment import RowHeaders
from headrace.store.wanted import NOWHERE, Lane, Wanted, lane_of
from headrace.store.window_blocks import decode_windows

if TYPE_CHECKING:
    from headrace.store.answer import Answer

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Found = tuple[FoundRows, I64, bool]

_INEXACT = ("var", TIME_WEIGHTED)
_DTYPE_OF = [numpy_dtype(name) for name in DTYPES]


@dataclass(frozen=True, slots=True, eq=False)
class RolledRows:
    """Rollup rows of wanted sensors: parallel columns.

    ``place`` is (number in `found`, row there) of each: int64[n, 2]. ``element`` is its index in the columns of the
    selection, ``lane`` that of its samples. ``has_header``: the header is the day's window. ``is_alone``: the row's
    samples were dropped.
    """

    found: list[FoundRows]
    place: I64
    sensor: I64
    group: I64
    t_min: I64
    t_max: I64
    n_samples: I64
    element: I64
    lane: I64
    has_header: Bools
    is_alone: Bools

    def __len__(self) -> int:
        return len(self.sensor)

    @classmethod
    def of(cls, wanted: Wanted, scanned: Sequence[Found], alone: Sequence[Found] = ()) -> RolledRows | None:
        """The rows of wanted sensors among those that were found, beside samples or alone; None where there are none."""
        parts: list[tuple[Array, ...]] = []
        for number, (found, place, _) in enumerate((*scanned, *alone)):
            rows = found.rows
            element = wanted.elements(rows.column, place)
            at = np.flatnonzero(element != NOWHERE)
            element = element[at]
            parts.append((
                np.stack([np.full(len(at), number), at], axis=1), wanted.sensor[element], found.group_index[at],
                rows.t_min[at], rows.t_max[at], rows.n_samples[at].astype(np.int64), element,
                _lanes(wanted, place[at], rows.column[at]), EXACT_DTYPES[rows.dtype[at]],
                np.full(len(at), number >= len(scanned)),
            ))  # fmt: skip
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return cls([f for f, _, _ in (*scanned, *alone)], *columns) if columns and len(columns[0]) else None

    def reach(self, wanted: Wanted, others: tuple[I64, I64, I64]) -> tuple[I64, I64]:
        """The stretch [start, end) of each row of which it knows all samples of its sensor: (int64[n], int64[n]).

        The whole day, where a sensor has one layout and none of `others`, (group, first, last time) of what rollups do not
        know, is there; else from its first sample to its last.
        """
        day = self.t_min // DAY_NS * DAY_NS
        n_layouts = np.bincount(wanted.sensor, minlength=1)
        whole = n_layouts[self.sensor] == 1
        whole &= ~touched(self.group, day, day + DAY_NS - 1, others)
        return np.where(whole, day, self.t_min), np.where(whole, day + DAY_NS, self.t_max + 1)

    def resolutions(self, row: int) -> tuple[int, ...]:
        """Those whose windows there are, the header's day among them, coarse ones first."""
        rows, at = self._row(row)
        blocks = resolutions_of(rows.codecs[int(rows.codec[at])][0])
        return (DAY_NS, *blocks) if self.has_header[row] else blocks

    def headers(self, index: I64, every_ns: int | None) -> list[Partials]:
        """The days' windows of the rows at `index`, in engineering units, file by file."""
        out = []
        for number in np.unique(self.place[index, 0]).tolist():
            mine = index[self.place[index, 0] == number]
            rows = self.found[number].rows
            out.append(header_partials(rows, self.place[mine, 1], self.sensor[mine], every_ns))
        return out

    def windows(self, row: int, every_ns: int, answer: Answer) -> Partials:
        """Windows of one resolution, in the units of the answer.

        Raises
        ------
        CorruptionError : the row is damaged.
        """
        if every_ns == DAY_NS and self.has_header[row]:
            return self.headers(np.array([row]), every_ns)[0].as_type(answer.dtype)
        rows, at = self._row(row)
        payload, _ = self.found[int(self.place[row, 0])].payloads(np.array([at]))
        block = unpack_blocks(payload.tobytes(), rows.codecs[int(rows.codec[at])][0])[every_ns]
        found = decode_windows(
            block, int(self.t_min[row]) // DAY_NS, every_ns, _DTYPE_OF[int(rows.dtype[at])]
        )
        if self.lane[row] == Lane.RAW and answer.dtype.kind == "f":
            found = in_units(found, answer.wanted.grid.take(self.element[row : row + 1]), exact=True)
        # In the same window, before or after the row's samples, there may be others.
        first_ns = np.maximum(found.first_ns, self.t_min[row])
        last_ns = np.minimum(found.last_ns, self.t_max[row])
        sensor = np.repeat(self.sensor[row : row + 1], len(found))
        return replace(found, sensor=sensor, first_ns=first_ns, last_ns=last_ns).as_type(answer.dtype)

    def _row(self, row: int) -> tuple[RowHeaders, int]:
        number, at = self.place[row].tolist()
        return self.found[number].rows, at


def _lanes(wanted: Wanted, place: I64, column: Array) -> I64:
    """The lane that each row's samples had when it was written."""
    layout = wanted.directory.layout_index[wanted.slots[place]].astype(np.int64)
    key, inverse = np.unique(layout << 16 | column.astype(np.int64), return_inverse=True)
    each = [lane_of(wanted.directory.layouts[one >> 16], one & 0xFFFF) for one in key.tolist()]
    lanes: I64 = np.array(each, np.int64)[inverse.reshape(-1)]
    return lanes


@dataclass(slots=True, eq=False)
class RollupAnswers:
    """What rollups answer: windows, and the stretches of which no sample is needed.

    Parameters
    ----------
    answer : what is asked. rows : of rollups; None for none. others : (group, first, last time) of what they do not know.
    """

    answer: Answer
    rows: RolledRows | None
    others: tuple[I64, I64, I64]
    intervals: Intervals | None = None
    missing: list[str] = field(default_factory=list)
    rough_ns: int = 0
    n_windows: int = 0
    _parts: list[Partials] = field(default_factory=list)
    _rough: list[Partials] = field(default_factory=list)
    _stretches: list[tuple[I64, I64, I64]] = field(default_factory=list)
    _rough_sensors: set[int] = field(default_factory=set)
    _reach: tuple[I64, I64] = field(init=False)

    def __post_init__(self) -> None:
        if self.rows is None:
            return
        self._answer_days()
        if self._stretches:
            self.intervals = Intervals(*(np.concatenate(c) for c in zip(*self._stretches, strict=True)))
            self._stretches = []

    # --- what can be answered ------------------------------------------------------------------------

    def _answer_days(self) -> None:
        answer, rows = self.answer, self.rows
        assert rows is not None
        usable = rows.lane == answer.wanted.lane[rows.sensor]
        usable &= ~np.isin(rows.sensor, overlapping(rows.sensor, rows.t_min, rows.t_max))
        if not answer.is_aggregate or TIME_WEIGHTED in answer.agg:
            usable[:] = False
        elif set(_INEXACT) & set(answer.agg):
            usable &= rows.is_alone
        inside = (rows.t_min >= answer.start_ns) & (rows.t_max < answer.end_ns)
        hit = touched(rows.group, rows.t_min, rows.t_max, self.others)
        whole = usable & rows.has_header & inside & ~hit & self._fits(DAY_NS)
        self._reach = rows.reach(answer.wanted, self.others)
        if whole.any():
            index = np.flatnonzero(whole)
            self._parts += [one.as_type(answer.dtype) for one in rows.headers(index, answer.every_ns)]
            first, end = self._reach
            self._stretches.append((rows.sensor[index], first[index], end[index]))
        pays = usable & ~whole & ((rows.n_samples >= BLOCK_SAMPLES_MIN) | rows.is_alone)
        for row in np.flatnonzero(pays | rows.is_alone & ~whole).tolist():
            try:
                self._answer_row(row, bool(hit[row]), bool(usable[row]))
            except CorruptionError as e:
                if rows.is_alone[row]:
                    self.missing.append(f"{e}; its samples are gone, restore it from a backup")

    def _fits(self, every_ns: int) -> bool:
        """Whether windows of that length end wherever windows of the query do."""
        return self.answer.every_ns is None or self.answer.every_ns % every_ns == 0

    def _answer_row(self, row: int, is_hit: bool, is_usable: bool) -> None:
        """Answer what can be of a sensor's day, from windows as coarse as can be."""
        rows = self.rows
        assert rows is not None
        kept = rows.resolutions(row)
        fit = [one for one in kept if is_usable and self._fits(one)]
        t_min, t_max = int(rows.t_min[row]), int(rows.t_max[row])
        begin, step = t_min // DAY_NS * DAY_NS, kept[-1] if rows.is_alone[row] or not fit else fit[-1]
        if not fit and not rows.is_alone[row]:
            return
        start = begin + np.arange(DAY_NS // step) * step
        covered = np.zeros(len(start), np.bool_)
        parts = []
        for every_ns in fit:
            clear = self._clear(row, begin, every_ns, is_hit)
            new = np.repeat(clear, every_ns // step) & ~covered
            if new.any():
                windows = rows.windows(row, every_ns, self.answer)
                parts.append(windows.take(np.flatnonzero(new[(windows.window_ns - begin) // step])))
                covered |= new
        if rows.is_alone[row]:
            self._answer_roughly(row, kept[-1], covered)
        edge = np.flatnonzero(np.diff(np.concatenate([[False], covered, [False]]).astype(np.int8)))
        if len(edge):
            # Not beyond the row's own samples: in the same window there may be others, under another layout.
            first, end = begin + edge[::2] * step, begin + edge[1::2] * step
            first = np.where(first <= t_min, self._reach[0][row], first)
            end = np.where(end > t_max, self._reach[1][row], end)
            self._stretches.append((np.full(len(first), rows.sensor[row]), first, end))
        self._parts += [self._in_windows(one) for one in parts]

    def _clear(self, row: int, begin: int, every_ns: int, is_hit: bool) -> Bools:
        """Which windows of a day stand for their samples: inside the span, and nothing else at their times."""
        rows = self.rows
        assert rows is not None
        first = begin + np.arange(DAY_NS // every_ns) * every_ns
        last = np.minimum(first + every_ns, rows.t_max[row] + 1)
        clear: Bools = (np.maximum(first, rows.t_min[row]) >= self.answer.start_ns) & (
            last <= self.answer.end_ns
        )
        # Beyond the row's samples there is nothing to answer, and others may be there.
        clear &= (first <= rows.t_max[row]) & (first + every_ns > rows.t_min[row])
        if is_hit:
            mine = self.others[0] == rows.group[row]
            for a, b in zip(self.others[1][mine].tolist(), self.others[2][mine].tolist(), strict=True):
                clear &= (first > b) | (first + every_ns <= a)
        return clear

    def _in_windows(self, parts: Partials) -> Partials:
        """Windows of a resolution as stretches of windows of the query."""
        every_ns = self.answer.every_ns
        if every_ns is None:
            return replace(parts, window_ns=np.zeros(len(parts), np.int64))
        return replace(parts, window_ns=parts.window_ns // every_ns * every_ns)

    # --- what is left where samples are gone ---------------------------------------------------------

    def _answer_roughly(self, row: int, every_ns: int, covered: Bools) -> None:
        """The finest windows of what nothing else answers, those at the ends of the span whole."""
        rows, answer = self.rows, self.answer
        assert rows is not None
        windows = rows.windows(row, every_ns, answer)
        first = windows.window_ns
        left = ~covered[(first - first[0] // DAY_NS * DAY_NS) // every_ns]
        left &= (first < answer.end_ns) & (first + every_ns > answer.start_ns)
        if left.any():
            part = windows.take(np.flatnonzero(left))
            self._rough.append(replace(part, window_ns=np.maximum(part.window_ns, answer.start_ns)))
            self.rough_ns = max(self.rough_ns, every_ns)
            self._rough_sensors.add(int(rows.sensor[row]))

    @property
    def note(self) -> str:
        """What to know of an answer with windows where samples were asked for; "" for nothing."""
        if not self.rough_ns:
            return ""
        which = self.answer.wanted.paths[min(self._rough_sensors)]
        n = len(self._rough_sensors)
        what = (
            "the windows there are"
            if self.answer.is_aggregate
            else "a window's mean, or its last value where values are states or integers"
        )
        return (
            f"of {n} sensor{'s'[: n != 1]} ({which}{', ...' if n > 1 else ''}) only rollups are left in a part of the span: rows "
            f"there are {what}, up to {format_duration(self.rough_ns)} long"
        )

    # --- handing it over -----------------------------------------------------------------------------

    def partials(self, sensors: Bools | None) -> Partials | None:
        """Windows of some of the sensors, by number, or of all; None for none."""
        parts = list(self._parts)
        if self.answer.is_aggregate:
            parts += [self._in_windows(one) for one in self._rough]
        return self._some(parts, sensors)

    def rough_samples(self, sensors: Bools | None) -> Partials | None:
        """Windows that stand for samples that are gone, where samples are asked for; None for none."""
        return None if self.answer.is_aggregate else self._some(self._rough, sensors)

    def _some(self, parts: list[Partials], sensors: Bools | None) -> Partials | None:
        if not parts:
            return None
        whole = Partials.concat(parts)
        if sensors is not None:
            whole = whole.take(np.flatnonzero(sensors[whole.sensor]))
        self.n_windows += len(whole)
        return whole if len(whole) else None

    def left(self, scanned: Sequence[Found]) -> list[Found]:
        """Rows that are still needed: there may be samples of the span in them that nothing has answered."""
        if self.intervals is None:
            return list(scanned)
        out, answer = [], self.answer
        for found, place, is_warm in scanned:
            sensor = sensors_of(answer.wanted, found.rows, place)
            first = np.maximum(found.rows.t_min, answer.start_ns)
            last = np.minimum(found.rows.t_max, answer.end_ns - 1)
            keep = np.flatnonzero(~self.intervals.hold(sensor, first, last))
            if len(keep) == len(place):
                out.append((found, place, is_warm))
            elif len(keep):
                out.append((found.take(keep), place[keep], is_warm))
        return out

    def without(self, samples: dict[Lane, SensorSamples]) -> dict[Lane, SensorSamples]:
        """The samples that rollups did not answer."""
        if self.intervals is None:
            return samples
        return {lane: _outside(one, self.intervals) for lane, one in samples.items()}

    def days_done(self) -> set[int]:
        """Days of which no sample of any sensor is needed."""
        rows, n = self.rows, self.answer.wanted.n
        if rows is None or self.intervals is None:
            return set()
        first, last = (
            np.maximum(rows.t_min, self.answer.start_ns),
            np.minimum(rows.t_max, self.answer.end_ns - 1),
        )
        done = (first > last) | self.intervals.hold(rows.sensor, first, last)
        day = rows.t_min // DAY_NS
        out = set()
        for one in np.unique(day[done]).tolist():
            mine = day == one
            if done[mine].all() and len(np.unique(rows.sensor[mine])) == n:
                out.add(one)
        return out


def may_use_rollups(answer: Answer) -> bool:
    """Whether windows are asked for that rollups can give to the last bit."""
    return (
        answer.is_aggregate
        and not set(_INEXACT) & set(answer.agg)
        and (answer.every_ns is None or answer.every_ns % RESOLUTIONS_NS[0] == 0)
    )


def _outside(samples: SensorSamples, intervals: Intervals) -> SensorSamples:
    if not len(samples):
        return samples
    sensor = samples.of_each()
    keep = np.flatnonzero(~intervals.have(sensor, samples.ts_ns))
    if len(keep) == len(sensor):
        return samples
    sensor = sensor[keep]
    first = np.flatnonzero(np.append(True, sensor[1:] != sensor[:-1])[: len(sensor)])
    return SensorSamples(
        sensor[first],
        np.append(first, len(sensor)),
        samples.ts_ns[keep],
        samples.values[keep],
        samples.quality[keep],
    )


def unknown_stretches(t_min: I64, t_max: I64, days: frozenset[int]) -> tuple[I64, I64, I64]:
    """Of each span [t_min, t_max] what lies in days that are not among those: (its index, first, last time), day by day."""
    if not len(t_min):
        return t_min, t_min, t_max
    first, last = t_min // DAY_NS, t_max // DAY_NS
    unknown = np.setdiff1d(np.arange(int(first.min()), int(last.max()) + 1), np.array(sorted(days), np.int64))
    begin, end = np.searchsorted(unknown, first), np.searchsorted(unknown, last, "right")
    n = end - begin
    index = np.repeat(np.arange(len(t_min)), n)
    day = unknown[np.repeat(begin - (np.cumsum(n) - n), n) + np.arange(len(index))]
    return index, np.maximum(t_min[index], day * DAY_NS), np.minimum(t_max[index], (day + 1) * DAY_NS - 1)


def unknown_to_rollups(
    wanted: Wanted,
    scanned: Sequence[Found],
    batches: Sequence[FrameBatch],
    aged: Sequence[Found],
    days: frozenset[int],
) -> tuple[I64, I64, I64]:
    """(group, first, last time) of what no rollup knows: rows, the tail, and of cold rows the days that are not among `days`."""
    parts = [tail_spans(wanted, batches)]
    for found, place, _ in scanned:
        mine = np.flatnonzero(place != NOWHERE)
        parts.append((found.group_index[mine], found.rows.t_min[mine], found.rows.t_max[mine]))
    for found, place, _ in aged:
        mine = np.flatnonzero(place != NOWHERE)
        at, first, last = unknown_stretches(found.rows.t_min[mine], found.rows.t_max[mine], days)
        parts.append((found.group_index[mine[at]], first, last))
    group, first, last = (np.concatenate(column) for column in zip(*parts, strict=True))
    return group, first, last
