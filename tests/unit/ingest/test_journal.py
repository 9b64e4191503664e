"""The journal's owner: group commit, taking over, fencing, a disk that refuses, bounds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headrace.core.clock import VirtualClock
from headrace.core.disk import AppendFile, Buffer, Disk, LocalDisk
from headrace.core.errors import Closed, CorruptionError, Fenced, StorageError
from headrace.core.faults import FaultPoints
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.ingest.journal import DamagePolicy, Journal, JournalSettings
from headrace.ingest.journal_format import (
    MAX_RECORD_BYTES,
    ObjectHeader,
    RecordKind,
    define_payload,
)
from headrace.ingest.journal_reader import Damage, list_objects, object_path, read_records
from headrace.sim.disk import SimulatedDisk
from headrace.sim.faults import CountedFaults, Crashed

FIRST = object_path(1, 1)
NOISE = np.random.default_rng(0).bytes(2_048)


def open_journal(disk: Disk, nonce: int = 1, faults: FaultPoints | None = None, **bounds: int) -> Journal:
    return Journal.open(
        disk,
        VirtualClock(7),
        nonce=nonce,
        host=f"host-{nonce}",
        settings=JournalSettings(**bounds),
        faults=faults,
    )


def write(journal: Journal, *texts: str) -> list[int]:
    seqs = [journal.append(RecordKind.CONFIG, [t.encode()]) for t in texts]
    journal.sync()
    return seqs


def texts(disk: Disk, after_seq: int | None = None) -> list[str]:
    return [bytes(r.payload).decode() for r in read_records(disk, after_seq) if r.kind is RecordKind.CONFIG]


class CountingDisk(SimulatedDisk):
    """Counts writes and syncs of growing files; may refuse by name of the operation."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.refuse: set[str] = set()

    def note(self, call: str) -> None:
        self.calls.append(call)
        if call in self.refuse:
            raise StorageError(f"can't {call}: refused")

    def append(self, path: str) -> AppendFile:
        if "create" in self.refuse:
            super().append(path)
        self.note("create")
        return _CountingFile(self, super().append(path))

    def truncate(self, path: str, size_bytes: int) -> None:
        self.note("truncate")
        super().truncate(path, size_bytes)

    def delete(self, path: str) -> None:
        self.note("delete")
        super().delete(path)


class _CountingFile:
    def __init__(self, disk: CountingDisk, file: AppendFile) -> None:
        self._disk, self._file = disk, file

    def write(self, data: list[Buffer]) -> None:
        self._file.write(data)
        self._disk.note("write")

    def sync(self) -> None:
        self._disk.note("sync")
        self._file.sync()

    def close(self) -> None:
        self._file.close()


# --- writing -------------------------------------------------------------------------------------------------


def test_seq_runs_from_1_and_everything_waiting_goes_with_one_write_and_one_sync() -> None:
    disk = CountingDisk()
    journal = open_journal(disk)
    disk.calls.clear()
    seqs = [journal.append(RecordKind.CONFIG, [b"x"]) for _ in range(50)]
    assert seqs == list(range(1, 51))
    assert (journal.durable_seq, journal.last_seq) == (0, 50)
    assert journal.sync() == 50
    assert disk.calls == ["write", "sync"]
    assert journal.sync() == 50
    assert disk.calls == ["write", "sync"]


def test_records_come_back_in_a_real_folder(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    journal = open_journal(disk)
    write(journal, "a", "b")
    journal.close()
    journal.close()
    again = open_journal(disk, 2)
    assert again.recovery.last_seq == 2
    assert again.recovery.sentences == ()
    write(again, "c")
    assert texts(disk) == ["a", "b", "c"]
    assert [r.seq for r in read_records(disk, 1)] == [2, 3]
    again.close()


def test_objects_are_begun_anew_at_their_bound() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, object_bytes=600)
    for i in range(12):
        write(journal, f"{i:03d}" * 30)
    objects = list_objects(disk)
    assert [o.n for o in objects] == list(range(1, len(objects) + 1))
    assert len(objects) > 3
    assert all(o.size_bytes <= 600 for o in objects)
    assert texts(disk) == [f"{i:03d}" * 30 for i in range(12)]
    headers = [o.header for o in objects if o.header is not None]
    assert [h.previous.n for h in headers] == list(range(len(objects)))
    assert headers[0].created_ns == 7


