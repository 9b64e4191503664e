"""Packets out of bytes: as gmqtt would take them, wherever the bytes are cut."""

from types import SimpleNamespace

import numpy as np
import pytest
from gmqtt.mqtt.protocol import MQTTProtocol
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.adapters.broker import packets
from headrace.adapters.broker.client import BrokerClient, Stay
from headrace.adapters.broker.packets import (
    AGAIN,
    BROKEN,
    MORE,
    NEW_TOPIC,
    NO_ID,
    OTHER,
    RETAINED,
    WITH_ID,
    PacketFramer,
    TopicTable,
    all_arrivals,
    one_arrival,
)
from headrace.adapters.payloads.columns import CodedTopics, JoinedPayloads, joined

PINGRESP = b"\xd0\x00"


def packet(head, body):
    length, out = len(body), bytearray([head])
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*out, length]) + body


def publish(topic, payload, packet_id=None, flags=0, properties=None):
    """PUBLISH; `properties` are those of version 5, None: version 3.1.1."""
    name = topic if isinstance(topic, bytes) else topic.encode()
    body = len(name).to_bytes(2, "big") + name + (b"" if packet_id is None else packet_id.to_bytes(2, "big"))
    body += b"" if properties is None else bytes([len(properties)]) + properties
    return packet(0x30 | flags | (0 if packet_id is None else 2), body + payload)


def rows(came):
    return list(zip(came.topics, came.payloads, came.packet_ids.tolist(), came.flags.tolist(), strict=True))


class Reader:
    """A client without a connection, and what it hands on."""

    def __init__(self, is_five=False, topics=None):
        self.rows, self.parts = [], []
        self.client = BrokerClient(
            "x", lambda kept: None, self.take, lambda reason: None, Stay.BRIEF, None, topics
        )
        self.client._connection_state.protocol_version = 5 if is_five else 4
        self.wire = SimpleNamespace(put_package=self.client._package_handler, _last_data_in=0.0)

    def take(self, came):
        self.parts.append(came)
        self.rows += rows(came)

    def read(self, data):
        return self.client._read(self.wire, data)

    def read_by_gmqtt(self, data):
        return MQTTProtocol._read_packet(SimpleNamespace(_connection=self.wire), data)


TOPICS = st.one_of(st.sampled_from(["a", "a/b", "a/c", "é"]), st.text("abc/", max_size=9), st.just(b"\xff/x"))
MESSAGES = st.builds(
    lambda topic, payload, packet_id, flags, has_expiry: (topic, payload, packet_id, flags, has_expiry),
    TOPICS, st.binary(max_size=200), st.none() | st.integers(1, 65_535), st.sampled_from([0, 1, 8, 9]),
    st.booleans(),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(MESSAGES | st.just(PINGRESP), max_size=12), st.booleans(), st.data())
def test_as_gmqtt_takes_them_wherever_the_bytes_are_cut(messages, is_five, data):
    def written(one):
        if one is PINGRESP:
            return one
        topic, payload, packet_id, flags, has_expiry = one
        properties = (b"\x02\x00\x00\x00\x09" if has_expiry else b"") if is_five else None
        return publish(topic, payload, packet_id, flags, properties)

    stream = b"".join(map(written, messages))
    reference, reader = Reader(is_five), Reader(is_five)
    assert reference.read_by_gmqtt(stream) == len(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=3)))
    waiting = b""
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        waiting += stream[start:end]
        waiting = waiting[reader.read(waiting) :]
    assert waiting == b""
    assert reader.rows == reference.rows


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0x30, 0x32, 0x3B, 0x34, 0x90, 0xE0]), st.binary(max_size=9)), max_size=6
    ),
    st.binary(max_size=6),
    st.booleans(),
)
def test_of_any_bytes_each_packet_is_taken_once(bodies, rest, is_five):
    data = b"".join(packet(head, body) for head, body in bodies) + rest
    wholes, others, reader = [], [], Reader(is_five)
    reference = SimpleNamespace(_connection=SimpleNamespace(put_package=wholes.append))
    reader.wire.put_package = others.append
    taken, expected = reader.read(data), MQTTProtocol._read_packet(reference, data)
    if taken == -1:  # gmqtt waits for what so long a packet would have
        assert any(min(rest[i : i + 4]) >= 0x80 for i in range(len(rest) - 3))
    else:
        assert taken == expected
    assert len(reader.rows) + len(others) == len(wholes)
    assert [(one.cmd, one.data) for one in others] == [
        (one.cmd, one.data) for one in wholes if (one.cmd, one.data) in {(o.cmd, o.data) for o in others}
    ]


