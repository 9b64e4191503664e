"""Which offsets may be committed: those of the contiguous prefix of each partition that is durable.

The event loop notes what it hands on and what has landed, the thread of the consumer asks what is due and tells what
it has lost: everything here is guarded by one lock. What belongs to a partition that was taken from us is forgotten:
whoever has it now gets it again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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

    @property
    def lag(self) -> int:
        """Messages that are there and not durable here yet, as far as is known."""
        return max(0, self.end - max(self.durable, 0)) if self.end != NO_OFFSET else 0


class OffsetLedger:
    """Keeps the progress of all partitions that are ours."""

    def __init__(self) -> None:
        self._partitions: dict[Place, PartitionProgress] = {}
        self._changed = threading.Condition()

    # --- from the consumer's thread ------------------------------------------------------------------

    def assign(self, places: Iterable[Place]) -> None:
        """These partitions are ours from now on."""
        with self._changed:
            for place in places:
                self._partitions[place] = PartitionProgress()

    def revoke(self, places: Iterable[Place]) -> None:
        """These partitions are ours no more: nothing of them is committed from now on."""
        with self._changed:
            for place in places:
                self._partitions.pop(place, None)

    def settle(self, places: Iterable[Place], timeout_s: float) -> None:
        """Wait a little for what was handed on of these partitions to become durable."""
        with self._changed:
            some = [self._partitions[place] for place in places if place in self._partitions]
            self._changed.wait_for(lambda: not any(one.pending for one in some), timeout_s)

    def due(self, places: Iterable[Place] | None = None) -> dict[Place, int]:
        """Offsets to commit, of all partitions or some; they are not due again unless it fails."""
        with self._changed:
            out = {}
            for place in self._partitions if places is None else places:
                one = self._partitions.get(place)
                if one is not None and one.durable > one.asked:
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

    # --- from the event loop -------------------------------------------------------------------------

    def take(self, lasts: Mapping[Place, int]) -> dict[Place, OffsetSpan]:
        """Messages up to these offsets are handed on; partitions that are not ours are left out."""
        with self._changed:
            out = {}
            for place, last in lasts.items():
                one = self._partitions.get(place)
                if one is not None:
                    out[place] = span = OffsetSpan(one, last)
                    one.pending.append(span)
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
