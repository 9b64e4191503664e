"""A process that makes its kernels ready, then compacts and ages a store: prints what it had to compile or load for that."""

from __future__ import annotations

import gc

import numpy as np
from numba.core.dispatcher import Dispatcher

from headrace.codecs.choice import CodecChoice
from headrace.core.clock import NS
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.sensors import SensorDirectory
from headrace.core.tier_settings import TierSection
from headrace.runtime.warm import LIVE_TYPES, warm_kernels, warm_queries
from headrace.sim.disk import SimulatedDisk
from headrace.store.compactor import CompactionPolicy
from headrace.store.rollups import Rollups
from headrace.store.tiers import TierRules
from headrace.testing.stores import StoreRig

HOUR, DAY = 3_600 * NS, 86_400 * NS
FIRST = 20_010 * DAY  # the first day of thirty that get cold together


def versions() -> dict[str, int]:
    """How many of each kernel are ready."""
    found = (one for one in gc.get_objects() if isinstance(one, Dispatcher))
    ours = (one for one in found if one.__module__.startswith("headrace."))
    return {f"{one.__module__}.{one.__name__}": len(one.signatures) for one in ours}


def rules(eps: float) -> TierRules:
    section = {
        "match": "**",
        "after": {"cold": "30d", "rollups": "9y"},
        "rollups": ["1s"],
        "bound": {"range": eps},
    }
    return TierRules({"all": TierSection.model_validate(section)})


def feed(rig: StoreRig) -> None:
    """Samples of every type that is live, waves and words, good and bad ones, an hour on each of two days."""
    random, n = np.random.default_rng(0), 240
    ts_ns = (FIRST + np.arange(2)[:, None] * DAY + np.arange(n // 2) * 30 * NS).reshape(-1)
    quality = np.zeros((n, 2), np.uint8)
    quality[::20] = 128
    define = rig.directory.define

    def take(batch: FrameBatch) -> None:
        rig.add(batch.with_(arrival_ns=int(ts_ns[-1])))

    for dtype in LIVE_TYPES:
        columns = Column("a", scale=0.5), Column("b")
        slot = define(f"leon/line1/{dtype}", Layout(dtype, columns))
        values = (100 + np.cumsum(random.integers(-2, 3, (n, 2)), axis=0)).clip(0).astype(numpy_dtype(dtype))
        take(FrameBatch.dense(np.full(n, slot, np.uint32), ts_ns, values, quality))
    motor = define("leon/line1/motor", Layout("i16", (Column("v", Kind.WAVEFORM),)))
    wave, rates = random.integers(-50, 50, 64).astype(np.int16), (np.array([12_000]), np.array([1]))
    take(FrameBatch.wave(np.array([motor], np.uint32), ts_ns[:1], wave, np.array([0, 64]), rates))
    plc = define("leon/line1/plc", Layout("u16", (Column("program", Kind.DISCRETE),)))
    words = np.full(2, plc, np.uint32), ts_ns[:2], np.array([1, 0], np.uint16), np.array([0, 1, 2])
    take(FrameBatch.sparse(*words, np.zeros(2, np.uint16), dictionary=("drill", "mill")))


def late(rig: StoreRig) -> None:
    """A sample that comes to a day that is compacted."""
    values = np.full((1, 2), 9.0)
    slot = rig.directory.slot("leon/line1/f64")
    rig.add(FrameBatch.dense(np.array([slot], np.uint32), np.array([FIRST + 7]), values))
    rig.flush()


def compact(rig: StoreRig, day: int, eps: float) -> None:
    rig.clock.set_ns(FIRST + day * DAY)
    rig.compactor.rules = rules(eps)
    problems = Rollups(rig.store, rig.clock, ("site", "line", "device", "signal")).run_once().problems
    assert problems + rig.compactor.run_once().problems == []


def ask(rig: StoreRig) -> None:
    for every_ns in (30 * NS, HOUR, DAY):
        asked = "**/{a,b}", FIRST, FIRST + 2 * DAY, every_ns, ("mean", "max", "count")
        assert rig.store.query(*asked).n_rows > 0
    assert rig.store.query("**", FIRST, FIRST + 2 * DAY).n_rows > 240 * 2 * len(LIVE_TYPES)


def main() -> None:
    """Two months, in which everything gets warm, cold and coarser."""
    warm_kernels()
    warm_queries()
    ready = versions()
    rig = StoreRig(SimulatedDisk(1), SensorDirectory(shard_bits=1), policy=CompactionPolicy(grace_s=1.0))
    feed(rig)
    rig.flush()
    ask(rig)
    compact(rig, 3, 0.01)
    late(rig)
    compact(rig, 5, 0.01)
    rig.compactor._choice_of = lambda path: CodecChoice(weight=0.2 if path.endswith("a") else 0.0)
    for day, eps in ((61, 0.01), (62, 0.05)):
        compact(rig, day, eps)
        ask(rig)
    (cold,) = rig.store.refresh().cold.values()
    rows = [row for info in cold.files for row in rig.store.reader.open(info).table().to_pylist()]
    assert any(row["bound"] for row in rows)
    print(*sorted(name for name, n in versions().items() if n > ready.get(name, 0)))


if __name__ == "__main__":
    main()
