"""Answers that were captured, decoded without a server."""

import pytest
from asyncua.ua.ua_binary import struct_to_binary
from tests.unit.adapters.opcua.desk import NOW_NS, Desk, plan, publish_response, read_response, signal

from headrace.adapters.abilities import Captured, Captures, Direction
from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.opcua.captured import AnswerTap, decode_answers, mark_of, numbers_of, ranges_text


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
    ear.hear(NOW_NS, "h:1", published)
    assert heard == [], "nobody listens"
    ear.listener = heard.append
    ear.hear(NOW_NS, "h:1", published)
    ear.hear(NOW_NS + 1, "h:1", read, [0, 2])
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
