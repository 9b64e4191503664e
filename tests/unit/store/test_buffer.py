"""The hot buffer: what it takes in, tells apart, hands out and takes back."""

import numpy as np
import pytest

from headrace.core.clock import NO_TIME
from headrace.core.frames import FrameBatch, Shape
from headrace.core.quality import Quality
from headrace.store import frame_log
from headrace.store.buffer import HotBuffer

NS = 1_000_000_000
NOON = (20_000 * 86_400 + 43_200) * NS


@pytest.fixture
def buffer(plant):
    return HotBuffer(0, plant.directory)


def samples_of(batches):
    out = []
    for b in batches:
        slots = np.repeat(b.slot, b.width if b.shape is Shape.DENSE else np.diff(b.start))
        quality = np.zeros(b.n_values, np.uint8) if b.quality is None else b.quality.reshape(-1)
        rows = zip(
            slots.tolist(),
            b.value_times().tolist(),
            b.values.reshape(-1).tolist(),
            quality.tolist(),
            strict=True,
        )
        out += [r[:3] for r in rows if r[3] < Quality.ABSENT]
    return out


def test_an_empty_buffer_has_nothing_to_flush(buffer):
    assert (buffer.n_samples, buffer.size_bytes, buffer.oldest_ns, buffer.frames()) == (0, 0, NO_TIME, [])
    taken = buffer.take(7)
    assert (taken.seq, taken.n_samples, taken.arrival_ns) == (7, 0, (NO_TIME, NO_TIME))


def test_batches_of_one_kind_lie_together(plant, buffer):
    buffer.append(1, plant.frames(plant.oven, 0, [[1, 2], [3, 4]]))
    buffer.append(2, plant.frames(plant.oven, 2, [[5, 6]]))
    buffer.append(2, plant.frames(plant.lone, 0, [1.5]))
    dense, lone = buffer.frames()
    assert dense.values.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert lone.values.tolist() == [[1.5]]
    assert buffer.n_samples == 7
    assert buffer.oldest_ns == NOON


def test_what_was_handed_out_does_not_change_when_more_comes(plant, buffer):
    buffer.append(1, plant.frames(plant.lone, 0, [1.0]))
    (before,) = buffer.frames()
    for k in range(1, 200):
        buffer.append(k + 1, plant.frames(plant.lone, k, [float(k)]))
    assert before.values.tolist() == [[1.0]]
    assert buffer.frames()[0].n_frames == 200


@pytest.fixture
def small_pieces(monkeypatch):
    """Logs that are full after four values of eight bytes."""
    monkeypatch.setattr(frame_log, "PIECE_BYTES", 32)


def test_a_full_log_is_followed_by_another(plant, buffer, small_pieces):
    for k in range(10):
        buffer.append(k, plant.frames(plant.lone, 3 * k, [3.0 * k, 3.0 * k + 1, 3.0 * k + 2]))
    batches = buffer.frames()
    assert [b.n_frames for b in batches] == [3] * 10, "three and three are more than four"
    assert [v for _, _, v in samples_of(batches)] == list(range(30))
    taken = buffer.take(6)
    assert (taken.n_samples, buffer.n_samples) == (21, 9)
    assert [v for _, _, v in samples_of(buffer.frames())] == list(range(30)), "taken ones stay visible"
    buffer.put_back(taken)
    assert [v for _, _, v in samples_of(log.batch() for log in buffer.take(99).logs)] == list(range(30))


def test_a_batch_larger_than_a_log_is_taken_whole(plant, buffer, small_pieces):
    buffer.append(1, plant.frames(plant.lone, 0, [float(v) for v in range(100)]))
    buffer.append(2, plant.frames(plant.lone, 100, [100.0]))
    assert [b.n_frames for b in buffer.frames()] == [100, 1]


def test_frames_without_values_do_not_make_a_log_grow_one_by_one(plant, small_pieces):
    nothing = np.empty(0, np.int32), np.zeros(2, np.int64), np.empty(0, np.uint16)
    log, rooms = frame_log.FrameLog((Shape.SPARSE, "i32", 1, None)), set()
    for k in range(2_000):
        log.append(k, FrameBatch.sparse(np.zeros(1, np.uint32), np.array([NOON + k]), *nothing))
        rooms.add(len(log._columns["slot"]))
    assert log.n_frames == 2_000
    assert len(rooms) < 10


