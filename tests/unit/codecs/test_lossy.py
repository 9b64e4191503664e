"""Codecs with a bound: what each is for, and the bytes that no writer makes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from headrace.codecs.base import Unfit, keeps_bound
from headrace.codecs.hold import HoldCodec
from headrace.codecs.levels import Room, odd_multiple, usable
from headrace.codecs.piecewise_constant import PiecewiseConstantCodec
from headrace.codecs.quantise import QuantiseCodec
from headrace.codecs.registry import VALUE_CODECS, is_lossy, value_codec
from headrace.codecs.seasonal import SeasonalCodec, find_period
from headrace.codecs.spacing import Spacing, find_spacing
from headrace.codecs.swing import SwingCodec
from headrace.codecs.swinging_door import SwingingDoorCodec
from headrace.core.errors import ConfigError, CorruptionError
from headrace.testing.codecs import lossy_codecs, relative_codecs, value_codecs

CODECS = (HoldCodec, PiecewiseConstantCodec, QuantiseCodec, SeasonalCodec, SwingCodec, SwingingDoorCodec)
F64 = np.dtype(np.float64)


def near(codec, values):
    """Bytes of the payload, once what it holds is within the bound."""
    payload = codec.encode(values)
    assert keeps_bound(codec.decode(payload, values.size, values.dtype), values, codec.eps)
    return len(payload)


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(size=n)


def test_lossy_codecs_are_told_from_lossless_ones():
    assert lossy_codecs() == sorted(c.name for c in CODECS)
    assert not set(lossy_codecs()) & set(value_codecs())
    assert {*lossy_codecs(), *relative_codecs(), *value_codecs()} == set(VALUE_CODECS.names())
    assert not is_lossy(VALUE_CODECS.load("raw"))


def test_a_bound_has_to_be_declared():
    with pytest.raises(ConfigError, match="eps"):
        value_codec({"name": "hold"})
    with pytest.raises(ConfigError, match="above 0"):
        value_codec({"name": "swing", "eps": 0.0})
    assert value_codec({"name": "quantise", "eps": 0.5, "step": 0.3}) == QuantiseCodec(0.5, 0.3)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "quantise", "eps": 0.1, "step": 0.21},
        {"name": "quantise", "eps": 0.1, "step": -0.1},
        {"name": "seasonal", "eps": 0.1, "period": 1},
        {"name": "seasonal", "eps": 0.1, "period": 1 << 21},
    ],
)
def test_wrong_settings_are_a_config_error(spec):
    with pytest.raises(ConfigError, match=spec["name"]):
        value_codec(spec)


@pytest.mark.parametrize("codec", ["levels", "spacing", *(c.name for c in CODECS)])
def test_no_kernel_is_loaded_before_values_come(codec):
    code = f"import sys, headrace.codecs.{codec}; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 17, 1000])
def test_any_number_of_values(codec, n):
    values = np.repeat(noise(n), 3)[:n]
    try:
        near(codec(0.1), values)
    except Unfit:
        assert n
    with pytest.raises(CorruptionError):
        codec(0.1).decode(codec(0.1).seal(b""), n + 1, F64)


@pytest.mark.parametrize("codec", CODECS)
def test_values_that_are_too_large_for_the_bound_are_refused(codec):
    values = np.tile([1e15, 1.0, 2.0], 40)
    with pytest.raises(Unfit, match="too large"):
        codec(1e-3).encode(values)
    with pytest.raises(Unfit, match="too large"):
        codec(1e-3).encode(values.astype(np.float32) * np.float32(1e-9))
    with pytest.raises(Unfit, match="neighbour"):
        codec(1e280).encode(np.full(40, np.finfo(np.float64).max))


@pytest.mark.parametrize("codec", CODECS)
def test_a_payload_is_of_one_type(codec):
    values = np.tile(np.repeat(noise(20), 10), 4)
    for one, other in ((np.float64, np.float32), (np.float32, np.float64), (np.float64, np.int64)):
        with pytest.raises(CorruptionError, match="does not hold values of"):
            codec(0.1).decode(codec(0.1).encode(values.astype(one)), values.size, np.dtype(other))


# --- what each is for -------------------------------------------------------------------------------


def test_noise_goes_to_quantise():
    values = noise(4000)
    size = near(QuantiseCodec(0.01), values)
    assert size < 4000  # 7.7 bits a value is the entropy of normal noise in cells of 0.02
    for codec in (HoldCodec, PiecewiseConstantCodec, SwingCodec, SwingingDoorCodec):
        with pytest.raises(Unfit, match="values"):
            codec(0.01).encode(values)


def test_plateaus_with_noise_below_the_bound_are_runs():
    values = np.repeat(noise(20) * 50, 200) + np.clip(noise(4000, 1), -2.5, 2.5) * 0.2
    sizes = {c: near(c(0.51), values) for c in CODECS if c is not SeasonalCodec}
    assert sizes[PiecewiseConstantCodec] < 160
    assert sizes[PiecewiseConstantCodec] < sizes[HoldCodec] < 0.6 * sizes[QuantiseCodec]


def test_hold_does_not_jump_to_and_fro():
    values = 10.0 + np.tile([0.04, -0.04], 500)  # around a border of cells of 0.2
    codec = HoldCodec(0.1)
    assert np.unique(codec.decode(codec.encode(values), 1000, F64)).size == 1


@pytest.mark.parametrize("codec", [SwingCodec, SwingingDoorCodec])
def test_ramps_are_lines(codec):
    values = np.interp(np.arange(5000), [0, 700, 1900, 2000, 4999], [0, 80, -40, 55, 1])
    assert near(codec(0.05), values) < 60
    assert near(codec(0.05), values.astype(np.float32)) < 60


def test_a_line_ends_where_it_must():
    assert near(SwingCodec(0.1), np.array([0.0, 1.0, 2.0, 3.0, 3.0, 3.0])) < 30
    values = np.zeros(400)
    values[200] = 5.0
    assert near(SwingingDoorCodec(0.1), values) < 40


def test_cycles_are_told_once():
    cycle = np.cumsum(noise(417))
    values = np.tile(cycle, 20) + np.clip(noise(8340, 1), -3, 3) * 0.01
    assert find_period(values) == 417
    assert near(SeasonalCodec(0.06), values) < 0.15 * near(QuantiseCodec(0.06), values)
    assert near(SeasonalCodec(0.06, period=417), values) == near(SeasonalCodec(0.06), values)


@pytest.mark.parametrize("values", [np.arange(500.0), np.full(500, 3.0), np.arange(4.0), np.ones(1)])
def test_what_has_no_period_is_refused(values):
    assert find_period(values) == 0
    with pytest.raises(Unfit, match="period"):
        SeasonalCodec(0.1).encode(values)


def test_a_period_longer_than_half_the_values_is_refused():
    with pytest.raises(Unfit, match="period"):
        SeasonalCodec(0.1, period=51).encode(noise(101))
    near(SeasonalCodec(0.1, period=50), noise(101))


# --- grids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "offset", "eps", "points"),
    [
        (0.1, 0.0, 0.1001, 3),
        (0.1, 0.0, 0.0999, 2),
        (0.1, 0.03, 0.099, 2),
        (1 / 3, 20.0, 0.1, 1),
        (0.01, -5.0, 0.026, 6),
    ],
)
def test_cells_hold_as_many_grid_points_as_the_bound_allows(width, offset, eps, points):
    values = offset + np.random.default_rng(0).integers(-300, 300, 2000) * width
    spacing = find_spacing(values, eps)
    assert spacing is not None
    assert (spacing.width, spacing.points) == (pytest.approx(width, rel=1e-4), points)
    assert Spacing.unpack(spacing.pack() + b"rest") == (spacing, len(spacing.pack()))
    plain = QuantiseCodec(eps, step=2 * eps * 0.999)
    assert near(QuantiseCodec(eps), values) <= near(plain, values) + len(spacing.pack())


@pytest.mark.parametrize(
    "values",
    [
        noise(500),
        np.zeros(500),
        np.arange(500) * 1e-3,
        np.tile([0.0, 1e300], 100),
        np.tile([0.0, 1e14, 1e14 + 1], 100),
    ],
    ids=["noise", "constant", "fine", "wide", "far"],
)
def test_no_grid_is_found_where_none_helps(values):
    assert find_spacing(values, 0.4) is None


def test_grids_nest_over_tiers():
    values = noise(3000) * 20
    codec = QuantiseCodec(0.01).fitted(values)
    decoded = codec.decode(codec.encode(values), 3000, F64)
    for eps, times in ((0.03, 3), (0.25, 7), (0.4, 1), (1.3, 5), (20.0, 19)):
        coarse = codec.coarser(eps, decoded)
        assert round(coarse.step / codec.step) == times
        codec, decoded = coarse, coarse.decode(coarse.encode(decoded), 3000, F64)
        assert keeps_bound(decoded, values, eps)
        at_once = QuantiseCodec(eps, codec.step)
        assert np.array_equal(at_once.decode(at_once.encode(values), 3000, F64), decoded)


def test_a_coarser_grid_needs_a_step_and_a_coarser_bound():
    with pytest.raises(Unfit, match="fitted"):
        QuantiseCodec(0.1).coarser(0.3, noise(10))
    with pytest.raises(Unfit, match="too wide"):
        QuantiseCodec(0.1, 0.2 * 0.99).coarser(0.05, noise(10))
    with pytest.raises(Unfit, match="too wide"):
        odd_multiple(0.2, 0.09)
    assert odd_multiple(2 * usable(0.1, 30), 0.1) == 2 * usable(0.1, 30)


def test_a_step_without_room_for_rounding_is_refused():
    values = np.full(10, 1000.0, np.float32)
    with pytest.raises(Unfit, match="step"):
        QuantiseCodec(1e-3, 2e-3).encode(values)
    near(QuantiseCodec(1e-3, 1.5e-3), values)
    with pytest.raises(Unfit, match="step"):
        QuantiseCodec(1e-3, 1e-17).encode(values.astype(np.float64))


# --- bytes that no writer makes ---------------------------------------------------------------------


def ways(codec):
    """Payloads of different forms, with what they are of."""
    steps = np.repeat(noise(30), 30)
    for values in (
        steps,
        np.round(steps, 1),
        noise(900),
        np.tile(noise(90), 10),
        np.arange(900.0),
        steps[:1],
    ):
        for eps in (0.001, 0.1):
            try:
                yield codec(eps), values.size, codec(eps).pack(values)
            except Unfit:
                continue


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("seed", range(3))
def test_damage_behind_a_sound_checksum_is_refused_or_harmless(codec, seed):
    rng = np.random.default_rng(seed)
    refused = 0
    for made, n, body in ways(codec):
        for _ in range(100):
            damaged = bytearray(body)
            for place in rng.integers(0, min(len(body), 40), int(rng.integers(1, 4))).tolist():
                damaged[place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
            cut = bytes(damaged[: int(rng.integers(len(damaged)))]) if rng.random() < 0.2 else bytes(damaged)
            try:
                decoded = made.decode(made.seal(cut), n, F64)
            except CorruptionError:
                refused += 1
                continue
            assert decoded.shape == (n,)
    assert refused


@pytest.mark.parametrize("codec", CODECS)
def test_heads_that_no_writer_makes_are_refused(codec):
    body = codec(0.1).pack(np.tile(np.repeat(noise(9), 9), 4))
    for head in (Room(30, single=True), Room(30, single=False, variant=3)):
        with pytest.raises(CorruptionError):
            codec(0.1).unpack(head.head + body[1:], 324, F64)
    assert Room.of(Room(17, single=True, variant=2).head[0]) == Room(17, single=True, variant=2)


def test_a_body_without_a_step_is_refused():
    body = QuantiseCodec(0.1, 0.1).pack(noise(10))
    with pytest.raises(CorruptionError, match="step"):
        QuantiseCodec(0.1).unpack(body, 10, F64)
