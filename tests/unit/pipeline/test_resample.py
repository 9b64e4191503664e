"""Resampling: what lies between samples, and over what nothing is made up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import StepResult
from headrace.pipeline.operators.base import Context
from headrace.pipeline.operators.resample import ResampleOperator

S = 1_000_000_000
A, B = int(Quality.ABSENT), int(Quality.BAD_DEVICE)


class Rig:
    """One device of one or two signals."""

    def __init__(self, dtype="f64", kinds=(Kind.ANALOG,), **keys):
        self.layout = Layout(dtype, tuple(Column(f"s{i}", kind) for i, kind in enumerate(kinds)))
        directory = SensorDirectory(0)
        self.slot = np.array([directory.define("m", self.layout)], np.uint32)
        self.stage = ResampleOperator(**keys).stage(Context("r", directory, 0, self.layout, []))
        self.out = []

    def dense(self, at_s, *values, quality=None):
        row = np.array([values], numpy_dtype(self.layout.dtype))
        marks = None if quality is None else np.array([quality], np.uint8)
        self._take(FrameBatch.dense(self.slot, np.array([round(at_s * S)]), row, marks))

    def sparse(self, at_s, column, values):
        kind = numpy_dtype(self.layout.dtype)
        start = np.array([0, len(column)])
        one = np.array([round(at_s * S)]), np.array(values, kind), start, np.array(column, np.uint16)
        self._take(FrameBatch.sparse(self.slot, *one))

    def _take(self, batch):
        given_on = self.stage.process(batch, StepResult())
        if given_on is not None:
            quality = np.zeros(given_on.values.shape) if given_on.quality is None else given_on.quality
            for ts_ns, row, marks in zip(given_on.ts_ns, given_on.values, quality, strict=True):
                self.out.append(
                    (ts_ns / S, *(v if q < A else None for v, q in zip(row.tolist(), marks, strict=True)))
                )


def test_a_line_between_samples_of_analog_signals():
    rig = Rig(every="1s")
    for at_s, value in ((0.5, 10.0), (2.5, 20.0), (4.0, 5.0)):
        rig.dense(at_s, value)
    assert rig.out == [(1.0, 12.5), (2.0, 17.5), (3.0, 15.0), (4.0, 5.0)]


def test_integers_stay_integers_of_the_sensors_own_step():
    rig = Rig("u16", every="1s")
    rig.dense(0, 10)
    rig.dense(4, 13)
    assert rig.out == [(0.0, 10), (1.0, 11), (2.0, 12), (3.0, 12), (4.0, 13)]


def test_states_and_counters_stay_until_the_next_value():
    rig = Rig("u8", (Kind.DISCRETE, Kind.COUNTER), every="1s")
    rig.dense(0, 0, 7)
    rig.dense(2.5, 1, 9)
    rig.dense(3, 1, 9)
    assert rig.out == [(0.0, 0, 7), (1.0, 0, 7), (2.0, 0, 7), (3.0, 1, 9)]


def test_groups_that_report_by_exception_keep_every_value():
    rig = Rig("f32", (Kind.ANALOG, Kind.ANALOG), every="1s")
    rig.sparse(0, [0], [1.0])
    rig.sparse(2, [1], [5.0])
    rig.sparse(3.5, [0], [2.0])
    assert rig.out == [(0.0, 1.0, None), (1.0, 1.0, None), (2.0, 1.0, 5.0), (3.0, 1.0, 5.0)]


def test_nothing_is_made_up_over_a_long_gap():
    rig = Rig(every="1s", max_gap="3s")
    for at_s, value in ((0, 0.0), (3, 3.0), (60.5, 9.0), (61, 10.0)):
        rig.dense(at_s, value)
    assert rig.out == [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (61.0, 10.0)]
    step = Rig(every="1s", max_gap="3s", method="step")
    for at_s, value in ((0, 0.0), (60, 9.0)):
        step.dense(at_s, value)
    assert step.out == [(0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (60.0, 9.0)]


def test_a_line_needs_two_good_ends():
    rig = Rig(every="1s")
    rig.dense(0, 0.0)
    rig.dense(2, 9.0, quality=[B])
    rig.dense(4, 4.0)
    rig.dense(5, 0.0, quality=[A])
    rig.dense(6, 6.0)
    # What is bad is handed on as it is at its own time; a hole is bridged by the samples around it.
    assert rig.out == [(0.0, 0.0), (2.0, 9.0), (4.0, 4.0), (6.0, 6.0)]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"every": "10us"}, "too fine"),
        ({"every": "1s", "max_gap": "2h"}, "shorten max_gap"),
        ({"every": "1s", "method": "cubic"}, "not one of auto, step, linear"),
        ({"every": "soon"}, "duration"),
    ],
)
def test_what_can_not_be_is_refused(keys, said):
    with pytest.raises(ConfigError, match=said):
        ResampleOperator(**keys)


@given(
    st.lists(st.tuples(st.integers(1, 4_000), st.integers(0, 200)), min_size=1, max_size=30), st.booleans()
)
def test_the_grid_is_what_numpy_interpolates(steps, is_step):
    rig = Rig(every="1s", max_gap="1h", method="step" if is_step else "linear")
    at_ms = np.cumsum([s for s, _ in steps])
    values = np.array([float(v) for _, v in steps])
    for at, value in zip(at_ms.tolist(), values.tolist(), strict=True):
        rig.dense(at / 1_000, value)
    grid = np.arange(-(-at_ms[0] // 1_000), at_ms[-1] // 1_000 + 1)
    if is_step:
        expected = values[np.searchsorted(at_ms, grid * 1_000, side="right") - 1]
    else:
        expected = np.interp(grid * 1_000, at_ms, values)
    assert [t for t, _ in rig.out] == grid.tolist()
    np.testing.assert_allclose([v for _, v in rig.out], expected, atol=1e-9)
