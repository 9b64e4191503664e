"""Sensors of a device that were read at the same times: the times are stored once, and found again."""

import numpy as np
import pytest

from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.sim.disk import SimulatedDisk
from headrace.store import segment as segment_module
from headrace.store import time_axes
from headrace.store.compactor import CompactionPolicy
from headrace.store.query import Store
from headrace.store.segment import SegmentFile
from headrace.store.verify import verify_store
from headrace.store.warm import decode_chunk, decode_times, encode_chunk
from headrace.testing.stores import StoreRig

NS = 1_000_000_000
NOON = 20_000 * 86_400 * NS + 43_200 * NS
SPAN = NOON, NOON + 3_600 * NS
N = 300


@pytest.fixture
def rig(plant):
    policy = CompactionPolicy(grace_s=10.0)
    return StoreRig(SimulatedDisk(1), plant.directory, policy=policy)


def irregular(seed, n=N):
    return NOON + np.cumsum(np.random.default_rng(seed).integers(NS // 2, 2 * NS, n))


def device(plant, path, width):
    return plant.directory.define(path, Layout("u16", tuple(Column(f"s{i:03d}") for i in range(width))))


def fill(rig, slot, ts_ns, seed=1):
    width = rig.directory.layout(slot).width
    values = np.random.default_rng(seed).integers(0, 1000, (len(ts_ns), width)).astype(np.uint16)
    rig.add(FrameBatch.dense(np.full(len(ts_ns), slot, np.uint32), ts_ns, values, arrival_ns=int(ts_ns[-1])))
    rig.flush()
    return values


def warm(rig):
    (manifest,) = rig.store.view.manifests.values()
    (info,) = manifest.files
    return SegmentFile(rig.disk, info)


def column(rig, path):
    answer = rig.store.query(path, *SPAN, tail=rig.tail)
    assert answer.missing == ()
    return answer


def test_a_device_has_one_time_axis(rig, plant):
    slot = device(plant, "leon/line3/mixer", 8)
    ts_ns = irregular(1)
    values = fill(rig, slot, ts_ns)
    rig.compact()
    table = warm(rig).table(["path", "times_back", "n_bytes"]).to_pydict()
    assert table["times_back"] == list(range(8))
    assert max(table["n_bytes"][1:]) < table["n_bytes"][0] - N // 2
    for i in range(8):  # alone
        answer = column(rig, f"leon/line3/mixer/s{i:03d}")
        assert np.array_equal(answer.ts_ns, ts_ns)
        assert np.array_equal(answer.columns["value"], values[:, i])
    every = column(rig, "leon/line3/mixer/*")  # and together
    assert np.array_equal(every.columns["value"], values.T.reshape(-1))
    assert verify_store(rig.disk, rig.store).harms == []


def test_lone_sensors_of_a_device_share_too_and_other_devices_do_not(rig, plant):
    ts_ns = irregular(2)
    for path in ("leon/line3/plc/a", "leon/line3/plc/b", "leon/line3/other/a"):
        slot = plant.directory.define(path, Layout("u16", (Column(""),)))
        fill(rig, slot, ts_ns)
    rig.compact()
    table = warm(rig).table(["path", "times_back"]).to_pydict()
    assert dict(zip(table["path"], table["times_back"], strict=True)) == {
        "leon/line3/other/a": 0, "leon/line3/plc/a": 0, "leon/line3/plc/b": 1,
    }  # fmt: skip


def test_a_sensor_with_other_times_has_its_own(rig, plant):
    slot = device(plant, "leon/line3/mixer", 3)
    ts_ns = irregular(3)
    fill(rig, slot, ts_ns)
    start = np.arange(N + 1)
    sparse = FrameBatch.sparse(
        np.full(N, slot, np.uint32), ts_ns + 7, np.arange(N).astype(np.uint16), start, np.ones(N, np.uint16),
        arrival_ns=int(ts_ns[-1]) + 7,
    )  # fmt: skip
    rig.add(sparse)
    rig.flush()
    rig.compact()
    assert warm(rig).table(["times_back"])["times_back"].to_pylist() == [0, 0, 2]
    assert len(column(rig, "leon/line3/mixer/s001")) == 2 * N


@pytest.mark.parametrize("most", [1, 5, 12])
def test_rows_that_share_stay_in_one_row_group(rig, plant, monkeypatch, most):
    monkeypatch.setattr(segment_module, "_ROWS_MAX", most)
    monkeypatch.setattr(time_axes, "_DEVICE_ROWS_MAX", 7)
    values = {}
    for number in range(3):
        slot = device(plant, f"leon/line3/mixer{number}", 10)
        values[number] = fill(rig, slot, irregular(number), number)
    rig.compact()
    file = warm(rig)
    assert file.n_groups > 1
    for group in range(file.n_groups):
        back = file.row_group(group, ["times_back"])["times_back"].to_numpy()
        assert (back <= np.arange(len(back))).all()
        assert len(back) <= max(most, 8)  # eight rows can not be parted
    for number, want in values.items():
        got = column(rig, f"leon/line3/mixer{number}/*").columns["value"]
        assert np.array_equal(got, want.T.reshape(-1))


def test_a_merge_of_late_samples_keeps_it(rig, plant):
    slot = device(plant, "leon/line3/mixer", 4)
    first, late = irregular(5), irregular(6) + NS * 800
    before = fill(rig, slot, first)
    rig.compact()
    values = np.concatenate([before, fill(rig, slot, late, 2)])
    rig.clock.advance(90_000.0)
    rig.compact()
    order = np.argsort(np.concatenate([first, late]), kind="stable")
    got = column(rig, "leon/line3/mixer/s002")
    assert warm(rig).table(["times_back"])["times_back"].to_pylist() == [0, 1, 2, 3]
    assert np.array_equal(got.columns["value"], values[order, 2])


def test_a_chunk_without_times_needs_those_of_another():
    ts_ns, values = irregular(7), np.arange(N) * 0.5
    leader = encode_chunk(ts_ns, values, None)
    follower = encode_chunk(ts_ns, values + 1, None, times_of=leader.time_codec)
    assert len(follower.payload) < len(leader.payload) - N // 2
    names, dtype, span = follower[1:3], np.dtype("f8"), (int(ts_ns[0]), int(ts_ns[-1]))
    times = decode_times(leader.payload, leader.time_codec, N, span)
    found, got, _ = decode_chunk(follower.payload, names, N, dtype, span, times)
    assert np.array_equal(found, ts_ns)
    assert np.array_equal(got, values + 1)
    for wrong in (None, times[1:]):
        with pytest.raises(CorruptionError):
            decode_chunk(follower.payload, names, N, dtype, span, wrong)
    with pytest.raises(CorruptionError, match="not its own"):
        decode_chunk(leader.payload, leader[1:3], N, dtype, span, times)
    with pytest.raises(CorruptionError):
        decode_times(leader.payload[:-1], leader.time_codec, N, span)


def test_a_damaged_axis_is_told_for_every_sensor_and_the_others_are_there(rig, plant):
    slot = device(plant, "leon/line3/mixer", 3)
    fill(rig, slot, irregular(8))
    lone = plant.directory.define("leon/line3/alone/x", Layout("u16", (Column(""),)))
    fill(rig, lone, irregular(9))
    rig.compact()
    (manifest,) = rig.store.view.manifests.values()
    name = manifest.files[0].name
    data = bytearray(rig.disk.read(name))
    rows = SegmentFile(rig.disk, manifest.files[0]).headers(0)
    row = int(np.flatnonzero(rows.times_offset != rows.offset)[0])
    data[int(rows.times_offset[row]) + 40] ^= 1
    rig.disk.replace(name, bytes(data))
    answer = Store.open(rig.disk, plant.directory, rig.clock).query("leon/line3/**", *SPAN)
    assert len(answer.missing) == 1
    assert "damaged" in answer.missing[0]
    assert len(answer) == N


def test_rows_that_move_take_their_times_along_and_share_again(rig, plant):
    slot = device(plant, "leon/line3/mixer", 6)
    fill(rig, slot, irregular(11))
    rig.compact()
    table = warm(rig).table()
    own = time_axes.own_times(table)
    assert own["times_back"].to_pylist() == [0] * 6
    assert min(own["n_bytes"].to_pylist()) > max(table["n_bytes"].to_pylist()[1:]) + N // 2
    for row, alone in zip(table.to_pylist(), own.to_pylist(), strict=True):
        span = row["t_min"].value, row["t_max"].value
        ts_ns, _, _ = decode_chunk(
            alone["payload"], (row["time_codec"], row["value_codec"]), N, np.dtype(np.uint16), span
        )
        assert np.array_equal(ts_ns, irregular(11))
    shared = time_axes.share_times(own)
    assert shared["payload"].to_pylist() == table["payload"].to_pylist()
    assert shared["times_back"].to_pylist() == table["times_back"].to_pylist()
    apart = time_axes.share_times(own.take([0, 2, 5]))
    assert apart["times_back"].to_pylist() == [0, 1, 2]


def test_even_times_are_not_referred_to(rig, plant):
    slot = device(plant, "leon/line3/mixer", 3)
    fill(rig, slot, NOON + np.arange(N) * NS)
    rig.compact()
    assert warm(rig).table(["times_back"])["times_back"].to_pylist() == [0, 0, 0]
    assert np.array_equal(column(rig, "leon/line3/mixer/s001").ts_ns, NOON + np.arange(N) * NS)
