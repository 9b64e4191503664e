"""What we say as a host."""

import json

import pytest

from headrace.adapters.payloads.sparkplug import read_payload
from headrace.adapters.sparkplug.host import HostState, RebirthDesk
from headrace.core.clock import NS, VirtualClock

NOW_NS = 1_795_446_000_123_456_789


def told(publication):
    assert (publication.topic, publication.qos, publication.is_retained) == ("spBv1.0/STATE/h", 1, True)
    one = json.loads(publication.payload)
    return one["online"], one["timestamp"]


def test_state_has_the_time_of_its_connection_until_we_leave():
    clock = VirtualClock(NOW_NS)
    host = HostState("h", clock)
    ms = NOW_NS // 1_000_000
    assert told(host.will()) == (False, ms)
    clock.advance(5)
    (online,) = host.arrived()
    assert told(online) == (True, ms)
    assert told(host.leaving()) == (False, ms + 5_000)


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
    host = HostState("h", VirtualClock(NOW_NS))
    host.will()
    answer = host.answer(said)
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


def test_a_node_is_asked_ever_more_rarely_until_it_is_born():
    clock, line = VirtualClock(NOW_NS), Line()
    desk = RebirthDesk("p", clock, 10 * NS, 60 * NS, line.publish)
    for _ in range(3_600):
        desk.ask(("g", "n"))
        clock.advance(1)
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


def test_many_nodes_are_asked_one_after_the_other():
    clock, line = VirtualClock(NOW_NS), Line()
    desk = RebirthDesk("p", clock, 10 * NS, 60 * NS, line.publish)
    for _ in range(2):
        for i in range(1_000):
            desk.ask(("g", str(i)))
        assert desk.n_asked == 20
    clock.advance(1.001)
    for i in range(1_000):
        desk.ask(("g", str(i)))
    assert desk.n_asked == 40


def test_without_a_connection_nobody_was_asked():
    line = Line()
    desk = RebirthDesk("p", VirtualClock(NOW_NS), 10 * NS, 60 * NS, line.publish)
    line.is_up = False
    desk.ask(("g", "n"))
    line.is_up = True
    desk.ask(("g", "n"))
    assert (desk.n_asked, len(line.said)) == (1, 1)
