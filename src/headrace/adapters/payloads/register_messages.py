"""Raw registers in a message: a gateway's poll of a device, as bytes, or as text in hexadecimal or base64.

The rule's `registers` name the values and where each lies, as the Modbus adapter's profiles do: ``holding:0:F32`` is in
the first two registers *of the message*, ``coil:3`` its fourth bit. A message may be longer than what is named, never
shorter. The time is the message's, else its arrival. Images of one length become columns together.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.base import MessagePile, PayloadError, RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroup, KeyTable
from headrace.adapters.payloads.register_addresses import STR, parse_address
from headrace.adapters.payloads.registers import ReadMap, RegisterTag, RegisterValues, compile_image_map
from headrace.adapters.payloads.rows import Rows
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.events import RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout

N_PLACES_MAX = 4_096
_TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "hex": binascii.unhexlify,
    "base64": lambda text: base64.b64decode(text, validate=True),
}


class RegistersDecoder:
    """The decoder of register images. Cost: about 1 us a message, and 2 ns a value where many come at once."""

    has_keys: ClassVar[bool] = True

    def __init__(self, settings: RuleSettings, times: TimeReader) -> None:
        self._settings = settings
        if settings.time is not None:
            raise ConfigError("registers have no time; remove time")
        self._map = _compile(settings)

    def read(self, message: TopicMessage, group: DeviceGroup, rows: Rows) -> None:
        """Add one row of each value type."""
        image = self._image(message)
        self._add([message], [group], rows, image)

    def read_many(self, pile: MessagePile, rows: Rows) -> Sequence[int]:
        """Read the messages of devices that are known and whose messages are all whole; see `ManyReader`."""
        messages, groups = pile.messages, [pile.devices[number] for number in pile.numbers.tolist()]
        images: list[bytes] = []
        bad: set[int] = set()
        for message, group in zip(messages, groups, strict=True):
            try:
                images.append(self._image(message))
            except PayloadError:
                images.append(b"")
                bad.add(group.number)
        good = [i for i, group in enumerate(groups) if group.number not in bad]
        if good:
            some = [messages[i] for i in good], [groups[i] for i in good]
            self._add(*some, rows, b"".join(images[i] for i in good))
        return [i for i, group in enumerate(groups) if group.number in bad]

    def _image(self, message: TopicMessage) -> bytes:
        """The bytes of a message that are named. Raises PayloadError."""
        data, n_bytes = message.payload, self._map.image_bytes
        if self._settings.encoding != "bytes":
            try:
                data = _TEXTS[self._settings.encoding](data.strip())
            except ValueError as e:
                detail = f"not {self._settings.encoding}: {e}"
                raise PayloadError(RejectCode.MALFORMED, detail, self._map.width) from None
        if len(data) < n_bytes:
            detail = f"{len(data)} bytes, expected at least the {n_bytes} of the last register that is named"
            raise PayloadError(RejectCode.MALFORMED, detail, self._map.width)
        return data[:n_bytes]

    def _add(
        self, messages: Sequence[TopicMessage], groups: Sequence[DeviceGroup], rows: Rows, images: bytes
    ) -> None:
        ts_ns = _arrivals(messages, groups)
        batches: list[FrameBatch] = []
        for part, found in zip(self._map.parts, self._map.decode(images), strict=True):
            places = [self._place(part.layout, *pair, rows) for pair in zip(groups, messages, strict=True)]
            for columns in {id(columns): columns for columns in places if columns is not None}.values():
                at = np.array([i for i, other in enumerate(places) if other is columns])
                some = [groups[i] for i in at.tolist()]
                batches.append(
                    _frames(part.part, some, ts_ns[at], columns, found.take(at)).with_(origin=rows.origin)
                )
        rows.add_batches(batches)

    def _place(
        self, layout: Layout, group: DeviceGroup, message: TopicMessage, rows: Rows
    ) -> npt.NDArray[np.uint16] | None:
        """The columns of a part of a device; None where they were refused."""
        known = rows.workspace(self, dict[tuple[KeyTable, str], npt.NDArray[np.uint16]])
        columns = known.get((group.table, layout.dtype))
        if columns is None:
            try:
                columns = rows.place(group, layout, self._settings)
            except PayloadError as e:
                rows.refuse(message, e.code, e.detail, layout.width)
                return None
            if len(known) >= N_PLACES_MAX:
                known.clear()  # most are of no device any more
            known[group.table, layout.dtype] = columns
        return columns


def _frames(
    part: str, groups: Sequence[DeviceGroup], ts_ns: npt.NDArray[np.int64], columns: npt.NDArray[np.uint16],
    found: RegisterValues,
) -> FrameBatch:  # fmt: skip
    """Rows of devices whose columns of a part are the same; sparse where the part has others."""
    slot = np.array([group.slots[part] for group in groups], np.uint32)
    order = np.argsort(columns)
    values, marks = found.values[:, order], None if found.quality is None else found.quality[:, order]
    if len(columns) == groups[0].table.parts[part].layout.width:
        return FrameBatch.dense(slot, ts_ns, values, marks)
    start, flat = np.arange(len(slot) + 1) * len(columns), None if marks is None else marks.reshape(-1)
    return FrameBatch.sparse(
        slot, ts_ns, values.reshape(-1), start, np.tile(columns[order], len(slot)), quality=flat
    )


def _compile(settings: RuleSettings) -> ReadMap:
    """The map of a rule. Raises ConfigError."""
    if not settings.registers:
        raise ConfigError('values = "registers" need registers = { temperature = "holding:0:F32", ... }')
    tags = []
    for name, text in settings.registers.items():
        address = parse_address(text)
        if address.type == STR or address.n_values > 1:
            raise ConfigError(
                f"registers.{name} = {text!r}: a message's registers are single numbers and bits"
            )
        labels = ("false", "true") if address.dtype == "u8" else ()
        kind = Kind.DISCRETE if address.dtype == "u8" else Kind.ANALOG
        tags.append(RegisterTag(Column(name, kind, settings.units.get(name, ""), labels=labels), address))
    return compile_image_map(tags)


def _arrivals(messages: Sequence[TopicMessage], groups: Sequence[DeviceGroup]) -> npt.NDArray[np.int64]:
    """Times of messages, else their arrivals, each later than the one before of its device."""
    out = np.zeros(len(messages), np.int64)
    for i, (message, group) in enumerate(zip(messages, groups, strict=True)):
        if message.time_ns != NO_TIME:
            out[i] = message.time_ns
            continue
        out[i] = group.last_arrival_ns = max(message.arrival_ns, group.last_arrival_ns + 1)
    return out
