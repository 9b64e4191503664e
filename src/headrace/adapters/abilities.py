"""What an adapter may be able to do besides the contract of `headrace.adapters.base`.

Each ability is a protocol that whoever wants it looks for with ``isinstance``; an adapter without it is told apart
with a plain sentence. None of them stores anything by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from headrace.core.clock import Clock
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory


@runtime_checkable
class Suspends(Protocol):
    """Waits in place: for an adapter that would begin anew if it were stopped and made again, as files do.

    Others are stopped to pause them, so that a connection is free for whoever works on the device.
    """

    def suspend(self) -> None:
        """Hand on nothing more before `proceed`. May be called twice."""
        ...

    def proceed(self) -> None:
        """Go on where `suspend` came."""
        ...


@runtime_checkable
class Probes(Protocol):
    """Reads its source once, for a person who wants to see what is there."""

    async def probe(self, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """What the source says now; nothing is stored, no group is defined. Also before start and after stop.

        Parameters
        ----------
        wanted : what to look at, in the protocol's own words; the result is JSON-ready and has ``protocol``.

        Raises
        ------
        ConfigError : `wanted` is not understood, or names nothing. NotConnected : the source does not answer.
        Rejected : it answers with an error of its own.
        """
        ...


@runtime_checkable
class Declares(Protocol):
    """Knows its sensors before it has met its source, so that history can be imported into them first."""

    def declare(self, directory: SensorDirectory) -> None:
        """Make the groups known that `start` would; nothing is connected. Also without `start`.

        Raises
        ------
        ConfigError : another group has one of the sensors.
        """
        ...


@runtime_checkable
class Redecodes(Protocol):
    """Decodes refused input once more, by its present configuration."""

    def redecode(
        self, reject: Reject, directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """What becomes of the input of `reject` today: batches, and what is still refused.

        Frames without a time of their own get the time at which the input arrived first, so that decoding it
        twice gives the same frames.
        """
        ...
