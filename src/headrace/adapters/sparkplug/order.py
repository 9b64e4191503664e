"""Sequence numbers: messages of a node are handed on in the order in which it sent them.

A node numbers its messages, and those of its devices, from 0 to 255 and round again. A message that comes too early
waits for those before it, for a bounded time; then what waits is handed on, and what is missing is told.

Most messages are the next of their node: a kernel passes them by, many at a time, and stops at one that is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from headrace.adapters.broker.packets import NO_ID, Arrivals, one_arrival
from headrace.adapters.broker.session import MessageTaker
from headrace.adapters.payloads.columns import CodedTopics, TopicTally
from headrace.adapters.payloads.sparkplug_scanner import sequence_at, sequence_of
from headrace.adapters.sparkplug.topics import NodeTopic, read_topic
from headrace.core.events import Reject
from headrace.core.kernels import lean_kernel

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
N_HELD_MAX = 10_000
HELD_BYTES_MAX = 64 << 20
"""What waits of all nodes: so many messages, and so many bytes, for one message may have megabytes."""
N_NODES_MAX = 100_000
_ROUND, _LATE = 256, 128
_ANY, _NUMBERED, _OTHER = 0, 1, 2
"""Topics of nobody's order; of messages with a number; of births and deaths of nodes, and of our own STATE."""
_NO_LIFE = -1


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

    def acknowledge(self, packet_ids: I64) -> None:
        """Acknowledge messages of the present connection."""
        ...


class _Held(NamedTuple):
    """A message, and the connection that brought it."""

    came: Arrivals
    generation: int

    @property
    def packet_id(self) -> int:
        return int(self.came.packet_ids[0])

    @property
    def payload(self) -> bytes:
        return self.came.payloads.data


@dataclass(eq=False, slots=True)
class _Sequence:
    """What of a node came before its time; `number` is its place in the arrays."""

    number: int
    held: dict[int, _Held] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


@lean_kernel
def pass_by(
    first: int, topics: tuple[I64, U8, I64], payloads: tuple[U8, I64, I64], expected: I64, waiting: I64
) -> int:
    """The first message from `first` on that can't simply be handed on; nodes' numbers go on with those before it.

    Parameters
    ----------
    topics : of each message; of each topic kind and node. payloads : bytes, and where each ends and how long it is.
    expected : the number that is next of each node, ``_NO_LIFE`` for none. waiting : how many of it wait.
    """
    ids, kinds, nodes = topics
    data, ends, lengths = payloads
    for i in range(first, len(ids)):
        kind = kinds[ids[i]]
        if kind == _ANY:
            continue
        if kind == _OTHER:
            return i
        node = nodes[ids[i]]
        if expected[node] == _NO_LIFE:
            continue
        seq = sequence_at(data, ends[i] - lengths[i], ends[i])
        ahead = (seq - expected[node]) % _ROUND
        if seq < 0 or ahead >= _LATE:
            continue
        if ahead or waiting[node]:
            return i
        expected[node] = (seq + 1) % _ROUND
    return len(ids)


