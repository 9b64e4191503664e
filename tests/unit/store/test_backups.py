"""Catalogues of backups: what they say, and what becomes of those that are damaged or mean harm."""

import numpy as np
import pytest

from headrace.core.errors import CorruptionError, NotFound, StorageError
from headrace.sim.disk import SimulatedDisk
from headrace.store.backups import (
    CATALOGUE,
    BackupDisk,
    Catalogue,
    CataloguedFile,
    content_digest,
    read_catalogue,
    write_catalogue,
)
from headrace.store.commits import sealed_json

ONCE = CataloguedFile("segments/hot/1.parquet", 3, content_digest(b"abc"))
GROWN = CataloguedFile("audit.jsonl", 2, content_digest(b"{}"), 7, "audit.jsonl~x")
SOUND = Catalogue(5, (1, 2), {one.path: one for one in (ONCE, GROWN)}, ("a problem",))


def test_a_catalogue_is_read_as_it_was_written():
    disk = SimulatedDisk()
    write_catalogue(disk, SOUND)
    assert read_catalogue(disk) == SOUND
    assert SOUND.size_bytes == 5


def test_one_with_any_bit_flipped_is_damaged_or_says_the_same():
    disk = SimulatedDisk()
    write_catalogue(disk, SOUND)
    size, rng = disk.size(CATALOGUE), np.random.default_rng(0)
    for at in rng.integers(0, size, 200).tolist():
        bit = int(rng.integers(8))
        disk.flip_bit(CATALOGUE, at, bit)
        with pytest.raises(CorruptionError, match="damaged"):
            read_catalogue(disk)
        disk.flip_bit(CATALOGUE, at, bit)


@pytest.mark.parametrize(
    "change",
    [
        {"files": [["../../etc/passwd", 1, "0", 0, ""]]},
        {"files": [["/etc/passwd", 1, "0", 0, ""]]},
        {"files": [["a", 1, "0", 0, "../../b"]]},
        {"files": [["a", "1", "0", 0, ""]]},
        {"files": [["a", 1]]},
        {"files": 3},
        {"last": [1]},
        {"problems": [1]},
        {"taken_ns": None},
        {"version": 2},
    ],
)
def test_a_catalogue_that_is_sealed_and_says_what_none_may_is_refused(change):
    disk = SimulatedDisk()
    disk.replace(CATALOGUE, sealed_json(SOUND.to_dict() | change))
    with pytest.raises(CorruptionError):
        read_catalogue(disk)


def test_a_backup_reads_as_the_store_and_takes_no_changes():
    disk = SimulatedDisk()
    disk.put_if_absent("files/segments/hot/1.parquet", b"abc")
    disk.put_if_absent("files/audit.jsonl~x", b"{}")
    backup = BackupDisk(disk, SOUND)
    assert (backup.list(""), backup.list("segments")) == ([GROWN.path, ONCE.path], [ONCE.path])
    assert (bytes(backup.read(GROWN.path)), backup.size(ONCE.path)) == (b"{}", 3)
    assert backup.free_bytes() == disk.free_bytes()
    with pytest.raises(NotFound):
        backup.read("commits/1.json")
    changes = [
        lambda: backup.put_if_absent("a", b""),
        lambda: backup.replace("a", b""),
        lambda: backup.append("a"),
        lambda: backup.truncate("a", 0),
        lambda: backup.delete("a"),
    ]
    for change in changes:
        with pytest.raises(StorageError, match="only read"):
            change()
