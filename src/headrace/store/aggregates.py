"""Aggregates of windows: count, sum, min, max, first, last, mean, var over usable samples.

A *partial* is what one stretch of one sensor's samples gives for one window: enough to join it with others of
the same window, and to answer every aggregate. Chunk headers of the warm tier are partials that were
computed when the chunk was written, by the same code.

Sums are exact, rounded once, at the end: whichever way a window is put together, from samples or rollups, in whatever
pieces, it has the same sum and mean to the last bit. Integers up to 32 bits are summed as integers. A chunk's header has its
sum of floats in one float64, so what headers answer is rounded once for each chunk too. Elsewhere a sum of floats is held in two, itself and what rounding left out (`sum_low`); where not even those hold it (values 30 and more
decimal orders apart, infinities) `sum_low` is NaN, and the last bits depend on the order. Variances are joined as Chan,
Golub & LeVeque 1983 do, from sums of ``x - first`` with the rounding errors carried along (Neumaier 1974,
"Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen"). A window starts at a multiple of its length
since 1970 UTC; with length 0 there is one window for everything.

``twa`` is the mean weighted by time: between two samples a straight line for analog signals, the earlier value for
others; before the first sample of a window it has that sample's value, after the last one the last's. It is what the
operator `headrace.pipeline.operators.time_weighted_mean` gives. Headers can't answer it: all samples are decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.grids import Grid
from headrace.store.runs import SensorSamples

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_COUNTED_MAX = 1 << 20
_SPLIT = float((1 << 27) + 1)
AGGREGATES = ("count", "sum", "min", "max", "first", "last", "mean", "var")
TIME_WEIGHTED = "twa"
QUERY_AGGREGATES = (*AGGREGATES, TIME_WEIGHTED)


@dataclass(frozen=True, slots=True, eq=False)
class Partials:
    """Parallel columns, one row a (sensor, window, stretch).

    `first_ns` and `last_ns` are the times of the first and last sample. ``low, high, first, last: T[n]`` are in the lane's own type; ``raw_sum`` is the exact sum of integers of up
    to 32 bits; ``mean`` and ``squares`` (the sum of squared differences from it) are float64. ``twa`` is NaN where it was
    not asked for; it can't be joined, so it is of windows that are in one stretch.
    """

    sensor: I64
    window_ns: I64
    first_ns: I64
    last_ns: I64
    count: I64
    low: Array
    high: Array
    first: Array
    last: Array
    sum: F64
    raw_sum: I64
    mean: F64
    squares: F64
    twa: F64
    sum_low: F64

    def __len__(self) -> int:
        return len(self.sensor)

    def take(self, index: Array | slice) -> Partials:
        """The rows at `index`."""
        return Partials(*(getattr(self, name)[index] for name in self.__slots__))

    def as_type(self, dtype: np.dtype[Any]) -> Partials:
        """The same with ends in another type."""
        ends = {
            name: getattr(self, name).astype(dtype, copy=False) for name in ("low", "high", "first", "last")
        }
        return replace(self, **ends)

    @classmethod
    def concat(cls, parts: list[Partials]) -> Partials:
        """All rows of all parts."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class Weighting:
    """How time-weighted means are computed: which sensors are steps, by number, and the one window without length."""

    is_step: npt.NDArray[np.bool_]
    start_ns: int
    end_ns: int


def partials_of(
    samples: SensorSamples,
    every_ns: int,
    weighting: Weighting | None = None,
    spans: tuple[I64, I64] | None = None,
) -> Partials:
    """One row for each sensor and window that has usable samples, in that order.

    Parameters
    ----------
    spans : from which sample on, and before which, each sensor's lie, where these are some of the samples only.

    Cost: 1 to 2 ns a sample of integers, 3 to 5 of floats, and 25 to 50 ns a window; 5 ns a sample more with a `weighting`.
    """
    from headrace.store.aggregate_kernels import reduce_windows, weigh_windows

    spans = spans or (samples.start[:-1], samples.start[1:])
    one = spans, samples.ts_ns, samples.values, samples.quality
    most = _windows_at_most(samples.ts_ns, spans, every_ns)
    rows: tuple[Array, Array, Array] = (
        np.empty((6, most), np.int64), np.empty((4, most), samples.values.dtype), np.empty((4, most)),
    )  # fmt: skip
    n = reduce_windows(*one, every_ns, samples.values.dtype == np.int64, rows)
    (place, window_ns, first_ns, last_ns, count, raw_sum), kept, sums = (table[:, :n] for table in rows)
    twa = np.full(n, np.nan)
    if weighting is not None:
        span = weighting.start_ns, weighting.end_ns
        weigh_windows(one, weighting.is_step[samples.sensor], every_ns, span, twa)
    (low, high, first, last), (total, mean, squares, sum_low) = kept, sums
    return Partials(
        samples.sensor[place], window_ns, first_ns, last_ns, count, low, high, first, last, total, raw_sum, mean, squares, twa,
        sum_low,
    )  # fmt: skip


def _windows_at_most(ts_ns: I64, spans: tuple[I64, I64], every_ns: int) -> int:
    """No more (sensor, window) than this have samples."""
    if every_ns <= 0:
        return len(spans[0])
    length = spans[1] - spans[0]
    first, last = spans[0][length > 0], spans[1][length > 0] - 1
    n = ts_ns[last] // every_ns - ts_ns[first] // every_ns + 1
    return int(np.minimum(n, last - first + 1).sum())


