"""Register images → columns: tag addresses, read planning, and a decoder for many polls at once.

A device is polled in *blocks* (one request each); the data bytes of a poll's responses, joined in block order,
are its *image*, which has the same size every time. A `ReadMap` is compiled once from the tags: for each value
type the blocks' bytes it needs and the columns they become. `ReadMap.decode` then takes the images of many
polls (or the raw responses, where a device has one block) joined in one buffer.

Where values lie is written as `headrace.adapters.payloads.register_addresses` has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.register_addresses import (
    BCD,
    BIT,
    MAX_BITS,
    MAX_REGISTERS,
    STR,
    Area,
    RegisterAddress,
    elements,
)
from headrace.adapters.payloads.words import WordTable
from headrace.core.errors import ConfigError
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.quality import Quality


@dataclass(frozen=True, slots=True)
class Block:
    """One request: `count` registers or bits of `area` from `start`."""

    area: Area
    start: int
    count: int

    @property
    def end(self) -> int:
        """One past its last."""
        return self.start + self.count

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
        if last is not None and start <= last.end + bridge_gaps:
            count = max(last.end, end) - last.start
            if count <= (max_bits if area.has_bits else max_registers):
                blocks[-1] = Block(area, last.start, count)
                continue
        blocks.append(Block(area, start, end - start))
    return tuple(blocks)


@dataclass(frozen=True, slots=True)
class RegisterSpan:
    """Values of a block that no request may part: `count` registers or bits from `start`, seen from the block's."""

    start: int
    count: int

    @property
    def end(self) -> int:
        """One past its last."""
        return self.start + self.count


@dataclass(frozen=True, slots=True)
class ImageHole:
    """What is missing of an image: registers or bits `start` to `end` of its block `block`."""

    block: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RegisterTag:
    """One signal of a device: what it is and where it lies. The address gives the column's grid.

    An address of n values makes n signals: ``name_0``, ``name_1``, ...
    """

    column: Column
    address: RegisterAddress

    def expand(self) -> list[RegisterTag]:
        """The signals of single values."""
        if self.address.n_values == 1:
            return [self]
        return [
            RegisterTag(replace(self.column, name=f"{self.column.name}_{i}"), one)
            for i, one in enumerate(elements(self.address))
        ]


@dataclass(frozen=True, slots=True)
class RegisterValues:
    """Decoded columns of one part: ``values: T[F, D]`` and ``quality: uint8[F, D]`` or None (all good).

    Values of texts are codes of `dictionary`.
    """

    values: npt.NDArray[Any]
    quality: npt.NDArray[np.uint8] | None
    dictionary: tuple[str, ...] | None = None

    def take(self, at: npt.NDArray[np.intp]) -> RegisterValues:
        """The polls at `at`."""
        quality = None if self.quality is None else self.quality[at]
        return RegisterValues(self.values[at], quality, self.dictionary)


