"""A fleet's devices as variables of one OPC UA server, as a cell's controller has them.

The server is asyncua's. A device is a folder and each of its signals a variable of its own type, in engineering units.
A variable is written when its value has changed, with the present time of the clock as its source's and the server's:
whoever subscribes is told just that.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.adapters.opcua.simulator import OpcuaSimulator
from headrace.core.clock import NS, Clock, SystemClock
from headrace.core.errors import Unreachable
from headrace.core.layouts import Column
from headrace.sim.device_types import DeviceType, FleetPart
from headrace.sim.devices.broker import free_port
from headrace.sim.fleet import Fleet

Array = npt.NDArray[Any]
KINDS = {
    "u8": "Boolean", "u16": "UInt16", "i16": "Int16", "u32": "UInt32", "i32": "Int32", "f32": "Float", "f64": "Double",
}  # fmt: skip


def variables(kind: DeviceType) -> list[tuple[str, Column]]:
    """Address and column of each signal of a type, in the grammar of ``plant.toml``.

    Raises
    ------
    ValueError : a type without values at rest (events, waveforms), or whose values are not engineering units.
    """
    if kind.parts[0].table is None:
        raise ValueError(f"{kind.profile.name} devices report events or waveforms: they have no variables")
    if not kind.sends_units:
        raise ValueError(f"{kind.profile.name}: variables are engineering units; take its profile in_units()")
    columns = [column for part in kind.parts for column in part.layout.columns]
    return [(OpcuaSimulator.address(f"{{node}}.{column.name}"), column) for column in columns]


class OpcuaCell:
    """An OPC UA server with a fleet's devices.

    Parameters
    ----------
    step_s : values change at absolute multiples of it (plant time).

    Attributes
    ----------
    n_changes : values written since the start.
    """

    def __init__(self, fleet: Fleet, clock: Clock, step_s: float = 1.0, host: str = "127.0.0.1") -> None:
        self.n_changes = 0
        self._fleet = fleet
        self._clock = clock
        self._step_ns = max(1, round(step_s * NS))
        self._host = host
        self._server: OpcuaSimulator | None = None
        self._last: dict[tuple[int, int], Array] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def urls(self) -> dict[str, str]:
        """Device path → ``opc.tcp://host:port/plant?node=...``, once started."""
        assert self._server is not None
        paths = self._fleet.paths(np.arange(self._fleet.n_devices))
        return {path: self._server.url(_node(path), "10s") for path in paths}

    async def start(self) -> None:
        """Make the variables with their present values, and listen on a free port.

        Raises
        ------
        Unreachable : the port can't be had.
        """
        for kind in self._fleet.types:
            variables(kind)
        server = OpcuaSimulator(free_port(self._host), self._host)
        server.keeps_time = False
        try:
            await server.start()
        except OSError as error:
            raise Unreachable(f"can't listen on {self._host}: {error}") from error
        self._server = server
        await self._add(server, self._now_ns())
        self._task = asyncio.create_task(self._run(), name="opcua cell")

    async def ended(self) -> None:
        """Wait until its values change no more, which only an error brings about; raises it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Close port and connections. Idempotent."""
        task, self._task = self._task, None
        try:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        finally:
            server, self._server = self._server, None
            if server is not None:
                await server.stop()

    def _now_ns(self) -> int:
        now_ns = self._clock.now_ns()
        return now_ns - now_ns % self._step_ns

    async def _run(self) -> None:
        while True:
            left_ns = self._step_ns - self._clock.now_ns() % self._step_ns
            await self._clock.sleep(left_ns / NS)
            await self.write(self._now_ns())

    async def write(self, at_ns: int) -> None:
        """Write what is measured at an instant where it is not what was written last."""
        assert self._server is not None
        for number, kind in enumerate(self._fleet.types):
            devices = kind.devices()
            nodes = [_node(path) for path in self._fleet.paths(devices)]
            values = self._fleet.all_values(devices, np.full(len(devices), at_ns))
            for place, (part, now) in enumerate(zip(kind.parts, values, strict=True)):
                rows, columns = np.nonzero(now != self._last[number, place])
                self._last[number, place] = now
                await self._write(self._server, nodes, part, (rows, columns, now[rows, columns]), at_ns)

    async def _write(
        self,
        server: OpcuaSimulator,
        nodes: list[str],
        part: FleetPart,
        changed: tuple[Array, ...],
        at_ns: int,
    ) -> None:
        names, kind = [column.name for column in part.layout.columns], KINDS[part.layout.dtype]
        before = -1
        for row, column, value in zip(*(one.tolist() for one in changed), strict=True):
            if row != before:
                before = row
                await SystemClock().sleep(0)  # other servers of this process answer meanwhile
            name = f"{nodes[row]}.{names[column]}"
            await server.write(name, _value(value, kind), kind, source_ns=at_ns, server_ns=at_ns)
            self.n_changes += 1

    async def _add(self, server: OpcuaSimulator, at_ns: int) -> None:
        for number, kind in enumerate(self._fleet.types):
            devices = kind.devices()
            values = self._fleet.all_values(devices, np.full(len(devices), at_ns))
            for row, path in enumerate(self._fleet.paths(devices)):
                node = _node(path)
                folder = await server.add_folder(node)
                for part, now in zip(kind.parts, values, strict=True):
                    word = KINDS[part.layout.dtype]
                    for column, value in zip(part.layout.columns, now[row].tolist(), strict=True):
                        name = f"{node}.{column.name}"
                        await server.add(name, _value(value, word), word, folder)
                        await server.write(name, _value(value, word), word, source_ns=at_ns, server_ns=at_ns)
            self._last |= {(number, place): now for place, now in enumerate(values)}


def _node(path: str) -> str:
    """The name of a device's folder: its line and its own."""
    return ".".join(path.split("/")[2:])


def _value(value: float, kind: str) -> float | bool:
    return bool(value) if kind == "Boolean" else value
