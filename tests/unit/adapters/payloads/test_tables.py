"""Tables → frames: long and wide, every type, and what can't be taken."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest

from headrace.adapters.payloads.base import PayloadError, RuleSettings
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.tables import TableColumns, TableReader
from headrace.adapters.payloads.times import TimeReader
from headrace.core.frames import Shape
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory

T = 1_795_446_000_000_000_000


class Bench:
    def __init__(self, directory=None, group="leon/d", only=(), n_groups_max=100):
        self.directory = SensorDirectory() if directory is None else directory
        columns = TableColumns("ts", "value", group, only)
        self.reader = TableReader("r", DeviceGroups(self.directory, n_groups_max), TimeReader(), columns)

    def read(self, **columns):
        table = pa.RecordBatch.from_pydict(
            {k: v if isinstance(v, pa.Array) else pa.array(v) for k, v in columns.items()}
        )
        batches, rejects = self.reader.read(table, "file")
        for batch in batches:
            batch.check_columns()
            assert all(self.directory.layout(s).dtype == batch.dtype for s in batch.slot.tolist())
        assert all(r.adapter == "r" and r.source == "file" for r in rejects)
        return batches, [(str(r.code), r.n_samples) for r in rejects]

    def samples(self, batches):
        out = set()
        for batch in batches:
            for frame in range(batch.n_frames):
                one, layout = batch.slice(frame, frame + 1), self.directory.layout(int(batch.slot[frame]))
                columns = range(layout.width) if one.shape is Shape.DENSE else one.column.tolist()
                marks = (
                    np.zeros(one.values.size, np.uint8) if one.quality is None else one.quality.reshape(-1)
                )
                for c, v, m in zip(columns, one.values.reshape(-1).tolist(), marks.tolist(), strict=True):
                    if m != Quality.ABSENT:
                        path = f"{self.directory.paths[one.slot[0]]}/{layout.columns[c].name}".rstrip("/")
                        out.add((path, int(one.ts_ns[0]) - T, batch.dictionary[v] if batch.dictionary else v))
        return out


def times(*offsets):
    return pa.array([T + o for o in offsets], pa.timestamp("ns", "UTC"))


@pytest.mark.parametrize(
    ("array", "dtype", "values"),
    [
        (pa.array([1, 2], pa.int16()), "i16", [1, 2]),
        (pa.array([1, 2], pa.uint64()), "u64", [1, 2]),
        (pa.array([1.5, 2.5], pa.float32()), "f32", [1.5, 2.5]),
        (pa.array([1.5, 2.5], pa.float64()), "f64", [1.5, 2.5]),
        (pa.array([1.5, 2.5], pa.float16()), "f32", [1.5, 2.5]),
        (pa.array([True, False]), "u8", [1, 0]),
        (pa.array([decimal.Decimal("1.25"), decimal.Decimal("2.50")]), "f64", [1.25, 2.5]),
    ],
)
def test_values_keep_their_type(array, dtype, values):
    for columns in ({"a": array}, {"path": ["leon/d/a"] * 2, "value": array}):
        (batch,), rejects = Bench().read(ts=times(0, 1), **columns)
        assert (batch.dtype, batch.values[:, 0].tolist(), rejects) == (dtype, values, [])
        assert batch.quality is None
        assert batch.ts_ns.tolist() == [T, T + 1]


def test_texts_are_codes_with_their_words():
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        bench = Bench()
        batches, _ = bench.read(
            ts=times(0, 1, 2), a=pa.array(["up", None, "down"], kind), b=pa.array(["x", "up", "y"])
        )
        assert bench.samples(batches) == {
            ("leon/d/a", 0, "up"), ("leon/d/a", 2, "down"), ("leon/d/b", 0, "x"), ("leon/d/b", 1, "up"), ("leon/d/b", 2, "y"),
        }  # fmt: skip
        assert len(batches) == 1


def test_a_column_of_nothing():
    bench = Bench()
    (batch,), rejects = bench.read(ts=times(0), a=pa.array([None], pa.string()))
    assert batch.n_samples == 0
    assert batch.dictionary == ("",)
    assert rejects == []


def test_wide_tables_have_parts_by_type_and_nulls_are_absent():
    bench = Bench()
    batches, rejects = bench.read(ts=times(0, 1), a=[1.5, None], n=[1, 2], b=[None, 2.5])
    assert rejects == []
    assert {b.dtype: b.values.shape for b in batches} == {"f64": (2, 2), "i64": (2, 1)}
    assert bench.samples(batches) == {
        ("leon/d/a", 0, 1.5),
        ("leon/d/n", 0, 1),
        ("leon/d/n", 1, 2),
        ("leon/d/b", 1, 2.5),
    }


def test_a_sensor_keeps_its_type():
    bench = Bench()
    bench.read(ts=times(0), a=[1.5], b=[1])
    batches, rejects = bench.read(ts=times(1), a=[2], b=[2.5])
    assert bench.samples(batches) == {("leon/d/a", 1, 2.0)}, "cast where that is exact"
    assert rejects == [("wrong-type", 1)]
    again = Bench(bench.directory)
    batches, rejects = again.read(ts=times(2, 3), path=["leon/d/a", "leon/d/b"], value=[3, 4])
    assert again.samples(batches) == {("leon/d/a", 2, 3.0), ("leon/d/b", 3, 4)}
    batches, rejects = again.read(ts=times(2, 3), path=["leon/d/a", "leon/d/b"], value=[3.5, 4.5])
    assert again.samples(batches) == {("leon/d/a", 2, 3.5)}
    assert rejects == [("wrong-type", 1)]


def test_columns_can_be_chosen():
    bench = Bench(only=("a",))
    batches, _ = bench.read(ts=times(0), a=[1.5], b=[2.5])
    assert bench.samples(batches) == {("leon/d/a", 0, 1.5)}
    with pytest.raises(PayloadError, match="no column a; there are ts, b"):
        bench.read(ts=times(0), b=[1.5])


def test_long_rows_of_one_device_and_time_are_one_frame():
    bench = Bench()
    paths = ["leon/d/a", "leon/d/b", "leon/e/a", "leon/d/a", "leon/d/b", "lone"]
    (batch,), rejects = bench.read(
        ts=times(1, 1, 1, 0, 0, 5), sensor=paths, value=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    )
    assert rejects == []
    assert batch.shape is Shape.SPARSE
    assert np.diff(batch.ts_ns).min() >= 0, "in the order of time"
    assert batch.n_frames == 4
    assert bench.samples([batch]) == {
        ("leon/d/a", 1, 1.0), ("leon/d/b", 1, 2.0), ("leon/e/a", 1, 3.0), ("leon/d/a", 0, 4.0), ("leon/d/b", 0, 5.0),
        ("lone", 5, 6.0),
    }  # fmt: skip


def test_complete_frames_are_dense():
    (batch,), _ = Bench().read(
        ts=times(1, 0, 0, 1), path=["l/d/a", "l/d/a", "l/d/b", "l/d/b"], value=[1, 2, 3, 4]
    )
    assert batch.shape is Shape.DENSE
    assert batch.values.tolist() == [[2, 3], [1, 4]]


def test_the_same_sensor_twice_at_one_time_makes_two_frames():
    bench = Bench()
    (batch,), _ = bench.read(ts=times(0, 0, 0), path=["l/d/a", "l/d/a", "l/d/b"], value=[1, 2, 3])
    assert batch.n_frames == 2
    assert bench.samples([batch]) == {("l/d/a", 0, 1), ("l/d/a", 0, 2), ("l/d/b", 0, 3)}


def test_long_rows_without_a_value_are_nothing():
    bench = Bench()
    batches, rejects = bench.read(ts=times(0, 1), path=["l/d/a", "l/d/a"], value=[None, 2.0])
    assert bench.samples(batches) == {("l/d/a", 1, 2.0)}
    assert rejects == []


@pytest.mark.parametrize("bad", ["", None, "a//b", "l/d/x*", "*/x", "l/d*/x"])
def test_paths_that_cannot_be(bad):
    bench = Bench()
    batches, rejects = bench.read(ts=times(0, 1, 2), path=["l/d/a", bad, bad], value=[1.0, 2.0, 3.0])
    assert bench.samples(batches) == {("l/d/a", 0, 1.0)}
    assert rejects == [("bad-path", 2)]


def test_more_devices_than_are_allowed():
    bench = Bench(n_groups_max=1)
    batches, rejects = bench.read(ts=times(0, 1), path=["l/d/a", "l/e/a"], value=[1.0, 2.0])
    assert bench.samples(batches) == {("l/d/a", 0, 1.0)}
    assert rejects == [("bad-path", 1)]


def test_a_sensor_of_another_group():
    directory = SensorDirectory()
    directory.define("l/d", Layout("f32", (Column("a"),)), "own")
    bench = Bench(directory, group="l/d")
    assert bench.read(ts=times(0), path=["l/d/a"], value=[1.0]) == ([], [("bad-path", 1)])
    assert bench.read(ts=times(0), a=[1.0]) == ([], [("wrong-type", 1)])
    batches, rejects = bench.read(ts=times(0, 0), path=["l/d/a", "l/d/b"], value=[1.0, 2.0])
    assert bench.samples(batches) == {("l/d/b", 0, 2.0)}
    assert rejects == [("bad-path", 1)]
    assert "is defined twice" in bench.reader._rejects[0].detail


def test_types_that_hold_no_values():
    day = [datetime.date(2026, 11, 23)]
    assert Bench().read(ts=times(0), a=day) == ([], [("wrong-type", 1)])
    assert Bench().read(ts=times(0), path=["l/d/a"], value=day) == ([], [("wrong-type", 1)])
    assert Bench().read(**{"ts": times(0), "a/b": [1.0]}) == ([], [("wrong-type", 1)])


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        (pa.array([T // 10**9, T // 10**9 + 1]), [0, 10**9]),
        (pa.array(["2026-11-23T15:00:00Z", "2026-11-23 15:00:01"]), [0, 10**9]),
        (pa.array([T // 1_000, T // 1_000 + 1], pa.timestamp("us")), [0, 1_000]),
        (pa.array([T / 1e9, T / 1e9 + 0.5]), [0, 500_000_000]),
    ],
)
def test_times_of_many_kinds(ts, expected):
    (batch,), rejects = Bench().read(ts=ts, a=[1.0, 2.0])
    assert (batch.ts_ns - T).tolist() == expected
    assert rejects == []


def test_rows_without_a_time_are_refused():
    for bad in (times(0), pa.array(["2026-11-23T15:00:00Z"])):
        ts = pa.concat_arrays([bad, pa.array([None], bad.type)])
        (batch,), rejects = Bench().read(ts=ts, a=[1.0, 2.0], b=[1.0, 2.0])
        assert batch.n_frames == 1
        assert rejects == [("bad-time", 2)]
        _, rejects = Bench().read(ts=ts, path=["l/d/a"] * 2, value=[1.0, 2.0])
        assert rejects == [("bad-time", 1)]


def test_tables_that_are_neither():
    with pytest.raises(PayloadError, match="no column ts; there are a") as e:
        Bench().read(a=[1.0, 2.0])
    assert (e.value.code, e.value.n_samples) == ("malformed", 2)
    with pytest.raises(PayloadError, match="no column value"):
        Bench().read(ts=times(0), path=["a"])
    with pytest.raises(PayloadError, match="can't name a sensor"):
        Bench(group="").read(ts=times(0), a=[1.0])


def test_times_without_a_zone_are_plant_time():
    """Both sides of the change to summer time in Madrid, and a hole."""
    shown = pa.array([1_774_749_540, 1_774_753_200, None]).cast(pa.timestamp("s"))  # 01:59 and 03:00
    columns = TableColumns("ts", "value", "leon/d", ())
    times = TimeReader("auto", "Europe/Madrid")
    reader = TableReader("r", DeviceGroups(SensorDirectory(), 9), times, columns)
    table = pa.RecordBatch.from_pydict({"ts": shown, "a": [1.0, 2.0, 3.0]})
    (batch,), rejects = reader.read(table, "file")
    assert [t // 10**9 for t in batch.ts_ns.tolist()] == [1_774_745_940, 1_774_746_000]
    assert [str(r.code) for r in rejects] == ["bad-time"]


def test_units_of_signals_can_be_given():
    directory = SensorDirectory()
    columns = TableColumns("ts", "value", "leon/d", ())
    settings = RuleSettings(path="", units={"a": "degC"})
    reader = TableReader("r", DeviceGroups(directory, 9), TimeReader(), columns, settings)
    reader.read(pa.RecordBatch.from_pydict({"ts": times(0), "a": [1.0], "b": [2.0]}), "file")
    assert [c.unit for c in directory.layout(directory.n_slots - 1).columns] == ["degC", ""]


def test_texts_that_are_no_text_are_one_reject_of_the_table():
    broken = pa.array([b"a/b", b"\xff"]).view(pa.string())
    with pytest.raises(PayloadError, match="the table can't be read: .*utf-8") as caught:
        Bench().read(path=broken, ts=times(0, 1), value=pa.array([1.0, 2.0]))
    assert (caught.value.code, caught.value.n_samples) == ("malformed", 2)


def test_paths_of_a_type_that_is_no_text():
    with pytest.raises(PayloadError, match="the table can't be read: Unsupported cast"):
        Bench().read(path=pa.array([[1], [2]]), ts=times(0, 1), value=pa.array([1.0, 2.0]))


def test_nothing_is_lost_with_a_column_that_has_nothing():
    assert Bench().read(path=["a/b"], ts=times(0), value=pa.array([None], pa.list_(pa.int8()))) == ([], [])


# --- sensors with a grid ---------------------------------------------------------------------------------------


def oven(*more):
    """A directory in which another adapter has defined a device with scales."""
    directory = SensorDirectory()
    columns = Column("t", unit="degC", scale=0.1, offset=-50.0, high=400.0), Column("n"), *more
    directory.define("leon/d", Layout("u16", columns), "u16")
    return directory


@pytest.mark.parametrize("is_long", [True, False])
def test_values_on_a_grid_are_stored_raw(is_long):
    bench = Bench(oven())
    values = [198.6, 198.60000000000002, 0.1 * 501 - 50]
    columns = {"path": ["leon/d/t"] * 3, "value": values} if is_long else {"t": values}
    (batch,), rejects = bench.read(ts=times(0, 1, 2), **columns)
    assert rejects == []
    assert bench.samples([batch]) == {("leon/d/t", 0, 2_486), ("leon/d/t", 1, 2_486), ("leon/d/t", 2, 501)}
    assert bench.directory.n_slots == 1, "the other adapter's layout is left alone"


def test_float32_and_whole_numbers_lie_on_a_grid_too():
    for array in (pa.array([198.6], pa.float32()), pa.array([decimal.Decimal("198.60")])):
        (batch,), rejects = Bench(oven()).read(ts=times(0), t=array)
        assert (batch.values[0, 0], rejects) == (2_486, [])
    (batch,), rejects = Bench(oven()).read(ts=times(0), t=pa.array([20], pa.int64()))
    assert (batch.values[0, 0], rejects) == (700, [])


def test_values_between_two_steps_are_refused_one_by_one():
    bench = Bench(oven(Column("p", scale=0.01)))
    paths = ["leon/d/t", "leon/d/n", "leon/d/t", "leon/d/p", "leon/d/t"]
    (batch,), rejects = bench.read(ts=times(*range(5)), path=paths, value=[198.65, 7, 198.6, 0.07, 6503.6])
    assert bench.samples([batch]) == {("leon/d/n", 1, 7), ("leon/d/t", 2, 2_486), ("leon/d/p", 3, 7)}
    assert rejects == [("wrong-type", 2)]
    _, found = bench.reader.read(pa.RecordBatch.from_pydict({"ts": times(0, 1), "p": [0.075, None]}), "file")
    assert found[0].detail == (
        "sensor 'leon/d/p' stores u16 * 0.01 +0, so 0 to 655.35 in steps of 0.01; 0.075 is none of them; "
        "round it, or import it under another path"
    )


def test_of_one_column_some_sensors_may_be_of_the_wrong_type():
    bench = Bench(oven())
    batches, rejects = bench.read(ts=times(0, 1), path=["leon/d/t", "leon/d/n"], value=[198.6, 2.5])
    assert bench.samples(batches) == {("leon/d/t", 0, 2_486)}
    assert rejects == [("wrong-type", 1)]
    batches, rejects = bench.read(ts=times(0), path=["leon/d/t"], value=["hot"])
    assert (batches, rejects) == ([], [("wrong-type", 1)])
    _, found = bench.reader.read(
        pa.RecordBatch.from_pydict(
            {"ts": times(0, 1), "path": ["leon/d/n", "leon/d/m"], "value": [1.5, 2.5]}
        ),
        "file",
    )
    assert [r.detail for r in found] == ["values of type double, but the type of 'leon/d/n' is u16"]


def test_numbers_of_u32_sensors_are_no_texts():
    directory = SensorDirectory()
    columns = Column("energy", scale=0.01), Column("n")
    directory.define("leon/d", Layout("u32", columns), "u32")
    for table in (
        {"energy": [1.23], "n": [7.0]},
        {"path": ["leon/d/energy", "leon/d/n"], "value": [1.23, 7.0]},
    ):
        (batch,), rejects = Bench(directory).read(ts=times(*range(len(table.get("path", [0])))), **table)
        assert (batch.dictionary, rejects) == (None, [])
        assert sorted(batch.values.reshape(-1).tolist()) == [7, 123]


def test_a_refusal_of_many_sensors_names_one():
    bench = Bench(oven(Column("m")))
    _, found = bench.reader.read(
        pa.RecordBatch.from_pydict(
            {"ts": times(0, 1), "path": ["leon/d/n", "leon/d/m"], "value": [1.5, 2.5]}
        ),
        "file",
    )
    assert [r.detail for r in found] == [
        "values of type double, but the type of 'leon/d/n' and 1 more sensors is u16"
    ]
