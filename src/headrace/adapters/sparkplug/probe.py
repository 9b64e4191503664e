"""What nodes said while we listened: births, what they name, who speaks without one.

A node that is heard without its birth is asked for it, once; so is one that was asked for by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.adapters.abilities import FoundTag
from headrace.adapters.broker.client import Publication
from headrace.adapters.broker.packets import Arrivals
from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.sparkplug import (
    BDSEQ,
    CONTROL,
    DTYPE_OF,
    TEMPLATE,
    TEXTS,
    DataType,
    SparkplugMetric,
    not_taken,
    quality_of,
    read_payload,
    value_of,
)
from headrace.adapters.sparkplug.host import rebirth_request
from headrace.adapters.sparkplug.naming import MetricNaming, own_path
from headrace.adapters.sparkplug.topics import NodeTopic, filters, read_topic
from headrace.core.clock import NO_TIME, Clock
from headrace.core.errors import ConfigError
from headrace.core.quality import Quality, word
from headrace.core.registry import nearest

WANTED = ("node", "for")
DEVICES_MAX = 5_000
BIRTH_BYTES_MAX = 64 << 20
"""Of all births that are kept: one may have megabytes, and takes ten times as much when it has been read."""
_MS = 1_000_000
_SHOWN_MAX = 200


@dataclass(eq=False)
class HeardDevice:
    """A node or device that was heard: its newest birth, how much else, and what was wrong."""

    topic: NodeTopic
    metrics: tuple[SparkplugMetric, ...] | None = None
    time_ms: int | None = None
    n_messages: int = 0
    is_dead: bool = False
    problems: list[str] = field(default_factory=list)
    n_bytes: int = 0
    """Of its birth."""


@dataclass(eq=False)
class BirthEar:
    """Takes what comes: the births of the first 5,000 nodes and devices, and 64 MiB of them.

    Parameters
    ----------
    node_ids : nodes to ask for their births at once. asks : whether to ask those that are heard without one.
    """

    clock: Clock
    node_ids: Sequence[tuple[str, str]] = ()
    asks: bool = True
    heard: dict[tuple[str, str, str], HeardDevice] = field(default_factory=dict)
    n_messages: int = 0
    n_others: int = 0
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: dict[tuple[str, str], None] = field(default_factory=dict)
    _publish: Callable[[Publication], None] | None = None
    _n_bytes: int = 0

    def joined(self, publish: Callable[[Publication], None]) -> None:
        """Ask those that are wanted by name."""
        self._publish = publish
        for node_id in self.node_ids:
            self._ask(node_id)

    def _ask(self, node_id: tuple[str, str]) -> None:
        if self.asks and self._publish is not None and node_id not in self._asked:
            self._asked[node_id] = None
            self._publish(rebirth_request(node_id, self.clock.now_ns()))

    def take(self, came: Arrivals) -> None:
        """Take messages."""
        for topic, payload in zip(came.topics, came.payloads, strict=True):
            self._take(topic, payload)

    def _take(self, topic: str, payload: bytes) -> None:
        self.n_messages += 1
        read = read_topic(topic)
        key = None if read is None else (read.group, read.node, read.device)
        if read is None or key is None or (key not in self.heard and len(self.heard) >= DEVICES_MAX):
            self.n_others += 1
            return
        one = self.heard.setdefault(key, HeardDevice(read))
        one.n_messages += 1
        one.is_dead = read.kind in ("NDEATH", "DDEATH")
        if read.kind in ("NBIRTH", "DBIRTH"):
            self._take_birth(one, payload)
        node = self.heard.get((*read.node_id, ""))
        if not one.is_dead and (one.metrics is None or node is None or node.metrics is None):
            self._ask(read.node_id)

    def _take_birth(self, one: HeardDevice, payload: bytes) -> None:
        n_bytes = self._n_bytes - one.n_bytes + len(payload)
        if n_bytes > BIRTH_BYTES_MAX:
            one.problems = [
                f"its birth of {len(payload):,} bytes is one too many to keep: listen to one node"
            ]
            return
        try:
            found = read_payload(payload)
        except PayloadError as e:
            one.problems = [f"{e.code}: {e.detail}"]
            return
        self._n_bytes, one.n_bytes = n_bytes, len(payload)
        one.metrics, one.time_ms = found.metrics, found.time_ms


def wanted_nodes(wanted: Mapping[str, str], groups: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """What to subscribe to and which nodes to ask, from ``node``.

    Raises
    ------
    ConfigError : an unknown word, or no node.
    """
    for key in wanted:
        if key not in WANTED:
            raise ConfigError(f"a sparkplug probe knows no {key!r}{nearest(key, list(WANTED))}", key)
    text = wanted.get("node", "")
    if not text:
        return filters(groups), []
    group, _, node = text.partition("/")
    if not group or not node or any(c in text for c in "+#") or "/" in node:
        raise ConfigError(f"{text!r} is no node; write group/node", "node")
    one = [topic.split("/") for topic in filters([group])]
    return ["/".join([*levels[:3], node, *levels[4:]]) for levels in one], [(group, node)]


def found_tags(ear: BirthEar, naming: MetricNaming, node_device: str) -> list[FoundTag]:
    """The metrics of all births that were heard, by device; without commands and bdSeq."""
    return [
        tag
        for _, device in sorted(ear.heard.items())
        for metric in device.metrics or ()
        for tag in _tags(device, metric, "", (naming, node_device))
    ]


def _tags(
    device: HeardDevice, metric: SparkplugMetric, prefix: str, rule: tuple[MetricNaming, str]
) -> Iterator[FoundTag]:
    name = f"{prefix}{metric.name or ''}"
    if name == BDSEQ or name.startswith(CONTROL):
        return
    if metric.field == TEMPLATE:
        for member in () if metric.value.is_definition else metric.value.metrics:
            yield from _tags(device, member, f"{name}.", rule)
        return
    datatype = metric.datatype or 0
    value, quality, problem = _reading(metric, datatype)
    source = "/".join(filter(None, (device.topic.group, device.topic.node, device.topic.device)))
    address, path = f"{source}#{name}", ""
    try:
        path = own_path(*rule, address)
    except ConfigError as e:
        problem = e.message
    time_ms = device.time_ms if metric.time_ms is None else metric.time_ms
    ts_ns = NO_TIME if time_ms is None or time_ms * _MS >= -NO_TIME else time_ms * _MS
    is_discrete = datatype == DataType.BOOLEAN or datatype in TEXTS
    dtype = "string" if datatype in TEXTS else DTYPE_OF.get(datatype, "")
    yield FoundTag(
        source, name, address, dtype, metric.unit or "", "discrete" if is_discrete else "analog", value, ts_ns,
        quality, problem, path,
    )  # fmt: skip


def _reading(metric: SparkplugMetric, datatype: int) -> tuple[float | bool | str | None, str, str]:
    """Value, quality in words, and why it can't be taken."""
    if datatype not in DTYPE_OF:
        return None, word(Quality.BAD), not_taken(datatype)
    if metric.is_null:
        return None, word(Quality.BAD), ""
    try:
        return value_of(metric, datatype), word(quality_of(metric.quality)), ""
    except PayloadError as e:
        return None, word(Quality.BAD), e.detail


def heard_nodes(ear: BirthEar, naming: MetricNaming, node_device: str) -> dict[str, Any]:
    """What was heard of each node and device, JSON-ready; times in ns."""
    by_device: dict[str, list[FoundTag]] = {}
    for tag in found_tags(ear, naming, node_device):
        by_device.setdefault(tag.device, []).append(tag)
    nodes = []
    for key, device in sorted(ear.heard.items()):
        name = "/".join(filter(None, key))
        tags = by_device.get(name, [])
        state = "dead" if device.is_dead else "online" if device.metrics is not None else "no birth heard"
        values = [
            {"path": t.path, "ts_ns": t.ts_ns, "value": t.value, "quality": t.quality}
            for t in tags
            if not t.problem
        ]
        nodes.append(
            {
                "node": name,
                "state": state,
                "messages": device.n_messages,
                "metrics": len(tags),
                "values": values[:_SHOWN_MAX],
                "problems": [*device.problems, *(f"{t.name}: {t.problem}" for t in tags if t.problem)][
                    :_SHOWN_MAX
                ],
            }
        )
    return {"messages": ear.n_messages, "nodes": nodes, "messages_of_others": ear.n_others}
