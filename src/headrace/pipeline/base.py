"""The contract of the pipeline: records in, results out, nothing else.

A shard is a pure state machine. It is handed journal records in order (frame batches of its groups, and
ticks) and answers with what was accepted, what came late, what was derived, and effects that somebody with
hands must carry out. No stage does I/O, reads a clock, or starts a thread; a shard's *now* is the time of
the last tick. So a replay of the journal gives the same results, in a thread, an actor, or a simulation.

A `Stage` is one step of a flow. Frames of one group reach it in increasing time. Its state is packed by
group and follows the sensors when a group gets a new layout. `snapshot` and `restore` are inverse: a shard
restored and fed the same records goes on exactly as the one that was never stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from headrace.core.frames import FrameBatch

Array = npt.NDArray[Any]
NEW, BACK = -1, -2


@dataclass(frozen=True, slots=True)
class Tick:
    """The only way time reaches a shard: journalled every second."""

    now_ns: int


@dataclass(frozen=True, slots=True)
class Revise:
    """Effect: a closed window got late data; compute it again from the stored samples.

    Parameters
    ----------
    flow : name of the pipeline; slot : the source group; start_ns, end_ns : the window.
    """

    flow: str
    slot: int
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class StepResult:
    """What one step gave.

    accepted : frames to store, each group in increasing time.
    late : frames at or below their group's high mark: duplicates, late data or revisions; the store decides.
    derived : new frames of derived groups, in increasing time; revised : new versions of earlier ones.
    effects : to be carried out, after the frames were taken in; late_effects : only where `late` had more than
    duplicates. n_thinned : samples that operators kept out of derived series; they are stored all the same.
    """

    accepted: list[FrameBatch] = field(default_factory=list)
    late: list[FrameBatch] = field(default_factory=list)
    derived: list[FrameBatch] = field(default_factory=list)
    revised: list[FrameBatch] = field(default_factory=list)
    effects: list[Revise] = field(default_factory=list)
    late_effects: list[Revise] = field(default_factory=list)
    n_thinned: int = 0


class Stage(Protocol):
    """One operator of a flow."""

    def process(self, batch: FrameBatch, result: StepResult) -> FrameBatch | None:
        """Take frames in, hand on what flows further (None: nothing); results of other kinds go to `result`."""
        ...

    def late(self, batch: FrameBatch, result: StepResult) -> None:
        """Hear of late frames (they do not flow): a stage whose results they change asks for a revision.

        Only slots and times may be looked at; slots are those that hold the groups' state.
        """
        ...

    def inherit(self, old: Any, slots: tuple[int, int], columns: Array, result: StepResult) -> None:
        """A group got a new layout: take its state over from `old`, the stage that had it (or this one).

        Parameters
        ----------
        slots : the new one and the old one. columns : int64[D], where each new column was; `NEW` for nowhere,
        `BACK` for a sensor that only an earlier layout had.
        """
        ...

    def tick(self, now_ns: int, result: StepResult) -> None:
        """Time went on to `now_ns`."""
        ...

    def snapshot(self) -> bytes:
        """All state, packed."""
        ...

    def restore(self, data: bytes | memoryview) -> None:
        """Take over the state of a snapshot. Raises `CorruptionError`."""
        ...


class Stateless:
    """A stage whose results follow from the frame at hand alone: it only has to `process`."""

    def late(self, batch: FrameBatch, result: StepResult) -> None:
        """Nothing to revise."""

    def inherit(self, old: Any, slots: tuple[int, int], columns: Array, result: StepResult) -> None:
        """Nothing to take over."""

    def tick(self, now_ns: int, result: StepResult) -> None:
        """Nothing depends on time."""

    def snapshot(self) -> bytes:
        """No state."""
        return b""

    def restore(self, data: bytes | memoryview) -> None:
        """No state."""
