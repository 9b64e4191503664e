"""Tables of integers whose rows are found by the hash of a name: the memory of scanners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel

I64 = npt.NDArray[np.int64]

HASH = 3
"""The column that holds the hash of the row's name."""
N_PROBES_MAX = 64
_NONE = -1


@lean_kernel
def insert(buckets: I64, rows: I64, first: int, last: int) -> None:
    """Make rows first:last findable by their hash; a row that finds no place nearby is found in Python only."""
    mask = len(buckets) - 1
    for row in range(first, last):
        for probe in range(N_PROBES_MAX):
            at = (rows[row, HASH] + probe) & mask
            if buckets[at] == _NONE:
                buckets[at] = row
                break


class HashedRows:
    """Rows, and buckets where scanners find them.

    Parameters
    ----------
    n_columns : of a row; `HASH` is one of them.
    """

    def __init__(self, n_columns: int) -> None:
        self.rows = np.full((64, n_columns), _NONE, np.int64)
        self.buckets = np.full(256, _NONE, np.int64)
        self.n = 0

    def add(self, row: Sequence[int]) -> int:
        """Add a row; its number."""
        if self.n == len(self.rows):
            self.rows = np.concatenate([self.rows, np.full_like(self.rows, _NONE)])
        number, self.n = self.n, self.n + 1
        self.rows[number] = row
        if 4 * self.n > len(self.buckets):
            self.buckets = np.full(2 * len(self.buckets), _NONE, np.int64)
            insert(self.buckets, self.rows, 0, self.n)
        else:
            insert(self.buckets, self.rows, number, self.n)
        return number
