"""Times that need not be exact: within a declared tolerance they snap to one interval.

A clock that is read by a computer jitters by microseconds to milliseconds that say nothing of the machine. Times are the
multiples of an interval, and levels beside them that change as seldom as the tolerance allows: regular sampling that
jitters within it costs a few bytes for all times, a gap or a clock that drifts a few bytes each. The order of times is
kept, equal ones excepted no two become the same, and where they rise the first and the last are exact: so neighbours in
other chunks can't be passed. Encoding what was decoded adds up tolerances; encode times once.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from headrace.codecs.base import I64, SeriesCodec, Unfit
from headrace.codecs.integers import decode_integers, encode_integers
from headrace.codecs.packing import get_signed, put_signed
from headrace.core.errors import CorruptionError

TOLERANCE_MAX_NS = 2**60
_SPAN_MAX = 2**61
_HEAD = struct.Struct("<Bq")
_UNORDERED, _RISING, _STRICT = 0, 1, 2
_ORDER, _FINE = 3, 4
_FEW = 64


@dataclass(frozen=True, slots=True)
class JitterTime(SeriesCodec):
    """``t0 + i * interval + level[i]``, each within the tolerance of the time that was encoded.

    The body is a byte (bits 0 and 1: 0 in any order, 1 times never fall, 2 each is later than the one before; bit 2:
    levels lie `tolerance_ns` apart, else twice that and 1), t0 as int64; as signed varints the interval and the distance
    of the last time from the first; and the levels' numbers as integers (`headrace.codecs.integers`).

    Parameters
    ----------
    tolerance_ns : how far a time may be from what it was, 0 to 2**60.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> ts_ns = np.arange(1000) * 10**9 + rng.integers(-(10**6), 10**6, 1000)
    >>> codec = JitterTime(tolerance_ns=2_000_000)
    >>> payload = codec.encode(ts_ns)
    >>> len(payload) < 40, bool(np.abs(codec.decode(payload, 1000) - ts_ns).max() <= 2_000_000)
    (True, True)
    """

    tolerance_ns: int
    name: ClassVar[str] = "jitter"

    def __post_init__(self) -> None:
        if not isinstance(self.tolerance_ns, int) or not 0 <= self.tolerance_ns <= TOLERANCE_MAX_NS:
            raise ValueError(
                f"a tolerance of {self.tolerance_ns} ns, a whole number from 0 to 2**60 expected"
            )

    def pack(self, ts_ns: I64) -> bytes:
        """Encode ``ts_ns: int64[n]``; `Unfit` where they span more than 70 years."""
        if not ts_ns.size:
            return b""
        first, last = int(ts_ns[0]), int(ts_ns[-1])
        if int(ts_ns.max()) - int(ts_ns.min()) > _SPAN_MAX:
            raise Unfit("the times lie too far apart")
        order = _order(ts_ns)
        bodies = []
        for interval in _intervals(ts_ns):
            for fine in (False, True) if self.tolerance_ns > 0 else (False,):
                levels = self._levels(ts_ns, interval, fine)
                if levels is not None:
                    head = _HEAD.pack(order | (_FINE if fine else 0), first) + put_signed(interval)
                    bodies.append(head + put_signed(last - first) + encode_integers(levels))
        if not bodies:
            raise Unfit("no interval fits the times")
        return min(bodies, key=len)

    def unpack(self, body: bytes, n: int) -> I64:
        """Decode n times, each within the tolerance of what was encoded."""
        if not body or not n:
            if body or n:
                raise self.damaged(f"{len(body)} bytes for {n} times")
            return np.empty(0, np.int64)
        try:
            flags, first = _HEAD.unpack_from(body)
            interval, at = get_signed(body, _HEAD.size)
            span, at = get_signed(body, at)
            levels = decode_integers(body[at:], n)
        except (struct.error, CorruptionError) as e:
            raise self.damaged(str(e)) from e
        if flags & ~(_ORDER | _FINE) or flags & _ORDER > _STRICT:
            raise self.damaged(f"flags {flags:#x}")
        with np.errstate(over="ignore"):  # levels that no encoder writes may overflow
            times = (
                np.int64(first)
                + np.arange(n) * np.int64(interval)
                + levels * np.int64(self._step(bool(flags & _FINE)))
            )
            last = np.int64(first) + np.int64(span)
            return _ordered(times, flags & _ORDER, np.int64(first), last)

    def _step(self, fine: bool) -> int:
        return self.tolerance_ns if fine else 2 * self.tolerance_ns + 1

    def _levels(self, ts_ns: I64, interval: int, fine: bool) -> I64 | None:
        from headrace.codecs.jitter_kernels import steady_levels

        if abs(interval) * ts_ns.size > _SPAN_MAX:
            return None
        left: I64 = ts_ns - ts_ns[0] - np.arange(ts_ns.size) * np.int64(interval)
        levels = np.empty_like(left)
        steady_levels(left, self.tolerance_ns, self._step(fine), levels)
        return levels


def _order(ts_ns: I64) -> int:
    later = ts_ns[1:] > ts_ns[:-1]
    if later.all():
        return _STRICT
    return _RISING if (later | (ts_ns[1:] == ts_ns[:-1])).all() else _UNORDERED


def _ordered(times: I64, order: int, first: np.int64, last: np.int64) -> I64:
    """The times in the order that what was encoded had, between its ends.

    It takes none further from what it was: where times rise, so do the lowest and the highest that each may be.
    """
    if order == _UNORDERED:
        return times
    least = np.arange(times.size) if order == _STRICT else np.zeros(times.size, np.int64)
    times[0] = first
    times = np.maximum.accumulate(times - least) + least
    out: I64 = np.minimum(times, last - (least[-1] - least))
    out[-1] = last
    return out


def _intervals(ts_ns: I64) -> list[int]:
    """Intervals that may fit: of the whole, of most of it, and of most pairs."""
    n = ts_ns.size
    if n < 2:
        return [0]
    apart = min(n - 1, _FEW)
    found = [
        round((int(ts_ns[-1]) - int(ts_ns[0])) / (n - 1)),
        round(float(np.median(ts_ns[apart:] - ts_ns[:-apart])) / apart),
        int(np.median(np.diff(ts_ns))),
    ]
    return list(dict.fromkeys(found))