def test_a_late_frame_is_compared_with_every_log(plant, buffer, small_pieces):
    for k in range(8):
        buffer.append(k, plant.frames(plant.lone, k, [float(k)] * 1))
    n_same, fresh = buffer.add_late(9, plant.frames(plant.lone, 1, [1.0, 2.5, 3.0, 4.0, 9.0]))
    assert n_same == 3
    assert samples_of([fresh]) == [(plant.lone, NOON + 2 * NS, 2.5), (plant.lone, NOON + 5 * NS, 9.0)]


def test_frames_of_some_slots(plant, buffer):
    buffer.append(1, plant.frames(plant.oven, 0, [[1, 2]]))
    buffer.append(1, plant.frames(plant.lone, 0, [1.5]))
    (one,) = buffer.frames(np.array([plant.lone], np.uint32))
    assert one.slot.tolist() == [plant.lone]
    assert buffer.frames(np.array([plant.meter], np.uint32)) == []


def test_quality_that_comes_later_leaves_the_first_good(plant, buffer):
    buffer.append(1, plant.frames(plant.oven, 0, [[1, 2]]))
    bad = np.array([[0, Quality.BAD_DEVICE]], np.uint8)
    buffer.append(2, plant.frames(plant.oven, 1, [[3, 4]], quality=bad))
    assert buffer.frames()[0].quality.tolist() == [[0, 0], [0, Quality.BAD_DEVICE]]


def test_times_of_values_that_come_later_are_kept_for_all(plant, buffer):
    slot, start = np.array([plant.oven], np.uint32), np.array([0, 1])
    plain = FrameBatch.sparse(
        slot, np.array([NOON]), np.array([1], np.uint16), start, np.array([0], np.uint16)
    )
    buffer.append(1, plain)
    buffer.append(2, plain.with_(ts_ns=np.array([NOON + NS]), value_ts_ns=np.array([NOON + 7])))
    assert buffer.frames()[0].value_ts_ns.tolist() == [NOON, NOON + 7]


def test_taken_frames_stay_visible_until_they_are_released(plant, buffer):
    buffer.append(1, plant.frames(plant.lone, 0, [1.0]))
    taken = buffer.take(1)
    buffer.append(2, plant.frames(plant.lone, 1, [2.0]))
    assert len(samples_of(buffer.frames())) == 2
    assert buffer.n_samples == 1
    buffer.release(taken)
    assert samples_of(buffer.frames()) == [(plant.lone, NOON + NS, 2.0)]


def test_only_what_is_durable_is_taken(plant, buffer):
    for seq in (1, 2, 3):
        buffer.append(seq, plant.frames(plant.lone, seq, [float(seq)]))
    taken = buffer.take(2)
    assert taken.n_samples == 2
    assert buffer.n_samples == 1
    assert buffer.take(2).n_samples == 0
    assert buffer.take(3).n_samples == 1


def test_what_is_put_back_is_taken_again_first(plant, buffer):
    buffer.append(1, plant.frames(plant.lone, 0, [1.0]))
    buffer.put_back(buffer.take(1))
    assert buffer.n_samples == 1
    buffer.append(2, plant.frames(plant.lone, 1, [2.0]))
    taken = buffer.take(2)
    assert [log.batch().values.tolist() for log in taken.logs] == [[[1.0]], [[2.0]]]
    assert buffer.n_samples == 0


def test_a_late_frame_is_compared_column_by_column(plant, buffer):
    absent = np.array([[0, Quality.ABSENT], [0, 0]], np.uint8)
    buffer.append(1, plant.frames(plant.oven, 0, [[1, 0], [3, 4]], quality=absent))
    n_duplicates, fresh = buffer.add_late(2, plant.frames(plant.oven, 0, [[1, 2], [3, 9]]))
    assert n_duplicates == 2  # the 1 and the 3
    assert samples_of([fresh]) == [(plant.oven, NOON, 2), (plant.oven, NOON + NS, 9)]
    assert sorted(samples_of(buffer.frames()))[-1] == (plant.oven, NOON + NS, 9)


