"""Auditors: slow and obvious accounts of what must be true, to hold a store and its pipelines against.

The truth of a simulated plant is the list of its journal records that survived: applied one after the other,
the last version of each (sensor, time) counts. A store must answer exactly that, and windows must be what a
computation from scratch over it gives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch
from headrace.core.quality import USABLE_BELOW, Quality
from headrace.core.sensors import SensorDirectory, sensor_id
from headrace.store.result import QueryResult

Array = npt.NDArray[Any]
_SHOWN = 3


# --- one window, exactly -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Aggregates:
    """One window of one sensor, computed from scratch; raw values, exact where numbers are."""

    count: int
    sum: float
    min: float
    max: float
    first: float
    last: float
    mean: float
    var: float
    scale: float

    @staticmethod
    def of(samples: Iterable[tuple[int, float]], scale: float = 1.0, offset: float = 0.0) -> Aggregates:
        """Aggregates of (time, raw value) pairs; sums, means and variances in engineering units.

        Rational arithmetic: the only rounding is that of the result.
        """
        ordered = sorted(samples)
        raw = [value for _, value in ordered]
        exact = [Fraction(v) * Fraction(scale) + Fraction(offset) for v in raw]
        n = len(exact)
        total = sum(exact, Fraction(0))
        mean = total / n
        var = sum(((x - mean) ** 2 for x in exact), Fraction(0)) / n
        return Aggregates(
            n, float(total), min(raw), max(raw), raw[0], raw[-1], float(mean), float(var),
            max(abs(float(x)) for x in exact),
        )  # fmt: skip

    def differences(self, found: Mapping[str, float]) -> list[str]:
        """Sentences for the aggregates in `found` that are not these.

        Counts and values of the source's type must be equal; sums and means within 1e-12 of the sum of
        magnitudes, variances within 1e-9 of the square of the largest.
        """
        wrong = []
        slack = {
            "sum": 1e-12 * self.scale * self.count,
            "mean": 1e-12 * self.scale,
            "var": 1e-9 * self.scale**2,
        }
        for name, value in found.items():
            mine = float(getattr(self, name))
            if name in slack:
                same = abs(value - mine) <= slack[name] + 1e-300 or (math.isinf(mine) and value == mine)
            else:
                same = value == mine
            if not same:
                wrong.append(f"{name} is {value!r}, expected {mine!r}")
        return wrong


def by_window(samples: Mapping[int, float], every_ns: int) -> dict[int, list[tuple[int, float]]]:
    """Samples (time → value) by the start of their window."""
    windows: dict[int, list[tuple[int, float]]] = {}
    for ts_ns, value in samples.items():
        windows.setdefault(ts_ns // every_ns * every_ns, []).append((ts_ns, value))
    return windows


# --- samples as columns ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """Samples as columns.

    ``sensor: uint64[n]``, ``ts_ns: int64[n]``, ``value: float64[n]`` in engineering units, ``quality: uint8[n]``.
    """

    sensor: npt.NDArray[np.uint64]
    ts_ns: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    quality: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.sensor)

    def take(self, index: Array) -> Account:
        """Some of the samples."""
        return Account(self.sensor[index], self.ts_ns[index], self.value[index], self.quality[index])

    @staticmethod
    def of(directory: SensorDirectory, batches: Sequence[FrameBatch]) -> Account:
        """All samples of batches, in order; absent ones are none."""
        parts = [_flat(directory, b) for b in batches]
        if not parts:
            empty = np.empty(0)
            return Account(empty.astype(np.uint64), empty.astype(np.int64), empty, empty.astype(np.uint8))
        return Account(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    @staticmethod
    def of_result(result: QueryResult, wanted: Sequence[str] | None = None) -> Account:
        """Raw rows of a query, of all paths or some."""
        paths = result.paths.tolist()
        ids = np.array([sensor_id(p) for p in paths], np.uint64)
        chosen = set(paths if wanted is None else wanted)  # a hash each: thousands of texts are slow to sort
        keep = np.array([p in chosen for p in paths], np.bool_)
        rows = np.flatnonzero(keep[result.sensor])
        values = result.columns["value"][rows].astype(np.float64)
        return Account(
            ids[result.sensor[rows]],
            result.ts_ns[rows],
            values,
            result.columns["quality"][rows].astype(np.uint8),
        )

    def order(self) -> Array:
        """Index by sensor and time; versions stay in their order."""
        return np.lexsort((np.arange(len(self)), self.ts_ns, self.sensor))

    def newest(self) -> Account:
        """The last version of each (sensor, time), by sensor and time."""
        one = self.take(self.order())
        last = np.append((np.diff(one.ts_ns) != 0) | (np.diff(one.sensor) != 0), True)[: len(one)]
        return one.take(np.flatnonzero(last))

    def n_versions(self) -> int:
        """Samples that are not what was known of their (sensor, time) at the moment they came."""
        one = self.take(self.order())
        same = (np.diff(one.ts_ns) == 0) & (np.diff(one.sensor) == 0) & (np.diff(one.quality) == 0)
        same &= one.value[1:].view(np.int64) == one.value[:-1].view(np.int64)
        return len(one) - int(same.sum())

    def keys(self, with_values: bool = True) -> npt.NDArray[np.uint64]:
        """A 64-bit hash of each sample: of (sensor, time), and its value."""
        mixed = _mix(self.sensor ^ _mix(self.ts_ns.view(np.uint64)))
        return _mix(mixed ^ self.value.view(np.uint64)) if with_values else mixed


def _mix(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    out = numbers * np.uint64(0x9E3779B97F4A7C15)
    out ^= out >> np.uint64(29)
    out *= np.uint64(0xC2B2AE3D27D4EB4F)
    return out ^ (out >> np.uint64(32))


def _flat(directory: SensorDirectory, batch: FrameBatch) -> tuple[Array, Array, Array, Array]:
    count = np.full(batch.n_frames, batch.width) if batch.start is None else np.diff(batch.start)
    slot = np.repeat(batch.slot, count)
    if batch.width:
        column = np.tile(np.arange(batch.width), batch.n_frames)
    else:
        column = np.zeros(len(slot), np.int64) if batch.column is None else batch.column.astype(np.int64)
    sensor = np.empty(len(slot), np.uint64)
    value = batch.values.reshape(-1).astype(np.float64)
    for one in np.unique(batch.slot).tolist():
        mine, layout = slot == one, directory.layout(one)
        sensor[mine] = directory.sensors(one)[column[mine]]
        if layout.has_grid:
            value[mine] = layout.grid.values_at(value[mine], column[mine])
    quality = np.zeros(len(slot), np.uint8) if batch.quality is None else batch.quality.reshape(-1)
    there = quality < Quality.ABSENT
    return sensor[there], batch.value_times()[there], value[there], quality[there]


# --- audits: sentences for what is wrong ---------------------------------------------------------------------


def audit_samples(truth: Account, found: Account, name_of: Mapping[int, str]) -> list[str]:
    """`found` must be exactly the newest versions of `truth`, bit for bit, each once, in time order."""
    problems = []
    later = (found.ts_ns[1:] > found.ts_ns[:-1]) | (found.sensor[1:] != found.sensor[:-1])
    if not later.all():
        problems.append(f"order: {int((~later).sum())} samples are not behind the one before them")
    twice = len(found) - len(np.unique(found.keys(with_values=False)))
    if twice:
        problems.append(f"duplicates: {twice} samples are there more than once")
    expected = truth.newest()
    lost = ~np.isin(expected.keys(False), found.keys(False))
    if lost.any():
        problems.append(f"lost: {int(lost.sum())} samples, {_some(expected, lost, name_of)}")
    invented = ~np.isin(found.keys(False), expected.keys(False))
    if invented.any():
        problems.append(f"invented: {int(invented.sum())} samples, {_some(found, invented, name_of)}")
    if problems:
        return problems
    mine = found.take(found.order())
    other = expected.value.view(np.int64) != mine.value.view(np.int64)
    other |= expected.quality != mine.quality
    if other.any():
        at = np.flatnonzero(other)[:_SHOWN]
        pairs = ", ".join(f"{mine.value[i]} ({mine.quality[i]}) for {expected.value[i]}" for i in at)
        problems.append(f"changed: {int(other.sum())} samples, {_some(expected, other, name_of)}: {pairs}")
    return problems


def audit_acked(acked: Account, truth: Account, name_of: Mapping[int, str]) -> list[str]:
    """Every acknowledged sample must be among the versions that the journal kept."""
    lost = ~np.isin(acked.keys(), truth.keys())
    return [f"acked and lost: {int(lost.sum())} samples, {_some(acked, lost, name_of)}"] if lost.any() else []


def _some(account: Account, which: Array, name_of: Mapping[int, str]) -> str:
    at = np.flatnonzero(which)[:_SHOWN].tolist()
    return "; ".join(f"{name_of.get(int(account.sensor[i]), '?')} at {account.ts_ns[i]}" for i in at)


# --- windows -------------------------------------------------------------------------------------------------

_TOLERANCE = {"sum": 1e-12, "mean": 1e-12, "var": 1e-9}


def windows_from_scratch(truth: Account, every_ns: int) -> tuple[npt.NDArray[np.uint64], dict[str, Array]]:
    """Aggregates of every window that has usable samples: keys (a hash of sensor and start), and columns.

    ``sensor, start_ns``, the eight aggregates, and ``size``, the largest magnitude.
    """
    newest = truth.newest()
    one = newest.take(np.flatnonzero(newest.quality < USABLE_BELOW))
    start_ns = one.ts_ns // every_ns * every_ns
    first = np.flatnonzero(np.append(True, (np.diff(start_ns) != 0) | (np.diff(one.sensor) != 0))[: len(one)])
    columns: dict[str, Array] = {"sensor": one.sensor[first], "start_ns": start_ns[first]}
    if len(first):
        n = np.diff(np.append(first, len(one)))
        exact = one.value.astype(np.longdouble)
        total = np.add.reduceat(exact, first)
        mean = total / n
        squares = np.add.reduceat((exact - np.repeat(mean, n)) ** 2, first)
        columns |= {
            "count": n.astype(np.float64), "sum": total.astype(np.float64), "mean": mean.astype(np.float64),
            "var": (squares / n).astype(np.float64), "min": np.minimum.reduceat(one.value, first),
            "max": np.maximum.reduceat(one.value, first), "first": one.value[first],
            "last": one.value[first + n - 1], "size": np.maximum.reduceat(np.abs(one.value), first),
        }  # fmt: skip
    return _window_keys(columns["sensor"], columns["start_ns"]), columns


def _window_keys(sensor: Array, start_ns: Array) -> npt.NDArray[np.uint64]:
    return _mix(sensor ^ _mix(start_ns.view(np.uint64)))


def audit_windows(
    truth: Account, result: QueryResult, every_ns: int, suffix: str, name_of: Mapping[int, str]
) -> list[str]:
    """Derived series must be the windows of `truth` from scratch.

    Parameters
    ----------
    result : raw rows of the derived series, named ``<sensor>_<aggregate><suffix>``.
    """
    keys, expected = windows_from_scratch(truth, every_ns)
    order = np.argsort(keys)
    keys = keys[order]
    pattern = re.compile(rf"(.*)_([a-z]+){re.escape(suffix)}")
    problems: list[str] = []
    by_name: dict[str, list[int]] = {}
    ids = np.zeros(len(result.paths), np.uint64)
    for i, path in enumerate(result.paths.tolist()):
        match = pattern.fullmatch(path)
        if match is not None:
            by_name.setdefault(match[2], []).append(i)
            ids[i] = sensor_id(match[1])
    usable = result.columns["quality"] < USABLE_BELOW
    for name, paths in by_name.items():
        mine = np.zeros(len(result.paths), np.bool_)
        mine[paths] = True
        rows = np.flatnonzero(mine[result.sensor] & usable)
        values = result.columns["value"][rows].astype(np.float64)
        if name == "count":
            rows, values = rows[values > 0], values[values > 0]
        at = _window_keys(ids[result.sensor[rows]], result.ts_ns[rows])
        problems += _compare(name, (keys, order, expected), (at, values), name_of)
    return problems


def _compare(
    name: str,
    truth: tuple[Array, Array, dict[str, Array]],
    found: tuple[Array, Array],
    name_of: Mapping[int, str],
) -> list[str]:
    keys, order, expected = truth
    at, values = found
    missing = ~np.isin(keys, at)
    place = np.minimum(np.searchsorted(keys, at), max(len(keys) - 1, 0))
    invented = keys[place] != at if len(keys) else np.ones(len(at), np.bool_)
    problems = []
    if missing.any():
        rows = order[np.flatnonzero(missing)[:_SHOWN]]
        where = [f"{name_of.get(int(expected['sensor'][r]), '?')} at {expected['start_ns'][r]}" for r in rows]
        problems.append(f"windows: {int(missing.sum())} of {name} are missing: {'; '.join(where)}")
    if invented.any():
        problems.append(f"windows: {int(invented.sum())} of {name} have no samples")
    if problems:
        return problems
    rows = order[place]
    size = expected["size"][rows]
    slack = _TOLERANCE.get(name, 0.0) * (size**2 if name == "var" else size)
    if name == "sum":
        slack = slack * expected["count"][rows]
    wrong = np.flatnonzero(~(np.abs(values - expected[name][rows]) <= slack))
    if len(wrong):
        r = rows[wrong[0]]
        problems.append(
            f"windows: {len(wrong)} of {name} are wrong: {name_of.get(int(expected['sensor'][r]), '?')} at "
            f"{expected['start_ns'][r]} is {values[wrong[0]]!r}, expected {expected[name][r]!r}"
        )
    return problems
