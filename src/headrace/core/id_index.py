"""From 64-bit ids to rows: what finds a sensor or group among ten million in microseconds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
_Run = tuple[U64, npt.NDArray[np.uint32]]


class IdIndex:
    """Id → row of the newest definition.

    Sorted runs that are merged while one is less than twice as long as the next, so that adding costs
    O(log n) moves an id however it is done; and a dict for the few that were added last. 12 bytes an id.
    """

    RECENT_MAX = 65_536
    SINGLE_MAX = 1_024
    """More ids than that at once become a run at once, and are looked up in arrays only."""

    def __init__(self) -> None:
        self._runs: tuple[_Run, ...] = ()
        self._recent: dict[int, int] = {}
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def add(self, ids: U64, rows: I64) -> None:
        """Add ids, each once and in rising order; they stand for `rows` from now on."""
        self._n += int(np.count_nonzero(self.find(ids) < 0))
        if len(ids) > self.SINGLE_MAX:
            self._spill()
            self._push((ids.astype(np.uint64), rows.astype(np.uint32)))
            return
        self._recent.update(zip(ids.tolist(), rows.tolist(), strict=True))
        if len(self._recent) > self.RECENT_MAX:
            self._spill()

    def _spill(self) -> None:
        """Make a run of what is in the dict."""
        if self._recent:
            self._push(_sorted(self._recent))
            self._recent = {}

    def _push(self, run: _Run) -> None:
        runs = [*self._runs, run]
        while len(runs) > 1 and len(runs[-2][0]) < 2 * len(runs[-1][0]):
            newer, older = runs.pop(), runs.pop()
            runs.append(_merged(older, newer))
        self._runs = tuple(runs)

    def find_one(self, one: int) -> int:
        """Newest row of an id; -1 where unknown."""
        row = self._recent.get(one)
        if row is not None:
            return row
        wanted = np.uint64(one)
        for known, its_rows in reversed(self._runs):
            at = int(known.searchsorted(wanted))
            if at < len(known) and known[at] == wanted:
                return int(its_rows[at])
        return -1

    def find(self, ids: U64) -> I64:
        """Newest row of each id; -1 where unknown. Many are looked up in rising order, which finds them in the cache."""
        if len(ids) > self.SINGLE_MAX and not (ids[1:] >= ids[:-1]).all():
            order = np.argsort(ids)
            found = np.empty(len(ids), np.int64)
            found[order] = self.find(ids[order])
            return found
        rows = np.full(len(ids), -1, np.int64)
        recent = self._recent
        runs = self._runs
        if recent and len(ids) <= self.SINGLE_MAX:
            rows[:] = [recent.get(one, -1) for one in ids.tolist()]
        elif recent:
            runs = (*runs, _sorted(dict(recent)))
        for known, its_rows in reversed(runs):
            left = np.flatnonzero(rows < 0)
            if not len(left):
                break
            wanted = ids[left]
            at = known.searchsorted(wanted)
            at[at == len(known)] = 0
            hit = known[at] == wanted
            rows[left[hit]] = its_rows[at[hit]]
        return rows


def _sorted(recent: dict[int, int]) -> _Run:
    ids = np.fromiter(recent, np.uint64, len(recent))
    rows = np.fromiter(recent.values(), np.uint32, len(recent))
    order = np.argsort(ids)
    return ids[order], rows[order]


def _merged(older: _Run, newer: _Run) -> _Run:
    """One run of two; of ids in both the newer row."""
    ids = np.concatenate([older[0], newer[0]])
    order = np.argsort(ids, kind="stable")  # two sorted runs: one pass
    ids, rows = ids[order], np.concatenate([older[1], newer[1]])[order]
    last = np.append(ids[1:] != ids[:-1], True)
    return (ids, rows) if last.all() else (ids[last], rows[last])
