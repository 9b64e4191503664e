"""Slices, acknowledgements and messages that come again: without a broker."""

import asyncio
import gc
import weakref

import pytest

from headrace.adapters.broker.inbox import Gathered, Inbox
from headrace.adapters.broker.packets import NO_ID, PacketFramer, TopicTable, all_arrivals, one_arrival
from headrace.adapters.payloads.base import RuleSettings
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.core.clock import NO_TIME
from headrace.core.errors import Closed, PluginError
from headrace.core.events import Reject, RejectCode
from headrace.testing.adapters import RecordingSink, until


class Line:
    """A connection that notes what is asked of it."""

    def __init__(self):
        self.generation = 1
        self.is_up = True
        self.acknowledged = []
        self.is_paused = False
        self.drops = []

    def acknowledge(self, packet_ids):
        self.acknowledged += [(self.generation, one) for one in packet_ids]

    def pause(self):
        self.is_paused = True

    def resume(self):
        self.is_paused = False

    def drop(self, reason):
        self.drops.append(reason)


class Desk:
    def __init__(self, is_durable=False, slice_s=0.002):
        self.sink = RecordingSink(is_durable=is_durable)
        self.line = Line()
        rules = compile_rules(
            {"p/{d}": RuleSettings(path="l/{d}/{key}", time="ts", time_unit="ns")}, (), "UTC", "t"
        )
        self.inbox = Inbox(
            self.sink, MessageRouter("x", rules, DeviceGroups(self.sink.directory)), self.line, slice_s
        )

    async def __aenter__(self):
        self.task = asyncio.create_task(self.inbox.run())
        return self

    async def __aexit__(self, *error):
        self.sink.set_credit(True)
        self.inbox.finish()
        await asyncio.wait_for(self.task, 5)

    def take(self, packet_id, value=1, is_again=False, ts=1):
        self.inbox.take(one_arrival("p/d", f'{{"ts": {ts}, "a": {value}}}'.encode(), packet_id, is_again))

    async def taken(self, n):
        await until(lambda: self.sink.n_samples >= n, f"{n} samples are taken")
        await asyncio.sleep(0)


async def test_messages_of_a_slice_are_one_batch_acknowledged_together():
    async with Desk() as desk:
        for i in range(1, 21):
            desk.take(i, value=i, ts=i)
        assert desk.line.is_paused, "nothing more is read while a slice is taken"
        await desk.taken(20)
        assert not desk.line.is_paused
        assert len(desk.sink.batches) == 1
        assert desk.line.acknowledged == []
        desk.sink.land()
        assert desk.line.acknowledged == [(1, i) for i in range(1, 21)]
        assert desk.inbox.latency.percentiles()[0] > 0
        assert (desk.inbox.n_messages, desk.inbox.n_samples, desk.inbox.n_frames) == (20, 20, 20)
        assert desk.inbox.last_good_ns > 0
        assert desk.inbox.n_bytes > 20


async def test_a_message_is_acknowledged_when_the_last_of_its_parts_is_durable():
    async with Desk() as desk:
        desk.inbox.take(one_arrival("p/d", b'{"ts": 1, "a": 1, "b": true, "c": [1]}', 7))
        await desk.taken(2)
        await until(lambda: bool(desk.sink.rejects), "the reject is taken")
        acks, desk.sink._acks = desk.sink._acks, []
        assert len(acks) == 3
        for ack in acks[:-1]:
            ack()
            assert desk.line.acknowledged == []
        acks[-1]()
        assert desk.line.acknowledged == [(1, 7)]


async def test_a_message_of_nothing_is_acknowledged_at_once():
    async with Desk() as desk:
        desk.inbox.take(one_arrival("p/d", b'{"ts": 1, "a": null}', 7))
        await until(lambda: bool(desk.line.acknowledged), "it is acknowledged")
        assert desk.inbox.last_good_ns == NO_TIME


async def test_qos_0_has_nothing_to_acknowledge():
    async with Desk(is_durable=True) as desk:
        desk.take(None)
        await desk.taken(1)
        await desk.inbox.landed()
        assert desk.line.acknowledged == []


async def test_of_both_qualities_in_one_slice_the_ids_are_acknowledged():
    async with Desk() as desk:
        for packet_id, ts in ((None, 1), (5, 2), (None, 3), (6, 4)):
            desk.take(packet_id, ts=ts)
        await desk.taken(4)
        assert desk.inbox.unacknowledged[0] == 2
        desk.line.generation = 2
        desk.take(6, ts=4, is_again=True)
        desk.sink.land()
        assert desk.line.acknowledged == [(2, 6)]
        desk.take(5, ts=2, is_again=True)
        assert desk.line.acknowledged == [(2, 6), (2, 5)]


