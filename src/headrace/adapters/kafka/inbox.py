"""Slices of messages on their way to the sink: decoded together, landed together."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from headrace.adapters.abilities import Captured, Listener
from headrace.adapters.base import Ack, Sink
from headrace.adapters.kafka.config import message_time
from headrace.adapters.kafka.ledger import OffsetLedger, OffsetSpan, Place
from headrace.adapters.meters import LatencyRing, seconds
from headrace.adapters.payloads.base import MessageColumns, TopicMessage, add_defects
from headrace.adapters.payloads.router import MessageRouter
from headrace.core.clock import NO_TIME, monotonic_ns, thread_cpu_ns
from headrace.core.errors import HeadraceError, PluginError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch


class NotTaken(HeadraceError):
    """The sink does not take what came: it has to come again."""


@dataclass(eq=False, slots=True)
class _Slice:
    """Messages that are decoded and committed together."""

    messages: MessageColumns
    spans: Collection[OffsetSpan]
    arrival_ns: int
    began_ns: int
    n_open: int = 0


def topic_message(one: Message, arrival_ns: int) -> TopicMessage:
    """A message as the rules take it; it is no tombstone, which says nothing of any sensor."""
    payload, offset = one.value(), one.offset()
    assert payload is not None
    kind, ts_ms = one.timestamp()
    time_ns = NO_TIME if kind == TIMESTAMP_NOT_AVAILABLE else message_time(ts_ms, offset)
    return TopicMessage(one.topic(), payload, arrival_ns, time_ns, one.key(), (one.partition(), offset))


def message_columns(found: Sequence[Message], arrival_ns: int) -> MessageColumns:
    """Messages as the rules take them, without tombstones: nothing is made for any of them here."""
    payloads = [one.value() for one in found]
    if None in payloads:
        found = [one for one in found if one.value() is not None]
        payloads = [one.value() for one in found]
    return MessageColumns(
        [one.topic() for one in found],
        payloads,
        [one.key() for one in found],
        lambda number: topic_message(found[number], arrival_ns),
    )


def captured(message: TopicMessage) -> Captured:
    """A message for whoever listens, with all that decoding it takes."""
    partition, offset = message.place
    about = {"partition": str(partition), "offset": str(offset)}
    if message.time_ns != NO_TIME:
        about["time_ns"] = str(message.time_ns)
    if message.key is not None:
        about["key_hex"] = message.key.hex()
    return Captured(message.arrival_ns, message.topic, message.payload, about=about)


def of_captured(one: Captured) -> TopicMessage:
    """The message that was heard."""
    about = one.about
    key = bytes.fromhex(about["key_hex"]) if "key_hex" in about else None
    place = int(about.get("partition", 0)), int(about.get("offset", 0))
    return TopicMessage(one.source, one.data, one.ts_ns, int(about.get("time_ns", NO_TIME)), key, place)


class KafkaInbox:
    """Hands the frames of messages to the sink, and tells the ledger what has landed."""

    def __init__(self, sink: Sink, router: MessageRouter, ledger: OffsetLedger) -> None:
        self._sink = sink
        self._router = router
        self._ledger = ledger
        self._landed = asyncio.Event()
        self._open: dict[_Slice, None] = {}
        self._sequence = 0
        self.last_good_ns = NO_TIME
        self.n_messages = self.n_bytes = 0
        self.n_frames = 0
        self.n_samples = 0
        self.n_rejects = 0
        self.decode_ns = 0
        self.transport_ns = 0
        self.latency = LatencyRing()
        self.listener: Listener | None = None

    @property
    def unacknowledged(self) -> tuple[int, int]:
        """Messages that are not durable yet, and since when the oldest slice waits, ns; `NO_TIME` for none."""
        oldest = next(iter(self._open), None)
        n_messages = sum(len(taken.messages) for taken in self._open)
        return n_messages, NO_TIME if oldest is None else oldest.arrival_ns

    async def hand_on(self, found: Sequence[Message]) -> None:
        """Decode messages and give them to the sink; waits for credit.

        Raises
        ------
        NotTaken : the sink refuses; nothing of it will be committed.
        """
        taken = self._taken(found)
        self.n_messages += len(taken.messages)
        self.n_bytes += sum(map(len, taken.messages.payloads))
        cpu_ns = thread_cpu_ns()
        batches, rejects = self._router.decode(taken.messages, self._sink.clock.now_ns())
        self.decode_ns += thread_cpu_ns() - cpu_ns
        ack = self._opened(taken, len(batches) + len(rejects))
        is_given = False
        try:
            await self._give(taken, batches, rejects, ack)
            is_given = True
        finally:
            if not is_given:
                self._close(taken)  # it may never land: nobody waits for it
        if batches:
            self.last_good_ns = self._sink.clock.now_ns()

    async def _give(
        self, taken: _Slice, batches: Sequence[FrameBatch], rejects: list[Reject], ack: Ack
    ) -> None:
        try:
            for batch in batches:
                try:
                    await self._sink.emit(batch.with_(sequence=self._sequence), ack)
                except PluginError as e:
                    # A defect of ours, for ever: kept as rejects, or the messages would come again and again.
                    defects = (self._router.defect(message, e) for message in taken.messages)
                    taken.n_open += add_defects(rejects, defects) - 1
                    continue
                self._sequence += 1
                self.n_frames += batch.n_frames
                self.n_samples += batch.n_samples
            for reject in rejects:
                await self._sink.reject(reject, ack)
                self.n_rejects += 1
        except Exception as e:
            raise NotTaken(f"messages are not taken: {str(e) or repr(e)}") from e

    def _taken(self, found: Sequence[Message]) -> _Slice:
        """The messages of a slice, without those of partitions that were taken from us meanwhile."""
        cpu_ns, arrival_ns = thread_cpu_ns(), self._sink.clock.now_ns()
        offsets: dict[Place, list[int]] = defaultdict(list)
        for one in found:
            offsets[one.topic(), one.partition()].append(one.offset())
        spans = self._ledger.take(offsets)
        if len(spans) < len(offsets):
            found = [one for one in found if (one.topic(), one.partition()) in spans]
        messages = message_columns(found, arrival_ns)
        if self.listener is not None:
            for message in messages:
                self.listener(captured(message))
        self.transport_ns += thread_cpu_ns() - cpu_ns
        return _Slice(messages, spans.values(), arrival_ns, monotonic_ns())

    async def landed(self) -> None:
        """Wait until everything that was handed on is durable."""
        while self._open:
            self._landed.clear()
            await self._landed.wait()

    def _opened(self, taken: _Slice, n_parts: int) -> Ack:
        """An ack to give with each of `n_parts`: the last one that runs lands the slice."""
        self._open[taken] = None
        taken.n_open = max(1, n_parts)

        def ack() -> None:
            taken.n_open -= 1
            if not taken.n_open:
                self._close(taken)
                self.latency.add(seconds(monotonic_ns() - taken.began_ns))
                self._ledger.land(taken.spans)

        if not n_parts:
            ack()
        return ack

    def _close(self, taken: _Slice) -> None:
        self._open.pop(taken, None)
        self._landed.set()