def test_a_batch_larger_than_an_object_is_parted_and_a_single_large_record_is_not() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, object_bytes=500)
    for i in range(9):
        journal.append(RecordKind.CONFIG, [bytes([i]) * 100, b"!"])
    big = journal.append(RecordKind.CONFIG, [NOISE])
    assert journal.sync() == big
    assert [r.seq for r in read_records(disk)] == list(range(1, 11))
    assert max(o.size_bytes for o in list_objects(disk)) > 2_048


def test_a_record_has_a_bound() -> None:
    journal = open_journal(SimulatedDisk())
    with pytest.raises(ValueError, match="at most 1,073,741,824 bytes"):
        journal.append(RecordKind.CONFIG, [memoryview(bytearray(1)).toreadonly()] + [bytes(1 << 20)] * 1_024)
    assert MAX_RECORD_BYTES == 1 << 30
    assert journal.last_seq == 0


def test_a_closed_journal_refuses_and_keeps_what_waited() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    journal.append(RecordKind.CONFIG, [b"waits"])
    journal.close()
    assert texts(disk) == ["waits"]
    with pytest.raises(Closed):
        journal.append(RecordKind.CONFIG, [b"late"])
    with pytest.raises(Closed):
        journal.sync()


# --- definitions ---------------------------------------------------------------------------------------------


def test_each_object_begins_with_the_definitions_that_the_directory_file_lacks() -> None:
    disk, directory = SimulatedDisk(), SensorDirectory()
    journal = open_journal(disk, object_bytes=4_000)
    directory.define("plant/a", Layout("u16", (Column("x"),)))
    journal.append(RecordKind.DEFINE, define_payload(directory, 0))
    directory.define("plant/b", Layout("u16", (Column("x"),)))
    journal.append(RecordKind.DEFINE, define_payload(directory, 1))
    journal.sync()
    write(journal, *[bytes(range(250)).hex()] * 8)  # the next object
    assert journal.trim(2) > 0

    alone = SensorDirectory()
    records = list(read_records(disk, 2))
    for record in records:
        if record.kind is RecordKind.DEFINE:
            assert record.is_repeated
            record.define(alone)
    assert alone.paths == ["plant/a", "plant/b"]
    assert [r.seq for r in records if not r.is_repeated] == list(range(3, 11))

    journal.directory_saved(1)
    write(journal, *[bytes(range(250)).hex()] * 8)
    newest = list_objects(disk)[-1].header
    assert newest is not None
    last = [r for r in read_records(disk, newest.first_seq - 1) if r.is_repeated]
    assert len(last) == 1
    assert last[0].seq == newest.first_seq - 1


# --- taking over ---------------------------------------------------------------------------------------------


def test_the_first_of_two_owners_is_fenced_at_its_next_sync_and_stays_so() -> None:
    disk = SimulatedDisk()
    first = open_journal(disk, 1)
    write(first, "kept")
    second = open_journal(disk, 2)
    seq = first.append(RecordKind.CONFIG, [b"lost"])
    with pytest.raises(Fenced, match="journal incarnation 1 has another owner"):
        first.sync()
    assert first.durable_seq == seq - 1
    with pytest.raises(Fenced):
        first.append(RecordKind.CONFIG, [b"more"])
    with pytest.raises(Fenced):
        first.sync()
    first.close()
    write(second, "new")
    assert texts(disk) == ["kept", "new"]
    assert [r.seq for r in read_records(disk)] == [1, 2]


def test_an_owner_that_would_begin_an_object_finds_the_seal_instead() -> None:
    disk = SimulatedDisk()
    first = open_journal(disk, 1, object_bytes=300)
    write(first, "a" * 100)
    open_journal(disk, 2)
    first.append(RecordKind.CONFIG, [bytes(range(250))])
    with pytest.raises(Fenced, match="was written by 'host-2'"):
        first.sync()


