"""Answers that were captured, decoded without a server."""

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from tests.unit.adapters.opcua.desk import NOW_NS, Desk, plan, publish_response, read_response, signal

from headrace.adapters.abilities import Captured, Captures, Direction
from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.opcua.captured import AnswerTap, decode_answers, mark_of, numbers_of, ranges_text
from headrace.adapters.opcua.handles import GONE, Handles


def test_numbers_in_short():
    numbers = [0, 1, 2, 5, 7, 8]
    assert ranges_text(numbers) == "0-2,5-5,7-8"
    assert numbers_of(ranges_text(numbers), 9) == numbers
    for text in ("", "7", "3-2", "0-9", "-1-2", "a-b"):
        with pytest.raises(ValueError, match=r"range|invalid|int"):
            numbers_of(text, 9)


def test_variables_have_a_mark():
    signals = signal("a"), signal("b")
    marks = {
        mark_of(Desk(*plans).tags)
        for plans in (
            [plan("l/d", *signals)], [plan("l/d", *signals[::-1])], [plan("l/e", *signals)], [plan("l/d", *signals, node="m")]
        )
    }  # fmt: skip
    assert len(marks) == 4
    assert mark_of(Desk(plan("l/d", *signals)).tags) in marks


def test_answers_are_decoded_as_they_were():
    assert issubclass(OpcuaAdapter, Captures)
    desk = Desk(plan("l/d", signal("a"), signal("b"), signal("c")))
    heard = []
    ear = AnswerTap(mark_of(desk.tags))
    published, read = (
        bytes(struct_to_binary(r)) for r in (publish_response(1, 1.5), read_response(2.5, 3.5))
    )
    plain = Handles(range(3))
    ear.hear(NOW_NS, "h:1", published, plain)
    assert heard == [], "nobody listens"
    ear.listener = heard.append
    ear.hear(NOW_NS, "h:1", published, plain)
    ear.hear(NOW_NS + 1, "h:1", read, plain, [0, 2])
    batches, rejects = decode_answers("x", desk.tags, desk.filing, heard)
    assert [b.values.reshape(-1).tolist() for b in batches] == [[1.5], [2.5, 3.5]]
    assert [b.arrival_ns for b in batches] == [NOW_NS, NOW_NS + 1]
    assert rejects == []
    about = heard[1].about
    odd = [
        Captured(1, "h:1", read, Direction.SENT), Captured(1, "h:1", read, about={"variables": "others"}),
        Captured(1, "h:1", read, about={**about, "tags": "0-0"}), Captured(1, "h:1", read, about={**about, "tags": "x"}),
        Captured(1, "h:1", bytes(struct_to_binary(read_response(code=0x80340000))), about=about),
        Captured(1, "h:1", read[:-1] + b"\xff\x00", about=about),
    ]  # fmt: skip
    batches, rejects = decode_answers("x", desk.tags, desk.filing, odd)
    assert batches == []
    assert [r.detail.partition(":")[0] for r in rejects] == [
        "it was captured when the adapter had other variables", "2 values for 1 nodes",
        "invalid literal for int() with base 10", "the server answers a read with BadNodeIdUnknown",
        f"{len(read) + 1} bytes are a ReadResponse and 1 more",
    ]  # fmt: skip


def test_what_nobody_asked_for_is_refused_and_the_values_beside_it_are_not():
    desk = Desk(plan("l/d", signal("a"), signal("b")))
    heard = []
    response = publish_response(1, 1.5, 2.5)
    found = response.Parameters.NotificationMessage
    found.NotificationData = [*found.NotificationData, ua.EventNotificationList()]
    AnswerTap(mark_of(desk.tags), heard.append).hear(
        NOW_NS, "h:1", bytes(struct_to_binary(response)), Handles(range(2))
    )
    batches, rejects = decode_answers("x", desk.tags, desk.filing, heard)
    assert [b.values.reshape(-1).tolist() for b in batches] == [[1.5, 2.5]]
    assert [r.detail for r in rejects] == [
        "1 notifications are neither values nor a word on the subscription"
    ]


def test_answers_of_a_connection_whose_tags_have_changed():
    desk = Desk(plan("l/d", signal("a"), signal("b")))
    heard = []
    ear = AnswerTap(mark_of(desk.tags), heard.append)
    published, read = (
        bytes(struct_to_binary(r)) for r in (publish_response(1, 1.5, 2.5, 3.5), read_response(4.5, 5.5, 6.5))
    )
    handles = Handles(range(3))
    handles.renumber(np.array([GONE, 1, GONE]))
    handles.settle(dict.fromkeys(handles.give(1), 0))
    ear.hear(NOW_NS, "h:1", published, handles)
    ear.hear(NOW_NS + 1, "h:1", read, handles, [3, 0, 1])
    ear.hear(NOW_NS + 2, "h:1", read, handles, [0, 2])
    assert [dict(one.about, variables="") for one in heard] == [
        {"variables": "", "handles": "1-1,3-3", "tags": "1-1,0-0"},
        {"variables": "", "places": "0-0,2-2", "tags": "0-1"}, {"variables": "", "places": "", "tags": ""},
    ]  # fmt: skip
    batches, rejects = decode_answers("x", desk.tags, desk.filing, heard)
    assert [b.values.reshape(-1).tolist() for b in batches] == [[2.5], [6.5, 4.5]], (
        "b was first, and has the first column"
    )
    assert rejects == []
