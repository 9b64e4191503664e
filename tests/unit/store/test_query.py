"""Queries: what they select, the types and units of what they answer, and what they say about themselves."""

import io
import json

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.clock import VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, NotFound, StorageError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import StepResult
from headrace.pipeline.operators.base import Context
from headrace.pipeline.operators.time_weighted_mean import TimeWeightedMeanOperator
from headrace.store import query as query_module
from headrace.store.cloud import CloudDisk
from headrace.store.disks import open_disk
from headrace.store.query import Store
from headrace.store.regroup import read_frames
from headrace.testing.stores import StoreRig

NS = 1_000_000_000
NOON = (20_000 * 86_400 + 43_200) * NS
SPAN = NOON, NOON + 60 * NS


def ask(rig, pattern, *args, **kwargs):
    return rig.store.query(pattern, *SPAN, *args, tail=rig.tail, **kwargs)


@pytest.fixture(params=["unflushed", "hot", "warm", "hot in a bucket", "warm in a bucket"])
def filled(request, rig, plant):
    """A few samples of every group, in each of the places that a query reads."""
    if "bucket" in request.param:
        rig = StoreRig(CloudDisk(request.getfixturevalue("bucket").url), plant.directory)
    slot, start = np.array([plant.word], np.uint32), np.array([0, 2])
    words = FrameBatch.sparse(
        slot, np.array([NOON]), np.array([1, 0], np.uint16), start, np.zeros(2, np.uint16),
        value_ts_ns=np.array([NOON, NOON + NS]), dictionary=("drill", "mill"),
    )  # fmt: skip
    rate = np.array([2]), np.array([1])
    wave = FrameBatch.wave(
        np.array([plant.motor], np.uint32),
        np.array([NOON]),
        np.array([3, -4, 5], np.int16),
        np.array([0, 3]),
        rate,
    )
    for batch in (
        plant.frames(plant.oven, 0, [[600, 1], [610, 2], [620, 3]]), plant.frames(plant.lone, 0, [1.5, 2.5]),
        plant.frames(plant.meter, 0, [2**53 + 1, 2**53 + 3]), plant.frames(plant.state, 0, [[0, 7], [1, 8]]),
        words, wave,
    ):  # fmt: skip
        rig.add(batch)
    if request.param != "unflushed":
        rig.flush()
    if request.param.startswith("warm"):
        rig.compact()
    return rig


def test_raw_values_are_in_engineering_units(filled):
    answer = ask(filled, "**/oven/temp")
    assert answer.columns["value"].tolist() == [600 * 0.1 - 40, 610 * 0.1 - 40, 620 * 0.1 - 40]
    assert (answer.paths.tolist(), answer.units.tolist()) == (["leon/line1/oven/temp"], ["degC"])
    assert answer.ts_ns.tolist() == [NOON, NOON + NS, NOON + 2 * NS]
    assert answer.missing == ()


def test_64_bit_integers_stay_integers(filled):
    answer = ask(filled, "**/meter/count")
    assert answer.columns["value"].dtype == np.int64
    assert answer.columns["value"].tolist() == [2**53 + 1, 2**53 + 3]
    windows = ask(filled, "**/meter/count", 60 * NS, ("min", "last", "count"))
    assert windows.columns["last"].tolist() == [2**53 + 3]
    assert windows.columns["min"].tolist() == [2**53 + 1]


def test_integers_without_a_grid_stay_integers(filled):
    answer = ask(filled, "**/press/mode")
    assert answer.columns["value"].dtype == np.int64
    windows = ask(filled, "**/press/mode", None, ("sum", "mean", "max"))
    assert windows.to_rows() == [
        {"path": "leon/line2/press/mode", "ts": NOON, "sum": 15, "mean": 7.5, "max": 8}
    ]


def test_integers_beside_floats_are_floats_and_that_is_said(filled):
    answer = ask(filled, "leon/**")
    assert answer.columns["value"].dtype == np.float64
    assert any("64-bit" in note for note in answer.notes)
    assert ask(filled, "leon/**", 60 * NS, ("last",)).columns["last"].dtype == np.float64


def test_states_have_names(filled):
    answer = ask(filled, "**/press/state")
    assert answer.to_arrow(labels=True)["text"].to_pylist() == ["stopped", "running"]
    assert "text" not in answer.to_arrow().column_names


