"""``headrace bench store``: what a store of many unlike sensors takes on disk, and how fast it is read.

*mixed*: sensors of a mixed set (`headrace.bench.mixed`), one sample at a time each, go through the path of a plant:
journal, shards, hot segments, compaction. Sizes are those of the files. Beside them, in the same run, the same rows
as plain Parquet, sorted by sensor and time, in several settings; the smallest is the peer. Every sample is read back
and compared.

*line*: a month of a simulated line (`headrace.bench.aged`): bytes after each tier.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.bench import aged
from headrace.bench.codecs import RAW_BYTES
from headrace.bench.machine import Machine
from headrace.bench.mixed import MixedSet, mixed_set
from headrace.core.clock import NS, VirtualClock, cpu_ns, monotonic_ns, thread_cpu_ns
from headrace.core.errors import HeadraceError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.metrics.process import resident_bytes
from headrace.runtime.pipe import Pipe
from headrace.runtime.warm import warm_kernels
from headrace.store.compactor import Compactor
from headrace.store.query import Store

START_NS = 1_767_225_600 * NS
"""A midnight, UTC."""
DAY_NS = 86_400 * NS
LOOKUP = 200
"""Samples of a lookup."""
_LINE_SENSORS = 64
_SIZES = (1_000, 10_000, 100_000, 1_000_000)
Array = npt.NDArray[Any]
Progress = Callable[[str], None]


def run(
    sensors: int = 10_000,
    samples: int = 1_000,
    days: int = 30,
    data: Path | None = None,
    repeats: int = 101,
    hours: int = 24,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Measure; a JSON-ready object.

    Parameters
    ----------
    sensors, samples : of the mixed set. days : of the line. data : folder of series files that it is made of. repeats : of lookups.
    hours : of each day of the line.

    Raises
    ------
    HeadraceError : the settings make no sense, a sample reads back differently, or the disk refuses.
    """
    machine = Machine()
    warm_kernels(("f64", "u16"))
    progress(f"a mixed set of {sensors:,} sensors, {samples:,} samples each")
    mixed = mixed_set(data, sensors, samples)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        result = {"mixed": _mixed(mixed, Path(folder), repeats, progress)}
        progress(f"{days} days of a line of {_LINE_SENSORS} sensors")
        result["line"] = aged.month(Path(folder) / "line", _LINE_SENSORS, days, hours, progress)
    return result | _around(machine)


def run_sustained(sensors: int, days: int, progress: Progress = lambda text: None) -> dict[str, Any]:
    """Taking, writing and compacting over days, and bytes a sensor in stores of 1,000 to a million; JSON-ready."""
    machine = Machine()
    warm_kernels(("f64", "u16"))
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        progress(f"{sensors:,} sensors for two hours on each of {days} days")
        result = aged.sustained(Path(folder) / "sustained", sensors, days, progress)
        progress("bytes a sensor")
        result["by_sensors"] = aged.bytes_by_size(Path(folder) / "sizes", _SIZES, progress)
    return result | _around(machine)


def _around(machine: Machine) -> dict[str, Any]:
    others = machine.cores_used_by_others()
    return {
        "rss_bytes": resident_bytes(), "cores_used_by_others": round(others, 3), "wall_valid": others <= 0.15,
        "cpus": len(os.sched_getaffinity(0)),
    }  # fmt: skip


def _mixed(mixed: MixedSet, folder: Path, repeats: int, progress: Progress) -> dict[str, Any]:
    n_sensors, n_samples = mixed.shape
    n = n_sensors * n_samples
    filled = MixedStore(mixed, folder / "store")
    filled.fill(progress)
    hot = filled.bytes_of("hot")
    progress("compacting")
    compaction_ns = filled.compact()
    store = filled.pipe.store
    progress("reading back")
    mismatches = _mismatches(store, mixed)
    if mismatches:
        raise HeadraceError(f"{mismatches:,} sensors do not read back as they were sent")
    warm = filled.bytes_of("warm")
    result = {
        "sensors": n_sensors, "samples": n, "series": list(mixed.names), "raw_bytes": RAW_BYTES * n,
        "hot_bytes": hot, "hot_ratio": round(RAW_BYTES * n / hot, 2),
        "warm_bytes": warm, "warm_ratio": round(RAW_BYTES * n / warm, 2), "mismatches": mismatches,
        "compaction_cpu_ns_per_sample": round(compaction_ns / n, 1),
        "lookup": _lookup(store, mixed, repeats), "aggregate": _aggregate(store, n),
    }  # fmt: skip
    filled.close()
    progress("plain Parquet")
    plain = plain_parquet(mixed)
    best = min(plain.values())
    return result | {"plain_parquet_bytes": plain, "of_best_plain_parquet": round(warm / best, 4)}