@pytest.mark.parametrize(
    ("head", "body", "why", "packet_id"),
    [
        (0x30, b"", "topic and packet id would take 2 bytes, it has 0", NO_ID),
        (0x30, b"\x00\x09a", "topic and packet id would take 11 bytes, it has 3", NO_ID),
        (0x32, b"\x00\x01a\x07", "topic and packet id would take 5 bytes, it has 4", NO_ID),
        (0x36, b"\x00\x01a\x00\x07\x00", "it is of QoS 3, which there is not", NO_ID),
        (0x32, b"\x00\x00\x00\x07\x03\x23\x00\x05x", "it has no topic, and no alias of one that is known", 7),
        (0x30, b"\x00\x00\x00x", "it has no topic, and no alias of one that is known", NO_ID),
        (0x34, b"\x00\x01a\x01\x00\x02\x7e\x01x", "its properties can't be read", 256),
        (0x30, b"\x00\x01a\x05\x02x", "its properties can't be read", NO_ID),
    ],
)
def test_a_message_that_can_not_be_read_is_told_and_the_next_one_is_read(head, body, why, packet_id):
    reader, told = Reader(is_five=True), []
    reader.client.on_unread = lambda *one: told.append(one)
    bad = packet(head, body)
    good = publish("a", b"1", properties=b""), publish("b", b"2", 8, properties=b"\x02\x00\x00\x00\x09")
    stream = good[0] + bad + PINGRESP + good[1]
    assert reader.read(stream) == len(stream)
    assert told == [(bad, why, packet_id)]
    assert [row[:3] for row in reader.rows] == [("a", b"1", NO_ID), ("b", b"2", 8)]


def test_plain_messages_are_taken_together_and_odd_ones_in_their_turn():
    reader = Reader(is_five=True)
    said = [
        ("a", b"1", 1, WITH_ID),
        ("b", b"2", NO_ID, RETAINED),
        ("a", b"3", 2, WITH_ID | AGAIN),
        ("a", b"4", NO_ID, 0),
    ]
    plain = [publish("a", b"1", 1, 0, b""), publish("b", b"2", None, 1, b""), publish("a", b"3", 2, 8, b"")]
    odd = publish("a", b"4", None, 0, b"\x02\x00\x00\x00\x09")
    stream = b"".join([*plain, odd, *plain, packet(0x40, bytes(200)), PINGRESP])
    assert reader.read(stream) == len(stream)
    assert [len(part) for part in reader.parts] == [3, 1, 3]
    assert reader.rows == [*said[:3], said[3], *said[:3]]
    assert reader.wire._last_data_in > 0
    first, odd_one, second = reader.parts
    assert isinstance(first.topics, CodedTopics)
    together = all_arrivals([first, second])
    assert isinstance(together.topics, CodedTopics)
    assert rows(together) == [*said[:3], *said[:3]]
    assert rows(all_arrivals([first, odd_one])) == said
    assert rows(first.where(np.array([True, False, True]))) == [said[0], said[2]]
    assert rows(odd_one.where(np.array([True]))) == [said[3]]
    assert rows(first.rows(1, 3)) == said[1:3]
    assert rows(one_arrival("a", b"3", 2, is_again=True)) == [said[2]]


