"""Gathers the images of a short slice of time, decodes them joined, and hands the frames to the sink."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from itertools import chain
from typing import Any

import numpy as np

from headrace.adapters.base import Sink
from headrace.adapters.payloads.registers import ImageHole, PartMap, ReadMap
from headrace.adapters.payloads.words import WordTable
from headrace.core.clock import thread_cpu_ns
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.quality import Quality

SLICE_S = 0.02
_log = logging.getLogger("headrace.adapters.modbus")


class PollImages:
    """Answered polls by columns: the groups' slots (one a part), time, image bytes; and what devices refused."""

    __slots__ = ("data", "holes", "slots", "ts_ns")

    def __init__(self) -> None:
        self.slots: list[tuple[int, ...]] = []
        self.ts_ns: list[int] = []
        self.data: list[bytes] = []
        self.holes: list[tuple[int, ImageHole]] = []

    def add(self, slots: tuple[int, ...], ts_ns: int, data: bytes, holes: Iterable[ImageHole] = ()) -> None:
        """Take a poll."""
        for hole in holes:
            self.holes.append((len(self.data), hole))
        self.slots.append(slots)
        self.ts_ns.append(ts_ns)
        self.data.append(data)


def decode_images(
    read_map: ReadMap,
    images: PollImages,
    arrival_ns: int,
    origin: str,
    words: WordTable | None = None,
    sequence: int = -1,
) -> list[FrameBatch]:
    """Frames of many polls with the same read map, one batch a part; columns in holes are BAD_DEVICE.

    Parameters
    ----------
    sequence : of the first batch; -1: they have none.
    """
    n, n_parts = len(images.ts_ns), len(read_map.parts)
    ts_ns = np.fromiter(images.ts_ns, np.int64, n)
    # Where it knows how many come NumPy takes half as long.
    slots = np.fromiter(chain.from_iterable(images.slots), np.uint32, n * n_parts).reshape(n, n_parts)
    batches = []
    decoded = read_map.decode(b"".join(images.data), words=words)
    for number, (part, columns) in enumerate(zip(read_map.parts, decoded, strict=True)):
        quality = columns.quality
        for frame, hole in images.holes:
            refused = part.inside(hole)
            if quality is None and refused.any():
                quality = np.zeros(columns.values.shape, np.uint8)
            if quality is not None:
                quality[frame, refused] = Quality.BAD_DEVICE
        batches.append(
            FrameBatch.dense(
                slots[:, number], ts_ns, columns.values, quality,
                dictionary=columns.dictionary, arrival_ns=arrival_ns, origin=origin,
                sequence=sequence + number if sequence >= 0 else -1,
            )
        )  # fmt: skip
    return batches


class Collector:
    """Between the pollers and the sink of one adapter.

    Parameters
    ----------
    slice_s : how long images are gathered, in real seconds; a bound on latency.
    """

    def __init__(self, name: str, sink: Sink, slice_s: float = SLICE_S) -> None:
        self._name = name
        self._sink = sink
        self._slice_s = slice_s
        self._images: dict[tuple[PartMap, ...], tuple[ReadMap, PollImages]] = {}
        self._words = WordTable()
        self._rejects: list[Reject] = []
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = 0
        self._finishing = False
        self.refused = ""
        self.n_frames = 0
        self.n_samples = 0
        self.n_rejects = 0
        self.decode_ns = 0

    def add(
        self,
        read_map: ReadMap,
        slots: tuple[int, ...],
        ts_ns: int,
        data: bytes,
        holes: Iterable[ImageHole] = (),
    ) -> None:
        """Take one poll. Read maps that share their parts are decoded together."""
        found = self._images.get(read_map.parts)
        if found is None:
            found = self._images[read_map.parts] = read_map, PollImages()
        found[1].add(slots, ts_ns, data, holes)
        self._start_timer()

    def reject(self, reject: Reject) -> None:
        """Take an answer that can't be read."""
        self._rejects.append(reject)
        self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._slice_s, self._ready.set)

    async def run(self) -> None:
        """Hand on what was gathered, slice by slice, until `finish` is called."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            await self._flush()
            if self._finishing:
                return

    def finish(self) -> None:
        """Hand on the rest at once; `run` returns when that is done."""
        self._finishing = True
        self._ready.set()

    async def _flush(self) -> None:
        """Decode and emit everything gathered so far; what the sink refuses takes nothing else with it."""
        images, self._images = self._images, {}
        rejects, self._rejects = self._rejects, []
        refused = ""
        for read_map, some in images.values():
            refused = await self._try(self._emit(read_map, some)) or refused
        for reject in rejects:
            refused = await self._try(self._reject(reject)) or refused
        # A poll can't be asked for again: it is as lost as one that was skipped. Say so once.
        if refused and not self.refused:
            _log.error("adapter=%s polls are dropped: %s", self._name, refused)
        self.refused = f"polls are dropped: {refused}" if refused else ""

    @staticmethod
    async def _try(handing: Coroutine[Any, Any, None]) -> str:
        """Why the sink refused; empty where it did not."""
        try:
            await handing
        except Exception as e:
            return str(e) or repr(e)
        return ""

    async def _reject(self, reject: Reject) -> None:
        await self._sink.reject(reject)
        self.n_rejects += 1

    async def _emit(self, read_map: ReadMap, images: PollImages) -> None:
        cpu_ns = thread_cpu_ns()
        arrival_ns = self._sink.clock.now_ns()
        batches = decode_images(read_map, images, arrival_ns, self._name, self._words, self._sequence)
        self.decode_ns += thread_cpu_ns() - cpu_ns
        for batch in batches:
            await self._sink.emit(batch)
            self._sequence += 1
            self.n_frames += batch.n_frames
            self.n_samples += batch.n_values
