"""What messages offer, for a person who takes a plant into service: what rules make of them, or what is in them.

Of messages that a rule takes, the sensors are told that the rule makes of them: device and signal are their path. Of any
other, what is in the message: the keys of a JSON object, or the one value. Those can't become sensors before a rule
takes them, and say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from headrace.adapters.abilities import FoundTag
from headrace.adapters.payloads.base import TopicMessage
from headrace.adapters.payloads.router import MessageRouter, TopicRule, written_address
from headrace.core.quality import word
from headrace.core.readings import Reading, readings
from headrace.core.sensors import SensorDirectory, sensor_id

DEPTH_MAX = 16
_TEXT_MAX = 200
NO_RULE = "no rule of the adapter takes this topic: write one in the plant file"
_DTYPES = {bool: "u8", int: "i64", float: "f64", str: "string"}


def refused(topic: str, why: str) -> FoundTag:
    """A topic that can't be looked into."""
    return FoundTag(topic, "", topic, problem=why)


def by_rule(
    router: MessageRouter,
    rules: Sequence[TopicRule],
    messages: Sequence[TopicMessage],
    directory: SensorDirectory,
) -> Iterator[FoundTag]:
    """What the adapter would make of messages of one topic, oldest first: each sensor once, with its newest value."""
    topic = messages[-1].topic
    batches, rejects = router.decode(messages, messages[-1].arrival_ns)
    newest: dict[str, tuple[str, Reading]] = {}
    for batch in batches:
        dtype = batch.dtype if batch.dictionary is None else "string"
        for one in readings(batch, directory, max(1, batch.n_values)):
            known = newest.get(one.path)
            if known is None or known[1].ts_ns <= one.ts_ns:
                newest[one.path] = dtype, one
    for path, (dtype, reading) in newest.items():
        slot, column = directory.locate(sensor_id(path))
        layout = directory.layout(slot).columns[column]
        device, _, signal = path.rpartition("/")
        yield FoundTag(
            device, signal, written_address(rules, topic, path), dtype, layout.unit, layout.kind.name.lower(),
            reading.value, reading.ts_ns, word(reading.quality), path=path,
        )  # fmt: skip
    for problem in dict.fromkeys(f"{reject.code}: {reject.detail}" for reject in rejects):
        yield refused(topic, problem)


def by_payload(message: TopicMessage, device: str, alone: tuple[str, str]) -> Iterator[FoundTag]:
    """What is in a message that no rule takes.

    Parameters
    ----------
    device : whose keys they are. alone : device and name of the value, where the message is but one.
    """
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
            yield _value(device, key, topic, one, message.arrival_ns)
    else:
        yield _value(*alone, topic, value, message.arrival_ns)


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
