"""Normalising by column agrees with judging one sample after the other."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.clock import NO_TIME
from headrace.core.frames import FrameBatch, Shape
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.ingest import normalize
from headrace.ingest.normalize import BadTime, TimePolicy, TimeSource, normalise
from headrace.testing.strategies import YEAR_2000_NS, directories, frame_batches

policies = st.builds(
    TimePolicy,
    st.sampled_from(TimeSource),
    ahead_ns_max=st.sampled_from([0, 10**9, 10**18]),
    oldest_ns=st.sampled_from([YEAR_2000_NS, 3 * YEAR_2000_NS]),
    bad_time=st.just(BadTime.ARRIVAL),
)


def columns_of(batch: FrameBatch) -> list[int]:
    if batch.shape is Shape.DENSE:
        return [c for _ in range(batch.n_frames) for c in range(batch.width)]
    return [0] * batch.n_values if batch.column is None else [int(c) for c in batch.column]


def frames_of(batch: FrameBatch) -> list[int]:
    if batch.start is None:
        return [f for f in range(batch.n_frames) for _ in range(batch.width)]
    return [f for f in range(batch.n_frames) for _ in range(int(batch.start[f]), int(batch.start[f + 1]))]


def is_wrong(ts_ns: int, arrival_ns: int, policy: TimePolicy) -> bool:
    return ts_ns != NO_TIME and not policy.oldest_ns <= ts_ns <= arrival_ns + policy.ahead_ns_max


def expected_quality(
    batch: FrameBatch, directory: SensorDirectory, arrival_ns: int, policy: TimePolicy
) -> list[int]:
    values = batch.values.reshape(-1)
    old = [0] * len(values) if batch.quality is None else batch.quality.reshape(-1).tolist()
    own = policy.source is TimeSource.SOURCE and batch.value_ts_ns is not None
    out = []
    for i, (frame, column) in enumerate(zip(frames_of(batch), columns_of(batch), strict=True)):
        ts_ns = (
            int(batch.value_ts_ns[i]) if own and batch.value_ts_ns is not None else int(batch.ts_ns[frame])
        )
        quality = old[i]
        if policy.source is not TimeSource.ARRIVAL and is_wrong(ts_ns, arrival_ns, policy) and quality < 0x40:
            quality = Quality.UNCERTAIN_TIME
        value, limits = values[i], directory.layout(int(batch.slot[frame])).raw_limits
        if quality < 0x80:
            if batch.dtype[0] == "f" and not math.isfinite(value):
                quality = Quality.BAD_NOT_FINITE
            elif limits is not None and not limits[0][column] <= value <= limits[1][column]:
                quality = Quality.BAD_RANGE
        out.append(int(quality))
    return out


@settings(max_examples=150, deadline=None)
@given(st.data(), policies, st.sampled_from([1, 1_000_000]))
def test_times_and_qualities_are_those_of_each_sample_alone(
    data: st.DataObject, policy: TimePolicy, group_values: int
) -> None:
    directory = data.draw(directories())
    batch = data.draw(frame_batches(directory))
    arrival_ns = data.draw(st.integers(2 * YEAR_2000_NS, 3 * YEAR_2000_NS))
    before, normalize._GROUP_VALUES = normalize._GROUP_VALUES, group_values  # both ways of comparing
    try:
        normalised = normalise(batch, directory, arrival_ns, policy)
    finally:
        normalize._GROUP_VALUES = before
    out = normalised.batch
    assert not normalised.rejects
    assert out.values.tobytes() == batch.values.tobytes()
    quality = np.zeros(batch.n_values, np.uint8) if out.quality is None else out.quality.reshape(-1)
    assert quality.tolist() == expected_quality(batch, directory, arrival_ns, policy)
    assert (out.ts_ns != NO_TIME).all()
    if out.value_ts_ns is not None:
        assert (out.value_ts_ns != NO_TIME).all()
    for given_ns, ts_ns in zip(batch.ts_ns.tolist(), out.ts_ns.tolist(), strict=True):
        if (
            policy.source is TimeSource.ARRIVAL
            or given_ns == NO_TIME
            or is_wrong(given_ns, arrival_ns, policy)
        ):
            assert batch.shape is Shape.WAVE or 0 <= ts_ns - arrival_ns < batch.n_frames
        else:
            assert ts_ns == given_ns


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_refused_frames_and_kept_ones_are_all_of_them(data: st.DataObject) -> None:
    directory = data.draw(directories())
    batch = data.draw(frame_batches(directory))
    arrival_ns = data.draw(st.integers(YEAR_2000_NS, 4 * YEAR_2000_NS))
    policy = TimePolicy(bad_time=BadTime.REJECT)
    out = normalise(batch, directory, arrival_ns, policy)
    wrong = [is_wrong(int(t), arrival_ns, policy) for t in batch.ts_ns]
    assert out.batch.n_frames == batch.n_frames - sum(wrong)
    assert len(out.rejects) == any(wrong)
    if out.rejects:
        refused = FrameBatch.from_bytes(out.rejects[0].raw)
        assert refused.ts_ns.tolist() == [t for t, w in zip(batch.ts_ns.tolist(), wrong, strict=True) if w]
        assert out.rejects[0].n_samples == max(batch.n_samples - _n_samples(batch, wrong), 1)


def _n_samples(batch: FrameBatch, wrong: list[bool]) -> int:
    return batch.take(np.flatnonzero(~np.array(wrong, bool))).n_samples
