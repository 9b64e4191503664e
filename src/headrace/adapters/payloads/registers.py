"""Register images → columns: tag addresses, read planning, and a decoder for many polls at once.

A device is polled in *blocks* (one request each); the data bytes of a poll's responses, joined in block order,
are its *image*, which has the same size every time. A `ReadMap` is compiled once from the tags: for each value
type the blocks' bytes it needs and the columns they become. `ReadMap.decode` then takes the images of many
polls (or the raw responses, where a device has one block) joined in one buffer.

Tag addresses are ``area:offset[.bit][:TYPE][;order=ABCD][;scale=0.1][;add=-40]``: areas `holding`, `input`,
`coil`, `discrete`; types U16 I16 U32 I32 U64 I64 F32 F64. Orders are always four letters. ABCD is big-endian as
Modbus has it, CDAB has the words swapped, BADC the bytes of each word, DCBA both; for 64-bit types they mean the
same: big, word-swapped, byte-swapped, little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import ConfigError
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.quality import Quality

MAX_REGISTERS = 125
MAX_BITS = 2_000
ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
TYPES = ("U16", "I16", "U32", "I32", "U64", "I64", "F32", "F64")
BIT = "BIT"
_ADDRESS = re.compile(r"([a-z]+):(\d+)(?:\.(\d+))?(?::([A-Za-z]+\d*))?((?:;[a-z]+=[^;]+)*)")
_GRAMMAR = "area:offset[.bit][:TYPE][;order=ABCD|CDAB|BADC|DCBA][;scale=][;add=], for example holding:100:F32;order=CDAB"


class Area(StrEnum):
    """The four tables of a Modbus device."""

    COIL = "coil"
    DISCRETE = "discrete"
    HOLDING = "holding"
    INPUT = "input"

    @property
    def function(self) -> int:
        """The function code that reads it."""
        return _FUNCTIONS[self]

    @property
    def has_bits(self) -> bool:
        """Whether its items are single bits."""
        return self in (Area.COIL, Area.DISCRETE)


_FUNCTIONS = {Area.COIL: 1, Area.DISCRETE: 2, Area.HOLDING: 3, Area.INPUT: 4}
_MODICON = {0: Area.COIL, 1: Area.DISCRETE, 3: Area.INPUT, 4: Area.HOLDING}


class Numbering(StrEnum):
    """How a plant's documents count registers; declared once for an adapter, printed back as `ZERO`."""

    ZERO = "zero"
    """``holding:0`` is the first register, as on the wire."""
    ONE = "one"
    """``holding:1`` is the first register."""
    MODICON = "modicon"
    """``40001`` (or ``400001``) is the first holding register, ``30001`` the first input register."""


@dataclass(frozen=True, slots=True)
class RegisterAddress:
    """Where one value lies in a device.

    Parameters
    ----------
    offset : first register or bit, from 0 as on the wire.
    type : U16 … F64, or BIT (a coil, or one bit of a register).
    bit : which bit of a register, 0 is the least significant; None for whole values.
    order : byte order of the value.
    scale, add : engineering value = raw * scale + add.
    """

    area: Area
    offset: int
    type: str
    bit: int | None = None
    order: str = "ABCD"
    scale: float = 1.0
    add: float = 0.0

    @property
    def count(self) -> int:
        """Registers (or bits of a bit area) that the value takes."""
        return 1 if self.type == BIT else int(self.type[1:]) // 16

    @property
    def dtype(self) -> str:
        """Value type of the column: bits are u8."""
        return "u8" if self.type == BIT else self.type.lower()

    def __str__(self) -> str:
        """The normalised form: type and, for more than one register, order always written out."""
        out = f"{self.area}:{self.offset}"
        if self.bit is not None:
            out += f".{self.bit}"
        elif self.type != BIT:
            out += f":{self.type}"
        if self.count > 1 or self.order != "ABCD":
            out += f";order={self.order}"
        if self.scale != 1.0:
            out += f";scale={self.scale}"
        return out + (f";add={self.add}" if self.add != 0.0 else "")


