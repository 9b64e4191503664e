"""Sequence numbers: what waits, for how long, and what is handed on."""

import asyncio

import pytest

from headrace.adapters.broker import packets
from headrace.adapters.broker.packets import NO_ID, PacketFramer, TopicTable, one_arrival
from headrace.adapters.payloads.sparkplug_writer import write_payload
from headrace.adapters.sparkplug import order
from headrace.adapters.sparkplug.order import SequenceGate
from headrace.core.events import Reject, RejectCode
from headrace.testing.adapters import until


@pytest.fixture(params=[True, False], ids=["by columns", "one by one"], autouse=True)
def _way(request, monkeypatch):
    """As the framer brings them, and as gmqtt does."""
    monkeypatch.setattr(Desk, "is_numbered", request.param)


class Desk:
    """A gate, what it handed on, and what it told."""

    is_numbered = True

    def __init__(self, wait_s=60.0, **more):
        self.generation = 1
        self.is_paused = False
        self.taken = []
        self.gaps = []
        self.acknowledged = []
        self.n_forgotten = 0
        self.framer = PacketFramer(TopicTable())
        self.gate = SequenceGate(self, self, wait_s, self.gaps.append, **more)

    def take(self, came):
        for topic, payload, packet_id in zip(
            came.topics, came.payloads, came.packet_ids.tolist(), strict=True
        ):
            self.taken.append((topic.split("/")[2], payload, None if packet_id == NO_ID else packet_id))

    def forget(self):
        self.n_forgotten += 1

    def refuse(self, reject, packet_id):
        self.taken.append((reject, packet_id))

    def acknowledge(self, packet_ids):
        self.acknowledged += packet_ids.tolist()

    def arrival(self, topic, payload, packet_id=None):
        if not self.is_numbered:
            return one_arrival(topic, payload, packet_id)
        return self.framer.next(packet(topic, payload, packet_id), 0, False)[0]

    def say(self, kind, seq, packet_id=None, node="n"):
        topic = f"spBv1.0/g/{kind}/{node}" + ("/d" if kind[0] == "D" else "")
        self.gate.take(self.arrival(topic, write_payload(1, seq, []), packet_id))

    @property
    def seqs(self):
        return [payload[-1] if payload[-2:-1] == b"\x18" else payload[-2:] for _, payload, _ in self.taken]

    def kinds(self):
        return [kind for kind, _, _ in self.taken]


async def test_in_order_nothing_waits_and_numbers_go_round():
    desk = Desk()
    desk.say("NBIRTH", 254)
    for seq in (255, 0, 1):
        desk.say("DDATA", seq)
    assert len(desk.taken) == 4
    assert (desk.gate.n_gaps, desk.gate.n_reordered) == (0, 0)


async def test_what_comes_too_early_waits_for_those_before_it():
    desk = Desk()
    desk.say("NBIRTH", 0)
    for seq in (3, 2):
        desk.say("DDATA", seq)
    assert desk.kinds() == ["NBIRTH"]
    desk.say("DDATA", 3)  # it comes again
    desk.say("NDATA", 1)
    assert desk.seqs == [0, 1, 2, 3]
    assert desk.gate.n_reordered == 2
    desk.say("NDATA", 4)
    assert len(desk.taken) == 5
    desk.say("NDATA", 3)
    assert len(desk.taken) == 6, "too late is not too early"


async def test_of_two_with_one_number_none_is_lost():
    desk = Desk()
    desk.say("NBIRTH", 0, 1)
    desk.say("DDATA", 2, 2)
    desk.say("DDATA", 2, 3)  # by a second way to the broker
    desk.say("NDATA", 2, 3)
    assert [packet_id for _, _, packet_id in desk.taken] == [1, 2]
    desk.generation = 2
    desk.say("DDATA", 2, 7)  # it comes again, on another connection
    desk.say("NDATA", 1, 8)
    assert [packet_id for _, _, packet_id in desk.taken] == [1, 2, 8, 7]
    assert desk.gate._n_held == 0


