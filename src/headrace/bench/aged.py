"""A simulated line over days, written and compacted as a plant does it, on a virtual clock.

`AgedLine` sends what a `headrace.sim.fleet.Fleet` reports through the path of a plant. After each day, once its day is
over, the compactor runs, as it would in the background. What that costs, and what is left to do, is kept by day.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.bench.codec_peers import RAW_BYTES, encode_pcodec
from headrace.bench.query_stores import GROUP, START_NS, Progress, QueryStore, QueryStoreSpec
from headrace.core.clock import NS, VirtualClock, thread_cpu_ns
from headrace.core.errors import HeadraceError
from headrace.core.sensors import Selection
from headrace.core.tier_settings import TierSection
from headrace.runtime.pipe import Pipe
from headrace.runtime.warm import warm_kernels
from headrace.sim.batches import FleetSlots
from headrace.sim.fleet import Fleet
from headrace.store.compactor import Compactor
from headrace.store.result import QueryResult
from headrace.store.tiers import TierRules
from headrace.store.warm import CHUNK_SAMPLES

Array = npt.NDArray[Any]
DAY_NS, HOUR_NS, MINUTE_NS = 86_400 * NS, 3_600 * NS, 60 * NS
_MONTH_PERIOD_NS = 5 * NS
BOUND = 0.005
"""Of the cold tier, as a share of each sensor's range."""
RULES = TierRules(
    {
        "bench": TierSection.model_validate(
            {"match": "**", "after": {"warm": "1h", "cold": "30d"}, "bound": {"range": BOUND}}
        )
    }
)
_AGED_DAYS, _WAIT_S = 62, 60.0
_TICK_NS = 1_000_000
"""Devices and pollers tell milliseconds; the fleet's clocks jitter by nanoseconds, which would be most of what is stored."""
_SHIFT_NS = 2 * HOUR_NS
"""Of reporting on a day, so that chunks are as long as those of a plant, whose days have more than one can hold."""
_COMPACTED_NS, _FROM_NS = 2 * HOUR_NS, 6 * HOUR_NS
"""After midnight: when the day before is compacted, and when a shift begins, so that the clock, which says when to flush, never stands."""

_BYTES_SECONDS, _PEER_EACH = 64, 40
_WRITING = ("encode", "write")
"""Stages of a plant that make and write hot segments; the others take samples in, journal and process them."""