def test_strings_have_words(filled):
    answer = ask(filled, "**/plc/program")
    assert answer.to_arrow()["text"].to_pylist() == ["mill", "drill"]
    windows = ask(filled, "**/plc/program", 60 * NS, ("count", "mean"))
    assert windows.to_rows()[0]["count"] == 2
    assert windows.to_rows()[0]["mean"] is None


def test_waves_have_their_times(filled):
    answer = ask(filled, "**/motor/v")
    assert answer.columns["value"].tolist() == [3, -4, 5]
    assert answer.ts_ns.tolist() == [NOON, NOON + NS // 2, NOON + NS]


def test_windows_start_at_multiples_of_their_length(filled):
    answer = ask(filled, "**/oven/temp", 2 * NS, ("count", "first", "last", "var"))
    assert answer.ts_ns.tolist() == [NOON, NOON + 2 * NS]
    assert answer.columns["count"].tolist() == [2, 1]
    assert answer.columns["first"].tolist() == [600 * 0.1 - 40, 620 * 0.1 - 40]
    assert answer.columns["var"].tolist() == pytest.approx([0.25, 0.0])


def test_a_window_without_an_aggregate_is_a_mean(filled):
    assert list(ask(filled, "**/oven/temp", 60 * NS).columns) == ["mean"]


def test_a_negative_scale_turns_the_ends_around(plant):
    slot = plant.directory.define("a/b", Layout("i16", (Column("x", scale=-2.0),)))
    rig = StoreRig(_memory(), plant.directory)
    rig.add(plant.frames(slot, 0, [[1], [5], [3]]))
    rig.flush()
    rig.compact()
    row = ask(rig, "a/b/x", None, ("min", "max", "first", "last", "sum")).to_rows()[0]
    assert (row["min"], row["max"], row["first"], row["last"], row["sum"]) == (-10, -2, -2, -6, -18)


def _memory():
    from headrace.sim.disk import SimulatedDisk

    return SimulatedDisk(1)


def test_values_that_are_not_usable_do_not_enter_aggregates(rig, plant):
    quality = np.array([[0], [Quality.BAD_DEVICE], [Quality.ABSENT], [Quality.UNCERTAIN]], np.uint8)
    rig.add(plant.frames(plant.lone, 0, [1.0, 99.0, 98.0, 3.0], quality=quality))
    row = ask(rig, "**/pressure", None, ("count", "mean")).to_rows()[0]
    assert (row["count"], row["mean"]) == (2, 2.0)
    assert len(ask(rig, "**/pressure")) == 3  # bad ones are shown, absent ones are not there


def test_a_limit_cuts_rows_off_and_says_so(filled):
    answer = ask(filled, "**/oven/*", limit=4)
    assert (answer.n_rows, answer.truncated) == (4, True)
    assert not ask(filled, "**/oven/*", limit=6).truncated


def test_many_sensors_are_read_in_slices(filled, monkeypatch):
    whole = ask(filled, "**")
    aggregates = ask(filled, "**", 60 * NS, ("count", "sum"))
    monkeypatch.setattr(query_module, "SLICE_SAMPLES", 2)
    assert ask(filled, "**").to_arrow().equals(whole.to_arrow())
    assert ask(filled, "**", 60 * NS, ("count", "sum")).to_arrow().equals(aggregates.to_arrow())
    assert ask(filled, "**", limit=3).n_rows == 3


def test_every_form_of_an_answer(filled, tmp_path):
    answer = ask(filled, "**/press/state")
    assert isinstance(answer.to_pandas(), pd.DataFrame)
    assert isinstance(answer.to_polars(), pl.DataFrame)
    assert answer.to_duckdb(duckdb.connect()).fetchall()[0][2:] == (0, 0)
    assert answer.to_duckdb().aggregate("count(*)").fetchall() == [(2,)]
    assert answer.to_csv(labels=True).decode().splitlines()[:2] == [
        '"path","ts","value","quality","text"',
        '"leon/line2/press/state","2024-10-04T12:00:00.000000000Z",0,0,"stopped"',
    ]
    assert pa.ipc.open_stream(answer.to_ipc()).read_all().num_rows == 2
    assert pq.read_table(io.BytesIO(answer.to_parquet()))["value"].to_pylist() == [0, 1]
    assert json.dumps(answer.to_rows(labels=True)[1]) == json.dumps(
        {"path": "leon/line2/press/state", "ts": NOON + NS, "value": 1, "quality": 0, "text": "running"}
    )


def test_an_answer_says_how_fresh_it_is(rig, plant):
    rig.add(plant.frames(plant.lone, 0, [1.0]))
    rig.flush()
    flushed_ns = rig.clock.now_ns()
    rig.clock.advance(10)
    assert rig.store.query("**/pressure", *SPAN).fresh_to_ns == flushed_ns
    assert ask(rig, "**/pressure").fresh_to_ns == rig.clock.now_ns()


def test_an_answer_says_where_it_is_from(rig, plant):
    rig.add(plant.frames(plant.lone, 0, [1.0, 2.0]))
    rig.flush()
    rig.compact()
    rig.add(plant.frames(plant.lone, 2, [3.0]))
    sources = ask(rig, "**/pressure", 60 * NS, ("mean",)).sources
    assert sources == {"segments": 1, "warm_rows": 1, "hot_rows": 0, "warm_headers": 1, "tail_frames": 1}


def test_rows_outside_the_span_are_not_read(rig, plant):
    for first in (0, 100, 200):
        rig.add(plant.frames(plant.lone, first, [1.0]))
        rig.flush()
    answer = rig.store.query("**/pressure", NOON + 90 * NS, NOON + 110 * NS)
    assert (answer.n_rows, answer.sources["segments"]) == (1, 1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (("**/pressure", NOON, NOON), "the span is empty"),
        (("**/pressure", *SPAN, 0, ("mean",)), "too short"),
        (("**/pressure", *SPAN, NS, ("men",)), "unknown aggregate 'men'; did you mean 'mean'"),
        (("", *SPAN), "an empty pattern"),
    ],
)
def test_what_can_not_be_asked(filled, call, says):
    with pytest.raises(ConfigError, match=says):
        filled.store.query(*call)


