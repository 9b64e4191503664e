"""When each signal last gave a usable value, by our clock: whether data come, whatever a socket's state says.

A device may answer while one of its signals has not been good for a week. So every batch is noted as it passes the
intake, a frame at a time where all of it is usable, value by value only where it is not: one int64 a slot, and one a
signal as soon as some frames come with less than all of their signals. What they tell is put together when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NO_TIME
from headrace.core.frames import I64, FrameBatch, Shape
from headrace.core.growing import Growing
from headrace.core.quality import usable
from headrace.core.sensors import DERIVED, SensorDirectory

_NOBODY = -1


@dataclass(frozen=True, slots=True)
class SignalAges:
    """The signals of one adapter, a row each, and when each last gave a usable value (`NO_TIME`: not since the start).

    ``slot: uint32[n]``, ``column: uint16[n]``, ``last_good_ns: int64[n]``.
    """

    slot: npt.NDArray[np.uint32]
    column: npt.NDArray[np.uint16]
    last_good_ns: I64
    since_ns: int
    """Since when it is watched: a signal is not silent for longer than that."""

    def __len__(self) -> int:
        return len(self.slot)

    def is_stale(self, now_ns: int, after_ns: int) -> npt.NDArray[np.bool_]:
        """Which signals have given no usable value for longer than `after_ns`."""
        stale: npt.NDArray[np.bool_] = now_ns - np.maximum(self.last_good_ns, self.since_ns) > after_ns
        return stale


@dataclass(frozen=True, slots=True)
class HealthSummary:
    """Of an adapter's signals: how many, how many are stale, and when the stalest was good; `NO_TIME`: none is, or none was."""

    n: int = 0
    n_stale: int = 0
    oldest_ns: int = NO_TIME


