"""Looking at the newest messages of a cluster's topics: which topics there are, what they carry, what the rules make.

By a consumer of its own, which joins no group and commits nothing: the adapter's progress is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.adapters.abilities import FoundTag
from headrace.adapters.kafka.client import KafkaClient
from headrace.adapters.kafka.config import StartAt, reason_of_library
from headrace.adapters.kafka.inbox import topic_message
from headrace.adapters.kafka.ledger import OffsetLedger
from headrace.adapters.payloads.base import TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.offers import by_payload, by_rule, refused
from headrace.adapters.payloads.probing import made_of, rule_of, shown
from headrace.adapters.payloads.router import MessageRouter, TopicRule
from headrace.adapters.payloads.topics import TopicPattern, match_topic, parse_topic
from headrace.core.clock import NS, Clock, monotonic_ns
from headrace.core.errors import ConfigError, NotConnected
from headrace.core.paths import parse_duration_ns
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory

WANTED = ("topic", "count", "for")
TOPICS_MAX = 500
_COUNT_MAX = 1_000
_LOOK, _LOOK_NS_MAX = "5s", 60 * NS
_ASK_S, _PULL_S = 0.25, 0.05
_PARTITIONS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Looking:
    """What to look at.

    Parameters
    ----------
    patterns : topics. count : newest messages of each partition. look_ns : in real time, at most.
    """

    patterns: tuple[TopicPattern, ...]
    count: int
    look_ns: int

    @classmethod
    def of(cls, wanted: Mapping[str, str], rules: Sequence[TopicRule], separator: str, count: int) -> Looking:
        """From ``topic`` (as a rule's, default: those of the rules), ``count`` and ``for``.

        Raises
        ------
        ConfigError : an unknown word, a topic that is none, a number or a time that is too large.
        """
        for key in wanted:
            if key not in WANTED:
                raise ConfigError(f"a look at kafka knows no {key!r}{nearest(key, list(WANTED))}", key)
        if "topic" in wanted:
            patterns: tuple[TopicPattern, ...] = (parse_topic(wanted["topic"], separator),)
        else:
            patterns = tuple(rule.pattern for rule in rules)
        number = wanted.get("count", str(count))
        if not number.isdecimal() or not 0 < int(number) <= _COUNT_MAX:
            raise ConfigError(f"{number!r} is not a number of messages, 1 to {_COUNT_MAX:,}", "count")
        look_ns = parse_duration_ns(wanted.get("for", _LOOK))
        if not 0 < look_ns <= _LOOK_NS_MAX:
            raise ConfigError("look for at most 60s", "for")
        return cls(patterns, int(number), look_ns)

    def matches(self, topic: str) -> bool:
        """Whether a topic is looked at."""
        is_internal = topic.startswith("__")
        return not is_internal and any(match_topic(p, topic) is not None for p in self.patterns)


@dataclass(eq=False, slots=True)
class SeenTopic:
    """A topic: its partitions, how many messages they hold, and the newest of them in order."""

    n_partitions: int = 0
    n_messages: int = 0
    newest: list[TopicMessage] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Seen:
    """What was seen, topic by topic, and how many topics more there are."""

    topics: dict[str, SeenTopic] = field(default_factory=dict)
    n_other_topics: int = 0


def look(settings: dict[str, Any], looking: Looking, clock: Clock) -> Seen:
    """Fetch the newest messages; blocks for as long as it was told at most, so not for the event loop.

    Raises
    ------
    NotConnected : no broker answers, or they refuse us. ConfigError : the library does not take the settings.
    """
    deadline_ns = monotonic_ns() + looking.look_ns
    client = KafkaClient(settings, OffsetLedger(), StartAt())
    try:
        while client.ask(_ASK_S) is None:
            if monotonic_ns() >= deadline_ns:
                raise NotConnected(f"{settings['bootstrap.servers']} does not answer")
        return _Look(client.consumer, looking, deadline_ns, clock).seen()
    except KafkaException as e:
        raise NotConnected(reason_of_library(e)) from e
    finally:
        client.close(is_reachable=False)


class _Look:
    """One look at a cluster that answers."""

    def __init__(self, consumer: Consumer, looking: Looking, deadline_ns: int, clock: Clock) -> None:
        self._consumer = consumer
        self._looking = looking
        self._deadline_ns = deadline_ns
        self._clock = clock

    def _left_s(self) -> float:
        return max(0.001, (self._deadline_ns - monotonic_ns()) / NS)

    def seen(self) -> Seen:
        """Everything; raises KafkaException."""
        found = self._consumer.list_topics(timeout=self._left_s()).topics
        names = sorted(name for name in found if self._looking.matches(name))
        seen = Seen({name: SeenTopic(len(found[name].partitions)) for name in names[:TOPICS_MAX]})
        seen.n_other_topics = max(0, len(names) - TOPICS_MAX)
        ends: dict[tuple[str, int], int] = {}
        starts = []
        for name, topic in seen.topics.items():
            for number in sorted(found[name].partitions)[:_PARTITIONS_MAX]:
                place = TopicPartition(name, number)
                low, high = self._consumer.get_watermark_offsets(place, timeout=self._left_s())
                topic.n_messages += max(0, high - low)
                if high > low:
                    starts.append(TopicPartition(name, number, max(low, high - self._looking.count)))
                    ends[name, number] = high
        self._consumer.assign(starts)
        self._read(seen, ends)
        return seen

    def _read(self, seen: Seen, ends: dict[tuple[str, int], int]) -> None:
        while ends and monotonic_ns() < self._deadline_ns:
            for one in self._consumer.consume(_COUNT_MAX, _PULL_S):
                self._take(one, seen, ends)
        for topic in seen.topics.values():
            topic.newest.sort(key=lambda message: message.time_ns)

    def _take(self, one: Message, seen: Seen, ends: dict[tuple[str, int], int]) -> None:
        error = one.error()
        topic, number, offset = one.topic(), one.partition(), one.offset()
        if error is not None:
            if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._PARTITION_EOF):
                ends.pop((topic, number), None)
            return
        if one.value() is not None:
            seen.topics[topic].newest.append(topic_message(one, self._clock.now_ns()))
        if offset + 1 >= ends.get((topic, number), offset + 2):
            ends.pop((topic, number), None)


def told(seen: Seen, name: str, rules: Sequence[TopicRule]) -> dict[str, Any]:
    """What was seen and what the rules make of it, JSON-ready; times in ns."""
    directory = SensorDirectory()
    router = MessageRouter(name, rules, DeviceGroups(directory))
    topics = []
    for topic, one in seen.topics.items():
        newest = one.newest[-1] if one.newest else None
        found: dict[str, Any] = {
            "topic": topic,
            "partitions": one.n_partitions,
            "messages": one.n_messages,
            "key": None if newest is None or newest.key is None else shown(newest.key),
            "payload": "" if newest is None else shown(newest.payload),
            "payload_bytes": 0 if newest is None else len(newest.payload),
            "rule": rule_of(topic, rules),
            "values": [],
            "problems": [],
        }
        if one.newest:
            found.update(made_of(router, one.newest, directory))
        topics.append(found)
    n_messages = sum(one.n_messages for one in seen.topics.values())
    return {"messages": n_messages, "topics": topics, "messages_of_other_topics": seen.n_other_topics}


def found_tags(seen: Seen, name: str, rules: Sequence[TopicRule]) -> list[FoundTag]:
    """What the newest messages offer, in the order of topics; of topics without a rule by key of their messages."""
    directory = SensorDirectory()
    router = MessageRouter(name, rules, DeviceGroups(directory))
    out: list[FoundTag] = []
    for topic, one in seen.topics.items():
        if not one.newest:
            out.append(refused(topic, "no messages are there"))
        elif rule_of(topic, rules) is not None:
            out += by_rule(router, rules, one.newest, directory)
        else:
            for key, message in {message.key: message for message in one.newest}.items():
                shown_key = "" if key is None else shown(key)
                device = f"{topic}:{shown_key}" if shown_key else topic
                out += by_payload(message, device, (topic, shown_key or "value"))
    if seen.n_other_topics:
        out.append(refused("#", f"there are {seen.n_other_topics:,} topics more: narrow it with topic="))
    return out
