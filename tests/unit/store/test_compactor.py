"""Compaction: what becomes of a day, when, and what is left behind."""

import numpy as np
import pytest

from headrace.codecs.choice import ANY, CodecChoice
from headrace.core.errors import NotFound
from headrace.core.frames import FrameBatch
from headrace.core.quality import Quality
from headrace.sim.faults import CountedFaults, Crashed
from headrace.store.compactor import CompactionPolicy, Compactor
from headrace.store.manifests import HOT_FOLDER, WARM_FOLDER, Manifest, list_manifests, manifest_path
from headrace.store.query import Store
from headrace.store.segment import SegmentFile

NS = 1_000_000_000
DAY = 86_400 * NS
NOON = 20_000 * DAY + DAY // 2
SPAN = NOON, NOON + 600 * NS


def ask(rig, pattern="**/pressure", *args):
    return rig.store.query(pattern, *SPAN, *args, tail=rig.tail)


def fill(rig, plant, n=3, first=0):
    for k in range(first, first + n):
        rig.add(plant.frames(plant.lone, k, [float(k)]))
        rig.add(plant.frames(plant.oven, k, [[k, k]]))
        rig.flush()


def warm_headers(rig):
    (manifest,) = rig.store.view.manifests.values()
    out = []
    for info in manifest.files:
        file = SegmentFile(rig.disk, info)
        out += file.table([n for n in file.table().column_names if n != "payload"]).to_pylist()
    return out


def test_hot_rows_become_one_chunk_a_sensor(rig, plant):
    fill(rig, plant)
    before = ask(rig, "**").to_arrow()
    report = rig.compact()
    assert (report.n_partitions, report.n_samples, report.problems) == (1, 9, [])
    assert ask(rig, "**").to_arrow().equals(before)
    assert ask(rig, "**").sources["hot_rows"] == 0
    lone = next(r for r in warm_headers(rig) if r["path"] == "leon/line1/pressure")
    assert (lone["n_samples"], lone["count"], lone["dtype"], lone["column"]) == (3, 3, "f64", 0)
    assert (lone["min"], lone["max"], lone["sum"], lone["first"], lone["last"], lone["m2"]) == (
        0,
        2,
        3,
        0,
        2,
        2,
    )
    temp = next(r for r in warm_headers(rig) if r["path"].endswith("oven/temp"))
    assert temp["raw_sum"] == 3
    assert temp["sum"] == 3 * 0.1 - 3 * 40
    assert (temp["scale"], temp["offset"], temp["bound"]) == (0.1, -40.0, 0.0)
    assert temp["sensor"] == plant.directory.sensors(plant.oven)[0]


def test_codecs_are_those_that_were_asked_for(rig, plant):
    fill(rig, plant, n=20)
    before = ask(rig, "**").to_arrow()
    asked = {"leon/line1/pressure": CodecChoice(use="gorilla")}
    compactor = Compactor(rig.store, rig.clock, policy=rig.policy, choice_of=lambda p: asked.get(p, ANY))
    assert compactor.run_once(force=True).problems == []
    assert ask(rig, "**").to_arrow().equals(before)
    codecs = {row["path"]: row["value_codec"] for row in warm_headers(rig)}
    assert codecs.pop("leon/line1/pressure") == "gorilla"
    assert codecs
    assert "gorilla" not in codecs.values()


def test_rows_lie_by_path(rig, plant):
    fill(rig, plant)
    rig.compact()
    paths = [r["path"] for r in warm_headers(rig)]
    assert paths == sorted(paths)


def test_long_series_are_cut_into_chunks(rig, plant):
    n = 20_000
    rig.add(FrameBatch.dense(
        np.full(n, plant.lone, np.uint32), NOON - 10_000 * NS + np.arange(n) * NS, np.arange(n, dtype=float).reshape(-1, 1)
    ))  # fmt: skip
    rig.flush()
    rig.compact()
    assert [r["n_samples"] for r in warm_headers(rig)] == [6_666, 6_667, 6_667]
    answer = rig.store.query(
        "**/pressure", NOON - DAY // 2, NOON + DAY // 2 - 1, None, ("sum", "count", "var")
    )
    assert answer.sources["warm_headers"] == 3
    assert answer.to_rows()[0]["sum"] == n * (n - 1) / 2
    assert answer.to_rows()[0]["var"] == pytest.approx(np.arange(n).var())


