"""Answers of a server: the scanner and asyncua read the same."""

import struct
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from headrace.adapters.opcua.client import ServiceFailed
from headrace.adapters.opcua.kinds import (
    ACCEPTS,
    PARTS,
    choose_times,
    is_overflow,
    kind_text,
    native,
    part_of,
    qualities,
    quality_of,
)
from headrace.adapters.opcua.messages import from_data_values, publish_answer, read_answer, sent_ns
from headrace.adapters.opcua.scanner import GAVE_UP, ValueColumns, scan_values, warm_scanner
from headrace.adapters.opcua.statuses import status_text
from headrace.adapters.opcua.texts import value_at
from headrace.core.clock import NO_TIME
from headrace.core.errors import Rejected
from headrace.core.quality import Quality

NOW = datetime(2026, 11, 27, 3, 25, 39, 123_456, UTC)
NOW_NS = int(NOW.timestamp()) * 10**9 + 123_456_000
V, T = ua.Variant, ua.VariantType
ODD = [
    V("läuft", T.String), V(None, T.String), V(ua.XmlElement("<a/>"), T.XmlElement), V(ua.LocalizedText("läuft", "de"), T.LocalizedText),
    V(ua.LocalizedText("an"), T.LocalizedText), V(ua.LocalizedText(), T.LocalizedText), V(b"\x00\x01", T.ByteString),
    V(ua.NodeId(7, 0), T.NodeId), V(ua.NodeId(70_000, 2), T.NodeId), V(ua.NodeId(300, 2), T.NodeId),
    V(ua.NodeId(UUID(int=7), 2, ua.NodeIdType.Guid), T.NodeId), V(ua.NodeId("text", 2), T.NodeId), V(ua.NodeId(b"xy", 2, ua.NodeIdType.ByteString), T.NodeId),
    V(ua.QualifiedName("q", 3), T.QualifiedName), V(ua.Range(1.0, 2.0), T.ExtensionObject), V(ua.ExtensionObject(), T.ExtensionObject),
    V([1, 2, 3], T.Int16), V(["a", "b"], T.String), V([[1.0, 2.0], [3.0, 4.0]], T.Double, [2, 2]), V([], T.Int32),
    V(ua.StatusCode(0x80340000), T.StatusCode), V(NOW, T.DateTime), V(True, T.Boolean),
]  # fmt: skip
DEEP = [V([V(1.5, T.Double), V("x", T.String)], T.Variant), V(ua.ExpandedNodeId(5, 2), T.ExpandedNodeId)]


def answer(values, **head):
    response = ua.ReadResponse()
    response.Results = values
    for key, value in head.items():
        setattr(response.ResponseHeader, key, value)
    return struct_to_binary(response)


def same(one, other):
    for name in ("kind", "bits", "status", "source_ns", "server_ns", "size"):
        assert getattr(one.columns, name).tolist() == getattr(other.columns, name).tolist(), name
    assert [one.raw(row) for row in range(len(one))] == [other.raw(row) for row in range(len(other))]


def test_the_scanner_reads_what_asyncua_writes():
    values = [ua.DataValue(v, ua.StatusCode(i), NOW, NOW) for i, v in enumerate(ODD)]
    values += [ua.DataValue(v, None, None, None, 1, 2) for v in ODD]
    found = read_answer(answer(values))
    same(found, from_data_values(values))
    assert found.columns.source_ns[0] == NOW_NS
    texts = [value_at(found, row) for row in range(6)]
    assert texts == ["läuft", "", "<a/>", "läuft", "an", ""]
    assert [value_at(found, row) for row in (6, 16)] == [None, None]
    assert (value_at(found, 20), value_at(found, 21), value_at(found, 22)) == (0x80340000, NOW_NS, True)


def test_times_are_read_to_a_hundred_nanoseconds_and_less():
    ticks = 116_444_736_000_000_000 + 12_345_678_901
    data = bytes([0x3C]) + struct.pack("<qHqH", ticks, 9_900, 0, 0)
    for more, wanted in ((data, 1_234_567_890_199), (bytes([4]) + struct.pack("<q", 2**63 - 1), NO_TIME)):
        columns = ValueColumns.empty(1)
        assert scan_values(np.frombuffer(more, np.uint8), 0, len(more), 1, False, columns) == len(more)
        assert columns.source_ns[0] == wanted
        assert columns.server_ns[0] == NO_TIME


