"""Answering from headers: warm rows whose statistics are a window's aggregates, without decoding them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch, Shape
from headrace.core.layouts import DTYPES
from headrace.store.aggregates import TIME_WEIGHTED, Partials
from headrace.store.segment import STATISTIC_COLUMNS, RowHeaders
from headrace.store.wanted import NOWHERE, Lane, Wanted

if TYPE_CHECKING:
    from headrace.store.answer import Answer

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
Part = tuple[RowHeaders, I64, I64]

_EXACT_DTYPES = np.array([name[1:] != "64" or name[0] == "f" for name in DTYPES])
_TIME_BITS = 43


class HeaderAnswers:
    """Which rows are answered by their headers, and what they answer.

    A warm row is, where it lies wholly inside one window and no other row, and nothing of the tail, has
    samples of its sensor at its times; then no version can supersede what its header says.

    Parameters
    ----------
    parts : (headers, group index, place) of each segment's rows. batches : the tail.
    """

    def __init__(self, answer: Answer, parts: Sequence[Part], batches: Sequence[FrameBatch]) -> None:
        self.answered = [np.zeros(len(rows), np.bool_) for rows, _, _ in parts]
        self.partials: Partials | None = None
        if not answer.is_aggregate:
            return
        wanted = answer.wanted
        candidates = [_candidates(rows, place, answer) for rows, _, place in parts]
        if not any(c.any() for c in candidates):
            return
        clear = _clear(wanted, parts, batches)
        found = []
        for i, (rows, _, place) in enumerate(parts):
            self.answered[i] = candidates[i] & clear[i]
            index = np.flatnonzero(self.answered[i])
            if len(index):
                found.append(_partials(rows.take(index), wanted, place[index], answer))
        if found:
            self.partials = Partials.concat(found)


def _candidates(rows: RowHeaders, place: I64, answer: Answer) -> npt.NDArray[np.bool_]:
    """Rows with statistics that lie inside the span and one window."""
    if TIME_WEIGHTED in answer.agg or any(name not in rows.statistics for name in STATISTIC_COLUMNS):
        return np.zeros(len(rows), np.bool_)
    element = answer.wanted.elements(rows.column, place)
    lane = answer.wanted.lane[answer.wanted.sensor[np.maximum(element, 0)]]
    good: npt.NDArray[np.bool_] = (element != NOWHERE) & _EXACT_DTYPES[rows.dtype] & (lane <= Lane.RAW)
    good &= (rows.t_min >= answer.start_ns) & (rows.t_max < answer.end_ns)
    if rows.dictionary is not None:
        good &= np.array([words is None for words in rows.dictionary])
    if answer.every_ns is not None:
        good &= rows.t_min // answer.every_ns == rows.t_max // answer.every_ns
    return good


def _clear(
    wanted: Wanted, parts: Sequence[Part], batches: Sequence[FrameBatch]
) -> list[npt.NDArray[np.bool_]]:
    """Rows whose sensor has no other samples at their times: bool[n] for each part."""
    t_min = np.concatenate([rows.t_min for rows, _, _ in parts])
    t_max = np.concatenate([rows.t_max for rows, _, _ in parts])
    group = np.concatenate([index for _, index, _ in parts])
    element = np.concatenate([wanted.elements(rows.column, place) for rows, _, place in parts])
    sensor = np.where(element >= 0, wanted.sensor[np.maximum(element, 0)], NOWHERE)
    tail_group, tail_min, tail_max = _tail_spans(wanted, batches)
    whole = sensor == NOWHERE
    others = (
        np.concatenate([group[whole], tail_group]),
        np.concatenate([t_min[whole], tail_min]),
        np.concatenate([t_max[whole], tail_max]),
    )
    clear = ~whole & ~_touched(group, t_min, t_max, others)
    single = np.flatnonzero(~whole)
    order = single[np.lexsort((t_min[single], sensor[single]))]
    same = sensor[order][1:] == sensor[order][:-1]
    overlap = same & (t_min[order][1:] <= t_max[order][:-1])
    # Where any two rows of a sensor overlap, all of its rows are decoded.
    clear &= ~np.isin(sensor, sensor[order][1:][overlap])
    ends = np.cumsum([len(rows) for rows, _, _ in parts])
    return np.split(clear, ends[:-1])


def _touched(group: I64, t_min: I64, t_max: I64, others: tuple[I64, I64, I64]) -> npt.NDArray[np.bool_]:
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
    touched: npt.NDArray[np.bool_] = begun > over
    return touched


def _tail_spans(wanted: Wanted, batches: Sequence[FrameBatch]) -> tuple[I64, I64, I64]:
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


def _partials(rows: RowHeaders, wanted: Wanted, place: I64, answer: Answer) -> Partials:
    """What headers say, in engineering units."""
    rows_with = np.flatnonzero(rows.count > 0)
    rows, place = rows.take(rows_with), place[rows_with]
    sensor = wanted.sensor[wanted.elements(rows.column, place)]
    count, s = rows.count.astype(np.int64), rows.statistics
    every_ns = answer.every_ns
    window = np.zeros(len(rows), np.int64) if every_ns is None else rows.t_min // every_ns * every_ns
    return Partials(
        sensor, window, rows.t_min, rows.t_max, count, s["min"], s["max"], s["first"], s["last"], s["sum"],
        s["raw_sum"], s["sum"] / count, s["m2"], np.full(len(rows), np.nan),
    )  # fmt: skip