def test_bad_samples_and_nans_are_kept_but_not_counted(rig, plant):
    quality = np.array([[0], [Quality.BAD_DEVICE], [0]], np.uint8)
    rig.add(plant.frames(plant.lone, 0, [1.0, 2.0, np.nan], quality=quality))
    rig.flush()
    rig.compact()
    (row,) = warm_headers(rig)
    assert (row["n_samples"], row["count"], row["quality"], row["sum"]) == (3, 1, 1 | 4, 1.0)
    assert ask(rig).columns["quality"].tolist() == [0, Quality.BAD_DEVICE, 0]


def test_a_chunk_without_usable_samples_has_no_statistics(rig, plant):
    rig.add(plant.frames(plant.lone, 0, [1.0], quality=np.array([[Quality.BAD]], np.uint8)))
    rig.flush()
    rig.compact()
    (row,) = warm_headers(rig)
    assert (row["count"], row["min"], row["raw_sum"]) == (0, None, None)
    assert ask(rig, "**/pressure", None, ("count",)).n_rows == 0


def test_64_bit_integers_have_no_statistics_but_exact_answers(rig, plant):
    rig.add(plant.frames(plant.meter, 0, [2**60 + 1, 2**60 + 3]))
    rig.flush()
    rig.compact()
    assert warm_headers(rig)[0]["min"] is None
    assert ask(rig, "**/count", None, ("max",)).columns["max"].tolist() == [2**60 + 3]


def test_late_revisions_are_resolved(rig, plant):
    fill(rig, plant)
    rig.compact()
    rig.add(plant.frames(plant.lone, 1, [99.0]))
    rig.flush()
    assert ask(rig).columns["value"].tolist() == [0.0, 99.0, 2.0]
    assert ask(rig, "**/pressure", None, ("max",)).sources["warm_headers"] == 0
    rig.clock.set_ns(NOON + 2 * DAY)
    rig.compact()
    assert ask(rig).columns["value"].tolist() == [0.0, 99.0, 2.0]
    assert ask(rig, "**/pressure", None, ("max",)).columns["max"].tolist() == [99.0]


# --- when --------------------------------------------------------------------------------------------


def due(rig, **policy):
    return Compactor(rig.store, rig.clock, policy=CompactionPolicy(**policy)).run_once().n_partitions