@dataclass
class DayCost:
    """One day: samples, bytes, CPU in ns of taking and writing them, of writing alone, and of compaction; segments left to compact."""

    samples: int
    hot_bytes: int
    hot_ns: int
    writing_ns: int
    compaction_ns: int
    segments_left: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; costs a sample."""
        n = max(1, self.samples)
        return {
            "samples": self.samples, "hot_cpu_ns_per_sample": round(self.hot_ns / n, 1),
            "hot_writing_cpu_ns_per_sample": round(self.writing_ns / n, 1), "compaction_cpu_ns_per_sample": round(self.compaction_ns / n, 1), "segments_left": self.segments_left,
        }  # fmt: skip


@dataclass
class AgedLine:
    """A line and its store.

    Parameters
    ----------
    folder : an empty one. sensors : of the fleet. period_ns : of devices that report periodically, where it is not
    their own. day_ns : how long of each day they report, from six o'clock on, or earlier where the day has no room. seed : of the fleet.
    """

    folder: Path
    sensors: int
    period_ns: int | None = None
    day_ns: int = DAY_NS
    seed: int = 1
    days: list[DayCost] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = VirtualClock(START_NS)
        self.pipe = Pipe(self.folder, [], self.clock)
        self.fleet = Fleet(self.sensors, seed=self.seed, period_ns=self.period_ns)
        self._slots = FleetSlots(self.fleet, self.pipe.directory)
        self.compactor = Compactor(self.pipe.store, self.clock, rules=RULES)

    def live(self, days: int, slice_ns: int, progress: Progress = lambda text: None) -> None:
        """Let so many days pass, each compacted when it is over.

        Parameters
        ----------
        slice_ns : what comes at once; the engine flushes as its settings say, but not more often.
        """
        for _ in range(days):
            self._day(START_NS + len(self.days) * DAY_NS, slice_ns)
            progress(f"  day {len(self.days)}: {self.samples:,} samples")

    def _day(self, start_ns: int, slice_ns: int) -> None:
        from_ns = start_ns + min(_FROM_NS, DAY_NS - self.day_ns)
        before_ns, taken, ticked_ns = self.pipe.stages_ns(), 0, from_ns
        for frames in self.fleet.frames(from_ns, from_ns + self.day_ns, slice_ns):
            batch = self._slots.batch(frames, int(frames.ts_ns.max()), "bench")
            batch = batch.with_(ts_ns=batch.ts_ns // _TICK_NS * _TICK_NS)
            self.clock.set_ns(max(self.clock.now_ns(), batch.arrival_ns))
            self.pipe.offer(batch)
            taken += batch.n_samples
            if batch.arrival_ns >= ticked_ns + slice_ns:
                ticked_ns = batch.arrival_ns // slice_ns * slice_ns
                self.pipe.tick()
                # In real time the store keeps up; so it has as many segments here.
                self.pipe.host.engine.wait_processed(self.pipe.host.delivered_seq, _WAIT_S)
                self.pipe.host.engine.committer.wait_idle(_WAIT_S)
        self.pipe.drain()
        cost_ns = {stage: ns - before_ns.get(stage, 0) for stage, ns in self.pipe.stages_ns().items()}
        writing_ns = sum(cost_ns[stage] for stage in _WRITING)
        hot_bytes = self.bytes_of("hot")
        self.clock.set_ns(start_ns + DAY_NS + _COMPACTED_NS)
        begun = thread_cpu_ns()
        report = self.compactor.run_once()
        if report.problems:
            raise HeadraceError("; ".join(report.problems))
        spent = thread_cpu_ns() - begun
        left = self._tier("hot").n_segments
        self.days.append(DayCost(taken, hot_bytes, sum(cost_ns.values()), writing_ns, spent, left))

    @property
    def samples(self) -> int:
        """Samples so far."""
        return sum(day.samples for day in self.days)

    def age(self) -> int:
        """Let a month and more pass, so that all is cold; the CPU time of ageing in ns."""
        self.clock.advance(_AGED_DAYS * 86_400.0)
        begun = thread_cpu_ns()
        report = self.compactor.run_once()
        if report.problems:
            raise HeadraceError("; ".join(report.problems))
        return thread_cpu_ns() - begun

    def bounds(self) -> dict[str, float]:
        """The bound of each sensor that is cold, by path; 0 where it is lossless."""
        store = self.pipe.store
        out: dict[str, float] = {}
        for info in store.refresh().segments["cold"]:
            table = store.reader.open(info).table(["path", "bound"])
            for path, bound in zip(table["path"].to_pylist(), table["bound"].to_pylist(), strict=True):
                out[path] = max(out.get(path, 0.0), bound)
        return out

    def day(self, number: int) -> tuple[QueryResult, QueryResult]:
        """All samples of one day, and its daily aggregates."""
        span = START_NS + number * DAY_NS, START_NS + (number + 1) * DAY_NS
        store = self.pipe.store
        return store.query("**", *span), store.query("**", *span, None, ("count", "mean", "min", "max"))

    def bytes_of(self, tier: str) -> int:
        """Bytes of a tier's files now."""
        return int(self._tier(tier).size_bytes)

    def _tier(self, name: str) -> Any:
        return next(one for one in self.pipe.store.status().tiers if one.name == name)

    def close(self) -> None:
        """End its threads."""
        self.pipe.close()


def month(folder: Path, sensors: int, days: int, hours: int, progress: Progress) -> dict[str, Any]:
    """Bytes of a line's days in each tier; of the hot one after the first day, which is flushed every minute."""
    line = AgedLine(folder, sensors, _MONTH_PERIOD_NS, hours * HOUR_NS)
    try:
        line.live(1, MINUTE_NS, progress)
        line.live(days - 1, HOUR_NS, progress)
        n, first = line.samples, line.days[0]
        hot, warm = round(first.hot_bytes / max(1, first.samples) * n), line.bytes_of("warm")
        before = line.day(0)
        progress("  ageing")
        spent = line.age()
        cold = line.bytes_of("cold")
        return {
            "sensors": line.fleet.n_sensors, "days": days, "samples": n, "raw_bytes": RAW_BYTES * n,
            "tiers": {"hot": _tier(n, hot), "warm": _tier(n, warm), "cold": _tier(n, cold)},
            "time_resolution_ns": _TICK_NS, "cold_bound_of_range": BOUND, "cold_of_raw": round(cold / (RAW_BYTES * n), 5),
            "ageing_cpu_ns_per_sample": round(spent / max(1, n), 1), **_loss(before, line.day(0), line.bounds()),
        }  # fmt: skip
    finally:
        line.close()


def _loss(
    before: tuple[QueryResult, QueryResult], after: tuple[QueryResult, QueryResult], bounds: dict[str, float]
) -> dict[str, Any]:
    """What ageing did to a day: the largest errors as shares of bounds and of that day's ranges, and how far averages moved."""
    (x, x_agg), (y, y_agg) = before, after
    if len(x) != len(y) or not np.array_equal(x.ts_ns, y.ts_ns):
        raise HeadraceError("ageing lost samples")
    error = np.abs(y.columns["value"] - x.columns["value"])
    start = np.flatnonzero(np.append(True, np.diff(x.sensor) != 0))
    largest = np.maximum.reduceat(np.nan_to_num(error), start)
    value = np.nan_to_num(x.columns["value"])
    span = np.maximum.reduceat(value, start) - np.minimum.reduceat(value, start)
    share = largest[span > 0] / span[span > 0]
    bound = np.array([bounds.get(path, 0.0) for path in x.paths[x.sensor[start]].tolist()])
    if largest[bound == 0.0].any():
        raise HeadraceError("ageing changed sensors that have no bound")
    moved = max(_moved(x_agg, y_agg, name) for name in ("mean", "min", "max"))
    over = largest[bound > 0] / bound[bound > 0]
    return {
        "worst_error_over_bound": round(float(over.max(initial=0.0)), 6),
        "largest_error_of_a_days_range": round(float(share.max(initial=0.0)), 5),
        "aggregates_moved_by_of_range": moved,
    }