@pytest.mark.parametrize("span", [(NOON, 2**63), (-(2**63) - 1, NOON), (NOON, 2**64 + 5)])
def test_a_span_beyond_what_64_bits_hold(filled, span):
    with pytest.raises(ConfigError, match="1677 to 2262"):
        filled.store.query("**", *span)
    assert len(filled.store.query("leon/line1/pressure", -(2**63), 2**63 - 1, tail=filled.tail)) == 2


def test_an_answer_is_the_askers_own(rig, plant):
    """Also where headers give it: they are kept for the next query."""
    rig.add(plant.frames(plant.lone, 0, [1.5, 2.5]))
    rig.add(plant.frames(plant.meter, 0, [1, 2]))
    rig.flush()
    rig.compact()
    for _ in range(2):
        for agg in ((), ("first", "last", "min", "max")):
            found = rig.store.query("leon/line1/pressure", *SPAN, agg=agg)
            for name, values in found.columns.items():
                if name != "quality":
                    assert set(values.tolist()) <= {1.5, 2.5}
                    values += 1
            found.ts_ns[:] = 0


class _Flaky:
    """A disk that can't list a folder once."""

    def __init__(self, disk):
        self._disk = disk
        self.refused = ""

    def __getattr__(self, name):
        return getattr(self._disk, name)

    def list(self, folder):
        if folder == self.refused:
            self.refused = ""
            raise StorageError(f"can't list {folder}: too many open files")
        return self._disk.list(folder)


@pytest.mark.parametrize("folder", ["commits", "manifests/warm", "manifests/cold"])
@pytest.mark.parametrize("news", ["a commit", "a compaction"])
def test_a_listing_that_failed_hides_nothing_from_the_next_query(rig, plant, folder, news):
    disk = _Flaky(rig.disk)
    store = Store.open(disk, plant.directory, rig.clock)
    rig.add(plant.frames(plant.lone, 0, [1.5, 2.5]))
    rig.flush()
    if news == "a compaction":
        assert len(store.query("leon/line1/pressure", *SPAN)) == 2
        for _ in range(3):  # old segments are gone after a time
            rig.compact()
    disk.refused = folder
    with pytest.raises(StorageError, match="too many open files"):
        store.query("leon/line1/pressure", *SPAN)
    for _ in range(2):
        found = store.query("leon/line1/pressure", *SPAN)
        assert (len(found), found.missing) == (2, ())


