"""Error measures against values worked out by hand."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from headrace.codecs.loss import BandLoss, band_loss, band_losses, measure

NS = 1_000_000_000
X = np.array([10.0, 20.0, 30.0, 40.0])
Y = np.array([11.0, 20.0, 28.0, 44.0])  # errors 1, 0, -2, 4


def test_errors_of_values():
    loss = measure(X, Y)
    assert (loss.n, loss.n_left_out, loss.n_differing) == (4, 0, 0)
    assert loss.max_abs == 4.0
    assert loss.rmse == pytest.approx(math.sqrt(21 / 4))
    assert loss.nrmse == pytest.approx(math.sqrt(21 / 4) / 30)
    assert loss.psnr_db == pytest.approx(10 * math.log10(900 / (21 / 4)))
    assert loss.snr_db == pytest.approx(10 * math.log10(125 / (21 / 4)))  # variance of x: 125
    assert loss.mape_percent == pytest.approx(100 * (1 / 10 + 0 + 2 / 30 + 4 / 40) / 4)
    assert loss.mape_left_out == 0


def test_errors_of_the_series_as_a_whole():
    loss = measure(X, Y)
    assert loss.mean_error == 0.75
    assert (loss.min_error, loss.max_error) == (1.0, 4.0)
    assert loss.pearson == pytest.approx(np.corrcoef(X, Y)[0, 1])
    assert loss.integral_error is loss.integral_share is None


def test_the_integral_is_weighted_with_the_time():
    ts_ns = np.array([0, 1, 3, 4]) * NS
    loss = measure(X, Y, ts_ns)
    assert loss.integral_error == pytest.approx(0.5 * 1 - 1.0 * 2 + 1.0 * 1)
    assert loss.integral_share == pytest.approx(-0.5 / (15 + 50 + 35))


def test_samples_that_came_out_of_order_are_integrated_in_order():
    order = np.array([2, 0, 3, 1])
    ts_ns = np.array([0, 1, 3, 4]) * NS
    assert measure(X[order], Y[order], ts_ns[order]).integral_error == measure(X, Y, ts_ns).integral_error


def test_an_integral_of_nothing_has_no_share():
    loss = measure(np.array([-1.0, 1.0]), np.array([-1.0, 2.0]), np.array([0, NS]))
    assert (loss.integral_error, loss.integral_share) == (0.5, None)


def test_autocorrelation():
    x = np.array([1.0, -1.0] * 4)
    y = np.array([1.0, 1.0, -1.0, -1.0] * 2)
    # r(1) of x is -7/8; of y 3 changes of sign in 7 pairs: 1/8. r(2): 6/8 against -6/8, the largest.
    assert measure(x, y, lags=1).acf_error == pytest.approx(1.0)
    assert measure(x, y, lags=2).acf_error == pytest.approx(1.5)
    assert measure(x, 5 + 3 * x).acf_error == pytest.approx(0.0)  # it knows no scale and no offset


def test_nothing_lost():
    loss = measure(X, X, np.arange(4) * NS)
    assert loss.max_abs == loss.rmse == loss.nrmse == loss.mean_error == loss.integral_error == 0.0
    assert loss.psnr_db == loss.snr_db == math.inf
    assert loss.pearson == pytest.approx(1.0)


def test_an_offset_is_no_signal():
    """A temperature in kelvin has as much signal as one in degrees Celsius."""
    assert measure(X + 273.15, Y + 273.15).snr_db == pytest.approx(measure(X, Y).snr_db)


def test_a_constant_has_no_range():
    loss = measure(np.full(5, 3.0), np.full(5, 3.5))
    assert (loss.max_abs, loss.rmse) == (0.5, 0.5)
    assert loss.nrmse is loss.psnr_db is loss.snr_db is loss.pearson is loss.acf_error is None
    kept = measure(np.full(5, 3.0), np.full(5, 3.0))
    assert (kept.nrmse, kept.psnr_db) == (0.0, math.inf)


def test_values_near_zero_have_no_percentage():
    loss = measure(np.array([0.0, 0.5, 100.0]), np.array([1.0, 1.0, 101.0]))
    assert loss.mape_percent == pytest.approx(1.0)
    assert loss.mape_left_out == 2
    zeros = measure(np.zeros(3), np.ones(3))
    assert (zeros.mape_percent, zeros.mape_left_out) == (None, 3)


def test_the_same_gaps_are_left_out_and_counted():
    x = np.array([np.nan, 1.0, np.inf, 3.0, -np.inf])
    y = np.array([np.nan, 1.5, np.inf, 3.0, -np.inf])
    loss = measure(x, y, np.arange(5) * NS)
    assert (loss.n, loss.n_left_out, loss.n_differing) == (2, 3, 0)
    assert (loss.max_abs, loss.mean_error) == (0.5, 0.25)
    assert loss.integral_error == 0.5  # from 1 s to 3 s


@pytest.mark.parametrize(
    ("was", "now"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, -np.inf), (np.inf, np.nan), (2.0, np.inf)]
)
def test_other_gaps_are_an_infinite_error(was, now):
    loss = measure(np.array([1.0, was]), np.array([1.5, now]))
    assert (loss.n, loss.n_left_out, loss.n_differing) == (1, 0, 1)
    assert loss.max_abs == loss.rmse == loss.nrmse == loss.mape_percent == math.inf
    assert loss.psnr_db == loss.snr_db == -math.inf
    assert loss.mean_error == 0.5  # of what can be compared


def test_nothing_to_compare():
    loss = measure(np.empty(0), np.empty(0), np.empty(0, np.int64))
    assert (loss.n, loss.max_abs, loss.rmse) == (0, 0.0, 0.0)
    rest = {
        k: v for k, v in loss.to_dict().items() if k not in ("max_abs", "rmse") and not k.startswith("n_")
    }
    assert set(rest.values()) == {0, None}
    assert measure(np.array([np.nan]), np.array([np.nan])).psnr_db is None
    assert measure(np.ones(1), np.zeros(1), np.zeros(1, np.int64)).integral_error == 0.0


def test_small_errors_do_not_vanish():
    loss = measure(np.array([0.0, 1.0]), np.array([3e-200, 1.0]))
    assert loss.rmse == pytest.approx(3e-200 / math.sqrt(2))
    assert loss.psnr_db == pytest.approx(20 * (200 + math.log10(math.sqrt(2) / 3)))


def test_values_at_the_limit_give_no_warnings():
    huge = np.finfo(np.float64).max
    loss = measure(np.array([huge, -huge, 0.0]), np.array([-huge, huge, 0.0]), np.arange(3) * NS)
    assert loss.max_abs == math.inf
    assert not any(isinstance(v, float) and math.isnan(v) for v in loss.to_dict().values())


def test_integers_and_narrow_floats_are_compared_as_float64():
    assert measure(np.array([0, 255], np.uint8), np.array([1, 255], np.uint8)).min_error == 1.0
    assert measure(np.array([0, 1], np.uint8), np.array([1, 0], np.uint8)).max_abs == 1.0
    assert measure(np.array([0.1], np.float32), np.array([0.1])).max_abs == abs(0.1 - float(np.float32(0.1)))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="3 values can't be compared with 4"):
        measure(X[:3], X)
    with pytest.raises(ValueError, match="4 values can't be compared with 4, 3 times"):
        measure(X, X, np.arange(3))


def test_measures_as_a_dictionary():
    loss = measure(X, Y, np.arange(4) * NS)
    assert json.loads(json.dumps(loss.to_dict())) == dataclasses.asdict(loss)
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.rmse = 0.0  # type: ignore[misc]


# --- spectra -------------------------------------------------------------------------------------------

RATE = 12_000.0
T = np.arange(65_536) / RATE


def sine(frequency_hz, amplitude=1.0):
    return amplitude * np.sin(2 * np.pi * frequency_hz * T)


def test_octaves_go_down_from_half_the_rate():
    bands = band_losses(sine(100), sine(100), RATE)
    assert [b.high_hz for b in bands[:4]] == [6000.0, 3000.0, 1500.0, 750.0]
    assert all(upper.low_hz == lower.high_hz for upper, lower in itertools.pairwise(bands))
    assert bands[-1].low_hz == 0.0
    assert bands[-1].high_hz == 4 * RATE / 8192
    assert {b.relative for b in bands} == {0.0}


def test_power_of_sines_is_half_the_square_of_their_amplitudes():
    both = 7.0 + sine(200, 3.0) + sine(4_000, 0.5)
    bands = {round(b.high_hz): b for b in band_losses(both, 7.0 + sine(200, 3.0), RATE)}
    assert bands[6000].original == pytest.approx(0.125, rel=1e-3)
    assert bands[6000].relative == pytest.approx(-1.0, abs=1e-3)  # a codec that smooths loses the tone
    assert bands[375].original == pytest.approx(4.5, rel=1e-3)
    assert bands[375].relative == pytest.approx(0.0, abs=1e-6)


def test_bands_have_the_variance_of_noise():
    noise = np.random.default_rng(5).normal(0, 2.0, 200_000)
    bands = band_losses(noise, noise, 1.0)
    assert sum(b.original for b in bands) == pytest.approx(4.0, rel=0.02)
    assert bands[0].original == pytest.approx(2.0, rel=0.03)  # half the lines


def test_a_band_of_ones_own():
    band = band_loss(sine(1_000) + sine(5_000), sine(1_000), RATE, (900.0, 1_100.0))
    assert band.original == pytest.approx(0.5, rel=1e-3)
    assert band.relative == pytest.approx(0.0, abs=1e-3)
    assert band.to_dict() == {
        "low_hz": band.low_hz, "high_hz": band.high_hz, "original": band.original, "decoded": band.decoded,
        "relative": band.relative,
    }  # fmt: skip
    assert band.low_hz == pytest.approx(900, abs=2)


def test_no_power_has_no_relative_error():
    assert BandLoss(0.0, 1.0, 0.0, 2.0).relative is None


@pytest.mark.parametrize(
    "band", [(3.0, 2.0), (0.1, 0.2), (10.0, 7_000.0), (-5.0, 10.0), (1.0, math.inf), (math.nan, 5.0)]
)
def test_bands_must_be_in_the_spectrum(band):
    with pytest.raises(ValueError, match=r"up to 6000 Hz"):
        band_loss(T, T, RATE, band)


@pytest.mark.parametrize(
    ("n", "other", "rate", "text"),
    [
        (63, 63, 1.0, "63 values make no spectrum"),
        (64, 65, 1.0, "64 values can't be compared with 65"),
        (64, 64, 0.0, "a rate is"),
        (64, 64, math.nan, "a rate is"),
    ],
)
def test_what_has_no_spectrum(n, other, rate, text):
    with pytest.raises(ValueError, match=text):
        band_losses(np.zeros(n), np.zeros(other), rate)


def test_gaps_have_no_spectrum():
    gap = np.where(np.arange(64) == 5, np.nan, 1.0)
    with pytest.raises(ValueError, match="finite"):
        band_losses(gap, gap, 1.0)
