"""Noise and signal shapes: uniform, independent, on the device's grid, and the same alone or among many."""

import numpy as np
import pytest

from headrace.core.layouts import Kind
from headrace.sim.noise import (
    NOISE_ONE,
    below,
    keys,
    mix_int,
    odd_multipliers,
    salted,
    splitmix64,
    triangular,
    uniform,
)
from headrace.sim.profiles import EVERYTHING, OVEN, PRESS, Behaviour, tables
from headrace.sim.signals import MODE_LABELS, Drivers, Role, SignalForm, SignalTable, waveform


def drivers(n: int, seed: int = 1) -> Drivers:
    rng = np.random.default_rng(seed)

    def word() -> np.ndarray:
        return rng.integers(0, 2**32, n, dtype=np.uint32)

    load = rng.random(n).astype(np.float32)
    gate = np.stack([np.ones(n, np.float32), load, load])
    mode = rng.integers(0, 4, n).astype(np.uint8)
    work = np.sort(rng.random(n) * 1e6)
    return Drivers(
        word(), word(), word(), word(), load, load, load * 2 - 1, load, gate, work, work * 2, mode, word()
    )


def test_splitmix_is_the_published_sequence() -> None:
    # First outputs of SplitMix64 seeded with 1234567, as its reference implementation prints them.
    state = np.array([1234567 + i * 0x9E3779B97F4A7C15 for i in range(3)], dtype=object)
    counters = np.array([int(s) % 2**64 for s in state], dtype=np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert splitmix64(counters).tolist() == expected
    assert mix_int(1234567) == expected[0]


def test_streams_are_uniform_and_not_correlated() -> None:
    key = keys(5, np.arange(200_000))
    a, b = uniform(salted(key, 1)), uniform(salted(key, 2))
    assert abs(a.mean() - 0.5) < 0.003
    assert abs(a.std() - 12**-0.5) < 0.003
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.01
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.01
    counts = np.bincount(below(salted(key, 3), 10), minlength=10)
    assert counts.min() > 19_300
    assert counts.max() < 20_700


def test_column_noise_is_triangular_and_independent() -> None:
    frames = (keys(9, np.arange(50_000)) >> np.uint64(32)).astype(np.uint32)
    noise = triangular(frames, odd_multipliers(3, 12))
    assert noise.shape == (12, 50_000)
    assert np.abs(noise).max() <= NOISE_ONE
    assert np.abs(noise.mean(axis=1)).max() < 0.02 * NOISE_ONE
    assert np.allclose(noise.std(axis=1) / NOISE_ONE, 6**-0.5, atol=0.01)
    correlation = np.corrcoef(noise) - np.eye(12)
    assert np.abs(correlation).max() < 0.03
    following = [np.corrcoef(row[1:], row[:-1])[0, 1] for row in noise]
    assert np.abs(following).max() < 0.03


@pytest.mark.parametrize("dtype", ["u16", "i32", "u32", "f64"])
def test_a_frame_has_the_same_values_alone_and_among_many(dtype: str) -> None:
    table = tables(PRESS.columns(50), dtype, 3)[0]
    many = drivers(3_000)
    whole = table.evaluate(many)
    assert whole.shape == (3_000, 50)
    for first, last in ((0, 1), (1, 2), (7, 40), (655, 1_311), (2_999, 3_000)):
        assert (table.evaluate(many.part(first, last)) == whole[first:last]).all()


def test_decimals_are_the_grid_of_the_integers() -> None:
    columns = OVEN.columns(9)
    raw, decimal = tables(columns, "i32", 3)[0], tables(columns, "f64", 3)[0]
    some = drivers(500)
    n = raw.n_levels
    expected = raw.evaluate(some)[:, :n] * raw.scale[:n] + raw.offset[:n]
    values = decimal.evaluate(some)[:, :n]
    assert np.allclose(values, expected, rtol=0, atol=1e-9)
    assert values.tolist() == [[round(v, 4) for v in row] for row in values.tolist()]
    single = tables(columns, "f32", 3)[0].evaluate(some)[:, :n]
    assert single.dtype == np.float32
    assert (single == values.astype(np.float32)).all()
    assert not decimal.layout.has_grid
    assert raw.layout.has_grid


def test_levels_stay_inside_the_declared_limits_but_for_spikes() -> None:
    for profile in EVERYTHING:
        if profile.behaviour in (Behaviour.EVENT, Behaviour.BURST):
            continue
        for table in tables(profile.columns(), None, 1):
            values = table.evaluate(drivers(20_000)) * table.layout.scale + table.layout.offset
            for i, column in enumerate(table.layout.columns):
                if column.low is not None and column.high is not None:
                    outside = (values[:, i] < column.low) | (values[:, i] > column.high)
                    assert outside.mean() < 0.001, (profile.name, column.name)


def test_a_counter_only_grows_and_wraps_at_its_type() -> None:
    form = SignalForm("parts", "1", "u16", Role.COUNTER, rate=2.0)
    table = SignalTable.compile((form,), ("parts",), "u16", 1)
    one = drivers(5_000)
    same = Drivers(**{n: getattr(one, n) for n in one.__slots__} | {"key": np.full(5_000, 7, np.uint32)})
    steps = np.diff(table.evaluate(same)[:, 0].astype(np.int64))
    assert (steps[steps < 0] < -10_000).all()
    assert (steps < 0).sum() >= 20
    total = int(np.where(steps < 0, steps + 65_536, steps).sum())
    assert abs(total - 2.0 * (same.work_s[-1] - same.work_s[0])) <= 1


def test_states_are_codes_of_their_labels() -> None:
    forms = tuple(
        SignalForm(r.name.lower(), dtype="u8", role=r)
        for r in (Role.MODE, Role.WORKING, Role.PULSE, Role.ALARM)
    )
    table = SignalTable.compile(forms, tuple(f.name for f in forms), "u8", 1)
    some = drivers(100_000)
    values = table.evaluate(some)
    assert [c.labels for c in table.layout.columns] == [MODE_LABELS, *[("off", "on")] * 3]
    assert all(c.kind is Kind.DISCRETE for c in table.layout.columns)
    assert (values[:, 0] == some.mode).all()
    assert set(np.unique(values[:, 1:])) == {0, 1}
    assert 0.2 < values[:, 2].mean() < 0.3
    assert 0.003 < values[:, 3].mean() < 0.009
    idle = Drivers(
        **{n: getattr(some, n) for n in some.__slots__} | {"gate": np.zeros((3, 100_000), np.float32)}
    )
    assert not table.evaluate(idle)[:, 1:].any()


def test_columns_are_sorted_levels_counters_states() -> None:
    table = tables(OVEN.columns(16), "u16", 1)[0]
    order = [min(f.role, Role.MODE) for f in table.forms]
    assert order == sorted(order)
    assert table.n_levels + table.n_counters + sum(f.role >= Role.MODE for f in table.forms) == 16
    names = [c.name for c in table.layout.columns]
    assert len(set(names)) == 16
    assert "temperature" in names
    assert "temperature_2" in names


def test_moved_values_stay_in_the_type() -> None:
    integers = tables(OVEN.columns(4), "u16", 1)[0]
    moved = integers.moved(np.array([10, 65_530], np.uint16), np.array([0, 1]), np.array([-20.0, 20.0]))
    assert moved.dtype == np.uint16
    assert moved.tolist() == [0, 65_535]
    decimals = tables(OVEN.columns(4), "f64", 1)[0]
    assert np.allclose(decimals.moved(np.array([10.0]), np.array([0]), np.array([20.0])), 12.0)


def test_waveforms_follow_the_load_and_do_not_depend_on_company() -> None:
    key, t0 = keys(3, np.arange(6)), np.arange(6) * 60_000_000_000
    load = np.array([0, 0.2, 0.4, 0.6, 0.8, 1.0], np.float32)
    whole = waveform(key, t0, load, 1_024, 6_400)
    assert whole.dtype == np.int16
    assert (np.diff(whole.astype(np.float64).std(axis=1)) > 0).all()
    for i in range(6):
        alone = waveform(key[i : i + 1], t0[i : i + 1], load[i : i + 1], 1_024, 6_400)
        assert (alone[0] == whole[i]).all()
    # The strongest line of the spectrum is the shaft, 20 to 30 Hz.
    spectrum = np.abs(np.fft.rfft(whole[5].astype(np.float64)))
    assert 15 < int(spectrum[1:].argmax() + 1) * 6_400 / 1_024 < 35
