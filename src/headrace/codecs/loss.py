"""What a lossy codec has cost: errors of a reconstruction against its original, from single values to spectra.

No one number tells what was lost. The largest error is what a bound promises; RMSE and its relatives (NRMSE, PSNR,
SNR) are what a ratio is usually bought with; bias, extremes and the integral are what reports and energy bills
are made of; the autocorrelation and the power in bands are what diagnosis of machines looks at. All are of
float64 arithmetic, and pure: arrays in, numbers out.

Below, x is the original, y the reconstruction, e = y - x; m(x) is a mean over the samples compared, and the range
is max(x) - min(x). Most definitions are those of Z-checker (Tao, Di, Guo, Chen, Cappello: Z-checker, a framework
for assessing lossy compression of scientific data, IJHPCA 33(2), 2019); where another is followed it is named.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import I64, Array

F64 = npt.NDArray[np.float64]

LAGS = 64
"""Lags that the autocorrelation is compared over."""
NEAR_ZERO = 0.01
"""Share of the largest magnitude below which a value has no sensible percentage error."""
SPECTRUM_MIN = 64
"""Values that a spectrum needs at least."""
_SEGMENT_MAX = 8_192
_BINS_MIN = 4
_PIECE = 8_192
_NS = 1e-9


@dataclass(frozen=True, slots=True)
class Loss:
    """Errors of one reconstruction; None where a measure is not defined.

    Attributes
    ----------
    n : samples compared: finite in both. n_left_out : the same NaN or infinity in both, so nothing was lost.
    n_differing : finite in only one, or another kind of non-finite; any of them makes `max_abs`, `rmse`, `nrmse`
        and `mape_percent` infinite and the ratios in dB minus infinity. What follows is of the samples compared.
    max_abs : max(abs(e)), in the sensor's unit.
    rmse : sqrt(m(e^2)), in the sensor's unit.
    nrmse : rmse / range, a share.
    psnr_db : 20 log10(range / rmse); infinite where nothing was lost.
    snr_db : 10 log10(m((x - m(x))^2) / m(e^2)): a constant offset is no signal. Infinite where nothing was lost.
    mape_percent : 100 m(abs(e / x)) over values of at least `NEAR_ZERO` of the largest magnitude: near zero it has no
        bound (Hyndman, Koehler: Another look at measures of forecast accuracy, IJF 22(4), 2006).
    mape_left_out : how many values were nearer to zero.
    pearson : correlation of x and y, -1 to 1; None where one is constant.
    mean_error : m(e), the bias. min_error, max_error : min(y) - min(x) and max(y) - max(x). In the sensor's unit.
    integral_error : trapezoids under e over the time, in unit times seconds: for power in kW it is in kWs. Gaps of
        samples left out are bridged. None without times.
    integral_share : integral_error as a share of the integral of x; None where that is 0.
    acf_error : max over lags 1 to L of the difference of the autocorrelations r(k) = sum((x(t) - m)(x(t+k) - m)) /
        sum((x(t) - m)^2) (Box, Jenkins, Reinsel: Time series analysis, 2.1). Samples count as evenly spaced.
    """

    n: int
    n_left_out: int
    n_differing: int
    max_abs: float
    rmse: float
    nrmse: float | None
    psnr_db: float | None
    snr_db: float | None
    mape_percent: float | None
    mape_left_out: int
    pearson: float | None
    mean_error: float | None
    min_error: float | None
    max_error: float | None
    integral_error: float | None
    integral_share: float | None
    acf_error: float | None

    def to_dict(self) -> dict[str, Any]:
        """All measures by name."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class BandLoss:
    """What became of the power between two frequencies.

    Parameters
    ----------
    low_hz, high_hz : the band, without its lower and with its upper end.
    original, decoded : power in it, in the sensor's unit squared.
    """

    low_hz: float
    high_hz: float
    original: float
    decoded: float

    @property
    def relative(self) -> float | None:
        """Power gained as a share of what was there, negative where it was lost; None where there was none."""
        return (self.decoded - self.original) / self.original if self.original > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """The band, its powers and the relative error."""
        return dataclasses.asdict(self) | {"relative": self.relative}