async def test_after_a_while_what_waits_is_handed_on_and_the_gap_is_told():
    desk = Desk(wait_s=0.01)
    desk.say("NBIRTH", 250)
    for seq in (2, 253):
        desk.say("DDATA", seq)
    await until(lambda: desk.gaps == [("g", "n")], "the gap is told")
    assert desk.seqs == [b"\xfa\x01", b"\xfd\x01", 2]
    desk.say("DDATA", 3)
    assert len(desk.taken) == 4
    assert desk.gate.n_gaps == 1


async def test_while_nothing_is_read_nothing_is_given_up():
    desk = Desk(wait_s=0.01)
    desk.say("NBIRTH", 0)
    desk.is_paused = True
    desk.say("NDATA", 2)
    await asyncio.sleep(0.05)
    assert (desk.gaps, len(desk.taken)) == ([], 1)
    desk.say("NDATA", 1)
    assert desk.seqs == [0, 1, 2]
    desk.say("NDATA", 4)
    desk.is_paused = False
    await until(lambda: desk.gaps == [("g", "n")], "the gap is told")


@pytest.mark.parametrize("kind", ["NBIRTH", "NDEATH"])
async def test_what_waits_belongs_to_the_life_before(kind):
    desk = Desk()
    desk.say("NBIRTH", 0)
    desk.say("DDATA", 2)
    desk.say(kind, None if kind == "NDEATH" else 0)
    assert desk.kinds() == ["NBIRTH", "DDATA", kind]
    desk.say("DDATA", 1)
    assert len(desk.taken) == 4
    assert not desk.gaps
    desk.say("NDEATH", None, node="other")
    assert len(desk.taken) == 5


async def test_what_has_no_number_or_no_birth_is_handed_on():
    desk = Desk()
    desk.say("NDATA", 7)
    desk.say("NBIRTH", 0)
    desk.gate.take(desk.arrival("spBv1.0/g/NDATA/n", b"\xff"))
    desk.gate.take(desk.arrival("somewhere/else/altogether", b""))
    assert len(desk.taken) == 4


async def test_nodes_are_bounded(monkeypatch):
    monkeypatch.setattr(order, "N_NODES_MAX", 1)
    desk = Desk()
    for node in "ab":
        desk.say("NBIRTH", 0, node=node)
        desk.say("NDATA", 5, node=node)
    assert len(desk.taken) == 3, "of those beyond the bound nothing waits"


async def test_nodes_that_come_and_go_leave_nothing(monkeypatch):
    monkeypatch.setattr(order, "N_NODES_MAX", 3)
    monkeypatch.setattr(packets, "N_TOPICS_MAX", 3)
    desk = Desk()
    desk.say("NBIRTH", 0, node="stays")
    for number in range(20):
        desk.say("NBIRTH", 0, node=f"n{number}")
        desk.say("NDATA", number + 1, node="stays")
        desk.say("NDATA", 1, node=f"n{number}")
        desk.say("NDEATH", -1, node=f"n{number}")
    assert len(desk.gate._numbers) <= 10
    assert len(desk.taken) == 81
    desk.say("NDATA", 22, node="stays")
    assert len(desk.taken) == 81, "its numbers were kept: it is one too early"
    desk.gate.finish()


async def test_what_waits_is_bounded(monkeypatch):
    monkeypatch.setattr(order, "N_HELD_MAX", 2)
    desk = Desk()
    desk.say("NBIRTH", 0)
    for seq in (2, 3, 4):
        desk.say("NDATA", seq)
    assert len(desk.taken) == 4
    assert desk.gaps == [("g", "n")]