def test_what_can_be_no_packet_ends_the_connection():
    reader = Reader()
    assert reader.read(publish("a", b"1") + b"\x30\xff\xff\xff\xff\x01") == -1
    assert reader.rows == [("a", b"1", NO_ID, 0)]
    for start in (b"", b"\x30", b"\x30\xff\xff\xff", b"\x30\x05\x00"):
        assert reader.read(start) == 0
    reader.read(packet(0x30, b"\x00") + packet(0x30, b"\x00\x00x") + packet(0x32, b"\x00\x01a"))
    assert len(reader.rows) == 1, "too short, without a topic, without a packet id"


def test_a_packet_of_any_size():
    reader, payload = Reader(), bytes(1 << 18)
    data = publish("a", payload, 5)
    assert reader.read(data[:-1]) == 0
    assert reader.read(data) == len(data)
    assert reader.rows == [("a", payload, 5, WITH_ID)]


def test_many_topics_and_long_ones():
    names = [f"{'long/' * 30}{i}" if i % 50 == 0 else f"t/{i}" for i in range(1_000)]
    table = TopicTable()
    reader = Reader(topics=table)
    for _ in range(2):
        reader.read(b"".join(publish(name, b"") for name in names))
    assert [row[0] for row in reader.rows] == names * 2
    assert table.names == names
    later = Reader(topics=table)
    later.read(publish("t/7", b""))
    assert later.parts[0].topics.ids.tolist() == [7], "the next connection knows them"


@pytest.mark.parametrize(("bound", "most"), [("N_TOPICS_MAX", 3), ("TOPIC_BYTES_MAX", 3)])
def test_topics_are_bounded(monkeypatch, bound, most):
    monkeypatch.setattr(packets, bound, most)
    names = [f"{n}" for n in (0, 1, 2, 3, 4, 0, 1)]
    table = TopicTable()
    reader = Reader(topics=table)
    reader.read(b"".join(publish(name, name.encode()) for name in names))
    assert [row[:2] for row in reader.rows] == [(name, name.encode()) for name in names]
    assert table.names == ["1"]
    assert len({id(part.topics.names) for part in reader.parts}) == 3
    whole = all_arrivals(reader.parts)
    assert list(whole.topics) == names, "of several tables as text"


def test_a_topic_whose_places_are_taken_is_left_to_gmqtt(monkeypatch):
    monkeypatch.setattr(packets, "_N_PROBES_MAX", 0)
    reader = Reader()
    reader.read(publish("a", b"1") + publish("a", b"2", 3))
    assert reader.rows == [("a", b"1", NO_ID, 0), ("a", b"2", 3, WITH_ID)]
    assert [part.topics for part in reader.parts] == [["a"], ["a"]]


def test_why_framing_stops():
    framer = PacketFramer(TopicTable())
    found, at, why, end = framer.next(publish("a", b"1") + PINGRESP, 0, False)
    assert (len(found), at, why, end) == (1, 6, OTHER, 8)
    assert framer.next(b"\x30\xff\xff\xff\xff\x01", 0, False)[1:3] == (0, BROKEN)
    assert framer.next(b"", 0, False)[:3] == (None, 0, MORE)
    assert NEW_TOPIC not in (MORE, OTHER, BROKEN)


def test_payloads_as_a_sequence():
    some = joined([b"a", b"", b"bcd"])
    assert isinstance(some, JoinedPayloads)
    assert joined(some) is some
    assert (list(some), some[-1], some[0]) == ([b"a", b"", b"bcd"], b"bcd", b"a")
    assert list(some[1:]) == [b"", b"bcd"]
    assert list(some[::-1]) == [b"bcd", b"", b"a"]
    assert list(some[3:]) == []
    with pytest.raises(IndexError):
        some[3]
    topics = CodedTopics(["x", "y"], np.array([1, 0, 1]))
    assert (list(topics), topics[1], list(topics[1:])) == (["y", "x", "y"], "x", ["x", "y"])
    assert list(topics.where(np.array([True, False, True]))) == ["y", "y"]
