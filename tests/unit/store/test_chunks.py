"""Hot rows: which frames share a row, and what its header says."""

import numpy as np
import pytest

from headrace.codecs.block import decode_block
from headrace.codecs.wave import decode_wave
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality
from headrace.store.chunks import HOT, RowEncoder, ShardFrames, binary
from headrace.store.frame_log import FrameLog
from headrace.store.grouping import DAY_NS, FRAMES_MAX, VALUES_MAX, plan_blocks

NS = 1_000_000_000
NOON = (20_000 * 86_400 + 43_200) * NS
MIDNIGHT = 20_001 * DAY_NS


@pytest.fixture
def encode(plant):
    encoder = RowEncoder(plant.directory)

    def rows(*frames, late=()):
        shard = int(plant.directory.shard[(*frames, *late)[0].slot[0]])
        return encoder.encode([ShardFrames(shard, frames, late, 9, NOON)]).to_pylist()

    return rows


def wave(plant, t0_ns, values, hz=1):
    slot, rate = np.array([plant.motor], np.uint32), (np.array([hz]), np.array([1]))
    start = np.array([0, len(values)])
    return FrameBatch.wave(slot, np.array([t0_ns]), np.array(values, np.int16), start, rate)


def test_the_frames_of_a_group_are_one_row(plant, encode):
    (row,) = encode(plant.frames(plant.oven, 0, [[1, 2], [3, 4]]), plant.frames(plant.oven, 2, [[5, 6]]))
    assert tuple(row) == HOT
    assert row["path"] == "leon/line1/oven"
    assert (row["kind"], row["dtype"], row["column"], row["seq"]) == ("frames", "u16", -1, 9)
    assert (row["n_frames"], row["n_samples"], row["count"], row["quality"]) == (3, 6, 6, 1)
    assert (row["t_min"].value, row["t_max"].value, row["arrival"].value) == (NOON, NOON + 2 * NS, NOON)
    assert Layout.from_json(row["layout_json"]).id == row["layout"]
    assert row["n_bytes"] == len(row["payload"])
    ts_ns, values, quality = decode_block(row["payload"], np.dtype(np.uint16))
    assert ts_ns.tolist() == [NOON, NOON + NS, NOON + 2 * NS]
    assert values.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert quality is None


def test_a_header_counts_what_is_there_and_what_is_usable(plant, encode):
    quality = np.array([[0, Quality.ABSENT], [Quality.UNCERTAIN, Quality.BAD_DEVICE]], np.uint8)
    (row,) = encode(plant.frames(plant.oven, 0, [[1, 2], [3, 4]], quality=quality))
    assert (row["n_samples"], row["count"], row["quality"]) == (3, 2, 1 | 2 | 4 | 8)


def test_rows_end_at_midnight(plant, encode):
    rows = encode(plant.frames(plant.oven, 0, [[k, k] for k in range(4)], start_ns=MIDNIGHT - 2 * NS))
    assert [(r["n_frames"], r["t_min"].value) for r in rows] == [(2, MIDNIGHT - 2 * NS), (2, MIDNIGHT)]


def test_a_wave_over_midnight_is_cut_into_samples(plant, encode):
    inside, cut = wave(plant, NOON, [1, 2, 3]), wave(plant, MIDNIGHT - NS, [4, 5, 6])
    rows = encode(FrameBatch.concat([inside, cut]))
    assert [(r["value_codec"], r["n_samples"], r["column"]) for r in rows] == [
        ("wave", 3, 0), ("block", 1, 0), ("block", 2, 0),
    ]  # fmt: skip
    assert [r["value_codec"] for r in encode(cut)] == ["block", "block"]
    assert encode(wave(plant, NOON, [])) == []


