"""What a broker offers: every topic that came while somebody listened, and what its newest message carries.

Of a topic that a rule takes, the sensors are told that the rule makes of it: device and signal are their path. Of any
other, what is in the message: the keys of a JSON object, or the one value. Those can't become sensors before a rule
takes the topic, and say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from headrace.adapters.abilities import FoundTag
from headrace.adapters.broker.listening import Ear
from headrace.adapters.payloads.base import TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, TopicRule
from headrace.adapters.payloads.topics import match_topic
from headrace.core.frames import FrameBatch
from headrace.core.quality import word
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory, sensor_id

TOPICS_MAX, KEPT_BYTES = 20_000, 16 << 10
"""Of how many topics, and how much of each newest message."""
DEPTH_MAX = 16
_TEXT_MAX = 200
NO_RULE = "no rule of the adapter takes this topic: write one in the plant file"
_DTYPES = {bool: "u8", int: "i64", float: "f64", str: "string"}


def offered(ear: Ear, name: str, rules: Sequence[TopicRule]) -> list[FoundTag]:
    """All that was heard, by topic. `name` : of the adapter that has the rules."""
    directory = SensorDirectory()
    router = MessageRouter(name, rules, DeviceGroups(directory, ear.topics_max))
    found: list[FoundTag] = []
    for topic, heard in sorted(ear.topics.items()):
        message = heard.newest
        if heard.n_bytes > ear.kept_bytes:
            found.append(_refused(topic, f"{heard.n_bytes:,} bytes are too many to look into here"))
        elif any(match_topic(rule.pattern, topic) is not None for rule in rules):
            found += _by_rule(router, message, directory)
        else:
            found += _by_payload(message)
    if ear.n_other_topics:
        text = f"{ear.n_other_topics:,} messages of more topics came: narrow it with topic="
        found.append(_refused("#", text))
    return found


def _refused(topic: str, why: str) -> FoundTag:
    return FoundTag(topic, "", topic, problem=why)


def _by_rule(router: MessageRouter, message: TopicMessage, directory: SensorDirectory) -> Iterator[FoundTag]:
    """What the adapter would make of a message."""
    batches, rejects = router.decode([message], message.arrival_ns)
    for batch in batches:
        yield from _sensors(batch, message.topic, directory)
    for reject in rejects:
        yield _refused(message.topic, f"{reject.code}: {reject.detail}")


def _sensors(batch: FrameBatch, topic: str, directory: SensorDirectory) -> Iterator[FoundTag]:
    dtype = batch.dtype if batch.dictionary is None else "string"
    newest = {one.path: one for one in readings(batch, directory, max(1, batch.n_values))}
    for path, reading in newest.items():
        slot, column = directory.locate(sensor_id(path))
        known = directory.layout(slot).columns[column]
        device, _, signal = path.rpartition("/")
        yield FoundTag(
            device, signal, topic, dtype, known.unit, known.kind.name.lower(), reading.value, reading.ts_ns,
            word(reading.quality),
        )  # fmt: skip


def _by_payload(message: TopicMessage) -> Iterator[FoundTag]:
    """What is in a message that no rule takes."""
    topic = message.topic
    try:
        value: Any = msgspec.json.decode(message.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = message.payload.decode("utf-8", "backslashreplace")
    if (
        isinstance(value, list) and value and isinstance(value[0], dict)
    ):  # instants: one is as good as another
        value = value[-1]
    if isinstance(value, dict):
        for key, one in _flat(value):
            yield _value(topic, key, topic, one, message.arrival_ns)
    else:
        device, _, name = topic.rpartition("/")
        yield _value(device, name, topic, value, message.arrival_ns)


def _flat(node: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Keys and values of an object, nested ones with dots, as rules name them."""
    for key, value in node.items():
        if isinstance(value, dict) and depth < DEPTH_MAX:
            yield from ((f"{key}.{rest}", one) for rest, one in _flat(value, depth + 1))
        else:
            yield key, value


def _value(device: str, name: str, topic: str, value: Any, arrival_ns: int) -> FoundTag:
    dtype = _DTYPES.get(type(value), "")
    problem = NO_RULE if dtype else f"carries {_said(value)}; {NO_RULE}"
    kind = "discrete" if dtype == "u8" else "analog"
    sample = value[:_TEXT_MAX] if isinstance(value, str) else value
    return FoundTag(
        device,
        name,
        topic,
        dtype,
        kind=kind,
        value=sample if dtype else None,
        ts_ns=arrival_ns,
        problem=problem,
    )


def _said(value: Any) -> str:
    return (
        "nothing" if value is None else "a list" if isinstance(value, list) else "an object that is too deep"
    )
