"""Bodies of values on connected lines, shared by `swing` and `swinging_door`.

After the head byte come the low byte of the number of values, the number of knots and the bytes of the next part as
varints; then the numbers of values between knots but for the last two, and the knots' levels, both as integers
(`headrace.codecs.integers`).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from headrace.codecs.base import Unfit
from headrace.codecs.integers import decode_integers, encode_integers
from headrace.codecs.levels import F64, I64, BoundedCodec, Room, usable
from headrace.codecs.packing import get_sized, get_varint, put_sized, put_varint

_LINE_MEAN_MIN = 3
_FEW = 4


class LinesCodec(BoundedCodec):
    """What codecs of connected lines share: levels `eps` apart; `swing` says which lines (`find_knots`)."""

    __slots__ = ()
    swing: ClassVar[bool]

    def _pack(self, x: F64, room: Room) -> bytes:
        reach = usable(self.eps, room.spare)
        return room.head + lines_body(x, reach, reach, swing=self.swing)

    def _unpack(self, body: bytes, n: int, room: Room) -> F64:
        values = lines_values(body, n, usable(self.eps, room.spare))
        if values is None:
            raise self.damaged(f"its knots are not of {n} values")
        return values


def lines_body(x: F64, reach: float, step: float, swing: bool) -> bytes:
    """The body of ``x: float64[n]``, n at least 1; parameters as of `headrace.codecs.line_kernels.find_knots`.

    Raises
    ------
    Unfit : lines are short, so that rounding each value is better and faster.
    """
    from headrace.codecs.line_kernels import find_knots

    ends, levels = np.empty(x.size, np.int64), np.empty(x.size, np.int64)
    count = find_knots(x, reach, step, swing, ends, levels)
    if x.size > _LINE_MEAN_MIN * _FEW and count * _LINE_MEAN_MIN > x.size:
        raise Unfit(f"{count:,} knots for {x.size:,} values")
    between = np.diff(ends[:count])[:-1] - 1
    return (
        bytes([x.size & 0xFF])
        + put_varint(count)
        + put_sized(encode_integers(between))
        + encode_integers(levels[:count])
    )


def lines_values(body: bytes, n: int, step: float) -> F64 | None:
    """The n numbers of a body; None where its knots are not of n values."""
    from headrace.codecs.line_kernels import write_lines

    count, at = get_varint(body, 1)
    if body[:1] != bytes([n & 0xFF]) or not min(n, 2) <= count <= n:
        return None
    part, at = get_sized(body, at)
    ends = _ends(decode_integers(part, max(count - 2, 0)), n)
    if ends is None:
        return None
    out = np.empty(n)
    write_lines(ends, decode_integers(body[at:], count), step, out)
    return out


def _ends(between: I64, n: int) -> I64 | None:
    """Index of each knot; None where the last but one is not before n - 1."""
    if n == 1:
        return np.zeros(1, np.int64)
    if between.size and (between.min() < 0 or between.max() >= n):
        return None
    ends = np.zeros(between.size + 2, np.int64)
    np.cumsum(between + 1, out=ends[1:-1])
    ends[-1] = n - 1
    return ends if ends[-2] < n - 1 else None
