"""Which disk a store is on, and what goes where."""

import json
import shutil
import sys
from pathlib import Path

import certifi
import pytest

from headrace.core.config import parse_plant
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, NotFound, PluginError, StorageError
from headrace.sim.disk import SimulatedDisk
from headrace.store.disks import (
    MARKER_FILE,
    SplitDisk,
    local_of,
    mark_folder,
    open_disk,
    plant_disk,
    url_of,
)

PLACE = {"url": "s3://plants/leon", "options": {}}


def plant(folder, **store):
    return parse_plant({"version": 1, "store": store}, Path(folder))


def test_segments_go_to_the_bucket_and_the_journal_stays(tmp_path):
    local, objects = LocalDisk(tmp_path), SimulatedDisk()
    disk = SplitDisk(local, objects, PLACE)
    far = [
        "commits/1",
        "segments/hot/1",
        "manifests/warm/1",
        "state/1",
        "directory/1",
        "rollups/1m/1",
        "tiers/1",
    ]
    near = ["journal/1/1", "rejects/1", "config/1", "running.json", "store.json"]
    for path in [*far, *near]:
        assert disk.put_if_absent(path, b"x")
    assert all(objects.size(path) == 1 for path in far)
    assert all(local.size(path) == 1 for path in near)
    assert disk.list("commits") == ["commits/1"]
    assert disk.list("journal") == ["journal/1/1"]
    disk.append("journal/1/2").close()
    disk.truncate("journal/1/1", 0)
    assert local.size("journal/1/1") == 0
    assert disk.free_bytes() == local.free_bytes()
    assert (local_of(disk), url_of(disk), disk.n_reads_at_once) == (local, "s3://plants/leon", 1)
    assert (local_of(local), url_of(local)) == (local, str(tmp_path))
    assert (local_of(objects), url_of(objects)) == (None, "")


def test_ranges_that_an_earlier_release_kept_in_the_folder_are_handed_over(tmp_path):
    local, objects = LocalDisk(tmp_path), SimulatedDisk()
    local.put_if_absent("tiers/ranges.parquet", b"x")
    mark_folder(SplitDisk(local, objects, PLACE))
    assert (bytes(objects.read("tiers/ranges.parquet")), local.list("tiers")) == (b"x", [])
    mark_folder(SplitDisk(local, objects, PLACE))
    assert objects.list("tiers") == ["tiers/ranges.parquet"]


def test_the_folder_of_a_store_in_a_bucket_says_so(tmp_path):
    options = {"endpoint": "https://minio:9000", "region": "eu-1", "timeout": "5s"}
    config = plant(tmp_path, url="s3://plants/leon/", options=options)
    disk = plant_disk(config)
    assert not (tmp_path / "store").exists()
    mark_folder(disk)
    again = open_disk(tmp_path / "store")
    assert again.place == disk.place == {"url": "s3://plants/leon", "options": options}
    assert url_of(again) == "s3://plants/leon"
    assert local_of(again).root == tmp_path / "store"
    assert isinstance(plant_disk(config), SplitDisk)
    mark_folder(LocalDisk(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("url", ["s3://plants/another", "./store"])
def test_a_folder_belongs_to_one_store(tmp_path, url):
    mark_folder(plant_disk(plant(tmp_path, url="s3://plants/leon")))
    with pytest.raises(ConfigError, match="keeps the journal of s3://plants/leon, and the plant file names"):
        plant_disk(plant(tmp_path, url=url))


def test_a_store_in_a_folder_is_not_taken_for_the_folder_of_a_bucket(tmp_path):
    """Else the folder would be marked as no store of its own, and its journal be replayed into the bucket."""
    local, config = LocalDisk(tmp_path / "store"), plant(tmp_path, url="s3://plants/leon")
    local.put_if_absent("journal/1", b"x")
    local.put_if_absent("commits/1", b"x")
    with pytest.raises(ConfigError, match=r"store\.folder: .* holds a whole store"):
        plant_disk(config)
    assert isinstance(plant_disk(plant(tmp_path, url="./store")), LocalDisk)
    local.delete("commits/1")  # it was moved to the bucket
    assert isinstance(plant_disk(config), SplitDisk)


@pytest.mark.parametrize("text", ["file://store", "file://store/x", "file://"])
def test_a_file_url_that_names_no_folder_is_refused(text):
    with pytest.raises(ConfigError, match="is not a folder"):
        open_disk(text)


def test_certificates_lie_beside_the_plant_file(tmp_path):
    config = plant(tmp_path, url="s3://plants", options={"ca_file": "ca.pem"})
    with pytest.raises(ConfigError, match="can't use s3://plants"):
        plant_disk(config)
    shutil.copy(certifi.where(), tmp_path / "ca.pem")
    assert plant_disk(config).place["options"]["ca_file"] == str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 2, "url": "s3://a", "options": {}}', '{"version": 1, "url": "./x", "options": {}}',
     '{"version": 1, "url": "s3://a", "options": 5}', "[" * 100_000],
)  # fmt: skip
def test_a_marker_that_can_not_be_read_is_told(tmp_path, text):
    (tmp_path / MARKER_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"store\.json can't be read"):
        open_disk(tmp_path)


def test_options_of_a_newer_version_are_told(tmp_path):
    text = json.dumps({"version": 1, "url": "s3://a", "options": {"colour": "red"}})
    (tmp_path / MARKER_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"the options of s3://a can't be read"):
        open_disk(tmp_path)


def test_a_bucket_alone_is_only_read():
    disk = open_disk("gs://plants/leon")
    assert disk.list("journal") == []
    for read in (disk.read, disk.open, disk.size):
        with pytest.raises(NotFound):
            read("running.json")
    disk.delete("running.json")
    disk.prefetch(["running.json"])
    disk.local.prefetch([])
    assert disk.free_bytes() == 0
    writes = (
        lambda: disk.append("journal/1"), lambda: disk.replace("x", b""), lambda: disk.put_if_absent("x", b""),
        lambda: disk.truncate("x", 0),
    )  # fmt: skip
    for write in writes:
        with pytest.raises(StorageError, match="named by its bucket is only read"):
            write()


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "headrace.store.cloud", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(PluginError, match=r"pip install 'headrace\[cloud\]'"):
        open_disk("s3://plants/leon")
