"""What a broker sends, by columns: PUBLISH packets are taken out of the bytes in a kernel, many at a time.

gmqtt takes 3 us of CPU for each packet to find where it ends, what it says and whom to call; here it is 50 to 100 ns, and
nothing is made for a message but numbers and its bytes. What is no plain PUBLISH of QoS 0 or 1 (another packet,
properties of version 5, a topic that is no text) is left to gmqtt, in its turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.columns import CodedTopics, JoinedPayloads, joined
from headrace.core.kernels import kernel, lean_kernel, lean_leaf

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

AGAIN, RETAINED, WITH_ID = 1, 2, 4
"""Flags of a message: it is sent again (DUP), the topic has kept it, it has a packet id (QoS 1)."""
NO_ID = -1
N_TOPICS_MAX = 100_000
TOPIC_BYTES_MAX = 16 << 20
"""Topics that are known at a time, and how many bytes they take; then the memory begins anew."""
MORE, NEW_TOPIC, OTHER, BROKEN = 0, 1, 2, 3
"""Why framing stops: the rest is not there yet, a topic is not known, a packet is gmqtt's, no packet can be that long."""
AT, WHY, FOUND, BYTES, MARKS, TOPIC, TOPIC_END, PACKET_END = range(8)
_PUBLISH, _QOS, _DUP, _RETAIN, _QOS_1 = 0x30, 0x06, 0x08, 0x01, 0x02
_LENGTH_BYTES_MAX = 4
_PACKET_BYTES_MIN = 5
_N_PROBES_MAX = 64
_NONE = -1


class TopicIndex(NamedTuple):
    """Topics that are known: their bytes, where each ends, its hash; in buckets by hash, ``_NONE`` where there is none."""

    arena: U8
    ends: I64
    hashes: I64
    buckets: I64


class PacketRows(NamedTuple):
    """What was found: of each message topic, length, packet id and flags, their payloads one behind the other."""

    topics: I64
    lengths: I64
    packet_ids: I64
    flags: U8
    body: U8


def _hash(data: U8, at: int, end: int) -> int:
    """32 bits that depend on every byte of a topic (FNV-1a)."""
    value = 2_166_136_261
    for i in range(at, end):
        value = ((value ^ int(data[i])) * 16_777_619) & 0xFFFFFFFF
    return value ^ (value >> 15)


_hash_of = lean_leaf(_hash)


@lean_kernel
def hash_topic(topic: U8) -> int:
    """The hash of a topic."""
    return _hash_of(topic, 0, len(topic))


@lean_kernel
def _place(buckets: I64, hashes: I64, first: int, last: int, n_probes: int) -> bool:
    """Put topics where they are found, a few probes from where they belong; False where the last one's places are taken."""
    mask, is_placed = len(buckets) - 1, True
    for number in range(first, last):
        probe = 0
        while probe < n_probes and buckets[(hashes[number] + probe) & mask] != _NONE:
            probe += 1
        is_placed = probe < n_probes
        if is_placed:
            buckets[(hashes[number] + probe) & mask] = number
    return is_placed


@lean_leaf
def _is_topic(data: U8, at: int, end: int, index: TopicIndex, row: int) -> bool:
    """Whether bytes are those of a topic."""
    start = index.ends[row - 1] if row else 0
    n = index.ends[row] - start if index.ends[row] - start == end - at else _NONE
    i = 0
    while i < n and data[at + i] == index.arena[start + i]:
        i += 1
    return bool(i == n)


@lean_leaf
def _find(data: U8, at: int, end: int, index: TopicIndex) -> int:
    """The number of a topic; none where it is not known."""
    mask, hashed = len(index.buckets) - 1, _hash_of(data, at, end)
    place = hashed & mask
    while index.buckets[place] != _NONE:
        row = index.buckets[place]
        if index.hashes[row] == hashed and _is_topic(data, at, end, index, row):
            return int(row)
        place = (place + 1) & mask
    return _NONE


@lean_leaf
def _length(data: U8, at: int) -> tuple[int, int]:
    """A packet's length and where it begins; (_NONE, 0) where its bytes are not all there, (_NONE, 1) for too many of them."""
    value = 0
    for i in range(_LENGTH_BYTES_MAX):
        if at + i >= len(data):
            return _NONE, 0
        byte = int(data[at + i])
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    return _NONE, 1


