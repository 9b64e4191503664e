"""What we say as a host."""

import json

import pytest

from headrace.adapters.payloads.sparkplug import read_payload
from headrace.adapters.sparkplug import host
from headrace.adapters.sparkplug.host import HostState, RebirthDesk
from headrace.core.clock import NS, VirtualClock

NOW_NS = 1_795_446_000_123_456_789


def told(publication):
    assert (publication.topic, publication.qos, publication.is_retained) == ("spBv1.0/STATE/h", 1, True)
    one = json.loads(publication.payload)
    return one["online"], one["timestamp"]


def test_state_has_the_time_of_its_connection_until_we_leave():
    clock = VirtualClock(NOW_NS)
    own = HostState("h", clock)
    ms = NOW_NS // 1_000_000
    assert told(own.will()) == (False, ms)
    clock.advance(5)
    (online,) = own.arrived()
    assert told(online) == (True, ms)
    assert told(own.leaving()) == (False, ms + 5_000)


@pytest.mark.parametrize(
    ("said", "is_wrong"),
    [
        (b'{"online": false, "timestamp": 1}', True),
        (b'{"online": true, "timestamp": 1}', False),
        (b"OFFLINE", True),
        (b"[]", True),
        (b"{}", True),
        (b"\xff", True),
        (b"[" * 100_000, True),
    ],
)
def test_a_wrong_word_on_us_is_put_right(said, is_wrong):
    own = HostState("h", VirtualClock(NOW_NS))
    own.will()
    answer = own.answer(said)
    assert (answer is not None) == is_wrong
    assert answer is None or told(answer)[0] is True


class Line:
    def __init__(self):
        self.said = []
        self.is_up = True

    def publish(self, publication):
        if self.is_up:
            self.said.append(publication)
        return self.is_up


class Wait:
    """A timer of `Loop`."""

    def __init__(self, loop, at_s, call):
        self.loop, self.at_s, self.call = loop, at_s, call

    def when(self):
        return self.at_s

    def cancel(self):
        self.loop.waits.remove(self)


class Loop:
    """Timers that go by the clock of the test."""

    def __init__(self, clock):
        self.clock, self.waits = clock, []

    def time(self):
        return (self.clock.now_ns() - NOW_NS) / 1e9

    def call_at(self, at_s, call):
        self.waits.append(Wait(self, at_s, call))
        return self.waits[-1]

    def advance(self, duration_s):
        until_s = self.time() + duration_s
        while due := [one for one in self.waits if one.at_s <= until_s]:
            first = min(due, key=Wait.when)
            self.waits.remove(first)
            self.clock.advance(max(0.0, first.at_s - self.time()))
            first.call()
        self.clock.advance(until_s - self.time())


@pytest.fixture
def loop(monkeypatch):
    made = Loop(VirtualClock(NOW_NS))
    monkeypatch.setattr(host.asyncio, "get_running_loop", lambda: made)
    return made


def test_a_node_is_asked_ever_more_rarely_until_it_is_born(loop):
    line = Line()
    desk = RebirthDesk("p", loop.clock, 10 * NS, 60 * NS, line.publish)
    for _ in range(3_600):
        desk.ask(("g", "n"))
        loop.advance(1)
    assert 60 <= desk.n_asked <= 125, "every 30 to 60 s in the end"
    one = line.said[0]
    assert (one.topic, one.qos, one.is_retained) == ("spBv1.0/g/NCMD/n", 0, False)
    (metric,) = read_payload(one.payload).metrics
    assert (metric.name, metric.value, metric.datatype) == ("Node Control/Rebirth", True, 11)
    before = desk.n_asked
    desk.born(("g", "n"))
    desk.ask(("g", "n"))
    desk.born(("g", "unknown"))
    assert desk.n_asked == before + 1


def test_many_nodes_are_asked_one_after_the_other(loop):
    desk = RebirthDesk("p", loop.clock, 1_000 * NS, 6_000 * NS, Line().publish)
    for _ in range(2):
        for i in range(1_000):
            desk.ask(("g", str(i)))
        assert desk.n_asked == 20
    loop.advance(1.2)
    assert desk.n_asked == 40, "though none of them says anything more"
    loop.advance(60)
    assert desk.n_asked == 1_000


def test_without_a_connection_a_node_is_asked_when_there_is_one(loop):
    line = Line()
    desk = RebirthDesk("p", loop.clock, 10 * NS, 60 * NS, line.publish)
    line.is_up = False
    desk.ask(("g", "n"))
    desk.ask(("g", "born"))
    loop.advance(3)
    desk.born(("g", "born"))
    line.is_up = True
    desk.ask(("g", "n"))
    assert desk.n_asked == 0
    loop.advance(0.2)
    assert [one.topic for one in line.said] == ["spBv1.0/g/NCMD/n"]


def test_a_node_that_speaks_too_soon_is_asked_when_it_may_be(loop):
    desk = RebirthDesk("p", loop.clock, 10 * NS, 60 * NS, Line().publish)
    desk.ask(("g", "n"))
    loop.advance(0.1)
    desk.ask(("g", "n"))
    assert desk.n_asked == 1
    loop.advance(10)
    assert desk.n_asked == 2
    loop.advance(3_600)
    assert desk.n_asked == 2, "it has said nothing since"


def test_who_was_born_meanwhile_waits_as_long_as_anybody(loop):
    """What was due before the birth does not make the next request come sooner."""
    desk = RebirthDesk("p", loop.clock, 10 * NS, 60 * NS, Line().publish)
    node = ("g", "n")
    for _ in range(2):
        desk.ask(node)
    assert (desk.n_asked, len(loop.waits)) == (1, 1)
    loop.advance(4)
    desk.born(node)
    for _ in range(2):
        desk.ask(node)
    before_ns, wait_ns = loop.clock.now_ns(), desk._waits[node][1]
    while desk.n_asked == 2:
        loop.advance(0.05)
    assert loop.clock.now_ns() >= wait_ns > before_ns
    assert desk.n_asked == 3
    for _ in range(1_000):  # it flaps
        desk.born(node)
        desk.ask(node)
    assert len(desk._due_ns) <= 1 >= len(loop.waits)


def test_a_request_that_is_due_soon_does_not_wait_for_one_that_is_due_later(loop):
    line = Line()
    desk = RebirthDesk("p", loop.clock, 100 * NS, 600 * NS, line.publish)
    for _ in range(2):
        desk.ask(("g", "late"))
    line.is_up = False
    desk.ask(("g", "soon"))
    line.is_up = True
    loop.advance(0.2)
    assert [one.topic for one in line.said] == ["spBv1.0/g/NCMD/late", "spBv1.0/g/NCMD/soon"]


def test_a_closed_desk_asks_nobody(loop):
    line = Line()
    line.is_up = False
    desk = RebirthDesk("p", loop.clock, 10 * NS, 60 * NS, line.publish)
    desk.close()
    desk = RebirthDesk("p", loop.clock, 10 * NS, 60 * NS, line.publish)
    desk.ask(("g", "n"))
    desk.close()
    assert not loop.waits
    desk.ask(("g", "n"))
    assert not loop.waits
