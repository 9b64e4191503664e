"""Numbers by which one connection tells its variables apart (client handles), and which tags they are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.adapters.opcua.messages import Values
from headrace.core.clock import NO_TIME

UNKNOWN = 2**32 - 1
"""The tag of a handle that was never given: of no tag's number."""
GONE, WAITING = -1, -2
Numbers = npt.NDArray[np.int64]


class Handles:
    """Handles of one connection, in the order in which they were given; at first they are the tags' own numbers.

    A variable keeps its handle as long as the connection lives, whatever number its tag has after the adapter's tags
    have changed. None is given twice: what a server still tells of a variable that is not read any more is not taken
    for another's.
    """

    def __init__(self, tags: Iterable[int]) -> None:
        self._handle: Numbers = np.unique(np.array(list(tags), np.int64))
        self._tag: Numbers = self._handle.copy()
        self._next = int(self._handle[-1]) + 1 if len(self._handle) else 0
        self.are_tags = True
        self.n_changes = 0

    @classmethod
    def of(cls, tags: Mapping[int, int]) -> Handles:
        """Handles that are known already: handle → tag."""
        out = cls(tags)
        out.settle(tags)
        out.are_tags = False
        return out

    def give(self, n: int) -> range:
        """Handles of `n` variables that will be tags."""
        given = range(self._next, self._next + n)
        self._next += n
        self._handle = np.append(self._handle, np.arange(given.start, given.stop))
        self._tag = np.append(self._tag, np.full(n, WAITING))
        self.are_tags = self.are_tags and not n
        return given

    def settle(self, tags: Mapping[int, int]) -> None:
        """Say which tags handles are from now on."""
        self._tag[np.searchsorted(self._handle, list(tags))] = list(tags.values())
        self.are_tags = bool((self._tag == self._handle).all())

    def renumber(self, new_of: Numbers) -> list[int]:
        """Tags have other numbers (`GONE` for none): the handles of those that are not read any more."""
        self.n_changes += 1
        at = np.flatnonzero(self._tag >= 0)
        self._tag[at] = new_of[self._tag[at]]
        self.are_tags = bool((self._tag == self._handle).all())
        return [int(one) for one in self._handle[at[self._tag[at] == GONE]]]

    def tag_of(self, handle: int) -> int:
        """The tag of one; below 0 where it is none (now)."""
        return int(self._tag[np.searchsorted(self._handle, handle)])

    @property
    def present(self) -> tuple[list[int], list[int]]:
        """Handles that are tags, and those tags."""
        at = np.flatnonzero(self._tag >= 0)
        return self._handle[at].tolist(), self._tag[at].tolist()

    def tags(self, handles: npt.NDArray[Any] | Sequence[int]) -> Numbers:
        """The tag of each handle: `GONE`, `WAITING`, `UNKNOWN` where there is none."""
        some = np.asarray(handles, np.int64)
        if not len(self._handle):
            return np.full(len(some), UNKNOWN, np.int64)
        at = np.minimum(np.searchsorted(self._handle, some), len(self._handle) - 1)
        return np.where(self._handle[at] == some, self._tag[at], UNKNOWN)

    def take(self, values: Values) -> tuple[Values, Values | None]:
        """Values by handle as values by tag, without those that are not read any more.

        Returns
        -------
        Those of tags (and of handles that nobody was given); and, by handle, those of variables that will be tags.
        """
        if self.are_tags:
            return values, None
        tag = self.tags(values.columns.tag)
        has_tag, waits = tag >= 0, tag == WAITING
        taken = values if has_tag.all() else values.rows(has_tag)
        taken = Values(taken.columns._replace(tag=tag[has_tag].astype(np.uint32)), taken.data)
        return taken, values.rows(waits) if waits.any() else None


class Renewed:
    """Variables with a new item beside the one before: of what that has told, the new one tells nothing again.

    An item tells in order. So what it tells first, up to the last that was told in the old way, is known; what comes
    after that is not looked at any more, whatever its time: clocks are set back.
    """

    def __init__(self) -> None:
        self._handle: Numbers = np.empty(0, np.int64)
        self._told_ns: Numbers = np.empty(0, np.int64)
        self._end_ns = 0

    def begin(self, handles: Sequence[int], told_ns: Numbers, end_ns: int) -> None:
        """New items, and the source's time of what came last of each; by `end_ns` all of it has come once more."""
        known = {*zip(self._handle.tolist(), self._told_ns.tolist(), strict=True)}
        known |= {*zip(handles, told_ns.tolist(), strict=True)}
        pairs = np.array(sorted(known), np.int64).reshape(-1, 2)
        self._handle, self._told_ns = pairs[:, 0].copy(), pairs[:, 1].copy()
        self._end_ns = max(self._end_ns, end_ns)

    def unheard(self, values: Values, now_ns: int) -> Values:
        """Values by handle without what was told before."""
        if not len(self._handle):
            return values
        if now_ns > self._end_ns:
            self._keep(np.zeros(len(self._handle), np.bool_))
            return values
        columns = values.columns
        handle = columns.tag.astype(np.int64)
        at = np.minimum(np.searchsorted(self._handle, handle), len(self._handle) - 1)
        told_ns = self._told_ns[at]
        rows = np.flatnonzero((self._handle[at] == handle) & (columns.source_ns != NO_TIME))
        is_there = columns.source_ns[rows] >= told_ns[rows]
        last = np.full(len(self._handle), len(handle))
        np.minimum.at(last, at[rows[is_there]], rows[is_there])
        is_known = (rows < last[at[rows]]) | (
            (rows == last[at[rows]]) & (columns.source_ns[rows] == told_ns[rows])
        )
        self._keep(last == len(handle))
        unheard = np.ones(len(handle), np.bool_)
        unheard[rows[is_known]] = False
        return values.rows(unheard)

    def _keep(self, some: npt.NDArray[np.bool_]) -> None:
        self._handle, self._told_ns = self._handle[some], self._told_ns[some]