def parse_address(text: str, numbering: Numbering = Numbering.ZERO) -> RegisterAddress:
    """Read a tag address.

    Raises
    ------
    ConfigError : not an address; the text says which part is wrong and what is allowed.
    """
    plain = re.fullmatch(r"(\d{5,6})(.*)", text) if numbering is Numbering.MODICON else None
    if plain is not None:
        text = _from_modicon(text, plain[1]) + plain[2]
    match = _ADDRESS.fullmatch(text)
    if match is None or match[1] not in list(Area):
        raise ConfigError(f"tag address {text!r} is not {_GRAMMAR}; areas: {', '.join(Area)}")
    area, offset = Area(match[1]), int(match[2]) - (numbering is Numbering.ONE)
    bit = None if match[3] is None else int(match[3])
    one = RegisterAddress(area, offset, _type_of(text, area, bit, match[4]), bit)
    one = _with_options(text, one, match[5])
    if not 0 <= offset <= 65_536 - one.count:
        raise ConfigError(f"tag address {text!r} starts at offset {offset}, a table has 0 to 65535")
    return one


def _from_modicon(text: str, digits: str) -> str:
    area, number = _MODICON.get(int(digits[0])), int(digits[1:])
    if area is None or number == 0:
        raise ConfigError(f"tag address {text!r}: numbers are 00001, 10001, 30001 or 40001 and up")
    return f"{area}:{number - 1}"


def _type_of(text: str, area: Area, bit: int | None, given: str | None) -> str:
    if bit is not None:
        if area.has_bits or given is not None or bit > 15:
            raise ConfigError(f"tag address {text!r}: a bit is .0 to .15 of a register and has no type")
        return BIT
    if area.has_bits:
        if given is not None:
            raise ConfigError(f"tag address {text!r}: {area} items are single bits and have no type")
        return BIT
    if given is not None and given.upper() not in TYPES:
        raise ConfigError(f"tag address {text!r} has type {given!r}, not one of {', '.join(TYPES)}")
    return (given or "U16").upper()


def _with_options(text: str, one: RegisterAddress, options: str) -> RegisterAddress:
    found = dict(option.split("=", 1) for option in options.split(";")[1:])
    order = found.pop("order", "ABCD").upper()
    if order not in ORDERS or (one.type == BIT and order != "ABCD"):
        raise ConfigError(
            f"tag address {text!r} has order {order}, not one of {', '.join(ORDERS)} (bits: none)"
        )
    if one.count == 1:  # one register has no words to swap
        order = {"CDAB": "ABCD", "DCBA": "BADC"}.get(order, order)
    numbers = {"scale": 1.0, "add": 0.0}
    for key, value in found.items():
        number = _finite(value)
        if key not in numbers or number is None or (key == "scale" and number == 0):
            raise ConfigError(f"tag address {text!r}: {key}={value} is not order=, scale= (not 0) or add=")
        numbers[key] = number
    return replace(one, order=order, scale=numbers["scale"], add=numbers["add"])


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class Block:
    """One request: `count` registers or bits of `area` from `start`."""

    area: Area
    start: int
    count: int

    @property
    def size_bytes(self) -> int:
        """Data bytes of the response."""
        return (self.count + 7) // 8 if self.area.has_bits else 2 * self.count


def plan_reads(
    addresses: Iterable[RegisterAddress],
    bridge_gaps: int = 0,
    max_registers: int = MAX_REGISTERS,
    max_bits: int = MAX_BITS,
) -> tuple[Block, ...]:
    """The fewest contiguous requests that read all `addresses`, each value whole within one request.

    Parameters
    ----------
    bridge_gaps : registers or bits that nobody asked for and that may be read to join two blocks; 0 reads
        only what is configured (some devices answer an error, or do something, for others).
    """
    spans = sorted({(list(Area).index(a.area), a.offset, a.offset + a.count) for a in addresses})
    blocks: list[Block] = []
    for number, start, end in spans:
        area = list(Area)[number]
        last = blocks[-1] if blocks and blocks[-1].area is area else None
        if last is not None and start <= last.start + last.count + bridge_gaps:
            count = max(last.start + last.count, end) - last.start
            if count <= (max_bits if area.has_bits else max_registers):
                blocks[-1] = Block(area, last.start, count)
                continue
        blocks.append(Block(area, start, end - start))
    return tuple(blocks)


@dataclass(frozen=True, slots=True)
class RegisterTag:
    """One signal of a device: what it is and where it lies. The address gives the column's grid."""

    column: Column
    address: RegisterAddress


