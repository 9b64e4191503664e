"""The contract of payload decoders: one message of one topic → rows of its device.

**What a decoder does.** `read` takes the bytes of one message and puts what it finds into `Rows`: for each
instant one row of keys and values (`Rows.add`), for each thing it can't take a refusal (`Rows.refuse`). It does
no I/O, reads no clock, keeps no message and makes no arrays: `Rows` builds the columns for many messages at once.

**Values** are Python's int, float, bool, str, and None for "nothing there". How they become columns is decided
by `Rows`, the same for every format: numbers f64 (i64 where the first one seen needs more than 53 bits), truth
values u8, texts u32 codes with the words beside them.

**Errors.** A message that can't be read as a whole raises `PayloadError` with a closed code before the first
`Rows.add`; the adapter turns it into a reject. What is wrong with one row or value is refused and the rest is
taken. Every value is counted once: as a sample, or in a reject.

**Formats of many samples a message.** A `SliceDecoder` makes columns by itself, of all messages of a slice that came
on one topic: it gives the router a `SliceReader` for each path, and names devices below it as its payload says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import (
    TYPE_CHECKING,
    Annotated,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    overload,
    runtime_checkable,
)

import numpy as np
import numpy.typing as npt
from pydantic import Field

from headrace.core.clock import NO_TIME
from headrace.core.errors import HeadraceError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.settings import Section, SizeBytes

if TYPE_CHECKING:
    from headrace.adapters.payloads.keys import DeviceGroup, DeviceGroups
    from headrace.adapters.payloads.rows import Rows
    from headrace.adapters.payloads.times import TimeReader

SHOWN_KEY_BYTES = 256
ValueType = Literal["f64", "i64", "bool", "string"]
TimeUnit = Literal["auto", "s", "ms", "us", "ns"]


class PayloadError(HeadraceError):
    """A message that can't be taken as a whole."""

    def __init__(self, code: RejectCode, detail: str, n_samples: int = 1) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.n_samples = n_samples


class TopicMessage(NamedTuple):
    """One message as it arrived.

    Parameters
    ----------
    time_ns : the time that its protocol gives it: of samples without one of their own, whenever the message comes;
        `NO_TIME` makes it the arrival. key : of the message, where its protocol has keys.
    place : where in the topic it lies (partition, offset), for the texts of rejects.
    """

    topic: str
    payload: bytes
    arrival_ns: int
    time_ns: int = NO_TIME
    key: bytes | None = None
    place: tuple[int, ...] = ()

    @property
    def source(self) -> str:
        """Where it came from: ``topic``, or ``topic:partition:offset`` and behind it the key, where it has one."""
        parts = [self.topic, *map(str, self.place)]
        if self.key is not None and len(self.key) <= SHOWN_KEY_BYTES:
            try:
                parts.append(self.key.decode())
            except UnicodeDecodeError:
                pass
        return ":".join(parts)


def add_defects(rejects: list[Reject], defects: Iterable[Reject]) -> int:
    """Add the rejects of messages whose frames are refused; how many there are more then.

    A message that a reject keeps whole needs no other: it would be counted, kept and replayed twice.
    """
    kept = {(one.source, one.arrival_ns, one.raw) for one in rejects}
    new = [one for one in defects if (one.source, one.arrival_ns, one.raw) not in kept]
    rejects += new
    return len(new)


class MessageColumns(Sequence[TopicMessage]):
    """Messages of a slice by columns: one is made, once, where somebody asks for it, which few do.

    Parameters
    ----------
    make : makes the message of a number.
    arrivals : gives when each came, int64[n] in ns, where none has a time from its protocol; asked once, where it is needed.
    """

    def __init__(
        self,
        topics: Sequence[str],
        payloads: Sequence[bytes],
        keys: Sequence[bytes | None],
        make: Callable[[int], TopicMessage],
        arrivals: Callable[[], npt.NDArray[np.int64]] | None = None,
    ) -> None:
        self.topics, self.payloads, self.keys = topics, payloads, keys
        self._arrivals = arrivals
        self._make = make
        self._made: dict[int, TopicMessage] = {}

    @cached_property
    def arrivals_ns(self) -> npt.NDArray[np.int64] | None:
        """When each came, int64[n]; None where they have times from their protocol."""
        return None if self._arrivals is None else self._arrivals()

    def __len__(self) -> int:
        return len(self.payloads)

    @overload
    def __getitem__(self, at: int) -> TopicMessage: ...

    @overload
    def __getitem__(self, at: slice) -> list[TopicMessage]: ...

    def __getitem__(self, at: int | slice) -> TopicMessage | list[TopicMessage]:
        number = range(len(self.payloads))[at]
        if isinstance(number, range):
            return [self[i] for i in number]
        made = self._made.get(number)
        if made is None:
            made = self._made[number] = self._make(number)
        return made

    def some(self, which: Sequence[int]) -> MessageColumns:
        """Those of these numbers."""
        topics, payloads, keys = self.topics, self.payloads, self.keys
        return MessageColumns(
            [topics[i] for i in which],
            [payloads[i] for i in which],
            [keys[i] for i in which],
            lambda number: self[which[number]],
            None if self._arrivals is None else lambda: arrivals_of(self)[np.array(which, np.int64)],
        )


