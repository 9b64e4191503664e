"""Reading without a lock: which objects count, gaps, damage in words, what a running owner does meanwhile."""

from __future__ import annotations

import pytest

from headrace.core.clock import VirtualClock
from headrace.core.errors import CorruptionError, NotFound
from headrace.ingest.journal import Journal, JournalSettings
from headrace.ingest.journal_format import (
    ObjectHeader,
    Place,
    Record,
    RecordKind,
    encode_body,
    encode_record,
    lz4_codec,
    object_seed,
)
from headrace.ingest.journal_reader import Damage, list_objects, object_path, read_records
from headrace.sim.disk import SimulatedDisk


def made(incarnation: int, n: int, seqs: list[int], previous: Place | None = None, synced: int = 0) -> bytes:
    """An object with one CONFIG record for each seq."""
    header = ObjectHeader(incarnation, n, seqs[0], 0, 1, "host", previous or Place())
    out = header.to_bytes()
    for seq in seqs:
        body = encode_body(RecordKind.CONFIG, [f"{seq}".encode()], None, lz4_codec())
        out += b"".join(encode_record(body, seq, synced, object_seed(incarnation, n)))
    return out


def put(disk: SimulatedDisk, incarnation: int, n: int, data: bytes) -> str:
    path = object_path(incarnation, n)
    disk.replace(path, data)
    return path


def three_objects() -> SimulatedDisk:
    """Objects 1/1 (records 1, 2), 1/2 (3, 4), 2/1 (5, 6)."""
    disk = SimulatedDisk()
    one, two = made(1, 1, [1, 2]), made(1, 2, [3, 4], Place(1, 1, 208))
    assert len(one) == 208
    put(disk, 1, 1, one)
    put(disk, 1, 2, two)
    put(disk, 2, 1, made(2, 1, [5, 6], Place(1, 2, 208)))
    return disk


def seqs(disk: SimulatedDisk, after_seq: int | None = None) -> list[int]:
    return [r.seq for r in read_records(disk, after_seq)]


def told(disk: SimulatedDisk, after_seq: int | None = None) -> tuple[list[int], list[str]]:
    damage: list[Damage] = []
    got = [r.seq for r in read_records(disk, after_seq, damage.append)]
    return got, [d.text for d in damage]


def test_an_empty_folder_has_no_records() -> None:
    assert seqs(SimulatedDisk()) == []
    assert seqs(SimulatedDisk(), 17) == []


def test_records_come_in_order_from_any_place_and_other_files_are_no_matter() -> None:
    disk = three_objects()
    disk.replace("journal/quarantine/00000001-00000001.hrj", b"old")
    disk.replace("journal/notes.txt", b"hello")
    assert seqs(disk) == [1, 2, 3, 4, 5, 6]
    for after_seq in range(8):
        assert seqs(disk, after_seq) == list(range(after_seq + 1, 7))


def test_objects_that_need_not_be_read_are_not() -> None:
    class Watched(SimulatedDisk):
        whole: list[str] = []

        def read(self, path: str) -> memoryview:
            self.whole.append(path)
            return super().read(path)

    disk = Watched()
    disk._files = three_objects()._files
    list(read_records(disk, 4))
    assert disk.whole.count(object_path(1, 1)) == 1  # its header
    assert disk.whole.count(object_path(2, 1)) == 2


def test_what_lies_behind_the_end_that_a_successor_names_is_passed_over() -> None:
    disk = three_objects()
    late = made(1, 2, [3, 4, 5, 6], Place(1, 1, 208))
    put(disk, 1, 2, late)
    assert seqs(disk) == [1, 2, 3, 4, 5, 6]
    put(disk, 1, 3, made(1, 3, [5], Place(1, 2, 248)))  # nobody's predecessor: left behind by a failed owner
    assert seqs(disk) == [1, 2, 3, 4, 5, 6]


def test_an_empty_object_is_passed_over() -> None:
    disk = three_objects()
    put(disk, 1, 3, b"")
    put(disk, 2, 2, b"")
    assert seqs(disk) == [1, 2, 3, 4, 5, 6]


def test_reading_stops_at_the_torn_tail() -> None:
    disk = three_objects()
    data = made(2, 1, [5, 6], Place(1, 2, 208))
    for n_bytes in range(len(data)):
        put(disk, 2, 1, data[:n_bytes])
        whole = 4 + (n_bytes >= 161) + (n_bytes >= 201)
        assert seqs(disk) == list(range(1, whole + 1)), n_bytes


def test_trimmed_records_are_not_found_rather_than_missing_in_silence() -> None:
    disk = three_objects()
    disk.delete(object_path(1, 1))
    assert seqs(disk) == [3, 4, 5, 6]
    assert seqs(disk, 2) == [3, 4, 5, 6]
    with pytest.raises(NotFound, match="journal records behind 1 were trimmed; load the newest commit"):
        seqs(disk, 1)


