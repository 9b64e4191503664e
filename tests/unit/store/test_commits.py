"""Commits: created once, in order; sealed by who takes over; folded; rebuilt."""

import pytest

from headrace.core.clock import VirtualClock
from headrace.core.errors import CorruptionError, Fenced, StorageError, Undecided
from headrace.sim.disk import SimulatedDisk
from headrace.store.cloud import CloudDisk
from headrace.store.commits import (
    FOLD_EVERY,
    Commit,
    CommitLog,
    SegmentInfo,
    ShardPosition,
    commit_path,
    list_commits,
    load_commits,
    read_state,
    sealed_json,
    unsealed_json,
)
from headrace.store.manifests import Manifest, manifest_path, read_manifest


def info(m):
    return SegmentInfo(f"segments/hot/00000001/{m:08d}.parquet", 10, 1, 5, m, m + 1, (0,), "00")


@pytest.fixture(params=["memory", "bucket"])
def disk(request):
    if request.param == "memory":
        return SimulatedDisk(1)
    return CloudDisk(request.getfixturevalue("bucket").url)


def damage(disk, path, byte):
    data = bytearray(disk.read(path))
    data[byte] ^= 1
    disk.replace(path, data)


@pytest.fixture
def log(disk):
    return CommitLog.open(disk, 1, VirtualClock(5))


def test_an_empty_store_has_an_empty_view(disk):
    view = load_commits(disk)
    assert (view.last, view.segments, view.shards, view.trim_seq([0])) == ((0, 0), (), {}, -1)


def test_what_is_published_is_seen(disk, log):
    log.publish(info(1), {0: ShardPosition(7, "state/x", 5)}, "directory/3", {"received": 5})
    log.publish(info(2), {1: ShardPosition(9)})
    view = load_commits(disk)
    assert [s.name for s in view.segments] == [info(1).name, info(2).name]
    assert view.shards == {0: ShardPosition(7, "state/x", 5), 1: ShardPosition(9)}
    assert (view.directory, view.counters, view.last) == ("directory/3", {"received": 5}, (1, 2))
    assert view.trim_seq([0]) == 5
    assert view.trim_seq([0, 1]) == -1  # shard 1 has no state: its records are still needed


def test_a_reader_reads_only_what_is_new(disk, log):
    log.publish(info(1), {})
    before = load_commits(disk)
    damage(disk, commit_path(1, 1), 40)
    log.publish(info(2), {})
    assert len(load_commits(disk, before).segments) == 2


def test_a_commit_survives_its_json():
    commit = Commit(3, 4, 5, info(1), {2: ShardPosition(1, "s", 0)}, "d", {"a": 1}, (info(2),))
    assert Commit.from_dict(commit.to_dict()) == commit


def test_the_json_of_version_1_stays_as_it_is():
    commit = Commit(1, 2, 3, info(1), {0: ShardPosition(7, "state/x", 5)}, "directory/3", {"received": 5})
    assert sealed_json(commit.to_dict()) == (
        b'{"checksum":"ef5c9c5745db2d32","data":{"base":null,"counters":{"received":5},"directory":"directory/3",'
        b'"incarnation":1,"m":2,"published_ns":3,"sealed_by":0,"segment":{"days":[0],"footer":"00",'
        b'"n_rows":1,"n_samples":5,"name":"segments/hot/00000001/00000001.parquet","size_bytes":10,"t_max_ns":2,'
        b'"t_min_ns":1},"shards":{"0":[7,"state/x",5]},"version":1}}\n'
    )


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"checksum":"00","data":{"version":1}}', b"[1]", sealed_json({"version": 9})]
)
def test_damaged_json_is_told(data):
    with pytest.raises(CorruptionError, match="x.json is damaged"):
        unsealed_json(data, "x.json")


def test_state_may_not_run_ahead_of_its_flush(log):
    with pytest.raises(ValueError, match="ahead"):
        log.publish(None, {0: ShardPosition(3, "s", 4)})


def test_who_takes_over_seals_the_log(disk, log):
    log.publish(info(1), {0: ShardPosition(1)})
    newer = CommitLog.open(disk, 2, VirtualClock())
    assert newer.view.segments == (info(1),)
    with pytest.raises(Fenced, match="incarnation 2"):
        log.publish(info(2), {})
    newer.publish(None, {0: ShardPosition(4)})
    assert load_commits(disk).shards[0].flushed_seq == 4