class _NodeNumbers:
    """Nodes as numbers: what is next of each, how many of it wait, and whose each topic is.

    Parameters
    ----------
    state_topic : of our own STATE, empty for none.
    """

    def __init__(self, state_topic: str) -> None:
        self.expected = np.full(64, _NO_LIFE, np.int64)
        self.waiting = np.zeros(64, np.int64)
        self._names: list[str] = []
        self._kinds = np.zeros(64, np.uint8)
        self._nodes = np.zeros(64, np.int64)
        self._n_topics = 0
        self._numbers: dict[tuple[str, str], int] = {}
        self._state_topic = state_topic

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, node_id: tuple[str, str]) -> int:
        """The number of a node."""
        number = self._numbers.setdefault(node_id, len(self._numbers))
        if number == len(self.expected):
            self.expected = np.concatenate([self.expected, np.full_like(self.expected, _NO_LIFE)])
            self.waiting = np.concatenate([self.waiting, np.zeros_like(self.waiting)])
        return number

    def of_topics(self, names: list[str], living: Mapping[tuple[str, str], _Sequence]) -> tuple[U8, I64]:
        """Kind and node of each topic; with a new table of topics nodes that do not live are forgotten."""
        if names is not self._names:
            self.forget(living, names)
        if len(names) > len(self._kinds):
            self._kinds = np.concatenate([self._kinds, np.zeros(2 * len(names), np.uint8)])
            self._nodes = np.concatenate([self._nodes, np.zeros(2 * len(names), np.int64)])
        for at in range(self._n_topics, len(names)):
            self._classify(at, names[at])
        self._n_topics = len(names)
        return self._kinds, self._nodes

    def _classify(self, at: int, topic: str) -> None:
        read = read_topic(topic)
        if read is None:
            self._kinds[at] = _OTHER if topic == self._state_topic else _ANY
            return
        self._kinds[at] = _OTHER if read.kind in ("NBIRTH", "NDEATH") else _NUMBERED
        self._nodes[at] = self.number(read.node_id)

    def forget(self, living: Mapping[tuple[str, str], _Sequence], names: list[str] | None = None) -> None:
        """Forget nodes that do not live, and whose each topic is; `names`: of those to begin with."""
        self._names, self._n_topics = [] if names is None else names, 0
        expected, waiting = self.expected, self.waiting
        self._numbers, self.expected, self.waiting = (
            {},
            np.full_like(expected, _NO_LIFE),
            np.zeros_like(waiting),
        )
        for node_id, node in living.items():
            old, node.number = node.number, self.number(node_id)
            self.expected[node.number], self.waiting[node.number] = expected[old], waiting[old]


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
        self._numbers = _NodeNumbers(state_topic)
        self._n_held = self._n_bytes = 0

    def take(self, came: Arrivals) -> None:
        """Take messages."""
        first, topics = 0, came.topics
        while first < len(came):
            stop = first
            if isinstance(topics, CodedTopics):
                numbers, payloads = self._numbers, came.payloads
                of_topics = topics.ids, *numbers.of_topics(topics.names, self._nodes)
                octets = np.frombuffer(payloads.data, np.uint8), payloads.ends, payloads.lengths
                stop = pass_by(first, of_topics, octets, numbers.expected, numbers.waiting)
            if stop > first:
                self._taker.take(came.rows(first, stop))
            if stop < len(came):
                self._take_one(topics[stop], came.rows(stop, stop + 1))
            first = stop + 1

    def _take_one(self, topic: str, came: Arrivals) -> None:
        message = _Held(came, self._line.generation)
        if topic == self._state_topic and self._on_state is not None:
            if message.packet_id != NO_ID:
                self._line.acknowledge(came.packet_ids)
            self._on_state(message.payload)
            return
        read = read_topic(topic)
        is_death = read is not None and read.kind == "NDEATH"
        seq = -1 if read is None or is_death else sequence_of(np.frombuffer(message.payload, np.uint8))
        if read is None or (seq < 0 and not is_death):
            self._hand_on(message)
        else:
            self._in_order(read, seq % _ROUND, message)

    def _in_order(self, read: NodeTopic, seq: int, message: _Held) -> None:
        node = self._nodes.get(read.node_id)
        if read.kind in ("NBIRTH", "NDEATH"):  # what waits belongs to the life before
            self._begin(read, seq, node)
            self._hand_on(message)
            return
        ahead = 0 if node is None else (seq - self._expected(node)) % _ROUND
        if node is None or ahead >= _LATE:  # of a life that we have not seen begin, or come too late
            self._hand_on(message)
        elif not ahead:
            self._hand_on(message)
            self._expect(node, seq + 1)
            self._go_on(node)
        else:
            self._hold(read.node_id, node, seq, message)

    def _begin(self, read: NodeTopic, seq: int, node: _Sequence | None) -> None:
        """End a node's life, and begin another where it is born."""
        if node is not None:
            self._release(node)
            self._numbers.expected[node.number] = _NO_LIFE
            del self._nodes[read.node_id]
        if read.kind == "NBIRTH" and len(self._nodes) < N_NODES_MAX:
            if len(self._numbers) > 2 * N_NODES_MAX:  # those that live, and as many in topics
                self._numbers.forget(self._nodes)
            node = self._nodes[read.node_id] = _Sequence(self._numbers.number(read.node_id))
            self._expect(node, seq + 1)

    def _expected(self, node: _Sequence) -> int:
        return int(self._numbers.expected[node.number])

    def _expect(self, node: _Sequence, seq: int) -> None:
        self._numbers.expected[node.number] = seq % _ROUND

    def _hold(self, node_id: tuple[str, str], node: _Sequence, seq: int, message: _Held) -> None:
        before = node.held.get(seq)
        if before is not None:
            self._let_go(node, seq)
            if (before.payload, before.packet_id) != (message.payload, message.packet_id):
                self._hand_on(before)  # two with one number: each is taken, and acknowledged
        node.held[seq] = message
        self._numbers.waiting[node.number] += 1
        self._n_held += 1
        self._n_bytes += len(message.payload)
        if node.timer is None:
            self._wait(node_id, node)
        if self._n_held > N_HELD_MAX or self._n_bytes > HELD_BYTES_MAX:
            self._give_up(node_id, node)

    def _let_go(self, node: _Sequence, seq: int) -> _Held:
        """A message waits no more."""
        message = node.held.pop(seq)
        self._numbers.waiting[node.number] -= 1
        self._n_held -= 1
        self._n_bytes -= len(message.payload)
        return message

    def _go_on(self, node: _Sequence) -> None:
        """Hand on what waited for the message that has just come."""
        while (seq := self._expected(node)) in node.held:
            message = self._let_go(node, seq)
            self.n_reordered += 1
            self._expect(node, seq + 1)
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
        expected = self._expected(node)
        for seq in sorted(node.held, key=lambda seq: (seq - expected) % _ROUND):
            self._hand_on(self._let_go(node, seq))
            self._expect(node, seq + 1)

    def _hand_on(self, message: _Held) -> None:
        if message.packet_id != NO_ID and message.generation != self._line.generation:
            return  # the broker sends it again, on the connection that there is now
        self._taker.take(message.came)

    def refuse(self, reject: Reject, packet_id: int) -> None:
        """Keep what is no message: it has no number, and waits for none."""
        self._taker.refuse(reject, packet_id)

    def forget(self) -> None:
        """The broker has no session of ours: what waits will not come again."""
        for node in self._nodes.values():
            for seq, (came, generation) in node.held.items():
                node.held[seq] = _Held(one_arrival(came.topics[0], came.payloads.data), generation)
        self._taker.forget()

    def finish(self) -> None:
        """Hand on all that waits."""
        for node in self._nodes.values():
            self._release(node)


def warm_order() -> None:
    """Compile what passes messages by, or load it from the cache."""
    one = np.zeros(1, np.int64)
    TopicTally().count(CodedTopics([""], one))
    pass_by(0, (one, np.zeros(1, np.uint8), one), (np.zeros(0, np.uint8), one, one), one.copy(), one)
