"""Nodes and devices: births, data and deaths → frames, and which node has to tell its birth again.

A node is *online* from its birth to its death, a device likewise; data of a node whose birth we have not heard are
refused where they don't name their metrics, and its birth is asked for. A death marks all metrics as
``bad-communication``. The death of a node names the birth that it ends (``bdSeq``): one of an older life is passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.adapters.payloads.base import (
    Decoded,
    MessageColumns,
    PayloadError,
    RuleSettings,
    TopicMessage,
    arrivals_of,
)
from headrace.adapters.payloads.columns import CodedTopics, TopicTally, joined
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.rows import make_reject
from headrace.adapters.payloads.sparkplug import BDSEQ, SparkplugPayload, read_payload
from headrace.adapters.payloads.sparkplug_decoder import NodeMetricDecoder
from headrace.adapters.payloads.sparkplug_metrics import MetricSpace, SparkplugMetrics
from headrace.adapters.sparkplug.config import SparkplugConfig
from headrace.adapters.sparkplug.naming import MetricNaming
from headrace.adapters.sparkplug.topics import NodeTopic, read_topic
from headrace.core.clock import NO_TIME
from headrace.core.events import Reject, RejectCode
from headrace.core.sensors import SensorDirectory

MS = 1_000_000
N_ROUTES_MAX = 200_000
_log = logging.getLogger("headrace.adapters.sparkplug")


@dataclass(eq=False)
class EdgeDevice:
    """A node or one of its devices.

    Parameters
    ----------
    since_ns : when it came online or went; `NO_TIME` while its birth has not been heard.
    """

    topic: NodeTopic
    space: MetricSpace
    is_online: bool = False
    since_ns: int = NO_TIME
    last_good_ns: int = NO_TIME
    n_messages: int = 0

    @property
    def name(self) -> str:
        """As in topics: group, node, device."""
        group, _, *rest = self.topic
        return "/".join([group, *filter(None, rest)])


@dataclass(eq=False)
class EdgeNode:
    """A node, its own metrics and its devices by id.

    Parameters
    ----------
    bdseq : of its newest birth. undone : of a newer one that was not taken, whether it comes again or not.
    wants_birth : whether something was missed since.
    """

    own: EdgeDevice
    bdseq: int | None = None
    undone: int | None = None
    devices: dict[str, EdgeDevice] = field(default_factory=dict)
    wants_birth: bool = False

    def all(self) -> Iterator[EdgeDevice]:
        """The node itself and its devices."""
        yield self.own
        yield from self.devices.values()


class _Way(NamedTuple):
    """What a topic says: of whom it is, and what kind of message."""

    node: EdgeNode
    device: EdgeDevice
    kind: str
    is_data: bool


class NodeSessions:
    """Decodes messages of one adapter instance; pure but for the groups it defines in the directory.

    Parameters
    ----------
    ask : told a node whose birth is wanted, at each of its messages. born : told a node whose birth came.
    """

    def __init__(
        self,
        name: str,
        config: SparkplugConfig,
        naming: MetricNaming,
        directory: SensorDirectory,
        ask: Callable[[tuple[str, str]], None],
        born: Callable[[tuple[str, str]], None],
    ) -> None:
        self.groups = DeviceGroups(directory, config.max_devices, owns_units=False, keeps_grids=False)
        self.nodes: dict[tuple[str, str], EdgeNode] = {}
        self.n_old_deaths = 0
        settings = RuleSettings(path="{metric}", max_keys=config.max_keys)
        self._name = name
        self._config = config
        self._naming = naming
        self._metrics = SparkplugMetrics(self.groups, naming.place, settings)
        self._decoder = NodeMetricDecoder(name, directory, self._metrics, config.take_transient)
        self._ask = ask
        self._born = born
        self._n_devices = 0
        self._routes: dict[str, _Way] = {}
        self._by_space: dict[MetricSpace, EdgeNode] = {}
        self._tally = TopicTally()
        self._has_failed = False
        self._died: list[EdgeDevice] = []
        self._lives: dict[EdgeNode, int | None] = {}

    @property
    def n_transient(self) -> int:
        """Values that were not taken because their node says not to store them."""
        return self._decoder.n_transient

    def missed(self, node_id: tuple[str, str]) -> None:
        """Messages of a node are missing."""
        node = self.nodes.get(node_id)
        if node is not None:
            node.wants_birth = True
            self._ask(node_id)

    def decode(self, messages: Sequence[TopicMessage], arrival_ns: int) -> Decoded:
        """Columns of all messages, and rejects; every value is in one or the other. Never raises."""
        self._decoder.begin(messages)
        self._died.clear()
        self._lives.clear()
        wanting: dict[tuple[str, str], None] = {}
        if not self._take_known(messages, wanting):
            self._take_any(messages, wanting)
        decoded = self._decoder.end(arrival_ns)
        for space in self._decoder.unknown:
            node = self._by_space[space]
            node.wants_birth = True
            wanting[node.own.topic.node_id] = None
        for node_id in wanting:
            if self.nodes[node_id].wants_birth:
                self._ask(node_id)
        return decoded

    def _take_known(self, messages: Sequence[TopicMessage], wanting: dict[tuple[str, str], None]) -> bool:
        """Take messages that are all data of devices that are known; else nothing is done.

        The usual case, without a step of Python for each message.
        """
        if not isinstance(messages, MessageColumns) or not isinstance(messages.topics, CodedTopics):
            return False
        topics, arrivals_ns = messages.topics, arrivals_of(messages)
        found = self._tally.count(topics)
        ways = [self._routes.get(topics.names[number]) for number, _, _ in found]
        payloads, most = joined(messages.payloads), self._config.max_payload
        if len(payloads.data) > most and payloads.lengths.max() > most:
            return False
        if any(way is None or not way.is_data for way in ways):
            return False
        for (number, n, last), way in zip(found, ways, strict=True):
            node, device = way.node, way.device  # type: ignore[union-attr]
            device.n_messages += n
            device.last_good_ns = int(arrivals_ns[last])
            node.wants_birth |= not device.is_online
            if node.wants_birth:
                wanting[node.own.topic.node_id] = None
            self._tally.owners[number] = device.space.number
        self._decoder.data_of(0, self._tally.owners[topics.ids])
        return True

    def _take_any(self, messages: Sequence[TopicMessage], wanting: dict[tuple[str, str], None]) -> None:
        """Take messages of any kind."""
        find, most = self._routes.get, self._config.max_payload
        first, spaces = 0, list[MetricSpace]()
        for number, message in enumerate(messages):
            topic, payload, came_ns = message[:3]
            way = find(topic)
            try:
                if way is None or not way.is_data or len(payload) > most:
                    gathered, at, first, spaces = spaces, first, number + 1, []
                    self._decoder.data(at, gathered)
                    node = self._take(number, message)
                else:  # as there, in place: most messages are data of a device that is known
                    node, device = way.node, way.device
                    device.n_messages += 1
                    device.last_good_ns = came_ns
                    if not device.is_online:
                        node.wants_birth = True
                    spaces.append(device.space)
                if node.wants_birth:
                    wanting[node.own.topic.node_id] = None
            except PayloadError as e:
                self._decoder.refuse(number, e.code, e.detail, e.n_samples)
            except Exception as e:
                if not self._has_failed:
                    _log.exception("adapter=%s topic=%s: a decoder failed", self._name, message.topic)
                    self._has_failed = True
                self._decoder.refuse(number, RejectCode.INTERNAL, f"decoder failed: {e!r}")
        self._decoder.data(first, spaces)

    def undo(self) -> None:
        """What was decoded last was not taken, and comes again: who died of it has yet to die, of the same birth."""
        for one in self._died:
            one.is_online = True
        self._died.clear()
        for node, bdseq in self._lives.items():
            node.undone, node.bdseq = node.bdseq, bdseq
        self._lives.clear()

    def again(self, message: TopicMessage) -> Decoded:
        """Decode what was refused of a message, by the births that were heard since; nothing is asked of the node.

        A reject of a birth holds some of its metrics only: they are read as data.
        """
        self._decoder.begin([message])
        try:
            device = self._route(message.topic).device
            self._decoder.data(0, [device.space])
        except PayloadError as e:
            self._decoder.refuse(0, e.code, e.detail)
        return self._decoder.end(message.arrival_ns)

    def defect(self, message: TopicMessage, error: Exception) -> Reject:
        """The reject of a message whose frames turned out to be wrong: a defect of ours."""
        return make_reject(self._name, message, RejectCode.INTERNAL, f"its frames were refused: {error}")

    # --- messages ------------------------------------------------------------------------------------

    def _take(self, number: int, message: TopicMessage) -> EdgeNode:
        node, device, kind, is_data = self._route(message.topic)
        if len(message.payload) > self._config.max_payload:
            detail = f"{len(message.payload):,} bytes, expected at most {self._config.max_payload:,}"
            raise PayloadError(RejectCode.TOO_LARGE, detail)
        device.n_messages += 1
        if is_data:
            device.last_good_ns = message.arrival_ns
            node.wants_birth |= not device.is_online
            self._decoder.data(number, [device.space])
            return node
        payload = read_payload(message.payload)
        if kind in ("NBIRTH", "DBIRTH"):
            self._birth(number, message, (node, device), payload)
        else:
            self._death(number, message, (node, device), payload)
        return node

    def _birth(
        self,
        number: int,
        message: TopicMessage,
        who: tuple[EdgeNode, EdgeDevice],
        payload: SparkplugPayload,
    ) -> None:
        node, device = who
        if device is node.own and None not in (node.bdseq, bdseq := _bdseq(payload)) and node.bdseq != bdseq:
            self._die(number, list(node.devices.values()), _time_of(payload, message), message)
        self._decoder.birth(number, device.space, payload)
        device.is_online, device.since_ns = True, message.arrival_ns
        device.last_good_ns = message.arrival_ns
        if device is node.own:
            self._lives.setdefault(node, node.bdseq)
            node.bdseq, node.undone, node.wants_birth = _bdseq(payload), None, False
            self._born(device.topic.node_id)
        else:
            node.wants_birth |= not node.own.is_online

    def _death(
        self,
        number: int,
        message: TopicMessage,
        who: tuple[EdgeNode, EdgeDevice],
        payload: SparkplugPayload,
    ) -> None:
        node, device = who
        if device is not node.own:
            self._die(number, [device], _time_of(payload, message), message)
            return
        # The broker speaks for a node that has gone: its payload was written when the connection began.
        ended = _bdseq(payload)
        if None not in (ended, node.bdseq) and ended not in (node.bdseq, node.undone):
            self.n_old_deaths += 1
            return
        self._die(number, list(node.all()), message.arrival_ns, message)

    def _die(self, number: int, dying: Sequence[EdgeDevice], ts_ns: int, message: TopicMessage) -> None:
        for one in dying:
            if one.is_online:
                self._decoder.death(number, one.space, ts_ns)
                one.is_online, one.since_ns = False, message.arrival_ns
                self._died.append(one)

    # --- who -----------------------------------------------------------------------------------------

    def _route(self, topic: str) -> _Way:
        """What a topic says. Raises PayloadError."""
        known = self._routes.get(topic)
        if known is None:
            read = read_topic(topic)
            if read is None:
                raise PayloadError(
                    RejectCode.UNKNOWN_TOPIC, "no topic of a Sparkplug node: spBv1.0/group/kind/node"
                )
            if len(self._routes) >= N_ROUTES_MAX:
                self._routes.clear()
            is_data = read.kind in ("NDATA", "DDATA")
            known = self._routes[topic] = _Way(*self._find(read), read.kind, is_data)
        return known

    def _find(self, topic: NodeTopic) -> tuple[EdgeNode, EdgeDevice]:
        node = self.nodes.get(topic.node_id)
        if node is None:
            own = self._new(topic._replace(device=""))
            node = self.nodes[topic.node_id] = EdgeNode(own)
            self._by_space[own.space] = node
        if not topic.device:
            return node, node.own
        device = node.devices.get(topic.device)
        if device is None:
            device = node.devices[topic.device] = self._new(topic)
            self._by_space[device.space] = node
        return node, device

    def _new(self, topic: NodeTopic) -> EdgeDevice:
        if self._n_devices >= self._config.max_devices:
            detail = f"more than max_devices = {self._config.max_devices:,} nodes and devices"
            raise PayloadError(RejectCode.UNKNOWN_TOPIC, detail)
        ids = {
            "group": topic.group,
            "node": topic.node,
            "device": topic.device or self._config.node_device,
        }
        space = self._metrics.space(self._naming.names(ids))
        self._n_devices += 1
        return EdgeDevice(topic, space)


def _time_of(payload: SparkplugPayload, message: TopicMessage) -> int:
    """The time of a message by its node's clock, if that is not ahead; else that of its arrival."""
    if payload.time_ms is not None and 0 < payload.time_ms * MS <= message.arrival_ns:
        return payload.time_ms * MS
    return message.arrival_ns


def _bdseq(payload: SparkplugPayload) -> int | None:
    """Which of a node's lives it is; None where it does not say."""
    found = [metric.value for metric in payload.metrics if metric.name == BDSEQ]
    return found[0] if found and type(found[0]) is int else None