def join(parts: Partials) -> Partials:
    """One row for each (sensor, window). No sample may be in two stretches.

    They are in that order; but where no two stretches have to be joined they stay in the order they have.
    """
    rank, is_distinct = ranked(parts.sensor, parts.window_ns)
    if is_distinct:
        return parts
    order = np.lexsort(
        (parts.first_ns, parts.window_ns, parts.sensor) if rank is None else (parts.first_ns, rank)
    )
    if not np.array_equal(order, np.arange(len(order))):
        parts = parts.take(order)
    is_first = _begins(parts)
    # Stretches may enclose one another: the last sample is that of the stretch that ends last.
    by_end = np.lexsort((parts.last_ns, np.cumsum(is_first)))
    at = np.flatnonzero(is_first)
    return _joined(parts, at, by_end[np.append(at[1:], len(parts)) - 1])


def coarser(parts: Partials, every_ns: int) -> Partials:
    """Longer windows of shorter ones, by sensor and time: what `join` makes of them."""
    parts = replace(parts, window_ns=parts.window_ns // every_ns * every_ns)
    at = np.flatnonzero(_begins(parts))
    if len(at) == len(parts):
        return parts
    return _joined(parts, at, np.append(at[1:], len(parts)) - 1)


def _begins(parts: Partials) -> npt.NDArray[np.bool_]:
    """Which rows are of another (sensor, window) than the one before."""
    sensor, window_ns = parts.sensor, parts.window_ns
    is_other = (sensor[1:] != sensor[:-1]) | (window_ns[1:] != window_ns[:-1])
    return np.append(True, is_other)[: len(parts)]


def _joined(parts: Partials, at: I64, latest: I64) -> Partials:
    """One row of all from each `at` on; `latest` is the one of them that ends last."""
    from headrace.store.aggregate_kernels import sum_stretches

    length = np.diff(at, append=len(parts))
    count = np.add.reduceat(parts.count, at)
    total = np.empty(len(at)), np.empty(len(at))
    sum_stretches(at, parts.sum, parts.sum_low, total)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.add.reduceat(parts.mean * parts.count, at) / count
        apart = parts.mean - np.repeat(mean, length)
        squares = np.add.reduceat(parts.squares + parts.count * apart * apart, at)
    return Partials(
        parts.sensor[at], parts.window_ns[at], parts.first_ns[at], parts.last_ns[latest], count,
        np.minimum.reduceat(parts.low, at), np.maximum.reduceat(parts.high, at), parts.first[at], parts.last[latest],
        total[0], np.add.reduceat(parts.raw_sum, at), mean, squares, parts.twa[at], total[1],
    )  # fmt: skip


def ranked(sensor: I64, window_ns: I64) -> tuple[I64 | None, bool]:
    """A small number of each row that orders rows as (sensor, window) do, and whether no two rows have the same.

    None for the numbers where they would not be small enough to count with.
    """
    if not len(sensor):
        return None, True
    low, step = int(window_ns.min()), 1
    span = int(window_ns.max()) - low
    if span:
        step = int(np.gcd.reduce(window_ns - low))
    n_windows = span // step + 1
    if n_windows * (int(sensor.max()) + 1) > _COUNTED_MAX + 8 * len(sensor):
        order = np.lexsort((window_ns, sensor))
        s, w = sensor[order], window_ns[order]
        return None, not bool(((s[1:] == s[:-1]) & (w[1:] == w[:-1])).any())
    rank = sensor if n_windows == 1 else sensor * n_windows + (window_ns - low) // step
    return rank, int(np.bincount(rank).max()) == 1


def means_of(total: F64, low: F64, count: I64) -> F64:
    """The mean of each exact sum ``total + low``: float64[n], off by less than its last bit, NaN where `low` is."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean: F64 = total / count
        at = mean * _SPLIT  # the remainder of the division, exactly (Dekker 1971)
        high = at - (at - mean)
        low_half = mean - high
        product = mean * count
        left = (high * count - product) + low_half * count
        return mean + ((total - product) - left + low) / count


def rounded(m2: Array, n_bits: int = 24) -> Array:
    """To fewer bits: with the 24 of a float32, standard deviations keep 7 digits."""
    bits = m2.view(np.int64)
    keeps = np.isfinite(m2) & (m2 < 1e308)
    cut = 53 - n_bits
    return np.where(keeps, (bits + (1 << (cut - 1))) >> cut << cut, bits).view(np.float64)


def order_of(sensor: I64, window_ns: I64) -> I64 | None:
    """Indices that put rows in the order of (sensor, window); None where they are in it."""
    rising = (sensor[1:] > sensor[:-1]) | ((sensor[1:] == sensor[:-1]) & (window_ns[1:] >= window_ns[:-1]))
    if rising.all():
        return None
    rank, is_distinct = ranked(sensor, window_ns)
    if rank is None or not is_distinct:
        return np.lexsort((window_ns, sensor))
    place = np.full(int(rank.max()) + 1, -1, np.int64)
    place[rank] = np.arange(len(rank))
    return place if len(place) == len(rank) else place[place >= 0]


def in_units(parts: Partials, grid: Grid, exact: bool) -> Partials:
    """Raw integers as engineering units, float64; sums from the exact ones.

    ``exact``: `raw_sum` holds the sums.
    """
    step = grid.step
    raw = np.empty((6, len(parts)))
    raw[0], raw[1], raw[2], raw[3] = parts.low, parts.high, parts.first, parts.last
    raw[4], raw[5] = parts.mean, parts.twa
    low, high, first, last, mean, twa = grid.values(raw)
    falling = step < 0
    if falling.any():
        low, high = np.where(falling, high, low), np.where(falling, low, high)
    return replace(
        parts, low=low, high=high, first=first, last=last, mean=mean, twa=twa,
        sum=grid.totals(parts.raw_sum if exact else parts.sum, parts.count), squares=parts.squares * step * step,
        sum_low=np.zeros(len(parts)) if exact else parts.sum_low * step,
    )  # fmt: skip
