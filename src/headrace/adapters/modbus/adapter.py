"""The Modbus TCP adapter: polls devices by their profiles; one connection for each host and port."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from headrace.adapters.abilities import Captured, Listener, TagAddress
from headrace.adapters.base import AdapterDiagnostics, AdapterState, PlantFacts, Sink
from headrace.adapters.device_tables import device_rows
from headrace.adapters.meters import Backoff
from headrace.adapters.modbus.captured import decode_answers
from headrace.adapters.modbus.collector import Collector
from headrace.adapters.modbus.config import (
    DevicePlan,
    ModbusConfig,
    Profile,
    device_plans,
    parse_url,
)
from headrace.adapters.modbus.poller import ConnectionPoller, PolledDevice
from headrace.adapters.modbus.probe import ProbeTarget, check_wanted, count_of, probe_target
from headrace.adapters.modbus.retag import PastPolling, by_peer, differs_in_tags_only, plan_change
from headrace.adapters.modbus.tag_address import tag_address
from headrace.adapters.pacing import ConnectGate, ConnectPacer
from headrace.adapters.payloads.registers import ReadMap, parse_address
from headrace.core.clock import NO_TIME, NS, Clock
from headrace.core.errors import ConfigError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory

N_CONNECTING_MAX = 64
N_NAMED_MAX = 50
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


@dataclass(frozen=True, slots=True)
class DeviceSource:
    """A device as the plant file has it: its url and its signals."""

    url: str
    profile: Profile


class ModbusAdapter:
    """Polled devices as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[ModbusConfig]] = ModbusConfig

    def __init__(
        self,
        name: str,
        config: ModbusConfig,
        plans: list[DevicePlan],
        sources: Mapping[str, DeviceSource],
        pacer: ConnectPacer,
    ) -> None:
        self.name = name
        self._config = config
        self._plans = plans
        self._sources = sources
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
        rows = device_rows(config.devices, plant.folder, plant.tables)
        sources = {
            path: DeviceSource(fields["url"], profiles.get(fields.get("profile") or config.profile, {}))
            for path, fields in rows
        }
        return cls(name, config, device_plans(name, config, profiles, plant), sources, plant.pacer)

    def declare(self, directory: SensorDirectory) -> None:
        """Define the groups of all devices. Raises `ConfigError` where another adapter has one of the sensors."""
        define_groups(self._plans, directory)

    async def start(self, sink: Sink) -> None:
        """Define the groups and begin to poll.

        Raises
        ------
        ConfigError : another adapter has one of the sensors.
        """
        collector = Collector(self.name, sink)
        slots = define_groups(self._plans, sink.directory)
        now_ns = sink.clock.now_ns()
        devices = [self._device(plan, slots[i], now_ns) for i, plan in enumerate(self._plans)]
        gate = ConnectGate(self._pacer, N_CONNECTING_MAX)
        pollers = [self._poller(some, sink, collector, gate) for some in by_peer(devices).values()]
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
        plan = devices[0].plan
        backoff = self._backoff(f"{plan.host}:{plan.port}")
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
        slots = define_groups(new._plans, run.sink.directory)
        change = plan_change(
            run.devices, run.pollers, list(zip(new._plans, slots, strict=True)), self._device, run.clock
        )
        self._config, self._plans, self._sources = new._config, new._plans, new._sources
        made = [self._poller(some, run.sink, run.collector, run.gate) for some in change.new_peers]
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
        host, port, unit, timeout_s = parse_url(target.url)
        run = self._running
        for poller in run.pollers if run is not None and not self._is_stopped else ():
            if poller.peer == (host, port) and poller.is_connected:
                return await probe_target(target, partial(poller.ask, unit=unit, timeout_s=timeout_s))
        return await probe_target(target)

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
            return ProbeTarget.of_url(wanted, self._config.numbering)
        known = list(self._sources)
        device = wanted.get("device") or (known[0] if len(known) == 1 else "")
        if not device:
            raise ConfigError(
                f"name one of the {len(known):,} devices of {self.name!r}: {known[0]}, ...", "device"
            )
        if device not in self._sources:
            near = nearest(device, known) if len(known) <= N_NAMED_MAX else ""
            raise ConfigError(f"adapter {self.name!r} has no device {device!r}{near}", "device")
        source = self._sources[device]
        address, signal = wanted.get("address", ""), wanted.get("signal", "")
        if not address and signal not in source.profile:
            raise ConfigError(
                f"say which address, as in holding:100, or which signal{nearest(signal, list(source.profile))}",
                "signal" if signal else "address",
            )
        parsed = parse_address(address or source.profile[signal].address, self._config.numbering)
        return ProbeTarget(device, source.url, parsed, count_of(wanted))

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
        return decode_answers(self.name, self._plans, define_groups(self._plans, directory), captured)

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
            n_rejects=run.collector.n_rejects,
            transport_ns=run.past.transport_ns + sum(poller.transport_ns for poller in run.pollers),
            decode_ns=run.collector.decode_ns,
            # The worst connection's: an average would hide it.
            latency_s_p50=max(p50 for p50, _ in latencies),
            latency_s_p99=max(p99 for _, p99 in latencies),
            latency_counts=counts,
            latency_total_s=total_s,
            n_connects=sum(poller.n_connects for poller in run.pollers),
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


def define_groups(plans: list[DevicePlan], directory: SensorDirectory) -> list[tuple[int, ...]]:
    """Make the devices' groups known: for each device the slots of its parts."""
    slots: list[tuple[int, ...]] = [()] * len(plans)
    by_map: dict[ReadMap, list[int]] = {}
    for number, plan in enumerate(plans):
        by_map.setdefault(plan.read_map, []).append(number)
    for read_map, numbers in by_map.items():
        paths = [plans[number].path for number in numbers]
        columns = [directory.define_many(paths, part.layout, part.part).tolist() for part in read_map.parts]
        for number, some in zip(numbers, zip(*columns, strict=True), strict=True):
            slots[number] = some
    return slots