@dataclass(frozen=True, slots=True, eq=False)
class PartMap:
    """Where the columns of one part lie in an image.

    Parameters
    ----------
    part : the group's part: the name of the value type, or ``text``.
    layout : the group's layout, columns in the order of the tags.
    block : intp[D], the block that each column is read by; first : intp[D], its first register or bit in there.
    source : intp[D * itemsize], image byte of every byte of a row (bits: intp[D], the byte each bit is in).
    shift : uint8[D], for bits: how far each lies to the left in its byte.
    window : first byte, last byte + 1 and stored type where the columns lie together in one order; else None.
    decimal : intp[B], the columns that are BCD.
    ends : for texts: where each column's bytes end in `source`.
    """

    part: str
    layout: Layout
    block: npt.NDArray[np.intp]
    first: npt.NDArray[np.intp]
    source: npt.NDArray[np.intp]
    shift: npt.NDArray[np.uint8]
    window: tuple[int, int, str] | None
    decimal: npt.NDArray[np.intp]
    ends: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What two parts have in common that decode alike."""
        arrays = (self.block, self.first, self.source, self.shift, self.decimal)
        return self.part, self.layout.id, self.window, self.ends, *(array.tobytes() for array in arrays)

    def inside(self, hole: ImageHole) -> npt.NDArray[np.bool_]:
        """Which columns lie in a hole: bool[D]."""
        found: npt.NDArray[np.bool_] = (
            (self.block == hole.block) & (self.first >= hole.start) & (self.first < hole.end)
        )
        return found

    def decode(self, images: npt.NDArray[np.uint8], words: WordTable) -> RegisterValues:
        """Columns of this part from ``images: uint8[F, image_bytes]``."""
        dtype = numpy_dtype(self.layout.dtype)
        if self.ends:
            return self._texts(images, words)
        if self.layout.dtype == "u8":
            return RegisterValues((images.take(self.source, axis=1) >> self.shift) & np.uint8(1), None)
        if self.window is not None:
            first, last, stored = self.window
            stored_words = images[:, first:last].view(stored)
            native = stored_words.astype(stored_words.dtype.newbyteorder("="), order="C")
            values = native.view(dtype)
        else:
            values = images.take(self.source, axis=1).view(dtype.newbyteorder("<")).astype(dtype, copy=False)
        if len(self.decimal):
            return self._decimals(values)
        if dtype.kind != "f" or np.isfinite(values).all():
            return RegisterValues(values, None)
        bad = ~np.isfinite(values)
        return RegisterValues(values, bad.astype(np.uint8) * np.uint8(Quality.BAD_NOT_FINITE))

    def _decimals(self, values: npt.NDArray[Any]) -> RegisterValues:
        """BCD columns as numbers; one with a digit above 9 is bad, its value 0."""
        packed = values[:, self.decimal]
        numbers, bad = np.zeros_like(packed), np.zeros(packed.shape, np.bool_)
        for place in range(2 * packed.dtype.itemsize):
            digit = packed >> packed.dtype.type(4 * place) & packed.dtype.type(15)
            bad |= digit > 9
            numbers += digit * packed.dtype.type(10**place)
        values[:, self.decimal] = np.where(bad, 0, numbers)
        if not bad.any():
            return RegisterValues(values, None)
        quality = np.zeros(values.shape, np.uint8)
        quality[:, self.decimal] = bad * np.uint8(Quality.BAD_TYPE)
        return RegisterValues(values, quality)

    def _texts(self, images: npt.NDArray[np.uint8], words: WordTable) -> RegisterValues:
        """Texts as codes. Texts rarely change, so each is looked at once a batch and not once a sample."""
        found = []
        for start, end in pairwise((0, *self.ends)):
            rows = np.ascontiguousarray(images.take(self.source[start:end], axis=1)).view(f"S{end - start}")
            some, index = np.unique(rows[:, 0], return_inverse=True)
            found.append(([_text(one) for one in some.tolist()], index))
        words.learn(text for texts, _ in found for text in texts)
        columns = [np.array(words.codes(texts), np.uint32)[index] for texts, index in found]
        return RegisterValues(np.stack(columns, axis=1), None, words.dictionary)


def _text(raw: bytes) -> str:
    """A text as devices keep it: up to the first NUL, blanks at its end are padding."""
    kept = raw.partition(b"\0")[0]
    try:
        return kept.decode().rstrip()
    except UnicodeDecodeError:
        return kept.decode("latin-1").rstrip()


@dataclass(frozen=True, slots=True, eq=False)
class ReadMap:
    """A device type's tags, compiled: the requests to send and how their answers become columns.

    ``spans``: for each block the values that are read there, merged where they overlap.
    """

    blocks: tuple[Block, ...]
    spans: tuple[tuple[RegisterSpan, ...], ...]
    parts: tuple[PartMap, ...]
    image_bytes: int

    @property
    def width(self) -> int:
        """Sensors of one device."""
        return sum(part.layout.width for part in self.parts)

    def names(self, hole: ImageHole) -> list[str]:
        """The signals that lie in a hole."""
        return [
            part.layout.columns[i].name
            for part in self.parts
            for i in np.flatnonzero(part.inside(hole)).tolist()
        ]

    def decode(
        self,
        data: bytes | bytearray | memoryview,
        header_bytes: int = 0,
        stride_bytes: int | None = None,
        words: WordTable | None = None,
    ) -> tuple[RegisterValues, ...]:
        """Columns of F polls in one call, one entry a part.

        Parameters
        ----------
        data : F images one after the other, each `stride_bytes` long, its first `header_bytes` passed over
            (raw Modbus TCP responses of a device with one block: 9).
        words : codes of texts that stay from call to call.

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
        words = WordTable() if words is None else words
        return tuple(part.decode(images, words) for part in self.parts)