async def test_a_slice_of_the_wire_may_have_both_qualities():
    async with Desk() as desk:
        mixed = packet(5, b'{"ts": 1, "a": 1}') + b"\x30\x16\x00\x03p/d" + b'{"ts": 2, "a": 1}'
        desk.inbox.take(PacketFramer(TopicTable()).next(mixed, 0, False)[0])
        await desk.taken(2)
        desk.sink.land()
        assert desk.line.acknowledged == [(1, 5)]


async def test_a_listener_hears_each_message_once():
    heard = []
    async with Desk() as desk:
        desk.inbox.listener = heard.append
        desk.take(5)
        desk.take(5, is_again=True)
        desk.take(6, ts=2)
        await desk.taken(2)
    assert [(one.source, one.data[-8:]) for one in heard] == [("p/d", b' "a": 1}')] * 2


async def test_what_comes_again_before_it_is_durable_is_taken_once():
    async with Desk() as desk:
        desk.take(5)
        await desk.taken(1)
        desk.line.generation = 2
        desk.take(5, is_again=True)
        await asyncio.sleep(0.01)
        assert desk.sink.n_samples == 1
        assert desk.inbox.n_duplicates == 1
        desk.sink.land()
        assert desk.line.acknowledged == [(2, 5)], "on the connection where the broker waits for it"


async def test_an_old_connection_acknowledges_nothing_on_the_new_one():
    """The broker may have given the packet id to another message."""
    async with Desk() as desk:
        desk.take(5)
        await desk.taken(1)
        desk.line.generation = 2
        desk.sink.land()
        assert desk.line.acknowledged == []
        desk.take(5, is_again=True)
        assert desk.line.acknowledged == [(2, 5)], "it comes again and is durable already"
        assert desk.inbox.n_duplicates == 1
        desk.take(5, is_again=True)
        await desk.taken(2)


async def test_what_lands_while_there_is_no_connection_is_acknowledged_when_it_comes_again():
    async with Desk() as desk:
        desk.take(5)
        await desk.taken(1)
        desk.line.is_up = False
        desk.sink.land()
        desk.line.is_up, desk.line.generation = True, 2
        assert desk.line.acknowledged == []
        desk.take(5, is_again=True)
        assert desk.line.acknowledged == [(2, 5)]
        assert (desk.sink.n_samples, desk.inbox.n_duplicates) == (1, 1)


@pytest.mark.parametrize(("is_again", "value"), [(False, 1), (True, 2)], ids=["new", "other content"])
async def test_a_packet_id_used_anew_is_another_message(is_again, value):
    async with Desk() as desk:
        desk.take(5)
        await desk.taken(1)
        desk.line.generation = 2
        desk.take(5, value=value, is_again=is_again)
        await desk.taken(2)
        desk.sink.land()
        assert desk.line.acknowledged == [(2, 5)]
        assert desk.inbox.n_duplicates == 0


async def test_without_our_session_packet_ids_mean_something_new():
    async with Desk() as desk:
        desk.take(5)
        await desk.taken(1)
        desk.line.generation = 2
        desk.inbox.forget()
        desk.take(5, is_again=True)
        await desk.taken(2)
        assert desk.inbox.n_duplicates == 0


async def test_what_the_sink_refuses_is_not_acknowledged_and_must_come_again():
    async with Desk() as desk:
        desk.sink.refusal = Closed("the journal is full")
        desk.take(5)
        await until(lambda: bool(desk.line.drops), "the connection is dropped")
        assert desk.line.drops == ["messages are not taken: the journal is full"]
        assert desk.line.acknowledged == []
        desk.sink.refusal = None
        desk.line.generation = 2
        desk.take(5, is_again=True)
        await desk.taken(1)
        desk.sink.land()
        assert desk.line.acknowledged == [(2, 5)]
        assert desk.inbox.n_duplicates == 0


async def test_who_decoded_what_is_refused_is_told():
    undone = []
    async with Desk() as desk:
        desk.inbox._on_refused = lambda: undone.append(1)
        desk.sink.refusal = Closed("the journal is full")
        desk.take(5)
        await until(lambda: bool(desk.line.drops), "the connection is dropped")
    assert undone == [1]