def test_what_the_scanner_gives_up_on_is_read_by_asyncua():
    values = [ua.DataValue(v, ua.StatusCode(0x40000000), NOW, NOW) for v in [*DEEP, V(1.5, T.Double)]]
    found = read_answer(answer(values))
    assert found.columns.kind.tolist() == [24 | 0x80, 18, 11]
    assert found.columns.status.tolist() == [0x40000000] * 3
    assert set(found.columns.source_ns.tolist() + found.columns.server_ns.tolist()) == {NOW_NS}
    assert value_at(found, 2) == 1.5
    with_texts = read_answer(answer([ua.DataValue(V(2.5, T.Double))], StringTable=["a", "b"]))
    assert value_at(with_texts, 0) == 2.5
    assert len(read_answer(answer([]))) == 0


def test_a_value_that_asyncua_cannot_write_again_keeps_its_status():
    class Odd(ua.DataValue):
        pass

    odd = ua.DataValue(V(1.0, T.Double), ua.StatusCode(0x80340000))
    object.__setattr__(odd.Value, "VariantType", "none")
    found = from_data_values([odd])
    assert (found.columns.kind[0], found.columns.status[0]) == (0, 0x80340000)
    naive = ua.DataValue(DEEP[0], None, NOW.replace(tzinfo=None))
    assert from_data_values([naive]).columns.source_ns[0] == NOW_NS


def test_bytes_that_are_no_answer_are_rejected():
    good = answer([ua.DataValue(v, ua.StatusCode(0), NOW, NOW) for v in ODD])
    for size in range(0, 28):
        with pytest.raises((Rejected, ServiceFailed)):
            read_answer(good[:size])
    with pytest.raises(ServiceFailed, match="answers a read with BadNodeIdUnknown"):
        read_answer(answer([], ServiceResult=ua.StatusCode(0x80340000)))
    with pytest.raises(Rejected, match="are no ReadResponse"):
        read_answer(good[:28] + struct.pack("<i", 2**31 - 1) + good[32:])


def publish(*notifications, subscription=5):
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = subscription
    response.Parameters.AvailableSequenceNumbers = [1, 2]
    response.Parameters.NotificationMessage.SequenceNumber = 9
    response.Parameters.NotificationMessage.NotificationData = list(notifications)
    return response


def changes(*values):
    items = [ua.MonitoredItemNotification(i + 100, ua.DataValue(v)) for i, v in enumerate(values)]
    return ua.DataChangeNotification(MonitoredItems=items)


def test_notifications_are_values_statuses_and_others():
    events = ua.EventNotificationList(Events=[ua.EventFieldList(3, [V(1)])])
    ended = ua.StatusChangeNotification(Status=ua.StatusCode(0x800A0000))
    plain = publish(changes(V(1.5, T.Double), V("x", T.String)), events, ended)
    deep = publish(changes(V(1.5, T.Double), V("x", T.String)), events, ended)
    deep.ResponseHeader.StringTable = ["a"]  # asyncua's turn
    for response in (plain, deep):
        found = publish_answer(struct_to_binary(response))
        assert (found.subscription, found.sequence, found.status, found.n_other) == (5, 9, 0x800A0000, 1)
        (values,) = found.values
        assert values.columns.tag.tolist() == [100, 101]
        assert [value_at(values, 0), value_at(values, 1)] == [1.5, "x"]
        assert found.surplus.startswith("1 notifications are neither values")
    keep_alive = publish_answer(struct_to_binary(publish()))
    assert not keep_alive.surplus
    assert (keep_alive.values, keep_alive.status) == ((), 0)
    odd = struct_to_binary(publish(changes(V(1.5, T.Double))))
    at = odd.index(b"\x01\x00\x2b\x03")
    with pytest.raises(Rejected, match="are no PublishResponse"):
        publish_answer(odd[: at + 5] + b"\xff\xff\xff\x7f" + odd[at + 9 :])
    (size,) = struct.unpack_from("<i", odd, at + 5)
    end = at + 9 + size
    longer = odd[: at + 5] + struct.pack("<i", size + 3) + odd[at + 9 : end] + b"abc" + odd[end:]
    with pytest.raises(Rejected, match="3 bytes of a notification are no values"):
        publish_answer(longer)