def compile_read_map(
    tags: Sequence[RegisterTag],
    bridge_gaps: int = 0,
    max_registers: int = MAX_REGISTERS,
    max_bits: int = MAX_BITS,
) -> ReadMap:
    """Plan the requests for `tags` and compile where each value's bytes lie.

    Raises
    ------
    ConfigError : no tags, a name twice, or a value that is larger than a request may be.
    """
    single = [one for tag in tags for one in tag.expand()]
    for tag in single:
        if not tag.address.area.has_bits and tag.address.count > max_registers:
            raise ConfigError(
                f"signal {tag.column.name!r} takes {tag.address.count} registers, a request has {max_registers}"
            )
    blocks = plan_reads((t.address for t in single), bridge_gaps, max_registers, max_bits)
    first_byte = [0]
    for block in blocks:
        first_byte.append(first_byte[-1] + block.size_bytes)
    return _compiled(single, blocks, first_byte, first_byte[-1])


def compile_image_map(tags: Sequence[RegisterTag]) -> ReadMap:
    """Where each value lies in an image that somebody else has read: every area begins at its first byte.

    Raises
    ------
    ConfigError : no tags, or a name twice.
    """
    single = [one for tag in tags for one in tag.expand()]
    counts: dict[Area, int] = {}
    for tag in single:
        end = tag.address.offset + tag.address.count
        counts[tag.address.area] = max(counts.get(tag.address.area, 0), end)
    blocks = tuple(Block(area, 0, count) for area, count in counts.items())
    size_bytes = max((block.size_bytes for block in blocks), default=0)
    return _compiled(single, blocks, [0] * len(blocks), size_bytes)


def _compiled(
    single: Sequence[RegisterTag], blocks: tuple[Block, ...], first_byte: Sequence[int], image_bytes: int
) -> ReadMap:
    by_part: dict[str, list[RegisterTag]] = {}
    for tag in single:
        by_part.setdefault(tag.address.part, []).append(tag)
    if not by_part:
        raise ConfigError("a profile without tags reads nothing; give it at least one signal with an address")
    spans: list[list[RegisterSpan]] = [[] for _ in blocks]
    for address in sorted((t.address for t in single), key=lambda a: a.offset):
        number = _block_of(address, blocks)
        _merge(spans[number], RegisterSpan(address.offset - blocks[number].start, address.count))
    parts = tuple(_compile_part(part, some, blocks, first_byte) for part, some in by_part.items())
    return ReadMap(blocks, tuple(map(tuple, spans)), parts, image_bytes)


def _merge(spans: list[RegisterSpan], span: RegisterSpan) -> None:
    """Add a span that starts where the last one does, or behind it."""
    if spans and span.start < spans[-1].end:
        start = spans[-1].start
        spans[-1] = RegisterSpan(start, max(spans[-1].end, span.end) - start)
    else:
        spans.append(span)


def _compile_part(
    part: str, tags: Sequence[RegisterTag], blocks: Sequence[Block], first_byte: Sequence[int]
) -> PartMap:
    in_block, first, source, shift, ends = [], [], [], [], []
    for tag in tags:
        number = _block_of(tag.address, blocks)
        at = tag.address.offset - blocks[number].start
        in_block.append(number)
        first.append(at)
        if tag.address.area.has_bits:
            source.append(first_byte[number] + at // 8)
            shift.append(at % 8)
        elif tag.address.bit is not None:  # the high byte of a register comes first
            source.append(first_byte[number] + 2 * at + (tag.address.bit < 8))
            shift.append(tag.address.bit % 8)
        else:
            source += [first_byte[number] + 2 * at + byte for byte in _byte_order(tag.address)]
        if part == "text":
            ends.append(len(source))
    layout = Layout(tags[0].address.dtype, tuple(_column(tag) for tag in tags))
    window = None if shift or ends else _window(tags, source)
    decimal = [i for i, tag in enumerate(tags) if tag.address.type in BCD]
    return PartMap(
        part, layout, np.array(in_block, np.intp), np.array(first, np.intp), np.array(source, np.intp),
        np.array(shift, np.uint8), window, np.array(decimal, np.intp), tuple(ends),
    )  # fmt: skip


def _block_of(address: RegisterAddress, blocks: Sequence[Block]) -> int:
    return next(
        i for i, b in enumerate(blocks)
        if b.area is address.area and b.start <= address.offset
        and address.offset + address.count <= b.end
    )  # fmt: skip


def _column(tag: RegisterTag) -> Column:
    is_state = tag.address.type in (BIT, STR) and tag.column.kind is Kind.ANALOG
    kind = Kind.DISCRETE if is_state else tag.column.kind
    return replace(tag.column, kind=kind, scale=tag.address.scale, offset=tag.address.add)


def _byte_order(address: RegisterAddress) -> list[int]:
    """Which byte on the wire is the least significant, the next, ...: a little-endian value's bytes, or a text's."""
    if address.type == STR:
        return [i ^ (address.order == "BADC") for i in range(address.length)]
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