def measure(original: Array, decoded: Array, ts_ns: I64 | None = None, lags: int = LAGS) -> Loss:
    """Compare ``decoded: T[n]`` with ``original: T[n]``.

    Parameters
    ----------
    ts_ns : int64[n], their times, in any order; needed for the integral only. lags : compared of the
        autocorrelation, as far as there are so many samples.

    Raises
    ------
    ValueError : the arrays have different lengths.

    Notes
    -----
    Costs about 0.15 us a sample, most of it for the autocorrelation (in proportion to `lags`). Squares of values
    beyond 1e150 overflow: such measures are infinite, or None.

    Examples
    --------
    >>> import numpy as np
    >>> loss = measure(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0, 3.5]))
    >>> loss.max_abs, loss.rmse, loss.mean_error
    (0.5, 0.25, 0.125)
    """
    x, y = _flat(original), _flat(decoded)
    if x.size != y.size or (ts_ns is not None and ts_ns.size != x.size):
        n_times = "" if ts_ns is None else f", {ts_ns.size} times"
        raise ValueError(f"{x.size} values can't be compared with {y.size}{n_times}: give as many of each")
    compared = np.isfinite(x) & np.isfinite(y)
    same = ~compared & ((x == y) | (np.isnan(x) & np.isnan(y)))
    n, n_left_out = int(compared.sum()), int(same.sum())
    n_differing = x.size - n - n_left_out
    if n < x.size:
        x, y = x[compared], y[compared]
        ts_ns = ts_ns if ts_ns is None else ts_ns[compared]
    with np.errstate(over="ignore", invalid="ignore"):
        error = y - x
        pointwise = _pointwise(x, error, is_broken=n_differing > 0)
        whole = _whole(x, y, error)
        integral = _integral(x, error, ts_ns)
        acf_error = _acf_error(x, y, lags)
    return Loss(n, n_left_out, n_differing, *pointwise, *whole, *integral, acf_error)


def band_losses(original: Array, decoded: Array, rate_hz: float) -> tuple[BandLoss, ...]:
    """The power of both in octaves, from half of `rate_hz` downwards, highest first.

    Each band ends where the one above begins, at a half, a quarter, an eighth ... of the highest frequency; where
    an octave would have less than four lines of the spectrum, one last band takes all that is left above 0 Hz.

    Parameters
    ----------
    original, decoded : T[n], evenly spaced, finite, n at least `SPECTRUM_MIN`. rate_hz : samples a second.

    Raises
    ------
    ValueError : too few values, or some not finite; a rate that is none.

    Examples
    --------
    >>> import numpy as np
    >>> wave = np.sin(2 * np.pi * 200 * np.arange(4096) / 1000)
    >>> band = band_losses(wave, wave / 2, rate_hz=1000.0)[1]
    >>> band.low_hz, band.high_hz, round(band.original, 3), round(band.relative, 3)
    (125.0, 250.0, 0.5, -0.75)
    """
    spectra = _spectra(original, decoded, rate_hz)
    high = len(spectra.original) - 1
    edges = [high]
    while high // 2 >= _BINS_MIN:
        high //= 2
        edges.append(high)
    edges.append(0)
    return tuple(_band(spectra, low, high) for high, low in itertools.pairwise(edges))


def band_loss(original: Array, decoded: Array, rate_hz: float, band_hz: tuple[float, float]) -> BandLoss:
    """The power of both in one band, as `band_losses`; as exact as lines of the spectrum allow.

    Raises
    ------
    ValueError : as `band_losses`, and where the band has no line of the spectrum in it.
    """
    spectra = _spectra(original, decoded, rate_hz)
    is_band = 0 <= band_hz[0] < band_hz[1] <= rate_hz / 2
    low, high = (math.floor(f / spectra.line_hz) for f in band_hz) if is_band else (0, 0)
    if low == high:
        raise ValueError(
            f"no band from {band_hz[0]:g} to {band_hz[1]:g} Hz: the spectrum has lines every "
            f"{spectra.line_hz:.3g} Hz up to {rate_hz / 2:g} Hz"
        )
    return _band(spectra, low, high)


# --- errors of values ----------------------------------------------------------------------------------


def _flat(values: Array) -> F64:
    return np.asarray(values, np.float64).reshape(-1)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _rms(values: F64) -> float:
    """Root of the mean square. Scaled by the largest, so that squares of small errors do not vanish."""
    peak = float(np.abs(values).max(initial=0.0))
    if peak == 0.0 or math.isinf(peak):
        return peak
    return peak * math.sqrt(float(np.mean((values / peak) ** 2)))


def _decibel(signal: float, noise: float) -> float | None:
    """20 log10(signal / noise) of amplitudes."""
    if noise == 0.0:
        return math.inf
    if signal == 0.0 or math.isnan(signal):
        return None
    # Logarithms first: the quotient of a large and a tiny amplitude may overflow.
    return -math.inf if math.isinf(noise) else 20.0 * (math.log10(signal) - math.log10(noise))


class _Pointwise(NamedTuple):
    max_abs: float
    rmse: float
    nrmse: float | None
    psnr_db: float | None
    snr_db: float | None
    mape_percent: float | None
    mape_left_out: int


def _pointwise(x: F64, error: F64, is_broken: bool) -> _Pointwise:
    magnitude = np.abs(x)
    peak = float(magnitude.max(initial=0.0))
    counts = (magnitude >= NEAR_ZERO * peak) & (magnitude > 0)
    mape_left_out = x.size - int(counts.sum())
    if is_broken:
        return _Pointwise(math.inf, math.inf, math.inf, -math.inf, -math.inf, math.inf, mape_left_out)
    span = float(x.max() - x.min()) if x.size else 0.0
    rmse = _rms(error)
    nrmse = (rmse / span if span > 0 else 0.0 if rmse == 0 else None) if x.size else None
    mape = float(np.mean(np.abs(error[counts]) / magnitude[counts])) * 100 if counts.any() else None
    deviation = _rms(x - x.mean()) if x.size and span > 0 else 0.0
    return _Pointwise(
        float(np.abs(error).max(initial=0.0)),
        rmse,
        None if nrmse is None else _known(nrmse),
        _decibel(span, rmse) if x.size else None,
        _decibel(deviation, rmse) if x.size else None,
        mape,
        mape_left_out,
    )


