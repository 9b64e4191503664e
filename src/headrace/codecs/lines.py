"""Bodies of values on connected lines, shared by `swing` and `swinging_door`.

After the head byte come the number of knots as a varint, the bytes of the next part, the numbers of values between
knots, and the knots' levels, both as integers (`headrace.codecs.integers`).
"""

from __future__ import annotations

import numpy as np

from headrace.codecs.integers import decode_integers, encode_integers
from headrace.codecs.levels import F64, I64
from headrace.codecs.packing import get_sized, get_varint, put_sized, put_varint


def lines_body(x: F64, reach: float, step: float, swing: bool) -> bytes:
    """The body of ``x: float64[n]``, n at least 1; parameters as of `headrace.codecs.line_kernels.find_knots`."""
    from headrace.codecs.line_kernels import find_knots

    ends, levels = np.empty(x.size, np.int64), np.empty(x.size, np.int64)
    count = find_knots(x, reach, step, swing, ends, levels)
    between = np.diff(ends[:count]) - 1
    return put_varint(count) + put_sized(encode_integers(between)) + encode_integers(levels[:count])


def lines_values(body: bytes, n: int, step: float) -> F64 | None:
    """The n numbers of a body; None where its knots are not of n values."""
    from headrace.codecs.line_kernels import write_lines

    count, at = get_varint(body, 0)
    if not 1 <= count <= n:
        return None
    part, at = get_sized(body, at)
    ends = _ends(decode_integers(part, count - 1), n)
    if ends is None:
        return None
    out = np.empty(n)
    write_lines(ends, decode_integers(body[at:], count), step, out)
    return out


def _ends(between: I64, n: int) -> I64 | None:
    """Index of each knot; None where the last is not at n - 1."""
    if between.size and (between.min() < 0 or between.max() >= n):
        return None
    ends = np.zeros(between.size + 1, np.int64)
    np.cumsum(between + 1, out=ends[1:])
    return ends if ends[-1] == n - 1 else None
