"""Times and slots of many frames, packed: nothing is lost, and what can't be packed is said to be so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import CorruptionError
from headrace.core.frame_packing import pack_slots, pack_times, unpack_slots, unpack_times
from headrace.core.frames import FrameBatch

MS = 1_000_000
T0 = 1_767_225_600_000 * MS


def times(*ts_ns: int) -> np.ndarray:
    return np.array(ts_ns, np.int64)


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50),
    st.sampled_from([1, 1_000, MS]),
    st.integers(-(2**60), 2**60),
)
def test_times_come_back(steps, unit_ns, base_ns):
    ts_ns = base_ns + np.array(steps, np.int64) * unit_ns
    packed = pack_times(ts_ns)
    assert packed is not None
    back, n_bytes = unpack_times(memoryview(packed + b"rest"), len(steps))
    assert (back.tolist(), n_bytes) == (ts_ns.tolist(), len(packed))


def test_times_of_a_second_on_whole_milliseconds_take_two_bytes():
    ts_ns = T0 + np.arange(1_000) * MS
    packed = pack_times(ts_ns)
    assert packed is not None
    assert len(packed) == 24 + 2_000


def test_times_that_span_too_much_are_not_packed():
    assert pack_times(times(T0, T0 + 2**32)) is None
    assert pack_times(times(T0, T0 + 2**32 * MS)) is None


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=60))
def test_slots_come_back(slots):
    slot = np.array(slots, np.uint32)
    packed = pack_slots(slot)
    if packed is not None:
        back, n_bytes = unpack_slots(memoryview(packed + b"rest"), len(slots))
        assert (back.tolist(), n_bytes, back.dtype) == (slots, len(packed), np.uint32)


def test_slots_that_rise_by_small_steps_take_a_byte_and_others_are_not_packed():
    rising = np.concatenate([np.arange(0, 50_000, 60), np.arange(7, 50_000, 60)]).astype(np.uint32)
    packed = pack_slots(rising)
    assert packed is not None
    assert len(packed) == 8 + 2 * 8 + len(rising)
    assert pack_slots(rising[::-1].copy()) is None


def batch(n: int) -> FrameBatch:
    values = np.arange(n, dtype=np.float64).reshape(-1, 1)
    return FrameBatch.dense(np.arange(n, dtype=np.uint32) * 3, T0 + np.arange(n) * MS, values)


@pytest.mark.parametrize("n", [511, 512, 5_000])
def test_a_batch_of_many_frames_is_smaller_in_bytes_and_the_same(n):
    one = batch(n)
    data = one.to_bytes()
    assert data[0] == (2 if n >= 512 else 1)
    assert len(data) < (12 * n if n >= 512 else 21 * n)
    back = FrameBatch.from_bytes(data)
    for name in ("slot", "ts_ns", "values"):
        assert getattr(back, name).tobytes() == getattr(one, name).tobytes()
        assert getattr(back, name).dtype == getattr(one, name).dtype
        assert not getattr(back, name).flags.writeable


def test_only_what_can_be_packed_is():
    ragged = batch(600).with_(ts_ns=T0 + np.arange(600) ** 5)
    assert FrameBatch.from_bytes(ragged.to_bytes()).ts_ns.tolist() == ragged.ts_ns.tolist()
    falling = batch(600).with_(slot=np.arange(600, 0, -1, np.int64).astype(np.uint32))
    assert FrameBatch.from_bytes(falling.to_bytes()).slot.tolist() == falling.slot.tolist()


def words(*values: int) -> bytes:
    return np.array(values, np.int64).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        words(0, 7, 2) + bytes(4),  # a unit that is none
        words(0, 1, 3) + bytes(6),  # a width that is none
        words(2**63 - 1, MS, 2) + b"\xff\xff\xff\xff",  # behind the end of time
        words(0, 1, 4) + bytes(4),  # cut short
        words(0)[:3],
    ],
)
def test_bytes_that_are_no_times_are_refused(data):
    with pytest.raises(Exception, match=r".") as e:
        unpack_times(memoryview(data), 2)
    assert type(e.value).__name__ in ("ValueError", "error")


def restarts(n: int, *pairs: int) -> bytes:
    return words(n) + np.array(pairs, np.uint32).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        restarts(-1) + bytes(2),
        restarts(3) + bytes(30),  # more restarts than frames
        restarts(0) + bytes(2),  # no slot to start from
        restarts(1, 1, 5) + bytes(2),  # the first frame has none
        restarts(2, 0, 5, 2, 5) + bytes(2),  # behind the last frame
        restarts(2, 0, 5, 0, 5) + bytes(2),  # twice
        restarts(1, 0, 2**32 - 1) + b"\x00\x01",  # a slot too high
        restarts(1, 0, 5) + bytes(1),  # cut short
        b"",
    ],
)
def test_bytes_that_are_no_slots_are_refused(data):
    with pytest.raises(Exception, match=r".") as e:
        unpack_slots(memoryview(data), 2)
    assert type(e.value).__name__ in ("ValueError", "error")


def test_no_frames_are_packed_as_nothing():
    assert unpack_times(memoryview(words(5, 1, 2)), 0)[0].tolist() == []
    assert unpack_slots(memoryview(words(0)), 0)[0].tolist() == []


def test_a_damaged_batch_of_version_2_is_refused():
    data = bytearray(batch(600).to_bytes())
    data[0] = 3
    with pytest.raises(CorruptionError, match="version 3, this program reads 1 and 2"):
        FrameBatch.from_bytes(bytes(data))
    data[0] = 2
    data[56:64] = words(99)
    with pytest.raises(CorruptionError):
        FrameBatch.from_bytes(bytes(data))
