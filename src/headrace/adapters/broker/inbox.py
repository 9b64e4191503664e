"""What has arrived and is not yet durable: slices of messages, decoded together, acknowledged together.

A slice begins with its first message and lasts a few milliseconds. It is decoded in one go, its batches and rejects
are handed to the sink, and when the last of them is durable all its messages are acknowledged.

A QoS 1 message that comes again (DUP flag, same packet id, same content) while we still hold it unacknowledged is
the same one: it is not decoded again, only acknowledged where the broker now expects it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headrace.adapters.abilities import Captured, Listener
from headrace.adapters.base import Ack, Sink
from headrace.adapters.meters import LatencyRing, SkewMeter, seconds
from headrace.adapters.payloads.base import Decoded, TopicMessage
from headrace.core.clock import NO_TIME, monotonic_ns, thread_cpu_ns
from headrace.core.errors import PluginError
from headrace.core.events import Reject

SLICE_S = 0.005


class Courier(Protocol):
    """What the inbox asks of the connection."""

    @property
    def generation(self) -> int:
        """Number of the present connection; acknowledgements belong to one."""
        ...

    def acknowledge(self, packet_ids: list[int]) -> None:
        """Acknowledge messages of the present connection."""
        ...

    def pause(self) -> None:
        """Take no more messages for now."""
        ...

    def resume(self) -> None:
        """Take messages again."""
        ...

    def drop(self, reason: str) -> None:
        """Close the connection: what it brought can't be taken, and must come again."""
        ...


class MessageDecoder(Protocol):
    """What the inbox asks of who reads the messages."""

    def decode(self, messages: Sequence[TopicMessage], arrival_ns: int) -> Decoded:
        """Columns of all messages in the order in which they came, and rejects. Never raises."""
        ...

    def defect(self, message: TopicMessage, error: Exception) -> Reject:
        """The reject of a message whose frames turned out to be wrong: a defect of ours."""
        ...


@dataclass(eq=False, slots=True)
class _Unacknowledged:
    """A QoS 1 message between arrival and acknowledgement."""

    packet_id: int
    check: int
    generation: int
    is_durable: bool = False


@dataclass(eq=False, slots=True)
class _Slice:
    """Messages that are decoded and acknowledged together."""

    messages: list[TopicMessage] = field(default_factory=list)
    held: list[_Unacknowledged] = field(default_factory=list)
    began_ns: int = 0
    n_open: int = 0


