import numpy as np
import pytest

from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch, Shape, wave_offsets_ns

S = 1_000_000_000


def u32(*values):
    return np.array(values, np.uint32)


def i64(*values):
    return np.array(values, np.int64)


def dense(n=3, width=2, **rest):
    values = np.arange(n * width, dtype=np.uint16).reshape(n, width)
    return FrameBatch.dense(np.arange(n, dtype=np.uint32), np.arange(n) * S, values, **rest)


def sparse(**rest):
    return FrameBatch.sparse(
        u32(4, 5, 4), i64(1, 2, 3) * S, np.array([1.5, 2.5, 3.5]), i64(0, 2, 2, 3), np.array([0, 1, 0], np.uint16), **rest
    )  # fmt: skip


def wave(**rest):
    rate = (i64(2, 1), i64(1, 3))
    return FrameBatch.wave(
        u32(8, 9), i64(0, 100) * S, np.arange(5, dtype=np.int16), i64(0, 3, 5), rate, **rest
    )


def test_sizes_and_types():
    batch = dense(3, 2, quality=np.array([[0, 0], [0xC0, 0], [0x80, 0]], np.uint8))
    assert (batch.n_frames, batch.n_values, batch.n_samples, batch.width, batch.dtype) == (3, 6, 5, 2, "u16")
    assert batch.size_bytes == 3 * 4 + 3 * 8 + 6 * 2 + 6
    assert (sparse().n_frames, sparse().n_values, sparse().n_samples, sparse().width) == (3, 3, 3, 0)
    assert (wave().n_frames, wave().dtype) == (2, "i16")


def test_batches_are_frozen():
    quality = np.zeros((3, 2), np.uint8)
    for batch in (
        dense(quality=quality),
        sparse(quality=np.zeros(3, np.uint8), value_ts_ns=i64(1, 2, 3)),
        wave(),
    ):
        for name, column in batch._columns():
            assert not column.flags.writeable, name
        with pytest.raises(AttributeError):
            batch.origin = "other"
    with pytest.raises(TypeError, match="a batch has no colour, size"):
        dense().with_(colour=1, origin="x", size=2)
    changed = dense().with_(values=np.zeros((3, 2), np.uint16), origin="x")
    assert changed.origin == "x"
    assert not changed.values.flags.writeable
    assert quality.flags.writeable


def test_what_may_be_joined():
    assert dense().kind_key == (Shape.DENSE, "u16", 2, None)
    assert sparse(dictionary=("a",)).kind_key == (Shape.SPARSE, "f64", 0, ("a",))


