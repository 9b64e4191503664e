"""What a broker offers: every topic that came while somebody listened, and what its newest message carries."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.adapters.abilities import FoundTag
from headrace.adapters.broker.listening import Ear
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.offers import by_payload, by_rule, refused
from headrace.adapters.payloads.probing import rule_of
from headrace.adapters.payloads.router import MessageRouter, TopicRule
from headrace.core.sensors import SensorDirectory

TOPICS_MAX, KEPT_BYTES = 20_000, 16 << 10
"""Of how many topics, and how much of each newest message."""


def offered(ear: Ear, name: str, rules: Sequence[TopicRule]) -> list[FoundTag]:
    """All that was heard, by topic. `name` : of the adapter that has the rules."""
    directory = SensorDirectory()
    router = MessageRouter(name, rules, DeviceGroups(directory, ear.topics_max))
    found: list[FoundTag] = []
    for topic, heard in sorted(ear.topics.items()):
        if heard.n_bytes > ear.kept_bytes:
            found.append(refused(topic, f"{heard.n_bytes:,} bytes are too many to look into here"))
        elif rule_of(topic, rules) is not None:
            found += by_rule(router, rules, [heard.newest], directory)
        else:
            parent, _, last = topic.rpartition("/")
            found += by_payload(heard.newest, topic, (parent, last))
    if ear.n_other_topics:
        text = f"{ear.n_other_topics:,} messages of more topics came: narrow it with topic="
        found.append(refused("#", text))
    return found