def _moved(before: QueryResult, after: QueryResult, name: str) -> float:
    """The largest change of an aggregate of a sensor, as a share of its range that day."""
    span = before.columns["max"] - before.columns["min"]
    moves = span > 0
    change = np.abs(after.columns[name] - before.columns[name])[moves] / span[moves]
    return round(float(change.max(initial=0.0)), 6)


def _tier(samples: int, size_bytes: int) -> dict[str, float]:
    return {
        "bytes": size_bytes, "ratio": round(RAW_BYTES * samples / max(1, size_bytes), 2),
        "bytes_per_sample": round(size_bytes / max(1, samples), 3),
    }  # fmt: skip


def sustained(folder: Path, sensors: int, days: int, progress: Progress) -> dict[str, Any]:
    """What taking, writing and compacting cost day by day, the last two together on the last day, and how much a core compacts.

    Beside it what pcodec alone takes for the same samples, in the same process: how fast this machine is. Days come as fast as they are worked off, so segments pile up only where compaction leaves some behind: whether it keeps
    up with a plant follows from its rate, and from the cores it gets.
    """
    warm_kernels()  # as a plant's process starts: kernels ready, freed memory kept
    line = AgedLine(folder, sensors, day_ns=_SHIFT_NS)
    try:
        line.live(days, MINUTE_NS, progress)
        spent = sum(day.hot_ns + day.compaction_ns for day in line.days)
        compacted_ns, last = sum(day.compaction_ns for day in line.days), line.days[-1]
        progress("pcodec alone")
        ours, peer = (last.writing_ns + last.compaction_ns) / max(1, last.samples), _pcodec_ns(line)
        return {
            "sensors": line.fleet.n_sensors, "samples": line.samples,
            "cpu_ns_per_sample": round(spent / max(1, line.samples), 1),
            "hot_writing_and_compaction_cpu_ns_per_sample": round(ours, 1),
            "pcodec_cpu_ns_per_sample": round(peer, 1), "of_pcodec": round(ours / peer, 3),
            "compaction_samples_per_s_of_a_core": round(line.samples / max(1, compacted_ns) * NS),
            "segments_left": [day.segments_left for day in line.days],
            "days": [day.to_dict() for day in line.days],
        }  # fmt: skip
    finally:
        line.close()


def _pcodec_ns(line: AgedLine) -> float:
    """CPU in ns a sample of `encode_pcodec`, of some sensors' last day in blocks as long as warm chunks may be."""
    store, first_ns = line.pipe.store, START_NS + (len(line.days) - 1) * DAY_NS
    every = store.select("**")
    some = slice(0, None, _PEER_EACH)
    chosen = Selection(every.slot[some], every.column[some], every.sensor[some])
    found = store.query_sensors(chosen, first_ns, first_ns + DAY_NS)
    cuts = np.flatnonzero(np.diff(found.sensor)) + 1
    bounds = np.unique(np.concatenate([np.arange(0, len(found), CHUNK_SAMPLES), cuts, [len(found)]])).tolist()
    begun = thread_cpu_ns()
    for a, b in itertools.pairwise(bounds):
        encode_pcodec((found.ts_ns[a:b], found.columns["value"][a:b]))
    return (thread_cpu_ns() - begun) / max(1, len(found))


def bytes_by_size(folder: Path, sizes: Sequence[int], progress: Progress) -> list[dict[str, float]]:
    """Bytes that a sensor takes in stores of ever more sensors, all with as many samples: segments, and all else."""
    out = []
    for n in sizes:
        progress(f"  {n:,} sensors")
        store = QueryStore(folder / str(n), QueryStoreSpec(max(GROUP, n), _BYTES_SECONDS))
        store.fill(lambda text: None)
        store.settle()
        segments = sum(tier.size_bytes for tier in store.pipe.store.status().tiers)
        store.close()
        whole = sum(
            f.stat().st_size for f in (folder / str(n)).rglob("*") if f.is_file() and "journal" not in f.parts
        )
        out.append(
            {
                "sensors": n,
                "segment_bytes_per_sensor": round(segments / n, 2),
                "bytes_per_sensor": round(whole / n, 2),
            }
        )
    return out
