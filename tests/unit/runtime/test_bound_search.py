"""Bounds found by trial: what is printed was measured, and the next bound would not do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from headrace.codecs.base import SeriesCodec, Unfit, keeps_bound, same_bits
from headrace.codecs.loss import measure
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.core.errors import ConfigError, NotFound, PluginError
from headrace.runtime.bound_search import BoundSearch

NS = 1_000_000_000
N = 6_000
RNG = np.random.default_rng(11)
WALK = 50 + np.cumsum(RNG.normal(0, 0.1, N))
TIMES = np.arange(N) * NS


@dataclass(frozen=True, slots=True)
class TinyQuantiser(SeriesCodec):
    """Multiples of a little less than twice the bound."""

    name: ClassVar[str] = "tiny"
    eps: float

    def pack(self, values):
        if not np.isfinite(values).all() or np.abs(values).max() / self.eps > 1e15:
            raise Unfit
        body = RiceDeltaCodec().pack(np.rint(values / (1.99 * self.eps)).astype(np.int64))
        if not keeps_bound(TinyQuantiser.unpack(self, body, values.size, values.dtype), values, self.eps):
            raise Unfit  # the values' own digits are too few
        return body

    def unpack(self, body, n, dtype):
        return (RiceDeltaCodec().unpack(body, n, np.dtype(np.int64)) * (1.99 * self.eps)).astype(dtype)


@dataclass(frozen=True, slots=True)
class Careless(TinyQuantiser):
    """Does not keep what it promises."""

    def unpack(self, body, n, dtype):
        return TinyQuantiser.unpack(self, body, n, dtype) + dtype.type(3 * self.eps)


def search(values=WALK, make=TinyQuantiser, block=2_048):
    return BoundSearch(TIMES[: len(values)], values, make, block)


@pytest.mark.parametrize("target", [8.0, 12.0, 20.0])
def test_the_smallest_bound_of_a_ratio(target):
    finder = search()
    found = finder.for_ratio(target)
    assert target <= found.ratio < target * 1.02
    assert found.ratio == 16 * N / found.size_bytes
    assert finder.attempt(found.eps / 1.03).ratio < target
    assert float(f"{found.eps:.3g}") == found.eps
    assert finder.n_trials < 20
    loss = measure(WALK, found.decoded)
    assert 0 < loss.max_abs <= found.eps


@pytest.mark.parametrize("limit", [0.001, 0.05, 1.0])
def test_the_largest_bound_of_an_error(limit):
    finder = search()
    found = finder.for_rmse(limit)
    assert 0.97 * limit < measure(WALK, found.decoded).rmse <= limit
    assert found.eps > limit  # the error of a quantiser is even: its mean square is a third of the bound's
    assert finder.n_trials < 20


def test_what_is_small_enough_loses_nothing():
    finder = search(np.round(WALK, 0))
    found = finder.for_ratio(10.0)
    assert (found.eps, finder.n_trials, found.n_blocks_lossless) == (0.0, 0, finder.n_blocks)
    assert same_bits(found.decoded, np.round(WALK, 0))


def test_a_ratio_beyond_reach():
    with pytest.raises(
        NotFound, match=r"no bound reaches a ratio of 1e\+06: the largest is .* bytes a sample"
    ):
        search().for_ratio(1e6)
    with pytest.raises(NotFound, match="no bound reaches"):
        search(np.full(10, 7.0)).for_ratio(1e6)


def test_an_error_as_large_as_the_range_and_more():
    span = float(np.ptp(WALK))
    assert measure(WALK, search().for_rmse(10 * span).decoded).rmse <= 10 * span
    assert search(np.zeros(10)).for_rmse(0.5).decoded.tolist() == [0.0] * 10


def test_where_no_loss_is_worth_it_there_is_none():
    found = search(WALK).for_rmse(1e-30)
    assert (found.eps, found.n_blocks_lossless) == (0.0, 3)
    assert same_bits(found.decoded, WALK)


def test_blocks_that_the_codec_can_not_hold_stay_lossless():
    gaps = WALK.copy()
    gaps[2_500] = np.nan  # in the second of three blocks
    found = search(gaps).for_rmse(0.05)
    assert found.n_blocks_lossless == 1
    assert same_bits(found.decoded[2_048:4_096], gaps[2_048:4_096])
    assert measure(gaps, found.decoded).n_differing == 0


def test_narrow_floats_stay_narrow():
    found = search(WALK.astype(np.float32)).for_ratio(12.0)
    assert found.decoded.dtype == np.float32
    assert found.ratio >= 12.0


def test_no_loss_without_a_gain():
    """A bound far below the noise takes more bytes than no loss at all, and then there is none."""
    rounded = np.round(WALK, 1)
    trial = search(rounded).attempt(1e-9)
    assert same_bits(trial.decoded, rounded)
    assert trial.size_bytes == search(rounded).lossless().size_bytes


def test_a_codec_that_breaks_its_bound_is_told():
    with pytest.raises(PluginError, match="codec 'tiny' breaks its bound of 0.1"):
        search(make=Careless).attempt(0.1)


@pytest.mark.parametrize(
    ("values", "text"), [(np.arange(5), "only floats have a bound"), (np.empty(0), "without samples")]
)
def test_what_has_no_bound(values, text):
    with pytest.raises(ConfigError, match=text):
        search(values)
