"""Files of many shapes through the replay adapter: every value is a sample or in a reject."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.adapters.base import PlantFacts
from headrace.adapters.replay.adapter import ReplayAdapter
from headrace.core.problems import validate_section
from headrace.testing.adapters import RecordingSink

N_ROWS = 200_000


async def play(folder, **config):
    settings = validate_section(ReplayAdapter.Config, {"files": "*.*", **config}, "adapters.r")
    adapter = ReplayAdapter.from_config("r", settings, {}, PlantFacts(folder=folder))
    sink = RecordingSink()
    await adapter.start(sink)
    await adapter.finished()
    await adapter.stop()
    return sink


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
async def test_a_large_long_file_with_holes(tmp_path, suffix):
    rng = np.random.default_rng(11)
    ts = 1_700_000_000_000 + np.sort(rng.integers(0, 10_000_000, N_ROWS))
    value = np.where(rng.random(N_ROWS) < 0.01, None, rng.normal(20, 3, N_ROWS).round(2))
    path = [f"leon/d{i // 7}/s{i % 7}" for i in rng.integers(0, 70, N_ROWS).tolist()]
    table = pa.table({"ts": ts, "path": path, "value": pa.array(value.tolist(), pa.float64())})
    if suffix == ".csv":
        pa.csv.write_csv(table, tmp_path / "a.csv")
    else:
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=50_000)
    sink = await play(tmp_path)
    assert sink.n_samples == N_ROWS - table["value"].null_count
    assert sink.rejects == []
    assert sink.directory.n_sensors == 70
    total = sum(
        b.values[b.quality < 0xC0].sum() if b.quality is not None else b.values.sum() for b in sink.batches
    )
    assert total == pytest.approx(sum(v for v in value if v is not None))


async def test_in_is_out_and_rejects(tmp_path):
    """A wide file with a bad time, a bad column and a column of another type than before."""
    pq.write_table(pa.table({"ts": [1.7e9, 1.7e9 + 1], "a": [1.5, 2.5], "b": [1, 2]}), tmp_path / "a.parquet")
    bad = pa.table(
        {"ts": [1.7e9 + 2, None, 1.7e9 + 3], "a": ["x", "y", "z"], "b": [3, 4, 5], "c": [[1], [2], [3]]}
    )
    pq.write_table(bad, tmp_path / "b.parquet")
    sink = await play(tmp_path, path="leon/d/{key}")
    assert sink.n_samples == 4 + 2
    assert sum(r.n_samples for r in sink.rejects) == 3 + 2 + 2
    assert {str(r.code) for r in sink.rejects} == {"bad-time", "wrong-type"}
