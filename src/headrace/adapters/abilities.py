"""What an adapter may be able to do besides the contract of `headrace.adapters.base`.

Each ability is a protocol that whoever wants it looks for with ``isinstance``; an adapter without it is told apart
with a plain sentence. None of them stores anything by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from headrace.adapters.base import Sink
from headrace.core.clock import NO_TIME, Clock
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory
from headrace.core.settings import SignalTreatment


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
        wanted : what to look at, in the protocol's own words.

        Returns
        -------
        JSON-ready, with ``protocol``. People are shown its ``facts``, pairs of name and value, and its ``table``,
        ``{"columns": [...], "rows": [[...], ...]}``; a column whose name ends in ``_ns`` holds times.

        A class with a class method ``probe_url(wanted, clock)`` can also look at a source that no adapter has:
        ``wanted["url"]``, whose scheme its manifest names in ``schemes``. ``lends_connection = true`` there sends a
        probe by url to the adapter that has the source already.

        Raises
        ------
        ConfigError : `wanted` is not understood, or names nothing. NotConnected : the source does not answer.
        Rejected : it answers with an error of its own.
        """
        ...


@dataclass(frozen=True, slots=True)
class FoundTag:
    """One thing that a source offers and that could become a sensor.

    Parameters
    ----------
    device : what the source calls the device (node, topic, unit); empty where it knows none.
    name : what the source calls the signal; address : where it is, as the adapter's profiles or rules write it.
    dtype : value type, as in `headrace.core.layouts.DTYPES`, or "string"; empty where it is not known.
    value : what it is now, None where that is not known, of the time `ts_ns`; quality : its quality in words.
    problem : why it can't become a sensor as it is; empty where it can.
    path : of the sensor that it becomes by the adapter's rules alone; empty where it has none.
    """

    device: str
    name: str
    address: str
    dtype: str = ""
    unit: str = ""
    kind: str = "analog"
    value: float | bool | str | None = None
    ts_ns: int = NO_TIME
    quality: str = "good"
    problem: str = ""
    path: str = ""


@runtime_checkable
class Scans(Protocol):
    """Looks for what its source offers, for a person who takes a plant into service."""

    async def scan(self, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """All that is there, in the source's own order; nothing is stored, no group is defined.

        Parameters
        ----------
        wanted : where to look and how far, in the protocol's own words. Raises as `Probes.probe`.
        """
        ...


@dataclass(frozen=True, slots=True)
class TagAddress:
    """Where a signal is, understood.

    Parameters
    ----------
    text : as a profile has it, with its value type where the protocol writes one. dtype : value type of the sensor.
    place : the same for all ways to write the same place.
    """

    text: str
    dtype: str
    place: str


@runtime_checkable
class Addresses(Protocol):
    """Its class can read how its protocol writes where a signal is."""

    @classmethod
    def tag_address(cls, address: str, dtype: str, options: Mapping[str, Any]) -> TagAddress:
        """Understand an address of a tag list.

        Parameters
        ----------
        dtype : value type that the list says, or empty. options : of the adapter's section, where there is one.

        Raises
        ------
        ConfigError : it is no address; the text says what one is.
        """
        ...


@runtime_checkable
class NamesSignals(Protocol):
    """Has profiles that say of single signals what is made of their values.

    What is made of them is not its own work: whoever starts it puts that around it.
    """

    def signals(self) -> Mapping[str, SignalTreatment]:
        """By path, of signals of which more is said than what they are; any time, without I/O."""
        ...


@runtime_checkable
class TakesTags(Protocol):
    """Has rules instead of devices, so that a table of tags says which signals are taken, and under which path."""

    def own_path(self, address: str) -> str:
        """The path that its rules alone give the signal at an address, as a table of tags writes it. Without I/O.

        Raises
        ------
        ConfigError : it is no address, or no rule takes it; the text says what to write.
        """
        ...


@runtime_checkable
class Retags(Protocol):
    """Goes over to other devices and tags while it runs; what stays the same is not disturbed."""

    async def retag(self, new: Any) -> bool:
        """Read from now on what `new` would, without letting go of a connection that it would make again.

        Requests that are on their way end as they began. Devices that are the same in both go on with their
        connections, their moments and their counts; of those whose tags differ only the tags are changed.

        Parameters
        ----------
        new : an instance of the same class that was not started and never will be; it may be taken apart.

        Returns
        -------
        Whether it was done. False where more differs than devices and tags, or nothing runs: nothing was changed,
        and `new` may be started in this one's place.

        Raises
        ------
        ConfigError : another group has one of the sensors; nothing was changed. Rejected, NotConnected : a source that
        must be asked refuses, or does not answer; nothing was changed.
        """
        ...


OWN_PATH = "path:"
"""Begins an address that is the path which the rules alone give the signal."""


class Direction(StrEnum):
    """Which way bytes went."""

    RECEIVED = "received"
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class Captured:
    """Bytes as they went over the wire, before anything was made of them.

    Parameters
    ----------
    ts_ns : when, by the plant's clock. source : topic, device or connection. data : a message, a body, an answer.
    about : what decoding them takes besides, in the protocol's own words; never a secret.
    """

    ts_ns: int
    source: str
    data: bytes
    direction: Direction = Direction.RECEIVED
    about: Mapping[str, str] = field(default_factory=dict)


Listener = Callable[[Captured], None]
"""Called for each piece, on the event loop; it must neither raise nor wait."""


@runtime_checkable
class Captures(Protocol):
    """Lets somebody listen to what it receives, and can make of it again what it did then.

    What is given to a listener holds no secrets: no password, token or key, neither in bytes nor beside them.
    """

    def listen(self, listener: Listener | None) -> None:
        """Call `listener` for each piece from now on, None: nobody any more; while the adapter runs."""
        ...

    def decode_captured(
        self, captured: Sequence[Captured], directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """What the decoder alone, by its present configuration, makes of pieces in the order in which they came.

        No I/O, and no start needed. Raises ConfigError where another group has one of the sensors.
        """
        ...


@runtime_checkable
class Warms(Protocol):
    """Has kernels, which are compiled, or loaded from their cache, before data come in."""

    @classmethod
    def warm(cls) -> None:
        """Decode something in memory, once with each kernel."""
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


@runtime_checkable
class RedecodesElsewhere(Protocol):
    """As `Redecodes`, for an adapter whose decoder is in another process."""

    async def redecode_there(self, reject: Reject) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """What becomes of the input of `reject` today; batches have the slots of the engine's directory.

        Raises
        ------
        NotConnected : that process is away; come again. ConfigError : another group has one of the sensors.
        """
        ...


@runtime_checkable
class Prepares(Protocol):
    """Takes its time to get ready, which it should have before the instance that it replaces is stopped."""

    async def prepare(self, sink: Sink) -> None:
        """Get ready as far as can be beside the old instance; nothing is started. Once, before `start`.

        Parameters
        ----------
        sink : that it will be started with. Nothing is handed on yet, and no group defined.

        Raises
        ------
        ConfigError, PluginError : it can't be started as it is configured. NotConnected : not now.
        """
        ...