def test_a_limit_of_nothing(filled):
    with pytest.raises(ConfigError, match="limit of 0"):
        ask(filled, "**", limit=0)


def test_an_unknown_path_is_answered_with_the_nearest(filled):
    with pytest.raises(NotFound, match="the nearest path is 'leon/line1/oven/temp'"):
        ask(filled, "leon/line1/oven/tmp")


def test_an_empty_store_has_no_nearest_path():
    store = Store.open(_memory(), None, VirtualClock())
    with pytest.raises(NotFound, match="no sensors yet"):
        store.query("**", 0, 1)


def test_an_answer_without_samples_has_its_columns(filled):
    raw = filled.store.query("**/oven/temp", 0, 1)
    assert (raw.n_rows, list(raw.columns)) == (0, ["value", "quality"])
    windows = filled.store.query("**/oven/temp", 0, 1, None, ("count", "mean"))
    assert windows.to_arrow().schema.names == ["path", "ts", "count", "mean"]


def test_too_many_rows_are_refused(filled, monkeypatch):
    from headrace.store import answer

    monkeypatch.setattr(answer, "ROWS_MAX", 3)
    with pytest.raises(ConfigError, match="more than 3 rows"):
        ask(filled, "**")


def test_a_store_is_opened_by_folder_or_url(tmp_path):
    assert Store.open(tmp_path).disk.root == tmp_path
    assert open_disk(f"file://{tmp_path}").root == tmp_path
    assert isinstance(open_disk("file:x"), LocalDisk)
    assert open_disk("s3://bucket/plant").url == "s3://bucket/plant"
    with pytest.raises(ConfigError, match="ftp:// can't be opened; give a folder, or s3://"):
        open_disk("ftp://host/plant")


def test_a_reader_learns_of_new_sensors(rig, plant):
    rig.add(plant.frames(plant.lone, 0, [1.0]))
    rig.flush()
    reader = Store.open(rig.disk, None, rig.clock)
    slot = plant.directory.define("leon/line3/new", Layout("f64", (Column(""),)))
    rig.add(plant.frames(slot, 0, [2.0]))
    rig.flush()
    assert reader.query("leon/line3/new", *SPAN).columns["value"].tolist() == [2.0]


def test_stored_frames_of_a_group_come_back_as_they_were(filled, plant):
    batch, missing = read_frames(filled.store, plant.oven, *SPAN, filled.tail)
    assert missing == ()
    assert batch.values.dtype == np.uint16
    assert batch.values.tolist() == [[600, 1], [610, 2], [620, 3]]
    assert batch.quality is None
    words, _ = read_frames(filled.store, plant.word, *SPAN, filled.tail)
    assert [words.dictionary[i] for i in words.values[:, 0]] == ["mill", "drill"]
    assert read_frames(filled.store, plant.oven, 0, 1) == (None, ())


def test_frames_with_holes_are_absent_there(rig, plant):
    quality = np.array([[0, Quality.ABSENT]], np.uint8)
    rig.add(plant.frames(plant.oven, 0, [[1, 9]], quality=quality))
    batch, _ = read_frames(rig.store, plant.oven, *SPAN, rig.tail)
    assert batch.quality.tolist() == [[0, Quality.ABSENT]]


def test_a_sensor_keeps_its_history_through_a_new_layout():
    directory = SensorDirectory(shard_bits=1)
    old = directory.define("p/oven", Layout("u16", (Column("temp", scale=0.1),)))
    rig = StoreRig(_memory(), directory)
    rig.add(FrameBatch.dense(np.array([old], np.uint32), np.array([NOON]), np.array([[100]], np.uint16)))
    rig.flush()
    new = directory.define("p/oven", Layout("f32", (Column("flow"), Column("temp"))))
    rig.add(
        FrameBatch.dense(
            np.array([new], np.uint32), np.array([NOON + NS]), np.array([[1.0, 12.5]], np.float32)
        )
    )
    for step in (lambda: None, rig.flush, rig.compact):
        step()
        assert ask(rig, "p/oven/temp").columns["value"].tolist() == [10.0, 12.5]
        assert ask(rig, "p/oven/temp", None, ("sum",)).columns["sum"].tolist() == [22.5]