def test_an_old_incarnation_can_not_come_back(disk, log):
    log.publish(info(1), {})
    CommitLog.open(disk, 3, VirtualClock())
    for incarnation in (1, 2, 3):
        with pytest.raises(Fenced, match="another engine has taken over"):
            CommitLog.open(disk, incarnation, VirtualClock())
    assert CommitLog.open(disk, 4, VirtualClock()).view.segments == (info(1),)


def test_one_that_took_over_but_published_nothing_is_sealed_too(disk, log):
    log.publish(info(1), {})
    second = CommitLog.open(disk, 2, VirtualClock())
    CommitLog.open(disk, 3, VirtualClock())
    with pytest.raises(Fenced):
        second.publish(info(2), {})


def test_the_log_is_folded_and_old_commits_go(disk, log):
    for m in range(1, 3 * FOLD_EVERY):
        log.publish(info(m), {m % 4: ShardPosition(m)})
    assert len(list_commits(disk)) < 2 * FOLD_EVERY + 2
    view = load_commits(disk)
    assert len(view.segments) == 3 * FOLD_EVERY - 1
    assert view.shards[3].flushed_seq == 3 * FOLD_EVERY - 1
    assert view == log.view


def test_a_fold_forgets_what_was_compacted_and_deleted(disk, log):
    log.retired = lambda segments: {s.name for s in segments if s.t_min_ns < 50}
    for m in range(1, FOLD_EVERY + 3):
        log.publish(info(m), {})
    assert min(s.t_min_ns for s in load_commits(disk).segments) == 50


def test_states_that_are_superseded_are_deleted_with_a_fold(disk, log):
    for m in range(1, FOLD_EVERY + 3):
        disk.put_if_absent(f"state/{m}", b"state %d" % m)
        log.publish(None, {0: ShardPosition(m, f"state/{m}", m)})
    view = load_commits(disk)
    assert read_state(disk, view.shards[0]) == b"state %d" % (FOLD_EVERY + 2)
    assert len(disk.list("state")) < 4
    assert read_state(disk, ShardPosition()) is None


def test_a_damaged_commit_is_told_and_the_others_count(disk, log):
    for m in (1, 2, 3):
        log.publish(info(m), {})
    damage(disk, commit_path(1, 2), 40)
    view = load_commits(disk)
    assert [s.t_min_ns for s in view.segments] == [1, 3]
    assert "commits/00000001/00000002.json is damaged" in view.damaged[0]


def test_a_commit_under_the_name_of_another_is_damage(disk, log):
    for m in (1, 2):
        log.publish(info(m), {})
    disk.put_if_absent(commit_path(1, 3), disk.read(commit_path(1, 1)))
    view = load_commits(disk)
    assert [s.t_min_ns for s in view.segments] == [1, 2]
    assert view.last == (1, 3)
    assert "00000003.json is damaged: it holds commits/00000001/00000001.json" in view.damaged[0]


def test_a_put_whose_answer_was_lost_counts(disk, log, monkeypatch):
    put = disk.put_if_absent

    def lost(path, data):
        put(path, data)
        raise StorageError("the folder can't be synced")

    monkeypatch.setattr(disk, "put_if_absent", lost)
    commit = log.publish(info(1), {})
    assert load_commits(disk).last == (1, 1)
    assert commit.m == 1
    assert log.next_m == 2


def test_a_put_that_failed_may_be_tried_again():
    disk = SimulatedDisk(1)
    log = CommitLog.open(disk, 1, VirtualClock(5))
    disk.is_read_only = True
    with pytest.raises(StorageError, match="read-only"):
        log.publish(info(1), {})
    disk.is_read_only = False
    assert log.publish(info(1), {}).m == 1


def test_of_two_that_begin_a_store_one_does(disk):
    first, second = load_commits(disk), load_commits(disk)
    assert first.last == second.last == (0, 0)
    CommitLog.open(disk, 1, VirtualClock(5))
    with pytest.raises(Fenced, match="another engine has taken over"):
        CommitLog.open(disk, 1, VirtualClock(6))


def test_an_owner_knows_whether_it_was_taken_over(disk, log):
    log.check_owned()
    log.publish(info(1), {})
    log.check_owned()
    CommitLog.open(disk, 2, VirtualClock())
    with pytest.raises(Fenced, match="sealed by incarnation 2"):
        log.check_owned()


