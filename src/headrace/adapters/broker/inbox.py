"""What has arrived and is not yet durable: slices of messages, decoded together, acknowledged together.

A slice begins with its first message and lasts a few milliseconds. It is decoded in one go, its batches and rejects
are handed to the sink, and when the last of them is durable all its messages are acknowledged.

A QoS 1 message that comes again (DUP flag, same packet id, same content) while we still hold it unacknowledged is
the same one: it is not decoded again, only acknowledged where the broker now expects it.

What the sink refuses comes again with all that came behind it on that connection, which is not taken before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from headrace.adapters.abilities import Captured, Listener
from headrace.adapters.base import Ack, Sink
from headrace.adapters.broker.held import HeldIds
from headrace.adapters.broker.packets import (
    AGAIN,
    NO_ID,
    WITH_ID,
    Arrivals,
    PacketFramer,
    TopicTable,
    all_arrivals,
)
from headrace.adapters.meters import LatencyRing, SkewMeter, seconds
from headrace.adapters.payloads.base import Decoded, MessageColumns, TopicMessage, add_defects
from headrace.core.clock import NO_TIME, monotonic_ns, thread_cpu_ns
from headrace.core.errors import PluginError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch

SLICE_S = 0.005
_NEVER = -1


class Courier(Protocol):
    """What the inbox asks of the connection."""

    @property
    def generation(self) -> int:
        """Number of the present connection; acknowledgements belong to one."""
        ...

    @property
    def is_up(self) -> bool:
        """Whether the present connection stands; else nothing can be acknowledged."""
        ...

    def acknowledge(self, packet_ids: npt.NDArray[np.int64]) -> None:
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


def warm_inbox() -> None:
    """Compile what takes packets, or load it from the cache: one is taken in memory, held and let go."""
    framer, held = PacketFramer(TopicTable()), HeldIds()
    came, *_ = framer.next(b"\x32\x06\x00\x01a\x00\x01x", 0, False)
    assert came is not None
    held.hold(came.packet_ids, 1, 1)
    held.settle(came, 1, 1)


class Unread(NamedTuple):
    """What is no message: its reject, its packet id or `NO_ID`, and the connection on which that means something."""

    reject: Reject
    packet_id: int
    generation: int


class Gathered:
    """Messages that are decoded and acknowledged together, numbered from `first` on."""

    __slots__ = (
        "_arrivals_ns", "_each_ns", "_parts", "_whole", "began_ns", "first", "n", "n_held", "n_open", "unread",
    )  # fmt: skip

    def __init__(self, first: int) -> None:
        self.first = first
        self.unread: list[Unread] = []
        self.n = self.n_held = self.began_ns = self.n_open = 0
        self._parts: list[Arrivals] = []
        self._arrivals_ns: list[int] = []
        self._whole: Arrivals | None = None
        self._each_ns: npt.NDArray[np.int64] | None = None

    def add(self, came: Arrivals, arrival_ns: int, n_held: int) -> None:
        """More messages; so many of them hold a packet id."""
        self._parts.append(came)
        self._arrivals_ns.append(arrival_ns)
        self.n += len(came)
        self.n_held += n_held
        self._whole = self._each_ns = None

    def __bool__(self) -> bool:
        return bool(self.n or self.unread)

    @property
    def came(self) -> Arrivals:
        """All of them."""
        if self._whole is None:
            self._whole = all_arrivals(self._parts)
        return self._whole

    @property
    def arrival_ns(self) -> int:
        """When the first one came."""
        return self._arrivals_ns[0] if self.n else self.unread[0].reject.arrival_ns

    def columns(self) -> MessageColumns:
        """As decoders take them."""
        topics, payloads = self.came.topics, self.came.payloads

        def make(
            number: int,
        ) -> TopicMessage:  # it must not know the columns: they would be a cycle, and stay
            return TopicMessage(topics[number], payloads[number], int(self.each_ns()[number]))

        return MessageColumns(topics, payloads, [None] * self.n, make, self.each_ns)

    def each_ns(self) -> npt.NDArray[np.int64]:
        """When each came, int64[n]: made where somebody asks."""
        if self._each_ns is None:
            # One clock reading for what came together; but what is refused is decoded by itself some day, and of two
            # frames of one time only the later would stay.
            parts = zip(self._parts, self._arrivals_ns, strict=True)
            self._each_ns = np.concatenate([np.arange(at_ns, at_ns + len(part)) for part, at_ns in parts])
        return self._each_ns

    def without_ids(self) -> list[tuple[Arrivals, int]]:
        """Those that do not come again, and when they came."""
        parts = zip(self._parts, self._arrivals_ns, strict=True)
        some = [(part.where(part.packet_ids == NO_ID), arrival_ns) for part, arrival_ns in parts]
        return [(part, arrival_ns) for part, arrival_ns in some if len(part)]


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
        self._n_taken = 0
        self._slice = Gathered(1)
        self._held = HeldIds()
        self._refused_in = _NEVER
        self._ready = asyncio.Event()
        self._landed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = 0
        self._finishing = False
        self.last_good_ns = NO_TIME
        self.n_messages = self.n_bytes = 0
        self.n_frames = 0
        self.n_samples = 0
        self.n_rejects = 0
        self.n_duplicates = 0
        self.decode_ns = 0
        self.latency = LatencyRing()
        self.skew = SkewMeter()
        self.listener: Listener | None = None
        self._open: dict[Gathered, None] = {}

    # --- from the connection -------------------------------------------------------------------------

    def take(self, came: Arrivals) -> None:
        """Take messages."""
        self.n_messages += len(came)
        self.n_bytes += len(came.payloads.data)
        generation = self._courier.generation
        if came.marks & WITH_ID and generation == self._refused_in:
            came = came.where(came.packet_ids == NO_ID)
        elif came.marks & AGAIN:
            came = self._new(came, generation)
        if not len(came):
            return
        taken, first, n_held = self._slice, self._n_taken + 1, 0
        self._n_taken += len(came)
        if came.marks & WITH_ID:
            n_held = self._held.hold(came.packet_ids, first, generation)
        self._begin(taken)
        arrival_ns = self._sink.clock.now_ns()
        if self.listener is not None:
            for topic, payload in zip(came.topics, came.payloads, strict=True):
                self.listener(Captured(arrival_ns, topic, payload))
        taken.add(came, arrival_ns, n_held)

    def _begin(self, taken: Gathered) -> None:
        """Before the first of a slice: it lasts from now on."""
        if not taken:
            taken.began_ns = monotonic_ns()
            self._timer = asyncio.get_running_loop().call_later(self._slice_s, self._ready.set)
            self._courier.pause()

    def refuse(self, reject: Reject, packet_id: int) -> None:
        """Take what is no message: it is kept, and acknowledged when that is durable."""
        generation = self._courier.generation
        if packet_id == NO_ID or generation != self._refused_in:
            self._begin(self._slice)
            self._slice.unread.append(Unread(reject, packet_id, generation))

    def _new(self, came: Arrivals, generation: int) -> Arrivals:
        """Messages without those that are here already and come again."""
        is_new = np.ones(len(came), np.bool_)
        for i in np.flatnonzero(came.flags & AGAIN).tolist():
            packet_id = int(came.packet_ids[i])
            is_new[i] = not self._is_held(packet_id, came.topics[i], came.payloads[i], generation)
        self.n_duplicates += len(came) - int(is_new.sum())
        return came if is_new.all() else came.where(is_new)

    def _is_held(self, packet_id: int, topic: str, payload: bytes, generation: int) -> bool:
        """Whether a message that comes again is here; then it is acknowledged where the broker waits for it."""
        held = self._held
        number = held.holder(packet_id)
        if not number:
            return False
        if held.is_late(packet_id):
            is_same = held.settle_late(packet_id, topic, payload)
            if is_same:
                self._courier.acknowledge(np.array([packet_id], np.int64))
            return is_same
        taken = next(one for one in (*self._open, self._slice) if one.first <= number < one.first + one.n)
        at = number - taken.first
        if (taken.came.topics[at], taken.came.payloads[at]) != (topic, payload):
            return False
        held.move(packet_id, generation)
        return True

    def forget(self) -> None:
        """The broker has no session of ours: what it sends from now on is new, whatever its packet id."""
        self._held.forget()

    @property
    def unacknowledged(self) -> tuple[int, int]:
        """QoS 1 messages that are not durable yet, and since when the oldest slice waits, ns; `NO_TIME` for none."""
        n = sum(taken.n_held for taken in (*self._open, self._slice))
        oldest = next(iter(self._open), None)
        return n, NO_TIME if oldest is None else oldest.arrival_ns

    # --- to the sink ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hand on slice by slice, until `finish` is called."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            await self.hand_on()
            if self._finishing:
                return

    async def hand_on(self) -> None:
        """Hand on what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        taken, self._slice = self._slice, Gathered(self._n_taken + 1)
        if taken:
            await self._hand_on(taken)
            self._courier.resume()

    def finish(self) -> None:
        """Hand on the rest at once; `run` returns when the sink has it."""
        self._finishing = True
        self._ready.set()

    async def landed(self) -> None:
        """Wait until everything that was handed on is durable."""
        while self._open:
            self._landed.clear()
            await self._landed.wait()

    async def _hand_on(self, taken: Gathered) -> None:
        cpu_ns = thread_cpu_ns()
        messages: Sequence[TopicMessage] = ()
        batches: Sequence[FrameBatch] = ()
        rejects: list[Reject] = []
        if taken.n:
            messages = taken.columns()
            batches, rejects = self._decoder.decode(messages, self._sink.clock.now_ns())
        rejects = [*rejects, *(one.reject for one in taken.unread)]
        self.decode_ns += thread_cpu_ns() - cpu_ns
        ack = self._opened(taken, len(batches) + len(rejects))
        is_given = False
        try:
            await self._give((taken, messages), batches, rejects, ack)
            is_given = True
        except Exception as e:
            self._refuse(f"messages are not taken: {str(e) or repr(e)}")
            return
        finally:
            if not is_given:
                self._withdraw(taken)
        if batches:
            self.last_good_ns = self._sink.clock.now_ns()

    async def _give(
        self,
        what: tuple[Gathered, Sequence[TopicMessage]],
        batches: Sequence[FrameBatch],
        rejects: list[Reject],
        ack: Ack,
    ) -> None:
        taken, messages = what
        for batch in batches:
            try:
                await self._sink.emit(batch.with_(sequence=self._sequence), ack)
            except PluginError as e:
                # A defect of ours, for ever: kept as rejects, or the messages would come again and again.
                defects = (self._decoder.defect(message, e) for message in messages)
                taken.n_open += add_defects(rejects, defects) - 1
                continue
            self._sequence += 1
            self.n_frames += batch.n_frames
            self.n_samples += batch.n_samples
            self.skew.note(batch.ts_ns, batch.arrival_ns)
        for reject in rejects:
            await self._sink.reject(reject, ack)
            self.n_rejects += 1

    def _refuse(self, reason: str) -> None:
        """What the sink does not take is never acknowledged: the broker sends it again on the next connection.

        So it does with what came behind it meanwhile. At QoS 0 nothing comes again: that is kept, and taken.
        """
        behind, kept = self._slice, Gathered(self._slice.first)
        self._withdraw(behind)
        for part, arrival_ns in behind.without_ids():
            kept.add(part, arrival_ns, 0)
        kept.unread = [one for one in behind.unread if one.packet_id == NO_ID]
        kept.began_ns, self._slice, self._n_taken = behind.began_ns, kept, kept.first - 1 + kept.n
        self._refused_in = self._courier.generation
        if self._on_refused is not None:
            self._on_refused()
        self._courier.drop(reason)

    def _withdraw(self, taken: Gathered) -> None:
        """It may never land: nobody waits for it, and whatever comes with its packet ids is new."""
        if taken.n_held:
            self._held.release(taken.came.packet_ids, taken.first)
        self._close(taken)

    def _opened(self, taken: Gathered, n_parts: int) -> Ack:
        """An ack to give with each of `n_parts`: the last one that runs acknowledges the slice."""
        self._open[taken] = None
        taken.n_open = max(1, n_parts)

        def ack() -> None:
            taken.n_open -= 1
            if not taken.n_open:
                self._acknowledge(taken)

        if not n_parts:
            ack()
        return ack

    def _acknowledge(self, taken: Gathered) -> None:
        self._close(taken)
        self.latency.add(seconds(monotonic_ns() - taken.began_ns))
        if taken.n_held:
            courier = self._courier
            now = self._held.settle(taken.came, taken.first, courier.generation if courier.is_up else _NEVER)
            if len(now):
                self._courier.acknowledge(now)
        generation = self._courier.generation if self._courier.is_up else _NEVER
        unread = [
            one.packet_id for one in taken.unread if one.generation == generation and one.packet_id != NO_ID
        ]
        if unread:
            self._courier.acknowledge(np.array(unread, np.int64))

    def _close(self, taken: Gathered) -> None:
        self._open.pop(taken, None)
        self._landed.set()
