"""The MQTT adapter: what a broker's topics bring, durable before it is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from headrace.adapters.abilities import Captured, FoundTag, Listener
from headrace.adapters.base import AdapterDiagnostics, AdapterState, PlantFacts, Sink
from headrace.adapters.broker.config import BrokerAddress, broker_address
from headrace.adapters.broker.flow import BrokerFlow
from headrace.adapters.broker.inbox import Inbox, warm_inbox
from headrace.adapters.broker.listening import Ear, listen
from headrace.adapters.broker.session import BrokerSession
from headrace.adapters.mqtt.config import MqttConfig
from headrace.adapters.mqtt.probe import Listening, heard
from headrace.adapters.mqtt.scan import KEPT_BYTES, TOPICS_MAX, offered
from headrace.adapters.payloads.base import TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import (
    MessageRouter,
    TopicRule,
    compile_rules,
    own_path,
    warm_messages,
)
from headrace.adapters.payloads.rows import cut_short
from headrace.core.clock import NO_TIME, NS, Clock
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory


@dataclass(frozen=True, slots=True)
class _Running(BrokerFlow):
    """What exists between start and stop."""

    clock: Clock
    groups: DeviceGroups


class MqttAdapter:
    """Messages as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[MqttConfig]] = MqttConfig

    def __init__(
        self,
        name: str,
        config: MqttConfig,
        address: BrokerAddress,
        rules: Sequence[TopicRule],
        plant: PlantFacts,
    ) -> None:
        self.name = name
        self._config = config
        self._address = address
        self._rules = rules
        self._folder = plant.folder
        self._pacer = plant.pacer
        self._running: _Running | None = None
        self._stopped_ns = NO_TIME
        self._is_stopped = False

    @classmethod
    def warm(cls) -> None:
        """Make the kernels of its decoders ready."""
        warm_messages()
        warm_inbox()

    @classmethod
    def from_config(cls, name: str, config: MqttConfig, profiles: Any, plant: PlantFacts) -> MqttAdapter:
        """Compile the topic rules.

        Raises
        ------
        ConfigError : a bad url or file, or a rule that can't be.
        """
        where = f"adapters.{name}"
        address = broker_address(config, plant.folder, where)
        rules = compile_rules(config.topics, plant.levels, plant.timezone, f"{where}.topics")
        return cls(name, config, address, rules, plant)

    async def start(self, sink: Sink) -> None:
        """Begin to connect."""
        groups = DeviceGroups(sink.directory, self._config.max_devices, keeps_grids=False)
        router = MessageRouter(self.name, self._rules, groups)
        filters = [rule.pattern.filter for rule in self._rules]
        session = BrokerSession(self.name, self._config, self._address, filters, self._folder, sink.clock)
        session.pacer = self._pacer
        inbox = Inbox(sink, router, session)
        self._running = _Running.begin(f"mqtt {self.name}", inbox, session, inbox, sink.clock, groups)

    async def stop(self) -> None:
        """Take no more, hand on the rest, acknowledge what becomes durable meanwhile, close."""
        run = self._running
        if run is None or self._is_stopped:
            self._is_stopped = True
            return
        self._is_stopped = True
        self._stopped_ns = run.clock.now_ns()
        await run.end()

    async def probe(self, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """Listen to the broker: ``topic`` (a filter; default: those of the rules), ``for`` (default 5s).

        Raises
        ------
        ConfigError : what is wanted is not understood. NotConnected : the broker is away, or refuses us.
        """
        listening = Listening.of(wanted, self._rules)
        ear = Ear(clock)
        await self._hear(ear, listening)
        return {
            "protocol": "mqtt",
            "broker": str(self._address),
            "filters": list(listening.filters),
            "seconds": listening.listen_ns / NS,
            **heard(ear, self.name, self._rules),
        }

    @classmethod
    async def probe_url(cls, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """Listen to a broker that no adapter has: ``url``, ``topic`` (default all), ``for``. Raises as `probe`."""
        rest = {"topic": "#", **{k: v for k, v in wanted.items() if k != "url"}}
        config = MqttConfig(url=wanted["url"], topics={})
        address = broker_address(config, Path(), "")
        adapter = cls("probe", config, address, (), PlantFacts())
        return await adapter.probe(rest, clock)

    async def scan(self, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """Listen to the broker: ``topic`` (a filter; default: all), ``for`` (default 5s); then say what came.

        Raises
        ------
        ConfigError : what is wanted is not understood. NotConnected : the broker is away, or refuses us.
        """
        listening = Listening.of({"topic": "#", **wanted}, self._rules)
        ear = Ear(clock, TOPICS_MAX, KEPT_BYTES)
        await self._hear(ear, listening)
        return await asyncio.to_thread(offered, ear, self.name, self._rules)

    async def _hear(self, ear: Ear, listening: Listening) -> None:
        what = listening.filters, listening.listen_ns
        client_id = self._config.client_id or f"headrace-{self.name}"
        await listen(ear, what, self._config, self._address, self._folder, client_id)

    @classmethod
    async def scan_url(cls, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """Listen to a broker that no adapter has: ``url``, ``topic`` (default all), ``for``. Raises as `scan`."""
        config = MqttConfig(url=wanted["url"], topics={})
        adapter = cls("scan", config, broker_address(config, Path(), ""), (), PlantFacts())
        return await adapter.scan({k: v for k, v in wanted.items() if k != "url"}, clock)

    def own_path(self, address: str) -> str:
        """The path that the topic rules give what is at ``topic#key``. Raises `ConfigError`."""
        return own_path(self._rules, address)

    def redecode(
        self, reject: Reject, directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode a refused message by the present rules."""
        cut = cut_short(reject)
        if cut is not None:
            return [], [cut]
        run = self._running
        groups = (
            DeviceGroups(directory, self._config.max_devices, keeps_grids=False)
            if run is None
            else run.groups
        )
        message = TopicMessage(reject.source, reject.raw, reject.arrival_ns)
        return MessageRouter(self.name, self._rules, groups).again(message)

    def listen(self, listener: Listener | None) -> None:
        """Hear each message as it comes; what comes again is heard once."""
        if self._running is not None:
            self._running.inbox.listener = listener

    def decode_captured(
        self, captured: Sequence[Captured], directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode messages by the present rules."""
        router = MessageRouter(
            self.name, self._rules, DeviceGroups(directory, self._config.max_devices, keeps_grids=False)
        )
        messages = [TopicMessage(one.source, one.data, one.ts_ns) for one in captured]
        return router.decode(messages, messages[-1].arrival_ns if messages else NO_TIME)

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts; the broker is the one device."""
        run = self._running
        if run is None:
            state = AdapterState.STOPPED if self._is_stopped else AdapterState.STARTING
            return AdapterDiagnostics(self.name, "mqtt", state)
        stopped_ns = self._stopped_ns if self._is_stopped else None
        broker = run.broker(str(self._address))
        return run.diagnostics((self.name, "mqtt"), stopped_ns, run.groups.n_sensors, [broker])
