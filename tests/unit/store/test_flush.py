"""Flushes: done or not done, whatever refuses."""

import numpy as np
import pytest

from headrace.core.errors import CorruptionError, Fenced, StorageError
from headrace.core.faults import FaultPoints
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.sim.disk import SimulatedDisk
from headrace.sim.faults import CountedFaults, Crashed
from headrace.store.commits import CommitLog, commit_path, load_commits, read_state
from headrace.store.directories import directory_path, load_directory, save_directory
from headrace.store.flush import FlushPart
from headrace.store.view import recover_commit

NS = 1_000_000_000
NOON = (20_000 * 86_400 + 43_200) * NS
SPAN = NOON, NOON + 60 * NS


def values(rig):
    return rig.store.query("**/pressure", *SPAN, tail=rig.tail).columns["value"].tolist()


def test_a_flush_moves_samples_from_the_buffer_to_the_store(rig, plant):
    rig.add(plant.frames(plant.lone, 0, [1.0, 2.0]))
    rig.flush()
    assert (rig.n_stored, rig.n_unflushed) == (2, 0)
    assert values(rig) == [1.0, 2.0]
    (segment,) = load_commits(rig.disk).segments
    assert segment.name == "segments/hot/00000001/00000001.parquet"


def test_a_large_flush_is_encoded_some_shards_at_a_time(rig, plant, monkeypatch):
    monkeypatch.setattr("headrace.store.flush._PIECE_BYTES", 1)
    rig.add(plant.frames(plant.lone, 0, [1.0, 2.0]))
    rig.add(plant.frames(plant.oven, 0, [[1, 2], [3, 4]]))
    rig.add(plant.frames(plant.meter, 0, [5, 6]))
    shards = {int(plant.directory.shard[slot]) for slot in (plant.lone, plant.oven, plant.meter)}
    assert len(shards) > 1
    rig.flush()
    assert rig.n_stored == 8
    assert values(rig) == [1.0, 2.0]
    found = rig.store.query("**", *SPAN, tail=rig.tail)
    assert len(found) == 8


def test_a_flush_of_nothing_moves_the_position(rig):
    done = rig.flusher.flush([FlushPart(rig.buffers[0], 41)])
    assert done.commit.segment is None
    assert load_commits(rig.disk).shards[0].flushed_seq == 41


def test_the_state_of_a_shard_is_saved_with_its_flush(rig):
    rig.flusher.flush(
        [FlushPart(rig.buffers[0], 5, b"state", 4), FlushPart(rig.buffers[1], 5)], {"received": 3}
    )
    view = load_commits(rig.disk)
    assert read_state(rig.disk, view.shards[0]) == b"state"
    assert (view.shards[0].state_seq, view.shards[1].state_seq, view.counters) == (4, -1, {"received": 3})
    rig.flusher.flush([FlushPart(rig.buffers[0], 9)])
    assert load_commits(rig.disk).shards[0].state == view.shards[0].state
    with pytest.raises(ValueError, match="state at 11, flush at 10"):
        rig.flusher.flush([FlushPart(rig.buffers[0], 10, b"", 11)])


def test_the_states_of_a_flush_are_in_one_object_that_stays_while_one_of_them_counts(rig):
    rig.flusher.flush([FlushPart(rig.buffers[k], 5, text, 5) for k, text in enumerate((b"one", b"other"))])
    assert rig.disk.list("state") == ["state/00000001/00000001.bin"]
    rig.flusher.flush([FlushPart(rig.buffers[0], 9, b"newer", 9)])
    shards = load_commits(rig.disk).shards
    assert [read_state(rig.disk, shards[k]) for k in range(2)] == [b"newer", b"other"]
    assert [shards[k].state for k in range(2)] == [
        "state/00000001/00000002.bin#0-5", "state/00000001/00000001.bin#3-8",
    ]  # fmt: skip
    assert rig.disk.list("state") == [shards[k].state_path for k in (1, 0)]


def test_late_duplicates_of_committed_samples_are_dropped(rig, plant):
    rig.add(plant.frames(plant.lone, 0, [1.0, 2.0]))
    rig.flush()
    rig.add(plant.frames(plant.lone, 0, [1.0, 7.0]))
    rig.flush()
    assert (rig.n_stored, rig.n_duplicates) == (3, 1)
    assert values(rig) == [1.0, 7.0]


def test_a_full_disk_takes_nothing_from_the_buffer(rig, plant):
    rig.add(plant.frames(plant.lone, 0, [1.0, 2.0]))
    rig.disk.capacity_bytes = sum(rig.disk.size(p) for p in rig.disk.list("")) + 100
    with pytest.raises(StorageError, match="the disk is full"):
        rig.flush()
    assert (rig.n_unflushed, values(rig)) == (2, [1.0, 2.0])
    rig.disk.capacity_bytes = 1 << 30
    rig.add(plant.frames(plant.lone, 2, [3.0]))
    rig.flush()
    assert (rig.n_stored, values(rig)) == (3, [1.0, 2.0, 3.0])


