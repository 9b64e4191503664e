"""Runs of one level, or of one value: found and written out again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

FAR = 2.0**60
"""Further than any level."""


@lean_kernel
def longest_runs(x: F64, reach: float, step: float, central: bool, lengths: I64, levels: I64) -> int:
    """Cut ``x: float64[n]`` into as few runs as have one level ``levels[r] * step`` within `reach` of all values.

    A run goes on while the levels near its values have one in common; no other cut has fewer runs.

    Parameters
    ----------
    reach : distance of a level from a value at most. step : distance of levels, at most `reach`. central : which of
        the levels that a run's values have in common is taken: the one in their middle, or the one nearest to the
        level before. lengths, levels : int64[n], filled.

    Returns
    -------
    int : runs, at most n.
    """
    runs = 0
    first = 0
    low, high, level = -FAR, FAR, np.rint(x[0] / step)
    for i in range(len(x)):
        lowest, highest = np.ceil((x[i] - reach) / step), np.floor((x[i] + reach) / step)
        if lowest > high or highest < low:
            level = np.floor((low + high) / 2) if central else min(max(level, low), high)
            levels[runs] = np.int64(level)
            lengths[runs] = i - first
            runs += 1
            first, low, high = i, lowest, highest
        else:
            low, high = max(low, lowest), min(high, highest)
    levels[runs] = np.int64(np.floor((low + high) / 2) if central else min(max(level, low), high))
    lengths[runs] = len(x) - first
    return runs + 1


@lean_kernel
def write_runs(lengths: I64, levels: I64, step: float, out: F64) -> None:
    """Inverse of `longest_runs`; the lengths, from 1 on, must add up to ``out: float64[n]``."""
    at = 0
    for r in range(len(lengths)):
        value = levels[r] * step
        for i in range(at, at + lengths[r]):
            out[i] = value
        at += lengths[r]


@lean_kernel
def runs_of_few(words: U64, lengths: I64, numbers: I64, known: U64) -> int:
    """Cut words into runs of equal ones, of a few different words.

    Parameters
    ----------
    lengths, numbers : int64[runs], filled: how long each run is, and which of the different words it has. known : filled with
        these, in the order in which they come first.

    Returns
    -------
    int : how many different words there are; -1 where they are more than `known` has room for.
    """
    n, r, first, which = 0, 0, 0, 0
    for i in range(len(words)):
        if i > 0 and words[i] == words[i - 1]:
            continue
        if i > 0:
            lengths[r] = i - first
            r, first = r + 1, i
        which = 0
        while which < n and known[which] != words[i]:
            which += 1
        if which == n:
            if n == len(known):
                return -1
            known[n] = words[i]
            n += 1
        numbers[r] = which
    lengths[r] = len(words) - first
    return n
