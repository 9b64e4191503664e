"""The OPC UA adapter: variables of servers, subscribed to or read; one session for each server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, TypeVar

from headrace.adapters.abilities import Captured, FoundTag, Listener, TagAddress
from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics, PlantFacts, Sink
from headrace.adapters.meters import Backoff
from headrace.adapters.opcua.addresses import parse_node, tag_address
from headrace.adapters.opcua.again import Refiling
from headrace.adapters.opcua.asking import Feed
from headrace.adapters.opcua.browsing import Browsing, scan_server
from headrace.adapters.opcua.captured import AnswerTap, decode_answers, mark_of
from headrace.adapters.opcua.client import ServiceFailed, UaConnection
from headrace.adapters.opcua.config import OpcuaConfig, Profile, UaDevicePlan, opcua_plans, parse_url
from headrace.adapters.opcua.filing import Filing
from headrace.adapters.opcua.inbox import ValueInbox
from headrace.adapters.opcua.plain import warm_plain
from headrace.adapters.opcua.probe import check_probe, probe_server, shown
from headrace.adapters.opcua.reader import Groups
from headrace.adapters.opcua.retag import (
    PastSessions,
    by_server,
    differs_in_tags_only,
    groups_of,
    plan_change,
)
from headrace.adapters.opcua.scanner import warm_scanner
from headrace.adapters.opcua.security import ServerAccess
from headrace.adapters.opcua.session import ServerSession
from headrace.adapters.opcua.tags import TableChange, TagTable
from headrace.adapters.pacing import ConnectGate
from headrace.core.clock import NO_TIME, NS, Clock, monotonic_ns
from headrace.core.errors import ConfigError, NotConnected, Rejected
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory
from headrace.core.settings import SignalSettings

N_CONNECTING_MAX = 16
N_NAMED_MAX = 50
T = TypeVar("T")
_FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists between start and stop."""

    feed: Feed
    gate: ConnectGate
    sessions: list[ServerSession]
    session_of: list[int]
    taking: asyncio.Task[None]
    connecting: list[asyncio.Task[None]]
    past: PastSessions = field(default_factory=PastSessions)

    @property
    def tags(self) -> TagTable:
        """What is read."""
        return self.feed.tags

    @property
    def inbox(self) -> ValueInbox:
        """Where values go."""
        return self.feed.inbox


