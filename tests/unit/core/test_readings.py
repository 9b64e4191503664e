"""Frames as single readings: every shape, bounded."""

import numpy as np

from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality
from headrace.core.readings import Reading, readings
from headrace.core.sensors import SensorDirectory

I64, U32 = np.int64, np.uint32


def test_dense_frames_in_engineering_units_without_what_is_absent():
    directory = SensorDirectory()
    slots = directory.define_many(
        ["a/o1", "a/o2"], Layout("u16", (Column("t", scale=0.1, offset=-40), Column("n")))
    )
    quality = np.array([[0, Quality.ABSENT], [Quality.BAD_DEVICE, 0]], np.uint8)
    batch = FrameBatch.dense(slots, np.array([5, 6], I64), np.array([[1000, 1], [0, 3]], np.uint16), quality)
    assert readings(batch, directory) == [
        Reading("a/o1/t", 5, 60.0, 0),
        Reading("a/o2/t", 6, -40.0, Quality.BAD_DEVICE),
        Reading("a/o2/n", 6, 3, 0),
    ]


def test_sparse_texts_and_waves():
    directory = SensorDirectory()
    words = directory.define("a/o1", Layout("u32", (Column("state"), Column("mode"))), "u32")
    sparse = FrameBatch.sparse(
        np.array([words], U32), np.array([7], I64), np.array([1, 9], U32), np.array([0, 2], I64),
        np.array([1, 0], np.uint16), dictionary=("off", "on"),
    )  # fmt: skip
    assert readings(sparse, directory) == [
        Reading("a/o1/mode", 7, "on", 0),
        Reading("a/o1/state", 7, None, 0),
    ]
    lone = directory.define("a/w", Layout("f64", (Column(""),)))
    one = np.array([1], I64)
    wave = FrameBatch.wave(
        np.array([lone], U32), np.array([0], I64), np.array([0.5, np.nan]), np.array([0, 2], I64), (one, one)
    )
    assert readings(wave, directory) == [Reading("a/w", 0, 0.5, 0), Reading("a/w", 1_000_000_000, None, 0)]


def test_no_more_than_asked_for_is_looked_at():
    directory = SensorDirectory()
    slots = directory.define_many([f"a/o{i}" for i in range(100)], Layout("i64", (Column("x"), Column("y"))))
    batch = FrameBatch.dense(slots, np.zeros(100, I64), np.arange(200).reshape(100, 2))
    assert [r.value for r in readings(batch, directory, 7)] == [0, 1, 2, 3, 4, 5]
    assert [r.value for r in readings(batch, directory, 1)] == [0]
    assert readings(batch.slice(0, 0), directory) == []
