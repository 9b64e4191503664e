"""The reader in examples/ that knows nothing of this package: what it reads is what was stored, bit for bit."""

from __future__ import annotations

import ast
import importlib.util
import struct
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import numpy as np
import pytest

from headrace.core.clock import NS, VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.sensors import SensorDirectory
from headrace.core.tier_settings import TierSection
from headrace.store.grouping import DAY_NS
from headrace.store.query import Store
from headrace.store.tiers import TierRules
from headrace.testing.stores import StoreRig

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "read_store.py"
GOLDEN = ROOT / "tests" / "golden"
LINES_MAX = 150
T0 = 1_728_043_200 * NS
N = 3_000


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("read_store", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = np.seterr()
    spec.loader.exec_module(module)
    np.seterr(**before)
    return module


def series() -> dict[str, tuple[Layout, Any, Any]]:
    """What it has to read: layout, times, values of each sensor."""
    rng, i = np.random.default_rng(0), np.arange(N)
    regular, walk = T0 + i * NS, np.cumsum(rng.integers(-3, 4, N))
    plain, grid = (Column(""),), (Column("", scale=0.1, offset=-40.0),)
    polled = T0 + np.cumsum(rng.choice([1_000, 7_003, 20_011], N)) * 10**6
    return {
        "polled": (Layout("i32", plain), polled, 3 * i),
        "fixed": (Layout("f64", plain), regular, np.full(N, 2.5)),
        "random": (Layout("i64", plain), regular, np.frombuffer(rng.bytes(8 * N), np.int64)),
        "walk": (Layout("u16", grid), regular, 600 + np.clip(walk, -500, 500)),
        "steps": (Layout("i32", plain), T0 + i * NS + i // 900 * 3_600 * NS, i // 700 * 7 - 3),
        "ramp": (Layout("i32", plain), regular, 3 * i),
        "curve": (Layout("i32", plain), regular, i * i // 50),
        "state": (Layout("u8", (Column("", Kind.DISCRETE),)), regular, i // 250 % 2),
        "decimal": (Layout("f64", plain), regular, 20 + walk / 10),
        "single": (Layout("f32", plain), T0 + np.cumsum(rng.integers(1, 99, N)) * 10**7, rng.normal(size=N)),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    rig = StoreRig(LocalDisk(folder), SensorDirectory(shard_bits=1))
    for name, (layout, ts_ns, values) in series().items():
        slot = rig.directory.define(f"plant/{name}", layout)
        column = np.asarray(values).astype(numpy_dtype(layout.dtype))[:, None]
        rig.add(FrameBatch.dense(np.full(N, slot, np.uint32), ts_ns, column))
    rig.flush()
    rig.compact()
    slot = rig.directory.define("plant/walk", series()["walk"][0])
    late = np.array([slot], np.uint32), np.array([T0 + 5 * NS]), np.array([[700]], np.uint16)
    rig.add(FrameBatch.dense(*late))
    rig.flush()
    rig.compact()
    return folder


def bits(values: list[Any]) -> list[bytes]:
    return [struct.pack("<d", v) for v in values]


def answer(folder: Path, path: str) -> list[dict[str, Any]]:
    found = Store.open(folder, None, VirtualClock()).query(path, 0, 2**62)
    assert found.missing == ()
    return found.to_rows()


def test_it_is_as_short_as_it_says_and_imports_nothing_of_ours() -> None:
    text = EXAMPLE.read_text()
    tree = ast.parse(text)
    lines = text.splitlines()[tree.body[0].end_lineno :]
    assert sum(1 for line in lines if line.strip() and not line.strip().startswith("#")) <= LINES_MAX
    assert "import headrace" not in text
    assert "from headrace" not in text


@pytest.mark.parametrize("name", sorted(series()))
def test_every_sample_has_the_bits_that_a_query_gives(reader: ModuleType, folder: Path, name: str) -> None:
    expected = answer(folder, f"plant/{name}")
    with np.errstate(over="ignore", invalid="ignore"):
        found = reader.read_sensor(folder, f"plant/{name}")
    assert list(found) == [row["ts"] for row in expected]
    assert [q for _, q in found.values()] == [row["quality"] for row in expected]
    if name == "random":  # 64-bit integers stay integers
        assert (
            [v for v, _ in found.values()] == [row["value"] for row in expected] == series()[name][2].tolist()
        )
    else:
        assert bits([v for v, _ in found.values()]) == bits([row["value"] for row in expected])


def test_of_two_versions_of_a_sample_the_newer_counts(reader: ModuleType, folder: Path) -> None:
    assert reader.read_sensor(folder, "plant/walk")[T0 + 5 * NS] == (30.0, 0)


def test_it_reads_what_is_cold_and_what_came_late_to_it(reader: ModuleType, tmp_path: Path) -> None:
    rules = TierRules({"all": TierSection.model_validate({"match": "**", "after": {"cold": "30d"}})})
    rig = StoreRig(LocalDisk(tmp_path), SensorDirectory(shard_bits=1), rules=rules)
    slot = rig.directory.define("plant/walk", series()["walk"][0])
    _, ts_ns, values = series()["walk"]
    for day in (0, 1, 2):
        column = np.asarray(values).astype(np.uint16)[:, None] + np.uint16(day)
        rig.add(FrameBatch.dense(np.full(N, slot, np.uint32), ts_ns + day * DAY_NS, column))
    rig.flush()
    rig.compact()
    rig.clock.set_ns(T0 + 100 * DAY_NS)
    rig.compact()
    assert rig.store.refresh().cold
    for is_late in (False, True):
        if is_late:
            rig.add(
                FrameBatch.dense(
                    np.array([slot], np.uint32), np.array([T0 + 5 * NS]), np.array([[700]], np.uint16)
                )
            )
            rig.flush()
            rig.compact()
        found = reader.read_sensor(tmp_path, "plant/walk")
        expected = answer(tmp_path, "plant/walk")
        assert len(found) == 3 * N
        assert [(ts, *one) for ts, one in found.items()] == [
            (r["ts"], r["value"], r["quality"]) for r in expected
        ]
    assert found[T0 + 5 * NS] == (30.0, 0)


LOSSY = {
    "noise": lambda i: 20.0 + np.random.default_rng(1).normal(size=len(i)),
    "tenths": lambda i: np.round(
        20.0 + 5 * np.sin(i / 40) + np.random.default_rng(2).normal(size=len(i)) / 3, 1
    ),
    "single": lambda i: np.float32(3 * np.sin(i / 70) + np.random.default_rng(3).normal(size=len(i))),
}


@pytest.mark.parametrize("name", sorted(LOSSY))
def test_it_reads_what_is_kept_within_a_bound(reader: ModuleType, tmp_path: Path, name: str) -> None:
    section = TierSection.model_validate({"match": "**", "after": {"cold": "30d"}, "bound": {"range": 0.01}})
    rig = StoreRig(LocalDisk(tmp_path), SensorDirectory(shard_bits=1), rules=TierRules({"all": section}))
    values = LOSSY[name](np.arange(N))
    slot = rig.directory.define(f"plant/{name}", Layout("f32" if name == "single" else "f64", (Column(""),)))
    rig.add(FrameBatch.dense(np.full(N, slot, np.uint32), T0 + np.arange(N) * NS, values[:, None]))
    rig.flush()
    rig.compact()
    rig.clock.set_ns(T0 + 100 * DAY_NS)
    rig.compact()
    codecs = {
        row["value_codec"] for file in reader.files(tmp_path) for row in reader.rows_of(file, f"plant/{name}")
    }
    assert {one.split("~")[0].split("@")[0] for one in codecs} == {"quantise"}
    found, expected = reader.read_sensor(tmp_path, f"plant/{name}"), answer(tmp_path, f"plant/{name}")
    assert bits([value for value, _ in found.values()]) == bits([row["value"] for row in expected])
    assert list(found) == [row["ts"] for row in expected]
    error = np.abs(np.array([value for value, _ in found.values()]) - values)
    assert 0 < error.max() <= 0.01 * np.ptp(values) * (1 + 1e-9)


def test_headers_alone_give_the_means_to_it_and_to_duckdb(reader: ModuleType, folder: Path) -> None:
    means = reader.read_means(folder)
    files = reader.files(folder)
    rows = duckdb.sql(
        f"SELECT path, sum(count), sum(sum) / sum(count) FROM read_parquet({files}) GROUP BY path"
    ).fetchall()
    for name in set(series()) - {"random", "walk"}:
        rows_of = answer(folder, f"plant/{name}")
        count, mean = means[f"plant/{name}"]
        assert count == N
        assert mean == pytest.approx(sum(row["value"] for row in rows_of) / N, rel=1e-12, abs=1e-12)
        assert (f"plant/{name}", N, pytest.approx(mean)) in rows


@pytest.mark.parametrize(("name", "n_read"), [("0002-bare-chunks", 6), ("0003-tiers", 5)])
def test_of_a_golden_store_it_reads_or_refuses_by_name(
    reader: ModuleType, tmp_path: Path, name: str, n_read: int
) -> None:
    with zipfile.ZipFile(GOLDEN / name / "store.zip") as archive:
        archive.extractall(tmp_path)
    store = Store.open(tmp_path, None, VirtualClock())
    sensors = store.directory.find("plant/*/*")
    read, refused = [], []
    for path in sorted(store.directory.sensor_paths(sensors.slot, sensors.column).tolist()):
        expected = [row for row in answer(tmp_path, path) if row["ts"] < 20_001 * 86_400 * NS]
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                found = reader.read_sensor(tmp_path, path)
        except NotImplementedError as e:
            refused.append(str(e))
            continue
        read += [path] if found else []
        # What came late lies in the hot tier, which is not read here.
        expected = [row for row in expected if row["ts"] in found]
        for (ts_ns, (value, quality)), row in zip(found.items(), expected, strict=True):
            assert (ts_ns, quality) == (row["ts"], row["quality"])
            assert value == row["value"] or value == row.get("text") or value != value
    assert len(read) >= n_read
    assert all(sentence.endswith("not read here") for sentence in refused)
