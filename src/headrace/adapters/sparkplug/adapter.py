"""The Sparkplug adapter: what edge nodes and their devices say, durable before it is acknowledged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from headrace.adapters.abilities import Captured, FoundTag, Listener
from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics, PlantFacts, Sink
from headrace.adapters.broker.config import BrokerAddress, broker_address
from headrace.adapters.broker.flow import BrokerFlow
from headrace.adapters.broker.inbox import Inbox, warm_inbox
from headrace.adapters.broker.listening import listen, listening_ns
from headrace.adapters.broker.session import BrokerSession
from headrace.adapters.meters import seconds
from headrace.adapters.payloads.base import TopicMessage
from headrace.adapters.payloads.rows import cut_short
from headrace.adapters.payloads.sparkplug_decoder import warm_sparkplug
from headrace.adapters.sparkplug.config import SparkplugConfig
from headrace.adapters.sparkplug.host import HostState, RebirthDesk
from headrace.adapters.sparkplug.naming import MetricNaming, compile_naming, own_path
from headrace.adapters.sparkplug.nodes import EdgeDevice, NodeSessions
from headrace.adapters.sparkplug.order import SequenceGate, warm_order
from headrace.adapters.sparkplug.probe import BirthEar, found_tags, heard_nodes, wanted_nodes
from headrace.adapters.sparkplug.topics import filters
from headrace.core.clock import NO_TIME, NS, Clock
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

_SHOWN_DEVICES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class _Running(BrokerFlow):
    """What exists between start and stop."""

    clock: Clock
    nodes: NodeSessions
    desk: RebirthDesk
    gate: SequenceGate


class SparkplugAdapter:
    """Metrics as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[SparkplugConfig]] = SparkplugConfig

    def __init__(
        self,
        name: str,
        config: SparkplugConfig,
        address: BrokerAddress,
        naming: MetricNaming,
        plant: PlantFacts,
    ) -> None:
        self.name = name
        self._config = config
        self._address = address
        self._naming = naming
        self._folder = plant.folder
        self._pacer = plant.pacer
        self._running: _Running | None = None
        self._stopped_ns = NO_TIME
        self._is_stopped = False

    @classmethod
    def warm(cls) -> None:
        """Make the kernels of its decoders ready."""
        warm_sparkplug()
        warm_inbox()
        warm_order()

    @classmethod
    def from_config(
        cls, name: str, config: SparkplugConfig, profiles: Any, plant: PlantFacts
    ) -> SparkplugAdapter:
        """Compile the names of sensors.

        Raises
        ------
        ConfigError : a bad url or file, or a path that can't be.
        """
        where = f"adapters.{name}"
        address = broker_address(config, plant.folder, where)
        naming = compile_naming(config.path, config.ids, config.joiner, plant.levels, where)
        return cls(name, config, address, naming, plant)

    async def start(self, sink: Sink) -> None:
        """Begin to connect."""
        config, clock = self._config, sink.clock
        host = None if config.host_id is None else HostState(config.host_id, clock)
        topics = filters(config.groups) if host is None else [*filters(config.groups), host.topic]
        session = BrokerSession(self.name, config, self._address, topics, self._folder, clock, host)
        session.pacer = self._pacer
        desk = RebirthDesk(self.name, clock, config.rebirth_first, config.rebirth_most, session.publish)
        ask = desk.ask if config.ask_rebirth else _nobody
        nodes = NodeSessions(self.name, config, self._naming, sink.directory, ask, desk.born)
        inbox = Inbox(sink, nodes, session, on_refused=nodes.undo)

        def answer(payload: bytes) -> None:
            said = None if host is None else host.answer(payload)
            if said is not None:
                session.publish(said)

        gate = SequenceGate(
            inbox, session, seconds(config.reorder), nodes.missed, "" if host is None else host.topic, answer
        )
        self._running = _Running.begin(
            f"sparkplug {self.name}", inbox, session, gate, clock, nodes, desk, gate
        )

    async def stop(self) -> None:
        """Take no more, hand on the rest, acknowledge what becomes durable meanwhile, say that we go, close."""
        run = self._running
        if run is None or self._is_stopped:
            self._is_stopped = True
            return
        self._is_stopped = True
        self._stopped_ns = run.clock.now_ns()
        run.session.pause()
        run.desk.close()
        run.gate.finish()
        await run.end()

    async def probe(self, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """Listen to the broker: ``node`` (``group/node``; default: all of the groups), ``for`` (default 5s).

        Raises
        ------
        ConfigError : what is wanted is not understood. NotConnected : the broker is away, or refuses us.
        """
        ear, listen_ns = await self._hear(wanted, clock)
        return {
            "protocol": "sparkplug",
            "broker": str(self._address),
            "seconds": listen_ns / NS,
            **heard_nodes(ear, self._naming, self._config.node_device),
        }

    async def scan(self, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """The metrics of all births that are heard; nodes are asked for theirs. `wanted` as of `probe`."""
        ear, _ = await self._hear(wanted, clock)
        return found_tags(ear, self._naming, self._config.node_device)

    async def _hear(self, wanted: Mapping[str, str], clock: Clock) -> tuple[BirthEar, int]:
        topics, node_ids = wanted_nodes(wanted, self._config.groups)
        listen_ns = listening_ns(wanted)
        ear = BirthEar(clock, node_ids, self._config.ask_rebirth)
        client_id = self._config.client_id or f"headrace-{self.name}"
        await listen(ear, (topics, listen_ns), self._config, self._address, self._folder, client_id)
        return ear, listen_ns

    @classmethod
    async def scan_url(cls, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """The metrics of a broker that no adapter has: ``url``; else as `scan`."""
        config = SparkplugConfig(url=wanted["url"])
        naming = compile_naming(None, {}, None, (), "")
        adapter = cls("scan", config, broker_address(config, Path(), ""), naming, PlantFacts())
        return await adapter.scan({k: v for k, v in wanted.items() if k != "url"}, clock)

    def own_path(self, address: str) -> str:
        """The path that the naming gives a metric at ``group/node[/device]#metric``. Raises `ConfigError`."""
        return own_path(self._naming, self._config.node_device, address)

    def redecode(
        self, reject: Reject, directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode refused metrics by the births that were heard since."""
        cut = cut_short(reject)
        if cut is not None:
            return [], [cut]
        run = self._running
        nodes = self._sessions(directory) if run is None else run.nodes
        return nodes.again(TopicMessage(reject.source, reject.raw, reject.arrival_ns))

    def _sessions(self, directory: SensorDirectory) -> NodeSessions:
        """Sessions of nodes that are asked nothing."""
        return NodeSessions(self.name, self._config, self._naming, directory, _nobody, _nobody)

    def listen(self, listener: Listener | None) -> None:
        """Hear each message in the order in which it is decoded."""
        if self._running is not None:
            self._running.inbox.listener = listener

    def decode_captured(
        self, captured: Sequence[Captured], directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode messages by the births among them."""
        messages = [TopicMessage(one.source, one.data, one.ts_ns) for one in captured]
        return self._sessions(directory).decode(messages, messages[-1].arrival_ns if messages else NO_TIME)

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts; the broker is the first device, nodes and their devices follow."""
        run = self._running
        if run is None:
            state = AdapterState.STOPPED if self._is_stopped else AdapterState.STARTING
            return AdapterDiagnostics(self.name, "sparkplug", state)
        stopped_ns = self._stopped_ns if self._is_stopped else None
        devices = [run.broker(str(self._address), run.gate.n_gaps), *_devices(run.nodes)]
        found = run.diagnostics((self.name, "sparkplug"), stopped_ns, run.nodes.groups.n_sensors, devices)
        return replace(found, n_gaps=run.gate.n_gaps, n_out_of_order=run.gate.n_reordered)


def _devices(nodes: NodeSessions) -> Iterator[DeviceDiagnostics]:
    """Nodes and devices, the first thousand."""
    shown = 0
    for node in nodes.nodes.values():
        for one in node.all():
            if shown == _SHOWN_DEVICES_MAX:
                return
            shown += 1
            yield _device(one)


def _device(one: EdgeDevice) -> DeviceDiagnostics:
    if one.is_online:
        state, reason = AdapterState.CONNECTED, ""
    elif one.since_ns == NO_TIME:
        state, reason = AdapterState.STARTING, "its birth has not been heard"
    else:
        state, reason = AdapterState.BACKOFF, "it has died; its metrics are bad until its next birth"
    return DeviceDiagnostics(one.name, state, reason, one.last_good_ns, n_requests=one.n_messages)


def _nobody(node_id: tuple[str, str]) -> None:
    """Takes the place of the desk where nothing is asked."""