@dataclass(frozen=True, slots=True)
class RegisterValues:
    """Decoded columns of one value type: ``values: T[F, D]`` and ``quality: uint8[F, D]`` or None (all good)."""

    values: npt.NDArray[Any]
    quality: npt.NDArray[np.uint8] | None

    def take(self, at: npt.NDArray[np.intp]) -> RegisterValues:
        """The polls at `at`."""
        return RegisterValues(self.values[at], None if self.quality is None else self.quality[at])


@dataclass(frozen=True, slots=True, eq=False)
class PartMap:
    """Where the columns of one value type lie in an image.

    Parameters
    ----------
    layout : the group's layout, columns in the order of the tags.
    block : intp[D], the block that each column is read by.
    source : intp[D * itemsize], image byte of every byte of a row (bits: intp[D], the byte each bit is in).
    shift : uint8[D], for bits: how far each lies to the left in its byte.
    window : first byte, last byte + 1 and stored type where the columns lie together in one order; else None.
    """

    layout: Layout
    block: npt.NDArray[np.intp]
    source: npt.NDArray[np.intp]
    shift: npt.NDArray[np.uint8]
    window: tuple[int, int, str] | None

    @property
    def part(self) -> str:
        """The group's part: the name of the value type."""
        return self.layout.dtype

    def decode(self, images: npt.NDArray[np.uint8]) -> RegisterValues:
        """Columns of this part from ``images: uint8[F, image_bytes]``."""
        dtype = numpy_dtype(self.layout.dtype)
        if self.layout.dtype == "u8":
            return RegisterValues((images.take(self.source, axis=1) >> self.shift) & np.uint8(1), None)
        if self.window is not None:
            first, last, stored = self.window
            words = images[:, first:last].view(stored)
            native = words.astype(words.dtype.newbyteorder("="), order="C")
            values = native.view(dtype)
        else:
            values = images.take(self.source, axis=1).view(dtype.newbyteorder("<")).astype(dtype, copy=False)
        if dtype.kind != "f" or np.isfinite(values).all():
            return RegisterValues(values, None)
        bad = ~np.isfinite(values)
        return RegisterValues(values, bad.astype(np.uint8) * np.uint8(Quality.BAD_NOT_FINITE))


@dataclass(frozen=True, slots=True, eq=False)
class ReadMap:
    """A device type's tags, compiled: the requests to send and how their answers become columns."""

    blocks: tuple[Block, ...]
    parts: tuple[PartMap, ...]
    image_bytes: int

    @property
    def width(self) -> int:
        """Sensors of one device."""
        return sum(part.layout.width for part in self.parts)

    def decode(
        self, data: bytes | bytearray | memoryview, header_bytes: int = 0, stride_bytes: int | None = None
    ) -> tuple[RegisterValues, ...]:
        """Columns of F polls in one call, one entry a part.

        Parameters
        ----------
        data : F images one after the other, each `stride_bytes` long, its first `header_bytes` passed over
            (raw Modbus TCP responses of a device with one block: 9).

        Returns
        -------
        For each part ``values: T[F, D]``; values that are not finite have quality BAD_NOT_FINITE.

        Raises
        ------
        ValueError : `data` is not a whole number of images (the transport checks sizes before).

        Cost
        ----
        Contiguous big-endian u16: 1 to 2 ns a value; any order of any type: 1 ns a byte.
        """
        stride = header_bytes + self.image_bytes if stride_bytes is None else stride_bytes
        flat = np.frombuffer(data, np.uint8)
        if stride < header_bytes + self.image_bytes:
            raise ValueError(f"an image of {self.image_bytes} bytes does not fit in {stride} bytes")
        if len(flat) % stride:
            raise ValueError(f"{len(flat):,} bytes are not a whole number of images of {stride} bytes")
        images = flat.reshape(-1, stride)[:, header_bytes : header_bytes + self.image_bytes]
        return tuple(part.decode(images) for part in self.parts)