def lose_answers(monkeypatch, disk, *, is_written):
    """Let the next put be sent, and its answer be lost."""
    put = disk.put_if_absent

    def lost(path, data):
        monkeypatch.setattr(disk, "put_if_absent", put)
        if is_written:
            put(path, data)
        raise Undecided("no answer in time")

    monkeypatch.setattr(disk, "put_if_absent", lost)


@pytest.mark.parametrize("is_written", [True, False])
def test_a_commit_whose_answer_was_lost_is_decided_before_the_next(disk, log, monkeypatch, is_written):
    disk.put_if_absent(info(1).name, b"a segment")
    lose_answers(monkeypatch, disk, is_written=is_written)
    with pytest.raises(Undecided):
        log.publish(info(1), {0: ShardPosition(1)})
    assert log.next_m == 1
    assert log.publish(info(2), {0: ShardPosition(2)}).m == 2
    view = load_commits(disk)
    assert view == log.view
    assert view.segments == ((info(1), info(2)) if is_written else (info(2),))
    # What no commit names any more is not left behind.
    assert (info(1).name in disk.list("segments")) == is_written


def test_a_decision_whose_answer_was_lost_stands(disk, log, monkeypatch):
    lose_answers(monkeypatch, disk, is_written=False)
    with pytest.raises(Undecided):
        log.publish(info(1), {})
    lose_answers(monkeypatch, disk, is_written=True)
    with pytest.raises(Undecided):
        log.settle()
    log.settle()
    log.settle()
    assert (log.next_m, load_commits(disk).segments) == (2, ())


def test_who_was_taken_over_finds_out_when_it_decides(disk, log, monkeypatch):
    log.publish(info(1), {})
    lose_answers(monkeypatch, disk, is_written=False)
    with pytest.raises(Undecided):
        log.publish(info(2), {})
    CommitLog.open(disk, 2, VirtualClock())
    with pytest.raises(Fenced, match="has taken over"):
        log.settle()


@pytest.mark.parametrize("is_written", [True, False])
def test_an_owner_that_can_not_tell_asks_until_it_can(disk, log, monkeypatch, is_written):
    put = disk.put_if_absent

    def refuse(path, data=None):
        if is_written and data is not None and not disk.list("commits/00000001"):
            put(path, data)
        raise StorageError("input/output error")

    monkeypatch.setattr(disk, "put_if_absent", refuse)
    monkeypatch.setattr(disk, "read", refuse)
    with pytest.raises(Undecided, match="can't tell whether"):
        log.publish(info(1), {0: ShardPosition(3)})
    for ask in (log.settle, log.check_owned, lambda: log.publish(info(2), {})):
        with pytest.raises(StorageError, match="input/output error"):
            ask()
        assert log.is_unsure
    monkeypatch.undo()
    found = log.settle()
    assert (found is not None, log.is_unsure, log.next_m) == (is_written, False, 2)
    assert load_commits(disk) == log.view
    assert (log.view.segments, log.settle()) == ((info(1),) if is_written else (), None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shards", {"0": [1, "x"]}), ("shards", {"x": [1, "x", 1]}), ("shards", []), ("segment", {}), ("segment", 5), ("base", [{}]),
        ("counters", {"stored": None}), ("m", "1"), ("published_ns", 1.5), ("directory", None), ("sealed_by", True),
    ],
)  # fmt: skip
def test_a_commit_of_other_content_is_damaged_whatever_its_checksum_says(key, value):
    data = Commit(1, 1, 5).to_dict()
    with pytest.raises(CorruptionError, match="its content is no commit"):
        Commit.from_dict({**data, key: value})
    disk = SimulatedDisk(1)
    disk.put_if_absent("commits/00000001/00000001.json", sealed_json({**data, key: value}))
    assert load_commits(disk).damaged


def test_json_that_nests_too_deep_is_damaged():
    with pytest.raises(CorruptionError, match="x is damaged"):
        unsealed_json(b"[" * 100_000, "x")


def test_a_manifest_of_other_content_is_damaged_whatever_its_checksum_says(disk):
    data = Manifest(5, 1).to_dict()
    for key, value in (
        ("consumed", {"1": "2"}),
        ("left_out", [3]),
        ("files", [{}]),
        ("is_whole", 1),
        ("day", None),
    ):
        disk.replace(manifest_path(5, 1), sealed_json({**data, key: value}))
        with pytest.raises(CorruptionError, match="its content is no manifest"):
            read_manifest(disk, 5, [1])
