"""Flows: what a pipeline may say, what it reads, where it writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import StepResult, Tick
from headrace.pipeline.flows import Flow, FlowShard, FlowSpec
from headrace.testing.engines import PlainEngine

S = 1_000_000_000
T0 = 1_700_000_040 * S
MEAN = {"op": "window", "every": "1m", "agg": ["mean"]}


def spec(
    read: str = "**", steps: Any = (MEAN,), write: str = "{parent}/{signal}_1m", name: str = "w"
) -> FlowSpec:
    return FlowSpec(name, read, tuple(steps), write)


def layout(*names: str, dtype: str = "f64", **more: Any) -> Layout:
    return Layout(dtype, tuple(Column(n, **more) for n in names))


def frame(slot: int, ts_ns: int, *values: float, dtype: Any = np.float64) -> FrameBatch:
    return FrameBatch.dense(np.array([slot], np.uint32), np.array([ts_ns]), np.array([values], dtype))


def values(engine: PlainEngine, path: str) -> list[float]:
    return [kept.value for kept in engine.derived[path].values()]


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"name": "a.b"}, "pipelines.a.b", "can't name a pipeline"),
        ({"read": ""}, "pipelines.w.read", "matches nothing"),
        ({"read": "a/{b"}, "pipelines.w.read", "braces do not match"),
        ({"write": "x/{signal}"}, "pipelines.w.write", "stand beside their source"),
        ({"write": "{parent}/deep/{signal}"}, "pipelines.w.write", "stand beside their source"),
        ({"write": "{parent}/"}, "pipelines.w.write", "and a name, as in"),
        ({"write": "{parent}/{signal}"}, "pipelines.w.write", "add a suffix"),
        ({"write": "{parent}/{signal}_{unit}"}, "pipelines.w.write", "only {signal} and {agg}"),
        ({"write": "{parent}/{signal}_{self}"}, "pipelines.w.write", "only {signal} and {agg}"),
        ({"steps": (MEAN, {"op": "scale"})}, "pipelines.w.steps[0]", "window must be the last step"),
        (
            {"steps": ({"op": "scale"},), "write": "{parent}/{signal}_{agg}"},
            "pipelines.w.write",
            "needs a window",
        ),
        ({"steps": ({**MEAN, "agg": ["min", "max"]},)}, "pipelines.w.write", "the name needs {agg}"),
        ({"steps": ({"op": "windw"},)}, "pipelines.w.steps[0].op", "did you mean 'window'"),
        ({"steps": ({},)}, "pipelines.w.steps[0].op", "unknown operator None"),
        ({"steps": ({"op": "window", "every": "1m"},)}, "pipelines.w.steps[0]", "needs 'agg'"),
        ({"steps": ({"op": "scale", "facter": 2},)}, "pipelines.w.steps[0].facter", "did you mean 'factor'"),
        ({"steps": ({"op": "scale", "factor": True},)}, "pipelines.w.steps[0].factor", "not a number"),
        ({"steps": ({"op": "scale", "factor": 0},)}, "pipelines.w.steps[0]", "every value the same"),
        ({"steps": ({"op": "range"},)}, "pipelines.w.steps[0]", "min, max or both"),
        ({"steps": ({"op": "clamp", "min": 2, "max": 1},)}, "pipelines.w.steps[0]", "min 2 is above max 1"),
        ({"steps": ({"op": "dead_band", "change": -1},)}, "pipelines.w.steps[0]", "0 or more"),
        (
            {"steps": ({"op": "dead_band", "change": 1, "heartbeat": "5"},)},
            "pipelines.w.steps[0]",
            "not a duration",
        ),
        ({"steps": ({**MEAN, "every": "1us"},)}, "pipelines.w.steps[0]", "too short"),
        ({"steps": ({**MEAN, "every": "soon"},)}, "pipelines.w.steps[0]", "not a duration"),
        ({"steps": ({**MEAN, "agg": []},)}, "pipelines.w.steps[0]", "names no aggregate"),
        ({"steps": ({**MEAN, "agg": "mean"},)}, "pipelines.w.steps[0].agg", "not a list of texts"),
        ({"steps": ({**MEAN, "agg": ["avg"]},)}, "pipelines.w.steps[0]", "unknown aggregate 'avg'"),
        ({"steps": ({**MEAN, "agg": ["min", "min"]},)}, "pipelines.w.steps[0]", "twice"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(change: dict[str, Any], where: str, says: str) -> None:
    with pytest.raises(ConfigError) as e:
        spec(**change)
    assert e.value.where == where
    assert says in e.value.message


def test_a_pattern_selects_columns() -> None:
    directory = SensorDirectory()
    oven = directory.define("site/line/oven1", layout("temperature", "power"))
    press = directory.define("site/line/press1", layout("force"))
    engine = PlainEngine(directory, [spec("**/oven*/temperature")])
    engine.feed(frame(oven, T0, 20.0, 5.0))
    engine.feed(frame(press, T0, 3.0))
    engine.feed(frame(oven, T0 + 60 * S, 21.0, 5.0))
    assert engine.derived == {
        "site/line/oven1/temperature_1m": engine.derived["site/line/oven1/temperature_1m"]
    }
    assert values(engine, "site/line/oven1/temperature_1m") == [20.0]


def test_columns_keep_their_grid_and_unit_and_results_are_in_engineering_units() -> None:
    directory = SensorDirectory()
    grid = Layout(
        "i16", (Column("a", unit="bar", scale=0.1), Column("b", unit="degC", scale=0.5, offset=-10.0))
    )
    slot = directory.define("site/m", grid)
    steps = ({"op": "window", "every": "1m", "agg": ["mean", "var", "max", "count"]},)
    engine = PlainEngine(directory, [spec("**/b", steps, "{parent}/{signal}_{agg}")])
    for second, raw in enumerate((100, 110)):
        engine.feed(frame(slot, T0 + second * S, 7, raw, dtype=np.int16))
    engine.feed(frame(slot, T0 + 61 * S, 7, 0, dtype=np.int16))
    assert values(engine, "site/m/b_mean") == [105 * 0.5 - 10.0]
    assert values(engine, "site/m/b_var") == [25 * 0.25]
    assert values(engine, "site/m/b_max") == [110]  # raw, in the source's type and grid
    assert values(engine, "site/m/b_count") == [2]
    columns = {c.name: c for s in range(directory.n_slots) for c in directory.layout(s).columns}
    assert (columns["b_max"].scale, columns["b_max"].offset, columns["b_max"].unit) == (0.5, -10.0, "degC")
    assert columns["b_mean"].unit == "degC"
    assert columns["b_var"].unit == "(degC)2"
    assert (columns["b_count"].unit, columns["b_count"].kind) == ("", Kind.COUNTER)


def test_counts_of_u32_sources_stand_beside_values_of_the_same_type() -> None:
    directory = SensorDirectory()
    slot = directory.define("site/m", layout("n", dtype="u32"))
    steps = ({"op": "window", "every": "1m", "agg": ["max", "count"]},)
    engine = PlainEngine(directory, [spec(steps=steps, write="{parent}/{signal}_{agg}")])
    for second, raw in enumerate((4_000_000_000, 7, 9)):
        engine.feed(frame(slot, T0 + second * S, raw, dtype=np.uint32))
    engine.feed(frame(slot, T0 + 60 * S, 1, dtype=np.uint32))
    assert values(engine, "site/m/n_max") == [4_000_000_000]
    assert values(engine, "site/m/n_count") == [3]


def test_series_of_lone_sensors_stand_beside_them() -> None:
    directory = SensorDirectory()
    lone = Layout("f64", (Column(""),))
    slots = directory.define_many([f"site/t{i}" for i in range(3)], lone)
    engine = PlainEngine(directory, [spec(write="{parent}/{signal}_{agg}_1m")])
    for minute in (0, 1):
        times = np.full(3, T0 + minute * 60 * S)
        engine.feed(FrameBatch.dense(slots, times, np.array([[1.0], [2.0], [3.0]])))
    assert {path: values(engine, path) for path in engine.derived} == {
        "site/t0_mean_1m": [1.0], "site/t1_mean_1m": [2.0], "site/t2_mean_1m": [3.0],
    }  # fmt: skip
    derived = [s for s in range(directory.n_slots) if directory.is_derived(s)]
    assert len({directory.layout_index[s] for s in derived}) == 1  # one layout for all of them


def test_a_batch_may_mix_layouts_of_one_width() -> None:
    directory = SensorDirectory(0)
    a = directory.define("site/a", layout("x", scale=1.0))
    b = directory.define("site/b", layout("x", scale=0.5))
    c = directory.define("site/c", layout("y"))
    engine = PlainEngine(directory, [spec("**/x")])
    for minute in (0, 1):
        times = np.full(3, T0 + minute * 60 * S)
        engine.feed(FrameBatch.dense(np.array([a, b, c], np.uint32), times, np.array([[4.0], [4.0], [4.0]])))
    assert {path: values(engine, path) for path in engine.derived} == {
        "site/a/x_1m": [4.0],
        "site/b/x_1m": [2.0],
    }


def test_devices_with_several_value_types_have_derived_groups_for_each() -> None:
    directory = SensorDirectory()
    first = directory.define("site/m", layout("a", dtype="u16"), "u16")
    second = directory.define("site/m", layout("b", dtype="f32"), "f32")
    engine = PlainEngine(directory, [spec()])
    for minute in range(3):
        engine.feed(frame(first, T0 + minute * 60 * S, 3, dtype=np.uint16))
        engine.feed(frame(second, T0 + minute * 60 * S, 0.5, dtype=np.float32))
    assert engine.disorder == []
    assert values(engine, "site/m/a_1m") == [3.0, 3.0]
    assert values(engine, "site/m/b_1m") == [0.5, 0.5]
    assert all(directory.previous[s] == -1 for s in range(directory.n_slots))


def test_groups_defined_later_are_read_too() -> None:
    directory = SensorDirectory()
    engine = PlainEngine(directory, [spec("**/x"), spec("**", name="all", write="{parent}/{signal}_all")])
    slot = directory.define("site/new", layout("x", "y"))
    for minute in (0, 1):
        engine.feed(frame(slot, T0 + minute * 60 * S, 1.0, 2.0))
    assert sorted(engine.derived) == ["site/new/x_1m", "site/new/x_all", "site/new/y_all"]


def test_a_flow_that_reads_nothing_does_nothing() -> None:
    directory = SensorDirectory()
    slot = directory.define("site/a", layout("x"))
    n_slots = directory.n_slots
    engine = PlainEngine(directory, [spec("elsewhere/**")])
    for minute in (0, 1, 0):
        engine.feed(frame(slot, T0 + minute * 60 * S, 1.0))
    engine.tick(T0 + 600 * S)
    assert engine.derived == {}
    assert directory.n_slots == n_slots


def test_flows_do_not_read_what_flows_wrote() -> None:
    directory = SensorDirectory()
    slot = directory.define("site/a", layout("x"))
    engine = PlainEngine(directory, [spec(), spec(name="other", write="{parent}/{signal}_2")])
    for minute in range(4):
        engine.feed(frame(slot, T0 + minute * 60 * S, 1.0))
    assert sorted(engine.derived) == ["site/a/x_1m", "site/a/x_2"]


def test_a_name_that_is_taken_is_refused_and_other_groups_are_read() -> None:
    directory = SensorDirectory()
    directory.define("site/a", layout("x", "x_1m"))
    fine = directory.define("site/b", layout("x"))
    flow = Flow(spec(), directory)
    with pytest.raises(ConfigError, match="the name 'x_1m' of a sensor that is there already"):
        flow.extend()
    assert flow.class_of_slot[:2].tolist() == [-1, 0]
    flow.extend()
    shard = FlowShard(flow, int(directory.shard[fine]))
    result = StepResult()
    for minute in (0, 1):
        shard.process(frame(fine, T0 + minute * 60 * S, 1.0), result)
    assert [b.values.tolist() for b in result.derived] == [[[1.0]]]


def test_without_windows_frames_run_through_late_ones_too() -> None:
    directory = SensorDirectory()
    slot = directory.define("site/a", layout("x", dtype="i32", unit="mV"))
    steps = ({"op": "scale", "factor": 0.001, "unit": "V"}, {"op": "range", "max": 5})
    engine = PlainEngine(directory, [spec(steps=steps, write="{parent}/{signal}_volts")])
    for second, raw in ((2, 100), (1, 7_000), (3, 6_000), (1, 7_000)):
        engine.feed(frame(slot, T0 + second * S, raw, dtype=np.int32))
    found = {
        (t - T0) // S: (kept.value, kept.is_usable) for t, kept in engine.derived["site/a/x_volts"].items()
    }
    assert found == {2: (100, True), 1: (7_000, False), 3: (6_000, False)}
    assert engine.n_duplicates == 1
    derived = directory.layout(directory.n_slots - 1).columns[0]
    assert (derived.scale, derived.unit) == (0.001, "V")


def test_texts_are_not_read() -> None:
    directory = SensorDirectory()
    slot = directory.define("site/a", layout("state", dtype="u8"))
    engine = PlainEngine(directory, [spec()])
    for second in (0, 60, 30):
        engine.feed(frame(slot, T0 + second * S, 1, dtype=np.uint8).with_(dictionary=("off", "on")))
    engine.tick(T0 + 600 * S)
    assert engine.derived == {}


def test_a_waveform_is_the_first_column_of_its_group() -> None:
    directory = SensorDirectory()
    slot = directory.define("site/a", layout("sound", "other"))
    steps = ({"op": "range", "max": 2.0}, {"op": "window", "every": "1m", "agg": ["count"]})
    flows = [spec("**/sound", steps), spec("**/other", steps, name="other", write="{parent}/{signal}_2")]
    engine = PlainEngine(directory, flows)
    for minute in (0, 1):
        wave = FrameBatch.wave(
            np.array([slot], np.uint32), np.array([T0 + minute * 60 * S]), np.array([1.0, 2.0, 3.0]),
            np.array([0, 3]), (np.array([10]), np.array([1])),
        )  # fmt: skip
        engine.feed(wave)
    assert engine.derived["site/a/sound_1m"][T0].value == 2
    assert "site/a/other_2" not in engine.derived


def test_sparse_frames_without_a_selected_column_leave_no_trace() -> None:
    directory = SensorDirectory()
    slot = directory.define("site/a", layout("x", "y", "z"))
    engine = PlainEngine(directory, [spec("**/{x,z}")])
    start, slots = np.array([0, 1, 3]), np.full(2, slot, np.uint32)
    for minute in (0, 1):
        times = T0 + minute * 60 * S + np.array([0, S])
        column = np.array([1, 1, 2], np.uint16)
        quality = np.array([0, 0, 0x40], np.uint8)
        engine.feed(
            FrameBatch.sparse(
                slots,
                times,
                np.array([5.0, 6.0, 7.0]),
                start,
                column,
                quality=quality,
                value_ts_ns=times[[0, 1, 1]],
            )
        )
    assert {p: values(engine, p) for p in engine.derived} == {"site/a/z_1m": [7.0]}


def test_snapshots_of_a_changed_pipeline_are_passed_over() -> None:
    directory = SensorDirectory(0)
    slot = directory.define("site/a", layout("x"))

    def started(one: FlowSpec) -> FlowShard:
        flow = Flow(one, directory)
        flow.extend()
        return FlowShard(flow, 0)

    first = started(spec())
    first.process(frame(slot, T0, 1.0), StepResult())
    changed, same = started(spec(steps=({**MEAN, "every": "2m"},))), started(spec())
    result = StepResult()
    for shard in (changed, same):
        shard.restore(first.snapshot())
        shard.process(frame(slot, T0 + 120 * S, 5.0), result)
    assert [b.values.tolist() for b in result.derived] == [[[1.0]]]


def test_classes_that_are_gone_are_passed_over() -> None:
    directory = SensorDirectory(0)
    slot = directory.define("site/a", layout("x"))
    flow = Flow(spec(), directory)
    flow.extend()
    shard = FlowShard(flow, 0)
    shard.process(frame(slot, T0, 1.0), StepResult())
    empty = FlowShard(Flow(spec(), SensorDirectory(0)), 0)
    empty.restore(shard.snapshot())
    assert len(empty.snapshot()) < len(shard.snapshot())


def test_time_goes_on_in_every_class() -> None:
    directory = SensorDirectory(0)
    slots = [directory.define("site/a", layout("x")), directory.define("site/b", layout("x", dtype="i32"))]
    engine = PlainEngine(directory, [spec()])
    engine.feed(frame(slots[0], T0, 1.0))
    engine.feed(frame(slots[1], T0, 2, dtype=np.int32))
    for k in range(8):
        engine.tick(T0 + 65 * S + k * S)
    assert sorted(engine.derived) == ["site/a/x_1m", "site/b/x_1m"]
    assert engine.shards[0].now_ns == Tick(T0 + 72 * S).now_ns