class Inbox:
    """Takes messages from the connection and hands their frames to the sink.

    Parameters
    ----------
    slice_s : how long messages are gathered, in real seconds; a bound on latency.
    on_refused : called when the sink does not take what was decoded, so that it comes again.
    """

    def __init__(
        self,
        sink: Sink,
        decoder: MessageDecoder,
        courier: Courier,
        slice_s: float = SLICE_S,
        on_refused: Callable[[], None] | None = None,
    ) -> None:
        self._on_refused = on_refused
        self._sink = sink
        self._decoder = decoder
        self._courier = courier
        self._slice_s = slice_s
        self._slice = _Slice()
        self._held: dict[int, _Unacknowledged] = {}
        self._ready = asyncio.Event()
        self._landed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._n_open = 0
        self._sequence = 0
        self._finishing = False
        self.last_good_ns = NO_TIME
        self.n_messages = 0
        self.n_frames = 0
        self.n_samples = 0
        self.n_rejects = 0
        self.n_duplicates = 0
        self.decode_ns = 0
        self.latency = LatencyRing()
        self.skew = SkewMeter()
        self.listener: Listener | None = None
        self._open: dict[_Slice, None] = {}

    # --- from the connection -------------------------------------------------------------------------

    def take(self, topic: str, payload: bytes, packet_id: int | None, is_again: bool) -> None:
        """Take one message."""
        self.n_messages += 1
        if packet_id is not None:
            check = zlib.crc32(payload, zlib.crc32(topic.encode()))
            held = self._held.get(packet_id)
            if is_again and held is not None and held.check == check:
                self._again(held)
                return
            held = self._held[packet_id] = _Unacknowledged(packet_id, check, self._courier.generation)
            self._slice.held.append(held)
        if not self._slice.messages:
            self._slice.began_ns = monotonic_ns()
            self._timer = asyncio.get_running_loop().call_later(self._slice_s, self._ready.set)
            self._courier.pause()
        message = TopicMessage(topic, payload, self._sink.clock.now_ns())
        if self.listener is not None:
            self.listener(Captured(message.arrival_ns, topic, payload))
        self._slice.messages.append(message)

    def _again(self, held: _Unacknowledged) -> None:
        self.n_duplicates += 1
        held.generation = self._courier.generation
        if held.is_durable:
            del self._held[held.packet_id]
            self._courier.acknowledge([held.packet_id])

    def forget(self) -> None:
        """The broker has no session of ours: what it sends from now on is new, whatever its packet id."""
        self._held.clear()

    @property
    def unacknowledged(self) -> tuple[int, int]:
        """QoS 1 messages that are not durable yet, and since when the oldest slice waits, ns; `NO_TIME` for none."""
        n = sum(not held.is_durable for held in self._held.values())
        oldest = next(iter(self._open), None)
        return n, NO_TIME if oldest is None else oldest.messages[0].arrival_ns

    # --- to the sink ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hand on slice by slice, until `finish` is called."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            taken, self._slice = self._slice, _Slice()
            if taken.messages:
                await self._hand_on(taken)
                self._courier.resume()
            if self._finishing:
                return

    def finish(self) -> None:
        """Hand on the rest at once; `run` returns when the sink has it."""
        self._finishing = True
        self._ready.set()

    async def landed(self) -> None:
        """Wait until everything that was handed on is durable."""
        while self._n_open:
            self._landed.clear()
            await self._landed.wait()

    async def _hand_on(self, taken: _Slice) -> None:
        cpu_ns = thread_cpu_ns()
        batches, rejects = self._decoder.decode(taken.messages, self._sink.clock.now_ns())
        self.decode_ns += thread_cpu_ns() - cpu_ns
        ack = self._opened(taken, len(batches) + len(rejects))
        try:
            for batch in batches:
                try:
                    await self._sink.emit(batch.with_(sequence=self._sequence), ack)
                except PluginError as e:
                    # A defect of ours, for ever: kept as rejects, or the messages would come again and again.
                    rejects += [self._decoder.defect(message, e) for message in taken.messages]
                    taken.n_open += len(taken.messages) - 1
                    continue
                self._sequence += 1
                self.n_frames += batch.n_frames
                self.n_samples += batch.n_samples
                self.skew.note(batch.ts_ns, batch.arrival_ns)
            for reject in rejects:
                await self._sink.reject(reject, ack)
                self.n_rejects += 1
        except Exception as e:
            # Never acknowledged: the broker sends them again on the next connection.
            self._n_open -= 1
            self._open.pop(taken, None)
            self._landed.set()
            for held in taken.held:
                self._release(held)
            if self._on_refused is not None:
                self._on_refused()
            self._courier.drop(f"messages are not taken: {str(e) or repr(e)}")
            return
        if batches:
            self.last_good_ns = self._sink.clock.now_ns()

    def _opened(self, taken: _Slice, n_parts: int) -> Ack:
        """An ack to give with each of `n_parts`: the last one that runs acknowledges the slice."""
        self._n_open += 1
        self._open[taken] = None
        taken.n_open = max(1, n_parts)

        def ack() -> None:
            taken.n_open -= 1
            if not taken.n_open:
                self._acknowledge(taken)

        if not n_parts:
            ack()
        return ack

    def _acknowledge(self, taken: _Slice) -> None:
        self._n_open -= 1
        self._open.pop(taken, None)
        self._landed.set()
        self.latency.add(seconds(monotonic_ns() - taken.began_ns))
        now: list[int] = []
        for held in taken.held:
            held.is_durable = True
            if held.generation == self._courier.generation:
                self._release(held)
                now.append(held.packet_id)
        if now:
            self._courier.acknowledge(now)

    def _release(self, held: _Unacknowledged) -> None:
        if self._held.get(held.packet_id) is held:
            del self._held[held.packet_id]
