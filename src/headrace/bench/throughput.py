"""``headrace bench throughput``: what a sample costs from payload bytes to a committed segment.

The path is the one that a plant runs: register responses → decode → normalise → journal with fsync → shards
(deduplicate, range, scale, 1-minute windows) → encode, verify → segment → commit. In the same run Polars does
the same windowed aggregation over the same values in memory, without journal or store, as a reference.

CPU time of the whole process, all threads and the kernel's part included, is the figure that holds on a shared
machine; wall figures are marked invalid when others used more than 0.15 core.
"""

from __future__ import annotations

import gc
import os
import resource
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.bench.load import HEADER_BYTES, SERIES_FOLDER, Load, LoadSpec
from headrace.bench.machine import Machine
from headrace.bench.stored import count_stored
from headrace.core.clock import NS, VirtualClock, cpu_ns, monotonic_ns, thread_cpu_ns
from headrace.core.errors import HeadraceError
from headrace.core.frames import FrameBatch
from headrace.metrics.process import resident_bytes
from headrace.pipeline.flows import FlowSpec
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


@dataclass
class _Measured:
    cpu_ns: int
    wall_ns: int
    worst_round_ns: int
    decode_ns: int
    rss_peak_bytes: int
    others: float


def run(
    sensors: int = 1_000_000,
    group: int = 50,
    dtype: str = "u16",
    order: str = "poll",
    rounds: int | None = None,
    data: Path = SERIES_FOLDER,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Measure; a JSON-ready object.

    Parameters
    ----------
    rounds : seconds of plant time; default: 128, fewer where the input would pass 1.5 GB of memory.

    Raises
    ------
    HeadraceError : the settings make no sense, or the disk refuses.
    """
    spec = LoadSpec(sensors, group, dtype, order)
    n_rounds = rounds or max(16, min(128, 1_500_000_000 // (sensors * (2 if dtype == "u16" else 8))))
    progress("loading kernels")
    warm_kernels((dtype,))
    progress(f"making {n_rounds} rounds of {sensors:,} samples")
    load = Load(spec, data)
    inputs = [load.round(i, START_NS) for i in range(n_rounds)]
    gc.collect()
    before_bytes = resident_bytes()
    folder = tempfile.mkdtemp(prefix="headrace-bench-")
    try:
        clock = VirtualClock(START_NS)
        pipe = Pipe(folder, [CHAIN], clock)
        slots = load.define(pipe.directory)
        measured = _measure(pipe, clock, (load, slots), inputs, progress)
        del inputs
        result = _result(spec, n_rounds, pipe, measured, before_bytes)
        progress("checking what is in the store")
        result.update(_verify(pipe, load, n_rounds))
        pipe.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    del pipe
    gc.collect()
    progress("reference: Polars, the same windows in memory")
    reference = reference_polars(load, n_rounds)
    result["reference"] = reference
    result["ratio_to_reference"] = round(result["cpu_ns_per_sample"] / reference["cpu_ns_per_sample"], 4)
    return result


def _measure(
    pipe: Pipe, clock: VirtualClock, devices: tuple[Load, Any], inputs: list[Any], progress: Progress
) -> _Measured:
    load, slots = devices
    machine = Machine()
    cpu, wall, decode_ns, worst = cpu_ns(), monotonic_ns(), 0, 0
    for i, one in enumerate(inputs):
        begun, decode_begun = monotonic_ns(), thread_cpu_ns()
        part = load.read_map.decode(one.payload, HEADER_BYTES)[0]
        batch = FrameBatch.dense(
            slots[one.order],
            one.ts_ns,
            part.values,
            part.quality,
            arrival_ns=pipe.clock.now_ns(),
            origin="bench",
        )
        decode_ns += thread_cpu_ns() - decode_begun
        pipe.offer(batch)
        clock.advance(1.0)
        pipe.tick()
        worst = max(worst, monotonic_ns() - begun)
        if i % 16 == 15:
            progress(f"round {i + 1} of {len(inputs)}")
    pipe.drain()
    spent_cpu, spent_wall = cpu_ns() - cpu, monotonic_ns() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return _Measured(spent_cpu, spent_wall, worst, decode_ns, peak, machine.cores_used_by_others())


def _result(
    spec: LoadSpec, n_rounds: int, pipe: Pipe, measured: _Measured, before_bytes: int
) -> dict[str, Any]:
    n = spec.sensors * n_rounds
    stages = {name: ns / n for name, ns in pipe.stages_ns().items()}
    stages = {"decode": measured.decode_ns / n, **stages}
    return {
        "sensors": spec.sensors,
        "group": spec.group,
        "dtype": spec.dtype,
        "order": spec.order,
        "rounds": n_rounds,
        "samples": n,
        "cpu_ns_per_sample": round(measured.cpu_ns / n, 2),
        "wall_ns_per_sample": round(measured.wall_ns / n, 2),
        "realtime_factor": round(n / (measured.wall_ns / NS) / spec.sensors, 2),
        "worst_round_ms": round(measured.worst_round_ns / 1e6, 1),
        "stages": {name: round(ns, 2) for name, ns in stages.items()},
        "journal_bytes_per_sample": round(pipe.host.journal.n_written_bytes / n, 3),
        "rss_peak_bytes": measured.rss_peak_bytes,
        "rss_without_input_bytes": measured.rss_peak_bytes - before_bytes,
        "cores_used_by_others": round(measured.others, 3),
        "wall_valid": measured.others <= 0.15,
        "cpus": len(os.sched_getaffinity(0)),
    }


def _verify(pipe: Pipe, load: Load, n_rounds: int) -> dict[str, Any]:
    """Count every sample in the store, and compare all values of some sensors bit for bit."""
    n = load.spec.sensors * n_rounds
    stored = count_stored(pipe.store)
    random = np.random.Generator(np.random.PCG64(7))
    some = np.sort(random.choice(load.n_groups, min(40, load.n_groups), replace=False))
    expected = np.stack([load.values(i).reshape(-1, load.spec.group)[some] for i in range(n_rounds)], axis=1)
    frames = GroupFrames(pipe.store)
    frames.buffers = {n: buffer for core in pipe.host.engine.cores for n, buffer in core.buffers().items()}
    wrong = 0
    for group, want in zip(some.tolist(), expected, strict=True):
        got = frames(group, START_NS - NS, START_NS + (n_rounds + 1) * NS)
        wrong += got is None or got.quality is not None or not np.array_equal(got.values, want)
    if wrong:
        raise HeadraceError(f"{wrong} of {len(some)} groups do not read back as they were sent")
    share = stored.file_bytes / max(1, stored.raw_bytes + stored.derived_bytes)
    return {
        "bytes_per_sample": round(stored.raw_bytes * share / n, 3),
        "derived_bytes_per_sample": round(stored.derived_bytes * share / n, 3),
        "stored": stored.n_raw,
        "derived": stored.n_derived,
        "lost": max(0, n - stored.n_raw),
        "duplicated": max(0, stored.n_raw - n),
        "compared": int(expected.size),
    }


def reference_polars(load: Load, n_rounds: int) -> dict[str, Any]:
    """The same windows by Polars' in-memory engine; at most 64 million rows, whole sensors."""
    import polars as pl

    n_sensors = min(load.spec.sensors, max(1, REFERENCE_ROWS_MAX // n_rounds))
    values = np.concatenate([load.values(i)[:n_sensors] for i in range(n_rounds)])
    sensor = np.tile(np.arange(n_sensors, dtype=np.uint32), n_rounds)
    ts_ns = np.repeat(START_NS + np.arange(n_rounds) * NS, n_sensors)
    frame = pl.DataFrame({"sensor": sensor, "ts_ns": ts_ns, "value": values})
    del values, sensor, ts_ns
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
