"""What one device is asked for in each poll: the blocks of its read map, parted where it refuses some of it.

A device that lacks one register refuses the whole block (exception 2 or 3), and with it a hundred good values. So a
block that is refused is halved, and the half that is refused again, poll by poll, until what is refused is a single
value: that one is left out and marked, the others go on. The same finds out how many registers a device allows in one
request. Now and then the whole block, and what is left out, are tried again. Pure: requests in, requests out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.adapters.payloads.register_addresses import Area
from headrace.adapters.payloads.registers import Block, ImageHole, ReadMap, RegisterSpan
from headrace.core.clock import NS

RETRY_NS = 60 * NS
PARTED_BY = (2, 3)
"""Exceptions that say: not these registers. Others are of the device."""
GATEWAY = (10, 11)
"""Exceptions of a gateway whose device does not answer."""
_REQUEST = struct.Struct(">BHH")
_AREAS = {area.function: area for area in Area}
_EXCEPTIONS = {
    1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "device failure",
    5: "acknowledge", 6: "device busy", 8: "memory parity error", 10: "gateway path unavailable",
    11: "gateway target failed to respond",
}  # fmt: skip


def read_request(area: Area, start: int, count: int) -> bytes:
    """The PDU that reads `count` registers or bits."""
    return _REQUEST.pack(area.function, start, count)


def exception_text(code: int) -> str:
    """A Modbus exception code in words."""
    return f"exception {code} ({_EXCEPTIONS.get(code, 'unknown code')})"


def block_text(block: Block) -> str:
    """A block as ``holding:100..109``."""
    return f"{block.area}:{block.start}..{block.end - 1}"


def blocks_of_text(text: str) -> list[Block]:
    """Blocks as `block_text` writes them, with commas between; the inverse of it."""
    found = []
    for one in text.split(",") if text else ():
        area, _, ends = one.partition(":")
        first, _, last = ends.partition("..")
        found.append(Block(Area(area), int(first), int(last) - int(first) + 1))
    return found


def requested_block(request: bytes) -> Block:
    """What a PDU asks for; the inverse of `read_request`."""
    function, start, count = _REQUEST.unpack(request)
    return Block(_AREAS[function], start, count)


def answer_head(block: Block) -> bytes:
    """How an answer with the data of `block` begins."""
    return bytes((block.area.function, block.size_bytes))


def answered_data(block: Block, pdu: bytes) -> bytes | int:
    """The data bytes of an answer, or the code of the exception that it is.

    Raises
    ------
    ValueError : it is no answer to a request for `block`.
    """
    function, size = block.area.function, block.size_bytes
    if len(pdu) == size + 2 and pdu[:2] == answer_head(block):
        return pdu[2:]
    if len(pdu) == 2 and pdu[0] == function | 0x80:
        return pdu[1]
    raise ValueError(
        f"expected function {function} with {size} data bytes for {block_text(block)}, got {len(pdu)} bytes"
    )


@dataclass(frozen=True, slots=True)
class BlockRead:
    """One request: some neighbouring values of a block.

    Parameters
    ----------
    number : of the block in the read map; start : of that block. block : what is asked for.
    head : how an answer with data begins: function, number of bytes.
    """

    number: int
    start: int
    block: Block
    spans: tuple[RegisterSpan, ...]
    request: bytes
    head: bytes = b""

    @classmethod
    def of(cls, number: int, block: Block, spans: tuple[RegisterSpan, ...]) -> BlockRead:
        """The request for `spans` of a block; for all of them it is the block's."""
        first, end = spans[0].start, max(span.end for span in spans)
        asked = Block(block.area, block.start + first, end - first)
        request, head = read_request(asked.area, asked.start, asked.count), answer_head(asked)
        return cls(number, block.start, asked, spans, request, head)

    def answered(self, pdu: bytes) -> bytes | int:
        """The data bytes of an answer, or the code of the exception that it is. Raises ValueError: it is none."""
        if pdu[:2] == self.head and len(pdu) == pdu[1] + 2:
            return pdu[2:]
        return answered_data(self.block, pdu)

    def pdu(self, answer: bytes | int) -> bytes:
        """The answer that `answered` has read."""
        return self.head + answer if isinstance(answer, bytes) else bytes((self.head[0] | 0x80, answer))

    @property
    def hole(self) -> ImageHole:
        """What is missing where it is refused."""
        return ImageHole(self.number, self.block.start - self.start, self.block.end - self.start)

    def halves(self) -> tuple[BlockRead, BlockRead]:
        """Two requests for the same values."""
        whole, middle = Block(self.block.area, self.start, 0), len(self.spans) // 2
        return (
            BlockRead.of(self.number, whole, self.spans[:middle]),
            BlockRead.of(self.number, whole, self.spans[middle:]),
        )


