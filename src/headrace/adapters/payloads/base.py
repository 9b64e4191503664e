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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import Field

from headrace.core.errors import HeadraceError
from headrace.core.events import RejectCode
from headrace.core.settings import Section, SizeBytes

if TYPE_CHECKING:
    from headrace.adapters.payloads.keys import DeviceGroup
    from headrace.adapters.payloads.rows import Rows
    from headrace.adapters.payloads.times import TimeReader

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
    """One message as it arrived."""

    topic: str
    payload: bytes
    arrival_ns: int


class RuleSettings(Section):
    """One topic rule: where the values of its messages go and how they are written."""

    path: str = Field(
        description="path of the sensors; {name} from the topic, {key} for the name of each value"
    )
    values: str = Field(
        default="fields",
        description="how the payload is written: fields, number, csv, registers or sparkplug",
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
        description="keys of the columns of csv (without them the first line names them), and of lists in JSON",
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


class PayloadDecoder(Protocol):
    """One format; an instance for each topic rule."""

    has_keys: ClassVar[bool]
    """Whether values have names: then the rule's path ends in {key}."""

    def __init__(self, settings: RuleSettings, times: TimeReader) -> None: ...

    def read(self, message: TopicMessage, group: DeviceGroup, rows: Rows) -> None:
        """Put the message's values into `rows`; see the module's text. Raises PayloadError."""
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
