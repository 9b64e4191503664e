"""The Modbus adapter: polls devices by their profiles; one connection for each host and port, or serial line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from headrace.adapters.abilities import Captured, FoundTag, Listener, TagAddress
from headrace.adapters.base import AdapterDiagnostics, AdapterState, PlantFacts, Sink
from headrace.adapters.meters import Backoff
from headrace.adapters.modbus.again import redecode_poll
from headrace.adapters.modbus.captured import decode_answers
from headrace.adapters.modbus.collector import Collector
from headrace.adapters.modbus.config import (
    DevicePlan,
    ModbusConfig,
    Profile,
    device_plans,
    tls_files,
)
from headrace.adapters.modbus.endpoints import DeviceTls, DeviceUrl, parse_url
from headrace.adapters.modbus.poller import ConnectionPoller, PolledDevice
from headrace.adapters.modbus.probe import Ask, ProbeTarget, check_wanted, count_of, probe_target
from headrace.adapters.modbus.retag import PastPolling, by_endpoint, differs_in_tags_only, plan_change
from headrace.adapters.modbus.scan import AskUnit, ScanWish, found_tags, scan_registers, scan_units
from headrace.adapters.modbus.tag_address import tag_address
from headrace.adapters.modbus.transport import ModbusTransport
from headrace.adapters.pacing import ConnectGate, ConnectPacer
from headrace.adapters.payloads.register_addresses import parse_address
from headrace.adapters.payloads.registers import ReadMap
from headrace.core.clock import NO_TIME, NS, Clock
from headrace.core.errors import ConfigError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory

N_CONNECTING_MAX = 64
N_NAMED_MAX = 50
DEFAULT_REQUESTS_PER_S = 100.0
_FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists between start and stop."""

    clock: Clock
    sink: Sink
    collector: Collector
    gate: ConnectGate
    devices: list[PolledDevice]
    pollers: list[ConnectionPoller]
    gathering: asyncio.Task[None]
    polling: list[asyncio.Task[None]]
    past: PastPolling


