"""``headrace bench query``: how long questions take, on stores that were made as a plant makes them.

Three stores: a plant of 10,000 sensors whose engine runs (hot and warm segments, an unflushed tail), a line for
two days at 1 Hz, and a million sensors with a warm chunk each. Every question is asked many times, of other
sensors each time. Beside it, in the same run, DuckDB answers the same question from the same rows as one Parquet
file, sorted by sensor and time. CPU is that of the whole process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.bench.machine import Machine
from headrace.bench.query_stores import GROUP, START_NS, Progress, QueryStore, QueryStoreSpec
from headrace.core.clock import NS, cpu_ns, monotonic_ns
from headrace.core.disk import LocalDisk
from headrace.core.errors import HeadraceError
from headrace.metrics.process import resident_bytes
from headrace.runtime.reader import StoreReader
from headrace.runtime.warm import warm_kernels
from headrace.store.base import Tail
from headrace.store.query import Store
from headrace.store.result import QueryResult

HOUR_NS, DAY_NS, MINUTE_NS = 3_600 * NS, 86_400 * NS, 60 * NS
_PEER_SENSORS_MAX = 2_000_000
Ask = Callable[[int], int]
"""Asks question number i; how many rows were answered."""


@dataclass(frozen=True)
class Answered:
    """Of one kind of question."""

    rows: int
    wall_ms: tuple[float, float]
    cpu_ms: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "rows": self.rows, "p50_ms": self.wall_ms[0], "p95_ms": self.wall_ms[1], "cpu_p50_ms": self.cpu_ms[0],
            "cpu_p95_ms": self.cpu_ms[1],
        }  # fmt: skip


def run(
    sensors: int = 10_000,
    seconds: int = 10_000,
    chunks: int = 1_000_000,
    repeats: int = 41,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Measure; a JSON-ready object.

    Parameters
    ----------
    sensors, seconds : size of the running plant, at 1 Hz; chunks : sensors of the store with one warm chunk each.
    repeats : how often each question is asked.

    Raises
    ------
    HeadraceError : the settings make no sense, an answer is wrong, or the disk refuses.
    """
    for name, n in (("--sensors", sensors), ("--chunks", chunks)):
        if n < 20 * GROUP or n % (20 * GROUP):
            raise HeadraceError(
                f"{name} must be a multiple of {20 * GROUP:,} (lines of 20 devices), got {n:,}"
            )
    machine = Machine()
    warm_kernels(("u16",))
    result: dict[str, Any] = {"sensors": sensors, "seconds": seconds, "chunks": chunks, "repeats": repeats}
    parts: list[tuple[str, QueryStoreSpec, Callable[[QueryStore, Path, int, Progress], dict[str, Any]]]] = [
        ("running", QueryStoreSpec(sensors, seconds), _running),
        ("line", QueryStoreSpec(4 * GROUP, 2 * 86_400 if seconds >= 3_600 else 2 * seconds), _line),
        ("headers", QueryStoreSpec(chunks, 86_400, 5_400), _headers),
    ]
    for name, spec, measure in parts:
        folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
        try:
            progress(f"{name}: {spec.sensors:,} sensors, {spec.n_rounds:,} samples each")
            store = QueryStore(folder / "store", spec)
            store.fill(progress)
            result[name] = measure(store, folder, repeats, progress)
            store.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    others = machine.cores_used_by_others()
    result |= {
        "rss_bytes": resident_bytes(),
        "cores_used_by_others": round(others, 3),
        "wall_valid": others <= 0.15,
        "cpus": len(os.sched_getaffinity(0)),
    }
    return result


# --- the three stores ------------------------------------------------------------------------------------


