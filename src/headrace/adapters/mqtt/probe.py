"""Which topics came while we listened, what they carried, what the rules make of it.

What is decoded here goes into a directory that is thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.adapters.broker.listening import KEPT_BYTES, TOPICS_MAX, Ear, listening_ns
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.probing import made_of, rule_of, shown
from headrace.adapters.payloads.router import MessageRouter, TopicRule
from headrace.core.errors import ConfigError
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory

WANTED = ("topic", "for")


@dataclass(frozen=True, slots=True)
class Listening:
    """What to listen to, and for how long.

    Parameters
    ----------
    filters : MQTT's own, with + and #. listen_ns : in real time.
    """

    filters: tuple[str, ...]
    listen_ns: int

    @classmethod
    def of(cls, wanted: Mapping[str, str], rules: Sequence[TopicRule]) -> Listening:
        """From ``topic`` (default: what the rules subscribe to) and ``for``.

        Raises
        ------
        ConfigError : an unknown word, a filter that is none, or a time that is too long.
        """
        for key in wanted:
            if key not in WANTED:
                raise ConfigError(f"an mqtt probe knows no {key!r}{nearest(key, list(WANTED))}", key)
        topic = wanted.get("topic", "")
        levels = topic.split("/")
        if "#" in "".join(levels[:-1]) or any(len(n) > 1 and ("+" in n or "#" in n) for n in levels):
            raise ConfigError(
                f"{topic!r} is no filter: + stands for one level, # for the rest at the end", "topic"
            )
        filters = (topic,) if topic else tuple(r.pattern.filter for r in rules)
        return cls(filters, listening_ns(wanted))


def heard(ear: Ear, name: str, rules: Sequence[TopicRule]) -> dict[str, Any]:
    """What was heard and what the rules make of each topic's newest message, JSON-ready; times in ns."""
    directory = SensorDirectory()
    router = MessageRouter(name, rules, DeviceGroups(directory, TOPICS_MAX))
    topics = []
    for topic, one in sorted(ear.topics.items()):
        found = {
            "topic": topic,
            "messages": one.n_messages,
            "payload": shown(one.newest.payload),
            "payload_bytes": one.n_bytes,
            "rule": rule_of(topic, rules),
            "values": [],
            "problems": [],
        }
        if one.n_bytes > KEPT_BYTES:
            found["problems"] = [f"too large to look into here: {one.n_bytes:,} bytes"]
        else:
            found.update(made_of(router, [one.newest], directory))
        topics.append(found)
    return {"messages": ear.n_messages, "topics": topics, "messages_of_other_topics": ear.n_other_topics}
