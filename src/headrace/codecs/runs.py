"""Bodies of values in runs of one level, shared by `hold` and `piecewise_constant`.

After the head byte comes the number of runs as a varint (0: the level of each value follows as integers); then the
bytes of the next part, the runs' lengths less 1 but for the last one, and the runs' levels, both as integers
(`headrace.codecs.integers`).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from headrace.codecs.base import Unfit
from headrace.codecs.integers import decode_integers, encode_integers
from headrace.codecs.levels import F64, I64, BoundedCodec, Room, usable
from headrace.codecs.packing import get_sized, get_varint, put_sized, put_varint

_RUN_MEAN_MIN, _FEW = 2, 4
_RUNS_FROM, _VALUES_UP_TO = 3, 64
"""Mean lengths from which runs are tried, and up to which the levels of values are: bodies of much repetition."""


class RunsCodec(BoundedCodec):
    """What codecs of runs share: `levels_a_bound` says how close levels lie, `central` which one a run takes."""

    __slots__ = ()
    levels_a_bound: ClassVar[int]
    central: ClassVar[bool]

    def _pack(self, x: F64, room: Room) -> bytes:
        reach = usable(self.eps, room.spare)
        return room.head + runs_body(x, reach, reach / self.levels_a_bound, central=self.central)

    def _unpack(self, body: bytes, n: int, room: Room) -> F64:
        values = runs_values(body, n, usable(self.eps, room.spare) / self.levels_a_bound)
        if values is None:
            raise self.damaged(f"its runs are not of {n} values")
        return values


def runs_body(x: F64, reach: float, step: float, central: bool) -> bytes:
    """The shorter of two bodies of ``x: float64[n]``: runs, or the same levels value by value.

    Parameters are those of `headrace.codecs.run_kernels.longest_runs`.

    Raises
    ------
    Unfit : runs are short, so that rounding each value is better and faster.
    """
    from headrace.codecs.run_kernels import longest_runs

    lengths, levels = np.empty(x.size, np.int64), np.empty(x.size, np.int64)
    count = longest_runs(x, reach, step, central, lengths, levels)
    if x.size > _RUN_MEAN_MIN * _FEW and count * _RUN_MEAN_MIN > x.size:
        raise Unfit(f"{count:,} runs of {x.size:,} values")
    lengths, levels = lengths[:count], levels[:count]
    bodies = []
    if x.size >= _RUNS_FROM * count:
        parts = put_sized(encode_integers(lengths[:-1] - 1)) + encode_integers(levels)
        bodies.append(put_varint(count) + parts)
    if x.size < _VALUES_UP_TO * count:
        bodies.append(put_varint(0) + encode_integers(np.repeat(levels, lengths)))
    return min(bodies, key=len)


def runs_values(body: bytes, n: int, step: float) -> F64 | None:
    """The n numbers of a body; None where its runs do not add up to n."""
    count, at = get_varint(body, 0)
    if not count:
        return decode_integers(body[at:], n).astype(np.float64) * step
    if count > n:
        return None
    part, at = get_sized(body, at)
    lengths = _lengths(decode_integers(part, count - 1), n)
    return None if lengths is None else _written(lengths, decode_integers(body[at:], count), step, n)


def _lengths(shorter: I64, n: int) -> I64 | None:
    """Lengths of all runs from those of all but the last, less 1; None where they are not of n values."""
    if shorter.size and (shorter.min() < 0 or shorter.max() >= n):
        return None
    before = int(shorter.sum()) + shorter.size
    return np.append(shorter + 1, n - before) if before < n else None


def _written(lengths: I64, levels: I64, step: float, n: int) -> F64:
    from headrace.codecs.run_kernels import write_runs

    out = np.empty(n)
    write_runs(lengths, levels, step, out)
    return out