async def test_what_waits_on_a_lost_connection_comes_again_and_is_taken_then():
    desk = Desk()
    desk.say("NBIRTH", 0, 1)
    desk.say("NDATA", 2, 2)
    desk.say("NDATA", 3)
    desk.generation = 2
    desk.gate.finish()
    assert [packet_id for _, _, packet_id in desk.taken] == [1, None]
    desk.gate.finish()
    assert len(desk.taken) == 2


async def test_without_our_session_what_waits_does_not_come_again():
    desk = Desk()
    desk.say("NBIRTH", 0, 1)
    desk.say("NDATA", 2, 2)
    desk.generation = 2
    desk.gate.forget()
    assert desk.n_forgotten == 1
    desk.gate.finish()
    assert desk.taken[-1][2] is None
    assert len(desk.taken) == 2


async def test_what_the_broker_says_of_us_is_no_message():
    heard = []
    desk = Desk(state_topic="spBv1.0/STATE/h", on_state=heard.append)
    desk.gate.take(desk.arrival("spBv1.0/STATE/h", b"x", 5))
    desk.gate.take(desk.arrival("spBv1.0/STATE/h", b"y"))
    desk.gate.take(desk.arrival("spBv1.0/STATE/other", b"z"))
    assert (heard, desk.acknowledged, len(desk.taken)) == ([b"x", b"y"], [5], 1)
    await asyncio.sleep(0)


async def test_what_waits_is_bounded_by_its_bytes_too(monkeypatch):
    monkeypatch.setattr(order, "HELD_BYTES_MAX", 5)
    desk = Desk()
    desk.say("NBIRTH", 0)
    desk.say("NDATA", 2)
    assert (len(desk.taken), desk.gate._n_bytes) == (1, 4)
    desk.say("NDATA", 3)
    assert (len(desk.taken), desk.gaps, desk.gate._n_bytes) == (3, [("g", "n")], 0)


async def test_messages_in_order_pass_by_together():
    desk = Desk()
    parts = []
    desk.take = parts.append
    topics = [f"spBv1.0/g/{kind}/n" for kind in ("NBIRTH", "NDATA", "NDATA", "NDATA", "NDATA", "NDATA")]
    seqs = (0, 1, 2, 4, 3, 5)
    whole = b"".join(packet(t, write_payload(1, seq, [])) for t, seq in zip(topics, seqs, strict=True))
    desk.gate.take(desk.framer.next(whole, 0, False)[0])
    assert [len(part) for part in parts] == [1, 2, 1, 1, 1]
    assert [payload[-1] for part in parts for payload in part.payloads] == [0, 1, 2, 3, 4, 5]
    assert desk.gate.n_reordered == 1


@pytest.mark.parametrize("n", [100, 300])
async def test_nodes_keep_their_numbers_when_topics_begin_anew(monkeypatch, n):
    monkeypatch.setattr(packets, "N_TOPICS_MAX", 250)
    desk = Desk()
    desk.is_numbered = True
    for seq in range(4):
        for node in range(n):
            desk.say("NDATA" if seq else "NBIRTH", seq, node=f"n{node}")
    assert len(desk.taken) == 4 * n
    desk.say("NDATA", 5, node="n7")
    assert len(desk.taken) == 4 * n, "it is one too early"
    for node in range(n):
        desk.say("NDATA", 4, node=f"x{node}")  # of nobody who lives
    desk.say("NDATA", 4, node="n7")
    assert len(desk.taken) == 5 * n + 2
    desk.gate.finish()


def test_what_is_no_message_waits_for_none():
    desk = Desk()
    reject = Reject(RejectCode.MALFORMED, "x", "", "a packet")
    desk.gate.refuse(reject, 7)
    assert desk.taken == [(reject, 7)]


def packet(topic, payload, packet_id=None):
    body = len(topic).to_bytes(2, "big") + topic.encode()
    body += (b"" if packet_id is None else packet_id.to_bytes(2, "big")) + payload
    return bytes([0x30 if packet_id is None else 0x32, len(body)]) + body