def test_an_owner_whose_object_was_trimmed_by_its_successor_is_fenced() -> None:
    disk = SimulatedDisk()
    first = open_journal(disk, 1)
    write(first, "a")
    second = open_journal(disk, 2)
    write(second, "b")
    second.trim(1)
    assert not [p for p in disk.list("journal") if p.startswith("journal/00000001")]
    first.append(RecordKind.CONFIG, [b"late"])
    with pytest.raises(Fenced, match="was cut or removed"):
        first.sync()


def test_an_object_in_the_name_of_another_owner_fences() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, 1, object_bytes=300)
    write(journal, "a" * 100)
    disk.put_if_absent(object_path(1, 2), ObjectHeader(1, 2, 2, 0, 99, "copycat").to_bytes())
    journal.append(RecordKind.CONFIG, [bytes(range(250))])
    with pytest.raises(Fenced, match="was written by 'copycat'"):
        journal.sync()


def test_an_object_that_comes_back_whenever_it_is_removed_fences() -> None:
    class Stubborn(SimulatedDisk):
        def delete(self, path: str) -> None:
            pass

    disk = Stubborn()
    journal = open_journal(disk, 1, object_bytes=300)
    write(journal, "a" * 100)
    disk.put_if_absent(object_path(1, 2), b"")
    journal.append(RecordKind.CONFIG, [bytes(range(250))])
    with pytest.raises(Fenced, match="it is there again whenever it was removed"):
        journal.sync()


def test_whoever_seals_first_wins_and_the_other_tries_again() -> None:
    class Contested(SimulatedDisk):
        """At the first seal, the owner begins its next object; at the first claim, somebody else has claimed."""

        n_puts = n_claims = 0

        def put_if_absent(self, path: str, data: Buffer) -> bool:
            self.n_puts += 1
            if self.n_puts == 1:
                owner.append(RecordKind.CONFIG, [bytes(range(250))])
                owner.sync()
            return super().put_if_absent(path, data)

        def append(self, path: str) -> AppendFile:
            if path.endswith("/00000002/00000001.hrj"):
                self.n_claims += 1
                super().append(path)
            return super().append(path)

    disk = Contested()
    owner = open_journal(disk, 1, object_bytes=300)
    write(owner, "a" * 100)
    journal = open_journal(disk, 2)
    assert disk.n_puts == 3
    assert disk.n_claims == 1
    assert journal.recovery.incarnation == 3
    assert journal.recovery.last_seq == 2


def test_taking_over_gives_up_in_words_when_others_keep_doing_it() -> None:
    class Hopeless(SimulatedDisk):
        def put_if_absent(self, path: str, data: Buffer) -> bool:
            return False

    disk = Hopeless()
    open_journal(disk, 1)
    with pytest.raises(StorageError, match="100 others took it over meanwhile"):
        open_journal(disk, 2)


def test_a_sealed_incarnation_needs_no_second_seal() -> None:
    disk = SimulatedDisk()
    write(open_journal(disk, 1), "a")
    disk.faults = CountedFaults({"disk.append": 1})
    for _ in range(2):
        with pytest.raises(Crashed):
            open_journal(disk, 2)
        disk = disk.crash()
        disk.faults = CountedFaults({"disk.append": 1})
    disk.faults = FaultPoints()
    journal = open_journal(disk, 3)
    write(journal, "b")
    assert texts(disk) == ["a", "b"]
    assert journal.recovery.last_seq == 1


def test_a_torn_tail_is_cut_counted_and_said() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, 1)
    write(journal, "kept")
    size = disk.size(FIRST)
    disk.faults = CountedFaults({"disk.write": 1})
    journal.append(RecordKind.CONFIG, [bytes(range(200))])
    with pytest.raises(Crashed):
        journal.sync()
    disk.faults = FaultPoints()
    again = open_journal(disk, 2)
    cut = again.recovery.n_cut_bytes
    assert cut > 0
    assert again.recovery.n_cut_records == 0
    assert again.recovery.sentences == (
        f"{FIRST}: cut {cut} bytes at byte {size}, a write that was never confirmed",
    )
    assert disk.size(FIRST) == size
    assert texts(disk) == ["kept"]


