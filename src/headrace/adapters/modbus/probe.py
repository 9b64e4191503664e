"""One look at a device: what the bytes at an address would be in every type and every byte order.

A device's manual rarely says in which order it sends the two registers of a float. Whoever sees all four readings
beside each other knows at once. Pure, but for the transport that is handed in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.adapters.modbus.endpoints import DeviceTls, DeviceUrl, parse_url
from headrace.adapters.modbus.reads import block_text, exception_text, read_request
from headrace.adapters.modbus.transport import ModbusTransport
from headrace.adapters.payloads.register_addresses import (
    MAX_BITS,
    MAX_REGISTERS,
    ORDERS,
    TYPES,
    Area,
    Numbering,
    RegisterAddress,
    elements,
    parse_address,
)
from headrace.adapters.payloads.registers import Block, RegisterTag, compile_read_map
from headrace.core.clock import NS, monotonic_ns
from headrace.core.errors import ConfigError, NotConnected, Rejected
from headrace.core.grids import value_of
from headrace.core.layouts import Column
from headrace.core.registry import nearest

Value = float | int | str | None
Ask = Callable[[bytes], Awaitable[bytes]]
"""Sends one request (PDU) to the device and gives its answer."""

_BITS = 16
_ILLEGAL_ADDRESS = 2


WANTED = ("device", "url", "address", "signal", "count")


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """What is to be looked at: a device by its url, an address in it.

    Parameters
    ----------
    device : its path, or its url where it has none. count : see `probe_block`.
    """

    device: str
    url: DeviceUrl
    address: RegisterAddress
    count: int | None = None

    @classmethod
    def of_url(
        cls,
        wanted: Mapping[str, str],
        numbering: Numbering = Numbering.ZERO,
        tls: DeviceTls | None = None,
    ) -> ProbeTarget:
        """From ``url``, ``address`` and ``count``.

        Raises
        ------
        ConfigError : one of them is missing or wrong.
        """
        check_wanted(wanted)
        address = wanted.get("address", "")
        if not address:
            raise ConfigError("say what to read, as in holding:100 or holding:100:F32;order=CDAB", "address")
        url = parse_url(wanted.get("url", ""), tls)
        return cls(wanted["url"], url, parse_address(address, numbering), count_of(wanted))


def check_wanted(wanted: Mapping[str, str]) -> None:
    """Raise `ConfigError` where a probe is asked for what Modbus does not know."""
    for key in wanted:
        if key not in WANTED:
            raise ConfigError(f"a modbus probe knows no {key!r}{nearest(key, list(WANTED))}", key)


def count_of(wanted: Mapping[str, str]) -> int | None:
    """``count`` as a number. Raises `ConfigError`."""
    text = wanted.get("count")
    if text is not None and not text.isdecimal():
        raise ConfigError(f"{text!r} is not a number of registers", "count")
    return None if text is None else int(text)


async def probe_target(target: ProbeTarget, ask: Ask | None = None) -> dict[str, Any]:
    """Look once; JSON-ready.

    Parameters
    ----------
    ask : over a connection that is there already; None makes one for this.

    Raises
    ------
    NotConnected : no connection, or no answer in time. Rejected : the device refuses.
    """
    endpoint, unit, timeout_s = target.url
    transport = None
    if ask is None:
        transport = await ModbusTransport.connect(endpoint, timeout_s, lambda reason: None)
        made = transport

        async def ask(pdu: bytes) -> bytes:
            return await made.request(unit, pdu, timeout_s)

    began_ns = monotonic_ns()
    try:
        probed = await probe_block(ask, target.address, target.count)
    except TimeoutError as e:
        raise NotConnected(f"unit {unit} of {endpoint} did not answer within {timeout_s:g} s") from e
    finally:
        if transport is not None:
            transport.close()
    return {
        "protocol": "modbus",
        "device": target.device,
        "peer": str(endpoint),
        "unit": unit,
        "area": str(target.address.area),
        "seconds": (monotonic_ns() - began_ns) / NS,
        "connection": "made for this" if transport is not None else "the adapter's",
        **probed.to_dict(target.address),
    }


@dataclass(frozen=True, slots=True)
class ProbedBlock:
    """What a device has from `block.start` on: the data bytes of its answer."""

    block: Block
    data: bytes

    def to_dict(self, address: RegisterAddress) -> dict[str, Any]:
        """Registers (or bits) and every reading of the first value, JSON-ready."""
        if self.block.area.has_bits:
            bits = np.unpackbits(np.frombuffer(self.data, np.uint8), bitorder="little")[: self.block.count]
            return {"first": self.block.start, "bits": bits.tolist(), "hex": self.data.hex(" ")}
        registers = np.frombuffer(self.data, ">u2").tolist()
        return {
            "first": self.block.start,
            "registers": registers,
            "hex": self.data.hex(" ", 2),
            "text": "".join(chr(b) if 32 <= b < 127 else "." for b in self.data),
            "readings": readings_of(self.data),
            "configured": _as_configured(self, address),
        }


def readings_of(data: bytes) -> dict[str, dict[str, Value]]:
    """The value that `data` begins with, by type and byte order; types that need more bytes are left out.

    Not finite floats are None.

    Examples
    --------
    >>> readings_of(bytes.fromhex("42f6e979"))["F32"]["ABCD"]
    123.45600128173828
    """
    out: dict[str, dict[str, Value]] = {}
    for name in TYPES:
        size = int(name[1:]) // 8
        if size > len(data):
            continue
        found: dict[str, Value] = {}
        # One register has no words to swap: CDAB would be ABCD again.
        for order in ORDERS if size > 2 else ("ABCD", "BADC"):
            address = RegisterAddress(Area.HOLDING, 0, name, order=order)
            found[order] = _decoded(address, Block(Area.HOLDING, 0, size // 2), data[:size])
        out[name] = found
    return out


def _decoded(address: RegisterAddress, block: Block, data: bytes) -> Value:
    """One value; None where it is not finite, or no number at all."""
    read_map = compile_read_map([RegisterTag(Column("value"), address)])
    at = address.offset - block.start
    (part,) = read_map.decode(data[2 * at : 2 * (at + address.count)])
    value: float | int = part.values[0, 0].item()
    if part.dictionary is not None:
        return part.dictionary[int(value)]
    return value if part.quality is None else None


def _as_configured(probed: ProbedBlock, address: RegisterAddress) -> dict[str, Any]:
    """What the address itself says: type, order, scale; a list where it stands for several values."""
    if address.count > probed.block.count:
        return {"address": str(address), "value": None}
    values = []
    for one in elements(address):
        value = _decoded(one, probed.block, probed.data)
        if (one.scale != 1.0 or one.add != 0.0) and isinstance(value, float | int):
            value = value_of(value, one.scale, one.add)
        values.append(value)
    return {"address": str(address), "value": values[0] if len(values) == 1 else values}


async def probe_block(ask: Ask, address: RegisterAddress, count: int | None) -> ProbedBlock:
    """Read what is at `address`.

    Parameters
    ----------
    count : registers or bits; None: as many as the largest type has, or fewer where the table ends before.

    Raises
    ------
    ConfigError : `count` is more than one request may have, or passes the end of the table.
    Rejected : the device answers with an exception, or with something else than was asked for.
    TimeoutError, NotConnected : of `ask`.
    """
    is_bits = address.area.has_bits
    most = MAX_BITS if is_bits else MAX_REGISTERS
    if count is not None and not 1 <= count <= min(most, 65_536 - address.offset):
        raise ConfigError(
            f"count {count} is not 1 to {min(most, 65_536 - address.offset)}, what one request may read from there"
        )
    wished = (max(_BITS, address.count), 1) if is_bits else (max(4, address.count), 2, 1)
    sizes = [n for n in ((count,) if count is not None else wished) if n <= 65_536 - address.offset]
    block, pdu = await _read(ask, address, sizes[0])
    for size in sizes[1:]:
        if pdu != bytes((block.area.function | 0x80, _ILLEGAL_ADDRESS)):
            break
        block, pdu = await _read(ask, address, size)  # the table may end here: ask for less
    return ProbedBlock(block, _data(block, pdu))


async def _read(ask: Ask, address: RegisterAddress, count: int) -> tuple[Block, bytes]:
    block = Block(address.area, address.offset, count)
    return block, await ask(read_request(area=block.area, start=block.start, count=block.count))


def _data(block: Block, pdu: bytes) -> bytes:
    if len(pdu) == block.size_bytes + 2 and pdu[:2] == bytes((block.area.function, block.size_bytes)):
        return pdu[2:]
    if len(pdu) == 2 and pdu[0] == block.area.function | 0x80:
        raise Rejected(f"the device answers {exception_text(pdu[1])} when {block_text(block)} is read")
    raise Rejected(
        f"expected function {block.area.function} with {block.size_bytes} data bytes for {block_text(block)}, "
        f"got {pdu[:16].hex(' ')}"
    )
