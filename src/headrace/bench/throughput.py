"""``headrace bench throughput``: what a sample costs from payload bytes to a committed segment.

The path is the one that a plant runs: register responses → decode → normalise → journal with fsync → shards
(deduplicate, range, scale, 1-minute windows) → encode, verify → segment → commit. In the same run Polars does
the same windowed aggregation over the same values in memory, without journal or store, as a reference. Defining
the sensors, once in the life of a plant, is measured apart (``register_cpu_s``).

CPU time of the whole process, all threads and the kernel's part included, is the figure that holds on a shared
machine; wall figures are marked invalid when others used more than 0.15 core.
"""

from __future__ import annotations

import gc
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.bench.chart import bar_chart
from headrace.bench.load import SERIES_FOLDER, DeviceLoad, Input, LoadSpec, define_groups
from headrace.bench.machine import Machine
from headrace.bench.shapes import make_load
from headrace.bench.stored import count_stored
from headrace.core.clock import NS, VirtualClock, cpu_ns, monotonic_ns, thread_cpu_ns
from headrace.core.config import parse_plant
from headrace.core.errors import HeadraceError
from headrace.core.frames import FrameBatch
from headrace.core.quality import Quality
from headrace.metrics.process import resident_bytes
from headrace.pipeline.flows import FlowSpec
from headrace.runtime.assemble import host_settings
from headrace.runtime.group_frames import GroupFrames
from headrace.runtime.pipe import Pipe
from headrace.runtime.warm import warm_kernels

START_NS = 1_767_225_600 * NS
WINDOW_NS = 60 * NS
AGGREGATES = ("count", "sum", "min", "max", "first", "last", "mean", "var")
REFERENCE_ROWS_MAX = 64_000_000
CHAIN = FlowSpec(
    "minute",
    "**",
    (
        {"op": "scale", "factor": 1.0},
        {"op": "range", "min": -1e9, "max": 1e9},
        {"op": "window", "every": "1m", "agg": list(AGGREGATES)},
    ),
    "{parent}/{signal}_{agg}_1m",
)
Progress = Callable[[str], None]
Array = npt.NDArray[Any]
_INPUT_BYTES, _SAMPLES_MAX = 1_500_000_000, 640_000_000


@dataclass
class _Measured:
    cpu_ns: int
    wall_ns: int
    worst_round_ns: int
    decode_ns: int
    rss_peak_bytes: int
    others: float


@dataclass
class _Run:
    """A load, its rounds, and the pipe they go into."""

    load: DeviceLoad
    n_rounds: int
    n_samples: int
    pipe: Pipe
    clock: VirtualClock
    progress: Progress
    slots: Any = None
    register_cpu_ns: int = 0


def run(
    spec: LoadSpec,
    rounds: int | None = None,
    data: Path = SERIES_FOLDER,
    progress: Progress = lambda text: None,
    with_reference: bool = True,
) -> dict[str, Any]:
    """Measure; a JSON-ready object.

    Parameters
    ----------
    rounds : seconds of plant time; default: 128, fewer where the input would pass 1.5 GB of memory.

    Raises
    ------
    HeadraceError : the settings make no sense, or the disk refuses.
    """
    progress("loading kernels")
    warm_kernels((spec.dtype,))
    load = make_load(spec, data)
    n_rounds = rounds or default_rounds(load)
    n_samples = sum(load.n_samples(i) for i in range(n_rounds))
    progress(f"making {n_rounds} rounds of {n_samples // n_rounds:,} samples")
    inputs = [load.input(i, START_NS) for i in range(n_rounds)]
    gc.collect()
    folder = tempfile.mkdtemp(prefix="headrace-bench-")
    try:
        clock = VirtualClock(START_NS)
        settings = host_settings(parse_plant({"version": 1}, Path(folder)))  # as a plant that sets none
        pipe = Pipe(folder, [CHAIN], clock, settings)
        running = _Run(load, n_rounds, n_samples, pipe, clock, progress)
        before_bytes = resident_bytes()
        _register(running)
        measured = _measure(running, inputs)
        del inputs
        result = _result(running, measured, before_bytes)
        progress("checking what is in the store")
        result.update(_verify(running))
        pipe.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    del running, pipe
    gc.collect()
    if with_reference:
        progress("reference: Polars, the same windows in memory")
        reference = reference_polars(load, n_rounds)
        result["reference"] = reference
        result["ratio_to_reference"] = round(result["cpu_ns_per_sample"] / reference["cpu_ns_per_sample"], 4)
    return result