@pytest.mark.parametrize("seed", range(8))
def test_what_a_killed_owner_had_not_synced_is_durable_once_its_successor_counts_it(seed: int) -> None:
    disk = SimulatedDisk(seed)
    killed = open_journal(disk, 1, faults=CountedFaults({"journal.sync": 2}))
    killed.append(RecordKind.CONFIG, [b"written, not synced"])
    with pytest.raises(Crashed):
        killed.sync()
    assert open_journal(disk, 2).recovery.last_seq == 1
    assert texts(disk.crash()) == ["written, not synced"]  # a power cut later


def test_whole_records_behind_a_torn_one_are_cut_too_and_a_copy_is_kept() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, 1)
    write(journal, "kept")
    size = disk.size(FIRST)
    write(journal, "torn", "whole", "whole too")
    disk.flip_bit(FIRST, size + 33)
    again = open_journal(disk, 2)
    assert again.recovery.n_cut_records == 2
    assert "(2 whole records among them; a copy is in journal/quarantine)" in again.recovery.sentences[0]
    assert disk.list("journal/quarantine") == ["journal/quarantine/00000001-00000001.hrj"]
    assert again.recovery.last_seq == 1


# --- damage --------------------------------------------------------------------------------------------------


def damaged_journal() -> tuple[SimulatedDisk, int]:
    """Three synced records, the second one damaged; where it begins."""
    disk = SimulatedDisk()
    journal = open_journal(disk, 1)
    write(journal, "one")
    at = disk.size(FIRST)
    write(journal, "two")
    write(journal, "three")
    disk.flip_bit(FIRST, at + 32)
    return disk, at


def test_damage_in_the_middle_is_told_with_object_and_byte_and_a_copy_is_kept() -> None:
    disk, at = damaged_journal()
    journal = open_journal(disk, 2)
    assert journal.recovery.n_cut_bytes == 0
    assert journal.recovery.last_seq == 3
    sentence = f"{FIRST} is damaged at byte {at} (40 bytes); records 2 to 2 can't be read"
    assert journal.recovery.sentences == (sentence,)
    assert disk.list("journal/quarantine") == ["journal/quarantine/00000001-00000001.hrj"]
    with pytest.raises(CorruptionError) as e:
        list(journal.records(0))
    assert str(e.value) == (
        f"{sentence}; a copy is at journal/quarantine/00000001-00000001.hrj; start with --skip-damaged to go on without them"
    )


def test_damage_in_what_is_not_asked_for_stops_nobody() -> None:
    disk, _ = damaged_journal()
    journal = open_journal(disk, 2)
    assert [r.seq for r in journal.records(2)] == [3]
    assert len(journal.damage) == 1


def test_damage_is_skipped_when_told_to_and_stays_known() -> None:
    disk, _ = damaged_journal()
    journal = open_journal(disk, 2)
    write(journal, "four")
    records = list(journal.records(0, DamagePolicy.SKIP))
    assert [bytes(r.payload) for r in records] == [b"one", b"three", b"four"]
    assert [d.first_seq for d in journal.damage] == [2]


# --- a disk that refuses -------------------------------------------------------------------------------------


def test_a_full_disk_refuses_in_words_and_recovers_without_loss() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    write(journal, "before")
    good = disk.size(FIRST)
    disk.capacity_bytes = good + 20
    journal.append(RecordKind.CONFIG, [b"while full"])
    for _ in range(3):
        with pytest.raises(StorageError, match="the disk is full; free some space"):
            journal.sync()
    assert journal.durable_seq == 1
    assert disk.size(FIRST) == good
    assert len(disk.list("journal")) == 1
    assert journal.refusal
    with pytest.raises(StorageError) as e:
        journal.append(RecordKind.CONFIG, [b"refused"])
    assert str(e.value) == journal.refusal
    disk.capacity_bytes = 1 << 20
    assert journal.sync() == 2
    assert journal.refusal == ""
    write(journal, "after")
    assert texts(disk) == ["before", "while full", "after"]
    assert [o.n for o in list_objects(disk)] == [1, 2]


