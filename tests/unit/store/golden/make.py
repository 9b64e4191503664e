"""Writes the golden store beside it: run once for each format version, never again for the same one."""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np

from headrace.core.disk import LocalDisk
from headrace.core.frames import FrameBatch
from headrace.core.quality import Quality
from headrace.store.query import Store
from headrace.testing.stores import StoreRig

HERE = Path(__file__).parent
SPEC = importlib.util.spec_from_file_location("plants", HERE.parent / "conftest.py")
plants = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(plants)
NS, DAY, NOON = plants.NS, plants.DAY, plants.NOON


def add(rig, plant, at_ns):
    """A few frames of every shape, type and quality."""
    quality = np.array([[0, 0], [Quality.UNCERTAIN, Quality.ABSENT], [Quality.BAD_DEVICE, 0]], np.uint8)
    rig.add(plant.frames(plant.oven, 0, [[600, 1], [610, 2], [620, 3]], at_ns, quality))
    rig.add(plant.frames(plant.lone, 0, [1.5, np.nan, -0.0], at_ns))
    rig.add(plant.frames(plant.meter, 0, [2**53 + 1, 2**53 + 3], at_ns))
    rig.add(plant.frames(plant.state, 0, [[0, 7], [1, 8]], at_ns))
    slot, start, column = np.array([plant.word], np.uint32), np.array([0, 2]), np.zeros(2, np.uint16)
    rig.add(FrameBatch.sparse(
        slot, np.array([at_ns]), np.array([1, 0], np.uint16), start, column,
        value_ts_ns=np.array([at_ns, at_ns + NS]), dictionary=("drill", "mill"),
    ))  # fmt: skip
    slot, rate = np.array([plant.motor], np.uint32), (np.array([2]), np.array([1]))
    rig.add(FrameBatch.wave(slot, np.array([at_ns]), np.array([3, -4, 5], np.int16), np.array([0, 3]), rate))


def main(folder):
    """One day in the warm tier, one in the hot, and a revision."""
    shutil.rmtree(folder, ignore_errors=True)
    plant = plants.Plant()
    rig = StoreRig(LocalDisk(folder), plant.directory)
    add(rig, plant, NOON)
    rig.flush()
    rig.compact()
    add(rig, plant, NOON + DAY)
    rig.add(plant.frames(plant.lone, 0, [9.5], NOON + DAY))
    rig.flush()
    answer = Store.open(folder, None, rig.clock).query("**", NOON, NOON + 2 * DAY)
    folder.with_suffix(".csv").write_bytes(answer.to_csv(labels=True))


if __name__ == "__main__":
    main(HERE / sys.argv[1])