def test_waves_of_many_sensors_are_a_row_for_each(plant, encode):
    """In any order, with any qualities, and one without values among them."""
    other = plant.directory.define("leon/line2/pump", plant.directory.layout(plant.motor))
    slot = np.array([other, plant.motor, other, other, plant.motor], np.uint32)
    ts_ns = NOON + np.array([4, 0, 0, 9, 1]) * NS
    quality = np.array([0, Quality.ABSENT, 0, Quality.UNCERTAIN, 0, 0, Quality.BAD_DEVICE], np.uint8)
    batch = FrameBatch.wave(
        slot, ts_ns, np.arange(7, dtype=np.int16), np.array([0, 2, 3, 5, 5, 7]),
        (np.array([2, 1, 2, 2, 4]), np.ones(5, np.int64)), quality=quality,
    )  # fmt: skip
    rows = {row["path"]: row for row in encode(batch)}
    motor, pump = rows["leon/line2/motor"], rows["leon/line2/pump"]
    assert (motor["n_frames"], motor["n_samples"], motor["count"], motor["quality"]) == (3, 3, 2, 1 | 4)
    assert (pump["n_frames"], pump["n_samples"], pump["count"], pump["quality"]) == (4, 3, 3, 1 | 2 | 8)
    assert (motor["t_min"].value, motor["t_max"].value) == (NOON, NOON + NS + NS // 4)
    assert (pump["t_min"].value, pump["t_max"].value) == (NOON, NOON + 4 * NS + NS // 2)
    runs, values, marks = decode_wave(pump["payload"], np.dtype(np.int16))
    assert (runs.t0_ns.tolist(), runs.n.tolist()) == ([NOON, NOON + 4 * NS], [2, 2])
    assert (values.tolist(), marks.tolist()) == ([3, 4, 0, 1], quality[[3, 4, 0, 1]].tolist())
    assert decode_wave(motor["payload"], np.dtype(np.int16))[1].tolist() == [2, 5, 6]
    good = {row["path"]: row for row in encode(batch.with_(quality=None))}
    assert [(r["n_samples"], r["count"], r["quality"]) for r in good.values()] == [(3, 3, 1), (4, 4, 1)]


def test_sparse_frames_are_a_row_a_series(plant, encode):
    slot, ts_ns = np.full(2, plant.oven, np.uint32), np.array([NOON, NOON + NS])
    start, column = np.array([0, 2, 3]), np.array([1, 0, 1], np.uint16)
    batch = FrameBatch.sparse(slot, ts_ns, np.array([5, 6, 7], np.uint16), start, column)
    rows = encode(batch)
    assert [(r["column"], r["n_frames"]) for r in rows] == [(0, 1), (1, 2)]
    quality = np.array([Quality.ABSENT] * 3, np.uint8)
    assert encode(batch.with_(quality=quality)) == []


def test_late_samples_are_overlays(plant, encode):
    late = plant.frames(plant.oven, 0, [[1, 2]])
    assert [r["kind"] for r in encode(late=(late,))] == ["overlay"]


def test_of_two_frames_at_one_time_each_column_keeps_its_last(plant, encode):
    quality = np.array([[0, 0], [0, Quality.ABSENT]], np.uint8)
    twice = plant.frames(plant.oven, 0, [[1, 2], [3, 4]], quality=quality).with_(ts_ns=np.array([NOON, NOON]))
    rows = encode(twice)
    values = [decode_block(r["payload"], np.dtype(np.uint16))[1].tolist() for r in rows]
    assert values == [[[3]], [[2]]]


def test_strings_carry_their_words(plant, encode):
    slot, start, column = np.array([plant.word], np.uint32), np.array([0, 1]), np.array([0], np.uint16)
    words = FrameBatch.sparse(
        slot, np.array([NOON]), np.array([1], np.uint16), start, column, dictionary=("a", "b")
    )
    other = words.with_(ts_ns=np.array([NOON + NS]), dictionary=("c", "d"))
    assert [r["dictionary"] for r in encode(words, other)] == [["b"], ["d"]]


def test_dense_strings_of_several_shards_carry_their_words(plant):
    """Devices of two shards, whose texts have the same words, in one flush."""
    slots = plant.directory.define_many(
        [f"leon/line1/press{i}" for i in range(40)], Layout("u8", (Column("a"), Column("b")))
    )
    parts = {}
    for number, slot in enumerate(slots.tolist()):
        batch = FrameBatch.dense(
            np.array([slot], np.uint32),
            np.array([NOON]),
            np.array([[number % 2, 1]], np.uint8),
            dictionary=("run", "stop"),
        )
        shard, log = int(plant.directory.shard[slot]), FrameLog((*batch.kind_key[:3], ("0",)))
        log.append(1, batch)
        parts.setdefault(shard, []).append(log)
    assert len(parts) > 1
    some = [ShardFrames(shard, logs, [], 1, NOON) for shard, logs in parts.items()]
    rows = RowEncoder(plant.directory).encode(some).to_pylist()
    found = sorted((row["path"], row["column"], row["dictionary"]) for row in rows)
    expected = [
        (f"leon/line1/press{i}", j, [("run", "stop")[i % 2 if j == 0 else 1]])
        for i in range(40)
        for j in range(2)
    ]
    assert found == sorted(expected)


def test_shards_are_encoded_together_and_each_row_says_its_own(plant):
    shard = plant.directory.shard
    oven, lone = plant.frames(plant.oven, 0, [[1, 2]]), plant.frames(plant.lone, 0, [0.5])
    meter = plant.frames(plant.meter, 0, [7])
    parts = [
        ShardFrames(k, [b for b in (oven, lone, meter) if shard[b.slot[0]] == k], [], 10 + k, NOON + k)
        for k in range(plant.directory.n_shards)
    ]
    rows = RowEncoder(plant.directory).encode(parts).to_pylist()
    assert sorted((r["shard"], r["seq"], r["arrival"].value, r["path"]) for r in rows) == sorted(
        (int(shard[s]), 10 + int(shard[s]), NOON + int(shard[s]), plant.directory.paths[s])
        for s in (plant.oven, plant.lone, plant.meter)
    )
    assert len({r["shard"] for r in rows}) > 1


def test_few_of_many_groups_are_rows_as_all_are(plant):
    frames = [plant.frames(plant.oven, k, [[k, k]]) for k in (3, 1, 2)]
    before = RowEncoder(plant.directory).encode([ShardFrames(0, frames, [], 1, NOON)]).to_pylist()
    plant.directory.define_many([f"leon/idle/{k}" for k in range(100)], plant.directory.layout(plant.oven))
    after = RowEncoder(plant.directory).encode([ShardFrames(0, frames, [], 1, NOON)]).to_pylist()
    assert after == before
    assert [r["n_frames"] for r in after] == [3]


def test_nothing_is_no_rows(plant):
    table = RowEncoder(plant.directory).encode([ShardFrames(0, [], [], 1, NOON)])
    assert (len(table), tuple(table.column_names)) == (0, HOT)


def test_a_payload_beyond_31_bits_is_refused():
    with pytest.raises(ValueError, match="flush earlier"):
        binary(np.empty(0, np.uint8), np.array([0, 2**31]))


def test_blocks_have_a_bounded_size():
    n = FRAMES_MAX + 5
    order, starts = plan_blocks(np.zeros(n, np.uint32), None, 1, np.arange(n), 1)
    assert starts.tolist() == [0, FRAMES_MAX, n]
    _, starts = plan_blocks(np.zeros(4, np.uint32), None, 1, np.arange(4), VALUES_MAX // 2)
    assert starts.tolist() == [0, 2, 4]
    assert order.tolist() == list(range(n))


def test_frames_out_of_order_are_put_in_order():
    entry, ts_ns = np.array([1, 0, 1, 1], np.uint32), np.array([5, 9, 3, 5])
    order, starts = plan_blocks(entry, None, 2, ts_ns, 1)
    assert order.tolist() == [1, 2, 3]  # of the two at time 5 the later one
    assert starts.tolist() == [0, 1, 3]


def test_times_before_1970_have_days_too():
    _, starts = plan_blocks(np.zeros(3, np.uint32), None, 1, np.array([-DAY_NS - 1, -DAY_NS, -1]), 1)
    assert starts.tolist() == [0, 1, 3]
