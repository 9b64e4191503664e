"""A round of polls in random order is put in the order of the shards' state; all else stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.core.frames import FrameBatch
from headrace.core.layouts import DTYPES, Column, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.ingest.ordering import in_place_order

LONE = (Column(""),)


def test_a_round_of_polls_is_put_in_the_order_of_the_shards_state():
    directory = SensorDirectory()
    layout = Layout("u16", (Column("a"), Column("b")))
    slots = directory.define_many([f"site/line/device{i}" for i in range(40)], layout)
    order = np.random.Generator(np.random.PCG64(3)).permutation(40)
    values = np.arange(80, dtype=np.uint16).reshape(40, 2)
    batch = FrameBatch.dense(slots[order], np.arange(40), values[order])
    done = in_place_order(batch, directory)
    assert (np.diff(directory.place[done.slot]) > 0).all()
    assert (done.values == values[done.slot]).all()
    assert in_place_order(done, directory) is done


@pytest.mark.parametrize("names", ["a", "ab"])
def test_frames_of_one_group_keep_their_order(names):
    directory = SensorDirectory()
    layout = Layout("u16", tuple(Column(name) for name in names))
    slots = directory.define_many([f"site/line/device{i}" for i in range(8)], layout)
    twice = FrameBatch.dense(slots[[7, 0, 7]], np.arange(3), np.zeros((3, len(names)), np.uint16))
    assert in_place_order(twice, directory) is twice


def test_a_small_batch_of_a_large_plant_is_left_as_it_is():
    directory = SensorDirectory()
    slots = directory.define_many([f"site/line/device{i}" for i in range(80)], Layout("u16", (Column("a"),)))
    few = FrameBatch.dense(slots[[70, 3]], np.arange(2), np.zeros((2, 1), np.uint16))
    assert in_place_order(few, directory) is few


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_quality", [False, True])
def test_lone_sensors_keep_their_values_bit_by_bit(dtype, has_quality):
    directory = SensorDirectory()
    slots = directory.define_many([f"site/line/device/s{i}" for i in range(300)], Layout(dtype, LONE))
    random = np.random.Generator(np.random.PCG64(5))
    order = random.permutation(300)[:200]
    bits = random.integers(0, 256, 200 * numpy_dtype(dtype).itemsize, np.uint8)
    values = bits.view(numpy_dtype(dtype)).reshape(-1, 1)
    quality = np.full((200, 1), Quality.UNCERTAIN, np.uint8) if has_quality else None
    batch = FrameBatch.dense(slots[order], 1_000 + np.arange(200), values, quality, origin="x")
    done = in_place_order(batch, directory)
    assert (np.diff(directory.place[done.slot]) > 0).all()
    at = done.ts_ns - 1_000
    assert (done.slot == batch.slot[at]).all()
    assert (done.values.tobytes(), done.dtype) == (values[at].tobytes(), dtype)
    assert (done.quality is None) == (not has_quality)
    assert done.origin == "x"
    assert not done.values.flags.writeable
