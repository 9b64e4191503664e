"""Answers that were captured, decoded once more: as the poller does, without a device.

Each piece says which request it answers, which part of its poll it is (``2/5``), and the last one what the device had
refused before, so that it was not asked for. A poll that was cut off (a time-out, the beginning or end of the capture)
gives nothing, as it did then; so does one that asked for other registers than the present profile has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headrace.adapters.abilities import Captured, Direction
from headrace.adapters.modbus.collector import PollImages, decode_images
from headrace.adapters.modbus.config import DevicePlan
from headrace.adapters.modbus.reads import (
    GATEWAY,
    BlockRead,
    Image,
    answered_data,
    block_text,
    blocks_of_text,
    requested_block,
)
from headrace.adapters.payloads.registers import Block, ImageHole, PartMap, ReadMap
from headrace.core.clock import NO_TIME
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

_MS = 1_000_000
_Image = tuple[tuple[int, ...], int, bytes, list[ImageHole]]
"""As `PollImages.add` takes it."""


def about_piece(
    peer: str, request: bytes, part: tuple[int, int], is_again: bool, refused: Iterable[BlockRead]
) -> dict[str, str]:
    """What decoding an answer takes besides: see `_Device.take`.

    Parameters
    ----------
    part : which piece of how many of its poll. is_again : it only looks whether something is there again.
    refused : what the poll does not ask for.
    """
    about = {"peer": peer, "request": request.hex(), "part": f"{part[0]}/{part[1]}"}
    left_out = ",".join(block_text(read.block) for read in refused)
    return about | ({"again": "1"} if is_again else {}) | ({"refused": left_out} if left_out else {})


class _Device:
    """What is known of a device's present poll."""

    def __init__(self, plan: DevicePlan, directory: SensorDirectory) -> None:
        self.plan = plan
        self._directory = directory
        self._defined: tuple[PartMap, ...] = ()
        self._slots: tuple[int, ...] = ()
        self._answers: list[tuple[Block, bytes | int]] = []
        self._n = 0

    def take(self, one: Captured) -> tuple[ReadMap, _Image] | None:
        """Take an answer; the poll's image once it is whole. Raises ValueError: it does not fit its request."""
        number, _, total = one.about.get("part", "").partition("/")
        if number == "1":
            self._answers, self._n = [], 0
        self._n += 1
        if number != str(self._n):  # what came before it is missing
            self._n = -1
            return None
        asked = requested_block(bytes.fromhex(one.about["request"]))
        try:
            answer = answered_data(asked, one.data)
        except ValueError:
            self._n = -1
            raise
        if answer in GATEWAY:
            self._n = -1
            return None
        if "again" not in one.about:
            self._answers.append((asked, answer))
        return self._image(one.ts_ns // _MS * _MS, one.about) if number == total else None

    def _image(self, ts_ns: int, about: Mapping[str, str]) -> tuple[ReadMap, _Image] | None:
        read_map = self.plan.map_at(ts_ns)
        image, seen, holes = Image(read_map), [], []
        for block, answer in (
            *self._answers,
            *((block, 0) for block in blocks_of_text(about.get("refused", ""))),
        ):
            read = _placed(block, read_map)
            if read is None:
                continue
            seen.append(read.hole)
            if isinstance(answer, bytes):
                image.put(read, answer)
            else:
                holes.append(read.hole)
        if not covers(seen, read_map):
            return None
        if read_map.parts != self._defined:
            self._slots, self._defined = self.plan.define(read_map, self._directory), read_map.parts
        return read_map, (self._slots, ts_ns, image.finish(), holes)


def _placed(asked: Block, read_map: ReadMap) -> BlockRead | None:
    """Where an answer lies in the image; None where the profile does not have it."""
    for number, block in enumerate(read_map.blocks):
        if block.area is asked.area and block.start <= asked.start and asked.end <= block.end:
            return BlockRead(number, block.start, asked, (), b"")
    return None


def covers(seen: Iterable[ImageHole], read_map: ReadMap) -> bool:
    """Whether all values of a profile were asked for, or are known to be refused."""
    return all(
        any(one.block == number and one.start <= span.start and span.end <= one.end for one in seen)
        for number, spans in enumerate(read_map.spans)
        for span in spans
    )


def decode_answers(
    name: str, plans: Sequence[DevicePlan], directory: SensorDirectory, captured: Sequence[Captured]
) -> tuple[list[FrameBatch], list[Reject]]:
    """Frames of all polls that are whole, by read map; answers that do not fit as rejects.

    Raises
    ------
    ConfigError : another group has one of the sensors.
    """
    devices = {plan.path: _Device(plan, directory) for plan in plans}
    images: dict[tuple[PartMap, ...], tuple[ReadMap, PollImages]] = {}
    rejects: list[Reject] = []
    last_ns = NO_TIME
    for one in captured:
        device = devices.get(one.source)
        if device is None or one.direction is Direction.SENT:
            continue
        last_ns = one.ts_ns
        try:
            found = device.take(one)
        except ValueError as e:
            width = device.plan.read_map.width
            rejects.append(Reject(RejectCode.MALFORMED, name, one.source, str(e), one.data, one.ts_ns, width))
            continue
        if found is not None:
            images.setdefault(found[0].parts, (found[0], PollImages()))[1].add(*found[1])
    batches = [
        batch for read_map, some in images.values() for batch in decode_images(read_map, some, last_ns, name)
    ]
    return batches, rejects