def test_another_quality_is_a_revision(plant, buffer):
    buffer.append(1, plant.frames(plant.lone, 0, [1.0]))
    late = plant.frames(plant.lone, 0, [1.0], quality=np.array([[Quality.UNCERTAIN]], np.uint8))
    assert buffer.add_late(2, late)[0] == 0
    assert buffer.add_late(3, late) == (1, None)


def test_nans_of_the_same_bits_are_duplicates(plant, buffer):
    buffer.append(1, plant.frames(plant.lone, 0, [np.nan]))
    assert buffer.add_late(2, plant.frames(plant.lone, 0, [np.nan])) == (1, None)
    assert buffer.add_late(2, plant.frames(plant.lone, 0, [-0.0]))[0] == 0
    assert buffer.add_late(2, plant.frames(plant.lone, 0, [0.0]))[0] == 0


def test_a_batch_that_repeats_itself(plant, buffer):
    twice = plant.frames(plant.lone, 0, [5.0]).with_(
        slot=np.full(3, plant.lone, np.uint32), ts_ns=np.full(3, NOON), values=np.array([[5.0], [5.0], [6.0]])
    )
    n_duplicates, fresh = buffer.add_late(1, twice)
    assert n_duplicates == 1
    assert samples_of([fresh]) == [(plant.lone, NOON, 5.0), (plant.lone, NOON, 6.0)]
    assert samples_of(buffer.frames()) == [(plant.lone, NOON, 6.0)]  # the newest version of the two


def test_words_are_compared_not_codes(plant, buffer):
    slot, start, column = np.array([plant.word], np.uint32), np.array([0, 1]), np.array([0], np.uint16)
    batch = FrameBatch.sparse(
        slot, np.array([NOON]), np.array([1], np.uint16), start, column, dictionary=("a", "b")
    )
    buffer.append(1, batch)
    same = batch.with_(values=np.array([0], np.uint16), dictionary=("b", "c"))
    assert buffer.add_late(2, same) == (1, None)
    assert buffer.add_late(3, batch.with_(dictionary=("b", "c")))[0] == 0


def test_part_of_a_wave_that_is_known(plant, buffer):
    slot, rate = np.array([plant.motor], np.uint32), (np.array([1]), np.array([1]))
    wave = FrameBatch.wave(slot, np.array([NOON]), np.array([1, 2, 3], np.int16), np.array([0, 3]), rate)
    buffer.append(1, wave)
    n_duplicates, fresh = buffer.add_late(
        2, wave.with_(ts_ns=np.array([NOON + NS]), values=np.array([2, 3, 4], np.int16))
    )
    assert n_duplicates == 2
    assert fresh.shape is Shape.SPARSE
    assert samples_of([fresh]) == [(plant.motor, NOON + 3 * NS, 4)]


def test_late_sparse_frames_keep_their_frames(plant, buffer):
    slot, ts_ns = np.full(2, plant.oven, np.uint32), np.array([NOON, NOON + NS])
    start, column = np.array([0, 2, 3]), np.array([0, 1, 0], np.uint16)
    batch = FrameBatch.sparse(slot, ts_ns, np.array([1, 2, 3], np.uint16), start, column)
    assert buffer.add_late(1, batch.slice(0, 1))[0] == 0
    n_duplicates, fresh = buffer.add_late(2, batch)
    assert n_duplicates == 2
    assert fresh.n_frames == 1
    assert samples_of([fresh]) == [(plant.oven, NOON + NS, 3)]


def test_a_sensor_is_followed_into_a_new_layout(plant, buffer):
    from headrace.core.layouts import Column, Layout

    buffer.append(1, plant.frames(plant.oven, 0, [[1, 2]]))
    grid = (Column("new"), Column("temp", unit="degC", scale=0.1, offset=-40.0))
    newer = plant.directory.define("leon/line1/oven", Layout("u16", grid))
    n_duplicates, fresh = buffer.add_late(2, plant.frames(newer, 0, [[7, 1]]))
    assert n_duplicates == 1
    assert samples_of([fresh]) == [(newer, NOON, 7)]
