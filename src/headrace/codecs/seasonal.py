"""Differences against one period ago: machine cycles, days, anything that comes back.

Levels are chosen so that they repeat those of the period before wherever the bound allows it, so a cycle whose noise
is below the bound costs its first period and nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from headrace.codecs.base import Unfit
from headrace.codecs.integers import decode_integers, encode_integers
from headrace.codecs.levels import F64, BoundedCodec, Room, usable
from headrace.codecs.packing import get_sized, get_varint, put_sized, put_varint

_PERIOD_MIN, _PERIOD_MAX = 2, 1 << 20
_CANDIDATES = 4
_NEARLY = 1.1


@dataclass(frozen=True, slots=True)
class SeasonalCodec(BoundedCodec):
    """Levels of the first period, then differences from the level a period ago.

    The body is a head byte (`headrace.codecs.levels`; levels are `eps` apart, in variant 1 twice that), the number of
    values and the period as varints, the bytes of the next part, the first period's levels and the differences, both
    as integers.

    Parameters
    ----------
    eps : the bound, in the values' unit, above 0. period : in values; 0: found in each array.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.tile(np.random.default_rng(0).normal(size=100), 50)
    >>> codec = SeasonalCodec(eps=0.01)
    >>> payload = codec.encode(values)
    >>> len(payload) < 150, bool(np.abs(codec.decode(payload, 5000, values.dtype) - values).max() <= 0.01)
    (True, True)
    """

    period: int = 0
    name: ClassVar[str] = "seasonal"
    variant_max: ClassVar[int] = 1

    def __post_init__(self) -> None:
        BoundedCodec.__post_init__(self)
        if self.period and not _PERIOD_MIN <= self.period <= _PERIOD_MAX:
            raise ValueError(
                f"a period of {self.period} values, 0 or {_PERIOD_MIN} to {_PERIOD_MAX:,} allowed"
            )

    def _pack(self, x: F64, room: Room) -> bytes:
        period = self.period or find_period(x)
        if not period or x.size < 2 * period:
            raise Unfit("no period that comes back")
        return min((self._body(x, period, replace(room, variant=v)) for v in range(2)), key=len)

    def _body(self, x: F64, period: int, room: Room) -> bytes:
        from headrace.codecs.seasonal_kernels import repeat_levels

        levels = np.empty(x.size, np.int64)
        repeat_levels(x, usable(self.eps, room.spare), self._step(room), period, levels)
        first = encode_integers(levels[:period])
        changes = encode_integers(levels[period:] - levels[:-period])
        return room.head + put_varint(x.size) + put_varint(period) + put_sized(first) + changes

    def _unpack(self, body: bytes, n: int, room: Room) -> F64:
        from headrace.codecs.seasonal_kernels import add_periods

        size, at = get_varint(body, 0)
        period, at = get_varint(body, at)
        if size != n or not _PERIOD_MIN <= period < n:
            raise self.damaged(f"a period of {period} in {size} values, {n} expected")
        part, at = get_sized(body, at)
        first = decode_integers(part, period)
        levels = np.concatenate((first, decode_integers(body[at:], n - period)))
        add_periods(levels, period)
        return levels.astype(np.float64) * self._step(room)

    def _step(self, room: Room) -> float:
        return (1 + room.variant) * usable(self.eps, room.spare)


def find_period(x: F64) -> int:
    """The shift of ``x: float64[n]`` that leaves least of it, of those where the autocorrelation peaks; 0: none.

    Of a period and its multiples, which leave nearly the same, the shortest is taken. Costs an FFT of twice the values.
    """
    n = x.size
    scale = float(np.abs(x).max())
    x = x / scale if scale > 0.0 else x  # squares of huge values would overflow
    spectrum = np.fft.rfft(x - x.mean(), 1 << (2 * n - 1).bit_length())
    correlation = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[: min(n // 2, _PERIOD_MAX) + 2]
    inner = correlation[1:-1]
    peaks = np.flatnonzero((inner > correlation[:-2]) & (inner >= correlation[2:]) & (inner > 0)) + 1
    peaks = peaks[peaks >= _PERIOD_MIN]
    best = sorted(peaks[np.argsort(-correlation[peaks], kind="stable")[:_CANDIDATES]].tolist())
    left = [float(np.abs(x[shift:] - x[:-shift]).mean()) for shift in best]
    return next((shift for shift, mean in zip(best, left, strict=True) if mean <= _NEARLY * min(left)), 0)