def test_a_scan_never_passes_the_end():
    body = answer([ua.DataValue(v, ua.StatusCode(0), NOW, NOW) for v in [*ODD, *DEEP]])
    data = np.frombuffer(body, np.uint8)
    n = len(ODD) + len(DEEP)
    for end in range(32, len(body)):
        assert scan_values(data, 32, end, n, False, ValueColumns.empty(n)) == GAVE_UP
    for end in range(4):
        assert scan_values(data, 0, end, 1, True, ValueColumns.empty(1)) == GAVE_UP
    for head in (0xFF, 0x4B, 0x3F):  # unknown kinds, dimensions without an array
        odd = np.array([1, head, 0, 0, 0, 0, 0, 0, 0, 0], np.uint8)
        assert scan_values(odd, 0, len(odd), 1, False, ValueColumns.empty(1)) == GAVE_UP
    node = np.array([1, 17, 9, 0, 0, 0], np.uint8)  # a form of node id that does not exist
    assert scan_values(node, 0, len(node), 1, False, ValueColumns.empty(1)) == GAVE_UP
    warm_scanner()


def test_kinds_and_parts():
    assert [kind_text(k) for k in (6, 0x8B, 22, 60)] == ["Int32", "Double[]", "structure", "type 60"]
    assert [part_of(k) for k in (1, 12, 22)] == [PARTS.index("u8"), PARTS.index("text"), -1]
    takes = {part: [k for k in range(1, 22) if ACCEPTS[code, k]] for code, part in enumerate(PARTS)}
    assert takes["u8"] == [1, 3]
    assert takes["f64"] == [2, 3, 4, 5, 6, 7, 10, 11, 19], "64-bit integers would be rounded"
    assert takes["i64"] == [2, 3, 4, 5, 6, 7, 8, 13, 19]
    assert takes["text"] == [12, 16, 21]
    assert native(np.array([5, 0], np.uint64), 1).tolist() == [1, 0]
    assert native(np.array([0, 2**63 - 1], np.uint64), 13).tolist() == [
        -9223372036854775700,
        9223372036854775700,
    ]


@pytest.mark.parametrize(
    ("code", "quality"),
    [
        (0, Quality.GOOD), (0x00960000, Quality.GOOD), (0x480, Quality.UNCERTAIN), (0x080, Quality.GOOD),
        (0x40900000, Quality.UNCERTAIN_STALE), (0x40940000, Quality.UNCERTAIN_RANGE), (0x40000000, Quality.UNCERTAIN),
        (0x80340000, Quality.BAD_DEVICE), (0x808C0480, Quality.BAD_DEVICE), (0x80310000, Quality.BAD_COMMUNICATION),
        (0x803C0000, Quality.BAD_RANGE), (0x80740000, Quality.BAD_TYPE), (0x80FF0000, Quality.BAD), (0xC0000000, Quality.BAD),
    ],
)  # fmt: skip
def test_status_codes_are_qualities(code, quality):
    assert quality_of(code) is quality
    assert qualities(np.array([0, code, 0], np.uint32)) is None or (
        qualities(np.array([0, code, 0], np.uint32)).tolist() == [0, quality, 0]
    )
    assert is_overflow(code) == (code & 0x480 == 0x480)


def test_status_codes_have_names():
    assert (status_text(0x80340000), status_text(0x80340480)) == ("BadNodeIdUnknown", "BadNodeIdUnknown")
    assert status_text(0x9ABC0000) == "status 0x9ABC0000"


def test_whose_time_a_value_gets():
    day = 86_400 * 10**9
    now = 20_000 * day
    source = np.array([now, NO_TIME, NO_TIME, 5, now + 2 * day, now - 30 * day])
    server = np.array([now + 1, now + 1, NO_TIME, now + 1, now + 1, now + 1])
    times, doubtful = choose_times("auto", source, server, 7)
    assert times.tolist() == [now, now + 1, 7, now + 1, now + 1, now - 30 * day]
    assert doubtful.tolist() == [False, False, False, True, True, False]
    assert choose_times("auto", source[:3], server[:3], 7)[1] is None
    assert choose_times("source", source, server, 7)[0].tolist() == [
        now,
        7,
        7,
        5,
        now + 2 * day,
        now - 30 * day,
    ]
    assert choose_times("server", source, server, 7)[0].tolist() == [
        now + 1,
        now + 1,
        7,
        now + 1,
        now + 1,
        now + 1,
    ]
    assert choose_times("ingest", source, server, 7)[0].tolist() == [7] * 6


def test_when_a_server_sent_its_answer():
    body = answer([], Timestamp=NOW)
    assert sent_ns(body) == NOW_NS
    assert sent_ns(answer([])[:4] + bytes(8)) == NO_TIME, "it does not say"
    assert [sent_ns(body[:11]), sent_ns(b"\x00" + body[1:])] == [NO_TIME] * 2
    assert sent_ns(body[:4] + b"\xff" * 7 + b"\x7f") == NO_TIME
