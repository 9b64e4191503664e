"""Answers that were captured, decoded once more: as the poller does, without a device.

A poll is the answers to the requests of a device's read map, in their order. One that was cut off (a time-out, the end of
the capture) gives nothing, as it did then.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.adapters.abilities import Captured, Direction
from headrace.adapters.modbus.collector import PollImage, decode_images
from headrace.adapters.modbus.config import DevicePlan
from headrace.adapters.modbus.poller import request_pdus
from headrace.adapters.payloads.registers import ReadMap
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch

_MS = 1_000_000


class _Device:
    """What is known of a device's present poll."""

    def __init__(self, plan: DevicePlan, slots: tuple[int, ...]) -> None:
        self.plan = plan
        self.slots = slots
        self.requests = [pdu.hex() for pdu in request_pdus(plan)]
        self.parts: list[bytes] = []
        self.failed: list[int] = []

    def take(self, one: Captured) -> PollImage | None:
        """Take an answer; the poll's image once it is whole. Raises ValueError: it does not fit its request."""
        number = len(self.parts)
        request = one.about.get("request", "")
        if number and request == self.requests[0] != self.requests[number]:
            self.parts, self.failed, number = [], [], 0  # the poll before was cut off
        if request != self.requests[number]:
            return None
        block = self.plan.read_map.blocks[number]
        if len(one.data) == block.size_bytes + 2 and one.data[:2] == bytes(
            (block.area.function, block.size_bytes)
        ):
            self.parts.append(one.data[2:])
        elif len(one.data) == 2 and one.data[0] == block.area.function | 0x80:
            self.parts.append(bytes(block.size_bytes))
            self.failed.append(number)
        else:
            self.parts, self.failed = [], []
            raise ValueError(
                f"expected {block.size_bytes} data bytes, got an answer of {len(one.data)} bytes"
            )
        if len(self.parts) < len(self.requests):
            return None
        parts, failed, self.parts, self.failed = self.parts, self.failed, [], []
        return PollImage(self.slots, one.ts_ns // _MS * _MS, b"".join(parts), tuple(failed))


def decode_answers(
    name: str, plans: Sequence[DevicePlan], slots: Sequence[tuple[int, ...]], captured: Sequence[Captured]
) -> tuple[list[FrameBatch], list[Reject]]:
    """Frames of all polls that are whole, by read map; answers that do not fit as rejects.

    Parameters
    ----------
    slots : of each plan's groups.
    """
    devices = {plan.path: _Device(plan, some) for plan, some in zip(plans, slots, strict=True)}
    images: dict[ReadMap, list[PollImage]] = {}
    rejects: list[Reject] = []
    last_ns = 0
    for one in captured:
        device = devices.get(one.source)
        if device is None or one.direction is Direction.SENT:
            continue
        last_ns = one.ts_ns
        try:
            image = device.take(one)
        except ValueError as e:
            width = device.plan.read_map.width
            rejects.append(Reject(RejectCode.MALFORMED, name, one.source, str(e), one.data, one.ts_ns, width))
            continue
        if image is not None:
            images.setdefault(device.plan.read_map, []).append(image)
    batches = [
        batch for read_map, some in images.items() for batch in decode_images(read_map, some, last_ns, name)
    ]
    return batches, rejects