class OpcuaAdapter:
    """Variables as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[OpcuaConfig]] = OpcuaConfig

    def __init__(self, name: str, config: OpcuaConfig, plans: list[UaDevicePlan], plant: PlantFacts) -> None:
        self.name = name
        self._config = config
        self._plans = plans
        self._folder, self._pacer = plant.folder, plant.pacer
        self._listener: Listener | None = None
        self._refiling: Refiling | None = None
        self._running: _Running | None = None
        self._stopped_ns = NO_TIME
        self._is_stopped = False

    @classmethod
    def warm(cls) -> None:
        """Make the kernels of its decoders ready."""
        warm_scanner()
        warm_plain()

    @classmethod
    def from_config(
        cls, name: str, config: OpcuaConfig, profiles: Mapping[str, Profile], plant: PlantFacts
    ) -> OpcuaAdapter:
        """Plan what is asked of every server.

        Raises
        ------
        ConfigError : an unknown profile, a bad path, url or address, or a certificate that is not there.
        """
        return cls(name, config, opcua_plans(name, config, profiles, plant), plant)

    def signals(self) -> dict[str, SignalSettings]:
        """Settings of the signals whose profiles say more of their values than what they are, by path."""
        return {
            f"{plan.path}/{name}": signal.settings
            for plan in self._plans
            for signal in plan.signals
            if signal.settings.is_treated
            for name in signal.columns
        }

    def declare(self, directory: SensorDirectory) -> None:
        """Define the groups whose types are known: from the configuration, or an earlier run. Raises `ConfigError`."""
        TagTable(self._plans, directory).begin()

    async def start(self, sink: Sink) -> None:
        """Begin to connect.

        Raises
        ------
        ConfigError : another adapter has one of the sensors, or one is of another type than is declared.
        """
        tags = TagTable(self._plans, sink.directory)
        tags.begin()
        filing = Filing(self.name, tags, sink.directory, self._config.time)
        inbox = ValueInbox(self.name, sink, tags, filing)
        feed = Feed(sink, tags, filing, inbox, AnswerTap(mark_of(tags), self._listener))
        gate = ConnectGate(self._pacer, N_CONNECTING_MAX)
        sessions = [self._session(devices, feed, gate) for devices in by_server(self._plans).values()]
        taking = asyncio.create_task(inbox.run(), name=f"opcua {self.name} inbox")
        connecting = [self._connect(one) for one in sessions]
        self._running = _Running(feed, gate, sessions, self._session_of(), taking, connecting)

    def _connect(self, session: ServerSession) -> asyncio.Task[None]:
        return asyncio.create_task(session.run(), name=f"opcua {self.name}")

    def _session_of(self) -> list[int]:
        """For each device the place of its session among those by server."""
        session_of = [0] * len(self._plans)
        for place, devices in enumerate(by_server(self._plans).values()):
            for number in devices:
                session_of[number] = place
        return session_of

    def _access(self, devices: list[int]) -> ServerAccess:
        """How to get into the server of some devices."""
        plans = [self._plans[number] for number in devices]
        timeout_s = max(plan.timeout_s for plan in plans)
        return ServerAccess(plans[0].server, self._config, self._folder, timeout_s)

    def _session(self, devices: list[int], feed: Feed, gate: ConnectGate) -> ServerSession:
        """The session of devices that share a server."""
        access, groups = self._access(devices), groups_of(feed.tags, devices)
        backoff = Backoff(
            f"{self.name}:{access.server}", self._config.reconnect_first, self._config.reconnect_most
        )
        return ServerSession(self.name, access, groups, feed, gate, backoff)

    async def retag(self, new: OpcuaAdapter) -> bool:
        """Go over to the devices and tags of another instance; see `headrace.adapters.abilities.Retags`."""
        run = self._running
        if run is None or self._is_stopped or not differs_in_tags_only(self._config, new._config):
            return False
        tags = TagTable(new._plans, run.feed.sink.directory)
        change = plan_change(run.tags, tags)
        wanted = by_server(new._plans)
        groups = {url: groups_of(tags, devices) for url, devices in wanted.items()}
        kept = {one.access.server.url: one for one in run.sessions if one.access.server.url in wanted}
        differing = [one for url, one in kept.items() if one.differs(change, groups[url])]
        await self._staged(differing, change, groups, tags)
        if self._is_stopped:
            await asyncio.gather(*(one.take_back() for one in differing))
            return True
        places = {plan.path: number for number, plan in enumerate(self._plans)}
        self._config, self._plans = new._config, new._plans
        # From here to the end of the loop nothing waits, so that no value comes between two tables.
        run.inbox.settle()
        run.tags.become(tags, change)
        run.feed.ear.mark = mark_of(tags)
        run.inbox.renumber([places.get(plan.path, -1) for plan in new._plans])
        for url, session in kept.items():
            session.commit(self._access(wanted[url]), change, groups[url])
        await self._with_sessions(run, kept, wanted)
        await asyncio.gather(*(one.finish() for one in differing))
        return True

    async def _staged(
        self,
        sessions: list[ServerSession],
        change: TableChange,
        groups: Mapping[str, Groups],
        tags: TagTable,
    ) -> None:
        """Ask servers for what is new, and define its sensors; where one refuses all is as it was.

        Raises
        ------
        ConfigError : another group has one of the sensors. Rejected, NotConnected : a server refuses, or is silent.
        """
        asking = [one.stage(change, groups[one.access.server.url]) for one in sessions]
        try:
            found = await asyncio.gather(*asking, return_exceptions=True)
            for session, error in zip(sessions, found, strict=True):
                await _answered(_outcome(error), session.access)
            tags.begin()
        except BaseException:
            await asyncio.gather(*(one.take_back() for one in sessions))
            raise

    async def _with_sessions(
        self, run: _Running, kept: Mapping[str, ServerSession], wanted: Mapping[str, list[int]]
    ) -> None:
        """Sessions of servers that are new; of those that nobody is left at an end is made."""
        gone = [one for one in run.sessions if one.access.server.url not in kept]
        tasks = dict(zip((id(one) for one in run.sessions), run.connecting, strict=True))
        sessions, connecting = [], []
        for url, devices in wanted.items():
            session = kept.get(url) or self._session(devices, run.feed, run.gate)
            sessions.append(session)
            connecting.append(tasks.get(id(session)) or self._connect(session))
        past = run.past.with_sessions(gone)
        self._running = replace(
            run, sessions=sessions, connecting=connecting, session_of=self._session_of(), past=past
        )
        ended = [tasks[id(one)] for one in gone]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in gone))

    async def stop(self) -> None:
        """Ask for no more, hand on the rest, close the sessions."""
        run = self._running
        if run is None or self._is_stopped:
            self._is_stopped = True
            return
        self._is_stopped = True
        self._stopped_ns = run.feed.sink.clock.now_ns()
        for task in run.connecting:
            task.cancel()
        await asyncio.gather(*run.connecting, return_exceptions=True)
        run.inbox.finish()
        await asyncio.wait([run.taking], timeout=_FLUSH_S)
        run.taking.cancel()
        await asyncio.gather(run.taking, *(one.close() for one in run.sessions), return_exceptions=True)

    # --- for people ----------------------------------------------------------------------------------

    async def probe(self, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """Look at a server: ``device`` (or ``url``), and a variable by ``address`` (or ``signal``).

        Raises
        ------
        ConfigError : it is not said where to look, or there is no such device or signal.
        NotConnected : the server does not answer, or refuses us. Rejected : it answers with an error.
        """
        check_probe(wanted)
        plan = self._plan_of(wanted)
        text = wanted.get("address", "")
        address = parse_node(text) if text else None
        if address is None and "signal" in wanted:
            known = {signal.name: signal for signal in plan.signals}
            if wanted["signal"] not in known:
                raise ConfigError(
                    f"no signal {wanted['signal']!r}{nearest(wanted['signal'], list(known))}", "signal"
                )
            address = known[wanted["signal"]].address
        if address is not None:
            address = address.of_device(plan.node)
        began_ns = monotonic_ns()
        found, how = await self._with_connection(plan, partial(probe_server, address=address))
        found = {
            "protocol": "opcua",
            "device": plan.path,
            "peer": str(plan.server),
            "seconds": (monotonic_ns() - began_ns) / NS,
            "connection": how,
            **found,
        }
        return found | shown(found)

    @classmethod
    async def probe_url(cls, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """Look at a server that no adapter has: ``url``, ``address``. Raises as `probe`."""
        return await cls._of_url(wanted).probe(wanted, clock)

    async def scan(self, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """Variables of a server: ``device`` (or ``url``), ``node`` to begin at, ``depth``, ``max``. Raises as `probe`."""
        browsing = Browsing.of(wanted)
        found, _ = await self._with_connection(self._plan_of(wanted), partial(scan_server, browsing=browsing))
        return found

    @classmethod
    async def scan_url(cls, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """Variables of a server that no adapter has. Raises as `probe`."""
        return await cls._of_url(wanted).scan(wanted, clock)

    @classmethod
    def _of_url(cls, wanted: Mapping[str, str]) -> OpcuaAdapter:
        """An adapter of one server, without security and a name."""
        plan = UaDevicePlan(wanted["url"], *parse_url(wanted["url"]), NS, "", ())
        return cls("probe", OpcuaConfig(devices={}), [plan], PlantFacts())

    def _plan_of(self, wanted: Mapping[str, str]) -> UaDevicePlan:
        if "url" in wanted:
            return UaDevicePlan(wanted["url"], *parse_url(wanted["url"]), self._config.interval, "", ())
        known = {plan.path: plan for plan in self._plans}
        device = wanted.get("device") or next(iter(known))
        if len({plan.server for plan in self._plans}) > 1 and "device" not in wanted:
            raise ConfigError(
                f"name one of the {len(known):,} devices of {self.name!r}: {device}, ...", "device"
            )
        if device not in known:
            near = nearest(device, list(known)) if len(known) <= N_NAMED_MAX else ""
            raise ConfigError(f"adapter {self.name!r} has no device {device!r}{near}", "device")
        return known[device]

    async def _with_connection(
        self, plan: UaDevicePlan, do: Callable[[UaConnection], Awaitable[T]]
    ) -> tuple[T, str]:
        """Do something over the adapter's own connection where that stands; else over one that is made for it."""
        run = self._running
        access = ServerAccess(plan.server, self._config, self._folder, plan.timeout_s)
        for session in run.sessions if run is not None and not self._is_stopped else ():
            if (
                session.access.server == plan.server
                and session.is_connected
                and session.connection is not None
            ):
                return await _answered(do(session.connection), access), "the adapter's"
        connection = UaConnection(access, lambda reason: None)
        try:
            await connection.open()
            return await _answered(do(connection), access), "made for this"
        finally:
            await connection.close()

    @classmethod
    def tag_address(cls, address: str, dtype: str, options: Mapping[str, Any]) -> TagAddress:
        """Understand a node id of a tag list; see `headrace.adapters.abilities.Addresses`."""
        return tag_address(address, dtype)

    def listen(self, listener: Listener | None) -> None:
        """Hear each publish response and each answer to a read of all variables."""
        self._listener = listener
        if self._running is not None:
            self._running.feed.ear.listener = listener

    def decode_captured(
        self, captured: Sequence[Captured], directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode answers by the present profiles."""
        tags = TagTable(self._plans, directory)
        tags.begin()
        filing = Filing(self.name, tags, directory, self._config.time)
        return decode_answers(self.name, tags, filing, captured)

    def redecode(
        self, reject: Reject, directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """File refused values by the present profiles."""
        if self._refiling is None or not self._refiling.is_for(self._plans, directory):
            self._refiling = Refiling(self.name, self._plans, directory, self._config.time)
        return self._refiling.redecode(reject)

    # --- how it is -----------------------------------------------------------------------------------

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts of the adapter and of every device."""
        n_sensors = sum(plan.n_sensors for plan in self._plans)
        run = self._running
        if run is None:
            state = AdapterState.STOPPED if self._is_stopped else AdapterState.STARTING
            return AdapterDiagnostics(self.name, "opcua", state, n_sensors=n_sensors)
        devices = self._devices(run)
        state, reason = self._summary(devices)
        latencies = [session.meters.latency.percentiles() for session in run.sessions]
        n_unacknowledged, unacknowledged_ns = run.inbox.unacknowledged
        totals = run.past.with_sessions(run.sessions)
        return AdapterDiagnostics(
            self.name,
            "opcua",
            state,
            reason,
            max(self._stopped_ns, *(session.since_ns for session in run.sessions)),
            n_sensors,
            devices,
            n_samples=run.inbox.n_samples,
            n_frames=run.inbox.n_frames,
            n_bytes=totals.n_bytes,
            n_rejects=run.inbox.n_rejects,
            n_duplicates=run.inbox.n_repeats,
            transport_ns=totals.transport_ns,
            decode_ns=run.inbox.decode_ns + totals.decode_ns,
            # The worst server's: an average would hide it.
            latency_s_p50=max(p50 for p50, _ in latencies),
            latency_s_p99=max(p99 for _, p99 in latencies),
            latency_counts=totals.latency_counts,
            latency_total_s=totals.latency_total_s,
            n_connects=totals.n_connects,
            n_gaps=run.inbox.n_lost + totals.n_gaps,
            n_unacknowledged=n_unacknowledged,
            unacknowledged_ns=unacknowledged_ns,
        )

    def _devices(self, run: _Running) -> tuple[DeviceDiagnostics, ...]:
        troubled: dict[int, list[int]] = {}
        for tag in sorted(run.tags.problem):
            troubled.setdefault(int(run.tags.device[tag]), []).append(tag)
        out = []
        for number, plan in enumerate(self._plans):
            session = run.sessions[run.session_of[number]]
            state, reason = session.state, session.reason
            bad = troubled.get(number, [])
            if session.is_connected and bad:
                state = AdapterState.DEGRADED
                reason = f"{run.tags.signal_of(bad[0]).name}: {run.tags.problem[bad[0]]}"
                if len(bad) > 1:
                    reason += f" (and {len(bad) - 1} more of {len(plan.signals)} variables)"
            away = state in (AdapterState.BACKOFF, AdapterState.FAILED)
            meters = session.meters
            polls = meters.polls[plan.interval_ns]
            out.append(
                DeviceDiagnostics(
                    plan.path, state, reason, int(run.inbox.last_good_ns[number]),
                    session.retry_ns if away else NO_TIME, meters.n_requests, meters.n_errors, meters.n_timeouts,
                    meters.n_skipped + polls.n_skipped, polls.n, polls.n_late, meters.skew.skew_ns,
                )
            )  # fmt: skip
        return tuple(out)

    def _summary(self, devices: tuple[DeviceDiagnostics, ...]) -> tuple[AdapterState, str]:
        if self._is_stopped:
            return AdapterState.STOPPED, ""
        states = {device.state for device in devices}
        state = states.pop() if len(states) == 1 else AdapterState.DEGRADED
        troubled = [device for device in devices if device.reason]
        if not troubled:
            return (state if not states else AdapterState.STARTING), ""
        text = f"{troubled[0].path}: {troubled[0].reason}"
        if len(troubled) > 1:
            text += f" (and {len(troubled) - 1} more of {len(devices)} devices)"
        return state, text


async def _outcome(error: BaseException | None) -> None:
    if error is not None:
        raise error


async def _answered(doing: Awaitable[T], access: ServerAccess) -> T:
    """What a server answers; its errors as people are told them."""
    try:
        return await doing
    except TimeoutError as e:
        raise NotConnected(f"{access.server} did not answer within {access.timeout_s:g} s") from e
    except ServiceFailed as e:
        raise Rejected(str(e)) from e
