"""Values with times of their own: the last one of a sensor and time counts, however frames are batched and flushed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.runtime.engine_core import EngineCore

PATHS = ("x/a", "x/b", "y/a", "y/b")
Sample = tuple[str, int]
Frame = tuple[int, int, dict[int, tuple[int, int]]]
"""A slot, a time, and by column a value's time and the value."""

values = st.dictionaries(st.integers(0, 1), st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=1)
frames = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8), values), max_size=30)
ENDS = st.sampled_from(["", "", "", "flushed", "refused", "begun"])
"""What follows a batch: a flush, one that the disk refuses, one that goes on meanwhile."""


def some_directory() -> SensorDirectory:
    """Two groups, one of which has got another layout."""
    directory = SensorDirectory(0)
    for path, names in (("x", "ab"), ("y", "ab"), ("x", "ba")):
        directory.define(path, Layout("f64", tuple(Column(name) for name in names)))
    return directory


def batch_of(some: list[Frame]) -> FrameBatch:
    held = [sorted(held.items()) for _, _, held in some]
    flat = [one for each in held for one in each]
    return FrameBatch.sparse(
        np.array([slot for slot, _, _ in some], np.uint32),
        np.array([ts_ns for _, ts_ns, _ in some], np.int64),
        np.array([value for _, (_, value) in flat], np.float64),
        np.cumsum([0, *map(len, held)]),
        np.array([column for column, _ in flat], np.uint16),
        value_ts_ns=np.array([ts_ns for _, (ts_ns, _) in flat], np.int64),
    )


def keep(batches: list[FrameBatch], directory: SensorDirectory, out: dict[Sample, float]) -> None:
    for batch in batches:
        assert batch.start is not None
        assert batch.column is not None
        slots = np.repeat(batch.slot, np.diff(batch.start)).tolist()
        quality = np.zeros(batch.n_values, np.uint8) if batch.quality is None else batch.quality
        rows = zip(
            slots, batch.column.tolist(), batch.value_times().tolist(), batch.values.tolist(), strict=True
        )
        for (slot, column, ts_ns, value), mark in zip(rows, quality.tolist(), strict=True):
            if mark < Quality.ABSENT:
                out[directory.sensor_path(slot, column), ts_ns] = value


class Flushes:
    """What an engine's flushes leave."""

    def __init__(self, core: EngineCore, directory: SensorDirectory) -> None:
        self._core, self._directory = core, directory
        self._begun: Any = None
        self.stored: dict[Sample, float] = {}

    def end(self, how: str) -> None:
        if self._begun is not None:
            self._finish(*self._begun, how)
            self._begun = None
        elif how:
            part = self._core.part(0)
            taken = part.buffer.take(part.seq)
            if how == "begun":
                self._begun = part, taken
            else:
                self._finish(part, taken, how)

    def _finish(self, part: Any, taken: Any, how: str) -> None:
        if how == "refused":
            part.buffer.put_back(taken)
            self._core.failed(part)
            return
        logs = [log.batch() for log in taken.logs]
        keep([*logs, *(one.log.batch() for one in taken.late)], self._directory, self.stored)
        part.buffer.release(taken)
        self._core.committed(part)


@settings(max_examples=200)
@given(frames, st.lists(st.tuples(st.integers(1, 12), ENDS), max_size=12))
def test_the_last_value_of_a_sensor_and_time_counts(
    some: list[Frame], batches: list[tuple[int, str]]
) -> None:
    directory, truth = some_directory(), {}
    core = EngineCore(directory, (), [0], lambda *_: {})
    flushes = Flushes(core, directory)
    seq, at = 0, 0
    for size, how in [*batches, (len(some), "")]:
        part = some[at : at + size]
        if part:
            core.process(seq, batch_of(part))
            seq, at = seq + 1, at + len(part)
        for slot, _, held in part:
            for column, (ts_ns, value) in sorted(held.items()):
                truth[directory.sensor_path(slot, column), ts_ns] = float(value)
        visible = dict(flushes.stored)
        keep(core.buffers()[0].frames(), directory, visible)
        assert visible == truth
        flushes.end(how)
