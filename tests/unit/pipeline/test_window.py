"""Tumbling windows: when they close, what late data do, what a change of layout does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.core.clock import NO_TIME
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import Revise, StepResult
from headrace.pipeline.flows import Flow, FlowShard, FlowSpec
from headrace.testing.engines import PlainEngine

S = 1_000_000_000
MINUTE = 60 * S
T0 = 1_700_000_040 * S
ALL = ("count", "sum", "min", "max", "first", "last", "mean", "var")
BAD, ABSENT = int(Quality.BAD_DEVICE), int(Quality.ABSENT)


def flow_of(*agg: str, idle: str = "5s") -> FlowSpec:
    step = {"op": "window", "every": "1m", "agg": agg or ALL, "idle": idle}
    return FlowSpec("w", "**", (step,), "{parent}/{signal}_{agg}")


def layout(*names: str, dtype: str = "f64", scale: float = 1.0) -> Layout:
    return Layout(dtype, tuple(Column(n, scale=scale) for n in names))


class Rig:
    """One group in one shard."""

    def __init__(self, *names: str, dtype: str = "f64", agg: tuple[str, ...] = ALL) -> None:
        self.directory = SensorDirectory(0)
        self.slot = self.directory.define("m", layout(*names, dtype=dtype))
        self.engine = PlainEngine(self.directory, [flow_of(*agg)])
        self.dtype = np.dtype(dtype[0] + str(int(dtype[1:]) // 8))

    def dense(self, at_s: float, *values: Any, quality: Any = None, slot: int | None = None) -> None:
        row = np.array([values], self.dtype)
        marks = None if quality is None else np.array([quality], np.uint8)
        slots = np.array([self.slot if slot is None else slot], np.uint32)
        self.engine.feed(FrameBatch.dense(slots, np.array([T0 + round(at_s * S)]), row, marks))

    def sparse(self, at_s: float, column: list[int], values: list[Any], times_s: Any = None) -> None:
        more = {} if times_s is None else {"value_ts_ns": T0 + (np.array(times_s) * S).astype(np.int64)}
        start, places = np.array([0, len(column)]), np.array(column, np.uint16)
        slots, at = np.array([self.slot], np.uint32), np.array([T0 + round(at_s * S)])
        self.engine.feed(FrameBatch.sparse(slots, at, np.array(values, self.dtype), start, places, **more))

    def ticks(self, at_s: float, n: int = 8) -> None:
        for k in range(n):
            self.engine.tick(T0 + round(at_s * S) + k * S)

    def of(self, name: str) -> dict[int, Any]:
        """Derived values of a series that are usable, by window number."""
        series = self.engine.derived.get(f"m/{name}", {})
        return {(t - T0) // MINUTE: k.value for t, k in series.items() if k.is_usable}


def test_a_frame_on_the_boundary_belongs_to_the_window_that_begins() -> None:
    rig = Rig("x")
    for at_s in (0, 59.999999999, 60, 119.999999999, 120):
        rig.dense(at_s, at_s)
    assert rig.of("x_count") == {0: 2, 1: 2}
    assert rig.of("x_first") == {0: 0.0, 1: 60.0}
    assert rig.of("x_last") == {0: 59.999999999, 1: 119.999999999}


def test_windows_without_frames_are_not_told_of() -> None:
    rig = Rig("x", agg=("count",))
    for at_s in (0, 600):
        rig.dense(at_s, 1.0)
    assert rig.of("x") == {}
    assert rig.engine.derived["m/x_count"].keys() == {T0}


@pytest.mark.parametrize("start_ns", [-10 * MINUTE, -MINUTE - 1, -1, 0, 2**62 // MINUTE * MINUTE])
def test_times_before_1970_and_far_ahead_fall_into_windows_too(start_ns: int) -> None:
    rig = Rig("x", agg=("sum",))
    for step in (0, 1, 2 * MINUTE):
        at = np.array([start_ns + step])
        rig.engine.feed(FrameBatch.dense(np.array([rig.slot], np.uint32), at, np.array([[1.0]])))
    windows = {start_ns // MINUTE * MINUTE, (start_ns + 1) // MINUTE * MINUTE}
    assert rig.engine.derived["m/x_sum"].keys() == windows
    assert sum(k.value for k in rig.engine.derived["m/x_sum"].values()) == 2.0


def test_frames_without_a_time_open_no_window() -> None:
    rig = Rig("x")
    rig.engine.feed(FrameBatch.dense(np.array([rig.slot], np.uint32), np.array([NO_TIME]), np.array([[1.0]])))
    rig.ticks(0)
    assert rig.engine.derived == {}
    assert rig.engine.n_revisions == 0
    assert len(rig.engine.samples["m/x"]) == 1  # kept all the same


def test_a_backlog_of_many_windows_in_one_batch() -> None:
    rig = Rig("x", "y", dtype="u16", agg=("count", "sum"))
    n = 1_000
    times = T0 + np.arange(n) * 7 * S
    values = np.stack([np.arange(n) % 500, np.full(n, 3)], axis=1).astype(np.uint16)
    rig.engine.feed(FrameBatch.dense(np.full(n, rig.slot, np.uint32), times, values))
    window = (times - T0) // MINUTE
    expected = {int(w): float(values[window == w, 0].sum()) for w in range(int(window[-1]))}
    assert rig.of("x_sum") == expected
    assert rig.of("y_count") == {w: int((window == w).sum()) for w in expected}


def test_sensors_without_a_usable_value_have_the_count_0_only() -> None:
    rig = Rig("x", "y")
    rig.dense(1, 5.0, 7.0, quality=[0, BAD])
    rig.dense(2, 6.0, 7.0, quality=[Quality.UNCERTAIN, ABSENT])
    rig.dense(61, 0.0, 0.0)
    assert rig.of("x_count") == {0: 2}
    assert rig.of("y_count") == {0: 0}
    assert rig.of("x_mean") == {0: 5.5}
    assert rig.of("y_mean") == {}


def test_the_first_usable_value_may_come_late_in_the_window() -> None:
    rig = Rig("x", "y")
    rig.dense(1, 900.0, 1.0, quality=[BAD, 0])
    rig.dense(2, -900.0, 1.0, quality=[BAD, 0])
    rig.dense(3, 4.0, 1.0)
    rig.dense(4, 2.0, 1.0)
    rig.dense(60, 0.0, 0.0)
    assert [rig.of(f"x_{a}")[0] for a in ALL] == [2, 6.0, 2.0, 4.0, 4.0, 2.0, 3.0, 1.0]


def test_variance_of_large_values_close_together() -> None:
    rig = Rig("x", agg=("var",))
    for second, value in enumerate((1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16)):
        rig.dense(second, value)
    rig.dense(60, 0.0)
    assert rig.of("x_var") == {0: 22.5}


# --- silence -----------------------------------------------------------------------------------------------


def test_a_silent_groups_window_is_told_of_after_its_idle_time() -> None:
    rig = Rig("x", agg=("count",))
    rig.dense(3, 1.0)
    rig.ticks(50, n=15)
    assert rig.of("x_count") == {}
    rig.ticks(65)
    assert rig.of("x_count") == {0: 1}


def test_what_comes_in_time_after_that_is_a_new_version() -> None:
    rig = Rig("x", agg=("count", "last"))
    rig.dense(3, 1.0)
    rig.ticks(65)
    rig.dense(50, 2.0)
    assert rig.of("x_count") == {0: 1}
    rig.ticks(75)
    assert rig.of("x_count") == {0: 2}
    rig.dense(55, 3.0)
    rig.dense(60, 4.0)
    assert rig.of("x_count") == {0: 3}
    assert rig.of("x_last") == {0: 3.0}
    assert rig.engine.disorder == []


# --- late data ---------------------------------------------------------------------------------------------


def test_late_data_in_an_open_window_are_in_it_when_it_closes() -> None:
    rig = Rig("x")
    for at_s, value in ((10, 1.0), (30, 3.0), (20, 2.0), (60, 0.0)):
        rig.dense(at_s, value)
    assert [rig.of(f"x_{a}")[0] for a in ("count", "first", "last", "sum")] == [3, 1.0, 3.0, 6.0]


def test_late_data_in_a_closed_window_revise_it() -> None:
    rig = Rig("x")
    for at_s, value in ((10, 1.0), (70, 3.0), (5, 7.0), (130, 0.0)):
        rig.dense(at_s, value)
    assert rig.of("x_first") == {0: 7.0, 1: 3.0}
    assert rig.of("x_count") == {0: 2, 1: 1}


def test_a_correction_counts_and_a_duplicate_does_not() -> None:
    rig = Rig("x")
    for at_s, value in ((10, 1.0), (20, 2.0), (10, 5.0), (20, 2.0), (60, 0.0)):
        rig.dense(at_s, value)
    assert rig.of("x_sum") == {0: 7.0}
    assert rig.engine.n_duplicates == 1
    n = rig.engine.n_revisions
    rig.dense(20, 2.0)
    assert rig.engine.n_revisions == n


def test_a_correction_to_bad_takes_results_back() -> None:
    rig = Rig("x")
    rig.dense(10, 1.0)
    rig.dense(70, 1.0)
    rig.dense(10, 1.0, quality=[BAD])
    assert rig.of("x_count") == {0: 0}
    assert rig.of("x_mean") == {}


def test_late_data_in_a_window_nobody_was_in() -> None:
    rig = Rig("x", agg=("count",))
    for at_s in (10, 250, 130, 135, 300):
        rig.dense(at_s, 1.0)
    assert rig.of("x_count") == {0: 1, 2: 2, 4: 1}


def test_late_data_after_a_silent_groups_window_was_told_of() -> None:
    rig = Rig("x", agg=("count",))
    rig.dense(30, 1.0)
    rig.ticks(65)
    rig.dense(10, 1.0)
    assert rig.of("x_count") == {0: 2}
    rig.dense(40, 1.0)
    rig.dense(60, 1.0)
    assert rig.of("x_count") == {0: 3}


def test_a_late_frame_of_a_column_that_was_not_heard_of() -> None:
    directory = SensorDirectory(0)
    slot = directory.define("m", layout("x", "y"))
    spec = FlowSpec(
        "w", "**/y", ({"op": "window", "every": "1m", "agg": ["count"]},), "{parent}/{signal}_{agg}"
    )
    engine = PlainEngine(directory, [spec])
    for at_s, column in ((10, 0), (130, 0), (125, 1), (140, 1), (126, 1), (190, 1)):
        engine.feed(
            FrameBatch.sparse(
                np.array([slot], np.uint32), np.array([T0 + at_s * S]), np.ones(1), np.array([0, 1]),
                np.array([column], np.uint16),
            )
        )  # fmt: skip
    assert {t: k.value for t, k in engine.derived["m/y_count"].items()} == {T0 + 2 * MINUTE: 3}


# --- single values -----------------------------------------------------------------------------------------


def test_sparse_frames_give_results_of_the_sensors_that_had_values() -> None:
    rig = Rig("x", "y", "z", agg=("count", "sum"))
    rig.sparse(1, [0], [5.0])
    rig.sparse(2, [0, 2], [6.0, 1.0])
    rig.sparse(60, [1], [1.0])
    assert sorted(rig.engine.derived) == ["m/x_count", "m/x_sum", "m/z_count", "m/z_sum"]
    assert rig.of("x_sum") == {0: 11.0}
    assert rig.of("z_count") == {0: 1}


def test_values_with_times_of_their_own_go_to_their_windows() -> None:
    rig = Rig("x", "y", agg=("count", "first"))
    rig.sparse(59, [0], [1.0])
    rig.sparse(61, [0, 1], [2.0, 3.0], times_s=[58, 61])
    rig.sparse(121, [0], [4.0])
    assert rig.of("x_count") == {0: 2}
    assert rig.of("x_first") == {0: 2.0}
    assert rig.of("y_count") == {1: 1}


def test_a_value_that_lies_behind_one_that_came_before_makes_no_difference() -> None:
    rig = Rig("x", agg=("first", "last", "count"))
    rig.sparse(30, [0], [1.0])
    rig.sparse(31, [0], [2.0], times_s=[20])
    rig.sparse(60, [0], [0.0])
    assert [rig.of(f"x_{a}")[0] for a in ("first", "last", "count")] == [2.0, 1.0, 2]


def test_dense_and_sparse_frames_of_one_group_share_its_windows() -> None:
    rig = Rig("x", "y")
    rig.sparse(1, [1], [10.0])
    rig.dense(2, 1.0, 20.0)
    rig.sparse(3, [0], [3.0])
    rig.dense(4, 5.0, 30.0, quality=[BAD, 0])
    rig.dense(60, 0.0, 0.0)
    assert [rig.of(f"x_{a}")[0] for a in ALL] == [2, 4.0, 1.0, 3.0, 1.0, 3.0, 2.0, 1.0]
    assert [rig.of(f"y_{a}")[0] for a in ("count", "first", "last", "sum")] == [3, 10.0, 30.0, 60.0]


def test_a_dense_frame_behind_a_value_from_the_future_is_not_lost() -> None:
    rig = Rig("x", agg=("count", "sum"))
    rig.sparse(10, [0], [1.0], times_s=[70])
    rig.dense(20, 5.0)
    rig.dense(30, 6.0)
    rig.dense(75, 2.0)
    rig.dense(120, 0.0)
    assert rig.of("x_sum") == {0: 11.0, 1: 3.0}


def test_a_dense_frame_between_values_with_times_of_their_own() -> None:
    rig = Rig("x", agg=("first", "last"))
    rig.sparse(10, [0], [1.0], times_s=[40])
    rig.dense(20, 5.0)
    rig.dense(25, 6.0, quality=[BAD])
    rig.dense(60, 0.0)
    assert rig.of("x_first") == {0: 5.0}
    assert rig.of("x_last") == {0: 1.0}


# --- new layouts -------------------------------------------------------------------------------------------


def relayout(rig: Rig, *names: str, scale: float = 1.0) -> int:
    return rig.directory.define("m", layout(*names, dtype="f64", scale=scale))


def test_a_new_column_does_not_break_a_window() -> None:
    rig = Rig("x", "y")
    rig.dense(1, 1.0, 10.0)
    wider = relayout(rig, "new", "y", "x")
    rig.dense(2, 7.0, 20.0, 3.0, slot=wider)
    rig.dense(60, 0.0, 0.0, 0.0, slot=wider)
    assert [rig.of(f"x_{a}")[0] for a in ALL] == [2, 4.0, 1.0, 3.0, 1.0, 3.0, 2.0, 1.0]
    assert rig.of("y_sum") == {0: 30.0}
    assert rig.of("new_sum") == {0: 7.0}
    assert rig.engine.n_revisions == 0


def test_sensors_that_are_gone_are_told_of_at_once() -> None:
    rig = Rig("x", "y", agg=("sum",))
    rig.dense(1, 1.0, 10.0)
    narrower = relayout(rig, "x")
    rig.dense(2, 2.0, slot=narrower)
    assert rig.of("y_sum") == {0: 10.0}
    assert rig.of("x_sum") == {}
    rig.dense(60, 2.0, slot=narrower)
    assert rig.of("x_sum") == {0: 3.0}


def test_a_layout_that_never_sends_changes_nothing() -> None:
    rig = Rig("x", "y", agg=("sum",))
    rig.dense(1, 1.0, 10.0)
    relayout(rig, "x")
    last = relayout(rig, "y", "x", "z")
    rig.dense(2, 2.0, 20.0)
    rig.dense(3, 30.0, 3.0, 1.0, slot=last)
    rig.dense(60, 0.0, 0.0, 0.0, slot=last)
    assert rig.of("x_sum") == {0: 6.0}
    assert rig.of("y_sum") == {0: 60.0}


def test_a_sensor_that_was_gone_and_is_back_has_its_whole_window() -> None:
    rig = Rig("x", "y", agg=("sum", "count"))
    rig.dense(1, 1.0, 10.0)
    without, back = relayout(rig, "x"), relayout(rig, "x", "y", "z")
    rig.dense(2, 2.0, slot=without)
    rig.dense(3, 3.0, 30.0, 0.0, slot=back)
    rig.dense(60, 0.0, 0.0, 0.0, slot=back)
    assert rig.of("y_sum") == {0: 40.0}
    assert rig.of("y_count") == {0: 2}
    assert rig.of("x_sum") == {0: 6.0}


def test_late_data_of_a_layout_that_was_left() -> None:
    rig = Rig("x", "y", agg=("sum",))
    rig.dense(1, 1.0, 10.0)
    rig.dense(61, 1.0, 10.0)
    narrower = relayout(rig, "x")
    rig.dense(70, 2.0, slot=narrower)
    rig.dense(65, 5.0, 50.0)  # in the open window
    rig.dense(5, 5.0, 50.0)  # in a closed one
    rig.dense(130, 0.0, slot=narrower)
    assert rig.of("x_sum") == {0: 6.0, 1: 8.0}
    assert rig.of("y_sum") == {0: 60.0, 1: 60.0}


def test_frames_in_time_of_a_layout_that_was_left() -> None:
    rig = Rig("x", "y", agg=("sum",))
    rig.dense(1, 1.0, 10.0)
    narrower = relayout(rig, "x")
    rig.dense(2, 2.0, slot=narrower)
    rig.dense(3, 3.0, 30.0)
    rig.dense(61, 4.0, slot=narrower)
    assert rig.of("x_sum") == {0: 6.0}
    assert rig.of("y_sum") == {0: 40.0}


def test_another_grid_in_an_open_window_leads_to_a_revision() -> None:
    directory = SensorDirectory(0)
    old = directory.define("m", layout("x", "y"))
    flow = Flow(flow_of("sum"), directory)
    flow.extend()
    directory.watchers.append(flow.extend)
    shard = FlowShard(flow, 0)
    new = directory.define("m", layout("x", "y", scale=0.5))
    result = StepResult()
    for at_s, slot in ((1, old), (2, new), (60, new)):
        batch = FrameBatch.dense(
            np.array([slot], np.uint32), np.array([T0 + at_s * S]), np.array([[4.0, 4.0]])
        )
        shard.process(batch, result)
    assert result.effects == [Revise("w", new, T0, T0 + MINUTE)]
    assert [b.values.tolist() for b in result.derived] == [[[2.0, 2.0]]]


def test_windows_behind_a_memory_are_not_revised() -> None:
    directory = SensorDirectory(0)
    slot = directory.define("m", layout("x"))
    steps = ({"op": "dead_band", "change": 1}, {"op": "window", "every": "1m", "agg": ["count"]})
    engine = PlainEngine(directory, [FlowSpec("w", "**", steps, "{parent}/{signal}_{agg}")])
    for at_s, value in ((10, 1.0), (20, 1.5), (30, 9.0), (15, 5.0), (70, 9.0), (12, 4.0), (130, 20.0)):
        engine.feed(
            FrameBatch.dense(np.array([slot], np.uint32), np.array([T0 + at_s * S]), np.array([[value]]))
        )
    for k in range(8):
        engine.tick(T0 + 500 * S + k * S)
    assert {t: k.value for t, k in engine.derived["m/x_count"].items()} == {T0: 2, T0 + 2 * MINUTE: 1}
    assert engine.n_revisions == 0
    assert engine.n_thinned == 2
