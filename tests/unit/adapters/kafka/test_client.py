"""What the library says and what is made of it: with a consumer that says it on demand."""

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from headrace.adapters.kafka import client as client_module
from headrace.adapters.kafka.client import KafkaClient, NotAdmitted, Spoilt
from headrace.adapters.kafka.config import StartAt
from headrace.adapters.kafka.ledger import OffsetLedger
from headrace.core.errors import ConfigError, NotConnected

A = ("t", 0)


class Said:
    """A message, or an error in the place of one."""

    def __init__(self, error=None, place=A):
        self._error = error
        self._place = place

    def error(self):
        return self._error

    def topic(self):
        return self._place[0]

    def partition(self):
        return self._place[1]


class Scripted:
    """Stands in for the library's consumer."""

    def __init__(self, settings):
        self.settings = settings
        self.log = []
        self.coming = []
        self.failing = {}
        self.offsets = {"committed": -1001, "time": 5, "end": 9}

    def note(self, name, *rest):
        self.log.append((name, *rest))
        if name in self.failing:
            raise KafkaException(self.failing[name])

    def list_topics(self, timeout):
        self.note("list")
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "Failed to get metadata: timed out"))

    def poll(self, timeout):
        return self.coming.pop(0) if self.coming else None

    def consume(self, n, timeout):
        some, self.coming = self.coming[:n], self.coming[n:]
        return some

    def commit(self, offsets, asynchronous):
        self.note("commit", [(o.topic, o.partition, o.offset) for o in offsets], asynchronous)

    def committed(self, partitions, timeout):
        self.note("committed")
        return [TopicPartition(p.topic, p.partition, self.offsets["committed"]) for p in partitions]

    def offsets_for_times(self, partitions, timeout):
        self.note("times", partitions[0].offset)
        return [TopicPartition(p.topic, p.partition, self.offsets["time"]) for p in partitions]

    def get_watermark_offsets(self, partition, timeout=-1, cached=False):
        if not cached and "begin" in self.offsets:
            self.note("begin")
        return self.offsets.get("begin", 0), self.offsets["end"]

    def assignment(self):
        return [TopicPartition(*A)]

    def __getattr__(self, name):
        if name in ("pause", "resume", "assign", "unassign", "close", "subscribe"):
            return lambda *rest, **more: self.note(name)
        raise AttributeError(name)


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setattr(client_module, "Consumer", Scripted)
    monkeypatch.setattr(client_module, "_SETTLE_S", 0.01)

    def made(start=None):
        return KafkaClient({}, OffsetLedger(), start or StartAt())

    return made


def error_of(code, text="x"):
    return KafkaError(code, text)


def partitions(*numbers):
    return [TopicPartition("t", number) for number in numbers]


def test_settings_that_the_library_does_not_take():
    with pytest.raises(ConfigError, match=r"the settings can't be used: .*\"nonsense\""):
        KafkaClient({"group.id": "g", "nonsense": 1}, OffsetLedger(), StartAt())


