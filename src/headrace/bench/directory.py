"""``headrace bench directory``: what it costs to know ten million sensors.

Devices are defined a hundred thousand at a time, as adapters do it; then the directory is saved to the bytes of its
Parquet file, loaded again, known again by the same definitions, and searched. Memory is that of the process, beyond
what it had before.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from headrace.bench.machine import Machine
from headrace.bench.throughput import Progress
from headrace.core.clock import NS, cpu_ns, monotonic_ns
from headrace.core.errors import HeadraceError
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.metrics.process import resident_bytes

DEFINED_AT_ONCE = 100_000
T = TypeVar("T")


def run(sensors: int = 10_000_000, group: int = 50, progress: Progress = lambda text: None) -> dict[str, Any]:
    """Measure; a JSON-ready object.

    Parameters
    ----------
    group : sensors of a device; 1 for lone sensors.

    Raises
    ------
    HeadraceError : the settings make no sense, or what was loaded is not what was saved.
    """
    if sensors < group or sensors % group:
        raise HeadraceError(f"--sensors must be a multiple of --group {group}, got {sensors:,}")
    n, layout = sensors // group, layout_of(group)
    measured = _Measured()
    data, last = _saved(n, layout, measured, progress)
    again = SensorDirectory()
    measured.time("load", lambda: again.apply_bytes(data))
    if again.n_sensors != sensors or again.sensor_path(n - 1, group - 1) != last:
        raise HeadraceError(f"{again.n_sensors:,} sensors were loaded of {sensors:,}")
    progress("finding")
    lone = "" if group == 1 else "/signal3"
    found = {
        name: len(measured.time(f"find_{name}", lambda pattern=pattern: again.find(pattern)))  # type: ignore[misc]
        for name, pattern in (
            ("one", f"bench/hall0/line0/device7{lone}"), ("few", f"**/device*77{lone}"), ("all", "**")
        )
    }  # fmt: skip
    return {"sensors": sensors, "group": group, "file_bytes": len(data), "found": found, **measured.to_dict()}


def _saved(n: int, layout: Layout, measured: _Measured, progress: Progress) -> tuple[bytes, str]:
    """Define everything twice and save it; the bytes, and the last sensor's path."""
    directory = SensorDirectory()
    progress(f"defining {n:,} devices of {layout.width} sensors")
    measured.time("define", lambda: define(directory, n, layout))
    progress("defining them again")
    measured.time("define_again", lambda: define(directory, n, layout))
    progress("saving and loading")
    data = measured.time("save", directory.to_bytes)
    return data, directory.sensor_path(n - 1, layout.width - 1)


def layout_of(group: int) -> Layout:
    """The layout of a device; of a lone sensor for 1."""
    names = [f"signal{i}" for i in range(group)] if group > 1 else [""]
    return Layout("u16", tuple(Column(name, unit="degC") for name in names))


def paths(first: int, last: int) -> list[str]:
    """Paths of devices: halls of 10,000, with 20 lines."""
    return [f"bench/hall{i // 10_000}/line{i // 500 % 20}/device{i}" for i in range(first, last)]


def define(directory: SensorDirectory, n: int, layout: Layout) -> npt.NDArray[np.uint32]:
    """Define `n` devices, some at a time; their slots, between which a pipeline may have its own."""
    firsts = range(0, n, DEFINED_AT_ONCE)
    return np.concatenate(
        [directory.define_many(paths(at, min(n, at + DEFINED_AT_ONCE)), layout) for at in firsts]
    )


class _Measured:
    """Seconds and CPU seconds of each step, and the memory that the process has more after it than at first."""

    def __init__(self) -> None:
        self._machine, self._before_bytes = Machine(), resident_bytes()
        self._steps: dict[str, float] = {}

    def time(self, name: str, work: Callable[[], T]) -> T:
        gc.collect()
        begun, cpu = monotonic_ns(), cpu_ns()
        out = work()
        self._steps[f"{name}_s"] = round((monotonic_ns() - begun) / NS, 4)
        self._steps[f"{name}_cpu_s"] = round((cpu_ns() - cpu) / NS, 4)
        self._steps[f"{name}_rss_bytes"] = resident_bytes() - self._before_bytes
        return out

    def to_dict(self) -> dict[str, Any]:
        others = self._machine.cores_used_by_others()
        peak = next(
            int(line.split()[1]) << 10
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        return {
            **self._steps, "rss_peak_bytes": peak, "cores_used_by_others": round(others, 3),
            "wall_valid": others <= 0.15, "cpus": len(os.sched_getaffinity(0)),
        }  # fmt: skip
