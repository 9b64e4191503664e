"""Every golden set is read by this release: what was written once can be read for good.

Where only the last test fails, the writer has changed within the format: make the newest set anew while its format is not
released (`python tests/golden/make.py`), else add one.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import zipfile
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from headrace.codecs import registry
from headrace.core.clock import NS
from headrace.core.disk import LocalDisk
from headrace.runtime.reader import StoreReader
from headrace.runtime.soundness import verify_folder
from headrace.store import rollup_answers
from headrace.store.warm import codec_name

HERE = Path(__file__).parent
SETS = sorted(p for p in HERE.iterdir() if p.is_dir() and p.name[0].isdigit())
WITH_BODIES = [p for p in SETS if (p / "bodies.json").exists()]
WITH_WINDOWS = [p for p in SETS if (p / "windows.csv.gz").exists()]
WITH_COLD = [p for p in SETS if (p / "cold.csv.gz").exists()]
BYTES_MAX = 450_000


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", HERE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def opened(one: Path, folder: Path) -> LocalDisk:
    with zipfile.ZipFile(one / "store.zip") as archive:
        archive.extractall(folder)
    return LocalDisk(folder)


def test_there_are_sets_and_they_are_small() -> None:
    assert len(SETS) >= 2
    assert WITH_WINDOWS[-1:] == WITH_COLD[-1:] == SETS[-1:]
    assert sum(p.stat().st_size for one in SETS for p in one.iterdir()) < BYTES_MAX


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
def test_every_sample_is_what_it_was(one: Path, tmp_path: Path, make: ModuleType) -> None:
    disk = opened(one, tmp_path)
    assert make.samples(disk) == gzip.decompress((one / "samples.csv.gz").read_bytes())
    harms = [harm for harm in verify_folder(disk).harms if disk.list("journal") or harm.name != "journal"]
    assert harms == []


@pytest.mark.parametrize("one", [p for p in SETS if p.name != "0001-envelopes"], ids=lambda one: one.name)
def test_an_engine_goes_on_with_it(one: Path, tmp_path: Path, make: ModuleType) -> None:
    expected = gzip.decompress((one / "samples.csv.gz").read_bytes())
    life = make.Life(opened(one, tmp_path))
    life.flush()
    found = life.host.store.query("**", *make.SPAN).to_csv(labels=True)
    # Derived series are computed from the journal again: the tail in a set has none of them.
    rows = [row for row in found.splitlines() if b"_10s" not in row]
    assert rows == [row for row in expected.splitlines() if b"_10s" not in row]
    assert len(life.host.rejects.tables().tables[0]) == 1


@pytest.mark.parametrize("one", WITH_WINDOWS, ids=lambda one: one.name)
def test_every_window_is_what_it_was_from_rollups_and_from_samples(
    one: Path, tmp_path: Path, make: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup_answers, "BLOCK_SAMPLES_MIN", 0)
    expected = gzip.decompress((one / "windows.csv.gz").read_bytes())
    store = StoreReader(opened(one, tmp_path)).store
    assert make.windows(store) == expected
    (file,) = store.refresh().rolled[20_000]
    kept = set(store.reader.open(file).table()["time_codec"].to_pylist())
    assert {"3600,60,1", "86400,3600,60,1"} <= kept
    answered = store.query("plant/*/*", make.START, make.START + make.DAY // 2, 60 * NS, ("sum",))
    assert answered.sources["rollup_windows"] > 2 * len(expected.splitlines()) // 3
    store.uses_rollups = False
    assert make.windows(store) == expected


@pytest.mark.parametrize("one", WITH_COLD, ids=lambda one: one.name)
def test_a_cold_day_keeps_its_bound_and_the_aggregates_of_the_original(
    one: Path, tmp_path: Path, make: ModuleType
) -> None:
    disk = opened(one, tmp_path)
    store = StoreReader(disk).store
    expected = gzip.decompress((one / "cold.csv.gz").read_bytes())
    view = store.refresh()
    (cold,) = view.cold.values()
    rows = [row for info in cold.files for row in store.reader.open(info).table().to_pylist()]
    assert len({codec_name(row["value_codec"]) for row in rows if row["bound"]}) >= 3
    for row in rows:
        assert row["rmse"] <= row["max_error"] <= row["bound"]
    assert cold.days
    assert all(day.rollups for day in cold.days.values())
    assert make.cold_day(store) == expected
    day = make.OLD - make.DAY // 2, make.OLD + make.DAY // 2, make.DAY, ("sum", "max")
    answer = store.query("plant/*/*", *day)
    assert answer.sources["rollup_windows"] > 0
    store.uses_rollups = False
    headers = store.query("plant/*/*", *day)
    for name in (
        "sum",
        "max",
    ):  # floats of a chunk are summed and rounded, windows of it are not rounded between
        np.testing.assert_allclose(answer.columns[name], headers.columns[name], rtol=1e-15)
    # The original, which is what was fed; a sensor's bound is a share of its range.
    original = next(
        b for b in make.batches({name: i for i, name in enumerate(make.GROUPS)}, make.OLD, 4) if b.width == 6
    )
    for column, name in ((1, "sine"), (2, "noise"), (3, "steps")):
        values = original.values[:, column]
        found = store.query(f"plant/floats/{name}", make.OLD - NS, make.OLD + make.DAY // 3).columns["value"]
        (row,) = [row for row in rows if row["path"] == f"plant/floats/{name}"]
        assert 0.0 < np.abs(found - values).max() <= row["max_error"] <= 0.01 * np.ptp(values)
    states = {position.state for position in view.commits.shards.values() if position.state}
    assert len({state.partition("#")[0] for state in states}) < len(states)


@pytest.mark.parametrize("one", WITH_BODIES, ids=lambda one: one.name)
def test_every_body_is_decoded_to_the_same_bits(one: Path) -> None:
    for body in json.loads((one / "bodies.json").read_text()):
        expected = zlib.decompress(base64.b64decode(body["decoded"]))
        found = decoded(body)
        if (
            body["spec"]["name"] == "relative"
        ):  # a power of two is rounded as the machine's library does it, within the bound
            np.testing.assert_array_max_ulp(found, np.frombuffer(expected, found.dtype), 2)
        else:
            assert found.tobytes() == expected, (body["spec"], body["series"])


def decoded(body: dict[str, Any]) -> np.ndarray[Any, Any]:
    data = base64.b64decode(body["body"])
    if body["family"] == "times":
        return registry.time_codec(body["spec"]).unpack(data, body["n"])
    return registry.value_codec(body["spec"]).unpack(data, body["n"], np.dtype(body["dtype"]))


def test_the_newest_set_has_every_codec_and_what_this_release_writes(make: ModuleType) -> None:
    there = {
        (b["family"], b["spec"]["name"], b["series"]): b
        for b in json.loads((WITH_BODIES[-1] / "bodies.json").read_text())
    }
    made = {(b["family"], b["spec"]["name"], b["series"]): b for b in make.bodies()}
    assert {key[1] for key in there} == {*registry.VALUE_CODECS.built_in, *registry.TIME_CODECS.built_in}
    # Bytes of libraries inside (pcodec, fits, FFTs) may differ between their releases; what they decode to may not, above.
    ours = [
        key for key in made if key[1] not in ("pco", "gcd_pco", "seasonal", "ticks", "origin", "quantise")
    ]
    assert [key for key in ours if made[key]["body"] != there[key]["body"]] == []