class SignalHealth:
    """Last good times of all signals of a plant; for the thread that defines groups.

    Parameters
    ----------
    since_ns : when watching begins.
    """

    def __init__(self, directory: SensorDirectory, since_ns: int) -> None:
        self._directory, self._since_ns = directory, since_ns
        self._whole, self._each, self._owner = Growing(np.int64), Growing(np.int64), Growing(np.int16)
        self._numbers: dict[str, int] = {}

    def note(self, batch: FrameBatch) -> None:
        """Take what a batch says, which fits the directory and has its arrival."""
        if not batch.n_frames:
            return
        self._make_room()
        slot = batch.slot
        self._owner.view[slot] = self._numbers.setdefault(batch.origin, len(self._numbers))
        if batch.shape is Shape.SPARSE:
            assert batch.start is not None
            assert batch.column is not None
            at = np.repeat(self._directory.first_sensor[slot], np.diff(batch.start)) + batch.column
            self._mark_each(at if batch.quality is None else at[usable(batch.quality)], batch)
        elif batch.quality is None:
            self._mark(self._whole, slot, batch)
        elif batch.shape is Shape.DENSE:
            self._note_dense(batch, usable(batch.quality))
        else:
            self._note_waves(batch, usable(batch.quality))

    def _note_dense(self, batch: FrameBatch, good: npt.NDArray[np.bool_]) -> None:
        is_whole = good.all(axis=1)
        self._mark(self._whole, batch.slot[is_whole], batch)
        parts = np.flatnonzero(~is_whole)
        first = self._directory.first_sensor[batch.slot[parts]]
        at = first[:, None] + np.arange(batch.width)
        self._mark_each(at[good[parts]], batch)

    def _note_waves(self, batch: FrameBatch, good: npt.NDArray[np.bool_]) -> None:
        """A wave is one signal: one usable value is a sign of life."""
        assert batch.start is not None
        before = np.append(0, np.cumsum(good))
        self._mark(self._whole, batch.slot[before[batch.start[1:]] > before[batch.start[:-1]]], batch)

    @staticmethod
    def _mark(times: Growing, at: npt.NDArray[np.integer], batch: FrameBatch) -> None:
        # What is imported or replayed came long ago: no signal gets older by it.
        view = times.view
        view[at] = np.maximum(view[at], batch.arrival_ns)

    def _mark_each(self, at: npt.NDArray[np.integer], batch: FrameBatch) -> None:
        n_more = self._directory.n_sensor_rows - self._each.n
        if n_more and len(at):
            self._each.extend(NO_TIME, n_more)
        self._mark(self._each, at, batch)

    def _make_room(self) -> None:
        n_more = self._directory.n_slots - self._whole.n
        if n_more:
            self._whole.extend(NO_TIME, n_more)
            self._owner.extend(_NOBODY, n_more)

    def _last_ns(self, slot: npt.NDArray[np.integer], column: npt.NDArray[np.integer]) -> I64:
        last_ns: I64 = self._whole.view[slot]
        at = self._directory.first_sensor[slot] + column
        known = np.flatnonzero(at < self._each.n)
        last_ns[known] = np.maximum(last_ns[known], self._each.view[at[known]])
        return last_ns

    # --- for who asks --------------------------------------------------------------------------------

    def of_adapter(self, name: str, device_paths: Iterable[str] = ()) -> SignalAges:
        """The signals of an adapter.

        Parameters
        ----------
        device_paths : of its devices; where these are groups (polled devices are) they alone count, so that a signal that
            never gave a value is told of, and one that the adapter has no more is not. Else: whatever came from it.
        """
        return self._ages(self._slots(name, device_paths))

    def summary(self, name: str, device_paths: Iterable[str], now_ns: int, after_ns: int) -> HealthSummary:
        """Those of `of_adapter` in three numbers; signals of frames that came whole just now are not looked at."""
        slots = self._slots(name, device_paths)
        is_fresh = now_ns - np.maximum(self._whole.view[slots], self._since_ns) <= after_ns
        ages = self._ages(slots[~is_fresh])
        stale_ns = ages.last_good_ns[ages.is_stale(now_ns, after_ns)]
        ever_ns = stale_ns[stale_ns != NO_TIME]
        oldest_ns = int(ever_ns.min()) if len(ever_ns) else NO_TIME
        return HealthSummary(int(self._directory.width[slots].sum()), len(stale_ns), oldest_ns)

    def _slots(self, name: str, device_paths: Iterable[str]) -> I64:
        self._make_room()
        directory = self._directory
        parts = [part for part in directory.parts.names if not part.startswith(DERIVED)]
        found = [slot for path in device_paths for slot in directory.slots_at(path, parts).values()]
        if found:
            return np.array(found, np.int64)
        of_adapter = np.flatnonzero(self._owner.view == self._numbers.get(name, len(self._numbers)))
        return np.setdiff1d(of_adapter, directory.previous[directory.renewed])

    def _ages(self, slots: I64) -> SignalAges:
        width = self._directory.width[slots].astype(np.int64)
        ends = np.cumsum(width)
        column = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - width, width)
        slot = np.repeat(slots, width)
        last_ns = self._last_ns(slot, column)
        for begin, of in zip((ends - width).tolist(), slots.tolist(), strict=True):
            if self._directory.previous[of] >= 0:
                self._carry(of, last_ns[begin : begin + int(self._directory.width[of])])
        return SignalAges(slot.astype(np.uint32), column.astype(np.uint16), last_ns, self._since_ns)

    def _carry(self, slot: int, last_ns: I64) -> None:
        """Add what the same signals gave before their group got another layout."""
        sensors = self._directory.sensors(slot).tolist()
        before = int(self._directory.previous[slot])
        while before >= 0:
            known = self._known(before, sensors)
            np.maximum(last_ns, known, out=last_ns)
            before = int(self._directory.previous[before])

    def _known(self, slot: int, sensors: Sequence[int]) -> I64:
        """When these sensors were good in a slot; `NO_TIME` for those that it has not."""
        width = int(self._directory.width[slot])
        last_ns = self._last_ns(np.full(width, slot), np.arange(width))
        by_sensor = dict(zip(self._directory.sensors(slot).tolist(), last_ns.tolist(), strict=True))
        return np.array([by_sensor.get(sensor, NO_TIME) for sensor in sensors], np.int64)
