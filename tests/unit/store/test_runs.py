"""Runs of several sensors and versions, merged as a plain dictionary would."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.quality import Quality
from headrace.store.runs import Runs
from headrace.store.wanted import Lane

SAMPLE = st.tuples(
    st.integers(0, 30), st.integers(-5, 5), st.sampled_from([0, 0, 0, 0x40, 0x80, Quality.ABSENT])
)
RUN = st.tuples(st.integers(0, 3), st.lists(SAMPLE, max_size=8, unique_by=lambda one: one[0]), st.booleans())
"""Sensor, samples, and whether their times rise."""


def added(parts):
    """The runs of some calls of `add`, each with a rank of its own; and the samples that should be left, newest first."""
    runs, rank, want = Runs(Lane.SIGNED), 0, {}
    for part, has_quality in parts:
        data, of = [], []
        for sensor, samples, rises in part:
            ordered = sorted(samples) if rises else samples
            marked = [(t, v, q if has_quality else 0) for t, v, q in ordered]
            data += marked
            of.append((len(marked), sensor, rank))
            for t, v, q in marked:
                if q < Quality.ABSENT:
                    want[sensor, t] = (rank, v, q)
            rank += 1
        ts_ns, values, quality = (np.array([one[i] for one in data], np.int64) for i in range(3))
        marks = quality.astype(np.uint8) if has_quality else None
        columns = tuple(np.array([one[i] for one in of], np.int64) for i in range(3))
        runs.add(ts_ns, values, marks, columns)
    return runs, want


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.lists(RUN, max_size=4), st.booleans()), min_size=1, max_size=4),
    st.integers(0, 12),
    st.integers(0, 31),
)
def test_of_each_sample_the_version_of_the_highest_rank_is_left(parts, start_ns, end_ns):
    runs, want = added(parts)
    found = runs.merge(start_ns, end_ns)
    assert found.start[-1] == len(found) == len(found.values) == len(found.quality)
    got = dict(
        zip(
            zip(found.of_each().tolist(), found.ts_ns.tolist(), strict=True),
            zip(found.values.tolist(), found.quality.tolist(), strict=True),
            strict=True,
        )
    )
    assert got == {key: one[1:] for key, one in want.items() if start_ns <= key[1] < end_ns}
    keys = list(zip(found.of_each().tolist(), found.ts_ns.tolist(), strict=True))
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    "times", [[5, 6, 7], [3, 4, 5], [4, 3, 9]], ids=["behind", "over its end", "falling"]
)
def test_a_second_run_of_a_sensor_goes_where_its_times_say(times):
    runs = Runs(Lane.FLOAT)
    runs.add(np.array([1, 2, 3, 4]), np.arange(4.0), None, (np.array([4]), np.array([2]), np.array([0])))
    runs.add(np.array(times), np.full(3, 9.0), None, (np.array([3]), np.array([2]), np.array([1])))
    found = runs.merge(0, 100)
    assert found.ts_ns.tolist() == sorted({1, 2, 3, 4, *times})
    assert [found.values[found.ts_ns == t].tolist() for t in times] == [[9.0]] * 3


def test_what_is_read_again_is_the_same():
    runs, _ = added([([(0, [(1, 1, 0), (5, 2, Quality.ABSENT), (7, 3, 0)], True)], True)])
    whole, part = runs.merge(0, 10), runs.merge(2, 10)
    assert (whole.ts_ns.tolist(), part.ts_ns.tolist()) == ([1, 7], [7])
    assert runs.merge(0, 10).values.tolist() == whole.values.tolist() == [1, 3]
