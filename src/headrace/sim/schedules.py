"""When simulated devices report: ticks with jitter, random events, scans with a dead band.

Pure functions of (key, time), so that a range of time gives the same reports in one piece or in many.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NS
from headrace.sim.noise import U64, below, salted, uniform

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SLOT_NS = 60 * NS
_N_EVENTS_MAX = 12
_FLOOD_SHARE = 0.002
_FLOOD_FACTOR = 20.0
_JITTER, _EVENT_COUNT, _EVENT_TIME, _EVENT_VALUE, _FLOOD = 101, 102, 103, 104, 105


@dataclass(frozen=True, slots=True)
class Ticks:
    """Instants of periodic devices, one row each, in order of (device, time).

    ``row: int64[n]`` the device's index in what was handed in, ``tick: int64[n]`` its running number,
    ``ts_ns: int64[n]``.
    """

    row: I64
    tick: I64
    ts_ns: I64

    def keep(self, mask: Bools) -> Ticks:
        """The rows where `mask` is true."""
        return Ticks(self.row[mask], self.tick[mask], self.ts_ns[mask])


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of time, ``t0_ns <= t < t1_ns``."""

    t0_ns: int
    t1_ns: int

    def holds(self, ts_ns: I64) -> Bools:
        """Which instants lie in it."""
        return (ts_ns >= self.t0_ns) & (ts_ns < self.t1_ns)

    def cut(self, at_ns: list[int]) -> list[Span]:
        """The pieces between the instants `at_ns` that lie inside."""
        ends = [self.t0_ns, *sorted({t for t in at_ns if self.t0_ns < t < self.t1_ns}), self.t1_ns]
        return [Span(a, b) for a, b in pairwise(ends)]


@dataclass(frozen=True, slots=True)
class Timing:
    """How some devices of one period keep time.

    Tick k of a device is due at ``phase + k * period`` and comes up to `jitter` earlier or later; while a
    device is `wild`, up to so much instead. Both are below half a period, so that ticks keep their order.

    Parameters
    ----------
    phase_ns : int64[n]; key : uint64[n], which makes the jitter.
    wild : (row, from_ns, to_ns, jitter_ns), int64 each: the devices whose clock is ill, and when.
    """

    phase_ns: I64
    period_ns: int
    key: U64
    jitter_ns: int
    wild: tuple[I64, I64, I64, I64] | None = None

    def at(self, row: I64, tick: I64) -> I64:
        """When ticks come: int64, shaped as `tick`, for the devices `row` of the first axis."""
        ts_ns = self.phase_ns[row][:, None] + tick * self.period_ns
        if not self.jitter_ns and self.wild is None:
            return ts_ns
        share = (salted(self.key[row][:, None], _JITTER, tick) >> np.uint64(43)).astype(np.int64) - (1 << 20)
        ts_ns += (share * self._jitter(row, ts_ns)) >> 20
        return ts_ns

    @property
    def margin_ns(self) -> int:
        """The largest jitter of any device."""
        return self.jitter_ns if self.wild is None else max(self.jitter_ns, int(self.wild[3].max(initial=0)))

    def _jitter(self, row: I64, due_ns: I64) -> I64 | int:
        """Jitter of each tick: int64[n, k], or one number for all."""
        if self.wild is None:
            return self.jitter_ns
        from_ns, to_ns, wild_ns = (np.zeros(len(self.key), np.int64) for _ in range(3))
        for whole, part in zip((from_ns, to_ns, wild_ns), self.wild[1:], strict=True):
            whole[self.wild[0]] = part
        ill = (due_ns >= from_ns[row][:, None]) & (due_ns < to_ns[row][:, None])
        return np.where(ill, wild_ns[row][:, None], self.jitter_ns)


def ticks(span: Span, timing: Timing) -> Ticks:
    """The ticks of periodic devices in a span."""
    margin = timing.margin_ns
    first = -((timing.phase_ns - (span.t0_ns - margin)) // timing.period_ns)
    last = (span.t1_ns - 1 + margin - timing.phase_ns) // timing.period_ns
    n_each = int((last - first).max(initial=-1)) + 1
    if n_each <= 0:
        empty = np.empty(0, np.int64)
        return Ticks(empty, empty, empty)
    tick = first[:, None] + np.arange(n_each)
    ts_ns = timing.at(np.arange(len(first)), tick)
    row, at = np.nonzero(span.holds(ts_ns))
    return Ticks(row, tick[row, at], ts_ns[row, at])


def events(span: Span, key: U64, per_h: float) -> tuple[I64, I64, U64]:
    """Random events of many sources in a span.

    A Poisson process by slots of a minute; one slot in 500 is a flood of twenty times as many.

    Returns
    -------
    (row, ts_ns, number): the source's index, when, and a random 64-bit number of the event, in order of
    (source, time). At most 12 events a minute.
    """
    slot = np.arange(span.t0_ns // SLOT_NS, (span.t1_ns - 1) // SLOT_NS + 1)
    flood = uniform(salted(key[:, None], _FLOOD, slot[None, :])) < _FLOOD_SHARE
    mean = np.where(flood, _FLOOD_FACTOR, 1.0) * (per_h / 60.0)
    chance = uniform(salted(key[:, None], _EVENT_COUNT, slot[None, :]))
    count = np.zeros(chance.shape, np.int64)
    # Inverse of the Poisson distribution: how many terms of its sum lie below the random number.
    term = _exp_minus(mean)
    total = term.copy()
    for n in range(1, _N_EVENTS_MAX + 1):
        count += chance >= total
        term = term * mean / n
        total += term
    row, at = np.nonzero(count)
    n_of = count[row, at]
    row, at = np.repeat(row, n_of), np.repeat(at, n_of)
    first = np.repeat(np.cumsum(n_of) - n_of, n_of)
    number = slot[at] * _N_EVENTS_MAX + (np.arange(len(row)) - first)
    ts_ns = slot[at] * SLOT_NS + below(salted(key[row], _EVENT_TIME, number), 60_000) * (SLOT_NS // 60_000)
    inside = np.flatnonzero(span.holds(ts_ns))
    inside = inside[np.lexsort((ts_ns[inside], row[inside]))]
    return row[inside], ts_ns[inside], salted(key[row[inside]], _EVENT_VALUE, number[inside])


def _exp_minus(mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """exp(-mean) by multiplications only, for means up to some tens."""
    y = 1.0 - mean / 1_024.0
    for _ in range(10):
        y = y * y
    return y


def left_dead_band(values: npt.NDArray[Any], band: npt.NDArray[np.float64]) -> Bools:
    """Which scanned values a device reports: those more than `band` away from its last report.

    Parameters
    ----------
    values : T[R, H, D], R runs of H scans of D columns; the first scan of a run is a heartbeat and reported.
    band : float64[D].

    Returns
    -------
    bool[R, H, D].
    """
    report = np.empty(values.shape, np.bool_)
    report[:, 0] = True
    reported = values[:, 0].astype(np.float64)
    for scan in range(1, values.shape[1]):
        np.greater(np.abs(values[:, scan] - reported), band, out=report[:, scan])
        np.copyto(reported, values[:, scan], where=report[:, scan])
    return report
