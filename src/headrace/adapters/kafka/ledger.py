"""Which offsets may be committed: those of the contiguous prefix of each partition that is durable.

The event loop notes what it hands on and what has landed, the thread of the consumer asks what is due and tells what
it has lost: everything here is guarded by one lock. What belongs to a partition that was taken from us is forgotten:
whoever has it now gets it again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Place = tuple[str, int]
"""A topic and the number of a partition of it."""
NO_OFFSET = -1


@dataclass(eq=False, slots=True)
class OffsetSpan:
    """Messages of one partition that were handed on together, up to one offset."""

    partition: PartitionProgress
    last: int
    is_durable: bool = False


@dataclass(eq=False, slots=True)
class PartitionProgress:
    """How far one partition is, while it is ours: offsets of the next message."""

    pending: deque[OffsetSpan] = field(default_factory=deque)
    taken: int = NO_OFFSET
    durable: int = NO_OFFSET
    asked: int = NO_OFFSET
    committed: int = NO_OFFSET
    end: int = NO_OFFSET
    missed: int = NO_OFFSET
    """The first offset that was expected and did not come, until it is explained."""

    @property
    def lag(self) -> int:
        """Messages that are there and not durable here yet, as far as is known."""
        return max(0, self.end - max(self.durable, 0)) if self.end != NO_OFFSET else 0


class OffsetLedger:
    """Keeps the progress of all partitions that are ours."""

    def __init__(self) -> None:
        self._partitions: dict[Place, PartitionProgress] = {}
        self._changed = threading.Condition()
        self.n_gaps = 0
        """How often messages of a partition were gone before they came to us."""

    # --- from the consumer's thread ------------------------------------------------------------------

    def assign(self, places: Iterable[Place], known: Mapping[Place, int] | None = None) -> None:
        """These partitions are ours from now on; `known` is where the group is in them, as far as that is known."""
        with self._changed:
            for place in places:
                at = (known or {}).get(place, NO_OFFSET)
                self._partitions[place] = PartitionProgress(taken=at, durable=at, asked=at, committed=at)

    def revoke(self, places: Iterable[Place]) -> dict[Place, int]:
        """These partitions are ours no more; the offsets that are durable and not known to be committed.

        Those are the last that may be committed of them. A commit that is under way counts as none: it may be refused.
        """
        with self._changed:
            gone = {place: self._partitions.pop(place) for place in places if place in self._partitions}
            return {place: one.durable for place, one in gone.items() if one.durable > one.committed}

    def settle(self, places: Iterable[Place], timeout_s: float) -> None:
        """Wait a little for what was handed on of these partitions to become durable."""
        with self._changed:
            some = [self._partitions[place] for place in places if place in self._partitions]
            self._changed.wait_for(lambda: not any(one.pending for one in some), timeout_s)

    def due(self) -> dict[Place, int]:
        """Offsets to commit; they are not due again unless it fails."""
        with self._changed:
            out = {}
            for place, one in self._partitions.items():
                if one.durable > one.asked:
                    out[place] = one.asked = one.durable
            return out

    def commit_done(self, place: Place, offset: int, is_good: bool) -> None:
        """An offset was committed, or could not be; then it is due again."""
        with self._changed:
            one = self._partitions.get(place)
            if one is None:
                return
            if is_good:
                one.committed = max(one.committed, offset)
            else:
                one.asked = one.committed

    def set_end(self, place: Place, end: int) -> None:
        """Where a partition ends at present."""
        with self._changed:
            one = self._partitions.get(place)
            if one is not None:
                one.end = end

    def missed(self, n_max: int) -> dict[Place, int]:
        """Offsets that were expected and did not come, of so many partitions at most, until they are explained."""
        with self._changed:
            some = [(place, one.missed) for place, one in self._partitions.items() if one.missed != NO_OFFSET]
            return dict(some[:n_max])

    def explain(self, place: Place, is_gap: bool) -> None:
        """Why they did not come is known: messages were deleted, or there were none."""
        with self._changed:
            self.n_gaps += is_gap
            one = self._partitions.get(place)
            if one is not None:
                one.missed = NO_OFFSET

    # --- from the event loop -------------------------------------------------------------------------

    def take(self, slices: Mapping[Place, Sequence[int]]) -> dict[Place, OffsetSpan]:
        """Messages of these offsets, in order, are handed on; partitions that are not ours are left out."""
        with self._changed:
            out = {}
            for place, offsets in slices.items():
                one = self._partitions.get(place)
                if one is None:
                    continue
                first, last = offsets[0], offsets[-1]
                out[place] = span = OffsetSpan(one, last)
                one.pending.append(span)
                next_offset = first if one.taken == NO_OFFSET else min(one.taken, first)
                if last - next_offset >= len(offsets) and one.missed == NO_OFFSET:
                    one.missed = _first_missing(next_offset, offsets)
                one.taken = last + 1
            return out

    def land(self, spans: Iterable[OffsetSpan]) -> None:
        """These are durable now."""
        with self._changed:
            for span in spans:
                span.is_durable = True
                one = span.partition
                while one.pending and one.pending[0].is_durable:
                    one.durable = one.pending.popleft().last + 1
            self._changed.notify_all()

    def progress(self) -> dict[Place, PartitionProgress]:
        """The partitions that are ours, in order."""
        with self._changed:
            return dict(sorted(self._partitions.items()))


def _first_missing(expected: int, offsets: Sequence[int]) -> int:
    """The first offset from `expected` on that is not among `offsets`, which are in order; there is one."""
    return next(before + 1 for before, offset in pairwise((expected - 1, *offsets)) if offset > before + 1)