class ModbusAdapter:
    """Polled devices as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[ModbusConfig]] = ModbusConfig

    def __init__(
        self,
        name: str,
        config: ModbusConfig,
        plans: list[DevicePlan],
        tls: DeviceTls,
        pacer: ConnectPacer,
    ) -> None:
        self.name = name
        self._config = config
        self._plans = plans
        self._tls = tls
        self._pacer = pacer
        self._listener: Listener | None = None
        self._running: _Running | None = None
        self._stopped_ns = NO_TIME
        self._is_stopped = False

    @classmethod
    def from_config(
        cls, name: str, config: ModbusConfig, profiles: Mapping[str, Profile], plant: PlantFacts
    ) -> ModbusAdapter:
        """Plan the reads of every device.

        Raises
        ------
        ConfigError : an unknown profile, a bad path, url or address.
        """
        plans = device_plans(name, config, profiles, plant)
        return cls(name, config, plans, tls_files(name, config, plant.folder), plant.pacer)

    def declare(self, directory: SensorDirectory) -> None:
        """Define the groups of all devices. Raises `ConfigError` where another adapter has one of the sensors."""
        define_groups(self._plans, [plan.read_map for plan in self._plans], directory)

    async def start(self, sink: Sink) -> None:
        """Define the groups and begin to poll.

        Raises
        ------
        ConfigError : another adapter has one of the sensors.
        """
        collector = Collector(self.name, sink)
        now_ns = sink.clock.now_ns()
        slots = define_groups(self._plans, [plan.map_at(now_ns) for plan in self._plans], sink.directory)
        devices = [self._device(plan, slots[i], now_ns) for i, plan in enumerate(self._plans)]
        gate = ConnectGate(self._pacer, N_CONNECTING_MAX)
        pollers = [self._poller(some, sink, collector, gate) for some in by_endpoint(devices).values()]
        gathering = asyncio.create_task(collector.run(), name=f"modbus {self.name}")
        polling = [self._poll(poller) for poller in pollers]
        self._running = _Running(
            sink.clock, sink, collector, gate, devices, pollers, gathering, polling, PastPolling()
        )

    def _device(self, plan: DevicePlan, slots: tuple[int, ...], now_ns: int) -> PolledDevice:
        return PolledDevice(plan, slots, self._backoff(plan.path), now_ns)

    def _poller(
        self, devices: list[PolledDevice], sink: Sink, collector: Collector, gate: ConnectGate
    ) -> ConnectionPoller:
        gap_ns = round(NS / self._config.max_requests_per_s)
        backoff = self._backoff(str(devices[0].plan.endpoint))
        poller = ConnectionPoller(self.name, devices, sink, collector, gate, gap_ns, backoff)
        poller.listener = self._listener
        return poller

    def _poll(self, poller: ConnectionPoller) -> asyncio.Task[None]:
        return asyncio.create_task(poller.run(), name=f"modbus {self.name}")

    async def retag(self, new: ModbusAdapter) -> bool:
        """Go over to the devices and tags of another instance; see `headrace.adapters.abilities.Retags`."""
        run = self._running
        if run is None or self._is_stopped or not differs_in_tags_only(self._config, new._config):
            return False
        now_ns = run.clock.now_ns()
        slots = define_groups(new._plans, [plan.map_at(now_ns) for plan in new._plans], run.sink.directory)
        planned = list(zip(new._plans, slots, strict=True))
        change = plan_change(run.devices, run.pollers, planned, self._device, now_ns)
        self._config, self._plans, self._tls = new._config, new._plans, new._tls
        made = [self._poller(some, run.sink, run.collector, run.gate) for some in change.new_endpoints]
        kept = {id(p): task for p, task in zip(run.pollers, run.polling, strict=True)}
        # Those that rest would see their wish only when they wake; nothing of theirs is on its way.
        woken = [p for p in change.changed if p.is_resting]
        ended = [kept[id(poller)] for poller in (*woken, *change.gone)]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        for poller in change.gone:
            poller.close()
        if self._is_stopped:
            return True
        kept |= {id(poller): self._poll(poller) for poller in (*woken, *made)}
        pollers = [*(p for p in run.pollers if p not in change.gone), *made]
        self._running = replace(
            run, devices=change.devices, pollers=pollers, polling=[kept[id(p)] for p in pollers],
            past=run.past.with_pollers(change.gone),
        )  # fmt: skip
        return True

    def _backoff(self, key: str) -> Backoff:
        return Backoff(f"{self.name}:{key}", self._config.reconnect_first, self._config.reconnect_most)

    async def probe(self, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """Read one address of a device: ``device`` (or ``url``), ``address`` (or ``signal``), ``count``.

        It goes over the adapter's own connection where that stands, between two polls, because many devices take
        no second one; else a connection is made for it.

        Raises
        ------
        ConfigError : it is not said what to read, or there is no such device or signal.
        NotConnected : the device does not answer. Rejected : it refuses.
        """
        target = self._probe_target(wanted)
        return await probe_target(target, self._ask(target.url))

    def _ask(self, device: DeviceUrl) -> Ask | None:
        """How to ask a device over the connection that the adapter has; None where it has none."""
        poller = self._poller_of(device)
        return None if poller is None else partial(poller.ask, unit=device.unit, timeout_s=device.timeout_s)

    def _poller_of(self, device: DeviceUrl) -> ConnectionPoller | None:
        run = self._running
        for poller in run.pollers if run is not None and not self._is_stopped else ():
            if poller.endpoint.place == device.endpoint.place and poller.is_connected:
                return poller
        return None

    async def scan(self, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """What a device has, or with ``units`` which devices there are: ``device`` (or ``url``), see `ScanWish`.

        It goes over the adapter's own connection where that stands, at the adapter's pace and between its polls.

        Raises
        ------
        ConfigError : `wanted` is not understood, or there is no such device. NotConnected : it does not answer.
        """
        wish = ScanWish.of(wanted)
        if "url" in wanted:
            name, device = wanted["url"], parse_url(wanted["url"], self._tls)
        else:
            plan = self._plan_of(wanted.get("device", ""))
            name, device = plan.path, plan.url
        poller = self._poller_of(device)
        if poller is not None:
            return await _scan(name, device, wish, partial(_ask_poller, poller, device.timeout_s), clock)
        return await _scan_alone(name, device, wish, clock, self._config.max_requests_per_s)

    @classmethod
    async def scan_url(cls, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """Scan a device that no adapter has, by its ``url``. Raises as `scan`."""
        wish = ScanWish.of(wanted)
        device = parse_url(wanted.get("url", ""))
        return await _scan_alone(wanted["url"], device, wish, clock, DEFAULT_REQUESTS_PER_S)

    @classmethod
    async def probe_url(cls, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """Look at a device that no adapter has: ``url``, ``address``, ``count``. Raises as `probe`."""
        return await probe_target(ProbeTarget.of_url(wanted))

    @classmethod
    def tag_address(cls, address: str, dtype: str, options: Mapping[str, Any]) -> TagAddress:
        """Understand an address of a tag list; see `headrace.adapters.abilities.Addresses`."""
        return tag_address(address, dtype, options)

    def _probe_target(self, wanted: Mapping[str, str]) -> ProbeTarget:
        check_wanted(wanted)
        if "url" in wanted:
            return ProbeTarget.of_url(wanted, self._config.numbering, self._tls)
        plan = self._plan_of(wanted.get("device", ""))
        address, signal = wanted.get("address", ""), wanted.get("signal", "")
        profile = plan.profile or {}
        if not address and signal not in profile:
            raise ConfigError(
                f"say which address, as in holding:100, or which signal{nearest(signal, list(profile))}",
                "signal" if signal else "address",
            )
        parsed = parse_address(address or profile[signal].address, self._config.numbering)
        return ProbeTarget(plan.path, plan.url, parsed, count_of(wanted))

    def _plan_of(self, device: str) -> DevicePlan:
        """The plan of a device that a person named. Raises `ConfigError`."""
        plans = {plan.path: plan for plan in self._plans}
        known = list(plans)
        if not device and len(known) == 1:
            device = known[0]
        if not device:
            raise ConfigError(
                f"name one of the {len(known):,} devices of {self.name!r}: {known[0]}, ...", "device"
            )
        if device not in plans:
            near = nearest(device, known) if len(known) <= N_NAMED_MAX else ""
            raise ConfigError(f"adapter {self.name!r} has no device {device!r}{near}", "device")
        return plans[device]

    async def stop(self) -> None:
        """End polling, close the connections, hand on the last slice."""
        run = self._running
        if run is None or self._is_stopped:
            self._is_stopped = True
            return
        self._is_stopped = True
        self._stopped_ns = run.clock.now_ns()
        for task in run.polling:
            task.cancel()
        await asyncio.gather(*run.polling, return_exceptions=True)
        for poller in run.pollers:
            poller.close()
        run.collector.finish()
        await asyncio.wait([run.gathering], timeout=_FLUSH_S)
        run.gathering.cancel()
        await asyncio.gather(run.gathering, return_exceptions=True)

    def listen(self, listener: Listener | None) -> None:
        """Hear each request and its answer (PDUs), of polls only."""
        self._listener = listener
        for poller in self._running.pollers if self._running is not None else ():
            poller.listener = listener

    def decode_captured(
        self, captured: Sequence[Captured], directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode answers by the present profiles."""
        return decode_answers(self.name, self._plans, directory, captured)

    def redecode(
        self, reject: Reject, directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode a refused poll by the present profile."""
        return redecode_poll(self.name, self._plans, directory, reject)

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts of the adapter and of every device."""
        n_sensors = sum(plan.read_map.width for plan in self._plans)
        run = self._running
        if run is None:
            state = AdapterState.STOPPED if self._is_stopped else AdapterState.STARTING
            return AdapterDiagnostics(self.name, "modbus", state, n_sensors=n_sensors)
        state, reason = self._summary(run)
        latencies = [poller.latency.percentiles() for poller in run.pollers]
        counts, total_s = run.past.spread(run.pollers)
        return AdapterDiagnostics(
            self.name,
            "modbus",
            state,
            reason,
            max(self._stopped_ns, *(device.changed_ns for device in run.devices)),
            n_sensors,
            tuple(device.diagnostics() for device in run.devices),
            n_samples=run.collector.n_samples,
            n_frames=run.collector.n_frames,
            n_bytes=run.past.n_bytes + sum(poller.n_bytes for poller in run.pollers),
            n_rejects=run.collector.n_rejects,
            transport_ns=run.past.transport_ns + sum(poller.transport_ns for poller in run.pollers),
            decode_ns=run.collector.decode_ns,
            # The worst connection's: an average would hide it.
            latency_s_p50=max(p50 for p50, _ in latencies),
            latency_s_p99=max(p99 for _, p99 in latencies),
            latency_counts=counts,
            latency_total_s=total_s,
            n_connects=run.past.n_connects + sum(poller.n_connects for poller in run.pollers),
        )

    def _summary(self, run: _Running) -> tuple[AdapterState, str]:
        if self._is_stopped:
            return AdapterState.STOPPED, ""
        if run.collector.refused:
            return AdapterState.DEGRADED, run.collector.refused
        states = {device.state for device in run.devices}
        troubled = [device for device in run.devices if device.reason]
        if not troubled:
            return (states.pop() if len(states) == 1 else AdapterState.STARTING), ""
        text = f"{troubled[0].plan.path}: {troubled[0].reason}"
        if len(troubled) > 1:
            text += f" (and {len(troubled) - 1} more of {len(run.devices)} devices)"
        return (states.pop() if len(states) == 1 else AdapterState.DEGRADED), text


async def _ask_poller(poller: ConnectionPoller, timeout_s: float, unit: int, pdu: bytes) -> bytes:
    return await poller.ask(pdu, unit, timeout_s)


async def _scan(
    name: str, device: DeviceUrl, wish: ScanWish, ask: AskUnit, clock: Clock
) -> Sequence[FoundTag]:
    if wish.units:
        return await scan_units(ask, wish, device.endpoint.url, clock.now_ns)
    found = await scan_registers(partial(ask, device.unit), wish)
    return found_tags(name, found, clock.now_ns())


async def _scan_alone(
    name: str, device: DeviceUrl, wish: ScanWish, clock: Clock, most_per_s: float
) -> Sequence[FoundTag]:
    """Over a connection that is made for it."""
    transport = await ModbusTransport.connect(device.endpoint, device.timeout_s, lambda reason: None)

    async def ask(unit: int, pdu: bytes) -> bytes:
        await clock.sleep(1 / most_per_s)
        return await transport.request(unit, pdu, device.timeout_s)

    try:
        return await _scan(name, device, wish, ask, clock)
    finally:
        transport.close()


def define_groups(
    plans: list[DevicePlan], maps: list[ReadMap], directory: SensorDirectory
) -> list[tuple[int, ...]]:
    """Make the devices' groups known by their read maps: for each device the slots of its parts."""
    slots: list[tuple[int, ...]] = [()] * len(plans)
    alike: dict[tuple[Any, ...], list[int]] = {}
    for number, (plan, read_map) in enumerate(zip(plans, maps, strict=True)):
        alike.setdefault((id(plan.bands), *read_map.parts), []).append(number)
    for numbers in alike.values():
        first, parts = plans[numbers[0]], maps[numbers[0]].parts
        paths = [plans[number].path for number in numbers]
        columns = [directory.define_many(paths, part.layout, part.part).tolist() for part in parts]
        for part, some in zip(parts, columns, strict=True):
            directory.set_dead_bands(some, first.dead_bands(part))
        for number, some in zip(numbers, zip(*columns, strict=True), strict=True):
            slots[number] = some
    return slots
