"""What to look at, and what ends a look."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.adapters.kafka import probe
from headrace.adapters.kafka.probe import Looking, Seen, SeenTopic, _Look, found_tags, look
from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.router import compile_rules
from headrace.adapters.payloads.topics import TopicDialect
from headrace.core.clock import VirtualClock
from headrace.core.errors import ConfigError, NotConnected

RULES = compile_rules({"p.{d}": RuleSettings(path="l/{d}/{key}")}, (), "UTC", "t", TopicDialect(".", True))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"topics": "#"}, "a look at kafka knows no 'topics'; did you mean 'topic'"), ({"topic": "a.#.b"}, "is not a literal"),
        ({"count": "0"}, "'0' is not a number of messages, 1 to 1,000"), ({"count": "x"}, "is not a number"),
        ({"for": "61s"}, "at most 60s"),
    ],
)  # fmt: skip
def test_what_is_asked_for_must_make_sense(wanted, said):
    with pytest.raises(ConfigError, match=said):
        Looking.of(wanted, RULES, ".", 3)


def test_what_is_looked_at():
    looking = Looking.of({}, RULES, ".", 3)
    assert (looking.count, looking.matches("p.a"), looking.matches("q.a")) == (3, True, False)
    every = Looking.of({"topic": "#", "count": "7", "for": "1s"}, RULES, ".", 3)
    assert (every.count, every.look_ns, every.matches("q"), every.matches("__offsets")) == (
        7,
        10**9,
        True,
        False,
    )


class Failed:
    """A message that is an error."""

    def __init__(self, code):
        self._error = KafkaError(code)

    def error(self):
        return self._error

    def topic(self):
        return "p.a"

    def partition(self):
        return 0

    def offset(self):
        return None


def test_a_partition_that_is_refused_is_not_waited_for():
    one = _Look(None, Looking.of({}, RULES, ".", 3), 0, VirtualClock())
    ends, seen = {("p.a", 0): 5}, Seen({"p.a": SeenTopic()})
    one._take(Failed(KafkaError._TRANSPORT), seen, ends)
    assert ends
    one._take(Failed(KafkaError.TOPIC_AUTHORIZATION_FAILED), seen, ends)
    assert not ends


class Asked:
    """A client whose cluster answers, but not with what is asked for."""

    answers = []

    def __init__(self, settings, ledger, start):
        self.consumer = self

    def ask(self, timeout_s):
        return Asked.answers.pop(0)

    def list_topics(self, timeout):
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "timed out"))

    def close(self, is_reachable):
        Asked.answers.append("closed")


def test_a_cluster_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(probe, "KafkaClient", Asked)
    settings = {"bootstrap.servers": "h:1"}
    Asked.answers = [None]
    with pytest.raises(NotConnected, match="h:1 does not answer"):
        look(settings, Looking((), 1, -1), VirtualClock())
    Asked.answers = [None, ["p.a"]]
    with pytest.raises(NotConnected, match="timed out"):
        look(settings, Looking((), 1, 10**10), VirtualClock())
    assert Asked.answers == ["closed"]


def test_what_the_newest_messages_offer():
    old, new = (TopicMessage("p.a", b'{"v": %d}' % v, 1, time_ns=v) for v in (1, 2))
    of_d, of_e, of_none = (
        TopicMessage("q", b, 1, key=k) for b, k in ((b"7", b"d"), (b'{"x": 1}', b"e"), (b"8", None))
    )
    topics = {
        "p.a": SeenTopic(1, 2, [new, old, TopicMessage("p.a", b"junk", 1)]), "p.b": SeenTopic(),
        "q": SeenTopic(1, 4, [of_e, of_d, of_d, of_none]),
    }  # fmt: skip
    tags = found_tags(Seen(topics, 3), "x", RULES)
    assert [(t.device, t.name, t.address, t.dtype, t.value) for t in tags] == [
        ("l/a", "v", "p.a#v", "f64", 2), ("p.a", "", "p.a", "", None), ("p.b", "", "p.b", "", None),
        ("q:e", "x", "q", "i64", 1), ("q", "d", "q", "i64", 7), ("q", "value", "q", "i64", 8), ("#", "", "#", "", None),
    ]  # fmt: skip
    assert [t.problem.partition(":")[0] for t in tags] == [
        "", "malformed", "no messages are there", *["no rule of the adapter takes this topic"] * 3, "there are 3 topics more",
    ]  # fmt: skip
    assert tags[0].ts_ns == 2
