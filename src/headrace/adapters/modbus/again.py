"""A poll that made no sense, kept with what was asked, and decoded once more by the present profile.

An answer of another size than its request asks for is refused: nobody knows what it means for the tags as they are. A
profile that was mended may need no more than what is there. So a reject has all of its poll, as JSON:
``{"poll": [[request, answer], ...]}``, hexadecimal PDUs, the one that did not fit being the last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from headrace.adapters.modbus.captured import covers
from headrace.adapters.modbus.collector import PollImages, decode_images
from headrace.adapters.modbus.config import DevicePlan
from headrace.adapters.modbus.reads import BlockRead, Image, block_text, requested_block
from headrace.adapters.payloads.registers import Block, ImageHole, ReadMap
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

_MS = 1_000_000
Piece = tuple[bytes, bytes]
"""Request and answer."""


def poll_text(pieces: Sequence[Piece]) -> bytes:
    """What a reject keeps of a poll."""
    return json.dumps({"poll": [[one.hex() for one in piece] for piece in pieces]}).encode()


def _pieces(raw: bytes) -> list[Piece]:
    """The inverse of `poll_text`. Raises ValueError: it is none."""
    try:
        return [
            (bytes.fromhex(request), bytes.fromhex(answer)) for request, answer in json.loads(raw)["poll"]
        ]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise ValueError("what was asked was not kept with it, or it is no answer at all") from None


def redecode_poll(
    name: str, plans: Sequence[DevicePlan], directory: SensorDirectory, reject: Reject
) -> tuple[list[FrameBatch], list[Reject]]:
    """Frames of a poll that was refused, if its answers hold all that the present profile reads.

    Raises
    ------
    ConfigError : another group has one of the sensors.
    """
    plan = next((plan for plan in plans if plan.path == reject.source), None)
    try:
        if plan is None:
            raise ValueError(f"adapter {name} has no device {reject.source!r}")
        pieces = _pieces(reject.raw)
        ts_ns = reject.arrival_ns // _MS * _MS
        read_map = plan.map_at(ts_ns)
        data, holes = _image(read_map, pieces)
    except ValueError as e:
        return [], [replace(reject, detail=str(e))]
    images = PollImages()
    images.add(plan.define(read_map, directory), ts_ns, data, holes)
    return decode_images(read_map, images, reject.arrival_ns, name), []


def _image(read_map: ReadMap, pieces: Sequence[Piece]) -> tuple[bytes, list[ImageHole]]:
    """The image of the present profile, and what the device refused of it. Raises ValueError: something is missing."""
    image, seen, holes = Image(read_map), [], []
    for request, answer in pieces:
        asked = requested_block(request)
        data = _data(asked, answer)
        there = asked if data is None else Block(asked.area, asked.start, _count(asked, data))
        for read in _overlaps(read_map, there):
            seen.append(read.hole)
            if data is None:
                holes.append(read.hole)
            else:
                image.put(read, _part(there, data, read.block))
    if not covers(seen, read_map):
        kept = ", ".join(block_text(requested_block(request)) for request, _ in pieces)
        raise ValueError(f"the answers to {kept} hold less than the profile reads")
    return image.finish(), holes


def _data(asked: Block, answer: bytes) -> bytes | None:
    """Data bytes of an answer of any size; None for an exception. Raises ValueError: it is neither."""
    function = asked.area.function
    if len(answer) == 2 and answer[0] == function | 0x80:
        return None
    if len(answer) > 2 and answer[0] == function and answer[1] == len(answer) - 2:
        return answer[2:]
    raise ValueError(f"{answer[:8].hex(' ')} is no answer to a request for {block_text(asked)}")


def _count(asked: Block, data: bytes) -> int:
    """How many registers or bits data hold; of bits no more than were asked for: the rest fills a byte."""
    return min(asked.count, 8 * len(data)) if asked.area.has_bits else len(data) // 2


def _overlaps(read_map: ReadMap, there: Block) -> Iterator[BlockRead]:
    """What of some registers lies in the image."""
    for number, block in enumerate(read_map.blocks):
        first, end = max(block.start, there.start), min(block.end, there.end)
        if block.area is there.area and first < end:
            yield BlockRead(number, block.start, Block(block.area, first, end - first), (), b"")


def _part(there: Block, data: bytes, wanted: Block) -> bytes:
    """The data bytes of some of the registers, or bits, that are there."""
    first = wanted.start - there.start
    if not wanted.area.has_bits:
        return data[2 * first : 2 * (first + wanted.count)]
    bits = int.from_bytes(data, "little") >> first & ((1 << wanted.count) - 1)
    return bits.to_bytes(wanted.size_bytes, "little")
