"""The Sparkplug adapter: what edge nodes and their devices say, durable before it is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from headrace.adapters.abilities import FoundTag
from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics, PlantFacts, Sink
from headrace.adapters.broker.config import BrokerAddress, broker_address
from headrace.adapters.broker.inbox import Inbox
from headrace.adapters.broker.listening import listen, listening_ns
from headrace.adapters.broker.session import BrokerSession
from headrace.adapters.meters import seconds, spread
from headrace.adapters.payloads.base import TopicMessage
from headrace.adapters.sparkplug.config import SparkplugConfig
from headrace.adapters.sparkplug.host import HostState, RebirthDesk
from headrace.adapters.sparkplug.naming import MetricNaming, compile_naming
from headrace.adapters.sparkplug.nodes import EdgeDevice, NodeSessions
from headrace.adapters.sparkplug.order import SequenceGate
from headrace.adapters.sparkplug.probe import BirthEar, found_tags, heard_nodes, wanted_nodes
from headrace.adapters.sparkplug.topics import filters
from headrace.core.clock import NO_TIME, NS, Clock
from headrace.core.events import MAX_RAW_BYTES, Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

_FLUSH_S = 1.0
_LAND_S = 0.4
_SHOWN_DEVICES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists between start and stop."""

    clock: Clock
    nodes: NodeSessions
    desk: RebirthDesk
    gate: SequenceGate
    inbox: Inbox
    session: BrokerSession
    taking: asyncio.Task[None]
    connecting: asyncio.Task[None]


class SparkplugAdapter:
    """Metrics as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[SparkplugConfig]] = SparkplugConfig

    def __init__(
        self, name: str, config: SparkplugConfig, address: BrokerAddress, naming: MetricNaming, folder: Path
    ) -> None:
        self.name = name
        self._config = config
        self._address = address
        self._naming = naming
        self._folder = folder
        self._running: _Running | None = None
        self._stopped_ns = NO_TIME
        self._is_stopped = False

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
        return cls(name, config, address, naming, plant.folder)

    async def start(self, sink: Sink) -> None:
        """Begin to connect."""
        config, clock = self._config, sink.clock
        host = None if config.host_id is None else HostState(config.host_id, clock)
        topics = filters(config.groups) if host is None else [*filters(config.groups), host.topic]
        session = BrokerSession(self.name, config, self._address, topics, self._folder, clock, host)
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
        taking = asyncio.create_task(inbox.run(), name=f"sparkplug {self.name} inbox")
        connecting = asyncio.create_task(session.run(gate), name=f"sparkplug {self.name} session")
        self._running = _Running(clock, nodes, desk, gate, inbox, session, taking, connecting)

    async def stop(self) -> None:
        """Take no more, hand on the rest, acknowledge what becomes durable meanwhile, say that we go, close."""
        run = self._running
        if run is None or self._is_stopped:
            self._is_stopped = True
            return
        self._is_stopped = True
        self._stopped_ns = run.clock.now_ns()
        run.session.pause()
        run.connecting.cancel()
        run.gate.finish()
        run.inbox.finish()
        await asyncio.wait([run.taking], timeout=_FLUSH_S)
        run.taking.cancel()
        landing = asyncio.ensure_future(run.inbox.landed())
        await asyncio.wait([landing], timeout=_LAND_S)
        landing.cancel()
        await asyncio.gather(run.taking, run.connecting, landing, return_exceptions=True)
        await run.session.leave()

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

    def redecode(
        self, reject: Reject, directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode refused metrics by the births that were heard since."""
        if len(reject.raw) >= MAX_RAW_BYTES:
            cut = f"only its first {MAX_RAW_BYTES:,} bytes were kept"
            return [], [replace(reject, detail=cut)]
        run = self._running
        if run is None:
            nodes = NodeSessions(self.name, self._config, self._naming, directory, _nobody, _nobody)
        else:
            nodes = run.nodes
        return nodes.again(TopicMessage(reject.source, reject.raw, reject.arrival_ns))

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts; the broker is the first device, nodes and their devices follow."""
        run = self._running
        if run is None:
            state = AdapterState.STOPPED if self._is_stopped else AdapterState.STARTING
            return AdapterDiagnostics(self.name, "sparkplug", state)
        inbox, session = run.inbox, run.session
        broker = DeviceDiagnostics(
            str(self._address), session.state, session.reason, inbox.last_good_ns, session.retry_ns,
            n_requests=inbox.n_messages, n_errors=inbox.n_rejects, n_timeouts=run.gate.n_gaps,
        )  # fmt: skip
        p50, p99 = inbox.latency.percentiles()
        counts, total_s = spread([inbox.latency])
        return AdapterDiagnostics(
            self.name,
            "sparkplug",
            AdapterState.STOPPED if self._is_stopped else session.state,
            "" if self._is_stopped else session.reason,
            max(self._stopped_ns, session.since_ns),
            run.nodes.groups.n_sensors,
            (broker, *_devices(run.nodes)),
            n_samples=inbox.n_samples,
            n_frames=inbox.n_frames,
            n_rejects=inbox.n_rejects,
            n_duplicates=inbox.n_duplicates,
            decode_ns=inbox.decode_ns,
            latency_s_p50=p50,
            latency_counts=counts,
            latency_total_s=total_s,
            latency_s_p99=p99,
        )


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