def test_values_of_a_grid_are_decimals_wherever_they_are_read():
    directory = SensorDirectory(shard_bits=1)
    columns = Column("temp", scale=0.1, offset=-50.0), Column("flow", scale=0.01), Column("n")
    slot = directory.define("p/oven", Layout("u16", columns))
    rig = StoreRig(_memory(), directory)
    raw = np.array([[2_486, 7, 3], [2_487, 57, 4]], np.uint16)
    rig.add(FrameBatch.dense(np.full(2, slot, np.uint32), NOON + np.arange(2) * NS, raw))
    expected = [0.07, 0.57, 3.0, 4.0, 198.6, 198.7]
    for step in (lambda: None, rig.flush, rig.compact):
        step()
        assert ask(rig, "p/oven/*").columns["value"].tolist() == expected
        assert ask(rig, "p/oven/temp").columns["value"].tolist() == [198.6, 198.7]
        for name, ends in (("min", expected[::2]), ("max", expected[1::2]), ("sum", [0.64, 7.0, 397.3])):
            assert ask(rig, "p/oven/*", None, (name,)).columns[name].tolist() == ends
    assert b'Z",198.6,0' in ask(rig, "p/oven/temp").to_csv()


def test_time_weighted_means_weigh_each_value_by_how_long_it_lasted(plant):
    kinds = Layout("u16", (Column("level", scale=0.5, offset=1.0), Column("state", Kind.DISCRETE)))
    slot = plant.directory.define("leon/line9/tank", kinds)
    rig = StoreRig(_memory(), plant.directory)
    at_s, values = np.array([0, 6, 8, 14, 21]), [[10, 0], [20, 1], [20, 1], [0, 0], [4, 1]]
    times = NOON + at_s * NS
    batch = FrameBatch.dense(np.full(5, slot, np.uint32), times, np.array(values, np.uint16))
    rig.add(batch)
    rig.flush()
    level = np.array(values, float)[:, 0]
    first = (np.trapezoid(level[:3], at_s[:3]) + 2 * level[2]) / 10 * 0.5 + 1
    second = 1.0  # the only sample of its window is flat to both sides
    for _ in ("hot", "warm"):
        answer = ask(rig, "**/tank/level", 10 * NS, ("twa", "mean"))
        assert answer.columns["twa"].tolist() == pytest.approx([first, second, 4 * 0.5 + 1])
        steps = ask(rig, "**/tank/state", 10 * NS, ("twa",)).columns["twa"]
        assert steps.tolist() == pytest.approx([0.4, 0.0, 1.0])
        whole = ask(rig, "**/tank/state", None, ("twa", "count")).to_rows()[0]
        assert whole["count"] == 5
        assert 0 < whole["twa"] < 1
        rig.compact()


@given(st.lists(st.tuples(st.integers(1, 20_000), st.integers(0, 60_000)), min_size=1, max_size=40))
def test_a_query_weighs_as_the_operator_does(steps):
    layout = Layout("u16", (Column("x", scale=0.1, offset=-3.0),))
    directory = SensorDirectory()
    slot = directory.define("a/b", layout)
    times = NOON + np.cumsum([s for s, _ in steps]) * 1_000_000
    values = np.array([[v] for _, v in steps], np.uint16)
    batch = FrameBatch.dense(np.full(len(steps), slot, np.uint32), times, values)
    operator = TimeWeightedMeanOperator(every="7s")
    stage, result = (
        operator.stage(
            Context("w", directory, int(directory.shard[slot]), layout, [np.array([0], np.uint32)])
        ),
        StepResult(),
    )
    stage.process(batch, result)
    for _ in range(8):
        stage.tick(int(times[-1]) + 60 * NS, result)
    expected = {
        int(t): float(v) for b in result.derived for t, v in zip(b.ts_ns, b.values[:, 0], strict=True)
    }
    rig = StoreRig(_memory(), directory)
    rig.add(batch)
    rig.flush()
    start_ns, end_ns = int(times[0]) - NS, int(times[-1]) + NS
    answer = rig.store.query("a/b/x", start_ns, end_ns, 7 * NS, ("twa",))
    found = dict(zip(answer.ts_ns.tolist(), answer.columns["twa"].tolist(), strict=True))
    assert found == pytest.approx(expected, rel=1e-12)