def chart(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Where the CPU time of a sample goes in some runs, and what the reference takes in the last, as SVG.

    Parameters
    ----------
    results : name → what `run` gave.
    """
    bars: dict[str, dict[str, float]] = {}
    reference: dict[str, Any] | None = None
    for name, result in results.items():
        stages = {part: ns for part, ns in result["stages"].items() if ns}
        rest = result["cpu_ns_per_sample"] - sum(stages.values())
        bars[name] = stages | {"rest": max(0.0, rest)}
        reference = result.get("reference")
    if reference is not None:
        bars["Polars, windows only"] = {"reference": reference["cpu_ns_per_sample"]}
    return bar_chart("CPU time of a sample, by stage", "ns", bars)


def default_rounds(load: DeviceLoad) -> int:
    """Two minutes; less where their input is larger than memory should hold."""
    n = load.n_samples(0)
    size_bytes = n * (2 if load.spec.dtype == "u16" else 8)
    return max(16, min(128, _INPUT_BYTES // size_bytes, _SAMPLES_MAX // n))


def _register(running: _Run) -> None:
    """Define all sensors, and have that in journal and store."""
    running.progress(f"registering {running.load.spec.sensors:,} sensors")
    cpu = cpu_ns()
    running.slots = define_groups(running.load, running.pipe.directory)
    running.pipe.define()
    running.register_cpu_ns = cpu_ns() - cpu


def _measure(running: _Run, inputs: Sequence[Input]) -> _Measured:
    pipe, slots = running.pipe, running.slots
    machine = Machine()
    cpu, wall, decode_ns, worst = cpu_ns(), monotonic_ns(), 0, 0
    for i, one in enumerate(inputs):
        begun, decode_begun = monotonic_ns(), thread_cpu_ns()
        batch = one.batch(slots, pipe.clock.now_ns())
        decode_ns += thread_cpu_ns() - decode_begun
        pipe.offer(batch)
        running.clock.advance(1.0)
        pipe.tick()
        worst = max(worst, monotonic_ns() - begun)
        if i % 16 == 15:
            running.progress(f"round {i + 1} of {len(inputs)}")
    pipe.drain()
    spent_cpu, spent_wall = cpu_ns() - cpu, monotonic_ns() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return _Measured(spent_cpu, spent_wall, worst, decode_ns, peak, machine.cores_used_by_others())


def _result(running: _Run, measured: _Measured, before_bytes: int) -> dict[str, Any]:
    n, spec, pipe = running.n_samples, running.load.spec, running.pipe
    stages = {name: ns / n for name, ns in pipe.stages_ns().items()}
    stages = {"decode": measured.decode_ns / n, **stages}
    return {
        "sensors": spec.sensors,
        "active": spec.active,
        "group": spec.group,
        "dtype": spec.dtype,
        "order": spec.order,
        "shape": spec.shape,
        "source": running.load.source,
        "rounds": running.n_rounds,
        "samples": n,
        "cpu_ns_per_sample": round(measured.cpu_ns / n, 2),
        "wall_ns_per_sample": round(measured.wall_ns / n, 2),
        "realtime_factor": round(running.n_rounds / (measured.wall_ns / NS), 2),
        "worst_round_ms": round(measured.worst_round_ns / 1e6, 1),
        "stages": {name: round(ns, 2) for name, ns in stages.items()},
        "register_cpu_s": round(running.register_cpu_ns / NS, 2),
        "journal_bytes_per_sample": round(pipe.host.journal.n_written_bytes / n, 3),
        "rss_peak_bytes": measured.rss_peak_bytes,
        "rss_without_input_bytes": measured.rss_peak_bytes - before_bytes,
        "cores_used_by_others": round(measured.others, 3),
        "wall_valid": measured.others <= 0.15,
        "cpus": len(os.sched_getaffinity(0)),
    }


def _verify(running: _Run) -> dict[str, Any]:
    """Count every sample in the store, and compare all values of some groups bit for bit."""
    n, pipe = running.n_samples, running.pipe
    stored = count_stored(pipe.store)
    random = np.random.Generator(np.random.PCG64(7))
    n_groups = len(running.slots)
    some = np.sort(random.choice(n_groups, min(40, n_groups), replace=False)).tolist()
    frames = GroupFrames(pipe.store)
    frames.buffers = {n: buffer for core in pipe.host.engine.cores for n, buffer in core.buffers().items()}
    wrong, n_compared = [], 0
    for place in some:
        want, quality = running.load.stored_of(place, running.n_rounds)
        end_ns = START_NS + (running.n_rounds + 1) * NS
        n_compared += want.size
        if not _is_same(frames(int(running.slots[place]), START_NS - NS, end_ns), want, quality):
            wrong.append(place)
    if wrong:
        raise HeadraceError(f"{len(wrong)} of {len(some)} groups do not read back as they were sent")
    share = stored.file_bytes / max(1, stored.raw_bytes + stored.derived_bytes)
    return {
        "bytes_per_sample": round(stored.raw_bytes * share / n, 3),
        "derived_bytes_per_sample": round(stored.derived_bytes * share / n, 3),
        "stored": stored.n_raw,
        "derived": stored.n_derived,
        "lost": max(0, n - stored.n_raw),
        "duplicated": max(0, stored.n_raw - n),
        "compared": n_compared,
    }


def _is_same(got: FrameBatch | None, values: Array, quality: Array | None) -> bool:
    """Whether what the store has is what was sent, bit for bit; an absent value has none."""
    if got is None:
        return False
    if quality is None:
        return got.quality is None and np.array_equal(got.values, values)
    there = quality != Quality.ABSENT
    values, quality, there = (a[there.any(axis=1)] for a in (values, quality, there))
    found = np.zeros(got.values.shape, np.uint8) if got.quality is None else got.quality
    return np.array_equal(found, quality) and np.array_equal(got.values[there], values[there])


def reference_polars(load: DeviceLoad, n_rounds: int) -> dict[str, Any]:
    """The same windows by Polars' in-memory engine; at most 64 million rows, whole sensors."""
    import polars as pl

    most = max(1, REFERENCE_ROWS_MAX // n_rounds)
    rounds = [tuple(column[:most] for column in load.flat(i, START_NS)) for i in range(n_rounds)]
    sensor, ts_ns, values = (np.concatenate([one[k] for one in rounds]) for k in range(3))
    frame = pl.DataFrame({"sensor": sensor, "ts_ns": ts_ns, "value": values})
    del rounds, values, sensor, ts_ns
    value = pl.col("value")
    cpu = cpu_ns()
    out = frame.group_by("sensor", pl.col("ts_ns") // WINDOW_NS).agg(
        value.count().alias("count"),
        value.cast(pl.Float64).sum().alias("sum"),
        value.min().alias("min"),
        value.max().alias("max"),
        value.first().alias("first"),
        value.last().alias("last"),
        value.mean().alias("mean"),
        value.var(ddof=0).alias("var"),
    )
    spent = cpu_ns() - cpu
    return {
        "name": f"polars {pl.__version__} in-memory group_by (no journal, no store)",
        "rows": frame.height,
        "windows": out.height,
        "cpu_ns_per_sample": round(spent / frame.height, 2),
    }
