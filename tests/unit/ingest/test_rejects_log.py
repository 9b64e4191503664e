"""Rejects that last: kept beyond the journal, bounded, found, taken out once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.core.clock import VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, NotFound, StorageError
from headrace.core.events import Reject, RejectCode
from headrace.ingest import rejects_log
from headrace.ingest.journal import Journal
from headrace.ingest.journal_format import RecordKind
from headrace.ingest.rejects import encode_rejects
from headrace.ingest.rejects_log import (
    KeptReject,
    RejectFilter,
    RejectsLog,
    as_table,
    from_table,
    parse_reject_id,
    read_rejects,
    rejects_of_journal,
)

EVERYTHING = RejectFilter()


def reject(
    n: int, adapter: str = "broker", code: RejectCode = RejectCode.MALFORMED, size: int = 20
) -> Reject:
    return Reject(
        code, adapter, f"plant/{n}", "no number", bytes(np.random.default_rng(n).bytes(size)), n, 1 + n % 3
    )


@pytest.fixture
def disk(tmp_path):
    return LocalDisk(tmp_path)


def opened(disk, limit_bytes=1 << 30):
    log = RejectsLog(disk, limit_bytes)
    log.open()
    return log


def ids(tables, wanted=EVERYTHING, limit=None):
    return [one.id for one in tables.chosen(wanted, limit)]


def test_ids_are_read_and_refused():
    assert parse_reject_id("1042-3") == (1042, 3)
    for text in ("1042", "a-b", "-1-3", "1" * 40 + "-1", ""):
        with pytest.raises(ConfigError, match="not the id of a reject"):
            parse_reject_id(text)


def test_rejects_come_back_as_they_were():
    kept = [KeptReject(5, n, reject(n, code=code)) for n, code in enumerate(RejectCode)]
    assert from_table(as_table(kept)) == kept
    assert from_table(as_table([])) == []


def test_what_waits_is_seen_and_written_when_it_is_durable(disk):
    log = opened(disk)
    log.note(3, [reject(1), reject(2)])
    log.note(7, [reject(3)])
    assert log.pending_bytes > 0
    assert ids(log.tables()) == ["3-0", "3-1", "7-0"]
    assert ids(log.saved()) == []
    log.save(5)
    assert (ids(log.saved()), log.saved_seq) == (["3-0", "3-1"], 3)
    assert ids(log.tables()) == ["3-0", "3-1", "7-0"]
    log.save(9)
    assert disk.list("rejects") == ["rejects/0000000000000003-0000000000000007-000000.parquet"]
    assert (ids(log.tables()), log.pending_bytes, log.size_bytes) == (
        ["3-0", "3-1", "7-0"], 0, disk.size(disk.list("rejects")[0]),
    )  # fmt: skip
    log.note(7, [reject(3)])
    assert ids(log.tables()) == ["3-0", "3-1", "7-0"], "what is saved is not noted again"
    assert ids(opened(disk).tables()) == ["3-0", "3-1", "7-0"]
    assert pq.read_table(disk.root / disk.list("rejects")[0]).num_rows == 3


def test_filters_choose_by_all_they_say():
    kept = [
        KeptReject(1, 0, reject(10)),
        KeptReject(1, 1, reject(11, "ovens", RejectCode.BAD_TIME)),
        KeptReject(2, 0, reject(12, code=RejectCode.UNKNOWN_TOPIC)),
        KeptReject(2, 1, reject(13)),
    ]
    tables = rejects_log.RejectTables([as_table(kept[:2]), as_table(kept[2:])])
    for wanted, expected in (
        (EVERYTHING, ["1-0", "1-1", "2-0", "2-1"]),
        (RejectFilter(adapter="ovens"), ["1-1"]),
        (RejectFilter(code="malformed"), ["1-0", "2-1"]),
        (RejectFilter(start_ns=11, end_ns=13), ["1-1", "2-0"]),
        (RejectFilter(ids=frozenset([(2, 1), (9, 9)])), ["2-1"]),
        (RejectFilter(after=(1, 0)), ["1-1", "2-0", "2-1"]),
        (RejectFilter(adapter="broker", after=(2, 0)), ["2-1"]),
    ):
        assert ids(tables, wanted) == expected
        assert [one.id for one in tables.newest(wanted, 10)] == expected
    assert ids(tables, limit=3) == ["1-0", "1-1", "2-0"]
    assert ids(tables, limit=2) == ["1-0", "1-1"]
    assert [one.id for one in tables.newest(EVERYTHING, 3)] == ["1-1", "2-0", "2-1"]
    assert [one.id for one in tables.newest(EVERYTHING, 2)] == ["2-0", "2-1"]
    with pytest.raises(ConfigError, match="'mal' is not one of malformed"):
        RejectFilter(code="mal")


def test_counts_by_adapter_and_code():
    kept = [KeptReject(1, n, reject(n, "ovens" if n == 4 else "broker")) for n in range(5)]
    tables = rejects_log.RejectTables([as_table(kept[:2]), as_table(kept[2:])])
    first, second = tables.summary(EVERYTHING)
    assert first == {
        "adapter": "broker", "code": "malformed", "rejects": 4, "samples": 1 + 2 + 3 + 1, "size_bytes": 80,
        "first_ns": 0, "last_ns": 3, "newest": "1-3",
    }  # fmt: skip
    assert (second["adapter"], second["rejects"], second["newest"]) == ("ovens", 1, "1-4")
    assert tables.summary(RejectFilter(adapter="nobody")) == []
    assert rejects_log.RejectTables().summary(EVERYTHING) == []


def test_the_oldest_go_beyond_the_bound_and_are_counted(disk):
    log = opened(disk, 300_000)
    for seq in range(1, 61):
        log.note(seq, [reject(100 * seq + i, size=4_000) for i in range(5)])
        log.save(seq)
    left = ids(log.tables())
    assert 100_000 < log.size_bytes <= 300_000
    assert log.n_dropped == 300 - len(left)
    assert left[-1] == "60-4"
    assert 0 < len(left) < 100
    assert log.saved_seq == 60
    again = opened(disk, 1)
    again.save(60)
    assert len(disk.list("rejects")) == 1, "the newest stays, or its rejects would come back from the journal"


def test_one_save_may_make_several_objects_of_whole_records(disk, monkeypatch):
    monkeypatch.setattr(rejects_log, "OBJECT_BYTES", 4_000)
    log = opened(disk, 1 << 20)
    for seq in range(1, 9):
        log.note(seq, [reject(100 * seq + i, size=4_000) for i in range(6)])
    log.save(8)
    assert len(disk.list("rejects")) > 1
    assert (
        ids(log.tables())
        == [f"{seq}-{i}" for seq in range(1, 9) for i in range(6)][-len(ids(log.tables())) :]
    )
    assert log.remove([(1, 0)]) == 1
    for path in disk.list("rejects")[1:]:
        table = pq.read_table(disk.root / path)
        assert all(n == 6 for n in pa.compute.value_counts(table["seq"]).field("counts").to_pylist())


def test_what_the_disk_does_not_take_is_bounded_in_memory(disk, monkeypatch):
    monkeypatch.setattr(rejects_log, "PENDING_BYTES_MAX", 10_000)
    log = opened(disk)
    for seq in range(1, 11):
        log.note(seq, [reject(seq, size=2_000)])
    assert log.pending_bytes <= 10_000
    assert log.n_dropped == 10 - len(ids(log.tables()))
    shared = replace(reject(1, size=4_000))
    log.note(11, [replace(shared, detail=f"line {n}") for n in range(5)])
    assert ids(log.tables())[-5:] == [f"11-{n}" for n in range(5)], "of one input: its bytes count once"

    def refuse(*_):
        raise StorageError("the disk is full")

    monkeypatch.setattr(disk, "put_if_absent", refuse)
    before = ids(log.tables())
    with pytest.raises(StorageError):
        log.save(10)
    assert ids(log.tables()) == before


def test_one_that_passes_the_bound_alone_is_dropped(disk, monkeypatch):
    monkeypatch.setattr(rejects_log, "PENDING_BYTES_MAX", 10_000)
    log = opened(disk)
    log.note(1, [reject(1, size=20_000)])
    assert (log.n_dropped, log.pending_bytes, ids(log.tables())) == (1, 0, [])


def test_inputs_of_a_mib_are_kept_once_each(disk):
    log, large = opened(disk), reject(1, size=1_000_000)
    log.note(1, [replace(large, detail=f"line {n}") for n in range(16)] + [reject(2, size=900_000)])
    assert log.pending_bytes < 2_000_000
    log.save(1)
    assert log.size_bytes < 2_100_000, "random bytes: what is there once takes as much as it has"
    found = opened(disk).tables().chosen(EVERYTHING)
    assert [one.reject.raw for one in found] == [large.raw] * 16 + [reject(2, size=900_000).raw]


def test_no_more_is_chosen_than_fits(disk):
    log = opened(disk)
    for seq in range(1, 7):
        log.note(seq, [reject(seq, size=1_000)])
        log.save(seq)
    tables = log.tables()
    for limit_bytes, n in ((1, 1), (1_000, 1), (1_001, 2), (5_000, 5), (10_000, 6)):
        assert len(tables.chosen(EVERYTHING, None, limit_bytes)) == n
    assert len(tables.chosen(EVERYTHING, 3, 5_000)) == 3


def test_what_was_replayed_is_out_for_good(disk):
    log = opened(disk)
    for seq in (3, 9):
        log.note(seq, [reject(seq + i) for i in range(3)])
    log.save(9)
    assert log.remove([(3, 1), (9, 2), (9, 7), (100, 0)]) == 2
    assert (ids(log.tables()), log.n_removed) == (["3-0", "3-2", "9-0", "9-1"], 2)
    assert log.remove([(3, 1), (9, 2)]) == 0
    again = opened(disk)
    assert ids(again.tables()) == ["3-0", "3-2", "9-0", "9-1"]
    assert again.remove(parse_reject_id(one) for one in ids(again.tables())) == 4
    assert (ids(again.tables()), again.saved_seq) == ([], 9)
    again.note(9, [reject(1)])
    assert ids(again.tables()) == [], "the journal still has them, they are not wanted"
    again.note(12, [reject(5)])
    again.save(12)
    assert ids(opened(disk).tables()) == ["12-0"]
    assert len(disk.list("rejects")) == 1


def test_a_crash_between_writing_and_deleting_leaves_nothing_twice(disk, monkeypatch):
    log = opened(disk)
    log.note(3, [reject(1), reject(2)])
    log.save(3)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "delete", lambda path: None)
        log.note(5, [reject(3)])
        log.save(5)
        log.remove([(3, 0)])
    assert len(disk.list("rejects")) == 3
    assert ids(read_rejects(disk)) == ["3-1", "5-0"]
    again = opened(disk)
    assert (len(disk.list("rejects")), ids(again.tables())) == (1, ["3-1", "5-0"])
    assert again.remove([(5, 0)]) == 1
    taken = opened(disk)
    disk.put_if_absent(taken._objects[0].path.replace("-000002", "-000003"), b"left by somebody")
    assert taken.remove([(3, 1)]) == 1
    assert ids(taken.saved()) == []


def test_damaged_objects_are_told_and_do_no_harm(disk):
    log = opened(disk)
    log.note(3, [reject(1)])
    log.save(3)
    (path,) = disk.list("rejects")
    (disk.root / path).write_bytes(b"PAR1 no more")
    log.note(5, [reject(2)])
    log.save(5)
    tables = log.tables()
    assert ids(tables) == ["5-0"]
    assert tables.problems[0].startswith(f"{path} can't be read")
    disk.replace("rejects/README", b"not ours")
    again = opened(disk, 1)
    again.save(5)
    assert (again.n_dropped, ids(again.tables())) == (0, ["5-0"])


def test_an_object_that_goes_while_it_is_read_is_passed_over(disk):
    log = opened(disk)
    log.note(3, [reject(1)])
    log.save(3)
    disk.delete(disk.list("rejects")[0])
    assert ids(log.tables()) == []


def test_a_stopped_store_is_read_with_what_only_its_journal_has(disk):
    journal = Journal.open(disk, VirtualClock(), nonce=1)
    seqs = [
        journal.append(RecordKind.REJECT, [encode_rejects([reject(10 * i), reject(10 * i + 1)])])
        for i in range(3)
    ]
    journal.append(RecordKind.CONFIG, [b"{}"])
    journal.close()
    everything = [f"{seq}-{i}" for seq in seqs for i in range(2)]
    assert ids(read_rejects(disk)) == everything
    log = opened(disk)
    log.note(seqs[0], [reject(0), reject(1)])
    log.save(seqs[0])
    assert ids(read_rejects(disk)) == everything
    assert [one.id for one in rejects_of_journal(disk, seqs[0], seqs[1])] == everything[2:4]
    with pytest.raises(NotFound):
        disk.read("rejects/nothing")