def test_times_of_values():
    assert dense(2, 3).value_times().tolist() == [0, 0, 0, S, S, S]
    assert sparse().value_times().tolist() == [S, S, 3 * S]
    own = i64(7, 8, 9)
    assert sparse(value_ts_ns=own).value_times().tolist() == own.tolist()
    assert wave().value_times().tolist() == [0, S // 2, S, 100 * S, 103 * S]


def test_times_in_a_wave_are_exact_for_years():
    step = i64(0, 1, 51_200, 51_200 * 86_400 * 365)
    offsets = wave_offsets_ns(step, np.full(4, 51_200), np.full(4, 1))
    assert offsets.tolist() == [0, 19_531, S, 86_400 * 365 * S]
    assert wave_offsets_ns(i64(3), i64(3), i64(10)).tolist() == [10 * S]


def test_a_slice_shares_the_values():
    for batch in (dense(quality=np.zeros((3, 2), np.uint8)), sparse(quality=np.zeros(3, np.uint8)), wave()):
        part = batch.slice(0, 2)
        assert np.shares_memory(part.values, batch.values)
        assert part.n_frames == 2
    assert sparse().slice(1, 3).start.tolist() == [0, 0, 1]
    assert sparse(value_ts_ns=i64(1, 2, 3)).slice(2, 3).value_ts_ns.tolist() == [3]
    assert wave().slice(1, 2).rate_den.tolist() == [3]


def test_a_batch_in_order_is_not_copied():
    batch = dense()
    same, start = batch.split(np.array([0, 0, 2]), 4)
    assert same is batch
    assert start.tolist() == [0, 2, 2, 3, 3]
    assert dense(1).split(np.array([3]), 4)[1].tolist() == [0, 0, 0, 0, 1]
    empty, start = dense(0).split(np.empty(0, np.int64), 2)
    assert (empty.n_frames, start.tolist()) == (0, [0, 0, 0])


def test_frames_that_are_taken_have_all_that_was_theirs():
    taken = wave(quality=np.arange(5, dtype=np.uint8)).take(np.array([1, 0]))
    assert (taken.slot.tolist(), taken.ts_ns.tolist()) == ([9, 8], [100 * S, 0])
    assert (taken.values.tolist(), taken.start.tolist()) == ([3, 4, 0, 1, 2], [0, 2, 5])
    assert taken.quality.tolist() == [3, 4, 0, 1, 2]
    assert (taken.rate_num.tolist(), taken.rate_den.tolist()) == ([1, 2], [3, 1])


@pytest.mark.parametrize("n_keys", [3, 100_000])
def test_a_split_is_stable(n_keys):
    batch, start = dense(4).split(np.array([2, 0, 2, 0]), n_keys)
    assert batch.slot.tolist() == [1, 3, 0, 2]
    assert start[:4].tolist() == [0, 2, 2, 4]


def test_joining_fills_in_what_some_lack():
    a, b = dense(1), dense(2, quality=np.full((2, 2), 0x40, np.uint8), origin="later")
    joined = FrameBatch.concat([a, b])
    assert joined.quality.tolist() == [[0, 0], [0x40, 0x40], [0x40, 0x40]]
    assert joined.origin == ""
    c = sparse(value_ts_ns=i64(7, 8, 9))
    assert FrameBatch.concat([sparse(), c]).value_ts_ns.tolist() == [S, S, 3 * S, 7, 8, 9]
    assert FrameBatch.concat([wave(), wave()]).start.tolist() == [0, 3, 5, 8, 10]
    assert FrameBatch.concat([a]) is a


# --- bytes -------------------------------------------------------------------------------------------


def test_columns_of_bytes_start_at_multiples_of_eight():
    for batch in (dense(3, 1, origin="ovens", dictionary=("a\x00b", "")), sparse(), wave(sequence=7)):
        offset = 0
        for buffer in batch.to_buffers():
            if isinstance(buffer, memoryview):
                assert offset % 8 == 0
            offset += len(buffer)
        assert offset % 8 == 0
        assert b"".join(batch.to_buffers()) == batch.to_bytes()


def test_columns_of_read_bytes_are_views():
    data = dense().to_bytes()
    again = FrameBatch.from_bytes(data)
    raw = np.frombuffer(data, np.uint8)
    assert all(np.shares_memory(column, raw) for _, column in again._columns())
    assert not FrameBatch.from_bytes(bytearray(data)).values.flags.writeable


VERSION_1 = bytes.fromhex(
    "010108070000000002000000030000000000000063000000000000000500000000000000050000000d000000"
    "6f76656e73" "5b226f6666222c20226f6e225d" "0000"
    "0a000000000000001400000000000000" "000000000000000001000000000000000300000000000000"
    "0a0000000000000015000000000000001600000000000000" "0000c03f000020c00000604000000000"
    "0700000008000000" "0000010002000000" "0040c00000000000"
)  # fmt: skip


def test_the_bytes_of_version_1_stay_what_they_are():
    batch = FrameBatch.sparse(
        u32(7, 8), i64(10, 20), np.array([1.5, -2.5, 3.5], np.float32), i64(0, 1, 3), np.array([0, 1, 2], np.uint16),
        quality=np.array([0, 0x40, 0xC0], np.uint8), value_ts_ns=i64(10, 21, 22), dictionary=("off", "on"),
        arrival_ns=99, origin="ovens", sequence=5,
    )  # fmt: skip
    assert batch.to_bytes() == VERSION_1
    assert FrameBatch.from_bytes(VERSION_1).to_bytes() == VERSION_1


def test_other_types_are_written_as_what_they_should_be():
    big = FrameBatch.dense(np.array([1], np.int64), i64(5), np.array([[258]], ">u2"))
    again = FrameBatch.from_bytes(big.to_bytes())
    assert (again.slot.tolist(), again.values.tolist(), again.dtype) == ([1], [[258]], "u16")
    column_order = FrameBatch.dense(
        u32(1, 2), i64(5, 6), np.asfortranarray(np.array([[1, 2], [3, 4]], np.uint8))
    )
    assert FrameBatch.from_bytes(column_order.to_bytes()).values.tolist() == [[1, 2], [3, 4]]


def changed(batch, **columns):
    """A batch whose columns do not fit; its bytes are checked when read."""
    return FrameBatch(**{**{n: getattr(batch, n) for n in batch.__slots__}, **columns})


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (changed(dense(), slot=u32(1)), "columns are not"),
        (changed(dense(), ts_ns=i64(1)), ""),
        (changed(sparse(), start=i64(0, 2, 1, 3)), "do not cover 3 values"),
        (changed(sparse(), start=i64(1, 2, 2, 3)), "do not cover"),
        (changed(sparse(), start=i64(0, 2, 2, 2)), "do not cover"),
        (changed(wave(), rate_num=i64(1, 0)), "rate is not above 0"),
        (changed(wave(), rate_den=i64(-1, 1)), "rate is not above 0"),
        (changed(wave(), value_ts_ns=i64(1, 2, 3, 4, 5)), "wave frames with columns"),
    ],
)
def test_columns_that_do_not_fit_are_corrupt(batch, says):
    with pytest.raises(CorruptionError, match=f"are not a frame batch: .*{says}"):
        FrameBatch.from_bytes(batch.to_bytes())


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (changed(dense(), quality=np.zeros(6, np.uint8)), "quality is uint8"),
        (changed(dense(), start=i64(0, 1, 2, 3)), "dense frames with columns"),
        (changed(sparse(), column=None), "sparse frames with columns"),
        (changed(sparse(), column=np.zeros(3, np.int64)), "column is int64"),
        (changed(sparse(), values=np.zeros((3, 1))), "values are float64"),
        (changed(dense(), values=np.zeros((3, 2), np.bool_)), "values are bool"),
    ],
)
def test_columns_are_checked_where_they_come_from_outside(batch, says):
    with pytest.raises(ValueError, match=says):
        batch.check_columns()


def patched(batch, at, value):
    data = bytearray(batch.to_bytes())
    data[at] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "requires a buffer"),
        (patched(dense(), 0, 9), "version 9, this program reads 1"),
        (patched(dense(), 1, 7), "7 is not a valid Shape"),
        (patched(dense(), 2, 99), "index out of range"),
        (patched(dense(), 4, 3), "3 frames of 3 columns are not 6 values"),
        (dense().to_bytes()[:-8], "smaller than requested"),
        (dense().to_bytes() + bytes(8), "it ends after"),
        (patched(dense(origin="ä"), 44, 0xFF), "can't decode"),
        (patched(dense(dictionary=("a",)), 44, ord("{")), "delimiter|Expecting"),
        (dense(dictionary=("a", "b")).to_bytes().replace(b'["a", "b"]', b'{"a": "b"}'), "list of words"),
        (dense(dictionary=("a",)).to_bytes().replace(b'["a"]', b"[123]"), "list of words"),
    ],
)
def test_bytes_that_are_no_batch(data, says):
    with pytest.raises(CorruptionError, match=f"are not a frame batch: .*({says})"):
        FrameBatch.from_bytes(data)