class MixedStore:
    """A store that a mixed set is written to, all within one day.

    Parameters
    ----------
    folder : an empty one.
    """

    def __init__(self, mixed: MixedSet, folder: Path) -> None:
        self.mixed = mixed
        self.clock = VirtualClock(START_NS)
        self.pipe = Pipe(folder, [], self.clock)
        paths = [mixed.path(i) for i in range(mixed.shape[0])]
        self._slots = self.pipe.directory.define_many(paths, Layout("f64", (Column(""),)))
        self._compactor = Compactor(self.pipe.store, self.clock)

    def fill(self, progress: Progress) -> None:
        """Send the first sample of every sensor, then the second, and so on; flush."""
        values, ts_ns = self.mixed.values, START_NS + self.mixed.ts_ns
        n = self.mixed.shape[1]
        for at in range(n):
            self.clock.set_ns(max(self.clock.now_ns(), int(ts_ns[:, at].max())))
            batch = FrameBatch.dense(
                self._slots, ts_ns[:, at].copy(), values[:, at : at + 1].copy(), arrival_ns=self.clock.now_ns(), origin="bench"
            )  # fmt: skip
            self.pipe.offer(batch)
            if at % 16 == 15:
                self.pipe.tick()
            if at * 4 // n != (at + 1) * 4 // n:
                progress(f"  {(at + 1) * len(values):,} samples")
        self.pipe.drain()

    def compact(self) -> int:
        """Make everything warm; the CPU time in ns."""
        self.clock.set_ns(START_NS + 3 * DAY_NS)
        begun = thread_cpu_ns()
        report = self._compactor.run_once(force=True)
        if report.problems:
            raise HeadraceError("; ".join(report.problems))
        return thread_cpu_ns() - begun

    def bytes_of(self, tier: str) -> int:
        """Bytes of a tier's files."""
        return next(one.size_bytes for one in self.pipe.store.status().tiers if one.name == tier)

    def close(self) -> None:
        """End its threads."""
        self.pipe.close()


def _mismatches(store: Store, mixed: MixedSet) -> int:
    """Sensors whose samples are not what was sent, bit for bit."""
    wrong = 0
    for name in dict.fromkeys(mixed.names):
        found = store.query(f"bench/mixed/{name}/*", START_NS, START_NS + DAY_NS)
        mine = [i for i in range(mixed.shape[0]) if mixed.names[i % len(mixed.names)] == name]
        mine.sort(key=mixed.path)
        want_ts = (START_NS + mixed.ts_ns[mine]).reshape(-1)
        want = mixed.values[mine].reshape(-1)
        ts_ns, values = found.ts_ns, found.columns["value"]
        if len(ts_ns) != len(want_ts):
            wrong += len(mine)
            continue
        same = (ts_ns == want_ts) & (values.view(np.int64) == want.view(np.int64))
        wrong += int((~same.reshape(len(mine), -1).all(axis=1)).sum())
    return wrong


def _lookup(store: Store, mixed: MixedSet, repeats: int) -> dict[str, float]:
    """Milliseconds for 200 samples of one sensor, another one each time, in an open store."""
    random = np.random.Generator(np.random.PCG64(3))
    n_sensors, n_samples = mixed.shape
    wall, cpu = [], []
    for turn in range(-5, repeats):
        sensor = int(random.integers(0, n_sensors))
        first = int(random.integers(0, max(1, n_samples - LOOKUP)))
        last = min(n_samples, first + LOOKUP)
        start, end = (START_NS + int(mixed.ts_ns[sensor, at]) for at in (first, last - 1))
        begun_ns, begun_cpu = monotonic_ns(), cpu_ns()
        found = store.query(mixed.path(sensor), start, end + 1)
        if turn >= 0:  # the first ones open what all use
            wall.append(monotonic_ns() - begun_ns)
            cpu.append(cpu_ns() - begun_cpu)
        if len(found) != last - first:
            raise HeadraceError(f"a lookup found {len(found):,} samples, expected {last - first:,}")
    return _quantiles("", wall) | _quantiles("cpu_", cpu)


def _aggregate(store: Store, n_samples: int) -> dict[str, float]:
    """Count, min, max and mean of every sensor, from headers alone; the best of some, whose headers the first one read."""
    cpu = []
    for _ in range(6):
        begun = cpu_ns()
        found = store.query(
            "bench/mixed/**", START_NS, START_NS + DAY_NS, None, ("count", "min", "max", "mean")
        )
        cpu.append(cpu_ns() - begun)
    if int(np.sum(found.columns["count"])) != n_samples:
        raise HeadraceError("the headers' counts are not the number of samples")
    return {
        "first_cpu_ms": round(cpu[0] / 1e6, 2), "cpu_ms": round(min(cpu) / 1e6, 2),
        "samples_per_s": round(n_samples / min(cpu) * NS),
    }  # fmt: skip


def _quantiles(name: str, values_ns: list[int]) -> dict[str, float]:
    p50, p95 = np.quantile(np.array(values_ns) / 1e6, [0.5, 0.95]).tolist()
    return {f"{name}p50_ms": round(p50, 3), f"{name}p95_ms": round(p95, 3)}


def plain_parquet(mixed: MixedSet) -> dict[str, int]:
    """Bytes of the same rows as one Parquet file, sorted by sensor and time, by setting."""
    n_sensors, n_samples = mixed.shape
    table = pa.table(
        {
            "sensor": np.repeat(np.arange(n_sensors, dtype=np.int32), n_samples),
            "ts": START_NS + mixed.ts_ns.reshape(-1),
            "value": mixed.values.reshape(-1),
        }
    )
    out = {}
    for name, dictionary in (("byte_stream_split", False), ("dictionary", True)):
        for rows in (1 << 20, 1 << 16):
            sink = pa.BufferOutputStream()
            encoding = {"ts": "DELTA_BINARY_PACKED"} | ({} if dictionary else {"value": "BYTE_STREAM_SPLIT"})
            pq.write_table(
                table, sink, compression="zstd", compression_level=3, row_group_size=rows, column_encoding=encoding,
                use_dictionary=["sensor", "value"] if dictionary else ["sensor"],
            )  # fmt: skip
            out[f"{name}_{rows}"] = sink.getvalue().size
    return out