def test_errors_are_told_by_what_they_mean(make):
    one = make()
    assert one.problem() is None
    assert one.ask(0.1) is None
    one._on_error(
        error_of(
            KafkaError._TRANSPORT,
            "h:9/1: Connect to ipv4#1.2.3.4:9 failed: Refused (after 0ms in state CONNECT)",
        )
    )
    assert one.problem() is None, "other brokers may be there"
    one._on_error(error_of(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert str(one.problem()) == "h:9: Refused"
    one._on_error(error_of(KafkaError._AUTHENTICATION, "sasl_ssl://h:9/bootstrap: wrong password"))
    assert isinstance(one.problem(), NotAdmitted)
    assert str(one.problem()) == "h:9: wrong password"
    nobody = make()
    nobody._on_error(error_of(KafkaError._ALL_BROKERS_DOWN))
    assert str(nobody.problem()) == "no broker answers"


def test_messages_come_before_the_news_that_nobody_is_there(make):
    one = make()
    one._on_error(error_of(KafkaError._ALL_BROKERS_DOWN))
    one.consumer.coming = [Said(), Said()]
    assert len(one.pull()) == 2
    with pytest.raises(NotConnected):
        one.pull()


def test_errors_in_the_place_of_messages(make):
    one = make()
    one.consumer.coming = [Said(error_of(KafkaError.TOPIC_AUTHORIZATION_FAILED, "no right to t")), Said()]
    assert len(one.pull()) == 1
    assert one.complaint == "no right to t"
    one._on_assign(one.consumer, partitions(0))
    assert one.complaint == ""
    one.consumer.coming = [Said(error_of(KafkaError.GROUP_AUTHORIZATION_FAILED, "no right to g"))]
    with pytest.raises(NotAdmitted, match="no right to g"):
        one.pull()


def test_what_was_on_its_way_while_held_is_kept(make):
    one = make()
    one.consumer.coming = [Said()]
    one.hold()
    one.hold()
    one.go_on()
    one.go_on()
    assert [line[0] for line in one.consumer.log] == ["pause", "resume"]
    assert len(one.pull()) == 1
    one.hold()
    one._on_assign(one.consumer, partitions(1))
    assert [line[0] for line in one.consumer.log][-4:] == ["pause", "committed", "assign", "pause"], (
        "also what is new"
    )


def test_a_commit_that_fails_is_made_again(make):
    one = make()
    one._on_assign(one.consumer, partitions(0))
    one._ledger.land(one._ledger.take({A: [4]}).values())
    one.commit()
    one._on_commit(error_of(KafkaError.REBALANCE_IN_PROGRESS), [TopicPartition("t", 0, 5)])
    one.commit()
    one._on_commit(None, [TopicPartition("t", 0, 5)])
    one.commit()
    assert one.consumer.log[1:] == [("commit", [("t", 0, 5)], True)] * 2


def test_what_is_durable_is_committed_before_a_partition_goes(make):
    one = make()
    one._on_assign(one.consumer, partitions(0, 1))
    one._ledger.land(one._ledger.take({A: [4]}).values())
    one._on_revoke(one.consumer, partitions(0))
    assert one.consumer.log[1:] == [("commit", [("t", 0, 5)], False)]
    assert list(one._ledger.progress()) == [("t", 1)]
    one._ledger.land(one._ledger.take({("t", 1): [4]}).values())
    one.consumer.failing["commit"] = error_of(KafkaError.UNKNOWN_MEMBER_ID, "who are you?")
    one._on_revoke(one.consumer, partitions(1))
    assert "comes again: who are you?" in one._last
    one._on_assign(one.consumer, partitions(0))
    one._ledger.land(one._ledger.take({A: [7]}).values())
    one._on_lost(one.consumer, partitions(0))
    one.commit()
    assert [line[0] for line in one.consumer.log].count("commit") == 2, "nothing for what was lost"


def test_a_commit_under_way_is_made_again_before_a_partition_goes(make):
    """Its answer comes too late, and may be a refusal: then all of it would come again."""
    one = make()
    one._on_assign(one.consumer, partitions(0))
    one._ledger.land(one._ledger.take({A: [4]}).values())
    one.commit()
    one._on_revoke(one.consumer, partitions(0))
    one._on_commit(error_of(KafkaError.REBALANCE_IN_PROGRESS), [TopicPartition("t", 0, 5)])
    assert one.consumer.log[1:] == [("commit", [("t", 0, 5)], True), ("commit", [("t", 0, 5)], False)]


@pytest.mark.parametrize("how", ["_on_revoke", "_on_lost"])
def test_messages_of_a_partition_that_goes_are_not_handed_on(make, monkeypatch, how):
    """Were it ours again, they would come before those that the group has yet to have, and be committed without them."""
    one = make()
    one._on_assign(one.consumer, partitions(0, 1))
    others = Said(place=("t", 1)), Said(place=("t", 1))
    one.consumer.coming = [
        Said(),
        others[0],
        Said(error_of(KafkaError.TOPIC_AUTHORIZATION_FAILED, "no right")),
    ]
    one._hear()

    def consume(n, timeout):
        getattr(one, how)(one.consumer, partitions(0))
        one._on_assign(one.consumer, partitions(0))
        return [others[1]]

    monkeypatch.setattr(one.consumer, "consume", consume)
    one.consumer.coming = [Said()]
    assert one.pull() == list(others)
    assert one.complaint == "no right"


def test_a_new_group_begins_where_it_is_told_to(make):
    one = make(StartAt(False, 7))
    one._on_assign(one.consumer, partitions(0))
    assert one.consumer.log == [("committed",), ("times", 7), ("commit", [("t", 0, 5)], False)]
    one = make(StartAt(False, 7))
    one.consumer.offsets["time"] = -1
    one._on_assign(one.consumer, partitions(0))
    assert one.consumer.log[-1] == ("commit", [("t", 0, 9)], False), "nothing is so late: the end"
    assert one._ledger.progress()[A].taken == 9
    one = make(StartAt(False))
    one.consumer.offsets["committed"] = 3
    one._on_assign(one.consumer, partitions(0))
    assert one.consumer.log == [("committed",)], "it has begun"


def test_where_to_begin_can_not_be_found_out(make):
    one = make(StartAt(False))
    one.consumer.failing["committed"] = error_of(KafkaError._TIMED_OUT, "timed out")
    one._on_assign(one.consumer, partitions(0))
    one.is_held = True
    assert one.consumer.log == [("committed",), ("unassign",)], "all that is there would come"
    assert one._ledger.progress() == {}
    with pytest.raises(Spoilt, match="where to begin can't be found out: timed out"):
        one.pull()


def test_the_end_is_only_taken_where_it_is_known(make):
    one = make()
    one._on_assign(one.consumer, partitions(0))
    one.consumer.offsets["end"] = -1001
    one._look_ahead()
    assert one._ledger.progress()[A].end == -1
    one.consumer.offsets["end"] = 9
    one._look_ahead()
    assert one._ledger.progress()[A].end == 9
    one._on_commit(None, [])
    one.close(is_reachable=True)


def test_messages_among_the_news_are_kept(make, monkeypatch):
    one = make()
    one.consumer.coming = [Said(), Said()]
    assert one.ask(0.1) is None
    assert len(one.pull()) == 2
    monkeypatch.setattr(client_module, "SLICE_MESSAGES", 1)
    one.consumer.coming = [Said() for _ in range(9)]
    one._hear()
    assert len(one.consumer.coming) == 8, "what comes without an end does not keep us from asking"


def test_a_group_that_begins_with_all_there_is_needs_no_answer(make):
    one = make()
    one.consumer.failing["committed"] = error_of(KafkaError._TIMED_OUT, "timed out")
    one._on_assign(one.consumer, partitions(0))
    assert one.problem() is None
    assert one._ledger.progress()[A].taken == -1
    one = make()
    one.consumer.offsets["committed"] = 7
    one._on_assign(one.consumer, partitions(0))
    assert one._ledger.progress()[A].taken == 7


def test_what_was_deleted_before_it_came_is_told(make):
    one = make()
    one.consumer.offsets |= {"committed": 7, "begin": 3}
    one._on_assign(one.consumer, partitions(0))
    one._ledger.take({A: [9]})
    one._look_back()
    assert (one.losses, one._ledger.n_gaps) == ([], 0), "a mark of a transaction, or it was compacted"
    one.consumer.offsets["begin"] = 20
    one._ledger.take({A: [20]})
    one.consumer.failing["begin"] = error_of(KafkaError._TIMED_OUT, "timed out")
    one._look_back()
    assert one._last == "where t:0 begins can't be found out: timed out"
    del one.consumer.failing["begin"]
    one._look_back()
    one._look_back()
    (loss,) = one.losses
    assert loss.startswith("topic=t partition=0: the cluster deleted messages from offset 10 to 19 before")
    assert one._ledger.n_gaps == 1
    assert [line[0] for line in one.consumer.log].count("begin") == 3