# Not a lean one: a payload is copied as a slice, which allocates a view, and takes a third of the time of a loop.
@kernel
def frame(data: U8, is_five: int, index: TopicIndex, rows: PacketRows, state: I64) -> None:
    """Take PUBLISH packets out of `data` from ``state[AT]`` on, behind ``state[FOUND]`` others; `state` says why it ends."""
    at, n, n_bytes, marks = int(state[AT]), int(state[FOUND]), int(state[BYTES]), int(state[MARKS])
    why = MORE
    while True:
        length, body = _length(data, at + 1)
        if length == _NONE:
            why = BROKEN if body else MORE
            break
        end = body + length
        if end > len(data):
            break
        head = int(data[at])
        state[PACKET_END] = end
        why = OTHER
        if head & 0xF0 != _PUBLISH or head & _QOS > _QOS_1 or length < 2:
            break
        topic = body + 2
        topic_end = topic + (int(data[body]) << 8 | int(data[body + 1]))
        payload, packet_id = topic_end, NO_ID
        if head & _QOS:
            payload += 2
        if topic_end == topic or payload + is_five > end or (is_five and data[payload] != 0):
            break  # no topic, too short, or with properties
        if head & _QOS:
            packet_id = int(data[payload - 2]) << 8 | int(data[payload - 1])
        number = _find(data, topic, topic_end, index)
        if number == _NONE:
            why = NEW_TOPIC
            state[TOPIC], state[TOPIC_END] = topic, topic_end
            break
        payload += is_five
        flags = AGAIN if head & _DUP and head & _QOS else 0
        flags |= RETAINED if head & _RETAIN else 0
        flags |= WITH_ID if head & _QOS else 0
        rows.topics[n], rows.lengths[n] = number, end - payload
        rows.packet_ids[n], rows.flags[n] = packet_id, flags
        rows.body[n_bytes : n_bytes + end - payload] = data[payload:end]
        n_bytes += end - payload
        marks |= flags
        n += 1
        at = end
        why = MORE
    state[AT], state[WHY], state[FOUND], state[BYTES], state[MARKS] = at, why, n, n_bytes, marks


class Arrivals:
    """Messages in the order in which they came.

    Parameters
    ----------
    packet_ids : `NO_ID` at QoS 0. flags : `AGAIN`, `RETAINED`, `WITH_ID`. marks : all that may be in `flags`.
    """

    __slots__ = ("flags", "marks", "packet_ids", "payloads", "topics")

    def __init__(
        self, topics: Sequence[str], payloads: JoinedPayloads, packet_ids: I64, flags: U8, marks: int
    ) -> None:
        self.topics, self.payloads = topics, payloads
        self.packet_ids, self.flags, self.marks = packet_ids, flags, marks

    def __len__(self) -> int:
        return len(self.flags)

    def rows(self, first: int, last: int) -> Arrivals:
        """Those from `first` to before `last`."""
        if first == 0 and last == len(self):
            return self
        some = slice(first, last)
        return Arrivals(
            self.topics[some], self.payloads[some], self.packet_ids[some], self.flags[some], self.marks
        )

    def where(self, kept: npt.NDArray[np.bool_]) -> Arrivals:
        """Those that are to be kept."""
        which = np.flatnonzero(kept).tolist()
        topics = self.topics
        some = topics.where(kept) if isinstance(topics, CodedTopics) else [topics[i] for i in which]
        payloads = joined([self.payloads[i] for i in which])
        return Arrivals(some, payloads, self.packet_ids[kept], self.flags[kept], self.marks)


def one_arrival(
    topic: str,
    payload: bytes,
    packet_id: int | None = None,
    is_again: bool = False,
    is_retained: bool = False,
) -> Arrivals:
    """A message alone."""
    flags = (AGAIN if is_again else 0) | (RETAINED if is_retained else 0)
    flags |= 0 if packet_id is None else WITH_ID
    ids = np.array([NO_ID if packet_id is None else packet_id], np.int64)
    return Arrivals([topic], joined([payload]), ids, np.array([flags], np.uint8), flags)


def all_arrivals(parts: Sequence[Arrivals]) -> Arrivals:
    """Messages of many parts as one."""
    if len(parts) == 1:
        return parts[0]
    return Arrivals(
        _all_topics([part.topics for part in parts]),
        JoinedPayloads(
            b"".join([part.payloads.data for part in parts]),
            np.concatenate([part.payloads.lengths for part in parts]),
        ),
        np.concatenate([part.packet_ids for part in parts]),
        np.concatenate([part.flags for part in parts]),
        int(np.bitwise_or.reduce([part.marks for part in parts])),
    )


def _all_topics(parts: Sequence[Sequence[str]]) -> Sequence[str]:
    """Topics one behind the other, as numbers if they are of one table."""
    numbered = [part for part in parts if isinstance(part, CodedTopics)]
    if len(numbered) == len(parts) and all(part.names is numbered[0].names for part in numbered):
        return CodedTopics(numbered[0].names, np.concatenate([part.ids for part in numbered]))
    return [topic for part in parts for topic in part]


