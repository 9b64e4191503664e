"""Truth: what was planted, so that what is found can be judged.

A simulated fleet knows which of its sensors fail, when and how. `plant_faults` picks them; the fleet carries
them out; `Truth` tells, one row a sensor, what every sensor is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from headrace.sim.noise import below, keys, salted, uniform
from headrace.sim.schedules import Span

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

WHOLE_DEVICE = -1


class Fault(IntEnum):
    """What is wrong with a device or sensor."""

    NONE = 0
    SILENT = 1
    """The device reports nothing."""
    STUCK = 2
    """The sensor repeats the value that it had when the fault began."""
    DRIFT = 3
    """The sensor moves away from the truth by `size` steps of its grid an hour."""
    JITTER = 4
    """The device's reports come up to `size` periods early or late (below one half)."""


@dataclass(frozen=True, slots=True, eq=False)
class FaultTable:
    """Planted faults, one row each, sorted by device.

    ``kind: uint8[n]`` (`Fault`), ``device: int64[n]``, ``column: int64[n]`` the sensor's number within its
    device or `WHOLE_DEVICE`, ``start_ns, end_ns: int64[n]``, ``size: float64[n]``.
    """

    kind: U8
    device: I64
    column: I64
    start_ns: I64
    end_ns: I64
    size: F64

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def of(cls, *rows: tuple[Fault, int, int, int, int, float]) -> FaultTable:
        """A table of (kind, device, column, start_ns, end_ns, size) rows, in any order."""
        ordered = sorted(rows, key=lambda r: r[1])
        columns = list(zip(*ordered, strict=True)) if ordered else [()] * 6
        types = (np.uint8, np.int64, np.int64, np.int64, np.int64, np.float64)
        return cls(*(np.array(c, t) for c, t in zip(columns, types, strict=True)))

    def rows(self, kind: Fault, device: I64, ts_ns: I64) -> tuple[I64, I64]:
        """Which frames a kind of fault touches: (frame, fault) index pairs, each frame perhaps several times."""
        if not len(self):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        first = np.searchsorted(self.device, device, side="left")
        n_of = np.searchsorted(self.device, device, side="right") - first
        hit = np.flatnonzero(n_of)
        frame = np.repeat(hit, n_of[hit])
        number = np.arange(len(frame)) - np.repeat(np.cumsum(n_of[hit]) - n_of[hit], n_of[hit])
        fault = first[frame] + number
        at = ts_ns[frame]
        now = (self.kind[fault] == kind) & (self.start_ns[fault] <= at) & (at < self.end_ns[fault])
        return frame[now], fault[now]


NO_FAULTS = FaultTable.of()


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What each sensor is, one row a sensor in the fleet's order.

    ``device, column: int64[n]``, ``kind: uint8[n]`` (`headrace.core.layouts.Kind`), ``behaviour, rest:
    uint8[n]``, ``period_ns: int64[n]`` (0 for events), ``fault: uint8[n]`` the first fault planted on the
    sensor or its device, ``fault_start_ns, fault_end_ns: int64[n]``.
    """

    device: I64
    column: I64
    kind: U8
    behaviour: U8
    rest: U8
    period_ns: I64
    fault: U8
    fault_start_ns: I64
    fault_end_ns: I64

    @classmethod
    def of(cls, sensor: tuple[I64, I64, U8], habit: tuple[U8, U8, I64], faults: FaultTable) -> Truth:
        """The truth from (device, column, kind) and (behaviour, rest, period_ns) of each sensor, and the faults."""
        device = sensor[0]
        kind = np.zeros(len(device), np.uint8)
        start, end = np.zeros(len(device), np.int64), np.zeros(len(device), np.int64)
        first = np.searchsorted(device, faults.device, side="left")
        last = np.searchsorted(device, faults.device, side="right")
        # Backwards, so that the first fault of a sensor is the one that stays.
        for i in range(len(faults) - 1, -1, -1):
            rows = slice(int(first[i]), int(last[i]))
            if faults.column[i] != WHOLE_DEVICE:
                rows = slice(rows.start + int(faults.column[i]), rows.start + int(faults.column[i]) + 1)
            kind[rows], start[rows], end[rows] = faults.kind[i], faults.start_ns[i], faults.end_ns[i]
        return cls(*sensor, *habit, kind, start, end)


def plant_faults(n_levels: I64, span: Span, n_faults: int, seed: int) -> FaultTable:
    """Choose faults at random: each kind in turn, on different devices.

    Parameters
    ----------
    n_levels : int64[n_devices], analog sensors of each device, which are its first (`Fleet.n_levels`); a
        device without any can only fall silent.
    span : each fault begins in its first half and lasts to its end.
    n_faults : how many; at most one a device.

    Raises
    ------
    ValueError : more faults than devices.
    """
    n = len(n_levels)
    if n_faults > n:
        raise ValueError(f"{n_faults} faults need as many devices, the fleet has {n}")
    order = np.argsort(keys(seed, np.arange(n)), kind="stable")[:n_faults]
    key = keys(seed + 1, order)
    kind = (np.arange(n_faults) % 4 + 1).astype(np.uint8)
    kind[n_levels[order] == 0] = Fault.SILENT
    whole = (kind == Fault.SILENT) | (kind == Fault.JITTER)
    column = np.where(whole, WHOLE_DEVICE, (uniform(salted(key, 1)) * n_levels[order]).astype(np.int64))
    half = max(1, (span.t1_ns - span.t0_ns) // 2 // 1_000_000)
    start = span.t0_ns + below(salted(key, 2), min(half, 2**31 - 1)) * 1_000_000
    size = np.select(
        [kind == Fault.DRIFT, kind == Fault.JITTER], [20.0 + 80.0 * uniform(salted(key, 3)), 0.45], 0.0
    )
    by_device = np.argsort(order, kind="stable")
    end = np.full(n_faults, span.t1_ns)
    return FaultTable(
        kind[by_device],
        order[by_device],
        column[by_device],
        start[by_device],
        end[by_device],
        size[by_device],
    )