LIMITED = """
import resource, sys
import numpy as np
from headrace.core.clock import VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.errors import StorageError
from headrace.ingest.journal import Journal
from headrace.ingest.journal_format import RecordKind
from headrace.ingest.journal_reader import read_records

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
disk = LocalDisk(sys.argv[1])
journal = Journal.open(disk, VirtualClock(), nonce=1)
for i in range(50):
    journal.append(RecordKind.CONFIG, [bytes([i]), np.random.default_rng(i).bytes(1_000)])
    for _ in range(2):
        try:
            journal.sync()
            break
        except StorageError as e:
            print(e)
journal.close()
assert [bytes(r.payload)[0] for r in read_records(disk, 0)] == list(range(50))
"""


def test_a_real_limit_of_file_size_is_told_in_words_and_passed_with_the_next_object(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == 2
    assert all(
        "the file-size limit of this process is reached; raise it (ulimit -f)" in line for line in told
    )
    assert len(LocalDisk(tmp_path).list("journal")) == 3


def test_a_read_only_disk_is_mended_once_it_takes_writes_again() -> None:
    disk = CountingDisk()
    journal = open_journal(disk)
    write(journal, "before")
    good = disk.size(FIRST)
    disk.refuse = {"sync", "truncate"}
    journal.append(RecordKind.CONFIG, [b"while read-only"])
    with pytest.raises(StorageError, match="can't sync: refused"):
        journal.sync()
    assert disk.size(FIRST) > good
    with pytest.raises(StorageError, match="can't truncate: refused"):
        journal.sync()
    disk.refuse.clear()
    assert journal.sync() == 2
    assert disk.size(FIRST) == good
    assert texts(disk) == ["before", "while read-only"]


def test_an_object_that_could_not_be_begun_is_removed_before_the_next_attempt() -> None:
    disk = CountingDisk()
    journal = open_journal(disk, object_bytes=300)
    write(journal, "a" * 100)
    journal.append(RecordKind.CONFIG, [bytes(range(250))])
    disk.refuse = {"create"}
    with pytest.raises(StorageError):
        journal.sync()
    assert disk.size(object_path(1, 2)) == 0
    disk.refuse = {"write", "delete"}
    with pytest.raises(StorageError, match="can't delete"):
        journal.sync()
    disk.refuse = {"write"}
    with pytest.raises(StorageError, match="can't write"):
        journal.sync()
    assert len(disk.list("journal")) == 1
    disk.refuse.clear()
    assert journal.sync() == 2
    assert [o.n for o in list_objects(disk)] == [1, 2]
    assert [r.seq for r in read_records(disk)] == [1, 2]


def test_an_owner_that_was_replaced_does_not_cut_what_its_successor_counts() -> None:
    disk = CountingDisk()
    first = open_journal(disk, 1)
    write(first, "a")
    first.append(RecordKind.CONFIG, [b"seen by the successor"])
    disk.refuse = {"sync", "truncate"}
    with pytest.raises(StorageError):
        first.sync()
    disk.refuse.clear()
    second = open_journal(disk, 2)
    assert second.recovery.last_seq == 2
    with pytest.raises(Fenced):
        first.sync()
    assert texts(disk) == ["a", "seen by the successor"]


def test_space_is_left_for_the_store() -> None:
    disk = SimulatedDisk(capacity_bytes=10_000)
    journal = open_journal(disk, reserve_bytes=9_000)
    write(journal, "fits")
    assert not journal.is_short
    # What was taken already is written: else nothing could be committed, and nothing freed.
    journal.append(RecordKind.CONFIG, [NOISE[:1_000]])
    assert journal.sync() == 2
    assert journal.is_short
    assert not journal.refusal
    disk.capacity_bytes = 20_000
    assert journal.sync() == 2
    assert not journal.is_short


def test_it_says_how_far_positions_must_be_to_free_the_oldest_object() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, object_bytes=1_000)
    assert journal.first_needed_seq == -1
    for _ in range(3):
        journal.append(RecordKind.CONFIG, [NOISE[:600]])
        journal.sync()
    assert journal.first_needed_seq == 1
    assert journal.trim(journal.first_needed_seq - 1) == 0
    assert journal.trim(journal.first_needed_seq) > 0
    assert journal.first_needed_seq == 2


