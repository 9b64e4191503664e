"""The shard: the unit of state, order, checkpoint, placement and recovery; a pure state machine.

Records of the journal go in, in order; what was accepted, derived, late, and effects come out. The same class
runs in a thread of the embedded engine and in the seeded simulation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import xxhash

from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch
from headrace.pipeline.base import Revise, Stage, StepResult, Tick
from headrace.pipeline.packing import pack_parts, unpack_parts

_FOREIGN = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""What comes of state whose checksum is right and whose content is somebody else's."""


class Branch(Protocol):
    """What a shard hands accepted frames to: one pipeline's part in the shard."""

    def process(self, batch: FrameBatch, result: StepResult) -> None:
        """Run accepted frames."""
        ...

    def late(self, batch: FrameBatch, result: StepResult) -> None:
        """Hear of late frames; what follows only if they are no duplicates goes to ``result.late_effects``."""
        ...

    def tick(self, now_ns: int, result: StepResult) -> None:
        """Time went on."""
        ...

    def recompute(self, effects: Sequence[Revise], frames: Mapping[int, FrameBatch]) -> list[FrameBatch]:
        """Compute windows again from all their stored frames."""
        ...

    def snapshot(self) -> bytes:
        """All state."""
        ...

    def restore(self, data: bytes | memoryview) -> None:
        """Take over a snapshot."""
        ...


class Order(Stage, Protocol):
    """What puts a shard's frames in order."""

    def turns(self, batch: FrameBatch) -> list[FrameBatch]:
        """Parts of a batch that are to be stepped through, and kept, one after the other."""
        ...


class Shard:
    """One shard.

    Parameters
    ----------
    number : which one. order : the stage that puts frames in order; branches : one for each pipeline.
    """

    def __init__(self, number: int, order: Order, branches: dict[str, Branch]) -> None:
        self.number = number
        self._order = order
        self._branches = branches
        self.now_ns = 0

    def turns(self, record: FrameBatch) -> list[FrameBatch]:
        """Parts of a record to `step` through one after the other, what one gives kept before the next: nearly always the whole."""
        return self._order.turns(record)

    def step(self, records: Sequence[FrameBatch | Tick]) -> StepResult:
        """Take records in journal order; everything that follows from them."""
        result = StepResult()
        for record in records:
            if isinstance(record, Tick):
                self.now_ns = record.now_ns
                for branch in self._branches.values():
                    branch.tick(record.now_ns, result)
                continue
            n_late = len(result.late)
            accepted = self._order.process(record, result)
            if accepted is not None:
                result.accepted.append(accepted)
                for branch in self._branches.values():
                    branch.process(accepted, result)
            for late in result.late[n_late:]:
                for branch in self._branches.values():
                    branch.late(late, result)
        return result

    def recompute(self, effects: Sequence[Revise], frames: Mapping[int, FrameBatch]) -> list[FrameBatch]:
        """Carry out revisions of one span.

        Parameters
        ----------
        frames : by slot, all frames of the group in the span, in time order, in the source's own type; groups
        that have none may be missing.

        Returns
        -------
        New versions of derived frames.
        """
        out: list[FrameBatch] = []
        for name, branch in self._branches.items():
            mine = [e for e in effects if e.flow == name and e.slot in frames]
            out += branch.recompute(mine, frames) if mine else []
        return out

    @property
    def branches(self) -> Mapping[str, Branch]:
        """The pipelines' parts by name."""
        return self._branches

    def rebranch(self, branches: dict[str, Branch]) -> None:
        """Go on with other pipelines; between two records, at a place that the journal knows."""
        self._branches = branches

    def snapshot(self) -> bytes:
        """All state at this point of the journal."""
        head = self.now_ns.to_bytes(8, "little", signed=True)
        names = "\x00".join(self._branches).encode()
        parts = [b.snapshot() for b in self._branches.values()]
        data = pack_parts([head, names, self._order.snapshot(), *parts])
        return data + xxhash.xxh3_64_digest(data)

    def restore(self, data: bytes | memoryview) -> None:
        """Take over a snapshot; pipelines that are gone are passed over, new ones start empty.

        Raises
        ------
        CorruptionError : the bytes are not what `snapshot` gave.
        """
        try:
            self._restore(_parts(data))
        except _FOREIGN as e:
            raise CorruptionError(f"{len(data):,} bytes are no state of this shard: {e!r}") from e

    def _restore(self, parts: list[memoryview]) -> None:
        head, _, order, *_ = parts
        self.now_ns = int.from_bytes(head, "little", signed=True)
        self._order.restore(order)
        for name, part in _named(parts).items():
            if name in self._branches:
                self._branches[name].restore(part)


def branch_states(data: bytes | memoryview) -> dict[str, memoryview]:
    """What a snapshot of a shard has of each pipeline, by name.

    Raises
    ------
    CorruptionError : the bytes are not what `Shard.snapshot` gave.
    """
    try:
        return _named(_parts(data))
    except _FOREIGN as e:
        raise CorruptionError(f"{len(data):,} bytes are no state of a shard: {e!r}") from e


def _parts(data: bytes | memoryview) -> list[memoryview]:
    body, digest = memoryview(data)[:-8], memoryview(data)[-8:]
    if xxhash.xxh3_64_digest(body) != digest:
        raise CorruptionError(f"the checksum of {len(data):,} bytes of a shard's state does not match")
    return unpack_parts(body)


def _named(parts: list[memoryview]) -> dict[str, memoryview]:
    _, names, _, *states = parts
    return dict(zip(bytes(names).decode().split("\x00"), states, strict=False))
