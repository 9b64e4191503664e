"""Series from files: types, times, and what is told where a file is not one series."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.core.errors import ConfigError, NotFound, Rejected
from headrace.runtime.series_files import read_series, regular_rate_hz, time_difference

NS = 1_000_000_000
T0 = 1_772_431_200 * NS  # 2026-03-02T06:00:00Z
TIMES = T0 + np.arange(3) * NS


def parquet(folder, **columns):
    path = folder / "series.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def csv(folder, text):
    path = folder / "series.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["t_ns", "ts_ns", "ts", "time", "timestamp"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint16", "int64"])
def test_parquet_keeps_its_types(tmp_path, name, dtype):
    values = np.array([1, 2, 3], dtype)
    ts_ns, read = read_series(parquet(tmp_path, other=["a", "b", "c"], value=values, **{name: TIMES}))
    assert ts_ns.tolist() == TIMES.tolist()
    assert (read.dtype, read.tolist()) == (np.dtype(dtype), [1, 2, 3])


@pytest.mark.parametrize(
    ("unit", "zone"), [("ns", None), ("us", "UTC"), ("ms", "Europe/Madrid"), ("s", None)]
)
def test_timestamps_of_any_unit(tmp_path, unit, zone):
    times = pa.array(TIMES, pa.timestamp("ns")).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone))
    assert read_series(parquet(tmp_path, time=times, value=[1.0, 2.0, 3.0]))[0].tolist() == TIMES.tolist()


@pytest.mark.parametrize(
    ("column", "expected", "dtype"),
    [
        (pa.array([1.5, None, 2.0]), [1.5, np.nan, 2.0], "float64"),
        (pa.array([1, None, 2], pa.int16()), [1, np.nan, 2], "float64"),
        (pa.array([True, False, True]), [1, 0, 1], "uint8"),
        (pa.array([Decimal("1.50"), Decimal("2.25"), None]), [1.5, 2.25, np.nan], "float64"),
        (pa.array(np.array([1.5, 2, 3], np.float16)), [1.5, 2, 3], "float32"),
        (pa.nulls(3), [np.nan] * 3, "float64"),
    ],
)
def test_kinds_of_values(tmp_path, column, expected, dtype):
    values = read_series(parquet(tmp_path, t_ns=TIMES, value=column))[1]
    np.testing.assert_array_equal(values, expected)
    assert values.dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    "times",
    [
        [str(t) for t in TIMES],
        ["1772431200", "1772431201", "1772431202"],
        ["1772431200.0", "1772431201.0", "1772431202.0"],
        ["1772431200000", "1772431201000", "1772431202000"],
        ["2026-03-02T06:00:00Z", "2026-03-02T06:00:01Z", "2026-03-02T06:00:02Z"],
        ["2026-03-02 06:00:00", "2026-03-02 06:00:01", "2026-03-02 06:00:02"],
        ["2026-03-02T07:00:00.000+01:00", "2026-03-02T07:00:01.000+01:00", "2026-03-02T07:00:02.000+01:00"],
    ],
)
def test_times_in_csv(tmp_path, times):
    rows = "".join(f"{t},{v}\n" for t, v in zip(times, ("1", "", "3"), strict=True))
    ts_ns, values = read_series(csv(tmp_path, "time,value\n" + rows))
    assert ts_ns.tolist() == TIMES.tolist()
    np.testing.assert_array_equal(values, [1.0, np.nan, 3.0])
    assert values.dtype == np.float64


def test_nanoseconds_are_so_whatever_their_size(tmp_path):
    assert read_series(csv(tmp_path, "t_ns,value\n0,1\n5,2\n"))[0].tolist() == [0, 5]
    assert read_series(csv(tmp_path, "ts,value\n0,1\n5,2\n"))[0].tolist() == [0, 5 * NS]


def test_an_export_of_one_sensor_is_a_series(tmp_path):
    text = "path,ts,value,quality\na/b,2026-03-02T06:00:00Z,1.5,0\na/b,2026-03-02T06:00:01Z,2.5,0\n"
    assert read_series(csv(tmp_path, text))[1].tolist() == [1.5, 2.5]
    with pytest.raises(ConfigError, match=r"holds 2 sensors \(a/b, a/c ...\)"):
        read_series(csv(tmp_path, "a/c".join(text.rsplit("a/b", 1))))


def test_what_is_no_series(tmp_path):
    with pytest.raises(NotFound, match=r"there is no file .*absent\.parquet"):
        read_series(tmp_path / "absent.parquet")
    with pytest.raises(ConfigError, match=r"has columns t_ns, v; expected value and one of t_ns"):
        read_series(parquet(tmp_path, t_ns=TIMES, v=[1, 2, 3]))
    with pytest.raises(ConfigError, match="has columns when, value; expected"):
        read_series(parquet(tmp_path, when=TIMES, value=[1, 2, 3]))
    with pytest.raises(ConfigError, match="is of type string; expected numbers"):
        read_series(parquet(tmp_path, t_ns=TIMES, value=["a", "b", "c"]))
    with pytest.raises(Rejected, match="1 rows without a time in column t_ns"):
        read_series(parquet(tmp_path, t_ns=pa.array([1, None, 3]), value=[1, 2, 3]))
    with pytest.raises(Rejected, match="column time: 'yesterday' is not a time"):
        read_series(csv(tmp_path, "time,value\nyesterday,1\n"))
    text = tmp_path / "series.txt"
    text.write_text("t_ns,value\n1,2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is neither \.parquet nor \.csv"):
        read_series(text)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bad.parquet", b"PAR1 nothing"),
        ("bad.csv", b""),
        ("rows.csv", b"t_ns,value\n1,2,3\n"),
        ("late.csv", b"ts,value\n9999-01-01 00:00:00,3\n"),
    ],
)
def test_damaged_files_are_told_in_a_sentence(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Rejected, match=f"{name} can't be read: ") as e:
        read_series(tmp_path / name)
    assert "\n" not in str(e.value)


# --- times ---------------------------------------------------------------------------------------------

A, B = Path("a.parquet"), Path("b.csv")


def test_times_that_agree():
    assert time_difference((A, TIMES), (B, TIMES.copy())) == ""


def test_which_times_differ_and_how_many():
    late = TIMES + np.array([0, 0, 1])
    assert time_difference((A, TIMES), (B, late)) == (
        "1 of 3 times of a.parquet are not in b.csv (the first: 2026-03-02T06:00:02.000000000Z) and "
        "1 of 3 times of b.csv are not in a.parquet (the first: 2026-03-02T06:00:02.000000001Z)"
    )
    assert time_difference((A, TIMES), (B, TIMES[1:])) == (
        "1 of 3 times of a.parquet are not in b.csv (the first: 2026-03-02T06:00:00.000000000Z)"
    )
    assert "same times in another order, from row 1 on" in time_difference((A, TIMES), (B, TIMES[::-1]))
    assert "some come more than once" in time_difference((A, TIMES), (B, np.append(TIMES, TIMES[:1])))


def test_rate_of_regular_times():
    assert regular_rate_hz(TIMES) == 1.0
    rounded = (np.arange(12_001) * NS / 12_000).astype(np.int64)  # 83,333.3 ns
    assert regular_rate_hz(rounded) == pytest.approx(12_000, rel=1e-9)


def test_times_without_a_rate():
    with pytest.raises(
        ConfigError, match=r"1 of 3 steps differ from 1 s .* the first after 2026-03-02T06:00:02"
    ):
        regular_rate_hz(np.append(TIMES, TIMES[-1] + 5 * NS))
    for times in (TIMES[:0], TIMES[:1], TIMES[::-1]):
        with pytest.raises(ConfigError, match="have no rate"):
            regular_rate_hz(times)
