"""The Kafka adapter: what a cluster's topics bring, durable before it is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from headrace.adapters.abilities import Captured, FoundTag, Listener
from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics, PlantFacts, Sink
from headrace.adapters.kafka.config import KafkaConfig, StartAt, check_config, library_settings, start_at
from headrace.adapters.kafka.inbox import KafkaInbox, of_captured
from headrace.adapters.kafka.probe import Looking, Seen, found_tags, look, told
from headrace.adapters.kafka.session import GroupSession
from headrace.adapters.kafka.worker import Worker
from headrace.adapters.meters import seconds, spread
from headrace.adapters.payloads.base import TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_decoder import warm_lines
from headrace.adapters.payloads.router import (
    MessageRouter,
    TopicRule,
    compile_rules,
    own_path,
    warm_messages,
)
from headrace.adapters.payloads.rows import cut_short
from headrace.core.clock import NO_TIME, Clock, monotonic_ns
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

_FLUSH_S = 0.5
_LAND_S = 0.4
_PROBE_MESSAGES, _SCAN_MESSAGES = 3, 100


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists between start and stop."""

    clock: Clock
    groups: DeviceGroups
    inbox: KafkaInbox
    session: GroupSession
    consuming: asyncio.Task[None]


class KafkaAdapter:
    """Messages as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[KafkaConfig]] = KafkaConfig

    def __init__(
        self, name: str, config: KafkaConfig, start: StartAt, rules: Sequence[TopicRule], plant: PlantFacts
    ) -> None:
        self.name = name
        self._config = config
        self._start = start
        self._rules = rules
        self._folder = plant.folder
        self._pacer = plant.pacer
        self._running: _Running | None = None
        self._stopped_ns = NO_TIME
        self._is_stopped = False

    @classmethod
    def warm(cls) -> None:
        """Make the kernels of its decoders ready."""
        warm_lines()
        warm_messages()

    @classmethod
    def from_config(cls, name: str, config: KafkaConfig, profiles: Any, plant: PlantFacts) -> KafkaAdapter:
        """Compile the topic rules.

        Raises
        ------
        ConfigError : a broker, file, time or option that is none, or a rule that can't be.
        """
        where = f"adapters.{name}"
        check_config(config, plant.folder, where)
        start = start_at(config.start, plant.timezone, where)
        rules = compile_rules(config.topics, plant.levels, plant.timezone, f"{where}.topics", config.dialect)
        return cls(name, config, start, rules, plant)

    async def start(self, sink: Sink) -> None:
        """Begin to connect."""
        groups = DeviceGroups(sink.directory, self._config.max_devices, keeps_grids=False)
        router = MessageRouter(self.name, self._rules, groups)
        session = GroupSession(
            self.name, self._config, self._start, self._rules, self._folder, sink.clock, self._pacer
        )
        inbox = KafkaInbox(sink, router, session.ledger)
        consuming = asyncio.create_task(session.run(inbox), name=f"kafka {self.name} session")
        self._running = _Running(sink.clock, groups, inbox, session, consuming)

    async def stop(self) -> None:
        """Take no more, hand on the rest, commit what becomes durable meanwhile, leave the group."""
        run = self._running
        if run is None or self._is_stopped:
            self._is_stopped = True
            return
        self._is_stopped = True
        self._stopped_ns = run.clock.now_ns()
        run.session.finish()
        await asyncio.wait([run.consuming], timeout=_FLUSH_S)
        run.consuming.cancel()
        landing = asyncio.ensure_future(run.inbox.landed())
        await asyncio.wait([landing], timeout=_LAND_S)
        landing.cancel()
        await asyncio.gather(run.consuming, landing, return_exceptions=True)
        await run.session.close()

    async def probe(self, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """Look at the newest messages: ``topic`` (as a rule's; default: those of the rules), ``count``, ``for``.

        Raises
        ------
        ConfigError : what is wanted is not understood. NotConnected : no broker answers, or they refuse us.
        """
        began_ns = monotonic_ns()
        looking = Looking.of(wanted, self._rules, self._config.separator, _PROBE_MESSAGES)
        seen = await self._look(looking, clock)
        return {
            "protocol": "kafka",
            "broker": ",".join(self._config.brokers),
            "filters": [pattern.text for pattern in looking.patterns],
            "seconds": seconds(monotonic_ns() - began_ns),
            **told(seen, self.name, self._rules),
        }

    @classmethod
    async def probe_url(cls, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """Look at a cluster that no adapter has: ``url``, ``topic`` (default all), ``count``, ``for``. As `probe`."""
        rest = {k: v for k, v in wanted.items() if k != "url"}
        return await cls._at(wanted["url"]).probe({"topic": "#", **rest}, clock)

    @classmethod
    def _at(cls, url: str) -> KafkaAdapter:
        """An adapter without rules, for a look at the cluster at `url`. Raises ConfigError."""
        config = KafkaConfig(brokers=(urlsplit(url).netloc,), topics={})
        check_config(config, Path(), "")
        return cls("look", config, StartAt(), (), PlantFacts())

    async def scan(self, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """The keys of each device in the newest messages, 100 of each partition if `wanted` does not say. As `probe`."""
        looking = Looking.of(wanted, self._rules, self._config.separator, _SCAN_MESSAGES)
        return found_tags(await self._look(looking, clock), self.name, self._rules)

    @classmethod
    async def scan_url(cls, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """The keys in the newest messages of a cluster that no adapter has: ``url``, ``topic`` (default all). As `scan`."""
        rest = {k: v for k, v in wanted.items() if k != "url"}
        return await cls._at(wanted["url"]).scan({"topic": "#", **rest}, clock)

    async def _look(self, looking: Looking, clock: Clock) -> Seen:
        settings = library_settings(self._config, self.name, self._folder)
        settings["group.id"] += "-probe"
        settings["enable.partition.eof"] = True
        settings.pop("group.instance.id", None)
        worker = Worker(f"kafka {self.name} probe")
        try:
            return await worker.call(lambda: look(settings, looking, clock))
        finally:
            worker.end()

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
        message = _past(reject)
        return MessageRouter(self.name, self._rules, groups).again(message)

    def listen(self, listener: Listener | None) -> None:
        """Hear each message as it comes; what comes again is heard again."""
        if self._running is not None:
            self._running.inbox.listener = listener

    def decode_captured(
        self, captured: Sequence[Captured], directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode messages by the present rules."""
        router = MessageRouter(
            self.name, self._rules, DeviceGroups(directory, self._config.max_devices, keeps_grids=False)
        )
        messages = [of_captured(one) for one in captured]
        return router.decode(messages, messages[-1].arrival_ns if messages else NO_TIME)

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts; the cluster is the first device, then each partition with what it has still to give."""
        run = self._running
        if run is None:
            state = AdapterState.STOPPED if self._is_stopped else AdapterState.STARTING
            return AdapterDiagnostics(self.name, "kafka", state)
        inbox, session = run.inbox, run.session
        cluster = DeviceDiagnostics(
            ",".join(self._config.brokers), session.state, session.reason, inbox.last_good_ns, session.retry_ns,
            n_requests=inbox.n_messages, n_errors=inbox.n_rejects, n_polls_skipped=session.n_holds,
        )  # fmt: skip
        partitions = [
            DeviceDiagnostics(f"{topic}:{number}", session.state, f"{one.lag:,} messages behind")
            for (topic, number), one in session.ledger.progress().items()
        ]
        n_unacknowledged, unacknowledged_ns = inbox.unacknowledged
        p50, p99 = inbox.latency.percentiles()
        counts, total_s = spread([inbox.latency])
        return AdapterDiagnostics(
            self.name,
            "kafka",
            AdapterState.STOPPED if self._is_stopped else session.state,
            "" if self._is_stopped else session.reason,
            max(self._stopped_ns, session.since_ns),
            run.groups.n_sensors,
            (cluster, *partitions),
            n_samples=inbox.n_samples,
            n_frames=inbox.n_frames,
            n_bytes=inbox.n_bytes,
            n_rejects=inbox.n_rejects,
            transport_ns=inbox.transport_ns,
            decode_ns=inbox.decode_ns,
            latency_s_p50=p50,
            latency_s_p99=p99,
            latency_counts=counts,
            latency_total_s=total_s,
            n_connects=session.n_connects,
            n_gaps=session.ledger.n_gaps,
            n_unacknowledged=n_unacknowledged,
            unacknowledged_ns=unacknowledged_ns,
        )


def _past(reject: Reject) -> TopicMessage:
    """The message of a reject, by what its source says: ``topic:partition:offset`` and the key."""
    topic, *place = reject.source.split(":", 3)
    key = place[2].encode() if len(place) > 2 else None
    numbers = tuple(int(number) for number in place[:2] if number.isdecimal())
    return TopicMessage(topic, reject.raw, reject.arrival_ns, reject.arrival_ns, key, numbers)
