"""What is behind a url: which registers a device has and what they may mean, which units a line has.

Register by register would take hours, so whole blocks are asked for and what is refused is halved, large pieces first.
A scan has a number of requests; what it did not get to is told. What values may mean is a guess, and says so by its
address: texts, and floats in the one byte order in which most of the device's registers make sense.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from headrace.adapters.abilities import FoundTag
from headrace.adapters.modbus.probe import Ask
from headrace.adapters.modbus.reads import GATEWAY, answered_data, block_text, exception_text, read_request
from headrace.adapters.payloads.register_addresses import (
    BIT,
    MAX_BITS,
    MAX_REGISTERS,
    ORDERS,
    STR,
    Area,
    RegisterAddress,
)
from headrace.adapters.payloads.registers import Block
from headrace.core.errors import ConfigError, NotConnected, Rejected
from headrace.core.registry import nearest

AskUnit = Callable[[int, bytes], Awaitable[bytes]]
"""Sends one request (unit, PDU) and gives its answer."""
WANTED = ("device", "url", "areas", "first", "count", "requests", "units")
N_SILENT_MAX = 5
_ILLEGAL_FUNCTION = 1
_TEXT_REGISTERS = 3
_FLOAT_RANGE = (1e-4, 1e7)


@dataclass(frozen=True, slots=True)
class ScanWish:
    """Where to look and how far.

    Parameters
    ----------
    first, count : offsets of each area. n_requests : how many requests it may take. units : to look for, instead.
    """

    areas: tuple[Area, ...] = tuple(Area)
    first: int = 0
    count: int = 1_000
    n_requests: int = 2_000
    units: tuple[int, ...] = ()

    @classmethod
    def of(cls, wanted: Mapping[str, str]) -> ScanWish:
        """From ``areas`` (holding,input), ``first``, ``count``, ``requests``, ``units`` (1-247).

        Raises
        ------
        ConfigError : one of them is not understood.
        """
        for key in wanted:
            if key not in WANTED:
                raise ConfigError(f"a modbus scan knows no {key!r}{nearest(key, list(WANTED))}", key)
        names = [name.strip() for name in wanted.get("areas", ",".join(Area)).split(",")]
        for name in names:
            if name not in list(Area):
                raise ConfigError(f"{name!r} is not one of {', '.join(Area)}", "areas")
        first = _number(wanted, "first", 0, 0, 65_535)
        count = _number(wanted, "count", min(1_000, 65_536 - first), 1, 65_536 - first)
        n_requests = _number(wanted, "requests", 2_000, 1, 1_000_000)
        return cls(tuple(map(Area, names)), first, count, n_requests, _units(wanted.get("units", "")))


def _number(wanted: Mapping[str, str], key: str, default: int, low: int, high: int) -> int:
    text = wanted.get(key, str(default))
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ConfigError(f"{text!r} is not a number from {low:,} to {high:,}", key)
    return int(text)


def _units(text: str) -> tuple[int, ...]:
    """``1-247`` or ``1,2,17`` → the units."""
    out: list[int] = []
    for part in text.split(",") if text else ():
        low, _, high = part.strip().partition("-")
        ends = (low, high or low)
        if not all(end.isdecimal() and int(end) <= 255 for end in ends) or int(ends[0]) > int(ends[1]):
            raise ConfigError(f"{part!r} is no unit; write 1-247, or 1,2,17", "units")
        out += range(int(ends[0]), int(ends[1]) + 1)
    return tuple(dict.fromkeys(out))


@dataclass(slots=True)
class Registers:
    """What a device has, as far as a scan came: values by offset, and blocks that it did not get to."""

    values: dict[Area, dict[int, int]] = field(default_factory=dict)
    unseen: list[Block] = field(default_factory=list)


async def scan_registers(ask: Ask, wish: ScanWish) -> Registers:
    """Read all that a device has.

    Raises
    ------
    NotConnected : it is not there, or answers no more.
    """
    found = Registers({area: {} for area in wish.areas})
    waiting = deque(block for area in wish.areas for block in _blocks(area, wish))
    n_silent = 0
    for _ in range(wish.n_requests):
        if not waiting:
            return found
        block = waiting.popleft()
        answer = await _look(ask, block)
        n_silent = n_silent + 1 if answer is None else 0
        if n_silent >= N_SILENT_MAX:
            raise NotConnected(
                f"{n_silent} requests in a row were not answered, the last one {block_text(block)}"
            )
        if isinstance(answer, bytes):
            found.values[block.area].update(_values(block, answer))
        elif answer == _ILLEGAL_FUNCTION:
            waiting = deque(other for other in waiting if other.area is not block.area)
        elif block.count > 1:
            half = block.count // 2
            waiting.append(Block(block.area, block.start, half))
            waiting.append(Block(block.area, block.start + half, block.count - half))
    found.unseen = list(waiting)
    return found


def _blocks(area: Area, wish: ScanWish) -> Iterator[Block]:
    most, end = MAX_BITS if area.has_bits else MAX_REGISTERS, wish.first + wish.count
    for start in range(wish.first, end, most):
        yield Block(area, start, min(most, end - start))


async def _look(ask: Ask, block: Block) -> bytes | int | None:
    """Data bytes, the code of an exception (0 for an answer that makes no sense), or None for no answer."""
    try:
        pdu = await ask(read_request(block.area, block.start, block.count))
    except TimeoutError:
        return None
    except Rejected:
        return 0
    try:
        return answered_data(block, pdu)
    except ValueError:
        return 0


def _values(block: Block, data: bytes) -> dict[int, int]:
    if block.area.has_bits:
        values = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: block.count].tolist()
    else:
        values = list(struct.unpack(f">{block.count}H", data))
    return dict(zip(range(block.start, block.start + block.count), values, strict=True))


# --- what values may mean ----------------------------------------------------------------------------


def guesses(
    area: Area, values: Mapping[int, int], order: str
) -> dict[int, tuple[RegisterAddress, float | str]]:
    """Texts, and floats in `order`, by their first register; none overlaps another."""
    out: dict[int, tuple[RegisterAddress, float | str]] = {}
    offset = min(values, default=0)
    while offset <= max(values, default=-1):
        text = _text_at(values, offset)
        if len(text) >= 2 * _TEXT_REGISTERS:
            out[offset] = RegisterAddress(area, offset, STR, length=len(text)), text.rstrip()
            offset += (len(text) + 1) // 2
            continue
        value = _float_at(values, offset, order)
        if value is not None:
            out[offset] = RegisterAddress(area, offset, "F32", order=order), value
        offset += 1 if value is None else 2
    return out


def likely_order(tables: Mapping[Area, Mapping[int, int]]) -> str:
    """The byte order in which most pairs of registers are floats that a machine may have; even offsets decide ties."""

    def n_floats(order: str) -> tuple[int, int]:
        found = [guesses(area, values, order) for area, values in tables.items() if not area.has_bits]
        offsets = [at for one in found for at, (address, _) in one.items() if address.type == "F32"]
        return len(offsets), sum(offset % 2 == 0 for offset in offsets)

    return max(ORDERS, key=n_floats)


def _text_at(values: Mapping[int, int], offset: int) -> str:
    out = ""
    while offset in values:
        for byte in (values[offset] >> 8, values[offset] & 0xFF):
            if not 32 <= byte < 127:
                return out
            out += chr(byte)
        offset += 1
    return out


def _float_at(values: Mapping[int, int], offset: int, order: str) -> float | None:
    if offset + 1 not in values or offset not in values:
        return None
    words = [values[offset], values[offset + 1]]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    data = struct.pack("<2H" if order in ("BADC", "DCBA") else ">2H", *words)
    value: float = struct.unpack(">f", data)[0]
    # Counts and states make floats next to zero.
    return value if _FLOAT_RANGE[0] <= abs(value) < _FLOAT_RANGE[1] else None


def found_tags(device: str, found: Registers, ts_ns: int) -> list[FoundTag]:
    """Every register and bit, each guess behind its first register, and what was not looked at."""
    out: list[FoundTag] = []
    order = likely_order(found.values)
    for area, values in found.values.items():
        guessed = {} if area.has_bits else guesses(area, values, order)
        for offset, value in sorted(values.items()):
            one = RegisterAddress(area, offset, BIT if area.has_bits else "U16")
            kind = "discrete" if area.has_bits else "analog"
            name = f"{area}_{offset}"
            out.append(FoundTag(device, name, str(one), one.dtype, kind=kind, value=value, ts_ns=ts_ns))
            if offset in guessed:
                address, meaning = guessed[offset]
                is_text = address.type == STR
                out.append(
                    FoundTag(
                        device, f"{name}_{address.type.lower()}", str(address), "string" if is_text else "f32",
                        kind="discrete" if is_text else "analog", value=meaning, ts_ns=ts_ns,
                    )
                )  # fmt: skip
    problem = "not looked at: the scan has used its requests; scan it by itself, or allow more requests"
    out += [FoundTag(device, "", block_text(block), problem=problem) for block in found.unseen]
    return out


# --- units -------------------------------------------------------------------------------------------


async def scan_units(
    ask: AskUnit, wish: ScanWish, url_of: Callable[[int], str], now_ns: Callable[[], int]
) -> list[FoundTag]:
    """The units that answer, each with its first holding register; an exception is an answer."""
    out = []
    block = Block(Area.HOLDING, 0, 1)
    for unit in wish.units:

        async def ask_it(pdu: bytes, unit: int = unit) -> bytes:
            return await ask(unit, pdu)

        answer = await _look(ask_it, block)
        if answer is None or answer in GATEWAY:
            continue
        value = int.from_bytes(answer, "big") if isinstance(answer, bytes) else None
        problem = ""
        if isinstance(answer, int):
            problem = exception_text(answer) if answer else "it answers what makes no sense"
        out.append(
            FoundTag(
                url_of(unit), f"unit {unit}", "holding:0:U16", "u16" if value is not None else "",
                value=value, ts_ns=now_ns(), problem=problem,
            )
        )  # fmt: skip
    return out