def test_a_day_is_compacted_when_it_is_over(rig, plant):
    fill(rig, plant)
    rig.clock.set_ns(NOON + DAY // 2 + 3_599 * NS)
    assert due(rig) == 0
    rig.clock.advance(1)
    assert due(rig) == 1
    assert rig.store.view.manifests[20_000].is_whole
    assert due(rig) == 0


def test_late_data_wait_their_turn_and_are_added(rig, plant):
    rig.clock.set_ns(NOON + 2 * DAY)
    fill(rig, plant, 30)
    due(rig)
    rig.add(plant.frames(plant.lone, 1, [99.0]))
    rig.flush()
    assert due(rig) == 0
    rig.clock.advance(3_600)
    assert due(rig) == 1
    assert len(rig.store.view.manifests[20_000].files) == 2
    assert ask(rig).columns["value"].tolist()[:3] == [0.0, 99.0, 2.0]
    rig.clock.advance(3_600)
    rig.add(plant.frames(plant.lone, 2, [98.0]))
    rig.flush()
    assert due(rig, n_files_max=2) == 1
    assert len(rig.store.view.manifests[20_000].files) == 1


def test_a_day_that_lasts_is_compacted_where_many_segments_gather(rig, plant):
    rig.clock.set_ns(NOON)
    fill(rig, plant, 3)
    assert due(rig, n_hot_max=4) == 0
    fill(rig, plant, 1, 3)
    assert due(rig, n_hot_max=4) == 1
    assert due(rig, n_hot_max=4) == 0
    fill(rig, plant, 4, 4)
    assert due(rig, n_hot_max=4) == 1
    assert len(rig.store.view.manifests[20_000].files) == 2
    rig.clock.set_ns(NOON + 2 * DAY)
    assert due(rig) == 1  # the day is over: its parts become one
    assert len(rig.store.view.manifests[20_000].files) == 1
    assert ask(rig).columns["value"].tolist() == [float(k) for k in range(8)]


def test_days_are_partitions_of_their_own(rig, plant):
    rig.add(plant.frames(plant.lone, 0, [1.0, 2.0], start_ns=NOON + DAY // 2 - NS))
    rig.flush()
    assert rig.compact().n_partitions == 2
    assert list(list_manifests(rig.disk)) == [20_000, 20_001]


def test_bytes_of_a_segment_of_several_days_count_once_in_a_run(rig, plant):
    for day in range(4):
        rig.add(plant.frames(plant.lone, 0, [1.0, 2.0], start_ns=NOON + day * DAY))
    rig.flush()
    (info,) = rig.commits.view.segments
    assert len(info.days) == 4
    report = rig.compact()
    assert (report.n_partitions, report.bytes_before) == (4, info.size_bytes)
    files = [file for manifest in rig.store.refresh().manifests.values() for file in manifest.files]
    assert report.bytes_after == sum(file.size_bytes for file in files)


# --- what is left behind -----------------------------------------------------------------------------


def test_what_was_replaced_goes_after_the_grace_time(rig, plant):
    fill(rig, plant)
    rig.compact()
    assert len(rig.disk.list(HOT_FOLDER)) == 3
    rig.clock.advance(11)
    rig.compact()
    assert rig.disk.list(HOT_FOLDER) == []
    fill(rig, plant, 1, 3)
    rig.clock.set_ns(NOON + 2 * DAY)
    rig.compact()
    rig.clock.advance(11)
    rig.compact()
    assert len(rig.disk.list(WARM_FOLDER)) == 1
    assert list_manifests(rig.disk)[20_000] == [2]
    assert ask(rig).n_rows == 4


def test_a_reader_with_an_old_view_looks_again(rig, plant, monkeypatch):
    fill(rig, plant)
    reader = Store.open(rig.disk, None, rig.clock)
    refresh = reader.refresh
    seen = []

    def stale():
        view = refresh()
        if not seen:  # the compaction and its tidying come right after the view was read
            seen.append(view)
            rig.compact()
            rig.clock.advance(11)
            rig.compact()
        return view

    reader.query("**/pressure", *SPAN)
    monkeypatch.setattr(reader, "refresh", stale)
    reader.reader.forget({s.name for s in reader.view.commits.segments})
    answer = reader.query("**/pressure", *SPAN)
    assert (answer.n_rows, answer.missing) == (3, ())


@pytest.mark.parametrize("point", ["segment.write", "commit.publish", "disk.put", "disk.delete"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_process_that_ends_in_a_compaction_loses_nothing(rig, plant, point, nth):
    fill(rig, plant)
    rig.faults = rig.compactor._faults = rig.disk.faults = CountedFaults({point: nth})
    try:
        rig.compact()
        rig.clock.advance(11)
        rig.compact()
    except Crashed:
        pass
    rig.disk = rig.disk.crash()
    rig.faults = CountedFaults({})
    rig.start()
    for _ in range(2):
        assert ask(rig).columns["value"].tolist() == [0.0, 1.0, 2.0]
        assert ask(rig).missing == ()
        rig.clock.advance(11)
        assert rig.compact().problems == []


def test_a_segment_that_no_commit_names_is_deleted_once_its_engine_is_gone(rig, plant):
    fill(rig, plant)
    orphan = f"{HOT_FOLDER}/00000001/00000099.parquet"
    rig.disk.put_if_absent(orphan, b"left behind")
    rig.compact()
    assert orphan in rig.disk.list(HOT_FOLDER)
    rig.start()
    fill(rig, plant, 1, 3)
    rig.compact()
    assert orphan not in rig.disk.list(HOT_FOLDER)


# --- damage ------------------------------------------------------------------------------------------


def test_a_damaged_hot_segment_is_left_out_and_told(rig, plant):
    fill(rig, plant)
    name = rig.commits.view.segments[1].name
    rig.disk.flip_bit(name, -3)
    answer = ask(rig)
    assert answer.columns["value"].tolist() == [0.0, 2.0]
    assert answer.missing == (
        f"segment {name} is damaged: it does not end in a Parquet footer; restore it from a backup",
    )
    assert rig.store.quarantined
    rig.compact()
    assert ask(rig).missing == answer.missing
    rig.clock.advance(11)
    rig.compact()
    assert rig.disk.list(HOT_FOLDER) == [name]
    assert rig.store.view.manifests[20_000].left_out == (name,)
    rig.disk.flip_bit(name, -3)  # restored from a backup
    again = Store.open(rig.disk, None, rig.clock)
    assert again.query("**/pressure", *SPAN).columns["value"].tolist() == [0.0, 1.0, 2.0]


def damage_row(rig, info, slot):
    """Flip a bit in the first payload of a group."""
    headers = SegmentFile(rig.disk, info).headers(0)
    row = int(np.flatnonzero(headers.group == rig.directory.group_id[slot])[0])
    rig.disk.flip_bit(info.name, int(headers.offset[row]) + 8)


def test_a_damaged_row_is_left_out_and_told(rig, plant):
    fill(rig, plant)
    info = rig.commits.view.segments[1]
    damage_row(rig, info, plant.lone)
    for _ in range(2):
        answer = ask(rig, "**")
        assert len(answer.missing) == 1
        assert f"segment {info.name}: a row of 1 samples" in answer.missing[0]
        assert answer.n_rows == 8  # the oven's row of the same segment is there
        assert rig.compact().problems == []
    assert rig.store.view.manifests[20_000].left_out == (info.name,)


def test_a_damaged_warm_row_keeps_its_day_as_it_is(rig, plant):
    fill(rig, plant)
    rig.compact()
    (info,) = rig.store.view.manifests[20_000].files
    damage_row(rig, info, plant.lone)
    assert "a row of 3 samples" in ask(rig).missing[0]
    fill(rig, plant, 1, 3)
    rig.clock.set_ns(NOON + 2 * DAY)
    report = rig.compact()
    assert "day 2024-10-04 stays as it is: " in report.problems[0]
    assert rig.store.view.manifests[20_000].number == 1
    assert ask(rig).n_rows == 1


def test_a_missing_segment_is_told(rig, plant):
    fill(rig, plant)
    rig.disk.delete(rig.commits.view.segments[0].name)
    answer = Store.open(rig.disk, None, rig.clock).query("**/pressure", *SPAN)
    assert answer.n_rows == 2
    assert "is missing" in answer.missing[0]


def test_a_damaged_manifest_falls_back_to_the_one_before(rig, plant):
    fill(rig, plant)
    rig.compact()
    fill(rig, plant, 1, 3)
    rig.compact()
    rig.disk.flip_bit(manifest_path(20_000, 2), 30)
    answer = Store.open(rig.disk, None, rig.clock).query("**/pressure", *SPAN)
    assert answer.columns["value"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert manifest_path(20_000, 2) in answer.missing[0]
    rig.disk.flip_bit(manifest_path(20_000, 1), 30)
    answer = Store.open(rig.disk, None, rig.clock).query("**/pressure", *SPAN)
    assert answer.n_rows == 4  # the hot segments are still within their grace time
    assert answer.missing


def test_nothing_is_compacted_beside_a_damaged_commit(rig, plant):
    fill(rig, plant)
    info = rig.commits.view.segments[1]
    rig.disk.flip_bit(f"commits/00000001/{2:08d}.json", 50)
    rig.disk.delete(info.name)
    fresh = Store.open(rig.disk, None, rig.clock)
    report = Compactor(fresh, rig.clock).run_once(force=True)
    assert (report.n_partitions, len(report.problems)) == (0, 1)


def test_a_manifest_survives_its_json():
    manifest = Manifest(-3, 2, 5, (), {1: 7}, ("x",), True)
    assert Manifest.from_dict(manifest.to_dict()) == manifest
    assert manifest.name == "manifests/warm/-00003/000002.json"


def test_a_store_says_its_size(rig, plant):
    fill(rig, plant)
    status = rig.store.status()
    assert (status.n_samples, status.n_segments, [t.n_segments for t in status.tiers]) == (9, 3, [3, 0])
    rig.compact()
    hot, warm = rig.store.status().tiers
    assert (hot.name, hot.n_samples, warm.name, warm.n_segments) == ("hot", 0, "warm", 1)
    assert warm.size_bytes == rig.store.status().size_bytes
    with pytest.raises(NotFound):
        rig.store.query("nowhere/*", *SPAN)