class DeviceReads:
    """The requests of one device, as far as it is known what it refuses.

    Attributes
    ----------
    due : what each poll asks for. refused : what is left out, by the exception that it gives.
    """

    def __init__(self, read_map: ReadMap) -> None:
        self.whole = [
            BlockRead.of(number, block, read_map.spans[number])
            for number, block in enumerate(read_map.blocks)
        ]
        self.due = list(self.whole)
        self.refused: dict[BlockRead, int] = {}
        self._retry_ns = 0
        self._n_retries = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is parted or left out: the answers one after the other are the image."""
        return self.due == self.whole

    def whole_image(self, answers: Sequence[bytes | int]) -> bytes | None:
        """The image, where each block was asked for as a whole and is there."""
        if not self.is_whole:
            return None
        parts = [answer for answer in answers if isinstance(answer, bytes)]
        return b"".join(parts) if len(parts) == len(answers) else None

    def part(self, read: BlockRead, code: int, now_ns: int) -> None:
        """The device refuses a request: ask for its halves from now on, or no more where it is a single value."""
        at = self.due.index(read)
        self.due[at : at + 1] = read.halves() if len(read.spans) > 1 else ()
        if len(read.spans) == 1:
            self.refused[read] = code
        self._retry_ns = now_ns + RETRY_NS

    def retry(self, now_ns: int) -> BlockRead | None:
        """One request that was refused before and is due to be tried again.

        In turns a whole block, and something that is left out. Where nothing else is left to ask for, always: it
        shows that the device is there.
        """
        if self.is_whole or (self.due and now_ns < self._retry_ns):
            return None
        self._retry_ns = now_ns + RETRY_NS
        parted = [read for read in self.whole if read not in self.due]
        left_out = list(self.refused)
        at, self._n_retries = self._n_retries, self._n_retries + 1
        some = left_out if left_out and at % 2 else parted
        return some[at // 2 % len(some)]

    def join(self, read: BlockRead) -> None:
        """What was tried again is answered: ask for it from the next poll on."""
        if read in self.whole:
            self.due = [one for one in self.due if one.number != read.number]
            self.refused = {one: code for one, code in self.refused.items() if one.number != read.number}
        self.refused.pop(read, None)
        self.due = sorted([*self.due, read], key=lambda one: (one.number, one.block.start))

    def reason(self) -> str:
        """What is left out, in words; empty where nothing is."""
        if not self.refused:
            return ""
        read, code = next(iter(self.refused.items()))
        more = f" (and {len(self.refused) - 1} more)" if len(self.refused) > 1 else ""
        return f"{exception_text(code)} reading {block_text(read.block)}{more}"


class Image:
    """The image of one poll, put together from answers; zeros where there are none."""

    def __init__(self, read_map: ReadMap) -> None:
        self._blocks = read_map.blocks
        self._bytes = bytearray(read_map.image_bytes)

    def put(self, read: BlockRead, data: bytes) -> None:
        """Take the data bytes of an answer."""
        at = sum(block.size_bytes for block in self._blocks[: read.number])
        first = read.block.start - read.start
        if not read.block.area.has_bits:
            self._bytes[at + 2 * first : at + 2 * first + len(data)] = data
            return
        # Bits of a part begin anywhere in a byte.
        end = at + self._blocks[read.number].size_bytes
        bits = int.from_bytes(data, "little") & ((1 << read.block.count) - 1)
        block = int.from_bytes(self._bytes[at:end], "little") | bits << first
        self._bytes[at:end] = block.to_bytes(end - at, "little")

    def finish(self) -> bytes:
        """The whole image."""
        return bytes(self._bytes)