def compile_read_map(
    tags: Sequence[RegisterTag],
    bridge_gaps: int = 0,
    max_registers: int = MAX_REGISTERS,
    max_bits: int = MAX_BITS,
) -> ReadMap:
    """Plan the requests for `tags` and compile where each value's bytes lie.

    Raises
    ------
    ConfigError : no tags, or a name twice.
    """
    blocks = plan_reads((t.address for t in tags), bridge_gaps, max_registers, max_bits)
    first_byte = [0]
    for block in blocks:
        first_byte.append(first_byte[-1] + block.size_bytes)
    return _compiled(tags, blocks, first_byte, first_byte[-1])


def compile_image_map(tags: Sequence[RegisterTag]) -> ReadMap:
    """Where each value lies in an image that somebody else has read: every area begins at its first byte.

    Raises
    ------
    ConfigError : no tags, or a name twice.
    """
    counts: dict[Area, int] = {}
    for tag in tags:
        end = tag.address.offset + tag.address.count
        counts[tag.address.area] = max(counts.get(tag.address.area, 0), end)
    blocks = tuple(Block(area, 0, count) for area, count in counts.items())
    return _compiled(tags, blocks, [0] * len(blocks), max((block.size_bytes for block in blocks), default=0))


def _compiled(
    tags: Sequence[RegisterTag], blocks: tuple[Block, ...], first_byte: Sequence[int], image_bytes: int
) -> ReadMap:
    by_type: dict[str, list[RegisterTag]] = {}
    for tag in tags:
        by_type.setdefault(tag.address.dtype, []).append(tag)
    if not by_type:
        raise ConfigError("a profile without tags reads nothing; give it at least one signal with an address")
    parts = tuple(_compile_part(dtype, some, blocks, first_byte) for dtype, some in by_type.items())
    return ReadMap(blocks, parts, image_bytes)


def _compile_part(
    dtype: str, tags: Sequence[RegisterTag], blocks: Sequence[Block], first_byte: Sequence[int]
) -> PartMap:
    in_block, source, shift = [], [], []
    for tag in tags:
        number = _block_of(tag.address, blocks)
        at = tag.address.offset - blocks[number].start
        in_block.append(number)
        if tag.address.area.has_bits:
            source.append(first_byte[number] + at // 8)
            shift.append(at % 8)
        elif tag.address.bit is not None:  # the high byte of a register comes first
            source.append(first_byte[number] + 2 * at + (tag.address.bit < 8))
            shift.append(tag.address.bit % 8)
        else:
            source += [first_byte[number] + 2 * at + byte for byte in _byte_order(tag.address)]
    layout = Layout(dtype, tuple(_column(tag) for tag in tags))
    window = None if shift else _window(tags, source)
    return PartMap(
        layout, np.array(in_block, np.intp), np.array(source, np.intp), np.array(shift, np.uint8), window
    )


def _block_of(address: RegisterAddress, blocks: Sequence[Block]) -> int:
    return next(
        i for i, b in enumerate(blocks)
        if b.area is address.area and b.start <= address.offset
        and address.offset + address.count <= b.start + b.count
    )  # fmt: skip


def _column(tag: RegisterTag) -> Column:
    kind = Kind.DISCRETE if tag.address.type == BIT and tag.column.kind is Kind.ANALOG else tag.column.kind
    return replace(tag.column, kind=kind, scale=tag.address.scale, offset=tag.address.add)


def _byte_order(address: RegisterAddress) -> list[int]:
    """Which byte on the wire is the least significant, the next, ...: a little-endian value's bytes."""
    words = list(range(address.count))
    if address.order in ("ABCD", "BADC"):
        words.reverse()
    low_first = address.order in ("BADC", "DCBA")
    return [2 * word + byte for word in words for byte in ((0, 1) if low_first else (1, 0))]


def _window(tags: Sequence[RegisterTag], source: Sequence[int]) -> tuple[int, int, str] | None:
    """First byte, last byte + 1 and stored type where columns lie one after the other in one plain order."""
    first, size, order = min(source), len(source), tags[0].address.order
    stored = {"ABCD": f">u{2 * tags[0].address.count}", "CDAB": ">u2", "DCBA": "<u2"}.get(order)
    if order == "BADC" and tags[0].address.count == 1:
        stored = "<u2"
    expected = [
        first + 2 * tags[0].address.count * i + byte
        for i, tag in enumerate(tags) for byte in _byte_order(replace(tag.address, order=order))
    ]  # fmt: skip
    return (first, first + size, stored) if stored is not None and expected == list(source) else None
