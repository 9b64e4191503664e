"""Where (group, number, time) stands in a log: sorted runs of hashes, merged as they grow.

Late frames are rare, so nothing is indexed until the first one comes; then the index follows the log at an
amortised cost of a few sorted merges a row (about 50 ns).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.core.frames import Shape
from headrace.core.sensors import SensorDirectory
from headrace.store.frame_log import FrameLog
from headrace.store.series import SeriesMap, hashed

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
WHOLE_FRAME = -1
"""Series number under which a dense frame is indexed: one entry for all its columns."""


class HashRuns:
    """Rows by hash: a few sorted runs, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[tuple[U64, I64]] = []

    def add(self, hashes: U64, rows: I64) -> None:
        """Take in rows and their hashes."""
        while self._runs and len(self._runs[-1][0]) < 2 * len(hashes):
            older, older_rows = self._runs.pop()
            hashes, rows = np.concatenate([older, hashes]), np.concatenate([older_rows, rows])
        order = np.argsort(hashes, kind="stable")
        self._runs.append((hashes[order], rows[order]))

    def find(self, hashes: U64) -> tuple[I64, I64]:
        """Every (index in `hashes`, row) whose hashes are equal."""
        found: list[I64] = []
        rows: list[I64] = []
        for run, run_rows in self._runs:
            first = np.searchsorted(run, hashes, "left")
            count = np.searchsorted(run, hashes, "right") - first
            hit = np.flatnonzero(count)
            if len(hit):
                n = count[hit]
                inside = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
                found.append(np.repeat(hit, n))
                rows.append(run_rows[np.repeat(first[hit], n) + inside])
        if not found:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return np.concatenate(found), np.concatenate(rows)


class TimeIndex:
    """Rows of one log by group, series number and time: frames of a dense log, else values."""

    def __init__(self, log: FrameLog, directory: SensorDirectory, series: SeriesMap) -> None:
        self._log, self._directory, self._series = log, directory, series
        self._runs = HashRuns()
        self._n_rows = 0

    def _keys(self, rows: I64) -> tuple[U64, I64, I64]:
        slot, column, ts_ns = self._log.places(rows)
        if self._log.shape is Shape.DENSE:
            return self._directory.group_id[slot], np.full(len(rows), WHOLE_FRAME), ts_ns
        return self._directory.group_id[slot], self._series.of(slot, column), ts_ns

    def find(self, group: U64, number: I64, ts_ns: I64) -> tuple[I64, I64]:
        """Every (index asked, row) with the asked group, series number and time."""
        log = self._log
        first_ns, last_ns = log.span()
        asked = np.flatnonzero((ts_ns >= first_ns) & (ts_ns <= last_ns))
        if not len(asked):
            return asked, asked
        if self._n_rows < log.n_rows:
            new = np.arange(self._n_rows, log.n_rows)
            self._runs.add(hashed(*self._keys(new)), new)
            self._n_rows = log.n_rows
        key = np.full(len(asked), WHOLE_FRAME) if log.shape is Shape.DENSE else number[asked]
        found, rows = self._runs.find(hashed(group[asked], key, ts_ns[asked]))
        theirs = self._keys(rows)
        same = (
            (theirs[0] == group[asked][found])
            & (theirs[1] == key[found])
            & (theirs[2] == ts_ns[asked][found])
        )
        return asked[found[same]], rows[same]