async def test_frames_that_do_not_fit_are_rejects_and_do_not_come_again(monkeypatch):
    async with Desk(slice_s=0.02) as desk:
        emit = desk.sink.emit

        async def picky(batch, ack=None):
            if batch.dtype == "f64":
                raise PluginError("a defect")
            await emit(batch, ack)

        monkeypatch.setattr(desk.sink, "emit", picky)
        desk.inbox.take(one_arrival("p/d", b'{"ts": 1, "a": 1, "on": true}', 5))
        desk.inbox.take(one_arrival("p/d", b'{"ts": 2, "a": 2}', 6))
        await until(lambda: len(desk.sink.rejects) == 2, "both are rejected")
        assert {(r.code, r.detail) for r in desk.sink.rejects} == {
            ("internal", "its frames were refused: a defect")
        }
        assert [r.raw for r in desk.sink.rejects][1] == b'{"ts": 2, "a": 2}'
        assert desk.line.acknowledged == []
        desk.sink.land()
        assert desk.line.acknowledged == [(1, 5), (1, 6)]
        assert desk.line.drops == []


@pytest.mark.parametrize(
    "payloads",
    [
        (b"no JSON",),
        (b'{"ts": 1, "a": 1.5, "b": {}}', b"no JSON"),
        (b'{"ts": 1, "a": 1, "on": true}',),
    ],
)
async def test_a_message_whose_values_are_refused_later_is_one_reject(monkeypatch, payloads):
    """Also where something of it was refused before, and where it is in several batches."""
    async with Desk(slice_s=0.02) as desk:

        async def refuse(batch, ack=None):
            raise PluginError("a defect")

        monkeypatch.setattr(desk.sink, "emit", refuse)
        for number, payload in enumerate(payloads):
            desk.inbox.take(one_arrival("p/d", payload, 5 + number))
        await until(lambda: len(desk.sink.rejects) >= len(payloads), "they are rejected")
        await until(lambda: not desk.line.is_paused, "all of it is handed on")
        assert sorted(one.raw for one in desk.sink.rejects) == sorted(payloads)
        assert desk.inbox.n_rejects == len(payloads)
        desk.sink.land()
        assert desk.line.acknowledged == [(1, 5 + number) for number in range(len(payloads))]


async def test_what_came_behind_what_is_refused_is_not_taken_before_it(monkeypatch):
    """All of it comes again; at QoS 0 nothing does, and that is taken."""
    async with Desk() as desk:
        desk.sink.set_credit(False)
        desk.take(5)
        await asyncio.sleep(0.01)
        desk.take(6, value=2, ts=2)
        desk.take(None, value=3, ts=3)
        assert desk.inbox.unacknowledged[0] == 2
        desk.sink.refusal = Closed()

        def drop(reason):
            desk.line.drops.append(reason)
            desk.sink.refusal = None

        monkeypatch.setattr(desk.line, "drop", drop)
        desk.sink.set_credit(True)
        await until(lambda: bool(desk.line.drops), "it is refused")
        assert desk.line.drops == ["messages are not taken: Closed()"]
        desk.take(7, value=4, ts=4)  # of the connection that ends
        desk.line.generation = 2
        for packet_id in (5, 6, 7):
            desk.take(packet_id, value=packet_id, is_again=True, ts=10 + packet_id)
        await desk.taken(4)
        assert [ts for batch in desk.sink.batches for ts in batch.ts_ns.tolist()] == [3, 15, 16, 17]
        assert (desk.inbox.unacknowledged[0], desk.inbox.n_duplicates) == (3, 0)
        desk.sink.land()
        assert desk.line.acknowledged == [(2, 5), (2, 6), (2, 7)]
        assert desk.inbox.unacknowledged == (0, NO_TIME)
        assert len(desk.line.drops) == 1


async def test_what_is_being_handed_on_at_the_end_is_waited_for_by_nobody():
    desk = Desk()
    task = asyncio.create_task(desk.inbox.run())
    desk.sink.set_credit(False)
    desk.take(5)
    await until(lambda: bool(desk.inbox._open), "it is handed on")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(desk.inbox.landed(), 1)
    assert desk.inbox.unacknowledged == (0, NO_TIME)


async def test_of_many_parts_each_message_keeps_its_place():
    async with Desk(slice_s=0.05) as desk:
        framer = PacketFramer(TopicTable())
        for first in (1, 3):
            packets = b"".join(packet(first + n, b'{"ts": %d, "a": 1}' % (first + n)) for n in (0, 1))
            desk.inbox.take(framer.next(packets, 0, False)[0])
        desk.take(5, ts=5)
        await desk.taken(5)
        assert [batch.ts_ns.tolist() for batch in desk.sink.batches] == [[1, 2, 3, 4, 5]]
        desk.line.generation = 2
        desk.sink.land()
        desk.take(4, ts=4, is_again=True)
        assert desk.line.acknowledged == [(2, 4)]
        desk.inbox.take(one_arrival("p/d", b'{"ts": 3, "a": 2}', 3, is_again=True))
        desk.take(2, ts=9)
        await desk.taken(7)
        desk.sink.land()
        assert desk.line.acknowledged[1:] == [(2, 3), (2, 2)], "who has another's id now is another"