def test_an_object_that_vanishes_meanwhile_was_trimmed() -> None:
    class Trimming(SimulatedDisk):
        n_reads = 0
        gone_at = 0

        def read(self, path: str) -> memoryview:
            self.n_reads += 1
            if self.n_reads >= self.gone_at:
                self.delete(object_path(1, 1))
            return super().read(path)

    disk = Trimming()
    disk._files = three_objects()._files
    disk.gone_at = 1
    assert seqs(disk) == [3, 4, 5, 6]
    disk = Trimming()
    disk._files = three_objects()._files
    disk.gone_at = 4
    with pytest.raises(NotFound):
        seqs(disk, 0)


def test_a_missing_object_in_the_middle_is_told() -> None:
    disk = three_objects()
    disk.delete(object_path(1, 2))
    with pytest.raises(
        CorruptionError, match=r"gap before journal/00000002/00000001.hrj; records 3 to 4 can't be read"
    ):
        seqs(disk)
    got, texts = told(disk)
    assert got == [1, 2, 5, 6]
    assert texts == [
        "the journal has a gap before journal/00000002/00000001.hrj; records 3 to 4 can't be read"
    ]


def test_damage_at_the_end_of_an_object_is_told_with_the_next() -> None:
    disk = three_objects()
    path = object_path(1, 1)
    disk.flip_bit(path, 170)
    got, texts = told(disk)
    assert got == [1, 3, 4, 5, 6]
    assert texts == [f"{path} is damaged at byte 168 (40 bytes); records 2 to 2 can't be read"]
    assert told(disk, 2) == ([3, 4, 5, 6], [])


def test_a_damaged_header_loses_no_record() -> None:
    for incarnation, n in ((1, 1), (1, 2)):
        disk = three_objects()
        path = object_path(incarnation, n)
        disk.flip_bit(path, 20)
        got, texts = told(disk)
        assert got == [1, 2, 3, 4, 5, 6]
        assert texts == [f"{path} is damaged at byte 0 (128 bytes); no record is lost"]
        assert told(disk, 1)[0] == [2, 3, 4, 5, 6]


def test_a_damaged_header_and_first_record_are_told_apart_from_trimmed_ones() -> None:
    disk = three_objects()
    path = object_path(1, 1)
    disk.flip_bit(path, 20)
    disk.flip_bit(path, 130)
    got, texts = told(disk, 0)
    assert got == [2, 3, 4, 5, 6]
    assert texts == [f"{path} is damaged at byte 0 (168 bytes); records 1 to 1 can't be read"]
    with pytest.raises(CorruptionError):
        seqs(disk, 0)


def test_several_holes_are_each_told() -> None:
    disk = three_objects()
    for incarnation, n in ((1, 1), (1, 2)):
        for byte in (20, 130, 170):
            disk.flip_bit(object_path(incarnation, n), byte)
    got, texts = told(disk, 0)
    assert got == [5, 6]
    assert texts == [
        "journal/00000001/00000001.hrj is damaged at byte 0 (208 bytes); records 1 to 4 can't be read",
        "journal/00000001/00000002.hrj is damaged at byte 0 (208 bytes); no record is lost",
    ]


def test_a_header_of_the_tail_is_damage_only_where_a_later_sync_vouches_for_it() -> None:
    disk = three_objects()
    path = object_path(2, 1)
    put(disk, 2, 1, made(2, 1, [5, 6], Place(1, 2, 208), synced=128))
    disk.flip_bit(path, 20)
    got, texts = told(disk)
    assert got == [1, 2, 3, 4, 5, 6]
    assert texts == [f"{path} is damaged at byte 0 (128 bytes); no record is lost"]
    put(disk, 2, 1, made(2, 1, [5, 6], Place(1, 2, 208)))
    disk.flip_bit(path, 20)
    assert told(disk) == ([1, 2, 3, 4], [])


def test_a_record_whose_seq_was_there_already_is_no_part_of_the_journal() -> None:
    disk = three_objects()
    put(disk, 2, 1, made(2, 1, [5, 3, 6], Place(1, 2, 208)))
    got, texts = told(disk)
    assert got == [1, 2, 3, 4, 5, 6]
    assert texts == [f"{object_path(2, 1)} is damaged at byte 168 (40 bytes); no record is lost"]


def test_a_reader_sees_a_running_owner_grow_rotate_and_trim() -> None:
    disk = SimulatedDisk()
    journal = Journal.open(disk, VirtualClock(), nonce=1, settings=JournalSettings(object_bytes=400))
    seen = 0
    for i in range(20):
        journal.append(RecordKind.CONFIG, [f"{i}".encode() * 30])
        journal.sync()
        for record in read_records(disk, seen):
            assert isinstance(record, Record)
            assert record.seq == seen + 1
            seen = record.seq
        journal.trim(seen - 4)
    assert seen == 20
    assert list_objects(disk)[0].n > 1
