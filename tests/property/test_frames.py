"""What frame batches promise, for every shape, type and quality."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.arrow import from_arrow, to_arrow
from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory
from headrace.testing.strategies import directories, directory_and_batches, frame_batches


def rows(batch):
    """Every frame as a tuple: the model that batches are compared with."""
    start = batch.start if batch.start is not None else np.arange(batch.n_frames + 1) * batch.width
    flat = {
        "values": batch.values.reshape(-1).view(f"u{batch.values.dtype.itemsize}"),
        "times": batch.value_times(),
        "column": batch.column,
        "quality": np.zeros(batch.n_values, np.uint8) if batch.quality is None else batch.quality.reshape(-1),
    }
    out = []
    for f in range(batch.n_frames):
        mine = {k: None if v is None else tuple(v[start[f] : start[f + 1]].tolist()) for k, v in flat.items()}
        rate = () if batch.rate_num is None else (int(batch.rate_num[f]), int(batch.rate_den[f]))
        out.append((int(batch.slot[f]), int(batch.ts_ns[f]), rate, *mine.values()))
    return out


@given(frame_batches())
def test_bytes_and_arrow_give_back_every_bit(batch):
    data = batch.to_bytes()
    for again in (FrameBatch.from_bytes(data), from_arrow(to_arrow(batch))):
        assert again.to_bytes() == data
        assert rows(again) == rows(batch)
        assert (again.kind_key, again.origin, again.sequence, again.arrival_ns, again.dictionary) == (
            batch.kind_key, batch.origin, batch.sequence, batch.arrival_ns, batch.dictionary,
        )  # fmt: skip
        assert (again.n_samples, again.size_bytes) == (batch.n_samples, batch.size_bytes)


@given(frame_batches(), st.data())
def test_taking_frames(batch, data):
    most = max(batch.n_frames - 1, 0)
    index = data.draw(st.lists(st.integers(0, most), max_size=12 if batch.n_frames else 0))
    taken = batch.take(np.array(index, np.intp))
    assert rows(taken) == [rows(batch)[i] for i in index]
    taken.check_columns()


@given(frame_batches(), st.data())
def test_slicing_frames(batch, data):
    first = data.draw(st.integers(0, batch.n_frames))
    last = data.draw(st.integers(first, batch.n_frames))
    part = batch.slice(first, last)
    assert rows(part) == rows(batch)[first:last]
    part.check_columns()


@given(frame_batches(), st.data())
def test_splitting_frames(batch, data):
    n_keys = data.draw(st.sampled_from([1, 3, 64, 70_000]))
    key = np.array(
        data.draw(st.lists(st.integers(0, n_keys - 1), min_size=batch.n_frames, max_size=batch.n_frames)),
        np.int64,
    )
    ordered, start = batch.split(key, n_keys)
    whole = rows(batch)
    for k in set(key.tolist()) | {0, n_keys - 1}:
        part = ordered.slice(int(start[k]), int(start[k + 1]))
        assert rows(part) == [row for row, mine in zip(whole, key.tolist(), strict=True) if mine == k]
    assert start[-1] == batch.n_frames


@given(frame_batches(), st.data())
def test_cutting_and_joining_gives_the_same(batch, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, batch.n_frames), max_size=4)))
    edges = [0, *cuts, batch.n_frames]
    joined = FrameBatch.concat([batch.slice(a, b) for a, b in itertools.pairwise(edges)])
    assert joined.to_bytes() == batch.to_bytes()


@given(directory_and_batches())
def test_batches_of_one_kind_can_be_joined(drawn):
    _, batches = drawn
    kinds = {}
    for batch in batches:
        kinds.setdefault(batch.kind_key, []).append(batch)
    for alike in kinds.values():
        joined = FrameBatch.concat(alike)
        joined.check_columns()
        assert rows(joined) == [row for batch in alike for row in rows(batch)]


@settings(max_examples=300)
@given(frame_batches(), st.data())
def test_damaged_bytes_are_a_batch_or_corrupt(batch, data):
    """Never another exception; and what is read can be worked with."""
    damaged = bytearray(batch.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    try:
        read = FrameBatch.from_bytes(bytes(damaged))
    except CorruptionError:
        return
    order = np.arange(read.n_frames)[::-1].astype(np.intp)
    FrameBatch.concat([read.take(order), read]).to_bytes()
    with np.errstate(over="ignore"):
        assert len(read.value_times()) == read.n_values


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_corrupt(data):
    try:
        FrameBatch.from_bytes(data)
    except CorruptionError:
        return


@given(directories())
def test_directories_survive_their_file(directory):
    again = SensorDirectory()
    again.apply_bytes(directory.to_bytes())
    assert again.to_bytes() == directory.to_bytes()
    assert (again.n_sensors, again.n_slots) == (directory.n_sensors, directory.n_slots)
    selection = directory.find("**")
    assert len(selection) == directory.n_sensors
    for slot, column, sensor in zip(selection.slot, selection.column, selection.sensor, strict=True):
        assert again.locate(int(sensor)) == (int(slot), int(column))
