"""Scale, range, clamp, dead band: what each does to values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import StepResult
from headrace.pipeline.operators.base import Context
from headrace.pipeline.operators.registry import operator_of
from headrace.pipeline.operators.scale import scaled

S = 1_000_000_000
BAD_RANGE, BAD, ABSENT = int(Quality.BAD_RANGE), int(Quality.BAD), int(Quality.ABSENT)


class Bench:
    """One group and a stage."""

    def __init__(self, step: dict[str, Any], *columns: Column, dtype: str = "f64") -> None:
        self.directory = SensorDirectory(0)
        self.layout = Layout(dtype, columns or (Column("x"),))
        self.slot = self.directory.define("m", self.layout)
        self.operator = operator_of(step, "steps[0]")
        self.stage: Any = self.operator.stage(Context("w", self.directory, 0, self.layout, []))
        self.n_thinned = 0

    def dense(self, at_s: int, *values: Any, quality: Any = None) -> tuple[list[Any], list[int]] | None:
        row = np.array([values], numpy_dtype(self.layout.dtype))
        marks = None if quality is None else np.array([quality], np.uint8)
        batch = FrameBatch.dense(np.array([self.slot], np.uint32), np.array([at_s * S]), row, marks)
        return self.feed(batch)

    def feed(self, batch: FrameBatch) -> tuple[list[Any], list[int]] | None:
        result = StepResult()
        out = self.stage.process(batch, result)
        self.n_thinned += result.n_thinned
        if out is None:
            return None
        quality = np.zeros(out.values.shape, np.uint8) if out.quality is None else out.quality
        return out.values.reshape(-1).tolist(), quality.reshape(-1).tolist()


# --- scale -------------------------------------------------------------------------------------------------


def test_scale_changes_the_grid_and_no_value() -> None:
    before = Layout("i16", (Column("t", unit="mV", scale=2.0, offset=10.0, low=0.0, high=100.0),))
    after = scaled(before, -0.5, 3.0, "V").columns[0]
    assert (after.scale, after.offset, after.unit) == (-1.0, -2.0, "V")
    assert (after.low, after.high) == (-47.0, 3.0)  # swapped, as the sign is
    assert scaled(before, add=1.0).columns[0].unit == "mV"
    assert Bench({"op": "scale", "factor": 2}).stage is None


def test_scales_are_multiplied_as_they_are_written() -> None:
    after = scaled(Layout("i16", (Column("t", scale=0.1, offset=-0.2, high=0.7),)), 3, 0.3).columns[0]
    assert (after.scale, after.offset, after.high) == (0.3, -0.3, 2.4)


# --- range and clamp ---------------------------------------------------------------------------------------


def test_range_marks_what_is_outside_and_leaves_the_value() -> None:
    bench = Bench({"op": "range", "min": 0, "max": 10}, Column("x"), Column("y"))
    assert bench.dense(0, -0.1, 0.0) == ([-0.1, 0.0], [BAD_RANGE, 0])
    assert bench.dense(1, 10.0, 10.1) == ([10.0, 10.1], [0, BAD_RANGE])
    assert bench.dense(2, 5.0, 5.0) == ([5.0, 5.0], [0, 0])


def test_range_does_not_touch_what_is_bad_already() -> None:
    bench = Bench({"op": "range", "max": 10}, Column("x"), Column("y"), Column("z"))
    marks = [BAD, ABSENT, int(Quality.UNCERTAIN)]
    assert bench.dense(0, 99.0, 99.0, 99.0, quality=marks) == ([99.0] * 3, [BAD, ABSENT, BAD_RANGE])


def test_limits_are_engineering_units_compared_in_the_raw_type() -> None:
    bench = Bench(
        {"op": "range", "min": -40, "max": 60.05}, Column("t", scale=0.1, offset=-50.0), dtype="u16"
    )
    assert bench.dense(0, 99) == ([99], [BAD_RANGE])
    assert bench.dense(1, 100) == ([100], [0])
    assert bench.dense(2, 1_100) == ([1_100], [0])
    assert bench.dense(3, 1_101) == ([1_101], [BAD_RANGE])


def test_clamp_moves_to_the_nearest_representable_value_inside() -> None:
    bench = Bench({"op": "clamp", "min": 0.25, "max": 9.75}, Column("x", scale=0.5), dtype="i8")
    assert bench.dense(0, -5) == ([1], [0])
    assert bench.dense(1, 50) == ([19], [0])
    assert bench.dense(2, 7) == ([7], [0])


@pytest.mark.parametrize(
    ("step", "scale", "moved"),
    [
        ({"min": 300}, 1.0, 255), ({"max": -1}, 1.0, 0), ({"min": 300, "max": 400}, 1.0, 255),
        ({"min": 1}, -1.0, 0), ({"max": -300}, -1.0, 255),
    ],
)  # fmt: skip
def test_clamp_to_limits_that_the_type_can_not_reach(step: dict[str, Any], scale: float, moved: int) -> None:
    bench = Bench({"op": "clamp", **step}, Column("x", scale=scale), dtype="u8")
    assert bench.dense(0, 7) == ([moved], [0])
    assert Bench({"op": "range", **step}, Column("x", scale=scale), dtype="u8").dense(0, 7) == (
        [7],
        [BAD_RANGE],
    )


def test_limits_of_single_values_are_those_of_their_columns() -> None:
    columns = Column("x", scale=1.0), Column("y", scale=0.1)
    bench = Bench({"op": "range", "max": 5}, *columns, dtype="i32")
    batch = FrameBatch.sparse(
        np.array([bench.slot], np.uint32), np.array([S]), np.array([6, 6], np.int32), np.array([0, 2]),
        np.array([0, 1], np.uint16),
    )  # fmt: skip
    assert bench.feed(batch) == ([6, 6], [BAD_RANGE, 0])


# --- dead band ---------------------------------------------------------------------------------------------


def test_a_value_goes_on_when_it_moved_by_more_than_change() -> None:
    bench = Bench({"op": "dead_band", "change": 0.5})
    assert bench.dense(0, 10.0) == ([10.0], [0])
    assert bench.dense(1, 10.5) is None
    assert bench.dense(2, 9.5) is None
    assert bench.dense(3, 10.6) == ([10.6], [0])
    assert bench.dense(4, 10.2) is None  # the band moved along
    assert bench.n_thinned == 3


def test_change_is_in_engineering_units() -> None:
    bench = Bench({"op": "dead_band", "change": 1.0}, Column("t", scale=-0.1), dtype="i16")
    assert bench.dense(0, 100) is not None
    assert bench.dense(1, 110) is None
    assert bench.dense(2, 111) is not None


def test_a_frame_keeps_the_columns_that_moved() -> None:
    bench = Bench({"op": "dead_band", "change": 1}, Column("x"), Column("y"))
    bench.dense(0, 1.0, 1.0)
    assert bench.dense(1, 1.0, 5.0) == ([1.0, 5.0], [ABSENT, 0])
    assert bench.dense(2, 1.0, 5.0) is None
    assert bench.dense(3, 1.0, 9.0, quality=[ABSENT, 0]) == ([1.0, 9.0], [ABSENT, 0])


def test_a_change_of_quality_class_goes_on() -> None:
    bench = Bench({"op": "dead_band", "change": 1})
    bench.dense(0, 1.0)
    assert bench.dense(1, 1.0, quality=[BAD]) == ([1.0], [BAD])
    assert bench.dense(2, 1.0, quality=[BAD_RANGE]) is None
    assert bench.dense(3, 1.0) == ([1.0], [0])


def test_a_heartbeat_repeats_what_did_not_move() -> None:
    bench = Bench({"op": "dead_band", "change": 1, "heartbeat": "10s"})
    passed = [at_s for at_s in range(25) if bench.dense(at_s, 1.0) is not None]
    assert passed == [0, 10, 20]


def test_single_values_are_changes_already() -> None:
    bench = Bench({"op": "dead_band", "change": 1})
    batch = FrameBatch.sparse(
        np.array([bench.slot], np.uint32), np.array([S]), np.ones(1), np.array([0, 1]), np.zeros(1, np.uint16)
    )
    assert bench.feed(batch) == bench.feed(batch) == ([1.0], [0])


def test_the_band_follows_a_sensor_into_a_new_layout() -> None:
    bench = Bench({"op": "dead_band", "change": 1}, Column("x"), Column("y"))
    bench.dense(0, 10.0, 20.0)
    wider = Layout("f64", (Column("y", scale=0.5), Column("new"), Column("x")))
    slot = bench.directory.define("m", wider)
    stage: Any = bench.operator.stage(Context("w", bench.directory, 0, wider, []))
    stage.inherit(bench.stage, (slot, bench.slot), np.array([1, -1, 0]), StepResult())
    batch = FrameBatch.dense(np.array([slot], np.uint32), np.array([S]), np.array([[41.0, 3.0, 10.5]]))
    out = stage.process(batch, StepResult())
    assert out.quality.tolist() == [[ABSENT, 0, ABSENT]]  # y went from 20 to 20.5, x from 10 to 10.5
    unknown = bench.directory.define("elsewhere", wider)
    stage.inherit(bench.stage, (slot, unknown), np.array([0, 1, 2]), StepResult())  # nothing to take over
