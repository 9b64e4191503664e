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

pytestmark = pytest.mark.timeout(240)  # the first test may compile kernels
HERE = Path(__file__).parent
SETS = sorted(p for p in HERE.iterdir() if p.is_dir() and p.name[0].isdigit())
WITH_BODIES = [p for p in SETS if (p / "bodies.json").exists()]
WITH_WINDOWS = [p for p in SETS if (p / "windows.csv.gz").exists()]
BYTES_MAX = 300_000


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
    assert WITH_WINDOWS[-1:] == SETS[-1:]
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
    found = life.host.store.query("**", make.START - make.DAY, make.START + 10 * make.DAY).to_csv(labels=True)
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
