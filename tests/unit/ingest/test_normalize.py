"""Times and qualities, case by case; `tests/property/test_normalize.py` says the same of any batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.core.clock import NO_TIME, NS
from headrace.core.errors import PluginError
from headrace.core.events import RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.ingest.normalize import BadTime, TimePolicy, TimeSource, normalise

NOW = 1_700_000_000 * NS
DAY = 86_400 * NS
OVEN = Layout("u16", (Column("temperature", scale=0.1, low=0, high=400), Column("pressure")))


@pytest.fixture
def directory() -> SensorDirectory:
    """Slots 0 to 9 of one layout."""
    made = SensorDirectory()
    made.define_many([f"plant/oven{i}" for i in range(10)], OVEN)
    return made


def dense(slots: Any, ts_ns: Any, values: Any, **rest: Any) -> FrameBatch:
    return FrameBatch.dense(
        np.array(slots, np.uint32),
        np.array(ts_ns, np.int64),
        np.array(values, np.uint16),
        origin="ovens",
        **rest,
    )


def test_a_good_batch_passes_as_it_is(directory: SensorDirectory) -> None:
    batch = dense([0, 1], [NOW, NOW - 5], [[10, 7], [4_000, 65_535]])
    out = normalise(batch, directory, NOW, TimePolicy())
    assert out.rejects == ()
    assert out.batch.quality is None
    assert out.batch.values is batch.values
    assert out.batch.ts_ns is batch.ts_ns
    assert out.batch.arrival_ns == NOW


def test_an_empty_batch_passes(directory: SensorDirectory) -> None:
    batch = dense([], [], np.empty((0, 2)))
    assert normalise(batch, directory, NOW, TimePolicy()).batch.n_frames == 0


def test_only_values_outside_their_limits_are_bad(directory: SensorDirectory) -> None:
    batch = dense([0, 1, 2], [NOW] * 3, [[10, 7], [4_001, 8], [4_000, 9]])
    out = normalise(batch, directory, NOW, TimePolicy()).batch
    assert out.quality is not None
    assert out.quality.tolist() == [[0, 0], [Quality.BAD_RANGE, 0], [0, 0]]


def test_what_is_bad_or_absent_already_stays(directory: SensorDirectory) -> None:
    quality = np.array([[Quality.BAD_DEVICE, 0], [Quality.ABSENT, 0], [Quality.UNCERTAIN, 0]], np.uint8)
    batch = dense([0, 1, 2], [NOW] * 3, [[9_999, 7]] * 3, quality=quality)
    out = normalise(batch, directory, NOW, TimePolicy()).batch
    assert out.quality is not None
    assert out.quality[:, 0].tolist() == [Quality.BAD_DEVICE, Quality.ABSENT, Quality.BAD_RANGE]


def test_floats_that_are_not_finite_are_bad_also_without_limits() -> None:
    directory = SensorDirectory()
    slot = directory.define("plant/lab", Layout("f32", (Column("a"), Column("b", low=-1, high=1))))
    values = np.array([[1, np.nan], [np.inf, 0.5], [-np.inf, 2], [3e38, -1]], np.float32)
    batch = FrameBatch.dense(np.full(4, slot, np.uint32), NOW + np.arange(4), values)
    out = normalise(batch, directory, NOW, TimePolicy()).batch
    bad, outside = Quality.BAD_NOT_FINITE, Quality.BAD_RANGE
    assert out.quality is not None
    assert out.quality.tolist() == [[0, bad], [bad, 0], [bad, outside], [0, 0]]


@pytest.mark.parametrize("n_frames", [10, 4_000])
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_each_group_is_judged_by_its_own_layout(n_frames: int, is_shuffled: bool) -> None:
    directory = SensorDirectory()
    kinds = [Layout("u16", (Column("x", high=high), Column("y"))) for high in (10, 12, 20, None)]
    slots = np.concatenate(
        [directory.define_many([f"plant/{k}/{i}" for i in range(n_frames)], kinds[k]) for k in range(4)]
    )
    if is_shuffled:
        slots = np.random.default_rng(1).permutation(slots)
    batch = FrameBatch.dense(slots, np.full(len(slots), NOW), np.full((len(slots), 2), 15, np.uint16))
    out = normalise(batch, directory, NOW, TimePolicy()).batch
    assert out.quality is not None
    assert (out.quality[:, 0] == np.where(slots < 2 * n_frames, Quality.BAD_RANGE, 0)).all()
    assert not out.quality[:, 1].any()


def test_sparse_values_are_judged_by_their_column(directory: SensorDirectory) -> None:
    batch = FrameBatch.sparse(
        np.array([0, 3], np.uint32),
        np.full(2, NOW),
        np.array([5_000, 5_000, 10], np.uint16),
        np.array([0, 1, 3]),
        np.array([1, 0, 1], np.uint16),
    )
    out = normalise(batch, directory, NOW, TimePolicy()).batch
    assert out.quality is not None
    assert out.quality.tolist() == [0, Quality.BAD_RANGE, 0]
    good = normalise(batch.slice(0, 1), directory, NOW, TimePolicy()).batch
    assert good.quality is None


def test_values_of_a_wave_are_judged_by_its_first_column(directory: SensorDirectory) -> None:
    batch = FrameBatch.wave(
        np.array([0, 3], np.uint32),
        np.full(2, NOW),
        np.array([10, 5_000, 5_000, 20, 30], np.uint16),
        np.array([0, 2, 5]),
        (np.array([1, 1]), np.array([1, 1])),
    )
    out = normalise(batch, directory, NOW + 60 * NS, TimePolicy()).batch
    assert out.quality is not None
    assert out.quality.tolist() == [0, Quality.BAD_RANGE, Quality.BAD_RANGE, 0, 0]


@pytest.mark.parametrize("n_frames", [1, 2_048, 2_049])
def test_each_frame_of_a_batch_is_judged(n_frames: int, directory: SensorDirectory) -> None:
    """Frames are looked at 2,048 at a time, and what is left over one by one."""
    values = np.full((n_frames, 2), 10, np.uint16)
    values[-1, 0] = 5_000
    slots = np.zeros(n_frames, np.uint32)
    batch = FrameBatch.dense(slots, NOW + np.arange(n_frames), values)
    out = normalise(batch, directory, NOW + NS, TimePolicy()).batch
    assert out.quality is not None
    assert np.flatnonzero(out.quality[:, 0]).tolist() == [n_frames - 1]
    assert not out.quality[:, 1].any()


# --- time ----------------------------------------------------------------------------------------------------


def test_a_frame_without_time_gets_its_arrival_and_stays_good(directory: SensorDirectory) -> None:
    out = normalise(dense([0, 1], [NO_TIME, NOW - 1], [[1, 1]] * 2), directory, NOW, TimePolicy()).batch
    assert out.ts_ns.tolist() == [NOW, NOW - 1]
    assert out.quality is None


def test_wrong_times_become_the_arrival_and_uncertain(directory: SensorDirectory) -> None:
    times = [NOW + DAY + 1, NOW + DAY, 0, NOW - 20 * 365 * DAY]
    out = normalise(dense([0, 1, 2, 3], times, [[1, 9_999]] * 4), directory, NOW, TimePolicy()).batch
    assert out.ts_ns.tolist() == [NOW, NOW + DAY, NOW, times[3]]
    assert out.quality is not None
    assert out.quality.tolist() == [
        [Quality.UNCERTAIN_TIME] * 2,
        [0, 0],
        [Quality.UNCERTAIN_TIME] * 2,
        [0, 0],
    ]


def test_wrong_times_are_rejected_where_the_policy_says_so(directory: SensorDirectory) -> None:
    batch = dense([0, 1, 2], [NOW, 5, 7], [[1, 9_999]] * 3)
    out = normalise(batch, directory, NOW, TimePolicy(bad_time=BadTime.REJECT))
    assert out.batch.slot.tolist() == [0]
    (reject,) = out.rejects
    assert reject.code is RejectCode.BAD_TIME
    assert (reject.adapter, reject.n_samples, reject.arrival_ns) == ("ovens", 4, NOW)
    assert "2 frames have times from 5 to 7 ns" in reject.detail
    assert FrameBatch.from_bytes(reject.raw).slot.tolist() == [1, 2]


def test_a_large_reject_keeps_the_frames_that_fit(directory: SensorDirectory) -> None:
    batch = dense(np.zeros(200_000), np.arange(200_000), np.ones((200_000, 2)))
    (reject,) = normalise(batch, directory, NOW, TimePolicy(bad_time=BadTime.REJECT)).rejects
    assert len(reject.raw) <= 1 << 20
    assert FrameBatch.from_bytes(reject.raw).n_frames > 20_000
    assert reject.n_samples == 400_000


def test_arrival_tells_frames_of_a_group_apart(directory: SensorDirectory) -> None:
    policy = TimePolicy(TimeSource.ARRIVAL)
    out = normalise(dense([4, 2, 4, 4, 2], [1, 2, 3, 4, 5], [[1, 1]] * 5), directory, NOW, policy).batch
    assert out.ts_ns.tolist() == [NOW, NOW, NOW + 1, NOW + 2, NOW + 1]
    out = normalise(dense([4, 2, 3], [1, 2, 3], [[1, 1]] * 3), directory, NOW, policy).batch
    assert out.ts_ns.tolist() == [NOW] * 3


def test_a_wave_that_arrives_ends_now() -> None:
    directory = SensorDirectory()
    slot = directory.define("plant/motor", Layout("i16", (Column("vibration"),)))
    batch = FrameBatch.wave(
        np.array([slot], np.uint32),
        np.array([NO_TIME]),
        np.zeros(5, np.int16),
        np.array([0, 5]),
        (np.array([2]), np.array([1])),
    )
    out = normalise(batch, directory, NOW, TimePolicy()).batch
    assert out.ts_ns.tolist() == [NOW - 2 * NS]
    assert out.value_times()[-1] == NOW


def sparse_with_times(frame_ns: int, value_ns: list[int]) -> FrameBatch:
    n = len(value_ns)
    return FrameBatch.sparse(
        np.array([0], np.uint32),
        np.array([frame_ns]),
        np.ones(n, np.uint16),
        np.array([0, n]),
        np.zeros(n, np.uint16),
        value_ts_ns=np.array(value_ns, np.int64),
    )


def test_values_with_times_of_their_own_are_judged_by_them(directory: SensorDirectory) -> None:
    batch = sparse_with_times(NOW - 9, [NOW - 1, NO_TIME, 5])
    out = normalise(batch, directory, NOW, TimePolicy()).batch
    assert out.value_ts_ns is not None
    assert out.value_ts_ns.tolist() == [NOW - 1, NOW - 9, NOW]
    assert out.quality is not None
    assert out.quality.tolist() == [0, 0, Quality.UNCERTAIN_TIME]


def test_a_frame_with_a_wrong_time_but_good_value_times_stays_good(directory: SensorDirectory) -> None:
    out = normalise(sparse_with_times(5, [NOW - 1]), directory, NOW, TimePolicy()).batch
    assert out.ts_ns.tolist() == [NOW]
    assert out.value_ts_ns is not None
    assert out.value_ts_ns.tolist() == [NOW - 1]
    assert out.quality is None


@pytest.mark.parametrize(("source", "expected"), [(TimeSource.SERVER, NOW - 9), (TimeSource.ARRIVAL, NOW)])
def test_server_and_arrival_drop_the_times_of_values(
    directory: SensorDirectory, source: TimeSource, expected: int
) -> None:
    out = normalise(sparse_with_times(NOW - 9, [NOW - 1, 5]), directory, NOW, TimePolicy(source)).batch
    assert out.value_ts_ns is None
    assert out.value_times().tolist() == [expected] * 2


# --- defects of adapters -------------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_the_directory_is_a_defect(directory: SensorDirectory) -> None:
    good = dense([0], [NOW], [[1, 2]])
    wrong = [
        (dense([10], [NOW], [[1, 2]]), "adapter=ovens: slot 10 of a frame is unknown, 10 are defined"),
        (dense([0], [NOW], [[1, 2, 3]]), "frames have 3 columns, their group's layout has 2"),
        (good.with_(values=good.values.astype(np.int16)), "values are i16, their group's layout says u16"),
        (
            FrameBatch.sparse(
                np.array([0], np.uint32),
                np.array([NOW]),
                np.ones(1, np.uint16),
                np.array([0, 1]),
                np.array([2], np.uint16),
            ),
            "column 2 of a group with 2 columns",
        ),
    ]
    for batch, text in wrong:
        with pytest.raises(PluginError, match=text):
            normalise(batch, directory, NOW, TimePolicy())
