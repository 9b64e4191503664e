"""What the rules make of messages, for a person who looks: nothing is stored, groups go into a directory thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.adapters.payloads.base import TopicMessage
from headrace.adapters.payloads.router import MessageRouter, TopicRule
from headrace.adapters.payloads.topics import match_topic
from headrace.core.quality import word
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory

SHOWN_CHARACTERS = 400
VALUES_MAX = 50


def rule_of(topic: str, rules: Sequence[TopicRule]) -> str | None:
    """The topic of the rule that takes messages of `topic`; None where there is none."""
    return next((r.pattern.text for r in rules if match_topic(r.pattern, topic) is not None), None)


def shown(payload: bytes) -> str:
    """The beginning of a payload as text."""
    return payload[:SHOWN_CHARACTERS].decode("utf-8", "backslashreplace")


def made_of(
    router: MessageRouter, messages: Sequence[TopicMessage], directory: SensorDirectory
) -> dict[str, Any]:
    """Values and problems of some messages, JSON-ready; times in ns."""
    batches, rejects = router.decode(messages, messages[-1].arrival_ns)
    values = [
        {"path": r.path, "ts_ns": r.ts_ns, "value": r.value, "quality": word(r.quality)}
        for batch in batches
        for r in readings(batch, directory, VALUES_MAX)
    ]
    return {"values": values[:VALUES_MAX], "problems": [f"{r.code}: {r.detail}" for r in rejects]}
