"""Functions of users over batches."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from headrace.core.errors import ConfigError, PluginError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import StepResult
from headrace.pipeline.flows import FlowSpec
from headrace.pipeline.operators.base import Context
from headrace.pipeline.operators.map import MapOperator, load_function
from headrace.testing.engines import PlainEngine

GRID = Layout("u16", (Column("t", unit="degC", scale=0.1, offset=-40.0), Column("p")))
SLOT = np.array([0], np.uint32)


def run(function, batch=None, **keys):
    operator = MapOperator(call=function, **keys)
    batch = FrameBatch.dense(SLOT, np.array([7]), np.array([[500, 3]], np.uint16)) if batch is None else batch
    return operator.stage(Context("m", SensorDirectory(0), 0, GRID, [])).process(batch, StepResult())


def test_values_are_engineering_units_and_come_back_as_floats():
    seen = []

    def look(batch):
        seen.append(batch)
        return batch.with_values(batch.values * 2)

    found = run(look)
    assert (seen[0].names, seen[0].units, seen[0].ts_ns.tolist()) == (("t", "p"), ("degC", ""), [7])
    assert seen[0].values.tolist() == [[10.0, 3.0]]
    assert found.values.tolist() == [[20.0, 6.0]]
    layout = MapOperator(call=look).layout(GRID)
    assert (layout.dtype, layout.columns[0].unit, layout.has_grid) == ("f64", "degC", False)


def test_sparse_values_know_their_columns():
    start, column = np.array([0, 2]), np.array([0, 1], np.uint16)
    batch = FrameBatch.sparse(SLOT, np.array([7]), np.array([500, 3], np.uint16), start, column)
    found = run(lambda b: b.with_values(np.where(b.column == 0, b.values, -b.values)), batch)
    assert found.values.tolist() == [10.0, -3.0]


def test_what_is_not_finite_becomes_bad_and_quality_can_be_set():
    found = run(lambda b: b.with_values(np.array([[np.nan, 1.0]])))
    assert found.quality.tolist() == [[Quality.BAD_NOT_FINITE, 0]]
    found = run(lambda b: b.with_quality(np.where(b.values > 5, Quality.UNCERTAIN, b.quality)))
    assert found.quality.tolist() == [[Quality.UNCERTAIN, 0]]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda b: b.with_values([1.0]), r"shape \(1,\), expected \(1, 2\)"),
        (lambda b: b.with_quality([1]), r"shape \(1,\), expected \(1, 2\)"),
        (lambda b: b.values, "returned ndarray, not batch.with_values"),
        (lambda b: b.nothing, "no attribute"),
    ],
)
def test_a_defect_fails_a_run_and_makes_bad_values_live(function, said, caplog):
    with pytest.raises(PluginError, match=said):
        run(function, on_error="fail")
    with caplog.at_level(logging.ERROR):
        found = run(function)
    assert found.quality.tolist() == [[Quality.BAD, Quality.BAD]]
    assert len(caplog.records) == 1


def test_a_function_is_found_beside_the_plant_file_first(tmp_path):
    (tmp_path / "operator.py").write_text("def neg(batch):\n    return batch.with_values(-batch.values)\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    assert load_function("operator:neg")(3) == -3
    mine = load_function("operator:neg", tmp_path)
    assert mine is load_function("operator:neg", tmp_path)
    assert run(mine).values.tolist() == [[-10.0, -3.0]]
    for call, said in (
        ("operator", "write 'module:function'"),
        ("a b:c", "write 'module:function'"),
        ("nowhere_at_all:f", "can't be imported: ModuleNotFoundError"),
        ("operator:nothing", "has no function 'nothing'"),
        ("broken:f", "can't be imported: ZeroDivisionError"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_function(call, tmp_path)
    for call in (7, "x"):
        with pytest.raises(ConfigError):
            MapOperator.from_step({"op": "map", "call": call}, "steps[0]")
    with pytest.raises(ConfigError, match="on_error"):
        MapOperator(call=run, on_error="perhaps")


def test_a_map_before_a_window_and_a_restart_in_between():
    directory = SensorDirectory(0)
    steps = ({"op": "map", "call": run_excess}, {"op": "window", "every": "1m", "agg": ("max",)})
    slot = directory.define("m", GRID)
    engine = PlainEngine(directory, [FlowSpec("e", "**/t", steps, "{parent}/excess_{agg}")])
    for second in range(0, 130, 10):
        values = np.array([[500 + second, 0]], np.uint16)
        engine.feed(FrameBatch.dense(np.array([slot], np.uint32), np.array([second * 10**9]), values))
        engine.restart()
    assert [k.value for k in engine.derived["m/excess_max"].values()] == pytest.approx([5.0, 11.0])


def run_excess(batch):
    """Above 10 degrees."""
    return batch.with_values(batch.values - 10.0)


def test_names_without_signal_are_for_one_signal_only():
    directory = SensorDirectory(0)
    directory.define("m", GRID)
    with pytest.raises(ConfigError, match=r"2 signals of one device \(t, p, ...\) the same name"):
        PlainEngine(directory, [FlowSpec("e", "**", ({"op": "scale", "add": 1.0},), "{parent}/other")])
