"""A small plant, and a rig around a simulated disk."""

import numpy as np
import pytest

from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.sensors import SensorDirectory
from headrace.sim.disk import SimulatedDisk
from headrace.testing.stores import StoreRig

NS = 1_000_000_000
DAY = 86_400 * NS
NOON = 20_000 * DAY + DAY // 2


class Plant:
    """Groups by name, and batches of them."""

    def __init__(self):
        self.directory = SensorDirectory(shard_bits=1)
        grid = (Column("temp", unit="degC", scale=0.1, offset=-40.0), Column("level", scale=2.0))
        self.oven = self.directory.define("leon/line1/oven", Layout("u16", grid))
        self.lone = self.directory.define("leon/line1/pressure", Layout("f64", (Column("", unit="bar"),)))
        self.meter = self.directory.define(
            "leon/line2/meter", Layout("i64", (Column("count", Kind.COUNTER),))
        )
        labels = ("stopped", "running")
        self.state = self.directory.define(
            "leon/line2/press", Layout("u8", (Column("state", Kind.DISCRETE, labels=labels), Column("mode")))
        )
        self.word = self.directory.define(
            "leon/line2/plc", Layout("u16", (Column("program", Kind.DISCRETE),))
        )
        self.motor = self.directory.define("leon/line2/motor", Layout("i16", (Column("v", Kind.WAVEFORM),)))

    def frames(self, slot, first, values, start_ns=NOON, quality=None):
        """Dense frames of one group, one each second from `first` on."""
        values = np.asarray(values, np.dtype(self.dtype(slot)))
        values = values.reshape(len(values), -1)
        ts_ns = start_ns + (first + np.arange(len(values))) * NS
        return FrameBatch.dense(
            np.full(len(values), slot, np.uint32), ts_ns, values, quality, arrival_ns=int(ts_ns[0])
        )

    def dtype(self, slot):
        name = self.directory.layout(slot).dtype
        return f"{name[0]}{int(name[1:]) // 8}"


@pytest.fixture
def plant():
    return Plant()


@pytest.fixture
def rig(plant):
    return StoreRig(SimulatedDisk(1), plant.directory)
