"""Shift calendars: when a line runs, for any array of times at once.

A `ShiftPlan` is what a plant writes on the wall: shifts by weekday, breaks, holidays, in plant time. A
`Calendar` turns it into the instants at which the line starts and stops, as one sorted array in UTC, and
answers everything by binary search in it: running or not, since when, how long the line has run in all, how
warm an oven of a given time constant is. Daylight saving is in the array: a night shift has 7 or 9 hours on
the night of the change.

All answers are functions of the time alone, so that it does not matter in which order or pieces one asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NS
from headrace.core.errors import ConfigError

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DAY_S = 86_400
NEVER_NS = np.iinfo(np.int64).max
"""What `Calendar.next_change` says where nothing changes any more."""

WORKDAYS = (0, 1, 2, 3, 4)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_ORIGIN_YEAR = 2020
_N_REMEMBERED = 24
# The table begins more than a year before what is asked for.
_SINCE_MAX_NS = 365 * DAY_S * NS
# No zone changes its offset and back within a week.
_PROBE_S = 7 * DAY_S


@dataclass(frozen=True, slots=True)
class Shift:
    """Working hours: from `start` to `end` (``HH:MM`` plant time) on `weekdays` (0 = Monday).

    Where `end` is not after `start` the shift ends on the next day; the weekday is the one it starts on.
    """

    start: str
    end: str
    weekdays: tuple[int, ...] = WORKDAYS


@dataclass(frozen=True, slots=True)
class ShiftPlan:
    """What is on the wall.

    Parameters
    ----------
    breaks : (start, end) as ``HH:MM`` plant time, on every day; the line stands.
    holidays : ISO dates on which no shift starts.
    """

    name: str
    shifts: tuple[Shift, ...]
    breaks: tuple[tuple[str, str], ...] = ()
    holidays: tuple[str, ...] = ()


_BREAKS = (("09:00", "09:15"), ("12:00", "12:30"), ("18:00", "18:30"), ("02:00", "02:30"))
THREE_SHIFTS = ShiftPlan(
    "three-shift", (Shift("06:00", "14:00"), Shift("14:00", "22:00"), Shift("22:00", "06:00")), _BREAKS
)
TWO_SHIFTS = ShiftPlan("two-shift", (Shift("06:00", "14:00"), Shift("14:00", "22:00")), _BREAKS)
DAY_SHIFT = ShiftPlan("day-shift", (Shift("07:00", "16:00"),), _BREAKS)
CONTINUOUS = ShiftPlan("continuous", (Shift("06:00", "06:00", (0, 1, 2, 3, 4, 5, 6)),))
STANDARD_PLANS = (THREE_SHIFTS, TWO_SHIFTS, DAY_SHIFT, CONTINUOUS)


@dataclass(frozen=True, slots=True)
class LineState:
    """What a calendar knows about some instants, one row each.

    ``running: bool[n]``, ``since_ns: int64[n]`` how long it has been so (a year at most), ``operating_ns: int64[n]`` running
    time since 2020 (negative before), ``warmth: float64[n]`` 0 cold … 1 at temperature.
    """

    running: Bools
    since_ns: I64
    operating_ns: I64
    warmth: F64


class Calendar:
    """A shift plan in a time zone.

    Building the table takes about 1 ms a year and happens when a year is first asked for.

    Raises
    ------
    ConfigError : an unknown time zone, a time that is not ``HH:MM``, a date that is none.
    """

    def __init__(self, plan: ShiftPlan, timezone: str = "UTC") -> None:
        self.plan = plan
        self.timezone = timezone
        try:
            self._zone = ZoneInfo(timezone)
        except (KeyError, ValueError, OSError) as error:
            raise ConfigError(
                f"unknown time zone {timezone!r}; write one as Europe/Madrid", "timezone"
            ) from error
        self._edges_checked = [(_minute(s.start), _minute(s.end), s.weekdays) for s in plan.shifts]
        self._breaks = [(_minute(a), _minute(b)) for a, b in plan.breaks]
        self._holidays = np.array([_day(text) for text in plan.holidays], np.int64)
        self._years = (0, 0)
        self._start = np.empty(0, np.int64)
        self._running = np.empty(0, np.bool_)
        self._operating = np.empty(0, np.int64)
        self._warmth: dict[float, F64] = {}

    # --- answers -------------------------------------------------------------------------------------

    def running(self, ts_ns: I64) -> Bools:
        """Whether the line runs at each instant: bool[n] for ``ts_ns: int64[n]``, any order."""
        at = self._segment(ts_ns)
        return self._running[at]

    def next_change(self, ts_ns: I64) -> I64:
        """The first start or stop after each instant: int64[n]; `NEVER_NS` if none within two years."""
        after = self._segment(ts_ns) + 1
        return self._start[after]

    def state(self, ts_ns: I64, tau_s: float = 1_800.0) -> LineState:
        """Everything at once, from one search.

        Parameters
        ----------
        tau_s : time constant of the warmth, a first-order lag behind running and standing, in seconds.
        """
        at = self._segment(ts_ns)
        into = ts_ns - self._start[at]
        running = self._running[at]
        target = running.astype(np.float64)
        warmth = target + (self._warm_at_start(tau_s)[at] - target) * _decay(into / (NS * tau_s))
        operating = self._operating[at] + np.where(running, into, 0)
        return LineState(running, np.minimum(into, _SINCE_MAX_NS), operating, warmth)

    # --- the table -----------------------------------------------------------------------------------

    def _segment(self, ts_ns: I64) -> npt.NDArray[np.int64]:
        """Index of the segment that each instant lies in. Searches only the part of the table in question."""
        if not len(ts_ns):
            return np.empty(0, np.int64)
        low, high = int(ts_ns.min()), int(ts_ns.max())
        self._cover(low, high)
        first = int(np.searchsorted(self._start, low, side="right")) - 1
        last = int(np.searchsorted(self._start, high, side="right")) - 1
        if first == last:
            return np.full(len(ts_ns), first)
        return np.searchsorted(self._start[first + 1 : last + 1], ts_ns, side="right") + first

    def _cover(self, low_ns: int, high_ns: int) -> None:
        first, last = _year(low_ns), _year(high_ns)
        if self._years[0] <= first and last < self._years[1]:
            return
        # A margin on both sides: "since" and warmth look back, "next change" looks ahead.
        first = min(first, _ORIGIN_YEAR)
        last = max(last + 1, _ORIGIN_YEAR + 1)
        if self._years != (0, 0):
            first, last = min(first, self._years[0]), max(last, self._years[1])
        self._build(first, last)
        self._years = (first, last)

    def _build(self, first_year: int, last_year: int) -> None:
        first_day = date(first_year, 1, 1).toordinal() - _EPOCH_DAY - 370
        days = np.arange(first_day, date(last_year, 1, 1).toordinal() - _EPOCH_DAY + 732)
        edges, sign, kind = self._edges(days)
        order = np.argsort(edges, kind="stable")
        edges, sign, kind = edges[order], sign[order], kind[order]
        on = (np.cumsum(np.where(kind == 0, sign, 0)) > 0) & (np.cumsum(np.where(kind == 1, sign, 0)) == 0)
        last_of_instant = np.append(edges[1:] != edges[:-1], True)[: len(edges)]
        edges, on = edges[last_of_instant], on[last_of_instant]
        changed = np.append(True, on[1:] != on[:-1])[: len(on)]
        start, running = edges[changed], on[changed]
        guard = int(days[0]) * DAY_S * NS
        start = np.concatenate(([guard - 2 * DAY_S * NS], start, [NEVER_NS]))
        self._running = np.concatenate(([False], running))
        self._start = start
        length = np.where(self._running, np.diff(start), 0)
        # A plan that never stops runs on to the end of the table; its last length is not a duration.
        length[-1] = 0
        total = np.concatenate(([0], np.cumsum(length)))[:-1]
        origin = (date(_ORIGIN_YEAR, 1, 1).toordinal() - _EPOCH_DAY) * DAY_S * NS
        at = int(np.searchsorted(start, origin, side="right")) - 1
        base = int(total[at]) + (origin - int(start[at]) if self._running[at] else 0)
        self._operating = total - base
        self._warmth = {}

    def _edges(self, days: I64) -> tuple[I64, I64, I64]:
        """All starts (+1) and ends (-1) of shifts (kind 0) and breaks (kind 1): three int64 arrays."""
        weekday = (days + 3) % 7
        workable = ~np.isin(days, self._holidays)
        wall: list[I64] = []
        parts: list[tuple[int, int]] = []
        for start, end, weekdays in self._edges_checked:
            chosen = days[np.isin(weekday, weekdays) & workable]
            wall += [chosen * DAY_S + start * 60, (chosen + (end <= start)) * DAY_S + end * 60]
            parts += [(1, 0), (-1, 0)]
        for start, end in self._breaks:
            wall += [days * DAY_S + start * 60, (days + (end <= start)) * DAY_S + end * 60]
            parts += [(1, 1), (-1, 1)]
        sizes = [len(w) for w in wall]
        sign = np.repeat(np.array([p[0] for p in parts], np.int64), sizes)
        kind = np.repeat(np.array([p[1] for p in parts], np.int64), sizes)
        every = np.concatenate(wall) if wall else np.empty(0, np.int64)
        return _to_utc(every, self._zone) * NS, sign, kind

    def _warm_at_start(self, tau_s: float) -> F64:
        """Warmth at the start of each segment, from the last `_N_REMEMBERED` segments before it."""
        known = self._warmth.get(tau_s)
        if known is not None:
            return known
        n = len(self._running)
        length = np.minimum(np.diff(self._start), 400 * DAY_S * NS)
        decay = _decay(length / (NS * tau_s))
        target = self._running.astype(np.float64)
        warmth = np.zeros(n)
        # A fixed memory instead of a scan from the table's start: the same answer whatever years it covers.
        for back in range(_N_REMEMBERED, 0, -1):
            before = np.arange(n) - back
            inside = before >= 0
            before = np.maximum(before, 0)
            stepped = target[before] + (warmth - target[before]) * decay[before]
            warmth = np.where(inside, stepped, 0.0)
        self._warmth[tau_s] = warmth
        return warmth


def shift_into_work(calendars: list[Calendar], now_ns: int, before_break_s: float) -> int:
    """Nanoseconds to add to `now_ns` so that every line runs and the first break is `before_break_s` away.

    A demonstration started on a Sunday night should show a factory at work. Looks at the four weeks around the
    present; where no instant suits all calendars, the one that suits most.
    """
    step = 60 * NS
    offsets = np.arange(-14 * DAY_S, 14 * DAY_S, 60) * NS
    times = now_ns - now_ns % step + offsets
    n_running = np.zeros(len(times), np.int64)
    ahead = np.full(len(times), NEVER_NS)
    for calendar in calendars:
        running = calendar.running(times)
        n_running += running
        ahead = np.minimum(ahead, np.where(running, calendar.next_change(times) - times, NEVER_NS))
    # Of the best instants, the one whose next stop is nearest to what is asked, then the nearest to now.
    gap = np.abs(ahead - round(before_break_s * NS))
    order = np.lexsort((np.abs(offsets), gap, -n_running))
    return int(times[order[0]]) - now_ns


def _decay(x: npt.NDArray[np.floating[Any]]) -> F64:
    """About exp(-x) by multiplications only, so that every machine gets the same bits; 0 from x = 16 on."""
    y: F64 = np.maximum(1.0 - x * (1.0 / 16.0), 0.0)
    for _ in range(4):
        y *= y
    return y


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    if not (hour.isdigit() and minute.isdigit() and int(hour) <= 24 and int(minute) < 60):
        raise ConfigError(f"{text!r} is not a time of day; write HH:MM", "calendar")
    return int(hour) * 60 + int(minute)


def _day(text: str) -> int:
    try:
        return date.fromisoformat(text).toordinal() - _EPOCH_DAY
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a date; write YYYY-MM-DD", "calendar.holidays") from error


def _year(ts_ns: int) -> int:
    return (_EPOCH + timedelta(seconds=ts_ns // NS)).year


def _offset_s(zone: ZoneInfo, second: int) -> int:
    offset = (_EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())


def _to_utc(wall_s: I64, zone: ZoneInfo) -> I64:
    """UTC seconds of wall-clock seconds.

    A wall time that comes twice means the first; one that is skipped means the same distance after the change
    (as `datetime` with fold=0).
    """
    if not len(wall_s):
        return wall_s
    threshold: list[int] = []
    offsets = [_offset_s(zone, int(wall_s.min()) - 2 * DAY_S)]
    probe = int(wall_s.min()) - 2 * DAY_S
    while probe < int(wall_s.max()) + 2 * DAY_S:
        ahead = _offset_s(zone, probe + _PROBE_S)
        if ahead != offsets[-1]:
            low, high = probe, probe + _PROBE_S
            while high - low > 1:
                middle = (low + high) // 2
                if _offset_s(zone, middle) == offsets[-1]:
                    low = middle
                else:
                    high = middle
            threshold.append(high + max(offsets[-1], ahead))
            offsets.append(ahead)
        probe += _PROBE_S
    which = np.searchsorted(np.array(threshold, np.int64), wall_s, side="right")
    return wall_s - np.array(offsets, np.int64)[which]
