"""Sequence numbers: messages of a node are handed on in the order in which it sent them.

A node numbers its messages, and those of its devices, from 0 to 255 and round again. A message that comes too early
waits for those before it, for a bounded time; then what waits is handed on, and what is missing is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from headrace.adapters.broker.session import MessageTaker
from headrace.adapters.payloads.sparkplug_scanner import sequence_of
from headrace.adapters.sparkplug.topics import NodeTopic, read_topic

N_HELD_MAX = 10_000
N_NODES_MAX = 100_000
_ROUND, _LATE = 256, 128


class ReadLine(Protocol):
    """What is asked of the connection."""

    @property
    def generation(self) -> int:
        """Number of the present connection."""
        ...

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read from it for now."""
        ...

    def acknowledge(self, packet_ids: list[int]) -> None:
        """Acknowledge messages of the present connection."""
        ...


class _Held(NamedTuple):
    topic: str
    payload: bytes
    packet_id: int | None
    is_again: bool
    generation: int


@dataclass(eq=False, slots=True)
class _Sequence:
    """What a node has sent: the number that is next, and what came before its time."""

    expected: int
    held: dict[int, _Held] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


class SequenceGate:
    """Between the session and the inbox.

    Parameters
    ----------
    wait_s : how long a missing message is waited for, in real seconds.
    on_gap : told the node of which messages are missing for good.
    state_topic : of our own STATE, empty for none; on_state : told what the broker says of us.

    Attributes
    ----------
    n_gaps : how often messages were missing for good; n_reordered : messages that waited and were in time.
    """

    def __init__(
        self,
        taker: MessageTaker,
        line: ReadLine,
        wait_s: float,
        on_gap: Callable[[tuple[str, str]], None],
        state_topic: str = "",
        on_state: Callable[[bytes], None] | None = None,
    ) -> None:
        self.n_gaps = 0
        self.n_reordered = 0
        self._taker = taker
        self._line = line
        self._wait_s = wait_s
        self._on_gap = on_gap
        self._state_topic = state_topic
        self._on_state = on_state
        self._nodes: dict[tuple[str, str], _Sequence] = {}
        self._n_held = 0

    def take(self, topic: str, payload: bytes, packet_id: int | None, is_again: bool) -> None:
        """Take one message."""
        if topic == self._state_topic and self._on_state is not None:
            if packet_id is not None:
                self._line.acknowledge([packet_id])
            self._on_state(payload)
            return
        read = read_topic(topic)
        seq = -1 if read is None or read.kind == "NDEATH" else sequence_of(np.frombuffer(payload, np.uint8))
        message = _Held(topic, payload, packet_id, is_again, self._line.generation)
        if read is None or (seq < 0 and read.kind != "NDEATH"):
            self._hand_on(message)
        else:
            self._in_order(read, seq % _ROUND, message)

    def _in_order(self, read: NodeTopic, seq: int, message: _Held) -> None:
        node = self._nodes.get(read.node_id)
        if read.kind in ("NBIRTH", "NDEATH"):  # what waits belongs to the life before
            if node is not None:
                self._release(node)
            if read.kind == "NBIRTH" and len(self._nodes) < N_NODES_MAX:
                self._nodes[read.node_id] = _Sequence((seq + 1) % _ROUND)
            else:
                self._nodes.pop(read.node_id, None)
            self._hand_on(message)
            return
        ahead = 0 if node is None else (seq - node.expected) % _ROUND
        if node is None or ahead >= _LATE:  # of a life that we have not seen begin, or come too late
            self._hand_on(message)
        elif not ahead:
            self._hand_on(message)
            node.expected = (seq + 1) % _ROUND
            self._go_on(node)
        else:
            self._hold(read.node_id, node, seq, message)

    def _hold(self, node_id: tuple[str, str], node: _Sequence, seq: int, message: _Held) -> None:
        before = node.held.get(seq)
        if before is None:
            self._n_held += 1
        elif (before.payload, before.packet_id) != (message.payload, message.packet_id):
            self._hand_on(before)  # two with one number: each is taken, and acknowledged
        node.held[seq] = message
        if node.timer is None:
            self._wait(node_id, node)
        if self._n_held > N_HELD_MAX:
            self._give_up(node_id, node)

    def _go_on(self, node: _Sequence) -> None:
        """Hand on what waited for the message that has just come."""
        while (message := node.held.pop(node.expected, None)) is not None:
            self._n_held -= 1
            self.n_reordered += 1
            node.expected = (node.expected + 1) % _ROUND
            self._hand_on(message)
        if not node.held and node.timer is not None:
            node.timer.cancel()
            node.timer = None

    def _wait(self, node_id: tuple[str, str], node: _Sequence) -> None:
        loop = asyncio.get_running_loop()
        node.timer = loop.call_later(self._wait_s, self._is_due, node_id, node)

    def _is_due(self, node_id: tuple[str, str], node: _Sequence) -> None:
        """Wait on while nothing is read: what is missing may lie there."""
        if self._line.is_paused:
            self._wait(node_id, node)
        else:
            self._give_up(node_id, node)

    def _give_up(self, node_id: tuple[str, str], node: _Sequence) -> None:
        """What is missing does not come."""
        self.n_gaps += 1
        self._release(node)
        self._on_gap(node_id)

    def _release(self, node: _Sequence) -> None:
        """Hand on all that waits, in order."""
        if node.timer is not None:
            node.timer.cancel()
            node.timer = None
        for seq in sorted(node.held, key=lambda seq: (seq - node.expected) % _ROUND):
            self._n_held -= 1
            self._hand_on(node.held[seq])
            last = seq
        if node.held:
            node.expected = (last + 1) % _ROUND
            node.held.clear()

    def _hand_on(self, message: _Held) -> None:
        topic, payload, packet_id, is_again, generation = message
        if packet_id is not None and generation != self._line.generation:
            return  # the broker sends it again, on the connection that there is now
        self._taker.take(topic, payload, packet_id, is_again)

    def forget(self) -> None:
        """The broker has no session of ours: what waits will not come again."""
        for node in self._nodes.values():
            for seq, message in node.held.items():
                node.held[seq] = message._replace(packet_id=None)
        self._taker.forget()

    def finish(self) -> None:
        """Hand on all that waits."""
        for node in self._nodes.values():
            self._release(node)
