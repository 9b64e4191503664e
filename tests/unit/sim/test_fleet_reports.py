"""What a fleet sends: the same reports however time is cut, in order, and each behaviour as its profile says."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.clock import NS
from headrace.sim.calendars import CONTINUOUS, DAY_SHIFT
from headrace.sim.fleet import Fleet
from headrace.sim.noise import keys
from headrace.sim.profiles import CLIMATE, CONVEYOR, EVERYTHING, METER, OVEN, PANEL, PROBE
from headrace.sim.reports import DenseFrames, Frames, SparseFrames, Surge
from headrace.sim.schedules import Span, Timing, events, left_dead_band, ticks
from headrace.sim.truth import Fault, FaultTable, plant_faults

MONDAY_NS = 1_795_424_400 * NS  # 2026-11-23 10:00 in Madrid
HOUR_NS = 3_600 * NS


def reports(batches: Iterable[Frames]) -> set[tuple[object, ...]]:
    """Every reported value as (device, part, column, time, value)."""
    out: set[tuple[object, ...]] = set()
    n = 0
    for b in batches:
        n += b.values.size
        width = 1 if isinstance(b, SparseFrames) else b.values.shape[1]
        device, ts = np.repeat(b.device, width).tolist(), np.repeat(b.ts_ns, width).tolist()
        column = b.column if isinstance(b, SparseFrames) else np.tile(np.arange(width), len(b.device))
        part = [b.part.first_column] * len(device)
        out |= set(zip(device, part, column.tolist(), ts, b.values.reshape(-1).tolist(), strict=True))
    assert len(out) == n
    return out


def faulty(n_sensors: int, span: Span, **more: object) -> Fleet:
    plain = Fleet(n_sensors, **more)  # type: ignore[arg-type]
    return replace(plain, faults=plant_faults(plain.n_levels(), span, plain.n_devices // 2, 3))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    cuts=st.lists(st.integers(0, 200_000), max_size=8),
    slice_s=st.sampled_from([None, 1, 7, 60, 1_000]),
    start_ms=st.integers(-(10**9), 10**9),
)
def test_the_same_reports_however_time_is_cut(
    seed: int, cuts: list[int], slice_s: int | None, start_ms: int
) -> None:
    t0 = MONDAY_NS + start_ms * 1_000_000
    t1 = t0 + 200 * NS
    surge = Surge(Span(t0 + 50 * NS, t0 + 90 * NS + 1), 7, 0.5)
    fleet = faulty(90, Span(t0, t1), seed=seed, surges=(surge,))
    whole = reports(fleet.frames(t0, t1))
    edges = [t0, *sorted(t0 + ms * 1_000_000 for ms in cuts), t1]
    pieces: set[tuple[object, ...]] = set()
    for a, b in pairwise(edges):
        piece = reports(fleet.frames(a, b, slice_s and slice_s * NS))
        assert not piece & pieces
        pieces |= piece
    assert pieces == whole


def test_every_behaviour_reports() -> None:
    fleet = Fleet(2_000, seed=1, plans=(CONTINUOUS,))
    seen = {b.type.profile.name for b in fleet.frames(MONDAY_NS, MONDAY_NS + 120 * NS)}
    assert seen == {p.name for p in EVERYTHING}


def test_a_device_reports_in_order_of_time() -> None:
    fleet = Fleet(600, seed=1)
    last: dict[tuple[int, int], int] = {}
    for b in fleet.frames(MONDAY_NS, MONDAY_NS + 180 * NS):
        for device, ts in zip(b.device.tolist(), b.ts_ns.tolist(), strict=True):
            key = (device, b.part.first_column)
            assert last.get(key, 0) <= ts
            last[key] = ts


def test_periodic_reports_come_every_period_within_their_jitter() -> None:
    fleet = Fleet(500, seed=1, group_size=50, profiles=(OVEN,))
    ts: dict[int, list[int]] = {}
    for b in fleet.frames(MONDAY_NS, MONDAY_NS + 100 * NS):
        assert isinstance(b, DenseFrames)
        assert (b.values == fleet.values(b.device, b.ts_ns)).all()
        for device, at in zip(b.device.tolist(), b.ts_ns.tolist(), strict=True):
            ts.setdefault(device, []).append(at)
    phase = fleet.devices().phase_ns
    assert len(ts) == 10
    assert len(set(phase.tolist())) == 10
    for device, times in ts.items():
        off = (np.array(times) - int(phase[device]) + NS // 2) % NS - NS // 2
        assert len(times) in (99, 100, 101)
        assert 0 < np.abs(off).max() <= OVEN.jitter_ns


def test_the_period_can_be_set_for_all() -> None:
    fleet = Fleet(1_000, seed=1, group_size=50, profiles=(OVEN, METER), period_ns=100_000_000)
    n = sum(b.values.size for b in fleet.frames(MONDAY_NS, MONDAY_NS + 10 * NS))
    assert 0.99 < n / 100_000 <= 1.001


def test_some_reports_of_radio_meters_are_lost() -> None:
    lossy = replace(METER, loss=0.2)
    fleet = Fleet(1_000, seed=1, profiles=(lossy,), period_ns=NS)
    n = sum(b.values.size for b in fleet.frames(MONDAY_NS, MONDAY_NS + 60 * NS))
    assert 0.77 < n / 60_000 < 0.83


def test_sleeping_devices_wake_one_after_the_other_and_stop_with_their_line() -> None:
    slow = replace(CONVEYOR, ramp_s=600.0)
    fleet = Fleet(900, seed=1, profiles=(slow,), plans=(DAY_SHIFT,), line_offset_s=0, devices_per_line=100)
    seven = MONDAY_NS - 3 * HOUR_NS

    def reporting(at_ns: int) -> int:
        return len({d for b in fleet.frames(at_ns, at_ns + 2 * NS) for d in b.device.tolist()})

    assert reporting(seven - 10 * NS) == 0
    counts = [reporting(seven + s * NS) for s in (5, 200, 400, 600)]
    assert counts == sorted(counts)
    assert counts[0] < 10
    assert 20 < counts[1] < 50
    assert counts[3] == 100
    assert reporting(seven + 2 * HOUR_NS + 1) == 0  # the first break


def test_by_exception_a_value_is_sent_when_it_left_its_dead_band() -> None:
    fleet = Fleet(60, seed=1, profiles=(CLIMATE,), plans=(CONTINUOUS,))
    t1 = MONDAY_NS + 600 * NS
    batches = [b for b in fleet.frames(MONDAY_NS, t1) if isinstance(b, SparseFrames)]
    n_scans = 600 * 60
    n = sum(len(b.values) for b in batches)
    assert 0.016 < n / n_scans < 0.7
    rows = [
        (d, c, t, v)
        for b in batches
        for d, c, t, v in zip(
            b.device.tolist(), b.column.tolist(), b.ts_ns.tolist(), b.values.tolist(), strict=True
        )
    ]
    scale = {c: f.scale for c, f in enumerate(fleet.types[0].parts[0].table.forms)}  # type: ignore[union-attr]
    last: dict[tuple[int, int], tuple[int, float]] = {}
    unmoved = 0
    for device, column, ts, value in rows:
        before = last.get((device, column))
        if before is not None:
            assert ts - before[0] <= 64 * NS + 4 * CLIMATE.jitter_ns
            unmoved += abs(value - before[1]) <= CLIMATE.dead_band * scale[column]
        last[device, column] = (ts, value)
    # Only heartbeats repeat a value that did not move: one in 64 scans.
    assert unmoved <= 60 * 11
    assert len(last) == 60


def test_events_come_at_their_rate_while_the_line_runs() -> None:
    busy = replace(PANEL, events_per_h=30.0)
    fleet = Fleet(400, seed=2, profiles=(busy,), plans=(DAY_SHIFT,), line_offset_s=0)
    eleven, night = MONDAY_NS + HOUR_NS // 4 - HOUR_NS // 2, MONDAY_NS - 8 * HOUR_NS
    batches = list(fleet.frames(eleven, eleven + HOUR_NS))
    n = sum(len(b.values) for b in batches)
    assert 0.85 < n / (400 * 30) < 1.25
    values = np.concatenate([b.values for b in batches])
    labels = batches[0].part.layout.columns[0].labels
    assert set(np.unique(values)) == set(range(1, len(labels)))
    assert not list(fleet.frames(night, night + HOUR_NS))


def test_waveforms_come_in_bursts() -> None:
    fleet = Fleet(30, seed=2, profiles=(PROBE,), plans=(CONTINUOUS,))
    batches = list(fleet.frames(MONDAY_NS, MONDAY_NS + 600 * NS))
    assert {b.values.shape[1] for b in batches} == {1_024}
    assert 29 * 10 <= sum(len(b.ts_ns) for b in batches) <= 31 * 10
    assert len({b.part.name for b in batches}) == 3


def test_a_surge_multiplies_the_reports_of_its_share() -> None:
    span = Span(MONDAY_NS + 20 * NS, MONDAY_NS + 40 * NS)
    fleet = Fleet(10_000, seed=1, group_size=50, profiles=(OVEN,), surges=(Surge(span, 10, 0.5),))

    def per_s(a: int, b: int) -> float:
        return sum(x.values.size for x in fleet.frames(MONDAY_NS + a * NS, MONDAY_NS + b * NS)) / (b - a)

    assert abs(per_s(0, 20) / 10_000 - 1) < 0.02
    assert abs(per_s(40, 60) / 10_000 - 1) < 0.02
    assert abs(per_s(20, 40) / 55_000 - 1) < 0.1


# --- faults ------------------------------------------------------------------------------------------


def test_a_silent_device_reports_nothing_until_it_is_back() -> None:
    a, b = MONDAY_NS + 10 * NS, MONDAY_NS + 20 * NS
    for profile in (OVEN, CLIMATE, PANEL, PROBE):
        often = replace(profile, events_per_h=3_600.0, period_ns=NS)
        faults = FaultTable.of((Fault.SILENT, 1, -1, a, b, 0.0))
        fleet = Fleet(often.size * 3, seed=1, profiles=(often,), plans=(CONTINUOUS,), faults=faults)
        found = [
            (d, t)
            for x in fleet.frames(MONDAY_NS, MONDAY_NS + 200 * NS)
            for d, t in zip(x.device.tolist(), x.ts_ns.tolist(), strict=True)
        ]
        assert not [t for d, t in found if d == 1 and a <= t < b]
        assert [t for d, t in found if d == 1 and t >= b]
        assert [t for d, t in found if d == 0 and a <= t < b]


def test_a_stuck_sensor_repeats_its_value_and_its_neighbours_do_not() -> None:
    a, b = MONDAY_NS + 100 * NS, MONDAY_NS + 200 * NS
    faults = FaultTable.of((Fault.STUCK, 2, 0, a, b, 0.0))
    well, ill = (
        Fleet(200, seed=1, group_size=50, profiles=(OVEN,), plans=(CONTINUOUS,), faults=f)
        for f in (FaultTable.of(), faults)
    )
    ts = MONDAY_NS + np.arange(300) * NS
    device = np.full(300, 2)
    x, y = well.values(device, ts), ill.values(device, ts)
    assert (y[100:200, 0] == x[100, 0]).all()
    assert len(np.unique(x[100:200, 0])) > 5
    x[100:200, 0] = y[100:200, 0]
    assert (x == y).all()


@pytest.mark.parametrize("dtype", ["u16", "f64"])
def test_a_drifting_sensor_leaves_by_its_rate(dtype: str) -> None:
    a, b = MONDAY_NS, MONDAY_NS + 10 * HOUR_NS
    faults = FaultTable.of((Fault.DRIFT, 0, 0, a, b, 50.0))
    well, ill = (
        Fleet(50, seed=1, group_size=50, dtype=dtype, profiles=(OVEN,), faults=f)
        for f in (FaultTable.of(), faults)
    )
    ts = MONDAY_NS + np.arange(-1, 11) * HOUR_NS
    device = np.zeros(12, np.int64)
    moved = ill.values(device, ts).astype(np.float64) - well.values(device, ts)
    step = 1.0 if dtype == "u16" else 0.1
    assert np.allclose(moved[:, 0] / step, [0, 0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 0])
    assert not moved[:, 1:].any()


def test_a_jittering_device_keeps_its_ticks_and_loses_its_pace() -> None:
    faults = FaultTable.of((Fault.JITTER, 3, -1, MONDAY_NS, MONDAY_NS + 500 * NS, 0.4))
    fleet = Fleet(500, seed=1, group_size=50, profiles=(OVEN,), faults=faults)
    ts: dict[int, list[int]] = {}
    for x in fleet.frames(MONDAY_NS, MONDAY_NS + 400 * NS):
        for d, t in zip(x.device.tolist(), x.ts_ns.tolist(), strict=True):
            ts.setdefault(d, []).append(t)
    spread = {d: float(np.diff(t).std()) / NS for d, t in ts.items()}
    assert spread[3] > 0.2
    assert max(s for d, s in spread.items() if d != 3) < 0.01
    assert all(399 <= len(t) <= 401 for t in ts.values())
    assert (np.diff(ts[3]) > 0).all()


def test_planted_faults_are_told_in_the_truth() -> None:
    span = Span(MONDAY_NS, MONDAY_NS + 8 * HOUR_NS)
    plain = Fleet(5_000, seed=1)
    faults = plant_faults(plain.n_levels(), span, 60, seed=9)
    fleet = replace(plain, faults=faults)
    assert len(faults) == len(set(faults.device.tolist())) == 60
    assert set(faults.kind.tolist()) == {1, 2, 3, 4}
    assert (np.diff(faults.device) > 0).all()
    assert ((faults.start_ns >= span.t0_ns) & (faults.start_ns < span.t0_ns + 4 * HOUR_NS)).all()
    truth = fleet.truth()
    for i in range(60):
        mine = truth.device == faults.device[i]
        if faults.column[i] >= 0:
            mine &= truth.column == faults.column[i]
            assert mine.sum() == 1
        assert (truth.fault[mine] == faults.kind[i]).all()
        assert (truth.fault_start_ns[mine] == faults.start_ns[i]).all()
    assert 0 < (truth.fault > 0).mean() < 0.2
    again = plant_faults(plain.n_levels(), span, 60, seed=9)
    assert (again.device == faults.device).all()
    with pytest.raises(ValueError, match="faults need as many devices"):
        plant_faults(np.ones(3, np.int64), span, 4, seed=1)


# --- schedules ---------------------------------------------------------------------------------------


def test_ticks_outside_every_period_are_none() -> None:
    timing = Timing(np.array([500]), 1_000, keys(1, np.arange(1)), 0)
    assert len(ticks(Span(600, 700), timing).row) == 0
    assert ticks(Span(500, 2_501), timing).ts_ns.tolist() == [500, 1_500, 2_500]
    assert ticks(Span(-600, 500), timing).ts_ns.tolist() == [-500]
    none = Timing(np.empty(0, np.int64), 1_000, keys(1, np.arange(0)), 0)
    assert len(ticks(Span(0, 5_000), none).row) == 0


def test_event_counts_are_poisson() -> None:
    hours = 200
    row, ts, number = events(Span(0, hours * HOUR_NS), keys(4, np.arange(40)), 30.0)
    counts = np.bincount(row, minlength=40) / hours
    assert 29 < counts.mean() < 33  # floods add up to 4 %
    assert len(np.unique(number)) == len(number)
    calm = np.bincount(ts[row == 0] // (60 * NS), minlength=hours * 60)
    assert abs((calm == 0).mean() - np.exp(-0.5)) < 0.03
    assert (np.diff(ts)[np.diff(row) == 0] >= 0).all()


def test_dead_band_compares_with_the_last_report() -> None:
    values = np.array([0, 1, 2, 3, 4, 2, 0, 1], np.uint16).reshape(1, 8, 1)
    report = left_dead_band(values, np.array([2.0]))
    assert report[0, :, 0].tolist() == [True, False, False, True, False, False, True, False]
