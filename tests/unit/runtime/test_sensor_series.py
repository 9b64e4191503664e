"""One sensor's raw samples out of a store whose groups got new layouts."""

from __future__ import annotations

from datetime import UTC
from types import SimpleNamespace

import numpy as np
import pytest

from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.runtime.sensor_series import read_sensor
from headrace.sim.disk import SimulatedDisk
from headrace.testing.stores import StoreRig

NS = 1_000_000_000
NOON = (20_000 * 86_400 + 43_200) * NS
TEMP = Column("temp", scale=0.1)
STEPS = ("unflushed", "flushed", "compacted")


class Plant:
    """One group, `p/oven`, whose layouts follow one another."""

    def __init__(self):
        self.directory = SensorDirectory(shard_bits=1)
        self.rig = StoreRig(SimulatedDisk(1), self.directory)

    def add(self, layout, second, row, **keys):
        slot = self.directory.define("p/oven", layout)
        values = np.array([row], keys.pop("dtype"))
        self.rig.add(
            FrameBatch.dense(np.array([slot], np.uint32), np.array([NOON + second * NS]), values, **keys)
        )

    def read(self, last="1h"):
        tail = SimpleNamespace(now_ns=NOON + 60 * NS, frames=self.rig.tail)
        return read_sensor(
            SimpleNamespace(store=self.rig.store, zone=UTC, journal_tail=lambda: tail), "**/temp", last
        )

    def reach(self, step):
        if step != "unflushed":
            self.rig.flush()
        if step == "compacted":
            self.rig.compact()


@pytest.mark.parametrize("step", STEPS)
def test_layouts_of_one_type_and_grid_are_one_series_and_others_are_counted(step):
    plant = Plant()
    plant.add(Layout("f32", (TEMP,)), 0, [9.5], dtype=np.float32)
    plant.add(Layout("u16", (TEMP,)), 1, [100], dtype=np.uint16)
    plant.add(Layout("u16", (Column("temp", scale=0.5, offset=-40.0),)), 2, [7], dtype=np.uint16)
    # A sample that comes later than newer ones, so that the layouts are not in order of time.
    plant.add(Layout("u16", (Column("flow"), TEMP)), 4, [1, 103], dtype=np.uint16)
    plant.add(Layout("u16", (Column("flow"), TEMP, Column("n"))), 3, [1, 102, 5], dtype=np.uint16)
    plant.reach(step)
    found = plant.read()
    assert found.path == "p/oven/temp"
    assert found.values.dtype == np.uint16
    assert found.values.tolist() == [100, 102, 103]
    assert ((found.ts_ns - NOON) // NS).tolist() == [1, 3, 4]
    assert found.left_out == {"f32 x 0.1": 1, "u16 x 0.5 - 40.0": 1}


@pytest.mark.parametrize("step", STEPS)
def test_a_newest_layout_without_samples_hides_nothing(step):
    plant = Plant()
    plant.add(Layout("u16", (TEMP,)), 1, [100], dtype=np.uint16)
    plant.reach(step)
    plant.directory.define("p/oven", Layout("f32", (Column("flow"), TEMP)))
    found = plant.read()
    assert (found.values.tolist(), found.values.dtype, found.left_out) == ([100], np.uint16, {})


def test_a_sample_sent_under_two_layouts_is_there_once():
    plant = Plant()
    plant.add(Layout("u16", (TEMP,)), 1, [100], dtype=np.uint16)
    plant.rig.flush()
    plant.add(Layout("u16", (Column("flow"), TEMP)), 1, [0, 200], dtype=np.uint16)
    assert plant.read().values.tolist() == [200]


def test_words_of_all_layouts_are_one_series():
    plant = Plant()
    plant.add(Layout("u8", (Column("temp"),)), 1, [0], dtype=np.uint8, dictionary=("hot",))
    two = Layout("u16", (Column("temp"), Column("more")))
    plant.add(two, 2, [1, 0], dtype=np.uint16, dictionary=("cold", "hot"))
    plant.add(two, 3, [0, 0], dtype=np.uint16, dictionary=("cold", "hot"))
    plant.rig.flush()
    found = plant.read()
    assert found.left_out == {}
    assert len(found.values) == 3
    assert found.values[0] == found.values[1] != found.values[2]
