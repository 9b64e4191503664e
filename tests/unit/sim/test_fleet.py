"""The fleet as a function: exact sizes, same answers in any order, pieces and company, and what lines do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.clock import NS
from headrace.core.layouts import Kind
from headrace.core.paths import pattern_regex
from headrace.core.sensors import SensorDirectory
from headrace.sim.batches import FleetSlots
from headrace.sim.calendars import CONTINUOUS, DAY_SHIFT
from headrace.sim.fleet import Fleet, line_path
from headrace.sim.profiles import CLIMATE, CONVEYOR, METER, OVEN, PANEL, PRESS, PROBE, PUMP
from headrace.sim.reports import DenseFrames, SparseFrames, WaveFrames

MONDAY_NS = 1_795_424_400 * NS  # 2026-11-23 10:00 in Madrid


@pytest.mark.parametrize("n", [1, 10, 49, 50, 51, 1_000, 12_345])
@pytest.mark.parametrize("group_size", [None, 1, 7, 50])
def test_there_are_exactly_as_many_sensors_as_asked_for(n: int, group_size: int | None) -> None:
    fleet = Fleet(n, seed=2, group_size=group_size)
    devices = fleet.devices()
    assert int(devices.n_sensors.sum()) == n
    assert len(devices.device) == fleet.n_devices
    assert (np.diff(devices.first_sensor) == devices.n_sensors[:-1]).all()
    found = np.sort(np.concatenate([t.devices() for t in fleet.types]))
    assert (found == devices.device).all()
    for i, kind in enumerate(fleet.types):
        assert (fleet.type_index(kind.devices()) == i).all()
        assert (kind.rank(kind.devices()) == np.arange(kind.n_devices)).all()
    if group_size:
        assert (devices.n_sensors[:-1] == group_size).all()


@pytest.mark.parametrize("arguments", [{"n_sensors": 0}, {"n_sensors": 5, "group_size": 0}])
def test_an_empty_fleet_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a fleet has sensors"):
        _ = Fleet(**arguments).types


def test_ten_million_sensors_cost_nothing_until_asked() -> None:
    fleet = Fleet(10_000_000, seed=1, group_size=50)
    assert fleet.n_devices == 200_000
    first = fleet.devices(199_990)
    assert first.device.tolist() == list(range(199_990, 200_000))
    assert fleet.paths(np.array([199_999])) == ["brno98/paint/line4/meter16"]
    assert fleet.values(np.array([199_995]), np.array([MONDAY_NS])).shape == (1, 50)


def test_all_sensors_have_their_own_path_of_five_levels() -> None:
    directory = SensorDirectory()
    fleet = Fleet(5_000, seed=3)
    FleetSlots(fleet, directory)
    assert directory.n_sensors == 5_000
    temperatures = directory.find("**/line1/**/temperature")
    assert len(temperatures) > 0
    path = directory.sensor_path(int(temperatures.slot[0]), int(temperatures.column[0]))
    assert len(path.split("/")) == 5
    assert pattern_regex("leon/**").fullmatch(path)


def test_lone_sensors_are_groups_of_one() -> None:
    directory = SensorDirectory()
    fleet = Fleet(500, seed=3, group_size=1, dtype="f64")
    FleetSlots(fleet, directory)
    assert directory.n_sensors == directory.n_slots == 500
    assert fleet.paths(np.array([0])) == ["leon/paint/line1/oven1/temperature"]
    assert directory.sensor_path(0, 0).count("/") == 4
    assert {t.parts[0].layout.dtype for t in fleet.types} == {"f64"}


def test_lines_areas_and_sites_are_counted_up() -> None:
    assert [line_path(n) for n in (0, 3, 4, 16, 128)] == [
        "leon/paint/line1",
        "leon/paint/line4",
        "leon/press/line1",
        "porto/paint/line1",
        "leon2/paint/line1",
    ]
    assert len({line_path(n) for n in range(2_000)}) == 2_000


def test_values_are_the_same_in_any_order_and_company() -> None:
    fleet = Fleet(40_000, seed=5, group_size=20, profiles=(OVEN, PRESS))
    rng = np.random.default_rng(1)
    device = rng.choice(fleet.types[0].devices(), 20_000)
    ts = MONDAY_NS + rng.integers(-30 * 86_400, 30 * 86_400, 20_000) * NS + rng.integers(0, NS, 20_000)
    whole = fleet.values(device, ts)
    assert whole.dtype == np.uint16
    order = rng.permutation(20_000)
    assert (fleet.values(device[order], ts[order]) == whole[order]).all()
    for i in range(0, 20_000, 1_999):
        assert (fleet.values(device[i : i + 1], ts[i : i + 1]) == whole[i]).all()


def test_a_seed_is_a_factory_and_another_seed_another() -> None:
    device, ts = np.arange(0, 200, 5), np.full(40, MONDAY_NS)
    one, again, other = (Fleet(10_000, seed=s, group_size=50).values(device, ts) for s in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).mean() > 0.5


def test_values_are_asked_of_one_type_that_can_be_read() -> None:
    fleet = Fleet(500, seed=1, profiles=(OVEN, PANEL))
    with pytest.raises(ValueError, match="one type"):
        fleet.values(np.array([0, 1]), np.array([MONDAY_NS] * 2))
    with pytest.raises(ValueError, match="panel"):
        fleet.values(np.array([1]), np.array([MONDAY_NS]))


def test_what_machines_do_follows_the_line() -> None:
    fleet = Fleet(160, seed=1, profiles=(OVEN,), plans=(DAY_SHIFT,), line_offset_s=0)
    names = [c.name for c in fleet.layout(0).columns]
    ts = MONDAY_NS - 10 * 3_600 * NS + np.arange(0, 86_400, 60) * NS
    device = np.zeros(len(ts), np.int64)
    layout = fleet.layout(0)
    values = fleet.values(device, ts) * layout.scale + layout.offset
    running = fleet.active(np.zeros(len(ts), np.int64), ts)
    assert 0.3 < running.mean() < 0.4
    temperature = values[:, names.index("temperature")]
    assert temperature[ts < MONDAY_NS - 4 * 3_600 * NS].max() < 35
    assert temperature[(ts > MONDAY_NS + 3 * 3_600 * NS) & running].max() > 190
    power = values[:, names.index("power")]
    assert power[running].mean() > 10 * power[~running].mean()
    counters = fleet.values(device, ts, part=1)
    energy = np.diff(counters[:, 0].astype(np.int64))
    assert (energy >= 0).all()
    assert energy[running[:-1]].mean() > 10 * energy[~running[:-1]].mean()
    mode = values[:, names.index("mode")]
    assert (mode[~running] == 0).all()
    assert set(np.unique(mode[running])) == {1, 2, 3}


def test_lines_start_some_minutes_apart() -> None:
    fleet = Fleet(10_000, seed=1, group_size=10, plans=(DAY_SHIFT,), devices_per_line=10)
    line = np.arange(fleet.n_lines)
    seven = MONDAY_NS - 3 * 3_600 * NS
    counts = [int(fleet.active(line, np.full(len(line), seven + m * 60 * NS)).sum()) for m in (-9, 0, 9)]
    assert counts[0] == 0
    assert counts[2] == fleet.n_lines
    assert 0.3 < counts[1] / fleet.n_lines < 0.7


def test_truth_names_every_sensor() -> None:
    fleet = Fleet(3_000, seed=4)
    truth, devices = fleet.truth(), fleet.devices()
    assert len(truth.device) == 3_000
    assert (np.bincount(truth.device) == devices.n_sensors).all()
    assert (truth.period_ns[truth.kind == Kind.EVENT] == 0).all()
    assert set(truth.kind.tolist()) == {int(k) for k in Kind}
    assert not truth.fault.any()
    oven = int(np.flatnonzero(fleet.type_index(devices.device) == 0)[0])
    kinds = [c.kind for p in fleet.types[0].parts for c in p.layout.columns]
    assert truth.kind[truth.device == oven].tolist() == kinds


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), n=st.integers(1, 2_000), start_s=st.integers(0, 2_000_000_000))
def test_frame_batches_hold_what_the_columns_say(seed: int, n: int, start_s: int) -> None:
    fleet = Fleet(n, seed=seed)
    directory = SensorDirectory()
    slots = FleetSlots(fleet, directory)
    for number, frames in enumerate(fleet.frames(start_s * NS, (start_s + 30) * NS)):
        batch = slots.batch(frames, arrival_ns=7, origin="sim", sequence=number)
        assert batch.n_values == frames.values.size
        assert batch.sequence == number
        paths = fleet.paths(frames.device)
        frame_of = np.arange(len(paths))
        if isinstance(frames, SparseFrames):
            assert batch.start is not None
            frame_of = np.repeat(np.arange(batch.n_frames), np.diff(batch.start))
            assert (batch.column == frames.column).all()
            assert (np.diff(batch.ts_ns) != 0)[np.diff(batch.slot.astype(np.int64)) == 0].all()
        if isinstance(frames, WaveFrames):
            assert batch.rate_num is not None
            assert batch.rate_num.tolist() == [frames.rate_num] * batch.n_frames
        assert [directory.paths[s] for s in batch.slot[frame_of]] == paths
        assert (batch.ts_ns[frame_of] == frames.ts_ns).all()
        assert directory.layout(int(batch.slot[0])) == frames.part.layout
        if isinstance(frames, DenseFrames):
            assert batch.width == frames.part.layout.width


def test_natural_devices_have_their_own_types() -> None:
    fleet = Fleet(2_000, seed=1, profiles=(OVEN, METER, CLIMATE, PROBE, CONVEYOR, PUMP), plans=(CONTINUOUS,))
    assert [p.layout.dtype for p in fleet.types[0].parts] == ["u16", "u32", "u8"]
    assert [p.name for p in fleet.types[0].parts] == ["u16", "u32", "u8"]
    assert [(p.name, p.layout.dtype) for p in fleet.types[1].parts] == [("", "f64")]
    assert [p.layout.dtype for p in fleet.types[3].parts] == ["i16"] * 3
