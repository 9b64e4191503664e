"""The simulated disk keeps the contract's promises, and no others."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.disk import Disk, LocalDisk
from headrace.core.errors import NotFound, StorageError
from headrace.core.faults import FaultPoints
from headrace.sim.disk import SimulatedDisk
from headrace.sim.faults import CountedFaults, Crashed
from headrace.store.disks import SplitDisk


@pytest.fixture(params=["local", "simulated", "split", "cloud"])
def any_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    """All disks: what holds for one holds for the others."""
    if request.param == "local":
        return LocalDisk(tmp_path)
    if request.param == "simulated":
        return SimulatedDisk()
    from headrace.store.cloud import CloudDisk

    cloud = CloudDisk(request.getfixturevalue("bucket").url)
    return cloud if request.param == "cloud" else SplitDisk(LocalDisk(tmp_path), cloud, {"url": cloud.url})


@pytest.fixture(params=["local", "simulated"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    """Disks whose files grow."""
    return LocalDisk(tmp_path) if request.param == "local" else SimulatedDisk()


def test_files_are_created_once_swapped_and_removed(any_disk: Disk) -> None:
    disk = any_disk
    assert disk.put_if_absent("commits/one", b"first")
    assert not disk.put_if_absent("commits/one", b"second")
    assert not disk.put_if_absent("commits/one", b"first")
    assert bytes(disk.read("commits/one")) == b"first"
    disk.replace("commits/one", bytearray(b"third"))
    disk.replace("b/two", memoryview(b""))
    assert bytes(disk.read("commits/one")) == b"third"
    assert bytes(disk.read("b/two")) == b""
    assert disk.list("commits") == ["commits/one"]
    assert disk.list("commit") == disk.list("nowhere") == []
    assert disk.size("commits/one") == 5
    disk.delete("commits/one")
    disk.delete("commits/one")
    for action in (disk.read, disk.size, disk.open):
        with pytest.raises(NotFound, match="commits/one does not exist"):
            action("commits/one")
    assert disk.put_if_absent("commits/one", b"again")
    assert disk.free_bytes() > 0


def test_lists_are_sorted_and_whole(any_disk: Disk) -> None:
    paths = [f"commits/{n % 3:08d}/{n:08d}.json" for n in range(40)]
    for path in paths:
        any_disk.put_if_absent(path, b"x")
    assert any_disk.list("commits") == sorted(paths)
    assert any_disk.list("commits/00000001") == sorted(p for p in paths if "/00000001/" in p)


@pytest.mark.parametrize("size_bytes", [5_000, 3 << 20])
def test_files_are_read_in_parts(any_disk: Disk, size_bytes: int) -> None:
    data = np.random.default_rng(3).integers(0, 256, size_bytes, dtype=np.uint8).tobytes()
    any_disk.put_if_absent("segments/one", data)
    for known in (None, size_bytes):
        file = any_disk.open("segments/one", known)
        assert file.size_bytes == size_bytes
        assert bytes(file.read(0, size_bytes)) == data
        starts, ends = [0, 10, size_bytes - 7, 300, 1_000], [4, 10, size_bytes, 2_000, size_bytes - 9]
        assert [bytes(p) for p in file.read_many(starts, ends)] == [
            data[a:b] for a, b in zip(starts, ends, strict=True)
        ]
    assert bytes(any_disk.read("segments/one")) == data


def test_what_was_prefetched_is_read_as_it_is(any_disk: Disk) -> None:
    any_disk.put_if_absent("commits/1", b"one")
    any_disk.put_if_absent("commits/2", b"two")
    any_disk.prefetch(["commits/1", "commits/2", "commits/3", "journal/1"])
    assert bytes(any_disk.read("commits/2")) == b"two"
    assert bytes(any_disk.read("commits/1")) == b"one"
    any_disk.replace("commits/1", b"new")
    assert bytes(any_disk.read("commits/1")) == b"new"
    with pytest.raises(NotFound):
        any_disk.read("commits/3")


def test_a_file_that_was_replaced_is_read_anew(any_disk: Disk) -> None:
    any_disk.put_if_absent("segments/one", b"a" * 1_000)
    assert bytes(any_disk.open("segments/one").read(0, 2)) == b"aa"
    any_disk.replace("segments/one", b"b" * 500)
    file = any_disk.open("segments/one", 500)
    assert (bytes(file.read(0, 2)), file.size_bytes) == (b"bb", 500)


def test_files_are_created_once_swapped_cut_and_removed(disk: Disk) -> None:
    assert disk.put_if_absent("a/one", b"first")
    assert not disk.put_if_absent("a/one", b"second")
    assert bytes(disk.read("a/one")) == b"first"
    disk.replace("a/one", b"third")
    disk.replace("b/two", b"")
    assert bytes(disk.read("a/one")) == b"third"
    assert disk.list("a") == ["a/one"]
    assert disk.list("nowhere") == []
    disk.truncate("a/one", 2)
    assert disk.size("a/one") == 2
    disk.delete("a/one")
    disk.delete("a/one")
    for action in (disk.read, disk.size):
        with pytest.raises(NotFound, match="a/one does not exist"):
            action("a/one")
    assert disk.free_bytes() > 0


def test_files_grow_by_one_writer(disk: Disk) -> None:
    file = disk.append("j/1")
    with pytest.raises(FileExistsError):
        disk.append("j/1")
    file.write([b"ab", b"", memoryview(b"cd")])
    assert disk.size("j/1") == 4
    file.sync()
    file.write([b"ef"])
    assert bytes(disk.read("j/1")) == b"abcdef"
    file.close()


# --- what only the simulated one does ------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3_000), st.integers(0, 3_000))
def test_a_crash_keeps_what_was_synced_and_some_of_the_rest(seed: int, n_synced: int, n_more: int) -> None:
    disk = SimulatedDisk(seed)
    file = disk.append("j/1")
    file.write([b"s" * n_synced])
    file.sync()
    file.write([b"u" * n_more])
    disk.put_if_absent("c/1", b"commit")
    after = disk.crash()
    data = bytes(after.read("j/1"))
    assert n_synced <= len(data) <= n_synced + n_more
    assert data[:n_synced] == b"s" * n_synced
    assert set(data[n_synced:]) <= {ord("u"), 0}
    assert bytes(after.read("c/1")) == b"commit"
    for dead in (
        lambda: disk.list("j"),
        lambda: disk.read("c/1"),
        lambda: file.write([b"x"]),
        disk.free_bytes,
    ):
        with pytest.raises(Crashed):
            dead()


def test_unsynced_bytes_are_kept_torn_or_lost_by_the_seed() -> None:
    seen = set()
    for seed in range(60):
        disk = SimulatedDisk(seed)
        disk.append("j/1").write([b"u" * 900])
        data = bytes(disk.crash().read("j/1"))
        seen.add("lost" if not data else "holed" if 0 in data else "torn")
        again = SimulatedDisk(seed)
        again.append("j/1").write([b"u" * 900])
        assert bytes(again.crash().read("j/1")) == data
    assert seen == {"lost", "holed", "torn"}


def test_deletions_may_be_undone_the_newest_first_until_the_folder_is_written() -> None:
    left = set()
    for seed in range(40):
        disk = SimulatedDisk(seed)
        for name in "abc":
            disk.replace(f"j/{name}", b"x")
        for name in "abc":
            disk.delete(f"j/{name}")
        left.add(tuple(disk.crash().list("j")))
    assert left == {(), ("j/c",), ("j/b", "j/c"), ("j/a", "j/b", "j/c")}
    disk = SimulatedDisk()
    disk.replace("j/a", b"x")
    disk.delete("j/a")
    disk.replace("j/b", b"x")
    assert disk.crash().list("j") == ["j/b"]


@pytest.mark.parametrize("point", ["disk.put", "disk.replace", "disk.truncate", "disk.append", "disk.delete"])
def test_an_operation_during_which_the_process_ends_is_done_or_not(point: str) -> None:
    outcomes = set()
    for seed in range(30):
        disk = SimulatedDisk(seed)
        disk.replace("f/old", b"old")
        disk.faults = CountedFaults({point: 1})
        with pytest.raises(Crashed):
            {
                "disk.put": lambda d: d.put_if_absent("f/new", b"new"),
                "disk.replace": lambda d: d.replace("f/old", b"new"),
                "disk.truncate": lambda d: d.truncate("f/old", 1),
                "disk.append": lambda d: d.append("f/new"),
                "disk.delete": lambda d: d.delete("f/old"),
            }[point](disk)
        after = disk.crash()
        outcomes.add(tuple((p, bytes(after.read(p))) for p in after.list("f")))
    done = {
        "disk.put": (("f/new", b"new"), ("f/old", b"old")),
        "disk.replace": (("f/old", b"new"),),
        "disk.truncate": (("f/old", b"o"),),
        "disk.append": (("f/new", b""), ("f/old", b"old")),
        "disk.delete": (("f/old", b"old"),),
    }[point]
    assert outcomes == {(("f/old", b"old"),), done}


def test_a_write_may_end_half_way() -> None:
    disk = SimulatedDisk(faults=CountedFaults({"disk.write": 1}))
    file = disk.append("j/1")
    with pytest.raises(Crashed):
        file.write([b"x" * 100])
    assert disk.size("j/1") == 50
    disk.faults = CountedFaults({"disk.sync": 1})
    with pytest.raises(Crashed):
        file.sync()


@pytest.mark.parametrize("room", [0, 3, 5, 9])
def test_a_full_disk_takes_what_fits_and_the_file_is_done_for(room: int) -> None:
    disk = SimulatedDisk(capacity_bytes=room)
    file = disk.append("j/1")
    with pytest.raises(StorageError, match="can't write j/1: the disk is full; free some space"):
        file.write([b"0123456789"])
    assert bytes(disk.read("j/1")) == b"0123456789"[:room]
    disk.capacity_bytes = 1_000
    with pytest.raises(StorageError, match="the file was closed or has failed"):
        file.write([b"x"])
    disk.capacity_bytes = room
    with pytest.raises(StorageError, match="full"):
        disk.put_if_absent("c/1", b"x")
    with pytest.raises(StorageError, match="full"):
        disk.replace("c/1", b"x")
    assert disk.free_bytes() == 0


def test_a_read_only_disk_can_be_read() -> None:
    disk = SimulatedDisk()
    file = disk.append("j/1")
    file.write([b"x"])
    disk.is_read_only = True
    for refused in (
        lambda: file.write([b"y"]),
        file.sync,
        lambda: disk.append("j/2"),
        lambda: disk.put_if_absent("c", b""),
        lambda: disk.replace("c", b""),
        lambda: disk.truncate("j/1", 0),
        lambda: disk.delete("j/1"),
    ):
        with pytest.raises(StorageError, match="the file system is read-only"):
            refused()
    assert bytes(disk.read("j/1")) == b"x"
    assert errno.EROFS
    assert isinstance(disk.faults, FaultPoints)


def test_bits_rot() -> None:
    disk = SimulatedDisk()
    disk.replace("a", b"\x00\x00")
    disk.flip_bit("a", 1, 7)
    assert bytes(disk.read("a")) == b"\x00\x80"
