"""What is read of rows, apart from queries."""

from types import SimpleNamespace

import numpy as np

from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.sim.disk import SimulatedDisk
from headrace.store.decoding import Decoding
from headrace.store.segment import SegmentFile
from headrace.testing.stores import StoreRig

NOON = 20_000 * 86_400 * 10**9 + 43_200 * 10**9


def test_a_signalling_nan_is_read_without_a_warning():
    """Registers may hold any bits; as float64 the number is still none."""
    values = np.array([0x7FA00000, 0x3FC00000], np.uint32).view(np.float32)
    plain = SimpleNamespace(take=lambda element: SimpleNamespace(is_plain=True))
    reader = SimpleNamespace(wanted=SimpleNamespace(grid=plain))
    found = Decoding._converted(reader, values, np.array([2]), np.array([0]))
    assert np.isnan(found[0])
    assert found[1] == 1.5


def test_the_only_row_of_words_is_damaged(plant):
    """What can't be read is told; nothing of it is left to be put into words."""
    rig = StoreRig(SimulatedDisk(1), plant.directory)
    slot = plant.directory.define("line/states", Layout("u32", (Column("state"),)))
    codes, ts_ns = np.array([[0], [1], [0]], np.uint32), NOON + np.arange(3)
    words = ("idle", "busy")
    rig.add(FrameBatch.dense(np.full(3, slot, np.uint32), ts_ns, codes, dictionary=words, arrival_ns=NOON))
    rig.flush()
    (info,) = rig.store.refresh().commits.segments
    at = int(SegmentFile(rig.disk, info).headers(0).offset[0])
    data = bytearray(rig.disk.read(info.name))
    data[at + 8] ^= 0xFF
    rig.disk.replace(info.name, bytes(data))
    answer = rig.store.query("line/states/state", NOON, NOON + 10)
    assert len(answer) == 0
    assert "a row of 3 samples" in answer.missing[0]
