"""A fleet's devices behind Sparkplug edge nodes: one node a line.

A device is born when its line sets it to work, with all its metrics and what they mean. Then it reports by exception, and
dies when its line stops: for a break, or at the end of a shift. What a message says is what the fleet measures at the
time that it names; the wire's times are whole milliseconds.

A node has a primary host, as the standard calls it: it tells nothing while that one is away, and is born when it comes. What
is reported when follows the clock. While the broker is away a node waits; then it is born again and catches up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.payloads.sparkplug_writer import SparkplugValue
from headrace.adapters.sparkplug.simulator import SimulatedEdge
from headrace.core.clock import Clock
from headrace.sim.device_types import DeviceType
from headrace.sim.devices.mqtt import USER
from headrace.sim.fleet import Fleet
from headrace.sim.profiles import Rest
from headrace.sim.reports import SparseFrames

HOST_ID = "headrace"
_MS = 1_000_000
_STEP_MAX_NS = 60_000_000_000
_STOP_TIMEOUT_S = 0.5
_TYPES = {
    "u8": DataType.BOOLEAN, "u16": DataType.UINT16, "i16": DataType.INT16, "u32": DataType.UINT32, "i32": DataType.INT32,
    "f32": DataType.FLOAT, "f64": DataType.DOUBLE,
}  # fmt: skip


class FleetMetric(NamedTuple):
    """A metric as births name it."""

    name: str
    datatype: int
    unit: str | None

    def value(self, raw: float) -> float | bool:
        """A raw value as the wire has it."""
        return bool(raw) if self.datatype == DataType.BOOLEAN else raw


class DeviceReport(NamedTuple):
    """What a device reports at one instant: (number of the metric, raw value) each."""

    ts_ns: int
    device: int
    values: list[tuple[int, float]]


def metrics(kind: DeviceType) -> list[FleetMetric]:
    """The metrics of a type's devices, in the order of its signals.

    Raises
    ------
    ValueError : a type without values at rest (events, waveforms), or whose values are not engineering units.
    """
    if kind.parts[0].table is None:
        raise ValueError(f"{kind.profile.name} devices report events or waveforms: they have no metrics")
    if not kind.sends_units:
        raise ValueError(f"{kind.profile.name}: metrics are engineering units; take its profile in_units()")
    return [
        FleetMetric(column.name, _TYPES[part.layout.dtype], column.unit or None)
        for part in kind.parts
        for column in part.layout.columns
    ]


def reports(fleet: Fleet, t0_ns: int, t1_ns: int) -> list[DeviceReport]:
    """What a fleet of devices that report by exception reports in ``t0 <= t < t1``, in order of time.

    Raises
    ------
    ValueError : a device reports in another way.
    """
    found: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for frames in fleet.frames(t0_ns, t1_ns):
        if not isinstance(frames, SparseFrames):
            raise ValueError(f"{frames.type.profile.name} devices do not report by exception")
        columns = frames.column + frames.part.first_column
        rows = (frames.ts_ns.tolist(), frames.device.tolist(), columns.tolist(), frames.values.tolist())
        for ts_ns, device, column, value in zip(*rows, strict=True):
            found.setdefault((ts_ns, device), []).append((column, value))
    return [DeviceReport(*at, sorted(values)) for at, values in sorted(found.items())]


class LineNode(SimulatedEdge):
    """The edge node of a line.

    Parameters
    ----------
    devices : numbers of its devices, by their ids.
    """

    def __init__(
        self, address: tuple[str, int], node_id: tuple[str, str], fleet: Fleet, devices: dict[str, int]
    ) -> None:
        super().__init__(address, node_id, user=USER, host_id=HOST_ID)
        self.living: dict[int, int] = {}
        """When each device that lives was born, in ms."""
        self.n_samples = self.n_deaths = 0
        self._fleet = fleet
        self._ids = {device: name for name, device in devices.items()}
        index = fleet.type_index(np.array(list(self._ids)))
        self._kind = dict(zip(self._ids, index.tolist(), strict=True))
        self._metrics = [metrics(kind) for kind in fleet.types]
        self._width = max(len(some) for some in self._metrics)
        self.devices = frozenset(self._ids)

    def born(self) -> Iterable[tuple[str, Sequence[SparkplugValue]]]:
        """The present values of the devices that live."""
        return [(self._ids[device], self._present(device)) for device in self.living]

    def bear(self, device: int) -> None:
        """A device begins to work."""
        self.living[device] = self.time_ms
        self.tell("DBIRTH", self._ids[device], self._present(device))

    def report(self, report: DeviceReport) -> None:
        """A device tells what has changed; what its birth has told of that very time it does not tell twice."""
        self.time_ms = max(self.time_ms, report.ts_ns // _MS)
        if report.ts_ns // _MS <= self.living[report.device]:
            return
        known = self._metrics[self._kind[report.device]]
        values = [
            self._tell(report.device, number, known[number], value, report.ts_ns // _MS)
            for number, value in report.values
        ]
        self.n_samples += len(values)
        self.tell("DDATA", self._ids[report.device], values)

    def bury(self, device: int) -> None:
        """A device stops to work."""
        del self.living[device]
        self.n_deaths += 1
        self.tell_death(self._ids[device])

    def _present(self, device: int) -> list[SparkplugValue]:
        self.living[device] = self.time_ms
        now = self._fleet.all_values(np.array([device]), np.array([self.time_ms * _MS]))
        raws = [raw for part in now for raw in part[0].tolist()]
        known = self._metrics[self._kind[device]]
        self.n_samples += len(raws)
        return [
            self._tell(device, number, metric, raw, self.time_ms)._replace(
                name=metric.name, names_type=True, unit=metric.unit
            )
            for number, (metric, raw) in enumerate(zip(known, raws, strict=True))
        ]

    def _tell(
        self, device: int, number: int, metric: FleetMetric, raw: float, time_ms: int
    ) -> SparkplugValue:
        # An alias stands for one metric of the whole node.
        alias = device * self._width + number
        return SparkplugValue(metric.value(raw), metric.datatype, None, alias, time_ms, names_type=False)


class EdgeNodes:
    """The edge nodes of a fleet's lines.

    Parameters
    ----------
    step_s : how often they report, in plant time.
    """

    def __init__(self, fleet: Fleet, clock: Clock, address: tuple[str, int], step_s: float = 0.5) -> None:
        self.nodes = _nodes(fleet, address)
        self._fleet = fleet
        self._clock = clock
        self._step_s = step_s
        self._task: asyncio.Task[None] | None = None

    def counts(self) -> dict[str, int]:
        """What was told: births of nodes, deaths of devices, and values."""
        return {
            "births": sum(one.n_births for one in self.nodes),
            "deaths": sum(one.n_deaths for one in self.nodes),
            "samples": sum(one.n_samples for one in self.nodes),
        }

    async def start(self) -> None:
        """Connect, and begin with what is reported from now on.

        Raises
        ------
        OSError : no broker there.
        """
        now_ns = self._clock.now_ns()
        await self._connect(now_ns)
        self._task = asyncio.create_task(self._run(now_ns), name="edge nodes")

    async def ended(self) -> None:
        """Wait until they report no more, which only an error brings about; raises it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Tell the nodes' deaths and part. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        connected = [one for one in self.nodes if one.is_connected]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await asyncio.gather(*(one.stop() for one in connected))

    def report(self, t0_ns: int, t1_ns: int) -> None:
        """Tell what happens in ``t0 <= t < t1``: who begins to work, what changes, who stops."""
        found = reports(self._fleet, t0_ns, t1_ns)
        work = self._at_work(t1_ns - 1)
        for node in self.nodes:
            if not node.has_host:
                node.living.clear()
                node.time_ms = -(-t1_ns // _MS)
                continue
            node.time_ms = -(-t0_ns // _MS)
            mine = [one for one in found if one.device in node.devices]
            for device in {*(one.device for one in mine), *work}.intersection(node.devices) - set(
                node.living
            ):
                node.bear(device)
            for one in mine:
                node.report(one)
            node.time_ms = -(-t1_ns // _MS)
            for device in set(node.living) - work:
                node.bury(device)

    def _at_work(self, ts_ns: int) -> set[int]:
        out: set[int] = set()
        for kind in self._fleet.types:
            device = kind.devices()
            if kind.profile.rest is Rest.SLEEPS:
                machines = self._fleet.machines
                awake = machines.awake(kind, device, machines.keys(device), np.full(len(device), ts_ns))
                device = device[awake]
            out.update(device.tolist())
        return out

    async def _connect(self, now_ns: int) -> None:
        for node in self.nodes:
            if not node.is_connected:
                node.time_ms = -(-now_ns // _MS)
                await node.start()

    async def _run(self, from_ns: int) -> None:
        while True:
            await self._clock.sleep(self._step_s)
            to_ns = min(self._clock.now_ns(), from_ns + _STEP_MAX_NS)
            try:
                await self._connect(from_ns)
            except OSError:
                continue  # the broker is away
            self.report(from_ns, to_ns)
            from_ns = max(from_ns, to_ns)


def _nodes(fleet: Fleet, address: tuple[str, int]) -> list[LineNode]:
    """A node for each line: ``leon:paint`` is its group, ``line1`` its id."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for device, path in enumerate(fleet.paths(np.arange(fleet.n_devices))):
        site, area, line, name = path.split("/")
        lines.setdefault((f"{site}:{area}", line), {})[name] = device
    return [LineNode(address, node_id, fleet, devices) for node_id, devices in lines.items()]