def test_of_a_late_sample_that_came_again_while_its_flush_failed_the_newer_one_is_read(rig, plant):
    """Both are counted as stored, as are all versions that came: nothing else would add up with what was received."""
    rig.add(plant.frames(plant.lone, 0, [1.0, 2.0]))
    rig.flush()
    rig.add(plant.frames(plant.lone, 0, [7.0]))
    publish = rig.flusher._commits.publish

    def newer_comes_and_the_disk_is_full(*_):
        rig.add(plant.frames(plant.lone, 0, [8.0]))
        raise StorageError("the disk is full")

    rig.flusher._commits.publish = newer_comes_and_the_disk_is_full
    with pytest.raises(StorageError, match="the disk is full"):
        rig.flush()
    rig.flusher._commits.publish = publish
    assert values(rig) == [8.0, 2.0]
    rig.flush()
    assert values(rig) == [8.0, 2.0]
    assert (rig.n_stored, rig.n_duplicates, rig.n_unflushed) == (4, 0, 0)


@pytest.mark.parametrize("point", ["segment.write", "snapshot.write", "commit.publish", "disk.put"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_process_that_ends_in_a_flush_loses_nothing(rig, plant, point, nth):
    faults = CountedFaults({point: nth})
    rig.add(plant.frames(plant.lone, 0, [1.0, 2.0]))
    rig.faults = rig.flusher._faults = rig.disk.faults = faults
    try:
        parts = [FlushPart(buffer, 0, b"state", 0) for buffer in rig.buffers]
        rig.flusher.flush(parts)
    except Crashed:
        pass
    rig.disk, rig.faults = rig.disk.crash(), FaultPoints()
    rig.start()
    assert values(rig) == [1.0, 2.0]
    rig.flush()
    assert values(rig) == [1.0, 2.0]
    assert rig.n_duplicates == 0


def test_who_was_taken_over_stops(rig, plant):
    rig.add(plant.frames(plant.lone, 0, [1.0]))
    rig.flush()
    CommitLog.open(rig.disk, 2, rig.clock)
    rig.add(plant.frames(plant.lone, 1, [2.0]))
    with pytest.raises(Fenced):
        rig.flush()
    assert rig.n_unflushed == 1


def test_a_damaged_commit_is_rebuilt_from_its_segment(rig, plant):
    rig.add(plant.frames(plant.lone, 0, [1.0]))
    rig.flusher.flush([FlushPart(b, 0, b"s", 0) for b in rig.buffers], {"received": 1})
    whole = load_commits(rig.disk)
    rig.disk.flip_bit(commit_path(1, 1), 60)
    rebuilt = load_commits(rig.disk, recover=recover_commit)
    assert rebuilt.damaged == ()
    assert (rebuilt.segments, rebuilt.shards, rebuilt.counters) == (
        whole.segments,
        whole.shards,
        whole.counters,
    )
    rig.disk.delete(whole.segments[0].name)
    assert "is damaged" in load_commits(rig.disk, recover=recover_commit).damaged[0]


def test_many_value_types_of_one_device(rig, plant):
    directory = plant.directory
    slots = [
        directory.define("p/dev", Layout(t, (Column(f"v{t}"),)), part=t)
        for t in ("u8", "i8", "u32", "u64", "f32")
    ]
    for slot in slots:
        rig.add(plant.frames(slot, 0, [3, 5]))
    for step in (rig.flush, rig.compact):
        step()
        answer = rig.store.query("p/dev/*", *SPAN)
        assert answer.columns["value"].tolist() == [3, 5] * 5
    assert rig.store.query("p/dev/vu64", *SPAN).columns["value"].dtype == np.uint64


# --- the directory -----------------------------------------------------------------------------------


def grown(directory, n):
    layout = Layout("f64", (Column(""),))
    for k in range(directory.n_slots, n):
        directory.define(f"p/s{k}", layout)
    return directory


def test_a_directory_is_saved_by_what_it_grew():
    disk, directory = SimulatedDisk(1), SensorDirectory()
    assert save_directory(disk, directory, 0) == ""
    saved = 0
    for n in (3, 5, 9):
        assert save_directory(disk, grown(directory, n), saved) == directory_path(n)
        saved = n
    assert save_directory(disk, directory, 9) == directory_path(9)
    found = load_directory(disk)
    assert found.paths == directory.paths
    assert load_directory(disk, found) is found


def test_many_directory_files_become_one():
    disk, directory = SimulatedDisk(1), SensorDirectory()
    for n in range(1, 40):
        save_directory(disk, grown(directory, n), n - 1)
    assert len(disk.list("directory")) < 34
    assert load_directory(disk).n_slots == 39


def test_a_damaged_directory_is_told():
    disk, directory = SimulatedDisk(1), SensorDirectory()
    save_directory(disk, grown(directory, 3), 0)
    save_directory(disk, grown(directory, 5), 3)
    disk.flip_bit(directory_path(3), 20)
    with pytest.raises(CorruptionError, match="restore it from a backup"):
        load_directory(disk)


def test_a_whole_file_makes_up_for_a_damaged_one():
    disk, directory = SimulatedDisk(1), SensorDirectory()
    save_directory(disk, grown(directory, 3), 0)
    save_directory(disk, grown(directory, 5), 0)
    disk.put_if_absent(directory_path(4), b"damaged")
    assert load_directory(disk).n_slots == 5
