"""Slices on their way to the sink: without a cluster."""

import asyncio

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE

from headrace.adapters.kafka.inbox import KafkaInbox, NotTaken, of_captured, topic_message
from headrace.adapters.kafka.ledger import OffsetLedger
from headrace.adapters.payloads.base import RuleSettings
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.adapters.payloads.topics import TopicDialect
from headrace.core.clock import NO_TIME
from headrace.core.errors import Closed, PluginError
from headrace.testing.adapters import RecordingSink


class Sent:
    def __init__(self, offset, value=b'{"a": 1}', partition=0, ts_ms=1_000, kind=TIMESTAMP_CREATE_TIME):
        self._is = {"offset": offset, "value": value, "partition": partition, "topic": "p.d", "key": None}
        self._is["timestamp"] = (kind, ts_ms)

    def __getattr__(self, name):
        return lambda: self._is[name]


class Desk:
    def __init__(self, is_durable=False):
        self.sink = RecordingSink(is_durable=is_durable)
        rules = compile_rules(
            {"p.{d}": RuleSettings(path="l/{d}/{key}")}, (), "UTC", "t", TopicDialect(".", True)
        )
        self.ledger = OffsetLedger()
        self.ledger.assign([("p.d", 0)])
        self.inbox = KafkaInbox(
            self.sink, MessageRouter("x", rules, DeviceGroups(self.sink.directory)), self.ledger
        )


async def test_a_slice_is_due_when_the_last_of_it_is_durable():
    desk = Desk()
    await desk.inbox.hand_on([Sent(5), Sent(6, b"junk"), Sent(7)])
    assert (desk.inbox.n_messages, desk.inbox.n_samples, desk.inbox.n_rejects) == (3, 2, 1)
    assert desk.sink.batches[0].ts_ns.tolist() == [1_000_000_500, 1_000_000_700]
    assert desk.sink.rejects[0].source == "p.d:0:6"
    assert desk.ledger.due() == {}
    waiting = asyncio.ensure_future(desk.inbox.landed())
    await asyncio.sleep(0)
    desk.sink.land()
    await asyncio.wait_for(waiting, 5)
    assert desk.ledger.due() == {("p.d", 0): 8}
    assert desk.inbox.latency.percentiles()[0] > 0


async def test_what_says_nothing_is_passed_over():
    desk = Desk()
    await desk.inbox.hand_on([Sent(5, None)])
    assert desk.ledger.due() == {("p.d", 0): 6}
    assert desk.sink.batches == []


async def test_messages_of_a_partition_that_went_are_left_to_others():
    desk = Desk()
    await desk.inbox.hand_on([Sent(5), Sent(5, partition=1)])
    assert desk.sink.n_samples == 1


async def test_messages_without_a_time_have_that_of_their_arrival():
    desk = Desk()
    await desk.inbox.hand_on([Sent(5, kind=TIMESTAMP_NOT_AVAILABLE), Sent(6, ts_ms=2**62)])
    first, second = desk.sink.batches[0].ts_ns.tolist()
    assert abs(first - desk.sink.clock.now_ns()) < 60 * 10**9
    assert second == first + 1


async def test_a_sink_that_refuses_commits_nothing():
    desk = Desk()
    desk.sink.refusal = Closed("shut")
    with pytest.raises(NotTaken, match="messages are not taken: shut"):
        await desk.inbox.hand_on([Sent(5)])
    await asyncio.wait_for(desk.inbox.landed(), 5)
    assert desk.ledger.due() == {}


async def test_frames_that_are_a_defect_of_ours_are_kept_as_rejects(monkeypatch):
    desk = Desk(is_durable=True)

    async def refuse(batch, ack=None):
        raise PluginError("not a batch")

    monkeypatch.setattr(desk.sink, "emit", refuse)
    await desk.inbox.hand_on([Sent(5), Sent(6)])
    await asyncio.wait_for(desk.inbox.landed(), 5)
    assert [(str(r.code), r.source) for r in desk.sink.rejects] == [
        ("internal", "p.d:0:5"),
        ("internal", "p.d:0:6"),
    ]
    assert desk.ledger.due() == {("p.d", 0): 7}


async def test_a_cancelled_hand_over_is_decided_by_its_acks():
    """It was taken all the same: what the sink has is durable and may be committed."""
    desk = Desk()
    kept = []

    async def take(batch, ack=None):
        kept.append(ack)
        await asyncio.sleep(60)

    desk.sink.emit = take
    handing = asyncio.ensure_future(desk.inbox.hand_on([Sent(5)]))
    await asyncio.sleep(0.01)
    handing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handing
    await asyncio.wait_for(desk.inbox.landed(), 5)
    kept[0]()
    await asyncio.wait_for(desk.inbox.landed(), 5)
    assert desk.ledger.due() == {("p.d", 0): 6}


async def test_what_comes_is_heard_and_is_the_same_again():
    desk, heard = Desk(), []
    desk.inbox.listener = heard.append
    timed, plain = Sent(5), Sent(6, kind=TIMESTAMP_NOT_AVAILABLE)
    timed._is["key"] = b"\xff"
    await desk.inbox.hand_on([timed, plain, Sent(7, partition=9)])
    assert [dict(one.about) for one in heard] == [
        {"partition": "0", "offset": "5", "time_ns": "1000000500", "key_hex": "ff"}, {"partition": "0", "offset": "6"},
    ], "nothing of a partition that is not ours"  # fmt: skip
    again = [of_captured(one) for one in heard]
    assert again == [topic_message(one, heard[0].ts_ns) for one in (timed, plain)]
    assert desk.inbox.unacknowledged == (2, heard[0].ts_ns)
    assert desk.inbox.n_bytes == sum(len(one.data) for one in heard)
    desk.sink.land()
    assert desk.inbox.unacknowledged == (0, NO_TIME)