def _running(store: QueryStore, folder: Path, repeats: int, progress: Progress) -> dict[str, Any]:
    """One sensor's last hour and its windows, while the engine has the last minutes; a line's windows."""
    ours, tail = store.pipe.store, store.pipe.host.tail
    now_ns = store.now_ns
    start_ns = max(START_NS, now_ns - HOUR_NS)
    n_hour = (now_ns - start_ns) // NS
    peer = DuckPeer(store, folder, store.spec.n_rounds)
    out: dict[str, Any] = _segments(ours)
    hour = _asked(lambda i: _query(ours, _sensor(store, i), start_ns, now_ns, tail=tail), repeats)
    if hour.rows != n_hour:
        raise HeadraceError(f"the last hour has {hour.rows:,} rows of one sensor, expected {n_hour:,}")
    _check_values(store, ours, tail)
    out["last_hour"] = _beside(hour, _asked(lambda i: peer.samples(store, i, start_ns, now_ns), repeats))
    windows = _asked(lambda i: _query(ours, _sensor(store, i), start_ns, now_ns, MINUTE_NS, tail), repeats)
    out["hour_by_minute"] = _beside(
        windows, _asked(lambda i: peer.windows(store, i, start_ns, now_ns), repeats)
    )
    few = max(3, repeats // 8)
    line = _asked(lambda i: _query(ours, _line_pattern(store, i), start_ns, now_ns, MINUTE_NS, tail), few)
    peers = _asked(lambda i: peer.windows(store, i, start_ns, now_ns, 20 * GROUP), few)
    out["line_hour_by_minute"] = _beside(line, peers)
    progress("  as another process reads it")
    reader = StoreReader(LocalDisk(folder / "store")).store
    out["refresh_unchanged"] = _asked(lambda i: len(reader.refresh().commits.segments), 5 * repeats).to_dict()
    committed = _asked(lambda i: _query(reader, _sensor(store, i), start_ns, now_ns), repeats)
    out["last_hour_committed"] = committed.to_dict()
    out["cached_bytes"] = reader.reader.cached_bytes
    return out


def _line(store: QueryStore, folder: Path, repeats: int, progress: Progress) -> dict[str, Any]:
    """A day of one sensor at 1 Hz: of yesterday, from the warm tier, and of today as far as it is."""
    ours, tail = store.pipe.store, store.pipe.host.tail
    n_day = min(86_400, store.spec.n_rounds // 2)
    peer = DuckPeer(store, folder, n_day)
    end_ns = START_NS + n_day * NS
    out: dict[str, Any] = _segments(ours)
    today = _asked(lambda i: _query(ours, _sensor(store, i), end_ns, end_ns + n_day * NS, tail=tail), repeats)
    out["today"] = today.to_dict()
    progress("  compacting")
    store.settle()
    day = _asked(lambda i: _query(ours, _sensor(store, i), START_NS, end_ns, tail=tail), repeats)
    if (day.rows, today.rows) != (n_day, n_day):
        raise HeadraceError(
            f"a day has {day.rows:,} and {today.rows:,} rows of one sensor, expected {n_day:,}"
        )
    out["day"] = _beside(day, _asked(lambda i: peer.samples(store, i, START_NS, end_ns), repeats))
    hours = _asked(lambda i: _query(ours, _sensor(store, i), START_NS, end_ns, HOUR_NS, tail), repeats)
    out["day_by_hour"] = hours.to_dict()
    return out


def _headers(store: QueryStore, folder: Path, repeats: int, progress: Progress) -> dict[str, Any]:
    """Aggregates of every sensor over a whole day, answered from the headers of warm chunks."""
    progress("  compacting")
    store.settle()
    ours, agg = store.pipe.store, ("count", "min", "max", "mean")
    out = _segments(ours)

    def ask(i: int) -> int:
        found = ours.query("bench/**", START_NS, START_NS + DAY_NS, None, agg, tail=store.pipe.host.tail)
        if found.sources["warm_headers"] != store.spec.sensors:
            raise HeadraceError(
                f"{found.sources['warm_headers']:,} headers answered, expected {store.spec.sensors:,}"
            )
        return len(found)

    begun = cpu_ns()
    ask(0)
    out["first_cpu_ms"] = round((cpu_ns() - begun) / 1e6, 1)
    few = max(3, repeats // 4)
    asked = _asked(ask, few)
    peer = DuckPeer(store, folder, store.spec.n_rounds)
    out["aggregate"] = _beside(asked, _asked(lambda i: peer.everything(), few))
    return out


def _segments(store: Store) -> dict[str, Any]:
    status = store.status()
    return {f"{tier.name}_segments": tier.n_segments for tier in status.tiers}


# --- asking ----------------------------------------------------------------------------------------------


def _sensor(store: QueryStore, i: int) -> str:
    return f"{store.device(i * 7 % store.n_groups)}/signal{i % GROUP}"


def _line_pattern(store: QueryStore, i: int) -> str:
    return store.device(i * 20 % store.n_groups).rpartition("/")[0] + "/*/*"


def _query(
    store: Store,
    pattern: str,
    start_ns: int,
    end_ns: int,
    every_ns: int | None = None,
    tail: Tail | None = None,
) -> int:
    agg = () if every_ns is None else ("mean", "max")
    return len(store.query(pattern, start_ns, end_ns, every_ns, agg, tail=tail))


def _asked(ask: Ask, repeats: int) -> Answered:
    """Ask, once without the clock, then `repeats` times."""
    rows = ask(repeats)
    wall, cpu = [], []
    for i in range(repeats):
        begun_ns, begun_cpu = monotonic_ns(), cpu_ns()
        rows = ask(i)
        wall.append(monotonic_ns() - begun_ns)
        cpu.append(cpu_ns() - begun_cpu)
    return Answered(rows, _quantiles(wall), _quantiles(cpu))


def _quantiles(values_ns: Sequence[int]) -> tuple[float, float]:
    p50, p95 = np.quantile(np.array(values_ns) / 1e6, [0.5, 0.95]).tolist()
    return round(p50, 3), round(p95, 3)


def _beside(ours: Answered, peer: Answered) -> dict[str, Any]:
    ratio = round(ours.cpu_ms[0] / max(peer.cpu_ms[0], 1e-6), 3)
    return {**ours.to_dict(), "duckdb": peer.to_dict(), "cpu_ratio_to_duckdb": ratio}


def _check_values(store: QueryStore, ours: Store, tail: Tail) -> None:
    """All samples of a sensor, value by value."""
    found: QueryResult = ours.query(_sensor(store, 3), START_NS, store.now_ns, tail=tail)
    group, column = 3 * 7 % store.n_groups, 3 % GROUP
    want = store.values(0, store.spec.n_rounds)[:, group * GROUP + column] * 0.1 - 50.0
    if not np.allclose(found.columns["value"], want, rtol=0, atol=1e-9):
        raise HeadraceError("a sensor's samples do not read back as they were sent")


# --- the peer --------------------------------------------------------------------------------------------


class DuckPeer:
    """DuckDB over the same rows in one Parquet file, sorted by sensor and time; a bounded number of rows."""

    def __init__(self, store: QueryStore, folder: Path, n_rounds: int) -> None:
        import duckdb

        self.path = folder / "peer.parquet"
        self.n_sensors = min(
            store.spec.sensors, max(20 * GROUP, 24 * _PEER_SENSORS_MAX // n_rounds // 1000 * 1000)
        )
        self._write(store, n_rounds)
        self._db = duckdb.connect()
        self._db.execute(f"CREATE VIEW samples AS SELECT * FROM '{self.path}'")

    def _write(self, store: QueryStore, n_rounds: int) -> None:
        """One row group for each so many sensors, as a careful user would write it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([("sensor", pa.int32()), ("ts", pa.int64()), ("value", pa.float64())])
        ts_ns = START_NS + np.arange(n_rounds) * (store.spec.period_s * NS)
        step = max(1, 250_000 // n_rounds)
        with pq.ParquetWriter(self.path, schema, compression="zstd") as writer:
            values = store.values(0, n_rounds)[:, : self.n_sensors].T.copy()
            for first in range(0, self.n_sensors, step):
                some = values[first : first + step]
                sensor = np.repeat(np.arange(first, first + len(some), dtype=np.int32), n_rounds)
                columns = [sensor, np.tile(ts_ns, len(some)), some.reshape(-1) * 0.1 - 50.0]
                writer.write_table(pa.table([pa.array(c) for c in columns], schema=schema))

    def _number(self, store: QueryStore, i: int) -> int:
        return (i * 7 % store.n_groups * GROUP + i % GROUP) % self.n_sensors

    def samples(self, store: QueryStore, i: int, start_ns: int, end_ns: int) -> int:
        """Samples of one sensor."""
        sql = "SELECT ts, value FROM samples WHERE sensor = ? AND ts >= ? AND ts < ? ORDER BY ts"
        return len(self._db.execute(sql, [self._number(store, i), start_ns, end_ns]).fetchnumpy()["ts"])

    def windows(self, store: QueryStore, i: int, start_ns: int, end_ns: int, n: int = 1) -> int:
        """Windows of a minute of `n` sensors."""
        first = self._number(store, i) if n == 1 else i * n % self.n_sensors
        sql = (
            f"SELECT sensor, ts // {MINUTE_NS} AS w, avg(value) AS mean, max(value) AS max FROM samples "
            "WHERE sensor >= ? AND sensor < ? AND ts >= ? AND ts < ? GROUP BY ALL ORDER BY ALL"
        )
        return len(self._db.execute(sql, [first, first + n, start_ns, end_ns]).fetchnumpy()["w"])

    def everything(self) -> int:
        """Count, min, max and mean of every sensor."""
        sql = "SELECT sensor, count(*), min(value), max(value), avg(value) FROM samples GROUP BY sensor ORDER BY sensor"
        return len(self._db.execute(sql).fetchnumpy()["sensor"])
