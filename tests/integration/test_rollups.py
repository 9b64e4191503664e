"""Rollups: plain Parquet that any tool reads, whole at any time, whatever comes late or is cut short."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from headrace.core.clock import NS, VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.errors import StorageError
from headrace.store.compactor import CompactionPolicy, Compactor
from headrace.store.query import Store
from headrace.store.rollups import HOUR_NS, RollupPolicy, Rollups
from headrace.testing.tables import T0, import_table, long_table

HOUR = 3_600
LEVELS = ("site", "area", "line", "device", "signal")


class RefusingDisk(LocalDisk):
    """A disk that refuses after so many files were replaced."""

    left = 1_000_000

    def replace(self, path, data):
        if self.left == 0:
            raise StorageError(f"can't write {path}: the disk is full; free some space")
        self.left -= 1
        super().replace(path, data)


def rollups(folder, now_s, disk=None, **policy):
    store = Store.open(LocalDisk(folder / "store") if disk is None else disk)
    return Rollups(store, VirtualClock(T0 + now_s * NS), LEVELS, RollupPolicy(**policy))


def files(folder):
    return sorted(
        p.relative_to(folder / "store" / "rollups").as_posix()
        for p in folder.glob("store/rollups/**/*.parquet")
    )


def rows(folder):
    """Everything, by path and minute."""
    frame = pl.read_parquet(folder / "store/rollups/1m/*/*.parquet")
    keys = [
        (p, (t - T0) // (60 * NS)) for p, t in zip(frame["path"], frame["ts"].cast(pl.Int64), strict=True)
    ]
    assert len(set(keys)) == len(keys), "a minute is there twice"
    return dict(zip(keys, frame.to_dicts(), strict=True))


def test_each_minute_of_each_sensor_is_a_row_for_every_tool(tmp_path):
    import_table(tmp_path, long_table(0, 2 * HOUR))
    done = rollups(tmp_path, 2 * HOUR + 301).run_once()
    assert (done.n_parts, done.n_rows, done.n_waiting, done.problems) == (2, 240, 0, [])
    assert files(tmp_path) == ["1m/2026-03-02/part-08-00of01.parquet", "1m/2026-03-02/part-09-00of01.parquet"]
    found = rows(tmp_path)
    assert len(found) == 240
    row = found["leon/paint/line1/oven1/temperature", 7]
    assert [row[level] for level in LEVELS] == ["leon", "paint", "line1", "oven1", "temperature"]
    values = 181.0 + np.arange(60) / 100
    assert (row["count"], row["min"], row["max"]) == (60, values.min(), values.max())
    assert (row["first"], row["last"]) == (values[0], values[-1])
    assert row["mean"] == pytest.approx(values.mean(), abs=1e-12)
    assert row["sum"] == pytest.approx(values.sum(), abs=1e-10)
    where = tmp_path / "store/rollups/1m"
    sql = f"SELECT device, sum(count), epoch_ns(min(ts)) FROM '{where}/*/*.parquet' GROUP BY device ORDER BY device"
    counts = duckdb.sql(sql).fetchall()
    assert [(device, int(n)) for device, n, _ in counts] == [("oven0", 7_200), ("oven1", 7_200)]
    lazy = (
        pl.scan_parquet(f"{where}/*/*.parquet").filter(pl.col("device") == "oven0").select(pl.len()).collect()
    )
    assert lazy.item() == 120
    frame = pd.read_parquet(where / "2026-03-02")
    assert str(frame["ts"].dtype) == "datetime64[ns, UTC]"
    assert frame["count"].sum() == 14_400


def test_the_present_hour_is_written_now_and_then_without_its_newest_minutes(tmp_path):
    import_table(tmp_path, long_table(0, 1_800))
    policy = {"lag_s": 300, "open_every_s": 900}
    assert rollups(tmp_path, 200, **policy).run_once().n_parts == 0  # no minute is whole
    done = rollups(tmp_path, 1_220, **policy).run_once()
    assert (done.n_rows, done.n_waiting) == (2 * 15, 1)
    assert rollups(tmp_path, 1_900, **policy).run_once().n_parts == 0  # not its turn
    assert rollups(tmp_path, 2_121, **policy).run_once().n_rows == 2 * 30
    assert rollups(tmp_path, 3_700, open_sensors_max=1, **policy).run_once().n_parts == 0
    assert rollups(tmp_path, HOUR + 300, open_sensors_max=1, **policy).run_once().n_waiting == 0
    assert len(rows(tmp_path)) == 60


def test_late_data_replace_the_hour_they_fall_into_and_no_other(tmp_path):
    import_table(tmp_path, long_table(0, 2 * HOUR, step_s=2), "even")
    rollups(tmp_path, 3 * HOUR).run_once()
    second = tmp_path / "store/rollups/1m/2026-03-02/part-09-00of01.parquet"
    before = second.stat().st_mtime_ns, rows(tmp_path)
    import_table(tmp_path, long_table(1, 600, step_s=2), "odd")
    done = rollups(tmp_path, 4 * HOUR).run_once()
    assert done.n_parts == 1
    after = rows(tmp_path)
    assert second.stat().st_mtime_ns == before[0]
    changed = {key for key in after if after[key] != before[1][key]}
    assert changed == {(f"leon/paint/line1/oven{i}/temperature", m) for i in (0, 1) for m in range(10)}
    assert {after[key]["count"] for key in changed} == {60}
    assert rollups(tmp_path, 5 * HOUR).run_once().n_parts == 0


def test_what_was_stored_before_and_compacted_is_rolled_up_once_they_are_turned_on(tmp_path):
    import_table(tmp_path, long_table(0, HOUR), "one")
    store = Store.open(LocalDisk(tmp_path / "store"))
    clock = VirtualClock(T0 + 3 * 86_400 * NS)
    Compactor(store, clock, policy=CompactionPolicy(min_age_s=0, grace_s=0)).run_once(force=True)
    assert rollups(tmp_path, 3 * 86_400).run_once().n_rows == 120
    import_table(tmp_path, long_table(30 * HOUR, 600), "two")
    assert rollups(tmp_path, 3 * 86_400).run_once().n_rows == 20
    assert len(rows(tmp_path)) == 140


def test_a_run_that_is_cut_is_done_again(tmp_path):
    import_table(tmp_path, long_table(0, 5 * HOUR))
    expected = None
    for left in range(6):
        disk = RefusingDisk(tmp_path / "store")
        disk.left = left
        with pytest.raises(StorageError, match="the disk is full"):
            rollups(tmp_path, 6 * HOUR, disk).run_once()
    assert rollups(tmp_path, 6 * HOUR).run_once().n_waiting == 0
    expected = rows(tmp_path)
    assert len(expected) == 600
    (tmp_path / "store/rollups/1m/state.json").write_text("damaged")
    assert rollups(tmp_path, 6 * HOUR).run_once().n_parts == 5
    assert rows(tmp_path) == expected


def test_a_run_has_a_bound_and_begins_with_the_newest_hour(tmp_path):
    import_table(tmp_path, long_table(0, 3 * HOUR, step_s=60))
    done = rollups(tmp_path, 6 * HOUR, cpu_s_max=1e-9).run_once()
    assert (done.n_parts, done.n_waiting) == (0, 3)
    assert rollups(tmp_path, 6 * HOUR).run_once().n_parts == 3


def test_texts_derived_series_and_bad_values_are_left_out(tmp_path):
    text = {
        "pipelines": {
            "w": {
                "read": "**/temperature",
                "steps": [{"op": "window", "every": "1m", "agg": ["max"]}],
                "write": "{parent}/{signal}_max",
            }
        }
    }
    import_table(tmp_path, long_table(0, 300, ovens=1), "one", text)
    states = long_table(0, 300, ovens=1).to_pandas()
    states["path"], states["value"] = "leon/paint/line1/oven0/state", "on"
    import pyarrow as pa

    import_table(tmp_path, pa.Table.from_pandas(states, preserve_index=False), "two", text)
    rollups(tmp_path, 2 * HOUR).run_once()
    assert {path for path, _ in rows(tmp_path)} == {"leon/paint/line1/oven0/temperature"}


def test_a_damaged_segment_is_told_and_its_hours_wait(tmp_path):
    import_table(tmp_path, long_table(0, HOUR))
    (segment,) = (tmp_path / "store/segments/hot").rglob("*.parquet")
    data = bytearray(segment.read_bytes())
    data[len(data) // 3] ^= 0xFF
    segment.write_bytes(data)
    done = rollups(tmp_path, 2 * HOUR).run_once()
    assert done.n_waiting == 1
    assert "rollups of hour 2026-03-02T08Z are not written" in done.problems[0]
    assert HOUR_NS == HOUR * NS
