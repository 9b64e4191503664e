"""Answering from headers: warm rows whose statistics are a window's aggregates, without decoding them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch, Shape
from headrace.core.layouts import DTYPES
from headrace.store.aggregates import TIME_WEIGHTED, Partials
from headrace.store.intervals import Intervals
from headrace.store.segment import STATISTIC_COLUMNS, RowHeaders
from headrace.store.wanted import NOWHERE, Lane, Wanted

if TYPE_CHECKING:
    from headrace.store.answer import Answer

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
Part = tuple[RowHeaders, I64, I64]
"""Headers, group index, and place or sensor, of each row."""

EXACT_DTYPES = np.array([name[1:] != "64" or name[0] == "f" for name in DTYPES])
_TIME_BITS = 43


class HeaderAnswers:
    """Which rows are answered by their headers, and what they answer.

    A warm row is, where it lies wholly inside one window and no other row, and nothing of the tail, has
    samples of its sensor at its times; then no version can supersede what its header says.

    Parameters
    ----------
    parts : (headers, group index, place) of each segment's rows. batches : the tail. rolled : stretches that rollups
        answered: rows that are partly inside are not answered.
    """

    def __init__(
        self,
        answer: Answer,
        parts: Sequence[Part],
        batches: Sequence[FrameBatch],
        rolled: Intervals | None = None,
    ) -> None:
        self.answered = [np.zeros(len(rows), np.bool_) for rows, _, _ in parts]
        self.partials: Partials | None = None
        if not answer.is_aggregate:
            return
        wanted = answer.wanted
        inside = [may_answer(rows, answer) for rows, _, _ in parts]
        if not any(one.any() for one in inside):
            return
        sensors = [sensors_of(wanted, rows, place) for rows, _, place in parts]
        clear = _clear(
            wanted, [(rows, index, s) for (rows, index, _), s in zip(parts, sensors, strict=True)], batches
        )
        found = []
        for i, (rows, _, _) in enumerate(parts):
            self.answered[i] = inside[i] & clear[i] & (wanted.lane[sensors[i]] <= Lane.RAW)
            if rolled is not None:
                self.answered[i] &= ~rolled.touch(sensors[i], rows.t_min, rows.t_max)
            if self.answered[i].any():
                keep = self.answered[i] & (rows.count > 0)  # rows without a usable sample say nothing
                index: Any = slice(None) if keep.all() else np.flatnonzero(keep)
                found.append(header_partials(rows, index, sensors[i][index], answer.every_ns))
        if found:
            self.partials = found[0] if len(found) == 1 else Partials.concat(found)


def may_answer(rows: RowHeaders, answer: Answer) -> npt.NDArray[np.bool_]:
    """Rows of single series with statistics that lie inside the span and one window."""
    can = answer.is_aggregate and TIME_WEIGHTED not in answer.agg
    if not can or any(name not in rows.statistics for name in STATISTIC_COLUMNS):
        return np.zeros(len(rows), np.bool_)
    good: npt.NDArray[np.bool_] = (rows.column >= 0) & EXACT_DTYPES[rows.dtype]
    good &= (rows.t_min >= answer.start_ns) & (rows.t_max < answer.end_ns)
    if rows.dictionary is not None:
        good &= np.array([words is None for words in rows.dictionary])
    if "sum_low" in rows.statistics and {"sum", "mean"} & set(answer.agg):
        good &= ~np.isnan(rows.statistics["sum_low"])  # not to be joined exactly
    if answer.every_ns is not None:
        good &= rows.t_min // answer.every_ns == rows.t_max // answer.every_ns
    return good


def sensors_of(wanted: Wanted, rows: RowHeaders, place: I64) -> I64:
    """The sensor of each row of one series; `NOWHERE` for rows of whole groups and columns nobody wants."""
    element = wanted.elements(rows.column, place)
    sensor: I64 = wanted.sensor[element]
    sensor[element == NOWHERE] = NOWHERE
    return sensor


def _clear(
    wanted: Wanted, parts: Sequence[Part], batches: Sequence[FrameBatch]
) -> list[npt.NDArray[np.bool_]]:
    """Rows whose sensor has no other samples at their times: bool[n] for each (headers, group index, sensor)."""
    t_min = _joined([rows.t_min for rows, _, _ in parts])
    t_max = _joined([rows.t_max for rows, _, _ in parts])
    group = _joined([index for _, index, _ in parts])
    sensor = _joined([one for _, _, one in parts])
    tail_group, tail_min, tail_max = tail_spans(wanted, batches)
    whole = _joined([rows.column < 0 for rows, _, _ in parts])
    wanted_ones = sensor != NOWHERE
    others = (
        np.concatenate([group[whole], tail_group]),
        np.concatenate([t_min[whole], tail_min]),
        np.concatenate([t_max[whole], tail_max]),
    )
    clear = wanted_ones & ~touched(group, t_min, t_max, others)
    single = np.flatnonzero(wanted_ones)
    if np.bincount(sensor[single], minlength=1).max() > 1:
        # Where any two rows of a sensor overlap, all of its rows are decoded.
        clear &= ~np.isin(sensor, overlapping(sensor[single], t_min[single], t_max[single]))
    ends = np.cumsum([len(rows) for rows, _, _ in parts])
    return np.split(clear, ends[:-1])


def overlapping(sensor: I64, t_min: I64, t_max: I64) -> I64:
    """Sensors of which two rows overlap."""
    order = np.argsort(sensor, kind="stable")  # mostly in time order already: files of days follow each other
    same = sensor[order][1:] == sensor[order][:-1]
    if (same & (t_min[order][1:] < t_min[order][:-1])).any():
        order = np.lexsort((t_min, sensor))
        same = sensor[order][1:] == sensor[order][:-1]
    overlap = same & (t_min[order][1:] <= t_max[order][:-1])
    found: I64 = sensor[order][1:][overlap]
    return found


def _joined(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def touched(group: I64, t_min: I64, t_max: I64, others: tuple[I64, I64, I64]) -> npt.NDArray[np.bool_]:
    """Whether any of `others` (group, first, last time) overlaps each span of the same group.

    Times are counted in steps coarse enough to stand beside the group in 64 bits, rounded outwards.
    """
    if not len(others[0]):
        return np.zeros(len(group), np.bool_)
    low = min(int(t_min.min()), int(others[1].min()))
    high = max(int(t_max.max()), int(others[2].max()))
    shift = max((high - low).bit_length() - _TIME_BITS, 0)

    def key(g: I64, t: I64) -> I64:
        return (g << (_TIME_BITS + 1)) | ((t - low) >> shift)

    begun = np.searchsorted(np.sort(key(others[0], others[1])), key(group, t_max), "right")
    over = np.searchsorted(np.sort(key(others[0], others[2])), key(group, t_min), "left")
    hit: npt.NDArray[np.bool_] = begun > over
    return hit


def tail_spans(wanted: Wanted, batches: Sequence[FrameBatch]) -> tuple[I64, I64, I64]:
    """(group, first, last time) of the tail's groups."""
    n = len(wanted.groups)
    first, last = np.full(n, 2**63 - 1), np.full(n, -(2**63))
    for batch in batches:
        place, ts_ns = wanted.places_of_slots(batch.slot), batch.ts_ns
        if batch.shape is not Shape.DENSE:
            assert batch.start is not None
            place, ts_ns = np.repeat(place, np.diff(batch.start)), batch.value_times()
        mine = place >= 0
        group = wanted.group_of_place[place[mine]]
        np.minimum.at(first, group, ts_ns[mine])
        np.maximum.at(last, group, ts_ns[mine])
    there = np.flatnonzero(first <= last)
    return there, first[there], last[there]


def header_partials(rows: RowHeaders, index: Any, sensor: I64, every_ns: int | None) -> Partials:
    """What the headers of the rows at `index` say, in engineering units; each has a usable sample and is in one window."""
    s = {name: values[index] for name, values in rows.statistics.items()}
    t_min = rows.t_min[index]
    count = rows.count[index].astype(np.int64)
    window = np.zeros(len(count), np.int64) if every_ns is None else t_min // every_ns * every_ns
    return Partials(
        sensor, window, t_min, rows.t_max[index], count, s["min"], s["max"], s["first"], s["last"], s["sum"],
        s["raw_sum"], s["sum"] / count, s["m2"], np.full(len(count), np.nan), s.get("sum_low", np.zeros(len(count))),
    )  # fmt: skip
