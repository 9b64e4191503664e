"""The link between the engine and a gateway process: what goes over their socket.

A message is a head of 16 bytes (kind u8, flags u8, two zeros, bytes u32, number u64, little-endian) and its payload:

========  ==========================================================================================
DEFINE    groups not told yet: `SensorDirectory.to_bytes`, as in the journal
FRAMES    `FrameBatch.to_bytes`; slots are the gateway's
REJECT    `headrace.ingest.rejects`
CONTROL   one line of JSON with a ``verb``, then raw bytes that belong to it
========  ==========================================================================================

FRAMES and REJECT are numbered from 1; flag 1 asks to be told when it is durable. ``call, suspend, listen, taken, refused,
credit, durable`` go to the gateway, ``answer, diagnostics, piece, log, bands`` come back. Both ends are of one version of
Headrace and of one user; nobody else can reach the socket.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, cast

from pydantic import TypeAdapter

from headrace.adapters.abilities import Captures, FoundTag, Probes, Redecodes, Retags, Scans, Suspends
from headrace.adapters.base import AdapterDiagnostics, PartlyRejected, Receipt, Receiver
from headrace.core import errors
from headrace.core.disk import Buffer
from headrace.core.errors import CorruptionError, HeadraceError
from headrace.core.problems import InvalidConfig, Problem

_HEAD = struct.Struct("<BBxxIQ")
_READ_BYTES = 4 << 20
_CLOSE_S = 0.2
BYTES_MAX, UNSENT_BYTES_MAX = 1 << 30, 64 << 20
WANTS_ACK = 1
"""The other end waits for word that it is durable."""
ALIVE_S = 2.0
"""A gateway whose adapter has started says how it is at least as often."""

DIAGNOSTICS = TypeAdapter(AdapterDiagnostics)
TAGS = TypeAdapter(list[FoundTag])
RECEIPT = TypeAdapter(Receipt)

_ABILITIES: dict[type[Any], tuple[str, ...]] = {
    Captures: ("listen", "decode_captured"), Probes: ("probe",), Receiver: ("receive",), Redecodes: ("redecode_there",),
    Retags: ("retag",), Scans: ("scan",), Suspends: ("suspend", "proceed"),
}  # fmt: skip
"""What goes over a link, and the methods with which `GatewayAdapter` does it."""


def abilities_of(adapter: object) -> list[str]:
    """Methods for what an adapter can do besides the contract."""
    return [name for kind, names in _ABILITIES.items() if isinstance(adapter, kind) for name in names]


class LinkKind(IntEnum):
    """What a message is."""

    CONTROL = 0
    DEFINE = 1
    FRAMES = 2
    REJECT = 3


@dataclass(frozen=True, slots=True)
class LinkMessage:
    """One message as it came."""

    kind: LinkKind
    flags: int
    number: int
    payload: memoryview

    def control(self) -> tuple[str, dict[str, Any], memoryview]:
        """Verb, fields and raw bytes of a CONTROL message."""
        text, _, _ = bytes(self.payload[: self.number]).partition(b"\n")
        fields = json.loads(text)
        return fields.pop("verb"), fields, self.payload[self.number :]


class GatewayLink:
    """One end of the socket. All on one event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, sock: Any) -> GatewayLink:
        """The end that a connected socket is; closing it closes the socket."""
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=_READ_BYTES))

    async def receive(self) -> LinkMessage | None:
        """The next message; None where the other end is gone. Raises CorruptionError, ValueError : it is none."""
        try:
            kind, flags, n_bytes, number = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
            if n_bytes > BYTES_MAX:
                raise CorruptionError(f"a message of {n_bytes:,} bytes")
            payload = await self._reader.readexactly(n_bytes) if n_bytes else b""
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return LinkMessage(LinkKind(kind), flags, number, memoryview(payload))

    def send(self, kind: LinkKind, parts: Iterable[Buffer], number: int = 0, flags: int = 0) -> None:
        """Send a message; nothing happens where the other end is gone: `receive` tells."""
        data = b"".join(parts)
        if not self._writer.is_closing():
            self._writer.write(_HEAD.pack(kind, flags, len(data), number) + data)

    def control(self, verb: str, blob: Buffer = b"", **fields: Any) -> None:
        """Send a CONTROL message; its number is how long the line of JSON is."""
        text = json.dumps({"verb": verb, **fields}, default=str).encode() + b"\n"
        self.send(LinkKind.CONTROL, (text, blob), len(text))

    @property
    def is_full(self) -> bool:
        """Whether the other end reads nothing, so that much waits to be sent."""
        return self._writer.transport.get_write_buffer_size() > UNSENT_BYTES_MAX

    def close(self) -> None:
        """Let go of the socket, with what was sent sent."""
        self._writer.close()

    async def closed(self) -> None:
        """Wait until the socket is let go of; not for long, where the other end does not take what was sent."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            self._writer.transport.abort()


# --- errors ----------------------------------------------------------------------------------------


def error_fields(error: BaseException) -> dict[str, Any]:
    """An error as JSON-ready fields, for `error_of`."""
    match error:
        case InvalidConfig():
            facts: list[Any] = [[[one.where, one.message] for one in error.problems]]
        case PartlyRejected():
            facts = [str(error), RECEIPT.dump_python(error.receipt, mode="json")]
        case errors.ConfigError():
            facts = [error.message, error.where]
        case errors.RetryLater() | errors.Overloaded():
            facts = [str(error), error.wait_s]
        case HeadraceError():
            facts = [str(error)]
        case _:
            facts = [f"unexpected {type(error).__name__}: {error}"]
    return {"kind": type(error).__name__, "facts": facts}


def error_of(fields: dict[str, Any]) -> HeadraceError:
    """The error that the other end had; one that is none of ours is a `PluginError`."""
    kind, facts = fields["kind"], fields["facts"]
    if kind == "InvalidConfig":
        return InvalidConfig(Problem(where, message) for where, message in facts[0])
    if kind == "PartlyRejected":
        return PartlyRejected(facts[0], RECEIPT.validate_python(facts[1]))
    if not hasattr(errors, kind):
        return errors.PluginError(str(facts[0]))
    return cast("HeadraceError", getattr(errors, kind)(*facts))