# --- errors of the series as a whole -------------------------------------------------------------------


class _Whole(NamedTuple):
    pearson: float | None
    mean_error: float | None
    min_error: float | None
    max_error: float | None


def _whole(x: F64, y: F64, error: F64) -> _Whole:
    if not x.size:
        return _Whole(None, None, None, None)
    return _Whole(
        _correlation(x, y),
        _known(float(error.mean())),
        _known(float(y.min() - x.min())),
        _known(float(y.max() - x.max())),
    )


def _standard(values: F64) -> F64 | None:
    """Deviations from the mean, of root mean square 1; None where there are none."""
    if not values.size or values.min() == values.max():
        return None
    deviation = values - values.mean()
    scale = _rms(deviation)
    return deviation / scale if 0.0 < scale < math.inf else None


def _correlation(x: F64, y: F64) -> float | None:
    u, v = _standard(x), _standard(y)
    if u is None or v is None:
        return None
    return min(1.0, max(-1.0, float(np.mean(u * v))))


def _acf_error(x: F64, y: F64, lags: int) -> float | None:
    u, v = _standard(x), _standard(y)
    most = min(lags, x.size - 1)
    if u is None or v is None or most < 1:
        return None
    return _known(float(np.abs(_lagged(u, most) - _lagged(v, most))[1:].max()) / x.size)


def _lagged(values: F64, lags: int) -> F64:
    """sum(values[t] values[t + k]) for k from 0 to `lags`; piece by piece, so that all lags find them in the cache."""
    total = np.zeros(lags + 1)
    padded = np.concatenate([values, np.zeros(lags)])
    for start in range(0, values.size, _PIECE):
        piece = values[start : start + _PIECE]
        total += np.correlate(padded[start : start + piece.size + lags], piece, "valid")
    return total


def _integral(x: F64, error: F64, ts_ns: I64 | None) -> tuple[float | None, float | None]:
    """The integral of the error, and as a share of that of x. The integral is linear: no two large sums are subtracted."""
    if ts_ns is None or not x.size:
        return None, None
    order = np.argsort(ts_ns, kind="stable")
    step_s = np.diff(ts_ns[order]) * _NS
    lost = _trapezoids(error[order], step_s)
    whole = _trapezoids(x[order], step_s)
    return _known(lost), _known(lost / abs(whole)) if whole != 0.0 else None


def _trapezoids(values: F64, step_s: F64) -> float:
    return float(np.dot((values[1:] + values[:-1]) / 2, step_s))


# --- spectra -------------------------------------------------------------------------------------------


class _Spectra(NamedTuple):
    """Power at each line of the spectrum: number i is at ``i * line_hz``."""

    line_hz: float
    original: F64
    decoded: F64


def _spectra(original: Array, decoded: Array, rate_hz: float) -> _Spectra:
    x, y = _flat(original), _flat(decoded)
    if x.size != y.size:
        raise ValueError(f"{x.size} values can't be compared with {y.size}: give as many of each")
    if x.size < SPECTRUM_MIN:
        raise ValueError(f"{x.size} values make no spectrum: at least {SPECTRUM_MIN} are needed")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a spectrum needs finite values, without gaps")
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise ValueError(f"a rate is a number of samples a second above 0, got {rate_hz:g}")
    # At least seven segments are averaged, the longest that allow it: a power of two for the transform's sake.
    n = min(_SEGMENT_MAX, 1 << int(math.log2(x.size / 4)))
    return _Spectra(rate_hz / n, _power(x, n), _power(y, n))


def _power(values: F64, n: int) -> F64:
    """Power by line, of which the sum is the variance: Welch's method with Hann windows of n, overlapping by half.

    Source: Welch, The use of fast Fourier transform for the estimation of power spectra, IEEE Trans. AU-15(2), 1967.
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    total = np.zeros(n // 2 + 1)
    starts = range(0, values.size - n + 1, n // 2)
    for start in starts:  # one by one: memory for one segment, however long the series
        segment = values[start : start + n]
        transform = np.fft.rfft((segment - segment.mean()) * window)
        total += transform.real**2 + transform.imag**2
    total[1:-1] *= 2  # the lines of negative frequency
    return total / (len(starts) * n * float(np.dot(window, window)))


def _band(spectra: _Spectra, low: int, high: int) -> BandLoss:
    inside = slice(low + 1, high + 1)
    return BandLoss(
        low * spectra.line_hz,
        high * spectra.line_hz,
        float(spectra.original[inside].sum()),
        float(spectra.decoded[inside].sum()),
    )
