"""Fault points: named moments at which a test may end the process or break the disk.

A part that writes takes a `FaultPoints` and says where it is; this one, the default, does nothing. What
kills, crashes or counts lives in `headrace.sim.faults`. The names are a closed list, so that a misspelt one
is refused instead of never being reached.
"""

from __future__ import annotations

POINTS = (
    "journal.write",
    "journal.sync",
    "segment.write",
    "commit.publish",
    "snapshot.write",
    "disk.append",
    "disk.write",
    "disk.sync",
    "disk.put",
    "disk.replace",
    "disk.truncate",
    "disk.delete",
)
"""Every fault point: where the process writes, and the operations of the simulated disk."""


class FaultPoints:
    """No faults: every point is passed without a trace."""

    def reach(self, point: str) -> None:
        """Say that `point` is reached; a subclass may not return."""

    def watches(self, point: str) -> bool:
        """Whether somebody waits at `point`: a writer may then stop half-way, to be killed there."""
        return False