def flaw_of(head: int, body: bytes) -> tuple[str, int]:
    """Why a PUBLISH packet that gmqtt does not take can't be read, and its packet id; `NO_ID` where none can be found."""
    topic_end = 2 + int.from_bytes(body[:2], "big")
    end = topic_end + (2 if head & _QOS else 0)
    if head & _QOS == _QOS:
        return "it is of QoS 3, which there is not", NO_ID
    if len(body) < end:
        return f"topic and packet id would take {end:,} bytes, it has {len(body):,}", NO_ID
    packet_id = int.from_bytes(body[topic_end:end], "big") if head & _QOS else NO_ID
    if topic_end == 2:
        return "it has no topic, and no alias of one that is known", packet_id
    return "its properties can't be read", packet_id


class TopicTable:
    """Numbers of topics. Where there are too many it begins anew, with another list of names."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.names: list[str] = []
        self._n_bytes = 0
        self.index = TopicIndex(
            np.zeros(1 << 12, np.uint8), np.zeros(64, np.int64), np.zeros(64, np.int64), np.full(256, _NONE, np.int64)
        )  # fmt: skip

    @property
    def is_full(self) -> bool:
        """Whether no more topics are taken before it begins anew."""
        return len(self.names) >= N_TOPICS_MAX or self._n_bytes >= TOPIC_BYTES_MAX

    def add(self, topic: bytes) -> bool:
        """Make a topic known; False where it is no text, or where too many others have its hash."""
        try:
            name = topic.decode()
        except UnicodeDecodeError:
            return False
        if self.is_full:
            self._begin()
        arena, ends, hashes, buckets = self.index
        number, end = len(self.names), self._n_bytes + len(topic)
        if end > len(arena):
            arena = np.concatenate([arena, np.zeros(max(end, len(arena)), np.uint8)])
        if number == len(ends):
            ends, hashes = (np.concatenate([one, np.zeros_like(one)]) for one in (ends, hashes))
        if 4 * number >= len(buckets):
            buckets = np.full(2 * len(buckets), _NONE, np.int64)
            _place(buckets, hashes, 0, number, len(buckets))
        octets = np.frombuffer(topic, np.uint8)
        arena[self._n_bytes : end] = octets
        ends[number], hashes[number] = end, hash_topic(octets)
        self.index = TopicIndex(arena, ends, hashes, buckets)
        if not _place(buckets, hashes, number, number + 1, _N_PROBES_MAX):
            return False
        self.names.append(name)
        self._n_bytes = end
        return True


class PacketFramer:
    """Takes packets out of what a connection brings.

    Parameters
    ----------
    topics : outlives connections.
    """

    def __init__(self, topics: TopicTable) -> None:
        self._topics = topics
        self._rows = _rows(1 << 16)
        self._state = np.zeros(8, np.int64)

    def next(self, data: bytes, at: int, is_five: bool) -> tuple[Arrivals | None, int, int, int]:
        """Messages from `at` on, where they end, and why; behind `NEW_TOPIC` ask again, for `OTHER` where that packet ends."""
        octets = np.frombuffer(data, np.uint8)
        if len(octets) > len(self._rows.body):
            self._rows = _rows(2 * len(octets))
        topics, state = self._topics, self._state
        state[AT], state[FOUND], state[BYTES], state[MARKS] = at, 0, 0, 0
        frame(octets, int(is_five), topics.index, self._rows, state)
        # Before topics begin anew, messages that have the old numbers go.
        while state[WHY] == NEW_TOPIC and not (topics.is_full and state[FOUND]):
            if not topics.add(data[state[TOPIC] : state[TOPIC_END]]):
                state[WHY] = OTHER
                break
            frame(octets, int(is_five), topics.index, self._rows, state)
        at, why, n, n_bytes, marks, _, _, end = state.tolist()
        return self._taken(n, n_bytes, marks) if n else None, at, why, end

    def _taken(self, n: int, n_bytes: int, marks: int) -> Arrivals:
        rows = self._rows
        return Arrivals(
            CodedTopics(self._topics.names, rows.topics[:n].copy()),
            JoinedPayloads(rows.body[:n_bytes].tobytes(), rows.lengths[:n].copy()),
            rows.packet_ids[:n].copy(), rows.flags[:n].copy(), marks,
        )  # fmt: skip


def _rows(n_bytes: int) -> PacketRows:
    n = n_bytes // _PACKET_BYTES_MIN + 1
    return PacketRows(
        np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.uint8),
        np.empty(n_bytes, np.uint8),
    )  # fmt: skip
