"""The worked example of a codec in a package of its own: installed, it passes the kit and is used by a store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.integration.packages import EXAMPLES, install, python

from headrace.codecs import registry
from headrace.core.clock import NS
from headrace.core.disk import LocalDisk
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.store import warm
from headrace.store.query import Store
from headrace.store.result import QueryResult
from headrace.store.segment import SegmentFile
from headrace.store.verify import verify_store
from headrace.store.warm import choose_values
from headrace.testing.stores import StoreRig

PACKAGE = EXAMPLES / "headrace-zlib-planes"
ENTRY_POINTS = "[headrace.codecs]\nzlib_planes = headrace_zlib_planes.codec:ZlibPlanesCodec\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package."""
    return install(PACKAGE, tmp_path_factory.mktemp("site"), ENTRY_POINTS)


def test_its_own_tests_pass(installed: Path) -> None:
    out = python(
        installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(PACKAGE / "tests")
    )
    assert "6 passed" in out


def test_it_is_listed_with_its_package(installed: Path) -> None:
    listed = json.loads(python(installed, "-m", "headrace", "plugins", "list", "codecs", "--json"))
    (one,) = [p for p in listed if p["name"] == "zlib_planes"]
    assert one["package"] == "headrace-zlib-planes 1.0.0"
    assert not one["problem"]


def test_a_store_writes_with_it_and_needs_it_to_read(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.tile(
        np.random.default_rng(0).random(400), 5
    )  # no number predicts the next, but all come again
    directory = SensorDirectory(shard_bits=1)
    slot = directory.define("plant/noise", Layout("f64", (Column(""),)))
    rig = StoreRig(LocalDisk(tmp_path), directory)
    ts_ns = 1_728_000_000 * NS + np.arange(values.size) * NS
    rig.add(FrameBatch.dense(np.full(values.size, slot, np.uint32), ts_ns, values[:, None]))
    rig.flush()

    def answer() -> QueryResult:
        return Store.open(tmp_path, None, rig.clock).query("**", int(ts_ns[0]), int(ts_ns[-1]) + 1)

    try:
        with monkeypatch.context() as present:
            present.syspath_prepend(str(installed))
            registry.foreign_value_codecs.cache_clear()
            rig.compact()
            (source,) = rig.store.refresh().sources(0, 2**62)
            codec = SegmentFile(rig.disk, source.info).table(["value_codec"])["value_codec"].to_pylist()
            assert codec == ['zlib_planes {"level": 6}']
            found = answer()
            assert found.missing == ()
            assert np.array([row["value"] for row in found.to_rows()]).tobytes() == values.tobytes()
            registry.VALUE_CODECS._foreign.clear()
            warm._value_codec.cache_clear()
        (said,) = answer().missing
        sentence = "was written by the codec 'zlib_planes'; install the package that adds it"
        assert f"samples of plant/noise {sentence}" in said
        (harm,) = verify_store(rig.disk, Store.open(tmp_path, None, rig.clock)).harms
        assert f"(plant/noise): it {sentence}" in harm.sentence
    finally:
        registry.foreign_value_codecs.cache_clear()


def test_a_foreign_codec_that_fails_or_cannot_be_made_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def pack(self, values: object) -> bytes:
            raise RuntimeError("a defect")

    values = np.random.default_rng(0).random(100)
    expected = choose_values(values)
    monkeypatch.setattr(warm, "foreign_value_codecs", lambda: (Failing(),))
    assert choose_values(values) == expected
    registry.foreign_value_codecs.cache_clear()
    monkeypatch.setattr(registry.VALUE_CODECS, "foreign", lambda: ["quantise", "nowhere"])
    try:
        monkeypatch.setattr(registry.VALUE_CODECS, "targets", lambda: {"nowhere": "nowhere.at:All"})
        assert registry.foreign_value_codecs() == ()
    finally:
        registry.foreign_value_codecs.cache_clear()