def packet(packet_id, payload):
    body = b"\x00\x03p/d" + packet_id.to_bytes(2, "big") + payload
    return bytes([0x32, len(body)]) + body


def unread(number=0):
    return Reject(RejectCode.MALFORMED, "x", "", "a packet", b"0%d" % number, 50)


async def test_what_is_no_message_is_acknowledged_when_its_reject_is_durable():
    async with Desk() as desk:
        desk.inbox.refuse(unread(1), 7)
        desk.inbox.refuse(unread(2), NO_ID)
        assert desk.line.is_paused
        assert desk.inbox.unacknowledged == (0, NO_TIME)
        await until(lambda: len(desk.sink.rejects) == 2, "both are kept")
        assert desk.inbox.unacknowledged == (0, 50)
        desk.take(5)
        desk.inbox.refuse(unread(3), 8)
        desk.inbox.refuse(unread(4), NO_ID)
        await desk.taken(1)
        assert desk.line.acknowledged == []
        desk.sink.land()
        assert desk.line.acknowledged == [(1, 7), (1, 5), (1, 8)]
        desk.inbox.refuse(unread(5), 9)
        await until(lambda: len(desk.sink.rejects) == 5, "it is kept")
        desk.line.generation = 2
        desk.sink.land()
        assert len(desk.line.acknowledged) == 3, "on another connection the id means something else"
        desk.inbox.refuse(unread(6), 9)
        await until(lambda: len(desk.sink.rejects) == 6, "it is kept")
        desk.line.is_up = False
        desk.sink.land()
        assert len(desk.line.acknowledged) == 3
        assert desk.inbox.n_rejects == 6
        assert desk.line.drops == []


async def test_what_is_no_message_comes_again_where_it_is_not_taken_and_is_kept_where_it_does_not():
    async with Desk() as desk:
        desk.sink.set_credit(False)
        desk.take(5)
        await asyncio.sleep(0.01)
        desk.inbox.refuse(unread(1), 7)
        desk.inbox.refuse(unread(2), NO_ID)
        desk.sink.refusal = Closed()

        def drop(reason):
            desk.line.drops.append(reason)
            desk.sink.refusal = None

        desk.line.drop = drop
        desk.sink.set_credit(True)
        await until(lambda: bool(desk.line.drops), "the connection is dropped")
        desk.inbox.refuse(unread(3), 8)
        desk.inbox.refuse(unread(4), NO_ID)
        await until(lambda: len(desk.sink.rejects) == 2, "what does not come again is kept")
        assert [one.raw for one in desk.sink.rejects] == [b"02", b"04"]


async def test_no_credit_keeps_the_line_paused():
    async with Desk() as desk:
        desk.sink.set_credit(False)
        desk.take(1)
        await asyncio.sleep(0.02)
        assert desk.line.is_paused
        desk.sink.set_credit(True)
        await desk.taken(1)
        assert not desk.line.is_paused


async def test_landed_waits_for_all():
    async with Desk() as desk:
        await desk.inbox.landed()
        desk.take(1)
        await desk.taken(1)
        desk.take(2, ts=2)
        await desk.taken(2)
        landing = asyncio.ensure_future(desk.inbox.landed())
        await asyncio.sleep(0)
        first, second = desk.sink._acks
        first()
        await asyncio.sleep(0.01)
        assert not landing.done()
        second()
        await landing


async def test_finish_hands_on_what_has_begun():
    desk = Desk(slice_s=60)
    async with desk:
        desk.take(1)
    assert desk.sink.n_samples == 1


def test_messages_of_one_read_arrive_one_after_the_other():
    """Refused input is decoded with the time of its arrival: the same for two would be one frame of both."""
    gathered = Gathered(1)
    gathered.add(all_arrivals([one_arrival("p/d", b"1"), one_arrival("p/d", b"2")]), 100, 0)
    gathered.add(one_arrival("p/d", b"3"), 500, 0)
    columns = gathered.columns()
    assert columns.arrivals_ns.tolist() == [100, 101, 500]
    assert [columns[i].arrival_ns for i in range(3)] == [100, 101, 500]


def test_messages_go_as_soon_as_nobody_has_them():
    """Not when Python looks for cycles next: a slice has megabytes."""
    gathered = Gathered(1)
    gathered.add(one_arrival("p/d", b"1"), 100, 0)
    columns = gathered.columns()
    assert columns[0].arrival_ns == 100
    gone = weakref.ref(columns)
    gc.disable()
    try:
        del gathered, columns
        assert gone() is None
    finally:
        gc.enable()
