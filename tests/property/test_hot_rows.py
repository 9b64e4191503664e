"""What a flush does with all shards at once: logs are joined, frames sorted into blocks, qualities counted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.core.frames import FrameBatch, Shape
from headrace.core.quality import Quality
from headrace.store.class_kernels import count_classes
from headrace.store.frame_log import FrameLog, joined
from headrace.store.grouping import DAY_NS, plan_blocks

COLUMNS = ("slot", "ts_ns", "values", "quality", "start", "column", "value_ts_ns", "rate_num", "rate_den")
WIDTH = 3
seeds = st.integers(0, 2**32 - 1)


@st.composite
def batches(draw: st.DrawFn, shape: Shape) -> FrameBatch:
    """Frames of one kind, with or without quality and, where the shape has them, times of values."""
    rng = np.random.default_rng(draw(seeds))
    n = draw(st.integers(0, 5))
    slot, ts_ns = rng.integers(0, 9, n).astype(np.uint32), rng.integers(0, 99, n)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(rng.integers(0, 4, n))])
    size = (n, WIDTH) if shape is Shape.DENSE else (int(start[-1]),)
    values, rest = rng.random(size), {"arrival_ns": draw(st.integers(1, 9))}
    if draw(st.booleans()):
        rest["quality"] = rng.integers(0, 256, size).astype(np.uint8)
    if shape is Shape.DENSE:
        return FrameBatch.dense(slot, ts_ns, values, **rest)
    if shape is Shape.WAVE:
        rate = rng.integers(1, 5, n), rng.integers(1, 5, n)
        return FrameBatch.wave(slot, ts_ns, values, start, rate, **rest)
    if draw(st.booleans()):
        rest["value_ts_ns"] = rng.integers(0, 99, size)
    return FrameBatch.sparse(slot, ts_ns, values, start, rng.integers(0, 9, size).astype(np.uint16), **rest)


def log_of(some: list[FrameBatch]) -> FrameLog:
    log = FrameLog(some[0].kind_key)
    for seq, batch in enumerate(some):
        log.append(seq, batch)
    return log


@pytest.mark.parametrize("shape", list(Shape))
@given(data=st.data())
def test_logs_are_joined_as_their_batches_are(shape: Shape, data: st.DataObject) -> None:
    some = data.draw(st.lists(st.lists(batches(shape), min_size=1, max_size=3), min_size=1, max_size=4))
    logs = [log_of(one) for one in some]
    found, expected = joined(logs), FrameBatch.concat([log.batch() for log in logs])
    assert (found.kind_key, found.arrival_ns) == (expected.kind_key, expected.arrival_ns)
    for name in COLUMNS:
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype, name
            assert np.array_equal(one, other), name
            assert not one.flags.writeable, name


@pytest.mark.parametrize("shape", list(Shape))
@given(data=st.data())
def test_a_log_is_as_large_as_its_columns(shape: Shape, data: st.DataObject) -> None:
    log = log_of(data.draw(st.lists(batches(shape), min_size=1, max_size=3)))
    names = ["end" if name == "start" else name for name in COLUMNS if getattr(log.batch(), name) is not None]
    assert log.size_bytes == sum(log.column(name).nbytes for name in names)
    if shape is Shape.SPARSE and log.n_rows:
        log.erase(np.zeros(1, np.int64))
        assert log.size_bytes == sum(log.column(name).nbytes for name in {*names, "quality"})


@given(seed=seeds, n=st.integers(0, 40), n_days=st.integers(1, 3), is_ordered=st.booleans())
def test_blocks_are_frames_of_one_entry_and_day_in_order(
    seed: int, n: int, n_days: int, is_ordered: bool
) -> None:
    rng = np.random.default_rng(seed)
    slots = rng.integers(0, 6, n).astype(np.uint32)
    place = rng.permutation(8).astype(np.int32)
    ts_ns = -DAY_NS + rng.integers(0, n_days * DAY_NS, n)
    ts_ns = np.sort(ts_ns) if is_ordered else ts_ns // (DAY_NS // 3) * (DAY_NS // 3)
    order, starts = plan_blocks(place, slots, len(place), ts_ns, 1)
    last = {(int(place[slots[f]]), int(ts_ns[f])): f for f in range(n)}
    assert order.tolist() == [last[key] for key in sorted(last)]
    of_block = [(entry, ts // DAY_NS) for entry, ts in sorted(last)]
    begins = [i for i, key in enumerate(of_block) if i == 0 or key != of_block[i - 1]]
    assert starts.tolist() == [*begins, len(order)]
    for one, other in zip(plan_blocks(place[slots], None, 8, ts_ns, 1), (order, starts), strict=True):
        assert one.tolist() == other.tolist()


@given(hnp.arrays(np.uint8, st.tuples(st.integers(0, 12), st.integers(1, 4))), seeds)
def test_values_of_each_quality_class_are_counted(quality: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(quality))
    starts = np.sort(np.concatenate([[0, len(order)], rng.integers(0, len(order) + 1, 2)]))
    found = np.empty((len(starts) - 1, 4), np.int64)
    count_classes(quality, order, starts, found)
    edges = [0, Quality.UNCERTAIN, Quality.BAD, Quality.ABSENT, 256]
    for g, (a, b) in enumerate(itertools.pairwise(starts)):
        assert found[g].tolist() == np.histogram(quality[order[a:b]], edges)[0].tolist()
