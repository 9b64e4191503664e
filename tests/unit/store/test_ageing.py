"""Ageing: what becomes of samples over a year, on a clock that a test moves."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.sensors import SensorDirectory
from headrace.core.tier_settings import TierSection
from headrace.sim.disk import SimulatedDisk
from headrace.sim.faults import CountedFaults, Crashed
from headrace.store.manifests import COLD_FOLDER, HOT_FOLDER, WARM_FOLDER, list_manifests
from headrace.store.rollups import FOLDER, Rollups
from headrace.store.segment import SegmentFile
from headrace.store.tiers import TierRules
from headrace.testing.stores import StoreRig

NS = 1_000_000_000
MINUTE, HOUR, DAY = 60 * NS, 3_600 * NS, 86_400 * NS
FIRST = 20_010  # the first day of a bucket of 30
RANGE = 40.0


class Line:
    """A furnace and a press that run from eight to nine each day; a sample of each a minute."""

    def __init__(self):
        self.directory = SensorDirectory(shard_bits=1)
        floats = (Column("temp", unit="degC"), Column("power"), Column("energy", Kind.COUNTER))
        self.furnace = self.directory.define("leon/line1/furnace", Layout("f64", floats))
        states = (Column("state", Kind.DISCRETE), Column("starts", Kind.COUNTER))
        self.press = self.directory.define("leon/line1/press", Layout("u16", states))

    def rules(self, **sections):
        return TierRules({name: TierSection.model_validate(one) for name, one in sections.items()})

    def times(self, day, n_days=1):
        days = np.arange(day, day + n_days) * DAY + 8 * HOUR
        return (days[:, None] + np.arange(60) * MINUTE).reshape(-1)

    def values(self, ts_ns):
        h = ts_ns / HOUR
        noise = np.sin(h * 12.9898) * 43758.5453
        noise -= np.floor(noise)
        temp = 180.0 + 15 * np.sin(h / 24) + noise
        return np.stack([temp, 30.0 + 5 * noise, np.floor(h * 7)], axis=1)

    def feed(self, rig, day, n_days=1):
        ts_ns = self.times(day, n_days)
        n = len(ts_ns)
        rig.add(
            FrameBatch.dense(np.full(n, self.furnace, np.uint32), ts_ns, self.values(ts_ns), None, arrival_ns=int(ts_ns[0]))
        )
        codes = np.stack([ts_ns // DAY % 3, ts_ns // HOUR % 60_000], axis=1).astype(np.uint16)
        rig.add(
            FrameBatch.dense(np.full(n, self.press, np.uint32), ts_ns, codes, None, arrival_ns=int(ts_ns[0]))
        )
        rig.flush()


@pytest.fixture
def line():
    return Line()


DEFAULT = {
    "match": "**",
    "after": {"cold": "30d", "rollups": "180d", "delete": "270d"},
    "bound": {"range": 0.005},
}


def start(line, disk=None, **sections):
    rig = StoreRig(disk or SimulatedDisk(1), line.directory, rules=line.rules(**(sections or {"default": DEFAULT})))
    rig.policy = rig.compactor._policy
    return rig


def pass_days(rig, line, day, n_days):
    """Days go by: samples come, and the background does its work now and then."""
    for one in range(day, day + n_days, 10):
        line.feed(rig, one, 10)
        rig.clock.set_ns((one + 10) * DAY + 2 * HOUR)
        assert work(rig) == []


def work(rig):
    rollups = Rollups(rig.store, rig.clock, ("site", "line", "device", "signal"))
    problems = rollups.run_once().problems
    return problems + rig.compactor.run_once().problems


def ask(rig, pattern, day, n_days=1, *args):
    return rig.store.query(pattern, day * DAY, (day + n_days) * DAY, *args, tail=rig.tail)


def headers(rig, path=None):
    out = []
    for cold in rig.store.refresh().cold.values():
        for info in cold.files:
            file = SegmentFile(rig.disk, info)
            out += file.table([n for n in file.names if n != "payload"]).to_pylist()
    return [row for row in out if path is None or row["path"].endswith(path)]


def test_a_year_of_ageing(line):
    rig = start(line)
    for quarter in range(4):
        pass_days(rig, line, FIRST + 90 * quarter, 90)
        if quarter == 1:
            rig.disk = rig.disk.crash()  # the power fails in the middle of the year
            rig.store.reader.forget({info.name for infos in rig.store.view.segments.values() for info in infos})
            rig.start()
    last = FIRST + 359
    view = rig.store.refresh()
    assert {t.name for t in view.tiers if t.n_samples} == {"hot", "warm", "cold"} or view.tiers[0].n_samples == 0
    for day in range(FIRST, last, 7):
        age = (last - day) // 30 * 30
        found = ask(rig, "**/temp", day).columns
        exact = line.values(line.times(day))[:, 0]
        if found is None or not len(found["value"]):
            assert age >= 180
            continue
        assert len(found["value"]) == len(exact)
        error = np.abs(found["value"] - exact).max()
        assert error <= 0.005 * RANGE
        states = ask(rig, "**/{state,starts,energy}", day).columns["value"]
        assert len(states) == 3 * len(exact)
    assert ask(rig, "**/temp", FIRST + 100, 20).n_rows == 0
