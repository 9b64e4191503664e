"""Compaction in the background: what goes wrong is told once, and tried again."""

from pathlib import Path

import numpy as np
import pytest

from headrace.core.config import parse_plant
from headrace.core.disk import LocalDisk
from headrace.core.errors import StorageError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.runtime.compaction import BackgroundCompaction, compact_now
from headrace.store.compactor import CompactionReport
from headrace.store.query import Store
from headrace.store.segment import SegmentFile
from headrace.testing.stores import StoreRig


class Scripted:
    """A compactor whose runs are given."""

    def __init__(self, *outcomes):
        self._outcomes = list(outcomes)

    def run_once(self):
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def test_a_problem_is_told_once_until_it_is_gone():
    told = []
    bad, good = CompactionReport(problems=["day 3 is damaged"]), CompactionReport(n_partitions=1)
    compaction = BackgroundCompaction(Scripted(bad, bad, good, bad), told.append)
    for _ in range(4):
        compaction.run_once()
    assert told == ["day 3 is damaged"] * 2
    assert compaction.last is bad


def test_a_disk_that_refuses_and_a_defect_do_not_end_it():
    told = []
    compaction = BackgroundCompaction(
        Scripted(StorageError("can't write x: the disk is full"), ValueError("odd"), CompactionReport()),
        told.append,
    )
    for _ in range(3):
        compaction.run_once()
    assert told == [
        "compaction: can't write x: the disk is full",
        "compaction stopped by a defect (ValueError: odd); it is tried again",
    ]
    assert compaction.last == CompactionReport()


def test_the_thread_runs_until_it_is_stopped():
    compaction = BackgroundCompaction(Scripted(CompactionReport()), print, period_s=3600.0)
    compaction.start()
    compaction.stop()
    compaction._thread.join(10)
    assert not compaction._thread.is_alive()
    assert compaction.last is None


def test_rollups_run_first_and_their_problems_are_told_too():
    from headrace.store.rollups import RollupReport

    told, order = [], []

    class Noted(Scripted):
        def __init__(self, name, *outcomes):
            super().__init__(*outcomes)
            self.name = name

        def run_once(self):
            order.append(self.name)
            return super().run_once()

    rollups = Noted(
        "rollups", RollupReport(problems=["an hour is damaged"]), StorageError("the disk is full")
    )
    compactor = Noted("compactor", CompactionReport(), CompactionReport())
    compaction = BackgroundCompaction(compactor, told.append, rollups=rollups)
    compaction.run_once()
    compaction.run_once()
    # Compaction deletes what it has replaced: rollups must have seen it.
    assert order == ["rollups", "compactor"] * 2
    assert told == ["an hour is damaged", "rollups: the disk is full"]


def compacted(folder, **plant):
    """A store of one noisy sensor, compacted as a plant says; opened."""
    rig = StoreRig(LocalDisk(folder), SensorDirectory(shard_bits=1))
    slot = rig.directory.define("a/b", Layout("f64", (Column("x"),)))
    ts_ns = 20_000 * 86_400 * 10**9 + np.arange(200) * 10**9
    values = np.random.default_rng(0).normal(size=(200, 1))
    rig.add(FrameBatch.dense(np.full(200, slot, np.uint32), ts_ns, values))
    rig.flush()
    done = compact_now(folder, parse_plant({"version": 1, **plant}, Path()), rig.clock)
    assert (done["compacted"], done["problems"]) == (1, [])
    return Store.open(folder, None, rig.clock)


@pytest.mark.parametrize(("resolutions", "n"), [(["1d"], 1), ([], 0)])
def test_it_keeps_the_windows_that_the_plant_says(tmp_path, resolutions, n):
    store = compacted(tmp_path, store={"resolutions": resolutions, "rollups": "off"})
    assert len(store.refresh().rolled) == n


def test_it_uses_the_codecs_that_the_plant_says(tmp_path):
    store = compacted(tmp_path, codecs={"all": {"match": "**", "use": "gorilla"}})
    (manifest,) = store.refresh().manifests.values()
    table = SegmentFile(store.disk, manifest.files[0]).table(["value_codec"])
    assert {one.partition(" ")[0] for one in table["value_codec"].to_pylist()} == {"gorilla"}
