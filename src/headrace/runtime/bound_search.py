"""Which error bound makes a series so small, or keeps it so exact: found by trial on the series itself.

What a codec gains from a bound depends on the series (noise, steps, gaps), so no formula gives it. Bytes fall and
errors grow with the bound, or nearly so, hence a bisection: about a dozen trials. Bounds tried are numbers of three
digits about 1.2 % apart: what is found can be written in a plant file as it stands, and was tried as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import LossyCodec, Unfit, keeps_bound
from headrace.codecs.loss import measure
from headrace.core.errors import ConfigError, NotFound, PluginError
from headrace.runtime.phrases import RAW_BYTES
from headrace.store.warm import CHUNK_SAMPLES, encode_chunk

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
MakeLossy = Callable[[float], LossyCodec]

_STEPS = 200  # bounds tried in a factor of ten
_DEEPEST = 12 * _STEPS  # no bound below 1e-12 of the range: float64 itself has not many more digits
_LOWEST, _HIGHEST = -300 * _STEPS, 300 * _STEPS


@dataclass(frozen=True, slots=True)
class BoundTrial:
    """What a bound has given.

    Parameters
    ----------
    eps : the bound, in the sensor's unit; 0 is lossless. size_bytes : of times and values. n_blocks_lossless : blocks
        that are smaller without loss, or that the codec can't hold. decoded : T[n], what comes back. n_blocks_not_finite : of
        the lossless blocks those that the codec refused and that have NaN or infinities, which no bound can be kept of.
    """

    eps: float
    size_bytes: int
    n_blocks_lossless: int
    decoded: Array
    n_blocks_not_finite: int = 0

    @property
    def ratio(self) -> float:
        """16 bytes a sample (a time and a float of 64 bits) over the bytes there are."""
        return RAW_BYTES * self.decoded.size / self.size_bytes


class _Block(NamedTuple):
    values: Array
    time_bytes: int
    lossless_bytes: int
    is_finite: bool


class BoundSearch:
    """Tries bounds on one series, cut into blocks as the warm tier cuts it.

    Parameters
    ----------
    ts_ns : int64[n]. values : float32[n] or float64[n], n at least 1. make : a codec for a bound; settings other than
        `eps` are its own. block : samples of each block.

    Raises
    ------
    ConfigError : no samples, or values that are not floats: states and counters are never lossy.

    Notes
    -----
    A block that is not smaller for its loss stays lossless. Times count with what surrounds a chunk, so that sizes
    are those of the warm tier within a few bytes a block. Costs an encoding and a decoding of the series a trial.
    """

    def __init__(self, ts_ns: I64, values: Array, make: MakeLossy, block: int = CHUNK_SAMPLES) -> None:
        if values.dtype.kind != "f":
            raise ConfigError(f"values are {values.dtype}: only floats have a bound, all else stays lossless")
        if not values.size:
            raise ConfigError("a series without samples has no bound")
        self.n_trials = 0
        self._values = values
        self._make = make
        self._blocks = [
            _block(ts_ns[i : i + block], values[i : i + block]) for i in range(0, values.size, block)
        ]
        finite = values[np.isfinite(values)].astype(np.float64)
        with np.errstate(over="ignore"):
            self.range = float(finite.max() - finite.min()) if finite.size else 0.0

    @property
    def n_blocks(self) -> int:
        """How many blocks the series is cut into."""
        return len(self._blocks)

    @property
    def time_bytes(self) -> int:
        """Bytes of the times, which no bound makes fewer."""
        return sum(block.time_bytes for block in self._blocks)

    def lossless(self) -> BoundTrial:
        """What the series takes without loss."""
        size_bytes = sum(block.lossless_bytes for block in self._blocks)
        return BoundTrial(0.0, size_bytes, self.n_blocks, self._values)

    def attempt(self, eps: float) -> BoundTrial:
        """Encode and decode all of it with one bound.

        Raises
        ------
        PluginError : the codec breaks its bound.
        """
        self.n_trials += 1
        codec = self._make(eps)
        decoded, size_bytes, n_lossless, n_not_finite = [], 0, 0, 0
        for block in self._blocks:
            coded = _pack(codec, block)
            if coded is None or block.time_bytes + len(coded) >= block.lossless_bytes:
                decoded.append(block.values)
                size_bytes += block.lossless_bytes
                n_lossless += 1
                n_not_finite += coded is None and not block.is_finite
                continue
            back = codec.unpack(coded, block.values.size, block.values.dtype)
            if not keeps_bound(back, block.values, eps):
                raise PluginError(f"codec {codec.name!r} breaks its bound of {eps:g}; don't use it")
            decoded.append(back)
            size_bytes += block.time_bytes + len(coded)
        return BoundTrial(eps, size_bytes, n_lossless, np.concatenate(decoded), n_not_finite)

    def for_ratio(self, target: float) -> BoundTrial:
        """The smallest bound found whose ratio is at least `target`; the lossless trial where none is needed.

        Raises
        ------
        NotFound : a bound as large as the range does not reach it either.
        """
        exact = self.lossless()
        if exact.ratio >= target:
            return exact
        best = self.attempt(_eps(self._top())) if self.range > 0 else exact
        if best.ratio < target:
            raise NotFound(
                f"no bound reaches a ratio of {target:g}: the largest is {best.ratio:.3g}, {self._limit(best)}; "
                f"times alone take {self.time_bytes / self._values.size:.3g} bytes a sample"
            )
        lower, upper = max(_LOWEST, self._top() - _DEEPEST), self._top()
        while upper - lower > 1:
            middle = (lower + upper) // 2
            trial = self.attempt(_eps(middle))
            if trial.ratio >= target:
                upper, best = middle, trial
            else:
                lower = middle
        return best

    def for_rmse(self, limit: float) -> BoundTrial:
        """The largest bound found whose root mean square error is at most `limit`, above 0.

        It is the lossless trial where no block is smaller for its loss.
        """
        lower, upper = _steps_below(limit), self._top()
        best = self.attempt(_eps(lower))  # no error is larger than the bound, so their mean is not
        while upper - lower > 1:
            middle = (lower + upper + 1) // 2
            trial = self.attempt(_eps(middle))
            if measure(self._values, trial.decoded, lags=0).rmse <= limit:
                lower, best = middle, trial
            else:
                upper = middle
        if best.n_blocks_lossless < self.n_blocks:
            return best
        return replace(self.lossless(), n_blocks_not_finite=best.n_blocks_not_finite)

    def _limit(self, widest: BoundTrial) -> str:
        """Why a bound as large as the range makes a series no smaller."""
        n = widest.n_blocks_not_finite if widest.eps else sum(not block.is_finite for block in self._blocks)
        if not n:
            return "where the values are all but gone"
        return f"since values that are not finite keep {n:,} of {self.n_blocks:,} blocks lossless"

    def _top(self) -> int:
        """Step of a bound at which nothing of the values needs to be left."""
        return 1 + _steps_below(self.range)


def _eps(steps: int) -> float:
    return float(f"{10 ** (steps / _STEPS):.3g}")


def _steps_below(value: float) -> int:
    """The step of the largest bound that is not above `value`."""
    steps = math.floor(_STEPS * math.log10(value)) if 0 < value < math.inf else _HIGHEST if value else _LOWEST
    steps = max(_LOWEST, min(_HIGHEST, steps))
    return steps - 1 if _eps(steps) > value else steps  # three digits may round up


def _block(ts_ns: I64, values: Array) -> _Block:
    nothing = np.zeros(values.size, np.uint8)
    time_bytes, lossless_bytes = (len(encode_chunk(ts_ns, v, None)[0]) for v in (nothing, values))
    return _Block(values, time_bytes, lossless_bytes, bool(np.isfinite(values).all()))


def _pack(codec: LossyCodec, block: _Block) -> bytes | None:
    """The values with the codec, where it can hold them."""
    try:
        return codec.pack(block.values)
    except Unfit:
        return None
