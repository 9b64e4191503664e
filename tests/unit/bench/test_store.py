"""``headrace bench store`` at a small size."""

import numpy as np
import pytest

from headrace.bench import aged, store
from headrace.bench.mixed import made, mixed_set
from headrace.core.errors import ConfigError, HeadraceError


def test_the_object_has_what_it_promises():
    result = store.run(60, 250, 2, repeats=3, hours=1)
    mixed, line = result["mixed"], result["line"]
    assert mixed["samples"] * 16 == mixed["raw_bytes"] == 60 * 250 * 16
    assert mixed["mismatches"] == 0
    assert 0 < mixed["warm_bytes"] < mixed["hot_bytes"] < mixed["raw_bytes"]
    best = min(mixed["plain_parquet_bytes"].values())
    assert mixed["of_best_plain_parquet"] == pytest.approx(mixed["warm_bytes"] / best, abs=1e-3)
    assert mixed["lookup"]["p50_ms"] > 0 < mixed["aggregate"]["samples_per_s"]
    assert line["samples"] * 16 == line["raw_bytes"]
    assert line["tiers"]["hot"]["ratio"] < line["tiers"]["warm"]["ratio"] < line["tiers"]["cold"]["ratio"]
    assert 0 < line["worst_error_over_bound"] <= 1 + 1e-9


def test_a_store_that_answers_otherwise_is_told(monkeypatch):
    right = store.Store.query
    monkeypatch.setattr(store.Store, "query", lambda self, *a, **k: _bent(right(self, *a, **k)))
    with pytest.raises(HeadraceError, match="60 sensors do not read back"):
        store.run(60, 20, 1, repeats=1, hours=1)


def _bent(found):
    found.columns["value"] = np.nextafter(found.columns["value"], 1e9)
    return found


def test_sustained_costs_are_by_day(tmp_path):
    found = aged.sustained(tmp_path / "a", 60, 2, lambda text: None)
    assert [day["segments_left"] for day in found["days"]] == [0, 0]
    assert found["samples"] == sum(day["samples"] for day in found["days"])
    assert found["cpu_ns_per_sample"] > 0
    assert found["compaction_samples_per_s_of_a_core"] > 0
    last = found["days"][-1]
    both = last["hot_writing_cpu_ns_per_sample"] + last["compaction_cpu_ns_per_sample"]
    assert found["hot_writing_and_compaction_cpu_ns_per_sample"] == pytest.approx(both, abs=0.2)
    assert 0 < last["hot_writing_cpu_ns_per_sample"] < last["hot_cpu_ns_per_sample"]


def test_bytes_of_a_sensor_do_not_rise_with_the_store(tmp_path):
    few, many = aged.bytes_by_size(tmp_path, [1_000, 4_000], lambda text: None)
    assert many["bytes_per_sensor"] < few["bytes_per_sensor"]
    assert many["segment_bytes_per_sensor"] < 1.02 * few["segment_bytes_per_sensor"]


def test_made_signals_differ_and_rise_in_time():
    mixed = made(60, 100, np.random.default_rng(1))
    moving = mixed.values[np.ptp(mixed.values, axis=1) > 0]  # some rest in their state
    assert len({row.tobytes() for row in moving}) == len(moving) > 50
    assert (np.diff(mixed.ts_ns) > 0).all()


def test_windows_of_files_are_within_a_day(tmp_path):
    with pytest.raises(ConfigError, match="no series"):
        mixed_set(tmp_path, 3, 10)
    lines = [f"{i // 2 * 600_000_000_000},{i}.5" for i in range(200)]  # every time twice, ten minutes apart
    (tmp_path / "slow.csv").write_text("ts_ns,value\n" + "\n".join(lines))
    mixed = mixed_set(tmp_path, 3, 100)
    assert mixed.ts_ns[0].tolist() == [
        i * 1_000_000_000 if 99 * 600 > 20 * 3_600 else i * 600_000_000_000 for i in range(100)
    ]
    with pytest.raises(ConfigError, match="101 samples or more"):
        mixed_set(tmp_path, 3, 101)