def arrivals_of(messages: Sequence[TopicMessage]) -> npt.NDArray[np.int64]:
    """When messages came."""
    if isinstance(messages, MessageColumns) and messages.arrivals_ns is not None:
        return messages.arrivals_ns
    return np.fromiter((message.arrival_ns for message in messages), np.int64, len(messages))


def given_times_of(messages: Sequence[TopicMessage], which: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Times that their protocol gives some messages; `NO_TIME` for none."""
    if isinstance(messages, MessageColumns) and messages.arrivals_ns is not None:
        return np.full(len(which), NO_TIME, np.int64)
    return np.fromiter((messages[i].time_ns for i in which.tolist()), np.int64, len(which))


class RuleSettings(Section):
    """One topic rule: where the values of its messages go and how they are written."""

    path: str = Field(
        description="path of the sensors; {name} from the topic, {key} for the name of each value"
    )
    values: str = Field(
        default="fields",
        description="how the payload is written: fields (JSON), number, csv, line (line protocol), arrow, registers or "
        "sparkplug",
    )
    time: str | None = Field(
        default=None, description="key of the time (nested: a.b); without it the time of arrival"
    )
    time_unit: TimeUnit = Field(
        default="auto", description="of times given as numbers; auto goes by their size"
    )
    root: str = Field(
        default="", description="key (nested: a.b) of the object, or list of objects, that holds the values"
    )
    types: dict[str, ValueType] = Field(
        default_factory=dict, description="value types by key, where not as found"
    )
    units: dict[str, str] = Field(default_factory=dict, description="units by key")
    columns: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(),
        description="keys of the columns of csv (without them the first line names them) and of lists in JSON; of arrow "
        "those to take",
    )
    registers: dict[str, str] = Field(
        default_factory=dict,
        description='addresses in the message by key, for registers: { rpm = "holding:0:F32" }',
    )
    encoding: Literal["bytes", "hex", "base64"] = Field(
        default="bytes", description="how registers are written"
    )
    delimiter: str = Field(default=",", min_length=1, max_length=1, description="between the cells of csv")
    max_keys: int = Field(default=256, ge=1, le=65_535, description="keys of one device; more are refused")
    max_payload: SizeBytes = Field(
        default="1MB", validate_default=True, description="larger messages are refused"
    )


class Decoded(NamedTuple):
    """What became of a slice of messages."""

    batches: list[FrameBatch]
    rejects: list[Reject]


class PayloadDecoder(Protocol):
    """One format; an instance for each topic rule."""

    has_keys: ClassVar[bool]
    """Whether values have names: then the rule's path ends in {key}."""

    def __init__(self, settings: RuleSettings, times: TimeReader) -> None: ...

    def read(self, message: TopicMessage, group: DeviceGroup, rows: Rows) -> None:
        """Put the message's values into `rows`; see the module's text. Raises PayloadError."""
        ...


class SliceReader(Protocol):
    """Reads the messages of one path, for one adapter instance."""

    def read(self, messages: Sequence[TopicMessage]) -> Decoded:
        """Columns of all messages, frames of a device in their order, and rejects. Raises nothing for bad input."""
        ...


class SliceDecoder(Protocol):
    """A format of many samples a message; an instance for each topic rule."""

    has_keys: ClassVar[bool]
    has_places: ClassVar[bool]
    """Whether the payload fills places of the path that the topic does not name."""

    def __init__(self, settings: RuleSettings, times: TimeReader) -> None: ...

    def reader(self, origin: str, groups: DeviceGroups, path: str) -> SliceReader:
        """What reads messages whose topic gives `path`. Raises PayloadError where it can't be one."""
        ...


class MessagePile(NamedTuple):
    """Messages of one rule that are read together, in the order in which they came.

    ``payloads[i]`` is that of ``messages[i]``, whose device is ``devices[numbers[i]]``; ``data`` is all of them together.
    """

    messages: Sequence[TopicMessage]
    payloads: Sequence[bytes]
    data: bytes
    numbers: npt.NDArray[np.int64]
    devices: Sequence[DeviceGroup]


@runtime_checkable
class ManyReader(Protocol):
    """A decoder that reads many messages at once better than one by one."""

    def read_many(self, pile: MessagePile, rows: Rows) -> Sequence[int]:
        """Put what it can of the messages into `rows`; the numbers of those left to `read`, in order.

        All messages of a device are left where one is.
        """
        ...