def test_numbers_and_incarnations_go_on_behind_those_that_others_know() -> None:
    disk = SimulatedDisk()
    write(open_journal(disk, 1), "a", "b")
    journal = Journal.open(disk, VirtualClock(), nonce=2, after_incarnation=7)
    assert journal.recovery.incarnation == 8
    journal.skip_to(1)
    assert journal.last_seq == 2
    journal.skip_to(100)
    assert journal.durable_seq == 100
    assert journal.append(RecordKind.CONFIG, [b"c"]) == 101
    journal.sync()
    told: list[Damage] = []
    assert [r.seq for r in read_records(disk, 0, told.append)] == [1, 2, 101]
    assert [(d.first_seq, d.last_seq) for d in told] == [(3, 100)]
    # Whoever needs nothing of the gap is not told of it.
    assert [r.seq for r in read_records(disk, 100)] == [101]
    again = Journal.open(disk, VirtualClock(), nonce=3)
    assert again.recovery.incarnation == 9
    assert again.last_seq == 101


def test_what_cannot_be_written_when_closing_is_told_and_the_journal_is_closed_all_the_same() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    journal.append(RecordKind.CONFIG, [b"lost"])
    disk.is_read_only = True
    with pytest.raises(StorageError, match="read-only"):
        journal.close()
    with pytest.raises(Closed):
        journal.sync()


def test_a_defect_while_writing_loses_no_record() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, faults=CountedFaults({"journal.sync": 2}))
    journal.append(RecordKind.CONFIG, [b"a"])
    with pytest.raises(Crashed):
        journal.sync()
    assert not journal.refusal


def test_a_watched_write_is_done_in_two_halves() -> None:
    disk = CountingDisk()
    journal = open_journal(disk, faults=CountedFaults({"journal.write": 99}))
    disk.calls.clear()
    write(journal, "ab")
    assert disk.calls == ["write", "write", "sync"]
    assert texts(disk) == ["ab"]


# --- bounds --------------------------------------------------------------------------------------------------


def test_trimming_frees_whole_objects_and_keeps_the_running_number() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, object_bytes=300)
    for i in range(6):
        write(journal, f"{i}" * 100)
    before = journal.size_bytes
    assert journal.trim(0) == 0
    freed = journal.trim(3)
    assert freed > 0
    assert journal.size_bytes == before - freed == sum(o.size_bytes for o in list_objects(disk))
    assert texts(disk, 3) == ["3" * 100, "4" * 100, "5" * 100]
    journal.append(RecordKind.CONFIG, [b"waits"])
    journal.trim(10**9)
    journal.sync()
    again = open_journal(disk, 2)
    assert again.recovery.last_seq == 7
    again.trim(7)
    third = open_journal(disk, 3)
    assert third.recovery.last_seq == 7
    assert write(third, "next") == [8]


def test_the_last_object_with_a_header_is_never_trimmed() -> None:
    disk = CountingDisk()
    journal = open_journal(disk, object_bytes=300)
    write(journal, "a" * 100)
    disk.refuse = {"write", "delete"}
    journal.append(RecordKind.CONFIG, [bytes(range(250))])
    with pytest.raises(StorageError):
        journal.sync()
    disk.refuse.clear()
    assert journal.trim(1) == 0
    assert FIRST in disk.list("journal")


def test_a_full_journal_says_so() -> None:
    journal = open_journal(SimulatedDisk(), limit_bytes=400)
    assert journal.limit_bytes == 400
    assert not journal.is_full
    journal.append(RecordKind.CONFIG, [bytes(300)])
    assert journal.is_full
